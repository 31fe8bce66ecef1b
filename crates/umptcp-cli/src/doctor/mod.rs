//! `doctor`: what is in the way, on this host and on the way to a server, and what mends it.

mod handmade;
mod host;
mod probe;
mod trace;

use crate::args::DoctorArgs;
use crate::console::print;
use crate::failure::Class;
use crate::registry::Registry;
use serde::Serialize;

/// How a finding is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Ok,
    /// Worth to know; nothing fails for it.
    Note,
    /// Something does not work.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Finding {
    /// What was looked at: a word, or the name of a NIC.
    about: String,
    level: Level,
    what: String,
    /// Which way, if it is about what a path does to packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    direction: Option<handmade::Way>,
    /// What mends it: a command, or what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

impl Finding {
    fn ok(about: impl Into<String>, what: impl Into<String>) -> Finding {
        Finding { about: about.into(), level: Level::Ok, what: what.into(), direction: None, mend: None }
    }

    fn note(about: impl Into<String>, what: impl Into<String>) -> Finding {
        Finding { level: Level::Note, ..Finding::ok(about, what) }
    }

    fn problem(about: impl Into<String>, what: impl Into<String>) -> Finding {
        Finding { level: Level::Problem, ..Finding::ok(about, what) }
    }

    fn going(self, way: handmade::Way) -> Finding {
        Finding { direction: Some(way), ..self }
    }

    fn mended_by(self, how: impl Into<String>) -> Finding {
        Finding { mend: Some(how.into()), ..self }
    }
}

/// Looks at everything, and prints it. An error when there is a problem.
pub(crate) fn run(args: &DoctorArgs, registry: &Registry) -> anyhow::Result<()> {
    let mut findings = host::examine();
    let fit = !findings.iter().any(|f| f.level == Level::Problem && f.about == host::PRIVILEGE);
    if let Some(server) = &args.server {
        if fit {
            findings.extend(probe::examine(server, args, registry)?);
        } else {
            findings.push(Finding::note("server", "not probed: that needs paths, and these need root"));
        }
    }
    if args.json {
        print(&serde_json::to_string(&findings)?)?;
    } else {
        findings.iter().try_for_each(|finding| print(&line(finding)))?;
    }
    let problems = findings.iter().filter(|f| f.level == Level::Problem).count();
    anyhow::ensure!(problems == 0, Class::Host.failure(format!("problems found: {problems}")));
    Ok(())
}

fn line(finding: &Finding) -> String {
    let level = match finding.level {
        Level::Ok => "ok",
        Level::Note => "note",
        Level::Problem => "PROBLEM",
    };
    let mend = finding.mend.as_ref().map(|how| format!("\n{:8}{:14}mend: {how}", "", "")).unwrap_or_default();
    format!("{level:8}{:14}{}{mend}", finding.about, finding.what)
}

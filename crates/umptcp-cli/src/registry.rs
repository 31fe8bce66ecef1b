//! Algorithms that can be chosen by name.

use crate::failure::usage;
use std::fmt::Write as _;

/// The congestion controllers, schedulers and path policies that the program offers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Registry {
    /// Congestion control algorithms, for `--congestion`.
    pub congestion: umptcp_congestion::Registry,
    /// Packet schedulers, for `--scheduler`.
    pub schedulers: umptcp_scheduler::Registry,
    /// Path policies, for `--path-policy`.
    pub path_policies: umptcp_path_manager::Registry,
}

/// What was chosen by name.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Names<'a> {
    pub(crate) congestion: Option<&'a str>,
    pub(crate) scheduler: Option<&'a str>,
    pub(crate) path_policy: Option<&'a str>,
}

impl Registry {
    /// Everything that umptcp itself provides.
    pub fn standard() -> Registry {
        Registry {
            congestion: umptcp_congestion::built_in(),
            schedulers: umptcp_scheduler::built_in(),
            path_policies: umptcp_path_manager::built_in(),
        }
    }

    /// Rejects unknown names with an error that lists the known ones.
    pub(crate) fn check(&self, names: Names<'_>) -> anyhow::Result<()> {
        let Names { congestion, scheduler, path_policy } = names;
        check("congestion control", congestion, self.congestion.names())?;
        check("scheduler", scheduler, self.schedulers.names())?;
        check("path policy", path_policy, self.path_policies.names())
    }

    /// Adds the names to the help of the options that take one, in `command` and everything below it.
    pub(crate) fn describe(&self, command: clap::Command) -> clap::Command {
        command
            .mut_args(|arg| {
                let names = match arg.get_id().as_str() {
                    "congestion" => list(self.congestion.names()),
                    "scheduler" => list(self.schedulers.names()),
                    "path_policy" => list(self.path_policies.names()),
                    _ => return arg,
                };
                let mut help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                let _ = write!(help, " [known: {names}]");
                arg.help(help)
            })
            .mut_subcommands(|sub| self.describe(sub))
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

fn check<'a>(kind: &str, name: Option<&str>, names: impl Iterator<Item = &'a str>) -> anyhow::Result<()> {
    let names: Vec<&str> = names.collect();
    match name {
        Some(name) if !names.contains(&name) => {
            Err(usage(format!("unknown {kind} {name:?}; known: {}", names.join(", "))))
        }
        _ => Ok(()),
    }
}

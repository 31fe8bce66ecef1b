//! `run`: a program that knows nothing of MPTCP, over MPTCP.

mod by_daemon;
mod own;
mod signals;
mod summary;

use crate::args::{PathArgs, RunArgs, Tier};
use crate::console::say;
use crate::failure::{Class, usage};
use crate::namespace::enter_user;
use crate::registry::Registry;
use crate::session::Session;
use anyhow::Context as _;
use own::By;
use std::ffi::OsString;
use umptcp_capture::{Caller, CaptureError, Program, Running};
use umptcp_tun_driver::paths::{Mode, PathSpec};

/// What a shell says when there is no such command, or it cannot be executed.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// Runs the command to its end. Returns its exit code.
pub(crate) fn run(args: &RunArgs, registry: &Registry, verbose: bool) -> anyhow::Result<u8> {
    let (command, arguments) = args.command()?;
    let program = Program { command, arguments, caller: Caller::find() };
    let own_only = args.own_only();
    let asked = match args.tier {
        Some(Tier::Daemon) if !own_only.is_empty() => {
            let text = format!(
                "the daemon has its own paths and settings: leave out {}, or use --tier own",
                own_only.join(", ")
            );
            return Err(usage(text));
        }
        Some(Tier::Own) => Err("asked for by --tier own".to_owned()),
        None if !own_only.is_empty() => Err(format!("{} is not for the daemon", own_only.join(", "))),
        Some(Tier::Daemon) | None => by_daemon::ask(),
    };
    match asked {
        Ok(captured) => by_daemon::run(args, program, captured, verbose),
        Err(why) if args.tier == Some(Tier::Daemon) => Err(Class::Host.failure(why).into()),
        Err(why) => {
            let by = if needs_no_privilege(&args.paths.paths) {
                // Before any thread is started.
                enter_user()?;
                By::User
            } else {
                check_privilege(&why, &own_only, args.tier)?;
                By::Root
            };
            own::run(args, registry, program, verbose.then_some(why.as_str()), by)
        }
    }
}

/// Whether a stack of the command's own can do without root: all paths are inside UDP, or can be, so that there is
/// nothing to set up outside, and a user namespace has what is needed inside.
fn needs_no_privilege(paths: &[PathSpec]) -> bool {
    let may_be_inside = |path: &PathSpec| matches!(path.mode, Mode::Udp | Mode::Auto);
    let inside_udp = !paths.is_empty() && paths.iter().all(may_be_inside);
    inside_udp && !nix::unistd::geteuid().is_root()
}

/// Without root there is no network namespace. One line says why the daemon is not the way, and what to do.
fn check_privilege(why: &str, own_only: &[&str], tier: Option<Tier>) -> anyhow::Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let text = if tier == Some(Tier::Own) || !own_only.is_empty() {
        format!(
            "{why}, so it takes root: `sudo umptcp run ...`, which runs COMMAND as you; or paths inside UDP only \
             (--path DEV,mode=udp, or mode=auto), if the servers have such, too"
        )
    } else {
        format!(
            "{why}: `sudo umptcp setup` has a daemon run programs for the members of a group; or use \
             `sudo umptcp run -- COMMAND`, which runs COMMAND as you"
        )
    };
    Err(Class::Host.failure(text).into())
}

/// Starts the command, passes signals on to it, and waits for its end. Returns its exit code, or why it could
/// not be started.
fn to_its_end(
    session: &Session,
    start: impl FnOnce() -> Result<Running, CaptureError>,
) -> anyhow::Result<Result<u8, CaptureError>> {
    // It may be told something as soon as it runs, which is before we know of it.
    let (tell, started) = std::sync::mpsc::channel();
    session.pass_on(signals::to(started));
    match start() {
        Ok(running) => {
            // Whoever waits for it is there.
            let _ = tell.send(running.id());
            let code = running.wait().context("cannot wait for the command");
            session.take_back();
            code.map(Ok)
        }
        Err(error) => {
            // A signal that waits for a process is let go.
            drop(tell);
            session.take_back();
            Ok(Err(error))
        }
    }
}

/// What is said of a command that could not be started: the exit code of a shell. Other errors are ours.
fn not_started(error: CaptureError) -> anyhow::Result<u8> {
    let code = match error {
        CaptureError::NotFound { .. } => NOT_FOUND,
        CaptureError::NotExecutable { .. } => NOT_EXECUTABLE,
        error => return Err(error.into()),
    };
    say(&format!("umptcp: {error}"));
    Ok(code)
}

/// As whom the command runs.
fn who(caller: &Caller) -> String {
    match caller {
        Caller::Same => "as this user".to_owned(),
        Caller::User { name, .. } => format!("as {}", name.to_string_lossy()),
    }
}

impl RunArgs {
    /// The command and its arguments: the user's shell when none is given.
    fn command(&self) -> anyhow::Result<(OsString, Vec<OsString>)> {
        match self.command.split_first() {
            Some((command, _)) if command.is_empty() => Err(usage("the command is empty")),
            Some((command, arguments)) => Ok((command.clone(), arguments.to_vec())),
            None => {
                let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
                Ok((shell.unwrap_or_else(|| "/bin/sh".into()), Vec::new()))
            }
        }
    }

    /// Options that only a stack of the command's own has.
    fn own_only(&self) -> Vec<&'static str> {
        // All of them, so that none that is added is forgotten here.
        let PathArgs { paths, congestion, scheduler, path_policy, checksum, no_mptcp, pcap } = &self.paths;
        let given = [
            (!paths.is_empty(), "--path"),
            (congestion.is_some(), "--congestion"),
            (scheduler.is_some(), "--scheduler"),
            (path_policy.is_some(), "--path-policy"),
            (*checksum, "--checksum"),
            (*no_mptcp, "--no-mptcp"),
            (pcap.is_some(), "--pcap"),
            (self.via.via.is_some(), "--via"),
            (!self.publish.is_empty(), "--publish"),
            (self.pcap_inner.is_some(), "--pcap-inner"),
            (self.isolate_localhost, "--isolate-localhost"),
            (self.no_quic, "--no-quic"),
            (self.name.is_some(), "--name"),
        ];
        given.into_iter().filter(|(given, _)| *given).map(|(_, option)| option).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    #[test]
    fn a_daemon_is_not_asked_for_what_it_would_leave_out() {
        let own_only =
            |line: &str| Line::parse_from(["run"].into_iter().chain(line.split(' '))).run.own_only();
        assert!(own_only("--summary --json -- true").is_empty());
        for option in
            ["--congestion olia", "--scheduler ecf", "--path-policy handover", "--checksum", "--no-quic"]
        {
            let name = option.split(' ').next().unwrap();
            assert_eq!(own_only(&format!("{option} -- true")), [name]);
        }
    }
}

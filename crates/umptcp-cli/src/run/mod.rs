//! `run`: a program that knows nothing of MPTCP, over MPTCP.

mod by_daemon;
mod memory;
mod own;
mod signals;
mod summary;

use crate::args::{RunArgs, Tier};
use crate::console::say;
use crate::failure::{Class, usage};
use crate::registry::Registry;
use std::ffi::OsString;
use umptcp_capture::{Caller, CaptureError, Program};

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
            check_privilege(&why, &own_only, args.tier)?;
            own::run(args, registry, program, verbose.then_some(why.as_str()))
        }
    }
}

/// Without root there is no network namespace. One line says why the daemon is not the way, and what to do.
fn check_privilege(why: &str, own_only: &[&str], tier: Option<Tier>) -> anyhow::Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let text = if tier == Some(Tier::Own) || !own_only.is_empty() {
        format!("{why}, so it takes root: `sudo umptcp run ...`, which runs COMMAND as you")
    } else {
        format!(
            "{why}: `sudo umptcp setup` has a daemon run programs for the members of a group; or use \
             `sudo umptcp run -- COMMAND`, which runs COMMAND as you"
        )
    };
    Err(Class::Host.failure(text).into())
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
        let paths = &self.paths;
        let given = [
            (!paths.paths.is_empty(), "--path"),
            (paths.congestion.is_some(), "--congestion"),
            (paths.scheduler.is_some(), "--scheduler"),
            (paths.checksum, "--checksum"),
            (paths.no_mptcp, "--no-mptcp"),
            (paths.pcap.is_some(), "--pcap"),
            (self.pcap_inner.is_some(), "--pcap-inner"),
            (self.isolate_localhost, "--isolate-localhost"),
            (self.no_quic, "--no-quic"),
            (self.name.is_some(), "--name"),
        ];
        given.into_iter().filter(|(given, _)| *given).map(|(_, option)| option).collect()
    }
}

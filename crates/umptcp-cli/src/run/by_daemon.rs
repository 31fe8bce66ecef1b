//! `run` by a daemon: it captures this process, which then becomes the command. Nothing else is different for
//! the command: it stays in the network, and with the files and sockets, that it has.

use super::{not_started, summary, to_its_end, who};
use crate::args::RunArgs;
use crate::console::say;
use crate::session::Session;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use umptcp_capture::{Program, current_network};
use umptcp_control::call::{CaptureCaller, Captured, SummarizeRun};
use umptcp_control::directory::{self, Found, State};
use umptcp_control::state::RunSummary;
use umptcp_control::{Client, Code, ControlError, Greeting, Kind};

/// How long a summary waits for connections that have not ended with the command.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often to look whether they have.
const LOOK: Duration = Duration::from_millis(20);

/// How long to ask again while every place at the daemon's socket is taken: others ask it, too.
const CROWDED: Duration = Duration::from_secs(30);

/// How long to wait before that.
const BREATH: Duration = Duration::from_millis(50);

/// The daemon that has captured this process, and as what.
pub(super) struct Taken {
    socket: PathBuf,
    daemon: Greeting,
    captured: Captured,
}

/// Asks the daemons of this host, one after the other.
///
/// # Errors
/// Why none has captured this process, in words.
pub(super) fn ask() -> Result<Taken, String> {
    let (mut why, mut of_others) = (Vec::new(), Vec::new());
    for found in directory::find() {
        match ask_one(&found) {
            Ok(Some(taken)) => return Ok(taken),
            // It is no daemon.
            Ok(None) => {}
            // Those of others are no daemons for this user.
            Err(ControlError::Denied { .. }) => of_others.push(found.name.clone()),
            Err(ControlError::Dead { .. }) => {}
            Err(error @ ControlError::NotMember { .. }) => why.push(error.to_string()),
            Err(error) => why.push(format!("the daemon {:?} cannot: {error}", found.name)),
        }
    }
    match (why.is_empty(), of_others.first()) {
        (false, _) => Err(why.join("; ")),
        (true, None) => Err("no daemon runs for this user".to_owned()),
        (true, Some(name)) => Err(format!(
            "no daemon runs for this user ({name:?} is for others: `group` in [run] of its configuration says whose programs it takes)"
        )),
    }
}

fn ask_one(found: &Found) -> Result<Option<Taken>, ControlError> {
    match found.state {
        State::Live => {}
        State::Denied => return Err(found.denied()),
        _ => return Ok(None),
    }
    let mut client = connect(&found.socket)?;
    let daemon = client.greeting().clone();
    if daemon.kind != Kind::Up {
        return Ok(None);
    }
    let captured = client.call(&CaptureCaller { network: current_network() })?;
    Ok(Some(Taken { socket: found.socket.clone(), daemon, captured }))
}

/// Connects, as soon as there is a place.
fn connect(socket: &Path) -> Result<Client, ControlError> {
    let end = Instant::now() + CROWDED;
    loop {
        match Client::connect(socket) {
            Err(ControlError::Refused(failure))
                if failure.code == Code::TooManyClients && Instant::now() < end =>
            {
                std::thread::sleep(BREATH);
            }
            other => return other,
        }
    }
}

/// Becomes the program; where more is asked for, runs it to its end. Returns its exit code.
pub(super) fn run(args: &RunArgs, program: Program, taken: Taken, verbose: bool) -> anyhow::Result<u8> {
    let Taken { socket, daemon, captured } = taken;
    if verbose {
        let name = &daemon.name;
        say(&format!(
            "captured by the daemon {name:?}, which answers here, over {}; the command runs {}; servers that it starts \
             are this host's own, and no others are reached by MPTCP than those of the daemon's configuration",
            captured.paths.join(", "),
            who(&program.caller),
        ));
    }
    if !(args.summary || args.json || verbose) {
        return not_started(program.replace_this());
    }
    run_to_end(args, program, || summary_of(&socket, daemon.pid, captured.run))
}

/// Runs the program, and says at its end what became of its connections.
fn run_to_end(
    args: &RunArgs,
    program: Program,
    summarize: impl FnOnce() -> Result<RunSummary, ControlError>,
) -> anyhow::Result<u8> {
    let session = Session::start()?;
    let code = match to_its_end(&session, || program.start_here())? {
        Ok(code) => code,
        Err(error) => return not_started(error),
    };
    match summarize() {
        Ok(done) => summary::tell(&done, args.json),
        Err(error) => say(&format!("umptcp: there is no summary: {error}")),
    }
    Ok(code)
}

/// What became of the connections of a run of the daemon with that process. What the command has written may
/// still be on its way. No place at the socket was taken meanwhile.
fn summary_of(socket: &Path, process: u32, run: u64) -> Result<RunSummary, ControlError> {
    let mut daemon = connect(socket)?;
    if daemon.greeting().pid != process {
        // Another has taken its place.
        return Err(ControlError::Ended);
    }
    let end = Instant::now() + PATIENCE;
    loop {
        let summary = daemon.call(&SummarizeRun { run })?;
        if summary.open == 0 || Instant::now() > end {
            return Ok(summary);
        }
        std::thread::sleep(LOOK);
    }
}

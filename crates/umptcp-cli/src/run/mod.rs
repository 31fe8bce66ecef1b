//! `run`: a program that knows nothing of MPTCP, over MPTCP.

mod memory;
mod signals;
mod summary;

use crate::args::RunArgs;
use crate::console::say;
use crate::control::{self, StackInstance};
use crate::failure::{Class, usage};
use crate::registry::Registry;
use crate::session::Session;
use crate::transport::user_space::{Settings, UserSpace, captured};
use anyhow::Context as _;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use summary::Summary;
use umptcp::{Forwarder, PathInfo};
use umptcp_capture::{
    Addresses, Caller, CaptureError, DEVICE, Local, Namespace, Periodic, Program, follow_servers,
};
use umptcp_control::Kind;

/// The MTU where that of no NIC is known.
const MTU: u16 = 1500;

/// The port of QUIC.
const QUIC: u16 = 443;

/// What a shell says when there is no such command, or it cannot be executed.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// Runs the command to its end. Returns its exit code.
pub(crate) fn run(args: &RunArgs, registry: &Registry, verbose: bool) -> anyhow::Result<u8> {
    let (command, arguments) = args.command()?;
    check_privilege()?;
    let session = Session::start()?;
    let stack = UserSpace::open(&settings(args), registry, &session)?;
    let inside = Inside::set_up(&stack, args)?;
    let caller = Caller::find();
    if verbose {
        say(&describe(&caller, &stack));
    }
    let name = args.name.clone().unwrap_or_else(|| format!("run-{}", std::process::id()));
    let forwarders = vec![inside.outward.clone(), inside.inward.clone()];
    let instance = Arc::new(StackInstance::new(stack.source(), forwarders, registry.clone()));
    let served = control::start(&name, Kind::Run, instance, &session);
    let program = Program { command, arguments, caller };
    // The program may be told something as soon as it runs, which is before we know of it.
    let (tell, started) = std::sync::mpsc::channel();
    session.pass_on(signals::to(started));
    let running = match program.start(&inside.namespace) {
        Ok(running) => running,
        Err(error) => {
            let code = match error {
                CaptureError::NotFound { .. } => NOT_FOUND,
                CaptureError::NotExecutable { .. } => NOT_EXECUTABLE,
                error => return Err(error.into()),
            };
            say(&format!("umptcp: {error}"));
            drop(tell);
            session.take_back();
            stack.close()?;
            return Ok(code);
        }
    };
    // Whoever waits for it is there.
    let _ = tell.send(running.id());
    let code = running.wait().context("cannot wait for the command");
    session.take_back();
    let code = code?;
    let Inside { outward, inward, .. } = &inside;
    // What the program has written may still be on its way.
    stack.finish();
    drop(served);
    if args.summary || verbose || args.json {
        let summary = Summary::new([outward, inward], stack.traffic());
        say(&if args.json { summary.json() } else { summary.text() });
    }
    drop(inside);
    stack.close_finished()?;
    Ok(code)
}

fn settings(args: &RunArgs) -> Settings {
    Settings { inner_pcap: args.pcap_inner.clone(), carry: true, ..Settings::of(&args.paths) }
}

/// Without privilege nothing can be captured: one line says what to do.
fn check_privilege() -> anyhow::Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let text = "run needs root to capture a program's packets: use `sudo umptcp run -- COMMAND`, which runs COMMAND as you";
    Err(Class::Host.failure(text).into())
}

/// One line on how the program is captured, and what is different for it.
fn describe(caller: &Caller, stack: &UserSpace) -> String {
    let who = match caller {
        Caller::Same => "as this user".to_owned(),
        Caller::User { name, .. } => format!("as {}", name.to_string_lossy()),
    };
    format!(
        "capturing as root, by a network namespace, over {}; the command runs {who}; abstract Unix sockets of this \
         host are not reachable from inside",
        stack.paths().into_iter().filter(|name| name != DEVICE).collect::<Vec<_>>().join(", ")
    )
}

/// Where the program runs, and what serves it there. Dropped in this order.
struct Inside {
    _servers: Periodic,
    _trimmer: Periodic,
    outward: Arc<Forwarder>,
    inward: Arc<Forwarder>,
    _local: Option<Local>,
    namespace: Arc<Namespace>,
}

impl Inside {
    fn set_up(stack: &UserSpace, args: &RunArgs) -> anyhow::Result<Inside> {
        let failed = || Class::Host.failure("cannot capture a program");
        let namespace = Arc::new(Namespace::new().with_context(failed)?);
        let paths = stack.path_infos();
        let own: Vec<IpAddr> = paths.iter().flat_map(|p| &p.public_addresses).copied().collect();
        let addresses = Addresses::of_host(&own).with_context(failed)?;
        let inside = addresses.own.clone();
        let tun = namespace.capture(addresses, smallest_mtu(&paths)).with_context(failed)?;
        let localhost = !args.isolate_localhost;
        let local = localhost.then(|| Local::start(&namespace)).transpose().with_context(failed)?;
        let (outward, inward) = stack.capture(captured(DEVICE, tun), &inside).with_context(failed)?;
        if args.no_quic {
            outward.refuse_datagrams(QUIC).with_context(failed)?;
        }
        let (outward, inward) = (Arc::new(outward), Arc::new(inward));
        let trimmer = memory::trim_after([outward.clone(), inward.clone()]).with_context(failed)?;
        let servers = follow_servers(&namespace, serve(inward.clone())).with_context(failed)?;
        Ok(Inside { _servers: servers, _trimmer: trimmer, outward, inward, _local: local, namespace })
    }
}

/// Makes the ports of servers inside reachable from outside. What a server of this host has stays its own.
fn serve(inward: Arc<Forwarder>) -> impl FnMut(u16, bool) -> bool + Send + 'static {
    let mut said = BTreeSet::new();
    move |port, open| {
        if !open {
            inward.close(port);
            return true;
        }
        match inward.open(port) {
            Ok(()) => true,
            Err(error) => {
                if said.insert(port) {
                    tracing::warn!(port, %error, "the server inside is not reachable from outside");
                }
                false
            }
        }
    }
}

/// What fits every path: other protocols than TCP pass as they are.
fn smallest_mtu(paths: &[PathInfo]) -> u16 {
    let of = |path: &PathInfo| {
        let text = std::fs::read_to_string(Path::new("/sys/class/net").join(&path.name).join("mtu")).ok()?;
        text.trim().parse::<u16>().ok()
    };
    paths.iter().filter_map(of).min().unwrap_or(MTU)
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
}

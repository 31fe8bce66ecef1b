//! `run` by a network namespace of the program's own. It takes root, or a user namespace where all paths are
//! inside UDP.

use super::{not_started, summary, to_its_end};
use crate::args::RunArgs;
use crate::console::say;
use crate::control::{self, StackInstance};
use crate::failure::Class;
use crate::memory;
use crate::registry::Registry;
use crate::serving::publish::Publishing;
use crate::serving::service::Origin;
use crate::serving::tasks::{Ends, LAST_WORDS, Tasks, runtime};
use crate::session::Session;
use crate::transport::user_space::{Settings, UserSpace, captured};
use crate::transport::via;
use crate::warnings::Role;
use anyhow::Context as _;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Runtime;
use umptcp::{Forwarder, PathInfo};
use umptcp_capture::{Addresses, Caller, DEVICE, Local, Namespace, Periodic, Program, follow_servers};
use umptcp_control::Kind;
use umptcp_tun_driver::paths::{Mode, PathSpec};
use umptcp_udp_driver::may_send_echoes;

/// The MTU where that of no NIC is known.
const MTU: u16 = 1500;

/// The port of QUIC.
const QUIC: u16 = 443;

/// By whose power the network namespace is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum By {
    /// Root's.
    Root,
    /// The caller's own, in a user namespace that this process has entered.
    User,
}

/// Runs the program to its end. Returns its exit code.
pub(super) fn run(
    args: &RunArgs,
    registry: &Registry,
    program: Program,
    why: Option<&str>,
    by: By,
) -> anyhow::Result<u8> {
    let verbose = why.is_some();
    let session = Session::start()?;
    let stack = UserSpace::open(&settings(args, by)?, registry, &session)?;
    let inside = Inside::set_up(&stack, args)?;
    let published = Published::start(&stack, args, &inside)?;
    if let Some(why) = why {
        say(&describe(&program.caller, &stack, why, by));
    } else if by == By::User {
        say(&format!("umptcp: in a user namespace, {}", what_breaks()));
    }
    for warning in stack.warnings(Role { connects: true, serves: true }) {
        say(&format!("umptcp: warning: {warning}"));
    }
    let forwarders = vec![inside.outward.clone(), inside.inward.clone()];
    let instance = Arc::new(StackInstance::new(stack.source(), forwarders, registry.clone()));
    let served = match &args.name {
        // Before the command is started: what is done by the name would be done to another.
        Some(name) => control::start_as(name, Kind::Run, instance, &session)?,
        None => {
            let name = format!("run-{}", std::process::id());
            control::start(&name, Kind::Run, instance, None, &session)
        }
    };
    let code = match to_its_end(&session, || program.start(&inside.namespace))? {
        Ok(code) => code,
        Err(error) => {
            let code = not_started(error)?;
            stack.close()?;
            return Ok(code);
        }
    };
    if let Some(published) = published {
        published.end();
    }
    let Inside { outward, inward, .. } = &inside;
    // What the program has written may still be on its way.
    stack.finish();
    drop(served);
    if args.summary || verbose || args.json {
        summary::tell(&summary::summarize([outward, inward], stack.traffic()), args.json);
    }
    drop(inside);
    // The exit code is that of the program, which had ended before.
    if let Err(error) = stack.close_finished() {
        say(&format!("{error:#}"));
    }
    Ok(code)
}

fn settings(args: &RunArgs, by: By) -> anyhow::Result<Settings> {
    via::refuse_resolve(&args.via, "run", "programs ask their own resolver")?;
    let via = via::of(&args.via)?;
    let mut settings =
        Settings { inner_pcap: args.pcap_inner.clone(), carry: true, via, ..Settings::of(&args.paths) };
    if by == By::User {
        // The user namespace has every capability inside, and none over the NICs outside.
        for path in settings.paths.iter().filter(|path| path.mode == Mode::Auto) {
            tracing::info!(
                device = path.device,
                "mode=auto: this user may have no native path, so it is inside UDP only"
            );
        }
        settings.paths = settings.paths.iter().flat_map(|path| path.ways(false)).collect();
    }
    Ok(settings)
}

/// One line on how the program is captured, why so, and what is different for it.
fn describe(caller: &Caller, stack: &UserSpace, why: &str, by: By) -> String {
    let (whose, breaks) = match by {
        By::Root => ("as root", String::new()),
        By::User => ("as this user", format!("; {}", what_breaks())),
    };
    format!(
        "capturing {whose} ({why}), by a network namespace, over {}; the command runs {}; abstract Unix sockets of this \
         host are not reachable from inside{breaks}",
        stack.paths().into_iter().filter(|name| name != DEVICE).collect::<Vec<_>>().join(", "),
        super::who(caller),
    )
}

/// What a user namespace keeps a command from.
fn what_breaks() -> String {
    let ping = if may_send_echoes() { "" } else { ", and so does ping (net.ipv4.ping_group_range)" };
    format!(
        "sudo, su, and ssh with files in ssh_config.d fail: they want root's files, which seem to be somebody else's{ping}; of \
         other protocols than TCP, UDP passes"
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
        let both = [outward.clone(), inward.clone()];
        let ended = move || both.iter().map(|forwarder| forwarder.ended()).sum();
        let trimmer = memory::trim_after(ended).with_context(failed)?;
        let servers = follow_servers(&namespace, serve(inward.clone())).with_context(failed)?;
        Ok(Inside { _servers: servers, _trimmer: trimmer, outward, inward, _local: local, namespace })
    }
}

/// Ports of the relay that lead to servers inside.
struct Published {
    ports: Vec<Publishing>,
    runtime: Runtime,
    tasks: Tasks,
    visitors: Ends,
}

impl Published {
    /// `None`: nothing is published.
    fn start(stack: &UserSpace, args: &RunArgs, inside: &Inside) -> anyhow::Result<Option<Published>> {
        if args.publish.is_empty() {
            return Ok(None);
        }
        let runtime = runtime()?;
        let (tasks, visitors) =
            Tasks::new(&runtime, |why| tracing::warn!(why, "a port is no longer published"));
        let from = Origin::Inside(inside.namespace.clone());
        let start = |publish| Publishing::start(stack, publish, from.clone(), &tasks);
        let ports = args.publish.iter().map(start).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Some(Published { ports, runtime, tasks, visitors }))
    }

    /// The program has ended: its last words to visitors still pass.
    fn end(self) {
        let Published { ports, runtime, tasks, visitors } = self;
        drop(ports);
        visitors.wait(&runtime, tasks, LAST_WORDS);
        runtime.shutdown_timeout(LAST_WORDS);
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
        let text = std::fs::read_to_string(
            Path::new("/sys/class/net").join(PathSpec::device_of(&path.name)).join("mtu"),
        )
        .ok()?;
        text.trim().parse::<u16>().ok()
    };
    paths.iter().filter_map(of).min().unwrap_or(MTU)
}

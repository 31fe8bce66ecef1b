//! `proxy`: a proxy on this host, for programs that speak SOCKS 5 or CONNECT of HTTP. With paths inside UDP it
//! takes no privilege.

mod access;
mod dial;
mod http;
mod serve;
mod socks;

pub(crate) use access::Access;
pub(crate) use serve::Proxy;

use crate::args::ProxyArgs;
use crate::console::say;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
use crate::control::{self, StackInstance};
use crate::failure::{Class, usage};
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
use crate::memory;
use crate::registry::Registry;
use crate::serving::publish::Publishing;
use crate::serving::raise_descriptor_limit;
use crate::serving::service::Origin;
use crate::serving::tasks::{LAST_WORDS, Tasks, runtime};
use crate::session::Session;
use crate::transport::user_space::{Settings, UserSpace};
use crate::transport::via;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
use anyhow::Context as _;
use anyhow::anyhow;
use std::sync::mpsc;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
use umptcp_control::Kind;

/// What ends the proxy.
enum End {
    Signal(i32),
    /// It cannot go on.
    Failed(String),
}

/// Serves clients until a signal comes.
pub(crate) fn run(args: &ProxyArgs, registry: &Registry) -> anyhow::Result<()> {
    raise_descriptor_limit();
    let access = Access { at: args.at, allow: args.allow.clone() };
    access.check().map_err(|reason| {
        usage(format!("{reason}; say who may use it (--allow 192.168.0.0/16), or use 127.0.0.1"))
    })?;
    let session = Session::start()?;
    let (to, ends) = mpsc::channel();
    let signals = to.clone();
    // It waits its turn while the proxy starts.
    session.pass_on(move |received| drop(signals.send(End::Signal(received.signal))));
    let settings = Settings { via: via::of(&args.via)?, ..Settings::of(&args.paths) };
    let stack = UserSpace::open(&settings, registry, &session)?;
    let runtime = runtime()?;
    let (tasks, connections) = Tasks::new(&runtime, move |why| drop(to.send(End::Failed(why))));
    let proxy = Proxy::start(&stack, &access, &tasks)?;
    let start = |publish| Publishing::start(&stack, publish, Origin::Host, &tasks);
    let published = args.publish.iter().map(start).collect::<anyhow::Result<Vec<_>>>()?;
    let beside = beside(args, &stack, registry, &session)?;
    say(&format!("SOCKS 5 and HTTP CONNECT at {}, over {}", proxy.at(), stack.paths().join(", ")));
    let end = ends.recv().unwrap_or_else(|_| End::Failed("nothing is left that serves".to_owned()));
    // Who is in a hurry says so again.
    session.take_back();
    drop((proxy, published));
    connections.wait(&runtime, tasks, args.drain);
    // What still runs is reset.
    runtime.shutdown_timeout(LAST_WORDS);
    drop(beside);
    stack.close_within(LAST_WORDS)?;
    match end {
        End::Signal(signal) => {
            tracing::info!(signal, "ended");
            Ok(())
        }
        End::Failed(why) => Err(anyhow!(Class::Host.failure(why))),
    }
}

/// What runs beside the proxy until it is dropped: tools can speak to it, and memory goes back to the system.
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
fn beside(
    args: &ProxyArgs,
    stack: &UserSpace,
    registry: &Registry,
    session: &Session,
) -> anyhow::Result<impl Sized> {
    let trimmer = memory::trim_after_connections_of(stack.source());
    let trimmer = trimmer.context(Class::Host.failure("cannot start a thread"))?;
    let name = args.name.clone().unwrap_or_else(|| format!("proxy-{}", std::process::id()));
    let instance = StackInstance::new(stack.source(), Vec::new(), registry.clone());
    let served = control::start(&name, Kind::Proxy, std::sync::Arc::new(instance), None, session);
    Ok((trimmer, served))
}

/// Nothing, in the portable build.
#[cfg(any(not(target_os = "linux"), umptcp_portable))]
fn beside(args: &ProxyArgs, _: &UserSpace, _: &Registry, _: &Session) -> anyhow::Result<Nothing> {
    match args.name {
        Some(_) => Err(usage("--name is for tools, and in the portable build none can speak to the proxy")),
        None => Ok(Nothing),
    }
}

/// What runs beside the proxy in the portable build.
#[cfg(any(not(target_os = "linux"), umptcp_portable))]
struct Nothing;

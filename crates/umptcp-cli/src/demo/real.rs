//! The demo with real packets: namespaces, TUN devices, the kernel's MPTCP.

use super::act::Act;
use super::network::Network;
use super::plan::{Plan, SERVER, SERVER_STACK, TICK};
use super::view::{Part, View};
use crate::args::{DemoArgs, DemoServer, ListenAddress, StackKind};
use crate::bench::measure::{self, Measured};
use crate::bench::protocol::{Report, Transfer};
use crate::bench::server::serve;
use crate::bench::transfer::Until;
use crate::console;
use crate::namespace::{self, Setting};
use crate::registry::Registry;
use crate::session::Session;
use crate::transport::kernel::Kernel;
use crate::transport::user_space::{Settings, UserSpace};
use crate::transport::{Listener, Stream};
use anyhow::{Context as _, anyhow, bail};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;
use umptcp_tun_driver::device::{Tun, TunOptions};
use umptcp_tun_driver::paths::PathSpec;

/// How long to wait for connections and for the server's report.
const PATIENCE: Duration = Duration::from_secs(20);
/// What needs no privileges.
const INSTEAD: &str = "`umptcp demo --sim`, which shows the same in virtual time and";

pub(super) fn run(
    args: &DemoArgs,
    plan: &Plan,
    view: &View<'_>,
    registry: &Registry,
) -> anyhow::Result<Vec<Part>> {
    namespace::check_tun(INSTEAD)?;
    // Before any other thread starts; see `enter`.
    namespace::enter(INSTEAD)?;
    let session = Session::start()?;
    let scratch = Scratch::new(&session);
    let nics = client_nics(plan)?;
    let (tun, server) = Server::start(args.server, registry, &session, &scratch)?;
    view.introduce(server.name(), "real packets through TUN devices, in private namespaces")?;
    let network = Network::start(plan, nics, tun)?;

    let settings = Settings {
        paths: plan.nics.iter().map(|nic| PathSpec::routed(&nic.name, nic.stack_address.into())).collect(),
        congestion: args.congestion.clone(),
        scheduler: args.scheduler.clone(),
        checksum: args.checksum,
        pcap: args.pcap.clone(),
        record: Some(scratch.0.clone()),
        ..Settings::default()
    };
    let client = UserSpace::open(&settings, registry, &session)?;
    let mut parts = Vec::new();
    for act in Act::ALL {
        parts.push(transfer(plan, view, act, &client, &server, &network)?);
    }
    client.close()?;
    drop(network);
    if let Some(line) = server.kernel_counters() {
        console::print(&format!("\n{line}"))?;
    }
    Ok(parts)
}

/// A temporary directory for the record of changes. All changes disappear with our namespaces, so the host's
/// own records are not involved and nothing must be left behind.
struct Scratch(PathBuf);

impl Scratch {
    fn new(session: &Session) -> Scratch {
        let path = std::env::temp_dir().join(format!("umptcp-demo-{}", std::process::id()));
        let on_signal = path.clone();
        session.on_signal(move || drop(std::fs::remove_dir_all(on_signal)));
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It does not exist if setting up paths failed early.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The client's NICs: TUN devices whose far ends are the ends of the emulated cables.
fn client_nics(plan: &Plan) -> anyhow::Result<Vec<Tun>> {
    let tuns: Vec<Tun> = plan.nics.iter().map(|nic| nic_device(&nic.name)).collect::<anyhow::Result<_>>()?;
    let settings: Vec<Setting<'_>> = plan
        .nics
        .iter()
        .zip(1..)
        .map(|(nic, metric)| Setting {
            device: &nic.name,
            address: Some((nic.address, 24)),
            metric: Some(metric),
        })
        .collect();
    namespace::set_up(&settings).context("cannot set up the client's NICs")?;
    Ok(tuns)
}

fn nic_device(name: &str) -> anyhow::Result<Tun> {
    let options = TunOptions::named(name);
    Tun::open(&options).with_context(|| format!("cannot create the emulated NIC {name}"))
}

/// The server's result of a connection.
struct Served {
    report: anyhow::Result<Report>,
    /// The kernel's counters after it.
    counters: Vec<(String, u64)>,
}

/// The server, in its own namespace.
struct Server {
    kernel: bool,
    /// The server's stack, unless it is the kernel's; removes its paths when dropped.
    _stack: Option<UserSpace>,
    served: mpsc::Receiver<Served>,
    last_counters: std::cell::RefCell<Vec<(String, u64)>>,
}

impl Server {
    /// Starts it. Also returns the far end of its NIC.
    fn start(
        wanted: Option<DemoServer>,
        registry: &Registry,
        session: &Session,
        scratch: &Scratch,
    ) -> anyhow::Result<(Tun, Server)> {
        let (ready, started) = mpsc::channel();
        let (done, served) = mpsc::channel();
        let (registry, session, record) = (registry.clone(), session.clone(), scratch.0.clone());
        // A thread has its own network namespace, and the threads it starts inherit it.
        std::thread::Builder::new()
            .name("server".to_owned())
            .spawn(move || {
                let result = prepare_server(wanted, &registry, &session, record);
                match result {
                    Ok(Prepared { tun, listener, stack }) => {
                        let kernel = stack.is_none();
                        if ready.send(Ok((tun, stack))).is_ok() {
                            accept(&listener, kernel, &done);
                        }
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            })
            .context("cannot start a thread")?;
        let (tun, stack) = started
            .recv()
            .map_err(|_| anyhow!("the server's thread ended"))?
            .context("cannot start the server")?;
        Ok((
            tun,
            Server {
                kernel: stack.is_none(),
                _stack: stack,
                served,
                last_counters: std::cell::RefCell::default(),
            },
        ))
    }

    fn name(&self) -> &'static str {
        if self.kernel { "the kernel's MPTCP" } else { "umptcp" }
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::new(Plan::server_address(self.kernel), super::plan::PORT)
    }

    /// The server's report on the connection that has just ended.
    fn report(&self) -> anyhow::Result<Report> {
        let served = self.served.recv_timeout(PATIENCE).map_err(|_| anyhow!("no report from the server"))?;
        *self.last_counters.borrow_mut() = served.counters;
        served.report.context("at the server's end")
    }

    /// The kernel's counters, if the kernel was the server.
    fn kernel_counters(&self) -> Option<String> {
        let counters = self.last_counters.borrow();
        if !self.kernel || counters.is_empty() {
            return None;
        }
        let of = |name: &str| counters.iter().find(|(n, _)| n == name).map_or(0, |(_, value)| *value);
        let faults: u64 = counters
            .iter()
            .filter(|(n, _)| {
                ["Fallback", "DataCsumErr", "HMacFailure", "DSSNotMatching"].iter().any(|f| n.contains(f))
            })
            .map(|(_, value)| value)
            .sum();
        Some(format!(
            "The server's kernel counted {} MPTCP connections, {} subflows joined to them, {faults} fallbacks, checksum or HMAC failures.",
            of("MPCapableACKRX"),
            of("MPJoinAckRx"),
        ))
    }
}

/// A listening server and the far end of its NIC.
struct Prepared {
    tun: Tun,
    listener: Listener,
    /// `None` if the server is the kernel.
    stack: Option<UserSpace>,
}

fn prepare_server(
    wanted: Option<DemoServer>,
    registry: &Registry,
    session: &Session,
    record: PathBuf,
) -> anyhow::Result<Prepared> {
    namespace::new_network().context("cannot make the server's network namespace")?;
    let tun = nic_device("eth0")?;
    namespace::set_up(&[Setting { device: "eth0", address: Some((SERVER, 24)), metric: Some(1) }])
        .context("cannot set up the server's NIC")?;
    let any = ListenAddress { address: None, port: super::plan::PORT };
    if wanted != Some(DemoServer::Umptcp) {
        match Kernel::mptcp().listen(any) {
            Ok(listener) => {
                return Ok(Prepared { tun, listener: Listener::Kernel(listener, true), stack: None });
            }
            Err(error) if wanted == Some(DemoServer::Kernel) => return Err(error),
            Err(error) => tracing::info!("the server is umptcp: {error:#}"),
        }
    }
    let settings = Settings {
        paths: vec![PathSpec::routed("eth0", SERVER_STACK.into())],
        record: Some(record),
        ..Settings::default()
    };
    let stack = UserSpace::open(&settings, registry, session)?;
    let listener = stack.listen(any)?;
    Ok(Prepared { tun, listener: Listener::UserSpace(Box::new(listener)), stack: Some(stack) })
}

/// Serves connections until the process ends.
fn accept(listener: &Listener, kernel: bool, done: &mpsc::Sender<Served>) {
    while let Ok(stream) = listener.accept() {
        let done = done.clone();
        let kind = if kernel { StackKind::KernelMptcp } else { StackKind::Umptcp };
        let serve = move || {
            let report = serve(&stream, kind);
            drop(stream);
            let counters = namespace::mptcp_counters().unwrap_or_default();
            let _ = done.send(Served { report, counters });
        };
        if let Err(error) = std::thread::Builder::new().name("connection".to_owned()).spawn(serve) {
            tracing::error!(%error, "cannot start a thread");
        }
    }
}

fn transfer(
    plan: &Plan,
    view: &View<'_>,
    act: Act,
    client: &UserSpace,
    server: &Server,
    network: &Network,
) -> anyhow::Result<Part> {
    view.heading(&act.title(plan))?;
    let over: &[&str] = if act == Act::One { &[plan.nics[0].name.as_str()] } else { &[] };
    let before = network.payload(plan.down)?;
    let stream = Stream::UserSpace(client.connect(&[server.address()], PATIENCE, over)?);
    let transfer = measure::Plan {
        up: !plan.down,
        down: plan.down,
        until: if act == Act::Silence { Until::Time(plan.last) } else { Until::Bytes(plan.bytes) },
        verify: true,
        seed: plan.seed,
        interval: TICK,
    };
    let mut failed = None;
    let measured = measure::throughput(&stream, &transfer, &mut |interval| {
        let elapsed = Duration::from_secs_f64(interval.seconds);
        let note = act.note(plan, elapsed);
        if !note.is_empty() {
            network.set_silent(0, elapsed < plan.silent.1);
        }
        if let Err(error) = view.progress(interval, &note) {
            failed.get_or_insert(error);
        }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    let facts = stream.facts()?;
    if facts.mptcp == Some(false) {
        bail!("the connection is not MPTCP: {}", facts.description);
    }
    drop(stream);
    server.report()?;
    let by_nic =
        network.payload(plan.down)?.iter().zip(before).map(|(after, before)| after - before).collect();
    let Measured { up, down, verified, .. } = measured;
    let Transfer { bytes, seconds, .. } = up.or(down).context("nothing was transferred")?;
    Ok(Part { name: act.name(plan), bytes, seconds, by_nic, intact: verified == Some(true) })
}

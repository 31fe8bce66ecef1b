//! One connection of an episode: verified data both ways, at a steady rate.

use super::world::{Side, Stack, World, routed};
use anyhow::{Context as _, Result, bail, ensure};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use umptcp_testbed::command::Running;
use umptcp_testbed::exchange::{Conversation, Generator, Seeded};
use umptcp_testbed::kernel::{KernelListener, KernelStream, Kind};
use umptcp_testbed::topology::Family;

/// What each end sends at a time, 1 Mbit/s in all.
const PIECE: usize = 6_400;
const PAUSE: Duration = Duration::from_millis(50);
/// For a connection to be established.
const CONNECT: Duration = Duration::from_secs(20);
/// How often who waits for a kernel socket looks whether it still should.
const POLL: Duration = Duration::from_millis(250);
/// Lines of what a program says that are kept, and those that messages show.
const LAST: usize = 40;
const SHOWN: usize = 12;

/// What the threads of an end share.
#[derive(Debug, Default)]
struct Shared {
    sent: AtomicU64,
    received: AtomicU64,
    /// To send no more.
    finish: AtomicBool,
    /// The end is no more.
    dead: AtomicBool,
    /// The peer has said that it sends no more.
    ended: AtomicBool,
    /// What went wrong.
    failure: Mutex<Option<String>>,
    said: Mutex<VecDeque<String>>,
}

impl Shared {
    fn fail(&self, what: String) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
    }

    fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn said(&self) -> Vec<String> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// One end.
struct End {
    shared: Arc<Shared>,
    process: Option<Running>,
    threads: Vec<JoinHandle<()>>,
}

/// A connection.
pub(super) struct Flow {
    ends: [End; 2],
    /// The kernel accepts joins only while it listens.
    _listener: Option<KernelListener>,
}

/// What both ends are started with.
pub(super) struct Plan<'a> {
    pub(super) program: &'a Path,
    pub(super) logs: Option<&'a Path>,
    /// Begins the names of logs.
    pub(super) name: String,
    pub(super) seed: u64,
    /// Which connection of the episode it is, from 0.
    pub(super) life: u8,
    pub(super) port: u16,
}

impl Flow {
    /// Listens, connects, and begins to send.
    pub(super) fn connect(world: &World, plan: &Plan<'_>) -> Result<Flow> {
        let nic = &world.site(Side::Server).nics[0];
        let address = match world.stack(Side::Server) {
            Stack::UmptcpRouted => routed(nic, plan.life)[usize::from(world.family == Family::V6)],
            Stack::UmptcpNat | Stack::Kernel => nic.address(world.family),
        };
        let address = SocketAddr::new(address, plan.port);
        let (client, server) = (world.stack(Side::Client), world.stack(Side::Server));

        let mut listener = None;
        let mut process = None;
        if server == Stack::Kernel {
            // For joins to the other NIC's address, too.
            let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
            let any = SocketAddr::new(any, plan.port);
            let bound = world.site(Side::Server).ns.run(|| KernelListener::bind(any, Kind::Mptcp))?;
            bound.socket().set_read_timeout(Some(CONNECT))?;
            listener = Some(bound);
        } else {
            let end = End::program(world, Side::Server, plan, &["listen", &plan.port.to_string()])?;
            end.wait_for("listening on")?;
            process = Some(end);
        }
        let connect = || {
            if client == Stack::Kernel {
                let stream =
                    world.site(Side::Client).ns.run(|| KernelStream::connect(address, Kind::Mptcp))?;
                return End::kernel(stream, plan, Side::Client);
            }
            let (ip, port) = (address.ip().to_string(), plan.port.to_string());
            let end = End::program(world, Side::Client, plan, &["connect", &ip, &port])?;
            end.wait_for("connected:")?;
            Ok(end)
        };
        let connected = match &listener {
            None => connect(),
            Some(listener) => thread::scope(|scope| {
                let accepting = scope.spawn(|| listener.accept());
                let client = connect();
                let stream = accepting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                let client = client?;
                process = Some(End::kernel(stream.context("the kernel accepts")?, plan, Side::Server)?);
                Ok(client)
            }),
        };
        let server_says = process.as_ref().map(|end| end.shared.said()).unwrap_or_default();
        let connected = connected
            .with_context(|| format!("no connection; the server says: {}", server_says.join("\n  ")))?;
        let mut ends = [connected, process.context("there is a server")?];
        if server != Stack::Kernel {
            ends[1].wait_for("connected:")?;
        }
        for (end, side) in ends.iter_mut().zip(Side::BOTH) {
            end.begin(plan, side)?;
        }
        Ok(Flow { ends, _listener: listener })
    }

    fn end(&self, side: Side) -> &End {
        &self.ends[side as usize]
    }

    /// Why it does not go on, if it does not.
    pub(super) fn trouble(&mut self) -> Option<String> {
        for (end, side) in self.ends.iter_mut().zip(Side::BOTH) {
            let what = end.shared.failure().or_else(|| {
                if let Some(status) = end.exited() {
                    return Some(format!("the program has exited ({status})"));
                }
                end.shared.ended.load(Ordering::SeqCst).then(|| "the stream has ended".to_owned())
            });
            if let Some(what) = what {
                return Some(format!("the connection ended at the {side}: {what}"));
            }
        }
        None
    }

    /// Bytes that have arrived, both ways.
    pub(super) fn received(&self) -> u64 {
        self.ends.iter().map(|e| e.shared.received.load(Ordering::SeqCst)).sum()
    }

    /// What the programs have said last.
    pub(super) fn said(&self) -> String {
        let mut text = String::new();
        for side in Side::BOTH {
            let said = self.end(side).shared.said();
            for line in &said[said.len().saturating_sub(SHOWN)..] {
                text.push_str(&format!("\n    {side}: {line}"));
            }
        }
        text
    }

    /// Both ends finish. Everything must arrive in time, and both programs exit without an error.
    pub(super) fn close(mut self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        for end in &self.ends {
            end.shared.finish.store(true, Ordering::SeqCst);
        }
        let closed = |end: &mut End| {
            end.shared.ended.load(Ordering::SeqCst) && (end.process.is_none() || end.exited().is_some())
        };
        while !self.ends.iter_mut().all(closed) {
            if let Some(what) = self.ends.iter().find_map(|e| e.shared.failure()) {
                bail!("while closing: {what}{}", self.said());
            }
            ensure!(
                Instant::now() < deadline,
                "not closed after {patience:?}; sent and received: {:?}{}",
                self.ends.each_ref().map(|e| (
                    e.shared.sent.load(Ordering::SeqCst),
                    e.shared.received.load(Ordering::SeqCst),
                )),
                self.said()
            );
            thread::sleep(PAUSE);
        }
        for (side, end) in Side::BOTH.iter().zip(&mut self.ends) {
            if let Some(status) = end.exited().filter(|status| !status.success()) {
                bail!("the {side} exits with {status}{}", self.said());
            }
        }
        for (from, to) in [(0, 1), (1, 0)] {
            let sent = self.ends[from].shared.sent.load(Ordering::SeqCst);
            let received = self.ends[to].shared.received.load(Ordering::SeqCst);
            ensure!(sent == received, "{sent} bytes were sent and {received} arrived");
        }
        self.stop();
        Ok(())
    }

    /// Kills one side. What is left is the other, if that is umptcp.
    pub(super) fn kill(mut self, side: Side) -> Option<Survivor> {
        let since = Instant::now();
        self.ends[side as usize].kill();
        let survives = self.ends[1 - side as usize].process.is_some();
        survives.then_some(Survivor { flow: self, killed: side, since })
    }

    /// Ends whatever still runs.
    fn stop(&mut self) {
        for end in &mut self.ends {
            end.kill();
        }
    }
}

/// A program whose peer was killed. It must say why its connection ended.
pub(super) struct Survivor {
    flow: Flow,
    killed: Side,
    since: Instant,
}

impl Survivor {
    /// Whether it has ended, and within that time.
    pub(super) fn has_ended(&mut self, patience: Duration) -> Result<bool> {
        let survivor = &mut self.flow.ends[1 - self.killed as usize];
        let Some(status) = survivor.exited() else {
            ensure!(
                self.since.elapsed() < patience,
                "{patience:?} after its peer was killed, umptcp still runs{}",
                self.flow.said()
            );
            return Ok(false);
        };
        // The exit code is there before the last lines are.
        thread::sleep(PAUSE);
        let said = survivor.shared.said();
        ensure!(
            !status.success() && said.iter().any(|line| line.starts_with("umptcp: ")),
            "its peer was killed, and umptcp exits with {status} without saying so: {}",
            said.join("\n    ")
        );
        Ok(true)
    }

    /// How long ago that was.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop();
    }
}

impl End {
    /// The program with a path over each NIC of its side.
    fn program(world: &World, side: Side, plan: &Plan<'_>, arguments: &[&str]) -> Result<End> {
        let site = world.site(side);
        let mut command = Command::new(plan.program);
        command.arg(arguments[0]).args(["-vv", "--scheduler", "round-robin"]);
        for nic in &site.nics {
            let device = &nic.device;
            command.arg("--path");
            command.arg(match world.stack(side) {
                Stack::UmptcpRouted => {
                    let [v4, v6] = routed(nic, plan.life);
                    format!("{device},mode=routed,address={v4},address={v6}")
                }
                Stack::UmptcpNat | Stack::Kernel => device.clone(),
            });
        }
        command.args(&arguments[1..]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A signal from the terminal is for the soak, which ends the programs.
        command.process_group(0);
        command.env("NO_COLOR", "1").env_remove("RUST_BACKTRACE").env_remove("UMPTCP_LOG");
        let mut process = Running::new(site.ns.run(|| command.spawn()).context("cannot start the program")?);
        let stderr = process.child().stderr.take().context("it is piped")?;
        let shared = Arc::new(Shared::default());
        let log = plan.logs.map(|logs| logs.join(format!("{}-{side}.log", plan.name)));
        let listener = listen_to(stderr, Arc::clone(&shared), log)?;
        Ok(End { shared, process: Some(process), threads: vec![listener] })
    }

    /// A socket of the kernel's, which already sends and receives.
    fn kernel(stream: KernelStream, plan: &Plan<'_>, side: Side) -> Result<End> {
        stream.socket().set_read_timeout(Some(POLL))?;
        stream.socket().set_write_timeout(Some(POLL))?;
        // When it is killed, nothing of it lingers.
        stream.socket().set_linger(Some(Duration::ZERO))?;
        let shared = Arc::new(Shared::default());
        let stream = Arc::new(stream);
        let (out, expected) = streams(plan.seed, side);
        let mut threads = Vec::new();
        {
            let (stream, shared) = (Arc::clone(&stream), Arc::clone(&shared));
            threads.push(thread::spawn(move || {
                send(&shared, out, |data| stream.send(data));
                if !shared.dead.load(Ordering::SeqCst) {
                    // From now on closing waits for what is sent.
                    let _ = stream.socket().set_linger(None);
                    if let Err(e) = stream.finish() {
                        shared.fail(format!("the kernel, when finishing: {e}"));
                    }
                }
            }));
        }
        {
            let shared = Arc::clone(&shared);
            threads.push(thread::spawn(move || receive(&shared, expected, |buffer| stream.receive(buffer))));
        }
        Ok(End { shared, process: None, threads })
    }

    /// Sends and receives, if it is a program's.
    fn begin(&mut self, plan: &Plan<'_>, side: Side) -> Result<()> {
        let Some(process) = &mut self.process else { return Ok(()) };
        let mut input = process.child().stdin.take().context("it is piped")?;
        let mut output = process.child().stdout.take().context("it is piped")?;
        let (out, expected) = streams(plan.seed, side);
        let shared = Arc::clone(&self.shared);
        self.threads.push(thread::spawn(move || send(&shared, out, |data| input.write(data))));
        let shared = Arc::clone(&self.shared);
        self.threads.push(thread::spawn(move || receive(&shared, expected, |buffer| output.read(buffer))));
        Ok(())
    }

    /// Waits until the program says that.
    fn wait_for(&self, part: &str) -> Result<()> {
        let deadline = Instant::now() + CONNECT;
        loop {
            let said = self.shared.said();
            if said.iter().any(|line| line.contains(part)) {
                return Ok(());
            }
            let exited = self.threads.first().is_some_and(JoinHandle::is_finished);
            ensure!(
                !exited && Instant::now() < deadline,
                "umptcp does not say {part:?} but:\n    {}",
                said.join("\n    ")
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn exited(&mut self) -> Option<std::process::ExitStatus> {
        self.process.as_mut()?.child().try_wait().ok().flatten()
    }

    /// As SIGKILL does.
    fn kill(&mut self) {
        self.shared.dead.store(true, Ordering::SeqCst);
        self.process = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                self.shared.fail("a thread of the soak has failed".to_owned());
            }
        }
    }
}

/// What a side sends, and what it must receive.
fn streams(seed: u64, side: Side) -> (Generator, Generator) {
    let stream = |side: Side| Seeded { seed: seed * 2 + side as u64, length: u64::MAX }.generator();
    match side {
        Side::Client => (stream(Side::Client), stream(Side::Server)),
        Side::Server => (stream(Side::Server), stream(Side::Client)),
    }
}

/// Whether a call to a socket may be repeated.
fn again(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Sends at a steady rate until it is told to finish.
fn send(shared: &Shared, mut out: Generator, mut write: impl FnMut(&[u8]) -> io::Result<usize>) {
    let mut piece = vec![0; PIECE];
    while !shared.finish.load(Ordering::SeqCst) {
        out.fill(&mut piece);
        let mut left = &piece[..];
        while !left.is_empty() {
            if shared.dead.load(Ordering::SeqCst) {
                return;
            }
            match write(left) {
                Ok(n) => {
                    left = &left[n..];
                    shared.sent.fetch_add(n as u64, Ordering::SeqCst);
                }
                Err(e) if again(&e) => {}
                // The exit code of the program says more.
                Err(e) if e.kind() == ErrorKind::BrokenPipe => return,
                Err(e) => return shared.fail(format!("sending: {e}")),
            }
        }
        thread::sleep(PAUSE);
    }
}

/// Receives to the end and compares every byte.
fn receive(shared: &Shared, mut expected: Generator, mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) {
    let mut buffer = vec![0; 1 << 16];
    let (mut ready, mut used) = (vec![0; 1 << 12], 1 << 12);
    while !shared.dead.load(Ordering::SeqCst) {
        let n = match read(&mut buffer) {
            Ok(0) => return shared.ended.store(true, Ordering::SeqCst),
            Ok(n) => n,
            Err(e) if again(&e) => continue,
            Err(e) => return shared.fail(format!("receiving: {e}")),
        };
        let mut data = &buffer[..n];
        while !data.is_empty() {
            if used == ready.len() {
                expected.fill(&mut ready);
                used = 0;
            }
            let n = data.len().min(ready.len() - used);
            if data[..n] != ready[used..][..n] {
                let at = shared.received.load(Ordering::SeqCst);
                return shared.fail(format!("WRONG BYTES among the {n} from {at}"));
            }
            used += n;
            shared.received.fetch_add(n as u64, Ordering::SeqCst);
            data = &data[n..];
        }
    }
}

/// Keeps the last lines of what a program says, and writes all of them to `log`.
fn listen_to(from: ChildStderr, shared: Arc<Shared>, log: Option<PathBuf>) -> Result<JoinHandle<()>> {
    let mut log = match log {
        Some(path) => Some(File::create(&path).with_context(|| format!("cannot write {}", path.display()))?),
        None => None,
    };
    Ok(thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if let Some(file) = &mut log {
                let _ = writeln!(file, "{line}");
            }
            let mut said = shared.said.lock().unwrap_or_else(PoisonError::into_inner);
            if said.len() == LAST {
                said.pop_front();
            }
            said.push_back(line);
        }
    }))
}

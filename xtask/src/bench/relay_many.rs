//! A relay with many connections: clients by the kernel's MPTCP, most of them idle, the others downloading. What the
//! relay's process takes, how evenly the busy ones are served, and how soon a new connection works when the relay has
//! been begun again.

use super::{Options, median};
use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use umptcp_testbed::Netns;
use umptcp_testbed::command::Running;
use umptcp_testbed::netns::veth;
use umptcp_testbed::program::Folder;
use umptcp_testbed::topology::Direct;

const NAME: &str = "relay-many";

/// Where the server is, behind the relay.
const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
const PORT: u16 = 8684;
const RELAY_PORT: u16 = 8803;

/// What is asked of Jain's index of the busy connections' bytes.
const FAIR: f64 = 0.8;

/// How long a new connection may be tried after the relay has been begun again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Threads that open connections.
const OPENERS: usize = 8;

/// Stack of a thread that carries one connection, in bytes.
const SMALL: usize = 256 << 10;

const READ: usize = 64 << 10;

/// Descriptors that a process has beside its connections.
const SPARE: u64 = 1_000;

/// The names of the figures.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    [NAME].into_iter()
}

/// What one run gives.
struct Measured {
    /// Of the relay alone, with the idle connections, and while the others were busy, in bytes.
    memory: [u64; 3],
    descriptors: [u64; 3],
    /// Jain's index.
    fairness: f64,
    bits_per_second: f64,
    /// From the start of the relay's successor until a new connection works.
    restart: Duration,
}

/// Measures if that is wanted, prints a table and returns all values. Whether all went through.
pub(super) fn run(options: &Options, program: &Path, all: &mut Vec<Value>) -> Result<bool> {
    if !options.wants(NAME) {
        return Ok(true);
    }
    let runs = (0..options.runs).map(|_| measure(options, program)).collect::<Result<Vec<_>>>()?;
    let of = |pick: &dyn Fn(&Measured) -> f64| median(&runs.iter().map(pick).collect::<Vec<_>>());
    println!(
        "\n{:<44} {:>12} {:>12}",
        format!("a relay, {} idle and {} busy connections", options.idle, options.busy),
        "memory MB",
        "descriptors"
    );
    for (i, what) in ["the relay alone", "with the idle ones", "and the busy ones"].into_iter().enumerate() {
        println!(
            "{what:<44} {:>12.1} {:>12.0}",
            of(&|m| m.memory[i] as f64 / 1e6),
            of(&|m| m.descriptors[i] as f64)
        );
    }
    let idle = f64::from(options.idle.max(1));
    println!("{:<44} {:>12.1}", "kB for an idle one", of(&|m| per_idle(m, idle) / 1e3));
    let fair = of(&|m| m.fairness);
    let verdict = if fair >= FAIR { "met" } else { "MISSED" };
    println!("{:<44} {fair:>12.3} {verdict:>12}", format!("Jain's index of the busy ones (≥ {FAIR})"));
    println!("{:<44} {:>12.1}", "Mbit/s of all together", of(&|m| m.bits_per_second / 1e6));
    println!("{:<44} {:>12.0}", "ms until a new one works after a restart", of(&|m| millis(m.restart)));
    all.push(json!({
        "figure": NAME,
        "what": "a relay with idle and busy connections of the kernel's MPTCP",
        "idle": options.idle,
        "busy": options.busy,
        "memory_bytes": runs.iter().map(|m| m.memory).collect::<Vec<_>>(),
        "descriptors": runs.iter().map(|m| m.descriptors).collect::<Vec<_>>(),
        "jain_index": runs.iter().map(|m| m.fairness).collect::<Vec<_>>(),
        "bits_per_second": runs.iter().map(|m| m.bits_per_second).collect::<Vec<_>>(),
        "restart_ms": runs.iter().map(|m| millis(m.restart)).collect::<Vec<_>>(),
    }));
    Ok(true)
}

fn per_idle(m: &Measured, idle: f64) -> f64 {
    m.memory[1].saturating_sub(m.memory[0]) as f64 / idle
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A relay that runs.
struct Relay {
    running: Running,
}

impl Relay {
    fn start(ns: &Netns, program: &Path, config: &Path) -> Result<Relay> {
        let mut command = Command::new(program);
        command.args(["relay", "--config"]).arg(config).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut running = Running::new(ns.run(|| command.spawn()).context("cannot start the relay")?);
        let mut said = BufReader::new(running.child().stderr.take().context("it is piped")?);
        let mut line = String::new();
        while !line.contains("ready: ") {
            line.clear();
            ensure!(said.read_line(&mut line)? > 0, "the relay has ended before it was ready");
        }
        // A line for each connection that ends is read by nobody, but must not block it.
        thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Ok(Relay { running })
    }

    /// Memory in bytes, and descriptors.
    fn takes(&self) -> Result<(u64, u64)> {
        let process = format!("/proc/{}", self.running.id());
        let status = fs::read_to_string(format!("{process}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kilobytes: u64 = resident.trim().trim_end_matches("kB").trim().parse()?;
        Ok((kilobytes * 1024, fs::read_dir(format!("{process}/fd"))?.count() as u64))
    }

    fn end(self) -> Result<()> {
        self.running.signal(nix::sys::signal::Signal::SIGTERM);
        let output = self.running.wait();
        ensure!(output.status.success(), "the relay has failed: {}", output.status);
        Ok(())
    }
}

fn measure(options: &Options, program: &Path) -> Result<Measured> {
    raise_limit(u64::from(options.idle) + u64::from(options.busy) + SPARE)?;
    let net = Direct::new();
    net.client.use_kernel_mptcp();
    let behind = Netns::new("behind");
    veth(&net.server.ns, "behind", &behind, "b0");
    net.server.ns.script("ip addr add 203.0.113.1/24 dev behind");
    behind.script(&format!("ip addr add {SERVER}/24 dev b0"));
    let folder = Folder::new("relay-many");
    let config = folder.path().join("relay.toml");
    let most = options.idle + u32::from(options.busy) + 1_000;
    let text = format!(
        "[relay]\nat = {RELAY_PORT}\nopen = true\n[relay.limits]\nconnections = {most}\nrate = {most}\n\
         [[path]]\ndevice = \"{}\"\n[stack]\ndrain = \"0 s\"\n",
        net.server.nics[0].device
    );
    fs::write(&config, text)?;
    let server = start_server(&behind)?;
    let relay = Relay::start(&net.server.ns, program, &config)?;
    let at = SocketAddr::from((net.server.nics[0].v4, RELAY_PORT));
    // The first one has what all share made.
    let first = net.client.ns.run(|| open(at, b'i'))?;
    let alone = relay.takes()?;
    let idle = net.client.ns.run(|| open_all(at, b'i', options.idle as usize))?;
    let with_idle = relay.takes()?;
    let busy = net.client.ns.run(|| open_all(at, b'b', usize::from(options.busy)))?;
    let (bytes, busy_takes) = download(busy, Duration::from_secs(u64::from(options.seconds)), &relay)?;
    let sum: u64 = bytes.iter().sum();
    let figures = Measured {
        memory: [alone.0, with_idle.0, busy_takes.0],
        descriptors: [alone.1, with_idle.1, busy_takes.1],
        fairness: jain(&bytes),
        bits_per_second: sum as f64 * 8.0 / f64::from(options.seconds),
        restart: Duration::ZERO,
    };
    relay.end()?;
    let began = Instant::now();
    let relay = Relay::start(&net.server.ns, program, &config)?;
    let works = loop {
        match net.client.ns.run(|| open(at, b'i')) {
            Ok(_) => break began.elapsed(),
            Err(error) => ensure!(began.elapsed() < PATIENCE, "no connection after a restart: {error:#}"),
        }
    };
    relay.end()?;
    drop((first, idle, server));
    Ok(Measured { restart: works, ..figures })
}

/// Jain's index of fairness: 1 when all are equal, 1/n when one has everything.
fn jain(bytes: &[u64]) -> f64 {
    let sum: f64 = bytes.iter().map(|b| *b as f64).sum();
    let squares: f64 = bytes.iter().map(|b| (*b as f64).powi(2)).sum();
    if squares == 0.0 { 0.0 } else { sum * sum / (bytes.len() as f64 * squares) }
}

/// The server's end in a process of its own: each process has a descriptor for each connection, and few hosts
/// allow one process twice as many.
fn start_server(ns: &Netns) -> Result<Running> {
    let mut command = Command::new(std::env::current_exe().context("no path of this program")?);
    command.args([SERVE, &SocketAddrV4::new(SERVER, PORT).to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut running = Running::new(ns.run(|| command.spawn()).context("cannot start the server")?);
    let said = running.child().stdout.take().context("it is piped")?;
    let mut line = String::new();
    ensure!(BufReader::new(said).read_line(&mut line)? > 0, "the server has ended before it was ready");
    Ok(running)
}

/// The task's name on the command line.
const SERVE: &str = "relay-many-server";

/// Options of that task.
#[derive(clap::Args)]
pub(crate) struct Serve {
    at: SocketAddr,
}

/// A server whose clients say with their first byte whether they want anything.
pub(crate) fn serve(options: &Serve) -> Result<()> {
    let listener =
        TcpListener::bind(options.at).with_context(|| format!("cannot listen at {}", options.at))?;
    raise_limit(getrlimit(Resource::RLIMIT_NOFILE)?.1)?;
    println!("ready");
    let idle = Arc::new(Mutex::new(Vec::new()));
    for stream in listener.incoming().flatten() {
        let idle = idle.clone();
        // One that cannot have a thread is closed, which its client sees.
        let _ = thread::Builder::new().stack_size(SMALL).spawn(move || {
            let quiet = serve_one(stream);
            // Held until this process ends.
            idle.lock().unwrap_or_else(PoisonError::into_inner).extend(quiet);
        });
    }
    Ok(())
}

/// The stream, if its client wants nothing.
fn serve_one(mut stream: TcpStream) -> Option<TcpStream> {
    let mut wants = [0];
    stream.read_exact(&mut wants).and_then(|()| stream.write_all(&wants)).ok()?;
    if wants != *b"b" {
        return Some(stream);
    }
    let block = vec![0; READ];
    while stream.write_all(&block).is_ok() {}
    None
}

/// A connection by the relay, over which the server has answered.
fn open(relay: SocketAddr, wants: u8) -> Result<TcpStream> {
    // `IPPROTO_MPTCP`.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::from(262)))?;
    socket.connect_timeout(&relay.into(), Duration::from_secs(20))?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    // RFC 8803 §6.2.5: the fixed header, and a Connect TLV.
    let mut request = vec![1, 6, 0x22, 0x63, 0x0a, 5];
    request.extend(PORT.to_be_bytes());
    request.extend(SERVER.to_ipv6_mapped().octets());
    stream.write_all(&request)?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    ensure!(answer == [1, 1, 0x22, 0x63], "the relay answers {answer:?}");
    stream.write_all(&[wants])?;
    stream.read_exact(&mut answer[..1])?;
    stream.set_read_timeout(None)?;
    Ok(stream)
}

fn open_all(relay: SocketAddr, wants: u8, count: usize) -> Result<Vec<TcpStream>> {
    thread::scope(|s| {
        let parts = (0..OPENERS).map(|i| count / OPENERS + usize::from(i < count % OPENERS));
        let one = |part: usize| (0..part).map(|_| open(relay, wants)).collect::<Result<Vec<_>>>();
        let threads: Vec<_> = parts.map(|part| s.spawn(move || one(part))).collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(all)
    })
}

/// Reads from all for so long. Returns how much from each, and what the relay took meanwhile.
fn download(streams: Vec<TcpStream>, time: Duration, relay: &Relay) -> Result<(Vec<u64>, (u64, u64))> {
    let (counting, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let mut threads = Vec::new();
    for mut stream in streams {
        let (counting, over) = (counting.clone(), over.clone());
        let reader = thread::Builder::new().stack_size(SMALL);
        threads.push(reader.spawn(move || -> std::io::Result<u64> {
            let (bytes, mut buffer) = (AtomicU64::new(0), vec![0; READ]);
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            while !over.load(Ordering::Relaxed) {
                match stream.read(&mut buffer) {
                    Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                    Ok(n) if counting.load(Ordering::Relaxed) => {
                        bytes.fetch_add(n as u64, Ordering::Relaxed);
                    }
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(bytes.into_inner())
        })?);
    }
    // All are under way.
    thread::sleep(time / 2);
    counting.store(true, Ordering::Relaxed);
    thread::sleep(time);
    let takes = relay.takes();
    over.store(true, Ordering::Relaxed);
    let mut all = Vec::new();
    for thread in threads {
        all.push(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
    }
    Ok((all, takes?))
}

/// Lets this process, which has one end of all, have so many descriptors.
fn raise_limit(wanted: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted))
            .with_context(|| format!("{wanted} descriptors are needed, and {hard} allowed"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jains_index() {
        assert!((jain(&[5, 5, 5]) - 1.0).abs() < 1e-9);
        assert!((jain(&[9, 0, 0]) - 1.0 / 3.0).abs() < 1e-9);
        assert!((jain(&[1, 3]) - 0.8).abs() < 1e-9);
        assert!(jain(&[0, 0]).abs() < 1e-9 && jain(&[]).abs() < 1e-9);
    }
}

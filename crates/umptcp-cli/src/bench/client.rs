//! The client, which determines what is measured.

use super::histogram::{Summary, Times};
use super::join;
use super::measure::{self, Measured, Plan};
use super::meter::Interval;
use super::protocol::{MAX_CHUNK, Mode, Report, Transfer};
use super::transfer::Until;
use crate::args::{BENCH_PORT, BenchClientArgs, BenchMode, Direction};
use crate::data::Source;
use crate::failure::{Class, Described, usage};
use crate::registry::Registry;
use crate::session::Session;
use crate::transport::via::refuse_resolve;
use crate::transport::{self, Facts, FastOpen, Stream, Subflow, Transport};
use crate::{console, units};
use anyhow::{Context as _, ensure};
use serde::Serialize;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

const DEFAULT_TIME: Duration = Duration::from_secs(10);

/// Longest time between two signs of life on a connection that carries nothing else: less than the server's
/// patience.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// All results of a measurement, as printed by `--json`.
#[derive(Debug, Serialize)]
struct Outcome {
    #[serde(flatten)]
    subject: Subject,
    /// From client to server, as seen by the server.
    up: Option<Rated>,
    /// From server to client, as seen by the client.
    down: Option<Rated>,
    /// Whether SHA-256 is equal at both ends; null without `--verify`.
    verified: Option<bool>,
    /// Times from request to response, or for connecting and receiving the response.
    latency: Option<Summary>,
    /// Requests or connections per second.
    per_second: Option<f64>,
    /// Statistics of data in SYNs; null without `--fast-open`.
    fast_open: Option<FastOpen>,
    subflows: Vec<Subflow>,
    intervals: Vec<Interval>,
    server: Option<Report>,
    /// What went wrong; null if nothing did.
    error: Option<Described>,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Subject {
    version: &'static str,
    mode: &'static str,
    stack: &'static str,
    local: Option<SocketAddr>,
    remote: Option<SocketAddr>,
    /// Whether the connection is MPTCP; null if unknown.
    mptcp: Option<bool>,
    description: Option<String>,
    congestion: Option<String>,
    scheduler: Option<String>,
}

#[derive(Debug, Serialize)]
struct Rated {
    #[serde(flatten)]
    transfer: Transfer,
    bits_per_second: f64,
}

impl From<Transfer> for Rated {
    fn from(transfer: Transfer) -> Rated {
        Rated { bits_per_second: transfer.rate(), transfer }
    }
}

impl Subject {
    fn new(args: &BenchClientArgs, facts: Option<&Facts>) -> Subject {
        Subject {
            version: env!("CARGO_PKG_VERSION"),
            mode: match args.mode {
                BenchMode::Throughput => "throughput",
                BenchMode::Latency => "latency",
                BenchMode::Connections => "connections",
            },
            stack: args.stack.stack.name(),
            local: facts.map(|f| f.local),
            remote: facts.map(|f| f.remote),
            mptcp: facts.and_then(|f| f.mptcp),
            description: facts.map(|f| f.description.clone()),
            congestion: facts.and_then(|f| f.congestion.clone()),
            scheduler: facts.and_then(|f| f.scheduler.clone()),
        }
    }
}

impl Outcome {
    fn new(args: &BenchClientArgs, facts: Option<&Facts>) -> Outcome {
        Outcome {
            subject: Subject::new(args, facts),
            up: None,
            down: None,
            verified: None,
            latency: None,
            per_second: None,
            fast_open: None,
            subflows: Vec::new(),
            intervals: Vec::new(),
            server: None,
            error: None,
        }
    }
}

pub(crate) fn run(args: &BenchClientArgs, registry: &Registry) -> anyhow::Result<()> {
    check(args)?;
    refuse_resolve(&args.via, "bench client", "it resolves the server's name itself")?;
    let (host, port) = args.host.with(args.port, Some(BENCH_PORT)).map_err(usage)?;
    let remotes = transport::resolve(host, port, &args.target)?;
    let session = Session::start()?;
    let transport = Transport::open_via(&args.stack, &args.via, registry, &session)?;
    let mut outcome = match args.mode {
        BenchMode::Throughput => throughput(args, &transport, &remotes),
        BenchMode::Latency => latency(args, &transport, &remotes),
        BenchMode::Connections => connections(args, &transport, &remotes),
    }?;
    outcome.fast_open = transport.fast_open();
    transport.close()?;
    let corrupted = (outcome.verified == Some(false))
        .then(|| Class::Data.failure("the data was corrupted: SHA-256 differs between the ends").into());
    outcome.error = corrupted.as_ref().map(Described::new);
    if args.json {
        console::print(&serde_json::to_string_pretty(&outcome)?)?;
    } else {
        console::print(&outcome.describe())?;
    }
    corrupted.map_or(Ok(()), Err)
}

/// Rejects options that do not apply to the mode.
fn check(args: &BenchClientArgs) -> anyhow::Result<()> {
    let throughput = args.mode == BenchMode::Throughput;
    let needless = [
        (args.bytes.is_some() && !throughput, "--bytes", "throughput"),
        (args.verify && !throughput, "--verify", "throughput"),
        (args.direction != Direction::Up && !throughput, "--direction", "throughput"),
        (args.count.is_some() && throughput, "--count", "latency or --mode connections"),
        (args.request != 1 && args.mode != BenchMode::Latency, "--request", "latency"),
        (args.response != 1 && args.mode != BenchMode::Latency, "--response", "latency"),
        (args.parallel != 1 && args.mode != BenchMode::Connections, "--parallel", "connections"),
    ];
    if let Some((_, option, mode)) = needless.iter().find(|(given, ..)| *given) {
        return Err(usage(format!("{option} requires --mode {mode}")));
    }
    for (option, size) in [("--request", args.request), ("--response", args.response)] {
        if !(1..=MAX_CHUNK as u64).contains(&size) {
            return Err(usage(format!("{option} must be from 1 to {MAX_CHUNK} bytes, not {size}")));
        }
    }
    Ok(())
}

/// Connects, requests `mode` and waits for the response.
fn begin(
    args: &BenchClientArgs,
    transport: &Transport,
    remotes: &[SocketAddr],
    mode: Mode,
) -> anyhow::Result<Stream> {
    let stream = transport.connect(remotes, args.target.timeout)?;
    measure::ask(&stream, mode)?;
    Ok(stream)
}

/// Prints a line of progress, separate from JSON output.
fn report(args: &BenchClientArgs, line: &str) {
    match (args.quiet, args.json) {
        (true, _) => {}
        (false, true) => console::say(line),
        // If standard output is closed, the measurement continues: the exit code may be all that is needed.
        (false, false) => drop(console::print(line)),
    }
}

fn throughput(
    args: &BenchClientArgs,
    transport: &Transport,
    remotes: &[SocketAddr],
) -> anyhow::Result<Outcome> {
    let (up, down) = (args.direction != Direction::Down, args.direction != Direction::Up);
    let plan = Plan {
        up,
        down,
        until: args.bytes.map_or(Until::Time(args.seconds.unwrap_or(DEFAULT_TIME)), Until::Bytes),
        verify: args.verify,
        seed: args.seed,
        interval: args.interval,
    };
    let stream = transport.connect(remotes, args.target.timeout)?;
    let facts = stream.facts()?;
    report(args, &format!("{} to {}, {}", facts.local, facts.remote, facts.description));
    let measured =
        measure::throughput(&stream, &plan, &mut |interval| report(args, &interval.line(up, down)))?;
    let Measured { up, down, verified, server, intervals, subflows } = measured;
    Ok(Outcome {
        up: up.map(Rated::from),
        down: down.map(Rated::from),
        verified,
        server: Some(server),
        intervals,
        subflows,
        // Query again: MPTCP may have been confirmed, or fallen back, only after the first data.
        ..Outcome::new(args, Some(&stream.facts().unwrap_or(facts)))
    })
}

/// When latency and connection measurements end.
struct Limit {
    count: Option<u64>,
    deadline: Instant,
}

impl Limit {
    fn new(args: &BenchClientArgs) -> Limit {
        Limit { count: args.count, deadline: Instant::now() + args.seconds.unwrap_or(DEFAULT_TIME) }
    }

    fn reached(&self, done: u64) -> bool {
        match self.count {
            Some(count) => done >= count,
            None => Instant::now() >= self.deadline,
        }
    }
}

fn latency(args: &BenchClientArgs, transport: &Transport, remotes: &[SocketAddr]) -> anyhow::Result<Outcome> {
    // `check` has made sure that both fit.
    let mode = Mode::Latency { request: args.request as u32, response: args.response as u32 };
    let stream = begin(args, transport, remotes, mode)?;
    let facts = stream.facts()?;
    report(args, &format!("{} to {}, {}", facts.local, facts.remote, facts.description));
    let mut outcome = Outcome::new(args, Some(&facts));

    let mut request = vec![0; args.request as usize];
    Source::new(args.seed, 0, false).fill(&mut request);
    let mut response = vec![0; args.response as usize];
    let mut times = Times::new();
    let mut recent = Times::new();
    let limit = Limit::new(args);
    let started = Instant::now();
    let mut next = args.interval;
    let (mut to, mut from) = (&stream, &stream);
    while !limit.reached(times.count()) {
        let before = Instant::now();
        to.write_all(&request).context("sending a request")?;
        from.read_exact(&mut response).context("receiving a response")?;
        let time = before.elapsed();
        times.add(time);
        recent.add(time);
        if started.elapsed() >= next {
            next += args.interval;
            let count = recent.count();
            let (median, p99) =
                (units::nanoseconds(recent.quantile(0.5)), units::nanoseconds(recent.quantile(0.99)));
            report(
                args,
                &format!(
                    "{:7.1} s   {count} requests, median {median}, p99 {p99}",
                    started.elapsed().as_secs_f64()
                ),
            );
            recent = Times::new();
        }
    }
    let elapsed = started.elapsed().as_secs_f64();
    stream.shutdown_write().context("closing the sending direction")?;
    let server = Report::read(&stream)?;
    ensure!(
        server.requests == Some(times.count()),
        "{} requests were answered, but the server counted {:?}",
        times.count(),
        server.requests
    );
    outcome.latency = times.summary();
    outcome.per_second = Some(times.count() as f64 / elapsed);
    outcome.subflows = stream.subflows();
    outcome.server = Some(server);
    Ok(outcome)
}

fn connections(
    args: &BenchClientArgs,
    transport: &Transport,
    remotes: &[SocketAddr],
) -> anyhow::Result<Outcome> {
    // Tells the server how long the measurement lasts, provides the facts, and reports a failure only once.
    let control = begin(args, transport, remotes, Mode::Connections)?;
    let facts = control.facts()?;
    let mut outcome = Outcome::new(args, Some(&facts));
    report(args, &format!("{} to {}, {}", facts.local, facts.remote, facts.description));
    let limit = &Limit::new(args);
    // Connections started and finished.
    let (begun, ended, stop) = (&AtomicU64::new(0), &AtomicU64::new(0), &AtomicBool::new(false));
    let started = Instant::now();
    let (done, finished) = mpsc::channel::<()>();
    let results = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..args.parallel)
            .map(|_| {
                let done = done.clone();
                scope.spawn(move || {
                    let _done = done;
                    let mut times = Times::new();
                    while !stop.load(Ordering::Relaxed)
                        && !limit.reached(begun.fetch_add(1, Ordering::Relaxed))
                    {
                        let before = Instant::now();
                        if let Err(error) = one_connection(args, transport, remotes) {
                            stop.store(true, Ordering::Relaxed);
                            return Err(error);
                        }
                        times.add(before.elapsed());
                        ended.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(times)
                })
            })
            .collect();
        drop(done);
        let (mut next, mut before) = (args.interval, 0);
        while let Err(RecvTimeoutError::Timeout) =
            finished.recv_timeout(next.saturating_sub(started.elapsed()).min(SIGN_OF_LIFE))
        {
            // Should it fail, so do the connections.
            let _ = (&control).write_all(&[0]);
            if started.elapsed() < next {
                continue;
            }
            next += args.interval;
            let now = ended.load(Ordering::Relaxed);
            let seconds = started.elapsed().as_secs_f64();
            let rate = (now - before) as f64 / args.interval.as_secs_f64();
            report(args, &format!("{seconds:7.1} s   {rate:.0} connections/s"));
            before = now;
        }
        workers.into_iter().map(join).collect::<Vec<_>>()
    });
    let elapsed = started.elapsed().as_secs_f64();
    let mut times = Times::new();
    for result in results {
        let ended = ended.load(Ordering::Relaxed);
        times.merge(&result.with_context(|| format!("after {ended} connections"))?);
    }
    control.shutdown_write().context("closing the sending direction")?;
    outcome.server = Some(Report::read(&control)?);
    outcome.latency = times.summary();
    outcome.per_second = Some(times.count() as f64 / elapsed);
    Ok(outcome)
}

/// Connects, receives one byte, closes.
fn one_connection(
    args: &BenchClientArgs,
    transport: &Transport,
    remotes: &[SocketAddr],
) -> anyhow::Result<()> {
    let stream = begin(args, transport, remotes, Mode::Connection)?;
    let mut rest = [0];
    let n = (&stream).read(&mut rest).context("waiting for the server to close")?;
    ensure!(n == 0, "the server sent more than its response");
    Ok(())
}

impl Outcome {
    /// The result for people.
    fn describe(&self) -> String {
        let mut lines = vec![String::new()];
        for (name, rated) in [("up", &self.up), ("down", &self.down)] {
            if let Some(Rated { transfer, bits_per_second }) = rated {
                let (amount, rate) = (units::bytes(transfer.bytes), units::rate(*bits_per_second));
                lines.push(format!("{name:<8}{amount} in {:.2} s = {rate}", transfer.seconds));
            }
        }
        if let (Some(times), Some(per_second)) = (&self.latency, self.per_second) {
            let what = if self.subject.mode == "latency" { "requests" } else { "connections" };
            lines.push(format!("{:<8}{} {what}, {per_second:.0} per second", "count", times.count));
            let values = [
                ("min", times.min_us),
                ("median", times.median_us),
                ("mean", times.mean_us),
                ("p90", times.p90_us),
                ("p99", times.p99_us),
                ("p99.9", times.p999_us),
                ("max", times.max_us),
            ];
            let values = values.map(|(name, us)| format!("{name} {}", units::nanoseconds((us * 1e3) as u64)));
            lines.push(format!("{:<8}{}", "time", values.join("   ")));
        }
        lines.extend(self.fast_open.as_ref().map(|FastOpen { taken, refused }| {
            let sent = taken + refused;
            format!("{:<8}{sent} SYNs carried data; the server accepted that of {taken}", "SYN")
        }));
        lines.extend(self.subflows.iter().map(Subflow::describe));
        let named = |end: &str, stack: &str, congestion: &Option<String>| match congestion {
            Some(congestion) => format!("{end} {stack} ({congestion})"),
            None => format!("{end} {stack}"),
        };
        let mut ends = vec![named("client", self.subject.stack, &self.subject.congestion)];
        ends.extend(self.server.as_ref().map(|s| named("server", &s.stack, &s.congestion)));
        lines.push(format!("{:<8}{}", "stacks", ends.join(", ")));
        lines.extend(self.verified.map(|equal| match equal {
            true => format!("{:<8}every byte arrived intact (SHA-256 equal at both ends)", "data"),
            false => format!("{:<8}CORRUPTED: SHA-256 differs between the ends", "data"),
        }));
        lines.join("\n")
    }
}

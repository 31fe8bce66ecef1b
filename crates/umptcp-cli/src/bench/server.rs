//! The server.

use super::IDLE_TIMEOUT;
use super::protocol::{self, Header, Mode, Report};
use super::transfer::{self, Until};
use crate::args::{BenchServerArgs, StackKind};
use crate::data::Source;
use crate::failure::Described;
use crate::registry::Registry;
use crate::session::Session;
use crate::transport::{Incoming, Listener, Stream, Transport};
use crate::{console, units};
use anyhow::{Context as _, anyhow, bail};
use std::io::{self, Read, Write as _};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Maximum number of connections served at a time; further ones are refused.
const MAX_ACTIVE: usize = 1024;

/// How far the server has got.
#[derive(Debug, Default)]
struct Progress {
    /// Measurements, without the connections that a measurement of connections consists of.
    begun: u64,
    ended: u64,
    /// Not every measurement succeeded.
    failed: bool,
    /// No more connections can be accepted.
    cut_off: Option<io::Error>,
}

/// What the threads of the server share.
struct Shared {
    kind: StackKind,
    json: bool,
    /// Measurements to serve; `None`: without end.
    count: Option<u64>,
    active: AtomicUsize,
    /// Connections of mode [`Mode::Connection`] served.
    connections: AtomicU64,
    progress: Mutex<Progress>,
    changed: Condvar,
}

impl Shared {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another measurement begins, unless there have been enough.
    fn begin(&self) -> bool {
        let mut progress = self.progress();
        let more = self.count.is_none_or(|count| progress.begun < count);
        progress.begun += u64::from(more);
        more
    }

    fn change(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.progress());
        self.changed.notify_all();
    }

    /// Waits until all measurements have ended. Whether they succeeded.
    fn wait(&self) -> io::Result<bool> {
        let mut progress = self.progress();
        loop {
            if let Some(error) = progress.cut_off.take() {
                return Err(error);
            }
            if self.count.is_some_and(|count| progress.ended >= count) {
                return Ok(!progress.failed);
            }
            progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Serves one connection.
    fn handle(&self, stream: &Stream) {
        let busy = self.active.fetch_add(1, Ordering::Relaxed) >= MAX_ACTIVE;
        let mut from = Incoming::new(stream);
        let mode = receive_mode(stream, &mut from);
        let result = match mode {
            Ok(Mode::Connection) if !busy => {
                self.connections.fetch_add(1, Ordering::Relaxed);
                // The server closes first, so that TIME_WAIT and the client's ports do not limit the rate.
                if let Err(error) = protocol::accept(stream) {
                    self.report_failure(stream, &error.into());
                    self.progress().failed = true;
                }
                self.active.fetch_sub(1, Ordering::Relaxed);
                return;
            }
            _ if !self.begin() => {
                // The client learns why; the server has done what it was started for.
                let _ = protocol::refuse(stream, "this server serves no further measurement");
                self.active.fetch_sub(1, Ordering::Relaxed);
                return;
            }
            Ok(_) if busy => protocol::refuse(stream, "too many measurements at once")
                .map_err(anyhow::Error::from)
                .and_then(|()| Err(anyhow!("{MAX_ACTIVE} measurements are already running"))),
            Ok(mode) => perform(stream, &mut from, mode, self.kind, &self.connections)
                .and_then(|report| print(stream, &report, self.json)),
            Err(error) => Err(error),
        };
        if let Err(error) = &result {
            self.report_failure(stream, error);
        }
        self.active.fetch_sub(1, Ordering::Relaxed);
        self.change(|progress| {
            progress.ended += 1;
            progress.failed |= result.is_err();
        });
    }

    fn report_failure(&self, stream: &Stream, error: &anyhow::Error) {
        let peer = stream.facts().map(|f| f.remote.to_string()).unwrap_or_default();
        if self.json {
            let line = serde_json::json!({ "client": peer, "error": Described::new(error) });
            let _ = console::print(&line.to_string());
        }
        console::say(&format!("umptcp: measurement with {peer} failed: {}", console::describe(error)));
    }
}

pub(crate) fn run(args: &BenchServerArgs, registry: &Registry) -> anyhow::Result<()> {
    let session = Session::start()?;
    let transport = Transport::open(&args.stack, registry, &session)?;
    let listener = transport.listen(args.address)?;
    // Scripts that start the server wait for this line.
    console::print(&format!("listening on {} ({})", listener.local_address()?, args.stack.stack.name()))?;

    let shared = Arc::new(Shared {
        kind: args.stack.stack,
        json: args.json,
        count: if args.once { Some(1) } else { args.count },
        active: AtomicUsize::new(0),
        connections: AtomicU64::new(0),
        progress: Mutex::default(),
        changed: Condvar::new(),
    });
    let accepting = Arc::clone(&shared);
    // Detached: it waits for connections until the listener or the process ends.
    std::thread::Builder::new()
        .name("accept".to_owned())
        .spawn(move || accept_all(&listener, &accepting))
        .context("cannot start a thread")?;
    let succeeded = shared.wait().context("cannot accept connections")?;
    transport.close()?;
    if !succeeded {
        bail!("not every measurement succeeded");
    }
    Ok(())
}

fn accept_all(listener: &Listener, shared: &Arc<Shared>) {
    let error = loop {
        let stream = match listener.accept() {
            Ok(stream) => stream,
            Err(error) => break error,
        };
        let handling = Arc::clone(shared);
        let thread = std::thread::Builder::new().name("connection".to_owned());
        if let Err(error) = thread.spawn(move || handling.handle(&stream)) {
            break error;
        }
    };
    shared.change(|progress| progress.cut_off = Some(error));
}

/// Serves one connection.
pub(crate) fn serve(stream: &Stream, kind: StackKind) -> anyhow::Result<Report> {
    let mut from = Incoming::new(stream);
    let mode = receive_mode(stream, &mut from)?;
    perform(stream, &mut from, mode, kind, &AtomicU64::new(0))
}

/// What the client wants to measure. A request that cannot be read is refused.
fn receive_mode(stream: &Stream, from: &mut Incoming<'_>) -> anyhow::Result<Mode> {
    stream.set_timeout(Some(IDLE_TIMEOUT))?;
    stream.set_no_delay()?;
    let mut header = [0; Header::LEN];
    from.read_exact(&mut header).context("the client did not send a request")?;
    match Header::decode(&header) {
        Ok(header) => Ok(header.mode),
        Err(error) => {
            protocol::refuse(stream, &error.to_string())?;
            Err(error)
        }
    }
}

/// Performs a measurement. `connections` counts those of mode [`Mode::Connection`] that other threads serve.
fn perform(
    stream: &Stream,
    from: &mut Incoming<'_>,
    mode: Mode,
    kind: StackKind,
    connections: &AtomicU64,
) -> anyhow::Result<Report> {
    protocol::accept(stream)?;
    let facts = stream.facts()?;
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        stack: kind.name().to_owned(),
        mptcp: facts.mptcp,
        congestion: facts.congestion,
        ..Report::default()
    };
    match mode {
        Mode::Connection => {}
        Mode::Connections => {
            let before = connections.load(Ordering::Relaxed);
            io::copy(from, &mut io::sink()).context("waiting for the end of the measurement")?;
            report.connections = Some(connections.load(Ordering::Relaxed) - before);
        }
        Mode::Latency { request, response } => {
            report.requests = Some(answer(stream, from, request as usize, response as usize)?);
        }
        mode @ Mode::Throughput { .. } => throughput(stream, from, mode, &mut report)?,
    }
    report.write(stream)?;
    stream.shutdown_write().context("closing the sending direction")?;
    // The client closes after reading the report, which proves that it has arrived.
    let rest = io::copy(from, &mut io::sink()).context("waiting for the client to close")?;
    if rest > 0 {
        bail!("the client sent {rest} bytes after the measurement's end");
    }
    Ok(report)
}

/// Answers requests until the client closes; returns their number.
fn answer(stream: &Stream, from: &mut impl Read, request: usize, response: usize) -> anyhow::Result<u64> {
    let mut buffer = vec![0; request];
    let mut answer = vec![0; response];
    Source::new(0, 1, false).fill(&mut answer);
    let mut count = 0;
    let mut to = stream;
    while from.read(&mut buffer[..1]).context("receiving a request")? == 1 {
        from.read_exact(&mut buffer[1..]).context("receiving a request")?;
        to.write_all(&answer).context("sending a response")?;
        count += 1;
    }
    Ok(count)
}

fn throughput(
    stream: &Stream,
    from: &mut Incoming<'_>,
    mode: Mode,
    report: &mut Report,
) -> anyhow::Result<()> {
    let Mode::Throughput { up, down, verify, bytes, milliseconds, seed } = mode else {
        return Ok(());
    };
    let until = match bytes {
        Some(bytes) => Until::Bytes(bytes),
        None => Until::Time(Duration::from_millis(milliseconds.into())),
    };
    let uncounted = AtomicU64::new(0);
    let send =
        || transfer::send(|frame| stream.send_bytes(frame), Source::new(seed, 1, verify), until, &uncounted);
    let mut receive = || transfer::receive(&mut *from, verify, &AtomicU64::new(0));
    std::thread::scope(|scope| {
        let sender = down.then(|| scope.spawn(send));
        if up {
            report.received = Some(receive()?);
        }
        if let Some(sender) = sender {
            report.sent = Some(super::join(sender)?);
        }
        Ok(())
    })
}

fn print(stream: &Stream, report: &Report, json: bool) -> anyhow::Result<()> {
    let peer = stream.facts().map(|facts| facts.remote.to_string()).unwrap_or_default();
    let line = if json {
        serde_json::to_string(&serde_json::json!({ "client": peer, "report": report }))?
    } else {
        let mut parts = vec![peer];
        for (what, transfer) in [("received", &report.received), ("sent", &report.sent)] {
            if let Some(t) = transfer {
                let amount = units::bytes(t.bytes);
                parts.push(format!("{what} {amount} in {:.2} s, {}", t.seconds, units::rate(t.rate())));
            }
        }
        if let Some(requests) = report.requests {
            parts.push(format!("answered {requests} requests"));
        }
        if let Some(connections) = report.connections {
            parts.push(format!("served {connections} connections"));
        }
        parts.join("  ")
    };
    console::print(&line)
}

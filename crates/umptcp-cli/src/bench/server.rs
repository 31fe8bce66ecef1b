//! The server.

use super::IDLE_TIMEOUT;
use super::protocol::{self, Header, Mode, Report};
use super::transfer::{self, Until};
use crate::args::{BenchServerArgs, StackKind};
use crate::data::Source;
use crate::registry::Registry;
use crate::session::Session;
use crate::transport::{Incoming, Stream, Transport};
use crate::{console, units};
use anyhow::{Context as _, bail};
use std::io::{self, Read, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Maximum number of connections served at a time; further ones are refused.
const MAX_ACTIVE: usize = 1024;

pub(crate) fn run(args: &BenchServerArgs, registry: &Registry) -> anyhow::Result<()> {
    let session = Session::start()?;
    let transport = Transport::open(&args.stack, registry, &session)?;
    let listener = transport.listen(args.address)?;
    // Scripts that start the server wait for this line.
    console::print(&format!("listening on {} ({})", listener.local_address()?, args.stack.stack.name()))?;

    let count = if args.once { Some(1) } else { args.count };
    let active = Arc::new(AtomicUsize::new(0));
    let failed = Arc::new(AtomicBool::new(false));
    let mut workers = Vec::new();
    let mut accepted = 0;
    while count.is_none_or(|count| accepted < count) {
        let stream = listener.accept().context("cannot accept connections")?;
        accepted += 1;
        let (active, failed) = (Arc::clone(&active), Arc::clone(&failed));
        let (kind, json) = (args.stack.stack, args.json);
        let busy = active.fetch_add(1, Ordering::Relaxed) >= MAX_ACTIVE;
        let worker = std::thread::Builder::new()
            .name("connection".to_owned())
            .spawn(move || {
                let served = serve(&stream, kind, busy).and_then(|report| match report {
                    Some(report) => print(&stream, &report, json),
                    None => Ok(()),
                });
                if let Err(error) = served {
                    failed.store(true, Ordering::Relaxed);
                    let peer = stream.facts().map(|f| f.remote.to_string()).unwrap_or_default();
                    console::say(&format!(
                        "umptcp: measurement with {peer} failed: {}",
                        console::describe(&error)
                    ));
                }
                drop(stream);
                active.fetch_sub(1, Ordering::Relaxed);
            })
            .context("cannot start a thread")?;
        workers.push(worker);
        workers.retain(|w| !w.is_finished());
    }
    for worker in workers {
        if worker.join().is_err() {
            failed.store(true, Ordering::Relaxed);
        }
    }
    transport.close()?;
    if failed.load(Ordering::Relaxed) {
        bail!("not every measurement succeeded");
    }
    Ok(())
}

/// Serves one connection; refuses it if `busy`. Returns no report for `Mode::Connection`.
pub(crate) fn serve(stream: &Stream, kind: StackKind, busy: bool) -> anyhow::Result<Option<Report>> {
    stream.set_timeout(Some(IDLE_TIMEOUT))?;
    stream.set_no_delay()?;
    let mut from = Incoming::new(stream);
    let mut header = [0; Header::LEN];
    from.read_exact(&mut header).context("the client did not send a request")?;
    let header = match Header::decode(&header) {
        Ok(_) if busy => {
            protocol::refuse(stream, "too many measurements at once")?;
            bail!("{MAX_ACTIVE} measurements are already running");
        }
        Ok(header) => header,
        Err(error) => {
            protocol::refuse(stream, &error.to_string())?;
            return Err(error);
        }
    };
    protocol::accept(stream)?;
    let facts = stream.facts()?;
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        stack: kind.name().to_owned(),
        mptcp: facts.mptcp,
        congestion: facts.congestion,
        ..Report::default()
    };
    match header.mode {
        // The server closes first, so that TIME_WAIT and the client's ports do not limit the rate.
        Mode::Connection => return Ok(None),
        Mode::Latency { request, response } => {
            report.requests = Some(answer(stream, &mut from, request as usize, response as usize)?);
        }
        mode @ Mode::Throughput { .. } => throughput(stream, &mut from, mode, &mut report)?,
    }
    report.write(stream)?;
    stream.shutdown_write().context("closing the sending direction")?;
    // The client closes after reading the report, which proves that it has arrived.
    let rest = io::copy(&mut from, &mut io::sink()).context("waiting for the client to close")?;
    if rest > 0 {
        bail!("the client sent {rest} bytes after the measurement's end");
    }
    Ok(Some(report))
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
        parts.join("  ")
    };
    console::print(&line)
}

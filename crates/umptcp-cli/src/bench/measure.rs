//! A throughput measurement over an established connection.

use super::meter::{Interval, Meter};
use super::protocol::{self, Header, Mode, Report, Transfer};
use super::transfer::{self, Until};
use super::{IDLE_TIMEOUT, join};
use crate::data::Source;
use crate::transport::{Incoming, Stream, Subflow};
use anyhow::{Context as _, ensure};
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// What to transfer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) up: bool,
    pub(crate) down: bool,
    pub(crate) until: Until,
    pub(crate) verify: bool,
    pub(crate) seed: u64,
    /// Time between readings of the counters.
    pub(crate) interval: Duration,
}

/// The results. Each direction is as seen by its receiver.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) up: Option<Transfer>,
    pub(crate) down: Option<Transfer>,
    /// Whether SHA-256 is equal at both ends, if verifying.
    pub(crate) verified: Option<bool>,
    pub(crate) server: Report,
    pub(crate) intervals: Vec<Interval>,
    pub(crate) subflows: Vec<Subflow>,
}

/// Tells the server what to measure and waits until it accepts.
pub(crate) fn ask(stream: &Stream, mode: Mode) -> anyhow::Result<()> {
    stream.set_timeout(Some(IDLE_TIMEOUT))?;
    stream.set_no_delay()?;
    let mut to = stream;
    to.write_all(&Header { mode }.encode()).context("requesting the measurement")?;
    protocol::read_status(stream)
}

/// Transfers according to `plan` and calls `look` after each interval.
pub(crate) fn throughput(
    stream: &Stream,
    plan: &Plan,
    look: &mut dyn FnMut(&Interval),
) -> anyhow::Result<Measured> {
    let &Plan { up, down, until, verify, seed, interval: _ } = plan;
    let (bytes, milliseconds) = match until {
        Until::Bytes(bytes) => (Some(bytes), 0),
        Until::Time(time) => (None, u32::try_from(time.as_millis()).unwrap_or(u32::MAX)),
    };
    ask(stream, Mode::Throughput { up, down, verify, bytes, milliseconds, seed })?;
    let (sent, received) = (&AtomicU64::new(0), &AtomicU64::new(0));
    let (done, ended) = mpsc::channel::<()>();
    let (intervals, up_sent, down_received, server) = std::thread::scope(|scope| -> anyhow::Result<_> {
        let sender = up.then(|| {
            scope.spawn(move || {
                let transfer = transfer::send(
                    |frame| stream.send_bytes(frame),
                    Source::new(seed, 0, verify),
                    until,
                    sent,
                )?;
                stream.shutdown_write().context("closing the sending direction")?;
                anyhow::Ok(transfer)
            })
        });
        let receiver = scope.spawn(move || {
            // Dropped when this thread ends for any reason, which ends the progress reports.
            let _done = done;
            let mut from = Incoming::new(stream);
            let transfer = down.then(|| transfer::receive(&mut from, verify, received)).transpose()?;
            let server = Report::read(&mut from)?;
            if !up {
                stream.shutdown_write().context("closing the sending direction")?;
            }
            let rest = io::copy(&mut from, &mut io::sink()).context("waiting for the server to close")?;
            ensure!(rest == 0, "the server sent {rest} bytes after its report");
            anyhow::Ok((transfer, server))
        });
        let intervals = watch(stream, plan.interval, &ended, sent, received, look);
        let received = join(receiver);
        let sent = sender.map(join).transpose();
        // If sending failed, the receiver's error is only a consequence.
        match (sent, received) {
            (Err(error), Err(other)) => Err(error.context(format!("{other:#}"))),
            (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
            (Ok(sent), Ok((received, server))) => Ok((intervals, sent, received, server)),
        }
    })?;
    let mut verified = verify.then_some(true);
    let pairs = [(&up_sent, &server.received), (&server.sent, &down_received)];
    for (sent, received) in pairs.iter().filter_map(|(s, r)| Some((s.as_ref()?, r.as_ref()?))) {
        ensure!(
            sent.bytes == received.bytes,
            "{} bytes were sent and {} arrived, without an error from either end",
            sent.bytes,
            received.bytes
        );
        verified = verified.map(|so_far| so_far && sent.sha256.is_some() && sent.sha256 == received.sha256);
    }
    Ok(Measured {
        up: server.received.clone(),
        down: down_received,
        verified,
        server,
        intervals,
        subflows: stream.subflows(),
    })
}

/// Reads the counters until `ended` is closed.
fn watch(
    stream: &Stream,
    every: Duration,
    ended: &mpsc::Receiver<()>,
    sent: &AtomicU64,
    received: &AtomicU64,
    look: &mut dyn FnMut(&Interval),
) -> Vec<Interval> {
    let started = Instant::now();
    let mut meter = Meter::default();
    let mut intervals = Vec::new();
    let mut next = every;
    loop {
        match ended.recv_timeout(next.saturating_sub(started.elapsed())) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return intervals,
        }
        next += every;
        let subflows = stream.subflows();
        // Prefer bytes acknowledged by the peer, if known, to bytes accepted by the send buffer.
        let up = stream.bytes_acknowledged().unwrap_or_else(|| sent.load(Ordering::Relaxed));
        let down = received.load(Ordering::Relaxed);
        let interval = meter.look(started.elapsed().as_secs_f64(), up, down, &subflows);
        look(&interval);
        intervals.push(interval);
    }
}

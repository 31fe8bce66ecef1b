//! One direction of a throughput measurement.

use super::protocol::{MAX_CHUNK, Transfer, read_length};
use crate::data::{Sink, Source};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use std::io::{self, BufRead};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Payload bytes per chunk.
const CHUNK: usize = 256 << 10;

/// When the sender stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Until {
    /// After a number of bytes.
    Bytes(u64),
    /// After a time.
    Time(Duration),
}

/// Passes the data of `source` to `deliver`, in chunks with their lengths, followed by the end mark.
/// `counter` counts the payload bytes as they are passed.
pub(crate) fn send(
    mut deliver: impl FnMut(Bytes) -> io::Result<()>,
    mut source: Source,
    until: Until,
    counter: &AtomicU64,
) -> anyhow::Result<Transfer> {
    let started = Instant::now();
    let mut total = 0;
    let mut repeated = None;
    loop {
        let len = match until {
            Until::Bytes(all) => (all - total).min(CHUNK as u64) as usize,
            Until::Time(time) if started.elapsed() >= time => 0,
            Until::Time(_) => CHUNK,
        };
        let frame = match &repeated {
            Some(frame) if len == CHUNK => Bytes::clone(frame),
            _ => make_frame(&mut source, len),
        };
        if len == CHUNK && !source.is_verified() {
            // Without verification, generating the data must cost nothing.
            repeated.get_or_insert_with(|| frame.clone());
        }
        deliver(frame).context("sending")?;
        if len == 0 {
            break;
        }
        total += len as u64;
        counter.store(total, Ordering::Relaxed);
    }
    Ok(Transfer { bytes: total, seconds: started.elapsed().as_secs_f64(), sha256: source.sha256() })
}

fn make_frame(source: &mut Source, len: usize) -> Bytes {
    let mut frame = vec![0; 4 + len];
    frame[..4].copy_from_slice(&(len as u32).to_be_bytes());
    source.fill(&mut frame[4..]);
    frame.into()
}

/// Receives chunks up to the end mark. What follows stays in `from`.
pub(crate) fn receive(mut from: impl BufRead, verify: bool, counter: &AtomicU64) -> anyhow::Result<Transfer> {
    let mut sink = Sink::new(verify);
    let mut total = 0;
    let mut first = None;
    loop {
        let mut left = read_length(&mut from, MAX_CHUNK).context("receiving")?;
        let started = *first.get_or_insert_with(Instant::now);
        if left == 0 {
            let seconds = started.elapsed().as_secs_f64();
            return Ok(Transfer { bytes: total, seconds, sha256: sink.sha256() });
        }
        while left > 0 {
            let bytes = match from.fill_buf() {
                Ok(bytes) => bytes,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e).context("receiving"),
            };
            ensure!(
                !bytes.is_empty(),
                "the peer closed the connection during the transfer, after {total} bytes"
            );
            let n = bytes.len().min(left);
            sink.take(&bytes[..n]);
            from.consume(n);
            left -= n;
            total += n as u64;
            counter.store(total, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn into(wire: &mut Vec<u8>) -> impl FnMut(Bytes) -> io::Result<()> {
        |frame| {
            wire.extend_from_slice(&frame);
            Ok(())
        }
    }

    #[test]
    fn what_is_sent_is_received_and_no_more() {
        for bytes in [0, 1, CHUNK as u64, 3 * CHUNK as u64 + 17] {
            let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
            let mut wire = Vec::new();
            let up = send(into(&mut wire), Source::new(3, 0, true), Until::Bytes(bytes), &sent).unwrap();
            wire.extend(b"report");
            let mut from = &wire[..];
            let down = receive(&mut from, true, &received).unwrap();
            assert_eq!((up.bytes, down.bytes), (bytes, bytes));
            assert_eq!((sent.into_inner(), received.into_inner()), (bytes, bytes));
            assert_eq!(up.sha256, down.sha256);
            let mut rest = String::new();
            from.read_to_string(&mut rest).unwrap();
            assert_eq!(rest, "report");
        }
    }

    #[test]
    fn time_ends_a_transfer() {
        let counter = AtomicU64::new(0);
        let time = Until::Time(Duration::from_millis(5));
        let up = send(|_| Ok(()), Source::new(3, 0, false), time, &counter).unwrap();
        assert!(up.bytes > 0 && up.seconds >= 0.005 && up.sha256.is_none());
    }

    #[test]
    fn a_stream_cut_short_is_an_error() {
        let counter = AtomicU64::new(0);
        let mut wire = Vec::new();
        send(into(&mut wire), Source::new(3, 0, false), Until::Bytes(100), &counter).unwrap();
        for len in [2, 50, wire.len() - 1] {
            assert!(receive(&wire[..len], false, &counter).is_err(), "{len}");
        }
        assert!(receive(&[0xff; 8][..], false, &counter).is_err());
    }
}

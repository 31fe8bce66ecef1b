//! Tests of the scoreboard: rule by rule here, against a byte-wise model in `model`, and whole transfers in
//! `transfer`.

// A list of one SACK block is meant as such, and so is a block that ends before it starts.
#![allow(clippy::single_range_in_vec_init, clippy::reversed_empty_ranges)]

mod model;
mod rules;
mod transfer;

use super::*;
use crate::buffers::payload::Payload;
use crate::tcp::rtt::RttEstimator;
use crate::types::{Duration, Instant, SubflowOffset};
use alloc::vec::Vec;
use bytes::Bytes;
use core::ops::Range;

type Board = Scoreboard<u32>;

/// The byte at offset `at` of every payload in these tests.
fn byte_at(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

fn payload(start: u64, len: usize) -> Payload {
    Bytes::from((start..start + len as u64).map(byte_at).collect::<Vec<u8>>()).into()
}

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn range(r: Range<u64>) -> Range<SubflowOffset> {
    SubflowOffset(r.start)..SubflowOffset(r.end)
}

/// Sends `len` bytes of data; the tag is the number of the first byte.
fn send(board: &mut Board, now: Instant, len: usize) -> Range<u64> {
    let start = board.nxt().0;
    let r = board.push(now, Outgoing::data(payload(start, len), start as u32, false));
    r.start.0..r.end.0
}

fn ack(board: &mut Board, now: Instant, ack: u64, sacks: &[Range<u64>]) -> AckOutcome {
    let sacks: Vec<_> = sacks.iter().cloned().map(range).collect();
    board.on_ack(now, SubflowOffset(ack), &sacks, None)
}

/// An estimator with one sample.
fn estimator(rtt: Duration) -> RttEstimator {
    let mut e = RttEstimator::new();
    e.sample(Instant::ZERO, rtt);
    e
}

//! Everything random in a stack, drawn from one seed.

use super::hash::Seeded;
use crate::config::TimestampClock;
use crate::tcp::FourTuple;
use core::hash::{Hash, Hasher};
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};
use siphasher::sip::SipHasher13;
use umptcp_types::{Instant, SeqNumber};

/// The generator, and the secret that initial sequence numbers and timestamp offsets are made from.
pub(super) struct Randomness {
    rng: ChaCha12Rng,
    isn_key: (u64, u64),
    clock: Option<TimestampClock>,
}

impl Randomness {
    /// With the secrets of `N` hash tables, which are drawn first: the order of draws is part of what a seed
    /// stands for.
    pub(super) fn new<const N: usize>(seed: [u8; 32]) -> (Self, [Seeded; N]) {
        let mut rng = ChaCha12Rng::from_seed(seed);
        let tables = core::array::from_fn(|_| Seeded::new((rng.next_u64(), rng.next_u64())));
        let isn_key = (rng.next_u64(), rng.next_u64());
        (Randomness { rng, isn_key, clock: None }, tables)
    }

    /// Timestamps are those of `clock`.
    pub(super) fn set_clock(&mut self, clock: Option<TimestampClock>) {
        self.clock = clock;
    }

    pub(super) fn next_u32(&mut self) -> u32 {
        self.rng.next_u32()
    }

    pub(super) fn next_u64(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// A secret for a keyed hash.
    pub(super) fn key(&mut self) -> (u64, u64) {
        (self.rng.next_u64(), self.rng.next_u64())
    }

    fn keyed_hash(&self, tuple: &FourTuple, salt: u64) -> u64 {
        let mut h = SipHasher13::new_with_keys(self.isn_key.0, self.isn_key.1 ^ salt);
        tuple.hash(&mut h);
        h.finish()
    }

    /// RFC 6528 §3: ISN = M + F(four-tuple, secret), M a 4 µs clock.
    pub(super) fn isn(&self, now: Instant, tuple: &FourTuple) -> SeqNumber {
        let clock = (now.as_micros() / 4) as u32;
        SeqNumber(clock.wrapping_add(self.keyed_hash(tuple, 1) as u32))
    }

    /// RFC 7323 §5.4: an offset per pair of addresses, so that the clocks that different peers see are
    /// unrelated.
    pub(super) fn timestamp_offset(&self, tuple: &FourTuple) -> u32 {
        if let Some(TimestampClock { key, millis }) = self.clock {
            // The peer may see another local address than we do, and the same for several stacks.
            let mut h = SipHasher13::new_with_keys(key.0, key.1);
            tuple.remote.ip().hash(&mut h);
            return millis.wrapping_add(h.finish() as u32);
        }
        let mut hosts = *tuple;
        hosts.local.set_port(0);
        hosts.remote.set_port(0);
        self.keyed_hash(&hosts, 2) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::SocketAddr;

    #[test]
    fn with_a_clock_of_the_host_timestamps_go_on_from_one_stack_to_the_next() {
        let at = |last: u8, port| SocketAddr::from(([10, 0, 0, last], port));
        let offset = |seed: u8, clock, local, remote| {
            let (mut r, []) = Randomness::new([seed; 32]);
            r.set_clock(clock);
            r.timestamp_offset(&FourTuple { local, remote })
        };
        let clock = |millis| Some(TimestampClock::new((1, 2), millis));
        // Behind one public address the second stack has another one of its own.
        let first = offset(1, clock(5_000), at(1, 40_000), at(9, 80));
        assert_eq!(offset(2, clock(7_500), at(2, 40_000), at(9, 80)).wrapping_sub(first), 2_500);
        // Other peers see another clock, and so does everybody without one.
        assert_ne!(offset(1, clock(5_000), at(1, 40_000), at(8, 80)), first);
        assert_ne!(offset(1, None, at(1, 1), at(9, 80)), offset(2, None, at(1, 1), at(9, 80)));
    }

    /// RFC 6528 §3: a clock of 4 µs, from a start that only who knows the secret can tell.
    #[test]
    fn initial_sequence_numbers_follow_a_clock_from_a_start_of_their_own() {
        let (ours, []) = Randomness::new([1; 32]);
        let (another, []) = Randomness::new([2; 32]);
        let tuple = |local_port, last| FourTuple {
            local: SocketAddr::from(([10, 0, 0, 1], local_port)),
            remote: SocketAddr::from(([10, 0, 0, last], 80)),
        };
        let at = |micros| Instant::ZERO + umptcp_types::Duration::from_micros(micros);
        let first = ours.isn(at(0), &tuple(4_000, 2)).0;
        // The clock goes once around in 4.8 hours (RFC 9293 §3.4.1).
        for (micros, ticks) in [(3, 0), (4, 1), (4_000, 1_000), (4_000_000_000, 1_000_000_000)] {
            assert_eq!(ours.isn(at(micros), &tuple(4_000, 2)).0.wrapping_sub(first), ticks);
        }
        // Of other ports, other hosts and other secrets nothing is known.
        let starts = [
            first,
            ours.isn(at(0), &tuple(4_001, 2)).0,
            ours.isn(at(0), &tuple(4_000, 3)).0,
            another.isn(at(0), &tuple(4_000, 2)).0,
        ];
        for (k, start) in starts.iter().enumerate() {
            let near = |other: &u32| other.wrapping_sub(*start).min(start.wrapping_sub(*other)) < 1 << 16;
            assert_eq!(starts.iter().filter(|s| near(s)).count(), 1, "{k}: {starts:?}");
        }
    }
}

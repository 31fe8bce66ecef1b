//! Everything random in a stack, drawn from one seed.

use super::hash::Seeded;
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
}

impl Randomness {
    /// With the secrets of `N` hash tables, which are drawn first: the order of draws is part of what a seed
    /// stands for.
    pub(super) fn new<const N: usize>(seed: [u8; 32]) -> (Self, [Seeded; N]) {
        let mut rng = ChaCha12Rng::from_seed(seed);
        let tables = core::array::from_fn(|_| Seeded::new((rng.next_u64(), rng.next_u64())));
        let isn_key = (rng.next_u64(), rng.next_u64());
        (Randomness { rng, isn_key }, tables)
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
        let mut hosts = *tuple;
        hosts.local.set_port(0);
        hosts.remote.set_port(0);
        self.keyed_hash(&hosts, 2) as u32
    }
}

//! Randomness. Each user draws from its own stream, derived from the network's one seed, so that what happens
//! on one link does not shift the draws of another.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// Who draws.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Purpose {
    /// One direction of a link.
    Link = 1,
    /// A host's stack.
    Stack = 2,
    /// The bytes of one direction of a flow.
    Stream = 3,
    /// What an experiment leaves to chance, such as when connections start.
    Scenario = 4,
}

/// The 32-byte seed of user `index` of a kind. Distinct users get distinct ChaCha keys, hence independent
/// streams.
pub fn derive(seed: u64, purpose: Purpose, index: u64) -> [u8; 32] {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(purpose as u64).to_le_bytes());
    key[16..24].copy_from_slice(&index.to_le_bytes());
    let mut out = [0; 32];
    ChaCha8Rng::from_seed(key).fill_bytes(&mut out);
    out
}

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Random(ChaCha8Rng);

impl Random {
    /// The stream that `seed` starts; see [`derive`](fn@derive).
    pub fn new(seed: [u8; 32]) -> Self {
        Random(ChaCha8Rng::from_seed(seed))
    }

    /// Uniform in [0, 1), with 53 random bits.
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with probability `p`. Draws nothing when `p` is 0, so that a link without loss costs nothing.
    pub fn chance(&mut self, p: f64) -> bool {
        p > 0.0 && self.unit() < p
    }
}

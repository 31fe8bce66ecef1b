//! The data of transfers: pseudo-random bytes from a seed, and their SHA-256.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};

/// An endless, reproducible stream of bytes, hashed as it is generated.
pub(crate) struct Source {
    kind: Kind,
}

enum Kind {
    /// Fresh bytes throughout, all hashed.
    Verified { rng: Box<ChaCha8Rng>, hash: Box<Sha256> },
    /// One block repeated, for measurements in which generating the data must cost nothing.
    Repeated { block: Vec<u8>, at: usize },
}

/// Length of the block that is repeated when nothing is verified.
const BLOCK: usize = 1 << 20;

impl Source {
    /// The stream of `seed`. `lane` distinguishes streams of one seed (the two directions of a transfer).
    pub(crate) fn new(seed: u64, lane: u64, verified: bool) -> Source {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(lane);
        let kind = if verified {
            Kind::Verified { rng: Box::new(rng), hash: Box::new(Sha256::new()) }
        } else {
            let mut block = vec![0; BLOCK];
            rng.fill_bytes(&mut block);
            Kind::Repeated { block, at: 0 }
        };
        Source { kind }
    }

    /// The next bytes of the stream.
    pub(crate) fn fill(&mut self, out: &mut [u8]) {
        match &mut self.kind {
            Kind::Verified { rng, hash } => {
                rng.fill_bytes(out);
                hash.update(&*out);
            }
            Kind::Repeated { block, at } => {
                let mut done = 0;
                while done < out.len() {
                    let n = (out.len() - done).min(block.len() - *at);
                    out[done..done + n].copy_from_slice(&block[*at..*at + n]);
                    done += n;
                    *at = (*at + n) % block.len();
                }
            }
        }
    }

    /// Whether every byte is fresh and hashed.
    pub(crate) fn is_verified(&self) -> bool {
        matches!(self.kind, Kind::Verified { .. })
    }

    /// SHA-256 of everything generated so far, in hexadecimal, if verifying.
    pub(crate) fn sha256(self) -> Option<String> {
        match self.kind {
            Kind::Verified { hash, .. } => Some(hex(&hash.finalize())),
            Kind::Repeated { .. } => None,
        }
    }
}

/// Hashes received data, if requested.
pub(crate) struct Sink(Option<Box<Sha256>>);

impl Sink {
    pub(crate) fn new(verified: bool) -> Sink {
        Sink(verified.then(|| Box::new(Sha256::new())))
    }

    pub(crate) fn take(&mut self, bytes: &[u8]) {
        if let Some(hash) = &mut self.0 {
            hash.update(bytes);
        }
    }

    /// SHA-256 of everything taken, in hexadecimal, if verifying.
    pub(crate) fn sha256(self) -> Option<String> {
        self.0.map(|hash| hex(&hash.finalize()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_bytes_however_they_are_taken() {
        for verified in [true, false] {
            let mut whole = vec![0; 3 * BLOCK / 2];
            Source::new(7, 0, verified).fill(&mut whole);
            let mut source = Source::new(7, 0, verified);
            let mut parts = Vec::new();
            // ChaCha consumes whole words even for odd lengths, so the pieces are multiples of 64.
            for len in [64, 4096, BLOCK, 3 * BLOCK / 2 - BLOCK - 4096 - 64] {
                let mut part = vec![0; len];
                source.fill(&mut part);
                parts.extend(part);
            }
            assert!(whole == parts, "verified: {verified}");
            let mut other = vec![0; 64];
            Source::new(7, 1, verified).fill(&mut other);
            assert_ne!(other, whole[..64]);
        }
    }

    #[test]
    fn both_ends_compute_the_same_hash() {
        let mut source = Source::new(1, 0, true);
        let mut sink = Sink::new(true);
        let mut buffer = [0; 1000];
        for len in [1000, 1, 0, 999] {
            source.fill(&mut buffer[..len]);
            sink.take(&buffer[..len]);
        }
        assert_eq!(source.sha256(), sink.sha256());
        // SHA-256 of no bytes (FIPS 180-4).
        let empty = Sink::new(true).sha256().unwrap();
        assert!(empty.starts_with("e3b0c44298fc1c14"), "{empty}");
        assert_eq!(Sink::new(false).sha256(), None);
    }
}

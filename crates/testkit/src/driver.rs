//! Runs targets without a fuzzer: committed inputs, and random mutations of them.

use std::fs;
use std::io;
use std::path::Path;

/// A small generator (SplitMix64): the same seed gives the same inputs on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Seeded.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, 0 when there is none.
    pub fn below(&mut self, n: usize) -> usize {
        (self.number() % n.max(1) as u64) as usize
    }
}

/// The longest input that mutation makes, in bytes.
const MAX_LEN: usize = 4_096;

/// An input made from those of `corpus`: a few bytes changed, pieces cut out, doubled or taken from another.
pub fn mutate(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut data = corpus.get(random.below(corpus.len())).cloned().unwrap_or_default();
    for _ in 0..1 + random.below(8) {
        let at = random.below(data.len() + 1);
        let to = (at + random.below(16)).min(data.len());
        match random.below(6) {
            0 | 1 => {
                if let Some(b) = data.get_mut(at) {
                    *b = random.number() as u8;
                }
            }
            2 => {
                let n = random.below(24);
                let fresh: Vec<u8> = (0..n).map(|_| random.number() as u8).collect();
                data.splice(at..at, fresh);
            }
            3 => drop(data.drain(at..to)),
            4 => {
                let piece = data[at..to].to_vec();
                let place = random.below(data.len() + 1);
                data.splice(place..place, piece);
            }
            _ => {
                if let Some(other) = corpus.get(random.below(corpus.len())) {
                    let from = random.below(other.len() + 1);
                    data.truncate(at);
                    data.extend_from_slice(&other[from..]);
                }
            }
        }
    }
    data.truncate(MAX_LEN);
    data
}

/// The inputs in a directory, in order of their names.
///
/// # Errors
/// When the directory or a file cannot be read.
pub fn read_corpus(directory: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            all.push((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?));
        }
    }
    all.sort();
    Ok(all)
}

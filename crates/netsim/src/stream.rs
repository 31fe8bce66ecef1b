//! Seeded pseudo-random bytes that can be checked from any position, without storing them.

use crate::random::{Purpose, derive};

/// A stream of bytes in which no position looks like another: a byte lost, repeated, moved or changed is
/// noticed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ByteStream {
    key: u64,
}

impl ByteStream {
    /// Stream number `index` of `seed`.
    pub fn new(seed: u64, index: u64) -> ByteStream {
        let k = derive(seed, Purpose::Stream, index);
        ByteStream { key: u64::from_le_bytes([k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7]]) }
    }

    /// The eight bytes from position `8 * index` on: the output function of SplitMix64 (Steele et al., OOPSLA
    /// 2014).
    fn word(self, index: u64) -> [u8; 8] {
        let mut z = self.key.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    }

    /// Writes the bytes from position `offset` on into `out`.
    pub fn fill(self, offset: u64, out: &mut [u8]) {
        let head = (offset.wrapping_neg() % 8).min(out.len() as u64) as usize;
        let (first, rest) = out.split_at_mut(head);
        if !first.is_empty() {
            let at = (offset % 8) as usize;
            first.copy_from_slice(&self.word(offset / 8)[at..at + head]);
        }
        let mut index = (offset + head as u64) / 8;
        let mut words = rest.chunks_exact_mut(8);
        for w in &mut words {
            w.copy_from_slice(&self.word(index));
            index += 1;
        }
        let tail = words.into_remainder();
        let n = tail.len();
        tail.copy_from_slice(&self.word(index)[..n]);
    }

    /// Position of the first byte of `bytes` that is not what the stream has from `offset` on.
    pub fn first_difference(self, offset: u64, bytes: &[u8]) -> Option<u64> {
        let mut expected = [0u8; 4096];
        let mut at = 0;
        while at < bytes.len() {
            let n = (bytes.len() - at).min(expected.len());
            self.fill(offset + at as u64, &mut expected[..n]);
            if expected[..n] != bytes[at..at + n] {
                let i = expected.iter().zip(&bytes[at..at + n]).position(|(a, b)| a != b).unwrap_or(0);
                return Some(offset + (at + i) as u64);
            }
            at += n;
        }
        None
    }

    /// The bytes from `offset` on, `len` of them.
    pub fn bytes(self, offset: u64, len: usize) -> Vec<u8> {
        let mut v = vec![0; len];
        self.fill(offset, &mut v);
        v
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_gives_the_same_bytes_and_changes_are_found() {
        let s = ByteStream::new(5, 1);
        let whole = s.bytes(0, 20_000);
        for (from, to) in [(0, 1), (1, 8), (7, 9), (8, 16), (3, 4099), (4096, 20_000), (13, 13)] {
            assert_eq!(s.bytes(from as u64, to - from), whole[from..to]);
            assert_eq!(s.first_difference(from as u64, &whole[from..to]), None);
        }
        let mut changed = whole.clone();
        changed[12_345] ^= 1;
        assert_eq!(s.first_difference(0, &changed), Some(12_345));
        assert_eq!(s.first_difference(1, &whole[..10]), Some(1));
        assert_ne!(ByteStream::new(5, 2).bytes(0, 8), whole[..8]);
        assert_ne!(ByteStream::new(6, 1).bytes(0, 8), whole[..8]);
    }
}

//! The Internet checksum (RFC 1071) over scattered bytes.

use std::net::IpAddr;

/// A running one's-complement sum that may be fed in pieces of any length.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Sum {
    total: u64,
    /// An odd number of bytes was fed so far: the next byte is a low one.
    odd: bool,
}

impl Sum {
    /// Adds `bytes` as they follow in the packet.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(4);
        let mut sum: u64 = 0;
        for w in &mut words {
            // Two 16-bit columns at once: 2^32 is 1 modulo 65,535, as 2^16 is.
            sum += u64::from(u32::from_be_bytes([w[0], w[1], w[2], w[3]]));
        }
        let mut rest = [0u8; 4];
        rest[..words.remainder().len()].copy_from_slice(words.remainder());
        sum += u64::from(u32::from_be_bytes(rest));
        let mut folded = u64::from(fold(sum));
        if self.odd {
            // RFC 1071 §2 (B): the sum of byte-swapped words is the byte-swapped sum.
            folded = u64::from((folded as u16).swap_bytes());
        }
        self.total += folded;
        self.odd ^= bytes.len() % 2 == 1;
    }

    /// Adds a 16-bit number; only meaningful between pieces of even length.
    pub(crate) fn add_u16(&mut self, v: u16) {
        self.total += u64::from(v);
    }

    /// The sum, not complemented.
    pub(crate) fn folded(self) -> u16 {
        fold(self.total)
    }
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The sum of the pseudo-header of a TCP segment of `len` bytes (RFC 9293 §3.1, RFC 8200 §8.1).
pub(crate) fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, len: u32) -> Sum {
    let mut sum = Sum::default();
    match (source, destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            sum.add(&s.octets());
            sum.add(&d.octets());
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            sum.add(&s.octets());
            sum.add(&d.octets());
        }
        _ => {}
    }
    sum.add(&len.to_be_bytes());
    sum.add_u16(u16::from(protocol));
    sum
}

/// The checksum of a whole header, its own field counted as it stands: 0 when the header is right.
pub(crate) fn of(bytes: &[u8]) -> u16 {
    let mut sum = Sum::default();
    sum.add(bytes);
    !sum.folded()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_1071_example() {
        // RFC 1071 §3: the words 0001 f203 f4f5 f6f7 sum to ddf2 with the carries folded in.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        let mut sum = Sum::default();
        sum.add(&bytes);
        assert_eq!(sum.folded(), 0xddf2);
        assert_eq!(of(&bytes), !0xddf2);
    }

    #[test]
    fn pieces_of_any_length_sum_alike() {
        let bytes: Vec<u8> = (0..1000u32).map(|i| (i * 7 + i / 3) as u8).collect();
        let mut whole = Sum::default();
        whole.add(&bytes);
        for cuts in [[1usize, 2], [3, 500], [999, 1000], [0, 7], [333, 334]] {
            let mut parts = Sum::default();
            parts.add(&bytes[..cuts[0]]);
            parts.add(&bytes[cuts[0]..cuts[1]]);
            parts.add(&bytes[cuts[1]..]);
            assert_eq!(parts.folded(), whole.folded(), "cut at {cuts:?}");
        }
    }
}

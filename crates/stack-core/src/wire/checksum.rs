//! The Internet checksum (RFC 1071): one's complement sums of big-endian 16-bit words.
//!
//! A *sum* is a `u64` that stands for its value modulo 2¹⁶ − 1; sums may be added with [`add`] in any order
//! before [`fold`] reduces them. The value that goes into a header is the complement, `!fold(sum)`. The DSS
//! checksum (RFC 8684 §3.3.1) uses the same sums, so one pass over the payload serves both.

use core::net::IpAddr;

/// `a + b` with end-around carry. Never overflows.
pub const fn add(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    // After a carry the sum is at most 2⁶⁴ − 2, so adding the carry cannot overflow again.
    sum + carry as u64
}

/// Reduces a sum to 16 bits. *Not* complemented. The result is 0 only when every summed bit was 0.
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

/// Adds the words of `data`, which starts at an even offset, to `initial`. An odd last byte counts as the
/// high half of a word whose low half is zero.
pub fn sum(data: &[u8], initial: u64) -> u64 {
    // RFC 1071 §2(B): the sum does not depend on byte order, except for a final swap, so words are loaded
    // in native order. 64-byte blocks into separate lanes of 32-bit halves: the compiler vectorises this,
    // and a lane cannot overflow before 2³² blocks.
    let mut lanes = [0u64; 8];
    let (blocks, tail) = data.as_chunks::<64>();
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            let word = u64::from_ne_bytes(*word);
            *lane += (word & 0xffff_ffff) + (word >> 32);
        }
    }
    let mut total = lanes.iter().fold(0, |acc, lane| add(acc, *lane));
    let (words, tail) = tail.as_chunks::<4>();
    for word in words {
        total = add(total, u64::from(u32::from_ne_bytes(*word)));
    }
    let mut last = [0u8; 4];
    last[..tail.len()].copy_from_slice(tail);
    total = add(total, u64::from(u32::from_ne_bytes(last)));
    add(initial, u64::from(u16::from_be(fold(total))))
}

/// Adds `part`, the sum of bytes that stand at `offset` within the whole, to `total`. At an odd offset the
/// bytes change places within their words, which swaps the halves of the sum (RFC 1071 §2(B)).
pub const fn add_at(total: u64, part: u64, offset: usize) -> u64 {
    let folded = fold(part);
    add(total, if offset.is_multiple_of(2) { folded } else { folded.swap_bytes() } as u64)
}

/// Adds the words of the concatenation of `slices` to `initial`. The slices may have odd lengths.
pub fn sum_slices<'a>(slices: impl Iterator<Item = &'a [u8]>, initial: u64) -> u64 {
    let mut total = initial;
    let mut offset = 0usize;
    for slice in slices {
        total = add_at(total, sum(slice, 0), offset);
        offset = offset.wrapping_add(slice.len());
    }
    total
}

/// Sum of the pseudo-header of an upper-layer packet of `len` bytes (RFC 9293 §3.1, RFC 8200 §8.1).
pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, len: u32) -> u64 {
    let address = |a: IpAddr| match a {
        IpAddr::V4(a) => {
            let a = u64::from(a.to_bits());
            (a >> 16) + (a & 0xffff)
        }
        IpAddr::V6(a) => a.segments().iter().map(|s| u64::from(*s)).sum(),
    };
    address(src) + address(dst) + u64::from(protocol) + u64::from(len >> 16) + u64::from(len & 0xffff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// The definition, one word at a time.
    fn reference(data: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in data.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum >> 16) + (sum & 0xffff);
        }
        sum as u16
    }

    #[test]
    fn example_of_rfc_1071() {
        // RFC 1071 §3: the sum of these bytes is ddf2.
        assert_eq!(fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7], 0)), 0xddf2);
        assert_eq!(fold(sum(&[], 0)), 0);
        assert_eq!(fold(sum(&[0xab], 0)), 0xab00);
        assert_eq!(fold(u64::MAX), 0xffff);
        assert_eq!(fold(add(u64::MAX, u64::MAX)), 0xffff);
    }

    #[test]
    fn all_ones_of_every_length_fold_without_loss() {
        for len in 0..300 {
            let data = std::vec![0xff; len];
            assert_eq!(fold(sum(&data, 0)), reference(&data), "length {len}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(data in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(fold(sum(&data, 0)), reference(&data));
        }

        #[test]
        fn slices_sum_like_their_concatenation(
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..12),
            initial in any::<u64>(),
        ) {
            let whole: Vec<u8> = parts.concat();
            let got = sum_slices(parts.iter().map(|p| p.as_slice()), initial);
            prop_assert_eq!(fold(got), fold(sum(&whole, initial)));
        }

        #[test]
        fn pseudo_header_is_the_sum_of_its_bytes(src in any::<[u8; 16]>(), dst in any::<[u8; 16]>(), len in any::<u32>()) {
            let mut bytes = Vec::new();
            bytes.extend_from_slice(&src);
            bytes.extend_from_slice(&dst);
            bytes.extend_from_slice(&len.to_be_bytes());
            bytes.extend_from_slice(&[0, 0, 0, 6]);
            prop_assert_eq!(fold(pseudo_header(src.into(), dst.into(), 6, len)), reference(&bytes));
            let (s4, d4) = ([src[0], src[1], src[2], src[3]], [dst[0], dst[1], dst[2], dst[3]]);
            let len = len & 0xffff;
            let mut bytes = Vec::new();
            bytes.extend_from_slice(&s4);
            bytes.extend_from_slice(&d4);
            bytes.extend_from_slice(&[0, 6]);
            bytes.extend_from_slice(&(len as u16).to_be_bytes());
            prop_assert_eq!(fold(pseudo_header(s4.into(), d4.into(), 6, len)), reference(&bytes));
        }
    }
}

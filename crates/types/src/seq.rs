//! Sequence numbers. There are four types, so that the compiler keeps them apart.
//!
//! | type | width | where | starts at |
//! |---|---|---|---|
//! | [`SeqNumber`] | 32, wraps | TCP header | random ISN |
//! | [`SubflowOffset`] | 64 | inside a subflow | SYN = 0, first byte = 1 |
//! | [`DataSeq`] | 64, wraps | DSS option | IDSN, hashed from the key |
//! | [`DataOffset`] | 64 | inside a connection | MP_CAPABLE = 0, first byte = 1 |
//!
//! The two offsets count from the start of their space and cannot wrap in practice, so code inside the stack
//! compares them as plain integers. The wire types are only used when packets are read and written.

use core::fmt;
use core::ops::{Add, AddAssign, Sub};

/// A TCP sequence number as in the TCP header (RFC 9293 §3.4): modulo 2³².
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SeqNumber(pub u32);

impl SeqNumber {
    /// The signed distance from `other` to `self`, meaningful if they are within 2³¹ of each other.
    pub const fn distance(self, other: SeqNumber) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }

    /// Whether `self` precedes `other` in sequence space.
    pub const fn before(self, other: SeqNumber) -> bool {
        self.distance(other) < 0
    }

    /// Whether `self` follows `other` in sequence space.
    pub const fn after(self, other: SeqNumber) -> bool {
        self.distance(other) > 0
    }

    /// `self + n`, modulo 2³².
    pub const fn wrapping_add(self, n: u32) -> SeqNumber {
        SeqNumber(self.0.wrapping_add(n))
    }
}

impl fmt::Debug for SeqNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seq{}", self.0)
    }
}

/// A position in a subflow's sequence space relative to its ISN, unwrapped to 64 bits.
///
/// The SYN occupies 0 and the first payload byte is 1, as in RFC 8684 §3.3.1, so the low 32 bits are the
/// "Subflow Sequence Number" of a DSS option.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SubflowOffset(pub u64);

impl SubflowOffset {
    /// The offset nearest to `near` that has the number `seq` on the wire, given the `isn`. `None` if that
    /// would be before the SYN.
    pub const fn from_wire(seq: SeqNumber, isn: SeqNumber, near: SubflowOffset) -> Option<SubflowOffset> {
        let near_wire = isn.wrapping_add(near.0 as u32);
        match near.0.checked_add_signed(seq.distance(near_wire) as i64) {
            Some(v) => Some(SubflowOffset(v)),
            None => None,
        }
    }

    /// The sequence number in the TCP header.
    pub const fn to_wire(self, isn: SeqNumber) -> SeqNumber {
        isn.wrapping_add(self.0 as u32)
    }
}

/// A data sequence number or DATA_ACK as RFC 8684 §3.3 defines it: absolute, modulo 2⁶⁴.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DataSeq(pub u64);

impl DataSeq {
    /// Extends the low 32 bits from the wire to the 64-bit number nearest to `near` (RFC 8684 §3.3.1).
    pub const fn from_low32(low: u32, near: DataSeq) -> DataSeq {
        let delta = low.wrapping_sub(near.0 as u32) as i32;
        DataSeq(near.0.wrapping_add(delta as i64 as u64))
    }
}

impl fmt::Debug for DataSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dsn{:#x}", self.0)
    }
}

/// A position in a connection's data sequence space relative to its IDSN: MP_CAPABLE is 0, the first byte 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DataOffset(pub u64);

impl DataOffset {
    /// The offset of `seq` in the space that starts at `idsn`. `None` if `seq` is before the IDSN.
    pub const fn from_wire(seq: DataSeq, idsn: DataSeq) -> Option<DataOffset> {
        let distance = seq.0.wrapping_sub(idsn.0);
        if distance >> 63 == 0 { Some(DataOffset(distance)) } else { None }
    }

    /// The absolute data sequence number in a DSS option.
    pub const fn to_wire(self, idsn: DataSeq) -> DataSeq {
        DataSeq(idsn.0.wrapping_add(self.0))
    }
}

macro_rules! offset_ops {
    ($t:ident, $tag:literal) => {
        impl $t {
            /// `self − earlier`, or 0 if `earlier` is later.
            pub const fn saturating_sub(self, earlier: $t) -> u64 {
                self.0.saturating_sub(earlier.0)
            }
        }
        impl Add<u64> for $t {
            type Output = $t;
            fn add(self, rhs: u64) -> $t {
                $t(self.0.saturating_add(rhs))
            }
        }
        impl AddAssign<u64> for $t {
            fn add_assign(&mut self, rhs: u64) {
                *self = *self + rhs;
            }
        }
        impl Sub<$t> for $t {
            type Output = u64;
            /// The distance; 0 if `rhs` is later, so that hostile input cannot cause a panic.
            fn sub(self, rhs: $t) -> u64 {
                self.saturating_sub(rhs)
            }
        }
        impl fmt::Debug for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($tag, "{}"), self.0)
            }
        }
    };
}
offset_ops!(SubflowOffset, "ssn");
offset_ops!(DataOffset, "data");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subflow_offset_unwraps_around_the_reference() {
        let isn = SeqNumber(u32::MAX - 5);
        let near = SubflowOffset(0x1_0000_0003);
        assert_eq!(SubflowOffset::from_wire(near.to_wire(isn), isn, near), Some(near));
        let later = near + 70_000;
        assert_eq!(SubflowOffset::from_wire(later.to_wire(isn), isn, near), Some(later));
        let before_syn = SeqNumber(isn.0.wrapping_sub(1));
        assert_eq!(SubflowOffset::from_wire(before_syn, isn, SubflowOffset(1)), None);
    }

    #[test]
    fn data_sequence_promotes_both_ways_across_the_32_bit_wrap() {
        let near = DataSeq(0x5_ffff_fff0);
        assert_eq!(DataSeq::from_low32(0x10, near), DataSeq(0x6_0000_0010));
        assert_eq!(DataSeq::from_low32(0xffff_ff00, DataSeq(0x6_0000_0010)), DataSeq(0x5_ffff_ff00));
    }

    #[test]
    fn data_offset_survives_the_64_bit_wrap() {
        let idsn = DataSeq(u64::MAX - 1);
        let o = DataOffset(10);
        assert_eq!(DataOffset::from_wire(o.to_wire(idsn), idsn), Some(o));
        assert_eq!(DataOffset::from_wire(DataSeq(idsn.0 - 1), idsn), None);
        let beyond_32_bits = DataOffset(0x3_0000_0001);
        assert_eq!(beyond_32_bits.to_wire(idsn), DataSeq(0x2_ffff_ffff));
        assert_eq!(DataOffset::from_wire(beyond_32_bits.to_wire(idsn), idsn), Some(beyond_32_bits));
    }
}

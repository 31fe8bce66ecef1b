//! A server without memory (RFC 4987 §3.6, RFC 8684 §3.1): what a SYN said is put into the SYN/ACK, and the
//! third ACK brings it back. The initial sequence number carries the MSS and proves that it was ours; the
//! timestamp carries window scale, SACK and the C flag; the MPTCP key is a keyed hash, so that the key that
//! the third ACK repeats can be verified.

use crate::tcp::FourTuple;
use crate::wire::mptcp::keys::constant_time_eq;
use crate::wire::tcp::TcpRepr;
use core::hash::{Hash, Hasher};
use siphasher::sip::SipHasher24;
use umptcp_types::{Duration, Instant, SeqNumber};

/// A cookie is good in the period it was made in and the next: one to two minutes.
const PERIOD: Duration = Duration::from_secs(64);
/// What the three low bits of a cookie stand for: the largest of these that the peer's MSS reaches.
const MSS: [u16; 8] = [48, 536, 1024, 1220, 1380, 1440, 1460, 8940];
/// Low bits of the timestamp that carry what the SYN's options said.
pub(crate) const STAMP_BITS: u32 = 6;
pub(crate) const STAMP_MASK: u32 = (1 << STAMP_BITS) - 1;
/// In those bits: no window scale option.
pub(crate) const NO_SCALE: u32 = 15;

/// The secret, and when a cookie was last sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SynCookies {
    key: (u64, u64),
    last_issued: Option<Instant>,
}

/// What the options of the SYN said, as far as it fits a timestamp.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Said {
    pub(crate) scale: Option<u8>,
    pub(crate) sack: bool,
    pub(crate) no_join_initial: bool,
}

impl Said {
    pub(crate) fn to_bits(self) -> u32 {
        self.scale.map_or(NO_SCALE, u32::from)
            | u32::from(self.sack) << 4
            | u32::from(self.no_join_initial) << 5
    }

    fn from_bits(bits: u32) -> Said {
        let scale = bits & 15;
        Said {
            scale: (scale != NO_SCALE).then_some(scale as u8),
            sack: bits & 16 != 0,
            no_join_initial: bits & 32 != 0,
        }
    }
}

/// What a third ACK brings back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recovered {
    pub(crate) mss: u16,
    pub(crate) said: Said,
    /// The MPTCP key that the SYN/ACK carried, if it carried one.
    pub(crate) key: u64,
}

impl SynCookies {
    pub(crate) fn new(key: (u64, u64)) -> Self {
        SynCookies { key, last_issued: None }
    }

    pub(crate) fn period(now: Instant) -> u64 {
        now.as_millis() / PERIOD.as_millis() as u64
    }

    fn hash(&self, salt: u8, tuple: &FourTuple, irs: SeqNumber, period: u64, said: u32) -> u64 {
        let mut h = SipHasher24::new_with_keys(self.key.0, self.key.1);
        (salt, tuple, irs.0, period, said).hash(&mut h);
        h.finish()
    }

    /// The initial sequence number.
    pub(crate) fn isn(
        &self,
        tuple: &FourTuple,
        irs: SeqNumber,
        period: u64,
        mss: u32,
        said: u32,
    ) -> SeqNumber {
        let hash = self.hash(1, tuple, irs, period, said << 3 | mss) as u32;
        SeqNumber(hash << 3 | mss)
    }

    /// The MPTCP key.
    pub(crate) fn mptcp_key(&self, tuple: &FourTuple, irs: SeqNumber, period: u64) -> u64 {
        self.hash(2, tuple, irs, period, 0)
    }

    /// A cookie is about to be sent.
    pub(crate) fn issued(&mut self, now: Instant) {
        self.last_issued = Some(now);
    }

    /// The index of the largest MSS a cookie can name that `peer_mss` reaches.
    pub(crate) fn mss_index(peer_mss: u32) -> u32 {
        MSS.iter().rposition(|m| u32::from(*m) <= peer_mss).unwrap_or(0) as u32
    }

    /// Cookies were sent so lately that an ACK may bring one back.
    pub(crate) fn expected(&self, now: Instant) -> bool {
        self.last_issued.is_some_and(|t| now - t < PERIOD.saturating_mul(2))
    }

    /// What the ACK says, if its acknowledgement number is a cookie of ours.
    pub(crate) fn recover(&self, now: Instant, tuple: &FourTuple, seg: &TcpRepr) -> Option<Recovered> {
        let (irs, isn) = (SeqNumber(seg.seq.0.wrapping_sub(1)), SeqNumber(seg.ack.0.wrapping_sub(1)));
        let bits = seg.options.timestamps.map_or(NO_SCALE, |t| t.echo & STAMP_MASK);
        let mss = isn.0 & 7;
        let current = Self::period(now);
        let period = [current, current.saturating_sub(1)].into_iter().find(|p| {
            let own = self.isn(tuple, irs, *p, mss, bits);
            constant_time_eq(&own.0.to_be_bytes(), &isn.0.to_be_bytes())
        })?;
        let key = self.mptcp_key(tuple, irs, period);
        Some(Recovered { mss: MSS[mss as usize], said: Said::from_bits(bits), key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tcp::{TcpOptions, Timestamps};
    use core::net::SocketAddr;

    #[test]
    fn what_a_syn_said_fits_six_bits() {
        for bits in 0..64 {
            assert_eq!(Said::from_bits(bits).to_bits(), bits);
        }
        let said = Said { scale: Some(14), sack: true, no_join_initial: false };
        assert_eq!(Said::from_bits(said.to_bits()), said);
        assert_eq!(Said::from_bits(NO_SCALE), Said { scale: None, sack: false, no_join_initial: false });
    }

    #[test]
    fn a_cookie_proves_tuple_time_and_options() {
        let mut cookies = SynCookies::new((1, 2));
        let now = Instant::from_millis(1_000_000);
        let tuple = FourTuple {
            local: SocketAddr::from(([10, 0, 0, 2], 80)),
            remote: SocketAddr::from(([10, 9, 0, 1], 4000)),
        };
        let irs = SeqNumber(u32::MAX);
        let bits = Said { scale: Some(7), sack: true, no_join_initial: true }.to_bits();
        let seg = |isn: SeqNumber, seq: SeqNumber, bits: u32| TcpRepr {
            seq,
            ack: isn.wrapping_add(1),
            options: TcpOptions {
                timestamps: Some(Timestamps { value: 5, echo: 0xabcd_0000 | bits }),
                ..TcpOptions::default()
            },
            ..TcpRepr::default()
        };
        for (index, mss) in MSS.iter().enumerate() {
            let isn = cookies.isn(&tuple, irs, SynCookies::period(now), index as u32, bits);
            let good = seg(isn, irs.wrapping_add(1), bits);
            let r = cookies.recover(now, &tuple, &good).expect("valid");
            assert_eq!((r.mss, r.said.to_bits()), (*mss, bits));
            assert_eq!(r.key, cookies.mptcp_key(&tuple, irs, SynCookies::period(now)));
            assert!(cookies.recover(now + PERIOD, &tuple, &good).is_some());
            assert!(cookies.recover(now + PERIOD.saturating_mul(2), &tuple, &good).is_none());
            let other = FourTuple { remote: SocketAddr::from(([10, 9, 0, 1], 4001)), ..tuple };
            assert!(cookies.recover(now, &other, &good).is_none());
            assert!(cookies.recover(now, &tuple, &seg(isn, irs.wrapping_add(2), bits)).is_none());
            assert!(cookies.recover(now, &tuple, &seg(isn, irs.wrapping_add(1), bits ^ 1)).is_none());
            let bent = SeqNumber(isn.0 ^ 1);
            assert!(cookies.recover(now, &tuple, &seg(bent, irs.wrapping_add(1), bits)).is_none());
        }
        assert!(!cookies.expected(now));
        cookies.last_issued = Some(now);
        assert!(cookies.expected(now + PERIOD) && !cookies.expected(now + PERIOD.saturating_mul(2)));
    }
}

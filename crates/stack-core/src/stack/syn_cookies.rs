//! A server without memory (RFC 4987 §3.6, RFC 8684 §3.1): what a SYN said is put into the SYN/ACK, and the third ACK brings
//! it back. The initial sequence number carries the MSS and proves that it was ours; the timestamp carries window scale, SACK
//! and the C flag; the MPTCP key is a keyed hash, so that the key that the third ACK repeats can be verified.

use super::Stack;
use super::listen::{Complete, Pending};
use crate::config::ConnectionConfig;
use crate::mptcp::handshake::{capable, offer};
use crate::mptcp::keys::constant_time_eq;
use crate::observe::Counter;
use crate::tcp::{FourTuple, default_mss, window_scale_for};
use crate::wire::mptcp::{CapableFlags, MpCapable, MptcpOption, VERSION};
use crate::wire::tcp::{TcpFlags, TcpOptions, TcpRepr, Timestamps};
use bytes::Bytes;
use core::hash::{Hash, Hasher};
use siphasher::sip::SipHasher24;
use umptcp_types::{Duration, Instant, ListenerId, PathId, SeqNumber};

/// A cookie is good in the period it was made in and the next: one to two minutes.
const PERIOD: Duration = Duration::from_secs(64);
/// What the three low bits of a cookie stand for: the largest of these that the peer's MSS reaches.
const MSS: [u16; 8] = [48, 536, 1024, 1220, 1380, 1440, 1460, 8940];
/// Low bits of the timestamp that carry what the SYN's options said.
const STAMP_BITS: u32 = 6;
const STAMP_MASK: u32 = (1 << STAMP_BITS) - 1;
/// In those bits: no window scale option.
const NO_SCALE: u32 = 15;

/// The secret, and whether cookies are about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SynCookies {
    key: (u64, u64),
    last_issued: Option<Instant>,
}

/// What the options of the SYN said, as far as it fits a timestamp.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Said {
    scale: Option<u8>,
    sack: bool,
    no_join_initial: bool,
}

impl Said {
    fn to_bits(self) -> u32 {
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
struct Recovered {
    mss: u16,
    said: Said,
    /// The MPTCP key that the SYN/ACK carried, if it carried one.
    key: u64,
}

/// The window of a SYN/ACK, which is never scaled (RFC 7323 §2.2).
fn syn_window(config: &ConnectionConfig) -> u16 {
    config.receive_buffer.min(usize::from(u16::MAX)) as u16
}

impl SynCookies {
    pub(crate) fn new(key: (u64, u64)) -> Self {
        SynCookies { key, last_issued: None }
    }

    fn period(now: Instant) -> u64 {
        now.as_millis() / PERIOD.as_millis() as u64
    }

    fn hash(&self, salt: u8, tuple: &FourTuple, irs: SeqNumber, period: u64, said: u32) -> u64 {
        let mut h = SipHasher24::new_with_keys(self.key.0, self.key.1);
        (salt, tuple, irs.0, period, said).hash(&mut h);
        h.finish()
    }

    /// The initial sequence number.
    fn isn(&self, tuple: &FourTuple, irs: SeqNumber, period: u64, mss: u32, said: u32) -> SeqNumber {
        let hash = self.hash(1, tuple, irs, period, said << 3 | mss) as u32;
        SeqNumber(hash << 3 | mss)
    }

    /// The MPTCP key.
    fn mptcp_key(&self, tuple: &FourTuple, irs: SeqNumber, period: u64) -> u64 {
        self.hash(2, tuple, irs, period, 0)
    }

    /// Cookies were sent so lately that an ACK may bring one back.
    fn expected(&self, now: Instant) -> bool {
        self.last_issued.is_some_and(|t| now - t < PERIOD.saturating_mul(2))
    }

    /// What the ACK says, if its acknowledgement number is a cookie of ours.
    fn recover(&self, now: Instant, tuple: &FourTuple, seg: &TcpRepr) -> Option<Recovered> {
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

impl Stack {
    /// Answers a SYN without remembering it.
    pub(crate) fn send_syn_cookie(
        &mut self,
        now: Instant,
        path: PathId,
        tuple: &FourTuple,
        syn: &TcpRepr,
        config: &ConnectionConfig,
    ) {
        let Some(mtu) = self.env.paths.get(&path).map(|p| p.config.mtu) else { return };
        let cookies = &mut self.env.syn_cookies;
        cookies.last_issued = Some(now);
        let cookies = *cookies;
        let period = SynCookies::period(now);
        let v6 = tuple.local.is_ipv6();
        let peer_mss = u32::from(syn.options.mss.unwrap_or(default_mss(v6) as u16));
        let mss = MSS.iter().rposition(|m| u32::from(*m) <= peer_mss).unwrap_or(0) as u32;
        let offered = if config.mptcp { offer(syn, config).ok() } else { None };
        let said = Said {
            scale: syn.options.window_scale,
            sack: syn.options.sack_permitted,
            no_join_initial: offered.is_some_and(|f| f.no_join_initial),
        };
        // Without timestamps there is nowhere to keep it.
        let bits = syn.options.timestamps.map_or(NO_SCALE, |_| said.to_bits());
        let headers = crate::wire::ip::ip_header_len(&tuple.local.ip()) as u32 + 20;
        let mut options = TcpOptions {
            mss: Some(u32::from(mtu).saturating_sub(headers).clamp(48, 65_535) as u16),
            ..TcpOptions::default()
        };
        if let Some(theirs) = syn.options.timestamps {
            let clock = (now.as_millis() as u32).wrapping_add(self.env.timestamp_offset(tuple));
            let stamp = clock & !STAMP_MASK | bits;
            // Never ahead of the clock that the connection will have, or PAWS would reject what follows.
            let ahead = (stamp.wrapping_sub(clock) as i32) > 0;
            let value = if ahead { stamp.wrapping_sub(1 << STAMP_BITS) } else { stamp };
            options.timestamps = Some(Timestamps { value, echo: theirs.value });
            options.sack_permitted = said.sack;
            options.window_scale = said.scale.map(|_| window_scale_for(config.receive_buffer));
        }
        if let Some(theirs) = offered {
            let key = cookies.mptcp_key(tuple, syn.seq, period);
            // RFC 8684 §3.1: a token in use and no way to another key: plain TCP.
            if self.env.is_unused(key) {
                let checksum = config.checksum || theirs.checksum_required;
                let flags = CapableFlags::sha256(checksum, !config.allow_join_initial);
                let answer = MpCapable::SynAck { version: VERSION, flags, key };
                options.mptcp.push(MptcpOption::Capable(answer));
            } else {
                self.env.observe(now, None, None, Counter::MPFallbackTokenInit);
            }
        }
        self.env.observe(now, None, None, Counter::TcpSyncookiesSent);
        let repr = TcpRepr {
            src_port: tuple.local.port(),
            dst_port: tuple.remote.port(),
            seq: cookies.isn(tuple, syn.seq, period, mss, bits),
            ack: syn.seq.wrapping_add(1),
            flags: TcpFlags::SYN_ACK,
            window: syn_window(config),
            urgent: 0,
            options,
        };
        let payload = crate::payload::Payload::new();
        if let Some(t) = self.env.packet(now, path, tuple, &repr, payload, u32::MAX) {
            self.env.outbox.push_back(t);
        }
    }

    /// A segment without SYN for a listener's address. True: it has been dealt with; false: it is answered with RST.
    pub(crate) fn take_cookie(
        &mut self,
        now: Instant,
        path: PathId,
        listener: ListenerId,
        tuple: FourTuple,
        seg: &TcpRepr,
        payload: &Bytes,
    ) -> bool {
        // The handshake may be complete and the caller not have accepted yet: what follows comes again.
        if self.pending_tuples.contains_key(&tuple) {
            return true;
        }
        if !self.env.syn_cookies.expected(now) || !seg.flags.ack {
            return false;
        }
        let Some(found) = self.env.syn_cookies.recover(now, &tuple, seg) else {
            // Data with a DSS that overtook the third ACK: the client sends its keys again, so a RST would be wrong.
            let overtook = seg.options.mptcp.iter().any(|o| matches!(o, MptcpOption::Dss(_)));
            if !overtook {
                self.env.observe(now, None, None, Counter::TcpSyncookiesFailed);
            }
            return overtook;
        };
        let Some(l) = self.listeners.get_mut(&listener) else { return false };
        if l.complete >= l.backlog {
            // As with a SYN: the client repeats its first data, and there may be room then.
            self.env.observe(now, None, None, Counter::TcpListenOverflow);
            return true;
        }
        l.complete += 1;
        let (window, window_scale) = (syn_window(&l.config), window_scale_for(l.config.receive_buffer));
        self.env.observe(now, None, None, Counter::TcpSyncookiesRecv);
        let mut options = TcpOptions { mss: Some(found.mss), ..TcpOptions::default() };
        if let Some(t) = seg.options.timestamps {
            options.timestamps = Some(Timestamps { value: t.value, echo: 0 });
            options.sack_permitted = found.said.sack;
            options.window_scale = found.said.scale;
        }
        // Who knows our key has it from our SYN/ACK, so the SYN carried MP_CAPABLE; a wrong one is judged as ever.
        if let Some(c) = capable(seg) {
            let mut flags = c.flags();
            flags.no_join_initial |= found.said.no_join_initial;
            options.mptcp.push(MptcpOption::Capable(MpCapable::Syn { version: VERSION, flags }));
        }
        let mut ack = seg.clone();
        if let Some(t) = &mut ack.options.timestamps {
            // Its low bits are no time.
            t.echo = 0;
        }
        let syn = TcpRepr {
            src_port: seg.src_port,
            dst_port: seg.dst_port,
            seq: SeqNumber(seg.seq.0.wrapping_sub(1)),
            flags: TcpFlags::SYN,
            window: seg.window,
            options,
            ..TcpRepr::default()
        };
        let complete = Complete {
            isn: SeqNumber(seg.ack.0.wrapping_sub(1)),
            key: found.key,
            window,
            window_scale,
            ack,
            payload: payload.clone(),
        };
        let mut pending = Pending::new(path, tuple, syn, now);
        pending.complete = Some(complete);
        self.enlist(listener, pending);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

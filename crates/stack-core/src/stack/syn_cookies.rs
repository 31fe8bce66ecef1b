//! SYN cookies at the listener: the SYN/ACK that goes out without state, and the third ACK that brings everything back
//! ([`context::syn_cookies`](crate::context::syn_cookies) makes and checks the cookies).

use super::Stack;
use super::listen::{Complete, Pending};
use crate::config::ConnectionConfig;
use crate::context::syn_cookies::{NO_SCALE, STAMP_BITS, STAMP_MASK, Said, SynCookies};
use crate::mptcp::handshake::{capable, offer};
use crate::observe::Counter;
use crate::tcp::{FourTuple, default_mss, window_scale_for};
use crate::wire::mptcp::{CapableFlags, MpCapable, MptcpOption, VERSION};
use crate::wire::tcp::{TcpFlags, TcpOptions, TcpRepr, Timestamps};
use bytes::Bytes;
use umptcp_types::{Instant, ListenerId, PathId, SeqNumber};

/// The window of a SYN/ACK, which is never scaled (RFC 7323 §2.2).
fn syn_window(config: &ConnectionConfig) -> u16 {
    config.receive_buffer.min(usize::from(u16::MAX)) as u16
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
        let Some(mtu) = self.ctx.paths.get(&path).map(|p| p.config.mtu) else { return };
        self.ctx.syn_cookies.issued(now);
        let cookies = self.ctx.syn_cookies;
        let period = SynCookies::period(now);
        let v6 = tuple.local.is_ipv6();
        let peer_mss = u32::from(syn.options.mss.unwrap_or(default_mss(v6) as u16));
        let mss = SynCookies::mss_index(peer_mss);
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
            let clock = (now.as_millis() as u32).wrapping_add(self.ctx.timestamp_offset(tuple));
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
            if self.ctx.is_unused(key) {
                let checksum = config.checksum || theirs.checksum_required;
                let flags = CapableFlags::sha256(checksum, !config.allow_join_initial);
                let answer = MpCapable::SynAck { version: VERSION, flags, key };
                options.mptcp.push(MptcpOption::Capable(answer));
            } else {
                self.ctx.observe(now, None, None, Counter::MPFallbackTokenInit);
            }
        }
        self.ctx.observe(now, None, None, Counter::TcpSyncookiesSent);
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
        let payload = crate::buffers::payload::Payload::new();
        if let Some(t) = self.ctx.packet(now, path, tuple, &repr, payload, u32::MAX) {
            self.ctx.outbox.push_back(t);
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
        if !self.ctx.syn_cookies.expected(now) || !seg.flags.ack {
            return false;
        }
        let Some(found) = self.ctx.syn_cookies.recover(now, &tuple, seg) else {
            // Data with a DSS that overtook the third ACK: the client sends its keys again, so a RST would be wrong.
            let overtook = seg.options.mptcp.iter().any(|o| matches!(o, MptcpOption::Dss(_)));
            if !overtook {
                self.ctx.observe(now, None, None, Counter::TcpSyncookiesFailed);
            }
            return overtook;
        };
        let Some(l) = self.listeners.get_mut(&listener) else { return false };
        if l.complete >= l.backlog {
            // As with a SYN: the client repeats its first data, and there may be room then.
            self.ctx.observe(now, None, None, Counter::TcpListenOverflow);
            return true;
        }
        l.complete += 1;
        let (window, window_scale) = (syn_window(&l.config), window_scale_for(l.config.receive_buffer));
        self.ctx.observe(now, None, None, Counter::TcpSyncookiesRecv);
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

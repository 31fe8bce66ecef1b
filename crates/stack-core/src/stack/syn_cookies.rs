//! SYN cookies at the listener: the SYN/ACK that goes out without state, and the third ACK that brings
//! everything back (`context::syn_cookies` makes and checks the cookies).

use super::listeners::{Complete, Pending};
use super::segment::Stray;
use super::state::Stack;
use crate::config::ConnectionConfig;
use crate::context::Context;
use crate::context::fast_open::FastOpenSyn;
use crate::context::syn_cookies::{NO_SCALE, STAMP_BITS, STAMP_MASK, Said, SynCookies};
use crate::mptcp::handshake::{capable, offer};
use crate::observe::Counter;
use crate::tcp::{default_mss, window_scale_for};
use crate::wire::mptcp::{CapableFlags, MpCapable, MptcpOption, VERSION};
use crate::wire::tcp::{TcpFlags, TcpOptions, TcpRepr, Timestamps};
use umptcp_types::{Instant, ListenerId, SeqNumber};

/// The window of a SYN/ACK, which is never scaled (RFC 7323 §2.2).
fn syn_window(config: &ConnectionConfig) -> u16 {
    config.receive_buffer.initial().min(usize::from(u16::MAX)) as u16
}

/// Answers a SYN without remembering it.
pub(super) fn send_syn_cookie(ctx: &mut Context, now: Instant, syn: Stray<'_>, config: &ConnectionConfig) {
    let Stray { path, ref tuple, seg: syn, .. } = syn;
    let Some(mtu) = ctx.path(path).map(|p| p.mtu) else { return };
    let cookies = ctx.issue_syn_cookie(now);
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
        let clock = (now.as_millis() as u32).wrapping_add(ctx.timestamp_offset(tuple));
        let stamp = clock & !STAMP_MASK | bits;
        // Never ahead of the clock that the connection will have, or PAWS would reject what follows.
        let ahead = (stamp.wrapping_sub(clock) as i32) > 0;
        let value = if ahead { stamp.wrapping_sub(1 << STAMP_BITS) } else { stamp };
        options.timestamps = Some(Timestamps { value, echo: theirs.value });
        options.sack_permitted = said.sack;
        options.window_scale = said.scale.map(|_| window_scale_for(config.receive_buffer.limit()));
    }
    if let Some(theirs) = offered {
        let key = cookies.mptcp_key(tuple, syn.seq, period);
        // RFC 8684 §3.1: a token in use and no way to another key: plain TCP.
        if ctx.is_unused(key) {
            let checksum = config.checksum || theirs.checksum_required;
            let flags = CapableFlags::sha256(checksum, !config.allow_join_initial);
            let answer = MpCapable::SynAck { version: VERSION, flags, key };
            options.mptcp.push(MptcpOption::Capable(answer));
        } else {
            ctx.observe(now, None, None, Counter::MPFallbackTokenInit);
        }
    }
    ctx.observe(now, None, None, Counter::TcpSyncookiesSent);
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
    ctx.send_control(now, path, tuple, &repr, config.traffic_class);
}

impl Stack {
    /// A segment without SYN for a listener's address. True: it has been dealt with; false: it is answered
    /// with RST.
    pub(super) fn take_cookie(&mut self, now: Instant, listener: ListenerId, segment: Stray<'_>) -> bool {
        let Stray { path, tuple, seg, payload } = segment;
        // The handshake may be complete and the caller not have accepted yet: what follows comes again.
        if self.listeners.is_pending(&tuple) {
            return true;
        }
        if !self.ctx.expects_syn_cookie(now) || !seg.flags.ack {
            return false;
        }
        let Some(found) = self.ctx.recover_syn_cookie(now, &tuple, seg) else {
            // Data with a DSS that overtook the third ACK: the client sends its keys again, so a RST would be
            // wrong.
            let overtook = seg.options.mptcp.iter().any(|o| matches!(o, MptcpOption::Dss(_)));
            if !overtook {
                self.ctx.observe(now, None, None, Counter::TcpSyncookiesFailed);
            }
            return overtook;
        };
        let Some(l) = self.listeners.get(listener) else { return false };
        if l.is_full_of_complete() || self.ctx.events_full() {
            // As with a SYN: the client repeats its first data, and there may be room then.
            self.ctx.observe(now, None, None, Counter::TcpListenOverflow);
            return true;
        }
        let (window, window_scale) =
            (syn_window(l.config()), window_scale_for(l.config().receive_buffer.limit()));
        self.ctx.observe(now, None, None, Counter::TcpSyncookiesRecv);
        let mut options = TcpOptions { mss: Some(found.mss), ..TcpOptions::default() };
        if let Some(t) = seg.options.timestamps {
            options.timestamps = Some(Timestamps { value: t.value, echo: 0 });
            options.sack_permitted = found.said.sack;
            options.window_scale = found.said.scale;
        }
        // Who knows our key has it from our SYN/ACK, so the SYN carried MP_CAPABLE; a wrong one is judged as
        // ever.
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
        let (fast_open, complete) = (FastOpenSyn::default(), Some(complete));
        let event =
            self.listeners.enlist(listener, Pending { path, tuple, syn, since: now, fast_open, complete });
        self.ctx.push_event(event);
        true
    }
}

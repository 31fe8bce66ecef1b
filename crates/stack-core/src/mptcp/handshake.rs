//! MP_CAPABLE in both roles, and what leads back to plain TCP (RFC 8684 §3.1, §3.7).

use super::connection::{Connection, Mode};
use super::member::Join;
use crate::error::FallbackReason;
use crate::observe::Counter;
use crate::stack::env::Env;
use crate::wire::mptcp::{CapableFlags, MpCapable, MptcpOption, VERSION};
use crate::wire::tcp::TcpRepr;
use umptcp_types::{DataOffset, Instant};

/// The MP_CAPABLE option of a segment.
pub(crate) fn capable(seg: &TcpRepr) -> Option<&MpCapable> {
    seg.options.mptcp.iter().find_map(|o| match o {
        MptcpOption::Capable(c) => Some(c),
        _ => None,
    })
}

/// RFC 8684 §3.1: version 1, no B flag, HMAC-SHA256 on offer.
pub(crate) fn acceptable(version: u8, flags: CapableFlags) -> bool {
    version == VERSION && !flags.extensibility && flags.algorithms & CapableFlags::HMAC_SHA256 != 0
}

impl Connection {
    /// Our flags: A as configured or as the peer asked, C if joins to the initial address are unwelcome.
    pub(crate) fn own_flags(&self) -> CapableFlags {
        CapableFlags::sha256(self.checksum, !self.config.allow_join_initial)
    }

    /// The option for our SYN: left out once too many SYNs with it were lost (RFC 8684 §3.9).
    pub(crate) fn syn_option(&self, timeouts: u64) -> Option<MptcpOption> {
        let tried = timeouts > u64::from(self.config.syn_retrans_before_tcp_fallback);
        if self.mode != Mode::Negotiating || tried {
            return None;
        }
        Some(MptcpOption::Capable(MpCapable::Syn { version: VERSION, flags: self.own_flags() }))
    }

    /// The option for our SYN/ACK.
    pub(crate) fn syn_ack_option(&self) -> Option<MptcpOption> {
        (self.mode == Mode::Negotiating).then(|| {
            let (version, flags) = (VERSION, self.own_flags());
            MptcpOption::Capable(MpCapable::SynAck { version, flags, key: self.local_key })
        })
    }

    /// Client: the SYN/ACK decides whether this is MPTCP.
    pub(crate) fn on_syn_ack(&mut self, env: &mut Env, now: Instant, i: usize, seg: &TcpRepr) {
        self.send_edge = DataOffset(1) + u64::from(seg.window);
        if self.mode != Mode::Negotiating {
            return;
        }
        let timeouts = self.members[i].tcp.stats.timeouts;
        let asked = timeouts <= u64::from(self.config.syn_retrans_before_tcp_fallback);
        match capable(seg) {
            Some(&MpCapable::SynAck { version, flags, key }) if asked && acceptable(version, flags) => {
                self.count(env, now, None, Counter::MPCapableSYNACKRX);
                self.checksum |= flags.checksum_required;
                self.peer_allows_initial_join = !flags.no_join_initial;
                self.set_remote_key(key);
                self.mode = Mode::Mptcp { since: now };
                env.observe(now, Some(self.id), None, Counter::MPCurrEstab);
            }
            Some(_) if asked => {
                self.count(env, now, None, Counter::MPCapableFallbackSYNACK);
                self.fall_back(env, FallbackReason::Unacceptable);
            }
            _ if asked => {
                self.count(env, now, None, Counter::MPCapableFallbackSYNACK);
                self.fall_back(env, FallbackReason::NoOptionInSynAck);
            }
            _ => {
                self.count(env, now, None, Counter::MPCapableSYNTXDrop);
                self.fall_back(env, FallbackReason::SynsLost);
            }
        }
    }

    /// Server: the third ACK decides (RFC 8684 §3.1, §3.7).
    pub(crate) fn on_third_ack(&mut self, env: &mut Env, now: Instant, i: usize, seg: &TcpRepr) {
        self.send_edge = DataOffset(1) + (u64::from(seg.window) << self.members[i].tcp.send_scale);
        if self.mode != Mode::Negotiating {
            return;
        }
        let keys = match capable(seg) {
            Some(&MpCapable::Ack { version, flags, sender_key, receiver_key })
            | Some(&MpCapable::Data { version, flags, sender_key, receiver_key, .. }) => {
                (acceptable(version, flags) && receiver_key == self.local_key)
                    .then_some((sender_key, flags.checksum_required))
            }
            _ => None,
        };
        match keys {
            Some((key, checksum)) => {
                self.count(env, now, None, Counter::MPCapableACKRX);
                self.checksum |= checksum;
                self.set_remote_key(key);
                self.mode = Mode::Mptcp { since: now };
                self.fully_established = true;
                // RFC 8684 §3.1: the client may not open subflows before a DSS has come; if nobody has data to send,
                // this ACK is it.
                self.members[i].tcp.ack_now();
                env.observe(now, Some(self.id), None, Counter::MPCurrEstab);
            }
            None => {
                self.count(env, now, None, Counter::MPCapableFallbackACK);
                self.fall_back(env, FallbackReason::NoOptionInAck);
            }
        }
    }

    /// The client's first ACK, and its first data until the peer is known to have the keys, carry MP_CAPABLE.
    pub(crate) fn needs_capable(&self, i: usize, at_start: bool) -> bool {
        self.client
            && self.is_mptcp()
            && !self.fully_established
            && !self.peer_has_keys
            && at_start
            && self.members.get(i).is_some_and(|m| m.join == Join::Initial)
    }
}

//! MP_CAPABLE in both roles, and what leads back to plain TCP (RFC 8684 §3.1, §3.7).
//!
//! By example: `docs/src/by-example/handshake.md`.

use super::connection::Connection;
use super::mapping::RxMapping;
use crate::config::ConnectionConfig;
use crate::context::Context;
use crate::error::FallbackReason;
use crate::observe::Counter;
use crate::wire::mptcp::keys::constant_time_eq;
use crate::wire::mptcp::{CapableFlags, Dsn, DssMapping, MpCapable, MptcpOption, VERSION};
use crate::wire::tcp::TcpRepr;
use umptcp_types::{DataOffset, Instant, SubflowOffset};

/// The MP_CAPABLE option of a segment.
pub(crate) fn capable(seg: &TcpRepr) -> Option<&MpCapable> {
    seg.options.mptcp.iter().find_map(|o| match o {
        MptcpOption::Capable(c) => Some(c),
        _ => None,
    })
}

/// The MP_CAPABLE option of a segment of the handshake. Two different ones, or one beside an MP_JOIN,
/// contradict each other: something on the path has been at the options (RFC 8684 §3.1), so they count as
/// unusable. The same one twice is one.
pub(crate) fn sole_capable(seg: &TcpRepr) -> Result<Option<&MpCapable>, FallbackReason> {
    let of_handshake = |o: &&MptcpOption| matches!(o, MptcpOption::Capable(_) | MptcpOption::Join(_));
    let mut options = seg.options.mptcp.iter().filter(of_handshake);
    let first = options.next();
    if options.any(|other| Some(other) != first) {
        return Err(FallbackReason::Unacceptable);
    }
    Ok(match first {
        Some(MptcpOption::Capable(c)) => Some(c),
        _ => None,
    })
}

/// Whether the flags of an MP_CAPABLE leave something to agree on (RFC 8684 §3.1): no B flag, because nobody
/// knows what it changes; one algorithm, and of those HMAC-SHA256; no checksums if we refuse them. An answer
/// names exactly one algorithm.
fn check_flags(flags: CapableFlags, answer: bool, config: &ConnectionConfig) -> Result<(), FallbackReason> {
    if !are_understood(flags, answer) {
        return Err(FallbackReason::Unacceptable);
    }
    if flags.checksum_required && !config.checksum && !config.accept_checksum {
        return Err(FallbackReason::ChecksumRefused);
    }
    Ok(())
}

/// Whether the flags ask for nothing that this version does not know.
fn are_understood(flags: CapableFlags, answer: bool) -> bool {
    let sha256 = CapableFlags::HMAC_SHA256;
    let algorithm = if answer { flags.algorithms == sha256 } else { flags.algorithms & sha256 != 0 };
    !flags.extensibility && algorithm
}

/// Whether a SYN offers MPTCP in a form that this version understands, whatever a listener makes of it.
pub(crate) fn is_offer(syn: &TcpRepr) -> bool {
    matches!(
        sole_capable(syn),
        Ok(Some(&MpCapable::Syn { version, flags })) if version >= VERSION && are_understood(flags, false)
    )
}

/// What the MP_CAPABLE of a SYN offers, or why it comes to nothing. A later version than ours is answered
/// with ours; version 0 has another form (RFC 8684 §3.1).
pub(crate) fn offer(syn: &TcpRepr, config: &ConnectionConfig) -> Result<CapableFlags, FallbackReason> {
    match sole_capable(syn)? {
        Some(&MpCapable::Syn { version, flags }) if version >= VERSION => {
            check_flags(flags, false, config)?;
            Ok(flags)
        }
        Some(_) => Err(FallbackReason::Unacceptable),
        None => Err(FallbackReason::NoOptionInSyn),
    }
}

impl Connection {
    /// Our flags: A as configured or as the peer asked, C if joins to the initial address are unwelcome.
    pub(crate) fn own_flags(&self) -> CapableFlags {
        CapableFlags::sha256(self.mptcp.checksum(), !self.config.allow_join_initial)
    }

    /// The option for our SYN: left out once too many SYNs with it were lost (RFC 8684 §3.9).
    pub(crate) fn syn_option(&self, timeouts: u64) -> Option<MptcpOption> {
        if !self.mptcp.is_open() || self.syns_lost(timeouts) {
            return None;
        }
        Some(MptcpOption::Capable(MpCapable::Syn { version: VERSION, flags: self.own_flags() }))
    }

    /// So many SYNs with the option went unanswered that the path may swallow them.
    fn syns_lost(&self, timeouts: u64) -> bool {
        timeouts > u64::from(self.config.syn_retrans_before_tcp_fallback)
    }

    /// The option for our SYN/ACK.
    pub(crate) fn syn_ack_option(&self) -> Option<MptcpOption> {
        (self.mptcp.is_open()).then(|| {
            let (version, flags) = (VERSION, self.own_flags());
            MptcpOption::Capable(MpCapable::SynAck { version, flags, key: self.mptcp.local_key() })
        })
    }

    /// Server: the SYN says whether the client offers MPTCP. `known`: the key that our SYN/ACK carried
    /// already (SYN cookies).
    pub(crate) fn on_syn(&mut self, ctx: &mut Context, now: Instant, syn: &TcpRepr, known: Option<u64>) {
        if !self.config.mptcp {
            return;
        }
        match offer(syn, &self.config) {
            Ok(flags) => {
                self.mptcp.on_offer(flags);
                let key = match known {
                    Some(key) => ctx.is_unused(key).then_some(key),
                    None => ctx.unique_key(),
                };
                match key {
                    Some(key) => self.choose_key(ctx, key),
                    None => {
                        self.count(ctx, now, None, Counter::MPFallbackTokenInit);
                        self.mptcp.fall_back(FallbackReason::NoToken);
                    }
                }
            }
            Err(reason) => self.mptcp.fall_back(reason),
        }
    }

    /// Client: the SYN/ACK decides whether this is MPTCP.
    pub(crate) fn on_syn_ack(&mut self, ctx: &mut Context, now: Instant, i: usize, seg: &TcpRepr) {
        self.on_fast_open_answer(ctx, now, i, seg);
        self.send.on_handshake(DataOffset(self.subflows[i].tcp.send_edge().0));
        if !self.mptcp.is_open() {
            return;
        }
        let key = match sole_capable(seg) {
            Ok(Some(&MpCapable::SynAck { version: VERSION, flags, key })) => {
                check_flags(flags, true, &self.config).map(|()| (flags, key))
            }
            Ok(Some(_)) => Err(FallbackReason::Unacceptable),
            Ok(None) => Err(FallbackReason::NoOptionInSynAck),
            Err(reason) => Err(reason),
        };
        // Even when the last SYN went without the option: an earlier one arrived then (RFC 8684 §3.1: SYNs
        // with and without it may be reordered, the third packet tells).
        match key {
            Ok((flags, key)) => {
                self.count(ctx, now, None, Counter::MPCapableSYNACKRX);
                self.mptcp.on_syn_ack(now, key, flags);
                ctx.mptcp_works(self.initial_tuple.remote.ip());
                ctx.speaks_mptcp(now, self.subflows[i].tcp.path(), self.initial_tuple.remote);
                ctx.observe(now, Some(self.id), None, Counter::MPCurrEstab);
            }
            Err(FallbackReason::NoOptionInSynAck)
                if self.syns_lost(self.subflows[i].tcp.stats().timeouts) =>
            {
                self.count(ctx, now, None, Counter::MPCapableSYNTXDrop);
                if ctx.mptcp_swallowed(now, self.initial_tuple.remote.ip()) {
                    self.count(ctx, now, None, Counter::Blackhole);
                }
                self.fall_back(ctx, now, FallbackReason::SynsLost);
            }
            Err(reason) => {
                self.count(ctx, now, None, Counter::MPCapableFallbackSYNACK);
                self.note_stripped(ctx, now, i, reason);
                self.fall_back(ctx, now, reason);
            }
        }
    }

    /// Server: the third ACK decides (RFC 8684 §3.1, §3.7).
    pub(crate) fn on_third_ack(&mut self, ctx: &mut Context, now: Instant, i: usize, seg: &TcpRepr) {
        self.send.on_handshake(DataOffset(self.subflows[i].tcp.send_edge().0));
        if !self.mptcp.is_open() {
            return;
        }
        let answered = self.mptcp.maps_early();
        match self.check_third_ack(seg) {
            Ok((key, flags)) => {
                self.count(ctx, now, None, Counter::MPCapableACKRX);
                self.mptcp.on_third_ack(now, key, flags, self.recv.syn_data());
                // RFC 8684 §3.1: the client may not open subflows before a DSS has come; if nobody has data
                // to send, this ACK is it.
                self.subflows[i].tcp.ack_now();
                if answered {
                    // What has gone out early waits for its DATA_ACK from now on.
                    self.arm_data_timer(now, false);
                    self.on_way_works(ctx, now, i);
                }
                ctx.observe(now, Some(self.id), None, Counter::MPCurrEstab);
            }
            Err(reason) => {
                self.count(ctx, now, None, Counter::MPCapableFallbackACK);
                self.fall_back(ctx, now, reason);
            }
        }
    }

    /// The client's key and flags, if the third ACK confirms what was agreed.
    fn check_third_ack(&self, seg: &TcpRepr) -> Result<(u64, CapableFlags), FallbackReason> {
        let (version, flags, sender_key, receiver_key) = match sole_capable(seg)? {
            Some(&MpCapable::Ack { version, flags, sender_key, receiver_key })
            | Some(&MpCapable::Data { version, flags, sender_key, receiver_key, .. }) => {
                (version, flags, sender_key, receiver_key)
            }
            Some(_) => return Err(FallbackReason::Unacceptable),
            None => return Err(FallbackReason::NoOptionInAck),
        };
        if version != VERSION {
            return Err(FallbackReason::Unacceptable);
        }
        check_flags(flags, true, &self.config)?;
        // RFC 8684 §3.1: A in the third packet confirms the decision; a client that knows nothing of it would
        // send mappings without checksums.
        if self.mptcp.checksum() && !flags.checksum_required {
            return Err(FallbackReason::Unacceptable);
        }
        if !constant_time_eq(&receiver_key.to_be_bytes(), &self.mptcp.local_key().to_be_bytes()) {
            return Err(FallbackReason::KeyMismatch);
        }
        Ok((sender_key, flags))
    }

    /// The MP_CAPABLE of the client's first data stands for a DSS that maps it (RFC 8684 §3.1). It comes
    /// again with every packet cut from the segment, and when the segment does. False: the subflow or its
    /// MPTCP has gone.
    pub(crate) fn on_capable_data(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        i: usize,
        seg: &TcpRepr,
    ) -> bool {
        let Some(&MpCapable::Data { sender_key, receiver_key, len, checksum, .. }) = capable(seg) else {
            return true;
        };
        if self.subflows[i].is_ended() {
            return false;
        }
        let ours = sender_key == self.mptcp.remote_key() && receiver_key == self.mptcp.local_key();
        if self.client || !self.subflows[i].join.is_initial() || !ours {
            self.count(ctx, now, Some(self.subflows[i].tcp.id()), Counter::MPCapableKeyMismatch);
            return true;
        }
        let first = self.subflows[i].incoming.first_data();
        if len == 0 {
            let dsn = Dsn::Long(DataOffset(first).to_wire(self.mptcp.remote_idsn()).0);
            return self.on_infinite_mapping(ctx, now, i, &DssMapping { dsn, ssn: 1, len, checksum });
        }
        if checksum.is_some() != self.mptcp.checksum() {
            return self.on_wrong_checksum_use(ctx, now, i);
        }
        let mapping = RxMapping {
            subflow: SubflowOffset(first),
            data: DataOffset(first),
            len: u64::from(len),
            declared: len,
            checksum,
        };
        self.on_mapping(ctx, now, i, mapping)
    }

    /// The client's first ACK, and its first data until the peer is known to have the keys, carry MP_CAPABLE.
    pub(crate) fn needs_capable(&self, i: usize, at_start: bool) -> bool {
        self.client
            && self.is_mptcp()
            && !self.mptcp.is_fully_established()
            && at_start
            && self.subflows.get(i).is_some_and(|m| m.join.is_initial())
    }
}

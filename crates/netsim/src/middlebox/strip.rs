//! Firewalls that remove MPTCP options.

use super::interface::{Middlebox, Output};
use crate::direction::Direction;
use crate::packet::Packet;
use umptcp_stack_core::wire::mptcp::MptcpPacket;
use umptcp_stack_core::wire::tcp::{RawOption, TcpFlags, kind};
use umptcp_types::Instant;

/// From which packets [`StripMptcp`] takes the option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StripWhere {
    /// Those with SYN set, as firewalls do that "normalise" handshakes.
    Syn,
    /// Those with SYN and not ACK set: the peer's answer keeps what it says.
    InitialSyn,
    /// Those with SYN and ACK set.
    SynAck,
    /// All but those with SYN set.
    AfterSyn,
    /// All.
    Everything,
}

/// Removes MPTCP options: replaces them by NOPs, or shortens the header. [`Since`](super::Since) has it begin
/// later.
#[derive(Clone, Debug)]
pub struct StripMptcp {
    /// From which packets.
    pub which: StripWhere,
    /// Only options of this subtype (RFC 8684 §7.2); `None`: all.
    pub subtype: Option<u8>,
    /// Overwrite the option with NOPs (as Linux's `nft … reset tcp option mptcp` does) instead of shortening
    /// the header.
    pub overwrite: bool,
    /// Options removed so far.
    pub removed: u64,
}

impl StripMptcp {
    /// Strips from `which` packets, overwriting with NOPs.
    pub fn new(which: StripWhere) -> Self {
        StripMptcp { which, subtype: None, overwrite: true, removed: 0 }
    }

    /// Strips options of one subtype from every packet.
    pub fn subtype(subtype: u8) -> Self {
        StripMptcp { subtype: Some(subtype), ..StripMptcp::new(StripWhere::Everything) }
    }

    fn applies(&self, flags: TcpFlags) -> bool {
        let TcpFlags { syn, ack, .. } = flags;
        match self.which {
            StripWhere::Syn => syn,
            StripWhere::InitialSyn => syn && !ack,
            StripWhere::SynAck => syn && ack,
            StripWhere::AfterSyn => !syn,
            StripWhere::Everything => true,
        }
    }

    fn meant(&self, option: &RawOption<'_>) -> bool {
        let has = |subtype| MptcpPacket::new(option.bytes).is_ok_and(|o| o.subtype() == subtype);
        option.kind == kind::MPTCP && self.subtype.is_none_or(has)
    }
}

impl Middlebox for StripMptcp {
    fn process(&mut self, _now: Instant, direction: Direction, mut packet: Packet, out: &mut Output) {
        let mut found = 0;
        let mut options = Vec::with_capacity(40);
        let tcp = packet.tcp().filter(|tcp| self.applies(tcp.flags()));
        for option in tcp.into_iter().flat_map(|tcp| tcp.raw_options().for_forwarding().flatten()) {
            if !self.meant(&option) {
                options.extend_from_slice(option.bytes);
                continue;
            }
            found += 1;
            if self.overwrite {
                options.resize(options.len() + option.bytes.len(), kind::NOP);
            }
        }
        if found > 0 {
            self.removed += found;
            packet.set_tcp_options(&options);
        }
        out.send(direction, packet);
    }
}

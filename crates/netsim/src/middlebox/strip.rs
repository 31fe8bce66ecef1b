//! Firewalls that remove MPTCP options.

use super::{Middlebox, Output};
use crate::cable::Direction;
use crate::packet::{OPTION_MPTCP, Packet, flags};
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

/// Removes MPTCP options: replaces them by NOPs, or shortens the header. [`Since`](super::Since) has it begin later.
#[derive(Clone, Debug)]
pub struct StripMptcp {
    /// From which packets.
    pub which: StripWhere,
    /// Only options of this subtype (RFC 8684 §7.2); `None`: all.
    pub subtype: Option<u8>,
    /// Overwrite the option with NOPs (as Linux's `nft … reset tcp option mptcp` does) instead of shortening the header.
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

    fn applies(&self, bits: u8) -> bool {
        let (syn, ack) = (bits & flags::SYN != 0, bits & flags::ACK != 0);
        match self.which {
            StripWhere::Syn => syn,
            StripWhere::InitialSyn => syn && !ack,
            StripWhere::SynAck => syn && ack,
            StripWhere::AfterSyn => !syn,
            StripWhere::Everything => true,
        }
    }

    fn meant(&self, kind: u8, option: &[u8]) -> bool {
        kind == OPTION_MPTCP && self.subtype.is_none_or(|s| option.get(2).is_some_and(|b| b >> 4 == s))
    }
}

impl Middlebox for StripMptcp {
    fn process(&mut self, _now: Instant, direction: Direction, mut packet: Packet, out: &mut Output) {
        let tcp = packet.tcp().filter(|t| self.applies(t.flags()));
        let found = tcp.map_or(0, |t| t.option_list().filter(|(kind, o)| self.meant(*kind, o)).count());
        if found > 0 {
            self.removed += found as u64;
            let mut options = Vec::with_capacity(40);
            for (kind, bytes) in packet.tcp().into_iter().flat_map(|t| t.option_list()) {
                if !self.meant(kind, bytes) {
                    options.extend_from_slice(bytes);
                } else if self.overwrite {
                    options.resize(options.len() + bytes.len(), 1);
                }
            }
            packet.set_tcp_options(&options);
        }
        out.send(direction, packet);
    }
}

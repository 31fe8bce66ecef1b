//! A connection whose handshake is complete on our side, and what may become of it.

use super::Way;
use super::link::{Half, Site};
use std::time::Duration;
use umptcp_stack_core::wire::mptcp::{
    CapableFlags, DataAck, Dss, MpCapable, MptcpOption, VERSION,
    keys::{Keys, token_and_idsn},
};
use umptcp_stack_core::wire::tcp::TcpRepr;

/// How long the answer to a segment may take before it is sent again.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// How often a segment is sent before silence counts.
pub(super) const ATTEMPTS: usize = 3;

/// What becomes of options after the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Later {
    /// The handshake did not come so far.
    Untried,
    /// Both ends see them.
    Passes,
    /// The server's segments have none.
    Stripped(Way),
    /// Those with data have none, others do.
    StrippedFromData(Way),
    /// Nothing comes any more.
    Silence,
    /// Data arrive otherwise than they were sent: whoever receives them finds their checksum wrong.
    Rewritten(Way),
    /// The server has reset the connection, with the reason if it says one.
    Reset(Option<u8>),
}

/// A connection whose handshake is complete on our side.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) half: Half,
    pub(super) keys: Keys,
    pub(super) flags: CapableFlags,
}

/// The reason of a reset.
pub(super) fn reason(tcp: &TcpRepr) -> Option<u8> {
    tcp.options.mptcp.iter().find_map(|option| match option {
        MptcpOption::Reset(reset) => Some(reset.reason),
        _ => None,
    })
}

impl Open {
    /// The data sequence number after `received` bytes of the server's.
    pub(super) fn next_of_server(&self, received: usize) -> u64 {
        let (_, first) = token_and_idsn(self.keys.remote);
        first.0.wrapping_add(1 + received as u64)
    }

    /// What acknowledges `received` bytes of the server's data.
    pub(super) fn data_ack(&self, received: usize) -> MptcpOption {
        let ack = Some(DataAck::Long(self.next_of_server(received)));
        MptcpOption::Dss(Dss { data_fin: false, ack, mapping: None })
    }

    /// The data sequence number after `sent` bytes of ours.
    pub(super) fn next_of_ours(&self, sent: usize) -> u64 {
        let (_, first) = token_and_idsn(self.keys.local);
        first.0.wrapping_add(1 + sent as u64)
    }

    /// Whether an option acknowledges data of ours up to `sent` bytes.
    pub(super) fn covers(&self, option: &MptcpOption, sent: usize) -> bool {
        let wanted = self.next_of_ours(sent);
        match option {
            MptcpOption::Dss(Dss { ack: Some(DataAck::Long(ack)), .. }) => *ack >= wanted,
            MptcpOption::Dss(Dss { ack: Some(DataAck::Short(ack)), .. }) => {
                ack.wrapping_sub(wanted as u32) as i32 >= 0
            }
            _ => false,
        }
    }

    /// Whether the server accepts no joins to the address and port that it was reached at.
    pub(super) fn forbids_joins(&self) -> bool {
        self.flags.no_join_initial
    }
}

/// The third ACK of the handshake, with both keys.
pub(super) fn send_third(site: &mut Site, open: &Open) {
    let (sender_key, receiver_key) = (open.keys.local, open.keys.remote);
    let third = MpCapable::Ack { version: VERSION, flags: open.flags, sender_key, receiver_key };
    site.send_ack(&open.half, open.half.next, Some(MptcpOption::Capable(third)), &[]);
}

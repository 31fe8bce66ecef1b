//! The MPTCP option of TCP (RFC 8684 §3): every subtype, in every form.
//!
//! | subtype | type | lengths in bytes |
//! |---|---|---|
//! | 0 MP_CAPABLE | [`MpCapable`] | 4, 12, 20, 22, 24 |
//! | 1 MP_JOIN | [`MpJoin`] | 12, 16, 24 |
//! | 2 DSS | [`Dss`] | 4 to 28, by its flags |
//! | 3 ADD_ADDR | [`AddAddr`] | 16, 18, 28, 30; as echo 8, 10, 20, 22 |
//! | 4 REMOVE_ADDR | [`RemoveAddr`] | 3 + n |
//! | 5 MP_PRIO | [`MpPrio`] | 3; 4 in RFC 6824's form with an Address ID |
//! | 6 MP_FAIL | [`MpFail`] | 12 |
//! | 7 MP_FASTCLOSE | [`MpFastClose`] | 12 |
//! | 8 MP_TCPRST | [`MpTcpRst`] | 4 |
//!
//! The length decides the form; whether a form belongs on the segment that carries it is for
//! the connection to decide. Reserved bits are sent as 0 and ignored on receipt (RFC 8684).

mod codec;
mod display;
pub mod keys;
#[cfg(test)]
mod tests;

pub use codec::MptcpPacket;

use super::checksum;
use core::net::IpAddr;
use smallvec::SmallVec;
use umptcp_types::AddressId;

/// TCP option kind of MPTCP (RFC 8684 §7.1).
pub const KIND: u8 = 30;
/// The version of the protocol that RFC 8684 defines.
pub const VERSION: u8 = 1;

/// Subtype numbers (RFC 8684 §7.2).
pub mod subtype {
    /// Multipath Capable.
    pub const MP_CAPABLE: u8 = 0;
    /// Join Connection.
    pub const MP_JOIN: u8 = 1;
    /// Data Sequence Signal.
    pub const DSS: u8 = 2;
    /// Add Address.
    pub const ADD_ADDR: u8 = 3;
    /// Remove Address.
    pub const REMOVE_ADDR: u8 = 4;
    /// Change Subflow Priority.
    pub const MP_PRIO: u8 = 5;
    /// Fallback.
    pub const MP_FAIL: u8 = 6;
    /// Fast Close.
    pub const MP_FASTCLOSE: u8 = 7;
    /// Subflow Reset.
    pub const MP_TCPRST: u8 = 8;
}

/// Any MPTCP option.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MptcpOption {
    /// MP_CAPABLE.
    Capable(MpCapable),
    /// MP_JOIN.
    Join(MpJoin),
    /// DSS.
    Dss(Dss),
    /// ADD_ADDR.
    AddAddr(AddAddr),
    /// REMOVE_ADDR.
    RemoveAddr(RemoveAddr),
    /// MP_PRIO.
    Prio(MpPrio),
    /// MP_FAIL.
    Fail(MpFail),
    /// MP_FASTCLOSE.
    FastClose(MpFastClose),
    /// MP_TCPRST.
    Reset(MpTcpRst),
}

/// The flags of MP_CAPABLE (RFC 8684 §3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CapableFlags {
    /// A: DSS checksums are required.
    pub checksum_required: bool,
    /// B: an extension that RFC 8684 does not define. A receiver that does not know it ignores the option.
    pub extensibility: bool,
    /// C: the sender accepts no further subflows to the address and port this comes from.
    pub no_join_initial: bool,
    /// D to H, five bits: the algorithms proposed or, in the answer, chosen. See
    /// [`CapableFlags::HMAC_SHA256`].
    pub algorithms: u8,
}

impl CapableFlags {
    /// Bit H of [`algorithms`](Self::algorithms): HMAC-SHA256, the only algorithm that RFC 8684 assigns.
    pub const HMAC_SHA256: u8 = 1;

    /// HMAC-SHA256, no other algorithm, B = 0.
    pub const fn sha256(checksum_required: bool, no_join_initial: bool) -> Self {
        CapableFlags {
            checksum_required,
            extensibility: false,
            no_join_initial,
            algorithms: Self::HMAC_SHA256,
        }
    }
}

/// MP_CAPABLE (RFC 8684 §3.1, figure 4). A key's big-endian bytes are those on the wire.
///
/// The shape tells which fields are there, not on which segment the option came: version 0 put a key into the
/// SYN, which is `SynAck` here. Of a version other than 1, and with the B flag set, an unknown length still
/// parses, as `Syn`: the receiver needs version and flags to decide on fallback.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MpCapable {
    /// SYN: 4 bytes.
    Syn {
        /// Highest version that the initiator supports.
        version: u8,
        /// What it proposes.
        flags: CapableFlags,
    },
    /// SYN/ACK: 12 bytes.
    SynAck {
        /// Version that the listener has chosen.
        version: u8,
        /// What it has chosen.
        flags: CapableFlags,
        /// The option sender's key.
        key: u64,
    },
    /// Third ACK: 20 bytes.
    Ack {
        /// Version in use.
        version: u8,
        /// What is in use.
        flags: CapableFlags,
        /// The option sender's key.
        sender_key: u64,
        /// The option receiver's key.
        receiver_key: u64,
    },
    /// ACK with the first data: 22 bytes, 24 with checksum. Stands for a DSS mapping of the first `len`
    /// bytes.
    Data {
        /// Version in use.
        version: u8,
        /// What is in use.
        flags: CapableFlags,
        /// The option sender's key.
        sender_key: u64,
        /// The option receiver's key.
        receiver_key: u64,
        /// Data-level length of the mapping, in bytes.
        len: u16,
        /// DSS checksum as on the wire, if checksums are in use.
        checksum: Option<u16>,
    },
}

impl MpCapable {
    /// The version field.
    pub const fn version(&self) -> u8 {
        match self {
            MpCapable::Syn { version, .. }
            | MpCapable::SynAck { version, .. }
            | MpCapable::Ack { version, .. }
            | MpCapable::Data { version, .. } => *version,
        }
    }

    /// The flags A to H.
    pub const fn flags(&self) -> CapableFlags {
        match self {
            MpCapable::Syn { flags, .. }
            | MpCapable::SynAck { flags, .. }
            | MpCapable::Ack { flags, .. }
            | MpCapable::Data { flags, .. } => *flags,
        }
    }
}

/// MP_JOIN (RFC 8684 §3.2, figures 5 to 7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MpJoin {
    /// SYN: 12 bytes.
    Syn {
        /// B: use this subflow only when no other is usable.
        backup: bool,
        /// Of the address that the SYN comes from.
        address_id: AddressId,
        /// The receiver's token for the connection.
        token: u32,
        /// The sender's random number.
        nonce: u32,
    },
    /// SYN/ACK: 16 bytes.
    SynAck {
        /// B: use this subflow only when no other is usable.
        backup: bool,
        /// Of the address that the SYN/ACK comes from.
        address_id: AddressId,
        /// Leftmost 64 bits of the sender's HMAC.
        hmac: u64,
        /// The sender's random number.
        nonce: u32,
    },
    /// Third ACK: 24 bytes.
    Ack {
        /// Leftmost 160 bits of the sender's HMAC.
        hmac: [u8; 20],
    },
}

/// The acknowledgment field of a DSS option, of either width.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataAck {
    /// The low 32 bits.
    Short(u32),
    /// The whole number.
    Long(u64),
}

/// The data sequence number of a DSS option, of either width.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dsn {
    /// The low 32 bits.
    Short(u32),
    /// The whole number.
    Long(u64),
}

/// A data sequence mapping as a DSS option declares it (RFC 8684 §3.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DssMapping {
    /// Data sequence number of the first byte.
    pub dsn: Dsn,
    /// Relative subflow sequence number of the first byte (SYN = 0); 0 when the mapping is a DATA_FIN alone.
    pub ssn: u32,
    /// Data-level length in bytes, the DATA_FIN's octet included. 0 declares an infinite mapping.
    pub len: u16,
    /// DSS checksum as on the wire, if checksums are in use.
    pub checksum: Option<u16>,
}

/// DSS (RFC 8684 §3.3, figure 9).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Dss {
    /// F: the mapping covers the DATA_FIN (§3.3.3).
    pub data_fin: bool,
    /// DATA_ACK.
    pub ack: Option<DataAck>,
    /// Data sequence mapping.
    pub mapping: Option<DssMapping>,
}

/// Sum of the pseudo-header of a DSS checksum (RFC 8684 §3.3.1, figure 10), for [`checksum::add`]ing to the
/// sum of the mapped payload. `dsn` is the 64-bit number, whichever form the option carries. The checksum on
/// the wire is `!fold`.
pub const fn dss_pseudo_header(dsn: u64, ssn: u32, len: u16) -> u64 {
    let words = (dsn >> 32) + (dsn & 0xffff_ffff) + ssn as u64;
    checksum::add(words, len as u64)
}

/// ADD_ADDR (RFC 8684 §3.4.1, figure 12).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddAddr {
    /// The address's ID, given by the sender of the advertisement.
    pub address_id: AddressId,
    /// The address.
    pub address: IpAddr,
    /// The port, when it differs from the one in use.
    pub port: Option<u16>,
    /// Rightmost 64 bits of the sender's HMAC. `None` makes it an echo (E = 1).
    pub hmac: Option<u64>,
}

/// REMOVE_ADDR (RFC 8684 §3.4.2, figure 13). Between 1 and [`RemoveAddr::MAX_IDS`] ids.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoveAddr {
    /// The ids of the addresses that are gone.
    pub ids: SmallVec<[AddressId; 8]>,
}

impl RemoveAddr {
    /// As many ids as fit the option space of a TCP header with nothing else in it.
    pub const MAX_IDS: usize = 37;
}

/// MP_PRIO (RFC 8684 §3.3.8, figure 11).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MpPrio {
    /// B: use the subflow only when no other is usable.
    pub backup: bool,
    /// The address whose subflows are meant, in RFC 6824's form. `None`, the form of RFC 8684: the subflow
    /// that carries the option.
    pub address_id: Option<AddressId>,
}

/// MP_FAIL (RFC 8684 §3.7, figure 16).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MpFail {
    /// Data sequence number at the start of the mapping that failed its checksum.
    pub dsn: u64,
}

/// MP_FASTCLOSE (RFC 8684 §3.5, figure 14).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MpFastClose {
    /// The option receiver's key.
    pub receiver_key: u64,
}

/// MP_TCPRST (RFC 8684 §3.6, figure 15). The flags U, V and W are sent as 0 and ignored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MpTcpRst {
    /// T: the condition is transient, so another attempt on this path may succeed.
    pub transient: bool,
    /// Reason code, see [`ResetReason`].
    pub reason: u8,
}

/// The reason codes of MP_TCPRST (RFC 8684 §3.6, table 4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ResetReason {
    /// 0: the subflow is no longer available.
    Unspecified,
    /// 1: an error in the processing of MPTCP options.
    MptcpSpecific,
    /// 2: lack of resources.
    LackOfResources,
    /// 3: administratively prohibited.
    Prohibited,
    /// 4: too much outstanding data, acknowledged over other subflows meanwhile.
    TooMuchOutstandingData,
    /// 5: unacceptable performance.
    UnacceptablePerformance,
    /// 6: middlebox interference.
    MiddleboxInterference,
    /// Any other code. Made by [`From<u8>`], which never puts 0 to 6 in here.
    Unknown(u8),
}

impl From<u8> for ResetReason {
    fn from(code: u8) -> Self {
        match code {
            0 => ResetReason::Unspecified,
            1 => ResetReason::MptcpSpecific,
            2 => ResetReason::LackOfResources,
            3 => ResetReason::Prohibited,
            4 => ResetReason::TooMuchOutstandingData,
            5 => ResetReason::UnacceptablePerformance,
            6 => ResetReason::MiddleboxInterference,
            other => ResetReason::Unknown(other),
        }
    }
}

impl From<ResetReason> for u8 {
    fn from(reason: ResetReason) -> Self {
        match reason {
            ResetReason::Unspecified => 0,
            ResetReason::MptcpSpecific => 1,
            ResetReason::LackOfResources => 2,
            ResetReason::Prohibited => 3,
            ResetReason::TooMuchOutstandingData => 4,
            ResetReason::UnacceptablePerformance => 5,
            ResetReason::MiddleboxInterference => 6,
            ResetReason::Unknown(code) => code,
        }
    }
}

impl From<MpCapable> for MptcpOption {
    fn from(o: MpCapable) -> Self {
        MptcpOption::Capable(o)
    }
}

impl From<MpJoin> for MptcpOption {
    fn from(o: MpJoin) -> Self {
        MptcpOption::Join(o)
    }
}

impl From<Dss> for MptcpOption {
    fn from(o: Dss) -> Self {
        MptcpOption::Dss(o)
    }
}

impl From<AddAddr> for MptcpOption {
    fn from(o: AddAddr) -> Self {
        MptcpOption::AddAddr(o)
    }
}

impl From<RemoveAddr> for MptcpOption {
    fn from(o: RemoveAddr) -> Self {
        MptcpOption::RemoveAddr(o)
    }
}

impl From<MpPrio> for MptcpOption {
    fn from(o: MpPrio) -> Self {
        MptcpOption::Prio(o)
    }
}

impl From<MpFail> for MptcpOption {
    fn from(o: MpFail) -> Self {
        MptcpOption::Fail(o)
    }
}

impl From<MpFastClose> for MptcpOption {
    fn from(o: MpFastClose) -> Self {
        MptcpOption::FastClose(o)
    }
}

impl From<MpTcpRst> for MptcpOption {
    fn from(o: MpTcpRst) -> Self {
        MptcpOption::Reset(o)
    }
}

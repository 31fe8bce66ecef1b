//! MPTCP options to bytes and back.

use super::super::WireError;
use super::super::cursor::{Reader, Writer};
use super::*;
use core::net::{Ipv4Addr, Ipv6Addr};

/// A view of an MPTCP option's bytes, from the kind on: the fields that exist whatever the subtype
/// and length.
#[derive(Clone, Copy, Debug)]
pub struct MptcpPacket<'a> {
    bytes: &'a [u8],
    subtype: u8,
    nibble: u8,
}

impl<'a> MptcpPacket<'a> {
    /// Views `bytes`, exactly one option.
    ///
    /// # Errors
    /// [`WireError::Truncated`] below 3 bytes, [`WireError::Malformed`] when the kind is not MPTCP's,
    /// [`WireError::BadLength`] when the length field is not the slice's length.
    pub fn new(bytes: &'a [u8]) -> Result<Self, WireError> {
        let &[kind, length, head, ..] = bytes else { return Err(WireError::Truncated) };
        if kind != KIND {
            return Err(WireError::Malformed);
        }
        if usize::from(length) != bytes.len() {
            return Err(WireError::BadLength);
        }
        Ok(MptcpPacket { bytes, subtype: head >> 4, nibble: head & 0xf })
    }

    /// The subtype, 0 to 15; see [`subtype`].
    pub fn subtype(&self) -> u8 {
        self.subtype
    }

    /// The four bits after the subtype: MP_CAPABLE's version, other subtypes' flags or reserved bits.
    pub fn nibble(&self) -> u8 {
        self.nibble
    }

    /// Everything after the octet that holds the subtype.
    pub fn body(&self) -> &'a [u8] {
        self.bytes.get(3..).unwrap_or(&[])
    }

    /// The whole option.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// RFC 8684 assigns this subtype.
    pub fn is_known(&self) -> bool {
        self.subtype <= subtype::MP_TCPRST
    }
}

impl MptcpOption {
    /// Parses `data`, exactly one option from its kind to its end.
    ///
    /// # Errors
    /// [`WireError::BadLength`] when the subtype (and its flags) cannot have this length, or it is not the
    /// slice's; [`WireError::Malformed`] when the kind or subtype is unknown; [`WireError::Truncated`] below
    /// 3 bytes.
    pub fn parse(data: &[u8]) -> Result<MptcpOption, WireError> {
        let packet = MptcpPacket::new(data)?;
        let body = Reader(packet.body());
        let nibble = packet.nibble();
        match packet.subtype() {
            subtype::MP_CAPABLE => parse_capable(data.len(), nibble, body).map(MptcpOption::Capable),
            subtype::MP_JOIN => parse_join(data.len(), nibble, body).map(MptcpOption::Join),
            subtype::DSS => parse_dss(data.len(), body).map(MptcpOption::Dss),
            subtype::ADD_ADDR => parse_add_addr(data.len(), nibble, body).map(MptcpOption::AddAddr),
            subtype::REMOVE_ADDR => parse_remove_addr(body).map(MptcpOption::RemoveAddr),
            subtype::MP_PRIO => parse_prio(data.len(), nibble, body).map(MptcpOption::Prio),
            subtype::MP_FAIL => parse_u64(body).map(|dsn| MptcpOption::Fail(MpFail { dsn })),
            subtype::MP_FASTCLOSE => {
                parse_u64(body).map(|receiver_key| MptcpOption::FastClose(MpFastClose { receiver_key }))
            }
            subtype::MP_TCPRST => parse_tcprst(data.len(), nibble, body).map(MptcpOption::Reset),
            _ => Err(WireError::Malformed),
        }
    }

    /// Length in bytes, without padding.
    // No option is empty, so an `is_empty` would say nothing.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        match self {
            MptcpOption::Capable(o) => match o {
                MpCapable::Syn { .. } => 4,
                MpCapable::SynAck { .. } => 12,
                MpCapable::Ack { .. } => 20,
                MpCapable::Data { checksum: None, .. } => 22,
                MpCapable::Data { checksum: Some(_), .. } => 24,
            },
            MptcpOption::Join(o) => match o {
                MpJoin::Syn { .. } => 12,
                MpJoin::SynAck { .. } => 16,
                MpJoin::Ack { .. } => 24,
            },
            MptcpOption::Dss(o) => o.len(),
            MptcpOption::AddAddr(o) => {
                let address = if o.address.is_ipv4() { 4 } else { 16 };
                4 + address + if o.port.is_some() { 2 } else { 0 } + if o.hmac.is_some() { 8 } else { 0 }
            }
            MptcpOption::RemoveAddr(o) => 3 + o.ids.len(),
            MptcpOption::Prio(o) => 3 + usize::from(o.address_id.is_some()),
            MptcpOption::Fail(_) | MptcpOption::FastClose(_) => 12,
            MptcpOption::Reset(_) => 4,
        }
    }

    /// Writes the option to the start of `buf` and returns its length, [`len`](Self::len).
    ///
    /// # Panics
    /// When `buf` is shorter than that.
    pub fn emit(&self, buf: &mut [u8]) -> usize {
        let len = self.len();
        let mut w = Writer::new(&mut buf[..len]);
        w.u8(KIND);
        // 40 bytes of option space bound every legal option.
        w.u8(len as u8);
        match self {
            MptcpOption::Capable(o) => emit_capable(o, &mut w),
            MptcpOption::Join(o) => emit_join(o, &mut w),
            MptcpOption::Dss(o) => emit_dss(o, &mut w),
            MptcpOption::AddAddr(o) => emit_add_addr(o, &mut w),
            MptcpOption::RemoveAddr(o) => {
                w.u8(subtype::REMOVE_ADDR << 4);
                o.ids.iter().for_each(|id| w.u8(id.0));
            }
            MptcpOption::Prio(o) => {
                w.u8(subtype::MP_PRIO << 4 | u8::from(o.backup));
                if let Some(id) = o.address_id {
                    w.u8(id.0);
                }
            }
            MptcpOption::Fail(o) => {
                w.u16(u16::from(subtype::MP_FAIL) << 12);
                w.u64(o.dsn);
            }
            MptcpOption::FastClose(o) => {
                w.u16(u16::from(subtype::MP_FASTCLOSE) << 12);
                w.u64(o.receiver_key);
            }
            MptcpOption::Reset(o) => {
                w.u8(subtype::MP_TCPRST << 4 | u8::from(o.transient));
                w.u8(o.reason);
            }
        }
        debug_assert_eq!(w.written(), len);
        len
    }

    /// The subtype number, see [`subtype`].
    pub const fn subtype(&self) -> u8 {
        match self {
            MptcpOption::Capable(_) => subtype::MP_CAPABLE,
            MptcpOption::Join(_) => subtype::MP_JOIN,
            MptcpOption::Dss(_) => subtype::DSS,
            MptcpOption::AddAddr(_) => subtype::ADD_ADDR,
            MptcpOption::RemoveAddr(_) => subtype::REMOVE_ADDR,
            MptcpOption::Prio(_) => subtype::MP_PRIO,
            MptcpOption::Fail(_) => subtype::MP_FAIL,
            MptcpOption::FastClose(_) => subtype::MP_FASTCLOSE,
            MptcpOption::Reset(_) => subtype::MP_TCPRST,
        }
    }
}

impl CapableFlags {
    /// The flags in the octet `bits`.
    pub const fn from_bits(bits: u8) -> Self {
        CapableFlags {
            checksum_required: bits & 0x80 != 0,
            extensibility: bits & 0x40 != 0,
            no_join_initial: bits & 0x20 != 0,
            algorithms: bits & 0x1f,
        }
    }

    /// The octet on the wire.
    pub const fn bits(self) -> u8 {
        (self.checksum_required as u8) << 7
            | (self.extensibility as u8) << 6
            | (self.no_join_initial as u8) << 5
            | self.algorithms & 0x1f
    }
}

fn parse_capable(len: usize, version: u8, mut r: Reader<'_>) -> Result<MpCapable, WireError> {
    if len < 4 {
        return Err(WireError::BadLength);
    }
    let flags = CapableFlags::from_bits(r.u8()?);
    Ok(match len {
        4 => MpCapable::Syn { version, flags },
        12 => MpCapable::SynAck { version, flags, key: r.u64()? },
        20 => MpCapable::Ack { version, flags, sender_key: r.u64()?, receiver_key: r.u64()? },
        22 | 24 => MpCapable::Data {
            version,
            flags,
            sender_key: r.u64()?,
            receiver_key: r.u64()?,
            len: r.u16()?,
            checksum: if len == 24 { Some(r.u16()?) } else { None },
        },
        // RFC 8684 §3.1: other versions, and B, may change the length; the rest is then unknown.
        _ if version != VERSION || flags.extensibility => MpCapable::Syn { version, flags },
        _ => return Err(WireError::BadLength),
    })
}

fn emit_capable(o: &MpCapable, w: &mut Writer<'_>) {
    w.u8(subtype::MP_CAPABLE << 4 | o.version() & 0xf);
    w.u8(o.flags().bits());
    match *o {
        MpCapable::Syn { .. } => {}
        MpCapable::SynAck { key, .. } => w.u64(key),
        MpCapable::Ack { sender_key, receiver_key, .. } => {
            w.u64(sender_key);
            w.u64(receiver_key);
        }
        MpCapable::Data { sender_key, receiver_key, len, checksum, .. } => {
            w.u64(sender_key);
            w.u64(receiver_key);
            w.u16(len);
            if let Some(c) = checksum {
                w.u16(c);
            }
        }
    }
}

fn parse_join(len: usize, nibble: u8, mut r: Reader<'_>) -> Result<MpJoin, WireError> {
    let backup = nibble & 1 != 0;
    Ok(match len {
        12 => MpJoin::Syn { backup, address_id: AddressId(r.u8()?), token: r.u32()?, nonce: r.u32()? },
        16 => MpJoin::SynAck { backup, address_id: AddressId(r.u8()?), hmac: r.u64()?, nonce: r.u32()? },
        24 => {
            r.u8()?; // reserved
            MpJoin::Ack { hmac: r.array()? }
        }
        _ => return Err(WireError::BadLength),
    })
}

fn emit_join(o: &MpJoin, w: &mut Writer<'_>) {
    let head = |backup: bool| subtype::MP_JOIN << 4 | u8::from(backup);
    match *o {
        MpJoin::Syn { backup, address_id, token, nonce } => {
            w.u8(head(backup));
            w.u8(address_id.0);
            w.u32(token);
            w.u32(nonce);
        }
        MpJoin::SynAck { backup, address_id, hmac, nonce } => {
            w.u8(head(backup));
            w.u8(address_id.0);
            w.u64(hmac);
            w.u32(nonce);
        }
        MpJoin::Ack { hmac } => {
            w.u8(head(false));
            w.u8(0);
            w.put(&hmac);
        }
    }
}

// Flags of the DSS option (RFC 8684 §3.3, figure 9).
const DSS_ACK: u8 = 0x01;
const DSS_ACK_LONG: u8 = 0x02;
const DSS_MAP: u8 = 0x04;
const DSS_DSN_LONG: u8 = 0x08;
const DSS_FIN: u8 = 0x10;

impl Dss {
    /// It maps everything from there on: the peer has fallen back to plain TCP (RFC 8684 §3.7).
    pub(crate) fn is_infinite(&self) -> bool {
        !self.data_fin && self.mapping.is_some_and(|m| m.len == 0)
    }

    fn len(&self) -> usize {
        let ack = match self.ack {
            None => 0,
            Some(DataAck::Short(_)) => 4,
            Some(DataAck::Long(_)) => 8,
        };
        let mapping = match self.mapping {
            None => 0,
            Some(m) => {
                let dsn = if matches!(m.dsn, Dsn::Short(_)) { 4 } else { 8 };
                dsn + 4 + 2 + if m.checksum.is_some() { 2 } else { 0 }
            }
        };
        4 + ack + mapping
    }
}

fn parse_dss(len: usize, mut r: Reader<'_>) -> Result<Dss, WireError> {
    if len < 4 {
        return Err(WireError::BadLength);
    }
    let flags = r.u8()?;
    let has = |flag: u8| flags & flag != 0;
    let ack_len = match (has(DSS_ACK), has(DSS_ACK_LONG)) {
        (false, _) => 0, // "a" means nothing without "A"
        (true, false) => 4,
        (true, true) => 8,
    };
    let map_len = match (has(DSS_MAP), has(DSS_DSN_LONG)) {
        (false, _) => 0,
        (true, false) => 10,
        (true, true) => 14,
    };
    // RFC 8684 §3.3: the presence of the checksum is inferred from the length.
    let bare = 4 + ack_len + map_len;
    let has_checksum = map_len > 0 && len == bare + 2;
    if len != bare && !has_checksum {
        return Err(WireError::BadLength);
    }
    let ack = match ack_len {
        0 => None,
        4 => Some(DataAck::Short(r.u32()?)),
        _ => Some(DataAck::Long(r.u64()?)),
    };
    let mapping = match map_len {
        0 => None,
        _ => Some(DssMapping {
            dsn: if map_len == 10 { Dsn::Short(r.u32()?) } else { Dsn::Long(r.u64()?) },
            ssn: r.u32()?,
            len: r.u16()?,
            checksum: if has_checksum { Some(r.u16()?) } else { None },
        }),
    };
    Ok(Dss { data_fin: has(DSS_FIN), ack, mapping })
}

fn emit_dss(o: &Dss, w: &mut Writer<'_>) {
    let mut flags = if o.data_fin { DSS_FIN } else { 0 };
    flags |= match o.ack {
        None => 0,
        Some(DataAck::Short(_)) => DSS_ACK,
        Some(DataAck::Long(_)) => DSS_ACK | DSS_ACK_LONG,
    };
    flags |= match o.mapping {
        None => 0,
        Some(DssMapping { dsn: Dsn::Short(_), .. }) => DSS_MAP,
        Some(DssMapping { dsn: Dsn::Long(_), .. }) => DSS_MAP | DSS_DSN_LONG,
    };
    w.u8(subtype::DSS << 4);
    w.u8(flags);
    match o.ack {
        None => {}
        Some(DataAck::Short(v)) => w.u32(v),
        Some(DataAck::Long(v)) => w.u64(v),
    }
    if let Some(m) = o.mapping {
        match m.dsn {
            Dsn::Short(v) => w.u32(v),
            Dsn::Long(v) => w.u64(v),
        }
        w.u32(m.ssn);
        w.u16(m.len);
        if let Some(c) = m.checksum {
            w.u16(c);
        }
    }
}

fn parse_add_addr(len: usize, nibble: u8, mut r: Reader<'_>) -> Result<AddAddr, WireError> {
    let echo = nibble & 1 != 0;
    // RFC 8684 §3.4.1: the HMAC is there exactly when E = 0. With that, the length tells family and port.
    let (v4, has_port) = match if echo { Some(len) } else { len.checked_sub(8) } {
        Some(8) => (true, false),
        Some(10) => (true, true),
        Some(20) => (false, false),
        Some(22) => (false, true),
        _ => return Err(WireError::BadLength),
    };
    Ok(AddAddr {
        address_id: AddressId(r.u8()?),
        address: if v4 {
            IpAddr::V4(Ipv4Addr::from(r.array::<4>()?))
        } else {
            IpAddr::V6(Ipv6Addr::from(r.array::<16>()?))
        },
        port: if has_port { Some(r.u16()?) } else { None },
        hmac: if echo { None } else { Some(r.u64()?) },
    })
}

fn emit_add_addr(o: &AddAddr, w: &mut Writer<'_>) {
    w.u8(subtype::ADD_ADDR << 4 | u8::from(o.hmac.is_none()));
    w.u8(o.address_id.0);
    match o.address {
        IpAddr::V4(a) => w.put(&a.octets()),
        IpAddr::V6(a) => w.put(&a.octets()),
    }
    if let Some(port) = o.port {
        w.u16(port);
    }
    if let Some(hmac) = o.hmac {
        w.u64(hmac);
    }
}

fn parse_remove_addr(r: Reader<'_>) -> Result<RemoveAddr, WireError> {
    let ids = r.rest();
    if ids.is_empty() || ids.len() > RemoveAddr::MAX_IDS {
        return Err(WireError::BadLength);
    }
    Ok(RemoveAddr { ids: ids.iter().map(|id| AddressId(*id)).collect() })
}

fn parse_prio(len: usize, nibble: u8, mut r: Reader<'_>) -> Result<MpPrio, WireError> {
    let backup = nibble & 1 != 0;
    match len {
        3 => Ok(MpPrio { backup, address_id: None }),
        4 => Ok(MpPrio { backup, address_id: Some(AddressId(r.u8()?)) }),
        _ => Err(WireError::BadLength),
    }
}

/// MP_FAIL and MP_FASTCLOSE: eight reserved bits, then a 64-bit value.
fn parse_u64(mut r: Reader<'_>) -> Result<u64, WireError> {
    if r.0.len() != 9 {
        return Err(WireError::BadLength);
    }
    r.u8()?;
    r.u64()
}

fn parse_tcprst(len: usize, nibble: u8, mut r: Reader<'_>) -> Result<MpTcpRst, WireError> {
    if len != 4 {
        return Err(WireError::BadLength);
    }
    Ok(MpTcpRst { transient: nibble & 1 != 0, reason: r.u8()? })
}

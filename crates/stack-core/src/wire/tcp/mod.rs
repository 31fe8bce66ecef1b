//! TCP segments (RFC 9293 §3.1).

mod display;
mod options;
#[cfg(test)]
mod tests;

pub use display::Summary;
pub use options::{MAX_OPTIONS, RawOption, RawOptions, TcpOptions, Timestamps, kind};

use super::cursor::Writer;
use super::ip::PROTOCOL_TCP;
use super::mptcp::MptcpPacket;
use super::{WireError, checksum};
use core::net::IpAddr;
use etherparse::{TcpHeaderSlice, err};
use umptcp_types::SeqNumber;

/// Length of a TCP header without options, in bytes.
pub const MIN_HEADER: usize = 20;
/// Length of the longest TCP header, in bytes.
pub const MAX_HEADER: usize = MIN_HEADER + MAX_OPTIONS;
/// Where the checksum field is, counted from the start of the TCP header.
pub const CHECKSUM_OFFSET: usize = 16;

/// The control bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TcpFlags {
    /// No more data from the sender.
    pub fin: bool,
    /// Synchronize sequence numbers.
    pub syn: bool,
    /// Reset the connection.
    pub rst: bool,
    /// Push.
    pub psh: bool,
    /// The acknowledgment field is significant.
    pub ack: bool,
    /// The urgent pointer is significant.
    pub urg: bool,
    /// ECN-echo (RFC 3168).
    pub ece: bool,
    /// Congestion window reduced (RFC 3168).
    pub cwr: bool,
}

impl TcpFlags {
    const NONE: TcpFlags = TcpFlags::from_bits(0);
    /// FIN alone.
    pub const FIN: TcpFlags = TcpFlags { fin: true, ..TcpFlags::NONE };
    /// SYN alone.
    pub const SYN: TcpFlags = TcpFlags { syn: true, ..TcpFlags::NONE };
    /// RST alone.
    pub const RST: TcpFlags = TcpFlags { rst: true, ..TcpFlags::NONE };
    /// PSH alone.
    pub const PSH: TcpFlags = TcpFlags { psh: true, ..TcpFlags::NONE };
    /// ACK alone.
    pub const ACK: TcpFlags = TcpFlags { ack: true, ..TcpFlags::NONE };
    /// URG alone.
    pub const URG: TcpFlags = TcpFlags { urg: true, ..TcpFlags::NONE };
    /// ECE alone.
    pub const ECE: TcpFlags = TcpFlags { ece: true, ..TcpFlags::NONE };
    /// CWR alone.
    pub const CWR: TcpFlags = TcpFlags { cwr: true, ..TcpFlags::NONE };
    /// SYN and ACK.
    pub const SYN_ACK: TcpFlags = TcpFlags { syn: true, ..TcpFlags::ACK };

    /// The flags in octet 13 of the header.
    pub const fn from_bits(bits: u8) -> Self {
        TcpFlags {
            fin: bits & 0x01 != 0,
            syn: bits & 0x02 != 0,
            rst: bits & 0x04 != 0,
            psh: bits & 0x08 != 0,
            ack: bits & 0x10 != 0,
            urg: bits & 0x20 != 0,
            ece: bits & 0x40 != 0,
            cwr: bits & 0x80 != 0,
        }
    }

    /// Octet 13 of the header.
    pub const fn bits(self) -> u8 {
        self.fin as u8
            | (self.syn as u8) << 1
            | (self.rst as u8) << 2
            | (self.psh as u8) << 3
            | (self.ack as u8) << 4
            | (self.urg as u8) << 5
            | (self.ece as u8) << 6
            | (self.cwr as u8) << 7
    }
}

impl core::ops::BitOr for TcpFlags {
    type Output = TcpFlags;

    fn bitor(self, other: TcpFlags) -> TcpFlags {
        TcpFlags::from_bits(self.bits() | other.bits())
    }
}

/// A view of a TCP segment: header, options and payload of any bytes with a valid data offset.
#[derive(Clone, Debug)]
pub struct TcpPacket<'a> {
    header: TcpHeaderSlice<'a>,
    segment: &'a [u8],
}

impl<'a> TcpPacket<'a> {
    /// Views `segment`, the whole IP payload. The checksum is not looked at.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when the header exceeds the slice, [`WireError::BadLength`] when the data
    /// offset is below 5.
    pub fn new(segment: &'a [u8]) -> Result<Self, WireError> {
        let header = TcpHeaderSlice::from_slice(segment).map_err(|e| match e {
            err::tcp::HeaderSliceError::Len(_) => WireError::Truncated,
            err::tcp::HeaderSliceError::Content(_) => WireError::BadLength,
        })?;
        Ok(TcpPacket { header, segment })
    }

    /// Source port.
    pub fn src_port(&self) -> u16 {
        self.header.source_port()
    }

    /// Destination port.
    pub fn dst_port(&self) -> u16 {
        self.header.destination_port()
    }

    /// Sequence number.
    pub fn seq(&self) -> SeqNumber {
        SeqNumber(self.header.sequence_number())
    }

    /// Acknowledgment number, whether or not the ACK flag is set.
    pub fn ack(&self) -> SeqNumber {
        SeqNumber(self.header.acknowledgment_number())
    }

    /// Control bits.
    pub fn flags(&self) -> TcpFlags {
        TcpFlags::from_bits(self.header.slice()[13])
    }

    /// Window field, unscaled.
    pub fn window(&self) -> u16 {
        self.header.window_size()
    }

    /// Checksum field.
    pub fn checksum(&self) -> u16 {
        self.header.checksum()
    }

    /// Urgent pointer, whether or not the URG flag is set.
    pub fn urgent(&self) -> u16 {
        self.header.urgent_pointer()
    }

    /// Length of the header in bytes, options included.
    pub fn header_len(&self) -> usize {
        self.header.slice().len()
    }

    /// The options, undecoded.
    pub fn options(&self) -> &'a [u8] {
        &self.header.slice()[MIN_HEADER..]
    }

    /// The options one by one, undecoded.
    pub fn raw_options(&self) -> RawOptions<'a> {
        RawOptions::new(self.options())
    }

    /// The subtypes of the MPTCP options, in order, including options that cannot be decoded.
    pub fn mptcp_subtypes(&self) -> impl Iterator<Item = u8> + use<'a> {
        let mptcp = self.raw_options().for_forwarding().flatten().filter(|option| option.kind == kind::MPTCP);
        mptcp.filter_map(|option| Some(MptcpPacket::new(option.bytes).ok()?.subtype()))
    }

    /// What follows the header.
    pub fn payload(&self) -> &'a [u8] {
        &self.segment[self.header_len()..]
    }
}

/// A TCP header.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TcpRepr {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number.
    pub seq: SeqNumber,
    /// Acknowledgment number; meaningless without the ACK flag.
    pub ack: SeqNumber,
    /// Control bits.
    pub flags: TcpFlags,
    /// Window field, unscaled.
    pub window: u16,
    /// Urgent pointer; meaningless without the URG flag.
    pub urgent: u16,
    /// Options.
    pub options: TcpOptions,
}

impl TcpRepr {
    /// Parses the header at the start of `segment` and returns it with its length in bytes. The checksum is
    /// not looked at: see [`verify_checksum`](Self::verify_checksum). Options never make it fail: see
    /// [`TcpOptions::parse`].
    ///
    /// # Errors
    /// As [`TcpPacket::new`].
    pub fn parse(segment: &[u8]) -> Result<(TcpRepr, usize), WireError> {
        let packet = TcpPacket::new(segment)?;
        let repr = TcpRepr {
            src_port: packet.src_port(),
            dst_port: packet.dst_port(),
            seq: packet.seq(),
            ack: packet.ack(),
            flags: packet.flags(),
            window: packet.window(),
            urgent: packet.urgent(),
            options: TcpOptions::parse(packet.options()),
        };
        Ok((repr, packet.header_len()))
    }

    /// Length of the header in bytes, options included: 20 to 60, a multiple of 4.
    pub fn header_len(&self) -> usize {
        MIN_HEADER + self.options.len().min(MAX_OPTIONS)
    }

    /// Writes the header to the start of `buf`, its checksum field 0, and returns its length,
    /// [`header_len`](Self::header_len).
    ///
    /// # Panics
    /// When `buf` is shorter than that.
    pub fn emit(&self, buf: &mut [u8]) -> usize {
        let TcpRepr { src_port, dst_port, seq, ack, flags, window, urgent, options } = self;
        let options_len = options.emit(&mut buf[MIN_HEADER..]);
        let mut w = Writer::new(buf);
        w.u16(*src_port);
        w.u16(*dst_port);
        w.u32(seq.0);
        w.u32(ack.0);
        // The data offset counts 32-bit words, in the upper half of the octet.
        w.u8(((MIN_HEADER + options_len) / 4 * 16) as u8);
        w.u8(flags.bits());
        w.u16(*window);
        w.u16(0);
        w.u16(*urgent);
        MIN_HEADER + options_len
    }

    /// The checksum of `segment`, header and payload, is right for these addresses.
    pub fn verify_checksum(src: IpAddr, dst: IpAddr, segment: &[u8]) -> bool {
        let pseudo = checksum::pseudo_header(src, dst, PROTOCOL_TCP, segment.len() as u32);
        checksum::fold(checksum::sum(segment, pseudo)) == 0xffff
    }

    /// The header as one line of a trace: `10.0.0.1:80 > 10.0.0.2:3 [S.] seq 1 ack 2 win 3 len 0 <mss 1460,
    /// …>`.
    pub fn summary(&self, src: IpAddr, dst: IpAddr, payload_len: usize) -> Summary<'_> {
        Summary { repr: self, src, dst, payload_len }
    }
}

/// Completes the checksum of an emitted `header` (exactly the TCP header, its checksum field 0), for a
/// payload of `payload_len` bytes whose [`checksum::sum_slices`] is `payload_sum`.
///
/// # Panics
/// When `header` is shorter than 20 bytes.
pub fn complete_checksum(header: &mut [u8], src: IpAddr, dst: IpAddr, payload_sum: u64, payload_len: usize) {
    let len = (header.len() + payload_len) as u32;
    let pseudo = checksum::pseudo_header(src, dst, PROTOCOL_TCP, len);
    let sum = checksum::add(checksum::sum(header, pseudo), payload_sum);
    put_checksum(header, !checksum::fold(sum));
}

/// Puts the pseudo-header's sum, not complemented, into the checksum field of an emitted `header`: what a
/// device with checksum offload expects
/// (`ChecksumRequest::Partial`).
///
/// # Panics
/// When `header` is shorter than 20 bytes.
pub fn partial_checksum(header: &mut [u8], src: IpAddr, dst: IpAddr, payload_len: usize) {
    let len = (header.len() + payload_len) as u32;
    put_checksum(header, checksum::fold(checksum::pseudo_header(src, dst, PROTOCOL_TCP, len)));
}

fn put_checksum(header: &mut [u8], value: u16) {
    header[CHECKSUM_OFFSET..CHECKSUM_OFFSET + 2].copy_from_slice(&value.to_be_bytes());
}

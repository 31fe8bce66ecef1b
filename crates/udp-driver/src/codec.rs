//! TCP in UDP: a segment as a datagram of the same size, and back (draft-cheshire-tcp-over-udp-00).
//!
//! The first 20 bytes of the TCP header change places, so that ports and checksum are where UDP has them and
//! the datagram's length replaces the urgent pointer. Options and payload stay as they are:
//!
//! ```text
//!  TCP segment                                   datagram
//!  0  source port | destination port             0  source port | destination port
//!  4  sequence number                            4  length      | checksum
//!  8  acknowledgement number                     8  offset, flags | window
//! 12  offset, flags | window                     12 sequence number
//! 16  checksum | urgent pointer                  16 acknowledgement number
//! 20  options, payload                           20 options, payload
//! ```
//!
//! The eight bytes of UDP's own header are the sockets' business, its length and its checksum included. What
//! is coded here is the *body*, from byte 8 on. Nothing here makes a system call.

use thiserror::Error;

/// Length of UDP's header, in bytes.
pub const UDP_HEADER: usize = 8;

/// Length of the TCP header's fixed part, in bytes.
pub const TCP_HEADER: usize = 20;

/// Length of what a body has of the TCP header before the options, in bytes.
pub const BODY_HEADER: usize = TCP_HEADER - UDP_HEADER;

/// Room for the longest header in a body, with 40 bytes of options.
pub const MAX_BODY_HEADER: usize = BODY_HEADER + 40;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;
const CWR: u8 = 0x80;

/// Where flags and sequence number are in a body.
const FLAGS: usize = 1;
const SEQUENCE: usize = 4;

/// Something that is not a TCP segment in UDP, or cannot become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum CodecError {
    /// It ends within the header.
    #[error("it ends within the TCP header")]
    Short,
    /// The data offset is less than 5 words, or leads past the end.
    #[error("the data offset is not that of a TCP header of this length")]
    DataOffset,
    /// URG is set: the urgent pointer has no place in a datagram.
    #[error("URG is set, which TCP in UDP cannot carry")]
    Urgent,
}

/// The ports of a segment, which are those of its datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ports {
    /// Of the sender.
    pub source: u16,
    /// Of the receiver.
    pub destination: u16,
}

/// The TCP header as a body begins with it: 12 bytes, and options.
#[derive(Clone, Copy)]
pub struct BodyHeader {
    bytes: [u8; MAX_BODY_HEADER],
    len: usize,
}

impl BodyHeader {
    /// The header of a segment; `tcp` begins with the TCP header and may go on.
    ///
    /// # Errors
    /// When it is no TCP header, or URG is set.
    pub fn of_segment(tcp: &[u8]) -> Result<(Ports, BodyHeader), CodecError> {
        let fixed: &[u8; TCP_HEADER] = tcp.first_chunk().ok_or(CodecError::Short)?;
        let len = checked_header_len(fixed[12], fixed[13], tcp.len())?;
        let mut bytes = [0; MAX_BODY_HEADER];
        bytes[..4].copy_from_slice(&fixed[12..16]);
        bytes[4..12].copy_from_slice(&fixed[4..12]);
        bytes[BODY_HEADER..len - UDP_HEADER].copy_from_slice(&tcp[TCP_HEADER..len]);
        let word = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
        let ports = Ports { source: word(0), destination: word(2) };
        Ok((ports, BodyHeader { bytes, len: len - UDP_HEADER }))
    }

    /// The header of one part of a segment that is sent in several: of that which begins `offset` bytes after
    /// the start of the segment's payload. As TCP segmentation offload does, only the first part keeps CWR,
    /// and only the last keeps FIN and PSH.
    pub fn of_part(&self, offset: u32, is_last: bool) -> BodyHeader {
        let mut part = *self;
        if offset != 0 {
            part.bytes[FLAGS] &= !CWR;
            let sequence = self.sequence().wrapping_add(offset);
            part.bytes[SEQUENCE..SEQUENCE + 4].copy_from_slice(&sequence.to_be_bytes());
        }
        if !is_last {
            part.bytes[FLAGS] &= !(FIN | PSH);
        }
        part
    }

    /// The same with as many options as a header can have, where it is the SYN of who connects: so the answer
    /// is never longer, whatever options it has. What is added is the end of the list (RFC 9293 §3.1).
    pub fn padded_if_first(mut self) -> BodyHeader {
        if self.bytes[FLAGS] & (SYN | ACK) == SYN {
            self.bytes[0] = self.bytes[0] & 0x0f | 0xf0;
            self.len = MAX_BODY_HEADER;
        }
        self
    }

    /// Whether it may be an answer to somebody whose address is not proven: SYN and ACK, or RST.
    pub fn may_answer_a_stranger(&self) -> bool {
        let flags = self.bytes[FLAGS];
        flags & (SYN | ACK) == SYN | ACK || flags & RST != 0
    }

    /// The sequence number.
    pub fn sequence(&self) -> u32 {
        u32::from_be_bytes([4, 5, 6, 7].map(|at| self.bytes[at]))
    }

    /// The bytes that the body begins with.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl std::fmt::Debug for BodyHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02x?}", self.as_slice())
    }
}

/// The length of the header that a body begins with, options included. `None`: it is none.
pub fn body_header_len(body: &[u8]) -> Option<usize> {
    let [offset, flags] = *body.first_chunk()?;
    let len = checked_header_len(offset, flags, UDP_HEADER + body.len()).ok()? - UDP_HEADER;
    (body.len() >= BODY_HEADER).then_some(len)
}

/// Makes a TCP segment of a body, in its place: `segment` is [`UDP_HEADER`] bytes of any content and then the
/// body. Returns the length of the TCP header.
///
/// Checksum and urgent pointer become zero: whoever received the datagram has verified UDP's checksum, which
/// covers the same bytes.
///
/// # Errors
/// When the body is none; `segment` is then as it was.
pub fn decode(segment: &mut [u8], ports: Ports) -> Result<usize, CodecError> {
    let total = segment.len();
    let fixed: &mut [u8; TCP_HEADER] = segment.first_chunk_mut().ok_or(CodecError::Short)?;
    let len = checked_header_len(fixed[8], fixed[9], total)?;
    let body: [u8; BODY_HEADER] = std::array::from_fn(|at| fixed[UDP_HEADER + at]);
    fixed[..2].copy_from_slice(&ports.source.to_be_bytes());
    fixed[2..4].copy_from_slice(&ports.destination.to_be_bytes());
    fixed[4..12].copy_from_slice(&body[4..]);
    fixed[12..16].copy_from_slice(&body[..4]);
    fixed[16..].fill(0);
    Ok(len)
}

/// The length of a TCP header, from the bytes with its data offset and its flags.
fn checked_header_len(offset: u8, flags: u8, total: usize) -> Result<usize, CodecError> {
    let len = usize::from(offset >> 4) * 4;
    if len < TCP_HEADER || len > total {
        return Err(CodecError::DataOffset);
    }
    if flags & URG != 0 {
        return Err(CodecError::Urgent);
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment with four bytes of options and three of payload, each byte another.
    const SEGMENT: [u8; 27] = [
        0xc0, 0x01, 0x1f, 0x90, // ports 49153 and 8080
        0xa1, 0xa2, 0xa3, 0xa4, // sequence number
        0xb1, 0xb2, 0xb3, 0xb4, // acknowledgement number
        0x60, 0x18, 0xc1, 0xc2, // 6 words, PSH and ACK, window
        0xd1, 0xd2, 0x00, 0x00, // checksum, urgent pointer
        0xe1, 0xe2, 0xe3, 0xe4, // options
        0xf1, 0xf2, 0xf3, // payload
    ];

    #[test]
    fn each_byte_is_in_its_place() {
        let (ports, header) = BodyHeader::of_segment(&SEGMENT).unwrap();
        assert_eq!(ports, Ports { source: 49153, destination: 8080 });
        let body =
            [0x60, 0x18, 0xc1, 0xc2, 0xa1, 0xa2, 0xa3, 0xa4, 0xb1, 0xb2, 0xb3, 0xb4, 0xe1, 0xe2, 0xe3, 0xe4];
        assert_eq!(header.as_slice(), body);
    }

    #[test]
    fn back_in_place_without_the_checksum() {
        let (ports, header) = BodyHeader::of_segment(&SEGMENT).unwrap();
        let mut room = vec![0x55; UDP_HEADER];
        room.extend_from_slice(header.as_slice());
        room.extend_from_slice(&SEGMENT[24..]);
        assert_eq!(decode(&mut room, ports), Ok(24));
        let mut expected = SEGMENT;
        expected[16..20].fill(0);
        assert_eq!(room, expected);
    }

    #[test]
    fn parts_have_flags_as_offload_would_give_them() {
        let mut segment = SEGMENT;
        segment[13] = 0x80 | 0x18 | 0x01;
        segment[4..8].copy_from_slice(&0xffff_fffe_u32.to_be_bytes());
        let (_, header) = BodyHeader::of_segment(&segment).unwrap();
        let flags = |part: BodyHeader| (part.as_slice()[1], part.sequence());
        assert_eq!(flags(header.of_part(0, false)), (0x90, 0xffff_fffe), "first");
        assert_eq!(flags(header.of_part(1, false)), (0x10, 0xffff_ffff), "middle");
        assert_eq!(flags(header.of_part(2, true)), (0x19, 0), "last");
        assert_eq!(flags(header.of_part(0, true)), (0x99, 0xffff_fffe), "the only one");
        assert_eq!(header.of_part(2, true).as_slice()[8..], header.as_slice()[8..]);
    }

    #[test]
    fn the_first_segment_is_as_long_as_any_answer() {
        let with = |flags: u8| {
            let mut segment = SEGMENT;
            segment[13] = flags;
            BodyHeader::of_segment(&segment).unwrap().1
        };
        let syn = with(0x02).padded_if_first();
        assert_eq!(syn.as_slice().len(), MAX_BODY_HEADER);
        assert_eq!(syn.as_slice()[..16], [&[0xf0], &with(0x02).as_slice()[1..]].concat());
        assert!(syn.as_slice()[16..].iter().all(|byte| *byte == 0));
        for flags in [0x12, 0x10, 0x04, 0x18] {
            assert_eq!(with(flags).padded_if_first().as_slice(), with(flags).as_slice());
        }
        let answers = [0x02, 0x12, 0x10, 0x14, 0x04, 0x11].map(|flags| with(flags).may_answer_a_stranger());
        assert_eq!(answers, [false, true, false, true, true, false]);
    }

    #[test]
    fn what_is_none_is_refused_and_left_alone() {
        use CodecError::{DataOffset, Short, Urgent};
        let (ports, header) = BodyHeader::of_segment(&SEGMENT).unwrap();
        let mut room = vec![0; UDP_HEADER];
        room.extend_from_slice(header.as_slice());
        let with = |at: usize, byte: u8| {
            let mut changed = room.clone();
            changed[at] = byte;
            changed
        };
        for (mut segment, error) in [
            (vec![], Short),
            (room[..19].to_vec(), Short),
            (room[..23].to_vec(), DataOffset),
            (with(8, 0x40), DataOffset),
            (with(8, 0x00), DataOffset),
            (with(8, 0x70), DataOffset),
            (with(9, 0x30), Urgent),
        ] {
            let before = segment.clone();
            assert_eq!(decode(&mut segment, ports), Err(error), "{before:02x?}");
            assert_eq!(segment, before);
        }
        let mut segment = SEGMENT;
        segment[13] |= 0x20;
        assert_eq!(BodyHeader::of_segment(&segment).unwrap_err(), Urgent);
        assert_eq!(BodyHeader::of_segment(&SEGMENT[..19]).unwrap_err(), Short);
        assert_eq!(BodyHeader::of_segment(&SEGMENT[..23]).unwrap_err(), DataOffset);
    }
}

//! Hand-made TCP segments, including malformed ones that no kernel sends.

use crate::netns::Netns;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::SocketAddrV4;

/// FIN, for [`Segment::flags`].
pub const FIN: u8 = 0x01;
/// SYN.
pub const SYN: u8 = 0x02;
/// RST.
pub const RST: u8 = 0x04;
/// PSH.
pub const PSH: u8 = 0x08;
/// ACK.
pub const ACK: u8 = 0x10;

/// A TCP segment over IPv4, with any contents.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Source address.
    pub source: SocketAddrV4,
    /// Destination address.
    pub destination: SocketAddrV4,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Flags.
    pub flags: u8,
    /// Header length in 32-bit words to put into the header; the real one if `None`.
    pub data_offset: Option<u8>,
    /// Option bytes, padded with zeros to a multiple of four.
    pub options: Vec<u8>,
    /// Payload.
    pub payload: Vec<u8>,
    /// Truncate the TCP segment to this length after computing the checksum.
    pub cut: Option<usize>,
    /// Add this to the checksum.
    pub spoil_checksum: u16,
}

impl Segment {
    /// An ACK without options or payload.
    pub fn new(source: SocketAddrV4, destination: SocketAddrV4) -> Self {
        Segment {
            source,
            destination,
            sequence: 1,
            acknowledgement: 1,
            flags: ACK,
            data_offset: None,
            options: Vec::new(),
            payload: Vec::new(),
            cut: None,
            spoil_checksum: 0,
        }
    }

    /// The IP packet.
    pub fn packet(&self) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let words = self.data_offset.unwrap_or(5 + (options.len() / 4) as u8);
        let mut tcp = Vec::new();
        tcp.extend(self.source.port().to_be_bytes());
        tcp.extend(self.destination.port().to_be_bytes());
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.acknowledgement.to_be_bytes());
        tcp.extend([words << 4, self.flags]);
        tcp.extend(1000_u16.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(&options);
        tcp.extend(&self.payload);
        let mut pseudo = Vec::new();
        pseudo.extend(self.source.ip().octets());
        pseudo.extend(self.destination.ip().octets());
        pseudo.extend([0, 6]);
        pseudo.extend((tcp.len() as u16).to_be_bytes());
        pseudo.extend(&tcp);
        let checksum = internet_checksum(&pseudo).wrapping_add(self.spoil_checksum);
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
        tcp.truncate(self.cut.unwrap_or(usize::MAX));

        let mut packet = vec![0x45, 0];
        packet.extend((20 + tcp.len() as u16).to_be_bytes());
        // Identification 0, DF, TTL 64, TCP; the kernel fills in the checksum.
        packet.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        packet.extend(self.source.ip().octets());
        packet.extend(self.destination.ip().octets());
        packet.extend(tcp);
        packet
    }
}

/// The checksum of RFC 1071.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Sends the segments from `ns`, in order.
///
/// # Panics
/// Without permission to open a raw socket, or without a route.
pub fn send(ns: &Netns, segments: &[Segment]) {
    ns.run(|| {
        let raw =
            Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).expect("a raw socket needs root");
        for segment in segments {
            raw.send_to(&segment.packet(), &segment.destination.into()).expect("there is a route");
        }
    });
}

/// Segments from `source` to `destination` that each violate one rule. `sequence` and `acknowledgement`
/// should be close to what the receiver expects, so that not all of them fail the first check.
pub fn malformed(
    source: SocketAddrV4,
    destination: SocketAddrV4,
    sequence: u32,
    acknowledgement: u32,
) -> Vec<Segment> {
    let good = Segment { sequence, acknowledgement, ..Segment::new(source, destination) };
    let with_options =
        |flags: u8, options: &[u8]| Segment { flags, options: options.to_vec(), ..good.clone() };
    let mut all = Vec::new();
    // Truncated headers, and headers with a wrong length.
    all.extend([0, 1, 10, 19].map(|cut| Segment { cut: Some(cut), ..good.clone() }));
    all.extend([0, 4, 6, 15].map(|words| Segment { data_offset: Some(words), ..good.clone() }));
    all.push(Segment { spoil_checksum: 1, payload: vec![0xaa; 100], ..good.clone() });
    // Invalid combinations of flags.
    let flags = [0, SYN | FIN, SYN | RST, SYN | FIN | RST | PSH | ACK | 0x20, 0xff, FIN | RST];
    all.extend(flags.map(|flags| Segment { flags, payload: vec![0xbb; 10], ..good.clone() }));
    // Options of length zero or one, or longer than the header.
    for options in [&[2, 0][..], &[2, 1], &[8, 40], &[3, 255, 1, 1], &[30, 0], &[1, 1, 1, 30]] {
        all.extend([with_options(SYN, options), with_options(ACK, options)]);
    }
    // TCP options with a wrong length.
    for options in [
        &[2, 3, 5][..],
        &[2, 8, 5, 5, 5, 5, 5, 5],
        &[3, 2],
        &[4, 5, 0, 0, 0],
        &[5, 9, 1, 1, 1, 1, 1, 1, 1],
        &[8, 9],
    ] {
        all.extend([with_options(SYN, options), with_options(ACK, options)]);
    }
    // Every MPTCP subtype with every length from 2 to 40, filled with ones: most are invalid, none may do
    // harm.
    for subtype in 0..16_u8 {
        for length in 2..=40_u8 {
            let mut options = vec![30, length, subtype << 4 | 1];
            options.resize(usize::from(length), 0xff);
            let flags = if length % 2 == 0 { ACK } else { SYN };
            all.push(with_options(flags, &options));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_of_rfc_1071() {
        // The example of RFC 1071 §3: the sum is ddf2.
        assert_eq!(internet_checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(internet_checksum(&[0xff]), !0xff00);
    }

    #[test]
    fn segments_are_laid_out_as_asked() {
        let address = |last, port| SocketAddrV4::new([10, 0, 0, last].into(), port);
        let packet = Segment { options: vec![2, 0], ..Segment::new(address(1, 5), address(2, 6)) }.packet();
        assert_eq!(packet.len(), 44);
        assert_eq!(packet[20 + 12], 6 << 4);
        assert_eq!(&packet[40..], &[2, 0, 0, 0]);
        let cut = Segment { cut: Some(10), ..Segment::new(address(1, 5), address(2, 6)) }.packet();
        assert_eq!((cut.len(), cut[3]), (30, 30));
    }
}

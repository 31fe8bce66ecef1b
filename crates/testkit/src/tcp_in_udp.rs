//! TCP in UDP, taken apart by hand from its layout alone, to check what the driver sends.
//!
//! It shares no code with the driver's codec, and demands more: lengths and checksums that fit, and nothing
//! that a peer written after the layout could stumble over.

use std::net::IpAddr;

/// A datagram with a TCP segment in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// The sender's address.
    pub source: IpAddr,
    /// The receiver's address.
    pub destination: IpAddr,
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// The sequence number.
    pub sequence: u32,
    /// The acknowledgement number.
    pub acknowledgement: u32,
    /// CWR, ECE, URG (never set), ACK, PSH, RST, SYN and FIN, from the highest bit down.
    pub flags: u8,
    /// The window, not scaled.
    pub window: u16,
    /// The bytes of the options.
    pub options: Vec<u8>,
    /// The payload.
    pub payload: Vec<u8>,
}

/// A 16-bit number at a place in `bytes`.
fn word(bytes: &[u8], at: usize) -> Result<u16, String> {
    let pair = bytes.get(at..at + 2).ok_or_else(|| format!("it ends before byte {}", at + 2))?;
    Ok(u16::from(pair[0]) * 256 + u16::from(pair[1]))
}

/// A 32-bit number at a place in `bytes`.
fn long(bytes: &[u8], at: usize) -> Result<u32, String> {
    Ok(u32::from(word(bytes, at)?) * 65_536 + u32::from(word(bytes, at + 2)?))
}

/// The sum that UDP's checksum complements (RFC 768, RFC 8200 §8.1), over the pseudo-header and `udp`.
fn sum(source: IpAddr, destination: IpAddr, udp: &[u8]) -> u16 {
    let mut bytes = Vec::new();
    for address in [source, destination] {
        match address {
            IpAddr::V4(a) => bytes.extend_from_slice(&a.octets()),
            IpAddr::V6(a) => bytes.extend_from_slice(&a.octets()),
        }
    }
    bytes.extend_from_slice(&(udp.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&[0, 0, 0, 17]);
    bytes.extend_from_slice(udp);
    if bytes.len() % 2 == 1 {
        bytes.push(0);
    }
    let mut total: u64 = bytes.chunks(2).map(|pair| u64::from(pair[0]) * 256 + u64::from(pair[1])).sum();
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

impl Datagram {
    /// Takes an IP packet apart. `checksum`: whether its checksum is complete; that of packets captured where
    /// they are sent often is not, because the device fills it in.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of_packet(packet: &[u8], checksum: bool) -> Result<Datagram, String> {
        let version = packet.first().ok_or("it is empty")? / 16;
        let (source, destination, protocol, start, end) = match version {
            4 => {
                let start = usize::from(packet[0] % 16) * 4;
                let octets = |at| long(packet, at).map(|a| IpAddr::V4(a.into()));
                if word(packet, 6)? & 0x3fff != 0 {
                    return Err("it is a fragment".into());
                }
                let protocol = word(packet, 8)? % 256;
                (octets(12)?, octets(16)?, protocol, start, usize::from(word(packet, 2)?))
            }
            6 => {
                let octets = |at: usize| {
                    let all: Option<[u8; 16]> =
                        packet.get(at..at + 16).and_then(|bytes| bytes.try_into().ok());
                    all.map(|a| IpAddr::V6(a.into())).ok_or("it ends within an address")
                };
                let protocol = word(packet, 6)? / 256;
                (octets(8)?, octets(24)?, protocol, 40, 40 + usize::from(word(packet, 4)?))
            }
            _ => return Err(format!("IP has no version {version}")),
        };
        if protocol != 17 {
            return Err(format!("its protocol is {protocol}, not UDP"));
        }
        let udp = packet.get(start..end).ok_or("it is shorter than its IP header says")?;
        Datagram::of_udp(source, destination, udp, checksum)
    }

    /// Takes a UDP datagram apart, which begins with UDP's header.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of_udp(
        source: IpAddr,
        destination: IpAddr,
        udp: &[u8],
        checksum: bool,
    ) -> Result<Datagram, String> {
        let length = usize::from(word(udp, 4)?);
        if length != udp.len() {
            return Err(format!("UDP's length is {length}, and there are {} bytes", udp.len()));
        }
        if checksum {
            if word(udp, 6)? == 0 {
                return Err("it has no checksum".into());
            }
            if sum(source, destination, udp) != 0xffff {
                return Err("the checksum does not fit".into());
            }
        }
        let offset_and_flags = word(udp, 8)?;
        let header = usize::from(offset_and_flags >> 12) * 4;
        if header < 20 {
            return Err(format!("the header has {header} bytes"));
        }
        if offset_and_flags & 0x0f00 != 0 {
            return Err("reserved bits are set".into());
        }
        let flags = (offset_and_flags & 0xff) as u8;
        if flags & 0x20 != 0 {
            return Err("URG is set".into());
        }
        let (sequence, acknowledgement) = (long(udp, 12)?, long(udp, 16)?);
        let options = udp.get(20..header).ok_or("it ends within the options")?;
        check_options(options)?;
        Ok(Datagram {
            source,
            destination,
            source_port: word(udp, 0)?,
            destination_port: word(udp, 2)?,
            sequence,
            acknowledgement,
            flags,
            window: word(udp, 10)?,
            options: options.to_vec(),
            payload: udp[header..].to_vec(),
        })
    }

    /// The kinds of its options, NOP and the end of the list left out.
    pub fn option_kinds(&self) -> Vec<u8> {
        let (mut kinds, mut rest) = (Vec::new(), &self.options[..]);
        while let Some(&kind) = rest.first().filter(|kind| **kind != 0) {
            let length = if kind == 1 { 1 } else { rest.get(1).map_or(1, |l| usize::from(*l).max(1)) };
            if kind != 1 {
                kinds.push(kind);
            }
            rest = rest.get(length..).unwrap_or_default();
        }
        kinds
    }
}

/// Each option has its length and fits; after the end of the list all is zero (RFC 9293 §3.1).
fn check_options(options: &[u8]) -> Result<(), String> {
    let mut at = 0;
    while at < options.len() {
        match options[at] {
            0 if options[at..].iter().all(|byte| *byte == 0) => return Ok(()),
            0 => return Err("something follows the end of the options".into()),
            1 => at += 1,
            kind => {
                let length = options.get(at + 1).map_or(0, |l| usize::from(*l));
                if length < 2 || at + length > options.len() {
                    return Err(format!("the option of kind {kind} has a wrong length"));
                }
                at += length;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10.0.0.1:1000 to 10.0.0.2:2000, a SYN with an MSS of 1460; the checksum was added up by hand.
    const SYN: [u8; 44] = [
        0x45, 0x00, 0x00, 0x2c, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0x00, 0x00, 10, 0, 0, 1, 10, 0, 0, 2,
        0x03, 0xe8, 0x07, 0xd0, 0x00, 0x18, 0x78, 0x42, // ports, length, checksum
        0x60, 0x02, 0xff, 0xff, // 6 words, SYN, window
        0x00, 0x00, 0x00, 0x07, 0x00, 0x00, 0x00, 0x00, // sequence and acknowledgement number
        0x02, 0x04, 0x05, 0xb4, // MSS
    ];

    #[test]
    fn a_syn() {
        let syn = Datagram::of_packet(&SYN, true).unwrap();
        assert_eq!((syn.source_port, syn.destination_port), (1000, 2000));
        assert_eq!((syn.sequence, syn.acknowledgement, syn.flags, syn.window), (7, 0, 2, 0xffff));
        assert_eq!((syn.option_kinds(), syn.payload.len()), (vec![2], 0));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |at: usize, byte: u8| {
            let mut packet = SYN;
            packet[at] = byte;
            Datagram::of_packet(&packet, false).unwrap_err()
        };
        assert!(with(0, 0x55).contains("version"));
        assert!(with(9, 6).contains("not UDP"));
        assert!(with(6, 0x20).contains("fragment"));
        assert!(with(25, 0x17).contains("length"));
        assert!(with(28, 0x40).contains("16 bytes"));
        assert!(with(28, 0x61).contains("reserved"));
        assert!(with(29, 0x22).contains("URG"));
        assert!(with(28, 0x70).contains("within the options"));
        assert!(with(41, 0x05).contains("kind 2"));
        let mut packet = SYN;
        packet[43] ^= 1;
        assert!(Datagram::of_packet(&packet, true).unwrap_err().contains("checksum"));
        packet[26..28].fill(0);
        assert!(Datagram::of_packet(&packet, true).unwrap_err().contains("no checksum"));
        for end in 0..SYN.len() {
            Datagram::of_packet(&SYN[..end], false).unwrap_err();
        }
    }
}

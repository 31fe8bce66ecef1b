//! Packet traces in pcapng, one interface per path.
//!
//! The format is that of draft-ietf-opsawg-pcapng: a section header, an interface description for each path, and an
//! enhanced packet block for each packet, with nanosecond times and the direction. Segments stand in the trace as they
//! crossed the device, so they may be up to 64 kB long.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};
use umptcp_stack_core::interface::{ChecksumRequest, ChecksumState, RxPacket, Transmit};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
/// Packets begin with the IP header (LINKTYPE_RAW).
const LINKTYPE_RAW: u16 = 101;
const SNAPLEN: u32 = 262_144;

const OPT_END: u16 = 0;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;

/// An interface of a trace, in order of [`PcapWriter::add_interface`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterfaceId(u32);

/// Which way a packet went, as seen from the stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// It came in.
    Inbound,
    /// It went out.
    Outbound,
}

/// Writes a trace.
pub struct PcapWriter<W: Write> {
    out: W,
    interfaces: u32,
    packet: Vec<u8>,
}

impl<W: Write> PcapWriter<W> {
    /// Starts a trace.
    pub fn new(mut out: W) -> io::Result<Self> {
        let mut options = Options::default();
        options.add(SHB_USERAPPL, concat!("umptcp ", env!("CARGO_PKG_VERSION")).as_bytes());
        let options = options.end();
        let len = 28 + options.len() as u32;
        out.write_all(&SECTION_HEADER.to_ne_bytes())?;
        out.write_all(&len.to_ne_bytes())?;
        out.write_all(&BYTE_ORDER_MAGIC.to_ne_bytes())?;
        // Version 1.0, section of unknown length.
        out.write_all(&1u16.to_ne_bytes())?;
        out.write_all(&0u16.to_ne_bytes())?;
        out.write_all(&u64::MAX.to_ne_bytes())?;
        out.write_all(&options)?;
        out.write_all(&len.to_ne_bytes())?;
        Ok(PcapWriter { out, interfaces: 0, packet: Vec::new() })
    }

    /// Adds an interface. May be called at any time.
    pub fn add_interface(&mut self, name: &str, description: &str) -> io::Result<InterfaceId> {
        let mut options = Options::default();
        options.add(IF_NAME, name.as_bytes());
        if !description.is_empty() {
            options.add(IF_DESCRIPTION, description.as_bytes());
        }
        options.add(IF_TSRESOL, &[9]);
        let options = options.end();
        let len = 20 + options.len() as u32;
        self.out.write_all(&INTERFACE_DESCRIPTION.to_ne_bytes())?;
        self.out.write_all(&len.to_ne_bytes())?;
        self.out.write_all(&LINKTYPE_RAW.to_ne_bytes())?;
        self.out.write_all(&0u16.to_ne_bytes())?;
        self.out.write_all(&SNAPLEN.to_ne_bytes())?;
        self.out.write_all(&options)?;
        self.out.write_all(&len.to_ne_bytes())?;
        self.interfaces += 1;
        Ok(InterfaceId(self.interfaces - 1))
    }

    /// Writes a packet that came in. A checksum that the device vouched for without there being one is filled in.
    pub fn inbound(&mut self, interface: InterfaceId, time: SystemTime, packet: &RxPacket) -> io::Result<()> {
        if packet.checksum == ChecksumState::Unverified {
            return self.packet(interface, time, Direction::Inbound, &packet.buffer);
        }
        let mut copy = std::mem::take(&mut self.packet);
        copy.clear();
        copy.extend_from_slice(&packet.buffer);
        fill_in_checksum(&mut copy);
        let written = self.packet(interface, time, Direction::Inbound, &copy);
        self.packet = copy;
        written
    }

    /// Writes a packet that goes out, with the checksum that the device is going to complete.
    pub fn outbound(
        &mut self,
        interface: InterfaceId,
        time: SystemTime,
        packet: &Transmit,
    ) -> io::Result<()> {
        let mut copy = std::mem::take(&mut self.packet);
        copy.clear();
        copy.extend_from_slice(packet.header.as_slice());
        for slice in packet.payload.slices() {
            copy.extend_from_slice(slice);
        }
        if packet.checksum != ChecksumRequest::Complete {
            fill_in_checksum(&mut copy);
        }
        let written = self.packet(interface, time, Direction::Outbound, &copy);
        self.packet = copy;
        written
    }

    /// Writes a packet as it is. `data` begins with the IP header.
    pub fn packet(
        &mut self,
        interface: InterfaceId,
        time: SystemTime,
        direction: Direction,
        data: &[u8],
    ) -> io::Result<()> {
        let captured = &data[..data.len().min(SNAPLEN as usize)];
        let padding = captured.len().next_multiple_of(4) - captured.len();
        // One option of 4 + 4 bytes and the end of options.
        let len = (32 + captured.len() + padding + 12) as u32;
        let nanos = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        let mut head = [0; 28];
        for (at, word) in [
            ENHANCED_PACKET,
            len,
            interface.0,
            (nanos >> 32) as u32,
            nanos as u32,
            captured.len() as u32,
            data.len() as u32,
        ]
        .into_iter()
        .enumerate()
        {
            head[4 * at..4 * at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        self.out.write_all(&head)?;
        self.out.write_all(captured)?;
        self.out.write_all(&[0; 3][..padding])?;
        let flags: u32 = match direction {
            Direction::Inbound => 1,
            Direction::Outbound => 2,
        };
        self.out.write_all(&EPB_FLAGS.to_ne_bytes())?;
        self.out.write_all(&4u16.to_ne_bytes())?;
        self.out.write_all(&flags.to_ne_bytes())?;
        self.out.write_all(&[0; 4])?;
        self.out.write_all(&len.to_ne_bytes())
    }

    /// Writes out what is buffered.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write> std::fmt::Debug for PcapWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PcapWriter").field("interfaces", &self.interfaces).finish_non_exhaustive()
    }
}

/// A block's list of options.
#[derive(Default)]
struct Options(Vec<u8>);

impl Options {
    fn add(&mut self, code: u16, value: &[u8]) {
        let value = &value[..value.len().min(1024)];
        self.0.extend_from_slice(&code.to_ne_bytes());
        self.0.extend_from_slice(&(value.len() as u16).to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&OPT_END.to_ne_bytes());
        self.0.extend_from_slice(&0u16.to_ne_bytes());
        self.0
    }
}

/// Computes the TCP checksum of an IP packet without extension headers; other packets stay as they are.
fn fill_in_checksum(packet: &mut [u8]) {
    const TCP: u8 = 6;
    const CHECKSUM: usize = 16;
    let (addresses, start) = match packet.first().map(|b| b >> 4) {
        Some(4) if packet.len() >= 20 && packet[9] == TCP => (12..20, usize::from(packet[0] & 15) * 4),
        Some(6) if packet.len() >= 40 && packet[6] == TCP => (8..40, 40),
        _ => return,
    };
    let Some(segment) = packet.len().checked_sub(start).filter(|len| *len >= 20) else { return };
    let field = start + CHECKSUM;
    packet[field..field + 2].fill(0);
    // The pseudo-headers of RFC 9293 §3.1 and RFC 8200 §8.1 sum up alike.
    let sum = sum_words(&packet[addresses]) + u64::from(TCP) + segment as u64 + sum_words(&packet[start..]);
    packet[field..field + 2].copy_from_slice(&(!fold(sum)).to_be_bytes());
}

fn sum_words(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(2);
    let sum: u64 = words.by_ref().map(|w| u64::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    sum + words.remainder().first().map_or(0, |b| u64::from(*b) << 8)
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    /// A SYN with three bytes of payload and no TCP checksum.
    fn packet() -> Vec<u8> {
        let mut p = vec![0x45, 0, 0, 43, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        p.extend([0x1f, 0x90, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
        p.extend(b"abc");
        let ip = !fold(sum_words(&p[..20]));
        p[10..12].copy_from_slice(&ip.to_be_bytes());
        p
    }

    fn sums_to_zero(p: &[u8]) -> bool {
        fold(sum_words(&p[12..20]) + 6 + (p.len() - 20) as u64 + sum_words(&p[20..])) == 0xffff
    }

    #[test]
    fn checksums_are_filled_in() {
        let mut p = packet();
        assert!(!sums_to_zero(&p));
        fill_in_checksum(&mut p);
        assert!(sums_to_zero(&p));
        for cut in 0..p.len() {
            fill_in_checksum(&mut p.clone()[..cut]);
        }
    }

    #[test]
    fn blocks_are_framed_and_padded() {
        let mut out = Vec::new();
        let mut w = PcapWriter::new(&mut out).unwrap();
        let a = w.add_interface("wlan0", "path p0").unwrap();
        let b = w.add_interface("wwan0", "").unwrap();
        let rx =
            RxPacket { buffer: Bytes::from(packet()), gso_size: None, checksum: ChecksumState::Verified };
        w.inbound(a, UNIX_EPOCH + std::time::Duration::from_nanos(5_000_000_007), &rx).unwrap();
        w.packet(b, SystemTime::now(), Direction::Outbound, &packet()).unwrap();
        w.flush().unwrap();

        let word = |at: usize| u32::from_ne_bytes(out[at..at + 4].try_into().unwrap());
        let mut at = 0;
        let mut kinds = Vec::new();
        while at < out.len() {
            let len = word(at + 4) as usize;
            assert_eq!(len % 4, 0);
            assert_eq!(word(at + len - 4) as usize, len, "both lengths of a block agree");
            kinds.push((word(at), at));
            at += len;
        }
        assert_eq!(at, out.len());
        assert_eq!(
            kinds.iter().map(|k| k.0).collect::<Vec<_>>(),
            [SECTION_HEADER, INTERFACE_DESCRIPTION, INTERFACE_DESCRIPTION, ENHANCED_PACKET, ENHANCED_PACKET]
        );
        let first = kinds[3].1;
        assert_eq!(word(first + 8), 0, "interface");
        assert_eq!(u64::from(word(first + 12)) << 32 | u64::from(word(first + 16)), 5_000_000_007);
        assert_eq!(word(first + 20), 43);
        assert!(sums_to_zero(&out[first + 28..first + 28 + 43]));
    }
}

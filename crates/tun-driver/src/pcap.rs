//! Packet traces in pcapng, one interface per path, with nanosecond times, the direction, and the checksums
//! that the device would fill in. Segments are recorded as they crossed the device, so they can be up to 64
//! kB long.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};
pub use umptcp_pcapng::{Direction, InterfaceId};
use umptcp_stack_core::device::{ChecksumRequest, ChecksumState, RxPacket, Transmit};
use umptcp_stack_core::wire::checksum::{fold, sum};

/// Writes a trace.
pub struct PcapWriter<W: Write> {
    out: umptcp_pcapng::Writer<W>,
    packet: Vec<u8>,
}

impl<W: Write> PcapWriter<W> {
    /// Starts a trace.
    ///
    /// # Errors
    /// When writing fails.
    pub fn new(out: W) -> io::Result<Self> {
        Ok(PcapWriter { out: umptcp_pcapng::Writer::new(out, "")?, packet: Vec::new() })
    }

    /// Adds an interface. May be called at any time.
    ///
    /// # Errors
    ///
    /// When writing fails.
    pub fn add_interface(&mut self, name: &str, description: &str) -> io::Result<InterfaceId> {
        self.out.add_interface(name, description)
    }

    /// Writes a received packet. If the device reports the checksum as verified, it may be missing in the
    /// packet and is filled in.
    ///
    /// # Errors
    ///
    /// When writing fails.
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

    /// Writes a packet that is sent, with the checksum that the device will fill in.
    ///
    /// # Errors
    ///
    /// When writing fails.
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

    /// Writes a packet as it is. `data` starts with the IP header.
    ///
    /// # Errors
    ///
    /// When writing fails.
    pub fn packet(
        &mut self,
        interface: InterfaceId,
        time: SystemTime,
        direction: Direction,
        data: &[u8],
    ) -> io::Result<()> {
        let nanos = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        self.out.packet(interface, nanos, direction, [data])
    }

    /// Flushes the underlying writer.
    ///
    /// # Errors
    ///
    /// When writing fails.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write> std::fmt::Debug for PcapWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.out.fmt(f)
    }
}

/// Fills in the TCP checksum of an IP packet without extension headers; leaves other packets unchanged.
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
    // The pseudo-headers of RFC 9293 §3.1 and RFC 8200 §8.1 have the same sum.
    let initial = sum(&packet[addresses], u64::from(TCP) + segment as u64);
    let sum = sum(&packet[start..], initial);
    packet[field..field + 2].copy_from_slice(&(!fold(sum)).to_be_bytes());
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
        let ip = !fold(sum(&p[..20], 0));
        p[10..12].copy_from_slice(&ip.to_be_bytes());
        p
    }

    fn sums_to_zero(p: &[u8]) -> bool {
        fold(sum(&p[20..], sum(&p[12..20], 6 + (p.len() - 20) as u64))) == 0xffff
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
    fn what_a_device_vouches_for_gets_a_checksum() {
        let mut out = Vec::new();
        let mut w = PcapWriter::new(&mut out).unwrap();
        let a = w.add_interface("wlan0", "path p0").unwrap();
        let rx = RxPacket::new(Bytes::from(packet()), ChecksumState::Verified);
        w.inbound(a, UNIX_EPOCH + std::time::Duration::from_nanos(5_000_000_007), &rx).unwrap();
        w.flush().unwrap();
        let mut completed = packet();
        fill_in_checksum(&mut completed);
        assert!(out.windows(completed.len()).any(|w| w == completed));
    }
}

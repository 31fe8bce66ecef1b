//! Any packet as one line of a trace.

use super::header::IpView;
use super::ip::PROTOCOL_TCP;
use super::tcp::TcpRepr;
use core::fmt;

/// Shows a packet of any kind in one line; TCP as [`TcpRepr::summary`] does.
///
/// Only headers are looked at: `header` may end where the payload starts.
#[derive(Clone, Copy, Debug)]
pub struct PacketSummary<'a> {
    /// The packet from its IP header on, at least up to the end of its TCP header.
    pub header: &'a [u8],
    /// Length of what follows the TCP header or, in other protocols, the IP header; in bytes.
    pub payload_len: usize,
}

impl fmt::Display for PacketSummary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PacketSummary { header, payload_len } = self;
        let Ok(ip) = IpView::new(header) else {
            return write!(f, "not an IP packet, len {}", header.len() + payload_len);
        };
        let rest = header.get(ip.header_len()..).unwrap_or(&[]);
        if ip.protocol() == PROTOCOL_TCP
            && !ip.is_fragment()
            && let Ok((tcp, _)) = TcpRepr::parse(rest)
        {
            return tcp.summary(ip.src(), ip.dst(), *payload_len).fmt(f);
        }
        write!(f, "{} > {} protocol {} len {payload_len}", ip.src(), ip.dst(), ip.protocol())
    }
}

#[cfg(test)]
mod tests {
    use super::super::ip::{PROTOCOL_ICMP, emit_ip_header, emit_ip_header_for};
    use super::super::tcp::TcpFlags;
    use super::*;
    use core::net::IpAddr;
    use std::string::ToString;
    use umptcp_types::SeqNumber;

    #[test]
    fn every_packet_has_a_line() {
        let line = |header: &[u8], payload_len| PacketSummary { header, payload_len }.to_string();
        let (src, dst) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut bytes = [0; 40];
        emit_ip_header(&mut bytes, src, dst, 120, 0, 0).unwrap();
        let tcp = TcpRepr { src_port: 1, dst_port: 2, seq: SeqNumber(3), window: 4, ..TcpRepr::default() };
        TcpRepr { flags: TcpFlags::SYN, ..tcp }.emit(&mut bytes[20..]);
        assert_eq!(line(&bytes, 100), "10.0.0.1:1 > 10.0.0.2:2 [S] seq 3 win 4 len 100");
        assert_eq!(line(&bytes[..39], 0), "10.0.0.1 > 10.0.0.2 protocol 6 len 0");
        emit_ip_header_for(&mut bytes, (src, dst), PROTOCOL_ICMP, 8, 0, 0).unwrap();
        assert_eq!(line(&bytes[..20], 8), "10.0.0.1 > 10.0.0.2 protocol 1 len 8");
        assert_eq!(line(&[1, 2, 3], 7), "not an IP packet, len 10");
        assert_eq!(line(&[], 0), "not an IP packet, len 0");
    }
}

//! Any bytes as an IP packet.

use std::net::IpAddr;
use umptcp_stack_core::wire::checksum;
use umptcp_stack_core::wire::icmp::IcmpError;
use umptcp_stack_core::wire::ip::{IpHeader, PROTOCOL_TCP};
use umptcp_stack_core::wire::tcp::{MAX_HEADER, TcpOptions, TcpPacket, TcpRepr, complete_checksum};

/// The target: see the module.
///
/// # Panics
/// When something does not hold.
pub fn packet(data: &[u8]) {
    sums(data);
    parsed(data);
    // Few inputs have a right header checksum: the same packet with one.
    if data.first().is_some_and(|b| b >> 4 == 4) && data.len() >= 20 {
        let mut mended = data.to_vec();
        let header_len = (usize::from(data[0] & 0xf) * 4).clamp(20, data.len());
        mended[10..12].fill(0);
        let sum = !checksum::fold(checksum::sum(&mended[..header_len], 0));
        mended[10..12].copy_from_slice(&sum.to_be_bytes());
        parsed(&mended);
    }
}

fn parsed(data: &[u8]) {
    let Ok(header) = IpHeader::parse(data) else { return };
    assert!(header.header_len <= header.total_len && header.total_len <= data.len());
    assert_eq!(header.src.is_ipv4(), header.dst.is_ipv4());
    let payload = header.payload(data);
    assert_eq!(payload.len(), header.total_len - header.header_len);
    if header.protocol == PROTOCOL_TCP {
        segment(&header, payload);
    } else {
        icmp(header, data);
    }
}

fn icmp(header: IpHeader, data: &[u8]) {
    if IcmpError::parse(&header, data).is_ok() {
        return;
    }
    // The same with a right checksum.
    let (from, to) = (header.header_len, header.total_len);
    if to - from >= 4 {
        let mut mended = data.to_vec();
        mended[from + 2..from + 4].fill(0);
        let pseudo = match header.src {
            IpAddr::V4(_) => 0,
            IpAddr::V6(_) => checksum::pseudo_header(header.src, header.dst, 58, (to - from) as u32),
        };
        let sum = !checksum::fold(checksum::sum(&mended[from..to], pseudo));
        mended[from + 2..from + 4].copy_from_slice(&sum.to_be_bytes());
        if let Ok(error) = IcmpError::parse(&header, &mended) {
            assert_eq!(error.reporter, header.src);
            assert_eq!(error.src.is_ipv4(), header.src.is_ipv4());
        }
    }
}

fn segment(ip: &IpHeader, bytes: &[u8]) {
    let Ok((repr, len)) = TcpRepr::parse(bytes) else { return };
    let view = TcpPacket::new(bytes).expect("the header has just been parsed");
    assert_eq!((view.header_len(), view.payload().len()), (len, bytes.len() - len));
    let line = repr.summary(ip.src, ip.dst, bytes.len() - len).to_string();
    assert!(!line.contains('\n'));

    let mut buf = [0; MAX_HEADER];
    let emitted_len = repr.header_len();
    repr.emit(&mut buf);
    let (again, again_len) = TcpRepr::parse(&buf).expect("an emitted header parses");
    assert_eq!(again_len, emitted_len);
    let options = TcpOptions { malformed: 0, ..repr.options.clone() };
    assert_eq!(again, TcpRepr { options, ..repr });

    let header = &mut buf[..emitted_len];
    complete_checksum(header, ip.src, ip.dst, checksum::sum(view.payload(), 0), view.payload().len());
    let whole = [header, view.payload()].concat();
    assert!(TcpRepr::verify_checksum(ip.src, ip.dst, &whole));
}

/// The definition of RFC 1071, one word at a time, agrees.
fn sums(data: &[u8]) {
    let mut sum = 0u32;
    for pair in data.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        sum = (sum >> 16) + (sum & 0xffff);
    }
    assert_eq!(u32::from(checksum::fold(checksum::sum(data, 0))), sum);
    let (a, b) = data.split_at(data.len() / 3);
    let joined = checksum::sum_slices([a, b].into_iter(), 0);
    assert_eq!(u32::from(checksum::fold(joined)), sum);
}

use super::*;
use crate::testing::{OPTIONS, Tcp};
use umptcp_stack_core::wire::tcp::kind;

fn v6(host: u16, port: u16) -> SocketAddr {
    SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, host], port))
}

/// The checksums of a packet, computed here the slow way from its bytes.
fn assert_checksums(p: &Packet) {
    let b = p.to_vec();
    let slow = |bytes: &[u8]| {
        let mut sum: u32 = 0;
        for w in bytes.chunks(2) {
            sum += u32::from(w[0]) << 8 | u32::from(w.get(1).copied().unwrap_or(0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum
    };
    let (pseudo, tcp) = if b[0] >> 4 == 4 {
        assert_eq!(slow(&b[..20]), 0xffff, "IPv4 header checksum");
        assert_eq!(IpView::new(&b).unwrap().total_len(), b.len());
        let len = (b.len() - 20) as u16;
        ([&b[12..20], &[0, 6], &len.to_be_bytes()].concat(), &b[20..])
    } else {
        assert_eq!(IpView::new(&b).unwrap().total_len(), b.len());
        let len = (b.len() - 40) as u16;
        ([&b[8..40], &[0, 0], &len.to_be_bytes(), &[0, 0, 0, 6]].concat(), &b[40..])
    };
    assert_eq!(slow(&[&pseudo, tcp].concat()), 0xffff, "TCP checksum");
    assert!(p.checksum_ok());
}

fn parts(p: Packet) -> Vec<Packet> {
    let mut v = Vec::new();
    p.split(|p| v.push(p));
    v
}

/// A host leaves the checksum to a device that computes it, and has only the pseudo-header's sum in its place.
#[test]
fn the_checksum_of_a_datagram_is_computed_where_a_host_has_left_it_to_a_device() {
    let mut datagram = vec![0x45, 0, 0, 31, 0, 0, 0, 0, 64, 17, 0, 0, 10, 1, 0, 2, 10, 1, 0, 1];
    datagram.extend([0x12, 0x34, 0x22, 0x63, 0, 11, 0xab, 0xcd]);
    datagram.extend(b"abc");
    let p = Packet::from_bytes(datagram.clone().into(), None, ChecksumState::Verified);
    // Over source, destination, protocol, length, ports, length, data: by hand.
    let words = [0x0a01u32, 0x0002, 0x0a01, 0x0001, 17, 11, 0x1234, 0x2263, 11, 0x6162, 0x6300];
    let sum: u32 = words.iter().sum();
    let expected = !((sum & 0xffff) + (sum >> 16)) as u16;
    assert_eq!(p.to_vec()[26..28], expected.to_be_bytes());
    assert_eq!(p.checksum(), ChecksumRequest::Complete);
    // What a device has not verified is as it came.
    let p = Packet::from_bytes(datagram.into(), None, ChecksumState::Unverified);
    assert_eq!(p.to_vec()[26..28], [0xab, 0xcd]);
}

#[test]
fn dissects_and_rebuilds() {
    let p = Tcp { options: &OPTIONS, payload_len: 1001, ..Tcp::default() }.packet();
    assert_checksums(&p);
    assert_eq!(p.header().len(), 64);
    assert_eq!(p.payload().len(), 1001);
    assert_eq!(p.tcp_source(), Some(SocketAddr::from(([10, 1, 0, 1], 1000))));
    assert_eq!(p.tcp_destination(), Some(SocketAddr::from(([10, 2, 0, 1], 80))));
    let tcp = p.tcp().unwrap();
    assert_eq!((tcp.seq().0, tcp.ack().0, tcp.flags(), tcp.window()), (1, 77, TcpFlags::ACK, 256));
    let options = tcp.raw_options().for_forwarding().map(|o| o.unwrap()).map(|o| (o.kind, o.bytes.len()));
    assert_eq!(
        options.collect::<Vec<_>>(),
        [(kind::MSS, 4), (kind::NOP, 1), (kind::NOP, 1), (kind::MPTCP, 8), (kind::TIMESTAMPS, 10)]
    );
    assert_eq!(tcp.mptcp_subtypes().collect::<Vec<_>>(), [2]);
    let again = Packet::from_rx(p.to_rx());
    assert_eq!(again.to_vec(), p.to_vec());
    // A device that appends padding.
    let mut padded = p.to_vec();
    padded.extend([0; 9]);
    assert_eq!(Packet::from_bytes(padded.into(), None, ChecksumState::Unverified).to_vec(), p.to_vec());
}

#[test]
fn odd_packets_are_carried_as_they_are() {
    for bytes in [&[][..], &[0x45], &[0x45; 19], &[0x00; 60], &[0x4f; 30], &[0x60; 39], &[0xff; 100]] {
        let p = Packet::from_bytes(Bytes::copy_from_slice(bytes), None, ChecksumState::Verified);
        assert!(!p.is_tcp());
        assert_eq!(p.to_vec(), bytes);
        assert_eq!(parts(p).len(), 1);
    }
    // UDP: everything after the IP header is payload.
    let mut udp = Tcp { payload_len: 8, ..Tcp::default() }.packet().to_vec();
    udp[9] = 17;
    let p = Packet::from_bytes(udp.clone().into(), NonZeroU16::new(4), ChecksumState::Unverified);
    assert_eq!((p.header().len(), p.payload().len(), p.is_tcp()), (20, 28, false));
    assert_eq!(p.destination(), Some(IpAddr::from([10, 2, 0, 1])));
    assert_eq!(parts(p)[0].to_vec(), udp);
    // A fragment is not taken for TCP, nor is a data offset that points past the end.
    for (at, value) in [(6, 0x20), (32, 0xf0), (32, 0x40)] {
        let mut bytes = Tcp::default().packet().to_vec();
        bytes[at] = value;
        assert!(!Packet::from_bytes(bytes.into(), None, ChecksumState::Unverified).is_tcp());
    }
}

#[test]
fn splits_as_a_nic_does() {
    let families = [(Tcp::default().source, Tcp::default().destination), (v6(1, 5000), v6(2, 80))];
    for (source, destination) in families {
        for complete in [true, false] {
            let all = TcpFlags::ACK | TcpFlags::PSH | TcpFlags::FIN | TcpFlags::CWR;
            let segment = Tcp {
                source,
                destination,
                seq: u32::MAX - 1500,
                flags: all,
                options: &OPTIONS,
                payload_len: 3501,
                gso_size: 1400,
                ..Tcp::default()
            };
            let segment = if complete { segment.packet() } else { segment.partial() };
            let whole = segment.payload().to_bytes();
            assert_eq!(segment.packets(), 3);
            let mut out = parts(segment);
            assert_eq!(out.iter().map(|p| p.payload().len()).collect::<Vec<_>>(), [1400, 1400, 701]);
            let mut joined = Vec::new();
            for (i, p) in out.iter_mut().enumerate() {
                assert_eq!(matches!(p.checksum(), ChecksumRequest::Complete), complete);
                p.complete_checksum();
                assert_checksums(p);
                assert_eq!(p.gso_size(), None);
                let tcp = p.tcp().unwrap();
                assert_eq!(tcp.options(), OPTIONS);
                assert_eq!(tcp.seq().0, (u32::MAX - 1500).wrapping_add(i as u32 * 1400));
                let expected = [
                    TcpFlags::ACK | TcpFlags::CWR,
                    TcpFlags::ACK,
                    TcpFlags::ACK | TcpFlags::PSH | TcpFlags::FIN,
                ];
                assert_eq!(tcp.flags(), expected[i]);
                if source.is_ipv4() {
                    assert_eq!(p.ip().unwrap().ident(), 0xabcd + i as u16);
                }
                joined.extend_from_slice(&p.payload().to_bytes());
            }
            assert_eq!(joined, whole);
        }
    }
}

#[test]
fn splitting_shares_payload() {
    let segment = Tcp { payload_len: 6000, gso_size: 1000, ..Tcp::default() }.packet();
    let start = segment.payload().slices()[0].as_ptr() as usize;
    for (i, p) in parts(segment).iter().enumerate() {
        assert_eq!(p.payload().slices()[0].as_ptr() as usize, start + i * 1000);
    }
}

#[test]
fn coalescing_undoes_splitting() {
    for complete in [true, false] {
        let t = Tcp {
            flags: TcpFlags::ACK | TcpFlags::PSH,
            options: &OPTIONS,
            payload_len: 5000,
            gso_size: 1200,
            ..Tcp::default()
        };
        let segment = if complete { t.packet() } else { t.partial() };
        let mut out = parts(segment.clone()).into_iter();
        let mut merged = out.next().unwrap();
        for p in out {
            assert!(merged.coalesce(p).is_none());
        }
        assert_eq!(merged.gso_size(), NonZeroU16::new(1200));
        merged.complete_checksum();
        assert_checksums(&merged);
        let mut expected = segment;
        expected.complete_checksum();
        assert_eq!(merged.to_vec(), expected.to_vec());
    }
}

#[test]
fn coalesces_only_what_belongs_together() {
    let base = || Tcp { payload_len: 1000, options: &OPTIONS, ..Tcp::default() };
    let next = || Tcp { seq: 1001, first: 232, ..base() };
    assert!(base().packet().coalesce(next().packet()).is_none());
    let mut other_options = OPTIONS;
    other_options[19] = 7;
    let refused = [
        Tcp { seq: 1002, ..next() },
        Tcp { seq: 2001, ..next() },
        Tcp { options: &other_options, ..next() },
        Tcp { options: &OPTIONS[..4], ..next() },
        Tcp { payload_len: 1001, ..next() },
        Tcp { payload_len: 0, ..next() },
        Tcp { flags: TcpFlags::ACK | TcpFlags::RST, ..next() },
        Tcp { flags: TcpFlags::ACK | TcpFlags::CWR, ..next() },
        Tcp { flags: TcpFlags::ACK | TcpFlags::ECE, ..next() },
        Tcp { flags: TcpFlags::default(), ..next() },
        Tcp { source: SocketAddr::from(([10, 1, 0, 1], 1001)), ..next() },
        Tcp { source: SocketAddr::from(([10, 1, 0, 2], 1000)), ..next() },
    ];
    for (i, t) in refused.iter().enumerate() {
        assert!(base().packet().coalesce(t.packet()).is_some(), "case {i}");
    }
    // After a short packet, or one with PSH, nothing more.
    let mut short = base().packet();
    assert!(short.coalesce(Tcp { payload_len: 500, ..next() }.packet()).is_none());
    assert!(short.coalesce(Tcp { seq: 1501, payload_len: 500, ..next() }.packet()).is_some());
    let mut pushed = Tcp { flags: TcpFlags::ACK | TcpFlags::PSH, ..base() }.packet();
    assert!(pushed.coalesce(next().packet()).is_some());
    // A wrong checksum stays where the stack will see it.
    let mut bytes = next().packet().to_vec();
    bytes[100] ^= 1;
    let broken = Packet::from_bytes(bytes.into(), None, ChecksumState::Unverified);
    assert!(!broken.checksum_ok());
    assert!(base().packet().coalesce(broken).is_some());
    // Never beyond what an IP length can say.
    let mut big = Tcp { payload_len: 65_000, gso_size: 1000, ..Tcp::default() }.packet();
    assert!(big.coalesce(Tcp { seq: 65_001, payload_len: 1000, ..Tcp::default() }.packet()).is_some());
}

#[test]
fn edits_keep_checksums_right() {
    for complete in [true, false] {
        let t = Tcp { options: &OPTIONS, payload_len: 99, ..Tcp::default() };
        let mut p = if complete { t.packet() } else { t.partial() };
        p.edit_tcp(|tcp| {
            tcp.set_seq(SeqNumber(0x0102_0304));
            // Not allowed: the layout stays.
            tcp.bytes_mut()[12] = 0;
        });
        assert_eq!(p.tcp().unwrap().seq().0, 0x0102_0304);
        assert_eq!(p.tcp().unwrap().options(), OPTIONS);
        p.set_tcp_options(&[2, 4, 1, 1, 3, 3, 7]);
        assert_eq!(p.tcp().unwrap().options(), [2, 4, 1, 1, 3, 3, 7, 0]);
        p.set_payload(Bytes::from_static(b"other words").into());
        p.rewrite(Some(SocketAddr::from(([192, 0, 2, 7], 7))), Some(SocketAddr::from(([192, 0, 2, 8], 8))));
        assert_eq!(p.tcp_source().unwrap().to_string(), "192.0.2.7:7");
        assert_eq!(p.tcp_destination().unwrap().to_string(), "192.0.2.8:8");
        p.complete_checksum();
        assert_checksums(&p);
        assert_eq!(p.len(), 20 + 28 + 11);
        assert_eq!(
            format!("{p:?}"),
            "192.0.2.7:7 > 192.0.2.8:8 [.] seq 16909060 ack 77 win 256 len 11 <mss 257, wscale 7>"
        );
    }
    let mut p = Tcp { source: v6(1, 1), destination: v6(2, 2), payload_len: 10, ..Tcp::default() }.packet();
    p.rewrite(Some(v6(9, 9)), None);
    p.set_tcp_options(&OPTIONS);
    assert_checksums(&p);
}

#[test]
fn transmit_and_back() {
    let p = Tcp { payload_len: 3000, gso_size: 1000, options: &OPTIONS, ..Tcp::default() }.partial();
    let bytes = p.to_vec();
    let t = p.into_transmit(PathId(3), Instant::from_millis(5));
    assert_eq!((t.path, t.gso_size), (PathId(3), NonZeroU16::new(1000)));
    let back = Packet::from_transmit(t);
    assert_eq!(back.to_vec(), bytes);
    assert!(matches!(back.checksum(), ChecksumRequest::Partial { start: 20, offset: 16 }));
    // A header buffer that holds more than IP and TCP is taken apart anew.
    let udp_like = {
        let mut h = HeaderBuf::zeroed(28);
        h.as_mut_slice()[..20]
            .copy_from_slice(&Tcp { payload_len: 8, ..Tcp::default() }.packet().to_vec()[..20]);
        h.as_mut_slice()[9] = 1;
        h.as_mut_slice()[2..4].copy_from_slice(&28u16.to_be_bytes());
        h
    };
    let t = Transmit::new(PathId(0), udp_like, Payload::new());
    let p = Packet::from_transmit(t);
    assert_eq!((p.header().len(), p.payload().len()), (20, 8));
}

//! The codec against a decoder written by hand from the layout, and against hostile input.

use proptest::prelude::*;
use std::net::IpAddr;
use umptcp_testkit::tcp_in_udp::Datagram;
use umptcp_udp_driver::codec::{self, BodyHeader, Ports, TCP_HEADER, UDP_HEADER};

/// A TCP segment: its header's length in bytes, and all of it.
fn segment() -> impl Strategy<Value = (usize, Vec<u8>)> {
    let options = proptest::collection::vec(any::<u8>(), 0..=38);
    let payload = proptest::collection::vec(any::<u8>(), 0..3000);
    (any::<[u8; TCP_HEADER]>(), options, payload).prop_map(|(mut fixed, mut options, payload)| {
        // One option of a kind for experiments (RFC 4727), and the end of the list.
        if !options.is_empty() {
            let len = options.len() as u8 + 2;
            options.splice(0..0, [253, len]);
        }
        options.resize(options.len().next_multiple_of(4), 0);
        let len = TCP_HEADER + options.len();
        fixed[12] = (len as u8 / 4) << 4;
        fixed[13] &= !0x20;
        fixed[16..].fill(0);
        (len, [&fixed[..], &options, &payload].concat())
    })
}

/// The datagram that a socket would make of ports and body: with UDP's header and its checksum.
fn datagram(addresses: [IpAddr; 2], ports: Ports, body: &[u8]) -> Vec<u8> {
    let mut udp = Vec::new();
    udp.extend_from_slice(&ports.source.to_be_bytes());
    udp.extend_from_slice(&ports.destination.to_be_bytes());
    udp.extend_from_slice(&((UDP_HEADER + body.len()) as u16).to_be_bytes());
    udp.extend_from_slice(&[0, 0]);
    udp.extend_from_slice(body);
    let header = |bytes: &[u8]| etherparse::UdpHeader::from_slice(bytes).unwrap().0;
    let sum = match addresses {
        [IpAddr::V4(from), IpAddr::V4(to)] => {
            header(&udp).calc_checksum_ipv4_raw(from.octets(), to.octets(), body)
        }
        [IpAddr::V6(from), IpAddr::V6(to)] => {
            header(&udp).calc_checksum_ipv6_raw(from.octets(), to.octets(), body)
        }
        _ => panic!("two families"),
    };
    udp[6..8].copy_from_slice(&sum.unwrap().to_be_bytes());
    udp
}

fn addresses(v6: bool) -> [IpAddr; 2] {
    if v6 { ["2001:db8::1", "2001:db8::2"] } else { ["192.0.2.1", "198.51.100.2"] }
        .map(|text| text.parse().unwrap())
}

proptest! {
    #[test]
    fn the_layout_is_that_of_the_other_decoder((len, tcp) in segment(), v6: bool) {
        let (ports, header) = BodyHeader::of_segment(&tcp).unwrap();
        let body = [header.as_slice(), &tcp[len..]].concat();
        prop_assert_eq!(UDP_HEADER + body.len(), tcp.len(), "as long as the segment");
        let [from, to] = addresses(v6);
        let seen = Datagram::of_udp(from, to, &datagram([from, to], ports, &body), true);
        let seen = seen.map_err(TestCaseError::fail)?;
        let word = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        let long = |at: usize| u32::from(word(at)) << 16 | u32::from(word(at + 2));
        prop_assert_eq!((seen.source_port, seen.destination_port), (word(0), word(2)));
        prop_assert_eq!((seen.sequence, seen.acknowledgement), (long(4), long(8)));
        prop_assert_eq!((seen.flags, seen.window), (tcp[13], word(14)));
        prop_assert_eq!((&seen.options[..], &seen.payload[..]), (&tcp[20..len], &tcp[len..]));
    }

    #[test]
    fn there_and_back_is_the_same((len, tcp) in segment()) {
        let (ports, header) = BodyHeader::of_segment(&tcp).unwrap();
        let mut room = [&[0xaa; UDP_HEADER][..], header.as_slice(), &tcp[len..]].concat();
        prop_assert_eq!(codec::decode(&mut room, ports), Ok(len));
        prop_assert_eq!(room, tcp);
    }

    #[test]
    fn parts_follow_one_another((len, tcp) in segment(), size in 1usize..1500) {
        let (_, header) = BodyHeader::of_segment(&tcp).unwrap();
        let payload = &tcp[len..];
        let count = payload.len().div_ceil(size);
        let flags = |part: &BodyHeader| part.as_slice()[1];
        let mut all = 0;
        for i in 0..count {
            let part = header.of_part((i * size) as u32, i + 1 == count);
            prop_assert_eq!(part.sequence(), header.sequence().wrapping_add((i * size) as u32));
            prop_assert_eq!(part.as_slice().len(), header.as_slice().len());
            prop_assert_eq!(&part.as_slice()[8..], &header.as_slice()[8..]);
            all |= flags(&part);
        }
        prop_assert!(count == 0 || all == flags(&header), "no flag is lost");
    }

    #[test]
    fn any_bytes_are_taken_without_harm(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let before = bytes.clone();
        let ports = Ports { source: 1, destination: 2 };
        match codec::decode(&mut bytes, ports) {
            Ok(len) => {
                prop_assert!((TCP_HEADER..=60).contains(&len) && len <= bytes.len());
                // What was taken is a segment that could be sent.
                let (again, header) = BodyHeader::of_segment(&bytes).unwrap();
                prop_assert_eq!((again, header.as_slice()), (ports, &before[UDP_HEADER..len]));
            }
            Err(_) => prop_assert_eq!(&bytes, &before),
        }
        let _ = BodyHeader::of_segment(&bytes);
        let _ = Datagram::of_packet(&bytes, true);
    }
}

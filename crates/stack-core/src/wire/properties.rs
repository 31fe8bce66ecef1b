//! Round trips: any legal value through bytes and back, and any bytes through values and back.

use super::icmp::IcmpError;
use super::ip::{IpHeader, emit_ip_header, ip_header_len};
use super::mptcp::*;
use super::tcp::*;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use smallvec::SmallVec;
use std::vec::Vec;
use umptcp_types::{AddressId, SeqNumber};

fn capable_flags() -> impl Strategy<Value = CapableFlags> {
    any::<u8>().prop_map(CapableFlags::from_bits)
}

fn capable() -> impl Strategy<Value = MpCapable> {
    let head = || (0..16u8, capable_flags());
    prop_oneof![
        head().prop_map(|(version, flags)| MpCapable::Syn { version, flags }),
        (head(), any::<u64>()).prop_map(|((version, flags), key)| MpCapable::SynAck { version, flags, key }),
        (head(), any::<u64>(), any::<u64>()).prop_map(|((version, flags), sender_key, receiver_key)| {
            MpCapable::Ack { version, flags, sender_key, receiver_key }
        }),
        (head(), any::<u64>(), any::<u64>(), any::<u16>(), any::<Option<u16>>()).prop_map(
            |((version, flags), sender_key, receiver_key, len, checksum)| {
                MpCapable::Data { version, flags, sender_key, receiver_key, len, checksum }
            }
        ),
    ]
}

fn join() -> impl Strategy<Value = MpJoin> {
    prop_oneof![
        (any::<bool>(), any::<u8>(), any::<u32>(), any::<u32>()).prop_map(|(backup, id, token, nonce)| {
            MpJoin::Syn { backup, address_id: AddressId(id), token, nonce }
        }),
        (any::<bool>(), any::<u8>(), any::<u64>(), any::<u32>()).prop_map(|(backup, id, hmac, nonce)| {
            MpJoin::SynAck { backup, address_id: AddressId(id), hmac, nonce }
        }),
        any::<[u8; 20]>().prop_map(|hmac| MpJoin::Ack { hmac }),
    ]
}

fn dss() -> impl Strategy<Value = Dss> {
    let ack = prop_oneof![any::<u32>().prop_map(DataAck::Short), any::<u64>().prop_map(DataAck::Long)];
    let dsn = prop_oneof![any::<u32>().prop_map(Dsn::Short), any::<u64>().prop_map(Dsn::Long)];
    let mapping = (dsn, any::<u32>(), any::<u16>(), any::<Option<u16>>())
        .prop_map(|(dsn, ssn, len, checksum)| DssMapping { dsn, ssn, len, checksum });
    (any::<bool>(), option::of(ack), option::of(mapping)).prop_map(|(data_fin, ack, mapping)| Dss {
        data_fin,
        ack,
        mapping,
    })
}

fn add_addr() -> impl Strategy<Value = AddAddr> {
    let address = prop_oneof![
        any::<u32>().prop_map(|a| IpAddr::V4(Ipv4Addr::from(a))),
        any::<u128>().prop_map(|a| IpAddr::V6(Ipv6Addr::from(a))),
    ];
    (any::<u8>(), address, any::<Option<u16>>(), any::<Option<u64>>())
        .prop_map(|(id, address, port, hmac)| AddAddr { address_id: AddressId(id), address, port, hmac })
}

fn mptcp_option() -> impl Strategy<Value = MptcpOption> {
    prop_oneof![
        capable().prop_map(MptcpOption::Capable),
        join().prop_map(MptcpOption::Join),
        dss().prop_map(MptcpOption::Dss),
        add_addr().prop_map(MptcpOption::AddAddr),
        vec(any::<u8>().prop_map(AddressId), 1..=RemoveAddr::MAX_IDS)
            .prop_map(|ids| RemoveAddr { ids: ids.into() }.into()),
        (any::<bool>(), any::<Option<u8>>()).prop_map(|(backup, id)| MpPrio {
            backup,
            address_id: id.map(AddressId)
        }
        .into()),
        any::<u64>().prop_map(|dsn| MpFail { dsn }.into()),
        any::<u64>().prop_map(|receiver_key| MpFastClose { receiver_key }.into()),
        (any::<bool>(), any::<u8>()).prop_map(|(transient, reason)| MpTcpRst { transient, reason }.into()),
    ]
}

/// Options that fit one header, or not.
fn any_tcp_options() -> impl Strategy<Value = TcpOptions> {
    let cookie = (0..8usize, any::<[u8; 16]>()).prop_map(|(n, bytes)| {
        let len = [0, 4, 6, 8, 10, 12, 14, 16][n];
        SmallVec::<[u8; 16]>::from_slice(&bytes[..len])
    });
    let block = (any::<u32>(), any::<u32>()).prop_map(|(a, b)| (SeqNumber(a), SeqNumber(b)));
    (
        any::<Option<u16>>(),
        option::of(0..=14u8),
        any::<bool>(),
        option::of((any::<u32>(), any::<u32>())),
        vec(block, 0..=4),
        vec(mptcp_option(), 0..=3),
        option::weighted(0.1, cookie),
    )
        .prop_map(|(mss, window_scale, sack_permitted, timestamps, sack, mptcp, fast_open)| TcpOptions {
            mss,
            window_scale,
            sack_permitted,
            timestamps: timestamps.map(|(value, echo)| Timestamps { value, echo }),
            sack: sack.into(),
            mptcp: mptcp.into(),
            fast_open,
            malformed: 0,
        })
}

/// Options that fit one header; the others are removed.
fn tcp_options() -> impl Strategy<Value = TcpOptions> {
    any_tcp_options().prop_map(|mut options| {
        options.shed_sack();
        while !options.fits() && options.mptcp.pop().is_some() {}
        options
    })
}

fn tcp_repr() -> impl Strategy<Value = TcpRepr> {
    (any::<[u16; 4]>(), any::<[u32; 2]>(), any::<u8>(), tcp_options()).prop_map(
        |([src_port, dst_port, window, urgent], [seq, ack], flags, options)| TcpRepr {
            src_port,
            dst_port,
            seq: SeqNumber(seq),
            ack: SeqNumber(ack),
            flags: TcpFlags::from_bits(flags),
            window,
            urgent,
            options,
        },
    )
}

/// Option lists that are nearly right: runs of random bytes rarely get past the first length octet.
fn likely_options() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![
        4 => Just(30u8),
        2 => proptest::sample::select(std::vec![0u8, 1, 2, 3, 4, 5, 8, 34]),
        1 => any::<u8>()
    ];
    let item = (kind, prop_oneof![Just(None), (0..42u8).prop_map(Some)], vec(any::<u8>(), 0..40)).prop_map(
        |(kind, length, body)| {
            let mut bytes = std::vec![kind, length.unwrap_or(body.len() as u8 + 2)];
            bytes.extend(body);
            bytes
        },
    );
    vec(item, 0..6).prop_map(|items| items.concat())
}

fn emit_options(options: &TcpOptions) -> Vec<u8> {
    let mut buf = [0; MAX_OPTIONS];
    let len = options.emit(&mut buf);
    buf[..len].to_vec()
}

fn check_any_options(bytes: &[u8]) -> Result<(), TestCaseError> {
    let options = TcpOptions::parse(bytes);
    prop_assert!(options.fits(), "what came in one header fits one");
    let again = TcpOptions::parse(&emit_options(&options));
    prop_assert_eq!(again, TcpOptions { malformed: 0, ..options });
    Ok(())
}

proptest! {
    #[test]
    fn mptcp_options_round_trip(option in mptcp_option()) {
        let mut buf = [0xee; 64];
        let len = option.emit(&mut buf);
        prop_assert_eq!(len, option.len());
        prop_assert!(len <= MAX_OPTIONS);
        prop_assert_eq!(MptcpOption::parse(&buf[..len]), Ok(option));
        prop_assert!(buf[len..].iter().all(|b| *b == 0xee));
    }

    #[test]
    fn tcp_headers_round_trip(repr in tcp_repr(), payload in vec(any::<u8>(), 0..50)) {
        let len = repr.header_len();
        prop_assert!(len.is_multiple_of(4) && len <= MAX_HEADER);
        let mut segment = std::vec![0xee; len];
        repr.emit(&mut segment);
        segment.extend(&payload);
        prop_assert_eq!(TcpPacket::new(&segment).unwrap().payload(), &payload[..]);
        prop_assert_eq!(TcpRepr::parse(&segment), Ok((repr, len)));
    }

    #[test]
    fn room_is_what_one_more_option_may_take(options in tcp_options(), option in mptcp_option()) {
        let room = options.room();
        let mut more = options;
        let len = option.len();
        more.mptcp.push(option);
        prop_assert_eq!(more.fits(), len <= room);
    }

    #[test]
    fn options_that_do_not_fit_still_make_a_legal_header(options in any_tcp_options()) {
        let bytes = emit_options(&options);
        prop_assert!(bytes.len() <= MAX_OPTIONS && bytes.len().is_multiple_of(4));
        let parsed = TcpOptions::parse(&bytes);
        prop_assert_eq!(parsed.malformed, 0);
        prop_assert_eq!(parsed.mss, options.mss);
        prop_assert_eq!(parsed.timestamps, options.timestamps);
        prop_assert!(options.sack.starts_with(&parsed.sack));
        prop_assert!(options.mptcp.starts_with(&parsed.mptcp));
    }

    #[test]
    fn ip_headers_round_trip(
        v6 in any::<bool>(), a in any::<[u8; 16]>(), b in any::<[u8; 16]>(),
        class in any::<u8>(), ident in any::<u16>(), payload in vec(any::<u8>(), 0..60), padding in 0..8usize,
    ) {
        let address = |x: [u8; 16]| match v6 {
            true => IpAddr::from(x),
            false => IpAddr::from([x[0], x[1], x[2], x[3]]),
        };
        let (src, dst) = (address(a), address(b));
        let mut packet = std::vec![0xee; ip_header_len(&src)];
        let len = emit_ip_header(&mut packet, src, dst, payload.len(), class, ident).unwrap();
        prop_assert_eq!(len, packet.len());
        packet.extend(&payload);
        let total_len = packet.len();
        packet.extend(std::vec![0; padding]);
        let header = IpHeader::parse(&packet).unwrap();
        prop_assert_eq!(header.payload(&packet), &payload[..]);
        prop_assert_eq!(header, IpHeader { src, dst, protocol: 6, header_len: len, total_len, ecn: class & 3, fragment: false });
    }

    #[test]
    fn any_option_bytes_parse_and_settle(bytes in vec(any::<u8>(), 0..80)) {
        check_any_options(&bytes)?;
    }

    #[test]
    fn likely_option_bytes_parse_and_settle(bytes in likely_options()) {
        check_any_options(&bytes)?;
    }

    #[test]
    fn any_mptcp_option_bytes_parse_and_settle(head in any::<u8>(), body in vec(any::<u8>(), 0..45)) {
        let mut bytes = std::vec![30, body.len() as u8 + 3, head];
        bytes.extend(body);
        if let Ok(option) = MptcpOption::parse(&bytes) {
            let mut buf = [0; 64];
            let len = option.emit(&mut buf);
            prop_assert!(len <= bytes.len());
            prop_assert_eq!(MptcpOption::parse(&buf[..len]), Ok(option));
        }
    }

    #[test]
    fn any_packet_parses_or_is_refused(head in any::<u8>(), mut bytes in vec(any::<u8>(), 0..200)) {
        if let Some(first) = bytes.first_mut() {
            *first = head;
        }
        if let Ok(header) = IpHeader::parse(&bytes) {
            prop_assert!(header.header_len <= header.total_len && header.total_len <= bytes.len());
            let _ = IcmpError::parse(&header, &bytes);
        }
        let protocol = if head & 1 == 0 { 1 } else { 58 };
        let claimed = IpHeader {
            src: if head & 1 == 0 { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) },
            dst: if head & 1 == 0 { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) },
            protocol, header_len: 0, total_len: bytes.len(), ecn: 0, fragment: false,
        };
        let _ = IcmpError::parse(&claimed, &bytes);
        if let Ok((repr, len)) = TcpRepr::parse(&bytes) {
            let mut again = [0; MAX_HEADER];
            repr.emit(&mut again);
            let (second, _) = TcpRepr::parse(&again).unwrap();
            let first = TcpRepr { options: TcpOptions { malformed: 0, ..repr.options.clone() }, ..repr };
            prop_assert_eq!(second, first);
            prop_assert!(len <= bytes.len());
        }
    }
}

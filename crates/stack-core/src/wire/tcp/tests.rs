//! Headers byte by byte.

use super::super::mptcp::{CapableFlags, DataAck, Dss, MpCapable, MpJoin, MpPrio, MptcpOption, RemoveAddr};
use super::*;
use smallvec::{SmallVec, smallvec};
use std::string::ToString;
use std::vec::Vec;
use umptcp_types::AddressId;

fn emitted(options: &TcpOptions) -> Vec<u8> {
    let mut buf = [0xee; MAX_OPTIONS];
    let len = options.emit(&mut buf);
    assert_eq!(len, options.len().min(MAX_OPTIONS));
    assert!(len.is_multiple_of(4));
    assert!(buf[len..].iter().all(|b| *b == 0xee), "nothing is written beyond the options");
    buf[..len].to_vec()
}

fn syn_options() -> TcpOptions {
    TcpOptions {
        mss: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps: Some(Timestamps { value: 0x0102_0304, echo: 0 }),
        mptcp: smallvec![MpCapable::Syn { version: 1, flags: CapableFlags::sha256(false, false) }.into()],
        ..TcpOptions::default()
    }
}

const SYN_OPTIONS: [u8; 24] = [
    2, 4, 0x05, 0xb4, // MSS
    4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, // SACK permitted, timestamps
    1, 3, 3, 7, // window scale
    30, 4, 0x01, 0x01, // MP_CAPABLE
];

#[test]
fn options_of_a_syn() {
    assert_eq!(emitted(&syn_options()), SYN_OPTIONS);
    assert_eq!(TcpOptions::parse(&SYN_OPTIONS), syn_options());
}

#[test]
fn a_header_byte_by_byte() {
    let repr = TcpRepr {
        src_port: 0x1234,
        dst_port: 80,
        seq: SeqNumber(0xa1a2_a3a4),
        ack: SeqNumber(0xb1b2_b3b4),
        flags: TcpFlags { syn: true, ack: true, ece: true, ..TcpFlags::default() },
        window: 0xfffe,
        urgent: 0x0506,
        options: syn_options(),
    };
    let mut bytes = [0xee; 50];
    repr.emit(&mut bytes);
    let fixed = [
        0x12, 0x34, 0, 80, 0xa1, 0xa2, 0xa3, 0xa4, 0xb1, 0xb2, 0xb3, 0xb4, 0xb0, 0x52, 0xff, 0xfe, 0, 0, 5, 6,
    ];
    assert_eq!(bytes[..20], fixed);
    assert_eq!(bytes[20..44], SYN_OPTIONS);
    assert_eq!(TcpRepr::parse(&bytes), Ok((repr.clone(), 44)));
    let view = TcpPacket::new(&bytes).unwrap();
    assert_eq!((view.header_len(), view.options(), view.payload()), (44, &SYN_OPTIONS[..], &[0xee; 6][..]));
    assert_eq!(
        repr.summary([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 6).to_string(),
        "10.0.0.1:4660 > 10.0.0.2:80 [S.E] seq 2711790500 ack 2981278644 win 65534 len 6 \
         <mss 1460, sackOK, TS val 16909060 ecr 0, wscale 7, MP_CAPABLE v1>"
    );
    let bare = TcpRepr { flags: TcpFlags::default(), options: TcpOptions::default(), ..repr };
    assert_eq!(
        bare.summary("2001:db8::1".parse().unwrap(), "::1".parse().unwrap(), 0).to_string(),
        "[2001:db8::1]:4660 > [::1]:80 [none] seq 2711790500 win 65534 len 0"
    );
}

#[test]
fn data_offsets_that_do_not_hold() {
    let mut bytes = [0; 60];
    for offset in 0..16u8 {
        bytes[12] = offset << 4;
        for len in 0..=60 {
            let expected = match offset {
                _ if len < MIN_HEADER => Err(WireError::Truncated),
                0..5 => Err(WireError::BadLength),
                _ if len < usize::from(offset) * 4 => Err(WireError::Truncated),
                _ => Ok(usize::from(offset) * 4),
            };
            let parsed = TcpRepr::parse(&bytes[..len]).map(|(_, header_len)| header_len);
            assert_eq!(parsed, expected, "offset {offset}, {len} bytes");
        }
    }
}

#[test]
fn options_of_the_wrong_length_are_counted_and_skipped() {
    let cases: [(&[u8], u8); 12] = [
        (&[2, 3, 5], 1),
        (&[2, 5, 5, 5, 5], 1),
        (&[3, 2], 1),
        (&[3, 4, 1, 1], 1),
        (&[4, 3, 0], 1),
        (&[8, 9, 0, 0, 0, 0, 0, 0, 0], 1),
        (&[5, 2], 1),
        (&[5, 9, 0, 0, 0, 0, 0, 0, 0], 1),
        (&[34, 3, 0], 1),
        (&[34, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1),
        (&[30, 5, 0x01, 0, 0], 1),
        (&[30, 2], 1),
    ];
    for (bad, count) in cases {
        let mut bytes = bad.to_vec();
        bytes.extend([2, 4, 0x05, 0xb4]);
        let expected = TcpOptions { mss: Some(1460), malformed: count, ..TcpOptions::default() };
        assert_eq!(TcpOptions::parse(&bytes), expected, "{bad:?}");
    }
    let unknown = [253, 4, 1, 2, 2, 4, 0x05, 0xb4, 30, 4, 0x90, 0];
    assert_eq!(TcpOptions::parse(&unknown), TcpOptions { mss: Some(1460), ..TcpOptions::default() });
}

#[test]
fn a_list_that_breaks_off_is_read_that_far() {
    let mss = TcpOptions { mss: Some(1460), ..TcpOptions::default() };
    let broken = TcpOptions { malformed: 1, ..mss.clone() };
    for (tail, expected) in [
        (&[3u8, 0, 3, 3, 7][..], &broken), // length 0
        (&[3, 1, 3, 3, 7], &broken),       // length 1
        (&[3], &broken),                   // no length
        (&[3, 4, 7], &broken),             // beyond the end
        (&[0, 3, 3, 7], &mss),             // end of list
        (&[1, 1, 1], &mss),
    ] {
        let mut bytes = [2, 4, 0x05, 0xb4].to_vec();
        bytes.extend(tail);
        assert_eq!(&TcpOptions::parse(&bytes), expected, "{tail:?}");
    }
    let errors: Vec<_> = RawOptions::new(&[3, 0, 2, 4, 5, 5]).collect();
    assert_eq!(errors, [Err(WireError::BadLength)], "one error, then the end");
}

#[test]
fn bytes_beyond_the_option_space_are_not_looked_at() {
    let mut bytes = [1; 60];
    bytes[40..44].copy_from_slice(&[2, 4, 5, 180]);
    assert_eq!(TcpOptions::parse(&bytes), TcpOptions::default());
}

#[test]
fn window_scale_above_14_counts_as_14() {
    assert_eq!(TcpOptions::parse(&[3, 3, 15]).window_scale, Some(14));
    assert_eq!(TcpOptions::parse(&[3, 3, 255]).window_scale, Some(14));
}

#[test]
fn sack_leaves_room_for_a_data_ack() {
    let mut options = TcpOptions {
        timestamps: Some(Timestamps { value: 1, echo: 2 }),
        sack: (0..4).map(|i| (SeqNumber(i * 10), SeqNumber(i * 10 + 5))).collect(),
        ..TcpOptions::default()
    };
    assert_eq!(options.len(), 44, "timestamps and four blocks never fit");
    assert!(!options.fits());
    options.shed_sack();
    assert_eq!((options.sack.len(), options.len(), options.room()), (3, 40, 4));
    options.mptcp.push(Dss { data_fin: false, ack: Some(DataAck::Long(7)), mapping: None }.into());
    assert_eq!(options.len(), 48);
    // Even if the caller passes too much, the header stays legal and the DATA_ACK goes out.
    let cut = TcpOptions::parse(&emitted(&options));
    assert_eq!((cut.sack.len(), &cut.mptcp), (2, &options.mptcp));
    options.shed_sack();
    assert_eq!(options, cut);
    // 10 + 18 + 12: only without padding.
    assert_eq!(emitted(&options).len(), 40);
}

#[test]
fn padding_yields_before_options_do() {
    let join = MpJoin::Ack { hmac: [3; 20] };
    let options = TcpOptions {
        timestamps: Some(Timestamps { value: 1, echo: 2 }),
        mptcp: smallvec![
            join.into(),
            MpPrio { backup: true, address_id: None }.into(),
            MpPrio { backup: false, address_id: None }.into(),
        ],
        ..TcpOptions::default()
    };
    // 12 + 24 + 4 + 4 aligned, 10 + 24 + 3 + 3 packed.
    assert_eq!((options.len(), options.room()), (40, 0));
    assert_eq!(TcpOptions::parse(&emitted(&options)), options);
}

/// RFC 9293 §3.1, MUST-69: a middlebox may look at what follows the end of the list.
#[test]
fn what_is_free_behind_the_last_option_is_0() {
    let ids = (0..30).map(AddressId).collect();
    let options = TcpOptions {
        timestamps: Some(Timestamps { value: 1, echo: 2 }),
        mptcp: smallvec![
            MpPrio { backup: true, address_id: None }.into(),
            MptcpOption::RemoveAddr(RemoveAddr { ids }),
        ],
        ..TcpOptions::default()
    };
    let bytes = emitted(&options);
    assert_eq!((bytes.len(), &bytes[16..]), (40, &[0; 24][..]));
}

#[test]
fn what_no_header_holds_is_left_out() {
    let ids = (0..60).map(AddressId).collect();
    let options = TcpOptions {
        fast_open: Some(SmallVec::from_elem(1, 100)),
        mptcp: smallvec![MptcpOption::RemoveAddr(RemoveAddr { ids })],
        ..syn_options()
    };
    let parsed = TcpOptions::parse(&emitted(&options));
    assert_eq!(parsed, TcpOptions { mptcp: SmallVec::new(), ..syn_options() });
}

#[test]
fn fast_open_cookies() {
    for cookie in [&[][..], &[1, 2, 3, 4], &[9; 16]] {
        let options = TcpOptions { fast_open: Some(SmallVec::from_slice(cookie)), ..TcpOptions::default() };
        let bytes = emitted(&options);
        assert_eq!(TcpOptions::parse(&bytes), options);
        // RFC 7413 §4.1.1, §9: kind 34.
        assert!(bytes.windows(2).any(|w| w == [34, 2 + cookie.len() as u8]), "{bytes:?}");
    }
    for length in [1, 2, 3, 5, 7, 15, 17, 18] {
        let mut bytes = [1; 20];
        (bytes[0], bytes[1]) = (34, 2 + length);
        let parsed = TcpOptions::parse(&bytes[..2 + usize::from(length)]);
        assert!(parsed.fast_open.is_none() && parsed.malformed == 1, "{length}");
    }
}

#[test]
fn checksums() {
    // An ACK between 10.0.0.1 and 10.0.0.2; the expected sum was worked out by hand: pseudo-header
    // 1400+3+6+16h, words 04d2 0050 0001 0000 0002 5010 2000.
    let (src, dst) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
    let repr = TcpRepr {
        src_port: 1234,
        dst_port: 80,
        seq: SeqNumber(1),
        ack: SeqNumber(2),
        flags: TcpFlags { ack: true, ..TcpFlags::default() },
        window: 8192,
        ..TcpRepr::default()
    };
    let mut header = [0; 20];
    repr.emit(&mut header);
    let payload: &[&[u8]] = &[b"odd", b"", b"even", b"x"];
    let sum = checksum::sum_slices(payload.iter().copied(), 0);
    complete_checksum(&mut header, src, dst, 0, 0);
    let by_hand = !(0x1400u32 + 3 + 6 + 20 + 0x04d2 + 0x50 + 1 + 2 + 0x5010 + 0x2000) as u16;
    assert_eq!(TcpPacket::new(&header).unwrap().checksum(), by_hand);
    assert!(TcpRepr::verify_checksum(src, dst, &header));

    repr.emit(&mut header);
    complete_checksum(&mut header, src, dst, sum, 8);
    let segment = [&header[..], &payload.concat()].concat();
    assert!(TcpRepr::verify_checksum(src, dst, &segment));
    for bit in 0..segment.len() * 8 {
        let mut flipped = segment.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(!TcpRepr::verify_checksum(src, dst, &flipped), "bit {bit}");
    }
    assert!(!TcpRepr::verify_checksum(src, dst, &segment[..segment.len() - 1]));

    // What a device with checksum offload does: sum from the TCP header on, complement, store.
    repr.emit(&mut header);
    partial_checksum(&mut header, src, dst, 8);
    let offloaded = [&header[..], &payload.concat()].concat();
    let completed = !checksum::fold(checksum::sum(&offloaded, 0));
    assert_eq!(completed, TcpPacket::new(&segment).unwrap().checksum());
}

#[test]
fn a_middlebox_sees_padding_and_malformed_options() {
    let mut bytes = [0u8; MIN_HEADER + 16];
    bytes[12] = 9 << 4;
    bytes[MIN_HEADER..].copy_from_slice(&[1, 3, 3, 7, 1, 30, 4, 0x20, 0, 30, 4, 0x5f, 0, 0, 1, 1]);
    let packet = TcpPacket::new(&bytes).unwrap();
    let kinds = |options: RawOptions<'_>| options.map(|o| o.unwrap().kind).collect::<Vec<_>>();
    assert_eq!(kinds(packet.raw_options()), [3, 30, 30]);
    assert_eq!(kinds(packet.raw_options().for_forwarding()), [1, 3, 1, 30, 30]);
    assert_eq!(packet.mptcp_subtypes().collect::<Vec<_>>(), [2, 5]);
    // A length of 0 or 1 ends the walk, but not that of a middlebox. One beyond the end does end both.
    bytes[MIN_HEADER..].copy_from_slice(&[99, 0, 30, 4, 0x20, 0, 98, 1, 30, 4, 0x5f, 0, 1, 1, 97, 3]);
    let packet = TcpPacket::new(&bytes).unwrap();
    let walk = |options: RawOptions<'_>| options.map(|o| o.map(|o| o.kind)).collect::<Vec<_>>();
    assert_eq!(walk(packet.raw_options()), [Err(WireError::BadLength)]);
    let kept = [99, 30, 98, 30, 1, 1].map(Ok);
    let seen = walk(packet.raw_options().for_forwarding());
    assert_eq!((&seen[..6], &seen[6..]), (&kept[..], &[Err(WireError::Truncated)][..]));
    assert_eq!(packet.mptcp_subtypes().collect::<Vec<_>>(), [2, 5]);
}

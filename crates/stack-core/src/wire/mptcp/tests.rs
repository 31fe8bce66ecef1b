//! The figures of RFC 8684, byte by byte, and every length that none of them has.

use super::super::WireError;
use super::*;
use std::string::ToString;
use std::vec;
use std::vec::Vec;

const FLAGS: CapableFlags = CapableFlags::sha256(true, false);
const KEY_A: u64 = 0x0102_0304_0506_0708;
const KEY_B: u64 = 0x1112_1314_1516_1718;

/// Bytes from hexadecimal digits; blanks are ignored.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    digits
        .chunks(2)
        .map(|d| u8::from_str_radix(&d.iter().collect::<std::string::String>(), 16).unwrap())
        .collect()
}

/// `option` is these bytes, in both directions, and every other length is refused or means something else.
#[track_caller]
fn check(bytes: &str, option: impl Into<MptcpOption>) {
    let (bytes, option) = (hex(bytes), option.into());
    assert_eq!(bytes[1] as usize, bytes.len(), "the test's own length octet");
    assert_eq!(MptcpOption::parse(&bytes), Ok(option.clone()));
    assert_eq!(option.len(), bytes.len());
    assert_eq!(option.subtype(), bytes[2] >> 4);
    let mut buf = vec![0xee; bytes.len() + 3];
    assert_eq!(option.emit(&mut buf), bytes.len());
    assert_eq!(buf[..bytes.len()], bytes[..]);
    assert_eq!(buf[bytes.len()..], [0xee; 3], "nothing is written beyond the option");
    // The length octet must be the slice's length.
    let mut wrong = bytes.clone();
    wrong[1] += 1;
    assert_eq!(MptcpOption::parse(&wrong), Err(WireError::BadLength));
    for cut in 0..bytes.len() {
        assert!(MptcpOption::parse(&bytes[..cut]).is_err());
    }
}

#[test]
fn figure_4_mp_capable_in_its_four_forms() {
    check("1e 04 01 81", MpCapable::Syn { version: 1, flags: FLAGS });
    check("1e 0c 01 81 1112131415161718", MpCapable::SynAck { version: 1, flags: FLAGS, key: KEY_B });
    let ack = MpCapable::Ack { version: 1, flags: FLAGS, sender_key: KEY_A, receiver_key: KEY_B };
    check("1e 14 01 81 0102030405060708 1112131415161718", ack);
    let data = |checksum| MpCapable::Data {
        version: 1,
        flags: FLAGS,
        sender_key: KEY_A,
        receiver_key: KEY_B,
        len: 0x05b4,
        checksum,
    };
    check("1e 16 01 81 0102030405060708 1112131415161718 05b4", data(None));
    check("1e 18 01 81 0102030405060708 1112131415161718 05b4 beef", data(Some(0xbeef)));
}

#[test]
fn mp_capable_flags() {
    let flags = |bits| CapableFlags::from_bits(bits);
    assert_eq!(flags(0x81), CapableFlags::sha256(true, false));
    assert_eq!(flags(0x21), CapableFlags::sha256(false, true));
    assert_eq!(flags(0x40), CapableFlags { extensibility: true, ..CapableFlags::default() });
    assert_eq!(flags(0x1e).algorithms, 0x1e);
    for bits in 0..=255 {
        assert_eq!(flags(bits).bits(), bits);
    }
    // Bits that `algorithms` cannot hold do not reach the other flags.
    assert_eq!(CapableFlags { algorithms: 0xff, ..CapableFlags::default() }.bits(), 0x1f);
}

#[test]
fn mp_capable_of_another_version_shows_version_and_flags() {
    // RFC 6824's SYN carries a key.
    let v0 = MptcpOption::parse(&hex("1e 0c 00 81 0102030405060708"));
    assert_eq!(v0, Ok(MpCapable::SynAck { version: 0, flags: FLAGS, key: KEY_A }.into()));
    for length in (4..=40u8).filter(|l| ![4, 12, 20, 22, 24].contains(l)) {
        let option = |head: &str| {
            let mut bytes = hex(head);
            bytes[1] = length;
            bytes.resize(length.into(), 0);
            MptcpOption::parse(&bytes)
        };
        assert_eq!(
            option("1e 00 02 01"),
            Ok(MpCapable::Syn { version: 2, flags: CapableFlags::from_bits(1) }.into())
        );
        // RFC 8684 §3.1: B = 1 may alter the length.
        assert_eq!(
            option("1e 00 01 41"),
            Ok(MpCapable::Syn { version: 1, flags: CapableFlags::from_bits(0x41) }.into())
        );
        assert_eq!(option("1e 00 01 01"), Err(WireError::BadLength), "length {length}");
    }
}

#[test]
fn figures_5_to_7_mp_join() {
    let id = AddressId(7);
    let (token, nonce) = (0xaabb_ccdd, 0x1122_3344);
    check("1e 0c 10 07 aabbccdd 11223344", MpJoin::Syn { backup: false, address_id: id, token, nonce });
    check("1e 0c 11 07 aabbccdd 11223344", MpJoin::Syn { backup: true, address_id: id, token, nonce });
    let hmac = 0x0102_0304_0506_0708;
    check(
        "1e 10 10 07 0102030405060708 11223344",
        MpJoin::SynAck { backup: false, address_id: id, hmac, nonce },
    );
    check(
        "1e 10 11 07 0102030405060708 11223344",
        MpJoin::SynAck { backup: true, address_id: id, hmac, nonce },
    );
    let hmac = core::array::from_fn(|i| i as u8);
    check("1e 18 10 00 000102030405060708090a0b0c0d0e0f10111213", MpJoin::Ack { hmac });
    // Reserved bits are ignored.
    let reserved = hex("1e 18 1f ff 000102030405060708090a0b0c0d0e0f10111213");
    assert_eq!(MptcpOption::parse(&reserved), Ok(MpJoin::Ack { hmac }.into()));
}

#[test]
fn figure_9_dss_with_all_flag_combinations() {
    let (dsn, ack) = (0x0a0b_0c0d_0e0f_1011, 0x2021_2223_2425_2627);
    for flags in 0..32u8 {
        for with_checksum in [false, true] {
            let (has_ack, long_ack) = (flags & 1 != 0, flags & 2 != 0);
            let (has_map, long_dsn) = (flags & 4 != 0, flags & 8 != 0);
            if with_checksum && !has_map {
                continue;
            }
            let mut bytes = vec![KIND, 0, 0x20, flags];
            let low = |v: u64| v as u32;
            let option = Dss {
                data_fin: flags & 16 != 0,
                ack: has_ack.then_some(if long_ack { DataAck::Long(ack) } else { DataAck::Short(low(ack)) }),
                mapping: has_map.then_some(DssMapping {
                    dsn: if long_dsn { Dsn::Long(dsn) } else { Dsn::Short(low(dsn)) },
                    ssn: 0x3031_3233,
                    len: 0x4041,
                    checksum: with_checksum.then_some(0x5051),
                }),
            };
            if has_ack {
                bytes.extend(&ack.to_be_bytes()[if long_ack { 0 } else { 4 }..]);
            }
            if has_map {
                bytes.extend(&dsn.to_be_bytes()[if long_dsn { 0 } else { 4 }..]);
                bytes.extend([0x30, 0x31, 0x32, 0x33, 0x40, 0x41]);
                bytes.extend(if with_checksum { &[0x50, 0x51][..] } else { &[] });
            }
            bytes[1] = bytes.len() as u8;
            assert_eq!(MptcpOption::parse(&bytes), Ok(option.into()), "flags {flags:05b}");
            let mut buf = [0; 28];
            let len = MptcpOption::from(option).emit(&mut buf);
            // "a" without "A" and "m" without "M" mean nothing and are not sent (§3.3).
            bytes[3] &= 0x10 | if has_ack { 3 } else { 0 } | if has_map { 12 } else { 0 };
            assert_eq!(buf[..len], bytes[..], "flags {flags:05b}");
        }
    }
}

#[test]
fn dss_of_the_longest_and_shortest_form() {
    let mapping = DssMapping { dsn: Dsn::Long(1), ssn: 2, len: 3, checksum: Some(4) };
    let longest = Dss { data_fin: true, ack: Some(DataAck::Long(5)), mapping: Some(mapping) };
    check("1e 1c 20 1f 0000000000000005 0000000000000001 00000002 0003 0004", longest);
    check("1e 04 20 00", Dss::default());
    // RFC 8684 §3.3.1: a length of 0 is an infinite mapping, with a checksum of 0.
    let infinite = DssMapping { dsn: Dsn::Short(1), ssn: 2, len: 0, checksum: Some(0) };
    check(
        "1e 10 20 04 00000001 00000002 0000 0000",
        Dss { data_fin: false, ack: None, mapping: Some(infinite) },
    );
    // Reserved bits are ignored.
    assert_eq!(
        MptcpOption::parse(&hex("1e 08 2f e1 00000001")),
        MptcpOption::parse(&hex("1e 08 20 01 00000001"))
    );
}

#[test]
fn figure_12_add_addr_with_and_without_port_and_hmac() {
    let v4 = IpAddr::from([192, 0, 2, 1]);
    let v6: IpAddr = "2001:db8::1".parse().unwrap();
    let (id, mac) = (AddressId(3), Some(KEY_A));
    let add = |address, port, hmac| AddAddr { address_id: id, address, port, hmac };
    check("1e 10 30 03 c0000201 0102030405060708", add(v4, None, mac));
    check("1e 12 30 03 c0000201 1f90 0102030405060708", add(v4, Some(8080), mac));
    check("1e 08 31 03 c0000201", add(v4, None, None));
    check("1e 0a 31 03 c0000201 1f90", add(v4, Some(8080), None));
    let six = "20010db8000000000000000000000001";
    check(&std::format!("1e 1c 30 03 {six} 0102030405060708"), add(v6, None, mac));
    check(&std::format!("1e 1e 30 03 {six} 1f90 0102030405060708"), add(v6, Some(8080), mac));
    check(&std::format!("1e 14 31 03 {six}"), add(v6, None, None));
    check(&std::format!("1e 16 31 03 {six} 1f90"), add(v6, Some(8080), None));
    // An advertisement without HMAC, an echo with one, and RFC 6824's form with the IP version where the
    // flags are now.
    assert_eq!(MptcpOption::parse(&hex("1e 08 30 03 c0000201")), Err(WireError::BadLength));
    assert_eq!(MptcpOption::parse(&hex("1e 10 31 03 c0000201 0102030405060708")), Err(WireError::BadLength));
    assert_eq!(MptcpOption::parse(&hex("1e 08 34 03 c0000201")), Err(WireError::BadLength));
}

#[test]
fn figure_13_remove_addr_with_any_number_of_ids() {
    let ids = |n: u8| RemoveAddr { ids: (1..=n).map(AddressId).collect() };
    check("1e 04 40 01", ids(1));
    check("1e 06 40 01 02 03", ids(3));
    check("1e 0c 40 010203040506070809", ids(9));
    let mut most = vec![KIND, 40, 0x40];
    most.extend(1..=37);
    assert_eq!(MptcpOption::parse(&most), Ok(ids(37).into()));
    most.push(38);
    most[1] += 1;
    assert_eq!(MptcpOption::parse(&most), Err(WireError::BadLength));
    assert_eq!(MptcpOption::parse(&hex("1e 03 40")), Err(WireError::BadLength));
}

#[test]
fn figures_11_14_15_and_16() {
    check("1e 03 50", MpPrio { backup: false, address_id: None });
    check("1e 03 51", MpPrio { backup: true, address_id: None });
    check("1e 04 51 09", MpPrio { backup: true, address_id: Some(AddressId(9)) });
    check("1e 0c 60 00 0102030405060708", MpFail { dsn: KEY_A });
    check("1e 0c 70 00 0102030405060708", MpFastClose { receiver_key: KEY_A });
    check("1e 04 80 03", MpTcpRst { transient: false, reason: ResetReason::Prohibited.into() });
    check("1e 04 81 02", MpTcpRst { transient: true, reason: ResetReason::LackOfResources.into() });
    // U, V and W are ignored.
    let reset = MpTcpRst { transient: false, reason: 0xff };
    assert_eq!(MptcpOption::parse(&hex("1e 04 8e ff")), Ok(reset.into()));
}

#[test]
fn wrong_lengths_are_refused() {
    // Per subtype: the lengths that are right for version 1, flags octet 0 and E = 0.
    let right: [&[u8]; 9] =
        [&[4, 12, 20, 22, 24], &[12, 16, 24], &[4], &[16, 18, 28, 30], &[], &[3, 4], &[12], &[12], &[4]];
    for (subtype, right) in right.iter().enumerate() {
        for length in 3..=255u8 {
            let mut bytes = vec![0; length.into()];
            bytes[..3].copy_from_slice(&[KIND, length, (subtype as u8) << 4 | u8::from(subtype == 0)]);
            let parsed = MptcpOption::parse(&bytes);
            let legal = right.contains(&length) || (subtype == 4 && (4..=40).contains(&length));
            if legal {
                assert!(parsed.is_ok(), "subtype {subtype}, length {length}");
            } else {
                assert_eq!(parsed, Err(WireError::BadLength), "subtype {subtype}, length {length}");
            }
        }
    }
}

#[test]
fn what_is_no_mptcp_option() {
    assert_eq!(MptcpOption::parse(&[]), Err(WireError::Truncated));
    assert_eq!(MptcpOption::parse(&[KIND, 2]), Err(WireError::Truncated));
    assert_eq!(MptcpOption::parse(&[29, 3, 0x50]), Err(WireError::Malformed));
    for unassigned in 9..=15u8 {
        let bytes = [KIND, 4, unassigned << 4, 0];
        assert_eq!(MptcpOption::parse(&bytes), Err(WireError::Malformed));
        let view = MptcpPacket::new(&bytes).unwrap();
        assert!(!view.is_known());
        assert_eq!((view.subtype(), view.nibble(), view.body()), (unassigned, 0, &[0][..]));
    }
}

#[test]
fn dss_checksum_of_a_mapping_over_two_segments() {
    // Figure 10 laid out as bytes, followed by the payload, is what the checksum covers.
    let (dsn, ssn) = (0xf1f2_f3f4_f5f6_f7f8, 0xe1e2_e3e4);
    let payload: Vec<u8> = (0..=200).collect();
    let mut covered = hex("f1f2f3f4f5f6f7f8 e1e2e3e4 00c9 0000");
    covered.extend(&payload);
    let expected = checksum::fold(checksum::sum(&covered, 0));
    let pseudo = dss_pseudo_header(dsn, ssn, payload.len() as u16);
    let (first, second) = payload.split_at(77);
    let sum = checksum::sum_slices([first, second].into_iter(), pseudo);
    assert_eq!(checksum::fold(sum), expected);
    assert_eq!(checksum::fold(dss_pseudo_header(u64::MAX, u32::MAX, u16::MAX)), 0xffff);
}

#[test]
fn reset_reasons_are_those_of_table_4() {
    for code in 0..=255u8 {
        let reason = ResetReason::from(code);
        assert_eq!(u8::from(reason), code);
        assert_eq!(matches!(reason, ResetReason::Unknown(_)), code > 6);
    }
}

#[test]
fn options_read_well() {
    let line = |bytes: &str| MptcpOption::parse(&hex(bytes)).unwrap().to_string();
    assert_eq!(line("1e 04 01 81"), "MP_CAPABLE v1 checksum");
    assert_eq!(line("1e 0c 01 01 1112131415161718"), "MP_CAPABLE v1 key=0x1112131415161718");
    assert_eq!(
        line("1e 18 01 a1 0102030405060708 1112131415161718 05b4 beef"),
        "MP_CAPABLE v1 keys=0x0102030405060708,0x1112131415161718 len=1460 csum=0xbeef checksum nojoin"
    );
    assert_eq!(
        line("1e 0c 11 07 aabbccdd 11223344"),
        "MP_JOIN id=7 token=0xaabbccdd nonce=0x11223344 backup"
    );
    assert_eq!(
        line("1e 18 20 17 0000000000000005 00000001 00000002 0003 0004"),
        "DSS FIN ack=0x0000000000000005 dsn=0x00000001 ssn=2 len=3 csum=0x0004"
    );
    assert_eq!(line("1e 0e 20 04 00000001 00000002 0000"), "DSS dsn=0x00000001 ssn=2 infinite");
    assert_eq!(line("1e 0a 31 03 c0000201 1f90"), "ADD_ADDR id=3 192.0.2.1 port 8080 echo");
    assert_eq!(line("1e 06 40 01 02 03"), "REMOVE_ADDR id=1,2,3");
    assert_eq!(line("1e 03 51"), "MP_PRIO backup");
    assert_eq!(line("1e 0c 60 00 0102030405060708"), "MP_FAIL dsn=0x0102030405060708");
    assert_eq!(line("1e 04 81 02"), "MP_TCPRST lack of resources transient");
    assert_eq!(line("1e 04 80 63"), "MP_TCPRST reason 99");
}

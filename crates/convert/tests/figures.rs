//! Messages byte by byte, as the figures of RFC 8803 §6 have them.

use std::net::SocketAddr;
use umptcp_convert::{Connect, ConnectName, ConvertError, DecodeError, EncodeError, Message, TcpOption, Tlv};

/// The message of one TLV has these bytes after the fixed header, and is read from them.
#[track_caller]
fn is(tlv: Tlv, bytes: &[u8]) {
    let message = Message::new([tlv]);
    // Figure 13.
    let expected = [&[0x01, (1 + bytes.len() / 4) as u8, 0x22, 0x63], bytes].concat();
    assert_eq!(message.encode().unwrap(), expected);
    let stream = [&expected[..], b"GET /"].concat();
    assert_eq!(Message::decode(&stream), Ok(Some((message, expected.len()))));
    for end in 0..expected.len() {
        assert_eq!(Message::decode(&stream[..end]), Ok(None), "{end} bytes of {}", expected.len());
    }
}

fn connect(peer: &str, options: &[(u8, &[u8])]) -> Tlv {
    let options = options.iter().map(|(kind, value)| TcpOption { kind: *kind, value: value.to_vec() });
    Tlv::Connect(Connect { peer: peer.parse().unwrap(), options: options.collect() })
}

#[test]
fn the_fixed_header_alone() {
    assert_eq!(Message::default().encode().unwrap(), [1, 1, 0x22, 0x63]);
    assert_eq!(Message::decode(&[1, 1, 0x22, 0x63]), Ok(Some((Message::default(), 4))));
}

#[test]
fn figure_15_info() {
    is(Tlv::Info, &[0x01, 1, 0, 0]);
}

#[test]
fn figure_16_supported_tcp_extensions() {
    is(Tlv::SupportedTcpExtensions(vec![30]), &[0x15, 2, 0, 0, 30, 0, 0, 0]);
    is(Tlv::SupportedTcpExtensions(vec![30, 34, 8, 5, 3]), &[0x15, 3, 0, 0, 30, 34, 8, 5, 3, 0, 0, 0]);
    is(Tlv::SupportedTcpExtensions(vec![]), &[0x15, 1, 0, 0]);
}

#[test]
fn figure_17_base_connect() {
    is(
        connect("192.0.2.1:443", &[]),
        &[0x0a, 5, 0x01, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1],
    );
    is(
        connect("[2001:db8::17]:80", &[]),
        &[0x0a, 5, 0, 80, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x17],
    );
}

#[test]
fn figures_18_and_19_extended_connect() {
    let address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1];
    let with = |length: u8, options: &[u8]| [&[0x0a, length, 0, 80], &address[..], options].concat();
    // Fast Open: a cookie is asked for; one is given, and MPTCP is wanted.
    is(connect("192.0.2.1:80", &[(34, &[])]), &with(6, &[34, 2, 0, 0]));
    let both: &[(u8, &[u8])] = &[(34, &[1, 2, 3, 4, 5, 6, 7, 8]), (30, &[])];
    is(connect("192.0.2.1:80", both), &with(8, &[34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 30, 2]));
}

#[test]
fn figure_20_extended_tcp_header() {
    is(Tlv::ExtendedTcpHeader(vec![2, 4, 5, 0xb4, 1, 3, 3, 7]), &[0x14, 3, 0, 0, 2, 4, 5, 0xb4, 1, 3, 3, 7]);
}

#[test]
fn figure_21_cookie() {
    is(Tlv::Cookie(vec![0xc1, 0xc2, 0xc3, 0xc4]), &[0x16, 2, 0, 0, 0xc1, 0xc2, 0xc3, 0xc4]);
}

#[test]
fn figures_22_and_23_and_every_error() {
    let error = |error: ConvertError, bytes: &[u8]| is(Tlv::Error(error), bytes);
    error(ConvertError::UnsupportedVersion { supported: vec![1] }, &[0x1e, 1, 0, 1]);
    error(ConvertError::UnsupportedVersion { supported: vec![1, 2] }, &[0x1e, 2, 0, 1, 2, 0, 0, 0]);
    let message = [1, 2, 0x22, 0x63, 0x0a, 1, 0, 0];
    error(ConvertError::malformed(&message), &[&[0x1e, 3, 1, 0], &message[..]].concat());
    error(ConvertError::unsupported(&message), &[&[0x1e, 3, 2, 0], &message[..]].concat());
    error(ConvertError::MissingCookie { cookie: vec![7, 7, 7, 7] }, &[0x1e, 2, 3, 0, 7, 7, 7, 7]);
    error(ConvertError::NotAuthorized, &[0x1e, 1, 32, 0]);
    error(ConvertError::UnsupportedTcpOption { kinds: vec![30] }, &[0x1e, 1, 33, 30]);
    error(ConvertError::UnsupportedTcpOption { kinds: vec![30, 34] }, &[0x1e, 2, 33, 30, 34, 0, 0, 0]);
    error(ConvertError::ResourceExceeded { delay: 9 }, &[0x1e, 1, 64, 9]);
    error(ConvertError::NetworkFailure { delay: 0 }, &[0x1e, 1, 65, 0]);
    error(ConvertError::ConnectionReset, &[0x1e, 1, 96, 0]);
    error(ConvertError::DestinationUnreachable { code: 13 }, &[0x1e, 1, 97, 13]);
    error(ConvertError::Other { code: 127, value: vec![5] }, &[0x1e, 1, 127, 5]);
}

#[test]
fn several_in_their_order() {
    let message = Message::new([Tlv::Cookie(vec![1, 2, 3, 4]), connect("192.0.2.1:80", &[])]);
    let bytes = message.encode().unwrap();
    assert_eq!(bytes[..12], [1, 8, 0x22, 0x63, 0x16, 2, 0, 0, 1, 2, 3, 4]);
    assert_eq!(Message::decode(&bytes), Ok(Some((message, 32))));
}

/// What is padded is read with its padding where that may be the value's.
#[test]
fn padding() {
    let bytes = Message::new([Tlv::Cookie(vec![9])]).encode().unwrap();
    assert_eq!(bytes[4..], [0x16, 2, 0, 0, 9, 0, 0, 0]);
    let read = Message::decode(&bytes).unwrap().unwrap().0;
    assert_eq!(read.tlvs, [Tlv::Cookie(vec![9, 0, 0, 0])]);
}

#[test]
fn what_is_wrong_is_refused() {
    use DecodeError::{NotConvert, Twice, UnsupportedTlv, UnsupportedVersion, ZeroLength};
    let address = |last: [u8; 16]| [&[1, 6, 0x22, 0x63, 0x0a, 5, 0, 80], &last[..]].concat();
    let mapped = |v4: [u8; 4]| {
        let [a, b, c, d] = v4;
        address([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    };
    for (bytes, error) in [
        (&b"GET / HTTP/1.1"[..], NotConvert),
        (b"GE ", NotConvert),
        (&[1, 1, 0x22, 0x64], NotConvert),
        (&[1, 0, 0x22, 0x63], ZeroLength),
        (&[2, 1, 0x22, 0x63], UnsupportedVersion(2)),
        (&[0, 1, 0x22, 0x63], UnsupportedVersion(0)),
        (&[1, 2, 0x22, 0x63, 0x00, 1, 0, 0], UnsupportedTlv(0)),
        (&[1, 2, 0x22, 0x63, 0x77, 1, 0, 0], UnsupportedTlv(0x77)),
        (&[1, 3, 0x22, 0x63, 0x01, 1, 0, 0, 0x01, 1, 0, 0], Twice(1)),
    ] {
        assert_eq!(Message::decode(bytes), Err(error), "{bytes:02x?}");
    }
    let extended = |options: [u8; 4]| {
        let mut bytes = mapped([192, 0, 2, 1]);
        (bytes[1], bytes[5]) = (7, 6);
        bytes.extend(options);
        bytes
    };
    for bytes in [
        vec![1, 2, 0x22, 0x63, 0x01, 0, 0, 0],
        vec![1, 2, 0x22, 0x63, 0x01, 2, 0, 0],
        vec![1, 3, 0x22, 0x63, 0x01, 2, 0, 0, 0, 0, 0, 0],
        vec![1, 2, 0x22, 0x63, 0x0a, 1, 0, 80],
        mapped([127, 0, 0, 1]),
        mapped([255, 255, 255, 255]),
        mapped([224, 0, 0, 1]),
        mapped([0; 4]),
        address([0; 16]),
        address([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        address([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        extended([1, 1, 1, 1]),
        extended([30, 1, 0, 0]),
        extended([30, 5, 0, 0]),
        extended([30, 2, 0, 9]),
        extended([0, 0, 0, 0]),
    ] {
        let decoded = Message::decode(&bytes);
        assert!(matches!(decoded, Err(DecodeError::Malformed(_))), "{bytes:02x?}: {decoded:?}");
    }
}

#[test]
fn what_must_not_be_is_not_written() {
    let encode = |tlvs: Vec<Tlv>| Message::new(tlvs).encode().unwrap_err();
    assert_eq!(encode(vec![Tlv::Info, Tlv::Info]), EncodeError::Twice);
    assert_eq!(encode(vec![connect("127.0.0.1:1", &[])]), EncodeError::Address);
    assert_eq!(encode(vec![connect("[ff02::1]:1", &[])]), EncodeError::Address);
    assert_eq!(encode(vec![connect("0.0.0.0:1", &[])]), EncodeError::Address);
    assert_eq!(encode(vec![connect("[::]:1", &[])]), EncodeError::Address);
    assert_eq!(encode(vec![connect("192.0.2.1:1", &[(1, &[])])]), EncodeError::Option);
    assert_eq!(encode(vec![connect("192.0.2.1:1", &[(30, &[0; 254])])]), EncodeError::Option);
    assert_eq!(encode(vec![Tlv::Cookie(vec![0; 1013])]), EncodeError::TooLong);
    assert_eq!(Message::new([Tlv::Cookie(vec![0; 1012])]).encode().unwrap().len(), 1020);
    // An echo of the longest message still fits.
    let echo = Message::new([Tlv::Error(ConvertError::malformed(&[1; 1020]))]).encode().unwrap();
    assert_eq!(echo.len(), 1020);
    let peer: SocketAddr = "10.0.0.1:1".parse().unwrap();
    assert!(Message::new([Tlv::Connect(Connect::new(peer))]).encode().is_ok(), "that is up to the converter");
}

/// Ours, in the range for private use.
#[test]
fn names_published_ports_and_early_answers() {
    let name = |host: &str| Tlv::ConnectName(ConnectName { host: host.to_owned(), port: 443 });
    is(name("a.b"), &[0xc0, 2, 1, 187, 3, b'a', b'.', b'b']);
    is(name("ab.cd"), &[0xc0, 3, 1, 187, 5, b'a', b'b', b'.', b'c', b'd', 0, 0]);
    is(Tlv::Publish(8080), &[0xc1, 1, 0x1f, 0x90]);
    is(Tlv::EarlyAnswer, &[0xc2, 1, 0, 0]);
    is(Tlv::Error(ConvertError::NoSuchName), &[0x1e, 1, 192, 0]);
    for host in ["", "a b", "a/b", "\u{e9}.example", &"a".repeat(254)] {
        assert_eq!(Message::new([name(host)]).encode(), Err(EncodeError::Name), "{host}");
    }
    assert!(Message::new([name(&"a".repeat(253))]).encode().unwrap().len() <= 264);
    for body in [
        &[0xc0, 1, 0, 80][..],
        &[0xc0, 2, 0, 80, 0, 0, 0, 0],
        &[0xc0, 2, 0, 80, 4, b'a', b'b', b'c'],
        &[0xc0, 2, 0, 80, 2, b'a', b'b', 1],
        &[0xc0, 3, 0, 80, 2, b'a', b'b', 0, 0, 0, 0, 0],
        &[0xc0, 2, 0, 80, 3, b'a', 0, b'c'],
        &[0xc0, 2, 0, 80, 3, b'a', 0xff, b'c'],
        &[0xc1, 2, 0, 80, 0, 0, 0, 0],
        &[0xc2, 1, 0, 1],
        &[0xc2, 2, 0, 0, 0, 0, 0, 0],
    ] {
        let bytes = [&[1, (1 + body.len() / 4) as u8, 0x22, 0x63], body].concat();
        assert!(matches!(Message::decode(&bytes), Err(DecodeError::Malformed(_))), "{body:?}");
    }
}

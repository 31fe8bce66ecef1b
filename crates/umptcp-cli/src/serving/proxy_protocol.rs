//! The PROXY protocol, version 2: what a service is told of its client, as the very first bytes.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, section 2.2.

use std::net::{IpAddr, SocketAddr};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, and the command.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

/// Family and protocol.
const UNSPECIFIED: u8 = 0x00;
const TCP_IPV4: u8 = 0x11;
const TCP_IPV6: u8 = 0x21;

/// The header of a connection from `client` to `server`. IPv6 addresses that stand for IPv4 are told as IPv4.
pub(crate) fn header(client: SocketAddr, server: SocketAddr) -> Vec<u8> {
    let (from, to) = (client.ip().to_canonical(), server.ip().to_canonical());
    let (family, mut addresses) = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (TCP_IPV4, [from.octets(), to.octets()].concat()),
        (from, to) => (TCP_IPV6, [as_v6(from), as_v6(to)].concat()),
    };
    addresses.extend(client.port().to_be_bytes());
    addresses.extend(server.port().to_be_bytes());
    with_header(PROXY, family, &addresses)
}

/// The header of a connection of the proxy's own, which tests whether the service answers.
pub(crate) fn of_ourselves() -> Vec<u8> {
    with_header(LOCAL, UNSPECIFIED, &[])
}

fn as_v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
        IpAddr::V6(a) => a.octets(),
    }
}

fn with_header(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    // At most 36 bytes.
    let length = addresses.len() as u16;
    let mut all = SIGNATURE.to_vec();
    all.extend([command, family]);
    all.extend(length.to_be_bytes());
    all.extend(addresses);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn headers_are_those_of_the_specification() {
        let start = "0d0a0d0a000d0a515549540a";
        let header =
            |client: &str, server: &str| hex(&header(client.parse().unwrap(), server.parse().unwrap()));
        let v4 = "21".to_owned() + "11000c" + "c0000201" + "c6336407" + "c350" + "01bb";
        assert_eq!(header("192.0.2.1:50000", "198.51.100.7:443"), format!("{start}{v4}"));
        assert_eq!(header("[::ffff:192.0.2.1]:50000", "[::ffff:198.51.100.7]:443"), format!("{start}{v4}"));
        let (from, to) = ("20010db8000000000000000000000001", "20010db8000000000000000000000002");
        let v6 = format!("{start}21210024{from}{to}c35001bb");
        assert_eq!(header("[2001:db8::1]:50000", "[2001:db8::2]:443"), v6);
        assert_eq!(v6.len() / 2, 52);
        assert_eq!(hex(&of_ourselves()), format!("{start}20000000"));
    }
}

//! The kernel's table of connections, by ctnetlink.

use super::nfnetlink::{self, HEADER, NF_HEADER, attribute};
use ipnet::IpNet;
use std::io;
use std::net::IpAddr;

/// The subsystem of connection tracking.
const SUBSYSTEM: u8 = 1;
/// IPCTNL_MSG_CT_GET and IPCTNL_MSG_CT_DELETE.
const GET: u8 = 1;
const DELETE: u8 = 2;
/// Attributes of an entry (CTA_*): as the first packet had it, as the answers have it.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
/// An attribute that contains others (NLA_F_NESTED).
const NESTED: u16 = 0x8000;
/// In either of the first two: addresses (CTA_TUPLE_IP), of which the source and the destination.
const ADDRESSES: u16 = 1;
const V4: (u16, u16) = (1, 2);
const V6: (u16, u16) = (3, 4);

/// In either of the first two: the protocol (CTA_TUPLE_PROTO), with its number and ports.
const PROTOCOL: u16 = 2;
const NUMBER: u16 = 1;
const PORTS: (u16, u16) = (2, 3);

/// A connection of TCP that is translated: who the other end is, and what it sees of this one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Translated {
    /// Whose it is.
    pub(super) source: IpAddr,
    pub(super) seen: (IpAddr, u16),
    pub(super) remote: (IpAddr, u16),
}

/// An entry of the table, of packets whose addresses are not translated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Untranslated {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// What names it to the kernel: attributes, as the kernel gave them.
    name: Vec<(u16, Vec<u8>)>,
}

/// The source and destination in a tuple.
fn ends(tuple: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let addresses = attribute(tuple, ADDRESSES)?;
    let v4 = |kind| Some(IpAddr::from(<[u8; 4]>::try_from(attribute(addresses, kind)?).ok()?));
    let v6 = |kind| Some(IpAddr::from(<[u8; 16]>::try_from(attribute(addresses, kind)?).ok()?));
    match (v4(V4.0), v4(V4.1)) {
        (Some(source), Some(destination)) => Some((source, destination)),
        _ => Some((v6(V6.0)?, v6(V6.1)?)),
    }
}

/// The ports in a tuple of TCP.
fn ports(tuple: &[u8]) -> Option<(u16, u16)> {
    let protocol = attribute(tuple, PROTOCOL)?;
    let port = |kind| Some(u16::from_be_bytes(attribute(protocol, kind)?.try_into().ok()?));
    let tcp = attribute(protocol, NUMBER)? == [libc::IPPROTO_TCP as u8];
    tcp.then_some((port(PORTS.0)?, port(PORTS.1)?))
}

/// Reads a message about an entry; `None` if that is not translated, or not TCP.
fn read_translated(message: &[u8]) -> Option<Translated> {
    let attributes = message.get(HEADER + NF_HEADER..)?;
    let (source, _) = ends(attribute(attributes, ORIGINAL)?)?;
    let reply = attribute(attributes, REPLY)?;
    let ((remote, seen), (remote_port, seen_port)) = (ends(reply)?, ports(reply)?);
    (seen != source).then_some(Translated { source, seen: (seen, seen_port), remote: (remote, remote_port) })
}

/// The connections of TCP that are translated and for which this holds. Reads the whole table.
pub(super) fn translated(wanted: impl Fn(&Translated) -> bool) -> io::Result<Vec<Translated>> {
    let mut found = Vec::new();
    nfnetlink::dump(&nfnetlink::request(SUBSYSTEM, GET, libc::NLM_F_DUMP, 0, &[]), |message| {
        found.extend(read_translated(message).filter(&wanted));
    })?;
    Ok(found)
}

/// Reads a message about an entry; `None` if that is translated.
fn read(message: &[u8]) -> Option<Untranslated> {
    let attributes = message.get(HEADER + NF_HEADER..)?;
    let (source, destination) = ends(attribute(attributes, ORIGINAL)?)?;
    if ends(attribute(attributes, REPLY)?)? != (destination, source) {
        return None;
    }
    let part = |kind: u16, flag: u16| Some((kind | flag, attribute(attributes, kind)?.to_vec()));
    let name = [part(ORIGINAL, NESTED), part(ZONE, 0), part(ID, 0)].into_iter().flatten().collect();
    Some(Untranslated { source, destination, name })
}

/// The entries of packets that came from one of these networks and are not translated. Reads the whole table,
/// a second for a million entries or so.
pub(super) fn untranslated(sources: &[IpNet]) -> io::Result<Vec<Untranslated>> {
    let mut found = Vec::new();
    nfnetlink::dump(&nfnetlink::request(SUBSYSTEM, GET, libc::NLM_F_DUMP, 0, &[]), |message| {
        found.extend(read(message).filter(|e| sources.iter().any(|net| net.contains(&e.source))));
    })?;
    Ok(found)
}

/// Deletes entries. One that has gone meanwhile is no error.
pub(super) fn delete(entries: &[Untranslated]) -> io::Result<()> {
    let family = |e: &Untranslated| if e.source.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET } as u8;
    for entry in entries {
        let name: Vec<(u16, &[u8])> = entry.name.iter().map(|(kind, value)| (*kind, &value[..])).collect();
        let request = nfnetlink::request(SUBSYSTEM, DELETE, libc::NLM_F_ACK, family(entry), &name);
        match nfnetlink::done(&request) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            other => other?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::nfnetlink::push;

    fn tuple(source: IpAddr, destination: IpAddr) -> Vec<u8> {
        let bytes = |address| match address {
            IpAddr::V4(a) => a.octets().to_vec(),
            IpAddr::V6(a) => a.octets().to_vec(),
        };
        let kinds = if source.is_ipv6() { V6 } else { V4 };
        let (mut addresses, mut tuple) = (Vec::new(), Vec::new());
        push(&mut addresses, kinds.0, &bytes(source));
        push(&mut addresses, kinds.1, &bytes(destination));
        push(&mut tuple, ADDRESSES | NESTED, &addresses);
        tuple
    }

    #[test]
    fn translated_connections_are_read_with_their_ports() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let with_ports = |source: &str, destination: &str, protocol: u8, ports: (u16, u16)| {
            let (mut all, mut inner) = (tuple(address(source), address(destination)), Vec::new());
            push(&mut inner, NUMBER, &[protocol]);
            push(&mut inner, PORTS.0, &ports.0.to_be_bytes());
            push(&mut inner, PORTS.1, &ports.1.to_be_bytes());
            push(&mut all, PROTOCOL | NESTED, &inner);
            all
        };
        let message = |seen: &str, protocol: u8| {
            let original = with_ports("192.168.0.2", "192.0.2.1", protocol, (40_000, 80));
            let reply = with_ports("192.0.2.1", seen, protocol, (80, 60_000));
            nfnetlink::request(
                SUBSYSTEM,
                0,
                0,
                2,
                &[(ORIGINAL | NESTED, &original), (REPLY | NESTED, &reply)],
            )
        };
        let whole = message("10.0.0.2", 6);
        let expected = Translated {
            source: address("192.168.0.2"),
            seen: (address("10.0.0.2"), 60_000),
            remote: (address("192.0.2.1"), 80),
        };
        assert_eq!(read_translated(&whole), Some(expected));
        assert_eq!(read_translated(&message("192.168.0.2", 6)), None, "not translated");
        assert_eq!(read_translated(&message("10.0.0.2", 17)), None, "not TCP");
        for length in 0..whole.len() - 8 {
            assert_eq!(read_translated(&whole[..length]), None);
        }
    }

    #[test]
    fn what_is_translated_is_told_from_what_is_not() {
        let message = |from: &str, to: &str, answered: &str| {
            let [from, to, answered] = [from, to, answered].map(|a| a.parse().unwrap());
            let (original, reply) = (tuple(from, to), tuple(to, answered));
            let attributes: [(u16, &[u8]); 3] =
                [(ORIGINAL | NESTED, &original), (REPLY | NESTED, &reply), (ID, &[0, 0, 0, 9])];
            nfnetlink::request(SUBSYSTEM, 0, 0, 2, &attributes)
        };
        for [own, server, nic] in
            [["100.64.0.1", "192.0.2.1", "10.0.0.2"], ["fd00::1", "2001:db8::1", "2001:db8::2"]]
        {
            let found = read(&message(own, server, own)).unwrap();
            assert_eq!(
                (found.source.to_string(), found.destination.to_string()),
                (own.into(), server.into())
            );
            let kinds: Vec<u16> = found.name.iter().map(|(kind, _)| *kind).collect();
            assert_eq!(kinds, [ORIGINAL | NESTED, ID]);
            assert_eq!(read(&message(own, server, nic)), None);
            let short = message(own, server, own);
            for length in 0..short.len() - 8 {
                assert_eq!(read(&short[..length]), None);
            }
        }
    }
}

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

/// The entries of packets that came from one of these networks and are not translated. Reads the whole table, a
/// second for a million entries or so.
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

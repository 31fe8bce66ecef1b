//! Fragments of what programs send, made whole: a socket takes whole datagrams only.
//!
//! They come from the kernel of this host, in order and without a loss. One that comes otherwise is dropped with
//! those before it.

use std::collections::VecDeque;
use std::net::IpAddr;
use umptcp_stack_core::wire::ip::{self, IpHeader};

/// Packets of which some is missing, at most. The oldest makes room for one more.
const MOST: usize = 8;

/// Longest payload of an IP packet, in bytes.
const LONGEST: usize = 65_515;

const IPV6_FRAGMENT: u8 = 44;
const IPV6_FRAGMENT_HEADER: usize = 8;

/// Of which packet something is a part (RFC 791 §3.2, RFC 8200 §4.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Whole {
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    ident: u32,
}

#[derive(Debug)]
struct Begun {
    whole: Whole,
    payload: Vec<u8>,
}

/// Where a fragment belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    ident: u32,
    offset: usize,
    more: bool,
    protocol: u8,
    /// Where its part of the payload begins.
    at: usize,
}

/// Packets of which some is missing.
#[derive(Debug, Default)]
pub(crate) struct Fragments {
    begun: VecDeque<Begun>,
}

impl Fragments {
    /// Adds a fragment. Returns the packet if it is whole now.
    pub(crate) fn add(&mut self, header: &IpHeader, packet: &[u8]) -> Option<Vec<u8>> {
        let place = place(packet)?;
        let part = packet.get(place.at..header.total_len)?;
        let Place { ident, protocol, .. } = place;
        let whole = Whole { src: header.src, dst: header.dst, protocol, ident };
        let known = self.begun.iter().position(|begun| begun.whole == whole);
        let begun = known.and_then(|at| self.begun.remove(at));
        let mut begun = match begun {
            // The next packet with this number: the other one was not completed.
            _ if place.offset == 0 => Begun { whole, payload: Vec::new() },
            Some(begun) if begun.payload.len() == place.offset => begun,
            _ => return None,
        };
        if begun.payload.len() + part.len() > LONGEST {
            return None;
        }
        begun.payload.extend(part);
        if place.more {
            if self.begun.len() >= MOST {
                self.begun.pop_front();
            }
            self.begun.push_back(begun);
            return None;
        }
        let mut all = vec![0; ip::ip_header_len(&header.src)];
        ip::emit_ip_header_for(&mut all, (header.src, header.dst), protocol, begun.payload.len(), 0, 0)?;
        let hops = if header.src.is_ipv4() { 8 } else { 7 };
        all[hops] = packet[hops];
        if header.src.is_ipv4() {
            crate::packet::sum_v4_header(&mut all);
        }
        all.extend(begun.payload);
        Some(all)
    }
}

/// `None`: it is no fragment, or one with headers that this host's kernel does not write.
fn place(packet: &[u8]) -> Option<Place> {
    let word = |at: usize| packet.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
    match packet.first()? >> 4 {
        4 => {
            let field = word(6)?;
            Some(Place {
                ident: word(4)?.into(),
                offset: usize::from(field & 0x1fff) * 8,
                more: field & 0x2000 != 0,
                protocol: *packet.get(9)?,
                at: usize::from(packet[0] & 15) * 4,
            })
        }
        _ => {
            let at = ip::IPV6_HEADER;
            if *packet.get(6)? != IPV6_FRAGMENT {
                return None;
            }
            let field = word(at + 2)?;
            Some(Place {
                ident: u32::from(word(at + 4)?) << 16 | u32::from(word(at + 6)?),
                offset: usize::from(field & 0xfff8),
                more: field & 1 != 0,
                protocol: *packet.get(at)?,
                at: at + IPV6_FRAGMENT_HEADER,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fragments of a packet of UDP with this payload, after each `size` bytes.
    fn cut(v6: bool, ident: u16, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
        let [src, dst] = if v6 { ["2001:db8::1", "2001:db8::2"] } else { ["192.0.2.1", "192.0.2.2"] };
        let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
        let count = payload.len().div_ceil(size);
        let one = |(i, part): (usize, &[u8])| {
            let more = u16::from(i + 1 < count);
            let offset = (i * size) as u16;
            let mut packet = vec![0; ip::ip_header_len(&src)];
            let (protocol, extra) = if v6 { (IPV6_FRAGMENT, 8) } else { (17, 0) };
            ip::emit_ip_header_for(&mut packet, (src, dst), protocol, part.len() + extra, 0, ident).unwrap();
            if v6 {
                packet.extend([17, 0]);
                packet.extend((offset | more).to_be_bytes());
                packet.extend([0, 0]);
                packet.extend(ident.to_be_bytes());
                packet[7] = 9;
            } else {
                packet[6..8].copy_from_slice(&((offset / 8) | (more << 13)).to_be_bytes());
                packet[8] = 9;
                crate::packet::sum_v4_header(&mut packet);
            }
            packet.extend(part);
            packet
        };
        payload.chunks(size).enumerate().map(one).collect()
    }

    fn add(fragments: &mut Fragments, packet: &[u8]) -> Option<Vec<u8>> {
        let header = IpHeader::parse(packet).unwrap();
        assert!(header.fragment);
        fragments.add(&header, packet)
    }

    #[test]
    fn parts_in_order_become_whole() {
        let payload: Vec<u8> = (0..4000).map(|i| (i % 251) as u8).collect();
        for v6 in [false, true] {
            let mut fragments = Fragments::default();
            // Two at once.
            let (one, other) = (cut(v6, 1, &payload, 1480), cut(v6, 2, &payload[..3000], 1480));
            for (a, b) in one.iter().zip(&other).take(2) {
                assert!(add(&mut fragments, a).is_none() && add(&mut fragments, b).is_none());
            }
            let whole = add(&mut fragments, &one[2]).expect("it is whole");
            let header = IpHeader::parse(&whole).unwrap();
            assert!(!header.fragment && header.protocol == 17 && header.payload(&whole) == payload);
            assert_eq!(whole[if v6 { 7 } else { 8 }], 9, "hops");
            let whole = add(&mut fragments, &other[2]).expect("it is whole");
            assert!(whole.ends_with(&payload[..3000]) && fragments.begun.is_empty());
        }
    }

    #[test]
    fn what_is_missing_makes_nothing_whole_and_is_bounded() {
        let payload = vec![7; 4000];
        for v6 in [false, true] {
            let mut fragments = Fragments::default();
            let parts = cut(v6, 1, &payload, 1480);
            assert!(add(&mut fragments, &parts[0]).is_none());
            assert!(add(&mut fragments, &parts[2]).is_none(), "the second is missing");
            assert!(add(&mut fragments, &parts[1]).is_none(), "the first was dropped");
            for ident in 0..100 {
                assert!(add(&mut fragments, &cut(v6, ident, &payload, 1480)[0]).is_none());
            }
            assert_eq!(fragments.begun.len(), MOST);
            // Longer than any packet.
            let long = vec![7; 80_000];
            assert!(cut(v6, 7, &long[..65_528], 1480).iter().all(|part| add(&mut fragments, part).is_none()));
        }
    }
}

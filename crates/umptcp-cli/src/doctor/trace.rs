//! Whether something on the way rewrites sequence numbers.
//!
//! Neither end sees it: what rewrites them puts them right in the other direction. Routers see it. A SYN whose time to
//! live is over at the n-th router comes back in an ICMP error, which quotes the first eight bytes of the TCP header
//! at least: the ports and the sequence number (RFC 792; RFC 4443 section 3.3).

use super::Finding;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime};
use umptcp::PathInfo;
use umptcp_stack_core::wire::tcp::{TcpFlags, TcpOptions, TcpRepr, complete_checksum};
use umptcp_types::SeqNumber;

/// Routers that are asked.
const HOPS: u8 = 16;

/// How many at once, so that a server that is near sees few of the SYNs.
const AT_ONCE: u8 = 4;

/// How long a router has to answer.
const PATIENCE: Duration = Duration::from_millis(600);

/// How long to wait between two looks at the server's answers.
const LOOK: Duration = Duration::from_millis(20);

/// The first source port; the n-th router is asked from the n-th after it.
const PORT: u16 = 33_434;

/// A SYN without options.
const LENGTH: usize = 20;

/// What a router has quoted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Quote {
    hop: u8,
    router: IpAddr,
    sequence: u32,
}

/// What came back from a path.
#[derive(Default, Debug)]
struct Trace {
    quotes: Vec<Quote>,
    /// The server has answered.
    arrived: bool,
}

/// What the way of a path to the server does to sequence numbers; `None` where there is nothing to tell.
pub(super) fn examine(path: &PathInfo, remotes: &[SocketAddr]) -> Option<Finding> {
    let (server, source) = remotes.iter().find_map(|remote| {
        let own = path.public_addresses.iter().find(|own| own.is_ipv4() == remote.is_ipv4())?;
        Some((*remote, *own))
    })?;
    // A path inside UDP has the NIC's name and a word.
    let device = path.name.split('/').next().unwrap_or(&path.name);
    let sequence =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |time| time.subsec_nanos() | 1);
    let unknown = |why: String| {
        Some(Finding::note(
            &path.name,
            format!("whether sequence numbers are rewritten cannot be told: {why}"),
        ))
    };
    match follow(device, source, server, sequence) {
        Ok(trace) => match describe(&trace, sequence) {
            Ok(finding) => finding.map(|text| Finding::ok(&path.name, text)),
            Err(text) => Some(Finding::note(&path.name, text)),
        },
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            unknown("that needs the capability CAP_NET_RAW".to_owned())
        }
        Err(error) => unknown(error.to_string()),
    }
}

/// Text for what is as it should be, if there is something to say, or for what is not.
fn describe(trace: &Trace, sequence: u32) -> Result<Option<String>, String> {
    if let Some(changed) = trace.quotes.iter().filter(|q| q.sequence != sequence).min_by_key(|q| q.hop) {
        return Err(format!(
            "something before router {} ({}) rewrites sequence numbers; MPTCP does not mind (its mappings are relative, \
             RFC 8684 section 3.3.1), but selective acknowledgements may be useless",
            changed.hop, changed.router
        ));
    }
    match trace.quotes.iter().max_by_key(|q| q.hop) {
        Some(last) => Ok(Some(format!(
            "sequence numbers are as they were sent at router {} ({})",
            last.hop, last.router
        ))),
        // The server is a neighbour, or no router says anything.
        None if trace.arrived => Ok(None),
        None => Err("whether sequence numbers are rewritten cannot be told: no router and no server answers"
            .to_owned()),
    }
}

/// Sends the SYNs, some at a time, and collects what comes back.
fn follow(device: &str, source: IpAddr, server: SocketAddr, sequence: u32) -> io::Result<Trace> {
    let (domain, icmp) = match server {
        SocketAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        SocketAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let raw = |protocol| {
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        socket.bind_device(Some(device.as_bytes()))?;
        Ok::<_, io::Error>(socket)
    };
    let tcp = raw(Protocol::TCP)?;
    tcp.bind(&SocketAddr::new(source, 0).into())?;
    // Only what the server sends is seen.
    tcp.connect(&SocketAddr::new(server.ip(), 0).into())?;
    tcp.set_nonblocking(true)?;
    // The standard library has no raw sockets; all that is used of this one is to receive.
    let icmp = UdpSocket::from(OwnedFd::from(raw(icmp)?));
    icmp.set_read_timeout(Some(LOOK))?;
    let answers = UdpSocket::from(OwnedFd::from(tcp.try_clone()?));

    let mut trace = Trace::default();
    let mut buffer = [0; 2048];
    for first in (1..=HOPS).step_by(usize::from(AT_ONCE)) {
        let wave = first..first + AT_ONCE;
        for hop in wave.clone() {
            if server.is_ipv4() {
                tcp.set_ttl_v4(u32::from(hop))?;
            } else {
                tcp.set_unicast_hops_v6(u32::from(hop))?;
            }
            tcp.send(&syn(source, server, PORT + u16::from(hop), sequence))?;
        }
        let end = Instant::now() + PATIENCE;
        while !trace.arrived && Instant::now() < end {
            if let Ok((length, router)) = icmp.recv_from(&mut buffer)
                && let Some(quote) = quote(&buffer[..length], router.ip(), server)
                && trace.quotes.iter().all(|q| q.hop != quote.hop)
            {
                trace.quotes.push(quote);
            }
            while let Ok((length, _)) = answers.recv_from(&mut buffer) {
                trace.arrived |= is_answer(&buffer[..length], server);
            }
            if wave.clone().all(|hop| trace.quotes.iter().any(|q| q.hop == hop)) {
                break;
            }
        }
        if trace.arrived {
            break;
        }
    }
    Ok(trace)
}

fn syn(source: IpAddr, server: SocketAddr, port: u16, sequence: u32) -> [u8; LENGTH] {
    let header = TcpRepr {
        src_port: port,
        dst_port: server.port(),
        seq: SeqNumber(sequence),
        ack: SeqNumber(0),
        flags: TcpFlags { syn: true, ..TcpFlags::default() },
        window: u16::MAX,
        urgent: 0,
        options: TcpOptions::default(),
    };
    let mut segment = [0; LENGTH];
    header.emit(&mut segment);
    complete_checksum(&mut segment, source, server.ip(), 0, 0);
    segment
}

/// What an ICMP error about one of our SYNs quotes; `None` for every other message.
fn quote(message: &[u8], router: IpAddr, server: SocketAddr) -> Option<Quote> {
    // IPv4 raw sockets receive the IP header, IPv6 ones do not.
    let (icmp, exceeded) = match server {
        SocketAddr::V4(_) => (after_ipv4(message)?, 11),
        SocketAddr::V6(_) => (message, 3),
    };
    if icmp.first_chunk::<2>()? != &[exceeded, 0] {
        return None;
    }
    let packet = icmp.get(8..)?;
    let tcp = match server.ip() {
        IpAddr::V4(to) => {
            let fits = packet.get(9) == Some(&6) && packet.get(16..20)? == to.octets();
            fits.then(|| after_ipv4(packet)).flatten()?
        }
        IpAddr::V6(to) => {
            let fits = packet.get(6) == Some(&6) && packet.get(24..40)? == to.octets();
            fits.then(|| packet.get(40..)).flatten()?
        }
    };
    let [a, b, c, d, sequence @ ..] = *tcp.first_chunk::<8>()?;
    let hop = u16::from_be_bytes([a, b]).checked_sub(PORT)?;
    let hop = u8::try_from(hop).ok().filter(|hop| (1..=HOPS).contains(hop))?;
    (u16::from_be_bytes([c, d]) == server.port()).then(|| Quote {
        hop,
        router,
        sequence: u32::from_be_bytes(sequence),
    })
}

/// Whether the server has sent this segment for one of our SYNs.
fn is_answer(message: &[u8], server: SocketAddr) -> bool {
    let segment = if server.is_ipv4() { after_ipv4(message) } else { Some(message) };
    let Some([a, b, c, d]) = segment.and_then(|segment| segment.first_chunk::<4>()) else { return false };
    let ours = PORT + 1..=PORT + u16::from(HOPS);
    u16::from_be_bytes([*a, *b]) == server.port() && ours.contains(&u16::from_be_bytes([*c, *d]))
}

fn after_ipv4(packet: &[u8]) -> Option<&[u8]> {
    let first = *packet.first()?;
    (first >> 4 == 4).then(|| packet.get(usize::from(first & 0xf) * 4..)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use umptcp_stack_core::wire::checksum;

    const ROUTER: &str = "10.9.9.9";

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn packet(server: SocketAddr, segment: &[u8]) -> Vec<u8> {
        match server.ip() {
            IpAddr::V4(to) => {
                let mut packet = vec![0; 20];
                packet[0] = 0x45;
                packet[9] = 6;
                packet[16..20].copy_from_slice(&to.octets());
                packet.extend(segment);
                packet
            }
            IpAddr::V6(to) => {
                let mut packet = vec![0; 40];
                packet[0] = 0x60;
                packet[6] = 6;
                packet[24..40].copy_from_slice(&to.octets());
                packet.extend(segment);
                packet
            }
        }
    }

    /// An error of a router that quotes eight bytes of TCP, as a raw socket receives it.
    fn exceeded(server: SocketAddr, segment: &[u8]) -> Vec<u8> {
        let (header, icmp) = if server.is_ipv4() { (20, 11) } else { (0, 3) };
        let mut message = vec![0; header];
        if header > 0 {
            message[0] = 0x45;
        }
        message.extend([icmp, 0, 0, 0, 0, 0, 0, 0]);
        message.extend(packet(server, &segment[..8]));
        message
    }

    #[test]
    fn a_router_quotes_what_came_to_it() {
        for (source, server) in [("192.0.2.1", "198.51.100.1:80"), ("2001:db8::1", "[2001:db8:1::1]:80")] {
            let server: SocketAddr = server.parse().expect("an address");
            let segment = syn(ip(source), server, PORT + 3, 0x1234_5678);
            let sum = checksum::pseudo_header(ip(source), server.ip(), 6, LENGTH as u32);
            assert_eq!(checksum::fold(checksum::sum(&segment, sum)), 0xffff, "the checksum is right");
            let message = exceeded(server, &segment);
            let expected = Quote { hop: 3, router: ip(ROUTER), sequence: 0x1234_5678 };
            assert_eq!(quote(&message, ip(ROUTER), server), Some(expected));
            // Other servers, other ports, other messages, and whatever is cut short.
            let other = SocketAddr::new(server.ip(), 81);
            assert_eq!(quote(&message, ip(ROUTER), other), None);
            let foreign = exceeded(server, &syn(ip(source), server, PORT + 17, 1));
            assert_eq!(quote(&foreign, ip(ROUTER), server), None);
            for length in 0..message.len() {
                assert_eq!(quote(&message[..length], ip(ROUTER), server), None);
            }
        }
    }

    #[test]
    fn the_first_router_that_sees_other_numbers_is_named() {
        let quote = |hop, sequence| Quote { hop, router: ip(&format!("10.0.0.{hop}")), sequence };
        let trace = Trace { quotes: vec![quote(4, 9), quote(1, 7), quote(2, 9)], arrived: true };
        assert!(describe(&trace, 7).is_err_and(|text| text.contains("router 2 (10.0.0.2)")));
        let trace = Trace { quotes: vec![quote(1, 7), quote(2, 7)], arrived: true };
        assert!(describe(&trace, 7).is_ok_and(|text| text.is_some_and(|t| t.contains("router 2"))));
        assert_eq!(describe(&Trace { quotes: Vec::new(), arrived: true }, 7), Ok(None));
        assert!(describe(&Trace::default(), 7).is_err());
    }
}

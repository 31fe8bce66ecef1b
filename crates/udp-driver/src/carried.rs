//! What programs send beside TCP, by sockets: UDP, and echo requests of ICMP and ICMPv6.
//!
//! Each port that a program sends from has a socket, bound to the NIC as those of segments are. It takes what
//! anybody sends to it, as a port of the host's own would. What ICMP says of its datagrams, as to a traceroute,
//! is passed on. Other protocols have no such socket, and are dropped.

use crate::errors;
use crate::fragments::Fragments;
use crate::packet;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, recvmsg, sendmsg};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::time::{Duration, Instant};
use umptcp_stack_core::wire::checksum;
use umptcp_stack_core::wire::icmp;
use umptcp_stack_core::wire::ip::{self, IpHeader, PROTOCOL_ICMP, PROTOCOL_ICMPV6};

const PROTOCOL_UDP: u8 = 17;
const UDP_HEADER: usize = 8;
/// Type, code, checksum, identifier and sequence number of an echo.
const ECHO_HEADER: usize = 8;
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY: u8 = 0;
const ECHO_REPLY_V6: u8 = 129;

/// Most sockets at once; for one more, the one that has been idle longest goes.
const MOST: usize = 256;

/// How long a socket may be idle (RFC 4787 §4.3 asks translators for two minutes and more).
const IDLE: Duration = Duration::from_secs(120);

/// Answers to packets that could not be sent, waiting to be read.
const ANSWERS: usize = 64;

/// Longest payload of a datagram or an echo that is taken.
const ROOM: usize = 65_507;

/// What of a packet an ICMP error quotes at most, in bytes (RFC 1812 §4.3.2.3).
const QUOTED: usize = 512;

/// Attempts to send what may have failed for an error of an earlier datagram.
const ATTEMPTS: usize = 3;

/// What a socket stands for: a protocol, and the port that a program sends from, or the identifier of its
/// echoes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Key {
    protocol: u8,
    near: SocketAddr,
}

#[derive(Debug)]
struct Flow {
    key: Key,
    socket: Socket,
    used: Instant,
}

/// The sockets of a path for what is not TCP.
#[derive(Debug)]
pub(crate) struct Carried {
    device: String,
    epoll: Epoll,
    flows: HashMap<u64, Flow>,
    tokens: HashMap<Key, u64>,
    last_token: u64,
    /// Those with something to read.
    ready: VecDeque<u64>,
    answers: VecDeque<Vec<u8>>,
    room: Vec<u8>,
    fragments: Fragments,
    swept: Instant,
    /// This host does not let this user send echo requests; that has been said.
    no_echo: bool,
}

impl Carried {
    pub(crate) fn new(device: &str) -> io::Result<Carried> {
        Ok(Carried {
            device: device.to_owned(),
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            flows: HashMap::new(),
            tokens: HashMap::new(),
            last_token: 0,
            ready: VecDeque::new(),
            answers: VecDeque::new(),
            room: vec![0; ROOM],
            fragments: Fragments::default(),
            swept: Instant::now(),
            no_echo: false,
        })
    }

    /// Readable when a socket has something.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    /// The NIC is another one, or has other addresses: everything begins anew.
    pub(crate) fn clear(&mut self) {
        self.flows.clear();
        self.tokens.clear();
        self.ready.clear();
    }

    /// Something waits to be read that [`fd`](Self::fd) does not tell of.
    pub(crate) fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Sends an IP packet, whose source is an address of the NIC, if it is of a kind that can be sent. `mtu`
    /// is the NIC's.
    pub(crate) fn send(&mut self, packet: &[u8], mtu: u32) {
        let Ok(header) = IpHeader::parse(packet) else { return };
        if !header.fragment {
            return self.send_whole(&header, packet, mtu, false);
        }
        let Some(packet) = self.fragments.add(&header, packet) else { return };
        if let Ok(header) = IpHeader::parse(&packet) {
            self.send_whole(&header, &packet, mtu, true);
        }
    }

    /// Sends a whole packet, which the system may cut into `fragments`.
    fn send_whole(&mut self, header: &IpHeader, packet: &[u8], mtu: u32, fragments: bool) {
        let Some((key, remote, data)) = parse(header, packet) else { return };
        // One more than the program's: that of a host which would forward it.
        let hops = i32::from(packet[if key.near.is_ipv4() { 8 } else { 7 }]).saturating_sub(1).max(1);
        let token = match self.socket(key) {
            Ok(token) => token,
            Err(error) => return self.not_opened(key, &error),
        };
        if fragments && let Some(flow) = self.flows.get(&token) {
            allow_fragments(flow, true);
        }
        let mut sent = self.attempt(token, remote, data, hops);
        for _ in 1..ATTEMPTS {
            // It may be the error of an earlier datagram, which is in the queue.
            match sent {
                Err(error) if error != Errno::EAGAIN && error != Errno::EMSGSIZE => self.read_errors(token),
                _ => break,
            }
            sent = self.attempt(token, remote, data, hops);
        }
        if fragments && let Some(flow) = self.flows.get(&token) {
            allow_fragments(flow, false);
        }
        match sent {
            Ok(()) => {}
            Err(Errno::EMSGSIZE) => {
                let quoted = &packet[..packet.len().min(header.total_len).min(QUOTED)];
                self.answer(error_packet(too_big(key.near.ip()), mtu, quoted, key.near.ip(), header.dst));
            }
            Err(error) => {
                let answer = errors::refused(error as i32).and_then(|why| why.answer(header, packet));
                self.answer(answer);
            }
        }
    }

    fn attempt(&self, token: u64, remote: SocketAddr, data: &[u8], hops: i32) -> nix::Result<()> {
        let Some(flow) = self.flows.get(&token) else { return Ok(()) };
        let control = match remote {
            SocketAddr::V4(_) => ControlMessage::Ipv4Ttl(&hops),
            SocketAddr::V6(_) => ControlMessage::Ipv6HopLimit(&hops),
        };
        let (slices, to) = ([IoSlice::new(data)], SockaddrStorage::from(remote));
        sendmsg(flow.socket.as_raw_fd(), &slices, &[control], MsgFlags::MSG_DONTWAIT, Some(&to)).map(drop)
    }

    /// The next IP packet for programs.
    pub(crate) fn receive(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return Some(answer);
            }
            if self.ready.is_empty() && !self.find_ready() {
                return None;
            }
            let token = *self.ready.front()?;
            let Some(flow) = self.flows.get(&token) else {
                self.ready.pop_front();
                continue;
            };
            match receive_from(flow, &mut self.room) {
                Ok(Some(packet)) => {
                    // Each in turn.
                    self.ready.rotate_left(1);
                    if let Some(flow) = self.flows.get_mut(&token) {
                        flow.used = Instant::now();
                    }
                    return Some(packet);
                }
                // Of no use to anybody.
                Ok(None) => {}
                Err(error) => {
                    self.read_errors(token);
                    if error.kind() == ErrorKind::WouldBlock {
                        self.ready.pop_front();
                    }
                }
            }
        }
    }

    /// Notes which sockets have something. False: none.
    fn find_ready(&mut self) -> bool {
        let mut events = [EpollEvent::empty(); 64];
        let count = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        self.ready.extend(events[..count].iter().map(EpollEvent::data));
        count > 0
    }

    fn answer(&mut self, packet: Option<Vec<u8>>) {
        if self.answers.len() < ANSWERS {
            self.answers.extend(packet);
        }
    }

    /// The socket for what a program sends from.
    fn socket(&mut self, key: Key) -> io::Result<u64> {
        let now = Instant::now();
        if let Some(token) = self.tokens.get(&key) {
            if let Some(flow) = self.flows.get_mut(token) {
                flow.used = now;
            }
            return Ok(*token);
        }
        self.make_room(now);
        let socket = self.open(key)?;
        self.last_token += 1;
        let token = self.last_token;
        self.epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
        self.flows.insert(token, Flow { key, socket, used: now });
        self.tokens.insert(key, token);
        Ok(token)
    }

    /// Closes those that have been idle, and the one that has been so longest when there are too many.
    fn make_room(&mut self, now: Instant) {
        if now - self.swept >= IDLE / 4 {
            self.swept = now;
            self.flows.retain(|_, flow| now - flow.used < IDLE);
            let flows = &self.flows;
            self.tokens.retain(|_, token| flows.contains_key(token));
        }
        if self.flows.len() >= MOST
            && let Some(oldest) = self.flows.iter().min_by_key(|(_, flow)| flow.used).map(|(token, _)| *token)
            && let Some(flow) = self.flows.remove(&oldest)
        {
            self.tokens.remove(&flow.key);
        }
    }

    fn open(&self, key: Key) -> io::Result<Socket> {
        let v6 = key.near.is_ipv6();
        let protocol = match key.protocol {
            PROTOCOL_ICMP => Some(Protocol::ICMPV4),
            PROTOCOL_ICMPV6 => Some(Protocol::ICMPV6),
            _ => None,
        };
        let socket = Socket::new(Domain::for_address(key.near), Type::DGRAM, protocol)?;
        socket.set_nonblocking(true)?;
        if v6 {
            socket.set_only_v6(true)?;
        }
        socket.bind_device(Some(self.device.as_bytes()))?;
        match socket.bind(&key.near.into()) {
            // A program of this host has the port, or only root may have it.
            Err(e) if matches!(e.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied) => {
                socket.bind(&SocketAddr::new(key.near.ip(), 0).into())?;
            }
            other => other?,
        }
        errors::enable(&socket, v6)?;
        Ok(socket)
    }

    fn not_opened(&mut self, key: Key, error: &io::Error) {
        if key.protocol == PROTOCOL_UDP || error.kind() != ErrorKind::PermissionDenied {
            return tracing::debug!(near = %key.near, %error, "a packet of a program is dropped");
        }
        if !std::mem::replace(&mut self.no_echo, true) {
            tracing::warn!("ping does not work: this user is not in net.ipv4.ping_group_range");
        }
    }

    /// Passes on what ICMP says of the datagrams of a socket.
    fn read_errors(&mut self, token: u64) {
        let Some(flow) = self.flows.get(&token) else { return };
        let mut found = Vec::new();
        let mut body = [0; QUOTED];
        while let Some(error) = errors::read(&flow.socket, &mut body) {
            found.push(of_icmp(flow.key, &error, &body[..error.quoted]));
        }
        found.into_iter().for_each(|packet| self.answer(packet));
    }
}

/// Whether the system may cut what a socket sends. Otherwise it is sent whole or not at all, and programs learn
/// what fits the path.
fn allow_fragments(flow: &Flow, allowed: bool) {
    if let Err(error) = errors::set_whole_only(&flow.socket, flow.key.near.is_ipv6(), !allowed) {
        tracing::debug!(%error, "fragments stay as they were");
    }
}

/// Whether this user may send echo requests by sockets.
pub fn may_send_echoes() -> bool {
    Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::ICMPV4)).is_ok()
}

fn word(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
}

/// By which socket a packet goes, where to, and what of it is handed to the socket. `None`: by none.
fn parse<'a>(header: &IpHeader, packet: &'a [u8]) -> Option<(Key, SocketAddr, &'a [u8])> {
    let body = packet.get(header.header_len..header.total_len)?;
    if header.fragment || body.len() < UDP_HEADER {
        return None;
    }
    let key = |port| Key { protocol: header.protocol, near: SocketAddr::new(header.src, port) };
    match (header.protocol, body[0]) {
        (PROTOCOL_UDP, _) => {
            let data = body.get(UDP_HEADER..usize::from(word(body, 4)))?;
            Some((key(word(body, 0)), SocketAddr::new(header.dst, word(body, 2)), data))
        }
        (PROTOCOL_ICMP, ECHO_REQUEST) | (PROTOCOL_ICMPV6, ECHO_REQUEST_V6) => {
            Some((key(word(body, 4)), SocketAddr::new(header.dst, 0), body))
        }
        _ => None,
    }
}

/// Takes one datagram. `None`: it is no answer to a program.
fn receive_from(flow: &Flow, room: &mut [u8]) -> io::Result<Option<Vec<u8>>> {
    let (len, from) = {
        let mut slices = [IoSliceMut::new(room)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let message = recvmsg::<SockaddrStorage>(flow.socket.as_raw_fd(), &mut slices, None, flags)?;
        (message.bytes, message.address.as_ref().and_then(errors::socket_address))
    };
    Ok(from.and_then(|from| of_datagram(flow.key, from, &room[..len])))
}

/// The packet that a program gets for what its socket has received.
fn of_datagram(key: Key, from: SocketAddr, data: &[u8]) -> Option<Vec<u8>> {
    let body = match key.protocol {
        PROTOCOL_UDP => {
            let mut body = udp_header(from.port(), key.near.port(), data.len())?.to_vec();
            body.extend(data);
            let length = body.len() as u32;
            let initial = checksum::pseudo_header(from.ip(), key.near.ip(), PROTOCOL_UDP, length);
            // RFC 768: 0 says that there is none.
            let sum = !checksum::fold(checksum::sum(&body, initial));
            body[6..8].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
            body
        }
        protocol => {
            let reply = if protocol == PROTOCOL_ICMP { ECHO_REPLY } else { ECHO_REPLY_V6 };
            if data.len() < ECHO_HEADER || data[0] != reply {
                return None;
            }
            let mut body = data.to_vec();
            // The socket's may be another one.
            body[4..6].copy_from_slice(&key.near.port().to_be_bytes());
            body[2..4].fill(0);
            let length = body.len() as u32;
            let initial = match key.near.ip() {
                IpAddr::V4(_) => 0,
                near => checksum::pseudo_header(from.ip(), near, protocol, length),
            };
            let sum = !checksum::fold(checksum::sum(&body, initial));
            body[2..4].copy_from_slice(&sum.to_be_bytes());
            body
        }
    };
    let mut all = vec![0; ip::ip_header_len(&from.ip())];
    ip::emit_ip_header_for(&mut all, (from.ip(), key.near.ip()), key.protocol, body.len(), 0, 0)?;
    // Whoever carries it gives back one hop, as if a host had forwarded it.
    all[if from.is_ipv4() { 8 } else { 7 }] -= 1;
    if from.is_ipv4() {
        packet::sum_v4_header(&mut all);
    }
    all.extend(body);
    Some(all)
}

fn udp_header(source: u16, destination: u16, data: usize) -> Option<[u8; UDP_HEADER]> {
    let [a, b] = source.to_be_bytes();
    let [c, d] = destination.to_be_bytes();
    let [e, f] = u16::try_from(UDP_HEADER + data).ok()?.to_be_bytes();
    Some([a, b, c, d, e, f, 0, 0])
}

/// The packet that a program gets for an ICMP error about what it has sent, of which `quoted` is known.
fn of_icmp(key: Key, error: &errors::Reported, quoted: &[u8]) -> Option<Vec<u8>> {
    let near = key.near.ip();
    let remote = error.remote?;
    let upper = match key.protocol {
        PROTOCOL_UDP => {
            let mut upper = udp_header(key.near.port(), remote.port(), quoted.len())?.to_vec();
            upper.extend(quoted);
            upper
        }
        _ => {
            let mut upper = quoted.to_vec();
            upper.get_mut(4..6)?.copy_from_slice(&key.near.port().to_be_bytes());
            upper
        }
    };
    let mut packet = vec![0; ip::ip_header_len(&near)];
    ip::emit_ip_header_for(&mut packet, (near, remote.ip()), key.protocol, upper.len(), 0, 0)?;
    packet.extend(upper);
    let numbers = [error.icmp_type, error.code];
    let parameter = if numbers == too_big(near) || numbers[0] == 2 { error.info } else { 0 };
    error_packet(numbers, parameter, &packet, near, error.offender.unwrap_or(remote.ip()))
}

/// Type and code that say that a packet was too big for a link.
fn too_big(of: IpAddr) -> [u8; 2] {
    if of.is_ipv4() { [3, 4] } else { [2, 0] }
}

fn error_packet(
    numbers: [u8; 2],
    parameter: u32,
    quoted: &[u8],
    near: IpAddr,
    from: IpAddr,
) -> Option<Vec<u8>> {
    packet::wrap(near, from, &icmp::error_message(numbers, parameter, quoted, near, from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    fn near(v6: bool, port: u16) -> SocketAddr {
        let address: IpAddr = if v6 { "::1" } else { "127.0.0.1" }.parse().unwrap();
        SocketAddr::new(address, port)
    }

    /// Sockets over loopback; `None` where there is none.
    fn carried(v6: bool) -> Option<Carried> {
        UdpSocket::bind(near(v6, 0)).ok()?;
        Some(Carried::new("lo").unwrap())
    }

    fn packet(near: SocketAddr, remote: SocketAddr, protocol: u8, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; ip::ip_header_len(&near.ip())];
        ip::emit_ip_header_for(&mut packet, (near.ip(), remote.ip()), protocol, body.len(), 0, 0).unwrap();
        packet.extend(body);
        packet
    }

    fn datagram(near: SocketAddr, remote: SocketAddr, data: &[u8]) -> Vec<u8> {
        let header = udp_header(near.port(), remote.port(), data.len()).unwrap();
        packet(near, remote, PROTOCOL_UDP, &[&header, data].concat())
    }

    /// The next packet; waits for it.
    fn next(carried: &mut Carried) -> Option<Vec<u8>> {
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            if let Some(packet) = carried.receive() {
                return Some(packet);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    }

    #[test]
    fn datagrams_go_out_and_answers_come_in() {
        for v6 in [false, true] {
            let Some(mut carried) = carried(v6) else { continue };
            let server = UdpSocket::bind(near(v6, 0)).unwrap();
            let (local, remote) = (near(v6, 40_011), server.local_addr().unwrap());
            carried.send(&datagram(local, remote, b"question"), 65_536);
            let mut room = [0; 100];
            let (len, from) = server.recv_from(&mut room).unwrap();
            assert_eq!((&room[..len], from), (&b"question"[..], local));
            // From another port of the server's, too.
            let other = UdpSocket::bind(near(v6, 0)).unwrap();
            for socket in [&server, &other] {
                socket.send_to(b"answer!", from).unwrap();
                let answer = next(&mut carried).expect("it comes");
                let header = IpHeader::parse(&answer).unwrap();
                let (key, remote, data) = parse(&header, &answer).unwrap();
                assert_eq!((key.near, remote, data), (socket.local_addr().unwrap(), local, &b"answer!"[..]));
                let body = header.payload(&answer);
                let initial =
                    checksum::pseudo_header(header.src, header.dst, PROTOCOL_UDP, body.len() as u32);
                assert_eq!(checksum::fold(checksum::sum(body, initial)), 0xffff, "the checksum is right");
            }
            assert!(carried.receive().is_none());
        }
    }

    #[test]
    fn a_port_that_is_taken_is_stood_for_by_another() {
        let Some(mut carried) = carried(false) else { return };
        let server = UdpSocket::bind(near(false, 0)).unwrap();
        let taken = UdpSocket::bind(near(false, 0)).unwrap();
        let (local, remote) = (taken.local_addr().unwrap(), server.local_addr().unwrap());
        carried.send(&datagram(local, remote, b"q"), 65_536);
        let (_, from) = server.recv_from(&mut [0; 9]).unwrap();
        assert_ne!(from, local);
        server.send_to(b"a", from).unwrap();
        let answer = next(&mut carried).expect("it comes");
        assert_eq!(word(&answer, 22), local.port());
    }

    #[test]
    fn where_nobody_has_the_port_icmp_says_so_and_quotes_the_program() {
        for v6 in [false, true] {
            let Some(mut carried) = carried(v6) else { continue };
            let closed = UdpSocket::bind(near(v6, 0)).unwrap().local_addr().unwrap();
            let local = near(v6, 40_012);
            carried.send(&datagram(local, closed, b"hello"), 65_536);
            let answer = next(&mut carried).expect("it comes");
            let header = IpHeader::parse(&answer).unwrap();
            let (numbers, protocol) = if v6 { ([1, 4], PROTOCOL_ICMPV6) } else { ([3, 3], PROTOCOL_ICMP) };
            let message = header.payload(&answer);
            assert_eq!((header.protocol, &message[..2]), (protocol, &numbers[..]));
            let quoted = &message[8 + ip::ip_header_len(&local.ip())..];
            assert_eq!((word(quoted, 0), word(quoted, 2)), (local.port(), closed.port()));
            assert_eq!(&quoted[8..], b"hello");
        }
    }

    #[test]
    fn a_packet_that_is_too_big_is_answered_with_the_mtu() {
        for v6 in [false, true] {
            let (local, remote) = (near(v6, 40_013).ip(), near(v6, 9).ip());
            let quoted = packet(near(v6, 40_013), near(v6, 9), PROTOCOL_UDP, &[0; 8]);
            let answer = error_packet(too_big(local), 1300, &quoted, local, remote).unwrap();
            let message = IpHeader::parse(&answer).unwrap().payload(&answer).to_vec();
            assert_eq!((&message[..2], word(&message, 6)), (&too_big(local)[..], 1300));
            assert_eq!(message[8..], quoted);
        }
    }

    #[test]
    fn echoes_are_answered_where_the_user_may_send_them() {
        for v6 in [false, true] {
            let (Some(mut carried), true) = (carried(v6), may_send_echoes()) else { continue };
            let request = if v6 { ECHO_REQUEST_V6 } else { ECHO_REQUEST };
            let protocol = if v6 { PROTOCOL_ICMPV6 } else { PROTOCOL_ICMP };
            let echo = [&[request, 0, 0, 0, 0x12, 0x34, 0, 7][..], b"payload"].concat();
            carried.send(&packet(near(v6, 0), near(v6, 0), protocol, &echo), 65_536);
            let answer = next(&mut carried).expect("it comes");
            let message = IpHeader::parse(&answer).unwrap().payload(&answer).to_vec();
            let reply = if v6 { ECHO_REPLY_V6 } else { ECHO_REPLY };
            assert_eq!((message[0], &message[4..]), (reply, &echo[4..]));
        }
    }

    #[test]
    fn sockets_are_bounded_and_nothing_else_passes() {
        let Some(mut carried) = carried(false) else { return };
        let server = UdpSocket::bind(near(false, 0)).unwrap();
        let remote = server.local_addr().unwrap();
        for port in 0..MOST as u16 + 50 {
            carried.send(&datagram(near(false, 41_000 + port), remote, b"x"), 65_536);
        }
        assert_eq!((carried.flows.len(), carried.tokens.len()), (MOST, MOST));
        // The oldest went.
        assert!(!carried.tokens.keys().any(|key| key.near.port() == 41_000));
        carried.clear();
        for (protocol, body) in [(132, &[0; 20][..]), (PROTOCOL_ICMP, &[13; 20]), (PROTOCOL_UDP, &[0; 8])] {
            carried.send(&packet(near(false, 0), remote, protocol, body), 65_536);
        }
        for len in 0..40 {
            carried.send(&datagram(near(false, 1), remote, b"some data")[..len.min(36)], 65_536);
        }
        assert!(carried.flows.is_empty() && carried.receive().is_none());
    }
}

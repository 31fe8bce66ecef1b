//! smoltcp as an independent peer: single-path TCP that somebody else wrote, in both roles, over links with
//! loss.

use bytes::Bytes;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::wire::{HardwareAddress, IpCidr};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use umptcp_netsim::stream::ByteStream;
use umptcp_netsim::{Duration, Instant, Link, LinkQueue, Packet};
use umptcp_stack_core::Stack;
use umptcp_stack_core::config::{ConnectOptions, ConnectionConfig, ListenOptions, StackConfig};
use umptcp_stack_core::device::{ChecksumState, PathConfig};
use umptcp_stack_core::error::FallbackReason;
use umptcp_stack_core::event::Event;
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::stack::{MptcpStatus, Received};
use umptcp_types::{ConnectionId, PathId};

const MTU: usize = 1500;
const PORT: u16 = 80;

/// smoltcp's device: two queues of packets.
#[derive(Default)]
struct Queues {
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

struct Rx(Vec<u8>);
struct Tx<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl Device for Queues {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Rx, Tx<'_>)> {
        let packet = self.incoming.pop_front()?;
        Some((Rx(packet), Tx(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Tx<'_>> {
        Some(Tx(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

/// The peer with its only socket.
struct Peer {
    device: Queues,
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    /// Bytes written and read so far.
    sent: u64,
    received: u64,
}

fn smol(now: Instant) -> smoltcp::time::Instant {
    smoltcp::time::Instant::from_micros(now.as_micros() as i64)
}

impl Peer {
    fn new(address: IpAddr) -> Peer {
        let mut device = Queues::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = 7;
        let mut interface = Interface::new(config, &mut device, smoltcp::time::Instant::ZERO);
        let prefix = if address.is_ipv4() { 24 } else { 64 };
        interface.update_ip_addrs(|a| a.push(IpCidr::new(address.into(), prefix)).unwrap());
        let buffer = || tcp::SocketBuffer::new(vec![0; 128 << 10]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_congestion_control(tcp::CongestionControl::Reno);
        let mut sockets = SocketSet::new(vec![]);
        let socket = sockets.add(socket);
        Peer { device, interface, sockets, socket, sent: 0, received: 0 }
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.socket)
    }
}

/// The two hosts, and the link in each direction: to the peer, and from it.
struct Lab {
    now: Instant,
    stack: Stack,
    connection: Option<ConnectionId>,
    peer: Peer,
    links: [LinkQueue; 2],
    /// What either side is to send: our stream and the peer's.
    plan: [u64; 2],
    streams: [ByteStream; 2],
    sent: u64,
    received: u64,
    ended: bool,
    closed: bool,
}

/// One run.
#[derive(Clone, Copy, Debug)]
struct Case {
    ipv6: bool,
    /// We connect and smoltcp listens.
    connecting: bool,
    loss: f64,
    /// Bytes from us, and from smoltcp.
    bytes: [u64; 2],
}

impl Lab {
    fn new(case: Case) -> Lab {
        let address = |last: u16| -> IpAddr {
            if case.ipv6 {
                IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last])
            } else {
                IpAddr::from([10, 0, 0, last as u8])
            }
        };
        let (ours, theirs) = (address(1), address(2));
        let mut stack = Stack::new(StackConfig::default(), [3; 32]);
        stack.path_added(Instant::ZERO, PathConfig::new("wire", ours));
        let mut peer = Peer::new(theirs);
        let mut connection = None;
        if case.connecting {
            peer.socket().listen(PORT).unwrap();
            let options = ConnectOptions::new(SocketAddr::new(theirs, PORT));
            connection = Some(stack.connect(Instant::ZERO, options).unwrap());
        } else {
            stack.listen(ListenOptions::new(SocketAddr::new(ours, PORT), 4)).unwrap();
            let Peer { interface, sockets, socket, .. } = &mut peer;
            let socket = sockets.get_mut::<tcp::Socket<'_>>(*socket);
            socket.connect(interface.context(), (ours, PORT), 50_000).unwrap();
        }
        let link = Link::mbit(20).delay_ms(10).loss(case.loss);
        Lab {
            now: Instant::ZERO,
            stack,
            connection,
            peer,
            links: [1, 2].map(|n| LinkQueue::new(link.clone(), [n; 32])),
            plan: case.bytes,
            streams: [ByteStream::new(1, 0), ByteStream::new(2, 0)],
            sent: 0,
            received: 0,
            ended: false,
            closed: false,
        }
    }

    /// Our application.
    fn serve_stack(&mut self) {
        let now = self.now;
        while let Some(event) = self.stack.poll_event() {
            match event {
                Event::Incoming { incoming, .. } => {
                    let config = ConnectionConfig::default();
                    self.connection = Some(self.stack.accept(now, incoming, &config).unwrap());
                }
                Event::Closed { error, .. } => {
                    assert_eq!(error, None);
                    self.closed = true;
                }
                _ => {}
            }
        }
        let Some(c) = self.connection.filter(|_| !self.closed) else { return };
        while self.sent < self.plan[0] {
            let n = (self.plan[0] - self.sent).min(16 << 10) as usize;
            let bytes = self.streams[0].bytes(self.sent, n);
            let taken = self.stack.send(now, c, bytes.into()).unwrap();
            self.sent += taken as u64;
            if taken < n {
                break;
            }
        }
        loop {
            match self.stack.receive(now, c, 1 << 20).unwrap() {
                Received::Data(bytes) => {
                    assert_eq!(self.streams[1].first_difference(self.received, &bytes), None);
                    self.received += bytes.len() as u64;
                }
                Received::End => {
                    self.ended = true;
                    break;
                }
                Received::Empty => break,
            }
        }
        if self.sent == self.plan[0] {
            self.stack.shutdown(now, c).unwrap();
        }
    }

    /// smoltcp's application.
    fn serve_peer(&mut self) {
        let Peer { sockets, socket, sent, received, .. } = &mut self.peer;
        let socket = sockets.get_mut::<tcp::Socket<'_>>(*socket);
        while socket.can_recv() {
            let stream = self.streams[0];
            let n = socket
                .recv(|data| {
                    assert_eq!(stream.first_difference(*received, data), None);
                    (data.len(), data.len())
                })
                .unwrap();
            *received += n as u64;
        }
        while socket.can_send() && *sent < self.plan[1] {
            let n = (self.plan[1] - *sent).min(16 << 10) as usize;
            *sent += socket.send_slice(&self.streams[1].bytes(*sent, n)).unwrap() as u64;
        }
        if socket.may_send() && *sent == self.plan[1] {
            socket.close();
        }
    }

    /// Lets both sides and both links do what there is to do now.
    fn settle(&mut self) {
        loop {
            let mut busy = false;
            self.serve_stack();
            while let Some(t) = self.stack.poll_transmit(self.now) {
                busy = true;
                let mut packet = Packet::from_transmit(t);
                packet.complete_checksum();
                self.links[0].enqueue(self.now, packet);
            }
            self.serve_peer();
            let Peer { device, interface, sockets, .. } = &mut self.peer;
            interface.poll(smol(self.now), device, sockets);
            self.serve_peer();
            while let Some(bytes) = self.peer.device.outgoing.pop_front() {
                busy = true;
                let packet = Packet::from_bytes(Bytes::from(bytes), None, ChecksumState::Unverified);
                self.links[1].enqueue(self.now, packet);
            }
            while let Some(packet) = self.links[0].poll(self.now) {
                busy = true;
                self.peer.device.incoming.push_back(packet.to_vec());
            }
            while let Some(packet) = self.links[1].poll(self.now) {
                busy = true;
                self.stack.handle_packet(self.now, PathId(0), packet.to_rx());
            }
            if !busy {
                return;
            }
        }
    }

    /// Runs until both streams have arrived and both ends are closed.
    fn run(&mut self) -> Duration {
        let limit = Instant::from_millis(300_000);
        loop {
            self.settle();
            let state = self.peer.socket().state();
            let done = matches!(state, tcp::State::Closed | tcp::State::TimeWait);
            if self.closed && self.ended && done {
                return self.now - Instant::ZERO;
            }
            let Peer { interface, sockets, .. } = &mut self.peer;
            // smoltcp counts in microseconds; what is due within one is due at its end.
            let peer = interface.poll_at(smol(self.now), sockets).map(|t| {
                Instant::from_nanos(t.total_micros() as u64 * 1_000).max(self.now + Duration::from_micros(1))
            });
            let links = self.links.iter().filter_map(LinkQueue::next_deadline);
            let next = links.chain(peer).chain(self.stack.poll_timeout()).min();
            let next =
                next.unwrap_or_else(|| panic!("nothing left to happen: {state}, {:?}", self.connection));
            self.now = next.max(self.now);
            assert!(self.now < limit, "{state}, {} of {:?}", self.received, self.plan);
            if self.stack.poll_timeout().is_some_and(|t| t <= self.now) {
                self.stack.handle_timeout(self.now);
            }
        }
    }
}

fn cases(loss: f64, bytes: [u64; 2]) -> Vec<Case> {
    let mut all = Vec::new();
    for ipv6 in [false, true] {
        for connecting in [false, true] {
            all.push(Case { ipv6, connecting, loss, bytes });
        }
    }
    all
}

fn check(case: Case) -> (Duration, Lab) {
    let mut lab = Lab::new(case);
    let time = lab.run();
    assert_eq!([lab.peer.received, lab.received], case.bytes, "{case:?}");
    let info = lab.stack.info(lab.connection.unwrap()).unwrap();
    let reason = match info.mptcp {
        MptcpStatus::Plain { reason } => reason,
        other => panic!("{case:?}: {other:?}"),
    };
    // With loss the SYN that is answered may be one of those without the option.
    let mut expected = vec![FallbackReason::NoOptionInSyn];
    if case.connecting {
        expected = vec![FallbackReason::NoOptionInSynAck, FallbackReason::SynsLost];
    }
    assert!(expected.contains(&reason), "{case:?}: {reason:?}");
    for c in [Counter::TcpInCsumErrors, Counter::TcpInErrs, Counter::TcpOutRsts] {
        assert_eq!(lab.stack.counters().get(c), 0, "{case:?}: {c:?}");
    }
    (time, lab)
}

#[test]
fn both_roles_without_loss() {
    for case in cases(0.0, [2_000_000, 1_500_000]) {
        let (_, lab) = check(case);
        assert_eq!(lab.stack.counters().get(Counter::TcpTimeouts), 0, "{case:?}");
    }
}

#[test]
fn both_roles_with_loss() {
    for loss in [0.01, 0.05] {
        for case in cases(loss, [400_000, 300_000]) {
            let (_, lab) = check(case);
            assert!(lab.links.iter().all(|l| l.stats().dropped_loss > 0), "{case:?}");
        }
    }
}

#[test]
fn one_way_at_the_link_s_rate() {
    // 20 Mbit/s; the window of 128 kB is more than the bandwidth-delay product.
    for connecting in [false, true] {
        for bytes in [[4_000_000, 0], [0, 4_000_000]] {
            let (time, _) = check(Case { ipv6: false, connecting, loss: 0.0, bytes });
            assert!(time < Duration::from_millis(2_200), "{bytes:?}: {time:?}");
        }
    }
}

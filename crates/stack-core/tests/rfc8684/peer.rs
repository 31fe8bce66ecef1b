//! The peer made by hand.
//!
//! It keeps no state machine: it knows the keys and, per subflow, the next sequence numbers, and sends what
//! it is told. Its data is `byte(offset)`, so that a test can tell which bytes arrived. Windows are unscaled,
//! and there are no timestamps.

use std::net::{IpAddr, SocketAddr};
use umptcp_stack_core::Stack;
use umptcp_stack_core::config::{ConnectOptions, ConnectionConfig, ListenOptions, StackConfig};
use umptcp_stack_core::device::PathConfig;
use umptcp_stack_core::device::{ChecksumState, RxPacket};
use umptcp_stack_core::event::Event;
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::stack::{MptcpStatus, Received, SubflowInfo};
use umptcp_stack_core::types::{AddressId, ConnectionId, Duration, Instant, PathId, SeqNumber};
use umptcp_stack_core::wire::mptcp::{
    AddAddr, CapableFlags, DataAck, Dsn, Dss, DssMapping, MpCapable, MpJoin, MptcpOption, VERSION,
};
use umptcp_stack_core::wire::tcp::{TcpFlags, TcpOptions, TcpRepr, Timestamps};
use umptcp_testkit::script::Keys;
use umptcp_testkit::segment::{Segment, Sent, icmp_error};

/// The peer's key, found by trial: the low 32 bits of its IDSN wrap after 648 bytes, so that most tests cross
/// that point.
pub(crate) const KEY: u64 = 0x0123_4567_89cf_16e9;
/// Sequence number of the peer's SYNs.
const ISN: u32 = 5_000;
/// The peer's nonce in joins.
const NONCE: u32 = 77;
/// Window field of the peer's segments.
pub(crate) const WINDOW: u16 = 60_000;

/// The wire sequence number of the peer's subflow offset `offset`.
pub(crate) fn seq(offset: u32) -> u32 {
    ISN.wrapping_add(offset)
}

/// The peer's data byte at `offset`; the first is 1.
pub(crate) fn byte(offset: u64) -> u8 {
    (offset * 31 + (offset >> 8)) as u8
}

/// The peer's data bytes `offset..offset + len`.
pub(crate) fn bytes(offset: u64, len: u64) -> Vec<u8> {
    (offset..offset + len).map(byte).collect()
}

/// One subflow as the peer sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    /// The stack's end.
    pub(crate) stack: SocketAddr,
    /// The peer's end.
    pub(crate) peer: SocketAddr,
    /// The stack's initial sequence number.
    pub(crate) irs: u32,
    /// Next subflow offset of the peer's to send; the SYN is 0.
    pub(crate) next: u64,
    /// Next subflow offset of the stack's that the peer expects.
    pub(crate) expected: u64,
}

/// A segment that the stack sent.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The subflow, if it is a known one.
    pub(crate) flow: Option<usize>,
    sent: Sent,
}

impl std::ops::Deref for Seen {
    type Target = Sent;

    fn deref(&self) -> &Sent {
        &self.sent
    }
}

impl Seen {
    /// The mapping in its DSS option.
    pub(crate) fn mapping(&self) -> Option<DssMapping> {
        self.dss().and_then(|d| d.mapping)
    }
}

/// A stack and its hand-made peer.
pub(crate) struct Lab {
    pub(crate) now: Instant,
    pub(crate) stack: Stack,
    pub(crate) conn: ConnectionId,
    /// The stack's key.
    pub(crate) key: u64,
    pub(crate) checksum: bool,
    pub(crate) flows: Vec<Flow>,
    pub(crate) events: Vec<Event>,
    /// What the application has received.
    pub(crate) received: Vec<u8>,
    /// The stack's application saw the end of the stream.
    pub(crate) ended: bool,
    /// Highest data offset of the stack's that came in order, plus one.
    pub(crate) data_expected: u64,
    /// The peer's data received in order by the stack, as its DATA_ACKs say: offset of the next byte.
    pub(crate) data_acked: u64,
    /// Segments not looked at yet.
    pub(crate) sent: Vec<Seen>,
    /// Window field of the peer's segments.
    pub(crate) window: u16,
    /// The application does not read.
    pub(crate) paused: bool,
    timestamps: bool,
    /// The peer's SYNs allow SACK.
    sack: bool,
}

/// What the peer sends in one segment besides the usual.
#[derive(Clone, Debug, Default)]
pub(crate) struct Out {
    pub(crate) options: Vec<MptcpOption>,
    pub(crate) payload: Vec<u8>,
    /// Subflow offset, when it is not the next.
    pub(crate) at: Option<u64>,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
    pub(crate) urgent: Option<u16>,
}

impl Out {
    pub(crate) fn options(options: impl IntoIterator<Item = MptcpOption>) -> Self {
        Out { options: options.into_iter().collect(), ..Out::default() }
    }

    pub(crate) fn payload(self, payload: Vec<u8>) -> Self {
        Out { payload, ..self }
    }
}

pub(crate) fn stack_address(path: u8) -> IpAddr {
    IpAddr::from([10, 0, path, 1])
}

pub(crate) fn peer_address(n: u8) -> IpAddr {
    IpAddr::from([10, 9, n, 2])
}

/// The path with this address of the stack's.
fn path_of(address: IpAddr) -> PathId {
    match address {
        IpAddr::V4(a) => PathId(u32::from(a.octets()[2])),
        IpAddr::V6(_) => PathId(0),
    }
}

impl Lab {
    fn new(paths: u8) -> Lab {
        Lab::with(StackConfig::default(), paths)
    }

    fn with(config: StackConfig, paths: u8) -> Lab {
        let mut stack = Stack::new(config, [7; 32]);
        for p in 0..paths {
            stack.path_added(Instant::ZERO, PathConfig::new(format!("nic{p}"), stack_address(p)));
        }
        Lab {
            now: Instant::from_millis(1_000),
            stack,
            conn: ConnectionId(0),
            key: 0,
            checksum: false,
            flows: Vec::new(),
            events: Vec::new(),
            received: Vec::new(),
            ended: false,
            data_expected: 1,
            data_acked: 1,
            sent: Vec::new(),
            window: WINDOW,
            paused: false,
            timestamps: false,
            sack: true,
        }
    }

    fn capable_flags(&self) -> CapableFlags {
        CapableFlags::sha256(self.checksum, false)
    }

    /// The stack is the server, its connection established and known to be MPTCP by both ends.
    pub(crate) fn server(config: ConnectionConfig, paths: u8) -> Lab {
        Lab::serve(Lab::new(paths), config)
    }

    /// The same with settings of the stack.
    pub(crate) fn server_of(stack: StackConfig, config: ConnectionConfig) -> Lab {
        Lab::serve(Lab::with(stack, 1), config)
    }

    /// The same with timestamps in the peer's SYN, so that they are in every segment of the stack's.
    pub(crate) fn server_with_timestamps(config: ConnectionConfig, paths: u8) -> Lab {
        Lab::serve(Lab { timestamps: true, ..Lab::new(paths) }, config)
    }

    /// The same with a peer that does without SACK.
    pub(crate) fn server_without_sack(config: ConnectionConfig, paths: u8) -> Lab {
        Lab::serve(Lab { sack: false, ..Lab::new(paths) }, config)
    }

    fn serve(mut l: Lab, config: ConnectionConfig) -> Lab {
        l.checksum = config.checksum;
        let local = SocketAddr::new(stack_address(0), 80);
        l.stack.listen(ListenOptions::new(local, 4)).expect("listen");
        let peer = SocketAddr::new(peer_address(0), 4000);
        l.flows.push(Flow { stack: local, peer, irs: 0, next: 0, expected: 0 });
        let syn = MpCapable::Syn { version: VERSION, flags: l.capable_flags() };
        l.syn(0, syn.into());
        let incoming = l.events.iter().find_map(|e| match e {
            Event::Incoming { incoming, .. } => Some(*incoming),
            _ => None,
        });
        l.conn = l.stack.accept(l.now, incoming.expect("a SYN"), &config).expect("accept");
        l.poll();
        let syn_ack = l.take(|s| s.seg.flags.syn).expect("a SYN/ACK");
        l.key = syn_ack
            .seg
            .options
            .mptcp
            .iter()
            .find_map(|o| match o {
                MptcpOption::Capable(MpCapable::SynAck { key, .. }) => Some(*key),
                _ => None,
            })
            .expect("MP_CAPABLE");
        let ack = MpCapable::Ack {
            version: VERSION,
            flags: l.capable_flags(),
            sender_key: KEY,
            receiver_key: l.key,
        };
        l.send(0, Out::options([ack.into()]));
        assert!(l.is_mptcp());
        l.sent.clear();
        l
    }

    /// The stack is the client; its peer has sent a DATA_ACK, so that both are fully established.
    pub(crate) fn client(config: ConnectionConfig, paths: u8) -> Lab {
        let mut l = Lab::client_unconfirmed(config, paths);
        l.sent.clear();
        l.ack(0);
        assert!(l.is_mptcp());
        l
    }

    /// The stack is the client; its third ACK has been sent, and the peer has not answered it.
    pub(crate) fn client_unconfirmed(config: ConnectionConfig, paths: u8) -> Lab {
        Lab::connect(Lab::new(paths), config)
    }

    /// As [`client`](Lab::client) and [`server`](Lab::server), on a path that is to be a backup.
    pub(crate) fn on_backup(client: bool) -> Lab {
        let mut l = Lab::new(0);
        let mut path = PathConfig::new("nic0", stack_address(0));
        path.backup = true;
        l.stack.path_added(l.now, path);
        let config = ConnectionConfig::default();
        if !client {
            return Lab::serve(l, config);
        }
        l = Lab::connect(l, config);
        l.sent.clear();
        l.ack(0);
        l
    }

    /// As [`client`](Lab::client), with these settings and over this path only.
    pub(crate) fn client_over(stack: StackConfig, path: PathConfig, config: ConnectionConfig) -> Lab {
        let mut l = Lab::with(stack, 0);
        l.stack.path_added(l.now, path);
        l = Lab::connect(l, config);
        l.sent.clear();
        l.ack(0);
        l
    }

    fn connect(mut l: Lab, config: ConnectionConfig) -> Lab {
        l.checksum = config.checksum;
        let remote = SocketAddr::new(peer_address(0), 80);
        let mut options = ConnectOptions::new(remote);
        options.config = config;
        l.conn = l.stack.connect(l.now, options).expect("connect");
        l.poll();
        let syn = l.take(|s| s.seg.flags.syn).expect("a SYN");
        l.flows.push(Flow { stack: syn.from, peer: remote, irs: syn.seg.seq.0, next: 0, expected: 1 });
        let answer = MpCapable::SynAck { version: VERSION, flags: l.capable_flags(), key: KEY };
        l.syn(0, answer.into());
        let ack = l.take(|s| s.has(|o| matches!(o, MptcpOption::Capable(_)))).expect("a third ACK");
        l.key = match ack.seg.options.mptcp[0] {
            MptcpOption::Capable(MpCapable::Ack { sender_key, .. }) => sender_key,
            ref other => panic!("{other:?} in the third ACK"),
        };
        l
    }

    pub(crate) fn is_mptcp(&self) -> bool {
        matches!(self.status(), MptcpStatus::Active { .. })
    }

    pub(crate) fn status(&self) -> MptcpStatus {
        self.stack.info(self.conn).expect("info").mptcp
    }

    pub(crate) fn counter(&self, counter: Counter) -> u64 {
        self.stack.counters().get(counter)
    }

    pub(crate) fn subflows(&self) -> Vec<SubflowInfo> {
        self.stack.subflows(self.conn)
    }

    pub(crate) fn keys(&self) -> Keys {
        Keys { own: KEY, stack: self.key }
    }

    /// Hands a segment of the peer's to the stack.
    pub(crate) fn inject(&mut self, local: SocketAddr, remote: SocketAddr, seg: &TcpRepr, payload: &[u8]) {
        let packet = Segment::of(remote, local, seg, payload).received();
        self.stack.handle_packet(self.now, path_of(local.ip()), packet);
        self.poll();
    }

    /// Somebody on the way reports that a segment of the stack's could not be delivered: "destination
    /// unreachable" with this code.
    pub(crate) fn unreachable(&mut self, about: &Seen, code: u8) {
        let packet = Segment::of(about.from, about.to, &about.seg, &about.payload).received();
        let error = icmp_error(about.to.ip(), &packet.buffer, 3, code, 0);
        let path = path_of(about.from.ip());
        let error = RxPacket::new(error, ChecksumState::Verified);
        self.stack.handle_packet(self.now, path, error);
        self.poll();
    }

    fn syn(&mut self, flow: usize, option: MptcpOption) {
        let f = self.flows[flow];
        let seg = TcpRepr {
            src_port: f.peer.port(),
            dst_port: f.stack.port(),
            seq: SeqNumber(ISN),
            ack: SeqNumber(if f.expected > 0 { f.irs.wrapping_add(1) } else { 0 }),
            flags: TcpFlags { syn: true, ack: f.expected > 0, ..TcpFlags::default() },
            window: self.window,
            urgent: 0,
            options: TcpOptions {
                mss: Some(1460),
                timestamps: self.timestamps.then(Timestamps::default),
                sack_permitted: self.sack,
                mptcp: [option].into_iter().collect(),
                ..TcpOptions::default()
            },
        };
        self.flows[flow].next = 1;
        self.inject(f.stack, f.peer, &seg, &[]);
    }

    /// Sends a segment on a subflow. Payload, and a FIN, advance the peer's sequence unless `at` is given.
    pub(crate) fn send(&mut self, flow: usize, out: Out) {
        let f = self.flows[flow];
        let at = out.at.unwrap_or(f.next);
        if out.at.is_none() {
            self.flows[flow].next += out.payload.len() as u64 + u64::from(out.fin);
        }
        let seg = TcpRepr {
            src_port: f.peer.port(),
            dst_port: f.stack.port(),
            seq: SeqNumber(ISN.wrapping_add(at as u32)),
            ack: SeqNumber(f.irs.wrapping_add(f.expected as u32)),
            flags: TcpFlags { fin: out.fin, rst: out.rst, urg: out.urgent.is_some(), ..TcpFlags::ACK },
            window: self.window,
            urgent: out.urgent.unwrap_or(0),
            options: TcpOptions { mptcp: out.options.into_iter().collect(), ..TcpOptions::default() },
        };
        self.inject(f.stack, f.peer, &seg, &out.payload);
    }

    /// Sends the DATA_ACK of everything the stack has sent, on a pure ACK.
    pub(crate) fn ack(&mut self, flow: usize) {
        let option = self.dss(None);
        self.send(flow, Out::options([option]));
    }

    /// A DSS option with the DATA_ACK that is due, and `mapping`.
    pub(crate) fn dss(&self, mapping: Option<DssMapping>) -> MptcpOption {
        let ack = Some(self.keys().data_ack(self.data_expected));
        MptcpOption::Dss(Dss { data_fin: false, ack, mapping })
    }

    /// The mapping of the peer's data `data..data + len` to the subflow offsets from `subflow` on, checksum
    /// right.
    pub(crate) fn map(&self, data: u64, subflow: u64, len: u16) -> DssMapping {
        self.map_bytes(data, subflow, len, &bytes(data, u64::from(len)))
    }

    /// The same with the checksum of other bytes, for a mapping whose length counts a DATA_FIN.
    pub(crate) fn map_bytes(&self, data: u64, subflow: u64, len: u16, payload: &[u8]) -> DssMapping {
        self.keys().mapping(data, subflow as u32, len, self.checksum.then_some(payload))
    }

    /// Sends data bytes `data..data + len` on `flow` with their mapping and a DATA_ACK.
    pub(crate) fn data(&mut self, flow: usize, data: u64, len: u16) {
        let mapping = self.map(data, self.flows[flow].next, len);
        let option = self.dss(Some(mapping));
        self.send(flow, Out::options([option]).payload(bytes(data, u64::from(len))));
    }

    /// The application sends `n` bytes.
    pub(crate) fn write(&mut self, n: usize) {
        let data: Vec<u8> = (0..n).map(|i| i as u8).collect();
        let taken = self.stack.send(self.now, self.conn, data.into()).expect("send");
        assert_eq!(taken, n, "the send buffer is full");
        self.poll();
    }

    /// Takes everything the stack has to send or say.
    pub(crate) fn poll(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "the stack never stops sending");
            if let Some(t) = self.stack.poll_transmit(self.now) {
                self.note(Sent::parse(&t));
                continue;
            }
            let Some(event) = self.stack.poll_event() else { break };
            if let Event::Readable { connection } = event
                && !self.paused
            {
                self.read(connection);
            }
            self.events.push(event);
        }
    }

    /// The application reads what there is.
    pub(crate) fn read_all(&mut self) {
        self.read(self.conn);
        self.poll();
    }

    fn read(&mut self, connection: ConnectionId) {
        loop {
            match self.stack.receive(self.now, connection, 1 << 20) {
                Ok(Received::Data(b)) => self.received.extend_from_slice(&b),
                Ok(Received::End) => {
                    self.ended = true;
                    return;
                }
                Ok(Received::Empty) | Err(_) => return,
            }
        }
    }

    /// Writes down a segment of the stack's, and what the peer learns from it.
    fn note(&mut self, sent: Sent) {
        let flow = self.flows.iter().position(|f| f.stack == sent.from && f.peer == sent.to);
        let seen = Seen { flow, sent };
        if let Some(f) = flow {
            let flow = &mut self.flows[f];
            if seen.seg.flags.syn {
                flow.irs = seen.seg.seq.0;
                flow.expected = 1;
            } else if !seen.seg.flags.rst {
                let at = u64::from(seen.seg.seq.0.wrapping_sub(flow.irs));
                if at == flow.expected {
                    flow.expected += seen.payload.len() as u64 + u64::from(seen.seg.flags.fin);
                }
            }
            self.note_data(&seen);
        }
        self.sent.push(seen);
    }

    fn note_data(&mut self, seen: &Seen) {
        let (own, peers) = (self.keys().stack_data(0), self.keys().own_data(0));
        let Some(dss) = seen.dss() else { return };
        if let Some(DataAck::Long(ack)) = dss.ack {
            self.data_acked = self.data_acked.max(ack.wrapping_sub(peers));
        }
        if let Some(DssMapping { dsn: Dsn::Long(dsn), len, .. }) = dss.mapping {
            let start = dsn.wrapping_sub(own);
            if start == self.data_expected {
                self.data_expected += u64::from(len);
            }
        }
    }

    /// The first segment not looked at yet that is as `wanted` says, with everything before it dropped.
    pub(crate) fn take(&mut self, wanted: impl Fn(&Seen) -> bool) -> Option<Seen> {
        let at = self.sent.iter().position(wanted)?;
        self.sent.drain(..=at).next_back()
    }

    /// Segments since the last look.
    pub(crate) fn take_all(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.sent)
    }

    /// Lets time pass, firing what is due.
    pub(crate) fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        for round in 0.. {
            assert!(round < 100_000, "the stack's timers never rest");
            self.poll();
            match self.stack.poll_timeout() {
                Some(t) if t <= end => {
                    self.now = self.now.max(t);
                    self.stack.handle_timeout(self.now);
                }
                _ => break,
            }
        }
        self.now = end;
        self.poll();
    }

    /// Lets time pass until the stack sends something that is as `wanted` says.
    pub(crate) fn advance_until(&mut self, limit: Duration, wanted: impl Fn(&Seen) -> bool) -> Option<Seen> {
        let end = self.now + limit;
        while self.now < end {
            if let Some(s) = self.take(&wanted) {
                return Some(s);
            }
            let next = self.stack.poll_timeout().filter(|t| *t <= end).unwrap_or(end).max(self.now);
            self.now = next;
            self.stack.handle_timeout(self.now);
            self.poll();
        }
        self.take(&wanted)
    }

    /// The peer joins from its address `n`, with Address ID `n`, to the stack's path `path`. Returns the
    /// subflow.
    pub(crate) fn join(&mut self, n: u8, path: u8) -> usize {
        let f = self.join_syn(n, path);
        let answer = self.take(|s| s.seg.flags.syn).expect("a SYN/ACK for the join");
        let nonce = match answer.seg.options.mptcp[..] {
            [MptcpOption::Join(MpJoin::SynAck { nonce, hmac, .. })] => {
                let right = self.keys().stack_syn_ack_hmac(NONCE, nonce);
                assert_eq!(hmac, right, "the stack's HMAC");
                nonce
            }
            ref other => panic!("{other:?} in the SYN/ACK of a join"),
        };
        let hmac = self.keys().ack_hmac(NONCE, nonce);
        self.send(f, Out::options([MpJoin::Ack { hmac }.into()]));
        f
    }

    /// The SYN of such a join.
    pub(crate) fn join_syn(&mut self, n: u8, path: u8) -> usize {
        let stack = SocketAddr::new(stack_address(path), self.flows[0].stack.port());
        let peer = SocketAddr::new(peer_address(n), 4000 + u16::from(n));
        self.flows.push(Flow { stack, peer, irs: 0, next: 0, expected: 0 });
        let f = self.flows.len() - 1;
        let token = self.keys().stack_token();
        let syn = MpJoin::Syn { backup: false, address_id: AddressId(n), token, nonce: NONCE };
        self.syn(f, syn.into());
        f
    }

    /// Answers a join of the stack's that is among the segments not looked at; the peer's address gets ID
    /// `id`. Returns the subflow, established on both sides.
    pub(crate) fn accept_join(&mut self, id: u8) -> usize {
        let f = self.answer_join(id, false);
        // The fourth ACK shows that the third arrived.
        self.ack(f);
        f
    }

    /// The same, with the backup flag in the SYN/ACK.
    pub(crate) fn accept_join_as_backup(&mut self, id: u8) -> usize {
        let f = self.answer_join(id, true);
        self.ack(f);
        f
    }

    /// The same, with a middlebox that removes the peer's options after the SYN/ACK.
    pub(crate) fn accept_join_stripped(&mut self, id: u8) -> usize {
        let f = self.answer_join(id, false);
        self.send(f, Out::default());
        f
    }

    /// Answers a join up to the third ACK, which nothing confirms.
    pub(crate) fn answer_join(&mut self, id: u8, backup: bool) -> usize {
        let syn = self.take(|s| s.seg.flags.syn).expect("a SYN of a join");
        let nonce = match syn.seg.options.mptcp[..] {
            [MptcpOption::Join(MpJoin::Syn { token, nonce, .. })] => {
                assert_eq!(token, self.keys().own_token(), "our token");
                nonce
            }
            ref other => panic!("{other:?} in the SYN of a join"),
        };
        let (stack, peer) = (syn.from, syn.to);
        self.flows.push(Flow { stack, peer, irs: syn.seg.seq.0, next: 0, expected: 1 });
        let f = self.flows.len() - 1;
        let hmac = self.keys().syn_ack_hmac(NONCE, nonce);
        let answer = MpJoin::SynAck { backup, address_id: AddressId(id), hmac, nonce: NONCE };
        self.syn(f, answer.into());
        self.take(|s| s.has(|o| matches!(o, MptcpOption::Join(MpJoin::Ack { .. })))).expect("a third ACK");
        f
    }

    /// ADD_ADDR with the right HMAC.
    pub(crate) fn add_addr(&self, id: u8, address: SocketAddr, port: bool) -> AddAddr {
        self.keys().add_addr(AddressId(id), address.ip(), port.then_some(address.port()))
    }
}

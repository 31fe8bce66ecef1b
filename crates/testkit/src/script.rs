//! One stack, and a peer played by hand: each test says segment by segment what the peer sends, and looks at
//! what the stack answers. For what no well-behaved stack would do, and for what must be exact.

use crate::segment::Segment;
pub use crate::segment::Sent;
use std::net::{IpAddr, SocketAddr};
use umptcp_stack_core::Stack;
use umptcp_stack_core::config::{ConnectOptions, ConnectionConfig, ListenOptions, StackConfig};
use umptcp_stack_core::device::PathConfig;
use umptcp_stack_core::error::FallbackReason;
use umptcp_stack_core::event::{Event, IncomingId};
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::stack::{MptcpStatus, Received};
use umptcp_stack_core::types::{AddressId, ConnectionId, DataOffset, Duration, Instant, PathId, SeqNumber};
use umptcp_stack_core::wire::checksum;
use umptcp_stack_core::wire::mptcp::keys::{
    add_addr_hmac, join_hmac, leftmost_64, leftmost_160, token_and_idsn,
};
use umptcp_stack_core::wire::mptcp::{
    AddAddr, CapableFlags, DataAck, Dsn, Dss, DssMapping, MpCapable, MpJoin, MptcpOption, VERSION,
    dss_pseudo_header,
};
use umptcp_stack_core::wire::tcp::{TcpFlags, TcpOptions, TcpRepr, Timestamps};

/// The stack's address on its first path.
pub const STACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
/// The stack's address on its second path.
pub const STACK_2: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 1, 2));
/// The port it listens on, or that it connects to.
pub const PORT: u16 = 80;

/// The stack under test.
pub struct Lab {
    /// It.
    pub stack: Stack,
    /// Its two paths.
    pub paths: Vec<PathId>,
    /// The time.
    pub now: Instant,
    /// Everything it has told the application.
    pub events: Vec<Event>,
    /// The connections it has accepted.
    pub accepted: Vec<ConnectionId>,
    /// How incoming connections are accepted; `None`: they are left pending.
    pub accept: Option<ConnectionConfig>,
    /// Those left pending.
    pub incoming: Vec<IncomingId>,
}

impl Default for Lab {
    fn default() -> Self {
        Lab::new()
    }
}

impl Lab {
    /// One with two paths, that does not listen.
    pub fn new() -> Lab {
        Lab::with(StackConfig::default())
    }

    /// The same with other settings.
    pub fn with(config: StackConfig) -> Lab {
        let mut stack = Stack::new(config, [9; 32]);
        let now = Instant::from_millis(1_000_000);
        let paths = [STACK, STACK_2].map(|a| stack.path_added(now, PathConfig::new("nic", a))).to_vec();
        let (events, accepted, incoming) = (Vec::new(), Vec::new(), Vec::new());
        Lab { stack, paths, now, events, accepted, accept: Some(ConnectionConfig::default()), incoming }
    }

    /// One that listens.
    pub fn listening() -> Lab {
        let mut lab = Lab::new();
        lab.listen(ListenOptions::new(SocketAddr::new(STACK, PORT), 8));
        lab
    }

    /// Listens.
    pub fn listen(&mut self, options: ListenOptions) {
        self.stack.listen(options).expect("listen");
    }

    /// Connects over the first path.
    pub fn connect(&mut self, remote: SocketAddr, config: ConnectionConfig) -> ConnectionId {
        let mut options = ConnectOptions::new(remote);
        options.paths = vec![self.paths[0]];
        options.config = config;
        self.stack.connect(self.now, options).expect("connect")
    }

    /// Hands a segment to the stack and returns what it sends.
    pub fn put(&mut self, from: SocketAddr, to: SocketAddr, seg: &TcpRepr, payload: &[u8]) -> Vec<Sent> {
        self.give(from, to, seg, payload);
        self.poll()
    }

    /// Hands a segment to the stack, which is not asked for its own yet: others have come with it.
    pub fn give(&mut self, from: SocketAddr, to: SocketAddr, seg: &TcpRepr, payload: &[u8]) {
        let mut seg = seg.clone();
        (seg.src_port, seg.dst_port) = (from.port(), to.port());
        let path = if to.ip() == STACK_2 { self.paths[1] } else { self.paths[0] };
        let packet = Segment::of(from, to, &seg, payload).received();
        self.stack.handle_packet(self.now, path, packet);
    }

    /// What the stack sends now; its events are kept, incoming connections accepted.
    pub fn poll(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        loop {
            while let Some(t) = self.stack.poll_transmit(self.now) {
                sent.push(Sent::parse(&t));
            }
            let Some(event) = self.stack.poll_event() else { return sent };
            if let Event::Incoming { incoming, .. } = event {
                match &self.accept {
                    Some(config) => {
                        let config = config.clone();
                        self.accepted.push(self.stack.accept(self.now, incoming, &config).expect("accept"));
                    }
                    None => self.incoming.push(incoming),
                }
            }
            self.events.push(event);
        }
    }

    /// Lets time pass, timers firing when they are due, and returns what the stack sends with the time of
    /// each.
    pub fn pass(&mut self, time: Duration) -> Vec<(Instant, Sent)> {
        let end = self.now + time;
        let mut sent = Vec::new();
        for _ in 0..100_000 {
            let now = self.now;
            sent.extend(self.poll().into_iter().map(|s| (now, s)));
            let Some(next) = self.stack.poll_timeout().filter(|t| *t <= end) else {
                self.now = end;
                return sent;
            };
            self.now = self.now.max(next);
            self.stack.handle_timeout(self.now);
        }
        panic!("the stack never comes to rest");
    }

    /// The value of a counter.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.stack.counters().get(counter)
    }

    /// Whether the connection is MPTCP.
    pub fn status(&self, connection: ConnectionId) -> MptcpStatus {
        self.stack.info(connection).expect("the connection").mptcp
    }

    /// Asserts that the connection is plain TCP, and why.
    #[track_caller]
    pub fn assert_plain(&self, connection: ConnectionId, why: FallbackReason) {
        assert_eq!(self.status(connection), MptcpStatus::Plain { reason: why });
    }

    /// Asserts that the connection is MPTCP.
    #[track_caller]
    pub fn assert_mptcp(&self, connection: ConnectionId) {
        let status = self.status(connection);
        assert!(matches!(status, MptcpStatus::Active { .. }), "{status:?}");
    }

    /// Everything there is to receive.
    pub fn received(&mut self, connection: ConnectionId) -> Vec<u8> {
        let mut all = Vec::new();
        while let Ok(Received::Data(b)) = self.stack.receive(self.now, connection, 1 << 20) {
            all.extend_from_slice(&b);
        }
        all
    }
}

/// The peer's end of one subflow.
#[derive(Clone, Debug)]
pub struct End {
    /// Its address.
    pub at: SocketAddr,
    /// The stack's.
    pub to: SocketAddr,
    /// Next sequence number to send, and to acknowledge.
    pub seq: SeqNumber,
    /// The latter.
    pub ack: SeqNumber,
    /// Its clock.
    pub timestamp: u32,
    /// The stack's last timestamp.
    pub echo: u32,
}

/// Flags of a SYN.
pub const SYN: TcpFlags = TcpFlags::SYN;
/// Flags of an ACK.
pub const ACK: TcpFlags = TcpFlags::ACK;
/// Flags of a SYN/ACK.
pub const SYN_ACK: TcpFlags = TcpFlags::SYN_ACK;
/// Flags of a RST.
pub const RST: TcpFlags = TcpFlags { syn: false, rst: true, ..SYN };

/// The address of the peer with this number.
pub fn peer(n: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 9, 0, n], port))
}

impl End {
    /// One that has sent nothing.
    pub fn new(at: SocketAddr, to: SocketAddr) -> End {
        let seq = SeqNumber(u32::from(at.port()).wrapping_mul(77_777));
        End { at, to, seq, ack: SeqNumber(0), timestamp: 1000, echo: 0 }
    }

    /// A segment at the current place of this end.
    pub fn segment(&self, flags: TcpFlags, mptcp: &[MptcpOption]) -> TcpRepr {
        let mut options = TcpOptions {
            timestamps: Some(Timestamps { value: self.timestamp, echo: self.echo }),
            mptcp: mptcp.iter().cloned().collect(),
            ..TcpOptions::default()
        };
        if flags.syn {
            options.mss = Some(1460);
            options.sack_permitted = true;
            options.window_scale = Some(7);
        }
        let ack = if flags.ack { self.ack } else { SeqNumber(0) };
        TcpRepr { seq: self.seq, ack, flags, window: 5000, options, ..TcpRepr::default() }
    }

    /// Sends a segment and moves on past what it carries.
    pub fn send(
        &mut self,
        lab: &mut Lab,
        flags: TcpFlags,
        mptcp: &[MptcpOption],
        payload: &[u8],
    ) -> Vec<Sent> {
        self.timestamp += 1;
        let seg = self.segment(flags, mptcp);
        let space = payload.len() as u32 + u32::from(flags.syn) + u32::from(flags.fin);
        self.seq = self.seq.wrapping_add(space);
        lab.put(self.at, self.to, &seg, payload)
    }

    /// Takes note of what came from the stack.
    pub fn hear(&mut self, s: &Sent) {
        assert_eq!((s.from, s.to), (self.to, self.at), "not for this end: {s:?}");
        let space = s.payload.len() as u32 + u32::from(s.seg.flags.syn) + u32::from(s.seg.flags.fin);
        self.ack = s.seg.seq.wrapping_add(space);
        if let Some(t) = s.seg.options.timestamps {
            self.echo = t.value;
        }
    }
}

/// What the peer knows of an MPTCP connection.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// The peer's key.
    pub own: u64,
    /// The stack's key.
    pub stack: u64,
}

impl Keys {
    /// The token by which the stack's connection is joined.
    pub fn stack_token(&self) -> u32 {
        token_and_idsn(self.stack).0
    }

    /// The token by which the stack joins the peer's.
    pub fn own_token(&self) -> u32 {
        token_and_idsn(self.own).0
    }

    /// The data sequence number of the peer's byte at `offset`; the first is 1.
    pub fn own_data(&self, offset: u64) -> u64 {
        DataOffset(offset).to_wire(token_and_idsn(self.own).1).0
    }

    /// The data sequence number of the stack's byte at `offset`.
    pub fn stack_data(&self, offset: u64) -> u64 {
        DataOffset(offset).to_wire(token_and_idsn(self.stack).1).0
    }

    /// The DATA_ACK that expects the stack's byte at `offset` next.
    pub fn data_ack(&self, offset: u64) -> DataAck {
        DataAck::Long(self.stack_data(offset))
    }

    /// The mapping of the peer's data from offset `data` on to subflow sequence numbers from `ssn` on.
    /// `summed`: with the checksum of that payload.
    pub fn mapping(&self, data: u64, ssn: u32, len: u16, summed: Option<&[u8]>) -> DssMapping {
        let dsn = self.own_data(data);
        let checksum = summed.map(|payload| {
            let sum = checksum::add(checksum::sum(payload, 0), dss_pseudo_header(dsn, ssn, len));
            !checksum::fold(sum)
        });
        DssMapping { dsn: Dsn::Long(dsn), ssn, len, checksum }
    }

    /// A DSS with a DATA_ACK of everything up to `received` bytes, and a mapping of `len` bytes at data
    /// offset and subflow offset `at`.
    pub fn dss(&self, received: u64, mapping: Option<(u64, u32, u16)>) -> MptcpOption {
        let mapping = mapping.map(|(data, ssn, len)| self.mapping(data, ssn, len, None));
        MptcpOption::Dss(Dss { data_fin: false, ack: Some(self.data_ack(1 + received)), mapping })
    }

    /// The HMAC of the third ACK of a join by the peer.
    pub fn ack_hmac(&self, own_nonce: u32, stack_nonce: u32) -> [u8; 20] {
        leftmost_160(&join_hmac(self.own, self.stack, own_nonce, stack_nonce))
    }

    /// The HMAC of the peer's SYN/ACK.
    pub fn syn_ack_hmac(&self, own_nonce: u32, stack_nonce: u32) -> u64 {
        leftmost_64(&join_hmac(self.own, self.stack, own_nonce, stack_nonce))
    }

    /// The HMAC of the stack's SYN/ACK.
    pub fn stack_syn_ack_hmac(&self, own_nonce: u32, stack_nonce: u32) -> u64 {
        leftmost_64(&join_hmac(self.stack, self.own, stack_nonce, own_nonce))
    }

    /// The peer's ADD_ADDR.
    pub fn add_addr(&self, address_id: AddressId, address: IpAddr, port: Option<u16>) -> AddAddr {
        let hmac = add_addr_hmac(self.own, self.stack, address_id, address, port.unwrap_or(0));
        AddAddr { address_id, address, port, hmac: Some(hmac) }
    }
}

/// The flags of the peer's MP_CAPABLEs: no checksums, joins welcome.
pub fn flags() -> CapableFlags {
    CapableFlags::sha256(false, false)
}

/// MP_CAPABLE of a SYN.
pub fn capable_syn() -> MptcpOption {
    MptcpOption::Capable(MpCapable::Syn { version: VERSION, flags: flags() })
}

/// MP_CAPABLE of a third ACK.
pub fn capable_ack(keys: Keys) -> MptcpOption {
    let (version, flags) = (VERSION, flags());
    MptcpOption::Capable(MpCapable::Ack { version, flags, sender_key: keys.own, receiver_key: keys.stack })
}

/// MP_JOIN of a SYN.
pub fn join_syn(token: u32, nonce: u32, id: u8) -> MptcpOption {
    MptcpOption::Join(MpJoin::Syn { backup: false, address_id: AddressId(id), token, nonce })
}

/// The only segment in `sent`.
#[track_caller]
pub fn only(sent: Vec<Sent>) -> Sent {
    assert_eq!(sent.len(), 1, "{sent:#?}");
    sent.into_iter().next().expect("one")
}

/// The key in a SYN/ACK of the stack.
#[track_caller]
pub fn key_of(s: &Sent) -> u64 {
    match s.capable() {
        Some(MpCapable::SynAck { key, .. }) => key,
        other => panic!("no SYN/ACK with MP_CAPABLE: {other:?} in {s:?}"),
    }
}

/// The peer connects to the listening stack by the book; returns its end, the keys, and the stack's
/// connection.
pub fn establish(lab: &mut Lab, at: SocketAddr) -> (End, Keys, ConnectionId) {
    let mut end = End::new(at, SocketAddr::new(STACK, PORT));
    let syn_ack = only(end.send(lab, SYN, &[capable_syn()], &[]));
    end.hear(&syn_ack);
    let keys = Keys { own: 0x0102_0304_0506_0708 ^ u64::from(at.port()) << 20, stack: key_of(&syn_ack) };
    let answer = only(end.send(lab, ACK, &[capable_ack(keys)], &[]));
    assert!(answer.dss().is_some(), "{answer:?}");
    let connection = *lab.accepted.last().expect("accepted");
    lab.assert_mptcp(connection);
    (end, keys, connection)
}

/// The stack connects to the peer by the book, which then sends ten bytes, so that joins may begin.
pub fn establish_out(lab: &mut Lab, at: SocketAddr, config: ConnectionConfig) -> (End, Keys, ConnectionId) {
    let connection = lab.connect(at, config);
    let syn = only(lab.poll());
    let mut end = End::new(at, syn.from);
    end.hear(&syn);
    let own = 0xaaaa_bbbb_cccc_0000 | u64::from(at.port());
    let answer = MpCapable::SynAck { version: VERSION, flags: flags(), key: own };
    let third = only(end.send(lab, SYN_ACK, &[MptcpOption::Capable(answer)], &[]));
    let keys = match third.capable() {
        Some(MpCapable::Ack { sender_key, receiver_key, .. }) => {
            assert_eq!(receiver_key, own);
            Keys { own, stack: sender_key }
        }
        other => panic!("no third ACK with MP_CAPABLE: {other:?}"),
    };
    (end, keys, connection)
}

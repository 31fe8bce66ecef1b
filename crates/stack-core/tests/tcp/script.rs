//! A stack with one plain TCP connection, and its peer played by hand.

use std::net::{IpAddr, SocketAddr};
use umptcp_stack_core::Stack;
use umptcp_stack_core::config::{
    ConnectOptions, ConnectionConfig, ConnectionOption, ListenOptions, StackConfig,
};
use umptcp_stack_core::device::PathConfig;
use umptcp_stack_core::error::ConnectionError;
use umptcp_stack_core::event::Event;
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::types::{ConnectionId, Duration, Instant, PathId, SeqNumber};
use umptcp_stack_core::wire::tcp::{TcpFlags, TcpOptions, TcpRepr, Timestamps};
use umptcp_testkit::segment::{Segment, Sent};

pub(crate) const MSS: usize = 1_000;
/// The peer's initial sequence number.
pub(crate) const PEER: u32 = 7_000;

pub(crate) const ACK: TcpFlags = TcpFlags::ACK;

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// One stack, one connection of it, and the script's end.
pub(crate) struct Script {
    pub(crate) stack: Stack,
    pub(crate) path: PathId,
    pub(crate) now: Instant,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) connection: Option<ConnectionId>,
    /// Our first sequence number, as the peer learned it.
    pub(crate) isn: u32,
    /// Sequence number and acknowledgement of the peer, relative; its window.
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) window: u16,
    /// The peer's timestamp, if it uses the option.
    pub(crate) stamp: Option<u32>,
    pub(crate) echo: u32,
    pub(crate) sent: Vec<(Instant, TcpRepr, Vec<u8>)>,
    pub(crate) events: Vec<Event>,
}

impl Script {
    /// A listener on port 80, and nothing else yet.
    pub(crate) fn new() -> Script {
        Script::with_packets(1_500)
    }

    /// The same over a device that takes packets of `max_packet` bytes and cuts them.
    pub(crate) fn with_packets(max_packet: u32) -> Script {
        let (local, remote) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut stack = Stack::new(StackConfig::default(), [5; 32]);
        let path =
            stack.path_added(Instant::ZERO, PathConfig::new("wire", local).with_max_packet(max_packet));
        stack.listen(ListenOptions::new(SocketAddr::new(local, 80), 8)).unwrap();
        Script {
            stack,
            path,
            now: Instant::from_millis(1),
            local: SocketAddr::new(local, 80),
            remote: SocketAddr::new(remote, 5_000),
            connection: None,
            isn: 0,
            seq: 0,
            ack: 0,
            window: 60_000,
            stamp: None,
            echo: 0,
            sent: Vec::new(),
            events: Vec::new(),
        }
    }

    pub(crate) fn config() -> ConnectionConfig {
        ConnectionConfig::default().with_mptcp(false)
    }

    /// A connection we opened; `sack`: the peer does SACK.
    pub(crate) fn connected_with(config: ConnectionConfig, sack: bool) -> Script {
        Script::new().establish(config, sack)
    }

    pub(crate) fn establish(self, config: ConnectionConfig, sack: bool) -> Script {
        let mut s = self;
        s.connect(config);
        let mut options = TcpOptions { mss: Some(MSS as u16), sack_permitted: sack, ..Default::default() };
        options.timestamps = s.stamp.map(|value| Timestamps { value, echo: 0 });
        s.wait(ms(20));
        s.ack = 1;
        s.inject(TcpFlags { syn: true, ..ACK }, &[], options);
        s.seq = 1;
        assert_eq!(s.state(), "ESTABLISHED");
        s.take();
        s
    }

    pub(crate) fn connected(config: ConnectionConfig) -> Script {
        Script::connected_with(config, true)
    }

    /// Sends the SYN of a connection of ours.
    pub(crate) fn connect(&mut self, config: ConnectionConfig) {
        let mut options = ConnectOptions::new(self.remote);
        options.config = config;
        options.local_port = 4_000;
        self.local.set_port(4_000);
        self.connection = Some(self.stack.connect(self.now, options).unwrap());
        self.poll();
        let (_, syn, _) = self.take().remove(0);
        self.isn = syn.seq.0;
    }

    pub(crate) fn poll(&mut self) {
        while let Some(t) = self.stack.poll_transmit(self.now) {
            let Sent { seg, payload, .. } = Sent::parse(&t);
            self.sent.push((self.now, seg, payload));
        }
        while let Some(event) = self.stack.poll_event() {
            if let Event::Incoming { incoming, .. } = event {
                self.connection = Some(self.stack.accept(self.now, incoming, &Script::config()).unwrap());
                self.poll();
            }
            self.events.push(event);
        }
    }

    /// What was sent since the last call.
    pub(crate) fn take(&mut self) -> Vec<(Instant, TcpRepr, Vec<u8>)> {
        std::mem::take(&mut self.sent)
    }

    /// Payload ranges sent since the last call, relative to the first byte of data.
    pub(crate) fn take_data(&mut self) -> Vec<(u32, usize)> {
        let isn = self.isn.wrapping_add(1);
        let data = self.take().into_iter().filter(|(_, _, p)| !p.is_empty());
        data.map(|(_, seg, p)| (seg.seq.0.wrapping_sub(isn), p.len())).collect()
    }

    /// Lets time pass, timers included.
    pub(crate) fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(t) = self.stack.poll_timeout().filter(|t| *t <= end) {
            self.now = self.now.max(t);
            self.stack.handle_timeout(self.now);
            self.poll();
        }
        self.now = end;
    }

    /// The peer sends a segment at its current numbers.
    pub(crate) fn inject(&mut self, flags: TcpFlags, payload: &[u8], mut options: TcpOptions) {
        if let (Some(value), None) = (self.stamp, options.timestamps) {
            options.timestamps = Some(Timestamps { value, echo: self.echo });
        }
        let repr = TcpRepr {
            src_port: self.remote.port(),
            dst_port: self.local.port(),
            seq: SeqNumber(PEER.wrapping_add(self.seq)),
            ack: SeqNumber(self.isn.wrapping_add(self.ack)),
            flags,
            window: self.window,
            urgent: 0,
            options,
        };
        let rx = Segment::of(self.remote, self.local, &repr, payload).received();
        self.stack.handle_packet(self.now, self.path, rx);
        self.poll();
    }

    pub(crate) fn segment(&mut self, flags: TcpFlags, payload: &[u8]) {
        self.inject(flags, payload, TcpOptions::default());
    }

    /// The peer acknowledges `bytes` of data in all.
    pub(crate) fn acknowledge(&mut self, bytes: u32) {
        self.ack = 1 + bytes;
        self.segment(ACK, &[]);
    }

    /// `total` bytes go out in pieces of this length, and each is acknowledged after 20 ms.
    pub(crate) fn carry(&mut self, total: u32, piece: u32) {
        let mut sent = 0;
        while sent < total {
            self.write(piece as usize);
            self.wait(ms(20));
            sent += piece;
            self.acknowledge(sent);
        }
    }

    pub(crate) fn write(&mut self, len: usize) {
        let n = self.stack.send_slice(self.now, self.connection.unwrap(), &vec![7; len]).unwrap();
        assert_eq!(n, len);
        self.poll();
    }

    pub(crate) fn set(&mut self, option: ConnectionOption) {
        self.stack.set_option(self.now, self.connection.unwrap(), option).unwrap();
        self.poll();
    }

    pub(crate) fn state(&self) -> &'static str {
        let subflows = self.connection.map(|c| self.stack.subflows(c)).unwrap_or_default();
        subflows.first().map_or("gone", |s| s.state)
    }

    pub(crate) fn error(&self) -> Option<ConnectionError> {
        self.events.iter().find_map(|e| match e {
            Event::Closed { error, .. } => *error,
            _ => None,
        })
    }

    pub(crate) fn counter(&self, c: Counter) -> u64 {
        self.stack.counters().get(c)
    }
}

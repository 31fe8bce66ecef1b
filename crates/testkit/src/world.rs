//! A stack under test, what its peer knows of it, and what must hold after every step.

use crate::digest::Digest;
use crate::script::Keys;
use crate::segment::{RST, Segment, Sent};
use bytes::Bytes;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use umptcp_stack_core::Stack;
use umptcp_stack_core::config::{ConnectionConfig, StackConfig};
use umptcp_stack_core::device::{ChecksumState, PathConfig, RxPacket};
use umptcp_stack_core::event::{Event, IncomingId, RefuseWith};
use umptcp_stack_core::stack::{MptcpStatus, Received, SubflowInfo};
use umptcp_stack_core::types::{ConnectionId, Duration, Instant, PathId};
use umptcp_stack_core::wire::checksum;
use umptcp_stack_core::wire::ip::IpHeader;
use umptcp_stack_core::wire::mptcp::keys::token_and_idsn;
use umptcp_stack_core::wire::mptcp::{
    DataAck, Dsn, DssMapping, MpCapable, MpJoin, MptcpOption, dss_pseudo_header,
};
use umptcp_stack_core::wire::tcp::TcpRepr;

/// Packets that one step may bring forth, and timers that may fire without time passing.
const MAX_PACKETS: usize = 20_000;
const MAX_TIMERS: usize = 1_000;
/// Joins of one connection whose third ACK has not come.
const MAX_HALF_OPEN: usize = 8;
/// By how much rounding may exceed a buffer: a unit of the largest window scale that the settings bring
/// about.
const WINDOW_UNIT: usize = 64;
/// Packets of the peer and of the stack that are kept for replay.
const KEPT: usize = 16;
/// The most connections that the stack under test may hold.
pub(crate) const MAX_CONNECTIONS: usize = 6;

/// Byte `offset` of what a side sends: every offset looks different from its neighbours.
pub(crate) fn content(from_peer: bool, offset: u64) -> u8 {
    let x = (offset ^ (u64::from(from_peer) << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x >> 56) as u8
}

/// A subflow as the peer sees it.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) path: PathId,
    /// The stack's end.
    pub(crate) stack: SocketAddr,
    /// The peer's end.
    pub(crate) peer: SocketAddr,
    /// The peer's initial sequence number, and its next offset from there.
    pub(crate) isn: u32,
    pub(crate) next: u32,
    /// The stack's, once known.
    pub(crate) stack_isn: Option<u32>,
    pub(crate) stack_next: u32,
    /// Window scale that the stack announced, if both did.
    pub(crate) scale: Option<u8>,
    pub(crate) sent_scale: bool,
    /// Nonces of a join: the peer's and the stack's. `None`: the initial subflow.
    pub(crate) join: Option<(u32, Option<u32>)>,
    /// The stack sent a RST or FIN here: no more is known of its windows.
    pub(crate) over: bool,
    /// Highest right window edge advertised, in data sequence space and in the subflow's.
    edges: [Option<u64>; 2],
    /// Bytes that the SYN carried, and whether it was the stack's and had a Fast Open option.
    pub(crate) early: u32,
    pub(crate) fast_open: bool,
}

/// A connection as the peer sees it.
#[derive(Clone, Debug)]
pub(crate) struct Conn {
    pub(crate) id: Option<ConnectionId>,
    /// The stack began it.
    pub(crate) by_stack: bool,
    pub(crate) key: u64,
    /// Keys that the stack was given in the peer's place: packets may come changed.
    pub(crate) given: Vec<u64>,
    pub(crate) stack_key: Option<u64>,
    /// The SYN carried MP_CAPABLE.
    pub(crate) mptcp: bool,
    pub(crate) checksum: bool,
    pub(crate) flows: Vec<Flow>,
    /// The peer's next data offset, counted from 1.
    pub(crate) data_next: u64,
    /// The stack's next data offset, as its mappings say.
    pub(crate) stack_data_next: u64,
    /// The application's bytes so far, written and read.
    pub(crate) written: u64,
    pub(crate) read: u64,
    /// Payload may have been something else than `content`: the peer lied.
    pub(crate) lied: bool,
    /// It was MPTCP and is not any more: what is known of windows and sequence numbers ends there.
    pub(crate) fell_back: bool,
    /// What the stack was configured to.
    pub(crate) receive_buffer: usize,
    pub(crate) max_subflows: usize,
    /// Bytes of the stack's SYN that the SYN/ACK acknowledged.
    pub(crate) syn_taken: u64,
    /// Bytes of the peer's SYN that the stack's SYN/ACK acknowledged.
    pub(crate) syn_given: u64,
}

/// The stack under test and its surroundings.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) stack: Stack,
    pub(crate) conns: Vec<Conn>,
    pub(crate) paths: Vec<PathId>,
    pub(crate) addresses: Vec<IpAddr>,
    /// Paths that were blocked at some time, those included that have been replaced.
    pub(crate) blocked: Vec<PathId>,
    pub(crate) incoming: VecDeque<IncomingId>,
    pub(crate) accepted: VecDeque<ConnectionId>,
    pub(crate) peer_packets: VecDeque<(PathId, Bytes)>,
    pub(crate) stack_packets: VecDeque<(PathId, Bytes)>,
    /// SYNs of the stack that the peer has not answered yet: connection and flow.
    pub(crate) unanswered: VecDeque<(usize, usize)>,
    pub(crate) accept_config: ConnectionConfig,
    /// What the application reads at once after every step; otherwise only when told.
    pub(crate) eager_reader: bool,
    /// The listener takes Fast Open, and the peer's SYNs have the option: the last cookie that the stack
    /// gave, empty at first.
    pub(crate) fast_open: bool,
    pub(crate) cookie: Vec<u8>,
    serial: u32,
    /// Everything that the stack is given and gives is added to it.
    digest: Option<Digest>,
    /// Print every packet: `UMPTCP_FUZZ_TRACE` is set.
    trace: bool,
}

impl World {
    /// A stack with these addresses, a path each.
    pub(crate) fn new(addresses: &[IpAddr], max_packet: u32, digest: Option<&Digest>) -> World {
        let config = StackConfig::default().with_max_connections(MAX_CONNECTIONS);
        let mut stack = Stack::new(config, [7; 32]);
        if let Some(digest) = digest {
            stack.set_observer(digest.observer(0));
        }
        let mut paths = Vec::new();
        for (i, address) in addresses.iter().enumerate() {
            let path = PathConfig::new(format!("nic{i}"), *address).with_max_packet(max_packet);
            paths.push(stack.path_added(Instant::ZERO, path));
        }
        World {
            // Not 0: timestamps and times of that value are a special case.
            now: Instant::from_millis(1_000),
            stack,
            conns: Vec::new(),
            paths,
            addresses: addresses.to_vec(),
            blocked: Vec::new(),
            incoming: VecDeque::new(),
            accepted: VecDeque::new(),
            peer_packets: VecDeque::new(),
            stack_packets: VecDeque::new(),
            unanswered: VecDeque::new(),
            accept_config: ConnectionConfig::default(),
            eager_reader: true,
            fast_open: false,
            cookie: Vec::new(),
            serial: 0,
            digest: digest.cloned(),
            trace: std::env::var_os("UMPTCP_FUZZ_TRACE").is_some(),
        }
    }

    /// A number that was not used before: for keys, nonces and sequence numbers.
    pub(crate) fn fresh(&mut self) -> u32 {
        self.serial += 1;
        // Some initial sequence numbers are close to the wrap.
        self.serial.wrapping_mul(0x9e37_79b9) ^ if self.serial % 4 == 1 { 0xffff_ff00 } else { 0 }
    }

    /// Hands a segment to the stack on the path of its destination.
    pub(crate) fn inject(&mut self, path: PathId, segment: &Segment) {
        self.inject_packet(path, segment.packet());
    }

    /// Hands any bytes to the stack.
    pub(crate) fn inject_packet(&mut self, path: PathId, packet: Bytes) {
        if self.peer_packets.len() == KEPT {
            self.peer_packets.pop_front();
        }
        self.peer_packets.push_back((path, packet.clone()));
        self.show("in ", &packet);
        self.note_handshake(&packet);
        let rx = RxPacket::new(packet, ChecksumState::Verified);
        if let Some(digest) = &self.digest {
            digest.received(self.now, 0, path, &rx);
        }
        self.stack.handle_packet(self.now, path, rx);
        self.settle();
    }

    /// Remembers what a packet to the stack says in the peer's place: its key, and the answer to a SYN.
    fn note_handshake(&mut self, packet: &[u8]) {
        let Ok(ip) = IpHeader::parse(packet) else { return };
        let Ok((seg, _)) = TcpRepr::parse(ip.payload(packet)) else { return };
        let (stack, peer) = (SocketAddr::new(ip.dst, seg.dst_port), SocketAddr::new(ip.src, seg.src_port));
        let Some((c, f)) = self.find(stack, peer) else { return };
        let conn = &mut self.conns[c];
        let mut capable = false;
        for option in &seg.options.mptcp {
            if let MptcpOption::Capable(
                MpCapable::SynAck { key, .. }
                | MpCapable::Ack { sender_key: key, .. }
                | MpCapable::Data { sender_key: key, .. },
            ) = option
            {
                conn.given.push(*key);
                capable = true;
            }
        }
        // What is said twice counts the first time: a changed packet may answer before the peer does, or open
        // at the same time.
        let flow = &mut conn.flows[f];
        let taken = flow.stack_isn.map_or(u32::MAX, |isn| seg.ack.0.wrapping_sub(isn).wrapping_sub(1));
        let fits = !seg.flags.ack || taken <= flow.early;
        if seg.flags.syn && !seg.flags.rst && fits && flow.next == 0 && flow.stack_isn.is_some() {
            flow.next = 1;
            flow.isn = seg.seq.0;
            if seg.flags.ack {
                flow.stack_next = 1 + taken;
                if flow.join.is_none() {
                    conn.syn_taken = u64::from(taken);
                }
            }
            flow.sent_scale = seg.options.window_scale.is_some();
            conn.mptcp &= flow.join.is_some() || (seg.flags.ack && capable);
        }
    }

    /// The connection whose initial subflow has had no SYN yet and begins here. SYNs of several may have
    /// waited for a blocked path.
    fn find_opening(&self, local: SocketAddr) -> Option<usize> {
        let opening = |c: &Conn| c.by_stack && c.flows.is_empty();
        let begins =
            |c: &Conn| c.id.is_some_and(|id| self.stack.subflows(id).iter().any(|s| s.local == local));
        let found = self.conns.iter().rposition(|c| opening(c) && begins(c));
        found.or_else(|| self.conns.iter().rposition(opening))
    }

    /// The connection of the peer's token; the key it came from is the peer's from now on.
    fn find_token(&mut self, token: u32) -> Option<usize> {
        let is = |key: u64| token_and_idsn(key).0 == token;
        if let Some(c) = self.conns.iter().rposition(|c| is(c.key)) {
            return Some(c);
        }
        let (c, key) = self.conns.iter().enumerate().rev().find_map(|(c, conn)| {
            let key = conn.given.iter().find(|k| is(**k))?;
            Some((c, *key))
        })?;
        let conn = &mut self.conns[c];
        conn.key = key;
        // The data sequence numbers so far were counted from another key's.
        conn.flows.iter_mut().for_each(|f| f.edges[0] = None);
        Some(c)
    }

    fn show(&self, direction: &str, packet: &[u8]) {
        if !self.trace {
            return;
        }
        let parsed = IpHeader::parse(packet).ok();
        let line = parsed.and_then(|ip| {
            let segment = ip.payload(packet);
            let (repr, header) = TcpRepr::parse(segment).ok()?;
            Some(repr.summary(ip.src, ip.dst, segment.len() - header).to_string())
        });
        eprintln!("{} {direction} {}", self.now, line.unwrap_or_else(|| format!("{packet:02x?}")));
    }

    /// Takes what the stack has to say, and checks it.
    pub(crate) fn settle(&mut self) {
        let mut packets = 0;
        loop {
            let mut busy = false;
            while let Some(t) = self.stack.poll_transmit(self.now) {
                packets += 1;
                assert!(packets < MAX_PACKETS, "the stack sends without end");
                busy = true;
                if let Some(digest) = &self.digest {
                    digest.sent(self.now, 0, &t);
                }
                let packet = Bytes::from(t.to_vec());
                if self.stack_packets.len() == KEPT {
                    self.stack_packets.pop_front();
                }
                self.stack_packets.push_back((t.path, packet.clone()));
                self.show("out", &packet);
                self.observe(t.path, &Sent::parse_bytes(&packet));
            }
            while let Some(event) = self.stack.poll_event() {
                packets += 1;
                assert!(packets < MAX_PACKETS, "events without end");
                busy = true;
                if let Some(digest) = &self.digest {
                    digest.event(self.now, 0, &event);
                }
                self.on_event(event);
            }
            if !busy {
                break;
            }
        }
        self.check_bounds();
    }

    fn on_event(&mut self, event: Event) {
        if self.trace {
            eprintln!("{} {event:?}", self.now);
        }
        match event {
            Event::Incoming { incoming, .. } => self.incoming.push_back(incoming),
            Event::Readable { connection } if self.eager_reader => self.read_all(connection),
            _ => {}
        }
    }

    /// The application reads what there is.
    pub(crate) fn read_all(&mut self, connection: ConnectionId) {
        self.note_fallback(connection);
        while let Ok(Received::Data(bytes)) = self.stack.receive(self.now, connection, 1 << 16) {
            assert!(!bytes.is_empty(), "data of no bytes would be read for ever");
            let Some(conn) = self.conns.iter_mut().find(|c| c.id == Some(connection)) else { continue };
            for (i, b) in bytes.iter().enumerate() {
                let right = *b == content(true, conn.read + 1 + i as u64);
                assert!(
                    right || conn.lied,
                    "byte {} was delivered wrong by an honest peer",
                    conn.read + i as u64
                );
            }
            conn.read += bytes.len() as u64;
        }
    }

    /// The stack fell back where the peer did not: from here on they do not speak of the same bytes.
    fn note_fallback(&mut self, connection: ConnectionId) {
        let plain = self.stack.info(connection).is_some_and(|i| matches!(i.mptcp, MptcpStatus::Plain { .. }));
        if let Some(conn) = self.conns.iter_mut().find(|c| c.id == Some(connection) && c.mptcp && plain) {
            conn.mptcp = false;
            conn.lied = true;
            conn.fell_back = true;
        }
    }

    /// What must hold at all times.
    fn check_bounds(&self) {
        assert!(self.stack.connection_count() <= MAX_CONNECTIONS);
        for conn in &self.conns {
            let Some(info) = conn.id.and_then(|id| self.stack.info(id).map(|i| (id, i))) else { continue };
            let (id, info) = info;
            assert!(
                info.readable <= conn.receive_buffer + WINDOW_UNIT,
                "more is buffered than the buffer holds"
            );
            // Joins that have proved nothing yet have a limit of their own.
            let half_open = |s: &&SubflowInfo| s.state == "SYN-RECEIVED";
            let subflows = self.stack.subflows(id);
            let waiting = subflows.iter().filter(half_open).count();
            assert!(waiting <= MAX_HALF_OPEN, "more half-open joins than allowed");
            assert!(subflows.len() - waiting <= conn.max_subflows.max(1), "more subflows than allowed");
            assert!(info.bytes_acked <= info.bytes_sent, "more acknowledged than sent");
        }
    }

    /// The connection and flow between these ends.
    pub(crate) fn find(&self, stack: SocketAddr, peer: SocketAddr) -> Option<(usize, usize)> {
        // The last one: four-tuples may come again.
        self.conns.iter().enumerate().rev().find_map(|(c, conn)| {
            let f = conn.flows.iter().rposition(|f| f.stack == stack && f.peer == peer)?;
            Some((c, f))
        })
    }

    /// Learns from a packet of the stack, and checks it.
    fn observe(&mut self, path: PathId, sent: &Sent) {
        let seg = &sent.seg;
        if seg.flags.syn && !seg.flags.ack {
            self.observe_syn(path, sent);
            return;
        }
        let Some((c, f)) = self.find(sent.from, sent.to) else { return };
        if seg.flags.syn {
            self.observe_syn_ack(c, f, sent);
            return;
        }
        let conn = &mut self.conns[c];
        let flow = &mut conn.flows[f];
        if seg.flags.rst || seg.flags.fin {
            flow.over = true;
        }
        let Some(isn) = flow.stack_isn else { return };
        let at = seg.seq.0.wrapping_sub(isn);
        let end = at.wrapping_add(sent.payload.len() as u32 + u32::from(seg.flags.fin));
        if !seg.flags.rst && (end.wrapping_sub(flow.stack_next) as i32) > 0 {
            flow.stack_next = end;
        }
        let mut data_edges_unknown = false;
        for option in &seg.options.mptcp {
            if let MptcpOption::Capable(
                MpCapable::Ack { sender_key, receiver_key, .. }
                | MpCapable::Data { sender_key, receiver_key, .. },
            ) = option
            {
                conn.stack_key = Some(*sender_key);
                if conn.key != *receiver_key {
                    // It was told another one by a packet that had been changed; edges were measured from the
                    // wrong place.
                    conn.key = *receiver_key;
                    data_edges_unknown = true;
                }
            }
        }
        if data_edges_unknown {
            conn.flows.iter_mut().for_each(|flow| flow.edges[0] = None);
        }
        if !seg.flags.rst && !conn.fell_back {
            check_payload(conn, f, at, sent);
            check_window(conn, f, sent);
        }
    }

    fn observe_syn(&mut self, path: PathId, sent: &Sent) {
        let seg = &sent.seg;
        if let Some((c, f)) = self.find(sent.from, sent.to)
            && self.conns[c].flows[f].stack_isn == Some(seg.seq.0)
        {
            self.unanswered.push_back((c, f));
            return;
        }
        let join = seg.options.mptcp.iter().find_map(|o| match o {
            MptcpOption::Join(MpJoin::Syn { token, nonce, .. }) => Some((*token, *nonce)),
            _ => None,
        });
        for (i, b) in sent.payload.iter().enumerate() {
            assert_eq!(*b, content(false, 1 + i as u64), "byte {i} of a SYN was sent wrong");
        }
        assert!(
            join.is_none() || (sent.payload.is_empty() && seg.options.fast_open.is_none()),
            "a join with data"
        );
        let mine = self.fresh();
        let flow = Flow {
            path,
            stack: sent.from,
            peer: sent.to,
            isn: mine,
            next: 0,
            stack_isn: Some(seg.seq.0),
            stack_next: 1,
            scale: seg.options.window_scale,
            sent_scale: false,
            join: join.map(|(_, nonce)| (mine, Some(nonce))),
            over: false,
            edges: [None; 2],
            early: sent.payload.len() as u32,
            fast_open: seg.options.fast_open.is_some(),
        };
        let c = match join {
            Some((token, _)) => self.find_token(token),
            None => self.find_opening(sent.from),
        };
        let c = c.expect("every SYN belongs to a connection that was begun, and a join names its token");
        if join.is_none() {
            self.conns[c].mptcp = seg.options.mptcp.iter().any(|o| matches!(o, MptcpOption::Capable(_)));
        }
        self.conns[c].flows.push(flow);
        self.unanswered.push_back((c, self.conns[c].flows.len() - 1));
    }

    fn observe_syn_ack(&mut self, c: usize, f: usize, sent: &Sent) {
        let seg = &sent.seg;
        let conn = &mut self.conns[c];
        let flow = &mut conn.flows[f];
        if let Some(cookie) = &seg.options.fast_open {
            self.cookie = cookie.to_vec();
        }
        if !conn.by_stack && flow.join.is_none() && flow.stack_isn.is_none() {
            // Some or all of what the peer's SYN carried; the rest comes as ordinary data.
            let taken = seg.ack.0.wrapping_sub(flow.isn).wrapping_sub(1);
            // A changed packet may have opened the connection in the peer's place.
            assert!(
                conn.lied || taken <= flow.early,
                "{taken} bytes of {} in a SYN acknowledged",
                flow.early
            );
            flow.next = flow.next.max(taken.wrapping_add(1));
            conn.syn_given = u64::from(taken);
        }
        flow.stack_isn = Some(seg.seq.0);
        flow.stack_next = flow.stack_next.max(1);
        flow.scale = seg.options.window_scale;
        let mut capable = false;
        for option in &seg.options.mptcp {
            match option {
                MptcpOption::Capable(MpCapable::SynAck { key, flags, .. }) => {
                    capable = true;
                    conn.stack_key = Some(*key);
                    conn.checksum |= flags.checksum_required;
                }
                MptcpOption::Join(MpJoin::SynAck { nonce, .. }) => {
                    if let Some((_, stack)) = &mut flow.join {
                        *stack = Some(*nonce);
                    }
                }
                _ => {}
            }
        }
        if flow.join.is_none() && !capable {
            conn.mptcp = false;
        }
    }

    /// Fires every timer that is due until `until`, which is then the present.
    pub(crate) fn advance_to(&mut self, until: Instant) {
        let mut still = 0;
        while let Some(at) = self.stack.poll_timeout().filter(|t| *t <= until) {
            still = if at > self.now { 0 } else { still + 1 };
            assert!(still < MAX_TIMERS, "timers keep firing without time passing");
            self.now = self.now.max(at);
            self.stack.handle_timeout(self.now);
            self.settle();
        }
        self.now = self.now.max(until);
    }

    /// Everything is closed and the peer says no more: in the end nothing is left, and no timer runs.
    pub(crate) fn wind_up(&mut self) {
        let now = self.now;
        // A device that is busy becomes free again.
        while let Some(path) = self.blocked.pop() {
            self.stack.path_blocked(now, path, false);
        }
        while let Some(incoming) = self.incoming.pop_front() {
            self.stack.refuse(now, incoming, RefuseWith::Reset);
        }
        for c in 0..self.conns.len() {
            if let Some(id) = self.conns[c].id {
                self.stack.close(now, id);
            }
        }
        while let Some(id) = self.accepted.pop_front() {
            self.stack.close(now, id);
        }
        self.settle();
        self.advance_to(now + Duration::from_secs(4 * 3600));
        if self.trace && self.stack.connection_count() > 0 {
            eprintln!("{:#?}", self.stack);
        }
        assert_eq!(self.stack.connection_count(), 0, "a connection that nobody has never ends");
        assert_eq!(self.stack.poll_timeout(), None, "a timer runs for nothing");
    }
}

/// What the stack sends is what the application wrote, and checksums are right.
fn check_payload(conn: &mut Conn, f: usize, at: u32, sent: &Sent) {
    let Some(stack_key) = conn.stack_key.filter(|_| conn.mptcp) else {
        if !conn.mptcp && f == 0 {
            for (i, b) in sent.payload.iter().enumerate() {
                let offset = u64::from(at) + i as u64;
                assert_eq!(*b, content(false, offset), "byte {offset} of plain TCP was sent wrong");
            }
        }
        return;
    };
    let (_, idsn) = token_and_idsn(stack_key);
    // Before the data sequence space (RFC 8684 appendix B.2).
    let early = conn.syn_taken;
    for option in &sent.seg.options.mptcp {
        let (mapping, fin, dsn) = match option {
            MptcpOption::Dss(dss) => {
                let Some(m) = dss.mapping else { continue };
                let dsn = match m.dsn {
                    Dsn::Long(v) => v,
                    Dsn::Short(v) => idsn.0 & !0xffff_ffff | u64::from(v),
                };
                (m, dss.data_fin, dsn)
            }
            MptcpOption::Capable(MpCapable::Data { len, checksum, .. }) => {
                let dsn = Dsn::Long(idsn.0.wrapping_add(1));
                let m = DssMapping { dsn, ssn: 1, len: *len, checksum: *checksum };
                (m, false, idsn.0.wrapping_add(1))
            }
            _ => continue,
        };
        if mapping.len == 0 {
            continue;
        }
        let data = dsn.wrapping_sub(idsn.0);
        let len = u64::from(mapping.len) - u64::from(fin);
        assert!(early + data + len <= conn.written + 1, "more mapped than written");
        conn.stack_data_next = conn.stack_data_next.max(data + u64::from(mapping.len));
        for (i, b) in sent.payload.iter().enumerate() {
            let shift = if f == 0 { early as u32 } else { 0 };
            let place = u64::from(at.wrapping_add(i as u32).wrapping_sub(shift).wrapping_sub(mapping.ssn));
            if mapping.ssn != 0 && place < len {
                assert_eq!(
                    *b,
                    content(false, early + data + place),
                    "data byte {} was sent wrong",
                    data + place
                );
            }
        }
        if let Some(sum) = mapping.checksum {
            let bytes: Vec<u8> = (0..len).map(|i| content(false, early + data + i)).collect();
            let total =
                checksum::add(checksum::sum(&bytes, 0), dss_pseudo_header(dsn, mapping.ssn, mapping.len));
            let total = checksum::add(total, u64::from(sum));
            assert_eq!(checksum::fold(total), 0xffff, "a DSS checksum was sent wrong");
        }
    }
}

/// The right edge of the window never moves back (RFC 9293 §3.8.6, RFC 8684 §3.3.4).
fn check_window(conn: &mut Conn, f: usize, sent: &Sent) {
    let seg = &sent.seg;
    let key = conn.key;
    let mptcp = conn.mptcp;
    let flow = &mut conn.flows[f];
    if !seg.flags.ack || flow.over {
        return;
    }
    let scale = flow.scale.filter(|_| flow.sent_scale).unwrap_or(0);
    let window = u64::from(seg.window) << scale;
    let data_ack = seg.options.mptcp.iter().find_map(|o| match o {
        MptcpOption::Dss(dss) => match dss.ack? {
            DataAck::Long(v) => Some(v.wrapping_sub(token_and_idsn(key).1.0)),
            DataAck::Short(_) => None,
        },
        _ => None,
    });
    let (space, base) = match data_ack {
        Some(data) => (0, data),
        None if !mptcp => (1, u64::from(seg.ack.0.wrapping_sub(flow.isn))),
        None => return,
    };
    let edge = base + window;
    if let Some(before) = flow.edges[space] {
        // Less than a unit of the scale may be lost to rounding (RFC 7323 §2.4).
        assert!(edge + (1 << scale) > before, "the window's edge moved back from {before} to {edge}");
    }
    flow.edges[space] = Some(edge);
}

impl Conn {
    /// The keys, as far as they are known.
    pub(crate) fn keys(&self) -> Keys {
        Keys { own: self.key, stack: self.stack_key.unwrap_or(0) }
    }
}

impl Flow {
    /// A flow that the peer opens.
    pub(crate) fn by_peer(
        path: PathId,
        stack: SocketAddr,
        peer: SocketAddr,
        isn: u32,
        join: Option<u32>,
    ) -> Flow {
        Flow {
            path,
            stack,
            peer,
            isn,
            next: 0,
            stack_isn: None,
            stack_next: 0,
            scale: None,
            sent_scale: true,
            join: join.map(|nonce| (nonce, None)),
            over: false,
            edges: [None; 2],
            early: 0,
            fast_open: false,
        }
    }

    /// A segment of the peer at its next sequence number, acknowledging everything.
    pub(crate) fn segment(&self, flags: u8, window: u16) -> Segment {
        let seq = self.isn.wrapping_add(self.next);
        let ack = self.stack_isn.unwrap_or(0).wrapping_add(self.stack_next);
        let ack = if flags & RST != 0 && self.stack_isn.is_none() { 0 } else { ack };
        Segment {
            from: self.peer,
            to: self.stack,
            seq,
            ack,
            flags,
            window,
            urgent: 0,
            options: Vec::new(),
            payload: Vec::new(),
        }
    }
}

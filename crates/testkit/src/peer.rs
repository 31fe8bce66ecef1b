//! What a peer can do: what an honest one would, with every key, token and HMAC right, and everything else.

use crate::input::Input;
use crate::segment::{ACK, FIN, RST, SYN, Segment, encode, encode_syn, icmp_error};
use crate::world::{Conn, Flow, World, content};
use bytes::Bytes;
use std::net::{IpAddr, SocketAddr};
use umptcp_stack_core::config::{ConnectOptions, ConnectionConfig};
use umptcp_stack_core::types::{AddressId, Duration, SeqNumber};
use umptcp_stack_core::wire::checksum;
use umptcp_stack_core::wire::mptcp::keys::{join_hmac, leftmost_64, leftmost_160};
use umptcp_stack_core::wire::mptcp::{
    CapableFlags, DataAck, Dsn, Dss, DssMapping, MpCapable, MpFail, MpFastClose, MpJoin, MpPrio, MpTcpRst,
    MptcpOption, RemoveAddr, VERSION, dss_pseudo_header,
};
use umptcp_stack_core::wire::tcp::{MAX_OPTIONS, TcpOptions, Timestamps};

/// Port that the stack listens on, and the peer too.
pub(crate) const PORT: u16 = 80;

/// Address number `i` of the peer; every fourth is IPv6.
pub(crate) fn peer_address(i: usize, v6: bool) -> IpAddr {
    if v6 {
        IpAddr::from([0xfd00, 0, 0, 9, 0, 0, 0, 1 + i as u16])
    } else {
        IpAddr::from([10, 9, 0, 1 + i as u8])
    }
}

impl World {
    fn key(&mut self) -> u64 {
        u64::from(self.fresh()) << 32 | u64::from(self.fresh())
    }

    fn conn(&mut self, by_stack: bool, config: &ConnectionConfig) -> Conn {
        Conn {
            id: None,
            by_stack,
            key: self.key(),
            given: Vec::new(),
            stack_key: None,
            mptcp: config.mptcp,
            checksum: config.checksum,
            flows: Vec::new(),
            data_next: 1,
            stack_data_next: 1,
            written: 0,
            read: 0,
            lied: false,
            fell_back: false,
            receive_buffer: config.receive_buffer.limit(),
            max_subflows: config.max_subflows,
            syn_taken: 0,
            syn_given: 0,
        }
    }

    /// The stack connects to address `to` of the peer.
    pub(crate) fn connect(&mut self, to: usize, config: ConnectionConfig) {
        let v6 = self.addresses.first().is_some_and(IpAddr::is_ipv6);
        let remote = SocketAddr::new(peer_address(to, v6), PORT);
        let conn = self.conn(true, &config);
        self.conns.push(conn);
        let options = ConnectOptions::new(remote).with_config(config);
        match self.stack.connect(self.now, options) {
            Ok(id) => {
                if let Some(c) = self.conns.last_mut() {
                    c.id = Some(id);
                }
                self.settle();
            }
            Err(_) => {
                self.conns.pop();
            }
        }
    }

    /// The peer answers the SYN of `flow`.
    pub(crate) fn answer(&mut self, c: usize, f: usize, input: &mut Input<'_>) {
        let how = input.byte();
        let conn = &mut self.conns[c];
        let keys = conn.keys();
        let flow = &mut conn.flows[f];
        let checksum = conn.checksum || how & 1 != 0;
        let option = match flow.join {
            None => Some(MptcpOption::Capable(MpCapable::SynAck {
                version: if how >> 4 == 1 { how & 3 } else { VERSION },
                flags: CapableFlags::sha256(checksum, how & 2 != 0),
                key: conn.key,
            })),
            Some((nonce, Some(theirs))) => {
                let hmac = keys.syn_ack_hmac(nonce, theirs);
                let hmac = if how >> 4 == 1 { !hmac } else { hmac };
                let address_id = AddressId(how & 7);
                Some(MptcpOption::Join(MpJoin::SynAck { backup: how & 8 != 0, address_id, hmac, nonce }))
            }
            Some(_) => None,
        };
        let option = option.filter(|_| how >> 4 != 2);
        let scale = (how & 4 == 0).then_some(7);
        // What is said twice counts the first time.
        if flow.next == 0 {
            // Some or all of the SYN's data.
            let taken = [0, flow.early / 2, flow.early, flow.early][usize::from(how >> 5 & 3)];
            flow.stack_next = 1 + taken;
            flow.sent_scale = scale.is_some();
            if flow.join.is_none() {
                conn.syn_taken = u64::from(taken);
                conn.mptcp &= option.is_some();
                conn.checksum = checksum;
            }
        }
        let mut segment = flow.segment(SYN | ACK, 0xffff);
        segment.seq = flow.isn;
        let cookie = [how, 1, 2, 3, 4, 5];
        let cookie = flow.fast_open.then_some(&cookie[..if how & 0x80 == 0 { 6 } else { 4 }]);
        segment.options = encode_syn(option, 1460, scale, how & 0x40 == 0, cookie);
        flow.next = flow.next.max(1);
        let path = flow.path;
        self.inject(path, &segment);
    }

    /// The peer sends a SYN: for a new connection, or to join one.
    pub(crate) fn open(&mut self, join: Option<usize>, input: &mut Input<'_>) {
        let how = input.byte();
        let (isn, nonce) = (self.fresh(), self.fresh());
        let at = input.below(self.addresses.len());
        let (path, address) = (self.paths[at], self.addresses[at]);
        let peer = SocketAddr::new(
            peer_address(usize::from(how >> 6), address.is_ipv6()),
            1024 + (isn % 60_000) as u16,
        );
        let stack = SocketAddr::new(address, PORT);
        let (c, option, flow) = match join {
            Some(c) => {
                let conn = &self.conns[c];
                let token = conn.keys().stack_token();
                let token = if how & 0x30 == 0x30 { !token } else { token };
                let address_id = AddressId(how & 7);
                let option =
                    MptcpOption::Join(MpJoin::Syn { backup: how & 8 != 0, address_id, token, nonce });
                (c, option, Flow::by_peer(path, stack, peer, isn, Some(nonce)))
            }
            None => {
                let config = self.accept_config.clone();
                let mut conn = self.conn(false, &config);
                let flags = CapableFlags {
                    algorithms: how >> 2 & 1 ^ 1,
                    ..CapableFlags::sha256(how & 1 != 0, how & 2 != 0)
                };
                conn.mptcp &= flags.algorithms & 1 != 0 && how & 0x30 != 0x30;
                conn.checksum |= how & 1 != 0;
                self.conns.push(conn);
                let option = MptcpOption::Capable(MpCapable::Syn { version: VERSION, flags });
                (self.conns.len() - 1, option, Flow::by_peer(path, stack, peer, isn, None))
            }
        };
        let mut segment = flow.segment(SYN, 0xffff);
        let option = (join.is_some() || how & 0x30 != 0x30).then_some(option);
        // With a cookie, or one that has been tampered with, the SYN carries data: the first of the stream,
        // or others.
        let mut cookie = (self.fast_open && join.is_none()).then(|| self.cookie.clone());
        if let Some(cookie) = cookie.as_mut().filter(|c| !c.is_empty()) {
            let n = (usize::from(how) + 1) * if how & 4 == 0 { 1 } else { 8 };
            segment.payload = (1..=n as u64).map(|at| content(true, at)).collect();
            if how & 0x80 != 0 {
                segment.payload.fill(how);
                self.conns[c].lied = true;
            }
            if how & 0x48 == 0x48 {
                cookie[0] ^= how;
            }
        }
        let mss = if how & 0x40 == 0 { 1460 } else { 200 };
        segment.options = encode_syn(option, mss, Some(7), true, cookie.as_deref());
        let mut flow = flow;
        flow.next = 1;
        flow.early = segment.payload.len() as u32;
        self.conns[c].flows.push(flow);
        self.inject(path, &segment);
    }

    /// The peer acknowledges the SYN/ACK of flow `f`: the third ACK, with its option.
    pub(crate) fn third_ack(&mut self, c: usize, f: usize, input: &mut Input<'_>) {
        let how = input.byte();
        let conn = &self.conns[c];
        let flow = &conn.flows[f];
        let Some(stack_key) = conn.stack_key else { return self.acknowledge(c, f, how) };
        let option = match flow.join {
            None => MptcpOption::Capable(MpCapable::Ack {
                version: VERSION,
                flags: CapableFlags::sha256(conn.checksum, false),
                sender_key: conn.key,
                receiver_key: if how >> 4 == 1 { !stack_key } else { stack_key },
            }),
            Some((nonce, theirs)) => {
                let mut hmac = conn.keys().ack_hmac(nonce, theirs.unwrap_or(0));
                hmac[usize::from(how) % 20] ^= u8::from(how >> 4 == 1);
                MptcpOption::Join(MpJoin::Ack { hmac })
            }
        };
        let mut segment = flow.segment(ACK, 0x4000);
        segment.options = encode(&[option], None);
        let path = flow.path;
        self.inject(path, &segment);
    }

    /// The peer acknowledges everything on flow `f`, at both levels.
    pub(crate) fn acknowledge(&mut self, c: usize, f: usize, window: u8) {
        let conn = &self.conns[c];
        let mut segment = conn.flows[f].segment(ACK, u16::from(window) << 6);
        if conn.mptcp && conn.stack_key.is_some() {
            let ack = conn.keys().data_ack(conn.stack_data_next);
            let dss = Dss { data_fin: false, ack: Some(ack), mapping: None };
            segment.options = encode(&[MptcpOption::Dss(dss)], None);
        }
        let path = conn.flows[f].path;
        self.inject(path, &segment);
    }

    /// The peer sends `n` bytes as an honest one would, in `parts` packets under one mapping.
    pub(crate) fn data(&mut self, c: usize, f: usize, n: u16, parts: usize, input: &mut Input<'_>) {
        let how = input.byte();
        let conn = &mut self.conns[c];
        // Before the handshake there is nothing to send on.
        if conn.flows[f].next == 0 || conn.flows[f].stack_isn.is_none() {
            return;
        }
        let first = conn.data_next;
        let given = conn.syn_given;
        let payload: Vec<u8> = (0..u64::from(n)).map(|i| content(true, given + first + i)).collect();
        let fin = how & 0x80 != 0 && n < u16::MAX;
        let plain_fin = fin && !conn.mptcp;
        let fin = fin && conn.mptcp;
        let declared = n + u16::from(fin);
        let flow = &conn.flows[f];
        // What the SYN carried lies before the data, on both levels (RFC 8684 appendix B.2).
        let before = if f == 0 { given as u32 } else { 0 };
        let ssn = if n == 0 { 0 } else { flow.next.wrapping_sub(before) };
        let mut mapping = conn.keys().mapping(first, ssn, declared, conn.checksum.then_some(&payload));
        if how & 1 != 0 {
            mapping.dsn = Dsn::Short(conn.keys().own_data(first) as u32);
        }
        let ack = conn.keys().data_ack(conn.stack_data_next);
        let dss = Dss { data_fin: fin, ack: (how & 2 == 0).then_some(ack), mapping: Some(mapping) };
        let options = if conn.mptcp { encode(&[MptcpOption::Dss(dss)], None) } else { Vec::new() };
        let mut segments = Vec::new();
        let mut flow = flow.clone();
        let size = payload.len().div_ceil(parts.max(1)).max(1);
        for (i, part) in payload.chunks(size).chain(payload.is_empty().then_some(&[][..])).enumerate() {
            let mut segment = flow.segment(ACK, 0xffff);
            segment.payload = part.to_vec();
            // A mapping may stand on each packet or on the first only (RFC 8684 §3.3.1).
            if i == 0 || how & 4 == 0 {
                segment.options.clone_from(&options);
            }
            flow.next = flow.next.wrapping_add(part.len() as u32);
            segments.push(segment);
        }
        if let (true, Some(last)) = (plain_fin, segments.last_mut()) {
            last.flags |= FIN;
            flow.next = flow.next.wrapping_add(1);
        }
        // Whatever follows the end of the data is not what an honest peer sends.
        conn.lied |= fin || plain_fin;
        if how & 8 != 0 {
            segments.reverse();
        }
        conn.data_next += u64::from(declared);
        let path = flow.path;
        conn.flows[f].next = flow.next;
        for segment in segments {
            self.inject(path, &segment);
        }
    }

    /// A segment of whatever the input says, near what is expected.
    pub(crate) fn anything(&mut self, c: usize, f: usize, input: &mut Input<'_>) {
        let control = input.byte();
        let near = |v: u32, input: &mut Input<'_>| v.wrapping_add(input.offset() as u32);
        let mut segment = self.conns[c].flows[f].segment(0, 0);
        segment.flags = match control & 7 {
            0..=4 => ACK,
            5 => ACK | FIN,
            6 => input.byte(),
            _ => RST | (input.byte() & ACK),
        };
        segment.seq = near(segment.seq, input);
        segment.ack = near(segment.ack, input);
        segment.window = input.word();
        let n = match control >> 3 & 3 {
            0 => 0,
            1 => u64::from(input.byte()),
            2 => u64::from(input.word() & 0xfff),
            _ => u64::from(input.word()),
        };
        let first = self.conns[c].data_next;
        segment.payload = (0..n).map(|i| content(true, first + i)).collect();
        let count = usize::from(control >> 5 & 3);
        let mut options = Vec::new();
        for _ in 0..count {
            options.extend(self.option(c, f, &segment, input));
        }
        let stamps = (control & 0x80 != 0).then(|| Timestamps { value: input.long(), echo: input.long() });
        segment.options = encode(&options, stamps);
        if count == 0 && control & 0x80 != 0 {
            segment.options = input.bytes(MAX_OPTIONS).to_vec();
        }
        let conn = &mut self.conns[c];
        conn.lied |= n > 0 || segment.flags & (FIN | SYN) != 0;
        if n > 0 && control & 7 == 1 {
            conn.flows[f].next = conn.flows[f].next.wrapping_add(n as u32);
            conn.data_next += n;
        }
        let path = conn.flows[f].path;
        self.inject(path, &segment);
    }

    /// An MPTCP option whose fields are right but where the input says otherwise.
    fn option(
        &mut self,
        c: usize,
        f: usize,
        segment: &Segment,
        input: &mut Input<'_>,
    ) -> Option<MptcpOption> {
        let conn = &mut self.conns[c];
        let flow = &conn.flows[f];
        let keys = conn.keys();
        let (own, theirs) = (keys.own, keys.stack);
        let wrong = |v: u64, input: &mut Input<'_>| v.wrapping_add(input.offset() as u64);
        Some(match input.byte() % 12 {
            0..=3 => {
                conn.lied = true;
                let what = input.byte();
                let dsn = wrong(keys.own_data(conn.data_next), input);
                let ssn = (flow.next as i64).wrapping_add(input.offset()) as u32;
                let len = if what & 1 == 0 { segment.payload.len() as u16 } else { input.word() };
                let sum = checksum::add(checksum::sum(&segment.payload, 0), dss_pseudo_header(dsn, ssn, len));
                let sum = !checksum::fold(sum) ^ u16::from(what & 2 != 0);
                let mapping = DssMapping {
                    dsn: if what & 4 == 0 { Dsn::Long(dsn) } else { Dsn::Short(dsn as u32) },
                    ssn,
                    len,
                    checksum: (conn.checksum ^ (what & 8 != 0)).then_some(sum),
                };
                let ack = wrong(keys.stack_data(conn.stack_data_next), input);
                let ack = if what & 16 == 0 { DataAck::Long(ack) } else { DataAck::Short(ack as u32) };
                MptcpOption::Dss(Dss {
                    data_fin: what & 32 != 0,
                    ack: (what & 64 == 0).then_some(ack),
                    mapping: (what & 128 == 0).then_some(mapping),
                })
            }
            4 => {
                let what = input.byte();
                let v6 = what & 8 != 0;
                let address = match what & 0x70 {
                    0x70 => self.addresses[0],
                    0x60 => IpAddr::from([127, 0, 0, 1]),
                    0x50 => IpAddr::from([224, 0, 0, 1]),
                    _ => peer_address(usize::from(what & 3), v6),
                };
                let port = (what & 4 != 0).then(|| input.word());
                let id = AddressId(input.byte() & 0x0f);
                let mut add = keys.add_addr(id, address, port);
                add.hmac = add.hmac.map(|hmac| wrong(hmac, input)).filter(|_| what & 0x80 == 0);
                MptcpOption::AddAddr(add)
            }
            5 => {
                let ids = input
                    .bytes(8)
                    .iter()
                    .map(|id| AddressId(id & 0x0f))
                    .chain([AddressId(0)])
                    .take(8)
                    .collect();
                MptcpOption::RemoveAddr(RemoveAddr { ids })
            }
            6 => {
                let what = input.byte();
                let address_id = (what & 2 != 0).then_some(AddressId(what >> 4));
                MptcpOption::Prio(MpPrio { backup: what & 1 != 0, address_id })
            }
            7 => MptcpOption::Fail(MpFail { dsn: wrong(conn.data_next, input) }),
            8 => MptcpOption::FastClose(MpFastClose { receiver_key: wrong(theirs, input) }),
            9 => MptcpOption::Reset(MpTcpRst { transient: input.byte() & 1 != 0, reason: input.byte() }),
            10 => {
                conn.lied = true;
                let flags = CapableFlags::sha256(conn.checksum, false);
                let (sender_key, receiver_key) = (wrong(own, input), wrong(theirs, input));
                let len = segment.payload.len() as u16;
                let checksum = conn.checksum.then(|| input.word());
                MptcpOption::Capable(match input.byte() & 3 {
                    0 => MpCapable::Syn { version: VERSION, flags },
                    1 => MpCapable::SynAck { version: VERSION, flags, key: sender_key },
                    2 => MpCapable::Ack { version: VERSION, flags, sender_key, receiver_key },
                    _ => MpCapable::Data { version: VERSION, flags, sender_key, receiver_key, len, checksum },
                })
            }
            _ => {
                let (nonce, peer) = flow.join.unwrap_or((1, None));
                let mac = join_hmac(own, theirs, nonce, peer.unwrap_or(0));
                let token = keys.stack_token();
                MptcpOption::Join(match input.byte() & 3 {
                    0 => MpJoin::Syn { backup: false, address_id: AddressId(2), token, nonce },
                    1 => MpJoin::SynAck {
                        backup: true,
                        address_id: AddressId(3),
                        hmac: leftmost_64(&mac),
                        nonce,
                    },
                    _ => MpJoin::Ack { hmac: leftmost_160(&mac) },
                })
            }
        })
    }

    /// A packet from before once more, perhaps with a few bytes changed, perhaps the stack's own.
    pub(crate) fn replay(&mut self, input: &mut Input<'_>) {
        let how = input.byte();
        let kept = if how & 1 == 0 { &self.peer_packets } else { &self.stack_packets };
        let Some((path, packet)) = kept.get(input.below(kept.len())).cloned() else { return };
        let mut packet = packet.to_vec();
        if how & 2 != 0 && !packet.is_empty() {
            for _ in 0..how >> 6 {
                let at = usize::from(input.word()) % packet.len();
                packet[at] = input.byte();
            }
            for conn in &mut self.conns {
                conn.lied = true;
            }
        }
        self.inject_packet(path, packet.into());
    }

    /// A router complains about the last packet of the stack.
    pub(crate) fn complain(&mut self, input: &mut Input<'_>) {
        let Some((path, packet)) = self.stack_packets.back().cloned() else { return };
        let (kind, code, rest) = (input.byte(), input.byte(), input.long());
        let error: Bytes = icmp_error(peer_address(0, false), &packet, kind, code, rest);
        self.inject_packet(path, error);
    }

    /// Several packets merged by the device: SACK blocks that say anything.
    pub(crate) fn selective(&mut self, c: usize, f: usize, input: &mut Input<'_>) {
        let flow = &self.conns[c].flows[f];
        let mut segment = flow.segment(ACK, input.word());
        segment.ack = segment.ack.wrapping_sub(u32::from(input.word()));
        let mut options = TcpOptions::default();
        for _ in 0..1 + input.below(3) {
            let left = segment.ack.wrapping_add(input.offset() as u32).wrapping_add(u32::from(input.word()));
            let right = left.wrapping_add(u32::from(input.word()));
            options.sack.push((SeqNumber(left), SeqNumber(right)));
        }
        let mut b = [0; MAX_OPTIONS];
        let n = options.emit(&mut b);
        segment.options = b[..n].to_vec();
        let path = flow.path;
        self.inject(path, &segment);
    }

    /// The application writes `n` bytes to connection `c`.
    pub(crate) fn write(&mut self, c: usize, n: usize) {
        let conn = &mut self.conns[c];
        let Some(id) = conn.id else { return };
        let bytes: Vec<u8> = (0..n as u64).map(|i| content(false, conn.written + 1 + i)).collect();
        if let Ok(taken) = self.stack.send(self.now, id, bytes.into()) {
            assert!(taken <= n);
            conn.written += taken as u64;
        }
        self.settle();
    }

    /// Time passes: a little, until the next timer, or long.
    pub(crate) fn wait(&mut self, input: &mut Input<'_>) {
        let how = input.byte();
        let until = match how & 3 {
            0 => self.now + Duration::from_millis(u64::from(how >> 2)),
            1 => self.now + Duration::from_millis(u64::from(how >> 2) * 50),
            2 => self.stack.poll_timeout().unwrap_or(self.now),
            _ => self.now + Duration::from_secs(u64::from(how >> 2)),
        };
        self.advance_to(until.max(self.now));
    }
}

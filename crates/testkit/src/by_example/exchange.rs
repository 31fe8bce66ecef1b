//! An exchange of packets: recorded from a simulated network, and drawn as a time-sequence diagram.

use super::draw;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use umptcp_netsim::trace::{PacketEvent, PacketEventKind, Tap};
use umptcp_netsim::{Direction, Duration, Instant, Pair, PairBuilder, Side};
use umptcp_stack_core::types::DataSeq;
use umptcp_stack_core::wire::header::IpView;
use umptcp_stack_core::wire::mptcp::keys::{
    add_addr_hmac, join_hmac, leftmost_64, leftmost_160, token_and_idsn,
};
use umptcp_stack_core::wire::mptcp::{
    AddAddr, DataAck, Dsn, Dss, DssMapping, MpCapable, MpJoin, MptcpOption, ResetReason,
};
use umptcp_stack_core::wire::tcp::{TcpFlags, TcpRepr};

/// What one end of a cable saw of a packet.
#[derive(Clone)]
struct Seen {
    at: Instant,
    tcp: TcpRepr,
    payload: Vec<u8>,
}

/// A packet: as it was sent, and as it arrived.
#[derive(Clone)]
struct Packet {
    cable: usize,
    direction: Direction,
    from: SocketAddr,
    to: SocketAddr,
    sent: Seen,
    arrived: Option<Seen>,
    /// The link has dropped it.
    dropped: bool,
}

impl Packet {
    /// The ends of its subflow, the client's first.
    fn ends(&self) -> (SocketAddr, SocketAddr) {
        match self.direction {
            Direction::Forward => (self.from, self.to),
            Direction::Reverse => (self.to, self.from),
        }
    }

    fn side(&self) -> Side {
        match self.direction {
            Direction::Forward => Side::Client,
            Direction::Reverse => Side::Server,
        }
    }
}

/// Collects the packets of a network.
struct Recorder(Arc<Mutex<Vec<Packet>>>);

impl Tap for Recorder {
    fn packet(&mut self, event: &PacketEvent<'_>) {
        let Ok(ip) = IpView::new(event.packet.header()) else { return };
        let rest = event.packet.header().get(ip.header_len()..).unwrap_or(&[]);
        let Ok((tcp, _)) = TcpRepr::parse(rest) else { return };
        let (from, to) = (SocketAddr::new(ip.src(), tcp.src_port), SocketAddr::new(ip.dst(), tcp.dst_port));
        let payload = event.packet.payload().slices().iter().flat_map(|s| s.iter().copied()).collect();
        let seen = Seen { at: event.at, tcp, payload };
        let (cable, direction) = (event.cable, event.direction);
        let mut packets = self.0.lock().expect("no test has panicked");
        if event.what == PacketEventKind::Sent {
            packets.push(Packet { cable, direction, from, to, sent: seen, arrived: None, dropped: false });
            return;
        }
        // A middlebox may have changed options and payload, but not these. Of several that are alike, links keep the
        // order.
        let same = |p: &&mut Packet| {
            p.arrived.is_none()
                && !p.dropped
                && (p.cable, p.direction, p.from, p.to) == (cable, direction, from, to)
                && (p.sent.tcp.seq, p.sent.tcp.ack, p.sent.tcp.flags)
                    == (seen.tcp.seq, seen.tcp.ack, seen.tcp.flags)
                && p.sent.payload.len() == seen.payload.len()
        };
        if let Some(packet) = packets.iter_mut().find(same) {
            match event.what {
                PacketEventKind::Delivered => packet.arrived = Some(seen),
                _ => packet.dropped = true,
            }
        }
    }
}

/// A client and a server whose packets are recorded.
pub(super) struct Script {
    /// The network.
    pub(super) net: Pair,
    packets: Arc<Mutex<Vec<Packet>>>,
    hidden: usize,
}

impl Script {
    /// Records what is sent in this network. Interfaces neither cut nor merge, so that what a stack sends is
    /// one packet each.
    pub(super) fn new(builder: PairBuilder) -> Script {
        let mut net = builder.segmentation(false).gro(false).build();
        let packets = Arc::new(Mutex::new(Vec::new()));
        net.set_tap(Some(Box::new(Recorder(Arc::clone(&packets)))));
        Script { net, packets, hidden: 0 }
    }

    /// What has been sent until now is preparation, and not shown. Time begins with the first packet that is.
    pub(super) fn begin(&mut self) {
        self.hidden = self.packets.lock().expect("no test has panicked").len();
    }

    /// What is shown begins with the `n`th packet, the first being 1.
    pub(super) fn begin_with(&mut self, n: usize) {
        self.hidden = n.saturating_sub(1);
    }

    /// Lets time pass.
    pub(super) fn wait_ms(&mut self, ms: u64) {
        self.net.run_for(Duration::from_millis(ms)).expect("the network runs");
    }

    /// What has been sent since it began.
    pub(super) fn exchange(&self) -> Exchange {
        let packets = self.packets.lock().expect("no test has panicked").clone();
        let mut subflows: Vec<Subflow> = Vec::new();
        let mut exchange = Exchange::default();
        for packet in &packets {
            let ends = packet.ends();
            let side = packet.side() as usize;
            if !subflows.iter().any(|s| s.ends == ends) {
                subflows.push(Subflow { ends, first: [None; 2], nonces: [None; 2] });
            }
            if packet.sent.tcp.flags.syn
                && let Some(subflow) = subflows.iter_mut().find(|s| s.ends == ends)
            {
                subflow.first[side].get_or_insert(packet.sent.tcp.seq.0);
            }
            for option in &packet.sent.tcp.options.mptcp {
                if let MptcpOption::Join(MpJoin::Syn { nonce, .. } | MpJoin::SynAck { nonce, .. }) = option
                    && let Some(subflow) = subflows.iter_mut().find(|s| s.ends == ends)
                {
                    subflow.nonces[side].get_or_insert(*nonce);
                }
                if let MptcpOption::Capable(
                    MpCapable::SynAck { key, .. }
                    | MpCapable::Ack { sender_key: key, .. }
                    | MpCapable::Data { sender_key: key, .. },
                ) = option
                {
                    exchange.keys[side].get_or_insert(*key);
                }
            }
        }
        exchange.subflows = subflows;
        exchange.packets = packets.into_iter().skip(self.hidden).collect();
        exchange.start = exchange.packets.first().map_or(Instant::ZERO, |p| p.sent.at);
        exchange
    }
}

/// A subflow: its ends, the client's first, and of each its initial sequence number and the nonce of its MP_JOIN.
struct Subflow {
    ends: (SocketAddr, SocketAddr),
    first: [Option<u32>; 2],
    nonces: [Option<u32>; 2],
}

/// Packets, and what is needed to read them.
#[derive(Default)]
pub struct Exchange {
    packets: Vec<Packet>,
    subflows: Vec<Subflow>,
    /// The client's key and the server's.
    keys: [Option<u64>; 2],
    start: Instant,
}

const SIDES: [&str; 2] = ["client", "server"];

/// A number of the data level, as it stands in an option.
#[derive(Clone, Copy)]
enum Number {
    Short(u32),
    Long(u64),
}

impl Exchange {
    /// How many packets there are.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Those that did not arrive, the first packet being 1.
    pub(super) fn lost(&self) -> Vec<usize> {
        let numbered = (1..).zip(&self.packets);
        numbered.filter(|(_, p)| p.arrived.is_none()).map(|(n, _)| n).collect()
    }

    /// What packet `n` is, the first being 1: its flags without PSH, and its MPTCP options; "SYN MP_CAPABLE".
    pub fn kind(&self, n: usize) -> Option<String> {
        let packet = self.packets.get(n.checked_sub(1)?)?;
        let names = packet.sent.tcp.options.mptcp.iter().map(draw::name);
        Some(
            [flags(packet.sent.tcp.flags)]
                .into_iter()
                .chain(names.map(str::to_owned))
                .collect::<Vec<_>>()
                .join(" "),
        )
    }

    fn name_of(&self, packet: &Packet) -> char {
        let index = self.subflows.iter().position(|s| s.ends == packet.ends()).unwrap_or(0);
        char::from(b'A' + index as u8)
    }

    /// How far `number` lies after the first sequence number that `side` used on the packet's subflow.
    fn relative(&self, packet: &Packet, side: Side, number: u32) -> u32 {
        let subflow = self.subflows.iter().find(|s| s.ends == packet.ends());
        number.wrapping_sub(subflow.and_then(|s| s.first[side as usize]).unwrap_or(0))
    }

    /// How far a number of the data level lies after the initial data sequence number of `side`.
    fn data(&self, side: Side, number: Number) -> u64 {
        let DataSeq(first) = self.keys[side as usize].map_or(DataSeq(0), |key| token_and_idsn(key).1);
        match number {
            Number::Long(n) => n.wrapping_sub(first),
            Number::Short(n) => u64::from(n.wrapping_sub(first as u32)),
        }
    }

    fn ms(&self, at: Instant) -> String {
        format!("{:.1}", (at - self.start).as_nanos() as f64 / 1e6)
    }

    /// "seq 1, ack 1, 100 bytes", with the flags before it.
    fn numbers(&self, packet: &Packet) -> String {
        let Seen { tcp, payload, .. } = &packet.sent;
        let mut text = format!("seq {}", self.relative(packet, packet.side(), tcp.seq.0));
        if tcp.flags.ack {
            let _ = write!(text, " ack {}", self.relative(packet, packet.side().peer(), tcp.ack.0));
        }
        if !payload.is_empty() {
            let _ = write!(text, " len {}", payload.len());
        }
        text
    }

    /// An option in a few words, with numbers relative to the first.
    fn brief(&self, packet: &Packet, option: &MptcpOption) -> String {
        let side = packet.side();
        let name = draw::name(option);
        match option {
            MptcpOption::Capable(MpCapable::Syn { .. }) => name.to_owned(),
            MptcpOption::Capable(MpCapable::SynAck { .. }) => format!("{name} key"),
            MptcpOption::Capable(MpCapable::Ack { .. }) => format!("{name} both keys"),
            MptcpOption::Capable(MpCapable::Data { len, .. }) => format!("{name} both keys, length {len}"),
            MptcpOption::Join(MpJoin::Syn { address_id, .. }) => {
                format!("{name} token, nonce, address {address_id}")
            }
            MptcpOption::Join(MpJoin::SynAck { address_id, .. }) => {
                format!("{name} HMAC, nonce, address {address_id}")
            }
            MptcpOption::Join(MpJoin::Ack { .. }) => format!("{name} HMAC"),
            MptcpOption::Dss(dss) => self.brief_dss(side, dss),
            MptcpOption::AddAddr(o) => {
                let echo = if o.hmac.is_none() { ", echo" } else { "" };
                format!("{name} {} = {}{echo}", o.address_id, o.address)
            }
            MptcpOption::RemoveAddr(o) => {
                let ids: Vec<String> = o.ids.iter().map(ToString::to_string).collect();
                format!("{name} {}", ids.join(", "))
            }
            MptcpOption::Prio(o) => format!("{name} B={}", u8::from(o.backup)),
            MptcpOption::Fail(o) => format!("{name} DSN {}", self.data(side.peer(), Number::Long(o.dsn))),
            MptcpOption::FastClose(_) => format!("{name} receiver's key"),
            MptcpOption::Reset(o) => format!("{name} {}", ResetReason::from(o.reason)),
        }
    }

    fn brief_dss(&self, side: Side, dss: &Dss) -> String {
        let mut parts = Vec::new();
        if let Some(ack) = dss.ack {
            parts.push(format!("DATA_ACK {}", self.data(side.peer(), ack_number(ack))));
        }
        if let Some(DssMapping { dsn, ssn, len, .. }) = dss.mapping {
            let dsn = self.data(side, dsn_number(dsn));
            parts.push(match (len, dss.data_fin) {
                (0, _) => format!("DSN {dsn} on, for good"),
                (1, true) if ssn == 0 => format!("DATA_FIN at DSN {dsn}"),
                (_, fin) => {
                    let last = dsn.wrapping_add(u64::from(len)).wrapping_sub(1);
                    format!("DSN {dsn}-{last} = SSN {ssn} on{}", if fin { ", DATA_FIN last" } else { "" })
                }
            });
        }
        format!("DSS {}", parts.join(", "))
    }

    /// The time-sequence diagram.
    pub fn sequence(&self) -> String {
        let labels: Vec<String> = self
            .packets
            .iter()
            .map(|p| {
                let mut text = format!("{} {}", flags(p.sent.tcp.flags), self.numbers(p));
                for option in &p.sent.tcp.options.mptcp {
                    let _ = write!(text, "  {}", self.brief(p, option));
                }
                text
            })
            .collect();
        let width = labels.iter().map(|l| l.chars().count()).max().unwrap_or(0) + 9;
        let mut text = format!("  #    ms      client{:>space$}\n", "server", space = width - 2);
        for (i, (packet, label)) in self.packets.iter().zip(&labels).enumerate() {
            let changed = if self.change(packet).is_some() { " *" } else { "" };
            let room = width - label.chars().count() - 5;
            let lost = packet.arrived.is_none();
            let arrow = match (packet.direction, lost) {
                (Direction::Forward, false) => format!("--- {label} {}>", "-".repeat(room - 1)),
                (Direction::Forward, true) => format!("--- {label} {}X ", "-".repeat(room - 2)),
                (Direction::Reverse, false) => format!("<{} {label} ---", "-".repeat(room - 1)),
                (Direction::Reverse, true) => format!(" X{} {label} ---", "-".repeat(room - 2)),
            };
            let _ = writeln!(
                text,
                "{:>3} {:>7}  {} |{arrow}|{changed}",
                i + 1,
                self.ms(packet.sent.at),
                self.name_of(packet)
            );
        }
        let mut shown: Vec<char> = self.packets.iter().map(|p| self.name_of(p)).collect();
        shown.sort_unstable();
        shown.dedup();
        text.push('\n');
        for (index, subflow) in self.subflows.iter().enumerate() {
            let name = char::from(b'A' + index as u8);
            if shown.contains(&name) {
                let _ = writeln!(text, "  {name}: {} to {}", subflow.ends.0, subflow.ends.1);
            }
        }
        if self.packets.iter().any(|p| p.arrived.is_none()) {
            text.push_str("  X: lost on the way\n");
        }
        if self.packets.iter().any(|p| self.change(p).is_some()) {
            text.push_str("  *: changed on the way\n");
        }
        text
    }

    /// What a middlebox has done to the packet.
    fn change(&self, packet: &Packet) -> Option<&'static str> {
        let arrived = packet.arrived.as_ref()?;
        if arrived.tcp.options.mptcp != packet.sent.tcp.options.mptcp {
            return Some("A box on the way takes the MPTCP option off: it arrives without.");
        }
        (arrived.payload != packet.sent.payload).then_some("A box on the way changes the payload.")
    }

    /// Packet `n` in full, the first being 1: Markdown.
    pub fn packet(&self, n: usize) -> String {
        let Some(packet) = n.checked_sub(1).and_then(|i| self.packets.get(i)) else { return String::new() };
        let Seen { at, tcp, payload } = &packet.sent;
        let (from, to) = (SIDES[packet.side() as usize], SIDES[packet.side().peer() as usize]);
        let kind = self.kind(n).unwrap_or_default();
        let mut text = format!("### Packet {n}: {from} to {to}, {kind}\n\n");
        let arrival = match &packet.arrived {
            Some(seen) => format!("arrives at {} ms", self.ms(seen.at)),
            None => "is lost".to_owned(),
        };
        let len = match payload.len() {
            0 => "no payload".to_owned(),
            n => format!("{n} bytes of payload"),
        };
        let _ = write!(
            text,
            "Subflow {}, {}, {len}; leaves at {} ms and {arrival}.",
            self.name_of(packet),
            self.numbers(packet).replace(" ack", ", ack").split(" len").next().unwrap_or_default(),
            self.ms(*at)
        );
        let others = {
            let mut others = tcp.options.clone();
            others.mptcp.clear();
            others.to_string()
        };
        if !others.is_empty() && tcp.flags.syn {
            let _ = write!(text, " Other options: {others}.");
        }
        if let Some(change) = self.change(packet) {
            let _ = write!(text, " {change}");
        }
        text.push('\n');
        for option in &tcp.options.mptcp {
            let _ = write!(text, "\n```text\n{}```\n", draw::option(option));
            let notes = self.notes(packet, option);
            if !notes.is_empty() {
                text.push('\n');
            }
            for note in notes {
                let _ = writeln!(text, "- {note}");
            }
        }
        text
    }

    /// "the client's"
    fn whose(&self, key: u64) -> &'static str {
        match self.keys {
            [Some(client), _] if client == key => "the client's key",
            [_, Some(server)] if server == key => "the server's key",
            _ => "a key that neither has",
        }
    }

    fn own_and_other_key(&self, side: Side) -> Option<(u64, u64)> {
        self.keys[side as usize].zip(self.keys[side.peer() as usize])
    }

    /// What the HMAC of a MP_JOIN is; `fits` compares it with the right one.
    fn hmac_note(&self, packet: &Packet, bits: u8, fits: impl Fn(&[u8; 32]) -> bool) -> String {
        let side = packet.side();
        let (own, other) = (SIDES[side as usize], SIDES[side.peer() as usize]);
        let nonces = self
            .subflows
            .iter()
            .find(|s| s.ends == packet.ends())
            .and_then(|s| s.nonces[side as usize].zip(s.nonces[side.peer() as usize]));
        let right = self
            .own_and_other_key(side)
            .zip(nonces)
            .is_some_and(|(keys, nonces)| fits(&join_hmac(keys.0, keys.1, nonces.0, nonces.1)));
        format!(
            "HMAC: {}the first {bits} bits of HMAC-SHA256, with the {own}'s key and the {other}'s behind it as key, over \
             the {own}'s nonce and the {other}'s.",
            if right { "" } else { "not " }
        )
    }

    /// What the numbers of an option mean.
    fn notes(&self, packet: &Packet, option: &MptcpOption) -> Vec<String> {
        let side = packet.side();
        let (own, other) = (SIDES[side as usize], SIDES[side.peer() as usize]);
        let key_note = |what: &str, key: u64| {
            let (token, DataSeq(idsn)) = token_and_idsn(key);
            format!(
                "{what}: {}. Its SHA-256 gives the token `{token:#010x}` (first 32 bits) and the initial data sequence \
                 number `{idsn:#018x}` (last 64 bits).",
                self.whose(key)
            )
        };
        match option {
            MptcpOption::Capable(MpCapable::SynAck { key, .. }) => vec![key_note("Key", *key)],
            MptcpOption::Capable(
                MpCapable::Ack { sender_key, receiver_key, .. }
                | MpCapable::Data { sender_key, receiver_key, .. },
            ) => vec![
                key_note("Sender's key", *sender_key),
                format!("Receiver's key: {}, given back.", self.whose(*receiver_key)),
            ],
            MptcpOption::Join(MpJoin::Syn { token, .. }) => {
                let fits = self.keys[side.peer() as usize].is_some_and(|key| token_and_idsn(key).0 == *token);
                vec![format!(
                    "Token: {} of the {other}'s key.",
                    if fits { "the first 32 bits of the SHA-256" } else { "not that" }
                )]
            }
            MptcpOption::Join(MpJoin::SynAck { hmac, .. }) => {
                vec![self.hmac_note(packet, 64, |mac| leftmost_64(mac) == *hmac)]
            }
            MptcpOption::Join(MpJoin::Ack { hmac }) => {
                vec![self.hmac_note(packet, 160, |mac| leftmost_160(mac) == *hmac)]
            }
            MptcpOption::AddAddr(AddAddr { address_id, address, port, hmac: Some(hmac) }) => {
                let right = self.own_and_other_key(side).is_some_and(|(own, other)| {
                    add_addr_hmac(own, other, *address_id, *address, port.unwrap_or(0)) == *hmac
                });
                vec![format!(
                    "HMAC: {}the last 64 bits of HMAC-SHA256, with the {own}'s key and the {other}'s behind it as key, over \
                     Address ID, address and port (0 here).",
                    if right { "" } else { "not " }
                )]
            }
            MptcpOption::Dss(dss) => {
                let mut notes = Vec::new();
                if let Some(ack) = dss.ack {
                    let n = self.data(side.peer(), ack_number(ack));
                    notes.push(format!("Data ACK: the {other}'s initial data sequence number + {n}."));
                }
                if let Some(m) = dss.mapping {
                    let n = self.data(side, dsn_number(m.dsn));
                    notes.push(format!(
                        "Data sequence number: the {own}'s initial data sequence number + {n}."
                    ));
                }
                notes
            }
            MptcpOption::Fail(o) => {
                let n = self.data(side.peer(), Number::Long(o.dsn));
                vec![format!("Data sequence number: the {other}'s initial data sequence number + {n}.")]
            }
            MptcpOption::FastClose(o) => vec![format!("Key: {}.", self.whose(o.receiver_key))],
            MptcpOption::Reset(o) => vec![format!("Reason {}: {}.", o.reason, ResetReason::from(o.reason))],
            _ => Vec::new(),
        }
    }
}

fn ack_number(ack: DataAck) -> Number {
    match ack {
        DataAck::Short(n) => Number::Short(n),
        DataAck::Long(n) => Number::Long(n),
    }
}

fn dsn_number(dsn: Dsn) -> Number {
    match dsn {
        Dsn::Short(n) => Number::Short(n),
        Dsn::Long(n) => Number::Long(n),
    }
}

/// The flags by their names; PSH is left out: it says nothing here.
fn flags(flags: TcpFlags) -> String {
    let names = [(flags.syn, "SYN"), (flags.fin, "FIN"), (flags.rst, "RST"), (flags.ack, "ACK")];
    names.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect::<Vec<_>>().join("/")
}

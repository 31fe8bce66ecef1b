//! What happened to each packet: text lines for people, a hash for determinism tests.

use crate::direction::Direction;
pub use crate::drop_reason::DropReason;
use crate::packet::Packet;
use std::collections::VecDeque;
use std::fmt;
use umptcp_stack_core::wire::PacketSummary;
use umptcp_types::Instant;

/// What happened to a packet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PacketEventKind {
    /// Handed to the link, after cutting and before the middleboxes.
    Sent,
    /// Came out at the other end.
    Delivered,
    /// Gone.
    Dropped(DropReason),
}

/// One thing that happened to one packet.
#[derive(Debug)]
#[non_exhaustive]
pub struct PacketEvent<'a> {
    /// When.
    pub at: Instant,
    /// The cable, by number in order of creation.
    pub cable: usize,
    /// The way the packet goes.
    pub direction: Direction,
    /// What.
    pub what: PacketEventKind,
    /// The packet.
    pub packet: &'a Packet,
}

/// How many packet events are kept as text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TraceMode {
    /// Nothing.
    #[default]
    Off,
    /// The last packet events, this many.
    Last(usize),
    /// Every packet event.
    All,
}

/// A packet event that is kept: header bytes only.
#[derive(Clone, Debug)]
struct Record {
    at: Instant,
    cable: usize,
    direction: Direction,
    what: PacketEventKind,
    header: Vec<u8>,
    payload_len: usize,
}

/// Sees every packet event: the writer of a capture file, for instance.
pub trait Tap: Send {
    /// Called for each event, in the order the simulator finds out. A loss on a link is found out when the
    /// link is next looked at, so its time may be a little before the previous event's.
    fn packet(&mut self, event: &PacketEvent<'_>);
}

/// Collects packet events.
#[derive(Default)]
pub(crate) struct Recorder {
    mode: TraceMode,
    records: VecDeque<Record>,
    hash: Hash,
    count: u64,
    tap: Option<Box<dyn Tap>>,
}

impl Recorder {
    pub(crate) fn set_mode(&mut self, mode: TraceMode) {
        self.mode = mode;
        if mode == TraceMode::Off {
            self.records.clear();
        }
    }

    pub(crate) fn set_tap(&mut self, tap: Option<Box<dyn Tap>>) {
        self.tap = tap;
    }

    pub(crate) fn record(&mut self, event: &PacketEvent<'_>) {
        self.count += 1;
        let (tag, reason) = match event.what {
            PacketEventKind::Sent => (1, 0),
            PacketEventKind::Delivered => (2, 0),
            PacketEventKind::Dropped(reason) => (3, reason as u64),
        };
        self.hash.word(event.at.as_nanos());
        self.hash.word((event.cable as u64) << 16 | (event.direction as u64) << 12 | tag << 8 | reason);
        self.hash.bytes(event.packet.header());
        for s in event.packet.payload().slices() {
            self.hash.bytes(s);
        }
        if let Some(tap) = &mut self.tap {
            tap.packet(event);
        }
        let limit = match self.mode {
            TraceMode::Off => return,
            TraceMode::Last(n) => n,
            TraceMode::All => usize::MAX,
        };
        while self.records.len() >= limit.max(1) {
            self.records.pop_front();
        }
        self.records.push_back(Record {
            at: event.at,
            cable: event.cable,
            direction: event.direction,
            what: event.what,
            header: event.packet.header().to_vec(),
            payload_len: event.packet.payload().len(),
        });
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash.finish()
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The kept events as lines of text, in order of time.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut order: Vec<&Record> = self.records.iter().collect();
        order.sort_by_key(|r| r.at);
        order.into_iter().map(ToString::to_string).collect()
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recorder({} packet events, hash {:016x})", self.count, self.hash.finish())
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrow = match self.direction {
            Direction::Forward => '>',
            Direction::Reverse => '<',
        };
        let what = match self.what {
            PacketEventKind::Sent => "sent",
            PacketEventKind::Delivered => "recv",
            PacketEventKind::Dropped(DropReason::Queue) => "DROP queue",
            PacketEventKind::Dropped(DropReason::Early) => "DROP early",
            PacketEventKind::Dropped(DropReason::Loss) => "DROP loss",
            PacketEventKind::Dropped(DropReason::Cut) => "DROP cut",
            PacketEventKind::Dropped(DropReason::TooBig) => "DROP too-big",
            PacketEventKind::Dropped(DropReason::NoRoute) => "DROP no-route",
        };
        let packet = PacketSummary { header: &self.header, payload_len: self.payload_len };
        write!(f, "{} {}{arrow} {what:<4} {packet}", self.at, self.cable)
    }
}

/// A fast 64-bit hash that is the same on every platform and in every version: it may stand in committed
/// snapshots.
#[derive(Clone, Copy, Debug)]
struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Hash(0x243f_6a88_85a3_08d3)
    }
}

impl Hash {
    fn word(&mut self, v: u64) {
        let product = u128::from(self.0 ^ v) * 0x9e37_79b9_7f4a_7c15_u128;
        self.0 = (product as u64) ^ ((product >> 64) as u64) ^ v.rotate_left(32);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for w in &mut words {
            self.word(u64::from_le_bytes([w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]]));
        }
        let mut rest = [0u8; 8];
        rest[..words.remainder().len()].copy_from_slice(words.remainder());
        self.word(u64::from_le_bytes(rest));
        self.word(bytes.len() as u64);
    }

    fn finish(&self) -> u64 {
        let mut h = *self;
        h.word(0x5851_f42d_4c95_7f2d);
        h.0
    }
}

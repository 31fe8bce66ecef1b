//! One direction of a link at work: a queue, a transmitter and a stretch of wire.
//!
//! ```text
//! enqueue → [cut into packets] → [MTU] → RED, tail-drop → queue → CoDel → transmitter (rate) → loss, duplication → wire (delay) → poll
//! ```
//!
//! It owns no clock. It catches up with the `now` it is given whenever it is called, and within one instant
//! the transmitter first finishes, and so frees its place in the queue, before a new packet is looked at.

use crate::aqm::{Aqm, CoDelState, RedState, Verdict};
use crate::drop_reason::DropReason;
use crate::link::{Link, Loss, Queue};
use crate::packet::Packet;
use crate::random::Random;
use crate::rate_trace::TraceState;
use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use umptcp_types::{Duration, Instant};

/// What one direction of a link has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct LinkStats {
    /// Packets offered, cut from larger segments already.
    pub offered_packets: u64,
    /// Their bytes, IP headers included.
    pub offered_bytes: u64,
    /// Packets that came out at the other end, duplicates included.
    pub delivered_packets: u64,
    /// Their bytes, IP headers included.
    pub delivered_bytes: u64,
    /// Their TCP payload alone.
    pub delivered_payload: u64,
    /// Packets dropped because the queue was full.
    pub dropped_queue: u64,
    /// Packets dropped by RED or CoDel.
    pub dropped_early: u64,
    /// Packets marked by RED or CoDel instead (ECN).
    pub marked: u64,
    /// Packets taken by the loss model.
    pub dropped_loss: u64,
    /// Packets dropped because the link was cut.
    pub dropped_cut: u64,
    /// Packets dropped because they exceed the MTU.
    pub dropped_too_big: u64,
    /// Packets that were sent twice.
    pub duplicated: u64,
    /// Packets that were held back.
    pub reordered: u64,
    /// Most packets that ever waited.
    pub longest_queue: usize,
}

/// A packet on the wire.
#[derive(Debug)]
struct Flight {
    arrival: Instant,
    /// Order of transmission: breaks ties.
    order: u64,
    packet: Packet,
}

impl Flight {
    fn key(&self) -> (Instant, u64) {
        (self.arrival, self.order)
    }
}

impl PartialEq for Flight {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Flight {}

impl PartialOrd for Flight {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Flight {
    /// Reversed: a binary heap gives its greatest element, and the earliest arrival is wanted.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

/// One direction of a link, with everything in it.
#[derive(Debug)]
pub struct LinkQueue {
    link: Link,
    random: Random,
    cut: bool,
    /// When each packet came, and the packet.
    waiting: VecDeque<(Instant, Packet)>,
    waiting_bytes: u64,
    /// The packet being transmitted, and when it is done.
    sending: Option<(Packet, Instant)>,
    /// Fraction of a nanosecond that the current busy period owes.
    carry: u64,
    /// Packets on the wire that keep their order, earliest first.
    ordered: VecDeque<Flight>,
    /// Packets on the wire that were held back.
    late: BinaryHeap<Flight>,
    last_arrival: Instant,
    transmitted: u64,
    order: u64,
    bad_state: bool,
    red: RedState,
    codel: CoDelState,
    trace: TraceState,
    stats: LinkStats,
    keep_dropped: bool,
    dropped: Vec<(Instant, DropReason, Packet)>,
}

impl LinkQueue {
    /// A link that draws from the stream that `seed` starts.
    pub fn new(link: Link, seed: [u8; 32]) -> LinkQueue {
        LinkQueue {
            link,
            random: Random::new(seed),
            cut: false,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            sending: None,
            carry: 0,
            ordered: VecDeque::new(),
            late: BinaryHeap::new(),
            last_arrival: Instant::ZERO,
            transmitted: 0,
            order: 0,
            bad_state: false,
            red: RedState::default(),
            codel: CoDelState::default(),
            trace: TraceState::default(),
            stats: LinkStats::default(),
            keep_dropped: false,
            dropped: Vec::new(),
        }
    }

    /// The link's description.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// What it has done.
    pub fn stats(&self) -> LinkStats {
        self.stats
    }

    /// Packets that wait for the transmitter, and their bytes.
    pub fn queued(&self) -> (usize, u64) {
        (self.waiting.len(), self.waiting_bytes)
    }

    /// Whether nothing waits, is being transmitted or is on the wire.
    pub fn is_empty(&self) -> bool {
        self.sending.is_none() && self.ordered.is_empty() && self.late.is_empty()
    }

    /// Whether it is cut.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// Keeps dropped packets for [`LinkQueue::take_dropped`].
    pub fn keep_dropped(&mut self, keep: bool) {
        self.keep_dropped = keep;
        if !keep {
            self.dropped.clear();
        }
    }

    /// The packets dropped since the last call: when, why, and which.
    pub fn take_dropped(&mut self) -> std::vec::Drain<'_, (Instant, DropReason, Packet)> {
        self.dropped.drain(..)
    }

    /// Changes the link from now on. What is being transmitted or on the wire stays as it was; what waits in
    /// the queue is transmitted at the new rate, and is not dropped when the new queue is smaller.
    pub fn set_link(&mut self, now: Instant, link: Link) {
        self.advance(now);
        self.link = link;
        if self.sending.is_none() {
            self.carry = 0;
        } else if self.link.is_instant() {
            // Nothing waits on a link without rate. The packet being transmitted keeps its time.
            let done = self.sending.as_ref().map_or(now, |(_, done)| *done);
            if let Some((packet, _)) = self.sending.take() {
                self.launch(done, packet);
            }
            while let Some((_, packet)) = self.waiting.pop_front() {
                self.launch(done, packet);
            }
            self.waiting_bytes = 0;
        }
    }

    /// Cuts the link, or mends it. A cut link is silent: all that is in it is lost, and so is what is sent
    /// meanwhile.
    pub fn set_cut(&mut self, now: Instant, cut: bool) {
        self.advance(now);
        if cut && !self.cut {
            let sending = self.sending.take().map(|(packet, _)| packet);
            let wire = std::mem::take(&mut self.ordered).into_iter().chain(self.late.drain_sorted_by_order());
            let waiting = std::mem::take(&mut self.waiting).into_iter().map(|(_, packet)| packet);
            let gone: Vec<Packet> = wire.map(|f| f.packet).chain(sending).chain(waiting).collect();
            self.waiting_bytes = 0;
            for packet in gone {
                self.drop_packet(now, DropReason::Cut, packet);
            }
        }
        self.cut = cut;
    }

    /// A packet, or a segment that is cut into packets first, is handed to the link.
    pub fn enqueue(&mut self, now: Instant, packet: Packet) {
        self.advance(now);
        if packet.gso_size().is_some() {
            packet.split(|p| self.enqueue_one(now, p));
        } else {
            self.enqueue_one(now, packet);
        }
    }

    fn enqueue_one(&mut self, now: Instant, mut packet: Packet) {
        self.stats.offered_packets += 1;
        self.stats.offered_bytes += packet.len() as u64;
        if self.cut {
            return self.drop_packet(now, DropReason::Cut, packet);
        }
        if packet.len() > usize::from(self.link.mtu) {
            return self.drop_packet(now, DropReason::TooBig, packet);
        }
        if self.link.is_instant() {
            return self.launch(now, packet);
        }
        if let Aqm::Red(red) = &self.link.aqm {
            let slot = self.link.transmission(usize::from(self.link.mtu), 0).0;
            if self.red.drops(now, red, self.waiting.len(), slot, &mut self.random) && !self.mark(&mut packet)
            {
                return self.drop_packet(now, DropReason::Early, packet);
            }
        }
        if self.sending.is_none() {
            self.carry = 0;
            return self.start(now, packet);
        }
        if !self.has_room(now, &packet) {
            return self.drop_packet(now, DropReason::Queue, packet);
        }
        self.waiting_bytes += packet.len() as u64;
        self.waiting.push_back((now, packet));
        self.stats.longest_queue = self.stats.longest_queue.max(self.waiting.len());
    }

    fn has_room(&self, now: Instant, packet: &Packet) -> bool {
        match self.link.queue {
            Queue::Packets(limit) => self.waiting.len() < limit,
            Queue::Bytes(limit) => self.waiting_bytes + packet.len() as u64 <= limit,
            Queue::Time(limit) => {
                let rest = self.sending.as_ref().map_or(Duration::ZERO, |(_, done)| *done - now);
                let framing = self.waiting.len() * self.link.overhead as usize;
                // `transmission` counts one packet's framing itself.
                let bytes =
                    (self.waiting_bytes as usize + framing).saturating_sub(self.link.overhead as usize);
                let queue =
                    if self.waiting.is_empty() { Duration::ZERO } else { self.link.transmission(bytes, 0).0 };
                rest.saturating_add(queue) <= limit
            }
            Queue::Unlimited => true,
        }
    }

    /// Marks a packet if the link may and its connection can (RFC 3168 §5). Whether it was done.
    fn mark(&mut self, packet: &mut Packet) -> bool {
        let marked = self.link.ecn && packet.mark_congestion();
        self.stats.marked += u64::from(marked);
        marked
    }

    /// The next packet to transmit.
    fn dequeue(&mut self, now: Instant) -> Option<Packet> {
        while let Some((since, mut packet)) = self.waiting.pop_front() {
            self.waiting_bytes -= packet.len() as u64;
            if let Aqm::CoDel(codel) = self.link.aqm {
                let small = self.waiting_bytes + packet.len() as u64 <= u64::from(self.link.mtu);
                let verdict = self.codel.judge(now, &codel, now - since, small);
                if verdict == Verdict::Drop && !self.mark(&mut packet) {
                    self.drop_packet(now, DropReason::Early, packet);
                    continue;
                }
            }
            return Some(packet);
        }
        self.codel.empty();
        self.red.idle(now);
        None
    }

    /// Begins to transmit `packet`.
    fn start(&mut self, now: Instant, packet: Packet) {
        if let Some(trace) = &self.link.trace {
            let bytes = packet.len() as u64 + u64::from(self.link.overhead);
            let done = self.trace.transmit(now, trace, bytes);
            self.sending = Some((packet, done));
            return;
        }
        let (time, carry) = self.link.transmission(packet.len(), self.carry);
        self.carry = carry;
        self.sending = Some((packet, now + time));
    }

    /// Catches up with `now`: packets whose transmission has ended go onto the wire.
    fn advance(&mut self, now: Instant) {
        while self.sending.as_ref().is_some_and(|(_, done)| *done <= now) {
            let Some((packet, done)) = self.sending.take() else { break };
            self.launch(done, packet);
            if let Some(next) = self.dequeue(done) {
                self.start(done, next);
            }
        }
    }

    /// Puts a packet onto the wire at `at`. All random draws are here, in the order of transmission.
    fn launch(&mut self, at: Instant, packet: Packet) {
        let index = self.transmitted;
        self.transmitted += 1;
        if self.lost(index) {
            return self.drop_packet(at, DropReason::Loss, packet);
        }
        if self.random.chance(self.link.duplicate) {
            self.stats.duplicated += 1;
            self.fly(at, packet.clone());
        }
        self.fly(at, packet);
    }

    fn fly(&mut self, at: Instant, packet: Packet) {
        let mut arrival = at + self.link.delay;
        if !self.link.jitter.is_zero() {
            arrival += self.link.jitter.mul_f64(self.random.unit());
        }
        self.order += 1;
        let order = self.order;
        if self.random.chance(self.link.reorder.probability) {
            self.stats.reordered += 1;
            arrival += self.link.reorder.extra_delay;
            self.late.push(Flight { arrival, order, packet });
        } else {
            arrival = arrival.max(self.last_arrival);
            self.last_arrival = arrival;
            self.ordered.push_back(Flight { arrival, order, packet });
        }
    }

    fn lost(&mut self, index: u64) -> bool {
        match &self.link.loss {
            Loss::None => false,
            Loss::Random(p) => self.random.chance(*p),
            Loss::Bursts { to_bad, to_good, loss_good, loss_bad } => {
                let step = if self.bad_state { *to_good } else { *to_bad };
                if self.random.chance(step) {
                    self.bad_state = !self.bad_state;
                }
                self.random.chance(if self.bad_state { *loss_bad } else { *loss_good })
            }
            Loss::Exactly(which) => which.contains(&index),
        }
    }

    fn drop_packet(&mut self, at: Instant, reason: DropReason, packet: Packet) {
        match reason {
            DropReason::Queue => self.stats.dropped_queue += 1,
            DropReason::Early => self.stats.dropped_early += 1,
            DropReason::Loss => self.stats.dropped_loss += 1,
            DropReason::Cut => self.stats.dropped_cut += 1,
            DropReason::TooBig => self.stats.dropped_too_big += 1,
            // Not the link's doing: counted by who drops.
            DropReason::NoRoute => {}
        }
        if self.keep_dropped {
            self.dropped.push((at, reason, packet));
        }
    }

    /// The next packet that has arrived by `now`. Call until `None`.
    pub fn poll(&mut self, now: Instant) -> Option<Packet> {
        self.advance(now);
        let ordered = self.ordered.front().map(Flight::key);
        let late = self.late.peek().map(Flight::key);
        let take_late = match (ordered, late) {
            (None, None) => return None,
            (Some(o), Some(l)) => l < o,
            (None, Some(_)) => true,
            (Some(_), None) => false,
        };
        let (arrival, _) = if take_late { late? } else { ordered? };
        if arrival > now {
            return None;
        }
        let flight = if take_late { self.late.pop()? } else { self.ordered.pop_front()? };
        self.stats.delivered_packets += 1;
        self.stats.delivered_bytes += flight.packet.len() as u64;
        if flight.packet.is_tcp() {
            self.stats.delivered_payload += flight.packet.payload().len() as u64;
        }
        Some(flight.packet)
    }

    /// When [`LinkQueue::poll`] should be called next: the next arrival, or, while nothing is on the wire,
    /// the earliest instant at which the packet being transmitted can arrive. `None` when the link is empty.
    pub fn next_deadline(&self) -> Option<Instant> {
        let ordered = self.ordered.front().map(|f| f.arrival);
        let late = self.late.peek().map(|f| f.arrival);
        // A packet being transmitted can overtake those held back, never those in order.
        let sending = match ordered {
            Some(_) => None,
            None => self.sending.as_ref().map(|(_, done)| *done + self.link.delay),
        };
        [ordered, late, sending].into_iter().flatten().min()
    }
}

/// Emptying a heap in order; the standard library's own is not stable.
trait DrainSorted {
    fn drain_sorted_by_order(&mut self) -> Vec<Flight>;
}

impl DrainSorted for BinaryHeap<Flight> {
    fn drain_sorted_by_order(&mut self) -> Vec<Flight> {
        let mut all = std::mem::take(self).into_vec();
        all.sort_by_key(Flight::key);
        all
    }
}

#[cfg(test)]
#[path = "link_queue_tests.rs"]
mod tests;

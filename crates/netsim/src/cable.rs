//! A link in both directions, with the middleboxes on it.

use crate::direction::Direction;
use crate::drop_reason::DropReason;
use crate::link::Link;
use crate::link_queue::{LinkQueue, LinkStats};
use crate::middlebox::{Middlebox, Output};
use crate::packet::Packet;
use crate::random::{Purpose, derive};
use std::collections::VecDeque;
use umptcp_types::Instant;

/// A full-duplex link: one [`LinkQueue`] per direction, and a chain of middleboxes at the first end.
#[derive(Debug)]
pub struct Cable {
    queues: [LinkQueue; 2],
    boxes: Vec<Box<dyn Middlebox>>,
    /// Packets that left the chain at the first end.
    out: VecDeque<Packet>,
    boxed_in: u64,
    boxed_out: u64,
}

/// Packets that one call may make of one by passing boxes back and forth.
const MAX_BOX_STEPS: usize = 10_000;

impl Cable {
    /// A cable whose draws come from `seed`; cables that share a seed differ in `index`.
    pub fn new(forward: Link, reverse: Link, seed: u64, index: u64) -> Cable {
        let queue =
            |link, d: Direction| LinkQueue::new(link, derive(seed, Purpose::Link, index * 2 + d as u64));
        Cable {
            queues: [queue(forward, Direction::Forward), queue(reverse, Direction::Reverse)],
            boxes: Vec::new(),
            out: VecDeque::new(),
            boxed_in: 0,
            boxed_out: 0,
        }
    }

    /// Puts a box at the second end of the chain: the last that forward packets meet before the link.
    pub fn push_middlebox(&mut self, middlebox: Box<dyn Middlebox>) {
        self.boxes.push(middlebox);
    }

    /// Takes all boxes away, and what they hold.
    pub fn clear_middleboxes(&mut self) {
        self.boxes.clear();
    }

    /// One direction.
    pub fn queue(&self, direction: Direction) -> &LinkQueue {
        &self.queues[direction as usize]
    }

    /// One direction, to change it.
    pub fn queue_mut(&mut self, direction: Direction) -> &mut LinkQueue {
        &mut self.queues[direction as usize]
    }

    /// What one direction has done.
    pub fn stats(&self, direction: Direction) -> LinkStats {
        self.queue(direction).stats()
    }

    /// Packets that went into the chain of middleboxes, and that came out of it.
    pub fn boxed(&self) -> (u64, u64) {
        (self.boxed_in, self.boxed_out)
    }

    /// A packet, or a segment that is cut into packets first, is handed to the cable at the end where
    /// `direction` starts.
    pub fn enqueue(&mut self, now: Instant, direction: Direction, packet: Packet) {
        if self.boxes.is_empty() || direction == Direction::Reverse {
            self.queue_mut(direction).enqueue(now, packet);
        } else {
            packet.split(|p| {
                self.boxed_in += 1;
                self.through_boxes(now, 0, direction, p);
            });
        }
    }

    /// Moves a packet along the chain, from box `at` on.
    fn through_boxes(&mut self, now: Instant, at: usize, direction: Direction, packet: Packet) {
        let mut output = Output::default();
        self.boxes[at].process(now, direction, packet, &mut output);
        self.settle(now, at, output);
    }

    /// Moves what box `at` gave out to its neighbours, and so on until everything has left the chain.
    fn settle(&mut self, now: Instant, at: usize, output: Output) {
        let mut work: VecDeque<(usize, Direction, Packet)> =
            output.packets.into_iter().map(|(d, p)| (at, d, p)).collect();
        for _ in 0..MAX_BOX_STEPS {
            let Some((at, direction, packet)) = work.pop_front() else { return };
            let next = match direction {
                Direction::Forward if at + 1 == self.boxes.len() => {
                    self.boxed_out += 1;
                    self.queues[Direction::Forward as usize].enqueue(now, packet);
                    continue;
                }
                Direction::Reverse if at == 0 => {
                    self.boxed_out += 1;
                    self.out.push_back(packet);
                    continue;
                }
                Direction::Forward => at + 1,
                Direction::Reverse => at - 1,
            };
            let mut output = Output::default();
            self.boxes[next].process(now, direction, packet, &mut output);
            // In front of what waits, or packets would overtake one another inside the chain.
            for (d, p) in output.packets.into_iter().rev() {
                work.push_front((next, d, p));
            }
        }
    }

    /// The next packet that has arrived by `now`, and the direction it came. Call until `None`. Forward
    /// arrivals come first.
    pub fn poll(&mut self, now: Instant) -> Option<(Direction, Packet)> {
        self.box_timers(now);
        if let Some(packet) = self.queue_mut(Direction::Forward).poll(now) {
            return Some((Direction::Forward, packet));
        }
        if self.boxes.is_empty() {
            if let Some(packet) = self.out.pop_front() {
                return Some((Direction::Reverse, packet));
            }
            return self.queue_mut(Direction::Reverse).poll(now).map(|p| (Direction::Reverse, p));
        }
        while self.out.is_empty() {
            let packet = self.queue_mut(Direction::Reverse).poll(now)?;
            self.boxed_in += 1;
            self.through_boxes(now, self.boxes.len() - 1, Direction::Reverse, packet);
        }
        self.out.pop_front().map(|p| (Direction::Reverse, p))
    }

    fn box_timers(&mut self, now: Instant) {
        for at in 0..self.boxes.len() {
            // A box that asks again for the same instant is not asked again before the next call.
            if self.boxes[at].next_deadline().is_some_and(|t| t <= now) {
                let mut output = Output::default();
                self.boxes[at].handle_timeout(now, &mut output);
                self.settle(now, at, output);
            }
        }
    }

    /// When [`Cable::poll`] should be called next; `Instant::ZERO` when something is ready already.
    pub fn next_deadline(&self) -> Option<Instant> {
        if !self.out.is_empty() {
            return Some(Instant::ZERO);
        }
        let engines = self.queues.iter().filter_map(LinkQueue::next_deadline);
        engines.chain(self.boxes.iter().filter_map(|b| b.next_deadline())).min()
    }

    /// Whether nothing is under way in either direction. What middleboxes hold shows in
    /// [`Cable::next_deadline`].
    pub fn is_empty(&self) -> bool {
        self.out.is_empty() && self.queues.iter().all(LinkQueue::is_empty)
    }

    /// Keeps dropped packets for [`Cable::take_dropped`].
    pub fn keep_dropped(&mut self, keep: bool) {
        for e in &mut self.queues {
            e.keep_dropped(keep);
        }
    }

    /// The packets that the links dropped since the last call.
    pub fn take_dropped(&mut self, mut each: impl FnMut(Instant, Direction, DropReason, Packet)) {
        for d in Direction::BOTH {
            for (at, reason, packet) in self.queue_mut(d).take_dropped() {
                each(at, d, reason, packet);
            }
        }
    }
}

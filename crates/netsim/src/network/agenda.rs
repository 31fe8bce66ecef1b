//! What a network has still to do.

use crate::id::Side;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use umptcp_types::Instant;

/// What is due, in the order in which it is done within one instant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Due {
    Action(u64),
    Cable(usize),
    Node(usize),
    Application(usize, Side),
    Sample,
}

/// Everything that will be due. Entries that no longer hold are skipped when they come up.
#[derive(Debug, Default)]
pub(super) struct Agenda(pub(super) BinaryHeap<Reverse<(Instant, Due)>>);

impl Agenda {
    pub(super) fn push(&mut self, at: Instant, due: Due) {
        self.0.push(Reverse((at, due)));
    }

    pub(super) fn push_action(&mut self, at: Instant, serial: u64) {
        self.push(at, Due::Action(serial));
    }

    pub(super) fn push_sample(&mut self, at: Instant) {
        self.push(at, Due::Sample);
    }
}

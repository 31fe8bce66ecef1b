//! The subflows of a connection.
//!
//! A subflow that ends is marked, and stays where it is until the step that ended it is over: so an index,
//! once looked up, is good for the whole step. What goes through all subflows passes over those that are
//! marked.

use super::subflow::Subflow;
use alloc::vec::Vec;
use core::ops::{Index, IndexMut, Range};
use umptcp_types::SubflowId;

/// The subflows, in the order in which they were opened.
#[derive(Debug, Default)]
pub(crate) struct Subflows {
    list: Vec<Subflow>,
    /// How many of them are marked.
    ended: usize,
    next_id: u32,
    /// Where the next search for something to send begins.
    turn: usize,
}

impl Subflows {
    /// The id of a subflow that is about to be opened.
    pub(crate) fn next_id(&mut self) -> SubflowId {
        let id = SubflowId(self.next_id);
        self.next_id += 1;
        id
    }

    /// How many have been opened so far.
    pub(crate) fn opened(&self) -> u32 {
        self.next_id
    }

    pub(crate) fn push(&mut self, subflow: Subflow) -> &mut Subflow {
        self.list.push_mut(subflow)
    }

    /// Subflow `i` has ended. It is passed over from now on.
    pub(crate) fn mark_ended(&mut self, i: usize) {
        if !self.list[i].is_ended() {
            self.list[i].on_ended();
            self.ended += 1;
        }
    }

    /// The step is over: those that have ended go, and indices change.
    pub(crate) fn sweep(&mut self) {
        if self.ended > 0 {
            self.list.retain(|m| !m.is_ended());
            self.ended = 0;
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.list.len() - self.ended
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The index of a subflow.
    pub(crate) fn find(&self, id: SubflowId) -> Option<usize> {
        self.list.iter().position(|m| m.tcp.id() == id && !m.is_ended())
    }

    /// The index of the first for which `fits` holds.
    pub(crate) fn position(&self, fits: impl Fn(&Subflow) -> bool) -> Option<usize> {
        self.list.iter().position(|m| !m.is_ended() && fits(m))
    }

    /// Every index, also of subflows that have ended in this step: [`get`](Self::get) has none for these.
    pub(crate) fn indices(&self) -> Range<usize> {
        0..self.list.len()
    }

    pub(crate) fn get(&self, i: usize) -> Option<&Subflow> {
        self.list.get(i).filter(|m| !m.is_ended())
    }

    pub(crate) fn get_mut(&mut self, i: usize) -> Option<&mut Subflow> {
        self.list.get_mut(i).filter(|m| !m.is_ended())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Subflow> {
        self.list.iter().filter(|m| !m.is_ended())
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Subflow> {
        self.list.iter_mut().filter(|m| !m.is_ended())
    }

    pub(crate) fn enumerate(&self) -> impl Iterator<Item = (usize, &Subflow)> {
        self.list.iter().enumerate().filter(|(_, m)| !m.is_ended())
    }

    pub(crate) fn enumerate_mut(&mut self) -> impl Iterator<Item = (usize, &mut Subflow)> {
        self.list.iter_mut().enumerate().filter(|(_, m)| !m.is_ended())
    }

    /// The oldest.
    pub(crate) fn first(&self) -> Option<&Subflow> {
        self.iter().next()
    }

    pub(crate) fn first_mut(&mut self) -> Option<&mut Subflow> {
        self.iter_mut().next()
    }

    /// The index of the oldest.
    pub(crate) fn first_index(&self) -> Option<usize> {
        self.list.iter().position(|m| !m.is_ended())
    }

    /// The index of the only one there is.
    pub(crate) fn sole(&self) -> Option<usize> {
        if self.len() == 1 { self.first_index() } else { None }
    }

    /// The index of number `k` in the search for something to send, which takes all in turn. Only between
    /// steps, when none is marked.
    pub(crate) fn in_turn(&self, k: usize) -> usize {
        debug_assert_eq!(self.ended, 0);
        (self.turn + k) % self.list.len()
    }

    /// Subflow `i` sends: the next search begins after it.
    pub(crate) fn on_served(&mut self, i: usize) {
        self.turn = i + 1;
    }
}

impl Index<usize> for Subflows {
    type Output = Subflow;
    #[inline]
    fn index(&self, i: usize) -> &Subflow {
        &self.list[i]
    }
}

impl IndexMut<usize> for Subflows {
    #[inline]
    fn index_mut(&mut self, i: usize) -> &mut Subflow {
        &mut self.list[i]
    }
}

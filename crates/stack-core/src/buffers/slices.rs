//! Received bytes in order, in slices of the buffers they came in.

use super::give_back::give_back;
use super::join::{JoinRule, Joiner};
use alloc::collections::VecDeque;
use bytes::Bytes;

/// What is copied while it waits: a peer that sends single bytes would otherwise make us hold, for each, a
/// reference and whatever its packet's buffer is.
const JOIN: JoinRule = JoinRule { copy_below: 512, join_up_to: 16 * 1024 };

/// A queue of bytes that adjoin. A slice that is taken before the next comes is never copied.
#[derive(Debug)]
pub(crate) struct Slices {
    whole: VecDeque<Bytes>,
    /// Copied bytes after `whole`.
    tail: Joiner,
    len: usize,
}

impl Default for Slices {
    fn default() -> Self {
        Slices { whole: VecDeque::new(), tail: Joiner::growing(JOIN), len: 0 }
    }
}

impl Slices {
    /// Bytes in the queue.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Appends `bytes`.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        self.len += bytes.len();
        if self.len == bytes.len() || !self.tail.copies(bytes.len()) {
            self.whole.extend(self.tail.seal());
            self.whole.push_back(bytes);
            return;
        }
        self.whole.extend(self.tail.push(&bytes));
    }

    /// At most `max` bytes from the front.
    pub(crate) fn pop(&mut self, max: usize) -> Option<Bytes> {
        if self.whole.is_empty() {
            self.whole.extend(self.tail.seal());
        }
        let front = self.whole.front_mut()?;
        let bytes = if front.len() <= max { self.whole.pop_front()? } else { front.split_to(max) };
        self.len -= bytes.len();
        give_back(&mut self.whole);
        Some(bytes)
    }

    /// The bytes, in slices.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.whole.iter().map(|b| &b[..]).chain(Some(self.tail.as_slice()).filter(|t| !t.is_empty()))
    }

    /// Drops them all.
    pub(crate) fn clear(&mut self) {
        *self = Slices::default();
    }

    /// Slices held.
    #[cfg(test)]
    fn count(&self) -> usize {
        self.iter().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn many_small_pieces_take_the_place_of_few() {
        let mut q = Slices::default();
        let packet = Bytes::from(alloc::vec![7; 65_536]);
        for i in 0..100_000 {
            q.push(packet.slice(i % 1000..i % 1000 + 1));
        }
        assert_eq!(q.len(), 100_000);
        assert!(q.count() <= 2 + 100_000 / JOIN.join_up_to, "{}", q.count());
        // Large ones between them do not make it worse than two slices for each.
        let mut q = Slices::default();
        for _ in 0..1000 {
            q.push(packet.slice(..1));
            q.push(packet.slice(..JOIN.copy_below));
        }
        assert!(q.count() <= 2000);
        let held: usize = q.whole.iter().skip(1).filter(|b| b.len() < JOIN.copy_below).map(Bytes::len).sum();
        assert_eq!(held, 999);
    }

    #[test]
    fn what_is_read_at_once_is_not_copied() {
        let mut q = Slices::default();
        let packet = Bytes::from(alloc::vec![7; 100]);
        for _ in 0..3 {
            q.push(packet.clone());
            assert_eq!(q.pop(1000).map(|b| b.as_ptr()), Some(packet.as_ptr()));
            assert_eq!(q.len(), 0);
        }
        q.push(packet.clone());
        q.push(Bytes::from(alloc::vec![8; 5000]));
        assert_eq!(q.pop(60).map(|b| b.len()), Some(60));
        assert_eq!(q.pop(60).map(|b| b.len()), Some(40));
        assert_eq!(q.pop(6000).map(|b| b.len()), Some(5000));
        assert!(q.pop(1).is_none());
    }

    #[test]
    fn the_bytes_come_out_as_they_went_in() {
        let mut q = Slices::default();
        let (mut model, mut out) = (Vec::new(), Vec::new());
        for i in 0..500_usize {
            let piece: Vec<u8> = (0..[3, 600, 0, 90, 511, 512][i % 6]).map(|j| (i * 7 + j) as u8).collect();
            model.extend_from_slice(&piece);
            q.push(piece.into());
            assert_eq!(q.iter().flatten().copied().collect::<Vec<u8>>(), model[out.len()..]);
            if i % 5 == 0 {
                for max in [1, 700, 20] {
                    out.extend(q.pop(max).into_iter().flatten());
                }
            }
            assert_eq!(q.len(), model.len() - out.len());
        }
        while let Some(bytes) = q.pop(usize::MAX) {
            out.extend_from_slice(&bytes);
        }
        assert_eq!(out, model);
        q.push(Bytes::from_static(b"x"));
        q.clear();
        assert!(q.pop(1).is_none() && q.len() == 0);
    }
}

//! Memory that large transfers made queues grow to.

use alloc::collections::VecDeque;

/// Places that an empty queue keeps, so that small messages need no allocation each.
const KEPT: usize = 4;

/// Gives back the memory of a queue that has become empty, so that an idle connection holds none for what it
/// once carried.
#[inline]
pub(crate) fn give_back<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() && queue.capacity() > KEPT {
        *queue = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_large_and_empty_queue_is_given_back() {
        let mut queue: VecDeque<u64> = (0..100).collect();
        give_back(&mut queue);
        assert_eq!(queue.len(), 100);
        queue.clear();
        give_back(&mut queue);
        assert_eq!(queue.capacity(), 0);
        queue.extend(0..2);
        queue.clear();
        let small = queue.capacity();
        give_back(&mut queue);
        assert_eq!(queue.capacity(), small);
    }
}

//! Memory for data that applications write by copy.

use crate::shared::{PIECE, lock};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Mutex;

/// Maximum number of buffers kept for reuse by all streams of a stack.
const KEPT: usize = 256;

/// How many buffers to check for a free one. They become free roughly in the order they were filled.
const SEARCH: usize = 8;

/// Buffers that written data is copied into. A buffer is reused once the peer has acknowledged its content;
/// fresh memory would cost a page fault every 4 kB.
#[derive(Debug, Default)]
pub(crate) struct CopyPool(Mutex<VecDeque<BytesMut>>);

impl CopyPool {
    /// A copy of the first `len` bytes of `data`, at most [`PIECE`].
    pub(crate) fn copy(&self, data: &[IoSlice<'_>], len: usize) -> Bytes {
        let copy_to = |buffer: &mut BytesMut| {
            let mut left = len;
            for slice in data {
                let part = &slice[..slice.len().min(left)];
                buffer.extend_from_slice(part);
                left -= part.len();
            }
        };
        if len < PIECE / 2 {
            // It would occupy a whole buffer.
            let mut buffer = BytesMut::with_capacity(len);
            copy_to(&mut buffer);
            return buffer.freeze();
        }
        let mut buffer = self.take();
        copy_to(&mut buffer);
        let copy = buffer.split().freeze();
        let mut kept = lock(&self.0);
        if kept.len() < KEPT {
            kept.push_back(buffer);
        }
        copy
    }

    fn take(&self) -> BytesMut {
        let mut kept = lock(&self.0);
        for _ in 0..kept.len().min(SEARCH) {
            let Some(mut oldest) = kept.pop_front() else { break };
            if oldest.try_reclaim(PIECE) {
                return oldest;
            }
            kept.push_back(oldest);
        }
        drop(kept);
        BytesMut::with_capacity(PIECE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again_once_free_and_only_then() {
        let pool = CopyPool::default();
        let copy = |byte: u8| pool.copy(&[IoSlice::new(&[byte; PIECE])], PIECE);
        let (first, second) = (copy(1), copy(2));
        let place = first.as_ptr();
        assert!(first.iter().all(|b| *b == 1) && second.iter().all(|b| *b == 2));
        drop(first);
        let third = copy(3);
        assert_eq!(third.as_ptr(), place);
        assert!(second.iter().all(|b| *b == 2));
        let many: Vec<Bytes> = (0..2 * KEPT).map(|i| copy(i as u8)).collect();
        assert!(many.iter().enumerate().all(|(i, b)| b.iter().all(|b| *b == i as u8)));
        assert!(lock(&pool.0).len() <= KEPT);
    }

    #[test]
    fn several_pieces_make_one_copy() {
        let (pool, a, b) = (CopyPool::default(), [1; 3], [2; PIECE]);
        for len in [0, 2, 3, 5, PIECE] {
            let whole: Vec<u8> = a.iter().chain(&b).copied().take(len).collect();
            assert_eq!(pool.copy(&[IoSlice::new(&a), IoSlice::new(&b)], len), whole);
        }
    }
}

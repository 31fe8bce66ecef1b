//! Memory for data that applications write by copy.

use crate::shared::{PIECE, lock};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
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
    /// A copy of `data`, which has at most [`PIECE`] bytes.
    pub(crate) fn copy(&self, data: &[u8]) -> Bytes {
        if data.len() < PIECE / 2 {
            // It would occupy a whole buffer.
            return Bytes::copy_from_slice(data);
        }
        let mut buffer = self.take();
        buffer.extend_from_slice(data);
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
        let first = pool.copy(&[1; PIECE]);
        let second = pool.copy(&[2; PIECE]);
        let place = first.as_ptr();
        assert!(first.iter().all(|b| *b == 1) && second.iter().all(|b| *b == 2));
        drop(first);
        let third = pool.copy(&[3; PIECE]);
        assert_eq!(third.as_ptr(), place);
        assert!(second.iter().all(|b| *b == 2));
        let many: Vec<Bytes> = (0..2 * KEPT).map(|i| pool.copy(&[i as u8; PIECE])).collect();
        assert!(many.iter().enumerate().all(|(i, b)| b.iter().all(|b| *b == i as u8)));
        assert!(lock(&pool.0).len() <= KEPT);
    }
}

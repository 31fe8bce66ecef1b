//! The bytes an application wrote, until the peer's DATA_ACK frees them.
//!
//! By example: `docs/src/by-example/reinjection.md`.

use crate::buffers::give_back::give_back;
use crate::buffers::join::{JoinRule, Joiner};
use crate::buffers::payload::Payload;
use alloc::collections::VecDeque;
use bytes::Bytes;
use core::ops::Range;
use umptcp_types::DataOffset;

/// Which writes are copied together, so that a small one does not hold a large buffer.
const JOIN: JoinRule = JoinRule { copy_below: 4096, join_up_to: 64 * 1024 };

#[derive(Debug)]
struct Chunk {
    at: DataOffset,
    bytes: Bytes,
}

/// Bytes from the first not yet DATA_ACKed to the last written. Cutting a range out of it shares memory.
#[derive(Debug)]
pub(crate) struct SendQueue {
    chunks: VecDeque<Chunk>,
    /// Copied bytes at the end that are not a chunk yet.
    tail: Joiner,
    una: DataOffset,
    end: DataOffset,
    capacity: usize,
}

impl SendQueue {
    /// An empty queue for at most `capacity` bytes. The first byte written gets offset 1.
    pub(crate) fn new(capacity: usize) -> Self {
        SendQueue {
            chunks: VecDeque::new(),
            tail: Joiner::in_blocks(JOIN),
            una: DataOffset(1),
            end: DataOffset(1),
            capacity,
        }
    }

    /// At most `capacity` bytes from now on; more may be there already.
    pub(crate) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    /// Bytes it takes in all.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// First offset not DATA_ACKed.
    pub(crate) fn una(&self) -> DataOffset {
        self.una
    }

    /// Offset after the last byte written.
    pub(crate) fn end(&self) -> DataOffset {
        self.end
    }

    /// Bytes it would take now.
    pub(crate) fn room(&self) -> usize {
        self.capacity.saturating_sub((self.end - self.una) as usize)
    }

    /// Takes as much of `data` as fits, shared if large; returns how much.
    pub(crate) fn push(&mut self, mut data: Bytes) -> usize {
        if self.tail.copies(data.len()) {
            return self.push_slice(&data);
        }
        let n = data.len().min(self.room());
        data.truncate(n);
        self.seal();
        if n > 0 {
            self.chunks.push_back(Chunk { at: self.end, bytes: data });
            self.end += n as u64;
        }
        n
    }

    /// Takes as much of `data` as fits, copied; returns how much.
    pub(crate) fn push_slice(&mut self, data: &[u8]) -> usize {
        let n = data.len().min(self.room());
        let mut rest = &data[..n];
        while !rest.is_empty() {
            let (taken, full) = self.tail.fill(rest);
            self.add_sealed(full);
            self.end += taken as u64;
            rest = &rest[taken..];
        }
        n
    }

    /// Makes the copied tail a chunk; its block goes on taking further writes.
    fn seal(&mut self) {
        let sealed = self.tail.seal();
        self.add_sealed(sealed);
    }

    /// Takes up bytes that end where the queue does.
    fn add_sealed(&mut self, sealed: Option<Bytes>) {
        if let Some(bytes) = sealed {
            let at = DataOffset(self.end.0 - bytes.len() as u64);
            self.chunks.push_back(Chunk { at, bytes });
        }
    }

    /// The bytes `range`, which must lie between `una` and `end`; what lies outside is left out.
    pub(crate) fn slice(&mut self, range: Range<DataOffset>) -> Payload {
        self.seal();
        let mut out = Payload::new();
        let first = self.chunks.partition_point(|c| c.at.0 + c.bytes.len() as u64 <= range.start.0);
        for c in self.chunks.range(first..) {
            if c.at >= range.end {
                break;
            }
            let from = range.start.0.max(c.at.0) - c.at.0;
            let to = range.end.0.min(c.at.0 + c.bytes.len() as u64) - c.at.0;
            out.push(c.bytes.slice(from as usize..to as usize));
        }
        out
    }

    /// Frees what precedes `una`. Offsets beyond the end are cut to it. Returns the bytes freed.
    pub(crate) fn acknowledge(&mut self, una: DataOffset) -> u64 {
        let una = una.min(self.end);
        if una <= self.una {
            return 0;
        }
        if self.chunks.is_empty() || self.chunks.back().is_some_and(|c| c.at + (c.bytes.len() as u64) < una) {
            self.seal();
        }
        let freed = una - self.una;
        self.una = una;
        while self.chunks.front().is_some_and(|c| c.at.0 + c.bytes.len() as u64 <= una.0) {
            self.chunks.pop_front();
        }
        if self.chunks.is_empty() {
            self.tail.release();
            give_back(&mut self.chunks);
        }
        freed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn small_and_large_writes_come_out_in_order() {
        let mut q = SendQueue::new(1 << 20);
        let mut model = Vec::new();
        for i in 0..200_u32 {
            let len = if i % 7 == 0 { 9000 } else { (i % 50) as usize };
            let data: Vec<u8> = (0..len).map(|j| (i as usize + j) as u8).collect();
            model.extend_from_slice(&data);
            let taken = if i % 2 == 0 { q.push(data.into()) } else { q.push_slice(&data) };
            assert_eq!(taken, len);
            if i % 13 == 0 {
                let _ = q.slice(DataOffset(1)..q.end());
            }
        }
        let all = q.slice(q.una()..q.end()).to_bytes();
        assert_eq!(&all[..], &model[..]);
        assert_eq!(q.acknowledge(DataOffset(10_001)), 10_000);
        let rest = q.slice(q.una()..q.end()).to_bytes();
        assert_eq!(&rest[..], &model[10_000..]);
        assert_eq!(&q.slice(DataOffset(15_001)..DataOffset(30_001)).to_bytes()[..], &model[15_000..30_000]);
    }

    #[test]
    fn capacity_bounds_what_is_taken() {
        let mut q = SendQueue::new(10_000);
        assert_eq!(q.push(Bytes::from(alloc::vec![1; 8_000])), 8_000);
        assert_eq!(q.push(Bytes::from(alloc::vec![2; 8_000])), 2_000);
        assert_eq!(q.push_slice(b"x"), 0);
        assert_eq!(q.acknowledge(DataOffset(5_001)), 5_000);
        assert_eq!(q.room(), 5_000);
    }
}

//! Buffers for received packets.

use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// Room for one packet: more than the longest IP packet (65,535 bytes).
pub const PACKET_ROOM: usize = 65_536;

/// Packets are read into slabs of this size, one after the other. Larger slabs waste less space at the end,
/// where fewer than [`PACKET_ROOM`] bytes are left, but a slice that is kept keeps its whole slab.
const SLAB: usize = 256 * 1024;

/// Packets up to this length are copied into smaller slabs.
const SMALL: usize = 512;

/// Size of a slab of small packets.
const SMALL_SLAB: usize = 16 * 1024;

/// How many slabs to check for a free one. They become free roughly in the order they were filled.
const SEARCH: usize = 8;

/// Buffers for received packets, reused once the application has dropped every slice of them.
///
/// Receiving a packet requires no copy (except for small ones) and, in the steady state, no allocation. The
/// memory kept alive by the application's slices is bounded: beyond the limit, each packet is copied into an
/// allocation of its own size.
#[derive(Debug)]
pub struct BufferPool {
    packets: Slabs,
    small: Slabs,
    /// Where packets are read to while no slab has room.
    spill: Vec<u8>,
    spilling: bool,
}

impl BufferPool {
    /// Default limit for the slabs' memory, in bytes.
    pub const DEFAULT_LIMIT: usize = 64 << 20;

    /// A pool whose slabs use at most about `limit` bytes.
    pub fn new(limit: usize) -> Self {
        BufferPool {
            packets: Slabs::new(SLAB, limit),
            small: Slabs::new(SMALL_SLAB, limit / 8),
            spill: Vec::new(),
            spilling: false,
        }
    }

    /// Room for one packet of up to [`PACKET_ROOM`] bytes. Its contents are unspecified.
    #[inline]
    pub fn room(&mut self) -> &mut [u8] {
        self.spilling = !self.packets.ensure(PACKET_ROOM);
        if self.spilling {
            self.spill.resize(PACKET_ROOM, 0);
            &mut self.spill
        } else {
            &mut self.packets.current[..PACKET_ROOM]
        }
    }

    /// The first `len` bytes of the room returned last, as a packet; `len` is capped at its size.
    #[inline]
    pub fn take(&mut self, len: usize) -> Bytes {
        let len = len.min(PACKET_ROOM);
        if self.spilling {
            return Bytes::copy_from_slice(&self.spill[..len.min(self.spill.len())]);
        }
        let packet = &mut self.packets.current;
        let len = len.min(packet.len());
        if len > SMALL {
            return packet.split_to(len).freeze();
        }
        if !self.small.ensure(len) {
            return Bytes::copy_from_slice(&packet[..len]);
        }
        let mut copy = self.small.current.split_to(len);
        copy.copy_from_slice(&packet[..len]);
        copy.freeze()
    }

    /// Frees memory that a burst needed and that is no longer used.
    pub fn trim(&mut self) {
        self.packets.trim();
        self.small.trim();
        if !self.spilling {
            self.spill = Vec::new();
        }
    }

    /// Memory in the pool's slabs, in bytes, used or not.
    #[cfg(test)]
    fn allocated(&self) -> usize {
        self.packets.allocated() + self.small.allocated()
    }
}

impl Default for BufferPool {
    fn default() -> Self {
        Self::new(Self::DEFAULT_LIMIT)
    }
}

/// Slabs of one size: the one being filled, and those that may still be referenced.
#[derive(Debug)]
struct Slabs {
    size: usize,
    limit: usize,
    /// The rest of the slab being filled; all of its bytes are initialised and within its length.
    current: BytesMut,
    /// Filled slabs, oldest first. Each handle is empty and waits to become the last owner.
    filled: VecDeque<BytesMut>,
}

impl Slabs {
    fn new(size: usize, limit: usize) -> Self {
        Slabs { size, limit: limit.max(size), current: BytesMut::new(), filled: VecDeque::new() }
    }

    /// Makes `current` hold at least `room` bytes (at most the slab size). `false` if the limit forbids it.
    #[inline]
    fn ensure(&mut self, room: usize) -> bool {
        self.current.len() >= room || self.next()
    }

    #[cold]
    fn next(&mut self) -> bool {
        // The slab may already be free because its packets were processed immediately.
        if reclaim(&mut self.current, self.size) {
            return true;
        }
        if self.current.capacity() > 0 {
            self.current.clear();
            self.filled.push_back(std::mem::take(&mut self.current));
        }
        for _ in 0..self.filled.len().min(SEARCH) {
            let Some(mut slab) = self.filled.pop_front() else { break };
            if reclaim(&mut slab, self.size) {
                self.current = slab;
                return true;
            }
            self.filled.push_back(slab);
        }
        if (self.filled.len() + 1) * self.size > self.limit {
            return false;
        }
        self.current = BytesMut::zeroed(self.size);
        true
    }

    fn trim(&mut self) {
        let size = self.size;
        // Keep one spare slab: another burst is likely.
        let mut spare = 1;
        self.filled.retain_mut(|slab| {
            if !reclaim(slab, size) {
                return true;
            }
            slab.clear();
            let keep = spare > 0;
            spare -= usize::from(keep);
            keep
        });
    }

    #[cfg(test)]
    fn allocated(&self) -> usize {
        (self.filled.len() + usize::from(self.current.capacity() > 0)) * self.size
    }
}

/// Restores `slab` to its full size if nothing else references it.
#[allow(unsafe_code)]
fn reclaim(slab: &mut BytesMut, size: usize) -> bool {
    let remainder = slab.len();
    slab.clear();
    if slab.try_reclaim(size) {
        // SAFETY: try_reclaim made the capacity at least `size`, without allocating: it is the memory that
        // `BytesMut::zeroed(size)` initialised when the slab was made, and nothing makes memory uninitialised
        // again.
        unsafe { slab.set_len(size) };
        return true;
    }
    // SAFETY: these bytes were within the length before `clear`, so they are initialised and within the
    // capacity.
    unsafe { slab.set_len(remainder) };
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(pool: &mut BufferPool, len: usize, fill: u8) -> Bytes {
        pool.room()[..len].fill(fill);
        pool.take(len)
    }

    #[test]
    fn large_packets_are_not_copied_and_memory_is_reused() {
        let mut pool = BufferPool::new(4 * SLAB);
        let mut seen = std::collections::HashSet::new();
        for i in 0..1000u32 {
            let at = pool.room().as_ptr();
            pool.room()[..60_000].fill(i as u8);
            let p = pool.take(60_000);
            assert_eq!(p.as_ptr(), at, "not copied");
            assert!(p.iter().all(|b| *b == i as u8));
            seen.insert(at);
        }
        assert!(seen.len() <= 4, "{} places for packets that were dropped at once", seen.len());
        assert_eq!(pool.allocated(), SLAB);
    }

    #[test]
    fn packets_that_are_kept_stay_intact_while_the_pool_goes_on() {
        let mut pool = BufferPool::new(64 * SLAB);
        let mut kept = VecDeque::new();
        for i in 0..5000u32 {
            let len = 40 + (i as usize * 7919) % 60_000;
            kept.push_back((i as u8, packet(&mut pool, len, i as u8)));
            if kept.len() > 50 {
                let (fill, p) = kept.pop_front().unwrap();
                assert!(p.iter().all(|b| *b == fill));
            }
        }
        assert!(pool.allocated() < 50 * PACKET_ROOM + 16 * SLAB, "{}", pool.allocated());
    }

    #[test]
    fn small_packets_hold_little_memory() {
        let mut pool = BufferPool::default();
        let kept: Vec<Bytes> = (0..1000).map(|i| packet(&mut pool, 53, i as u8)).collect();
        assert!(pool.allocated() <= SLAB + 1000 * 53 + 2 * SMALL_SLAB, "{}", pool.allocated());
        assert!(kept.iter().enumerate().all(|(i, p)| p.iter().all(|b| *b == i as u8)));
    }

    #[test]
    fn past_the_limit_packets_are_copied_exactly() {
        let mut pool = BufferPool::new(2 * SLAB);
        let kept: Vec<Bytes> = (0..100).map(|i| packet(&mut pool, 20_000, i as u8)).collect();
        assert!(pool.allocated() <= 2 * SLAB + SMALL_SLAB);
        assert!(kept.iter().enumerate().all(|(i, p)| p.len() == 20_000 && p.iter().all(|b| *b == i as u8)));
        drop(kept);
        let at = pool.room().as_ptr();
        assert_eq!(pool.take(20_000).as_ptr(), at, "slabs are reused once they are free");
    }

    #[test]
    fn trimming_frees_what_a_burst_took() {
        let mut pool = BufferPool::default();
        let kept: Vec<Bytes> = (0..200).map(|_| packet(&mut pool, 60_000, 1)).collect();
        let peak = pool.allocated();
        pool.trim();
        assert_eq!(pool.allocated(), peak, "in use");
        drop(kept);
        pool.trim();
        assert!(pool.allocated() <= 3 * SLAB, "{} of {peak}", pool.allocated());
        assert_eq!(packet(&mut pool, 9, 7), [7; 9][..]);
    }
}

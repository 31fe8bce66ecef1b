//! Copying small pieces together, so that a few bytes do not keep a large buffer alive, or a reference each.

use bytes::{Bytes, BytesMut};

/// Which pieces are copied, and how far the copies are joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JoinRule {
    /// Shorter pieces are copied; the others stay the shared slices they are.
    pub copy_below: usize,
    /// Most bytes of copies in one buffer.
    pub join_up_to: usize,
}

impl JoinRule {
    /// Whether a piece of `len` bytes is copied.
    #[inline]
    pub fn copies(&self, len: usize) -> bool {
        len < self.copy_below
    }

    /// Whether `more` bytes may be appended to a copy of `len`.
    #[inline]
    pub fn joins(&self, len: usize, more: usize) -> bool {
        len + more <= self.join_up_to
    }
}

/// The size of the first block.
const FIRST_BLOCK: usize = 512;

/// How a [`Joiner`] gets its memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Memory {
    /// It grows with its contents, which take it along: for pieces that rarely come.
    Growing,
    /// What is sealed shares the block, and what comes next uses the rest: for a steady stream of pieces.
    /// Each block is twice as large as the one before, so that a few bytes do not hold a large one.
    Blocks {
        /// The size of the next.
        next: usize,
    },
}

/// The end of a queue of bytes: a buffer that small pieces are copied into until it is sealed.
#[derive(Debug)]
pub struct Joiner {
    rule: JoinRule,
    memory: Memory,
    bytes: BytesMut,
}

impl Joiner {
    /// A joiner whose memory grows with its contents.
    pub fn growing(rule: JoinRule) -> Self {
        Joiner { rule, memory: Memory::Growing, bytes: BytesMut::new() }
    }

    /// A joiner that allocates blocks, of `join_up_to` bytes in the end.
    pub fn in_blocks(rule: JoinRule) -> Self {
        let next = FIRST_BLOCK.min(rule.join_up_to);
        Joiner { rule, memory: Memory::Blocks { next }, bytes: BytesMut::new() }
    }

    /// Whether a piece of `len` bytes is to be copied.
    #[inline]
    pub fn copies(&self, len: usize) -> bool {
        self.rule.copies(len)
    }

    /// The bytes not sealed yet.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes that can be appended without beginning another buffer.
    pub fn room(&self) -> usize {
        match self.memory {
            Memory::Growing => self.rule.join_up_to.saturating_sub(self.bytes.len()),
            Memory::Blocks { .. } => self.bytes.capacity() - self.bytes.len(),
        }
    }

    /// Appends a copy of `piece`. If it does not fit, what came before is sealed and returned.
    #[must_use = "the sealed bytes come first in the queue"]
    pub fn push(&mut self, piece: &[u8]) -> Option<Bytes> {
        let full = if piece.len() > self.room() { self.seal() } else { None };
        let room = self.room();
        if let Memory::Blocks { next } = &mut self.memory
            && piece.len() > room
        {
            // Takes the former block again if nobody shares it any more.
            self.bytes.reserve((*next).max(piece.len()));
            *next = (*next * 2).min(self.rule.join_up_to);
        }
        self.bytes.extend_from_slice(piece);
        full
    }

    /// Appends a copy of the front of `data`, as much as one buffer takes, and returns its length with what
    /// had to be sealed.
    #[must_use = "the sealed bytes come first in the queue"]
    pub fn fill(&mut self, data: &[u8]) -> (usize, Option<Bytes>) {
        let room = match self.room() {
            0 => self.rule.join_up_to,
            room => room,
        };
        let n = data.len().min(room);
        (n, self.push(&data[..n]))
    }

    /// Takes what is there as one slice.
    pub fn seal(&mut self) -> Option<Bytes> {
        if self.bytes.is_empty() {
            return None;
        }
        let sealed = match self.memory {
            Memory::Growing => core::mem::take(&mut self.bytes),
            Memory::Blocks { .. } => self.bytes.split(),
        };
        Some(sealed.freeze())
    }

    /// Gives its memory back, if nothing waits in it.
    pub fn release(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
            if let Memory::Blocks { next } = &mut self.memory {
                *next = FIRST_BLOCK.min(self.rule.join_up_to);
            }
        }
    }

    /// Drops what is there.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: JoinRule = JoinRule { copy_below: 10, join_up_to: 100 };

    #[test]
    fn a_piece_that_does_not_fit_begins_another_buffer() {
        for mut joiner in [Joiner::growing(RULE), Joiner::in_blocks(RULE)] {
            for _ in 0..12 {
                assert_eq!(joiner.push(&[1; 8]), None);
            }
            assert_eq!(joiner.room(), 4);
            assert_eq!(joiner.push(&[2; 8]).map(|b| b.len()), Some(96));
            assert_eq!(joiner.as_slice(), [2; 8]);
            assert_eq!(joiner.room(), 92);
            // One that is larger than any buffer gets one of its own.
            assert_eq!(joiner.push(&[3; 150]).map(|b| b.len()), Some(8));
            assert_eq!(joiner.seal().map(|b| b.len()), Some(150));
            assert_eq!(joiner.seal(), None);
        }
    }

    #[test]
    fn data_fill_one_buffer_after_the_other() {
        let data: [u8; 250] = core::array::from_fn(|i| i as u8);
        for mut joiner in [Joiner::growing(RULE), Joiner::in_blocks(RULE)] {
            assert_eq!(joiner.push(&data[..30]), None);
            assert_eq!(joiner.fill(&data[30..]), (70, None));
            let (n, full) = joiner.fill(&data[100..]);
            assert_eq!((n, full.as_deref()), (100, Some(&data[..100])));
            let (n, full) = joiner.fill(&data[200..]);
            assert_eq!((n, full.as_deref()), (50, Some(&data[100..200])));
            assert_eq!(joiner.seal().as_deref(), Some(&data[200..]));
        }
    }

    #[test]
    fn a_block_goes_on_taking_pieces_after_it_was_sealed() {
        let mut joiner = Joiner::in_blocks(RULE);
        assert_eq!(joiner.push(&[1; 8]), None);
        let first = joiner.seal().expect("eight bytes");
        assert_eq!(joiner.room(), 92);
        assert_eq!(joiner.push(&[2; 8]), None);
        let second = joiner.seal().expect("eight more");
        assert_eq!(second.as_ptr() as usize, first.as_ptr() as usize + 8);
    }

    #[test]
    fn a_few_bytes_take_little_memory_and_a_stream_large_blocks() {
        let rule = JoinRule { copy_below: 4096, join_up_to: 64 * 1024 };
        let mut joiner = Joiner::in_blocks(rule);
        assert_eq!(joiner.push(&[1; 8]), None);
        assert!(joiner.bytes.capacity() <= FIRST_BLOCK);
        let blocks = (0..20_000).filter(|_| joiner.push(&[1; 16]).is_some()).count();
        assert!(blocks <= 7 + 320_000 / (64 * 1024), "{blocks} blocks");
        joiner.release();
        assert!(joiner.bytes.capacity() > 60_000, "something waits in it");
        let _ = joiner.seal();
        joiner.release();
        assert_eq!(joiner.bytes.capacity(), 0);
        assert_eq!(joiner.push(&[1; 8]), None);
        assert!(joiner.bytes.capacity() <= FIRST_BLOCK);
    }
}

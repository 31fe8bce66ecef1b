//! The bytes that a fuzzer chose, read as decisions.

/// Reads decisions from the front; at the end every decision is 0.
#[derive(Clone, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of `data`.
    pub fn new(data: &'a [u8]) -> Self {
        Input(data)
    }

    /// Nothing is left to decide.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// Two bytes, big-endian.
    pub fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// Four bytes, big-endian.
    pub fn long(&mut self) -> u32 {
        u32::from(self.word()) << 16 | u32::from(self.word())
    }

    /// An index below `n`; 0 when there is none.
    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n.max(1)
    }

    /// As many bytes as the next one says, at most `max`, and no more than there are.
    pub fn bytes(&mut self, max: usize) -> &'a [u8] {
        let n = (usize::from(self.byte()) % (max + 1)).min(self.0.len());
        let (head, rest) = self.0.split_at(n);
        self.0 = rest;
        head
    }

    /// A number near 0 mostly, as far as it gets otherwise: for sequence numbers that are a little or wholly
    /// wrong.
    pub fn offset(&mut self) -> i64 {
        match self.byte() {
            0..0xa0 => 0,
            b @ 0xa0..0xe0 => i64::from(b) - 0xc0,
            0xe0..0xf0 => i64::from(self.word() as i16),
            _ => i64::from(self.long() as i32),
        }
    }
}

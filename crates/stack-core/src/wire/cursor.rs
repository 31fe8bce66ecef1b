//! Reading and writing big-endian fields in order.

use super::WireError;

/// Takes fields off the front of a slice; an error, never a panic, when it is exhausted.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(WireError::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        self.array::<1>().map(|[b]| b)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Puts fields into a slice in order. Panics when they do not fit: the caller has sized the buffer.
pub(super) struct Writer<'a> {
    buf: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(buf: &'a mut [u8]) -> Self {
        Writer { buf, at: 0 }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.buf[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    pub(super) fn u8(&mut self, v: u8) {
        self.put(&[v]);
    }

    pub(super) fn u16(&mut self, v: u16) {
        self.put(&v.to_be_bytes());
    }

    pub(super) fn u32(&mut self, v: u32) {
        self.put(&v.to_be_bytes());
    }

    pub(super) fn u64(&mut self, v: u64) {
        self.put(&v.to_be_bytes());
    }

    /// Bytes written so far.
    pub(super) fn written(&self) -> usize {
        self.at
    }

    /// The part not yet written.
    pub(super) fn unwritten(&mut self) -> &mut [u8] {
        &mut self.buf[self.at..]
    }

    /// Counts `n` bytes of [`unwritten`](Self::unwritten) as written.
    pub(super) fn advance(&mut self, n: usize) {
        self.at += n;
    }
}

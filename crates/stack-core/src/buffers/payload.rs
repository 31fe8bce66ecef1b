//! Payload bytes as a list of shared slices: cloning and cutting it copies no byte.

use bytes::Bytes;
use core::ops::Range;
use smallvec::SmallVec;

/// Bytes of one segment, in order, in as many slices as the application's writes left them in.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Payload {
    slices: SmallVec<[Bytes; 2]>,
    len: usize,
}

impl Payload {
    /// No bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends `bytes`.
    pub fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.len += bytes.len();
            self.slices.push(bytes);
        }
    }

    /// The slices, none of them empty.
    pub fn slices(&self) -> &[Bytes] {
        &self.slices
    }

    /// The bytes `range` of this payload, sharing its memory. A range past the end is cut to fit.
    pub fn slice(&self, range: Range<usize>) -> Payload {
        let mut out = Payload::new();
        let mut start = 0;
        for s in &self.slices {
            let end = start + s.len();
            let from = range.start.max(start);
            let to = range.end.min(end);
            if from < to {
                out.push(s.slice(from - start..to - start));
            }
            start = end;
        }
        out
    }

    /// Cuts the payload in two at byte `at`: keeps the front and returns the rest.
    pub fn split_off(&mut self, at: usize) -> Payload {
        let rest = self.slice(at..self.len);
        *self = self.slice(0..at);
        rest
    }

    /// All bytes in one buffer; copies only when there are several slices.
    pub fn to_bytes(&self) -> Bytes {
        match self.slices.as_slice() {
            [] => Bytes::new(),
            [one] => one.clone(),
            many => many.concat().into(),
        }
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        let mut p = Payload::new();
        p.push(bytes);
        p
    }
}

impl core::fmt::Debug for Payload {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Payload({} bytes in {})", self.len, self.slices.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_and_splits_across_boundaries() {
        let mut p = Payload::from(Bytes::from_static(b"hello "));
        p.push(Bytes::from_static(b"wide "));
        p.push(Bytes::new());
        p.push(Bytes::from_static(b"world"));
        assert_eq!(p.len(), 16);
        assert_eq!(&p.slice(4..12).to_bytes()[..], b"o wide w");
        let rest = p.split_off(8);
        assert_eq!(&p.to_bytes()[..], b"hello wi");
        assert_eq!(&rest.to_bytes()[..], b"de world");
        assert!(rest.slice(8..20).is_empty());
    }
}

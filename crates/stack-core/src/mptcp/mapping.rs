//! Data sequence mappings (RFC 8684 §3.3.1): which subflow bytes are which data bytes.

use alloc::collections::VecDeque;
use smallvec::SmallVec;
use umptcp_types::{DataOffset, SubflowOffset};

/// A mapping we declared. Once sent it never changes: a retransmission repeats it verbatim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// First data byte.
    pub data: DataOffset,
    /// First subflow byte.
    pub subflow: SubflowOffset,
    /// Number of bytes.
    pub len: u16,
    /// DSS checksum, when negotiated.
    pub checksum: Option<u16>,
}

/// A mapping the peer declared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RxMapping {
    /// First subflow byte.
    pub subflow: SubflowOffset,
    /// First data byte.
    pub data: DataOffset,
    /// Payload bytes; a DATA_FIN is not counted.
    pub len: u64,
    /// The Data-Level Length as declared, DATA_FIN counted: it enters the checksum.
    pub declared: u16,
    /// DSS checksum, when negotiated.
    pub checksum: Option<u16>,
}

impl RxMapping {
    /// What it says of the subflow bytes `from..to`, which it covers.
    fn part(&self, from: SubflowOffset, to: SubflowOffset) -> RxMapping {
        RxMapping { subflow: from, data: self.data + (from - self.subflow), len: to - from, ..*self }
    }

    /// First subflow offset after it.
    pub fn end(&self) -> SubflowOffset {
        self.subflow + self.len
    }
}

/// What became of a received mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inserted {
    /// It is new.
    New,
    /// It was known already, or maps only bytes already consumed.
    Known,
    /// It contradicts one that was declared before (RFC 8684 §3.3.1 forbids that).
    Conflict,
    /// More mappings than any sender within our window needs.
    TooMany,
}

/// Mappings that arrived before the bytes they map: as many as fit a window of one-byte mappings would be absurd, so
/// the table is bounded.
const MAX_MAPPINGS: usize = 65_536;

/// Known mappings that a new one may overlap: a sender that cut its data anew would overlap a few, and the work per packet
/// must not depend on what a hostile peer declares.
const MAX_OVERLAPS: usize = 64;

/// The mappings the peer declared on one subflow for bytes not consumed yet, in order of subflow offset.
#[derive(Clone, Debug, Default)]
pub struct RxMappings {
    list: VecDeque<RxMapping>,
}

impl RxMappings {
    /// Remembers `m`. `consumed`: first subflow offset whose bytes have not been handed on yet.
    pub fn insert(&mut self, m: RxMapping, consumed: SubflowOffset) -> Inserted {
        if m.end() <= consumed || m.len == 0 {
            return Inserted::Known;
        }
        if m.checksum.is_some() && m.subflow < consumed {
            // Mappings with a checksum are consumed whole, so this one was not declared so before, and cannot be verified.
            return Inserted::Conflict;
        }
        // Usually it follows the last one.
        let at = match self.list.back() {
            Some(last) if last.subflow < m.subflow => self.list.len(),
            None => 0,
            _ => self.list.partition_point(|x| x.subflow < m.subflow),
        };
        if let Some(same) = self.list.get(at)
            && same.subflow == m.subflow
        {
            if same.data != m.data {
                return Inserted::Conflict;
            }
            return if m.len <= same.len { Inserted::Known } else { self.insert_uncovered(at, m) };
        }
        let first = at - usize::from(at > 0 && self.list[at - 1].end() > m.subflow);
        self.insert_uncovered(first, m)
    }

    /// Inserts the parts of `m` that no known mapping covers; `first` is the first known one that ends after its start.
    fn insert_uncovered(&mut self, first: usize, m: RxMapping) -> Inserted {
        let shift = |x: &RxMapping| x.data.0.wrapping_sub(x.subflow.0);
        let mut parts: SmallVec<[RxMapping; 4]> = SmallVec::new();
        let mut at = m.subflow;
        for (overlaps, known) in self.list.range(first..).take_while(|x| x.subflow < m.end()).enumerate() {
            if shift(known) != shift(&m) {
                return Inserted::Conflict;
            }
            if overlaps >= MAX_OVERLAPS {
                return Inserted::TooMany;
            }
            if known.subflow > at {
                parts.push(m.part(at, known.subflow));
            }
            at = at.max(known.end());
        }
        if at < m.end() {
            parts.push(m.part(at, m.end()));
        }
        if parts.is_empty() {
            return Inserted::Known;
        }
        // A checksum covers a mapping as it was declared: what was declared otherwise before cannot be joined to it.
        if m.checksum.is_some() && parts[0].len != m.len {
            return Inserted::Conflict;
        }
        if self.list.len() + parts.len() > MAX_MAPPINGS {
            return Inserted::TooMany;
        }
        for part in parts {
            let at = self.list.partition_point(|x| x.subflow < part.subflow);
            self.list.insert(at, part);
        }
        Inserted::New
    }

    /// The mapping that covers `at`, if it is the first one; mappings are consumed in order.
    pub fn covering(&self, at: SubflowOffset) -> Option<RxMapping> {
        self.list.iter().take(2).find(|m| m.subflow <= at && at < m.end()).copied()
    }

    /// Whether every mapping maps subflow offsets to data offsets that are larger by `shift` (modulo 2⁶⁴).
    pub fn all_shifted_by(&self, shift: u64) -> bool {
        self.list.iter().all(|m| m.data.0.wrapping_sub(m.subflow.0) == shift)
    }

    /// Forgets mappings whose bytes all precede `consumed`.
    pub fn consumed(&mut self, consumed: SubflowOffset) {
        while self.list.front().is_some_and(|m| m.end() <= consumed) {
            self.list.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn m(subflow: u64, data: u64, len: u64) -> RxMapping {
        RxMapping {
            subflow: SubflowOffset(subflow),
            data: DataOffset(data),
            len,
            declared: len as u16,
            checksum: None,
        }
    }

    #[test]
    fn mappings_are_kept_in_order_and_retired() {
        let mut t = RxMappings::default();
        let zero = SubflowOffset(1);
        assert_eq!(t.insert(m(101, 501, 100), zero), Inserted::New);
        assert_eq!(t.insert(m(1, 301, 100), zero), Inserted::New);
        assert_eq!(t.insert(m(1, 301, 100), zero), Inserted::Known);
        assert_eq!(t.insert(m(1, 302, 100), zero), Inserted::Conflict);
        assert_eq!(t.insert(m(51, 351, 20), zero), Inserted::Known);
        assert_eq!(t.insert(m(51, 999, 20), zero), Inserted::Conflict);
        assert_eq!(t.covering(SubflowOffset(100)), Some(m(1, 301, 100)));
        t.consumed(SubflowOffset(101));
        assert_eq!(t.covering(SubflowOffset(101)), Some(m(101, 501, 100)));
        assert_eq!(t.insert(m(1, 301, 100), SubflowOffset(101)), Inserted::Known);
    }

    #[test]
    fn a_mapping_that_overlaps_known_ones_adds_what_they_lack() {
        let mut t = RxMappings::default();
        let one = SubflowOffset(1);
        assert_eq!(t.insert(m(101, 501, 50), one), Inserted::New);
        assert_eq!(t.insert(m(201, 601, 50), one), Inserted::New);
        assert_eq!(t.insert(m(51, 451, 250), one), Inserted::New);
        let parts: alloc::vec::Vec<_> = t.list.iter().map(|x| (x.subflow.0, x.data.0, x.len)).collect();
        assert_eq!(parts, [(51, 451, 50), (101, 501, 50), (151, 551, 50), (201, 601, 50), (251, 651, 50)]);
        assert_eq!(t.insert(m(51, 451, 250), one), Inserted::Known);
        assert_eq!(t.insert(m(251, 651, 60), one), Inserted::New);
        assert_eq!(t.insert(m(300, 999, 60), one), Inserted::Conflict);
        // With a checksum the parts could not be verified.
        let whole = RxMapping { checksum: Some(1), ..m(1, 401, 100) };
        assert_eq!(t.insert(whole, one), Inserted::Conflict);
        let inside = RxMapping { checksum: Some(1), ..m(110, 510, 10) };
        assert_eq!(t.insert(inside, one), Inserted::Known);
    }

    #[test]
    fn one_mapping_over_very_many_is_refused() {
        let mut t = RxMappings::default();
        let one = SubflowOffset(1);
        for i in 0..200 {
            assert_eq!(t.insert(m(2 * i + 1, 2 * i + 1, 1), one), Inserted::New);
        }
        assert_eq!(t.insert(m(1, 1, 400), one), Inserted::TooMany);
        assert_eq!(t.insert(m(1, 1, 20), one), Inserted::New);
    }
}

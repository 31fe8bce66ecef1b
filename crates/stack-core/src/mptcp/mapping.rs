//! Data sequence mappings (RFC 8684 §3.3.1): which subflow bytes are which data bytes.

use alloc::collections::VecDeque;
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
        // Usually it follows the last one.
        let at = match self.list.back() {
            Some(last) if last.subflow < m.subflow => self.list.len(),
            None => 0,
            _ => self.list.partition_point(|x| x.subflow < m.subflow),
        };
        if let Some(same) = self.list.get(at)
            && same.subflow == m.subflow
        {
            return if same.data == m.data && same.len == m.len {
                Inserted::Known
            } else {
                Inserted::Conflict
            };
        }
        let overlaps_previous = at > 0 && self.list[at - 1].end() > m.subflow;
        let overlaps_next = self.list.get(at).is_some_and(|n| m.end() > n.subflow);
        if overlaps_previous || overlaps_next {
            // An overlap that says the same is harmless; the part not covered yet would come again by itself.
            let previous = (at > 0).then(|| self.list[at - 1]);
            let agrees =
                |x: &RxMapping| x.data.0.wrapping_sub(x.subflow.0) == m.data.0.wrapping_sub(m.subflow.0);
            let ok = previous.filter(|_| overlaps_previous).is_none_or(|p| agrees(&p))
                && self.list.get(at).filter(|_| overlaps_next).is_none_or(agrees);
            return if ok { Inserted::Known } else { Inserted::Conflict };
        }
        if self.list.len() >= MAX_MAPPINGS {
            return Inserted::TooMany;
        }
        self.list.insert(at, m);
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
}

//! What comes in on one subflow, between TCP and the data level: bytes that wait for their mapping, or for
//! the rest of a mapping with a checksum (RFC 8684 §3.3.1).

use super::mapping::{Inserted, RxMapping, RxMappings};
use crate::buffers::slices::Slices;
use crate::wire::checksum;
use crate::wire::mptcp::dss_pseudo_header;
use alloc::boxed::Box;
use bytes::Bytes;
use umptcp_types::{DataOffset, DataSeq, Duration, Instant, SubflowOffset};

/// How long data waits for its mapping (RFC 8684 §3.3.1: "a short while").
const UNMAPPED_WAIT: Duration = Duration::from_secs(2);

/// MP_FAILs sent, on timers that start from the RTO and double, before a subflow whose peer does not answer
/// is reset.
const FAIL_TRIES: u8 = 5;

/// A checksum failed on the only subflow, and the peer has been told (RFC 8684 §3.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct FailSent {
    /// Where the failed mapping begins.
    data: DataOffset,
    /// When to say it again.
    resend: Instant,
    /// How often it has been said.
    tries: u8,
}

/// The mapping of what was handed on last, for whoever looks. Those that continue one another are one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LastMapping {
    pub(crate) data: DataOffset,
    /// The subflow sequence number, as the DSS option has it.
    pub(crate) ssn: u32,
    pub(crate) len: u32,
}

/// What is to be done about an MP_FAIL that nobody has answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unanswered {
    /// Say it again, about the mapping that begins there; so often it has been said.
    Repeat(DataOffset, u8),
    /// The peer does not answer.
    GiveUp(DataOffset),
}

/// The next thing that is ready for the data level.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Ready {
    /// These bytes are data.
    Data(DataOffset, Bytes),
    /// The peer's data end there, says a mapping whose checksum is right.
    DataFin(DataOffset),
    /// The checksum of the mapping that begins there is wrong.
    Corrupt(DataOffset),
}

/// What comes in on one subflow.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// Mappings for bytes not handed to the data level yet.
    mappings: RxMappings,
    /// In-order bytes that wait for their mapping, or for the rest of one with a checksum.
    waiting: Slices,
    /// First subflow offset not handed to the data level, where they begin.
    consumed: SubflowOffset,
    /// The mapping of the byte before `consumed`.
    last: Option<LastMapping>,
    /// The mapping at `consumed` has passed its checksum.
    verified_to: SubflowOffset,
    /// Since when the bytes at `consumed` have waited for a mapping.
    unmapped_since: Option<Instant>,
    /// A checksum failed here, and the peer was told with MP_FAIL: nothing is handed on until it answers.
    fail: Option<Box<FailSent>>,
    /// Bytes of the peer's SYN, which subflow sequence numbers in mappings do not count (RFC 8684 appendix
    /// B.2).
    syn_data: u64,
    /// An MPTCP option has come after the SYN: options pass, and the peer sends them.
    options_seen: bool,
}

impl Incoming {
    /// Nothing has come. `window`: what the connection offers.
    pub(crate) fn new(window: usize) -> Self {
        Incoming {
            mappings: RxMappings::new(window),
            waiting: Slices::default(),
            consumed: SubflowOffset(1),
            last: None,
            verified_to: SubflowOffset(1),
            unmapped_since: None,
            fail: None,
            syn_data: 0,
            options_seen: false,
        }
    }

    /// The connection offers `window` now.
    pub(crate) fn set_window(&mut self, window: usize) {
        self.mappings.set_window(window);
    }

    /// The peer's SYN carried `n` bytes, which go to the data level at once.
    pub(crate) fn on_syn_data(&mut self, n: u64) {
        self.syn_data = n;
        self.consumed = SubflowOffset(1 + n);
        self.verified_to = self.consumed;
    }

    /// Offset of the first byte that the peer's SYN did not carry.
    pub(crate) fn first_data(&self) -> u64 {
        1 + self.syn_data
    }

    /// A subflow sequence number in a mapping, with the bytes of the SYN counted.
    pub(crate) fn counted(&self, ssn: u32) -> u32 {
        ssn.wrapping_add(self.syn_data as u32)
    }

    /// The subflow offset that a number in a mapping means: the one nearest to what is expected. `None`:
    /// before the first.
    pub(crate) fn offset_of(&self, ssn: u32) -> Option<SubflowOffset> {
        let delta = self.counted(ssn).wrapping_sub(self.consumed.0 as u32) as i32;
        self.consumed.0.checked_add_signed(i64::from(delta)).map(SubflowOffset)
    }

    /// First subflow offset not handed to the data level.
    pub(crate) fn consumed(&self) -> SubflowOffset {
        self.consumed
    }

    /// The mapping of what was handed on last.
    pub(crate) fn last_mapping(&self) -> Option<LastMapping> {
        self.last
    }

    /// Remembers a mapping.
    pub(crate) fn on_mapping(&mut self, m: RxMapping) -> Inserted {
        self.mappings.insert(m, self.consumed)
    }

    /// Where the byte at `at` belongs at the data level, if its mapping has come.
    pub(crate) fn place_of(&self, at: SubflowOffset) -> Option<DataOffset> {
        self.mappings.covering(at).map(|m| m.data + (at - m.subflow))
    }

    /// Bytes wait for their mapping, or for the answer to MP_FAIL.
    pub(crate) fn is_unmapped(&self) -> bool {
        self.unmapped_since.is_some() || self.fail.is_some()
    }

    /// Whether the byte at `at` has been handed on, or has its mapping.
    pub(crate) fn is_mapped(&self, at: SubflowOffset) -> bool {
        at < self.consumed || self.mappings.covering(at).is_some()
    }

    /// Whether every mapping continues the data at `next` from the next byte of the subflow on.
    pub(crate) fn continues(&self, next: DataOffset) -> bool {
        self.mappings.all_shifted_by(next.0.wrapping_sub(self.consumed.0))
    }

    /// Bytes that are in order on the subflow, beginning at `at`.
    pub(crate) fn push(&mut self, at: SubflowOffset, bytes: Bytes) {
        debug_assert_eq!(at, self.consumed + self.waiting.len() as u64);
        self.waiting.push(bytes);
    }

    /// The next thing for the data level. `idsn`: the peer's, for checksums.
    pub(crate) fn next(&mut self, now: Instant, idsn: DataSeq) -> Option<Ready> {
        if self.waiting.len() == 0 || self.fail.is_some() {
            self.unmapped_since = None;
            return None;
        }
        let at = self.consumed;
        let Some(mapping) = self.mappings.covering(at) else {
            self.unmapped_since.get_or_insert(now);
            return None;
        };
        self.unmapped_since = None;
        if mapping.checksum.is_some() && self.verified_to < mapping.end() {
            if !self.verdict(&mapping, idsn)? {
                return Some(Ready::Corrupt(mapping.data));
            }
            self.verified_to = mapping.end();
            if u64::from(mapping.declared) > mapping.len {
                return Some(Ready::DataFin(mapping.data + mapping.len));
            }
        }
        let mapped = usize::try_from(mapping.end() - at).unwrap_or(usize::MAX);
        let bytes = self.waiting.pop(mapped)?;
        self.consumed = at + bytes.len() as u64;
        self.mappings.consumed(self.consumed);
        self.last = Some(LastMapping {
            data: mapping.data,
            ssn: mapping.subflow.0.wrapping_sub(self.syn_data) as u32,
            len: u32::try_from(mapping.len).unwrap_or(u32::MAX),
        });
        Some(Ready::Data(mapping.data + (at - mapping.subflow), bytes))
    }

    /// Whether the checksum of `mapping` is right; `None` while bytes are missing (RFC 8684 §3.3.1, figure
    /// 10).
    fn verdict(&self, mapping: &RxMapping, idsn: DataSeq) -> Option<bool> {
        let expected = mapping.checksum?;
        // Not summed anew for each packet of it.
        if mapping.subflow != self.consumed || (self.waiting.len() as u64) < mapping.len {
            return None;
        }
        let (mut sum, mut position, mut left) = (0, 0, mapping.len as usize);
        for bytes in self.waiting.iter() {
            let bytes = &bytes[..bytes.len().min(left)];
            sum = checksum::add_at(sum, checksum::sum(bytes, 0), position);
            position += bytes.len();
            left -= bytes.len();
            if left == 0 {
                break;
            }
        }
        let dsn = mapping.data.to_wire(idsn).0;
        let ssn = mapping.subflow.0.wrapping_sub(self.syn_data) as u32;
        sum = checksum::add(sum, dss_pseudo_header(dsn, ssn, mapping.declared));
        Some(checksum::fold(checksum::add(sum, u64::from(expected))) == 0xffff)
    }

    /// Plain TCP: the next bytes that waited for a mapping, and where they stand on the subflow.
    pub(crate) fn next_plain(&mut self) -> Option<(SubflowOffset, Bytes)> {
        self.unmapped_since = None;
        let bytes = self.waiting.pop(usize::MAX)?;
        let at = self.consumed;
        self.consumed += bytes.len() as u64;
        Some((at, bytes))
    }

    /// Bytes that wait for their mapping, or for the rest of one.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// RFC 8684 §3.3.1: data whose mapping does not arrive within a window of data breaks the subflow. Behind
    /// a failed checksum a window of data, and what a box inserted, may wait for the answer to MP_FAIL.
    pub(crate) fn is_overfull(&self, window: usize) -> bool {
        let windows = if self.fail.is_some() { 2 } else { 1 };
        self.waiting.len() >= windows * window
    }

    /// When data that waits for its mapping has waited long enough.
    pub(crate) fn unmapped_deadline(&self) -> Option<Instant> {
        self.unmapped_since.map(|t| t + UNMAPPED_WAIT)
    }

    /// An MPTCP option has come after the SYN.
    pub(crate) fn on_option(&mut self) {
        self.options_seen = true;
    }

    pub(crate) fn options_seen(&self) -> bool {
        self.options_seen
    }

    // ---- MP_FAIL ----

    /// The checksum of the mapping that begins at `data` failed, and the peer is told; again at `resend`
    /// without an answer.
    pub(crate) fn on_fail_sent(&mut self, data: DataOffset, resend: Instant) {
        self.fail = Some(Box::new(FailSent { data, resend, tries: 1 }));
    }

    /// The peer has been told of a failed checksum.
    pub(crate) fn awaits_fail(&self) -> bool {
        self.fail.is_some()
    }

    /// When MP_FAIL is said again.
    pub(crate) fn fail_deadline(&self) -> Option<Instant> {
        self.fail.as_ref().map(|f| f.resend)
    }

    /// What is to be done about an MP_FAIL whose time has come.
    pub(crate) fn unanswered_fail(&self, now: Instant) -> Option<Unanswered> {
        let fail = self.fail.as_ref().filter(|f| f.resend <= now)?;
        Some(match fail.tries {
            tries if tries >= FAIL_TRIES => Unanswered::GiveUp(fail.data),
            tries => Unanswered::Repeat(fail.data, tries),
        })
    }

    /// MP_FAIL is said again, and once more at `resend`.
    pub(crate) fn on_fail_repeated(&mut self, resend: Instant) {
        if let Some(fail) = &mut self.fail {
            fail.resend = resend;
            fail.tries += 1;
        }
    }

    /// From here on plain TCP, where nobody waits for an answer.
    pub(crate) fn on_fallback(&mut self) {
        self.fail = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(subflow: u64, data: u64, len: u64, checksum: Option<u16>) -> RxMapping {
        let (subflow, data) = (SubflowOffset(subflow), DataOffset(data));
        RxMapping { subflow, data, len, declared: len as u16, checksum }
    }

    #[test]
    fn bytes_wait_for_their_mapping_and_no_longer_than_a_while() {
        let (mut m, now, idsn) = (Incoming::new(1000), Instant::ZERO, DataSeq(9));
        m.push(SubflowOffset(1), Bytes::from_static(b"hello"));
        assert_eq!(m.next(now, idsn), None);
        assert_eq!(m.unmapped_deadline(), Some(now + UNMAPPED_WAIT));
        assert_eq!(m.on_mapping(mapping(1, 51, 3, None)), Inserted::New);
        assert_eq!(m.next(now, idsn), Some(Ready::Data(DataOffset(51), Bytes::from_static(b"hel"))));
        assert_eq!(m.unmapped_deadline(), None);
        assert_eq!(m.next(now, idsn), None);
        assert!(m.unmapped_deadline().is_some() && m.is_overfull(2) && !m.is_overfull(3));
        assert_eq!(m.next_plain(), Some((SubflowOffset(4), Bytes::from_static(b"lo"))));
        assert_eq!((m.next_plain(), m.unmapped_deadline()), (None, None));
    }

    #[test]
    fn a_checksum_is_verified_once_all_is_there_and_its_data_fin_counts_then() {
        let (mut m, now, idsn) = (Incoming::new(1000), Instant::ZERO, DataSeq(9));
        let sum = checksum::add(checksum::sum(b"hello", 0), dss_pseudo_header(10, 1, 6));
        let right = RxMapping { declared: 6, ..mapping(1, 1, 5, Some(!checksum::fold(sum))) };
        m.on_mapping(right);
        m.push(SubflowOffset(1), Bytes::from_static(b"hel"));
        assert_eq!(m.next(now, idsn), None);
        m.push(SubflowOffset(4), Bytes::from_static(b"lo"));
        assert_eq!(m.next(now, idsn), Some(Ready::DataFin(DataOffset(6))));
        assert!(matches!(m.next(now, idsn), Some(Ready::Data(DataOffset(1), _))));
    }

    #[test]
    fn a_wrong_checksum_holds_everything_up_until_the_peer_has_answered() {
        let (mut m, now, idsn) = (Incoming::new(1000), Instant::ZERO, DataSeq(9));
        m.on_mapping(mapping(1, 1, 5, Some(1)));
        m.push(SubflowOffset(1), Bytes::from_static(b"hello"));
        assert_eq!(m.next(now, idsn), Some(Ready::Corrupt(DataOffset(1))));
        m.on_fail_sent(DataOffset(1), now);
        assert_eq!(m.next(now, idsn), None);
        for tries in 1..FAIL_TRIES {
            assert_eq!(m.unanswered_fail(now), Some(Unanswered::Repeat(DataOffset(1), tries)));
            m.on_fail_repeated(now);
        }
        assert_eq!(m.unanswered_fail(now), Some(Unanswered::GiveUp(DataOffset(1))));
        m.on_fallback();
        assert!(!m.awaits_fail() && m.unanswered_fail(now).is_none());
    }
}

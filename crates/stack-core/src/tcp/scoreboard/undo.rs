//! Evidence that the retransmissions of an episode were needless.

use crate::buffers::ranges::RangeSet;
use crate::types::Instant;
use core::ops::Range;

/// Ranges beyond which we no longer try to learn whether all retransmissions of an episode were needless.
const UNDO_RANGES: usize = 1_024;

/// Whether the retransmissions of an episode were needed.
#[derive(Clone, Debug)]
pub(super) struct Undo {
    /// When the episode's first retransmission was made.
    first_retransmission: Option<Instant>,
    /// Retransmitted in this episode and not reported twice by a D-SACK.
    pending: RangeSet,
    /// Nothing more can be learned: reported already, or too many ranges to follow.
    closed: bool,
    retransmissions: u64,
    dsacks: u64,
}

impl Undo {
    pub(super) const fn new() -> Self {
        Undo {
            first_retransmission: None,
            pending: RangeSet::new(),
            closed: false,
            retransmissions: 0,
            dsacks: 0,
        }
    }

    /// An episode begins.
    pub(super) fn begin(&mut self) {
        self.first_retransmission = None;
        self.pending.clear();
        self.closed = false;
    }

    /// Counts a retransmission; `episode`: it belongs to one.
    pub(super) fn retransmitted(&mut self, at: Instant, range: Range<u64>, episode: bool) {
        self.retransmissions += 1;
        if episode && !self.closed {
            self.first_retransmission.get_or_insert(at);
            self.pending.insert(range);
            if self.pending.len() > UNDO_RANGES {
                self.closed = true;
                self.pending.clear();
            }
        }
    }

    /// Counts a D-SACK; false when there are now more of them than retransmissions.
    pub(super) fn count_dsack(&mut self) -> bool {
        self.dsacks += 1;
        self.dsacks <= self.retransmissions
    }

    /// When the episode's first retransmission was made.
    pub(super) fn first_retransmission(&self) -> Option<Instant> {
        self.first_retransmission
    }

    /// There was ever a D-SACK.
    pub(super) fn dsack_seen(&self) -> bool {
        self.dsacks > 0
    }

    /// A D-SACK reported `range`: whether every retransmission of the episode has now arrived twice.
    pub(super) fn all_duplicated(&mut self, range: Range<u64>) -> bool {
        !self.closed && self.pending.remove(range) > 0 && self.pending.is_empty()
    }

    /// The episode is found to be needless: true the first time.
    pub(super) fn report(&mut self) -> bool {
        !core::mem::replace(&mut self.closed, true)
    }
}

//! What a received segment or a timer brought about.

use bytes::Bytes;
use smallvec::SmallVec;
use umptcp_types::SubflowOffset;

/// In-order bytes with their offsets.
pub(crate) type Delivered = SmallVec<[(SubflowOffset, Bytes); 4]>;

/// What becomes of a segment, and what the caller is to do about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Disposition {
    /// Not acceptable: its options do not count. What it acknowledges may.
    #[default]
    Dropped,
    /// It fits no state: answer with a RST whose sequence number is the segment's ACK.
    Reset,
    /// A duplicate SYN of a half-open subflow: the SYN/ACK goes out again.
    RepeatSynAck,
    /// Both ends sent a SYN (RFC 9293 §3.5).
    SimultaneousOpen,
    /// The subflow ended (see `close_reason`).
    Ended,
    /// Acceptable, and the handshake is complete with it.
    Established,
    /// Acceptable.
    Accepted,
}

/// What a segment brought about.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) disposition: Disposition,
    /// Bytes that are now in order.
    pub(crate) delivered: Delivered,
    /// Bytes newly acknowledged or SACKed.
    pub(crate) acked: u64,
    /// SND.UNA advanced.
    pub(crate) advanced: bool,
    /// The peer's FIN is in order now.
    pub(crate) fin: bool,
    /// What is to be counted.
    pub(crate) news: NewsSet,
}

/// Something that a segment brought about and that is to be counted, in the order of counting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum News {
    /// Rejected by PAWS (RFC 7323 §5).
    PawsRejected,
    /// A challenge ACK is due, if the rate limits allow (RFC 5961).
    Challenge,
    /// An ACK is due for a probe right below the window (keep-alive, closed window), if the limit of this
    /// subflow allows.
    Probe,
    /// Out-of-order payload was dropped: too many pieces are held.
    PayloadRefused,
    /// Fast recovery began.
    RecoveryBegan,
    /// The window was reduced because the peer reports congestion marks.
    EcnReduction,
    /// A tail loss probe repaired a loss.
    TailProbeRepaired,
    /// A probe showed that the path carries larger packets.
    LargerPackets,
    /// Probes for larger packets have failed.
    SizeProbesFailed,
    /// A retransmission timeout was needless, by timestamps (RFC 3522) or because nothing had been sent
    /// again.
    TimeoutUndone,
    /// A retransmission timeout was needless, by F-RTO (RFC 5682).
    SpuriousTimeout,
    /// A retransmission timeout was needless, since all that was sent again arrived twice (RFC 3708).
    TimeoutDuplicated,
    /// The same of a fast recovery.
    RecoveryDuplicated,
    /// A fast recovery was needless, by timestamps or because nothing had been sent again.
    RecoveryUndone,
}

impl News {
    const ALL: [News; 14] = [
        News::PawsRejected,
        News::Challenge,
        News::Probe,
        News::PayloadRefused,
        News::RecoveryBegan,
        News::EcnReduction,
        News::TailProbeRepaired,
        News::LargerPackets,
        News::SizeProbesFailed,
        News::TimeoutUndone,
        News::SpuriousTimeout,
        News::TimeoutDuplicated,
        News::RecoveryDuplicated,
        News::RecoveryUndone,
    ];

    /// A retransmission timeout was needless, not only a fast retransmission.
    pub(crate) fn is_needless_timeout(self) -> bool {
        matches!(self, News::TimeoutUndone | News::SpuriousTimeout | News::TimeoutDuplicated)
    }
}

/// A set of [`News`]; it iterates in the order of counting.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct NewsSet(u16);

impl NewsSet {
    /// Adds `news`.
    pub(super) fn add(&mut self, news: News) {
        self.0 |= 1 << news as u8;
    }
}

impl Iterator for NewsSet {
    type Item = News;

    #[inline]
    fn next(&mut self) -> Option<News> {
        let news = *News::ALL.get(self.0.trailing_zeros() as usize)?;
        self.0 &= self.0 - 1;
        Some(news)
    }
}

/// What happened when timers fired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fired {
    /// A retransmission timeout: the subflow may be dead.
    pub(crate) timeout: bool,
    /// The subflow ended.
    pub(crate) ended: bool,
    /// RACK found losses and recovery began.
    pub(crate) recovery: bool,
    /// The path seems to swallow packets of the size so far: they are smaller from now on.
    pub(crate) smaller_packets: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn news_come_in_the_order_of_counting() {
        let mut set = NewsSet::default();
        assert_eq!(set.next(), None);
        for news in News::ALL.iter().rev() {
            set.add(*news);
        }
        assert_eq!(set.collect::<Vec<_>>(), News::ALL);
    }
}

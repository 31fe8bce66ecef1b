//! Packet schedulers for umptcp: which subflow carries the next bytes.
//!
//! A [`Scheduler`] sees a read-only [`Snapshot`] and answers with a [`Decision`]. It has no access to the
//! connection and keeps only its own state.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod blest;
mod ecf;
mod eligible;
mod interactive;
mod linux;
mod min_rtt;
mod redundant;
mod round_robin;
mod weighted;

pub use blest::Blest;
pub use ecf::Ecf;
pub use eligible::{limit, may_send, preferred};
pub use interactive::Interactive;
pub use linux::Linux;
pub use min_rtt::{MinRtt, fastest, fastest_with_room, fastest_without};
pub use redundant::Redundant;
pub use round_robin::RoundRobin;
pub use weighted::Weighted;

use alloc::boxed::Box;
use core::fmt;
use core::ops::Range;
use umptcp_types::{DataOffset, Duration, Instant, SubflowId};

/// Schedulers by name. A program adds its own with [`register`](umptcp_types::Registry::register).
pub type Registry = umptcp_types::Registry<dyn Scheduler>;

/// The scheduler that a connection uses by default.
pub const DEFAULT_NAME: &str = MinRtt::NAME;

/// Every scheduler of this crate, the default first.
pub fn built_in() -> Registry {
    let mut registry = Registry::empty();
    registry.register(MinRtt::NAME, || Box::new(MinRtt));
    registry.register(RoundRobin::NAME, || Box::<RoundRobin>::default());
    registry.register(Linux::NAME, || Box::<Linux>::default());
    registry.register(Redundant::NAME, || Box::new(Redundant));
    registry.register(Weighted::NAME, || Box::<Weighted>::default());
    registry.register(Blest::NAME, || Box::<Blest>::default());
    registry.register(Ecf::NAME, || Box::<Ecf>::default());
    registry.register(Interactive::NAME, || Box::new(Interactive));
    registry
}

/// Whether a subflow responds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// The peer acknowledges what is sent.
    Good,
    /// Acknowledgements are later than round-trip times and their variation explain, and what the subflow
    /// carries is sent again on others. New data should go to other subflows if there are any.
    Suspect,
    /// The retransmission timer has fired and nothing has been acknowledged since. New data should go to
    /// other subflows if there are any.
    Stale,
}

/// One subflow as a scheduler sees it. Sizes are in bytes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SubflowView {
    /// Identifies the subflow within its connection.
    pub id: SubflowId,
    /// Smoothed round-trip time (RFC 6298), `None` before the first sample.
    pub srtt: Option<Duration>,
    /// Round-trip time variation (RFC 6298).
    pub rttvar: Duration,
    /// Sender maximum segment size.
    pub mss: u32,
    /// Congestion window, but no more than the path's NIC sends in a round trip where that is known: it may be less than
    /// what is in flight.
    pub window: u64,
    /// Bytes sent that are neither acknowledged nor marked lost.
    pub in_flight: u64,
    /// How much the subflow can take now: the room in its congestion window and its send window, less
    /// `queued`.
    pub room: u64,
    /// Bytes given to the subflow but not sent yet.
    pub queued: u64,
    /// Bytes that have been sent on other subflows since the last new byte went out on this one, and that the
    /// peer has not acknowledged: what [`Decision::Repeat`] sends.
    pub behind: u64,
    /// Pacing rate in bytes per second, but no more than the path's NIC sends where that is known.
    pub pacing_rate: u64,
    /// When pacing next allows the subflow to send. Not later than [`Snapshot::now`] if it may send at once.
    pub next_send: Instant,
    /// Smoothed loss rate, in segments lost per segment sent: 0.0 to 1.0.
    pub loss: f32,
    /// Either end asked for this subflow to be a backup (B flag of MP_JOIN, MP_PRIO).
    pub backup: bool,
    /// What is sent here is paid for: the subflow is used only when nothing else answers, not even a backup.
    pub metered: bool,
    /// Configured weight, 1 by default.
    pub weight: u32,
    /// Configured cost of a byte, relative to those of other paths; 1 by default.
    pub cost: u32,
    /// Whether the subflow responds.
    pub health: Health,
}

impl SubflowView {
    /// A regular, responsive and unpaced subflow without a round-trip time sample, whose window and room are
    /// 0.
    #[inline]
    pub const fn new(id: SubflowId, mss: u32) -> Self {
        SubflowView {
            id,
            srtt: None,
            rttvar: Duration::ZERO,
            mss,
            window: 0,
            in_flight: 0,
            room: 0,
            queued: 0,
            behind: 0,
            pacing_rate: u64::MAX,
            next_send: Instant::ZERO,
            loss: 0.0,
            backup: false,
            metered: false,
            weight: 1,
            cost: 1,
            health: Health::Good,
        }
    }
}

/// What a scheduler sees of a connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot<'a> {
    /// The current time.
    pub now: Instant,
    /// Every subflow that may carry data, in order of id.
    pub subflows: &'a [SubflowView],
    /// Room left in the peer's connection-level window.
    pub send_window: u64,
    /// All of that window: bytes that may be outstanding at once, those included that are.
    pub whole_window: u64,
    /// Bytes that the application has written and no subflow has been given yet.
    pub backlog: u64,
}

impl<'a> Snapshot<'a> {
    /// A connection with these subflows and nothing outstanding. `send_window` and `backlog` are in bytes.
    #[inline]
    pub const fn new(now: Instant, subflows: &'a [SubflowView], send_window: u64, backlog: u64) -> Self {
        Snapshot { now, subflows, send_window, whole_window: send_window, backlog }
    }

    /// Bytes of new data that could be sent now, if subflows had room.
    #[inline]
    pub fn sendable(&self) -> u64 {
        self.backlog.min(self.send_window)
    }
}

/// Data to be sent again on another subflow, because the ones that carry it do not deliver it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Reinjection<'a> {
    /// The range in the data sequence space.
    pub range: Range<DataOffset>,
    /// The subflows on which it has been sent.
    pub carried_by: &'a [SubflowId],
}

impl<'a> Reinjection<'a> {
    /// `range`, which has been sent on the subflows `carried_by`.
    #[inline]
    pub const fn new(range: Range<DataOffset>, carried_by: &'a [SubflowId]) -> Self {
        Reinjection { range, carried_by }
    }
}

/// A scheduler's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Send on `subflow`, at most `limit` bytes before asking again.
    Send {
        /// The subflow to use.
        subflow: SubflowId,
        /// The maximum number of bytes. Less than a packet counts as one.
        limit: u64,
    },
    /// Send on `subflow`, at most `limit` bytes before asking again, the first of the bytes that it is
    /// [behind](SubflowView::behind). An answer to [`Scheduler::schedule`] only.
    Repeat {
        /// The subflow to use.
        subflow: SubflowId,
        /// The maximum number of bytes.
        limit: u64,
    },
    /// Send nothing until something changes: an acknowledgement or new data arrives, a subflow is added or
    /// removed, or the [`SubflowView::next_send`] of a paced subflow is reached.
    Wait,
}

impl Decision {
    /// Send as many of `bytes` as fit on `subflow`.
    pub fn send(subflow: &SubflowView, bytes: u64) -> Decision {
        Decision::Send { subflow: subflow.id, limit: limit(subflow, bytes) }
    }
}

/// Decides which subflow carries the next bytes of one connection.
pub trait Scheduler: fmt::Debug + Send {
    /// The name it is registered under.
    fn name(&self) -> &'static str;
    /// Schedules new data. Called repeatedly until it returns [`Decision::Wait`] or no data is left.
    fn schedule(&mut self, snapshot: &Snapshot<'_>) -> Decision;
    /// Schedules data that was already sent on other subflows, which do not deliver it. The fastest subflow
    /// that does not carry it, unless a scheduler knows better.
    fn reinject(&mut self, snapshot: &Snapshot<'_>, what: &Reinjection<'_>) -> Decision {
        fastest_without(snapshot, what)
    }
    /// Whether it answers with [`Decision::Repeat`], so that it is asked even when there is no new data.
    fn repeats(&self) -> bool {
        false
    }
    /// `bytes` of data are sent on a subflow: new, sent again, or repeated.
    fn on_sent(&mut self, _now: Instant, _subflow: SubflowId, _bytes: u64) {}
    /// A subflow can now carry data.
    fn subflow_added(&mut self, _subflow: SubflowId) {}
    /// A subflow no longer exists.
    fn subflow_removed(&mut self, _subflow: SubflowId) {}
    /// `bytes` were acknowledged on a subflow.
    fn on_ack(&mut self, _now: Instant, _subflow: SubflowId, _bytes: u64) {}
    /// The peer's connection-level window has become full.
    fn on_blocked(&mut self, _now: Instant) {}
}

#[cfg(test)]
mod tests;

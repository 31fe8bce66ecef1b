//! Packet schedulers for umptcp: which subflow carries the next bytes.
//!
//! A [`Scheduler`] sees a read-only [`Snapshot`] and answers with a [`Decision`]. It keeps only its own state and
//! never touches the connection.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod eligible;
mod min_rtt;
mod round_robin;

pub use eligible::{limit, may_send, preferred};
pub use min_rtt::MinRtt;
pub use round_robin::RoundRobin;

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
    registry
}

/// How a subflow is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// Acknowledgements arrive.
    Good,
    /// Retransmission timeouts without an answer: not to be given new data while another subflow can take them.
    Stale,
}

/// One subflow as a scheduler sees it. Bytes and bytes per second throughout.
#[derive(Clone, Debug)]
pub struct SubflowView {
    /// Which subflow.
    pub id: SubflowId,
    /// Smoothed round-trip time (RFC 6298); the initial 1 s RTO guess is not in it: `None` before the first sample.
    pub srtt: Option<Duration>,
    /// Round-trip time variation (RFC 6298).
    pub rttvar: Duration,
    /// Sender maximum segment size.
    pub mss: u32,
    /// Congestion window.
    pub window: u64,
    /// Sent and neither acknowledged nor deemed lost.
    pub in_flight: u64,
    /// What the subflow may be given now: room left in the congestion window and in the subflow's own send window,
    /// less what is queued.
    pub room: u64,
    /// Handed to the subflow and not sent yet.
    pub queued: u64,
    /// Pacing rate in bytes per second.
    pub pacing_rate: u64,
    /// When pacing lets this subflow send next; not later than `now` when it may send at once.
    pub next_send: Instant,
    /// Segments lost per segment sent, smoothed, 0.0 to 1.0.
    pub loss: f32,
    /// Either end asked for it to be a backup (MP_JOIN's B bit, MP_PRIO).
    pub backup: bool,
    /// Configured weight, 1 by default.
    pub weight: u32,
    /// Whether it answers.
    pub health: Health,
}

/// What a scheduler may look at.
#[derive(Clone, Debug)]
pub struct Snapshot<'a> {
    /// The current time.
    pub now: Instant,
    /// Every subflow that may carry data, in order of id.
    pub subflows: &'a [SubflowView],
    /// Room left in the peer's connection-level window.
    pub send_window: u64,
    /// Bytes the application has written that no subflow carries yet.
    pub backlog: u64,
}

/// The bytes that are to be sent a second time because their first subflow does not deliver them.
#[derive(Clone, Debug)]
pub struct Reinjection<'a> {
    /// The range of the data sequence space.
    pub range: Range<DataOffset>,
    /// Subflows that carry it already.
    pub carried_by: &'a [SubflowId],
}

/// A scheduler's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Send on `subflow`, at most `limit` bytes before asking again.
    Send {
        /// The subflow to use.
        subflow: SubflowId,
        /// At most so many bytes.
        limit: u64,
    },
    /// Send nothing until something changes: an acknowledgement, new data, a subflow, or a [`SubflowView::next_send`]
    /// that has come (a scheduler may wait for a subflow that is merely paced).
    Wait,
}

/// Decides which subflow carries the next bytes of one connection.
pub trait Scheduler: fmt::Debug + Send {
    /// The name under which the registry knows it.
    fn name(&self) -> &'static str;
    /// New data are to be sent. Called again until it waits or there is nothing left.
    fn schedule(&mut self, snapshot: &Snapshot<'_>) -> Decision;
    /// Data are to be sent again on another subflow.
    fn reinject(&mut self, snapshot: &Snapshot<'_>, what: &Reinjection<'_>) -> Decision;
    /// A subflow may carry data from now on.
    fn subflow_added(&mut self, _subflow: SubflowId) {}
    /// A subflow has gone.
    fn subflow_removed(&mut self, _subflow: SubflowId) {}
    /// `bytes` were acknowledged on a subflow.
    fn on_ack(&mut self, _now: Instant, _subflow: SubflowId, _bytes: u64) {}
    /// The peer's connection-level window stopped the sender.
    fn on_blocked(&mut self, _now: Instant) {}
}

#[cfg(test)]
mod tests;

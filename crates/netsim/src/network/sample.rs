//! What is going on, at regular intervals.

use crate::direction::Direction;
use crate::id::{FlowId, Side};
use crate::link_queue::LinkStats;
use umptcp_stack_core::stack::SubflowInfo;
use umptcp_types::{Duration, Instant};

/// One end of a connection at the time of a sample.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndSample {
    /// Which connection.
    pub flow: FlowId,
    /// Which end.
    pub side: Side,
    /// Bytes the application has received so far.
    pub received: u64,
    /// Bytes the stack has taken from the application so far.
    pub sent: u64,
    /// What the stack says about the subflows: windows, round-trip times, bytes.
    pub subflows: Vec<SubflowInfo>,
}

/// One direction of a cable at the time of a sample.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CableSample {
    /// What it has done so far.
    pub stats: LinkStats,
    /// Packets that wait.
    pub queued_packets: usize,
    /// Bytes that wait.
    pub queued_bytes: u64,
}

/// The whole network at one instant.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Sample {
    /// When.
    pub at: Instant,
    /// Both ends of every connection, client first.
    pub ends: Vec<EndSample>,
    /// Both directions of every cable, forward first.
    pub cables: Vec<[CableSample; 2]>,
}

impl Sample {
    /// Mean rate in bits per second at which `side` of `flow` received between `earlier` and this sample.
    pub fn receive_rate(&self, earlier: &Sample, flow: FlowId, side: Side) -> f64 {
        let received =
            |s: &Sample| s.ends.iter().find(|e| e.flow == flow && e.side == side).map_or(0, |e| e.received);
        rate(received(self).saturating_sub(received(earlier)), self.at - earlier.at)
    }

    /// Mean rate in bits per second, IP headers included, that came out of one direction of a cable since
    /// `earlier`.
    pub fn cable_rate(&self, earlier: &Sample, cable: usize, direction: Direction) -> f64 {
        let bytes =
            |s: &Sample| s.cables.get(cable).map_or(0, |c| c[direction as usize].stats.delivered_bytes);
        rate(bytes(self).saturating_sub(bytes(earlier)), self.at - earlier.at)
    }
}

fn rate(bytes: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { bytes as f64 * 8.0 / time.as_secs_f64() }
}

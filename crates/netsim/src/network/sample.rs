//! What is going on, at regular intervals.

use super::{FlowId, Network, Side};
use crate::cable::Direction;
use crate::engine::LinkStats;
use umptcp_stack_core::stack::SubflowInfo;
use umptcp_types::{Duration, Instant};

/// One end of a connection at the time of a sample.
#[derive(Clone, Debug)]
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

    /// Mean rate in bits per second, IP headers included, that came out of one direction of a cable since `earlier`.
    pub fn cable_rate(&self, earlier: &Sample, cable: usize, direction: Direction) -> f64 {
        let bytes =
            |s: &Sample| s.cables.get(cable).map_or(0, |c| c[direction as usize].stats.delivered_bytes);
        rate(bytes(self).saturating_sub(bytes(earlier)), self.at - earlier.at)
    }
}

fn rate(bytes: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { bytes as f64 * 8.0 / time.as_secs_f64() }
}

impl Network {
    /// Takes a sample every `interval` from now on, the first at once; `None` ends it.
    pub fn sample_every(&mut self, interval: Option<Duration>) {
        self.sample_interval = interval.filter(|i| !i.is_zero());
        if self.sample_interval.is_some() {
            self.agenda.push_sample(self.now);
        }
    }

    /// The samples taken so far.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// The network as it is now.
    pub fn sample(&self) -> Sample {
        let mut ends = Vec::with_capacity(self.flows.len() * 2);
        for (index, flow) in self.flows.iter().enumerate() {
            for side in [Side::Client, Side::Server] {
                let end = flow.end(side);
                let connection = end.connection.filter(|_| !end.freed);
                ends.push(EndSample {
                    flow: FlowId(index),
                    side,
                    received: end.progress.received,
                    sent: end.progress.sent,
                    subflows: connection
                        .and_then(|c| Some(self.stack(end.node)?.subflows(c)))
                        .unwrap_or_default(),
                });
            }
        }
        let cables = self
            .cables
            .iter()
            .map(|slot| {
                Direction::BOTH.map(|d| {
                    let engine = slot.cable.engine(d);
                    let (queued_packets, queued_bytes) = engine.queued();
                    CableSample { stats: engine.stats(), queued_packets, queued_bytes }
                })
            })
            .collect();
        Sample { at: self.now, ends, cables }
    }

    pub(super) fn take_sample(&mut self) {
        let Some(interval) = self.sample_interval else { return };
        let sample = self.sample();
        self.samples.push(sample);
        self.agenda.push_sample(self.now + interval);
    }
}

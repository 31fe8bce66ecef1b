//! Taking samples of a network.

use super::Network;
use super::sample::{CableSample, EndSample, Sample};
use crate::direction::Direction;
use crate::id::{FlowId, Side};
use umptcp_types::Duration;

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
                    let queue = slot.cable.queue(d);
                    let (queued_packets, queued_bytes) = queue.queued();
                    CableSample { stats: queue.stats(), queued_packets, queued_bytes }
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

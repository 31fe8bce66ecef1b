//! A digest of all that a stack is given and gives: packets, events and observations, each with its time.
//!
//! Two builds with equal digests behave alike to the last bit. Every field is encoded by hand with tags that
//! are written here, so that a type that is renamed, moved or printed otherwise changes no digest.

mod counters;
mod encode;

use encode::Encoder;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use umptcp_stack_core::device::{RxPacket, Transmit};
use umptcp_stack_core::event::Event;
use umptcp_stack_core::observe::{CounterChange, Observation, Observer};
use umptcp_stack_core::types::{Instant, PathId};

/// The digest of one case. Clones share it.
#[derive(Clone, Default)]
pub struct Digest(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    encoder: Encoder,
    packets: u64,
    events: u64,
}

/// What came of a case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// The first 16 hexadecimal digits of the SHA-256 of everything in order.
    pub digest: String,
    /// Packets sent and received by all stacks.
    pub packets: u64,
    /// Events and observations of all stacks.
    pub events: u64,
}

impl Digest {
    /// An empty digest.
    pub fn new() -> Digest {
        Digest::default()
    }

    /// A case that panicked while it was recorded has been recorded up to there.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stack of `host` sent a packet.
    pub fn sent(&self, now: Instant, host: u32, packet: &Transmit) {
        let mut state = self.state();
        state.packets += 1;
        state.encoder.sent(now, host, packet);
    }

    /// The stack of `host` was handed a packet.
    pub fn received(&self, now: Instant, host: u32, path: PathId, packet: &RxPacket) {
        let mut state = self.state();
        state.packets += 1;
        state.encoder.received(now, host, path, packet);
    }

    /// The stack of `host` told the application something.
    pub fn event(&self, now: Instant, host: u32, event: &Event) {
        let mut state = self.state();
        state.events += 1;
        state.encoder.event(now, host, event);
    }

    /// Something happened inside the stack of `host`.
    pub fn observed(&self, host: u32, observation: &Observation) {
        let mut state = self.state();
        state.events += 1;
        state.encoder.observation(host, observation);
    }

    /// How a part of the case ended: without an error, or with one.
    pub fn ended(&self, well: bool) {
        self.state().encoder.ended(well);
    }

    /// The observer for the stack of `host`.
    pub fn observer(&self, host: u32) -> Box<dyn Observer> {
        Box::new(HostObserver { host, digest: self.clone() })
    }

    /// The digest of all so far.
    pub fn summary(&self) -> Summary {
        let state = self.state();
        Summary { digest: state.encoder.digest(), packets: state.packets, events: state.events }
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({:?})", self.summary())
    }
}

struct HostObserver {
    host: u32,
    digest: Digest,
}

impl Observer for HostObserver {
    fn observe(&mut self, observation: &Observation) {
        // Digests were stored before gauges told that they count down.
        if observation.change == CounterChange::Up {
            self.digest.observed(self.host, observation);
        }
    }
}

#[cfg(feature = "simulation")]
impl umptcp_netsim::Probe for Digest {
    fn observer(&mut self, host: umptcp_netsim::NodeId) -> Option<Box<dyn Observer>> {
        Some(Digest::observer(self, host.0 as u32))
    }

    fn sent(&mut self, now: Instant, host: umptcp_netsim::NodeId, packet: &Transmit) {
        Digest::sent(self, now, host.0 as u32, packet);
    }

    fn received(&mut self, now: Instant, host: umptcp_netsim::NodeId, path: PathId, packet: &RxPacket) {
        Digest::received(self, now, host.0 as u32, path, packet);
    }

    fn event(&mut self, now: Instant, host: umptcp_netsim::NodeId, event: &Event) {
        Digest::event(self, now, host.0 as u32, event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use umptcp_stack_core::observe::Counter;
    use umptcp_stack_core::types::ConnectionId;

    fn digest_of(events: &[Event]) -> String {
        let digest = Digest::new();
        for event in events {
            digest.event(Instant::from_millis(1), 0, event);
        }
        digest.summary().digest
    }

    /// The encoding is fixed: digests that were stored stay true.
    #[test]
    fn the_digest_of_a_known_record_never_changes() {
        let digest = Digest::new();
        assert_eq!(digest.summary().digest, "e3b0c44298fc1c14");
        digest.event(Instant::from_millis(1), 2, &Event::Connected { connection: ConnectionId(3) });
        let what = Observation::new(Instant::from_millis(2), Counter::MPCapableSYNRX).of(ConnectionId(3));
        digest.observed(2, &what);
        assert_eq!(digest.summary(), Summary { digest: "c4294511e78b1e9e".into(), packets: 0, events: 2 });
    }

    #[test]
    fn what_differs_in_a_field_or_in_order_has_another_digest() {
        let connected = |n| Event::Connected { connection: ConnectionId(n) };
        let readable = Event::Readable { connection: ConnectionId(1) };
        let all = [
            digest_of(&[connected(1)]),
            digest_of(&[connected(2)]),
            digest_of(&[connected(1), readable.clone()]),
            digest_of(&[readable, connected(1)]),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b));
        }
    }

    #[test]
    fn every_counter_has_a_tag_of_its_own() {
        let tags: std::collections::BTreeSet<u8> =
            Counter::ALL.iter().map(|c| counters::counter(*c)).collect();
        assert_eq!(tags.len(), Counter::ALL.len());
    }
}

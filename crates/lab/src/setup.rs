//! A scenario that was checked: plain values, indices instead of names.

use std::time::Duration;
use umptcp_netsim::Link;
use umptcp_stack_core::config::BufferSize;
use umptcp_types::Instant;

/// One combination of parameters, ready to run.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    pub(crate) seeds: Vec<u64>,
    pub(crate) sample: Duration,
    pub(crate) links: Vec<LinkSetup>,
    pub(crate) flows: Vec<FlowSetup>,
    pub(crate) events: Vec<EventSetup>,
    pub(crate) references: Vec<ReferenceSetup>,
    pub(crate) recoveries: Vec<RecoverySetup>,
}

impl Setup {
    /// When the measurement begins.
    pub(crate) fn begin(&self) -> Instant {
        Instant::ZERO + self.warm_up
    }

    /// When it ends.
    pub(crate) fn end(&self) -> Instant {
        self.begin() + self.duration
    }
}

#[derive(Clone, Debug)]
pub(crate) struct LinkSetup {
    pub(crate) name: String,
    pub(crate) forward: Link,
    pub(crate) reverse: Link,
}

/// A link of a route, and whether it is taken against its direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leg {
    pub(crate) link: usize,
    pub(crate) backward: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct FlowSetup {
    pub(crate) name: String,
    pub(crate) count: u32,
    pub(crate) mptcp: bool,
    pub(crate) congestion: String,
    pub(crate) scheduler: String,
    pub(crate) path_policy: String,
    /// From the sender to the receiver, one per subflow.
    pub(crate) routes: Vec<Vec<Leg>>,
    /// The side that listens sends.
    pub(crate) down: bool,
    pub(crate) start: Duration,
    pub(crate) spread: Duration,
    pub(crate) stop: Option<Duration>,
    pub(crate) size: Option<u64>,
    pub(crate) send_buffer: BufferSize,
    pub(crate) receive_buffer: BufferSize,
    pub(crate) checksum: bool,
    /// Ask for explicit congestion notification; otherwise it is used when the peer asks, which it does not.
    pub(crate) ecn: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct EventSetup {
    pub(crate) at: Duration,
    pub(crate) what: Change,
}

/// What an event changes.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Link(LinkChange),
    /// A group gets another congestion control algorithm, another scheduler, or both.
    Flow {
        group: usize,
        congestion: Option<String>,
        scheduler: Option<String>,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct LinkChange {
    pub(crate) link: usize,
    pub(crate) cut: Option<bool>,
    pub(crate) rate: Option<u64>,
    pub(crate) delay: Option<Duration>,
    pub(crate) loss: Option<f64>,
}

/// Published values that apply to this combination of parameters.
#[derive(Clone, Debug)]
pub(crate) struct ReferenceSetup {
    /// The mean over these groups.
    pub(crate) flows: Vec<String>,
    pub(crate) per: Option<String>,
    pub(crate) quantity: String,
    pub(crate) published: Option<f64>,
    pub(crate) predicted: Option<f64>,
    pub(crate) at_least: Option<f64>,
    pub(crate) tolerance: f64,
    pub(crate) source: String,
}

#[derive(Clone, Debug)]
pub(crate) struct RecoverySetup {
    pub(crate) flow: usize,
    pub(crate) after: Duration,
    pub(crate) compare: (Duration, Duration),
    pub(crate) share: f64,
    pub(crate) window: Duration,
}

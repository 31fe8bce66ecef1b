//! What is known of captured connections.

use crate::shared::lock;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Mutex;
use umptcp_stack_core::error::{ConnectionError, FallbackReason};
use umptcp_stack_core::event::Traffic;
use umptcp_stack_core::stack::MptcpStatus;

/// Connections that have ended of which a forwarder remembers what they were.
const REMEMBERED: usize = 1_024;

/// Which way a captured connection goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Direction {
    /// A captured program opened it.
    Out,
    /// It came from outside, for a captured server.
    In,
}

/// A connection that was captured and sent on.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Forwarded {
    /// Which way it goes.
    pub direction: Direction,
    /// Who opened it.
    pub client: SocketAddr,
    /// Where the client wanted to go.
    pub server: SocketAddr,
    /// What [`Forwarder::tag_by`](crate::Forwarder::tag_by) has said of it.
    pub tag: Option<u64>,
    /// Whether the side outside is MPTCP, and why not. `None`: not known yet.
    pub mptcp: Option<Result<(), FallbackReason>>,
    /// Bytes from client to server.
    pub up: u64,
    /// Bytes from server to client.
    pub down: u64,
    /// How it failed, if its streams did not arrive in full.
    pub failed: Option<ConnectionError>,
}

/// What a forwarder has done so far.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ForwardSummary {
    /// SYNs captured.
    pub captured: u64,
    /// Connections that stood onward, and were joined.
    pub joined: u64,
    /// Why others could not be sent on, and how often.
    pub failed: BTreeMap<String, u64>,
    /// Connections that have ended.
    pub ended: u64,
    /// Of these, those that were MPTCP outside.
    pub mptcp: u64,
    /// Those that were not, and why.
    pub tcp: BTreeMap<String, u64>,
    /// Bytes from clients to servers, on connections that have ended.
    pub up: u64,
    /// Bytes from servers to clients.
    pub down: u64,
    /// The last connections that have ended, oldest first; at most 1,024.
    pub last: VecDeque<Forwarded>,
}

/// The part of a forwarder that its handle and the worker share.
#[derive(Debug, Default)]
pub(crate) struct ForwardShared(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    all: ForwardSummary,
    /// Of those with a tag that is counted.
    tagged: HashMap<u64, Tagged>,
}

#[derive(Debug, Default)]
struct Tagged {
    summary: ForwardSummary,
    /// By subflows that have ended.
    carried: BTreeMap<String, Traffic>,
}

impl ForwardShared {
    pub(crate) fn summary(&self) -> ForwardSummary {
        lock(&self.0).all.clone()
    }

    pub(crate) fn ended(&self) -> u64 {
        lock(&self.0).all.ended
    }

    pub(crate) fn count(&self, tag: u64) {
        lock(&self.0).tagged.entry(tag).or_default();
    }

    pub(crate) fn is_counted(&self, tag: u64) -> bool {
        lock(&self.0).tagged.contains_key(&tag)
    }

    /// What there is of a tag; without what is open.
    pub(crate) fn counted(&self, tag: u64) -> Option<Counted> {
        let counts = lock(&self.0);
        let Tagged { summary, carried } = counts.tagged.get(&tag)?;
        Some(Counted { summary: summary.clone(), open: Vec::new(), carried: carried.clone() })
    }

    /// A subflow of a connection with that tag has ended.
    pub(crate) fn on_carried(&self, tag: u64, path: &str, traffic: Traffic) {
        if let Some(tagged) = lock(&self.0).tagged.get_mut(&tag) {
            add(&mut tagged.carried, path, traffic);
        }
    }

    pub(crate) fn stop_counting(&self, tag: u64) {
        lock(&self.0).tagged.remove(&tag);
    }

    pub(crate) fn on_captured(&self, tag: Option<u64>) {
        self.each(tag, |s| s.captured += 1);
    }

    pub(crate) fn on_failed(&self, tag: Option<u64>, why: &str) {
        self.each(tag, |s| *s.failed.entry(why.to_owned()).or_default() += 1);
    }

    pub(crate) fn on_joined(&self, tag: Option<u64>) {
        self.each(tag, |s| s.joined += 1);
    }

    pub(crate) fn on_ended(&self, about: Forwarded) {
        self.each(about.tag, |s| s.add(about.clone()));
    }

    /// Changes the summary of all, and that of the tag.
    fn each(&self, tag: Option<u64>, mut change: impl FnMut(&mut ForwardSummary)) {
        let mut counts = lock(&self.0);
        change(&mut counts.all);
        if let Some(of_tag) = tag.and_then(|tag| counts.tagged.get_mut(&tag)) {
            change(&mut of_tag.summary);
        }
    }
}

/// What became of the connections with a tag.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Counted {
    /// What was done so far.
    pub summary: ForwardSummary,
    /// Those that are joined now.
    pub open: Vec<Forwarded>,
    /// Payload that their sides outside have sent and received by each path, by its name; none for a path that
    /// they have not used.
    pub carried: BTreeMap<String, Traffic>,
}

impl Counted {
    /// Adds what a subflow that has not ended has carried.
    pub(crate) fn add(&mut self, path: &str, traffic: Traffic) {
        add(&mut self.carried, path, traffic);
    }
}

fn add(all: &mut BTreeMap<String, Traffic>, path: &str, traffic: Traffic) {
    let sum = all.entry(path.to_owned()).or_default();
    sum.sent += traffic.sent;
    sum.received += traffic.received;
}

impl ForwardSummary {
    /// Adds what another has done. The last connections of both are kept, those of `other` at the end.
    pub fn merge(&mut self, other: ForwardSummary) {
        self.captured += other.captured;
        self.joined += other.joined;
        self.ended += other.ended;
        self.mptcp += other.mptcp;
        self.up += other.up;
        self.down += other.down;
        for (own, others) in [(&mut self.failed, other.failed), (&mut self.tcp, other.tcp)] {
            for (why, count) in others {
                *own.entry(why).or_default() += count;
            }
        }
        self.last.extend(other.last);
    }

    fn add(&mut self, about: Forwarded) {
        self.ended += 1;
        match &about.mptcp {
            Some(Ok(())) => self.mptcp += 1,
            Some(Err(why)) => *self.tcp.entry(why.to_string()).or_default() += 1,
            None => {}
        }
        self.up += about.up;
        self.down += about.down;
        if self.last.len() == REMEMBERED {
            self.last.pop_front();
        }
        self.last.push_back(about);
    }
}

/// Whether a connection is MPTCP, and why not.
pub(crate) fn spoken(status: &MptcpStatus) -> Option<Result<(), FallbackReason>> {
    match status {
        MptcpStatus::Negotiating => None,
        MptcpStatus::Active { .. } => Some(Ok(())),
        MptcpStatus::Plain { reason } => Some(Err(*reason)),
    }
}

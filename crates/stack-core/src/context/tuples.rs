//! Four-tuples in use, by connections or by TIME_WAIT, and local ports that are free.

use super::hash::Seeded;
use super::ports::{Ports, Standing};
use super::time_wait::{TimeWait, TimeWaitTable, Verdict};
use crate::tcp::FourTuple;
use crate::wire::tcp::TcpRepr;
use core::net::{IpAddr, SocketAddr};
use hashbrown::HashMap;
use umptcp_types::{ConnectionId, Instant, SubflowId};

#[derive(Debug)]
pub(super) struct Tuples {
    open: HashMap<FourTuple, (ConnectionId, SubflowId), Seeded>,
    time_wait: TimeWaitTable,
    ports: Ports,
}

impl Tuples {
    pub(super) fn new(open: Seeded, waiting: Seeded, ports: Ports) -> Self {
        Tuples { open: HashMap::with_hasher(open), time_wait: TimeWaitTable::new(waiting), ports }
    }

    /// A subflow takes `tuple`, also out of TIME_WAIT.
    pub(super) fn open(&mut self, tuple: FourTuple, connection: ConnectionId, subflow: SubflowId) {
        let waited = self.time_wait.remove(&tuple);
        self.ports.take(&tuple, waited.map(|w| w.since));
        self.open.insert(tuple, (connection, subflow));
    }

    /// The subflow has ended; `waiting`: in TIME_WAIT.
    pub(super) fn close(&mut self, tuple: FourTuple, waiting: Option<TimeWait>) {
        self.open.remove(&tuple);
        let Some(entry) = waiting else {
            self.ports.leave(&tuple, None);
            return;
        };
        self.ports.wait(&tuple, entry.since);
        if let Some((forgotten, wait)) = self.time_wait.insert(tuple, entry) {
            self.ports.leave(&forgotten, Some(wait.since));
        }
    }

    /// A free local port for a connection from `local` to `remote`.
    pub(super) fn free_port(&mut self, now: Instant, local: IpAddr, remote: SocketAddr) -> Option<u16> {
        let Tuples { open, time_wait, ports } = self;
        ports.find(local, remote, |port| {
            let tuple = FourTuple { local: SocketAddr::new(local, port), remote };
            match open.contains_key(&tuple) || !time_wait.may_reuse(now, &tuple) {
                true => Standing::Taken,
                false => time_wait.get(&tuple).map_or(Standing::Free, |_| Standing::Waiting),
            }
        })
    }

    pub(super) fn ports(&mut self) -> &mut Ports {
        &mut self.ports
    }

    pub(super) fn owner(&self, tuple: &FourTuple) -> Option<(ConnectionId, SubflowId)> {
        self.open.get(tuple).copied()
    }

    pub(super) fn count(&self) -> usize {
        self.open.len()
    }

    /// Whether a connection of ours may use `tuple` now.
    pub(super) fn is_free(&self, now: Instant, tuple: &FourTuple) -> bool {
        !self.open.contains_key(tuple) && self.time_wait.may_reuse(now, tuple)
    }

    pub(super) fn waiting(&self, tuple: &FourTuple) -> Option<&TimeWait> {
        self.time_wait.get(tuple)
    }

    /// A segment for `tuple`. `None`: it is not in TIME_WAIT.
    pub(super) fn on_segment(
        &mut self,
        now: Instant,
        tuple: &FourTuple,
        seg: &TcpRepr,
        len: usize,
    ) -> Option<Verdict> {
        let before = self.time_wait.get(tuple)?.since;
        let verdict = self.time_wait.on_segment(now, tuple, seg, len);
        match self.time_wait.get(tuple).map(|w| w.since) {
            None => self.ports.leave(tuple, Some(before)),
            Some(since) if since != before => {
                self.ports.leave(tuple, Some(before));
                self.ports.wait(tuple, since);
            }
            Some(_) => {}
        }
        verdict
    }

    pub(super) fn expire(&mut self, now: Instant) {
        let Tuples { time_wait, ports, .. } = self;
        time_wait.expire(now, |tuple, wait| ports.leave(tuple, Some(wait.since)));
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.time_wait.next_deadline()
    }
}

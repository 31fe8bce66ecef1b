//! What every policy heeds.

use crate::{Command, LocalAddress, RemoteAddress, SubflowEnds, Uses, View};
use alloc::vec::Vec;

/// The subflows that there are and that are to be opened. It keeps to the limit, opens none twice and none
/// that has failed.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    view: &'a View<'a>,
    subflows: Vec<SubflowEnds>,
    opened: usize,
    commands: Vec<Command>,
}

impl<'a> Plan<'a> {
    /// Nothing yet but what every policy does: the peer is told of the addresses that it is to know of, but
    /// for those that a subflow has shown it.
    pub fn new(view: &'a View<'a>) -> Self {
        let mut plan = Plan { view, subflows: view.subflows.to_vec(), opened: 0, commands: Vec::new() };
        let told = |l: &LocalAddress| l.uses.signal || view.advertise && l.uses != Uses::NONE;
        for (i, l) in view.local.iter().enumerate().filter(|(_, l)| told(l)) {
            // A subflow shows the peer an address, but not another port.
            let used = l.port.is_none() && view.subflows.iter().any(|s| s.local == l.address);
            if !used && !view.advertised.contains(&(l.advertise, l.port)) {
                plan.commands.push(Command::Advertise { local: i });
            }
        }
        plan
    }

    /// The subflows that there are, and then those that are to be opened.
    pub fn subflows(&self) -> &[SubflowEnds] {
        &self.subflows
    }

    /// The two can be connected, as far as is known.
    pub fn fits(&self, local: &LocalAddress, remote: &RemoteAddress) -> bool {
        local.address.is_ipv4() == remote.address.is_ipv4()
            && !self.view.failed.contains(&(local.address, remote.address))
    }

    /// Opens a subflow from `View::local[local]` to `View::remote[remote]`, unless there is one that answers,
    /// or all are taken.
    pub fn open(&mut self, local: usize, remote: usize) {
        if !self.is_used(local, remote) {
            self.open_beside(local, remote, self.view.subflows.len());
        }
    }

    /// The same for a path that no subflow uses: those of which it is not known whether they lead anywhere
    /// make room for it.
    pub fn open_first(&mut self, local: usize, remote: usize) {
        let tentative = self.view.subflows.iter().filter(|s| s.tentative).count();
        if !self.is_used(local, remote) {
            self.open_beside(local, remote, self.view.subflows.len() - tentative);
        }
    }

    /// There is a subflow between the two that answers, as far as is known.
    fn is_used(&self, local: usize, remote: usize) -> bool {
        let (l, r) = (&self.view.local[local], &self.view.remote[remote]);
        self.subflows.iter().any(|s| s.local == l.address && s.remote == r.address && !s.stale)
    }

    /// Opens a subflow, also beside another between the same addresses, unless all are taken: `occupied` by
    /// those that there were before.
    pub(crate) fn open_beside(&mut self, local: usize, remote: usize, occupied: usize) {
        let (l, r) = (&self.view.local[local], &self.view.remote[remote]);
        if self.fits(l, r) && occupied + self.opened < self.view.max_subflows {
            self.opened += 1;
            self.subflows.push(SubflowEnds::new(l.path, l.address, r.address));
            self.commands.push(Command::Open { local, remote, backup: l.backup });
        }
    }

    /// What is to be done.
    pub fn into_commands(self) -> Vec<Command> {
        self.commands
    }
}

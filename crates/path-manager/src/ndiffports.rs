//! Several subflows over the same path, which a network that balances by ports (ECMP) sends different ways.

use crate::{Command, PathPolicy, Plan, View};
use alloc::vec::Vec;

/// That many subflows between the addresses of the first, each from another port. The limit of the connection
/// holds.
#[derive(Clone, Copy, Debug)]
pub struct NDiffPorts {
    subflows: usize,
}

impl NDiffPorts {
    /// The name it is registered under, with two subflows.
    pub const NAME: &str = "ndiffports";

    /// That many subflows, the first included.
    pub const fn new(subflows: usize) -> Self {
        NDiffPorts { subflows }
    }
}

impl Default for NDiffPorts {
    /// Two subflows, as the first implementation of MPTCP in Linux had it.
    fn default() -> Self {
        NDiffPorts::new(2)
    }
}

impl PathPolicy for NDiffPorts {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn decide(&mut self, view: &View<'_>) -> Vec<Command> {
        let mut plan = Plan::new(view);
        if !view.opens {
            return plan.into_commands();
        }
        // The path of the first subflow, or of the first that there may be: it may have gone.
        let kept = view.subflows.iter().find(|s| !s.stale).and_then(|s| {
            let local = view.local.iter().position(|l| l.address == s.local)?;
            Some((local, view.remote.iter().position(|r| r.address == s.remote)?))
        });
        let first = || {
            let pairs = (0..view.local.len()).flat_map(|i| (0..view.remote.len()).map(move |j| (i, j)));
            pairs.into_iter().find(|(i, j)| plan.fits(&view.local[*i], &view.remote[*j]))
        };
        if let Some((i, j)) = kept.or_else(first) {
            let there = view.subflows.iter().filter(|s| !s.stale).count();
            for _ in there..self.subflows {
                plan.open_beside(i, j, view.subflows.len());
            }
        }
        plan.into_commands()
    }
}

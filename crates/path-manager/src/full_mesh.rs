//! Every pair of addresses.

use crate::{Command, PathPolicy, Plan, View};
use alloc::vec::Vec;

/// A subflow from each of our addresses to each of the peer's, as far as the limit allows: first one over each
/// path.
#[derive(Clone, Copy, Debug, Default)]
pub struct FullMesh;

impl FullMesh {
    /// The name it is registered under.
    pub const NAME: &str = "fullmesh";
}

impl PathPolicy for FullMesh {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn decide(&mut self, view: &View<'_>) -> Vec<Command> {
        let mut plan = Plan::new(view);
        if view.opens {
            crate::aggregate::over_each_path(&mut plan, view);
            for (i, _) in view.local.iter().enumerate().filter(|(_, l)| l.uses.subflow) {
                for j in 0..view.remote.len() {
                    plan.open(i, j);
                }
            }
        }
        plan.into_commands()
    }
}

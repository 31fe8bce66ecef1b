//! The lowest delay.

use crate::{Aggregate, Command, PathPolicy, View};
use alloc::vec::Vec;

/// The subflows of [`Aggregate`], with a scheduler that sends what is small on all of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interactive;

impl Interactive {
    /// The name it is registered under.
    pub const NAME: &str = "interactive";
}

impl PathPolicy for Interactive {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn scheduler(&self) -> Option<&'static str> {
        Some("interactive")
    }

    fn decide(&mut self, view: &View<'_>) -> Vec<Command> {
        Aggregate.decide(view)
    }
}

//! The demo's three transfers.

use super::plan::{Plan, TICK};
use crate::units;
use std::time::Duration;

/// One of the demo's three transfers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Act {
    /// Over the first NIC alone.
    One,
    /// Over both.
    Both,
    /// Over both, with the first silent for a while.
    Silence,
}

impl Act {
    pub(super) const ALL: [Act; 3] = [Act::One, Act::Both, Act::Silence];

    /// The heading above the progress.
    pub(super) fn title(self, plan: &Plan) -> String {
        let first = &plan.nics[0].name;
        let bytes = units::bytes(plan.bytes);
        match self {
            Act::One => format!("1. {bytes} over {first} alone"),
            Act::Both => "2. The same over both NICs, in one connection".to_string(),
            Act::Silence => format!(
                "3. {:.0} s over both NICs; {first} goes silent for {:.1} s and recovers",
                plan.last.as_secs_f64(),
                (plan.silent.1 - plan.silent.0).as_secs_f64()
            ),
        }
    }

    /// Name in the table.
    pub(super) fn name(self, plan: &Plan) -> String {
        let first = &plan.nics[0].name;
        match self {
            Act::One => format!("{first} alone"),
            Act::Both => "both NICs".to_owned(),
            Act::Silence => format!("both, {first} silent meanwhile"),
        }
    }

    /// A note on what happened in the tick that ends `elapsed` after the start.
    pub(super) fn note(self, plan: &Plan, elapsed: Duration) -> String {
        let first = &plan.nics[0].name;
        let happened = |at: Duration| elapsed >= at && elapsed < at + TICK;
        match self {
            Act::Silence if happened(plan.silent.0) => format!("<- {first} goes silent"),
            Act::Silence if happened(plan.silent.1) => format!("<- {first} is back"),
            _ => String::new(),
        }
    }
}

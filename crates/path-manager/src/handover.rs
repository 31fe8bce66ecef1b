//! One path at a time.

use crate::{Aggregate, Command, PathPolicy, View};
use alloc::vec::Vec;
use umptcp_types::PathId;

/// A subflow on every local path, of which the first path that works carries data. The others are backups:
/// they are open, so that no time is lost when they are needed, and carry nothing before. Paths count in
/// their order, those that are configured as backups last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Handover;

impl Handover {
    /// The name it is registered under.
    pub const NAME: &str = "handover";
}

impl PathPolicy for Handover {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn decide(&mut self, view: &View<'_>) -> Vec<Command> {
        let rank = |path: PathId| {
            let backup = view.local.iter().any(|l| l.path == path && l.backup);
            let place = view.local.iter().position(|l| l.path == path).unwrap_or(usize::MAX);
            (backup, place)
        };
        let mut commands = Aggregate.decide(view);
        let working = view.subflows.iter().filter(|s| s.works).map(|s| s.path);
        let Some(active) = working.min_by_key(|path| rank(*path)) else { return commands };
        for command in &mut commands {
            if let Command::Open { local, backup, .. } = command {
                *backup = rank(view.local[*local].path) > rank(active);
            }
        }
        for (i, s) in view.subflows.iter().enumerate().filter(|(_, s)| s.works) {
            let backup = s.path != active;
            if s.backup != backup {
                commands.push(Command::SetBackup { subflow: i, backup });
            }
        }
        commands
    }
}

//! Paths on which a connection may carry so much and no more.

use crate::context::{Meter, Use};
use alloc::vec::Vec;
use umptcp_types::PathId;

/// What a connection has carried on the paths that have a limit for each.
#[derive(Debug, Default)]
pub(crate) struct Meters(Vec<(PathId, Meter)>);

impl Meters {
    /// How far a path's limit is used up.
    #[inline]
    pub(crate) fn state(&self, path: PathId) -> Use {
        self.0.iter().find(|(p, _)| *p == path).map(|(_, meter)| meter.state()).unwrap_or_default()
    }

    /// From now on the limit of a path is another. How far it was used up before, and is now. What has passed
    /// where there was no limit is not known.
    pub(super) fn set_limit(&mut self, path: PathId, limit: Option<u64>) -> (Use, Use) {
        let Some((_, meter)) = self.0.iter_mut().find(|(p, _)| *p == path) else {
            return (Use::Open, Use::Open);
        };
        let before = meter.state();
        meter.set_limit(limit);
        (before, meter.state())
    }

    /// So much has passed on a path with that limit. How far it is used up, if that is new.
    pub(super) fn add(&mut self, path: PathId, bytes: u64, limit: u64) -> Option<Use> {
        if let Some((_, meter)) = self.0.iter_mut().find(|(p, _)| *p == path) {
            return meter.add(bytes);
        }
        let mut meter = Meter::new(Some(limit));
        let new = meter.add(bytes);
        self.0.push((path, meter));
        new
    }
}

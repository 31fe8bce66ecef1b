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

//! Connections that the application has let go of while they still deliver what it wrote.

use crate::config::StackConfig;
use alloc::collections::BTreeMap;
use umptcp_types::ConnectionId;

/// The orphans, and what each may still hold.
#[derive(Debug)]
pub(crate) struct Orphans {
    /// Bytes that each had left to deliver when it was let go of: an upper bound from then on.
    charged: BTreeMap<ConnectionId, u64>,
    bytes: u64,
    most: usize,
    most_bytes: u64,
}

impl Orphans {
    /// None yet.
    pub(crate) fn new(config: &StackConfig) -> Self {
        let (most, most_bytes) = (config.max_orphans, config.max_orphan_memory);
        Orphans { charged: BTreeMap::new(), bytes: 0, most, most_bytes }
    }

    /// A connection with `bytes` left to deliver becomes one. False: there are too many, and it must end.
    #[must_use]
    pub(crate) fn admit(&mut self, id: ConnectionId, bytes: u64) -> bool {
        if self.charged.len() >= self.most || self.bytes + bytes > self.most_bytes {
            return false;
        }
        if self.charged.insert(id, bytes).is_none() {
            self.bytes += bytes;
        }
        true
    }

    /// A connection has been freed.
    pub(crate) fn forget(&mut self, id: ConnectionId) {
        self.bytes -= self.charged.remove(&id).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn their_number_and_their_memory_are_bounded() {
        let config = StackConfig::default().with_max_orphans(2).with_max_orphan_memory(100);
        let mut orphans = Orphans::new(&config);
        let id = ConnectionId;
        assert!(orphans.admit(id(1), 60) && !orphans.admit(id(2), 41) && orphans.admit(id(2), 40));
        assert!(!orphans.admit(id(3), 0), "too many");
        orphans.forget(id(1));
        orphans.forget(id(1));
        assert!(orphans.admit(id(3), 60));
    }
}

//! Whose token is whose (RFC 8684 §3.1).

use super::hash::Seeded;
use crate::wire::mptcp::keys::token_and_idsn;
use hashbrown::HashMap;
use umptcp_types::ConnectionId;

#[derive(Debug)]
pub(super) struct Tokens {
    owners: HashMap<u32, ConnectionId, Seeded>,
}

impl Tokens {
    pub(super) fn new(hasher: Seeded) -> Self {
        Tokens { owners: HashMap::with_hasher(hasher) }
    }

    pub(super) fn take(&mut self, token: u32, connection: ConnectionId) {
        self.owners.insert(token, connection);
    }

    pub(super) fn owner(&self, token: u32) -> Option<ConnectionId> {
        self.owners.get(&token).copied()
    }

    /// No connection has this key's token.
    pub(super) fn is_unused(&self, key: u64) -> bool {
        !self.owners.contains_key(&token_and_idsn(key).0)
    }

    /// `connection` has no use for its token any more. It may have none, or have given it back before.
    pub(super) fn give_back(&mut self, token: u32, connection: ConnectionId) {
        if self.owners.get(&token) == Some(&connection) {
            self.owners.remove(&token);
        }
    }
}

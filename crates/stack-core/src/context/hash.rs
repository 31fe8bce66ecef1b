//! Hash tables keyed with a secret.

use core::hash::BuildHasher;
use siphasher::sip::SipHasher13;

/// The secret of one table, so that a peer cannot choose four-tuples that collide.
#[derive(Clone, Debug)]
pub(crate) struct Seeded {
    key: (u64, u64),
}

impl Seeded {
    pub(crate) fn new(key: (u64, u64)) -> Self {
        Seeded { key }
    }
}

impl BuildHasher for Seeded {
    type Hasher = SipHasher13;
    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.key.0, self.key.1)
    }
}

//! What strangers may be answered: no more than they have sent.
//!
//! Anybody can write another's address on a datagram. What a stack answers before it knows better (SYN and ACK,
//! again while nothing comes, and RST) would go to that other, so it is paid with what came from the address.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::SocketAddr;

/// Places. Addresses that share one share what they have sent, so in sum nobody gets more than was sent.
const PLACES: usize = 1 << 14;

/// Bytes that came from remote addresses and that were not answered, in bounded memory (32 kB).
#[derive(Debug)]
pub(crate) struct Credit {
    places: Box<[u16]>,
    /// Nobody outside knows which addresses share a place.
    hasher: RandomState,
}

impl Default for Credit {
    fn default() -> Self {
        Credit { places: vec![0; PLACES].into(), hasher: RandomState::new() }
    }
}

impl Credit {
    fn place(&mut self, remote: &SocketAddr) -> &mut u16 {
        let at = self.hasher.hash_one(remote) as usize % PLACES;
        &mut self.places[at]
    }

    /// A datagram of this size came from `remote`.
    pub(crate) fn earn(&mut self, remote: &SocketAddr, bytes: usize) {
        let place = self.place(remote);
        *place = place.saturating_add(u16::try_from(bytes).unwrap_or(u16::MAX));
    }

    /// Whether one of this size may be sent to `remote`; it is counted.
    pub(crate) fn spend(&mut self, remote: &SocketAddr, bytes: usize) -> bool {
        let place = self.place(remote);
        let left = usize::from(*place).checked_sub(bytes).and_then(|left| u16::try_from(left).ok());
        *place = left.unwrap_or(*place);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_spent_than_was_earned() {
        let mut credit = Credit::default();
        let [one, other] = ["192.0.2.1:9", "[2001:db8::1]:9"].map(|a| a.parse::<SocketAddr>().unwrap());
        assert!(!credit.spend(&one, 1));
        credit.earn(&one, 60);
        assert!(!credit.spend(&one, 61) && credit.spend(&one, 52), "an answer that is refused costs nothing");
        assert!(!credit.spend(&one, 52) && credit.spend(&one, 8) && !credit.spend(&one, 1));
        for _ in 0..3 {
            credit.earn(&other, 60_000);
        }
        assert!(credit.spend(&other, 65_535) && !credit.spend(&other, 1), "bounded");
    }

    /// However many strangers there are, what they get is not more than what they sent.
    #[test]
    fn a_flood_gets_no_more_than_it_brings() {
        let mut credit = Credit::default();
        let (mut brought, mut got) = (0, 0);
        for i in 0..100_000_u32 {
            let remote = SocketAddr::new(std::net::Ipv4Addr::from(i.wrapping_mul(2_654_435_761)).into(), 1);
            credit.earn(&remote, 52);
            brought += 52;
            for _ in 0..3 {
                got += if credit.spend(&remote, 40) { 40 } else { 0 };
            }
        }
        assert!(got <= brought && got > brought / 2, "{got} of {brought}");
    }
}

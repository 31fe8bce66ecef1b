//! What the two ends have agreed on (RFC 8684 §3.1): whether the connection is MPTCP, both keys and what
//! follows from them, checksums, and how much of it is confirmed.
//!
//! By example: `docs/src/by-example/handshake.md`.

use crate::error::FallbackReason;
use crate::wire::mptcp::CapableFlags;
use crate::wire::mptcp::keys::token_and_idsn;
use umptcp_types::{DataSeq, Instant};

/// Whether the connection is MPTCP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// Our SYN or SYN/ACK carried MP_CAPABLE, and the peer has not answered yet.
    Negotiating,
    /// MPTCP, since then.
    Mptcp { since: Instant },
    /// Plain TCP.
    Plain { reason: FallbackReason },
}

/// One end's key and what follows from it.
#[derive(Clone, Copy, Debug)]
struct Identity {
    key: u64,
    token: u32,
    /// Initial data sequence number, less the bytes that the SYN carried.
    idsn: DataSeq,
}

impl Identity {
    const NONE: Identity = Identity { key: 0, token: 0, idsn: DataSeq(0) };

    fn new(key: u64) -> Self {
        let (token, idsn) = token_and_idsn(key);
        Identity { key, token, idsn }
    }

    /// The SYN carried `n` bytes, which come before the data sequence space (RFC 8684 appendix B.2).
    fn shift(&mut self, n: u64) {
        self.idsn = DataSeq(self.idsn.0.wrapping_sub(n));
    }
}

/// How far it is confirmed that both ends speak MPTCP.
#[derive(Clone, Copy, Debug, Default)]
struct Confirmed {
    /// A DATA_ACK has shown that the peer has both keys (RFC 8684 §3.1), or the third ACK has, or an HMAC:
    /// joins may begin, and MP_CAPABLE need not be repeated.
    fully: bool,
    /// A DATA_ACK has come: options survive the path from the peer, so it is too late for a silent fallback.
    dss_seen: bool,
}

/// What the two ends have agreed on.
#[derive(Debug)]
pub(crate) struct Negotiation {
    mode: Mode,
    local: Identity,
    remote: Identity,
    checksum: bool,
    confirmed: Confirmed,
    /// The peer's C flag was not set.
    peer_allows_initial_join: bool,
    /// Server: the client takes data with a mapping and without a DATA_ACK, before its third ACK.
    takes_early_mappings: bool,
}

impl Negotiation {
    /// Before the first SYN. `mptcp`: we offer MPTCP; `checksum`: we want DSS checksums.
    pub(crate) fn new(mptcp: bool, checksum: bool) -> Self {
        Negotiation {
            mode: if mptcp { Mode::Negotiating } else { Mode::Plain { reason: FallbackReason::Disabled } },
            local: Identity::NONE,
            remote: Identity::NONE,
            checksum,
            confirmed: Confirmed::default(),
            peer_allows_initial_join: true,
            takes_early_mappings: false,
        }
    }

    // ---- what happens ----

    /// We have chosen our key. Returns its token.
    pub(crate) fn on_key_chosen(&mut self, key: u64) -> u32 {
        self.local = Identity::new(key);
        self.local.token
    }

    /// Server: the flags of the client's SYN.
    pub(crate) fn on_offer(&mut self, flags: CapableFlags) {
        self.checksum |= flags.checksum_required;
        self.peer_allows_initial_join = !flags.no_join_initial;
    }

    /// Server: the client takes data with a mapping and without a DATA_ACK, before its third ACK.
    pub(crate) fn on_early_mappings_taken(&mut self) {
        self.takes_early_mappings = true;
    }

    /// Client: the SYN/ACK agrees.
    pub(crate) fn on_syn_ack(&mut self, now: Instant, key: u64, flags: CapableFlags) {
        self.on_offer(flags);
        self.agree(now, key);
    }

    /// Server: the third ACK agrees. The SYN carried `syn_data` bytes.
    pub(crate) fn on_third_ack(&mut self, now: Instant, key: u64, flags: CapableFlags, syn_data: u64) {
        self.checksum |= flags.checksum_required;
        self.peer_allows_initial_join &= !flags.no_join_initial;
        self.agree(now, key);
        self.remote.shift(syn_data);
        self.confirmed.fully = true;
    }

    fn agree(&mut self, now: Instant, key: u64) {
        self.remote = Identity::new(key);
        self.mode = Mode::Mptcp { since: now };
    }

    /// Client: the SYN/ACK acknowledged `n` bytes that our SYN carried.
    pub(crate) fn on_syn_data_acked(&mut self, n: u64) {
        self.local.shift(n);
    }

    /// A DATA_ACK has come.
    pub(crate) fn on_data_ack(&mut self) {
        self.confirmed.fully = true;
        self.confirmed.dss_seen = true;
    }

    /// The peer has proved by an HMAC that it has both keys: our third ACK has come, and options pass both
    /// ways.
    pub(crate) fn on_keys_proved(&mut self) {
        self.confirmed.fully |= self.is_active();
    }

    /// From here on plain TCP.
    pub(crate) fn fall_back(&mut self, reason: FallbackReason) {
        self.mode = Mode::Plain { reason };
    }

    // ---- what there is to know ----

    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// MPTCP is in use.
    #[inline]
    pub(crate) fn is_active(&self) -> bool {
        matches!(self.mode, Mode::Mptcp { .. })
    }

    /// Plain TCP is in use.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.mode, Mode::Plain { .. })
    }

    /// It is not known yet which.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.mode == Mode::Negotiating
    }

    /// Server: it is not known yet which, and data go with mappings all the same. Their sequence numbers follow from
    /// our key, which the SYN/ACK has told.
    #[inline]
    pub(crate) fn maps_early(&self) -> bool {
        self.takes_early_mappings && self.is_open()
    }

    /// Data go with mappings.
    #[inline]
    pub(crate) fn maps(&self) -> bool {
        self.is_active() || self.maps_early()
    }

    pub(crate) fn local_key(&self) -> u64 {
        self.local.key
    }

    pub(crate) fn remote_key(&self) -> u64 {
        self.remote.key
    }

    pub(crate) fn local_token(&self) -> u32 {
        self.local.token
    }

    pub(crate) fn remote_token(&self) -> u32 {
        self.remote.token
    }

    /// What our data offsets are added to on the wire.
    pub(crate) fn local_idsn(&self) -> DataSeq {
        self.local.idsn
    }

    /// What the peer's data offsets are added to on the wire.
    pub(crate) fn remote_idsn(&self) -> DataSeq {
        self.remote.idsn
    }

    /// DSS checksums are in use, or asked for by us.
    pub(crate) fn checksum(&self) -> bool {
        self.checksum
    }

    /// The peer is known to have both keys: joins may begin (RFC 8684 §3.1).
    pub(crate) fn is_fully_established(&self) -> bool {
        self.confirmed.fully
    }

    /// A DATA_ACK has come.
    pub(crate) fn is_dss_seen(&self) -> bool {
        self.confirmed.dss_seen
    }

    /// The peer's C flag was not set.
    pub(crate) fn peer_allows_initial_join(&self) -> bool {
        self.peer_allows_initial_join
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_peer_asks_for_is_added_to_what_we_do() {
        for (ours, theirs) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut n = Negotiation::new(true, ours);
            n.on_syn_ack(Instant::ZERO, 5, CapableFlags::sha256(theirs, true));
            assert_eq!(n.checksum(), ours || theirs);
            assert!(n.is_active() && !n.peer_allows_initial_join() && !n.is_fully_established());
            n.on_data_ack();
            assert!(n.is_fully_established() && n.is_dss_seen());
        }
    }

    #[test]
    fn a_ban_on_joins_holds_whichever_segment_says_it() {
        let mut n = Negotiation::new(true, false);
        n.on_offer(CapableFlags::sha256(false, true));
        n.on_third_ack(Instant::ZERO, 7, CapableFlags::sha256(false, false), 3);
        assert!(!n.peer_allows_initial_join() && n.is_fully_established() && !n.is_dss_seen());
        assert_eq!(n.remote_idsn().0, token_and_idsn(7).1.0.wrapping_sub(3));
        assert_eq!(n.remote_token(), token_and_idsn(7).0);
    }

    #[test]
    fn early_mappings_end_with_the_negotiation() {
        let mut n = Negotiation::new(true, false);
        assert!(!n.maps());
        n.on_early_mappings_taken();
        assert!(n.maps() && n.maps_early() && !n.is_active());
        n.on_third_ack(Instant::ZERO, 7, CapableFlags::sha256(false, false), 3);
        assert!(n.maps() && !n.maps_early());
        n.fall_back(FallbackReason::NoOptionInData);
        assert!(!n.maps());
    }

    #[test]
    fn without_mptcp_it_is_plain_from_the_start() {
        let mut n = Negotiation::new(false, false);
        n.on_early_mappings_taken();
        assert!(n.is_plain() && !n.is_open() && !n.maps());
    }
}

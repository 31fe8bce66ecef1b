//! One subflow of a connection: its TCP, and what MPTCP keeps beside it.

use super::failures::Pair;
use super::incoming::Incoming;
use super::join_state::JoinState;
use super::mapping::Tcp;
use super::outgoing::Outgoing;
use super::signals::Signals;
use crate::context::Context;
use crate::event::SubflowReset;
use crate::wire::mptcp::{MpPrio, MptcpOption};
use umptcp_congestion::SubflowParams;
use umptcp_scheduler::Health;
use umptcp_types::{AddressId, Duration, Instant, SubflowOffset};

/// Keep-alive probes on a subflow whose address was removed, before it is reset.
const REMOVAL_PROBES: u8 = 3;

/// The check whether a subflow lives whose address the peer has removed (RFC 8684 §3.4.2).
#[derive(Clone, Copy, Debug)]
struct Removal {
    /// When the next probe goes out, or the subflow is given up.
    next: Instant,
    /// Probes sent.
    probes: u8,
    /// When the peer said so.
    since: Instant,
}

/// The Address IDs of its two ends (RFC 8684 §3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EndIds {
    /// Ours, of the local address.
    pub(crate) local: AddressId,
    /// The peer's, of the remote one.
    pub(crate) remote: AddressId,
}

impl EndIds {
    /// Those of the first subflow.
    pub(crate) const INITIAL: EndIds = EndIds { local: AddressId(0), remote: AddressId(0) };
}

/// How much the subflow is to be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Priority {
    /// We want it as a backup only.
    pub(crate) backup: bool,
    /// What is sent here is paid for.
    pub(crate) metered: bool,
    /// Its share, for schedulers that know of shares.
    pub(crate) weight: u32,
    /// Cost of a byte, for schedulers that know of costs.
    pub(crate) cost: u32,
}

/// For how long a needless suspicion makes the next one come later.
const PATIENCE_LASTS: Duration = Duration::from_secs(30);

/// Paths that are silent together for so long are cut off. A queue delivers something within that time, and networks that
/// have nothing in common do not fill at the same moment.
const OUTAGE: Duration = Duration::from_secs(1);

/// The path may have fallen silent: acknowledgements are late.
#[derive(Clone, Copy, Debug)]
struct Suspicion {
    since: Instant,
    /// There were others when it began.
    has_others: bool,
    /// Retransmission timeouts before.
    timeouts: u64,
    /// Others take over what it carries.
    relieved: bool,
    /// Bytes that have been sent again on others.
    reinjected: u64,
}

/// How much longer than usual acknowledgements may be late, because they were and came.
#[derive(Clone, Copy, Debug)]
struct Patience {
    extra: Duration,
    until: Instant,
}

/// A suspicion is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cleared {
    /// There were others to take over, and they did.
    pub(crate) relieved: bool,
    /// All were silent at once, for a second or more.
    pub(crate) outage: bool,
    /// There were others to take over, and the path was only late: there has been no timeout.
    pub(crate) needless: bool,
    /// Bytes that were sent again on others meanwhile.
    pub(crate) reinjected: u64,
}

/// One subflow of a connection.
#[derive(Debug)]
pub(crate) struct Subflow {
    pub(super) tcp: Tcp,
    pub(super) join: JoinState,
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
    pub(super) signals: Signals,
    ids: EndIds,
    priority: Priority,
    /// The peer wants it as a backup only.
    peer_backup: bool,
    /// Consecutive retransmission timeouts reached the limit.
    stale: bool,
    suspicion: Option<Suspicion>,
    patience: Option<Patience>,
    /// When it was announced to the application and the controller.
    announced: Option<Instant>,
    /// The RST that ends it.
    reset: Option<SubflowReset>,
    /// The peer removed its address, and we look whether the subflow still lives.
    removal: Option<Removal>,
    /// Where what was sent with mappings ends, after a fallback.
    mapped_end: SubflowOffset,
    /// When data were last given to it.
    data_at: Option<Instant>,
    /// What the connection may carry on its path is used up.
    spent: bool,
    /// It has ended in the step that is under way (see `subflows`).
    ended: bool,
}

impl Subflow {
    pub(super) fn new(
        tcp: Tcp,
        join: JoinState,
        ids: EndIds,
        incoming: Incoming,
        outgoing: Outgoing,
        priority: Priority,
    ) -> Self {
        Subflow {
            tcp,
            join,
            incoming,
            outgoing,
            signals: Signals::default(),
            ids,
            priority,
            peer_backup: false,
            stale: false,
            suspicion: None,
            patience: None,
            announced: None,
            reset: None,
            removal: None,
            data_at: None,
            mapped_end: SubflowOffset::default(),
            spent: false,
            ended: false,
        }
    }

    // ---- what it is ----

    /// Our Address ID of the local address.
    pub(crate) fn local_id(&self) -> AddressId {
        self.ids.local
    }

    /// The peer's Address ID of the remote address.
    pub(crate) fn remote_id(&self) -> AddressId {
        self.ids.remote
    }

    /// The addresses that it runs between.
    pub(crate) fn pair(&self) -> Pair {
        Pair { local: self.tcp.tuple().local.ip(), remote: self.tcp.tuple().remote }
    }

    /// The peer's SYN or SYN/ACK with MP_JOIN says what it calls its address, and whether it wants a backup.
    pub(crate) fn on_peer_join(&mut self, address_id: AddressId, backup: bool) {
        self.ids.remote = address_id;
        self.peer_backup = backup;
    }

    /// The peer wants it as a backup, or not any more (MP_PRIO, RFC 8684 §3.3.8). False: as before.
    pub(crate) fn on_prio(&mut self, backup: bool) -> bool {
        core::mem::replace(&mut self.peer_backup, backup) != backup
    }

    /// Our SYN to an address that the peer has advertised is unanswered.
    pub(crate) fn awaits_advertised(&self) -> bool {
        self.join.is_syn_sent() && self.ids.remote != AddressId(0)
    }

    /// We want it as a backup, or not any more.
    pub(crate) fn prefer(&mut self, backup: bool) {
        self.priority.backup = backup;
    }

    /// MP_PRIO goes out (RFC 8684 §3.3.8), unless the handshake has yet to say it.
    pub(crate) fn say_priority(&mut self, backup: bool) {
        if self.can_acknowledge() {
            self.signals.replace(MptcpOption::Prio(MpPrio { backup, address_id: None }));
        }
    }

    /// We want it as a backup only.
    pub(crate) fn own_backup(&self) -> bool {
        self.priority.backup
    }

    /// Either end wants it as a backup only.
    pub(crate) fn is_backup(&self) -> bool {
        self.priority.backup || self.peer_backup
    }

    /// How much it is to be used.
    #[inline]
    pub(crate) fn priority(&self) -> Priority {
        self.priority
    }

    /// What the congestion controller is to know of the subflow (RFC 6928: an initial window of ten
    /// segments).
    pub(crate) fn congestion_params(&self) -> SubflowParams {
        let mss = self.tcp.packet_payload(12);
        SubflowParams::new(mss, u64::from(mss) * 10)
    }

    /// Where in the connection's data the last byte ends that was sent here for the first time.
    pub(crate) fn data_sent(&self) -> u64 {
        // Offset 0 is the SYN's, on either level. In plain TCP there is one subflow and no mapping.
        match self.outgoing.data_of(self.tcp.snd_nxt()) {
            Some(end) => end.saturating_sub(1),
            None => self.tcp.stats().bytes_sent,
        }
    }

    /// Data were given to it.
    pub(super) fn on_data(&mut self, now: Instant) {
        self.data_at = Some(now);
    }

    /// How long it will take, as far as one can tell, until what was given to it last is acknowledged.
    pub(super) fn time_left(&self, now: Instant) -> Duration {
        let (Some(at), Some(srtt)) = (self.data_at, self.tcp.srtt()) else { return Duration::ZERO };
        let since = now - at;
        if self.tcp.is_recovering() || since > srtt + self.tcp.rttvar() * 2 {
            // What was lost takes a round trip more, at least.
            srtt
        } else {
            srtt.saturating_sub(since)
        }
    }

    // ---- how far it is ----

    /// Its handshake with the keys is through.
    #[inline]
    pub(crate) fn is_joined(&self) -> bool {
        self.join.is_joined()
    }

    /// New data may be given to it.
    #[inline]
    pub(crate) fn can_send_data(&self) -> bool {
        self.join.is_joined() && self.tcp.can_send_data()
    }

    /// Nothing can be sent on it now: its path takes nothing, or nothing gets through from its address.
    #[inline]
    pub(crate) fn is_held_back(&self, ctx: &Context) -> bool {
        self.spent || ctx.is_path_blocked(self.tcp.path(), self.tcp.tuple().local.ip())
    }

    /// What the connection may carry on its path is used up, or is not any more.
    pub(crate) fn set_spent(&mut self, spent: bool) {
        self.spent = spent;
    }

    /// The same, but for some milliseconds only: others do not take over.
    #[inline]
    pub(crate) fn is_busy(&self, ctx: &Context) -> bool {
        !self.spent && ctx.is_path_busy(self.tcp.path(), self.tcp.tuple().local.ip())
    }

    /// Nothing can be sent on it, and not only for a moment: others take over.
    #[inline]
    pub(crate) fn is_out(&self, ctx: &Context) -> bool {
        self.is_held_back(ctx) && !self.is_busy(ctx)
    }

    /// ACKs with MPTCP options may be sent on it.
    pub(crate) fn can_acknowledge(&self) -> bool {
        self.join.is_joined() && self.tcp.is_synchronized()
    }

    /// It became able to carry data. True: that is new.
    pub(crate) fn on_announced(&mut self, now: Instant) -> bool {
        self.announced.replace(now).is_none()
    }

    /// How long it has been able to carry data.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        self.announced.map_or(Duration::ZERO, |since| now - since)
    }

    /// At least `bytes` have gone through it.
    pub(crate) fn has_carried(&self, bytes: u64) -> bool {
        let stats = self.tcp.stats();
        stats.bytes_acked + stats.bytes_received >= bytes
    }

    /// The application and the controller know of it.
    pub(crate) fn is_announced(&self) -> bool {
        self.announced.is_some()
    }

    /// When it is suspected to be silent unless something is acknowledged before.
    #[inline]
    pub(crate) fn silence_deadline(&self) -> Option<Instant> {
        if self.suspicion.is_some() || self.stale || !self.can_send_data() || self.tcp.timeouts_in_a_row() > 0
        {
            return None;
        }
        let at = self.tcp.silence_deadline()?;
        match self.patience {
            Some(patience) if at < patience.until => Some(at + patience.extra),
            _ => Some(at),
        }
    }

    /// Acknowledgements are late. `has_others`: there are subflows that may take over.
    pub(crate) fn suspect(&mut self, now: Instant, has_others: bool) {
        let timeouts = self.tcp.stats().timeouts;
        self.suspicion = Some(Suspicion { since: now, has_others, timeouts, relieved: false, reinjected: 0 });
    }

    /// Acknowledgements are late, and nobody has taken over yet.
    pub(crate) fn awaits_relief(&self) -> bool {
        self.suspicion.is_some_and(|s| !s.relieved)
    }

    /// Others take over what it carries.
    pub(crate) fn on_relieved(&mut self) {
        if let Some(suspicion) = &mut self.suspicion {
            suspicion.relieved = true;
        }
    }

    /// `bytes` that it carries were sent on another.
    pub(crate) fn on_reinjected(&mut self, bytes: u64) {
        if let Some(suspicion) = &mut self.suspicion {
            suspicion.reinjected += bytes;
        }
    }

    /// Something is acknowledged. What becomes of the suspicion, if there was one.
    pub(crate) fn on_delivered(&mut self, now: Instant) -> Option<Cleared> {
        let suspicion = self.suspicion.take()?;
        let needless = self.tcp.stats().timeouts == suspicion.timeouts;
        if needless {
            // As late once more is no reason to suspect it again, nor a little later.
            let late = now - suspicion.since;
            let extra = self.patience.filter(|p| now < p.until).map_or(Duration::ZERO, |p| p.extra);
            self.patience = Some(Patience { extra: extra + late + late / 4, until: now + PATIENCE_LASTS });
        }
        let needless = needless && suspicion.has_others;
        let Suspicion { since, has_others, relieved, reinjected, .. } = suspicion;
        let outage = has_others && !relieved && now - since >= OUTAGE;
        Some(Cleared { relieved, outage, needless, reinjected })
    }

    /// Whether it answers.
    #[inline]
    pub(crate) fn health(&self) -> Health {
        if self.stale || self.tcp.timeouts_in_a_row() > 0 {
            Health::Stale
        } else if self.suspicion.is_some() || self.removal.is_some() {
            Health::Suspect
        } else {
            Health::Good
        }
    }

    /// Nothing is late, and there is no timeout that nothing has followed.
    pub(crate) fn is_healthy(&self) -> bool {
        self.health() == Health::Good
    }

    /// It times out again and again. True: that is new.
    pub(crate) fn on_stale(&mut self) -> bool {
        !core::mem::replace(&mut self.stale, true)
    }

    /// The peer acknowledges again. True: it was stale.
    pub(crate) fn on_recovered(&mut self) -> bool {
        core::mem::replace(&mut self.stale, false)
    }

    pub(crate) fn is_stale(&self) -> bool {
        self.stale
    }

    /// A segment of the peer's ends it; with this RST, if it is one.
    pub(crate) fn on_end(&mut self, reset: Option<SubflowReset>) {
        self.reset = reset;
    }

    /// We end it with this RST.
    pub(crate) fn on_reset(&mut self, reset: SubflowReset) {
        self.reset = Some(reset);
    }

    /// The RST that ends it.
    pub(crate) fn reset(&self) -> Option<SubflowReset> {
        self.reset
    }

    /// It ends, and goes when the step is over.
    pub(super) fn on_ended(&mut self) {
        self.ended = true;
    }

    /// It has ended in the step that is under way.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// From here on plain TCP, without signals.
    pub(crate) fn on_fallback(&mut self) {
        self.signals.clear();
        self.incoming.on_fallback();
        self.removal = None;
        self.mapped_end = self.tcp.snd_nxt();
    }

    /// What was sent with mappings, before the fallback, has not been acknowledged.
    #[inline]
    pub(crate) fn has_mapped_unacked(&self) -> bool {
        self.tcp.snd_una() < self.mapped_end
    }

    // ---- the peer has removed its address ----

    /// The peer has removed its address: we look whether it still lives.
    pub(crate) fn on_address_removed(&mut self, now: Instant) {
        self.removal.get_or_insert(Removal { next: now, probes: 0, since: now });
    }

    /// A segment has come: it lives, unless the segment was on its way already when the address went.
    pub(crate) fn on_heard(&mut self, now: Instant) {
        let round_trip = self.tcp.min_rtt().unwrap_or_default();
        if self.removal.is_some_and(|removal| now - removal.since >= round_trip) {
            self.removal = None;
        }
    }

    /// It may go if its place is wanted: it does not answer, or the peer has taken its address back.
    pub(crate) fn gives_way(&self) -> bool {
        self.is_joined() && (self.stale || self.removal.is_some())
    }

    /// When it is probed next, or given up.
    pub(crate) fn removal_deadline(&self) -> Option<Instant> {
        self.removal.map(|r| r.next)
    }

    /// Probes it if that is due. False: it has been silent for too long.
    pub(crate) fn probe_removed(&mut self, now: Instant) -> bool {
        let Some(removal) = self.removal.as_mut().filter(|r| r.next <= now) else { return true };
        if removal.probes >= REMOVAL_PROBES || !self.tcp.is_synchronized() {
            return false;
        }
        self.tcp.probe_peer();
        removal.next = now + self.tcp.rto().saturating_mul(1 << removal.probes);
        removal.probes += 1;
        true
    }
}

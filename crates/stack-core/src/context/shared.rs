//! The context: its parts, and what they do together.

use super::black_holes::BlackHoles;
use super::challenges::{Challenges, Unasked};
use super::events::Events;
use super::fast_open::FastOpen;
use super::half_open::HalfOpen;
use super::hash::Seeded;
use super::memory::{Memory, Pressure};
use super::meter::Use;
use super::monitored::Watched;
use super::observed::Observed;
use super::paths::{Chosen, Paths};
use super::ports::Ports;
use super::randomness::Randomness;
use super::stand_ins::StandIns;
use super::syn_cookies::{Recovered, SynCookies};
use super::time_wait::{TimeWait, Verdict};
use super::tokens::Tokens;
use super::tuples::Tuples;
use crate::config::StackConfig;
use crate::device::{Families, PathConfig, PathKind, SignalPort, Transmit};
use crate::event::{Event, Traffic};
use crate::info::MemoryInfo;
use crate::monitor::{MonitorEvent, Monitored};
use crate::observe::{Counter, Counters, Observer};
use crate::tcp::FourTuple;
use crate::wire::tcp::TcpRepr;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use smallvec::SmallVec;
use umptcp_path_manager::Uses;
use umptcp_types::{ConnectionId, Instant, ListenerId, PathId, SeqNumber, SubflowId};

/// What the stack's connections share.
pub(crate) struct Context {
    pub(super) config: StackConfig,
    pub(super) random: Randomness,
    observed: Observed,
    memory: Memory,
    /// Bytes in it that are of no connection.
    beside: u64,
    events: Events,
    watched: Watched,
    /// Packets that belong to no connection: RSTs, answers out of TIME_WAIT.
    pub(super) outbox: VecDeque<Transmit>,
    pub(super) paths: Paths,
    tuples: Tuples,
    tokens: Tokens,
    half_open: HalfOpen,
    challenges: Challenges,
    syn_cookies: SynCookies,
    pub(super) black_holes: BlackHoles,
    pub(super) fast_open: FastOpen,
    pub(super) stand_ins: StandIns,
}

impl core::fmt::Debug for Context {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (paths, tuples) = (&self.paths, self.tuples.count());
        f.debug_struct("Context").field("paths", paths).field("tuples", &tuples).finish_non_exhaustive()
    }
}

impl Context {
    pub(crate) fn new(config: StackConfig, seed: [u8; 32]) -> Self {
        let (mut random, [open, tokens, uses, waiting, holes]) = Randomness::new(seed);
        random.set_clock(config.timestamp_clock);
        let cookie_key = random.key();
        let ports = Ports::new(config.ephemeral_ports.clone(), random.next_u32(), uses);
        Context {
            random,
            observed: Observed::default(),
            memory: Memory::new(config.buffer_memory),
            beside: 0,
            events: Events::new(config.max_events),
            watched: Watched::default(),
            outbox: VecDeque::new(),
            paths: Paths::default(),
            tuples: Tuples::new(open, waiting, ports),
            tokens: Tokens::new(tokens),
            half_open: HalfOpen::default(),
            challenges: Challenges::new(),
            syn_cookies: SynCookies::new(cookie_key),
            black_holes: BlackHoles::new(holes),
            fast_open: FastOpen::new(seed),
            stand_ins: StandIns::default(),
            config,
        }
    }

    /// Most connections at once.
    pub(crate) fn max_connections(&self) -> usize {
        self.config.max_connections
    }

    // ---- randomness ----

    /// The secret of one more hash table.
    pub(crate) fn hasher(&mut self) -> Seeded {
        Seeded::new(self.random.key())
    }

    pub(crate) fn random_u32(&mut self) -> u32 {
        self.random.next_u32()
    }

    /// The initial sequence number of a subflow (RFC 6528).
    pub(crate) fn isn(&self, now: Instant, tuple: &FourTuple) -> SeqNumber {
        self.random.isn(now, tuple)
    }

    /// What our timestamps to that host are ahead of the clock (RFC 7323 §5.4).
    pub(crate) fn timestamp_offset(&self, tuple: &FourTuple) -> u32 {
        self.random.timestamp_offset(tuple)
    }

    /// Whether one more challenge ACK or unsolicited RST may be sent now (RFC 5961 §7).
    pub(crate) fn allows(&mut self, now: Instant, what: Unasked) -> bool {
        self.challenges.allow(what, now, &mut self.random)
    }

    // ---- observation and events ----

    pub(crate) fn set_observer(&mut self, observer: Box<dyn Observer>) {
        self.observed.set_observer(observer);
    }

    /// Reports that something happened: the one source of every counter and trace.
    #[inline]
    pub(crate) fn observe(
        &mut self,
        now: Instant,
        connection: Option<ConnectionId>,
        subflow: Option<SubflowId>,
        what: Counter,
    ) {
        self.observed.happened(now, connection, subflow, what);
    }

    /// One fewer of what a gauge counts.
    pub(crate) fn observe_end(&mut self, now: Instant, connection: ConnectionId, gauge: Counter) {
        self.observed.over(now, connection, gauge);
    }

    pub(crate) fn counters(&self) -> &Counters {
        self.observed.counters()
    }

    /// Tells the application.
    pub(crate) fn push_event(&mut self, event: Event) {
        self.events.push(event);
    }

    pub(crate) fn pop_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// Somebody watches from now on, or (0) nobody.
    pub(crate) fn watch(&mut self, most: usize) {
        self.watched.watch(most);
    }

    /// Tells whoever watches; if nobody does, `event` is not made.
    #[inline]
    pub(crate) fn tell_watchers(&mut self, now: Instant, event: impl FnOnce() -> MonitorEvent) {
        self.watched.push(now, event);
    }

    pub(crate) fn pop_watched(&mut self) -> Option<Monitored> {
        self.watched.pop()
    }

    /// The application does not take its events: no connection is to be offered to it.
    pub(crate) fn events_full(&self) -> bool {
        self.events.is_full()
    }

    // ---- memory ----

    /// A connection's buffers hold `held` bytes, where they held `before`. True: from now on memory is scarce.
    pub(crate) fn charge(&mut self, now: Instant, before: u64, held: u64) -> bool {
        before != held && self.memory.change(now, before, held)
    }

    /// What is kept beside all connections holds `held` bytes now. True: from now on memory is scarce.
    pub(crate) fn charge_beside(&mut self, now: Instant, held: u64) -> bool {
        let before = core::mem::replace(&mut self.beside, held);
        self.charge(now, before, held)
    }

    /// A connection that held so many bytes has gone.
    pub(crate) fn release(&mut self, held: u64) {
        self.memory.release(held);
    }

    /// When all connections are to be looked at because memory is full.
    pub(crate) fn memory_deadline(&self) -> Option<Instant> {
        self.memory.next_look()
    }

    /// They have been; `waits`: something of theirs waits for room.
    pub(crate) fn memory_looked_at(&mut self, now: Instant, waits: bool) {
        self.memory.on_looked_at(now, waits);
    }

    /// How scarce memory is.
    #[inline]
    pub(crate) fn pressure(&self) -> Pressure {
        self.memory.pressure()
    }

    /// What the buffers of all connections hold, and may hold.
    pub(crate) fn memory(&self) -> MemoryInfo {
        let pressure = self.memory.pressure();
        let (pressure, full) = (pressure > Pressure::None, pressure == Pressure::Full);
        MemoryInfo { held: self.memory.held(), bound: self.memory.bound(), pressure, full }
    }

    // ---- paths ----

    pub(crate) fn add_path(&mut self, config: PathConfig) -> PathId {
        self.paths.add(config)
    }

    /// False: there is no such path.
    pub(crate) fn remove_path(&mut self, path: PathId) -> bool {
        self.forget_network(path, Families::BOTH);
        self.paths.remove(path)
    }

    /// The path has other addresses, or the peer is to be told others. Families of which something has
    /// changed.
    pub(crate) fn readdress_path(
        &mut self,
        path: PathId,
        addresses: Vec<IpAddr>,
        advertise: Vec<IpAddr>,
    ) -> Families {
        let changed = self.paths.readdress(path, addresses, advertise);
        self.forget_network(path, changed);
        changed
    }

    /// The path's device takes nothing (`blocked`), or takes packets again. True: it was blocked and is not
    /// any more.
    pub(crate) fn set_path_blocked(&mut self, path: PathId, blocked: bool) -> bool {
        self.paths.set_blocked(path, blocked)
    }

    /// Enough waits in the path's NIC's queue (`busy`), or no longer. True: it was busy and is not any more.
    pub(crate) fn set_path_busy(&mut self, path: PathId, busy: bool) -> bool {
        self.paths.set_busy(path, busy)
    }

    /// What the path's NIC sends in a second, in bytes; `None`: it is not known.
    pub(crate) fn set_path_rate(&mut self, path: PathId, rate: Option<u64>) {
        self.paths.set_rate(path, rate);
    }

    /// Subflows on the path are to be backups, or not. False: there is no such path.
    pub(crate) fn set_path_backup(&mut self, path: PathId, backup: bool) -> bool {
        self.paths.set_backup(path, backup)
    }

    /// What policies use a path's addresses for. False: there is no such path.
    pub(crate) fn set_path_uses(&mut self, path: PathId, uses: Uses) -> bool {
        self.paths.set_uses(path, uses)
    }

    /// What each connection may carry on a path. False: there is no such path.
    pub(crate) fn set_connection_cap(&mut self, path: PathId, bytes: Option<u64>) -> bool {
        self.paths.set_connection_cap(path, bytes)
    }

    /// The ports that a path's addresses are advertised with. Those that are not any more; `None`: there is no
    /// such path.
    pub(crate) fn set_signal_ports(
        &mut self,
        path: PathId,
        ports: Vec<SignalPort>,
    ) -> Option<Vec<(IpAddr, u16)>> {
        self.paths.set_signal_ports(path, ports)
    }

    /// The Address IDs that are chosen for addresses.
    pub(crate) fn chosen_ids(&self) -> SmallVec<[Chosen; 8]> {
        self.paths.chosen_ids()
    }

    /// From now on nothing gets through by a path from addresses of these families, and something does from
    /// those of the others. Which were down before; `None`: there is no such path.
    pub(crate) fn set_path_down(&mut self, path: PathId, down: Families) -> Option<Families> {
        // A link that comes back may lead elsewhere.
        self.forget_network(path, down);
        self.paths.set_down(path, down)
    }

    /// The families of which nothing gets through by a path for now, or may.
    pub(crate) fn down_on(&self, path: PathId) -> Families {
        self.paths.down(path)
    }

    /// The same without regard to what may pass.
    pub(crate) fn link_down_on(&self, path: PathId) -> Families {
        self.paths.link_down(path)
    }

    /// So much has passed on a path. How far what may pass there is used up, if that is new.
    #[inline]
    pub(crate) fn carry(&mut self, path: PathId, traffic: Traffic) -> Option<Use> {
        self.paths.carry(path, traffic)
    }

    /// So much less may pass.
    pub(crate) fn spend(&mut self, path: PathId, bytes: u64) -> Option<Use> {
        self.paths.spend(path, bytes)
    }

    /// So much may pass from now on. How far what might pass before was used up; `None`: there is no such
    /// path.
    pub(crate) fn allow_on(&mut self, path: PathId, bytes: Option<u64>) -> Option<Use> {
        self.paths.allow(path, bytes)
    }

    /// How far what may pass on a path is used up.
    #[inline]
    pub(crate) fn spent_on(&self, path: PathId) -> Use {
        self.paths.spent(path)
    }

    /// Bytes of IP packets that have passed. `None`: there is no such path.
    pub(crate) fn carried_on(&self, path: PathId) -> Option<Traffic> {
        self.paths.carried(path)
    }

    /// Nothing gets through by a path from an address of the family of `like`.
    #[inline]
    pub(crate) fn is_path_down(&self, path: PathId, like: IpAddr) -> bool {
        self.down_on(path).has(like.is_ipv6())
    }

    /// Nothing can be sent on `path` now from `local`: its device takes nothing, the address's family is down
    /// there, or it has gone.
    #[inline]
    pub(crate) fn is_path_blocked(&self, path: PathId, local: IpAddr) -> bool {
        self.paths.is_blocked(path, local)
    }

    /// The same, but for some milliseconds only: nobody else is to take over for that.
    #[inline]
    pub(crate) fn is_path_busy(&self, path: PathId, local: IpAddr) -> bool {
        self.paths.is_busy(path, local)
    }

    /// What the path's NIC sends in a second, in bytes, where that is known.
    #[inline]
    pub(crate) fn path_rate(&self, path: PathId) -> Option<u64> {
        self.paths.rate(path)
    }

    /// Some path takes nothing, or nothing from some address.
    #[inline]
    pub(crate) fn any_path_blocked(&self) -> bool {
        self.paths.any_blocked()
    }

    pub(crate) fn path(&self, path: PathId) -> Option<&PathConfig> {
        self.paths.get(path)
    }

    /// Every path, in the order in which they were added.
    pub(crate) fn paths(&self) -> impl Iterator<Item = (PathId, &PathConfig)> {
        self.paths.iter()
    }

    /// The path is one that captures: it does not lead outside.
    pub(crate) fn captures(&self, path: PathId) -> bool {
        self.path(path).is_some_and(|p| p.kind == PathKind::Capture)
    }

    /// The path that owns `address`, if any.
    pub(crate) fn path_of(&self, address: IpAddr) -> Option<PathId> {
        self.paths.owner_of(address)
    }

    /// The path's first address of the same family as `like`.
    pub(crate) fn address_on(&self, path: PathId, like: IpAddr) -> Option<IpAddr> {
        self.paths.address_on(path, like)
    }

    // ---- paths that stand in for others ----

    /// The path that this one stands in for, if there is one.
    pub(crate) fn native_of(&self, path: PathId) -> Option<PathId> {
        let name = self.path(path)?.stands_in_for.as_deref()?;
        self.paths().find(|(id, p)| *id != path && p.name == name).map(|(id, _)| id)
    }

    /// The path that stands in for this one, if it has an address of the family.
    pub(crate) fn stand_in_of(&self, path: PathId, v6: bool) -> Option<PathId> {
        let name = &self.path(path)?.name;
        let fits = |p: &PathConfig| {
            p.stands_in_for.as_ref() == Some(name) && p.addresses.iter().any(|a| a.is_ipv6() == v6)
        };
        let found = self.paths().find(|(id, p)| *id != path && fits(p)).map(|(id, _)| id);
        found.filter(|id| !self.down_on(*id).has(v6))
    }

    /// Whether `udp`, which stands in for `native`, is tried before it towards `remote`.
    pub(crate) fn prefers_stand_in(
        &self,
        now: Instant,
        native: PathId,
        udp: PathId,
        remote: SocketAddr,
    ) -> bool {
        let hindered =
            self.stand_ins.is_bad(now, native, remote.is_ipv6()) || self.avoids_mptcp(now, remote.ip());
        hindered && !self.stand_ins.is_silent(now, udp, remote)
    }

    /// Whether a server has lately not answered inside UDP.
    pub(crate) fn is_silent_inside(&self, now: Instant, udp: PathId, remote: SocketAddr) -> bool {
        self.stand_ins.is_silent(now, udp, remote)
    }

    /// What lets MPTCP through, or not, was a network that the path may not lead into any more.
    pub(crate) fn forget_network(&mut self, path: PathId, families: Families) {
        let others = [false, true].map(|v6| self.stand_in_of(path, v6)).into_iter().flatten();
        let of_nic: SmallVec<[PathId; 4]> = others.chain(self.native_of(path)).chain([path]).collect();
        for v6 in [false, true].into_iter().filter(|v6| families.has(*v6)) {
            of_nic.iter().for_each(|path| self.stand_ins.forget(*path, v6));
        }
    }

    // ---- four-tuples and ports ----

    /// A subflow takes `tuple`, also out of TIME_WAIT.
    pub(crate) fn open_tuple(&mut self, tuple: FourTuple, connection: ConnectionId, subflow: SubflowId) {
        self.tuples.open(tuple, connection, subflow);
    }

    /// The subflow has ended; `waiting`: in TIME_WAIT.
    pub(crate) fn close_tuple(&mut self, tuple: FourTuple, waiting: Option<TimeWait>) {
        self.tuples.close(tuple, waiting);
    }

    /// Whose segments those of `tuple` are.
    #[inline]
    pub(crate) fn owner_of_tuple(&self, tuple: &FourTuple) -> Option<(ConnectionId, SubflowId)> {
        self.tuples.owner(tuple)
    }

    /// Whether a connection of ours may use `tuple` now.
    pub(crate) fn is_free(&self, now: Instant, tuple: &FourTuple) -> bool {
        self.tuples.is_free(now, tuple)
    }

    /// Local ports are chosen from these, too.
    pub(crate) fn add_ports(&mut self, range: core::ops::RangeInclusive<u16>) {
        self.tuples.ports().add(range);
    }

    /// A free local port for a connection from `local` to `remote`.
    pub(crate) fn free_port(&mut self, now: Instant, local: IpAddr, remote: SocketAddr) -> Option<u16> {
        self.tuples.free_port(now, local, remote)
    }

    /// Keeps the local port of a connection to `remote` for its joins, from other local addresses.
    pub(crate) fn keep_port(&mut self, port: u16, remote: SocketAddr) {
        self.tuples.ports().keep(port, remote);
    }

    /// The connection is over.
    pub(crate) fn release_port(&mut self, port: u16, remote: SocketAddr) {
        self.tuples.ports().release(port, remote);
    }

    /// What is left of the subflow, if `tuple` is in TIME_WAIT.
    pub(crate) fn time_wait(&self, tuple: &FourTuple) -> Option<TimeWait> {
        self.tuples.waiting(tuple).copied()
    }

    /// A segment for a four-tuple without a subflow. `None`: it is not in TIME_WAIT.
    pub(crate) fn on_time_wait_segment(
        &mut self,
        now: Instant,
        tuple: &FourTuple,
        seg: &TcpRepr,
        len: usize,
    ) -> Option<Verdict> {
        self.tuples.on_segment(now, tuple, seg, len)
    }

    pub(crate) fn expire_time_wait(&mut self, now: Instant) {
        self.tuples.expire(now);
    }

    /// When the next TIME_WAIT ends.
    pub(crate) fn time_wait_deadline(&self) -> Option<Instant> {
        self.tuples.next_deadline()
    }

    // ---- tokens ----

    /// A key whose token no connection has (RFC 8684 §3.1). `None` after several collisions in a row.
    pub(crate) fn unique_key(&mut self) -> Option<u64> {
        (0..8).find_map(|_| Some(self.random.next_u64()).filter(|key| self.tokens.is_unused(*key)))
    }

    /// No connection has this key's token.
    pub(crate) fn is_unused(&self, key: u64) -> bool {
        self.tokens.is_unused(key)
    }

    pub(crate) fn take_token(&mut self, token: u32, connection: ConnectionId) {
        self.tokens.take(token, connection);
    }

    pub(crate) fn owner_of_token(&self, token: u32) -> Option<ConnectionId> {
        self.tokens.owner(token)
    }

    /// `connection` has no use for its token any more. It may have none, or have given it back before.
    pub(crate) fn forget_token(&mut self, token: u32, connection: ConnectionId) {
        self.tokens.give_back(token, connection);
    }

    // ---- listeners ----

    /// A connection by way of `listener` waits for its third ACK.
    pub(crate) fn enter_half_open(&mut self, listener: ListenerId) {
        self.half_open.enter(listener);
    }

    /// It does so no longer.
    pub(crate) fn leave_half_open(&mut self, listener: ListenerId) {
        self.half_open.leave(listener);
    }

    /// How many do.
    pub(crate) fn half_open(&self, listener: ListenerId) -> usize {
        self.half_open.count(listener)
    }

    /// What makes a SYN cookie that is about to be sent.
    pub(crate) fn issue_syn_cookie(&mut self, now: Instant) -> SynCookies {
        self.syn_cookies.issued(now);
        self.syn_cookies
    }

    /// Cookies were sent so lately that an ACK may bring one back.
    pub(crate) fn expects_syn_cookie(&self, now: Instant) -> bool {
        self.syn_cookies.expected(now)
    }

    /// What the ACK says, if its acknowledgement number is a cookie of ours.
    pub(crate) fn recover_syn_cookie(
        &self,
        now: Instant,
        tuple: &FourTuple,
        seg: &TcpRepr,
    ) -> Option<Recovered> {
        self.syn_cookies.recover(now, tuple, seg)
    }
}

//! What all connections of a stack share: randomness, addresses in use, counters, events.

pub(crate) mod black_holes;
pub(crate) mod fast_open;
pub(crate) mod syn_cookies;
pub(crate) mod time_wait;

use crate::buffers::payload::Payload;
use crate::config::StackConfig;
use crate::event::Event;
use crate::interface::{ChecksumRequest, HeaderBuf, PathConfig, Transmit};
use crate::observe::{Counter, CounterChange, Counters, Observation, Observer};
use crate::tcp::FourTuple;
use crate::wire::tcp::TcpRepr;
use crate::wire::{checksum, ip};
use alloc::boxed::Box;
use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use black_holes::BlackHoles;
use core::hash::{BuildHasher, Hash, Hasher};
use core::net::{IpAddr, SocketAddr};
use core::num::NonZeroU16;
use fast_open::FastOpen;
use hashbrown::HashMap;
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};
use siphasher::sip::SipHasher13;
use syn_cookies::SynCookies;
use time_wait::TimeWaitTable;
use umptcp_types::{ConnectionId, Instant, ListenerId, PathId, SeqNumber, SubflowId};

/// Hash tables keyed with a secret, so that a peer cannot choose four-tuples that collide.
#[derive(Clone, Debug)]
pub(crate) struct Seeded(pub(crate) u64, pub(crate) u64);

impl BuildHasher for Seeded {
    type Hasher = SipHasher13;
    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

/// Challenge ACKs and RSTs for unknown segments per second and stack, on average (RFC 5961 §7). The limit of each second is drawn
/// at random: a known one tells somebody off the path, who uses up the rest, whether a four-tuple is in use (Cao et al.,
/// USENIX Security 2016).
const CHALLENGES_PER_SECOND: u32 = 1000;

/// Ports in TIME_WAIT passed over in search of one that is not.
const MAX_WAITING_PORTS: u32 = 64;

/// One path and its state.
#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) config: PathConfig,
    /// The device takes nothing for now.
    pub(crate) blocked: bool,
}

/// What the stack's connections share.
pub(crate) struct Context {
    pub(crate) config: StackConfig,
    rng: ChaCha12Rng,
    isn_key: (u64, u64),
    pub(crate) counters: Counters,
    observer: Option<Box<dyn Observer>>,
    pub(crate) events: VecDeque<Event>,
    pub(crate) demux: HashMap<FourTuple, (ConnectionId, SubflowId), Seeded>,
    pub(crate) tokens: HashMap<u32, ConnectionId, Seeded>,
    pub(crate) paths: HashMap<PathId, Path, Seeded>,
    pub(crate) path_order: Vec<PathId>,
    pub(crate) time_wait: TimeWaitTable,
    pub(crate) black_holes: BlackHoles,
    pub(crate) syn_cookies: SynCookies,
    pub(crate) fast_open: FastOpen,
    /// Accepted connections whose third ACK has not come, by listener.
    pub(crate) half_open: BTreeMap<ListenerId, usize>,
    /// Packets that belong to no connection: RSTs, answers out of TIME_WAIT.
    pub(crate) outbox: VecDeque<Transmit>,
    challenge_second: u64,
    challenges_left: u32,
    next_port: u16,
    /// Local ports that joins to these addresses are to come from, whatever the local address (RFC 8684 §3.9.1), and how many
    /// connections each is that port of.
    kept_ports: BTreeMap<(u16, SocketAddr), u32>,
}

impl core::fmt::Debug for Context {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (paths, tuples) = (&self.paths, self.demux.len());
        f.debug_struct("Context").field("paths", paths).field("tuples", &tuples).finish_non_exhaustive()
    }
}

impl Context {
    pub(crate) fn new(config: StackConfig, seed: [u8; 32]) -> Self {
        let mut rng = ChaCha12Rng::from_seed(seed);
        let mut hasher = || Seeded(rng.next_u64(), rng.next_u64());
        let (demux, tokens, paths, waiting) = (hasher(), hasher(), hasher(), hasher());
        let holes = hasher();
        let isn_key = (rng.next_u64(), rng.next_u64());
        let cookie_key = (rng.next_u64(), rng.next_u64());
        let first = *config.ephemeral_ports.start();
        let span = config.ephemeral_ports.end().saturating_sub(first).max(1);
        let next_port = first + (rng.next_u32() % u32::from(span)) as u16;
        Context {
            config,
            rng,
            isn_key,
            counters: Counters::default(),
            observer: None,
            events: VecDeque::new(),
            demux: HashMap::with_hasher(demux),
            tokens: HashMap::with_hasher(tokens),
            paths: HashMap::with_hasher(paths),
            path_order: Vec::new(),
            time_wait: TimeWaitTable::new(waiting),
            black_holes: BlackHoles::new(holes),
            syn_cookies: SynCookies::new(cookie_key),
            fast_open: FastOpen::new(seed),
            half_open: BTreeMap::new(),
            outbox: VecDeque::new(),
            challenge_second: u64::MAX,
            challenges_left: 0,
            next_port,
            kept_ports: BTreeMap::new(),
        }
    }

    /// The seed of one more hash table.
    pub(crate) fn hasher(&mut self) -> Seeded {
        Seeded(self.rng.next_u64(), self.rng.next_u64())
    }

    pub(crate) fn set_observer(&mut self, observer: Box<dyn Observer>) {
        self.observer = Some(observer);
    }

    /// Reports that something happened: the one source of every counter and trace.
    pub(crate) fn observe(
        &mut self,
        now: Instant,
        connection: Option<ConnectionId>,
        subflow: Option<SubflowId>,
        what: Counter,
    ) {
        self.counters.increment(what);
        tracing::trace!(connection = ?connection, subflow = ?subflow, what = what.name());
        if let Some(o) = &mut self.observer {
            o.observe(&Observation { now, connection, subflow, what, change: CounterChange::Up });
        }
    }

    /// Reports that `gauge` has become one less.
    pub(crate) fn observe_less(&mut self, now: Instant, connection: ConnectionId, gauge: Counter) {
        self.counters.decrement(gauge);
        tracing::trace!(?connection, less = gauge.name());
        if let Some(o) = &mut self.observer {
            let connection = Some(connection);
            o.observe(&Observation {
                now,
                connection,
                subflow: None,
                what: gauge,
                change: CounterChange::Down,
            });
        }
    }

    pub(crate) fn random_u32(&mut self) -> u32 {
        self.rng.next_u32()
    }

    /// A key whose token no connection has (RFC 8684 §3.1). `None` after several collisions in a row.
    pub(crate) fn unique_key(&mut self) -> Option<u64> {
        for _ in 0..8 {
            let key = self.rng.next_u64();
            if self.is_unused(key) {
                return Some(key);
            }
        }
        None
    }

    /// No connection has this key's token.
    pub(crate) fn is_unused(&self, key: u64) -> bool {
        !self.tokens.contains_key(&crate::wire::mptcp::keys::token_and_idsn(key).0)
    }

    /// `connection` has no use for its token any more. It may have none, or have given it back before.
    pub(crate) fn forget_token(&mut self, token: u32, connection: ConnectionId) {
        if self.tokens.get(&token) == Some(&connection) {
            self.tokens.remove(&token);
        }
    }

    /// A connection by way of `listener` is no longer half-open.
    pub(crate) fn leave_half_open(&mut self, listener: ListenerId) {
        if let Some(n) = self.half_open.get_mut(&listener) {
            *n -= 1;
            if *n == 0 {
                self.half_open.remove(&listener);
            }
        }
    }

    fn keyed_hash(&self, tuple: &FourTuple, salt: u64) -> u64 {
        let mut h = SipHasher13::new_with_keys(self.isn_key.0, self.isn_key.1 ^ salt);
        tuple.hash(&mut h);
        h.finish()
    }

    /// RFC 6528 §3: ISN = M + F(four-tuple, secret), M a 4 µs clock.
    pub(crate) fn isn(&self, now: Instant, tuple: &FourTuple) -> SeqNumber {
        let clock = (now.as_micros() / 4) as u32;
        SeqNumber(clock.wrapping_add(self.keyed_hash(tuple, 1) as u32))
    }

    /// RFC 7323 §5.4: a timestamp offset per pair of addresses, so that clocks of different peers tell nothing.
    pub(crate) fn timestamp_offset(&self, tuple: &FourTuple) -> u32 {
        let mut hosts = *tuple;
        hosts.local.set_port(0);
        hosts.remote.set_port(0);
        self.keyed_hash(&hosts, 2) as u32
    }

    /// Whether one more challenge ACK or unsolicited RST may be sent now (RFC 5961 §7).
    pub(crate) fn challenge_allowed(&mut self, now: Instant) -> bool {
        let second = now.as_millis() / 1000;
        if second != self.challenge_second {
            self.challenge_second = second;
            self.challenges_left = CHALLENGES_PER_SECOND / 2 + self.rng.next_u32() % CHALLENGES_PER_SECOND;
        }
        let allowed = self.challenges_left > 0;
        self.challenges_left = self.challenges_left.saturating_sub(1);
        allowed
    }

    /// The path that owns `address`, if any.
    pub(crate) fn path_of(&self, address: IpAddr) -> Option<PathId> {
        let owns = |p: &PathId| self.paths.get(p).is_some_and(|p| p.config.addresses.contains(&address));
        self.path_order.iter().copied().find(owns)
    }

    /// The path's first address of the same family as `like`.
    pub(crate) fn address_on(&self, path: PathId, like: IpAddr) -> Option<IpAddr> {
        let path = self.paths.get(&path)?;
        path.config.addresses.iter().copied().find(|a| a.is_ipv4() == like.is_ipv4())
    }

    /// Whether a connection of ours may use `tuple` now.
    pub(crate) fn is_free(&self, now: Instant, tuple: &FourTuple) -> bool {
        !self.demux.contains_key(tuple) && self.time_wait.may_reuse(now, tuple)
    }

    /// Keeps the local port of a connection to `remote` for its joins, from other local addresses.
    pub(crate) fn keep_port(&mut self, port: u16, remote: SocketAddr) {
        *self.kept_ports.entry((port, remote)).or_default() += 1;
    }

    /// The connection is over.
    pub(crate) fn release_port(&mut self, port: u16, remote: SocketAddr) {
        if let Entry::Occupied(mut kept) = self.kept_ports.entry((port, remote)) {
            *kept.get_mut() -= 1;
            if *kept.get() == 0 {
                kept.remove();
            }
        }
    }

    /// A free local port for a connection from `local` to `remote` (RFC 6056 in spirit: a random start, then in turn, so
    /// that ports used lately come last). Four-tuples in TIME_WAIT come after the others, the oldest first: the peer may
    /// not have forgotten them. Ports kept for the joins of other connections come last of all.
    pub(crate) fn free_port(&mut self, now: Instant, local: IpAddr, remote: SocketAddr) -> Option<u16> {
        let (first, last) = (*self.config.ephemeral_ports.start(), *self.config.ephemeral_ports.end());
        let mut waiting: Option<(Instant, u16)> = None;
        let (mut seen, mut kept) = (0, None);
        for _ in first..=last {
            let port = self.next_port;
            self.next_port = if port >= last { first } else { port + 1 };
            let tuple = FourTuple { local: SocketAddr::new(local, port), remote };
            if !self.is_free(now, &tuple) {
                continue;
            }
            if self.kept_ports.contains_key(&(port, remote)) {
                kept.get_or_insert(port);
                seen += 1;
                if seen >= MAX_WAITING_PORTS {
                    break;
                }
                continue;
            }
            let Some(entry) = self.time_wait.get(&tuple) else { return Some(port) };
            if waiting.is_none_or(|(since, _)| entry.since < since) {
                waiting = Some((entry.since, port));
            }
            seen += 1;
            if seen >= MAX_WAITING_PORTS {
                break;
            }
        }
        waiting.map(|(_, port)| port).or(kept)
    }

    /// Builds the packet for a segment. `None`: its path has gone. `packet_payload`: payload bytes per packet if the device is to cut it.
    pub(crate) fn packet(
        &mut self,
        now: Instant,
        path: PathId,
        tuple: &FourTuple,
        repr: &TcpRepr,
        payload: Payload,
        packet_payload: u32,
    ) -> Option<Transmit> {
        let not_capable = ip::ecn::NOT_ECT;
        self.packet_with_ecn(now, path, tuple, repr, payload, packet_payload, not_capable)
    }

    /// [`packet`](Self::packet) with an ECN codepoint (RFC 3168 §5).
    #[allow(clippy::too_many_arguments)] // The fields of a packet are that many.
    pub(crate) fn packet_with_ecn(
        &mut self,
        now: Instant,
        path: PathId,
        tuple: &FourTuple,
        repr: &TcpRepr,
        payload: Payload,
        packet_payload: u32,
        ecn: u8,
    ) -> Option<Transmit> {
        let offload = self.paths.get(&path)?.config.checksum_offload;
        let (src, dst) = (tuple.local.ip(), tuple.remote.ip());
        let ip_len = ip::ip_header_len(&src);
        let tcp_len = repr.header_len();
        let mut header = HeaderBuf::zeroed(ip_len + tcp_len);
        let bytes = header.as_mut_slice();
        let ident = self.rng.next_u32() as u16;
        ip::emit_ip_header(bytes, src, dst, tcp_len + payload.len(), ecn, ident)?;
        let tcp = &mut bytes[ip_len..];
        repr.emit(tcp);
        let gso_size = (payload.len() as u64 > u64::from(packet_payload))
            .then(|| NonZeroU16::new(packet_payload.min(65535) as u16))
            .flatten();
        let checksum = if offload {
            crate::wire::tcp::partial_checksum(tcp, src, dst, payload.len());
            let offset = crate::wire::tcp::CHECKSUM_OFFSET as u16;
            ChecksumRequest::Partial { start: ip_len as u16, offset }
        } else {
            let sum = checksum::sum_slices(payload.slices().iter().map(|b| &b[..]), 0);
            crate::wire::tcp::complete_checksum(tcp, src, dst, sum, payload.len());
            ChecksumRequest::Complete
        };
        Some(Transmit { path, header, payload, gso_size, checksum, earliest: now })
    }
}

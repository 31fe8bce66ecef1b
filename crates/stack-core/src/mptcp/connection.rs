//! The connection itself: what it holds, how it begins, and what the application asks of it.

use super::addresses::Addresses;
use super::application::{Attention, Notices};
use super::incoming::Incoming;
use super::join_state::{Join, JoinState};
use super::kept::Kept;
use super::lifecycle::{Admission, Lifecycle};
use super::mapping::Tcp;
use super::meters::Meters;
use super::negotiation::Negotiation;
use super::outgoing::Outgoing;
use super::plain::Plain;
use super::receive::ReceiveState;
use super::send::SendState;
use super::subflow::{EndIds, Priority, Subflow};
use super::subflows::Subflows;
use crate::config::{ConnectionConfig, ConnectionOption, KeepAlive};
use crate::context::fast_open::Cookie;
use crate::context::{Context, Pressure};
use crate::error::{ConnectionError, FallbackReason};
use crate::event::Event;
use crate::monitor::MonitorEvent;
use crate::observe::Counter;
use crate::tcp::{CloseReason, FourTuple, TcpConfig, window_scale_for};
use crate::wire::mptcp::ResetReason;
use alloc::boxed::Box;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::{IpAddr, SocketAddr};
use umptcp_congestion::CongestionController;
use umptcp_path_manager::PathPolicy;
use umptcp_scheduler::Scheduler;
use umptcp_types::{ConnectionId, Instant, PathId, SubflowId};

/// Bytes of the send buffer that an unacknowledged segment counts for at least. With a peer whose largest
/// segment is 48 bytes the memory for their records would be many times that of the data (CVE-2019-11479).
const SEGMENT_CHARGE: usize = 512;
/// Segments that may be unacknowledged however small the send buffer is.
const LEAST_SEGMENTS: usize = 128;

/// One MPTCP or TCP connection.
pub(crate) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) client: bool,
    pub(super) config: ConnectionConfig,
    /// The first four-tuple: what the application sees (RFC 8684 §4).
    pub(super) initial_tuple: FourTuple,
    pub(super) mptcp: Negotiation,
    pub(super) plain: Plain,
    pub(super) life: Lifecycle,

    pub(super) send: SendState,
    pub(super) recv: ReceiveState,

    pub(super) subflows: Subflows,
    pub(super) cc: Box<dyn CongestionController>,
    pub(super) scheduler: Box<dyn Scheduler>,
    pub(super) addresses: Addresses,
    pub(super) meters: Meters,

    notices: Notices,
    attention: Attention,
    /// Bytes that it is charged for in the account of all connections.
    pub(super) charged: u64,
    /// When its first SYN was due.
    pub(super) began: Option<Instant>,
    /// What goes with our SYN may be sent to the server again, by another connection.
    pub(super) repeatable: bool,
    /// Bytes that the application has written and not handed over.
    pub(super) unsent: u64,
    /// Of what was refused for want of memory, the next packet of each subflow.
    pub(super) kept: Vec<Kept>,
}

impl core::fmt::Debug for Connection {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.id)
            .field("first", &self.initial_tuple)
            .field("mode", &self.mptcp.mode())
            .field("subflows", &self.subflows.len())
            .finish_non_exhaustive()
    }
}

/// Who began the connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    Client,
    /// The peer did, by way of these listeners.
    Server(Admission),
}

/// The parts of a connection that names in its configuration stand for.
pub(crate) struct Parts {
    pub(crate) cc: Box<dyn CongestionController>,
    pub(crate) scheduler: Box<dyn Scheduler>,
    pub(crate) policy: Box<dyn PathPolicy>,
}

impl Connection {
    pub(crate) fn new(
        id: ConnectionId,
        role: Role,
        config: ConnectionConfig,
        first: FourTuple,
        parts: Parts,
        pressure: Pressure,
    ) -> Self {
        let (client, life) = match role {
            Role::Client => (true, Lifecycle::connecting()),
            Role::Server(admission) => (false, Lifecycle::accepting(admission)),
        };
        Connection {
            id,
            client,
            initial_tuple: first,
            mptcp: Negotiation::new(config.mptcp, config.checksum),
            plain: Plain::default(),
            life,
            send: SendState::new(config.effective_send_buffer(), config.not_sent_limit.max(1)),
            recv: ReceiveState::new(config.receive_buffer, pressure),
            subflows: Subflows::default(),
            cc: parts.cc,
            scheduler: parts.scheduler,
            addresses: Addresses::new(&first, parts.policy),
            meters: Meters::default(),
            notices: Notices::default(),
            attention: Attention::default(),
            charged: 0,
            began: None,
            repeatable: false,
            unsent: 0,
            kept: Vec::new(),
            config,
        }
    }

    /// The port and peer that are kept for the joins of this connection, if it makes any.
    pub(crate) fn kept_port(&self) -> Option<(u16, SocketAddr)> {
        let (local, remote) = (self.initial_tuple.local.port(), self.initial_tuple.remote);
        (self.client && self.config.mptcp).then_some((local, remote))
    }

    /// The SYN waits for data that it can carry.
    pub(crate) fn is_awaiting_data(&self) -> bool {
        self.life.holds_syn()
    }

    /// The SYN is not to wait for data.
    pub(crate) fn release_syn(&mut self) {
        self.life.on_syn_released();
    }

    /// Takes `key` as ours, and makes its token known.
    pub(crate) fn choose_key(&mut self, ctx: &mut Context, key: u64) {
        let token = self.mptcp.on_key_chosen(key);
        ctx.take_token(token, self.id);
    }

    /// Whether MPTCP is in use.
    pub(crate) fn is_mptcp(&self) -> bool {
        self.mptcp.is_active()
    }

    /// Counts something that happened to this connection.
    pub(crate) fn count(&self, ctx: &mut Context, now: Instant, subflow: Option<SubflowId>, what: Counter) {
        ctx.observe(now, Some(self.id), subflow, what);
    }

    /// The TCP settings of a subflow of this connection on `path`.
    fn subflow_config(&self, ctx: &Context, now: Instant, path: PathId, tuple: &FourTuple) -> TcpConfig {
        let (mtu, max_packet) = ctx.path(path).map_or((1500, 1500), |p| (p.mtu, p.max_packet));
        let headers = crate::wire::ip::ip_header_len(&tuple.local.ip()) as u32 + 20;
        // A device that cannot cut is given single packets, also when the path's packets have become much
        // smaller than its own MTU.
        let cuts = max_packet > u32::from(mtu);
        let max_packet = max_packet.clamp(u32::from(mtu), 65_535);
        TcpConfig {
            mss: u32::from(mtu)
                .saturating_sub(headers)
                .min(self.config.max_segment_size.map_or(u32::MAX, u32::from))
                .max(48),
            max_segment: if cuts { max_packet.saturating_sub(headers + 40).max(1) } else { 1 },
            max_segments: (self.config.effective_send_buffer().limit() / SEGMENT_CHARGE).max(LEAST_SEGMENTS),
            window_scale: window_scale_for(self.config.receive_buffer.limit()),
            user_timeout: self.config.user_timeout,
            keep_alive: self.config.keep_alive.map(KeepAlive::within_bounds),
            longest_silence: None,
            ecn: self.config.ecn,
            mtu_probe_interval: self.config.mtu_probe_interval,
            isn: ctx.isn(now, tuple),
            timestamp_offset: ctx.timestamp_offset(tuple),
        }
    }

    /// The TCP of a new subflow; its SYN is not sent yet.
    pub(crate) fn new_tcp(&mut self, ctx: &mut Context, now: Instant, path: PathId, tuple: FourTuple) -> Tcp {
        let id = self.subflows.next_id();
        ctx.open_tuple(tuple, self.id, id);
        let mut config = self.subflow_config(ctx, now, path, &tuple);
        config.longest_silence = ctx.path(path).and_then(|path| path.longest_silence);
        Tcp::connect(id, path, tuple, config, now)
    }

    /// Adds a subflow, with what its path is configured to be. `cookie`: the Fast Open option for its
    /// SYN/ACK.
    pub(crate) fn add_subflow(
        &mut self,
        ctx: &Context,
        tcp: Tcp,
        step: Join,
        ids: EndIds,
        cookie: Option<Cookie>,
    ) -> &mut Subflow {
        let path = ctx.path(tcp.path());
        let priority = path.map_or(Priority { backup: false, metered: false, weight: 1, cost: 1 }, |p| {
            Priority { backup: p.backup, metered: p.metered, weight: p.weight, cost: p.cost }
        });
        let (incoming, outgoing) = (Incoming::new(self.recv.most_offered()), Outgoing::new(cookie));
        self.subflows.push(Subflow::new(tcp, JoinState::new(step), ids, incoming, outgoing, priority))
    }

    /// The paths that its subflows use, with their addresses there.
    pub(crate) fn ways_out(&self) -> impl Iterator<Item = (PathId, IpAddr)> {
        self.subflows.iter().map(|m| (m.tcp.path(), m.tcp.tuple().local.ip()))
    }

    /// The first subflow and its SYN. `allowed`: the paths that the connection may use; empty: all.
    pub(crate) fn open_first(&mut self, ctx: &mut Context, now: Instant, path: PathId, allowed: Vec<PathId>) {
        self.addresses.allow(allowed);
        self.began = Some(now);
        // What swallows SYNs with options of TCP does not see those inside UDP.
        let inside = ctx.native_of(path).is_some();
        if self.config.mptcp && !inside && ctx.avoids_mptcp(now, self.initial_tuple.remote.ip()) {
            self.count(ctx, now, None, Counter::MPCapableSYNTXDisabled);
            self.mptcp.fall_back(FallbackReason::BlackHole);
        } else if self.config.mptcp {
            match ctx.unique_key() {
                Some(key) => self.choose_key(ctx, key),
                None => {
                    self.count(ctx, now, None, Counter::MPFallbackTokenInit);
                    self.mptcp.fall_back(FallbackReason::NoToken);
                }
            }
        }
        let tcp = self.new_tcp(ctx, now, path, self.initial_tuple);
        self.add_subflow(ctx, tcp, Join::Initial, EndIds::INITIAL, None);
        self.put_off_syn(ctx, now);
    }

    /// A subflow became able to carry data: tell controller, scheduler and application.
    pub(crate) fn announce(&mut self, ctx: &mut Context, now: Instant, i: usize) {
        let m = &mut self.subflows[i];
        if !m.on_announced(now) {
            return;
        }
        self.cc.subflow_added(now, m.tcp.id(), m.congestion_params());
        self.scheduler.subflow_added(m.tcp.id());
        self.addresses.failures.on_reached(m.tcp.tuple().remote);
        if self.is_mptcp() {
            self.on_way_works(ctx, now, i);
        }
        let m = &self.subflows[i];
        self.addresses.on_change();
        let event =
            Event::SubflowEstablished { connection: self.id, subflow: m.tcp.id(), path: m.tcp.path() };
        ctx.push_event(event);
        self.tell_watchers_of(ctx, now, i, |connection, subflow| MonitorEvent::SubflowEstablished {
            connection,
            subflow,
        });
        self.replace_stale(ctx, now, i);
        self.take_over(ctx, now);
        self.leave_down_paths(ctx, now);
        self.leave_ending_paths(ctx, now);
    }

    /// Subflow `i` takes the place of those between the same addresses that do not answer: a box on the way
    /// may have forgotten them. If they could come back there would be two where one is wanted.
    fn replace_stale(&mut self, ctx: &mut Context, now: Instant, i: usize) {
        let (id, pair) = (self.subflows[i].tcp.id(), self.subflows[i].pair());
        for j in self.subflows.indices().rev() {
            let replaced = |m: &Subflow| m.is_stale() && m.pair() == pair && m.tcp.id() != id;
            if self.subflows.get(j).is_some_and(replaced) {
                self.reset_subflow(ctx, now, j, ResetReason::UnacceptablePerformance);
            }
        }
    }

    /// Subflow `i`, which did not answer, does again: one that is being opened in its place is of no use.
    pub(super) fn keep_recovered(&mut self, ctx: &mut Context, now: Instant, i: usize) {
        let pair = self.subflows[i].pair();
        for j in self.subflows.indices().rev() {
            let begun = |m: &Subflow| m.join.is_syn_sent() && m.pair() == pair;
            if self.subflows.get(j).is_some_and(begun) {
                self.drop_subflow(ctx, now, j, CloseReason::Aborted);
            }
        }
    }

    /// Another congestion controller takes over: it is told of the subflows with their windows as they are.
    pub(crate) fn set_congestion(&mut self, now: Instant, cc: Box<dyn CongestionController>) {
        let before = core::mem::replace(&mut self.cc, cc);
        for m in self.subflows.iter().filter(|m| m.is_announced()) {
            let id = m.tcp.id();
            self.cc.subflow_added(now, id, m.congestion_params());
            self.cc.resume(id, before.window(id), before.ssthresh(id));
        }
    }

    /// Another scheduler takes over.
    pub(crate) fn set_scheduler(&mut self, scheduler: Box<dyn Scheduler>) {
        self.scheduler = scheduler;
        for m in self.subflows.iter().filter(|m| m.is_announced()) {
            self.scheduler.subflow_added(m.tcp.id());
        }
    }

    /// The scheduler that comes with `policy` in the place of the one that came with the policy before; `None`:
    /// it stays, because it is the same, or because it was chosen since.
    pub(crate) fn scheduler_for(&self, policy: &dyn PathPolicy) -> Option<&str> {
        let wanted = self.config.scheduler_with(policy);
        let before = self.config.scheduler_with(self.addresses.policy());
        (self.scheduler.name() == before && wanted != before).then_some(wanted)
    }

    /// Another policy decides which subflows there are to be.
    pub(crate) fn set_path_policy(&mut self, policy: Box<dyn PathPolicy>) {
        self.addresses.set_policy(policy);
    }

    /// The settings as they are now.
    pub(crate) fn settings(&self) -> &ConnectionConfig {
        &self.config
    }

    /// Asks the peer for a sign of life on every subflow.
    pub(crate) fn ask_for_life(&mut self, now: Instant) {
        self.subflows.iter_mut().for_each(|m| m.tcp.ask_for_life(now));
    }

    /// Changes a setting, for the subflows there are and for later ones.
    pub(crate) fn set_option(&mut self, now: Instant, option: ConnectionOption, pressure: Pressure) {
        match option {
            ConnectionOption::NoDelay(on) => self.config.no_delay = on,
            ConnectionOption::TrafficClass(class) => self.config.traffic_class = class,
            ConnectionOption::KeepAlive(settings) => {
                self.config.keep_alive = settings;
                let settings = settings.map(KeepAlive::within_bounds);
                self.subflows.iter_mut().for_each(|m| m.tcp.set_keep_alive(now, settings));
            }
            ConnectionOption::UserTimeout(limit) => {
                self.config.user_timeout = limit;
                self.subflows.iter_mut().for_each(|m| m.tcp.set_user_timeout(limit));
            }
            ConnectionOption::SendBuffer(size) => {
                self.config.send_buffer = size;
                self.send.set_buffer(self.config.effective_send_buffer(), pressure);
            }
            ConnectionOption::ReceiveBuffer(size) => {
                self.config.receive_buffer = size;
                self.recv.set_buffer(size, pressure);
                self.send.set_buffer(self.config.effective_send_buffer(), pressure);
                self.on_window_size();
                self.offer_window();
            }
            ConnectionOption::MaxSubflows(most) => {
                self.config.max_subflows = most.max(1);
                self.addresses.on_change();
            }
            ConnectionOption::MaxAddAddrAccepted(most) => self.config.max_add_addr_accepted = most,
        }
    }

    // ---- the application's side ----

    /// Room in the send buffer, if sending is possible at all.
    fn check_writable(&self) -> Result<(), ConnectionError> {
        match self.life.end() {
            Some(Some(e)) => return Err(e),
            Some(None) => return Err(ConnectionError::SendClosed),
            None => {}
        }
        if self.send.is_shut() { Err(ConnectionError::SendClosed) } else { Ok(()) }
    }

    pub(crate) fn write(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        data: Bytes,
    ) -> Result<usize, ConnectionError> {
        self.check_writable()?;
        let len = data.len();
        self.send.on_pressure(ctx.pressure());
        let n = self.send.write(data);
        self.on_written(n, len);
        self.account(ctx, now);
        Ok(n)
    }

    pub(crate) fn write_slice(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        data: &[u8],
    ) -> Result<usize, ConnectionError> {
        self.check_writable()?;
        self.send.on_pressure(ctx.pressure());
        let n = self.send.write_slice(data);
        self.on_written(n, data.len());
        self.account(ctx, now);
        Ok(n)
    }

    /// The application wrote `n` bytes of `len`.
    fn on_written(&mut self, n: usize, len: usize) {
        if n > 0 {
            self.life.on_syn_released();
        }
        if n < len {
            self.notices.on_short_write();
        }
    }

    /// Bytes for the application; `Ok(None)`: none now. `Err(None)`: the end of the stream.
    pub(crate) fn read(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        max: usize,
    ) -> Result<Option<Bytes>, Option<ConnectionError>> {
        if max == 0 && self.recv.readable_bytes() > 0 {
            // Neither data nor the end, or a caller that reads until one of them comes would never stop.
            return Ok(None);
        }
        if let Some(bytes) = self.recv.read(max) {
            self.account(ctx, now);
            self.tune_receive_buffer(ctx, now);
            self.offer_window();
            self.take_kept(ctx, now);
            return Ok(Some(bytes));
        }
        if self.recv.is_finished() {
            return Err(None);
        }
        match self.life.end() {
            Some(Some(e)) => Err(Some(e)),
            Some(None) => Err(None),
            None => Ok(None),
        }
    }

    /// Sends a window update when reading has opened the window enough.
    fn offer_window(&mut self) {
        let mss = self.subflows.first().map_or(1460, |m| u64::from(m.tcp.mss()));
        if self.recv.owes_window_update(mss) {
            for m in self.subflows.iter_mut() {
                if m.can_acknowledge() {
                    m.tcp.ack_now();
                }
            }
        }
    }

    /// Some subflow has an ACK to send at once.
    pub(crate) fn owes_ack(&self) -> bool {
        self.subflows.iter().any(|m| m.tcp.owes_ack())
    }

    /// It may have something to send. True: the stack is to queue it.
    pub(crate) fn on_touched(&mut self) -> bool {
        self.attention.on_ready()
    }

    /// Its next deadline, if the stack is to set a timer for it.
    pub(crate) fn next_timer(&mut self) -> Option<Instant> {
        self.next_deadline().filter(|deadline| self.attention.on_deadline(*deadline))
    }

    /// A timer that was set for `at` stands for its next deadline.
    pub(crate) fn is_armed_for(&self, at: Instant) -> bool {
        self.attention.is_armed_for(at)
    }

    /// A timer set for `at` fired. False: another has taken its place.
    pub(crate) fn on_timer(&mut self, at: Instant) -> bool {
        self.attention.on_timer(at)
    }

    /// It has nothing to send, and has left the stack's queue. True: subflows were opened.
    pub(crate) fn on_served(&mut self, ctx: &mut Context, now: Instant) -> bool {
        self.attention.on_served();
        let opened = self.on_nothing_to_send(ctx, now);
        self.account(ctx, now);
        opened
    }

    /// The application takes an event of this connection.
    pub(crate) fn on_event_taken(&mut self, event: &Event) {
        match event {
            Event::Readable { .. } => self.notices.on_readable_taken(),
            Event::Writable { .. } => self.notices.on_writable_taken(),
            _ => {}
        }
    }

    /// The application is told once of the end of the stream.
    pub(super) fn notify_end_of_stream(&mut self, ctx: &mut Context) {
        if self.recv.is_finished() && self.notices.on_end_of_stream() {
            self.notify_readable(ctx);
        }
    }

    pub(crate) fn notify_readable(&mut self, ctx: &mut Context) {
        if !self.life.is_orphan() && self.notices.on_readable() {
            ctx.push_event(Event::Readable { connection: self.id });
        }
    }

    pub(crate) fn notify_writable(&mut self, ctx: &mut Context) {
        if !self.life.is_orphan() && self.send.has_new_room() && self.notices.on_room() {
            ctx.push_event(Event::Writable { connection: self.id });
        }
    }
}

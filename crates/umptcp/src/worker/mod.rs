//! The thread that owns the stack. It executes the applications' requests and moves data between them and the
//! stack.

mod connections;
mod context;
mod forwards;
mod listeners;
mod offers;
mod paths;
mod relayed;
mod splices;
mod trust;
mod watchers;

use crate::addresses;
use crate::caps::Order;
use crate::carry::Front;
use crate::error::Error;
use crate::forwarded::{Counted, Forwarded};
use crate::shared::Shared;
use connections::Connections;
use crossbeam_channel::{Receiver, Sender};
use forwards::{Forwards, Onwards};
use listeners::Listeners;
use offers::Offers;
use paths::PathNames;
use relayed::{Answer, Relayed};
use splices::Splices;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use trust::Trust;
use umptcp_relay::AnswerError;
use umptcp_stack_core::config::{ConnectOptions, ConnectionConfig, ListenOptions, StackConfig};
use umptcp_stack_core::device::{Families, PathConfig};
use umptcp_stack_core::error::{ConnectError, ConnectionError, ListenError};
use umptcp_stack_core::event::{Event, IncomingId, RefuseWith, Traffic};
use umptcp_stack_core::stack::{ConnectionInfo, NativeTrouble, SubflowInfo};
use umptcp_tun_driver::event_loop::{AttachedPath, Guard, Handler, Waker};
use umptcp_types::{ConnectionId, Instant, ListenerId, PathId};
use watchers::Watchers;

pub(crate) use connections::{Accepted, Undelivered};
pub(crate) use context::Context;
pub(crate) use forwards::{Onward, Rule, Tagging};
pub(crate) use listeners::ListenerShared;
pub(crate) use offers::{Offer, OffersShared};
pub(crate) use relayed::Wanted;
pub(crate) use splices::Outcome;
pub(crate) use trust::HOLD;
pub(crate) use watchers::Watcher;

/// Something to run on the worker's thread.
type Job = Box<dyn FnOnce(&mut Worker, &mut Context<'_>) + Send>;

/// What applications send to the worker.
pub(crate) enum Command {
    /// There is something to do for this connection: data to send, room to receive, a direction to close.
    Look(ConnectionId),
    /// The last handle of a connection is gone.
    Close(ConnectionId),
    /// A listener's queue has room again.
    Refill(ListenerId),
    /// The listener has been dropped.
    Unlisten(ListenerId),
    /// Anything less frequent.
    Run(Job),
}

/// How often to check whether the last connections are done while the stack is being stopped.
const LINGER_CHECK: Duration = Duration::from_millis(5);

/// How long the resets of connections that are aborted in the end may take to leave.
const RESET_PATIENCE: Duration = Duration::from_secs(1);

/// How often to look which paths answer, for what is carried beside TCP.
const HEALTH_LOOK: Duration = Duration::from_secs(1);

/// How many connections are looked at for that.
const HEALTH_CONNECTIONS: usize = 256;

/// The stack is being stopped.
struct Stopping {
    deadline: Instant,
    next_check: Instant,
    /// What was left has been aborted: until when its resets may take to leave.
    aborted: Option<Instant>,
}

/// The worker's state; the stack itself comes with each call.
pub(crate) struct Worker {
    commands: Receiver<Command>,
    connections: Connections,
    listeners: Listeners,
    splices: Splices,
    watchers: Watchers,
    forwards: Forwards,
    offers: Offers,
    relayed: Relayed,
    path_names: PathNames,
    trust: Trust,
    /// When to look next at which paths answer.
    next_look: Instant,
    stopping: Option<Stopping>,
    undelivered: Undelivered,
}

impl Worker {
    pub(crate) fn new(commands: Receiver<Command>, names: StackConfig, spin: Duration) -> Self {
        Worker {
            commands,
            connections: Connections::new(spin),
            listeners: Listeners::new(names),
            splices: Splices::default(),
            watchers: Watchers::default(),
            forwards: Forwards::default(),
            offers: Offers::default(),
            relayed: Relayed::default(),
            path_names: PathNames::default(),
            trust: Trust::default(),
            next_look: Instant::ZERO,
            stopping: None,
            undelivered: Undelivered::default(),
        }
    }

    /// Starts a connection. Of it and `rivals`, the first to be established stays. `may_doubt`: whoever begins it can try
    /// another path. With `wanted`, it is to a relay, which is asked for that.
    pub(crate) fn connect(
        &mut self,
        cx: &mut Context<'_>,
        options: ConnectOptions,
        rivals: &[ConnectionId],
        may_doubt: bool,
        wanted: Option<Wanted>,
    ) -> Result<(ConnectionId, Arc<Shared>), Error> {
        let (remote, ids) = (options.remote, cx.paths());
        let paths = ids.iter().filter_map(|id| cx.stack.path(*id));
        if let Some(reason) = addresses::no_way(paths, remote.ip()) {
            return Err(Error::NoWay { remote, reason });
        }
        let connected = self.connections.connect(cx, options, wanted.is_some());
        let (id, shared) = connected.map_err(|source| Error::Connect { remote, source })?;
        if let Some(wanted) = wanted {
            self.relayed.ask(cx, id, wanted);
        }
        self.connections.add_rivals(id, rivals);
        if may_doubt {
            self.connections.allow_doubt(id);
        }
        Ok((id, shared))
    }

    /// Ends a connection at once.
    pub(crate) fn abort(&mut self, cx: &mut Context<'_>, id: ConnectionId) {
        self.relayed.forget(id);
        self.connections.abort(cx, id);
    }

    /// Something that was written has not been acknowledged.
    pub(crate) fn has_unacknowledged(&self, cx: &mut Context<'_>, id: ConnectionId) -> bool {
        self.connections.unacknowledged(cx, id) > 0
    }

    /// What the stack knows of a connection; what it last knew when it has ended.
    pub(crate) fn describe(
        &self,
        cx: &mut Context<'_>,
        id: ConnectionId,
        shared: &Shared,
    ) -> Option<(ConnectionInfo, Vec<SubflowInfo>)> {
        self.connections.describe(cx, id, shared)
    }

    /// What the stack knows of every connection that an application holds, or has joined with another.
    pub(crate) fn describe_all(
        &self,
        cx: &mut Context<'_>,
    ) -> Vec<(ConnectionId, ConnectionInfo, Vec<SubflowInfo>)> {
        let spliced = self.splices.connections();
        let spliced = spliced.filter_map(|id| Some((id, cx.stack.info(id)?, cx.stack.subflows(id))));
        let mut all: Vec<_> = spliced.collect();
        all.extend(self.connections.describe_all(cx));
        all.sort_by_key(|(id, ..)| *id);
        all
    }

    /// Opens a listener. `options.local` may have the address of a NIC, for which the stack's `translated`
    /// stands.
    pub(crate) fn listen(
        &mut self,
        cx: &mut Context<'_>,
        mut options: ListenOptions,
        translated: Option<IpAddr>,
        shared: Arc<ListenerShared>,
    ) -> Result<ListenerId, Error> {
        let local = options.local;
        if !local.ip().is_unspecified() {
            let ids = cx.paths();
            let paths = ids.iter().filter_map(|id| cx.stack.path(*id));
            let Some(own) = translated.or_else(|| addresses::own(paths.clone(), local.ip())) else {
                return Err(Error::NoSuchAddress {
                    local,
                    addresses: paths.flat_map(addresses::public).collect(),
                });
            };
            options.local.set_ip(own);
        }
        self.listeners.listen(cx, options, shared)
    }

    /// Starts to stop: every connection is closed, gets up to `linger` to deliver what was written, and is
    /// then aborted.
    pub(crate) fn stop(&mut self, cx: &mut Context<'_>, linger: Duration) {
        let deadline = cx.now + linger;
        if let Some(stopping) = &mut self.stopping {
            stopping.deadline = stopping.deadline.min(deadline);
            return;
        }
        self.stopping = Some(Stopping { deadline, next_check: cx.now, aborted: None });
        for id in self.listeners.ids() {
            self.listeners.unlisten(cx, &mut self.connections, id);
        }
        for id in self.forwards.ids() {
            self.forwards.remove(cx, &mut self.relayed, id);
        }
        for id in self.offers.ids() {
            self.offers.unlisten(cx, id);
        }
        for id in self.connections.ids() {
            self.undelivered.add(self.connections.finish(cx, id));
        }
    }

    /// Somebody is told what happens from now on.
    pub(crate) fn watch(&mut self, cx: &mut Context<'_>, watcher: Arc<Watcher>) {
        self.watchers.add(cx, watcher);
    }

    /// One that watched has gone.
    pub(crate) fn unwatch(&mut self, cx: &mut Context<'_>, watcher: &Arc<Watcher>) {
        self.watchers.remove(cx, watcher);
    }

    /// What could not be delivered before the stack stopped.
    pub(crate) fn undelivered(&self) -> Undelivered {
        self.undelivered
    }

    /// Whether everything is over, when the stack is being stopped.
    fn stopped(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(stopping) = &mut self.stopping else { return false };
        if let Some(patience) = stopping.aborted {
            // A device without room keeps the resets that the peers wait for.
            stopping.next_check = cx.now + LINGER_CHECK;
            return !cx.is_blocked() || cx.now >= patience;
        }
        if self.connections.all_done(cx) && self.splices.is_empty() {
            return true;
        }
        stopping.next_check = cx.now + LINGER_CHECK;
        if cx.now >= stopping.deadline {
            stopping.aborted = Some(cx.now + RESET_PATIENCE);
            self.connections.abort_all(cx, &mut self.undelivered);
            self.splices.abort_all(cx, &mut self.undelivered);
        }
        false
    }

    /// What went over each path.
    pub(crate) fn traffic(&self, cx: &mut Context<'_>) -> BTreeMap<String, Traffic> {
        // Those that programs have let go of, too: they may still be ending.
        let all = cx.stack.connection_ids().flat_map(|id| cx.stack.subflows(id));
        let carried = |s: SubflowInfo| (s.path, Traffic::new(s.bytes_sent, s.bytes_received));
        self.path_names.traffic(all.map(carried))
    }

    /// Bytes of IP packets over each path since the stack started, headers and what was sent again included.
    pub(crate) fn passed(&self, stack: &Front) -> BTreeMap<String, u64> {
        self.path_names.passed(|path| stack.path_traffic(path))
    }

    /// Opens a listener whose connections wait for the program's word.
    pub(crate) fn hold(
        &mut self,
        cx: &mut Context<'_>,
        mut options: ListenOptions,
        translated: Option<IpAddr>,
        shared: Arc<OffersShared>,
    ) -> Result<ListenerId, ListenError> {
        if let Some(own) = translated {
            options.local.set_ip(own);
        }
        self.offers.listen(cx, options, shared)
    }

    /// Closes it.
    pub(crate) fn hold_no_more(&mut self, cx: &mut Context<'_>, id: ListenerId) {
        self.offers.unlisten(cx, id);
    }

    /// Accepts a connection that waits.
    pub(crate) fn accept_offer(
        &mut self,
        cx: &mut Context<'_>,
        id: IncomingId,
        config: &ConnectionConfig,
    ) -> Result<(ConnectionId, Arc<Shared>), ConnectError> {
        self.offers.accept(cx, &mut self.connections, id, config)
    }

    /// Refuses a connection that waits.
    pub(crate) fn refuse_offer(&mut self, cx: &mut Context<'_>, id: IncomingId, with: RefuseWith) {
        self.offers.refuse(cx, id, with);
    }

    /// Begins to capture and to send on.
    pub(crate) fn add_forward(
        &mut self,
        cx: &mut Context<'_>,
        rule: Rule,
    ) -> Result<ListenerId, ListenError> {
        self.forwards.add(cx, rule)
    }

    /// Captures no more.
    pub(crate) fn remove_forward(&mut self, cx: &mut Context<'_>, id: ListenerId) {
        self.forwards.remove(cx, &mut self.relayed, id);
    }

    /// Changes the settings of a rule's side outside.
    pub(crate) fn change_forward(&mut self, id: ListenerId, change: impl FnOnce(&mut ConnectionConfig)) {
        if let Some(config) = self.forwards.outside_mut(id) {
            change(config);
        }
    }

    /// The settings of a rule's side outside.
    pub(crate) fn forward_config(&mut self, id: ListenerId) -> Option<ConnectionConfig> {
        self.forwards.outside_mut(id).map(|config| config.clone())
    }

    /// From now on, this tags the connections of a rule.
    pub(crate) fn tag_forwarded(&mut self, id: ListenerId, tag: Tagging) {
        self.forwards.tag_by(id, tag);
    }

    /// What became of the connections of a rule with that tag.
    pub(crate) fn counted(&self, cx: &Context<'_>, id: ListenerId, tag: u64) -> Option<Counted> {
        self.forwards.counted(cx, &self.splices, (id, tag), |path| self.path_names.get(path))
    }

    /// What a rule has captured and joined, as far as it goes on.
    pub(crate) fn forwarded(&self, cx: &Context<'_>, id: ListenerId) -> Vec<Forwarded> {
        self.forwards.describe(cx, &self.splices, id)
    }

    /// A connection in doubt is taken for want of another. One to a relay is asked now.
    pub(crate) fn on_unopposed(&mut self, cx: &mut Context<'_>, id: ConnectionId) {
        let relayed = self.relayed.has(id);
        let stripped = relayed || Trust::is_stripped(cx, id);
        self.trust.on_unopposed(cx, id, stripped);
        if relayed {
            self.relay_reached(cx, id);
        }
    }

    /// The address from which to ask inside UDP first, where a connection has been answered without MPTCP although its
    /// server speaks it.
    pub(crate) fn stand_in_address(&self, cx: &Context<'_>, id: ConnectionId) -> Option<IpAddr> {
        if !self.relayed.has(id) && !Trust::is_stripped(cx, id) {
            return None;
        }
        let udp = cx.stack.stand_in_to_ask(cx.now, id)?;
        address_on(cx, udp, cx.stack.info(id)?.remote)
    }

    /// A native attempt from `local` at a relay was refused. Something on the way may have done that, because of the
    /// option: the address from which to ask inside UDP.
    pub(crate) fn stand_in_after_refusal(
        &mut self,
        cx: &mut Context<'_>,
        local: IpAddr,
        relay: SocketAddr,
    ) -> Option<IpAddr> {
        let native = path_at(cx, local)?;
        let udp = cx.stack.stand_in_for(cx.now, native, relay)?;
        // For a minute: the relay may have been away for a moment, too.
        cx.stack.native_failed(cx.now, native, relay, NativeTrouble::Swallowed);
        address_on(cx, udp, relay)
    }

    fn connected(&mut self, cx: &mut Context<'_>, id: ConnectionId) {
        self.trust.on_connected(cx, id);
        if Trust::is_mptcp(cx, id) {
            for other in self.connections.rivals_of(id).into_iter().chain(self.forwards.rivals_of(id)) {
                cx.stack.stand_in_answered(cx.now, id, other);
            }
        }
        if !self.relayed.has(id) {
            let Some(remote) = cx.stack.info(id).map(|info| info.remote) else { return };
            if cx.stack.is_known_to_speak_mptcp(cx.now, remote) {
                self.say_if_silent_inside(cx, id);
            }
            return self.stands(cx, id, None);
        }
        // A relay speaks MPTCP.
        self.say_if_silent_inside(cx, id);
        if cx.stack.stand_in_to_ask(cx.now, id).is_some() && self.hold_relayed(cx, id) {
            tracing::debug!(connection = %id, "the path strips MPTCP: the relay is asked inside UDP");
            self.relayed.hold(id);
            return;
        }
        self.relay_reached(cx, id);
    }

    /// The server speaks MPTCP. If the connection came without it, and inside UDP nobody has answered lately, the reason
    /// says so.
    fn say_if_silent_inside(&mut self, cx: &mut Context<'_>, id: ConnectionId) {
        if cx.stack.stand_in_to_ask(cx.now, id).is_none() {
            cx.stack.stand_in_silent(cx.now, id, true);
        }
    }

    /// A connection to a relay has come without MPTCP. It is held, and not used, while the same is tried inside UDP. False:
    /// nobody can try that.
    fn hold_relayed(&mut self, cx: &mut Context<'_>, id: ConnectionId) -> bool {
        let Some(info) = cx.stack.info(id) else { return false };
        if self.forwards.hold_relayed(cx, &mut self.relayed, id) {
            return true;
        }
        if !self.connections.doubtful_rivals(id).is_empty() {
            // One of them is enough, should nothing come of it.
            self.abort(cx, id);
            return true;
        }
        self.connections.hold(id, info.local, info.remote)
    }

    /// A relay is reached by this connection, and is asked by no other.
    fn relay_reached(&mut self, cx: &mut Context<'_>, id: ConnectionId) {
        self.relayed.on_reached(id);
        for rival in self.connections.reached(cx, id) {
            self.relayed.forget(rival);
        }
        self.forwards.on_reached(cx, &mut self.relayed, id);
        self.ask_relay(cx, id);
    }

    /// Asks a relay, as far as that is possible, and does as it answers.
    fn ask_relay(&mut self, cx: &mut Context<'_>, id: ConnectionId) {
        match self.relayed.look(cx, id) {
            Answer::Awaited => {}
            Answer::Stands(server) => self.stands(cx, id, Some(server)),
            Answer::Failed(error, why) => {
                tracing::debug!(connection = %id, %why, "the relay does not make the connection");
                self.relay_failed(cx, id, error, why);
            }
        }
    }

    fn relay_failed(
        &mut self,
        cx: &mut Context<'_>,
        id: ConnectionId,
        error: ConnectionError,
        why: AnswerError,
    ) {
        self.connections.refused(id, why);
        // RFC 8803 §6.2.8: an error is answered with a reset.
        cx.stack.abort(cx.now, id);
        self.ended(cx, id, Some(error));
    }

    /// A connection is established: with `server`, if that is by a relay.
    fn stands(&mut self, cx: &mut Context<'_>, id: ConnectionId, server: Option<SocketAddr>) {
        // A relay is nobody else.
        let doubtful = server.is_none() && self.trust.doubts(cx, id);
        if self.forwards.on_connected(
            cx,
            &mut self.relayed,
            &mut self.splices,
            &mut self.trust,
            Onwards { id, doubtful },
        ) || self.splices.on_ready(cx, id)
        {
            return;
        }
        let Some(info) = cx.stack.info(id) else { return };
        let rivals = self.connections.doubtful_rivals(id);
        if doubtful && !rivals.is_empty() {
            // What two paths say is true. The server knows the first longer. One path says the same twice.
            let agrees = |other: &&ConnectionId| {
                Trust::path(cx, **other) != Trust::path(cx, id) && !Trust::is_stripped(cx, **other)
            };
            if let Some(other) = rivals.iter().find(agrees).copied() {
                self.trust.on_agreed(cx, [id, other]);
                self.connections.end_doubt(other);
            }
            self.connections.abort(cx, id);
            return;
        }
        if Trust::is_mptcp(cx, id) {
            // Another server says nothing about this one's answer.
            let same_server =
                |other: &&ConnectionId| cx.stack.info(**other).is_some_and(|i| i.remote == info.remote);
            let elsewhere = |other: &&ConnectionId| {
                Trust::path(cx, **other) != Trust::path(cx, id) && !Trust::are_of_one_nic(cx, [**other, id])
            };
            for other in rivals.iter().filter(same_server).filter(elsewhere) {
                self.trust.on_contradicted(cx, *other);
            }
        }
        let remote = server.unwrap_or(info.remote);
        if doubtful && self.connections.hold(id, info.local, info.remote) {
            tracing::debug!(connection = %id, "the answer lacks MPTCP: another path is asked");
        } else if let Some((listener, accepted)) = self.connections.connected(cx, id, info.local, remote) {
            self.listeners.accepted(cx, &mut self.connections, listener, accepted);
        }
        // What came with the handshake, and what was written before it was complete.
        self.connections.receive(cx, id);
        self.connections.send(cx, id);
    }

    /// Joins two connections, whose applications hand them over. False: one has ended or cannot send any
    /// more.
    pub(crate) fn splice(
        &mut self,
        cx: &mut Context<'_>,
        ids: [ConnectionId; 2],
        done: Sender<Outcome>,
    ) -> bool {
        if !ids.iter().all(|id| self.connections.may_hand_over(*id)) {
            return false;
        }
        let [a, b] = ids.map(|id| self.connections.hand_over(id));
        let (Some(a), Some(b)) = (a, b) else { return false };
        self.splices.add(cx, [a, b], done);
        true
    }

    /// Resets both connections of a pair.
    pub(crate) fn abort_splice(&mut self, cx: &mut Context<'_>, one: ConnectionId) {
        self.splices.abort(cx, one);
    }

    fn ready(&mut self, cx: &mut Context<'_>, id: ConnectionId, readable: bool) {
        if self.relayed.has(id) {
            return self.ask_relay(cx, id);
        }
        if self.splices.on_ready(cx, id) {
            return;
        }
        if readable {
            self.connections.receive(cx, id);
        } else {
            self.connections.send(cx, id);
        }
    }

    fn ended(&mut self, cx: &mut Context<'_>, id: ConnectionId, mut error: Option<ConnectionError>) {
        if let Some(reached) = self.relayed.on_ended(id) {
            error = error.or(Some(ConnectionError::Reset));
            if reached {
                self.connections.refused(id, AnswerError::NoAnswer);
            }
        }
        if self.forwards.on_ended(cx, &mut self.relayed, id, error) || self.splices.on_ended(cx, id, error) {
            return;
        }
        if let Some(listener) = self.connections.ended(cx, id, error) {
            self.listeners.not_accepted(cx, &mut self.connections, listener, id);
        }
    }
}

/// The path that has this address.
fn path_at(cx: &Context<'_>, address: IpAddr) -> Option<PathId> {
    cx.paths().into_iter().find(|id| cx.stack.path(*id).is_some_and(|p| p.addresses.contains(&address)))
}

/// The address of a path from which `remote` is reached.
fn address_on(cx: &Context<'_>, path: PathId, remote: SocketAddr) -> Option<IpAddr> {
    let addresses = &cx.stack.path(path)?.addresses;
    addresses.iter().copied().find(|a| a.is_ipv4() == remote.is_ipv4())
}

/// These addresses of ours in the order in which to try them: of a NIC with two paths, the one that is known to be in the
/// way goes last.
pub(crate) fn in_order(cx: &Context<'_>, remote: SocketAddr, locals: &[IpAddr]) -> Vec<IpAddr> {
    let paths: Vec<PathId> = locals.iter().filter_map(|local| path_at(cx, *local)).collect();
    let ways = cx.stack.ways_to(cx.now, remote, &paths);
    ways.into_iter().filter_map(|path| address_on(cx, path, remote)).collect()
}

/// Paths over which no subflow gets an answer, and some subflow wants one.
fn silent_paths(cx: &Context<'_>) -> HashSet<PathId> {
    let (mut stale, mut answering) = (HashSet::new(), HashSet::new());
    for id in cx.stack.connection_ids().take(HEALTH_CONNECTIONS) {
        for subflow in cx.stack.subflows(id) {
            if subflow.stale {
                stale.insert(subflow.path)
            } else {
                answering.insert(subflow.path)
            };
        }
    }
    stale.difference(&answering).copied().collect()
}

impl Handler<Front> for Worker {
    fn on_wake(&mut self, cx: &mut Context<'_>) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Look(id) => self.connections.look(cx, id),
                Command::Close(id) => self.connections.detach(cx, id),
                Command::Refill(id) => self.listeners.refill(cx, &mut self.connections, id),
                Command::Unlisten(id) => self.listeners.unlisten(cx, &mut self.connections, id),
                Command::Run(job) => job(self, cx),
            }
        }
    }

    fn on_event(&mut self, cx: &mut Context<'_>, event: Event) {
        match event {
            Event::Incoming { incoming, .. } if self.stopping.is_some() => {
                cx.stack.refuse(cx.now, incoming, RefuseWith::Reset)
            }
            Event::Incoming { listener, incoming, remote, local, mptcp, complete } => {
                let ends = (local, remote);
                if self.offers.on_incoming(listener, incoming, ends, mptcp)
                    || self.forwards.on_incoming(cx, &mut self.relayed, (listener, incoming), ends, mptcp)
                {
                    return;
                }
                self.listeners.incoming(cx, &mut self.connections, listener, incoming, complete);
            }
            Event::IncomingGone { incoming } => {
                if !self.offers.on_incoming_gone(incoming)
                    && !self.forwards.on_incoming_gone(cx, &mut self.relayed, incoming)
                {
                    self.listeners.incoming_gone(incoming);
                }
            }
            Event::Connected { connection } => self.connected(cx, connection),
            Event::Readable { connection } => self.ready(cx, connection, true),
            Event::Writable { connection } => self.ready(cx, connection, false),
            Event::Closed { connection, error } => self.ended(cx, connection, error),
            Event::KeepAlive { connection } => self.splices.on_keep_alive(cx, connection),
            Event::FellBack { connection, reason } => {
                tracing::debug!(%connection, %reason, "fell back to TCP");
            }
            Event::SubflowEstablished { connection, subflow, path } => {
                if Trust::is_mptcp(cx, connection) {
                    self.trust.on_mptcp(cx.now, path);
                }
                tracing::debug!(%connection, %subflow, path = self.path_names.get(path), "subflow established");
            }
            Event::SubflowClosed { connection, subflow, path, traffic, error, reset } => {
                self.path_names.on_subflow_closed(path, traffic);
                self.forwards.on_subflow_closed(connection, self.path_names.get(path), traffic);
                let error = error.as_ref().map(tracing::field::display);
                let reset = reset.as_ref().map(tracing::field::display);
                tracing::debug!(%connection, %subflow, error, reset, "subflow closed");
            }
            Event::JoinFailed { connection, subflow, path, remote, error, reset } => {
                let reset = reset.as_ref().map(tracing::field::display);
                let path = self.path_names.get(path);
                tracing::debug!(%connection, %subflow, path, %remote, %error, reset, "join failed");
            }
        }
    }

    fn on_path_lost(&mut self, _cx: &mut Context<'_>, path: PathId, error: io::Error, guard: Guard) {
        let name = self.path_names.remove(path);
        tracing::warn!(path = name, %error, "path lost");
        // Undoing a set-up takes many system calls, which other connections must not wait for.
        let undo = std::thread::Builder::new().name("umptcp-undo".into());
        if let Err(error) = undo.spawn(move || drop(guard)) {
            tracing::error!(%error, "cannot undo the set-up of a path in the background");
        }
    }

    fn after_poll(&mut self, cx: &mut Context<'_>) {
        self.forwards.on_time(cx, &mut self.relayed, &mut self.splices, &mut self.trust);
        for id in self.forwards.take_unopposed() {
            self.on_unopposed(cx, id);
        }
        while let Some(id) = self.relayed.overdue(cx.now) {
            self.relay_failed(cx, id, ConnectionError::TimedOut, AnswerError::NoAnswer);
        }
        if cx.stack.carries() && cx.now >= self.next_look {
            self.next_look = cx.now + HEALTH_LOOK;
            let silent = silent_paths(cx);
            cx.stack.set_silent(silent);
        }
        for ended in self.splices.take_ended() {
            self.forwards.on_pair_ended(ended);
        }
        self.connections.on_memory(cx);
        self.connections.settle(cx);
        if self.stopping.is_some() && self.stopped(cx) {
            cx.stop();
        }
        self.watchers.pass_on(cx);
    }

    fn deadline(&self) -> Option<Instant> {
        let stopping =
            self.stopping.as_ref().map(|s| s.next_check.min(s.deadline.max(s.aborted.unwrap_or_default())));
        let due = [self.forwards.deadline(), self.connections.deadline(), self.relayed.deadline()];
        due.into_iter().flatten().chain(stopping).min()
    }
}

impl Drop for Worker {
    /// However the worker ends, no thread may keep waiting for it.
    fn drop(&mut self) {
        self.connections.fail_all();
        self.listeners.close_all();
        self.offers.close_all();
        self.watchers.close_all();
    }
}

/// How other threads reach the worker.
#[derive(Clone)]
pub(crate) struct Commands {
    sender: Sender<Command>,
    waker: Waker,
}

impl Commands {
    pub(crate) fn new(sender: Sender<Command>, waker: Waker) -> Self {
        Commands { sender, waker }
    }

    /// Whether both reach the same worker.
    pub(crate) fn is_same(&self, other: &Commands) -> bool {
        self.sender.same_channel(&other.sender)
    }

    /// Gives a path to the stack.
    pub(crate) fn add_path(&self, path: AttachedPath) -> io::Result<PathId> {
        let name = path.config.name.clone();
        self.call(move |worker, cx| {
            let id = cx.add_path(path)?;
            worker.path_names.add(id, name);
            Ok(id)
        })?
    }

    /// Takes a path from the stack; `None` when there is no such path.
    pub(crate) fn remove_path(&self, path: PathId) -> io::Result<Option<AttachedPath>> {
        Ok(self.call(move |worker, cx| {
            worker.trust.forget(path);
            worker.path_names.on_gone(path, cx.stack.path_traffic(path).unwrap_or_default());
            worker.path_names.remove(path);
            cx.remove_path(path)
        })?)
    }

    /// Tells the stack that something about a path has changed.
    pub(crate) fn path_changed(&self, path: PathId) -> io::Result<()> {
        Ok(self.call(move |worker, cx| {
            worker.trust.forget(path);
            cx.stack.path_changed(cx.now, path);
        })?)
    }

    /// Tells the stack that nothing gets through by a path from addresses of these families, and something
    /// does from those of the others.
    pub(crate) fn path_down(&self, path: PathId, down: Families) -> io::Result<()> {
        Ok(self.call(move |worker, cx| {
            worker.trust.forget(path);
            cx.stack.path_down(cx.now, path, down);
            cx.stack.path_up(cx.now, path, down.others());
        })?)
    }

    /// Whether a connection needs what is sent to the port. No, when the worker has ended.
    pub(crate) fn uses_port(&self, port: u16) -> bool {
        self.call(move |_, cx| cx.stack.uses_port(port)).unwrap_or(false)
    }

    /// The stack's ends of all subflows.
    pub(crate) fn local_addresses(&self) -> HashSet<SocketAddr> {
        let all = |_: &mut Worker, cx: &mut Context<'_>| {
            let subflows = cx.stack.connection_ids().flat_map(|id| cx.stack.subflows(id));
            subflows.map(|subflow| subflow.local).collect()
        };
        self.call(all).unwrap_or_default()
    }

    /// Gives a path other addresses, and others to tell the peer. What goes by an address of the `moved`
    /// families is translated otherwise now.
    pub(crate) fn readdress_path(
        &self,
        path: PathId,
        config: &PathConfig,
        moved: Families,
    ) -> io::Result<()> {
        let (addresses, advertise) = (config.addresses.clone(), config.advertise.clone());
        let job = move |worker: &mut Worker, cx: &mut Context<'_>| {
            worker.trust.forget(path);
            cx.stack.path_readdressed(cx.now, path, addresses, advertise, moved);
        };
        Ok(self.call(job)?)
    }

    /// Bytes of IP packets over each path since the stack started.
    pub(crate) fn passed(&self) -> io::Result<BTreeMap<String, u64>> {
        Ok(self.call(|worker, cx| worker.passed(cx.stack))?)
    }

    /// Tells the stack what paths may carry.
    pub(crate) fn allow(&self, orders: Vec<Order>) -> io::Result<()> {
        Ok(self.call(move |_, cx| {
            for order in orders {
                match order {
                    Order::Allow(path, bytes) => {
                        cx.stack.set_path_allowance(cx.now, path, Some(bytes));
                    }
                    Order::Spend(path, bytes) => cx.stack.spend_path_allowance(cx.now, path, bytes),
                }
            }
        })?)
    }

    /// Any number of bytes may be carried on a path.
    pub(crate) fn unlimit(&self, path: PathId) -> io::Result<()> {
        self.call(move |_, cx| cx.stack.set_path_allowance(cx.now, path, None))?;
        Ok(())
    }

    /// What each connection may carry on a path.
    pub(crate) fn set_connection_cap(&self, path: PathId, bytes: Option<u64>) -> io::Result<()> {
        self.call(move |_, cx| cx.stack.set_connection_cap(cx.now, path, bytes))?;
        Ok(())
    }

    /// Sends a command. One sent after the worker has ended can be ignored: the worker has failed everything
    /// by then.
    pub(crate) fn send(&self, command: Command) {
        if self.sender.send(command).is_ok() {
            self.waker.wake();
        }
    }

    /// Runs `job` on the worker's thread and waits for its result.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Worker, &mut Context<'_>) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (tx, rx) = crossbeam_channel::bounded(1);
        self.send(Command::Run(Box::new(move |worker, cx| {
            // The caller may be gone.
            let _ = tx.send(job(worker, cx));
        })));
        rx.recv().map_err(|_| Error::Stopped)
    }

    /// Runs `job` on the worker's thread some time later, unless the worker has ended.
    pub(crate) fn run(&self, job: impl FnOnce(&mut Worker, &mut Context<'_>) + Send + 'static) {
        self.send(Command::Run(Box::new(job)));
    }

    /// Tells the worker, if `tell`, that there is something to do for a connection.
    pub(crate) fn look(&self, id: ConnectionId, tell: bool) {
        if tell {
            self.send(Command::Look(id));
        }
    }
}

impl std::fmt::Debug for Commands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commands").finish_non_exhaustive()
    }
}

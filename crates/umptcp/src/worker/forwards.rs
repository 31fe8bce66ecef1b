//! Captured connections: each is answered as the connection onward turns out, and then joined with it.

use super::context::Context;
use super::path_at;
use super::relayed::{Relayed, Wanted};
use super::splices::{Ended, Splices};
use super::trust::{HOLD, Trust};
use crate::attempts::ATTEMPT_DELAY;
use crate::forwarded::{Counted, Direction, ForwardShared, Forwarded, spoken};
use crate::via::Via;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use umptcp_stack_core::config::{ConnectOptions, ConnectionConfig, ListenOptions, SynCookiePolicy};
use umptcp_stack_core::device::PathKind;
use umptcp_stack_core::error::{ConnectError, ConnectionError, ListenError};
use umptcp_stack_core::event::{IncomingId, RefuseWith, Traffic};
use umptcp_stack_core::stack::NativeTrouble;
use umptcp_stack_core::wire::icmp::Unreachable;
use umptcp_types::{ConnectionId, Instant, ListenerId, PathId};

/// Most connections of a rule that wait for their way onward. The oldest goes for one more: whoever has not
/// been reached while so many others came will not be.
const MOST_PENDING: usize = 8_192;

/// Most of these that one client may have, so that one which dials the dead leaves room for others.
const MOST_PENDING_OF_ONE: usize = 2_048;

/// What is captured, and where it goes.
pub(crate) struct Rule {
    /// The paths it comes by.
    pub(crate) from: Vec<PathId>,
    /// Where it goes.
    pub(crate) onward: Onward,
    /// For the side that is captured.
    pub(crate) accept: ConnectionConfig,
    /// For the side onward.
    pub(crate) connect: ConnectionConfig,
    /// By which relay it goes outward.
    pub(crate) via: Option<Via>,
    /// Tells connections apart.
    pub(crate) tag: Option<Tagging>,
    /// Who is told.
    pub(crate) shared: Arc<ForwardShared>,
}

/// What a connection from the first address to the second is tagged with.
pub(crate) type Tagging = Box<dyn Fn(SocketAddr, SocketAddr) -> Option<u64> + Send>;

/// Where captured connections go.
#[derive(Clone, Debug)]
pub(crate) enum Onward {
    /// To the address that the client asked for, over every path that leads outside.
    Out,
    /// To the same port at one of these addresses, by this path, in the client's own name.
    In { path: PathId, addresses: Vec<IpAddr> },
}

impl Rule {
    fn direction(&self) -> Direction {
        match self.onward {
            Onward::Out => Direction::Out,
            Onward::In { .. } => Direction::In,
        }
    }
}

/// A connection that has been established onward.
#[derive(Clone, Copy, Debug)]
pub(super) struct Onwards {
    pub(super) id: ConnectionId,
    /// It is without MPTCP, and perhaps not with the server.
    pub(super) doubtful: bool,
}

/// A captured connection whose way onward is being looked for.
struct Pending {
    listener: ListenerId,
    client: SocketAddr,
    tag: Option<u64>,
    /// Whether it asks for MPTCP.
    mptcp: bool,
    /// Where the client wants to go.
    wanted: SocketAddr,
    /// Attempts that have not failed.
    running: Vec<ConnectionId>,
    /// What else may be tried.
    waiting: VecDeque<Way>,
    /// When the next is tried, if nothing has been heard until then.
    next: Option<Instant>,
    /// One that is established, without MPTCP and perhaps not with the server, and until when others may answer.
    held: Option<(ConnectionId, Instant)>,
    /// Why the last attempt failed.
    error: Option<Failure>,
}

/// A way onward.
#[derive(Clone, Debug)]
struct Way {
    /// Where from; port 0: any.
    local: SocketAddr,
    /// Where to: the server, or a relay.
    remote: SocketAddr,
    /// By which path, where it leads outside.
    path: Option<PathId>,
    /// What the relay is asked for.
    wanted: Option<Wanted>,
}

/// Why there is no way onward.
#[derive(Clone, Debug)]
enum Failure {
    /// It could not be tried.
    Local(ConnectError),
    /// The network or the peer said so, or nobody answered.
    Remote(ConnectionError),
}

impl Failure {
    /// What the client gets to see: what it would see without us.
    fn refusal(&self) -> RefuseWith {
        match self {
            Failure::Remote(ConnectionError::Unreachable(why)) => RefuseWith::Unreachable(*why),
            Failure::Remote(ConnectionError::TimedOut) => RefuseWith::Silence,
            Failure::Remote(ConnectionError::NoPath) => RefuseWith::Unreachable(Unreachable::Network),
            Failure::Remote(_) => RefuseWith::Reset,
            Failure::Local(ConnectError::NoPath(_) | ConnectError::Spent(_)) => {
                RefuseWith::Unreachable(Unreachable::Network)
            }
            // Our own want may pass: the client asks again.
            Failure::Local(ConnectError::TooMany(_) | ConnectError::NoPort(_)) => RefuseWith::Silence,
            Failure::Local(_) => RefuseWith::Unreachable(Unreachable::Host),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Local(error) => error.fmt(f),
            Failure::Remote(error) => error.fmt(f),
        }
    }
}

/// A captured connection and the one onward.
struct Joined {
    listener: ListenerId,
    shared: Arc<ForwardShared>,
    about: Forwarded,
}

/// All rules of a worker, and what they have captured.
#[derive(Default)]
pub(super) struct Forwards {
    rules: HashMap<ListenerId, Rule>,
    /// Ids grow, so the first is the oldest.
    pending: BTreeMap<IncomingId, Pending>,
    attempts: HashMap<ConnectionId, IncomingId>,
    /// When to try the next address for whom.
    due: BTreeSet<(Instant, IncomingId)>,
    /// How many wait for each client.
    of_client: HashMap<IpAddr, usize>,
    /// By the captured one of each pair.
    joined: HashMap<ConnectionId, Joined>,
    /// Connections outside whose tag is counted, as long as they have subflows.
    counted: HashMap<ConnectionId, Counting>,
    /// Those whose pair, or a subflow after that, has ended since the last look.
    over: Vec<ConnectionId>,
    /// Connections to relays that are held no longer.
    unopposed: Vec<ConnectionId>,
}

/// Whose subflows are counted, for whom.
struct Counting {
    tag: u64,
    shared: Arc<ForwardShared>,
    /// The pair has ended; its subflows may still be ending.
    ended: bool,
}

impl Forwards {
    /// Begins to capture.
    pub(super) fn add(&mut self, cx: &mut Context<'_>, rule: Rule) -> Result<ListenerId, ListenError> {
        let mut options = ListenOptions::every_port(rule.from.clone(), 2 * MOST_PENDING);
        // An answer is given only when the way onward is known.
        options.syn_cookies = SynCookiePolicy::Never;
        options.config = rule.accept.clone();
        let id = cx.stack.listen_at(cx.now, options)?;
        self.rules.insert(id, rule);
        Ok(id)
    }

    /// Stops to capture. What has been joined goes on.
    pub(super) fn remove(&mut self, cx: &mut Context<'_>, relayed: &mut Relayed, listener: ListenerId) {
        if self.rules.remove(&listener).is_none() {
            return;
        }
        let of_it = |(id, p): (&IncomingId, &Pending)| (p.listener == listener).then_some(*id);
        let ids: Vec<IncomingId> = self.pending.iter().filter_map(of_it).collect();
        for incoming in ids {
            self.give_up(cx, relayed, incoming, Some(RefuseWith::Reset));
        }
        cx.stack.unlisten(cx.now, listener);
    }

    /// The settings of the side outside of a rule.
    pub(super) fn outside_mut(&mut self, id: ListenerId) -> Option<&mut ConnectionConfig> {
        let rule = self.rules.get_mut(&id)?;
        Some(match rule.onward {
            Onward::Out => &mut rule.connect,
            Onward::In { .. } => &mut rule.accept,
        })
    }

    /// From now on, this tags the connections of a rule.
    pub(super) fn tag_by(&mut self, id: ListenerId, tag: Tagging) {
        if let Some(rule) = self.rules.get_mut(&id) {
            rule.tag = Some(tag);
        }
    }

    /// The rules there are.
    pub(super) fn ids(&self) -> Vec<ListenerId> {
        self.rules.keys().copied().collect()
    }

    /// A SYN was captured. False: the listener is none of a rule.
    pub(super) fn on_incoming(
        &mut self,
        cx: &mut Context<'_>,
        relayed: &mut Relayed,
        (listener, incoming): (ListenerId, IncomingId),
        (wanted, client): (SocketAddr, SocketAddr),
        mptcp: bool,
    ) -> bool {
        let Some(rule) = self.rules.get(&listener) else { return false };
        let tag = rule.tag.as_ref().and_then(|tag| tag(client, wanted));
        rule.shared.on_captured(tag);
        let waiting = ways(cx, rule, client, wanted);
        let (next, held) = (None, None);
        let (running, error) = (Vec::new(), None);
        let pending = Pending { listener, client, tag, mptcp, wanted, running, waiting, next, held, error };
        self.pending.insert(incoming, pending);
        *self.of_client.entry(client.ip()).or_default() += 1;
        self.bound(cx, relayed, client.ip());
        self.try_next(cx, relayed, incoming);
        true
    }

    /// Makes room by giving up those that have waited longest.
    fn bound(&mut self, cx: &mut Context<'_>, relayed: &mut Relayed, client: IpAddr) {
        let oldest = if self.of_client.get(&client).is_some_and(|n| *n > MOST_PENDING_OF_ONE) {
            self.pending.iter().find(|(_, p)| p.client.ip() == client).map(|(id, _)| *id)
        } else if self.pending.len() > MOST_PENDING {
            self.pending.keys().next().copied()
        } else {
            None
        };
        if let Some(incoming) = oldest {
            self.give_up(cx, relayed, incoming, Some(RefuseWith::Silence));
        }
    }

    /// Makes the next attempt; with none left, and none running, the client gets the answer.
    fn try_next(&mut self, cx: &mut Context<'_>, relayed: &mut Relayed, incoming: IncomingId) {
        let Some(p) = self.pending.get_mut(&incoming) else { return };
        if let Some(at) = p.next.take() {
            self.due.remove(&(at, incoming));
        }
        while let Some(Way { local, remote, wanted, path: _ }) = p.waiting.pop_front() {
            let Some(rule) = self.rules.get(&p.listener) else { return };
            let mut options = ConnectOptions::new(remote).with_config(rule.connect.clone());
            if wanted.is_some() {
                // A relay that is slow is not asked twice: see `StreamBuilder::begin`.
                options.config.fast_open = p.running.is_empty();
            }
            options.local_address = Some(local.ip());
            options.local_port = local.port();
            if let Onward::In { path, .. } = rule.onward {
                options.paths = vec![path];
                // A server that asks whether it speaks MPTCP hears the truth about its client.
                options.config.mptcp = p.mptcp;
            }
            match cx.stack.connect(cx.now, options) {
                Ok(id) => {
                    p.running.push(id);
                    self.attempts.insert(id, incoming);
                    if let Some(wanted) = wanted {
                        relayed.ask(cx, id, wanted);
                    }
                    if !p.waiting.is_empty() {
                        let at = cx.now + ATTEMPT_DELAY;
                        p.next = Some(at);
                        self.due.insert((at, incoming));
                    }
                    return;
                }
                Err(error) => p.error = Some(p.error.take().unwrap_or(Failure::Local(error))),
            }
        }
        if p.running.is_empty() && p.held.is_some() {
            // Nobody else has an answer.
            let at = cx.now;
            self.hold_until(incoming, at);
            return;
        }
        if p.running.is_empty() {
            let failure = p.error.clone().unwrap_or(Failure::Local(ConnectError::NoPath(p.wanted.ip())));
            self.fail(cx, relayed, incoming, &failure);
        }
    }

    /// There is no way onward.
    fn fail(&mut self, cx: &mut Context<'_>, relayed: &mut Relayed, incoming: IncomingId, failure: &Failure) {
        if let Some(p) = self.pending.get(&incoming)
            && let Some(rule) = self.rules.get(&p.listener)
        {
            tracing::debug!(client = %p.client, to = %p.wanted, error = %failure, "no way onward");
            rule.shared.on_failed(p.tag, &failure.to_string());
        }
        self.give_up(cx, relayed, incoming, Some(failure.refusal()));
    }

    /// Forgets a captured connection, and what was tried for it. With `answer`, its client is told.
    fn give_up(
        &mut self,
        cx: &mut Context<'_>,
        relayed: &mut Relayed,
        incoming: IncomingId,
        answer: Option<RefuseWith>,
    ) {
        let Some(p) = self.take(incoming) else { return };
        for id in p.running.into_iter().chain(p.held.map(|(id, _)| id)) {
            self.end_attempt(cx, relayed, id);
        }
        if let Some(with) = answer {
            cx.stack.refuse(cx.now, incoming, with);
        }
    }

    fn take(&mut self, incoming: IncomingId) -> Option<Pending> {
        let p = self.pending.remove(&incoming)?;
        if let Some(at) = p.next {
            self.due.remove(&(at, incoming));
        }
        if let Some((_, at)) = p.held {
            self.due.remove(&(at, incoming));
        }
        if let Some(n) = self.of_client.get_mut(&p.client.ip()) {
            *n -= 1;
            if *n == 0 {
                self.of_client.remove(&p.client.ip());
            }
        }
        Some(p)
    }

    fn end_attempt(&mut self, cx: &mut Context<'_>, relayed: &mut Relayed, id: ConnectionId) {
        self.attempts.remove(&id);
        relayed.forget(id);
        cx.stack.abort(cx.now, id);
        cx.stack.close(cx.now, id);
    }

    /// The client of a captured connection has given up. False: it is none of a rule.
    pub(super) fn on_incoming_gone(
        &mut self,
        cx: &mut Context<'_>,
        relayed: &mut Relayed,
        incoming: IncomingId,
    ) -> bool {
        let known = self.pending.contains_key(&incoming);
        self.give_up(cx, relayed, incoming, None);
        known
    }

    /// An attempt has reached the relay, which is asked no second time: what else there is is given up.
    pub(super) fn on_reached(&mut self, cx: &mut Context<'_>, relayed: &mut Relayed, id: ConnectionId) {
        let Some(incoming) = self.attempts.get(&id).copied() else { return };
        let Some(p) = self.pending.get_mut(&incoming) else { return };
        if let Some(at) = p.next.take() {
            self.due.remove(&(at, incoming));
        }
        p.waiting.clear();
        if let Some((held, at)) = p.held.take() {
            self.due.remove(&(at, incoming));
            if held != id {
                p.running.push(held);
            }
        }
        for other in std::mem::replace(&mut p.running, vec![id]) {
            if other != id {
                self.end_attempt(cx, relayed, other);
            }
        }
    }

    /// Others may answer until then in the place of the one that is held.
    fn hold_until(&mut self, incoming: IncomingId, until: Instant) {
        if let Some((_, at)) = self.pending.get_mut(&incoming).and_then(|p| p.held.as_mut()) {
            self.due.remove(&(*at, incoming));
            *at = until;
            self.due.insert((until, incoming));
        }
    }

    /// The other attempts for the same captured connection.
    pub(super) fn rivals_of(&self, id: ConnectionId) -> Vec<ConnectionId> {
        let pending = self.attempts.get(&id).and_then(|incoming| self.pending.get(incoming));
        let all =
            pending.into_iter().flat_map(|p| p.running.iter().copied().chain(p.held.map(|(held, _)| held)));
        all.filter(|other| *other != id).collect()
    }

    /// A connection to a relay has come without MPTCP: it is held while the same is tried inside UDP. False: it is none of
    /// ours, or another one is held already.
    pub(super) fn hold_relayed(
        &mut self,
        cx: &mut Context<'_>,
        relayed: &mut Relayed,
        id: ConnectionId,
    ) -> bool {
        let Some(incoming) = self.attempts.get(&id).copied() else { return false };
        let Some(p) = self.pending.get_mut(&incoming) else { return false };
        p.running.retain(|running| *running != id);
        if p.held.is_some() {
            // One of them is enough, should nothing come of it.
            self.end_attempt(cx, relayed, id);
            return true;
        }
        let until = cx.now + HOLD;
        p.held = Some((id, until));
        self.due.insert((until, incoming));
        self.prefer_stand_in(cx, incoming, id);
        self.try_next(cx, relayed, incoming);
        true
    }

    /// The way inside UDP over the NIC of attempt `id` is tried next.
    fn prefer_stand_in(&mut self, cx: &Context<'_>, incoming: IncomingId, id: ConnectionId) {
        let Some(p) = self.pending.get_mut(&incoming) else { return };
        let (Some(native), Some(info)) = (Trust::path(cx, id), cx.stack.info(id)) else { return };
        let stands_in = |way: &Way| {
            way.remote == info.remote && way.path.is_some_and(|path| cx.stack.is_stand_in_of(path, native))
        };
        if let Some(at) = p.waiting.iter().position(stands_in)
            && let Some(way) = p.waiting.remove(at)
        {
            p.waiting.push_front(way);
        }
    }

    /// Connections to relays that were held, and are asked now for want of better ones.
    pub(super) fn take_unopposed(&mut self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.unopposed)
    }

    /// A connection onward stands: the captured one is answered and joined with it, unless the answer is doubtful and
    /// another path can be asked. False: it is none of ours.
    pub(super) fn on_connected(
        &mut self,
        cx: &mut Context<'_>,
        relayed: &mut Relayed,
        splices: &mut Splices,
        trust: &mut Trust,
        Onwards { id, doubtful }: Onwards,
    ) -> bool {
        let Some(incoming) = self.attempts.get(&id).copied() else { return false };
        let Some(p) = self.pending.get_mut(&incoming) else { return false };
        match p.held {
            Some((other, _)) if doubtful && Trust::is_stripped(cx, other) => {
                // That another path strips it, too, says nothing new.
                p.running.retain(|running| *running != id);
                self.end_attempt(cx, relayed, id);
                return true;
            }
            Some((other, _)) if doubtful => {
                // What two paths say is true. The server knows the first longer.
                trust.on_agreed(cx, [id, other]);
                self.join(cx, relayed, splices, incoming, other);
                return true;
            }
            Some((other, _)) if Trust::are_of_one_nic(cx, [other, id]) => {}
            Some((other, _)) if Trust::is_mptcp(cx, id) => trust.on_contradicted(cx, other),
            None if doubtful && (p.running.len() > 1 || !p.waiting.is_empty()) => {
                p.running.retain(|running| *running != id);
                let until = cx.now + HOLD;
                p.held = Some((id, until));
                self.due.insert((until, incoming));
                if Trust::is_stripped(cx, id) {
                    self.prefer_stand_in(cx, incoming, id);
                }
                self.try_next(cx, relayed, incoming);
                return true;
            }
            _ => {}
        }
        self.join(cx, relayed, splices, incoming, id);
        true
    }

    /// Answers the captured connection and joins it with this one.
    fn join(
        &mut self,
        cx: &mut Context<'_>,
        relayed: &mut Relayed,
        splices: &mut Splices,
        incoming: IncomingId,
        id: ConnectionId,
    ) {
        self.attempts.remove(&id);
        let Some(p) = self.take(incoming) else { return };
        let held = p.held.map(|(id, _)| id);
        for other in p.running.iter().chain(&held).filter(|other| **other != id) {
            self.end_attempt(cx, relayed, *other);
        }
        let Some(rule) = self.rules.get(&p.listener) else { return };
        match cx.stack.accept(cx.now, incoming, &rule.accept) {
            Ok(captured) => {
                let about = Forwarded {
                    direction: rule.direction(),
                    client: p.client,
                    server: p.wanted,
                    tag: p.tag,
                    mptcp: None,
                    up: 0,
                    down: 0,
                    failed: None,
                };
                rule.shared.on_joined(p.tag);
                let (listener, shared) = (p.listener, rule.shared.clone());
                if let Some(tag) = p.tag.filter(|tag| shared.is_counted(*tag)) {
                    let counting = Counting { tag, shared: shared.clone(), ended: false };
                    self.counted.insert([captured, id][outside(about.direction)], counting);
                }
                self.joined.insert(captured, Joined { listener, shared, about });
                splices.join(cx, [captured, id]);
            }
            Err(error) => {
                tracing::debug!(client = %p.client, %error, "a captured connection cannot be accepted");
                cx.stack.refuse(cx.now, incoming, RefuseWith::Silence);
                self.end_attempt(cx, relayed, id);
            }
        }
    }

    /// An attempt has failed. False: it is none of ours.
    pub(super) fn on_ended(
        &mut self,
        cx: &mut Context<'_>,
        relayed: &mut Relayed,
        id: ConnectionId,
        error: Option<ConnectionError>,
    ) -> bool {
        let Some(incoming) = self.attempts.remove(&id) else { return false };
        let info = cx.stack.info(id);
        let native = info.as_ref().and_then(|info| path_at(cx, info.local.ip()));
        let remote = info.map(|info| info.remote);
        cx.stack.close(cx.now, id);
        if let Some(p) = self.pending.get_mut(&incoming) {
            p.running.retain(|running| *running != id);
            if let Some((_, at)) = p.held.take_if(|(held, _)| *held == id) {
                self.due.remove(&(at, incoming));
            }
            let error = error.unwrap_or(ConnectionError::Reset);
            let failure = Failure::Remote(error);
            let others_of_relay = p.waiting.iter().any(|way| way.wanted.is_some())
                || p.running.iter().any(|other| relayed.has(*other));
            if error == ConnectionError::Refused && others_of_relay {
                // That was one address of a relay, which says nothing about the server.
                // Inside UDP it is another, if something on the way refused it for its options.
                let stands_in = |way: &Way| {
                    native.zip(way.path).is_some_and(|(native, path)| cx.stack.is_stand_in_of(path, native))
                };
                p.waiting.retain(|way| Some(way.remote) != remote || stands_in(way));
                if let Some((native, remote)) = native.zip(remote).filter(|_| p.waiting.iter().any(stands_in))
                {
                    cx.stack.native_failed(cx.now, native, remote, NativeTrouble::Swallowed);
                }
                p.error = Some(failure);
                self.try_next(cx, relayed, incoming);
            } else if error == ConnectionError::Refused && p.held.is_none() {
                // By the peer, whatever path leads to it.
                self.fail(cx, relayed, incoming, &failure);
            } else {
                p.error = Some(failure);
                self.try_next(cx, relayed, incoming);
            }
        }
        true
    }

    /// A subflow of a connection has ended, which was over a path of that name.
    pub(super) fn on_subflow_closed(&mut self, id: ConnectionId, path: Option<&str>, traffic: Traffic) {
        let Some(counting) = self.counted.get(&id) else { return };
        if let Some(path) = path {
            counting.shared.on_carried(counting.tag, path, traffic);
        }
        if counting.ended {
            self.over.push(id);
        }
    }

    /// Forgets connections whose pair has ended and that have no subflows any more. The ends of these have all been
    /// reported now.
    fn forget_over(&mut self, cx: &Context<'_>) {
        for id in std::mem::take(&mut self.over) {
            if cx.stack.subflows(id).is_empty() {
                self.counted.remove(&id);
            }
        }
    }

    /// What became of the connections of a rule with that tag. `name` knows the names of paths.
    pub(super) fn counted<'a>(
        &self,
        cx: &Context<'_>,
        splices: &Splices,
        (listener, tag): (ListenerId, u64),
        name: impl Fn(PathId) -> Option<&'a str>,
    ) -> Option<Counted> {
        let shared = &self.rules.get(&listener)?.shared;
        let mut counted = shared.counted(tag)?;
        counted.open = self.describe(cx, splices, listener);
        counted.open.retain(|connection| connection.tag == Some(tag));
        let ours = self.counted.iter().filter(|(_, c)| c.tag == tag && Arc::ptr_eq(&c.shared, shared));
        for subflow in ours.flat_map(|(id, _)| cx.stack.subflows(*id)) {
            if let Some(path) = name(subflow.path) {
                counted.add(path, Traffic::new(subflow.bytes_sent, subflow.bytes_received));
            }
        }
        Some(counted)
    }

    /// A pair has ended.
    pub(super) fn on_pair_ended(&mut self, ended: Ended) {
        let Some(Joined { shared, mut about, .. }) = self.joined.remove(&ended.ids[0]) else { return };
        let outer = ended.ids[outside(about.direction)];
        if let Some(counting) = self.counted.get_mut(&outer) {
            counting.ended = true;
            // The ends of its subflows are being reported, perhaps.
            self.over.push(outer);
        }
        [about.up, about.down] = ended.outcome.moved;
        about.mptcp = ended.mptcp[outside(about.direction)];
        about.failed = ended.outcome.error.map(|(_, error)| error);
        shared.on_ended(about);
    }

    /// When the next attempt is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Makes the attempts that are due.
    pub(super) fn on_time(
        &mut self,
        cx: &mut Context<'_>,
        relayed: &mut Relayed,
        splices: &mut Splices,
        trust: &mut Trust,
    ) {
        self.forget_over(cx);
        while let Some((at, incoming)) = self.due.first().copied().filter(|(at, _)| *at <= cx.now) {
            self.due.remove(&(at, incoming));
            let Some(p) = self.pending.get_mut(&incoming) else { continue };
            if let Some((held, _)) = p.held.filter(|(_, until)| *until <= at) {
                if relayed.has(held) {
                    // The worker asks it.
                    p.held = None;
                    p.running.push(held);
                    self.unopposed.push(held);
                    continue;
                }
                let stripped = Trust::is_stripped(cx, held);
                trust.on_unopposed(cx, held, stripped);
                self.join(cx, relayed, splices, incoming, held);
                continue;
            }
            p.next = None;
            self.try_next(cx, relayed, incoming);
        }
    }

    /// What has been joined and goes on, with what has passed so far.
    pub(super) fn describe(
        &self,
        cx: &Context<'_>,
        splices: &Splices,
        listener: ListenerId,
    ) -> Vec<Forwarded> {
        let of_it = self.joined.iter().filter(|(_, joined)| joined.listener == listener);
        let describe = |(id, joined): (&ConnectionId, &Joined)| {
            let (ids, [up, down]) = splices.look(*id)?;
            let outer = cx.stack.info(ids[outside(joined.about.direction)]);
            let mptcp = outer.and_then(|info| spoken(&info.mptcp));
            Some(Forwarded { mptcp, up, down, ..joined.about.clone() })
        };
        of_it.filter_map(describe).collect()
    }
}

/// Which of a pair is the side outside: the first was accepted, the second dialled.
fn outside(direction: Direction) -> usize {
    match direction {
        Direction::Out => 1,
        Direction::In => 0,
    }
}

/// The ways onward for a captured connection, best first.
fn ways(cx: &Context<'_>, rule: &Rule, client: SocketAddr, wanted: SocketAddr) -> VecDeque<Way> {
    match &rule.onward {
        Onward::Out => match rule.via.as_ref().filter(|via| via.takes(wanted)) {
            None => outward(cx, wanted, None).collect(),
            Some(via) => {
                let Some(asked) = Wanted::new(via, wanted) else { return VecDeque::new() };
                via.relay().iter().flat_map(|relay| outward(cx, *relay, Some(&asked))).collect()
            }
        },
        Onward::In { addresses, .. } => {
            let inside = addresses.iter().find(|a| a.is_ipv4() == client.is_ipv4());
            // A client on this host has an address that the server's side has, too, or takes for this host's: answers
            // would not come here. It comes from the address that it has reached.
            let of_nic = |id| cx.stack.path(id).is_some_and(|path| path.advertise.contains(&client.ip()));
            let is_own = addresses.contains(&client.ip()) || cx.paths().into_iter().any(of_nic);
            let local = if is_own { SocketAddr::new(wanted.ip(), client.port()) } else { client };
            let way = |address: &IpAddr| Way {
                local,
                remote: SocketAddr::new(*address, wanted.port()),
                path: None,
                wanted: None,
            };
            inside.map(way).into_iter().collect()
        }
    }
}

/// To `remote` by each path that leads outside.
fn outward<'a>(
    cx: &'a Context<'_>,
    remote: SocketAddr,
    wanted: Option<&'a Wanted>,
) -> impl Iterator<Item = Way> + 'a {
    let up = move |id: &PathId| !cx.stack.is_path_down(*id, remote.ip());
    let outside = move |id: &PathId| cx.stack.path(*id).is_some_and(|path| path.kind != PathKind::Capture);
    let all: Vec<PathId> = cx.paths().into_iter().filter(up).filter(outside).collect();
    cx.stack.ways_to(cx.now, remote, &all).into_iter().filter_map(move |id| {
        let path = cx.stack.path(id)?;
        let local = path.addresses.iter().find(|a| a.is_ipv4() == remote.is_ipv4())?;
        Some(Way { local: SocketAddr::new(*local, 0), remote, path: Some(id), wanted: wanted.cloned() })
    })
}

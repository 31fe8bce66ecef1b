//! Making connections.

use crate::addresses;
use crate::attempt::Attempt;
use crate::attempts::{ATTEMPT_DELAY, in_turn};
use crate::error::{Error, NoWay};
use crate::handle::Handle;
use crate::settings::connection_settings;
use crate::shared::{Phase, deadline};
use crate::stack::Stack;
use crate::stream::MptcpStream;
use crate::via::{Via, is_of_server};
use crate::waits::{Blocking, Waits, block_on};
use crate::worker::{Accepted, Command, Context, HOLD, Wanted, Worker, in_order};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};
use umptcp_convert::ConnectName;
use umptcp_relay::Request;
use umptcp_stack_core::config::{ConnectOptions, ConnectionConfig, Ecn};
use umptcp_stack_core::error::{ConnectError, ConnectionError};
use umptcp_types::{ConnectionId, PathId};

/// How long addresses that are reached directly may take while others are reached by a relay: as long as three SYNs.
const DIRECT_FIRST: Duration = Duration::from_secs(5);

/// Settings for a new connection.
///
/// Starts from the stack's defaults.
#[derive(Clone, Debug)]
pub struct StreamBuilder {
    handle: Handle,
    paths: Vec<PathId>,
    local_address: Option<IpAddr>,
    local_port: u16,
    timeout: Option<Duration>,
    config: ConnectionConfig,
    via: Option<Via>,
}

impl StreamBuilder {
    pub(crate) fn new(handle: Handle) -> Self {
        let config = handle.defaults();
        let via = handle.via.clone();
        StreamBuilder {
            handle,
            paths: Vec::new(),
            local_address: None,
            local_port: 0,
            timeout: None,
            config,
            via,
        }
    }

    connection_settings!();

    /// Paths to use, preferably the first one for the initial subflow. All paths if not set.
    pub fn paths(mut self, paths: impl IntoIterator<Item = PathId>) -> Self {
        self.paths = paths.into_iter().collect();
        self
    }

    /// Local address and port of the initial subflow. The stack chooses an unspecified address, or port 0,
    /// itself.
    pub fn local(mut self, local: SocketAddr) -> Self {
        self.local_address = Some(local.ip().to_canonical()).filter(|a| !a.is_unspecified());
        self.local_port = local.port();
        self
    }

    /// Whether to use TCP Fast Open (RFC 7413; the socket option TCP_FASTOPEN_CONNECT). The first connection
    /// to a server asks it for a cookie. Later connections of this stack are returned before anything is
    /// sent: the SYN carries the first data written, which saves a round trip. If the server cannot be
    /// reached, reading or writing reports it.
    ///
    /// If the network duplicates the SYN, the server may receive its data twice. Use only for idempotent
    /// requests.
    pub fn fast_open(mut self, on: bool) -> Self {
        self.config.fast_open = on;
        self
    }

    /// Makes the connection by a relay, or, with `None`, by none, whatever the stack's is
    /// ([`StackBuilder::via`](crate::StackBuilder::via)).
    ///
    /// Servers of several addresses are tried one after the other, as the relay answers.
    pub fn via(mut self, relay: impl Into<Option<Via>>) -> Self {
        self.via = relay.into();
        self
    }

    /// The relay by which connections are made, if there is one.
    pub fn relay(&self) -> Option<&Via> {
        self.via.as_ref()
    }

    /// How long to wait for the connection to be established, however many addresses are tried.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Connects. Of several addresses of the peer and several paths, another pair is tried whenever one has
    /// failed, or not answered within 250 ms; the first that succeeds stays and the others are aborted (RFC
    /// 8305). The peer may thus see connections that are reset at once.
    ///
    /// Where the answer over a path lacks MPTCP, and no other has come over it lately, another path is asked, too, for up to
    /// a second: something on the first may have answered in the place of the peer, as captive portals do.
    ///
    /// # Errors
    /// That of the attempt that failed last; [`io::ErrorKind::TimedOut`] when none has succeeded or failed
    /// within the time limit.
    pub fn connect(self, address: impl ToSocketAddrs) -> io::Result<MptcpStream> {
        let blocking = Blocking::default();
        block_on(&blocking, self.connect_by(address.to_socket_addrs()?, &blocking))
    }

    /// Connects. If the future is dropped, every attempt is aborted.
    pub(crate) async fn connect_by(
        &self,
        addresses: impl Iterator<Item = SocketAddr>,
        waits: &impl Waits,
    ) -> io::Result<MptcpStream> {
        let remotes = in_turn(addresses);
        if remotes.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name has no address"));
        }
        let end = deadline(self.timeout);
        let by_relay = |server: &SocketAddr| self.via.as_ref().is_some_and(|via| via.takes(*server));
        let (relayed, direct): (Vec<_>, Vec<_>) = remotes.into_iter().partition(by_relay);
        let mut last = None;
        if !direct.is_empty() {
            // What is left of the time is the relay's.
            let until = if relayed.is_empty() { end } else { Some(half_way(Instant::now(), end)) };
            match Race::new(self, waits, direct, None).run(until).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        for (server, via) in relayed.into_iter().filter_map(|server| Some((server, self.via.as_ref()?))) {
            let Some(wanted) = Wanted::new(via, server) else {
                // What another address has said is of more use.
                last = last.or(Some(Error::NotByRelay { remote: server }));
                continue;
            };
            match Race::new(self, waits, via.relay().to_vec(), Some(wanted)).run(end).await {
                Ok(stream) => return Ok(stream),
                // Another address of the server may be better.
                Err(error @ Error::Connection { remote, .. }) if remote == server => last = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        Err(last.unwrap_or(Error::Stopped).into())
    }

    /// Connects to a server by its name, which the relay resolves if it is to ([`Via::resolve`]), and else this
    /// host. What is [excepted](Via::except) is so by address: a name that the relay resolves is not.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect). [`io::ErrorKind::InvalidInput`]: it is no name of a host.
    /// [`io::ErrorKind::Unsupported`] with [`Error::Relay`] where the relay finds no address of it, or resolves none.
    pub fn connect_name(self, host: &str, port: u16) -> io::Result<MptcpStream> {
        let blocking = Blocking::default();
        match self.asks_for(host, port) {
            Some(wanted) => block_on(&blocking, self.elsewhere(wanted, &blocking)),
            None => self.connect((host, port)),
        }
    }

    /// What a relay that resolves names is asked for; `None`: this host does.
    pub(crate) fn asks_for(&self, host: &str, port: u16) -> Option<Request> {
        self.via.as_ref().filter(|via| via.resolves() && host.parse::<IpAddr>().is_err())?;
        Some(Request::ConnectName(ConnectName { host: host.to_owned(), port }))
    }

    /// A connection to the [relay](Self::via) that becomes one with whoever comes in next at this port of the relay. It stands
    /// when the relay listens there. What is read of it first is a message of RFC 8803 with a Connect TLV that says who
    /// has come; what follows is his.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect); [`io::ErrorKind::PermissionDenied`] when this client may not have the port,
    /// and [`io::ErrorKind::InvalidInput`] without a relay.
    pub fn publish(self, port: u16) -> io::Result<MptcpStream> {
        let blocking = Blocking::default();
        block_on(&blocking, self.elsewhere(Request::Publish(port), &blocking))
    }

    /// Asks the relay for what only it knows the address of.
    pub(crate) async fn elsewhere(&self, request: Request, waits: &impl Waits) -> io::Result<MptcpStream> {
        let port = match &request {
            Request::ConnectName(name) => name.port,
            Request::Publish(port) => *port,
            _ => 0,
        };
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
        let via = self.via.as_ref().ok_or_else(|| invalid("there is no relay"))?;
        let wanted = Wanted::elsewhere(via, request, port);
        let wanted = wanted.ok_or_else(|| invalid("this is no name of a host"))?;
        let race = Race::new(self, waits, via.relay().to_vec(), Some(wanted));
        Ok(race.run(deadline(self.timeout)).await?)
    }

    /// Starts one attempt beside `rivals`.
    async fn begin(
        &self,
        waits: &impl Waits,
        candidate: Candidate,
        rivals: Vec<ConnectionId>,
        wanted: Option<&Wanted>,
    ) -> Result<Attempt, Error> {
        let Candidate { remote, local } = candidate;
        if self.handle.nics.upgrade().is_some() && addresses::is_this_host(remote.ip()) {
            let own = if remote.ip().is_loopback() { NoWay::Loopback } else { NoWay::OwnAddress };
            return Err(Error::NoWay { remote, reason: own });
        }
        let mut options = ConnectOptions::new(remote).with_config(self.config.clone());
        options.paths.clone_from(&self.paths);
        options.local_address = local;
        options.local_port = self.local_port;
        // A relay is asked by one connection only, and is in doubt where a path inside UDP may get MPTCP.
        let may_doubt = self.local_address.is_none() && self.paths.len() != 1;
        if wanted.is_some() {
            // A relay takes a request once, however often a SYN with it comes. While another attempt may have reached it,
            // this one asks when its handshake is complete, and is the only one then.
            options.config.fast_open = rivals.is_empty();
        }
        // Made there, so that none is left over when nobody waits for it any more.
        let begin = || {
            let (options, rivals, commands) = (options.clone(), rivals.clone(), self.handle.commands.clone());
            let wanted = wanted.cloned();
            move |worker: &mut Worker, cx: &mut Context<'_>| {
                let (id, shared) = worker.connect(cx, options, &rivals, may_doubt, wanted)?;
                Ok(Attempt::new(commands, id, shared, (remote, local)))
            }
        };
        let result = waits.call(&self.handle.commands, begin()).await?;
        match self.handle.nics.upgrade() {
            Some(nics) if is_no_port(&result) => {
                // One at a time: who comes second finds the ports that the first has fetched.
                let mut fetching = nics.fetching_ports();
                let again = self.handle.commands.call(begin())?;
                if !is_no_port(&again) {
                    return again;
                }
                let range = fetching.more().map_err(|reason| Error::NoPort { remote, reason })?;
                self.handle.commands.call(move |_, cx| cx.stack.add_ephemeral_ports(range))?;
                self.handle.commands.call(begin())?
            }
            _ => result,
        }
    }

    /// Local addresses that a connection to `remote` may start from, the preferred one first; at most `most`.
    /// None: the stack will say why.
    async fn locals(
        &self,
        waits: &impl Waits,
        remote: SocketAddr,
        most: usize,
    ) -> Result<Vec<IpAddr>, Error> {
        if let Some(chosen) = self.local_address {
            return Ok(vec![chosen]);
        }
        if self.paths.is_empty()
            && let Some(nics) = self.handle.nics.upgrade()
        {
            // The first path may not have a route to the peer.
            if !nics.has_stand_ins() {
                return Ok(nics.addresses_towards(remote.ip(), most));
            }
            let all = nics.addresses_towards(remote.ip(), usize::MAX);
            let order = move |_: &mut Worker, cx: &mut Context<'_>| in_order(cx, remote, &all);
            let mut ordered = waits.call(&self.handle.commands, order).await?;
            ordered.truncate(most);
            return Ok(ordered);
        }
        let paths = self.paths.clone();
        let find = move |_: &mut Worker, cx: &mut Context<'_>| {
            let paths = if paths.is_empty() { cx.paths() } else { paths };
            let on = |path: &PathId| {
                let addresses = &cx.stack.path(*path)?.addresses;
                addresses.iter().copied().find(|a| a.is_ipv4() == remote.is_ipv4())
            };
            let all: Vec<IpAddr> = paths.iter().filter_map(on).collect();
            in_order(cx, remote, &all).into_iter().take(most).collect()
        };
        waits.call(&self.handle.commands, find).await
    }

    /// Why an attempt failed.
    fn explain(&self, remote: SocketAddr, source: ConnectionError) -> Error {
        let nics = self.handle.nics.upgrade().filter(|_| matches!(source, ConnectionError::Unreachable(_)));
        let nics = nics.map(|n| n.without_route(remote.ip())).unwrap_or_default();
        if nics.is_empty() { Error::Connection { remote, source } } else { Error::NoRoute { remote, nics } }
    }
}

impl Stack {
    /// Connects to `address` with the default settings.
    pub fn connect(&self, address: impl ToSocketAddrs) -> io::Result<MptcpStream> {
        MptcpStream::connect(self, address)
    }
}

impl MptcpStream {
    /// Connects to `address` with the stack's default settings.
    pub fn connect(stack: &Stack, address: impl ToSocketAddrs) -> io::Result<MptcpStream> {
        Self::builder(stack).connect(address)
    }

    /// Settings for a connection.
    pub fn builder(stack: &Stack) -> StreamBuilder {
        StreamBuilder::new(stack.handle().clone())
    }
}

/// Until when addresses that are reached directly are tried when others are reached by a relay.
fn half_way(now: Instant, end: Option<Instant>) -> Instant {
    let half = end.map(|end| end.saturating_duration_since(now) / 2);
    now + half.map_or(DIRECT_FIRST, |half| half.min(DIRECT_FIRST))
}

/// Between which addresses to connect. Without a local one, the stack chooses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Candidate {
    remote: SocketAddr,
    local: Option<IpAddr>,
}

/// All pairs of addresses, where each remote one comes with another local one as long as possible.
fn pairs(remotes: &[(SocketAddr, Vec<IpAddr>)]) -> Vec<Candidate> {
    let rounds = remotes.iter().map(|(_, locals)| locals.len().max(1)).max().unwrap_or(0);
    let mut all = Vec::new();
    for round in 0..rounds {
        for (i, (remote, locals)) in remotes.iter().enumerate() {
            if round < locals.len().max(1) {
                let local = (!locals.is_empty()).then(|| locals[(i + round) % locals.len()]);
                all.push(Candidate { remote: *remote, local });
            }
        }
    }
    all
}

/// Attempts at one connection, of which the first to succeed stays.
struct Race<'a, W> {
    builder: &'a StreamBuilder,
    waits: &'a W,
    remotes: Vec<SocketAddr>,
    /// What these are asked for, which are then a relay's.
    wanted: Option<Wanted>,
    /// What is to be tried yet. `None` until it is needed, because finding out takes time: mostly the first
    /// attempt succeeds.
    waiting: Option<VecDeque<Candidate>>,
    running: Vec<Attempt>,
    /// One whose answer is in doubt, and until when others may answer.
    held: Option<(Attempt, Instant)>,
    /// Who has refused the connection, and would again.
    refused: Vec<SocketAddr>,
    /// From where relays have refused it.
    refused_from: Vec<(IpAddr, SocketAddr)>,
    /// What is tried before the others that wait.
    preferred: Option<Candidate>,
    error: Option<Error>,
    /// The relay's, which is the last word.
    answer: Option<Error>,
}

impl<'a, W: Waits> Race<'a, W> {
    fn new(
        builder: &'a StreamBuilder,
        waits: &'a W,
        remotes: Vec<SocketAddr>,
        wanted: Option<Wanted>,
    ) -> Self {
        let (running, refused) = (Vec::new(), Vec::new());
        let (waiting, held, error, answer) = (None, None, None, None);
        let (refused_from, preferred) = (Vec::new(), None);
        Race {
            builder,
            waits,
            remotes,
            wanted,
            waiting,
            running,
            held,
            refused,
            refused_from,
            preferred,
            error,
            answer,
        }
    }

    /// Where the answer to the attempt that is held lacks MPTCP, and its server speaks it, the same is tried inside UDP next.
    async fn prefer_stand_in(&mut self) -> Result<(), Error> {
        let Some((id, remote)) = self.held.as_ref().map(|(held, _)| (held.id, held.remote)) else {
            return Ok(());
        };
        let find = move |worker: &mut Worker, cx: &mut Context<'_>| worker.stand_in_address(cx, id);
        if let Some(local) = self.waits.call(&self.builder.handle.commands, find).await? {
            self.preferred = Some(Candidate { remote, local: Some(local) });
        }
        Ok(())
    }

    /// A relay seems to have refused the connection. Something on the way may have done it, which inside UDP does not see
    /// what it is.
    async fn ask_inside_after_refusal(&mut self, local: IpAddr, remote: SocketAddr) -> Result<(), Error> {
        let find =
            move |worker: &mut Worker, cx: &mut Context<'_>| worker.stand_in_after_refusal(cx, local, remote);
        if let Some(local) = self.waits.call(&self.builder.handle.commands, find).await? {
            self.preferred = Some(Candidate { remote, local: Some(local) });
        }
        Ok(())
    }

    async fn first(&self) -> Result<Candidate, Error> {
        let remote = self.remotes[0];
        let local = self.builder.locals(self.waits, remote, 1).await?.first().copied();
        Ok(Candidate { remote, local })
    }

    /// The next pair to try, after the first.
    async fn next(&mut self) -> Result<Option<Candidate>, Error> {
        if self.waiting.is_none() {
            let mut all = Vec::new();
            for remote in &self.remotes {
                all.push((*remote, self.builder.locals(self.waits, *remote, usize::MAX).await?));
            }
            self.waiting = Some(pairs(&all).into_iter().skip(1).collect());
        }
        let Some(waiting) = &mut self.waiting else { return Ok(None) };
        if let Some(preferred) = self.preferred.take() {
            let before = waiting.len();
            waiting.retain(|candidate| *candidate != preferred);
            // It is tried once.
            if waiting.len() < before {
                return Ok(Some(preferred));
            }
        }
        waiting.retain(|candidate| !self.refused.contains(&candidate.remote));
        Ok(waiting.pop_front())
    }

    async fn run(mut self, end: Option<Instant>) -> Result<MptcpStream, Error> {
        let first = self.first().await?;
        self.start(first).await;
        // When to make the next attempt; `None`: there is none.
        let mut next = Some(Instant::now() + ATTEMPT_DELAY);
        loop {
            let (winner, doubt) = self.look();
            if let Some(winner) = winner {
                return Ok(MptcpStream::new(self.builder.handle.clone(), winner));
            }
            let now = Instant::now();
            if doubt {
                // Another path is asked at once.
                next = Some(now);
                self.prefer_stand_in().await?;
            }
            while let Some((local, remote)) = self.refused_from.pop() {
                self.ask_inside_after_refusal(local, remote).await?;
            }
            let is_late = end.is_some_and(|end| now >= end);
            let decided = |(attempt, until): &mut (Attempt, Instant)| {
                is_late || now >= *until || !attempt.shared.is_doubtful()
            };
            if let Some((attempt, _)) = self.held.take_if(decided)
                && let Some(winner) = self.take_held(attempt)
            {
                return Ok(MptcpStream::new(self.builder.handle.clone(), winner));
            }
            if end.is_some_and(|end| now >= end) {
                let asked = self.running.first().filter(|a| !a.shared.is_asked() || self.wanted.is_none());
                let server = self.wanted.as_ref().map_or(self.remotes[0], |wanted| wanted.server);
                let remote = asked.map_or(server, |attempt| attempt.remote);
                return Err(self.error.filter(from_network).unwrap_or(Error::ConnectTimeout { remote }));
            }
            if let Some(answer) = self.answer.take() {
                return Err(answer);
            }
            // A relay is asked once, however long it takes.
            let asked = self.running.iter().any(|attempt| attempt.shared.is_asked());
            let due = next.is_some_and(|at| asked || at <= now || self.running.is_empty());
            if due
                && !asked
                && let Some(candidate) = self.next().await?
            {
                self.start(candidate).await;
                next = Some(now + ATTEMPT_DELAY);
                continue;
            }
            if due {
                next = None;
            }
            if self.running.is_empty()
                && let Some((attempt, _)) = self.held.take()
            {
                // Nobody else has an answer.
                if let Some(winner) = self.take_held(attempt) {
                    return Ok(MptcpStream::new(self.builder.handle.clone(), winner));
                }
            }
            if self.running.is_empty() {
                // Each attempt that ends leaves its error.
                return Err(self.error.unwrap_or(Error::Stopped));
            }
            let held = self.held.as_ref().map(|(_, until)| *until);
            self.wait(next.into_iter().chain(end).chain(held).min()).await;
        }
    }

    /// Waits until an attempt has succeeded or failed, but no longer than until then.
    async fn wait(&self, until: Option<Instant>) {
        let mut time = pin!(self.waits.until(until));
        poll_fn(|cx| {
            // Each of those that run must know this task.
            let ended = self.running.iter().any(|attempt| attempt.shared.poll_handshake(cx).is_ready());
            if ended { Poll::Ready(()) } else { time.as_mut().poll(cx) }
        })
        .await;
    }

    async fn start(&mut self, candidate: Candidate) {
        let held = self.held.iter().map(|(attempt, _)| attempt);
        let rivals = self.running.iter().chain(held).map(|attempt| attempt.id).collect();
        match self.builder.begin(self.waits, candidate, rivals, self.wanted.as_ref()).await {
            Ok(attempt) => self.running.push(attempt),
            Err(error) => self.failed(error),
        }
    }

    fn failed(&mut self, error: Error) {
        if from_network(&error) || !self.error.as_ref().is_some_and(from_network) {
            self.error = Some(error);
        }
    }

    /// What a relay's answer means.
    fn answered(&self, attempt: &Attempt, source: ConnectionError) -> Error {
        let remote = self.wanted.as_ref().map_or(attempt.remote, |wanted| wanted.server);
        match attempt.shared.refusal() {
            Some(answer) if !is_of_server(answer) => {
                Error::Relay { relay: attempt.remote, remote, source: answer.clone() }
            }
            _ => Error::Connection { remote, source },
        }
    }

    /// Takes a connection whose answer is in doubt, for want of another.
    fn take_held(&mut self, attempt: Attempt) -> Option<Accepted> {
        if self.wanted.is_some() && attempt.shared.ask_on() {
            // By this one the relay is asked now.
            let id = attempt.id;
            let tell = Command::Run(Box::new(move |worker, cx| worker.on_unopposed(cx, id)));
            self.builder.handle.commands.send(tell);
            self.running.push(attempt);
            return None;
        }
        match attempt.shared.end_doubt() {
            Ok((local, remote)) => {
                // Where another has confirmed it, that says less.
                let id = attempt.id;
                let tell = Command::Run(Box::new(move |worker, cx| worker.on_unopposed(cx, id)));
                self.builder.handle.commands.send(tell);
                Some(attempt.won(local, remote))
            }
            Err(source) => {
                self.failed(self.builder.explain(attempt.remote, source));
                None
            }
        }
    }

    /// Removes the attempts that have failed. Returns one that has succeeded, and whether one is in doubt since.
    fn look(&mut self) -> (Option<Accepted>, bool) {
        let (mut winner, mut doubt) = (None, false);
        for attempt in std::mem::take(&mut self.running) {
            match attempt.shared.phase() {
                Phase::Connected { local, remote } if winner.is_none() => {
                    winner = Some(attempt.won(local, remote));
                }
                Phase::Doubtful { .. } if self.held.is_none() => {
                    doubt = true;
                    self.held = Some((attempt, Instant::now() + HOLD));
                }
                Phase::Connecting | Phase::Doubtful { .. } | Phase::Connected { .. } => {
                    self.running.push(attempt)
                }
                Phase::Failed(source) if attempt.shared.is_asked() => {
                    self.answer = Some(self.answered(&attempt, source));
                }
                Phase::Failed(source) => {
                    if source == ConnectionError::Refused {
                        self.refused.push(attempt.remote);
                        let from = attempt.local.filter(|_| self.wanted.is_some());
                        self.refused_from.extend(from.map(|local| (local, attempt.remote)));
                    }
                    self.failed(self.builder.explain(attempt.remote, source));
                }
            }
        }
        (winner, doubt)
    }
}

fn is_no_port<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Connect { source: ConnectError::NoPort(_), .. }))
}

/// Whether the error is an answer, which says more than that an attempt could not be made.
fn from_network(error: &Error) -> bool {
    !matches!(error, Error::Connect { .. } | Error::NoWay { .. } | Error::NoPort { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remotes(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| format!("{text}:80").parse().unwrap()).collect()
    }

    #[test]
    fn direct_addresses_leave_time_for_the_relay() {
        let now = Instant::now();
        let after = |limit: Option<u64>| {
            half_way(now, limit.map(|ms| now + Duration::from_millis(ms))).duration_since(now).as_millis()
        };
        assert_eq!([None, Some(60_000), Some(400), Some(0)].map(after), [5_000, 5_000, 200, 0]);
    }

    #[test]
    fn another_address_comes_by_another_path_first() {
        let all = remotes(&["192.0.2.1", "192.0.2.2", "[2001:db8::1]"]);
        let locals: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "10.1.0.1".parse().unwrap()];
        let order = pairs(&[(all[0], locals.to_vec()), (all[1], locals.to_vec()), (all[2], Vec::new())]);
        let at = |remote: usize, local: Option<usize>| Candidate {
            remote: all[remote],
            local: local.map(|local| locals[local]),
        };
        let expected = [at(0, Some(0)), at(1, Some(1)), at(2, None), at(0, Some(1)), at(1, Some(0))];
        assert_eq!(order, expected);
        assert_eq!(pairs(&[]), []);
    }
}

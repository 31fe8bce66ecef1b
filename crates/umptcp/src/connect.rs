//! Making connections.

use crate::addresses;
use crate::attempts::{ATTEMPT_DELAY, in_turn};
use crate::error::{Error, NoWay};
use crate::handle::Handle;
use crate::settings::connection_settings;
use crate::shared::{Phase, Shared, deadline};
use crate::stack::Stack;
use crate::stream::MptcpStream;
use crate::worker::{Accepted, Context, Worker};
use crossbeam_channel::Sender;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};
use umptcp_stack_core::config::{ConnectOptions, ConnectionConfig, Ecn};
use umptcp_stack_core::error::{ConnectError, ConnectionError};
use umptcp_types::{ConnectionId, PathId};

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
}

impl StreamBuilder {
    pub(crate) fn new(handle: Handle) -> Self {
        let config = (*handle.defaults).clone();
        StreamBuilder { handle, paths: Vec::new(), local_address: None, local_port: 0, timeout: None, config }
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

    /// How long to wait for the connection to be established, however many addresses are tried.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Connects. Of several addresses of the peer and several paths, another pair is tried whenever one has
    /// failed, or not answered within 250 ms; the first that succeeds stays and the others are aborted (RFC
    /// 8305). The peer may thus see connections that are reset at once.
    ///
    /// # Errors
    /// That of the attempt that failed last; [`io::ErrorKind::TimedOut`] when none has succeeded or failed within
    /// the time limit.
    pub fn connect(self, address: impl ToSocketAddrs) -> io::Result<MptcpStream> {
        let remotes = in_turn(address.to_socket_addrs()?);
        if remotes.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name has no address"));
        }
        Ok(Race::new(&self, remotes).run()?)
    }

    /// Starts one attempt beside `rivals`.
    fn begin(
        &self,
        candidate: Candidate,
        watcher: Sender<()>,
        rivals: Vec<ConnectionId>,
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
        let attempt = || {
            let (options, watcher, rivals) = (options.clone(), watcher.clone(), rivals.clone());
            self.handle.commands.call(move |worker, cx| worker.connect(cx, options, watcher, &rivals))?
        };
        let mut result = attempt();
        if is_no_port(&result)
            && let Some(nics) = self.handle.nics.upgrade()
        {
            // One at a time: who comes second finds the ports that the first has fetched.
            let mut fetching = nics.fetching_ports();
            result = attempt();
            if is_no_port(&result) {
                let range = fetching.more().map_err(|e| Error::NoPort { remote, reason: e.to_string() })?;
                self.handle.commands.call(move |_, cx| cx.stack.add_ephemeral_ports(range))?;
                result = attempt();
            }
        }
        let (id, shared) = result?;
        Ok(Attempt { id, shared, remote })
    }

    /// Local addresses that a connection to `remote` may start from, the preferred one first; at most `most`.
    /// None: the stack will say why.
    fn locals(&self, remote: IpAddr, most: usize) -> Result<Vec<IpAddr>, Error> {
        if let Some(chosen) = self.local_address {
            return Ok(vec![chosen]);
        }
        if self.paths.is_empty()
            && let Some(nics) = self.handle.nics.upgrade()
        {
            // The first path may not have a route to the peer.
            return Ok(nics.addresses_towards(remote, most));
        }
        let paths = self.paths.clone();
        self.handle.commands.call(move |_, cx| {
            let paths = if paths.is_empty() { cx.paths() } else { paths };
            let on = |path: &PathId| {
                let addresses = &cx.stack.path(*path)?.addresses;
                addresses.iter().copied().find(|a| a.is_ipv4() == remote.is_ipv4())
            };
            paths.iter().filter_map(on).take(most).collect()
        })
    }

    /// Why an attempt failed.
    fn explain(&self, remote: SocketAddr, source: ConnectionError) -> Error {
        let nics = self.handle.nics.upgrade().filter(|_| source == ConnectionError::Unreachable);
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

/// A connection that is being established.
struct Attempt {
    id: ConnectionId,
    shared: Arc<Shared>,
    remote: SocketAddr,
}

/// Attempts at one connection, of which the first to succeed stays.
struct Race<'a> {
    builder: &'a StreamBuilder,
    remotes: Vec<SocketAddr>,
    /// What is to be tried yet. `None` until it is needed, because finding out takes time: mostly the first
    /// attempt succeeds.
    waiting: Option<VecDeque<Candidate>>,
    running: Vec<Attempt>,
    /// Who has refused the connection, and would again.
    refused: Vec<SocketAddr>,
    error: Option<Error>,
}

impl<'a> Race<'a> {
    fn new(builder: &'a StreamBuilder, remotes: Vec<SocketAddr>) -> Self {
        Race { builder, remotes, waiting: None, running: Vec::new(), refused: Vec::new(), error: None }
    }

    fn first(&self) -> Result<Candidate, Error> {
        let remote = self.remotes[0];
        let local = self.builder.locals(remote.ip(), 1)?.first().copied();
        Ok(Candidate { remote, local })
    }

    /// The next pair to try, after the first.
    fn next(&mut self) -> Result<Option<Candidate>, Error> {
        let waiting = match &mut self.waiting {
            Some(waiting) => waiting,
            None => {
                let with_locals = |remote: &SocketAddr| {
                    self.builder.locals(remote.ip(), usize::MAX).map(|locals| (*remote, locals))
                };
                let all: Result<Vec<_>, Error> = self.remotes.iter().map(with_locals).collect();
                self.waiting.insert(pairs(&all?).into_iter().skip(1).collect())
            }
        };
        waiting.retain(|candidate| !self.refused.contains(&candidate.remote));
        Ok(waiting.pop_front())
    }

    fn run(mut self) -> Result<MptcpStream, Error> {
        let end = deadline(self.builder.timeout);
        // Kept, so that the other side never ends.
        let (watcher, told) = crossbeam_channel::unbounded();
        let first = self.first()?;
        self.start(first, &watcher);
        // When to make the next attempt; `None`: there is none.
        let mut next = Some(Instant::now() + ATTEMPT_DELAY);
        loop {
            if let Some(winner) = self.look() {
                return self.won(winner);
            }
            let now = Instant::now();
            if end.is_some_and(|end| now >= end) {
                let remote = self.running.first().map_or(self.remotes[0], |attempt| attempt.remote);
                self.abort_all();
                return Err(self.error.filter(from_network).unwrap_or(Error::ConnectTimeout { remote }));
            }
            let due = next.is_some_and(|at| at <= now || self.running.is_empty());
            if due && let Some(candidate) = self.next()? {
                self.start(candidate, &watcher);
                next = Some(now + ATTEMPT_DELAY);
                continue;
            }
            if due {
                next = None;
            }
            if self.running.is_empty() {
                // Each attempt that ends leaves its error.
                return Err(self.error.unwrap_or(Error::Stopped));
            }
            let _ = match next.into_iter().chain(end).min() {
                Some(until) => told.recv_deadline(until).ok(),
                None => told.recv().ok(),
            };
        }
    }

    fn start(&mut self, candidate: Candidate, watcher: &Sender<()>) {
        let rivals = self.running.iter().map(|attempt| attempt.id).collect();
        match self.builder.begin(candidate, watcher.clone(), rivals) {
            Ok(attempt) => self.running.push(attempt),
            Err(error) => self.failed(error),
        }
    }

    fn failed(&mut self, error: Error) {
        if from_network(&error) || !self.error.as_ref().is_some_and(from_network) {
            self.error = Some(error);
        }
    }

    /// Removes the attempts that have failed. Returns one that has succeeded.
    fn look(&mut self) -> Option<Accepted> {
        let mut winner = None;
        for attempt in std::mem::take(&mut self.running) {
            match attempt.shared.phase() {
                Phase::Connected { local, remote } if winner.is_none() => {
                    let Attempt { id, shared, .. } = attempt;
                    winner = Some(Accepted { id, shared, local, remote });
                }
                Phase::Connecting | Phase::Connected { .. } => self.running.push(attempt),
                Phase::Failed(source) => {
                    if source == ConnectionError::Refused {
                        self.refused.push(attempt.remote);
                    }
                    self.failed(self.builder.explain(attempt.remote, source));
                }
            }
        }
        winner
    }

    fn won(mut self, winner: Accepted) -> Result<MptcpStream, Error> {
        self.abort_all();
        Ok(MptcpStream::new(self.builder.handle.clone(), winner))
    }

    fn abort_all(&mut self) {
        let ids: Vec<ConnectionId> = self.running.drain(..).map(|attempt| attempt.id).collect();
        if ids.is_empty() {
            return;
        }
        let abort = move |worker: &mut Worker, cx: &mut Context<'_>| {
            ids.into_iter().for_each(|id| worker.abort(cx, id));
        };
        // If the worker has ended, so have they.
        let _ = self.builder.handle.commands.call(abort);
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

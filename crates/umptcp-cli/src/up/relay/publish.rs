//! Ports of this host that lead to clients. A client keeps connections that wait; each becomes that of one visitor,
//! and the client makes the next.

use super::{IDLE, PROBE_COUNT, PROBES, lock};
use nix::errno::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use umptcp_convert::{Connect, ConvertError, Message, Tlv};
use umptcp_relay::{ClientName, MayPublish};

/// Most ports that are published.
const MOST_PORTS: usize = 1_024;

/// Most connections of a client that wait at a port, and most visitors that wait for one.
const MOST_WAITING: usize = 64;

/// How long a visitor waits for a connection of the client.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a port stays while its client has no connection there: it may be making one.
const GRACE: Duration = Duration::from_secs(30);

/// Visitors that may come before they are looked at.
const BACKLOG: i32 = 128;

/// How often to look at what waits.
const LOOK: Duration = Duration::from_secs(1);

/// How long to wait when accepting fails.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Somebody who has come in at a port.
pub(super) struct Visitor {
    pub(super) stream: TcpStream,
    pub(super) from: SocketAddr,
    /// When it came.
    came: Instant,
}

impl Drop for Visitor {
    fn drop(&mut self) {
        // Unless it is taken over, nobody has answered: that is not the end of a stream.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }
}

impl Visitor {
    /// Whoever takes it over ends it.
    pub(super) fn into_stream(self) -> io::Result<TcpStream> {
        let twin = SockRef::from(&self.stream).try_clone()?;
        drop(self);
        let stream: std::net::TcpStream = twin.into();
        SockRef::from(&stream).set_linger(None)?;
        TcpStream::from_std(stream)
    }
}

/// What comes of asking for visitors: the next, or why there will be none, and what the client is told.
pub(super) type Waiting = Result<oneshot::Receiver<Visitor>, (String, ConvertError)>;

/// All ports that are published.
#[derive(Default)]
pub(super) struct Publications(Mutex<HashMap<u16, Port>>);

struct Port {
    client: Option<ClientName>,
    /// The oldest first.
    waiting: VecDeque<oneshot::Sender<Visitor>>,
    visitors: VecDeque<Visitor>,
    /// Since when the client has no connection here.
    empty_since: Option<Instant>,
    task: AbortHandle,
}

impl Port {
    /// Forgets connections that have ended.
    fn tidy(&mut self, now: Instant) {
        self.waiting.retain(|take| !take.is_closed());
        while self.visitors.front().is_some_and(|first| now.duration_since(first.came) >= PATIENCE) {
            self.visitors.pop_front();
        }
        self.empty_since = if self.waiting.is_empty() { self.empty_since.or(Some(now)) } else { None };
    }

    /// Brings together who waits. Of the connections the newest comes first: those of a client that has lost
    /// power and come back are older than all that it has made since.
    fn pair(&mut self) {
        while let Some(mut visitor) = self.visitors.pop_front() {
            loop {
                let Some(take) = self.waiting.pop_back() else {
                    self.visitors.push_front(visitor);
                    return;
                };
                match take.send(visitor) {
                    Ok(()) => break,
                    // It has just ended.
                    Err(back) => visitor = back,
                }
            }
        }
    }
}

impl Publications {
    /// A connection of a client begins to wait at a port, which is opened if it is the first.
    ///
    /// # Errors
    /// Why it may not, and what the client is told.
    pub(super) fn wait(
        self: &Arc<Self>,
        port: u16,
        client: Option<&ClientName>,
        may: &[MayPublish],
    ) -> Waiting {
        if !may.iter().any(|rule| rule.lets(client, port)) {
            return Err((format!("the port {port} is not this client's"), ConvertError::NotAuthorized));
        }
        let exceeded = |why: &str| (why.to_owned(), ConvertError::ResourceExceeded { delay: 0 });
        let (take, taken) = oneshot::channel();
        let mut ports = lock(&self.0);
        if let Some(there) = ports.get_mut(&port) {
            if there.client.as_ref() != client {
                let why = format!("another client has the port {port}");
                return Err((why, ConvertError::NotAuthorized));
            }
            there.tidy(Instant::now());
            if there.waiting.len() >= MOST_WAITING {
                // It is the likeliest to have lost its client.
                there.waiting.pop_front();
            }
            there.waiting.push_back(take);
            there.empty_since = None;
            there.pair();
            return Ok(taken);
        }
        if ports.len() >= MOST_PORTS {
            return Err(exceeded("too many ports are published"));
        }
        let listener = listen(port).map_err(|error| {
            let why = format!("cannot listen at the port {port}: {error}");
            (why, ConvertError::ResourceExceeded { delay: 0 })
        })?;
        let task = tokio::spawn(accept(Arc::downgrade(self), port, listener)).abort_handle();
        let (waiting, visitors) = (VecDeque::from([take]), VecDeque::new());
        ports.insert(port, Port { client: client.cloned(), waiting, visitors, empty_since: None, task });
        Ok(taken)
    }

    /// Somebody has come.
    fn come(&self, port: u16, visitor: Visitor) {
        let mut ports = lock(&self.0);
        let Some(there) = ports.get_mut(&port) else { return };
        if there.visitors.len() >= MOST_WAITING {
            there.visitors.pop_front();
        }
        there.visitors.push_back(visitor);
        there.pair();
    }

    /// The connection that a visitor was given has no client any more: it gets the next, before those who have
    /// come later.
    pub(super) fn come_again(&self, port: u16, visitor: Visitor) {
        let mut ports = lock(&self.0);
        let Some(there) = ports.get_mut(&port) else { return };
        there.visitors.push_front(visitor);
        there.pair();
    }

    /// Looks at who waits. False: the port is not there any more.
    fn look(&self, port: u16) -> bool {
        let mut ports = lock(&self.0);
        let Some(there) = ports.get_mut(&port) else { return false };
        let now = Instant::now();
        there.tidy(now);
        if there.empty_since.is_some_and(|since| now.duration_since(since) >= GRACE) {
            ports.remove(&port);
            return false;
        }
        true
    }

    /// Who may have which ports has changed: ports of those who may not are closed, and of those who are not who
    /// they were, by a key that counts no more.
    pub(super) fn keep(&self, may: &[MayPublish], is_same: impl Fn(Option<&ClientName>) -> bool) {
        lock(&self.0).retain(|port, there| {
            let client = there.client.as_ref();
            let stays = is_same(client) && may.iter().any(|rule| rule.lets(client, *port));
            if !stays {
                there.task.abort();
            }
            stays
        });
    }
}

/// Accepts until the port is given up.
async fn accept(all: std::sync::Weak<Publications>, port: u16, listener: TcpListener) {
    loop {
        let accepted = timeout(LOOK, listener.accept()).await;
        let Some(all) = all.upgrade() else { return };
        match accepted {
            Ok(Ok((stream, from))) => {
                let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                let visitor = Visitor { stream, from, came: Instant::now() };
                let told = prepare(&visitor.stream);
                if told.is_ok() && announcement(from).is_some() {
                    all.come(port, visitor);
                }
            }
            Ok(Err(_)) => sleep(EXHAUSTED).await,
            Err(_) => {}
        }
        if !all.look(port) {
            return;
        }
    }
}

/// What a client is told of a visitor (RFC 8803 §6.2.5). `None`: of such an address it cannot be told.
pub(super) fn announcement(from: SocketAddr) -> Option<Vec<u8>> {
    Message::new([Tlv::Connect(Connect::new(from))]).encode().ok()
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let alive = TcpKeepalive::new().with_time(IDLE).with_interval(PROBES).with_retries(PROBE_COUNT);
    SockRef::from(stream).set_tcp_keepalive(&alive)
}

/// Both families, or IPv4 on a host that has no other.
fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = listen_at((Ipv6Addr::UNSPECIFIED, port).into()).or_else(|error| {
        let missing = error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32)
            || matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::AddrNotAvailable);
        if missing { listen_at((Ipv4Addr::UNSPECIFIED, port).into()) } else { Err(error) }
    })?;
    TcpListener::from_std(listener.into())
}

fn listen_at(at: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    if at.is_ipv6() {
        // Whatever the host has by default (`net.ipv6.bindv6only`).
        socket.set_only_v6(false)?;
    }
    // The port is free again at once after the relay or its client has gone.
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ClientName {
        text.parse().unwrap()
    }

    /// A port that nobody has.
    fn free() -> u16 {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    #[test]
    fn a_port_is_its_clients_and_is_given_back() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (all, port) = (Arc::new(Publications::default()), free());
            let may = [format!("a={port}").parse().unwrap(), format!("b={port}").parse().unwrap()];
            let wait = |client: &str| all.wait(port, Some(&name(client)), &may);
            let code = |result: Result<_, (String, ConvertError)>| result.map(drop).unwrap_err().1.code();
            let first = wait("a").unwrap();
            assert_eq!(code(wait("b")), 32, "another client's");
            assert_eq!(code(wait("c")), 32, "it may not");
            assert_eq!(code(all.wait(port, None, &may)), 32);
            let mut more: Vec<_> = (1..MOST_WAITING).map(|_| wait("a").unwrap()).collect();
            more.push(wait("a").unwrap());
            assert!(first.await.is_err(), "the oldest makes room");
            assert_eq!(lock(&all.0)[&port].waiting.len(), MOST_WAITING);
            more.truncate(1);
            let _second = wait("a").unwrap();
            assert_eq!(lock(&all.0)[&port].waiting.len(), 2, "what has ended leaves its place");
            // Nobody who may has it any more.
            all.keep(&may[1..], |_| true);
            assert!(lock(&all.0).is_empty() && more.remove(0).await.is_err());
            assert!(!all.look(port));
            // The listener goes with its task.
            tokio::task::yield_now().await;
            // It may, but its key is another one.
            let other = all.wait(port, Some(&name("b")), &may);
            all.keep(&may, |client| client != Some(&name("b")));
            assert!(lock(&all.0).is_empty() && other.unwrap().await.is_err());
        });
    }

    #[test]
    fn visitors_get_the_newest_connection_and_another_one_if_it_is_dead() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (all, port) = (Arc::new(Publications::default()), free());
            let may = [format!("*={port}").parse().unwrap()];
            let [mut old, mut middle, mut new] = [(); 3].map(|()| all.wait(port, None, &may).unwrap());
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let come = async |from: &str| {
                let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                Visitor { stream, from: from.parse().unwrap(), came: Instant::now() }
            };
            lock(&all.0)[&port].task.abort();
            all.come(port, come("192.0.2.1:1").await);
            assert!(old.try_recv().is_err() && middle.try_recv().is_err());
            let first = new.try_recv().unwrap();
            all.come_again(port, first);
            let first = middle.try_recv().unwrap();
            assert_eq!(first.from.to_string(), "192.0.2.1:1");
            // None is left: they wait, and who came first is the first.
            drop(old);
            all.come(port, come("192.0.2.2:1").await);
            all.come_again(port, first);
            let mut next = all.wait(port, None, &may).unwrap();
            assert_eq!(next.try_recv().unwrap().from.to_string(), "192.0.2.1:1");
        });
    }

    #[test]
    fn a_port_without_connections_is_given_up_after_a_while() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (all, port) = (Arc::new(Publications::default()), free());
            let may = [format!("*={port}").parse().unwrap()];
            drop(all.wait(port, None, &may).unwrap());
            assert!(all.look(port), "it may come again");
            let before = Instant::now().checked_sub(GRACE).unwrap();
            lock(&all.0).get_mut(&port).unwrap().empty_since = Some(before);
            assert!(!all.look(port));
        });
    }

    #[test]
    fn what_the_client_is_told_is_who_has_come() {
        let told = announcement("192.0.2.7:50000".parse().unwrap()).unwrap();
        let (message, _) = Message::decode(&told).unwrap().unwrap();
        assert_eq!(message.peer().unwrap().to_string(), "192.0.2.7:50000");
        assert_eq!(announcement("127.0.0.1:9".parse().unwrap()), None);
    }
}

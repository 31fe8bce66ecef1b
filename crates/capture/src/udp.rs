//! Datagrams to this host's own servers.

use crate::namespace::Namespace;
use crate::transparent::transparent;
use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};
use socket2::{Socket, Type};
use std::collections::HashMap;
use std::hash::Hash;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Most flows at once; for one more, the one that has been idle longest goes.
const MOST_FLOWS: usize = 512;

/// Most servers that are spoken for at once.
const MOST_SERVERS: usize = 64;

/// How long a flow, or a server without flows, may be idle.
const IDLE: Duration = Duration::from_secs(60);

/// The port of resolvers. A flow to one ends when every question has its answer: programs ask each from
/// another port.
const DNS: u16 = 53;

/// The longest datagram.
const ROOM: usize = 65_535;

/// Who sends to whom.
type Flow = (SocketAddr, SocketAddr);

/// Relays what comes to `socket` to the same address outside. Runs until it is dropped.
///
/// `socket` gets the first datagram to a server of the host. From then on a socket inside speaks for that
/// server and gets all the others, whoever sends them; each client has a socket outside while it waits for
/// answers.
pub(crate) async fn relay(namespace: Arc<Namespace>, socket: Socket) {
    let socket = match UdpSocket::from_std(socket.into()) {
        Ok(socket) => socket,
        Err(error) => return tracing::warn!(%error, "datagrams to localhost cannot be relayed"),
    };
    let relay = Arc::new(Relay { namespace, all: Mutex::default() });
    let _end = EndAll(relay.clone());
    let mut room = vec![0; ROOM];
    loop {
        if socket.readable().await.is_err() {
            return;
        }
        let received = socket.try_io(Interest::READABLE, || receive(&socket, &mut room));
        let Ok((length, from, to)) = received else { continue };
        relay.forward(&room[..length], (from, to)).await;
    }
}

struct Relay {
    namespace: Arc<Namespace>,
    all: Mutex<All>,
}

#[derive(Default)]
struct All {
    servers: HashMap<SocketAddr, Used>,
    flows: HashMap<Flow, Used>,
}

/// A socket, and what listens to it.
struct Used {
    socket: Arc<UdpSocket>,
    last: Instant,
    /// Questions without an answer so far.
    waiting: i64,
    task: AbortHandle,
}

impl Drop for Used {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Ends the tasks, which hold what they work for.
struct EndAll(Arc<Relay>);

impl Drop for EndAll {
    fn drop(&mut self) {
        *self.0.all() = All::default();
    }
}

impl Relay {
    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a datagram on.
    async fn forward(self: &Arc<Self>, datagram: &[u8], flow: Flow) {
        // The first attempt may end with the refusal of an earlier datagram, which ends the flow.
        for _ in 0..2 {
            let sent = match self.outside(flow).await {
                Ok(outside) => outside.send(datagram).await,
                Err(error) => Err(error),
            };
            match sent {
                Ok(_) => return,
                Err(error) => {
                    self.all().flows.remove(&flow);
                    tracing::debug!(from = %flow.0, to = %flow.1, %error, "a datagram to localhost cannot be sent");
                }
            }
        }
    }

    /// The flow's socket outside; where there is none yet, with a socket inside that speaks for the server.
    async fn outside(self: &Arc<Self>, flow: Flow) -> io::Result<Arc<UdpSocket>> {
        if let Some(used) = self.all().flows.get_mut(&flow) {
            used.last = Instant::now();
            used.waiting += 1;
            return Ok(used.socket.clone());
        }
        let inside = self.inside(flow.1)?;
        let any: IpAddr =
            if flow.1.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let outside = UdpSocket::bind((any, 0)).await?;
        outside.connect(flow.1).await?;
        let outside = Arc::new(outside);
        let task = tokio::spawn(answer(self.clone(), flow, inside, outside.clone())).abort_handle();
        let used = Used { socket: outside.clone(), last: Instant::now(), waiting: 1, task };
        let flows = &mut self.all().flows;
        make_room(flows, MOST_FLOWS);
        flows.insert(flow, used);
        Ok(outside)
    }

    /// The socket inside that speaks for a server.
    fn inside(self: &Arc<Self>, server: SocketAddr) -> io::Result<Arc<UdpSocket>> {
        if let Some(used) = self.all().servers.get_mut(&server) {
            used.last = Instant::now();
            return Ok(used.socket.clone());
        }
        let open = move || transparent(server.ip(), server.port(), Type::DGRAM);
        let inside = self.namespace.run(open).map_err(io::Error::other)??;
        let inside = Arc::new(UdpSocket::from_std(inside.into())?);
        let task = tokio::spawn(serve(self.clone(), server, inside.clone())).abort_handle();
        let used = Used { socket: inside.clone(), last: Instant::now(), waiting: 0, task };
        let all = &mut *self.all();
        make_room(&mut all.servers, MOST_SERVERS);
        all.servers.insert(server, used);
        let servers = &all.servers;
        all.flows.retain(|(_, to), _| servers.contains_key(to));
        Ok(inside)
    }
}

/// The one that has been idle longest makes room for another.
fn make_room<K: Copy + Eq + Hash>(map: &mut HashMap<K, Used>, most: usize) {
    if map.len() >= most
        && let Some(oldest) = map.iter().min_by_key(|(_, used)| used.last).map(|(key, _)| *key)
    {
        map.remove(&oldest);
    }
}

/// When a value that was last used then may go.
fn idle_at<K: Eq + Hash>(map: &HashMap<K, Used>, key: &K) -> Instant {
    map.get(key).map_or_else(Instant::now, |used| used.last) + IDLE
}

/// Sends on what programs send to a server, until nobody has done so for long enough.
async fn serve(relay: Arc<Relay>, server: SocketAddr, inside: Arc<UdpSocket>) {
    let mut room = vec![0; ROOM];
    loop {
        let end = idle_at(&relay.all().servers, &server);
        tokio::select! {
            received = inside.recv_from(&mut room) => {
                // The next datagram makes another socket.
                let Ok((length, from)) = received else { break };
                if let Some(used) = relay.all().servers.get_mut(&server) {
                    used.last = Instant::now();
                }
                relay.forward(&room[..length], (from, server)).await;
            }
            () = tokio::time::sleep_until(end) => {
                // Flows end after the same time, but each on its own.
                let busy = relay.all().flows.keys().any(|(_, to)| *to == server);
                let all = &mut *relay.all();
                match all.servers.get_mut(&server) {
                    Some(used) if busy => used.last = Instant::now(),
                    _ => break,
                }
            }
        }
    }
    relay.all().servers.remove(&server);
}

/// Sends back what the server answers, until the flow has been idle for long enough or everything is
/// answered.
async fn answer(relay: Arc<Relay>, flow: Flow, inside: Arc<UdpSocket>, outside: Arc<UdpSocket>) {
    loop {
        let end = idle_at(&relay.all().flows, &flow);
        tokio::select! {
            // Many flows wait at once: they have no room of their own meanwhile.
            ready = outside.readable() => {
                let mut room = Vec::with_capacity(ROOM);
                match ready.and_then(|()| outside.try_recv_buf(&mut room)) {
                    Ok(_) => drop(inside.send_to(&room, flow.0).await),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    // A refusal (ICMP) is an answer; the next datagram makes a flow of its own.
                    Err(_) => break,
                }
                let flows = &mut relay.all().flows;
                let Some(used) = flows.get_mut(&flow) else { break };
                used.last = Instant::now();
                used.waiting -= 1;
                if flow.1.port() == DNS && used.waiting <= 0 {
                    break;
                }
            }
            () = tokio::time::sleep_until(end) => {
                if idle_at(&relay.all().flows, &flow) <= Instant::now() {
                    break;
                }
            }
        }
    }
    relay.all().flows.remove(&flow);
}

/// Takes one datagram, with its ends.
fn receive(socket: &UdpSocket, room: &mut [u8]) -> io::Result<(usize, SocketAddr, SocketAddr)> {
    let mut space = cmsg_space!(nix::libc::sockaddr_in6);
    let mut iov = [IoSliceMut::new(room)];
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut iov, Some(&mut space), MsgFlags::MSG_DONTWAIT)?;
    let from = message.address.as_ref().and_then(address);
    let to = message.cmsgs()?.find_map(|c| match c {
        ControlMessageOwned::Ipv4OrigDstAddr(a) => {
            let ip = Ipv4Addr::from(u32::from_be(a.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(a.sin_port)).into())
        }
        ControlMessageOwned::Ipv6OrigDstAddr(a) => {
            let ip = Ipv6Addr::from(a.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(a.sin6_port), 0, a.sin6_scope_id).into())
        }
        _ => None,
    });
    match (from, to) {
        (Some(from), Some(to)) => Ok((message.bytes, from, to)),
        _ => Err(io::Error::other("a datagram without addresses")),
    }
}

fn address(a: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = a.as_sockaddr_in().map(|a| SocketAddr::V4((*a).into()));
    v4.or_else(|| a.as_sockaddr_in6().map(|a| SocketAddr::V6((*a).into())))
}

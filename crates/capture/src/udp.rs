//! Datagrams to this host's own servers.

use crate::namespace::Namespace;
use crate::transparent::transparent;
use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};
use socket2::{Socket, Type};
use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::Instant;

/// Most flows at once; for one more, the one that has been idle longest goes.
const MOST_FLOWS: usize = 512;

/// How long a flow may be idle.
const IDLE: Duration = Duration::from_secs(60);

/// How long a flow to a resolver lives on when every question has its answer.
const ANSWERED: Duration = Duration::from_secs(1);

/// The port of resolvers.
const DNS: u16 = 53;

/// The longest datagram.
const ROOM: usize = 65_535;

/// Who sends to whom.
type Flow = (SocketAddr, SocketAddr);

/// The flows, with when each was last used and what ends it.
type Flows = Arc<Mutex<HashMap<Flow, (Instant, tokio::task::AbortHandle)>>>;

/// Runs until it is dropped: relays what comes to `socket` to the same address outside.
pub(crate) async fn relay(namespace: Arc<Namespace>, socket: Socket) {
    let socket = match UdpSocket::from_std(socket.into()) {
        Ok(socket) => socket,
        Err(error) => return tracing::warn!(%error, "datagrams to localhost cannot be relayed"),
    };
    let flows = Flows::default();
    let mut room = vec![0; ROOM];
    loop {
        if socket.readable().await.is_err() {
            return;
        }
        let received = socket.try_io(Interest::READABLE, || receive(&socket, &mut room));
        let Ok((length, from, to)) = received else { continue };
        match open(&namespace, from, to).await {
            // The first datagram is delivered by whoever makes the flow, the others come to its own socket.
            Ok((inside, outside)) => {
                let _ = outside.send(&room[..length]).await;
                begin(&flows, (from, to), inside, outside);
            }
            Err(error) => tracing::debug!(%from, %to, %error, "a datagram to localhost is lost"),
        }
    }
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

/// A socket inside that speaks for `to`, and one outside that speaks to it.
async fn open(
    namespace: &Arc<Namespace>,
    from: SocketAddr,
    to: SocketAddr,
) -> io::Result<(UdpSocket, UdpSocket)> {
    let inside = namespace.run(move || {
        let socket = transparent(to.ip(), to.port(), Type::DGRAM)?;
        socket.connect(&from.into())?;
        io::Result::Ok(socket)
    });
    let inside = UdpSocket::from_std(inside.map_err(io::Error::other)??.into())?;
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let outside = UdpSocket::bind((any, 0)).await?;
    outside.connect(to).await?;
    Ok((inside, outside))
}

fn begin(flows: &Flows, flow: Flow, inside: UdpSocket, outside: UdpSocket) {
    let mut all = flows.lock().unwrap_or_else(PoisonError::into_inner);
    if all.len() >= MOST_FLOWS
        && let Some(oldest) = all.iter().min_by_key(|(_, (used, _))| *used).map(|(flow, _)| *flow)
        && let Some((_, task)) = all.remove(&oldest)
    {
        task.abort();
    }
    let task = tokio::spawn(pump(flows.clone(), flow, inside, outside)).abort_handle();
    if let Some((_, before)) = all.insert(flow, (Instant::now(), task)) {
        before.abort();
    }
}

/// Both directions of a flow, until it has been idle for long enough.
async fn pump(flows: Flows, flow: Flow, inside: UdpSocket, outside: UdpSocket) {
    let (mut up, mut down) = (vec![0; ROOM], vec![0; ROOM]);
    // The first has been sent.
    let mut unanswered = 1_i64;
    loop {
        let patience = if flow.1.port() == DNS && unanswered <= 0 { ANSWERED } else { IDLE };
        let used = {
            let all = flows.lock().unwrap_or_else(PoisonError::into_inner);
            all.get(&flow).map_or_else(Instant::now, |(used, _)| *used)
        };
        // A refusal (ICMP) is an answer; the next datagram makes a flow of its own.
        let passed = tokio::select! {
            n = inside.recv(&mut up) => match n {
                Ok(n) => outside.send(&up[..n]).await.map(|_| unanswered += 1),
                Err(error) => Err(error),
            },
            n = outside.recv(&mut down) => match n {
                Ok(n) => inside.send(&down[..n]).await.map(|_| unanswered -= 1),
                Err(error) => Err(error),
            },
            () = tokio::time::sleep_until(used + patience) => break,
        };
        if passed.is_err() {
            break;
        }
        if let Some((used, _)) = flows.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&flow) {
            *used = Instant::now();
        }
    }
    flows.lock().unwrap_or_else(PoisonError::into_inner).remove(&flow);
}

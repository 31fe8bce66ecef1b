//! Connections to servers, by the kernel's TCP, and what is said of those that fail.

use super::{IDLE, PROBE_COUNT, PROBES};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use umptcp::attempts::ATTEMPT_DELAY;
use umptcp_capture::mark_own;
use umptcp_convert::ConvertError;

/// How long a server may take to answer: the kernel sends the SYN six times in that time.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where an error of the queue comes from (`SO_EE_ORIGIN_*`).
const ICMP: u8 = 2;
const ICMP6: u8 = 3;

/// A connection to the first of a server's addresses that answers, and which. The next is tried when one has failed, and
/// beside those that have not answered for a while (RFC 8305 §5): one that swallows SYNs holds nobody up.
///
/// # Errors
/// Why the last to fail gives none, and what the client is told.
pub(super) async fn dial_any(
    all: &[SocketAddr],
) -> Result<(TcpStream, SocketAddr), (io::Error, ConvertError)> {
    let mut failed = (io::ErrorKind::AddrNotAvailable.into(), ConvertError::NoSuchName);
    // All together have the time of one.
    let end = Instant::now() + PATIENCE;
    let (mut left, mut next) = (all.iter().copied(), Instant::now());
    // Dropping it gives up the others.
    let mut attempts = JoinSet::new();
    loop {
        tokio::select! {
            Some(ended) = attempts.join_next() => match ended {
                Ok((Ok(stream), to)) => return Ok((stream, to)),
                Ok((Err(error), _)) => {
                    failed = error;
                    next = Instant::now();
                }
                Err(_) => next = Instant::now(),
            },
            () = sleep_until(next), if left.len() > 0 => {
                if let Some(to) = left.next() {
                    attempts.spawn(async move { (dial(to, end - Instant::now()).await, to) });
                }
                next = Instant::now() + ATTEMPT_DELAY;
            }
            else => return Err(failed),
        }
    }
}

/// A connection to a server.
async fn dial(to: SocketAddr, patience: Duration) -> Result<TcpStream, (io::Error, ConvertError)> {
    let (socket, twin) = prepare(to).map_err(|error| {
        let answer = answer(&error, None, to.is_ipv4());
        (error, answer)
    })?;
    let connected = timeout(patience, socket.connect(to)).await;
    if matches!(connected, Ok(Ok(_))) {
        // An ICMP message that comes later is no end of the connection.
        let told = if to.is_ipv4() {
            setsockopt(&twin, sockopt::Ipv4RecvErr, &false)
        } else {
            setsockopt(&twin, sockopt::Ipv6RecvErr, &false)
        };
        told.map_err(|error| (error.into(), ConvertError::ResourceExceeded { delay: 0 }))?;
    }
    connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|error| {
        let answer = answer(&error, icmp_code(&twin), to.is_ipv4());
        (error, answer)
    })
}

/// A socket, and a descriptor of it that stays when connecting fails.
fn prepare(to: SocketAddr) -> io::Result<(TcpSocket, OwnedFd)> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    match mark_own(&socket) {
        // Without the privilege nothing is captured on this host by this program, either.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        marked => marked?,
    }
    socket.set_nodelay(true)?;
    let alive = TcpKeepalive::new().with_time(IDLE).with_interval(PROBES).with_retries(PROBE_COUNT);
    SockRef::from(&socket).set_tcp_keepalive(&alive)?;
    // Which ICMP message it was that failed it is told then.
    if to.is_ipv4() {
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
    }
    let twin = socket.as_fd().try_clone_to_owned()?;
    Ok((socket, twin))
}

/// The code of the ICMP message that has failed a connection, if it was one.
fn icmp_code(socket: &OwnedFd) -> Option<u8> {
    let mut space = nix::cmsg_space!([u8; 256]);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut [], Some(&mut space), flags).ok()?;
    message.cmsgs().ok()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4RecvErr(error, _) if error.ee_origin == ICMP => Some(error.ee_code),
        ControlMessageOwned::Ipv6RecvErr(error, _) if error.ee_origin == ICMP6 => Some(error.ee_code),
        _ => None,
    })
}

/// What the client is told (RFC 8803 §6.2.8).
fn answer(error: &io::Error, icmp: Option<u8>, v4: bool) -> ConvertError {
    let code =
        |[four, six]: [u8; 2]| ConvertError::DestinationUnreachable { code: if v4 { four } else { six } };
    if let Some(code) = icmp {
        return ConvertError::DestinationUnreachable { code };
    }
    let errno = error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw);
    match errno {
        Errno::ECONNREFUSED | Errno::ECONNRESET => ConvertError::ConnectionReset,
        // Without a message: this host's own routes say so, or the kernel did not tell.
        Errno::ENETUNREACH => code([0, 0]),
        Errno::EHOSTUNREACH | Errno::EHOSTDOWN => code([1, 3]),
        Errno::EACCES | Errno::EPERM => code([13, 1]),
        Errno::ENOPROTOOPT => code([2, 3]),
        Errno::EADDRNOTAVAIL | Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM => {
            ConvertError::ResourceExceeded { delay: 0 }
        }
        // There is no code for a server that does not answer; umptcp's client takes this for it.
        _ if error.kind() == io::ErrorKind::TimedOut => ConvertError::NetworkFailure { delay: 0 },
        _ => code([1, 3]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_is_told() {
        let says = |errno: Errno, v4| answer(&io::Error::from(errno), None, v4);
        assert_eq!(says(Errno::ECONNREFUSED, true), ConvertError::ConnectionReset);
        let unreachable = |code| ConvertError::DestinationUnreachable { code };
        assert_eq!(says(Errno::ENETUNREACH, true), unreachable(0));
        assert_eq!(says(Errno::EHOSTUNREACH, true), unreachable(1));
        assert_eq!(says(Errno::EHOSTUNREACH, false), unreachable(3));
        assert_eq!(says(Errno::EACCES, false), unreachable(1));
        assert_eq!(says(Errno::ETIMEDOUT, true), ConvertError::NetworkFailure { delay: 0 });
        assert_eq!(answer(&io::ErrorKind::TimedOut.into(), None, true).code(), 65);
        assert_eq!(says(Errno::EMFILE, true).code(), 64);
        // An ICMP message about the port is not an RST.
        assert_eq!(answer(&io::Error::from(Errno::ECONNREFUSED), Some(3), true), unreachable(3));
    }

    #[test]
    fn a_port_of_this_host_that_nobody_has() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let at = taken.local_addr().unwrap();
            assert!(dial(at, PATIENCE).await.is_ok());
            let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let there = other.local_addr().unwrap();
            drop(taken);
            assert_eq!(dial_any(&[at, there]).await.unwrap().1, there, "the next is tried");
            let (error, answer) = dial(at, PATIENCE).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            assert_eq!(answer, ConvertError::ConnectionReset);
        });
    }

    /// A server that takes no more connections swallows SYNs.
    #[test]
    fn an_address_that_does_not_answer_holds_nobody_up() {
        use socket2::{Domain, Socket, Type};
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            full.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
            full.listen(0).unwrap();
            let full_at = full.local_addr().unwrap().as_socket().unwrap();
            let mut waiting = Vec::new();
            while let Ok(taken) = dial(full_at, Duration::from_secs(3)).await {
                waiting.push(taken);
                assert!(waiting.len() < 100, "it takes all");
            }
            let good = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let good_at = good.local_addr().unwrap();
            let reached = timeout(PATIENCE / 4, dial_any(&[full_at, full_at, good_at])).await;
            assert_eq!(reached.expect("it is not held up").unwrap().1, good_at);
        });
    }
}

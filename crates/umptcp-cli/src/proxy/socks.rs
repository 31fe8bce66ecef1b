//! SOCKS version 5 (RFC 1928), the server's side: no authentication, and CONNECT only.

use super::dial::Target;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// How a request ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Reply {
    Succeeded = 0,
    Failure = 1,
    NotAllowed = 2,
    NetworkUnreachable = 3,
    HostUnreachable = 4,
    Refused = 5,
    /// Nobody has answered. RFC 1928 calls it "TTL expired".
    TimedOut = 6,
    NoSuchCommand = 7,
    NoSuchAddressType = 8,
}

impl Reply {
    /// That of a connection that has failed.
    pub(super) fn of(error: &io::Error) -> Reply {
        match error.kind() {
            ErrorKind::ConnectionRefused => Reply::Refused,
            ErrorKind::HostUnreachable => Reply::HostUnreachable,
            ErrorKind::NetworkUnreachable => Reply::NetworkUnreachable,
            ErrorKind::TimedOut => Reply::TimedOut,
            // This host itself, addresses of one link, multicast.
            ErrorKind::Unsupported | ErrorKind::InvalidInput => Reply::NotAllowed,
            _ => Reply::Failure,
        }
    }
}

/// Agrees with the client on how to speak, and reads where it wants to go. `Err` with a reply: that is due to
/// it.
pub(super) async fn request<S: AsyncRead + AsyncWrite + Unpin>(
    s: &mut S,
) -> io::Result<Result<Target, Reply>> {
    let methods = {
        version(s).await?;
        let mut methods = vec![0; usize::from(s.read_u8().await?)];
        s.read_exact(&mut methods).await?;
        methods
    };
    if !methods.contains(&NO_AUTHENTICATION) {
        s.write_all(&[VERSION, NO_METHOD]).await?;
        return Err(io::Error::new(ErrorKind::InvalidData, "the client wants to be authenticated"));
    }
    s.write_all(&[VERSION, NO_AUTHENTICATION]).await?;
    version(s).await?;
    let command = s.read_u8().await?;
    let _reserved = s.read_u8().await?;
    let host = match s.read_u8().await? {
        IPV4 => {
            let mut a = [0; 4];
            s.read_exact(&mut a).await?;
            Ok(IpAddr::from(Ipv4Addr::from(a)))
        }
        IPV6 => {
            let mut a = [0; 16];
            s.read_exact(&mut a).await?;
            Ok(IpAddr::from(Ipv6Addr::from(a)))
        }
        NAME => {
            let mut name = vec![0; usize::from(s.read_u8().await?)];
            s.read_exact(&mut name).await?;
            Err(name)
        }
        _ => return Ok(Err(Reply::NoSuchAddressType)),
    };
    let port = s.read_u16().await?;
    if command != CONNECT {
        return Ok(Err(Reply::NoSuchCommand));
    }
    Ok(match host {
        Ok(address) => Ok(Target::Address(SocketAddr::new(address, port))),
        // Nobody has a name that is not text.
        Err(name) => {
            String::from_utf8(name).map(|name| Target::Name(name, port)).map_err(|_| Reply::HostUnreachable)
        }
    })
}

async fn version<S: AsyncRead + Unpin>(s: &mut S) -> io::Result<()> {
    match s.read_u8().await? {
        VERSION => Ok(()),
        other => {
            Err(io::Error::new(ErrorKind::InvalidData, format!("not SOCKS 5: it begins with {other:#04x}")))
        }
    }
}

/// The answer to a request; `bound` is this host's end of the connection.
pub(super) fn answer(reply: Reply, bound: Option<SocketAddr>) -> Vec<u8> {
    let bound = bound.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
    let mut all = vec![VERSION, reply as u8, 0];
    match bound.ip() {
        IpAddr::V4(a) => {
            all.push(IPV4);
            all.extend(a.octets());
        }
        IpAddr::V6(a) => {
            all.push(IPV6);
            all.extend(a.octets());
        }
    }
    all.extend(bound.port().to_be_bytes());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read from these bytes, and what is answered.
    fn read(bytes: &[u8]) -> (io::Result<Result<Target, Reply>>, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut here, mut there) = tokio::io::duplex(1024);
            there.write_all(bytes).await.unwrap();
            there.shutdown().await.unwrap();
            let result = request(&mut here).await;
            drop(here);
            let mut answered = Vec::new();
            there.read_to_end(&mut answered).await.unwrap();
            (result, answered)
        })
    }

    #[test]
    fn requests_are_read() {
        let after_greeting = |request: &[u8]| [&[5, 2, 2, 0][..], request].concat();
        for (request, target) in [
            (&[5, 1, 0, 1, 192, 0, 2, 1, 0, 80][..], Ok(Target::Address("192.0.2.1:80".parse().unwrap()))),
            (&[5, 1, 0, 3, 3, b'a', b'.', b'b', 1, 187], Ok(Target::Name("a.b".into(), 443))),
            (&[5, 1, 0, 3, 1, 0xff, 1, 187], Err(Reply::HostUnreachable)),
            (&[5, 2, 0, 1, 192, 0, 2, 1, 0, 80], Err(Reply::NoSuchCommand)),
            (&[5, 3, 0, 1, 192, 0, 2, 1, 0, 80], Err(Reply::NoSuchCommand)),
            (&[5, 1, 0, 2], Err(Reply::NoSuchAddressType)),
        ] {
            let (result, answered) = read(&after_greeting(request));
            assert_eq!((result.unwrap(), &answered[..]), (target, &[5, 0][..]), "{request:?}");
        }
        let mut v6 = vec![5, 1, 0, 4];
        v6.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        v6.extend([0, 80]);
        assert_eq!(
            read(&after_greeting(&v6)).0.unwrap(),
            Ok(Target::Address("[2001:db8::1]:80".parse().unwrap()))
        );
    }

    #[test]
    fn what_is_no_request_is_an_error_and_says_nothing_of_use() {
        for (bytes, answer) in [
            (&b"GET / HTTP/1.0\r\n"[..], &[][..]),
            (&[4, 1, 0, 80], &[]),
            (&[5, 1, 2], &[5, 0xff]),
            (&[5, 0], &[5, 0xff]),
            (&[5], &[]),
            (&[5, 1, 0, 5, 1], &[5, 0]),
            (&[5, 1, 0, 4, 1, 0, 1], &[5, 0]),
            (&[5, 1, 0, 5, 1, 0, 3, 9, b'a'], &[5, 0]),
        ] {
            let (result, answered) = read(bytes);
            assert!(result.is_err() && answered == answer, "{bytes:?}: {answered:?}");
        }
    }

    #[test]
    fn answers_name_this_end() {
        assert_eq!(answer(Reply::Refused, None), [5, 5, 0, 1, 0, 0, 0, 0, 0, 0]);
        let bound = answer(Reply::Succeeded, Some("[2001:db8::1]:80".parse().unwrap()));
        assert_eq!((&bound[..8], bound.len()), (&[5, 0, 0, 4, 0x20, 0x01, 0x0d, 0xb8][..], 22));
    }

    #[test]
    fn failures_have_their_codes() {
        for (kind, code) in [
            (ErrorKind::ConnectionRefused, 5),
            (ErrorKind::HostUnreachable, 4),
            (ErrorKind::NetworkUnreachable, 3),
            (ErrorKind::TimedOut, 6),
            (ErrorKind::Unsupported, 2),
            (ErrorKind::Other, 1),
        ] {
            assert_eq!(Reply::of(&kind.into()) as u8, code);
        }
    }
}

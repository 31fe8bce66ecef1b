//! CONNECT of HTTP/1.1 (RFC 9110 §9.3.6), the proxy's side, without authentication.

use super::dial::Target;
use crate::args::HostPort;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Longest head of a request, in bytes.
const LONGEST: usize = 16 << 10;

/// How a request ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Status {
    Connected,
    BadRequest,
    /// Another method than CONNECT.
    MethodNotAllowed,
    HeadTooLong,
    NotAllowed,
    Unroutable,
    Unavailable,
    Refused,
    TimedOut,
    Failure,
}

impl Status {
    /// That of a connection that has failed.
    pub(super) fn of(error: &io::Error) -> Status {
        match error.kind() {
            ErrorKind::ConnectionRefused => Status::Refused,
            ErrorKind::HostUnreachable => Status::Unavailable,
            ErrorKind::NetworkUnreachable => Status::Unroutable,
            ErrorKind::TimedOut => Status::TimedOut,
            // This host itself, addresses of one link, multicast.
            ErrorKind::Unsupported | ErrorKind::InvalidInput => Status::NotAllowed,
            _ => Status::Failure,
        }
    }

    /// The code with its phrase, the type of the error by RFC 9209 §2.3, and what a person is told.
    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Status::Connected => ("200 Connection established", "", ""),
            Status::BadRequest => {
                ("400 Bad Request", "http_request_error", "expected CONNECT HOST:PORT HTTP/1.1")
            }
            Status::MethodNotAllowed => (
                "405 Method Not Allowed",
                "http_request_error",
                "this proxy takes CONNECT only, as for https (curl: --proxytunnel), and SOCKS 5 at the same port",
            ),
            Status::HeadTooLong => {
                ("431 Request Header Fields Too Large", "http_request_error", "the request is too long")
            }
            Status::NotAllowed => (
                "403 Forbidden",
                "destination_ip_prohibited",
                "no path leads there: this host itself, for one",
            ),
            Status::Unroutable => {
                ("502 Bad Gateway", "destination_ip_unroutable", "the network is unreachable")
            }
            Status::Unavailable => {
                ("502 Bad Gateway", "destination_unavailable", "no such host, or it is unreachable")
            }
            Status::Refused => ("502 Bad Gateway", "connection_refused", "the connection was refused"),
            Status::TimedOut => ("504 Gateway Timeout", "connection_timeout", "nobody has answered"),
            Status::Failure => {
                ("502 Bad Gateway", "proxy_internal_error", "the connection could not be opened")
            }
        }
    }
}

/// What was asked for, or what is wrong with it; and bytes that came after it.
pub(super) type Asked = (Result<Target, Status>, Vec<u8>);

/// Reads a request.
///
/// # Errors
/// When it ends before its end.
pub(super) async fn request<S: AsyncRead + Unpin>(s: &mut S) -> io::Result<Asked> {
    let mut head = Vec::with_capacity(1024);
    loop {
        if s.read_buf(&mut head).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = end_of(&head) {
            let rest = head.split_off(end);
            return Ok((target(&head), rest));
        }
        if head.len() >= LONGEST {
            return Ok((Err(Status::HeadTooLong), Vec::new()));
        }
    }
}

/// Where the head ends: after an empty line. Lines may end without a carriage return (RFC 9112 §2.2).
fn end_of(head: &[u8]) -> Option<usize> {
    let after = |end: &[u8]| head.windows(end.len()).position(|w| w == end).map(|at| at + end.len());
    [after(b"\r\n\r\n"), after(b"\n\n")].into_iter().flatten().min()
}

fn target(head: &[u8]) -> Result<Target, Status> {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| Status::BadRequest)?;
    let words: Vec<&str> = line.trim_end_matches('\r').split(' ').collect();
    let [method, to, version] = words[..] else { return Err(Status::BadRequest) };
    if !version.starts_with("HTTP/1.") {
        return Err(Status::BadRequest);
    }
    if method != "CONNECT" {
        return Err(Status::MethodNotAllowed);
    }
    // RFC 9110 §9.3.6: the port is never left out, as there is no scheme to imply one.
    let both: HostPort = to.parse().map_err(|_| Status::BadRequest)?;
    let (host, port) = both.with(None, None).map_err(|_| Status::BadRequest)?;
    if port == 0 {
        return Err(Status::BadRequest);
    }
    Ok(match host.parse::<IpAddr>() {
        Ok(address) => Target::Address((address, port).into()),
        Err(_) => Target::Name(host.to_owned(), port),
    })
}

/// The answer to a request.
pub(super) fn answer(status: Status) -> Vec<u8> {
    let (code, error, text) = status.words();
    let mut answer = format!("HTTP/1.1 {code}\r\n");
    // RFC 9110 §9.3.6: no length after CONNECT has succeeded.
    if status != Status::Connected {
        let allow = if status == Status::MethodNotAllowed { "Allow: CONNECT\r\n" } else { "" };
        let length = text.len() + 1;
        answer += &format!(
            "{allow}Proxy-Status: umptcp; error={error}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
             Connection: close\r\n"
        );
    }
    answer += "\r\n";
    if status != Status::Connected {
        answer += text;
        answer += "\n";
    }
    answer.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    /// What is read from these bytes, which come in pieces of this size.
    fn read(bytes: &[u8], size: usize) -> io::Result<Asked> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut here, mut there) = tokio::io::duplex(size);
            let writing = async {
                // The reader may have seen enough.
                let _ = there.write_all(bytes).await;
                let _ = there.shutdown().await;
            };
            let reading = async {
                let asked = request(&mut here).await;
                drop(here);
                asked
            };
            tokio::join!(reading, writing).0
        })
    }

    #[test]
    fn requests_are_read() {
        let name = |name: &str, port| Ok(Target::Name(name.into(), port));
        for (line, target) in [
            ("CONNECT a.b:443 HTTP/1.1", name("a.b", 443)),
            ("CONNECT a.b:443 HTTP/1.0", name("a.b", 443)),
            ("CONNECT 192.0.2.1:80 HTTP/1.1", Ok(Target::Address("192.0.2.1:80".parse().unwrap()))),
            ("CONNECT [2001:db8::1]:80 HTTP/1.1", Ok(Target::Address("[2001:db8::1]:80".parse().unwrap()))),
            ("GET http://a.b/ HTTP/1.1", Err(Status::MethodNotAllowed)),
            ("connect a.b:443 HTTP/1.1", Err(Status::MethodNotAllowed)),
            ("CONNECT a.b HTTP/1.1", Err(Status::BadRequest)),
            ("CONNECT a.b:0 HTTP/1.1", Err(Status::BadRequest)),
            ("CONNECT a.b:70000 HTTP/1.1", Err(Status::BadRequest)),
            ("CONNECT :443 HTTP/1.1", Err(Status::BadRequest)),
            ("CONNECT  a.b:443 HTTP/1.1", Err(Status::BadRequest)),
            ("CONNECT a.b:443 HTTP/2", Err(Status::BadRequest)),
            ("CONNECT a.b:443", Err(Status::BadRequest)),
            ("", Err(Status::BadRequest)),
            ("\u{1}", Err(Status::BadRequest)),
        ] {
            for end in ["\r\nHost: a.b\r\n\r\n", "\nHost: a.b\n\n"] {
                for size in [1, 7, 4096] {
                    let (asked, _) = read(format!("{line}{end}").as_bytes(), size).unwrap();
                    assert_eq!(asked, target, "{line}");
                }
            }
        }
    }

    #[test]
    fn what_comes_after_the_head_is_kept() {
        let (asked, rest) = read(b"CONNECT a.b:1 HTTP/1.1\r\n\r\n\x16\x03\n\nx", 4096).unwrap();
        assert_eq!((asked, &rest[..]), (Ok(Target::Name("a.b".into(), 1)), &b"\x16\x03\n\nx"[..]));
    }

    #[test]
    fn a_head_is_bounded_and_must_end() {
        let endless = [&b"CONNECT a.b:1 HTTP/1.1\r\n"[..], &b"A: b\r\n".repeat(10_000)].concat();
        assert_eq!(read(&endless, 4096).unwrap().0, Err(Status::HeadTooLong));
        for cut in ["", "CONNECT a.b:1", "CONNECT a.b:1 HTTP/1.1\r\nHost: a.b\r\n"] {
            assert_eq!(read(cut.as_bytes(), 4096).unwrap_err().kind(), ErrorKind::UnexpectedEof, "{cut}");
        }
        assert_eq!(read(b"CONNECT \xff:1 HTTP/1.1\r\n\r\n", 64).unwrap().0, Err(Status::BadRequest));
    }

    #[test]
    fn answers_say_what_has_happened() {
        assert_eq!(answer(Status::Connected), b"HTTP/1.1 200 Connection established\r\n\r\n");
        for (kind, code, word) in [
            (ErrorKind::ConnectionRefused, "502", "connection_refused"),
            (ErrorKind::HostUnreachable, "502", "destination_unavailable"),
            (ErrorKind::NetworkUnreachable, "502", "destination_ip_unroutable"),
            (ErrorKind::TimedOut, "504", "connection_timeout"),
            (ErrorKind::Unsupported, "403", "destination_ip_prohibited"),
            (ErrorKind::Other, "502", "proxy_internal_error"),
        ] {
            let text = String::from_utf8(answer(Status::of(&kind.into()))).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {code} ")) && head.contains(word), "{text}");
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{text}");
        }
        assert!(
            String::from_utf8(answer(Status::MethodNotAllowed)).unwrap().contains("\r\nAllow: CONNECT\r\n")
        );
    }
}

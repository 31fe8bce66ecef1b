//! Connections by a relay (RFC 8803), for servers that speak no MPTCP.

use crate::attempts::in_turn;
use ipnet::IpNet;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use umptcp_convert::ConvertError;
use umptcp_relay::{AnswerError, Credential};
use umptcp_stack_core::error::ConnectionError;
use umptcp_stack_core::wire::icmp::Unreachable;

/// Longest file of a key that is read, in bytes.
const LONGEST_FILE: u64 = 64 << 10;

/// A relay (RFC 8803; `umptcp relay`) by which connections are made: MPTCP to the relay, and TCP from there on,
/// for servers that speak no MPTCP.
///
/// What a connection by a relay gives is what it gives without: it stands when the server has answered the
/// relay, it fails with the error that the server or the network gave, and
/// [`peer_addr`](crate::MptcpStream::peer_addr) is the server. The relay itself, and [networks that are
/// excepted](Self::except), are reached directly.
///
/// The request, and with [Fast Open](crate::StreamBuilder::fast_open) the first SYN, carries what shows that the
/// client has a key. It authorises; nothing is encrypted.
///
/// ```no_run
/// # #[cfg(target_os = "linux")]
/// # fn run() -> std::io::Result<()> {
/// use umptcp::{Stack, Via};
///
/// let relay = Via::new("relay.example.org:8803")?.key_file("relay.key")?;
/// let stack = Stack::builder().all_nics().via(relay).start()?;
/// let stream = stack.connect("192.0.2.1:80")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Via {
    relay: Arc<[SocketAddr]>,
    credential: Option<Arc<Credential>>,
    resolves: bool,
    except: Arc<[IpNet]>,
}

impl Via {
    /// A relay at any of these addresses. A name is resolved now.
    ///
    /// # Errors
    /// When a name cannot be resolved, or has no address.
    pub fn new(relay: impl ToSocketAddrs) -> io::Result<Via> {
        let relay = in_turn(relay.to_socket_addrs()?);
        if relay.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the relay's name has no address"));
        }
        Ok(Via { relay: relay.into(), credential: None, resolves: false, except: Arc::new([]) })
    }

    /// By what the relay knows this client.
    pub fn credential(mut self, credential: Credential) -> Via {
        self.credential = Some(Arc::new(credential));
        self
    }

    /// The same, from a file with the one line that `umptcp relay key NAME` has printed.
    ///
    /// # Errors
    /// When it cannot be read, or is none ([`io::ErrorKind::InvalidData`]), or when others than its owner and
    /// group may read it ([`io::ErrorKind::PermissionDenied`]).
    pub fn key_file(self, file: impl AsRef<Path>) -> io::Result<Via> {
        let text = read_secret(file.as_ref())?;
        let credential =
            Credential::read_one(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(self.credential(credential))
    }

    /// Servers in these networks are reached directly.
    pub fn except(mut self, nets: impl IntoIterator<Item = IpNet>) -> Via {
        self.except = self.except.iter().copied().chain(nets).collect();
        self
    }

    /// Whether the relay resolves the names of servers, where a connection is made by name
    /// ([`StreamBuilder::connect_name`](crate::StreamBuilder::connect_name)). Otherwise this host does.
    pub fn resolve(mut self, there: bool) -> Via {
        self.resolves = there;
        self
    }

    /// Whether the relay [resolves](Self::resolve) names.
    pub fn resolves(&self) -> bool {
        self.resolves
    }

    /// The addresses of the relay.
    pub fn relay(&self) -> &[SocketAddr] {
        &self.relay
    }

    pub(crate) fn credential_to_show(&self) -> Option<&Arc<Credential>> {
        self.credential.as_ref()
    }

    /// Whether a connection to this server is made by the relay.
    pub(crate) fn takes(&self, server: SocketAddr) -> bool {
        let ip = server.ip().to_canonical();
        !(self.relay.iter().any(|relay| relay.ip() == ip) || self.except.iter().any(|net| net.contains(&ip)))
    }
}

/// A file with keys, which nobody else may read.
fn read_secret(file: &Path) -> io::Result<String> {
    let mut open = File::open(file)?;
    #[cfg(unix)]
    if umptcp_relay::is_open_to_all(&open)? {
        let what = format!("everybody may use {0}: chmod 600 {0}", file.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    let mut text = String::new();
    open.by_ref().take(LONGEST_FILE).read_to_string(&mut text)?;
    Ok(text)
}

/// What the program sees for an answer of the relay: what the server or the network would have said to it.
pub(crate) fn meaning(answer: &AnswerError, server: SocketAddr) -> ConnectionError {
    match answer {
        AnswerError::Refused(ConvertError::ConnectionReset) => ConnectionError::Refused,
        AnswerError::Refused(ConvertError::DestinationUnreachable { code }) => {
            ConnectionError::Unreachable(Unreachable::of_code(*code, server.ip().to_canonical().is_ipv4()))
        }
        AnswerError::Refused(ConvertError::NoSuchName) => ConnectionError::Unreachable(Unreachable::Host),
        // RFC 8803 has no code for a server that does not answer; ours says so by this one.
        AnswerError::Refused(ConvertError::NetworkFailure { .. }) => ConnectionError::TimedOut,
        AnswerError::Refused(ConvertError::ResourceExceeded { .. }) => ConnectionError::Resources,
        AnswerError::Refused(ConvertError::NotAuthorized) => {
            ConnectionError::Unreachable(Unreachable::Prohibited)
        }
        _ => ConnectionError::Reset,
    }
}

/// Whether an answer is the server's or the network's, and not the relay's own.
pub(crate) fn is_of_server(answer: &AnswerError) -> bool {
    use ConvertError::{ConnectionReset, DestinationUnreachable, NetworkFailure};
    let AnswerError::Refused(error) = answer else { return false };
    matches!(error, ConnectionReset | DestinationUnreachable { .. } | NetworkFailure { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relay_and_what_is_excepted_are_reached_directly() {
        let via = Via::new(&["192.0.2.1:8803".parse::<SocketAddr>().unwrap()][..]).unwrap();
        let via = via.except(["10.0.0.0/8".parse().unwrap()]);
        let takes = |to: &str| via.takes(to.parse().unwrap());
        assert!(takes("192.0.2.2:80") && takes("[2001:db8::1]:80"));
        assert!(!takes("192.0.2.1:22") && !takes("[::ffff:192.0.2.1]:22") && !takes("10.1.2.3:80"));
    }

    #[test]
    fn answers_mean_what_the_program_would_see_directly() {
        let server: SocketAddr = "192.0.2.1:80".parse().unwrap();
        let six: SocketAddr = "[2001:db8::1]:80".parse().unwrap();
        let of = |error: ConvertError, to: SocketAddr| meaning(&error.into(), to);
        assert_eq!(of(ConvertError::ConnectionReset, server), ConnectionError::Refused);
        let code = |code| ConvertError::DestinationUnreachable { code };
        for (number, to, why) in [
            (0, server, Unreachable::Network),
            (1, server, Unreachable::Host),
            (3, server, Unreachable::Port),
            (13, server, Unreachable::Prohibited),
            (200, server, Unreachable::Host),
            (0, six, Unreachable::Network),
            (1, six, Unreachable::Prohibited),
            (3, six, Unreachable::Host),
            (4, six, Unreachable::Port),
        ] {
            assert_eq!(of(code(number), to), ConnectionError::Unreachable(why), "{number}");
        }
        assert_eq!(of(ConvertError::NetworkFailure { delay: 0 }, server), ConnectionError::TimedOut);
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_everybody_may_read_is_not_used() {
        use std::os::unix::fs::PermissionsExt as _;
        let file = std::env::temp_dir().join(format!("umptcp-via-{}", std::process::id()));
        std::fs::write(&file, format!("me {}\n", "01".repeat(32))).unwrap();
        let mode = |mode| {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            Via::new("192.0.2.1:8803").unwrap().key_file(&file)
        };
        assert_eq!(mode(0o644).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert!(mode(0o640).unwrap().credential.is_some());
        std::fs::write(&file, "me 01\n").unwrap();
        assert_eq!(mode(0o600).unwrap_err().kind(), io::ErrorKind::InvalidData);
        std::fs::remove_file(&file).unwrap();
    }
}

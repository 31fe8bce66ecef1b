//! Names of servers, which the relay resolves for its clients.

use super::{is_of_this_host, lock};
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use umptcp::attempts::in_turn;
use umptcp_convert::{ConnectName, ConvertError};
use umptcp_relay::{ClientName, Destinations};

/// How long a resolver may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Most addresses of a name that are tried.
const MOST: usize = 8;

/// Most names that are being resolved for a client, and for all. Each takes a thread until the resolver of the host gives
/// up, which may be long after the client has; there are 512 for all that blocks.
const MOST_OF_CLIENT: usize = 32;
const MOST_OF_ALL: usize = 256;

/// What the resolver of the C library says when no server has answered it (`EAI_AGAIN`, `EAI_FAIL`): in glibc, in musl.
/// The number is not to be had.
const NO_ANSWER: [&str; 4] = [
    "Temporary failure in name resolution",
    "Non-recoverable failure in name resolution",
    "Try again",
    "Non-recoverable error",
];

/// Names that are being resolved.
pub(super) struct Resolving {
    all: Arc<Semaphore>,
    clients: Mutex<HashMap<ClientName, Arc<Semaphore>>>,
}

impl Default for Resolving {
    fn default() -> Self {
        Resolving { all: Arc::new(Semaphore::new(MOST_OF_ALL)), clients: Mutex::default() }
    }
}

impl Resolving {
    /// Waits for its turn. The client's comes first: who waits for that takes no place of others.
    async fn begin(&self, client: Option<&ClientName>) -> Option<[Option<OwnedSemaphorePermit>; 2]> {
        let of_client = client.map(|client| {
            let mut clients = lock(&self.clients);
            clients.entry(client.clone()).or_insert_with(|| Arc::new(Semaphore::new(MOST_OF_CLIENT))).clone()
        });
        let of_client = match of_client {
            Some(of_client) => Some(of_client.acquire_owned().await.ok()?),
            None => None,
        };
        Some([of_client, Some(self.all.clone().acquire_owned().await.ok()?)])
    }

    async fn look(&self, client: Option<&ClientName>, name: &ConnectName) -> io::Result<Vec<SocketAddr>> {
        let turn = self.begin(client).await.ok_or(io::ErrorKind::Other)?;
        let (host, port) = (name.host.clone(), name.port);
        let look = move || -> io::Result<Vec<SocketAddr>> {
            // Nobody can stop it: its place is free when it has ended, whether or not somebody still waits.
            let _turn = turn;
            Ok(in_turn((host.as_str(), port).to_socket_addrs()?))
        };
        spawn_blocking(look).await?
    }

    /// The addresses of a server that clients may connect to. They are what is dialled: whoever has the name cannot
    /// give another answer in between.
    ///
    /// # Errors
    /// Why there is none, and what the client is told.
    pub(super) async fn resolve(
        &self,
        client: Option<&ClientName>,
        name: &ConnectName,
        destinations: &Destinations,
    ) -> Result<Vec<SocketAddr>, (String, ConvertError)> {
        let all: io::Result<Vec<SocketAddr>> = match timeout(PATIENCE, self.look(client, name)).await {
            Ok(found) => found,
            Err(_) => {
                let why = "no answer of a resolver in time".to_owned();
                return Err((why, ConvertError::NetworkFailure { delay: 0 }));
            }
        };
        let all = all.map_err(|error| {
            let answer = answer(&error);
            (error.to_string(), answer)
        })?;
        select(&all, |to| destinations.check(to, is_of_this_host).map_err(|why| why.to_string()))
    }
}

/// What the client is told of a resolver's error.
fn answer(error: &io::Error) -> ConvertError {
    let text = error.to_string();
    // An error of the system (`EAI_SYSTEM`) is none of the name.
    if error.raw_os_error().is_some() || NO_ANSWER.iter().any(|says| text.ends_with(says)) {
        ConvertError::NetworkFailure { delay: 0 }
    } else {
        ConvertError::NoSuchName
    }
}

fn select(
    all: &[SocketAddr],
    check: impl Fn(SocketAddr) -> Result<(), String>,
) -> Result<Vec<SocketAddr>, (String, ConvertError)> {
    let (mut allowed, mut why) = (Vec::new(), None);
    for to in all {
        match check(*to) {
            Ok(()) if allowed.len() < MOST => allowed.push(*to),
            Ok(()) => {}
            Err(reason) => why = Some(format!("{}: {reason}", to.ip())),
        }
    }
    match why {
        _ if !allowed.is_empty() => Ok(allowed),
        Some(why) => Err((why, ConvertError::NotAuthorized)),
        None => Err(("no address".to_owned(), ConvertError::NoSuchName)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_private_is_left_out_and_never_dialled() {
        let at = |texts: &[&str]| -> Vec<SocketAddr> { texts.iter().map(|t| t.parse().unwrap()).collect() };
        let check = |to| Destinations::default().check(to, |_| false).map_err(|why| why.to_string());
        let select = |texts: &[&str]| select(&at(texts), check);
        let both = ["10.0.0.1:80", "192.0.2.1:80", "[::1]:80", "[2001:db8::1]:80"];
        assert_eq!(select(&both), Ok(at(&["192.0.2.1:80", "[2001:db8::1]:80"])));
        for private in ["127.0.0.1:80", "[::ffff:192.168.0.1]:80", "169.254.169.254:80", "[fd00::1]:80"] {
            let (why, answer) = select(&[private]).unwrap_err();
            assert!(why.contains("not a public address"), "{private}: {why}");
            assert_eq!(answer, ConvertError::NotAuthorized);
        }
        assert_eq!(select(&[]).unwrap_err().1, ConvertError::NoSuchName);
        assert_eq!(select(&["192.0.2.1:80"; 20]).unwrap().len(), MOST);
    }

    #[test]
    fn addresses_in_the_clothes_of_names_are_looked_at() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for host in ["127.0.0.1", "127.1", "0x7f.0.0.1", "2130706433", "localhost", "10.1"] {
            let name = ConnectName { host: host.to_owned(), port: 80 };
            let (resolving, to) = (Resolving::default(), Destinations::default());
            let answer = runtime.block_on(resolving.resolve(None, &name, &to)).unwrap_err().1;
            let of_a_name = matches!(answer, ConvertError::NoSuchName | ConvertError::NetworkFailure { .. });
            assert!(answer == ConvertError::NotAuthorized || of_a_name, "{host}: {answer:?}");
        }
    }

    #[test]
    fn a_client_has_its_share_of_the_resolver_and_keeps_it_until_the_resolver_is_done() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let resolving = Resolving::default();
            let (a, b): (ClientName, ClientName) = ("a".parse().unwrap(), "b".parse().unwrap());
            let mut turns = Vec::new();
            for _ in 0..MOST_OF_CLIENT {
                turns.push(resolving.begin(Some(&a)).await.unwrap());
            }
            let soon = Duration::from_millis(1);
            assert!(timeout(soon, resolving.begin(Some(&a))).await.is_err(), "it has all of its share");
            turns.push(resolving.begin(Some(&b)).await.unwrap());
            turns.remove(0);
            turns.push(resolving.begin(Some(&a)).await.unwrap());
            for _ in turns.len()..MOST_OF_ALL {
                turns.push(resolving.begin(None).await.unwrap());
            }
            assert!(timeout(soon, resolving.begin(Some(&b))).await.is_err(), "all have all");
            assert_eq!(resolving.all.available_permits(), 0);
        });
    }

    #[test]
    fn a_resolver_that_fails_is_no_answer_about_the_name() {
        let of =
            |says: &str| answer(&io::Error::other(format!("failed to lookup address information: {says}")));
        for says in NO_ANSWER {
            assert_eq!(of(says), ConvertError::NetworkFailure { delay: 0 });
        }
        assert_eq!(of("Name or service not known"), ConvertError::NoSuchName);
        assert_eq!(of("Name does not resolve"), ConvertError::NoSuchName);
        assert_eq!(answer(&io::Error::from_raw_os_error(24)), ConvertError::NetworkFailure { delay: 0 });
    }
}

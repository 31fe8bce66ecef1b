//! Names of servers, which the relay resolves for its clients.

use super::is_of_this_host;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::time::timeout;
use umptcp_convert::{ConnectName, ConvertError};
use umptcp_relay::Destinations;

/// How long a resolver may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Most addresses of a name that are tried.
const MOST: usize = 8;

/// The addresses of a server that clients may connect to. They are what is dialled: whoever has the name cannot
/// give another answer in between.
///
/// # Errors
/// Why there is none, and what the client is told.
pub(super) async fn resolve(
    name: &ConnectName,
    destinations: &Destinations,
) -> Result<Vec<SocketAddr>, (String, ConvertError)> {
    let found = timeout(PATIENCE, lookup_host((name.host.as_str(), name.port))).await;
    let all: Vec<SocketAddr> = match found {
        Ok(Ok(all)) => all.collect(),
        Ok(Err(error)) => return Err((error.to_string(), ConvertError::NoSuchName)),
        Err(_) => return Err(("no answer of a resolver".to_owned(), ConvertError::NoSuchName)),
    };
    select(&all, |to| destinations.check(to, is_of_this_host).map_err(|why| why.to_string()))
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
            let answer = runtime.block_on(resolve(&name, &Destinations::default())).unwrap_err().1;
            assert!(matches!(answer, ConvertError::NotAuthorized | ConvertError::NoSuchName), "{host}");
        }
    }
}

//! In which order, and when, to try the addresses of a peer (RFC 8305).

use std::net::SocketAddr;
use std::time::Duration;

/// How long an attempt may go without an answer before the next is made beside it (RFC 8305 §5).
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// IPv4 addresses that come as IPv6 (RFC 4291 §2.5.5.2) are IPv4.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if ip == address.ip() => address,
        ip => SocketAddr::new(ip, address.port()),
    }
}

/// The addresses in the order in which to try them, each once: as given, but the families in turn (RFC 8305
/// §4).
pub fn in_turn(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut all: Vec<SocketAddr> = Vec::new();
    for address in addresses.map(canonical) {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    let first_is_v6 = all.first().is_some_and(SocketAddr::is_ipv6);
    let (one, other): (Vec<_>, Vec<_>) = all.into_iter().partition(|a| a.is_ipv6() == first_is_v6);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut sorted = Vec::new();
    loop {
        let pair = [one.next(), other.next()];
        if pair == [None, None] {
            return sorted;
        }
        sorted.extend(pair.into_iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remotes(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| format!("{text}:80").parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_and_no_address_comes_twice() {
        let given = ["[2001:db8::1]", "[2001:db8::2]", "192.0.2.1", "[::ffff:192.0.2.1]", "[2001:db8::3]"];
        let sorted = in_turn(remotes(&given).into_iter());
        assert_eq!(sorted, remotes(&["[2001:db8::1]", "192.0.2.1", "[2001:db8::2]", "[2001:db8::3]"]));
        assert_eq!(in_turn(remotes(&[]).into_iter()), []);
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        for (text, canonically) in
            [("[::ffff:192.0.2.1]:80", "192.0.2.1:80"), ("[2001:db8::1]:80", "[2001:db8::1]:80")]
        {
            assert_eq!(canonical(text.parse().unwrap()).to_string(), canonically);
        }
    }
}

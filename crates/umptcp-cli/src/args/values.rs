//! Parsing of option values.

use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;
use umptcp_lab::units;
use umptcp_tun_driver::error::DriverError;
use umptcp_tun_driver::paths::PathSpec;

/// Reads a `--path` option: `DEV[,address=A][,mode=nat|routed|udp|auto][,advertise=A][,backup][,metered][,weight=N][,cost=N][,cap=SIZE/month|connection]`.
pub(crate) fn parse_path(text: &str) -> Result<PathSpec, String> {
    text.parse().map_err(|error| match error {
        // clap already quotes the option's value.
        DriverError::Spec { reason, .. } => reason,
        other => other.to_string(),
    })
}

/// Reads the name of an instance.
pub(crate) fn parse_instance(text: &str) -> Result<String, String> {
    if umptcp_control::message::is_name(text) {
        return Ok(text.to_owned());
    }
    Err("use up to 64 letters, digits, '-', '_', '.', and begin with a letter or digit".to_owned())
}

/// Where to listen: `PORT` (every address) or `ADDRESS:PORT`, an IPv6 address in brackets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ListenAddress {
    /// The address; `None` means all.
    pub(crate) address: Option<IpAddr>,
    /// The port.
    pub(crate) port: u16,
}

impl ListenAddress {
    /// Whether both want the same port: all addresses leave none for a single one.
    pub(crate) fn overlaps(self, other: ListenAddress) -> bool {
        let every = self.address.is_none() || other.address.is_none();
        self.port == other.port && (every || self.address == other.address)
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(port) = text.parse() {
            return Ok(ListenAddress { address: None, port });
        }
        if let Some(port) = text.strip_prefix("*:").and_then(|p| p.parse().ok()) {
            return Ok(ListenAddress { address: None, port });
        }
        if let Ok(both) = text.parse::<SocketAddr>() {
            return Ok(ListenAddress { address: Some(both.ip()), port: both.port() });
        }
        Err(format!(
            "{text:?} is neither PORT nor ADDRESS:PORT (an IPv6 address in brackets: [2001:db8::1]:8684)"
        ))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => SocketAddr::new(address, self.port).fmt(f),
            None => write!(f, "*:{}", self.port),
        }
    }
}

/// A server: `HOST` or `HOST:PORT`, where HOST is a name, an IPv4 address, or an IPv6 address, in brackets if
/// a port follows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct HostPort {
    host: String,
    port: Option<u16>,
}

impl HostPort {
    /// Host and port, where `beside` is the port that was given as an argument of its own.
    pub(crate) fn with(&self, beside: Option<u16>, default: Option<u16>) -> Result<(&str, u16), String> {
        let port = match (self.port, beside) {
            (Some(_), Some(_)) => return Err(format!("the port is given twice: {self} and beside it")),
            (port, beside) => port.or(beside).or(default),
        };
        let missing = || format!("the port is missing: {self} PORT, or {self}:PORT");
        Ok((&self.host, port.ok_or_else(missing)?))
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |what: &str| {
            format!("{what} in {text:?}; use HOST, HOST:PORT, or for an IPv6 address [2001:db8::1]:PORT")
        };
        let port_of = |text: &str| text.parse::<u16>().map_err(|_| bad("no valid port"));
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, after) = rest.split_once(']').ok_or_else(|| bad("a bracket is not closed"))?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port_of(port)?)),
                None if after.is_empty() => (host, None),
                None => return Err(bad("something follows the bracket")),
            }
        } else {
            match text.split_once(':') {
                // Several colons: an IPv6 address.
                Some((_, rest)) if rest.contains(':') => (text, None),
                Some((host, port)) => (host, Some(port_of(port)?)),
                None => (text, None),
            }
        };
        if host.is_empty() {
            return Err(bad("no host"));
        }
        Ok(HostPort { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host.contains(':'), self.port) {
            (false, None) => f.write_str(&self.host),
            (false, Some(port)) => write!(f, "{}:{port}", self.host),
            (true, None) => write!(f, "[{}]", self.host),
            (true, Some(port)) => write!(f, "[{}]:{port}", self.host),
        }
    }
}

/// Where the proxy listens: `PORT` at localhost, or `ADDRESS:PORT`.
pub(crate) fn parse_proxy_address(text: &str) -> Result<SocketAddr, String> {
    let at_localhost = || text.parse().ok().map(|port: u16| (Ipv4Addr::LOCALHOST, port).into());
    let bad =
        || format!("{text:?} is neither PORT nor ADDRESS:PORT (an IPv6 address in brackets: [::1]:1080)");
    text.parse().ok().or_else(at_localhost).ok_or_else(bad)
}

/// An address or a network.
pub(crate) fn parse_net(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let bad =
        || format!("{text:?} is neither an address nor a network such as 192.0.2.0/24 or 2001:db8::/32");
    text.parse().ok().or_else(address).ok_or_else(bad)
}

/// A number of bytes: `4096`, `64k`, `16Ki`, `1.5G`. `k`, `M`, `G`, `T` are powers of 1000; `Ki`, `Mi`, … of
/// 1024.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is not a number of bytes such as 4096, 64k, 16Mi or 1.5G");
    units::short_bytes(text).ok_or_else(bad)
}

/// A duration in seconds, `10` or `0.5`, or with a unit, `500ms`, `2s`, `1m`; at most one day.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration in seconds such as 10, 0.5 or 500ms, at most one day");
    let range = Duration::from_millis(1)..=Duration::from_secs(86_400);
    units::short_time(text).filter(|time| range.contains(time)).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let path = parse_path("eth1,address=10.1.0.2,mode=routed").unwrap();
        assert_eq!(path, PathSpec::routed("eth1", "10.1.0.2".parse().unwrap()));
        assert_eq!(
            parse_path("eth0,mode=bridge").unwrap_err(),
            "mode=bridge: the modes are nat, routed, udp and auto"
        );
    }

    #[test]
    fn addresses_of_the_proxy_and_its_clients() {
        for (text, shown) in [
            ("1080", "127.0.0.1:1080"),
            ("0", "127.0.0.1:0"),
            ("[::1]:5", "[::1]:5"),
            ("10.0.0.1:5", "10.0.0.1:5"),
        ] {
            assert_eq!(parse_proxy_address(text).unwrap().to_string(), shown);
        }
        assert!(parse_proxy_address("localhost:1").unwrap_err().contains("neither PORT nor"));
        for (text, shown) in [("10.0.0.0/8", "10.0.0.0/8"), ("::1", "::1/128"), ("10.0.0.1", "10.0.0.1/32")] {
            assert_eq!(parse_net(text).unwrap().to_string(), shown);
        }
        assert!(parse_net("10/8").unwrap_err().contains("neither an address"));
    }

    #[test]
    fn listen_addresses() {
        for (text, shown) in
            [("80", "*:80"), ("*:80", "*:80"), ("10.0.0.1:5", "10.0.0.1:5"), ("[::1]:5", "[::1]:5")]
        {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), shown);
        }
        for bad in ["", "70000", "::1", "host:80", "10.0.0.1"] {
            assert!(bad.parse::<ListenAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn servers() {
        let both = |text: &str, beside| {
            let server: HostPort = text.parse().unwrap();
            server.with(beside, None).map(|(host, port)| format!("{host} {port}"))
        };
        for (text, beside, means) in [
            ("example.org", Some(80), "example.org 80"),
            ("example.org:80", None, "example.org 80"),
            ("192.0.2.1:80", None, "192.0.2.1 80"),
            ("2001:db8::1", Some(80), "2001:db8::1 80"),
            ("[2001:db8::1]:80", None, "2001:db8::1 80"),
            ("[2001:db8::1]", Some(80), "2001:db8::1 80"),
            ("fe80::1%eth0", Some(80), "fe80::1%eth0 80"),
        ] {
            assert_eq!(both(text, beside).unwrap(), means, "{text}");
        }
        assert!(both("h:80", Some(81)).unwrap_err().contains("twice"));
        assert!(both("2001:db8::1", None).unwrap_err().contains("[2001:db8::1]:PORT"));
        let default: HostPort = "h".parse().unwrap();
        assert_eq!(default.with(None, Some(5)), Ok(("h", 5)));
        for bad in ["", ":80", "h:", "h:x", "h:70000", "[::1", "[::1]80", "[]:5"] {
            assert!(bad.parse::<HostPort>().is_err(), "{bad}");
        }
    }

    #[test]
    fn bytes() {
        for (text, value) in [
            ("0", 0),
            ("17", 17),
            ("64k", 64_000),
            ("16Ki", 16_384),
            ("1.5G", 1_500_000_000),
            ("2MiB", 2 << 20),
        ] {
            assert_eq!(parse_bytes(text), Ok(value), "{text}");
        }
        for bad in ["", "k", "1.5", "-1", "1x", "1ki i", "99999999T", "1e5", "i", "5i"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations() {
        for (text, millis) in [("2", 2000), ("0.5", 500), ("500ms", 500), ("3s", 3000), ("1m", 60_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "0", "-1", "ten", "1h", "90000", "NaN", "inf"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}

//! Parsing of option values.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;
use umptcp_lab::units;
use umptcp_tun_driver::error::DriverError;
use umptcp_tun_driver::paths::PathSpec;

/// Reads a `--path` option: `DEV[,address=A][,mode=nat|routed][,advertise=A][,backup][,weight=N]`.
pub(crate) fn parse_path(text: &str) -> Result<PathSpec, String> {
    text.parse().map_err(|error| match error {
        // clap already quotes the option's value.
        DriverError::Spec { reason, .. } => reason,
        other => other.to_string(),
    })
}

/// Where to listen: `PORT` (every address) or `ADDRESS:PORT`, an IPv6 address in brackets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ListenAddress {
    /// The address; `None` means all.
    pub(crate) address: Option<IpAddr>,
    /// The port.
    pub(crate) port: u16,
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
        assert_eq!(parse_path("eth0,mode=bridge").unwrap_err(), "mode=bridge: the modes are nat and routed");
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

//! Values of options that need more than a number or a word.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

/// How packets get from the stack's TUN device to the NIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum PathMode {
    /// The stack's address is private and translated to the NIC's.
    #[default]
    Nat,
    /// The network routes the stack's address to this host.
    Routed,
}

/// A `--path` option: `DEV[,address=A][,mode=nat|routed][,advertise=A][,backup][,weight=N]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PathArg {
    /// The NIC.
    pub(crate) device: String,
    /// Addresses for the stack, at most one of each family; empty: chosen when the path is set up.
    pub(crate) addresses: Vec<IpAddr>,
    /// Translation or not.
    pub(crate) mode: PathMode,
    /// The address to tell the peer instead.
    pub(crate) advertise: Option<IpAddr>,
    /// Its subflows are backups.
    pub(crate) backup: bool,
    /// Weight for schedulers that use one.
    pub(crate) weight: u32,
}

const PATH_KEYS: &str = "address=A, mode=nat|routed, advertise=A, backup, weight=N";

impl FromStr for PathArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let device = parts.next().unwrap_or_default();
        // The kernel's IFNAMSIZ is 16 with the terminating zero.
        if device.is_empty() || device.len() > 15 || device.contains(['/', '=', ' ']) {
            return Err(format!(
                "{device:?} is not the name of a network interface; a path is DEV[,OPTION]... with the options {PATH_KEYS}"
            ));
        }
        let mut path = PathArg {
            device: device.to_owned(),
            addresses: Vec::new(),
            mode: PathMode::default(),
            advertise: None,
            backup: false,
            weight: 1,
        };
        let mut mode_given = false;
        for part in parts {
            match part.split_once('=') {
                Some(("address", value)) => {
                    let address = parse_address("address", value)?;
                    if path.addresses.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
                        return Err("address= is given twice for the same address family".to_owned());
                    }
                    path.addresses.push(address);
                }
                Some(("advertise", value)) => {
                    if path.advertise.replace(parse_address("advertise", value)?).is_some() {
                        return Err("advertise= is given twice".to_owned());
                    }
                }
                Some(("mode", value)) => {
                    path.mode = match value {
                        "nat" => PathMode::Nat,
                        "routed" => PathMode::Routed,
                        _ => return Err(format!("there is no path mode {value:?}; known are: nat, routed")),
                    };
                    if std::mem::replace(&mut mode_given, true) {
                        return Err("mode is given twice".to_owned());
                    }
                }
                Some(("weight", value)) => {
                    path.weight = match value.parse() {
                        Ok(weight) if weight > 0 => weight,
                        _ => {
                            return Err(format!(
                                "weight={value} is not a whole number from 1 to {}",
                                u32::MAX
                            ));
                        }
                    };
                }
                None if part == "backup" => path.backup = true,
                _ => return Err(format!("there is no path option {part:?}; known are: {PATH_KEYS}")),
            }
        }
        if path.mode == PathMode::Routed && path.addresses.is_empty() {
            return Err(format!(
                "a routed path needs the address that the network routes to this host: {device},mode=routed,address=A"
            ));
        }
        Ok(path)
    }
}

fn parse_address(key: &str, value: &str) -> Result<IpAddr, String> {
    let address: IpAddr =
        value.parse().map_err(|_| format!("{key}={value}: that is not an IPv4 or IPv6 address"))?;
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        return Err(format!("{key}={value}: that is not an address a host can have on a network"));
    }
    Ok(address)
}

impl fmt::Display for PathArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.device)?;
        for address in &self.addresses {
            write!(f, ",address={address}")?;
        }
        if self.mode == PathMode::Routed {
            f.write_str(",mode=routed")?;
        }
        if let Some(address) = self.advertise {
            write!(f, ",advertise={address}")?;
        }
        if self.backup {
            f.write_str(",backup")?;
        }
        if self.weight != 1 {
            write!(f, ",weight={}", self.weight)?;
        }
        Ok(())
    }
}

/// Where to listen: `PORT` (every address) or `ADDRESS:PORT`, an IPv6 address in brackets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ListenAddress {
    /// The address, `None` for all.
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

/// A number of bytes: `4096`, `64k`, `16Ki`, `1.5G`. `k`, `M`, `G`, `T` are powers of 1000; `Ki`, `Mi`, … of 1024.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is not a number of bytes such as 4096, 64k, 16Mi or 1.5G");
    let text = text.strip_suffix(['B', 'b']).unwrap_or(text);
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (prefix, base) = match unit.strip_suffix('i') {
        Some(prefix) => (prefix, 1024u64),
        None => (unit, 1000),
    };
    let exponent = match prefix {
        "" if base == 1000 => 0,
        "k" | "K" => 1,
        "m" | "M" => 2,
        "g" | "G" => 3,
        "t" | "T" => 4,
        _ => return Err(bad()),
    };
    let factor = base.pow(exponent);
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(bad);
    }
    let value = number.parse::<f64>().map_err(|_| bad())? * factor as f64;
    // Above 2^53 a fraction means nothing any more.
    if exponent == 0 || !(0.0..9e15).contains(&value) { Err(bad()) } else { Ok(value as u64) }
}

/// A length of time in seconds, `10` or `0.5`, or with a unit, `500ms`, `2s`, `1m`; at most a day.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad =
        || format!("{text:?} is not a length of time in seconds such as 10, 0.5 or 500ms, at most a day");
    let (number, factor) = if let Some(n) = text.strip_suffix("ms") {
        (n, 1e-3)
    } else if let Some(n) = text.strip_suffix('s') {
        (n, 1.0)
    } else if let Some(n) = text.strip_suffix('m') {
        (n, 60.0)
    } else {
        (text, 1.0)
    };
    let seconds = number.parse::<f64>().map_err(|_| bad())? * factor;
    if !(0.001..=86_400.0).contains(&seconds) {
        return Err(bad());
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let p: PathArg = "wlan0".parse().unwrap();
        assert_eq!((p.device.as_str(), p.mode, p.backup, p.weight), ("wlan0", PathMode::Nat, false, 1));
        let text = "eth1,address=10.1.0.2,address=fd00::2,mode=routed,advertise=192.0.2.7,backup,weight=3";
        let p: PathArg = text.parse().unwrap();
        assert_eq!(p.addresses, ["10.1.0.2".parse::<IpAddr>().unwrap(), "fd00::2".parse().unwrap()]);
        assert_eq!(p.advertise, "192.0.2.7".parse().ok());
        assert_eq!((p.mode, p.backup, p.weight), (PathMode::Routed, true, 3));
        assert_eq!(p.to_string(), text);
        for (bad, names) in [
            ("", "address=A"),
            ("eth0,", "known are"),
            ("eth0,metric=2", "weight=N"),
            ("eth0,mode=bridge", "nat, routed"),
            ("eth0,mode=nat,mode=nat", "twice"),
            ("eth0,mode=routed", "address"),
            ("eth0,weight=0", "whole number"),
            ("eth0,address=nowhere", "not an IPv4 or IPv6"),
            ("eth0,address=127.0.0.1", "on a network"),
            ("eth0,address=10.0.0.1,address=10.0.0.2", "twice"),
            ("eth0,advertise=10.0.0.1,advertise=10.0.0.2", "twice"),
            ("averyveryverylongname", "network interface"),
        ] {
            let error = bad.parse::<PathArg>().unwrap_err();
            assert!(error.contains(names), "{bad}: {error}");
        }
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

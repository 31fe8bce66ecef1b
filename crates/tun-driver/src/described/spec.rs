//! Path descriptions.

use super::caps::Caps;
use crate::error::DriverError;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use umptcp_stack_core::device::{ChosenIds, PathConfig, SignalPort};
use umptcp_stack_core::path_manager::Uses;
use umptcp_types::AddressId;

/// How a path's address is bound to its NIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// A private address, translated to the NIC's.
    #[default]
    Nat,
    /// An address that the network routes to this host, or for which this host answers. No NAT.
    Routed,
    /// The NIC's own address, inside UDP: sockets only. Not set up by [`set_up`](crate::paths::set_up).
    Udp,
    /// Both [`Nat`](Self::Nat) and [`Udp`](Self::Udp): inside UDP where the network is in the way of what is native. It
    /// stands for two paths ([`PathSpec::ways`]), and is not set up itself.
    Auto,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Nat => "nat",
            Mode::Routed => "routed",
            Mode::Udp => "udp",
            Mode::Auto => "auto",
        })
    }
}

/// A requested path: `DEV[,address=A][,mode=nat|routed|udp|auto][,advertise=A][,backup][,metered][,weight=N]
/// [,cost=N][,cap=SIZE/month][,cap=SIZE/connection][,signal][,subflow][,fullmesh][,laminar][,port=N][,id=N][,id6=N]`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PathSpec {
    /// Name of the NIC.
    pub device: String,
    /// Addresses of the stack on this path, at most one per family. In mode `nat` they are chosen if empty. In
    /// mode `udp` there are none: they are the NIC's.
    pub addresses: Vec<IpAddr>,
    /// Whether to use NAT.
    pub mode: Mode,
    /// The address to advertise instead of the NIC's (`nat`, `udp`) or the path's own (`routed`), for example that
    /// of an outer NAT.
    pub advertise: Option<IpAddr>,
    /// Whether its subflows are backups.
    pub backup: bool,
    /// Whether its subflows are used only when nothing else answers, not even a backup.
    pub metered: bool,
    /// Weight, at least 1, for the scheduler `weighted`.
    pub weight: u32,
    /// Cost of a byte relative to other paths, at least 1, for the scheduler `weighted`.
    pub cost: u32,
    /// How much it may carry.
    pub caps: Caps,
    /// What path policies use its addresses for.
    pub uses: Uses,
    /// The port that its addresses are advertised with. It takes `signal`, and no `subflow`, as with Linux.
    pub port: Option<u16>,
    /// Address IDs that are chosen for its addresses.
    pub ids: ChosenIds,
    /// It is one of the two [ways](Self::ways) of a path in mode `auto`.
    pub of_auto: bool,
}

impl PathSpec {
    /// A path over `device` with default settings.
    pub fn new(device: impl Into<String>) -> Self {
        PathSpec {
            device: device.into(),
            addresses: Vec::new(),
            mode: Mode::Nat,
            advertise: None,
            backup: false,
            metered: false,
            weight: 1,
            cost: 1,
            caps: Caps::default(),
            uses: Uses::default(),
            port: None,
            ids: ChosenIds::default(),
            of_auto: false,
        }
    }

    /// A routed path over `device` with `address`.
    pub fn routed(device: impl Into<String>, address: IpAddr) -> Self {
        PathSpec { mode: Mode::Routed, addresses: vec![address], ..PathSpec::new(device) }
    }
}

impl PathSpec {
    /// The path's name: that of the NIC, and with `/udp` after it in mode `udp`, so that a NIC can have a path
    /// of either kind.
    pub fn name(&self) -> String {
        if self.mode == Mode::Udp { format!("{}/udp", self.device) } else { self.device.clone() }
    }

    /// The NIC of the path with this [`name`](Self::name).
    pub fn device_of(name: &str) -> &str {
        name.strip_suffix("/udp").unwrap_or(name)
    }

    /// The paths to set up: of mode `auto` a native one, unless the caller may have none (`native`), and one inside UDP
    /// that stands in for it; otherwise this one.
    pub fn ways(&self, native: bool) -> Vec<PathSpec> {
        if self.mode != Mode::Auto {
            return vec![self.clone()];
        }
        let nat = PathSpec { mode: Mode::Nat, of_auto: true, ..self.clone() };
        // What is chosen for the native one is not its own.
        let udp = PathSpec {
            mode: Mode::Udp,
            of_auto: true,
            addresses: Vec::new(),
            ids: ChosenIds::default(),
            ..self.clone()
        };
        if native { vec![nat, udp] } else { vec![udp] }
    }

    /// The name of the path that this one stands in for.
    pub fn stands_in_for(&self) -> Option<String> {
        (self.of_auto && self.mode == Mode::Udp).then(|| self.device.clone())
    }

    /// Sets in a path's configuration what it says of the path's use, whatever carries it: `backup`, `metered`,
    /// `weight`, `cost`, `caps` for each connection, `uses`, `port` and `ids`. Addresses are the driver's, and who knows the month
    /// keeps count of what is carried in it (`PathConfig::allowance`).
    pub fn describe(&self, config: &mut PathConfig) {
        // All fields, so that none that is added is forgotten.
        let PathSpec {
            device: _,
            addresses: _,
            mode: _,
            advertise: _,
            backup,
            metered,
            weight,
            cost,
            caps,
            uses,
            port,
            ids,
            of_auto: _,
        } = *self;
        config.stands_in_for = self.stands_in_for();
        (config.backup, config.metered) = (backup, metered);
        (config.weight, config.cost) = (weight, cost);
        config.connection_cap = caps.connection;
        config.uses = uses;
        config.ids = ids;
        config.signal_ports.clear();
        if let Some(port) = port {
            // The address itself is not told then.
            config.uses.signal = false;
            config.ids = ChosenIds::default();
            config.signal_ports =
                [false, true].map(|ipv6| SignalPort { ipv6, port, id: ids.of(ipv6) }).into();
        }
    }
}

impl From<&str> for PathSpec {
    /// [`PathSpec::new`]: takes the name of a NIC. Use `parse` for a full description.
    fn from(device: &str) -> Self {
        PathSpec::new(device)
    }
}

impl From<String> for PathSpec {
    /// [`PathSpec::new`]: takes the name of a NIC. Use `parse` for a full description.
    fn from(device: String) -> Self {
        PathSpec::new(device)
    }
}

fn parse_address(key: &str, value: &str) -> Result<IpAddr, String> {
    value.parse().map_err(|_| format!("{key}={value} is not an IPv4 or IPv6 address"))
}

/// Why `address` cannot be used for connections with other hosts; `None` if it can.
pub(crate) fn unusable_because(address: &IpAddr) -> Option<&'static str> {
    if address.is_unspecified() {
        return Some("it is the unspecified address");
    }
    if address.is_loopback() {
        return Some("it is a loopback address");
    }
    if address.is_multicast() {
        return Some("it is a multicast address");
    }
    match address {
        IpAddr::V4(a) if a.is_broadcast() => Some("it is the broadcast address"),
        IpAddr::V4(a) if a.octets()[0] == 0 => Some("0.0.0.0/8 means \"this network\""),
        IpAddr::V4(a) if a.octets()[0] >= 240 => Some("240.0.0.0/4 is reserved"),
        // A link-local address is ambiguous without its link, and is not forwarded (RFC 4291 §2.5.6).
        IpAddr::V6(a) if a.is_unicast_link_local() => Some("a link-local address is not forwarded"),
        IpAddr::V6(a) if a.to_ipv4_mapped().is_some() => {
            Some("it is an IPv4-mapped address; write it as IPv4")
        }
        _ => None,
    }
}

impl FromStr for PathSpec {
    type Err = DriverError;

    fn from_str(text: &str) -> Result<Self, DriverError> {
        parse(text).map_err(|reason| DriverError::Spec { text: text.to_owned(), reason })
    }
}

fn parse(text: &str) -> Result<PathSpec, String> {
    let mut parts = text.split(',');
    let device = parts.next().unwrap_or_default().trim();
    if device.is_empty() {
        return Err("it must start with the name of a network device".into());
    }
    if device.contains('=') {
        return Err(format!("it must start with the name of a network device, not with {device}"));
    }
    if device.len() > 15 || device.contains('/') || device.contains(char::is_whitespace) {
        return Err(format!("{device:?} is not a valid name of a network device"));
    }
    let mut spec = PathSpec::new(device);
    let (mut mode_seen, mut backup_seen, mut weight_seen) = (false, false, false);
    let (mut metered_seen, mut cost_seen) = (false, false);
    let mut uses = Vec::new();
    let once = |seen: &mut bool, key: &str| {
        if std::mem::replace(seen, true) { Err(format!("{key} is given twice")) } else { Ok(()) }
    };
    for part in parts.map(str::trim) {
        match part.split_once('=') {
            Some((key @ "address", value)) => {
                let address = parse_address(key, value)?;
                if let Some(why) = unusable_because(&address) {
                    return Err(format!("address={value}: {why}"));
                }
                if spec.addresses.iter().any(|a| a.is_ipv4() == address.is_ipv4()) {
                    return Err("address can be given once for IPv4 and once for IPv6".into());
                }
                spec.addresses.push(address);
            }
            Some((key @ "advertise", value)) => {
                let address = parse_address(key, value)?;
                if let Some(why) = unusable_because(&address) {
                    return Err(format!("advertise={value}: {why}"));
                }
                if spec.advertise.replace(address).is_some() {
                    return Err("advertise is given twice".into());
                }
            }
            Some(("mode", value)) => {
                once(&mut mode_seen, "mode")?;
                spec.mode = match value {
                    "nat" => Mode::Nat,
                    "routed" => Mode::Routed,
                    "udp" => Mode::Udp,
                    "auto" => Mode::Auto,
                    _ => return Err(format!("mode={value}: the modes are nat, routed, udp and auto")),
                };
            }
            Some(("weight", value)) => {
                once(&mut weight_seen, "weight")?;
                spec.weight = parse_positive("weight", value)?;
            }
            Some(("cap", value)) => spec.caps.read(value)?,
            Some(("cost", value)) => {
                once(&mut cost_seen, "cost")?;
                spec.cost = parse_positive("cost", value)?;
            }
            Some(("port", value)) => {
                let port = value.parse().ok().filter(|port| *port > 0);
                let port = port.ok_or_else(|| format!("port={value}: must be a number from 1 to 65535"))?;
                if spec.port.replace(port).is_some() {
                    return Err("port is given twice".into());
                }
            }
            Some((key @ ("id" | "id6"), value)) => {
                let id = value.parse().ok().filter(|id| *id > 0);
                let id = id.ok_or_else(|| format!("{key}={value}: must be a number from 1 to 255"))?;
                if spec.ids.of_mut(key == "id6").replace(AddressId(id)).is_some() {
                    return Err(format!("{key} is given twice"));
                }
            }
            None if part == "metered" => {
                once(&mut metered_seen, "metered")?;
                spec.metered = true;
            }
            None if part == "backup" => {
                once(&mut backup_seen, "backup")?;
                spec.backup = true;
            }
            None if matches!(part, "signal" | "subflow" | "fullmesh" | "laminar") => {
                if uses.contains(&part) {
                    return Err(format!("{part} is given twice"));
                }
                uses.push(part);
            }
            None if NEED_VALUES.contains(&part) => {
                return Err(format!("{part} requires a value: {part}=..."));
            }
            _ => {
                return Err(format!(
                    "unknown option {part:?}; the options are address=A, mode=nat|routed|udp|auto, advertise=A, backup, metered, \
                     weight=N, cost=N, cap=SIZE/month, cap=SIZE/connection, signal, subflow, fullmesh, laminar, port=N, id=N and id6=N"
                ));
            }
        }
    }
    if spec.mode == Mode::Routed && spec.addresses.is_empty() {
        return Err("mode=routed requires address=A".into());
    }
    if spec.mode == Mode::Udp && !spec.addresses.is_empty() {
        return Err("mode=udp uses the NIC's own address, and takes no address=A".into());
    }
    let has = |word| uses.contains(&word);
    spec.uses = Uses::of_words(has("signal"), has("subflow"), has("fullmesh"), has("laminar"));
    check_uses(spec.uses, spec.port)?;
    if spec.ids.ipv4.is_some() && spec.ids.ipv4 == spec.ids.ipv6 {
        return Err("id and id6 are the same; an id stands for one address".into());
    }
    Ok(spec)
}

/// Options that are nothing without a value.
const NEED_VALUES: [&str; 9] = ["address", "advertise", "mode", "weight", "cost", "cap", "port", "id", "id6"];

/// What Linux refuses of an endpoint, too.
///
/// # Errors
/// What excludes one another, and what to do about it.
pub fn check_uses(uses: Uses, port: Option<u16>) -> Result<(), String> {
    if uses.signal && uses.full_mesh {
        return Err("signal and fullmesh exclude each other: an address is told to peers, or subflows are opened from \
                    it to all of theirs"
            .into());
    }
    if port.is_some() && (!uses.signal || uses.subflow) {
        return Err(
            "a port takes signal, and neither subflow nor fullmesh: it is for peers to connect to".into()
        );
    }
    Ok(())
}

fn parse_positive(key: &str, value: &str) -> Result<u32, String> {
    match value.parse() {
        Ok(n) if n >= 1 => Ok(n),
        _ => Err(format!("{key}={value}: must be a whole number, at least 1")),
    }
}

impl fmt::Display for PathSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.device)?;
        for address in &self.addresses {
            write!(f, ",address={address}")?;
        }
        if self.mode != Mode::Nat {
            write!(f, ",mode={}", self.mode)?;
        }
        if let Some(address) = self.advertise {
            write!(f, ",advertise={address}")?;
        }
        if self.backup {
            f.write_str(",backup")?;
        }
        if self.metered {
            f.write_str(",metered")?;
        }
        if self.weight != 1 {
            write!(f, ",weight={}", self.weight)?;
        }
        if self.cost != 1 {
            write!(f, ",cost={}", self.cost)?;
        }
        for word in self.caps.words() {
            write!(f, ",{word}")?;
        }
        for word in self.uses.words().filter(|_| self.uses != Uses::default()) {
            write!(f, ",{word}")?;
        }
        if let Some(port) = self.port {
            write!(f, ",port={port}")?;
        }
        for (key, id) in [("id", self.ids.ipv4), ("id6", self.ids.ipv6)] {
            if let Some(AddressId(id)) = id {
                write!(f, ",{key}={id}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in [
            "eth0",
            "eth0.5,address=10.0.0.1",
            "wlan0,address=10.0.0.1,address=2001:db8::1,mode=routed,advertise=192.0.2.1,backup,weight=3",
            "wlan0,mode=udp,advertise=192.0.2.1,backup",
            "wlan0,address=10.0.0.1,mode=auto,backup",
            "wwan0,metered,cost=10",
            "wwan0,metered,cap=10GB/month,cap=50MB/connection",
            "eth0,signal",
            "eth0,signal,subflow,laminar",
            "eth0,subflow,fullmesh",
            "eth0,signal,port=8443,id=7,id6=255",
            "eth0,signal,laminar,port=1",
            "eth0,id6=1",
        ] {
            let spec: PathSpec = text.parse().unwrap();
            assert_eq!(spec.to_string(), text);
        }
        let spec: PathSpec = "eth0, mode=nat , weight=2".parse().unwrap();
        assert_eq!(spec, PathSpec { weight: 2, ..PathSpec::new("eth0") });
    }

    #[test]
    fn auto_is_a_native_path_and_one_inside_udp_that_stands_in_for_it() {
        let auto: PathSpec = "wlan0,address=10.0.0.1,mode=auto,metered,id=3,cap=1GB/month".parse().unwrap();
        let texts = |native| auto.ways(native).iter().map(PathSpec::to_string).collect::<Vec<_>>();
        let udp = "wlan0,mode=udp,metered,cap=1GB/month";
        assert_eq!(texts(true), ["wlan0,address=10.0.0.1,metered,cap=1GB/month,id=3", udp]);
        assert_eq!(texts(false), [udp]);
        let of = |spec: &PathSpec| (spec.name(), spec.stands_in_for());
        let ways: Vec<_> = auto.ways(true).iter().map(of).collect();
        assert_eq!(ways, [("wlan0".into(), None), ("wlan0/udp".into(), Some("wlan0".into()))]);
        for text in ["wlan0", "wlan0,mode=udp"] {
            let spec: PathSpec = text.parse().unwrap();
            assert_eq!((spec.ways(true), spec.stands_in_for()), (vec![spec.clone()], None));
        }
    }

    #[test]
    fn a_port_is_told_in_place_of_the_address() {
        let described = |text: &str| {
            let mut config = PathConfig::with_addresses("eth0", Vec::new());
            text.parse::<PathSpec>().unwrap().describe(&mut config);
            (config.uses, config.ids, config.signal_ports)
        };
        let ids = ChosenIds { ipv4: Some(AddressId(7)), ipv6: None };
        assert_eq!(
            described("eth0,signal,id=7"),
            (Uses::of_words(true, false, false, false), ids, Vec::new())
        );
        let ports = [(false, ids.ipv4), (true, None)].map(|(ipv6, id)| SignalPort { ipv6, port: 80, id });
        assert_eq!(described("eth0,signal,port=80,id=7"), (Uses::NONE, ChosenIds::default(), ports.to_vec()));
    }

    #[test]
    fn refuses_with_a_reason() {
        for (text, reason) in [
            ("", "must start with the name"),
            ("mode=nat", "must start with the name"),
            ("a-name-much-too-long", "not a valid name"),
            ("eth0,address=300.1.1.1", "not an IPv4 or IPv6 address"),
            ("eth0,address=127.0.0.1", "loopback"),
            ("eth0,address=fe80::1", "link-local"),
            ("eth0,address=224.0.0.1", "multicast"),
            ("eth0,address=10.0.0.1,address=10.0.0.2", "once for IPv4"),
            ("eth0,mode=bridge", "nat, routed, udp and auto"),
            ("eth0,mode=udp,address=10.0.0.1", "takes no address"),
            ("eth0,mode=routed", "requires address"),
            ("eth0,weight=0", "whole number"),
            ("eth0,weight", "requires a value"),
            ("eth0,cost=-1", "whole number"),
            ("eth0,cost", "requires a value"),
            ("eth0,metered,metered", "twice"),
            ("eth0,cap=1GB", "cap=10GB/month"),
            ("eth0,cap", "requires a value"),
            ("eth0,backup,backup", "twice"),
            ("eth0,signal,signal", "twice"),
            ("eth0,port=80", "takes signal"),
            ("eth0,signal,subflow,port=80", "neither subflow"),
            ("eth0,signal,port=0", "1 to 65535"),
            ("eth0,signal,port=80,port=81", "twice"),
            ("eth0,port", "requires a value"),
            ("eth0,signal,fullmesh", "exclude each other"),
            ("eth0,id=0", "1 to 255"),
            ("eth0,id=256", "1 to 255"),
            ("eth0,id6=1,id6=2", "twice"),
            ("eth0,id=3,id6=3", "the same"),
            ("eth0,speed=3", "unknown option"),
            ("eth0,", "unknown option"),
        ] {
            let error = text.parse::<PathSpec>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}

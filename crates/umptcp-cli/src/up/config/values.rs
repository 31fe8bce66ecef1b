//! Values that the configuration writes as text, or as a plain number.

use crate::args::Publish;
use crate::args::{HostPort, ListenAddress, parse_net};
use ipnet::IpNet;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use umptcp::BufferSize;
use umptcp_lab::units;
use umptcp_relay::MayPublish;
use umptcp_tun_driver::paths::Mode;

/// What can be read from text.
pub(super) trait Value: Sized {
    /// What is expected, for errors.
    const EXPECTED: &'static str;

    /// `None`: it is not such.
    fn read(text: &str) -> Option<Self>;
}

/// A value in the file.
#[derive(Clone, Debug)]
pub(super) struct Text<T>(pub(super) T);

impl<'de, T: Value> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(TextVisitor(PhantomData))
    }
}

struct TextVisitor<T>(PhantomData<T>);

impl<T: Value> Visitor<'_> for TextVisitor<T> {
    type Value = Text<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<T>, E> {
        T::read(text).map(Text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Text<T>, E> {
        T::read(&number.to_string())
            .map(Text)
            .ok_or_else(|| E::invalid_value(de::Unexpected::Signed(number), &self))
    }
}

impl Value for ListenAddress {
    const EXPECTED: &'static str = "a port, or an address of this host's NICs with a port: 443, \"192.0.2.1:443\" or \"[2001:db8::1]:443\"";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok().filter(|at: &ListenAddress| at.port != 0)
    }
}

/// A service of this host, or of one near.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Service {
    /// Its host's name or address.
    pub(crate) host: String,
    /// Its port.
    pub(crate) port: u16,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brackets = self.host.contains(':');
        if brackets {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Value for Service {
    const EXPECTED: &'static str =
        "a port of this host, or HOST:PORT: 8080, \"127.0.0.1:8080\" or \"[::1]:8080\"";

    fn read(text: &str) -> Option<Self> {
        let (host, port) = match text.parse::<u16>() {
            Ok(port) => (Ipv4Addr::LOCALHOST.to_string(), port),
            Err(_) => {
                let both: HostPort = text.parse().ok()?;
                let (host, port) = both.with(None, None).ok()?;
                (host.to_owned(), port)
            }
        };
        (port != 0).then_some(Service { host, port })
    }
}

impl Value for MayPublish {
    const EXPECTED: &'static str =
        "a client and its ports: \"laptop=8080\", \"laptop=9000-9010\", or \"*=8080\" for everybody";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Value for Publish {
    const EXPECTED: &'static str = Publish::EXPECTED;

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Value for IpAddr {
    const EXPECTED: &'static str = "an IPv4 or IPv6 address";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Value for SocketAddr {
    const EXPECTED: &'static str = "ADDRESS:PORT, for instance \"127.0.0.1:1080\" or \"[::1]:1080\"";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok().filter(|at: &SocketAddr| at.port() != 0)
    }
}

impl Value for IpNet {
    const EXPECTED: &'static str =
        "an address or a network: \"192.0.2.1\", \"192.0.2.0/24\" or \"2001:db8::/32\"";

    fn read(text: &str) -> Option<Self> {
        parse_net(text).ok()
    }
}

impl Value for HostPort {
    const EXPECTED: &'static str = "a name or an address, also with a port: \"relay.example.org:8803\"";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// A number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bytes(pub(super) u64);

impl Value for Bytes {
    const EXPECTED: &'static str = "a number of bytes such as \"500 GB\" or \"1.5 TiB\"";

    fn read(text: &str) -> Option<Self> {
        units::short_bytes(&text.replace(' ', "")).map(Bytes)
    }
}

/// The path of a cgroup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Cgroup(pub(super) String);

impl Value for Cgroup {
    const EXPECTED: &'static str =
        "the path of a cgroup below the root of cgroups, such as \"/system.slice/nginx.service\"";

    fn read(text: &str) -> Option<Self> {
        let names = text.trim_matches('/').split('/');
        let good = |name: &str| {
            !matches!(name, "" | "." | "..")
                && !name.contains(|c: char| c == '"' || c.is_control() || c.is_whitespace())
        };
        names.clone().all(good).then(|| Cgroup(format!("/{}", names.collect::<Vec<_>>().join("/"))))
    }
}

/// A user of this host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct User(pub(super) u32);

impl Value for User {
    const EXPECTED: &'static str = "a user of this host, by name or number";

    fn read(text: &str) -> Option<Self> {
        let named = || Some(nix::unistd::User::from_name(text).ok()??.uid.as_raw());
        text.parse().ok().or_else(named).map(User)
    }
}

/// A group of this host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Group(pub(super) u32);

impl Value for Group {
    const EXPECTED: &'static str = "a group of this host, by name or number";

    fn read(text: &str) -> Option<Self> {
        let named = || Some(nix::unistd::Group::from_name(text).ok()??.gid.as_raw());
        text.parse().ok().or_else(named).map(Group)
    }
}

impl Value for Duration {
    const EXPECTED: &'static str = "a time of at most one day: \"5 s\", \"500 ms\", or a number of seconds";

    fn read(text: &str) -> Option<Self> {
        units::short_time(text).filter(|time| *time <= Duration::from_secs(86_400))
    }
}

impl Value for BufferSize {
    const EXPECTED: &'static str =
        "\"auto\", \"auto 32 MiB\" (no larger than that), or a size of 4 KiB to 1 GiB such as \"4 MiB\"";

    fn read(text: &str) -> Option<Self> {
        let bytes = |text: &str| {
            let bytes = units::short_bytes(text).filter(|bytes| (4 << 10..=1 << 30).contains(bytes))?;
            usize::try_from(bytes).ok()
        };
        match text.strip_prefix("auto") {
            Some("") => Some(BufferSize::AUTO),
            Some(limit) => bytes(limit.strip_prefix(' ')?).map(|limit| BufferSize::Auto { limit }),
            None => bytes(text).map(BufferSize::Fixed),
        }
    }
}

impl Value for Mode {
    const EXPECTED: &'static str = "\"nat\", \"routed\", \"udp\" or \"auto\"";

    fn read(text: &str) -> Option<Self> {
        [Mode::Nat, Mode::Routed, Mode::Udp, Mode::Auto].into_iter().find(|mode| mode.to_string() == text)
    }
}

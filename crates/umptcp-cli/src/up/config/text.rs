//! The file as it is written.

use super::relay::{RelayText, ViaText};
use super::values::{Cgroup, Group, Service, Text, User};
use crate::args::ListenAddress;
use crate::logging::{Format, Level};
use ipnet::IpNet;
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;
use umptcp::BufferSize;
use umptcp_tun_driver::paths::Mode;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct FileText {
    pub(super) name: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) stack: StackText,
    #[serde(default, rename = "path")]
    pub(super) paths: Vec<Spanned<PathText>>,
    #[serde(default, rename = "listen")]
    pub(super) listens: Vec<ListenText>,
    #[serde(default, rename = "capture")]
    pub(super) captures: Vec<Spanned<CaptureText>>,
    pub(super) run: Option<RunText>,
    pub(super) gateway: Option<GatewayText>,
    pub(super) socks: Option<SocksText>,
    pub(super) relay: Option<Spanned<RelayText>>,
    pub(super) via: Option<ViaText>,
    pub(super) metrics: Option<MetricsText>,
    #[serde(default)]
    pub(super) log: LogText,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct StackText {
    pub(super) congestion: Option<Spanned<String>>,
    pub(super) scheduler: Option<Spanned<String>>,
    pub(super) path_policy: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) checksum: bool,
    pub(super) mptcp: Option<bool>,
    pub(super) buffer: Option<Text<BufferSize>>,
    /// The limits of `ip mptcp limits`.
    pub(super) subflows: Option<u8>,
    pub(super) add_addr_accepted: Option<u8>,
    pub(super) drain: Option<Text<Duration>>,
    pub(super) pcap: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct PathText {
    pub(super) device: Spanned<String>,
    #[serde(default)]
    pub(super) addresses: Vec<Text<IpAddr>>,
    pub(super) mode: Option<Text<Mode>>,
    pub(super) advertise: Option<Text<IpAddr>>,
    #[serde(default)]
    pub(super) backup: bool,
    #[serde(default)]
    pub(super) metered: bool,
    pub(super) weight: Option<u32>,
    pub(super) cost: Option<u32>,
    #[serde(default)]
    pub(super) cap: Vec<String>,
    /// The flags of `ip mptcp endpoint`.
    #[serde(default)]
    pub(super) signal: bool,
    #[serde(default)]
    pub(super) subflow: bool,
    #[serde(default)]
    pub(super) fullmesh: bool,
    #[serde(default)]
    pub(super) laminar: bool,
    pub(super) port: Option<u16>,
    pub(super) id: Option<u8>,
    pub(super) id6: Option<u8>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ListenText {
    pub(super) at: Spanned<Text<ListenAddress>>,
    pub(super) to: Text<Service>,
    #[serde(default)]
    pub(super) proxy_protocol: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct CaptureText {
    #[serde(default)]
    pub(super) all: bool,
    pub(super) cgroup: Option<Text<Cgroup>>,
    pub(super) user: Option<Text<User>>,
    #[serde(default)]
    pub(super) to: Vec<Text<IpNet>>,
    #[serde(default)]
    pub(super) except: Vec<Text<IpNet>>,
    #[serde(default)]
    pub(super) ports: Vec<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RunText {
    pub(super) group: Option<Text<Group>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct GatewayText {
    pub(super) lan: Spanned<Vec<String>>,
    #[serde(default)]
    pub(super) to: Vec<Text<IpNet>>,
    #[serde(default)]
    pub(super) except: Vec<Text<IpNet>>,
    #[serde(default)]
    pub(super) ports: Vec<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct SocksText {
    pub(super) at: Spanned<Text<SocketAddr>>,
    #[serde(default)]
    pub(super) allow: Vec<Text<IpNet>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct MetricsText {
    pub(super) at: Text<SocketAddr>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct LogText {
    pub(super) level: Option<Level>,
    pub(super) format: Option<Format>,
}

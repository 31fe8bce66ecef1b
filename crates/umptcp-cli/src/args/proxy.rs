//! Arguments of the proxy.

use super::values::{parse_duration, parse_instance, parse_net, parse_proxy_address};
use super::{PathArgs, Publish, ViaArgs};
use clap::Args;
use ipnet::IpNet;
use std::net::SocketAddr;
use std::time::Duration;

/// Serve SOCKS 5 and HTTP CONNECT on this host: what programs ask for goes out by MPTCP.
///
/// One port takes both. With paths inside UDP (`--path DEV,mode=udp`) it takes no privilege, if the servers have
/// such paths, too, or a relay (`--via`) that leads to those that have not. Names are looked up here. It stays in the foreground until a signal ends it.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  umptcp proxy --path wlan0,mode=udp --path wwan0,mode=udp --via relay.example.net     without any privilege
  sudo umptcp proxy                                            over every usable NIC
  curl --proxy socks5h://127.0.0.1:1080 https://example.org/
  curl --proxy http://127.0.0.1:1080 https://example.org/")]
pub(crate) struct ProxyArgs {
    /// Where to listen, at localhost when only a port is given; port 0 is any free one.
    #[arg(value_name = "PORT|ADDRESS:PORT", default_value = "127.0.0.1:1080", value_parser = parse_proxy_address)]
    pub(crate) at: SocketAddr,
    /// Who may use it, by address or network; can be repeated. By default programs of this host.
    #[arg(long, value_name = "NET", value_parser = parse_net)]
    pub(crate) allow: Vec<IpNet>,
    /// How long connections may go on after a signal. Another signal ends it at once.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_duration)]
    pub(crate) drain: Duration,
    /// Name by which tools find this instance (`umptcp ss --instance NAME`); `proxy-` and its process id if not
    /// given.
    #[arg(long, value_name = "NAME", value_parser = parse_instance)]
    pub(crate) name: Option<String>,
    /// Lead a port of the relay to a service, by default at the same port of localhost; can be repeated. The relay must
    /// allow it. With `proxy-protocol` the service is told who has come (PROXY protocol, version 2).
    #[arg(long, value_name = "PORT[=HOST:PORT][,proxy-protocol]", requires = "via")]
    pub(crate) publish: Vec<Publish>,
    #[command(flatten)]
    pub(crate) paths: PathArgs,
    #[command(flatten)]
    pub(crate) via: ViaArgs,
}

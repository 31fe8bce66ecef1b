//! Arguments of the relay, and of those who use one.

use super::values::{HostPort, ListenAddress, parse_net, parse_path};
use clap::{Args, Subcommand, ValueHint};
use ipnet::IpNet;
use std::path::PathBuf;
use umptcp_relay::{ClientName, MayPublish};
use umptcp_tun_driver::paths::PathSpec;

/// Run a relay: MPTCP from its clients, TCP to servers that speak no MPTCP (RFC 8803).
///
/// Clients use it by `--via`. Each needs a key, which `umptcp relay key` makes. With paths inside UDP
/// (mode=udp) it needs no privilege, nor do its clients; `nat` and `routed` take CAP_NET_ADMIN. What it relays
/// is not encrypted by it.
///
/// Private, loopback, link-local and multicast addresses and those of this host are refused unless they are
/// allowed. SIGTERM and SIGINT end it in order.
#[derive(Args, Clone, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  umptcp relay key laptop >> relay.keys            a line for the relay and, the same, for the client
  umptcp relay --keys relay.keys --path eth0,mode=udp
  sudo umptcp relay --keys relay.keys              native MPTCP over every NIC
  sudo umptcp relay --config /etc/umptcp/relay.toml
  umptcp connect --via relay.example.org --path wlan0,mode=udp --path wwan0,mode=udp example.org:80"
)]
pub(crate) struct RelayArgs {
    /// What else to do.
    #[command(subcommand)]
    pub(crate) action: Option<RelayAction>,
    /// A configuration as that of `umptcp up`, with a section [relay]. SIGHUP has it read again.
    #[arg(short, long, value_name = "FILE.toml", value_hint = ValueHint::FilePath,
        conflicts_with_all = ["keys", "open", "listen", "paths", "allow", "allow_publish"])]
    pub(crate) config: Option<PathBuf>,
    /// The file with the clients' keys, a line for each.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, required_unless_present_any = ["config", "open"])]
    pub(crate) keys: Option<PathBuf>,
    /// Serve everybody who can reach it, without keys: for test networks.
    #[arg(long, conflicts_with = "keys")]
    pub(crate) open: bool,
    /// Where to listen: an address of this host's NICs, or all without one.
    #[arg(long, value_name = "PORT|ADDRESS:PORT", default_value_t = ListenAddress { address: None, port: umptcp_relay::PORT })]
    pub(crate) listen: ListenAddress,
    /// Network interface to use, as for `umptcp connect`; can be repeated. By default every usable NIC.
    #[arg(long = "path", value_name = "DEV[,OPTION]...", value_parser = parse_path)]
    pub(crate) paths: Vec<PathSpec>,
    /// A network that clients may connect to although it is private, or this host's; can be repeated.
    #[arg(long, value_name = "NET", value_parser = parse_net)]
    pub(crate) allow: Vec<IpNet>,
    /// Ports of this host that a client may have led to itself (`--publish`), as laptop=8080 or laptop=9000-9010; can be
    /// repeated. By default none.
    #[arg(long, value_name = "CLIENT=PORT[-PORT]")]
    pub(crate) allow_publish: Vec<MayPublish>,
}

/// What else `relay` does.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum RelayAction {
    Key(RelayKeyArgs),
}

/// Make a key for a client, and print its line.
///
/// The relay's file of keys gets the line, and the client's own file (`--via-key`). Whoever has it can use the
/// relay in the client's name.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  umptcp relay key laptop | tee -a /etc/umptcp/relay.keys     then copy the line to the laptop
  (umask 077; cat > ~/.config/umptcp/relay.key)               there")]
pub(crate) struct RelayKeyArgs {
    /// The client's name: at most 32 letters, digits, '-', '_' and '.'.
    #[arg(value_name = "NAME")]
    pub(crate) client: ClientName,
}

/// By which relay connections are made.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Relay options")]
pub(crate) struct ViaArgs {
    /// Make connections by a relay (`umptcp relay`): MPTCP to it, TCP from there to servers without MPTCP. Its
    /// port is 8803 unless it is given.
    #[arg(long, value_name = "HOST[:PORT]", value_hint = ValueHint::Hostname)]
    pub(crate) via: Option<HostPort>,
    /// The file with this client's key, as `umptcp relay key` prints it. By default
    /// ~/.config/umptcp/relay.key or /etc/umptcp/relay.key, whichever there is.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "via")]
    pub(crate) via_key: Option<PathBuf>,
    /// A network that is reached without the relay; can be repeated.
    #[arg(long, value_name = "NET", value_parser = parse_net, requires = "via")]
    pub(crate) via_except: Vec<IpNet>,
    /// Have the relay resolve names of servers: those that `connect` is given, and that programs give to `proxy`.
    /// Otherwise this host does. `run` and `bench client` have no use for it, and refuse it.
    #[arg(long, requires = "via")]
    pub(crate) via_resolve: bool,
}

//! Options of the tools that speak to a running instance.

use super::values::parse_duration;
use clap::{Args, Subcommand};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Which instance, and how to print.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct InstanceArgs {
    /// The instance to speak to; not needed when only one is running.
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) instance: Option<String>,
    /// Print JSON.
    #[arg(short, long, global = true)]
    pub(crate) json: bool,
}

/// Show the connections of a running umptcp, as `ss -Mni` does those of the kernel.
///
/// Two lines for each connection, one more for each subflow: path, round-trip time, window, rate,
/// retransmissions and whether it answers. A connection that is plain TCP says why.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  umptcp ss                           the only instance that is running
  umptcp ss --instance run-4711
  umptcp ss --json | jq '.connections[] | select(.mptcp == false) | .why_tcp'
  watch -n1 umptcp ss")]
pub(crate) struct SsArgs {
    #[command(flatten)]
    pub(crate) instance: InstanceArgs,
    /// The side between programs and umptcp, too.
    #[arg(short, long)]
    pub(crate) all: bool,
    /// As for `ss`: MPTCP sockets. It is what is shown in any case.
    #[arg(short = 'M', hide = true)]
    mptcp: bool,
    /// As for `ss`: numbers. It is what is shown in any case.
    #[arg(short = 'n', hide = true)]
    numeric: bool,
    /// As for `ss`: information. It is what is shown in any case.
    #[arg(short = 'i', hide = true)]
    info: bool,
}

/// Show the counters of a running umptcp, by the names and in the format of `nstat`.
///
/// Values are what has come since this user asked last, as with `nstat`. What was shown is kept for each instance in
/// `$XDG_RUNTIME_DIR/.umptcp-nstat.uUID.NAME`, or in the directory for temporary files; UMPTCP_NSTAT_HISTORY names another
/// file.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  umptcp nstat                        counters that have grown, and by how much
  umptcp nstat -a                     since the start of the instance
  umptcp nstat -az 'MPTcpExtMPJoin*'  zeros, too, of those that match
  umptcp nstat -n; sleep 10; umptcp nstat  what comes in ten seconds
  umptcp nstat --json                 {\"kernel\":{\"MPTcpExtMPCapableSYNTX\":1,...}}")]
pub(crate) struct NstatArgs {
    #[command(flatten)]
    pub(crate) instance: InstanceArgs,
    /// Counters that are zero, too.
    #[arg(short, long)]
    pub(crate) zeros: bool,
    /// Ignore what was shown before: values count from the start of the instance.
    #[arg(short = 'a', long = "ignore")]
    pub(crate) absolute: bool,
    /// Do not take note of what is shown.
    #[arg(short = 's', long = "noupdate")]
    pub(crate) no_update: bool,
    /// Show nothing, only take note.
    #[arg(short = 'n', long = "nooutput")]
    pub(crate) no_output: bool,
    /// Forget what was shown before.
    #[arg(short = 'r', long = "reset")]
    pub(crate) reset: bool,
    /// Names of counters; `*` and `?` stand for others.
    #[arg(value_name = "PATTERN")]
    pub(crate) patterns: Vec<String>,
}

/// Show what happens in a running umptcp as it happens, as `ip mptcp monitor` does.
///
/// Beside the kernel's events: FALLBACK (why a connection is plain TCP), PATH_ADDED, PATH_CHANGED,
/// PATH_REMOVED, and MISSED when there were more than could be shown.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  umptcp monitor
  umptcp monitor --instance run-4711 | grep SF_
  umptcp monitor --json               a line of JSON for each")]
pub(crate) struct MonitorArgs {
    #[command(flatten)]
    pub(crate) instance: InstanceArgs,
}

/// Show live what a running umptcp does: rates of each NIC, connection and subflow.
///
/// Keys: q quits; r, t, b and n sort by the rate received, the rate sent, all bytes, the number; the arrows
/// scroll; p pauses.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  umptcp top
  umptcp top --interval 0.2
  umptcp top --json --count 10        ten lines of JSON, one each second")]
pub(crate) struct TopArgs {
    #[command(flatten)]
    pub(crate) instance: InstanceArgs,
    /// Time between two looks.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_duration)]
    pub(crate) interval: Duration,
    /// End after N looks.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
}

/// Show and change the addresses that a running umptcp uses, as `ip mptcp endpoint` does.
#[derive(Args, Clone, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  umptcp endpoint show
  umptcp endpoint add 192.0.2.7 dev wlan0 backup
  umptcp endpoint add 192.0.2.7 id 9 port 8443 signal
  umptcp endpoint change id 2 nobackup fullmesh
  umptcp endpoint delete id 2")]
pub(crate) struct EndpointArgs {
    #[command(flatten)]
    pub(crate) instance: InstanceArgs,
    #[command(subcommand)]
    pub(crate) action: EndpointAction,
}

/// What to do with endpoints.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum EndpointAction {
    /// Use one more address, and with it its NIC: ADDRESS [dev NIC] [id N] [port N] [signal] [subflow] [backup]
    /// [fullmesh] [laminar]. With a port, which takes `signal`, peers are told of one more port of an address.
    Add {
        /// The address, which a NIC must have.
        address: IpAddr,
        /// `dev NIC`, `id N` (1 to 255), `port N`, `signal`, `subflow`, `backup`, `fullmesh`, `laminar`.
        #[arg(value_name = "WORD")]
        words: Vec<String>,
    },
    /// Use an address no more: id N.
    #[command(alias = "del")]
    Delete {
        /// `id N`, or the address.
        #[arg(value_name = "WORD", required = true)]
        words: Vec<String>,
    },
    /// Change what an address is for: id N backup|nobackup|fullmesh|nofullmesh.
    Change {
        /// `id N` or the address, then `backup`, `nobackup`, `fullmesh`, `nofullmesh`.
        #[arg(value_name = "WORD", required = true)]
        words: Vec<String>,
    },
    /// Show the addresses: [id N].
    #[command(alias = "list")]
    Show {
        /// `id N`: only that.
        #[arg(value_name = "WORD")]
        words: Vec<String>,
    },
    /// Use no address any more but the first path's, which connections need.
    Flush,
}

/// Show and change the limits of connections, as `ip mptcp limits` does.
///
/// They hold for connections that there are, too; subflows and addresses that there are stay.
#[derive(Args, Clone, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  umptcp limits show
  umptcp limits set subflows 4 add_addr_accepted 2")]
pub(crate) struct LimitsArgs {
    #[command(flatten)]
    pub(crate) instance: InstanceArgs,
    #[command(subcommand)]
    pub(crate) action: LimitsAction,
}

/// What to do with limits.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum LimitsAction {
    /// Change them: [subflows N] [add_addr_accepted N].
    Set {
        /// `subflows N`: most subflows beside the initial one; `add_addr_accepted N`: most addresses of the
        /// peer to act on.
        #[arg(value_name = "WORD", required = true)]
        words: Vec<String>,
    },
    /// Show them.
    Show,
}

/// Have a running umptcp use one NIC more, or one less.
///
/// Connections go on: they open subflows over a new NIC, and those over a NIC that is removed end.
#[derive(Args, Clone, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  umptcp path show
  umptcp path add wwan0,backup
  umptcp path remove wwan0")]
pub(crate) struct PathToolArgs {
    #[command(flatten)]
    pub(crate) instance: InstanceArgs,
    #[command(subcommand)]
    pub(crate) action: PathAction,
}

/// What to do with paths.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum PathAction {
    /// Use one NIC more.
    Add {
        /// As for the option --path: DEV[,address=A][,mode=nat|routed|udp|auto][,advertise=A][,backup][,metered][,weight=N][,cost=N][,cap=SIZE/month|connection].
        #[arg(value_name = "DEV[,OPTION]...")]
        path: String,
    },
    /// Use a NIC no more.
    Remove {
        /// The NIC.
        #[arg(value_name = "DEV")]
        path: String,
    },
    /// Show the paths, and what went over them.
    Show,
}

/// Open and close subflows of a connection.
#[derive(Args, Clone, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  umptcp subflow add 3 wwan0                      connection 3, as `umptcp ss` numbers it
  umptcp subflow add token:d62e3d83 wwan0 --to 192.0.2.9:443
  umptcp subflow close 3 1")]
pub(crate) struct SubflowArgs {
    #[command(flatten)]
    pub(crate) instance: InstanceArgs,
    #[command(subcommand)]
    pub(crate) action: SubflowAction,
}

/// What to do with subflows.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum SubflowAction {
    /// Open one more.
    Add {
        /// The connection's number in `umptcp ss`, or token:HEX.
        connection: String,
        /// The path, usually a NIC.
        #[arg(value_name = "DEV")]
        path: String,
        /// Where to; by default the peer's first address.
        #[arg(long, value_name = "ADDRESS:PORT")]
        to: Option<SocketAddr>,
    },
    /// Close one. The connection opens none in its place for ten minutes, unless it has no other.
    Close {
        /// The connection's number in `umptcp ss`, or token:HEX.
        connection: String,
        /// The subflow's number.
        subflow: u32,
    },
}

/// Choose another scheduler, congestion control algorithm or path policy, for connections that there are and
/// for new ones; or whether new ones are MPTCP.
#[derive(Args, Clone, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  umptcp set scheduler round-robin
  umptcp set congestion olia --only-new
  umptcp set path-policy handover
  umptcp set enabled 0                 new connections are plain TCP")]
pub(crate) struct SetArgs {
    #[command(flatten)]
    pub(crate) instance: InstanceArgs,
    /// Leave connections that there are as they are.
    #[arg(long, global = true)]
    pub(crate) only_new: bool,
    #[command(subcommand)]
    pub(crate) what: SetWhat,
}

/// What to choose.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum SetWhat {
    /// The packet scheduler.
    Scheduler {
        /// Its name.
        #[arg(id = "scheduler", value_name = "NAME")]
        name: String,
    },
    /// The congestion control algorithm.
    Congestion {
        /// Its name.
        #[arg(id = "congestion", value_name = "NAME")]
        name: String,
    },
    /// The path policy: which subflows there are to be. Those that there are stay.
    PathPolicy {
        /// Its name.
        #[arg(id = "path_policy", value_name = "NAME")]
        name: String,
    },
    /// Whether new connections ask for MPTCP, as `net.mptcp.enabled` says for the kernel's. Those that there are
    /// stay what they are.
    Enabled {
        /// 1 or 0; also on or off.
        #[arg(value_name = "0|1", value_parser = parse_switch, action = clap::ArgAction::Set)]
        on: bool,
    },
}

fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "on" | "yes" | "true" => Ok(true),
        "0" | "off" | "no" | "false" => Ok(false),
        _ => Err("expected 1 or 0".to_owned()),
    }
}

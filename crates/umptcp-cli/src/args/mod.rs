//! The command line.

mod emulate;
mod proxy;
mod publish;
mod relay;
mod setup;
mod sim;
pub(crate) mod tools;
mod up;
mod values;

use crate::failure::EXIT_CODES;
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
pub(crate) use emulate::EmulateArgs;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
pub(crate) use emulate::EmulatedStack;
pub(crate) use proxy::ProxyArgs;
pub(crate) use publish::Publish;
pub(crate) use relay::{RelayAction, RelayArgs, ViaArgs};
pub(crate) use setup::SetupArgs;
pub(crate) use sim::{OutputArgs, SimArgs};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;
use umptcp_tun_driver::paths::PathSpec;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
pub(crate) use up::CONFIGURATION as UP_CONFIGURATION;
pub(crate) use up::{CheckArgs, DownArgs, UpArgs};
pub(crate) use values::{HostPort, ListenAddress, parse_net, parse_path};
use values::{parse_bytes, parse_duration, parse_instance};

/// Default port of `umptcp bench`: the number of the RFC.
pub(crate) const BENCH_PORT: u16 = 8684;

const EXAMPLES: &str = "\
Examples:
  umptcp demo                                see it work: two NICs, one connection, no root needed
  umptcp demo --sim                          the same in virtual time, without any privileges
  umptcp sim scenarios/olia-a.toml           an experiment in the simulator: tables, numbers, plots
  sudo umptcp run -- iperf3 -c 192.0.2.10    run any program over MPTCP
  umptcp proxy --path wlan0,mode=udp         a SOCKS and HTTP proxy on this host, without any privilege
  sudo umptcp ss                             what it does, while it runs; also nstat, monitor, top
  sudo umptcp up                             the daemon: MPTCP for the services of this host
  umptcp bench server                        serve measurements
  umptcp bench client 192.0.2.10             measure throughput to that server
  umptcp listen 9000 > file                  receive a file over MPTCP
  umptcp connect 192.0.2.10 9000 < file      send it
  umptcp connect --via relay.example.org example.org:80   by a relay, if the server speaks no MPTCP
  umptcp connect --path eth0 --path wlan0,backup 192.0.2.10 9000 < file

Every command has its own --help.";

const ENVIRONMENT: &str = "\
Environment:
  UMPTCP_LOG   what to log, by module: info, umptcp=debug, umptcp_stack_core::mptcp=trace (overrides -v)
  NO_COLOR     if set to anything, no colours";

/// Multipath TCP (RFC 8684) in user space: one connection over several network interfaces at once.
#[derive(Parser, Debug)]
#[command(name = "umptcp", version, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{ENVIRONMENT}\n\n{EXIT_CODES}"))]
#[command(propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Log to standard error: -v connection events, -vv details and changes to this host, -vvv everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Print JSON: the same before the command as after it, for those that have it.
    #[arg(id = "json-first", short, long = "json")]
    json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Has the command do what was said in front of it.
    ///
    /// # Errors
    /// What the command cannot do.
    pub(crate) fn settle(&mut self) -> Result<(), &'static str> {
        if self.json {
            *self
                .command
                .json()
                .ok_or("this command has no --json, or takes a file with it: see its --help")? = true;
        }
        Ok(())
    }
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run a program over MPTCP, unchanged: its TCP connections use every NIC.
    ///
    /// By a daemon (`umptcp up`), where one runs that takes programs of this user: the command stays in the
    /// network that it is in, and its connections are captured. Otherwise, as root, in a network namespace of
    /// its own. With -v, one line says which, and why.
    Run(RunArgs),
    Proxy(ProxyArgs),
    Up(UpArgs),
    Down(DownArgs),
    Check(CheckArgs),
    Setup(SetupArgs),
    Demo(DemoArgs),
    Listen(ListenArgs),
    Connect(ConnectArgs),
    Relay(RelayArgs),
    Bench(BenchArgs),
    Sim(SimArgs),
    Emulate(EmulateArgs),
    Doctor(DoctorArgs),
    Ss(tools::SsArgs),
    Nstat(tools::NstatArgs),
    Monitor(tools::MonitorArgs),
    Top(tools::TopArgs),
    Endpoint(tools::EndpointArgs),
    Limits(tools::LimitsArgs),
    Path(tools::PathToolArgs),
    Subflow(tools::SubflowArgs),
    Set(tools::SetArgs),
    CleanUp(CleanUpArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

impl Command {
    /// Whether it says itself what is logged.
    pub(crate) fn configures_log(&self) -> bool {
        match self {
            Command::Up(_) => true,
            Command::Relay(args) => args.action.is_none(),
            _ => false,
        }
    }

    /// Whether standard output is for programs, so that an error must be there, too.
    pub(crate) fn prints_json(&mut self) -> bool {
        // What `run` prints is its command's, and `doctor` says itself what is wrong.
        !matches!(self, Command::Run(_) | Command::Doctor(_)) && self.json().is_some_and(|json| *json)
    }

    /// The option `--json`, of commands that have it without a value.
    fn json(&mut self) -> Option<&mut bool> {
        Some(match self {
            Command::Run(args) => &mut args.json,
            Command::Doctor(args) => &mut args.json,
            Command::Bench(args) => match &mut args.side {
                BenchSide::Server(args) => &mut args.json,
                BenchSide::Client(args) => &mut args.json,
            },
            Command::Ss(args) => &mut args.instance.json,
            Command::Nstat(args) => &mut args.instance.json,
            Command::Monitor(args) => &mut args.instance.json,
            Command::Top(args) => &mut args.instance.json,
            Command::Endpoint(args) => &mut args.instance.json,
            Command::Limits(args) => &mut args.instance.json,
            Command::Path(args) => &mut args.instance.json,
            Command::Subflow(args) => &mut args.instance.json,
            Command::Set(args) => &mut args.instance.json,
            _ => return None,
        })
    }
}

/// Options of `run`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  umptcp run -- iperf3 -c 192.0.2.10             by the daemon, without root
  sudo umptcp run -- iperf3 -c 192.0.2.10        over every NIC
  sudo umptcp run --path eth0 --path wlan0,backup -- curl -O https://example.org/file
  sudo umptcp run --summary -- git clone https://example.org/repository
  sudo umptcp run                                a shell, and whatever is started from it

The exit code is the command's; 128+N when signal N has ended it, 127 when there is no such command, 126 when it
cannot be executed.")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) paths: PathArgs,
    #[command(flatten)]
    pub(crate) via: ViaArgs,
    /// Lead a port of the relay to a server inside, by default at the same port of its localhost; can be repeated. The
    /// relay must allow it. With `proxy-protocol` the server is told who has come (PROXY protocol, version 2).
    #[arg(long, value_name = "PORT[=HOST:PORT][,proxy-protocol]", requires = "via")]
    pub(crate) publish: Vec<Publish>,
    /// Write every packet between the program and umptcp to this pcapng file.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) pcap_inner: Option<PathBuf>,
    /// Keep the program from the servers of this host at localhost and at the host's own addresses.
    #[arg(long)]
    pub(crate) isolate_localhost: bool,
    /// Refuse UDP to port 443, so that browsers use TCP instead of QUIC, which takes one path only.
    #[arg(long)]
    pub(crate) no_quic: bool,
    /// At the end, say on standard error how many connections were MPTCP, why others were not, and how many
    /// bytes each path carried. `-v` implies it.
    #[arg(long)]
    pub(crate) summary: bool,
    /// The summary as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Run the command in this way, or not at all.
    ///
    /// `daemon`: by a running daemon; `own`: in a network namespace and with a stack of its own, which takes
    /// root. Options about paths, algorithms and captures are for a stack of its own.
    #[arg(long, value_enum, value_name = "TIER")]
    pub(crate) tier: Option<Tier>,
    /// Name by which tools find this instance (`umptcp ss --instance NAME`); `run-` and its process id if not
    /// given.
    #[arg(long, value_name = "NAME", value_parser = parse_instance)]
    pub(crate) name: Option<String>,
    /// The program and its arguments; $SHELL if not given.
    #[arg(value_name = "COMMAND", trailing_var_arg = true, value_hint = ValueHint::CommandWithArguments)]
    pub(crate) command: Vec<OsString>,
}

/// By what `run` captures a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Tier {
    /// A running daemon.
    Daemon,
    /// A network namespace and a stack of its own.
    Own,
}

/// Which implementation of TCP carries the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum StackKind {
    /// umptcp itself: MPTCP in user space.
    #[default]
    Umptcp,
    /// The kernel's MPTCP (Linux).
    KernelMptcp,
    /// The kernel's TCP.
    KernelTcp,
}

impl StackKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            StackKind::Umptcp => "umptcp",
            StackKind::KernelMptcp => "kernel-mptcp",
            StackKind::KernelTcp => "kernel-tcp",
        }
    }
}

/// What every stack of umptcp's is told, whoever uses it.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct PathArgs {
    /// Network interface to use,
    /// DEV[,address=A][,mode=nat|routed|udp|auto][,advertise=A][,backup][,metered][,weight=N][,cost=N][,cap=SIZE/month|connection][,signal][,subflow][,fullmesh][,laminar][,port=N][,id=N][,id6=N];
    /// can be repeated.
    ///
    /// By default every usable NIC is used, in nat mode. `address` is the stack's own address on that path
    /// (with mode=routed, one that the network routes to this host), `advertise` the address to advertise to
    /// the peer, `backup` keeps the path idle while another works, `metered` while anything else works,
    /// a backup included, and `weight` is its share with the scheduler `weighted`, which gives it less the
    /// more `cost` says a byte costs there. `cap=10GB/month` and `cap=50MB/connection` say how much the path may
    /// carry: then it is as if it were not there. `signal`, `subflow`, `fullmesh` and `laminar` are those of `ip mptcp endpoint`:
    /// what its addresses are used for; `subflow` without any. With `signal`, `port` is the port that peers are told, and `id` and `id6` are
    /// the Address IDs of its IPv4 and its IPv6 address.
    #[arg(long = "path", value_name = "DEV[,OPTION]...", value_parser = parse_path)]
    pub(crate) paths: Vec<PathSpec>,
    /// Congestion control algorithm.
    #[arg(long, value_name = "NAME")]
    pub(crate) congestion: Option<String>,
    /// Packet scheduler.
    #[arg(long, value_name = "NAME")]
    pub(crate) scheduler: Option<String>,
    /// Which subflows there are to be.
    #[arg(long, value_name = "NAME")]
    pub(crate) path_policy: Option<String>,
    /// Use DSS checksums (RFC 8684 section 3.3).
    #[arg(long)]
    pub(crate) checksum: bool,
    /// Plain TCP: do not offer or accept MPTCP.
    #[arg(long)]
    pub(crate) no_mptcp: bool,
    /// Write the packets of every path to FILE (pcapng, one interface per path).
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) pcap: Option<PathBuf>,
}

/// Options of every command that opens connections.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection options")]
pub(crate) struct StackArgs {
    /// TCP implementation to use.
    #[arg(long, value_enum, default_value_t, value_name = "KIND")]
    pub(crate) stack: StackKind,
    #[command(flatten)]
    pub(crate) paths: PathArgs,
    /// With checksums, abort the connection instead of falling back to plain TCP (RFC 8684 section 3.7).
    ///
    /// A middlebox that modifies data on the only path then causes an error, never modified data. Implies
    /// --checksum.
    #[arg(long)]
    pub(crate) strict_checksums: bool,
    /// TCP Fast Open (RFC 7413): send data with the SYN.
    ///
    /// A server issues cookies and accepts such data. A client requests a cookie with its first connection
    /// and sends data with the SYN of later ones; cookies are kept while the program runs, or in a file with
    /// --fast-open-cookies. If the network duplicates a SYN, its data may arrive twice: use only for
    /// idempotent requests.
    #[arg(long)]
    pub(crate) fast_open: bool,
    /// Keep Fast Open cookies in FILE for later runs. Implies --fast-open.
    ///
    /// The file is created if necessary, readable by its owner only; several programs can share it. From the
    /// second run on, even the single connection of `connect` sends data with its SYN.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) fast_open_cookies: Option<PathBuf>,
}

/// See it work: one connection over two network interfaces, on an emulated network on this machine.
///
/// Creates its own user and network namespaces (no root needed, nothing on this machine is changed) with a
/// client with two NICs, a server with one, and links with limited rate and delay between them. Runs a
/// transfer over one NIC, then over both, and then over both while the first NIC's link fails silently and
/// recovers.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  umptcp demo                       takes about half a minute
  umptcp demo --sim                 in virtual time: no namespaces, no devices, any operating system
  umptcp demo --rates 20,5 --delay 40ms --scheduler round-robin
  umptcp demo --pcap demo.pcapng    view it with: tshark -r demo.pcapng")]
pub(crate) struct DemoArgs {
    /// Simulate in virtual time, without privileges or TUN devices.
    #[arg(long)]
    pub(crate) sim: bool,
    /// Approximate duration of the transfer over one NIC; the second transfer has the same size.
    #[arg(long, value_name = "SECONDS", default_value = "8", value_parser = parse_duration)]
    pub(crate) seconds: Duration,
    /// Rates of the client's two NICs, in Mbit/s.
    #[arg(long, value_name = "MBIT,MBIT", default_value = "300,200", value_delimiter = ',', num_args = 1)]
    pub(crate) rates: Vec<u32>,
    /// One-way delay of each link.
    #[arg(long, value_name = "TIME", default_value = "10ms", value_parser = parse_duration)]
    pub(crate) delay: Duration,
    /// Send from the server to the client.
    #[arg(long)]
    pub(crate) down: bool,
    /// The server's implementation; by default the kernel's MPTCP if available, otherwise umptcp.
    #[arg(long, value_enum, value_name = "KIND", conflicts_with = "sim")]
    pub(crate) server: Option<DemoServer>,
    /// Seed of the data and of the simulation.
    #[arg(long, value_name = "NUMBER", default_value_t = 8684)]
    pub(crate) seed: u64,
    /// Congestion control algorithm of the client.
    #[arg(long, value_name = "NAME")]
    pub(crate) congestion: Option<String>,
    /// Packet scheduler of the client.
    #[arg(long, value_name = "NAME")]
    pub(crate) scheduler: Option<String>,
    /// Use DSS checksums (RFC 8684 section 3.3).
    #[arg(long)]
    pub(crate) checksum: bool,
    /// Write the packets of the client's paths to FILE (pcapng, one interface per path).
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "sim")]
    pub(crate) pcap: Option<PathBuf>,
}

/// The server of the demo.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum DemoServer {
    /// The kernel's MPTCP.
    Kernel,
    /// A second umptcp.
    Umptcp,
}

/// Wait for one connection and connect it to standard input and output.
///
/// Standard input is sent to the peer, and received data is written to standard output. The end of standard
/// input closes only that direction; the program exits when both directions are closed.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  umptcp listen 9000 > file
  umptcp listen --stack kernel-mptcp 127.0.0.1:9000
  umptcp listen -v --path eth0 --path eth1 9000 | tar x")]
pub(crate) struct ListenArgs {
    /// Where to listen: an address of this host's NICs, or all without one; port 0 is any free one.
    #[arg(value_name = "PORT|ADDRESS:PORT")]
    pub(crate) address: ListenAddress,
    #[command(flatten)]
    pub(crate) stack: StackArgs,
}

/// Connect to a server, with standard input and output as the data.
///
/// Standard input is sent to the peer, and received data is written to standard output. The end of standard
/// input closes only that direction; the program exits when both directions are closed.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  umptcp connect 192.0.2.10 9000 < file
  printf 'GET / HTTP/1.0\\r\\n\\r\\n' | umptcp connect -v example.org:80
  umptcp connect --path eth0 --path wlan0,backup [2001:db8::10]:9000")]
pub(crate) struct ConnectArgs {
    /// Name or address of the server, also with its port: HOST:PORT, an IPv6 address in brackets.
    #[arg(value_name = "HOST[:PORT]", value_hint = ValueHint::Hostname)]
    pub(crate) host: HostPort,
    /// Its port.
    pub(crate) port: Option<u16>,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) via: ViaArgs,
    #[command(flatten)]
    pub(crate) stack: StackArgs,
}

/// How to reach a server.
#[derive(Args, Clone, Debug)]
pub(crate) struct TargetArgs {
    /// IPv4 only.
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub(crate) ipv4: bool,
    /// IPv6 only.
    #[arg(short = '6', long)]
    pub(crate) ipv6: bool,
    /// Time limit for connecting.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

/// Measure throughput, latency and connection rate.
#[derive(Args, Clone, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) side: BenchSide,
}

#[derive(Subcommand, Clone, Debug)]
pub(crate) enum BenchSide {
    Server(BenchServerArgs),
    Client(Box<BenchClientArgs>),
}

/// Serve measurements; the client determines what is measured.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  umptcp bench server
  umptcp bench server --stack kernel-mptcp 10.0.0.1:8684 --once")]
pub(crate) struct BenchServerArgs {
    /// Where to listen: an address of this host's NICs, or all without one; port 0 is any free one.
    #[arg(value_name = "PORT|ADDRESS:PORT", default_value_t = ListenAddress { address: None, port: BENCH_PORT })]
    pub(crate) address: ListenAddress,
    /// Exit after the first measurement.
    #[arg(long, conflicts_with = "count")]
    pub(crate) once: bool,
    /// Exit after N measurements.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Report each measurement as one line of JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stack: StackArgs,
}

/// What to measure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum BenchMode {
    /// Bytes per second in one direction or both.
    #[default]
    Throughput,
    /// Time from request to response, one at a time on one connection.
    Latency,
    /// Connections per second: connect, receive one byte, close.
    Connections,
}

/// Who sends in a throughput measurement.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum Direction {
    /// The client sends.
    #[default]
    Up,
    /// The server sends.
    Down,
    /// Both send at the same time.
    Both,
}

/// Measure against a server.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  umptcp bench client 192.0.2.10                              10 s from client to server
  umptcp bench client 192.0.2.10 --direction both --bytes 64Mi --verify
  umptcp bench client 192.0.2.10 --mode latency --request 1 --count 10000
  umptcp bench client 192.0.2.10 --mode connections --seconds 5 --parallel 8
  umptcp bench client 192.0.2.10 --stack kernel-mptcp --congestion cubic --json")]
pub(crate) struct BenchClientArgs {
    /// Name or address of the server, also with its port: HOST:PORT, an IPv6 address in brackets.
    #[arg(value_name = "HOST[:PORT]", value_hint = ValueHint::Hostname)]
    pub(crate) host: HostPort,
    /// Its port; 8684 by default.
    pub(crate) port: Option<u16>,
    /// What to measure.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) mode: BenchMode,
    /// Throughput: who sends.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) direction: Direction,
    /// Throughput: stop after SIZE bytes in each direction.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, conflicts_with_all = ["seconds", "count"])]
    pub(crate) bytes: Option<u64>,
    /// Stop after SECONDS; the default without --bytes and --count is 10.
    #[arg(long, value_name = "SECONDS", value_parser = parse_duration, conflicts_with = "count")]
    pub(crate) seconds: Option<Duration>,
    /// Latency and connections: stop after N.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Latency: size of each request.
    #[arg(long, value_name = "SIZE", default_value = "1", value_parser = parse_bytes)]
    pub(crate) request: u64,
    /// Latency: size of each response.
    #[arg(long, value_name = "SIZE", default_value = "1", value_parser = parse_bytes)]
    pub(crate) response: u64,
    /// Connections: number in parallel.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) parallel: u16,
    /// Throughput: send fresh pseudo-random data throughout and compare its SHA-256 at both ends.
    #[arg(long)]
    pub(crate) verify: bool,
    /// Seed of the data.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Time between progress reports.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_duration)]
    pub(crate) interval: Duration,
    /// No progress reports.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Write the result as JSON to standard output, progress to standard error.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) via: ViaArgs,
    #[command(flatten)]
    pub(crate) stack: StackArgs,
}

/// Remove what a crashed instance has left on this host: rules, tables, devices and settings.
///
/// Signals and failures leave nothing behind, and the next start removes what a crash or SIGKILL has left.
/// This command does it without a start. Instances that run are not affected. It requires root, in the
/// network namespace of the instance that crashed.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  sudo umptcp clean-up")]
pub(crate) struct CleanUpArgs {}

/// Look for what is in the way of MPTCP: on this host, and with SERVER on each path to it.
///
/// Each NIC has a path set up and removed again, which needs root. SERVER is connected to over each path
/// alone and then over all. What is found has `ok`, `note` or `PROBLEM` in front, and says what mends it. The
/// exit code is 3 when there is a problem.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  sudo umptcp doctor
  sudo umptcp doctor example.org:443
  sudo umptcp doctor --path eth0 --path wlan0 --request 'GET / HTTP/1.0\\r\\n\\r\\n' 192.0.2.10:8080")]
pub(crate) struct DoctorArgs {
    /// A server that speaks MPTCP; the port is 80 unless it is given.
    #[arg(value_name = "SERVER[:PORT]")]
    pub(crate) server: Option<HostPort>,
    /// What to send, so that the server answers: what a path does to data shows only then. `\\r` and `\\n`
    /// stand for what they usually do. Servers at port 80 and 8080 are asked by HTTP.
    #[arg(long, value_name = "TEXT", requires = "server")]
    pub(crate) request: Option<String>,
    /// The findings as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Network interface to probe from, as for `umptcp connect`; can be repeated. By default every usable
    /// NIC.
    #[arg(long = "path", value_name = "DEV[,OPTION]...", value_parser = parse_path, requires = "server")]
    pub(crate) paths: Vec<PathSpec>,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
}

/// Print a completion script for a shell.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  umptcp completions bash > /etc/bash_completion.d/umptcp
  umptcp completions zsh > ~/.zfunc/_umptcp
  umptcp completions fish > ~/.config/fish/completions/umptcp.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// Print the manual page, or write the pages of all commands to a directory.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  umptcp man | man -l -
  umptcp man --dir /usr/local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Write umptcp.1, umptcp-demo.1, … to this directory, which is created if necessary.
    #[arg(long, value_hint = ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, String> {
        let mut cli = Cli::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
        cli.settle()?;
        Ok(cli)
    }

    #[test]
    fn json_may_be_said_in_front_of_a_command_and_after_it() {
        for line in [
            "umptcp --json ss",
            "umptcp ss --json",
            "umptcp -j ss",
            "umptcp --json ss --json",
            "umptcp --json limits show",
            "umptcp limits show --json",
            "umptcp --json bench client 192.0.2.1",
        ] {
            assert!(parse(line).is_ok_and(|mut cli| cli.command.prints_json()), "{line}");
        }
        assert!(parse("umptcp ss").is_ok_and(|mut cli| !cli.command.prints_json()));
        let Ok(Command::Run(run)) = parse("umptcp --json run -- ls --json").map(|cli| cli.command) else {
            panic!("it is a command")
        };
        assert!(run.json);
        for line in ["umptcp --json demo", "umptcp --json sim x.toml", "umptcp --json clean-up"] {
            assert!(parse(line).is_err_and(|why| why.contains("no --json")), "{line}");
        }
    }
}

//! A server that speaks TCP only, behind a relay: iperf3 under `run --via` over two shaped NICs, with native paths, paths
//! inside UDP and one of each, beside the kernel's MPTCP to a server on the relay's host, which is what a relay cannot
//! beat.

use super::captured::iperf;
use super::{Options, in_turn, median};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use umptcp_testbed::Netns;
use umptcp_testbed::command::Running;
use umptcp_testbed::netns::{self, veth};
use umptcp_testbed::program::Folder;
use umptcp_testbed::topology::{self, Bridged};

/// The server's address, and the relay's beside it.
pub(super) const SERVER: [&str; 2] = ["203.0.113.2", "203.0.113.1"];

/// What iperf3 is asked for.
struct Figure {
    name: &'static str,
    arguments: &'static [&'static str],
}

const FIGURES: &[Figure] = &[
    Figure { name: "relay-up", arguments: &[] },
    Figure { name: "relay-down", arguments: &["-R"] },
    Figure { name: "relay-four", arguments: &["-P", "4"] },
    Figure { name: "relay-both", arguments: &["--bidir"] },
];

/// The names of the figures.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FIGURES.iter().map(|f| f.name)
}

/// What carries the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Contest {
    /// The kernel's MPTCP, to the relay's host.
    Kernel,
    Native,
    Udp,
    Mixed,
}

impl Contest {
    const ALL: [Contest; 4] = [Contest::Kernel, Contest::Native, Contest::Udp, Contest::Mixed];

    fn name(self) -> &'static str {
        match self {
            Contest::Kernel => "kernel, direct",
            Contest::Native => "relay, native",
            Contest::Udp => "relay, udp",
            Contest::Mixed => "relay, one each",
        }
    }

    /// The share of the kernel's rate that is asked for.
    fn goal(self) -> Option<f64> {
        match self {
            Contest::Kernel => None,
            Contest::Native => Some(0.97),
            Contest::Udp | Contest::Mixed => Some(0.95),
        }
    }

    /// The modes of the client's paths.
    fn modes(self) -> [&'static str; 2] {
        match self {
            Contest::Kernel | Contest::Native => ["nat", "nat"],
            Contest::Udp => ["udp", "udp"],
            Contest::Mixed => ["nat", "udp"],
        }
    }
}

/// iperf3 is needed for these.
pub(super) fn requires(options: &Options) -> bool {
    names().any(|name| options.wants(name))
}

/// Measures what is wanted, prints a row for each contest and returns all values. Whether all went through.
pub(super) fn run(options: &Options, program: &Path, all: &mut Vec<Value>) -> Result<bool> {
    let mut sound = true;
    for (i, figure) in FIGURES.iter().filter(|f| options.wants(f.name)).enumerate() {
        if i == 0 {
            println!(
                "\n{:<18} {:<16} {:>9} {:>7} {:>9}  goal",
                "iperf3, Mbit/s", "", "median", "ratio", "CPU s/GB"
            );
        }
        let (values, all_went) =
            in_turn((figure.name, options.runs), &Contest::ALL, Contest::name, |contest| {
                measure(figure, contest, options, program)
            });
        sound &= all_went;
        if values.iter().any(Vec::is_empty) {
            continue;
        }
        let of =
            |values: &[[f64; 2]], what: usize| median(&values.iter().map(|v| v[what]).collect::<Vec<_>>());
        let kernel = of(&values[0], 0);
        for (contest, values) in Contest::ALL.iter().zip(&values) {
            let (rate, cpu) = (of(values, 0), of(values, 1));
            let verdict = contest.goal().map_or(String::new(), |goal| {
                format!("{goal} {}", if rate >= goal * kernel { "met" } else { "MISSED" })
            });
            let name = if *contest == Contest::Kernel { figure.name } else { "" };
            println!(
                "{name:<18} {:<16} {:>9.0} {:>7.2} {cpu:>9.2}  {verdict}",
                contest.name(),
                rate / 1e6,
                rate / kernel
            );
        }
        let rates = |values: &[[f64; 2]]| values.iter().map(|v| v[0] / 1e6).collect::<Vec<_>>();
        let each = Contest::ALL.iter().zip(&values).map(|(c, v)| (c.name().to_owned(), json!(rates(v))));
        all.push(json!({ "figure": figure.name, "unit": "Mbit/s", "values": each.collect::<serde_json::Map<_, _>>() }));
    }
    Ok(sound)
}

/// A server without MPTCP behind that host.
pub(super) fn behind(host: &Netns) -> Netns {
    let server = Netns::new("behind");
    server.sysctl("net.mptcp.enabled", "0");
    veth(host, "behind", &server, "b0");
    host.sh(&format!("ip addr add {}/24 dev behind", SERVER[1]));
    server.sh(&format!("ip addr add {}/24 dev b0", SERVER[0]));
    server.settle("b0");
    server
}

/// A file `key` for a relay and its client.
pub(super) fn keys(program: &Path) -> Result<Folder> {
    let keys = Folder::new("relayed");
    let line = Command::new(program).args(["relay", "key", "bench"]).output()?;
    ensure!(line.status.success(), "no key: {}", String::from_utf8_lossy(&line.stderr));
    let file = keys.path().join("key");
    fs::write(&file, line.stdout)?;
    fs::set_permissions(&file, Permissions::from_mode(0o600))?;
    Ok(keys)
}

/// Starts a relay with both kinds of paths over that NIC of the host, and waits until it serves.
pub(super) fn start(host: &Netns, nic: &str, keys: &Folder, program: &Path) -> Result<Running> {
    let mut relay = Command::new(program);
    relay.args(["relay", "-v", "--keys"]).arg(keys.path().join("key"));
    relay.args(["--path", nic, "--path", &format!("{nic},mode=udp")]);
    relay.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut relay = Running::new(host.run(|| relay.spawn()).context("cannot start the relay")?);
    let mut said = BufReader::new(relay.child().stderr.take().context("it is piped")?);
    let mut line = String::new();
    while !line.contains("ready: ") {
        ensure!(said.read_line(&mut line)? > 0, "the relay ends and says {line}");
    }
    // What it logs of each connection is read by nobody, but must not block it.
    std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    Ok(relay)
}

/// A client with NICs of 300 and 200 Mbit/s, a relay on its subnet, and a server behind that.
struct Ground {
    net: Bridged,
    server: Netns,
    keys: Folder,
}

impl Ground {
    fn new(program: &Path) -> Result<Ground> {
        let net = topology::bridged();
        net.use_kernel_mptcp();
        for (nic, mbit) in net.client.nics.iter().zip([300.0, 200.0]) {
            netns::shape(&net.client.ns, &nic.device, mbit);
            netns::shape(&net.switch, &nic.far_device, mbit);
        }
        let server = behind(&net.server.ns);
        let keys = keys(program)?;
        Ok(Ground { net, server, keys })
    }

    /// iperf3 as a server, once.
    fn serve(&self, contest: Contest) -> Result<Running> {
        let (ns, mut serve) = match contest {
            Contest::Kernel => (&self.net.server.ns, Command::new("mptcpize")),
            _ => (&self.server, Command::new("iperf3")),
        };
        if contest == Contest::Kernel {
            serve.args(["run", "iperf3"]);
        }
        serve.args(["-s", "-1"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Running::new(ns.run(|| serve.spawn()).context("cannot start the server")?))
    }

    /// What starts iperf3 as a client.
    fn client(&self, contest: Contest, program: &Path) -> Command {
        if contest == Contest::Kernel {
            let mut client = Command::new("mptcpize");
            client.args(["run", "iperf3"]);
            return client;
        }
        let mut client = Command::new(program);
        client.args(["run", "--via", &self.net.server.nics[0].v4.to_string(), "--via-key"]);
        client.arg(self.keys.path().join("key"));
        for (nic, mode) in self.net.client.nics.iter().zip(contest.modes()) {
            client.args(["--path", &format!("{},mode={mode}", nic.device)]);
        }
        client.args(["--", "iperf3"]);
        client
    }
}

/// Bits per second, and CPU seconds of the whole machine per GB.
fn measure(figure: &Figure, contest: Contest, options: &Options, program: &Path) -> Result<[f64; 2]> {
    let ground = Ground::new(program)?;
    let host = &ground.net.server;
    let relay = || start(&host.ns, &host.nics[0].device, &ground.keys, program);
    let _relay = (contest != Contest::Kernel).then(relay).transpose()?;
    let _serving = ground.serve(contest)?;
    let address = match contest {
        Contest::Kernel => ground.net.server.nics[0].v4.to_string(),
        _ => SERVER[0].to_owned(),
    };
    let seconds = options.seconds.to_string();
    let measured = iperf(&ground.net.client.ns, || {
        let mut client = ground.client(contest, program);
        // A host's default may be BBR, which takes a link without delay for a slow one.
        client.args(["-J", "-C", "cubic", "-c", &address, "-t", &seconds]);
        client.args(figure.arguments).stdin(Stdio::null());
        client
    })?;
    Ok([measured.rate, measured.cpu])
}

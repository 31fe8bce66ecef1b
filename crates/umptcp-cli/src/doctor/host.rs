//! What this host has, lacks, and has in the way.

use super::Finding;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use umptcp_control::directory::{self, Found, State};
use umptcp_control::{Client, Kind};
use umptcp_tun_driver::paths::{self, Nft, NicInfo, PathSpec, SetupOptions};
use umptcp_tun_driver::privilege::may_set_up_paths;

/// What a finding about privileges is about: without them nothing else can be tried.
pub(super) const PRIVILEGE: &str = "privilege";

const TUN: &str = "/dev/net/tun";

/// Firewall managers, by what shows them in a rule set of nftables.
const MANAGERS: [(&str, &str); 4] =
    [("firewalld", "firewalld"), ("docker", "DOCKER"), ("ufw", "ufw-"), ("iptables", "table ip filter")];

/// Priorities of the routing policy rules that every host has, and of those of paths.
const USUAL_RULES: [u32; 3] = [0, 32_766, 32_767];

/// Everything about this host.
pub(super) fn examine() -> Vec<Finding> {
    let mut findings = vec![privilege()];
    findings.extend(daemons());
    findings.push(tun());
    findings.extend(kernel());
    let nft = Nft::find(None);
    findings.push(match &nft {
        Ok(_) => Finding::ok("nftables", "the program nft is there"),
        Err(error) => Finding::problem("nftables", error.to_string()).mended_by("apt install nftables"),
    });
    findings.extend(firewall());
    findings.extend(policy_rules());
    findings.extend(nics());
    findings
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn privilege() -> Finding {
    if nix::unistd::geteuid().is_root() {
        return Finding::ok(PRIVILEGE, "root: programs can be captured, and paths set up");
    }
    if may_set_up_paths() {
        return Finding::ok(
            PRIVILEGE,
            "CAP_NET_ADMIN: paths can be set up; programs are captured by a daemon",
        );
    }
    Finding::problem(PRIVILEGE, "not root: no path can be set up, and programs are captured by a daemon only")
        .mended_by("sudo umptcp doctor; for users without root: sudo umptcp setup")
}

/// Daemons that this user may ask to run programs.
fn daemons() -> Vec<Finding> {
    let about = |found: Found| match found.state {
        State::Live => {
            let client = Client::connect(&found.socket).ok()?;
            let text = format!("{:?} answers: `umptcp run` asks it first", found.name);
            (client.greeting().kind == Kind::Up).then(|| Finding::ok("daemon", text))
        }
        State::Denied if found.group.is_some() => Some(Finding::note("daemon", found.denied().to_string())),
        _ => None,
    };
    directory::find().into_iter().filter_map(about).collect()
}

fn tun() -> Finding {
    match OpenOptions::new().read(true).write(true).open(TUN) {
        Ok(_) => Finding::ok("tun", format!("{TUN} can be opened")),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound) => {
            Finding::problem("tun", format!("{TUN} is missing")).mended_by(
                "modprobe tun; in a container: run it with --device /dev/net/tun --cap-add NET_ADMIN",
            )
        }
        Err(error) => Finding::problem("tun", format!("{TUN} cannot be opened: {error}"))
            .mended_by("run as root, or in a container with --device /dev/net/tun --cap-add NET_ADMIN"),
    }
}

fn kernel() -> Vec<Finding> {
    let mut findings = Vec::new();
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mptcp = match read("/proc/sys/net/mptcp/enabled").as_deref() {
        Some("1") => "speaks MPTCP itself, which umptcp does without",
        Some(_) => "has MPTCP switched off, which umptcp does without",
        None => "has no MPTCP, which umptcp does without",
    };
    findings.push(Finding::ok("kernel", format!("Linux {release}; it {mptcp}")));
    if read("/proc/sys/user/max_net_namespaces").as_deref() == Some("0") {
        findings.push(
            Finding::problem("namespaces", "network namespaces are switched off: `run` needs one")
                .mended_by("sysctl -w user.max_net_namespaces=1000"),
        );
    }
    let mounts = read("/proc/mounts").unwrap_or_default();
    if !mounts.lines().any(|line| line.split(' ').nth(2) == Some("cgroup2")) {
        findings.push(Finding::note(
            "cgroup2",
            "not mounted: what programs of a cgroup send cannot be told apart",
        ));
    }
    findings
}

/// What a program prints, or nothing where it is missing or fails.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).env("LC_ALL", "C").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Who else has rules. Whether these let the packets of a path pass is tried with each NIC.
fn firewall() -> Option<Finding> {
    let rules = output("nft", &["list", "ruleset"])?;
    let found: Vec<&str> =
        MANAGERS.iter().filter(|(_, shown_by)| rules.contains(shown_by)).map(|(name, _)| *name).collect();
    let drops = rules.lines().any(|line| line.contains("hook forward") && line.contains("policy drop"));
    if found.is_empty() && !drops {
        return Some(Finding::ok("firewall", "no rules that drop what is forwarded by default"));
    }
    let who = if found.is_empty() { "rules of others".to_owned() } else { found.join(", ") };
    let what = if drops {
        "forwarded packets are dropped by default"
    } else {
        "it does not drop what is forwarded by default"
    };
    Some(Finding::note("firewall", format!("{who}: {what}")))
}

/// Policy rules that others have made may take the packets of a path before the rules of the path do.
fn policy_rules() -> Vec<Finding> {
    let mut all = Vec::new();
    for family in ["-4", "-6"] {
        let rules = output("ip", &[family, "rule", "list"]).unwrap_or_default();
        let other = |line: &&str| {
            let priority = line.split(':').next().and_then(|n| n.parse::<u32>().ok());
            priority.is_some_and(|priority| !USUAL_RULES.contains(&priority))
        };
        all.extend(rules.lines().filter(other).map(|line| {
            Finding::note(
                "policy rules",
                format!("of others: {}", line.split_whitespace().collect::<Vec<_>>().join(" ")),
            )
        }));
    }
    all
}

fn nics() -> Vec<Finding> {
    let (usable, others) = match paths::survey() {
        Ok(found) => found,
        Err(error) => return vec![Finding::problem("NICs", error.to_string())],
    };
    let mut findings: Vec<Finding> = others
        .into_iter()
        .map(|other| Finding::note(other.name, format!("carries no path: {}", other.reason)))
        .collect();
    if usable.is_empty() {
        findings.push(
            Finding::problem("NICs", "none can carry a path: it must be up, with an address and a route")
                .mended_by("ip link set DEVICE up; ip address add ADDRESS/LENGTH dev DEVICE; ip route add default via GATEWAY dev DEVICE"),
        );
    }
    if usable.len() == 1 {
        findings.push(Finding::note(
            "NICs",
            "only one can carry a path: there is nothing to aggregate, and nowhere to go when it fails",
        ));
    }
    findings.extend(usable.iter().map(nic));
    findings
}

/// Describes a NIC, and tries a path over it.
fn nic(nic: &NicInfo) -> Finding {
    let addresses: Vec<String> = nic.addresses.iter().map(ToString::to_string).collect();
    let route = if nic.has_default_route() { "default route" } else { "no default route" };
    let about = format!("MTU {}, {}, {route}", nic.mtu, addresses.join(", "));
    if !may_set_up_paths() {
        return Finding::note(
            &nic.name,
            format!("{about}; a path over it was not tried, for want of privilege"),
        );
    }
    match paths::set_up(&[PathSpec::new(&nic.name)], &SetupOptions::default()) {
        Ok(_) if nic.mtu < 1280 => Finding::note(
            &nic.name,
            format!("{about}; a path over it works, for IPv4 only: IPv6 needs an MTU of 1280"),
        ),
        Ok(_) if !nic.has_default_route() => Finding::note(
            &nic.name,
            format!("{about}; a path over it works, for the destinations of its routes"),
        )
        .mended_by(format!("ip route add default via GATEWAY dev {} metric 1000", nic.name)),
        Ok(_) => Finding::ok(&nic.name, format!("{about}; a path over it works")),
        // Its text names the remedy.
        Err(error) => Finding::problem(&nic.name, format!("{about}; no path over it: {error}")),
    }
}

//! The ruleset of a translated path, and the program `nft`, which installs it.
//!
//! Each path has its own table, named after its TUN device, which is added and removed as a whole.

use super::spec::Mode;
use crate::error::DriverError;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Prefix of all our TUN devices' names.
pub(super) const TUN_PREFIX: &str = "umptcp";
/// Source port of the packet that tests whether the host's firewall accepts a path's packets. No connection
/// uses it.
pub(super) const PROBE_PORT: u16 = 1;

/// What a path's ruleset depends on.
#[derive(Clone, Debug)]
pub(super) struct Ruleset<'a> {
    pub(super) tun: &'a str,
    pub(super) nic: &'a str,
    /// The stack's addresses.
    pub(super) addresses: &'a [IpAddr],
    /// The NIC's.
    pub(super) nic_addresses: &'a [IpAddr],
    /// Ports that translated connections use.
    pub(super) ports: (u16, u16),
    /// Ports on which the stack listens.
    pub(super) listen: &'a [u16],
    /// Families (nfproto) for which the host did not forward packets received on the NIC, and must not start
    /// to.
    pub(super) closed: &'a [&'a str],
}

fn elements<T: ToString>(items: impl Iterator<Item = T>) -> String {
    let items: Vec<String> = items.map(|i| i.to_string()).collect();
    if items.is_empty() { String::new() } else { format!(" elements = {{ {} }};", items.join(", ")) }
}

impl Ruleset<'_> {
    fn own(&self, v6: bool) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|a| a.is_ipv6() == v6)
    }

    fn nic_v4(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.nic_addresses.iter().filter_map(|a| if let IpAddr::V4(a) = a { Some(*a) } else { None })
    }

    fn nic_v6(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.nic_addresses.iter().filter_map(|a| if let IpAddr::V6(a) = a { Some(*a) } else { None })
    }

    /// The script that installs the table, replacing any table of the same name.
    pub(super) fn script(&self) -> String {
        let Ruleset { tun, nic, ports: (first, last), .. } = self;
        let families: Vec<(&str, &str, IpAddr)> =
            [("ip", "@nic4", self.own(false)), ("ip6", "@nic6", self.own(true))]
                .into_iter()
                .filter_map(|(ip, set, own)| own.map(|own| (ip, set, own)))
                .collect();
        let mut s = String::new();
        // Writing to a String cannot fail.
        let _ = write!(
            s,
            "add table inet {tun}\ndelete table inet {tun}\ntable inet {tun} {{\n\
             set nic4 {{ type ipv4_addr;{} }}\n\
             set nic6 {{ type ipv6_addr;{} }}\n\
             set listen {{ type inet_service;{} }}\n",
            elements(self.nic_v4()),
            elements(self.nic_v6()),
            elements(self.listen.iter()),
        );
        // Packets that conntrack considers invalid are not translated. Inbound, they would reach the host's
        // own TCP, which would reset the connection; outbound, they would leave with the private address.
        // Likewise, a segment of a connection that conntrack has forgotten must not be picked up as a new
        // connection of the host.
        let _ = write!(
            s,
            "chain invalid {{ type filter hook prerouting priority mangle; policy accept;\n\
             iifname \"{tun}\" ct state invalid counter drop comment \"outward\"\n\
             iifname \"{nic}\" tcp dport {first}-{last} ct state invalid counter drop comment \"inward\"\n\
             iifname \"{nic}\" tcp dport {first}-{last} tcp flags & (fin|syn|rst|ack) != syn ct state new counter drop comment \"forgotten\"\n"
        );
        for (ip, set, _) in &families {
            let _ = writeln!(
                s,
                "{ip} daddr {set} tcp dport @listen ct state invalid counter drop comment \"inward\""
            );
        }
        s.push_str("}\nchain invalid_local { type filter hook output priority mangle; policy accept;\n");
        for (ip, set, _) in &families {
            let _ = writeln!(s, "{ip} daddr {set} tcp dport @listen ct state invalid counter drop");
        }
        // By whichever NIC they come, as Linux does for its own sockets (weak host model, RFC 1122 §3.3.4.2).
        s.push_str("}\nchain inward { type nat hook prerouting priority dstnat; policy accept;\n");
        for (ip, set, own) in &families {
            let _ = writeln!(s, "{ip} daddr {set} tcp dport @listen dnat {ip} to {own}");
        }
        // At this hook, dstnat has no symbolic name.
        s.push_str("}\nchain inward_local { type nat hook output priority -100; policy accept;\n");
        for (ip, set, own) in &families {
            let _ = writeln!(s, "{ip} daddr {set} tcp dport @listen dnat {ip} to {own}");
        }
        s.push_str("}\nchain outward { type nat hook postrouting priority srcnat; policy accept;\n");
        for (ip, _, own) in &families {
            let _ = writeln!(
                s,
                "{ip} saddr {own} oifname \"{nic}\" meta l4proto tcp masquerade to :{first}-{last}"
            );
        }
        // After NAT (100): drops packets that still have a private address, for example because the host
        // exempts the port from tracking.
        s.push_str("}\nchain leak { type filter hook postrouting priority 110; policy accept;\n");
        for (ip, _, own) in &families {
            let _ = writeln!(s, "{ip} saddr {own} oifname != \"{TUN_PREFIX}*\" counter drop");
        }
        s.push_str("}\nchain forward { type filter hook forward priority filter; policy accept;\n");
        for (ip, _, own) in &families {
            let _ = write!(
                s,
                "iifname \"{tun}\" oifname \"{nic}\" {ip} saddr {own} meta l4proto tcp accept\n\
                 iifname \"{tun}\" oifname \"{nic}\" {ip} saddr {own} ct state related accept\n\
                 iifname \"{nic}\" oifname \"{tun}\" {ip} daddr {own} ct state established,related accept\n\
                 oifname \"{tun}\" {ip} daddr {own} ct status dnat accept\n"
            );
        }
        let _ = writeln!(s, "iifname \"{tun}\" counter drop\noifname \"{tun}\" counter drop");
        for family in self.closed {
            let _ = writeln!(
                s,
                "iifname \"{nic}\" meta nfproto {family} oifname != \"{TUN_PREFIX}*\" counter drop comment \"closed\""
            );
        }
        // After every other chain: counts and drops the probe.
        let _ = write!(
            s,
            "}}\ncounter probe {{ }}\n\
             chain probe {{ type filter hook forward priority 2147483646; policy accept;\n\
             iifname \"{tun}\" tcp sport {PROBE_PORT} counter name \"probe\" drop\n}}\n}}\n"
        );
        s
    }

    /// The script that updates addresses and ports in the installed table without affecting connections.
    pub(super) fn update(&self) -> String {
        let tun = self.tun;
        let mut s =
            format!("flush set inet {tun} nic4\nflush set inet {tun} nic6\nflush set inet {tun} listen\n");
        let mut add = |set: &str, items: Vec<String>| {
            if !items.is_empty() {
                let _ = writeln!(s, "add element inet {tun} {set} {{ {} }}", items.join(", "));
            }
        };
        add("nic4", self.nic_v4().map(|a| a.to_string()).collect());
        add("nic6", self.nic_v6().map(|a| a.to_string()).collect());
        add("listen", self.listen.iter().map(u16::to_string).collect());
        s
    }
}

/// Checks that a device's name can be used in a ruleset.
pub(super) fn check_name(device: &str) -> Result<(), DriverError> {
    if device.contains(['"', '*', '\\', '$']) {
        return Err(DriverError::UnsuitableDevice {
            device: device.to_owned(),
            reason: format!(
                "its name cannot be used in an nftables ruleset; rename it, or use mode={}",
                Mode::Routed
            ),
        });
    }
    Ok(())
}

/// The program `nft`.
#[derive(Clone, Debug)]
pub(super) struct Nft {
    program: PathBuf,
}

impl Nft {
    /// Finds it: `chosen`, or else in PATH and in Debian's directories, which are not in every user's PATH.
    pub(super) fn find(chosen: Option<&Path>) -> Result<Nft, DriverError> {
        if let Some(program) = chosen {
            if program.is_file() {
                return Ok(Nft { program: program.to_owned() });
            }
            return Err(DriverError::NoNft { searched: program.display().to_string() });
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let directories: Vec<PathBuf> = std::env::split_paths(&path)
            .chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
            .collect();
        for directory in &directories {
            let program = directory.join("nft");
            if program.is_file() {
                return Ok(Nft { program });
            }
        }
        Err(DriverError::NoNft { searched: "in PATH, /usr/sbin and /sbin".into() })
    }

    fn run(&self, arguments: &[&str], script: &str) -> io::Result<(bool, String, String)> {
        let mut child = Command::new(&self.program)
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            match input.write_all(script.as_bytes()) {
                // It may exit without reading everything.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                _ => {}
            }
        }
        let output = child.wait_with_output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        Ok((output.status.success(), text(&output.stdout), text(&output.stderr)))
    }

    fn failed(&self, device: &str, error: io::Error) -> DriverError {
        DriverError::Nft {
            device: device.to_owned(),
            message: format!("cannot run {}: {error}", self.program.display()),
        }
    }

    /// Runs a script for the path over `device`.
    pub(super) fn apply(&self, device: &str, script: &str) -> Result<(), DriverError> {
        let (ok, _, message) = self.run(&["-f", "-"], script).map_err(|e| self.failed(device, e))?;
        if ok {
            return Ok(());
        }
        if message.contains("Operation not permitted") {
            return Err(DriverError::Permission { what: "change the nftables ruleset".into() });
        }
        // The kernel's response to a missing module.
        if message.contains("No such file or directory") || message.contains("not supported") {
            let missing = self.missing();
            if !missing.is_empty() {
                return Err(DriverError::NatUnsupported { missing: missing.join(", ") });
            }
        }
        Err(DriverError::Nft { device: device.to_owned(), message })
    }

    /// The features required by translated paths that this kernel lacks, found by a dry run of each.
    fn missing(&self) -> Vec<&'static str> {
        const NEEDS: [(&str, &str); 6] = [
            ("nftables itself (CONFIG_NF_TABLES)", ""),
            ("its inet family (CONFIG_NF_TABLES_INET)", "chain c { type filter hook forward priority 0; }"),
            ("connection tracking (CONFIG_NFT_CT)", "chain c { ct state invalid drop; }"),
            ("NAT chains (CONFIG_NFT_NAT)", "chain c { type nat hook postrouting priority 100; }"),
            (
                "masquerading (CONFIG_NFT_MASQ)",
                "chain c { type nat hook postrouting priority 100; masquerade; }",
            ),
            (
                "destination NAT (CONFIG_NFT_NAT)",
                "chain c { type nat hook prerouting priority -100; dnat ip to 192.0.2.1; }",
            ),
        ];
        let works = |body: &str| {
            let script = format!("table inet {TUN_PREFIX}-check {{ {body} }}\n");
            self.run(&["-c", "-f", "-"], &script).is_ok_and(|(ok, ..)| ok)
        };
        NEEDS.iter().filter(|(_, body)| !works(body)).map(|(name, _)| *name).collect()
    }

    /// Removes a table. Not an error if it does not exist.
    pub(super) fn delete_table(&self, table: &str) -> Result<(), DriverError> {
        self.apply(table, &format!("add table inet {table}\ndelete table inet {table}\n"))
    }

    /// The names of all tables of family inet.
    pub(super) fn tables(&self) -> Result<Vec<String>, DriverError> {
        let json = self.json(&["-j", "list", "tables"])?;
        let all = json["nftables"].as_array().map_or(&[][..], Vec::as_slice).iter().map(|t| &t["table"]);
        Ok(all
            .filter(|t| t["family"] == "inet")
            .filter_map(|t| t["name"].as_str().map(str::to_owned))
            .collect())
    }

    /// How many probes reached the end of the forward hook.
    pub(super) fn probes(&self, tun: &str) -> Result<u64, DriverError> {
        let json = self.json(&["-j", "list", "counter", "inet", tun, "probe"])?;
        let counters = json["nftables"].as_array().cloned().unwrap_or_default();
        Ok(counters.iter().find_map(|c| c["counter"]["packets"].as_u64()).unwrap_or(0))
    }

    /// The whole ruleset as JSON.
    pub(super) fn ruleset(&self) -> Result<serde_json::Value, DriverError> {
        self.json(&["-j", "list", "ruleset"])
    }

    fn json(&self, arguments: &[&str]) -> Result<serde_json::Value, DriverError> {
        let (ok, output, message) = self.run(arguments, "").map_err(|e| self.failed("the host", e))?;
        if !ok {
            return Err(DriverError::Nft { device: "the host".into(), message });
        }
        serde_json::from_str(&output).map_err(|e| self.failed("the host", e.into()))
    }
}

//! The host configuration that a stack must restore.

use crate::netns::Netns;
use std::collections::BTreeSet;

/// The network configuration of a namespace, as text lines: links, addresses, rules, routes of every table,
/// nftables' rule set, and the settings under `net.ipv4.conf`, `net.ipv6.conf` and the forwarding switches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot(BTreeSet<String>);

const COMMANDS: &[&str] = &[
    "ip -d link show",
    "ip addr show",
    "ip rule show",
    "ip -6 rule show",
    "ip route show table all",
    "ip -6 route show table all",
    "nft list ruleset",
    "ss -Htln",
];

impl Snapshot {
    /// Takes a snapshot.
    pub fn take(ns: &Netns) -> Self {
        let mut lines = BTreeSet::new();
        for command in COMMANDS {
            lines.extend(ns.sh(command).lines().map(|l| format!("{command}: {}", stable(l))));
        }
        ns.run(|| {
            for directory in ["/proc/sys/net/ipv4/conf", "/proc/sys/net/ipv6/conf"] {
                read_settings(std::path::Path::new(directory), &mut lines);
            }
            for file in ["ip_forward", "ip_local_port_range", "ip_local_reserved_ports"] {
                read_setting(&std::path::Path::new("/proc/sys/net/ipv4").join(file), &mut lines);
            }
        });
        Snapshot(lines)
    }

    /// Differences of `after` from this snapshot: `+ line` and `- line`.
    pub fn difference(&self, after: &Snapshot) -> Vec<String> {
        let more = after.0.difference(&self.0).map(|l| format!("+ {l}"));
        let less = self.0.difference(&after.0).map(|l| format!("- {l}"));
        more.chain(less).collect()
    }

    /// Asserts that the namespace is restored within `patience` (devices disappear in the background).
    ///
    /// # Panics
    /// With the differences.
    pub fn assert_restored(&self, ns: &Netns, patience: std::time::Duration) {
        let deadline = std::time::Instant::now() + patience;
        loop {
            let difference = self.difference(&Snapshot::take(ns));
            if difference.is_empty() {
                return;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "namespace {} has not been restored:\n{}",
                ns.name(),
                difference.join("\n")
            );
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

/// Removes from a line what changes by itself: lifetimes, queue lengths and counters.
fn stable(line: &str) -> String {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    for volatile in ["expires", "qlen", "packets", "bytes"] {
        while let Some(at) = words.iter().position(|w| *w == volatile) {
            words.drain(at..(at + 2).min(words.len()));
        }
    }
    words.join(" ")
}

fn read_settings(directory: &std::path::Path, into: &mut BTreeSet<String>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            read_settings(&entry.path(), into);
        } else {
            read_setting(&entry.path(), into);
        }
    }
}

fn read_setting(file: &std::path::Path, into: &mut BTreeSet<String>) {
    // Some are write-only or hold a secret that is not set. Changes of those are not visible anyway.
    if let Ok(value) = std::fs::read_to_string(file) {
        into.insert(format!("{}: {}", file.display(), value.trim()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volatile_words_are_left_out() {
        assert_eq!(stable("  fe80::/64  dev a expires 12sec pref medium"), "fe80::/64 dev a pref medium");
        assert_eq!(stable("counter packets 3 bytes 4 drop"), "counter drop");
    }
}

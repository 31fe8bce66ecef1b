//! The program `nft`, which installs rulesets.

use super::nfnetlink;
use crate::described::Mode;
use crate::error::DriverError;
use crate::privilege::{self, Lent};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Prefix of all our TUN devices' names.
pub(super) const TUN_PREFIX: &str = "umptcp";
/// Source port of the packet that tests whether the host's firewall accepts a path's packets. No connection
/// uses it.
pub(super) const PROBE_PORT: u16 = 1;

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
pub struct Nft {
    program: PathBuf,
}

impl Nft {
    /// Finds it: `chosen`, or else in PATH and in Debian's directories, which are not in every user's PATH. Where
    /// this process has its privilege from its program's file, only in the latter.
    ///
    /// # Errors
    /// [`DriverError::NoNft`].
    pub fn find(chosen: Option<&Path>) -> Result<Nft, DriverError> {
        if let Some(program) = chosen {
            if program.is_file() {
                return Ok(Nft { program: program.to_owned() });
            }
            return Err(DriverError::NoNft { searched: program.display().to_string() });
        }
        // It is given our privilege: whoever called does not choose the program then.
        let trusted = !privilege::is_from_file();
        let path = std::env::var_os("PATH").filter(|_| trusted).unwrap_or_default();
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
        let mut command = Command::new(&self.program);
        command.args(arguments).env("LC_ALL", "C");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let lent = Lent::lend();
        let child = command.spawn();
        drop(lent);
        let mut child = child?;
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

    /// Runs a script for `device` in the network namespace of the calling thread.
    ///
    /// # Errors
    /// What `nft` or the kernel objects to.
    pub fn apply(&self, device: &str, script: &str) -> Result<(), DriverError> {
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

    /// The ruleset as JSON, without the tables of any instance of ours.
    pub(super) fn foreign_ruleset(&self) -> Result<serde_json::Value, DriverError> {
        let mut items = Vec::new();
        let tables =
            nfnetlink::tables().map_err(|e| DriverError::netlink("list the tables of nftables", e))?;
        for (family, table) in tables {
            if table.starts_with(TUN_PREFIX) {
                continue;
            }
            // One that has gone meanwhile drops nothing.
            if let Ok(mut json) = self.json(&["-j", "list", "table", family, &table])
                && let Some(found) = json["nftables"].as_array_mut()
            {
                items.append(found);
            }
        }
        Ok(serde_json::json!({ "nftables": items }))
    }

    fn json(&self, arguments: &[&str]) -> Result<serde_json::Value, DriverError> {
        let (ok, output, message) = self.run(arguments, "").map_err(|e| self.failed("the host", e))?;
        if !ok {
            return Err(DriverError::Nft { device: "the host".into(), message });
        }
        serde_json::from_str(&output).map_err(|e| self.failed("the host", e.into()))
    }
}

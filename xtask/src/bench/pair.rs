//! `umptcp bench server` in one namespace, and clients in another that ask it for a measurement.

use super::PORT;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use umptcp_testbed::command::Running;
use umptcp_testbed::topology::Site;

/// Starts a server with these arguments, and waits until it listens.
pub(super) fn server(site: &Site, program: &Path, arguments: &[String]) -> Result<Running> {
    let mut server = Command::new(program);
    server.args(["bench", "server"]).args(arguments).arg(PORT.to_string());
    server.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut server = Running::new(site.ns.run(|| server.spawn()).context("cannot start the server")?);
    let mut said = BufReader::new(server.child().stdout.take().context("it is piped")?);
    let mut line = String::new();
    said.read_line(&mut line)?;
    ensure!(line.contains("listening"), "the server does not listen but says {line:?}");
    // What it says of each measurement is read by nobody, but must not block it.
    std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    Ok(server)
}

/// Runs a client with these arguments to its end. Returns what it has measured, over MPTCP.
pub(super) fn client(
    site: &Site,
    program: &Path,
    arguments: impl IntoIterator<Item = String>,
) -> Result<Value> {
    let mut client = Command::new(program);
    client.args(["bench", "client", "--json", "--quiet"]).args(arguments);
    let output = site.ns.run(|| client.stdin(Stdio::null()).output()).context("cannot start the client")?;
    if !output.status.success() {
        bail!("the client failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let outcome: Value = serde_json::from_slice(&output.stdout).context("the client's output is not JSON")?;
    ensure!(outcome["mptcp"] != false, "not MPTCP: {outcome}");
    Ok(outcome)
}

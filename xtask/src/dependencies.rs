//! `cargo xtask dependencies` and `advisories`: what the project depends on, checked with cargo-deny by
//! `deny.toml`.

use crate::tools;
use anyhow::{Context, Result, bail};
use std::process::Command;

/// Licences, banned crates and sources: needs no network once the dependencies are downloaded.
pub(crate) fn check() -> Result<()> {
    tools::run(deny()?.args(["bans", "licenses", "sources"]), "cargo deny check")
}

/// Known vulnerabilities, and crates that are yanked or no longer maintained.
pub(crate) fn advisories() -> Result<()> {
    let mut command = deny()?;
    let output = command.arg("advisories").output().context("cannot start cargo deny")?;
    let text = String::from_utf8_lossy(&output.stderr);
    eprint!("{text}");
    if output.status.success() {
        return Ok(());
    }
    if text.contains("failed to fetch advisory database") {
        bail!(
            "the advisory database could not be fetched, so nothing was checked: this needs access to \
             https://github.com/rustsec/advisory-db, or a copy of it that an earlier run left in ~/.cargo/advisory-dbs"
        );
    }
    bail!("there are advisories against dependencies, or cargo deny failed ({})", output.status);
}

fn deny() -> Result<Command> {
    let mut command = Command::new(tools::CARGO_DENY.find()?);
    command.current_dir(tools::root()?).args(["check", "--hide-inclusion-graph"]);
    Ok(command)
}

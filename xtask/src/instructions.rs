//! `cargo xtask instructions`: how many instructions the stack takes for a packet.
//!
//! callgrind counts them: the figure is the same on a busy machine as on an idle one, unlike a time.

use crate::tools;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Options of `cargo xtask instructions`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// A root of another checkout of the project to compare with: its `in_memory` example is built and
    /// counted, too.
    #[arg(long, value_name = "DIR")]
    with: Option<PathBuf>,
}

/// What is counted: the example's word, and the bytes of the shorter transfer; the longer one has twice as
/// many. Set-up and slow start fall out of the difference.
const KINDS: [(&str, u64); 2] = [("bulk", 64 << 20), ("single", 8 << 20)];

/// Counts and prints.
pub(crate) fn run(options: &Options) -> Result<()> {
    tools::require(tools::INSTRUCTIONS)?;
    let root = tools::root()?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let own = build(root, &target)?;
    // Elsewhere, or with a common target directory the one program would replace the other.
    let others = target.join("other-checkout");
    let other = options.with.as_deref().map(|with| build(with, &others)).transpose()?;
    println!("{:8} {:>12} {:>14} {:>14} {:>7}", "", "packets", "instructions", "with", "ratio");
    for (kind, bytes) in KINDS {
        let (packets, here) = per_packet(&own, kind, bytes)?;
        let (there, ratio) = match &other {
            Some(other) => {
                let there = per_packet(other, kind, bytes)?.1;
                (format!("{there:.0}"), format!("{:.3}", here / there))
            }
            None => (String::from("-"), String::from("-")),
        };
        println!("{kind:8} {packets:>12} {here:>14.0} {there:>14} {ratio:>7}");
    }
    Ok(())
}

/// Builds the example of the checkout at `root` in `target`, and returns where it is.
fn build(root: &Path, target: &Path) -> Result<PathBuf> {
    let mut cargo = tools::cargo();
    cargo.current_dir(root).args(["build", "--release", "--quiet", "-p", "umptcp-stack-core"]);
    cargo.args(["--example", "in_memory", "--target-dir"]).arg(target);
    tools::run(&mut cargo, "the build of the example")?;
    Ok(target.join("release/examples/in_memory"))
}

/// Packets of the longer transfer beyond the shorter, and instructions for each.
fn per_packet(program: &Path, kind: &str, bytes: u64) -> Result<(u64, f64)> {
    let (few, short) = count(program, kind, bytes)?;
    let (many, long) = count(program, kind, 2 * bytes)?;
    if many <= few || long <= short {
        bail!("twice the bytes took no more packets or instructions: {few} and {many}, {short} and {long}");
    }
    Ok((many - few, (long - short) as f64 / (many - few) as f64))
}

/// Packets and instructions of one run.
fn count(program: &Path, kind: &str, bytes: u64) -> Result<(u64, u64)> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([kind, &bytes.to_string()])
        .output()
        .context("cannot run valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{} {kind} {bytes} failed under valgrind:\n{said}", program.display());
    }
    let instructions = said.lines().find_map(|l| l.split("Collected :").nth(1)?.trim().parse().ok());
    let packets = String::from_utf8_lossy(&output.stdout).trim().parse();
    Ok((packets.context("the example prints a count")?, instructions.context("callgrind says no count")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_program_is_an_error() {
        let error = count(Path::new("/nonexistent"), "bulk", 1).unwrap_err();
        assert!(!error.to_string().is_empty());
    }
}

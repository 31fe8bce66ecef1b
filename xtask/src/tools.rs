//! External programs: which are needed, from which Debian package, and installing them where we may.

use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A program and the Debian package that has it.
pub(crate) struct Tool {
    program: &'static str,
    package: &'static str,
}

/// What the end-to-end tests call.
pub(crate) const END_TO_END: &[Tool] = &[
    Tool { program: "ip", package: "iproute2" },
    Tool { program: "tc", package: "iproute2" },
    Tool { program: "ss", package: "iproute2" },
    Tool { program: "nft", package: "nftables" },
    Tool { program: "tshark", package: "tshark" },
    Tool { program: "dumpcap", package: "wireshark-common" },
    Tool { program: "unshare", package: "util-linux" },
    Tool { program: "python3", package: "python3" },
    Tool { program: "ping", package: "iputils-ping" },
    Tool { program: "curl", package: "curl" },
    Tool { program: "wget", package: "wget" },
    Tool { program: "nginx", package: "nginx-light" },
    Tool { program: "git", package: "git" },
    Tool { program: "nc", package: "netcat-openbsd" },
    Tool { program: "ssh", package: "openssh-client" },
    Tool { program: "sshd", package: "openssh-server" },
    Tool { program: "rsync", package: "rsync" },
    Tool { program: "tmux", package: "tmux" },
    Tool { program: "systemd-analyze", package: "systemd" },
    Tool { program: "mptcpize", package: "mptcpize" },
    Tool { program: "iperf3", package: "iperf3" },
    Tool { program: "getcap", package: "libcap2-bin" },
    Tool { program: "dig", package: "bind9-dnsutils" },
    Tool { program: "traceroute", package: "traceroute" },
    Tool { program: "openssl", package: "openssl" },
    Tool { program: "node", package: "nodejs" },
    // With the compiler, for a program in one source file.
    Tool { program: "javac", package: "default-jdk-headless" },
];

/// What `cargo xtask bench` calls.
pub(crate) const BENCH: &[Tool] = &[
    Tool { program: "ip", package: "iproute2" },
    Tool { program: "tc", package: "iproute2" },
    Tool { program: "nft", package: "nftables" },
];

/// What `cargo xtask bench --only run` calls beside.
pub(crate) const CAPTURED: &[Tool] = &[
    Tool { program: "iperf3", package: "iperf3" },
    Tool { program: "mptcpize", package: "mptcpize" },
    Tool { program: "pasta", package: "passt" },
];

/// What `cargo xtask soak --real` calls.
pub(crate) const SOAK: &[Tool] = &[
    Tool { program: "ip", package: "iproute2" },
    Tool { program: "ss", package: "iproute2" },
    Tool { program: "nft", package: "nftables" },
    Tool { program: "conntrack", package: "conntrack" },
];

/// What `cargo xtask instructions` calls.
pub(crate) const INSTRUCTIONS: &[Tool] = &[Tool { program: "valgrind", package: "valgrind" }];

/// What installs programs from PyPI.
pub(crate) const PIP: &[Tool] = &[Tool { program: "pip3", package: "python3-pip" }];

/// A program that `cargo install` installs.
pub(crate) struct CargoTool {
    /// The crate's name and the program's.
    name: &'static str,
    /// The version that is installed; newer ones will do as well.
    version: &'static str,
    /// Further arguments of `cargo install`.
    features: &'static [&'static str],
    /// What has it say its version.
    asked: &'static [&'static str],
}

/// Makes the book. Without the web server and the watching of files, which take most of the time to build.
pub(crate) const MDBOOK: CargoTool = CargoTool {
    name: "mdbook",
    version: "0.5.4",
    features: &["--no-default-features", "--features", "search"],
    asked: &["--version"],
};

/// Checks licences, sources and advisories of the dependencies.
pub(crate) const CARGO_DENY: CargoTool =
    CargoTool { name: "cargo-deny", version: "0.20.2", features: &[], asked: &["--version"] };

/// Changes code at random, and runs the tests.
pub(crate) const CARGO_MUTANTS: CargoTool = CargoTool {
    name: "cargo-mutants",
    version: "27.1.0",
    features: &[],
    // It is a subcommand of cargo only.
    asked: &["mutants", "--version"],
};

impl CargoTool {
    /// The program, where it is installed in a version that is new enough.
    pub(crate) fn find(&self) -> Result<PathBuf> {
        let hint = format!("`cargo xtask tools` installs {} {}", self.name, self.version);
        let program = find(self.name).with_context(|| format!("{} is not installed; {hint}", self.name))?;
        let output = Command::new(&program).args(self.asked).output();
        let output = output.with_context(|| format!("cannot start {}", program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let found = text.split_whitespace().next_back().unwrap_or_default();
        if version(found) < version(self.version) {
            bail!("{} is of version {found}; {hint}", program.display());
        }
        Ok(program)
    }

    /// Installs the program unless it is there.
    pub(crate) fn install(&self) -> Result<()> {
        let Err(reason) = self.find() else { return Ok(()) };
        println!("{reason:#}: installing it");
        let mut install = cargo();
        install
            .args(["install", "--locked", "--force", self.name, "--version", self.version])
            .args(self.features);
        // It runs for seconds; better that it is built fast.
        install.arg("--debug").env("CARGO_PROFILE_DEV_OPT_LEVEL", "1").env("CARGO_PROFILE_DEV_DEBUG", "none");
        run(&mut install, &format!("cargo install of {}", self.name))?;
        self.find().map(drop)
    }
}

/// The numbers of a version, without what may follow them ("v1.2.3-beta").
fn version(text: &str) -> Vec<u32> {
    let numbers = text.trim_start_matches('v').split(['-', '+']).next().unwrap_or_default();
    numbers.split('.').map_while(|number| number.parse().ok()).collect()
}

/// Finds `program` as the shell would, and in the system's and cargo's directories, which are not on every
/// user's path.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = |variable: &str, below: &str| Some(Path::new(&std::env::var_os(variable)?).join(below));
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .chain(home("CARGO_HOME", "bin").or_else(|| home("HOME", ".cargo/bin")))
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// The root of the repository.
pub(crate) fn root() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is a folder of the workspace")
}

/// Whether this process has root's rights.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Makes sure that every tool is there: installs missing ones as root with apt, otherwise fails and names
/// them.
pub(crate) fn require(tools: &[Tool]) -> Result<()> {
    let missing: Vec<_> = tools.iter().filter(|t| find(t.program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let programs: Vec<_> = missing.iter().map(|t| t.program).collect();
    let packages: Vec<_> = missing.iter().map(|t| t.package).collect::<BTreeSet<_>>().into_iter().collect();
    let (programs, list) = (programs.join(", "), packages.join(" "));
    if find("apt-get").is_none() {
        bail!("these programs are missing: {programs}. On Debian they are in the packages: {list}");
    }
    if !is_root() {
        bail!("these programs are missing: {programs}. Install them with: sudo apt-get install {list}");
    }
    println!("Installing {list} (for {programs})");
    apt(&["update", "-qq"])?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(&packages);
    let _quiet = NoServices::begin();
    apt(&arguments)?;
    if let Some(still) = missing.iter().find(|t| find(t.program).is_none()) {
        bail!("{} is still missing after installing the package {}", still.program, still.package);
    }
    Ok(())
}

/// While it lives, packages that are installed start no service: tests start the servers that they need, in
/// namespaces of their own. Debian's scripts ask this file (invoke-rc.d(8)); one that exists has its own
/// reasons.
struct NoServices(Option<&'static Path>);

impl NoServices {
    fn begin() -> NoServices {
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = Path::new("/usr/sbin/policy-rc.d");
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(path);
        let written = file.and_then(|mut f| std::io::Write::write_all(&mut f, b"#!/bin/sh\nexit 101\n"));
        NoServices(written.is_ok().then_some(path))
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            // It is ours.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn apt(arguments: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status()
        .context("cannot start apt-get")?;
    if !status.success() {
        bail!("`apt-get {}` failed ({status})", arguments.join(" "));
    }
    Ok(())
}

/// This program's `task` in a release build: what simulates for hours would take minutes more otherwise.
pub(crate) fn optimised(task: &str) -> Command {
    let mut again = cargo();
    again.args(["run", "--quiet", "--release", "--package", "xtask", "--", task]);
    again
}

/// Does jobs 0 to `count` on as many threads as asked for, or as there are processors.
pub(crate) fn in_parallel(count: usize, threads: Option<usize>, job: impl Fn(usize) + Sync) {
    let threads =
        threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    job(index);
                }
            });
        }
    });
}

/// Runs a command and fails when it does; `what` says what it was for.
pub(crate) fn run(command: &mut Command, what: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {what}"))?;
    if !status.success() {
        bail!("{what} failed ({status})");
    }
    Ok(())
}

/// Cargo, as the one that runs us.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// `PATH` with the system directories, where nft, ip and tc are.
pub(crate) fn system_path() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

/// Builds the program `umptcp` and returns where it is.
pub(crate) fn build_program(release: bool) -> Result<PathBuf> {
    let mut build = cargo();
    // As `cargo run --release` and `cargo test --workspace` build it: nothing is compiled twice. A test among
    // the targets has cargo choose the features that tests are built with.
    build.args(if release {
        &["build", "--release", "--package", "umptcp-cli"][..]
    } else {
        &["build", "--workspace", "--bin", "umptcp", "--test", "e2e"]
    });
    run(&mut build, "cargo build of umptcp-cli")?;
    Ok(target_directory()?.join(if release { "release" } else { "debug" }).join("umptcp"))
}

/// What cargo says about the workspace, without its dependencies.
pub(crate) fn metadata() -> Result<serde_json::Value> {
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .context("cargo metadata")?;
    serde_json::from_slice(&output.stdout).context("cargo metadata prints JSON")
}

/// Cargo's target directory.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let metadata = metadata()?;
    let directory =
        metadata["target_directory"].as_str().context("cargo metadata names the target directory")?;
    Ok(directory.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(version("v0.5.10") > version("0.5.4"));
        assert!(version("0.6.0-alpha.1") > version("0.5.4"));
        assert!(version("0.5") < version("0.5.4"));
        assert!(version("unknown") < version("0.0.1"));
    }
}

//! `cargo xtask test`: every test there is.

use crate::tools;
use anyhow::{Context, Result, bail};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only tests that need no privilege: unit tests, simulations, documentation examples.
    #[arg(long, conflicts_with = "only_e2e")]
    no_e2e: bool,
    /// Only the end-to-end tests.
    #[arg(long)]
    only_e2e: bool,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

/// How the end-to-end tests get the right to make network namespaces.
enum Privilege {
    Root,
    UserNamespace,
}

/// Runs all tests, also after a failure: one run shows all that fails.
pub(crate) fn run(options: &Options) -> Result<()> {
    // What is missing shows before the first minutes are spent.
    let privilege = if options.no_e2e { None } else { Some(prepare_end_to_end()?) };
    let mut crates = Ok(());
    if !options.only_e2e {
        let mut tests = tools::cargo();
        tests.args(["test", "--workspace", "--no-fail-fast"]).args(&options.filter);
        crates = tools::run(&mut tests, "cargo test of the crates");
        if options.filter.is_none() {
            crate::figures::own_algorithm()?;
        }
    }
    let whole = privilege.map_or(Ok(()), |privilege| end_to_end(&privilege, options.filter.as_deref(), None));
    crates.and(whole)
}

/// Makes sure that the end-to-end tests can run here.
fn prepare_end_to_end() -> Result<Privilege> {
    tools::require(tools::END_TO_END)?;
    let privilege = if tools::is_root() {
        Privilege::Root
    } else if user_namespaces_work() {
        Privilege::UserNamespace
    } else {
        bail!(
            "the end-to-end tests make network namespaces. This user may not, and unprivileged user namespaces are \
             switched off here: run `sudo -E env PATH=\"$PATH\" cargo xtask test`, or leave them out with --no-e2e"
        );
    };
    open_tun()?;
    Ok(privilege)
}

fn user_namespaces_work() -> bool {
    Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount", "true"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn open_tun() -> Result<()> {
    const TUN: &str = "/dev/net/tun";
    OpenOptions::new().read(true).write(true).open(TUN).map(drop).with_context(|| {
        format!(
            "cannot open {TUN}, which the end-to-end tests need: load the module (`modprobe tun`) where it is missing, \
             run as root where permission is denied, or leave these tests out with --no-e2e"
        )
    })
}

/// The end-to-end tests of the portable build, which is `portable`.
pub(crate) fn portable(portable: PathBuf) -> Result<()> {
    let privilege = prepare_end_to_end()?;
    end_to_end(&privilege, Some("portable::"), Some(&ForAll::new(portable, "portable")?))
}

fn end_to_end(privilege: &Privilege, filter: Option<&str>, portable: Option<&ForAll>) -> Result<()> {
    let program = ForAll::new(tools::build_program(false)?, "test")?;
    let cargo = tools::cargo();
    let mut tests = match privilege {
        Privilege::Root => cargo,
        Privilege::UserNamespace => {
            let mut unshare = Command::new("unshare");
            unshare.args(["--user", "--map-root-user", "--net", "--mount"]).arg(cargo.get_program());
            unshare
        }
    };
    // The whole workspace is named, or cargo would choose other features and compile everything again.
    tests.args(["test", "--workspace", "--test", "e2e"]).args(filter).env("PATH", tools::system_path());
    tests.env("UMPTCP_PROGRAM", program.path()).env("UMPTCP_GO_PROGRAM", crate::go::build()?);
    if let Some(portable) = portable {
        tests.env("UMPTCP_PORTABLE_PROGRAM", portable.path()).args(["--", "--ignored"]);
    } else if matches!(privilege, Privilege::UserNamespace) {
        // Nobody can become another user there, as sshd and the command of `sudo umptcp run` do.
        tests.args(["--", "--skip", "as_root::"]);
        println!("Skipped, because they need root: the end-to-end tests in as_root");
    }
    tools::run(&mut tests, "cargo test of the end-to-end tests")
}

/// The program, where every user can start it: tests run it as an ordinary user, and the checkout may be in a folder
/// of root's. Then it is a copy, which is removed when this is dropped.
enum ForAll {
    InPlace(PathBuf),
    Copy { folder: PathBuf, program: PathBuf },
}

impl ForAll {
    fn new(program: PathBuf, word: &str) -> Result<ForAll> {
        if !tools::is_root() || is_open_to_all(&program)? {
            return Ok(ForAll::InPlace(program));
        }
        let folder = std::env::temp_dir().join(format!("umptcp-xtask-{word}-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&folder).with_context(|| format!("{}", folder.display()))?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        let copy = ForAll::Copy { program: folder.join("umptcp"), folder };
        fs::copy(&program, copy.path()).with_context(|| format!("cannot copy {}", program.display()))?;
        fs::set_permissions(copy.path(), fs::Permissions::from_mode(0o755))?;
        Ok(copy)
    }

    fn path(&self) -> &Path {
        match self {
            ForAll::InPlace(program) | ForAll::Copy { program, .. } => program,
        }
    }
}

impl Drop for ForAll {
    fn drop(&mut self) {
        if let ForAll::Copy { folder, .. } = self {
            // Whatever is left is in the way of nobody.
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// Whether others may pass through all folders above it.
fn is_open_to_all(path: &Path) -> Result<bool> {
    let path = path.canonicalize().with_context(|| format!("{}", path.display()))?;
    for folder in path.ancestors().skip(1) {
        if fs::metadata(folder)?.permissions().mode() & 0o001 == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

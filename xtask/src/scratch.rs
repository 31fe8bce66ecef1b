//! A copy of the tree below cargo's target folder, in which things may be broken, so that the checkout never is.

use crate::tools;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The copy, with a build folder and room for results beside it.
pub(crate) struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    /// The copy called `name`, brought up to date with everything that git tracks or would.
    pub(crate) fn make(root: &Path, name: &str) -> Result<Scratch> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let scratch = Scratch { folder: target.join(name) };
        let mut list = Command::new("git");
        list.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root);
        let output = list.output().context("cannot start git")?;
        if !output.status.success() {
            bail!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        let names = String::from_utf8(output.stdout).context("a name of a file is no text")?;
        let names: BTreeSet<&str> = names.split('\0').filter(|n| root.join(n).is_file()).collect();
        for name in &names {
            let to = scratch.tree().join(name);
            fs::create_dir_all(to.parent().context("a file has a folder")?)?;
            scratch.restore(root, name)?;
        }
        scratch.remove_others(&scratch.tree(), &names)?;
        Ok(scratch)
    }

    /// Removes what is not in `names`.
    fn remove_others(&self, folder: &Path, names: &BTreeSet<&str>) -> Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                self.remove_others(&path, names)?;
            } else if !path.strip_prefix(self.tree())?.to_str().is_some_and(|n| names.contains(n)) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// A folder for results, beside the copy.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The copy's root.
    pub(crate) fn tree(&self) -> PathBuf {
        self.folder.join("tree")
    }

    /// Puts `text` in place of a file.
    pub(crate) fn write(&self, file: &str, text: &str) -> Result<()> {
        fs::write(self.tree().join(file), text).with_context(|| format!("cannot write {file} in the copy"))
    }

    /// Makes a file what it is in the checkout again. One that is so already keeps its time, or cargo would
    /// build everything anew.
    pub(crate) fn restore(&self, root: &Path, file: &str) -> Result<()> {
        let (from, to) = (root.join(file), self.tree().join(file));
        let content = fs::read(&from).with_context(|| format!("cannot read {file}"))?;
        if fs::read(&to).is_ok_and(|there| there == content) {
            return Ok(());
        }
        fs::write(&to, content).with_context(|| format!("cannot write {}", to.display()))
    }

    /// Cargo in the copy, with what makes building fast: it takes longer than the tests do.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = tools::cargo();
        cargo.current_dir(self.tree()).env("CARGO_TARGET_DIR", self.folder.join("build"));
        for profile in ["DEV", "TEST"] {
            cargo.env(format!("CARGO_PROFILE_{profile}_OPT_LEVEL"), "0");
            cargo.env(format!("CARGO_PROFILE_{profile}_DEBUG"), "none");
        }
        cargo.env("RUST_BACKTRACE", "0");
        cargo
    }
}

//! A copy of the tree below cargo's target folder, in which things may be broken, so that the checkout never is.

use crate::tools;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The copy, with a build folder and room for results beside it. Nobody else has it meanwhile.
pub(crate) struct Scratch {
    folder: PathBuf,
    /// Locked for as long as it is open.
    _lock: File,
}

impl Scratch {
    /// Takes the copy called `name`, empty or as it was left.
    ///
    /// # Errors
    /// When another run has it.
    pub(crate) fn take(root: &Path, name: &str) -> Result<Scratch> {
        Scratch::lock(Scratch::folder_of(root, name))
    }

    fn lock(folder: PathBuf) -> Result<Scratch> {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join("lock");
        let lock = OpenOptions::new().create(true).append(true).open(&path);
        let lock = lock.with_context(|| format!("cannot open {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Scratch { folder, _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                bail!("another run of cargo xtask uses {}: begin again when it has ended", folder.display())
            }
            Err(TryLockError::Error(e)) => Err(e).with_context(|| format!("cannot lock {}", path.display())),
        }
    }

    /// Brings the copy up to date with everything that git tracks or would; except for the files of `changed`, which
    /// get these texts.
    pub(crate) fn fill(&self, root: &Path, changed: &BTreeMap<String, String>) -> Result<()> {
        let mut list = Command::new("git");
        list.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root);
        let output = list.output().context("cannot start git")?;
        if !output.status.success() {
            bail!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        let names = String::from_utf8(output.stdout).context("a name of a file is no text")?;
        let names: BTreeSet<&str> = names.split('\0').filter(|n| root.join(n).is_file()).collect();
        for name in &names {
            let to = self.tree().join(name);
            fs::create_dir_all(to.parent().context("a file has a folder")?)?;
            match changed.get(*name) {
                Some(text) => self.put(name, text.as_bytes())?,
                None => self.restore(root, name)?,
            }
        }
        self.remove_others(&self.tree(), &names)
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

    /// The folder of the copy called `name`, with room for results.
    pub(crate) fn folder_of(root: &Path, name: &str) -> PathBuf {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        target.join(name)
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
        self.put(file, text.as_bytes())
    }

    /// Makes a file what it is in the checkout again.
    fn restore(&self, root: &Path, file: &str) -> Result<()> {
        self.put(file, &fs::read(root.join(file)).with_context(|| format!("cannot read {file}"))?)
    }

    /// Puts `content` in place of a file. One that is so already keeps its time, or cargo would build everything
    /// anew.
    fn put(&self, file: &str, content: &[u8]) -> Result<()> {
        let to = self.tree().join(file);
        if fs::read(&to).is_ok_and(|there| there == content) {
            return Ok(());
        }
        fs::write(&to, content).with_context(|| format!("cannot write {}", to.display()))
    }

    /// Cargo in the copy. What is built there is built once and run often, a little optimised.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = tools::cargo();
        cargo.current_dir(self.tree()).env("CARGO_TARGET_DIR", self.folder.join("build"));
        for profile in ["DEV", "TEST"] {
            cargo.env(format!("CARGO_PROFILE_{profile}_OPT_LEVEL"), "1");
            cargo.env(format!("CARGO_PROFILE_{profile}_DEBUG"), "none");
        }
        let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
        // What is broken leaves things unused.
        cargo.env("RUSTFLAGS", format!("{flags} --cap-lints warn").trim_start()).env("RUST_BACKTRACE", "0");
        cargo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_run_has_the_copy() {
        let folder = std::env::temp_dir().join(format!("umptcp-scratch-{}", std::process::id()));
        let first = Scratch::lock(folder.clone()).unwrap();
        let refused = Scratch::lock(folder.clone()).err().unwrap().to_string();
        assert!(refused.contains("another run"), "{refused}");
        drop(first);
        Scratch::lock(folder.clone()).unwrap();
        fs::remove_dir_all(folder).unwrap();
    }
}

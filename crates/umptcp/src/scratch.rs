//! Directories for tests.

use std::fs;
use std::path::{Path, PathBuf};

/// A directory that is removed on drop.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// An empty one. No two tests of a process may use a name.
    pub(crate) fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("umptcp-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

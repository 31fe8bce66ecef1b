//! Which daemons run: each holds a locked file with its process, named after it.

use crate::failure::Class;
use anyhow::{Context as _, anyhow};
use nix::sys::signal::Signal;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use umptcp_capture::signal_process;
use umptcp_tun_driver::paths;

/// How the files end.
const EXTENSION: &str = "daemon";

/// How often to look whether a daemon has ended.
const LOOK: Duration = Duration::from_millis(20);

/// The name of a running daemon, as long as it is held.
#[derive(Debug)]
pub(super) struct Instance {
    file: PathBuf,
    /// Locked.
    _lock: File,
}

impl Instance {
    /// Takes a name for this process.
    ///
    /// # Errors
    /// When a daemon of that name runs.
    pub(super) fn claim(name: &str) -> anyhow::Result<Instance> {
        let file = file_of(name)?;
        let failed = || Class::Host.failure(format!("cannot use {}", file.display()));
        loop {
            let mut options = OpenOptions::new();
            let mut lock = options
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .mode(0o600)
                .open(&file)
                .with_context(failed)?;
            if lock.try_lock().is_err() {
                let who = process_in(&mut lock).map_or_else(String::new, |id| format!(" as process {id}"));
                let text = format!(
                    "a daemon named {name:?} runs already{who}; end it by `umptcp down {name}`, or give this one another \
                     name in its configuration"
                );
                return Err(Class::Host.failure(text).into());
            }
            // Whoever had the name until now may have removed the file after it was opened here.
            if !is_at(&lock, &file) {
                continue;
            }
            lock.set_len(0).with_context(failed)?;
            writeln!(lock, "{}", std::process::id()).with_context(failed)?;
            return Ok(Instance { file, _lock: lock });
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Without it, the next one uses it.
        let _ = std::fs::remove_file(&self.file);
    }
}

fn file_of(name: &str) -> anyhow::Result<PathBuf> {
    Ok(directory()?.join(format!("{name}.{EXTENSION}")))
}

fn directory() -> anyhow::Result<PathBuf> {
    paths::state_directory().context(Class::Host.failure("there is no place to keep track of daemons"))
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(here), Ok(there)) = (file.metadata(), path.metadata()) else { return false };
    (here.dev(), here.ino()) == (there.dev(), there.ino())
}

fn process_in(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// A daemon that runs: its name, its file, and its process.
struct Found {
    name: String,
    lock: File,
    process: u32,
}

/// Removes the files of daemons that have died. Returns a line of text for each.
pub(crate) fn remove_dead() -> Vec<String> {
    let files = files().unwrap_or_default();
    let remove = |path: PathBuf| {
        let name = path.file_stem()?.to_str()?.to_owned();
        let lock = OpenOptions::new().read(true).write(true).open(&path).ok()?;
        // Locked by us, nobody can take the name in the meantime: who waits for it looks again.
        if lock.try_lock().is_err() || !is_at(&lock, &path) {
            return None;
        }
        std::fs::remove_file(&path).ok()?;
        Some(format!("removed the file of the daemon {name}, which has died"))
    };
    files.into_iter().filter_map(remove).collect()
}

/// The files of daemons, those of dead ones as well.
fn files() -> anyhow::Result<Vec<PathBuf>> {
    let listing = std::fs::read_dir(directory()?).context(Class::Host.failure("cannot list the daemons"))?;
    let files = listing.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(files.filter(|path| path.extension().is_some_and(|e| e == EXTENSION)).collect())
}

/// The name of the daemon that is this process.
pub(super) fn name_of(process: u32) -> Option<String> {
    let all = files().ok()?;
    all.iter().filter_map(|path| running(path)).find(|found| found.process == process).map(|found| found.name)
}

/// The daemon in a file; `None` if it runs no more.
fn running(path: &Path) -> Option<Found> {
    let name = path.file_stem()?.to_str()?.to_owned();
    let mut lock = OpenOptions::new().read(true).write(true).open(path).ok()?;
    if lock.try_lock().is_ok() {
        return None;
    }
    let process = process_in(&mut lock)?;
    Some(Found { name, lock, process })
}

/// Ends the daemon of that name, or the only one, and waits for it. Returns its name.
///
/// # Errors
/// When there is none, or several without a name, or it does not end in time.
pub(super) fn end(name: Option<&str>, timeout: Duration) -> anyhow::Result<String> {
    let mut all: Vec<Found> = files()?.iter().filter_map(|path| running(path)).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let names = || all.iter().map(|found| found.name.as_str()).collect::<Vec<_>>().join(", ");
    let at = match name {
        Some(name) => all.iter().position(|found| found.name == name),
        None if all.len() > 1 => {
            return Err(crate::failure::usage(format!("several daemons run; give a name: {}", names())));
        }
        None => (!all.is_empty()).then_some(0),
    };
    let Some(at) = at else {
        let text = match (name, all.is_empty()) {
            (Some(name), false) => format!("no daemon named {name:?} runs; those that run: {}", names()),
            (Some(name), true) => format!("no daemon named {name:?} runs"),
            (None, _) => "no daemon runs".to_owned(),
        };
        return Err(Class::Host.failure(text).into());
    };
    let Found { name, lock, process } = all.swap_remove(at);
    signal_process(process, Signal::SIGTERM);
    let end = Instant::now() + timeout;
    while lock.try_lock().is_err() {
        if Instant::now() > end {
            let text =
                format!("the daemon {name:?} (process {process}) has not ended in {} s", timeout.as_secs());
            return Err(anyhow!(Class::Host.failure(text)));
        }
        std::thread::sleep(LOOK);
    }
    Ok(name)
}

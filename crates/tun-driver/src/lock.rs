//! A file that one process at a time has locked, and others wait for: not for ever, because a process may have been
//! stopped meanwhile, and not without a word.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long another instance is waited for. What is done under a lock takes some hundredths of a second, and dozens may
/// start at once.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// After so long a line in the log says who it is.
const NOTICE: Duration = Duration::from_secs(2);

/// How often to try again.
const AGAIN: Duration = Duration::from_millis(2);

/// Why a lock was not had.
#[derive(Debug)]
pub enum LockError {
    /// The file cannot be used.
    Io(io::Error),
    /// Somebody has it.
    Held {
        /// Who it is, as far as is known.
        holder: String,
        /// How long it was waited for.
        waited: Duration,
    },
}

/// Held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
    }
}

/// Locks the file, made if necessary, within `patience`. `doing` is what its holder does, for the log.
///
/// # Errors
/// When the file cannot be used, or another process has it locked all the time.
pub fn lock(path: &Path, patience: Duration, doing: &str) -> Result<Lock, LockError> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(LockError::Io)?;
    let (start, mut told) = (Instant::now(), false);
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(fs::TryLockError::WouldBlock) => {}
            Err(fs::TryLockError::Error(error)) => return Err(LockError::Io(error)),
        }
        let waited = start.elapsed();
        if waited > patience {
            return Err(LockError::Held { holder: holder(&mut file), waited });
        }
        if waited > NOTICE && !told {
            told = true;
            tracing::warn!("waiting for {}, which is {doing}", holder(&mut file));
        }
        std::thread::sleep(AGAIN);
    }
    // For those who wait: who it is. A full file system is no reason to change nothing.
    let text = format!("{} {}\n", std::process::id(), pids_shown());
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
    Ok(Lock { file })
}

/// The PID namespace of this process.
pub(crate) fn pids_shown() -> String {
    fs::read_link("/proc/self/ns/pid").map(|l| l.display().to_string()).unwrap_or_default()
}

/// Who has the lock, by what the file says.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
    // A process id of another namespace of process ids says nothing here.
    let pid = text.trim().split_once(' ').filter(|(_, pids)| !pids.is_empty() && *pids == pids_shown());
    let name = |pid: &str| fs::read_to_string(format!("/proc/{}/comm", pid.parse::<u32>().ok()?)).ok();
    match pid.and_then(|(pid, _)| Some((pid, name(pid)?))) {
        Some((pid, name)) => format!("process {pid} ({})", name.trim()),
        None => "another instance".to_owned(),
    }
}

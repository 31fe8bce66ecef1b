//! Who may make and remove sockets in a directory at the moment.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long others are waited for. What is done under the lock takes less than a millisecond; who has it for longer was
/// stopped.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often to try again.
const AGAIN: Duration = Duration::from_millis(5);

/// Held while sockets are made or removed in a directory.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Waits until nobody else makes or removes sockets there. Only the owner of the directory can hold the lock.
///
/// # Errors
/// When the file cannot be used, or somebody has it locked for ten seconds.
pub(crate) fn lock(directory: &Path) -> io::Result<Lock> {
    lock_within(directory, PATIENCE)
}

fn lock_within(directory: &Path, patience: Duration) -> io::Result<Lock> {
    let path = directory.join("control.lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path)?;
    let end = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Lock { _file: file }),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() < end => std::thread::sleep(AGAIN),
            Err(TryLockError::WouldBlock) => {
                let why = format!(
                    "another process has {0} locked, and does nothing: if it is stopped, let it go on (kill -CONT) or end it; \
                     `fuser {0}` says which it is",
                    path.display()
                );
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_not_given_back_is_an_error_that_says_where() {
        let folder = std::env::temp_dir().join(format!("umptcp-control-lock-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        let held = lock(&folder).expect("nobody has it");
        let error = lock_within(&folder, Duration::from_millis(30)).expect_err("somebody has it");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("control.lock"), "{error}");
        drop(held);
        lock_within(&folder, Duration::ZERO).expect("it was given back");
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }
}

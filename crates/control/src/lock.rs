//! Who may make and remove sockets in a directory at the moment.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Held while sockets are made or removed in a directory.
pub(crate) struct Lock {
    _file: File,
}

/// Waits until nobody else makes or removes sockets there. Only the owner of the directory can hold the lock.
pub(crate) fn lock(directory: &Path) -> io::Result<Lock> {
    let path = directory.join("control.lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    file.lock()?;
    Ok(Lock { _file: file })
}

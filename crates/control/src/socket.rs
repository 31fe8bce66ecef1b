//! The socket of a server, which others than its owner can never reach.

use crate::directory::{self, SUFFIX, State};
use crate::error::ControlError;
use crate::lock::lock;
use crate::message;
use crate::peer::Peer;
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Uid, chown};
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Connections that wait to be taken.
const BACKLOG: i32 = 16;

/// A socket that listens. Its file is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Bound {
    path: PathBuf,
    /// Device and inode: somebody may have put another file in its place.
    file: (u64, u64),
}

impl Bound {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes the socket of the instance `name`, for a user (otherwise for this one) and perhaps for the members of
/// a group. It has its owner and its mode before it has its name.
pub(crate) fn bind(
    directory: &Path,
    name: &str,
    (owner, group): (Option<u32>, Option<u32>),
) -> Result<(Bound, UnixListener), ControlError> {
    if !message::is_name(name) {
        return Err(ControlError::BadName { name: name.to_owned() });
    }
    let path = directory.join(format!("{name}{SUFFIX}"));
    let failed = |source| ControlError::Socket { path: path.clone(), source };
    let _lock = lock(directory).map_err(failed)?;
    match directory::state(&path) {
        None | Some(State::Dead) => {}
        Some(_) => return Err(ControlError::NameTaken { name: name.to_owned(), process: listener(&path) }),
    }
    let temporary = directory.join(format!(".{}.new", std::process::id()));
    let made = || {
        // What a crash has left, perhaps; only one thread is here.
        let _ = fs::remove_file(&temporary);
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // The file gets the mode of the descriptor (Linux), so that there is no moment in which it has
        // another.
        let _ = fchmod(socket.as_fd(), Mode::S_IRUSR | Mode::S_IWUSR);
        socket.bind(&SockAddr::unix(&temporary)?)?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600))?;
        if owner.is_some() || group.is_some() {
            chown(&temporary, owner.map(Uid::from_raw), group.map(Gid::from_raw))?;
        }
        if group.is_some() {
            fs::set_permissions(&temporary, fs::Permissions::from_mode(0o660))?;
        }
        socket.listen(BACKLOG)?;
        let metadata = fs::symlink_metadata(&temporary)?;
        // Replaces the file of a dead instance.
        fs::rename(&temporary, &path)?;
        Ok(((metadata.dev(), metadata.ino()), UnixListener::from(OwnedFd::from(socket))))
    };
    let (file, listener) = made().map_err(|source| {
        let _ = fs::remove_file(&temporary);
        failed(source)
    })?;
    Ok((Bound { path: path.clone(), file }, listener))
}

/// The process that listens at a socket, as the kernel says: one that is stopped says nothing itself.
fn listener(path: &Path) -> Option<u32> {
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None).ok()?;
    probe.set_nonblocking(true).ok()?;
    probe.connect(&SockAddr::unix(path).ok()?).ok()?;
    Peer::of(&UnixStream::from(OwnedFd::from(probe))).process
}

impl Drop for Bound {
    fn drop(&mut self) {
        let own = fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.file);
        if own {
            let _ = fs::remove_file(&self.path);
        }
    }
}

//! Where sockets are, and which of them somebody answers.

use crate::error::ControlError;
use crate::message::is_name;
use nix::unistd::{Gid, Group, geteuid};
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What a socket's file name ends with, after the name of the instance.
pub const SUFFIX: &str = ".sock";

/// A socket in one of the directories.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The name of the instance.
    pub name: String,
    /// The socket.
    pub socket: PathBuf,
    /// Who answers there.
    pub state: State,
    /// The group whose members may speak to it, if there is one.
    pub group: Option<u32>,
}

impl Found {
    /// Why this user may not speak to it.
    pub fn denied(&self) -> ControlError {
        let name = self.name.clone();
        match self.group {
            Some(group) => ControlError::NotMember { name, group: group_name(group) },
            None => ControlError::Denied { name },
        }
    }
}

/// The name of a group; its number if it has none.
pub fn group_name(group: u32) -> String {
    let found = Group::from_gid(Gid::from_raw(group)).ok().flatten();
    found.map_or_else(|| group.to_string(), |g| g.name)
}

/// Who answers at a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum State {
    /// The instance runs.
    Live,
    /// Nobody: the process has died without removing it.
    Dead,
    /// It is not for this user.
    Denied,
}

/// The directories that may have sockets: that of root, that of this user's session, and one for where there
/// is no such.
pub fn candidates() -> Vec<PathBuf> {
    let session = std::env::var_os("XDG_RUNTIME_DIR").filter(|d| !d.is_empty());
    let mut all = vec![PathBuf::from("/run/umptcp")];
    all.extend(session.map(|d| PathBuf::from(d).join("umptcp")));
    all.push(std::env::temp_dir().join(format!("umptcp-{}", geteuid())));
    all
}

/// Every socket in the directories of [`candidates`], by name.
pub fn find() -> Vec<Found> {
    find_in(&candidates())
}

/// Every socket in these directories, by name. Directories that others than root and this user can write to
/// are passed over.
pub fn find_in(directories: &[PathBuf]) -> Vec<Found> {
    let mut found: Vec<Found> =
        directories.iter().filter(|d| is_trusted(d)).flat_map(|d| sockets(d)).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// The instance of that name; without a name, the only one that runs.
///
/// # Errors
/// When there is none, or several and no name; when it has died or is not for this user.
pub fn choose(name: Option<&str>) -> Result<Found, ControlError> {
    choose_in(&candidates(), name)
}

/// The same in these directories.
///
/// # Errors
/// As for [`choose`].
pub fn choose_in(directories: &[PathBuf], name: Option<&str>) -> Result<Found, ControlError> {
    let found = find_in(directories);
    let live: Vec<&Found> = found.iter().filter(|f| f.state == State::Live).collect();
    let names = || live.iter().map(|f| f.name.clone()).collect::<Vec<_>>();
    let Some(name) = name else {
        return match live[..] {
            [one] => Ok(one.clone()),
            [] => Err(match found.iter().find(|f| f.state == State::Denied) {
                Some(other) => other.denied(),
                None => ControlError::NoInstance { looked: directories.to_vec() },
            }),
            _ => Err(ControlError::Several { running: names() }),
        };
    };
    if let Some(one) = live.iter().find(|f| f.name == name) {
        return Ok((*one).clone());
    }
    let name = name.to_owned();
    Err(match found.iter().find(|f| f.name == name) {
        Some(other) if other.state == State::Denied => other.denied(),
        Some(_) => ControlError::Dead { name },
        None => ControlError::NotFound { name, running: names() },
    })
}

/// Removes the sockets of dead instances from the directories of [`candidates`]. Returns a line of text for
/// each.
pub fn remove_dead() -> Vec<String> {
    remove_dead_in(&candidates())
}

/// The same in these directories. What belongs to somebody else stays.
pub fn remove_dead_in(directories: &[PathBuf]) -> Vec<String> {
    let dead = find_in(directories).into_iter().filter(|f| f.state == State::Dead);
    let remove = |f: Found| {
        let directory = f.socket.parent()?;
        // Nobody may be about to take the name.
        let _lock = crate::lock::lock(directory).ok()?;
        if state(&f.socket) != Some(State::Dead) {
            return None;
        }
        fs::remove_file(&f.socket).ok()?;
        Some(format!("removed the control socket of {}, which has died", f.name))
    };
    dead.filter_map(remove).collect()
}

/// The first of `directories` that this user can make sockets in, made if necessary.
pub(crate) fn usable(directories: &[PathBuf]) -> Result<PathBuf, ControlError> {
    let mut last = None;
    for path in directories {
        match prepare(path) {
            Ok(()) => return Ok(path.clone()),
            Err(source) => last = Some(ControlError::Directory { path: path.clone(), source }),
        }
    }
    Err(last.unwrap_or(ControlError::NoInstance { looked: Vec::new() }))
}

/// Others may look into the directory, but only its owner may put something there.
fn prepare(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() || metadata.uid() != geteuid().as_raw() {
        return Err(io::Error::new(ErrorKind::PermissionDenied, "the directory belongs to another user"));
    }
    if metadata.mode() & 0o777 != 0o755 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    // Root in a user namespace may own a directory on a file system it cannot write to.
    nix::unistd::access(path, nix::unistd::AccessFlags::W_OK | nix::unistd::AccessFlags::X_OK)?;
    Ok(())
}

/// Nobody but root and this user can put something there.
fn is_trusted(path: &Path) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|m| m.is_dir() && (m.uid() == 0 || m.uid() == geteuid().as_raw()) && m.mode() & 0o022 == 0)
}

fn sockets(directory: &Path) -> Vec<Found> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let look = |entry: fs::DirEntry| {
        let socket = entry.path();
        let name = entry.file_name().to_str()?.strip_suffix(SUFFIX)?.to_owned();
        let is_socket = entry.file_type().ok()?.is_socket();
        let state = state(&socket).filter(|_| is_socket && is_name(&name))?;
        let group = entry.metadata().ok().filter(|m| m.mode() & 0o020 != 0).map(|m| m.gid());
        Some(Found { name, socket, state, group })
    };
    entries.flatten().filter_map(look).collect()
}

/// Who answers there; `None`: it has gone.
pub(crate) fn state(socket: &Path) -> Option<State> {
    let connected = || {
        let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // One whose queue is full is alive.
        probe.set_nonblocking(true)?;
        probe.connect(&SockAddr::unix(socket)?)
    };
    match connected() {
        Ok(()) => Some(State::Live),
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused => Some(State::Dead),
            ErrorKind::PermissionDenied => Some(State::Denied),
            ErrorKind::NotFound => None,
            _ => Some(State::Live),
        },
    }
}

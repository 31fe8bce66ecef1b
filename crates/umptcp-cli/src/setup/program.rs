//! The installed program: its owner, its mode, its capability.

use crate::failure::Class;
use anyhow::Context as _;
use nix::unistd::{Gid, Uid, chown};
use rustix::fs::XattrFlags;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The attribute of a file that has the capabilities of its program (capabilities(7)).
const ATTRIBUTE: &str = "security.capability";

/// Its value for CAP_NET_ADMIN, permitted and effective: revision 2 and the flag, then permitted and
/// inheritable, the lower and the upper half of each, all little-endian.
const NET_ADMIN: [u8; 20] = [1, 0, 0, 2, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Where the program goes that is not installed yet.
const TARGET: &str = "/usr/local/bin/umptcp";

/// Who may use a program file, and with what.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Access {
    pub(super) user: u32,
    pub(super) group: u32,
    pub(super) mode: u32,
    /// The attribute.
    pub(super) capability: Option<Vec<u8>>,
}

impl Access {
    /// For members of a group, with CAP_NET_ADMIN.
    pub(super) fn of_members(group: u32) -> Access {
        Access { user: 0, group, mode: 0o750, capability: Some(NET_ADMIN.to_vec()) }
    }

    /// For everybody, with nothing.
    pub(super) fn of_all() -> Access {
        Access { user: 0, group: 0, mode: 0o755, capability: None }
    }

    /// That of a file.
    pub(super) fn read(path: &Path) -> io::Result<Access> {
        let metadata = fs::symlink_metadata(path)?;
        let mut value = Vec::with_capacity(64);
        let capability =
            match rustix::fs::lgetxattr(path, ATTRIBUTE, rustix::buffer::spare_capacity(&mut value)) {
                Ok(_) => Some(value),
                Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => None,
                Err(error) => return Err(error.into()),
            };
        Ok(Access { user: metadata.uid(), group: metadata.gid(), mode: bits(&metadata), capability })
    }

    /// The mode alone.
    pub(super) fn mode_of(path: &Path) -> io::Result<u32> {
        Ok(bits(&fs::symlink_metadata(path)?))
    }

    /// Gives it to a file. The capability comes last: a new owner takes it off.
    fn give(&self, path: &Path) -> io::Result<()> {
        chown(path, Some(Uid::from_raw(self.user)), Some(Gid::from_raw(self.group)))?;
        fs::set_permissions(path, Permissions::from_mode(self.mode))?;
        match &self.capability {
            Some(value) => rustix::fs::lsetxattr(path, ATTRIBUTE, value, XattrFlags::empty())?,
            None => match rustix::fs::lremovexattr(path, ATTRIBUTE) {
                Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => {}
                other => other?,
            },
        }
        Ok(())
    }
}

/// What chmod sets.
fn bits(metadata: &fs::Metadata) -> u32 {
    metadata.mode() & 0o7777
}

/// Where programs are installed for all of the host.
const INSTALLED: [&str; 4] = ["/usr", "/opt", "/bin", "/sbin"];

/// Where this program is to be, and whether it is there. A file that others than root can change, or put another
/// in the place of, may have no capability; what somebody has built stays what it is.
pub(super) fn place() -> anyhow::Result<(PathBuf, bool)> {
    let current = std::env::current_exe().context(Class::Host.failure("cannot find this program's file"))?;
    let is_there = INSTALLED.iter().any(|folder| current.starts_with(folder)) && is_roots(&current);
    Ok(if is_there { (current, true) } else { (TARGET.into(), false) })
}

fn is_roots(path: &Path) -> bool {
    path.ancestors()
        .all(|part| fs::symlink_metadata(part).is_ok_and(|m| m.uid() == 0 && m.mode() & 0o022 == 0))
}

/// Puts a copy of `from` at `path`, which nobody sees before it is complete.
pub(super) fn install(from: &Path, path: &Path, access: &Access) -> anyhow::Result<()> {
    let new = path.with_extension("umptcp-new");
    let install = || -> io::Result<()> {
        let mut options = File::options();
        let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        io::copy(&mut File::open(from)?, &mut file)?;
        file.sync_all()?;
        access.give(&new)?;
        fs::rename(&new, path)
    };
    install().map_err(|error| {
        let _ = fs::remove_file(&new);
        refused(path, error)
    })
}

/// Gives a file other access.
pub(super) fn change(path: &Path, access: &Access) -> anyhow::Result<()> {
    access.give(path).map_err(|error| refused(path, error))
}

fn refused(path: &Path, error: io::Error) -> anyhow::Error {
    let text = match error.kind() {
        io::ErrorKind::Unsupported => {
            format!(
                "the file system of {} takes no capabilities: install umptcp on another, or use --daemon-only",
                path.display()
            )
        }
        _ => format!("cannot install {}", path.display()),
    };
    anyhow::Error::new(error).context(Class::Host.failure(text))
}

/// Whether two files have the same content.
pub(super) fn same(one: &Path, other: &Path) -> bool {
    let read = |path: &Path| fs::read(path).ok();
    one == other || read(one).is_some_and(|content| Some(content) == read(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capability_is_net_admin() {
        // Bit 12 of the permitted set; the version is 2, and the sets are effective at once.
        assert_eq!(u32::from_le_bytes(NET_ADMIN[..4].try_into().unwrap()), 0x0200_0001);
        assert_eq!(u32::from_le_bytes(NET_ADMIN[4..8].try_into().unwrap()), 1 << 12);
        assert!(NET_ADMIN[8..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn what_others_can_change_is_not_roots() {
        assert!(!is_roots(&std::env::temp_dir().join("x")));
        assert!(is_roots(Path::new("/")) || !nix::unistd::geteuid().is_root());
    }
}

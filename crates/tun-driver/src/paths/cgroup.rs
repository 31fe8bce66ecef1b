//! Cgroups (version 2) that are made for processes of others, below the one that they are in, and taken away
//! again: the limits of the cgroup above, and whoever ends all of its processes, still reach them.

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The file that lists the processes of a cgroup, and takes others in.
const PROCESSES: &str = "cgroup.procs";

/// How often processes are moved out of a cgroup that is to go: they may start others meanwhile.
const ATTEMPTS: u32 = 100;

/// Where cgroups of version 2 are mounted: not everywhere at /sys/fs/cgroup.
pub fn cgroup_root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/thread-self/mounts").ok()?;
    let points = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (point, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(point))
    });
    // Another mount may hide it.
    points.into_iter().find(|p| statfs(p.as_path()).is_ok_and(|s| s.filesystem_type() == CGROUP2_SUPER_MAGIC))
}

/// The folder of a cgroup, given by its path below the root of cgroups.
pub(super) fn folder(cgroup: &str) -> io::Result<PathBuf> {
    let missing = || io::Error::new(ErrorKind::NotFound, "no cgroups of version 2 are mounted");
    Ok(cgroup_root().ok_or_else(missing)?.join(cgroup.trim_start_matches('/')))
}

/// The cgroup of a process, by its path below the root of cgroups.
pub(super) fn of_process(process: u32) -> io::Result<String> {
    let text = fs::read_to_string(format!("/proc/{process}/cgroup"))?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"));
    let path = path
        .ok_or_else(|| io::Error::new(ErrorKind::Unsupported, "the process is in no cgroup of version 2"))?;
    let usable = path.starts_with('/')
        && !path.ends_with(" (deleted)")
        && path.split('/').all(|name| name != "..")
        && !path.contains(|c: char| c == '"' || c.is_control());
    if !usable {
        let text = format!("its cgroup {path:?} cannot be used");
        return Err(io::Error::new(ErrorKind::Unsupported, text));
    }
    Ok(path.to_owned())
}

/// Moves a process into the cgroup of a folder.
pub(super) fn enter(folder: &Path, process: u32) -> io::Result<()> {
    fs::write(folder.join(PROCESSES), process.to_string())
}

/// Removes a cgroup and those below it; their processes go to the one above. That there is none is fine.
pub(super) fn dissolve(folder: &Path) -> io::Result<()> {
    let above = folder.parent().ok_or(ErrorKind::NotFound)?;
    let mut last = Ok(());
    for _ in 0..ATTEMPTS {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                dissolve(&entry.path())?;
            }
        }
        for process in fs::read_to_string(folder.join(PROCESSES)).unwrap_or_default().lines() {
            // It may have ended.
            let _ = fs::write(above.join(PROCESSES), process);
        }
        match fs::remove_dir(folder) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => last = Err(error),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => return other,
        }
        // Processes that have ended leave it in a moment.
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    last
}

//! Kernel settings in /proc/sys, as seen from the calling thread's network namespace.

use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;

/// The file of a setting. `name` is relative to /proc/sys and has slashes, because interface names can
/// contain dots.
///
/// Only network settings are allowed, because names are also read from records on disk.
fn file(name: &str) -> io::Result<PathBuf> {
    let proper = name.starts_with("net/") && !name.split('/').any(|part| part.is_empty() || part == "..");
    if !proper {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is not a network setting")));
    }
    Ok(PathBuf::from("/proc/sys").join(name))
}

/// Value of a setting, trimmed.
pub(crate) fn read(name: &str) -> io::Result<String> {
    // Must be a single read: the kernel returns only as much of a port list as fits the first buffer, and
    // then end of file.
    let mut buffer = vec![0; 65536];
    let length = fs::File::open(file(name)?)?.read(&mut buffer)?;
    buffer.truncate(length);
    Ok(String::from_utf8_lossy(&buffer).trim().to_owned())
}

/// Value of a numeric setting; `None` if the kernel has no such setting.
pub(crate) fn number(name: &str) -> Option<i64> {
    read(name).ok()?.parse().ok()
}

/// Changes a setting.
pub(crate) fn write(name: &str, value: &str) -> io::Result<()> {
    fs::write(file(name)?, value)
}

/// Changes a setting unless it has the value already: /proc/sys is read-only in many containers.
pub(crate) fn ensure(name: &str, value: &str) -> io::Result<()> {
    if read(name).is_ok_and(|current| current == value.trim()) {
        return Ok(());
    }
    write(name, value)
}

/// Whether /proc/sys is mounted read-only.
pub(crate) fn read_only(name: &str) -> bool {
    let Ok(file) = file(name) else { return false };
    nix::unistd::access(&file, nix::unistd::AccessFlags::W_OK) == Err(nix::errno::Errno::EROFS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_within_the_network() {
        assert!(read("net/ipv4/ip_local_port_range").is_ok());
        for name in ["kernel/panic", "net/../kernel/panic", "/etc/passwd", "net//ipv4", ""] {
            assert_eq!(read(name).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name}");
        }
    }
}

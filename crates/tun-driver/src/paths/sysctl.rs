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

/// The part of a setting's name that is a device's: the fourth, as in `net/ipv4/conf/eth0/forwarding`.
const DEVICE: usize = 3;

/// The device whose setting this is, and its index.
pub(crate) fn device_of(name: &str) -> Option<u32> {
    let device = name.split('/').nth(DEVICE)?;
    nix::net::if_::if_nametoindex(device).ok()
}

/// The name that a setting of the device with this index has now: it changes with the device's name.
/// Unchanged if there is no such device any more.
pub(crate) fn current_name(name: &str, device: Option<u32>) -> String {
    let now = device.and_then(|index| nix::net::if_::if_indextoname(index).ok());
    // An unknown index gives an empty name, not an error.
    match now.and_then(|now| now.into_string().ok()).filter(|now| !now.is_empty()) {
        Some(now) => {
            let parts: Vec<&str> =
                name.split('/').enumerate().map(|(n, part)| if n == DEVICE { &now } else { part }).collect();
            parts.join("/")
        }
        None => name.to_owned(),
    }
}

/// Whether two settings are the same, apart from the device.
pub(crate) fn same_kind(a: &str, b: &str) -> bool {
    let parts = |name: &'_ str| -> Vec<String> {
        name.split('/').enumerate().filter(|(n, _)| *n != DEVICE).map(|(_, part)| part.to_owned()).collect()
    };
    a == b || (a.rsplit('/').next() == b.rsplit('/').next() && parts(a) == parts(b))
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

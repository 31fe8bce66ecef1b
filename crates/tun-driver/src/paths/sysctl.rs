//! Kernel settings beneath /proc/sys, those of the calling thread's network namespace.

use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;

/// Where a setting is: `name` is relative to /proc/sys, with slashes, for interface names may hold dots.
///
/// Only settings of the network are known: names come back from a record on disk, too.
fn file(name: &str) -> io::Result<PathBuf> {
    let proper = name.starts_with("net/") && !name.split('/').any(|part| part.is_empty() || part == "..");
    if !proper {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is no network setting")));
    }
    Ok(PathBuf::from("/proc/sys").join(name))
}

/// Value of a setting, without white space at its ends.
pub(crate) fn read(name: &str) -> io::Result<String> {
    // In one read: the kernel gives only one piece of a list of ports, as long as the buffer, and then the end of the file.
    let mut buffer = vec![0; 65536];
    let length = fs::File::open(file(name)?)?.read(&mut buffer)?;
    buffer.truncate(length);
    Ok(String::from_utf8_lossy(&buffer).trim().to_owned())
}

/// Value of a numeric setting, `None` where the kernel has no such setting.
pub(crate) fn number(name: &str) -> Option<i64> {
    read(name).ok()?.parse().ok()
}

/// Sets a setting.
pub(crate) fn write(name: &str, value: &str) -> io::Result<()> {
    fs::write(file(name)?, value)
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

//! How much memory there is for the buffers of connections.

use std::fs;
use std::path::Path;
use umptcp_stack_core::config::StackConfig;

/// Of the memory that there is, one part in so many is for buffers. (Linux's net.ipv4.tcp_mem begins to press at
/// a sixteenth and refuses at a good tenth.)
const SHARE: u64 = 8;

/// What [`StackConfig::buffer_memory`] is unless it is set: an eighth of the memory of this host, or of what the
/// control groups of this process may use if that is less; where neither can be told, the default of the core.
pub fn default_buffer_memory() -> u64 {
    let host = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let group = fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|text| limit(&text, Path::new("/sys/fs/cgroup")));
    let most = [host, group].into_iter().flatten().min();
    most.map_or_else(|| StackConfig::default().buffer_memory, |bytes| bytes / SHARE)
}

/// The memory of the host, says `/proc/meminfo`.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The least limit of the control groups that `/proc/self/cgroup` names, and of those above them; they are mounted
/// below `root`.
fn limit(groups: &str, root: &Path) -> Option<u64> {
    let of = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let (top, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            c if c.split(',').any(|c| c == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => return None,
        };
        let own = top.join(path.trim_start_matches('/'));
        let read = |group: &Path| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
        own.ancestors().take_while(|group| group.starts_with(&top)).filter_map(read).min()
    };
    groups.lines().filter_map(of).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_the_host_is_read() {
        assert_eq!(total("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
        assert_eq!([total(""), total("MemTotal: much kB"), total("MemTotal: 5")], [None; 3]);
        assert!(default_buffer_memory() > 1 << 20);
    }

    #[test]
    fn the_least_limit_of_all_groups_above_counts() {
        let root = std::env::temp_dir().join(format!("umptcp-groups-{}", std::process::id()));
        let (v2, v1) = (root.join("a/b/c"), root.join("memory/d"));
        fs::create_dir_all(&v2).unwrap();
        fs::create_dir_all(&v1).unwrap();
        fs::write(root.join("a/b/c/memory.max"), "max\n").unwrap();
        fs::write(root.join("a/b/memory.max"), "5000\n").unwrap();
        fs::write(root.join("a/memory.max"), "9000\n").unwrap();
        fs::write(v1.join("memory.limit_in_bytes"), "4000\n").unwrap();
        assert_eq!(limit("0::/a/b/c\n", &root), Some(5000));
        assert_eq!(limit("0::/a\n", &root), Some(9000));
        assert_eq!(limit("5:cpu,memory:/d\n0::/a/b/c\n", &root), Some(4000));
        assert_eq!([limit("0::/none\n", &root), limit("", &root), limit("3:cpu:/d", &root)], [None; 3]);
        fs::remove_dir_all(&root).unwrap();
    }
}

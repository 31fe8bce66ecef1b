//! Ports: the range that translated connections use, and the ports on which the stack listens.

use super::sysctl;
use crate::error::DriverError;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, OwnedFd};

/// Ports that the host's own sockets choose from.
pub(super) const LOCAL_RANGE: &str = "net/ipv4/ip_local_port_range";
/// Ports that they do not use.
pub(super) const RESERVED: &str = "net/ipv4/ip_local_reserved_ports";
/// Maximum number of ports of an instance, and so of its connections to one port of one server.
const WANTED: u16 = 8192;
/// With fewer ports a path is of little use.
const LEAST: u16 = 64;

/// Reads a list such as `22,8000-8100`.
fn parse_list(text: &str) -> Vec<(u16, u16)> {
    text.split(',')
        .filter_map(|part| {
            let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
            Some((first.parse().ok()?, last.parse().ok()?))
        })
        .collect()
}

fn format_list(list: &[(u16, u16)]) -> String {
    let parts: Vec<String> =
        list.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") }).collect();
    parts.join(",")
}

fn with(list: &[(u16, u16)], range: (u16, u16)) -> Vec<(u16, u16)> {
    let mut list: Vec<(u16, u16)> = list.to_vec();
    list.push(range);
    list.sort_unstable();
    list
}

fn without(list: &[(u16, u16)], (first, last): (u16, u16)) -> Vec<(u16, u16)> {
    let mut rest = Vec::new();
    for &(a, b) in list {
        if b < first || a > last {
            rest.push((a, b));
            continue;
        }
        if a < first {
            rest.push((a, first - 1));
        }
        if b > last {
            rest.push((last + 1, b));
        }
    }
    rest
}

fn change_reserved(change: impl Fn(&[(u16, u16)]) -> Vec<(u16, u16)>) -> Result<(), DriverError> {
    let error = |value: &str| {
        let (name, value) = (RESERVED.to_owned(), value.to_owned());
        move |source| DriverError::Sysctl { name, value, source }
    };
    let current = sysctl::read(RESERVED).map_err(error(""))?;
    let value = format_list(&change(&parse_list(&current)));
    // An empty list must be written as an empty line: writing nothing changes nothing.
    sysctl::ensure(RESERVED, &format!("{value}\n")).map_err(error(&value))
}

/// Keeps the host's sockets from choosing these ports.
pub(super) fn reserve(first: u16, last: u16) -> Result<(), DriverError> {
    change_reserved(|list| with(list, (first, last)))
}

/// Undoes [`reserve`].
pub(super) fn release(first: u16, last: u16) -> Result<(), DriverError> {
    change_reserved(|list| without(list, (first, last)))
}

/// A TCP socket of the host, as /proc/net/tcp shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct HostSocket {
    port: u16,
    state: u8,
    inode: u64,
}

/// TCP_TIME_WAIT in the kernel's numbering of states.
const TIME_WAIT: u8 = 6;

fn parse_socket(line: &str) -> Option<HostSocket> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let port = u16::from_str_radix(fields.get(1)?.rsplit_once(':')?.1, 16).ok()?;
    let state = u8::from_str_radix(fields.get(3)?, 16).ok()?;
    Some(HostSocket { port, state, inode: fields.get(9)?.parse().ok()? })
}

fn host_sockets() -> Vec<HostSocket> {
    // Not /proc/net, which shows the namespace of the process's main thread.
    ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"]
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .flat_map(|text| text.lines().skip(1).filter_map(parse_socket).collect::<Vec<_>>())
        .collect()
}

/// A range of ports, with both ends.
pub(super) type Ports = (u16, u16);

/// Chooses the ports for translated connections of an instance: `asked`, or the highest free part of
/// ip_local_port_range that is neither reserved nor in use. They are ephemeral ports, which firewalls and
/// servers expect clients to use. The instance has `own` already, and others have `taken` some. Also returns
/// whether they are still to be reserved.
pub(super) fn choose_range(
    asked: Option<&RangeInclusive<u16>>,
    own: &[Ports],
    taken: &[Ports],
) -> Result<(Ports, bool), DriverError> {
    let error = |source| DriverError::Sysctl { name: LOCAL_RANGE.into(), value: "(reading)".into(), source };
    let text = sysctl::read(LOCAL_RANGE).map_err(error)?;
    let bounds: Vec<u16> = text.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let &[low, high] = bounds.as_slice() else {
        return Err(error(io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is not a range"))));
    };
    let reserved = parse_list(&sysctl::read(RESERVED).map_err(error)?);
    let overlap =
        |list: &[Ports], first: u16, last: u16| list.iter().find(|(a, b)| *a <= last && *b >= first).copied();
    let whole = |first: u16, last: u16| reserved.iter().any(|(a, b)| *a <= first && last <= *b);
    if let Some(range) = asked {
        let (first, last) = (*range.start(), *range.end());
        let bad = |reason: String| Err(DriverError::PortRange { first, last, reason });
        if !own.is_empty() {
            return bad("all its ports are in use, and it was asked for; ask for a larger one".into());
        }
        if range.is_empty() {
            return bad("it is empty".into());
        }
        if first < low || last > high {
            return bad(format!("it is not within ip_local_port_range, which is {low}-{high}"));
        }
        if let Some((a, b)) = overlap(taken, first, last) {
            return bad(format!("another instance of umptcp uses ports {a}-{b}"));
        }
        // Somebody may have reserved all of it for us.
        if whole(first, last) {
            return Ok(((first, last), false));
        }
        if let Some((a, b)) = overlap(&reserved, first, last) {
            return bad(format!("ports {a}-{b} are already reserved (ip_local_reserved_ports)"));
        }
        return Ok(((first, last), true));
    }
    let used: BTreeSet<u16> = host_sockets().iter().map(|s| s.port).collect();
    let taken = &[own, taken].concat()[..];
    let size = share(low, high, own, taken);
    let read_only = sysctl::read_only(RESERVED);
    let unfit = |a: u16, b: u16| {
        let wrong = if read_only { !whole(a, b) } else { overlap(&reserved, a, b).is_some() };
        wrong || overlap(taken, a, b).is_some()
    };
    let chosen = size.and_then(|size| choose(low, high, size, &used, &unfit));
    let range = chosen.ok_or_else(|| DriverError::PortRange {
        first: low,
        last: high,
        reason: if read_only {
            "/proc/sys is read-only, and no free part of at least 64 ports is reserved (ip_local_reserved_ports)"
        } else {
            "no free part of at least 64 ports in ip_local_port_range; choose a range, or reserve fewer ports"
        }
        .into(),
    })?;
    Ok((range, !read_only))
}

fn count(ranges: &[Ports]) -> u32 {
    ranges.iter().map(|(a, b)| u32::from(b - a) + 1).sum()
}

/// How many ports an instance takes of those between `low` and `high`, of which `taken` are not left: a
/// quarter of what is left of half of them, and when little of that is left, the least. One that has `own`
/// and needs more takes as many again. The host itself keeps a quarter of all.
fn share(low: u16, high: u16, own: &[Ports], taken: &[Ports]) -> Option<u16> {
    let all = u32::from(high - low) + 1;
    let gone = count(taken);
    let left = (all / 4 * 3).checked_sub(gone).filter(|left| *left >= u32::from(LEAST))?;
    let size = if own.is_empty() { (all / 2).saturating_sub(gone) / 4 } else { count(own).min(left) };
    Some(size.clamp(u32::from(LEAST), u32::from(WANTED)) as u16)
}

fn choose(
    low: u16,
    high: u16,
    size: u16,
    used: &BTreeSet<u16>,
    reserved: &dyn Fn(u16, u16) -> bool,
) -> Option<(u16, u16)> {
    let mut size = size;
    while size >= LEAST {
        // Tries windows from the top down, a quarter of their size apart. The host's existing sockets in the
        // chosen window keep working, but segments that conntrack considers invalid are dropped there, so
        // take the window with the fewest.
        let mut best: Option<(usize, u16, u16)> = None;
        let mut last = u32::from(high);
        while last + 1 >= u32::from(low) + u32::from(size) {
            let (a, b) = ((last + 1 - u32::from(size)) as u16, last as u16);
            if !reserved(a, b) {
                let busy = used.range(a..=b).count();
                if best.is_none_or(|(least, ..)| busy < least) {
                    best = Some((busy, a, b));
                }
                if busy == 0 {
                    break;
                }
            }
            last -= u32::from(size / 4);
        }
        if let Some((_, a, b)) = best {
            return Some((a, b));
        }
        size /= 2;
    }
    None
}

/// A port of the NIC's address held for the stack, so that no program of the host can listen on it.
#[derive(Debug)]
pub(super) struct HeldPort {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    _socket: OwnedFd,
}

fn bound(address: SocketAddr, share: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    if share {
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(fd)
}

/// The program that holds a socket on `port`, if visible.
fn holder(port: u16) -> Option<String> {
    let inodes: Vec<String> = host_sockets()
        .iter()
        .filter(|s| s.port == port && s.state != TIME_WAIT && s.inode != 0)
        .map(|s| format!("socket:[{}]", s.inode))
        .collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let target = fs::read_link(descriptor.path()).unwrap_or_default();
            if target.to_str().is_some_and(|t| inodes.iter().any(|i| i == t)) {
                let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                return Some(format!(" by {} (process {pid})", name.trim()));
            }
        }
    }
    None
}

/// Holds `port` of `address`.
pub(super) fn hold(address: IpAddr, port: u16) -> Result<HeldPort, DriverError> {
    let target = SocketAddr::new(address, port);
    let mut result = bound(target, false);
    // A socket just closed in this process survives in a child process between fork and exec. In that case no
    // visible process holds the port, and it becomes free shortly.
    for _ in 0..10 {
        let taken = result.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::EADDRINUSE));
        if !taken || holder(port).is_some() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
        result = bound(target, false);
    }
    if result.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::EADDRINUSE)) {
        let sockets = host_sockets();
        let mut here = sockets.iter().filter(|s| s.port == port).peekable();
        // Connections of an earlier server in TIME_WAIT are no obstacle. Without them, the port is not
        // shared, so that a program with SO_REUSEADDR cannot listen on it.
        if here.peek().is_some() && here.all(|s| s.state == TIME_WAIT) {
            result = bound(target, true);
        }
    }
    match result {
        Ok(socket) => Ok(HeldPort { address, port, _socket: socket }),
        Err(error) => Err(match error.raw_os_error() {
            Some(libc::EADDRINUSE) => {
                DriverError::PortInUse { address, port, by: holder(port).unwrap_or_default() }
            }
            Some(libc::EACCES | libc::EPERM) => {
                DriverError::Permission { what: format!("listen on port {port}, which is below 1024") }
            }
            _ => DriverError::Netlink { what: format!("hold port {port} of {address}"), source: error },
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn reserved_lists() {
        let list = parse_list("22, 8000-8100\n");
        assert_eq!(list, [(22, 22), (8000, 8100)]);
        assert_eq!(format_list(&with(&list, (100, 200))), "22,100-200,8000-8100");
        assert_eq!(format_list(&without(&list, (8050, 8060))), "22,8000-8049,8061-8100");
        assert_eq!(format_list(&without(&list, (0, 65535))), "");
        assert_eq!(parse_list(""), []);
    }

    #[test]
    fn many_instances_find_ports_and_leave_the_host_some() {
        let mut taken = Vec::new();
        let mut next = 32_768u16;
        while let Some(size) = share(32_768, 60_999, &[], &taken) {
            taken.push((next, next + size - 1));
            next += size;
        }
        let sizes: Vec<u16> = taken.iter().map(|(a, b)| b - a + 1).collect();
        assert_eq!(sizes[0], 3529);
        assert!(sizes.len() > 100 && sizes.iter().all(|s| *s >= LEAST), "{sizes:?}");
        let six: u16 = sizes[..6].iter().sum();
        assert!(28_232 - six > 16_000, "six leave the host more than half");
        assert!(60_999 - next > 7_000, "all leave it a quarter");
    }

    #[test]
    fn an_instance_that_needs_more_doubles_its_ports_until_the_host_has_a_quarter_left() {
        let next = |own: &[Ports], others: &[Ports]| share(32_768, 60_999, own, &[own, others].concat());
        let others = [(40_000, 60_999 - 7_000)];
        let mut own = vec![(32_768, 32_831)];
        let mut sizes = Vec::new();
        while let Some(size) = next(&own, &others) {
            sizes.push(size);
            let (_, last) = own[own.len() - 1];
            own.push((last + 1, last + size));
        }
        assert_eq!(sizes[..6], [64, 128, 256, 512, 1_024, 2_048]);
        assert_eq!(count(&own) + count(&others), 28_232 / 4 * 3, "what is left last is less than double");
        assert_eq!(next(&[(32_768, 50_000)], &[]), Some(3_941), "never more than there is");
    }

    #[test]
    fn the_range_avoids_what_is_reserved_or_in_use() {
        let none = BTreeSet::new();
        assert_eq!(choose(32768, 60999, 7000, &none, &|_, _| false), Some((54000, 60999)));
        assert_eq!(choose(32768, 60999, 7000, &[55000].into(), &|_, _| false).unwrap().1, 60999 - 1750 * 4);
        let (a, b) = choose(32768, 60999, 7000, &none, &|_, b| b > 50000).unwrap();
        assert!(b <= 50000 && b - a == 6999);
        // No window is free: the one with the fewest sockets.
        let crowded: BTreeSet<u16> = (32768..60000).collect();
        assert_eq!(choose(32768, 60999, 7000, &crowded, &|_, _| false), Some((54000, 60999)));
        assert_eq!(choose(32768, 60999, 7000, &none, &|_, _| true), None);
        assert_eq!(choose(65472, 65535, 64, &none, &|_, _| false), Some((65472, 65535)));
    }

    #[test]
    fn a_port_somebody_listens_on_is_an_error_that_names_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = hold("127.0.0.1".parse().unwrap(), port).unwrap_err();
        assert!(error.to_string().contains(&format!("(process {})", std::process::id())), "{error}");
        drop(listener);
        let held = hold("127.0.0.1".parse().unwrap(), port).unwrap();
        assert_eq!((held.address, held.port), ("127.0.0.1".parse().unwrap(), port));
        assert!(TcpListener::bind(("127.0.0.1", port)).is_err(), "a held port cannot be bound");
        assert!(TcpListener::bind(("0.0.0.0", port)).is_err(), "nor through the wildcard address");
    }
}

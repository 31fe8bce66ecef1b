//! Namespaces of our own: a network that nobody else sees, without privilege.

use anyhow::{Context as _, anyhow};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::{LinkUnspec, RouteMessageBuilder};
use std::fs;
use std::io;
use std::net::Ipv4Addr;

/// Moves this process into a new network namespace, and into a new user namespace in which it has every privilege over it.
/// The process must have one thread only. Root does without a user namespace where the kernel allows none.
pub(super) fn enter() -> anyhow::Result<()> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    match unshare(CloneFlags::CLONE_NEWUSER) {
        Ok(()) => {
            map_ids(uid.as_raw(), gid.as_raw())
                .map_err(|e| explain(&e, "give this process an identity in its user namespace"))?;
        }
        // Root may do without.
        Err(error) if uid.is_root() => tracing::info!("no user namespace ({error}), going on as root"),
        Err(error) => return Err(explain(&error.into(), "make a user namespace")),
    }
    new_network().map_err(|e| explain(&e, "make a network namespace"))
}

/// Moves the calling thread, and threads it starts later, into a new network namespace with its loopback interface up.
pub(super) fn new_network() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    set_up(&[Setting { device: "lo", address: None, metric: None }])
}

/// This process's own user becomes root inside; nobody else exists there.
fn map_ids(uid: u32, gid: u32) -> io::Result<()> {
    // Without this the kernel accepts no group map from the unprivileged (user_namespaces(7)).
    match fs::write("/proc/self/setgroups", "deny") {
        // Kernels before 3.19 have no such file and need none.
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

/// What to do about a refusal, as far as the kernel's settings tell.
fn explain(error: &io::Error, what: &str) -> anyhow::Error {
    let setting = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
        text.trim().parse::<i64>().ok()
    };
    let mut ways = Vec::new();
    if error.raw_os_error() == Some(Errno::EINVAL as i32) {
        ways.push("this process has several threads already, or the kernel was built without user namespaces (CONFIG_USER_NS)".to_owned());
    }
    for (name, blocks, value) in [
        ("kernel.unprivileged_userns_clone", 0, 1),
        ("kernel.apparmor_restrict_unprivileged_userns", 1, 0),
        ("user.max_user_namespaces", 0, 10_000),
        ("user.max_net_namespaces", 0, 10_000),
    ] {
        if setting(name) == Some(blocks) {
            ways.push(format!("allow it: sudo sysctl -w {name}={value} (it is {blocks} now)"));
        }
    }
    ways.push("in a container, allow it from outside (Docker: --cap-add=SYS_ADMIN --cap-add=NET_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined --device /dev/net/tun)".to_owned());
    ways.push("run the demo as root".to_owned());
    ways.push(
        "or run `umptcp demo --sim`, which shows the same in virtual time and needs no privilege".to_owned(),
    );
    anyhow!("cannot {what}: {error}\n  - {}", ways.join("\n  - "))
}

/// TUN devices can be made, or what to do.
pub(super) fn check_tun() -> anyhow::Result<()> {
    let path = "/dev/net/tun";
    let hint = match fs::OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => (
            e,
            "this user may not open it: sudo chmod 0666 /dev/net/tun (as most distributions have it; it gives nobody more than their own namespaces allow)",
        ),
        Err(e) => (
            e,
            "TUN devices are missing: sudo modprobe tun; in a container, pass the device in (Docker: --device /dev/net/tun)",
        ),
    };
    let (error, hint) = hint;
    Err(anyhow!(
        "cannot open {path}: {error}\n  - {hint}\n  - or run `umptcp demo --sim`, which shows the same in virtual time and needs no device"
    ))
}

/// What an interface gets.
pub(super) struct Setting<'a> {
    pub(super) device: &'a str,
    /// Its address and prefix length.
    pub(super) address: Option<(Ipv4Addr, u8)>,
    /// Metric of a default route through it; `None`: no such route.
    pub(super) metric: Option<u32>,
}

/// Brings interfaces of the calling thread's network namespace up, with addresses and routes.
pub(super) fn set_up(settings: &[Setting<'_>]) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // The socket belongs to the namespace of the thread that opens it: this one.
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        for setting in settings {
            let index = nix::net::if_::if_nametoindex(setting.device)?;
            if let Some((address, prefix)) = setting.address {
                handle.address().add(index, address.into(), prefix).execute().await.map_err(io_error)?;
            }
            let up = LinkUnspec::new_with_index(index).up().build();
            handle.link().set(up).execute().await.map_err(io_error)?;
            if let Some(metric) = setting.metric {
                let route = RouteMessageBuilder::<Ipv4Addr>::new()
                    .destination_prefix(Ipv4Addr::UNSPECIFIED, 0)
                    .output_interface(index)
                    .scope(rtnetlink::packet_route::route::RouteScope::Link)
                    .priority(metric)
                    .build();
                handle.route().add(route).execute().await.map_err(io_error)?;
            }
        }
        Ok(())
    })
}

fn io_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

/// The kernel's MPTCP counters of the calling thread's network namespace, those that are not zero.
pub(super) fn mptcp_counters() -> anyhow::Result<Vec<(String, u64)>> {
    // Not /proc/net: that is the namespace of the process's first thread.
    let text =
        fs::read_to_string("/proc/thread-self/net/netstat").context("reading the kernel's counters")?;
    Ok(parse_counters(&text))
}

fn parse_counters(text: &str) -> Vec<(String, u64)> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("MPTcpExt:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return Vec::new() };
    let values = values.split_whitespace().map(|v| v.parse().unwrap_or(0));
    names.split_whitespace().map(str::to_owned).zip(values).filter(|(_, value)| *value != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read() {
        let text = "TcpExt: A B\nTcpExt: 1 2\nMPTcpExt: MPCapableSYNRX MPJoinSynRx X\nMPTcpExt: 3 0 7\n";
        assert_eq!(parse_counters(text), [("MPCapableSYNRX".to_owned(), 3), ("X".to_owned(), 7)]);
        assert_eq!(parse_counters("TcpExt: A\n"), []);
    }

    #[test]
    fn a_refusal_always_names_the_way_without_privilege() {
        let text =
            explain(&io::Error::from_raw_os_error(Errno::EPERM as i32), "make a user namespace").to_string();
        assert!(text.contains("umptcp demo --sim") && text.contains("as root"), "{text}");
    }
}

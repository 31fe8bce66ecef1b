//! Namespaces: a private network, without privileges.

use anyhow::{Context as _, anyhow};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::{LinkUnspec, RouteMessageBuilder};
use std::fs;
use std::io;
use std::net::Ipv4Addr;

/// Moves this process into a new network namespace, owned by a new user namespace in which the process has
/// all capabilities. The process must be single-threaded. Root continues without a user namespace if the
/// kernel forbids it. `instead` is what needs no privileges: errors name it.
pub(crate) fn enter(instead: &str) -> anyhow::Result<()> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    // It needs none, and the kernel lets nobody map users who has some.
    umptcp_tun_driver::privilege::give_up();
    match unshare(CloneFlags::CLONE_NEWUSER) {
        Ok(()) => {
            map_ids(uid.as_raw(), gid.as_raw()).map_err(|e| {
                explain(&e, "map this process's user and group in its user namespace", instead)
            })?;
        }
        // Root can continue without one.
        Err(error) if uid.is_root() => tracing::info!("no user namespace ({error}), continuing as root"),
        Err(error) => return Err(explain(&error.into(), "create a user namespace", instead)),
    }
    new_network().map_err(|e| explain(&e, "create a network namespace", instead))
}

/// Moves this process into a new user namespace, in which it has all capabilities and its user and group are the
/// same. It stays in the network that it is in, over which it has no more power than before. The process must be
/// single-threaded.
pub(crate) fn enter_user() -> anyhow::Result<()> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    // The kernel lets nobody map users who has some.
    umptcp_tun_driver::privilege::give_up();
    let entered = unshare(CloneFlags::CLONE_NEWUSER).map_err(io::Error::from);
    entered.and_then(|()| map(uid.as_raw(), uid.as_raw(), gid.as_raw(), gid.as_raw())).map_err(|e| {
        explain(&e, "create a user namespace", "`umptcp proxy` for programs that speak SOCKS: it")
    })
}

/// Moves the calling thread, and threads it starts later, into a new network namespace with loopback up.
pub(crate) fn new_network() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    set_up(&[Setting { device: "lo", address: None, metric: None }])
}

/// Maps this process's user and group to root, and nothing else.
fn map_ids(uid: u32, gid: u32) -> io::Result<()> {
    map(0, uid, 0, gid)
}

/// Maps this process's user and group to these inside, and nothing else.
fn map(inner_uid: u32, uid: u32, inner_gid: u32, gid: u32) -> io::Result<()> {
    // Otherwise the kernel rejects a group map from an unprivileged process (user_namespaces(7)).
    match fs::write("/proc/self/setgroups", "deny") {
        // Kernels before 3.19 do not have this file and do not need it.
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::write("/proc/self/uid_map", format!("{inner_uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{inner_gid} {gid} 1"))
}

/// Adds possible remedies to an error, depending on the kernel's settings.
fn explain(error: &io::Error, what: &str, instead: &str) -> anyhow::Error {
    let setting = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
        text.trim().parse::<i64>().ok()
    };
    let mut ways = Vec::new();
    if error.raw_os_error() == Some(Errno::EINVAL as i32) {
        ways.push("this process already has several threads, or the kernel was built without user namespaces (CONFIG_USER_NS)".to_owned());
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
    ways.push("in a container, allow it when starting the container (Docker: --cap-add=SYS_ADMIN --cap-add=NET_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined --device /dev/net/tun)".to_owned());
    ways.push("run it as root".to_owned());
    ways.push(format!("or run {instead} needs no privileges"));
    anyhow!("cannot {what}: {error}\n  - {}", ways.join("\n  - "))
}

/// Checks that TUN devices can be created; the error says what to do.
pub(crate) fn check_tun(instead: &str) -> anyhow::Result<()> {
    let path = "/dev/net/tun";
    let hint = match fs::OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => (
            e,
            "this user may not open it: sudo chmod 0666 /dev/net/tun (the default of most distributions; creating devices still requires CAP_NET_ADMIN in the namespace)",
        ),
        Err(e) => (
            e,
            "TUN devices are missing: sudo modprobe tun; in a container, pass the device in (Docker: --device /dev/net/tun)",
        ),
    };
    let (error, hint) = hint;
    Err(anyhow!("cannot open {path}: {error}\n  - {hint}\n  - or run {instead} needs no device"))
}

/// Settings of an interface.
pub(crate) struct Setting<'a> {
    pub(crate) device: &'a str,
    /// Its address and prefix length.
    pub(crate) address: Option<(Ipv4Addr, u8)>,
    /// Metric of a default route through it; no such route if `None`.
    pub(crate) metric: Option<u32>,
}

/// Brings up interfaces of the calling thread's network namespace, with addresses and routes.
pub(crate) fn set_up(settings: &[Setting<'_>]) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // The socket belongs to the namespace of the thread that opens it.
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

/// Takes an interface of the calling thread's network namespace down. The kernel drops its routes.
pub(crate) fn set_down(device: &str) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        let index = nix::net::if_::if_nametoindex(device)?;
        let down = LinkUnspec::new_with_index(index).down().build();
        handle.link().set(down).execute().await.map_err(io_error)
    })
}

fn io_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

/// The non-zero MPTCP counters of the kernel in the calling thread's network namespace.
pub(crate) fn mptcp_counters() -> anyhow::Result<Vec<(String, u64)>> {
    // Not /proc/net, which shows the namespace of the process's main thread.
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
            explain(&io::Error::from_raw_os_error(Errno::EPERM as i32), "create a user namespace", "`other`")
                .to_string();
        assert!(text.contains("`other` needs") && text.contains("as root"), "{text}");
    }
}

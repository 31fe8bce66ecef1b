//! A network namespace, and the thread that lives in it.

use crate::device::{self, Addresses};
use crate::error::CaptureError;
use crossbeam_channel::Sender;
use nix::sched::{CloneFlags, unshare};
use std::thread::JoinHandle;
use umptcp_tun_driver::device::Tun;

type Job = Box<dyn FnOnce() + Send>;

/// Which groups may send echo requests by sockets.
const PING_GROUPS: &str = "net/ipv4/ping_group_range";

/// Settings that a new namespace does not inherit, and that programs notice. Whether the kernel speaks MPTCP
/// is none of them: a program inside that asks for it is to get it, from us, whatever the host's kernel may
/// do outside.
const INHERITED: [&str; 5] = [
    PING_GROUPS,
    "net/ipv4/ip_unprivileged_port_start",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/tcp_congestion_control",
    "net/ipv4/tcp_keepalive_time",
];

/// How large the send buffers of sockets inside may grow: three numbers, of which the last is the limit.
const SEND_BUFFERS: &str = "/proc/sys/net/ipv4/tcp_wmem";

/// That limit. What a socket inside holds is on its way to nobody: the worker is next door, and a few hundred kilobytes
/// keep it busy at 15 Gbit/s. With Linux's 4 MB a program with four uploads is 10 MB further ahead of what has arrived.
const LARGEST_SEND_BUFFER: u64 = 1 << 20;

/// A network namespace with a loopback device. It exists while this, a program in it, or a socket of it does.
#[derive(Debug)]
pub struct Namespace {
    /// `None` only while it is being dropped.
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    /// Makes one.
    ///
    /// # Errors
    /// When the kernel refuses: it takes CAP_SYS_ADMIN.
    pub fn new() -> Result<Namespace, CaptureError> {
        let settings =
            INHERITED.map(|name| (name, std::fs::read_to_string(format!("/proc/sys/{name}")).ok()));
        let (jobs, work) = crossbeam_channel::unbounded::<Job>();
        let (tell, entered) = crossbeam_channel::bounded(1);
        let live = move || {
            let made = unshare(CloneFlags::CLONE_NEWNET).map_err(Into::into);
            let ok = made.is_ok();
            // Whoever waits takes it.
            let _ = tell.send(made);
            if ok {
                inherit(&settings);
                if let Err(error) = limit_send_buffers() {
                    tracing::debug!(%error, "send buffers inside have no limit of ours");
                }
                work.iter().for_each(|job| job());
            }
        };
        let thread = std::thread::Builder::new().name("umptcp-inside".into()).spawn(live);
        let thread = thread.map_err(CaptureError::set_up("start a thread"))?;
        entered.recv().map_err(|_| CaptureError::Gone)?.map_err(CaptureError::Namespace)?;
        let namespace = Namespace { jobs: Some(jobs), thread: Some(thread) };
        namespace.run(device::bring_up_loopback)??;
        Ok(namespace)
    }

    /// Runs `job` on the thread that lives in the namespace: sockets, devices and processes that it makes
    /// belong to the namespace.
    ///
    /// # Errors
    /// When the thread has ended.
    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, CaptureError> {
        let (tx, rx) = crossbeam_channel::bounded(1);
        let jobs = self.jobs.as_ref().ok_or(CaptureError::Gone)?;
        let job = move || {
            // The caller may be gone.
            let _ = tx.send(job());
        };
        jobs.send(Box::new(job)).map_err(|_| CaptureError::Gone)?;
        rx.recv().map_err(|_| CaptureError::Gone)
    }

    /// Makes the TUN device that is the only way out, with these addresses and default routes of their
    /// families.
    ///
    /// # Errors
    /// When the device or its settings are refused.
    pub fn capture(&self, addresses: Addresses, mtu: u16) -> Result<Tun, CaptureError> {
        self.run(move || device::open(&addresses, mtu))?
    }
}

/// The network namespace of this process, as /proc names it.
pub fn current_network() -> Option<String> {
    std::fs::read_link("/proc/self/ns/net").ok()?.into_os_string().into_string().ok()
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It has panicked at worst.
            let _ = thread.join();
        }
    }
}

/// Gives the namespace of the calling thread these settings, as far as it has them.
fn inherit(settings: &[(&str, Option<String>)]) {
    for (name, value) in settings {
        let Some(value) = value else { continue };
        // /proc/sys/net is that of the thread which opens it.
        let write = |value: &str| std::fs::write(format!("/proc/sys/{name}"), value);
        let inherited = write(value.trim_end()).or_else(|error| {
            if *name != PING_GROUPS {
                return Err(error);
            }
            // A user namespace has no other groups than the caller's.
            let group = nix::unistd::getegid();
            write(&format!("{group} {group}"))
        });
        if let Err(error) = inherited {
            tracing::debug!(name, %error, "a setting of the host is not inherited");
        }
    }
}

fn limit_send_buffers() -> std::io::Result<()> {
    let text = std::fs::read_to_string(SEND_BUFFERS)?;
    let limited: Vec<String> = text
        .split_whitespace()
        .map(|number| {
            number.parse().map_or_else(|_| number.to_owned(), |n: u64| n.min(LARGEST_SEND_BUFFER).to_string())
        })
        .collect();
    std::fs::write(SEND_BUFFERS, limited.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_inside_hold_no_more_than_a_megabyte_and_those_outside_what_they_held() {
        let outside = || std::fs::read_to_string(SEND_BUFFERS).unwrap();
        let before = outside();
        let Ok(namespace) = Namespace::new() else {
            assert!(!nix::unistd::geteuid().is_root(), "root may do this");
            return;
        };
        let inside = namespace.run(|| std::fs::read_to_string(SEND_BUFFERS).unwrap()).unwrap();
        let largest = inside.split_whitespace().last().and_then(|n| n.parse::<u64>().ok());
        assert!(largest.is_some_and(|n| n <= LARGEST_SEND_BUFFER), "{inside}");
        assert_eq!(outside(), before);
    }

    #[test]
    fn what_runs_inside_is_inside() {
        let Ok(namespace) = Namespace::new() else {
            assert!(!nix::unistd::geteuid().is_root(), "root may do this");
            return;
        };
        let read = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let inside = namespace.run(read).unwrap();
        assert_ne!(inside, read());
        assert_eq!(inside, namespace.run(read).unwrap());
        let interfaces = || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap().lines().count();
        assert_eq!(namespace.run(interfaces).unwrap(), 3, "two lines of titles, and loopback");
    }
}

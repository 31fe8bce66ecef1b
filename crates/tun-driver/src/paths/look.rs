//! One NIC, looked at and followed without changing anything, which takes no privilege: for paths that are
//! not set up here.

use super::netlink::Netlink;
use super::nics;
use super::set::{apart, connect, runtime};
use crate::described::NicInfo;
use crate::error::DriverError;
use futures::channel::oneshot;
use futures::future::{Either, select};
use futures::stream::StreamExt as _;
use std::thread::JoinHandle;
use std::time::Duration;

/// How long to wait for changes that come together.
const SETTLE: Duration = Duration::from_millis(20);

/// How long to wait for IPv6 addresses that are being checked for duplicates (RFC 4862 §5.4).
const DAD_PATIENCE: Duration = Duration::from_secs(2);

/// A NIC that can carry a path, as it is now. Waits up to two seconds for an IPv6 address that is being
/// checked for duplicates.
///
/// # Errors
/// What it lacks: [`DriverError::UnknownDevice`], [`DriverError::UnsuitableDevice`],
/// [`DriverError::DeviceDown`], [`DriverError::NoAddress`], [`DriverError::NoRoute`].
pub fn look_at(device: &str) -> Result<NicInfo, DriverError> {
    apart(async || {
        let netlink = connect()?;
        let mut waited = Duration::ZERO;
        let nic = loop {
            let (nic, tentative) = look(&netlink, device).await?;
            if !tentative || waited >= DAD_PATIENCE {
                break nic;
            }
            tokio::time::sleep(SETTLE).await;
            waited += SETTLE;
        };
        let device = || device.to_owned();
        if nic.addresses.is_empty() {
            return Err(DriverError::NoAddress { device: device() });
        }
        if nic.destinations.is_empty() {
            return Err(DriverError::NoRoute { device: device(), family: "" });
        }
        Ok(nic)
    })
}

/// What a NIC has, be it enough or not, and whether an address is still being checked.
async fn look(netlink: &Netlink, device: &str) -> Result<(NicInfo, bool), DriverError> {
    let failed = |what: &'static str| move |e| DriverError::netlink(what, e);
    let links = netlink.links().await.map_err(failed("list network devices"))?;
    let link = nics::named_among(&links, device)?;
    let all = netlink.addresses().await.map_err(failed("list addresses"))?;
    let tentative = all.iter().any(|a| a.index == link.index && a.universal && a.tentative && !a.failed);
    let mut routes = netlink.routes_by(false, link.index).await.map_err(failed("list routes"))?;
    routes.extend(netlink.routes_by(true, link.index).await.map_err(failed("list IPv6 routes"))?);
    let addresses = nics::translatable(&all, link.index);
    Ok((nics::info(link, addresses, nics::destinations(routes.iter())), tentative))
}

/// Follows a NIC until it is dropped.
#[derive(Debug)]
pub struct NicWatch {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl NicWatch {
    /// Calls `report` with what the NIC is like, at once and each time something of this host's network has
    /// changed, on a thread of its own in the network namespace of the caller. An error says why it cannot carry a path; a
    /// NIC without an address or a route is none.
    ///
    /// # Errors
    /// When the kernel cannot be asked for notifications, or no thread can be started.
    pub fn start(
        device: &str,
        mut report: impl FnMut(Result<NicInfo, DriverError>) + Send + 'static,
    ) -> Result<NicWatch, DriverError> {
        let (stop, mut stopped) = oneshot::channel();
        let (ready_sender, ready) = std::sync::mpsc::channel();
        let device = device.to_owned();
        let mut follow = async move || {
            let begun = connect().and_then(|netlink| {
                let changes = Netlink::subscribe();
                Ok((netlink, changes.map_err(|e| DriverError::netlink("watch network devices", e))?))
            });
            let (netlink, mut changes) = match begun {
                Ok(begun) => begun,
                Err(error) => return drop(ready_sender.send(Err(error))),
            };
            let _ = ready_sender.send(Ok(()));
            // The caller has looked at it before: what has changed since then has not been notified.
            report(look(&netlink, &device).await.map(|(nic, _)| nic));
            loop {
                match select(&mut stopped, changes.next()).await {
                    Either::Right((Some(_), _)) => {}
                    Either::Left(_) | Either::Right((None, _)) => return,
                }
                tokio::time::sleep(SETTLE).await;
                while changes.try_recv().is_ok() {}
                report(look(&netlink, &device).await.map(|(nic, _)| nic));
            }
        };
        let thread = std::thread::Builder::new()
            .name("umptcp-nic".into())
            .spawn(move || match runtime() {
                Ok(runtime) => runtime.block_on(follow()),
                Err(error) => tracing::error!(%error, "cannot follow a network device"),
            })
            .map_err(|source| DriverError::Netlink { what: "start a thread".into(), source })?;
        let watch = NicWatch { stop: Some(stop), thread: Some(thread) };
        ready.recv().unwrap_or(Err(DriverError::Gone))?;
        Ok(watch)
    }
}

impl Drop for NicWatch {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            // It may be dropped by what the report calls.
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_watch_says_first_what_the_nic_is_like() {
        let test = || {
            // Where nothing changes.
            if let Err(error) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
                return eprintln!("skipped: cannot create a network namespace: {error}");
            }
            for device in ["lo", "none0"] {
                let (sender, reports) = mpsc::channel();
                let watch = NicWatch::start(device, move |nic| drop(sender.send(nic))).unwrap();
                let report = reports.recv_timeout(Duration::from_secs(10)).expect("a report");
                match device {
                    "lo" => {
                        assert!(matches!(report, Err(DriverError::UnsuitableDevice { .. })), "{report:?}")
                    }
                    _ => assert!(matches!(report, Err(DriverError::UnknownDevice { .. })), "{report:?}"),
                }
                drop(watch);
                assert!(reports.recv().is_err(), "once");
            }
        };
        std::thread::spawn(test).join().unwrap();
    }
}

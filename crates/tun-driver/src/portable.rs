//! Paths without anything that only Linux has: an address of this host stands for a NIC.
//!
//! TUN devices, routes and translation are Linux's here, so [`set_up`] refuses. Paths inside UDP need sockets alone, and
//! [`look_at`] and [`NicWatch`] tell what there is to know for them: whether this host has the address. The standard
//! library has no list of addresses, but a socket can be bound to those that the host has only. Where packets leave
//! is up to the host, which routes by source address (Windows) or is to be told so.

pub use crate::described::{Caps, Mode, NicInfo, PathChange, PathSpec, SetupOptions, check_uses};

use crate::error::DriverError;
use ipnet::IpNet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often to look whether the host still has an address.
const LOOK: Duration = Duration::from_millis(500);

/// Largest IP packet, in bytes: nobody tells that of a NIC, and nearly all take this. What a path takes less is found
/// by probing, or cut by the host.
const MTU: u32 = 1500;

/// The same for addresses of the host's own (127.0.0.0/8, ::1).
const LOOPBACK_MTU: u32 = 16_384;

/// A path with a TUN device: there is none.
#[derive(Debug)]
pub enum PathGuard {}

impl PathGuard {
    /// Name of the TUN device.
    pub fn name(&self) -> &str {
        match *self {}
    }

    /// Whether packets to `destination` would leave through the path's NIC.
    ///
    /// # Errors
    /// Never.
    pub fn has_route(&self, _destination: IpAddr) -> Result<bool, DriverError> {
        match *self {}
    }

    /// Which addresses of the stack stand for which of the NIC.
    ///
    /// # Errors
    /// Never.
    pub fn translations(&self) -> Result<Vec<(IpAddr, IpAddr)>, DriverError> {
        match *self {}
    }
}

/// Paths with TUN devices that were set up together: there are none.
#[derive(Debug)]
pub enum PathSet {}

impl PathSet {
    /// Ports that translated connections use.
    pub fn port_range(&self) -> Option<RangeInclusive<u16>> {
        match *self {}
    }

    /// Reserves more of them.
    ///
    /// # Errors
    /// Never.
    pub fn more_ports(&self) -> Result<RangeInclusive<u16>, DriverError> {
        match *self {}
    }

    /// Directs connections to a port to the stack.
    ///
    /// # Errors
    /// Never.
    pub fn listen(&self, _port: u16) -> Result<(), DriverError> {
        match *self {}
    }

    /// Undoes that.
    ///
    /// # Errors
    /// Never.
    pub fn unlisten(&self, _port: u16) -> Result<(), DriverError> {
        match *self {}
    }

    /// Changes of the paths.
    pub fn changes(&mut self) -> Option<Receiver<PathChange>> {
        match *self {}
    }
}

/// Refuses to set up paths with TUN devices.
///
/// # Errors
/// Always.
pub fn set_up(specs: &[PathSpec], _options: &SetupOptions) -> Result<PathSet, DriverError> {
    match specs.first() {
        Some(spec) => Err(DriverError::NotPortable {
            device: spec.device.clone(),
            reason: "mode=nat and mode=routed need Linux, and a build for it",
        }),
        None => Err(no_list()),
    }
}

/// Every NIC that can carry a path.
///
/// # Errors
/// Always: nobody tells which there are.
pub fn discover() -> Result<Vec<NicInfo>, DriverError> {
    Err(no_list())
}

/// Undoes what paths have changed on the host, which is nothing.
pub fn clean_up() -> Vec<DriverError> {
    Vec::new()
}

fn no_list() -> DriverError {
    DriverError::NotPortable { device: "paths".into(), reason: "they are not found by themselves" }
}

/// What there is to know of the NIC that has `address`.
///
/// # Errors
/// [`DriverError::NotPortable`] when it is not an address; [`DriverError::DeviceDown`] when this host does not have it.
pub fn look_at(address: &str) -> Result<NicInfo, DriverError> {
    let Ok(ip) = address.parse::<IpAddr>() else {
        return Err(DriverError::NotPortable { device: address.to_owned(), reason: "no address" });
    };
    if ip.is_unspecified() || ip.is_multicast() {
        return Err(DriverError::BadAddress { address: ip, reason: "it is no host's own".into() });
    }
    match UdpSocket::bind((ip, 0)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            let reason = "this host does not have that address".into();
            return Err(DriverError::DeviceDown { device: address.to_owned(), reason });
        }
        Err(source) => return Err(DriverError::Netlink { what: format!("bind a socket to {ip}"), source }),
    }
    let mtu = if ip.is_loopback() { LOOPBACK_MTU } else { MTU };
    let mut nic = NicInfo::new(address, 0, mtu, vec![ip]);
    // Where there is no route, sending fails.
    nic.destinations = vec![match ip {
        IpAddr::V4(_) => IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0),
        IpAddr::V6(_) => IpNet::new_assert(Ipv6Addr::UNSPECIFIED.into(), 0),
    }];
    Ok(nic)
}

/// Follows an address until it is dropped.
#[derive(Debug)]
pub struct NicWatch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl NicWatch {
    /// Calls `report` with what [`look_at`] finds, at once and each time the host has got the address or lost it, on a
    /// thread of its own.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        address: &str,
        mut report: impl FnMut(Result<NicInfo, DriverError>) + Send + 'static,
    ) -> Result<NicWatch, DriverError> {
        let (stop, stopped) = mpsc::channel::<()>();
        let address = address.to_owned();
        let follow = move || {
            let mut had = None;
            loop {
                let now = look_at(&address);
                if had.replace(now.is_ok()) != Some(now.is_ok()) {
                    report(now);
                }
                match stopped.recv_timeout(LOOK) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        let thread = std::thread::Builder::new().name("umptcp-nic".into()).spawn(follow);
        let thread =
            thread.map_err(|source| DriverError::Netlink { what: "start a thread".into(), source })?;
        Ok(NicWatch { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for NicWatch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stands_for_a_nic_if_the_host_has_it() {
        for text in ["eth0", "", "127.0.0.1:5"] {
            assert!(matches!(look_at(text), Err(DriverError::NotPortable { .. })), "{text}");
        }
        for text in ["0.0.0.0", "::", "224.0.0.1"] {
            assert!(matches!(look_at(text), Err(DriverError::BadAddress { .. })), "{text}");
        }
        assert!(matches!(look_at("192.0.2.77"), Err(DriverError::DeviceDown { .. })));
        if let Ok(nic) = look_at("127.0.0.1") {
            assert_eq!((&nic.addresses[..], nic.mtu), (&["127.0.0.1".parse().unwrap()][..], LOOPBACK_MTU));
            assert!(nic.has_route("192.0.2.1".parse().unwrap()));
            assert!(!nic.has_route("2001:db8::1".parse().unwrap()));
        }
    }

    #[test]
    fn an_address_is_reported_at_once_and_then_only_when_that_changes() {
        let (to, reports) = mpsc::channel();
        let watch = NicWatch::start("192.0.2.77", move |nic| drop(to.send(nic.is_ok()))).unwrap();
        assert_eq!(reports.recv_timeout(Duration::from_secs(30)), Ok(false));
        assert_eq!(reports.recv_timeout(3 * LOOK), Err(RecvTimeoutError::Timeout));
        drop(watch);
        assert_eq!(reports.recv_timeout(LOOK), Err(RecvTimeoutError::Disconnected), "its thread has ended");
    }

    #[test]
    fn paths_that_need_linux_are_refused_with_what_to_use_instead() {
        let spec = PathSpec::new("192.0.2.1");
        for specs in [&[spec][..], &[]] {
            let error = set_up(specs, &SetupOptions::default()).unwrap_err().to_string();
            assert!(error.contains("ADDRESS,mode=udp"), "{error}");
        }
    }
}

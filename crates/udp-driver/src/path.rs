//! A path inside UDP over a NIC.

use crate::device::UdpDevice;
use crate::sockets::Sockets;
use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use umptcp_stack_core::device::PathConfig;
use umptcp_tun_driver::error::DriverError;
use umptcp_tun_driver::paths::{self, NicInfo, NicWatch, PathChange, PathSpec};

/// Translators forget UDP after half a minute in the worst case that is common (RFC 4787 §4.3 asks for two
/// minutes and more).
const LONGEST_SILENCE: Duration = Duration::from_secs(20);

/// A path that has been set up.
#[derive(Debug)]
pub struct UdpPath {
    /// Its description for the stack.
    pub config: PathConfig,
    /// Its sockets.
    pub device: UdpDevice,
    /// Follows its NIC until dropped.
    pub guard: UdpGuard,
}

/// A path's part outside the event loop: where to listen, and what its NIC is like.
#[derive(Debug)]
pub struct UdpGuard {
    name: String,
    sockets: Arc<Sockets>,
    nic: Arc<Mutex<Nic>>,
    _watch: NicWatch,
}

/// What is known of the NIC.
#[derive(Debug)]
struct Nic {
    info: NicInfo,
    /// It exists, is up and has carrier.
    up: bool,
}

/// Sets up a path over `spec.device`, in the network namespace of the caller. It takes no privilege and
/// changes nothing on the host. Changes of the NIC go to `changes`, with the path's [`PathSpec::name`] for the
/// TUN device's. With `carry`, packets of UDP and echo requests pass, too, by sockets.
///
/// # Errors
/// What the NIC lacks ([`paths::look_at`]); a failure of the system.
pub fn set_up(spec: &PathSpec, carry: bool, changes: SyncSender<PathChange>) -> Result<UdpPath, DriverError> {
    let info = paths::look_at(&spec.device)?;
    let name = spec.name();
    let addresses = first_of_each(&info.addresses);
    let made = Sockets::new(&spec.device, addresses.clone(), info.mtu);
    let sockets = Arc::new(made.map_err(|e| failed("make the sockets of a path", e))?);
    let config = config_of(spec, &info);
    let device = UdpDevice::new(Arc::clone(&sockets), carry);
    let device = device.map_err(|e| failed("make the sockets of a path", e))?;
    let nic = Arc::new(Mutex::new(Nic { info, up: true }));
    let (known, to, advertise) = (Arc::clone(&nic), Arc::clone(&sockets), config.advertise.clone());
    let path = name.clone();
    let watch = NicWatch::start(&spec.device, move |now| {
        let mut nic = known.lock().unwrap_or_else(PoisonError::into_inner);
        for change in compare(&path, &advertise, &mut nic, now, &to) {
            tracing::info!(?change, "a path changed");
            if changes.try_send(change).is_err() {
                tracing::debug!("path changes are not being read");
            }
        }
    })?;
    tracing::info!(device = spec.device, addresses = ?config.addresses, "path inside UDP set up");
    Ok(UdpPath { config, device, guard: UdpGuard { name, sockets, nic, _watch: watch } })
}

impl UdpGuard {
    /// The path's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the NIC has a route to `destination`, on-link ones included.
    pub fn has_route(&self, destination: IpAddr) -> bool {
        self.nic.lock().unwrap_or_else(PoisonError::into_inner).info.has_route(destination)
    }

    /// Takes what comes to a port at the NIC's addresses.
    ///
    /// # Errors
    /// [`DriverError::PortInUse`] when a program of this host has the port; a failure of the system.
    pub fn listen(&self, port: u16) -> Result<(), DriverError> {
        self.sockets.listen(port).map_err(|(address, source)| match source.kind() {
            io::ErrorKind::AddrInUse => DriverError::PortInUse { address, port, by: " by UDP".into() },
            io::ErrorKind::PermissionDenied => DriverError::Permission {
                what: format!("listen on UDP port {port}, below net.ipv4.ip_unprivileged_port_start"),
            },
            _ => failed(&format!("listen on UDP port {port} of {address}"), source),
        })
    }

    /// Nobody listens on the port any more. What is connected to it goes on.
    pub fn unlisten(&self, port: u16) {
        self.sockets.unlisten(port);
    }

    /// Closes sockets that have been idle for a while and are not at one of the addresses that the stack
    /// uses. `used` is only called when there are such sockets.
    pub fn close_unused(&self, used: impl FnOnce() -> HashSet<SocketAddr>) {
        self.sockets.close_unused(used);
    }
}

fn failed(what: &str, source: io::Error) -> DriverError {
    DriverError::Netlink { what: what.to_owned(), source }
}

/// What the stack is told of a path.
fn config_of(spec: &PathSpec, nic: &NicInfo) -> PathConfig {
    let mut config = PathConfig::with_addresses(spec.name(), first_of_each(&nic.addresses));
    config.advertise = spec.advertise.into_iter().collect();
    spec.describe(&mut config);
    config.mtu = mtu_of(nic);
    config.longest_silence = Some(LONGEST_SILENCE);
    UdpDevice::describe(&mut config);
    config
}

fn mtu_of(nic: &NicInfo) -> u16 {
    u16::try_from(nic.mtu).unwrap_or(u16::MAX)
}

fn first_of_each(addresses: &[IpAddr]) -> Vec<IpAddr> {
    [false, true].iter().filter_map(|v6| addresses.iter().find(|a| a.is_ipv6() == *v6).copied()).collect()
}

/// What has changed of a NIC. Notes it, and moves the sockets where that is needed.
fn compare(
    path: &str,
    advertise: &[IpAddr],
    nic: &mut Nic,
    now: Result<NicInfo, DriverError>,
    sockets: &Sockets,
) -> Vec<PathChange> {
    let tun = || path.to_owned();
    let now = match now {
        Ok(now) => now,
        Err(error @ (DriverError::UnknownDevice { .. } | DriverError::DeviceDown { .. })) => {
            let gone = matches!(error, DriverError::UnknownDevice { .. });
            return std::mem::take(&mut nic.up)
                .then(|| PathChange::Down { tun: tun(), gone })
                .into_iter()
                .collect();
        }
        Err(error) => {
            tracing::warn!(path, %error, "cannot look at the NIC");
            return Vec::new();
        }
    };
    let before = std::mem::replace(&mut nic.info, now.clone());
    let [had, has] = [&before, &now].map(|nic| first_of_each(&nic.addresses));
    let renewed = before.index != now.index;
    let mut changes = Vec::new();
    if renewed || had != has {
        sockets.move_to(has.clone(), renewed);
    }
    if had != has {
        let advertise = advertise.to_vec();
        changes.push(PathChange::Addresses { tun: tun(), before: had, nic: has, advertise });
    }
    if before.mtu != now.mtu {
        sockets.set_mtu(now.mtu);
        changes.push(PathChange::Mtu { tun: tun(), mtu: mtu_of(&now) });
    }
    if !std::mem::replace(&mut nic.up, true) {
        changes.push(PathChange::Up { tun: tun() });
    } else if before.destinations != now.destinations {
        changes.push(PathChange::Routes { tun: tun() });
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(index: u32, addresses: &[&str], mtu: u32) -> NicInfo {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        NicInfo::new("nic", index, mtu, addresses)
    }

    fn down() -> Result<NicInfo, DriverError> {
        Err(DriverError::DeviceDown { device: "nic".into(), reason: String::new() })
    }

    fn gone() -> Result<NicInfo, DriverError> {
        Err(DriverError::UnknownDevice { device: "nic".into(), known: Vec::new() })
    }

    #[test]
    fn a_path_is_used_as_was_asked_for() {
        let nic = info(3, &["192.0.2.1", "192.0.2.2", "2001:db8::1"], 1400);
        let text =
            "nic,mode=udp,advertise=198.51.100.1,backup,metered,weight=3,cost=10,cap=1MB/connection,signal";
        let spec: PathSpec = text.parse().unwrap();
        let config = config_of(&spec, &nic);
        let addresses = |all: &[&str]| all.iter().map(|a| a.parse().unwrap()).collect::<Vec<IpAddr>>();
        assert_eq!((&config.name[..], config.mtu), ("nic/udp", 1400));
        assert_eq!(config.addresses, addresses(&["192.0.2.1", "2001:db8::1"]));
        assert_eq!(config.advertise, addresses(&["198.51.100.1"]));
        assert!(config.backup && config.metered);
        assert_eq!(config.connection_cap, Some(1_000_000));
        assert_eq!((config.weight, config.cost, config.uses), (3, 10, spec.uses));
        let plain = config_of(&"nic,mode=udp".parse().unwrap(), &nic);
        assert!(!plain.backup && !plain.metered);
    }

    #[test]
    fn each_change_of_a_nic_is_told_once() {
        let sockets = Sockets::new("lo", Vec::new(), 1500).unwrap();
        let mut nic = Nic { info: info(3, &["192.0.2.1", "192.0.2.2"], 1500), up: true };
        let mut look = |now| {
            let changes = compare("nic/udp", &[], &mut nic, now, &sockets);
            changes
                .iter()
                .map(|c| format!("{c:?}").split_whitespace().next().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        let one = || info(3, &["192.0.2.1"], 1500);
        assert_eq!(look(Ok(one())), [""; 0], "the second address is not used");
        assert_eq!(look(down()), ["Down"]);
        assert_eq!(look(gone()), [""; 0]);
        assert_eq!(look(Ok(info(3, &[], 1500))), ["Addresses", "Up"]);
        assert_eq!(look(Ok(info(4, &["192.0.2.1"], 1400))), ["Addresses", "Mtu"]);
        assert_eq!(look(Ok(info(4, &["192.0.2.1"], 1400))), [""; 0]);
    }
}

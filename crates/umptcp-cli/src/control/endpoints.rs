//! Addresses of paths, numbered as the kernel numbers its endpoints.

use nix::ifaddrs::getifaddrs;
use std::net::IpAddr;
use umptcp::PathInfo;
use umptcp_control::instance::Answer;
use umptcp_control::state::Endpoint;
use umptcp_control::{Code, Failure};

/// The numbers that have been given out. An address keeps its number while the instance runs.
#[derive(Debug, Default)]
pub(super) struct Endpoints(Vec<(String, IpAddr)>);

impl Endpoints {
    /// The addresses of these paths. `signal`: servers advertise them.
    pub(super) fn list(&mut self, paths: &[PathInfo], signal: bool) -> Vec<Endpoint> {
        let mut all = Vec::new();
        for path in paths {
            for address in &path.public_addresses {
                let id = self.id(&path.name, *address);
                let (dev, backup, uses) = (path.name.clone(), path.backup, path.uses);
                all.push(Endpoint {
                    address: *address,
                    id,
                    signal: signal || uses.signal,
                    subflow: uses.subflow,
                    backup,
                    fullmesh: uses.full_mesh,
                    laminar: uses.laminar,
                    dev,
                });
            }
        }
        all.sort_by_key(|e| e.id);
        all
    }

    fn id(&mut self, path: &str, address: IpAddr) -> u32 {
        let known = self.0.iter().position(|(p, a)| p == path && *a == address);
        let at = known.unwrap_or_else(|| {
            self.0.push((path.to_owned(), address));
            self.0.len() - 1
        });
        at as u32 + 1
    }
}

/// The NIC for a new endpoint.
pub(super) fn nic_for(address: Option<IpAddr>, dev: Option<&str>) -> Answer<String> {
    let with = |address: IpAddr| -> Answer<Vec<String>> {
        let all =
            getifaddrs().map_err(|e| Failure::new(Code::Failed, format!("cannot list addresses: {e}")))?;
        let has = |storage: Option<&nix::sys::socket::SockaddrStorage>| {
            let v4 = storage.and_then(|s| s.as_sockaddr_in()).map(|a| IpAddr::V4(a.ip()));
            let v6 = storage.and_then(|s| s.as_sockaddr_in6()).map(|a| IpAddr::V6(a.ip()));
            v4.or(v6) == Some(address)
        };
        Ok(all.filter(|nic| has(nic.address.as_ref())).map(|nic| nic.interface_name).collect())
    };
    match (address, dev) {
        (None, None) => Err(Failure::new(Code::BadParameters, "give an address or a NIC")),
        (None, Some(dev)) => Ok(dev.to_owned()),
        (Some(address), None) => with(address)?.into_iter().next().ok_or_else(|| {
            Failure::new(Code::NotFound, format!("no NIC of this host has the address {address}"))
        }),
        (Some(address), Some(dev)) if with(address)?.iter().any(|nic| nic == dev) => Ok(dev.to_owned()),
        (Some(address), Some(dev)) => {
            Err(Failure::new(Code::NotFound, format!("{dev} does not have the address {address}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nics_are_found_by_their_addresses() {
        let local: IpAddr = [127, 0, 0, 1].into();
        assert_eq!(nic_for(Some(local), None).as_deref(), Ok("lo"));
        assert_eq!(nic_for(Some(local), Some("lo")).as_deref(), Ok("lo"));
        assert_eq!(nic_for(None, Some("eth9")).as_deref(), Ok("eth9"));
        for (address, dev) in [(None, None), (Some([192, 0, 2, 1].into()), None), (Some(local), Some("eth9"))]
        {
            assert!(nic_for(address, dev).is_err(), "{address:?} {dev:?}");
        }
    }

    #[test]
    fn numbers_stay() {
        let mut endpoints = Endpoints::default();
        let (a, b): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 1, 1].into());
        assert_eq!([endpoints.id("eth0", a), endpoints.id("eth1", b), endpoints.id("eth1", a)], [1, 2, 3]);
        assert_eq!([endpoints.id("eth1", b), endpoints.id("eth0", a)], [2, 1]);
    }
}

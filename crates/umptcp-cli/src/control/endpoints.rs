//! Addresses of paths, numbered as the kernel numbers its endpoints.

use nix::ifaddrs::getifaddrs;
use std::net::IpAddr;
use umptcp::{AddressId, PathInfo, Uses};
use umptcp_control::call::AddEndpoint;
use umptcp_control::instance::Answer;
use umptcp_control::state::Endpoint;
use umptcp_control::{Code, Failure};
use umptcp_tun_driver::paths::check_uses;

/// What has a number: an address of a path, or that with a port.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Key {
    path: String,
    address: IpAddr,
    port: Option<u16>,
}

/// The numbers that have been given out. An address keeps its number while the instance runs.
#[derive(Debug, Default)]
pub(super) struct Endpoints(Vec<(Key, u32)>);

impl Endpoints {
    /// The addresses of these paths. `signal`: servers advertise them.
    pub(super) fn list(&mut self, paths: &[PathInfo], signal: bool) -> Vec<Endpoint> {
        let found: Vec<(Key, Option<u32>, &PathInfo)> = paths.iter().flat_map(keys).collect();
        // Those that are chosen first: the others get what is left.
        for (key, id, _) in &found {
            if let Some(id) = *id {
                self.0.retain(|(known, number)| known != key && *number != id);
                self.0.push((key.clone(), id));
            }
        }
        let mut all = Vec::new();
        for (key, _, path) in found {
            let (id, uses) = (self.id(&key), path.uses);
            let (dev, address, port, backup) = (key.path, key.address, key.port, path.backup);
            all.push(match port {
                None => Endpoint {
                    address,
                    id,
                    signal: signal || uses.signal,
                    subflow: uses.subflow,
                    backup,
                    fullmesh: uses.full_mesh,
                    laminar: uses.laminar,
                    port,
                    dev,
                },
                Some(_) => Endpoint {
                    address,
                    id,
                    signal: true,
                    subflow: false,
                    backup,
                    fullmesh: false,
                    laminar: false,
                    port,
                    dev,
                },
            });
        }
        all.sort_by_key(|e| e.id);
        all
    }

    fn id(&mut self, key: &Key) -> u32 {
        if let Some((_, id)) = self.0.iter().find(|(known, _)| known == key) {
            return *id;
        }
        let free = |id: &u32| self.0.iter().all(|(_, taken)| taken != id);
        let id = (1..).find(free).unwrap_or(u32::MAX);
        self.0.push((key.clone(), id));
        id
    }
}

/// The endpoints of a path, with the ids that are chosen for them.
fn keys(path: &PathInfo) -> impl Iterator<Item = (Key, Option<u32>, &PathInfo)> {
    let key = |address: IpAddr, port| Key { path: path.name.clone(), address, port };
    let of = move |address: IpAddr| {
        let v6 = address.is_ipv6();
        let number = |id: Option<AddressId>| id.map(|id| u32::from(id.0));
        // One that is for nothing is there for its ports.
        let own = (path.uses != Uses::NONE).then(|| (key(address, None), number(path.ids.of(v6)), path));
        let ports = path.signal_ports.iter().filter(move |port| port.ipv6 == v6);
        own.into_iter()
            .chain(ports.map(move |port| (key(address, Some(port.port)), number(port.id), path)))
            .collect::<Vec<_>>()
    };
    path.public_addresses.iter().copied().flat_map(of)
}

/// What is wrong with an endpoint that is to be added, beside these.
pub(super) fn check_new(call: &AddEndpoint, all: &[Endpoint]) -> Answer<()> {
    let bad = |text: String| Err(Failure::new(Code::BadParameters, text));
    let uses = Uses::of_words(call.signal, call.subflow, call.fullmesh, call.laminar);
    if let Err(reason) = check_uses(uses, call.port) {
        return bad(reason);
    }
    if call.id == Some(0) || call.port == Some(0) {
        return bad("an id is from 1 to 255, and a port from 1 to 65535".to_owned());
    }
    if call.address.is_none() && (call.id.is_some() || call.port.is_some()) {
        return bad("an id or a port is that of an address; say which".to_owned());
    }
    let exists = |text: String| Err(Failure::new(Code::Exists, text));
    if let Some(other) = all.iter().find(|e| call.id.is_some_and(|id| e.id == u32::from(id))) {
        return exists(format!("the id {} is that of {} already", other.id, other.address));
    }
    let same = |e: &&Endpoint| call.address == Some(e.address) && call.port == e.port;
    if let Some(Endpoint { address, id, .. }) = all.iter().find(same) {
        let port = call.port.map_or_else(String::new, |port| format!(" with port {port}"));
        return exists(format!("there is an endpoint with the address {address}{port} already: id {id}"));
    }
    Ok(())
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
    fn numbers_stay_and_chosen_ones_are_no_others() {
        let mut endpoints = Endpoints::default();
        let key = |path: &str, last, port| Key { path: path.into(), address: [10, 0, 0, last].into(), port };
        let (a, b, c) = (key("eth0", 1, None), key("eth1", 1, None), key("eth0", 1, Some(80)));
        assert_eq!([&a, &b, &c, &b, &a].map(|key| endpoints.id(key)), [1, 2, 3, 2, 1]);
        endpoints.0.push((key("eth2", 2, None), 4));
        assert_eq!(endpoints.id(&key("eth3", 3, None)), 5);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let address: IpAddr = [10, 0, 0, 1].into();
        let there = |id, port| Endpoint {
            address,
            id,
            signal: true,
            subflow: false,
            backup: false,
            fullmesh: false,
            laminar: false,
            port,
            dev: "eth0".into(),
        };
        let all = [there(1, None), there(7, Some(80))];
        let call = |id, port| AddEndpoint {
            address: Some(address),
            id,
            port,
            signal: true,
            ..AddEndpoint::default()
        };
        assert_eq!(check_new(&call(Some(2), Some(81)), &all), Ok(()));
        let code = |call: &AddEndpoint| check_new(call, &all).unwrap_err().code;
        for (call, expected) in [
            (call(Some(7), Some(81)), Code::Exists),
            (call(None, Some(80)), Code::Exists),
            (call(None, None), Code::Exists),
            (call(Some(0), Some(81)), Code::BadParameters),
            (call(None, Some(0)), Code::BadParameters),
            (AddEndpoint { address: None, ..call(Some(3), None) }, Code::BadParameters),
            (AddEndpoint { signal: false, ..call(None, Some(81)) }, Code::BadParameters),
            (AddEndpoint { subflow: true, ..call(None, Some(81)) }, Code::BadParameters),
            (AddEndpoint { fullmesh: true, ..call(None, None) }, Code::BadParameters),
        ] {
            assert_eq!(code(&call), expected, "{call:?}");
        }
    }
}

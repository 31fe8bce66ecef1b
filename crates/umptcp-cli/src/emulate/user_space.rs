//! Hosts whose connections are umptcp's.

use super::hosts::{Addresses, SERVER_NIC, nic_name};
use super::kernel::{PATIENCE, WAIT};
use super::site::Site;
use crate::registry::Registry;
use anyhow::{Context as _, anyhow};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use umptcp::{MptcpListener, MptcpStream, PathId, StackConfig};
use umptcp_lab::emulation::{Pair, Wire};
use umptcp_stack_core::stack::SubflowInfo;
use umptcp_tun_driver::paths::{PathSpec, SetupOptions};

/// A stack in a namespace. It stops when this is dropped, without waiting for its connections.
pub(super) struct Host {
    stack: Option<umptcp::Stack>,
    /// The client's path for each route; none for a server.
    paths: Mutex<Vec<PathId>>,
    specs: Vec<PathSpec>,
    /// The client's addresses, by route.
    addresses: Vec<IpAddr>,
}

impl Host {
    /// The client of a pair, with a path per route.
    pub(super) fn client(
        site: &Site,
        number: usize,
        pair: &Pair,
        registry: &Registry,
        record: &Path,
    ) -> anyhow::Result<Host> {
        let spec = |(route, plan): (usize, &umptcp_lab::emulation::Route)| {
            let mut spec = PathSpec::routed(nic_name(route), Addresses::client(number, route).stack.into());
            spec.backup = plan.backup;
            spec
        };
        let specs: Vec<PathSpec> = pair.routes.iter().enumerate().map(spec).collect();
        let host = Host::start(site, specs, number, pair, registry, record)?;
        let infos = host.stack()?.paths().context("cannot list the paths")?;
        let path = |route| infos.iter().find(|p| p.name == nic_name(route)).map(|p| p.id);
        let paths: Option<Vec<PathId>> = (0..pair.routes.len()).map(path).collect();
        *host.paths.lock().unwrap_or_else(PoisonError::into_inner) = paths.context("a path is missing")?;
        Ok(host)
    }

    /// The server of a pair.
    pub(super) fn server(
        site: &Site,
        number: usize,
        pair: &Pair,
        registry: &Registry,
        record: &Path,
    ) -> anyhow::Result<Host> {
        let specs = vec![PathSpec::routed(SERVER_NIC, Addresses::server(number).stack.into())];
        Host::start(site, specs, number, pair, registry, record)
    }

    fn start(
        site: &Site,
        specs: Vec<PathSpec>,
        number: usize,
        pair: &Pair,
        registry: &Registry,
        record: &Path,
    ) -> anyhow::Result<Host> {
        let config = StackConfig::default()
            .with_congestion(registry.congestion.clone())
            .with_schedulers(registry.schedulers.clone())
            .with_path_policies(registry.path_policies.clone());
        let builder = umptcp::Stack::builder()
            .nics(specs.iter().cloned())
            .setup(SetupOptions::default().record_directory(record))
            .stack_config(config)
            .connection_config(pair.config.clone())
            .linger(Duration::ZERO);
        // Its threads inherit the namespace.
        let stack = site.run(move || builder.start().context("cannot start umptcp"))?;
        let addresses = (0..pair.routes.len()).map(|r| Addresses::client(number, r).stack.into()).collect();
        Ok(Host { stack: Some(stack), paths: Mutex::default(), specs, addresses })
    }

    fn stack(&self) -> anyhow::Result<&umptcp::Stack> {
        self.stack.as_ref().context("the stack has been stopped")
    }

    pub(super) fn listen(&self, address: SocketAddr) -> anyhow::Result<MptcpListener> {
        MptcpListener::builder(self.stack()?).listen(address).context("cannot listen")
    }

    pub(super) fn connect(&self, remote: SocketAddr) -> anyhow::Result<UserSpaceWire> {
        let builder = MptcpStream::builder(self.stack()?).connect_timeout(PATIENCE);
        self.wire(builder.connect(remote).context("cannot connect")?)
    }

    /// The end of a connection that was established.
    pub(super) fn wire(&self, stream: MptcpStream) -> anyhow::Result<UserSpaceWire> {
        stream.set_read_timeout(Some(WAIT))?;
        stream.set_write_timeout(Some(WAIT))?;
        Ok(UserSpaceWire { stream, addresses: self.addresses.clone() })
    }

    fn path(&self, route: usize) -> anyhow::Result<PathId> {
        let paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        paths.get(route).copied().ok_or_else(|| anyhow!("there is no path for route {}", route + 1))
    }

    /// The client loses the address of a route.
    pub(super) fn remove_address(&self, route: usize) -> anyhow::Result<()> {
        self.stack()?.remove_path(self.path(route)?).map(|_| ()).context("cannot remove a path")
    }

    /// It has it again.
    pub(super) fn add_address(&self, route: usize) -> anyhow::Result<()> {
        let path = self.stack()?.add_nic(&self.specs[route]).context("cannot add a path")?;
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)[route] = path;
        Ok(())
    }

    /// Subflows on a route are to be backups, or not any more.
    pub(super) fn set_backup(&self, route: usize, backup: bool) -> anyhow::Result<()> {
        let changed = self.stack()?.set_path_backup(self.path(route)?, backup);
        changed.map(|_| ()).context("cannot change a path")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(stack) = self.stack.take() {
            // Connections that are cut off at the end of the measurement have not delivered everything.
            let _ = stack.stop(Duration::ZERO);
        }
    }
}

/// One end of a connection of umptcp's.
pub(super) struct UserSpaceWire {
    stream: MptcpStream,
    addresses: Vec<IpAddr>,
}

impl Wire for UserSpaceWire {
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.stream).read(buffer)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.stream).write(bytes)
    }

    fn finish(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    fn subflows(&self) -> Option<Vec<(usize, SubflowInfo)>> {
        // None once the connection has ended: what was known last stands.
        let subflows = self.stream.subflows().unwrap_or_default();
        let route =
            |s: &SubflowInfo| self.addresses.iter().position(|a| *a == s.local.ip() || *a == s.remote.ip());
        // A kernel's client has other addresses.
        let host = |s: &SubflowInfo| match (s.local.ip(), s.remote.ip()) {
            (_, IpAddr::V4(a)) if a.octets()[0] == 10 => Some(usize::from(a.octets()[2])),
            _ => None,
        };
        Some(subflows.into_iter().filter_map(|s| Some((route(&s).or_else(|| host(&s))?, s))).collect())
    }

    fn out_of_order(&self) -> Option<u64> {
        Some(self.stream.info().map_or(0, |info| info.out_of_order))
    }
}

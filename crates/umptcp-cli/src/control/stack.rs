//! A stack, as its control socket shows it.

use super::describe;
use super::endpoints::Endpoints;
use super::events::StackEvents;
use super::programs::Programs;
use super::source::StackSource;
use crate::registry::{Names, Registry};
use crate::warnings::{self, Role};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use umptcp::{
    AddressId, ConnectionConfig, ConnectionId, ConnectionInfo, ConnectionOption, Counter, Forwarder, PathId,
    PathInfo, SignalPort, Stack, SubflowError, SubflowId, SubflowInfo, Uses,
};
use umptcp_control::call::{
    AddEndpoint, AddPath, CaptureCaller, Captured, ChangeEndpoint, Changed, CloseSubflow, DeleteEndpoint,
    Done, FlushEndpoints, OpenSubflow, RemovePath, SetAlgorithms, SetLimits, SummarizeRun,
};
use umptcp_control::instance::Answer;
use umptcp_control::state::{
    ConnectionList, CounterList, Endpoint, EndpointList, Limits, Path, PathList, RunSummary, WarningList,
};
use umptcp_control::{Code, Events, Failure, Instance, Peer};
use umptcp_tun_driver::error::DriverError;
use umptcp_tun_driver::paths::PathSpec;

/// A stack, and what sends the connections of captured programs on.
pub(crate) struct StackInstance {
    source: Arc<dyn StackSource>,
    forwarders: Vec<Arc<Forwarder>>,
    registry: Registry,
    endpoints: Mutex<Endpoints>,
    /// Who captures programs that ask for it.
    programs: Option<Arc<dyn Programs>>,
}

type Described = (ConnectionId, ConnectionInfo, Vec<SubflowInfo>);

impl StackInstance {
    pub(crate) fn new(
        source: Arc<dyn StackSource>,
        forwarders: Vec<Arc<Forwarder>>,
        registry: Registry,
    ) -> StackInstance {
        StackInstance { source, forwarders, registry, endpoints: Mutex::default(), programs: None }
    }

    /// With somebody who captures programs that ask for it.
    pub(crate) fn with_programs(mut self, programs: Arc<dyn Programs>) -> StackInstance {
        self.programs = Some(programs);
        self
    }

    fn programs(&self) -> Answer<&dyn Programs> {
        let none = || Failure::new(Code::NotSupported, "only the daemon captures programs that ask for it");
        self.programs.as_deref().ok_or_else(none)
    }

    /// Asks the stack.
    fn ask<T>(&self, mut f: impl FnMut(&Stack) -> io::Result<T>) -> Answer<T> {
        let mut answer = None;
        self.source.with(&mut |stack| answer = Some(f(stack)));
        answer.unwrap_or_else(|| Err(ErrorKind::NotConnected.into())).map_err(failed)
    }

    fn path_infos(&self) -> Answer<Vec<PathInfo>> {
        self.ask(Stack::paths)
    }

    /// Paths that lead outside.
    fn outside(&self) -> Answer<Vec<PathInfo>> {
        let mut paths = self.path_infos()?;
        paths.retain(|p| !p.captures);
        Ok(paths)
    }

    fn path_named(&self, name: &str) -> Answer<PathInfo> {
        let paths = self.outside()?;
        let names: Vec<&str> = paths.iter().map(|p| p.name.as_str()).collect();
        let missing = || {
            let text = format!("there is no path named {name:?}; there are: {}", names.join(", "));
            Failure::new(Code::NotFound, text)
        };
        paths.iter().find(|p| p.name == name).cloned().ok_or_else(missing)
    }

    /// Connections that lead outside.
    fn connections_outside(&self) -> Answer<Vec<Described>> {
        let paths = self.path_infos()?;
        let mut all = self.ask(Stack::connections)?;
        all.retain(|(_, _, subflows)| !describe::is_captured(&paths, subflows));
        Ok(all)
    }

    fn endpoint_list(&self) -> Answer<Vec<Endpoint>> {
        let signal = self.forwarders.len() > 1;
        let paths = self.outside()?;
        Ok(self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).list(&paths, signal))
    }

    fn endpoint(&self, id: u32) -> Answer<Endpoint> {
        let missing = || Failure::new(Code::NotFound, format!("there is no endpoint with id {id}"));
        self.endpoint_list()?.into_iter().find(|e| e.id == id).ok_or_else(missing)
    }

    fn describe_path(&self, name: &str) -> Answer<Path> {
        let path = self.path_named(name)?;
        Ok(describe::path(&path, &self.ask(Stack::traffic)?))
    }

    fn remove(&self, path: &PathInfo) -> Answer<()> {
        if self.outside()?.len() == 1 {
            let text = format!("{} is the only path: the connections would end", path.name);
            return Err(Failure::new(Code::NotSupported, text));
        }
        match self.ask(|stack| stack.remove_path(path.id))? {
            true => Ok(()),
            false => Err(Failure::new(Code::NotFound, format!("{} has gone already", path.name))),
        }
    }

    fn add(&self, spec: &PathSpec) -> Answer<()> {
        self.ask(|stack| stack.add_nic(spec)).map(|_| ())
    }

    fn set_ports(&self, path: PathId, ports: Vec<SignalPort>) -> Answer<()> {
        match self.ask(|stack| stack.set_signal_ports(path, ports.clone()))? {
            true => Ok(()),
            false => Err(Failure::new(Code::NotFound, "the path has gone")),
        }
    }

    /// Changes the settings of connections that begin later.
    fn change(&self, change: impl Fn(&mut ConnectionConfig) + Send + Sync + Clone + 'static) -> Answer<()> {
        self.ask(|stack| {
            stack.change_defaults(&change);
            Ok(())
        })?;
        self.forwarders.iter().try_for_each(|f| f.change(change.clone())).map_err(failed)
    }

    fn config(&self) -> Answer<ConnectionConfig> {
        let Some(forwarder) = self.forwarders.first() else {
            return Err(Failure::new(Code::NotSupported, "this instance makes no connections by itself"));
        };
        forwarder.config().map_err(failed)
    }
}

impl Instance for StackInstance {
    fn capture_caller(&self, call: &CaptureCaller, peer: &Peer) -> Answer<Captured> {
        self.programs()?.capture(call, peer)
    }

    fn summarize_run(&self, call: &SummarizeRun) -> Answer<RunSummary> {
        self.programs()?.summarize(call.run)
    }

    fn connections(&self) -> Answer<ConnectionList> {
        let paths = self.path_infos()?;
        let all = self.ask(Stack::connections)?;
        let now = self.ask(|stack| Ok(stack.now()))?;
        let since = |then| now.saturating_duration_since(then).as_millis() as u64;
        let connections = all
            .into_iter()
            .map(|(id, info, subflows)| describe::connection(&paths, id, info, subflows, since));
        Ok(ConnectionList { connections: connections.collect() })
    }

    fn counters(&self) -> Answer<CounterList> {
        let counters = self.ask(Stack::counters)?;
        let named = |c: &Counter| (describe::counter_name(*c), counters.get(*c));
        let counters: BTreeMap<String, u64> = Counter::ALL.iter().map(named).collect();
        Ok(CounterList { counters })
    }

    fn paths(&self) -> Answer<PathList> {
        let (paths, traffic) = (self.path_infos()?, self.ask(Stack::traffic)?);
        Ok(PathList { paths: paths.iter().map(|p| describe::path(p, &traffic)).collect() })
    }

    fn events(&self) -> Answer<Box<dyn Events>> {
        let events = self.ask(Stack::events)?;
        Ok(Box::new(StackEvents::new(events, self.source.clone(), self.path_infos()?)))
    }

    fn endpoints(&self) -> Answer<EndpointList> {
        Ok(EndpointList { endpoints: self.endpoint_list()? })
    }

    fn add_endpoint(&self, call: &AddEndpoint) -> Answer<Endpoint> {
        let AddEndpoint { address, dev, backup, signal, subflow, fullmesh, laminar, id, port } = call;
        super::endpoints::check_new(call, &self.endpoint_list()?)?;
        let nic = super::endpoints::nic_for(*address, dev.as_deref())?;
        let ipv6 = address.is_some_and(|a| a.is_ipv6());
        let id = id.map(AddressId);
        let path = self.outside()?.into_iter().find(|path| path.name == nic);
        match (path, port) {
            // One that is used has one port more.
            (Some(path), Some(port)) => {
                let mut ports = path.signal_ports;
                ports.push(SignalPort { ipv6, port: *port, id });
                self.set_ports(path.id, ports)?;
            }
            (_, port) => {
                let mut spec = PathSpec::new(&nic);
                spec.backup = *backup;
                spec.uses = Uses::of_words(*signal, *subflow, *fullmesh, *laminar);
                spec.port = *port;
                *spec.ids.of_mut(ipv6) = id;
                self.add(&spec)?;
            }
        }
        let added = self.endpoint_list()?.into_iter().filter(|e| e.dev == nic && e.port == *port);
        let added = added.into_iter().find(|e| address.is_none_or(|a| a == e.address));
        added.ok_or_else(|| {
            let what = address.map_or_else(|| "no address".to_owned(), |a| format!("not {a}"));
            Failure::new(Code::Failed, format!("{nic} is used now, but it has {what} that can be used"))
        })
    }

    fn delete_endpoint(&self, call: &DeleteEndpoint) -> Answer<Done> {
        let endpoint = self.endpoint(call.id)?;
        let path = self.path_named(&endpoint.dev)?;
        if let Some(gone) = endpoint.port {
            let v6 = endpoint.address.is_ipv6();
            let stays = |p: &&SignalPort| (p.port, p.ipv6) != (gone, v6);
            let ports: Vec<SignalPort> = path.signal_ports.iter().filter(stays).copied().collect();
            // A path that was for its ports alone goes with the last.
            if ports.is_empty() && path.uses == Uses::NONE {
                self.remove(&path)?;
            } else {
                self.set_ports(path.id, ports)?;
            }
            return Ok(Done {});
        }
        if let Some(port) = path.signal_ports.first() {
            let text = format!(
                "{} is advertised with the port {}, too; delete that endpoint first",
                endpoint.dev, port.port
            );
            return Err(Failure::new(Code::NotSupported, text));
        }
        if path.public_addresses.len() > 1 {
            let others: Vec<String> = path
                .public_addresses
                .iter()
                .filter(|a| **a != endpoint.address)
                .map(ToString::to_string)
                .collect();
            let text = format!(
                "the path over {} has the address {}, too: an address alone cannot be taken away; `umptcp path remove {}` \
                 takes both",
                endpoint.dev,
                others.join(", "),
                endpoint.dev
            );
            return Err(Failure::new(Code::NotSupported, text));
        }
        self.remove(&path)?;
        Ok(Done {})
    }

    fn change_endpoint(&self, call: &ChangeEndpoint) -> Answer<Endpoint> {
        let path = self.path_named(&self.endpoint(call.id)?.dev)?;
        if let Some(backup) = call.backup {
            self.ask(|stack| stack.set_path_backup(path.id, backup))?;
        }
        if let Some(full_mesh) = call.fullmesh {
            let mut uses = path.uses;
            if full_mesh && (uses.signal || uses == Uses::NONE) {
                let text =
                    "signal and fullmesh exclude each other: the address is one that peers are told of";
                return Err(Failure::new(Code::BadParameters, text));
            }
            uses.full_mesh = full_mesh;
            uses.subflow |= full_mesh;
            self.ask(|stack| stack.set_path_uses(path.id, uses))?;
        }
        self.endpoint(call.id)
    }

    fn flush_endpoints(&self, _: &FlushEndpoints) -> Answer<Done> {
        let paths = self.outside()?;
        for path in paths.iter().skip(1) {
            self.remove(path)?;
        }
        for path in paths.iter().take(1).filter(|path| !path.signal_ports.is_empty()) {
            self.set_ports(path.id, Vec::new())?;
        }
        Ok(Done {})
    }

    fn limits(&self) -> Answer<Limits> {
        Ok(describe::limits(&self.config()?))
    }

    fn set_limits(&self, call: &SetLimits) -> Answer<Limits> {
        // Linux does not count the initial subflow.
        let subflows = call.subflows.map(|most| most as usize + 1);
        let addresses = call.add_addr_accepted.map(|most| most as usize);
        self.config()?;
        self.change(move |config| {
            config.max_subflows = subflows.unwrap_or(config.max_subflows);
            config.max_add_addr_accepted = addresses.unwrap_or(config.max_add_addr_accepted);
        })?;
        let options = [
            subflows.map(ConnectionOption::MaxSubflows),
            addresses.map(ConnectionOption::MaxAddAddrAccepted),
        ];
        for (id, ..) in self.connections_outside()? {
            for option in options.into_iter().flatten() {
                // It may have ended since.
                let _ = self.ask(|stack| stack.set_option(id, option))?;
            }
        }
        self.limits()
    }

    fn warnings(&self) -> Answer<WarningList> {
        let paths: Vec<warnings::Path> = self.outside()?.iter().map(warnings::Path::of_info).collect();
        // What else connects or serves is not known here.
        let role = Role { connects: !self.forwarders.is_empty(), serves: self.forwarders.len() != 1 };
        Ok(WarningList { warnings: warnings::of(&paths, &self.config().unwrap_or_default(), role) })
    }

    fn add_path(&self, call: &AddPath) -> Answer<Path> {
        let spec: PathSpec = call
            .path
            .parse()
            .map_err(|error: DriverError| Failure::new(Code::BadParameters, error.to_string()))?;
        self.add(&spec)?;
        self.describe_path(&spec.name())
    }

    fn remove_path(&self, call: &RemovePath) -> Answer<Done> {
        self.remove(&self.path_named(&call.path)?)?;
        Ok(Done {})
    }

    fn open_subflow(&self, call: &OpenSubflow) -> Answer<Done> {
        let (connection, path) = (connection_id(call.connection)?, self.path_named(&call.path)?);
        let remote: Option<SocketAddr> = call.remote;
        self.ask(|stack| stack.open_subflow(connection, path.id, remote))?.map_err(not_steered)?;
        Ok(Done {})
    }

    fn close_subflow(&self, call: &CloseSubflow) -> Answer<Done> {
        let connection = connection_id(call.connection)?;
        self.ask(|stack| stack.close_subflow(connection, SubflowId(call.subflow)))?.map_err(not_steered)?;
        Ok(Done {})
    }

    fn set_algorithms(&self, call: &SetAlgorithms) -> Answer<Changed> {
        let SetAlgorithms { scheduler, congestion, path_policy, enabled: _, only_new } = call;
        let known = self.registry.check(Names {
            congestion: congestion.as_deref(),
            scheduler: scheduler.as_deref(),
            path_policy: path_policy.as_deref(),
        });
        known.map_err(|error| Failure::new(Code::BadParameters, error.to_string()))?;
        let chosen = call.clone();
        self.change(move |config| {
            let fields = [
                (&mut config.scheduler, &chosen.scheduler),
                (&mut config.congestion, &chosen.congestion),
                (&mut config.path_policy, &chosen.path_policy),
            ];
            for (field, name) in fields {
                if let Some(name) = name {
                    field.clone_from(name);
                }
            }
            config.mptcp = chosen.enabled.unwrap_or(config.mptcp);
        })?;
        let mut connections = 0;
        let algorithms = scheduler.is_some() || congestion.is_some() || path_policy.is_some();
        for (id, ..) in if *only_new || !algorithms { Vec::new() } else { self.connections_outside()? } {
            let mut done = true;
            if let Some(name) = &scheduler {
                done &= self.ask(|stack| stack.set_scheduler(id, name))?.is_ok();
            }
            if let Some(name) = &congestion {
                done &= self.ask(|stack| stack.set_congestion(id, name))?.is_ok();
            }
            if let Some(name) = &path_policy {
                done &= self.ask(|stack| stack.set_path_policy(id, name))?.is_ok();
            }
            connections += u64::from(done);
        }
        Ok(Changed { connections })
    }
}

/// Connections are numbered from 0; that there is none with a number shows later.
fn connection_id(number: u64) -> Answer<ConnectionId> {
    describe::connection_id(number)
        .ok_or_else(|| Failure::new(Code::NotFound, format!("there is no connection {number}")))
}

fn not_steered(error: SubflowError) -> Failure {
    let code = match error {
        SubflowError::NotFound | SubflowError::NoSubflow => Code::NotFound,
        SubflowError::NotMptcp | SubflowError::Unwelcome | SubflowError::Only => Code::NotSupported,
        _ => Code::Failed,
    };
    Failure::new(code, error.to_string())
}

/// What the library says.
fn failed(error: io::Error) -> Failure {
    let code = match error.kind() {
        ErrorKind::NotConnected => return Failure::new(Code::Ending, "the instance ends"),
        ErrorKind::AlreadyExists => Code::Exists,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::InvalidInput => Code::BadParameters,
        ErrorKind::Unsupported => Code::NotSupported,
        _ => Code::Failed,
    };
    Failure::new(code, error.to_string())
}

//! What happens in a stack, in the words of the protocol.

use super::describe;
use super::source::StackSource;
use nix::net::if_::if_nametoindex;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use umptcp::{
    ConnectionError, MonitorEvent, MonitoredConnection, MonitoredSubflow, PathId, PathInfo, SubflowReset,
};
use umptcp_control::state::Event;
use umptcp_control::{Events, Next};

/// What happens in a stack.
pub(super) struct StackEvents {
    events: umptcp::Events,
    source: Arc<dyn StackSource>,
    /// Paths that there have been since, for their names and for the addresses that the network sees.
    paths: Vec<PathInfo>,
}

impl StackEvents {
    /// `paths`: those that there are already.
    pub(super) fn new(
        events: umptcp::Events,
        source: Arc<dyn StackSource>,
        paths: Vec<PathInfo>,
    ) -> StackEvents {
        StackEvents { events, source, paths }
    }

    /// Paths have come or changed.
    fn look(&mut self) {
        let mut now = Vec::new();
        self.source.with(&mut |stack| now = stack.paths().unwrap_or_default());
        for path in now {
            match self.paths.iter_mut().find(|p| p.id == path.id) {
                Some(known) => *known = path,
                None => self.paths.push(path),
            }
        }
    }

    /// A path's addresses as the network sees them.
    fn public(&self, id: PathId, own: Vec<IpAddr>) -> Vec<IpAddr> {
        self.paths.iter().find(|p| p.id == id).map_or(own, |p| p.public_addresses.clone())
    }

    fn describe(&mut self, what: MonitorEvent) -> Event {
        match what {
            MonitorEvent::PathAdded { path, name, addresses } => {
                self.look();
                Event { addresses: self.public(path, addresses), ..on_path("PATH_ADDED", name) }
            }
            MonitorEvent::PathReaddressed { path, name, addresses } => {
                self.look();
                Event { addresses: self.public(path, addresses), ..on_path("PATH_CHANGED", name) }
            }
            MonitorEvent::PathRemoved { name, .. } => on_path("PATH_REMOVED", name),
            MonitorEvent::ListenerCreated { local, .. } => listener("LISTENER_CREATED", local),
            MonitorEvent::ListenerClosed { local, .. } => listener("LISTENER_CLOSED", local),
            MonitorEvent::ConnectionCreated { connection } => self.on_connection("CREATED", &connection),
            MonitorEvent::ConnectionEstablished { connection } => {
                self.on_connection("ESTABLISHED", &connection)
            }
            MonitorEvent::FellBack { connection, reason } => {
                Event { reason: Some(reason.to_string()), ..self.on_connection("FALLBACK", &connection) }
            }
            MonitorEvent::ConnectionClosed { connection, error } => {
                with_error(self.on_connection("CLOSED", &connection), error, None)
            }
            MonitorEvent::AddressAnnounced { connection, id, address } => {
                let remote = Some(address);
                Event { remote_id: Some(id.0), remote, ..named("ANNOUNCED", &connection) }
            }
            MonitorEvent::AddressRemoved { connection, id } => {
                Event { remote_id: Some(id.0), ..named("REMOVED", &connection) }
            }
            MonitorEvent::SubflowEstablished { connection, subflow } => {
                self.on_subflow("SF_ESTABLISHED", &connection, &subflow)
            }
            MonitorEvent::SubflowClosed { connection, subflow, error, reset } => {
                with_error(self.on_subflow("SF_CLOSED", &connection, &subflow), error, reset)
            }
            MonitorEvent::JoinFailed { connection, subflow, error, reset } => {
                with_error(self.on_subflow("SF_CLOSED", &connection, &subflow), Some(error), reset)
            }
            MonitorEvent::PriorityChanged { connection, subflow, .. } => {
                self.on_subflow("SF_PRIO", &connection, &subflow)
            }
            MonitorEvent::Missed { events } => {
                Event { event: "MISSED".to_owned(), missed: Some(events), ..Event::default() }
            }
            // Of a newer core.
            other => {
                Event { event: "OTHER".to_owned(), reason: Some(format!("{other:?}")), ..Event::default() }
            }
        }
    }

    /// An event of a connection, with its ends.
    fn on_connection(&self, name: &str, c: &MonitoredConnection) -> Event {
        let local = Some(describe::public_anywhere(&self.paths, c.local));
        Event { local_id: Some(0), remote_id: Some(0), local, remote: Some(c.remote), ..named(name, c) }
    }

    fn on_subflow(&self, name: &str, c: &MonitoredConnection, s: &MonitoredSubflow) -> Event {
        let path = self.paths.iter().find(|p| p.id == s.path).map(|p| p.name.clone());
        Event {
            subflow: Some(s.id.0),
            local_id: Some(s.local_id.0),
            remote_id: Some(s.remote_id.0),
            local: Some(describe::public(&self.paths, s.path, s.local)),
            remote: Some(s.remote),
            backup: Some(s.backup),
            ifindex: path.as_deref().and_then(|name| if_nametoindex(name).ok()),
            path,
            ..named(name, c)
        }
    }
}

impl Events for StackEvents {
    fn next(&mut self, limit: Duration) -> Next {
        match self.events.recv_timeout(limit) {
            Ok(event) => {
                let since = event.at.duration_since(UNIX_EPOCH).unwrap_or_default();
                let time_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
                Next::Event(Box::new(Event { time_us, ..self.describe(event.what) }))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Next::Nothing,
            Err(_) => Next::End,
        }
    }
}

/// An event of a connection.
fn named(name: &str, c: &MonitoredConnection) -> Event {
    Event {
        event: name.to_owned(),
        connection: Some(describe::connection_number(c.id)),
        token: c.token,
        server_side: Some(c.server),
        ..Event::default()
    }
}

fn listener(name: &str, local: SocketAddr) -> Event {
    Event { event: name.to_owned(), local: Some(local), ..Event::default() }
}

fn on_path(event: &str, name: String) -> Event {
    Event {
        event: event.to_owned(),
        ifindex: if_nametoindex(name.as_str()).ok(),
        path: Some(name),
        ..Event::default()
    }
}

fn with_error(event: Event, error: Option<ConnectionError>, reset: Option<SubflowReset>) -> Event {
    let transient = reset.map(|r| u8::from(r.transient));
    Event {
        error: error.as_ref().map(describe::error_number),
        reason: error.map(|e| e.to_string()),
        reset_reason: reset.and_then(|r| r.reason).map(u8::from),
        reset_flags: transient,
        ..event
    }
}

//! What can be asked for: each call with its parameters and its reply.

use crate::state::{
    ConnectionList, CounterList, Endpoint, EndpointList, Limits, Path, PathList, RunSummary, WarningList,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// A call: the parameters, and what comes back.
pub trait Call: Serialize + DeserializeOwned {
    /// Its name.
    const METHOD: &'static str;
    /// What comes back.
    type Reply: Serialize + DeserializeOwned;
}

macro_rules! calls {
    ($($(#[$doc:meta])* $method:literal $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* } -> $reply:ty;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
            pub struct $name {
                $($(#[$field_doc])* pub $field: $kind,)*
            }

            impl Call for $name {
                const METHOD: &'static str = $method;
                type Reply = $reply;
            }
        )*

        /// The names of all calls.
        pub const METHODS: &[&str] = &[$($method,)*];
    };
}

calls! {
    /// The connections there are.
    "connections" ListConnections {} -> ConnectionList;
    /// The counters since the start.
    "counters" ListCounters {} -> CounterList;
    /// The paths, with what went over them.
    "paths" ListPaths {} -> PathList;
    /// The addresses that connections use.
    "endpoints" ListEndpoints {} -> EndpointList;
    /// Uses one more NIC, as `path-add` does, and names an address that it must have.
    "endpoint-add" AddEndpoint {
        /// The address; by default any of the NIC's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<IpAddr>,
        /// The NIC; by default the one that has the address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dev: Option<String>,
        /// Only for when no other path works.
        #[serde(default)]
        backup: bool,
        /// Peers are told of it.
        #[serde(default)]
        signal: bool,
        /// Subflows are opened from it; the default without any of the four.
        #[serde(default)]
        subflow: bool,
        /// Subflows are opened from it to every address of the peer.
        #[serde(default)]
        fullmesh: bool,
        /// Addresses that the peer advertises are reached from it.
        #[serde(default)]
        laminar: bool,
        /// Its id, from 1 to 255; by default the first that is free. It takes `address`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<u8>,
        /// The port that it is advertised with. It takes `signal` and `address`, and no `subflow`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
    } -> Endpoint;
    /// Uses an address no more.
    "endpoint-delete" DeleteEndpoint {
        /// Its id.
        id: u32,
    } -> Done;
    /// Makes an address a backup, or not any more; subflows that use it follow.
    "endpoint-change" ChangeEndpoint {
        /// Its id.
        id: u32,
        /// Only for when no other path works.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        backup: Option<bool>,
        /// Subflows are opened from it to every address of the peer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fullmesh: Option<bool>,
    } -> Endpoint;
    /// Uses no address any more.
    "endpoint-flush" FlushEndpoints {} -> Done;
    /// The limits of a connection.
    "limits" GetLimits {} -> Limits;
    /// Changes limits, of connections that exist and of new ones. What is not given stays.
    "limits-set" SetLimits {
        /// Most subflows beside the initial one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subflows: Option<u32>,
        /// Most addresses of the peer to act on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        add_addr_accepted: Option<u32>,
    } -> Limits;
    /// What of the paths and the limits comes to nothing.
    "warnings" ListWarnings {} -> WarningList;
    /// Uses one more NIC.
    "path-add" AddPath {
        /// As for the option `--path`: the NIC's name, and options.
        path: String,
    } -> Path;
    /// Uses a NIC no more. Its subflows end, connections go on over others.
    "path-remove" RemovePath {
        /// Its name.
        path: String,
    } -> Done;
    /// Opens one more subflow of a connection.
    "subflow-open" OpenSubflow {
        /// The connection.
        connection: u64,
        /// The path's name.
        path: String,
        /// Where to; by default the peer's first address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        remote: Option<SocketAddr>,
    } -> Done;
    /// Ends a subflow of a connection. The connection may open another over the same path later.
    "subflow-close" CloseSubflow {
        /// The connection.
        connection: u64,
        /// The subflow.
        subflow: u32,
    } -> Done;
    /// Chooses other algorithms, for connections that exist and for new ones. What is not given stays.
    "set" SetAlgorithms {
        /// The scheduler.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scheduler: Option<String>,
        /// Congestion control.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        congestion: Option<String>,
        /// The path policy.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path_policy: Option<String>,
        /// Whether new connections ask for MPTCP, or are plain TCP. Those that there are stay what they are.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        enabled: Option<bool>,
        /// Only for new connections.
        #[serde(default)]
        only_new: bool,
    } -> Changed;
    /// Captures the process that has connected, and what it starts from then on, until the last of them has
    /// ended.
    "run" CaptureCaller {
        /// The network namespace of the process, as `/proc/self/ns/net` names it. Another than the
        /// instance's is refused: what is sent there cannot be captured.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        network: Option<String>,
    } -> Captured;
    /// What became of the connections of programs that `run` has captured.
    "run-summary" SummarizeRun {
        /// Its number.
        run: u64,
    } -> RunSummary;
    /// From now on, tells what happens. The connection takes no other request.
    "monitor" Monitor {} -> Done;
}

/// It was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Done {}

/// It was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Changed {
    /// How many connections were changed.
    pub connections: u64,
}

/// Connections of the process go by the instance from now on.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Captured {
    /// Number of the run, for `run-summary`.
    pub run: u64,
    /// The paths that connections use.
    pub paths: Vec<String>,
}

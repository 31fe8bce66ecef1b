//! What a server speaks for.

use crate::call::{
    AddEndpoint, AddPath, CaptureCaller, Captured, ChangeEndpoint, Changed, CloseSubflow, DeleteEndpoint,
    Done, FlushEndpoints, OpenSubflow, RemovePath, SetAlgorithms, SetLimits, SummarizeRun,
};
use crate::message::{Code, Failure};
use crate::peer::Peer;
use crate::state::{
    ConnectionList, CounterList, Endpoint, EndpointList, Event, Limits, Path, PathList, RunSummary,
    WarningList,
};
use std::time::Duration;

/// What a call comes to.
pub type Answer<T> = Result<T, Failure>;

/// A running umptcp, as its clients may use it. Called from one thread for each client; a call may take as
/// long as it needs. What an instance does not have answers with [`Code::NotSupported`].
pub trait Instance: Send + Sync {
    /// The connections there are.
    fn connections(&self) -> Answer<ConnectionList> {
        not_supported("has no connections")
    }

    /// The counters since the start, with every name.
    fn counters(&self) -> Answer<CounterList> {
        not_supported("does not count")
    }

    /// The paths.
    fn paths(&self) -> Answer<PathList> {
        not_supported("has no paths")
    }

    /// What happens from now on.
    fn events(&self) -> Answer<Box<dyn Events>> {
        not_supported("tells no events")
    }

    /// The addresses that connections use.
    fn endpoints(&self) -> Answer<EndpointList> {
        not_supported("has no endpoints")
    }

    /// Uses one more NIC.
    fn add_endpoint(&self, _: &AddEndpoint) -> Answer<Endpoint> {
        not_supported("takes no other endpoints")
    }

    /// Uses an address no more.
    fn delete_endpoint(&self, _: &DeleteEndpoint) -> Answer<Done> {
        not_supported("takes no other endpoints")
    }

    /// Makes an address a backup, or not any more.
    fn change_endpoint(&self, _: &ChangeEndpoint) -> Answer<Endpoint> {
        not_supported("takes no other endpoints")
    }

    /// Uses no address any more.
    fn flush_endpoints(&self, _: &FlushEndpoints) -> Answer<Done> {
        not_supported("takes no other endpoints")
    }

    /// The limits of a connection.
    fn limits(&self) -> Answer<Limits> {
        not_supported("has no limits")
    }

    /// Changes them.
    fn set_limits(&self, _: &SetLimits) -> Answer<Limits> {
        not_supported("has no limits that can be changed")
    }

    /// What of paths and limits comes to nothing.
    fn warnings(&self) -> Answer<WarningList> {
        not_supported("warns of nothing")
    }

    /// Uses one more NIC.
    fn add_path(&self, _: &AddPath) -> Answer<Path> {
        not_supported("takes no other paths")
    }

    /// Uses a NIC no more.
    fn remove_path(&self, _: &RemovePath) -> Answer<Done> {
        not_supported("takes no other paths")
    }

    /// Opens one more subflow of a connection.
    fn open_subflow(&self, _: &OpenSubflow) -> Answer<Done> {
        not_supported("opens subflows by itself only")
    }

    /// Ends a subflow of a connection.
    fn close_subflow(&self, _: &CloseSubflow) -> Answer<Done> {
        not_supported("ends subflows by itself only")
    }

    /// Chooses other algorithms.
    fn set_algorithms(&self, _: &SetAlgorithms) -> Answer<Changed> {
        not_supported("keeps its algorithms")
    }

    /// Captures the process that has connected, and what it starts.
    fn capture_caller(&self, _: &CaptureCaller, _: &Peer) -> Answer<Captured> {
        not_supported("captures no programs that ask for it")
    }

    /// What became of the connections of such programs.
    fn summarize_run(&self, _: &SummarizeRun) -> Answer<RunSummary> {
        not_supported("captures no programs that ask for it")
    }
}

fn not_supported<T>(what: &str) -> Answer<T> {
    Err(Failure::new(Code::NotSupported, format!("this instance {what}")))
}

/// What comes next of what happens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// This.
    Event(Box<Event>),
    /// Nothing happened for so long.
    Nothing,
    /// The instance has ended.
    End,
}

/// What happens, as it happens. It must keep a bounded number of events for a reader that is slow.
pub trait Events: Send {
    /// Waits for the next for at most `limit`.
    fn next(&mut self, limit: Duration) -> Next;
}

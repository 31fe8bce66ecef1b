//! One client of a server.

use super::Shared;
use crate::call::{
    AddEndpoint, AddPath, Call, CaptureCaller, ChangeEndpoint, CloseSubflow, DeleteEndpoint, Done,
    FlushEndpoints, GetLimits, ListConnections, ListCounters, ListEndpoints, ListPaths, ListWarnings,
    METHODS, Monitor, OpenSubflow, RemovePath, SetAlgorithms, SetLimits, SummarizeRun,
};
use crate::instance::{Answer, Instance, Next};
use crate::lines::{self, Line};
use crate::message::{Code, EventLine, Failure, MAX_REQUEST, Reply, Request};
use crate::peer::Peer;
use serde::Serialize;
use serde_json::Value;
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How often to look whether a client that watches is still there.
const LOOK: Duration = Duration::from_millis(100);

/// What members of the group may ask for. What is newer is not for them until it is named here.
const FOR_MEMBERS: [&str; 9] = [
    ListConnections::METHOD,
    ListCounters::METHOD,
    ListPaths::METHOD,
    ListEndpoints::METHOD,
    GetLimits::METHOD,
    ListWarnings::METHOD,
    Monitor::METHOD,
    CaptureCaller::METHOD,
    SummarizeRun::METHOD,
];

/// One client.
pub(super) struct Client<'a> {
    shared: &'a Shared,
    stream: BufReader<UnixStream>,
    peer: Peer,
}

/// Why a client is let go of.
enum Over {
    /// It has gone, or takes nothing.
    Gone,
    /// It is told why.
    Told(Option<u64>, Failure),
}

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Over {
        Over::Gone
    }
}

impl<'a> Client<'a> {
    pub(super) fn new(shared: &'a Shared, stream: UnixStream, peer: Peer) -> Self {
        Client { shared, stream: BufReader::new(stream), peer }
    }

    /// Answers until one of the two ends it.
    pub(super) fn serve(mut self) {
        if let Err(Over::Told(id, failure)) = self.converse() {
            // Whoever does not read that either has gone.
            let _ = send(self.stream.get_ref(), &Reply { id, error: Some(failure), ..Reply::default() });
        }
    }

    fn converse(&mut self) -> Result<(), Over> {
        send(self.stream.get_ref(), &self.shared.greeting)?;
        loop {
            let line = match lines::read(&mut self.stream, MAX_REQUEST)? {
                Line::Text(line) => line,
                Line::TooLong => {
                    let text = format!("a request may have at most {MAX_REQUEST} bytes");
                    return Err(Over::Told(None, Failure::new(Code::TooLong, text)));
                }
                Line::End => return Err(Over::Gone),
            };
            let reply = match read_request(&line) {
                Ok(request) if request.method == Monitor::METHOD => return self.monitor(request.id),
                Ok(Request { id, method, params }) => match self.answer(&method, params) {
                    Ok(result) => Reply { id: Some(id), result: Some(result), error: None },
                    Err(failure) => Reply { id: Some(id), result: None, error: Some(failure) },
                },
                Err((id, failure)) => Reply { id, result: None, error: Some(failure) },
            };
            send(self.stream.get_ref(), &reply)?;
        }
    }

    /// Does what is asked for, if this client may ask for it.
    fn answer(&self, method: &str, params: Value) -> Answer<Value> {
        let steers = METHODS.contains(&method) && !FOR_MEMBERS.contains(&method);
        if steers && !self.shared.is_owner(&self.peer) {
            let text = format!("{method:?} is for root: members of the group may look, and run programs");
            return Err(Failure::new(Code::Denied, text));
        }
        answer(&*self.shared.instance, &self.peer, method, params)
    }

    /// Tells what happens, until the client ends it.
    fn monitor(&mut self, id: u64) -> Result<(), Over> {
        let mut events = self.shared.instance.events().map_err(|failure| Over::Told(Some(id), failure))?;
        let done = serde_json::to_value(Done {}).unwrap_or_default();
        send(self.stream.get_ref(), &Reply { id: Some(id), result: Some(done), error: None })?;
        loop {
            if self.shared.is_stopping() {
                return Err(ending(id));
            }
            match events.next(LOOK) {
                Next::Event(event) => self.tell(&EventLine { id, event: *event })?,
                Next::Nothing => self.check_presence(id)?,
                Next::End => return Err(ending(id)),
            }
        }
    }

    /// Sends an event. A client that takes none for long is told so in its place.
    fn tell(&mut self, event: &EventLine) -> Result<(), Over> {
        let line = line(event);
        let mut to = self.stream.get_ref();
        let mut written = 0;
        while written < line.len() {
            match to.write(&line[written..]) {
                Ok(0) => return Err(Over::Gone),
                Ok(n) => written += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    // What has been begun is brought to its end, so that the message is a line.
                    to.write_all(&line[written..])?;
                    let text = format!("the events were not read for {:?}", self.shared.options.slow);
                    return Err(Over::Told(Some(event.id), Failure::new(Code::TooSlow, text)));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// A client that watches sends nothing; when it closes, its end shows here.
    fn check_presence(&mut self, id: u64) -> Result<(), Over> {
        let mut stream = self.stream.get_ref();
        let waiting = !self.stream.buffer().is_empty();
        stream.set_nonblocking(true)?;
        let seen = stream.read(&mut [0]);
        stream.set_nonblocking(false)?;
        match seen {
            Err(error) if error.kind() == ErrorKind::WouldBlock && !waiting => Ok(()),
            Ok(0) if self.shared.is_stopping() => Err(ending(id)),
            Ok(0) => Err(Over::Gone),
            Ok(_) | Err(_) => {
                let text = "a connection that monitors takes no other request: open another";
                Err(Over::Told(Some(id), Failure::new(Code::BadRequest, text)))
            }
        }
    }
}

fn ending(id: u64) -> Over {
    Over::Told(Some(id), Failure::new(Code::Ending, "the instance ends"))
}

/// What a line asks for. An error comes with the request's id as far as there is one.
fn read_request(line: &[u8]) -> Result<Request, (Option<u64>, Failure)> {
    let bad = |id, why: String| (id, Failure::new(Code::BadRequest, format!("not a request: {why}")));
    let value: Value = serde_json::from_slice(line).map_err(|e| bad(None, e.to_string()))?;
    let id = value.get("id").and_then(Value::as_u64);
    serde_json::from_value(value).map_err(|e| bad(id, e.to_string()))
}

/// Does what is asked for.
fn answer(instance: &dyn Instance, peer: &Peer, method: &str, params: Value) -> Answer<Value> {
    match method {
        ListConnections::METHOD => with(params, |_: &ListConnections| instance.connections()),
        ListCounters::METHOD => with(params, |_: &ListCounters| instance.counters()),
        ListPaths::METHOD => with(params, |_: &ListPaths| instance.paths()),
        ListEndpoints::METHOD => with(params, |_: &ListEndpoints| instance.endpoints()),
        AddEndpoint::METHOD => with(params, |c: &AddEndpoint| instance.add_endpoint(c)),
        DeleteEndpoint::METHOD => with(params, |c: &DeleteEndpoint| instance.delete_endpoint(c)),
        ChangeEndpoint::METHOD => with(params, |c: &ChangeEndpoint| instance.change_endpoint(c)),
        FlushEndpoints::METHOD => with(params, |c: &FlushEndpoints| instance.flush_endpoints(c)),
        GetLimits::METHOD => with(params, |_: &GetLimits| instance.limits()),
        SetLimits::METHOD => with(params, |c: &SetLimits| instance.set_limits(c)),
        ListWarnings::METHOD => with(params, |_: &ListWarnings| instance.warnings()),
        AddPath::METHOD => with(params, |c: &AddPath| instance.add_path(c)),
        RemovePath::METHOD => with(params, |c: &RemovePath| instance.remove_path(c)),
        OpenSubflow::METHOD => with(params, |c: &OpenSubflow| instance.open_subflow(c)),
        CloseSubflow::METHOD => with(params, |c: &CloseSubflow| instance.close_subflow(c)),
        SetAlgorithms::METHOD => with(params, |c: &SetAlgorithms| instance.set_algorithms(c)),
        CaptureCaller::METHOD => with(params, |c: &CaptureCaller| instance.capture_caller(c, peer)),
        SummarizeRun::METHOD => with(params, |c: &SummarizeRun| instance.summarize_run(c)),
        _ => {
            let text = format!("unknown method {method:?}; known: {}", METHODS.join(", "));
            Err(Failure::new(Code::UnknownMethod, text))
        }
    }
}

/// Reads the parameters of a call, makes it, and writes its reply.
fn with<C: Call>(params: Value, call: impl FnOnce(&C) -> Answer<C::Reply>) -> Answer<Value> {
    let params = if params.is_null() { Value::Object(Default::default()) } else { params };
    let parameters: C = serde_json::from_value(params).map_err(|e| {
        Failure::new(Code::BadParameters, format!("the parameters do not fit {:?}: {e}", C::METHOD))
    })?;
    let reply = call(&parameters)?;
    serde_json::to_value(reply).map_err(|e| Failure::new(Code::Failed, e.to_string()))
}

/// Sends a line. An error: the client has gone, or has taken nothing for long.
pub(super) fn send(mut to: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    to.write_all(&line(message))
}

fn line(message: &impl Serialize) -> Vec<u8> {
    // None of the messages has a map whose keys are no strings, so this does not fail.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

//! The side of tools.

use crate::call::{Call, Monitor};
use crate::error::ControlError;
use crate::lines::{self, Line};
use crate::message::{EventLine, Greeting, MAX_REPLY, PROTOCOL, Reply, Request, VERSION};
use crate::peer::Peer;
use crate::state::Event;
use serde_json::Value;
use std::io::{self, BufReader, ErrorKind, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an answer may take. Setting up a path takes seconds where the host is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the greeting may take, which waits for nothing but a thread of the instance's.
const GREETING: Duration = Duration::from_secs(10);

/// A connection to an instance. Its calls wait for the answer.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
    greeting: Greeting,
    next: u64,
}

impl Client {
    /// Connects to the instance at that socket.
    ///
    /// # Errors
    /// When nobody answers there, or something that does not speak the protocol. [`ControlError::Silent`] after ten
    /// seconds, when a process listens there and does nothing.
    pub fn connect(socket: &Path) -> Result<Client, ControlError> {
        let failed = |source| ControlError::Socket { path: socket.to_owned(), source };
        let stream = UnixStream::connect(socket).map_err(failed)?;
        stream.set_read_timeout(Some(GREETING)).map_err(failed)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
        let mut stream = BufReader::new(stream);
        let line = next_line(&mut stream, socket).map_err(|error| match error {
            ControlError::Socket { path, source } if source.kind() == ErrorKind::WouldBlock => {
                ControlError::Silent { path, process: Peer::of(stream.get_ref()).process }
            }
            other => other,
        })?;
        stream.get_ref().set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        let wrong = |why: String| ControlError::Protocol { path: socket.to_owned(), why };
        if let Ok(Reply { error: Some(refused), .. }) = serde_json::from_slice(&line) {
            return Err(refused.into());
        }
        let greeting: Greeting =
            serde_json::from_slice(&line).map_err(|e| wrong(format!("it did not greet: {e}")))?;
        if greeting.protocol != PROTOCOL {
            return Err(wrong(format!("it speaks {:?}", greeting.protocol)));
        }
        if greeting.version != VERSION {
            return Err(wrong(format!("it speaks version {}, this program {VERSION}", greeting.version)));
        }
        Ok(Client { stream, path: socket.to_owned(), greeting, next: 1 })
    }

    /// What the instance said of itself.
    pub fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// Makes a call and waits for its answer.
    ///
    /// # Errors
    /// [`ControlError::Refused`] when the instance did not do it; otherwise when it has ended or does not
    /// answer.
    pub fn call<C: Call>(&mut self, call: &C) -> Result<C::Reply, ControlError> {
        let value = self.request(C::METHOD, call)?;
        serde_json::from_value(value).map_err(|e| self.wrong(format!("its reply to {}: {e}", C::METHOD)))
    }

    /// Has the instance tell what happens from now on.
    ///
    /// # Errors
    /// As for [`call`](Self::call).
    pub fn monitor(mut self) -> Result<Subscription, ControlError> {
        let id = self.next;
        self.call(&Monitor {})?;
        // Nothing may happen for days.
        let unlimited = self.stream.get_ref().set_read_timeout(None);
        unlimited.map_err(|source| ControlError::Socket { path: self.path.clone(), source })?;
        Ok(Subscription { client: self, id, ended: false })
    }

    fn request<C: Call>(&mut self, method: &str, call: &C) -> Result<Value, ControlError> {
        let id = self.next;
        self.next += 1;
        let params = serde_json::to_value(call).map_err(|e| self.wrong(e.to_string()))?;
        let request = Request { id, method: method.to_owned(), params };
        let mut line = serde_json::to_vec(&request).map_err(|e| self.wrong(e.to_string()))?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(|source| self.io(source))?;
        let line = next_line(&mut self.stream, &self.path)?;
        let reply: Reply = serde_json::from_slice(&line).map_err(|e| self.wrong(e.to_string()))?;
        match reply {
            Reply { error: Some(failure), .. } => Err(failure.into()),
            Reply { id: Some(of), result: Some(result), .. } if of == id => Ok(result),
            _ => Err(self.wrong(format!("its reply is not one to request {id}"))),
        }
    }

    fn wrong(&self, why: String) -> ControlError {
        ControlError::Protocol { path: self.path.clone(), why }
    }

    fn io(&self, source: io::Error) -> ControlError {
        io_error(&self.path, source)
    }
}

fn io_error(path: &Path, source: io::Error) -> ControlError {
    match source.kind() {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => ControlError::Ended,
        _ => ControlError::Socket { path: path.to_owned(), source },
    }
}

fn next_line(stream: &mut BufReader<UnixStream>, path: &Path) -> Result<Vec<u8>, ControlError> {
    match lines::read(stream, MAX_REPLY) {
        Ok(Line::Text(line)) => Ok(line),
        Ok(Line::End) => Err(ControlError::Ended),
        Ok(Line::TooLong) => {
            Err(ControlError::Protocol { path: path.to_owned(), why: "a line has no end".to_owned() })
        }
        Err(source) => Err(io_error(path, source)),
    }
}

/// What happens in an instance. As an iterator, it ends after the first error; [`ControlError::Ended`] is how
/// it ends when the instance does.
#[derive(Debug)]
pub struct Subscription {
    client: Client,
    id: u64,
    ended: bool,
}

impl Subscription {
    /// Something that ends it from another thread.
    ///
    /// # Errors
    /// When the process has too many descriptors.
    pub fn stopper(&self) -> io::Result<impl FnOnce() + Send + 'static> {
        let stream = self.client.stream.get_ref().try_clone()?;
        Ok(move || {
            // It may have ended.
            let _ = stream.shutdown(Shutdown::Both);
        })
    }

    fn recv(&mut self) -> Result<Event, ControlError> {
        let line = next_line(&mut self.client.stream, &self.client.path)?;
        match serde_json::from_slice(&line) {
            Ok(EventLine { id, event }) if id == self.id => return Ok(event),
            _ => {}
        }
        match serde_json::from_slice(&line) {
            Ok(Reply { error: Some(failure), .. }) => Err(failure.into()),
            _ => Err(self.client.wrong("a line is no event".to_owned())),
        }
    }
}

impl Iterator for Subscription {
    type Item = Result<Event, ControlError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.recv();
        self.ended = next.is_err();
        Some(next)
    }
}

//! The thread that owns the stack: carries out what applications ask for, and moves bytes between them and the stack.

mod connections;
mod listeners;

use crate::copies::CopyPool;
use crate::nics::Nics;
use connections::Entry;
use crossbeam_channel::{Receiver, Sender};
use listeners::ListenerEntry;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;
use umptcp_stack_core::Stack;
use umptcp_stack_core::config::{ConnectionConfig, StackConfig};
use umptcp_stack_core::error::ConnectionError;
use umptcp_stack_core::event::Event;
use umptcp_tun_driver::clock::Clock;
use umptcp_tun_driver::event_loop::{self, AttachedPath, Guard, Handler, Waker};
use umptcp_types::{ConnectionId, Instant, ListenerId, PathId};

pub(crate) use listeners::{Accepted, ListenerShared};

/// What a handler may use.
pub(crate) type Context<'a> = event_loop::Context<'a, Stack>;

/// Something to be run on the worker's thread.
type Job = Box<dyn FnOnce(&mut Worker, &mut Context<'_>) + Send>;

/// What applications send to the worker.
pub(crate) enum Command {
    /// There is something to do for this connection: bytes to send, room to receive, a direction to close.
    Look(ConnectionId),
    /// The last handle of a connection is gone.
    Close(ConnectionId),
    /// A listener's queue has room again.
    Refill(ListenerId),
    /// The listener is gone.
    Unlisten(ListenerId),
    /// Anything that is not done often.
    Run(Job),
}

/// How often to look whether the last connections are done, while the stack is being stopped.
const LINGER_CHECK: Duration = Duration::from_millis(5);

/// Closed connections noted before those that have ended since are looked for.
const FEW_ORPHANS: usize = 64;

/// Being stopped.
struct Stopping {
    deadline: Instant,
    next_check: Instant,
    /// What remained was aborted: the resets have yet to leave.
    aborted: bool,
}

/// The worker's state; the stack itself comes with each call.
pub(crate) struct Worker {
    commands: Receiver<Command>,
    /// For the names of algorithms that there are.
    names: StackConfig,
    connections: HashMap<ConnectionId, Entry>,
    listeners: HashMap<ListenerId, ListenerEntry>,
    /// Connections that nobody holds any more and the stack may still be delivering.
    orphans: Vec<ConnectionId>,
    orphans_checked_at: usize,
    path_names: HashMap<PathId, String>,
    stopping: Option<Stopping>,
    /// How long readers look for data before they sleep.
    spin: Duration,
    /// Reused for what is received at once.
    batch: Vec<bytes::Bytes>,
}

impl Worker {
    pub(crate) fn new(commands: Receiver<Command>, names: StackConfig, spin: Duration) -> Self {
        Worker {
            commands,
            names,
            connections: HashMap::new(),
            listeners: HashMap::new(),
            orphans: Vec::new(),
            orphans_checked_at: FEW_ORPHANS,
            path_names: HashMap::new(),
            stopping: None,
            spin,
            batch: Vec::new(),
        }
    }

    /// A path's name, for reports.
    pub(crate) fn path_name(&self, path: PathId) -> String {
        self.path_names.get(&path).cloned().unwrap_or_default()
    }

    /// Begins to stop: every connection is closed, gets up to `linger` to deliver what was written, and is then aborted.
    pub(crate) fn stop(&mut self, cx: &mut Context<'_>, linger: Duration) {
        let deadline = cx.now + linger;
        if let Some(stopping) = &mut self.stopping {
            stopping.deadline = stopping.deadline.min(deadline);
            return;
        }
        self.stopping = Some(Stopping { deadline, next_check: cx.now, aborted: false });
        let listeners: Vec<ListenerId> = self.listeners.keys().copied().collect();
        for id in listeners {
            self.unlisten(cx, id);
        }
        let connections: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in connections {
            self.finish(cx, id);
        }
    }

    /// Whether everything is over, when the stack is being stopped.
    fn stopped(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(stopping) = &mut self.stopping else { return false };
        if stopping.aborted {
            return true;
        }
        self.orphans.retain(|id| cx.engine.info(*id).is_some());
        if self.connections.is_empty() && self.orphans.is_empty() {
            return true;
        }
        stopping.next_check = cx.now + LINGER_CHECK;
        if cx.now >= stopping.deadline {
            stopping.aborted = true;
            for (id, entry) in self.connections.drain() {
                cx.engine.abort(cx.now, id);
                entry.shared.fail(ConnectionError::Aborted);
            }
            for id in self.orphans.drain(..) {
                cx.engine.abort(cx.now, id);
            }
        }
        false
    }

    /// Remembers a connection that was closed, so that stopping can wait for it.
    fn add_orphan(&mut self, cx: &mut Context<'_>, id: ConnectionId) {
        self.orphans.push(id);
        if self.orphans.len() >= self.orphans_checked_at {
            self.orphans.retain(|id| cx.engine.info(*id).is_some());
            self.orphans_checked_at = FEW_ORPHANS.max(2 * self.orphans.len());
        }
    }
}

impl Handler<Stack> for Worker {
    fn on_wake(&mut self, cx: &mut Context<'_>) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Look(id) => self.look(cx, id),
                Command::Close(id) => self.detach(cx, id),
                Command::Refill(id) => self.refill(cx, id),
                Command::Unlisten(id) => self.unlisten(cx, id),
                Command::Run(job) => job(self, cx),
            }
        }
    }

    fn on_event(&mut self, cx: &mut Context<'_>, event: Event) {
        match event {
            Event::Incoming { listener, incoming, complete, .. } => {
                self.incoming(cx, listener, incoming, complete);
            }
            Event::Connected { connection } => self.connected(cx, connection),
            Event::Readable { connection } => self.receive(cx, connection),
            Event::Writable { connection } => self.send(cx, connection),
            Event::Closed { connection, error } => self.ended(cx, connection, error),
            Event::FellBack { connection, reason } => {
                tracing::debug!(%connection, %reason, "fell back to TCP");
            }
            Event::SubflowEstablished { connection, subflow, path } => {
                tracing::debug!(%connection, %subflow, path = self.path_names.get(&path), "subflow established");
            }
            Event::SubflowClosed { connection, subflow, error, reset } => {
                let error = error.as_ref().map(tracing::field::display);
                let reset = reset.as_ref().map(tracing::field::display);
                tracing::debug!(%connection, %subflow, error, reset, "subflow closed");
            }
            Event::JoinFailed { connection, subflow, path, remote, error, reset } => {
                let reset = reset.as_ref().map(tracing::field::display);
                let path = self.path_names.get(&path);
                tracing::debug!(%connection, %subflow, path, %remote, %error, reset, "join failed");
            }
        }
    }

    fn on_path_lost(&mut self, _cx: &mut Context<'_>, path: PathId, error: io::Error, guard: Guard) {
        let name = self.path_names.remove(&path);
        tracing::warn!(path = name, %error, "path lost");
        // Undoing a set-up talks to the kernel at length; other connections must not wait for it.
        let undo = std::thread::Builder::new().name("umptcp-undo".into());
        if let Err(error) = undo.spawn(move || drop(guard)) {
            tracing::error!(%error, "cannot undo the set-up of a path in the background");
        }
    }

    fn after_poll(&mut self, cx: &mut Context<'_>) {
        if self.stopping.is_some() && self.stopped(cx) {
            cx.stop();
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let stopping = self.stopping.as_ref()?;
        Some(if stopping.aborted { Instant::ZERO } else { stopping.next_check.min(stopping.deadline) })
    }
}

impl Drop for Worker {
    /// However the worker ends, nobody may wait for it.
    fn drop(&mut self) {
        for entry in self.connections.values() {
            entry.shared.fail(ConnectionError::Aborted);
        }
        for listener in self.listeners.values() {
            listener.shared.close();
        }
    }
}

/// How applications' threads reach the worker.
#[derive(Clone)]
pub(crate) struct Handle {
    commands: Sender<Command>,
    waker: Waker,
    pub(crate) clock: Clock,
    pub(crate) defaults: Arc<ConnectionConfig>,
    pub(crate) copies: Arc<CopyPool>,
    /// Weak, for streams must not keep a stack's paths that is no more.
    pub(crate) nics: Weak<Nics>,
}

impl Handle {
    pub(crate) fn new(
        commands: Sender<Command>,
        waker: Waker,
        clock: Clock,
        defaults: ConnectionConfig,
        nics: Weak<Nics>,
    ) -> Self {
        Handle { commands, waker, clock, defaults: Arc::new(defaults), copies: Arc::default(), nics }
    }

    /// Gives a path to the stack.
    pub(crate) fn add_path(&self, path: AttachedPath) -> io::Result<PathId> {
        let name = path.config.name.clone();
        self.call(move |worker, cx| {
            let id = cx.add_path(path)?;
            worker.path_names.insert(id, name);
            Ok(id)
        })?
    }

    /// Takes a path from the stack; `None` when there is no such path.
    pub(crate) fn remove_path(&self, path: PathId) -> io::Result<Option<AttachedPath>> {
        Ok(self.call(move |worker, cx| {
            worker.path_names.remove(&path);
            cx.remove_path(path)
        })?)
    }

    /// Sends a command. One that the worker does not live to see is of no account: it has failed everybody by then.
    pub(crate) fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            self.waker.wake();
        }
    }

    /// Runs `job` on the worker's thread and waits for its result.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Worker, &mut Context<'_>) -> T + Send + 'static,
    ) -> Result<T, crate::Error> {
        let (tx, rx) = crossbeam_channel::bounded(1);
        self.send(Command::Run(Box::new(move |worker, cx| {
            // The caller may have gone: nobody to tell.
            let _ = tx.send(job(worker, cx));
        })));
        rx.recv().map_err(|_| crate::Error::Stopped)
    }

    /// Tells the worker that there is something to do for a connection, unless it knows.
    pub(crate) fn look(&self, id: ConnectionId, tell: bool) {
        if tell {
            self.send(Command::Look(id));
        }
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

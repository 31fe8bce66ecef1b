//! The side of an instance.

mod serve;

use crate::directory;
use crate::error::ControlError;
use crate::instance::Instance;
use crate::message::{Code, Failure, Greeting, Kind, PROTOCOL, Reply, VERSION};
use crate::peer::Peer;
use crate::socket::{self, Bound};
use nix::unistd::geteuid;
use serve::{Client, send};
use socket2::SockRef;
use std::collections::HashMap;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long calls that are under way get to end when the server is dropped.
const ENDING: Duration = Duration::from_secs(2);

/// How long to wait when no connection can be taken, for lack of descriptors or memory.
const BREATH: Duration = Duration::from_millis(100);

/// How a server is made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerOptions {
    /// Where to make the socket; `None`: in the first of [`directory::candidates`] that can be used.
    pub directory: Option<PathBuf>,
    /// The user who may speak to it, beside root; `None`: the one who runs this process.
    pub owner: Option<u32>,
    /// The group whose members may look, and have themselves captured (`run`), but not steer.
    pub group: Option<u32>,
    /// Most clients at once; at most half of them are members of the group only, and a quarter one user of these.
    pub max_clients: usize,
    /// A client that takes nothing for so long is dropped; what it is told of that must be taken within as
    /// long again.
    pub slow: Duration,
    /// Version of the program, for the greeting.
    pub software: String,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions {
            directory: None,
            owner: None,
            group: None,
            max_clients: 64,
            slow: Duration::from_secs(5),
            software: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

impl ServerOptions {
    /// With the socket in this directory.
    #[must_use]
    pub fn directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.directory = Some(path.into());
        self
    }

    /// For this user.
    #[must_use]
    pub fn owner(mut self, user: Option<u32>) -> Self {
        self.owner = user;
        self
    }

    /// For the members of this group, too.
    #[must_use]
    pub fn group(mut self, group: Option<u32>) -> Self {
        self.group = group;
        self
    }

    /// With at most so many clients.
    #[must_use]
    pub fn max_clients(mut self, most: usize) -> Self {
        self.max_clients = most;
        self
    }

    /// With this patience for slow clients.
    #[must_use]
    pub fn slow(mut self, limit: Duration) -> Self {
        self.slow = limit;
        self
    }
}

/// Lets an instance be spoken to, until it is dropped: then its socket is removed and its clients are let go
/// of.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    bound: Option<Bound>,
    path: PathBuf,
    listener: Arc<UnixListener>,
    thread: Option<JoinHandle<()>>,
}

/// What the threads of a server share.
struct Shared {
    instance: Arc<dyn Instance>,
    greeting: Greeting,
    options: ServerOptions,
    stopping: AtomicBool,
    clients: Mutex<HashMap<u64, Present>>,
    /// A client has gone.
    gone: Condvar,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("greeting", &self.greeting).finish_non_exhaustive()
    }
}

impl Server {
    /// Begins to serve, with the default options.
    ///
    /// # Errors
    /// When an instance of that name runs, or the socket cannot be made.
    pub fn start(name: &str, kind: Kind, instance: Arc<dyn Instance>) -> Result<Server, ControlError> {
        Self::start_with(name, kind, instance, ServerOptions::default())
    }

    /// Begins to serve.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn start_with(
        name: &str,
        kind: Kind,
        instance: Arc<dyn Instance>,
        options: ServerOptions,
    ) -> Result<Server, ControlError> {
        let directory = match &options.directory {
            Some(path) => directory::usable(std::slice::from_ref(path))?,
            None => directory::usable(&directory::candidates())?,
        };
        // Before our own is there: looking takes a client's place for a moment.
        for line in directory::remove_dead_in(std::slice::from_ref(&directory)) {
            tracing::debug!("{line}");
        }
        let (bound, listener) = socket::bind(&directory, name, (options.owner, options.group))?;
        let greeting = Greeting {
            protocol: PROTOCOL.to_owned(),
            version: VERSION,
            name: name.to_owned(),
            pid: std::process::id(),
            kind,
            software: options.software.clone(),
        };
        let shared = Arc::new(Shared {
            instance,
            greeting,
            options,
            stopping: AtomicBool::new(false),
            clients: Mutex::default(),
            gone: Condvar::new(),
        });
        let path = bound.path().to_owned();
        let listener = Arc::new(listener);
        let (from, to) = (listener.clone(), shared.clone());
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || to.accept(&from))
            .map_err(|source| ControlError::Socket { path: path.clone(), source })?;
        Ok(Server { shared, bound: Some(bound), path, listener, thread: Some(thread) })
    }

    /// The name of the instance.
    pub fn name(&self) -> &str {
        &self.shared.greeting.name
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.bound = None;
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Accepting ends.
        let _ = SockRef::from(&*self.listener).shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.shared.let_go();
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &UnixListener) {
        for number in 0.. {
            let accepted = listener.accept();
            if self.is_stopping() {
                return;
            }
            match accepted {
                Ok((stream, _)) => self.take(number, stream),
                Err(error) => {
                    tracing::debug!(%error, "no control connection can be taken");
                    std::thread::sleep(BREATH);
                }
            }
        }
    }

    /// Serves a client on a thread of its own.
    fn take(self: &Arc<Self>, number: u64, stream: UnixStream) {
        let limits = stream.set_write_timeout(Some(self.options.slow));
        let Ok(copy) = limits.and_then(|()| stream.try_clone()) else { return };
        let peer = Peer::of(&stream);
        let member = (!self.is_owner(&peer)).then_some(peer.user);
        {
            let mut clients = self.clients();
            if let Err(text) = self.has_room(&clients, member) {
                drop(clients);
                let failure = Failure::new(Code::TooManyClients, text);
                // One line always has room in a new socket.
                let _ = send(&stream, &Reply { error: Some(failure), ..Reply::default() });
                return;
            }
            clients.insert(number, Present { stream: copy, member });
        }
        let place = Place { shared: self.clone(), number };
        let serve = move || Client::new(&place.shared, stream, peer).serve();
        if let Err(error) = std::thread::Builder::new().name("control-client".to_owned()).spawn(serve) {
            tracing::debug!(%error, "no thread for a control connection");
        }
    }

    /// Members of the group leave room for the owner, and for each other.
    fn has_room(&self, clients: &HashMap<u64, Present>, member: Option<Option<u32>>) -> Result<(), String> {
        let most = self.options.max_clients;
        if clients.len() >= most {
            return Err(format!("the instance has {most} clients already"));
        }
        let Some(user) = member else { return Ok(()) };
        let (all, one) = (most.div_ceil(2), most.div_ceil(4));
        if clients.values().filter(|c| c.member.is_some()).count() >= all {
            return Err(format!("the instance has {all} clients of the group already"));
        }
        if clients.values().filter(|c| c.member == Some(user)).count() >= one {
            return Err(format!("the instance has {one} clients of this user already"));
        }
        Ok(())
    }

    /// Whether somebody may steer, not only look. Whoever is not known has come past the socket's mode.
    fn is_owner(&self, peer: &Peer) -> bool {
        let owners = [Some(0), Some(geteuid().as_raw()), self.options.owner];
        self.options.group.is_none() || (peer.user.is_some() && owners.contains(&peer.user))
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Ends all clients, and waits until calls that are under way are over.
    fn let_go(&self) {
        let end = Instant::now() + ENDING;
        let mut clients = self.clients();
        for client in clients.values() {
            // What has been written still arrives.
            let _ = client.stream.shutdown(Shutdown::Read);
        }
        while !clients.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            clients = self.gone.wait_timeout(clients, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        for client in clients.values() {
            let _ = client.stream.shutdown(Shutdown::Both);
        }
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<u64, Present>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client that is there.
struct Present {
    stream: UnixStream,
    /// The user, if it is one of those who may only look.
    member: Option<Option<u32>>,
}

/// The place of a client, until this is dropped.
struct Place {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.clients().remove(&self.number);
        self.shared.gone.notify_all();
    }
}

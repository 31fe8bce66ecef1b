//! What a device waits for where descriptors cannot be nested: the sockets that it has, each of them.

use mio::event::Source;
use mio::{Interest, Registry, Token};
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The sockets that an event loop waits for, of all its devices.
#[derive(Debug)]
struct Shared {
    registry: Registry,
    tokens: Mutex<Tokens>,
}

#[derive(Debug, Default)]
struct Tokens {
    last: usize,
    /// The devices that they are of, by the numbers of their paths.
    paths: HashMap<usize, u32>,
}

/// What an event loop waits for on behalf of one device.
#[derive(Clone, Debug)]
pub struct Sources {
    shared: Arc<Shared>,
    path: u32,
}

impl Sources {
    /// Of no device: for the loop itself.
    pub(crate) fn new(registry: Registry) -> Sources {
        Sources { shared: Arc::new(Shared { registry, tokens: Mutex::default() }), path: u32::MAX }
    }

    /// For the device of this path.
    pub(crate) fn of(&self, path: u32) -> Sources {
        Sources { shared: Arc::clone(&self.shared), path }
    }

    /// The path of a socket that something has happened to.
    pub(crate) fn path(&self, token: usize) -> Option<u32> {
        self.tokens().paths.get(&token).copied()
    }

    fn tokens(&self) -> MutexGuard<'_, Tokens> {
        self.shared.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the loop wait until a socket can be read, or written to after it could not. Returns the token that
    /// [`Device::is_readable`](super::Device::is_readable) tells of it with.
    ///
    /// # Errors
    /// Those of the system.
    pub fn add(&self, socket: &mut impl Source) -> io::Result<usize> {
        let mut tokens = self.tokens();
        tokens.last += 1;
        let token = tokens.last;
        self.shared.registry.register(socket, Token(token), Interest::READABLE | Interest::WRITABLE)?;
        tokens.paths.insert(token, self.path);
        Ok(token)
    }

    /// The loop does not wait for a socket any more.
    pub fn remove(&self, socket: &mut impl Source, token: usize) {
        // It is closed soon, and not waited for then either.
        let _ = self.shared.registry.deregister(socket);
        self.tokens().paths.remove(&token);
    }
}

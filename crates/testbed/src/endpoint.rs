//! Hosts that can listen and connect with any stack, and transfers between two of them.

use crate::exchange::{Conversation, Ongoing, Seeded, Verdict, exchange, exchange_ongoing};
use crate::kernel::{KernelListener, KernelStream, Kind};
use crate::netns::Netns;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// A stack on some host.
pub trait Endpoint: Sync {
    /// Listens on `local`, an address that clients connect to.
    ///
    /// # Errors
    /// What the stack reports.
    fn listen(&self, local: SocketAddr) -> io::Result<Box<dyn Listener>>;

    /// Connects to `remote`.
    ///
    /// # Errors
    /// What the stack reports.
    fn connect(&self, remote: SocketAddr) -> io::Result<Box<dyn Conversation>>;
}

/// Accepts connections.
pub trait Listener: Send + Sync {
    /// Waits for one.
    ///
    /// # Errors
    /// What the stack reports.
    fn accept(&self) -> io::Result<Box<dyn Conversation>>;
}

/// The kernel of a namespace.
#[derive(Clone, Debug)]
pub struct KernelHost {
    ns: Netns,
    kind: Kind,
    fast_open: bool,
}

impl KernelHost {
    /// Sockets of kind `kind` in `ns`.
    pub fn new(ns: &Netns, kind: Kind) -> Self {
        KernelHost { ns: ns.clone(), kind, fast_open: false }
    }

    /// The same, connecting with Fast Open.
    pub fn with_fast_open(self) -> Self {
        KernelHost { fast_open: true, ..self }
    }
}

impl Endpoint for KernelHost {
    fn listen(&self, local: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(self.ns.run(|| KernelListener::bind(local, self.kind))?))
    }

    fn connect(&self, remote: SocketAddr) -> io::Result<Box<dyn Conversation>> {
        let connect = if self.fast_open { KernelStream::connect_fast_open } else { KernelStream::connect };
        Ok(Box::new(self.ns.run(|| connect(remote, self.kind))?))
    }
}

impl Listener for KernelListener {
    fn accept(&self) -> io::Result<Box<dyn Conversation>> {
        Ok(Box::new(KernelListener::accept(self)?))
    }
}

/// The two ends of a connection.
pub struct Pair {
    /// The end that connected.
    pub client: Box<dyn Conversation>,
    /// The end that accepted.
    pub server: Box<dyn Conversation>,
    /// The listener that accepted it. The Linux kernel accepts joins only while the listener is open.
    pub listener: Box<dyn Listener>,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pair")
    }
}

/// Connects `client` to `server`, which listens on `address`.
///
/// # Panics
/// When either reports an error.
pub fn connect(client: &dyn Endpoint, server: &dyn Endpoint, address: SocketAddr) -> Pair {
    let listener = server.listen(address).unwrap_or_else(|e| panic!("cannot listen on {address}: {e}"));
    let (client, server) = thread::scope(|scope| {
        let accepting = scope.spawn(|| listener.accept());
        let client = client.connect(address).unwrap_or_else(|e| panic!("cannot connect to {address}: {e}"));
        let server = accepting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (client, server.unwrap_or_else(|e| panic!("cannot accept on {address}: {e}")))
    });
    Pair { client, server, listener }
}

/// Seeds of the two directions.
const TO_SERVER: u64 = 0x0075_6d70;
const TO_CLIENT: u64 = 0x7463_7000;

impl Pair {
    /// Sends `length` seeded random bytes in each direction at the same time, to the end of both streams.
    ///
    /// # Panics
    /// When a byte differs or is missing, or either end reports an error.
    pub fn exchange(&self, length: u64) {
        let to_server = Seeded { seed: TO_SERVER, length };
        let to_client = Seeded { seed: TO_CLIENT, length };
        verdict(
            || exchange(&*self.client, to_server, to_client),
            || exchange(&*self.server, to_client, to_server),
            || (),
        );
    }

    /// The same, while running `meanwhile`: at least `length` bytes, and more until that has come to its end,
    /// which it may be slow to on a busy machine.
    ///
    /// # Panics
    /// When a byte differs or is missing, either end reports an error, or `meanwhile` panics.
    pub fn exchange_while(&self, length: u64, meanwhile: impl FnOnce()) {
        let more = AtomicBool::new(true);
        let to_server = Ongoing::new(TO_SERVER, length, &more);
        let to_client = Ongoing::new(TO_CLIENT, length, &more);
        verdict(
            || exchange_ongoing(&*self.client, &to_server, &to_client),
            || exchange_ongoing(&*self.server, &to_client, &to_server),
            || {
                // Also when it panics: the others are waited for.
                let _end = End(&more);
                meanwhile();
            },
        );
    }
}

/// Tells senders to stop.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Runs both ends and `meanwhile` at the same time, and panics unless all is well.
fn verdict(
    client: impl FnOnce() -> Verdict + Send,
    server: impl FnOnce() -> Verdict + Send,
    meanwhile: impl FnOnce(),
) {
    let (client, server): (Verdict, Verdict) = thread::scope(|scope| {
        let client = scope.spawn(client);
        let server = scope.spawn(server);
        meanwhile();
        let join = |t: thread::ScopedJoinHandle<'_, Verdict>| {
            t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        (join(client), join(server))
    });
    assert!(client.is_ok() && server.is_ok(), "client: {client:?}\nserver: {server:?}");
}

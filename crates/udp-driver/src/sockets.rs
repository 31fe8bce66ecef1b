//! The sockets of a path: one for each local port, bound to the NIC and to an address of it.

#[cfg(any(not(target_os = "linux"), umptcp_portable))]
use crate::portable::watched::{self, Watched};
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
use crate::watched::{self, Watched};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A socket by which nothing was sent for so long is closed if the stack no longer uses its address. Before
/// that, it answers a peer that has not got the last ACK (TIME_WAIT).
const IDLE: Duration = Duration::from_secs(60);

/// The same when there are [`MANY`]: descriptors are scarce.
const IDLE_AMONG_MANY: Duration = Duration::from_secs(5);

/// Sockets that no process lacks the descriptors for.
const MANY: usize = 256;

/// Sockets that a path has at most: each takes a descriptor.
const MOST: usize = 16_384;

/// One socket.
#[derive(Debug)]
pub(crate) struct Local {
    token: u64,
    /// Its address and port as the stack knows them. The port on the wire may be another one.
    pub(crate) address: SocketAddr,
    pub(crate) socket: watched::Socket,
    /// The system has an error of it. Asking costs a call, so nobody does without being told.
    errors: AtomicBool,
    /// Somebody listens on its port.
    listens: AtomicBool,
    /// A packet waits for room in it, which nobody would tell of any more if it were closed (the portable build).
    pub(crate) waits: AtomicBool,
    /// When it was used last, in seconds since the path began.
    used: AtomicU64,
}

impl Local {
    /// Whether the system has told of an error since this was asked last.
    #[cfg(all(target_os = "linux", not(umptcp_portable)))]
    pub(crate) fn has_failed(&self) -> bool {
        self.errors.load(Ordering::Relaxed) && self.errors.swap(false, Ordering::Relaxed)
    }
}

/// All sockets of a path, and what tells which of them have something.
#[derive(Debug)]
pub(crate) struct Sockets {
    device: String,
    pub(crate) watched: Watched,
    start: Instant,
    /// Largest IP packet that the NIC takes, in bytes.
    mtu: AtomicU32,
    /// See [`changes`](Self::changes).
    changes: AtomicU32,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    by_address: HashMap<SocketAddr, Arc<Local>>,
    by_token: HashMap<u64, Arc<Local>>,
    last_token: u64,
    /// Addresses of the NIC that the path has.
    addresses: Vec<IpAddr>,
    /// Ports on which to listen at each of them.
    listening: BTreeSet<u16>,
}

impl Sockets {
    /// For a path over `device` with these addresses and this MTU; without a socket.
    pub(crate) fn new(device: &str, addresses: Vec<IpAddr>, mtu: u32) -> io::Result<Sockets> {
        let table = Mutex::new(Table { addresses, ..Table::default() });
        Ok(Sockets {
            device: device.to_owned(),
            watched: Watched::new()?,
            start: Instant::now(),
            mtu: mtu.into(),
            changes: AtomicU32::new(0),
            table,
        })
    }

    /// Largest IP packet that the NIC takes, in bytes.
    #[cfg(all(target_os = "linux", not(umptcp_portable)))]
    pub(crate) fn mtu(&self) -> u32 {
        self.mtu.load(Ordering::Relaxed)
    }

    pub(crate) fn set_mtu(&self, mtu: u32) {
        self.mtu.store(mtu, Ordering::Relaxed);
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// How often the MTU or the addresses have changed. What the system has refused before, it may do now.
    #[cfg(all(target_os = "linux", not(umptcp_portable)))]
    pub(crate) fn changes(&self) -> u32 {
        self.changes.load(Ordering::Relaxed)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the device looked at again.
    pub(crate) fn wake(&self) {
        self.watched.wake();
    }

    /// Name of the NIC.
    #[cfg(all(target_os = "linux", not(umptcp_portable)))]
    pub(crate) fn device(&self) -> &str {
        &self.device
    }

    /// Has those sockets waited for that there are, and those that there will be.
    #[cfg(any(not(target_os = "linux"), umptcp_portable))]
    pub(crate) fn watch(&self, sources: Option<umptcp_tun_driver::device::Sources>) -> io::Result<()> {
        let table = self.table();
        self.watched.begin(sources, table.by_token.values().map(|local| (&local.socket, local.token)))
    }

    /// Adds those that have something, be it an error, to `ready`. True: what is [watched](Watched::watch) beside
    /// them has something.
    pub(crate) fn ready(&self, ready: &mut impl Extend<Arc<Local>>) -> io::Result<bool> {
        let found = self.watched.ready()?;
        let table = self.table();
        for (token, failed) in found.sockets {
            let local = table.by_token.get(&token);
            if let Some(local) = local.filter(|_| failed) {
                local.errors.store(true, Ordering::Relaxed);
            }
            ready.extend(local.cloned());
        }
        Ok(found.other)
    }

    /// Whether [`ready`](Self::ready) also waits for room in a socket's queue.
    #[cfg(all(target_os = "linux", not(umptcp_portable)))]
    pub(crate) fn watch_room(&self, local: &Local, wanted: bool) {
        let watched = self.watched.watch_room(&local.socket, local.token, wanted);
        // Fails if it has been closed meanwhile. What waits for it is sent by another one.
        if wanted && watched.is_err() {
            self.wake();
        }
    }

    /// Whether the socket has not been closed yet. Nobody tells of room in one that has.
    #[cfg(all(target_os = "linux", not(umptcp_portable)))]
    pub(crate) fn has(&self, local: &Local) -> bool {
        self.table().by_token.contains_key(&local.token)
    }

    /// The socket for a local address of the stack, made if there is none.
    pub(crate) fn get(&self, address: SocketAddr) -> io::Result<Arc<Local>> {
        let mut table = self.table();
        if let Some(local) = table.by_address.get(&address) {
            local.used.store(self.start.elapsed().as_secs(), Ordering::Relaxed);
            return Ok(Arc::clone(local));
        }
        if table.by_address.len() >= MOST {
            return Err(watched::too_many());
        }
        // A program of this host may have the port. The peer and the stack need not agree on it: each takes
        // the one that it sees.
        let socket = match self.bind(address) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => self.bind(SocketAddr::new(address.ip(), 0))?,
            other => other?,
        };
        self.insert(&mut table, address, socket, false)
    }

    fn insert(
        &self,
        table: &mut Table,
        address: SocketAddr,
        socket: watched::Socket,
        listens: bool,
    ) -> io::Result<Arc<Local>> {
        table.last_token += 1;
        let token = table.last_token;
        self.watched.add(&socket, token)?;
        let used = AtomicU64::new(self.start.elapsed().as_secs());
        let local = Arc::new(Local {
            token,
            address,
            socket,
            errors: AtomicBool::new(false),
            listens: AtomicBool::new(listens),
            waits: AtomicBool::new(false),
            used,
        });
        table.by_address.insert(address, Arc::clone(&local));
        table.by_token.insert(token, Arc::clone(&local));
        Ok(local)
    }

    fn bind(&self, address: SocketAddr) -> io::Result<watched::Socket> {
        watched::bind(&self.device, address)
    }

    /// Takes what comes to a port at the NIC's addresses.
    ///
    /// # Errors
    /// When a program of this host has the port at one of them.
    pub(crate) fn listen(&self, port: u16) -> Result<(), (IpAddr, io::Error)> {
        let mut table = self.table();
        for address in table.addresses.clone() {
            let listens = self.listen_at(&mut table, SocketAddr::new(address, port));
            listens.map_err(|error| (address, error))?;
        }
        table.listening.insert(port);
        Ok(())
    }

    fn listen_at(&self, table: &mut Table, address: SocketAddr) -> io::Result<()> {
        if let Some(local) = table.by_address.get(&address).filter(|local| is_at_its_port(local)) {
            local.listens.store(true, Ordering::Relaxed);
            return Ok(());
        }
        let socket = self.bind(address)?;
        if let Some(other) = table.by_address.get(&address).cloned() {
            self.close(table, &other);
        }
        self.insert(table, address, socket, true).map(drop)
    }

    /// Nobody listens on a port any more. What is connected goes on.
    pub(crate) fn unlisten(&self, port: u16) {
        let mut table = self.table();
        table.listening.remove(&port);
        for local in table.by_address.values().filter(|local| local.address.port() == port) {
            local.listens.store(false, Ordering::Relaxed);
        }
    }

    /// Closes sockets that have been idle, unless the stack uses their addresses.
    pub(crate) fn close_unused(&self, used: impl FnOnce() -> HashSet<SocketAddr>) {
        let now = self.start.elapsed().as_secs();
        let many = self.table().by_token.len() > MANY;
        let idle = if many { IDLE_AMONG_MANY } else { IDLE };
        let is_idle = |local: &Local| {
            !local.listens.load(Ordering::Relaxed)
                && !local.waits.load(Ordering::Relaxed)
                && now.saturating_sub(local.used.load(Ordering::Relaxed)) >= idle.as_secs()
        };
        let any = self.table().by_address.values().any(|local| is_idle(local));
        if !any {
            return;
        }
        // Asked without the lock: the answer comes from the thread that needs it.
        let used = used();
        let mut table = self.table();
        let is_unused = |local: &&Arc<Local>| is_idle(local) && !used.contains(&local.address);
        let unused: Vec<Arc<Local>> = table.by_address.values().filter(is_unused).cloned().collect();
        unused.iter().for_each(|local| self.close(&mut table, local));
    }

    /// Closes a socket, as soon as the device has done with it.
    fn close(&self, table: &mut Table, local: &Local) {
        self.watched.remove(&local.socket, local.token);
        table.by_address.remove(&local.address);
        table.by_token.remove(&local.token);
        // The device may wait for room in it.
        self.wake();
    }

    /// The NIC has other addresses now, or is another one of that name: sockets are made anew where that is
    /// so.
    pub(crate) fn move_to(&self, addresses: Vec<IpAddr>, renewed: bool) {
        let mut table = self.table();
        let stays = |local: &Local| !renewed && addresses.contains(&local.address.ip());
        let gone: Vec<Arc<Local>> =
            table.by_address.values().filter(|local| !stays(local)).cloned().collect();
        gone.iter().for_each(|local| self.close(&mut table, local));
        table.addresses = addresses;
        self.changes.fetch_add(1, Ordering::Relaxed);
        for (address, port) in table.pairs() {
            let at = SocketAddr::new(address, port);
            if let Err(error) = self.listen_at(&mut table, at) {
                tracing::warn!(device = self.device, %at, %error, "cannot listen for TCP in UDP");
            }
        }
    }
}

impl Table {
    /// Where to listen.
    fn pairs(&self) -> Vec<(IpAddr, u16)> {
        let of = |address: &IpAddr| self.listening.iter().map(|port| (*address, *port)).collect::<Vec<_>>();
        self.addresses.iter().flat_map(of).collect()
    }
}

/// Its port on the wire is that which the stack knows.
fn is_at_its_port(local: &Local) -> bool {
    local.socket.local_addr().is_ok_and(|bound| bound.port() == local.address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    fn sockets() -> Option<(Sockets, IpAddr)> {
        let address: IpAddr = "127.0.0.1".parse().unwrap();
        UdpSocket::bind((address, 0)).ok()?;
        Some((Sockets::new("lo", vec![address], 65_536).unwrap(), address))
    }

    fn count(sockets: &Sockets) -> usize {
        let table = sockets.table();
        assert_eq!(table.by_token.len(), table.by_address.len());
        table.by_token.len()
    }

    /// As if nothing had been sent for a long time.
    fn age(sockets: &mut Sockets) {
        let earlier = sockets.start.checked_sub(2 * IDLE);
        sockets.start = earlier.expect("a clock that began before the test");
    }

    #[test]
    fn one_socket_for_each_port_until_it_is_unused() {
        let Some((mut sockets, address)) = sockets() else { return };
        let at = |port| SocketAddr::new(address, port);
        let one = sockets.get(at(40_001)).unwrap();
        assert!(Arc::ptr_eq(&one, &sockets.get(at(40_001)).unwrap()));
        sockets.get(at(40_002)).unwrap();
        sockets.close_unused(|| panic!("none is idle"));
        age(&mut sockets);
        sockets.close_unused(|| HashSet::from([at(40_002)]));
        assert_eq!(count(&sockets), 1);
        assert!(!Arc::ptr_eq(&one, &sockets.get(at(40_001)).unwrap()), "made anew");
    }

    #[test]
    fn listening_sockets_stay_and_move_with_the_address() {
        let Some((mut sockets, address)) = sockets() else { return };
        sockets.listen(40_003).unwrap();
        age(&mut sockets);
        sockets.close_unused(HashSet::new);
        assert_eq!(count(&sockets), 1);
        sockets.move_to(Vec::new(), false);
        assert_eq!(count(&sockets), 0);
        sockets.move_to(vec![address], false);
        assert_eq!(count(&sockets), 1);
        let before = sockets.get(SocketAddr::new(address, 40_003)).unwrap();
        sockets.move_to(vec![address], false);
        assert!(Arc::ptr_eq(&before, &sockets.get(before.address).unwrap()), "nothing has changed for it");
        sockets.move_to(vec![address], true);
        assert!(!Arc::ptr_eq(&before, &sockets.get(before.address).unwrap()), "another NIC");
        sockets.unlisten(40_003);
        age(&mut sockets);
        sockets.close_unused(HashSet::new);
        assert_eq!(count(&sockets), 0);
    }
}

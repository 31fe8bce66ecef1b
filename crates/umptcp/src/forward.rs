//! Capture: the connections of programs that know nothing of MPTCP, sent on by the stack.

use crate::error::Error;
use crate::forwarded::{Counted, ForwardShared, ForwardSummary, Forwarded};
use crate::handle::Handle;
use crate::stack::Stack;
use crate::worker::{Commands, Onward, Rule};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use umptcp_stack_core::config::ConnectionConfig;
use umptcp_types::{ListenerId, PathId};

/// Receive buffer of the captured side. It bounds how far a program may be ahead of what has left this host,
/// and by that the send buffer which the program's kernel gives it; on the host itself it is more than any
/// bandwidth-delay product.
const RECEIVE_BUFFER: usize = 512 << 10;

/// Send buffer of the captured side.
const SEND_BUFFER: usize = 2 << 20;

/// How much is taken from one side ahead of what the other has sent. More would only wait here.
const AHEAD: usize = 256 << 10;

/// Takes every connection that comes in by some paths, whatever its address and port, and sends it on: the
/// SYN is answered when the connection onward stands, and refused as that was refused; then the two are
/// joined as by [`splice`](crate::splice()). No thread is needed for it.
///
/// Dropping it ends capture. Connections that have been joined go on.
///
/// ```
/// # #[cfg(target_os = "linux")]
/// # mod pipe { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/pipe.rs")); }
/// use umptcp::{ConnectionConfig, Forwarder};
///
/// # #[cfg(target_os = "linux")]
/// # fn main() -> std::io::Result<()> {
/// # let (stack, there) = pipe::two_stacks(2, |s| s);
/// # let (program, path) = pipe::captured_program("192.0.2.7");
/// # let listener = there.listen("10.0.0.2:80")?;
/// // A path of the kind `PathKind::Capture`: programs' packets come in by it.
/// let captured = stack.add_path(path)?;
/// let forwarder = Forwarder::outward(&stack, captured, ConnectionConfig::default())?;
///
/// // A program that knows nothing of MPTCP.
/// let client = umptcp::MptcpStream::builder(&program).mptcp(false).connect("10.0.0.2:80")?;
/// let (server, _) = listener.accept()?;
/// assert!(server.protocol()?.is_mptcp());
/// assert_eq!(forwarder.connections()?.len(), 1);
/// # drop(client);
/// # Ok(())
/// # }
/// # #[cfg(not(target_os = "linux"))]
/// # fn main() {}
/// ```
#[derive(Debug)]
pub struct Forwarder {
    handle: Handle,
    id: ListenerId,
    shared: Arc<ForwardShared>,
}

impl Forwarder {
    /// Sends what comes in by `captured` to where it wants to go, over every path of the stack that leads
    /// outside (all that are not [`PathKind::Capture`](crate::PathKind::Capture)), or by the stack's
    /// [relay](crate::StackBuilder::via). `config` is for the side outside.
    ///
    /// # Errors
    /// When the paths already have a listener for every port, or the stack has been stopped.
    pub fn outward(stack: &Stack, captured: PathId, config: ConnectionConfig) -> io::Result<Forwarder> {
        Self::start(stack, vec![captured], Onward::Out, captured_side(&config), config)
    }

    /// Sends what comes from outside to the same port at one of `addresses`, by the path `captured` and in
    /// the client's own name: the server there sees the client's address and port, and is asked for MPTCP
    /// when the client has asked for it. Listeners of the stack keep their ports. `config` is for the side
    /// outside. On NICs of this host, it gets what comes to ports that are [open](Self::open).
    ///
    /// # Errors
    /// As for [`outward`](Self::outward).
    pub fn inward(
        stack: &Stack,
        captured: PathId,
        addresses: impl IntoIterator<Item = IpAddr>,
        config: ConnectionConfig,
    ) -> io::Result<Forwarder> {
        let addresses = addresses.into_iter().map(|a| a.to_canonical()).collect();
        let connect = captured_side(&config);
        let accept = config.with_advertise_addresses(true).with_no_delay(true);
        Self::start(stack, Vec::new(), Onward::In { path: captured, addresses }, accept, connect)
    }

    fn start(
        stack: &Stack,
        from: Vec<PathId>,
        onward: Onward,
        accept: ConnectionConfig,
        connect: ConnectionConfig,
    ) -> io::Result<Forwarder> {
        let handle = stack.handle().clone();
        let shared = Arc::new(ForwardShared::default());
        let connect = connect.with_not_sent_limit(AHEAD).with_no_delay(true).with_report_keep_alive(true);
        let accept = accept.with_report_keep_alive(true);
        let via = handle.via.clone();
        let rule = Rule { from, onward, accept, connect, via, tag: None, shared: shared.clone() };
        let id = handle.commands.call(move |worker, cx| worker.add_forward(cx, rule))?;
        let id = id.map_err(|source| Error::Forward { source })?;
        Ok(Forwarder { handle, id, shared })
    }

    /// Directs connections to a port of this host's NICs to the stack, as for a listener.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] when a program of this host uses the port.
    pub fn open(&self, port: u16) -> io::Result<()> {
        self.handle.nics.upgrade().map_or(Ok(()), |nics| nics.listen(port))
    }

    /// Directs them to the stack no more, except those that are established.
    pub fn close(&self, port: u16) {
        if let Some(nics) = self.handle.nics.upgrade() {
            nics.unlisten(port, |port| self.handle.commands.uses_port(port));
        }
    }

    /// Carries what the captured programs send other than TCP, too, and the answers: UDP, ICMP and ICMPv6 go
    /// out as they are by one of the other paths, with the program's address, which is one of `addresses` (at
    /// most one of a family), exchanged for the path's. A flow stays on its path as long as that answers.
    /// With paths on NICs, [`SetupOptions::carry`](crate::SetupOptions::carry) must have been chosen. It ends
    /// when the path is removed.
    ///
    /// # Errors
    /// When the stack has been stopped.
    pub fn carry(&self, captured: PathId, addresses: impl IntoIterator<Item = IpAddr>) -> io::Result<()> {
        let addresses = addresses.into_iter().map(|a| a.to_canonical()).collect();
        Ok(self.handle.commands.call(move |_, cx| cx.stack.carry(captured, addresses))?)
    }

    /// Refuses datagrams to a port, by ICMP, from now on, where something is [carried](Self::carry): without
    /// QUIC (port
    /// 443) browsers use TCP.
    ///
    /// # Errors
    /// When the stack has been stopped.
    pub fn refuse_datagrams(&self, port: u16) -> io::Result<()> {
        Ok(self.handle.commands.call(move |_, cx| cx.stack.refuse_datagrams(port))?)
    }

    pub(crate) fn id(&self) -> ListenerId {
        self.id
    }

    pub(crate) fn commands(&self) -> &Commands {
        &self.handle.commands
    }

    /// Has connections told apart from now on: `tag` is called with the client and the server of each one that
    /// is captured, before it is answered. It runs on the stack's own thread and must be quick.
    ///
    /// # Errors
    /// When the stack has been stopped.
    pub fn tag_by(
        &self,
        tag: impl Fn(SocketAddr, SocketAddr) -> Option<u64> + Send + 'static,
    ) -> io::Result<()> {
        let (id, tag) = (self.id, Box::new(tag));
        Ok(self.handle.commands.call(move |worker, _| worker.tag_forwarded(id, tag))?)
    }

    /// Counts connections with this tag by themselves, too, until [`stop_counting`](Self::stop_counting).
    pub fn count(&self, tag: u64) {
        self.shared.count(tag);
    }

    /// What it has done so far with connections of a tag; `None`: the tag is not counted.
    ///
    /// # Errors
    /// When the stack has been stopped.
    pub fn counted(&self, tag: u64) -> io::Result<Option<Counted>> {
        let id = self.id;
        // At one time: a connection has ended, or it is open.
        Ok(self.handle.commands.call(move |worker, cx| worker.counted(cx, id, tag))?)
    }

    /// Forgets what was counted of a tag.
    pub fn stop_counting(&self, tag: u64) {
        self.shared.stop_counting(tag);
    }

    /// What it has done so far.
    pub fn summary(&self) -> ForwardSummary {
        self.shared.summary()
    }

    /// How many connections have ended so far.
    pub fn ended(&self) -> u64 {
        self.shared.ended()
    }

    /// The connections that are joined now, with what has passed so far.
    ///
    /// # Errors
    /// When the stack has been stopped.
    pub fn connections(&self) -> io::Result<Vec<Forwarded>> {
        let id = self.id;
        Ok(self.handle.commands.call(move |worker, cx| worker.forwarded(cx, id))?)
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        let id = self.id;
        self.handle.commands.run(move |worker, cx| worker.remove_forward(cx, id));
    }
}

/// Settings of the side towards the captured program.
fn captured_side(outer: &ConnectionConfig) -> ConnectionConfig {
    // A program that asks for MPTCP gets it, with one subflow.
    let one = outer.clone().with_server_joins(false).with_advertise_addresses(false);
    one.with_receive_buffer(RECEIVE_BUFFER).with_send_buffer(SEND_BUFFER).with_no_delay(true)
}

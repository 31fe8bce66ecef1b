//! The Linux kernel's MPTCP: sockets, settings and counters.

use crate::exchange::Conversation;
use crate::netns::Netns;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

/// The protocol of a kernel socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Multipath TCP.
    Mptcp,
    /// Plain TCP.
    Tcp,
}

fn socket(address: SocketAddr, kind: Kind) -> io::Result<Socket> {
    let protocol = match kind {
        Kind::Mptcp => Protocol::MPTCP,
        Kind::Tcp => Protocol::TCP,
    };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(protocol))?;
    // Linux 6.18 does not wake a sender whose MPTCP connection has lost its last subflow. Accepted sockets
    // inherit the timeout.
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    Ok(socket)
}

/// How long a kernel socket waits for room in its send buffer.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);

/// A kernel connection.
#[derive(Debug)]
pub struct KernelStream(Socket);

impl Conversation for KernelStream {
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        io::Read::read(&mut &self.0, buffer)
    }

    fn send(&self, data: &[u8]) -> io::Result<usize> {
        io::Write::write(&mut &self.0, data)
    }

    fn finish(&self) -> io::Result<()> {
        self.0.shutdown(Shutdown::Write)
    }

    fn is_mptcp(&self) -> Option<bool> {
        // MPTCP_INFO would tell, but has no safe wrapper; tests read the namespace's counters instead.
        None
    }
}

impl KernelStream {
    /// Connects to `remote`.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn connect(remote: SocketAddr, kind: Kind) -> io::Result<Self> {
        let socket = socket(remote, kind)?;
        socket.connect(&remote.into())?;
        Ok(KernelStream(socket))
    }

    /// Connects to `remote` with Fast Open (TCP_FASTOPEN_CONNECT): with a cookie, the SYN is sent by the
    /// first write.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn connect_fast_open(remote: SocketAddr, kind: Kind) -> io::Result<Self> {
        let socket = socket(remote, kind)?;
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::TcpFastOpenConnect, &true)?;
        socket.connect(&remote.into())?;
        Ok(KernelStream(socket))
    }

    /// The socket, to set options.
    pub fn socket(&self) -> &Socket {
        &self.0
    }
}

/// A kernel listener.
#[derive(Debug)]
pub struct KernelListener(Socket);

impl KernelListener {
    /// Listens on `local`.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn bind(local: SocketAddr, kind: Kind) -> io::Result<Self> {
        let socket = socket(local, kind)?;
        socket.set_reuse_address(true)?;
        socket.bind(&local.into())?;
        socket.listen(64)?;
        Ok(KernelListener(socket))
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn accept(&self) -> io::Result<KernelStream> {
        self.0.accept().map(|(socket, _)| KernelStream(socket))
    }

    /// The socket, to set options.
    pub fn socket(&self) -> &Socket {
        &self.0
    }
}

/// Allows connections of the namespace `subflows` additional subflows, and joins to as many advertised
/// addresses.
pub fn set_limits(ns: &Netns, subflows: u8) {
    ns.sh(&format!("ip mptcp limits set subflow {subflows} add_addr_accepted {subflows}"));
}

/// The kernel's MPTCP and TCP counters of one namespace, by `nstat`'s names (`MPTcpExtMPCapableSYNRX`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// Reads them.
    pub fn read(ns: &Netns) -> Self {
        let mut all = BTreeMap::new();
        for file in ["netstat", "snmp"] {
            parse(&ns.read(&format!("/proc/thread-self/net/{file}")), &mut all);
        }
        Counters(all)
    }

    /// The counter `MPTcpExt<name>`.
    ///
    /// # Panics
    /// When the kernel has no such counter, so that a misspelt or renamed one does not count as zero.
    pub fn mptcp(&self, name: &str) -> u64 {
        self.get(&format!("MPTcpExt{name}"))
    }

    /// The counter with the full name `name`, such as `TcpRetransSegs`.
    ///
    /// # Panics
    /// When the kernel has no such counter.
    pub fn get(&self, name: &str) -> u64 {
        *self.0.get(name).unwrap_or_else(|| panic!("this kernel has no counter {name}"))
    }

    /// Asserts that the kernel counted no MPTCP problem: no fallback, mismatch, HMAC failure, bad checksum or
    /// reset.
    ///
    /// # Panics
    /// With the problem counters that are not zero.
    pub fn assert_untroubled(&self) {
        self.assert_untroubled_but(&[]);
    }

    /// The same, but these may have been counted.
    ///
    /// # Panics
    /// With the problem counters that are not zero.
    pub fn assert_untroubled_but(&self, may: &[&str]) {
        let trouble: Vec<_> = TROUBLE
            .iter()
            .filter(|name| !may.contains(name))
            .filter_map(|name| self.0.get(&format!("MPTcpExt{name}")).map(|v| (name, *v)))
            .filter(|(_, v)| *v != 0)
            .map(|(name, v)| format!("{name} {v}"))
            .collect();
        assert!(trouble.is_empty(), "the kernel counted: {}; all its counters: {self}", trouble.join(", "));
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.0.iter().filter(|(n, v)| n.starts_with("MPTcpExt") && **v != 0) {
            write!(f, "{} {value}, ", &name["MPTcpExt".len()..])?;
        }
        Ok(())
    }
}

/// Counters that stay zero if nothing goes wrong. Some are missing in older kernels.
const TROUBLE: &[&str] = &[
    "MPCapableFallbackACK",
    "MPCapableFallbackSYNACK",
    "MPCapableSYNTXDrop",
    "MPCapableDataFallback",
    "MPFallbackTokenInit",
    "MPJoinNoTokenFound",
    "MPJoinSynAckHMacFailure",
    "MPJoinAckHMacFailure",
    "DSSNotMatching",
    "DSSCorruptionFallback",
    "DSSCorruptionReset",
    "DssFallback",
    "InfiniteMapTx",
    "InfiniteMapRx",
    "DataCsumErr",
    "MPFailTx",
    "MPFailRx",
    "MPFastcloseTx",
    "MPFastcloseRx",
    "MPRstTx",
    "MPRstRx",
    "SimultConnectFallback",
    "FallbackFailed",
];

/// Reads pairs of lines "Group: names" and "Group: values".
fn parse(text: &str, into: &mut BTreeMap<String, u64>) {
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let Some((group, names)) = names.split_once(':') else { continue };
        let Some((_, values)) = values.split_once(':') else { continue };
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            // Some values in snmp are negative (-1 for "no limit") and not counters.
            if let Ok(value) = value.parse() {
                into.insert(format!("{group}{name}"), value);
            }
        }
    }
}

/// Waits up to ten seconds until the kernel's counters satisfy `condition`: counters related to closing
/// change only when the last packet has arrived.
///
/// # Panics
/// On timeout; `what` describes the condition.
pub fn wait_for(ns: &Netns, what: &str, condition: impl Fn(&Counters) -> bool) -> Counters {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let counters = Counters::read(ns);
        if condition(&counters) {
            return counters;
        }
        assert!(
            Instant::now() < deadline,
            "after 10 s still not {what} in namespace {}; counters: {counters}",
            ns.name()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the namespace has no MPTCP connections and no open TCP connections left.
///
/// # Panics
/// When there are some left after ten seconds.
pub fn wait_closed(ns: &Netns) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        // TIME-WAIT is excluded: it is how a clean close ends.
        let open = ns.sh("ss -tMHn state connected exclude time-wait");
        if open.trim().is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "after 10 s still open in namespace {}:\n{open}", ns.name());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counter_tables_are_parsed() {
        let mut all = BTreeMap::new();
        parse(
            "TcpExt: A B\nTcpExt: 1 2\nMPTcpExt: MPRstTx\nMPTcpExt: 3\nTcp: MaxConn X\nTcp: -1 4\n",
            &mut all,
        );
        let counters = Counters(all);
        assert_eq!(counters.get("TcpExtB"), 2);
        assert_eq!(counters.mptcp("MPRstTx"), 3);
        assert_eq!(counters.get("TcpX"), 4);
        assert!(std::panic::catch_unwind(|| counters.get("TcpMaxConn")).is_err());
        let message = *std::panic::catch_unwind(|| counters.assert_untroubled())
            .unwrap_err()
            .downcast::<String>()
            .unwrap();
        assert!(message.contains("MPRstTx 3"), "{message}");
    }
}

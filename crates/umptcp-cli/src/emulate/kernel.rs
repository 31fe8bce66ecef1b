//! Hosts whose connections are the kernel's.

use super::hosts::{Addresses, SERVER_NIC, nic_name};
use super::site::Site;
use anyhow::Context as _;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use umptcp_lab::emulation::{Pair, Wire};
use umptcp_stack_core::stack::SubflowInfo;

/// How long reads and writes wait.
pub(super) const WAIT: Duration = Duration::from_millis(200);
/// How long a connection may take to be established.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Most subflows and accepted addresses that the kernel allows for.
const MOST: &str = "mptcp limits set subflows 8 add_addr_accepted 8";

/// Makes MPTCP (or, for flows of plain TCP, TCP) sockets with the settings of a pair.
#[derive(Clone)]
pub(super) struct Sockets {
    mptcp: bool,
    no_delay: bool,
    /// The scenario's algorithm, where the kernel has it.
    congestion: Option<String>,
}

impl Sockets {
    pub(super) fn new(pair: &Pair) -> Sockets {
        let known = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control");
        let known = known.unwrap_or_default();
        let wanted = pair.config.congestion.as_str();
        let congestion = known.split_whitespace().find(|name| *name == wanted).map(str::to_owned);
        Sockets { mptcp: pair.config.mptcp, no_delay: pair.config.no_delay, congestion }
    }

    /// Whether the kernel has the scenario's algorithm.
    pub(super) fn has_algorithm(&self) -> bool {
        self.congestion.is_some()
    }

    fn make(&self) -> io::Result<Socket> {
        let protocol = if self.mptcp { Protocol::MPTCP } else { Protocol::TCP };
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(protocol))?;
        if let Some(name) = &self.congestion {
            socket.set_tcp_congestion(name.as_bytes())?;
        }
        Ok(socket)
    }

    /// Listens in `site`.
    pub(super) fn listen(&self, site: &Site, port: u16) -> anyhow::Result<TcpListener> {
        let sockets = self.clone();
        site.run(move || {
            let socket = sockets.make().context("cannot make a listening socket of the kernel")?;
            let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
            socket.set_reuse_address(true)?;
            socket.bind(&SockAddr::from(any)).context("cannot bind")?;
            socket.listen(64).context("cannot listen")?;
            // Accepting waits no longer.
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(socket.into())
        })
    }

    /// Connects from `site`.
    pub(super) fn connect(&self, site: &Site, remote: SocketAddr) -> anyhow::Result<KernelWire> {
        let sockets = self.clone();
        let socket = site.run(move || sockets.make().context("cannot make a socket of the kernel"))?;
        socket.connect_timeout(&SockAddr::from(remote), PATIENCE).context("cannot connect")?;
        self.wire(socket.into())
    }

    /// The end of a connection that was established.
    pub(super) fn wire(&self, stream: TcpStream) -> anyhow::Result<KernelWire> {
        stream.set_nodelay(self.no_delay)?;
        stream.set_read_timeout(Some(WAIT))?;
        stream.set_write_timeout(Some(WAIT))?;
        Ok(KernelWire(stream))
    }
}

/// Sets up the kernel's path manager on a client.
pub(super) fn set_up_client(site: &Site, number: usize, pair: &Pair) -> anyhow::Result<()> {
    buffers(site, pair)?;
    let mut lines = vec![MOST.to_owned()];
    for (route, plan) in pair.routes.iter().enumerate() {
        site.run(move || without_path_filter(&nic_name(route)))?;
        let Addresses { host, .. } = Addresses::client(number, route);
        lines.push(format!("rule add from {host} lookup {}", table(route)));
        lines.push(way_out(route));
        lines.push(endpoint(number, route, plan.backup));
    }
    site.ip(lines)
}

/// Sets up the kernel's path manager on a server.
pub(super) fn set_up_server(site: &Site, pair: &Pair) -> anyhow::Result<()> {
    buffers(site, pair)?;
    site.run(|| without_path_filter(SERVER_NIC))?;
    site.ip(vec![MOST.to_owned()])
}

/// Bytes of the buffers, where the scenario has a size: the kernel's tune themselves up to it. Half of the
/// memory counts as overhead (tcp_adv_win_scale is 1), so that the window is what was asked for.
fn buffers(site: &Site, pair: &Pair) -> anyhow::Result<()> {
    for (file, size) in [("tcp_rmem", pair.receive_buffer), ("tcp_wmem", pair.send_buffer)] {
        let Some(size) = size else { continue };
        let most = size.saturating_mul(2).max(8192);
        let usual = most.min(131_072);
        site.run(move || {
            let path = format!("/proc/sys/net/ipv4/{file}");
            let written = fs::write(&path, format!("4096 {usual} {most}"));
            written.with_context(|| format!("cannot write {path}"))
        })?;
    }
    Ok(())
}

/// Answers to packets that came in by one interface may leave by another.
fn without_path_filter(device: &str) -> anyhow::Result<()> {
    for device in ["all", device] {
        let path = format!("/proc/sys/net/ipv4/conf/{device}/rp_filter");
        fs::write(&path, "0").with_context(|| format!("cannot write {path}"))?;
    }
    Ok(())
}

fn table(route: usize) -> usize {
    100 + route
}

/// The route of what leaves from the address on a client's interface.
fn way_out(route: usize) -> String {
    format!("route replace default dev {} table {}", nic_name(route), table(route))
}

fn endpoint(number: usize, route: usize, backup: bool) -> String {
    let (Addresses { host, .. }, device) = (Addresses::client(number, route), nic_name(route));
    let backup = if backup { " backup" } else { "" };
    format!("mptcp endpoint add {host} dev {device} id {} subflow{backup}", id(route))
}

/// The Address ID of an endpoint.
fn id(route: usize) -> usize {
    route + 1
}

/// The link of a client's interface is up again: the kernel has dropped its routes.
pub(super) fn link_up(site: &Site, route: usize) -> anyhow::Result<()> {
    site.ip(vec![way_out(route)])
}

/// The client loses the address of a route.
pub(super) fn remove_address(site: &Site, number: usize, route: usize) -> anyhow::Result<()> {
    let Addresses { host, .. } = Addresses::client(number, route);
    site.ip(vec![
        format!("mptcp endpoint delete id {}", id(route)),
        format!("address delete {host}/24 dev {}", nic_name(route)),
    ])
}

/// It has it again.
pub(super) fn add_address(site: &Site, number: usize, route: usize, backup: bool) -> anyhow::Result<()> {
    let (Addresses { host, .. }, device) = (Addresses::client(number, route), nic_name(route));
    let mut lines = vec![format!("address add {host}/24 dev {device}")];
    lines.push(format!("route replace default dev {device} metric {}", route + 1));
    lines.push(way_out(route));
    lines.push(endpoint(number, route, backup));
    site.ip(lines)
}

/// Subflows from the address of a route are to be backups, or not any more.
pub(super) fn set_backup(site: &Site, route: usize, backup: bool) -> anyhow::Result<()> {
    let flag = if backup { "backup" } else { "nobackup" };
    site.ip(vec![format!("mptcp endpoint change id {} {flag}", id(route))])
}

/// One end of a connection of the kernel's.
pub(super) struct KernelWire(TcpStream);

impl Wire for KernelWire {
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(buffer)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.0).write(bytes)
    }

    fn finish(&self) -> io::Result<()> {
        match self.0.shutdown(Shutdown::Write) {
            // The peer has closed both directions.
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(()),
            other => other,
        }
    }

    fn subflows(&self) -> Option<Vec<(usize, SubflowInfo)>> {
        None
    }

    fn out_of_order(&self) -> Option<u64> {
        None
    }
}

//! What programs inside send to this host: it reaches the host's own servers.
//!
//! Inside, loopback is the namespace's own. What is sent there to a port that no server inside has, and a
//! server of the host does, is handed to a relay by nftables (`tproxy`), which connects to the same address
//! outside. So a resolver at 127.0.0.53 works, and a database at localhost, without a change to any file.

use crate::error::CaptureError;
use crate::namespace::Namespace;
use crate::ports::Ports;
use crate::transparent::transparent;
use crate::udp;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Socket, Type};
use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use umptcp_tun_driver::paths::{Nft, has_table};

/// How often the host's servers are looked for.
const LOOK: Duration = Duration::from_millis(250);

/// The table in the namespace.
const TABLE: &str = "umptcp_local";

/// Connections that may wait for the relay.
const BACKLOG: i32 = 1_024;

/// Tries to find a port that all sockets of the relay can have.
const PORT_TRIES: usize = 16;

/// The relay to this host's own servers. Dropping it ends it, with its connections.
#[derive(Debug)]
pub struct Local {
    /// Dropped to end the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The sockets of the relay in the namespace, which have one port number.
#[derive(Debug)]
struct Sockets {
    port: u16,
    tcp: Vec<Socket>,
    udp: Vec<Socket>,
}

impl Local {
    /// Starts it for a namespace.
    ///
    /// # Errors
    /// When nftables, or a socket, is refused.
    pub fn start(namespace: &Arc<Namespace>) -> Result<Local, CaptureError> {
        let sockets = namespace.run(Sockets::open)?.map_err(CaptureError::set_up("sockets for localhost"))?;
        let ports = Ports::find().map_err(CaptureError::set_up("list this host's servers"))?;
        let nft = Nft::find(None)?;
        let rules = rules(&sockets);
        apply(namespace, &nft, rules.clone() + &elements(&ports))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(CaptureError::set_up("start the relay for localhost"))?;
        let (stop, stopped) = oneshot::channel();
        let namespace = namespace.clone();
        let run = move || {
            runtime.block_on(async move {
                tokio::select! {
                    () = relay(namespace, nft, rules, sockets, ports) => {}
                    // The sender is gone.
                    _ = stopped => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("umptcp-local".into()).spawn(run);
        let thread = thread.map_err(CaptureError::set_up("start a thread"))?;
        Ok(Local { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It has panicked at worst.
            let _ = thread.join();
        }
    }
}

impl Sockets {
    fn open() -> io::Result<Sockets> {
        let mut tries = PORT_TRIES;
        loop {
            match Self::open_at_one_port() {
                Err(e) if e.kind() == io::ErrorKind::AddrInUse && tries > 1 => tries -= 1,
                result => return result,
            }
        }
    }

    fn open_at_one_port() -> io::Result<Sockets> {
        let first = transparent(Ipv4Addr::LOCALHOST.into(), 0, Type::STREAM)?;
        let port = first.local_addr()?.as_socket().map_or(0, |a| a.port());
        let mut sockets = Sockets {
            port,
            tcp: vec![first],
            udp: vec![transparent(Ipv4Addr::LOCALHOST.into(), port, Type::DGRAM)?],
        };
        // A host without IPv6 does without.
        if let Ok(tcp) = transparent(Ipv6Addr::LOCALHOST.into(), port, Type::STREAM) {
            sockets.tcp.push(tcp);
            sockets.udp.push(transparent(Ipv6Addr::LOCALHOST.into(), port, Type::DGRAM)?);
        }
        for tcp in &sockets.tcp {
            tcp.listen(BACKLOG)?;
        }
        for (udp, v6) in sockets.udp.iter().zip([false, true]) {
            if v6 {
                setsockopt(udp, sockopt::Ipv6OrigDstAddr, &true)?;
            } else {
                setsockopt(udp, sockopt::Ipv4OrigDstAddr, &true)?;
            }
        }
        Ok(sockets)
    }

    fn has_v6(&self) -> bool {
        self.tcp.len() > 1
    }
}

/// The rules that hand over what no server inside takes. Sets say which ports the host's servers have: what
/// is sent to others is refused by the kernel, as it would be outside.
fn rules(sockets: &Sockets) -> String {
    let port = sockets.port;
    let mut s = String::from(
        "table inet umptcp_local {\n\
         set tcp_ports { type inet_service; }\nset udp_ports { type inet_service; }\n\
         chain inward { type filter hook prerouting priority mangle; policy accept;\n\
         iifname != \"lo\" return\n\
         meta l4proto { tcp, udp } socket wildcard { 0, 1 } return\n",
    );
    let mut families = vec![("ipv4", "ip", "127.0.0.1".to_owned())];
    if sockets.has_v6() {
        families.push(("ipv6", "ip6", "[::1]".to_owned()));
    }
    for (name, family, address) in families {
        for protocol in ["tcp", "udp"] {
            // Writing to a String cannot fail.
            let _ = writeln!(
                s,
                "meta nfproto {name} fib daddr type local {protocol} dport @{protocol}_ports \
                 tproxy {family} to {address}:{port} accept"
            );
        }
    }
    s.push_str("}\n}\n");
    s
}

/// Fills the sets.
fn elements(ports: &Ports) -> String {
    let mut s = String::new();
    for (name, ports) in [("tcp", &ports.tcp), ("udp", &ports.udp)] {
        let _ = writeln!(s, "flush set inet umptcp_local {name}_ports");
        if !ports.is_empty() {
            let list: Vec<String> = ports.iter().map(ToString::to_string).collect();
            let _ = writeln!(s, "add element inet umptcp_local {name}_ports {{ {} }}", list.join(", "));
        }
    }
    s
}

/// Runs a script of nftables in the namespace.
fn apply(namespace: &Namespace, nft: &Nft, script: String) -> Result<(), CaptureError> {
    let nft = nft.clone();
    Ok(namespace.run(move || nft.apply("localhost", &script))??)
}

/// Runs until it is dropped.
async fn relay(namespace: Arc<Namespace>, nft: Nft, rules: String, sockets: Sockets, mut known: Ports) {
    for listener in sockets.tcp {
        match TcpListener::from_std(listener.into()) {
            Ok(listener) => drop(tokio::spawn(accept(listener))),
            Err(error) => tracing::warn!(%error, "localhost cannot be relayed"),
        }
    }
    for socket in sockets.udp {
        tokio::spawn(udp::relay(namespace.clone(), socket));
    }
    loop {
        tokio::time::sleep(LOOK).await;
        let ports = match Ports::find() {
            Ok(ports) => ports,
            Err(error) => {
                tracing::debug!(%error, "cannot list this host's servers");
                continue;
            }
        };
        // A program inside that is root may load a firewall, which begins by removing every table.
        let lost = matches!(namespace.run(|| has_table("inet", TABLE)), Ok(Ok(false)));
        if lost || ports != known {
            let rules = if lost { rules.as_str() } else { "" };
            match apply(&namespace, &nft, rules.to_owned() + &elements(&ports)) {
                Ok(()) if lost => tracing::info!("the rules for localhost were removed inside and are back"),
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(%error, "servers of this host are not reachable from inside");
                    continue;
                }
            }
            known = ports;
        }
    }
}

async fn accept(listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((inside, _)) => drop(tokio::spawn(join(inside))),
            // Out of descriptors, most likely: it passes as connections end.
            Err(error) => {
                tracing::warn!(%error, "a connection to localhost cannot be accepted");
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

/// Joins a connection from inside with one to the same address outside.
async fn join(mut inside: TcpStream) {
    let result: io::Result<()> = async {
        // `tproxy` leaves the address as it was.
        let mut outside = TcpStream::connect(inside.local_addr()?).await?;
        inside.set_nodelay(true)?;
        outside.set_nodelay(true)?;
        let copied = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
        if copied.is_err() {
            // One end was reset, and so is the other.
            outside.set_zero_linger()?;
        }
        copied.map(drop)
    }
    .await;
    if result.is_err() {
        let _ = inside.set_zero_linger();
    }
}

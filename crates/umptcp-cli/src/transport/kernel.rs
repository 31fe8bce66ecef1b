//! Connections of the kernel's TCP and MPTCP.

use crate::args::{ListenAddress, StackArgs, StackKind};
use crate::failure::{Class, usage};
use anyhow::{Context as _, anyhow};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// How to create sockets.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    mptcp: bool,
    congestion: Option<String>,
}

impl Kernel {
    /// Takes the options that apply to kernel sockets from `args` and rejects the others.
    pub(crate) fn new(args: &StackArgs) -> anyhow::Result<Kernel> {
        let given = [
            (!args.paths.paths.is_empty(), "--path"),
            (args.paths.scheduler.is_some(), "--scheduler"),
            (args.paths.path_policy.is_some(), "--path-policy"),
            (args.paths.checksum, "--checksum"),
            (args.strict_checksums, "--strict-checksums"),
            (args.fast_open, "--fast-open"),
            (args.fast_open_cookies.is_some(), "--fast-open-cookies"),
            (args.paths.pcap.is_some(), "--pcap"),
        ];
        if let Some((_, option)) = given.iter().find(|(given, _)| *given) {
            return Err(usage(format!(
                "{option} works only with --stack umptcp; configure the kernel with `ip mptcp` and sysctl"
            )));
        }
        if args.paths.no_mptcp && args.stack == StackKind::KernelMptcp {
            return Err(usage("--no-mptcp contradicts --stack kernel-mptcp; use --stack kernel-tcp"));
        }
        if let Some(name) = &args.paths.congestion {
            // An MPTCP socket accepts any name and fails only when subflows are created, so try it on a TCP
            // socket.
            let probe = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))
                .or_else(|_| Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)))
                .context("cannot create a TCP socket")?;
            set_congestion(&probe, name)?;
        }
        Ok(Kernel { mptcp: args.stack == StackKind::KernelMptcp, congestion: args.paths.congestion.clone() })
    }

    /// MPTCP sockets with the kernel's defaults.
    #[cfg(all(target_os = "linux", not(umptcp_portable)))]
    pub(crate) fn mptcp() -> Kernel {
        Kernel { mptcp: true, congestion: None }
    }

    /// Whether there can be such sockets.
    #[cfg(all(target_os = "linux", not(umptcp_portable)))]
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        self.socket(Domain::IPV4).map(|_| ())
    }

    /// Whether the sockets are MPTCP sockets (the connections may still fall back).
    pub(crate) fn is_mptcp(&self) -> bool {
        self.mptcp
    }

    fn socket(&self, domain: Domain) -> anyhow::Result<Socket> {
        let socket = if self.mptcp {
            mptcp_socket(domain)?
        } else {
            Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).context("cannot create a TCP socket")?
        };
        if let Some(name) = &self.congestion {
            set_congestion(&socket, name)?;
        }
        Ok(socket)
    }

    /// Connects within the time that is `left` of `timeout`.
    pub(crate) fn connect(
        &self,
        remote: SocketAddr,
        left: Duration,
        timeout: Duration,
    ) -> anyhow::Result<TcpStream> {
        let socket = self.socket(Domain::for_address(remote))?;
        socket
            .connect_timeout(&SockAddr::from(remote), left)
            .map_err(|e| explain_connect(e, timeout))
            .with_context(|| Class::Connect.failure(format!("cannot connect to {remote}")))?;
        Ok(socket.into())
    }

    pub(crate) fn listen(&self, address: ListenAddress) -> anyhow::Result<TcpListener> {
        let result = match address.address {
            Some(ip) => self.bind(SocketAddr::new(ip, address.port)),
            // One IPv6 socket serves both families, unless this host has no IPv6.
            None => {
                self.bind(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), address.port)).or_else(|e| {
                    if is_in_use(&e) {
                        Err(e)
                    } else {
                        self.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port))
                    }
                })
            }
        };
        result.with_context(|| Class::Host.failure(format!("cannot listen on {address}")))
    }

    fn bind(&self, address: SocketAddr) -> anyhow::Result<TcpListener> {
        let socket = self.socket(Domain::for_address(address))?;
        if address.is_ipv6() {
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        // Connections in TIME_WAIT must not prevent a server from being restarted.
        socket.set_reuse_address(true)?;
        socket.bind(&SockAddr::from(address)).map_err(explain_bind)?;
        socket.listen(1024)?;
        Ok(socket.into())
    }
}

#[cfg(all(target_os = "linux", not(umptcp_portable)))]
fn mptcp_socket(domain: Domain) -> anyhow::Result<Socket> {
    use nix::errno::Errno;

    Socket::new(domain, Type::STREAM, Some(Protocol::MPTCP)).map_err(|e| {
        let reason = match e.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOPROTOOPT) => {
                "MPTCP is disabled in this kernel: enable it with `sysctl -w net.mptcp.enabled=1`, or use --stack umptcp"
            }
            Some(Errno::EPROTONOSUPPORT | Errno::EINVAL) => {
                "this kernel was built without MPTCP (CONFIG_MPTCP); use --stack umptcp"
            }
            _ => return anyhow::Error::new(e).context(Class::Host.failure("cannot create an MPTCP socket")),
        };
        Class::Host.failure(reason).into()
    })
}

#[cfg(any(not(target_os = "linux"), umptcp_portable))]
fn mptcp_socket(_: Domain) -> anyhow::Result<Socket> {
    Err(anyhow!("--stack kernel-mptcp is available on Linux only; use --stack umptcp or kernel-tcp"))
}

#[cfg(all(target_os = "linux", not(umptcp_portable)))]
fn set_congestion(socket: &Socket, name: &str) -> anyhow::Result<()> {
    socket.set_tcp_congestion(name.as_bytes()).map_err(|e| match e.raw_os_error() {
        Some(code) if code == nix::errno::Errno::ENOENT as i32 => {
            let known = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control");
            let known = known.map_or_else(|_| "unknown".to_owned(), |text| text.split_whitespace().collect::<Vec<_>>().join(", "));
            usage(format!("the kernel has no congestion control {name:?}; available: {known}"))
        }
        Some(code) if code == nix::errno::Errno::EPERM as i32 => anyhow!(
            "only root can use the congestion control {name:?}; `sysctl net.ipv4.tcp_allowed_congestion_control` lists the others"
        ),
        _ => anyhow::Error::new(e).context(format!("cannot set the congestion control {name:?}")),
    })
}

#[cfg(any(not(target_os = "linux"), umptcp_portable))]
fn set_congestion(_: &Socket, name: &str) -> anyhow::Result<()> {
    Err(anyhow!("--congestion {name} cannot be set for kernel sockets on this operating system"))
}

/// The congestion control a connection uses.
pub(crate) fn congestion(stream: &TcpStream) -> Option<String> {
    #[cfg(all(target_os = "linux", not(umptcp_portable)))]
    {
        let name = socket2::SockRef::from(stream).tcp_congestion().ok()?;
        let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
        Some(String::from_utf8_lossy(&name[..end]).into_owned())
    }
    #[cfg(any(not(target_os = "linux"), umptcp_portable))]
    {
        let _ = stream;
        None
    }
}

fn is_in_use(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|e| e.downcast_ref::<io::Error>()).any(|e| e.kind() == io::ErrorKind::AddrInUse)
}

fn explain_connect(error: io::Error, timeout: Duration) -> anyhow::Error {
    let hint = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "connection refused: nothing listens at that address and port".to_owned()
        }
        io::ErrorKind::TimedOut => format!("no answer within {} s", timeout.as_secs_f64()),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "host or network unreachable; check the route with `ip route get`".to_owned()
        }
        _ => return error.into(),
    };
    io::Error::new(error.kind(), hint).into()
}

fn explain_bind(error: io::Error) -> anyhow::Error {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => "the port is in use by another program (`ss -ltnp` shows which)",
        io::ErrorKind::AddrNotAvailable => "no interface of this host has that address (see `ip address`)",
        io::ErrorKind::PermissionDenied => "ports below 1024 require root or CAP_NET_BIND_SERVICE",
        _ => return error.into(),
    };
    io::Error::new(error.kind(), hint).into()
}

//! umptcp as one end of a test: the library, on a thread in the namespace.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;
use umptcp::{AttachedPath, ConnectionConfig, ListenerBuilder, MptcpListener, MptcpStream, StackConfig};
use umptcp_testbed::Netns;
use umptcp_testbed::endpoint::{Endpoint, Listener};
use umptcp_testbed::exchange::Conversation;
use umptcp_testbed::topology::{Family, Nic, Site};
use umptcp_tun_driver::paths::{self, PathSet, PathSpec, SetupOptions};

pub(crate) use umptcp_tun_driver::paths::Mode;

/// The port that tests listen on.
pub(crate) const PORT: u16 = 4000;

/// A stack with a path over each NIC of a site. Dropping it undoes its set-up.
pub(crate) struct UmptcpHost {
    ns: Netns,
    // Both are removed by `drop`, in this order, in the namespace.
    stack: Mutex<Option<umptcp::Stack>>,
    paths: Mutex<Option<PathSet>>,
}

/// A stack that sets up these paths itself, so that others can be added.
pub(crate) fn with_nics(site: &Site, specs: &[PathSpec], connection: ConnectionConfig) -> UmptcpHost {
    let config = StackConfig::default()
        .with_congestion(umptcp_congestion::built_in())
        .with_schedulers(umptcp_scheduler::built_in());
    let stack = site.ns.run(|| {
        umptcp::Stack::builder()
            .nics(specs.iter().cloned())
            .setup(SetupOptions::default().listen_ports(vec![PORT]))
            .stack_config(config)
            .connection_config(connection)
            .linger(Duration::from_secs(10))
            .start()
            .unwrap_or_else(|e| panic!("cannot start the stack: {e}"))
    });
    UmptcpHost { ns: site.ns.clone(), stack: Mutex::new(Some(stack)), paths: Mutex::new(None) }
}

/// The default path of tests over `nic`.
pub(crate) fn spec(nic: &Nic, mode: Mode) -> PathSpec {
    let mut spec = PathSpec::new(&nic.device);
    spec.mode = mode;
    if mode == Mode::Routed {
        spec.addresses = [Family::V4, Family::V6].map(|family| nic.routed_address(family)).to_vec();
    }
    spec
}

impl UmptcpHost {
    /// With default settings.
    pub(crate) fn new(site: &Site, mode: Mode) -> Self {
        Self::with(site, mode, ConnectionConfig::default())
    }

    /// With these settings for its connections.
    pub(crate) fn with(site: &Site, mode: Mode, connection: ConnectionConfig) -> Self {
        let specs: Vec<_> = site.nics.iter().map(|nic| spec(nic, mode)).collect();
        Self::with_paths(site, &specs, connection)
    }

    /// With these paths and these settings for its connections.
    pub(crate) fn with_paths(site: &Site, specs: &[PathSpec], connection: ConnectionConfig) -> Self {
        let options = SetupOptions::default().listen_ports(vec![PORT]);
        let (stack, paths) = site.ns.run(|| {
            let mut paths =
                paths::set_up(specs, &options).unwrap_or_else(|e| panic!("cannot set paths up: {e}"));
            let mut config = StackConfig::default()
                .with_congestion(umptcp_congestion::built_in())
                .with_schedulers(umptcp_scheduler::built_in());
            if let Some(range) = paths.port_range() {
                config.ephemeral_ports = range;
            }
            let stack = umptcp::Stack::builder()
                .stack_config(config)
                .connection_config(connection)
                .linger(Duration::from_secs(10))
                .paths(std::mem::take(&mut paths.paths).into_iter().map(AttachedPath::from))
                .start()
                .unwrap_or_else(|e| panic!("cannot start the stack: {e}"));
            (stack, paths)
        });
        UmptcpHost { ns: site.ns.clone(), stack: Mutex::new(Some(stack)), paths: Mutex::new(Some(paths)) }
    }

    /// Does something with the stack, in the namespace.
    pub(crate) fn steer<T: Send>(&self, steer: impl FnOnce(&umptcp::Stack) -> T + Send) -> T {
        self.ns.run(|| self.with_stack(steer))
    }

    fn with_stack<T>(&self, use_it: impl FnOnce(&umptcp::Stack) -> T) -> T {
        let stack = self.stack.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        use_it(stack.as_ref().expect("there until dropped"))
    }

    /// One of the stack's counters.
    ///
    /// # Panics
    /// When there is no such counter.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let all = umptcp::Counter::ALL;
        let counter =
            all.iter().find(|c| c.name() == name).unwrap_or_else(|| panic!("no counter is called {name}"));
        self.with_stack(|stack| stack.counters().expect("the stack runs").get(*counter))
    }

    /// Its counters that are not zero, for messages.
    pub(crate) fn counters(&self) -> String {
        let counters = self.with_stack(|stack| stack.counters().expect("the stack runs"));
        counters.iter_nonzero().map(|(name, value)| format!("{name} {value}, ")).collect()
    }

    /// A listener on `local`, with all its methods.
    pub(crate) fn listener(&self, local: SocketAddr) -> io::Result<MptcpListener> {
        self.listener_with(local, |builder| builder)
    }

    /// The same, with settings.
    pub(crate) fn listener_with(
        &self,
        local: SocketAddr,
        set: impl FnOnce(ListenerBuilder) -> ListenerBuilder,
    ) -> io::Result<MptcpListener> {
        // With NAT, the NIC's address is not the stack's own: listen on all.
        let any: IpAddr = if local.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        set(self.with_stack(MptcpListener::builder)).listen(SocketAddr::new(any, local.port()))
    }

    /// A connection to `remote`, with all its methods.
    pub(crate) fn stream(&self, remote: SocketAddr) -> io::Result<MptcpStream> {
        let builder = self.with_stack(MptcpStream::builder);
        builder.connect_timeout(Duration::from_secs(10)).connect(remote)
    }
}

impl Drop for UmptcpHost {
    fn drop(&mut self) {
        let take = |s: &Mutex<Option<umptcp::Stack>>| {
            s.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
        };
        let stack = take(&self.stack);
        let paths = self.paths.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        self.ns.run(|| {
            if let Some(stack) = stack
                && let Err(e) = stack.stop(Duration::from_secs(10))
            {
                eprintln!("the stack ended badly: {e}");
            }
            drop(paths);
        });
    }
}

impl Endpoint for UmptcpHost {
    fn listen(&self, local: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(Listening(self.listener(local)?)))
    }

    fn connect(&self, remote: SocketAddr) -> io::Result<Box<dyn Conversation>> {
        Ok(Box::new(Stream(self.stream(remote)?)))
    }
}

/// A listener of the library.
pub(crate) struct Listening(pub(crate) MptcpListener);

impl Listener for Listening {
    fn accept(&self) -> io::Result<Box<dyn Conversation>> {
        Ok(Box::new(Stream(self.0.accept()?.0)))
    }
}

/// A connection of the library.
pub(crate) struct Stream(pub(crate) MptcpStream);

impl Conversation for Stream {
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(buffer)
    }

    fn send(&self, data: &[u8]) -> io::Result<usize> {
        (&self.0).write(data)
    }

    fn finish(&self) -> io::Result<()> {
        self.0.shutdown(Shutdown::Write)
    }

    fn is_mptcp(&self) -> Option<bool> {
        self.0.protocol().ok().map(|status| status.is_mptcp())
    }
}

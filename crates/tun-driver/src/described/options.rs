//! How paths are set up.

use crate::device::Offload;
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// How paths are set up.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SetupOptions {
    /// Ports on the NICs' addresses whose connections go to the stack (mode `nat`). More can be added later
    /// with
    /// [`PathSet::listen`](crate::paths::PathSet::listen).
    pub listen_ports: Vec<u16>,
    /// Segmentation and checksum offload of the TUN devices.
    pub offload: Offload,
    /// Ports for translated connections, within ip_local_port_range. `None` chooses a free part of it.
    pub port_range: Option<RangeInclusive<u16>>,
    /// Whether to check that no firewall of this host drops the paths' packets, and fail if one does. In mode
    /// `nat` the check sends a packet that does not leave the host.
    pub check_firewall: bool,
    /// Whether to translate without connection tracking (mode `nat`) unless the host's firewall drops packets
    /// that are not tracked.
    pub stateless: bool,
    /// Whether UDP, ICMP and ICMPv6 of the stack's addresses are translated, too (mode `nat`): for programs
    /// that are captured.
    pub carry: bool,
    /// Whether to enable IPv6 forwarding only on the interfaces used, if the kernel supports it (Linux 6.17).
    /// Otherwise it is enabled on all of them.
    pub force_forwarding: bool,
    /// The `nft` program; found automatically if `None`.
    pub nft_program: Option<PathBuf>,
    /// Where to keep the record of changes. `None` uses the first writable one of /run/umptcp,
    /// $XDG_RUNTIME_DIR/umptcp and a directory for temporary files.
    pub record_directory: Option<PathBuf>,
}

impl Default for SetupOptions {
    fn default() -> Self {
        SetupOptions {
            listen_ports: Vec::new(),
            offload: Offload::default(),
            port_range: None,
            check_firewall: true,
            stateless: true,
            carry: false,
            force_forwarding: true,
            nft_program: None,
            record_directory: None,
        }
    }
}

impl SetupOptions {
    /// Sets [`listen_ports`](Self::listen_ports).
    pub fn listen_ports(mut self, ports: impl Into<Vec<u16>>) -> Self {
        self.listen_ports = ports.into();
        self
    }

    /// Sets [`offload`](Self::offload).
    pub fn offload(mut self, offload: Offload) -> Self {
        self.offload = offload;
        self
    }

    /// Sets [`port_range`](Self::port_range).
    pub fn port_range(mut self, range: RangeInclusive<u16>) -> Self {
        self.port_range = Some(range);
        self
    }

    /// Sets [`check_firewall`](Self::check_firewall).
    pub fn check_firewall(mut self, on: bool) -> Self {
        self.check_firewall = on;
        self
    }

    /// Sets [`stateless`](Self::stateless).
    pub fn stateless(mut self, on: bool) -> Self {
        self.stateless = on;
        self
    }

    /// Sets [`carry`](Self::carry).
    pub fn carry(mut self, on: bool) -> Self {
        self.carry = on;
        self
    }

    /// Sets [`force_forwarding`](Self::force_forwarding).
    pub fn force_forwarding(mut self, on: bool) -> Self {
        self.force_forwarding = on;
        self
    }

    /// Sets [`nft_program`](Self::nft_program).
    pub fn nft_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.nft_program = Some(program.into());
        self
    }

    /// Sets [`record_directory`](Self::record_directory).
    pub fn record_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.record_directory = Some(directory.into());
        self
    }
}

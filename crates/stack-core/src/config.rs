//! What a program may set, per stack and per connection.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use umptcp_types::{Duration, PathId};

/// A `with_` method for each field, so that settings can be written as one expression and a field can be
/// added without breaking anyone (the structs are `#[non_exhaustive]`).
macro_rules! with_methods {
    ($settings:ident { $($with:ident $field:ident: $kind:ty,)* }) => {
        impl $settings {
            $(
                #[doc = concat!("With [`", stringify!($field), "`](Self::", stringify!($field), ") set.")]
                #[must_use]
                pub fn $with(mut self, $field: $kind) -> Self {
                    self.$field = $field;
                    self
                }
            )*
        }
    };
}

/// Settings of a whole stack.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StackConfig {
    /// Congestion control algorithms that connections may name.
    pub congestion: umptcp_congestion::Registry,
    /// Schedulers that connections may name.
    pub schedulers: umptcp_scheduler::Registry,
    /// Path policies that connections may name.
    pub path_policies: umptcp_path_manager::Registry,
    /// Local ports for connections that name none (IANA's dynamic range by default).
    pub ephemeral_ports: core::ops::RangeInclusive<u16>,
    /// Most connections at once, TIME_WAIT not counted.
    pub max_connections: usize,
    /// Most connections at once that the application has let go of and that still deliver what it wrote
    /// (Linux's net.ipv4.tcp_max_orphans). One more is reset when it is let go of.
    pub max_orphans: usize,
    /// Most bytes that all of those together may have had left when they were let go of.
    pub max_orphan_memory: u64,
    /// Bytes that the buffers of all connections may hold together: what was written and is not acknowledged,
    /// what has come and was not read, and what waits for others (Linux's net.ipv4.tcp_mem). From two thirds of
    /// it until half of it, automatic buffers fall back to what they begin with, and stay there; at the bound a
    /// connection holds no more than 16 KiB in each direction besides what it had: what comes and would have to
    /// wait counts as lost.
    pub buffer_memory: u64,
    /// With so many events waiting for the application, those are dropped that tell nothing which cannot be
    /// asked: `FellBack` ([`ConnectionInfo::mptcp`]), `SubflowEstablished`, `SubflowClosed` and `JoinFailed`
    /// (`Stack::subflows`,
    /// [`ConnectionInfo::lost_subflows`]). SYNs are treated as with a full backlog, so no `Incoming` is
    /// lost. Of the others there are at most four for each connection, and none is dropped.
    ///
    /// [`ConnectionInfo::mptcp`]: crate::info::ConnectionInfo::mptcp
    /// [`ConnectionInfo::lost_subflows`]: crate::info::ConnectionInfo::lost_subflows
    pub max_events: usize,
    /// How long MPTCP is not tried towards a network (/24 in IPv4, /48 in IPv6) after SYNs with MP_CAPABLE
    /// were lost there and one without was answered; doubles each time, up to 64-fold. Zero: MPTCP is always
    /// tried.
    pub blackhole_timeout: Duration,
    /// The clock of the stack's timestamps (RFC 7323), for stacks that one after the other appear to peers as
    /// the same host. `None`: one of its own.
    pub timestamp_clock: Option<TimestampClock>,
}

/// A clock that goes on from one stack to the next. A peer that has a four-tuple in TIME-WAIT takes a SYN of
/// the next stack only if its timestamp is newer (RFC 6191); with a clock that begins anywhere half of them
/// are refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TimestampClock {
    /// Makes the offset that each peer sees; not known to peers, or they learn how long the host has been up
    /// (RFC 7323 §5.4).
    pub key: (u64, u64),
    /// Milliseconds on the host's clock at the stack's time zero.
    pub millis: u32,
}

impl TimestampClock {
    /// A clock that shows `millis` at the stack's time zero.
    pub const fn new(key: (u64, u64), millis: u32) -> Self {
        TimestampClock { key, millis }
    }
}

impl Default for StackConfig {
    fn default() -> Self {
        StackConfig {
            congestion: umptcp_congestion::built_in(),
            schedulers: umptcp_scheduler::built_in(),
            path_policies: umptcp_path_manager::built_in(),
            ephemeral_ports: 49152..=65535,
            max_connections: 1 << 20,
            max_orphans: 1 << 13,
            max_orphan_memory: 256 << 20,
            buffer_memory: 1 << 30,
            max_events: 1 << 16,
            blackhole_timeout: Duration::from_secs(3600),
            timestamp_clock: None,
        }
    }
}

/// How an abort tells the peer (RFC 8684 §3.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FastClose {
    /// Option R: a RST with MP_FASTCLOSE on every subflow, and all state is gone at once.
    #[default]
    Reset,
    /// Option A: an ACK with MP_FASTCLOSE on one subflow, repeated until the peer answers with a RST; the
    /// other subflows are reset. Reaches the peer although packets are lost, and takes a few round trips.
    Ack,
}

/// Keep-alive probes (RFC 9293 §3.8.4), with Linux's defaults. Times below one second count as one second,
/// and a count of 0 as 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct KeepAlive {
    /// Idle time before the first probe (TCP_KEEPIDLE).
    pub idle: Duration,
    /// Time between probes (TCP_KEEPINTVL).
    pub interval: Duration,
    /// Probes without an answer that end the subflow (TCP_KEEPCNT).
    pub count: u32,
}

impl Default for KeepAlive {
    fn default() -> Self {
        KeepAlive { idle: Duration::from_secs(7200), interval: Duration::from_secs(75), count: 9 }
    }
}

impl KeepAlive {
    /// For a peer that is asked when somebody else wants to know: it is not asked again for its own sake.
    pub(crate) fn once() -> KeepAlive {
        KeepAlive { idle: Duration::from_secs(7200), interval: Duration::from_secs(15), count: 8 }
    }

    /// Linux's least value of TCP_KEEPIDLE and TCP_KEEPINTVL.
    const SHORTEST: Duration = Duration::from_secs(1);

    /// What is used: with no time between probes, all of them would be unanswered at once, and with no idle
    /// time, each answer would bring on the next probe.
    pub(crate) fn within_bounds(self) -> Self {
        let KeepAlive { idle, interval, count } = self;
        KeepAlive {
            idle: idle.max(Self::SHORTEST),
            interval: interval.max(Self::SHORTEST),
            count: count.max(1),
        }
    }
}

/// Explicit congestion notification (RFC 3168), as Linux's net.ipv4.tcp_ecn has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ecn {
    /// Never.
    Off,
    /// When the peer asks for it.
    #[default]
    Accept,
    /// Ask for it when connecting, and agree when the peer asks.
    Request,
}

/// How large a connection's send or receive buffer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BufferSize {
    /// So many bytes; 0 counts as 1.
    Fixed(usize),
    /// It tunes itself, up to a limit (RFC 6182 §5.3: twice the sum of the paths' bandwidths times the longest
    /// round-trip time). It begins with [`INITIAL`](Self::INITIAL), or the limit if that is less.
    Auto {
        /// Most bytes; 0 counts as 1.
        limit: usize,
    },
}

impl BufferSize {
    /// What an automatic buffer begins with, in bytes: Linux's default for what it receives (the second value
    /// of net.ipv4.tcp_rmem).
    pub const INITIAL: usize = 128 << 10;
    /// The limit of an automatic buffer unless another is given, in bytes.
    pub const DEFAULT_LIMIT: usize = 8 << 20;
    /// An automatic buffer with that limit.
    pub const AUTO: BufferSize = BufferSize::Auto { limit: Self::DEFAULT_LIMIT };

    /// Most bytes that it may become.
    pub const fn limit(self) -> usize {
        match self {
            BufferSize::Fixed(bytes) | BufferSize::Auto { limit: bytes } if bytes == 0 => 1,
            BufferSize::Fixed(bytes) | BufferSize::Auto { limit: bytes } => bytes,
        }
    }

    /// Bytes that it begins with.
    pub const fn initial(self) -> usize {
        match self {
            BufferSize::Auto { limit } if limit > Self::INITIAL => Self::INITIAL,
            _ => self.limit(),
        }
    }

    /// It tunes itself.
    pub const fn is_automatic(self) -> bool {
        matches!(self, BufferSize::Auto { .. })
    }
}

impl From<usize> for BufferSize {
    fn from(bytes: usize) -> Self {
        BufferSize::Fixed(bytes)
    }
}

/// Settings of one connection, and of those a listener accepts.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ConnectionConfig {
    /// Negotiate MPTCP; otherwise plain TCP from the start.
    pub mptcp: bool,
    /// Require DSS checksums (the A bit, RFC 8684 §3.1).
    pub checksum: bool,
    /// Use DSS checksums when the peer requires them; otherwise such a connection falls back to plain TCP.
    /// Without effect when [`checksum`](Self::checksum) is set.
    pub accept_checksum: bool,
    /// Once both ends have agreed on checksums, deliver nothing that none covers: what would otherwise have
    /// the connection continue as plain TCP (RFC 8684 §3.7: a checksum that fails on the only subflow,
    /// MP_FAIL, an infinite mapping, lost options) resets the subflow, and ends the connection with
    /// [`ConnectionError::Broken`] when no other takes over. Data on a SYN ([`fast_open`](Self::fast_open))
    /// never have a checksum (appendix B.2).
    ///
    /// [`ConnectionError::Broken`]: crate::error::ConnectionError::Broken
    pub strict_checksums: bool,
    /// Name of the congestion control algorithm.
    pub congestion: String,
    /// Name of the scheduler. With the default one, a path policy may bring its own.
    pub scheduler: String,
    /// Name of the path policy: which subflows there are to be.
    pub path_policy: String,
    /// When the peer's window, or the send buffer, is full because a slow subflow holds the oldest data: send
    /// these on a faster one, too (opportunistic retransmission; Raiciu et al., NSDI 2012).
    pub opportunistic_retransmission: bool,
    /// And halve the slow subflow's congestion window, at most once in its round-trip time (penalisation).
    pub penalisation: bool,
    /// Give a subflow new data only while the peer's window has room for what faster ones can send until
    /// those data have arrived, so that it seldom comes to that.
    pub spare_window: bool,
    /// Bytes the application may have written that are not acknowledged yet. With MPTCP at least as many as
    /// `receive_buffer` (RFC 8684 §3.3.5) where both are fixed.
    pub send_buffer: BufferSize,
    /// Bytes received that the application has not read yet, shared by all subflows.
    pub receive_buffer: BufferSize,
    /// Data that is neither acknowledged nor accepted for so long ends the connection (RFC 5482). Also bounds
    /// the handshake, hence the default: a SYN is repeated for three minutes at least (RFC 9293 §3.8.3,
    /// MUST-23).
    pub user_timeout: Duration,
    /// Probes of an idle connection; `None`: none (SO_KEEPALIVE).
    pub keep_alive: Option<KeepAlive>,
    /// Bytes that may be written ahead of what has been sent (TCP_NOTSENT_LOWAT). The send buffer limits
    /// these together with what has been sent and not acknowledged; without a limit of their own, a stream on
    /// a slow path holds a whole buffer of data that might as well wait with whoever writes them.
    pub not_sent_limit: usize,
    /// Say when the peer asks for a sign of life of an idle connection
    /// ([`Event::KeepAlive`](crate::event::Event::KeepAlive)), so that a relay can ask the other end.
    pub report_keep_alive: bool,
    /// Most payload and options per packet, in either direction (TCP_MAXSEG); `None`: what the path's MTU
    /// allows.
    pub max_segment_size: Option<u16>,
    /// How long after a search for the largest packet that a path carries the next begins (RFC 8899's
    /// PMTU_RAISE_TIMER, Linux's net.ipv4.tcp_probe_interval). Searches are made where ICMP or silence has
    /// made packets smaller; `None`: none are.
    pub mtu_probe_interval: Option<Duration>,
    /// Explicit congestion notification.
    pub ecn: Ecn,
    /// IP header field of the packets of every subflow (IP_TOS, IPV6_TCLASS): the DSCP (RFC 2474) in the
    /// upper six bits. The lower two are ignored, because they are those of `ecn`.
    pub traffic_class: u8,
    /// Send small segments at once instead of waiting to fill them (no Nagle).
    pub no_delay: bool,
    /// Most subflows at once, the initial one included.
    pub max_subflows: usize,
    /// Most addresses of the peer's ADD_ADDRs to act on.
    pub max_add_addr_accepted: usize,
    /// TCP Fast Open as a client (RFC 7413, TCP_FASTOPEN_CONNECT): ask the server for a cookie, and when it
    /// has given one to an earlier connection, delay the SYN until there are data, which it carries. If the
    /// network duplicates the SYN, the server may see the data twice: use only for idempotent requests (RFC
    /// 7413 §6.1). For servers see [`ListenOptions::fast_open`].
    pub fast_open: bool,
    /// Accept joins to the initial address and port; otherwise the C bit is set.
    pub allow_join_initial: bool,
    /// Advertise other paths' addresses to the peer (ADD_ADDR).
    pub advertise_addresses: bool,
    /// As a server, open subflows too: from other paths to the client's address. It may be behind
    /// translation, so that they fail; therefore clients usually do it (RFC 8684 §3.2).
    pub server_joins: bool,
    /// MPTCP SYNs that may go unanswered before the SYN goes without the option.
    pub syn_retrans_before_tcp_fallback: u8,
    /// How long a connection without a subflow, or without one that is open for what is left to send, waits
    /// for a new one.
    pub close_timeout: Duration,
    /// How long a connection that the application has let go of may go without delivering anything, for
    /// instance because the peer keeps its window closed, before it is reset (Linux's
    /// net.ipv4.tcp_orphan_retries).
    pub orphan_timeout: Duration,
    /// Consecutive retransmission timeouts after which a subflow counts as stale.
    pub stale_loss_count: u8,
    /// How an abort tells the peer.
    pub fast_close: FastClose,
}

impl Default for ConnectionConfig {
    fn default() -> Self {
        ConnectionConfig {
            mptcp: true,
            checksum: false,
            accept_checksum: true,
            strict_checksums: false,
            congestion: String::from("lia"),
            scheduler: String::from(umptcp_scheduler::DEFAULT_NAME),
            path_policy: String::from(umptcp_path_manager::DEFAULT_NAME),
            opportunistic_retransmission: true,
            penalisation: true,
            spare_window: true,
            send_buffer: BufferSize::AUTO,
            receive_buffer: BufferSize::AUTO,
            user_timeout: Duration::from_secs(180),
            keep_alive: None,
            not_sent_limit: usize::MAX,
            report_keep_alive: false,
            max_segment_size: None,
            mtu_probe_interval: Some(Duration::from_secs(600)),
            ecn: Ecn::Accept,
            traffic_class: 0,
            no_delay: false,
            max_subflows: 8,
            max_add_addr_accepted: 8,
            fast_open: false,
            allow_join_initial: true,
            advertise_addresses: false,
            server_joins: false,
            syn_retrans_before_tcp_fallback: 2,
            close_timeout: Duration::from_secs(60),
            orphan_timeout: Duration::from_secs(100),
            stale_loss_count: 4,
            fast_close: FastClose::Reset,
        }
    }
}

with_methods! {
    StackConfig {
        with_congestion congestion: umptcp_congestion::Registry,
        with_schedulers schedulers: umptcp_scheduler::Registry,
        with_path_policies path_policies: umptcp_path_manager::Registry,
        with_ephemeral_ports ephemeral_ports: core::ops::RangeInclusive<u16>,
        with_max_connections max_connections: usize,
        with_max_orphans max_orphans: usize,
        with_max_orphan_memory max_orphan_memory: u64,
        with_buffer_memory buffer_memory: u64,
        with_max_events max_events: usize,
        with_blackhole_timeout blackhole_timeout: Duration,
        with_timestamp_clock timestamp_clock: Option<TimestampClock>,
    }
}

with_methods! {
    KeepAlive {
        with_idle idle: Duration,
        with_interval interval: Duration,
        with_count count: u32,
    }
}

with_methods! {
    ConnectionConfig {
        with_mptcp mptcp: bool,
        with_checksum checksum: bool,
        with_accept_checksum accept_checksum: bool,
        with_strict_checksums strict_checksums: bool,
        with_opportunistic_retransmission opportunistic_retransmission: bool,
        with_penalisation penalisation: bool,
        with_spare_window spare_window: bool,
        with_user_timeout user_timeout: Duration,
        with_keep_alive keep_alive: Option<KeepAlive>,
        with_not_sent_limit not_sent_limit: usize,
        with_report_keep_alive report_keep_alive: bool,
        with_max_segment_size max_segment_size: Option<u16>,
        with_mtu_probe_interval mtu_probe_interval: Option<Duration>,
        with_ecn ecn: Ecn,
        with_traffic_class traffic_class: u8,
        with_no_delay no_delay: bool,
        with_max_subflows max_subflows: usize,
        with_max_add_addr_accepted max_add_addr_accepted: usize,
        with_fast_open fast_open: bool,
        with_allow_join_initial allow_join_initial: bool,
        with_advertise_addresses advertise_addresses: bool,
        with_server_joins server_joins: bool,
        with_syn_retrans_before_tcp_fallback syn_retrans_before_tcp_fallback: u8,
        with_close_timeout close_timeout: Duration,
        with_orphan_timeout orphan_timeout: Duration,
        with_stale_loss_count stale_loss_count: u8,
        with_fast_close fast_close: FastClose,
    }
}

impl ConnectionConfig {
    /// The size of the send buffer that is used.
    pub(crate) fn effective_send_buffer(&self) -> BufferSize {
        match (self.send_buffer, self.receive_buffer) {
            (BufferSize::Fixed(send), BufferSize::Fixed(receive)) if self.mptcp => {
                BufferSize::Fixed(send.max(receive))
            }
            (send, _) => send,
        }
    }

    /// With this send buffer: automatic, or so many bytes.
    #[must_use]
    pub fn with_send_buffer(mut self, size: impl Into<BufferSize>) -> Self {
        self.send_buffer = size.into();
        self
    }

    /// With this receive buffer: automatic, or so many bytes.
    #[must_use]
    pub fn with_receive_buffer(mut self, size: impl Into<BufferSize>) -> Self {
        self.receive_buffer = size.into();
        self
    }

    /// The name of the scheduler of a connection with `policy`.
    pub(crate) fn scheduler_with<'a>(&'a self, policy: &dyn umptcp_path_manager::PathPolicy) -> &'a str {
        let default = self.scheduler == umptcp_scheduler::DEFAULT_NAME;
        policy.scheduler().filter(|_| default).unwrap_or(&self.scheduler)
    }

    /// With this congestion control algorithm.
    #[must_use]
    pub fn with_congestion(mut self, name: impl Into<String>) -> Self {
        self.congestion = name.into();
        self
    }

    /// With this scheduler.
    #[must_use]
    pub fn with_scheduler(mut self, name: impl Into<String>) -> Self {
        self.scheduler = name.into();
        self
    }

    /// With this path policy.
    #[must_use]
    pub fn with_path_policy(mut self, name: impl Into<String>) -> Self {
        self.path_policy = name.into();
        self
    }
}

/// A setting of [`ConnectionConfig`] that can be changed while the connection runs, by `Stack::set_option`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ConnectionOption {
    /// [`ConnectionConfig::no_delay`].
    NoDelay(bool),
    /// [`ConnectionConfig::keep_alive`], for all subflows. The idle time starts anew.
    KeepAlive(Option<KeepAlive>),
    /// [`ConnectionConfig::traffic_class`].
    TrafficClass(u8),
    /// [`ConnectionConfig::user_timeout`].
    UserTimeout(Duration),
    /// [`ConnectionConfig::send_buffer`]. One that becomes automatic goes on from its present size.
    SendBuffer(BufferSize),
    /// [`ConnectionConfig::receive_buffer`]. A window that has been offered is not taken back. A subflow
    /// offers at most 65,535 times the window scale of its handshake, which was chosen for the limit of that
    /// time. One that becomes automatic goes on from its present size.
    ReceiveBuffer(BufferSize),
    /// [`ConnectionConfig::max_subflows`]; 0 counts as 1. Subflows that there are stay.
    MaxSubflows(usize),
    /// [`ConnectionConfig::max_add_addr_accepted`]. Addresses that have been accepted stay.
    MaxAddAddrAccepted(usize),
}

/// Where a new connection goes, and how.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// The peer.
    pub remote: SocketAddr,
    /// Paths that may be used, the first for the initial subflow. Empty: every path with an address of a
    /// fitting family.
    pub paths: Vec<PathId>,
    /// Local address of the initial subflow; `None`: the first path's.
    pub local_address: Option<IpAddr>,
    /// Local port of the initial subflow; 0: chosen by the stack.
    pub local_port: u16,
    /// Settings.
    pub config: ConnectionConfig,
}

impl ConnectOptions {
    /// Connect to `remote` over every path, with the default settings.
    pub fn new(remote: SocketAddr) -> Self {
        ConnectOptions {
            remote,
            paths: Vec::new(),
            local_address: None,
            local_port: 0,
            config: ConnectionConfig::default(),
        }
    }

    /// With these settings.
    pub fn with_config(mut self, config: ConnectionConfig) -> Self {
        self.config = config;
        self
    }
}

/// When a listener answers SYNs without keeping state (SYN cookies, RFC 4987 §3.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SynCookiePolicy {
    /// Never: SYNs beyond the backlog are dropped.
    Never,
    /// When the backlog is full of handshakes that do not complete.
    #[default]
    UnderPressure,
    /// Always.
    Always,
}

/// Where to listen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ListenOptions {
    /// Local address; unspecified: every address of every path.
    pub local: SocketAddr,
    /// Incoming connections whose handshake is not complete, offered or accepted, at most; and as many that
    /// are complete and not accepted yet.
    pub backlog: usize,
    /// How further SYNs are answered.
    pub syn_cookies: SynCookiePolicy,
    /// TCP Fast Open as a server (RFC 7413, TCP_FASTOPEN): most connections at once that brought data in the
    /// SYN and have not completed the handshake; 0: no Fast Open. The application gets these before the
    /// handshake is complete, and may see the same data twice if the network duplicates the SYN (RFC 7413
    /// §6.1).
    pub fast_open: usize,
    /// What answers without state are made from: whether MPTCP is spoken, checksums, joins, the receive
    /// buffer. Should be what connections are accepted with.
    pub config: ConnectionConfig,
    /// Only what comes in by these paths; empty: by any that leads outside.
    pub paths: Vec<PathId>,
    /// Whatever the port is, unless another listener has it; the port of `local` must be 0.
    pub every_port: bool,
}

impl ListenOptions {
    /// Listen on `local` with that backlog.
    pub fn new(local: SocketAddr, backlog: usize) -> Self {
        let config = ConnectionConfig::default();
        ListenOptions {
            local,
            backlog,
            syn_cookies: SynCookiePolicy::default(),
            fast_open: 0,
            config,
            paths: Vec::new(),
            every_port: false,
        }
    }

    /// Listen on every port that has no listener of its own, of these paths; empty: of all that lead outside.
    pub fn every_port(paths: Vec<PathId>, backlog: usize) -> Self {
        let any = SocketAddr::from(([0, 0, 0, 0], 0));
        ListenOptions { paths, every_port: true, ..Self::new(any, backlog) }
    }

    /// With these settings for answers without state.
    pub fn with_config(mut self, config: ConnectionConfig) -> Self {
        self.config = config;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9293 §3.8.4, MUST-25 and MUST-28.
    #[test]
    fn keep_alive_is_off_unless_asked_for_and_then_waits_two_hours() {
        assert_eq!(ConnectionConfig::default().keep_alive, None);
        let two_hours = Duration::from_secs(2 * 60 * 60);
        assert!(KeepAlive::default().idle >= two_hours && KeepAlive::once().idle >= two_hours);
    }

    /// RFC 9293 §3.8.3, SHLD-11.
    #[test]
    fn a_silent_peer_has_a_hundred_seconds_unless_told_otherwise() {
        assert!(ConnectionConfig::default().user_timeout >= Duration::from_secs(100));
    }

    /// RFC 8684 §3.3.7.
    #[test]
    fn congestion_is_coupled_unless_another_algorithm_is_chosen() {
        assert_eq!(ConnectionConfig::default().congestion, "lia");
    }

    /// RFC 8684 §3.3.5.
    #[test]
    fn the_send_buffer_is_no_smaller_than_the_receive_buffer() {
        let config = ConnectionConfig::default();
        assert!(config.effective_send_buffer().limit() >= config.receive_buffer.limit());
        assert!(config.effective_send_buffer().initial() >= config.receive_buffer.initial());
        for (send, receive, used) in [(10, 20, 20), (20, 10, 20)] {
            let config = ConnectionConfig::default().with_send_buffer(send).with_receive_buffer(receive);
            assert_eq!(config.effective_send_buffer(), BufferSize::Fixed(used));
        }
    }
}

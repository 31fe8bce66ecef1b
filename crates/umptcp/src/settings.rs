//! Settings that connections and listeners have in common.

/// Methods of a builder that has a field `config: ConnectionConfig`, for the new connection or for each one
/// accepted.
macro_rules! connection_settings {
    () => {
        /// Replaces all of these settings at once.
        pub fn config(mut self, config: ConnectionConfig) -> Self {
            self.config = config;
            self
        }

        /// Whether to use MPTCP; without it, every connection is plain TCP.
        pub fn mptcp(mut self, on: bool) -> Self {
            self.config.mptcp = on;
            self
        }

        /// Whether to require DSS checksums (RFC 8684 §3.3.1).
        pub fn checksum(mut self, on: bool) -> Self {
            self.config.checksum = on;
            self
        }

        /// Whether a connection with checksums fails where it would otherwise continue as plain TCP without
        /// them (RFC 8684 §3.7). Has no effect when neither end requires checksums.
        pub fn strict_checksums(mut self, on: bool) -> Self {
            self.config.strict_checksums = on;
            self
        }

        /// Name of the congestion control algorithm.
        pub fn congestion(mut self, name: impl Into<String>) -> Self {
            self.config.congestion = name.into();
            self
        }

        /// Name of the packet scheduler.
        pub fn scheduler(mut self, name: impl Into<String>) -> Self {
            self.config.scheduler = name.into();
            self
        }

        /// Name of the path policy: which subflows there are to be.
        pub fn path_policy(mut self, name: impl Into<String>) -> Self {
            self.config.path_policy = name.into();
            self
        }

        /// Maximum number of bytes written but not yet acknowledged, per connection, or that the buffer tunes
        /// itself.
        pub fn send_buffer(mut self, size: impl Into<$crate::BufferSize>) -> Self {
            self.config.send_buffer = size.into();
            self
        }

        /// Maximum number of bytes received but not yet read, per connection, or that the buffer tunes itself.
        pub fn receive_buffer(mut self, size: impl Into<$crate::BufferSize>) -> Self {
            self.config.receive_buffer = size.into();
            self
        }

        /// Whether to send small segments immediately, without the Nagle algorithm.
        pub fn nodelay(mut self, on: bool) -> Self {
            self.config.no_delay = on;
            self
        }

        /// How long data may stay unacknowledged before the connection is aborted (TCP_USER_TIMEOUT, RFC
        /// 5482).
        pub fn user_timeout(mut self, limit: Duration) -> Self {
            self.config.user_timeout = limit;
            self
        }

        /// Idle time after which to probe whether the peer is still there (SO_KEEPALIVE, TCP_KEEPIDLE);
        /// `None` disables probing.
        pub fn keep_alive(mut self, idle: Option<Duration>) -> Self {
            let settings = self.config.keep_alive.unwrap_or_default();
            self.config.keep_alive = idle.map(|idle| settings.with_idle(idle));
            self
        }

        /// Time between keep-alive probes (TCP_KEEPINTVL; 75 s by default). Enables them.
        pub fn keep_alive_interval(mut self, interval: Duration) -> Self {
            self.config.keep_alive.get_or_insert_default().interval = interval;
            self
        }

        /// Number of unanswered keep-alive probes after which a subflow is closed (TCP_KEEPCNT; 9 by
        /// default). Enables them.
        pub fn keep_alive_count(mut self, count: u32) -> Self {
            self.config.keep_alive.get_or_insert_default().count = count;
            self
        }

        /// Maximum segment size in either direction (TCP_MAXSEG); by default, what the path's MTU allows.
        pub fn maxseg(mut self, bytes: u16) -> Self {
            self.config.max_segment_size = Some(bytes);
            self
        }

        /// Time between two searches for a larger path MTU (Linux's net.ipv4.tcp_probe_interval, RFC 8899;
        /// ten minutes by default); with `None`, packets never grow again after ICMP or a black hole made
        /// them smaller.
        pub fn mtu_probe_interval(mut self, interval: Option<Duration>) -> Self {
            self.config.mtu_probe_interval = interval;
            self
        }

        /// Type of service of every packet of every subflow (IP_TOS, IPV6_TCLASS): the DSCP (RFC 2474) in the
        /// upper six bits, so 0xb8 is expedited forwarding. The lower two bits are ignored; they belong to
        /// ECN. 0 by default.
        pub fn traffic_class(mut self, class: u8) -> Self {
            self.config.traffic_class = class;
            self
        }

        /// Whether to use explicit congestion notification (RFC 3168); by default, only if the peer asks for
        /// it.
        pub fn ecn(mut self, ecn: Ecn) -> Self {
            self.config.ecn = ecn;
            self
        }
    };
}

pub(crate) use connection_settings;

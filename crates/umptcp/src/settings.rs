//! Settings that connections and listeners have in common.

/// The methods of a builder with a field `config`, a `ConnectionConfig`: of the connection that is to be made, or of each that
/// will be accepted.
macro_rules! connection_settings {
    () => {
        /// Replaces all these settings at once.
        pub fn config(mut self, config: ConnectionConfig) -> Self {
            self.config = config;
            self
        }

        /// Whether to use MPTCP; otherwise every connection is plain TCP.
        pub fn mptcp(mut self, on: bool) -> Self {
            self.config.mptcp = on;
            self
        }

        /// Whether to require checksums over the data (RFC 8684 §3.3.1).
        pub fn checksum(mut self, on: bool) -> Self {
            self.config.checksum = on;
            self
        }

        /// Whether a connection with checksums ends with an error where it would otherwise continue as plain TCP, without them
        /// (RFC 8684 §3.7). Without effect when neither end requires checksums.
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

        /// Bytes that may be written without being acknowledged yet, for each connection.
        pub fn send_buffer(mut self, bytes: usize) -> Self {
            self.config.send_buffer = bytes;
            self
        }

        /// Bytes that may be received without having been read yet, for each connection.
        pub fn receive_buffer(mut self, bytes: usize) -> Self {
            self.config.receive_buffer = bytes;
            self
        }

        /// Whether to send small segments at once instead of waiting to fill them (no Nagle algorithm).
        pub fn nodelay(mut self, on: bool) -> Self {
            self.config.no_delay = on;
            self
        }

        /// How long the peer may leave data unacknowledged until a connection ends (TCP_USER_TIMEOUT, RFC 5482).
        pub fn user_timeout(mut self, limit: Duration) -> Self {
            self.config.user_timeout = limit;
            self
        }

        /// After how much idle time to probe whether the peer is still there (SO_KEEPALIVE, TCP_KEEPIDLE); `None`: never.
        pub fn keep_alive(mut self, idle: Option<Duration>) -> Self {
            let settings = self.config.keep_alive.unwrap_or_default();
            self.config.keep_alive = idle.map(|idle| KeepAlive { idle, ..settings });
            self
        }

        /// Time between keep-alive probes (TCP_KEEPINTVL; 75 s unless set). Turns them on.
        pub fn keep_alive_interval(mut self, interval: Duration) -> Self {
            self.config.keep_alive.get_or_insert_default().interval = interval;
            self
        }

        /// Keep-alive probes without an answer that end a subflow (TCP_KEEPCNT; 9 unless set). Turns them on.
        pub fn keep_alive_count(mut self, count: u32) -> Self {
            self.config.keep_alive.get_or_insert_default().count = count;
            self
        }

        /// Most payload and options per packet, in either direction (TCP_MAXSEG); without this, what the path's MTU allows.
        pub fn maxseg(mut self, bytes: u16) -> Self {
            self.config.max_segment_size = Some(bytes);
            self
        }

        /// How long after a search for the largest packets that a path carries the next begins (Linux's net.ipv4.tcp_probe_interval,
        /// RFC 8899; ten minutes unless set); `None`: packets that ICMP or silence has made smaller stay so.
        pub fn mtu_probe_interval(mut self, interval: Option<Duration>) -> Self {
            self.config.mtu_probe_interval = interval;
            self
        }

        /// Whether to use explicit congestion notification (RFC 3168); when the peer asks for it, unless set.
        pub fn ecn(mut self, ecn: Ecn) -> Self {
            self.config.ecn = ecn;
            self
        }
    };
}

pub(crate) use connection_settings;

//! Options of a connection that runs.

use crate::shared::lock;
use crate::stream::{Inner, MptcpStream};
use crate::worker::Command;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use umptcp_stack_core::config::{BufferSize, ConnectionConfig, ConnectionOption, KeepAlive};
use umptcp_stack_core::error::ConnectionError;

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// How often to look whether a dropped connection has delivered everything.
const LINGER_CHECK: Duration = Duration::from_millis(2);

/// Options. Each applies to all handles of the connection. Setting one that the stack keeps, or asking for
/// it, fails with [`io::ErrorKind::NotConnected`] when the connection has ended.
impl MptcpStream {
    /// Time limit for reads; `None` means no limit. A read that exceeds it fails with
    /// [`io::ErrorKind::WouldBlock`].
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] when it is zero.
    pub fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        self.0.read_timeout.set(limit)
    }

    /// Time limit for writes; `None` means no limit. A write that exceeds it fails with
    /// [`io::ErrorKind::WouldBlock`].
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] when it is zero.
    pub fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        self.0.write_timeout.set(limit)
    }

    /// Time limit for reads.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.0.read_timeout.get())
    }

    /// Time limit for writes.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.0.write_timeout.get())
    }

    /// Whether reads and writes fail with [`io::ErrorKind::WouldBlock`] instead of waiting, whatever their
    /// time limits are (O_NONBLOCK). [`readiness`](Self::readiness) tells when to try again.
    pub fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        self.0.nonblocking.store(on, Ordering::Relaxed);
        Ok(())
    }

    /// Whether to send small segments immediately, without the Nagle algorithm (TCP_NODELAY).
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.set_option(ConnectionOption::NoDelay(on))
    }

    /// Whether small segments are sent immediately.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.setting(|config| config.no_delay)
    }

    /// Type of service of every packet of every subflow from now on (IP_TOS, IPV6_TCLASS): the DSCP in the
    /// upper six bits; the lower two are ignored, because they belong to ECN.
    pub fn set_traffic_class(&self, class: u8) -> io::Result<()> {
        self.set_option(ConnectionOption::TrafficClass(class))
    }

    /// Type of service of every packet.
    pub fn traffic_class(&self) -> io::Result<u8> {
        self.setting(|config| config.traffic_class)
    }

    /// Lets what is written go out right after the SYN/ACK, on a connection whose SYN brought data
    /// ([`ListenerBuilder::fast_open`](crate::ListenerBuilder::fast_open)): without a DATA_ACK, which takes the key that
    /// comes with the third ACK. Otherwise it waits for that. Changes nothing once the handshake is complete, nor in
    /// plain TCP.
    ///
    /// Only for a client that is known to take it, by what its request says, for example: this stack does, Linux (6.18)
    /// goes on as plain TCP.
    pub fn answer_early(&self) {
        let id = self.0.id;
        self.0.handle.commands.send(Command::Run(Box::new(move |_, cx| cx.stack.answer_early(cx.now, id))));
    }

    /// When to probe whether the peer is still there (SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL,
    /// TCP_KEEPCNT); `None` disables probing. The idle time starts anew. Times below one second count as one
    /// second.
    pub fn set_keep_alive(&self, settings: Option<KeepAlive>) -> io::Result<()> {
        self.set_option(ConnectionOption::KeepAlive(settings))
    }

    /// When to probe whether the peer is still there.
    pub fn keep_alive(&self) -> io::Result<Option<KeepAlive>> {
        self.setting(|config| config.keep_alive)
    }

    /// How long data may stay unacknowledged before the connection is aborted (TCP_USER_TIMEOUT, RFC 5482).
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] when it is zero.
    pub fn set_user_timeout(&self, limit: Duration) -> io::Result<()> {
        if limit.is_zero() {
            return Err(invalid("the user timeout must not be zero"));
        }
        self.set_option(ConnectionOption::UserTimeout(limit))
    }

    /// How long data may stay unacknowledged before the connection is aborted.
    pub fn user_timeout(&self) -> io::Result<Duration> {
        self.setting(|config| config.user_timeout)
    }

    /// Maximum number of bytes written but not yet acknowledged (SO_SNDBUF), or that the buffer tunes itself.
    /// What has been written stays when the buffer becomes smaller. With MPTCP as much as the receive buffer
    /// is used at least where both are fixed (RFC 8684 §3.3.5).
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] when it is zero.
    pub fn set_send_buffer(&self, size: impl Into<BufferSize>) -> io::Result<()> {
        let size = size.into();
        if is_nothing(size) {
            return Err(invalid("a send buffer of no bytes would never take anything"));
        }
        self.set_option(ConnectionOption::SendBuffer(size))?;
        self.0.shared.set_send_buffer(size.limit());
        Ok(())
    }

    /// What the send buffer was set to; [`ConnectionInfo::send_buffer`](crate::ConnectionInfo::send_buffer) is
    /// its present size.
    pub fn send_buffer(&self) -> io::Result<BufferSize> {
        self.setting(|config| config.send_buffer)
    }

    /// Maximum number of bytes received but not yet read (SO_RCVBUF), or that the buffer tunes itself. A
    /// window that the peer has been offered is not taken back. The handshake fixes how large the window can
    /// become: a subflow offers at most 65,535 bytes times a power of two, the least that was enough for the
    /// limit of that time.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] when it is zero.
    pub fn set_receive_buffer(&self, size: impl Into<BufferSize>) -> io::Result<()> {
        let size = size.into();
        if is_nothing(size) {
            return Err(invalid("a receive buffer of no bytes would never receive anything"));
        }
        self.set_option(ConnectionOption::ReceiveBuffer(size))?;
        self.0.shared.set_receive_buffer(size.limit());
        Ok(())
    }

    /// What the receive buffer was set to; [`ConnectionInfo::receive_buffer`](crate::ConnectionInfo::receive_buffer)
    /// is its present size.
    pub fn receive_buffer(&self) -> io::Result<BufferSize> {
        self.setting(|config| config.receive_buffer)
    }

    /// What dropping the last handle does with data that the peer has not acknowledged (SO_LINGER). With
    /// `None`, the default, it is delivered in the background. With zero, the connection is aborted and the
    /// peer gets a reset. With any other time, dropping the handle waits until all data has been
    /// acknowledged, but not longer than that; delivery then goes on in the background.
    pub fn set_linger(&self, limit: Option<Duration>) -> io::Result<()> {
        *lock(&self.0.linger) = limit;
        Ok(())
    }

    /// What dropping the last handle does with data that the peer has not acknowledged; see
    /// [`set_linger`](Self::set_linger).
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        Ok(*lock(&self.0.linger))
    }

    fn set_option(&self, option: ConnectionOption) -> io::Result<()> {
        let id = self.0.id;
        self.changed(move |_, cx| cx.stack.set_option(cx.now, id, option))
    }

    fn setting<T: Send + 'static>(
        &self,
        pick: impl FnOnce(&ConnectionConfig) -> T + Send + 'static,
    ) -> io::Result<T> {
        let id = self.0.id;
        let setting = self.0.handle.commands.call(move |_, cx| cx.stack.settings(id).map(pick))?;
        Ok(setting.ok_or(self.error(ConnectionError::NotFound))?)
    }
}

impl Inner {
    /// No handle is left.
    pub(crate) fn close(&self, linger: Option<Duration>) {
        let (id, commands) = (self.id, &self.handle.commands);
        if linger == Some(Duration::ZERO) {
            // If the worker has ended, so has the connection.
            let _ = commands.call(move |worker, cx| worker.abort(cx, id));
            return;
        }
        commands.send(Command::Close(id));
        let Some(end) = linger.and_then(|limit| Instant::now().checked_add(limit)) else { return };
        while commands.call(move |worker, cx| worker.has_unacknowledged(cx, id)).unwrap_or(false) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(LINGER_CHECK));
        }
    }
}

/// A buffer that would hold nothing.
fn is_nothing(size: BufferSize) -> bool {
    matches!(size, BufferSize::Fixed(0) | BufferSize::Auto { limit: 0 })
}

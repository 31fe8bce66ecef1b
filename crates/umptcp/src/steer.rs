//! Steering a stack while it runs, from outside of the code that holds its connections: what a control socket
//! offers.

use crate::error::Error;
use crate::stack::Stack;
use std::io;
use std::net::SocketAddr;
use umptcp_stack_core::config::{ConnectionConfig, ConnectionOption};
use umptcp_stack_core::device::SignalPort;
use umptcp_stack_core::error::{SetError, SubflowError};
use umptcp_stack_core::path_manager::Uses;
use umptcp_tun_driver::paths::PathSpec;
use umptcp_types::{ConnectionId, PathId, SubflowId};

impl Stack {
    /// Sets up a path on one more NIC, as those that [`StackBuilder::nics`](crate::StackBuilder::nics) names,
    /// and follows it from then on.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when the NIC has a path; [`io::ErrorKind::Unsupported`] when the
    /// stack was given its paths ready-made; otherwise what keeps the path from being set up.
    pub fn add_nic(&self, spec: &PathSpec) -> io::Result<PathId> {
        let Some(nics) = self.nics() else {
            let text = "the stack was started with paths of the program's own, not with NICs";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        };
        nics.add(spec, &self.handle().commands)
    }

    /// Subflows on a path are to be backups from now on, or not any more. Those that there are follow, and
    /// their peers are told (MP_PRIO, RFC 8684 §3.3.8). Returns `false` if there is no such path.
    pub fn set_path_backup(&self, path: PathId, backup: bool) -> io::Result<bool> {
        if let Some(nics) = self.nics() {
            nics.set_backup(path, backup);
        }
        Ok(self.handle().commands.call(move |_, cx| cx.stack.set_path_backup(cx.now, path, backup))?)
    }

    /// What path policies use the addresses of a path for, from now on: what they want is opened or told to
    /// peers at once, and subflows that there are stay. Returns `false` if there is no such path.
    pub fn set_path_uses(&self, path: PathId, uses: Uses) -> io::Result<bool> {
        if let Some(nics) = self.nics() {
            nics.set_uses(path, uses);
        }
        Ok(self.handle().commands.call(move |_, cx| cx.stack.set_path_uses(cx.now, path, uses))?)
    }

    /// Changes the settings that connections get which begin later and of which nothing else is said
    /// ([`StackBuilder::connection_config`](crate::StackBuilder::connection_config)). Listeners have those of the time
    /// when they began; those that [hold](crate::ListenerBuilder::hold) connections without settings of their own follow,
    /// and a [`Forwarder`](crate::Forwarder) has settings of its own. Those that there are stay as they are.
    pub fn change_defaults(&self, change: impl FnOnce(&mut ConnectionConfig)) {
        self.handle().change_defaults(change);
    }

    /// The ports that peers are told with the addresses of a path (ADD_ADDR with a port, RFC 8684 §3.4.1), in place of
    /// those that there were: what peers then open to them is taken. Peers are told of new ones at once, and that the
    /// others are no more; what was opened to those ends if there are other subflows. Returns `false` if there is no
    /// such path.
    ///
    /// # Errors
    /// When a port cannot be had on the path's NIC, as for a listener; nothing is changed then.
    pub fn set_signal_ports(&self, path: PathId, ports: Vec<SignalPort>) -> io::Result<bool> {
        let commands = &self.handle().commands;
        if let Some(nics) = self.nics() {
            nics.set_signal_ports(path, &ports, commands)?;
        }
        Ok(commands.call(move |_, cx| cx.stack.set_signal_ports(cx.now, path, ports))?)
    }

    /// Opens one more subflow of a connection over a path, beside those that the stack opens by itself: to
    /// `remote`, or to the peer's first address. What becomes of it, [`events`](Self::events) tell.
    ///
    /// # Errors
    /// When the stack has been stopped; the inner error when the connection may not open one there.
    pub fn open_subflow(
        &self,
        connection: ConnectionId,
        path: PathId,
        remote: Option<SocketAddr>,
    ) -> io::Result<Result<SubflowId, SubflowError>> {
        let open = move |_: &mut _, cx: &mut crate::worker::Context<'_>| {
            cx.stack.open_subflow(cx.now, connection, path, remote)
        };
        Ok(self.handle().commands.call(open)?)
    }

    /// Closes a subflow of a connection, by FIN if it works, while others go on. The stack opens none in its
    /// place for ten minutes, unless no other is left, its path changes, or the peer advertises its address
    /// anew.
    ///
    /// # Errors
    /// When the stack has been stopped; the inner error when there is no such subflow, or no other that
    /// works.
    pub fn close_subflow(
        &self,
        connection: ConnectionId,
        subflow: SubflowId,
    ) -> io::Result<Result<(), SubflowError>> {
        let close = move |_: &mut _, cx: &mut crate::worker::Context<'_>| {
            cx.stack.close_subflow(cx.now, connection, subflow)
        };
        Ok(self.handle().commands.call(close)?)
    }

    /// Gives a connection another congestion control algorithm; see
    /// [`MptcpStream::set_congestion`](crate::MptcpStream::set_congestion).
    ///
    /// # Errors
    /// When the stack has been stopped; the inner error when there is no such connection or algorithm.
    pub fn set_congestion(&self, connection: ConnectionId, name: &str) -> io::Result<Result<(), SetError>> {
        let name = name.to_owned();
        Ok(self.handle().commands.call(move |_, cx| cx.stack.set_congestion(cx.now, connection, &name))?)
    }

    /// Gives a connection another scheduler.
    ///
    /// # Errors
    /// When the stack has been stopped; the inner error when there is no such connection or scheduler.
    pub fn set_scheduler(&self, connection: ConnectionId, name: &str) -> io::Result<Result<(), SetError>> {
        let name = name.to_owned();
        Ok(self.handle().commands.call(move |_, cx| cx.stack.set_scheduler(cx.now, connection, &name))?)
    }

    /// Gives a connection another path policy; see
    /// [`MptcpStream::set_path_policy`](crate::MptcpStream::set_path_policy).
    ///
    /// # Errors
    /// When the stack has been stopped; the inner error when there is no such connection or policy.
    pub fn set_path_policy(&self, connection: ConnectionId, name: &str) -> io::Result<Result<(), SetError>> {
        let name = name.to_owned();
        Ok(self.handle().commands.call(move |_, cx| cx.stack.set_path_policy(cx.now, connection, &name))?)
    }

    /// Changes a setting of a connection.
    ///
    /// # Errors
    /// When the stack has been stopped; the inner error when there is no such connection.
    pub fn set_option(
        &self,
        connection: ConnectionId,
        option: ConnectionOption,
    ) -> io::Result<Result<(), SetError>> {
        Ok(self.handle().commands.call(move |_, cx| cx.stack.set_option(cx.now, connection, option))?)
    }
}

impl crate::Forwarder {
    /// Changes the settings of the side outside, for connections that are captured from now on.
    ///
    /// # Errors
    /// When the stack has been stopped.
    pub fn change(&self, change: impl FnOnce(&mut ConnectionConfig) + Send + 'static) -> io::Result<()> {
        let id = self.id();
        let done = self.commands().call(move |worker, _| worker.change_forward(id, change));
        done.map_err(|error: Error| error.into())
    }

    /// The settings of the side outside.
    ///
    /// # Errors
    /// When the stack has been stopped.
    pub fn config(&self) -> io::Result<ConnectionConfig> {
        let id = self.id();
        let found = self.commands().call(move |worker, _| worker.forward_config(id))?;
        found.ok_or_else(|| Error::Stopped.into())
    }
}

//! Multipath TCP (RFC 8684) in user space: one TCP connection over several NICs at once.
//!
//! A [`Stack`] runs on its own thread over a set of paths, each of them a device that carries IP packets. Its
//! [`MptcpStream`]s and [`MptcpListener`]s work like the standard library's `TcpStream` and `TcpListener` and
//! can be used from any thread:
//!
//! ```no_run
//! # #[cfg(target_os = "linux")]
//! # fn run() -> std::io::Result<()> {
//! use std::io::{Read, Write};
//!
//! let stack = umptcp::Stack::builder().nics(["wlan0", "wwan0"]).start()?;
//! let mut stream = stack.connect("192.0.2.1:80")?;
//! stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
//! println!("{}", stream.protocol()?);
//! std::io::copy(&mut stream, &mut std::io::stdout())?;
//! # Ok(())
//! # }
//! ```
//!
//! A connection whose peer or path does not support MPTCP has the same type and works the same way, as plain
//! TCP.
//! [`MptcpStream::protocol`] tells which of the two it is, and why.
//!
//! # Features
//! - `tokio`: streams and listeners for tasks of tokio, in the module `tokio`.
#![forbid(unsafe_code)]

#[cfg(target_os = "linux")]
mod addresses;
// Shared with the program; not part of the interface.
#[cfg(target_os = "linux")]
mod attempt;
#[doc(hidden)]
pub mod attempts;
#[cfg(target_os = "linux")]
mod caps;
#[cfg(target_os = "linux")]
mod carry;
#[cfg(target_os = "linux")]
mod clean_up;
#[cfg(target_os = "linux")]
mod connect;
#[cfg(target_os = "linux")]
mod cookies;
#[cfg(target_os = "linux")]
mod copies;
#[cfg(target_os = "linux")]
mod descriptor;
mod error;
#[cfg(target_os = "linux")]
mod events;
#[cfg(target_os = "linux")]
mod forward;
#[cfg(target_os = "linux")]
mod forwarded;
#[cfg(target_os = "linux")]
mod handle;
#[cfg(target_os = "linux")]
mod incoming;
#[cfg(target_os = "linux")]
mod limit;
#[cfg(target_os = "linux")]
mod listener;
#[cfg(target_os = "linux")]
mod mailbox;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(target_os = "linux")]
mod nics;
#[cfg(target_os = "linux")]
mod observer;
#[cfg(target_os = "linux")]
mod options;
mod protocol;
#[cfg(target_os = "linux")]
mod queue;
#[cfg(target_os = "linux")]
mod readiness;
#[cfg(all(test, target_os = "linux"))]
mod scratch;
#[cfg(target_os = "linux")]
mod settings;
#[cfg(target_os = "linux")]
mod shared;
// Shared with the program; not part of the interface.
#[cfg(unix)]
#[doc(hidden)]
pub mod signals;
#[cfg(target_os = "linux")]
mod splice;
#[cfg(target_os = "linux")]
mod stack;
#[cfg(target_os = "linux")]
mod steer;
#[cfg(target_os = "linux")]
mod stream;
#[cfg(all(target_os = "linux", feature = "tokio"))]
pub mod tokio;
#[cfg(target_os = "linux")]
mod udp_paths;
#[cfg(target_os = "linux")]
mod via;
#[cfg(target_os = "linux")]
mod waits;
#[cfg(target_os = "linux")]
#[cfg_attr(not(feature = "tokio"), allow(dead_code, reason = "only tasks of tokio wait"))]
mod wakers;
#[cfg(target_os = "linux")]
mod worker;

pub use error::{Error, NoWay};
pub use protocol::Protocol;
pub use umptcp_stack_core::config::{
    BufferSize, ConnectionConfig, ConnectionOption, Ecn, FastClose, KeepAlive, StackConfig, SynCookiePolicy,
};
pub use umptcp_stack_core::device::{ChosenIds, PathConfig, PathKind, SignalPort};
pub use umptcp_stack_core::error::{
    ConnectError, ConnectionError, FallbackReason, ListenError, SetError, SignalError, SubflowError,
};
pub use umptcp_stack_core::event::{LostSubflow, RefuseWith, SubflowReset, Traffic};
pub use umptcp_stack_core::monitor::{MonitorEvent, MonitoredConnection, MonitoredSubflow};
pub use umptcp_stack_core::observe::{Counter, CounterChange, Counters, Observation, Observer};
pub use umptcp_stack_core::path_manager::Uses;
pub use umptcp_stack_core::scheduler::Health;
pub use umptcp_stack_core::stack::{
    ConnectionInfo, ConnectionState, DataSequence, MemoryInfo, MptcpStatus, ReceivedMapping, SubflowInfo,
};
pub use umptcp_stack_core::wire::icmp::Unreachable;
pub use umptcp_stack_core::wire::mptcp::ResetReason;
pub use umptcp_types::{AddressId, ConnectionId, ListenerId, PathId, SubflowId};

#[cfg(target_os = "linux")]
pub use clean_up::{clean_up_leftovers, clean_up_on_signals};
#[cfg(target_os = "linux")]
pub use connect::StreamBuilder;
#[cfg(target_os = "linux")]
pub use events::{Event, Events};
#[cfg(target_os = "linux")]
pub use forward::Forwarder;
#[cfg(target_os = "linux")]
pub use forwarded::{Counted, Direction, ForwardSummary, Forwarded};
#[cfg(target_os = "linux")]
pub use memory::default_buffer_memory;

pub use incoming::{HoldingListener, Incoming, ListenScope};
#[cfg(target_os = "linux")]
pub use listener::{IntoStreams, ListenerBuilder, MptcpListener, Streams};
#[cfg(target_os = "linux")]
pub use readiness::Readiness;
#[cfg(target_os = "linux")]
pub use splice::{Splice, Spliced, splice};
#[cfg(target_os = "linux")]
pub use stack::{Guard, PathInfo, Stack, StackBuilder};
#[cfg(target_os = "linux")]
pub use stream::MptcpStream;
pub use umptcp_relay::{AnswerError, ClientName, Credential, Key, KeyFileError};
#[cfg(target_os = "linux")]
pub use umptcp_tun_driver::device::Device;
#[cfg(target_os = "linux")]
pub use umptcp_tun_driver::event_loop::AttachedPath;
#[cfg(target_os = "linux")]
pub use umptcp_tun_driver::paths::{PathSpec, SetupOptions};
#[cfg(target_os = "linux")]
pub use via::Via;

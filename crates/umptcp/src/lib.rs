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
//!
//! # The portable build
//! With `RUSTFLAGS="--cfg umptcp_portable"`, and on systems other than Linux, the library makes do with what Rust's standard
//! library and mio have everywhere: paths are inside UDP, `ADDRESS,mode=udp` with an address of this host. There are no
//! descriptors to wait on and nothing to clean up (`Readiness`, `clean_up_on_signals`). It is tested on Linux alone.
#![forbid(unsafe_code)]

mod addresses;
// Shared with the program; not part of the interface.
mod attempt;
#[doc(hidden)]
pub mod attempts;
mod caps;
mod carry;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod clean_up;
mod connect;
mod cookies;
mod copies;
mod descriptor;
mod error;
mod events;
mod files;
mod forward;
mod forwarded;
mod handle;
mod incoming;
mod limit;
mod listener;
mod mailbox;
mod memory;
mod nics;
mod observer;
mod options;
mod protocol;
mod queue;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod readiness;
#[cfg(test)]
mod scratch;
mod settings;
mod shared;
// Shared with the program; not part of the interface.
#[cfg(unix)]
#[doc(hidden)]
pub mod signals;
mod splice;
mod stack;
mod steer;
mod stream;
#[cfg(feature = "tokio")]
pub mod tokio;
mod udp_paths;
mod via;
mod waits;
#[cfg_attr(not(feature = "tokio"), allow(dead_code, reason = "only tasks of tokio wait"))]
mod wakers;
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

#[cfg(all(target_os = "linux", not(umptcp_portable)))]
pub use clean_up::{clean_up_leftovers, clean_up_on_signals};
pub use connect::StreamBuilder;
pub use events::{Event, Events};
pub use forward::Forwarder;
pub use forwarded::{Counted, Direction, ForwardSummary, Forwarded};
pub use memory::default_buffer_memory;

pub use incoming::{HoldingListener, Incoming, ListenScope};
pub use listener::{IntoStreams, ListenerBuilder, MptcpListener, Streams};
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
pub use readiness::Readiness;
pub use splice::{Splice, Spliced, splice};
pub use stack::{Guard, PathInfo, Stack, StackBuilder};
pub use stream::MptcpStream;
pub use umptcp_relay::{AnswerError, ClientName, Credential, Key, KeyFileError};
pub use umptcp_tun_driver::device::Device;
pub use umptcp_tun_driver::event_loop::AttachedPath;
pub use umptcp_tun_driver::paths::{PathSpec, SetupOptions};
pub use via::Via;

//! Capture of programs that know nothing of MPTCP: a network namespace whose only way out is a TUN device,
//! and programs that run in it.
//!
//! A [`Namespace`] has the host's addresses, so that what programs print is true. Its [`Tun`] goes to a stack
//! as a path of kind `Capture`. What programs send to this host itself ([`Local`]) reaches the host's
//! servers, where none inside has the port. [`Program`] runs a command in it with the privileges of whoever
//! called for it.
//!
//! [`HostCapture`] takes connections of programs in the host's own namespace.
#![cfg(target_os = "linux")]

mod device;
mod diag;
mod error;
mod host;
mod local;
mod namespace;
mod owners;
mod periodic;
mod ports;
mod program;
mod servers;
mod transparent;
mod udp;

pub use device::{Addresses, DEVICE};
pub use error::CaptureError;
pub use host::{Adopted, HostCapture, OWN_MARK, Selection, mark_own};
pub use local::Local;
pub use namespace::{Namespace, current_network};
pub use owners::Owners;
pub use periodic::Periodic;
pub use program::{Caller, Program, Running, signal_process};
pub use servers::follow_servers;
pub use umptcp_tun_driver::device::Tun;

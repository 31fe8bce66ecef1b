//! The control socket of a running instance.

#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod describe;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod endpoints;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod events;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod programs;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod served;
mod source;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod stack;

#[cfg(all(target_os = "linux", not(umptcp_portable)))]
pub(crate) use describe::run_summary;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
pub(crate) use programs::Programs;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
pub(crate) use served::{Served, start, start_as};
pub(crate) use source::StackSource;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
pub(crate) use stack::StackInstance;

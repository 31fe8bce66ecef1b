//! Paths as they are asked for and as they change, whoever sets them up.

mod caps;
mod change;
mod nic;
mod options;
mod spec;

pub use caps::Caps;
pub use change::PathChange;
pub use nic::NicInfo;
pub use options::SetupOptions;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
pub(crate) use spec::unusable_because;
pub use spec::{Mode, PathSpec, check_uses};

//! How many descriptors this process may have.

#[cfg(all(target_os = "linux", not(umptcp_portable)))]
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// As many as the host allows: each connection to the kernel takes one.
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
pub(crate) fn raise_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::debug!(%error, "the limit of descriptors stays");
    }
}

/// They are as the host has set them.
#[cfg(any(not(target_os = "linux"), umptcp_portable))]
pub(crate) fn raise_descriptor_limit() {}

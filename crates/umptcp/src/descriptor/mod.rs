//! A descriptor whose readiness is set by the library.

#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod sockets;

#[cfg(all(target_os = "linux", not(umptcp_portable)))]
pub(crate) use sockets::Descriptor;

/// What would not have to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct State {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

/// There is none in the portable build.
#[cfg(any(not(target_os = "linux"), umptcp_portable))]
#[derive(Debug, Default)]
pub(crate) struct Descriptor;

#[cfg(any(not(target_os = "linux"), umptcp_portable))]
impl Descriptor {
    /// Shows nothing.
    #[allow(clippy::unused_self, reason = "Linux has something to show")]
    pub(crate) fn update(&self, _look: impl FnOnce() -> State) {}
}

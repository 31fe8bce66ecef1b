//! The algorithms that scenarios may name.

/// What scenarios may name.
#[derive(Clone, Debug)]
pub struct Registries {
    /// Congestion control algorithms.
    pub congestion: umptcp_congestion::Registry,
    /// Schedulers.
    pub schedulers: umptcp_scheduler::Registry,
}

impl Default for Registries {
    /// The built-in algorithms and schedulers.
    fn default() -> Self {
        Registries { congestion: umptcp_congestion::built_in(), schedulers: umptcp_scheduler::built_in() }
    }
}

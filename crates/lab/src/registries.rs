//! The algorithms that scenarios may name.

/// What scenarios may name.
#[derive(Clone, Debug)]
pub struct Registries {
    /// Congestion control algorithms.
    pub congestion: umptcp_congestion::Registry,
    /// Schedulers.
    pub schedulers: umptcp_scheduler::Registry,
    /// Path policies.
    pub path_policies: umptcp_path_manager::Registry,
}

impl Default for Registries {
    /// The built-in algorithms, schedulers and policies.
    fn default() -> Self {
        Registries {
            congestion: umptcp_congestion::built_in(),
            schedulers: umptcp_scheduler::built_in(),
            path_policies: umptcp_path_manager::built_in(),
        }
    }
}

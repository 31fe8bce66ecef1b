//! Paths over NICs in separate network namespaces: packets of a path leave through its NIC with the right
//! source, answers come back, nothing else passes, and nothing is left behind.
//!
//! If a rule prevents something, the test also removes the rule and checks that it then happens.
#![cfg(all(target_os = "linux", not(umptcp_portable)))]

mod conntrack;
mod forwarding;
mod instances;
mod mirror;
mod nat;
mod network;
mod refusals;
mod routed;
mod ruleset;
mod stateless;
mod subnet;

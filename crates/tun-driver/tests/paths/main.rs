//! Paths over NICs in network namespaces of the tests' own: what is sent from a path leaves by its NIC with the right
//! source, answers come back, nothing else passes, and nothing is left behind.
//!
//! Where a rule keeps something from happening, the test takes the rule away and sees it happen.
#![cfg(target_os = "linux")]

mod conntrack;
mod forwarding;
mod instances;
mod lab;
mod mirror;
mod nat;
mod refusals;
mod routed;
mod subnet;

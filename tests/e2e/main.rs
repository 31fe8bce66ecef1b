//! End-to-end tests: real packets between network namespaces, with the Linux kernel's MPTCP as the peer.
//! `cargo xtask test` runs them with the privileges and tools they require.

mod as_root;
mod auto;
mod bad_input;
mod baseline;
mod complaints;
mod control;
mod doctor;
mod fallback;
mod firewalls;
mod inside_udp;
mod languages;
mod lossy;
mod matrix;
mod packets;
mod paths;
mod portable;
mod portal;
mod programs;
mod proxy;
mod relay;
mod relayed;
mod robustness;
mod run;
mod terminal;
mod umptcp_host;
mod up;
mod with_kernel;

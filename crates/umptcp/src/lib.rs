//! umptcp

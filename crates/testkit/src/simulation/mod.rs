//! Bodies of tests between real stacks on a simulated network, which `cargo xtask digest` runs, too.

pub mod cases;
pub mod matrix;
pub mod operations;
pub mod soak;
pub mod transfers;
pub mod uneven;
pub mod windows;

use proptest::prelude::*;
use umptcp_netsim::{Direction, Side};
use umptcp_stack_core::config::BufferSize;

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Client), Just(Side::Server)]
}

fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Forward), Just(Direction::Reverse)]
}

/// The directions that something concerns: one, or both.
fn directions(of: Option<Direction>) -> Vec<Direction> {
    of.map_or(Direction::BOTH.to_vec(), |direction| vec![direction])
}

/// So many bytes; from a mebibyte on the limit of a buffer that tunes itself.
fn buffer_of(bytes: usize) -> BufferSize {
    if bytes >= 1 << 20 { BufferSize::Auto { limit: bytes } } else { BufferSize::Fixed(bytes) }
}

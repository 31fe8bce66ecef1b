//! What all connections of a stack share. It knows nothing of connections.
//!
//! | module | contents |
//! |---|---|
//! | `shared` | [`Context`]: the parts below, and what they do together |
//! | `packets` | from a segment to a packet; packets that belong to no connection |
//! | `hosts` | what is remembered of other hosts: `black_holes`, `fast_open` |
//! | `stand_ins` | paths inside UDP in the place of native ones, and which is tried first |
//! | `registry` | congestion control, schedulers and path policies by name |
//! | `paths`, `meter` | local devices, and what may still be carried on one |
//! | `tuples`, `time_wait`, `ports`, `port_set` | four-tuples in use, and local ports that are free |
//! | `tokens` | RFC 8684 §3.1: whose token it is |
//! | `half_open`, `syn_cookies` | listeners under load |
//! | `challenges` | how many answers nobody asked for may be sent (RFC 5961) |
//! | `memory` | what the buffers of all connections hold |
//! | `randomness`, `hash` | all that is random, from one seed |
//! | `observed`, `events`, `monitored` | what observers, the application and watchers are told |

mod black_holes;
pub(crate) mod challenges;
mod events;
pub(crate) mod fast_open;
mod half_open;
mod hash;
mod hosts;
mod memory;
mod meter;
mod monitored;
mod observed;
mod packets;
mod paths;
mod port_set;
mod ports;
mod randomness;
mod registry;
mod shared;
mod stand_ins;
pub(crate) mod syn_cookies;
pub(crate) mod time_wait;
mod tokens;
mod tuples;

pub(crate) use hash::Seeded;
pub(crate) use memory::Pressure;
pub(crate) use meter::{Meter, Use};
pub(crate) use packets::{Outgoing, Reset};
pub(crate) use paths::Chosen;
pub(crate) use shared::Context;

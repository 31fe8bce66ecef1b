//! Bytes in memory: payload shared between queues, reassembly, sets of ranges.
//!
//! | module | contents |
//! |---|---|
//! | [`payload`] | the bytes of one segment, as slices shared with the application's writes |
//! | [`slices`] | bytes in order, waiting for the application |
//! | [`reassembly`] | bytes out of order, of a subflow or of the connection's data |
//! | [`ranges`] | sets of and maps from ranges of positions |

pub mod payload;
pub(crate) mod ranges;
pub mod reassembly;
pub(crate) mod slices;

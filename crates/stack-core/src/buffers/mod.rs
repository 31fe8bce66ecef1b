//! Bytes in memory: payload shared between queues, reassembly, joining small pieces, sets of ranges.
//!
//! | module | contents |
//! |---|---|
//! | [`join`] | copying small pieces together |
//! | [`payload`] | the bytes of one segment, as slices shared with the application's writes |
//! | `give_back` | the memory of queues that have become empty |
//! | `slices` | bytes in order, waiting for the application |
//! | `reassembly` | bytes out of order, of a subflow or of the connection's data |
//! | `ranges` | sets of and maps from ranges of positions |

pub(crate) mod give_back;
pub mod join;
pub mod payload;
pub(crate) mod ranges;
pub(crate) mod reassembly;
pub(crate) mod slices;

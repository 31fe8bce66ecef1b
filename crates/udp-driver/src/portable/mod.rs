//! The device without anything that only Linux has.

pub mod device;
pub(crate) mod watched;

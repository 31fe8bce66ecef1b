//! Devices in the middle that look into packets and change them.
//!
//! | box | what it does |
//! |---|---|
//! | [`StripMptcp`] | removes options: from SYNs, from the rest, of one subtype |
//! | [`Nat`] | translates addresses and ports; forgets mappings that are idle, or all at once |
//! | [`RandomiseSequence`] | replaces initial sequence numbers |
//! | [`SplitSegments`], [`JoinSegments`] | cut and join segments, with three fates of their options |
//! | [`RewritePayload`] | replaces bytes of the stream by as many, fewer or more |
//! | [`AcknowledgingProxy`] | acknowledges in the receiver's place, and may not deliver |
//! | [`DuplicateOptions`] | puts every option into the header twice |
//! | [`InjectReset`] | forges RSTs with exact, near and blind aim |
//! | [`Reorder`], [`Duplicate`] | hold packets back, send them twice |
//! | [`DropIf`] | drops the packets that a function chooses |
//!
//! [`OneWay`] limits a box to one direction, [`Since`] to the time from some instant on; boxes on one cable
//! form a chain.

mod disorder;
mod edit;
mod filter;
mod interface;
mod nat;
mod proxy;
mod reset;
mod rewrite;
mod segments;
mod sequence;
mod strip;
#[cfg(test)]
mod tests;

pub use disorder::{Duplicate, DuplicateOptions, Reorder};
pub use filter::{DropIf, OneWay, Since};
pub use interface::{Middlebox, Output};
pub use nat::Nat;
pub use proxy::AcknowledgingProxy;
pub use reset::{Aim, InjectReset};
pub use rewrite::RewritePayload;
pub use segments::{JoinSegments, Options, SplitSegments};
pub use sequence::RandomiseSequence;
pub use strip::{StripMptcp, StripWhere};

//! One connection: the data level of RFC 8684 over one or more subflows, or plain TCP over one.
//!
//! | module | RFC 8684 | what is in it |
//! |---|---|---|
//! | `keys` | §3.1, §3.2 | tokens, IDSNs, HMACs |
//! | `handshake` | §3.1 | MP_CAPABLE in both roles |
//! | `fallback` | §3.7 | back to plain TCP: options lost, checksums that fail, MP_FAIL, infinite mappings |
//! | `join` | §3.2 | MP_JOIN in both roles |
//! | `fast_open` | appendix B | data in the SYN |
//! | `mapping` | §3.3.1 | data sequence mappings |
//! | `input`, `receive_queue`, `slices` | §3.3 | received segments, reassembly, window |
//! | `output`, `send_queue`, `schedule` | §3.3 | what is sent next, and on which subflow |
//! | `data_ack`, `reinject` | §3.3.2, §3.3.6 | DATA_ACK, reinjection |
//! | `address` | §3.4 | ADD_ADDR, REMOVE_ADDR, MP_PRIO |
//! | `close` | §3.3.3, §3.5, §3.6 | DATA_FIN, MP_FASTCLOSE, RST |

pub(crate) mod address;
mod addresses;
mod adverts;
mod application;
pub(crate) mod close;
pub(crate) mod connection;
pub(crate) mod data_ack;
pub(crate) mod failures;
pub(crate) mod fallback;
mod fast_close;
pub(crate) mod fast_open;
pub(crate) mod handshake;
mod incoming;
pub(crate) mod info;
pub(crate) mod input;
pub(crate) mod join;
pub(crate) mod join_state;
pub(crate) mod lifecycle;
pub mod mapping;
pub(crate) mod negotiation;
mod options;
mod outgoing;
pub(crate) mod output;
mod plain;
mod receive;
mod receive_queue;
mod reinject;
pub(crate) mod reset;
pub(crate) mod schedule;
pub(crate) mod send;
mod send_queue;
mod signals;
pub(crate) mod subflow;
mod subflows;
mod timers;

pub use crate::wire::mptcp::keys;
pub(crate) use connection::Connection;

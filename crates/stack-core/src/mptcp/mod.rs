//! One connection: the data level of RFC 8684 over one or more subflows, or plain TCP over one.
//!
//! What a connection consists of. Each of these keeps its own state, and knows nothing of the connection:
//!
//! | file | RFC 8684 | contents |
//! |---|---|---|
//! | `negotiation` | §3.1 | MPTCP or not, keys, tokens, IDSNs, checksums, what is confirmed |
//! | `lifecycle` | §3.5 | from the first SYN to the end, and FASTCLOSE_WAIT |
//! | `send`, `send_queue`, `carriers`, `reinject` | §3.3 | what is written, sent, acknowledged and to be sent again; the DATA_FIN |
//! | `receive`, `receive_queue` | §3.3 | what has been received, the window, the form of DATA_ACKs |
//! | `right_size` | | the size of a buffer that tunes itself |
//! | `plain` | §3.7 | offsets and the infinite mapping after a fallback |
//! | `subflows` | | the subflows; those that end leave when the step is over |
//! | `subflow` | | one of them: its TCP, and `join_state`, `incoming`, `outgoing`, `signals` |
//! | `mapping` | §3.3.1 | data sequence mappings |
//! | `meters` | | what has been carried on paths with a limit |
//! | `kept` | | what was refused for want of memory |
//! | `addresses`, `adverts`, `failures` | §3.4 | addresses of both ends, which were advertised, which failed |
//! | `application` | | what the application has been told; the place in the stack's queues |
//! | `options` | | the table of the option space |
//!
//! What it does. Each of these is an `impl` of [`Connection`]:
//!
//! | file | RFC 8684 | contents |
//! |---|---|---|
//! | `connection` | | the connection itself, how it begins, reading and writing |
//! | `handshake` | §3.1 | MP_CAPABLE in both roles |
//! | `join` | §3.2 | MP_JOIN in both roles |
//! | `fast_open` | appendix B | data in the SYN |
//! | `input`, `data_ack` | §3.3 | received segments, DATA_ACKs |
//! | `output`, `schedule`, `blocking`, `tail`, `remeasure` | §3.3 | what is sent next, and on which subflow |
//! | `tuning` | | how large the buffers are to be |
//! | `scarce` | | the memory of all connections |
//! | `caps` | | what follows when a path has carried what it may |
//! | `address` | §3.4 | ADD_ADDR, REMOVE_ADDR, MP_PRIO, the path manager |
//! | `stand_ins` | | which of two paths over a NIC is used, the native one or the one inside UDP |
//! | `fallback` | §3.7 | back to plain TCP |
//! | `close`, `fast_close`, `reset` | §3.3.3, §3.5, §3.6 | the end of subflows and connections |
//! | `timers` | | every timer once: when it fires, and what it does |
//! | `info` | | what can be asked |
//!
//! What it does of each requirement of RFC 8684: `docs/src/conformance.md`; packet by packet:
//! `docs/src/by-example.md`.

mod address;
mod addresses;
mod adverts;
mod application;
mod blocking;
mod caps;
mod carriers;
mod close;
pub(crate) mod connection;
mod data_ack;
mod failures;
mod fallback;
mod fast_close;
mod fast_open;
pub(crate) mod handshake;
mod incoming;
mod info;
mod input;
pub(crate) mod join;
pub(crate) mod join_state;
mod kept;
pub(crate) mod lifecycle;
pub(crate) mod mapping;
mod meters;
mod monitor;
mod negotiation;
mod notices;
mod options;
mod outgoing;
mod output;
mod plain;
mod receive;
mod receive_queue;
mod reinject;
mod remeasure;
pub(crate) mod reset;
mod right_size;
mod scarce;
mod schedule;
mod send;
mod send_queue;
mod signals;
mod stand_ins;
mod steer;
pub(crate) mod subflow;
mod subflows;
mod tail;
mod timers;
mod tuning;

pub(crate) use connection::Connection;

//! The examples, in the order of the book.

use super::{Example, scripts};

/// The text of an example.
macro_rules! text {
    ($name:literal) => {
        include_str!(concat!("text/", $name, ".md"))
    };
}

/// All of them.
pub const EXAMPLES: &[Example] = &[
    Example {
        name: "handshake",
        title: "Handshake: MP_CAPABLE",
        sections: &["3.1"],
        code: &[
            (
                "crates/stack-core/src/mptcp/handshake.rs",
                "which options the three packets carry, and what of the peer's is believed",
            ),
            ("crates/stack-core/src/mptcp/negotiation.rs", "what the two sides have agreed on"),
            ("crates/stack-core/src/wire/mptcp/keys.rs", "token and initial data sequence number of a key"),
        ],
        script: scripts::handshake,
        text: text!("handshake"),
    },
    Example {
        name: "join",
        title: "A second subflow: MP_JOIN",
        sections: &["3.2"],
        code: &[
            ("crates/stack-core/src/mptcp/join.rs", "joins from either side"),
            ("crates/stack-core/src/mptcp/join_state.rs", "how far a join has come"),
            ("crates/stack-core/src/wire/mptcp/keys.rs", "the HMACs"),
        ],
        script: scripts::join,
        text: text!("join"),
    },
    Example {
        name: "dss",
        title: "Data: DSS",
        sections: &["3.3", "3.3.1", "3.3.2"],
        code: &[
            ("crates/stack-core/src/mptcp/mapping.rs", "mappings that have come"),
            ("crates/stack-core/src/mptcp/receive.rs", "from mapped bytes to the application's"),
            ("crates/stack-core/src/mptcp/schedule.rs", "which subflow gets which bytes, with which mapping"),
            ("crates/stack-core/src/mptcp/data_ack.rs", "DATA_ACKs that come"),
        ],
        script: scripts::dss,
        text: text!("dss"),
    },
    Example {
        name: "reinjection",
        title: "Reinjection",
        sections: &["3.3.6"],
        code: &[
            ("crates/stack-core/src/mptcp/reinject.rs", "what is sent on another subflow, and when"),
            ("crates/stack-core/src/mptcp/send_queue.rs", "data that are not acknowledged at the data level"),
        ],
        script: scripts::reinjection,
        text: text!("reinjection"),
    },
    Example {
        name: "data-fin",
        title: "The end of the data: DATA_FIN",
        sections: &["3.3.3"],
        code: &[
            ("crates/stack-core/src/mptcp/close.rs", "the ends of both directions"),
            ("crates/stack-core/src/mptcp/lifecycle.rs", "the connection's states"),
        ],
        script: scripts::data_fin,
        text: text!("data-fin"),
    },
    Example {
        name: "add-addr",
        title: "Telling of an address: ADD_ADDR",
        sections: &["3.4.1"],
        code: &[
            ("crates/stack-core/src/mptcp/adverts.rs", "what is told to the peer, until it is echoed"),
            (
                "crates/stack-core/src/mptcp/addresses.rs",
                "addresses of both sides, and what the peer says of its own",
            ),
        ],
        script: scripts::add_addr,
        text: text!("add-addr"),
    },
    Example {
        name: "remove-addr",
        title: "An address is gone: REMOVE_ADDR",
        sections: &["3.4.2"],
        code: &[
            ("crates/stack-core/src/mptcp/adverts.rs", "what is told to the peer"),
            ("crates/stack-core/src/mptcp/addresses.rs", "what becomes of the peer's subflows"),
        ],
        script: scripts::remove_addr,
        text: text!("remove-addr"),
    },
    Example {
        name: "mp-prio",
        title: "Backup: MP_PRIO",
        sections: &["3.3.8"],
        code: &[
            ("crates/stack-core/src/mptcp/signals.rs", "options that wait for a packet"),
            ("crates/stack-core/src/mptcp/schedule.rs", "which subflow gets which bytes"),
        ],
        script: scripts::mp_prio,
        text: text!("mp-prio"),
    },
    Example {
        name: "fallback",
        title: "Fallback to TCP",
        sections: &["3.7"],
        code: &[
            ("crates/stack-core/src/mptcp/fallback.rs", "when, and what is sent from then on"),
            ("crates/stack-core/src/mptcp/plain.rs", "the connection as plain TCP"),
        ],
        script: scripts::fallback,
        text: text!("fallback"),
    },
    Example {
        name: "fast-close",
        title: "Fast close: MP_FASTCLOSE",
        sections: &["3.5", "3.6"],
        code: &[("crates/stack-core/src/mptcp/fast_close.rs", "both ways to abort, and being aborted")],
        script: scripts::fast_close,
        text: text!("fast-close"),
    },
];

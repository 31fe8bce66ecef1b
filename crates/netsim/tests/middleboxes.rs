//! Middleboxes of every kind, at every place, acting on either side's packets: what becomes of the connection, and that no
//! byte is wrong.
//!
//! The network is a client with two interfaces, a router on the way of each, and a server with one address:
//!
//! ```text
//!        ┌── cable 0 ── r0 ── cable 2 ──┐
//! client ┤                              ├ server
//!        └── cable 1 ── r1 ── cable 3 ──┘
//! ```
//!
//! Each test has some rows of the matrix; a row is a box, its cells are the places ([`Place`]) and whose packets it acts on
//! ([`Whose`]). A cell says what comes of a transfer both ways ([`Want`]). Everywhere each byte arrives as it was sent, or
//! the connection ends with an error, but for payload that a box rewrites. Without DSS checksums MPTCP delivers that as
//! plain TCP would have. With them it does not, until the only subflow is damaged: then RFC 8684 §3.7 has the connection
//! fall back, the application is told why, and from there on the box may do to it what it does to TCP. With
//! `strict_checksums` the connection ends with an error instead.

#[path = "middleboxes/harness.rs"]
mod harness;
#[path = "middleboxes/rows.rs"]
mod rows;

use harness::{Family, Outcome, Place, Seen, Want, Whose, check, settings, transfer_with};
use rows::*;
use umptcp_netsim::middlebox::{Aim, Options, StripWhere};
use umptcp_netsim::{Duration, Side};
use umptcp_stack_core::config::ConnectionConfig;
use umptcp_stack_core::error::ConnectionError;
use umptcp_stack_core::error::FallbackReason::*;
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::wire::mptcp::subtype;

const ROLES: [Whose; 3] = [Whose::Client, Whose::Server, Whose::All];

/// MPTCP to the end with so many subflows in all, none of which was lost.
const KEPT: Want = Want::Kept(2);
const ALONE: Want = Want::Kept(1);

/// Runs a row: both families, every place, each of `roles`, with and without checksums as `checksums` says. No box looks at the
/// addresses, so a cell wants the same of both families.
#[track_caller]
fn row(
    name: &str,
    roles: &[Whose],
    checksums: &[bool],
    make: impl Fn(Whose) -> Boxes,
    want: impl Fn(Place, Whose) -> Want,
) {
    for checksum in checksums {
        row_with(&format!("{name}, checksums {checksum}"), &settings(*checksum), roles, &make, &want);
    }
}

/// A row with settings of its own.
#[track_caller]
fn row_with(
    name: &str,
    config: &ConnectionConfig,
    roles: &[Whose],
    make: impl Fn(Whose) -> Boxes,
    want: impl Fn(Place, Whose) -> Want,
) {
    for whose in roles {
        for (place, family) in cells() {
            let seen = transfer_with(place, family, config.clone(), || make(*whose));
            check(&format!("{name}, {place:?}, {whose:?}, {family:?}"), &seen, &want(place, *whose));
        }
    }
}

/// Every place in every family.
fn cells() -> impl Iterator<Item = (Place, Family)> {
    Family::BOTH.into_iter().flat_map(|family| Place::ALL.map(|place| (place, family)))
}

/// What comes of data whose DSS options are lost on the way.
fn without_options(place: Place, whose: Whose) -> Want {
    match (place.first(), whose) {
        (true, Whose::Client) => Want::Plain(Some(InfiniteMapping), Some(NoOptionInData)),
        (true, Whose::Server) => Want::Plain(Some(NoOptionInData), Some(InfiniteMapping)),
        (true, Whose::All) => Want::Plain(Some(NoOptionInData), Some(NoOptionInData)),
        (false, Whose::Client) => Want::Mptcp,
        (false, _) => Want::Lost(Counter::MPRstTx),
    }
}

#[test]
fn options_stripped_from_syns() {
    for which in [StripWhere::Syn, StripWhere::Everything] {
        row("strip SYNs", &ROLES, &[false], strip(which), |place, whose| match (place.first(), whose) {
            // RFC 8684 §3.2: a SYN/ACK without MP_JOIN, or a SYN that lost it, is no join.
            (false, _) => ALONE,
            // The server was never offered MPTCP.
            (true, Whose::Client | Whose::All) => Want::Plain(Some(NoOptionInSynAck), None),
            (true, Whose::Server) => Want::Plain(Some(NoOptionInSynAck), Some(NoOptionInAck)),
        });
    }
}

#[test]
fn options_stripped_after_the_syns() {
    row("strip after SYN", &ROLES, &[false], strip(StripWhere::AfterSyn), |place, whose| {
        match (place.first(), whose) {
            (true, Whose::Client | Whose::All) => Want::Plain(Some(NoOptionInData), Some(NoOptionInAck)),
            // The client's options pass, so its infinite mapping tells the server.
            (true, Whose::Server) => Want::Plain(Some(NoOptionInData), Some(InfiniteMapping)),
            // The third ACK of a join without its HMAC.
            (false, Whose::Client | Whose::All) => ALONE,
            (false, Whose::Server) => Want::Lost(Counter::MPRstTx),
        }
    });
    let capable = strip_subtype(subtype::MP_CAPABLE);
    row("strip MP_CAPABLE after SYN", &[Whose::Client], &[false], capable, |place, _| {
        if place.first() { Want::Plain(Some(NoOptionInData), Some(NoOptionInAck)) } else { KEPT }
    });
    row("strip MP_JOIN", &ROLES, &[false], strip_join, |place, _| match place {
        Place::ClientSide | Place::ServerSide => KEPT,
        Place::SecondPath | Place::Both => ALONE,
    });
    row("strip DSS", &ROLES, &[false], strip_subtype(subtype::DSS), without_options);
}

#[test]
fn options_stripped_from_some_point_on() {
    row("strip later", &ROLES, &[false], strip_later, |place, _| match place {
        // RFC 8684 §3.7: no fallback any more. The subflow goes when its data finds no mapping, unless the transfer is over
        // by then: the other path has brought what was not DATA_ACKed.
        Place::ClientSide | Place::ServerSide | Place::SecondPath => Want::Mptcp,
        Place::Both => Want::Error(&[ConnectionError::Reset, ConnectionError::Broken]),
    });
}

#[test]
fn addresses_and_sequence_numbers_translated() {
    row("NAT", &[Whose::All], &[false], nat, |_, _| KEPT);
    row("NAT that forgets", &[Whose::All], &[false], nat_rebinding, |_, _| Want::Mptcp);
    row("sequence numbers", &[Whose::All], &[true], randomise, |_, _| KEPT);
}

#[test]
fn segments_cut() {
    row("cut, options copied", &ROLES, &[false, true], split(Options::Copied), |_, _| KEPT);
    row("cut, options on the first", &ROLES, &[false, true], split(Options::First), |_, _| KEPT);
    row("cut, options dropped", &ROLES, &[true], split(Options::Dropped), without_options);
}

#[test]
fn segments_joined() {
    row("joined, options the same", &ROLES, &[false, true], join(Options::Copied), |_, _| KEPT);
    // A mapping that is lost is as good as lost data once the subflow is given up: RFC 8684 §3.3.1.
    row("joined, options of the first", &ROLES, &[false, true], join(Options::First), |_, _| Want::Mptcp);
    row("joined, options dropped", &ROLES, &[true], join(Options::Dropped), |place, whose| {
        match (place.first(), whose) {
            (true, Whose::Client | Whose::All) => Want::Plain(Some(NoOptionInData), Some(NoOptionInAck)),
            (true, Whose::Server) => Want::Plain(Some(NoOptionInData), Some(InfiniteMapping)),
            (false, Whose::Client | Whose::All) => ALONE,
            (false, Whose::Server) => Want::Lost(Counter::MPRstTx),
        }
    });
}

/// Replacements at position 50,000 of each subflow: of the same length, longer, shorter.
const REWRITES: [(u32, &[u8]); 3] = [(4, b"wxyz"), (4, b"longer than that"), (14, b"less")];

#[test]
fn payload_rewritten_and_checksums_on() {
    for (remove, insert) in REWRITES {
        row("rewritten", &ROLES, &[true], rewrite(remove, insert), |place, _| match place {
            // MP_FAIL with RST (RFC 8684 §3.7); the bytes come by the other path.
            Place::ClientSide | Place::ServerSide | Place::SecondPath => Want::Lost(Counter::MPFailTx),
            Place::Both => Want::ErrorOrTold,
        });
    }
}

/// `strict_checksums`: no wrong byte, not even where plain TCP would have carried on.
#[test]
fn payload_rewritten_and_checksums_strict() {
    let strict = ConnectionConfig { strict_checksums: true, ..settings(true) };
    const ENDS: &[ConnectionError] = &[ConnectionError::Broken, ConnectionError::Reset];
    for (remove, insert) in REWRITES {
        row_with("rewritten, strict", &strict, &ROLES, rewrite(remove, insert), |place, _| match place {
            Place::ClientSide | Place::ServerSide | Place::SecondPath => Want::Lost(Counter::MPFailTx),
            // Each subflow brings 50,000 bytes and is reset, until none is opened any more.
            Place::Both => Want::Error(ENDS),
        });
    }
    let strip = strip_subtype(subtype::DSS);
    row_with("strip DSS, strict", &strict, &ROLES, strip, |place, whose| {
        // Where one direction's options pass, the other path may be joined before the first is given up.
        if place.first() { Want::MptcpOrError(ENDS) } else { without_options(place, whose) }
    });
}

#[test]
fn payload_rewritten_and_checksums_off() {
    let plain = ConnectionConfig { mptcp: false, ..settings(false) };
    for (remove, insert) in REWRITES {
        for (whose, receiver) in [(Whose::Client, Side::Server), (Whose::Server, Side::Client)] {
            let make = || rewrite(remove, insert)(whose);
            for family in Family::BOTH {
                let tcp = transfer_with(Place::ClientSide, family, plain.clone(), make);
                assert_eq!(tcp.outcome, Outcome::Changed(receiver, 50_000), "plain TCP, {family:?}");
            }
            for (place, family) in cells() {
                let seen = transfer_with(place, family, settings(false), make);
                let cell = format!("rewritten, {place:?}, {whose:?}, {family:?}, no checksums");
                check(&cell, &seen, &Want::Changed(receiver, 50_000));
            }
        }
    }
}

#[test]
fn acknowledged_by_a_proxy() {
    row("proxy", &ROLES, &[false], proxy(u32::MAX), |place, whose| match (place.first(), whose) {
        // RFC 8684 §3.7: the first data is acknowledged without a DATA_ACK.
        (true, Whose::Client | Whose::All) => Want::Plain(Some(NoDataAck), Some(InfiniteMapping)),
        (true, Whose::Server) => Want::Plain(Some(InfiniteMapping), Some(NoDataAck)),
        (false, _) => Want::Mptcp,
    });
    row("proxy that loses", &ROLES, &[false], proxy(50_000), |place, _| match place.first() {
        // Plain TCP by then, which believes the proxy.
        true => Want::Error(&[ConnectionError::TimedOut, ConnectionError::Reset]),
        // RFC 8684 §3.3.6: what was acknowledged and not DATA_ACKed goes over the other path.
        false => Want::Mptcp,
    });
}

#[test]
fn resets_injected() {
    row("RST, exact", &ROLES, &[false], reset(Aim::Exact), |place, _| match place {
        Place::Both => Want::Error(&[ConnectionError::Reset]),
        _ => Want::LostSilently,
    });
    let counted = |counter| move |_: Place, _: Whose| Want::KeptCounting(2, counter);
    row("RST, near", &ROLES, &[false], reset(Aim::InWindow), counted(Counter::TcpChallengeAck));
    row("RST, blind", &ROLES, &[false], reset(Aim::Blind), |_, _| KEPT);
}

#[test]
fn options_doubled_and_packets_disordered() {
    row("options twice", &ROLES, &[false, true], duplicate_options, |_, _| KEPT);
    row("reordered", &ROLES, &[true], reorder, |_, _| KEPT);
    row("doubled", &ROLES, &[true], duplicate, |_, _| KEPT);
}

/// A NAT on each path whose mappings live shorter than the application's pauses. The client's next packets come from ports
/// that the server does not know, and its resets end the last subflows. Keep-alives hold the mappings.
#[test]
fn nat_forgets_during_a_pause() {
    for family in Family::BOTH {
        let seen: Seen = harness::conversation(family, None, || Box::new(nat_expiring()));
        let ended = Want::Error(&[ConnectionError::Reset]);
        check(&format!("NAT that expires, {family:?}"), &seen, &ended);
        let keep_alive = Some(Duration::from_secs(10));
        let seen = harness::conversation(family, keep_alive, || Box::new(nat_expiring()));
        check(&format!("NAT that expires, with keep-alives, {family:?}"), &seen, &KEPT);
    }
}

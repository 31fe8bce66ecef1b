//! The rows of the matrix, in groups.

use super::boxes::*;
use super::harness::{Boxes, Place, Want, Whose, settings};
use super::{Row, Workload};
use umptcp_netsim::middlebox::{Aim, Options, StripWhere};
use umptcp_netsim::{Duration, Side};
use umptcp_stack_core::config::{ConnectionConfig, KeepAlive};
use umptcp_stack_core::error::ConnectionError;
use umptcp_stack_core::error::FallbackReason::*;
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::wire::mptcp::subtype;

/// What makes the rows, group by group.
pub const ALL: &[fn() -> Vec<Row>] = &[
    options_stripped_from_syns,
    options_stripped_after_the_syns,
    options_stripped_from_some_point_on,
    addresses_and_sequence_numbers_translated,
    segments_cut,
    segments_joined,
    payload_rewritten_and_checksums_on,
    payload_rewritten_and_checksums_strict,
    payload_rewritten_and_checksums_off,
    acknowledged_by_a_proxy,
    resets_injected,
    options_doubled_and_packets_disordered,
    nat_forgets_during_a_pause,
    nat_kept_by_keep_alives,
];

const ROLES: &[Whose] = &[Whose::Client, Whose::Server, Whose::All];

/// MPTCP to the end with so many subflows in all, none of which was lost.
const KEPT: Want = Want::Kept(2);
const ALONE: Want = Want::Kept(1);

/// A row at every place, with and without checksums as `checksums` says.
fn row(
    name: &str,
    roles: &'static [Whose],
    checksum: bool,
    make: impl Fn(Whose) -> Boxes + Send + Sync + 'static,
    want: impl Fn(Place, Whose) -> Want + Send + Sync + 'static,
) -> Row {
    let name = format!("{name}, checksums {}", if checksum { "on" } else { "off" });
    row_with(&name, settings(checksum), roles, make, want)
}

/// A row with settings of its own.
fn row_with(
    name: &str,
    config: ConnectionConfig,
    roles: &'static [Whose],
    make: impl Fn(Whose) -> Boxes + Send + Sync + 'static,
    want: impl Fn(Place, Whose) -> Want + Send + Sync + 'static,
) -> Row {
    Row {
        name: name.to_string(),
        workload: Workload::Transfer,
        config,
        roles,
        places: Place::ALL,
        make: Box::new(make),
        want: Box::new(want),
    }
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

/// MP_CAPABLE and MP_JOIN removed.
pub fn options_stripped_from_syns() -> Vec<Row> {
    let want = |place: Place, whose| match (place.first(), whose) {
        // RFC 8684 §3.2: a SYN/ACK without MP_JOIN, or a SYN that lost it, is no join.
        (false, _) => ALONE,
        // The server was never offered MPTCP.
        (true, Whose::Client | Whose::All) => Want::Plain(Some(NoOptionInSynAck), None),
        (true, Whose::Server) => Want::Plain(Some(NoOptionInSynAck), Some(NoOptionInAck)),
    };
    vec![
        row("strip SYNs", ROLES, false, strip(StripWhere::Syn), want),
        row("strip everything", ROLES, false, strip(StripWhere::Everything), want),
    ]
}

/// Options of later packets removed: all of them, or those of one subtype.
pub fn options_stripped_after_the_syns() -> Vec<Row> {
    let after = row("strip after SYN", ROLES, false, strip(StripWhere::AfterSyn), |place, whose| {
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
    let capable = row("strip MP_CAPABLE after SYN", &[Whose::Client], false, capable, |place, _| {
        if place.first() { Want::Plain(Some(NoOptionInData), Some(NoOptionInAck)) } else { KEPT }
    });
    let join = row("strip MP_JOIN", ROLES, false, strip_join, |place, _| match place {
        Place::ClientSide | Place::ServerSide => KEPT,
        Place::SecondPath | Place::Both => ALONE,
    });
    let dss = row("strip DSS", ROLES, false, strip_subtype(subtype::DSS), without_options);
    vec![after, capable, join, dss]
}

/// Every option removed once the transfer is under way.
pub fn options_stripped_from_some_point_on() -> Vec<Row> {
    vec![row("strip later", ROLES, false, strip_later, |place, _| match place {
        // RFC 8684 §3.7: no fallback any more. The subflow goes when its data finds no mapping, unless the
        // transfer is over by then: the other path has brought what was not DATA_ACKed.
        Place::ClientSide | Place::ServerSide | Place::SecondPath => Want::Mptcp,
        Place::Both => Want::Error(&[ConnectionError::Reset, ConnectionError::Broken]),
    })]
}

/// NAT, and sequence numbers made random.
pub fn addresses_and_sequence_numbers_translated() -> Vec<Row> {
    vec![
        row("NAT", &[Whose::All], false, nat, |_, _| KEPT),
        row("NAT that forgets", &[Whose::All], false, nat_rebinding, |_, _| Want::Mptcp),
        row("sequence numbers", &[Whose::All], true, randomise, |_, _| KEPT),
    ]
}

/// Segments cut in pieces.
pub fn segments_cut() -> Vec<Row> {
    let cut = |name, checksum, options| row(name, ROLES, checksum, split(options), |_, _| KEPT);
    vec![
        cut("cut, options copied", false, Options::Copied),
        cut("cut, options copied", true, Options::Copied),
        cut("cut, options on the first", false, Options::First),
        cut("cut, options on the first", true, Options::First),
        row("cut, options dropped", ROLES, true, split(Options::Dropped), without_options),
    ]
}

/// Segments joined.
pub fn segments_joined() -> Vec<Row> {
    let same =
        |checksum| row("joined, options the same", ROLES, checksum, join(Options::Copied), |_, _| KEPT);
    // A mapping that is lost is as good as lost data once the subflow is given up: RFC 8684 §3.3.1.
    let first = |checksum| {
        row("joined, options of the first", ROLES, checksum, join(Options::First), |_, _| Want::Mptcp)
    };
    let dropped =
        row("joined, options dropped", ROLES, true, join(Options::Dropped), |place, whose| {
            match (place.first(), whose) {
                (true, Whose::Client | Whose::All) => Want::Plain(Some(NoOptionInData), Some(NoOptionInAck)),
                (true, Whose::Server) => Want::Plain(Some(NoOptionInData), Some(InfiniteMapping)),
                (false, Whose::Client | Whose::All) => ALONE,
                (false, Whose::Server) => Want::Lost(Counter::MPRstTx),
            }
        });
    vec![same(false), same(true), first(false), first(true), dropped]
}

/// Replacements at position 50,000 of each subflow.
const REWRITES: [(&str, u32, &[u8]); 3] = [
    ("by as many bytes", 4, b"wxyz"),
    ("by more bytes", 4, b"longer than that"),
    ("by fewer bytes", 14, b"less"),
];

/// Payload replaced under DSS checksums.
pub fn payload_rewritten_and_checksums_on() -> Vec<Row> {
    let rewritten = |(how, remove, insert)| {
        let make = rewrite(remove, insert);
        row(&format!("rewritten {how}"), ROLES, true, make, |place, _| match place {
            // MP_FAIL with RST (RFC 8684 §3.7); the bytes come by the other path.
            Place::ClientSide | Place::ServerSide | Place::SecondPath => Want::Lost(Counter::MPFailTx),
            Place::Both => Want::ErrorOrTold,
        })
    };
    REWRITES.map(rewritten).into()
}

/// `strict_checksums`: no wrong byte, not even where plain TCP would have carried on.
pub fn payload_rewritten_and_checksums_strict() -> Vec<Row> {
    const ENDS: &[ConnectionError] = &[ConnectionError::Broken, ConnectionError::Reset];
    let strict = settings(true).with_strict_checksums(true);
    let mut rows: Vec<Row> = Vec::new();
    for (how, remove, insert) in REWRITES {
        let name = format!("rewritten {how}, checksums strict");
        rows.push(row_with(&name, strict.clone(), ROLES, rewrite(remove, insert), |place, _| match place {
            Place::ClientSide | Place::ServerSide | Place::SecondPath => Want::Lost(Counter::MPFailTx),
            // Each subflow brings 50,000 bytes and is reset, until none is opened any more.
            Place::Both => Want::Error(ENDS),
        }));
    }
    let strip = strip_subtype(subtype::DSS);
    rows.push(row_with("strip DSS, checksums strict", strict, ROLES, strip, |place, whose| {
        // Where one direction's options pass, the other path may be joined before the first is given up.
        if place.first() { Want::MptcpOrError(ENDS) } else { without_options(place, whose) }
    }));
    rows
}

/// Payload replaced without DSS checksums: what comes of it with plain TCP, and then with MPTCP.
pub fn payload_rewritten_and_checksums_off() -> Vec<Row> {
    let receiver = |whose| if whose == Whose::Client { Side::Server } else { Side::Client };
    let mut rows = Vec::new();
    for (how, remove, insert) in REWRITES {
        let roles = &[Whose::Client, Whose::Server];
        let plain = settings(false).with_mptcp(false);
        let name = format!("rewritten {how}, plain TCP");
        let mut tcp = row_with(&name, plain, roles, rewrite(remove, insert), move |_, whose| {
            Want::ChangedAt(receiver(whose), 50_000)
        });
        tcp.places = &[Place::ClientSide];
        rows.push(tcp);
        let name = format!("rewritten {how}");
        rows.push(row(&name, roles, false, rewrite(remove, insert), move |_, whose| {
            Want::Changed(receiver(whose), 50_000)
        }));
    }
    rows
}

/// A proxy that acknowledges on its own, and one that then loses what it has acknowledged.
pub fn acknowledged_by_a_proxy() -> Vec<Row> {
    let acknowledges = row("proxy", ROLES, false, proxy(u32::MAX), |place, whose| {
        match (place.first(), whose) {
            // RFC 8684 §3.7: the first data is acknowledged without a DATA_ACK.
            (true, Whose::Client | Whose::All) => Want::Plain(Some(NoDataAck), Some(InfiniteMapping)),
            (true, Whose::Server) => Want::Plain(Some(InfiniteMapping), Some(NoDataAck)),
            (false, _) => Want::Mptcp,
        }
    });
    let loses = row("proxy that loses", ROLES, false, proxy(50_000), |place, _| match place.first() {
        // Plain TCP by then, which believes the proxy.
        true => Want::Error(&[ConnectionError::TimedOut, ConnectionError::Reset]),
        // RFC 8684 §3.3.6: what was acknowledged and not DATA_ACKed goes over the other path.
        false => Want::Mptcp,
    });
    vec![acknowledges, loses]
}

/// RSTs that were made up.
pub fn resets_injected() -> Vec<Row> {
    vec![
        row("RST, exact", ROLES, false, reset(Aim::Exact), |place, _| match place {
            Place::Both => Want::Error(&[ConnectionError::Reset]),
            _ => Want::LostSilently,
        }),
        row("RST, near", ROLES, false, reset(Aim::InWindow), |_, _| {
            Want::KeptCounting(2, Counter::TcpChallengeAck)
        }),
        row("RST, blind", ROLES, false, reset(Aim::Blind), |_, _| KEPT),
    ]
}

/// Options twice, packets late and packets twice.
pub fn options_doubled_and_packets_disordered() -> Vec<Row> {
    let twice = |checksum| row("options twice", ROLES, checksum, duplicate_options, |_, _| KEPT);
    vec![
        twice(false),
        twice(true),
        row("reordered", ROLES, true, reorder, |_, _| KEPT),
        row("doubled", ROLES, true, duplicate, |_, _| KEPT),
    ]
}

/// A NAT on each path whose mappings live shorter than the application's pauses.
fn nat_that_expires(name: &str, keep_alive: Option<KeepAlive>, want: Want) -> Row {
    let config = settings(false).with_keep_alive(keep_alive);
    let mut row = row_with(name, config, &[Whose::All], nat_expiring, move |_, _| want.clone());
    row.workload = Workload::Conversation;
    row.places = &[Place::Both];
    row
}

/// The client's next packets come from ports that the server does not know, and its resets end the last
/// subflows, unless one has been found to be dead before, when its round-trip time was measured, and replaced.
pub fn nat_forgets_during_a_pause() -> Vec<Row> {
    vec![nat_that_expires("NAT that expires", None, Want::MptcpOrError(&[ConnectionError::Reset]))]
}

/// Keep-alives hold the mappings.
pub fn nat_kept_by_keep_alives() -> Vec<Row> {
    let keep_alive = KeepAlive::default().with_idle(Duration::from_secs(10));
    vec![nat_that_expires("NAT that expires, with keep-alives", Some(keep_alive), KEPT)]
}

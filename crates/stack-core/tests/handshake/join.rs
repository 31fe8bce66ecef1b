//! MP_JOIN, segment by segment, in both roles (RFC 8684 §3.2, §3.6, §3.9).

use std::net::SocketAddr;
use umptcp_stack_core::config::{ConnectOptions, ConnectionConfig, StackConfig};
use umptcp_stack_core::event::{Event, SubflowReset};
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::stack::MptcpStatus;
use umptcp_stack_core::types::{AddressId, ConnectionId, Duration, Instant};
use umptcp_stack_core::wire::mptcp::{Dss, MpCapable, MpJoin, MpTcpRst, MptcpOption, ResetReason, VERSION};
use umptcp_testkit::script::*;

fn stack_at(port: u16) -> SocketAddr {
    SocketAddr::new(STACK, port)
}

/// The nonce in a SYN/ACK of the stack, its HMAC checked.
#[track_caller]
fn nonce_of(s: &Sent, keys: Keys, own_nonce: u32) -> u32 {
    let Some(MpJoin::SynAck { hmac, nonce, .. }) = s.join() else { panic!("no MP_JOIN SYN/ACK: {s:?}") };
    let expected = Keys { own: keys.stack, stack: keys.own }.syn_ack_hmac(nonce, own_nonce);
    assert_eq!(hmac, expected, "the stack's HMAC");
    nonce
}

/// The peer joins by the book as far as the SYN/ACK.
#[track_caller]
fn half_join(lab: &mut Lab, at: SocketAddr, to: SocketAddr, keys: Keys, nonce: u32) -> (End, u32) {
    let mut end = End::new(at, to);
    let syn_ack = only(end.send(lab, SYN, &[join_syn(keys.stack_token(), nonce, 3)], &[]));
    end.hear(&syn_ack);
    let theirs = nonce_of(&syn_ack, keys, nonce);
    (end, theirs)
}

fn join_ack(hmac: [u8; 20]) -> MptcpOption {
    MptcpOption::Join(MpJoin::Ack { hmac })
}

fn subflows(lab: &Lab, c: ConnectionId) -> usize {
    lab.stack.subflows(c).len()
}

/// Whether the stack has a timer left that concerns anything but the connection's own.
#[track_caller]
fn refused(sent: Vec<Sent>, reason: u8, transient: bool) {
    let rst = only(sent);
    assert!(rst.seg.flags.rst, "{rst:?}");
    assert_eq!(rst.reset(), Some((reason, transient)), "{rst:?}");
}

#[test]
fn a_join_by_the_book_carries_data() {
    let mut lab = Lab::listening();
    let (_, keys, c) = establish(&mut lab, peer(1, 4000));
    let (mut end, nonce) = half_join(&mut lab, peer(2, 5000), stack_at(PORT), keys, 11);
    // RFC 8684 §3.2: the third ACK must be answered.
    let ack = only(end.send(&mut lab, ACK, &[join_ack(keys.ack_hmac(11, nonce))], &[]));
    assert!(ack.seg.flags.ack && !ack.seg.flags.rst);
    assert_eq!((subflows(&lab, c), lab.counter(Counter::MPJoinAckRx)), (2, 1));
    end.send(&mut lab, ACK, &[keys.dss(0, Some((1, 1, 4)))], b"data");
    assert_eq!(lab.received(c), b"data");
    assert_eq!(lab.counter(Counter::MPJoinPortSynRx), 0);
}

/// RFC 8684 §3.2: the token says which connection. Nobody needs to listen at the port, if it was advertised.
#[test]
fn the_token_not_the_port_finds_the_connection() {
    let mut lab = Lab::listening();
    let (_, keys, c) = establish(&mut lab, peer(1, 4000));
    lab.stack.advertise_address(lab.now, c, STACK, Some(9999)).expect("advertise");
    lab.poll();
    for (n, to) in [(2, stack_at(9999)), (3, SocketAddr::new(STACK_2, PORT))] {
        let (mut end, nonce) = half_join(&mut lab, peer(n, 5000), to, keys, 11);
        end.send(&mut lab, ACK, &[join_ack(keys.ack_hmac(11, nonce))], &[]);
    }
    assert_eq!(subflows(&lab, c), 3);
    assert_eq!((lab.counter(Counter::MPJoinPortSynRx), lab.counter(Counter::MPJoinPortAckRx)), (1, 1));
}

/// RFC 8684 §3.9.1: the local port of the first subflow is kept for joins from our other addresses, as long
/// as there are others.
#[test]
fn the_first_subflows_port_is_kept_on_all_local_addresses() {
    let mut lab = Lab::with(StackConfig::default().with_ephemeral_ports(50_000..=50_001));
    let server = peer(1, PORT);
    let connect = |lab: &mut Lab, path: usize, mptcp: bool| {
        let mut options = ConnectOptions::new(server);
        options.paths = vec![lab.paths[path]];
        options.config.mptcp = mptcp;
        let c = lab.stack.connect(lab.now, options).expect("connect");
        (c, only(lab.poll()).from)
    };
    let (first, from) = connect(&mut lab, 0, true);
    // The other port is taken twice: whose turn it is comes round to the first one's.
    let (_, second) = connect(&mut lab, 0, false);
    assert_ne!(second.port(), from.port());
    let (third, at) = connect(&mut lab, 1, true);
    assert_eq!(at, SocketAddr::new(STACK_2, second.port()), "plain TCP has no joins");
    // Now both are kept, and one must do: it is free on this address.
    let (fourth, at) = connect(&mut lab, 1, true);
    assert_eq!(at, SocketAddr::new(STACK_2, from.port()));
    for c in [first, third, fourth] {
        lab.stack.abort(lab.now, c);
        lab.stack.close(lab.now, c);
    }
    lab.poll();
    assert_eq!(lab.stack.connection_count(), 1);
    let mut ports = [0, 1].map(|_| connect(&mut lab, 1, true).1.port());
    ports.sort_unstable();
    assert_eq!(ports, [50_000, 50_001]);
}

/// A join needs a local port that no other connection to the same address has.
#[test]
fn a_join_without_a_free_port_is_not_sent() {
    let mut lab = Lab::with(StackConfig::default().with_ephemeral_ports(50_000..=50_000));
    let mut other = ConnectOptions::new(peer(1, PORT));
    (other.paths, other.local_port) = (vec![lab.paths[1]], 50_000);
    lab.stack.connect(lab.now, other).expect("connect");
    lab.poll();
    let c = lab.stack.connect(lab.now, ConnectOptions::new(peer(1, PORT))).expect("connect");
    let syn = only(lab.poll());
    assert_eq!(syn.from, SocketAddr::new(STACK, 50_000));
    let mut end = End::new(peer(1, PORT), syn.from);
    end.hear(&syn);
    let answer = MpCapable::SynAck { version: VERSION, flags: flags(), key: 7 };
    let third = only(end.send(&mut lab, SYN_ACK, &[MptcpOption::Capable(answer)], &[]));
    let Some(MpCapable::Ack { sender_key, .. }) = third.capable() else { panic!("{third:?}") };
    let keys = Keys { own: 7, stack: sender_key };
    let sent = end.send(&mut lab, ACK, &[keys.dss(0, None)], &[]);
    assert!(sent.iter().all(|s| s.join().is_none()), "{sent:?}");
    assert_eq!((lab.counter(Counter::MPJoinSynTxBindErr), subflows(&lab, c)), (1, 1));
}

/// As Linux has it: a token opens no port but the first subflow's and those that were advertised.
#[test]
fn a_join_to_a_port_that_was_not_advertised_is_refused() {
    const PROHIBITED: u8 = 3;
    let syn = |lab: &mut Lab, n, to, keys: Keys| {
        End::new(peer(n, 5000), to).send(lab, SYN, &[join_syn(keys.stack_token(), 1, n)], &[])
    };
    let mut lab = Lab::listening();
    let (_, keys, c) = establish(&mut lab, peer(1, 4000));
    refused(syn(&mut lab, 2, stack_at(9999), keys), PROHIBITED, false);
    assert_eq!((lab.counter(Counter::MismatchPortSynRx), lab.counter(Counter::MPJoinPortSynRx)), (1, 0));
    // Two joins under way when the advertisement is taken back, one of them complete.
    let id = lab.stack.advertise_address(lab.now, c, STACK, Some(9999)).expect("advertise");
    lab.poll();
    let (mut early, nonce) = half_join(&mut lab, peer(3, 5000), stack_at(9999), keys, 7);
    let (mut late, late_nonce) = half_join(&mut lab, peer(4, 5000), stack_at(9999), keys, 8);
    early.send(&mut lab, ACK, &[join_ack(keys.ack_hmac(7, nonce))], &[]);
    lab.stack.withdraw_addresses(lab.now, c, &[id]).expect("withdraw");
    lab.poll();
    refused(late.send(&mut lab, ACK, &[join_ack(keys.ack_hmac(8, late_nonce))], &[]), PROHIBITED, false);
    assert_eq!((lab.counter(Counter::MismatchPortAckRx), lab.counter(Counter::MPJoinPortAckRx)), (1, 1));
    refused(syn(&mut lab, 5, stack_at(9999), keys), PROHIBITED, false);
    // RFC 8684 §3.4.1: an advertisement without a port means that of the subflow which carries it. The first
    // goes out on the first subflow, the next on the one to 9999.
    lab.stack.advertise_address(lab.now, c, STACK_2, None).expect("advertise");
    lab.poll();
    let there = SocketAddr::new(STACK_2, 9999);
    refused(syn(&mut lab, 6, there, keys), PROHIBITED, false);
    let sent = lab.pass(Duration::from_secs(5));
    let carries = |s: &Sent| s.seg.options.mptcp.iter().any(|o| matches!(o, MptcpOption::AddAddr(_)));
    assert!(sent.iter().any(|(_, s)| carries(s) && s.from == stack_at(9999)), "{sent:#?}");
    half_join(&mut lab, peer(7, 5000), there, keys, 9);
    assert_eq!(lab.counter(Counter::MismatchPortSynRx), 3);
}

#[test]
fn refused_joins_are_reset_with_the_reason() {
    const PROTOCOL: u8 = 1;
    const PROHIBITED: u8 = 3;
    let syn =
        |lab: &mut Lab, to, token| End::new(peer(2, 5000), to).send(lab, SYN, &[join_syn(token, 1, 3)], &[]);

    let mut lab = Lab::listening();
    let (_, keys, c) = establish(&mut lab, peer(1, 4000));
    refused(syn(&mut lab, stack_at(PORT), keys.stack_token() ^ 1), PROTOCOL, false);
    assert_eq!(lab.counter(Counter::MPJoinNoTokenFound), 1);
    lab.stack.abort(lab.now, c);
    lab.poll();
    // Closed: the token is nobody's.
    refused(syn(&mut lab, stack_at(PORT), keys.stack_token()), PROTOCOL, false);

    // Not fully established: no third ACK yet.
    let mut lab = Lab::listening();
    let mut end = End::new(peer(1, 4000), stack_at(PORT));
    let syn_ack = only(end.send(&mut lab, SYN, &[capable_syn()], &[]));
    let keys = Keys { own: 0, stack: key_of(&syn_ack) };
    refused(syn(&mut lab, stack_at(PORT), keys.stack_token()), PROTOCOL, true);
    assert_eq!(lab.counter(Counter::MPJoinRejected), 1);

    // Fallen back: no join any more (§3.7).
    end.hear(&syn_ack);
    end.send(&mut lab, ACK, &[], &[]);
    assert!(matches!(lab.status(lab.accepted[0]), MptcpStatus::Plain { .. }));
    refused(syn(&mut lab, stack_at(PORT), keys.stack_token()), PROTOCOL, false);

    // The C flag: not to this address and port, but to others (§3.1).
    let mut lab = Lab::listening();
    lab.accept = Some(ConnectionConfig::default().with_allow_join_initial(false));
    let (_, keys, _) = establish(&mut lab, peer(1, 4000));
    refused(syn(&mut lab, stack_at(PORT), keys.stack_token()), PROHIBITED, false);
    half_join(&mut lab, peer(3, 5000), SocketAddr::new(STACK_2, PORT), keys, 7);

    // The limit of subflows: later perhaps.
    let mut lab = Lab::listening();
    lab.accept = Some(ConnectionConfig::default().with_max_subflows(2));
    let (_, keys, c) = establish(&mut lab, peer(1, 4000));
    // Two at once, of which one is too many when both complete.
    let (mut a, na) = half_join(&mut lab, peer(3, 5000), stack_at(PORT), keys, 7);
    let (mut b, nb) = half_join(&mut lab, peer(4, 5000), stack_at(PORT), keys, 8);
    a.send(&mut lab, ACK, &[join_ack(keys.ack_hmac(7, na))], &[]);
    refused(b.send(&mut lab, ACK, &[join_ack(keys.ack_hmac(8, nb))], &[]), PROHIBITED, true);
    refused(syn(&mut lab, stack_at(PORT), keys.stack_token()), PROHIBITED, true);
    assert_eq!((subflows(&lab, c), lab.counter(Counter::MPJoinRejected)), (2, 2));
    // As on Linux, only joins that were accepted.
    assert_eq!(lab.counter(Counter::MPJoinAckRx), 1);
}

#[test]
fn the_c_flag_of_the_peer_keeps_the_stack_from_joining() {
    use umptcp_stack_core::wire::mptcp::{CapableFlags, MpCapable, VERSION};
    for no_join in [false, true] {
        let mut lab = Lab::new();
        let mut options = umptcp_stack_core::config::ConnectOptions::new(peer(1, PORT));
        options.local_address = Some(STACK);
        let c = lab.stack.connect(lab.now, options).expect("connect");
        let syn = only(lab.poll());
        let mut end = End::new(peer(1, PORT), syn.from);
        end.hear(&syn);
        let flags = CapableFlags::sha256(false, no_join);
        let answer = MpCapable::SynAck { version: VERSION, flags, key: 5 };
        let third = only(end.send(&mut lab, SYN_ACK, &[MptcpOption::Capable(answer)], &[]));
        let Some(MpCapable::Ack { sender_key, .. }) = third.capable() else { panic!("{third:?}") };
        let keys = Keys { own: 5, stack: sender_key };
        let sent = end.send(&mut lab, ACK, &[keys.dss(0, None)], &[]);
        let joins = sent.iter().filter(|s| s.join().is_some()).count();
        assert_eq!(joins, usize::from(!no_join), "{sent:?}");
        assert_eq!(subflows(&lab, c), 1 + joins);
        if !no_join {
            // RFC 8684 §3.9.1: the same ports as the first subflow.
            let join = sent.iter().find(|s| s.join().is_some()).expect("a join");
            assert_eq!((join.from.port(), join.to), (syn.from.port(), syn.to));
            assert_eq!(join.from.ip(), STACK_2);
        }
    }
}

/// The stack connected to `peer(1, PORT)` and its join from the second address, as far as the SYN.
fn joining(lab: &mut Lab) -> (End, Keys, ConnectionId, End, u32) {
    use umptcp_stack_core::wire::mptcp::{MpCapable, VERSION};
    let mut options = umptcp_stack_core::config::ConnectOptions::new(peer(1, PORT));
    options.local_address = Some(STACK);
    let c = lab.stack.connect(lab.now, options).expect("connect");
    let syn = only(lab.poll());
    let mut end = End::new(peer(1, PORT), syn.from);
    end.hear(&syn);
    let answer = MpCapable::SynAck { version: VERSION, flags: flags(), key: 5 };
    let third = only(end.send(lab, SYN_ACK, &[MptcpOption::Capable(answer)], &[]));
    let Some(MpCapable::Ack { sender_key, .. }) = third.capable() else { panic!("{third:?}") };
    let keys = Keys { own: 5, stack: sender_key };
    let sent = end.send(lab, ACK, &[keys.dss(0, None)], &[]);
    let syn = sent.iter().find(|s| s.join().is_some()).expect("a join");
    let Some(MpJoin::Syn { token, nonce, address_id, .. }) = syn.join() else { panic!("{syn:?}") };
    assert_eq!(token, Keys { own: 0, stack: keys.own }.stack_token());
    assert_ne!(address_id, AddressId(0));
    let mut join = End::new(peer(1, PORT), syn.from);
    join.hear(syn);
    (end, keys, c, join, nonce)
}

fn join_syn_ack(hmac: u64, nonce: u32) -> MptcpOption {
    MptcpOption::Join(MpJoin::SynAck { backup: false, address_id: AddressId(0), hmac, nonce })
}

/// RFC 8684 §3.2: PRE_ESTABLISHED until answered: the third ACK comes again by its own timer, and no data
/// goes there.
#[test]
fn the_third_ack_of_a_join_is_repeated_until_answered() {
    let mut lab = Lab::new();
    let (mut first, keys, c, mut join, nonce) = joining(&mut lab);
    let hmac = keys.syn_ack_hmac(22, nonce);
    let third = only(join.send(&mut lab, SYN_ACK, &[join_syn_ack(hmac, 22)], &[]));
    let Some(MpJoin::Ack { hmac }) = third.join() else { panic!("{third:?}") };
    assert_eq!(hmac, Keys { own: keys.stack, stack: keys.own }.ack_hmac(nonce, 22));
    // Nothing but the first subflow carries data, though they are more than its window admits and the peer has
    // stopped acknowledging it.
    lab.stack.send_slice(lab.now, c, &[7; 100_000]).expect("send");
    let sent = lab.pass(Duration::from_secs(2));
    assert!(sent.iter().all(|(_, s)| s.payload.is_empty() || s.to == first.at && s.from == first.to));
    let thirds: Vec<_> = sent.iter().filter(|(_, s)| s.join().is_some()).collect();
    assert!(thirds.len() >= 2, "{thirds:?}");
    assert!(thirds.iter().all(|(_, s)| s.join() == Some(MpJoin::Ack { hmac }) && s.payload.is_empty()));
    // A SYN/ACK again: the third ACK was lost; so it comes at once.
    let mut again = join.clone();
    again.seq = again.seq.wrapping_add(u32::MAX);
    let answers = again.send(&mut lab, SYN_ACK, &[join_syn_ack(keys.syn_ack_hmac(22, nonce), 22)], &[]);
    assert_eq!(answers.iter().filter(|s| s.join() == Some(MpJoin::Ack { hmac })).count(), 1);
    // Answered: ESTABLISHED, and never again.
    first.send(&mut lab, ACK, &[keys.dss(0, None)], &[]);
    join.send(&mut lab, ACK, &[keys.dss(0, None)], &[]);
    let sent = lab.pass(Duration::from_secs(5));
    assert!(sent.iter().all(|(_, s)| !matches!(s.join(), Some(MpJoin::Ack { .. }))));
    assert!(subflows(&lab, c) >= 2);
}

/// The answer to the third ACK lets data go to the new subflow, but not sooner than a busy Linux server needs
/// for the join.
#[test]
fn the_first_data_follow_the_third_ack_at_a_distance() {
    for (answered_after, waits) in [(0, 10), (4, 6), (10, 0), (50, 0)] {
        let mut lab = Lab::new();
        let (_first, keys, c, mut join, nonce) = joining(&mut lab);
        join.send(&mut lab, SYN_ACK, &[join_syn_ack(keys.syn_ack_hmac(22, nonce), 22)], &[]);
        // More than the first subflow's window admits.
        lab.stack.send_slice(lab.now, c, &[7; 100_000]).expect("send");
        lab.pass(Duration::from_millis(answered_after));
        let answered = lab.now;
        let mut sent: Vec<_> =
            join.send(&mut lab, ACK, &[keys.dss(0, None)], &[]).into_iter().map(|s| (answered, s)).collect();
        sent.extend(lab.pass(Duration::from_millis(30)));
        let (at, _) = sent.iter().find(|(_, s)| s.from == join.to && !s.payload.is_empty()).expect("data");
        assert_eq!(*at - answered, Duration::from_millis(waits), "answered after {answered_after} ms");
    }
}

/// A third ACK that nobody ever answers: the path lets no such option through, and the join is given up.
#[test]
fn a_join_whose_third_ack_is_never_answered_is_given_up() {
    let mut lab = Lab::new();
    let (mut first, keys, c, mut join, nonce) = joining(&mut lab);
    let hmac = keys.syn_ack_hmac(22, nonce);
    join.send(&mut lab, SYN_ACK, &[join_syn_ack(hmac, 22)], &[]);
    let sent = lab.pass(Duration::from_secs(60));
    let rst = sent.iter().find(|(_, s)| s.seg.flags.rst).expect("a RST");
    assert_eq!(rst.1.reset(), Some((6, false)));
    assert_eq!((rst.1.from, rst.1.to), (join.to, join.at));
    // Tried again with back-off only (RFC 8684 §3.9.3).
    first.send(&mut lab, ACK, &[keys.dss(0, None)], &[]);
    let again = joins(&lab.pass(Duration::from_secs(600)));
    assert!((5..20).contains(&again.len()), "{again:?}");
    assert_eq!(subflows(&lab, c), 1);
}

/// When joins begin: SYNs that are not sent again.
fn joins(sent: &[(Instant, Sent)]) -> Vec<Instant> {
    let mut ports = std::collections::HashSet::new();
    let first = |(_, s): &&(Instant, Sent)| s.seg.flags.syn && ports.insert((s.from, s.to, s.seg.seq));
    sent.iter().filter(first).map(|(at, _)| *at).collect()
}

#[test]
fn a_syn_ack_that_proves_nothing_is_reset() {
    type Options = fn(Keys, u32) -> Vec<MptcpOption>;
    let cases: [(&str, Options); 4] = [
        ("no option", |_, _| vec![]),
        ("wrong HMAC", |k, n| vec![join_syn_ack(k.syn_ack_hmac(22, n) ^ 1, 22)]),
        ("HMAC of another nonce", |k, n| vec![join_syn_ack(k.syn_ack_hmac(23, n), 22)]),
        ("MP_CAPABLE", |_, _| vec![capable_syn()]),
    ];
    for (what, options) in cases {
        let mut lab = Lab::new();
        let (mut first, keys, c, mut join, nonce) = joining(&mut lab);
        let rst = only(join.send(&mut lab, SYN_ACK, &options(keys, nonce), &[]));
        assert!(rst.seg.flags.rst, "{what}: {rst:?}");
        assert_eq!(rst.reset(), Some((1, false)), "{what}");
        assert_eq!(rst.seg.seq, join.ack, "{what}");
        assert_eq!(subflows(&lab, c), 1, "{what}");
        let bad_hmac = u64::from(what.contains("HMAC"));
        assert_eq!(lab.counter(Counter::MPJoinSynAckHMacFailure), bad_hmac, "{what}");
        // The connection goes on, and this pair is tried again after a while (§3.9.3).
        first.send(&mut lab, ACK, &[keys.dss(0, Some((1, 1, 4)))], b"data");
        assert_eq!(lab.received(c), b"data", "{what}");
        let start = lab.now;
        let again = joins(&lab.pass(Duration::from_secs(30)));
        assert!(again[0] >= start + Duration::from_secs(1) && again.len() <= 4, "{what}: {again:?}");
    }
}

/// RFC 8684 §3.6: a transient refusal is tried again with back-off, a permanent one is not; the application
/// is told.
#[test]
fn a_refusal_says_whether_to_try_again() {
    for transient in [false, true] {
        let mut lab = Lab::new();
        let (_, _, _, mut join, _) = joining(&mut lab);
        let reset = MpTcpRst { transient, reason: 2 };
        let rst_ack = umptcp_stack_core::wire::tcp::TcpFlags { ack: true, ..RST };
        assert!(join.send(&mut lab, rst_ack, &[MptcpOption::Reset(reset)], &[]).is_empty());
        assert_eq!(lab.counter(Counter::MPRstRx), 1);
        let again = lab.pass(Duration::from_millis(900));
        assert!(again.iter().all(|(_, s)| !s.seg.flags.syn), "{again:?}");
        let again = lab.pass(Duration::from_millis(200));
        let syns = again.iter().filter(|(_, s)| matches!(s.join(), Some(MpJoin::Syn { .. }))).count();
        assert_eq!(syns, usize::from(transient), "{again:?}");
    }
}

/// The same for a subflow that has carried data: the peer closes it and says whether for good.
#[test]
fn a_subflow_reset_for_good_is_not_opened_again() {
    for (reset, syns) in [(Some(false), 0), (Some(true), 1), (None, 1)] {
        let mut lab = Lab::new();
        let (mut first, keys, c, mut join, nonce) = joining(&mut lab);
        let hmac = keys.syn_ack_hmac(22, nonce);
        join.send(&mut lab, SYN_ACK, &[join_syn_ack(hmac, 22)], &[]);
        join.send(&mut lab, ACK, &[keys.dss(0, None)], &[]);
        assert_eq!(subflows(&lab, c), 2);
        let options: Vec<MptcpOption> = reset
            .map(|transient| MptcpOption::Reset(MpTcpRst { transient, reason: 1 }))
            .into_iter()
            .collect();
        let mut sent = join.send(&mut lab, RST, &options, &[]);
        sent.extend(first.send(&mut lab, ACK, &[keys.dss(0, None)], &[]));
        sent.extend(lab.pass(Duration::from_millis(1100)).into_iter().map(|(_, s)| s));
        let opened = sent.iter().filter(|s| matches!(s.join(), Some(MpJoin::Syn { .. }))).count();
        assert!(opened >= syns && (opened == 0) == (syns == 0), "{reset:?}: {opened} SYNs");
    }
}

#[test]
fn a_reset_subflow_tells_the_application_the_reason() {
    let mut lab = Lab::listening();
    let (_, keys, _) = establish(&mut lab, peer(1, 4000));
    let (mut end, nonce) = half_join(&mut lab, peer(2, 5000), stack_at(PORT), keys, 11);
    end.send(&mut lab, ACK, &[join_ack(keys.ack_hmac(11, nonce))], &[]);
    let reset = MpTcpRst { transient: true, reason: 5 };
    end.send(&mut lab, RST, &[MptcpOption::Reset(reset)], &[]);
    let told = lab.events.iter().find_map(|e| match e {
        Event::SubflowClosed { reset, .. } => *reset,
        _ => None,
    });
    let reason = Some(ResetReason::UnacceptablePerformance);
    assert_eq!(told, Some(SubflowReset::new(true, reason, true)));
}

/// A SYN that comes twice is one join, answered twice with the same words.
#[test]
fn a_repeated_join_is_one_join() {
    let mut lab = Lab::listening();
    let (_, keys, c) = establish(&mut lab, peer(1, 4000));
    let (mut end, nonce) = half_join(&mut lab, peer(2, 5000), stack_at(PORT), keys, 11);
    let mut again = End::new(peer(2, 5000), stack_at(PORT));
    let syn_ack = only(again.send(&mut lab, SYN, &[join_syn(keys.stack_token(), 11, 3)], &[]));
    assert_eq!(nonce_of(&syn_ack, keys, 11), nonce);
    assert_eq!(subflows(&lab, c), 2);
    let mut late = end.clone();
    end.send(&mut lab, ACK, &[join_ack(keys.ack_hmac(11, nonce))], &[]);
    // The third ACK again: its answer was lost.
    late.send(&mut lab, ACK, &[join_ack(keys.ack_hmac(11, nonce))], &[]);
    assert_eq!((subflows(&lab, c), lab.counter(Counter::MPJoinAckRx)), (2, 1));
    assert_eq!(lab.counter(Counter::TcpOutRsts), 0);
}

/// RFC 8684 §3.9.2: both ends open the same pair at once: one subflow, each end having proved itself.
#[test]
fn crossing_joins_become_one_subflow() {
    let mut lab = Lab::new();
    let (_, keys, c, mut join, nonce) = joining(&mut lab);
    let syn_ack = only(join.send(&mut lab, SYN, &[join_syn(keys.stack_token(), 22, 0)], &[]));
    join.hear(&syn_ack);
    assert_eq!(nonce_of(&syn_ack, keys, 22), nonce);
    // Our answer to its SYN.
    let mut answer = join.clone();
    answer.seq = answer.seq.wrapping_add(u32::MAX);
    let hmac = join_syn_ack(keys.syn_ack_hmac(22, nonce), 22);
    let third = only(answer.send(&mut lab, SYN_ACK, &[hmac], &[]));
    assert!(matches!(third.join(), Some(MpJoin::Ack { .. })), "{third:?}");
    join.send(&mut lab, ACK, &[join_ack(keys.ack_hmac(22, nonce))], &[]);
    assert_eq!(subflows(&lab, c), 2);
    lab.assert_mptcp(c);
    join.send(&mut lab, ACK, &[keys.dss(0, Some((1, 1, 4)))], b"data");
    assert_eq!(lab.received(c), b"data");

    // With a foreign token, or none, only that subflow goes.
    for option in [vec![], vec![join_syn(keys.stack_token() ^ 1, 22, 0)]] {
        let mut lab = Lab::new();
        let (_, _, c, mut join, _) = joining(&mut lab);
        refused(join.send(&mut lab, SYN, &option, &[]), 1, false);
        lab.assert_mptcp(c);
        assert_eq!(subflows(&lab, c), 1);
    }
}

/// A join that nobody answers does not hold up the end of the connection.
#[test]
fn the_end_of_a_connection_ends_its_joins() {
    let mut lab = Lab::new();
    let (mut first, keys, c, _, _) = joining(&mut lab);
    assert_eq!(subflows(&lab, c), 2);
    lab.stack.shutdown(lab.now, c).expect("shutdown");
    lab.poll();
    // Our DATA_FIN and the acknowledgement of its.
    let MptcpOption::Dss(dss) = keys.dss(1, Some((1, 0, 1))) else { panic!() };
    let fin = MptcpOption::Dss(Dss { data_fin: true, ..dss });
    let sent = first.send(&mut lab, ACK, &[fin], &[]);
    assert!(sent.iter().any(|s| s.seg.flags.fin && s.to == first.at), "{sent:?}");
    assert_eq!(subflows(&lab, c), 1);
    assert!(lab.pass(Duration::from_secs(20)).iter().all(|(_, s)| !s.seg.flags.syn));
}

//! MP_CAPABLE, segment by segment: what is agreed, what falls back, and why (RFC 8684 §3.1, §3.7, §3.9.3).

use std::net::SocketAddr;
use umptcp_stack_core::config::{ConnectOptions, ConnectionConfig, StackConfig};
use umptcp_stack_core::device::PathConfig;
use umptcp_stack_core::error::{ConnectError, FallbackReason};
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::types::Duration;
use umptcp_stack_core::wire::mptcp::{CapableFlags, MpCapable, MptcpOption, VERSION};
use umptcp_testkit::script::*;

fn stack_at() -> SocketAddr {
    SocketAddr::new(STACK, PORT)
}

fn with_flags(f: impl FnOnce(&mut CapableFlags)) -> CapableFlags {
    let mut flags = flags();
    f(&mut flags);
    flags
}

fn refusing() -> ConnectionConfig {
    ConnectionConfig::default().with_accept_checksum(false)
}

#[test]
fn what_a_server_makes_of_each_offer() {
    use FallbackReason::{ChecksumRefused, NoOptionInSyn, Unacceptable};
    let syn = |version, flags| vec![MptcpOption::Capable(MpCapable::Syn { version, flags })];
    let with_key =
        |version| vec![MptcpOption::Capable(MpCapable::SynAck { version, flags: flags(), key: 5 })];
    let checksum = with_flags(|f| f.checksum_required = true);
    let any = ConnectionConfig::default;
    let cases = [
        ("by the book", syn(1, flags()), any(), None),
        ("a later version is answered with ours", syn(2, flags()), any(), None),
        ("version 0 in our form", syn(0, flags()), any(), Some(Unacceptable)),
        ("version 0 in its form", with_key(0), any(), Some(Unacceptable)),
        ("a key in the SYN", with_key(1), any(), Some(Unacceptable)),
        ("B", syn(1, with_flags(|f| f.extensibility = true)), any(), Some(Unacceptable)),
        ("no algorithm", syn(1, with_flags(|f| f.algorithms = 0)), any(), Some(Unacceptable)),
        ("other algorithms", syn(1, with_flags(|f| f.algorithms = 0b11110)), any(), Some(Unacceptable)),
        ("ours among others", syn(1, with_flags(|f| f.algorithms = 0b11111)), any(), None),
        ("checksums", syn(1, checksum), any(), None),
        ("checksums refused", syn(1, checksum), refusing(), Some(ChecksumRefused)),
        ("no option", vec![], any(), Some(NoOptionInSyn)),
        ("twice the same", [syn(1, flags()), syn(1, flags())].concat(), any(), None),
        ("twice, not the same", [syn(1, flags()), syn(1, checksum)].concat(), any(), Some(Unacceptable)),
        ("beside a join", vec![capable_syn(), join_syn(1, 2, 3)], any(), Some(Unacceptable)),
    ];
    for (what, options, config, expected) in cases {
        let mut lab = Lab::listening();
        lab.accept = Some(config);
        let mut end = End::new(peer(1, 4000), stack_at());
        let syn_ack = only(end.send(&mut lab, SYN, &options, &[]));
        assert!(syn_ack.seg.flags.syn && syn_ack.seg.flags.ack, "{what}: {syn_ack:?}");
        let c = lab.accepted[0];
        // As on Linux: what a listener of this version could answer with MPTCP.
        let counted = matches!(expected, None | Some(ChecksumRefused));
        assert_eq!(lab.counter(Counter::MPCapableSYNRX), u64::from(counted), "{what}");
        match expected {
            Some(reason) => {
                assert!(syn_ack.seg.options.mptcp.is_empty(), "{what}: {syn_ack:?}");
                lab.assert_plain(c, reason);
                end.hear(&syn_ack);
                end.send(&mut lab, ACK, &[], b"plain");
                assert_eq!(lab.received(c), b"plain", "{what}");
            }
            None => {
                let Some(MpCapable::SynAck { version, flags, .. }) = syn_ack.capable() else {
                    panic!("{what}: {syn_ack:?}")
                };
                // The version answered is ours, the algorithm exactly one.
                assert_eq!((version, flags.algorithms), (VERSION, CapableFlags::HMAC_SHA256), "{what}");
                assert!(!flags.extensibility, "{what}");
                assert_eq!(flags.checksum_required, what == "checksums", "{what}");
            }
        }
    }
}

#[test]
fn what_a_client_makes_of_each_answer() {
    use FallbackReason::{ChecksumRefused, NoOptionInSynAck, Unacceptable};
    let answer = |version, flags| vec![MptcpOption::Capable(MpCapable::SynAck { version, flags, key: 77 })];
    let checksum = with_flags(|f| f.checksum_required = true);
    let any = ConnectionConfig::default;
    let cases = [
        ("by the book", answer(1, flags()), any(), None),
        ("an earlier version", answer(0, flags()), any(), Some(Unacceptable)),
        ("a version nobody offered", answer(2, flags()), any(), Some(Unacceptable)),
        ("B", answer(1, with_flags(|f| f.extensibility = true)), any(), Some(Unacceptable)),
        ("no algorithm", answer(1, with_flags(|f| f.algorithms = 0)), any(), Some(Unacceptable)),
        ("two algorithms", answer(1, with_flags(|f| f.algorithms = 3)), any(), Some(Unacceptable)),
        ("without key", vec![capable_syn()], any(), Some(Unacceptable)),
        ("checksums", answer(1, checksum), any(), None),
        ("checksums refused", answer(1, checksum), refusing(), Some(ChecksumRefused)),
        ("no option", vec![], any(), Some(NoOptionInSynAck)),
        ("twice", [answer(1, flags()), vec![capable_syn()]].concat(), any(), Some(Unacceptable)),
    ];
    for (what, options, config, expected) in cases {
        let mut lab = Lab::new();
        let c = lab.connect(peer(1, PORT), config);
        let syn = only(lab.poll());
        assert_eq!(syn.capable(), Some(MpCapable::Syn { version: VERSION, flags: flags() }), "{what}");
        let mut end = End::new(peer(1, PORT), syn.from);
        end.hear(&syn);
        let third = only(end.send(&mut lab, SYN_ACK, &options, &[]));
        match expected {
            Some(reason) => {
                assert!(third.seg.options.mptcp.is_empty(), "{what}: {third:?}");
                lab.assert_plain(c, reason);
                assert_eq!(lab.counter(Counter::MPCapableFallbackSYNACK), 1, "{what}");
            }
            None => {
                let Some(MpCapable::Ack { flags, receiver_key: 77, .. }) = third.capable() else {
                    panic!("{what}: {third:?}")
                };
                // A in the third packet confirms the decision.
                assert_eq!(flags.checksum_required, what == "checksums", "{what}");
                lab.assert_mptcp(c);
            }
        }
    }
}

#[test]
fn what_a_server_makes_of_each_third_ack() {
    use FallbackReason::{ChecksumRefused, KeyMismatch, NoOptionInAck, Unacceptable};
    let ack = |version, flags, wrong: u64| {
        move |k: Keys| {
            let receiver_key = k.stack ^ wrong;
            vec![MptcpOption::Capable(MpCapable::Ack { version, flags, sender_key: k.own, receiver_key })]
        }
    };
    type Options = Box<dyn Fn(Keys) -> Vec<MptcpOption>>;
    let checksum = with_flags(|f| f.checksum_required = true);
    let any = ConnectionConfig::default;
    let cases: Vec<(&str, Options, ConnectionConfig, Option<FallbackReason>)> = vec![
        ("by the book", Box::new(ack(1, flags(), 0)), any(), None),
        ("another key of ours", Box::new(ack(1, flags(), 1 << 63)), any(), Some(KeyMismatch)),
        ("another version", Box::new(ack(2, flags(), 0)), any(), Some(Unacceptable)),
        ("B", Box::new(ack(1, with_flags(|f| f.extensibility = true), 0)), any(), Some(Unacceptable)),
        ("no option", Box::new(|_| vec![]), any(), Some(NoOptionInAck)),
        ("the SYN's option", Box::new(|_| vec![capable_syn()]), any(), Some(Unacceptable)),
        ("checksums after all", Box::new(ack(1, checksum, 0)), any(), None),
        ("refused checksums", Box::new(ack(1, checksum, 0)), refusing(), Some(ChecksumRefused)),
        ("checksums forgotten", Box::new(ack(1, flags(), 0)), any().with_checksum(true), Some(Unacceptable)),
    ];
    for (what, options, config, expected) in cases {
        let mut lab = Lab::listening();
        lab.accept = Some(config);
        let mut end = End::new(peer(1, 4000), stack_at());
        let syn_ack = only(end.send(&mut lab, SYN, &[capable_syn()], &[]));
        end.hear(&syn_ack);
        let keys = Keys { own: 1234, stack: key_of(&syn_ack) };
        let answers = end.send(&mut lab, ACK, &options(keys), &[]);
        let c = lab.accepted[0];
        match expected {
            Some(reason) => {
                assert!(answers.iter().all(|a| a.seg.options.mptcp.is_empty()), "{what}: {answers:?}");
                lab.assert_plain(c, reason);
                assert_eq!(lab.counter(Counter::MPCapableFallbackACK), 1, "{what}");
                assert_eq!(lab.counter(Counter::MPCurrEstab), 0, "{what}");
                // Data still pass, as plain TCP.
                end.send(&mut lab, ACK, &[], b"plain");
                assert_eq!(lab.received(c), b"plain", "{what}");
            }
            None => {
                assert!(only(answers).dss().is_some(), "{what}");
                lab.assert_mptcp(c);
            }
        }
    }
}

/// RFC 8684 §3.1: the data form replaces third ACK and DSS; TSO repeats it on every packet.
#[test]
fn first_data_may_carry_the_keys_and_come_twice() {
    let mut lab = Lab::listening();
    let mut end = End::new(peer(1, 4000), stack_at());
    let syn_ack = only(end.send(&mut lab, SYN, &[capable_syn()], &[]));
    end.hear(&syn_ack);
    let keys = Keys { own: 1234, stack: key_of(&syn_ack) };
    let data = MptcpOption::Capable(MpCapable::Data {
        version: VERSION,
        flags: flags(),
        sender_key: keys.own,
        receiver_key: keys.stack,
        len: 8,
        checksum: None,
    });
    let first = end.clone();
    end.send(&mut lab, ACK, std::slice::from_ref(&data), b"abcd");
    let c = lab.accepted[0];
    lab.assert_mptcp(c);
    let answers = end.send(&mut lab, ACK, std::slice::from_ref(&data), b"efgh");
    assert_eq!(lab.received(c), b"abcdefgh");
    let ack = answers.last().and_then(Sent::dss).expect("a DATA_ACK").ack;
    let expected = match keys.dss(0, None) {
        MptcpOption::Dss(d) => d.ack,
        _ => None,
    };
    assert_ne!(ack, expected);
    // The first packet again.
    let mut again = first;
    again.send(&mut lab, ACK, std::slice::from_ref(&data), b"abcd");
    assert_eq!(lab.received(c), b"");
    lab.assert_mptcp(c);
    // And more data with an ordinary DSS.
    end.send(&mut lab, ACK, &[keys.dss(0, Some((9, 9, 3)))], b"ijk");
    assert_eq!(lab.received(c), b"ijk");
}

/// RFC 8684 §3.3: a checksum against what was negotiated, or its lack, ends the subflow; also in this form of
/// the mapping.
#[test]
fn keys_with_data_must_have_the_checksum_that_was_agreed() {
    for (agreed, sent) in [(false, Some(7)), (true, None)] {
        let mut lab = Lab::listening();
        lab.accept = Some(ConnectionConfig::default().with_checksum(agreed));
        let mut end = End::new(peer(1, 4000), stack_at());
        let syn_ack = only(end.send(&mut lab, SYN, &[capable_syn()], &[]));
        end.hear(&syn_ack);
        let data = MptcpOption::Capable(MpCapable::Data {
            version: VERSION,
            flags: CapableFlags::sha256(agreed, false),
            sender_key: 99,
            receiver_key: key_of(&syn_ack),
            len: 4,
            checksum: sent,
        });
        let answer = only(end.send(&mut lab, ACK, &[data], b"evil"));
        assert!(answer.seg.flags.rst, "{answer:?}");
        assert_eq!(answer.reset(), Some((1, false)));
        assert_eq!(lab.received(lab.accepted[0]), b"");
    }
}

/// Data whose DSS overtakes the third ACK must not cost the connection its MPTCP: it is sent again.
#[test]
fn data_before_the_third_ack_waits_for_the_keys() {
    let mut lab = Lab::listening();
    let mut end = End::new(peer(1, 4000), stack_at());
    let syn_ack = only(end.send(&mut lab, SYN, &[capable_syn()], &[]));
    end.hear(&syn_ack);
    let keys = Keys { own: 1234, stack: key_of(&syn_ack) };
    let mut early = end.clone();
    assert!(early.send(&mut lab, ACK, &[keys.dss(0, Some((1, 1, 4)))], b"data").is_empty());
    assert_eq!(lab.counter(Counter::MPCapableAckOvertaken), 1);
    let c = lab.accepted[0];
    assert_eq!(lab.received(c), b"");
    end.send(&mut lab, ACK, &[capable_ack(keys)], &[]);
    lab.assert_mptcp(c);
    end.send(&mut lab, ACK, &[keys.dss(0, Some((1, 1, 4)))], b"data");
    assert_eq!(lab.received(c), b"data");
}

#[test]
fn the_client_repeats_its_keys_until_it_knows_that_they_came() {
    let mut lab = Lab::new();
    let (mut end, keys, c) = establish_out(&mut lab, peer(1, PORT), ConnectionConfig::default());
    // A SYN/ACK again: the third ACK was lost.
    let again = {
        let mut e = end.clone();
        e.seq = e.seq.wrapping_add(u32::MAX);
        e.send(&mut lab, SYN_ACK, &[], &[])
    };
    assert!(matches!(only(again).capable(), Some(MpCapable::Ack { .. })));
    lab.stack.send_slice(lab.now, c, b"hello").expect("send");
    let data = only(lab.poll());
    assert!(matches!(data.capable(), Some(MpCapable::Data { len: 5, checksum: None, .. })), "{data:?}");
    end.hear(&data);
    // Nothing heard: the same again.
    let repeated = lab.pass(Duration::from_secs(2));
    assert!(repeated.iter().any(|(_, s)| matches!(s.capable(), Some(MpCapable::Data { len: 5, .. }))));
    end.send(&mut lab, ACK, &[keys.dss(5, None)], &[]);
    lab.stack.send_slice(lab.now, c, b" world").expect("send");
    let sent = lab.pass(Duration::from_millis(1));
    assert!(sent.iter().all(|(_, s)| s.capable().is_none()), "{sent:?}");
    assert!(sent.iter().any(|(_, s)| s.dss().is_some_and(|d| d.mapping.is_some())));
}

/// RFC 8684 §3.1, §3.9.3: three SYNs with the option, then without; the network is remembered, longer each
/// time.
#[test]
fn a_network_that_swallows_the_option_is_remembered() {
    let mut lab = Lab::with(StackConfig::default().with_blackhole_timeout(Duration::from_secs(3600)));
    let (remote, neighbour) = (peer(1, PORT), peer(77, PORT));
    for round in 0..3u32 {
        let c = lab.connect(remote, ConnectionConfig::default());
        let mut sent = lab.pass(Duration::from_secs(8));
        sent.retain(|(_, s)| s.seg.flags.syn);
        let with: Vec<bool> = sent.iter().map(|(_, s)| s.capable().is_some()).collect();
        assert_eq!(with, [true, true, true, false], "round {round}");
        let syn = &sent[3].1;
        let mut end = End::new(remote, syn.from);
        end.hear(syn);
        end.send(&mut lab, SYN_ACK, &[], &[]);
        lab.assert_plain(c, FallbackReason::SynsLost);
        assert_eq!(lab.counter(Counter::MPCapableSYNTXDrop), u64::from(round) + 1);
        assert_eq!(lab.counter(Counter::Blackhole), u64::from(round) + 1);
        // The whole network is left alone for an hour, twice, four times as long.
        lab.pass(Duration::from_secs((3600 << round) - 1));
        let disabled = lab.counter(Counter::MPCapableSYNTXDisabled);
        let quiet = lab.connect(neighbour, ConnectionConfig::default());
        assert_eq!(only(lab.poll()).capable(), None);
        lab.assert_plain(quiet, FallbackReason::BlackHole);
        assert_eq!(lab.counter(Counter::MPCapableSYNTXDisabled), disabled + 1);
        for c in [quiet, c] {
            lab.stack.abort(lab.now, c);
            lab.stack.close(lab.now, c);
        }
        lab.pass(Duration::from_secs(2));
    }
    // Another network is not concerned.
    let c = lab.connect(SocketAddr::from(([10, 8, 0, 1], PORT)), ConnectionConfig::default());
    assert!(lab.poll().iter().any(|s| s.capable().is_some()));
    lab.stack.close(lab.now, c);
    // Success ends the memory.
    lab.pass(Duration::from_secs(4 * 3600));
    establish_out(&mut lab, neighbour, ConnectionConfig::default());
    assert_eq!(lab.counter(Counter::Blackhole), 3);
}

/// RFC 8684 §3.1: SYNs with and without the option may be reordered; the third packet tells.
#[test]
fn a_late_answer_to_a_syn_with_the_option_still_makes_it_mptcp() {
    let mut lab = Lab::new();
    let c = lab.connect(peer(1, PORT), ConnectionConfig::default());
    let sent = lab.pass(Duration::from_secs(8));
    assert_eq!(sent.len(), 4);
    let mut end = End::new(peer(1, PORT), sent[3].1.from);
    end.hear(&sent[3].1);
    let answer = MpCapable::SynAck { version: VERSION, flags: flags(), key: 5 };
    let third = only(end.send(&mut lab, SYN_ACK, &[MptcpOption::Capable(answer)], &[]));
    assert!(matches!(third.capable(), Some(MpCapable::Ack { .. })));
    lab.assert_mptcp(c);
    assert_eq!(lab.counter(Counter::Blackhole), 0);
}

#[test]
fn simultaneous_open_is_plain_tcp() {
    let mut lab = Lab::new();
    let c = lab.connect(peer(1, PORT), ConnectionConfig::default());
    let syn = only(lab.poll());
    let mut end = End::new(peer(1, PORT), syn.from);
    let syn_ack = only(end.send(&mut lab, SYN, &[capable_syn()], &[]));
    assert!(syn_ack.seg.flags.syn && syn_ack.seg.flags.ack && syn_ack.seg.options.mptcp.is_empty());
    end.hear(&syn_ack);
    let mut answer = end.clone();
    answer.seq = answer.seq.wrapping_add(u32::MAX);
    answer.send(&mut lab, SYN_ACK, &[], &[]);
    lab.assert_plain(c, FallbackReason::SimultaneousOpen);
    assert_eq!(lab.counter(Counter::SimultConnectFallback), 1);
    end.send(&mut lab, ACK, &[], b"data");
    assert_eq!(lab.received(c), b"data");
}

/// RFC 9293 §3.5.1, figure 9: the peer holds an old connection of the same ports.
#[test]
fn an_old_ack_is_reset_and_the_syn_follows_at_once() {
    let mut lab = Lab::new();
    let c = lab.connect(peer(1, PORT), ConnectionConfig::default());
    let syn = only(lab.poll());
    let old = {
        let mut end = End::new(peer(1, PORT), syn.from);
        end.ack = syn.seg.seq.wrapping_add(0u32.wrapping_sub(5000));
        end
    };
    let answers = old.clone().send(&mut lab, ACK, &[], &[]);
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert!(answers[0].seg.flags.rst && answers[0].seg.seq == old.ack);
    assert!(answers[1].seg.flags.syn && answers[1].seg.seq == syn.seg.seq);
    // It is no loss: the option stays for as many timeouts as otherwise.
    assert!(answers[1].capable().is_some());
    let mut end = End::new(peer(1, PORT), syn.from);
    end.hear(&answers[1]);
    let answer = MpCapable::SynAck { version: VERSION, flags: flags(), key: 5 };
    end.send(&mut lab, SYN_ACK, &[MptcpOption::Capable(answer)], &[]);
    lab.assert_mptcp(c);
    assert_eq!(lab.counter(Counter::TcpTimeouts), 0);
}

/// A peer that answers every SYN so does not make the stack flood it.
#[test]
fn old_acks_without_end_are_not_answered_without_end() {
    let mut lab = Lab::new();
    lab.connect(peer(1, PORT), ConnectionConfig::default());
    let syn = only(lab.poll());
    let mut end = End::new(peer(1, PORT), syn.from);
    end.ack = syn.seg.seq.wrapping_add(9);
    let syns = (0..50).flat_map(|_| end.send(&mut lab, ACK, &[], &[])).filter(|s| s.seg.flags.syn).count();
    assert_eq!(syns, 3);
}

#[test]
fn ports_used_lately_come_last() {
    let mut lab = Lab::with(StackConfig::default().with_ephemeral_ports(50_000..=50_009));
    let remote = peer(1, PORT);
    let mut ports = Vec::new();
    for _ in 0..10 {
        let (mut end, _, c) = establish_out(&mut lab, remote, ConnectionConfig::default().with_mptcp(true));
        ports.push(end.to.port());
        lab.stack.abort(lab.now, c);
        let last = lab.poll();
        end.hear(&last[0]);
        lab.stack.close(lab.now, c);
        lab.pass(Duration::from_millis(1));
    }
    let mut sorted = ports.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (50_000..=50_009).collect::<Vec<u16>>(), "a port came twice while others were unused");
}

#[test]
fn ports_can_be_added_when_none_is_left() {
    let mut lab = Lab::with(StackConfig::default().with_ephemeral_ports(50_000..=50_001));
    let remote = peer(1, PORT);
    let connect = |lab: &mut Lab| lab.stack.connect(lab.now, ConnectOptions::new(remote)).map(drop);
    assert_eq!([(); 3].map(|()| connect(&mut lab)), [Ok(()), Ok(()), Err(ConnectError::NoPort(remote))]);
    lab.stack.add_ephemeral_ports(40_000..=40_001);
    assert_eq!([(); 3].map(|()| connect(&mut lab)), [Ok(()), Ok(()), Err(ConnectError::NoPort(remote))]);
    let mut ports: Vec<u16> = lab.poll().iter().map(|syn| syn.from.port()).collect();
    ports.sort_unstable();
    assert_eq!(ports, [40_000, 40_001, 50_000, 50_001]);
}

/// A SYN that nobody has answered yet is withdrawn by the peer's RST, and only by the exact one (RFC 5961
/// §3.2).
#[test]
fn a_pending_syn_can_be_withdrawn() {
    let mut lab = Lab::listening();
    lab.accept = None;
    let mut end = End::new(peer(1, 4000), stack_at());
    end.send(&mut lab, SYN, &[capable_syn()], &[]);
    let mut blind = end.clone();
    blind.seq = blind.seq.wrapping_add(1);
    blind.send(&mut lab, RST, &[], &[]);
    let incoming = lab.incoming[0];
    end.send(&mut lab, RST, &[], &[]);
    let gone = lab.stack.accept(lab.now, incoming, &ConnectionConfig::default());
    assert_eq!(gone, Err(umptcp_stack_core::error::ConnectError::Gone));
    // The blind one had no effect: had it, a second SYN would have been offered only after it.
    let mut end = End::new(peer(1, 4001), stack_at());
    end.send(&mut lab, SYN, &[capable_syn()], &[]);
    end.seq = end.seq.wrapping_add(1);
    end.send(&mut lab, RST, &[], &[]);
    let incoming = lab.incoming[1];
    assert!(lab.stack.accept(lab.now, incoming, &ConnectionConfig::default()).is_ok());
}

/// Nothing that came by a path which has gone since can be answered: it must not become a subflow that waits
/// for ever.
#[test]
fn what_came_by_a_removed_path_is_forgotten() {
    let mut lab = Lab::listening();
    lab.accept = None;
    let mut end = End::new(peer(1, 4000), stack_at());
    end.send(&mut lab, SYN, &[capable_syn()], &[]);
    let (incoming, path) = (lab.incoming[0], lab.paths[0]);
    lab.stack.path_removed(lab.now, path);
    let gone = lab.stack.accept(lab.now, incoming, &ConnectionConfig::default());
    assert_eq!(gone, Err(umptcp_stack_core::error::ConnectError::Gone));
    // The address may be there again, on a path of another name, when the device hands over what it still
    // had.
    lab.stack.path_added(lab.now, PathConfig::new("nic", STACK));
    let late = End::new(peer(1, 4001), stack_at()).send(&mut lab, SYN, &[capable_syn()], &[]);
    assert!(late.is_empty() && lab.incoming.len() == 1, "{late:?}");
    assert_eq!(lab.stack.connection_count(), 0);
}

/// RFC 8684 §3.1: the third ACK carries the keys, also when the device was busy until the application had
/// closed the connection.
#[test]
fn keys_go_before_a_data_fin_that_was_waiting_with_them() {
    let mut lab = Lab::new();
    let at = peer(1, PORT);
    let c = lab.connect(at, ConnectionConfig::default());
    let syn = only(lab.poll());
    let mut end = End::new(at, syn.from);
    end.hear(&syn);
    lab.stack.path_blocked(lab.now, lab.paths[0], true);
    let answer = MpCapable::SynAck { version: VERSION, flags: flags(), key: 7 };
    assert!(end.send(&mut lab, SYN_ACK, &[MptcpOption::Capable(answer)], &[]).is_empty());
    lab.stack.shutdown(lab.now, c).expect("shutdown");
    assert!(lab.poll().is_empty(), "the device is busy");
    lab.stack.path_blocked(lab.now, lab.paths[0], false);
    let sent = lab.poll();
    assert!(matches!(sent[0].capable(), Some(MpCapable::Ack { receiver_key: 7, .. })), "{sent:?}");
    assert!(sent[1..].iter().any(|s| s.dss().is_some_and(|d| d.data_fin)), "{sent:?}");
}

/// RFC 8684 §3.1: C, when joins to the initial address are unwelcome, is in our flags in either role.
#[test]
fn our_c_flag_goes_out_in_every_packet_of_the_handshake() {
    for no_join in [false, true] {
        let config = ConnectionConfig::default().with_allow_join_initial(!no_join);
        let mut lab = Lab::listening();
        lab.accept = Some(config.clone());
        let mut end = End::new(peer(1, 4000), stack_at());
        let syn_ack = only(end.send(&mut lab, SYN, &[capable_syn()], &[]));
        let Some(MpCapable::SynAck { flags, .. }) = syn_ack.capable() else { panic!("{syn_ack:?}") };
        assert_eq!(flags.no_join_initial, no_join);

        let mut lab = Lab::new();
        lab.connect(peer(1, PORT), config);
        let syn = only(lab.poll());
        let Some(MpCapable::Syn { flags: in_syn, .. }) = syn.capable() else { panic!("{syn:?}") };
        let mut end = End::new(peer(1, PORT), syn.from);
        end.hear(&syn);
        let answer = MpCapable::SynAck { version: VERSION, flags: with_flags(|_| ()), key: 77 };
        let third = only(end.send(&mut lab, SYN_ACK, &[MptcpOption::Capable(answer)], &[]));
        let Some(MpCapable::Ack { flags: in_ack, .. }) = third.capable() else { panic!("{third:?}") };
        assert_eq!((in_syn.no_join_initial, in_ack.no_join_initial), (no_join, no_join));
    }
}

//! A server that answers SYNs without remembering them (RFC 8684 §3.1, RFC 4987 §3.6).

use std::net::SocketAddr;
use umptcp_stack_core::config::{ConnectionConfig, ListenOptions, SynCookiePolicy};
use umptcp_stack_core::error::FallbackReason;
use umptcp_stack_core::event::{Event, RefuseWith};
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::types::Duration;
use umptcp_stack_core::wire::mptcp::{CapableFlags, MpCapable, MpJoin, MptcpOption, VERSION};
use umptcp_testkit::script::*;

fn stack_at() -> SocketAddr {
    SocketAddr::new(STACK, PORT)
}

fn lab(policy: SynCookiePolicy) -> Lab {
    let mut lab = Lab::new();
    let mut options = ListenOptions::new(stack_at(), 8);
    options.syn_cookies = policy;
    lab.listen(options);
    lab
}

/// A handshake as far as the SYN/ACK.
fn half(lab: &mut Lab, at: SocketAddr) -> (End, Keys) {
    let mut end = End::new(at, stack_at());
    let syn_ack = only(end.send(lab, SYN, &[capable_syn()], &[]));
    end.hear(&syn_ack);
    (end, Keys { own: 4321, stack: key_of(&syn_ack) })
}

/// A flood of SYNs from addresses that never answer: bounded state, and everybody who means it still gets
/// MPTCP.
#[test]
fn a_syn_flood_costs_no_state_and_nobody_their_mptcp() {
    let mut lab = lab(SynCookiePolicy::UnderPressure);
    let flood = |lab: &mut Lab, from: u16, n: u16| {
        for port in from..from + n {
            let sent = End::new(peer(66, port), stack_at()).send(lab, SYN, &[capable_syn()], &[]);
            assert_eq!(sent.len(), 1, "every SYN is answered");
        }
    };
    flood(&mut lab, 1000, 3000);
    assert_eq!(lab.stack.connection_count(), 8);
    assert_eq!(lab.counter(Counter::TcpSyncookiesSent), 2992);
    let (mut end, keys) = half(&mut lab, peer(1, 4000));
    flood(&mut lab, 4000, 1000);
    // Only the third ACK makes it a connection.
    assert_eq!(lab.stack.connection_count(), 8);
    let ack = only(end.send(&mut lab, ACK, &[capable_ack(keys)], &[]));
    assert!(ack.dss().is_some() && !ack.seg.flags.rst, "{ack:?}");
    assert_eq!((lab.stack.connection_count(), lab.accepted.len()), (9, 9));
    let c = lab.accepted[8];
    lab.assert_mptcp(c);
    assert!(lab.events.iter().any(|e| matches!(e, Event::Connected { connection } if *connection == c)));
    end.send(&mut lab, ACK, &[keys.dss(0, Some((1, 1, 4)))], b"data");
    assert_eq!(lab.received(c), b"data");
    // It can be joined, and sends with all that the SYN offered: timestamps, SACK, a scaled window, the whole
    // MSS.
    let mut join = End::new(peer(2, 5000), stack_at());
    let syn_ack = only(join.send(&mut lab, SYN, &[join_syn(keys.stack_token(), 9, 1)], &[]));
    assert!(matches!(syn_ack.join(), Some(MpJoin::SynAck { .. })));
    lab.stack.send_slice(lab.now, c, &[5; 14_000]).expect("send");
    let sent = lab.pass(Duration::from_millis(1));
    let bytes: usize = sent.iter().map(|(_, s)| s.payload.len()).sum();
    assert!(bytes > 10_000, "{bytes}: an unscaled window of 5000 stopped it");
    assert!(sent.iter().all(|(_, s)| s.seg.options.timestamps.is_some() || s.seg.flags.syn));
    assert!(sent.iter().any(|(_, s)| s.payload.len() > 1400));
    // The flood gone, the half-open ones are forgotten and state is kept again.
    lab.pass(Duration::from_secs(200));
    let cookies = lab.counter(Counter::TcpSyncookiesSent);
    half(&mut lab, peer(3, 4000));
    assert_eq!(lab.counter(Counter::TcpSyncookiesSent), cookies);
}

#[test]
fn without_cookies_the_backlog_is_the_end_of_it() {
    let mut lab = lab(SynCookiePolicy::Never);
    let answered = (0..20u16)
        .filter(|n| {
            !End::new(peer(66, 1000 + n), stack_at()).send(&mut lab, SYN, &[capable_syn()], &[]).is_empty()
        })
        .count();
    assert_eq!((answered, lab.counter(Counter::TcpListenOverflow)), (8, 12));
}

#[test]
fn a_cookie_cannot_be_made_up_moved_or_kept() {
    let mut lab = lab(SynCookiePolicy::Always);
    let refused = |lab: &mut Lab, mut end: End, keys: Keys| {
        let rst = only(end.send(lab, ACK, &[capable_ack(keys)], &[]));
        assert!(rst.seg.flags.rst, "{rst:?}");
        assert_eq!(rst.seg.seq, end.ack);
        assert_eq!(lab.stack.connection_count(), 0);
    };
    // Before any was sent, and made up.
    refused(&mut lab, End::new(peer(1, 4000), stack_at()), Keys { own: 1, stack: 2 });
    let (end, keys) = half(&mut lab, peer(1, 4000));
    assert_eq!(lab.stack.connection_count(), 0);
    for n in 1..100 {
        let mut bent = end.clone();
        bent.ack = bent.ack.wrapping_add(n * 0x0101_0101);
        refused(&mut lab, bent, keys);
    }
    // Somebody else's.
    let mut moved = end.clone();
    moved.at = peer(2, 4000);
    refused(&mut lab, moved, keys);
    // Another initial sequence number, other options.
    let mut bent = end.clone();
    bent.seq = bent.seq.wrapping_add(1);
    refused(&mut lab, bent, keys);
    let mut bent = end.clone();
    bent.echo ^= 1;
    refused(&mut lab, bent, keys);
    assert!(lab.counter(Counter::TcpSyncookiesFailed) > 100);
    // Too old, although cookies are about.
    lab.pass(Duration::from_secs(130));
    half(&mut lab, peer(3, 4000));
    refused(&mut lab, end, keys);
}

#[test]
fn keys_come_back_with_the_first_data_too() {
    let mut lab = lab(SynCookiePolicy::Always);
    let (mut end, keys) = half(&mut lab, peer(1, 4000));
    // The third ACK is lost, and data with a DSS come before those with the keys: no RST, no state.
    let mut early = end.clone();
    early.seq = early.seq.wrapping_add(4);
    assert!(early.send(&mut lab, ACK, &[keys.dss(0, Some((5, 5, 4)))], b"late").is_empty());
    assert_eq!(lab.stack.connection_count(), 0);
    let data = MptcpOption::Capable(MpCapable::Data {
        version: VERSION,
        flags: flags(),
        sender_key: keys.own,
        receiver_key: keys.stack,
        len: 4,
        checksum: None,
    });
    end.send(&mut lab, ACK, &[data], b"data");
    let c = lab.accepted[0];
    lab.assert_mptcp(c);
    end.send(&mut lab, ACK, &[keys.dss(0, Some((5, 5, 4)))], b"late");
    assert_eq!(lab.received(c), b"datalate");
}

/// A wrong key shows that the option was tampered with; the connection is plain TCP, as with a server that
/// remembers.
#[test]
fn a_wrong_key_falls_back() {
    let mut lab = lab(SynCookiePolicy::Always);
    let (mut end, keys) = half(&mut lab, peer(1, 4000));
    let wrong = Keys { stack: keys.stack ^ 1, ..keys };
    end.send(&mut lab, ACK, &[capable_ack(wrong)], &[]);
    lab.assert_plain(lab.accepted[0], FallbackReason::KeyMismatch);
    let (mut end, _) = half(&mut lab, peer(1, 4001));
    end.send(&mut lab, ACK, &[], b"plain");
    lab.assert_plain(lab.accepted[1], FallbackReason::NoOptionInSyn);
    assert_eq!(lab.received(lab.accepted[1]), b"plain");
}

#[test]
fn flags_survive_the_lack_of_memory() {
    let mut lab = Lab::new();
    let mut options = ListenOptions::new(stack_at(), 8);
    options.syn_cookies = SynCookiePolicy::Always;
    options.config = ConnectionConfig::default().with_allow_join_initial(false);
    lab.accept = Some(options.config.clone());
    lab.listen(options);
    let mut end = End::new(peer(1, 4000), stack_at());
    let theirs = CapableFlags::sha256(true, true);
    let syn = MptcpOption::Capable(MpCapable::Syn { version: VERSION, flags: theirs });
    let syn_ack = only(end.send(&mut lab, SYN, &[syn], &[]));
    let Some(MpCapable::SynAck { flags, key, .. }) = syn_ack.capable() else { panic!("{syn_ack:?}") };
    assert!(flags.checksum_required && flags.no_join_initial);
    end.hear(&syn_ack);
    let ack = MpCapable::Ack {
        version: VERSION,
        flags: CapableFlags::sha256(true, false),
        sender_key: 7,
        receiver_key: key,
    };
    end.send(&mut lab, ACK, &[MptcpOption::Capable(ack)], &[]);
    let c = lab.accepted[0];
    lab.assert_mptcp(c);
    assert!(lab.stack.info(c).expect("info").checksum);
    // Its C flag: the stack opens nothing towards it even when a path comes.
    let path = umptcp_stack_core::device::PathConfig::new("late", [10, 0, 2, 2].into());
    lab.stack.path_added(lab.now, path);
    assert!(lab.poll().iter().all(|s| !s.seg.flags.syn));
}

/// No timestamps: nowhere to keep the options, so there are none; data still pass.
#[test]
fn a_client_without_timestamps_loses_options_only() {
    let mut lab = lab(SynCookiePolicy::Always);
    let mut end = End::new(peer(1, 4000), stack_at());
    let mut syn = end.segment(SYN, &[]);
    syn.options.timestamps = None;
    let syn_ack = only(lab.put(end.at, end.to, &syn, &[]));
    let o = &syn_ack.seg.options;
    assert!(o.timestamps.is_none() && o.window_scale.is_none() && !o.sack_permitted && o.mss.is_some());
    end.seq = end.seq.wrapping_add(1);
    end.hear(&syn_ack);
    let mut ack = end.segment(ACK, &[]);
    ack.options.timestamps = None;
    lab.put(end.at, end.to, &ack, b"hello");
    let c = lab.accepted[0];
    assert_eq!(lab.received(c), b"hello");
    lab.assert_plain(c, FallbackReason::NoOptionInSyn);
}

/// The caller may take its time: what the client sends meanwhile is neither reset nor lost for good.
#[test]
fn a_complete_handshake_waits_for_the_callers_word() {
    let mut lab = lab(SynCookiePolicy::Always);
    lab.accept = None;
    let (mut end, keys) = half(&mut lab, peer(1, 4000));
    assert!(end.send(&mut lab, ACK, &[capable_ack(keys)], &[]).is_empty());
    assert!(end.clone().send(&mut lab, ACK, &[keys.dss(0, Some((1, 1, 4)))], b"data").is_empty());
    assert!(matches!(lab.events[..], [Event::Incoming { complete: true, mptcp: true, .. }]));
    let c = lab.stack.accept(lab.now, lab.incoming[0], &ConnectionConfig::default()).expect("accept");
    lab.poll();
    end.send(&mut lab, ACK, &[keys.dss(0, Some((1, 1, 4)))], b"data");
    assert_eq!(lab.received(c), b"data");
    // Refused: RST.
    let (mut end, keys) = half(&mut lab, peer(1, 4001));
    end.send(&mut lab, ACK, &[capable_ack(keys)], &[]);
    lab.stack.refuse(lab.now, lab.incoming[1], RefuseWith::Reset);
    let rst = only(lab.poll());
    assert!(rst.seg.flags.rst && rst.seg.seq == end.ack);
    // No more of them wait than the backlog has room for.
    for port in 5000..5020 {
        let (mut end, keys) = half(&mut lab, peer(1, port));
        assert!(end.send(&mut lab, ACK, &[capable_ack(keys)], &[]).is_empty());
    }
    assert_eq!(lab.incoming.len(), 2 + 8);
    assert_eq!(lab.counter(Counter::TcpListenOverflow), 12);
}

//! Answers to data in the SYN before the third ACK (RFC 8684 appendix B.3, figure 19): a mapping, and no DATA_ACK,
//! because the client's key has not come.

use super::fast_open::{acked, ask, early, listening};
use std::net::SocketAddr;
use umptcp_stack_core::config::ConnectionConfig;
use umptcp_stack_core::error::FallbackReason;
use umptcp_stack_core::event::Event;
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::types::{ConnectionId, Duration};
use umptcp_stack_core::wire::mptcp::{Dss, DssMapping, MpCapable, MptcpOption, VERSION};
use umptcp_testkit::script::*;

/// A server that has taken a question from a SYN and knows that the client takes answers early; the client's end, with
/// the SYN/ACK heard.
struct Asked {
    lab: Lab,
    end: End,
    keys: Keys,
    c: ConnectionId,
}

impl Asked {
    fn with(config: ConnectionConfig) -> Asked {
        let mut lab = listening(16);
        let cookie = ask(&mut lab, peer(1, 4000));
        lab.accept = Some(config.with_no_delay(true));
        let (end, syn_ack) = early(&mut lab, peer(1, 4001), &cookie, b"question");
        let keys = Keys { own: 1234, stack: key_of(&syn_ack) };
        let c = *lab.accepted.last().expect("accepted");
        assert_eq!(lab.received(c), b"question");
        lab.stack.answer_early(lab.now, c);
        assert!(lab.poll().is_empty(), "there is nothing to say yet");
        Asked { lab, end, keys, c }
    }

    fn new() -> Asked {
        Asked::with(ConnectionConfig::default())
    }

    /// What the stack sends for these bytes.
    fn says(&mut self, bytes: &[u8]) -> Vec<Sent> {
        self.lab.stack.send_slice(self.lab.now, self.c, bytes).expect("send");
        self.lab.poll()
    }

    fn third_ack(&mut self) -> Vec<Sent> {
        self.end.send(&mut self.lab, ACK, &[capable_ack(self.keys)], &[])
    }

    fn bytes_acked(&self) -> u64 {
        self.lab.stack.info(self.c).expect("info").bytes_acked
    }

    /// What leaves within a few seconds that has payload.
    fn later(&mut self) -> Vec<Sent> {
        let sent = self.lab.pass(Duration::from_secs(5));
        sent.into_iter().map(|(_, s)| s).filter(|s| !s.payload.is_empty()).collect()
    }
}

/// The mapping of `len` bytes of the stack's; the first has the number 1 in both spaces.
fn mapped(a: &Asked, at: u32, len: u16, summed: Option<&[u8]>) -> DssMapping {
    Keys { own: a.keys.stack, stack: a.keys.own }.mapping(u64::from(at), at, len, summed)
}

fn dss(s: &Sent) -> Dss {
    s.dss().unwrap_or_else(|| panic!("no DSS in {s:?}"))
}

/// It goes at once, mapped by the key that the SYN/ACK has told, and what follows the third ACK continues it.
#[test]
fn it_has_a_mapping_and_no_data_ack() {
    let mut a = Asked::new();
    assert!(a.lab.events.contains(&Event::Connected { connection: a.c }));
    let answer = only(a.says(b"answer"));
    assert_eq!((answer.seg.seq, &answer.payload[..]), (a.end.ack, &b"answer"[..]));
    assert_eq!(dss(&answer), Dss { data_fin: false, ack: None, mapping: Some(mapped(&a, 1, 6, None)) });
    let more = only(a.says(b" and more"));
    assert_eq!((dss(&more).ack, dss(&more).mapping), (None, Some(mapped(&a, 7, 9, None))));
    a.end.hear(&answer);
    a.end.hear(&more);
    // The third ACK acknowledges it for the subflow; a DATA_ACK for the connection.
    let ack = only(a.third_ack());
    assert_eq!(acked(&ack, a.keys), 0);
    a.lab.assert_mptcp(a.c);
    assert_eq!(a.bytes_acked(), 0);
    a.end.send(&mut a.lab, ACK, &[a.keys.dss(15, None)], &[]);
    assert_eq!(a.bytes_acked(), 15);
    let late = only(a.says(b"late"));
    assert_eq!(acked(&late, a.keys), 0);
    assert_eq!(dss(&late).mapping, Some(mapped(&a, 16, 4, None)));
    a.end.hear(&late);
    a.end.send(&mut a.lab, ACK, &[a.keys.dss(19, Some((1, 1, 6)))], b"thanks");
    assert_eq!((a.bytes_acked(), &a.lab.received(a.c)[..]), (19, &b"thanks"[..]));
    assert!(a.later().is_empty(), "sent again");
    let connected = a.lab.events.iter().filter(|e| **e == Event::Connected { connection: a.c }).count();
    assert_eq!(connected, 1);
}

/// The checksum covers it like any other data.
#[test]
fn it_has_a_checksum_where_those_are_in_use() {
    let mut a = Asked::with(ConnectionConfig::default().with_checksum(true));
    let answer = only(a.says(b"answer"));
    assert_eq!(dss(&answer).mapping, Some(mapped(&a, 1, 6, Some(b"answer"))));
}

/// Nobody has said that the client takes it, or it has come too late.
#[test]
fn it_is_only_for_those_who_take_it() {
    // After the third ACK there is a DATA_ACK.
    let mut a = Asked::new();
    a.third_ack();
    let answer = only(a.says(b"answer"));
    assert!(dss(&answer).ack.is_some());
    a.lab.stack.answer_early(a.lab.now, a.c);
    let more = only(a.says(b"more"));
    assert!(dss(&more).ack.is_some());
    // Without data in the SYN there is nothing to answer.
    let mut lab = Lab::listening();
    let mut end = End::new(peer(1, 4000), SocketAddr::new(STACK, PORT));
    let syn_ack = only(end.send(&mut lab, SYN, &[capable_syn()], &[]));
    end.hear(&syn_ack);
    let c = lab.accepted[0];
    lab.stack.answer_early(lab.now, c);
    lab.stack.send_slice(lab.now, c, b"banner").expect("send");
    assert!(lab.poll().is_empty());
    let keys = Keys { own: 1234, stack: key_of(&syn_ack) };
    let banner = only(end.send(&mut lab, ACK, &[capable_ack(keys)], &[]));
    assert!(banner.payload == b"banner" && dss(&banner).ack.is_some());
}

/// The third ACK is lost. The client says its key again when the answer comes, or when the SYN/ACK does.
#[test]
fn the_third_ack_may_be_lost() {
    let mut a = Asked::new();
    let answer = only(a.says(b"answer"));
    a.end.hear(&answer);
    // A DATA_ACK alone does not bring the key.
    assert!(a.end.send(&mut a.lab, ACK, &[a.keys.dss(6, None)], &[]).is_empty());
    let again = a.lab.pass(Duration::from_millis(1100));
    let again: Vec<&Sent> = again.iter().map(|(_, s)| s).filter(|s| s.to == a.end.at).collect();
    let [again] = again[..] else { panic!("{again:?}") };
    assert!(again.seg.flags.syn && again.payload.is_empty());
    a.third_ack();
    a.lab.assert_mptcp(a.c);
    a.end.send(&mut a.lab, ACK, &[a.keys.dss(6, None)], &[]);
    assert_eq!(a.bytes_acked(), 6);
    assert!(a.later().is_empty(), "sent again");
}

/// The answer is lost: it comes again with the same mapping, and a DATA_ACK now.
#[test]
fn it_may_be_lost() {
    let mut a = Asked::new();
    let first = only(a.says(b"answer"));
    a.third_ack();
    let again = a.later();
    let again = again.first().expect("the answer again");
    assert_eq!((again.seg.seq, &again.payload), (first.seg.seq, &first.payload));
    assert_eq!(dss(again).mapping, dss(&first).mapping);
    assert_eq!(acked(again, a.keys), 0);
    a.lab.assert_mptcp(a.c);
}

/// The peer acknowledges the subflow and its DATA_ACK is lost: it is asked.
#[test]
fn a_data_ack_that_is_missing_is_asked_for() {
    let mut a = Asked::new();
    let answer = only(a.says(b"answer"));
    a.end.hear(&answer);
    a.third_ack();
    let before = a.lab.counter(Counter::DataAckProbe);
    a.lab.pass(Duration::from_secs(5));
    assert!(a.lab.counter(Counter::DataAckProbe) > before);
    assert_eq!(a.bytes_acked(), 0);
}

/// The client's options are lost, and it has had a mapping: it is told that this is plain TCP, for it may have nothing
/// more to say that shows it.
#[test]
fn a_client_whose_options_are_lost_is_told() {
    let mut a = Asked::new();
    let answer = only(a.says(b"answer"));
    a.end.hear(&answer);
    let told = only(a.end.send(&mut a.lab, ACK, &[], &[]));
    a.lab.assert_plain(a.c, FallbackReason::NoOptionInAck);
    assert_eq!(dss(&told), Dss { data_fin: false, ack: None, mapping: Some(mapped(&a, 1, 0, None)) });
    assert_eq!(a.bytes_acked(), 6);
    // The next is plain, behind what went before.
    let more = a.says(b"more");
    let more = more.iter().find(|s| !s.payload.is_empty()).expect("data");
    assert_eq!((more.seg.seq, &more.payload[..]), (a.end.ack, &b"more"[..]));
    a.end.send(&mut a.lab, ACK, &[], b"plain");
    assert_eq!(a.lab.received(a.c), b"plain");
}

/// What was sent with a mapping and lost comes again without one.
#[test]
fn what_was_lost_comes_again_after_the_fallback() {
    let mut a = Asked::new();
    let first = only(a.says(b"answer"));
    a.end.send(&mut a.lab, ACK, &[], &[]);
    a.lab.assert_plain(a.c, FallbackReason::NoOptionInAck);
    let again = a.later();
    let again = again.first().expect("the answer again");
    assert_eq!((again.seg.seq, &again.payload), (first.seg.seq, &first.payload));
    assert!(again.dss().and_then(|d| d.mapping).is_none_or(|m| m.len == 0), "{again:?}");
}

/// The answer lost its options: the client says that all is plain TCP now, and its third ACK was lost.
#[test]
fn a_client_that_maps_everything_has_fallen_back() {
    for payload in [&b""[..], b"more"] {
        let mut a = Asked::new();
        let answer = only(a.says(b"answer"));
        a.end.hear(&answer);
        let mapping = Some(a.keys.mapping(1, 1, 0, None));
        let option = MptcpOption::Dss(Dss { data_fin: false, ack: None, mapping });
        a.end.send(&mut a.lab, ACK, &[option], payload);
        a.lab.assert_plain(a.c, FallbackReason::NoOptionInAck);
        assert_eq!((a.bytes_acked(), &a.lab.received(a.c)[..]), (6, payload));
    }
}

/// A third ACK that carries data is one.
#[test]
fn the_key_may_come_with_data() {
    let mut a = Asked::new();
    let answer = only(a.says(b"answer"));
    a.end.hear(&answer);
    let (sender_key, receiver_key) = (a.keys.own, a.keys.stack);
    let data = MpCapable::Data {
        version: VERSION,
        flags: flags(),
        sender_key,
        receiver_key,
        len: 6,
        checksum: None,
    };
    let sent = a.end.send(&mut a.lab, ACK, &[MptcpOption::Capable(data)], b"thanks");
    assert_eq!(a.lab.received(a.c), b"thanks");
    assert!(sent.iter().any(|s| s.dss().is_some() && acked(s, a.keys) == 6), "{sent:?}");
}

/// RFC 7413 §4.2.2: no more than the initial window.
#[test]
fn it_keeps_to_the_initial_window() {
    let mut a = Asked::new();
    let sent: usize = a.says(&[1; 50_000]).iter().map(|s| s.payload.len()).sum();
    assert!(sent > 0 && sent <= 10 * 1460, "{sent}");
    let more = a.later();
    assert!(more.is_empty(), "{more:?}");
}

/// The client resets, or never says more: nothing is left.
#[test]
fn a_client_that_goes_away_leaves_nothing() {
    let mut a = Asked::new();
    a.says(b"answer");
    a.end.send(&mut a.lab, RST, &[], &[]);
    assert!(a.lab.events.iter().any(|e| matches!(e, Event::Closed { connection, .. } if *connection == a.c)));
    let mut a = Asked::new();
    a.says(b"answer");
    a.lab.pass(Duration::from_secs(300));
    assert!(a.lab.events.iter().any(|e| matches!(e, Event::Closed { connection, .. } if *connection == a.c)));
    assert!(a.lab.pass(Duration::from_secs(300)).is_empty());
}

//! Data in the SYN (RFC 7413), which lie before the data sequence space (RFC 8684 appendix B).

use std::net::SocketAddr;
use umptcp_stack_core::config::{ConnectOptions, ConnectionConfig, ListenOptions};
use umptcp_stack_core::error::FallbackReason;
use umptcp_stack_core::event::{Event, RefuseWith};
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::types::{ConnectionId, Duration};
use umptcp_stack_core::wire::mptcp::{DataAck, Dss, MpCapable, MptcpOption, VERSION};
use umptcp_stack_core::wire::tcp::TcpFlags;
use umptcp_testkit::script::*;

pub(crate) type Cookie = Vec<u8>;

fn config() -> ConnectionConfig {
    ConnectionConfig::default().with_fast_open(true)
}

/// Listens, with up to `queue` pending requests.
pub(crate) fn listening(queue: usize) -> Lab {
    let mut lab = Lab::new();
    let mut options = ListenOptions::new(SocketAddr::new(STACK, PORT), 8);
    options.fast_open = queue;
    lab.listen(options);
    lab
}

/// A SYN with a cookie and data; returns the peer's end and what the stack answers.
pub(crate) fn early(lab: &mut Lab, at: SocketAddr, cookie: &[u8], data: &[u8]) -> (End, Sent) {
    let mut end = End::new(at, SocketAddr::new(STACK, PORT));
    let start = end.seq;
    let syn_ack = only(send(&mut end, lab, SYN, &[capable_syn()], Some(cookie), data));
    end.hear(&syn_ack);
    assert_eq!(syn_ack.seg.seq.wrapping_add(1), end.ack);
    end.seq = syn_ack.seg.ack;
    assert!(end.seq.0.wrapping_sub(start.0) <= 1 + data.len() as u32);
    (end, syn_ack)
}

/// Sends a segment with a Fast Open option.
pub(crate) fn send(
    end: &mut End,
    lab: &mut Lab,
    flags: TcpFlags,
    mptcp: &[MptcpOption],
    cookie: Option<&[u8]>,
    payload: &[u8],
) -> Vec<Sent> {
    end.timestamp += 1;
    let mut seg = end.segment(flags, mptcp);
    seg.options.fast_open = cookie.map(|c| c.iter().copied().collect());
    assert!(seg.options.fits());
    end.seq = end.seq.wrapping_add(payload.len() as u32 + u32::from(flags.syn));
    lab.put(end.at, end.to, &seg, payload)
}

fn cookie_of(s: &Sent) -> Option<Cookie> {
    s.seg.options.fast_open.as_ref().map(|c| c.to_vec())
}

/// The peer asks for a cookie and gets one, beside MP_CAPABLE and all other options.
pub(crate) fn ask(lab: &mut Lab, at: SocketAddr) -> Cookie {
    let mut end = End::new(at, SocketAddr::new(STACK, PORT));
    let syn_ack = only(send(&mut end, lab, SYN, &[capable_syn()], Some(&[]), &[]));
    key_of(&syn_ack);
    assert!(syn_ack.seg.options.timestamps.is_some() && syn_ack.seg.options.window_scale.is_some());
    let cookie = cookie_of(&syn_ack).expect("a cookie");
    assert_eq!(cookie.len(), 6);
    cookie
}

/// The DATA_ACK of the stack, relative to the peer's first data byte.
pub(crate) fn acked(s: &Sent, keys: Keys) -> u64 {
    let MptcpOption::Dss(start) = Keys { own: keys.stack, stack: keys.own }.dss(0, None) else { panic!() };
    match (s.dss().and_then(|d| d.ack), start.ack) {
        (Some(DataAck::Long(ack)), Some(DataAck::Long(start))) => ack.wrapping_sub(start),
        other => panic!("{other:?} in {s:?}"),
    }
}

#[test]
fn a_server_takes_data_from_a_syn_with_its_cookie() {
    let mut lab = listening(16);
    let cookie = ask(&mut lab, peer(1, 4000));
    assert_eq!(lab.counter(Counter::TcpFastOpenCookieReqd), 1);
    let mut end = End::new(peer(1, 4001), SocketAddr::new(STACK, PORT));
    let data = b"twenty bytes of data";
    let syn_ack = only(send(&mut end, &mut lab, SYN, &[capable_syn()], Some(&cookie), data));
    // Figure 19: it acknowledges SYN and data.
    assert_eq!(syn_ack.seg.ack, end.seq);
    assert_eq!(cookie_of(&syn_ack), None);
    let c = lab.accepted[1];
    assert_eq!(lab.received(c), data);
    end.hear(&syn_ack);
    let keys = Keys { own: 1234, stack: key_of(&syn_ack) };
    let ack = only(end.send(&mut lab, ACK, &[capable_ack(keys)], &[]));
    lab.assert_mptcp(c);
    assert_eq!(acked(&ack, keys), 0, "the data of the SYN are not in the data sequence space");
    // The first other byte is the second of the data sequence space and the first of the mapping's subflow
    // sequence.
    let sent = end.send(&mut lab, ACK, &[keys.dss(0, Some((1, 1, 4)))], b"more");
    assert_eq!(lab.received(c), b"more");
    assert!(sent.iter().any(|s| acked(s, keys) == 4), "{sent:?}");
    assert_eq!(lab.counter(Counter::TcpFastOpenPassive), 1);
    // The other direction is as ever.
    lab.stack.send_slice(lab.now, c, b"answer").expect("send");
    let answer = only(lab.poll());
    assert_eq!(answer.dss().and_then(|d| d.mapping).map(|m| (m.ssn, m.len)), Some((1, 6)));
}

#[test]
fn the_keys_may_come_with_the_first_data_after_the_syn() {
    let mut lab = listening(16);
    let cookie = ask(&mut lab, peer(1, 4000));
    let mut end = End::new(peer(1, 4001), SocketAddr::new(STACK, PORT));
    let syn_ack = only(send(&mut end, &mut lab, SYN, &[capable_syn()], Some(&cookie), b"early"));
    end.hear(&syn_ack);
    let keys = Keys { own: 1234, stack: key_of(&syn_ack) };
    let data = MpCapable::Data {
        version: VERSION,
        flags: flags(),
        sender_key: keys.own,
        receiver_key: keys.stack,
        len: 4,
        checksum: None,
    };
    let sent = end.send(&mut lab, ACK, &[MptcpOption::Capable(data)], b"late");
    let c = lab.accepted[1];
    assert_eq!(lab.received(c), b"earlylate");
    assert!(sent.iter().any(|s| s.dss().is_some() && acked(s, keys) == 4));
}

#[test]
fn a_server_takes_no_data_without_a_good_cookie() {
    let mut lab = listening(16);
    let cookie = ask(&mut lab, peer(1, 4000));
    // Made up, somebody else's, none.
    let cases: [(SocketAddr, Option<&[u8]>); 3] =
        [(peer(1, 5000), Some(&[7; 6])), (peer(2, 5000), Some(&cookie)), (peer(3, 5000), None)];
    for (at, cookie) in cases {
        let mut end = End::new(at, SocketAddr::new(STACK, PORT));
        let start = end.seq;
        let syn_ack = only(send(&mut end, &mut lab, SYN, &[capable_syn()], cookie, b"early"));
        assert_eq!(syn_ack.seg.ack, start.wrapping_add(1));
        // Who showed a bad one is given a good one.
        assert_eq!(cookie_of(&syn_ack).is_some(), cookie.is_some());
        let c = *lab.accepted.last().expect("accepted");
        assert_eq!(lab.received(c), b"");
        // Sent again with a mapping, they are ordinary data (figure 20).
        end.seq = start.wrapping_add(1);
        end.hear(&syn_ack);
        let keys = Keys { own: 1234, stack: key_of(&syn_ack) };
        end.send(&mut lab, ACK, &[capable_ack(keys)], &[]);
        end.send(&mut lab, ACK, &[keys.dss(0, Some((1, 1, 5)))], b"early");
        assert_eq!(lab.received(c), b"early");
    }
    assert_eq!(lab.counter(Counter::TcpFastOpenPassiveFail), 2);
    // Switched off: the option is ignored.
    let mut lab = listening(0);
    let mut end = End::new(peer(1, 4000), SocketAddr::new(STACK, PORT));
    let syn_ack = only(send(&mut end, &mut lab, SYN, &[capable_syn()], Some(&[]), &[]));
    assert_eq!(cookie_of(&syn_ack), None);
}

#[test]
fn data_of_a_syn_survive_fallback() {
    let mut lab = listening(16);
    let cookie = ask(&mut lab, peer(1, 4000));
    let mut end = End::new(peer(1, 4001), SocketAddr::new(STACK, PORT));
    let syn_ack = only(send(&mut end, &mut lab, SYN, &[capable_syn()], Some(&cookie), b"early "));
    end.hear(&syn_ack);
    end.send(&mut lab, ACK, &[], b"and plain");
    let c = lab.accepted[1];
    lab.assert_plain(c, FallbackReason::NoOptionInAck);
    assert_eq!(lab.received(c), b"early and plain");
}

/// The stack connects, `data` written before its SYN leaves. Returns the SYN.
fn connect(lab: &mut Lab, data: &[u8]) -> (ConnectionId, Sent) {
    let c = lab.connect(peer(1, PORT), config());
    lab.stack.send_slice(lab.now, c, data).expect("send");
    (c, only(lab.poll()))
}

/// The peer's SYN/ACK to it, which acknowledges `taken` bytes; returns its end, keys and what the stack
/// sends.
fn answer(lab: &mut Lab, syn: &Sent, taken: u32, cookie: Option<&[u8]>) -> (End, Keys, Vec<Sent>) {
    let mut end = End::new(peer(1, PORT), syn.from);
    end.hear(syn);
    end.ack = syn.seg.seq.wrapping_add(1 + taken);
    let capable = MpCapable::SynAck { version: VERSION, flags: flags(), key: 99 };
    let sent = send(&mut end, lab, SYN_ACK, &[MptcpOption::Capable(capable)], cookie, &[]);
    let stack = sent
        .iter()
        .find_map(|s| match s.capable() {
            Some(MpCapable::Ack { sender_key, .. } | MpCapable::Data { sender_key, .. }) => Some(sender_key),
            _ => None,
        })
        .expect("the stack's key");
    (end, Keys { own: 99, stack }, sent)
}

/// A first connection, by which the stack gets a cookie.
fn get_cookie(lab: &mut Lab) -> Cookie {
    let cookie = vec![1, 2, 3, 4, 5, 6];
    let (c, syn) = connect(lab, b"");
    assert_eq!(cookie_of(&syn), Some(vec![]), "it asks");
    answer(lab, &syn, 0, Some(&cookie));
    lab.stack.abort(lab.now, c);
    lab.poll();
    cookie
}

#[test]
fn a_client_asks_for_a_cookie_and_then_sends_data_in_the_syn() {
    let mut lab = Lab::new();
    let cookie = get_cookie(&mut lab);
    let (c, syn) = connect(&mut lab, b"twenty bytes of data");
    assert_eq!(cookie_of(&syn), Some(cookie));
    assert_eq!(syn.payload, b"twenty bytes of data");
    assert!(syn.capable().is_some());
    let (mut end, keys, sent) = answer(&mut lab, &syn, 20, None);
    // Keys, then a DATA_ACK, for which a Linux server waits.
    let [third, follow_up] = &sent[..] else { panic!("{sent:#?}") };
    assert_eq!(third.seg.seq, syn.seg.seq.wrapping_add(21));
    assert!(
        follow_up.payload.is_empty()
            && matches!(follow_up.dss(), Some(Dss { ack: Some(_), mapping: None, .. }))
    );
    assert!(matches!(third.capable(), Some(MpCapable::Ack { .. })) && third.payload.is_empty());
    assert_eq!(lab.counter(Counter::TcpFastOpenActive), 1);
    assert_eq!(lab.stack.info(c).expect("info").bytes_acked, 20);
    // Figure 19: the next byte has subflow sequence number 1 in mappings.
    end.send(&mut lab, ACK, &[keys.dss(0, None)], &[]);
    lab.stack.send_slice(lab.now, c, b"more").expect("send");
    let data = only(lab.poll());
    let MptcpOption::Dss(first) = Keys { own: keys.stack, stack: keys.own }.dss(0, Some((1, 1, 4))) else {
        panic!()
    };
    assert_eq!(data.dss().and_then(|d| d.mapping), first.mapping);
    assert_eq!((data.seg.seq, &data.payload[..]), (third.seg.seq, &b"more"[..]));
    end.hear(&data);
    end.send(&mut lab, ACK, &[keys.dss(4, Some((1, 1, 6)))], b"answer");
    assert_eq!(lab.received(c), b"answer");
    assert_eq!(lab.stack.info(c).expect("info").bytes_acked, 24);
    assert!(lab.pass(Duration::from_secs(3)).iter().all(|(_, s)| s.payload.is_empty()), "sent again");
}

/// Figures 20 and 21: what the SYN/ACK leaves unacknowledged is sent again, with a mapping.
#[test]
fn what_the_server_does_not_take_is_sent_again() {
    for taken in [0u32, 12] {
        let mut lab = Lab::new();
        let cookie = get_cookie(&mut lab);
        let (_, syn) = connect(&mut lab, b"twenty bytes of data");
        let (_, _, sent) = answer(&mut lab, &syn, taken, Some(&cookie));
        let again = sent.iter().find(|s| !s.payload.is_empty()).expect("data");
        assert_eq!(again.payload, &b"twenty bytes of data"[taken as usize..]);
        assert_eq!(again.seg.seq, syn.seg.seq.wrapping_add(1 + taken));
        let len = 20 - taken as u16;
        assert!(matches!(again.capable(), Some(MpCapable::Data { len: n, .. }) if n == len), "{again:?}");
        assert_eq!(lab.counter(Counter::TcpFastOpenActiveFail), u64::from(taken == 0));
        // It gave a cookie all the same, so the next SYN tries again.
        let (_, syn) = connect(&mut lab, b"x");
        assert_eq!(syn.payload, b"x");
    }
}

/// RFC 7413 §4.2.2: a SYN sent again is an ordinary one, and a server that swallowed the first is left alone.
#[test]
fn a_lost_syn_with_data_is_followed_by_an_ordinary_one() {
    let mut lab = Lab::new();
    get_cookie(&mut lab);
    let (c, syn) = connect(&mut lab, b"data");
    assert_eq!(syn.payload, b"data");
    let again = lab.pass(Duration::from_millis(1100));
    let [(_, again)] = &again[..] else { panic!("{again:?}") };
    assert!(again.seg.flags.syn && again.payload.is_empty() && cookie_of(again).is_none());
    let (_, _, sent) = answer(&mut lab, again, 0, None);
    assert!(sent.iter().any(|s| s.payload == b"data" && s.capable().is_some()));
    lab.assert_mptcp(c);
    let (_, syn) = connect(&mut lab, b"data");
    assert!(syn.payload.is_empty() && cookie_of(&syn).is_none(), "{syn:?}");
}

/// An acknowledgement beyond what the SYN carried is of another connection.
#[test]
fn an_answer_to_more_than_was_sent_is_reset() {
    let mut lab = Lab::new();
    get_cookie(&mut lab);
    let (_, syn) = connect(&mut lab, b"data");
    let mut end = End::new(peer(1, PORT), syn.from);
    end.ack = syn.seg.seq.wrapping_add(1 + 5);
    let sent = end.send(&mut lab, SYN_ACK, &[], &[]);
    assert!(sent[0].seg.flags.rst, "{sent:?}");
}

/// A plain client's, and its end.
fn early_plain(lab: &mut Lab, at: SocketAddr, cookie: &[u8], data: &[u8]) -> (End, Sent, ConnectionId) {
    let mut end = End::new(at, SocketAddr::new(STACK, PORT));
    let syn_ack = only(send(&mut end, lab, SYN, &[], Some(cookie), data));
    end.hear(&syn_ack);
    let c = *lab.accepted.last().expect("accepted");
    assert_eq!(lab.received(c), data);
    lab.stack.send_slice(lab.now, c, b"answer").expect("send");
    (end, syn_ack, c)
}

/// In plain TCP the server's answer follows the SYN/ACK at once.
#[test]
fn a_plain_answer_does_not_wait_for_the_handshake() {
    let mut lab = listening(16);
    let cookie = ask(&mut lab, peer(1, 4000));
    let (mut end, syn_ack, c) = early_plain(&mut lab, peer(1, 4001), &cookie, b"question");
    assert!(lab.events.contains(&Event::Connected { connection: c }));
    let answer = only(lab.poll());
    assert_eq!((answer.seg.seq, &answer.payload[..]), (syn_ack.seg.seq.wrapping_add(1), &b"answer"[..]));
    assert!(answer.seg.options.mptcp.is_empty());
    end.hear(&answer);
    // One ACK completes the handshake and acknowledges the answer.
    end.send(&mut lab, ACK, &[], &[]);
    assert_eq!(lab.stack.info(c).expect("info").bytes_acked, 6);
    let connected = lab.events.iter().filter(|e| **e == Event::Connected { connection: c }).count();
    assert_eq!(connected, 1);
    assert!(lab.pass(Duration::from_secs(3)).iter().all(|(_, s)| s.payload.is_empty()), "sent again");
}

/// With the third ACK lost, the SYN/ACK comes again without data (RFC 7413 §4.2.2), and then everything else.
#[test]
fn an_early_answer_survives_loss() {
    let mut lab = listening(16);
    let cookie = ask(&mut lab, peer(1, 4000));
    let (mut end, syn_ack, _) = early_plain(&mut lab, peer(1, 4001), &cookie, b"question");
    lab.poll();
    let again = lab.pass(Duration::from_millis(1100));
    let again: Vec<&Sent> = again.iter().map(|(_, s)| s).filter(|s| s.to == end.at).collect();
    let [again] = again[..] else { panic!("{again:?}") };
    assert!(again.seg.flags.syn && again.payload.is_empty() && again.seg.ack == syn_ack.seg.ack);
    end.hear(again);
    let mut sent = end.send(&mut lab, ACK, &[], &[]);
    sent.extend(lab.pass(Duration::from_secs(4)).into_iter().map(|(_, s)| s));
    let answer = sent.iter().find(|s| !s.payload.is_empty()).expect("the answer again");
    assert_eq!((answer.seg.seq, &answer.payload[..]), (end.ack, &b"answer"[..]));
}

/// RFC 7413 §4.2.2: the option may be why a SYN/ACK was lost, so that the next one does without.
#[test]
fn a_syn_ack_sent_again_has_no_cookie() {
    let mut lab = listening(16);
    ask(&mut lab, peer(1, 4000));
    let again = lab.pass(Duration::from_millis(1100));
    let [(_, again)] = &again[..] else { panic!("{again:?}") };
    assert!(again.seg.flags.syn && again.seg.flags.ack, "{again:?}");
    assert_eq!(cookie_of(again), None);
}

/// In MPTCP it waits for the client's key: Linux falls back when data come without a DATA_ACK, which needs
/// the key. The application has the connection at once all the same.
#[test]
fn an_answer_in_mptcp_waits_for_the_key() {
    let mut lab = listening(16);
    let cookie = ask(&mut lab, peer(1, 4000));
    let (mut end, syn_ack) = early(&mut lab, peer(1, 4001), &cookie, b"question");
    let c = lab.accepted[1];
    assert!(lab.events.contains(&Event::Connected { connection: c }));
    assert_eq!(lab.received(c), b"question");
    lab.stack.send_slice(lab.now, c, b"answer").expect("send");
    assert!(lab.poll().is_empty());
    let keys = Keys { own: 1234, stack: key_of(&syn_ack) };
    let answer = only(end.send(&mut lab, ACK, &[capable_ack(keys)], &[]));
    assert_eq!(answer.payload, b"answer");
    assert_eq!(acked(&answer, keys), 0);
    assert_eq!(answer.dss().and_then(|d| d.mapping).map(|m| (m.ssn, m.len)), Some((1, 6)));
    let connected = lab.events.iter().filter(|e| **e == Event::Connected { connection: c }).count();
    assert_eq!(connected, 1);
}

/// Linux as a client sends data that the SYN/ACK does not acknowledge again with a DATA_ACK, but neither keys
/// nor mapping: plain TCP, then (RFC 8684 §3.7).
#[test]
fn data_sent_again_without_a_mapping_are_plain_tcp() {
    let mut lab = listening(16);
    let (mut end, syn_ack) = early(&mut lab, peer(1, 4001), &[7; 6], b"question");
    let c = lab.accepted[0];
    let keys = Keys { own: 1234, stack: key_of(&syn_ack) };
    // An acknowledgement that overtakes the third ACK, on the other hand, is none.
    assert!(end.send(&mut lab, ACK, &[keys.dss(0, None)], &[]).is_empty());
    end.send(&mut lab, ACK, &[keys.dss(0, None)], b"question");
    lab.assert_plain(c, FallbackReason::NoOptionInAck);
    assert_eq!(lab.received(c), b"question");
}

/// Neither side speaks MPTCP: Fast Open as RFC 7413 has it.
#[test]
fn plain_tcp_has_it_too() {
    let mut lab = listening(16);
    let cookie = ask(&mut lab, peer(1, 4000));
    let (mut end, _, c) = early_plain(&mut lab, peer(1, 4001), &cookie, b"question");
    end.hear(&only(lab.poll()));
    end.send(&mut lab, ACK, &[], b"more");
    assert_eq!(lab.received(c), b"more");
    assert_eq!(lab.stack.info(c).expect("info").bytes_acked, 6);
    lab.assert_plain(c, FallbackReason::NoOptionInSyn);

    let mut lab = Lab::new();
    get_cookie(&mut lab);
    let c = lab.connect(peer(1, PORT), config().with_mptcp(false));
    lab.stack.send_slice(lab.now, c, b"question").expect("send");
    let syn = only(lab.poll());
    assert_eq!((&syn.payload[..], syn.capable()), (&b"question"[..], None));
    let mut end = End::new(peer(1, PORT), syn.from);
    end.hear(&syn);
    end.send(&mut lab, SYN_ACK, &[], &[]);
    end.send(&mut lab, ACK, &[], b"answer");
    assert_eq!(lab.received(c), b"answer");
    assert_eq!(lab.stack.info(c).expect("info").bytes_acked, 8);
}

/// A server that takes the data and refuses MPTCP.
#[test]
fn a_client_falls_back_with_its_data_taken() {
    let mut lab = Lab::new();
    get_cookie(&mut lab);
    let (c, syn) = connect(&mut lab, b"question");
    let mut end = End::new(peer(1, PORT), syn.from);
    end.hear(&syn);
    end.send(&mut lab, SYN_ACK, &[], &[]);
    lab.assert_plain(c, FallbackReason::NoOptionInSynAck);
    lab.stack.send_slice(lab.now, c, b" and more").expect("send");
    let more = only(lab.poll());
    assert_eq!((more.seg.seq, &more.payload[..]), (syn.seg.seq.wrapping_add(9), &b" and more"[..]));
    end.hear(&more);
    end.send(&mut lab, ACK, &[], b"answer");
    assert_eq!(lab.received(c), b"answer");
    assert_eq!(lab.stack.info(c).expect("info").bytes_acked, 17);
}

/// RFC 7413 §4.2, §5.1: with too many requests pending there is no Fast Open; those that failed count for a
/// minute.
#[test]
fn pending_requests_are_limited() {
    let mut lab = listening(2);
    let cookie = ask(&mut lab, peer(1, 4000));
    let (mut first, syn_ack) = early(&mut lab, peer(1, 4001), &cookie, b"one");
    let (mut second, _) = early(&mut lab, peer(1, 4002), &cookie, b"two");
    let refused = |lab: &mut Lab, port: u16| {
        let start = End::new(peer(1, port), SocketAddr::new(STACK, PORT)).seq;
        let (end, syn_ack) = early(lab, peer(1, port), &cookie, b"more");
        assert_eq!((end.seq, cookie_of(&syn_ack)), (start.wrapping_add(1), None));
        let c = *lab.accepted.last().expect("accepted");
        assert_eq!(lab.received(c), b"");
    };
    refused(&mut lab, 4003);
    assert_eq!(lab.counter(Counter::TcpFastOpenListenOverflow), 1);
    // One completes, which makes room for one.
    let keys = Keys { own: 1234, stack: key_of(&syn_ack) };
    first.send(&mut lab, ACK, &[capable_ack(keys)], &[]);
    early(&mut lab, peer(1, 4004), &cookie, b"four");
    let c = *lab.accepted.last().expect("accepted");
    assert_eq!(lab.received(c), b"four");
    // One is reset, which does not, for a minute.
    second.send(&mut lab, RST, &[], &[]);
    refused(&mut lab, 4005);
    lab.now += Duration::from_secs(61);
    early(&mut lab, peer(1, 4006), &cookie, b"six");
    let c = *lab.accepted.last().expect("accepted");
    assert_eq!(lab.received(c), b"six");
    assert_eq!(lab.counter(Counter::TcpFastOpenPassive), 4);
}

/// A SYN that waits for the caller's word counts as well, and one that is refused or withdrawn.
#[test]
fn requests_nobody_accepted_are_limited() {
    let mut lab = listening(1);
    let cookie = ask(&mut lab, peer(1, 4000));
    lab.accept = None;
    let syn = |lab: &mut Lab, port| {
        let mut end = End::new(peer(1, port), SocketAddr::new(STACK, PORT));
        assert!(send(&mut end, lab, SYN, &[capable_syn()], Some(&cookie), b"early").is_empty());
        *lab.incoming.last().expect("incoming")
    };
    let first = syn(&mut lab, 4001);
    let second = syn(&mut lab, 4002);
    assert_eq!(lab.counter(Counter::TcpFastOpenListenOverflow), 1);
    lab.stack.refuse(lab.now, first, RefuseWith::Reset);
    assert!(only(lab.poll()).seg.flags.rst);
    let third = syn(&mut lab, 4003);
    assert_eq!(lab.counter(Counter::TcpFastOpenListenOverflow), 2);
    for (incoming, data) in [(second, &b""[..]), (third, b"")] {
        let c = lab.stack.accept(lab.now, incoming, &ConnectionConfig::default()).expect("accept");
        lab.poll();
        assert_eq!(lab.received(c), data);
    }
    lab.now += Duration::from_secs(61);
    let last = syn(&mut lab, 4004);
    let c = lab.stack.accept(lab.now, last, &ConnectionConfig::default()).expect("accept");
    assert_eq!(lab.received(c), b"early");
}

/// What the receive buffer cannot hold is not acknowledged.
#[test]
fn data_beyond_the_receive_buffer_come_again() {
    let mut lab = listening(16);
    let cookie = ask(&mut lab, peer(1, 4000));
    lab.accept = Some(ConnectionConfig::default().with_receive_buffer(6));
    let start = End::new(peer(1, 4001), SocketAddr::new(STACK, PORT)).seq;
    let (mut end, syn_ack) = early(&mut lab, peer(1, 4001), &cookie, b"0123456789");
    assert_eq!((end.seq, syn_ack.seg.window), (start.wrapping_add(7), 0));
    let c = lab.accepted[1];
    assert_eq!(lab.received(c), b"012345");
    let keys = Keys { own: 1234, stack: key_of(&syn_ack) };
    end.send(&mut lab, ACK, &[capable_ack(keys)], &[]);
    end.send(&mut lab, ACK, &[keys.dss(0, Some((1, 1, 4)))], b"6789");
    assert_eq!(lab.received(c), b"6789");
}

/// Yesterday's cookie still counts, and a new one comes with the SYN/ACK.
#[test]
fn cookies_are_renewed() {
    let mut lab = listening(16);
    let cookie = ask(&mut lab, peer(1, 4000));
    lab.now += Duration::from_secs(24 * 3600);
    let (_, syn_ack) = early(&mut lab, peer(1, 4001), &cookie, b"one");
    let new = cookie_of(&syn_ack).expect("a new cookie");
    assert_ne!(new, cookie);
    assert_eq!(lab.counter(Counter::TcpFastOpenPassive), 1);
    lab.now += Duration::from_secs(24 * 3600);
    early(&mut lab, peer(1, 4002), &cookie, b"two");
    assert_eq!(lab.counter(Counter::TcpFastOpenPassiveFail), 1);
    early(&mut lab, peer(1, 4003), &new, b"three");
    assert_eq!(lab.counter(Counter::TcpFastOpenPassive), 2);
}

/// A SYN that comes twice while the handshake lasts is one connection, and its data come once.
#[test]
fn a_duplicate_syn_brings_nothing_new() {
    let mut lab = listening(16);
    let cookie = ask(&mut lab, peer(1, 4000));
    let (end, first) = early(&mut lab, peer(1, 4001), &cookie, b"once");
    let again = early(&mut lab, peer(1, 4001), &cookie, b"once").1;
    assert_eq!((again.seg.ack, again.seg.seq), (end.seq, first.seg.seq));
    assert_eq!(lab.accepted.len(), 2);
    let c = lab.accepted[1];
    assert_eq!(lab.received(c), b"once");
    assert_eq!(lab.counter(Counter::TcpFastOpenPassive), 1);
}

/// With a cookie the SYN waits for something to carry; it goes without when asked to.
#[test]
fn the_syn_waits_for_data() {
    let mut lab = Lab::new();
    get_cookie(&mut lab);
    let c = lab.connect(peer(1, PORT), config());
    assert!(lab.stack.awaits_data(c));
    assert!(lab.pass(Duration::from_secs(1000)).is_empty());
    // The wait does not count towards the user timeout.
    lab.stack.send_slice(lab.now, c, b"data").expect("send");
    assert!(!lab.stack.awaits_data(c));
    let syn = only(lab.poll());
    assert_eq!(syn.payload, b"data");
    lab.now += Duration::from_millis(1);
    lab.stack.handle_timeout(lab.now);
    answer(&mut lab, &syn, 4, None);
    lab.assert_mptcp(c);

    let c = lab.connect(peer(1, PORT), config());
    assert!(lab.poll().is_empty());
    lab.stack.open(lab.now, c);
    let syn = only(lab.poll());
    assert!(syn.payload.is_empty() && cookie_of(&syn).is_none());
    // Nothing was sent of a connection that is given up before.
    let c = lab.connect(peer(1, PORT), config());
    lab.stack.close(lab.now, c);
    assert!(lab.poll().is_empty());
}

/// Write and close, both before the handshake: everything arrives.
#[test]
fn what_was_written_before_closing_is_delivered() {
    let mut lab = Lab::new();
    get_cookie(&mut lab);
    let (c, syn) = connect(&mut lab, b"question");
    lab.stack.close(lab.now, c);
    assert!(lab.poll().is_empty());
    let (_, keys, sent) = answer(&mut lab, &syn, 0, Some(&[9; 6]));
    let data = sent.iter().find(|s| !s.payload.is_empty()).expect("data");
    assert_eq!(data.payload, b"question");
    assert_eq!(keys.own, 99);
}

/// RFC 7413 §4.1.3.1: no answer at all, or an ICMP error, is a negative response as well.
#[test]
fn a_server_that_never_answers_is_left_alone() {
    let mut lab = Lab::new();
    get_cookie(&mut lab);
    let (c, _) = connect(&mut lab, b"data");
    lab.pass(Duration::from_secs(200));
    assert!(lab.events.iter().any(|e| matches!(e, Event::Closed { connection, .. } if *connection == c)));
    let (_, syn) = connect(&mut lab, b"data");
    assert!(syn.payload.is_empty() && cookie_of(&syn).is_none(), "{syn:?}");
    // An hour later the cookie is tried again.
    lab.now += Duration::from_secs(3600);
    let (_, syn) = connect(&mut lab, b"data");
    assert_eq!(syn.payload, b"data");
}

/// A cookie that does not fit beside MP_CAPABLE is not used with it, and is without.
#[test]
fn a_cookie_that_does_not_fit_is_left_out() {
    let mut lab = Lab::new();
    lab.connect(peer(1, PORT), config().with_mptcp(false));
    let syn = only(lab.poll());
    let mut end = End::new(peer(1, PORT), syn.from);
    end.hear(&syn);
    send(&mut end, &mut lab, SYN_ACK, &[], Some(&[5; 16]), &[]);
    let (_, syn) = connect(&mut lab, b"data");
    assert!(syn.payload.is_empty() && cookie_of(&syn).is_none() && syn.capable().is_some());
    let c = lab.connect(peer(1, PORT), config().with_mptcp(false));
    lab.stack.send_slice(lab.now, c, b"data").expect("send");
    let syn = only(lab.poll());
    assert_eq!((&syn.payload[..], cookie_of(&syn)), (&b"data"[..], Some(vec![5; 16])));
    assert!(syn.seg.options.fits());
}

/// A server that answers before it has our key: DSS without DATA_ACK.
#[test]
fn early_answers_are_understood() {
    let mut lab = Lab::new();
    get_cookie(&mut lab);
    let (c, syn) = connect(&mut lab, b"question");
    let (mut end, keys, _) = answer(&mut lab, &syn, 8, None);
    let MptcpOption::Dss(mut dss) = keys.dss(0, Some((1, 1, 6))) else { panic!() };
    dss.ack = None;
    let sent = end.send(&mut lab, ACK, &[MptcpOption::Dss(dss)], b"answer");
    assert_eq!(lab.received(c), b"answer");
    let MptcpOption::Dss(start) = Keys { own: keys.stack, stack: keys.own }.dss(6, None) else { panic!() };
    let [third, follow_up] = &sent[..] else { panic!("{sent:#?}") };
    assert!(matches!(third.capable(), Some(MpCapable::Ack { .. })), "{third:?}");
    assert_eq!(follow_up.dss().and_then(|d| d.ack), start.ack);
    lab.assert_mptcp(c);
}

/// The same, read together with the SYN/ACK, before the third ACK has left.
#[test]
fn an_early_answer_may_come_with_the_syn_ack() {
    let mut lab = Lab::new();
    get_cookie(&mut lab);
    let (c, syn) = connect(&mut lab, b"question");
    let mut end = End::new(peer(1, PORT), syn.from);
    end.hear(&syn);
    let capable = MpCapable::SynAck { version: VERSION, flags: flags(), key: 99 };
    let syn_ack = end.segment(SYN_ACK, &[MptcpOption::Capable(capable)]);
    end.seq = end.seq.wrapping_add(1);
    let keys = Keys { own: 99, stack: 0 };
    let mapping = Some(keys.mapping(1, 1, 6, None));
    let data = end.segment(ACK, &[MptcpOption::Dss(Dss { data_fin: false, ack: None, mapping })]);
    lab.give(end.at, end.to, &syn_ack, b"");
    lab.give(end.at, end.to, &data, b"answer");
    let sent = lab.poll();
    assert_eq!(lab.received(c), b"answer");
    lab.assert_mptcp(c);
    assert!(matches!(sent[0].capable(), Some(MpCapable::Ack { .. })), "{sent:#?}");
    assert_eq!(sent[0].seg.ack, data.seq.wrapping_add(6));
}

/// Options that vanish after the SYN/ACK: what the SYN carried is no data without a DATA_ACK, so that this is
/// plain TCP as ever.
#[test]
fn options_lost_after_the_syn_ack_mean_plain_tcp() {
    let mut lab = Lab::new();
    get_cookie(&mut lab);
    let (c, syn) = connect(&mut lab, b"question");
    let (mut end, _, _) = answer(&mut lab, &syn, 8, None);
    end.send(&mut lab, ACK, &[], &[]);
    lab.assert_mptcp(c);
    end.send(&mut lab, ACK, &[], b"answer");
    lab.assert_plain(c, FallbackReason::NoOptionInData);
    assert_eq!(lab.received(c), b"answer");
    lab.stack.send_slice(lab.now, c, b"thanks").expect("send");
    let thanks = only(lab.poll());
    assert_eq!((thanks.seg.seq, &thanks.payload[..]), (syn.seg.seq.wrapping_add(9), &b"thanks"[..]));
    end.hear(&thanks);
    end.send(&mut lab, ACK, &[], &[]);
    assert_eq!(lab.stack.info(c).expect("info").bytes_acked, 14);

    // The same from the server's side, after its first data.
    let mut lab = listening(16);
    let cookie = ask(&mut lab, peer(1, 4000));
    let (mut end, syn_ack) = early(&mut lab, peer(1, 4001), &cookie, b"early ");
    let keys = Keys { own: 1234, stack: key_of(&syn_ack) };
    end.send(&mut lab, ACK, &[capable_ack(keys)], &[]);
    end.send(&mut lab, ACK, &[], b"and plain");
    let c = lab.accepted[1];
    lab.assert_plain(c, FallbackReason::NoOptionInData);
    assert_eq!(lab.received(c), b"early and plain");
}

/// What is to be said before the server is known to have our key waits, instead of that key being said again
/// and again.
#[test]
fn signals_wait_for_the_keys() {
    let mut lab = Lab::new();
    get_cookie(&mut lab);
    let (c, syn) = connect(&mut lab, b"question");
    let (mut end, keys, _) = answer(&mut lab, &syn, 8, None);
    lab.stack.advertise_address(lab.now, c, STACK_2, None).expect("advertise");
    assert!(lab.poll().is_empty());
    let sent = end.send(&mut lab, ACK, &[keys.dss(0, None)], &[]);
    assert!(
        sent.iter().any(|s| s.seg.options.mptcp.iter().any(|o| matches!(o, MptcpOption::AddAddr(_)))),
        "{sent:?}"
    );
}

/// A join's SYN carries no data and no cookie.
#[test]
fn joins_have_no_fast_open() {
    let mut lab = Lab::new();
    get_cookie(&mut lab);
    let c = lab.connect(peer(1, PORT), config());
    let mut options = ConnectOptions::new(peer(1, PORT));
    options.config = config();
    lab.stack.abort(lab.now, c);
    let c = lab.stack.connect(lab.now, options).expect("connect");
    lab.stack.send_slice(lab.now, c, b"question").expect("send");
    let syn = only(lab.poll());
    assert_eq!(syn.payload, b"question");
    let (mut end, keys, _) = answer(&mut lab, &syn, 8, None);
    let sent = end.send(&mut lab, ACK, &[keys.dss(0, None)], &[]);
    lab.stack.send_slice(lab.now, c, b"more").expect("send");
    let joins: Vec<Sent> = sent.into_iter().chain(lab.poll()).filter(|s| s.join().is_some()).collect();
    assert_eq!(joins.len(), 1);
    assert!(joins[0].payload.is_empty() && cookie_of(&joins[0]).is_none());
}

/// RFC 7413 §2, §4.2: nobody has it who has not asked for it.
#[test]
fn fast_open_is_off_unless_asked_for() {
    let mut lab = Lab::new();
    lab.connect(peer(1, PORT), ConnectionConfig::default());
    assert_eq!(cookie_of(&only(lab.poll())), None);
    let mut lab = Lab::listening();
    let mut end = End::new(peer(1, 4000), SocketAddr::new(STACK, PORT));
    let syn_ack = only(send(&mut end, &mut lab, SYN, &[], Some(&[]), b"early"));
    assert_eq!((cookie_of(&syn_ack), syn_ack.seg.ack), (None, end.seq.wrapping_add(5u32.wrapping_neg())));
    assert_eq!(lab.received(lab.accepted[0]), b"");
}

/// RFC 7413 §4.1.1: the option means nothing without SYN, nor with a length that no cookie has.
#[test]
fn a_cookie_without_syn_or_of_odd_length_is_ignored() {
    let mut lab = Lab::new();
    let (_, syn) = connect(&mut lab, b"");
    let (mut end, keys, _) = answer(&mut lab, &syn, 0, None);
    send(&mut end, &mut lab, ACK, &[keys.dss(0, None)], Some(&[7; 6]), &[]);
    assert!(lab.stack.fast_open_servers(lab.now).iter().all(|s| s.cookie.is_empty()));
    let mut lab = listening(16);
    let good = ask(&mut lab, peer(1, 4000));
    let mut end = End::new(peer(1, 4001), SocketAddr::new(STACK, PORT));
    let longer: Vec<u8> = good.iter().copied().chain([0]).collect();
    let syn_ack = only(send(&mut end, &mut lab, SYN, &[], Some(&longer), b"early"));
    assert_eq!(cookie_of(&syn_ack), None, "as if there were none");
    assert_eq!(syn_ack.seg.ack, end.seq.wrapping_add(5u32.wrapping_neg()), "the data are not taken");
}

/// RFC 7413 §4.2.2: what follows the SYN/ACK before the handshake is through keeps to the initial window.
#[test]
fn an_early_answer_keeps_to_the_initial_window() {
    let mut lab = listening(16);
    let cookie = ask(&mut lab, peer(1, 4000));
    let mut end = End::new(peer(1, 4001), SocketAddr::new(STACK, PORT));
    let mut syn = end.segment(SYN, &[]);
    syn.options.fast_open = Some(cookie.iter().copied().collect());
    syn.window = 60_000;
    end.seq = end.seq.wrapping_add(2);
    lab.put(end.at, end.to, &syn, b"q");
    let c = *lab.accepted.last().expect("accepted");
    assert_eq!(lab.received(c), b"q");
    lab.stack.send_slice(lab.now, c, &[1; 50_000]).expect("send");
    let sent = lab.pass(Duration::from_millis(500));
    let sent: usize = sent.iter().filter(|(_, s)| !s.seg.flags.syn).map(|(_, s)| s.payload.len()).sum();
    assert!(sent > 0 && sent <= 10 * 1460, "{sent}");
}

//! Requirements of RFC 5961: segments of somebody who guesses.

use crate::script::{ACK, PEER, Script, ms};
use umptcp_stack_core::error::ConnectionError;
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::stack::Received;
use umptcp_stack_core::wire::tcp::TcpFlags;

const RST: TcpFlags = TcpFlags { rst: true, ack: false, ..ACK };
const SYN: TcpFlags = TcpFlags { syn: true, ack: false, ..ACK };

/// §3.2: a RST in answer to a SYN counts if it acknowledges the SYN, and otherwise nothing comes of it.
#[test]
fn a_reset_in_answer_to_a_syn_must_acknowledge_it() {
    for (flags, ack, refused) in [
        (TcpFlags { rst: true, ..ACK }, 1, true),
        (TcpFlags { rst: true, ..ACK }, 0, false),
        (TcpFlags { rst: true, ..ACK }, 2, false),
        (RST, 1, false),
    ] {
        let mut s = Script::new();
        s.connect(Script::config());
        s.wait(ms(20));
        s.ack = ack;
        s.segment(flags, &[]);
        assert_eq!(s.error(), refused.then_some(ConnectionError::Refused), "{flags:?} {ack}");
        assert_eq!(s.take().len(), 0, "in silence: {flags:?} {ack}");
    }
}

/// §3.2, §4.2, §5.2: what is challenged is dropped with all that it carries, and what comes after it is taken.
#[test]
fn of_a_challenged_segment_nothing_is_taken() {
    for (name, flags, seq, ack) in [
        ("RST in the window", TcpFlags { rst: true, ..ACK }, 10, 500),
        ("SYN", TcpFlags { syn: true, ..ACK }, 0, 500),
        ("ACK of what was not sent", ACK, 0, 501),
        ("ACK from long ago", ACK, 0, -70_000),
    ] {
        let mut s = Script::connected(Script::config());
        s.write(500);
        s.take();
        let una = s.ack;
        s.seq = s.seq.wrapping_add_signed(seq);
        s.ack = s.ack.wrapping_add_signed(ack);
        s.segment(flags, b"forged");
        assert_eq!(s.counter(Counter::TcpChallengeAck), 1, "{name}");
        let sent = s.take();
        let [(_, challenge, payload)] = &sent[..] else { panic!("{name}: {sent:?}") };
        assert!(challenge.flags.ack && !challenge.flags.rst && payload.is_empty(), "{name}");
        assert_eq!(challenge.ack.0, PEER + 1, "{name}: what we expect");
        assert_eq!(challenge.seq.0, s.isn.wrapping_add(501), "{name}: what we send next");
        let id = s.connection.expect("a connection");
        assert!(!matches!(s.stack.receive(s.now, id, 100), Ok(Received::Data(_))), "{name}");
        assert_eq!(s.stack.subflows(id)[0].in_flight, 500, "{name}: its ACK does not count");
        // The peer's own segment.
        (s.seq, s.ack) = (1, una + 500);
        s.segment(ACK, b"real");
        assert!(
            matches!(s.stack.receive(s.now, id, 100), Ok(Received::Data(d)) if d[..] == b"real"[..]),
            "{name}"
        );
        assert_eq!(s.stack.subflows(id)[0].in_flight, 0, "{name}");
    }
}

/// §4.2: a peer that has begun anew answers the challenge with a RST, which ends the old connection.
#[test]
fn a_peer_that_has_begun_anew_ends_the_old_connection_by_its_answer() {
    let mut s = Script::connected(Script::config());
    s.seq = 5_000_000;
    s.segment(SYN, &[]);
    let (_, challenge, _) = s.take().pop().expect("a challenge");
    assert_eq!((s.state(), challenge.flags.ack), ("ESTABLISHED", true));
    s.seq = challenge.ack.0.wrapping_sub(PEER);
    s.segment(RST, &[]);
    assert_eq!(s.error(), Some(ConnectionError::Reset));
}

/// §5.2: an acknowledgement number lies between one largest window before the first byte that is not acknowledged,
/// and the last that was sent.
#[test]
fn acknowledgements_reach_from_the_largest_window_back_to_what_was_sent() {
    // The window has been 60,000; 70,000 bytes were sent and acknowledged, then 500 were sent.
    for (offset, taken) in [(-60_001, false), (-60_000, true), (0, true), (500, true), (501, false)] {
        let mut s = Script::connected(Script::config());
        s.carry(70_000, 7_000);
        s.write(500);
        s.take();
        s.ack = s.ack.wrapping_add_signed(offset);
        s.segment(ACK, b"data");
        assert_eq!(s.counter(Counter::TcpChallengeAck), u64::from(!taken), "{offset}");
        let id = s.connection.expect("a connection");
        let got = matches!(s.stack.receive(s.now, id, 100), Ok(Received::Data(_)));
        assert_eq!(got, taken, "{offset}");
    }
}

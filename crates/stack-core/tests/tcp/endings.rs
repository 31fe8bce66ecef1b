//! The end of connections that the application has let go of.

use crate::script::*;
use umptcp_stack_core::stack::Received;
use umptcp_stack_core::types::Duration;
use umptcp_stack_core::wire::tcp::TcpFlags;

#[test]
fn data_for_an_application_that_has_gone_are_answered_with_a_reset() {
    let mut s = Script::connected(Script::config());
    s.write(500);
    s.wait(ms(1));
    s.acknowledge(500);
    let id = s.connection.expect("a connection");
    s.stack.close(s.now, id);
    s.poll();
    s.segment(ACK, &[]);
    assert!(s.take().iter().all(|(_, seg, _)| !seg.flags.rst));
    s.segment(ACK, b"more");
    assert!(s.take().iter().any(|(_, seg, _)| seg.flags.rst));
    assert!(s.stack.info(id).is_none());
}

/// RFC 9293 §3.6.1, SHLD-3; RFC 2525 §2.17: the peer must not take it that its data were read.
#[test]
fn a_connection_closed_with_unread_data_is_reset() {
    for (what, read, fin) in [("none read", 0, false), ("some read", 4, false), ("after the FIN", 0, true)] {
        let mut s = Script::connected(Script::config());
        let id = s.connection.expect("a connection");
        // The reset ends what is to be sent, too.
        s.write(500);
        s.segment(TcpFlags { fin, ..ACK }, b"question");
        s.seq = 9 + u32::from(fin);
        if read > 0 {
            let got = s.stack.receive(s.now, id, read).unwrap();
            assert!(matches!(got, Received::Data(d) if d.len() == read), "{what}");
        }
        s.take();
        s.stack.close(s.now, id);
        s.poll();
        let sent = s.take();
        let [(_, seg, payload)] = &sent[..] else { panic!("{what}: {sent:?}") };
        assert!(seg.flags.rst && !seg.flags.fin && payload.is_empty(), "{what}: {seg:?}");
        // RFC 5961 §3.2: only this number is obeyed at once.
        assert_eq!(seg.seq.0.wrapping_sub(s.isn), 501, "{what}");
        assert!(s.stack.info(id).is_none(), "{what}");
        s.wait(Duration::from_secs(200));
        assert_eq!(s.take().len(), 0, "{what}: nothing follows");
    }
    // Everything read: an ordinary end.
    let mut s = Script::connected(Script::config());
    let id = s.connection.expect("a connection");
    s.segment(ACK, b"question");
    s.seq = 9;
    assert!(matches!(s.stack.receive(s.now, id, 100), Ok(Received::Data(d)) if d.len() == 8));
    s.stack.close(s.now, id);
    s.poll();
    let sent = s.take();
    assert!(sent.iter().any(|(_, seg, _)| seg.flags.fin) && sent.iter().all(|(_, seg, _)| !seg.flags.rst));
}

#[test]
fn an_orphan_behind_a_closed_window_is_given_up() {
    let mut s = Script::connected(Script::config().with_orphan_timeout(Duration::from_secs(50)));
    s.window = 0;
    s.segment(ACK, &[]);
    s.write(500);
    let id = s.connection.expect("a connection");
    s.stack.close(s.now, id);
    s.poll();
    for second in 1..55 {
        s.wait(Duration::from_secs(1));
        assert_eq!(s.stack.info(id).is_none(), second >= 50, "after {second} s");
        if second < 50 {
            s.segment(ACK, &[]);
        }
    }
    assert!(s.take().iter().any(|(_, seg, _)| seg.flags.rst));
}

//! The applications alone: what they plan at which time, and what they note.

use super::*;
use umptcp_netsim::application::{Plan, Progress};

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn one(source: SourceSetup, stop: Option<Instant>) -> Ends {
    let mut all = ends(&source, at(0), stop, Random::new([3; 32]));
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn got(received: u64) -> Progress {
    Progress { received, ..Progress::default() }
}

/// Milliseconds from when each message was made until it arrived, or nothing.
fn delays(log: &Logged) -> Vec<Option<u64>> {
    let delay = |m: Message| m.received.map(|t| (t - m.made).as_millis() as u64);
    log.get().messages().map(delay).collect()
}

#[test]
fn messages_are_made_in_time_whatever_becomes_of_those_before() {
    let mut e = one(SourceSetup::Constant { message: 100, interval: ms(10) }, Some(at(45)));
    let plan = |e: &mut Ends, t| e.sender.plan(at(t), &got(0));
    assert_eq!(plan(&mut e, 5), Plan { send: 100, finish: false, wake: Some(at(15)) });
    assert_eq!(plan(&mut e, 14), Plan { send: 100, finish: false, wake: Some(at(15)) });
    // Called late: those of 15 and 25 ms are of 15 and 25 ms.
    assert_eq!(plan(&mut e, 27), Plan { send: 300, finish: false, wake: Some(at(35)) });
    e.receiver.plan(at(30), &got(199));
    e.receiver.plan(at(31), &got(300));
    assert_eq!(delays(&e.log), [Some(25), Some(16), Some(6)]);
    assert_eq!(plan(&mut e, 36), Plan { send: 400, finish: false, wake: Some(at(45)) });
    assert_eq!(plan(&mut e, 50), Plan { send: 400, finish: true, wake: None });
    assert_eq!(delays(&e.log)[3], None);
}

#[test]
fn activity_alternates_with_pauses_of_the_length_given() {
    let source =
        |random| SourceSetup::OnOff { message: 10, interval: ms(10), on: ms(30), off: ms(70), random };
    let made = |source| {
        let mut e = one(source, Some(at(10_000)));
        let (mut now, mut calls) = (at(0), 0);
        while let Some(wake) = e.sender.plan(now, &got(0)).wake {
            assert!(wake > now);
            (now, calls) = (wake, calls + 1);
        }
        let made: Vec<u64> = e.log.get().messages().map(|m| m.made.as_millis()).collect();
        (made, calls)
    };
    let (regular, calls) = made(source(false));
    assert_eq!(regular[..7], [0, 10, 20, 100, 110, 120, 200]);
    assert_eq!(regular.len(), 300);
    assert!(calls < 1_000, "{calls}");
    let (random, _) = made(source(true));
    // A hundred times 30 ms of activity on the average.
    assert!(random != regular && (200..450).contains(&random.len()), "{}", random.len());
}

#[test]
fn a_late_call_makes_what_several_activities_would_have() {
    let mut e = one(
        SourceSetup::OnOff { message: 10, interval: ms(10), on: ms(30), off: ms(70), random: false },
        None,
    );
    assert_eq!(e.sender.plan(at(0), &got(0)).send, 10);
    assert_eq!(e.sender.plan(at(205), &got(0)), Plan { send: 70, finish: false, wake: Some(at(210)) });
    assert_eq!(e.sender.plan(at(250), &got(0)), Plan { send: 90, finish: false, wake: Some(at(300)) });
}

#[test]
fn questions_follow_answers() {
    let source = SourceSetup::Requests { count: Some(2), request: 5, response: 100, pause: ms(20) };
    let mut e = one(source, None);
    let plan = |e: &mut Ends, t, received| e.receiver.plan(at(t), &got(received));
    assert_eq!(plan(&mut e, 0, 0), Plan { send: 5, finish: false, wake: None });
    assert_eq!(e.sender.plan(at(3), &got(5)).send, 100);
    assert_eq!(plan(&mut e, 7, 100), Plan { send: 5, finish: false, wake: Some(at(27)) });
    assert_eq!(plan(&mut e, 27, 100), Plan { send: 10, finish: false, wake: None });
    assert_eq!(plan(&mut e, 40, 200), Plan { send: 10, finish: true, wake: None });
    assert_eq!(delays(&e.log), [Some(7), Some(13)]);
}

#[test]
fn connections_share_the_objects_of_a_page() {
    let source = SourceSetup::Page { connections: 2, objects: 3, request: 5, size: 100, every: Some(ms(50)) };
    let mut all = ends(&source, at(0), None, Random::new([0; 32]));
    let [a, b] = &mut all[..] else { panic!("two connections") };
    let plan = |e: &mut Ends, t, received| e.receiver.plan(at(t), &got(received)).send;
    assert_eq!((plan(a, 0, 0), plan(b, 0, 0)), (5, 5));
    assert_eq!(plan(a, 10, 100), 10);
    // The last has been asked for.
    assert_eq!(b.receiver.plan(at(12), &got(100)), Plan { send: 5, finish: false, wake: Some(at(50)) });
    assert_eq!(plan(a, 30, 200), 10);
    // The next page, which is late for b: it counts from 50 ms.
    assert_eq!((plan(b, 60, 100), plan(a, 61, 200)), (10, 15));
    assert_eq!(plan(b, 70, 200), 15);
    assert_eq!((plan(b, 80, 300), plan(a, 90, 300)), (15, 15));
    let pages: Vec<u64> = [a, b]
        .iter()
        .flat_map(|e| e.log.get().pages.clone())
        .map(|m| (m.received.unwrap() - m.made).as_millis() as u64)
        .collect();
    assert_eq!(pages, [30, 40]);
}

#[test]
fn a_video_is_fetched_ahead_and_stalls_are_counted() {
    let source = SourceSetup::Video { request: 5, segment: 100, length: ms(1000), ahead: ms(2500) };
    let mut e = one(source, None);
    let mut plan = |t, received| e.receiver.plan(at(t), &got(received));
    assert_eq!(plan(0, 0).send, 5);
    // Played from 200 to 1200 ms.
    assert_eq!(plan(200, 100).send, 10);
    assert_eq!(plan(300, 200).send, 10, "3 s would be ahead");
    // 2,200 + 1,000 - 2,500.
    assert_eq!(plan(300, 200).wake, Some(at(700)));
    assert_eq!(plan(700, 200).send, 15);
    // It has all been played by 2,200 ms.
    let stall = Instant::from_nanos(2_200_000_001);
    assert_eq!(plan(1_500, 200).wake, Some(stall));
    plan(2_201, 200);
    plan(2_600, 200);
    assert_eq!(plan(2_900, 300).send, 20);
    // Played from 2,900 to 3,900 ms. One that comes just then does not stall.
    plan(3_900, 400);
    assert_eq!(e.log.get().stalls, [(at(2_200), Some(at(2_900)))]);
    assert_eq!(delays(&e.log)[..4], [Some(200), Some(100), Some(2_200), Some(1_000)]);
}

#[test]
fn silence_is_the_longest_time_without_a_byte_from_the_beginning_on() {
    let mut e = ends(&SourceSetup::Bulk { size: None }, at(100), None, Random::new([0; 32])).remove(0);
    assert_eq!(e.log.get().silence(at(500)), None);
    for (t, received) in [(10, 0), (20, 1), (130, 2), (140, 2), (150, 3)] {
        e.receiver.plan(at(t), &got(received));
    }
    // The first 80 ms do not count, then 30, then 20, and 20 until the end.
    assert_eq!(e.log.get().silence(at(170)), Some(ms(30)));
    assert_eq!(e.log.get().silence(at(500)), Some(ms(350)));
    e.receiver.plan(at(155), &Progress { peer_finished: true, ..got(3) });
    assert_eq!(e.log.get().silence(at(500)), Some(ms(30)));
}

//! A path stops delivering: for how long nothing arrives, how soon the others carry everything, and how soon
//! the path is used again.

use std::thread;
use umptcp_netsim::application::{Endless, Requests, Responder, Sink};
use umptcp_netsim::trace::TraceMode;
use umptcp_netsim::{Direction, Duration, FlowId, Instant, Link, Pair, Queue, Side};
use umptcp_stack_core::config::ConnectionConfig;
use umptcp_stack_core::device::Families;
use umptcp_stack_core::info::ConnectionInfo;
use umptcp_stack_core::observe::Counter;

/// When the path falls silent, but for the seed, and for how long, in ms.
const CUT: usize = 6_000;
const SILENT: usize = 5_000;
/// Goodput over one path of 50 Mbit/s: 1420 of 1500 bytes.
const ALONE: f64 = 47.3;

fn ms(n: usize) -> Duration {
    Duration::from_millis(n as u64)
}

fn config() -> ConnectionConfig {
    ConnectionConfig::default().with_send_buffer(4 << 20).with_receive_buffer(4 << 20)
}

/// 50 Mbit/s and a queue of one bandwidth-delay product.
fn link(delay: usize) -> Link {
    Link::mbit(50).delay(ms(delay)).queue(Queue::Time(ms(2 * delay)))
}

fn counter(net: &Pair, side: Side, counter: Counter) -> u64 {
    net.stack(net.node(side)).unwrap().counters().get(counter)
}

fn info(net: &Pair, flow: FlowId, side: Side) -> ConnectionInfo {
    let end = net.flow(flow).end(side);
    net.stack(end.node).unwrap().info(end.connection.unwrap()).unwrap()
}

/// What happens to the path.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Event {
    /// It delivers nothing, and nobody says so.
    Silence,
    /// The client's NIC has no link.
    LinkDown,
    /// The NIC disappears for good.
    Removed,
}

/// An upload without end, to which something happens.
#[derive(Clone, Copy, Debug)]
struct Case {
    event: Event,
    /// To these paths, of 10 and 20 ms.
    paths: &'static [usize],
    /// The second path is a backup.
    backup: bool,
    /// The other end sends.
    download: bool,
    seed: u64,
}

/// Bytes received at the end of each millisecond.
struct Arrivals {
    received: Vec<u64>,
    /// The millisecond in which it happened.
    cut: usize,
    needless: u64,
}

impl Case {
    fn run(&self) -> Arrivals {
        let mut net = Pair::builder().path(link(10)).path(link(20)).config(config()).seed(self.seed);
        net = net.trace(TraceMode::Off);
        let mut net = net.build();
        let client = net.client();
        let ids = net.paths(client);
        if self.backup {
            net.with_stack(client, |now, stack| stack.set_path_backup(now, ids[1], true));
        }
        let spec = net.flow_spec();
        let spec =
            if self.download { spec.applications(Sink, Endless) } else { spec.applications(Endless, Sink) };
        let flow = net.add_flow(spec).unwrap();
        let (sender, receiver) =
            if self.download { (Side::Server, Side::Client) } else { (Side::Client, Side::Server) };
        let cut = CUT + 137 * self.seed as usize;
        for &path in self.paths {
            let (at, back, id) = (Instant::ZERO + ms(cut), Instant::ZERO + ms(cut + SILENT), ids[path]);
            match self.event {
                Event::Removed => net.at(at, move |net| net.remove_path(client, id)),
                _ => net.cut_path_at(at, path),
            }
            if self.event == Event::LinkDown {
                net.at(at, move |net| {
                    net.with_stack(client, |now, stack| stack.path_down(now, id, Families::BOTH));
                });
            }
            // Of both, one comes back.
            if self.event == Event::Removed || (self.paths.len() > 1 && path == 1) {
                continue;
            }
            net.restore_path_at(back, path);
            if self.event == Event::LinkDown {
                net.at(back, move |net| {
                    net.with_stack(client, |now, stack| stack.path_up(now, id, Families::BOTH));
                });
            }
        }
        let mut received = Vec::new();
        while received.len() < cut + SILENT + 3_500 {
            net.run_for(ms(1)).unwrap();
            received.push(net.flow(flow).end(receiver).progress.received);
        }
        assert!(net.flow(flow).error().is_none(), "{self:?}");
        Arrivals { received, cut, needless: counter(&net, sender, Counter::SubflowSuspectNeedless) }
    }
}

impl Arrivals {
    /// The longest time, in ms, in which nothing arrived, of those between two times in ms.
    fn longest_silence(&self, from: usize, to: usize) -> usize {
        let (mut longest, mut since) = (0, from);
        for at in from + 1..to {
            if self.received[at] != self.received[at - 1] {
                since = at;
            }
            longest = longest.max(at - since);
        }
        longest
    }

    /// Mbit/s between two times in ms.
    fn rate(&self, from: usize, to: usize) -> f64 {
        (self.received[to] - self.received[from]) as f64 * 8.0 / ((to - from) as f64 * 1e3)
    }
}

/// Runs `check` for each case, on two threads.
fn for_each<T: Sync>(cases: &[T], check: impl Fn(&T) + Sync) {
    thread::scope(|scope| {
        for half in cases.chunks(cases.len().div_ceil(2)) {
            let check = &check;
            scope.spawn(move || half.iter().for_each(check));
        }
    });
}

#[test]
fn a_path_that_fails_is_noticed_within_a_fifth_of_a_second() {
    let mut cases = Vec::new();
    for seed in 0..2 {
        for event in [Event::Silence, Event::LinkDown, Event::Removed] {
            for download in [false, true] {
                cases.push(Case { event, paths: &[0], backup: false, download, seed });
            }
        }
        cases.push(Case { event: Event::Silence, paths: &[1], backup: false, download: false, seed });
        cases.push(Case { event: Event::Silence, paths: &[0], backup: true, download: false, seed });
    }
    for_each(&cases, |case| {
        let a = case.run();
        let (cut, back) = (a.cut, a.cut + SILENT);
        let silence = a.longest_silence(cut, cut + SILENT);
        let (survivor, later) = (a.rate(cut + 500, cut + 1_000), a.rate(back + 2_000, back + 3_000));
        println!("{case:?}: silence {silence} ms, then {survivor:.1}, after the return {later:.1}");
        assert!(silence < 200, "{case:?}: {silence} ms without a byte");
        assert!(survivor >= 0.95 * ALONE, "{case:?}: {survivor:.1} Mbit/s after half a second");
        let paths = if case.backup || case.event == Event::Removed { 1.0 } else { 2.0 };
        assert!(later >= 0.9 * paths * ALONE, "{case:?}: {later:.1} Mbit/s two seconds after the return");
        assert_eq!(a.needless, 0, "{case:?}");
    });
}

#[test]
fn of_two_silent_paths_the_one_that_returns_is_in_use_after_half_a_second() {
    let cases = [0, 1, 2].map(|seed| Case {
        event: Event::Silence,
        paths: &[0, 1],
        backup: false,
        download: false,
        seed,
    });
    for_each(&cases, |case| {
        let a = case.run();
        let back = a.cut + SILENT;
        let first = (back..a.received.len()).find(|at| a.received[*at] > a.received[back]).unwrap() - back;
        println!("{case:?}: {first} ms");
        assert!(first <= 500, "{case:?}: first byte after {first} ms");
        // Silent together for seconds: they were cut off, not congested, and slow start leads to what it was.
        let later = a.rate(back + 700, back + 1_700);
        assert!(later >= 0.9 * ALONE, "{case:?}: {later:.1} Mbit/s 0.7 s after the return");
    });
}

/// What false alarms there were, and what they cost, while both paths deliver.
struct Alarms {
    suspected: u64,
    needless: u64,
    /// Bytes that arrived twice because of them, of so many sent.
    twice: (u64, u64),
}

fn alarms(links: [Link; 2], seed: u64, requests: bool, stalls: bool) -> Alarms {
    let [first, second] = links;
    let builder = Pair::builder().path(first.clone()).path(second).config(config()).seed(seed);
    let mut net = builder.trace(TraceMode::Off).build();
    let spec = if requests {
        let (client, server) =
            (Requests::new(10_000, 3_000, 20_000, ms(37)), Responder { request: 3_000, response: 20_000 });
        net.flow_spec().applications(client, server)
    } else {
        net.flow_spec().applications(Endless, Sink)
    };
    let flow = net.add_flow(spec).unwrap();
    let cable = net.path_cable(0);
    // A stall as of a radio: what is sent meanwhile comes a tenth of a second later.
    let slow = Link { delay: first.delay + ms(100), ..first.clone() };
    for n in (0..10).filter(|_| stalls) {
        for (at, link) in [(3_000 + 700 * n, slow.clone()), (3_100 + 700 * n, first.clone())] {
            net.at(Instant::ZERO + ms(at), move |net| net.set_link(cable, Direction::Forward, link));
        }
    }
    net.run_until(Instant::ZERO + ms(12_000)).unwrap();
    let sides = [Side::Client, Side::Server];
    let sum = |what| sides.iter().map(|side| counter(&net, *side, what)).sum();
    let infos = sides.map(|side| info(&net, flow, side));
    let twice = infos.iter().map(|i| i.bytes_reinjected_needlessly).sum();
    Alarms {
        suspected: sum(Counter::SubflowSuspect),
        needless: sum(Counter::SubflowSuspectNeedless),
        twice: (twice, infos.iter().map(|i| i.bytes_sent).sum()),
    }
}

#[test]
fn jitter_and_loss_are_seldom_taken_for_silence() {
    let link =
        |delay, jitter| Link::mbit(20).delay(ms(delay)).jitter(ms(jitter)).queue(Queue::Time(ms(2 * delay)));
    let mut cases = Vec::new();
    for seed in 0..2 {
        for jitter in [0, 5, 20, 60] {
            for requests in [false, true] {
                cases.push((jitter, 0.0, requests, false, seed));
            }
        }
        cases.push((0, 0.01, false, false, seed));
        cases.push((20, 0.02, true, false, seed));
        cases.push((2, 0.0, false, true, seed));
    }
    for_each(&cases, |&(jitter, loss, requests, stalls, seed)| {
        let paths = [link(10, jitter).loss(loss), link(20, jitter).loss(loss)];
        let Alarms { suspected, needless, twice } = alarms(paths, seed, requests, stalls);
        let case =
            format!("jitter {jitter} ms, loss {loss}, requests {requests}, stalls {stalls}, seed {seed}");
        println!("{case}: {suspected} suspicions, {needless} needless, {twice:?} bytes twice");
        assert_eq!(suspected, needless, "{case}: no path was silent");
        // A lost tail looks like silence, until the probe repairs it.
        let allowed = if stalls {
            4
        } else if loss > 0.0 {
            6
        } else {
            0
        };
        assert!(suspected <= allowed, "{case}: {suspected}");
        assert!(twice.0 * 20 <= twice.1, "{case}: {twice:?}");
    });
}

/// An upload over a path, a backup and a metered path, of which the first two fall silent one after the other
/// for a while: what each has carried by the end of each step.
#[test]
fn a_metered_path_carries_data_only_while_nothing_else_answers() {
    let mut net = Pair::builder().seed(4).config(config()).trace(TraceMode::Off);
    for _ in 0..3 {
        net = net.path(Link::mbit(10).delay_ms(10).queue(Queue::Time(ms(20))));
    }
    let mut net =
        net.path_options(1, |path| path.backup = true).path_options(2, |path| path.metered = true).build();
    let spec = net.flow_spec().applications(Endless, Sink);
    net.add_flow(spec).unwrap();
    let at = |n: usize| Instant::ZERO + ms(n);
    net.cut_path_at(at(3_000), 0);
    net.cut_path_at(at(6_000), 1);
    net.restore_path_at(at(9_000), 0);
    let mut steps = Vec::new();
    for end in [3_000, 6_000, 9_000, 9_600, 12_000] {
        net.run_until(at(end)).unwrap();
        steps.push([0, 1, 2].map(|path| net.path_payload(Side::Client, path)));
    }
    let [alone, backup, metered, returned, end] = steps[..] else { panic!("{steps:?}") };
    assert_eq!((alone[1], alone[2]), (0, 0), "the first does it alone");
    assert!(backup[1] > 2_500_000 && backup[2] == 0, "the backup before what costs money: {steps:?}");
    assert!(metered[2] > 2_500_000, "nothing else answers: {steps:?}");
    assert!(end[0] > returned[0] + 2_000_000 && end[2] == returned[2], "the first is back: {steps:?}");
}

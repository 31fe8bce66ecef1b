//! A fluid model of a network: no simulator like netsim, but enough to check that each algorithm balances
//! load as its paper says.
//!
//! Time advances in steps of 5 ms. In each step a subflow sends window / RTT, where the RTT is the base RTT
//! plus the queueing delay of its link. A link drops packets with RED's probability.

use super::*;

const STEP: f64 = 0.005;
const BASE_RTT: f64 = 0.080;

/// Bytes per second; bytes queued.
struct Link {
    rate: f64,
    queue: f64,
}

impl Link {
    /// RED (reference figures of the OLIA paper): per 10 Mbit/s nothing up to 25 packets, 0.1 at 50, 1 at
    /// 100.
    fn drop_probability(&self) -> f64 {
        let packets = self.queue / MSS as f64 * 1_250_000.0 / self.rate;
        match packets {
            p if p < 25.0 => 0.0,
            p if p < 50.0 => 0.1 * (p - 25.0) / 25.0,
            p => (0.1 + 0.9 * (p - 50.0) / 50.0).min(1.0),
        }
    }
}

/// One connection: a controller, and the link that each subflow uses.
struct Connection {
    cc: Box<dyn CongestionController>,
    subflows: Vec<Subflow>,
}

#[derive(Clone, Copy)]
struct Subflow {
    link: usize,
    delivered: f64,
    /// Bytes of the current round still to be acknowledged.
    round_left: f64,
    /// In recovery until then.
    recovery_until: f64,
    carry: f64,
}

impl Connection {
    fn new(name: &str, links: &[usize]) -> Self {
        let mut cc = built_in().create(name).unwrap();
        let params = SubflowParams { mss: MSS as u32, initial_window: 10 * MSS };
        (0..links.len()).for_each(|i| cc.subflow_added(T0, SubflowId(i as u32), params));
        let subflow = |link: &usize| Subflow {
            link: *link,
            delivered: 0.0,
            round_left: 0.0,
            recovery_until: 0.0,
            carry: 0.0,
        };
        Connection { cc, subflows: links.iter().map(subflow).collect() }
    }

    fn rate(&self, i: usize, links: &[Link]) -> f64 {
        let link = &links[self.subflows[i].link];
        self.cc.window(SubflowId(i as u32)) as f64 / (BASE_RTT + link.queue / link.rate)
    }

    fn step(&mut self, i: usize, seconds: f64, links: &[Link], random: &mut u64) {
        let link = &links[self.subflows[i].link];
        let sent = self.rate(i, links) * STEP;
        let (cc, id, s) = (&mut self.cc, SubflowId(i as u32), &mut self.subflows[i]);
        let now = T0 + Duration::from_secs_f64(seconds);
        let rtt = BASE_RTT + link.queue / link.rate;
        // Packets sent in this step, each dropped or not.
        s.carry += sent;
        let mut lost = 0.0;
        let mut acked = 0.0;
        while s.carry >= MSS as f64 {
            s.carry -= MSS as f64;
            if uniform(random) < link.drop_probability() { lost += 1.0 } else { acked += MSS as f64 }
        }
        s.delivered += acked;
        let window = cc.window(id);
        let in_recovery = seconds < s.recovery_until;
        if lost > 0.0 && !in_recovery {
            cc.on_loss(now, id, window);
            s.recovery_until = seconds + rtt;
            s.round_left = 0.0;
            return;
        }
        let rtt = Duration::from_secs_f64(rtt);
        if acked > 0.0 {
            let sample = AckSample {
                acked: acked as u64,
                way_back: Duration::ZERO,
                rtt: Some(rtt),
                srtt: rtt,
                min_rtt: Duration::from_secs_f64(BASE_RTT),
                in_flight: window.saturating_sub(acked as u64),
                app_limited: false,
                disordered: false,
                in_recovery,
            };
            cc.on_ack(now, id, &sample);
            s.round_left -= acked;
            if s.round_left <= 0.0 {
                cc.on_round(now, id);
                s.round_left = cc.window(id) as f64;
            }
        }
    }
}

/// xorshift64: uniform in [0, 1).
fn uniform(state: &mut u64) -> f64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 11) as f64 / (1u64 << 53) as f64
}

/// Runs for `seconds` and returns the goodput of each subflow in the second half, in Mbit/s.
fn run(mbit: &[f64], connections: &[(&str, &[usize])], seconds: f64) -> Vec<Vec<f64>> {
    let mut links: Vec<Link> = mbit.iter().map(|m| Link { rate: m * 125_000.0, queue: 0.0 }).collect();
    let mut all: Vec<Connection> = connections.iter().map(|(name, by)| Connection::new(name, by)).collect();
    let mut random = 0x9E37_79B9_7F4A_7C15;
    let steps = (seconds / STEP) as u64;
    for step in 0..steps {
        let mut load: Vec<f64> = links.iter().map(|l| -l.rate).collect();
        for c in &mut all {
            for i in 0..c.subflows.len() {
                load[c.subflows[i].link] += c.rate(i, &links);
                c.step(i, step as f64 * STEP, &links, &mut random);
                if step == steps / 2 {
                    c.subflows[i].delivered = 0.0;
                }
            }
        }
        for (link, load) in links.iter_mut().zip(load) {
            link.queue = (link.queue + load * STEP).max(0.0);
        }
    }
    let goodput = |s: &Subflow| s.delivered * 8.0 / 1e6 / (seconds / 2.0);
    all.iter().map(|c| c.subflows.iter().map(goodput).collect()).collect()
}

fn sum(rates: &[f64]) -> f64 {
    rates.iter().sum()
}

/// The goal of RFC 6356 §3 at one bottleneck: two coupled subflows take as much as one TCP, two uncoupled
/// ones twice as much.
#[test]
fn shared_bottleneck() {
    for (name, tcp, expected) in [
        ("lia", "reno", 1.0),
        ("olia", "reno", 1.0),
        ("balia", "reno", 1.0),
        ("uncoupled", "reno", 2.0),
        ("cubic", "cubic", 2.0),
    ] {
        // Five of each, so that random differences even out.
        let mut connections: Vec<(&str, &[usize])> = Vec::new();
        connections.extend([(name, &[0, 0][..]); 5]);
        connections.extend([(tcp, &[0][..]); 5]);
        let rates = run(&[20.0], &connections, 600.0);
        let multipath: f64 = rates[..5].iter().map(|r| sum(r)).sum();
        let single: f64 = rates[5..].iter().map(|r| sum(r)).sum();
        let ratio = multipath / single / expected;
        assert!((0.85..=1.15).contains(&ratio), "{name}: {multipath} : {single}");
        assert!(multipath + single > 18.0, "{name} leaves the link idle");
    }
}

/// Alone on two links every algorithm fills both, except that BALIA reduces deeply on the slower one and
/// wVegas drains its own queue.
#[test]
fn two_links_are_filled() {
    for name in built_in().names() {
        let rates = run(&[10.0, 5.0], &[(name, &[0, 1])], 300.0);
        let least = if matches!(name, "balia" | "wvegas") { 0.7 } else { 0.85 };
        assert!(rates[0][0] > 10.0 * least && rates[0][1] > 5.0 * least, "{name}: {:?}", rates[0]);
    }
}

/// RFC 6356 §1, goal 3: with one shared path and one of its own, a coupled algorithm uses the shared path
/// less than an uncoupled one does.
#[test]
fn coupling_moves_away_from_the_congested_path() {
    let share = |name| {
        let mut connections: Vec<(&str, &[usize])> = Vec::new();
        connections.push((name, &[0, 1]));
        connections.extend([("reno", &[1][..]); 3]);
        let rates = run(&[10.0, 10.0], &connections, 600.0);
        assert!(rates[0][0] > 8.5, "{name} leaves its own link idle: {:?}", rates[0]);
        rates[0][1]
    };
    let (uncoupled, lia, olia, balia) = (share("uncoupled"), share("lia"), share("olia"), share("balia"));
    assert!((2.0..3.0).contains(&uncoupled), "a quarter of the link: {uncoupled}");
    for (name, coupled) in [("lia", lia), ("olia", olia), ("balia", balia)] {
        assert!(coupled < 0.75 * uncoupled, "{name}: {coupled} against {uncoupled}");
    }
    assert!(olia < lia, "{olia} against {lia}: OLIA is the nearer to the optimum");
}

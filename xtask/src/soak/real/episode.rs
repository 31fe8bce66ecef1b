//! One episode: a world, two connections in a row, and disturbances that a seed decides.

use super::tally::Tally;
use super::traffic::{Flow, Plan, Survivor};
use super::world::{Disturbance, Kind, NICS, Side, Stack, World};
use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use umptcp_netsim::random::{Purpose, Random, derive};
use umptcp_testbed::topology::Family;

/// Length of an episode.
pub(super) const LENGTH: Duration = Duration::from_secs(300);
/// How soon a usable path must carry data again.
const SOON: Duration = Duration::from_secs(5);
/// The most that is added for a disturbance that no umptcp could see.
const UNSEEN: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(100);
/// A link carries data if this many bytes cross it in that time: more than probes and acknowledgements.
const CARRIES: (u64, Duration) = (5_000, Duration::from_millis(600));
/// For a connection to close, and for the survivor of one to notice: the user timeout, and some. Until then
/// its peer might come back.
const CLOSE: Duration = Duration::from_secs(30);
const NOTICE: Duration = Duration::from_secs(190);
/// The first connection takes this share of an episode, so that its survivor can be waited for.
const FIRST: f64 = 0.34;
const PORT: u16 = 4000;

/// What does not change during an episode.
pub(super) struct Context<'a> {
    pub(super) program: &'a Path,
    pub(super) logs: Option<&'a Path>,
    pub(super) stop: &'a AtomicBool,
    pub(super) tally: &'a Mutex<Tally>,
}

/// Which stacks talk, and over what. Twelve seeds in a row are all combinations.
#[derive(Clone, Copy)]
struct Setting {
    stacks: [Stack; 2],
    family: Family,
}

impl Setting {
    fn of(seed: u64) -> Setting {
        let (pair, rest) = (seed % 3, seed / 3);
        let umptcp = if rest.is_multiple_of(2) { Stack::UmptcpNat } else { Stack::UmptcpRouted };
        let family = if (rest / 2).is_multiple_of(2) { Family::V4 } else { Family::V6 };
        let stacks = match pair {
            0 => [umptcp, Stack::Kernel],
            1 => [Stack::Kernel, umptcp],
            _ => [umptcp, umptcp],
        };
        Setting { stacks, family }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} client, {} server, {:?}", self.stacks[0], self.stacks[1], self.family)
    }
}

/// What is known of a NIC.
struct Watch {
    side: Side,
    nic: usize,
    samples: VecDeque<(Instant, u64)>,
    /// When it last carried data.
    carried: Instant,
    /// From when on it must.
    due: Instant,
    /// What ended last, and when, until it carries data again.
    ended: Option<(Instant, Disturbance)>,
    /// It has been reported.
    broken: bool,
}

/// A disturbance that is going on.
struct Current {
    what: Disturbance,
    since: Instant,
}

/// What will be disturbed next, and how long after the last one.
struct Next {
    what: Disturbance,
    gap: Duration,
    /// It does not wait for the last one to end.
    overlaps: bool,
}

struct Episode<'a> {
    context: &'a Context<'a>,
    seed: u64,
    setting: Setting,
    world: World,
    random: Random,
    start: Instant,
    current: Vec<Current>,
    next: Next,
    /// When the last disturbance began, and when it ended.
    last: Instant,
    /// The last one.
    disturbed: Option<Disturbance>,
    watches: Vec<Watch>,
    history: VecDeque<String>,
    survivor: Option<Survivor>,
}

/// Runs the episode of this seed.
pub(super) fn run(context: &Context<'_>, seed: u64, length: Duration) {
    let mut episode = Episode::new(context, seed);
    let end = episode.start + length;
    for life in 0..=u8::MAX {
        let until = if life == 0 { episode.start + length.mul_f64(FIRST) } else { end };
        let over = Instant::now() >= end || context.stop.load(Ordering::SeqCst);
        if over || !episode.live(life, until) {
            break;
        }
    }
    let lasted = episode.start.elapsed();
    episode.tally(|t| t.seconds += lasted.as_secs());
    println!("seed {seed} ({}): {} s", episode.setting, lasted.as_secs());
}

impl<'a> Episode<'a> {
    fn new(context: &'a Context<'a>, seed: u64) -> Episode<'a> {
        let setting = Setting::of(seed);
        let world = World::new(setting.stacks, setting.family);
        let mut random = Random::new(derive(seed, Purpose::Scenario, 1));
        let now = Instant::now();
        let watches = Side::BOTH
            .iter()
            .flat_map(|&side| (0..NICS).map(move |nic| (side, nic)))
            .map(|(side, nic)| Watch {
                side,
                nic,
                samples: VecDeque::new(),
                carried: now,
                due: now + SOON,
                ended: None,
                broken: false,
            })
            .collect();
        let next = draw(&mut random);
        Episode {
            context,
            seed,
            setting,
            world,
            random,
            start: now,
            current: Vec::new(),
            next,
            last: now,
            disturbed: None,
            watches,
            history: VecDeque::new(),
            survivor: None,
        }
    }

    /// One connection. Whether the episode can go on.
    fn live(&mut self, life: u8, until: Instant) -> bool {
        let plan = Plan {
            program: self.context.program,
            logs: self.context.logs,
            name: format!("seed-{}-{life}", self.seed),
            seed: self.seed * 2 + u64::from(life),
            life,
            // The other one's survivor still has its port.
            port: PORT + u16::from(life),
        };
        let mut flow = match Flow::connect(&self.world, &plan) {
            Ok(flow) => flow,
            Err(e) => {
                self.violation("connecting", None, &format!("{e:#}"));
                return false;
            }
        };
        let now = Instant::now();
        self.last = now;
        for w in &mut self.watches {
            (w.carried, w.due, w.ended, w.broken) = (now, now + SOON, None, false);
            w.samples.clear();
        }
        self.note("connected");
        self.tally(|t| t.connections += 1);
        while Instant::now() < until {
            std::thread::sleep(TICK);
            self.end_what_is_over();
            self.disturb();
            self.look(&flow);
            self.look_at_survivor();
            if self.context.stop.load(Ordering::SeqCst) {
                self.tally(|t| t.bytes += flow.received());
                return false;
            }
            if let Some(trouble) = flow.trouble() {
                self.end_all();
                self.tally(|t| t.bytes += flow.received());
                let known = self.disturbed.and_then(|what| self.world.limit(&what));
                self.violation("connection", known, &format!("{trouble}{}", flow.said()));
                // The next one will show more.
                return true;
            }
        }
        self.end_all();
        self.tally(|t| t.bytes += flow.received());
        if life == 0 {
            let side = Side::BOTH[self.seed as usize / 3 % 2];
            self.note(&format!("the {side} is killed"));
            self.survivor = flow.kill(side);
            return true;
        }
        self.settle(&mut flow);
        self.note("both sides finish");
        if let Err(e) = flow.close(CLOSE) {
            self.violation("closing", None, &format!("{e:#}"));
        }
        true
    }

    /// Whether the program whose peer was killed ends in time.
    fn look_at_survivor(&mut self) {
        let Some(survivor) = &mut self.survivor else { return };
        match survivor.has_ended(NOTICE) {
            Ok(false) => return,
            Ok(true) => {
                let age = survivor.age();
                self.tally(|t| t.noticed(age));
            }
            Err(e) => self.violation("survivor", None, &format!("{e:#}")),
        }
        self.survivor = None;
    }

    /// Waits until the paths have recovered, so that what is sent last is not what a disturbance has hit.
    fn settle(&mut self, flow: &mut Flow) {
        let end = Instant::now() + 2 * SOON;
        while Instant::now() < end && !self.context.stop.load(Ordering::SeqCst) {
            std::thread::sleep(TICK);
            self.look(flow);
        }
    }

    /// Begins the next disturbance when its time has come.
    fn disturb(&mut self) {
        let next = &self.next;
        let alone = self.current.is_empty();
        if Instant::now() < self.last + next.gap || !(alone || next.overlaps && self.fits_beside()) {
            return;
        }
        let what = next.what;
        self.next = draw(&mut self.random);
        if !self.world.can(&what) {
            return;
        }
        self.note(&what.to_string());
        self.disturbed = Some(what);
        self.world.begin(&what);
        self.last = Instant::now();
        self.current.push(Current { what, since: self.last });
        self.tally(|t| t.begun(what.kind));
    }

    /// Whether the next disturbance may begin beside those that are going on.
    fn fits_beside(&self) -> bool {
        let next = &self.next.what;
        !next.kind.everywhere()
            && self.current.iter().all(|c| {
                // A kernel without any address for its connections gives them up.
                let lonely = self.world.stack(c.what.side) == Stack::Kernel || c.what.side == Side::Server;
                !c.what.kind.everywhere() && (c.what.side != next.side || (c.what.nic != next.nic && !lonely))
            })
            && self.current.len() < 2
    }

    fn end_what_is_over(&mut self) {
        while let Some(i) = self.current.iter().position(|c| c.since.elapsed() >= c.what.length) {
            self.end(i);
        }
    }

    fn end_all(&mut self) {
        while !self.current.is_empty() {
            self.end(0);
        }
    }

    fn end(&mut self, index: usize) {
        let Current { what, since } = self.current.remove(index);
        self.world.end(&what);
        let now = Instant::now();
        self.last = now;
        if !what.kind.momentary() {
            self.note(&format!("over: {what}"));
        }
        // What a kernel sees of its own host does not make it quicker.
        let seen = what.kind.visible() && self.world.stack(what.side) != Stack::Kernel;
        for w in &mut self.watches {
            if what.kind.everywhere() || w.side != what.side || w.nic == what.nic {
                // Two are one if the path had not recovered between them.
                let lasted = now.duration_since(since.min(w.carried)).min(UNSEEN);
                w.due = w.due.max(now + SOON + if seen { Duration::ZERO } else { lasted });
                w.ended = Some((now, what));
            }
        }
    }

    /// A NIC must carry data: nothing is wrong with it, nor with a whole host or a NIC of the other side.
    fn must_carry(current: &[Current], side: Side, nic: usize) -> bool {
        current.iter().all(|c| !c.what.kind.everywhere() && c.what.side == side && c.what.nic != nic)
    }

    /// Looks at every link.
    fn look(&mut self, flow: &Flow) {
        let bytes = self.world.link_bytes();
        let now = Instant::now();
        let (disturbed, mut found) = (self.disturbed, Vec::new());
        for (w, bytes) in self.watches.iter_mut().zip(bytes) {
            let carries = w.sample(now, bytes);
            let must = Self::must_carry(&self.current, w.side, w.nic);
            if carries {
                w.carried = now;
                if let Some((ended, what)) = w.ended.take().filter(|_| must) {
                    found.push((w.side, w.nic, Some(what), now.duration_since(ended), w.broken));
                }
                w.broken = false;
            }
            if !must {
                (w.due, w.ended) = (w.due.max(now + SOON), None);
            } else if !w.broken && now > w.due && now > w.carried + SOON {
                w.broken = true;
                // It may have carried something before it stopped.
                let what = w.ended.map(|(_, what)| what).or(disturbed);
                found.push((w.side, w.nic, what, now.duration_since(w.carried), false));
            }
        }
        for (side, nic, what, time, late) in found {
            let broken = self.watches.iter().any(|w| (w.side, w.nic) == (side, nic) && w.broken);
            if broken {
                let kind = what.map_or_else(|| "steady".to_owned(), |what| format!("{:?}", what.kind));
                let text = format!(
                    "the {side}'s NIC {nic} is usable and has carried nothing for {:.1} s{}",
                    time.as_secs_f64(),
                    flow.said()
                );
                let known = what.and_then(|what| self.world.limit(&what));
                self.violation(&kind, known, &text);
                if known.is_some() {
                    self.world.rejoin(nic);
                }
            } else if late {
                let text =
                    format!("NIC {nic} of the {side} carries data again, {:.1} s late", time.as_secs_f64());
                self.note(&text);
                println!("seed {}: {text}", self.seed);
            } else if let Some(what) = what {
                self.tally(|t| t.recovered(what.kind, time));
            }
        }
    }

    fn note(&mut self, what: &str) {
        if self.history.len() == 8 {
            self.history.pop_front();
        }
        self.history.push_back(format!("{:.1} s {what}", self.start.elapsed().as_secs_f64()));
    }

    /// Reports what should not be, with how to run it again. What is known to be so does not count.
    fn violation(&mut self, kind: &str, known: Option<&'static str>, what: &str) {
        let now = self.start.elapsed().as_secs_f64();
        let history: Vec<_> = self.history.iter().cloned().collect();
        let hours = LENGTH.as_secs_f64() / 3600.0;
        let head = known.map_or_else(|| "VIOLATION".to_owned(), |why| format!("known ({why}):"));
        println!(
            "{head} seed {} at {now:.1} s ({}): {what}\n  before: {}\n  again: cargo xtask soak --real --hours {hours:.3} --seed {}",
            self.seed,
            self.setting,
            history.join("; "),
            self.seed
        );
        if let Some(logs) = self.context.logs {
            let state: String =
                Side::BOTH.iter().map(|&s| format!("## {s}\n{}\n", self.world.describe(s))).collect();
            let file = logs.join(format!("seed-{}-at-{now:.0}.state", self.seed));
            let _ = std::fs::write(file, state);
        }
        match known {
            Some(why) => self.tally(|t| t.known(why)),
            None => self.tally(|t| t.violated(kind, self.seed)),
        }
    }

    fn tally(&self, change: impl FnOnce(&mut Tally)) {
        change(&mut self.context.tally.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Watch {
    /// Takes the link's counter. Whether it carries data now.
    fn sample(&mut self, now: Instant, bytes: Option<u64>) -> bool {
        let Some(bytes) = bytes else {
            self.samples.clear();
            return false;
        };
        if self.samples.back().is_some_and(|(_, before)| *before > bytes) {
            // Another device of that name.
            self.samples.clear();
        }
        self.samples.push_back((now, bytes));
        while self.samples.front().is_some_and(|(at, _)| now.duration_since(*at) > CARRIES.1) {
            self.samples.pop_front();
        }
        self.samples.front().is_some_and(|(_, first)| bytes - first >= CARRIES.0)
    }
}

/// The next disturbance. What is drawn depends on nothing but the seed.
fn draw(random: &mut Random) -> Next {
    let kind = Kind::DRAWN[(random.unit() * Kind::DRAWN.len() as f64) as usize];
    let side = Side::BOTH[usize::from(random.chance(0.5))];
    let nic = (random.unit() * NICS as f64) as usize;
    // Short ones as likely as long ones.
    let longest = if kind.everywhere() { 8.0 } else { 20.0 };
    let length = 0.3 * (longest / 0.3_f64).powf(random.unit());
    let gap = 1.0 + 9.0 * random.unit();
    let overlaps = random.chance(0.3);
    let choice = (random.unit() * 1000.0) as usize;
    let length = if kind.momentary() { Duration::ZERO } else { Duration::from_secs_f64(length) };
    Next {
        what: Disturbance { kind, side, nic, length, choice },
        gap: Duration::from_secs_f64(gap),
        overlaps,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twelve_seeds_are_all_settings() {
        let all: std::collections::BTreeSet<_> = (1..13).map(|seed| Setting::of(seed).to_string()).collect();
        assert_eq!(all.len(), 12, "{all:?}");
    }

    #[test]
    fn a_seed_decides_what_happens() {
        let draws = |seed| {
            let mut random = Random::new(derive(seed, Purpose::Scenario, 1));
            (0..20).map(|_| draw(&mut random).what.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(draws(3), draws(3));
        assert_ne!(draws(3), draws(4));
    }

    #[test]
    fn probes_are_no_data() {
        let now = Instant::now();
        let mut watch = Watch {
            side: Side::Client,
            nic: 0,
            samples: VecDeque::new(),
            carried: now,
            due: now,
            ended: None,
            broken: false,
        };
        let at = |tenths: u32| now + TICK * tenths;
        assert!(!watch.sample(at(0), Some(1_000_000)));
        assert!(!watch.sample(at(1), Some(1_001_500)));
        assert!(watch.sample(at(2), Some(1_006_000)));
        assert!(!watch.sample(at(9), Some(1_006_100)), "what crossed it is long past");
        assert!(!watch.sample(at(10), None));
        assert!(!watch.sample(at(11), Some(500)), "a device made anew begins at zero");
    }
}

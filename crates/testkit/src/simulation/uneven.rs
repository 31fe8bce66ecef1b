//! Pairs of paths that are not alike: what the second is worth beside the first, and that it never hurts.

use umptcp_netsim::application::{Endless, Sink};
use umptcp_netsim::random::{Purpose, Random, derive};
use umptcp_netsim::trace::TraceMode;
use umptcp_netsim::{Duration, Instant, Link, Pair, Queue, Side, SimError};
use umptcp_stack_core::config::{BufferSize, ConnectionConfig};

/// Time that is not measured, in which slow start ends.
const WARM_UP: Duration = Duration::from_secs(10);
/// Buffers that stop nobody.
const PLENTY: usize = 16 << 20;

/// A path, both directions alike.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Shape {
    /// Bits per second.
    pub rate: u64,
    /// Propagation delay, one way.
    pub delay: Duration,
    /// What the queue holds, as time.
    pub queue: Duration,
    /// Probability that a packet is lost.
    pub loss: f64,
}

impl Shape {
    /// A path that loses nothing; times in milliseconds.
    pub const fn new(rate: u64, delay: u64, queue: u64) -> Shape {
        Shape { rate, delay: Duration::from_millis(delay), queue: Duration::from_millis(queue), loss: 0.0 }
    }

    /// The same as a link.
    pub fn link(&self) -> Link {
        Link::bps(self.rate).delay(self.delay).queue(Queue::Time(self.queue)).loss(self.loss)
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Shape { rate, delay, queue, loss } = self;
        write!(
            f,
            "{:.2} Mbit/s {} ms, {} ms queue",
            *rate as f64 / 1e6,
            delay.as_millis(),
            queue.as_millis()
        )?;
        if *loss > 0.0 { write!(f, ", {:.2} % loss", 100.0 * loss) } else { Ok(()) }
    }
}

/// The paths of Raiciu et al., NSDI 2012, in the order in which they are opened: Wi-Fi and 3G.
pub const NSDI: [Shape; 2] = [Shape::new(8_000_000, 20, 80), Shape::new(2_000_000, 150, 2_000)];

/// A path that is worth nothing beside one that is worth something.
pub const TRICKLE: [Shape; 2] = [NSDI[0], Shape::new(50_000, 150, 2_000)];

/// Goodput over both paths is at least so much of that of the better path alone.
pub const LEAST: f64 = 0.95;

/// Random cases of which it is known that they do worse, how much they reach, and why.
pub const UNDERSTOOD: &[(u64, f64, &str)] = &[
    (
        47,
        0.8,
        "alone, the receive window keeps TCP from ever overflowing the short queue; the DATA_ACK comes back by the other \
         path, lets more into the queue, and what is lost there costs a round trip of 270 ms",
    ),
    (
        182,
        0.94,
        "the narrow path's queue delivers later than its round-trip time tells; when it has, the window opens at once, and \
         what the wide path then sends can overflow its queue",
    ),
    (
        239,
        0.9,
        "BLEST keeps room in the window for the path with the shorter round trip, and so holds back the one that carries \
         nine tenths",
    ),
];

/// The receive buffers at which [`NSDI`] and [`TRICKLE`] are measured, in kB.
pub const BUFFERS: [usize; 9] = [50, 100, 150, 200, 300, 400, 600, 800, 1000];

/// One connection that sends without end.
#[derive(Clone, PartialEq, Debug)]
pub struct Case {
    /// The paths, in the order in which they are opened.
    pub paths: [Shape; 2],
    /// The receive buffer. If it tunes itself, so does the send buffer; otherwise that stops nobody.
    pub buffer: BufferSize,
    /// By name.
    pub scheduler: String,
    /// By name.
    pub congestion: String,
    /// Of the simulation.
    pub seed: u64,
    /// How long it is measured.
    pub duration: Duration,
}

impl Case {
    /// LIA and min-RTT for 60 s.
    pub fn new(paths: [Shape; 2], buffer: impl Into<BufferSize>) -> Case {
        let buffer = buffer.into();
        let (scheduler, congestion) = ("min-rtt".to_owned(), "lia".to_owned());
        Case { paths, buffer, scheduler, congestion, seed: 1, duration: Duration::from_secs(60) }
    }

    /// Of these schedulers those that are for throughput: `interactive` does with long transfers what `min-rtt`
    /// does.
    pub fn comparable(schedulers: impl Iterator<Item = &'static str>) -> Vec<&'static str> {
        schedulers.filter(|name| *name != umptcp_stack_core::scheduler::Interactive::NAME).collect()
    }

    /// Any pair of paths, buffer and one of the `schedulers`.
    pub fn random(seed: u64, schedulers: &[&str]) -> Case {
        let mut random = Random::new(derive(seed, Purpose::Scenario, 0));
        let scheduler = schedulers[(random.unit() * schedulers.len() as f64) as usize].to_owned();
        // Orders of magnitude are alike likely.
        let mut between = |low: f64, high: f64| low * (high / low).powf(random.unit());
        let mut shape = || {
            let (rate, delay) = (between(2e5, 2e7) as u64, between(2.0, 200.0) as u64);
            // No less than a full packet, or nothing gets through.
            let queue = (between(20.0, 2_000.0) as u64).max(25_000_000 / rate);
            // A third of them.
            let loss = between(1e-7, 0.01);
            Shape { loss: if loss < 2e-4 { 0.0 } else { loss }, ..Shape::new(rate, delay, queue) }
        };
        let paths = [shape(), shape()];
        let buffer = between(5e4, 4e6) as usize;
        let case = Case::new(paths, buffer);
        // Coupled, a path gets less than TCP would take of it where packets are lost at random (that is what
        // coupling is for), and less when every byte goes on both.
        let coupled = scheduler != "redundant" && paths.iter().all(|p| p.loss == 0.0);
        let congestion = if coupled { case.congestion } else { "uncoupled".to_owned() };
        Case { paths, scheduler, congestion, seed, buffer: case.buffer, duration: case.duration }
    }

    /// The same with buffers that tune themselves.
    pub fn automatic(self) -> Case {
        Case { buffer: BufferSize::AUTO, ..self }
    }

    /// What goodput over both paths is to be of that of the better path alone, and why not [`LEAST`].
    pub fn least(&self) -> (f64, Option<&'static str>) {
        let known = UNDERSTOOD.iter().find(|(seed, ..)| *seed == self.seed);
        known.map_or((LEAST, None), |(_, least, why)| (*least, Some(why)))
    }

    fn config(&self) -> ConnectionConfig {
        ConnectionConfig::default()
            .with_send_buffer(if self.buffer.is_automatic() { self.buffer } else { PLENTY.into() })
            .with_receive_buffer(self.buffer)
            .with_congestion(&*self.congestion)
            .with_scheduler(&*self.scheduler)
    }

    /// Over both paths.
    pub fn run(&self) -> Result<Measured, SimError> {
        self.measure(None, self.config())
    }

    /// Plain TCP over path `i` alone, which loses the same packets, by their number, as where both are used. In a minute
    /// a path may lose a dozen, so that otherwise one is compared with another's luck.
    pub fn alone(&self, i: usize) -> Result<Measured, SimError> {
        self.measure(Some(i), self.config().with_mptcp(false).with_congestion("reno"))
    }

    /// Over both paths, and over each alone.
    pub fn compare(&self) -> Result<Comparison, SimError> {
        let alone = [self.alone(0)?.goodput, self.alone(1)?.goodput];
        Ok(Comparison { both: self.run()?.goodput, alone })
    }

    fn measure(&self, alone: Option<usize>, config: ConnectionConfig) -> Result<Measured, SimError> {
        let mut builder = Pair::builder().seed(self.seed).trace(TraceMode::Off).config(config);
        for path in self.paths {
            builder = builder.path(path.link());
        }
        let mut net = builder.build();
        let mut spec = net.flow_spec().applications(Endless, Sink);
        spec.paths = alone.map(|i| net.paths(net.client())[i]).into_iter().collect();
        let flow = net.add_flow(spec)?;
        net.run_until(Instant::ZERO + WARM_UP)?;
        let state = |net: &Pair| {
            let sent: u64 = (0..self.paths.len()).map(|i| net.path_payload(Side::Client, i)).sum();
            (net.flow(flow).end(Side::Server).progress.received, sent)
        };
        let before = state(&net);
        net.run_until(Instant::ZERO + WARM_UP + self.duration)?;
        let after = state(&net);
        let received = (after.0 - before.0) as f64;
        Ok(Measured {
            goodput: received * 8.0 / self.duration.as_secs_f64() / 1e6,
            copies: (after.1 - before.1) as f64 / received - 1.0,
        })
    }
}

/// What a connection did.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Measured {
    /// Mbit/s.
    pub goodput: f64,
    /// Bytes that arrived in vain, because they had arrived before, as a share of those that did not.
    pub copies: f64,
}

/// Goodput in Mbit/s.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Comparison {
    /// Over both paths.
    pub both: f64,
    /// Of plain TCP over each path alone.
    pub alone: [f64; 2],
}

impl Comparison {
    /// What both are worth, in parts of the better one alone.
    pub fn ratio(&self) -> f64 {
        self.both / self.alone[0].max(self.alone[1])
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Case { paths: [a, b], buffer, scheduler, congestion, seed, .. } = self;
        write!(f, "seed {seed}: {{{a}}} with {{{b}}}, ")?;
        match buffer {
            BufferSize::Fixed(bytes) => write!(f, "{} kB", bytes / 1000)?,
            automatic => write!(f, "up to {} kB", automatic.limit() / 1000)?,
        }
        write!(f, ", {scheduler}, {congestion}")
    }
}

//! The description of one direction of a link.

use crate::aqm::{Aqm, CoDel, Red};
use crate::rate_trace::RateTrace;
use std::fmt;
use std::sync::Arc;
use umptcp_types::Duration;

/// How much may wait to be transmitted. The packet being transmitted does not count. Arrivals beyond it are
/// dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Queue {
    /// At most so many packets.
    Packets(usize),
    /// At most so many bytes.
    Bytes(u64),
    /// A packet that would wait longer than this before its transmission starts is dropped.
    Time(Duration),
    /// No limit.
    Unlimited,
}

/// Which packets are lost on the way, after they have been transmitted.
#[derive(Clone, PartialEq, Debug)]
pub enum Loss {
    /// None.
    None,
    /// Each with this probability, independently.
    Random(f64),
    /// Bursts (Gilbert–Elliott): a two-state chain that takes one step per packet, then loses it with the
    /// state's probability.
    Bursts {
        /// Probability of the step from the good state to the bad one.
        to_bad: f64,
        /// Probability of the step from the bad state to the good one.
        to_good: f64,
        /// Loss probability in the good state.
        loss_good: f64,
        /// Loss probability in the bad state.
        loss_bad: f64,
    },
    /// Exactly these packets, counted from 0 in the order of their transmission.
    Exactly(Vec<u64>),
}

impl Loss {
    /// Bursts of losses, `length` packets long on average (at least 1), that add up to the fraction `mean` of
    /// all packets.
    pub fn bursts(mean: f64, length: f64) -> Loss {
        let to_good = 1.0 / length.max(1.0);
        let mean = mean.clamp(0.0, 0.99);
        Loss::Bursts {
            to_bad: (to_good * mean / (1.0 - mean)).min(1.0),
            to_good,
            loss_good: 0.0,
            loss_bad: 1.0,
        }
    }
}

/// Packets that overtake one another.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Reorder {
    /// Probability that a packet is held back.
    pub probability: f64,
    /// How much longer such a packet takes; those behind it may overtake it meanwhile.
    pub extra_delay: Duration,
}

/// One direction of a link. All fields are public; the methods only make descriptions short:
///
/// ```
/// use umptcp_netsim::{Link, Queue};
/// let link = Link::mbit(50).delay_ms(10).queue(Queue::Packets(100)).loss(0.01);
/// assert_eq!(link.rate, Some(50_000_000));
/// ```
#[derive(Clone, PartialEq, Debug)]
pub struct Link {
    /// Bits per second; `None`: transmission takes no time and nothing waits. A rate of 0 counts as 1.
    pub rate: Option<u64>,
    /// A recorded rate, in the place of `rate`.
    pub trace: Option<Arc<RateTrace>>,
    /// Propagation delay.
    pub delay: Duration,
    /// A random delay, uniform between zero and this, added to each packet. It alone never changes the
    /// packets' order.
    pub jitter: Duration,
    /// Packets held back so that others overtake them.
    pub reorder: Reorder,
    /// What may wait.
    pub queue: Queue,
    /// What is dropped before the queue is full.
    pub aqm: Aqm,
    /// Where active queue management would drop a packet of a connection that uses ECN, it marks it (RFC 3168
    /// §5).
    pub ecn: bool,
    /// What is lost.
    pub loss: Loss,
    /// Probability that a packet arrives twice.
    pub duplicate: f64,
    /// Largest IP packet in bytes; larger ones are dropped.
    pub mtu: u16,
    /// Bytes that each packet occupies on the wire beyond its IP length (38 for Ethernet with preamble and
    /// gap).
    pub overhead: u32,
}

impl Default for Link {
    /// Infinitely fast, without delay or loss, with an MTU of 1500.
    fn default() -> Self {
        Link {
            rate: None,
            trace: None,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            reorder: Reorder::default(),
            queue: Queue::Packets(1000),
            aqm: Aqm::TailDrop,
            ecn: false,
            loss: Loss::None,
            duplicate: 0.0,
            mtu: 1500,
            overhead: 0,
        }
    }
}

impl Link {
    /// A link with this rate in bits per second.
    pub fn bps(rate: u64) -> Link {
        Link { rate: Some(rate), ..Link::default() }
    }

    /// A link with this rate in Mbit/s (10⁶ bits per second).
    pub fn mbit(rate: u64) -> Link {
        Link::bps(rate.saturating_mul(1_000_000))
    }

    /// A link without a rate limit.
    pub fn unlimited() -> Link {
        Link::default()
    }

    /// With this propagation delay.
    pub fn delay(self, delay: Duration) -> Link {
        Link { delay, ..self }
    }

    /// With this propagation delay in milliseconds.
    pub fn delay_ms(self, ms: u64) -> Link {
        self.delay(Duration::from_millis(ms))
    }

    /// With this jitter.
    pub fn jitter(self, jitter: Duration) -> Link {
        Link { jitter, ..self }
    }

    /// With this queue limit.
    pub fn queue(self, queue: Queue) -> Link {
        Link { queue, ..self }
    }

    /// With a recorded rate.
    pub fn trace(self, trace: RateTrace) -> Link {
        Link { trace: Some(Arc::new(trace)), ..self }
    }

    /// With random early detection.
    pub fn red(self, red: Red) -> Link {
        Link { aqm: Aqm::Red(red), ..self }
    }

    /// With CoDel and the parameters of RFC 8289.
    pub fn codel(self) -> Link {
        Link { aqm: Aqm::CoDel(CoDel::default()), ..self }
    }

    /// Marking instead of dropping, where both ends can (ECN).
    pub fn ecn(self, ecn: bool) -> Link {
        Link { ecn, ..self }
    }

    /// Whether transmission takes no time, so that nothing ever waits.
    pub fn is_instant(&self) -> bool {
        self.rate.is_none() && self.trace.is_none()
    }

    /// Bits per second, the mean of a recorded rate; `None`: no limit.
    pub fn mean_rate(&self) -> Option<u64> {
        self.trace.as_ref().map(|t| t.mean_rate()).or(self.rate)
    }

    /// Losing each packet with this probability.
    pub fn loss(self, probability: f64) -> Link {
        Link { loss: Loss::Random(probability), ..self }
    }

    /// With this loss model.
    pub fn loss_model(self, loss: Loss) -> Link {
        Link { loss, ..self }
    }

    /// Holding back each packet with this probability, for this long.
    pub fn reorder(self, probability: f64, extra_delay: Duration) -> Link {
        Link { reorder: Reorder { probability, extra_delay }, ..self }
    }

    /// Delivering each packet twice with this probability.
    pub fn duplicate(self, probability: f64) -> Link {
        Link { duplicate: probability, ..self }
    }

    /// With this MTU.
    pub fn mtu(self, mtu: u16) -> Link {
        Link { mtu, ..self }
    }

    /// With this many bytes of framing per packet.
    pub fn overhead(self, overhead: u32) -> Link {
        Link { overhead, ..self }
    }

    /// The transmission time of `bytes` bytes in nanoseconds, and what is left over in units of 1/rate
    /// nanoseconds, to be handed in as `carry` with the next packet of a busy period so that rounding never
    /// accumulates.
    pub(crate) fn transmission(&self, bytes: usize, carry: u64) -> (Duration, u64) {
        let Some(rate) = self.mean_rate().map(|r| r.max(1)) else { return (Duration::ZERO, 0) };
        let bits = (bytes as u128 + u128::from(self.overhead)) * 8;
        let nanos = bits * 1_000_000_000 + u128::from(carry % rate);
        let whole = u64::try_from(nanos / u128::from(rate)).unwrap_or(u64::MAX);
        (Duration::from_nanos(whole), (nanos % u128::from(rate)) as u64)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.trace, self.rate) {
            (Some(trace), _) => {
                write!(f, "recorded, {:.1} Mbit/s on average", trace.mean_rate() as f64 / 1e6)?
            }
            (None, Some(rate)) => write!(f, "{} Mbit/s", rate as f64 / 1e6)?,
            (None, None) => f.write_str("unlimited")?,
        }
        write!(f, ", {:?}", self.delay)?;
        match &self.loss {
            Loss::None => Ok(()),
            Loss::Random(p) => write!(f, ", {} % loss", p * 100.0),
            Loss::Bursts { .. } => f.write_str(", bursty loss"),
            Loss::Exactly(which) => write!(f, ", {} packets lost", which.len()),
        }
    }
}

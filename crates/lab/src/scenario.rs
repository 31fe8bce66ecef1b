//! The text of a scenario: what may stand in it, and what it must agree with.

use crate::units::{Buffer, Bytes, Count, Probability, Rate, Real, Time};
use serde::Deserialize;
use std::collections::BTreeMap;
use toml::Spanned;

/// A scenario as written, with all parameters filled in.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Scenario {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) title: Option<String>,
    #[serde(default)]
    pub(crate) description: Option<String>,
    /// What there is to say about the results, in Markdown.
    #[serde(default)]
    pub(crate) discussion: Option<String>,
    /// Measured from here on.
    #[serde(default)]
    pub(crate) warm_up: Option<Time>,
    /// Length of the measurement.
    pub(crate) duration: Spanned<Time>,
    #[serde(default)]
    pub(crate) seeds: Option<Spanned<Seeds>>,
    /// Interval of the time series.
    #[serde(default)]
    pub(crate) sample: Option<Spanned<Time>>,
    /// Values to run the scenario with, in all combinations. They were read before the text was filled in.
    #[serde(default, rename = "parameters")]
    _parameters: serde::de::IgnoredAny,
    /// Groups of parameters whose values go together.
    #[serde(default, rename = "zipped")]
    _zipped: serde::de::IgnoredAny,
    #[serde(default, rename = "link")]
    pub(crate) links: Vec<LinkText>,
    #[serde(default, rename = "flow")]
    pub(crate) flows: Vec<FlowText>,
    #[serde(default, rename = "event")]
    pub(crate) events: Vec<EventText>,
    #[serde(default, rename = "reference")]
    pub(crate) references: Vec<ReferenceText>,
    #[serde(default, rename = "recovery")]
    pub(crate) recoveries: Vec<RecoveryText>,
}

/// `seeds = 5` means 1 to 5; a list names them.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Seeds {
    Count(u32),
    List(Vec<u64>),
}

/// Values of one parameter.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Values {
    Many(Vec<Value>),
    One(Value),
}

/// A value of a parameter, put as text in the place of its name.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Value {
    Integer(i64),
    Real(f64),
    Text(String),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Integer(v) => v.fmt(f),
            Value::Real(v) => v.fmt(f),
            Value::Text(v) => v.fmt(f),
        }
    }
}

macro_rules! direction_text {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case")]
        pub(crate) struct $name {
            $($(#[$field_meta])* pub(crate) $field: $kind,)*
            pub(crate) rate: Option<Spanned<Rate>>,
            pub(crate) trace: Option<Spanned<String>>,
            pub(crate) delay: Option<Time>,
            pub(crate) jitter: Option<Time>,
            pub(crate) queue: Option<Spanned<String>>,
            pub(crate) aqm: Option<Spanned<AqmText>>,
            pub(crate) ecn: Option<bool>,
            pub(crate) loss: Option<Spanned<LossText>>,
            pub(crate) reorder: Option<ReorderText>,
            pub(crate) duplicate: Option<Probability>,
            pub(crate) mtu: Option<u16>,
            pub(crate) overhead: Option<u32>,
        }
    };
}

direction_text!(
    /// What describes one direction of a link, when it differs from the other.
    ReverseText {}
);

direction_text!(
    /// A link: both directions alike, save for what `reverse` says.
    LinkText {
        name: Spanned<String>,
        reverse: Option<ReverseText>,
    }
);

/// Active queue management, or none.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub(crate) enum AqmText {
    TailDrop,
    /// RFC 8289.
    Codel {
        target: Option<Time>,
        interval: Option<Time>,
    },
    /// Drop probability as a function of the queue's length.
    Red {
        /// Corners of the function: packets waiting, probability.
        curve: Vec<(f64, f64)>,
        /// The rate that the packets are given for: they are scaled with the link's.
        per: Option<Rate>,
        /// Weight of the newest length in the average; 1: no average.
        weight: Option<f64>,
    },
}

/// Loss: a probability, or bursts.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum LossText {
    Random(Probability),
    Bursts(Bursts),
    Chain(Chain),
}

/// Bursts of this mean length, this share of the packets in all.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bursts {
    pub(crate) mean: Probability,
    pub(crate) burst: f64,
}

/// The Gilbert-Elliott chain itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Chain {
    pub(crate) to_bad: Probability,
    pub(crate) to_good: Probability,
    pub(crate) loss_good: Probability,
    pub(crate) loss_bad: Probability,
}

/// Packets held back.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReorderText {
    pub(crate) probability: Probability,
    pub(crate) delay: Time,
}

/// What applications do.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub(crate) enum SourceText {
    /// Messages at regular times.
    Constant { rate: Rate, message: Option<Bytes> },
    /// The same, with pauses.
    OnOff {
        rate: Rate,
        message: Option<Bytes>,
        on: Time,
        off: Time,
        /// The lengths are drawn.
        random: Option<bool>,
    },
    /// Questions and answers.
    Requests { count: Option<Count>, request: Option<Bytes>, response: Bytes, pause: Option<Time> },
    /// A page of objects over several connections.
    Page {
        connections: Option<Count>,
        objects: Count,
        size: Bytes,
        request: Option<Bytes>,
        every: Option<Time>,
    },
    /// Segments of a video.
    Video { rate: Rate, segment: Option<Time>, buffer: Option<Time>, request: Option<Bytes> },
}

/// A group of like connections.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct FlowText {
    pub(crate) name: Spanned<String>,
    /// How many, each with hosts of its own.
    pub(crate) count: Option<Spanned<Count>>,
    /// `mptcp`, or `tcp`: no MPTCP is offered.
    pub(crate) protocol: Option<Spanned<String>>,
    pub(crate) congestion: Option<Spanned<String>>,
    pub(crate) scheduler: Option<Spanned<String>>,
    pub(crate) path_policy: Option<Spanned<String>>,
    /// One list of links per subflow, from the sender to the receiver.
    pub(crate) routes: Vec<Vec<Spanned<String>>>,
    /// Numbers of the routes, from 1, that the client wants as backups.
    #[serde(default)]
    pub(crate) backup: Vec<Spanned<Count>>,
    /// Who sends: the side that connects (`up`) or the other (`down`).
    pub(crate) direction: Option<Spanned<String>>,
    pub(crate) start: Option<Time>,
    /// Starts are spread over this time, at random.
    pub(crate) spread: Option<Time>,
    pub(crate) stop: Option<Time>,
    /// Bytes to send; without it, all that fits.
    pub(crate) size: Option<Bytes>,
    /// What the applications do, in the place of that.
    pub(crate) source: Option<Spanned<SourceText>>,
    pub(crate) send_buffer: Option<Buffer>,
    pub(crate) receive_buffer: Option<Buffer>,
    pub(crate) checksum: Option<bool>,
    /// Both ends ask for explicit congestion notification (RFC 3168).
    pub(crate) ecn: Option<bool>,
}

/// Something that happens to a link or to a group of connections.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct EventText {
    pub(crate) at: Spanned<Time>,
    pub(crate) link: Option<Spanned<String>>,
    pub(crate) flow: Option<Spanned<String>>,
    pub(crate) congestion: Option<Spanned<String>>,
    pub(crate) scheduler: Option<Spanned<String>>,
    /// Of a flow: which of its routes, from 1.
    pub(crate) route: Option<Spanned<Count>>,
    /// The client's address on it is removed or added.
    pub(crate) address: Option<Spanned<String>>,
    /// The client wants it as a backup, or like the others again.
    pub(crate) backup: Option<bool>,
    /// The link is up, down, or silent.
    pub(crate) state: Option<Spanned<String>>,
    /// Cut (true) or mend (false) it.
    pub(crate) cut: Option<bool>,
    pub(crate) rate: Option<Rate>,
    pub(crate) delay: Option<Time>,
    pub(crate) loss: Option<Probability>,
}

/// A published result to be shown beside ours.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ReferenceText {
    pub(crate) flow: Spanned<String>,
    /// The mean is taken with these groups, too.
    #[serde(default)]
    pub(crate) with: Vec<Spanned<String>>,
    /// Divided by the same quantity of this group.
    pub(crate) per: Option<Spanned<String>>,
    /// Which quantity; `goodput` when left out.
    pub(crate) quantity: Option<Spanned<String>>,
    /// For these values of parameters only.
    #[serde(default)]
    pub(crate) when: BTreeMap<String, Value>,
    /// The published measurement.
    pub(crate) published: Option<Real>,
    /// What the published model predicts: anything between it and the measurement is right, too.
    pub(crate) predicted: Option<Real>,
    /// At least this is right.
    pub(crate) at_least: Option<Real>,
    /// Deviation from the published value that is right.
    pub(crate) tolerance: Option<Probability>,
    pub(crate) source: Option<String>,
}

/// How long a group takes to get back what it had.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct RecoveryText {
    pub(crate) flow: Spanned<String>,
    /// When what it lost is there again.
    pub(crate) after: Time,
    /// From when to when it had it: the mean goodput then is what is aimed at.
    pub(crate) compare: (Time, Time),
    /// How much of it counts as recovered.
    pub(crate) share: Option<Probability>,
    /// The goodput is a mean over so long.
    pub(crate) window: Option<Time>,
}

//! What the program logs, where to, and in which format.

use crate::console;
use crate::failure::usage;
use serde::Deserialize;
use std::fmt;
use std::io::IsTerminal as _;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{Format as Text, FormatEvent, FormatFields, Full, Writer};
use tracing_subscriber::registry::LookupSpan;

/// How much is logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Level {
    /// What has failed.
    Error,
    /// What is not as it should be.
    Warn,
    /// What happens to connections and paths.
    #[default]
    Info,
    /// Details, and changes to this host.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// That of `-v`, given this many times.
    pub(crate) fn of_verbosity(verbose: u8) -> Level {
        match verbose {
            0 => Level::Warn,
            1 => Level::Info,
            2 => Level::Debug,
            _ => Level::Trace,
        }
    }

    fn filter(self) -> EnvFilter {
        EnvFilter::new(match self {
            Level::Error => "error",
            Level::Warn => "warn",
            // What is changed on the host for the paths is a detail.
            Level::Info => "info,umptcp_tun_driver=warn",
            Level::Debug => "debug",
            Level::Trace => "trace",
        })
    }
}

/// How an event is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Format {
    /// A line for people, with the time.
    Text,
    /// A line of JSON, with the time.
    Json,
    /// A line for systemd's journal, which adds the time itself: its priority in front.
    Journal,
}

/// What is logged, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Log {
    /// How much.
    pub(crate) level: Level,
    /// `None`: as the journal wants it where standard error leads there, else as text.
    pub(crate) format: Option<Format>,
}

/// A log whose level can change.
pub(crate) struct Running {
    set: Box<dyn Fn(Level)>,
}

impl Running {
    /// From now on this much is logged, unless UMPTCP_LOG says how much.
    pub(crate) fn set_level(&self, level: Level) {
        (self.set)(level);
    }
}

/// Logs to standard error. UMPTCP_LOG overrides the level.
pub(crate) fn start(log: Log) -> anyhow::Result<Running> {
    let chosen =
        match std::env::var("UMPTCP_LOG") {
            Ok(text) if !text.is_empty() => Some(EnvFilter::try_new(&text).map_err(|e| {
                usage(format!("UMPTCP_LOG={text:?}: {e}; use for example info or umptcp=debug"))
            })?),
            _ => None,
        };
    let fixed = chosen.is_some();
    let filter = chosen.unwrap_or_else(|| log.level.filter());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let format = log.format.unwrap_or(if is_journal() { Format::Journal } else { Format::Text });
    // The calling program may already have a subscriber, which stays in place.
    let set: Box<dyn Fn(Level)> = match format {
        Format::Text => {
            let builder = builder
                .with_ansi(std::io::stderr().is_terminal() && console::colours_allowed())
                .with_filter_reloading();
            let handle = builder.reload_handle();
            let _ = builder.try_init();
            Box::new(move |level| drop(handle.reload(level.filter())))
        }
        Format::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            let _ = builder.try_init();
            Box::new(move |level| drop(handle.reload(level.filter())))
        }
        Format::Journal => {
            let builder = builder.with_ansi(false).event_format(Journal::default()).with_filter_reloading();
            let handle = builder.reload_handle();
            let _ = builder.try_init();
            Box::new(move |level| drop(handle.reload(level.filter())))
        }
    };
    Ok(Running { set: if fixed { Box::new(|_| ()) } else { set } })
}

/// Whether standard error leads to systemd's journal: the variable names its device and inode.
#[cfg(unix)]
fn is_journal() -> bool {
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::MetadataExt as _;

    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    let file = std::io::stderr().as_fd().try_clone_to_owned().map(std::fs::File::from);
    file.and_then(|f| f.metadata()).is_ok_and(|m| format!("{}:{}", m.dev(), m.ino()) == named)
}

#[cfg(not(unix))]
fn is_journal() -> bool {
    false
}

/// `<PRIORITY>text` (sd-daemon(3)): the journal takes the priority off and adds the time itself.
struct Journal(Text<Full, ()>);

impl Default for Journal {
    fn default() -> Self {
        Journal(Text::default().without_time().with_level(false))
    }
}

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, cx: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let priority = match *event.metadata().level() {
            tracing::Level::ERROR => 3,
            tracing::Level::WARN => 4,
            tracing::Level::INFO => 6,
            _ => 7,
        };
        write!(to, "<{priority}>")?;
        self.0.format_event(cx, to, event)
    }
}

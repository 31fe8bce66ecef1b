//! `nstat`.

use super::{connect, failed, print_json, print_lines};
use crate::args::tools::NstatArgs;
use crate::failure::Class;
use anyhow::Context as _;
use nix::fcntl::OFlag;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use umptcp_control::call::ListCounters;

/// Names another file for the history, as NSTAT_HISTORY does for `nstat`.
const HISTORY: &str = "UMPTCP_NSTAT_HISTORY";

/// No history is as long as this.
const LONGEST: u64 = 1 << 20;

type Counters = BTreeMap<String, u64>;

pub(crate) fn nstat(args: &NstatArgs) -> anyhow::Result<()> {
    let mut client = connect(&args.instance)?;
    let instance = client.greeting();
    let (name, of) = (instance.name.clone(), format!("#{} {}", instance.name, instance.pid));
    let counters = client.call(&ListCounters {}).map_err(failed)?.counters;
    let mut history = None;
    if !(args.absolute && args.no_update) {
        let file = std::env::var_os(HISTORY).filter(|file| !file.is_empty());
        let file = file.map_or_else(|| default_file(&name), PathBuf::from);
        let failed = || Class::Host.failure(format!("cannot use the history {}", file.display()));
        history = Some(History::open(&file).with_context(failed)?);
    }
    let before = match &mut history {
        Some(history) if !args.absolute && !args.reset => history.read(&of)?,
        _ => Counters::new(),
    };
    let shown = shown(&counters, &before, args);
    // Before it is printed: who reads it may begin again at once.
    if let Some(history) = history.as_mut().filter(|_| !args.no_update) {
        history.write(&of, &counters)?;
    }
    if let Some(history) = history.filter(|_| args.reset && args.no_update) {
        history.0.set_len(0).context("cannot empty the history")?;
    }
    if args.no_output {
        return Ok(());
    }
    if args.instance.json {
        return print_json(&json!({ "kernel": shown }));
    }
    print_lines(&lines(&shown))
}

/// What is to be printed: how much more there is than before.
fn shown(counters: &Counters, before: &Counters, args: &NstatArgs) -> Counters {
    let fits = |name: &str| {
        args.patterns.is_empty() || args.patterns.iter().any(|p| matches(p.as_bytes(), name.as_bytes()))
    };
    let more = |(name, value): (&String, &u64)| {
        // A gauge may have fallen; `nstat` shows what is there then.
        let old = before.get(name).copied().filter(|old| old <= value).unwrap_or_default();
        (name.clone(), value - old)
    };
    let kept = |(name, value): &(String, u64)| (args.zeros || *value != 0) && fits(name);
    counters.iter().map(more).filter(kept).collect()
}

/// Where the history of an instance is for this user: beside its sockets if that is a directory of its own, else in
/// that for temporary files, as that of `nstat`.
fn default_file(instance: &str) -> PathBuf {
    let user = nix::unistd::geteuid();
    let session = std::env::var_os("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty());
    let directory = session.map_or_else(std::env::temp_dir, PathBuf::from);
    directory.join(format!(".umptcp-nstat.u{user}.{instance}"))
}

/// What was shown last, in a file that is locked while it is open.
struct History(File);

impl History {
    /// Others can write to the directory: the file must be this user's, and no link.
    fn open(file: &Path) -> std::io::Result<History> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits());
        let open = options.open(file)?;
        let about = open.metadata()?;
        let own = about.uid() == nix::unistd::geteuid().as_raw();
        if !(about.is_file() && own && about.nlink() == 1) {
            return Err(std::io::Error::other("it is not a file of this user's own"));
        }
        open.lock()?;
        Ok(History(open))
    }

    /// What there was of the instance; nothing if it is of another, or cannot be read.
    fn read(&mut self, of: &str) -> anyhow::Result<Counters> {
        let mut text = Vec::new();
        (&self.0).take(LONGEST).read_to_end(&mut text).context("cannot read the history")?;
        let text = String::from_utf8_lossy(&text);
        let mut lines = text.lines();
        if lines.next() != Some(of) {
            return Ok(Counters::new());
        }
        let counter = |line: &str| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Ok(lines.filter_map(counter).collect())
    }

    fn write(&mut self, of: &str, counters: &Counters) -> anyhow::Result<()> {
        let mut text = format!("{of}\n");
        for (name, value) in counters {
            text.push_str(&format!("{name} {value}\n"));
        }
        let mut write = || -> std::io::Result<()> {
            self.0.set_len(0)?;
            self.0.rewind()?;
            self.0.write_all(text.as_bytes())
        };
        write().context("cannot write the history")
    }
}

/// As `nstat` prints them. It has a rate only while its daemon runs.
fn lines(counters: &Counters) -> Vec<String> {
    let line = |(name, value): (&String, &u64)| format!("{name:<32}{value:<16}{:6.1}", 0.0);
    std::iter::once("#kernel".to_owned()).chain(counters.iter().map(line)).collect()
}

/// Whether a name is as a pattern says, in which `*` stands for anything and `?` for one letter.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|at| matches(rest, &name[at..])),
        ([b'?', rest @ ..], [_, name @ ..]) => matches(rest, name),
        ([p, rest @ ..], [n, name @ ..]) => p == n && matches(rest, name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: NstatArgs,
    }

    fn args(line: &str) -> NstatArgs {
        Line::parse_from(std::iter::once("nstat").chain(line.split_whitespace())).args
    }

    fn counters(all: &[(&str, u64)]) -> Counters {
        all.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    #[test]
    fn looks_like_nstat() {
        let counters = [("MPTcpExtMPCapableSYNTX".to_owned(), 12)].into();
        let expected = "MPTcpExtMPCapableSYNTX          12                 0.0";
        assert_eq!(lines(&counters), ["#kernel", expected]);
    }

    #[test]
    fn what_is_more_than_before_is_shown() {
        let (now, before) =
            (counters(&[("A", 5), ("B", 3), ("C", 1)]), counters(&[("A", 2), ("B", 3), ("C", 4)]));
        assert_eq!(shown(&now, &before, &args("")), counters(&[("A", 3), ("C", 1)]));
        assert_eq!(shown(&now, &before, &args("-z")), counters(&[("A", 3), ("B", 0), ("C", 1)]));
        assert_eq!(shown(&now, &before, &args("-z A B")), counters(&[("A", 3), ("B", 0)]));
        assert_eq!(shown(&now, &Counters::new(), &args("-a")), now);
    }

    #[test]
    fn a_history_is_of_one_instance_and_of_one_user() {
        let folder = std::env::temp_dir().join(format!("umptcp-nstat-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("history");
        let all = counters(&[("A", 5), ("B", 0)]);
        assert_eq!(History::open(&file).unwrap().read("#up 1").unwrap(), Counters::new());
        History::open(&file).unwrap().write("#up 1", &all).unwrap();
        assert_eq!(History::open(&file).unwrap().read("#up 1").unwrap(), all);
        assert_eq!(
            History::open(&file).unwrap().read("#up 2").unwrap(),
            Counters::new(),
            "it was started again"
        );
        std::fs::write(&file, b"#up 1\nA x\n\xff\xfe 3\nB 18446744073709551616\nC 7\n").unwrap();
        let read = History::open(&file).unwrap().read("#up 1").unwrap();
        assert_eq!(read.get("C"), Some(&7));
        assert!(!read.contains_key("A") && !read.contains_key("B"));
        let link = folder.join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(History::open(&link).is_err());
        std::fs::hard_link(&file, folder.join("other")).unwrap();
        assert!(History::open(&file).is_err());
        assert!(History::open(&folder).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn patterns() {
        for (pattern, name, fits) in [
            ("MPTcpExt*", "MPTcpExtMPJoinSynTx", true),
            ("*Join*", "MPTcpExtMPJoinSynTx", true),
            ("MPTcpExtMPJoinSynT?", "MPTcpExtMPJoinSynTx", true),
            ("MPTcpExt", "MPTcpExtMPJoinSynTx", false),
            ("*Rx", "MPTcpExtMPJoinSynTx", false),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), fits, "{pattern} {name}");
        }
    }
}

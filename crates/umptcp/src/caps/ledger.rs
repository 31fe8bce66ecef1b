//! A file with what NICs have carried in a month, which all instances of a host share.

use super::month::Month;
use crate::files;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use umptcp_tun_driver::lock::{self, Lock, LockError, PATIENCE};

const HEAD: &str = "\
# What umptcp has carried over network interfaces with a monthly cap: month (UTC), interface, bytes.
";
const NAME: &str = "traffic";
/// Most NICs that are kept. Those of earlier months go first.
const MOST: usize = 256;
/// Most that is read: a file with that many lines is far shorter.
const LONGEST: u64 = 64 << 10;

/// What each NIC has carried, and in which month.
type Counts = BTreeMap<String, (Month, u64)>;

/// The file.
#[derive(Debug)]
pub(super) struct Ledger {
    directory: PathBuf,
}

impl Ledger {
    /// The first of these directories that can be written to, made if necessary. An error: that of the last.
    pub(super) fn open(directories: &[PathBuf]) -> io::Result<Ledger> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for directory in directories {
            let ledger = Ledger { directory: directory.clone() };
            let made = files::with_directory_mode(DirBuilder::new().recursive(true), 0o755).create(directory);
            match made.and_then(|()| ledger.lock()) {
                Ok(_) => return Ok(ledger),
                Err(e) => last = io::Error::new(e.kind(), format!("{}: {e}", directory.display())),
            }
        }
        Err(last)
    }

    /// The file.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.join(NAME)
    }

    /// Nobody else counts while it is held.
    fn lock(&self) -> io::Result<Lock> {
        self.lock_within(PATIENCE)
    }

    fn lock_within(&self, patience: Duration) -> io::Result<Lock> {
        let path = self.directory.join("traffic.lock");
        lock::lock(&path, patience, "counting what network interfaces have carried").map_err(|e| match e {
            LockError::Io(error) => error,
            LockError::Held { holder, waited } => io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "{holder} has been counting for {} s, and others wait for it: if it is stopped, let it go on (kill -CONT) or \
                     end it; the lock is {}",
                    waited.as_secs(),
                    path.display()
                ),
            ),
        })
    }

    /// Adds what NICs have carried to what is in the file. Returns what each has carried in this month, by all who
    /// count here.
    pub(super) fn add(
        &self,
        now: Month,
        carried: &BTreeMap<String, u64>,
    ) -> io::Result<BTreeMap<String, u64>> {
        let _lock = self.lock()?;
        let mut counts = self.read()?;
        let mut changed = false;
        for (nic, bytes) in carried {
            let entry = counts.entry(nic.clone()).or_insert((now, 0));
            let before = *entry;
            *entry = (in_month(before, now).0, in_month(before, now).1.saturating_add(*bytes));
            changed |= *entry != before;
        }
        if changed {
            while counts.len() > MOST {
                let oldest =
                    counts.iter().min_by_key(|(nic, (month, _))| (*month, carried.contains_key(*nic)));
                let Some(nic) = oldest.map(|(nic, _)| nic.clone()) else { break };
                counts.remove(&nic);
            }
            self.write(&counts)?;
        }
        Ok(counts.into_iter().map(|(nic, entry)| (nic, in_month(entry, now).1)).collect())
    }

    /// What is in the file. One that cannot be understood is put aside, and counting begins anew: a program is not to
    /// end for that.
    fn read(&self) -> io::Result<Counts> {
        let path = self.path();
        let mut bytes = Vec::new();
        match File::open(&path) {
            Ok(file) => file.take(LONGEST + 1).read_to_end(&mut bytes)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Counts::new()),
            Err(e) => return Err(e),
        };
        match parse(&bytes) {
            Ok(counts) => Ok(counts),
            Err(line) => {
                let aside = self.directory.join("traffic.damaged");
                tracing::warn!(
                    file = %path.display(), line, kept = %aside.display(),
                    "cannot read what network interfaces have carried in this month: it counts from zero, and more may \
                     be carried than the caps allow"
                );
                fs::rename(&path, &aside)?;
                Ok(Counts::new())
            }
        }
    }

    /// Nobody ever sees half a file: a new one is written beside it and renamed over it.
    fn write(&self, counts: &Counts) -> io::Result<()> {
        let beside = self.directory.join("traffic.new");
        let written = write(&beside, counts).and_then(|()| fs::rename(&beside, self.path()));
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written
    }
}

/// What counts now of an entry. Of an earlier month nothing does. One of a later month is from when the clock was
/// wrong, or the clock is now: what was carried counts, and with a clock that can be right it counts for the
/// present month.
fn in_month((month, bytes): (Month, u64), now: Month) -> (Month, u64) {
    match month {
        _ if month < now => (now, 0),
        _ if now >= Month::PLAUSIBLE => (now, bytes),
        _ => (month, bytes),
    }
}

/// An error: the number of the first line that is not understood.
fn parse(bytes: &[u8]) -> Result<Counts, usize> {
    if bytes.len() as u64 > LONGEST {
        return Err(1);
    }
    let text = String::from_utf8_lossy(bytes);
    // An empty file is what a crash of the host may leave.
    if text.is_empty() || !text.ends_with('\n') {
        return Err(text.lines().count().max(1));
    }
    let mut counts = Counts::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with('#')) {
        let mut words = line.split(' ');
        let mut entry = || {
            let month = Month::parse(words.next()?)?;
            let nic = words.next().filter(|nic| !nic.is_empty() && nic.len() <= 15)?;
            let bytes: u64 = words.next()?.parse().ok()?;
            words.next().is_none().then(|| (nic.to_owned(), (month, bytes)))
        };
        let (nic, count) = entry().ok_or(at + 1)?;
        if counts.insert(nic, count).is_some() {
            return Err(at + 1);
        }
    }
    Ok(counts)
}

fn write(path: &Path, counts: &Counts) -> io::Result<()> {
    let body: String =
        counts.iter().map(|(nic, (month, bytes))| format!("{month} {nic} {bytes}\n")).collect();
    let mut file =
        files::with_mode(OpenOptions::new().write(true).create(true).truncate(true), 0o644).open(path)?;
    file.write_all(format!("{HEAD}{body}").as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    fn scratch(name: &str) -> Scratch {
        Scratch::new(&format!("traffic-{name}"))
    }

    fn open(scratch: &Scratch) -> Ledger {
        Ledger::open(&[scratch.path().join("state")]).unwrap()
    }

    fn month(text: &str) -> Month {
        Month::parse(text).unwrap()
    }

    fn add(ledger: &Ledger, now: &str, nic: &str, bytes: u64) -> u64 {
        ledger.add(month(now), &BTreeMap::from([(nic.to_owned(), bytes)])).unwrap()[nic]
    }

    #[test]
    fn instances_count_together_and_months_begin_anew() {
        let scratch = scratch("together");
        let (one, other) = (open(&scratch), open(&scratch));
        assert_eq!(add(&one, "2026-11", "wwan0", 100), 100);
        assert_eq!(add(&other, "2026-11", "wwan0", 10), 110);
        assert_eq!(add(&other, "2026-11", "wwan1", 7), 7);
        assert_eq!(add(&one, "2026-11", "wwan0", 0), 110);
        drop((one, other));
        let later = open(&scratch);
        assert_eq!(add(&later, "2026-11", "wwan0", 1), 111);
        assert_eq!(add(&later, "2026-12", "wwan0", 0), 0);
        assert_eq!(add(&later, "2026-12", "wwan0", 5), 5);
        assert_eq!(add(&later, "2026-12", "wwan0", u64::MAX), u64::MAX);
        let text = fs::read_to_string(later.path()).unwrap();
        assert!(text.contains("2026-11 wwan1 7\n"), "{text}");
    }

    #[test]
    fn who_does_not_let_go_of_the_lock_is_named_and_not_waited_for_for_ever() {
        let scratch = scratch("held");
        let (one, other) = (open(&scratch), open(&scratch));
        let held = one.lock().unwrap();
        let error = other.lock_within(Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let text = error.to_string();
        assert!(
            text.contains(&format!("process {}", std::process::id())) && text.contains("traffic.lock"),
            "{text}"
        );
        drop(held);
        other.lock_within(Duration::from_millis(20)).unwrap();
    }

    #[test]
    fn nothing_is_written_when_nothing_has_been_carried() {
        let scratch = scratch("idle");
        let ledger = open(&scratch);
        add(&ledger, "2026-11", "wwan0", 100);
        fs::remove_file(ledger.path()).unwrap();
        ledger.add(month("2026-11"), &BTreeMap::new()).unwrap();
        assert!(!ledger.path().exists());
    }

    #[test]
    fn a_clock_that_is_wrong_gives_nothing_away() {
        let scratch = scratch("clock");
        let ledger = open(&scratch);
        add(&ledger, "2026-11", "wwan0", 100);
        assert_eq!(add(&ledger, "1970-01", "wwan0", 5), 105, "not set yet");
        assert_eq!(add(&ledger, "2026-11", "wwan0", 0), 105);
        add(&ledger, "2036-01", "wwan0", 7);
        assert_eq!(add(&ledger, "2026-11", "wwan0", 1), 8, "it was ahead");
        assert_eq!(add(&ledger, "2026-12", "wwan0", 0), 0, "and the next month begins anew all the same");
    }

    #[test]
    fn a_damaged_file_is_put_aside() {
        for (name, damaged) in [
            ("half", &b"2026-11 wwan0 12"[..]),
            ("empty", b""),
            ("binary", b"\x00\xff\xfe\n"),
            ("text", b"complete nonsense\n"),
            ("words", b"2026-11 wwan0 12 13\n"),
            ("number", b"2026-11 wwan0 -12\n"),
            ("large", b"2026-11 wwan0 99999999999999999999\n"),
            ("twice", b"2026-11 wwan0 1\n2026-11 wwan0 2\n"),
            ("month", b"2026-13 wwan0 1\n"),
        ] {
            let scratch = scratch(name);
            let ledger = open(&scratch);
            fs::write(ledger.path(), damaged).unwrap();
            assert_eq!(add(&ledger, "2026-11", "wwan0", 3), 3, "{name}");
            assert_eq!(fs::read(ledger.directory.join("traffic.damaged")).unwrap(), damaged);
            assert_eq!(add(&ledger, "2026-11", "wwan0", 3), 6, "{name}");
        }
        let scratch = scratch("long");
        let ledger = open(&scratch);
        fs::write(ledger.path(), vec![b'\n'; 1 << 20]).unwrap();
        assert_eq!(add(&ledger, "2026-11", "wwan0", 3), 3);
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let scratch = scratch("grow");
        let ledger = open(&scratch);
        add(&ledger, "2026-10", "old", 1);
        let many: BTreeMap<String, u64> = (0..2 * MOST as u64).map(|n| (format!("nic{n}"), n)).collect();
        ledger.add(month("2026-11"), &many).unwrap();
        let text = fs::read_to_string(ledger.path()).unwrap();
        assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), MOST);
        assert!(!text.contains(" old "), "what counts least goes first");
        assert_eq!(fs::read_dir(&ledger.directory).unwrap().count(), 2, "the file and its lock");
    }

    #[test]
    fn a_place_that_cannot_be_written_to_is_passed_over() {
        let scratch = scratch("place");
        fs::create_dir_all(scratch.path()).unwrap();
        let file = scratch.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Ledger::open(&[file.join("state")]).unwrap_err().to_string();
        assert!(error.contains("file/state"), "{error}");
        let ledger = Ledger::open(&[file.join("state"), scratch.path().join("there")]).unwrap();
        assert_eq!(ledger.path(), scratch.path().join("there/traffic"));
    }
}

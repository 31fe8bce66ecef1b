//! Monthly caps of paths (`PathSpec::caps`): what NICs have carried is kept in a file, and the stack is told what
//! they may still carry.
//!
//! The stack itself stops a path exactly at what it has been told. Several instances learn of one another when they
//! write to the file: every ten seconds while something is carried, and sooner when a sixteenth of what is left has
//! been.

mod ledger;
mod month;

use crate::shared::lock;
use ledger::Ledger;
use month::Month;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use umptcp_stack_core::device::allowance_reserve;
use umptcp_types::PathId;

/// How often to look at what has been carried.
pub(crate) const LOOK: Duration = Duration::from_secs(1);
/// How often to write it down, and to learn what others have carried.
const WRITE: Duration = Duration::from_secs(10);
/// This share of what is left is written down at once.
const SHARE: u64 = 16;

/// Where the state of programs is kept, the best place first: what systemd has made for a service, that of root,
/// that of a user (XDG base directories).
pub(crate) fn directories() -> Vec<PathBuf> {
    let env = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let mut all = Vec::new();
    if let Some(of_service) = env("STATE_DIRECTORY") {
        // Several are separated by colons.
        all.extend(std::env::split_paths(&of_service).next());
    }
    if is_root() {
        all.push("/var/lib/umptcp".into());
    }
    let of_user = env("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || Some(PathBuf::from(env("HOME")?).join(".local/state"));
    all.extend(of_user.or_else(home).map(|path| path.join("umptcp")));
    all
}

/// Whether the state of the whole host may be kept.
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// No system but Linux is known to have a place for it.
#[cfg(any(not(target_os = "linux"), umptcp_portable))]
fn is_root() -> bool {
    false
}

/// A path with a monthly cap that the stack has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Capped {
    pub(crate) id: PathId,
    /// Its name.
    pub(crate) name: String,
    /// Bytes.
    pub(crate) cap: u64,
}

/// What the stack is to be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// So much may be carried from now on.
    Allow(PathId, u64),
    /// Others have carried so much: it is less now.
    Spend(PathId, u64),
}

/// What a path was told last.
#[derive(Debug)]
struct Told {
    month: Month,
    cap: u64,
    /// What all had carried then over its NIC.
    total: u64,
    /// What this path had carried then.
    own: u64,
}

/// What has been carried over NICs with a monthly cap.
#[derive(Debug)]
pub(crate) struct Accounts(Mutex<State>);

#[derive(Debug)]
struct State {
    directories: Vec<PathBuf>,
    ledger: Option<Ledger>,
    /// NICs that have or had a path with a cap.
    nics: BTreeSet<String>,
    /// What is written down, of what each path has carried since the stack started.
    written: BTreeMap<String, u64>,
    /// What each NIC has carried in that month, by all.
    totals: (Month, BTreeMap<String, u64>),
    told: HashMap<PathId, Told>,
    /// When the file was looked at.
    looked: Option<Instant>,
    /// It was said that the file cannot be used.
    complained: bool,
    /// Of which it was said that it has carried what it may.
    reached: BTreeSet<(Month, String)>,
}

/// The NIC of a path. Two paths over a NIC have one contract.
fn nic(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

impl Accounts {
    /// `directories`: where the file may be; the first that can be written to is taken.
    pub(crate) fn new(directories: Vec<PathBuf>) -> Accounts {
        Accounts(Mutex::new(State {
            directories,
            ledger: None,
            nics: BTreeSet::new(),
            written: BTreeMap::new(),
            totals: (Month::now(), BTreeMap::new()),
            told: HashMap::new(),
            looked: None,
            complained: false,
            reached: BTreeSet::new(),
        }))
    }

    /// Nothing has ever had a cap.
    pub(crate) fn is_idle(&self) -> bool {
        lock(&self.0).nics.is_empty()
    }

    /// `carried`: bytes over each path since the stack started, by name. What the stack is to be told.
    pub(crate) fn update(&self, paths: &[Capped], carried: &BTreeMap<String, u64>) -> Vec<Order> {
        lock(&self.0).update(Instant::now(), Month::now(), paths, carried)
    }

    /// The stack has ended: writes down what is not yet.
    pub(crate) fn finish(&self, carried: &BTreeMap<String, u64>) {
        let mut state = lock(&self.0);
        if !state.nics.is_empty() {
            state.look(Instant::now(), Month::now(), carried);
        }
    }
}

impl State {
    fn update(
        &mut self,
        now: Instant,
        month: Month,
        paths: &[Capped],
        carried: &BTreeMap<String, u64>,
    ) -> Vec<Order> {
        for path in paths {
            if self.nics.insert(nic(&path.name).to_owned()) {
                // What its paths carried before they had a cap does not count.
                let before = carried.iter().filter(|(name, _)| nic(name) == nic(&path.name));
                self.written.extend(before.map(|(name, bytes)| (name.clone(), *bytes)));
            }
        }
        self.told.retain(|id, _| paths.iter().any(|path| path.id == *id));
        let is_new = |path: &Capped| {
            self.told.get(&path.id).is_none_or(|told| (told.month, told.cap) != (month, path.cap))
        };
        let news = paths.iter().any(is_new);
        let due = self.looked.is_none_or(|at| now.saturating_duration_since(at) >= WRITE);
        if !news && !due && !self.is_much(paths, carried) {
            return Vec::new();
        }
        self.look(now, month, carried);
        paths.iter().filter_map(|path| self.order(month, path, carried)).collect()
    }

    /// A good part of what is left has been carried.
    fn is_much(&self, paths: &[Capped], carried: &BTreeMap<String, u64>) -> bool {
        let unwritten = self.unwritten(carried);
        paths.iter().any(|path| {
            let nic = nic(&path.name);
            let left = path.cap.saturating_sub(self.totals.1.get(nic).copied().unwrap_or_default());
            unwritten.get(nic).is_some_and(|bytes| *bytes > 0 && *bytes >= left / SHARE)
        })
    }

    /// What has been carried over each NIC and is not written down yet.
    fn unwritten(&self, carried: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        let mut all: BTreeMap<String, u64> = self.nics.iter().map(|nic| (nic.clone(), 0)).collect();
        for (name, bytes) in carried {
            if let Some(sum) = all.get_mut(nic(name)) {
                *sum += bytes.saturating_sub(self.written.get(name).copied().unwrap_or_default());
            }
        }
        all
    }

    /// Writes down what has been carried, and learns what others have. If the file cannot be used, what this
    /// instance has carried counts all the same.
    fn look(&mut self, now: Instant, month: Month, carried: &BTreeMap<String, u64>) {
        self.looked = Some(now);
        let unwritten = self.unwritten(carried);
        match self.add(month, &unwritten) {
            Ok(totals) => {
                self.totals = (month, totals);
                self.written = carried.clone();
                self.complained = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.complained, true) {
                    tracing::warn!(
                        %error, "cannot keep what network interfaces have carried in this month: their caps hold for \
                         what this instance carries since it has started"
                    );
                }
                if self.totals.0 != month {
                    self.totals = (month, BTreeMap::new());
                    self.written = carried.clone();
                }
            }
        }
    }

    fn add(&mut self, month: Month, unwritten: &BTreeMap<String, u64>) -> io::Result<BTreeMap<String, u64>> {
        if self.ledger.is_none() {
            self.ledger = Some(Ledger::open(&self.directories)?);
        }
        self.ledger.as_ref().map_or_else(|| Ok(BTreeMap::new()), |ledger| ledger.add(month, unwritten))
    }

    /// What the stack is to be told of a path.
    fn order(&mut self, month: Month, path: &Capped, carried: &BTreeMap<String, u64>) -> Option<Order> {
        let nic = nic(&path.name);
        let written = self.totals.1.get(nic).copied().unwrap_or_default();
        let total = written.saturating_add(self.unwritten(carried).get(nic).copied().unwrap_or_default());
        let own = carried.get(&path.name).copied().unwrap_or_default();
        if total >= path.cap && self.reached.insert((month, nic.to_owned())) {
            let (cap, until) = (path.cap, month.next());
            tracing::warn!(
                path = path.name,
                cap,
                "the path has carried what it may in this month: it is not used until {until}-01 (UTC)"
            );
        }
        let now = Told { month, cap: path.cap, total, own };
        match self.told.insert(path.id, now) {
            Some(before) if (before.month, before.cap) == (month, path.cap) => {
                let by_others =
                    total.saturating_sub(before.total).saturating_sub(own.saturating_sub(before.own));
                (by_others > 0).then_some(Order::Spend(path.id, by_others))
            }
            before => {
                let left = path.cap.saturating_sub(total);
                // A path that comes now has nothing under way that needs the rest; with it, each start of a program
                // would begin something in a part of that.
                let nothing_new = before.is_none() && left <= allowance_reserve(path.cap);
                Some(Order::Allow(path.id, if nothing_new { 0 } else { left }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use std::fs;

    fn scratch(name: &str) -> Scratch {
        Scratch::new(&format!("caps-{name}"))
    }

    /// An instance, with the time and month that a test wants.
    struct Instance {
        accounts: Accounts,
        start: Instant,
    }

    impl Instance {
        fn new(directory: PathBuf) -> Instance {
            Instance { accounts: Accounts::new(vec![directory]), start: Instant::now() }
        }

        fn update(&self, second: u64, month: &str, paths: &[Capped], carried: &[(&str, u64)]) -> Vec<Order> {
            let now = self.start + Duration::from_secs(second);
            let month = Month::parse(month).unwrap();
            lock(&self.accounts.0).update(now, month, paths, &map(carried))
        }
    }

    fn map(carried: &[(&str, u64)]) -> BTreeMap<String, u64> {
        carried.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect()
    }

    fn capped(id: u32, name: &str, cap: u64) -> Capped {
        Capped { id: PathId(id), name: name.into(), cap }
    }

    #[test]
    fn what_is_left_survives_a_restart_and_ends_with_the_month() {
        let scratch = scratch("restart");
        let paths = [capped(1, "wwan0", 1_000)];
        let first = Instance::new(scratch.path().to_owned());
        assert_eq!(first.update(0, "2026-11", &paths, &[]), [Order::Allow(PathId(1), 1_000)]);
        assert_eq!(first.update(1, "2026-11", &paths, &[("wwan0", 10), ("eth0", 500)]), []);
        lock(&first.accounts.0).look(
            first.start,
            Month::parse("2026-11").unwrap(),
            &map(&[("wwan0", 300), ("eth0", 500)]),
        );
        let text = fs::read_to_string(scratch.path().join("traffic")).unwrap();
        assert!(text.contains("2026-11 wwan0 300\n") && !text.contains("eth0"), "{text}");

        let second = Instance::new(scratch.path().to_owned());
        assert_eq!(second.update(0, "2026-11", &paths, &[]), [Order::Allow(PathId(1), 700)]);
        assert_eq!(second.update(1, "2026-11", &paths, &[("wwan0", 900)]), []);
        let third = Instance::new(scratch.path().to_owned());
        assert_eq!(third.update(0, "2026-11", &paths, &[]), [Order::Allow(PathId(1), 0)]);
        assert_eq!(third.update(1, "2026-12", &paths, &[]), [Order::Allow(PathId(1), 1_000)]);
    }

    #[test]
    fn instances_learn_of_one_another() {
        let scratch = scratch("others");
        let [one, other] = [(); 2].map(|()| Instance::new(scratch.path().to_owned()));
        let paths = [capped(1, "wwan0", 16_000)];
        one.update(0, "2026-11", &paths, &[]);
        other.update(0, "2026-11", &paths, &[]);
        // Less than a sixteenth waits for the ten seconds.
        assert_eq!(one.update(1, "2026-11", &paths, &[("wwan0", 999)]), []);
        assert_eq!(other.update(11, "2026-11", &paths, &[("wwan0", 5)]), [], "nothing is written yet");
        assert_eq!(one.update(2, "2026-11", &paths, &[("wwan0", 1_000)]), [Order::Spend(PathId(1), 5)]);
        assert_eq!(other.update(12, "2026-11", &paths, &[("wwan0", 6)]), []);
        assert_eq!(other.update(21, "2026-11", &paths, &[("wwan0", 7)]), [Order::Spend(PathId(1), 1_000)]);
        assert_eq!(one.update(12, "2026-11", &paths, &[("wwan0", 1_000)]), [Order::Spend(PathId(1), 2)]);
    }

    #[test]
    fn paths_over_one_nic_share_its_cap() {
        let scratch = scratch("nic");
        let instance = Instance::new(scratch.path().to_owned());
        let paths = [capped(1, "wwan0", 1_000), capped(2, "wwan0/udp", 1_000)];
        let allow = |bytes| [1, 2].map(|id| Order::Allow(PathId(id), bytes));
        assert_eq!(instance.update(0, "2026-11", &paths, &[]), allow(1_000));
        let spent = instance.update(1, "2026-11", &paths, &[("wwan0", 100), ("wwan0/udp", 20)]);
        assert_eq!(spent, [Order::Spend(PathId(1), 20), Order::Spend(PathId(2), 100)]);
        // One that comes back, with what it may still carry.
        let again = [capped(1, "wwan0", 1_000), capped(3, "wwan0/udp", 1_000)];
        let orders = instance.update(2, "2026-11", &again, &[("wwan0", 100), ("wwan0/udp", 30)]);
        assert_eq!(orders, [Order::Spend(PathId(1), 10), Order::Allow(PathId(3), 870)]);
    }

    #[test]
    fn what_was_carried_without_a_cap_does_not_count() {
        let scratch = scratch("before");
        let instance = Instance::new(scratch.path().to_owned());
        assert_eq!(instance.update(0, "2026-11", &[], &[("wwan0", 5_000)]), []);
        assert!(instance.accounts.is_idle());
        let paths = [capped(4, "wwan0", 1_000)];
        let orders = instance.update(1, "2026-11", &paths, &[("wwan0", 5_000)]);
        assert_eq!(orders, [Order::Allow(PathId(4), 1_000)]);
        // Another cap for what has been carried already.
        instance.update(2, "2026-11", &paths, &[("wwan0", 5_400)]);
        let orders = instance.update(3, "2026-11", &[capped(5, "wwan0", 700)], &[("wwan0", 5_400)]);
        assert_eq!(orders, [Order::Allow(PathId(5), 300)]);
    }

    #[test]
    fn without_a_file_the_cap_holds_for_the_instance() {
        let scratch = scratch("nowhere");
        let place = scratch.path().join("place");
        fs::write(&place, "").unwrap();
        let instance = Instance::new(place.join("state"));
        let paths = [capped(1, "wwan0", 1_000)];
        assert_eq!(instance.update(0, "2026-11", &paths, &[]), [Order::Allow(PathId(1), 1_000)]);
        assert_eq!(instance.update(20, "2026-11", &paths, &[("wwan0", 400)]), []);
        let again = [capped(2, "wwan0", 1_000)];
        assert_eq!(instance.update(21, "2026-11", &again, &[("wwan0", 400)]), [Order::Allow(PathId(2), 600)]);
        assert_eq!(
            instance.update(22, "2026-12", &again, &[("wwan0", 450)]),
            [Order::Allow(PathId(2), 1_000)]
        );
        // Later there is a place.
        fs::remove_file(&place).unwrap();
        assert_eq!(instance.update(40, "2026-12", &again, &[("wwan0", 500)]), []);
        let text = fs::read_to_string(place.join("state/traffic")).unwrap();
        assert!(text.contains("2026-12 wwan0 50\n"), "{text}");
    }
}

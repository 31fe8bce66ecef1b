//! The names of paths, and what went over each.

use std::collections::{BTreeMap, HashMap, VecDeque};
use umptcp_stack_core::event::Traffic;
use umptcp_types::PathId;

/// How many paths that have gone are remembered: the ends of their subflows are reported after them.
const REMEMBERED: usize = 64;

/// The paths of a worker, by what people call them. One that comes back has a new id and its old name.
#[derive(Default)]
pub(super) struct PathNames {
    names: HashMap<PathId, String>,
    gone: VecDeque<(PathId, String)>,
    /// By subflows that have ended.
    carried: BTreeMap<String, Traffic>,
    /// Bytes of IP packets, by paths that have gone.
    passed: BTreeMap<String, u64>,
}

impl PathNames {
    pub(super) fn add(&mut self, path: PathId, name: String) {
        self.names.insert(path, name);
    }

    pub(super) fn remove(&mut self, path: PathId) -> Option<String> {
        let name = self.names.remove(&path)?;
        if self.gone.len() == REMEMBERED {
            self.gone.pop_front();
        }
        self.gone.push_back((path, name.clone()));
        Some(name)
    }

    /// A path goes, over which so much has passed.
    pub(super) fn on_gone(&mut self, path: PathId, passed: Traffic) {
        if let Some(name) = self.names.get(&path) {
            *self.passed.entry(name.clone()).or_default() += passed.sent + passed.received;
        }
    }

    /// Bytes of IP packets over each path since the start, by its name. `live`: what has passed over one that there
    /// is.
    pub(super) fn passed(&self, live: impl Fn(PathId) -> Option<Traffic>) -> BTreeMap<String, u64> {
        let mut all = self.passed.clone();
        for (path, name) in &self.names {
            let Traffic { sent, received, .. } = live(*path).unwrap_or_default();
            *all.entry(name.clone()).or_default() += sent + received;
        }
        all
    }

    /// The name, also of a path that has just gone.
    pub(super) fn get(&self, path: PathId) -> Option<&str> {
        let gone = || self.gone.iter().rev().find(|(id, _)| *id == path).map(|(_, name)| name);
        self.names.get(&path).or_else(gone).map(String::as_str)
    }

    /// A subflow has ended.
    pub(super) fn on_subflow_closed(&mut self, path: PathId, traffic: Traffic) {
        if let Some(name) = self.get(path).map(str::to_owned) {
            add(&mut self.carried, name, traffic);
        }
    }

    /// What went over each path, by subflows that have ended and by these.
    pub(super) fn traffic(&self, live: impl Iterator<Item = (PathId, Traffic)>) -> BTreeMap<String, Traffic> {
        let mut all = self.carried.clone();
        for name in self.names.values() {
            all.entry(name.clone()).or_default();
        }
        for (path, traffic) in live {
            if let Some(name) = self.get(path) {
                add(&mut all, name.to_owned(), traffic);
            }
        }
        all
    }
}

fn add(all: &mut BTreeMap<String, Traffic>, name: String, traffic: Traffic) {
    let sum = all.entry(name).or_default();
    sum.sent += traffic.sent;
    sum.received += traffic.received;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_comes_back_goes_on_counting() {
        let mut paths = PathNames::default();
        let carried = |sent| Traffic::new(sent, 1);
        paths.add(PathId(1), "eth0".to_owned());
        paths.on_subflow_closed(PathId(1), carried(10));
        paths.on_gone(PathId(1), Traffic::new(30, 3));
        assert_eq!(paths.remove(PathId(1)).as_deref(), Some("eth0"));
        // Reported after the path has gone.
        paths.on_subflow_closed(PathId(1), carried(5));
        paths.add(PathId(2), "eth0".to_owned());
        paths.add(PathId(3), "wlan0".to_owned());
        let all = paths.traffic([(PathId(2), carried(100))].into_iter());
        let expected = [("eth0", Traffic::new(115, 3)), ("wlan0", Traffic::default())];
        let passed = paths.passed(|id| (id == PathId(2)).then_some(Traffic::new(200, 20)));
        assert_eq!(passed, [("eth0", 253), ("wlan0", 0)].map(|(name, n)| (name.to_owned(), n)).into());
        assert_eq!(all, expected.map(|(name, t)| (name.to_owned(), t)).into());
    }
}

//! Files and the arrows between them.

use std::collections::{BTreeMap, BTreeSet};

/// Which file uses which, and by what names. Files are numbers, as in [`Tree`](super::tree::Tree).
#[derive(Default)]
pub(super) struct Graph {
    arrows: BTreeMap<usize, BTreeMap<usize, BTreeSet<String>>>,
}

impl Graph {
    /// `from` uses `name`, which `to` defines.
    pub(super) fn add(&mut self, from: usize, to: usize, name: &str) {
        if from != to {
            self.arrows.entry(from).or_default().entry(to).or_default().insert(name.to_owned());
        }
    }

    /// Leaves out the arrows for which `keep` is false.
    pub(super) fn retain(&mut self, keep: impl Fn(usize, usize) -> bool) {
        for (from, uses) in &mut self.arrows {
            uses.retain(|to, _| keep(*from, *to));
        }
    }

    /// The files that `from` uses, each with the names.
    pub(super) fn uses(&self, from: usize) -> impl Iterator<Item = (usize, &BTreeSet<String>)> {
        self.arrows.get(&from).into_iter().flatten().map(|(to, names)| (*to, names))
    }

    /// The files that can be reached from `start` by one arrow or more.
    fn reach(&self, start: usize) -> BTreeSet<usize> {
        let (mut reached, mut waiting) = (BTreeSet::new(), vec![start]);
        while let Some(file) = waiting.pop() {
            waiting.extend(self.uses(file).map(|(to, _)| to).filter(|to| reached.insert(*to)));
        }
        reached
    }

    /// The strongly connected components of more than one file.
    pub(super) fn circles(&self) -> Vec<BTreeSet<usize>> {
        let reach: BTreeMap<usize, BTreeSet<usize>> =
            self.arrows.keys().map(|file| (*file, self.reach(*file))).collect();
        let mut circles = Vec::new();
        let mut placed: BTreeSet<usize> = BTreeSet::new();
        for (file, reached) in &reach {
            if placed.contains(file) || !reached.contains(file) {
                continue;
            }
            let back = |other: &&usize| reach.get(other).is_some_and(|r| r.contains(file));
            let circle: BTreeSet<usize> = reached.iter().filter(back).copied().collect();
            placed.extend(&circle);
            circles.push(circle);
        }
        circles
    }

    /// The arrows that begin and end within `files`.
    pub(super) fn arrows_within(&self, files: &BTreeSet<usize>) -> Vec<(usize, usize, Vec<&str>)> {
        let mut within = Vec::new();
        for from in files {
            for (to, names) in self.uses(*from).filter(|(to, _)| files.contains(to)) {
                within.push((*from, to, names.iter().map(String::as_str).collect()));
            }
        }
        within
    }
}

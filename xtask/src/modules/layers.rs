//! Which modules may use which, inside crates where that is more than "no circles".

use super::graph::Graph;
use super::tree::Tree;
use std::collections::{BTreeMap, VecDeque};

/// Layers of a crate, the lowest first; each entry holds the top-level modules of one layer. A module may use
/// those of its own layer and of lower ones. Modules that are not listed may use and be used by any, but no
/// layer may use a higher one by way of them.
struct Layers {
    /// The crate's folder.
    folder: &'static str,
    layers: &'static [&'static [&'static str]],
}

const TABLE: &[Layers] = &[Layers {
    folder: "crates/stack-core",
    layers: &[&["wire", "buffers"], &["tcp", "context"], &["mptcp"], &["stack"]],
}];

/// A use of a higher layer by a lower one.
pub(super) struct Upward {
    pub(super) lower: String,
    pub(super) upper: String,
    /// The files from the one to the other; those between are in no layer.
    pub(super) way: Vec<usize>,
    /// What the last file but one of the way takes from the last.
    pub(super) names: Vec<String>,
}

/// All uses of a higher layer by a lower one; none in a crate that the table does not list.
pub(super) fn upward(tree: &Tree, graph: &Graph) -> Vec<Upward> {
    let Some(entry) =
        TABLE.iter().find(|entry| tree.source_folder().parent().is_some_and(|f| f.ends_with(entry.folder)))
    else {
        return Vec::new();
    };
    let layer_of = |file: usize| {
        let module = tree.top_level_module(file)?;
        let height = entry.layers.iter().position(|layer| layer.contains(&module.as_str()))?;
        Some((height, module))
    };
    let mut found = Vec::new();
    for start in 0..tree.files.len() {
        let Some((height, lower)) = layer_of(start) else { continue };
        let mut came_from = BTreeMap::from([(start, start)]);
        let mut waiting = VecDeque::from([start]);
        while let Some(file) = waiting.pop_front() {
            for (to, names) in graph.uses(file) {
                if came_from.contains_key(&to) {
                    continue;
                }
                came_from.insert(to, file);
                match layer_of(to) {
                    None => waiting.push_back(to),
                    Some((above, upper)) if above > height => found.push(Upward {
                        lower: lower.clone(),
                        upper,
                        way: way(&came_from, to),
                        names: names.iter().cloned().collect(),
                    }),
                    Some(_) => {}
                }
            }
        }
    }
    found
}

fn way(came_from: &BTreeMap<usize, usize>, end: usize) -> Vec<usize> {
    let mut way = vec![end];
    let mut file = end;
    while came_from[&file] != file {
        file = came_from[&file];
        way.push(file);
    }
    way.reverse();
    way
}

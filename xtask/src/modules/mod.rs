//! `cargo xtask modules`: no crate has a circle of modules, and layers use only those below them.
//!
//! A module here is a file. An arrow from one file to another says that the first names an item that the
//! second defines, in a `use` declaration or in any other path; re-exports are followed to the definition and
//! are no arrows themselves, nor are `mod` declarations. Code under `#[cfg(test)]` does not count. Method
//! calls are not resolved: a method that one file adds to a type of another (`impl`) makes an arrow to the
//! type only.

mod graph;
mod layers;
mod resolve;
mod tree;
mod uses;

#[cfg(test)]
mod tests;

use crate::tools;
use anyhow::{Context, Result, bail};
use graph::Graph;
use std::path::{Path, PathBuf};
use tree::Tree;

/// Options of `cargo xtask modules`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Leave out what a module uses of the modules around it (`super::Name`).
    #[arg(long)]
    without_parents: bool,
}

/// Checks every crate of the workspace.
pub(crate) fn run(options: &Options) -> Result<()> {
    let metadata = tools::metadata()?;
    let root = metadata["workspace_root"].as_str().context("cargo metadata names the workspace's root")?;
    let (mut crates, mut files, mut faults) = (0, 0, Vec::new());
    for source in sources(&metadata)? {
        let tree = Tree::load(&source, &|path| std::fs::read_to_string(path).ok())
            .with_context(|| format!("reading the modules of {}", source.display()))?;
        let mut graph = uses::graph(&tree);
        if options.without_parents {
            graph.retain(|from, to| !tree.is_around(to, from));
        }
        crates += 1;
        files += tree.files.len();
        faults.extend(self::faults(&tree, &graph, Path::new(root)));
    }
    if !faults.is_empty() {
        bail!("the modules are not in order:\n{}", faults.join("\n"));
    }
    println!(
        "modules: no circle in {crates} crates ({files} files), and every layer uses only those below it"
    );
    Ok(())
}

/// The root files of all libraries and programs of the workspace.
fn sources(metadata: &serde_json::Value) -> Result<Vec<PathBuf>> {
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    let targets = packages.iter().filter_map(|p| p["targets"].as_array()).flatten();
    let counted = targets.filter(|target| {
        let kinds = target["kind"].as_array().into_iter().flatten();
        kinds.filter_map(|kind| kind.as_str()).any(|kind| kind == "lib" || kind == "bin")
    });
    counted.map(|t| Ok(t["src_path"].as_str().context("a target has a source file")?.into())).collect()
}

/// What is wrong with one crate: one text each, of several lines.
fn faults(tree: &Tree, graph: &Graph, root: &Path) -> Vec<String> {
    let show = |file: usize| tree.files[file].strip_prefix(root).unwrap_or(&tree.files[file]).display();
    let mut faults = Vec::new();
    for circle in graph.circles() {
        let arrows = graph.arrows_within(&circle).into_iter();
        let mut lines: Vec<_> = arrows
            .map(|(from, to, names)| format!("\n  {} -> {}: {}", show(from), show(to), names.join(", ")))
            .collect();
        lines.sort_unstable();
        faults.push(format!("a circle of {} files:{}", circle.len(), lines.concat()));
    }
    for upward in layers::upward(tree, graph) {
        let way: Vec<_> = upward.way.iter().map(|file| show(*file).to_string()).collect();
        faults.push(format!(
            "`{}` must not use `{}`: {} ({})",
            upward.lower,
            upward.upper,
            way.join(" -> "),
            upward.names.join(", ")
        ));
    }
    faults
}

//! `cargo xtask by-example`: the book's pages "RFC 8684 by example", printed from runs of the examples.

use crate::tools;
use anyhow::{Context, Result, anyhow, bail};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use umptcp_testkit::by_example::EXAMPLES;

/// Options of `cargo xtask by-example`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Change nothing; fail if a page is not what the run gives, or if examples and code do not name each other.
    #[arg(long)]
    check: bool,
}

/// The folder of the pages, from the root.
const FOLDER: &str = "docs/src/by-example";

/// Makes the pages, or checks them.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = tools::root()?;
    let pages = pages()?;
    if options.check {
        let errors = check(root, &pages)?;
        if !errors.is_empty() {
            bail!("RFC 8684 by example is wrong:\n  {}", errors.join("\n  "));
        }
        println!("by-example: the {} pages are what the runs give", pages.len());
        return Ok(());
    }
    let folder = root.join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {FOLDER}"))?;
    for (name, text) in &pages {
        fs::write(folder.join(name), text).with_context(|| format!("cannot write {name}"))?;
    }
    println!("by-example: wrote {} pages to {FOLDER}", pages.len());
    Ok(())
}

/// The pages, by their files' names.
fn pages() -> Result<BTreeMap<String, String>> {
    EXAMPLES.iter().map(|e| Ok((format!("{}.md", e.name), e.page().map_err(|e| anyhow!(e))?))).collect()
}

/// What is wrong: one line each.
fn check(root: &Path, pages: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let mut errors = Vec::new();
    for (name, text) in pages {
        if fs::read_to_string(root.join(FOLDER).join(name)).ok().as_ref() != Some(text) {
            errors.push(format!("{FOLDER}/{name} is not up to date: run `cargo xtask by-example`"));
        }
    }
    for example in EXAMPLES {
        let page = format!("{FOLDER}/{}.md", example.name);
        for (path, _) in example.code {
            // The head of the module leads to the page.
            let text = fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"))?;
            if !text.lines().take_while(|l| l.starts_with("//!")).any(|l| l.contains(&page)) {
                errors.push(format!("the head of {path} does not name {page}"));
            }
        }
    }
    for entry in fs::read_dir(root.join(FOLDER)).with_context(|| format!("cannot read {FOLDER}"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !pages.contains_key(&name) {
            errors.push(format!("{FOLDER}/{name} belongs to no example"));
        }
    }
    Ok(errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_are_what_the_runs_give() {
        let root = tools::root().unwrap();
        assert_eq!(check(root, &pages().unwrap()).unwrap(), Vec::<String>::new());
    }
}

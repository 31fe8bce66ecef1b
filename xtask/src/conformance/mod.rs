//! `cargo xtask conformance`: the requirements of RFC 8684, the code that implements each and the tests that
//! verify it.
//!
//! The source is `docs/conformance/*.toml`: `keywords.toml` says how often each key word of BCP 14 occurs in
//! each section, `places.toml` gives short names to files, and every other file holds requirements
//! ([`table::Requirement`]). From them come the book's pages: a summary, `docs/src/conformance.md`, and a
//! page per section in `docs/src/conformance/`. The check fails if a cited file, item or test does not exist,
//! if the key words of a section are not covered one by one, or if the pages are not what the source gives.

mod page;
mod places;
mod rfc;
mod table;

use crate::tools;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Options of `cargo xtask conformance`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Change nothing; fail if the table is wrong or the pages are not up to date.
    #[arg(long)]
    check: bool,
    /// The RFC's text: count its key words again and compare the counts with `keywords.toml`.
    #[arg(long, value_name = "FILE")]
    rfc: Option<PathBuf>,
}

/// The book's source, from the root.
const BOOK: &str = "docs/src";

/// Makes the pages, or checks them.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = tools::root()?;
    let table = table::Table::read(&root.join("docs/conformance"))?;
    let mut errors = table.check(root);
    if let Some(file) = &options.rfc {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        errors.extend(rfc::compare(&rfc::count(&text), &table.sections));
    }
    let pages = page::render(&table);
    if options.check {
        errors.extend(stale(&root.join(BOOK), &pages)?);
    }
    if !errors.is_empty() {
        bail!("the table of conformance is wrong:\n  {}", errors.join("\n  "));
    }
    if options.check {
        println!("conformance: all cited code and tests exist, and the {} pages are up to date", pages.len());
    } else {
        write(&root.join(BOOK), &pages)?;
        println!("conformance: wrote {} pages to {BOOK}", pages.len());
    }
    Ok(())
}

/// Writes the pages and removes those of sections that no longer have one.
fn write(book: &Path, pages: &BTreeMap<String, String>) -> Result<()> {
    fs::create_dir_all(book.join(page::FOLDER))?;
    for name in leftovers(book, pages)? {
        fs::remove_file(book.join(&name)).with_context(|| format!("cannot remove {name}"))?;
    }
    for (name, text) in pages {
        fs::write(book.join(name), text).with_context(|| format!("cannot write {name}"))?;
    }
    Ok(())
}

/// Pages in the repository that differ from `pages`: one line each.
fn stale(book: &Path, pages: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let advice = "run `cargo xtask conformance`";
    let changed =
        pages.iter().filter(|(name, text)| fs::read_to_string(book.join(name)).ok().as_ref() != Some(text));
    let mut errors: Vec<String> =
        changed.map(|(name, _)| format!("{BOOK}/{name} is not up to date: {advice}")).collect();
    let extra = leftovers(book, pages)?;
    errors.extend(extra.iter().map(|name| format!("{BOOK}/{name} belongs to no section: {advice}")));
    Ok(errors)
}

/// Files among the sections' pages that are none of `pages`.
fn leftovers(book: &Path, pages: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let folder = book.join(page::FOLDER);
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        names.push(format!("{}/{}", page::FOLDER, entry?.file_name().to_string_lossy()));
    }
    names.retain(|name| !pages.contains_key(name));
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_true_and_the_pages_are_up_to_date() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let table = table::Table::read(&root.join("docs/conformance")).unwrap();
        assert_eq!(table.check(root), Vec::<String>::new());
        assert_eq!(stale(&root.join(BOOK), &page::render(&table)).unwrap(), Vec::<String>::new());
    }
}

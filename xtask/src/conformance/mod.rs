//! `cargo xtask conformance`: the requirements of RFC 8684, RFC 9293 and others, the code that implements each and
//! the tests that verify it.
//!
//! The source is `docs/conformance/*.toml`, and `docs/conformance/rfc*/*.toml`: `keywords.toml` says how often
//! each key word of BCP 14 occurs in each section, or which numbers the RFC gives its requirements there;
//! `places.toml` gives short names to files, and every other file holds requirements ([`table::Requirement`]).
//! From them come the book's pages: a summary and a page per section for each RFC, or one page for a short one. The check fails if a cited file,
//! item or test does not exist, if the key words of a section are not covered one by one, or if the pages are not
//! what the source gives.

mod faults;
mod page;
mod places;
mod rfc;
mod table;

use crate::tools;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use table::{DOCUMENTS, Document, Table};

/// Options of `cargo xtask conformance`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Change nothing; fail if the table is wrong or the pages are not up to date.
    #[arg(long)]
    check: bool,
    /// An RFC's text: count its key words again and compare the counts with `keywords.toml`.
    #[arg(long, value_name = "FILE")]
    rfc: Vec<PathBuf>,
    /// Break the code that each requirement cites, in a copy of the tree, and fail if no cited test notices. An
    /// interrupted run goes on where it was.
    #[arg(long = "break")]
    faults: bool,
    /// With `--break`: only requirements of sections that begin so, or with this in their text.
    #[arg(long, value_name = "TEXT", requires = "faults")]
    only: Option<String>,
    /// With `--break`: only requirements of this RFC. May be given more than once.
    #[arg(long, value_name = "NUMBER", requires = "faults")]
    of: Vec<u16>,
    /// With `--break`: only requirements that name their breaks.
    #[arg(long, requires = "faults")]
    named: bool,
}

/// The book's source, from the root.
const BOOK: &str = "docs/src";

/// Makes the pages, or checks them.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = tools::root()?;
    let tables = read(root)?;
    let mut errors = check(root, &tables);
    for file in &options.rfc {
        errors.extend(compare(file, &tables)?);
    }
    let mut count = 0;
    for table in &tables {
        let pages = page::render(table);
        count += pages.len();
        if options.check {
            errors.extend(stale(&root.join(BOOK), table.document, &pages)?);
        }
    }
    if !errors.is_empty() {
        bail!("the table of conformance is wrong:\n  {}", errors.join("\n  "));
    }
    if options.faults {
        let wanted = |t: &Table| options.of.is_empty() || options.of.contains(&t.document.number);
        let tables: Vec<Table> = tables.into_iter().filter(wanted).collect();
        return faults::run(root, &tables, options.only.as_deref(), options.named);
    }
    if options.check {
        println!("conformance: all cited code and tests exist, and the {count} pages are up to date");
        return Ok(());
    }
    for table in &tables {
        write(&root.join(BOOK), table.document, &page::render(table))?;
    }
    println!("conformance: wrote {count} pages to {BOOK}");
    Ok(())
}

/// What is said of every RFC.
fn read(root: &Path) -> Result<Vec<Table>> {
    DOCUMENTS.iter().map(|document| Table::read(root, document)).collect()
}

/// The errors in it, one line each.
fn check(root: &Path, tables: &[Table]) -> Vec<String> {
    let mut errors = Vec::new();
    for table in tables {
        let wrong = |e: String| format!("RFC {}, {e}", table.document.number);
        errors.extend(table.check(root).into_iter().map(wrong));
        errors.extend(faults::check(root, table).into_iter().map(wrong));
    }
    // All use the same short names.
    if let Some(first) = tables.first() {
        errors.extend(first.places.unused(tables.iter().flat_map(Table::citations)));
    }
    errors
}

/// Compares the key words of an RFC's text with what is kept of them.
fn compare(file: &Path, tables: &[Table]) -> Result<Vec<String>> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let of = |t: &&Table| text.contains(&format!("Request for Comments: {}", t.document.number));
    let table = tables.iter().find(of).with_context(|| format!("{} is none of the RFCs", file.display()))?;
    Ok(match table.document.numbered {
        true => rfc::compare_numbers(&rfc::numbers(&text), &table.sections),
        false => {
            let Document { number, definitions, .. } = *table.document;
            rfc::compare(&rfc::count(&text, number, definitions), &table.sections)
        }
    })
}

/// Writes the pages and removes those of sections that no longer have one.
fn write(book: &Path, document: &Document, pages: &BTreeMap<String, String>) -> Result<()> {
    if !document.one_page {
        fs::create_dir_all(book.join(document.pages))?;
    }
    for name in leftovers(book, document, pages)? {
        fs::remove_file(book.join(&name)).with_context(|| format!("cannot remove {name}"))?;
    }
    for (name, text) in pages {
        fs::write(book.join(name), text).with_context(|| format!("cannot write {name}"))?;
    }
    Ok(())
}

/// Pages in the repository that differ from `pages`: one line each.
fn stale(book: &Path, document: &Document, pages: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let advice = "run `cargo xtask conformance`";
    let changed =
        pages.iter().filter(|(name, text)| fs::read_to_string(book.join(name)).ok().as_ref() != Some(text));
    let mut errors: Vec<String> =
        changed.map(|(name, _)| format!("{BOOK}/{name} is not up to date: {advice}")).collect();
    let extra = leftovers(book, document, pages)?;
    errors.extend(extra.iter().map(|name| format!("{BOOK}/{name} belongs to no section: {advice}")));
    Ok(errors)
}

/// Files among the sections' pages that are none of `pages`.
fn leftovers(book: &Path, document: &Document, pages: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let folder = book.join(document.pages);
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        names.push(format!("{}/{}", document.pages, entry?.file_name().to_string_lossy()));
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
        let tables = read(root).unwrap();
        assert_eq!(check(root, &tables), Vec::<String>::new());
        for table in &tables {
            let stale = stale(&root.join(BOOK), table.document, &page::render(table)).unwrap();
            assert_eq!(stale, Vec::<String>::new());
        }
    }
}

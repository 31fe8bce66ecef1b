//! `cargo xtask conformance`: what RFC 8684 demands, where it is done and what proves it.
//!
//! The source is `docs/conformance/*.toml`: `keywords.toml` says how often each key word of BCP 14 stands in each section,
//! `places.toml` gives short names to files, and every other file holds requirements ([`table::Requirement`]). From them the page
//! `docs/conformance.md` is made. The check fails when a cited file, item or test is gone, when the key words of a section
//! are not covered one by one, and when the page is not what the source makes.

mod page;
mod places;
mod rfc;
mod table;

use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// Options of `cargo xtask conformance`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Change nothing; fail when the table is wrong or the page is not up to date.
    #[arg(long)]
    check: bool,
    /// The RFC's text: count its key words anew and compare them with those kept.
    #[arg(long, value_name = "FILE")]
    rfc: Option<PathBuf>,
}

/// Where the page is, from the root.
const PAGE: &str = "docs/conformance.md";

/// Makes the page, or checks it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is a folder of the workspace")?;
    let table = table::Table::read(&root.join("docs/conformance"))?;
    let mut errors = table.check(root);
    if let Some(file) = &options.rfc {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        errors.extend(rfc::compare(&rfc::count(&text), &table.sections));
    }
    let page = page::render(&table);
    if options.check {
        errors.extend(stale(root, &page));
    }
    if !errors.is_empty() {
        bail!("the table of conformance is wrong:\n  {}", errors.join("\n  "));
    }
    if options.check {
        println!("conformance: every place and test is there, and {PAGE} is up to date");
    } else {
        fs::write(root.join(PAGE), page).with_context(|| format!("cannot write {PAGE}"))?;
        println!("conformance: {PAGE} is written");
    }
    Ok(())
}

/// Whether the page in the repository is another than `page`.
fn stale(root: &Path, page: &str) -> Option<String> {
    let kept = fs::read_to_string(root.join(PAGE)).unwrap_or_default();
    (kept != page).then(|| format!("{PAGE} is not up to date: run `cargo xtask conformance`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_true_and_the_page_is_up_to_date() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let table = table::Table::read(&root.join("docs/conformance")).unwrap();
        assert_eq!(table.check(root), Vec::<String>::new());
        assert_eq!(stale(root, &page::render(&table)), None);
    }
}

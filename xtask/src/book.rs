//! `cargo xtask book`: the book has the chapters it names and no link that leads nowhere.

use crate::tools;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

/// Checks the book, and builds it where mdbook is installed.
pub(crate) fn run() -> Result<()> {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is a folder of the workspace")?;
    let errors = check(root)?;
    if !errors.is_empty() {
        bail!("the book has errors:\n  {}", errors.join("\n  "));
    }
    println!("book: every chapter is in SUMMARY.md and every local link leads somewhere");
    match tools::find("mdbook") {
        Some(mdbook) => tools::run(Command::new(mdbook).arg("build").arg(root.join("docs")), "mdbook"),
        None => {
            println!("book: mdbook is not installed, so no HTML was made (`cargo install --locked mdbook`)");
            Ok(())
        }
    }
}

/// What is wrong with the book and the Markdown files at the root: one line each.
fn check(root: &Path) -> Result<Vec<String>> {
    let source = root.join("docs/src");
    let mut files = Vec::new();
    markdown_files(&source, &mut files)?;
    let summary = source.join("SUMMARY.md");
    let mut errors = Vec::new();
    let listed: BTreeSet<PathBuf> =
        links(&fs::read_to_string(&summary)?).iter().map(|l| normal(&source.join(l))).collect();
    for file in files.iter().filter(|f| **f != summary && !listed.contains(*f)) {
        errors.push(format!("{} is not in SUMMARY.md", file.display()));
    }
    for name in ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"] {
        files.push(root.join(name));
    }
    for file in &files {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let folder = file.parent().context("a file is in a folder")?;
        for link in links(&text) {
            let target = normal(&folder.join(link.split('#').next().unwrap_or_default()));
            if !target.exists() {
                errors.push(format!("{} links to {link}, which does not exist", file.display()));
            }
        }
    }
    Ok(errors)
}

fn markdown_files(folder: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            markdown_files(&path, into)?;
        } else if path.extension().is_some_and(|e| e == "md") {
            into.push(normal(&path));
        }
    }
    Ok(())
}

/// Targets of the inline links and images of a Markdown text that lead to files, outside code.
fn links(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        }
        if in_block {
            continue;
        }
        // Every second part between back-quotes is code.
        for prose in line.split('`').step_by(2) {
            found.extend(
                prose.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target)),
            );
        }
        // A link whose text is code is cut apart by that: "[`x`](target)".
        found.extend(
            line.split("`](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target)),
        );
    }
    found.sort_unstable();
    found.dedup();
    found.retain(|l| !l.is_empty() && !l.starts_with('#') && !l.contains("://") && !l.starts_with("mailto:"));
    found
}

/// `path` without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut done, part| {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                done.pop();
            }
            other => done.push(other),
        }
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_code() {
        let text = "[a](b.md#c) and ![i](i.svg), `[no](code)`\n```\n[no](block)\n```\n[`t`](d.md) [w](https://e.org) [h](#h)";
        assert_eq!(links(text), ["b.md#c", "d.md", "i.svg"]);
    }

    #[test]
    fn the_book_of_this_repository_is_whole() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        assert_eq!(check(root).unwrap(), Vec::<String>::new());
    }
}

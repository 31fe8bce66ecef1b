//! `cargo xtask book`: builds the book, and checks that every chapter is listed and every local link leads
//! somewhere.
//!
//! Links of the book are checked in the pages that mdbook makes, anchors included; those of other Markdown
//! files where they stand. Links to other sites are not followed.

use crate::tools;
use anyhow::{Context, Result, bail, ensure};
use html5gum::{Token, Tokenizer};
use percent_encoding::percent_decode_str;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

/// Builds the book and checks it.
pub(crate) fn run() -> Result<()> {
    let root = tools::root()?;
    let mut errors = check_sources(root)?;
    let mdbook = tools::MDBOOK.find()?;
    // What an earlier build left would hide a link to a page that is gone.
    let html = root.join("docs/book");
    if html.exists() {
        fs::remove_dir_all(&html).with_context(|| format!("cannot remove {}", html.display()))?;
    }
    tools::run(Command::new(mdbook).arg("build").arg(root.join("docs")), "mdbook")?;
    let pages = pages(&html)?;
    ensure!(pages.len() > 1, "mdbook made no pages in {}", html.display());
    errors.extend(check_pages(&html, &pages));
    if !errors.is_empty() {
        bail!("the book has errors:\n  {}", errors.join("\n  "));
    }
    println!("book: {} pages; every chapter is listed and every local link leads somewhere", pages.len());
    Ok(())
}

/// What is wrong with the list of chapters and with the links of the Markdown files: one line each.
fn check_sources(root: &Path) -> Result<Vec<String>> {
    let source = root.join("docs/src");
    let summary = source.join("SUMMARY.md");
    let mut files = Vec::new();
    files_with_ending(&root.join("docs"), "md", &mut files)?;
    for name in ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"] {
        files.push(root.join(name));
    }
    let mut texts = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        texts.insert(normal(&file), markdown(&text));
    }
    let listed: BTreeSet<PathBuf> = texts
        .get(&summary)
        .into_iter()
        .flat_map(|s| &s.links)
        .map(|link| normal(&source.join(link)))
        .collect();
    let mut errors = Vec::new();
    for (file, text) in &texts {
        let in_book = file.starts_with(&source);
        if in_book && *file != summary && !listed.contains(file) {
            errors.push(format!("{} is not in SUMMARY.md", file.display()));
        }
        let folder = file.parent().context("a file is in a folder")?;
        for link in text.links.iter().filter(|link| is_local(link)) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { file.clone() } else { normal(&folder.join(path)) };
            if !target.exists() {
                errors.push(format!("{} links to {link}, which does not exist", file.display()));
                continue;
            }
            // Anchors of the book are checked in its pages.
            let anchors = texts.get(&target).filter(|_| !in_book && !anchor.is_empty()).map(|t| &t.anchors);
            if anchors.is_some_and(|anchors| !anchors.contains(anchor)) {
                errors.push(format!("{} links to {link}, where there is no such heading", file.display()));
            }
        }
    }
    Ok(errors)
}

/// Links and anchors of a text.
#[derive(Default)]
struct Text {
    links: BTreeSet<String>,
    anchors: BTreeSet<String>,
}

/// The links and images of a Markdown text, and the anchors of its headings.
fn markdown(text: &str) -> Text {
    let mut found = Text::default();
    let mut heading: Option<String> = None;
    for event in Parser::new_ext(text, Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES) {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                found.links.insert(dest_url.into_string());
            }
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::Text(part) | Event::Code(part) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&part);
                }
            }
            Event::End(TagEnd::Heading(_)) => {
                let anchor = anchor(&heading.take().unwrap_or_default());
                let unique = (0..).map(|n| if n == 0 { anchor.clone() } else { format!("{anchor}-{n}") });
                let free = unique.into_iter().find(|a| !found.anchors.contains(a));
                found.anchors.extend(free);
            }
            _ => {}
        }
    }
    found
}

/// The anchor of a heading, as code hosts and mdbook make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The pages of the book, by their files.
fn pages(folder: &Path) -> Result<BTreeMap<PathBuf, Text>> {
    let mut files = Vec::new();
    files_with_ending(folder, "html", &mut files)?;
    let mut pages = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        pages.insert(normal(&file), page(&text));
    }
    Ok(pages)
}

/// The links and anchors of an HTML page.
fn page(text: &str) -> Text {
    let mut found = Text::default();
    for Ok(token) in Tokenizer::new(text) {
        let Token::StartTag(tag) = token else { continue };
        for (name, value) in tag.attributes {
            let value = String::from_utf8_lossy(&value).into_owned();
            match &**name {
                b"href" | b"src" => found.links.insert(value),
                b"id" => found.anchors.insert(value),
                _ => continue,
            };
        }
    }
    found
}

/// What is wrong with the links of the pages in `folder`: one line each.
fn check_pages(folder: &Path, pages: &BTreeMap<PathBuf, Text>) -> Vec<String> {
    let mut errors = Vec::new();
    // One has all chapters in one page, where links to anchors of one chapter meet those of others; one has
    // addresses from the server's root.
    let left_out = ["print.html", "404.html"].map(|name| folder.join(name));
    for (file, page) in pages.iter().filter(|(file, _)| !left_out.contains(file)) {
        for link in page.links.iter().filter(|link| is_local(link)) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
            let path = decode(path.split('?').next().unwrap_or_default());
            let target = match (path.as_str(), file.parent()) {
                ("", _) | (_, None) => file.clone(),
                (path, Some(folder)) => normal(&folder.join(path)),
            };
            let shown = file.strip_prefix(folder).unwrap_or(file).display();
            if !target.starts_with(folder) {
                errors.push(format!("{shown} links to {link}, which is outside the book"));
            } else if !pages.contains_key(&target) && !target.exists() {
                errors.push(format!("{shown} links to {link}, which does not exist"));
            } else if !anchor.is_empty()
                && pages.get(&target).is_some_and(|p| !p.anchors.contains(&decode(anchor)))
            {
                errors.push(format!("{shown} links to {link}, where there is no such anchor"));
            }
        }
    }
    errors
}

/// Whether a link leads to a file of ours.
fn is_local(link: &str) -> bool {
    let scheme = link.split(['/', '#', '?']).next().is_some_and(|start| start.contains(':'));
    !(link.is_empty() || scheme || link.starts_with("//"))
}

/// All files below `folder` with an ending, without those of the built book in it.
fn files_with_ending(folder: &Path, ending: &str, into: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("docs/book") {
            files_with_ending(&path, ending, into)?;
        } else if path.extension().is_some_and(|e| e == ending) {
            into.push(normal(&path));
        }
    }
    Ok(())
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

    fn set(of: &[&str]) -> BTreeSet<String> {
        of.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn links_and_headings_of_markdown() {
        let text = markdown(
            "# One `two`: three\n[a](b.md#c) and ![i](i.svg), `[no](code)`\n```\n[no](block)\n```\n\
             [`t`](d.md) [w](https://e.org) [h](#h)\n\n# Same\n\n# Same\n",
        );
        assert_eq!(text.links, set(&["#h", "b.md#c", "d.md", "https://e.org", "i.svg"]));
        assert_eq!(text.anchors, set(&["one-two-three", "same", "same-1"]));
    }

    #[test]
    fn only_links_to_other_sites_are_not_local() {
        for link in ["a.md", "#h", "a/b.html#c:d", "../a"] {
            assert!(is_local(link), "{link}");
        }
        for link in ["", "https://e.org", "mailto:a@b", "//e.org/x", "data:image/png;base64,AA"] {
            assert!(!is_local(link), "{link}");
        }
    }

    #[test]
    fn links_of_pages_lead_somewhere() {
        let folder = Path::new("/nowhere");
        let one = "<a href=\"two.html#there\">x</a> <a href='two.html#gone'> <a href=\"#%C2%A7\"> <h1 id=\"§\">\
                   <pre>&lt;a href=\"code\"&gt;</pre> <img src=\"../out.png\"> <a href=\"https://e.org/x\">";
        let pages = BTreeMap::from([
            (folder.join("one.html"), page(one)),
            (folder.join("two.html"), page("<p id=there>")),
        ]);
        assert_eq!(
            check_pages(folder, &pages),
            [
                "one.html links to ../out.png, which is outside the book",
                "one.html links to two.html#gone, where there is no such anchor",
            ]
        );
    }

    #[test]
    fn the_book_of_this_repository_is_whole() {
        assert_eq!(check_sources(tools::root().unwrap()).unwrap(), Vec::<String>::new());
    }
}

//! The file of digests: a line per case with its name, digest, packets and events.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use umptcp_testkit::digest::Summary;

/// What came of each case, by name.
pub(super) type Digests = BTreeMap<String, Summary>;

/// The first lines of the file.
const HEAD: &str = "\
# What `cargo xtask digest` compares with: case, digest of every packet and event, packets, events.
# Made by `cargo xtask digest --record`.
";

/// The line of a case.
pub(super) fn line(name: &str, summary: &Summary) -> String {
    format!("{name}  {}  {}  {}", summary.digest, summary.packets, summary.events)
}

fn parse(line: &str) -> Option<(String, Summary)> {
    let mut fields = line.rsplitn(4, "  ");
    let events = fields.next()?.parse().ok()?;
    let packets = fields.next()?.parse().ok()?;
    let digest = fields.next()?.to_string();
    Some((fields.next()?.to_string(), Summary { digest, packets, events }))
}

/// Reads the file.
pub(super) fn read(file: &Path) -> Result<Digests> {
    let text = fs::read_to_string(file).with_context(|| {
        format!("cannot read {}; `cargo xtask digest --record` writes it", file.display())
    })?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| parse(line).with_context(|| format!("{}: {line:?}", file.display()))).collect()
}

/// Writes the file; the stored cases that were not `wanted` stay as they are.
pub(super) fn write(file: &Path, mut found: Digests, wanted: impl Fn(&str) -> bool) -> Result<()> {
    if file.exists() {
        let stored = read(file)?;
        found.extend(stored.into_iter().filter(|(name, _)| !wanted(name)));
    }
    let mut text = HEAD.to_string();
    for (name, summary) in &found {
        writeln!(text, "{}", line(name, summary))?;
    }
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    println!("digest: wrote {}", file.display());
    Ok(())
}

/// A line for each case that is not the same in both.
pub(super) fn differences(stored: &Digests, found: &Digests) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (name, now) in found {
        match stored.get(name) {
            None => lines.push(format!("{name}: not stored")),
            Some(before) if before != now => lines.push(format!(
                "{name}: {} packets and {} events, stored {} and {}",
                now.packets, now.events, before.packets, before.events
            )),
            Some(_) => {}
        }
    }
    let gone = stored.keys().filter(|name| !found.contains_key(*name));
    lines.extend(gone.map(|name| format!("{name}: stored, but there is no such case")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(digest: &str, packets: u64) -> Summary {
        Summary { digest: digest.to_string(), packets, events: 7 }
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let name = "middleboxes/NAT, checksums off, both paths";
        let summary = summary("0123456789abcdef", 12);
        assert_eq!(parse(&line(name, &summary)), Some((name.to_string(), summary)));
        assert_eq!(parse("name  0123  x  3"), None);
    }

    #[test]
    fn whatever_differs_is_named() {
        let a = |name: &str, digest, packets| (name.to_string(), summary(digest, packets));
        let stored = Digests::from([a("same", "11", 1), a("changed", "22", 2), a("gone", "33", 3)]);
        let found = Digests::from([a("same", "11", 1), a("changed", "23", 2), a("new", "44", 4)]);
        let lines = differences(&stored, &found);
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("changed: 2 packets and 7 events, stored 2 and 7"));
        assert!(lines[1].starts_with("new: not stored"));
        assert!(lines[2].starts_with("gone: stored"));
        assert!(differences(&stored, &stored).is_empty());
    }
}

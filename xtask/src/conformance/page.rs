//! The page made of the table.

use super::table::{KEYWORDS, Requirement, State, Table};
use std::fmt::Write;

const HEAD: &str = "\
<!-- Made by `cargo xtask conformance` from docs/conformance/*.toml. Do not edit. -->

# Conformance to RFC 8684

Every requirement of [RFC 8684](https://www.rfc-editor.org/rfc/rfc8684) (Multipath TCP, version 1) in our own words: what
stands in capitals there (MUST, SHOULD, MAY, RECOMMENDED), each one, and rules without a key word on which others rest. Beside each: how
it stands, where it is done, and the tests that prove it. `cargo xtask conformance --check` fails when a place or test named here is
gone, and when the key words of a section are not all covered.

";

fn word(state: State) -> &'static str {
    match state {
        State::Met => "met",
        State::Partly => "**partly**",
        State::NotMet => "**not met**",
        State::Declined => "not done",
        State::NotApplicable => "does not apply",
    }
}

/// The page's text.
pub(super) fn render(table: &Table) -> String {
    let mut page = HEAD.to_owned();
    summary(table, &mut page);
    for section in &table.sections {
        let mut rows = table.requirements.iter().filter(|r| r.section == section.number).peekable();
        if rows.peek().is_none() {
            continue;
        }
        let kind =
            if section.number.starts_with(|c: char| c.is_ascii_digit()) { "Section" } else { "Appendix" };
        let _ = writeln!(page, "\n## {kind} {}: {}\n", section.number, section.title);
        page.push_str("| | requirement | | where | tests |\n|---|---|---|---|---|\n");
        for r in rows {
            row(table, r, &mut page);
        }
    }
    page
}

fn summary(table: &Table, page: &mut String) {
    let states = [State::Met, State::Partly, State::NotMet, State::Declined, State::NotApplicable];
    page.push_str("| |");
    for state in states {
        let _ = write!(page, " {} |", word(state));
    }
    page.push_str("\n|---|");
    page.push_str(&"--:|".repeat(states.len()));
    for keyword in KEYWORDS.iter().map(Some).chain([None]) {
        let count = |state| {
            let fitting = table.requirements.iter().filter(|r| r.state == state);
            match keyword {
                Some(k) => fitting.map(|r| r.words.iter().filter(|w| w == k).count()).sum(),
                None => fitting.filter(|r| r.words.is_empty()).count(),
            }
        };
        let counts: Vec<usize> = states.iter().map(|s| count(*s)).collect();
        if counts.iter().sum::<usize>() > 0 {
            let _ = write!(page, "\n| {} |", keyword.map_or("no key word", |k| k));
            for n in counts {
                let _ = write!(page, " {n} |");
            }
        }
    }
    page.push('\n');
}

fn row(table: &Table, r: &Requirement, page: &mut String) {
    let cell = |text: &str| text.trim().replace('|', "\\|").replace('\n', " ");
    let mut text = cell(&r.text);
    if !r.note.is_empty() {
        let _ = write!(text, "<br>*{}*", cell(&r.note));
    }
    let _ = writeln!(
        page,
        "| {} | {text} | {} | {} | {} |",
        r.words.join(", "),
        word(r.state),
        citations(table, &r.code),
        citations(table, &r.tests)
    );
}

/// `file.rs`: items, for each file in turn.
fn citations(table: &Table, list: &[String]) -> String {
    let mut files: Vec<(&str, Vec<&str>)> = Vec::new();
    for (path, item) in list.iter().filter_map(|c| table.places.resolve(c).ok()) {
        match files.iter_mut().find(|(known, _)| *known == path) {
            Some((_, items)) => items.push(item),
            None => files.push((path, vec![item])),
        }
    }
    let one = |(path, items): &(&str, Vec<&str>)| {
        let items: Vec<String> = items.iter().map(|i| format!("`{i}`")).collect();
        format!("{}: {}", short(path), items.join(", "))
    };
    files.iter().map(one).collect::<Vec<_>>().join("<br>")
}

/// A path without what every path has.
fn short(path: &str) -> String {
    path.replace("crates/", "").replace("/src/", "/").replace("tests/tests/", "")
}

#[cfg(test)]
mod tests {
    use super::super::places::Places;
    use super::super::table::Section;
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_row_has_its_places_and_tests() {
        let places = BTreeMap::from([
            ("input".to_owned(), "crates/stack-core/src/mptcp/input.rs".to_owned()),
            ("pair".to_owned(), "crates/netsim/tests/pair.rs".to_owned()),
        ]);
        let table = Table {
            sections: vec![Section { number: "3.3".into(), title: "Data".into(), keywords: BTreeMap::new() }],
            requirements: vec![Requirement {
                section: "3.3".into(),
                words: vec!["MUST".into()],
                text: "this | that".into(),
                state: State::Partly,
                code: vec!["input#on_dss".into(), "input#on_mapping".into()],
                tests: vec!["pair#some".into()],
                note: "only this".into(),
            }],
            places: Places::new(places),
        };
        let page = render(&table);
        assert!(page.contains("\n| MUST | 0 | 1 | 0 | 0 | 0 |\n"), "{page}");
        assert!(page.ends_with(
            "## Section 3.3: Data\n\n| | requirement | | where | tests |\n|---|---|---|---|---|\n\
             | MUST | this \\| that<br>*only this* | **partly** | stack-core/mptcp/input.rs: `on_dss`, `on_mapping` | \
             netsim/tests/pair.rs: `some` |\n"
        ), "{page}");
    }
}

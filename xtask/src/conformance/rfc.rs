//! Counts the key words in the RFC's text, to check the counts in `keywords.toml`.

use super::table::{KEYWORDS, Section};
use std::collections::{BTreeMap, BTreeSet};

/// Key words per section.
pub(super) type Counts = BTreeMap<String, BTreeMap<&'static str, usize>>;

/// The number of the section whose heading `line` is.
fn heading(line: &str) -> Option<&str> {
    if let Some(rest) = line.strip_prefix("Appendix ") {
        return rest.split_once(".  ").map(|(number, _)| number);
    }
    let (number, title) = line.split_once(".  ")?;
    let mut parts = number.split('.');
    let first = parts.next()?;
    let first_ok = first.chars().all(|c| c.is_ascii_digit())
        || first.len() == 1 && first.starts_with(|c: char| c.is_ascii_uppercase());
    let rest_ok = parts.all(|p| !p.is_empty() && p.chars().all(|c| c.is_ascii_digit()));
    (!first.is_empty() && first_ok && rest_ok && title.starts_with(|c: char| c.is_ascii_uppercase()))
        .then_some(number)
}

/// The head or the foot of a page.
fn is_margin(line: &str, number: u16) -> bool {
    line.strip_prefix(&format!("RFC {number} "))
        .is_some_and(|rest| rest.starts_with(' ') && !rest.trim().is_empty())
        || line.trim_end().ends_with(']') && line.contains("  [Page ")
}

/// Counts the key words of the body of RFC `number`: from the first heading at the left margin on, page heads and
/// feet left out, and the section that defines the key words.
pub(super) fn count(text: &str, number: u16, definitions: &str) -> Counts {
    let mut words: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut section = None;
    for line in text.lines().map(|l| l.trim_matches(['\r', '\u{c}'])) {
        if is_margin(line, number) {
            continue;
        }
        if let Some(number) = heading(line) {
            section = Some(number.to_owned());
        }
        if let Some(section) = &section {
            words.entry(section.clone()).or_default().extend(line.split_whitespace());
        }
    }
    let mut counts = Counts::new();
    for (section, words) in words {
        if section == definitions {
            continue;
        }
        let bare: Vec<&str> = words.iter().map(|w| w.trim_matches(|c: char| !c.is_alphanumeric())).collect();
        let mut i = 0;
        while i < bare.len() {
            let two = bare.get(i + 1).map(|next| format!("{} {next}", bare[i]));
            let found = KEYWORDS.iter().find(|k| two.as_deref() == Some(**k) || bare[i] == **k);
            if let Some(word) = found {
                *counts.entry(section.clone()).or_default().entry(word).or_default() += 1;
                i += usize::from(word.contains(' '));
            }
            i += 1;
        }
    }
    counts
}

/// The requirements that the text numbers itself: "MUST-1" and so on.
pub(super) fn numbers(text: &str) -> BTreeSet<String> {
    let mut numbers = BTreeSet::new();
    // A number may stand on the line after its kind.
    let words: Vec<&str> =
        text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
    for pair in words.windows(2) {
        let kind = ["MUST", "SHLD", "MAY", "REC"].contains(&pair[0]);
        if kind && pair[1].chars().all(|c| c.is_ascii_digit()) {
            numbers.insert(format!("{}-{}", pair[0], pair[1]));
        }
    }
    numbers
}

/// Differences between these and the numbers in `keywords.toml`: one line each.
pub(super) fn compare_numbers(found: &BTreeSet<String>, kept: &[Section]) -> Vec<String> {
    let mut errors = Vec::new();
    for number in found {
        let times: usize = kept.iter().filter_map(|s| s.keywords.get(number)).sum();
        if times != 1 {
            errors.push(format!("{number} of the text stands {times} times in keywords.toml"));
        }
    }
    for number in kept.iter().flat_map(|s| s.keywords.keys()).filter(|n| !found.contains(*n)) {
        errors.push(format!("the text has no {number}"));
    }
    errors
}

/// Differences between the counted key words and those in `keywords.toml`: one line each.
pub(super) fn compare(counted: &Counts, kept: &[Section]) -> Vec<String> {
    let empty = BTreeMap::new();
    let mut errors = Vec::new();
    for section in counted.keys().filter(|s| !kept.iter().any(|k| k.number == **s)) {
        errors.push(format!("keywords.toml lacks section {section}"));
    }
    for section in kept {
        let here = counted.get(&section.number).unwrap_or(&empty);
        for word in KEYWORDS {
            let (text, table) = (here.get(word), section.keywords.get(*word));
            if text != table {
                errors.push(format!(
                    "section {}: {word} occurs {} times in the text, {} times in keywords.toml",
                    section.number,
                    text.unwrap_or(&0),
                    table.unwrap_or(&0)
                ));
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "   1.  Introduction ....... 3\n1.5.  Requirements\n   MUST, SHOULD\n2.  First\n   It MUST\n\nFord, et al.   MUST   [Page 9]\nRFC 8684   MUST   March 2020\n   NOT do. It MUST do \"MAY\".\n\
                        Appendix B.  Last\nB.1.  Sub\n   RECOMMENDED (NOT RECOMMENDED).\n";

    #[test]
    fn key_words_are_found_across_lines_and_pages() {
        let counts = count(TEXT, 8684, "1.5");
        assert_eq!(counts["2"], BTreeMap::from([("MUST NOT", 1), ("MUST", 1), ("MAY", 1)]));
        assert_eq!(counts["B.1"], BTreeMap::from([("RECOMMENDED", 1), ("NOT RECOMMENDED", 1)]));
        assert_eq!(counts.len(), 2);
    }

    #[test]
    fn differences_are_named() {
        let keywords =
            BTreeMap::from([("MUST".to_owned(), 2), ("MUST NOT".to_owned(), 1), ("MAY".to_owned(), 1)]);
        let kept = [Section { number: "2".into(), title: "First".into(), keywords }];
        let errors = compare(&count(TEXT, 8684, "1.5"), &kept);
        assert_eq!(
            errors,
            [
                "keywords.toml lacks section B.1",
                "section 2: MUST occurs 1 times in the text, 2 times in keywords.toml"
            ]
        );
    }

    #[test]
    fn numbers_are_found_across_lines() {
        let text = "It MUST do so (MUST-1), and SHOULD that (SHLD-\n   12). It MUST. A MAY-3; 1 MUST 2nd.";
        let found = numbers(text);
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), ["MAY-3", "MUST-1", "SHLD-12"]);
        let keywords = BTreeMap::from([("MUST-1".to_owned(), 1), ("MUST-2".to_owned(), 1)]);
        let kept = [Section { number: "2".into(), title: "First".into(), keywords }];
        assert_eq!(compare_numbers(&found, &kept).len(), 3);
    }
}

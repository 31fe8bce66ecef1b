//! The table of requirements: reads and checks it.

use super::places::{Kind, Places};
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Short names of files, from the root.
const PLACES: &str = "docs/conformance/places.toml";

/// The key words of BCP 14, each with those it contains after it.
pub(super) const KEYWORDS: &[&str] = &[
    "MUST NOT",
    "MUST",
    "SHALL NOT",
    "SHALL",
    "SHOULD NOT",
    "SHOULD",
    "NOT RECOMMENDED",
    "RECOMMENDED",
    "REQUIRED",
    "MAY",
    "OPTIONAL",
];

/// An RFC, and where what is said of it stands.
#[derive(Debug)]
pub(super) struct Document {
    /// Its number.
    pub(super) number: u16,
    /// The folder of the requirements, from the root.
    pub(super) source: &'static str,
    /// The folder of the pages, from the book's source folder; the summary has its name, too.
    pub(super) pages: &'static str,
    /// What the RFC is about.
    pub(super) about: &'static str,
    /// It numbers its requirements itself (MUST-1), and these numbers stand for key words.
    pub(super) numbered: bool,
    /// Everything is on one page, the summary.
    pub(super) one_page: bool,
    /// The section that says what the key words mean; they do not count there.
    pub(super) definitions: &'static str,
}

/// An RFC with few requirements.
const fn short(
    number: u16,
    (source, pages): (&'static str, &'static str),
    about: &'static str,
    definitions: &'static str,
) -> Document {
    Document { number, source, pages, about, numbered: false, one_page: true, definitions }
}

/// Those of which there is a report.
pub(super) const DOCUMENTS: &[Document] = &[
    Document {
        number: 8684,
        source: "docs/conformance",
        pages: "conformance",
        about: "Multipath TCP, version 1",
        numbered: false,
        one_page: false,
        definitions: "1.5",
    },
    Document {
        number: 9293,
        source: "docs/conformance/rfc9293",
        pages: "conformance-tcp",
        about: "TCP",
        numbered: true,
        one_page: false,
        definitions: "",
    },
    short(
        5961,
        ("docs/conformance/rfc5961", "conformance-rfc5961"),
        "Improving TCP's robustness to blind in-window attacks",
        "2",
    ),
    short(
        7323,
        ("docs/conformance/rfc7323", "conformance-rfc7323"),
        "TCP extensions for high performance: window scale and timestamps",
        "1.4",
    ),
    short(7413, ("docs/conformance/rfc7413", "conformance-rfc7413"), "TCP Fast Open", "1.1"),
    short(
        6356,
        ("docs/conformance/rfc6356", "conformance-rfc6356"),
        "Coupled congestion control for multipath transport protocols",
        "2",
    ),
    short(
        8985,
        ("docs/conformance/rfc8985", "conformance-rfc8985"),
        "The RACK-TLP loss detection algorithm for TCP",
        "2",
    ),
];

/// A section of the RFC.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    /// Its number: "3.4.1", or "B.2" in an appendix.
    pub(super) number: String,
    /// Its title.
    pub(super) title: String,
    /// How often each key word occurs in it.
    #[serde(default)]
    pub(super) keywords: BTreeMap<String, usize>,
}

/// Whether a requirement is met.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// Met.
    Met,
    /// Partly met; the note says which part.
    Partly,
    /// Not met.
    NotMet,
    /// A permission or recommendation that umptcp does not follow; the note says why.
    Declined,
    /// Cannot apply to this implementation; the note says why.
    NotApplicable,
}

/// One requirement of the RFC.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Requirement {
    /// Its section.
    pub(super) section: String,
    /// The key words it covers, one per occurrence in the RFC; none for a rule without a key word.
    #[serde(default)]
    pub(super) words: Vec<String>,
    /// What the RFC requires, in our own words.
    pub(super) text: String,
    /// Whether it is met.
    pub(super) state: State,
    /// The code that implements it: `place#item`.
    #[serde(default)]
    pub(super) code: Vec<String>,
    /// The tests that verify it: `place#test`.
    #[serde(default)]
    pub(super) tests: Vec<String>,
    /// Changes of the cited code that take away just this, each of which a cited test must notice; without any
    /// the cited functions are broken as `--break` knows how.
    #[serde(default)]
    pub(super) breaks: Vec<Break>,
    /// Further explanation: why it is not met, or why it needs no test.
    #[serde(default)]
    pub(super) note: String,
}

/// A change of the code that takes a requirement away.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Break {
    /// Where: `place#function`, or `place#item` for what stands in no function.
    pub(super) at: String,
    /// What is replaced; it stands there once.
    pub(super) from: String,
    /// By what.
    pub(super) to: String,
}

/// Everything that is said of one RFC.
#[derive(Debug)]
pub(super) struct Table {
    /// The RFC.
    pub(super) document: &'static Document,
    /// The sections, in the RFC's order.
    pub(super) sections: Vec<Section>,
    /// The requirements, in the order of the files and within them.
    pub(super) requirements: Vec<Requirement>,
    /// Short names of files.
    pub(super) places: Places,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeywordFile {
    section: Vec<Section>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequirementFile {
    requirement: Vec<Requirement>,
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is invalid", path.display()))
}

impl Table {
    /// Reads what is said of `document`. The short names of files are those of all documents.
    pub(super) fn read(root: &Path, document: &'static Document) -> Result<Table> {
        let folder = &root.join(document.source);
        let keywords: KeywordFile = parse(&folder.join("keywords.toml"))?;
        let places = Places::new(parse(&root.join(PLACES))?);
        let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let mut files: Vec<_> = entries.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
        let fixed = ["keywords.toml", "places.toml"].map(|name| folder.join(name));
        files.retain(|f| f.extension().is_some_and(|e| e == "toml") && !fixed.contains(f));
        files.sort();
        let mut requirements = Vec::new();
        for file in &files {
            requirements.extend(parse::<RequirementFile>(file)?.requirement);
        }
        Ok(Table { document, sections: keywords.section, requirements, places })
    }

    /// The errors in it, one line each. `root` is the repository's root.
    pub(super) fn check(&self, root: &Path) -> Vec<String> {
        let mut errors = self.check_keywords();
        for r in &self.requirements {
            let wrong = |what: String| format!("section {}, \"{}\": {what}", r.section, r.text);
            errors.extend(check_state(r).map(|e| wrong(e.to_owned())));
            for (list, kind) in [(&r.code, Kind::Item), (&r.tests, Kind::Test)] {
                errors.extend(list.iter().filter_map(|c| self.places.find(root, c, kind).err()).map(&wrong));
            }
        }
        errors
    }

    /// What is cited.
    pub(super) fn citations(&self) -> impl Iterator<Item = &String> {
        self.requirements
            .iter()
            .flat_map(|r| r.code.iter().chain(&r.tests).chain(r.breaks.iter().map(|b| &b.at)))
    }

    /// The key words that count here.
    pub(super) fn words(&self) -> Vec<&str> {
        if !self.document.numbered {
            return KEYWORDS.to_vec();
        }
        let numbers: BTreeSet<&str> =
            self.sections.iter().flat_map(|s| s.keywords.keys().map(String::as_str)).collect();
        numbers.into_iter().collect()
    }

    /// Every key word of every section is covered exactly once.
    fn check_keywords(&self) -> Vec<String> {
        let words = self.words();
        let mut covered: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        let mut errors = Vec::new();
        for r in &self.requirements {
            if !self.sections.iter().any(|s| s.number == r.section) {
                errors.push(format!("\"{}\": keywords.toml has no section {}", r.text, r.section));
            }
            for word in &r.words {
                if !words.contains(&word.as_str()) {
                    errors.push(format!("section {}, \"{}\": {word} is not a key word", r.section, r.text));
                }
                *covered.entry((&r.section, word)).or_default() += 1;
            }
        }
        for s in &self.sections {
            for word in &words {
                let stands = s.keywords.get(*word).copied().unwrap_or(0);
                let here = covered.get(&(s.number.as_str(), *word)).copied().unwrap_or(0);
                if stands != here {
                    let n = &s.number;
                    errors.push(format!(
                        "section {n}: {word} occurs {stands} times, the requirements cover {here}"
                    ));
                }
            }
        }
        errors
    }
}

/// What a requirement lacks for its state.
fn check_state(r: &Requirement) -> Option<&'static str> {
    let (code, tests, note) = (!r.code.is_empty(), !r.tests.is_empty(), !r.note.is_empty());
    match r.state {
        State::Met if !code && !note => Some("met, but neither code nor a note is given"),
        State::Met if !tests && !note => Some("met, but neither a test nor a note is given"),
        State::Partly if !note => Some("partly met, but the note does not say which part"),
        State::NotMet | State::Declined | State::NotApplicable if !note => Some("the note does not say why"),
        State::NotMet | State::NotApplicable if tests => Some("not met, but tests are given"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(words: &[&str]) -> Table {
        let keywords = BTreeMap::from([("MUST".to_owned(), 2), ("MAY".to_owned(), 1)]);
        let section = Section { number: "3.1".into(), title: "Title".into(), keywords };
        let requirement = Requirement {
            section: "3.1".into(),
            words: words.iter().map(|w| (*w).to_owned()).collect(),
            text: "it does".into(),
            state: State::Declined,
            code: Vec::new(),
            tests: Vec::new(),
            breaks: Vec::new(),
            note: "why".into(),
        };
        Table {
            document: &DOCUMENTS[0],
            sections: vec![section],
            requirements: vec![requirement],
            places: Places::new(BTreeMap::new()),
        }
    }

    #[test]
    fn key_words_are_counted() {
        assert_eq!(table(&["MUST", "MUST", "MAY"]).check_keywords(), Vec::<String>::new());
        assert_eq!(
            table(&["MUST", "MAY"]).check_keywords(),
            ["section 3.1: MUST occurs 2 times, the requirements cover 1"]
        );
        assert_eq!(table(&["MUST", "MUST", "MAY", "SHALL"]).check_keywords().len(), 1);
        assert_eq!(table(&["MUST", "MUST", "MAY", "WILL"]).check_keywords().len(), 1);
    }

    #[test]
    fn a_state_needs_its_reasons() {
        let mut t = table(&[]);
        let r = &mut t.requirements[0];
        assert_eq!(check_state(r), None);
        r.note.clear();
        assert!(check_state(r).is_some());
        r.state = State::Met;
        r.code.push("a#b".into());
        assert!(check_state(r).is_some());
        r.tests.push("a#c".into());
        assert_eq!(check_state(r), None);
        r.state = State::NotMet;
        r.note = "why".into();
        assert!(check_state(r).is_some());
    }
}

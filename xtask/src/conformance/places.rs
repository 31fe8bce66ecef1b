//! Places in the source: short names of files, and whether a cited item or test exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// What a citation names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A function, type, constant, field or variant.
    Item,
    /// A test.
    Test,
}

/// Short names of files.
#[derive(Debug)]
pub(super) struct Places(BTreeMap<String, String>);

impl Places {
    /// `names`: short name to path from the repository's root.
    pub(super) fn new(names: BTreeMap<String, String>) -> Self {
        Places(names)
    }

    /// The path and item of a citation `place#item`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn resolve<'a>(&'a self, citation: &'a str) -> Result<(&'a str, &'a str), String> {
        let (place, item) = citation
            .split_once('#')
            .ok_or_else(|| format!("{citation} does not have the form place#item"))?;
        let path = self.0.get(place).ok_or_else(|| format!("places.toml has no {place}"))?;
        Ok((path, item))
    }

    /// Looks for what `citation` names.
    ///
    /// # Errors
    /// What is missing.
    pub(super) fn find(&self, root: &Path, citation: &str, kind: Kind) -> Result<(), String> {
        let (path, item) = self.resolve(citation)?;
        let text = fs::read_to_string(root.join(path)).map_err(|e| format!("{path}: {e}"))?;
        match kind {
            Kind::Item if has_item(&text, item) => Ok(()),
            Kind::Item => Err(format!("{path} has no {item}")),
            Kind::Test if has_test(&text, item) => Ok(()),
            Kind::Test => Err(format!("{path} has no test {item}")),
        }
    }

    /// Names that no citation uses.
    pub(super) fn unused<'a>(&self, citations: impl Iterator<Item = &'a String>) -> Vec<String> {
        let used: BTreeSet<&str> = citations.filter_map(|c| Some(c.split_once('#')?.0)).collect();
        let unused = self.0.keys().filter(|name| !used.contains(name.as_str()));
        unused.map(|name| format!("places.toml: nothing cites {name}")).collect()
    }
}

/// Words after which a name is defined.
const DEFINE: &[&str] = &["fn", "struct", "enum", "const", "static", "trait", "type", "mod", "macro_rules!"];

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// What follows `name` in `line`, when the line begins with it.
fn after<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.strip_prefix(name).filter(|rest| !rest.starts_with(is_name))
}

/// Whether `line` defines `item`: by a word of [`DEFINE`], or as a field or variant at its beginning.
fn defines(line: &str, item: &str) -> bool {
    let line = line.trim_start();
    if line.starts_with("//") {
        return false;
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    if words.windows(2).any(|w| DEFINE.contains(&w[0]) && after(w[1], item).is_some()) {
        return true;
    }
    let bare = line.strip_prefix("pub(crate) ").or(line.strip_prefix("pub ")).unwrap_or(line);
    after(bare, item).is_some_and(|rest| {
        let rest = rest.trim_end();
        rest == ","
            || rest.starts_with(": ")
            || rest.starts_with(" {")
            || rest.starts_with('(') && rest.ends_with("),")
    })
}

fn has_item(text: &str, item: &str) -> bool {
    text.lines().any(|line| defines(line, item))
}

/// Whether `text` has a test of that name: a function under `#[test]`, or an entry `name: …` of a macro that
/// makes tests.
fn has_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().collect();
    let is_function = |i: usize| {
        let words: Vec<&str> = lines[i].split_whitespace().collect();
        let here = words.windows(2).any(|w| w[0] == "fn" && after(w[1], name).is_some());
        // Its attributes and comments stand above it.
        let above = lines[..i].iter().rev().map(|l| l.trim()).take_while(|l| {
            l.starts_with("#[") || l.starts_with("//") || l.ends_with(']') || l.starts_with("#!")
        });
        here && above.into_iter().any(|l| l.starts_with("#[") && l.contains("test"))
    };
    let makes_tests = text.contains("macro_rules!") && text.contains("#[test]");
    let is_entry =
        |l: &str| makes_tests && after(l.trim_start(), name).is_some_and(|rest| rest.starts_with(": "));
    (0..lines.len()).any(is_function) || lines.iter().any(|l| is_entry(l))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_found_by_their_definition_only() {
        let text = "impl A {\n    pub(crate) fn on_dss(&self) {}\n}\n// fn gone() {}\nstruct B {\n    pub(crate) field: u8,\n}\n\
                    enum C {\n    Variant,\n    Other(u8),\n}\nconst LIMIT: u8 = 1;\nfn f() { used(1); }\n";
        for item in ["on_dss", "B", "field", "C", "Variant", "Other", "LIMIT", "f"] {
            assert!(has_item(text, item), "{item}");
        }
        for item in ["on_ds", "gone", "used", "on_dss_too", "A"] {
            assert!(!has_item(text, item), "{item}");
        }
    }

    #[test]
    fn tests_are_functions_under_test_or_entries_of_a_macro() {
        let text =
            "#[test]\nfn one() {}\n\nfn helper() {}\n\n/// Says what.\n#[test]\n#[ignore]\nfn two() {}\n";
        assert!(has_test(text, "one") && has_test(text, "two"));
        assert!(!has_test(text, "helper") && !has_test(text, "three"));
        let table = "macro_rules! matrix { ($n:ident) => { #[test] fn $n() {} } }\nmatrix! {\n    a_to_b: X to Y;\n}\n";
        assert!(has_test(table, "a_to_b") && !has_test(table, "b_to_a"));
    }

    #[test]
    fn a_citation_names_a_known_place() {
        let places = Places::new(BTreeMap::from([("here".to_owned(), "src/lib.rs".to_owned())]));
        assert_eq!(places.resolve("here#f"), Ok(("src/lib.rs", "f")));
        assert!(places.resolve("there#f").is_err() && places.resolve("here").is_err());
        assert_eq!(places.unused(["here#f".to_owned()].iter()), Vec::<String>::new());
        assert_eq!(places.unused([].iter()).len(), 1);
    }
}

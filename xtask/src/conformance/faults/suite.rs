//! The cited tests, and where they are.

use crate::schemata::{Program, Test};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;

/// A test that a requirement cites, and that runs without privilege.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Cited {
    pub(super) program: Program,
    /// The module that it is in, or that its module is in; may be empty.
    module: String,
    pub(super) name: String,
    /// Its file, from the repository's root.
    pub(super) file: String,
}

impl Cited {
    /// The test `name` in `file`. `None`: it needs namespaces.
    pub(super) fn find(root: &Path, file: &str, name: &str) -> Result<Option<Cited>> {
        let mut parts = file.split('/');
        let (Some("crates"), Some(folder)) = (parts.next(), parts.next()) else { return Ok(None) };
        let manifest = root.join("crates").join(folder).join("Cargo.toml");
        let text =
            fs::read_to_string(&manifest).with_context(|| format!("cannot read {}", manifest.display()))?;
        let manifest: toml::Table = toml::from_str(&text)?;
        let package = manifest["package"]["name"].as_str().context("the package has a name")?.to_owned();
        let kind = parts.next().unwrap_or_default();
        let mut rest: Vec<&str> = parts.collect();
        let target = match kind {
            "src" => None,
            "tests" if !rest.is_empty() => Some(rest.remove(0).trim_end_matches(".rs").to_owned()),
            _ => bail!("{file} is no place of tests"),
        };
        let modules = rest.iter().map(|part| part.trim_end_matches(".rs"));
        let modules: Vec<&str> = modules.filter(|m| !["mod", "lib", "main"].contains(m)).collect();
        let program = Program { package, target };
        Ok(Some(Cited { program, module: modules.join("::"), name: name.to_owned(), file: file.to_owned() }))
    }

    /// Whether it is what libtest calls `path`.
    fn is_called(&self, path: &str) -> bool {
        let inner = path.strip_prefix(&self.module).unwrap_or_default().trim_start_matches("::");
        inner == self.name || inner.strip_suffix(&self.name).is_some_and(|m| m.ends_with("::"))
    }

    /// It, among all tests.
    ///
    /// # Errors
    /// When it is not there.
    pub(super) fn among<'t>(&self, tests: &'t [Test]) -> Result<&'t Test> {
        let found = tests.iter().find(|t| t.program == self.program && self.is_called(&t.path));
        found.with_context(|| format!("{} has no test {}", self.file, self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(file: &str, name: &str) -> Cited {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        Cited::find(root, file, name).unwrap().unwrap()
    }

    #[test]
    fn a_test_is_found_by_its_file() {
        let unit = test("crates/stack-core/src/wire/mptcp/tests.rs", "a");
        assert_eq!((unit.program.package.as_str(), &unit.program.target), ("umptcp-stack-core", &None));
        assert!(unit.is_called("wire::mptcp::tests::a") && !unit.is_called("wire::tcp::tests::a"));
        let beside = test("crates/stack-core/src/mptcp/mapping.rs", "a");
        assert!(
            beside.is_called("mptcp::mapping::tests::a") && !beside.is_called("mptcp::mapping::tests::ba")
        );
        let folder = test("crates/stack-core/tests/rfc8684/data.rs", "a");
        assert_eq!(folder.program.target.as_deref(), Some("rfc8684"));
        assert!(folder.is_called("data::a") && !folder.is_called("close::a"));
        let main = test("crates/stack-core/tests/tcp/main.rs", "a");
        assert!(main.is_called("a") && !main.is_called("ba"));
        let file = test("crates/netsim/tests/pair.rs", "a");
        assert_eq!(file.program.target.as_deref(), Some("pair"));
        assert!(file.is_called("a"));
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        assert_eq!(Cited::find(root, "tests/e2e/paths.rs", "a").unwrap(), None);
    }
}

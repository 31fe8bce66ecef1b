//! The cited tests: where they are, and running them in a copy of the tree.

use crate::scratch::Scratch;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// A test that has not ended by then does not end at all: what was broken has it wait for ever.
const PATIENCE: Duration = Duration::from_secs(300);

/// A program of tests, as cargo knows it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Program {
    package: String,
    /// The file in `tests`, without its ending; `None`: the library's own tests.
    target: Option<String>,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.package, self.target.as_deref().unwrap_or("unit tests"))
    }
}

/// A test that runs without privilege.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Test {
    pub(super) program: Program,
    /// The module that it is in, or that its module is in; may be empty.
    module: String,
    pub(super) name: String,
    /// Its file, from the repository's root.
    pub(super) file: String,
}

impl Test {
    /// The test `name` in `file`. `None`: it needs namespaces.
    pub(super) fn find(root: &Path, file: &str, name: &str) -> Result<Option<Test>> {
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
        Ok(Some(Test { program, module: modules.join("::"), name: name.to_owned(), file: file.to_owned() }))
    }

    /// Whether it is what libtest calls `path`.
    fn is_called(&self, path: &str) -> bool {
        let inner = path.strip_prefix(&self.module).unwrap_or_default().trim_start_matches("::");
        inner == self.name || inner.strip_suffix(&self.name).is_some_and(|m| m.ends_with("::"))
    }
}

/// How a test ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Ending {
    /// It passed.
    Passed,
    /// It failed, or took the program with it.
    Failed,
    /// It did not end.
    Hung,
}

/// The copy of the tree in which the tests are run.
pub(super) struct Copy(Scratch);

impl Copy {
    /// The copy, brought up to date.
    pub(super) fn make(root: &Path) -> Result<Copy> {
        Ok(Copy(Scratch::make(root, "conformance")?))
    }

    /// It, for whoever breaks something.
    pub(super) fn scratch(&self) -> &Scratch {
        &self.0
    }

    /// Cargo in the copy.
    fn cargo(&self, program: &Program, arguments: &[&str]) -> Command {
        let mut cargo = self.0.cargo();
        cargo.arg("test").args(arguments).args(["--package", &program.package]);
        match &program.target {
            None => cargo.arg("--lib"),
            Some(target) => cargo.args(["--test", target]),
        };
        let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
        // What is broken leaves things unused.
        cargo.env("RUSTFLAGS", format!("{flags} --cap-lints warn").trim_start());
        cargo
    }

    /// Runs tests of one program. `None`: it does not compile.
    ///
    /// # Errors
    /// When a test that was asked for does not exist there.
    pub(super) fn run(&self, program: &Program, tests: &[&Test]) -> Result<Option<BTreeMap<Test, Ending>>> {
        let log = self.0.folder().join("output");
        let (_, built) = finish(self.cargo(program, &["--quiet", "--no-run"]), &log, Duration::MAX)?;
        if !built.is_some_and(|status| status.success()) {
            return Ok(None);
        }
        let mut command = self.cargo(program, &[]);
        command.arg("--").args(tests.iter().map(|t| &t.name));
        let (output, status) = finish(command, &log, PATIENCE)?;
        let mut endings = BTreeMap::new();
        for test in tests {
            let ending = ending(test, &output, status);
            let Some(ending) = ending else { bail!("{} has no test {}", test.file, test.name) };
            endings.insert((*test).clone(), ending);
        }
        Ok(Some(endings))
    }
}

/// How `test` ended, by what libtest wrote. `None`: it was not run.
fn ending(test: &Test, output: &str, status: Option<ExitStatus>) -> Option<Ending> {
    let line = output.lines().find_map(|line| {
        let (path, ending) = line.strip_prefix("test ")?.split_once(" ... ")?;
        test.is_called(path.trim_end_matches(" - should panic")).then_some(ending)
    });
    match (line, status) {
        (Some("ok"), _) => Some(Ending::Passed),
        (Some(_), Some(_)) => Some(Ending::Failed),
        (_, None) => Some(Ending::Hung),
        // The program died with it.
        (None, Some(status)) if !status.success() && !output.contains("test result:") => Some(Ending::Failed),
        (None, Some(_)) => None,
    }
}

/// Runs a command to its end or for as long as `patience`, and returns what it wrote and its status; `None`: it
/// had to be stopped.
fn finish(mut command: Command, log: &Path, patience: Duration) -> Result<(String, Option<ExitStatus>)> {
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    command.stdin(std::process::Stdio::null()).stdout(file.try_clone()?).stderr(file);
    // The test's program is a child of cargo's: both are stopped.
    let mut child = command.process_group(0).spawn().context("cannot start cargo")?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if start.elapsed() > patience {
            stop(&mut child)?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let output = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    Ok((String::from_utf8_lossy(&output).into_owned(), status))
}

fn stop(child: &mut Child) -> Result<()> {
    let group = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
    nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL)?;
    child.wait()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;

    fn test(file: &str, name: &str) -> Test {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        Test::find(root, file, name).unwrap().unwrap()
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
        assert_eq!(Test::find(root, "tests/e2e/paths.rs", "a").unwrap(), None);
    }

    #[test]
    fn endings_are_read_from_what_libtest_writes() {
        let a = test("crates/netsim/tests/pair.rs", "a");
        let (good, bad) = (ExitStatus::from_raw(0), ExitStatus::from_raw(101 << 8));
        let of = |output, status| ending(&a, output, status);
        assert_eq!(of("test a ... ok\ntest result: ok.", Some(good)), Some(Ending::Passed));
        assert_eq!(of("test a ... FAILED\ntest result: FAILED.", Some(bad)), Some(Ending::Failed));
        assert_eq!(of("running 1 test\n", Some(bad)), Some(Ending::Failed));
        assert_eq!(of("running 1 test\n", None), Some(Ending::Hung));
        assert_eq!(of("running 0 tests\ntest result: ok.", Some(good)), None);
    }
}

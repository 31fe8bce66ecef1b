//! The programs of tests: building them in the copy, and running single tests.

use super::weave::{CHOSEN, LOG};
use crate::scratch::Scratch;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::ops::Range;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A program of tests, as cargo knows it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Program {
    pub(crate) package: String,
    /// The file in `tests`, without its ending; `None`: the library's own tests.
    pub(crate) target: Option<String>,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.package, self.target.as_deref().unwrap_or("unit tests"))
    }
}

/// A test that runs without privilege.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Test {
    pub(crate) program: Program,
    /// What libtest calls it.
    pub(crate) path: String,
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path, self.program)
    }
}

/// How a test ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ending {
    /// It passed.
    Passed,
    /// It failed, or took the program with it.
    Failed,
    /// It did not end.
    Hung,
}

/// An error of the compiler's.
pub(super) struct CompilerError {
    /// As the compiler prints it.
    pub(super) text: String,
    /// Files and bytes in them where it is.
    pub(super) primary: Vec<(String, Range<usize>)>,
    /// Those of which it speaks besides.
    pub(super) others: Vec<(String, Range<usize>)>,
}

/// Programs that were built.
pub(super) struct Built {
    /// The program, where it is, and the folder in which cargo would start it.
    programs: BTreeMap<Program, (PathBuf, PathBuf)>,
}

/// The most memory that a test may have mapped, in KiB. Most need less than a tenth of it.
const MEMORY: u64 = 4 << 20;

/// Builds `programs` in the copy, in one call of cargo's, so that each dependency has one set of features.
///
/// # Errors
/// When cargo cannot be called. Errors of the compiler are the inner result.
pub(super) fn build(
    scratch: &Scratch,
    programs: &BTreeSet<Program>,
) -> Result<std::result::Result<Built, Vec<CompilerError>>> {
    let mut cargo = scratch.cargo();
    cargo.args(["test", "--no-run", "--quiet", "--message-format", "json"]);
    let packages: BTreeSet<&str> = programs.iter().map(|p| p.package.as_str()).collect();
    cargo.args(packages.into_iter().flat_map(|package| ["--package", package]));
    let targets: BTreeSet<Option<&str>> = programs.iter().map(|p| p.target.as_deref()).collect();
    for target in targets {
        match target {
            None => cargo.arg("--lib"),
            Some(target) => cargo.args(["--test", target]),
        };
    }
    let output = cargo.stdin(Stdio::null()).output().context("cannot start cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut built = Built { programs: BTreeMap::new() };
    let mut errors = Vec::new();
    for message in messages {
        match message["reason"].as_str() {
            Some("compiler-message") => errors.extend(error(&message["message"])),
            Some("compiler-artifact") => {
                if let Some((program, places)) = artifact(&message) {
                    built.programs.insert(program, places);
                }
            }
            _ => {}
        }
    }
    if output.status.success() {
        return Ok(Ok(built));
    }
    if errors.is_empty() {
        bail!("cargo test failed ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(Err(errors))
}

/// The program of tests that a message of cargo's says was built.
fn artifact(message: &serde_json::Value) -> Option<(Program, (PathBuf, PathBuf))> {
    let executable = PathBuf::from(message["executable"].as_str()?);
    if message["profile"]["test"] != true {
        return None;
    }
    let folder = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
    let manifest: toml::Table = toml::from_str(&fs::read_to_string(folder.join("Cargo.toml")).ok()?).ok()?;
    let package = manifest.get("package")?.get("name")?.as_str()?.to_owned();
    let is_test = message["target"]["kind"].as_array()?.iter().any(|kind| kind == "test");
    let target = if is_test { Some(message["target"]["name"].as_str()?.to_owned()) } else { None };
    Some((Program { package, target }, (executable, folder)))
}

/// What rustc says, when it is an error.
fn error(message: &serde_json::Value) -> Option<CompilerError> {
    if message["level"] != "error" {
        return None;
    }
    let (primary, others): (Vec<_>, Vec<_>) =
        message["spans"].as_array()?.iter().partition(|span| span["is_primary"] == true);
    let place = |span: &serde_json::Value| -> Option<(String, Range<usize>)> {
        // In a macro's text: where it is called.
        let mut span = span;
        while let Some(outer) = span["expansion"].get("span") {
            span = outer;
        }
        let byte = |end: &str| usize::try_from(span[end].as_u64()?).ok();
        Some((span["file_name"].as_str()?.to_owned(), byte("byte_start")?..byte("byte_end")?))
    };
    let text = message["rendered"].as_str().unwrap_or_default().to_owned();
    let places = |spans: Vec<_>| spans.into_iter().filter_map(place).collect();
    Some(CompilerError { text, primary: places(primary), others: places(others) })
}

/// What it says that a program of tests ended so. `None`: nothing about its tests. That is what the shell exits with
/// when it cannot start the program, and a signal that somebody else sent.
fn ending(status: ExitStatus) -> Option<Ending> {
    use nix::libc::{SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGKILL, SIGSEGV, SIGSYS, SIGTRAP, SIGXCPU};
    match (status.code(), status.signal()) {
        (Some(0), _) => Some(Ending::Passed),
        // What libtest exits with when a test failed.
        (Some(101), _) => Some(Ending::Failed),
        (_, Some(SIGABRT | SIGBUS | SIGFPE | SIGILL | SIGSEGV | SIGSYS | SIGTRAP)) => Some(Ending::Failed),
        (_, Some(SIGXCPU | SIGKILL)) => Some(Ending::Hung),
        _ => None,
    }
}

impl Built {
    /// Copies the programs into `folder`, where a further build does not replace them.
    pub(super) fn keep(&mut self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        for (number, (executable, _)) in self.programs.values_mut().enumerate() {
            let to = folder.join(format!("tests-{number}"));
            fs::copy(&*executable, &to).with_context(|| format!("cannot copy {}", executable.display()))?;
            *executable = to;
        }
        Ok(())
    }

    /// Every test of every program.
    pub(super) fn tests(&self) -> Result<Vec<Test>> {
        let mut tests = Vec::new();
        for (program, (executable, folder)) in &self.programs {
            let mut command = Command::new(executable);
            let output = command.arg("--list").current_dir(folder).output();
            let output = output.with_context(|| format!("cannot start {}", executable.display()))?;
            let text = String::from_utf8_lossy(&output.stdout);
            let paths = text.lines().filter_map(|line| line.strip_suffix(": test"));
            tests.extend(paths.map(|path| Test { program: program.clone(), path: path.to_owned() }));
        }
        Ok(tests)
    }

    /// Runs one test, with a change in force or none. `log`: where it writes the functions that it enters.
    ///
    /// A test that uses more of the processor than `patience`, or takes ten times as long by the clock, hangs.
    pub(super) fn run(
        &self,
        test: &Test,
        change: Option<usize>,
        log: Option<&Path>,
        patience: Duration,
    ) -> Result<(Ending, Duration)> {
        let (executable, folder) =
            self.programs.get(&test.program).with_context(|| format!("{} was not built", test.program))?;
        // What a shell limits is the processor's time, which does not pass while others are busy; and the memory, so
        // that a change which makes the code allocate for ever does not take that of everybody else.
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -t \"$1\"; ulimit -v \"$2\"; shift 2; exec \"$@\"", "sh"]);
        command.arg(patience.as_secs().max(1).to_string()).arg(MEMORY.to_string()).arg(executable);
        command.args(["--exact", "--test-threads", "1", &test.path]).current_dir(folder);
        command.env("RUST_BACKTRACE", "0").env("CARGO_MANIFEST_DIR", folder);
        // The same cases each time, and nothing is kept of those that fail.
        command.env("PROPTEST_RNG_SEED", "1").env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true");
        command.env("PROPTEST_MAX_SHRINK_ITERS", "0");
        if let Some(change) = change {
            command.env(CHOSEN, change.to_string());
        }
        if let Some(log) = log {
            fs::write(log, "").with_context(|| format!("cannot write {}", log.display()))?;
            command.env(LOG, log);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let start = Instant::now();
        let mut child = command.spawn().context("cannot start a shell")?;
        loop {
            if let Some(status) = child.try_wait()? {
                let ending = ending(status).with_context(|| format!("{test} did not run ({status})"))?;
                return Ok((ending, start.elapsed()));
            }
            if start.elapsed() > patience * 10 {
                child.kill()?;
                child.wait()?;
                return Ok((Ending::Hung, start.elapsed()));
            }
            std::thread::sleep(Duration::from_millis(if start.elapsed() < Duration::from_millis(100) {
                1
            } else {
                20
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failed_test_or_a_crash_is_a_failure() {
        let exited = |code: i32| ending(ExitStatus::from_raw(code << 8));
        assert_eq!([exited(0), exited(101)], [Some(Ending::Passed), Some(Ending::Failed)]);
        // The shell could set no limit, or not start the program.
        assert_eq!([exited(2), exited(126), exited(127)], [None; 3]);
        let killed = |signal: i32| ending(ExitStatus::from_raw(signal));
        use nix::libc::{SIGABRT, SIGINT, SIGKILL, SIGSEGV, SIGTERM, SIGXCPU};
        assert_eq!([killed(SIGABRT), killed(SIGSEGV)], [Some(Ending::Failed); 2]);
        assert_eq!([killed(SIGXCPU), killed(SIGKILL)], [Some(Ending::Hung); 2]);
        assert_eq!([killed(SIGINT), killed(SIGTERM)], [None; 2]);
    }
}

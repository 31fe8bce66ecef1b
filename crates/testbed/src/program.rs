//! Running the program `umptcp` in a namespace.

use crate::command::Running;
use crate::netns::Netns;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

/// The program's path: `UMPTCP_PROGRAM` (set by `cargo xtask test`), or the result of `cargo build`.
///
/// # Panics
/// When it cannot be built.
pub fn path() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| match std::env::var_os("UMPTCP_PROGRAM") {
        Some(path) => path.into(),
        None => build(),
    })
    .clone()
}

fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--workspace", "--bin", "umptcp", "--message-format", "json"])
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo can be started");
    assert!(output.status.success(), "the program does not build");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| match message["executable"].as_str() {
            Some(path) if message["target"]["name"] == "umptcp" => Some(path.into()),
            _ => None,
        })
        .expect("cargo names the program it has built")
}

/// The program with `arguments`, split at white space; standard input is empty.
pub fn command(arguments: &str) -> Command {
    let mut command = Command::new(path());
    command
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.env_remove("RUST_BACKTRACE");
    command
}

/// Runs the program in `ns` until it exits.
///
/// # Panics
/// When it cannot be started.
pub fn run(ns: &Netns, arguments: &str) -> Output {
    Running::new(ns.run(|| command(arguments).spawn()).expect("the program can be started")).wait()
}

/// A folder for temporary files, removed when dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes one with that word in its name.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new(word: &str) -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("umptcp-testbed-{word}-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder for temporary files can be made");
        Folder(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Whatever is left is in the way of nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A program running in the background, whose standard error can be read line by line.
#[derive(Debug)]
pub struct Background {
    running: Running,
    output: BufReader<ChildStdout>,
    errors: Receiver<String>,
    said: Vec<String>,
}

impl Background {
    /// Starts it in `ns`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(ns: &Netns, arguments: &str) -> Self {
        Self::spawn(ns, command(arguments))
    }

    /// Starts a command in `ns`; its outputs must be piped, as those of [`command`] are.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(ns: &Netns, mut command: Command) -> Self {
        let mut running = Running::new(ns.run(|| command.spawn()).expect("the program can be started"));
        let stderr = running.child().stderr.take().expect("piped");
        let output = BufReader::new(running.child().stdout.take().expect("piped"));
        let (sender, errors) = mpsc::channel();
        // Ends with the program, which closes the pipe.
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Background { running, output, errors, said: Vec::new() }
    }

    /// Waits for a line that contains `part` on standard error.
    ///
    /// # Panics
    /// When there is none within 20 seconds, or the program exits.
    pub fn wait_for(&mut self, part: &str) {
        loop {
            match self.errors.recv_timeout(Duration::from_secs(20)) {
                Ok(line) => {
                    let found = line.contains(part);
                    self.said.push(line);
                    if found {
                        return;
                    }
                }
                Err(_) => panic!("expected {part:?}, but the output is:\n{}", self.said.join("\n")),
            }
        }
    }

    /// Waits for lines that contain each of `parts` on standard error, in any order.
    ///
    /// # Panics
    /// As [`wait_for`](Self::wait_for) does.
    pub fn wait_for_all(&mut self, parts: &[&str]) {
        let mut left = parts.to_vec();
        while let Some(some) = left.first().copied() {
            match self.errors.recv_timeout(Duration::from_secs(20)) {
                Ok(line) => {
                    left.retain(|part| !line.contains(part));
                    self.said.push(line);
                }
                Err(_) => panic!("expected {some:?}, but the output is:\n{}", self.said.join("\n")),
            }
        }
    }

    /// The next line of its standard output, trimmed; empty at the end.
    ///
    /// # Panics
    /// When the output cannot be read.
    pub fn next_line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a pipe can be read");
        line.trim_end().to_owned()
    }

    /// Writes a line to its standard input.
    ///
    /// # Panics
    /// When that is not a pipe, or nobody reads it.
    pub fn write_line(&mut self, line: &str) {
        let mut input = self.running.child().stdin.as_ref().expect("piped");
        writeln!(input, "{line}").expect("the program reads its input");
    }

    /// The process, to send signals to.
    pub fn process(&self) -> &Running {
        &self.running
    }

    /// Waits until it exits. Returns the exit code, the unread rest of its standard output, and all of its
    /// standard error.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn finish(mut self) -> (Option<i32>, Vec<u8>, String) {
        let mut output = Vec::new();
        self.output.read_to_end(&mut output).expect("a pipe can be read");
        let status = self.running.child().wait().expect("a child can be waited for");
        self.said.extend(self.errors.iter());
        (status.code(), output, self.said.join("\n"))
    }
}

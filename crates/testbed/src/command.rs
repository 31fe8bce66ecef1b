//! Running programs, with clear failure messages.

use crate::limit::Listed;
use std::process::{Child, Command, Output, Stdio};

/// Runs `line`, split at white space, and returns its output.
///
/// # Panics
/// When the program cannot be started or fails; the message contains its standard error.
pub fn run(line: &str) -> String {
    let output = try_run(line);
    assert!(output.status.success(), "`{line}` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs `line`, split at white space, and returns its status and output.
///
/// # Panics
/// When the program cannot be started.
fn try_run(line: &str) -> Output {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a command line names a program");
    Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("cannot start `{program}`: {e}"))
}

/// Runs `program` with `input` on its standard input.
///
/// # Panics
/// When the program cannot be started or fails.
pub(crate) fn run_with_input(program: &str, arguments: &[&str], input: &str) -> String {
    use std::io::Write;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start `{program}`: {e}"));
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("the program reads its input");
    let output = child.wait_with_output().expect("the program can be waited for");
    assert!(
        output.status.success(),
        "`{program} {}` failed on:\n{input}\n{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A child process that does not outlive this value, nor the time limit of the thread that started it
/// ([`within`](crate::limit::within)).
#[derive(Debug)]
pub struct Running {
    child: Option<Child>,
    _listed: Listed,
}

impl Running {
    /// Takes charge of `child`.
    pub fn new(child: Child) -> Self {
        let listed = Listed::new(child.id());
        Running { child: Some(child), _listed: listed }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Sends it `signal`.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = i32::try_from(self.id()).expect("process ids fit");
        // It may already have ended.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
    }

    /// Waits for it to end and returns the output of its piped streams.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn wait(mut self) -> Output {
        self.child.take().expect("waited for once").wait_with_output().expect("a child can be waited for")
    }

    /// The child, to read from its streams.
    pub fn child(&mut self) -> &mut Child {
        self.child.as_mut().expect("not waited for yet")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

//! Time limits: a test that hangs fails, and shows what it hung on.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fmt::Write;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread::{self, ThreadId};
use std::time::Duration;

/// How long programs get to end after they were told to, and the work to end after them.
const GRACE: Duration = Duration::from_secs(5);
/// Lines of one description of a namespace; a ruleset with maps can have thousands.
const LINES: usize = 200;

/// A program that runs, and the thread that started it.
#[derive(Debug)]
struct Started {
    pid: u32,
    by: ThreadId,
}

static STARTED: Mutex<Vec<Started>> = Mutex::new(Vec::new());

/// A running program's place in the list of those that [`within`] ends when its time is over.
#[derive(Debug)]
pub(crate) struct Listed {
    pid: u32,
}

impl Listed {
    pub(crate) fn new(pid: u32) -> Self {
        let by = thread::current().id();
        STARTED.lock().unwrap_or_else(PoisonError::into_inner).push(Started { pid, by });
        Listed { pid }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        STARTED.lock().unwrap_or_else(PoisonError::into_inner).retain(|s| s.pid != self.pid);
    }
}

/// The programs that `thread` started and that still run.
fn started_by(thread: ThreadId) -> Vec<u32> {
    let started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    started.iter().filter(|s| s.by == thread).map(|s| s.pid).collect()
}

/// Runs `work` and fails if it takes longer than `limit`, so that a hang fails the test instead of blocking
/// it. Then the state of the programs that `work` has started is printed, with that of their namespaces, and
/// they are ended.
///
/// # Panics
/// When the limit is exceeded or `work` panics.
pub fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = mpsc::channel();
    let thread = thread::spawn(move || {
        let result = work();
        let _ = done.send(());
        result
    });
    match wait.recv_timeout(limit) {
        Err(mpsc::RecvTimeoutError::Timeout) => {
            let programs = started_by(thread.thread().id());
            eprintln!("not done after {limit:?}; running are {} programs", programs.len());
            for &pid in &programs {
                eprintln!("{}", describe(pid));
            }
            // What waits for them goes on, and usually fails with what they have said.
            for signal in [Signal::SIGTERM, Signal::SIGKILL] {
                for pid in started_by(thread.thread().id()) {
                    let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
                }
                let _ = wait.recv_timeout(GRACE);
            }
            panic!("not done after {limit:?}")
        }
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        }
    }
}

/// Everything that `command` prints; what keeps it from running otherwise. For messages.
fn output_of(command: &mut Command) -> String {
    match command.stdin(Stdio::null()).output() {
        Ok(output) => {
            [output.stdout, output.stderr].map(|o| String::from_utf8_lossy(&o).into_owned()).concat()
        }
        Err(e) => format!("{command:?} cannot be started: {e}\n"),
    }
}

/// What the process and its threads do, and its namespace's addresses, routes, rules, sockets and firewall.
fn describe(pid: u32) -> String {
    let mut text = String::new();
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let _ = writeln!(text, "process {pid}: {}", String::from_utf8_lossy(&arguments).replace('\0', " "));
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let _ = writeln!(
            text,
            "  thread {}: {}, {}",
            task.file_name().display(),
            read("comm").trim(),
            read("wchan").trim()
        );
    }
    let children =
        output_of(Command::new("ps").args(["-o", "pid,stat,etime,args", "--ppid"]).arg(pid.to_string()));
    text.push_str(&children);
    for line in [
        "ss -a -n -t -M -i",
        "ip -s address",
        "ip rule",
        "ip -6 rule",
        "ip route show table all",
        "ip -6 route show table all",
        "nft list ruleset",
    ] {
        let _ = writeln!(text, "$ {line}");
        let mut command = Command::new("nsenter");
        command.args(["-t", &pid.to_string(), "-n"]).args(line.split(' '));
        for line in output_of(&mut command).lines().take(LINES) {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Running;
    use std::sync::Arc;

    /// The program is ended, what waits for it goes on, and the caller fails.
    #[test]
    fn a_program_that_hangs_is_ended() {
        let status = Arc::new(Mutex::new(None));
        let written = Arc::clone(&status);
        let result = std::panic::catch_unwind(move || {
            within(Duration::from_millis(200), move || {
                let child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn();
                let output = Running::new(child.expect("sleep can be started")).wait();
                *written.lock().expect("nobody panicked") = Some(output.status);
            });
        });
        assert!(result.is_err(), "the limit has passed");
        let status = status.lock().expect("nobody panicked").expect("the work went on");
        assert!(!status.success(), "it was ended: {status}");
    }
}

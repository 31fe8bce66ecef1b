//! Captures, and what tshark makes of them.

use crate::command::{Running, run};
use crate::netns::Netns;
use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A capture that is running in a namespace. Its file is removed with it.
#[derive(Debug)]
pub struct Capture {
    dumpcap: Running,
    /// Kept open: dumpcap prints its statistics there at the end.
    errors: BufReader<std::process::ChildStderr>,
    file: Temporary,
}

/// A file that is removed when it goes out of scope.
#[derive(Debug)]
pub struct Temporary(PathBuf);

impl Temporary {
    /// A name in the temporary directory that nobody else has; the file is not made.
    pub fn new(suffix: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        Temporary(std::env::temp_dir().join(format!("umptcp-tests-{}-{n}{suffix}", std::process::id())))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Capture {
    /// Starts capturing the headers of what crosses `devices` and returns when the first packet would be caught.
    ///
    /// # Panics
    /// When dumpcap cannot be started.
    pub fn start(ns: &Netns, devices: &[&str]) -> Self {
        let file = Temporary::new(".pcapng");
        let mut command = Command::new("dumpcap");
        // A large kernel buffer, or bursts of 64 kB segments are dropped while the machine is busy.
        command.args(["-q", "-s", "160", "-B", "64", "-w"]).arg(file.path());
        for device in devices {
            command.args(["-i", device]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = ns.run(|| command.spawn()).unwrap_or_else(|e| panic!("cannot start `dumpcap`: {e}"));
        let mut dumpcap = Running::new(child);
        let mut errors = BufReader::new(dumpcap.child().stderr.take().expect("piped"));
        let mut said = String::new();
        while errors.read_line(&mut said).is_ok_and(|n| n > 0) {
            // It names its file when every device is open.
            if said.lines().any(|line| line.starts_with("File:")) {
                // Packets of the first moments after that were seen to be missing now and then.
                std::thread::sleep(Duration::from_millis(300));
                return Capture { dumpcap, errors, file };
            }
        }
        panic!("dumpcap did not start: {said}");
    }

    /// Ends the capture and returns its packets.
    ///
    /// # Panics
    /// When dumpcap does not end.
    pub fn stop(self) -> Packets {
        let Capture { dumpcap, errors, file } = self;
        // The kernel hands packets over in blocks, at the latest after 250 ms; dumpcap leaves a block that is not full.
        std::thread::sleep(Duration::from_millis(600));
        dumpcap.signal(Signal::SIGINT);
        dumpcap.wait();
        drop(errors);
        Packets { file }
    }
}

/// Captured packets, in a file.
#[derive(Debug)]
pub struct Packets {
    file: Temporary,
}

impl Packets {
    /// Packets of a file that somebody else wrote; it is removed at the end.
    pub fn of(file: Temporary) -> Self {
        Packets { file }
    }

    /// Waits until the file holds something: the writer may still be at it.
    ///
    /// # Panics
    /// When it is empty after five seconds.
    pub fn wait_written(&self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while !std::fs::metadata(self.file.path()).is_ok_and(|m| m.len() > 0) {
            assert!(Instant::now() < deadline, "{} stays empty", self.file.path().display());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// How many packets a display filter selects.
    ///
    /// # Panics
    /// When tshark fails.
    pub fn count(&self, filter: &str) -> usize {
        self.select(filter, &["frame.number"]).len()
    }

    /// The named fields of every packet that a display filter selects; several values of a field are joined by commas.
    ///
    /// # Panics
    /// When tshark fails, for instance on a field it does not know.
    pub fn select(&self, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
        let mut command = Command::new("tshark");
        command.arg("-n").arg("-r").arg(self.file.path()).args([
            "-Y",
            filter,
            "-T",
            "fields",
            "-E",
            "separator=|",
        ]);
        for field in fields {
            command.args(["-e", field]);
        }
        let output = command.output().unwrap_or_else(|e| panic!("cannot start `tshark`: {e}"));
        assert!(output.status.success(), "tshark failed: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(|line| line.split('|').map(str::to_owned).collect())
            .collect()
    }

    /// tshark's words on the first packets that a filter selects, for messages.
    ///
    /// # Panics
    /// When tshark fails.
    pub fn describe(&self, filter: &str) -> String {
        let expert = ["frame.number", "_ws.col.Info", "_ws.expert.message"];
        let rows = self.select(filter, &expert);
        rows.iter().take(10).map(|r| r.join(" | ")).collect::<Vec<_>>().join("\n")
    }

    /// Asserts that tshark finds nothing malformed, no option of a wrong length or unknown kind, and no MPTCP error.
    ///
    /// # Panics
    /// With tshark's words on the packets it complains about.
    pub fn assert_well_formed(&self) {
        // Severity "error" covers malformed packets, whatever the dissector; the others what it calls a warning or a note.
        // Its warnings about loss and retransmission are the network's affair.
        for filter in [
            "_ws.malformed",
            "_ws.expert.severity == error",
            "tcp.option.len.invalid",
            "tcp.options.unknown",
            "_ws.expert.message contains \"option length\"",
        ] {
            assert_eq!(self.count(filter), 0, "`{filter}` selects:\n{}", self.describe(filter));
        }
    }
}

/// Version of tshark, for messages.
pub fn tshark_version() -> String {
    run("tshark --version").lines().next().unwrap_or_default().to_owned()
}

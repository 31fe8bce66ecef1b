//! Packet captures, decoded by tshark.

use crate::command::Running;
use crate::netns::Netns;
use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A running capture in a namespace. Its file is removed on drop.
#[derive(Debug)]
pub struct Capture {
    dumpcap: Running,
    /// Kept open because dumpcap prints its statistics there at the end.
    errors: BufReader<std::process::ChildStderr>,
    file: Temporary,
}

/// A file that is removed when it goes out of scope.
#[derive(Debug)]
pub struct Temporary(PathBuf);

impl Temporary {
    /// A unique name in the temporary directory. The file is not created.
    pub fn new(suffix: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        Temporary(std::env::temp_dir().join(format!("umptcp-testbed-{}-{n}{suffix}", std::process::id())))
    }

    /// Its path.
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
    /// Starts capturing the headers of the packets on `devices`. Returns once the capture is active.
    ///
    /// # Panics
    /// When dumpcap cannot be started.
    pub fn start(ns: &Netns, devices: &[&str]) -> Self {
        Capture::start_with(ns, devices, Temporary::new(".pcapng"), &["-s", "160"])
    }

    /// Starts capturing whole packets on `device`, for [`Packets::frames`]. Returns once the capture is
    /// active.
    ///
    /// # Panics
    /// When dumpcap cannot be started.
    pub fn start_whole(ns: &Netns, device: &str) -> Self {
        Capture::start_with(ns, &[device], Temporary::new(".pcap"), &["-P", "-s", "0"])
    }

    fn start_with(ns: &Netns, devices: &[&str], file: Temporary, options: &[&str]) -> Self {
        let mut command = Command::new("dumpcap");
        // Use a large kernel buffer, or bursts of 64 kB segments are dropped on a busy machine.
        command.args(["-q", "-B", "64"]).args(options).arg("-w").arg(file.path());
        for device in devices {
            command.args(["-i", device]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = ns.run(|| command.spawn()).unwrap_or_else(|e| panic!("cannot start `dumpcap`: {e}"));
        let mut dumpcap = Running::new(child);
        let mut errors = BufReader::new(dumpcap.child().stderr.take().expect("piped"));
        let mut said = String::new();
        while errors.read_line(&mut said).is_ok_and(|n| n > 0) {
            // It prints the file name once every device is open.
            if said.lines().any(|line| line.starts_with("File:")) {
                // Right after that, packets are occasionally missed.
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
        // The kernel delivers packets in blocks, after 250 ms at the latest; dumpcap drops an incomplete
        // block.
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
    /// Packets in an existing file, which is removed on drop.
    pub fn of(file: Temporary) -> Self {
        Packets { file }
    }

    /// The bytes of every frame, from its Ethernet header on, of a capture of
    /// [whole packets](Capture::start_whole).
    ///
    /// # Panics
    /// When the file is not one, or has cut packets.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        // libpcap's format: a header of 24 bytes; before each packet, 16 with its length as captured and as
        // it was.
        let file = std::fs::read(self.file.path()).expect("the capture's file");
        assert_eq!(file[..4], 0xa1b2_c3d4_u32.to_ne_bytes(), "not a file of libpcap");
        let (mut frames, mut rest) = (Vec::new(), &file[24..]);
        while !rest.is_empty() {
            let length =
                |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().expect("4 bytes")) as usize;
            assert_eq!(length(8), length(12), "a packet was cut");
            let end = 16 + length(8);
            frames.push(rest[16..end].to_vec());
            rest = &rest[end..];
        }
        frames
    }

    /// How many packets a display filter selects.
    ///
    /// # Panics
    /// When tshark fails.
    pub fn count(&self, filter: &str) -> usize {
        self.select(filter, &["frame.number"]).len()
    }

    /// The given fields of every packet that a display filter selects; multiple values of a field are joined
    /// by commas.
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

    /// tshark's summary of the first packets that a filter selects, for messages.
    ///
    /// # Panics
    /// When tshark fails.
    pub fn describe(&self, filter: &str) -> String {
        let expert = ["frame.number", "_ws.col.Info", "_ws.expert.message"];
        let rows = self.select(filter, &expert);
        rows.iter().take(10).map(|r| r.join(" | ")).collect::<Vec<_>>().join("\n")
    }

    /// Asserts that tshark finds no malformed packets, no option of a wrong length or unknown kind, and no
    /// MPTCP errors.
    ///
    /// # Panics
    /// With tshark's summary of the offending packets.
    pub fn assert_well_formed(&self) {
        // Severity "error" covers malformed packets in any dissector; the other filters cover what tshark
        // reports as warnings or notes. Warnings about loss and retransmission are expected.
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

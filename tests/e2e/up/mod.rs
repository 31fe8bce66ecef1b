//! `umptcp up`: the daemon, with the kernel's MPTCP at the other end.

pub(crate) mod as_root;
pub(crate) mod capture;
mod gateway;
mod life;
mod listen;
mod metrics;
mod socks;

use crate::programs::python;
use crate::run::{LIMIT, RESTORED_WITHIN, both, network, until_connected, wait_for_port};
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use umptcp_testbed::Netns;
use umptcp_testbed::program::{self, Background, Folder};

/// A daemon that runs, with a name and a configuration of its own.
pub(crate) struct Daemon {
    name: String,
    folder: Folder,
    running: Background,
}

/// A configuration, in a folder of its own, with a name that no other daemon has.
pub(crate) fn configuration(text: &str) -> (String, Folder) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let folder = Folder::new("up");
    write(&folder, &name, text);
    (name, folder)
}

pub(crate) fn file(folder: &Folder) -> PathBuf {
    folder.path().join("umptcp.toml")
}

fn write(folder: &Folder, name: &str, text: &str) {
    std::fs::write(file(folder), format!("name = \"{name}\"\n{text}")).expect("a file can be written");
}

/// `umptcp up` with the configuration in this folder.
pub(crate) fn up(folder: &Folder) -> Command {
    let mut command = program::command("up --config");
    command.arg(file(folder));
    command
}

impl Daemon {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(ns: &Netns, text: &str) -> Daemon {
        Daemon::start_by(ns, text, up)
    }

    /// The same, by this command.
    pub(crate) fn start_by(ns: &Netns, text: &str, command: impl FnOnce(&Folder) -> Command) -> Daemon {
        let (name, folder) = configuration(text);
        let running = Background::spawn(ns, command(&folder));
        let mut daemon = Daemon { name, folder, running };
        daemon.wait_for("ready: ");
        daemon
    }

    /// Waits for a line of its log that contains `part`.
    pub(crate) fn wait_for(&mut self, part: &str) {
        self.running.wait_for(part);
    }

    /// Gives it another configuration, and waits for a line of its log.
    pub(crate) fn reload(&mut self, text: &str, part: &str) {
        write(&self.folder, &self.name, text);
        self.signal(Signal::SIGHUP);
        self.wait_for(part);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.running.process().signal(signal);
    }

    /// Its process.
    pub(crate) fn process(&self) -> u32 {
        self.running.process().id()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Ends it by `umptcp down`. Returns what it has logged.
    pub(crate) fn down(self, ns: &Netns) -> String {
        let output = program::run(ns, &format!("down {}", self.name));
        assert_eq!(both(&output), (format!("{} has ended\n", self.name), Some(0)));
        let (code, _, log) = self.running.finish();
        assert_eq!(code, Some(0), "{log}");
        assert!(!log.contains("panicked"), "{log}");
        log
    }

    /// Waits for its end. Returns its exit code.
    pub(crate) fn finish(self) -> Option<i32> {
        self.running.finish().0
    }
}

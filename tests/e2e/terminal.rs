//! Programs at a terminal.

use std::process::Command;
use std::time::{Duration, Instant};
use umptcp_testbed::Netns;
use umptcp_testbed::program::Folder;

/// A shell at a terminal, by tmux. A test that fails leaves none behind.
pub(crate) struct Terminal<'a> {
    ns: &'a Netns,
    folder: Folder,
}

impl<'a> Terminal<'a> {
    /// With so many columns and lines.
    pub(crate) fn new(ns: &'a Netns, columns: u16, lines: u16) -> Terminal<'a> {
        let terminal = Terminal { ns, folder: Folder::new("tmux") };
        let (columns, lines) = (columns.to_string(), lines.to_string());
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", &columns, "-y", &lines, "sh"]);
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.folder.path().join("socket")).args(arguments);
        command.env_remove("TMUX").env("TERM", "xterm");
        let output = self.ns.run(|| command.output()).expect("tmux starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Presses these keys, as tmux names them; other words are typed.
    pub(crate) fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Changes its size.
    pub(crate) fn resize(&self, columns: u16, lines: u16) {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &lines.to_string()]);
    }

    /// Waits until the screen is as `wanted` says.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&str) -> bool) {
        let end = Instant::now() + Duration::from_secs(15);
        loop {
            let screen = self.tmux(&["capture-pane", "-p"]);
            if wanted(&screen) {
                return;
            }
            assert!(Instant::now() < end, "{what:?} is not on the screen:\n{screen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for a line. What is typed ahead is answered behind a prompt.
    pub(crate) fn see(&self, line: &str) {
        self.until(line, |screen| screen.lines().any(|l| l.trim().trim_start_matches("# ") == line));
    }

    /// Ends it. True: nothing is left.
    pub(crate) fn end(&self) -> bool {
        self.tmux(&["kill-server"]);
        !self.folder.path().join("socket").exists() || self.tmux(&["ls"]).is_empty()
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

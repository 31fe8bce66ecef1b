//! Services of the host that have to hear of changed files.

use super::step::Step;
use crate::console::print;
use std::path::Path;
use std::process::Command;

const UNITS: &str = "/etc/systemd/system";
const RULES: &str = "/etc/udev";
const PROFILES: &str = "/etc/apparmor.d";

/// Which of them run.
pub(super) struct Services {
    systemd: bool,
    udev: bool,
    apparmor: bool,
}

impl Services {
    pub(super) fn find() -> Services {
        let there = |path: &str| Path::new(path).exists();
        Services {
            systemd: there("/run/systemd/system"),
            udev: there("/run/udev/control"),
            apparmor: there("/sys/kernel/security/apparmor"),
        }
    }

    /// Whether systemd starts services here.
    pub(super) fn has_systemd(&self) -> bool {
        self.systemd
    }

    /// Whether rules for devices are applied.
    pub(super) fn has_udev(&self) -> bool {
        self.udev
    }

    /// Ends the daemon if its unit is one of these steps.
    pub(super) fn end<'a>(&self, mut steps: impl Iterator<Item = &'a Step>) -> anyhow::Result<()> {
        if self.systemd && steps.any(|step| is_in(step, UNITS)) {
            run(&["systemctl", "disable", "--now", "umptcp.service"])?;
        }
        Ok(())
    }

    /// Has them read what these steps have changed.
    pub(super) fn take_note_of(&self, steps: &[Step]) -> anyhow::Result<()> {
        let changed = |folder: &str| steps.iter().any(|step| is_in(step, folder));
        if self.systemd && changed(UNITS) {
            run(&["systemctl", "daemon-reload"])?;
        }
        if self.udev && changed(RULES) {
            run(&["udevadm", "control", "--reload"])?;
            run(&["udevadm", "trigger", "--subsystem-match=misc", "--sysname-match=tun"])?;
        }
        for step in steps.iter().filter(|step| self.apparmor && is_in(step, PROFILES)) {
            let Step::File { path, .. } = step else { continue };
            let path = path.display().to_string();
            if Path::new(&path).exists() {
                run(&["apparmor_parser", "--replace", &path])?;
            } else {
                print("note: the profile umptcp of AppArmor goes with the next start of the host")?;
            }
        }
        Ok(())
    }
}

fn is_in(step: &Step, folder: &str) -> bool {
    matches!(step, Step::File { path, .. } if path.starts_with(folder))
}

/// Runs a command. That it fails is said, and nothing else depends on it: the next start of the host does the
/// same.
fn run(words: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env("LC_ALL", "C").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let why = match command.output() {
        Ok(output) if output.status.success() => return print(&format!("done: {}", words.join(" "))),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    print(&format!("note: {} failed: {why}", words.join(" ")))
}

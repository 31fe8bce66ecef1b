//! What there is to do on this host.

use super::group;
use super::manifest::Manifest;
use super::program::{self, Access};
use super::services::Services;
use super::step::{OPEN_TO_ALL, Step};
use crate::args::{SetupArgs, UP_CONFIGURATION};
use crate::failure::Class;
use std::path::{Path, PathBuf};

/// The unit of systemd; the rule for the TUN device; the profile of AppArmor.
const UNIT: &str = include_str!("../../packaging/umptcp.service");
const RULE: &str = include_str!("../../packaging/60-umptcp.rules");
const PROFILE: &str = include_str!("../../packaging/umptcp.apparmor");

const TUN: &str = "/dev/net/tun";

/// Where the program is in these.
const PROGRAM: &str = "/usr/bin/umptcp";

/// Folders in which packages put units.
const UNITS_OF_PACKAGES: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];

/// What is to be done.
pub(super) struct Plan {
    /// The program, when it is done.
    pub(super) program: PathBuf,
    pub(super) steps: Vec<Step>,
    /// What is left to somebody else.
    pub(super) notes: Vec<String>,
}

impl Plan {
    /// Looks at the host.
    ///
    /// # Errors
    /// When something is in the way.
    pub(super) fn make(args: &SetupArgs, manifest: &Manifest, services: &Services) -> anyhow::Result<Plan> {
        let (program, in_place) = program::place()?;
        let mut plan = Plan { program, steps: Vec::new(), notes: Vec::new() };
        plan.add_group(&args.group, manifest);
        plan.add_program(args, in_place, manifest)?;
        plan.add_configuration(&args.group, manifest);
        if Path::new("/etc/systemd/system").is_dir() {
            let packaged =
                UNITS_OF_PACKAGES.iter().any(|folder| Path::new(folder).join("umptcp.service").exists());
            if !packaged {
                plan.add_file("/etc/systemd/system/umptcp.service", UNIT, manifest);
            }
        }
        if !args.daemon_only && Path::new("/etc/udev/rules.d").is_dir() {
            plan.add_file("/etc/udev/rules.d/60-umptcp.rules", RULE, manifest);
        }
        if !args.daemon_only && !services.has_udev() {
            plan.add_device(manifest);
        }
        // Such a kernel restricts user namespaces, or would if it were told to.
        if Path::new("/etc/apparmor.d/abi/4.0").exists()
            && Path::new("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").exists()
        {
            plan.add_file("/etc/apparmor.d/umptcp", PROFILE, manifest);
        }
        Ok(plan)
    }

    fn add_group(&mut self, name: &str, manifest: &Manifest) {
        let step = Step::Group { name: name.to_owned() };
        // One that was there before is not ours to remove.
        if group::number(name).is_none() || manifest.of(&step).is_some() {
            self.steps.push(step);
        }
    }

    fn add_program(&mut self, args: &SetupArgs, in_place: bool, manifest: &Manifest) -> anyhow::Result<()> {
        let path = self.program.clone();
        let before = Access::read(&path).ok();
        let from = if in_place { None } else { std::env::current_exe().ok() };
        let access = args.daemon_only.then(Access::of_all);
        let (group, before) = (args.group.clone(), before.filter(|_| in_place));
        let step = Step::Program { path: path.clone(), from, access, group, before };
        let ours = manifest.of(&step).is_some();
        if !in_place && !ours && path.exists() {
            let text = format!(
                "{} is there already, and this program is not it: use `sudo {} setup`, or remove it",
                path.display(),
                path.display()
            );
            return Err(Class::Host.failure(text).into());
        }
        // Everybody may use it as it is.
        if !(in_place && args.daemon_only && !ours) {
            self.steps.push(step);
        }
        Ok(())
    }

    fn add_configuration(&mut self, group: &str, manifest: &Manifest) {
        let path = PathBuf::from(UP_CONFIGURATION);
        let section = format!(
            "# Of `umptcp setup`: who may use the daemon by `umptcp run`.\n[run]\ngroup = \"{group}\"\n"
        );
        let file = Step::File { path: path.clone(), text: section.clone() };
        let Ok(now) = std::fs::read_to_string(&path) else {
            self.steps.push(file);
            return;
        };
        if manifest.of(&file).is_some() {
            return self.add_file(UP_CONFIGURATION, &section, manifest);
        }
        let between = if now.is_empty() || now.ends_with('\n') { "\n" } else { "\n\n" };
        let lines = Step::Lines { path, text: format!("{between}{section}") };
        if let Some(earlier @ Step::Lines { text, .. }) = manifest.of(&lines)
            && text.ends_with(&section)
            && now.contains(text)
        {
            self.steps.push(earlier.clone());
            return;
        }
        let parsed: Option<toml::Table> = toml::from_str(&now).ok();
        match parsed.as_ref().map(|table| table.get("run")) {
            Some(None) => self.steps.push(lines),
            Some(Some(run)) if run.get("group").and_then(toml::Value::as_str) == Some(group) => {}
            Some(Some(_)) => self.notes.push(format!(
                "{UP_CONFIGURATION} has a [run] of its own: it takes group = \"{group}\" for the group's members"
            )),
            None => self.notes.push(format!(
                "{UP_CONFIGURATION} is not right (`umptcp check` says why): it takes [run] with group = \"{group}\""
            )),
        }
    }

    /// The TUN device, where nobody applies the rule: in many containers, and under WSL2 without systemd.
    fn add_device(&mut self, manifest: &Manifest) {
        let Ok(before) = Access::mode_of(Path::new(TUN)) else { return };
        let step = Step::Device { path: TUN.into(), before };
        if before != OPEN_TO_ALL || manifest.of(&step).is_some() {
            self.steps.push(step);
        }
    }

    /// A file of ours, which names the program. One that somebody else has written, or changed, stays.
    fn add_file(&mut self, path: &str, text: &str, manifest: &Manifest) {
        let text = text.replace(PROGRAM, &self.program.display().to_string());
        let step = Step::File { path: path.into(), text };
        let now = std::fs::read_to_string(path).ok();
        let as_made = match (manifest.of(&step), &now) {
            (_, None) => true,
            (Some(Step::File { text, .. }), Some(now)) => text == now,
            (_, Some(_)) => false,
        };
        if as_made {
            self.steps.push(step);
        } else {
            self.notes.push(format!("{path} is there, and not as setup would have it: it stays as it is"));
        }
    }
}

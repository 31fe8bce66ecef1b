//! One thing that `setup` does, and how it is undone.

use super::group;
use super::program::{self, Access};
use crate::failure::Class;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The mode of a device that everybody may open.
pub(super) const OPEN_TO_ALL: u32 = 0o666;

/// A step.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Step {
    /// A group that there was not.
    Group { name: String },
    /// A program file.
    Program {
        path: PathBuf,
        /// Copied from there; `None`: it was there.
        from: Option<PathBuf>,
        /// Who may use it; `None`: the members of the group, with CAP_NET_ADMIN, whatever number it gets.
        access: Option<Access>,
        group: String,
        /// What it had before, if it was there.
        before: Option<Access>,
    },
    /// A file that there was not.
    File { path: PathBuf, text: String },
    /// Lines at the end of a file.
    Lines { path: PathBuf, text: String },
    /// A device that everybody may open, until the host starts again.
    Device {
        path: PathBuf,
        /// The mode that it had.
        before: u32,
    },
}

/// What undoing has left.
pub(super) enum Left {
    Nothing,
    /// It is not what it was made, and stays.
    Changed,
}

impl Step {
    /// Whether both are about the same thing.
    pub(super) fn is_of_the_same_as(&self, other: &Step) -> bool {
        self.thing() == other.thing()
    }

    fn thing(&self) -> (u8, &Path) {
        match self {
            Step::Group { name } => (0, Path::new(name)),
            Step::Program { path, .. } => (1, path),
            Step::File { path, .. } => (2, path),
            Step::Lines { path, .. } => (3, path),
            Step::Device { path, .. } => (4, path),
        }
    }

    /// This step after another one that did something to the same thing: what there was before that stays
    /// known.
    pub(super) fn instead_of(self, earlier: &Step) -> Step {
        match (self, earlier) {
            (Step::Program { path, access, group, .. }, Step::Program { from, before, .. }) => {
                Step::Program { path, from: from.clone(), access, group, before: before.clone() }
            }
            (Step::Device { .. }, earlier @ Step::Device { .. }) => earlier.clone(),
            (step, _) => step,
        }
    }

    /// Whether there is nothing to do.
    pub(super) fn is_done(&self) -> bool {
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        match self {
            Step::Group { name } => group::number(name).is_some(),
            Step::Program { path, from, .. } => {
                let same = from.as_ref().is_none_or(|from| program::same(from, path));
                same && self.access().is_some_and(|wanted| Access::read(path).is_ok_and(|has| has == wanted))
            }
            Step::File { path, text } => read(path) == *text,
            Step::Lines { path, text } => read(path).contains(text.as_str()),
            Step::Device { path, .. } => Access::mode_of(path).is_ok_and(|mode| mode == OPEN_TO_ALL),
        }
    }

    /// The access that a program gets; `None` as long as there is no such group.
    fn access(&self) -> Option<Access> {
        match self {
            Step::Program { access: Some(access), .. } => Some(access.clone()),
            Step::Program { group, .. } => group::number(group).map(Access::of_members),
            _ => None,
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// What the system objects to.
    pub(super) fn apply(&self) -> anyhow::Result<()> {
        match self {
            Step::Group { name } => group::make(name),
            Step::Program { path, from, group, .. } => {
                let access = self.access().with_context(|| format!("there is no group {group}"))?;
                match from {
                    Some(from) => program::install(from, path, &access),
                    None => program::change(path, &access),
                }
            }
            Step::File { path, text } => write(path, text),
            Step::Lines { path, text } => {
                let all = fs::read_to_string(path).with_context(|| cannot("read", path))?;
                write(path, &(all + text))
            }
            Step::Device { path, .. } => change_mode(path, OPEN_TO_ALL),
        }
    }

    /// Undoes it. That it was not done, or has been undone, is fine.
    ///
    /// # Errors
    /// What the system objects to.
    pub(super) fn undo(&self) -> anyhow::Result<Left> {
        match self {
            Step::Group { name } => group::remove(name)?,
            Step::Program { path, from: Some(_), .. } => remove(path)?,
            Step::Program { path, before: Some(before), .. } if path.exists() => {
                program::change(path, before)?
            }
            Step::Program { .. } => {}
            Step::File { path, text } => match fs::read_to_string(path) {
                Ok(now) if now != *text => return Ok(Left::Changed),
                _ => remove(path)?,
            },
            Step::Lines { path, text } => match fs::read_to_string(path) {
                Ok(now) if now.contains(text.as_str()) => write(path, &now.replacen(text.as_str(), "", 1))?,
                Ok(_) => return Ok(Left::Changed),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| cannot("read", path)),
            },
            Step::Device { path, before } => match Access::mode_of(path) {
                Ok(OPEN_TO_ALL) => change_mode(path, *before)?,
                Ok(_) => return Ok(Left::Changed),
                Err(_) => {}
            },
        }
        Ok(Left::Nothing)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Group { name } => write!(f, "make the group {name}"),
            Step::Program { path, from, access, group, .. } => {
                let copied = |from: &PathBuf| format!("copy {} to", from.display());
                let what = from.as_ref().map_or_else(|| "change".to_owned(), copied);
                write!(f, "{what} {}: ", path.display())?;
                match access {
                    Some(access) => write!(f, "mode {:04o}, no capability", access.mode),
                    None => write!(f, "mode 0750, group {group}, capability cap_net_admin=ep"),
                }
            }
            Step::File { path, .. } => write!(f, "write {}", path.display()),
            Step::Lines { path, text } => {
                let lines: Vec<&str> =
                    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
                write!(f, "add to {}: {}", path.display(), lines.join(", "))
            }
            Step::Device { path, .. } => {
                write!(f, "let everybody open {}, until this host starts again", path.display())
            }
        }
    }
}

/// Writes a file whole, with the mode that it has, or that of a file that everybody may read.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let write = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, text)
    };
    write().with_context(|| cannot("write", path))
}

fn change_mode(path: &Path, mode: u32) -> anyhow::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .with_context(|| cannot("change the mode of", path))
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| cannot("remove", path))
        }
        _ => Ok(()),
    }
}

fn cannot(what: &str, path: &Path) -> crate::failure::Failure {
    Class::Host.failure(format!("cannot {what} {}", path.display()))
}

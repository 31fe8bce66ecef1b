//! Running a command in a namespace.

use crate::error::CaptureError;
use crate::namespace::Namespace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, User};
use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus};

/// Whose privileges a command gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Caller {
    /// This process's own.
    Same,
    /// Another user's, who has called this process by way of `sudo`.
    User {
        /// The user.
        uid: Uid,
        /// The user's first group.
        gid: Gid,
        /// All of the user's groups.
        groups: Vec<Gid>,
        /// The user's name.
        name: CString,
        /// The user's home directory.
        home: Option<OsString>,
    },
}

impl Caller {
    /// Who has called: with `sudo`, the user that SUDO_UID and SUDO_GID name, if this process is root.
    pub fn find() -> Caller {
        let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
        let (Some(uid), Some(gid)) = (number("SUDO_UID"), number("SUDO_GID")) else { return Caller::Same };
        if uid == 0 || !nix::unistd::geteuid().is_root() {
            return Caller::Same;
        }
        let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        let name = user.as_ref().map(|u| u.name.clone()).or_else(|| std::env::var("SUDO_USER").ok());
        let name = CString::new(name.unwrap_or_else(|| uid.to_string())).unwrap_or_default();
        let home = user.map(|u| u.dir.into_os_string());
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let groups = nix::unistd::getgrouplist(&name, gid).unwrap_or_else(|_| vec![gid]);
        Caller::User { uid, gid, groups, name, home }
    }
}

/// A command to run.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its name or path.
    pub command: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Whose privileges it gets.
    pub caller: Caller,
}

/// A command that runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
}

impl Program {
    /// Starts it in a namespace, with the terminal, the environment and the working directory of this
    /// process.
    ///
    /// # Errors
    /// [`CaptureError::NotFound`] and [`CaptureError::NotExecutable`], as a shell tells them apart.
    pub fn start(self, namespace: &Namespace) -> Result<Running, CaptureError> {
        let name = self.command.to_string_lossy().into_owned();
        let parent = nix::unistd::getpid();
        let child = namespace.run(move || self.prepared(Some(parent)).spawn())?;
        Ok(Running { child: child.map_err(|source| not_started(name, source))? })
    }

    /// Starts it where this process is, in the same way.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn start_here(self) -> Result<Running, CaptureError> {
        let name = self.command.to_string_lossy().into_owned();
        let child = self.prepared(None).spawn().map_err(|source| not_started(name, source))?;
        Ok(Running { child })
    }

    /// Becomes it: this process goes on as the command. Returns only if that cannot be, and why.
    pub fn replace_this(self) -> CaptureError {
        let name = self.command.to_string_lossy().into_owned();
        let source = self.prepared(None).exec();
        not_started(name, source)
    }

    /// Ready to be started. With `parent`, its end is that of the command.
    #[allow(unsafe_code)]
    fn prepared(self, parent: Option<Pid>) -> Command {
        let mut command = Command::new(&self.command);
        command.args(&self.arguments);
        if let Caller::User { name, home, .. } = &self.caller {
            use std::os::unix::ffi::OsStrExt as _;
            let name = std::ffi::OsStr::from_bytes(name.as_bytes());
            command.env("USER", name).env("LOGNAME", name);
            if let Some(home) = home {
                command.env("HOME", home);
            }
            for variable in ["SUDO_UID", "SUDO_GID", "SUDO_USER", "SUDO_COMMAND"] {
                command.env_remove(variable);
            }
        }
        let caller = self.caller;
        let prepare = move || {
            match &caller {
                Caller::Same => {}
                Caller::User { uid, gid, groups, .. } => {
                    nix::unistd::setgroups(groups)?;
                    nix::unistd::setgid(*gid)?;
                    nix::unistd::setuid(*uid)?;
                }
            }
            if let Some(parent) = parent {
                // Without us it has no network. After the change of user, which would take it back.
                nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
                if nix::unistd::getppid() != parent {
                    return Err(io::ErrorKind::Interrupted.into());
                }
            }
            Ok(())
        };
        // SAFETY: between fork and exec it only makes system calls, on memory that it owns, and takes no
        // lock.
        unsafe { command.pre_exec(prepare) };
        command
    }
}

fn not_started(command: String, source: io::Error) -> CaptureError {
    match source.kind() {
        io::ErrorKind::NotFound => CaptureError::NotFound { command },
        // Of a folder in PATH that this user may not look into.
        io::ErrorKind::PermissionDenied if !is_found(&command) => CaptureError::NotFound { command },
        _ => CaptureError::NotExecutable { command, source },
    }
}

/// Whether there is a file that a command may mean, as far as this user sees.
fn is_found(command: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.contains('/') || std::env::split_paths(&path).any(|folder| folder.join(command).exists())
}

impl Running {
    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When somebody else has waited for it.
    pub fn wait(mut self) -> io::Result<u8> {
        Ok(exit_code(self.child.wait()?))
    }
}

/// Sends a signal to a process that may have ended.
pub fn signal_process(id: u32, signal: Signal) {
    if let Ok(id) = i32::try_from(id) {
        // ESRCH: it has ended.
        let _ = kill(Pid::from_raw(id), signal);
    }
}

/// As shells have it: 128 + N for signal N.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|n| 128 + n));
    code.and_then(|n| u8::try_from(n & 0xff).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        for (raw, code) in [(0, 0), (3 << 8, 3), (255 << 8, 255), (9, 137), (2, 130)] {
            assert_eq!(exit_code(ExitStatus::from_raw(raw)), code);
        }
    }
}

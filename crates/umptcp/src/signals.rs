//! The signals that end a process.

use signal_hook::consts::{SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU};
use std::io;

/// The signals that end a process by default, except those that tell of a bug.
pub const ALL: [i32; 8] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGXCPU];

/// [`ALL`] without those that this process ignores, as `nohup` has it do.
///
/// # Errors
/// When the system does not tell: only Linux does, in /proc.
pub fn not_ignored() -> io::Result<Vec<i32>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    Ok(ALL.into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0).collect())
}

//! `clean-up`: what crashed instances have left on this host.

use crate::failure::Class;

/// Removes it and says what it was.
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
pub(crate) fn run() -> anyhow::Result<()> {
    use anyhow::Context as _;

    // These need no privilege but that of their owner.
    let mut files = umptcp_control::directory::remove_dead();
    files.extend(crate::up::remove_dead());
    files.iter().try_for_each(|line| crate::console::print(line))?;
    let done = umptcp::clean_up_leftovers().context(Class::Host.failure("cannot clean up"))?;
    let of_root = umptcp_tun_driver::paths::leftovers_of_root().unwrap_or_default();
    if done.is_empty() && files.is_empty() && of_root.is_empty() {
        return crate::console::print("nothing was left behind");
    }
    done.iter().try_for_each(|line| crate::console::print(line))?;
    if !of_root.is_empty() {
        let those: Vec<String> = of_root.iter().map(ToString::to_string).collect();
        let text = format!(
            "what umptcp has changed on this host as root (process {}) is still there, and this user may not undo it: `sudo umptcp clean-up`",
            those.join(", ")
        );
        return Err(Class::Host.failure(text).into());
    }
    // The lines say what and why.
    anyhow::ensure!(
        !done.iter().any(|line| line.contains("not undone")),
        Class::Host.failure("not everything could be undone")
    );
    Ok(())
}

#[cfg(any(not(target_os = "linux"), umptcp_portable))]
pub(crate) fn run() -> anyhow::Result<()> {
    Err(Class::Host.failure("only on Linux does umptcp change the host").into())
}

//! Network namespaces for tests: each belongs to one thread and disappears with it.

use std::process::Command;

/// Runs `test` on a new thread in a new network namespace with loopback up. Skips the test if this process
/// cannot create one.
pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        if let Err(e) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
            eprintln!("skipped: cannot create a network namespace: {e}");
            return;
        }
        ip("link set lo up");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` with these arguments in the thread's namespace.
pub(crate) fn ip(arguments: &str) {
    let out = Command::new("ip").args(arguments.split_whitespace()).output().expect("ip is installed");
    assert!(out.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Writes a sysctl of the thread's namespace.
#[allow(dead_code, reason = "not every test needs it")]
pub(crate) fn sysctl(name: &str, value: &str) {
    // /proc/sys/net shows the namespace of the calling thread.
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    std::fs::write(&path, value).unwrap_or_else(|e| panic!("{path}: {e}"));
}

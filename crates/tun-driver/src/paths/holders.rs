//! Which network namespaces are gone: nothing can enter them any more, so what was changed in them need not be undone.
//!
//! A namespace lives as long as somebody holds it: a thread that is in it, a descriptor of it, or a mount of it, in any
//! mount namespace. Whatever may not be looked at may hold one, so a namespace counts as gone only where everything was
//! looked at, or where the kernel itself says so. Not seen by looking are descriptors on their way from one process to
//! another and sockets that have outlived everything else in their namespace.

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use rustix::thread::{CapabilitySet, capabilities};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The network namespace of the calling thread, by a name that is unique until reboot.
pub(super) fn namespace_name() -> io::Result<String> {
    let probe: OwnedFd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes to `cookie`.
    #[allow(unsafe_code)]
    let result = unsafe {
        libc::getsockopt(
            probe.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        return Ok(format!("{cookie:x}"));
    }
    // Before Linux 5.14: the inode, which can be reused once the namespace is gone.
    Ok(format!("i{:x}", fs::metadata("/proc/thread-self/ns/net")?.ino()))
}

/// What is known so far. It is gathered when it is first asked for, and then holds for all questions.
#[derive(Debug)]
pub(super) struct Holders {
    proc: PathBuf,
    seen: Option<Seen>,
}

impl Default for Holders {
    fn default() -> Self {
        Holders { proc: PathBuf::from("/proc"), seen: None }
    }
}

impl Holders {
    /// Whether a namespace is certainly gone. `name`: the one that is unique until reboot. `shown`: by /proc/PID/ns/net.
    pub(super) fn is_gone(&mut self, name: &str, shown: &str) -> bool {
        if shown.is_empty() {
            return false;
        }
        if let Some(exists) = known_to_the_kernel(name, shown) {
            return !exists;
        }
        let seen = self.seen.get_or_insert_with(|| Seen::tasks(&self.proc));
        if seen.found.contains(shown) {
            return false;
        }
        if !seen.is_whole {
            seen.look_closer(&self.proc);
        }
        !seen.hidden && !seen.found.contains(shown)
    }
}

/// The namespaces found below /proc.
#[derive(Default, Debug)]
struct Seen {
    /// Network namespaces, in the form `net:[INODE]`.
    found: BTreeSet<String>,
    /// Something may not be looked at.
    hidden: bool,
    /// Descriptors and mounts have been looked at, too.
    is_whole: bool,
}

impl Seen {
    /// Those with a thread in them.
    fn tasks(proc: &Path) -> Seen {
        let mut seen = Seen::default();
        seen.add_tasks(proc);
        seen
    }

    /// Those that a descriptor or a mount holds, too.
    fn look_closer(&mut self, proc: &Path) {
        self.hidden |= !sees_every_process(proc);
        // Mount namespaces: with a thread in them, of which this many see all mounts; held by something else.
        let (mut inhabited, mut held) = (BTreeMap::new(), BTreeSet::new());
        for Task { process, thread } in self.all_tasks(proc) {
            self.add_mounts(&thread, &mut inhabited, &mut held);
            if !shares_descriptors(&process, &thread) {
                self.add_descriptors(&thread, &mut held);
            }
        }
        // One without a thread has mounts that nobody shows, and of one whose threads have all changed their root, there are
        // others.
        self.hidden |= inhabited.values().any(|all: &bool| !all);
        self.hidden |= held.iter().any(|namespace| !inhabited.contains_key(namespace));
        // Who entered one by a descriptor that has been closed since has not been seen.
        self.add_tasks(proc);
        self.is_whole = true;
    }

    fn add_tasks(&mut self, proc: &Path) {
        for task in self.all_tasks(proc) {
            if let Some(link) = self.link(&task.thread.join("ns/net")) {
                self.found.insert(link);
            }
        }
    }

    /// The mounts that a thread sees, unless they are known.
    fn add_mounts(
        &mut self,
        thread: &Path,
        inhabited: &mut BTreeMap<String, bool>,
        held: &mut BTreeSet<String>,
    ) {
        let (Some(namespace), Some(root)) =
            (self.link(&thread.join("ns/mnt")), self.link(&thread.join("root")))
        else {
            return;
        };
        let all = inhabited.entry(namespace).or_insert(false);
        if *all {
            return;
        }
        let text = match fs::read_to_string(thread.join("mountinfo")) {
            // It has ended, and has no mounts any more.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
            other => self.look(other),
        };
        let Some(text) = text else { return };
        *all = root == "/";
        // `... INODE:[...] /run/netns/NAME ... - nsfs nsfs ...`: the fourth field is the root, `net:[INODE]`.
        for root in text.lines().filter_map(|line| line.split(' ').nth(3)) {
            self.add(root, held);
        }
    }

    fn add_descriptors(&mut self, thread: &Path, held: &mut BTreeSet<String>) {
        let Some(listing) = self.look(fs::read_dir(thread.join("fd"))) else { return };
        for number in listing.flatten().map(|entry| entry.file_name()) {
            let Some(link) = self.link(&thread.join("fd").join(&number)) else { continue };
            if !link.starts_with('/') {
                self.add(&link, held);
                continue;
            }
            // One that was opened by a mount is shown as that. Its file system is not asked: it may not answer.
            let Some(text) = self.look(fs::read_to_string(thread.join("fdinfo").join(&number))) else {
                continue;
            };
            match text.lines().find_map(|line| line.strip_prefix("ino:")) {
                Some(inode) => drop(self.found.insert(format!("net:[{}]", inode.trim()))),
                // Before Linux 5.14.
                None => self.hidden = true,
            }
        }
    }

    /// A namespace that something holds.
    fn add(&mut self, shown: &str, mounts: &mut BTreeSet<String>) {
        if shown.starts_with("net:[") {
            self.found.insert(shown.to_owned());
        } else if shown.starts_with("mnt:[") {
            mounts.insert(shown.to_owned());
        }
    }

    fn all_tasks(&mut self, proc: &Path) -> Vec<Task> {
        let mut tasks = Vec::new();
        let listing = self.look(fs::read_dir(proc)).into_iter().flatten().flatten();
        for process in listing.filter(|e| e.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()))
        {
            let process = process.path();
            let threads = self.look(fs::read_dir(process.join("task"))).into_iter().flatten().flatten();
            tasks.extend(threads.map(|t| Task { process: process.clone(), thread: t.path() }));
        }
        tasks
    }

    fn link(&mut self, path: &Path) -> Option<String> {
        self.look(fs::read_link(path)).map(|link| link.display().to_string())
    }

    /// What has ended meanwhile holds nothing; what cannot be looked at for another reason may.
    fn look<T>(&mut self, result: io::Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error)
                if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) =>
            {
                None
            }
            Err(_) => {
                self.hidden = true;
                None
            }
        }
    }
}

/// A thread, and its process.
struct Task {
    process: PathBuf,
    thread: PathBuf,
}

/// The first PID namespace of the system (`PROC_PID_INIT_INO`).
const FIRST_PIDS: &str = "pid:[4026531836]";
/// The first user namespace of the system (`PROC_USER_INIT_INO`).
const FIRST_USERS: &str = "user:[4026531837]";

/// Whether processes of other PID namespaces are shown, and those that may not be looked at are not left out.
fn sees_every_process(proc: &Path) -> bool {
    let link = |path: &str| fs::read_link(proc.join(path)).map(|link| link.display().to_string());
    let own = link("self").is_ok_and(|own| own == std::process::id().to_string());
    let first = link("self/ns/pid").is_ok_and(|shown| shown == FIRST_PIDS);
    let Ok(mounts) = fs::read_to_string(proc.join("self/mountinfo")) else { return false };
    let leaves_out = |line: &str| {
        let Some((_, options)) = line.split_once(" - proc ") else { return false };
        options.split([' ', ',']).any(|option| {
            option.strip_prefix("hidepid=").is_some_and(|how| !matches!(how, "0" | "1" | "off" | "noaccess"))
        })
    };
    own && first && !mounts.lines().any(leaves_out)
}

/// Whether a thread has the descriptors of its process's first one, which are looked at by that.
fn shares_descriptors(process: &Path, thread: &Path) -> bool {
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<libc::pid_t>().ok();
    let (Some(process), Some(thread)) = (number(process), number(thread)) else { return false };
    const KCMP_FILES: libc::c_int = 2;
    // SAFETY: the system call takes numbers only.
    #[allow(unsafe_code)]
    let same = unsafe { libc::syscall(libc::SYS_kcmp, process, thread, KCMP_FILES, 0, 0) };
    process != thread && same == 0
}

/// A handle of a namespace, as name_to_handle_at(2) and open_by_handle_at(2) have it (Linux 6.18).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Handle {
    bytes: u32,
    kind: i32,
    id: [u32; 2],
    of: u32,
    inode: u32,
}

/// `FILEID_NSFS`.
const NAMESPACE: i32 = 0xf1;

impl Handle {
    /// Of a namespace that there is, by its file.
    fn of(file: &std::ffi::CStr) -> io::Result<Handle> {
        let bytes = (size_of::<Handle>() - offset_of!(Handle, id)) as u32;
        let mut handle = Handle { bytes, kind: 0, id: [0; 2], of: 0, inode: 0 };
        let mut mount: libc::c_int = 0;
        // SAFETY: the name ends in a zero byte, and the kernel writes to the handle no more than it says it has room for.
        #[allow(unsafe_code)]
        let result = unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                libc::AT_FDCWD,
                file.as_ptr(),
                &raw mut handle,
                &raw mut mount,
                libc::AT_SYMLINK_FOLLOW,
            )
        };
        let whole = handle.bytes == bytes && handle.kind == NAMESPACE;
        match result {
            0 if whole => Ok(handle),
            0 => Err(io::ErrorKind::Unsupported.into()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The same kind of handle for another namespace.
    fn with(self, id: u64, inode: u32) -> Handle {
        let halves = id.to_ne_bytes();
        let half = |n: usize| u32::from_ne_bytes([halves[n], halves[n + 1], halves[n + 2], halves[n + 3]]);
        Handle { id: [half(0), half(4)], inode, ..self }
    }

    /// Opens the namespace; the error is ESTALE if there is none. `beside`: any file of the same file system.
    fn open(&self, beside: &fs::File) -> io::Result<OwnedFd> {
        // SAFETY: the kernel reads from the handle what it says it has. The descriptor it returns is nobody else's.
        #[allow(unsafe_code)]
        unsafe {
            let flags = libc::O_RDONLY | libc::O_CLOEXEC;
            let opened =
                libc::syscall(libc::SYS_open_by_handle_at, beside.as_raw_fd(), &raw const *self, flags);
            if opened < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(OwnedFd::from_raw_fd(opened as RawFd))
        }
    }
}

/// Whether the kernel has this namespace; `None` where it does not say.
fn known_to_the_kernel(name: &str, shown: &str) -> Option<bool> {
    let id = u64::from_str_radix(name, 16).ok()?;
    let inode = shown.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()?;
    // To others, a namespace that they may not enter is as one that is gone.
    let may_see_all = capabilities(None).ok()?.effective.contains(CapabilitySet::SYS_ADMIN)
        && fs::read_link("/proc/thread-self/ns/user").ok()?.as_os_str() == FIRST_USERS
        && fs::read_link("/proc/thread-self/ns/pid").ok()?.as_os_str() == FIRST_PIDS;
    if !may_see_all {
        return None;
    }
    let own_id = u64::from_str_radix(&namespace_name().ok()?, 16).ok()?;
    let own = Handle::of(c"/proc/thread-self/ns/net").ok()?;
    let beside = fs::File::open("/proc/thread-self/ns/net").ok()?;
    // The one that certainly exists shows whether names and handles are the same numbers.
    own.with(own_id, own.inode).open(&beside).ok()?;
    match own.with(id, inode).open(&beside) {
        Ok(_) => Some(true),
        Err(error) if error.raw_os_error() == Some(libc::ESTALE) => Some(false),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::fs::symlink;
    use std::process::{Child, Command, Stdio};

    fn shown() -> String {
        fs::read_link("/proc/thread-self/ns/net").unwrap().display().to_string()
    }

    /// Makes a network namespace by a thread of its own, which ends; what it makes of it stays.
    fn made<T: Send + 'static>(keep: impl FnOnce() -> T + Send + 'static) -> (String, String, T) {
        std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            (namespace_name().unwrap(), shown(), keep())
        })
        .join()
        .unwrap()
    }

    /// Whether these tests can be: they make namespaces.
    fn is_root() -> bool {
        nix::unistd::geteuid().is_root()
    }

    /// What is found by looking, whatever the kernel knows.
    fn found(shown: &str) -> bool {
        let mut seen = Seen::tasks(Path::new("/proc"));
        assert!(!seen.found.contains(shown), "no thread is in it");
        seen.look_closer(Path::new("/proc"));
        seen.found.contains(shown)
    }

    #[test]
    fn a_namespace_with_a_thread_is_not_gone() {
        assert!(!Holders::default().is_gone(&namespace_name().unwrap(), &shown()));
        assert!(!Holders::default().is_gone("elsewhere", &shown()));
        assert!(!Holders::default().is_gone("elsewhere", ""), "one of which too little is known");
    }

    #[test]
    fn a_descriptor_holds_a_namespace() {
        if !is_root() {
            return;
        }
        let (name, shown, held) = made(|| fs::File::open("/proc/thread-self/ns/net").unwrap());
        assert!(found(&shown));
        assert!(!Holders::default().is_gone(&name, &shown));
        assert!(!Holders::default().is_gone("elsewhere", &shown));
        drop(held);
        if kernel_says() {
            gone_soon(&name, &shown);
        }
    }

    /// The kernel takes a namespace apart some time after its last holder. The number of its file may soon be another's.
    fn gone_soon(name: &str, shown: &str) {
        let gone = || known_to_the_kernel(name, shown) == Some(false);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !gone() {
            assert!(std::time::Instant::now() < end, "{name} {shown}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Whether the kernel says what is gone: not before Linux 6.18, nor in a container.
    fn kernel_says() -> bool {
        known_to_the_kernel(&namespace_name().unwrap(), &shown()) == Some(true)
    }

    /// Leaves a mount of a network namespace in a mount namespace of its own, and nothing else: `then` is done there.
    fn mounted(then: &str) -> (Child, String, String) {
        let script = format!(
            "mount -t tmpfs none /tmp && touch /tmp/held && mount --bind /proc/self/ns/net /tmp/held && \
             readlink /proc/self/ns/net && exec nsenter --net=/proc/$PPID/ns/net sh -c '{then}'"
        );
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--propagation", "private", "sh", "-c", &script]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let shown = lines.next().unwrap().unwrap();
        let ready = lines.next().unwrap().unwrap();
        (child, shown, ready)
    }

    #[test]
    fn a_mount_that_is_not_visible_here_holds_a_namespace() {
        if !is_root() {
            return;
        }
        let (mut child, shown, _) = mounted("echo ready; read end");
        let here = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert!(!here.contains(&shown));
        assert!(found(&shown));
        assert!(!Holders::default().is_gone("elsewhere", &shown));
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn a_descriptor_that_was_opened_by_a_mount_holds_a_namespace() {
        if !is_root() {
            return;
        }
        let (mut child, shown, link) =
            mounted("exec 3< /tmp/held; umount -l /tmp/held; readlink /proc/self/fd/3; read end");
        assert!(!link.starts_with("net:["), "{link}");
        assert!(found(&shown));
        assert!(!Holders::default().is_gone("elsewhere", &shown));
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn the_kernel_says_what_is_gone_where_not_everything_can_be_looked_at() {
        if !is_root() || !kernel_says() {
            return;
        }
        let (name, shown, ()) = made(|| ());
        gone_soon(&name, &shown);
        assert!(Holders::default().is_gone(&name, &shown));
        // The number of a file may be another namespace's by now.
        assert!(Holders::default().is_gone(&name, &self::shown()));
    }

    /// A /proc with this process alone in it.
    struct Proc(PathBuf);

    impl Proc {
        fn new(name: &str) -> Proc {
            let path = std::env::temp_dir().join(format!("umptcp-holders-{}-{name}", std::process::id()));
            let own = std::process::id().to_string();
            let (process, task) = (path.join(&own), path.join(&own).join("task").join(&own));
            fs::create_dir_all(process.join("ns")).unwrap();
            symlink(&own, path.join("self")).unwrap();
            symlink(FIRST_PIDS, process.join("ns/pid")).unwrap();
            fs::write(process.join("mountinfo"), "1 0 0:1 / /proc rw - proc proc rw\n").unwrap();
            for folder in ["ns", "fd", "fdinfo"] {
                fs::create_dir_all(task.join(folder)).unwrap();
            }
            symlink("net:[5]", task.join("ns/net")).unwrap();
            symlink("mnt:[6]", task.join("ns/mnt")).unwrap();
            symlink("/", task.join("root")).unwrap();
            fs::write(task.join("mountinfo"), "2 1 0:2 net:[7] /run/netns/a rw - nsfs nsfs rw\n").unwrap();
            symlink("net:[8]", task.join("fd/0")).unwrap();
            symlink("/run/netns/b", task.join("fd/1")).unwrap();
            fs::write(task.join("fdinfo/1"), "pos:\t0\nmnt_id:\t3\nino:\t9\n").unwrap();
            symlink("socket:[10]", task.join("fd/2")).unwrap();
            Proc(path)
        }

        fn task(&self) -> PathBuf {
            let own = std::process::id().to_string();
            self.0.join(&own).join("task").join(&own)
        }

        fn gone(&self) -> Vec<u32> {
            let mut holders = Holders { proc: self.0.clone(), seen: None };
            (4..12).filter(|n| holders.is_gone("elsewhere", &format!("net:[{n}]"))).collect()
        }

        /// Changes the link.
        fn set(&self, link: PathBuf, target: &str) {
            fs::remove_file(&link).unwrap();
            symlink(target, link).unwrap();
        }
    }

    impl Drop for Proc {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_nothing_holds_is_gone_where_everything_can_be_looked_at() {
        assert_eq!(Proc::new("all").gone(), [4, 6, 10, 11]);
    }

    #[test]
    fn nothing_is_gone_where_something_cannot_be_looked_at() {
        let hide = |name: &str, change: &dyn Fn(&Proc)| {
            let proc = Proc::new(name);
            change(&proc);
            assert!(proc.gone().is_empty(), "{name}");
        };
        // What is no link cannot be read as one.
        let closed = |path: PathBuf| {
            fs::remove_file(&path).unwrap();
            fs::write(path, "").unwrap();
        };
        hide("thread", &|proc| closed(proc.task().join("ns/net")));
        hide("mounts", &|proc| closed(proc.task().join("ns/mnt")));
        hide("descriptor", &|proc| closed(proc.task().join("fd/0")));
        hide("descriptors", &|proc| {
            fs::remove_dir_all(proc.task().join("fd")).unwrap();
            fs::write(proc.task().join("fd"), "").unwrap();
        });
        hide("inode", &|proc| fs::write(proc.task().join("fdinfo/1"), "pos:\t0\n").unwrap());
        hide("changed root", &|proc| proc.set(proc.task().join("root"), "/jail"));
        hide("held mounts", &|proc| proc.set(proc.task().join("fd/2"), "mnt:[11]"));
        hide("other PIDs", &|proc| proc.set(proc.0.join("self/ns/pid"), "pid:[11]"));
        hide("of another", &|proc| {
            let other = (std::process::id() + 1).to_string();
            fs::rename(proc.0.join(std::process::id().to_string()), proc.0.join(&other)).unwrap();
            proc.set(proc.0.join("self"), &other);
        });
        hide("hidepid", &|proc| {
            let line = "1 0 0:1 / /proc rw - proc proc rw,hidepid=invisible\n";
            fs::write(proc.0.join("self/mountinfo"), line).unwrap();
        });
    }
}

//! An instance of numbers, and a folder for its socket.

#![allow(dead_code, reason = "each test uses a part")]
#![allow(missing_docs, reason = "for tests")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use umptcp_control::call::{AddPath, CaptureCaller, Captured, Changed, SetAlgorithms};
use umptcp_control::instance::Answer;
use umptcp_control::state::{CounterList, Event, Path as PathState};
use umptcp_control::{Code, Events, Failure, Instance, Kind, Next, Peer, Server, ServerOptions};

/// A folder that is removed when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("umptcp-control-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder can be made");
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn directory(&self) -> Vec<PathBuf> {
        vec![self.0.clone()]
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Counts its calls, and tells so many events as it was told to.
#[derive(Default)]
pub(crate) struct Numbers {
    pub(crate) calls: AtomicU64,
    pub(crate) events: u64,
    /// The text in each event.
    pub(crate) padding: usize,
}

impl Instance for Numbers {
    fn counters(&self) -> Answer<CounterList> {
        let n = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(CounterList { counters: [("MPTcpExtCalls".to_owned(), n)].into() })
    }

    fn add_path(&self, call: &AddPath) -> Answer<PathState> {
        match call.path.as_str() {
            "eth0" => Err(Failure::new(Code::Exists, "eth0 is used already")),
            name => Ok(PathState {
                name: name.to_owned(),
                captured: false,
                addresses: Vec::new(),
                backup: false,
                bytes_sent: 0,
                bytes_received: 0,
            }),
        }
    }

    /// The number of the run is that of the process that has asked.
    fn capture_caller(&self, _: &CaptureCaller, peer: &Peer) -> Answer<Captured> {
        let unknown = || Failure::new(Code::Failed, "the kernel does not say who asks");
        let process = peer.process.filter(|_| !peer.has_ended()).ok_or_else(unknown)?;
        Ok(Captured { run: u64::from(process), paths: vec![format!("{:?}", peer.user)] })
    }

    fn set_algorithms(&self, call: &SetAlgorithms) -> Answer<Changed> {
        assert_ne!(call.scheduler.as_deref(), Some("panic"), "what a bug does");
        Ok(Changed { connections: 3 })
    }

    fn events(&self) -> Answer<Box<dyn Events>> {
        Ok(Box::new(Counting { left: self.events, next: 0, text: "x".repeat(self.padding) }))
    }
}

struct Counting {
    left: u64,
    next: u64,
    text: String,
}

impl Events for Counting {
    fn next(&mut self, limit: Duration) -> Next {
        if self.left == 0 {
            std::thread::sleep(limit);
            return Next::Nothing;
        }
        self.left -= 1;
        self.next += 1;
        let event = "CREATED".to_owned();
        let reason = (!self.text.is_empty()).then(|| self.text.clone());
        Next::Event(Box::new(Event { time_us: self.next, event, reason, ..Event::default() }))
    }
}

pub(crate) fn options(folder: &Folder) -> ServerOptions {
    ServerOptions::default().directory(folder.path())
}

pub(crate) fn serve(folder: &Folder, name: &str, instance: Numbers) -> Server {
    Server::start_with(name, Kind::Run, Arc::new(instance), options(folder)).expect("it serves")
}

//! Tasks: services, and the connections that they have begun.

use anyhow::Context as _;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, EnterGuard, Handle, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Threads that carry bytes between the stack and the kernel.
const THREADS: usize = 2;

/// How long the stack may take to tell peers of its end, after connections had their time.
pub(crate) const LAST_WORDS: Duration = Duration::from_millis(500);

/// What runs tasks.
pub(crate) fn runtime() -> anyhow::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    let threads = builder.worker_threads(THREADS).thread_name("umptcp-services");
    threads.enable_all().build().context("cannot start threads")
}

/// Where tasks are begun.
#[derive(Clone)]
pub(crate) struct Tasks {
    handle: Handle,
    /// Held by each connection: when all are gone, so are they.
    alive: mpsc::Sender<Infallible>,
    /// Who hears of services that have failed.
    failed: Arc<dyn Fn(String) + Send + Sync>,
}

/// A service's task. Dropping it ends it, and returns when everything of it is gone: its port may be wanted
/// at once. Not to be dropped by a task.
pub(crate) struct Task {
    handle: Handle,
    task: JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.task.abort();
        // It has been aborted, or has panicked.
        let _ = self.handle.block_on(&mut self.task);
    }
}

/// Whoever waits for the end of all connections.
pub(crate) struct Ends(mpsc::Receiver<Infallible>);

impl Tasks {
    /// Tasks of this runtime; `failed` hears of services that cannot go on.
    pub(crate) fn new(runtime: &Runtime, failed: impl Fn(String) + Send + Sync + 'static) -> (Tasks, Ends) {
        let (alive, ends) = mpsc::channel(1);
        (Tasks { handle: runtime.handle().clone(), alive, failed: Arc::new(failed) }, Ends(ends))
    }

    /// Begins a connection, which the end waits for.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let alive = self.alive.clone();
        self.handle.spawn(async move {
            task.await;
            drop(alive);
        });
    }

    /// Begins a service, which runs until what is returned is dropped.
    pub(crate) fn spawn_service(&self, task: impl Future<Output = ()> + Send + 'static) -> Task {
        Task { handle: self.handle.clone(), task: self.handle.spawn(task) }
    }

    /// Makes the runtime that of this thread.
    pub(crate) fn enter(&self) -> EnterGuard<'_> {
        self.handle.enter()
    }

    /// A service cannot go on.
    pub(crate) fn fail(&self, why: String) {
        (self.failed)(why);
    }
}

impl Ends {
    /// Waits until all connections have ended, for so long at most. No more may begin.
    pub(crate) fn wait(mut self, runtime: &Runtime, tasks: Tasks, limit: Duration) {
        drop(tasks);
        // None: all are gone; or the time is over.
        let _ = runtime.block_on(async { tokio::time::timeout(limit, self.0.recv()).await });
    }
}

//! A network namespace with a thread in it, which makes what must be made there.

use crate::namespace;
use anyhow::{Context as _, anyhow, ensure};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::thread::JoinHandle;

type Job = Box<dyn FnOnce() + Send>;

/// The namespace lives until this is dropped, and as long as sockets and devices in it are open.
pub(super) struct Site {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Site {
    /// A new namespace, with loopback.
    pub(super) fn new() -> anyhow::Result<Site> {
        let (jobs, queue) = channel::<Job>();
        let (ready, made) = sync_channel(1);
        let work = move || {
            let result = namespace::new_network();
            let failed = result.is_err();
            let _ = ready.send(result);
            if failed {
                return;
            }
            // What is started here is in the namespace, too.
            for job in queue {
                job();
            }
        };
        let thread = std::thread::Builder::new().name("namespace".to_owned()).spawn(work);
        let site = Site { jobs: Some(jobs), thread: Some(thread.context("cannot start a thread")?) };
        let made = made.recv().map_err(|_| anyhow!("a namespace's thread has ended"))?;
        made.context("cannot make a network namespace")?;
        Ok(site)
    }

    /// Does `work` in the namespace.
    pub(super) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let (answer, answered) = sync_channel(1);
        let job = Box::new(move || {
            let _ = answer.try_send(work());
        });
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        ensure!(sent, "a namespace's thread has ended");
        answered.recv().map_err(|_| anyhow!("a namespace's thread has failed"))?
    }

    /// Runs the program `ip` in the namespace with each of these lines of arguments.
    pub(super) fn ip(&self, lines: Vec<String>) -> anyhow::Result<()> {
        self.run(move || lines.iter().try_for_each(|line| ip(line)))
    }
}

fn ip(line: &str) -> anyhow::Result<()> {
    let mut command = Command::new("ip");
    let output = command.args(line.split_whitespace()).stdin(Stdio::null()).output();
    let output = output.context("cannot run `ip` (iproute2), which sets up the kernel's MPTCP")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`ip {line}` failed: {}", said.trim());
    Ok(())
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

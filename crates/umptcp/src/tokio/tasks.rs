//! How tasks of tokio wait.

use crate::error::Error;
use crate::waits::Waits;
use crate::worker::{Command, Commands, Context, Worker};
use std::future::{Future, pending};
use std::time::Instant;
use tokio::sync::oneshot;

/// A task of tokio.
#[derive(Debug)]
pub(super) struct Tasks;

impl Waits for Tasks {
    async fn call<T: Send + 'static>(
        &self,
        commands: &Commands,
        job: impl FnOnce(&mut Worker, &mut Context<'_>) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (tx, rx) = oneshot::channel();
        commands.send(Command::Run(Box::new(move |worker, cx| {
            // The caller may be gone.
            let _ = tx.send(job(worker, cx));
        })));
        rx.await.map_err(|_| Error::Stopped)
    }

    fn until(&self, at: Option<Instant>) -> impl Future<Output = ()> + Send {
        let sleep = at.map(|at| tokio::time::sleep_until(at.into()));
        async {
            match sleep {
                Some(sleep) => sleep.await,
                None => pending().await,
            }
        }
    }
}

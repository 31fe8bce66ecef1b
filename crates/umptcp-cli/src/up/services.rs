//! What the daemon does at the moment, and how that becomes what a configuration says.

use super::config::Config;
use super::listen::Listening;
use super::tasks::Tasks;
use crate::transport::user_space::UserSpace;

/// All services that run. Dropping them ends them; their connections go on.
#[derive(Default)]
pub(super) struct Services {
    listeners: Vec<Listening>,
}

impl Services {
    /// Ends what `config` has no more, changes what is different, and begins what is new; the rest is not touched. Returns
    /// what could not be done: the other services run all the same.
    pub(super) fn become_as(
        &mut self,
        config: &Config,
        stack: &UserSpace,
        tasks: &Tasks,
    ) -> Vec<anyhow::Error> {
        let mut failed = Vec::new();
        // First, because a new one may want the port.
        self.listeners.retain(|running| config.listens.iter().any(|l| l.at == running.listen().at));
        for listen in &config.listens {
            let running = self.listeners.iter().find(|running| running.listen().at == listen.at);
            match running {
                Some(running) if running.listen() == *listen => {}
                Some(running) => running.redirect(listen, tasks),
                None => match Listening::start(stack, listen, tasks) {
                    Ok(listener) => self.listeners.push(listener),
                    Err(error) => failed.push(error),
                },
            }
        }
        failed
    }
}

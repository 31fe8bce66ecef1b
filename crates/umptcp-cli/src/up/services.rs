//! What the daemon does at the moment, and how that becomes what a configuration says.

use super::capture::Capture;
use super::config::Config;
use super::listen::Listening;
use super::metrics;
use super::programs::Desk;
use super::relay::{Counts, Relaying};
use crate::proxy::Proxy;
use crate::serving::publish::Publishing;
use crate::serving::served::Served;
use crate::serving::service::Origin;
use crate::serving::tasks::Tasks;
use crate::session::Session;
use crate::transport::user_space::UserSpace;
use std::sync::Arc;
use umptcp::Forwarder;

/// All services that run. Dropping them ends them; their connections go on.
#[derive(Default)]
pub(super) struct Services {
    listeners: Vec<Listening>,
    socks: Option<Proxy>,
    metrics: Option<Served>,
    relay: Option<Relaying>,
    /// Ports of a relay that lead here.
    published: Vec<Publishing>,
    /// What the relay does, also while there is none.
    relayed: Arc<Counts>,
    capture: Option<Capture>,
    /// Where programs ask to be captured.
    desk: Arc<Desk>,
}

impl Services {
    /// Ends what `config` has no more, changes what is different, and begins what is new; the rest is not
    /// touched. Returns what could not be done: the other services run all the same.
    pub(super) fn become_as(
        &mut self,
        config: &Config,
        stack: &UserSpace,
        session: &Session,
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
        self.socks =
            self.socks.take().filter(|proxy| config.socks.as_ref().is_some_and(|s| proxy.becomes(s)));
        self.metrics = self.metrics.take().filter(|served| config.metrics == Some(served.at()));
        if let (None, Some(socks)) = (&self.socks, &config.socks) {
            keep(Proxy::start(stack, socks, tasks), &mut self.socks, &mut failed);
        }
        self.relay =
            self.relay.take().filter(|running| config.relay.as_ref().is_some_and(|r| running.becomes(r)));
        if let (None, Some(relay)) = (&self.relay, &config.relay) {
            keep(Relaying::start(stack, relay, self.relayed.clone(), tasks), &mut self.relay, &mut failed);
        }
        self.published.retain(|running| config.publish.contains(running.publish()));
        for publish in &config.publish {
            if !self.published.iter().any(|running| running.publish() == publish) {
                match Publishing::start(stack, publish, Origin::Host, tasks) {
                    Ok(running) => self.published.push(running),
                    Err(error) => failed.push(error),
                }
            }
        }
        if let (None, Some(at)) = (&self.metrics, config.metrics) {
            keep(metrics::start(stack, self.relayed.clone(), at, tasks), &mut self.metrics, &mut failed);
        }
        if self.capture.is_none() && (!config.captures.is_empty() || config.run.is_some()) {
            keep(Capture::start(stack, session), &mut self.capture, &mut failed);
        }
        if let Some(capture) = &mut self.capture {
            failed.extend(capture.select(&config.captures).err());
        }
        self.desk.become_as(config.run.is_some(), self.capture.as_ref().map(Capture::shared));
        failed
    }

    /// What sends captured connections on, if any are captured.
    pub(super) fn forwarders(&self) -> Vec<Arc<Forwarder>> {
        self.capture.iter().map(Capture::forwarder).collect()
    }

    /// Nothing new is accepted or captured. Returns what must stay until what was captured has ended.
    pub(super) fn end(mut self) -> Option<Capture> {
        self.desk.become_as(false, None);
        if let Some(capture) = &mut self.capture {
            capture.end();
        }
        self.capture
    }

    /// Where programs ask to be captured.
    pub(super) fn desk(&self) -> Arc<Desk> {
        self.desk.clone()
    }
}

/// Keeps a service that has been started, or why it could not be.
fn keep<T>(started: anyhow::Result<T>, service: &mut Option<T>, failed: &mut Vec<anyhow::Error>) {
    match started {
        Ok(started) => *service = Some(started),
        Err(error) => failed.push(error),
    }
}

//! The daemon's life: start, reload, end.

use super::config::Config;
use super::instance::Instance;
use super::notify;
use super::services::Services;
use crate::console::describe;
use crate::control::{self, Served, StackInstance};
use crate::failure::Class;
use crate::logging;
use crate::memory;
use crate::registry::Registry;
use crate::serving::raise_descriptor_limit;
use crate::serving::tasks::{Ends, LAST_WORDS, Tasks, runtime};
use crate::session::Session;
use crate::transport::user_space::UserSpace;
use anyhow::{Context as _, anyhow};
use nix::libc::SIGHUP;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Instant;
use tokio::runtime::Runtime;
use umptcp_capture::Periodic;
use umptcp_control::Kind;

/// Says what of a configuration comes to nothing.
fn warn_of(config: &Config) {
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
}

/// What the daemon hears of.
enum Event {
    Signal(i32),
    /// A service cannot go on.
    Failed(String),
}

/// A daemon that runs. What is dropped first comes first.
pub(super) struct Daemon {
    /// `None`: the command line says everything.
    file: Option<PathBuf>,
    config: Config,
    /// `None`: the command line says what is logged.
    log: Option<logging::Running>,
    session: Session,
    events: Receiver<Event>,
    /// Lets tools ask it and steer it.
    served: Option<Served>,
    services: Services,
    tasks: Tasks,
    ends: Ends,
    runtime: Runtime,
    _trimmer: Periodic,
    stack: UserSpace,
    _instance: Instance,
}

impl Daemon {
    /// Does what the configuration says.
    ///
    /// # Errors
    /// What keeps any part of it from being done; nothing is left behind then.
    pub(super) fn start(
        file: Option<PathBuf>,
        config: Config,
        registry: &Registry,
        log: Option<logging::Running>,
    ) -> anyhow::Result<Daemon> {
        raise_descriptor_limit();
        warn_of(&config);
        let instance = Instance::claim(&config.name)?;
        let session = Session::start()?;
        let (to, events) = mpsc::channel();
        let signals = to.clone();
        // It waits its turn while the daemon starts.
        session.pass_on(move |received| drop(signals.send(Event::Signal(received.signal))));
        let stack = UserSpace::open(&config.settings, registry, &session)?;
        let runtime = runtime()?;
        let (tasks, ends) = Tasks::new(&runtime, move |why| drop(to.send(Event::Failed(why))));
        let mut services = Services::default();
        if let Some(error) = services.become_as(&config, &stack, &session, &tasks).into_iter().next() {
            return Err(error);
        }
        let trimmer = memory::trim_after_connections_of(stack.source());
        let trimmer = trimmer.context(Class::Host.failure("cannot start a thread"))?;
        let shown = StackInstance::new(stack.source(), services.forwarders(), registry.clone())
            .with_programs(services.desk());
        let group = config.run.and_then(|run| run.group);
        // A relay is nothing that programs could be run by.
        let kind = if config.relay.is_some() && config.run.is_none() { Kind::Relay } else { Kind::Up };
        let served = control::start(&config.name, kind, Arc::new(shown), group, &session);
        let daemon = Daemon {
            file,
            config,
            log,
            session,
            events,
            served,
            services,
            tasks,
            ends,
            runtime,
            _trimmer: trimmer,
            stack,
            _instance: instance,
        };
        daemon.say_ready();
        Ok(daemon)
    }

    /// Runs until it is told to end.
    ///
    /// # Errors
    /// When a service cannot go on, or what was written could not be delivered.
    pub(super) fn run(mut self, registry: &Registry) -> anyhow::Result<()> {
        loop {
            match self.events.recv() {
                Ok(Event::Signal(SIGHUP)) => self.reload(registry),
                Ok(Event::Signal(signal)) => {
                    tracing::info!(signal, "ending");
                    return self.end();
                }
                Ok(Event::Failed(why)) => {
                    tracing::error!("{why}");
                    self.end()?;
                    return Err(anyhow!(Class::Host.failure(why)));
                }
                Err(_) => return self.end(),
            }
        }
    }

    /// Reads the configuration again and becomes as it says. What cannot be done is logged, and the rest
    /// done. With a file that is wrong everything stays as it is.
    fn reload(&mut self, registry: &Registry) {
        let Some(file) = &self.file else {
            tracing::warn!("there is no configuration to read again");
            return;
        };
        notify::reloading();
        match Config::load(file, registry) {
            Ok(config) => self.become_as(config),
            Err(error) => {
                tracing::error!("the configuration stays as it is: {}", describe(&error));
                notify::ready(&format!("not reloaded: {}", describe(&error)));
            }
        }
    }

    fn become_as(&mut self, config: Config) {
        for what in config.beyond(&self.config) {
            tracing::warn!("{what} has changed, and stays as it was: that needs a restart");
        }
        warn_of(&config);
        if let Some(log) = &self.log {
            log.set_level(config.log.level);
        }
        let mut failed = Vec::new();
        if config.settings.paths != self.config.settings.paths {
            let paths = config.settings.paths.clone();
            match self.stack.with_stack(|stack| stack.set_nics(paths)) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failed.push(anyhow!(error).context("the paths")),
                Err(error) => failed.push(error),
            }
        }
        // First, so that what begins now begins with it.
        if let Err(error) = self.stack.set_connection(&config.settings, &self.services.forwarders()) {
            failed.push(error.context("[stack]"));
        }
        failed.extend(self.services.become_as(&config, &self.stack, &self.session, &self.tasks));
        self.config.take_over(config);
        for error in &failed {
            tracing::error!("{}", describe(error));
        }
        match failed.first() {
            Some(error) => notify::ready(&format!("reloaded, but: {}", describe(error))),
            None => self.say_ready(),
        }
    }

    fn say_ready(&self) {
        let about = self.config.describe();
        let file = self.file.as_ref().map(|file| tracing::field::display(file.display()));
        tracing::info!(name = self.config.name, file, "ready: {about}");
        notify::ready(&about);
    }

    /// Accepts nothing more, gives connections some time to end, and undoes what was set up.
    fn end(self) -> anyhow::Result<()> {
        notify::stopping();
        let Daemon { config, session, served, services, tasks, ends, runtime, stack, _instance, .. } = self;
        // Who is in a hurry says so again.
        session.take_back();
        let until = Instant::now() + config.drain;
        let capture = services.end();
        ends.wait(&runtime, tasks, config.drain);
        if let Some(capture) = &capture {
            capture.wait(until);
        }
        // What still runs is reset.
        runtime.shutdown_timeout(LAST_WORDS);
        drop(served);
        stack.close_within(LAST_WORDS)
    }
}

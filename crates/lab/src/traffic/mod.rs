//! What the applications of a connection do, and what they note of it: when messages were handed over and
//! when they arrived, pauses, stalls.
//!
//! The applications are those of [`umptcp_netsim::application`], so that they run in virtual time and, with
//! the same plans, on a real connection.

mod askers;
mod log;
mod senders;
mod video;

pub(crate) use log::{Log, Logged, Message};

use askers::{Asker, Page, Pages, Rounds};
use log::Noting;
use senders::{Bulk, Constant, OnOff};
use std::time::Duration;
use umptcp_netsim::application::{Application, Responder, Sink};
use umptcp_netsim::random::Random;
use umptcp_types::Instant;
use video::Video;

/// What a group of connections carries.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum SourceSetup {
    /// So many bytes, or as many as fit.
    Bulk { size: Option<u64> },
    /// A message of so many bytes at regular times.
    Constant { message: u64, interval: Duration },
    /// The same during times of activity, with pauses between; both of random length if wanted.
    OnOff { message: u64, interval: Duration, on: Duration, off: Duration, random: bool },
    /// The receiver asks, and asks again so long after the answer.
    Requests { count: Option<u64>, request: u64, response: u64, pause: Duration },
    /// The receiver fetches objects over several connections, again after a time.
    Page { connections: u32, objects: u64, request: u64, size: u64, every: Option<Duration> },
    /// The receiver fetches the segments of a video ahead of its playback.
    Video { request: u64, segment: u64, length: Duration, ahead: Duration },
}

impl SourceSetup {
    /// Connections that carry it together, between the same hosts.
    pub(crate) fn connections(&self) -> u32 {
        match self {
            SourceSetup::Page { connections, .. } => *connections,
            _ => 1,
        }
    }

    /// Whether single messages can be told apart.
    pub(crate) fn has_messages(&self) -> bool {
        !matches!(self, SourceSetup::Bulk { .. })
    }

    pub(crate) fn is_page(&self) -> bool {
        matches!(self, SourceSetup::Page { .. })
    }

    pub(crate) fn is_video(&self) -> bool {
        matches!(self, SourceSetup::Video { .. })
    }

    /// The bytes that are sent, if that is known.
    pub(crate) fn size(&self) -> Option<u64> {
        match self {
            SourceSetup::Bulk { size } => *size,
            _ => None,
        }
    }
}

/// The applications at the two ends of a connection, and what they note.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) sender: Box<dyn Application>,
    pub(crate) receiver: Box<dyn Application>,
    pub(crate) log: Logged,
}

/// The applications of all connections that carry `source` together. `times`: from when on the receiver's
/// pauses count, and when the applications end. `random`: for what is left to chance.
pub(crate) fn ends(
    source: &SourceSetup,
    begin: Instant,
    stop: Option<Instant>,
    mut random: Random,
) -> Vec<Ends> {
    let one = |log: Logged, sender: Box<dyn Application>, receiver: Box<dyn Application>| {
        let receiver = Box::new(Noting::new(log.clone(), receiver));
        vec![Ends { sender, receiver, log }]
    };
    let log = Logged::new(begin);
    match *source {
        SourceSetup::Bulk { size } => one(log, Box::new(Bulk { size, stop }), Box::new(Sink)),
        SourceSetup::Constant { message, interval } => {
            let sender = Constant::new(log.clone(), message, interval, stop);
            one(log, Box::new(sender), Box::new(Sink))
        }
        SourceSetup::OnOff { message, interval, on, off, random: chance } => {
            let draw = chance.then(|| std::mem::replace(&mut random, Random::new([0; 32])));
            let sender = OnOff::new(log.clone(), (message, interval), (on, off), draw, stop);
            one(log, Box::new(sender), Box::new(Sink))
        }
        SourceSetup::Requests { count, request, response, pause } => {
            let work = Rounds::new(count, pause);
            let asker = Asker::new(log.clone(), work, request, response, stop);
            one(log, Box::new(Responder { request, response }), Box::new(asker))
        }
        SourceSetup::Page { connections, objects, request, size, every } => {
            let pages = Pages::new(objects, every);
            let end = |_| {
                let log = Logged::new(begin);
                let work = Page::new(pages.clone(), log.clone());
                let asker = Asker::new(log.clone(), work, request, size, stop);
                let sender = Box::new(Responder { request, response: size });
                Ends { sender, receiver: Box::new(Noting::new(log.clone(), Box::new(asker))), log }
            };
            (0..connections).map(end).collect()
        }
        SourceSetup::Video { request, segment, length, ahead } => {
            let video = Video::new(log.clone(), (request, segment), length, ahead, stop);
            one(log, Box::new(Responder { request, response: segment }), Box::new(video))
        }
    }
}

#[cfg(test)]
mod tests;

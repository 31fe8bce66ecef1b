//! Connections by a relay (RFC 8803): until it has answered, nobody else uses them.

use super::context::Context;
use crate::via::{Via, meaning};
use bytes::{Buf as _, Bytes};
use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use umptcp_relay::request::{AnswerReader, Request, unique_time};
use umptcp_relay::{AnswerError, Challenge, Credential};
use umptcp_stack_core::error::ConnectionError;
use umptcp_stack_core::stack::Received;
use umptcp_types::{ConnectionId, Instant};

/// How long a relay may take to answer. It gives up a server that does not answer before that.
const PATIENCE: Duration = Duration::from_secs(150);

/// What a relay is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Where the connection is to go; an unspecified address where only the relay will know.
    pub(crate) server: SocketAddr,
    request: Request,
    credential: Option<Arc<Credential>>,
}

impl Wanted {
    /// `None`: a relay cannot be asked for such an address.
    pub(crate) fn new(via: &Via, server: SocketAddr) -> Option<Wanted> {
        Wanted::of(via, Request::connect(server), server)
    }

    /// What only the relay knows the address of, at this port.
    pub(crate) fn elsewhere(via: &Via, request: Request, port: u16) -> Option<Wanted> {
        Wanted::of(via, request, SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port))
    }

    fn of(via: &Via, request: Request, server: SocketAddr) -> Option<Wanted> {
        request.encode(None, 0).ok()?;
        Some(Wanted { server, request, credential: via.credential_to_show().cloned() })
    }
}

/// A connection to a relay that has not answered.
#[derive(Debug)]
struct Asking {
    wanted: Wanted,
    /// What is not sent of the request; `None`: it has not been made.
    unsent: Option<Bytes>,
    /// It goes with the SYN, so that the answer may come right after the SYN/ACK.
    early: bool,
    reader: AnswerReader,
    /// What it wants to see in the request.
    challenge: Option<Challenge>,
    /// The relay has answered the SYN.
    reached: bool,
    /// It is not used while the same is tried in another way.
    held: bool,
    give_up: Instant,
}

/// What has become of one.
pub(super) enum Answer {
    /// Nothing yet.
    Awaited,
    /// It is a connection with this server now.
    Stands(SocketAddr),
    /// It is none, and is to be reset (RFC 8803 §6.2.8).
    Failed(ConnectionError, AnswerError),
}

fn failed(server: SocketAddr, why: AnswerError) -> Answer {
    Answer::Failed(meaning(&why, server), why)
}

/// All that wait for a relay's answer.
#[derive(Debug, Default)]
pub(super) struct Relayed {
    asking: HashMap<ConnectionId, Asking>,
    due: BTreeSet<(Instant, ConnectionId)>,
}

impl Relayed {
    /// A connection to a relay begins. Where its SYN waits for data, it gets the request.
    pub(super) fn ask(&mut self, cx: &mut Context<'_>, id: ConnectionId, wanted: Wanted) {
        let give_up = cx.now + PATIENCE;
        let reader = AnswerReader::default();
        let (unsent, challenge, reached, held) = (None, None, false, false);
        let early = cx.stack.awaits_data(id);
        self.asking.insert(id, Asking { wanted, unsent, early, reader, challenge, reached, held, give_up });
        self.due.insert((give_up, id));
        // Nobody has anything of the server until the answer is used.
        cx.stack.may_be_repeated(id);
        if early {
            self.send(cx, id);
        }
    }

    /// Whether it waits for a relay's answer.
    pub(super) fn has(&self, id: ConnectionId) -> bool {
        self.asking.contains_key(&id)
    }

    /// The relay is reached, and asked.
    pub(super) fn on_reached(&mut self, id: ConnectionId) {
        if let Some(asking) = self.asking.get_mut(&id) {
            (asking.reached, asking.held) = (true, false);
        }
    }

    /// Until the relay is [reached](Self::on_reached), nothing is said to it, and its answer to what went with the SYN
    /// is not looked at.
    pub(super) fn hold(&mut self, id: ConnectionId) {
        if let Some(asking) = self.asking.get_mut(&id) {
            asking.held = true;
        }
    }

    /// Sends and receives what can be.
    pub(super) fn look(&mut self, cx: &mut Context<'_>, id: ConnectionId) -> Answer {
        if self.asking.get(&id).is_some_and(|asking| asking.held) {
            return Answer::Awaited;
        }
        self.send(cx, id);
        let Some(asking) = self.asking.get_mut(&id) else { return Answer::Awaited };
        let server = asking.wanted.server;
        let answer = loop {
            // Not a byte more: what follows is the server's.
            match cx.stack.receive(cx.now, id, asking.reader.wants()) {
                Ok(Received::Data(bytes)) => match asking.reader.push(&bytes) {
                    Ok(None) => {}
                    Ok(Some(answer)) => match (AnswerReader::challenge(&answer), asking.challenge) {
                        (None, _) if answer.has_cookie() => {
                            break failed(server, AnswerError::Unexpected);
                        }
                        (None, _) => {
                            // Where it is known, it is not for the relay to say.
                            let told = answer.peer().filter(|_| server.ip().is_unspecified());
                            break Answer::Stands(told.unwrap_or(server));
                        }
                        // Once is enough to know that nobody has recorded it.
                        (Some(_), Some(_)) => break failed(server, AnswerError::Unexpected),
                        (challenge, None) => {
                            asking.challenge = challenge;
                            (asking.unsent, asking.reader) = (None, AnswerReader::default());
                            return self.look(cx, id);
                        }
                    },
                    Err(why) => break failed(server, why),
                },
                Ok(Received::Empty) | Err(ConnectionError::NotConnected) => return Answer::Awaited,
                Ok(Received::End) => break Answer::Failed(ConnectionError::Reset, AnswerError::NoAnswer),
                // Its end is being reported.
                Err(_) => return Answer::Awaited,
            }
        };
        self.forget(id);
        answer
    }

    fn send(&mut self, cx: &mut Context<'_>, id: ConnectionId) {
        let Some(asking) = self.asking.get_mut(&id) else { return };
        // As late as possible: the time is part of it.
        let make = || {
            let Wanted { request, credential, .. } = &asking.wanted;
            let (who, time) = (credential.as_deref(), unique_time());
            let request = request.encode_after(who, time, asking.challenge, asking.early);
            // It could be made before.
            Bytes::from(request.unwrap_or_default())
        };
        let unsent = asking.unsent.get_or_insert_with(make);
        while !unsent.is_empty() {
            match cx.stack.send(cx.now, id, unsent.clone()) {
                Ok(n) => {
                    unsent.advance(n);
                    if n == 0 {
                        // Event::Writable follows.
                        return;
                    }
                }
                // Event::Connected follows, or its end is being reported.
                Err(_) => return,
            }
        }
    }

    /// It has ended. `None`: it did not wait for a relay; otherwise whether the relay had been reached.
    pub(super) fn on_ended(&mut self, id: ConnectionId) -> Option<bool> {
        let asking = self.asking.remove(&id)?;
        self.due.remove(&(asking.give_up, id));
        Some(asking.reached)
    }

    /// Nobody waits for its answer any more.
    pub(super) fn forget(&mut self, id: ConnectionId) {
        self.on_ended(id);
    }

    /// When the next is given up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// One that has waited long enough.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<ConnectionId> {
        let (_, id) = self.due.first().copied().filter(|(at, _)| *at <= now)?;
        self.forget(id);
        Some(id)
    }
}

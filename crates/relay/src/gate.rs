//! Who is let in.

use crate::cookie::{CODE, Challenge, Cookie};
use crate::key::{ClientName, Credential, Key};
use crate::request::Request;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use thiserror::Error;
use umptcp_convert::message::HEADER;
use umptcp_convert::{ConvertError, DecodeError, Message, Tlv};

/// How far a client's clock may be from the relay's.
pub const CLOCKS_DIFFER: Duration = Duration::from_secs(120);

/// Most requests of a client that are remembered. More within twice [`CLOCKS_DIFFER`] are refused.
pub const REMEMBERED: usize = 1 << 15;

/// Looks at requests, and lets in those who have a key.
///
/// What it keeps is bounded, by [`REMEMBERED`] for each client that has a key; who has none leaves nothing.
#[derive(Debug)]
pub struct Gate {
    /// `None`: everybody is let in.
    clients: Option<HashMap<ClientName, Client>>,
    /// How long there has been this gate, by a clock that nobody sets, if that has been said.
    uptime: Option<Duration>,
}

#[derive(Debug)]
struct Client {
    key: Key,
    /// Times and codes of the requests that have been seen, as long as they could be replayed.
    seen: BTreeSet<(u64, [u8; CODE])>,
    /// Requests with times up to this one, in nanoseconds since 1970, may have been seen, and are not
    /// remembered: those from before the start, by clocks that were ahead, and, if our clock is set back, those that were
    /// forgotten.
    forgotten: u64,
    /// How old the gate was when it became known.
    since: Duration,
}

impl Client {
    fn new(key: Key, now: u64, uptime: Option<Duration>) -> Client {
        let (forgotten, since) = (last_from_before(now), uptime.unwrap_or_default());
        Client { key, seen: BTreeSet::new(), forgotten, since }
    }

    /// The clock says `now`. If it was behind when the client became known, and has been set right, so is what counts as
    /// from before.
    fn look_at_clock(&mut self, now: u64, uptime: Duration) {
        let past = u64::try_from(uptime.saturating_sub(self.since).as_nanos()).unwrap_or(u64::MAX);
        self.forgotten = self.forgotten.max(last_from_before(now.saturating_sub(past)));
    }
}

/// The latest time that a request from before `start` may have, by a client's clock that is ahead.
fn last_from_before(start: u64) -> u64 {
    start.saturating_add(CLOCKS_DIFFER.as_nanos() as u64)
}

/// Whoever is let in, with what is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Admitted {
    /// Who; `None`: anybody, where no keys are asked for.
    pub client: Option<ClientName>,
    /// What.
    pub request: Request,
}

/// Why somebody is not let in. What the client is told says less: [`answer`](Self::answer).
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It is no message of RFC 8803, or one that a relay cannot take.
    #[error("{0}")]
    Message(#[from] DecodeError),
    /// Neither Connect nor Info, or other things beside it.
    #[error("it asks for nothing that a relay does")]
    NotARequest,
    /// There is no cookie.
    #[error("no key")]
    NoKey,
    /// The cookie is none of ours, or not the first TLV.
    #[error("a cookie that is none of a client's")]
    NoCookie,
    /// No client has that name.
    #[error("unknown client {0}")]
    UnknownClient(ClientName),
    /// It was not made with the client's key.
    #[error("wrong key of client {0}")]
    WrongKey(ClientName),
    /// The client's clock is wrong, or it is replayed.
    #[error("the request of client {client} is {seconds} s old, or a clock is wrong by as much")]
    Time {
        /// The client.
        client: ClientName,
        /// Its age; negative: it is from the future.
        seconds: i64,
    },
    /// It has been seen.
    #[error("a request of client {0} that was replayed")]
    Replayed(ClientName),
    /// It may have been seen: the client is to answer a [`Challenge`].
    #[error("a request of client {0} from about the relay's start, or by a clock that was set back")]
    Unsure(ClientName),
    /// The client asks for too much.
    #[error("too many requests of client {0}")]
    TooMany(ClientName),
}

impl Refusal {
    /// What the client is told, who sent `message`.
    pub fn answer(&self, message: &[u8]) -> ConvertError {
        match self {
            Refusal::Message(DecodeError::UnsupportedVersion(_)) => {
                ConvertError::UnsupportedVersion { supported: vec![umptcp_convert::message::VERSION] }
            }
            Refusal::Message(DecodeError::UnsupportedTlv(_)) | Refusal::NotARequest => {
                ConvertError::unsupported(message)
            }
            Refusal::Message(_) => ConvertError::malformed(message),
            // RFC 8803 §6.2.8: "Missing Cookie" is for those who are given one.
            Refusal::NoKey
            | Refusal::NoCookie
            | Refusal::UnknownClient(_)
            | Refusal::WrongKey(_)
            | Refusal::Time { .. }
            | Refusal::Unsure(_)
            | Refusal::Replayed(_) => ConvertError::NotAuthorized,
            Refusal::TooMany(_) => ConvertError::ResourceExceeded { delay: 0 },
        }
    }

    /// The client that has shown its key.
    pub fn proven(&self) -> Option<&ClientName> {
        match self {
            Refusal::Time { client, .. }
            | Refusal::Replayed(client)
            | Refusal::Unsure(client)
            | Refusal::TooMany(client) => Some(client),
            _ => None,
        }
    }
}

impl Gate {
    /// One that lets these clients in, from `now` (nanoseconds since 1970).
    pub fn new(clients: impl IntoIterator<Item = Credential>, now: u64) -> Gate {
        let all = clients.into_iter().map(|c| (c.client, Client::new(c.key, now, None)));
        Gate { clients: Some(all.collect()), uptime: None }
    }

    /// One that lets everybody in.
    pub fn open() -> Gate {
        Gate { clients: None, uptime: None }
    }

    /// So long there has been this gate, by a clock that nobody sets; to be said whenever it is asked something. By that a clock
    /// is known that was behind at the start and has been set right: to it, what was let in before the start would look new.
    /// Otherwise the clock is taken to be right from the start.
    pub fn is_so_old(&mut self, uptime: Duration) {
        self.uptime = self.uptime.max(Some(uptime));
    }

    /// From `now` on these clients are let in. What is known of those who stay is kept.
    pub fn become_as(&mut self, clients: impl IntoIterator<Item = Credential>, now: u64) {
        let mut before = self.clients.take().unwrap_or_default();
        let keep = |c: Credential| {
            let known = before.remove(&c.client).filter(|client| client.key == c.key);
            (c.client, known.unwrap_or_else(|| Client::new(c.key, now, self.uptime)))
        };
        self.clients = Some(clients.into_iter().map(keep).collect());
    }

    /// Reads the request that a stream begins with, and says who asks and how long it is. `Ok(None)`: more
    /// bytes are needed.
    ///
    /// # Errors
    /// When the client is not let in. After [`Refusal::Unsure`] it may be [challenged](Self::admit_after).
    pub fn admit(&mut self, stream: &[u8], now: u64) -> Result<Option<(Admitted, usize)>, Refusal> {
        self.admit_after(stream, None, now)
    }

    /// The same for a client that was challenged on this connection: whoever has recorded a request cannot
    /// answer.
    ///
    /// # Errors
    /// When the client is not let in.
    pub fn admit_after(
        &mut self,
        stream: &[u8],
        challenge: Option<Challenge>,
        now: u64,
    ) -> Result<Option<(Admitted, usize)>, Refusal> {
        let Some((message, length)) = Message::decode(stream)? else { return Ok(None) };
        let tlvs = match message.tlvs.split_last() {
            // How it is answered is not asked here.
            Some((Tlv::EarlyAnswer, others)) => others,
            _ => &message.tlvs[..],
        };
        let (cookie, asked) = match tlvs {
            [Tlv::Cookie(cookie), asked] => (Some(cookie), asked),
            [asked] => (None, asked),
            _ => return Err(Refusal::NotARequest),
        };
        let request = match asked {
            Tlv::Connect(connect) => Request::Connect(connect.clone()),
            Tlv::ConnectName(name) => Request::ConnectName(name.clone()),
            Tlv::Publish(port) => Request::Publish(*port),
            Tlv::Info => Request::Info,
            _ => return Err(Refusal::NotARequest),
        };
        let client = match &mut self.clients {
            None => None,
            Some(clients) => {
                let cookie = Cookie::from_bytes(cookie.ok_or(Refusal::NoKey)?).ok_or(Refusal::NoCookie)?;
                // The cookie is the first TLV.
                let rest = usize::from(stream[HEADER + 1]) * 4 + HEADER;
                Some(check(clients, self.uptime, cookie, challenge, &stream[rest..length], now)?)
            }
        };
        Ok(Some((Admitted { client, request }, length)))
    }
}

fn check(
    clients: &mut HashMap<ClientName, Client>,
    uptime: Option<Duration>,
    cookie: Cookie,
    challenge: Option<Challenge>,
    rest: &[u8],
    now: u64,
) -> Result<ClientName, Refusal> {
    let Some(client) = clients.get_mut(&cookie.client) else {
        // It takes as long as for a client that there is.
        cookie.is_by(&Key::from([0; 32]), challenge, rest);
        return Err(Refusal::UnknownClient(cookie.client));
    };
    if !cookie.is_by(&client.key, challenge, rest) {
        return Err(Refusal::WrongKey(cookie.client));
    }
    let differ = CLOCKS_DIFFER.as_nanos() as u64;
    let oldest = now.saturating_sub(differ);
    if cookie.time < oldest || cookie.time > now.saturating_add(differ) {
        let seconds = (i128::from(now) - i128::from(cookie.time)) / 1_000_000_000;
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        return Err(Refusal::Time { client: cookie.client, seconds });
    }
    while client.seen.first().is_some_and(|(time, _)| *time < oldest) {
        client.seen.pop_first();
        client.forgotten = client.forgotten.max(oldest);
    }
    if let Some(uptime) = uptime {
        client.look_at_clock(now, uptime);
    }
    let this = (cookie.time, cookie.code);
    if client.seen.contains(&this) {
        return Err(Refusal::Replayed(cookie.client));
    }
    if challenge.is_none() && cookie.time <= client.forgotten {
        return Err(Refusal::Unsure(cookie.client));
    }
    if client.seen.len() >= REMEMBERED {
        return Err(Refusal::TooMany(cookie.client));
    }
    client.seen.insert(this);
    Ok(cookie.client)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const NOW: u64 = 1_700_000_000 * SECOND;

    fn credential(name: &str, key: u8) -> Credential {
        Credential { client: name.parse().unwrap(), key: Key::from([key; 32]) }
    }

    fn ask(who: &Credential, time: u64) -> Vec<u8> {
        Request::connect("192.0.2.1:80".parse().unwrap()).encode(Some(who), time).unwrap()
    }

    fn gate() -> Gate {
        Gate::new([credential("a", 1), credential("b", 2)], NOW - 1_000 * SECOND)
    }

    #[test]
    fn who_has_a_key_is_let_in_once_per_request() {
        let mut gate = gate();
        let asked = ask(&credential("a", 1), NOW);
        for end in 0..asked.len() {
            assert_eq!(gate.admit(&asked[..end], NOW), Ok(None));
        }
        let (admitted, length) = gate.admit(&[&asked[..], b"data"].concat(), NOW).unwrap().unwrap();
        assert_eq!((admitted.client.unwrap().as_str(), length), ("a", asked.len()));
        let again = gate.admit(&asked, NOW + 100 * SECOND).unwrap_err();
        assert_eq!(again, Refusal::Replayed("a".parse().unwrap()));
        assert_eq!(again.answer(&asked), ConvertError::NotAuthorized);
        assert!(gate.admit(&ask(&credential("a", 1), NOW + 1), NOW).is_ok());
        assert!(gate.admit(&ask(&credential("b", 2), NOW), NOW).is_ok());
    }

    #[test]
    fn others_are_not_and_are_told_the_same() {
        let mut gate = gate();
        let plain = Request::connect("192.0.2.1:80".parse().unwrap()).encode(None, 0).unwrap();
        let mut changed = ask(&credential("a", 1), NOW);
        *changed.last_mut().unwrap() ^= 1;
        for (asked, why) in [
            (plain, Refusal::NoKey),
            (ask(&credential("a", 2), NOW), Refusal::WrongKey("a".parse().unwrap())),
            (changed, Refusal::WrongKey("a".parse().unwrap())),
            (ask(&credential("c", 1), NOW), Refusal::UnknownClient("c".parse().unwrap())),
            (
                ask(&credential("a", 1), NOW - 121 * SECOND),
                Refusal::Time { client: "a".parse().unwrap(), seconds: 121 },
            ),
            (
                ask(&credential("a", 1), NOW + 121 * SECOND),
                Refusal::Time { client: "a".parse().unwrap(), seconds: -121 },
            ),
        ] {
            assert_eq!(gate.admit(&asked, NOW), Err(why.clone()));
            assert_eq!(why.answer(&asked), ConvertError::NotAuthorized, "{why}");
        }
        // None of that is remembered.
        assert!(gate.admit(&ask(&credential("a", 1), NOW), NOW).is_ok());
    }

    #[test]
    fn a_request_says_whether_it_may_be_answered_early_and_nobody_else_does() {
        let (mut gate, who) = (gate(), credential("a", 1));
        let request = Request::connect("192.0.2.1:80".parse().unwrap());
        let early = request.encode_after(Some(&who), NOW, None, true).unwrap();
        // Taken out, and put in.
        let without = [&[early[0], early[1] - 1][..], &early[2..early.len() - 4]].concat();
        let plain = ask(&who, NOW);
        let with = [&[plain[0], plain[1] + 1][..], &plain[2..], &early[early.len() - 4..]].concat();
        for changed in [without, with] {
            assert_eq!(gate.admit(&changed, NOW), Err(Refusal::WrongKey("a".parse().unwrap())));
        }
        let (admitted, length) = gate.admit(&early, NOW).unwrap().unwrap();
        assert_eq!((admitted.request, length), (request.clone(), early.len()));
        // Where nobody needs a key, and by itself it asks for nothing.
        let open = request.encode_after(None, 0, None, true).unwrap();
        assert_eq!(Gate::open().admit(&open, NOW).unwrap().map(|(a, _)| a.request), Some(request));
        let alone = Message::new([Tlv::EarlyAnswer]).encode().unwrap();
        assert_eq!(Gate::open().admit(&alone, NOW), Err(Refusal::NotARequest));
    }

    #[test]
    fn what_is_no_request_is_answered_as_rfc_8803_has_it() {
        let mut gate = gate();
        let both = Message::new([Tlv::Info, Tlv::Cookie(vec![1; 4])]).encode().unwrap();
        let answer = |gate: &mut Gate, bytes: &[u8]| gate.admit(bytes, NOW).unwrap_err().answer(bytes).code();
        assert_eq!(answer(&mut gate, &both), 2, "the cookie comes first");
        assert_eq!(answer(&mut gate, &[1, 1, 0x22, 0x63]), 2);
        assert_eq!(answer(&mut gate, &[2, 1, 0x22, 0x63]), 0);
        assert_eq!(answer(&mut gate, &[1, 2, 0x22, 0x63, 0x77, 1, 0, 0]), 2);
        assert_eq!(answer(&mut gate, b"GET / HTTP/1.1"), 1);
        let cookie = Message::new([Tlv::Cookie(vec![1; 4]), Tlv::Info]).encode().unwrap();
        assert_eq!(answer(&mut gate, &cookie), 32);
    }

    #[test]
    fn after_a_start_nothing_from_before_it_counts() {
        let who = credential("a", 1);
        // The client's clock is ahead: what it has asked for before the start is not old for a while.
        for ahead in [0, 1, 60, 120].map(|seconds| seconds * SECOND) {
            let recorded = ask(&who, NOW + ahead);
            let mut gate = Gate::new([who.clone()], NOW - 1_000 * SECOND);
            assert!(gate.admit(&recorded, NOW).unwrap().is_some());
            let mut gate = Gate::new([who.clone()], NOW + 1);
            for later in [1, SECOND, ahead, ahead + 100 * SECOND] {
                let refused = gate.admit(&recorded, NOW + later).unwrap_err();
                assert_eq!(refused, Refusal::Unsure(who.client.clone()), "{ahead} {later}");
            }
        }
        let mut gate = Gate::new([who.clone()], NOW);
        assert!(gate.admit(&ask(&who, NOW + 121 * SECOND), NOW + 60 * SECOND).is_ok());
    }

    #[test]
    fn a_clock_that_was_behind_at_the_start_and_is_set_right_makes_nothing_new() {
        let who = credential("a", 1);
        let unsure = Err(Refusal::Unsure(who.client.clone()));
        let recorded = ask(&who, NOW);
        // A host without a clock of its own starts an hour ago, and is told the time after 20 s.
        let mut gate = Gate::new([who.clone()], NOW - 3600 * SECOND);
        gate.is_so_old(Duration::from_secs(20));
        assert_eq!(gate.admit(&recorded, NOW + 50 * SECOND), unsure);
        // What is asked later is from after the start in any case.
        gate.is_so_old(Duration::from_secs(151));
        let later = ask(&who, NOW + 180 * SECOND);
        assert!(gate.admit(&later, NOW + 180 * SECOND).unwrap().is_some());
        // A client that is known since later.
        let other = credential("c", 3);
        gate.become_as([who, other.clone()], NOW + 200 * SECOND);
        gate.is_so_old(Duration::from_secs(200));
        let asked = ask(&other, NOW + 240 * SECOND);
        assert_eq!(gate.admit(&asked, NOW + 240 * SECOND), Err(Refusal::Unsure(other.client.clone())));
        gate.is_so_old(Duration::from_secs(400));
        let asked = ask(&other, NOW + 450 * SECOND);
        assert!(gate.admit(&asked, NOW + 450 * SECOND).unwrap().is_some());
    }

    #[test]
    fn whoever_answers_a_challenge_is_let_in() {
        let who = credential("a", 1);
        let mut gate = Gate::new([who.clone()], NOW);
        let request = Request::connect("192.0.2.1:80".parse().unwrap());
        let [ours, other] = [1, 2].map(|byte| Challenge::from([byte; crate::cookie::CHALLENGE]));
        // By a clock that is behind, too.
        for time in [NOW - 100 * SECOND, NOW + 1] {
            let answer = request.encode_after(Some(&who), time, Some(ours), false).unwrap();
            assert!(matches!(gate.admit(&answer, NOW), Err(Refusal::WrongKey(_))));
            assert!(matches!(gate.admit_after(&answer, Some(other), NOW), Err(Refusal::WrongKey(_))));
            let recorded = request.encode(Some(&who), time).unwrap();
            assert!(matches!(gate.admit_after(&recorded, Some(ours), NOW), Err(Refusal::WrongKey(_))));
            assert!(gate.admit_after(&answer, Some(ours), NOW).unwrap().is_some());
            assert!(matches!(gate.admit_after(&answer, Some(ours), NOW), Err(Refusal::Replayed(_))));
        }
    }

    #[test]
    fn a_clock_that_is_set_back_lets_nothing_in_twice() {
        let (mut gate, who) = (gate(), credential("a", 1));
        let recorded = ask(&who, NOW);
        assert!(gate.admit(&recorded, NOW).unwrap().is_some());
        // It is forgotten, as it is old.
        let later = NOW + 200 * SECOND;
        assert!(gate.admit(&ask(&who, later), later).unwrap().is_some());
        for back in [0, 1, 100].map(|seconds| seconds * SECOND) {
            assert_eq!(gate.admit(&recorded, NOW + back), Err(Refusal::Unsure(who.client.clone())));
        }
        // What is remembered is known to be new, and who is right is served when the clock has gone on.
        assert!(matches!(gate.admit(&ask(&who, later), NOW + 100 * SECOND), Err(Refusal::Replayed(_))));
        assert!(gate.admit(&ask(&who, later + 1), later).unwrap().is_some());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_is_forgotten() {
        let mut gate = gate();
        let who = credential("a", 1);
        for i in 0..REMEMBERED as u64 {
            assert!(gate.admit(&ask(&who, NOW + i), NOW).is_ok());
        }
        let more = gate.admit(&ask(&who, NOW + SECOND), NOW).unwrap_err();
        assert_eq!(more.answer(&[]), ConvertError::ResourceExceeded { delay: 0 });
        assert_eq!(more.proven().map(ClientName::as_str), Some("a"));
        // Nobody else is disturbed.
        assert!(gate.admit(&ask(&credential("b", 2), NOW), NOW).is_ok());
        let later = NOW + 121 * SECOND;
        assert!(gate.admit(&ask(&who, later), later).is_ok());
        assert_eq!(gate.clients.as_ref().unwrap()[&who.client].seen.len(), 1);
    }

    #[test]
    fn a_reload_keeps_what_was_seen() {
        let mut gate = gate();
        let asked = ask(&credential("a", 1), NOW);
        assert!(gate.admit(&asked, NOW).is_ok());
        gate.become_as([credential("a", 1), credential("c", 3)], NOW);
        assert!(matches!(gate.admit(&asked, NOW), Err(Refusal::Replayed(_))));
        let new = NOW + 130 * SECOND;
        assert!(gate.admit(&ask(&credential("c", 3), new), new).is_ok());
        assert!(matches!(gate.admit(&ask(&credential("b", 2), NOW), NOW), Err(Refusal::UnknownClient(_))));
        // What one had asked who was let in before is not known any more.
        gate.become_as([credential("a", 1)], new);
        gate.become_as([credential("a", 1), credential("c", 3)], new);
        assert!(matches!(gate.admit(&ask(&credential("c", 3), new + 1), new), Err(Refusal::Unsure(_))));
        assert!(matches!(gate.admit(&asked, NOW), Err(Refusal::Replayed(_))));
        assert_eq!(Gate::open().admit(&asked, 0).unwrap().unwrap().0.client, None);
    }
}

//! What a client asks of a relay, and how it reads the answer.

use crate::cookie::{Challenge, Cookie};
use crate::key::Credential;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use thiserror::Error;
use umptcp_convert::message::{HEADER, LONGEST};
use umptcp_convert::{Connect, ConnectName, ConvertError, DecodeError, EncodeError, Message, Tlv};

/// What a client asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// A connection to a server (the Connect TLV, RFC 8803 §6.2.5).
    Connect(Connect),
    /// A connection to a server whose name the relay resolves.
    ConnectName(ConnectName),
    /// A connection that comes in at this port of the relay's. The answer is an empty message when the relay
    /// listens there, and when somebody has come a message with a Connect TLV that says who.
    Publish(u16),
    /// What the relay supports (the Info TLV, §6.2.3).
    Info,
}

/// The last time that this process has put into a cookie.
static LAST: AtomicU64 = AtomicU64::new(0);

/// Now, in nanoseconds since 1970, and never the same twice: two requests of a client that are the same would
/// look like one that was replayed.
pub fn unique_time() -> u64 {
    let now = nanoseconds(SystemTime::now());
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(after(last, now)));
    // What was there before, whichever it was.
    last.map_or(now, |last| after(last, now))
}

/// A time at `now` that is not `last`. A clock that was set back by more than a second is believed: the times before
/// were wrong, and a relay refuses them.
fn after(last: u64, now: u64) -> u64 {
    if last >= now && last - now < 1_000_000_000 { last + 1 } else { now }
}

/// A time as cookies have it.
pub fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl Request {
    /// A connection to `server`, with the options of TCP that the relay chooses.
    pub fn connect(server: SocketAddr) -> Request {
        Request::Connect(Connect::new(server))
    }

    fn tlv(&self) -> Tlv {
        match self {
            Request::Connect(connect) => Tlv::Connect(connect.clone()),
            Request::ConnectName(name) => Tlv::ConnectName(name.clone()),
            Request::Publish(port) => Tlv::Publish(*port),
            Request::Info => Tlv::Info,
        }
    }

    /// The message that asks for it, at a [time](unique_time).
    ///
    /// # Errors
    /// When the server's address is one that a Connect TLV cannot have: multicast, loopback, unspecified; or its
    /// name none of a host.
    pub fn encode(&self, credential: Option<&Credential>, time: u64) -> Result<Vec<u8>, EncodeError> {
        self.encode_after(credential, time, None, false)
    }

    /// The same, after the relay's challenge if there was one. `early`: it goes with a SYN, and the client takes an
    /// answer before its key of MPTCP has reached the relay.
    ///
    /// # Errors
    /// As for [`encode`](Self::encode).
    pub fn encode_after(
        &self,
        credential: Option<&Credential>,
        time: u64,
        challenge: Option<Challenge>,
        early: bool,
    ) -> Result<Vec<u8>, EncodeError> {
        let mut message = Message::new([self.tlv()]);
        message.tlvs.extend(early.then_some(Tlv::EarlyAnswer));
        let plain = message.encode()?;
        let Some(Credential { client, key }) = credential else { return Ok(plain) };
        let cookie = Cookie::new(client, key, time, challenge, &plain[HEADER..]);
        message.tlvs.insert(0, Tlv::Cookie(cookie.to_bytes()));
        message.encode()
    }
}

/// The message of a relay, read as it comes, and not a byte more.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AnswerReader {
    bytes: Vec<u8>,
}

/// Why there is no connection.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// The relay says so.
    #[error("{0}")]
    Refused(#[from] ConvertError),
    /// It answers what is none: it may be no relay.
    #[error("its answer is none of a relay's: {0}")]
    NotUnderstood(#[from] DecodeError),
    /// It answers without an error what was not asked.
    #[error("its answer is not to what was asked")]
    Unexpected,
    /// It has ended the connection without an answer.
    #[error("it has not answered")]
    NoAnswer,
}

impl AnswerReader {
    /// How many bytes more it takes, at least one: what follows them is the server's.
    pub fn wants(&self) -> usize {
        let whole = self.bytes.get(1).map_or(HEADER, |words| usize::from(*words) * 4);
        let whole = if self.bytes.len() < HEADER { HEADER } else { whole.min(LONGEST) };
        whole.saturating_sub(self.bytes.len()).max(1)
    }

    /// The challenge that a whole answer brings instead of what was asked for. The same request is to be made
    /// again, on the same connection.
    pub fn challenge(answer: &Message) -> Option<Challenge> {
        match &answer.tlvs[..] {
            [Tlv::Cookie(bytes)] => Challenge::from_bytes(bytes),
            _ => None,
        }
    }

    /// Takes bytes, no more than it [wants](Self::wants). `None`: it wants more.
    ///
    /// # Errors
    /// When the answer is an error, or none.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Message>, AnswerError> {
        self.bytes.extend_from_slice(bytes);
        let Some((message, _)) = Message::decode(&self.bytes)? else { return Ok(None) };
        self.bytes.clear();
        for tlv in &message.tlvs {
            match tlv {
                Tlv::Error(error) => return Err(error.clone().into()),
                Tlv::ExtendedTcpHeader(_) | Tlv::SupportedTcpExtensions(_) | Tlv::Connect(_) => {}
                // A challenge comes alone.
                Tlv::Cookie(_) if message.tlvs.len() == 1 => {}
                _ => return Err(AnswerError::Unexpected),
            }
        }
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    #[test]
    fn a_request_has_its_cookie_first_and_fits_a_syn() {
        let credential = Credential { client: "a".repeat(32).parse().unwrap(), key: Key::from([1; 32]) };
        let request = Request::connect("[2001:db8::1]:443".parse().unwrap());
        let early = request.encode_after(Some(&credential), 5, None, true).unwrap();
        assert!(early.len() <= 120, "{}", early.len());
        let bytes = request.encode(Some(&credential), 5).unwrap();
        assert_eq!(bytes.len() + 4, early.len());
        let (message, length) = Message::decode(&bytes).unwrap().unwrap();
        assert_eq!(length, bytes.len());
        let [Tlv::Cookie(cookie), Tlv::Connect(_)] = &message.tlvs[..] else { panic!("{message:?}") };
        let cookie = Cookie::from_bytes(cookie).unwrap();
        assert!(cookie.is_by(&credential.key, None, &bytes[bytes.len() - 20..]));
        assert_eq!(request.encode(None, 5).unwrap().len(), 24);
        assert!(Request::connect("127.0.0.1:1".parse().unwrap()).encode(None, 5).is_err());
    }

    #[test]
    fn a_clock_that_is_set_back_is_believed() {
        let hour = 3_600_000_000_000;
        assert_eq!([after(5, 9), after(9, 9), after(9, 5)], [9, 10, 10]);
        assert_eq!(after(2 * hour, hour), hour);
    }

    #[test]
    fn times_differ() {
        let times: Vec<u64> = (0..1000).map(|_| unique_time()).collect();
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
    }

    /// Reads a stream as the stack gives it, and returns what is left.
    fn read(mut stream: &[u8]) -> (Result<Option<Message>, AnswerError>, usize) {
        let mut reader = AnswerReader::default();
        loop {
            let (now, rest) = stream.split_at(reader.wants().min(stream.len()));
            if now.is_empty() {
                return (Ok(None), 0);
            }
            stream = rest;
            match reader.push(now) {
                Ok(None) => {}
                result => return (result, stream.len()),
            }
        }
    }

    #[test]
    fn an_answer_is_read_to_its_end() {
        let with = |tlvs: Vec<Tlv>| [&Message::new(tlvs).encode().unwrap()[..], b"data"].concat();
        assert_eq!(read(&with(vec![])), (Ok(Some(Message::default())), 4));
        let header = Tlv::ExtendedTcpHeader(vec![2, 4, 5, 180]);
        assert_eq!(read(&with(vec![header.clone()])), (Ok(Some(Message::new([header]))), 4));
        let refused = ConvertError::DestinationUnreachable { code: 13 };
        let answer = with(vec![Tlv::Error(refused.clone())]);
        assert_eq!(read(&answer), (Err(AnswerError::Refused(refused)), 4));
        assert_eq!(read(&answer[..7]).0, Ok(None));
        assert_eq!(read(&with(vec![Tlv::Info])).0, Err(AnswerError::Unexpected));
        assert!(matches!(read(b"HTTP/1.1 400").0, Err(AnswerError::NotUnderstood(_))));
        assert!(matches!(read(&[1, 0, 0x22, 0x63]).0, Err(AnswerError::NotUnderstood(_))));
    }
}

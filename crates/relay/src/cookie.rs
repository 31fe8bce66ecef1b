//! The Cookie TLV of a request: it shows that the client has a key, and is bound to the rest of the request.
//!
//! It is a length byte and the client's name, the time in nanoseconds since 1970 in 8 bytes (big-endian), and
//! HMAC-SHA256 by the client's key over the name, the time and the TLVs that follow the cookie, as they are
//! sent. It authorises; it encrypts nothing.
//!
//! A relay that cannot know whether it has seen a request answers with a [`Challenge`]; the code of the next
//! request on that connection is over the word "challenge" and these bytes as well, after the time.

use crate::key::{ClientName, Key, LONGEST_NAME};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Length of a message authentication code, in bytes.
pub const CODE: usize = 32;

/// Length of a challenge, in bytes.
pub const CHALLENGE: usize = 16;

/// What a relay wants to see in the cookie of the next request on a connection, so that it is none that was
/// recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Challenge([u8; CHALLENGE]);

impl Challenge {
    /// A new one, by the system's randomness.
    ///
    /// # Errors
    /// When the system has none.
    pub fn generate() -> Result<Challenge, getrandom::Error> {
        let mut bytes = [0; CHALLENGE];
        getrandom::fill(&mut bytes)?;
        Ok(Challenge(bytes))
    }

    /// What the Cookie TLV has that brings it.
    pub fn to_bytes(self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// Reads what a TLV has. `None`: it is none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Challenge> {
        Some(Challenge(bytes.try_into().ok()?))
    }
}

impl From<[u8; CHALLENGE]> for Challenge {
    fn from(bytes: [u8; CHALLENGE]) -> Challenge {
        Challenge(bytes)
    }
}

/// What a Cookie TLV of ours says. Nothing of it is true before [`is_by`](Self::is_by) says so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cookie {
    /// Who asks.
    pub client: ClientName,
    /// When, in nanoseconds since 1970.
    pub time: u64,
    /// The message authentication code.
    pub code: [u8; CODE],
}

impl Cookie {
    /// The cookie for a request whose other TLVs are `rest`, after a challenge if there was one.
    pub fn new(
        client: &ClientName,
        key: &Key,
        time: u64,
        challenge: Option<Challenge>,
        rest: &[u8],
    ) -> Cookie {
        // It cannot fail; a code of zeros would merely never be right.
        let code = mac(client, key, time, challenge, rest)
            .map_or([0; CODE], |mac| mac.finalize().into_bytes().into());
        Cookie { client: client.clone(), time, code }
    }

    /// What the TLV has.
    pub fn to_bytes(&self) -> Vec<u8> {
        let name = self.client.as_str().as_bytes();
        // A name is no longer than `LONGEST_NAME`.
        let mut bytes = vec![name.len() as u8];
        bytes.extend(name);
        bytes.extend(self.time.to_be_bytes());
        bytes.extend(self.code);
        bytes
    }

    /// Reads what a TLV has, with its padding. `None`: it is no cookie of ours.
    pub fn from_bytes(bytes: &[u8]) -> Option<Cookie> {
        let (length, rest) = bytes.split_first()?;
        let length = usize::from(*length);
        if length > LONGEST_NAME {
            return None;
        }
        let (name, rest) = rest.split_at_checked(length)?;
        let (time, rest) = rest.split_first_chunk::<8>()?;
        let (code, padding) = rest.split_first_chunk::<CODE>()?;
        if padding.len() > 3 || padding.iter().any(|byte| *byte != 0) {
            return None;
        }
        let client = std::str::from_utf8(name).ok()?.parse().ok()?;
        Some(Cookie { client, time: u64::from_be_bytes(*time), code: *code })
    }

    /// Whether whoever made it has this key, was challenged so, and the request's other TLVs are these. Takes as
    /// long whatever is wrong.
    pub fn is_by(&self, key: &Key, challenge: Option<Challenge>, rest: &[u8]) -> bool {
        mac(&self.client, key, self.time, challenge, rest)
            .is_some_and(|mac| mac.verify_slice(&self.code).is_ok())
    }
}

fn mac(
    client: &ClientName,
    key: &Key,
    time: u64,
    challenge: Option<Challenge>,
    rest: &[u8],
) -> Option<Hmac<Sha256>> {
    // HMAC takes keys of any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(key.bytes()).ok()?;
    mac.update(client.as_str().as_bytes());
    mac.update(&time.to_be_bytes());
    if let Some(Challenge(bytes)) = challenge {
        // No request's TLV has the number of its first letter: whoever pretends to be a relay gets no code that
        // is good for another request.
        mac.update(b"challenge");
        mac.update(&bytes);
    }
    mac.update(rest);
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(rest: &[u8]) -> (Cookie, Key) {
        let key = Key::from([7; 32]);
        (Cookie::new(&"laptop".parse().unwrap(), &key, 0x0102_0304_0506_0708, None, rest), key)
    }

    /// Computed with the `hmac` module of Python.
    #[test]
    fn the_code_is_that_of_another_implementation() {
        let (cookie, _) = cookie(b"rest");
        let hex: String = cookie.code.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "4049bdcc6ca9be12c5f0fc5a618bd45349f46aa613a89331b43120595a9952b8");
        let bytes = cookie.to_bytes();
        assert_eq!(bytes[..15], *b"\x06laptop\x01\x02\x03\x04\x05\x06\x07\x08");
        assert_eq!(bytes.len(), 47);
    }

    #[test]
    fn it_is_bound_to_everything() {
        let (cookie, key) = cookie(b"rest");
        assert!(cookie.is_by(&key, None, b"rest"));
        assert!(!cookie.is_by(&key, None, b"resu"));
        assert!(!cookie.is_by(&Key::from([8; 32]), None, b"rest"));
        let mut other = cookie.clone();
        other.time += 1;
        assert!(!other.is_by(&key, None, b"rest"));
        let mut other = cookie.clone();
        other.client = "laptoq".parse().unwrap();
        assert!(!other.is_by(&key, None, b"rest"));
        let mut other = cookie;
        other.code[31] ^= 1;
        assert!(!other.is_by(&key, None, b"rest"));
    }

    #[test]
    fn a_challenge_makes_another_cookie_of_it() {
        let (plain, key) = cookie(b"rest");
        let challenge = Challenge::from([9; CHALLENGE]);
        let of = |challenge| Cookie::new(&plain.client, &key, plain.time, challenge, b"rest");
        let answer = of(Some(challenge));
        assert_eq!(of(None), plain);
        assert!(answer.is_by(&key, Some(challenge), b"rest"));
        assert!(!answer.is_by(&key, None, b"rest") && !plain.is_by(&key, Some(challenge), b"rest"));
        assert!(!answer.is_by(&key, Some(Challenge::from([8; CHALLENGE])), b"rest"));
        assert_eq!(Challenge::from_bytes(&challenge.to_bytes()), Some(challenge));
        assert_eq!(Challenge::from_bytes(&[9; 17]), None);
        assert_ne!(Challenge::generate().unwrap(), Challenge::generate().unwrap());
    }

    #[test]
    fn it_is_read_with_its_padding_and_nothing_else() {
        let (cookie, _) = cookie(b"rest");
        let bytes = cookie.to_bytes();
        let with = |tail: &[u8]| Cookie::from_bytes(&[&bytes[..], tail].concat());
        assert_eq!(with(&[]), Some(cookie.clone()));
        assert_eq!(with(&[0]), Some(cookie));
        assert_eq!(with(&[1]), None);
        assert_eq!(with(&[0; 4]), None);
        for end in 0..bytes.len() {
            assert_eq!(Cookie::from_bytes(&bytes[..end]), None);
        }
        for first in [0, 5, 33, 255] {
            let mut wrong = bytes.clone();
            wrong[0] = first;
            assert!(Cookie::from_bytes(&wrong).is_none_or(|c| c.client.as_str() == "lapto"));
        }
        let mut wrong = bytes;
        wrong[2] = 0xff;
        assert_eq!(Cookie::from_bytes(&wrong), None);
    }
}

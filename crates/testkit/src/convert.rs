//! Any bytes as the start of a stream of Convert (RFC 8803): of a codec, of a relay, of its client.

use umptcp_convert::{ConvertError, DecodeError, Message, Tlv};
use umptcp_relay::{AnswerReader, Credential, Gate, Key};

/// The target: see the module.
///
/// # Panics
/// When something does not hold.
pub fn convert(data: &[u8]) {
    read(data);
    // Few inputs begin with a right header: the same bytes after one.
    let body = &data[..data.len().min(1016) / 4 * 4];
    read(&[&[1, (1 + body.len() / 4) as u8, 0x22, 0x63], body].concat());
    ask(data);
    answer(data);
}

/// The bytes come to a relay: nobody without the key is let in, and what it answers can be written.
fn ask(stream: &[u8]) {
    let client = "fuzz".parse().expect("a name");
    let mut gate = Gate::new([Credential { client, key: Key::from([7; 32]) }], 0);
    match gate.admit(stream, 1) {
        Ok(admitted) => assert_eq!(admitted, None, "without the key"),
        Err(refusal) => {
            assert_eq!(refusal.proven(), None);
            assert!(Message::new([Tlv::Error(refusal.answer(stream))]).encode().is_ok());
        }
    }
    if let Ok(Some((_, length))) = Gate::open().admit(stream, 1) {
        assert!(length <= stream.len());
    }
}

/// The bytes come to a client: it takes no more than the message.
fn answer(mut stream: &[u8]) {
    let mut reader = AnswerReader::default();
    let mut taken = 0;
    while !stream.is_empty() {
        let now = stream.split_off(..reader.wants().min(stream.len())).unwrap_or_default();
        taken += now.len();
        match reader.push(now) {
            Ok(None) => assert!(taken < 1020),
            Ok(Some(message)) => {
                AnswerReader::challenge(&message);
                return assert!(taken <= 1020);
            }
            Err(_) => return,
        }
    }
}

fn read(stream: &[u8]) {
    match Message::decode(stream) {
        Ok(Some((message, length))) => {
            assert!(length <= stream.len() && length <= 1020 && length % 4 == 0);
            let again = message.encode().expect("what was read can be written");
            assert!(again.len() <= length, "no longer than it came");
            assert_eq!(Message::decode(&again), Ok(Some((message, again.len()))));
            // What follows is not looked at, and what came first is not enough.
            assert_eq!(Message::decode(&stream[..length]).map(|m| m.map(|(_, l)| l)), Ok(Some(length)));
            assert_eq!(Message::decode(&stream[..length - 1]), Ok(None));
        }
        Ok(None) => assert!(stream.len() < 1020),
        Err(error) => {
            // What a converter answers can be written, whatever it was.
            let answer = match error {
                DecodeError::UnsupportedTlv(_) => ConvertError::unsupported(stream),
                _ => ConvertError::malformed(stream),
            };
            assert!(Message::new([Tlv::Error(answer)]).encode().is_ok());
        }
    }
}

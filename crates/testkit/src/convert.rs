//! Any bytes as the start of a stream of Convert (RFC 8803).

use umptcp_convert::{ConvertError, DecodeError, Message, Tlv};

/// The target: see the module.
///
/// # Panics
/// When something does not hold.
pub fn convert(data: &[u8]) {
    read(data);
    // Few inputs begin with a right header: the same bytes after one.
    let body = &data[..data.len().min(1016) / 4 * 4];
    read(&[&[1, (1 + body.len() / 4) as u8, 0x22, 0x63], body].concat());
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

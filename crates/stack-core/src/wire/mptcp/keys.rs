//! Keys, tokens, initial data sequence numbers and HMACs (RFC 8684 §3.1, §3.2, §3.4.1).
//!
//! By example: `docs/src/by-example/handshake.md`, `docs/src/by-example/join.md`.

use core::net::IpAddr;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use umptcp_types::{AddressId, DataSeq};

/// Our key and the peer's, as carried in MP_CAPABLE.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// Ours.
    pub local: u64,
    /// The peer's.
    pub remote: u64,
}

impl core::fmt::Debug for Keys {
    /// Keys authenticate joins, so they stay out of logs.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Keys(..)")
    }
}

/// RFC 8684 §3.1: the token is the most significant 32 bits of SHA-256 of the key, the IDSN the least
/// significant 64.
pub fn token_and_idsn(key: u64) -> (u32, DataSeq) {
    let digest = Sha256::digest(key.to_be_bytes());
    let mut token = [0; 4];
    let mut idsn = [0; 8];
    token.copy_from_slice(&digest[..4]);
    idsn.copy_from_slice(&digest[24..]);
    (u32::from_be_bytes(token), DataSeq(u64::from_be_bytes(idsn)))
}

/// HMAC-SHA256 with the key `first || second`.
fn hmac(first: u64, second: u64, message: &[u8]) -> [u8; 32] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&first.to_be_bytes());
    key[8..].copy_from_slice(&second.to_be_bytes());
    // HMAC takes keys of any length, so this cannot fail; an all-zero MAC would merely never verify.
    let Ok(mut mac) = <Hmac<Sha256> as KeyInit>::new_from_slice(&key) else { return [0; 32] };
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// RFC 8684 §3.2: the sender's HMAC over its own nonce and the receiver's. `own` is the sender's key and
/// nonce.
pub fn join_hmac(own_key: u64, peer_key: u64, own_nonce: u32, peer_nonce: u32) -> [u8; 32] {
    let mut message = [0; 8];
    message[..4].copy_from_slice(&own_nonce.to_be_bytes());
    message[4..].copy_from_slice(&peer_nonce.to_be_bytes());
    hmac(own_key, peer_key, &message)
}

/// The leftmost 64 bits, for the SYN/ACK (RFC 8684 figure 6).
pub fn leftmost_64(mac: &[u8; 32]) -> u64 {
    let mut b = [0; 8];
    b.copy_from_slice(&mac[..8]);
    u64::from_be_bytes(b)
}

/// The leftmost 160 bits, for the third ACK (RFC 8684 figure 7).
pub fn leftmost_160(mac: &[u8; 32]) -> [u8; 20] {
    let mut b = [0; 20];
    b.copy_from_slice(&mac[..20]);
    b
}

/// RFC 8684 §3.4.1: the rightmost 64 bits of the HMAC over Address ID, address and port; a missing port
/// counts as 0.
pub fn add_addr_hmac(sender_key: u64, receiver_key: u64, id: AddressId, address: IpAddr, port: u16) -> u64 {
    let mut message = [0; 19];
    message[0] = id.0;
    let len = match address {
        IpAddr::V4(a) => {
            message[1..5].copy_from_slice(&a.octets());
            5
        }
        IpAddr::V6(a) => {
            message[1..17].copy_from_slice(&a.octets());
            17
        }
    };
    message[len..len + 2].copy_from_slice(&port.to_be_bytes());
    let mac = hmac(sender_key, receiver_key, &message[..len + 2]);
    let mut b = [0; 8];
    b.copy_from_slice(&mac[24..]);
    u64::from_be_bytes(b)
}

/// Compares in constant time, so that timing does not tell an attacker how many bytes were right.
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of eight zero bytes is af5570f5...: token is its head, IDSN its tail.
    #[test]
    fn token_is_the_head_and_idsn_the_tail_of_the_digest() {
        let (token, idsn) = token_and_idsn(0);
        assert_eq!(token, 0xaf5570f5);
        assert_eq!(idsn.0, 0xe5b2328de0e83dfc);
        // The key is hashed in network byte order: 01 02 03 04 05 06 07 08.
        assert_eq!(token_and_idsn(0x0102_0304_0506_0708), (0x66840dda, DataSeq(0xf5a1_01d3_d29d_6f72)));
    }

    #[test]
    fn the_two_ends_compute_each_others_hmac() {
        let (a, b, ra, rb) = (1, 2, 3, 4);
        // Value computed with another implementation of HMAC-SHA256.
        assert_eq!(leftmost_64(&join_hmac(a, b, ra, rb)), 0xe5c5265ef877e594);
        assert_ne!(join_hmac(a, b, ra, rb), join_hmac(b, a, rb, ra));
    }

    #[test]
    fn comparison_sees_every_byte() {
        assert!(constant_time_eq(b"abc", b"abc"));
        assert!(!constant_time_eq(b"abc", b"abd"));
        // Two differences that are alike do not make up for each other.
        assert!(!constant_time_eq(b"aab", b"bbb"));
        assert!(!constant_time_eq(b"abc", b"ab"));
    }

    /// RFC 8684 §3.4.1: the key is the sender's, then the receiver's; the message is ID, address and port.
    #[test]
    fn add_addr_hmac_covers_id_address_and_port() {
        let rightmost = |message: &[u8]| {
            let mac = hmac(1, 2, message);
            mac[24..].iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let of = |id, address, port| add_addr_hmac(1, 2, AddressId(id), address, port);
        let v4 = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(of(5, v4, 0x1f90), rightmost(&[5, 192, 0, 2, 1, 0x1f, 0x90]));
        assert_eq!(of(5, v4, 0), rightmost(&[5, 192, 0, 2, 1, 0, 0]), "no port is two octets of 0");
        let v6 = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7]);
        let mut message = alloc::vec![9, 0x20, 0x01, 0x0d, 0xb8];
        message.extend([0; 11]);
        message.extend([7, 0, 80]);
        assert_eq!(of(9, v6, 80), rightmost(&message));
    }
}

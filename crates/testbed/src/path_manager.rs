//! Commands of the kernel's MPTCP path manager that `ip mptcp` lacks, over generic netlink
//! (`linux/mptcp_pm.h`).

use crate::netns::Netns;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};

const AF_NETLINK: i32 = 16;
const NETLINK_GENERIC: i32 = 16;
/// The control family, which looks up the ids of the others.
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NLM_F_REQUEST_ACK: u16 = 0x5;
const NLMSG_ERROR: u16 = 2;
const NLA_F_NESTED: u16 = 0x8000;

const SUBFLOW_DESTROY: u8 = 11;
const ATTR_ADDR: u16 = 1;
const ATTR_TOKEN: u16 = 4;
const ATTR_ADDR_REMOTE: u16 = 6;
const ADDR_FAMILY: u16 = 1;
const ADDR_4: u16 = 3;
const ADDR_6: u16 = 4;
const ADDR_PORT: u16 = 5;

/// An attribute, padded to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(((4 + value.len()) as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A message: netlink header, generic netlink header, attributes.
fn message(family: u16, command: u8, attributes: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(((16 + 4 + attributes.len()) as u32).to_ne_bytes());
    bytes.extend(family.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([command, 1, 0, 0]);
    bytes.extend(attributes);
    bytes
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

/// The value of the first attribute of type `kind` in `bytes`.
fn find(mut bytes: &[u8], kind: u16) -> Option<&[u8]> {
    while bytes.len() >= 4 {
        let length = usize::from(u16_at(bytes, 0)).clamp(4, bytes.len());
        if u16_at(bytes, 2) == kind {
            return Some(&bytes[4..length]);
        }
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    None
}

fn address(of: SocketAddr) -> Vec<u8> {
    let (family, ip) = match of.ip() {
        IpAddr::V4(a) => (2_u16, attribute(ADDR_4, &a.octets())),
        IpAddr::V6(a) => (10, attribute(ADDR_6, &a.octets())),
    };
    let mut bytes = attribute(ADDR_FAMILY, &family.to_ne_bytes());
    bytes.extend(ip);
    bytes.extend(attribute(ADDR_PORT, &of.port().to_ne_bytes()));
    bytes
}

/// Sends a message and returns the contents of the first response, without headers.
///
/// # Panics
/// When the kernel reports an error.
fn ask(socket: &mut Socket, message: &[u8], what: &str) -> Vec<u8> {
    socket.write_all(message).unwrap_or_else(|e| panic!("cannot send to netlink: {e}"));
    let mut buffer = vec![0; 1 << 14];
    let n = socket.read(&mut buffer).unwrap_or_else(|e| panic!("netlink does not answer: {e}"));
    assert!(n >= 20, "netlink answers {n} bytes");
    if u16_at(&buffer, 4) == NLMSG_ERROR {
        let code = i32::from_ne_bytes([buffer[16], buffer[17], buffer[18], buffer[19]]);
        assert_eq!(code, 0, "{what}: {}", std::io::Error::from_raw_os_error(-code));
    }
    buffer.truncate(n);
    buffer.split_off(20)
}

/// Closes one subflow of a connection in `ns`, which must use the user-space path manager
/// (`net.mptcp.path_manager = userspace`). `token` is the kernel's local token.
///
/// # Panics
/// When the kernel refuses.
pub fn destroy_subflow(ns: &Netns, token: u32, local: SocketAddr, remote: SocketAddr) {
    ns.run(|| {
        let mut socket =
            Socket::new(Domain::from(AF_NETLINK), Type::RAW, Some(Protocol::from(NETLINK_GENERIC)))
                .unwrap_or_else(|e| panic!("cannot open a netlink socket: {e}"));
        let name = attribute(CTRL_ATTR_FAMILY_NAME, b"mptcp_pm\0");
        let family = ask(&mut socket, &message(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, &name), "finding mptcp_pm");
        let id = find(&family, CTRL_ATTR_FAMILY_ID).expect("the kernel has MPTCP");
        // The acknowledgement of that request is a separate message.
        let _ = socket.read(&mut [0; 1 << 12]);
        let mut attributes = attribute(ATTR_TOKEN, &token.to_ne_bytes());
        attributes.extend(attribute(ATTR_ADDR | NLA_F_NESTED, &address(local)));
        attributes.extend(attribute(ATTR_ADDR_REMOTE | NLA_F_NESTED, &address(remote)));
        ask(&mut socket, &message(u16_at(id, 0), SUBFLOW_DESTROY, &attributes), "destroying a subflow");
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_found() {
        let mut bytes = attribute(7, b"abc");
        bytes.extend(attribute(9, &[1, 2]));
        assert_eq!(bytes.len(), 16);
        assert_eq!(
            (find(&bytes, 7), find(&bytes, 9), find(&bytes, 8)),
            (Some(&b"abc"[..]), Some(&[1, 2][..]), None)
        );
        // A wrong length does not lead past the end.
        assert_eq!(find(&[255, 255, 7, 0, 1], 7), Some(&[1][..]));
        assert_eq!(find(&[0, 0, 7, 0], 8), None);
    }
}

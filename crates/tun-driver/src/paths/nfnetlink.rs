//! Messages of nftables' netlink interface, as far as they are needed without the program `nft`, which reads the
//! whole ruleset for almost everything that it does.

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Length of a netlink message's header, and of nfnetlink's after it.
pub(super) const HEADER: usize = 16;
pub(super) const NF_HEADER: usize = 4;
/// The subsystem of nftables, in the upper half of a message's type.
pub(super) const SUBSYSTEM: u8 = 10;
/// In every message about a table or a part of one, this attribute is the table's name.
pub(super) const TABLE: u16 = 1;

/// NFT_MSG_GETTABLE.
const GET_TABLE: u8 = 1;
/// NFT_MSG_GETOBJ and the attributes of an object (NFTA_OBJ_*) and of a counter (NFTA_COUNTER_*).
const GET_OBJECT: u8 = 19;
const OBJECT_NAME: u16 = 2;
const OBJECT_KIND: u16 = 3;
const OBJECT_DATA: u16 = 4;
const COUNTER: u32 = 1;
const COUNTER_PACKETS: u16 = 2;
/// NFPROTO_INET.
const INET: u8 = 1;
/// The flags of an attribute's type, which is in the other bits.
const KIND: u16 = 0x3fff;

/// Aligned as netlink aligns messages and attributes.
pub(super) fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// The value of the first attribute of a kind.
pub(super) fn attribute(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    while let Some(head) = attributes.first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        if u16::from_ne_bytes([head[2], head[3]]) & KIND == kind {
            return attributes.get(4..length);
        }
        attributes = attributes.get(aligned(length.max(4))..)?;
    }
    None
}

fn push(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend(((4 + value.len()) as u16).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(aligned(message.len()), 0);
}

/// A request: its kind, flags and family (0: all), followed by attributes.
fn request(kind: u8, flags: i32, family: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut request = vec![0; HEADER + NF_HEADER];
    request[HEADER] = family;
    for (kind, value) in attributes {
        push(&mut request, *kind, value);
    }
    let length = request.len() as u32;
    request[..4].copy_from_slice(&length.to_ne_bytes());
    request[4..6].copy_from_slice(&u16::from_le_bytes([kind, SUBSYSTEM]).to_ne_bytes());
    request[6..8].copy_from_slice(&((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
    request
}

/// Sends a request to the kernel.
fn ask(request: &[u8]) -> io::Result<OwnedFd> {
    let protocol = SockProtocol::NetlinkNetFilter;
    let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(5))?;
    connect(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    send(fd.as_raw_fd(), request, MsgFlags::empty())?;
    Ok(fd)
}

/// How many packets a counter of a table of family inet has counted.
pub(super) fn counted(table: &str, counter: &str) -> io::Result<u64> {
    let (table, counter) = (format!("{table}\0"), format!("{counter}\0"));
    let kind = COUNTER.to_be_bytes();
    let attributes: [(u16, &[u8]); 3] =
        [(TABLE, table.as_bytes()), (OBJECT_NAME, counter.as_bytes()), (OBJECT_KIND, &kind)];
    let fd = ask(&request(GET_OBJECT, 0, INET, &attributes))?;
    let mut buffer = [0; 1024];
    let length = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    packets(&buffer[..length])
}

/// The families and names of all tables.
pub(super) fn tables() -> io::Result<Vec<(&'static str, String)>> {
    let fd = ask(&request(GET_TABLE, libc::NLM_F_DUMP, 0, &[]))?;
    let mut tables = Vec::new();
    let mut buffer = vec![0; 65536];
    loop {
        let length = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if length == 0 || add_tables(&buffer[..length], &mut tables)? {
            return Ok(tables);
        }
    }
}

/// Adds the tables in some messages of a dump. Whether it has ended.
fn add_tables(mut messages: &[u8], tables: &mut Vec<(&'static str, String)>) -> io::Result<bool> {
    while let Some(length) = messages.first_chunk::<4>() {
        let length = u32::from_ne_bytes(*length) as usize;
        let Some(message) = messages.get(..length).filter(|m| m.len() >= HEADER) else { break };
        match i32::from(u16::from_ne_bytes([message[4], message[5]])) {
            libc::NLMSG_DONE => return Ok(true),
            libc::NLMSG_ERROR => return packets(message).map(|_| true),
            _ => {
                let family = match message.get(HEADER) {
                    Some(1) => "inet",
                    Some(2) => "ip",
                    Some(3) => "arp",
                    Some(5) => "netdev",
                    Some(7) => "bridge",
                    Some(10) => "ip6",
                    _ => "",
                };
                let name = message.get(HEADER + NF_HEADER..).and_then(|a| attribute(a, TABLE));
                if let Some(name) = name {
                    tables.push((family, String::from_utf8_lossy(name).trim_end_matches('\0').to_owned()));
                }
            }
        }
        messages = messages.get(aligned(length)..).unwrap_or_default();
    }
    Ok(false)
}

/// The count in an answer.
fn packets(answer: &[u8]) -> io::Result<u64> {
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "an odd answer about a counter");
    let kind = answer.get(4..6).ok_or_else(odd)?;
    if kind == (libc::NLMSG_ERROR as u16).to_ne_bytes() {
        let code = answer.get(HEADER..HEADER + 4).and_then(|c| c.try_into().ok()).ok_or_else(odd)?;
        return Err(io::Error::from_raw_os_error(-i32::from_ne_bytes(code)));
    }
    let attributes = answer.get(HEADER + NF_HEADER..).ok_or_else(odd)?;
    let count = attribute(attributes, OBJECT_DATA).and_then(|data| attribute(data, COUNTER_PACKETS));
    count.and_then(|c| c.try_into().ok()).map(u64::from_be_bytes).ok_or_else(odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let mut data = Vec::new();
        push(&mut data, 1, &1000u64.to_be_bytes());
        push(&mut data, COUNTER_PACKETS, &7u64.to_be_bytes());
        let mut answer = vec![0; HEADER + NF_HEADER];
        push(&mut answer, TABLE, b"umptcp0\0");
        push(&mut answer, OBJECT_DATA | 0x8000, &data);
        assert_eq!(packets(&answer).unwrap(), 7);
        assert!(packets(&answer[..30]).is_err() && packets(&[]).is_err());
        let mut tables = Vec::new();
        let mut messages = request(0, 0, 10, &[(TABLE, b"filter\0")]);
        assert!(!add_tables(&messages, &mut tables).unwrap());
        messages.extend(request(0, 0, INET, &[(7, b"x"), (TABLE, b"umptcp1\0")]));
        let mut done = request(0, 0, 0, &[]);
        done[4..6].copy_from_slice(&(libc::NLMSG_DONE as u16).to_ne_bytes());
        messages.extend(&done);
        tables.clear();
        assert!(add_tables(&messages, &mut tables).unwrap());
        assert_eq!(tables, [("ip6", "filter".to_owned()), ("inet", "umptcp1".to_owned())]);
        let mut error = vec![0; HEADER];
        error[4..6].copy_from_slice(&(libc::NLMSG_ERROR as u16).to_ne_bytes());
        error.extend((-libc::ENOENT).to_ne_bytes());
        assert_eq!(packets(&error).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }
}

//! Messages of netfilter's netlink interface: those about nftables, as far as they are needed without the
//! program `nft`, which reads the whole ruleset for almost everything that it does.

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

/// Appends an attribute.
pub(super) fn push(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend(((4 + value.len()) as u16).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(aligned(message.len()), 0);
}

/// A request to a subsystem: its kind, flags and family (0: all), followed by attributes.
pub(super) fn request(
    subsystem: u8,
    kind: u8,
    flags: i32,
    family: u8,
    attributes: &[(u16, &[u8])],
) -> Vec<u8> {
    let mut request = vec![0; HEADER + NF_HEADER];
    request[HEADER] = family;
    for (kind, value) in attributes {
        push(&mut request, *kind, value);
    }
    let length = request.len() as u32;
    request[..4].copy_from_slice(&length.to_ne_bytes());
    request[4..6].copy_from_slice(&u16::from_le_bytes([kind, subsystem]).to_ne_bytes());
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
    let fd = ask(&request(SUBSYSTEM, GET_OBJECT, 0, INET, &attributes))?;
    let mut buffer = [0; 1024];
    let length = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    packets(&buffer[..length])
}

/// Sends a request that is answered by a result only, and returns that.
pub(super) fn done(request: &[u8]) -> io::Result<()> {
    let fd = ask(request)?;
    let mut buffer = [0; 1024];
    let length = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    result(&buffer[..length])
}

/// Sends a request for a list, and passes each message of the answer on.
pub(super) fn dump(request: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let fd = ask(request)?;
    let mut buffer = vec![0; 65536];
    loop {
        let length = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if length == 0 || split(&buffer[..length], &mut each)? {
            return Ok(());
        }
    }
}

/// Passes some messages of a list on. Whether it has ended.
fn split(mut messages: &[u8], each: &mut impl FnMut(&[u8])) -> io::Result<bool> {
    while let Some(length) = messages.first_chunk::<4>() {
        let length = u32::from_ne_bytes(*length) as usize;
        let Some(message) = messages.get(..length).filter(|m| m.len() >= HEADER) else { break };
        match i32::from(u16::from_ne_bytes([message[4], message[5]])) {
            libc::NLMSG_DONE => return Ok(true),
            libc::NLMSG_ERROR => return result(message).map(|()| true),
            _ => each(message),
        }
        messages = messages.get(aligned(length)..).unwrap_or_default();
    }
    Ok(false)
}

/// The families and names of all tables.
pub(super) fn tables() -> io::Result<Vec<(&'static str, String)>> {
    let mut tables = Vec::new();
    let list = request(SUBSYSTEM, GET_TABLE, libc::NLM_F_DUMP, 0, &[]);
    dump(&list, |message| tables.extend(table(message)))?;
    Ok(tables)
}

/// Whether nftables has this table, in the network namespace of the calling thread.
///
/// # Errors
/// When netfilter does not answer.
pub fn has_table(family: &str, name: &str) -> io::Result<bool> {
    Ok(tables()?.iter().any(|table| *table == (family, name.to_owned())))
}

/// The family and the name in a message about a table.
fn table(message: &[u8]) -> Option<(&'static str, String)> {
    let family = match message.get(HEADER)? {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "",
    };
    let name = attribute(message.get(HEADER + NF_HEADER..)?, TABLE)?;
    Some((family, String::from_utf8_lossy(name).trim_end_matches('\0').to_owned()))
}

fn odd() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an odd answer of netfilter")
}

fn is_error(message: &[u8]) -> bool {
    message.get(4..6) == Some(&(libc::NLMSG_ERROR as u16).to_ne_bytes())
}

/// The result in a message of the kind that errors have; 0 is success.
fn result(message: &[u8]) -> io::Result<()> {
    let code = message.get(HEADER..HEADER + 4).filter(|_| is_error(message));
    match code.and_then(|c| c.try_into().ok()).map(i32::from_ne_bytes).ok_or_else(odd)? {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
    }
}

/// The count in an answer.
fn packets(answer: &[u8]) -> io::Result<u64> {
    if is_error(answer) {
        result(answer)?;
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
        let mut messages = request(SUBSYSTEM, 0, 0, 10, &[(TABLE, b"filter\0")]);
        messages.extend(request(SUBSYSTEM, 0, 0, INET, &[(7, b"x"), (TABLE, b"umptcp1\0")]));
        let mut tables = Vec::new();
        assert!(!split(&messages, &mut |m| tables.extend(table(m))).unwrap());
        assert_eq!(tables, [("ip6", "filter".to_owned()), ("inet", "umptcp1".to_owned())]);
        let mut done = request(SUBSYSTEM, 0, 0, 0, &[]);
        done[4..6].copy_from_slice(&(libc::NLMSG_DONE as u16).to_ne_bytes());
        messages.extend(&done);
        assert!(split(&messages, &mut |_| {}).unwrap());
        let mut error = vec![0; HEADER];
        error[4..6].copy_from_slice(&(libc::NLMSG_ERROR as u16).to_ne_bytes());
        error.extend((-libc::ENOENT).to_ne_bytes());
        error[0] = error.len() as u8;
        for failed in [packets(&error).map(drop), result(&error), split(&error, &mut |_| {}).map(drop)] {
            assert_eq!(failed.unwrap_err().raw_os_error(), Some(libc::ENOENT));
        }
        error[HEADER..].fill(0);
        assert!(result(&error).is_ok() && result(&done).is_err());
    }
}

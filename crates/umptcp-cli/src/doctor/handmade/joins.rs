//! What becomes of a second subflow by each path.

use super::Way;
use super::link::{Half, Site, random};
use super::open::{ATTEMPTS, Open, PATIENCE, reason};
use super::probe::{Reply, ask, capable, complete, is_heard, plain_way};
use umptcp_stack_core::wire::mptcp::keys::{join_hmac, leftmost_64, leftmost_160, token_and_idsn};
use umptcp_stack_core::wire::mptcp::{MpJoin, MptcpOption};
use umptcp_types::AddressId;

/// What becomes of a join.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Join {
    /// The server has taken it.
    Works,
    /// The SYN/ACK has no option.
    Plain(Way),
    /// The SYN is not answered.
    Dropped,
    /// The server refuses it, with the reason if it says one.
    Refused(Option<u8>),
    /// What the server says of the keys does not fit (RFC 8684 section 3.2): it does not know them, or the option was changed.
    Wrong,
    /// The SYN was answered; the third ACK, which proves who we are, was refused, with the reason if it says one.
    ThirdRefused(Option<u8>),
    /// The same, and it was not answered.
    ThirdUnanswered,
    /// The server says that it accepts none at this address and port.
    Forbidden,
    /// There was no connection to join.
    Untried,
}

/// What becomes of a join by each path, in order.
pub(in super::super) type Joins = Vec<(String, Join)>;

/// The Address IDs of ours that the server is told, from this one on.
const FIRST_ID: u8 = 1;

/// Joins by each path to a connection by `base`, a path that lets MPTCP pass. Each has a connection of its own: a server
/// may let few join one.
pub(in super::super) fn join(sites: &mut [Site], base: usize) -> Joins {
    (0..sites.len()).map(|path| (sites[path].name.clone(), by(sites, base, path))).collect()
}

fn by(sites: &mut [Site], base: usize, path: usize) -> Join {
    let Some(open) = live(&mut sites[base]) else { return Join::Untried };
    let id = AddressId(FIRST_ID.saturating_add(u8::try_from(path).unwrap_or(u8::MAX)));
    let mut half = sites[path].half();
    let join =
        if open.forbids_joins() { Join::Forbidden } else { attempt(&mut sites[path], &mut half, &open, id) };
    sites[path].reset(&half);
    sites[base].reset(&open.half);
    join
}

/// A connection that the server takes for MPTCP.
fn live(site: &mut Site) -> Option<Open> {
    let mut half = site.half();
    let Reply::Accepted(options) = ask(site, &mut half, Some(&capable(false))) else { return None };
    let open = complete(site, half.clone(), &options, false).filter(|open| is_heard(site, open));
    if open.is_none() {
        site.reset(&half);
    }
    open
}

fn attempt(site: &mut Site, half: &mut Half, open: &Open, address_id: AddressId) -> Join {
    let (token, _) = token_and_idsn(open.keys.remote);
    let nonce = random() as u32;
    let syn = MptcpOption::Join(MpJoin::Syn { backup: false, address_id, token, nonce });
    let options = match ask(site, half, Some(&syn)) {
        Reply::Silence => return Join::Dropped,
        Reply::Refused(reason) => return Join::Refused(reason),
        Reply::Accepted(options) if options.is_empty() => return Join::Plain(plain_way(site)),
        Reply::Accepted(options) => options,
    };
    let answer = options.iter().find_map(|option| match option {
        MptcpOption::Join(MpJoin::SynAck { hmac, nonce, .. }) => Some((*hmac, *nonce)),
        _ => None,
    });
    let Some((said, theirs)) = answer else { return Join::Wrong };
    let keys = open.keys;
    if leftmost_64(&join_hmac(keys.remote, keys.local, theirs, nonce)) != said {
        return Join::Wrong;
    }
    let hmac = leftmost_160(&join_hmac(keys.local, keys.remote, nonce, theirs));
    for _ in 0..ATTEMPTS {
        site.send_ack(half, half.next, Some(MptcpOption::Join(MpJoin::Ack { hmac })), &[]);
        let until = site.now() + PATIENCE;
        while let Some((tcp, _)) = site.receive(half, until) {
            if site.is_reset(half, &tcp) {
                return Join::ThirdRefused(reason(&tcp));
            }
            // The server acknowledges it (RFC 8684 section 3.2). A SYN/ACK is one that comes again.
            if !tcp.flags.syn && !tcp.flags.rst {
                return Join::Works;
            }
        }
    }
    Join::ThirdUnanswered
}

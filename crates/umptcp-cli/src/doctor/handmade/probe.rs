//! What one path does to the options of one server's connections.

use super::Way;
use super::link::{Half, MSS, Site, after, before, random};
use super::open::{ATTEMPTS, Later, Open, PATIENCE, reason, send_third};
use super::talk::{Heard, talk};
use umptcp_stack_core::wire::mptcp::{
    CapableFlags, MpCapable, MpFastClose, MpJoin, MptcpOption, VERSION, keys::Keys,
};
use umptcp_types::AddressId;

/// What became of a SYN.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Reply {
    /// A SYN/ACK, with its options.
    Accepted(Vec<MptcpOption>),
    /// A reset, with the reason if it says one.
    Refused(Option<u8>),
    Silence,
}

/// What becomes of MP_CAPABLE in the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Syn {
    /// Both ends see it.
    Passes,
    /// The answer has none. `ToServer` may also be a server that does not speak MPTCP.
    Plain(Way),
    /// The answer has our own option, or one that no server may send.
    Changed,
    /// SYNs with it are not answered, others are.
    Dropped(Way),
    /// Not even a plain SYN is answered with a SYN/ACK.
    Unreached,
}

/// What a path does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) struct Seen {
    pub(in super::super) syn: Syn,
    pub(in super::super) later: Later,
}

/// Sends a SYN, a few times if need be. It is not answered: the connection stays half-open.
pub(super) fn ask(site: &mut Site, half: &mut Half, option: Option<&MptcpOption>) -> Reply {
    for _ in 0..ATTEMPTS {
        site.send_syn(half, option.cloned());
        let until = site.now() + PATIENCE;
        while let Some((tcp, _)) = site.receive(half, until) {
            let answers = tcp.flags.ack && tcp.ack == half.next;
            if tcp.flags.rst && answers {
                return Reply::Refused(reason(&tcp));
            }
            if tcp.flags.syn && answers {
                half.awaited = after(tcp.seq, 1);
                return Reply::Accepted(tcp.options.mptcp.to_vec());
            }
        }
    }
    Reply::Silence
}

/// Asks, and leaves nothing behind.
fn ask_and_leave(site: &mut Site, option: Option<&MptcpOption>) -> Reply {
    let mut half = site.half();
    let reply = ask(site, &mut half, option);
    if !matches!(reply, Reply::Refused(_)) {
        site.reset(&half);
    }
    reply
}

/// The option of a SYN, which asks for checksums or not.
pub(super) fn capable(checksums: bool) -> MptcpOption {
    MptcpOption::Capable(MpCapable::Syn { version: VERSION, flags: CapableFlags::sha256(checksums, false) })
}

/// A join to a connection that there is not: a server that speaks MPTCP refuses it (RFC 8684 section 3.2), one that
/// sees no option takes it for a connection of TCP.
fn unknown_join() -> MptcpOption {
    let (token, nonce) = (random() as u32, random() as u32);
    MptcpOption::Join(MpJoin::Syn { backup: false, address_id: AddressId(1), token, nonce })
}

/// How often a connection is looked at whose options do not pass: a third ACK that was lost looks like one without its
/// option.
const LOOKS: usize = 2;

/// What a path does to the options of connections without and with data.
pub(in super::super) fn examine(site: &mut Site, request: &[u8]) -> Seen {
    let request = &request[..request.len().min(usize::from(MSS))];
    let mut seen = look(site, request);
    for _ in 1..LOOKS {
        if matches!(seen.later, Later::Untried | Later::Passes) {
            break;
        }
        seen = look(site, request);
    }
    seen
}

fn look(site: &mut Site, request: &[u8]) -> Seen {
    let mut half = site.half();
    // With checksums, who receives what was rewritten finds it out (RFC 8684 section 3.3.1).
    let reply = ask(site, &mut half, Some(&capable(true)));
    let syn = match &reply {
        Reply::Accepted(options) if options.is_empty() => Syn::Plain(plain_way(site)),
        Reply::Accepted(_) => Syn::Passes,
        Reply::Refused(_) => Syn::Unreached,
        Reply::Silence => dropped(site, &half),
    };
    let (Reply::Accepted(options), Syn::Passes) = (reply, syn) else {
        site.reset(&half);
        return Seen { syn, later: Later::Untried };
    };
    let Some(open) = complete(site, half.clone(), &options, true) else {
        site.reset(&half);
        return Seen { syn: Syn::Changed, later: Later::Untried };
    };
    let later = later(site, open, request);
    Seen { syn, later }
}

/// A SYN/ACK had no option: where did it get lost?
pub(super) fn plain_way(site: &mut Site) -> Way {
    match ask_and_leave(site, Some(&unknown_join())) {
        // The server has seen an option, and speaks MPTCP: so it has answered with one.
        Reply::Refused(_) => Way::FromServer,
        Reply::Accepted(_) => Way::ToServer,
        Reply::Silence => Way::Untold,
    }
}

/// A SYN with the option had no answer.
fn dropped(site: &mut Site, half: &Half) -> Syn {
    if !matches!(ask_and_leave(site, None), Reply::Accepted(_)) {
        return Syn::Unreached;
    }
    // The same SYN without the option: where the first one has come, the server repeats the answer to that, option and
    // all, which is dropped again.
    let mut again = half.clone();
    match ask(site, &mut again, None) {
        Reply::Accepted(options) if options.is_empty() => Syn::Dropped(Way::ToServer),
        Reply::Silence => Syn::Dropped(Way::FromServer),
        _ => Syn::Dropped(Way::Untold),
    }
}

/// Completes a handshake. `None`: the option is not one that a server may send (RFC 8684 section 3.1).
/// `checksums`: we have asked for them; then there are some, whatever the server asks for.
pub(super) fn complete(
    site: &mut Site,
    half: Half,
    options: &[MptcpOption],
    checksums: bool,
) -> Option<Open> {
    let (mut flags, remote) = options.iter().find_map(|option| match option {
        MptcpOption::Capable(MpCapable::SynAck { version: VERSION, flags, key })
            if !flags.extensibility && flags.algorithms & CapableFlags::HMAC_SHA256 != 0 =>
        {
            Some((*flags, *key))
        }
        _ => None,
    })?;
    flags.checksum_required |= checksums;
    let open = Open { half, keys: Keys { local: random(), remote }, flags };
    send_third(site, &open);
    Some(open)
}

/// Asks a live connection for a sign of life, until there is one. The handshake's third ACK goes with the first.
pub(super) fn is_heard(site: &mut Site, open: &Open) -> bool {
    let heard = sign_of_life(site, open);
    heard.with_option && heard.reset.is_none()
}

/// What the server says to a probe below the window, which is answered with an ACK (RFC 9293 section 3.10.7.4).
fn sign_of_life(site: &mut Site, open: &Open) -> Heard {
    let mut heard = Heard::default();
    let half = &open.half;
    for _ in 0..ATTEMPTS {
        // The first segment after the third ACK shows the server that we speak MPTCP (RFC 8684 section 3.1).
        site.send_ack(half, half.next, Some(open.data_ack(0)), &[]);
        site.send_ack(half, before(half.next), Some(open.data_ack(0)), &[]);
        let until = site.now() + PATIENCE;
        while let Some((tcp, payload)) = site.receive(half, until) {
            if tcp.flags.syn {
                // The third ACK was lost, or is not seen yet.
                send_third(site, open);
                continue;
            }
            if tcp.flags.rst && !site.is_reset(half, &tcp) {
                continue;
            }
            heard.note(open, &tcp, &payload, 0);
            if heard.any {
                return heard;
            }
        }
    }
    heard
}

fn later(site: &mut Site, open: Open, request: &[u8]) -> Later {
    if request.is_empty() {
        let heard = sign_of_life(site, &open);
        if heard.reset.is_none() {
            site.reset(&open.half);
        }
        return whichever_way(site, heard.verdict());
    }
    let found = talk(site, open, &[request], &[]).verdict();
    let is_odd = !matches!(found, Later::Passes | Later::Silence | Later::Rewritten(_));
    if is_odd && (fails_by_checksums_only(site, request) || says_that_it_fails(site, request)) {
        return Later::Rewritten(Way::ToServer);
    }
    whichever_way(site, found)
}

/// The same, with the way.
fn whichever_way(site: &mut Site, found: Later) -> Later {
    match found {
        Later::Stripped(_) => Later::Stripped(later_way(site)),
        other => other,
    }
}

/// Another connection that says these pieces, each in a segment.
fn again(site: &mut Site, checksums: bool, pieces: &[&[u8]], padding: &[u8]) -> Option<Heard> {
    let mut half = site.half();
    let open = match ask(site, &mut half, Some(&capable(checksums))) {
        Reply::Accepted(options) => complete(site, half.clone(), &options, checksums),
        _ => None,
    };
    let Some(open) = open else {
        site.reset(&half);
        return None;
    };
    // Where the server asks for checksums there are always some.
    (open.flags.checksum_required == checksums).then(|| talk(site, open, pieces, padding))
}

/// A server whose checksum of the very first data is wrong may do without MPTCP, and not say why (RFC 8684 section 3.7). The
/// same data pass then without checksums. Lost packets look like this, too, but not each time.
fn fails_by_checksums_only(site: &mut Site, request: &[u8]) -> bool {
    let mut passes =
        |checksums| again(site, checksums, &[request], &[]).map(|heard| heard.verdict() == Later::Passes);
    (0..LOOKS).all(|_| passes(false) == Some(true) && passes(true) == Some(false))
}

/// Fills up what a box has made shorter, so that its checksum can be looked at. A server of HTTP does not mind.
const PADDING: &[u8] = &[b'\n'; 64];

/// Once it has seen data whose checksum is right, it says so of others: MP_FAIL. What is rewritten is seldom the first byte.
fn says_that_it_fails(site: &mut Site, request: &[u8]) -> bool {
    let Some((first, rest)) = request.split_at_checked(1) else { return false };
    again(site, true, &[first, rest], PADDING).is_some_and(|heard| heard.failed_after_good)
}

/// Nothing that the server sends has an option: does it get ours? A fast close ends the connection of a server that
/// sees it (RFC 8684 section 3.5); one that does not takes the segment for an ACK.
fn later_way(site: &mut Site) -> Way {
    let mut half = site.half();
    let Reply::Accepted(options) = ask(site, &mut half, Some(&capable(false))) else { return Way::Untold };
    let Some(open) = complete(site, half.clone(), &options, false) else {
        site.reset(&half);
        return Way::Untold;
    };
    let heard = sign_of_life(site, &open);
    if heard.reset.is_some() || !heard.any {
        return Way::Untold;
    }
    let close = MptcpOption::FastClose(MpFastClose { receiver_key: open.keys.remote });
    for _ in 0..ATTEMPTS {
        site.send_ack(&half, half.next, Some(close.clone()), &[]);
        let until = site.now() + PATIENCE;
        while let Some((tcp, _)) = site.receive(&half, until) {
            if site.is_reset(&half, &tcp) {
                return Way::FromServer;
            }
        }
    }
    site.reset(&half);
    Way::ToServer
}

//! What one path does to the options of one server's connections.

use super::Way;
use super::link::{Half, MSS, Site, after, before, random};
use std::time::Duration;
use umptcp_stack_core::wire::checksum;
use umptcp_stack_core::wire::mptcp::{
    CapableFlags, DataAck, Dss, MpCapable, MpFastClose, MpJoin, MptcpOption, VERSION, dss_pseudo_header,
    keys::{Keys, token_and_idsn},
};
use umptcp_stack_core::wire::tcp::TcpRepr;
use umptcp_types::AddressId;

/// How long the answer to a segment may take before it is sent again.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// How often a segment is sent before silence counts.
pub(super) const ATTEMPTS: usize = 3;

/// How long the server's program has to answer a request.
const THOUGHT: Duration = Duration::from_secs(3);

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

/// What becomes of options after the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Later {
    /// The handshake did not come so far.
    Untried,
    /// Both ends see them.
    Passes,
    /// The server's segments have none.
    Stripped(Way),
    /// Those with data have none, others do.
    StrippedFromData(Way),
    /// Nothing comes any more.
    Silence,
    /// The server has reset the connection, with the reason if it says one.
    Reset(Option<u8>),
}

/// What a path does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) struct Seen {
    pub(in super::super) syn: Syn,
    pub(in super::super) later: Later,
}

/// A connection whose handshake is complete on our side.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) half: Half,
    pub(super) keys: Keys,
    flags: CapableFlags,
}

/// What the server has sent on a connection.
#[derive(Default, Debug)]
struct Heard {
    /// Segments that carry an MPTCP option.
    with_option: bool,
    /// Any segment.
    any: bool,
    data: bool,
    mapped_data: bool,
    /// Our data are acknowledged: by TCP, by MPTCP.
    acked: bool,
    data_acked: bool,
    reset: Option<Option<u8>>,
}

/// The reason of a reset.
pub(super) fn reason(tcp: &TcpRepr) -> Option<u8> {
    tcp.options.mptcp.iter().find_map(|option| match option {
        MptcpOption::Reset(reset) => Some(reset.reason),
        _ => None,
    })
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

pub(super) fn capable() -> MptcpOption {
    MptcpOption::Capable(MpCapable::Syn { version: VERSION, flags: CapableFlags::sha256(false, false) })
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
    let reply = ask(site, &mut half, Some(&capable()));
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
    let Some(open) = complete(site, half.clone(), &options) else {
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
pub(super) fn complete(site: &mut Site, half: Half, options: &[MptcpOption]) -> Option<Open> {
    let (flags, remote) = options.iter().find_map(|option| match option {
        MptcpOption::Capable(MpCapable::SynAck { version: VERSION, flags, key })
            if !flags.extensibility && flags.algorithms & CapableFlags::HMAC_SHA256 != 0 =>
        {
            Some((*flags, *key))
        }
        _ => None,
    })?;
    let open = Open { half, keys: Keys { local: random(), remote }, flags };
    send_third(site, &open);
    Some(open)
}

impl Open {
    /// What acknowledges `received` bytes of the server's data.
    fn data_ack(&self, received: usize) -> MptcpOption {
        let (_, first) = token_and_idsn(self.keys.remote);
        let next = first.0.wrapping_add(1 + received as u64);
        MptcpOption::Dss(Dss { data_fin: false, ack: Some(DataAck::Long(next)), mapping: None })
    }

    /// Whether an option acknowledges data of ours up to `sent` bytes.
    fn covers(&self, option: &MptcpOption, sent: usize) -> bool {
        let (_, first) = token_and_idsn(self.keys.local);
        let wanted = first.0.wrapping_add(1 + sent as u64);
        match option {
            MptcpOption::Dss(Dss { ack: Some(DataAck::Long(ack)), .. }) => *ack >= wanted,
            MptcpOption::Dss(Dss { ack: Some(DataAck::Short(ack)), .. }) => {
                ack.wrapping_sub(wanted as u32) as i32 >= 0
            }
            _ => false,
        }
    }

    /// Whether the server accepts no joins to the address and port that it was reached at.
    pub(super) fn forbids_joins(&self) -> bool {
        self.flags.no_join_initial
    }
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
        while let Some((tcp, length)) = site.receive(half, until) {
            if tcp.flags.syn {
                // The third ACK was lost, or is not seen yet.
                send_third(site, open);
                continue;
            }
            heard.note(open, &tcp, length, 0);
            if heard.any {
                return heard;
            }
        }
    }
    heard
}

/// The third ACK of the handshake, with both keys.
fn send_third(site: &mut Site, open: &Open) {
    let (sender_key, receiver_key) = (open.keys.local, open.keys.remote);
    let third = MpCapable::Ack { version: VERSION, flags: open.flags, sender_key, receiver_key };
    site.send_ack(&open.half, open.half.next, Some(MptcpOption::Capable(third)), &[]);
}

impl Heard {
    fn note(&mut self, open: &Open, tcp: &TcpRepr, length: usize, sent: usize) {
        if tcp.flags.rst {
            self.reset = Some(reason(tcp));
        }
        self.any = true;
        self.with_option |= tcp.options.mptcp.iter().any(|o| !matches!(o, MptcpOption::Reset(_)));
        self.data |= length > 0;
        let maps = |o: &MptcpOption| matches!(o, MptcpOption::Dss(Dss { mapping: Some(_), .. }));
        self.mapped_data |= length > 0 && tcp.options.mptcp.iter().any(maps);
        self.acked |= tcp.flags.ack && tcp.ack.distance(after(open.half.first, 1 + sent)) >= 0;
        self.data_acked |= tcp.options.mptcp.iter().any(|o| open.covers(o, sent));
    }
}

fn later(site: &mut Site, mut open: Open, request: &[u8]) -> Later {
    let heard = if request.is_empty() {
        sign_of_life(site, &open)
    } else {
        talk(site, &mut open, &request[..request.len().min(usize::from(MSS))])
    };
    if heard.reset.is_none() {
        site.reset(&open.half);
    }
    if !heard.any {
        return Later::Silence;
    }
    if !heard.with_option {
        return match (heard.reset, heard.acked) {
            (Some(reason), false) => Later::Reset(reason),
            _ => Later::Stripped(later_way(site)),
        };
    }
    if let Some(reason) = heard.reset {
        return Later::Reset(reason);
    }
    if heard.data && !heard.mapped_data {
        return Later::StrippedFromData(Way::FromServer);
    }
    // Without data there is nothing to acknowledge, and what was heard may have been another option.
    if !request.is_empty() && heard.acked && !heard.data_acked {
        return Later::StrippedFromData(Way::ToServer);
    }
    Later::Passes
}

/// Sends the request, and listens to what the server says.
fn talk(site: &mut Site, open: &mut Open, request: &[u8]) -> Heard {
    let (sender_key, receiver_key) = (open.keys.local, open.keys.remote);
    let (len, (_, first)) = (request.len() as u16, token_and_idsn(open.keys.local));
    let pseudo = dss_pseudo_header(first.0.wrapping_add(1), 1, len);
    let checksum = open.flags.checksum_required.then(|| !checksum::fold(checksum::sum(request, pseudo)));
    let mapping =
        MpCapable::Data { version: VERSION, flags: open.flags, sender_key, receiver_key, len, checksum };
    let mut heard = Heard::default();
    let (start, mut received) = (open.half.next, 0);
    let end = site.now() + PATIENCE * ATTEMPTS as u32 + THOUGHT;
    open.half.next = after(start, request.len());
    let (mut attempts, mut quiet) = (0, true);
    while site.now() < end {
        if quiet && !heard.acked {
            if attempts == ATTEMPTS {
                break;
            }
            attempts += 1;
            site.send_ack(&open.half, start, Some(MptcpOption::Capable(mapping)), request);
        }
        let until = end.min(site.now() + if heard.acked { THOUGHT } else { PATIENCE });
        quiet = true;
        while let Some((tcp, length)) = site.receive(&open.half, until) {
            if tcp.flags.syn {
                send_third(site, open);
                continue;
            }
            heard.note(open, &tcp, length, request.len());
            if length > 0 && tcp.seq == open.half.awaited {
                open.half.awaited = after(open.half.awaited, length);
                received += length;
                site.send_ack(&open.half, open.half.next, Some(open.data_ack(received)), &[]);
            }
            quiet = false;
            break;
        }
        let said = heard.data && heard.acked && (heard.data_acked || !heard.with_option);
        if said || heard.reset.is_some() || (quiet && heard.acked) {
            break;
        }
    }
    heard
}

/// Nothing that the server sends has an option: does it get ours? A fast close ends the connection of a server that
/// sees it (RFC 8684 section 3.5); one that does not takes the segment for an ACK.
fn later_way(site: &mut Site) -> Way {
    let mut half = site.half();
    let Reply::Accepted(options) = ask(site, &mut half, Some(&capable())) else { return Way::Untold };
    let Some(open) = complete(site, half.clone(), &options) else {
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
            if tcp.flags.rst {
                return Way::FromServer;
            }
        }
    }
    site.reset(&half);
    Way::ToServer
}

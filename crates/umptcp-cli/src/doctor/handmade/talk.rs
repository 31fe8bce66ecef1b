//! What the server says on a connection, and whether it is what it has sent.

use super::Way;
use super::link::{Site, after};
use super::open::{ATTEMPTS, Later, Open, PATIENCE, reason, send_third};
use bytes::Bytes;
use std::time::Duration;
use umptcp_stack_core::wire::checksum;
use umptcp_stack_core::wire::mptcp::{
    DataAck, Dsn, Dss, DssMapping, MpCapable, MptcpOption, VERSION, dss_pseudo_header, keys::token_and_idsn,
};
use umptcp_stack_core::wire::tcp::TcpRepr;

/// How long the server's program has to answer a request.
const THOUGHT: Duration = Duration::from_secs(3);

/// So much of what it says is listened to.
const ENOUGH: usize = 64 << 10;

/// So many declarations are kept until their data have come.
const MOST_DECLARED: usize = 256;

/// What the server has sent on a connection.
#[derive(Default, Debug)]
pub(super) struct Heard {
    /// Segments that carry an MPTCP option.
    pub(super) with_option: bool,
    /// Any segment.
    pub(super) any: bool,
    data: bool,
    mapped_data: bool,
    /// Our data are acknowledged: by TCP, by MPTCP.
    acked: bool,
    data_acked: bool,
    /// We have sent some.
    asked: bool,
    /// The server says that the checksum of our data is wrong, or that data have no option though there are checksums, and does
    /// without MPTCP.
    failed: bool,
    /// Before that, it has taken some with their option.
    pub(super) failed_after_good: bool,
    /// It has taken a piece before the present one.
    taken: bool,
    /// The checksum of its data is wrong.
    wrong: bool,
    pub(super) reset: Option<Option<u8>>,
    /// What has come in order, and what has been declared of it and not been checked yet.
    stream: Vec<u8>,
    declared: Vec<(bool, DssMapping)>,
    /// It has said its last.
    ended: bool,
}

impl Heard {
    pub(super) fn note(&mut self, open: &Open, tcp: &TcpRepr, payload: &Bytes, sent: usize) {
        if tcp.flags.rst {
            self.reset = Some(reason(tcp));
        }
        self.any = true;
        self.data |= !payload.is_empty();
        self.acked |= tcp.flags.ack && tcp.ack.distance(after(open.half.first, 1 + sent)) >= 0;
        for option in &tcp.options.mptcp {
            self.with_option |= !matches!(option, MptcpOption::Reset(_));
            self.data_acked |= open.covers(option, sent);
            match option {
                MptcpOption::Fail(_) => self.fail(),
                MptcpOption::Dss(Dss { mapping: Some(mapping), data_fin, .. }) => {
                    self.mapped_data |= !payload.is_empty();
                    // An infinite mapping is what follows a failure.
                    if mapping.len == 0 {
                        self.fail();
                    }
                    let declared = (*data_fin, *mapping);
                    let known = self.declared.contains(&declared) || self.declared.len() >= MOST_DECLARED;
                    if mapping.len > 0 && !known {
                        self.declared.push(declared);
                    }
                }
                _ => {}
            }
        }
    }

    /// Part of what has been declared has come.
    fn lacks(&self) -> bool {
        self.declared.iter().any(|(_, mapping)| {
            let start = (mapping.ssn as usize).wrapping_sub(1);
            start < self.stream.len()
        })
    }

    /// No more is awaited.
    fn is_over(&self) -> bool {
        self.ended && !self.lacks()
    }

    fn fail(&mut self) {
        self.failed = true;
        self.failed_after_good |= self.taken;
    }

    /// What comes next in order.
    fn take(&mut self, open: &Open, payload: &[u8]) {
        self.stream.extend_from_slice(payload);
        let (_, first) = token_and_idsn(open.keys.remote);
        let stream = &self.stream;
        let (mut wrong, mut ended) = (false, false);
        self.declared.retain(|(data_fin, mapping)| {
            let length = usize::from(mapping.len) - usize::from(*data_fin);
            if length == 0 {
                ended = true;
                return false;
            }
            // The SYN is 0.
            let Some(start) = (mapping.ssn as usize).checked_sub(1) else { return false };
            let Some(data) = stream.get(start..start + length) else { return true };
            let dsn = match mapping.dsn {
                Dsn::Long(dsn) => dsn,
                Dsn::Short(low) => {
                    let near = first.0.wrapping_add(u64::from(mapping.ssn));
                    near.wrapping_add_signed(i64::from(low.wrapping_sub(near as u32) as i32))
                }
            };
            ended |= *data_fin;
            wrong |= mapping.checksum.is_some_and(|said| said != sum(dsn, mapping.ssn, mapping.len, data));
            false
        });
        self.wrong |= wrong;
        self.ended |= ended;
    }

    /// What is to be said of it. Of options that are taken out, the way is not told yet; what is taken out of data on the way to
    /// the server may also be rewritten.
    pub(super) fn verdict(&self) -> Later {
        if self.wrong {
            return Later::Rewritten(Way::FromServer);
        }
        if self.failed {
            return Later::StrippedFromData(Way::ToServer);
        }
        if !self.any {
            return Later::Silence;
        }
        if !self.with_option {
            return match (self.reset, self.acked) {
                (Some(reason), false) => Later::Reset(reason),
                _ => Later::Stripped(Way::Untold),
            };
        }
        if let Some(reason) = self.reset {
            return Later::Reset(reason);
        }
        if self.data && !self.mapped_data {
            return Later::StrippedFromData(Way::FromServer);
        }
        // Without data there is nothing to acknowledge, and what was heard may have been another option.
        if self.asked && self.acked && !self.data_acked {
            return Later::StrippedFromData(Way::ToServer);
        }
        Later::Passes
    }
}

/// The DSS checksum (RFC 8684 section 3.3.1).
fn sum(dsn: u64, ssn: u32, len: u16, data: &[u8]) -> u16 {
    !checksum::fold(checksum::sum(data, dss_pseudo_header(dsn, ssn, len)))
}

/// Says the pieces, each when the one before has been acknowledged; listens to what the server says; and ends the connection.
/// `padding` follows where the last of them has been acknowledged, but not by MPTCP.
pub(super) fn talk(site: &mut Site, mut open: Open, pieces: &[&[u8]], padding: &[u8]) -> Heard {
    let mut heard = Heard { asked: true, ..Heard::default() };
    let mut sent = 0;
    let mut goes_on = true;
    for piece in pieces {
        goes_on = goes_on && say(site, &mut open, &mut heard, &mut sent, piece);
    }
    if goes_on && !heard.data_acked && !heard.failed && !padding.is_empty() {
        say(site, &mut open, &mut heard, &mut sent, padding);
    }
    let end = site.now() + PATIENCE * ATTEMPTS as u32 + THOUGHT;
    let more = |heard: &Heard| {
        heard.acked && heard.reset.is_none() && !heard.is_over() && heard.stream.len() < ENOUGH
    };
    while more(&heard) && site.now() < end {
        // It may say more, of which something is rewritten.
        let has_answered = heard.data && (heard.data_acked || !heard.with_option) && !heard.lacks();
        let patience = if has_answered { PATIENCE } else { THOUGHT };
        let until = site.now() + patience;
        if !hear(site, &mut open, &mut heard, sent, until) {
            // What is lost comes again. What has been taken out does not.
            heard.wrong |= heard.lacks();
            break;
        }
    }
    if heard.reset.is_none() {
        site.reset(&open.half);
    }
    heard
}

/// Sends a segment with data until TCP acknowledges it. Whether the connection goes on.
fn say(site: &mut Site, open: &mut Open, heard: &mut Heard, sent: &mut usize, piece: &[u8]) -> bool {
    let (start, option) = (open.half.next, declaration(open, *sent, heard.stream.len(), piece));
    open.half.next = after(start, piece.len());
    *sent += piece.len();
    heard.taken |= heard.data_acked;
    (heard.acked, heard.data_acked) = (false, false);
    for _ in 0..ATTEMPTS {
        site.send_ack(&open.half, start, Some(option.clone()), piece);
        let until = site.now() + PATIENCE;
        while !(heard.acked && heard.data_acked)
            && heard.reset.is_none()
            && site.now() < until
            && hear(site, open, heard, *sent, until)
        {}
        if heard.acked || heard.reset.is_some() {
            break;
        }
    }
    heard.acked && heard.reset.is_none()
}

/// The option of a segment with data: `sent` bytes come before, and `received` ones of the server's have come.
fn declaration(open: &Open, sent: usize, received: usize, data: &[u8]) -> MptcpOption {
    let (dsn, ssn, len) = (open.next_of_ours(sent), 1 + sent as u32, data.len() as u16);
    let checksum = open.flags.checksum_required.then(|| sum(dsn, ssn, len, data));
    if sent == 0 {
        let (sender_key, receiver_key) = (open.keys.local, open.keys.remote);
        let flags = open.flags;
        let data = MpCapable::Data { version: VERSION, flags, sender_key, receiver_key, len, checksum };
        return MptcpOption::Capable(data);
    }
    let mapping = DssMapping { dsn: Dsn::Long(dsn), ssn, len, checksum };
    let ack = Some(DataAck::Long(open.next_of_server(received)));
    MptcpOption::Dss(Dss { data_fin: false, ack, mapping: Some(mapping) })
}

/// The next segment. Whether one has come.
fn hear(site: &mut Site, open: &mut Open, heard: &mut Heard, sent: usize, until: Duration) -> bool {
    let Some((tcp, payload)) = site.receive(&open.half, until) else { return false };
    if tcp.flags.syn {
        send_third(site, open);
        return true;
    }
    if tcp.flags.rst && !site.is_reset(&open.half, &tcp) {
        return true;
    }
    heard.note(open, &tcp, &payload, sent);
    if !payload.is_empty() && tcp.seq == open.half.awaited {
        open.half.awaited = after(open.half.awaited, payload.len());
        heard.take(open, &payload);
        let ack = open.data_ack(heard.stream.len());
        site.send_ack(&open.half, open.half.next, Some(ack), &[]);
    } else {
        // What it declares may have come already.
        heard.take(open, &[]);
    }
    heard.ended |= tcp.flags.fin && after(tcp.seq, payload.len()) == open.half.awaited;
    true
}

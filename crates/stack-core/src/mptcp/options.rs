//! The option space: 40 bytes of a TCP header, and which MPTCP options take them, on which kind of segment,
//! in which order.
//!
//! | situation | on | options, in order of priority | bytes |
//! |---|---|---|---|
//! | first handshake | SYN, SYN/ACK | MP_CAPABLE | 4, 12 |
//! | join handshake | SYN, SYN/ACK | MP_JOIN | 12, 16 |
//! | joining: third ACK sent, no answer | all after the SYN | MP_JOIN | 24 |
//! | keys: the peer may lack them | all after the SYN | MP_CAPABLE | 20; 22 or 24 with a mapping |
//! | signal waits | ACK | the signal; a DATA_ACK if it fits | 4 to 30; 8 or 12 |
//! | mapped: data | data | mapping and DATA_ACK in one DSS | 22 to 28 |
//! | early: the client's key has not come | data | mapping in a DSS | 18 or 20 |
//! | finishing: the DATA_FIN is unacknowledged | ACK | DATA_FIN and DATA_ACK in one DSS | 22 to 28 |
//! | quiet | data without mapping, ACK, probe | DATA_ACK | 8 or 12 |
//! | SACK first | ACK | none | 0 |
//! | unconfirmed: the peer may lack the keys | probe | none | 0 |
//! | plain TCP after MPTCP | data | an infinite mapping, if it fits | 18 or 20 |
//! | | ACK | a signal; an infinite mapping, if it fits | 4 to 12; 18 or 20 |
//!
//! Around them: timestamps come before all (12 bytes, or 10 where nothing else fits otherwise) on every
//! segment once negotiated (RFC 7323 §3.2), and on a SYN the MSS, window scale, SACK permission and Fast Open
//! cookie too. SACK blocks come after all, on ACKs, as many as there is room for, the latest first.
//!
//! Data never carries a signal (ADD_ADDR, REMOVE_ADDR, MP_PRIO, MP_FAIL, MP_FASTCLOSE): mapping and DATA_ACK
//! fill the space. Signals go on ACKs, one on each, and on ACKs of their own when none is due. The longest,
//! ADD_ADDR with an IPv6 address and port, leaves no room for a DATA_ACK; if that has news, one more ACK
//! follows. A pure ACK with several SACK blocks leaves out a DATA_ACK that says nothing new (RFC 8684 §3.3.2
//! allows it), because two blocks do not fit beside an 8-byte DATA_ACK.

use crate::tcp::Kind;

/// An MPTCP option, or two in one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Item {
    /// MP_CAPABLE, in the form of the segment.
    Capable,
    /// MP_JOIN, in the form of the segment.
    Join,
    /// The signal that has waited longest.
    Signal,
    /// DSS with a DATA_ACK.
    DataAck,
    /// DSS with the segment's mapping and a DATA_ACK.
    Mapping,
    /// DSS with the segment's mapping alone.
    EarlyMapping,
    /// DSS with a DATA_FIN and a DATA_ACK.
    DataFin,
    /// DSS with an infinite mapping.
    Infinite,
}

/// What an item does when the space is short.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fit {
    /// It always fits: the tests below see to that.
    Always,
    /// It is left out.
    IfRoom,
}

/// What a segment is sent in the midst of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Situation {
    /// The first subflow's handshake.
    FirstHandshake,
    /// The handshake of a join.
    JoinHandshake,
    /// The third ACK of a join is unanswered.
    Joining,
    /// The peer may lack the keys.
    Keys,
    /// A signal waits.
    Signal,
    /// The segment has a mapping.
    Mapped,
    /// The segment has a mapping, and the third ACK is outstanding.
    Early,
    /// The DATA_FIN is unacknowledged.
    Finishing,
    /// Nothing special.
    Quiet,
    /// SACK blocks take the place of a DATA_ACK that says nothing new.
    SackFirst,
    /// A probe before the peer is known to have the keys.
    Unconfirmed,
    /// Plain TCP.
    Plain,
}

/// The MPTCP options of a segment, the most important first.
pub(crate) const fn row(kind: Kind, situation: Situation) -> &'static [(Item, Fit)] {
    match (situation, kind) {
        (Situation::FirstHandshake | Situation::Keys, _) => &[(Item::Capable, Fit::Always)],
        (Situation::JoinHandshake | Situation::Joining, _) => &[(Item::Join, Fit::Always)],
        (Situation::Signal, _) => &[(Item::Signal, Fit::IfRoom), (Item::DataAck, Fit::IfRoom)],
        (Situation::Mapped, _) => &[(Item::Mapping, Fit::Always)],
        (Situation::Early, _) => &[(Item::EarlyMapping, Fit::Always)],
        (Situation::Finishing, _) => &[(Item::DataFin, Fit::Always)],
        (Situation::Quiet, _) => &[(Item::DataAck, Fit::Always)],
        (Situation::SackFirst | Situation::Unconfirmed, _) => &[],
        (Situation::Plain, Kind::Data) => &[(Item::Infinite, Fit::IfRoom)],
        (Situation::Plain, Kind::Ack) => &[(Item::Signal, Fit::Always), (Item::Infinite, Fit::IfRoom)],
        (Situation::Plain, Kind::Syn | Kind::SynAck | Kind::Probe) => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::mptcp::{
        AddAddr, CapableFlags, DataAck, Dsn, Dss, DssMapping, MpCapable, MpFail, MpFastClose, MpJoin, MpPrio,
        MptcpOption, RemoveAddr, VERSION,
    };
    use crate::wire::tcp::{MAX_OPTIONS, TcpOptions, Timestamps};
    use alloc::vec;
    use alloc::vec::Vec;
    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use smallvec::SmallVec;
    use umptcp_types::{AddressId, SeqNumber};

    const KINDS: [Kind; 5] = [Kind::Syn, Kind::SynAck, Kind::Data, Kind::Ack, Kind::Probe];
    const AFTER_SYN: &[Kind] = &[Kind::Data, Kind::Ack];
    const SYNS: &[Kind] = &[Kind::Syn, Kind::SynAck];

    /// Every situation, and the kinds of segment that are sent in it.
    const SITUATIONS: &[(Situation, &[Kind])] = &[
        (Situation::FirstHandshake, SYNS),
        (Situation::JoinHandshake, SYNS),
        (Situation::Joining, AFTER_SYN),
        (Situation::Keys, AFTER_SYN),
        (Situation::Signal, &[Kind::Ack]),
        (Situation::Mapped, AFTER_SYN),
        (Situation::Early, &[Kind::Data]),
        (Situation::Finishing, &[Kind::Ack]),
        (Situation::Quiet, &[Kind::Data, Kind::Ack, Kind::Probe]),
        (Situation::SackFirst, &[Kind::Ack]),
        (Situation::Unconfirmed, &[Kind::Probe]),
        (Situation::Plain, &KINDS),
    ];

    fn acks() -> [DataAck; 2] {
        [DataAck::Long(1), DataAck::Short(1)]
    }

    fn dss(ack: Option<DataAck>, mapping: bool, checksum: bool) -> MptcpOption {
        let checksum = checksum.then_some(1);
        let mapping = mapping.then_some(DssMapping { dsn: Dsn::Long(1), ssn: 1, len: 1, checksum });
        MptcpOption::Dss(Dss { data_fin: false, ack, mapping })
    }

    /// Every signal, the longest of each kind included.
    fn signals() -> Vec<MptcpOption> {
        let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let mut all = vec![
            MptcpOption::Prio(MpPrio { backup: true, address_id: None }),
            MptcpOption::Fail(MpFail { dsn: 1 }),
            MptcpOption::FastClose(MpFastClose { receiver_key: 1 }),
        ];
        for ids in [1, 27] {
            let ids = SmallVec::from_elem(AddressId(1), ids);
            all.push(MptcpOption::RemoveAddr(RemoveAddr { ids }));
        }
        for address in addresses {
            for port in [None, Some(1)] {
                for hmac in [None, Some(1)] {
                    all.push(MptcpOption::AddAddr(AddAddr { address_id: AddressId(1), address, port, hmac }));
                }
            }
        }
        all
    }

    /// Every form that an item takes on a segment of a kind, in plain TCP or not.
    fn forms(item: Item, kind: Kind, plain: bool) -> Vec<MptcpOption> {
        let (version, sender_key, receiver_key, hmac) = (VERSION, 1, 1, [0; 20]);
        let flags = CapableFlags::sha256(true, true);
        let capable = |o| vec![MptcpOption::Capable(o)];
        let join = |o| vec![MptcpOption::Join(o)];
        let (backup, address_id) = (false, AddressId(1));
        match (item, kind) {
            (Item::Capable, Kind::Syn) => capable(MpCapable::Syn { version, flags }),
            (Item::Capable, Kind::SynAck) => capable(MpCapable::SynAck { version, flags, key: 1 }),
            (Item::Capable, Kind::Data) => [None, Some(1)]
                .map(|checksum| MpCapable::Data {
                    version,
                    flags,
                    sender_key,
                    receiver_key,
                    len: 1,
                    checksum,
                })
                .map(MptcpOption::Capable)
                .to_vec(),
            (Item::Capable, _) => capable(MpCapable::Ack { version, flags, sender_key, receiver_key }),
            (Item::Join, Kind::Syn) => join(MpJoin::Syn { backup, address_id, token: 1, nonce: 1 }),
            (Item::Join, Kind::SynAck) => join(MpJoin::SynAck { backup, address_id, hmac: 1, nonce: 1 }),
            (Item::Join, _) => join(MpJoin::Ack { hmac }),
            // In plain TCP nobody has addresses to tell.
            (Item::Signal, _) if plain => signals().into_iter().filter(|s| s.len() <= 12).collect(),
            (Item::Signal, _) => signals(),
            (Item::DataAck, _) => acks().map(|ack| dss(Some(ack), false, false)).to_vec(),
            (Item::Mapping | Item::DataFin, _) => acks()
                .iter()
                .flat_map(|ack| [false, true].map(|checksum| dss(Some(*ack), true, checksum)))
                .collect(),
            (Item::EarlyMapping | Item::Infinite, _) => {
                [false, true].map(|checksum| dss(None, true, checksum)).to_vec()
            }
        }
    }

    /// What TCP puts on a segment before.
    fn base(kind: Kind, timestamps: bool) -> TcpOptions {
        let syn = matches!(kind, Kind::Syn | Kind::SynAck);
        TcpOptions {
            mss: syn.then_some(1),
            window_scale: syn.then_some(1),
            sack_permitted: syn,
            timestamps: timestamps.then_some(Timestamps { value: 1, echo: 1 }),
            ..TcpOptions::default()
        }
    }

    /// Every way in which a row can be filled: with each form of each of its items, as far as there is room.
    fn fillings(kind: Kind, situation: Situation, timestamps: bool) -> Vec<(TcpOptions, Vec<Item>)> {
        let mut all = vec![(base(kind, timestamps), Vec::new())];
        for &(item, fit) in row(kind, situation) {
            let mut next = Vec::new();
            for (options, items) in all {
                for form in forms(item, kind, situation == Situation::Plain) {
                    let fits = form.len() <= options.room();
                    assert!(fits || fit == Fit::IfRoom, "{item:?} on {kind:?} in {situation:?}");
                    let (mut options, mut items) = (options.clone(), items.clone());
                    if fits {
                        options.mptcp.push(form);
                        items.push(item);
                    }
                    next.push((options, items));
                }
            }
            all = next;
        }
        all
    }

    #[test]
    fn every_row_fits_whatever_its_options_hold() {
        for (situation, kinds) in SITUATIONS {
            for kind in *kinds {
                for timestamps in [false, true] {
                    for (options, _) in fillings(*kind, *situation, timestamps) {
                        assert!(options.fits(), "{kind:?} in {situation:?}: {options:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn signals_always_fit_and_only_long_ones_displace_the_data_ack() {
        for (options, items) in fillings(Kind::Ack, Situation::Signal, true) {
            assert_eq!(items.first(), Some(&Item::Signal));
            let long = options.mptcp[0].len() > 18;
            assert!(items.len() == 2 || long, "{options:?}");
            let may_leave_out =
                matches!(options.mptcp[0], MptcpOption::AddAddr(_) | MptcpOption::RemoveAddr(_));
            assert!(items.len() == 2 || may_leave_out, "{options:?}");
        }
    }

    #[test]
    fn sack_blocks_take_what_is_left() {
        // Blocks that fit beside a row's options, with timestamps and without.
        let blocks = |situation, timestamps| {
            let most = fillings(Kind::Ack, situation, timestamps).into_iter().map(|(mut options, _)| {
                let room = MAX_OPTIONS.saturating_sub(options.len());
                let blocks = room.saturating_sub(4) / 8;
                options.sack.extend((0..blocks).map(|_| (SeqNumber(0), SeqNumber(1))));
                assert!(options.fits(), "{options:?}");
                blocks
            });
            most.min()
        };
        let cases = [
            (Situation::Quiet, Some(1), Some(3)),
            (Situation::SackFirst, Some(3), Some(4)),
            (Situation::Finishing, Some(0), Some(1)),
            (Situation::Joining, Some(0), Some(1)),
            (Situation::Keys, Some(0), Some(2)),
            (Situation::Signal, Some(0), Some(0)),
        ];
        for (situation, with, without) in cases {
            assert_eq!((blocks(situation, true), blocks(situation, false)), (with, without), "{situation:?}");
        }
    }

    #[test]
    fn a_cookie_fits_beside_the_options_of_a_syn() {
        // RFC 7413: 4 to 16 bytes, and 2 of its own.
        let room = |situation| {
            fillings(Kind::Syn, situation, true).into_iter().map(|(o, _)| o.room()).min().unwrap_or(0)
        };
        assert!(room(Situation::FirstHandshake) >= 14 + 2);
        assert!(room(Situation::Plain) >= 16 + 2);
    }
}

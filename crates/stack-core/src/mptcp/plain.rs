//! Plain TCP after MPTCP (RFC 8684 §3.7): one number per direction, data offset minus subflow offset. It is
//! constant from the fallback on, because one subflow carries everything in order; it need not be 0, since
//! other subflows may have come and gone.
//!
//! By example: `docs/src/by-example/fallback.md`.

use super::mapping::Mapping;
use umptcp_types::{DataOffset, SubflowOffset};

/// Pure ACKs that carry an infinite mapping when there is no data to carry it.
const ANNOUNCING_ACKS: u8 = 8;

/// An infinite mapping that the peer is to be told of.
#[derive(Clone, Copy, Debug)]
struct Infinite {
    /// First data byte: the last DATA_ACK, for the mapping acts retroactively.
    data: DataOffset,
    /// Its place on the subflow.
    subflow: SubflowOffset,
    /// End of the first data segment that carried it.
    carried: Option<SubflowOffset>,
    /// Pure ACKs that may still carry it.
    acks: u8,
}

/// Where the data lie on the one subflow, and the infinite mapping that the peer is still to be told of.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    /// Data offset minus subflow offset of what we send, modulo 2⁶⁴.
    send: u64,
    /// The same of what we receive.
    receive: u64,
    infinite: Option<Infinite>,
}

impl Plain {
    /// MPTCP ends: the next byte sent is the first, the next received the second.
    pub(crate) fn on_fallback(
        &mut self,
        sent: (DataOffset, SubflowOffset),
        received: (DataOffset, SubflowOffset),
    ) {
        self.send = sent.0.0.wrapping_sub(sent.1.0);
        self.receive = received.0.0.wrapping_sub(received.1.0);
    }

    /// The peer is to be told that everything from `data` on is mapped by one infinite mapping.
    pub(crate) fn announce(&mut self, data: DataOffset, place: DataOffset) {
        let subflow = SubflowOffset(place.0.wrapping_sub(self.send));
        self.infinite = Some(Infinite { data, subflow, carried: None, acks: ANNOUNCING_ACKS });
    }

    /// The data offset of a subflow offset of ours.
    pub(crate) fn sent(&self, at: SubflowOffset) -> DataOffset {
        DataOffset(at.0.wrapping_add(self.send))
    }

    /// The data offset of a subflow offset of the peer's.
    pub(crate) fn received(&self, at: SubflowOffset) -> DataOffset {
        DataOffset(at.0.wrapping_add(self.receive))
    }

    /// The mapping for a segment of data that ends at `end`: an infinite one, if the peer is still to be
    /// told.
    pub(crate) fn mapping(&mut self, end: SubflowOffset, checksum: bool) -> Option<Mapping> {
        let infinite = self.infinite.as_mut()?;
        infinite.carried.get_or_insert(end);
        let checksum = checksum.then_some(0);
        Some(Mapping { data: infinite.data, subflow: infinite.subflow, len: 0, checksum })
    }

    /// The peer acknowledged our subflow bytes up to `una`: once that covers the mapping it has been told.
    pub(crate) fn on_ack(&mut self, una: SubflowOffset) {
        if self.infinite.is_some_and(|i| i.carried.is_some_and(|end| una >= end)) {
            self.infinite = None;
        }
    }

    /// A pure ACK leaves: where the infinite mapping begins that it is to carry, if any.
    pub(crate) fn take_for_ack(&mut self) -> Option<(DataOffset, SubflowOffset)> {
        let infinite = self.infinite.as_mut().filter(|i| i.acks > 0)?;
        infinite.acks -= 1;
        Some((infinite.data, infinite.subflow))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_infinite_mapping_is_repeated_until_acknowledged() {
        let mut p = Plain::default();
        p.on_fallback((DataOffset(101), SubflowOffset(51)), (DataOffset(7), SubflowOffset(9)));
        assert_eq!(p.sent(SubflowOffset(51)), DataOffset(101));
        assert_eq!(p.received(SubflowOffset(9)), DataOffset(7));
        p.announce(DataOffset(91), DataOffset(91));
        for _ in 0..ANNOUNCING_ACKS {
            assert_eq!(p.take_for_ack(), Some((DataOffset(91), SubflowOffset(41))));
        }
        assert_eq!(p.take_for_ack(), None);
        assert!(p.mapping(SubflowOffset(61), true).is_some_and(|m| m.checksum == Some(0) && m.len == 0));
        p.on_ack(SubflowOffset(60));
        assert!(p.mapping(SubflowOffset(71), false).is_some());
        p.on_ack(SubflowOffset(61));
        assert!(p.mapping(SubflowOffset(81), false).is_none());
    }
}

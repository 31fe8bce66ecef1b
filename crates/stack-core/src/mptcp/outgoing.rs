//! What goes out on one subflow, as the data level sees it: where its bytes lie in the data, what the SYN
//! carried, and which options have been sent.

use crate::context::fast_open::Cookie;
use umptcp_types::{DataOffset, SubflowOffset};

/// What goes out on one subflow.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// Data offset minus subflow offset of what we send, since which subflow offset it has been that, and whether
    /// there was a mapping at all.
    shift: u64,
    shift_since: SubflowOffset,
    mapped: bool,
    /// Where the furthest data end that were sent here.
    data_end: DataOffset,
    /// We have sent a DSS option, or MP_CAPABLE after the SYN.
    dss_sent: bool,
    /// The last DATA_ACK it carried, for deciding whether a SACK may displace the next.
    last_data_ack: u64,
    /// Bytes of our SYN that were acknowledged. They lie before the data sequence space, and subflow sequence
    /// numbers in mappings do not count them (RFC 8684 appendix B.2).
    syn_data: u64,
    /// Fast Open option for the next SYN or SYN/ACK.
    cookie: Option<Cookie>,
    /// Our SYN asked for a cookie.
    asked_cookie: bool,
    /// The ACK that brought our keys is to be followed by one with a DATA_ACK.
    follow_up: bool,
}

impl Outgoing {
    /// Nothing sent. `cookie`: the Fast Open option for the first SYN/ACK.
    pub(crate) fn new(cookie: Option<Cookie>) -> Self {
        Outgoing {
            shift: 0,
            mapped: false,
            shift_since: SubflowOffset(1),
            data_end: DataOffset(0),
            dss_sent: false,
            last_data_ack: 0,
            syn_data: 0,
            cookie,
            asked_cookie: false,
            follow_up: false,
        }
    }

    // ---- the SYN ----

    /// The SYN asks for a cookie.
    pub(crate) fn on_cookie_asked(&mut self) {
        self.cookie = Some(Cookie::new());
        self.asked_cookie = true;
    }

    /// The SYN carries data, and this cookie.
    pub(crate) fn on_cookie_used(&mut self, cookie: Cookie) {
        self.cookie = Some(cookie);
    }

    /// The Fast Open option for a SYN or SYN/ACK that leaves.
    pub(crate) fn take_cookie(&mut self) -> Option<Cookie> {
        self.cookie.take()
    }

    /// Our SYN asked for a cookie.
    pub(crate) fn asked_cookie(&self) -> bool {
        self.asked_cookie
    }

    /// The SYN/ACK acknowledged `n` bytes that the SYN carried.
    pub(crate) fn on_syn_data_acked(&mut self, n: u64) {
        self.syn_data = n;
        self.shift_since = SubflowOffset(1 + n);
    }

    /// Bytes that the SYN carried to the peer.
    pub(crate) fn syn_data(&self) -> u64 {
        self.syn_data
    }

    /// Offset of the first byte that the SYN did not carry to the peer.
    pub(crate) fn first_data(&self) -> u64 {
        1 + self.syn_data
    }

    // ---- mappings ----

    /// `len` bytes of data from `data` on are sent at `at`.
    pub(crate) fn on_mapping(&mut self, data: DataOffset, len: u64, at: SubflowOffset) {
        self.data_end = self.data_end.max(data + len);
        let shift = data.0.wrapping_sub(at.0);
        if !self.mapped || self.shift != shift {
            (self.shift, self.shift_since, self.mapped) = (shift, at, true);
        }
    }

    /// Whether everything sent from `at` on was data `shift` further on.
    pub(crate) fn is_shifted_since(&self, at: SubflowOffset, shift: u64) -> bool {
        self.mapped && self.shift == shift && at >= self.shift_since
    }

    /// The data offset of the subflow offset `at`, as the last mapping has it; `None`: there was none.
    pub(crate) fn data_of(&self, at: SubflowOffset) -> Option<u64> {
        self.mapped.then(|| at.0.wrapping_add(self.shift))
    }

    /// Where the furthest data end that were sent here.
    pub(crate) fn data_end(&self) -> DataOffset {
        self.data_end
    }

    /// The subflow sequence number in a mapping, for a subflow offset.
    pub(crate) fn ssn(&self, at: SubflowOffset) -> u32 {
        at.0.wrapping_sub(self.syn_data) as u32
    }

    // ---- options ----

    /// A segment with MPTCP options leaves after the handshake. True: it is the first.
    pub(crate) fn on_options_sent(&mut self) -> bool {
        !core::mem::replace(&mut self.dss_sent, true)
    }

    /// The peer may have seen an MPTCP option after the handshake.
    pub(crate) fn options_sent(&self) -> bool {
        self.dss_sent
    }

    /// The DATA_ACK `next` leaves.
    pub(crate) fn on_data_ack_sent(&mut self, next: DataOffset) {
        self.last_data_ack = next.0;
    }

    /// The last DATA_ACK that left here said less than `next`.
    pub(crate) fn owes_data_ack(&self, next: DataOffset) -> bool {
        self.last_data_ack != next.0
    }

    /// An ACK leaves; `keys`: it carries our keys. A Linux server that has answered data of the SYN before
    /// the third ACK does not send the answer then, but when a DATA_ACK comes (6.18), so that one follows the
    /// keys. True: one more ACK is due.
    pub(crate) fn on_ack_sent(&mut self, keys: bool) -> bool {
        self.follow_up = self.syn_data > 0 && keys;
        self.follow_up
    }

    /// The next ACK follows our keys.
    pub(crate) fn follows_keys(&self) -> bool {
        self.follow_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_in_one_piece_have_one_shift() {
        let mut o = Outgoing::new(None);
        o.on_mapping(DataOffset(11), 10, SubflowOffset(1));
        o.on_mapping(DataOffset(21), 10, SubflowOffset(11));
        assert!(o.is_shifted_since(SubflowOffset(1), 10));
        o.on_mapping(DataOffset(41), 10, SubflowOffset(21));
        assert!(!o.is_shifted_since(SubflowOffset(20), 20) && o.is_shifted_since(SubflowOffset(21), 20));
        assert_eq!(o.data_of(SubflowOffset(31)), Some(51));
        // Older data that are sent again do not take the end back.
        o.on_mapping(DataOffset(5), 10, SubflowOffset(31));
        assert_eq!(o.data_end(), DataOffset(51));
    }

    #[test]
    fn keys_are_followed_up_after_data_in_the_syn_only() {
        let mut o = Outgoing::new(None);
        assert!(!o.on_ack_sent(true));
        o.on_syn_data_acked(5);
        assert_eq!((o.first_data(), o.ssn(SubflowOffset(6))), (6, 1));
        assert!(o.on_ack_sent(true) && o.follows_keys());
        assert!(!o.on_ack_sent(false) && !o.follows_keys());
        assert!(o.on_options_sent() && !o.on_options_sent());
    }
}

//! The data level of receiving: reassembly across subflows, the shared window, DATA_FIN (RFC 8684
//! §3.3.3–3.3.4).

use crate::buffers::reassembly::Reassembly;
use crate::buffers::slices::Slices;
use bytes::Bytes;
use umptcp_types::DataOffset;

/// What became of a piece of data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Delivered {
    /// Bytes that became readable.
    pub(crate) readable: u64,
    /// It went to the out-of-order queue.
    pub(crate) out_of_order: bool,
    /// It extended the tail of that queue.
    pub(crate) tail: bool,
    /// It joined two pieces of that queue.
    pub(crate) merged: bool,
    /// Some or all of it had been received before.
    pub(crate) duplicate: bool,
    /// Some or all of it lay outside the window and was dropped.
    pub(crate) outside: bool,
    /// Some or all of it was dropped because too many pieces are held.
    pub(crate) refused: bool,
}

/// Received data, from the first byte the application has not read.
#[derive(Debug)]
pub(crate) struct ReceiveQueue {
    /// Next data offset expected: the DATA_ACK.
    next: DataOffset,
    readable: Slices,
    out_of_order: Reassembly,
    /// First offset no window we advertised covers.
    edge: DataOffset,
    fin: Option<DataOffset>,
    fin_passed: bool,
    capacity: usize,
    reader: Reader,
}

/// Whether the application reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reader {
    Reads,
    Gone,
    /// Data have come since it has gone.
    Missed,
}

impl ReceiveQueue {
    /// An empty queue whose window is `capacity` bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        ReceiveQueue {
            next: DataOffset(1),
            readable: Slices::default(),
            out_of_order: Reassembly::new(),
            edge: DataOffset(1) + capacity as u64,
            fin: None,
            fin_passed: false,
            capacity,
            reader: Reader::Reads,
        }
    }

    /// The window is `capacity` bytes from now on. What was offered stays.
    pub(crate) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    /// Bytes that it takes.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Drops what waits for those before it.
    pub(crate) fn prune(&mut self) {
        self.out_of_order.clear();
    }

    /// Bytes that wait for those before them.
    pub(crate) fn out_of_order_bytes(&self) -> u64 {
        self.out_of_order.bytes()
    }

    /// The DATA_ACK to send: next offset expected, a DATA_FIN that is in order counted.
    pub(crate) fn next(&self) -> DataOffset {
        self.next
    }

    /// Next data byte expected, a DATA_FIN not counted.
    pub(crate) fn next_data(&self) -> DataOffset {
        DataOffset(self.next.0 - u64::from(self.fin_passed))
    }

    /// Nothing lies beyond the first byte that is missing.
    pub(crate) fn is_contiguous(&self) -> bool {
        self.out_of_order.is_empty()
    }

    /// Forgets where the DATA_FIN stands, unless everything before it has arrived: in plain TCP the FIN says
    /// it.
    pub(crate) fn forget_fin(&mut self) {
        if !self.fin_passed {
            self.fin = None;
        }
    }

    /// Bytes the application could read now.
    pub(crate) fn readable_bytes(&self) -> usize {
        self.readable.len()
    }

    /// All data and the DATA_FIN have been received.
    pub(crate) fn finished(&self) -> bool {
        self.fin_passed
    }

    /// First offset beyond the window we may advertise now; never moves back (RFC 8684 §3.3.4).
    pub(crate) fn window_edge(&self) -> DataOffset {
        let free = self.capacity.saturating_sub(self.readable.len()) as u64;
        self.edge.max(self.next + free)
    }

    /// First offset beyond what the buffer has room for, whatever was advertised.
    pub(crate) fn room_edge(&self) -> DataOffset {
        // What is readable lies before `next`, so this does not wrap, not even when more is buffered than
        // there is room for.
        DataOffset(self.next.0 + self.capacity as u64 - self.readable.len() as u64)
    }

    /// Notes that `edge` was advertised.
    pub(crate) fn advertised(&mut self, edge: DataOffset) {
        self.edge = self.edge.max(edge);
    }

    /// First offset no window we advertised covers.
    pub(crate) fn advertised_edge(&self) -> DataOffset {
        self.edge
    }

    /// Takes `bytes` that belong at `at`.
    pub(crate) fn insert(&mut self, at: DataOffset, bytes: Bytes) -> Delivered {
        let mut d = Delivered::default();
        let end = at + bytes.len() as u64;
        let limit = self.fin.unwrap_or(self.edge).min(self.edge);
        if end <= self.next {
            d.duplicate = true;
            return d;
        }
        d.outside = end > limit;
        if at >= limit {
            return d;
        }
        if at <= self.next && self.out_of_order.is_empty() && !d.outside {
            let skip = (self.next - at) as usize;
            d.duplicate = skip > 0;
            self.append(bytes.slice(skip..), &mut d);
        } else {
            let i = self.out_of_order.insert(self.next.0, at.0, bytes, limit.0);
            d.duplicate = i.duplicate.is_some();
            d.out_of_order = at > self.next && i.new_bytes > 0;
            d.tail = i.tail;
            d.refused = i.refused;
            d.merged = i.merged;
            while let Some(bytes) = self.out_of_order.pop(self.next.0) {
                self.append(bytes, &mut d);
            }
        }
        self.pass_fin();
        d
    }

    fn append(&mut self, bytes: Bytes, d: &mut Delivered) {
        let n = bytes.len();
        self.next += n as u64;
        d.readable += n as u64;
        match self.reader {
            Reader::Reads => self.readable.push(bytes),
            Reader::Gone | Reader::Missed => self.reader = Reader::Missed,
        }
    }

    /// The peer's DATA_FIN stands at `at`. False: it contradicts data or an earlier DATA_FIN and is ignored.
    pub(crate) fn data_fin(&mut self, at: DataOffset) -> bool {
        if let Some(fin) = self.fin {
            return fin == at;
        }
        let received = self.out_of_order.end().map_or(self.next, |end| DataOffset(end).max(self.next));
        if at < received || at > self.edge {
            return false;
        }
        self.fin = Some(at);
        self.pass_fin();
        true
    }

    fn pass_fin(&mut self) {
        if !self.fin_passed && self.fin == Some(self.next) {
            self.fin_passed = true;
            self.next += 1;
        }
    }

    /// At most `max` bytes for the application.
    pub(crate) fn read(&mut self, max: usize) -> Option<Bytes> {
        self.readable.pop(max)
    }

    /// The application will not read any more: what still comes is dropped.
    pub(crate) fn discard(&mut self) {
        self.reader = Reader::Gone;
        self.readable.clear();
    }

    /// Data were dropped because the application does not read any more.
    pub(crate) fn has_discarded(&self) -> bool {
        self.reader == Reader::Missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_subflows_interleave_and_the_fin_waits_for_the_hole() {
        let mut q = ReceiveQueue::new(100);
        assert!(q.insert(DataOffset(6), Bytes::from_static(b"world")).out_of_order);
        assert!(q.data_fin(DataOffset(11)));
        assert!(!q.finished());
        let d = q.insert(DataOffset(1), Bytes::from_static(b"hello"));
        assert_eq!(d.readable, 10);
        assert!(q.finished());
        assert_eq!(q.next(), DataOffset(12));
        let mut all = alloc::vec::Vec::new();
        while let Some(bytes) = q.read(3) {
            assert!(bytes.len() <= 3);
            all.extend_from_slice(&bytes);
        }
        assert_eq!(&all[..], b"helloworld");
    }

    #[test]
    fn the_edge_never_moves_back_and_bounds_what_is_taken() {
        let mut q = ReceiveQueue::new(10);
        assert_eq!(q.window_edge(), DataOffset(11));
        let d = q.insert(DataOffset(1), Bytes::from_static(b"0123456789ab"));
        assert!(d.outside);
        assert_eq!(d.readable, 10);
        assert_eq!(q.window_edge(), DataOffset(11));
        assert_eq!(q.read(4).map(|b| b.len()), Some(4));
        assert_eq!(q.window_edge(), DataOffset(15));
        // What was offered stays, though the buffer has become smaller, and though nobody reads.
        q.advertised(DataOffset(15));
        q.set_capacity(6);
        assert_eq!(q.window_edge(), DataOffset(15));
        assert_eq!(q.insert(DataOffset(11), Bytes::from_static(b"cdef")).readable, 4);
        assert_eq!(q.window_edge(), DataOffset(15));
    }

    #[test]
    fn a_contradicting_data_fin_is_ignored() {
        let mut q = ReceiveQueue::new(100);
        assert!(q.data_fin(DataOffset(50)));
        assert!(!q.data_fin(DataOffset(40)));
        assert!(q.data_fin(DataOffset(50)));
    }

    #[test]
    fn a_data_fin_before_data_that_has_come_is_ignored() {
        let mut q = ReceiveQueue::new(100);
        q.insert(DataOffset(11), Bytes::from_static(b"later"));
        assert!(!q.data_fin(DataOffset(6)));
        assert!(!q.data_fin(DataOffset(102)));
        q.insert(DataOffset(1), Bytes::from_static(b"0123456789"));
        assert!(!q.finished());
        assert!(q.data_fin(DataOffset(16)));
        assert!(q.finished());
    }
}

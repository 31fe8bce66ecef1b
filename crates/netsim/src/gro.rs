//! Merging consecutive packets of a flow, as receiving devices do.

use crate::packet::Packet;

/// Flows merged side by side (Linux's GRO has as many per bucket).
const FLOWS: usize = 8;

/// Packets that arrived at the same time and may still grow. `K` says where a packet goes: only packets with
/// equal keys merge.
///
/// The order within a flow is kept; that between flows need not be.
#[derive(Debug)]
pub(crate) struct Coalescer<K> {
    held: Vec<(K, Packet)>,
}

impl<K: PartialEq> Coalescer<K> {
    pub(crate) fn new() -> Self {
        Coalescer { held: Vec::with_capacity(FLOWS) }
    }

    /// Takes a packet; gives to `ready` what cannot grow any more.
    pub(crate) fn push(&mut self, key: K, packet: Packet, mut ready: impl FnMut(K, Packet)) {
        let mut next = Some(packet);
        if let Some(i) =
            self.held.iter().position(|(k, p)| *k == key && next.as_ref().is_some_and(|n| n.same_flow(p)))
        {
            if let Some(packet) = next.take() {
                next = self.held[i].1.coalesce(packet);
            }
            if next.is_some() {
                let (k, p) = self.held.remove(i);
                ready(k, p);
            }
        }
        if let Some(packet) = next {
            if self.held.len() == FLOWS {
                let (k, p) = self.held.remove(0);
                ready(k, p);
            }
            self.held.push((key, packet));
        }
    }

    /// Gives away everything.
    pub(crate) fn flush(&mut self, mut ready: impl FnMut(K, Packet)) {
        for (k, p) in self.held.drain(..) {
            ready(k, p);
        }
    }
}

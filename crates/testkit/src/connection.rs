//! Packets into one live connection, from a peer that knows its keys.
//!
//! The first bytes choose roles and settings, and the handshake is done for the fuzzer. Each step after that
//! is an honest peer's move, an arbitrary segment that is near one, a replay, or the application's.

use crate::digest::Digest;
use crate::input::Input;
use crate::peer::PORT;
use crate::world::World;
use std::net::{IpAddr, SocketAddr};
use umptcp_stack_core::config::{ConnectionConfig, ListenOptions};

/// Steps that one input may take.
const MAX_STEPS: usize = 400;

/// The addresses of the stack: one family, or the other.
pub(crate) fn addresses(v6: bool) -> [IpAddr; 2] {
    if v6 {
        [IpAddr::from([0xfd00, 0, 0, 1, 0, 0, 0, 1]), IpAddr::from([0xfd00, 0, 0, 2, 0, 0, 0, 1])]
    } else {
        [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 1, 1])]
    }
}

/// Settings that `choice` stands for.
pub(crate) fn settings(choice: u8) -> ConnectionConfig {
    let buffer = [4_096, 20_000, 65_536, 1 << 20][usize::from(choice >> 2 & 3)];
    ConnectionConfig::default()
        .with_checksum(choice & 1 != 0)
        .with_scheduler(if choice & 2 == 0 { "min-rtt" } else { "round-robin" })
        .with_send_buffer(buffer)
        .with_receive_buffer(buffer)
        .with_advertise_addresses(choice & 16 != 0)
        .with_max_subflows(if choice & 32 == 0 { 8 } else { 2 })
        .with_fast_open(choice & 64 != 0)
}

/// The target: see the module.
///
/// # Panics
/// When something does not hold.
pub fn connection(data: &[u8]) {
    run(data, None);
}

/// The target, adding what the stack is given and gives to `digest`.
///
/// # Panics
/// When something does not hold.
pub fn record(data: &[u8], digest: &Digest) {
    run(data, Some(digest));
}

fn run(data: &[u8], digest: Option<&Digest>) {
    let mut input = Input::new(data);
    let (shape, choice) = (input.byte(), input.byte());
    let mut world =
        World::new(&addresses(shape & 2 != 0), if shape & 4 == 0 { 1500 } else { 65_535 }, digest);
    world.eager_reader = shape & 8 == 0;
    world.accept_config = settings(choice);
    if shape & 1 == 0 {
        world.connect(0, settings(choice));
        if world.unanswered.pop_front().is_some() {
            world.answer(0, 0, &mut input);
        }
    } else {
        let local = SocketAddr::new(world.addresses[0], PORT);
        let mut listen = ListenOptions::new(local, 4);
        world.fast_open = choice & 64 != 0;
        listen.fast_open = 2 * usize::from(world.fast_open);
        world.stack.listen(listen).expect("a listener on a free port");
        world.open_and_accept(&mut input);
        if !world.conns.is_empty() {
            world.third_ack(0, 0, &mut input);
        }
    }
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
    world.wind_up();
}

impl World {
    /// The peer opens a connection to the listener, and the application takes it.
    pub(crate) fn open_and_accept(&mut self, input: &mut Input<'_>) {
        self.open(None, input);
        self.accept_next();
    }

    /// The application takes the oldest connection on offer.
    pub(crate) fn accept_next(&mut self) {
        let Some(incoming) = self.incoming.pop_front() else { return };
        let Ok(id) = self.stack.accept(self.now, incoming, &self.accept_config) else { return };
        let remote = self.stack.info(id).map(|i| i.remote);
        let offered = self
            .conns
            .iter_mut()
            .find(|c| c.id.is_none() && !c.by_stack && c.flows.first().map(|f| f.peer) == remote);
        match offered {
            Some(conn) => {
                conn.id = Some(id);
                conn.receive_buffer = self.accept_config.receive_buffer.limit();
                conn.max_subflows = self.accept_config.max_subflows;
            }
            // A replayed or changed SYN made it.
            None => self.accepted.push_back(id),
        }
        self.settle();
    }

    /// One move of somebody's on one of the connections.
    pub(crate) fn step(&mut self, input: &mut Input<'_>) {
        let what = input.byte();
        if self.conns.is_empty() {
            return self.wait(input);
        }
        let which = input.byte();
        let c = usize::from(which >> 4) % self.conns.len();
        let count = self.conns[c].flows.len();
        if count == 0 && self.conns[c].id.is_some_and(|id| self.stack.awaits_data(id)) {
            return self.write(c, [1, 500, 3_000, 30_000][usize::from(what >> 6)]);
        }
        if count == 0 {
            return self.wait(input);
        }
        let f = usize::from(which & 15) % count;
        let id = self.conns[c].id;
        match what & 31 {
            0..=3 => {
                let n = [1, 100, 1_000, 5_000][usize::from(what & 3)];
                self.data(c, f, n, usize::from(what >> 5), input);
            }
            4..=6 => self.acknowledge(c, f, what | 31),
            7..=12 => self.anything(c, f, input),
            13 => {
                if let Some((c, f)) = self.unanswered.pop_front() {
                    self.answer(c, f, input);
                }
            }
            14 if count < 12 => self.open(Some(c), input),
            15 if self.fast_open && self.conns.len() < 3 => self.open_and_accept(input),
            14 | 15 => self.third_ack(c, f, input),
            16 => self.replay(input),
            17 => self.complain(input),
            18 => self.selective(c, f, input),
            19 | 20 => self.write(c, [1, 500, 3_000, 30_000][usize::from(what >> 6)]),
            21 => {
                if let Some(id) = id {
                    self.read_all(id);
                    self.settle();
                }
            }
            22 => {
                if let Some(id) = id {
                    let _ = self.stack.shutdown(self.now, id);
                    self.settle();
                }
            }
            23 => {
                let conn = &mut self.conns[c];
                conn.flows[f].next = conn.flows[f].next.wrapping_sub(u32::from(what >> 5) * 7);
                conn.lied = true;
                self.data(c, f, 700, 1, input);
            }
            24 => self.data(c, f, 0, 1, input),
            25 => {
                let path = self.paths[f % self.paths.len()];
                self.stack.path_blocked(self.now, path, what & 32 == 0);
                self.blocked.push(path);
                self.settle();
            }
            _ => self.wait(input),
        }
    }
}

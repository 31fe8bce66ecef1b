//! What applications, administrators and time do to a stack whose peer is hostile.
//!
//! Where [`connection`](crate::connection) looks into one connection, this has several, opened and closed
//! from both sides, paths that come and go, and listeners; the peer moves in between.

use crate::connection::{addresses, settings};
use crate::digest::Digest;
use crate::input::Input;
use crate::peer::PORT;
use crate::world::{MAX_CONNECTIONS, World};
use std::net::{IpAddr, SocketAddr};
use umptcp_stack_core::config::ListenOptions;
use umptcp_stack_core::device::PathConfig;
use umptcp_stack_core::event::RefuseWith;
use umptcp_stack_core::types::{AddressId, SubflowId};

/// Steps that one input may take.
const MAX_STEPS: usize = 600;
/// Connections and paths that one input may make in all.
const MAX_MADE: usize = 24;

impl World {
    /// An application advertises an address of the stack's or of somebody else's, takes one back, or changes
    /// the priority of a subflow.
    fn signal(&mut self, input: &mut Input<'_>) {
        if self.conns.is_empty() {
            return;
        }
        let (c, what) = (input.below(self.conns.len()), input.byte());
        let Some(id) = self.conns[c].id else { return };
        let now = self.now;
        // What a connection cannot say, it refuses.
        let _ = match what & 3 {
            0 | 1 => {
                let port = (what & 4 != 0).then(|| input.word());
                let address = match what & 8 {
                    0 => self.addresses[input.below(self.addresses.len())],
                    _ => IpAddr::from([192, 0, 2, input.byte()]),
                };
                self.stack.advertise_address(now, id, address, port).map(|_| ())
            }
            2 => {
                let ids: Vec<AddressId> = input.bytes(40).iter().map(|b| AddressId(*b & 7)).collect();
                self.stack.withdraw_addresses(now, id, &ids)
            }
            _ => {
                let subflow = SubflowId(u32::from(input.byte() & 7));
                self.stack.set_backup(now, id, subflow, what & 4 != 0)
            }
        };
        self.settle();
    }
}

/// The target: see the module.
///
/// # Panics
/// When something does not hold.
pub fn operations(data: &[u8]) {
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
    let shape = input.byte();
    let mut world = World::new(&addresses(shape & 1 != 0), 1500, digest);
    let any = if shape & 1 != 0 { IpAddr::from([0u8; 16]) } else { IpAddr::from([0u8; 4]) };
    let mut listen = ListenOptions::new(SocketAddr::new(any, PORT), 1 + usize::from(shape >> 1 & 3));
    world.fast_open = shape & 0x40 != 0;
    listen.fast_open = 2 * usize::from(world.fast_open);
    let mut listener = world.stack.listen(listen.clone()).ok();
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        let now = world.now;
        let what = input.byte();
        match what & 31 {
            0 | 1 if world.conns.len() < MAX_MADE => {
                let choice = input.byte();
                world.connect(usize::from(what >> 6), settings(choice));
            }
            2 | 3 => {
                if let Some((c, f)) = world.unanswered.pop_front() {
                    world.answer(c, f, &mut input);
                }
            }
            4 if world.conns.len() < MAX_MADE => world.open(None, &mut input),
            5 => {
                world.accept_config = settings(input.byte());
                world.accept_next();
            }
            6 => {
                if let Some(incoming) = world.incoming.pop_front() {
                    world.stack.refuse(now, incoming, RefuseWith::Reset);
                    world.settle();
                }
            }
            7 => {
                if let Some(l) = listener.take() {
                    world.stack.unlisten(now, l);
                } else {
                    listener = world.stack.listen(listen.clone()).ok();
                }
                world.settle();
            }
            8 if !world.conns.is_empty() => {
                let c = input.below(world.conns.len());
                // Closed means forgotten by the application, the peer goes on.
                if let Some(id) = world.conns[c].id.take() {
                    world.stack.close(now, id);
                    world.settle();
                }
            }
            9 if !world.conns.is_empty() => {
                let c = input.below(world.conns.len());
                if let Some(id) = world.conns[c].id {
                    world.stack.abort(now, id);
                    world.settle();
                }
            }
            10 if world.paths.len() < MAX_MADE => {
                // The address of a path that has gone may come back.
                let index = input.below(world.addresses.len());
                let mut config = PathConfig::new("again", world.addresses[index]);
                config.backup = what & 32 != 0;
                let path = world.stack.path_added(now, config);
                world.paths[index] = path;
                world.settle();
            }
            11 => {
                let path = world.paths[input.below(world.paths.len())];
                world.stack.path_removed(now, path);
                world.settle();
            }
            12 => world.eager_reader = what & 32 == 0,
            13 => world.wait(&mut input),
            // Inputs from before there were such operations do not set this bit.
            14 if shape & 0x80 != 0 => world.signal(&mut input),
            _ => world.step(&mut input),
        }
        assert!(world.stack.connection_count() <= MAX_CONNECTIONS);
    }
    world.wind_up();
}

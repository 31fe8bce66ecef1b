//! Runs over connections that are pipes in memory: no network, no stack.

use super::super::{Ground, Happening, Plan, Wire};
use crate::{Experiment, LabError, Registries, Report, RunOptions};
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use umptcp_netsim::LinkStats;
use umptcp_stack_core::stack::SubflowInfo;

const SCENARIO: &str = r#"
name = "pipe"
warm-up = "100 ms"
duration = "400 ms"
sample = "50 ms"
seeds = 1

[[link]]
name = "a"
rate = "10 Mbit/s"

[[link]]
name = "b"
rate = "10 Mbit/s"

[[flow]]
name = "flow"
routes = [["a"], ["b", "-a"]]
receive-buffer = "100 kB"
source = { kind = "constant", rate = "400 kbit/s", message = "500 B" }

[[event]]
at = "200 ms"
link = "a"
state = "down"

[[event]]
at = "100 ms"
flow = "flow"
route = 2
address = "removed"
"#;

type Fault = fn(&mut [u8], usize) -> io::Result<()>;

/// A pipe's end. `fault` may change what is read, or end it, given how much was read before.
struct Pipe {
    to: Mutex<Option<SyncSender<Vec<u8>>>>,
    from: Mutex<(Receiver<Vec<u8>>, usize)>,
    fault: Fault,
}

impl Wire for Pipe {
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (from, read) = &mut *self.from.lock().unwrap();
        match from.recv_timeout(Duration::from_millis(20)) {
            Ok(bytes) => {
                buffer[..bytes.len()].copy_from_slice(&bytes);
                (self.fault)(&mut buffer[..bytes.len()], *read)?;
                *read += bytes.len();
                Ok(bytes.len())
            }
            Err(RecvTimeoutError::Timeout) => Err(io::ErrorKind::WouldBlock.into()),
            Err(RecvTimeoutError::Disconnected) => Ok(0),
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.to.lock().unwrap().as_ref().unwrap().try_send(bytes.to_vec()) {
            Ok(()) => Ok(bytes.len()),
            Err(TrySendError::Full(_)) => {
                std::thread::sleep(Duration::from_millis(1));
                Err(io::ErrorKind::WouldBlock.into())
            }
            Err(TrySendError::Disconnected(_)) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn finish(&self) -> io::Result<()> {
        *self.to.lock().unwrap() = None;
        Ok(())
    }

    fn subflows(&self) -> Option<Vec<(usize, SubflowInfo)>> {
        None
    }

    fn out_of_order(&self) -> Option<u64> {
        None
    }
}

/// Pipes, and what has happened.
struct Pipes {
    fault: Fault,
    happened: Arc<Mutex<Vec<String>>>,
}

impl Ground for Pipes {
    fn connect(&self, _pair: usize) -> Result<[Box<dyn Wire>; 2], String> {
        let (to_server, from_client) = sync_channel(4);
        let (to_client, from_server) = sync_channel(4);
        let pipe = |to, from| {
            let (to, from) = (Mutex::new(Some(to)), Mutex::new((from, 0)));
            Box::new(Pipe { to, from, fault: self.fault }) as Box<dyn Wire>
        };
        Ok([pipe(to_server, from_server), pipe(to_client, from_client)])
    }

    fn happen(&self, what: &Happening) -> Result<(), String> {
        let text = match what {
            Happening::Link(link) => format!("link {} seen {:?}", link.link(), link.seen()),
            other => format!("{other:?}"),
        };
        self.happened.lock().unwrap().push(text);
        // An address that takes its time: until something else has happened.
        let is_slow = matches!(what, Happening::AddressRemoved { .. });
        for _ in 0..200 {
            if !is_slow || self.happened.lock().unwrap().len() > 1 {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err("what happens to the link waits for it".to_owned())
    }

    fn links(&self) -> Option<Vec<[(LinkStats, usize); 2]>> {
        Some(vec![[(LinkStats::default(), 0); 2]; 2])
    }
}

fn no_fault(_: &mut [u8], _: usize) -> io::Result<()> {
    Ok(())
}

fn emulate(text: &str, fault: Fault) -> (Result<Report, LabError>, Vec<String>) {
    let experiment = Experiment::parse("t", text, None, &[], &Registries::default()).unwrap();
    let happened = Arc::new(Mutex::new(Vec::new()));
    let build = |plan: &Plan| {
        assert_eq!((plan.links.len(), plan.pairs.len()), (2, 1));
        let pair = &plan.pairs[0];
        assert_eq!((pair.send_buffer, pair.receive_buffer), (None, Some(100_000)));
        // The client's own link is the first when it sends, and the last when the server does.
        let (links, second) = (pair.routes.iter().map(|r| r.link), pair.routes[1].up.iter().map(|(l, _)| *l));
        let down = text.contains("direction = \"down\"");
        assert_eq!(links.collect::<Vec<_>>(), [Some(0), Some(usize::from(!down))]);
        assert_eq!(second.collect::<Vec<_>>(), if down { [0, 1] } else { [1, 0] });
        Ok(Pipes { fault, happened: happened.clone() })
    };
    let report = experiment.emulate(&RunOptions::default(), "pipes", build, |_, _| ());
    let happened = happened.lock().unwrap().clone();
    (report, happened)
}

#[test]
fn a_run_in_real_time_has_the_measurements_of_one_in_virtual_time() {
    let (report, happened) = emulate(SCENARIO, no_fault);
    let report = report.unwrap();
    assert_eq!(happened, ["AddressRemoved { pair: 0, route: 1 }", "link 0 seen Some(false)"]);
    assert!(report.notes().is_empty(), "{:?}", report.notes());
    assert_eq!(report.points[0].name(), "stack=pipes");
    // 40 messages were made; how long each took depends on this machine.
    let value = |quantity| report.points[0].value("flow", "flow", quantity).unwrap().mean;
    assert!(value("goodput") > 0.0 && value("delay-p50").is_finite() && value("silence") > 0.0);
    // What the stack does not say is not 0.
    for quantity in ["retransmitted", "timeouts", "out-of-order", "throughput"] {
        assert!(value(quantity).is_nan(), "{quantity}");
    }
    // The same rows as in virtual time.
    let experiment = Experiment::parse("t", SCENARIO, None, &[], &Registries::default()).unwrap();
    let simulated = experiment.run(&RunOptions::default(), &Registries::default(), |_, _| ()).unwrap();
    let keys = |r: &Report| -> Vec<_> {
        r.points[0].rows.iter().map(|r| (r.object, r.name.clone(), r.quantity)).collect()
    };
    assert_eq!(keys(&report), keys(&simulated));
}

#[test]
fn requests_and_finite_transfers_end() {
    for (source, quantity) in [
        ("size = \"200 kB\"", "completion"),
        (r#"source = { kind = "requests", response = "30 kB", count = 3 }"#, "delay-max"),
        (r#"source = { kind = "page", objects = 5, size = "3 kB", connections = 2 }"#, "page-mean"),
    ] {
        for direction in ["up", "down"] {
            let constant = r#"source = { kind = "constant", rate = "400 kbit/s", message = "500 B" }"#;
            let text = SCENARIO.replace(constant, &format!("{source}\ndirection = {direction:?}"));
            let text = text.replace("warm-up = \"100 ms\"\n", "").replace("400 ms", "1 s");
            let report = emulate(&text, no_fault).0.unwrap_or_else(|e| panic!("{source}: {e}"));
            let value = report.points[0].value("flow", "flow", quantity).unwrap().mean;
            assert!(value.is_finite(), "{source} {direction}");
        }
    }
}

#[test]
fn wrong_bytes_and_lost_connections_are_told() {
    let corrupt: Fault = |bytes, before| {
        if before >= 2_000 {
            bytes[0] ^= 1;
        }
        Ok(())
    };
    let error = emulate(SCENARIO, corrupt).0.unwrap_err().to_string();
    assert!(
        error.contains("stack=pipes, seed 1: flow flow: byte ") && error.contains("not what was sent"),
        "{error}"
    );
    let reset: Fault =
        |_, before| if before >= 2_000 { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) };
    let notes = emulate(SCENARIO, reset).0.unwrap().notes();
    assert!(notes.len() == 1 && notes[0].contains("a connection of flow ended: "), "{notes:?}");
    let events = format!("{SCENARIO}\n[[event]]\nat = \"1 s\"\nflow = \"flow\"\nscheduler = \"min-rtt\"\n");
    let error = emulate(&events, no_fault).0.unwrap_err().to_string();
    assert!(error.contains("in the simulator only"), "{error}");
}

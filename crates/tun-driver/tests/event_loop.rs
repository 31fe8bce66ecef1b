//! The event loop with a stack that only forwards packets, used by real kernel TCP.
#![cfg(all(target_os = "linux", not(umptcp_portable)))]

mod common;

use common::{in_namespace, ip};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use umptcp_stack_core::device::{ChecksumRequest, ChecksumState, HeaderBuf, PathConfig, RxPacket, Transmit};
use umptcp_stack_core::event::Event;
use umptcp_stack_core::payload::Payload;
use umptcp_tun_driver::clock::Clock;
use umptcp_tun_driver::device::{BufferPool, Device, QueueState, TransmitOutcome, Tun, TunOptions};
use umptcp_tun_driver::event_loop::{
    AttachedPath, Context, EventLoop, Guard, Handler, LoopOptions, NetworkStack, Waker,
};
use umptcp_tun_driver::pcap::PcapWriter;
use umptcp_types::{Instant as StackInstant, PathId};

/// The calls of the stack, for the test to inspect.
#[derive(Default)]
struct Log {
    large: usize,
    blocked: Vec<(PathId, bool)>,
    busy: Vec<(PathId, bool)>,
    rates: Vec<(PathId, Option<u64>)>,
    removed: Vec<PathId>,
    timeouts: Vec<(StackInstant, StackInstant)>,
}

/// Forwards packets between two paths.
#[derive(Default)]
struct Relay {
    paths: Vec<PathId>,
    added: u32,
    queue: VecDeque<Transmit>,
    timer: Option<StackInstant>,
    log: Arc<Mutex<Log>>,
}

impl NetworkStack for Relay {
    fn path_added(&mut self, _now: StackInstant, _config: PathConfig) -> PathId {
        let id = PathId(self.added);
        self.added += 1;
        self.paths.push(id);
        id
    }
    fn path_removed(&mut self, _now: StackInstant, path: PathId) {
        self.paths.retain(|p| *p != path);
        self.log.lock().unwrap().removed.push(path);
    }
    fn path_blocked(&mut self, _now: StackInstant, path: PathId, blocked: bool) {
        self.log.lock().unwrap().blocked.push((path, blocked));
    }
    fn path_busy(&mut self, _now: StackInstant, path: PathId, busy: bool) {
        self.log.lock().unwrap().busy.push((path, busy));
    }
    fn path_rate(&mut self, _now: StackInstant, path: PathId, rate: Option<u64>) {
        self.log.lock().unwrap().rates.push((path, rate));
    }
    fn handle_packet(&mut self, _now: StackInstant, path: PathId, packet: RxPacket) {
        let b = &packet.buffer;
        if b[0] >> 4 != 4 || b[9] != 6 {
            return;
        }
        let Some(other) = self.paths.iter().find(|p| **p != path) else { return };
        let header = 20 + usize::from(b[32] >> 4) * 4;
        let mut head = HeaderBuf::zeroed(header);
        head.as_mut_slice().copy_from_slice(&b[..header]);
        self.log.lock().unwrap().large += usize::from(packet.gso_size.is_some());
        self.queue.push_back(
            Transmit::new(*other, head, Payload::from(b.slice(header..)))
                .with_gso_size(packet.gso_size)
                .with_checksum(match packet.checksum {
                    // From a kernel socket directly to TUN: without a checksum.
                    ChecksumState::Verified => ChecksumRequest::Partial { start: 20, offset: 16 },
                    ChecksumState::Unverified => ChecksumRequest::Complete,
                }),
        );
    }
    fn handle_timeout(&mut self, now: StackInstant) {
        let due = self.timer.take().expect("a timeout nobody asked for");
        self.log.lock().unwrap().timeouts.push((due, now));
    }
    fn poll_transmit(&mut self, _now: StackInstant) -> Option<Transmit> {
        self.queue.pop_front()
    }
    fn poll_event(&mut self) -> Option<Event> {
        None
    }
    fn poll_timeout(&self) -> Option<StackInstant> {
        self.timer
    }
}

type Job = Box<dyn FnOnce(&mut Context<'_, Relay>) + Send>;

/// Runs closures on the loop's thread.
struct Jobs {
    queue: mpsc::Receiver<Job>,
    lost: mpsc::Sender<(PathId, Guard)>,
}

impl Handler<Relay> for Jobs {
    fn on_wake(&mut self, cx: &mut Context<'_, Relay>) {
        while let Ok(job) = self.queue.try_recv() {
            job(cx);
        }
    }
    fn on_event(&mut self, _cx: &mut Context<'_, Relay>, _event: Event) {}
    fn on_path_lost(&mut self, _cx: &mut Context<'_, Relay>, path: PathId, _e: io::Error, guard: Guard) {
        self.lost.send((path, guard)).unwrap();
    }
}

/// A running loop.
struct Running {
    jobs: mpsc::Sender<Job>,
    waker: Waker,
    lost: Mutex<mpsc::Receiver<(PathId, Guard)>>,
    log: Arc<Mutex<Log>>,
    thread: std::thread::JoinHandle<()>,
}

impl Running {
    fn start(options: LoopOptions) -> Running {
        let (jobs, queue) = mpsc::channel();
        let (lost_tx, lost) = mpsc::channel();
        let stack = Relay::default();
        let log = stack.log.clone();
        let handler = Jobs { queue, lost: lost_tx };
        let mut event_loop = EventLoop::new(stack, handler, Clock::new(), options).unwrap();
        let waker = event_loop.waker();
        let thread = std::thread::spawn(move || event_loop.run().unwrap());
        Running { jobs, waker, lost: Mutex::new(lost), log, thread }
    }

    /// Runs `job` on the loop's thread and waits for its result.
    fn run<T: Send + 'static>(&self, job: impl FnOnce(&mut Context<'_, Relay>) -> T + Send + 'static) -> T {
        let (tx, rx) = mpsc::channel();
        self.jobs.send(Box::new(move |cx| tx.send(job(cx)).unwrap())).unwrap();
        self.waker.wake();
        rx.recv_timeout(Duration::from_secs(10)).expect("the loop answers")
    }

    fn add(&self, device: Tun, guard: Guard) -> PathId {
        let mut config = PathConfig::new(device.name(), "10.0.0.1".parse().unwrap());
        device.describe(&mut config);
        let device: Box<dyn Device> = Box::new(device);
        self.run(move |cx| cx.add_path(AttachedPath { device, config, guard }).unwrap())
    }

    fn stop(self) {
        self.run(|cx| cx.stop());
        self.thread.join().unwrap();
    }
}

/// Opens a device, brings it up with `address`, in the current namespace.
fn device(name: &str, address: &str) -> Tun {
    let tun = Tun::open(&TunOptions::named(name)).unwrap();
    ip(&format!("addr add {address} dev {name}"));
    ip(&format!("link set {name} up"));
    tun
}

/// Runs `work` on a thread in its own namespace, which exists as long as the result holds a device of it.
fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
    std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        work()
    })
}

#[test]
fn kernel_tcp_runs_through_the_loop_and_into_the_trace() {
    in_namespace(|| {
        const BYTES: usize = 64 << 20;
        let trace = std::env::temp_dir().join(format!("umptcp-loop-{}.pcapng", std::process::id()));
        let file: Box<dyn io::Write + Send> = Box::new(std::fs::File::create(&trace).unwrap());
        // First without a trace, which would be large.
        for capture in [None, Some(PcapWriter::new(file).unwrap())] {
            let bytes = if capture.is_some() { 1 << 20 } else { BYTES };
            let mut options = LoopOptions::default();
            options.capture = capture;
            let running = Running::start(options);
            running.add(device("near0", "10.97.0.1/24"), Box::new(()));

            let (tun_tx, tun_rx) = mpsc::channel();
            let server = elsewhere(move || {
                tun_tx.send(device("far0", "10.97.0.2/24")).unwrap();
                let listener = TcpListener::bind("0.0.0.0:5001").unwrap();
                let mut stream = listener.accept().unwrap().0;
                let mut sum = 0u64;
                let mut buf = vec![0; 1 << 17];
                loop {
                    let n = stream.read(&mut buf).unwrap();
                    if n == 0 {
                        break;
                    }
                    sum = buf[..n].iter().fold(sum, |s, b| s.wrapping_mul(31).wrapping_add(u64::from(*b)));
                }
                stream.write_all(&sum.to_be_bytes()).unwrap();
            });
            running.add(tun_rx.recv().unwrap(), Box::new(()));

            let mut stream = connect("10.97.0.2:5001");
            let start = Instant::now();
            let data: Vec<u8> =
                (0..1 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            let mut sum = 0u64;
            for _ in 0..bytes / data.len() {
                stream.write_all(&data).unwrap();
            }
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            for _ in 0..bytes / data.len() {
                sum = data.iter().fold(sum, |s, b| s.wrapping_mul(31).wrapping_add(u64::from(*b)));
            }
            let mut answer = [0; 8];
            stream.read_exact(&mut answer).unwrap();
            eprintln!("{:.1} Gbit/s", bytes as f64 * 8e-9 / start.elapsed().as_secs_f64());
            assert_eq!(u64::from_be_bytes(answer), sum, "every byte arrived");
            assert!(running.log.lock().unwrap().large > 4, "large segments crossed whole");
            server.join().unwrap();
            running.stop();
        }
        check_trace(&trace);
        std::fs::remove_file(&trace).unwrap();
    });
}

/// The other side may need a moment before it listens.
fn connect(to: &str) -> TcpStream {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_secs(5)) {
            Ok(s) => return s,
            Err(e) if Instant::now() > end => panic!("{to}: {e}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn check_trace(trace: &std::path::Path) {
    let tshark = |args: &[&str]| {
        let out = std::process::Command::new("tshark")
            .args(["-r", trace.to_str().unwrap(), "-o", "tcp.check_checksum:TRUE"])
            .args(args)
            .output();
        match out {
            Ok(out) => {
                assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
                Some(String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect::<Vec<_>>())
            }
            Err(e) => {
                eprintln!("skipped: tshark: {e}");
                None
            }
        }
    };
    let Some(all) =
        tshark(&["-T", "fields", "-e", "frame.interface_name", "-e", "frame.packet_flags_direction"])
    else {
        return;
    };
    for seen in ["near0\t0x00000001", "near0\t0x00000002", "far0\t0x00000001", "far0\t0x00000002"] {
        assert!(all.iter().any(|l| l == seen), "no packet of {seen:?}");
    }
    let wrong = tshark(&["-Y", "_ws.malformed || tcp.checksum.status == \"Bad\""]);
    assert_eq!(wrong.unwrap(), [""; 0], "malformed packets or wrong checksums");
    let good = tshark(&["-Y", "tcp.checksum.status == \"Good\""]).unwrap();
    assert_eq!(good.len(), tshark(&["-Y", "tcp"]).unwrap().len());
}

/// A device that says by its input that there is room.
struct Bucket {
    signal: Arc<EventFd>,
    has_room: Arc<AtomicBool>,
    /// What was sent, and whether it waits for room.
    seen: Arc<Mutex<(usize, bool)>>,
}

impl Device for Bucket {
    fn receive(&mut self, _pool: &mut BufferPool) -> io::Result<Option<RxPacket>> {
        let _ = self.signal.read();
        // Readable as long as there is room that is waited for, whatever is read.
        if self.seen.lock().unwrap().1 && self.has_room.load(Ordering::SeqCst) {
            self.signal.write(1).unwrap();
        }
        Ok(None)
    }
    fn transmit(&mut self, _packet: &Transmit) -> io::Result<TransmitOutcome> {
        if !self.has_room.load(Ordering::SeqCst) {
            return Ok(TransmitOutcome::Full);
        }
        self.seen.lock().unwrap().0 += 1;
        Ok(TransmitOutcome::Sent)
    }
    fn signals_room(&mut self, wanted: bool) -> bool {
        self.seen.lock().unwrap().1 = wanted;
        true
    }
    fn fd(&self) -> BorrowedFd<'_> {
        self.signal.as_fd()
    }
    fn offload(&self) -> bool {
        true
    }
}

#[test]
fn room_that_is_signalled_by_input_is_used() {
    let flags = EfdFlags::EFD_NONBLOCK;
    let signal = Arc::new(EventFd::from_value_and_flags(0, flags).unwrap());
    let (has_room, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new((0, false))));
    let bucket = Bucket { signal: signal.clone(), has_room: has_room.clone(), seen: seen.clone() };
    let running = Running::start(LoopOptions::default());
    let config = PathConfig::new("bucket", "10.0.0.1".parse().unwrap());
    let attached = AttachedPath { device: Box::new(bucket), config, guard: Box::new(()) };
    let path = running.run(move |cx| cx.add_path(attached).unwrap());
    running.run(move |cx| {
        cx.stack.queue.push_back(Transmit::new(path, HeaderBuf::zeroed(40), Payload::new()));
    });
    let blocked = |all: &[bool]| {
        let expected: Vec<_> = all.iter().map(|blocked| (path, *blocked)).collect();
        wait_for(|| running.log.lock().unwrap().blocked == expected);
    };
    blocked(&[true]);
    assert_eq!(*seen.lock().unwrap(), (0, true));
    // Input that means something else.
    signal.write(1).unwrap();
    running.run(|_| ());
    has_room.store(true, Ordering::SeqCst);
    signal.write(1).unwrap();
    wait_for(|| *seen.lock().unwrap() == (1, false));
    wait_for(|| running.log.lock().unwrap().blocked.last() == Some(&(path, false)));
    running.stop();
}

#[test]
fn a_full_device_that_is_removed_waits_for_room_no_longer() {
    let signal = Arc::new(EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK).unwrap());
    let (has_room, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new((0, false))));
    let bucket = Bucket { signal, has_room, seen: seen.clone() };
    let running = Running::start(LoopOptions::default());
    let config = PathConfig::new("bucket", "10.0.0.1".parse().unwrap());
    let attached = AttachedPath { device: Box::new(bucket), config, guard: Box::new(()) };
    let path = running.run(move |cx| cx.add_path(attached).unwrap());
    running.run(move |cx| {
        cx.stack.queue.push_back(Transmit::new(path, HeaderBuf::zeroed(40), Payload::new()));
    });
    wait_for(|| seen.lock().unwrap().1);
    let removed = running.run(move |cx| cx.remove_path(path));
    assert!(removed.is_some());
    assert_eq!(*seen.lock().unwrap(), (0, false));
    running.stop();
}

#[test]
fn a_device_that_goes_down_blocks_its_path_and_one_deleted_ends_it() {
    in_namespace(|| {
        let running = Running::start(LoopOptions::default());
        let near = device("near0", "10.97.1.1/24");
        let path = running.add(near, Box::new("guard of near0"));
        ip("link set near0 down");
        let packet = |path| {
            let mut header = HeaderBuf::zeroed(40);
            header.as_mut_slice()[0] = 0x45;
            header.as_mut_slice()[3] = 40;
            Transmit::new(path, header, Payload::new())
        };
        running.run(move |cx| cx.stack.queue.push_back(packet(path)));
        wait_for(|| running.log.lock().unwrap().blocked == [(path, true)]);
        ip("link set near0 up");
        wait_for(|| running.log.lock().unwrap().blocked == [(path, true), (path, false)]);
        ip("link del near0");
        let (lost, guard) = running.lost.lock().unwrap().recv_timeout(Duration::from_secs(5)).unwrap();
        assert_eq!(lost, path);
        assert_eq!(*guard.downcast_ref::<&str>().unwrap(), "guard of near0");
        assert_eq!(running.log.lock().unwrap().removed, [path]);

        // Removed on purpose.
        let second = running.add(device("near1", "10.97.1.1/24"), Box::new(7u8));
        assert_eq!(running.run(|cx| cx.paths()), [second]);
        let removed = running.run(move |cx| cx.remove_path(second)).unwrap();
        assert_eq!(removed.guard.downcast_ref::<u8>(), Some(&7));
        // It can be added again, with another id.
        let third = running.run(move |cx| cx.add_path(removed).unwrap());
        assert_ne!(third, second);
        drop(running.run(move |cx| cx.remove_path(third)).unwrap());
        assert!(running.run(move |cx| cx.remove_path(second)).is_none());
        // A system call of the loop's thread may keep the device open a moment longer.
        wait_for(|| nix::net::if_::if_nametoindex("near1").is_err());
        running.stop();
    });
}

fn wait_for(mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < end, "it did not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn timers_fire_when_due_and_wakes_are_not_lost() {
    for busy_poll in [Duration::ZERO, Duration::from_micros(50)] {
        let running = Running::start(LoopOptions::default().busy_poll(busy_poll));
        for micros in [0, 200, 3_000] {
            running.run(move |cx| cx.stack.timer = Some(cx.now + Duration::from_micros(micros)));
            wait_for(|| running.log.lock().unwrap().timeouts.len() == 1);
            let (due, fired) = running.log.lock().unwrap().timeouts.pop().unwrap();
            assert!(fired >= due);
            assert!(fired - due < Duration::from_millis(200), "{:?} late", fired - due);
        }
        // Two threads race to wake the loop, each waiting for its response.
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..5_000u32).for_each(|i| assert_eq!(running.run(move |_| i), i)));
            }
        });
        running.stop();
    }
}

#[test]
fn descriptors_are_closed_on_exec() {
    let tun = in_namespace_device();
    if let Some(tun) = tun {
        let flags = nix::fcntl::fcntl(tun.as_fd(), nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags & nix::libc::FD_CLOEXEC, nix::libc::FD_CLOEXEC);
    }
}

fn in_namespace_device() -> Option<Tun> {
    let (tx, rx) = mpsc::channel();
    in_namespace(move || tx.send(Tun::open(&TunOptions::default()).unwrap()).unwrap());
    rx.recv().ok()
}

/// A device behind which a NIC's queue is as the test says.
struct Queued {
    fd: nix::sys::eventfd::EventFd,
    queue: Arc<Mutex<Option<QueueState>>>,
}

impl Device for Queued {
    fn receive(&mut self, _pool: &mut BufferPool) -> io::Result<Option<RxPacket>> {
        Ok(None)
    }
    fn transmit(&mut self, packet: &Transmit) -> io::Result<TransmitOutcome> {
        if let Some(queue) = &mut *self.queue.lock().unwrap() {
            queue.waiting += packet.payload.len() as u64;
        }
        Ok(TransmitOutcome::Sent)
    }
    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.fd)
    }
    fn nic_queue(&mut self) -> Option<QueueState> {
        *self.queue.lock().unwrap()
    }
    fn offload(&self) -> bool {
        true
    }
}

/// A path to a NIC with a queue, which is empty at first.
fn queued(running: &Running) -> (PathId, Arc<Mutex<Option<QueueState>>>) {
    let queue = Arc::new(Mutex::new(Some(QueueState::default())));
    let device = Queued { fd: nix::sys::eventfd::EventFd::new().unwrap(), queue: queue.clone() };
    let config = PathConfig::new("queued", "10.0.0.1".parse().unwrap());
    let path = running.run(move |cx| {
        let attached = AttachedPath { device: Box::new(device), config, guard: Box::new(()) };
        cx.add_path(attached).unwrap()
    });
    (path, queue)
}

/// What leaves while a path is busy (a RST needs nobody's leave) may find room in the NIC's queue, or none at all
/// any more: the stack is told so, or the path would be busy for ever.
#[test]
fn a_busy_path_is_never_forgotten() {
    for gone in [false, true] {
        let running = Running::start(LoopOptions::default());
        let (path, queue) = queued(&running);
        let packet = move || {
            Transmit::new(path, HeaderBuf::zeroed(40), Payload::from(bytes::Bytes::from(vec![0; 60_000])))
        };
        let send = move |cx: &mut Context<'_, Relay>| cx.stack.queue.push_back(packet());
        // Nothing leaves the queue: after some packets that is enough.
        for _ in 0..20 {
            running.run(send);
            std::thread::sleep(Duration::from_millis(1));
        }
        let busy = || running.log.lock().unwrap().busy.clone();
        assert_eq!(busy().last(), Some(&(path, true)), "it is busy");
        // Room comes just when another packet leaves.
        *queue.lock().unwrap() = (!gone).then_some(QueueState { sent: 10_000_000, waiting: 0 });
        running.run(send);
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while busy().last() != Some(&(path, false)) {
            assert!(std::time::Instant::now() < deadline, "{:?}", busy());
            std::thread::sleep(Duration::from_millis(1));
        }
        running.run(|cx| cx.stop());
        running.thread.join().unwrap();
    }
}

/// What leaves the queue in a second is measured and told, and taken back with the queue.
#[test]
fn the_stack_hears_how_fast_the_nic_is() {
    let running = Running::start(LoopOptions::default());
    let (path, queue) = queued(&running);
    let send = move |cx: &mut Context<'_, Relay>| {
        let payload = Payload::from(bytes::Bytes::from(vec![0; 1_000]));
        cx.stack.queue.push_back(Transmit::new(path, HeaderBuf::zeroed(40), payload));
    };
    let told = |wanted: &dyn Fn(Option<u64>) -> bool| {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            running.run(send);
            std::thread::sleep(Duration::from_millis(1));
            let last = running.log.lock().unwrap().rates.last().copied();
            if last.is_some_and(|(of, rate)| of == path && wanted(rate)) {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{last:?}");
            if let Some(state) = queue.lock().unwrap().as_mut() {
                *state = QueueState { sent: state.sent + 10_000, waiting: 50_000 };
            }
        }
    };
    told(&|rate| rate.is_some_and(|rate| rate > 0));
    *queue.lock().unwrap() = None;
    told(&|rate| rate.is_none());
    running.run(|cx| cx.stop());
    running.thread.join().unwrap();
}

//! Fast Open (RFC 7413; RFC 8684 appendix B) where packets are lost and boxes interfere: every byte arrives
//! once, whatever becomes of the SYN, and what went wrong is remembered.

use umptcp_netsim::middlebox::{
    DropIf, Duplicate, Middlebox, OneWay, Output, RandomiseSequence, StripMptcp, StripWhere,
};
use umptcp_netsim::{Direction, Duration, FlowId, Instant, Link, Packet, Pair, Side};
use umptcp_stack_core::config::ConnectionConfig;
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::wire::tcp::kind;

/// Bytes each way; more than a SYN takes.
const BYTES: u64 = 20_000;
/// For how long a server is left alone.
const AN_HOUR: Duration = Duration::from_secs(3600);

fn is_syn(packet: &Packet) -> bool {
    packet.tcp().is_some_and(|t| t.flags().syn && !t.flags().ack)
}

fn is_syn_ack(packet: &Packet) -> bool {
    packet.tcp().is_some_and(|t| t.flags().syn && t.flags().ack)
}

fn asks_or_tells(packet: &Packet) -> bool {
    packet.tcp().is_some_and(|t| t.raw_options().flatten().any(|o| o.kind == kind::FAST_OPEN))
}

/// Does something to the packets of the handshake.
struct Edit<F>(F);

impl<F> std::fmt::Debug for Edit<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Edit")
    }
}

impl<F: FnMut(&mut Packet) + Send> Middlebox for Edit<F> {
    fn process(&mut self, _: Instant, direction: Direction, mut packet: Packet, out: &mut Output) {
        if packet.tcp().is_some_and(|t| t.flags().syn) {
            (self.0)(&mut packet);
        }
        out.send(direction, packet);
    }
}

fn forward<M: Middlebox>(inner: M) -> OneWay<M> {
    OneWay { direction: Direction::Forward, inner }
}

fn reverse<M: Middlebox>(inner: M) -> OneWay<M> {
    OneWay { direction: Direction::Reverse, inner }
}

/// Takes the Fast Open option out, or changes the cookie in it.
fn edit_cookie(packet: &mut Packet, keep: bool) {
    let mut options = Vec::new();
    for option in packet.tcp().into_iter().flat_map(|t| t.raw_options().for_forwarding().flatten()) {
        let bytes = option.bytes;
        match option.kind {
            kind::FAST_OPEN if keep && bytes.len() > 2 => {
                options.extend_from_slice(&bytes[..2]);
                options.extend(option.data().iter().map(|b| b ^ 0x55));
            }
            kind::FAST_OPEN => options.resize(options.len() + bytes.len(), kind::NOP),
            _ => options.extend_from_slice(bytes),
        }
    }
    packet.set_tcp_options(&options);
}

/// Keeps so many bytes of the SYN's payload.
fn cut_payload(packet: &mut Packet, keep: usize) {
    let payload = packet.payload().slice(0..keep.min(packet.payload().len()));
    packet.set_payload(payload);
}

/// A client that knows the server's cookie, unless `first` keeps it from that.
struct Lab {
    net: Pair,
    name: String,
    /// What the counters stood at before the last connection.
    before: Vec<u64>,
}

impl Lab {
    fn new(mptcp: bool, name: &str) -> Lab {
        let config = ConnectionConfig::default().with_mptcp(mptcp).with_fast_open(true).with_no_delay(true);
        let link = || Link::mbit(20).delay_ms(10);
        let net = Pair::builder().path(link()).path(link()).config(config).seed(7).build();
        Lab { net, name: format!("{name}, mptcp {mptcp}"), before: Vec::new() }
    }

    /// With a cookie.
    fn ready(mptcp: bool, name: &str) -> Lab {
        let mut lab = Lab::new(mptcp, name);
        lab.exchange();
        assert_eq!(lab.moved(Side::Server, Counter::TcpFastOpenCookieReqd), 1);
        lab
    }

    fn middlebox(&mut self, middlebox: impl Middlebox + 'static) {
        let cable = self.net.path_cable(0);
        self.net.add_middlebox(cable, middlebox);
    }

    fn counters(&self) -> Vec<u64> {
        let of = |side| self.net.stack(self.net.node(side)).expect("a stack").counters();
        [Side::Client, Side::Server]
            .into_iter()
            .flat_map(|side| Counter::ALL.iter().map(move |c| of(side).get(*c)))
            .collect()
    }

    /// How far a counter has moved during the last connection.
    fn moved(&self, side: Side, counter: Counter) -> u64 {
        let at = side as usize * Counter::ALL.len() + counter as usize;
        self.counters()[at] - self.before[at]
    }

    /// Data taken from the SYN, data not taken; as the client saw it.
    fn fates(&self) -> (u64, u64) {
        let client = |c| self.moved(Side::Client, c);
        (client(Counter::TcpFastOpenActive), client(Counter::TcpFastOpenActiveFail))
    }

    /// One connection, whose bytes must all arrive, each once. Returns the time until the server had the
    /// client's first byte.
    fn exchange(&mut self) -> Duration {
        self.before = self.counters();
        let start = self.net.now();
        let mut spec = self.net.flow_spec();
        spec.port = Some(4000);
        let flow = self.net.add_flow(spec).expect("a connection can be tried");
        for side in [Side::Client, Side::Server] {
            self.net.send(flow, side, BYTES);
            self.net.finish(flow, side);
        }
        let name = self.name.clone();
        let result = self.net.run_until_true("first bytes", Duration::from_secs(300), |net| {
            net.flow(flow).server.progress.received > 0
        });
        result.unwrap_or_else(|e| panic!("{name}: {e}\n{}", self.net.trace().join("\n")));
        let time = self.net.now() - start;
        self.net.run_until_idle(Duration::from_secs(1200)).unwrap_or_else(|e| panic!("{name}: {e}"));
        self.check(flow);
        time
    }

    fn check(&self, flow: FlowId) {
        let f = self.net.flow(flow);
        let name = &self.name;
        assert!(f.is_closed() && f.error().is_none(), "{name}: {f:?}");
        for end in [&f.client, &f.server] {
            assert_eq!((end.progress.received, end.progress.sent), (BYTES, BYTES), "{name}");
        }
        for counter in [Counter::DSSNotMatching, Counter::DSSNoMatchTCP] {
            assert_eq!(self.moved(Side::Server, counter), 0, "{name}: {counter:?}");
        }
    }

    /// Whether the last connection was MPTCP to its end.
    fn kept_mptcp(&self) -> bool {
        let flow = self.net.flow(FlowId(self.net.flow_count() - 1));
        let fell_back = flow.client.fell_back.is_some() || flow.server.fell_back.is_some();
        self.moved(Side::Server, Counter::MPCapableACKRX) > 0 && !fell_back
    }
}

/// One round trip less than without.
const AT_ONCE: Duration = Duration::from_millis(15);
/// With a handshake first.
const SOON: Duration = Duration::from_millis(40);
/// With the SYN's timer first.
const LATE: Duration = Duration::from_millis(1_100);

fn both(test: impl Fn(bool)) {
    for mptcp in [true, false] {
        test(mptcp);
    }
}

#[test]
fn with_nothing_in_the_way_data_go_with_every_syn() {
    both(|mptcp| {
        let mut lab = Lab::new(mptcp, "nothing in the way");
        assert!(lab.exchange() > AT_ONCE, "the first asks for a cookie");
        for _ in 0..3 {
            assert!(lab.exchange() < AT_ONCE);
            assert_eq!(lab.fates(), (1, 0));
            assert_eq!(lab.kept_mptcp(), mptcp);
        }
    });
}

#[test]
fn a_lost_syn_comes_again_without_data() {
    both(|mptcp| {
        let mut lab = Lab::ready(mptcp, "SYN lost");
        let mut lost = false;
        lab.middlebox(DropIf::new(move |_, _, p: &Packet| {
            is_syn(p) && !p.payload().is_empty() && !std::mem::replace(&mut lost, true)
        }));
        let time = lab.exchange();
        assert!(time > Duration::from_secs(1) && time < LATE, "{time:?}");
        assert_eq!(lab.fates(), (0, 1));
        assert_eq!(lab.moved(Side::Client, Counter::TcpFastOpenBlackhole), 1);
        assert_eq!(lab.kept_mptcp(), mptcp);
        // RFC 7413 §4.1.3.1: left alone, for it cannot be told from a path that swallows such SYNs.
        let time = lab.exchange();
        assert!(time > AT_ONCE && time < SOON, "{time:?}");
        assert_eq!(lab.fates(), (0, 0));
        // In time it is tried again, from the beginning.
        lab.net.run_for(AN_HOUR).unwrap();
        lab.exchange();
        assert_eq!(lab.moved(Side::Server, Counter::TcpFastOpenCookieReqd), 1);
        assert!(lab.exchange() < AT_ONCE);
    });
}

/// Waits for one timeout, then for none, until an hour has passed.
fn one_timeout_in_an_hour(lab: &mut Lab, mptcp: bool) {
    let time = lab.exchange();
    assert!(time > Duration::from_secs(1) && time < LATE, "{time:?}");
    assert_eq!(lab.moved(Side::Client, Counter::TcpFastOpenBlackhole), 1);
    for _ in 0..3 {
        assert!(lab.exchange() < SOON);
        assert_eq!((lab.fates(), lab.kept_mptcp()), ((0, 0), mptcp));
    }
    lab.net.run_for(AN_HOUR).unwrap();
}

#[test]
fn a_path_that_swallows_syns_with_data_costs_one_timeout_an_hour() {
    both(|mptcp| {
        let mut lab = Lab::ready(mptcp, "SYNs with data swallowed");
        lab.middlebox(DropIf::new(|_, _, p: &Packet| is_syn(p) && !p.payload().is_empty()));
        for _ in 0..2 {
            one_timeout_in_an_hour(&mut lab, mptcp);
            assert!(lab.exchange() < SOON, "a new cookie is asked for");
        }
    });
}

#[test]
fn a_path_that_swallows_the_option_costs_one_timeout_an_hour() {
    both(|mptcp| {
        let mut lab = Lab::new(mptcp, "the option swallowed");
        lab.middlebox(DropIf::new(|_, _, p: &Packet| is_syn(p) && asks_or_tells(p)));
        for _ in 0..2 {
            one_timeout_in_an_hour(&mut lab, mptcp);
        }
    });
}

#[test]
fn a_lost_syn_ack_comes_again_and_the_data_are_taken_once() {
    both(|mptcp| {
        let mut lab = Lab::ready(mptcp, "SYN/ACK lost");
        let mut lost = false;
        lab.middlebox(DropIf::new(move |_, _, p: &Packet| {
            is_syn_ack(p) && !std::mem::replace(&mut lost, true)
        }));
        assert!(lab.exchange() < AT_ONCE, "the data are there all the same");
        assert_eq!(lab.moved(Side::Server, Counter::TcpFastOpenPassive), 1);
        assert_eq!(lab.kept_mptcp(), mptcp);
    });
}

#[test]
fn data_taken_out_of_the_syn_or_cut_come_again() {
    both(|mptcp| {
        for keep in [0, 1, 700] {
            let mut lab = Lab::ready(mptcp, &format!("{keep} bytes left in the SYN"));
            lab.middlebox(forward(Edit(move |p: &mut Packet| cut_payload(p, keep))));
            let time = lab.exchange();
            assert_eq!(time < AT_ONCE, keep > 0, "{}: {time:?}", lab.name);
            assert!(time < SOON);
            assert_eq!(lab.fates(), if keep > 0 { (1, 0) } else { (0, 1) }, "{}", lab.name);
            assert_eq!(lab.kept_mptcp(), mptcp);
        }
    });
}

#[test]
fn an_option_taken_out_on_the_way_means_an_ordinary_handshake() {
    both(|mptcp| {
        // From the SYN, which keeps its data: nobody takes them.
        let mut lab = Lab::ready(mptcp, "the option taken out of SYNs");
        lab.middlebox(forward(Edit(|p: &mut Packet| edit_cookie(p, false))));
        assert!(lab.exchange() < SOON);
        assert_eq!((lab.fates(), lab.kept_mptcp()), ((0, 1), mptcp));
        assert!(lab.exchange() < SOON);
        assert_eq!(lab.fates(), (0, 0), "left alone");
        // From the SYN/ACK: no cookie ever comes.
        let mut lab = Lab::new(mptcp, "the option taken out of SYN/ACKs");
        lab.middlebox(reverse(Edit(|p: &mut Packet| edit_cookie(p, false))));
        for asked in [1, 0, 0] {
            assert!(lab.exchange() < SOON);
            assert_eq!(lab.moved(Side::Server, Counter::TcpFastOpenCookieReqd), asked);
            assert_eq!((lab.fates(), lab.kept_mptcp()), ((0, 0), mptcp));
        }
    });
}

#[test]
fn a_cookie_that_is_no_longer_good_is_replaced() {
    both(|mptcp| {
        // Changed on the way, as if the server had another key now.
        let mut lab = Lab::ready(mptcp, "another key");
        let mut changed = false;
        lab.middlebox(forward(Edit(move |p: &mut Packet| {
            if is_syn(p) && !p.payload().is_empty() && !std::mem::replace(&mut changed, true) {
                edit_cookie(p, true);
            }
        })));
        assert!(lab.exchange() < SOON);
        assert_eq!(lab.moved(Side::Server, Counter::TcpFastOpenPassiveFail), 1);
        assert_eq!((lab.fates(), lab.kept_mptcp()), ((0, 1), mptcp));
        assert!(lab.exchange() < AT_ONCE);
        assert_eq!(lab.fates(), (1, 0));
        // Too old: the server changes its key every day and knows the last one.
        let day = Duration::from_secs(24 * 3600);
        lab.net.run_for(day).unwrap();
        assert!(lab.exchange() < AT_ONCE);
        lab.net.run_for(day.saturating_mul(3)).unwrap();
        assert!(lab.exchange() < SOON);
        assert_eq!((lab.fates(), lab.moved(Side::Server, Counter::TcpFastOpenPassiveFail)), ((0, 1), 1));
        assert!(lab.exchange() < AT_ONCE);
        assert_eq!((lab.fates(), lab.kept_mptcp()), ((1, 0), mptcp));
    });
}

#[test]
fn boxes_that_only_rearrange_are_no_trouble() {
    type Make = fn() -> Box<dyn Middlebox>;
    let boxes: [(&str, Make); 3] = [
        ("sequence numbers replaced", || Box::new(RandomiseSequence::new(3))),
        ("every packet twice", || Box::new(Duplicate::new(1))),
        ("MPTCP taken out of SYNs", || Box::new(StripMptcp::new(StripWhere::Syn))),
    ];
    both(|mptcp| {
        for (name, make) in boxes {
            let mut lab = Lab::ready(mptcp, name);
            lab.middlebox(make());
            for _ in 0..2 {
                assert!(lab.exchange() < AT_ONCE, "{}", lab.name);
                assert_eq!(lab.fates(), (1, 0), "{}", lab.name);
                assert_eq!(lab.moved(Side::Server, Counter::TcpFastOpenPassive), 1, "{}", lab.name);
                assert_eq!(lab.kept_mptcp(), mptcp && !name.starts_with("MPTCP"), "{}", lab.name);
            }
        }
    });
}

#[test]
fn random_loss_changes_no_byte() {
    for seed in 0..40 {
        for mptcp in [true, false] {
            let config =
                ConnectionConfig::default().with_mptcp(mptcp).with_fast_open(true).with_no_delay(true);
            let link = || Link::mbit(20).delay_ms(10).loss(0.2).duplicate(0.1);
            let net = Pair::builder().path(link()).path(link()).config(config).seed(seed).build();
            let mut lab = Lab { net, name: format!("seed {seed}, mptcp {mptcp}"), before: Vec::new() };
            for _ in 0..4 {
                lab.exchange();
            }
        }
    }
}

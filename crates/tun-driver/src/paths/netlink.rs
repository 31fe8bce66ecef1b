//! Links, addresses, routes, rules and proxy neighbours via rtnetlink, reduced to what paths need.
//!
//! Errors are `io::Error`s with the kernel's errno; the caller adds the context.

use futures::channel::mpsc::UnboundedReceiver;
use futures::stream::StreamExt;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
    NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHopFlags,
    RouteProtocol, RouteScope, RouteType, RouteVia,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::SocketAddr;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::IpAddr;

/// Marks our routes and rules (rtm_protocol); not one of iproute2's well-known numbers.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(0x6d);
/// The table of the host's own addresses.
pub(crate) const TABLE_LOCAL: u32 = 255;
/// The table of ordinary routes.
pub(crate) const TABLE_MAIN: u32 = 254;
/// The highest metric: every other route is preferred.
pub(crate) const LAST_METRIC: u32 = u32::MAX;

/// Address family of an IP version.
fn family_of(v6: bool) -> AddressFamily {
    if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet }
}

fn full_length(address: &IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The destination of a default route.
fn anywhere(v6: bool) -> IpNet {
    if v6 { Ipv6Net::default().into() } else { Ipv4Net::default().into() }
}

/// A network device.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) up: bool,
    pub(crate) carrier: bool,
    pub(crate) loopback: bool,
    /// Kind of a virtual device, as `ip -d link` shows it.
    pub(crate) kind: Option<InfoKind>,
    pub(crate) mtu: u32,
    /// The largest segment, in bytes, that the kernel's own TCP passes to it (`gso_max_size`).
    pub(crate) gso_max_size: u32,
    /// Maximum number of packets in such a segment (`gso_max_segs`).
    pub(crate) gso_max_segments: u32,
}

impl Link {
    /// The largest segment to pass to this device. If the administrator limits the kernel to single packets,
    /// we send single packets too.
    pub(crate) fn largest_segment(&self) -> u32 {
        self.gso_max_size.min(self.gso_max_segments.saturating_mul(self.mtu)).max(self.mtu)
    }

    fn read(message: LinkMessage) -> Option<Link> {
        let flags = message.header.flags;
        let mut link = Link {
            index: message.header.index,
            name: String::new(),
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            loopback: flags.contains(LinkFlags::Loopback),
            kind: None,
            mtu: 1500,
            gso_max_size: u32::MAX,
            gso_max_segments: u32::MAX,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::GsoMaxSize(bytes) => link.gso_max_size = bytes,
                LinkAttribute::GsoMaxSegs(count) => link.gso_max_segments = count,
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.into_iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        (!link.name.is_empty()).then_some(link)
    }
}

/// An address of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct HostAddress {
    pub(crate) index: u32,
    /// The address, with the prefix length of its subnet.
    pub(crate) net: IpNet,
    pub(crate) universal: bool,
    /// Not yet checked for duplicates (RFC 4862 §5.4).
    pub(crate) tentative: bool,
    /// A duplicate.
    pub(crate) failed: bool,
    /// Not to be used for new connections (RFC 4862 §5.5.4).
    pub(crate) deprecated: bool,
    /// Not the first of its subnet: the kernel does not choose it as a source address.
    pub(crate) secondary: bool,
}

#[cfg(test)]
impl HostAddress {
    /// An ordinary address of device 2.
    pub(crate) fn ordinary(net: &str) -> Self {
        HostAddress {
            index: 2,
            net: net.parse().unwrap(),
            universal: true,
            tentative: false,
            failed: false,
            deprecated: false,
            secondary: false,
        }
    }
}

impl HostAddress {
    pub(crate) fn address(&self) -> IpAddr {
        self.net.addr()
    }

    fn read(message: AddressMessage) -> Option<HostAddress> {
        let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
        let (mut local, mut address) = (None, None);
        for attribute in message.attributes {
            match attribute {
                AddressAttribute::Local(a) => local = Some(a),
                AddressAttribute::Address(a) => address = Some(a),
                AddressAttribute::Flags(f) => flags = f,
                _ => {}
            }
        }
        Some(HostAddress {
            index: message.header.index,
            // On a point-to-point link, IFA_ADDRESS is the peer's.
            net: IpNet::new(local.or(address)?, message.header.prefix_len).ok()?,
            universal: message.header.scope == AddressScope::Universe,
            tentative: flags.contains(AddressFlags::Tentative)
                && !flags.intersects(AddressFlags::Optimistic | AddressFlags::Dadfailed),
            failed: flags.contains(AddressFlags::Dadfailed),
            deprecated: flags.contains(AddressFlags::Deprecated),
            secondary: flags.contains(AddressFlags::Secondary),
        })
    }
}

/// What a route does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum RouteAction {
    /// Forwards.
    Unicast,
    /// Rejects with an ICMP message.
    Unreachable,
}

/// A route with one next hop.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Route {
    pub(crate) destination: IpNet,
    pub(crate) tos: u8,
    pub(crate) priority: u32,
    pub(crate) action: RouteAction,
    /// Output device; `None` for `unreachable`.
    pub(crate) device: Option<u32>,
    pub(crate) gateway: Option<IpAddr>,
    /// The gateway is on-link although no route says so.
    pub(crate) onlink: bool,
    /// Raw rtm_scope; IPv4 only.
    pub(crate) scope: u8,
    pub(crate) mtu: Option<u32>,
    /// ICMP must not lower the MTU.
    pub(crate) mtu_locked: bool,
}

impl Route {
    /// A route to one address via a device, without a gateway.
    #[cfg(test)]
    pub(crate) fn host(address: IpAddr, device: u32) -> Route {
        Route::to(address.into(), device)
    }

    /// A route via a device, without a gateway.
    pub(crate) fn to(destination: IpNet, device: u32) -> Route {
        let v4 = matches!(destination, IpNet::V4(_));
        Route {
            destination,
            tos: 0,
            // IPv6 replaces metric 0 by 1024 (IP6_RT_PRIO_USER), IPv4 keeps it.
            priority: if v4 { 0 } else { 1024 },
            action: RouteAction::Unicast,
            device: Some(device),
            gateway: None,
            onlink: false,
            scope: if v4 { RouteScope::Link.into() } else { 0 },
            mtu: None,
            mtu_locked: false,
        }
    }

    /// `unreachable default` with the highest metric.
    pub(crate) fn unreachable(v6: bool) -> Route {
        Route {
            destination: anywhere(v6),
            tos: 0,
            priority: LAST_METRIC,
            action: RouteAction::Unreachable,
            device: None,
            gateway: None,
            onlink: false,
            scope: 0,
            mtu: None,
            mtu_locked: false,
        }
    }

    pub(crate) fn is_v6(&self) -> bool {
        matches!(self.destination, IpNet::V6(_))
    }

    /// What identifies a route for the kernel.
    pub(crate) fn key(&self) -> (IpNet, u8, u32) {
        (self.destination, self.tos, self.priority)
    }

    fn message(&self, table: u32) -> RouteMessage {
        let v6 = self.is_v6();
        let mut message = RouteMessage::default();
        message.header.address_family = family_of(v6);
        message.header.destination_prefix_length = self.destination.prefix_len();
        message.header.tos = self.tos;
        message.header.table = u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
        message.header.protocol = PROTOCOL;
        message.header.scope = RouteScope::from(self.scope);
        message.header.kind = match self.action {
            RouteAction::Unicast => RouteType::Unicast,
            RouteAction::Unreachable => RouteType::Unreachable,
        };
        if self.onlink {
            message.header.flags |= RouteFlags::Onlink;
        }
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Table(table));
        if self.destination.prefix_len() > 0 {
            attributes.push(RouteAttribute::Destination(self.destination.addr().into()));
        }
        if self.priority != 0 {
            attributes.push(RouteAttribute::Priority(self.priority));
        }
        if let Some(device) = self.device {
            attributes.push(RouteAttribute::Oif(device));
        }
        match self.gateway {
            // An IPv4 route via an IPv6 neighbour (RFC 8950).
            Some(IpAddr::V6(gateway)) if !v6 => {
                attributes.push(RouteAttribute::Via(RouteVia::Inet6(gateway)))
            }
            Some(gateway) => attributes.push(RouteAttribute::Gateway(gateway.into())),
            None => {}
        }
        if let Some(mtu) = self.mtu {
            let mut metrics = vec![RouteMetric::Mtu(mtu)];
            if self.mtu_locked {
                // One bit per metric; RTAX_MTU is 2.
                metrics.insert(0, RouteMetric::Lock(1 << 2));
            }
            attributes.push(RouteAttribute::Metrics(metrics));
        }
        message
    }

    /// The route in a message, if it goes via `device` (any device if `None`), with its table.
    fn read(message: &RouteMessage, device: Option<u32>) -> Option<(u32, Route)> {
        let header = &message.header;
        let v6 = header.address_family == AddressFamily::Inet6;
        let action = match header.kind {
            RouteType::Unicast => RouteAction::Unicast,
            RouteType::Unreachable => RouteAction::Unreachable,
            _ => return None,
        };
        if header.flags.contains(RouteFlags::Cloned) || header.source_prefix_length != 0 {
            return None;
        }
        let mut table = u32::from(header.table);
        let mut destination = anywhere(v6).addr();
        let mut route = Route {
            destination: anywhere(v6),
            tos: header.tos,
            priority: 0,
            action,
            device: None,
            gateway: None,
            onlink: header.flags.contains(RouteFlags::Onlink),
            scope: if v6 { 0 } else { header.scope.into() },
            mtu: None,
            mtu_locked: false,
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Table(t) => table = *t,
                RouteAttribute::Destination(RouteAddress::Inet(a)) => destination = (*a).into(),
                RouteAttribute::Destination(RouteAddress::Inet6(a)) => destination = (*a).into(),
                RouteAttribute::Priority(p) => route.priority = *p,
                RouteAttribute::Oif(index) => route.device = Some(*index),
                RouteAttribute::Metrics(metrics) => {
                    for metric in metrics {
                        match metric {
                            RouteMetric::Mtu(mtu) => route.mtu = Some(*mtu),
                            RouteMetric::Lock(bits) => route.mtu_locked = bits & (1 << 2) != 0,
                            _ => {}
                        }
                    }
                }
                RouteAttribute::MultiPath(hops) => {
                    let hop = hops.iter().find(|hop| device.is_none_or(|d| d == hop.interface_index))?;
                    route.device = Some(hop.interface_index);
                    route.onlink = hop.flags.contains(RouteNextHopFlags::Onlink);
                    route.gateway = hop.attributes.iter().find_map(gateway);
                }
                // An encapsulating route (MPLS, SRv6): cannot be copied.
                RouteAttribute::Encap(_) | RouteAttribute::EncapType(_) => return None,
                other => route.gateway = gateway(other).or(route.gateway),
            }
        }
        route.destination = IpNet::new(destination, header.destination_prefix_length).ok()?;
        route.mtu_locked &= route.mtu.is_some();
        if action == RouteAction::Unreachable {
            // IPv6 reports these with the loopback device.
            route.device = None;
        } else if device.is_some_and(|d| route.device != Some(d)) {
            return None;
        }
        Some((table, route))
    }
}

fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(a)) | RouteAttribute::Via(RouteVia::Inet(a)) => {
            Some((*a).into())
        }
        RouteAttribute::Gateway(RouteAddress::Inet6(a)) | RouteAttribute::Via(RouteVia::Inet6(a)) => {
            Some((*a).into())
        }
        _ => None,
    }
}

/// A network in a record. One address is written without its length, as records of earlier versions have it.
mod net_text {
    use ipnet::IpNet;
    use serde::{Deserialize, Deserializer, Serializer};
    use std::net::IpAddr;

    pub(super) fn serialize<S: Serializer>(net: &Option<IpNet>, s: S) -> Result<S::Ok, S::Error> {
        match net {
            Some(net) if net.prefix_len() == net.max_prefix_len() => s.collect_str(&net.addr()),
            Some(net) => s.collect_str(net),
            None => s.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<IpNet>, D::Error> {
        let text = String::deserialize(d)?;
        let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        net.map(Some).map_err(serde::de::Error::custom)
    }
}

/// A policy rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Rule {
    pub(crate) v6: bool,
    pub(crate) priority: u32,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "net_text")]
    pub(crate) from: Option<IpNet>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "net_text")]
    pub(crate) to: Option<IpNet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) input: Option<String>,
    /// Bits of the packet's mark that must be set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mark: Option<u32>,
    /// Inverts the match.
    #[serde(default)]
    pub(crate) invert: bool,
    /// The table to look up; `None` drops silently.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) table: Option<u32>,
}

impl Rule {
    /// A rule that matches everything and drops it; the caller adds selectors.
    pub(crate) fn new(v6: bool, priority: u32) -> Rule {
        Rule { v6, priority, from: None, to: None, input: None, mark: None, invert: false, table: None }
    }

    fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = family_of(self.v6);
        message.header.action =
            if self.table.is_some() { RuleAction::ToTable } else { RuleAction::Blackhole };
        if self.invert {
            message.header.flags |= RuleFlags::Invert;
        }
        let attributes = &mut message.attributes;
        attributes.push(RuleAttribute::Priority(self.priority));
        attributes.push(RuleAttribute::Protocol(PROTOCOL));
        if let Some(from) = self.from {
            message.header.src_len = from.prefix_len();
            attributes.push(RuleAttribute::Source(from.addr()));
        }
        if let Some(to) = self.to {
            message.header.dst_len = to.prefix_len();
            attributes.push(RuleAttribute::Destination(to.addr()));
        }
        if let Some(input) = &self.input {
            attributes.push(RuleAttribute::Iifname(input.clone()));
        }
        if let Some(mark) = self.mark {
            attributes.push(RuleAttribute::FwMark(mark));
            attributes.push(RuleAttribute::FwMask(mark));
        }
        if let Some(table) = self.table {
            attributes.push(RuleAttribute::Table(table));
        }
        message
    }
}

/// The table that a rule refers to.
fn rule_table(message: &RuleMessage) -> u32 {
    message
        .attributes
        .iter()
        .find_map(|a| match a {
            RuleAttribute::Table(table) => Some(*table),
            _ => None,
        })
        .unwrap_or(u32::from(message.header.table))
}

/// Whether a notification is about one of our routes.
pub(crate) fn is_ours(message: &RouteNetlinkMessage) -> bool {
    match message {
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
            route.header.protocol == PROTOCOL
        }
        // One that is deleted may have been deleted by somebody else.
        RouteNetlinkMessage::NewRule(rule) => rule_is_ours(rule),
        _ => false,
    }
}

fn rule_is_ours(rule: &RuleMessage) -> bool {
    rule.attributes.iter().any(|a| matches!(a, RuleAttribute::Protocol(p) if *p == PROTOCOL))
}

/// A policy rule of the host, as far as others' rules concern us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HostRule {
    pub(crate) priority: u32,
    /// Added by an instance of ours.
    pub(crate) ours: bool,
}

/// Notifications of the kernel.
pub(crate) type Notifications = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

/// A netlink connection to the network namespace of the thread that opened it.
#[derive(Clone)]
pub(crate) struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Connects. Must be called in a tokio runtime, which drives the connection.
    pub(crate) fn connect() -> io::Result<Netlink> {
        // Strict checking makes the kernel filter dumps by device and table.
        let (connection, handle, _) = rtnetlink::new_connection_with_strict_check()?;
        tokio::spawn(connection);
        Ok(Netlink { handle })
    }

    /// Subscribes to notifications about links, addresses, routes and rules.
    pub(crate) fn subscribe() -> io::Result<Notifications> {
        use rtnetlink::MulticastGroup as Group;
        let groups = [
            Group::Link,
            Group::Ipv4Ifaddr,
            Group::Ipv6Ifaddr,
            Group::Ipv4Route,
            Group::Ipv6Route,
            Group::Ipv4Rule,
            Group::Ipv6Rule,
        ];
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&groups)?;
        tokio::spawn(connection);
        Ok(messages)
    }

    async fn exchange<T>(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        mut pick: impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> io::Result<(Vec<T>, bool)> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        let mut handle = self.handle.clone();
        let mut answers = handle.request(request).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        let (mut found, mut torn) = (Vec::new(), false);
        while let Some(answer) = answers.next().await {
            torn |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(inner) => found.extend(pick(inner)),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::Done(done) if done.code < 0 => {
                    return Err(io::Error::from_raw_os_error(-done.code));
                }
                _ => {}
            }
        }
        Ok((found, torn))
    }

    /// A dump, repeated if the tables changed while it ran.
    async fn dump<T>(
        &self,
        message: RouteNetlinkMessage,
        mut pick: impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let mut last = Vec::new();
        for _ in 0..5 {
            let (found, torn) = self.exchange(message.clone(), NLM_F_DUMP, &mut pick).await?;
            last = found;
            if !torn {
                break;
            }
        }
        Ok(last)
    }

    async fn change(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.exchange(message, NLM_F_ACK | flags, |_| None::<()>).await.map(|_| ())
    }

    /// All devices.
    pub(crate) async fn links(&self) -> io::Result<Vec<Link>> {
        self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), |m| match m {
            RouteNetlinkMessage::NewLink(link) => Link::read(link),
            _ => None,
        })
        .await
    }

    /// How many packets a TUN device has taken from its program, and given to it.
    pub(crate) async fn traffic(&self, index: u32) -> io::Result<(u64, u64)> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let answer = self.exchange(RouteNetlinkMessage::GetLink(message), 0, |m| match m {
            RouteNetlinkMessage::NewLink(link) => link.attributes.into_iter().find_map(|a| match a {
                LinkAttribute::Stats64(stats) => Some((stats.rx_packets, stats.tx_packets)),
                _ => None,
            }),
            _ => None,
        });
        answer.await?.0.first().copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// All addresses of all devices.
    pub(crate) async fn addresses(&self) -> io::Result<Vec<HostAddress>> {
        self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()), |m| match m {
            RouteNetlinkMessage::NewAddress(address) => HostAddress::read(address),
            _ => None,
        })
        .await
    }

    /// Sets a device's MTU and brings it up.
    pub(crate) async fn bring_up(&self, index: u32, mtu: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes.push(LinkAttribute::Mtu(mtu));
        self.change(RouteNetlinkMessage::SetLink(message), 0).await
    }

    async fn dump_routes(
        &self,
        v6: bool,
        device: Option<u32>,
        table: Option<u32>,
    ) -> io::Result<Vec<(u32, bool, Route)>> {
        let mut message = RouteMessage::default();
        message.header.address_family = family_of(v6);
        message.attributes.extend(device.map(RouteAttribute::Oif));
        message.attributes.extend(table.map(RouteAttribute::Table));
        let result = self
            .dump(RouteNetlinkMessage::GetRoute(message), |m| match m {
                RouteNetlinkMessage::NewRoute(route) => {
                    let ours = route.header.protocol == PROTOCOL;
                    Route::read(&route, device).map(|(table, route)| (table, ours, route))
                }
                _ => None,
            })
            .await;
        match result {
            // The table, or the family, does not exist.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EOPNOTSUPP)) => {
                Ok(Vec::new())
            }
            other => other,
        }
    }

    /// Routes via a device in any table except ours and `local`, with their tables.
    pub(crate) async fn routes_by(&self, v6: bool, device: u32) -> io::Result<Vec<(u32, Route)>> {
        let all = self.dump_routes(v6, Some(device), None).await?;
        Ok(all
            .into_iter()
            .filter(|(table, ours, route)| {
                !ours && *table != TABLE_LOCAL && route.action == RouteAction::Unicast
            })
            .map(|(table, _, route)| (table, route))
            .collect())
    }

    /// All routes of a table.
    pub(crate) async fn routes_in(&self, v6: bool, table: u32) -> io::Result<Vec<Route>> {
        let all = self.dump_routes(v6, None, Some(table)).await?;
        Ok(all.into_iter().filter(|(t, ..)| *t == table).map(|(_, _, route)| route).collect())
    }

    /// All routes of a family with their tables.
    pub(crate) async fn routes(&self, v6: bool) -> io::Result<Vec<(u32, Route)>> {
        let all = self.dump_routes(v6, None, None).await?;
        Ok(all.into_iter().map(|(table, _, route)| (table, route)).collect())
    }

    /// Tables that rules refer to.
    pub(crate) async fn tables_of_rules(&self) -> io::Result<Vec<u32>> {
        self.dump_rules(rule_table).await
    }

    /// The rules of both families.
    pub(crate) async fn rules(&self) -> io::Result<Vec<HostRule>> {
        let host_rule = |rule: &RuleMessage| HostRule {
            // The kernel leaves 0 out.
            priority: rule
                .attributes
                .iter()
                .find_map(|a| if let RuleAttribute::Priority(p) = a { Some(*p) } else { None })
                .unwrap_or(0),
            ours: rule_is_ours(rule),
        };
        self.dump_rules(host_rule).await
    }

    async fn dump_rules<T>(&self, pick: impl Fn(&RuleMessage) -> T) -> io::Result<Vec<T>> {
        let mut rules = Vec::new();
        for v6 in [false, true] {
            let mut message = RuleMessage::default();
            message.header.family = family_of(v6);
            let found = self
                .dump(RouteNetlinkMessage::GetRule(message), |m| match m {
                    RouteNetlinkMessage::NewRule(rule) => Some(pick(&rule)),
                    _ => None,
                })
                .await;
            match found {
                Ok(found) => rules.extend(found),
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(rules)
    }

    /// Adds a route, or replaces the one with the same key.
    pub(crate) async fn replace_route(&self, table: u32, route: &Route) -> io::Result<()> {
        self.change(RouteNetlinkMessage::NewRoute(route.message(table)), NLM_F_CREATE | NLM_F_REPLACE).await
    }

    /// Removes a route. Not an error if it does not exist.
    pub(crate) async fn delete_route(&self, table: u32, route: &Route) -> io::Result<()> {
        let mut message = route.message(table);
        // The table is ours, whoever added the route.
        message.header.protocol = RouteProtocol::Unspec;
        absent_is_fine(self.change(RouteNetlinkMessage::DelRoute(message), 0).await)
    }

    /// Removes all routes of a table.
    pub(crate) async fn flush_table(&self, table: u32) -> io::Result<()> {
        for v6 in [false, true] {
            for route in self.routes_in(v6, table).await? {
                self.delete_route(table, &route).await?;
            }
        }
        Ok(())
    }

    /// Adds a rule. Not an error if it exists.
    pub(crate) async fn add_rule(&self, rule: &Rule) -> io::Result<()> {
        self.ensure_rule(rule).await.map(|_| ())
    }

    /// Adds a rule unless it exists. Returns whether it was missing.
    pub(crate) async fn ensure_rule(&self, rule: &Rule) -> io::Result<bool> {
        match self.change(RouteNetlinkMessage::NewRule(rule.message()), NLM_F_CREATE | NLM_F_EXCL).await {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes a rule. Not an error if it does not exist.
    pub(crate) async fn delete_rule(&self, rule: &Rule) -> io::Result<()> {
        absent_is_fine(self.change(RouteNetlinkMessage::DelRule(rule.message()), 0).await)
    }

    fn neighbour_message(device: u32, address: IpAddr) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = family_of(address.is_ipv6());
        message.header.ifindex = device;
        message.attributes.push(NeighbourAttribute::Destination(match address {
            IpAddr::V4(a) => NeighbourAddress::Inet(a),
            IpAddr::V6(a) => NeighbourAddress::Inet6(a),
        }));
        message
    }

    fn proxy_message(device: u32, address: IpAddr) -> NeighbourMessage {
        let mut message = Self::neighbour_message(device, address);
        message.header.state = NeighbourState::Permanent;
        message.header.flags = NeighbourFlags::Proxy;
        message
    }

    /// Makes the kernel resolve `address` on `device`, ignoring what it knows already.
    pub(crate) async fn solicit(&self, device: u32, address: IpAddr) -> io::Result<()> {
        self.forget_neighbour(device, address).await?;
        let mut message = Self::neighbour_message(device, address);
        message.header.flags = NeighbourFlags::Use;
        self.change(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE).await
    }

    /// Removes the neighbour entry that [`Netlink::solicit`] has created.
    pub(crate) async fn forget_neighbour(&self, device: u32, address: IpAddr) -> io::Result<()> {
        let message = Self::neighbour_message(device, address);
        absent_is_fine(self.change(RouteNetlinkMessage::DelNeighbour(message), 0).await)
    }

    /// The link-layer address of a neighbour, if known.
    pub(crate) async fn neighbour(&self, device: u32, address: IpAddr) -> io::Result<Option<Vec<u8>>> {
        let mut message = NeighbourMessage::default();
        message.header.family = family_of(address.is_ipv6());
        let wanted = Self::neighbour_message(device, address).attributes.remove(0);
        let found = self
            .dump(RouteNetlinkMessage::GetNeighbour(message), |m| match m {
                RouteNetlinkMessage::NewNeighbour(n) if n.header.ifindex == device => {
                    let known =
                        !matches!(n.header.state, NeighbourState::Incomplete | NeighbourState::Failed);
                    (known && n.attributes.contains(&wanted)).then_some(n.attributes)
                }
                _ => None,
            })
            .await?;
        Ok(found.into_iter().flatten().find_map(|a| match a {
            NeighbourAttribute::LinkLayerAddress(bytes) => Some(bytes),
            _ => None,
        }))
    }

    /// Makes the host answer for `address` on `device` (`ip neighbour add proxy`).
    pub(crate) async fn add_proxy(&self, device: u32, address: IpAddr) -> io::Result<()> {
        let message = Self::proxy_message(device, address);
        self.change(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE).await
    }

    /// Undoes [`Netlink::add_proxy`].
    pub(crate) async fn delete_proxy(&self, device: u32, address: IpAddr) -> io::Result<()> {
        let message = Self::proxy_message(device, address);
        absent_is_fine(self.change(RouteNetlinkMessage::DelNeighbour(message), 0).await)
    }

    /// The output device for a packet from `source` to `destination` received on `input`; `None` if it would
    /// be delivered locally or rejected.
    pub(crate) async fn route_of(
        &self,
        source: IpAddr,
        destination: IpAddr,
        input: u32,
    ) -> io::Result<Option<u32>> {
        let mut message = RouteMessage::default();
        message.header.address_family = family_of(destination.is_ipv6());
        message.header.destination_prefix_length = full_length(&destination);
        message.header.source_prefix_length = full_length(&source);
        message.attributes.push(RouteAttribute::Destination(destination.into()));
        message.attributes.push(RouteAttribute::Source(source.into()));
        message.attributes.push(RouteAttribute::Iif(input));
        let answer = self
            .exchange(RouteNetlinkMessage::GetRoute(message), 0, |m| match m {
                RouteNetlinkMessage::NewRoute(route) if route.header.kind == RouteType::Unicast => {
                    route.attributes.iter().find_map(|a| match a {
                        RouteAttribute::Oif(index) => Some(*index),
                        _ => None,
                    })
                }
                _ => None,
            })
            .await;
        match answer {
            Ok((found, _)) => Ok(found.first().copied()),
            Err(error) => match error.raw_os_error() {
                // Refused by an unreachable, blackhole or prohibit route, or by the reverse-path filter.
                Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EACCES | libc::EINVAL | libc::EXDEV) => {
                    Ok(None)
                }
                _ => Err(error),
            },
        }
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ESRCH | libc::ENOENT | libc::ENODEV | libc::ENXIO)
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

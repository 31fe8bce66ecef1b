//! Mirrors a NIC's routes into the path's own table.
//!
//! The table ends with an `unreachable` route: packets for which the NIC has no route are rejected and do not
//! fall through to the routes of other NICs.

use super::netlink::{LAST_METRIC, Netlink, Route, RouteAction, TABLE_MAIN};
use ipnet::IpNet;
use std::collections::{BTreeMap, HashSet};
use std::io;

/// The intended content of the path's table for one family: the NIC's routes, the route to the stack's `own`
/// address via the TUN device, and `unreachable` for the rest.
fn wanted(routes: Vec<(u32, Route)>, own: &[Route]) -> Vec<Route> {
    // Prefixes in the main table. Other tables serve special purposes and only add to it; but some hosts keep
    // a NIC's default route in a separate table.
    let main: HashSet<IpNet> =
        routes.iter().filter(|(t, _)| *t == TABLE_MAIN).map(|(_, r)| r.destination).collect();
    let mut table = BTreeMap::new();
    for (number, route) in routes {
        if number != TABLE_MAIN && main.contains(&route.destination) {
            continue;
        }
        if route.destination.prefix_len() == 0 && route.priority == LAST_METRIC {
            continue;
        }
        // A route to the stack's own address would divert its packets.
        if own.iter().any(|o| o.destination == route.destination) {
            continue;
        }
        table.entry(route.key()).or_insert(route);
    }
    for route in own {
        table.insert(route.key(), route.clone());
        let unreachable = Route::unreachable(route.is_v6());
        table.insert(unreachable.key(), unreachable);
    }
    let mut routes: Vec<Route> = table.into_values().collect();
    // The kernel accepts a gateway only if it is reachable, so on-link routes come first. `unreachable` comes
    // before all others, so that nothing ever falls through.
    routes.sort_by_key(|r| {
        (r.action != RouteAction::Unreachable, r.gateway.is_some(), u8::MAX - r.destination.prefix_len())
    });
    routes
}

/// Synchronises `table` with the routes of `nic` (`None` if it is gone) for the families of the addresses in
/// `own`. Returns whether anything changed, and the routes that the kernel refused.
pub(super) async fn synchronise(
    netlink: &Netlink,
    table: u32,
    nic: Option<u32>,
    own: &[Route],
) -> io::Result<(bool, Vec<(Route, io::Error)>)> {
    let (mut changed, mut refused) = (false, Vec::new());
    for v6 in [false, true] {
        let own: Vec<Route> = own.iter().filter(|r| r.is_v6() == v6).cloned().collect();
        if own.is_empty() {
            continue;
        }
        let source = match nic {
            Some(nic) => netlink.routes_by(v6, nic).await?,
            None => Vec::new(),
        };
        let wanted = wanted(source, &own);
        let present: HashSet<Route> = netlink.routes_in(v6, table).await?.into_iter().collect();
        for route in &wanted {
            if present.contains(route) {
                continue;
            }
            match netlink.replace_route(table, route).await {
                Ok(()) => changed = true,
                Err(error) => refused.push((route.clone(), error)),
            }
        }
        let keys: HashSet<_> = wanted.iter().map(Route::key).collect();
        for route in present.iter().filter(|r| !keys.contains(&r.key())) {
            netlink.delete_route(table, route).await?;
            changed = true;
        }
    }
    Ok((changed, refused))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: &str, priority: u32, gateway: Option<&str>) -> Route {
        let destination: IpNet = destination.parse().unwrap();
        let mut route = Route::host(destination.addr(), 2);
        route.destination = destination;
        route.priority = priority;
        route.gateway = gateway.map(|g| g.parse().unwrap());
        route
    }

    #[test]
    fn on_link_routes_precede_gateways_and_unreachable_comes_last_in_metric() {
        let own = [Route::host("100.64.0.1".parse().unwrap(), 9)];
        let routes = vec![
            (TABLE_MAIN, route("0.0.0.0/0", 100, Some("10.0.0.1"))),
            (TABLE_MAIN, route("10.0.0.0/24", 100, None)),
            (TABLE_MAIN, route("100.64.0.1/32", 5, Some("10.0.0.1"))),
        ];
        let table = wanted(routes, &own);
        assert_eq!(table[0], Route::unreachable(false));
        assert_eq!(table[1], own[0]);
        assert_eq!(table[2].destination.prefix_len(), 24);
        assert_eq!(table[3].gateway, Some("10.0.0.1".parse().unwrap()));
        assert_eq!(table.len(), 4, "the route that would lead the stack's address away is left out");
    }

    #[test]
    fn other_tables_complete_the_main_one_but_do_not_override_it() {
        let own = [Route::host("100.64.0.1".parse().unwrap(), 9)];
        let routes = vec![
            (200, route("0.0.0.0/0", 0, Some("10.0.0.254"))),
            (200, route("10.9.0.0/16", 0, Some("10.0.0.254"))),
            (TABLE_MAIN, route("0.0.0.0/0", 100, Some("10.0.0.1"))),
        ];
        let table = wanted(routes, &own);
        let gateways: Vec<_> = table
            .iter()
            .filter_map(|r| r.gateway.map(|g| (r.destination.prefix_len(), g.to_string())))
            .collect();
        assert_eq!(gateways, [(16, "10.0.0.254".to_owned()), (0, "10.0.0.1".to_owned())]);
    }
}

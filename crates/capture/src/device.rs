//! The devices of a namespace: loopback, and the TUN device that captures.

use crate::error::CaptureError;
use nix::ifaddrs::getifaddrs;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use umptcp_tun_driver::device::{Tun, TunOptions};

/// Name of the TUN device inside.
pub const DEVICE: &str = "umptcp";

/// The addresses of a namespace.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Addresses {
    /// Those that programs send from, at most one of a family.
    pub own: Vec<IpAddr>,
    /// Further addresses of the host.
    pub others: Vec<IpAddr>,
}

impl Addresses {
    /// All addresses of this host; programs send from `own`.
    ///
    /// # Errors
    /// When the kernel does not tell the addresses.
    pub fn of_host(own: &[IpAddr]) -> Result<Addresses, CaptureError> {
        let of_family = |v6: bool| own.iter().copied().find(|a| a.is_ipv6() == v6);
        let own: Vec<IpAddr> = [false, true].into_iter().filter_map(of_family).collect();
        let all = getifaddrs().map_err(|e| CaptureError::set_up("list this host's addresses")(e.into()))?;
        let mut others: Vec<IpAddr> = all.filter_map(|i| address(i.address.as_ref()?)).collect();
        others.retain(|a| is_of_the_net(*a) && !own.contains(a));
        others.sort_unstable();
        others.dedup();
        Ok(Addresses { own, others })
    }
}

fn address(a: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = a.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
    v4.or_else(|| a.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
}

/// Neither loopback's nor good for one link only.
fn is_of_the_net(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => !a.is_loopback() && !a.is_link_local(),
        IpAddr::V6(a) => !a.is_loopback() && !a.is_unicast_link_local(),
    }
}

/// Brings up loopback in the namespace of the calling thread.
pub(crate) fn bring_up_loopback() -> Result<(), CaptureError> {
    netlink(async |handle| up(&handle, "lo").await).map_err(CaptureError::set_up("bring up loopback"))
}

/// Makes the TUN device in the namespace of the calling thread.
pub(crate) fn open(addresses: &Addresses, mtu: u16) -> Result<Tun, CaptureError> {
    let tun = Tun::open(&TunOptions::named(DEVICE).mtu(mtu))?;
    // No router answers here, and there is nobody to ask.
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{DEVICE}/accept_ra"), "0");
    let addresses = addresses.clone();
    netlink(async move |handle| {
        let (device, loopback) =
            (nix::net::if_::if_nametoindex(DEVICE)?, nix::net::if_::if_nametoindex("lo")?);
        up(&handle, DEVICE).await?;
        let on_device = addresses.own.iter().map(|a| (device, *a));
        for (index, address) in on_device.chain(addresses.others.iter().map(|a| (loopback, *a))) {
            let prefix = if address.is_ipv4() { 32 } else { 128 };
            let mut request = handle.address().add(index, address, prefix);
            if address.is_ipv6() {
                // Nobody else can have it here, and a route may only name a source that has been found good.
                let flags = AddressAttribute::Flags(AddressFlags::Nodad);
                request.message_mut().attributes.push(flags);
            }
            request.execute().await.map_err(io_error)?;
        }
        for own in &addresses.own {
            let route = match own {
                IpAddr::V4(own) => RouteMessageBuilder::<Ipv4Addr>::new()
                    .destination_prefix(Ipv4Addr::UNSPECIFIED, 0)
                    .output_interface(device)
                    .scope(RouteScope::Link)
                    .pref_source(*own)
                    .build(),
                IpAddr::V6(own) => RouteMessageBuilder::<Ipv6Addr>::new()
                    .destination_prefix(Ipv6Addr::UNSPECIFIED, 0)
                    .output_interface(device)
                    .pref_source(*own)
                    .build(),
            };
            handle.route().add(route).execute().await.map_err(io_error)?;
        }
        Ok(())
    })
    .map_err(CaptureError::set_up("addresses and routes"))?;
    Ok(tun)
}

async fn up(handle: &Handle, device: &str) -> io::Result<()> {
    let index = nix::net::if_::if_nametoindex(device)?;
    handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await.map_err(io_error)
}

/// Speaks netlink in the namespace of the calling thread.
fn netlink<F: Future<Output = io::Result<()>>>(task: impl FnOnce(Handle) -> F) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        task(handle).await
    })
}

fn io_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

//! What the kernel knows of the way to an address: the interface, whether its cable is in, and the gateway.

use std::net::{IpAddr, Ipv4Addr};

/// A line of the kernel's routing table for IPv4.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Route {
    interface: String,
    destination: u32,
    mask: u32,
    gateway: u32,
    metric: u32,
}

/// The routing table as it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes(Vec<Route>);

impl Routes {
    /// Reads the kernel's table; without one nothing is known.
    pub fn read() -> Self {
        Self::parse(&std::fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let route = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // An address in the network's order, written as if it were a number of the machine's.
            let address = |at: usize| Some(u32::from_be(u32::from_str_radix(fields.get(at)?, 16).ok()?));
            Some(Route {
                interface: (*fields.first()?).to_owned(),
                destination: address(1)?,
                gateway: address(2)?,
                metric: fields.get(6)?.parse().ok()?,
                mask: address(7)?,
            })
        };
        Self(text.lines().skip(1).filter_map(route).collect())
    }

    fn to(&self, address: Ipv4Addr) -> Option<&Route> {
        let address = u32::from(address);
        let fits = self.0.iter().filter(|route| address & route.mask == route.destination);
        fits.min_by_key(|route| (std::cmp::Reverse(route.mask), route.metric))
    }

    /// The interface through which an address is reached.
    pub fn interface(&self, address: IpAddr) -> Option<&str> {
        match address {
            // Not in this table.
            _ if address.is_loopback() => Some("lo"),
            IpAddr::V4(v4) => self.to(v4).map(|route| route.interface.as_str()),
            IpAddr::V6(_) => None,
        }
    }

    /// The gateway for everything else, if there is one behind the interface by which `address` is reached: only then
    /// does its answer say that this way is open.
    pub fn gateway_beside(&self, address: IpAddr) -> Option<IpAddr> {
        let route = self.to(Ipv4Addr::UNSPECIFIED).filter(|route| route.mask == 0 && route.gateway != 0)?;
        (self.interface(address) == Some(&route.interface)).then(|| Ipv4Addr::from(route.gateway).into())
    }
}

/// Whether an interface has a carrier, where the kernel says so.
pub fn carrier(interface: &str) -> Option<bool> {
    // An interface that is down refuses to say, and has none.
    match std::fs::read_to_string(format!("/sys/class/net/{interface}/carrier")) {
        Ok(text) => Some(text.trim() == "1"),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Some(false),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t01140A0A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
        eth0\t00140A0A\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n\
        wwan0\t00000000\t0100A8C0\t0003\t0\t0\t700\t00000000\t0\t0\t0\n\
        eth1\t0000A8C0\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
        eth2\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";

    #[test]
    fn the_closest_route_tells_the_interface_and_the_cheapest_the_gateway() {
        let routes = Routes::parse(TABLE);
        let interface = |address: &str| routes.interface(address.parse().expect("an address"));
        assert_eq!(interface("10.10.20.7"), Some("eth0"));
        assert_eq!(interface("192.168.1.7"), Some("eth2"));
        assert_eq!(interface("192.168.7.7"), Some("eth1"));
        assert_eq!(interface("203.0.113.9"), Some("eth0"));
        assert_eq!(interface("fe80::1"), None);
        assert_eq!(interface("127.0.0.9"), Some("lo"));
        let gateway = |address: &str| routes.gateway_beside(address.parse().expect("an address"));
        assert_eq!(gateway("10.10.20.7"), Some("10.10.20.1".parse().expect("an address")));
        assert_eq!((gateway("192.168.1.7"), gateway("127.0.0.9")), (None, None), "it stands behind another interface");
        assert_eq!(Routes::parse("").gateway_beside([10, 0, 0, 1].into()), None);
    }

    #[test]
    fn loopback_always_has_a_carrier_and_nothing_is_known_of_what_is_not_there() {
        assert_eq!((carrier("lo"), carrier("nonesuch0")), (Some(true), None));
    }
}

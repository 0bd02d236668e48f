//! What the kernel knows of the way to an address: the interface, whether its cable is in, and the gateway.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use shared::Mac;

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

    /// The networks that the machine itself stands in, with the interface: address and length of the prefix. Those of loopback
    /// and those longer than /30 are left out.
    pub fn own_networks(&self) -> impl Iterator<Item = (Ipv4Addr, u32)> {
        let own = self.0.iter().filter(|route| route.gateway == 0 && route.mask != 0 && route.mask.count_ones() <= 30);
        own.filter(|route| route.interface != "lo").map(|route| (route.destination.into(), route.mask.count_ones()))
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

/// Which boxes the kernel has found at the addresses around, of IPv4.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Neighbours(HashMap<IpAddr, Mac>);

impl Neighbours {
    /// Reads the kernel's table; without one nothing is known.
    pub fn read() -> Self {
        Self::parse(&std::fs::read_to_string("/proc/thread-self/net/arp").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        /// The kernel has an answer from that box.
        const COMPLETE: u32 = 2;
        let entry = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let address: Ipv4Addr = fields.first()?.parse().ok()?;
            let flags = u32::from_str_radix(fields.get(2)?.trim_start_matches("0x"), 16).ok()?;
            let mac: Mac = fields.get(3)?.parse().ok()?;
            (flags & COMPLETE != 0 && mac != Mac([0; 6])).then_some((address.into(), mac))
        };
        Self(text.lines().skip(1).filter_map(entry).collect())
    }

    /// The box at an address.
    pub fn mac(&self, address: IpAddr) -> Option<Mac> {
        self.0.get(&address).copied()
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
    fn a_box_counts_once_it_has_answered_for_its_address() {
        let table = "IP address       HW type     Flags       HW address            Mask     Device\n\
            10.10.20.7       0x1         0x2         02:00:5e:10:00:07     *        eth0\n\
            10.10.20.8       0x1         0x0         00:00:00:00:00:00     *        eth0\n\
            10.10.20.9       0x1         0x6         02:00:5e:10:00:09     *        eth0\n";
        let neighbours = Neighbours::parse(table);
        let mac = |last| neighbours.mac([10, 10, 20, last].into()).map(|mac| mac.to_string());
        assert_eq!(mac(7), Some("02:00:5e:10:00:07".to_owned()));
        assert_eq!((mac(8), mac(9)), (None, Some("02:00:5e:10:00:09".to_owned())));
        let own: Vec<_> = Routes::parse(TABLE).own_networks().collect();
        let network = |text: &str| text.parse::<Ipv4Addr>().expect("an address");
        assert_eq!(own, [(network("10.10.20.0"), 24), (network("192.168.0.0"), 16), (network("192.168.1.0"), 24)]);
    }

    #[test]
    fn loopback_always_has_a_carrier_and_nothing_is_known_of_what_is_not_there() {
        assert_eq!((carrier("lo"), carrier("nonesuch0")), (Some(true), None));
    }
}

//! What the kernel knows of the way to an address: the interface, whether its cable is in, and the gateway.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use shared::Mac;
use shared::message::Via;

use crate::netlink::{self, HEAD_BYTES, attribute, number};
use crate::probe::Asked;

/// A line of the kernel's main routing table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Route {
    interface: u32,
    network: IpAddr,
    prefix: u8,
    gateway: Option<IpAddr>,
    metric: u32,
}

impl Route {
    /// Reads one as the kernel tells it, see rtnetlink(7); nothing for one that is of no use to a probe.
    fn parse(entry: &[u8]) -> Option<Self> {
        let &[family, prefix, source_prefix, _tos, table, _protocol, _scope, kind, ..] = entry else { return None };
        let is_cached = number(entry, 8)? & libc::RTM_F_CLONED != 0;
        if source_prefix != 0 || table != libc::RT_TABLE_MAIN || kind != libc::RTN_UNICAST || is_cached {
            return None;
        }
        let attributes = entry.get(HEAD_BYTES..)?;
        let network = match (i32::from(family), attribute(attributes, libc::RTA_DST)) {
            (libc::AF_INET, None) if prefix == 0 => Ipv4Addr::UNSPECIFIED.into(),
            (libc::AF_INET6, None) if prefix == 0 => Ipv6Addr::UNSPECIFIED.into(),
            (_, Some(bytes)) => address(bytes)?,
            (_, None) => return None,
        };
        // The first of several next hops stands for all.
        let hop = attribute(attributes, libc::RTA_MULTIPATH);
        let (interface, of_hop) = match hop {
            None => (number(attribute(attributes, libc::RTA_OIF)?, 0)?, attributes),
            Some(hop) => (number(hop, 4)?, hop.get(8..usize::from(u16::from_ne_bytes(*hop.first_chunk()?)))?),
        };
        // Of another family than the route it is called otherwise, and its family precedes it.
        let gateway = match (attribute(of_hop, libc::RTA_GATEWAY), attribute(of_hop, libc::RTA_VIA)) {
            (Some(bytes), _) => Some(address(bytes)?),
            (None, Some(via)) => Some(address(via.get(2..)?)?),
            (None, None) => None,
        };
        let metric = attribute(attributes, libc::RTA_PRIORITY).and_then(|bytes| number(bytes, 0)).unwrap_or(0);
        Some(Self { interface, network, prefix, gateway, metric })
    }

    fn holds(&self, address: IpAddr) -> bool {
        match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (u32::from(network) ^ u32::from(address)).checked_shr(32 - u32::from(self.prefix.min(32))).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                (u128::from(network) ^ u128::from(address)).checked_shr(128 - u32::from(self.prefix.min(128))).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// An address of the machine's, as the kernel tells it, see rtnetlink(7).
fn own_address(entry: &[u8]) -> Option<IpAddr> {
    /// Bytes of what precedes the attributes of an address.
    const HEAD_BYTES: usize = 8;
    let attributes = entry.get(HEAD_BYTES..)?;
    // On a line from point to point the other one is that of the far end.
    let own = attribute(attributes, libc::IFA_LOCAL).or_else(|| attribute(attributes, libc::IFA_ADDRESS))?;
    address(own).filter(|own| !own.is_loopback())
}

/// Whether an address counts only together with an interface.
fn is_of_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// The main routing table as it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    routes: Vec<Route>,
    /// The interfaces' names by their numbers.
    names: HashMap<u32, String>,
    /// The machine's own addresses, but those of loopback.
    own: HashSet<IpAddr>,
}

impl Routes {
    /// Reads the kernel's table; without one nothing is known.
    pub fn read() -> Self {
        let mut known = Self { names: interfaces(), ..Self::default() };
        if let Err(error) = netlink::table(libc::RTM_GETROUTE, libc::RTM_NEWROUTE, |entry| known.add(entry)) {
            tracing::debug!(%error, "the routing table can't be read");
            return Self::default();
        }
        if let Err(error) = netlink::table(libc::RTM_GETADDR, libc::RTM_NEWADDR, |entry| known.own.extend(own_address(entry))) {
            tracing::debug!(%error, "the machine's addresses can't be read");
        }
        known
    }

    /// Whether the machine itself answers at an address, with or without its cable.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address)
    }

    /// Adds one as the kernel tells it, see rtnetlink(7), if it is of use to a probe.
    pub fn add(&mut self, entry: &[u8]) {
        self.routes.extend(Route::parse(entry));
    }

    fn to(&self, address: IpAddr) -> Option<&Route> {
        let fits = self.routes.iter().filter(|route| route.holds(address));
        let best = fits.clone().min_by_key(|route| (std::cmp::Reverse(route.prefix), route.metric))?;
        // Each interface has a link of its own: which is meant can't be told where there are several.
        let is_told = !is_of_link(address) || fits.into_iter().all(|route| route.interface == best.interface);
        is_told.then_some(best)
    }

    /// The networks of IPv4 that the machine itself stands in, with the interface: address and length of the prefix. Those
    /// of loopback and those longer than /30 are left out.
    pub fn own_networks(&self) -> impl Iterator<Item = (Ipv4Addr, u32)> {
        let own = self.routes.iter().filter(|route| route.gateway.is_none() && (1..=30).contains(&route.prefix));
        own.filter(|route| self.name(route) != Some("lo")).filter_map(|route| match route.network {
            IpAddr::V4(v4) => Some((v4, route.prefix.into())),
            IpAddr::V6(_) => None,
        })
    }

    fn name(&self, route: &Route) -> Option<&str> {
        self.names.get(&route.interface).map(String::as_str)
    }

    /// The interface through which a target is reached.
    pub fn interface<'a>(&'a self, asked: &'a Asked) -> Option<&'a str> {
        match &asked.via {
            Some(Via::Interface(name)) => Some(name),
            // The one that has the address from which it is asked.
            Some(Via::Source(source)) => {
                self.to(*source).filter(|route| route.gateway.is_none()).and_then(|route| self.name(route))
            }
            // Not in this table.
            None if asked.address.is_loopback() => Some("lo"),
            None => self.to(asked.address).and_then(|route| self.name(route)),
        }
    }

    /// The interface behind which an address of IPv4 itself stands, not some gateway on the way to it.
    pub fn next_door<'a>(&'a self, asked: &'a Asked) -> Option<(&'a str, Ipv4Addr)> {
        let IpAddr::V4(address) = asked.address else { return None };
        let is_far = self.is_own(asked.address) || self.to(asked.address).is_none_or(|route| route.gateway.is_some());
        self.interface(asked).filter(|name| *name != "lo" && !is_far).map(|name| (name, address))
    }

    /// The gateway for everything else, as it is to be asked, if there is one behind the interface by which a target is
    /// reached: only then does its answer say that this way is open.
    pub fn gateway_beside(&self, asked: &Asked) -> Option<Asked> {
        let interface = self.interface(asked)?;
        let defaults = self.routes.iter().filter(|route| {
            let is_default = route.prefix == 0 && route.network.is_ipv4() == asked.address.is_ipv4();
            is_default && self.name(route) == Some(interface)
        });
        let gateway = defaults.min_by_key(|route| route.metric)?.gateway?;
        let via = is_of_link(gateway).then(|| Via::Interface(interface.to_owned()));
        Some(Asked { via, ..gateway.into() })
    }
}

/// Which boxes the kernel has found at the addresses around.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Neighbours(HashMap<IpAddr, Vec<(u32, Mac)>>);

impl Neighbours {
    /// Reads the kernel's tables, those of ARP and of IPv6; without them nothing is known.
    pub fn read() -> Self {
        let mut known = Self::default();
        if let Err(error) = netlink::table(libc::RTM_GETNEIGH, libc::RTM_NEWNEIGH, |entry| known.add(entry)) {
            tracing::debug!(%error, "the neighbour tables can't be read");
            return Self::default();
        }
        known
    }

    /// Adds one as the kernel tells it, see rtnetlink(7), if it has an answer from that box.
    pub fn add(&mut self, entry: &[u8]) {
        let Some((address, interface, mac)) = neighbour(entry) else { return };
        self.0.entry(address).or_default().push((interface, mac));
    }

    /// The box at a target's address: that behind its interface, where the address is found behind several.
    pub fn mac(&self, address: IpAddr, interface: Option<&str>) -> Option<Mac> {
        match self.0.get(&address)?.as_slice() {
            [(_, mac)] => Some(*mac),
            several => {
                let number = interface.and_then(interface_number)?;
                several.iter().find(|(interface, _)| *interface == number).map(|(_, mac)| *mac)
            }
        }
    }
}

/// The address, the number of the interface behind which it stands, and the box that has answered for it.
fn neighbour(entry: &[u8]) -> Option<(IpAddr, u32, Mac)> {
    /// Answered, or set by hand; what has not and what needs no answer are left out.
    const ANSWERED: u16 = libc::NUD_REACHABLE | libc::NUD_STALE | libc::NUD_DELAY | libc::NUD_PROBE | libc::NUD_PERMANENT;
    let state = u16::from_ne_bytes(*entry.get(8..)?.first_chunk()?);
    let attributes = entry.get(HEAD_BYTES..)?;
    let mac = Mac(attribute(attributes, libc::NDA_LLADDR)?.try_into().ok()?);
    let is_known = state & ANSWERED != 0 && mac != Mac([0; 6]);
    is_known.then_some((address(attribute(attributes, libc::NDA_DST)?)?, number(entry, 4)?, mac))
}

/// The machine's interfaces: their names by their numbers.
fn interfaces() -> HashMap<u32, String> {
    let names = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| Some((interface_number(&name)?, name))).collect()
}

/// The number by which the kernel knows an interface.
pub fn interface_number(interface: &str) -> Option<u32> {
    std::fs::read_to_string(format!("/sys/class/net/{interface}/ifindex")).ok()?.trim().parse().ok()
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

    /// A message's payload: what precedes the attributes, and these.
    fn entry(head: [u8; HEAD_BYTES], attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = head.to_vec();
        for (kind, value) in attributes {
            bytes.extend(u16::try_from(value.len() + 4).expect("short").to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(*value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    fn octets(address: &str) -> Vec<u8> {
        match address.parse().expect("an address") {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        }
    }

    /// A route as the kernel tells it, from `network/prefix gateway interface metric`, with `-` for no gateway.
    fn route(line: &str) -> Vec<u8> {
        let words: Vec<&str> = line.split(' ').collect();
        let (network, prefix) = words[0].split_once('/').expect("a prefix");
        let family = if network.contains(':') { libc::AF_INET6 } else { libc::AF_INET };
        let mut head = [0; HEAD_BYTES];
        (head[0], head[1]) = (u8::try_from(family).expect("small"), prefix.parse().expect("a prefix"));
        (head[4], head[7]) = (libc::RT_TABLE_MAIN, libc::RTN_UNICAST);
        let number = |at: usize| words[at].parse::<u32>().expect("a number").to_ne_bytes();
        let (network, interface, metric) = (octets(network), number(2), number(3));
        let gateway = if words[1] == "-" { Vec::new() } else { octets(words[1]) };
        let mut attributes = vec![(libc::RTA_OIF, &interface[..]), (libc::RTA_PRIORITY, &metric[..])];
        attributes.extend((prefix != "0").then_some((libc::RTA_DST, &network[..])));
        attributes.extend((words[1] != "-").then_some((libc::RTA_GATEWAY, &gateway[..])));
        entry(head, &attributes)
    }

    /// The interfaces are 1 `lo`, 2 `eth0`, 3 `eth1`, 4 `eth2` and 5 `wwan0`.
    fn routes(lines: &[&str]) -> Routes {
        let names = ["lo", "eth0", "eth1", "eth2", "wwan0"];
        let names = (1..).zip(names.map(str::to_owned)).collect();
        let routes = lines.iter().map(|line| Route::parse(&route(line)).expect("a route")).collect();
        Routes { routes, names, ..Routes::default() }
    }

    const TABLE: [&str; 9] = [
        "0.0.0.0/0 10.10.20.1 2 100",
        "10.10.20.0/24 - 2 100",
        "0.0.0.0/0 192.168.0.1 5 700",
        "192.168.0.0/16 - 3 0",
        "192.168.1.0/24 - 4 0",
        "::/0 fe80::1 2 1024",
        "fd00:20::/64 - 2 256",
        "fe80::/64 - 2 256",
        "fe80::/64 - 3 256",
    ];

    fn asked(address: &str, via: Option<Via>) -> Asked {
        Asked { via, ..address.parse::<IpAddr>().expect("an address").into() }
    }

    #[test]
    fn the_closest_route_tells_the_interface_and_the_cheapest_the_gateway() {
        let routes = routes(&TABLE);
        for (address, interface, gateway) in [
            ("10.10.20.7", Some("eth0"), Some("10.10.20.1")),
            ("192.168.1.7", Some("eth2"), None),
            ("192.168.7.7", Some("eth1"), None),
            ("203.0.113.9", Some("eth0"), Some("10.10.20.1")),
            ("127.0.0.9", Some("lo"), None),
            ("fd00:20::7", Some("eth0"), Some("fe80::1")),
            ("2001:db8::7", Some("eth0"), Some("fe80::1")),
            ("fe80::7", None, None),
            ("::1", Some("lo"), None),
        ] {
            let asked = asked(address, None);
            let found = routes.gateway_beside(&asked);
            assert_eq!(routes.interface(&asked), interface, "{address}");
            assert_eq!(
                found.as_ref().map(|found| found.address),
                gateway.map(|text| text.parse().expect("an address")),
                "{address}"
            );
            let via = found.and_then(|found| found.via);
            assert_eq!(via, (gateway == Some("fe80::1")).then(|| Via::Interface("eth0".to_owned())), "{address}");
        }
        assert_eq!(Routes::default().gateway_beside(&asked("10.0.0.1", None)), None);
    }

    #[test]
    fn a_target_with_a_way_of_its_own_is_reached_by_that() {
        let routes = routes(&TABLE);
        let by_name = asked("fe80::7", Some(Via::Interface("wwan0".to_owned())));
        assert_eq!((routes.interface(&by_name), routes.gateway_beside(&by_name)), (Some("wwan0"), None));
        let by_line = asked("203.0.113.9", Some(Via::Interface("wwan0".to_owned())));
        assert_eq!(routes.gateway_beside(&by_line), Some(asked("192.168.0.1", None)));
        let by_source = asked("203.0.113.9", Some(Via::Source([192, 168, 1, 2].into())));
        assert_eq!((routes.interface(&by_source), routes.gateway_beside(&by_source)), (Some("eth2"), None));
        let from_nowhere = asked("203.0.113.9", Some(Via::Source([203, 0, 113, 1].into())));
        assert_eq!(routes.interface(&from_nowhere), None);
    }

    #[test]
    fn only_plain_routes_of_the_main_table_count_and_the_first_of_several_next_hops() {
        let plain = route("10.1.0.0/16 10.10.20.9 2 7");
        assert!(Route::parse(&plain).is_some());
        for (at, value) in [(2, 64), (4, 100), (7, 7), (9, 2)] {
            let mut other = plain.clone();
            other[at] = value;
            assert_eq!(Route::parse(&other), None, "byte {at}");
        }
        let mut head = [0; HEAD_BYTES];
        (head[0], head[4], head[7]) = (2, libc::RT_TABLE_MAIN, libc::RTN_UNICAST);
        let hop = |interface: u8, attributes: &[(u16, &[u8])]| {
            let attributes = entry([0; HEAD_BYTES], attributes).split_off(HEAD_BYTES);
            let length = u16::try_from(8 + attributes.len()).expect("short").to_ne_bytes();
            [&length[..], &[0, 0], &u32::from(interface).to_ne_bytes(), &attributes].concat()
        };
        let via = [&(libc::AF_INET6 as u16).to_ne_bytes()[..], &octets("fe80::9")].concat();
        let hops = [hop(3, &[(libc::RTA_VIA, &via)]), hop(4, &[(libc::RTA_GATEWAY, &[10, 0, 0, 1])])].concat();
        let found = Route::parse(&entry(head, &[(libc::RTA_MULTIPATH, &hops)])).expect("a route");
        assert_eq!((found.interface, found.gateway), (3, Some("fe80::9".parse().expect("an address"))));
    }

    #[test]
    fn the_machines_own_networks_are_those_without_a_gateway() {
        let routes = routes(&[&TABLE[..], &["127.0.0.0/8 - 1 0", "192.168.9.9/32 - 2 0"]].concat());
        let network = |text: &str| text.parse::<Ipv4Addr>().expect("an address");
        let own: Vec<_> = routes.own_networks().collect();
        assert_eq!(own, [(network("10.10.20.0"), 24), (network("192.168.0.0"), 16), (network("192.168.1.0"), 24)]);
    }

    /// What the kernel says of a box.
    fn told(address: &str, interface: u8, state: u16, mac: &[u8]) -> Vec<u8> {
        let mut head = [0; HEAD_BYTES];
        head[4..8].copy_from_slice(&u32::from(interface).to_ne_bytes());
        head[8..10].copy_from_slice(&state.to_ne_bytes());
        entry(head, &[(libc::NDA_DST, &octets(address)), (libc::NDA_CACHEINFO, &[0; 16]), (libc::NDA_LLADDR, mac)])
    }

    #[test]
    fn a_box_counts_once_it_has_answered_for_its_address() {
        let mac = |last| [2, 0, 0x5e, 0x10, 0, last];
        let mut neighbours = Neighbours::default();
        for (address, interface, state, mac) in [
            ("10.10.20.7", 2, libc::NUD_REACHABLE, &mac(7)[..]),
            ("10.10.20.8", 2, libc::NUD_INCOMPLETE, &[0; 6]),
            ("10.10.20.9", 2, libc::NUD_PERMANENT, &mac(9)),
            ("10.10.20.10", 2, libc::NUD_FAILED, &mac(10)),
            ("10.10.20.11", 2, libc::NUD_STALE, &[0; 6]),
            ("10.10.20.12", 2, libc::NUD_STALE, &[1; 20]),
            ("ff02::1", 2, libc::NUD_NOARP, &mac(1)),
            ("fd00:20::7", 2, libc::NUD_STALE, &mac(17)),
            ("fe80::7", 2, libc::NUD_DELAY, &mac(27)),
            ("fe80::8", 1, libc::NUD_PROBE, &mac(28)),
            ("fe80::8", 2, libc::NUD_REACHABLE, &mac(29)),
        ] {
            neighbours.add(&told(address, interface, state, mac));
        }
        let known =
            |address: &str, interface| neighbours.mac(address.parse().expect("an address"), interface).map(|mac| mac.0[5]);
        assert_eq!(["10.10.20.7", "10.10.20.9", "fd00:20::7", "fe80::7"].map(|at| known(at, None)), [7, 9, 17, 27].map(Some));
        let unknown = ["10.10.20.8", "10.10.20.10", "10.10.20.11", "10.10.20.12", "ff02::1", "10.10.20.1"];
        assert_eq!(unknown.map(|at| known(at, None)), [None; 6]);
        // Two links with a box of the same address each.
        assert_eq!(
            (known("fe80::8", None), known("fe80::8", Some("lo")), known("fe80::8", Some("nonesuch0"))),
            (None, Some(28), None)
        );
    }

    #[test]
    fn entries_that_are_cut_off_or_bent_are_none() {
        let entries = [route("fd00:1::/64 fe80::1 2 7"), told("fd00:1::7", 2, libc::NUD_REACHABLE, &[2; 6])];
        for entry in &entries {
            // The last two are what fills up to a whole word, or missed just as well.
            for len in 0..entry.len() - 2 {
                let (cut, mut neighbours) = (&entry[..len], Neighbours::default());
                neighbours.add(cut);
                // What the kernel tells last may be missing: that a route has a gateway.
                let route = Route::parse(cut).filter(|route| route.gateway.is_some() || route.prefix != 64);
                assert!(neighbours.0.is_empty() && route.is_none(), "{len} bytes: {route:?}");
            }
            for at in 0..entry.len() {
                for value in [0, 1, 3, 0x7f, 0xff] {
                    let mut bent = entry.clone();
                    bent[at] = value;
                    Neighbours::default().add(&bent);
                    if let Some(route) = Route::parse(&bent) {
                        assert!(!route.holds([10, 0, 0, 1].into()) || route.prefix == 0, "{route:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn loopback_always_has_a_carrier_and_nothing_is_known_of_what_is_not_there() {
        assert_eq!((carrier("lo"), carrier("nonesuch0")), (Some(true), None));
    }
}

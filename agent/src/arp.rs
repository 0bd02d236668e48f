//! Which boxes answer for an address, asked by the agent itself.
//!
//! The kernel asks the box that it already knows, and keeps one: another that has taken a device's place, or stands beside
//! it, goes unnoticed until the first falls silent. A question to everybody shows all who answer, and what they say corrects
//! the kernel's table as well. It takes `CAP_NET_RAW`; without it, and for IPv6, the kernel's tables have to do.

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use shared::Mac;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use crate::surroundings::interface_number;

/// Bytes of a question or an answer: RFC 826 over Ethernet, for IPv4.
const PACKET_BYTES: usize = 28;
/// Hardware and protocol, with the lengths of their addresses: Ethernet and IPv4.
const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
/// What a packet is.
const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];
/// Most packets that are taken in one go: a network that floods must not hold probes up.
const TAKEN_LIMIT: usize = 1_000;
/// ARP, as Ethernet calls it, in the order of the network.
const PROTOCOL: u16 = (libc::ETH_P_ARP as u16).to_be();

/// Where questions are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    number: u32,
    mac: Mac,
}

/// See the module.
pub struct Arp {
    socket: Socket,
    /// By the interface's name, as long as it is the same one.
    places: HashMap<String, Place>,
}

/// An answer: who stands at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The address.
    pub address: Ipv4Addr,
    /// Who has answered for it.
    pub mac: Mac,
    /// Whom it was told: our interface.
    told: Mac,
}

impl Arp {
    /// Opens the socket.
    ///
    /// # Errors
    /// When that isn't permitted.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(i32::from(PROTOCOL))))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, places: HashMap::new() })
    }

    /// Asks everybody behind an interface who stands at an address.
    ///
    /// # Errors
    /// When the interface is gone, isn't Ethernet, or takes nothing.
    pub fn ask(&mut self, interface: &str, address: Ipv4Addr) -> io::Result<()> {
        let number = interface_number(interface).ok_or(io::ErrorKind::NotFound)?;
        let place = match self.places.get(interface).filter(|place| place.number == number) {
            Some(place) => *place,
            None => {
                let mac = own_mac(interface).ok_or(io::ErrorKind::Unsupported)?;
                let place = Place { number, mac };
                self.places.insert(interface.to_owned(), place);
                place
            }
        };
        self.socket.send_to(&question(place.mac, own_address(address)?, address), &everybody(number))?;
        Ok(())
    }

    /// Hands on what was answered since the last time.
    pub fn answers(&self, mut each: impl FnMut(Answer)) {
        let mut packet = [0; PACKET_BYTES];
        for _ in 0..TAKEN_LIMIT {
            // A frame is padded to 60 bytes: what is beyond is cut off.
            let Ok(got) = (&self.socket).read(&mut packet) else { return };
            let answer = packet.get(..got).and_then(parse);
            if let Some(answer) = answer.filter(|answer| self.places.values().any(|place| place.mac == answer.told)) {
                each(answer);
            }
        }
    }
}

/// The address from which another is asked.
fn own_address(to: Ipv4Addr) -> io::Result<Ipv4Addr> {
    // Nothing is sent: this only has the kernel choose a way.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((to, 9))?;
    match socket.local_addr()?.ip() {
        IpAddr::V4(own) => Ok(own),
        IpAddr::V6(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn own_mac(interface: &str) -> Option<Mac> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{interface}/address")).ok()?;
    text.trim().parse().ok().filter(|mac| *mac != Mac([0; 6]))
}

fn question(from: Mac, own: Ipv4Addr, asked: Ipv4Addr) -> [u8; PACKET_BYTES] {
    let mut packet = [0; PACKET_BYTES];
    packet[..6].copy_from_slice(&KIND);
    packet[6..8].copy_from_slice(&REQUEST);
    packet[8..14].copy_from_slice(&from.0);
    packet[14..18].copy_from_slice(&own.octets());
    packet[24..].copy_from_slice(&asked.octets());
    packet
}

/// What a packet answers, if it is an answer.
pub fn parse(packet: &[u8]) -> Option<Answer> {
    let packet: &[u8; PACKET_BYTES] = packet.first_chunk()?;
    if packet[..6] != KIND || packet[6..8] != REPLY {
        return None;
    }
    let mac = |at: usize| Some(Mac(*packet.get(at..)?.first_chunk()?));
    let address = Ipv4Addr::from(*packet.get(14..)?.first_chunk::<4>()?);
    let answer = Answer { address, mac: mac(8)?, told: mac(18)? };
    // A group is nobody's box.
    (answer.mac != Mac([0; 6]) && answer.mac.0[0] & 1 == 0).then_some(answer)
}

/// Everybody behind an interface.
fn everybody(interface: u32) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    #[expect(unsafe_code, reason = "socket2 has no constructor for such an address")]
    // SAFETY: `sockaddr_ll` is plain data and smaller than the storage that it is written to, and as long as is said.
    unsafe {
        let link = storage.view_as::<libc::sockaddr_ll>();
        link.sll_family = libc::AF_PACKET as libc::sa_family_t;
        link.sll_protocol = PROTOCOL;
        link.sll_ifindex = libc::c_int::try_from(interface).unwrap_or(0);
        link.sll_halen = 6;
        link.sll_addr = [255, 255, 255, 255, 255, 255, 0, 0];
        SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const BOX: Mac = Mac([2, 0, 0, 0, 0, 7]);

    fn reply() -> [u8; PACKET_BYTES] {
        let mut packet = question(BOX, [10, 0, 0, 7].into(), [10, 0, 0, 1].into());
        packet[6..8].copy_from_slice(&REPLY);
        packet[18..24].copy_from_slice(&OWN.0);
        packet
    }

    #[test]
    fn an_answer_tells_who_stands_at_an_address() {
        assert_eq!(parse(&reply()), Some(Answer { address: [10, 0, 0, 7].into(), mac: BOX, told: OWN }));
    }

    #[test]
    fn what_is_no_answer_or_of_no_box_is_left() {
        assert_eq!(parse(&question(BOX, [10, 0, 0, 7].into(), [10, 0, 0, 1].into())), None);
        for (at, value) in [(1, 6), (3, 1), (4, 8), (7, 3), (8, 3)] {
            let mut packet = reply();
            packet[at] = value;
            assert_eq!(parse(&packet), None, "byte {at}");
        }
        for length in 0..PACKET_BYTES {
            assert_eq!(parse(&reply()[..length]), None);
        }
    }
}

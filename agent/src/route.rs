//! By which routers an address is reached: packets that may take one hop, two, three, and who says that they went no further.
//!
//! Asked by UDP, whose sockets hear what routers say of their packets without any permission. Whether the target itself is
//! reached is asked by ICMP as well: many a device says nothing of a closed port.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use shared::message::{HOPS_LIMIT, Hop, Via};
use socket2::{Domain, Protocol, Socket, Type};

use crate::clock;
use crate::echo::Echo;
use crate::monitor::Outcome;

/// How long a router may take over its answer.
const PATIENCE: Duration = Duration::from_millis(800);
/// Routers in a row that say nothing after which nobody further on is expected to.
const SILENT_LIMIT: usize = 5;
/// The first of the ports that nobody listens on; each hop has its own.
const PORT: u16 = 33_434;
/// How often a socket is looked at for what routers say.
const LOOK: Duration = Duration::from_millis(10);

/// The way to an address, hop by hop; the last is the address itself where it was reached.
///
/// # Errors
/// When no socket can be opened.
pub async fn trace(address: IpAddr, via: Option<&Via>) -> io::Result<Vec<Hop>> {
    let mut hops: Vec<Hop> = Vec::new();
    for ttl in 1..=u8::try_from(HOPS_LIMIT).unwrap_or(u8::MAX) {
        let echo = Echo::open_with_ttl(address.is_ipv4(), via, ttl)?;
        let (outcome, router) = futures_util::future::join(echo.probe(address, PATIENCE), ask(address, via, ttl)).await;
        let hop = match (outcome, router?) {
            (Outcome::Reply { rtt_us }, _) => Hop { ttl, address: Some(address), rtt_us: Some(rtt_us) },
            (_, Some((router, rtt_us))) => Hop { ttl, address: Some(router), rtt_us: Some(rtt_us) },
            (_, None) => Hop { ttl, address: None, rtt_us: None },
        };
        hops.push(hop);
        let silent = hops.iter().rev().take_while(|hop| hop.address.is_none()).count();
        if hop.address == Some(address) || silent >= SILENT_LIMIT {
            break;
        }
    }
    Ok(hops)
}

/// Sends a packet that may take `ttl` hops; who said what became of it, and after how many µs.
async fn ask(address: IpAddr, via: Option<&Via>, ttl: u8) -> io::Result<Option<(IpAddr, u32)>> {
    let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    match address {
        IpAddr::V4(_) => socket.set_ttl_v4(ttl.into())?,
        IpAddr::V6(_) => socket.set_unicast_hops_v6(ttl.into())?,
    }
    match via {
        None => {}
        Some(Via::Source(source)) => socket.bind(&SocketAddr::new(*source, 0).into())?,
        Some(Via::Interface(name)) => socket.bind_device(Some(name.as_bytes()))?,
    }
    hear_errors(&socket, address)?;
    let began = clock::monotonic_ns();
    // One that this machine can't send is the same as one that nobody hears of.
    if socket.send_to(b"ward", &SocketAddr::new(address, PORT + u16::from(ttl)).into()).is_err() {
        return Ok(None);
    }
    loop {
        let elapsed = clock::monotonic_ns() - began;
        if let Some(router) = error_from(&socket) {
            return Ok(Some((router, u32::try_from(elapsed / 1_000).unwrap_or(u32::MAX))));
        }
        if Duration::from_nanos(elapsed) >= PATIENCE {
            return Ok(None);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Lets a socket keep what routers say of its packets.
fn hear_errors(socket: &Socket, address: IpAddr) -> io::Result<()> {
    let (level, option) = if address.is_ipv4() { (libc::SOL_IP, libc::IP_RECVERR) } else { (libc::SOL_IPV6, libc::IPV6_RECVERR) };
    let on = 1i32;
    let size = libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(0);
    // SAFETY: the descriptor is open, and `on` has `size` bytes that the kernel only reads.
    #[expect(unsafe_code, reason = "no safe wrapper sets this option")]
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), size) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Who said that a packet of this socket went no further, if anybody did.
fn error_from(socket: &Socket) -> Option<IpAddr> {
    let mut control = [0u64; 64];
    let mut byte = [0u8; 64];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: byte.len() };
    // SAFETY: zeroes are a valid header that points to nothing; it is then pointed to room that outlives the call, with its
    // true size. What the kernel has written is read only where its own lengths say that it is there.
    #[expect(unsafe_code, reason = "no safe wrapper reads a socket's errors")]
    unsafe {
        let mut head: libc::msghdr = std::mem::zeroed();
        head.msg_iov = &raw mut part;
        head.msg_iovlen = 1;
        head.msg_control = control.as_mut_ptr().cast();
        head.msg_controllen = size_of_val(&control) as _;
        if libc::recvmsg(socket.as_raw_fd(), &raw mut head, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) < 0 {
            return None;
        }
        let mut next = libc::CMSG_FIRSTHDR(&raw const head);
        while let Some(found) = next.as_ref() {
            // The error, and the address of who told of it.
            let error = libc::CMSG_DATA(next).cast::<libc::sock_extended_err>();
            let said_by = error.wrapping_add(1);
            let holds = |address_bytes: usize| {
                found.cmsg_len >= libc::CMSG_LEN((size_of::<libc::sock_extended_err>() + address_bytes) as _) as usize
            };
            match (found.cmsg_level, found.cmsg_type) {
                (libc::SOL_IP, libc::IP_RECVERR) if holds(size_of::<libc::sockaddr_in>()) => {
                    let said_by = said_by.cast::<libc::sockaddr_in>().read_unaligned();
                    let is_icmp = error.read_unaligned().ee_origin == libc::SO_EE_ORIGIN_ICMP;
                    if is_icmp && i32::from(said_by.sin_family) == libc::AF_INET {
                        return Some(Ipv4Addr::from(u32::from_be(said_by.sin_addr.s_addr)).into());
                    }
                }
                (libc::SOL_IPV6, libc::IPV6_RECVERR) if holds(size_of::<libc::sockaddr_in6>()) => {
                    let said_by = said_by.cast::<libc::sockaddr_in6>().read_unaligned();
                    let is_icmp = error.read_unaligned().ee_origin == libc::SO_EE_ORIGIN_ICMP6;
                    if is_icmp && i32::from(said_by.sin6_family) == libc::AF_INET6 {
                        return Some(Ipv6Addr::from(said_by.sin6_addr.s6_addr).into());
                    }
                }
                _ => {}
            }
            next = libc::CMSG_NXTHDR(&raw const head, next);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_next_door_is_one_hop_away() {
        for address in [IpAddr::from([127, 0, 0, 7]), Ipv6Addr::LOCALHOST.into()] {
            let hops = trace(address, None).await.expect("the tests need an ICMP socket: run them as root, or permit it");
            assert_eq!((hops.len(), hops[0].ttl, hops[0].address), (1, 1, Some(address)));
            // A closed port says so by itself.
            let said = ask(address, None, 1).await.expect("a socket");
            assert_eq!(said.map(|(router, _)| router), Some(address));
        }
    }
}

//! One probe to one address: real ICMP by surge-ping, or an answer made up where the machine permits no ICMP.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use surge_ping::{Client, ICMP, IcmpPacket, PingIdentifier, PingSequence, SurgeError};

use crate::monitor::Outcome;

/// Asks an address whether it is there.
pub trait Prober: Send + Sync + 'static {
    /// Sends one probe and waits for its reply, at most `timeout`.
    fn probe(&self, address: IpAddr, sequence: u16, timeout: Duration) -> impl Future<Output = Outcome> + Send;

    /// Replies that were lost since the start because nobody read them in time.
    fn receive_drops(&self) -> u64;
}

/// Bytes after the ICMP header, as ping(8) sends.
const PAYLOAD: [u8; 56] = *b"ward echo request; if you can read this, the link is up.";

/// Room for replies that wait to be read, in bytes. The kernel's default holds 256 of them.
const RECEIVE_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// How the machine lets us send ICMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketKind {
    /// A datagram socket, permitted by `net.ipv4.ping_group_range`.
    Datagram,
    /// A raw socket, permitted by `CAP_NET_RAW`.
    Raw,
}

impl SocketKind {
    /// The kind and what permits it, for the log.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Datagram => "datagram socket, permitted by net.ipv4.ping_group_range",
            Self::Raw => "raw socket, permitted by CAP_NET_RAW",
        }
    }
}

/// What to do where ICMP isn't permitted.
pub const PERMIT_HINT: &str = "sudo sysctl -w net.ipv4.ping_group_range='0 2147483647'";

/// Real ICMP echo, one socket a family for all targets.
pub struct Icmp {
    v4: Client,
    // A machine without IPv6 can still probe IPv4.
    v6: Option<Client>,
    // On a raw socket every process sees every reply: the identifier tells two agents on one host apart.
    identifier: PingIdentifier,
    kind: SocketKind,
}

impl Icmp {
    /// Opens the sockets.
    ///
    /// # Errors
    /// When neither a datagram nor a raw socket is permitted; [`PERMIT_HINT`] says how to permit one.
    pub fn open() -> io::Result<Self> {
        let v4 = client(ICMP::V4)?;
        let kind = if v4.get_socket().get_type() == socket2::Type::RAW { SocketKind::Raw } else { SocketKind::Datagram };
        Ok(Self { v4, v6: client(ICMP::V6).ok(), identifier: PingIdentifier(rand::random()), kind })
    }

    /// Which kind of socket the machine permitted.
    pub fn kind(&self) -> SocketKind {
        self.kind
    }
}

fn client(family: ICMP) -> io::Result<Client> {
    let client = Client::new(&surge_ping::Config::builder().kind(family).build())?;
    let socket = client.get_socket();
    // The descriptor belongs to `client`, which outlives this borrow.
    #[expect(unsafe_code, reason = "surge-ping exposes its socket only as a number")]
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(socket.get_native_sock()) };
    socket2::SockRef::from(&borrowed).set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    Ok(client)
}

impl Prober for Icmp {
    async fn probe(&self, address: IpAddr, sequence: u16, timeout: Duration) -> Outcome {
        let client = match address {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => match &self.v6 {
                Some(client) => client,
                None => return Outcome::SendError,
            },
        };
        let mut pinger = client.pinger(address, self.identifier).await;
        match pinger.timeout(timeout).ping(PingSequence(sequence), &PAYLOAD).await {
            Ok((packet, rtt)) if is_echo_reply(&packet) => {
                Outcome::Reply { rtt_us: u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX) }
            }
            // A raw socket also hands over what routers say instead of a reply.
            Ok(_) => Outcome::Unreachable,
            Err(SurgeError::Timeout { .. }) => Outcome::Timeout,
            Err(error) => {
                tracing::trace!(%address, %error, "a probe could not be sent");
                Outcome::SendError
            }
        }
    }

    fn receive_drops(&self) -> u64 {
        [Some(&self.v4), self.v6.as_ref()].into_iter().flatten().map(drops).sum()
    }
}

/// What the kernel has dropped of a client's socket, by its own tables.
fn drops(client: &Client) -> u64 {
    let descriptor = client.get_socket().get_native_sock();
    let Ok(link) = std::fs::read_link(format!("/proc/self/fd/{descriptor}")) else { return 0 };
    let inode = link.to_string_lossy().trim_start_matches("socket:[").trim_end_matches(']').to_owned();
    let tables = ["icmp", "icmp6", "raw", "raw6"].map(|table| std::fs::read_to_string(format!("/proc/net/{table}")));
    tables.iter().flatten().find_map(|table| drops_in(table, &inode)).unwrap_or(0)
}

/// The drop count of a socket in one of the kernel's tables: the inode is the tenth column, drops the last.
fn drops_in(table: &str, inode: &str) -> Option<u64> {
    let mut rows = table.lines().skip(1).map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    rows.find(|row| row.get(9) == Some(&inode))?.last()?.parse().ok()
}

fn is_echo_reply(packet: &IcmpPacket) -> bool {
    // RFC 792 and RFC 4443.
    const ECHO_REPLY: u8 = 0;
    const ECHO_REPLY_V6: u8 = 129;
    match packet {
        IcmpPacket::V4(packet) => packet.get_icmp_type().0 == ECHO_REPLY,
        IcmpPacket::V6(packet) => packet.get_icmpv6_type().0 == ECHO_REPLY_V6,
    }
}

/// Answers for a machine that permits no ICMP. Whoever shows what it says must say that it is made up.
pub struct Simulated;

impl Prober for Simulated {
    async fn probe(&self, address: IpAddr, sequence: u16, timeout: Duration) -> Outcome {
        let mut seed = address.to_string().into_bytes();
        seed.extend(sequence.to_le_bytes());
        let rtt_us = 200 + crc32fast::hash(&seed) % 800;
        tokio::time::sleep(Duration::from_micros(rtt_us.into()).min(timeout)).await;
        Outcome::Reply { rtt_us }
    }

    fn receive_drops(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_tells_what_a_socket_has_dropped() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
                        1: 00000000:0001 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 12\n";
        assert_eq!(drops_in(table, "4711"), Some(12));
        assert_eq!(drops_in(table, "4712"), None);
    }

    #[tokio::test]
    async fn this_machine_answers_itself_and_what_cannot_be_sent_is_no_answer() {
        let icmp = Icmp::open().expect("the tests need an ICMP socket: run them as root, or permit it");
        let outcome = icmp.probe([127, 1, 2, 3].into(), 1, Duration::from_secs(2)).await;
        assert!(matches!(outcome, Outcome::Reply { rtt_us: 1.. }), "{outcome:?}");
        // The kernel refuses to send to everybody, which says nothing of a device.
        assert_eq!(icmp.probe([255; 4].into(), 1, Duration::from_millis(50)).await, Outcome::SendError);
        assert_eq!(icmp.receive_drops(), 0);
    }
}

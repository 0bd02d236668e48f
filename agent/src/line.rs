//! The TCP connection under MQTT: how long it may hang, and what it has carried.
//!
//! The MQTT client keeps its socket to itself, so it is found among the program's own.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use socket2::{SockRef, Socket, Type};

/// Bytes without an answer for so long end a connection. Without this the kernel tries for a quarter of an hour.
const HANG_LIMIT: Duration = Duration::from_secs(20);

/// Offsets in the kernel's `struct tcp_info`, which only grows at its end.
const BYTES_RECEIVED: usize = 128;
const SEGMENTS_OUT: usize = 136;
const SEGMENTS_IN: usize = 140;
const BYTES_SENT: usize = 200;
/// Bytes of a TCP header with time stamps, as Linux sends it.
const TCP_HEADER_BYTES: u64 = 32;

/// What a connection has carried, headers included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried {
    /// Bytes sent, repetitions included.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
}

/// A connection's socket, beside the one that the MQTT client holds.
pub struct Line {
    socket: Socket,
    ip_header_bytes: u64,
    told: Carried,
}

impl Line {
    /// The program's one connection to a port, and from now on it doesn't hang for long. `None` where there are several:
    /// agents that share a process can't be told apart.
    pub fn to_port(port: u16) -> Option<Self> {
        let mut found = own_sockets().into_iter().filter(|socket| {
            let peer = socket.peer_addr().ok().and_then(|address| address.as_socket());
            socket.r#type().ok() == Some(Type::STREAM) && peer.is_some_and(|peer| peer.port() == port)
        });
        let (socket, None) = (found.next()?, found.next()) else { return None };
        let is_v4 = socket.peer_addr().ok()?.is_ipv4();
        if let Err(error) = socket.set_tcp_user_timeout(Some(HANG_LIMIT)) {
            tracing::warn!(%error, "a connection that hangs will be noticed late");
            return None;
        }
        Some(Self { socket, ip_header_bytes: if is_v4 { 20 } else { 40 }, told: Carried::default() })
    }

    /// What it has carried since this was asked last.
    pub fn carried(&mut self) -> Carried {
        let Some(now) = self.carried_in_all() else { return Carried::default() };
        let before = std::mem::replace(&mut self.told, now);
        Carried { sent: now.sent.saturating_sub(before.sent), received: now.received.saturating_sub(before.received) }
    }

    fn carried_in_all(&self) -> Option<Carried> {
        let info = tcp_info(&self.socket)?;
        let wide = |at: usize| Some(u64::from_ne_bytes(info.get(at..at + 8)?.try_into().ok()?));
        let narrow = |at: usize| Some(u64::from(u32::from_ne_bytes(info.get(at..at + 4)?.try_into().ok()?)));
        let headers = |segments: u64| segments * (TCP_HEADER_BYTES + self.ip_header_bytes);
        Some(Carried {
            sent: wide(BYTES_SENT)? + headers(narrow(SEGMENTS_OUT)?),
            received: wide(BYTES_RECEIVED)? + headers(narrow(SEGMENTS_IN)?),
        })
    }
}

/// The sockets of this program, each opened once more.
fn own_sockets() -> Vec<Socket> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let is_socket = |entry: &std::fs::DirEntry| {
        std::fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    };
    let numbers: Vec<i32> =
        entries.flatten().filter(is_socket).filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    numbers.into_iter().filter_map(duplicate).collect()
}

fn duplicate(number: i32) -> Option<Socket> {
    // SAFETY: the number is borrowed for this one call. One that was closed since is an error of it, and one that was
    // given out anew is another socket or file of this program, of which a duplicate does no harm.
    #[expect(unsafe_code, reason = "the MQTT client doesn't hand its socket out")]
    let socket = unsafe { BorrowedFd::borrow_raw(number) };
    SockRef::from(&socket).try_clone().ok()
}

fn tcp_info(socket: &Socket) -> Option<Vec<u8>> {
    let mut info = vec![0u8; 512];
    let mut length = libc::socklen_t::try_from(info.len()).ok()?;
    // SAFETY: the kernel writes at most `length` bytes to `info`, which has as many, and then sets `length` to what it wrote.
    #[expect(unsafe_code, reason = "no safe wrapper reads as much of TCP_INFO as counts bytes")]
    let answer = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut length)
    };
    info.truncate(usize::try_from(length).unwrap_or(0));
    (answer == 0).then_some(info)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_is_found_by_its_port_and_its_bytes_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        assert!(Line::to_port(port).is_none(), "nobody is connected yet");
        let mut client = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        let (mut server, _) = listener.accept().expect("it came");
        let mut line = Line::to_port(port).expect("one connection");
        assert_eq!(line.socket.tcp_user_timeout().expect("readable"), Some(HANG_LIMIT));
        line.carried();
        client.write_all(&[7; 10_000]).expect("sent");
        server.read_exact(&mut [0; 10_000]).expect("received");
        server.write_all(&[7; 100]).expect("sent");
        client.read_exact(&mut [0; 100]).expect("received");
        let carried = line.carried();
        assert!((10_000 + 52..12_000).contains(&carried.sent), "{carried:?}");
        assert!((100 + 52..2_000).contains(&carried.received), "{carried:?}");
        let second = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        assert!(Line::to_port(port).is_none(), "which of the two is it?");
        drop(second);
    }
}

//! Probes that ask a service: a TCP connection, an HTTP request, a DNS question.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use shared::message::{Probe, Via};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::clock;
use crate::monitor::Outcome;
use crate::probe::Asked;
use crate::tls;

/// Longest status line of an HTTP answer in bytes.
const STATUS_LIMIT_BYTES: usize = 512;
/// Longest DNS answer over UDP in bytes that is looked at.
const DNS_LIMIT_BYTES: usize = 1_500;

/// What came of asking a service.
enum Came {
    /// The answer that was wanted.
    Answer,
    /// Another: the service is there and isn't well.
    Other,
    /// Nothing left this machine, which says nothing of the service.
    Nothing(io::Error),
}

/// Asks a service once.
pub async fn probe(asked: &Asked, timeout: Duration) -> Outcome {
    let began = clock::monotonic_ns();
    let outcome = tokio::time::timeout(timeout, ask(asked)).await;
    let rtt_us = u32::try_from((clock::monotonic_ns() - began).div_ceil(1_000)).unwrap_or(u32::MAX);
    match outcome {
        Err(_) => Outcome::Timeout,
        Ok(Ok(Came::Answer)) => Outcome::Reply { rtt_us },
        Ok(Ok(Came::Other)) => Outcome::Unreachable,
        Ok(Ok(Came::Nothing(error))) => {
            tracing::trace!(address = %asked.address, %error, "a service could not be asked");
            Outcome::SendError
        }
        // Whatever goes wrong once the question has left is said by somebody on the way, or by the kernel that finds nobody there.
        Ok(Err(error)) => {
            tracing::trace!(address = %asked.address, error = format!("{error:#}"), "a service was asked in vain");
            Outcome::Unreachable
        }
    }
}

async fn ask(asked: &Asked) -> anyhow::Result<Came> {
    match &asked.probe {
        Probe::Icmp => bail!("an echo asks no service"),
        Probe::Tcp { port } => match begin(asked, *port) {
            Ok(begun) => connected(begun).await.map(|_| Came::Answer).context("connecting"),
            Err(error) => Ok(Came::Nothing(error)),
        },
        Probe::Http { is_tls, port, path, status } => {
            let stream = match begin(asked, *port) {
                Ok(begun) => connected(begun).await?,
                Err(error) => return Ok(Came::Nothing(error)),
            };
            let host = asked.name.as_deref().map_or_else(|| host_of(asked.address), str::to_owned);
            let code = if *is_tls {
                let stream = tls::to_anybody(asked.name.as_deref(), asked.address, stream).await?;
                request(stream, &host, path).await?
            } else {
                request(stream, &host, path).await?
            };
            Ok(if (status.0..=status.1).contains(&code) { Came::Answer } else { Came::Other })
        }
        Probe::Dns { port, name } => look_up(asked, *port, name).await,
    }
}

/// An address as it stands in a request's `Host`.
fn host_of(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// Begins to connect. What fails here is this machine's own: no permission, no such way, no route, no files left.
fn begin(asked: &Asked, port: u16) -> io::Result<std::net::TcpStream> {
    let socket = open(asked, Type::STREAM, Protocol::TCP)?;
    // Without a farewell that would leave a port waiting for a minute, on either side, each time.
    socket.set_linger(Some(Duration::ZERO))?;
    match socket.connect(&SocketAddr::new(asked.address, port).into()) {
        // Nobody listens at an address of this machine's own: that is the answer.
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) && error.kind() != io::ErrorKind::ConnectionRefused => {
            Err(error)
        }
        Ok(()) | Err(_) => Ok(socket.into()),
    }
}

/// A socket that takes the target's way out.
fn open(asked: &Asked, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(if asked.address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 }, kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    match &asked.via {
        None => {}
        Some(Via::Source(source)) => socket.bind(&SocketAddr::new(*source, 0).into())?,
        Some(Via::Interface(name)) => socket.bind_device(Some(name.as_bytes()))?,
    }
    Ok(socket)
}

/// Waits until a connection that was begun is there.
async fn connected(begun: std::net::TcpStream) -> io::Result<TcpStream> {
    let stream = TcpStream::from_std(begun)?;
    stream.writable().await?;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => stream.peer_addr().map(|_| stream),
    }
}

/// Sends a request; the status of its answer.
async fn request(mut stream: impl AsyncRead + AsyncWrite + Unpin, host: &str, path: &str) -> anyhow::Result<u16> {
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: ward-agent/{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        crate::VERSION
    );
    stream.write_all(head.as_bytes()).await?;
    stream.flush().await?;
    let mut line = Vec::new();
    loop {
        let mut part = [0; 128];
        let got = stream.read(&mut part).await?;
        line.extend_from_slice(&part[..got]);
        if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            line.truncate(end);
            break;
        }
        if got == 0 || line.len() > STATUS_LIMIT_BYTES {
            bail!("no status line");
        }
    }
    parse_status(&line).context("a status line that isn't HTTP's")
}

/// The code of a status line such as `HTTP/1.1 200 OK`.
pub fn parse_status(line: &[u8]) -> Option<u16> {
    let mut words = std::str::from_utf8(line).ok()?.trim_end().split(' ');
    words.next()?.strip_prefix("HTTP/1.")?;
    words.next().filter(|code| code.len() == 3)?.parse().ok().filter(|code| (100..600).contains(code))
}

/// Asks a DNS server for the address of a name.
async fn look_up(asked: &Asked, port: u16, name: &str) -> anyhow::Result<Came> {
    let server = SocketAddr::new(asked.address, port);
    // Only this server's answers come to a connected socket.
    let bound = open(asked, Type::DGRAM, Protocol::UDP).and_then(|socket| socket.connect(&server.into()).map(|()| socket));
    let socket = match bound.and_then(|socket| UdpSocket::from_std(socket.into())) {
        Ok(socket) => socket,
        Err(error) => return Ok(Came::Nothing(error)),
    };
    let id = rand::random();
    let question = question(id, name).context("a name that can't be asked for")?;
    if let Err(error) = socket.send(&question).await {
        return Ok(Came::Nothing(error));
    }
    loop {
        let mut answer = [0; DNS_LIMIT_BYTES];
        let got = socket.recv(&mut answer).await?;
        match judge(&question, &answer[..got]) {
            // One to another question: what was asked before, or somebody who guesses.
            None => {}
            Some(true) => return Ok(Came::Answer),
            Some(false) => return Ok(Came::Other),
        }
    }
}

/// A question for the address of a name (RFC 1035); nothing for a name that no server can be asked for.
pub fn question(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut packet = Vec::with_capacity(name.len() + 18);
    packet.extend(id.to_be_bytes());
    // Recursion desired; one question.
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        let len = u8::try_from(label.len()).ok().filter(|len| (1..64).contains(len))?;
        packet.push(len);
        packet.extend(label.as_bytes());
    }
    // The root; type A, class IN.
    packet.extend([0, 0, 1, 0, 1]);
    Some(packet)
}

/// Whether an answer says that the name is known; nothing where it is to another question.
pub fn judge(question: &[u8], answer: &[u8]) -> Option<bool> {
    const IS_ANSWER: u8 = 0x80;
    let (asked, told) = (question.get(12..)?, answer.get(12..question.len())?);
    let is_ours = answer[..2] == question[..2] && answer[2] & IS_ANSWER != 0 && told.eq_ignore_ascii_case(asked);
    is_ours.then_some(answer[3] & 0x0f == 0)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn asked(probe: Probe) -> Asked {
        Asked { probe, ..Asked::from(IpAddr::from([127, 0, 0, 1])) }
    }

    #[tokio::test]
    async fn a_port_that_is_open_answers_and_one_that_is_closed_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        assert!(matches!(probe(&asked(Probe::Tcp { port }), SOON).await, Outcome::Reply { .. }));
        drop(listener);
        assert_eq!(probe(&asked(Probe::Tcp { port }), SOON).await, Outcome::Unreachable);
    }

    #[tokio::test]
    async fn a_way_out_that_is_not_there_says_nothing_of_the_device() {
        let via = Some(Via::Source([10, 255, 255, 254].into()));
        let asked = Asked { via, ..asked(Probe::Tcp { port: 9 }) };
        assert_eq!(probe(&asked, SOON).await, Outcome::SendError);
    }

    #[tokio::test]
    async fn only_a_wanted_status_is_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            for line in ["HTTP/1.1 200 OK\r\n", "HTTP/1.0 503 No\r\n", "SSH-2.0-x\r\n"] {
                let (mut stream, _) = listener.accept().await.expect("a caller");
                let mut head = [0; 1024];
                let got = stream.read(&mut head).await.expect("a request");
                let head = String::from_utf8_lossy(&head[..got]).into_owned();
                assert!(head.starts_with("GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\n"), "{head}");
                stream.write_all(line.as_bytes()).await.expect("it listens");
            }
            let (_held, _) = listener.accept().await.expect("a caller");
            std::future::pending::<()>().await;
        });
        let http = asked(Probe::Http { is_tls: false, port, path: "/live".into(), status: (200, 399) });
        assert!(matches!(probe(&http, SOON).await, Outcome::Reply { .. }));
        assert_eq!(probe(&http, SOON).await, Outcome::Unreachable);
        assert_eq!(probe(&http, SOON).await, Outcome::Unreachable);
        assert_eq!(probe(&http, Duration::from_millis(100)).await, Outcome::Timeout);
    }

    #[tokio::test]
    async fn a_name_server_answers_the_question_that_was_asked() {
        let server = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let port = server.local_addr().expect("bound").port();
        tokio::spawn(async move {
            for code in [0, 2] {
                let mut packet = [0; 512];
                let (got, from) = server.recv_from(&mut packet).await.expect("a question");
                let mut answer = packet[..got].to_vec();
                // First one to another question, which is passed over.
                (answer[0], answer[2]) = (!answer[0], 0x81);
                server.send_to(&answer, from).await.expect("it listens");
                (answer[0], answer[3]) = (!answer[0], 0x80 | code);
                server.send_to(&answer, from).await.expect("it listens");
            }
        });
        let dns = asked(Probe::Dns { port, name: "atm.branch.example".into() });
        assert!(matches!(probe(&dns, SOON).await, Outcome::Reply { .. }));
        assert_eq!(probe(&dns, SOON).await, Outcome::Unreachable, "it fails");
    }

    #[test]
    fn lines_and_names_that_make_no_sense_are_none() {
        for (line, code) in [("HTTP/1.1 204 No Content\r", Some(204)), ("HTTP/1.1 20", None), ("HTTP/2 200", None), ("", None)] {
            assert_eq!(parse_status(line.as_bytes()), code, "{line}");
        }
        assert!(question(1, "a..b").is_none() && question(1, "").is_none() && question(1, &"x".repeat(64)).is_none());
        assert_eq!(judge(&question(1, "a").expect("good"), &[0; 5]), None);
    }
}

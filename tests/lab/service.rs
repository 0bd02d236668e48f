//! Little servers on devices of a branch: a web server, a name server.

use std::net::{Ipv4Addr, TcpListener as Bound, UdpSocket as BoundUdp};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;

use crate::Net;
use crate::namespace::inside;

/// What a [`Service`] says that takes questions and never answers.
pub const NOTHING: u16 = u16::MAX;

/// A server at a device's address. Its port is closed once it is dropped.
pub struct Service {
    says: Arc<AtomicU16>,
    task: JoinHandle<()>,
}

impl Service {
    /// A web server on device `i` of branch `b`. What it says is the status of all its answers. Within a runtime.
    pub fn web(net: &Net, b: u8, i: u8, port: u16) -> Self {
        let address = (net.address(b, i), port);
        let bound = inside(&net.lan(b), || Bound::bind(address)).expect("nothing else there has this port");
        bound.set_nonblocking(true).expect("a socket can be non-blocking");
        let listener = TcpListener::from_std(bound).expect("this runs within a runtime");
        let says = Arc::new(AtomicU16::new(200));
        let status = Arc::clone(&says);
        let task = tokio::spawn(async move {
            // An error is that of one connection which was gone before it was accepted.
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(answer_http(stream, status.load(Ordering::Relaxed)));
                }
            }
        });
        Self { says, task }
    }

    /// A name server on device `i` of branch `b`, at port 53, that has one address for whatever name. What it says is the
    /// code of its answers: 0 is that address, 3 is that there is no such name. Within a runtime.
    pub fn names(net: &Net, b: u8, i: u8, known: Ipv4Addr) -> Self {
        let address = (net.address(b, i), 53);
        let bound = inside(&net.lan(b), || BoundUdp::bind(address)).expect("nothing else there has this port");
        bound.set_nonblocking(true).expect("a socket can be non-blocking");
        let socket = UdpSocket::from_std(bound).expect("this runs within a runtime");
        let says = Arc::new(AtomicU16::new(0));
        let code = Arc::clone(&says);
        let task = tokio::spawn(async move {
            let mut packet = [0; 512];
            // An error is word that somebody who was answered before has gone.
            loop {
                let Ok((bytes, from)) = socket.recv_from(&mut packet).await else { continue };
                if let Some(answer) = answer_dns(&packet[..bytes], known, code.load(Ordering::Relaxed)) {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        Self { says, task }
    }

    /// Says something else from now on: a status, a code, or [`NOTHING`].
    pub fn says(&self, code: u16) {
        self.says.store(code, Ordering::Relaxed);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer_http(mut stream: TcpStream, status: u16) {
    let mut question = [0; 1024];
    // Whoever only wants to know whether somebody listens asks nothing.
    if !stream.read(&mut question).await.is_ok_and(|bytes| bytes > 0) {
        return;
    }
    if status == NOTHING {
        // Until the one who asked gives up.
        let _ = stream.read(&mut question).await;
        return;
    }
    let answer = format!("HTTP/1.1 {status} So it is\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    // The one who asked may have gone.
    let _ = stream.write_all(answer.as_bytes()).await;
}

/// An answer to the first question of a packet (RFC 1035).
fn answer_dns(packet: &[u8], known: Ipv4Addr, code: u16) -> Option<Vec<u8>> {
    const HEAD_BYTES: usize = 12;
    const A: [u8; 4] = [0, 1, 0, 1];
    let code = u8::try_from(code).ok().filter(|code| *code < 16)?;
    let name = packet.get(HEAD_BYTES..)?.iter().position(|byte| *byte == 0)?;
    let question = packet.get(HEAD_BYTES..HEAD_BYTES + name + 5)?;
    let has_address = code == 0 && question.ends_with(&A);
    let mut answer = packet[..2].to_vec();
    // An answer, with recursion; one question, and one record if there is any.
    answer.extend([0x81, 0x80 | code, 0, 1, 0, u8::from(has_address), 0, 0, 0, 0]);
    answer.extend(question);
    if has_address {
        // The name that stands after the head, an address, for no longer than now.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(known.octets());
    }
    Some(answer)
}

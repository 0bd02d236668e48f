//! The HTTP server's sockets. Nobody holds one longer than needed: not by half a request, not by reading nothing, and not
//! by being gone without a word.
//!
//! A connection that has not asked anything yet, whether it has shaken hands by TLS or not, makes room for newer ones, so those
//! who open many keep nobody out.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use super::auth::Peer;
use super::certificate::Certificate;
use crate::metrics::Metrics;

/// What a server grants its clients.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open connections; further clients wait in the system's queue. Live feeds have a limit of their own.
    pub connections: usize,
    /// Connections of which nothing was heard yet; beyond it the oldest is dropped.
    pub silent: usize,
    /// Time for the head of a connection's first request.
    pub head: Duration,
    /// Time between an answer and the head of the next request. Clients keep their connections for a while (reqwest 90 s):
    /// a server that closes earlier now and then closes just when the next request is on its way.
    pub idle: Duration,
    /// Time in which a client that is being answered must take something.
    pub stall: Duration,
    /// Time for open requests to end when the program does.
    pub drain: Duration,
}

impl Limits {
    /// What a collector grants.
    pub const DEFAULT: Self = Self {
        connections: 4_096,
        silent: 512,
        head: Duration::from_secs(10),
        idle: Duration::from_secs(100),
        stall: Duration::from_secs(15),
        drain: Duration::from_secs(2),
    };
}

/// Largest head of a request: what is larger is answered with 431 and the connection ends.
const HEAD_LIMIT_BYTES: usize = 32 * 1024;
/// A client that is gone without a word is noticed after so long: while it is sent something, and while it isn't.
const GONE_AFTER: Duration = Duration::from_secs(30);
/// How long nothing is accepted after the system had no socket left.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// What a client is told that speaks HTTP where TLS is spoken.
const SPEAK_TLS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 38\r\nconnection: close\r\n\r\n\
    this port speaks TLS: ask by https://\n";

/// What every connection is served with.
#[derive(Clone)]
pub struct Server {
    /// Who answers.
    pub router: Router,
    /// What is shown to speak TLS; plain HTTP without it.
    pub certificate: Option<Arc<Certificate>>,
    /// What clients are granted.
    pub limits: Limits,
    /// Where they are counted.
    pub metrics: Arc<Metrics>,
    /// Ends it.
    pub shutdown: CancellationToken,
}

impl Server {
    /// Serves until `shutdown`, then for at most [`Limits::drain`].
    ///
    /// # Errors
    /// When nothing can be accepted any more.
    pub async fn serve(self, listener: TcpListener) -> anyhow::Result<()> {
        raise_file_limit();
        let room = Arc::new(Semaphore::new(self.limits.connections));
        let all = TaskTracker::new();
        let stop_now = CancellationToken::new();
        let mut silent: VecDeque<Silent> = VecDeque::new();
        loop {
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => break,
                accepted = accept(&listener, &room) => accepted,
            };
            let (socket, peer, permit) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection can't be accepted");
                    tokio::time::sleep(EXHAUSTED).await;
                    continue;
                }
            };
            silent.retain(|one| !one.has_asked.load(Ordering::Relaxed) && !one.drop.is_cancelled());
            while silent.len() >= self.limits.silent {
                silent.pop_front().into_iter().for_each(|oldest| oldest.drop.cancel());
                self.has_dropped("silent");
            }
            let one = Silent { has_asked: Arc::default(), drop: stop_now.child_token() };
            silent.push_back(one.clone());
            let server = self.clone();
            all.spawn(async move {
                server.metrics.shift("ward_api_connections_active", 1.0);
                tokio::select! {
                    () = one.drop.cancelled() => {}
                    () = server.connection(socket, peer, &one.has_asked) => one.drop.cancel(),
                    () = asks_nothing(&one.has_asked, server.limits.head) => {
                        server.has_dropped("slow_to_ask");
                        one.drop.cancel();
                    }
                }
                server.metrics.shift("ward_api_connections_active", -1.0);
                drop(permit);
            });
        }
        all.close();
        // A live feed never ends by itself.
        if tokio::time::timeout(self.limits.drain, all.wait()).await.is_err() {
            stop_now.cancel();
        }
        Ok(())
    }

    fn has_dropped(&self, reason: &str) {
        self.metrics.add("ward_api_connections_dropped_total", &format!("reason=\"{reason}\""), 1);
    }

    async fn connection(&self, socket: TcpStream, peer: Peer, has_asked: &AtomicBool) {
        let Some(certificate) = &self.certificate else {
            return self.answer(Impatient::new(socket, self.limits.stall), peer, has_asked).await;
        };
        let mut first = [0];
        // A handshake begins with a byte that is no letter, and each of HTTP's methods with one.
        if socket.peek(&mut first).await.is_ok() && first[0].is_ascii_alphabetic() {
            self.has_dropped("plain");
            // A client that takes no answer has none.
            let _ = tokio::time::timeout(self.limits.stall, refuse(socket)).await;
            return;
        }
        match certificate.acceptor().accept(Impatient::new(socket, self.limits.stall)).await {
            Ok(stream) => self.answer(stream, peer, has_asked).await,
            Err(error) => {
                self.has_dropped("handshake");
                tracing::debug!(%error, "a TLS handshake has failed");
            }
        }
    }

    /// Answers what is asked over a stream until it ends.
    async fn answer(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: Peer, has_asked: &AtomicBool) {
        let answer = service_fn(|request: Request<Incoming>| {
            has_asked.store(true, Ordering::Relaxed);
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            self.router.clone().call(request)
        });
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(self.limits.idle).max_buf_size(HEAD_LIMIT_BYTES);
        let mut serving = pin!(server.serve_connection(TokioIo::new(stream), answer).with_upgrades());
        let ended = tokio::select! {
            ended = serving.as_mut() => ended,
            () = self.shutdown.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = ended {
            // One that has asked before and has no more questions has done nothing wrong.
            if !error.is_timeout() {
                self.has_dropped("broken");
            }
            tracing::debug!(%error, "a connection has ended");
        }
    }
}

/// Says that TLS is spoken here. What was asked is read first: the system takes back the answer to a client whose words are left
/// unread.
async fn refuse(mut socket: TcpStream) -> io::Result<()> {
    let mut asked = vec![0; HEAD_LIMIT_BYTES];
    let _ = socket.read(&mut asked).await?;
    socket.write_all(SPEAK_TLS).await?;
    socket.shutdown().await
}

/// Systems grant 1,024 open files unless a program asks for the rest of what it may have: fewer than clients.
fn raise_file_limit() {
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, files) {
        tracing::warn!(%error, "the limit of open files can't be raised");
    }
}

/// A connection of which nothing was heard yet, and how to end it.
#[derive(Clone)]
struct Silent {
    has_asked: Arc<AtomicBool>,
    drop: CancellationToken,
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, Peer, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    let (socket, address) = listener.accept().await?;
    socket.set_nodelay(true)?;
    let options = SockRef::from(&socket);
    options.set_tcp_keepalive(&TcpKeepalive::new().with_time(GONE_AFTER / 2).with_interval(GONE_AFTER / 6).with_retries(3))?;
    options.set_tcp_user_timeout(Some(GONE_AFTER))?;
    Ok((socket, Peer(address.ip()), permit))
}

/// Ends when a connection's first request isn't there in time.
async fn asks_nothing(has_asked: &AtomicBool, within: Duration) {
    tokio::time::sleep(within).await;
    if has_asked.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

/// A socket whose peer has to take what it is sent.
struct Impatient {
    socket: TcpStream,
    limit: Duration,
    /// Runs while the peer takes nothing.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    fn new(socket: TcpStream, limit: Duration) -> Self {
        Self { socket, limit, waiting: None }
    }

    fn timed<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(waiting.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.timed(cx, written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.timed(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;

    use super::*;
    use crate::api::certificate;

    const BRISK: Limits = Limits {
        connections: 8,
        silent: 3,
        head: Duration::from_millis(300),
        idle: Duration::from_millis(900),
        stall: Duration::from_millis(300),
        drain: Duration::from_millis(300),
    };
    const SOON: Duration = Duration::from_secs(10);
    const ASK: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

    struct Running {
        address: SocketAddr,
        shutdown: CancellationToken,
        served: tokio::task::JoinHandle<anyhow::Result<()>>,
        metrics: Arc<Metrics>,
    }

    async fn start(limits: Limits) -> Running {
        serves(limits, None).await
    }

    async fn start_by_tls(limits: Limits) -> Running {
        let (folder, files) = certificate::tests::issue("127.0.0.1");
        let certificate = Certificate::open(files).expect("a certificate");
        drop(folder);
        serves(limits, Some(Arc::new(certificate))).await
    }

    async fn serves(limits: Limits, certificate: Option<Arc<Certificate>>) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let large = || async { vec![b'x'; 64 * 1024 * 1024] };
        let never = || std::future::pending::<&'static str>();
        let router = Router::new().route("/", get(|| async { "hello" })).route("/large", get(large)).route("/never", get(never));
        let (shutdown, metrics) = (CancellationToken::new(), Arc::new(Metrics::default()));
        let server = Server { router, certificate, limits, metrics: Arc::clone(&metrics), shutdown: shutdown.clone() };
        let served = tokio::spawn(server.serve(listener));
        Running { address, shutdown, served, metrics }
    }

    impl Running {
        async fn say(&self, bytes: &[u8]) -> TcpStream {
            let mut socket = TcpStream::connect(self.address).await.expect("a connection");
            socket.write_all(bytes).await.expect("it takes what it is sent");
            socket
        }

        fn dropped(&self, reason: &str) -> f64 {
            self.metrics.value("ward_api_connections_dropped_total", &format!("reason=\"{reason}\""))
        }

        async fn is_served(&self) {
            let mut socket = self.say(ASK).await;
            let mut head = [0; 15];
            let read = tokio::time::timeout(SOON, socket.read_exact(&mut head)).await;
            read.expect("in time").expect("an answer");
            assert_eq!(&head, b"HTTP/1.1 200 OK");
        }
    }

    /// Everything until the other side closes.
    async fn rest(mut socket: TcpStream) -> String {
        let mut bytes = Vec::new();
        // A reset ends it as well.
        let _ = tokio::time::timeout(SOON, socket.read_to_end(&mut bytes)).await.expect("the server drops it in time");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[tokio::test]
    async fn half_a_request_and_none_are_dropped_in_time() {
        let server = start(BRISK).await;
        for said in ["", "GET / HT", "GET / HTTP/1.1\r\nhost: a\r\nx"] {
            let answer = rest(server.say(said.as_bytes()).await).await;
            assert!(!answer.contains("200"), "{said:?}: {answer}");
        }
        assert!(server.dropped("slow_to_ask") >= 3.0);
        server.is_served().await;
    }

    #[tokio::test]
    async fn half_a_handshake_and_none_are_dropped_in_time() {
        let server = start_by_tls(BRISK).await;
        // The head of a record of 512 bytes, and nothing of what it announces.
        for said in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
            assert_eq!(rest(server.say(said).await).await, "", "{said:?}");
        }
        assert!(server.dropped("slow_to_ask") >= 2.0);
        assert!(!rest(server.say(b"\x16\x03\x01\x00\x05hello").await).await.contains("HTTP"));
        assert!(server.dropped("handshake") >= 1.0);
    }

    #[tokio::test]
    async fn those_who_never_shake_hands_make_room_for_others() {
        let server = start_by_tls(Limits { head: SOON, ..BRISK }).await;
        let mut silent = Vec::new();
        for _ in 0..40 {
            silent.push(server.say(b"\x16").await);
        }
        assert_eq!(rest(silent.remove(0)).await, "");
        assert!(server.dropped("silent") >= 30.0);
    }

    #[tokio::test]
    async fn who_speaks_plain_http_where_tls_is_spoken_is_told() {
        let server = start_by_tls(BRISK).await;
        let said = rest(server.say(ASK).await).await;
        assert!(said.starts_with("HTTP/1.1 400 ") && said.ends_with("\r\n\r\nthis port speaks TLS: ask by https://\n"), "{said}");
        let length: usize =
            said.split("content-length: ").nth(1).and_then(|rest| rest.split_once('\r')?.0.parse().ok()).expect("one");
        assert_eq!(said.split_once("\r\n\r\n").expect("a head").1.len(), length);
        assert!(server.dropped("plain") >= 1.0);
    }

    #[tokio::test]
    async fn a_client_that_has_been_answered_may_keep_its_connection_for_longer() {
        let server = start(BRISK).await;
        let mut socket = server.say(ASK).await;
        tokio::time::sleep(BRISK.head * 2).await;
        socket.write_all(ASK).await.expect("the connection is still there");
        let answers = rest(socket).await;
        assert_eq!(answers.matches("HTTP/1.1 200").count(), 2, "{answers}");
        // Nor is it kept for ever, be it silent or in the midst of a question.
        assert!(rest(server.say(&[ASK, b"GET /"].concat()).await).await.starts_with("HTTP/1.1 200"));
        assert!((server.dropped("slow_to_ask") - 0.0).abs() < 0.5);
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_dropped() {
        let server = start(BRISK).await;
        let socket = server.say(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let active = || server.metrics.value("ward_api_connections_active", "");
        let gone = async {
            while server.dropped("broken") < 1.0 || active() > 0.0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, gone).await.expect("it is dropped in time");
        drop(socket);
    }

    #[tokio::test]
    async fn those_who_say_nothing_make_room_for_others() {
        let server = start(Limits { head: SOON, ..BRISK }).await;
        let mut silent = Vec::new();
        for _ in 0..40 {
            silent.push(server.say(b"GET").await);
        }
        server.is_served().await;
        assert_eq!(rest(silent.remove(0)).await, "");
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_is_refused_and_the_next_client_served() {
        let server = start(BRISK).await;
        let many: String = (0..5_000).map(|n| format!("parameter{n}=x&")).collect();
        let answer = rest(server.say(format!("GET /?{many} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        for garbage in ["\0\0\0\0\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\u{16}\u{3}\u{1}hello TLS"] {
            assert!(!rest(server.say(garbage.as_bytes()).await).await.contains(" 200 "), "{garbage:?}");
        }
        server.is_served().await;
    }

    #[tokio::test]
    async fn it_ends_although_a_client_stays_and_a_request_never_does() {
        let server = start(Limits { head: SOON, ..BRISK }).await;
        let (_idle, _open) = (server.say(ASK).await, server.say(b"GET /never HTTP/1.1\r\nhost: a\r\n\r\n").await);
        server.is_served().await;
        server.shutdown.cancel();
        tokio::time::timeout(SOON, server.served).await.expect("in time").expect("no panic").expect("no error");
    }
}

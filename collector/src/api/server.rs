//! The HTTP server's sockets. Nobody holds one longer than needed: not by half a request, not by reading nothing, and not
//! by being gone without a word.
//!
//! A connection that has not asked anything yet makes room for newer ones, so those who open many keep nobody out.

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
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use super::auth::Peer;
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

/// Serves until `shutdown`, then for at most [`Limits::drain`].
///
/// # Errors
/// When nothing can be accepted any more.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    raise_file_limit();
    let room = Arc::new(Semaphore::new(limits.connections));
    let all = TaskTracker::new();
    let stop_now = CancellationToken::new();
    let mut silent: VecDeque<Silent> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
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
        while silent.len() >= limits.silent {
            silent.pop_front().into_iter().for_each(|oldest| oldest.drop.cancel());
            metrics.add("ward_api_connections_dropped_total", "reason=\"silent\"", 1);
        }
        let one = Silent { has_asked: Arc::default(), drop: stop_now.child_token() };
        silent.push_back(one.clone());
        let (router, metrics, shutdown) = (router.clone(), Arc::clone(&metrics), shutdown.clone());
        all.spawn(async move {
            metrics.shift("ward_api_connections_active", 1.0);
            tokio::select! {
                () = one.drop.cancelled() => {}
                () = connection((socket, peer), router, limits, &one.has_asked, &metrics, shutdown) => one.drop.cancel(),
                () = asks_nothing(&one.has_asked, limits.head) => {
                    metrics.add("ward_api_connections_dropped_total", "reason=\"slow_to_ask\"", 1);
                    one.drop.cancel();
                }
            }
            metrics.shift("ward_api_connections_active", -1.0);
            drop(permit);
        });
    }
    all.close();
    // A live feed never ends by itself.
    if tokio::time::timeout(limits.drain, all.wait()).await.is_err() {
        stop_now.cancel();
    }
    Ok(())
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

async fn connection(
    (socket, peer): (TcpStream, Peer),
    router: Router,
    limits: Limits,
    has_asked: &AtomicBool,
    metrics: &Metrics,
    shutdown: CancellationToken,
) {
    let io = TokioIo::new(Impatient { socket, limit: limits.stall, waiting: None });
    let answer = service_fn(|request: Request<Incoming>| {
        has_asked.store(true, Ordering::Relaxed);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        router.clone().call(request)
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(limits.idle).max_buf_size(HEAD_LIMIT_BYTES);
    let mut serving = pin!(server.serve_connection(io, answer).with_upgrades());
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        // One that has asked before and has no more questions has done nothing wrong.
        if !error.is_timeout() {
            metrics.add("ward_api_connections_dropped_total", "reason=\"broken\"", 1);
        }
        tracing::debug!(%error, "a connection has ended");
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

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
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let large = || async { vec![b'x'; 64 * 1024 * 1024] };
        let never = || std::future::pending::<&'static str>();
        let router = Router::new().route("/", get(|| async { "hello" })).route("/large", get(large)).route("/never", get(never));
        let (shutdown, metrics) = (CancellationToken::new(), Arc::new(Metrics::default()));
        let served = tokio::spawn(serve(listener, router, limits, Arc::clone(&metrics), shutdown.clone()));
        Running { address, shutdown, served, metrics }
    }

    impl Running {
        async fn say(&self, bytes: &[u8]) -> TcpStream {
            let mut socket = TcpStream::connect(self.address).await.expect("a connection");
            socket.write_all(bytes).await.expect("it takes what it is sent");
            socket
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
        assert!(server.metrics.value("ward_api_connections_dropped_total", "reason=\"slow_to_ask\"") >= 3.0);
        server.is_served().await;
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
        assert!((server.metrics.value("ward_api_connections_dropped_total", "reason=\"slow_to_ask\"") - 0.0).abs() < 0.5);
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_dropped() {
        let server = start(BRISK).await;
        let socket = server.say(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let active = || server.metrics.value("ward_api_connections_active", "");
        let gone = async {
            while server.metrics.value("ward_api_connections_dropped_total", "reason=\"broken\"") < 1.0 || active() > 0.0 {
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

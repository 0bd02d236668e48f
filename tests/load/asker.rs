//! A client that asks over one connection: as little as HTTP takes, so that it costs next to nothing itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use ward_tests::program::TOKEN;

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Asker {
    stream: TcpStream,
    host: String,
    buffer: Vec<u8>,
}

/// What came back.
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) bytes: usize,
    pub(crate) took: Duration,
}

impl Asker {
    pub(crate) async fn connect(host: &str) -> Result<Self> {
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, host: host.to_owned(), buffer: Vec::with_capacity(1 << 20) })
    }

    /// Asks, and reads the whole answer.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Answered> {
        let host = &self.host;
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {TOKEN}\r\naccept-encoding: zstd, gzip\r\n\r\n"
        );
        tokio::time::timeout(ANSWER_LIMIT, self.say(request.as_bytes())).await.context("no answer")?
    }

    async fn say(&mut self, request: &[u8]) -> Result<Answered> {
        let began = Instant::now();
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let end = loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the connection has ended");
            }
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let head = std::str::from_utf8(&self.buffer[..end])?.to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("a status")?;
        let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(Ok(0), str::parse)?;
        while self.buffer.len() < end + length {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the answer is cut");
            }
        }
        Ok(Answered { status, bytes: length, took: began.elapsed() })
    }
}

/// What so many clients were answered that each ask so often, one question after the other: times in ms, and the bytes of
/// the largest answer. `asked` counts along. The first answers, for which nothing was at hand yet, don't count.
pub(crate) async fn crowd(
    host: &str,
    clients: usize,
    times: usize,
    path: &str,
    asked: &Arc<AtomicUsize>,
) -> Result<(Vec<f64>, usize)> {
    let mut all = JoinSet::new();
    for _ in 0..clients {
        let (host, path, asked) = (host.to_owned(), path.to_owned(), Arc::clone(asked));
        all.spawn(async move {
            let mut asker = Asker::connect(&host).await?;
            let (mut took, mut bytes) = (Vec::with_capacity(times), 0);
            for n in 0..times + times / 10 {
                let answered = asker.get(&path).await?;
                asked.fetch_add(1, Ordering::Relaxed);
                anyhow::ensure!(answered.status == 200, "{path}: {}", answered.status);
                bytes = bytes.max(answered.bytes);
                if n >= times / 10 {
                    took.push(answered.took.as_secs_f64() * 1_000.0);
                }
            }
            Ok((took, bytes))
        });
    }
    let (mut took, mut bytes) = (Vec::new(), 0);
    while let Some(one) = all.join_next().await {
        let (one, most) = one??;
        took.extend(one);
        bytes = bytes.max(most);
    }
    Ok((took, bytes))
}

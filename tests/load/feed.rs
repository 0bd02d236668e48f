//! The live feed: from an agent's publish to the frames of all readers, bytes of a change, and what a reader costs.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use ward_tests::Figure;
use ward_tests::figure::quantile;
use ward_tests::program::TOKEN;

use crate::world::World;
use crate::{LARGE, at};

/// Readers at a time, and the goals of how late a change may be for each of them, in ms.
const READERS: [(usize, f64); 2] = [(100, 5.0), (1_000, 50.0)];
/// Changes that are followed, one at a time.
const CHANGES: usize = 100;
/// Reports of a branch's minute beside them, for the bytes.
const REPORTS: usize = 50;
/// How long a change may take to reach all.
const REACH_LIMIT: Duration = Duration::from_secs(10);
/// Readers that connect at a time.
const ARRIVING: usize = 20;
/// Time between two changes.
const PAUSE: Duration = Duration::from_millis(30);

/// What all readers share.
#[derive(Default)]
struct Seen {
    /// The change that is waited for: its number, when it was published, and whose it is.
    number: AtomicU64,
    began: RwLock<Option<(Instant, String)>>,
    /// How long it took to reach each reader, in ms.
    took: Mutex<Vec<f64>>,
    arrived: AtomicUsize,
    connected: AtomicUsize,
}

impl Seen {
    fn took(&self) -> std::sync::MutexGuard<'_, Vec<f64>> {
        self.took.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) async fn measure(world: &World) -> Result<Vec<Figure>> {
    let n = world.devices;
    let mut figures = bytes_a_change(world).await?;
    let seen = Arc::<Seen>::default();
    let mut readers: JoinSet<Result<()>> = JoinSet::new();
    let before_mb = world.collector.resident_mb()?;
    for (count, goal) in READERS {
        eprintln!("{count} readers of the feed");
        while seen.connected.load(Ordering::Relaxed) < count {
            let first = seen.connected.load(Ordering::Relaxed);
            for _ in 0..ARRIVING.min(count - first) {
                readers.spawn(read(world.api.address().to_owned(), Arc::clone(&seen)));
            }
            while seen.connected.load(Ordering::Relaxed) < (first + ARRIVING).min(count) {
                if let Some(ended) = readers.try_join_next() {
                    ended??;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        tokio::time::sleep(crate::SETTLED).await;
        seen.took().clear();
        for _ in 0..CHANGES {
            follow(world, &seen, count).await?;
            tokio::time::sleep(PAUSE).await;
        }
        let mut took = std::mem::take(&mut *seen.took());
        figures.push(Figure::low(format!("publish_to_frame_p50_{count}_readers_{n}"), quantile(&mut took, 0.5), "ms", None));
        figures.push(Figure::low(
            format!("publish_to_frame_p99_{count}_readers_{n}"),
            quantile(&mut took, 0.99),
            "ms",
            Some(goal),
        ));
    }
    let after_mb = world.collector.resident_mb()?;
    let most = READERS.iter().map(|(count, _)| *count).max().unwrap_or(1);
    figures.push(Figure::low(format!("memory_{most}_readers_{n}"), after_mb, "MB", at(n, &[(LARGE, 160.0)])));
    let a_reader_kib = (after_mb - before_mb) * 1_024.0 / most as f64;
    figures.push(Figure::low(format!("memory_a_reader_{n}"), a_reader_kib, "KiB", Some(8.0)));
    if let Some(ended) = readers.try_join_next() {
        ended??;
        bail!("a reader has ended");
    }
    Ok(figures)
}

/// Has a device change, and waits until every reader has been told.
async fn follow(world: &World, seen: &Seen, count: usize) -> Result<()> {
    seen.arrived.store(0, Ordering::Relaxed);
    // Readers know which device by its id, so the id must be known before it changes.
    let device = world.next_device();
    *seen.began.write().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), format!("\"id\":\"{device}\"")));
    seen.number.fetch_add(1, Ordering::Release);
    ensure!(world.turn().await? == device, "another device has changed");
    let all = async {
        while seen.arrived.load(Ordering::Relaxed) < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let limit = tokio::time::timeout(REACH_LIMIT, all).await;
    ensure!(limit.is_ok(), "{} of {count} readers were told within {REACH_LIMIT:?}", seen.arrived.load(Ordering::Relaxed));
    Ok(())
}

async fn read(host: String, seen: Arc<Seen>) -> Result<()> {
    let mut socket = connect(&host).await?;
    let mut known = seen.number.load(Ordering::Acquire);
    let mut is_first = true;
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message? else { continue };
        if is_first {
            is_first = false;
            seen.connected.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let number = seen.number.load(Ordering::Acquire);
        if number == known || !text.contains("\"type\":\"delta\"") {
            continue;
        }
        let took = {
            let began = seen.began.read().unwrap_or_else(PoisonError::into_inner);
            began.as_ref().filter(|(_, id)| text.contains(id.as_str())).map(|(began, _)| began.elapsed())
        };
        if let Some(took) = took {
            known = number;
            seen.took().push(took.as_secs_f64() * 1_000.0);
            seen.arrived.fetch_add(1, Ordering::Relaxed);
        }
    }
    bail!("the feed has ended")
}

type Feed = tokio_tungstenite::WebSocketStream<TcpStream>;

async fn connect(host: &str) -> Result<Feed> {
    let stream = TcpStream::connect(host).await?;
    stream.set_nodelay(true)?;
    let mut request = format!("ws://{host}/ws/updates").into_client_request()?;
    request.headers_mut().insert("Authorization", format!("Bearer {TOKEN}").parse()?);
    let config = WebSocketConfig::default().read_buffer_size(16 * 1024).max_message_size(None).max_frame_size(None);
    let (socket, _) = client_async_with_config(request, stream, Some(config)).await.context("the live feed")?;
    Ok(socket)
}

/// Bytes of the frames that tell of a change: of a device that goes down or comes back, and of all that a branch tells.
async fn bytes_a_change(world: &World) -> Result<Vec<Figure>> {
    eprintln!("bytes of a change");
    let mut socket = connect(world.api.address()).await?;
    let turned = async {
        for _ in 0..CHANGES {
            world.turn().await?;
            tokio::time::sleep(PAUSE).await;
        }
        anyhow::Ok(())
    };
    let (turned_bytes, turned_count) = counted(&mut socket, turned).await?;
    let reported = async {
        for _ in 0..REPORTS {
            world.report().await?;
            tokio::time::sleep(PAUSE).await;
        }
        anyhow::Ok(())
    };
    let (reported_bytes, reported_count) = counted(&mut socket, reported).await?;
    let n = world.devices;
    let all = (turned_bytes + reported_bytes) / (turned_count + reported_count);
    Ok(vec![
        Figure::low(format!("feed_bytes_an_outage_or_return_{n}"), turned_bytes / turned_count, "B", None),
        Figure::low(format!("feed_bytes_a_minute_{n}"), reported_bytes / reported_count, "B", None),
        Figure::low(format!("feed_bytes_a_change_{n}"), all, "B", Some(100.0)),
    ])
}

/// Bytes of the deltas, with their frames' heads, and devices in them, while something is done and until it is quiet.
async fn counted(socket: &mut Feed, work: impl Future<Output = Result<()>>) -> Result<(f64, f64)> {
    let (mut bytes, mut count) = (0, 0);
    let mut work = std::pin::pin!(work);
    let (mut is_over, mut quiet) = (false, 0);
    while !is_over || quiet < 20 {
        tokio::select! {
            done = &mut work, if !is_over => {
                done?;
                is_over = true;
            }
            message = tokio::time::timeout(Duration::from_millis(100), socket.next()) => match message {
                Err(_) => quiet += 1,
                Ok(message) => {
                    let Message::Text(text) = message.context("the feed has ended")?? else { continue };
                    let message: Value = serde_json::from_str(&text)?;
                    let changed = message["devices"].as_array().map_or(0, Vec::len);
                    if message["type"] == "delta" && changed > 0 {
                        bytes += text.len() + if text.len() < 126 { 2 } else { 4 };
                        count += changed;
                    }
                }
            }
        }
    }
    ensure!(count > 0, "nothing has changed");
    Ok((bytes as f64, count as f64))
}

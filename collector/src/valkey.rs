//! Answers that several collectors share, in a Valkey or a Redis. What a collector keeps itself comes first.
//!
//! One task looks after the connection. While there is none, no question waits for it: the log, `/health` and the metrics
//! say why. An answer counts for nothing once late data has come for what it tells of, whichever collector took that data.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, FromRedisValue, IntoConnectionInfo, Pipeline, TlsCertificates};
use shared::Millis;
use tokio::sync::Notify;

use crate::clock;
use crate::metrics::Metrics;
use crate::secrets;
use crate::settings::SharedCache;

/// Time for a connection with its login, and for an answer: whatever takes longer is no gain.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
const ANSWER_LIMIT: Duration = Duration::from_millis(500);
/// How often a connection is tried that nobody needs.
const PING_EVERY: Duration = Duration::from_secs(5);
/// First and longest wait before the next connection.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// Largest answer that is shared.
const VALUE_LIMIT_BYTES: usize = 4 * 1024 * 1024;
/// Most devices that late data names one by one; where there are more, all answers are void.
const MARKS_LIMIT: usize = 1_000;
/// How long a mark of late data is kept, in ms: longer than any answer.
const MARK_MS: u64 = 120_000;
/// How far another collector's clock may be ahead, in ms.
const CLOCKS_DIFFER_MS: i64 = 2_000;
/// Bytes before an answer that tell when it was made.
const HEAD_BYTES: usize = 8;

/// An answer that somebody has kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The answer.
    pub body: Bytes,
    /// How old it is.
    pub age: Duration,
}

/// The server, or why it can't be used.
pub struct Valkey {
    prefix: String,
    state: Mutex<State>,
    lost: Notify,
    metrics: Arc<Metrics>,
}

struct State {
    connection: Result<MultiplexedConnection, String>,
    /// What was made before counts for nothing here: late data has come since that could not be told there.
    void_before: Millis,
}

impl Valkey {
    /// A server that is not connected yet. `servers` are those whose answers are kept: others' have other names there.
    pub fn new(settings: &SharedCache, servers: &str, metrics: Arc<Metrics>) -> Self {
        metrics.set("ward_shared_cache_up", "", 0.0);
        let connection = Err("it has not been asked yet".to_owned());
        let state = Mutex::new(State { connection, void_before: clock::now() });
        Self { prefix: format!("{}:1:{}", settings.prefix, short(servers)), state, lost: Notify::new(), metrics }
    }

    /// Why it can't be used; `None` while it can.
    pub fn trouble(&self) -> Option<String> {
        self.state().connection.as_ref().err().cloned()
    }

    /// Connects, and connects again, for ever.
    pub async fn run(self: Arc<Self>, settings: SharedCache) {
        let mut backoff = BACKOFF.0;
        loop {
            match connect(&settings).await {
                Ok(connection) => {
                    tracing::info!(server = settings.url, "the shared cache is in use");
                    self.metrics.set("ward_shared_cache_up", "", 1.0);
                    self.state().connection = Ok(connection);
                    backoff = BACKOFF.0;
                    self.watch().await;
                }
                Err(error) => {
                    let why = format!("{error:#}");
                    if self.trouble().as_ref() != Some(&why) {
                        tracing::error!(
                            server = settings.url,
                            why,
                            "the shared cache can't be used: questions are answered without"
                        );
                    }
                    self.state().connection = Err(why);
                }
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF.1);
        }
    }

    /// Ends when the connection is lost.
    async fn watch(&self) {
        loop {
            tokio::select! {
                () = self.lost.notified() => return,
                () = tokio::time::sleep(PING_EVERY) => {
                    if self.call::<()>(redis::pipe().cmd("PING").ignore()).await.is_none() {
                        return;
                    }
                }
            }
        }
    }

    /// The answer to a question, about `device` alone or about many, if somebody has kept one that still counts.
    pub async fn find(&self, question: &str, device: Option<&str>) -> Option<Found> {
        if self.trouble().is_some() {
            return None;
        }
        self.metrics.add("cache_requests_total", "cache=\"shared\"", 1);
        let (value, late): (Option<Vec<u8>>, Option<i64>) =
            self.call(redis::pipe().get(self.answer_key(question)).get(self.late_key(device))).await?;
        let value = Bytes::from(value?);
        let (head, _) = value.split_first_chunk::<HEAD_BYTES>()?;
        let (made, now) = (Millis(i64::from_le_bytes(*head)), clock::now());
        let void_before = self.state().void_before.0.max(late.unwrap_or(i64::MIN));
        // By a clock that is ahead nobody can say what came later.
        if made.0 <= void_before || made.since(now) > CLOCKS_DIFFER_MS {
            return None;
        }
        self.metrics.add("cache_hits_total", "cache=\"shared\"", 1);
        Some(Found { body: value.slice(HEAD_BYTES..), age: Duration::from_millis(now.since(made).max(0).unsigned_abs()) })
    }

    /// Keeps an answer that was asked for at `made` for some time.
    pub async fn keep(&self, question: &str, body: &[u8], made: Millis, time: Duration) {
        if body.len() > VALUE_LIMIT_BYTES || self.trouble().is_some() {
            return;
        }
        let value = [&made.0.to_le_bytes(), body].concat();
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).clamp(1, MARK_MS / 2);
        self.call::<()>(redis::pipe().pset_ex(self.answer_key(question), value, ms).ignore()).await;
    }

    /// Data has come that makes answers void which are made before `at`: those about each of these devices alone, and about many
    /// where one of them is `None`.
    pub async fn mark_late(&self, devices: &[Option<&str>], at: Millis) {
        let mut marks = redis::pipe();
        let mut mark = |key: String| {
            marks.pset_ex(key, at.0, MARK_MS).ignore();
        };
        devices.iter().take(MARKS_LIMIT).for_each(|device| mark(self.late_key(*device)));
        let is_told = devices.len() <= MARKS_LIMIT && self.call::<()>(&marks).await.is_some();
        if !is_told {
            let mut state = self.state();
            state.void_before = state.void_before.max(at);
        }
    }

    fn answer_key(&self, question: &str) -> String {
        format!("{}:a:{}", self.prefix, short(question))
    }

    fn late_key(&self, device: Option<&str>) -> String {
        // No id has a colon.
        device.map_or_else(|| format!("{}:late", self.prefix), |device| format!("{}:late:{device}", self.prefix))
    }

    /// What the server says, if it says anything.
    async fn call<T: FromRedisValue>(&self, commands: &Pipeline) -> Option<T> {
        let mut connection = self.state().connection.clone().ok()?;
        match commands.query_async(&mut connection).await {
            Ok(answer) => Some(answer),
            Err(error) => {
                self.metrics.add("ward_shared_cache_errors_total", "", 1);
                self.metrics.set("ward_shared_cache_up", "", 0.0);
                let is_news = std::mem::replace(&mut self.state().connection, Err(error.to_string())).is_ok();
                if is_news {
                    tracing::warn!(%error, "the shared cache is lost: questions are answered without");
                    self.lost.notify_one();
                }
                None
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that has logged in and is answered.
async fn connect(settings: &SharedCache) -> anyhow::Result<MultiplexedConnection> {
    // Already installed by another client is as good.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let mut info = settings.url.as_str().into_connection_info()?;
    // Read each time: it may have been changed.
    if let Some(path) = &settings.password_file {
        let password = read(path)?;
        let login = info.redis_settings().clone().set_password(password.trim_end());
        info = info.set_redis_settings(login);
    }
    let client = match &settings.ca {
        None => Client::open(info)?,
        Some(path) => {
            let root_cert = Some(read(path)?.into_bytes());
            Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })?
        }
    };
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_LIMIT)).set_response_timeout(Some(ANSWER_LIMIT));
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    redis::cmd("PING").exec_async(&mut connection).await?;
    Ok(connection)
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

/// A text's digest: names there are short, whatever is asked.
fn short(text: &str) -> String {
    ward_agent::enrol::to_hex(&secrets::digest(text))
}

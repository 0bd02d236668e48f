//! The collector's live updates, as a browser gets them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::api::id;
use crate::now_ms;

/// How long the collector may say nothing, heartbeats included.
const QUIET_LIMIT: Duration = Duration::from_secs(60);

/// One connection.
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Socket {
    pub(crate) async fn connect(url: &str, token: &str) -> Result<Self> {
        let mut request = url.into_client_request()?;
        request.headers_mut().insert("Authorization", format!("Bearer {token}").parse()?);
        let (stream, _) = connect_async(request).await.context("connecting to the live updates")?;
        Ok(Self { stream })
    }

    /// The next message of the collector. The first is the snapshot.
    pub async fn next(&mut self) -> Result<Value> {
        loop {
            let message = timeout(QUIET_LIMIT, self.stream.next()).await.context("the live updates are quiet")?;
            match message.context("the live updates have ended")?? {
                Message::Text(text) => return Ok(serde_json::from_str(&text)?),
                Message::Ping(_) | Message::Pong(_) => {}
                other => bail!("an update is text, not {other:?}"),
            }
        }
    }

    /// Says something to the collector.
    pub async fn say(&mut self, message: &Value) -> Result<()> {
        Ok(self.stream.send(Message::text(message.to_string())).await?)
    }

    /// The snapshot that a new connection begins with.
    pub async fn snapshot(&mut self) -> Result<Value> {
        let message = self.next().await?;
        if message["type"] != "snapshot" {
            bail!("the first message is {message}");
        }
        Ok(message)
    }
}

/// What one device was said to be, and when that arrived.
#[derive(Debug, Clone)]
pub struct Update {
    /// UTC in ms.
    pub arrived_ms: i64,
    /// The device as it is by then.
    pub device: Value,
}

/// Someone who watches: all updates since the snapshot.
pub struct Follower {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    updates: Vec<Update>,
    fault: Option<String>,
}

impl Follower {
    /// Follows a new connection from its snapshot on.
    pub async fn follow(mut socket: Socket) -> Result<Self> {
        let snapshot = socket.snapshot().await?;
        let mut seq = snapshot["seq"].as_u64().context("a snapshot has a number")?;
        let mut known = HashMap::new();
        for device in snapshot["devices"].as_array().context("a snapshot has devices")? {
            known.insert(id(device)?, device.clone());
        }
        let seen = Arc::<Mutex<Seen>>::default();
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let result = socket.next().await.and_then(|message| updates(&message, &mut seq, &mut known));
                let mut seen = shared.lock().unwrap_or_else(PoisonError::into_inner);
                match result {
                    Ok(updates) => seen.updates.extend(updates),
                    Err(error) => {
                        seen.fault = Some(format!("{error:#}"));
                        return;
                    }
                }
            }
        });
        Ok(Self { seen, task })
    }

    /// All that was said about a device, in order; an error if the stream had a hole or ended.
    pub fn updates(&self, device: &str) -> Result<Vec<Update>> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fault) = &seen.fault {
            bail!("the live updates failed: {fault}");
        }
        Ok(seen.updates.iter().filter(|update| update.device["id"] == device).cloned().collect())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The devices of a delta, which has to be the one after `seq`: each as it is now, since a delta tells what is new of it.
fn updates(message: &Value, seq: &mut u64, known: &mut HashMap<String, Value>) -> Result<Vec<Update>> {
    let number = message["seq"].as_u64();
    // A page that hears of a number before it has the message believes that it has missed it.
    if message["type"] == "heartbeat" && number.is_none_or(|number| number > *seq) {
        bail!("a sign of life names {number:?}, and {seq} is the last that came");
    }
    if message["type"] != "delta" {
        return Ok(Vec::new());
    }
    let number = number.context("a delta has a number")?;
    if number != *seq + 1 {
        bail!("delta {number} came after {seq}");
    }
    *seq = number;
    let arrived_ms = now_ms();
    let mut updates = Vec::new();
    for told in message["devices"].as_array().into_iter().flatten() {
        let device = known.get_mut(&id(told)?).with_context(|| format!("nobody has told of {told} before"))?;
        for (field, value) in told.as_object().context("a device is an object")? {
            device[field] = value.clone();
        }
        updates.push(Update { arrived_ms, device: device.clone() });
    }
    Ok(updates)
}

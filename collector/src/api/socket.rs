//! `/ws/updates`: a snapshot, then numbered deltas, and a sign of life in between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use shared::message::{Ask, WATCHED_LIMIT};
use shared::{BranchId, DeviceId};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::Api;
use super::auth::Caller;
use super::effort::Words;
use super::feeds::Place;
use super::problem::Problem;
use super::query::Query;
use crate::accounts::{Reach, Who};
use crate::channel::Interest;
use crate::clock;
use crate::feed::Subscription;
use crate::ingest::Outgoing;

/// Bytes of the read buffer: a reader sends next to nothing, and the default is 128 KiB each.
const READ_BUFFER_BYTES: usize = 1_024;
/// Most bytes of a frame. The write buffer keeps the size of the largest for as long as its reader stays, and a snapshot of
/// 10,000 devices has 4 MB.
const FRAME_BYTES: usize = 2_048;
/// Most bytes that wait for a reader beside a frame: one that pings and reads nothing gets no further.
const WRITE_LIMIT_BYTES: usize = 16 * 1_024;
/// Largest message that a reader may send.
const HEARD_LIMIT_BYTES: usize = 4_096;
/// How often a reader hears that the feed is alive.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// For how long a device is watched unless a reader asks again, in ms.
const WATCH_MS: u32 = 30_000;
/// Time for a frame, and for a message, to be taken: a reader that doesn't read is dropped.
const FRAME_LIMIT: Duration = Duration::from_secs(10);
const MESSAGE_LIMIT: Duration = Duration::from_secs(60);
/// Why a reader is dropped that takes a part of a message and no more.
const HALF_TOLD: &str = "too slow: connect again for a new snapshot, this one stopped halfway";

type Socket = WebSocketStream<TokioIo<Upgraded>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    region: Option<String>,
    branch: Option<String>,
    resume: Option<String>,
}

impl Wanted {
    fn read(self, reach: Reach) -> Result<(Interest, Option<(String, u64)>), Problem> {
        let id = |field: &str, text: Option<String>| {
            text.map(|text| text.parse::<BranchId>().map_err(|error| Problem::field(field, error.to_string()))).transpose()
        };
        let interest = Interest { reach, region: id("region", self.region)?, branch: id("branch", self.branch)? };
        let resume = self.resume.as_deref().map(|text| {
            let (epoch, seq) = text.split_once('.')?;
            Some((epoch.to_owned(), seq.parse().ok()?))
        });
        match resume {
            Some(None) => Err(Problem::field("resume", "must be EPOCH.SEQ of the last message")),
            known => Ok((interest, known.flatten())),
        }
    }
}

pub(super) async fn updates(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(wanted): Query<Wanted>,
    mut request: Request,
) -> Response {
    if !same_origin(request.headers()) {
        return Problem::forbidden("another site may not read the feed").into_response();
    }
    let (interest, resume) = match wanted.read(caller.who.reach.clone()) {
        Ok(wanted) => wanted,
        Err(problem) => return problem.into_response(),
    };
    let place = match exists(&api, &interest).and_then(|()| api.feeds.enter(&caller.who, &interest)) {
        Ok(place) => place,
        Err(problem) => return problem.into_response(),
    };
    let Some((agreed, upgrade)) = handshake(&mut request) else {
        return Problem::bad_request("this is a WebSocket: ask for an upgrade").into_response();
    };
    let reader = Reader { who: caller.who, interest, resume, _place: place };
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(WRITE_LIMIT_BYTES);
        let config = config.max_message_size(Some(HEARD_LIMIT_BYTES)).max_frame_size(Some(HEARD_LIMIT_BYTES));
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        serve(socket, api, reader).await;
    });
    agreed
}

/// Refuses to tell of what isn't there, or not for this reader: each filter costs a line of messages.
fn exists(api: &Api, interest: &Interest) -> Result<(), Problem> {
    let fleet = api.live.fleet();
    let is_seen = |id: &BranchId| fleet.branch(id).is_some_and(|at| interest.reach.takes(&fleet.branches[at].info.region));
    if interest.region.as_ref().is_some_and(|id| fleet.region_name(id).is_none() || !interest.reach.takes(id)) {
        return Err(Problem::not_found("there is no such region"));
    }
    if interest.branch.as_ref().is_some_and(|id| !is_seen(id)) {
        return Err(Problem::not_found("there is no such branch"));
    }
    Ok(())
}

/// The answer that makes a WebSocket of a connection, and the connection once that was sent; `None` if nobody asked for one.
/// axum's own would write a message as one frame and keep a buffer of its size.
fn handshake(request: &mut Request) -> Option<(Response, OnUpgrade)> {
    let mut asked = axum::http::Request::new(());
    *asked.headers_mut() = request.headers().clone();
    *asked.method_mut() = request.method().clone();
    *asked.version_mut() = request.version();
    let agreed = create_response(&asked).ok()?;
    request.extensions().get::<OnUpgrade>()?;
    Some((agreed.map(|()| Body::empty()), hyper::upgrade::on(request)))
}

/// A browser says which site opened the socket; a cookie alone must not open it for another.
fn same_origin(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &axum::http::HeaderValue| value.to_str().ok());
    match (text(header::ORIGIN), text(header::HOST)) {
        (None, _) => true,
        (Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, site)| site == host),
        (Some(_), None) => false,
    }
}

/// Somebody who reads the feed.
struct Reader {
    who: Who,
    interest: Interest,
    resume: Option<(String, u64)>,
    _place: Place,
}

async fn serve(mut socket: Socket, api: Arc<Api>, reader: Reader) {
    api.metrics.shift("ward_websocket_connections_active", 1.0);
    api.metrics.shift("websocket_connections_active", 1.0);
    if let Err(reason) = feed(&mut socket, &api, &reader).await {
        api.metrics.add("ward_websocket_dropped_total", "", 1);
        let closing = Message::text(json!({ "type": "closing", "reason": reason }).to_string());
        // Between the frames of a message there may be words of control, and no other message.
        let close = Message::Close(Some(CloseFrame { code: CloseCode::Again, reason: reason.into() }));
        let last = if reason == HALF_TOLD { close } else { closing };
        let _ = tokio::time::timeout(Duration::from_secs(1), socket.send(last)).await;
    }
    api.metrics.shift("ward_websocket_connections_active", -1.0);
    api.metrics.shift("websocket_connections_active", -1.0);
}

/// Feeds one reader until it goes (`Ok`) or has to be dropped (`Err` with the reason).
async fn feed(socket: &mut Socket, api: &Api, reader: &Reader) -> Result<(), &'static str> {
    let resume = reader.resume.as_ref().map(|(epoch, seq)| (epoch.as_str(), *seq));
    let subscription = api.live.subscribe(&reader.interest, resume, clock::now());
    let Some(Subscription { first, mut messages, is_resumed }) = subscription else {
        return Err("too many different filters are read: try again later");
    };
    if let Some((epoch, seq)) = resume.filter(|_| is_resumed) {
        let resumed = json!({ "type": "resumed", "epoch": epoch, "seq": seq, "now": clock::now().0 });
        send(socket, resumed.to_string().into()).await?;
    }
    for message in first {
        send(socket, message).await?;
    }
    let mut words = Words::new(Instant::now());
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            message = messages.recv() => match message {
                Ok(message) => send(socket, message).await?,
                Err(RecvError::Lagged(_)) => return Err("too slow: connect again for a new snapshot"),
                Err(RecvError::Closed) => return Err("the collector ends"),
            },
            _ = heartbeat.tick() => {
                if !api.gate.still_knows(&reader.who, clock::now()) {
                    return Err("what you may see has changed: sign in again");
                }
                let heartbeat = api.live.heartbeat(&reader.interest, clock::now());
                // It names the last message: one that still waits must not seem lost.
                for _ in 0..messages.len() {
                    match messages.try_recv() {
                        Ok(message) => send(socket, message).await?,
                        Err(TryRecvError::Lagged(_)) => return Err("too slow: connect again for a new snapshot"),
                        Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                    }
                }
                send(socket, heartbeat.into()).await?;
            }
            read = socket.next() => match read {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(()),
                Some(Ok(Message::Text(text))) => if let Err(problem) = hear(&text, api, &reader.interest, &mut words) {
                    send(socket, json!({ "type": "problem", "detail": problem }).to_string().into()).await?;
                },
                Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            },
        }
    }
}

/// What a reader may say.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Said {
    /// Some devices are looked at: their quality is wanted every few seconds.
    Watch {
        /// Their ids, at most [`WATCHED_LIMIT`].
        devices: Vec<String>,
    },
}

/// Reads what a reader says.
///
/// # Errors
/// What is wrong with it.
pub fn said(text: &str) -> Result<Said, String> {
    let said: Said = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let Said::Watch { devices } = &said;
    if devices.len() > WATCHED_LIMIT {
        return Err(format!("{} devices are over the limit of {WATCHED_LIMIT}", devices.len()));
    }
    Ok(said)
}

/// Passes on what a reader has said, or says what is wrong with it.
fn hear(text: &str, api: &Api, interest: &Interest, words: &mut Words) -> Result<(), String> {
    if !words.may(Instant::now()) {
        return Err("too many messages: one a second is heard".to_owned());
    }
    let Said::Watch { devices } = said(text)?;
    let mut by_branch: BTreeMap<BranchId, Vec<DeviceId>> = BTreeMap::new();
    {
        let fleet = api.live.fleet();
        for name in devices {
            let is_seen = |at: &usize| interest.takes(&fleet.branches[fleet.devices[*at].branch]);
            let known = name.parse().ok().and_then(|id: DeviceId| Some((fleet.device(&id).filter(is_seen)?, id)));
            let Some((at, id)) = known else { return Err(format!("there is no device {name:?}")) };
            by_branch.entry(fleet.devices[at].info.branch.clone()).or_default().push(id);
        }
    }
    for (branch, devices) in by_branch {
        let devices = api.watched.due(devices, Instant::now());
        if devices.is_empty() {
            continue;
        }
        // One that finds no room is asked again by the reader.
        let _ = api.asks.try_send(Outgoing::Ask(branch, Ask::Watch { devices, for_ms: WATCH_MS }));
    }
    Ok(())
}

async fn send(socket: &mut Socket, text: Utf8Bytes) -> Result<(), &'static str> {
    tokio::time::timeout(MESSAGE_LIMIT, send_frames(socket, text.into())).await.unwrap_or(Err(HALF_TOLD))
}

/// Sends a text frame by frame, so that no more of it than that is copied for each reader.
async fn send_frames(socket: &mut Socket, text: Bytes) -> Result<(), &'static str> {
    let mut from = 0;
    while from < text.len() {
        let to = text.len().min(from + FRAME_BYTES);
        let opcode = OpCode::Data(if from == 0 { Data::Text } else { Data::Continue });
        let frame = Message::Frame(Frame::message(text.slice(from..to), opcode, to == text.len()));
        match tokio::time::timeout(FRAME_LIMIT, socket.send(frame)).await {
            Ok(Ok(())) => from = to,
            Ok(Err(_)) => return Err("the connection is gone"),
            Err(_) => return Err(HALF_TOLD),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_serves_a_reader_is_small() {
        fn size<F>(_: impl FnOnce(Socket, Arc<Api>, Reader) -> F) -> usize {
            size_of::<F>()
        }
        let bytes = size(serve);
        assert!(bytes <= 2_048, "{bytes} B for each of {} readers", crate::api::feeds::FEEDS_LIMIT);
    }

    #[test]
    fn a_page_of_another_site_may_not_open_the_feed() {
        let check = |origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, "127.0.0.1:8080".parse().expect("a header"));
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().expect("a header"));
            }
            same_origin(&headers)
        };
        assert!(check(None) && check(Some("http://127.0.0.1:8080")));
        assert!(!check(Some("http://evil.example")) && !check(Some("null")) && !check(Some("http://127.0.0.1:8081")));
    }

    #[test]
    fn what_a_reader_asks_for_is_understood_or_refused() {
        let resumed = |text: &str| {
            let wanted = Wanted { region: None, branch: None, resume: Some(text.to_owned()) };
            wanted.read(Reach::All).ok().map(|(_, resume)| resume.expect("it was asked for"))
        };
        assert_eq!(resumed("5f1d0c3a.7"), Some(("5f1d0c3a".to_owned(), 7)));
        for bad in ["", "5f1d0c3a", "5f1d0c3a.", "a.-1", "a.99999999999999999999", "a.1.2", "a.\u{661}"] {
            assert_eq!(resumed(bad), None, "{bad:?}");
        }
        for bad in ["a/b", "", "\u{10d0}", &"a".repeat(1_000)] {
            let wanted = Wanted { region: Some(bad.to_owned()), branch: None, resume: None };
            assert!(wanted.read(Reach::All).is_err(), "{bad:?}");
        }
        let said = |text: &str| said(text).ok().map(|Said::Watch { devices }| devices);
        let whole = r#"{"type":"watch","devices":["a","b"]}"#;
        assert_eq!(said(whole), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert!((0..whole.len()).all(|len| said(&whole[..len]).is_none()));
        let deep = "[".repeat(100_000);
        for bad in
            [r#"{"type":"watch","devices":["a"],"for":9}"#, r#"{"type":"watch","devices":[7]}"#, r#"{"type":"stop"}"#, &deep]
        {
            assert_eq!(said(bad), None, "{:.40}", bad);
        }
    }
}

//! Asks VictoriaMetrics. An answer is kept for a time that fits its step, those who ask the same wait for one answer, and a
//! server that is dead isn't asked.
//!
//! Where there are several, all hold the same: the first that answers is asked, and one that has been away comes last until
//! it has what it missed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use moka::future::Cache;
use serde::Deserialize;
use shared::{DeviceId, Millis};
use tokio::time::Instant;

use crate::breaker::Breaker;
use crate::clock;
use crate::history::Point;
use crate::metrics::{Metrics, label};
use crate::promql::selector;
use crate::remote_write;
use crate::samples;
use crate::settings;
use crate::valkey::Valkey;

/// Time for one try, and for all of them.
const TRY_LIMIT: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(20);
/// Time for one try at a server that did not answer of late, where another can be asked.
const TRIAL_LIMIT: Duration = Duration::from_secs(2);
/// Waits before the second and the third try; each is made longer by up to as much again.
const BACKOFF: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(250)];
/// How long answers are kept, at least and at most.
const KEPT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Most bytes of answers that are kept.
const KEPT_LIMIT_BYTES: u64 = 32 * 1024 * 1024;
/// VictoriaMetrics takes samples some time before it finds them.
const FOUND_AFTER: Duration = Duration::from_secs(3);
/// Samples older than this change what may be kept of their devices.
const LATE_MS: i64 = 60_000;
/// Samples older than this change what may be kept of many. Agents report every ten minutes, some of them at any time: what is
/// younger comes with every request, and an answer that lacks it is over in a minute at most.
const LATE_OF_MANY_MS: i64 = 15 * 60_000;
/// Largest answer that is read.
const ANSWER_LIMIT_BYTES: usize = 32 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// The server can't be reached, or can't answer now.
    #[error("VictoriaMetrics doesn't answer: {0}")]
    Gone(String),
    /// The server doesn't like the question.
    #[error("VictoriaMetrics answers {status}: {text}")]
    Refused {
        /// Its HTTP status, a 4xx.
        status: u16,
        /// What it says.
        text: String,
    },
}

/// A question.
#[derive(Debug, Clone)]
pub struct Question {
    /// Such as `query_range`.
    pub path: &'static str,
    /// Its parameters.
    pub parameters: Vec<(&'static str, String)>,
    /// The time between two points: an answer is kept for half of it.
    pub step_ms: i64,
    /// The only device that the answer depends on, if it is one.
    pub device: Option<DeviceId>,
}

/// A server: what it is called, and how it does.
pub struct Endpoint {
    at: settings::Endpoint,
    label: String,
    breaker: Mutex<Breaker>,
    /// It doesn't have everything yet.
    is_behind: AtomicBool,
}

impl Endpoint {
    fn new(at: &settings::Endpoint) -> Self {
        // Nobody knows yet how long it has been away.
        let is_behind = AtomicBool::new(true);
        Self { at: at.clone(), label: label("endpoint", at.name()), breaker: Mutex::default(), is_behind }
    }

    /// Its base URL.
    pub fn url(&self) -> &str {
        self.at.url()
    }

    /// What the log and the outbox call it.
    pub fn name(&self) -> &str {
        self.at.name()
    }

    /// How metrics name it.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Says whether it lacks something that others may have.
    pub fn set_behind(&self, is_behind: bool) {
        self.is_behind.store(is_behind, Ordering::Relaxed);
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The servers to ask.
pub struct Victoria {
    endpoints: Vec<Endpoint>,
    client: reqwest::Client,
    kept: Cache<String, Arc<Kept>>,
    late: Mutex<Late>,
    shared: Option<Arc<Valkey>>,
    metrics: Arc<Metrics>,
}

struct Kept {
    answer: Result<Bytes, Unanswered>,
    device: Option<DeviceId>,
    made: Instant,
    until: Instant,
}

/// When data came that may change older answers.
#[derive(Default)]
struct Late {
    by_device: HashMap<String, Instant>,
    any: Option<Instant>,
    asked: Option<Instant>,
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    values: Vec<(f64, String)>,
}

impl Victoria {
    /// Servers that hold the same.
    pub fn new(servers: &[settings::Endpoint], shared: Option<Arc<Valkey>>, metrics: Arc<Metrics>) -> Self {
        let weigh = |key: &String, kept: &Arc<Kept>| {
            let bytes = kept.answer.as_ref().map_or(100, Bytes::len);
            u32::try_from(key.len() + bytes).unwrap_or(u32::MAX)
        };
        let kept = Cache::builder().max_capacity(KEPT_LIMIT_BYTES).weigher(weigh).time_to_live(KEPT.1).build();
        let endpoints = servers.iter().map(Endpoint::new).collect();
        Self { endpoints, client: remote_write::client(), kept, late: Mutex::default(), shared, metrics }
    }

    /// What is shared with other collectors, if anything is.
    pub fn shared(&self) -> Option<&Valkey> {
        self.shared.as_deref()
    }

    /// The servers, in the order of the config.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Whether one of the servers has all that there is: what others lack may only be on its way.
    pub fn has_everything(&self) -> bool {
        self.endpoints.iter().any(|endpoint| !endpoint.is_behind.load(Ordering::Relaxed))
    }

    /// Round trips and loss of a device, a point a step; see [`Point`].
    ///
    /// # Errors
    /// When the server can't be asked, with what it says.
    pub async fn points(&self, device: &DeviceId, from: Millis, to: Millis, step_ms: i64) -> Result<Vec<Point>, Unanswered> {
        let ask = |query: String| self.range(query, device, from, to, step_ms);
        let window = |metric| format!("{}[{step_ms}ms]", selector(metric, device));
        // A device that was moved, or is of another type since, has a series for each place.
        let extreme = async |which: &str, metric| {
            let series = ask(format!("{which} by (device_id) ({which}_over_time({}))", window(metric))).await?;
            Ok::<_, Unanswered>(series.into_iter().flatten().collect::<Vec<_>>())
        };
        let mean = async |metric| {
            let window = window(metric);
            let mut series = ask(format!("avg_over_time({window})")).await?;
            if series.len() > 1 {
                let sum = |function| format!("sum by (device_id) ({function}({window}))");
                series = ask(format!("{} / {}", sum("sum_over_time"), sum("count_over_time"))).await?;
            }
            Ok(series.into_iter().flatten().collect::<Vec<_>>())
        };
        let (loss, average, min, max) = tokio::try_join!(
            mean("device_ping_packet_loss"),
            mean("device_ping_rtt_ms"),
            extreme("min", "device_ping_rtt_min_ms"),
            extreme("max", "device_ping_rtt_max_ms"),
        )?;
        let at = |series: &HashMap<Millis, f64>, at: Millis| series.get(&at).copied();
        let [average, min, max] = [average, min, max].map(|series| series.into_iter().collect());
        Ok(loss
            .into_iter()
            .map(|(t, packet_loss)| Point {
                at: t,
                packet_loss,
                rtt_min_ms: at(&min, t),
                rtt_avg_ms: at(&average, t),
                rtt_max_ms: at(&max, t),
            })
            .collect())
    }

    /// One expression at the end of each step, told by the step's start, for each of its series.
    async fn range(
        &self,
        query: String,
        device: &DeviceId,
        from: Millis,
        to: Millis,
        step_ms: i64,
    ) -> Result<Vec<Vec<(Millis, f64)>>, Unanswered> {
        let parameters = vec![
            ("query", query),
            ("start", seconds(from.plus(step_ms))),
            ("end", seconds(to)),
            ("step", format!("{step_ms}ms")),
            // Late data may have changed what was cached there, and the newest minute counts.
            ("nocache", "1".to_owned()),
            ("latency_offset", "1ms".to_owned()),
        ];
        let answer = self.ask(Question { path: "query_range", parameters, step_ms, device: Some(device.clone()) }).await?;
        let strange = |error: String| Unanswered::Gone(format!("its answer can't be read: {error}"));
        let answer: Answer = serde_json::from_slice(&answer).map_err(|error| strange(error.to_string()))?;
        let point = |(t, value): (f64, String)| {
            let value = value.parse::<f64>().map_err(|error| strange(error.to_string()))?;
            Ok((Millis((t * 1000.0).round() as i64).plus(-step_ms), value))
        };
        let is_number = |point: &Result<(Millis, f64), Unanswered>| point.as_ref().map_or(true, |(_, value)| value.is_finite());
        let points = |series: Series| series.values.into_iter().map(point).filter(is_number).collect();
        answer.data.result.into_iter().map(points).collect()
    }

    /// The answer to a question, kept or new.
    ///
    /// # Errors
    /// When there is none.
    pub async fn ask(&self, question: Question) -> Result<Bytes, Unanswered> {
        let Question { path, parameters, step_ms, device } = question;
        self.metrics.add("cache_requests_total", "cache=\"series\"", 1);
        self.late().asked = Some(Instant::now());
        let key = format!("{path} {parameters:?}");
        let half = Duration::from_millis(u64::try_from(step_ms / 2).unwrap_or_default()).clamp(KEPT.0, KEPT.1);
        let new = async {
            if let Some(kept) = self.others(&key, device.as_ref(), half).await {
                return Arc::new(kept);
            }
            let (made, made_at) = (Instant::now(), clock::now());
            let answer = self.ask_server(path, &parameters).await;
            self.metrics.observe("vm_query_duration_seconds", "", made.elapsed());
            if let (Some(shared), Ok(body)) = (&self.shared, &answer) {
                shared.keep(&key, body, made_at, half).await;
            }
            // Whoever waits shares a failure; whoever comes later asks again.
            let until = if answer.is_ok() { Instant::now() + half } else { made };
            Arc::new(Kept { answer, device: device.clone(), made, until })
        };
        let entry = self.kept.entry(key.clone()).or_insert_with_if(new, |kept| !self.holds(kept)).await;
        if !entry.is_fresh() {
            self.metrics.add("cache_hits_total", "cache=\"series\"", 1);
        }
        entry.into_value().answer.clone()
    }

    /// What another collector was answered, if that still counts.
    async fn others(&self, question: &str, device: Option<&DeviceId>, time: Duration) -> Option<Kept> {
        let found = self.shared.as_ref()?.find(question, device.map(DeviceId::as_str)).await?;
        let made = Instant::now().checked_sub(found.age)?;
        let kept = Kept { answer: Ok(found.body), device: device.cloned(), made, until: made + time };
        self.holds(&kept).then_some(kept)
    }

    fn holds(&self, kept: &Kept) -> bool {
        let late = self.late();
        let late = match &kept.device {
            Some(device) => late.by_device.get(device.as_str()).copied(),
            None => late.any,
        };
        Instant::now() < kept.until && late.is_none_or(|late| kept.made > late)
    }

    /// A remote-write request has been taken: what it says of earlier minutes makes answers void.
    pub async fn has_taken(&self, body: &[u8], now: Millis) {
        let is_asked = self.late().asked.is_some_and(|asked| asked.elapsed() < KEPT.1 + LIMIT);
        // Others may have been asked.
        if !is_asked && self.shared.is_none() {
            return;
        }
        let devices = samples::devices_before(body, now.plus(-LATE_MS));
        if devices.is_empty() {
            return;
        }
        let concerns_many = !samples::devices_before(body, now.plus(-LATE_OF_MANY_MS)).is_empty();
        if let Some(shared) = &self.shared {
            let many = concerns_many.then_some(None);
            let devices: Vec<_> = many.into_iter().chain(devices.iter().map(|device| Some(device.as_str()))).collect();
            shared.mark_late(&devices, now.plus(FOUND_AFTER.as_millis() as i64)).await;
        }
        let found = Instant::now() + FOUND_AFTER;
        let mut late = self.late();
        if concerns_many {
            late.any = Some(found);
        }
        late.by_device.retain(|_, at| at.elapsed() < KEPT.1);
        late.by_device.extend(devices.into_iter().map(|device| (device, found)));
    }

    async fn ask_server(&self, path: &str, parameters: &[(&'static str, String)]) -> Result<Bytes, Unanswered> {
        let mut waits = BACKOFF.iter();
        let tries = async {
            loop {
                let mut why = None;
                for endpoint in self.in_order() {
                    match self.ask_one(endpoint, path, parameters).await {
                        Some(Err(Unanswered::Gone(reason))) => why = Some(reason),
                        Some(outcome) => return outcome,
                        None => {}
                    }
                }
                let Some(reason) = why else {
                    return Err(Unanswered::Gone("it has not answered for a while".to_owned()));
                };
                let is_hopeless = self.endpoints.iter().all(|endpoint| endpoint.breaker().is_open());
                let Some(wait) = waits.next().filter(|_| !is_hopeless) else {
                    tracing::warn!(reason, "VictoriaMetrics can't be asked");
                    return Err(Unanswered::Gone(reason));
                };
                tokio::time::sleep(wait.mul_f64(1.0 + rand::random::<f64>())).await;
            }
        };
        let limited = tokio::time::timeout(LIMIT, tries).await;
        limited.unwrap_or_else(|_| Err(Unanswered::Gone("it takes too long".to_owned())))
    }

    /// Those that have everything first.
    fn in_order(&self) -> Vec<&Endpoint> {
        let mut all: Vec<&Endpoint> = self.endpoints.iter().collect();
        all.sort_by_key(|endpoint| endpoint.is_behind.load(Ordering::Relaxed));
        all
    }

    /// One try at one server; `None` if it isn't worth a question now.
    async fn ask_one(
        &self,
        endpoint: &Endpoint,
        path: &str,
        parameters: &[(&'static str, String)],
    ) -> Option<Result<Bytes, Unanswered>> {
        let was_open = {
            let mut breaker = endpoint.breaker();
            breaker.lets(Instant::now()).then(|| breaker.is_open())?
        };
        // Whether a dead one lives again is no reason to keep somebody waiting whom another could answer.
        let limit = if was_open && self.endpoints.len() > 1 { TRIAL_LIMIT } else { TRY_LIMIT };
        let outcome = tokio::time::timeout(limit, self.try_once(endpoint, path, parameters)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(Unanswered::Gone("it takes too long".to_owned())));
        let is_open = {
            let mut breaker = endpoint.breaker();
            match &outcome {
                Err(Unanswered::Gone(_)) => breaker.failed(Instant::now()),
                Ok(_) | Err(Unanswered::Refused { .. }) => breaker.succeeded(),
            }
            breaker.is_open()
        };
        self.metrics.set("vm_breaker_open", endpoint.label(), f64::from(u8::from(is_open)));
        if let Err(Unanswered::Gone(reason)) = &outcome {
            self.failed(endpoint, "gone");
            if is_open && !was_open && self.endpoints.len() > 1 {
                tracing::warn!(endpoint = endpoint.name(), reason, "one VictoriaMetrics doesn't answer: others are asked");
            }
        }
        Some(outcome)
    }

    fn failed(&self, endpoint: &Endpoint, reason: &str) {
        self.metrics.add("vm_query_errors_total", &format!("{},{}", endpoint.label(), label("reason", reason)), 1);
    }

    async fn try_once(
        &self,
        endpoint: &Endpoint,
        path: &str,
        parameters: &[(&'static str, String)],
    ) -> Result<Bytes, Unanswered> {
        let gone = |error: reqwest::Error| Unanswered::Gone(format!("{:#}", anyhow::Error::from(error)));
        // POST: a query may be longer than an address.
        let request = self.client.post(format!("{}/api/v1/{path}", endpoint.url())).form(parameters);
        let mut response = request.send().await.map_err(gone)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(gone)? {
            if body.len() + chunk.len() > ANSWER_LIMIT_BYTES {
                self.failed(endpoint, "too_large");
                let text = format!("the answer is larger than {ANSWER_LIMIT_BYTES} bytes: ask for less, or with a longer step");
                return Err(Unanswered::Refused { status: 422, text });
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return Ok(body.into());
        }
        let text = said(&body);
        if status.is_server_error() || [408, 429].contains(&status.as_u16()) {
            return Err(Unanswered::Gone(format!("{status}: {text}")));
        }
        self.failed(endpoint, "refused");
        tracing::warn!(%status, text, path, endpoint = endpoint.name(), "VictoriaMetrics refuses a question");
        Err(Unanswered::Refused { status: status.as_u16(), text })
    }

    fn late(&self) -> MutexGuard<'_, Late> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reason in an error's body.
fn said(body: &[u8]) -> String {
    let reason = serde_json::from_slice(body).ok().and_then(|body: serde_json::Value| Some(body["error"].as_str()?.to_owned()));
    let text = reason.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    text.chars().take(500).collect()
}

/// A moment as PromQL's API takes it.
pub fn seconds(at: Millis) -> String {
    format!("{}.{:03}", at.0.div_euclid(1000), at.0.rem_euclid(1000))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use axum::Router;
    use axum::extract::State;
    use axum::http::StatusCode;
    use axum::response::IntoResponse;
    use axum::routing::post;
    use tokio::net::TcpListener;

    use super::*;

    const NOW: Millis = Millis(1_795_442_400_000);
    const EMPTY: &str = r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;

    /// A server that answers as a script says, and then well; and how often it was asked.
    struct Server {
        asked: Arc<AtomicUsize>,
        victoria: Victoria,
    }

    async fn server(script: &'static [(u16, &'static str)]) -> Server {
        let (at, asked) = endpoint(script).await;
        Server { asked, victoria: Victoria::new(&[at], None, Arc::default()) }
    }

    async fn endpoint(script: &'static [(u16, &'static str)]) -> (settings::Endpoint, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let answer = move |State(asked): State<Arc<AtomicUsize>>| async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let (status, text) = script.get(asked.fetch_add(1, Ordering::Relaxed)).copied().unwrap_or((200, EMPTY));
            (StatusCode::from_u16(status).expect("a status"), text).into_response()
        };
        let router = Router::new().route("/api/v1/{*path}", post(answer)).with_state(Arc::clone(&asked));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (url.parse().expect("a URL"), asked)
    }

    impl Server {
        async fn ask(&self, device: &str) -> Result<Vec<Point>, Unanswered> {
            let device = device.parse().expect("an id");
            self.victoria.points(&device, NOW.plus(-3_600_000), NOW, 300_000).await
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn those_who_ask_the_same_get_one_answer() {
        let server = server(&[]).await;
        let answers = futures_util::future::join_all((0..16).map(|_| server.ask("a"))).await;
        assert!(answers.iter().all(Result::is_ok));
        // Four series.
        assert_eq!(server.asked(), 4);
        server.ask("b").await.expect("an answer");
        assert_eq!(server.asked(), 8);
        assert_eq!(server.victoria.metrics.value("cache_hits_total", "cache=\"series\""), 60.0);
    }

    #[tokio::test]
    async fn what_can_pass_is_tried_again_and_a_refusal_is_not() {
        let busy = server(&[(429, "busy"), (503, "starting")]).await;
        let question =
            |query: &str| Question { path: "query", parameters: vec![("query", query.to_owned())], step_ms: 0, device: None };
        assert_eq!(busy.victoria.ask(question("1")).await.expect("an answer"), EMPTY);
        assert_eq!(busy.asked(), 3);
        let strict = server(&[(422, r#"{"status":"error","errorType":"422","error":"unknown function"}"#)]).await;
        let refused = strict.victoria.ask(question("f(1)")).await;
        assert_eq!(refused, Err(Unanswered::Refused { status: 422, text: "unknown function".to_owned() }));
        assert_eq!(strict.asked(), 1);
        // A failure isn't kept.
        assert!(strict.victoria.ask(question("f(1)")).await.is_ok());
    }

    #[tokio::test]
    async fn a_dead_server_costs_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        drop(listener);
        let victoria = Victoria::new(&[url.parse().expect("a URL")], None, Arc::default());
        let device = "a".parse().expect("an id");
        let ask = || victoria.points(&device, NOW.plus(-60_000), NOW, 60_000);
        assert!(ask().await.is_err());
        let began = Instant::now();
        for _ in 0..200 {
            assert!(matches!(ask().await, Err(Unanswered::Gone(_))));
        }
        assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
        let label = victoria.endpoints()[0].label();
        assert_eq!(victoria.metrics.value("vm_breaker_open", label), 1.0);
        assert!(victoria.metrics.value("vm_query_errors_total", &format!("{label},reason=\"gone\"")) < 16.0);
    }

    #[tokio::test]
    async fn the_first_that_answers_and_has_everything_is_asked() {
        let ((first, asked_first), (second, asked_second)) = (endpoint(&[]).await, endpoint(&[]).await);
        let dead: settings::Endpoint = "http://127.0.0.1:1".parse().expect("a URL");
        let victoria = Victoria::new(&[dead, first, second], None, Arc::default());
        let ask = async |n: i64| {
            let parameters = vec![("query", n.to_string())];
            victoria.ask(Question { path: "query", parameters, step_ms: 60_000, device: None }).await
        };
        let asked = || (asked_first.load(Ordering::Relaxed), asked_second.load(Ordering::Relaxed));
        for n in 0..10 {
            ask(n).await.expect("one of them answers");
        }
        assert_eq!(asked(), (10, 0));
        let label = |at: usize| victoria.endpoints()[at].label();
        assert_eq!(victoria.metrics.value("vm_breaker_open", label(0)), 1.0);
        assert!(victoria.metrics.value("vm_query_errors_total", &format!("{},reason=\"gone\"", label(0))) < 6.0);
        // One that has been away is asked when it has what it missed.
        victoria.endpoints()[2].set_behind(false);
        ask(10).await.expect("an answer");
        assert_eq!(asked(), (10, 1));
        victoria.endpoints()[1].set_behind(false);
        ask(11).await.expect("an answer");
        assert_eq!(asked(), (11, 1));
    }

    #[tokio::test]
    async fn a_refusal_of_one_is_the_answer_of_all() {
        let ((first, _), (second, asked_second)) = (endpoint(&[(422, "no")]).await, endpoint(&[]).await);
        let victoria = Victoria::new(&[first, second], None, Arc::default());
        let question = Question { path: "query", parameters: Vec::new(), step_ms: 0, device: None };
        assert!(matches!(victoria.ask(question).await, Err(Unanswered::Refused { status: 422, .. })));
        assert_eq!(asked_second.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn an_answer_that_makes_no_sense_is_none() {
        for body in ["", "<html>", "{}", r#"{"data":{"result":[{"values":[[1,"x"]]}]}}"#] {
            let answer: &'static [(u16, &'static str)] = Box::leak(vec![(200, body); 4].into_boxed_slice());
            assert!(matches!(server(answer).await.ask("a").await, Err(Unanswered::Gone(_))), "{body}");
        }
        let nan = r#"{"data":{"result":[{"values":[[1795442100,"NaN"],[1795442400,"1.5"]]}]}}"#;
        let answer: &'static [(u16, &'static str)] = Box::leak(vec![(200, nan); 4].into_boxed_slice());
        let points = server(answer).await.ask("a").await.expect("points");
        assert_eq!(points.iter().map(|point| point.packet_loss).collect::<Vec<_>>(), [1.5]);
    }

    #[tokio::test]
    async fn a_device_that_was_moved_has_one_line_of_points() {
        let answer = |axum::Form(asked): axum::Form<HashMap<String, String>>| async move {
            let query = asked.get("query").map(String::as_str).unwrap_or_default();
            // Two series as long as nobody asks for them together.
            if query.starts_with("avg_over_time") {
                let one = |values: &str| format!("{{\"values\":[{values}]}}");
                let (old, new) = (one("[1795442100,\"10\"],[1795442400,\"30\"]"), one("[1795442400,\"50\"],[1795442700,\"20\"]"));
                return format!("{{\"data\":{{\"result\":[{old},{new}]}}}}");
            }
            assert!(query.contains("by (device_id)"), "{query}");
            let values = "[1795442100,\"10\"],[1795442400,\"35\"],[1795442700,\"20\"]";
            format!("{{\"data\":{{\"result\":[{{\"values\":[{values}]}}]}}}}")
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let router = Router::new().route("/api/v1/query_range", post(answer));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let victoria = Victoria::new(&[url.parse().expect("a URL")], None, Arc::default());
        let device = "a".parse().expect("an id");
        let points = victoria.points(&device, NOW.plus(-600_000), NOW.plus(300_000), 300_000).await.expect("points");
        let told: Vec<_> =
            points.iter().map(|point| (point.at.since(NOW) / 1_000, point.packet_loss, point.rtt_avg_ms)).collect();
        assert_eq!(told, [(-600, 10.0, Some(10.0)), (-300, 35.0, Some(35.0)), (0, 20.0, Some(20.0))]);
    }

    #[tokio::test]
    async fn late_samples_void_what_they_change() {
        let server = server(&[]).await;
        for device in ["a", "b"] {
            server.ask(device).await.expect("an answer");
        }
        let request = |at: Millis| samples::of_device_for_tests("a", at);
        server.victoria.has_taken(&request(NOW), NOW).await;
        server.ask("a").await.expect("an answer");
        assert_eq!(server.asked(), 8, "what is new changes nothing that is kept");
        server.victoria.has_taken(&request(NOW.plus(-LATE_MS - 1)), NOW).await;
        server.ask("b").await.expect("an answer");
        assert_eq!(server.asked(), 8, "another device's");
        server.ask("a").await.expect("an answer");
        assert_eq!(server.asked(), 12);
    }

    #[tokio::test]
    async fn reports_that_come_as_they_always_do_leave_the_answers_about_many() {
        let server = server(&[]).await;
        let ask = async || {
            let parameters = vec![("query", "sum(device_ping_status)".to_owned())];
            server
                .victoria
                .ask(Question { path: "query_range", parameters, step_ms: 60_000, device: None })
                .await
                .expect("an answer");
            server.asked()
        };
        assert_eq!(ask().await, 1);
        // Ten minutes of a device, as its agent tells them.
        for minutes in 0..=10 {
            server.victoria.has_taken(&samples::of_device_for_tests("a", NOW.plus(-minutes * 60_000 - 1)), NOW).await;
        }
        assert_eq!(ask().await, 1);
        server.victoria.has_taken(&samples::of_device_for_tests("a", NOW.plus(-LATE_OF_MANY_MS - 1)), NOW).await;
        assert_eq!(ask().await, 2);
    }
}

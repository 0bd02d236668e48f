//! Answers as they go out: with an ETag, compressed as the caller likes, and made once for all who ask the same.
//!
//! What answers of the fleet's state hold is made anew when the fleet has changed, beside the questions: until it is, the one
//! before is told, which says when it was made. So a fleet that always changes costs no more than one that rarely does, and
//! nobody waits for what others have asked before.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use moka::future::Cache;
use serde::Serialize;
use shared::Millis;
use tokio::sync::{Mutex, OnceCell, Semaphore};
use tokio::time::Instant;

use super::problem::Problem;
use crate::metrics::Metrics;
use crate::revision::Revision;

/// What is smaller isn't worth compressing.
const COMPRESSED_FROM_BYTES: usize = 1_024;
/// An answer over this size is compressed on a thread of its own.
const LARGE_BYTES: usize = 256 * 1024;
/// How far behind the fleet an answer may be; twice that while it is being made anew.
const LAG_LIMIT: Duration = Duration::from_millis(250);
/// The same in times of what it takes to make one, where that is more: an estate of 100,000 takes a while.
const LAG_TIMES: u32 = 8;
/// But never more than this: an answer may also have taken long because something else did.
const LAG_MOST: Duration = Duration::from_secs(2);
/// Most bytes of answers that are kept.
const KEPT_LIMIT_BYTES: u64 = 48 * 1024 * 1024;
/// How long an answer that nobody asks for again is kept.
const KEPT_FOR: Duration = Duration::from_secs(20);
/// Locks by which equal requests find each other.
const STRIPES: usize = 64;
/// Large answers that are made or compressed at the same time.
const MAKERS: usize = 2;
/// Largest body of another kind of answer.
const OTHER_LIMIT_BYTES: usize = 64 * 1024 * 1024;

/// A JSON document for whoever asks.
#[derive(Debug, Clone)]
pub struct Answer(Arc<Written>);

#[derive(Debug)]
struct Written {
    plain: Bytes,
    etag: HeaderValue,
    gzip: OnceCell<Bytes>,
    zstd: OnceCell<Bytes>,
    state: State,
    made: Instant,
    took: Duration,
}

/// Of which state an answer is.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// The fleet's revision.
    revision: u64,
    /// How many changes people had made.
    edits: u64,
}

impl Answer {
    /// An answer of bytes that are JSON.
    pub fn of_bytes(plain: Bytes) -> Self {
        let etag = etag(&plain);
        Self::tagged(plain, etag, State::default(), Duration::ZERO)
    }

    /// An object, and when it was made. The time alone makes no new version of it.
    pub fn dated(object: &impl Serialize, now: Millis) -> Result<Self, Problem> {
        Ok(Self::dated_text(serde_json::to_vec(object).map_err(Problem::internal)?, now, State::default(), Duration::ZERO))
    }

    /// The same of a text that is an object with at least one field.
    fn dated_text(mut text: Vec<u8>, now: Millis, state: State, took: Duration) -> Self {
        let etag = etag(&text);
        // The object goes on.
        text.pop();
        text.extend_from_slice(format!(",\"now\":{}}}", now.0).as_bytes());
        Self::tagged(text.into(), etag, state, took)
    }

    fn tagged(plain: Bytes, etag: HeaderValue, state: State, took: Duration) -> Self {
        let (gzip, zstd) = (OnceCell::new(), OnceCell::new());
        Self(Arc::new(Written { plain, etag, gzip, zstd, state, made: Instant::now(), took }))
    }

    /// Compresses it as the answer before was asked for. Blocks.
    fn pack_as(&self, before: &Self) {
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            if let (Some((kept, pack)), Some((other, _))) = (self.packed(encoding), before.packed(encoding))
                && other.initialized()
                && let Ok(packed) = pack(&self.0.plain)
            {
                // It is nobody else's yet.
                let _ = kept.set(packed.into());
            }
        }
    }

    /// Where a compressed form is kept, and what makes it.
    fn packed(&self, encoding: Encoding) -> Option<(&OnceCell<Bytes>, Pack)> {
        match encoding {
            Encoding::Plain => None,
            Encoding::Gzip => Some((&self.0.gzip, gzip)),
            Encoding::Zstd => Some((&self.0.zstd, |bytes| zstd::bulk::compress(bytes, 1))),
        }
    }

    async fn encoded(&self, encoding: Encoding) -> Bytes {
        let Some((kept, pack)) = self.packed(encoding) else { return self.0.plain.clone() };
        let make = async || {
            let plain = self.0.plain.clone();
            let packed = if plain.len() < LARGE_BYTES {
                pack(&plain)
            } else {
                let _permit = MAKING.acquire().await;
                tokio::task::spawn_blocking(move || pack(&plain)).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
            };
            // Memory is all that these need.
            packed.map(Bytes::from).unwrap_or_default()
        };
        kept.get_or_init(make).await.clone()
    }

    async fn deliver(self, asked: &Asked) -> Response {
        let encoding = if self.0.plain.len() < COMPRESSED_FROM_BYTES { Encoding::Plain } else { asked.encoding };
        let mut response = if asked.knows(&self.0.etag) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let mut response = Body::from(self.encoded(encoding).await).into_response();
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            if let Some(name) = encoding.name() {
                response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
            }
            response
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, self.0.etag.clone());
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        // A browser may keep it, and asks each time whether it still holds.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        response
    }
}

type Pack = fn(&[u8]) -> std::io::Result<Vec<u8>>;

static MAKING: Semaphore = Semaphore::const_new(MAKERS);

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(bytes.len() / 8), flate2::Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// A weak one: the bytes differ by encoding, and by when they were written.
fn etag(bytes: &[u8]) -> HeaderValue {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    let text = format!("W/\"{:016x}\"", hasher.finish());
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("W/\"\""))
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = Response::default();
        response.extensions_mut().insert(self);
        response
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Plain,
    Gzip,
    Zstd,
}

impl Encoding {
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }
}

/// What a request says of the form of its answer.
struct Asked {
    encoding: Encoding,
    known: Vec<String>,
}

impl Asked {
    fn of(headers: &HeaderMap) -> Self {
        let words = |name| {
            let lines = headers.get_all(name).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
            lines.flat_map(|line| line.split(',')).map(str::trim).collect::<Vec<_>>()
        };
        let known = words(header::IF_NONE_MATCH).into_iter().map(|tag| tag.trim_start_matches("W/").to_owned()).collect();
        let accepted = words(header::ACCEPT_ENCODING);
        let accepts = |wanted: &str| {
            accepted.iter().any(|one| {
                let (name, weight) = one.split_once(';').unwrap_or((one, ""));
                let weight = weight.trim().strip_prefix("q=").map_or(Some(1.0), |q| q.trim().parse::<f32>().ok());
                name.trim().eq_ignore_ascii_case(wanted) && weight.is_some_and(|q| q > 0.0)
            })
        };
        let encoding = match () {
            () if accepts("zstd") => Encoding::Zstd,
            () if accepts("gzip") => Encoding::Gzip,
            () => Encoding::Plain,
        };
        Self { encoding, known }
    }

    fn knows(&self, etag: &HeaderValue) -> bool {
        let etag = etag.to_str().unwrap_or_default().trim_start_matches("W/");
        self.known.iter().any(|known| known == etag || known == "*")
    }
}

/// Gives JSON its form: 304 where the caller has it, else compressed as it likes.
pub(super) async fn form(request: Request, next: Next) -> Response {
    let mut asked = Asked::of(request.headers());
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        // What a change answers is no version of anything.
        asked.known.clear();
    }
    let mut response = next.run(request).await;
    if let Some(answer) = response.extensions_mut().remove::<Answer>() {
        return answer.deliver(&asked).await;
    }
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if response.status() != StatusCode::OK || !is_json {
        return response;
    }
    let (head, body) = response.into_parts();
    match to_bytes(body, OTHER_LIMIT_BYTES).await {
        Ok(bytes) => {
            let mut response = Answer::of_bytes(bytes).deliver(&asked).await;
            for cookie in head.headers.get_all(header::SET_COOKIE) {
                response.headers_mut().append(header::SET_COOKIE, cookie.clone());
            }
            response
        }
        Err(error) => Problem::internal(error).into_response(),
    }
}

/// Answers about the fleet's state, by what was asked.
pub struct Answers {
    kept: Cache<String, Answer>,
    stripes: Vec<Arc<Mutex<()>>>,
    edits: AtomicU64,
    metrics: Arc<Metrics>,
}

impl Answers {
    /// Keeps nothing yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let weigh = |key: &String, answer: &Answer| u32::try_from(key.len() + answer.0.plain.len()).unwrap_or(u32::MAX);
        let kept = Cache::builder().max_capacity(KEPT_LIMIT_BYTES).weigher(weigh).time_to_idle(KEPT_FOR).build();
        let stripes = std::iter::repeat_with(Arc::default).take(STRIPES).collect();
        Self { kept, stripes, edits: AtomicU64::new(0), metrics }
    }

    /// Somebody has changed something and will look for it: no answer from before is told any more.
    pub(super) fn are_outdated(&self) {
        self.edits.fetch_add(1, Ordering::AcqRel);
    }

    /// The answer to `asked`, of the state that has this revision or was it a moment ago. `make` writes an object and says when;
    /// it may take a while.
    pub(super) async fn of(
        &self,
        asked: String,
        revision: &Revision,
        make: impl FnOnce() -> (Vec<u8>, Millis) + Send + 'static,
    ) -> Result<Answer, Problem> {
        self.metrics.add("cache_requests_total", "cache=\"answers\"", 1);
        let stripe = self.stripe(&asked)?;
        let before = self.kept.get(&asked).await;
        if let Some(kept) = before.as_ref().filter(|kept| kept.0.state.edits == self.edits.load(Ordering::Acquire)) {
            let (lag, limit) = (revision.behind(kept.0.state.revision, Instant::now()), kept.lag_limit());
            let lag = lag.unwrap_or(Duration::MAX);
            if lag < limit {
                if kept.0.state.revision != revision.number()
                    && kept.0.made.elapsed() >= limit / 2
                    && let Ok(alone) = Arc::clone(&stripe).try_lock_owned()
                {
                    let renewed = self.write(asked, before.clone(), revision, make);
                    tokio::spawn(async move {
                        let _alone = alone;
                        // What has failed is logged, and the next question tries again.
                        let _ = renewed.await;
                    });
                }
                return Ok(self.hit(kept));
            }
            if lag < 2 * limit && stripe.try_lock().is_err() {
                return Ok(self.hit(kept));
            }
        }
        let _alone = stripe.lock().await;
        // Whoever was before us may have made it.
        let edits = self.edits.load(Ordering::Acquire);
        let is_good = |kept: &Answer| {
            let lag = revision.behind(kept.0.state.revision, Instant::now());
            kept.0.state.edits == edits && lag.is_some_and(|lag| lag < kept.lag_limit())
        };
        let before = self.kept.get(&asked).await;
        if let Some(kept) = before.as_ref().filter(|kept| is_good(kept)) {
            return Ok(self.hit(kept));
        }
        self.write(asked, before, revision, make).await
    }

    /// Writes an answer anew, on a thread that may block, and keeps it.
    fn write<M: FnOnce() -> (Vec<u8>, Millis) + Send + 'static>(
        &self,
        asked: String,
        before: Option<Answer>,
        revision: &Revision,
        make: M,
    ) -> impl Future<Output = Result<Answer, Problem>> + Send + use<M> {
        // Read before the state: what changes in between makes it older than it is, never newer.
        let state = State { revision: revision.number(), edits: self.edits.load(Ordering::Acquire) };
        let kept = self.kept.clone();
        let write = move || {
            let began = Instant::now();
            let (text, now) = make();
            let answer = Answer::dated_text(text, now, state, began.elapsed());
            if let Some(before) = before {
                answer.pack_as(&before);
            }
            answer
        };
        async move {
            let answer = tokio::task::spawn_blocking(write).await.map_err(Problem::internal)?;
            kept.insert(asked, answer.clone()).await;
            Ok(answer)
        }
    }

    fn stripe(&self, asked: &str) -> Result<Arc<Mutex<()>>, Problem> {
        let mut hasher = DefaultHasher::new();
        asked.hash(&mut hasher);
        let at = usize::try_from(hasher.finish() % STRIPES as u64).unwrap_or_default();
        self.stripes.get(at).cloned().ok_or_else(|| Problem::internal("no such stripe"))
    }

    fn hit(&self, answer: &Answer) -> Answer {
        self.metrics.add("cache_hits_total", "cache=\"answers\"", 1);
        answer.clone()
    }
}

impl Answer {
    /// How far it may be behind.
    fn lag_limit(&self) -> Duration {
        (self.0.took * LAG_TIMES).clamp(LAG_LIMIT, LAG_MOST)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().expect("a header"))).collect()
    }

    #[test]
    fn the_encoding_is_one_that_the_caller_takes() {
        for (accepted, expected) in [
            ("gzip, deflate, br, zstd", Encoding::Zstd),
            ("gzip;q=1.0, zstd;q=0", Encoding::Gzip),
            ("GZIP", Encoding::Gzip),
            ("zstd;q=nonsense", Encoding::Plain),
            ("br", Encoding::Plain),
            ("", Encoding::Plain),
        ] {
            assert_eq!(Asked::of(&headers(&[(header::ACCEPT_ENCODING, accepted)])).encoding, expected, "{accepted}");
        }
    }

    #[tokio::test]
    async fn the_time_alone_makes_no_new_version_and_each_encoding_holds_the_same() {
        let object = serde_json::json!({ "list": vec!["a device"; 1_000] });
        let (one, other) = (Answer::dated(&object, Millis(1)).expect("JSON"), Answer::dated(&object, Millis(2)).expect("JSON"));
        assert_eq!(one.0.etag, other.0.etag);
        let plain = one.encoded(Encoding::Plain).await;
        assert!(plain.ends_with(b"],\"now\":1}"));
        let packed = one.encoded(Encoding::Zstd).await;
        assert_eq!(zstd::bulk::decompress(&packed, plain.len()).expect("zstd"), plain);
        let mut unpacked = Vec::new();
        let packed = one.encoded(Encoding::Gzip).await;
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut unpacked).expect("gzip");
        assert_eq!(unpacked, plain);
        let tag = one.0.etag.to_str().expect("text");
        let asked = Asked::of(&headers(&[(header::IF_NONE_MATCH, &format!("\"x\", {tag}"))]));
        assert_eq!(other.deliver(&asked).await.status(), StatusCode::NOT_MODIFIED);
    }

    /// What is asked, and how often an answer was made.
    #[derive(Clone, Default)]
    struct Made(Arc<AtomicUsize>);

    impl Made {
        async fn ask(&self, answers: &Answers, name: &str, revision: &Revision) -> Answer {
            let made = Arc::clone(&self.0);
            let make = move || {
                let time = made.fetch_add(1, Ordering::Relaxed);
                (format!("{{\"a\":\"{time} {}\"}}", "x".repeat(COMPRESSED_FROM_BYTES)).into_bytes(), Millis(1))
            };
            answers.of(name.to_owned(), revision, make).await.expect("an answer")
        }

        fn times(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// A change that is over for long, and one that has only just come however long the test takes.
    fn long_ago() -> Instant {
        Instant::now() - 4 * LAG_LIMIT
    }

    fn just_now() -> Instant {
        Instant::now() + Duration::from_secs(3_600)
    }

    #[tokio::test]
    async fn who_asks_the_same_of_the_same_state_shares_one_answer() {
        let (answers, revision, made) = (Answers::new(Arc::default()), Revision::default(), Made::default());
        futures_util::future::join_all((0..16).map(|_| made.ask(&answers, "same", &revision))).await;
        assert_eq!(made.times(), 1);
        made.ask(&answers, "other", &revision).await;
        revision.step(long_ago());
        made.ask(&answers, "same", &revision).await;
        assert_eq!(made.times(), 3, "it is of another state");
    }

    #[tokio::test]
    async fn after_a_change_nobody_waits_and_the_answer_is_made_anew_as_it_was_asked_for() {
        let (answers, revision, made) = (Answers::new(Arc::default()), Revision::default(), Made::default());
        let first = made.ask(&answers, "a", &revision).await;
        first.encoded(Encoding::Zstd).await;
        revision.step(just_now());
        assert!(Arc::ptr_eq(&first.0, &made.ask(&answers, "a", &revision).await.0), "it is told while it is a little behind");
        let renewed = loop {
            let told = made.ask(&answers, "a", &revision).await;
            if !Arc::ptr_eq(&first.0, &told.0) {
                break told;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert_eq!(made.times(), 2, "one is made for all who ask");
        assert!(renewed.0.zstd.initialized() && !renewed.0.gzip.initialized());
        assert_eq!(renewed.0.state.revision, 1);
    }

    #[tokio::test]
    async fn who_has_changed_something_finds_it() {
        let (answers, revision, made) = (Answers::new(Arc::default()), Revision::default(), Made::default());
        made.ask(&answers, "a", &revision).await;
        revision.step(just_now());
        answers.are_outdated();
        made.ask(&answers, "a", &revision).await;
        assert_eq!(made.times(), 2);
    }

    #[tokio::test]
    async fn while_an_answer_takes_long_the_one_before_is_told_and_not_for_ever() {
        let (answers, revision, made) = (Answers::new(Arc::default()), Revision::default(), Made::default());
        let first = made.ask(&answers, "a", &revision).await;
        let _being_made = answers.stripe("a").expect("there is one").lock_owned().await;
        revision.step(just_now());
        assert!(Arc::ptr_eq(&first.0, &made.ask(&answers, "a", &revision).await.0));
        let waits = Revision::default();
        waits.step(long_ago());
        let asked = tokio::time::timeout(Duration::from_millis(50), made.ask(&answers, "a", &waits)).await;
        assert!(asked.is_err(), "it is too far behind");
    }
}

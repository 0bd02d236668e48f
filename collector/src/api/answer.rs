//! Answers as they go out: with an ETag, compressed as the caller likes, and made once for all who ask the same.
//!
//! What answers of the fleet's state hold is made anew when the fleet has changed; large ones at most every
//! [`LARGE_AGE`], so that a fleet that always changes doesn't cost more than one that rarely does.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::sync::Arc;
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

/// What is smaller isn't worth compressing.
const COMPRESSED_FROM_BYTES: usize = 1_024;
/// An answer over this size is large.
const LARGE_BYTES: usize = 256 * 1024;
/// How old a large answer may be although the fleet has changed since; twice that while it is being made anew.
const LARGE_AGE: Duration = Duration::from_millis(250);
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
    revision: u64,
    made: Instant,
}

impl Answer {
    /// An answer of bytes that are JSON.
    pub fn of_bytes(plain: Bytes) -> Self {
        let etag = etag(&plain);
        Self::tagged(plain, etag, 0)
    }

    /// An object, and when it was made. The time alone makes no new version of it.
    pub fn dated(object: &impl Serialize, now: Millis) -> Result<Self, Problem> {
        Ok(Self::dated_text(serde_json::to_vec(object).map_err(Problem::internal)?, now, 0))
    }

    /// The same of a text that is an object with at least one field.
    fn dated_text(mut text: Vec<u8>, now: Millis, revision: u64) -> Self {
        let etag = etag(&text);
        // The object goes on.
        text.pop();
        text.extend_from_slice(format!(",\"now\":{}}}", now.0).as_bytes());
        Self::tagged(text.into(), etag, revision)
    }

    fn tagged(plain: Bytes, etag: HeaderValue, revision: u64) -> Self {
        let (gzip, zstd) = (OnceCell::new(), OnceCell::new());
        Self(Arc::new(Written { plain, etag, gzip, zstd, revision, made: Instant::now() }))
    }

    async fn encoded(&self, encoding: Encoding) -> Bytes {
        let (kept, pack): (_, Pack) = match encoding {
            Encoding::Plain => return self.0.plain.clone(),
            Encoding::Gzip => (&self.0.gzip, gzip),
            Encoding::Zstd => (&self.0.zstd, |bytes| zstd::bulk::compress(bytes, 1)),
        };
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
    stripes: Vec<Mutex<()>>,
    metrics: Arc<Metrics>,
}

impl Answers {
    /// Keeps nothing yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let weigh = |key: &String, answer: &Answer| u32::try_from(key.len() + answer.0.plain.len()).unwrap_or(u32::MAX);
        let kept = Cache::builder().max_capacity(KEPT_LIMIT_BYTES).weigher(weigh).time_to_idle(KEPT_FOR).build();
        Self { kept, stripes: std::iter::repeat_with(Mutex::default).take(STRIPES).collect(), metrics }
    }

    /// The answer to `asked` at a revision of the state. `make` writes an object and says when; it may take a while.
    pub(super) async fn of(
        &self,
        asked: String,
        revision: impl Fn() -> u64,
        make: impl FnOnce() -> (Vec<u8>, Millis) + Send + 'static,
    ) -> Result<Answer, Problem> {
        self.metrics.add("cache_requests_total", "cache=\"answers\"", 1);
        let kept = self.kept.get(&asked).await;
        if let Some(answer) = kept.as_ref().filter(|answer| answer.holds(revision(), LARGE_AGE)) {
            return Ok(self.hit(answer));
        }
        let mut hasher = DefaultHasher::new();
        asked.hash(&mut hasher);
        let stripe = usize::try_from(hasher.finish() % STRIPES as u64).unwrap_or_default();
        let Some(stripe) = self.stripes.get(stripe) else { return Err(Problem::internal("no such stripe")) };
        let _one_by_one = match stripe.try_lock() {
            Ok(locked) => locked,
            Err(_) => match kept.as_ref().filter(|answer| answer.holds(revision(), 2 * LARGE_AGE)) {
                Some(answer) => return Ok(self.hit(answer)),
                None => stripe.lock().await,
            },
        };
        if let Some(answer) = self.kept.get(&asked).await.filter(|answer| answer.holds(revision(), LARGE_AGE)) {
            return Ok(self.hit(&answer));
        }
        // Read before the state: what changes in between makes it older than it is, never newer.
        let revision = revision();
        let write = move || {
            let (text, now) = make();
            Answer::dated_text(text, now, revision)
        };
        let answer = tokio::task::spawn_blocking(write).await.map_err(Problem::internal)?;
        self.kept.insert(asked, answer.clone()).await;
        Ok(answer)
    }

    fn hit(&self, answer: &Answer) -> Answer {
        self.metrics.add("cache_hits_total", "cache=\"answers\"", 1);
        answer.clone()
    }
}

impl Answer {
    fn holds(&self, revision: u64, large_age: Duration) -> bool {
        self.0.revision == revision || (self.0.plain.len() >= LARGE_BYTES && self.0.made.elapsed() < large_age)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

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

    #[tokio::test]
    async fn who_asks_the_same_of_the_same_state_shares_one_answer() {
        let answers = Answers::new(Arc::default());
        let (revision, made) = (AtomicU64::new(1), Arc::new(AtomicUsize::new(0)));
        let ask = |name: &str| {
            let made = Arc::clone(&made);
            let make = move || {
                made.fetch_add(1, Ordering::Relaxed);
                (b"{\"a\":1}".to_vec(), Millis(1))
            };
            answers.of(name.to_owned(), || revision.load(Ordering::Relaxed), make)
        };
        let asked = futures_util::future::join_all((0..16).map(|_| ask("same"))).await;
        assert!(asked.iter().all(Result::is_ok));
        assert_eq!(made.load(Ordering::Relaxed), 1);
        assert!(ask("other").await.is_ok());
        revision.store(2, Ordering::Relaxed);
        assert!(ask("same").await.is_ok());
        assert_eq!(made.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn a_large_answer_may_be_a_little_old() {
        let answers = Answers::new(Arc::default());
        let large = || (format!("{{\"a\":\"{}\"}}", "x".repeat(LARGE_BYTES)).into_bytes(), Millis(1));
        let first = answers.of("large".to_owned(), || 1, large).await.expect("an answer");
        let second = answers.of("large".to_owned(), || 2, large).await.expect("an answer");
        assert!(Arc::ptr_eq(&first.0, &second.0));
        assert!(!first.holds(2, Duration::ZERO));
    }
}

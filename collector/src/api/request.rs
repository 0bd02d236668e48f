//! What a request is called: in its answer, in the problem that it ends with, and in each line that is logged of it.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tracing::Span;

/// The header by which a caller names its request, and by which it is told the name.
const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// The header that says to which trace a request belongs (W3C Trace Context).
const TRACE: &str = "traceparent";
/// Longest name that is taken.
const NAME_LIMIT: usize = 64;

tokio::task_local! {
    static CURRENT: Name;
}

/// A request's name: the caller's own where that makes sense, else one that is made up.
#[derive(Debug, Clone)]
pub(super) struct Name(HeaderValue);

impl Name {
    /// The name of a request with these headers.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let is_sane = |name: &&HeaderValue| {
            let takes = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
            (1..=NAME_LIMIT).contains(&name.len()) && name.as_bytes().iter().all(takes)
        };
        match headers.get(HEADER).filter(is_sane) {
            Some(name) => Self(name.clone()),
            None => {
                let made = format!("{:016x}", rand::random::<u64>());
                Self(HeaderValue::from_str(&made).unwrap_or(HeaderValue::from_static("0")))
            }
        }
    }

    fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// What lines are logged in.
    pub(super) fn span(&self, headers: &HeaderMap) -> Span {
        let span = tracing::info_span!("request", http.request.id = self.as_str(), trace.id = tracing::field::Empty);
        if let Some(trace) = headers.get(TRACE).and_then(|value| trace(value.to_str().ok()?)) {
            span.record("trace.id", trace);
        }
        span
    }

    /// Does work in which [`current`] is this name.
    pub(super) async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        CURRENT.scope(self.clone(), work).await
    }

    /// Tells it with an answer.
    pub(super) fn tell(self, headers: &mut HeaderMap) {
        headers.insert(HEADER, self.0);
    }
}

/// The name of the request that is being answered.
pub(super) fn current() -> Option<String> {
    CURRENT.try_with(|name| name.as_str().to_owned()).ok()
}

/// The trace of `VERSION-TRACE-PARENT-FLAGS`.
fn trace(text: &str) -> Option<&str> {
    let mut parts = text.split('-');
    let (_, trace) = (parts.next().filter(|version| version.len() == 2)?, parts.next()?);
    let is_hex = trace.len() == 32 && trace.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    (is_hex && trace.bytes().any(|byte| byte != b'0')).then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_name_is_taken_where_it_can_stand_in_a_log() {
        let named = |name: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, HeaderValue::from_bytes(name.as_bytes()).expect("a header"));
            Name::of(&headers).as_str().to_owned()
        };
        for name in ["a", "7b1f-11.x_Y", &"n".repeat(NAME_LIMIT)] {
            assert_eq!(named(name), name);
        }
        for name in ["", "a b", "a\"b", "a\tb", "ა", &"n".repeat(NAME_LIMIT + 1)] {
            let made = named(name);
            assert!(made.len() == 16 && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}: {made}");
        }
        assert_ne!(Name::of(&HeaderMap::new()).as_str(), Name::of(&HeaderMap::new()).as_str());
    }

    #[test]
    fn a_trace_is_that_of_the_standards_header() {
        let id = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(trace(&format!("00-{id}-b7ad6b7169203331-01")), Some(id));
        for wrong in
            ["", "00", id, "00-0af7-b7ad-01", &format!("00-{}-b7-01", id.to_uppercase()), &format!("00-{}-b7-01", "0".repeat(32))]
        {
            assert_eq!(trace(wrong), None, "{wrong}");
        }
    }
}

//! Errors as `application/problem+json` (RFC 9457), each naming the field it is about.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::request;

/// What went wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    /// After how many seconds it is worth another try.
    wait_s: Option<i64>,
    field: Option<String>,
}

impl Problem {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), wait_s: None, field: None }
    }

    /// A parameter can't be taken.
    pub fn field(field: &str, detail: impl Into<String>) -> Self {
        Self { field: Some(field.to_owned()), ..Self::new(StatusCode::BAD_REQUEST, detail) }
    }

    /// A field that has to be there isn't.
    pub fn missing(field: &str) -> Self {
        Self::field(field, "is missing")
    }

    /// It asks for what this path doesn't do.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// There is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// The caller hasn't shown who it is.
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "show the API token: Authorization: Bearer TOKEN, or log in at /login")
    }

    /// Nobody is known by what was shown.
    pub fn unknown_login() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "nobody is known by this name and password, or by this token")
    }

    /// The caller may not do that from where it comes.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// It can't be done as things stand.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// A store that the answer needs is away, and nobody knows for how long.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// All places are taken: in so many seconds there may be one.
    pub fn busy(detail: impl Into<String>, wait_s: i64) -> Self {
        Self { wait_s: Some(wait_s), ..Self::unavailable(detail) }
    }

    /// The caller has tried too often.
    pub fn too_many(wait_ms: i64) -> Self {
        let wait_s = wait_ms.div_euclid(1_000) + 1;
        Self { wait_s: Some(wait_s), ..Self::new(StatusCode::TOO_MANY_REQUESTS, format!("too many tries: wait {wait_s} s")) }
    }

    /// The path is known, the method isn't.
    pub fn method_not_allowed() -> Self {
        let detail = "this path doesn't take that method; the header allow names those it takes";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, detail)
    }

    /// The body of a request is too large.
    pub fn too_large(limit_bytes: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a body has at most {limit_bytes} bytes"))
    }

    /// It is our fault. The reason is logged, not told.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        tracing::error!(error = format!("{error:#}"), "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "see the collector's log")
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.field {
            Some(field) => write!(f, "{field}: {}", self.detail),
            None => f.write_str(&self.detail),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some(field) = &self.field {
            body["field"] = json!(field);
        }
        if let Some(name) = request::current() {
            body["request_id"] = json!(name);
        }
        let headers = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, headers, body.to_string()).into_response();
        if let Some(wait_s) = self.wait_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait_s));
        }
        response
    }
}

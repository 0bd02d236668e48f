//! Errors as `application/problem+json` (RFC 9457), each naming the field it is about.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// What went wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    field: Option<String>,
}

impl Problem {
    /// A parameter can't be taken.
    pub fn field(field: &str, detail: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, detail: detail.into(), field: Some(field.to_owned()) }
    }

    /// It asks for what this path doesn't do.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, detail: detail.into(), field: None }
    }

    /// There is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, detail: detail.into(), field: None }
    }

    /// The caller hasn't shown who it is.
    pub fn unauthorized() -> Self {
        let detail = "show the API token: Authorization: Bearer TOKEN, or log in at /login".to_owned();
        Self { status: StatusCode::UNAUTHORIZED, detail, field: None }
    }

    /// Nobody is known by what was shown.
    pub fn unknown_login() -> Self {
        let detail = "nobody is known by this name and password, or by this token".to_owned();
        Self { status: StatusCode::UNAUTHORIZED, detail, field: None }
    }

    /// The caller may not do that from where it comes.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self { status: StatusCode::FORBIDDEN, detail: detail.into(), field: None }
    }

    /// It can't be done as things stand.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self { status: StatusCode::CONFLICT, detail: detail.into(), field: None }
    }

    /// A store that the answer needs is away.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, detail: detail.into(), field: None }
    }

    /// The caller has tried too often.
    pub fn too_many(wait_ms: i64) -> Self {
        let detail = format!("too many tries: wait {} s", wait_ms.div_euclid(1_000) + 1);
        Self { status: StatusCode::TOO_MANY_REQUESTS, detail, field: None }
    }

    /// The path is known, the method isn't.
    pub fn method_not_allowed() -> Self {
        let detail = "this path doesn't take that method; the header allow names those it takes".to_owned();
        Self { status: StatusCode::METHOD_NOT_ALLOWED, detail, field: None }
    }

    /// The body of a request is too large.
    pub fn too_large(limit_bytes: usize) -> Self {
        let detail = format!("a body has at most {limit_bytes} bytes");
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, detail, field: None }
    }

    /// It is our fault. The reason is logged, not told.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        tracing::error!(error = format!("{error:#}"), "a request failed");
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, detail: "see the collector's log".to_owned(), field: None }
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
        let headers = [(header::CONTENT_TYPE, "application/problem+json")];
        (self.status, headers, body.to_string()).into_response()
    }
}

//! The page and its parts, embedded in the binary, and the login.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::Api;
use super::auth::Peer;
use super::query::Query;

/// Nothing from elsewhere, nothing inline.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Gives every answer the headers that keep a browser from doing more than it should.
pub(super) fn protect(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn file(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], text).into_response()
}

pub(super) async fn index() -> Response {
    file("text/html; charset=utf-8", include_str!("../../ui/index.html"))
}

pub(super) async fn app() -> Response {
    file("text/javascript; charset=utf-8", include_str!("../../ui/app.js"))
}

pub(super) async fn state() -> Response {
    file("text/javascript; charset=utf-8", include_str!("../../ui/state.js"))
}

pub(super) async fn style() -> Response {
    file("text/css; charset=utf-8", include_str!("../../ui/style.css"))
}

#[derive(Deserialize)]
pub(super) struct Login {
    token: Option<String>,
    // The page itself says what it means.
    #[serde(rename = "failed")]
    _failed: Option<String>,
}

/// The form; or, by a link that holds the token, straight in.
pub(super) async fn login_page(State(api): State<Arc<Api>>, Peer(peer): Peer, Query(login): Query<Login>) -> Response {
    match login.token {
        Some(token) => super::login::by_link(&api, peer, token.trim()),
        None => file("text/html; charset=utf-8", include_str!("../../ui/login.html")),
    }
}

//! The page and its parts, embedded in the binary, and the login.

use std::sync::Arc;

use axum::Form;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::Api;
use super::auth::COOKIE;
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
pub(super) async fn login_page(State(api): State<Arc<Api>>, Query(login): Query<Login>) -> Response {
    match login.token {
        Some(token) => enter(&api, token.trim()),
        None => file("text/html; charset=utf-8", include_str!("../../ui/login.html")),
    }
}

pub(super) async fn login(State(api): State<Arc<Api>>, Form(login): Form<Login>) -> Response {
    enter(&api, login.token.as_deref().unwrap_or_default().trim())
}

fn enter(api: &Api, token: &str) -> Response {
    if !api.token.is(token) {
        return Redirect::to("/login?failed=1").into_response();
    }
    // Strict: no other site can use the cookie. Not Secure: the collector itself speaks plain HTTP, behind a proxy.
    let cookie = format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age=2592000");
    ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response()
}

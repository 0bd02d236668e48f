//! The page and its parts, embedded in the binary, and the login.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use serde::Deserialize;

use super::Api;
use super::auth::Peer;
use super::problem::Problem;
use super::query::Query;

/// Nothing from elsewhere, nothing inline.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// For how long a browser that has come by TLS comes by nothing else.
const STRICT_TRANSPORT_SECURITY: &str = "max-age=31536000";

/// Whether the address that a browser was given names a port.
pub(super) fn names_port(host: &HeaderValue) -> bool {
    host.to_str().is_ok_and(|host| host.rsplit(']').next().is_some_and(|rest| rest.contains(':')))
}

/// Gives every answer the headers that keep a browser from doing more than it should. Only at 443 is a browser told to come by
/// TLS alone: it takes that for all ports of the name, and others may serve Grafana in the clear.
pub(super) fn protect(mut response: Response, is_at_443: bool) -> Response {
    let headers = response.headers_mut();
    if is_at_443 {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(STRICT_TRANSPORT_SECURITY));
    }
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// A file of the page, as it was built.
struct File {
    path: &'static str,
    plain: &'static [u8],
    gzip: &'static [u8],
}

/// The page; empty where it was not built before the collector.
static FILES: &[File] = &include!(concat!(env!("OUT_DIR"), "/page.rs"));

/// Addresses of the page's views.
pub(super) const VIEWS: [&str; 11] = [
    "/",
    "/dashboard",
    "/map",
    "/fleet",
    "/reports",
    "/inventory",
    "/users",
    "/tokens",
    "/audit",
    "/devices/{id}",
    "/branches/{id}",
];

/// What stands in the page's place where it isn't built.
const NOT_BUILT: &str = "<!doctype html><html lang=\"en\"><title>ward</title><h1>ward</h1>\
    <p>This collector was compiled without its page. To build it: <code>collector/ui/build</code> (it needs Node.js and npm), \
    then compile the collector again.</p><p>The API is at <a href=\"/api/v1/openapi.json\">/api/v1</a>.</p></html>";

fn file(path: &str, headers: &HeaderMap) -> Option<Response> {
    let file = FILES.iter().find(|file| file.path == path)?;
    let kind = match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    };
    // A built file's name holds a hash of what is in it.
    let keep = if path.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let form = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, keep), (header::VARY, "accept-encoding")];
    Some(match accepted.split(',').any(|one| one.trim().split(';').next() == Some("gzip")) {
        true => (form, [(header::CONTENT_ENCODING, "gzip")], file.gzip).into_response(),
        false => (form, file.plain).into_response(),
    })
}

fn page(path: &str, headers: &HeaderMap) -> Response {
    file(path, headers).unwrap_or_else(|| Html(NOT_BUILT).into_response())
}

/// The page. Which view it shows is its own matter.
pub(super) async fn index(headers: HeaderMap) -> Response {
    page("index.html", &headers)
}

/// Its scripts and styles.
pub(super) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let found = file(&format!("assets/{name}"), &headers);
    found.unwrap_or_else(|| Problem::not_found("there is no such file of the page").into_response())
}

#[derive(Deserialize)]
pub(super) struct Login {
    token: Option<String>,
    // The page itself says what it means.
    #[serde(rename = "failed")]
    _failed: Option<String>,
}

/// The form; or, by a link that holds the token, straight in.
pub(super) async fn login_page(
    State(api): State<Arc<Api>>,
    Peer(peer): Peer,
    headers: HeaderMap,
    Query(login): Query<Login>,
) -> Response {
    match login.token {
        Some(token) => super::login::by_link(&api, peer, token.trim()),
        None => page("login.html", &headers),
    }
}

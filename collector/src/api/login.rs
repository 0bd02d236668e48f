//! Coming in and leaving: by name and password, by a token, and the first admin by a code.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde_json::{Value, json};
use shared::Millis;

use super::Api;
use super::auth::{Caller, Peer, SESSION_COOKIE, TOKEN_COOKIE, cookie_prefix};
use super::body::{Fields, kind};
use super::edits::edit_as;
use super::problem::Problem;
use super::users::reach_json;
use crate::accounts::{Reach, Role, SESSION_MS, Session, User, Via, Who, check_name, check_password};
use crate::store::{AccountEdit, Edit};
use crate::{clock, secrets};

/// How long a browser keeps a token, in seconds: a month.
const TOKEN_COOKIE_S: i64 = 30 * 24 * 3_600;
/// Who makes the first admin.
const FIRST: &str = "setup";

/// What somebody shows.
struct Shown {
    name: String,
    password: String,
    token: String,
}

impl Shown {
    fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, Problem> {
        let mut fields = match kind(headers) {
            "application/x-www-form-urlencoded" => {
                let pairs: Vec<(String, String)> =
                    serde_urlencoded::from_bytes(body).map_err(|error| Problem::field("body", format!("is no form: {error}")))?;
                let fields: serde_json::Map<String, Value> =
                    pairs.into_iter().map(|(name, value)| (name, json!(value))).collect();
                Fields::of(fields)
            }
            _ => Fields::read(headers, body)?,
        };
        let mut text = |name| Ok::<String, Problem>(fields.text(name)?.unwrap_or_default());
        let shown = Self { name: text("name")?, password: text("password")?, token: text("token")?.trim().to_owned() };
        fields.end()?;
        Ok(shown)
    }
}

/// `POST /login`: a session by name and password, or a cookie by a token.
pub(super) async fn login(State(api): State<Arc<Api>>, Peer(peer): Peer, headers: HeaderMap, body: Bytes) -> Response {
    let is_form = kind(&headers) == "application/x-www-form-urlencoded";
    let outcome = async {
        let shown = Shown::read(&headers, &body)?;
        if !shown.token.is_empty() {
            return enter_by_token(&api, peer, &shown.token);
        }
        // Names that can't be anybody's are not worth a counter each.
        let name = if check_name(&shown.name).is_ok() { shown.name.as_str() } else { "" };
        let now = clock::now();
        api.gate.begin(name, peer, now)?;
        if !api.gate.is_password(name, shown.password).await? {
            api.gate.failed(name, peer);
            return Err(Problem::unknown_login());
        }
        let entered = begin(&api, name, now).await?;
        api.gate.succeeded(name, peer);
        Ok(entered)
    };
    match (outcome.await, is_form) {
        (Ok((who, cookie)), false) => ([(header::SET_COOKIE, cookie)], Json(me_json(&who, true))).into_response(),
        (Ok((_, cookie)), true) => ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response(),
        (Err(problem), false) => problem.into_response(),
        (Err(_), true) => Redirect::to("/login?failed=1").into_response(),
    }
}

/// A link that holds a token leads straight in.
pub(super) fn by_link(api: &Api, peer: std::net::IpAddr, token: &str) -> Response {
    match enter_by_token(api, peer, token) {
        Ok((_, cookie)) => ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response(),
        Err(_) => Redirect::to("/login?failed=1").into_response(),
    }
}

fn enter_by_token(api: &Api, peer: std::net::IpAddr, token: &str) -> Result<(Who, String), Problem> {
    let now = clock::now();
    // A session's secret is no token: it would become a cookie that outlives it.
    let who = api.gate.who(token, now).filter(|who| who.via == Via::Token);
    let Some(who) = who else {
        api.gate.begin("", peer, now)?;
        api.gate.failed("", peer);
        return Err(Problem::unknown_login());
    };
    Ok((who, cookie(api, TOKEN_COOKIE, token, TOKEN_COOKIE_S)))
}

/// A session of a user who has shown who they are, and its cookie.
async fn begin(api: &Api, name: &str, now: Millis) -> Result<(Who, String), Problem> {
    let secret = secrets::random();
    let session = Session { digest: secrets::digest(&secret), user: name.to_owned(), expires: now.plus(SESSION_MS) };
    edit_as(api, name, Edit::Account(AccountEdit::Begin(session))).await?;
    let who = api.gate.who(&secret, now).ok_or_else(Problem::unknown_login)?;
    Ok((who, cookie(api, SESSION_COOKIE, &secret, SESSION_MS / 1_000)))
}

/// Strict: no other site can use it. Secure where the collector itself speaks TLS; behind a proxy it can't know.
fn cookie(api: &Api, name: &str, value: &str, seconds: i64) -> String {
    let secure = if api.is_tls { "; Secure" } else { "" };
    let prefix = cookie_prefix(api.is_tls);
    format!("{prefix}{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}")
}

/// `POST /logout`: the session is over, and the browser forgets what it had.
pub(super) async fn logout(State(api): State<Arc<Api>>, caller: Caller) -> Result<Response, Problem> {
    if caller.who.via == Via::Session {
        edit_as(&api, &caller.who.name, Edit::Account(AccountEdit::End(caller.who.digest))).await?;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    for name in [SESSION_COOKIE, TOKEN_COOKIE] {
        let gone = HeaderValue::from_str(&cookie(&api, name, "", 0)).map_err(Problem::internal)?;
        response.headers_mut().append(header::SET_COOKIE, gone);
    }
    Ok(response)
}

/// `POST /setup`: the first admin, by the code that the collector has written to a file of its folder.
pub(super) async fn setup(
    State(api): State<Arc<Api>>,
    Peer(peer): Peer,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let now = clock::now();
    let mut fields = Fields::read(&headers, &body)?;
    let (code, name, password) = (fields.needed("code")?, fields.needed("name")?, fields.needed("password")?);
    fields.end()?;
    check_name(&name).map_err(|why| Problem::field("name", why))?;
    check_password(&password).map_err(|why| Problem::field("password", why))?;
    if api.gate.accounts().users().len() > 0 {
        return Err(Problem::conflict("there is a user already: an admin adds others"));
    }
    api.gate.begin(FIRST, peer, now)?;
    if !api.gate.is_code(code.trim()) {
        api.gate.failed(FIRST, peer);
        return Err(Problem::forbidden("this is not the code that the collector has written to first-admin-code at its start"));
    }
    let password = api.gate.hash(password).await?;
    let user = User { name: name.clone(), role: Role::Admin, reach: Reach::All, password, created: now, last_login: None };
    edit_as(&api, FIRST, Edit::Account(AccountEdit::First(user))).await?;
    api.gate.forget_code();
    api.gate.succeeded(FIRST, peer);
    let (who, cookie) = begin(&api, &name, now).await?;
    Ok((StatusCode::CREATED, [(header::SET_COOKIE, cookie)], Json(me_json(&who, true))).into_response())
}

/// `GET /api/v1/me`: who asks, and what their page has to show with a change.
pub(super) async fn me(caller: Caller) -> Json<Value> {
    Json(me_json(&caller.who, caller.by_cookie))
}

fn me_json(who: &Who, by_cookie: bool) -> Value {
    let caller = Caller { who: who.clone(), by_cookie };
    json!({
        "name": who.name, "role": who.role.as_str(), "regions": reach_json(&who.reach), "csrf": caller.csrf(),
        "via": who.via.as_str(),
    })
}

/// `POST /api/v1/me/password`: one's own password, by the one before. All sessions end, this one too.
pub(super) async fn password(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Peer(peer): Peer,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    let mut fields = Fields::read(&headers, &body)?;
    let (current, wanted) = (fields.needed("current")?, fields.needed("password")?);
    fields.end()?;
    check_password(&wanted).map_err(|why| Problem::field("password", why))?;
    if caller.who.via == Via::Token {
        return Err(Problem::forbidden("a token has no password"));
    }
    let name = &caller.who.name;
    api.gate.begin(name, peer, clock::now())?;
    if !api.gate.is_password(name, current).await? {
        api.gate.failed(name, peer);
        return Err(Problem::field("current", "is not the password"));
    }
    api.gate.succeeded(name, peer);
    let password = api.gate.hash(wanted).await?;
    let user = api.gate.accounts().user(name).cloned().ok_or_else(|| Problem::not_found("there is no such user"))?;
    edit_as(&api, name, Edit::Account(AccountEdit::SetUser(User { password, ..user }))).await?;
    Ok(StatusCode::NO_CONTENT)
}

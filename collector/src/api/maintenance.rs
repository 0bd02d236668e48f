//! Maintenance windows and service hours: list, agree, take back.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use shared::Millis;
use tokio::sync::{mpsc, oneshot};

use super::Api;
use super::problem::Problem;
use super::query::Query;
use crate::availability::spans::Span;
use crate::clock;
use crate::fleet::Fleet;
use crate::inbox;
use crate::ingest::Command;
use crate::schedule::{Hours, Rule, Scope, Window};
use crate::store::{Edit, EditError};

/// Longest window in ms.
const WINDOW_LIMIT_MS: i64 = 366 * 24 * 3_600_000;
/// How far ahead something can be agreed, in ms.
const AHEAD_LIMIT_MS: i64 = 3 * 366 * 24 * 3_600_000;
/// Longest reason in characters.
const REASON_LIMIT: usize = 500;

/// A change of the schedule on its way to the ledger's thread.
pub type Request = (Edit, oneshot::Sender<Result<i64, EditError>>);

/// Hands changes over to the ledger's thread. A task of its own: the API must not keep that thread from ending.
pub async fn hand_over(mut requests: mpsc::Receiver<Request>, commands: inbox::Sender) {
    while let Some((edit, answer)) = requests.recv().await {
        if commands.send(Command::Schedule(edit, answer)).await.is_err() {
            return;
        }
    }
}

/// Changes something of the schedule, or of an identity, by the ledger's thread.
pub(super) async fn edit(api: &Api, edit: Edit) -> Result<i64, Problem> {
    let (answer, done) = oneshot::channel();
    let gone = || Problem::unavailable("the collector is ending");
    api.edits.send((edit, answer)).await.map_err(|_| gone())?;
    match done.await.map_err(|_| gone())? {
        Ok(id) => Ok(id),
        Err(EditError::NotFound) => Err(Problem::not_found("there is nothing of that number")),
        Err(full @ EditError::Full) => Err(Problem::conflict(full.to_string())),
        Err(EditError::Store(error)) => Err(Problem::internal(error)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WindowFilter {
    scope: Option<String>,
    key: Option<String>,
    when: Option<String>,
}

/// Windows in the order of their beginnings.
pub(super) async fn windows(State(api): State<Arc<Api>>, Query(filter): Query<WindowFilter>) -> Result<Json<Value>, Problem> {
    let now = clock::now();
    let fleet = api.live.fleet();
    let mut windows: Vec<&Window> = fleet.schedule().windows().iter().collect();
    windows.sort_by_key(|window| (window.span.from, window.id));
    windows.retain(|window| {
        let (scope, key) = window.scope.words();
        filter.scope.as_deref().is_none_or(|wanted| wanted == scope) && (filter.key.is_none() || filter.key.as_deref() == key)
    });
    match filter.when.as_deref() {
        None => {}
        Some("past") => windows.retain(|window| window.span.to <= now),
        Some("now") => windows.retain(|window| window.span.from <= now && now < window.span.to),
        Some("ahead") => windows.retain(|window| window.span.from > now),
        Some(_) => return Err(Problem::field("when", "must be past, now or ahead")),
    }
    let windows: Vec<Value> = windows.into_iter().map(window_json).collect();
    Ok(Json(json!({ "total": windows.len(), "windows": windows, "now": now.0 })))
}

fn window_json(window: &Window) -> Value {
    let (scope, key) = window.scope.words();
    json!({
        "id": window.id, "scope": scope, "key": key,
        "from": window.span.from.to_string(), "from_ms": window.span.from.0,
        "to": window.span.to.to_string(), "to_ms": window.span.to.0,
        "reason": window.reason, "created_ms": window.created.0,
    })
}

/// Agrees on a window.
pub(super) async fn add_window(State(api): State<Arc<Api>>, headers: HeaderMap, body: Bytes) -> Result<Response, Problem> {
    let now = clock::now();
    let mut fields = Fields::read(&headers, &body)?;
    let scope = fields.scope(&api.live.fleet())?;
    let (from, to) = (fields.time("from", now)?, fields.time("to", now)?);
    let reason = fields.text("reason")?.unwrap_or_default();
    fields.end()?;
    let from = from.ok_or_else(|| Problem::field("from", "is missing"))?;
    let to = to.ok_or_else(|| Problem::field("to", "is missing"))?;
    let span = Span::new(from, to);
    if span.is_empty() || span.ms() > WINDOW_LIMIT_MS {
        return Err(Problem::field("to", "must lie after from, by at most 366 days"));
    }
    if reason.chars().count() > REASON_LIMIT || reason.chars().any(char::is_control) {
        return Err(Problem::field("reason", format!("has at most {REASON_LIMIT} characters, on one line")));
    }
    let mut window = Window { id: 0, scope, span, reason, created: now };
    window.id = edit(&api, Edit::AddWindow(window.clone())).await?;
    let known = api.live.fleet().schedule().windows().iter().find(|known| known.id == window.id).cloned();
    Ok(created(&format!("/api/v1/maintenance/{}", window.id), window_json(&known.unwrap_or(window))))
}

/// Takes a window back.
pub(super) async fn remove_window(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<StatusCode, Problem> {
    edit(&api, Edit::RemoveWindow(number(&id)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Service hours, newest first.
pub(super) async fn hours(State(api): State<Arc<Api>>, Query(Nothing {}): Query<Nothing>) -> Json<Value> {
    let fleet = api.live.fleet();
    let hours: Vec<Value> = fleet.schedule().hours().map(hours_json).collect();
    Json(json!({ "total": hours.len(), "service_hours": hours }))
}

fn hours_json(hours: &Hours) -> Value {
    let (scope, key) = hours.scope.words();
    let valid_from = Some(hours.valid.from).filter(|from| *from > Millis(0));
    let valid_to = Some(hours.valid.to).filter(|to| *to < Millis(i64::MAX));
    json!({
        "id": hours.id, "scope": scope, "key": key,
        "valid_from_ms": valid_from.map(|at| at.0), "valid_to_ms": valid_to.map(|at| at.0),
        "time_zone": hours.rule.time_zone, "weekly": hours.rule.weekly, "holidays": hours.rule.holidays,
        "created_ms": hours.created.0,
    })
}

/// Agrees on service hours.
pub(super) async fn add_hours(State(api): State<Arc<Api>>, headers: HeaderMap, body: Bytes) -> Result<Response, Problem> {
    let now = clock::now();
    let mut fields = Fields::read(&headers, &body)?;
    let scope = fields.scope(&api.live.fleet())?;
    let valid_from = fields.time("valid_from", now)?.unwrap_or(Millis(0));
    let valid_to = fields.time("valid_to", now)?.unwrap_or(Millis(i64::MAX));
    let time_zone = fields.text("time_zone")?.ok_or_else(|| Problem::field("time_zone", "is missing"))?;
    let weekly = fields.parsed("weekly")?.ok_or_else(|| Problem::field("weekly", "is missing"))?;
    let holidays = fields.parsed("holidays")?.unwrap_or_default();
    fields.end()?;
    let valid = Span::new(valid_from, valid_to);
    if valid.is_empty() {
        return Err(Problem::field("valid_to", "must lie after valid_from"));
    }
    let rule = Rule { time_zone, weekly, holidays };
    rule.check().map_err(|(field, why)| Problem::field(&field, why))?;
    let mut hours = Hours { id: 0, scope, valid, rule, created: now };
    hours.id = edit(&api, Edit::AddHours(hours.clone())).await?;
    let known = api.live.fleet().schedule().hours().find(|known| known.id == hours.id).cloned();
    Ok(created(&format!("/api/v1/service-hours/{}", hours.id), hours_json(&known.unwrap_or(hours))))
}

/// Takes service hours back.
pub(super) async fn remove_hours(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<StatusCode, Problem> {
    edit(&api, Edit::RemoveHours(number(&id)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn number(text: &str) -> Result<i64, Problem> {
    text.parse().map_err(|_| Problem::not_found("there is nothing of that number"))
}

fn created(location: &str, body: Value) -> Response {
    (StatusCode::CREATED, [(header::LOCATION, location)], Json(body)).into_response()
}

/// The fields of a body, taken one by one; what is left over is refused.
struct Fields(Map<String, Value>);

impl Fields {
    fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, Problem> {
        // A form of another site can't say so.
        let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if kind.split(';').next().map(str::trim) != Some("application/json") {
            return Err(Problem::field("content-type", "must be application/json"));
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(Problem::field("body", "must be an object")),
            Err(error) => Err(Problem::field("body", format!("is no JSON: {error}"))),
        }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Problem::field(name, "must be a text")),
        }
    }

    /// A time as RFC 3339 or integer ms.
    fn time(&mut self, name: &str, now: Millis) -> Result<Option<Millis>, Problem> {
        let at = match self.take(name) {
            None => return Ok(None),
            Some(Value::String(text)) => text.parse::<Millis>().map_err(|error| Problem::field(name, error.to_string()))?,
            Some(value) => {
                let ms = value.as_i64().ok_or_else(|| Problem::field(name, "must be a time: RFC 3339 or integer ms"))?;
                Millis(ms)
            }
        };
        if at < Millis::EARLIEST || at.since(now) > AHEAD_LIMIT_MS {
            return Err(Problem::field(name, "must lie after 2024 and at most three years ahead"));
        }
        Ok(Some(at))
    }

    fn parsed<T: serde::de::DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, Problem> {
        let wrong = |error: serde_json::Error| Problem::field(name, error.to_string());
        self.take(name).map(|value| serde_json::from_value(value).map_err(wrong)).transpose()
    }

    /// Whom it is about, and whether there is such a one.
    fn scope(&mut self, fleet: &Fleet) -> Result<Scope, Problem> {
        let scope = self.text("scope")?.ok_or_else(|| Problem::field("scope", "is missing"))?;
        let key = self.text("key")?;
        let scope = Scope::from_words(&scope, key.as_deref()).map_err(|(field, why)| Problem::field(field, why))?;
        let is_known = match &scope {
            Scope::All => true,
            Scope::Region(id) => fleet.branches.iter().any(|branch| branch.info.region == *id),
            Scope::Type(id) => fleet.devices.iter().any(|device| device.info.device_type == id.as_str()),
            Scope::Branch(id) => fleet.branch(id).is_some(),
            Scope::Device(id) => fleet.device(id).is_some(),
        };
        if is_known { Ok(scope) } else { Err(Problem::field("key", "there is no such one in the inventory")) }
    }

    fn end(self) -> Result<(), Problem> {
        match self.0.keys().next() {
            Some(name) => Err(Problem::field(name, "is no field of this")),
            None => Ok(()),
        }
    }
}

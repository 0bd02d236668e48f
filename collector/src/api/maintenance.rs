//! Maintenance windows and service hours: list, agree, take back.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::{BranchId, Millis};

use super::Api;
use super::answer::Answer;
use super::auth::Caller;
use super::body::Fields;
use super::edits::{created, edit};
use super::problem::Problem;
use super::query::{Nothing, Query, cursor, large_page, one_of};
use crate::accounts::Reach;
use crate::availability::spans::Span;
use crate::clock;
use crate::fleet::Fleet;
use crate::schedule::{Hours, Rule, Scope, Window};
use crate::store::{Edit, ScheduleEdit};

/// Longest window in ms.
const WINDOW_LIMIT_MS: i64 = 366 * 24 * 3_600_000;
/// Longest reason in characters.
const REASON_LIMIT: usize = 500;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WindowFilter {
    scope: Option<String>,
    key: Option<String>,
    when: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

/// Windows in the order of their beginnings.
pub(super) async fn windows(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(filter): Query<WindowFilter>,
) -> Result<Answer, Problem> {
    one_of("scope", filter.scope.as_deref(), &["all", "region", "device_type", "branch", "device"])?;
    let (limit, after) = (large_page(filter.limit.as_deref())?, cursor::<2>(filter.cursor.as_deref())?);
    let now = clock::now();
    let fleet = api.live.fleet();
    let mut windows: Vec<&Window> = fleet.schedule().windows().iter().collect();
    windows.sort_by_key(|window| (window.span.from, window.id));
    windows.retain(|window| is_told(&window.scope, &fleet, &caller.who.reach));
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
    let place = |window: &Window| [window.span.from.0, window.id];
    let from = after.map_or(0, |after| windows.partition_point(|window| place(window) <= after));
    let page = &windows[from..windows.len().min(from + limit)];
    let next =
        page.last().filter(|_| from + page.len() < windows.len()).map(|window| place(window).map(|n| n.to_string()).join("."));
    let told: Vec<Value> = page.iter().map(|window| window_json(window)).collect();
    Answer::dated(&json!({ "total": windows.len(), "next_cursor": next, "windows": told }), now)
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
pub(super) async fn add_window(
    State(api): State<Arc<Api>>,
    caller: Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let now = clock::now();
    let mut fields = Fields::read(&headers, &body)?;
    let scope = scope(&mut fields, &api.live.fleet(), &caller.who.reach)?;
    let (from, to) = (fields.time("from", now)?, fields.time("to", now)?);
    let reason = fields.text("reason")?.unwrap_or_default();
    fields.end()?;
    let from = from.ok_or_else(|| Problem::missing("from"))?;
    let to = to.ok_or_else(|| Problem::missing("to"))?;
    let span = Span::new(from, to);
    if span.is_empty() || span.ms() > WINDOW_LIMIT_MS {
        return Err(Problem::field("to", "must lie after from, by at most 366 days"));
    }
    if reason.chars().count() > REASON_LIMIT || reason.chars().any(char::is_control) {
        return Err(Problem::field("reason", format!("has at most {REASON_LIMIT} characters, on one line")));
    }
    let mut window = Window { id: 0, scope, span, reason, created: now };
    window.id = edit(&api, &caller, Edit::Schedule(ScheduleEdit::AddWindow(window.clone()))).await?;
    let known = api.live.fleet().schedule().windows().iter().find(|known| known.id == window.id).cloned();
    Ok(created(format!("/api/v1/maintenance/{}", window.id), window_json(&known.unwrap_or(window))))
}

/// Takes a window back.
pub(super) async fn remove_window(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<StatusCode, Problem> {
    let id = number(&id)?;
    let scope = api.live.fleet().schedule().windows().iter().find(|known| known.id == id).map(|known| known.scope.clone());
    may_remove(&api, scope, &caller)?;
    edit(&api, &caller, Edit::Schedule(ScheduleEdit::RemoveWindow(id))).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Service hours, newest first.
pub(super) async fn hours(State(api): State<Arc<Api>>, caller: Caller, Query(Nothing {}): Query<Nothing>) -> Json<Value> {
    let fleet = api.live.fleet();
    let told = |hours: &&Hours| is_told(&hours.scope, &fleet, &caller.who.reach);
    let hours: Vec<Value> = fleet.schedule().hours().filter(told).map(hours_json).collect();
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
pub(super) async fn add_hours(
    State(api): State<Arc<Api>>,
    caller: Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let now = clock::now();
    let mut fields = Fields::read(&headers, &body)?;
    let scope = scope(&mut fields, &api.live.fleet(), &caller.who.reach)?;
    let valid_from = fields.time("valid_from", now)?.unwrap_or(Millis(0));
    let valid_to = fields.time("valid_to", now)?.unwrap_or(Millis(i64::MAX));
    let time_zone = fields.needed("time_zone")?;
    let weekly = fields.parsed("weekly")?.ok_or_else(|| Problem::missing("weekly"))?;
    let holidays = fields.parsed("holidays")?.unwrap_or_default();
    fields.end()?;
    let valid = Span::new(valid_from, valid_to);
    if valid.is_empty() {
        return Err(Problem::field("valid_to", "must lie after valid_from"));
    }
    let rule = Rule { time_zone, weekly, holidays };
    rule.check().map_err(|(field, why)| Problem::field(&field, why))?;
    let mut hours = Hours { id: 0, scope, valid, rule, created: now };
    hours.id = edit(&api, &caller, Edit::Schedule(ScheduleEdit::AddHours(hours.clone()))).await?;
    let known = api.live.fleet().schedule().hours().find(|known| known.id == hours.id).cloned();
    Ok(created(format!("/api/v1/service-hours/{}", hours.id), hours_json(&known.unwrap_or(hours))))
}

/// Takes service hours back.
pub(super) async fn remove_hours(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<StatusCode, Problem> {
    let id = number(&id)?;
    let scope = api.live.fleet().schedule().hours().find(|known| known.id == id).map(|known| known.scope.clone());
    may_remove(&api, scope, &caller)?;
    edit(&api, &caller, Edit::Schedule(ScheduleEdit::RemoveHours(id))).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether somebody may take back what is about this.
fn may_remove(api: &Api, scope: Option<Scope>, caller: &Caller) -> Result<(), Problem> {
    let (fleet, reach) = (api.live.fleet(), &caller.who.reach);
    match scope {
        Some(scope) if is_within(&scope, &fleet, reach) => Ok(()),
        Some(scope) if is_told(&scope, &fleet, reach) => Err(Problem::forbidden("this reaches beyond your regions")),
        Some(_) | None => Err(Problem::not_found("there is nothing of that number")),
    }
}

fn number(text: &str) -> Result<i64, Problem> {
    text.parse().map_err(|_| Problem::not_found("there is nothing of that number"))
}

/// Whom it is about, and whether there is such a one that the caller may see.
fn scope(fields: &mut Fields, fleet: &Fleet, reach: &Reach) -> Result<Scope, Problem> {
    let scope = fields.needed("scope")?;
    let key = fields.text("key")?;
    let scope = Scope::from_words(&scope, key.as_deref()).map_err(|(field, why)| Problem::field(field, why))?;
    let is_known = match &scope {
        Scope::All => true,
        Scope::Region(id) => fleet.region_name(id).is_some(),
        Scope::Type(id) => fleet.devices.iter().any(|device| device.info.device_type == id.as_str()),
        Scope::Branch(id) => fleet.branch(id).is_some(),
        Scope::Device(id) => fleet.device(id).is_some(),
    };
    match is_known && is_told(&scope, fleet, reach) {
        false => Err(Problem::field("key", "there is no such one in the inventory")),
        true if is_within(&scope, fleet, reach) => Ok(scope),
        true => Err(Problem::field("scope", "reaches beyond your regions")),
    }
}

/// The region of what something is about, where that lies in one.
fn region_of<'a>(scope: &'a Scope, fleet: &'a Fleet) -> Option<&'a BranchId> {
    match scope {
        Scope::All | Scope::Type(_) => None,
        Scope::Region(id) => Some(id),
        Scope::Branch(id) => fleet.branch(id).map(|at| &fleet.branches[at].info.region),
        Scope::Device(id) => fleet.device(id).map(|at| &fleet.branches[fleet.devices[at].branch].info.region),
    }
}

/// Whether somebody may change what is about this: all of it lies in their regions. What the inventory has no more is an
/// unlimited one's to tidy up.
fn is_within(scope: &Scope, fleet: &Fleet, reach: &Reach) -> bool {
    reach.is_all() || region_of(scope, fleet).is_some_and(|region| reach.takes(region))
}

/// Whether somebody is told of what is about this: some of it may lie in their regions.
fn is_told(scope: &Scope, fleet: &Fleet, reach: &Reach) -> bool {
    matches!(scope, Scope::All | Scope::Type(_)) || is_within(scope, fleet, reach)
}

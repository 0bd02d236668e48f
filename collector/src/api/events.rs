//! What happened: transitions as the ledger has them, of one device or of all, and a device's outages. Newest first.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::BranchId;

use super::Api;
use super::auth::Caller;
use super::devices::{Past, find};
use super::problem::Problem;
use super::query::{Query, Range, cursor, page, range};
use crate::store::{EventRow, Whose};
use crate::surface::{evidence_json, outage_json};
use crate::{clock, outage, store};

/// The time of all devices' events unless somebody asks for another, in ms.
const EVENTS_MS: i64 = 24 * 3_600_000;
/// The same for one device.
const DEVICE_MS: i64 = 30 * EVENTS_MS;
/// Many devices' events of more than this time may be many to look through, in ms.
const LARGE_MS: i64 = 31 * EVENTS_MS;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    time_range: Option<String>,
    from: Option<String>,
    to: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

impl Asked {
    fn range(&self, default_ms: i64) -> Result<Range, Problem> {
        range(self.time_range.as_deref(), self.from.as_deref(), self.to.as_deref(), default_ms, clock::now())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskedOfAll {
    region: Option<String>,
    branch: Option<String>,
    time_range: Option<String>,
    from: Option<String>,
    to: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

/// The transitions of one device.
pub(super) async fn transitions(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, Problem> {
    let known = find(&api, &caller, &id)?;
    let whose = Whose { device: Some(known.no), ..Whose::default() };
    list(&api, whose, asked, DEVICE_MS, "transitions").await
}

/// The transitions of all devices, or of those of a branch or a region.
pub(super) async fn events(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(asked): Query<AskedOfAll>,
) -> Result<Json<Value>, Problem> {
    let AskedOfAll { region, branch, time_range, from, to, limit, cursor } = asked;
    for (field, id) in [("region", &region), ("branch", &branch)] {
        if let Some(Err(error)) = id.as_ref().map(|id| id.parse::<BranchId>()) {
            return Err(Problem::field(field, error.to_string()));
        }
    }
    let asked = Asked { time_range, from, to, limit, cursor };
    list(&api, Whose { device: None, branch, region, reach: caller.who.reach.clone() }, asked, EVENTS_MS, "events").await
}

async fn list(api: &Arc<Api>, whose: Whose, asked: Asked, default_ms: i64, name: &str) -> Result<Json<Value>, Problem> {
    let Range { from, to } = asked.range(default_ms)?;
    let limit = page(asked.limit.as_deref())?;
    let place = cursor::<4>(asked.cursor.as_deref())?;
    let is_large = whose.device.is_none() && to.since(from) > LARGE_MS;
    let read = move |db: &rusqlite::Connection| store::events(db, &whose, (from, to), place, limit + 1);
    let mut rows = if is_large { api.read_much(read).await? } else { api.read(read).await? };
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|row| row.place.map(|n| n.to_string()).join("."));
    let mut body = json!({
        "from": from.to_string(), "from_ms": from.0,
        "to": to.to_string(), "to_ms": to.0,
        "count": rows.len(),
        "next_cursor": next,
    });
    body[name] = rows.iter().map(event_json).collect();
    Ok(Json(body))
}

fn event_json(row: &EventRow) -> Value {
    json!({
        "device_id": row.device,
        "branch": row.branch,
        "region": row.region,
        "from_status": row.from.as_str(),
        "from_cause": row.from.cause().map(shared::Cause::as_str),
        "status": row.to.as_str(),
        "cause": row.to.cause().map(shared::Cause::as_str),
        "onset": row.onset.to_string(),
        "onset_ms": row.onset.0,
        "last_ok_ms": row.last_ok.map(|at| at.0),
        "error_ms": row.error_ms,
        "received_ms": row.received.0,
        "confirmed_ms": row.confirmed.map(|at| at.0),
        "verdict": row.verdict.map(shared::Verdict::as_str),
        "reason": shared::evidence::reason(row.to, row.verdict, row.evidence.as_ref()),
        "evidence": row.evidence.as_ref().map(|evidence| evidence_json(evidence, row.confirmed.unwrap_or(row.onset))),
    })
}

/// The outages of one device, with their true bounds.
pub(super) async fn outages(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, Problem> {
    let known = find(&api, &caller, &id)?;
    let Range { from, to } = asked.range(DEVICE_MS)?;
    let limit = page(asked.limit.as_deref())?;
    let before = cursor::<1>(asked.cursor.as_deref())?;
    let Past { changes, covered, .. } = known.past(&api, from, to, |_| Ok(())).await?;
    let mut all = outage::outages(&changes, &covered, from, to);
    let total = all.len();
    all.reverse();
    all.retain(|outage| before.is_none_or(|[before]| outage.from.0 < before));
    let next = all.get(limit).and(limit.checked_sub(1)).and_then(|last| all.get(last)).map(|outage| outage.from.0.to_string());
    all.truncate(limit);
    Ok(Json(json!({
        "device_id": known.id.as_str(),
        "from": from.to_string(), "from_ms": from.0,
        "to": to.to_string(), "to_ms": to.0,
        "total": total,
        "next_cursor": next,
        "outages": all.iter().map(outage_json).collect::<Vec<_>>(),
    })))
}

//! Devices: the list with its filters and pages, and one of them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::{DeviceId, Millis};

use super::problem::Problem;
use super::{Api, Query, up_to_date};
use crate::fleet::{DeviceState, Fleet};
use crate::surface::{branch_json, device_json, outage_json};
use crate::{clock, outage, store};

/// Devices of one page unless the caller says otherwise, and at most.
const PAGE: (usize, usize) = (500, 1_000);
/// Longest search text in characters.
const SEARCH_LIMIT: usize = 100;
/// How far back a device's outages are told with it, in ms.
const OUTAGES_MS: i64 = 30 * 24 * 3_600_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    region: Option<String>,
    branch: Option<String>,
    device_type: Option<String>,
    status: Option<String>,
    q: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

impl Filter {
    fn check(&self) -> Result<(), Problem> {
        if let Some(status) = &self.status
            && !["up", "down", "unknown"].contains(&status.as_str())
        {
            return Err(Problem::field("status", "must be up, down or unknown"));
        }
        if self.q.as_ref().is_some_and(|q| q.chars().count() > SEARCH_LIMIT) {
            return Err(Problem::field("q", format!("has at most {SEARCH_LIMIT} characters")));
        }
        if self.cursor.as_ref().is_some_and(|cursor| cursor.parse::<DeviceId>().is_err()) {
            return Err(Problem::field("cursor", "is no cursor that was handed out"));
        }
        Ok(())
    }

    fn page(&self) -> Result<usize, Problem> {
        let Some(text) = &self.limit else { return Ok(PAGE.0) };
        let limit = text.parse().ok().filter(|limit| (1..=PAGE.1).contains(limit));
        limit.ok_or_else(|| Problem::field("limit", format!("must be a whole number between 1 and {}", PAGE.1)))
    }

    fn takes(&self, fleet: &Fleet, device: &DeviceState, search: Option<&str>) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        let branch = &fleet.branches[device.branch].info;
        is(&self.region, branch.region.as_str())
            && is(&self.branch, branch.id.as_str())
            && is(&self.device_type, &device.info.device_type)
            && is(&self.status, device.view.status.as_str())
            && search.is_none_or(|search| {
                let texts = [device.info.id.as_str(), &device.info.name, branch.id.as_str(), &branch.name];
                texts.iter().any(|text| text.to_lowercase().contains(search)) || device.info.ip.to_string().contains(search)
            })
    }
}

/// Devices by id, a page at a time.
pub(super) async fn list(State(api): State<Arc<Api>>, Query(filter): Query<Filter>) -> Result<Json<Value>, Problem> {
    filter.check()?;
    let page = filter.page()?;
    let search = filter.q.as_ref().map(|q| q.to_lowercase());
    let fleet = api.live.fleet();
    let all = 0..fleet.devices.len();
    let mut found: Vec<usize> = all.filter(|at| filter.takes(&fleet, &fleet.devices[*at], search.as_deref())).collect();
    found.sort_by(|a, b| fleet.devices[*a].info.id.cmp(&fleet.devices[*b].info.id));
    let total = found.len();
    let after = filter.cursor.as_deref().unwrap_or_default();
    let first = found.partition_point(|at| fleet.devices[*at].info.id.as_str() <= after);
    let page = &found[first..found.len().min(first + page)];
    let more = first + page.len() < total;
    let next = page.last().filter(|_| more).map(|at| fleet.devices[*at].info.id.as_str());
    let devices: Vec<Value> = page.iter().map(|at| device_json(&fleet, *at)).collect();
    Ok(Json(json!({ "devices": devices, "next_cursor": next, "total": total, "now": clock::now().0 })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// One device with its branch and its outages of the last 30 days, newest first.
pub(super) async fn detail(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Json<Value>, Problem> {
    let now = clock::now();
    let known = find(&api, &id)?;
    let from = now.plus(-OUTAGES_MS);
    let (no, branch) = (known.no, known.branch.clone());
    let ledger =
        move |db: &rusqlite::Connection| Ok((store::changes(db, no, from, Millis(i64::MAX))?, store::covered(db, &branch)?));
    let (changes, covered) = api.read(ledger).await?;
    let covered = up_to_date(&api, &known.branch, covered);
    let mut outages: Vec<Value> = outage::outages(&changes, &covered, from, now).iter().map(outage_json).collect();
    outages.reverse();
    let fleet = api.live.fleet();
    let Some(at) = id.parse().ok().and_then(|id| fleet.device(&id)) else {
        return Err(Problem::not_found("there is no such device"));
    };
    let mut body = device_json(&fleet, at);
    body["branch_state"] = branch_json(&fleet, fleet.devices[at].branch);
    body["outages"] = json!(outages);
    body["now"] = json!(now.0);
    Ok(Json(body))
}

/// What the file needs to know of a device.
pub(super) struct Known {
    pub(super) id: DeviceId,
    pub(super) no: u32,
    pub(super) branch: String,
}

/// A device by the id in a path.
pub(super) fn find(api: &Api, id: &str) -> Result<Known, Problem> {
    let fleet = api.live.fleet();
    let device = id.parse::<DeviceId>().ok().and_then(|id| Some((fleet.device(&id)?, id)));
    let Some((at, id)) = device else { return Err(Problem::not_found("there is no such device")) };
    Ok(Known { id, no: fleet.devices[at].no, branch: fleet.devices[at].info.branch.to_string() })
}

//! Counts, branches and what is missing of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::BranchId;

use super::problem::Problem;
use super::{Api, Query, up_to_date};
use crate::clock;
use crate::fleet::Counts;
use crate::store;
use crate::surface::{branch_json, counts_json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// How many devices are what: in all, by region and by type.
pub(super) async fn stats(State(api): State<Arc<Api>>, Query(Nothing {}): Query<Nothing>) -> Json<Value> {
    let fleet = api.live.fleet();
    let mut by_region: BTreeMap<&str, Counts> = BTreeMap::new();
    let mut by_type: BTreeMap<&str, Counts> = BTreeMap::new();
    for device in &fleet.devices {
        by_region.entry(fleet.branches[device.branch].info.region.as_str()).or_default().add(&device.view);
        by_type.entry(&device.info.device_type).or_default().add(&device.view);
    }
    let group = |counts: BTreeMap<&str, Counts>| -> serde_json::Map<String, Value> {
        counts.into_iter().map(|(name, counts)| (name.to_owned(), counts_json(&counts))).collect()
    };
    let mut body = counts_json(&fleet.counts());
    body["by_region"] = Value::Object(group(by_region));
    body["by_type"] = Value::Object(group(by_type));
    body["now"] = json!(clock::now().0);
    Json(body)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BranchFilter {
    region: Option<String>,
}

/// Every branch with its agent and the counts of its devices.
pub(super) async fn branches(State(api): State<Arc<Api>>, Query(filter): Query<BranchFilter>) -> Json<Value> {
    let fleet = api.live.fleet();
    let mut order: Vec<usize> = (0..fleet.branches.len()).collect();
    order.retain(|at| filter.region.as_deref().is_none_or(|region| fleet.branches[*at].info.region.as_str() == region));
    order.sort_by(|a, b| fleet.branches[*a].info.id.cmp(&fleet.branches[*b].info.id));
    let branches: Vec<Value> = order
        .into_iter()
        .map(|at| {
            let mut counts = Counts::default();
            fleet.branches[at].devices.iter().for_each(|device| counts.add(&fleet.devices[*device].view));
            let mut body = branch_json(&fleet, at);
            body["counts"] = counts_json(&counts);
            body
        })
        .collect();
    Json(json!({ "total": branches.len(), "branches": branches }))
}

/// What of a branch was observed, and what is known to be missing.
pub(super) async fn coverage(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Json<Value>, Problem> {
    let known = id.parse::<BranchId>().ok().filter(|id| api.live.fleet().branch(id).is_some());
    let Some(id) = known else { return Err(Problem::not_found("there is no such branch")) };
    let name = id.to_string();
    let (covered, gaps) = api.read(move |db| Ok((store::covered(db, &name)?, store::gaps(db, &name)?))).await?;
    let covered = up_to_date(&api, id.as_str(), covered);
    let covered: Vec<Value> = covered.iter().map(|span| json!({ "from_ms": span.from.0, "to_ms": span.to.0 })).collect();
    let gaps: Vec<Value> = gaps
        .iter()
        .map(|gap| {
            json!({
                "from_ms": gap.from.0, "to_ms": gap.to.0, "reason": gap.reason,
                "first_seq": gap.first, "last_seq": gap.last,
                "transitions": gap.dropped.transitions, "minutes": gap.dropped.minutes,
                "unreadable": gap.dropped.unreadable,
            })
        })
        .collect();
    Ok(Json(json!({ "branch": id.as_str(), "covered": covered, "gaps": gaps })))
}

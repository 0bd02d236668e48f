//! Counts, regions, branches, agents and what is missing of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::Uri;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::BranchId;

use super::answer::Answer;
use super::auth::Caller;
use super::problem::Problem;
use super::query::{Nothing, Query, large_page, one_of};
use super::{Api, asked, up_to_date};
use crate::accounts::Reach;
use crate::clock;
use crate::fleet::{Contact, Counts, Fleet};
use crate::store;
use crate::surface::{agent_json, branch_json, counts_json};

/// How many devices are what: in all, by region and by type.
pub(super) async fn stats(
    State(api): State<Arc<Api>>,
    caller: Caller,
    uri: Uri,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Answer, Problem> {
    let (live, reach) = (Arc::clone(&api.live), caller.who.reach.clone());
    let make = move || {
        let fleet = live.fleet();
        let mut all = Counts::default();
        let mut by_region: BTreeMap<&str, Counts> = BTreeMap::new();
        let mut by_type: BTreeMap<&str, Counts> = BTreeMap::new();
        for device in &fleet.devices {
            let region = &fleet.branches[device.branch].info.region;
            if !reach.takes(region) {
                continue;
            }
            all.add(&device.view);
            by_region.entry(region.as_str()).or_default().add(&device.view);
            by_type.entry(&device.info.device_type).or_default().add(&device.view);
        }
        let group = |counts: BTreeMap<&str, Counts>| -> serde_json::Map<String, Value> {
            counts.into_iter().map(|(name, counts)| (name.to_owned(), counts_json(&counts))).collect()
        };
        let mut body = counts_json(&all);
        body["by_region"] = Value::Object(group(by_region));
        body["by_type"] = Value::Object(group(by_type));
        (body.to_string().into_bytes(), clock::now())
    };
    api.answers.of(asked(&uri, &caller), &api.live.shown, make).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BranchFilter {
    region: Option<String>,
    contact: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

impl BranchFilter {
    fn check(self) -> Result<Self, Problem> {
        one_of("contact", self.contact.as_deref(), &["never", "connected", "silent"])?;
        Ok(self)
    }

    /// Branches that it lets through, by id.
    fn of(&self, fleet: &Fleet, reach: &Reach) -> Vec<usize> {
        let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        let mut order: Vec<usize> = (0..fleet.branches.len()).collect();
        order.retain(|at| {
            let branch = &fleet.branches[*at];
            reach.takes(&branch.info.region)
                && is(&self.region, branch.info.region.as_str())
                && is(&self.contact, branch.contact.as_str())
        });
        order.sort_by(|a, b| fleet.branches[*a].info.id.cmp(&fleet.branches[*b].info.id));
        order
    }
}

/// A branch by the id in a path. One that the caller may not see is none.
pub(super) fn find_branch(fleet: &Fleet, id: &str, reach: &Reach) -> Result<usize, Problem> {
    let at = id.parse::<BranchId>().ok().and_then(|id| fleet.branch(&id));
    let at = at.filter(|at| reach.takes(&fleet.branches[*at].info.region));
    at.ok_or_else(|| Problem::not_found("there is no such branch"))
}

/// The id of a branch by that in a path, likewise.
pub(super) fn branch_id(api: &Api, caller: &Caller, id: &str) -> Result<BranchId, Problem> {
    let fleet = api.live.fleet();
    find_branch(&fleet, id, &caller.who.reach).map(|at| fleet.branches[at].info.id.clone())
}

fn with_counts(fleet: &Fleet, at: usize) -> Value {
    let mut counts = Counts::default();
    fleet.branches[at].devices.iter().for_each(|device| counts.add(&fleet.devices[*device].view));
    let mut body = branch_json(fleet, at);
    body["counts"] = counts_json(&counts);
    body
}

/// Branches that a filter lets through, each as `write` has it, in a list of a name.
async fn listed(
    api: &Arc<Api>,
    caller: &Caller,
    uri: &Uri,
    filter: BranchFilter,
    name: &'static str,
    write: fn(&Fleet, usize) -> Value,
) -> Result<Answer, Problem> {
    let (filter, live, reach) = (filter.check()?, Arc::clone(&api.live), caller.who.reach.clone());
    let limit = large_page(filter.limit.as_deref())?;
    let make = move || {
        let fleet = live.fleet();
        let found = filter.of(&fleet, &reach);
        let id = |at: usize| fleet.branches[at].info.id.as_str();
        let from = filter.cursor.as_deref().map_or(0, |after| found.partition_point(|at| id(*at) <= after));
        let page = &found[from..found.len().min(from + limit)];
        let next = page.last().filter(|_| from + page.len() < found.len()).map(|at| id(*at));
        let rows: Vec<Value> = page.iter().map(|at| write(&fleet, *at)).collect();
        (json!({ "total": found.len(), "next_cursor": next, name: rows }).to_string().into_bytes(), clock::now())
    };
    api.answers.of(asked(uri, caller), &api.live.heard, make).await
}

/// Every branch with its agent and the counts of its devices.
pub(super) async fn branches(
    State(api): State<Arc<Api>>,
    caller: Caller,
    uri: Uri,
    Query(filter): Query<BranchFilter>,
) -> Result<Answer, Problem> {
    listed(&api, &caller, &uri, filter, "branches", with_counts).await
}

/// One branch, as in the list.
pub(super) async fn branch(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Answer, Problem> {
    let fleet = api.live.fleet();
    let at = find_branch(&fleet, &id, &caller.who.reach)?;
    Answer::dated(&with_counts(&fleet, at), clock::now())
}

/// Every region with the counts of its branches and devices.
pub(super) async fn regions(
    State(api): State<Arc<Api>>,
    caller: Caller,
    uri: Uri,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Answer, Problem> {
    let (live, reach) = (Arc::clone(&api.live), caller.who.reach.clone());
    let make = move || {
        let fleet = live.fleet();
        let mut regions: BTreeMap<&str, (&str, usize, usize, Counts)> = BTreeMap::new();
        for region in fleet.regions.iter().filter(|region| reach.takes(&region.id)) {
            regions.insert(region.id.as_str(), (&region.name, 0, 0, Counts::default()));
        }
        for branch in fleet.branches.iter().filter(|branch| reach.takes(&branch.info.region)) {
            let empty = (branch.info.region_name.as_str(), 0, 0, Counts::default());
            let (_, branches, silent, counts) = regions.entry(branch.info.region.as_str()).or_insert(empty);
            *branches += 1;
            *silent += usize::from(branch.contact == Contact::Silent);
            branch.devices.iter().for_each(|device| counts.add(&fleet.devices[*device].view));
        }
        let regions: Vec<Value> = regions
            .into_iter()
            .map(|(id, (name, branches, silent, counts))| {
                json!({ "id": id, "name": name, "branches": branches, "silent_branches": silent, "counts": counts_json(&counts) })
            })
            .collect();
        (json!({ "total": regions.len(), "regions": regions }).to_string().into_bytes(), clock::now())
    };
    api.answers.of(asked(&uri, &caller), &api.live.shown, make).await
}

/// Every branch's agent: which it is, how it can be heard, and what it says of itself.
pub(super) async fn agents(
    State(api): State<Arc<Api>>,
    caller: Caller,
    uri: Uri,
    Query(filter): Query<BranchFilter>,
) -> Result<Answer, Problem> {
    listed(&api, &caller, &uri, filter, "agents", agent_json).await
}

/// What of a branch was observed, and what is known to be missing.
pub(super) async fn coverage(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Json<Value>, Problem> {
    let id = branch_id(&api, &caller, &id)?;
    let name = id.to_string();
    let (covered, gaps) = api.read(move |db| Ok((store::covered(db, &name)?, store::gaps(db, &name)?))).await?;
    let covered = up_to_date(&api, &id, covered);
    let covered: Vec<Value> = covered.iter().map(|span| json!({ "from_ms": span.from.0, "to_ms": span.to.0 })).collect();
    let gaps: Vec<Value> = gaps
        .iter()
        .map(|gap| {
            json!({
                "from_ms": gap.from.0, "to_ms": gap.to.0, "reason": gap.reason,
                "stream": gap.stream, "first_seq": gap.first, "last_seq": gap.last,
                "transitions": gap.dropped.transitions, "minutes": gap.dropped.minutes,
                "unreadable": gap.dropped.unreadable,
            })
        })
        .collect();
    Ok(Json(json!({ "branch": id.as_str(), "covered": covered, "gaps": gaps })))
}

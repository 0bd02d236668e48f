//! Questions to a branch's agent: a few probes now, the way to a device, what answers in the branch. And what the ledger has of
//! boxes and cuts.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::evidence::Seen;
use shared::message::{Answer, Ask, Hop, PROBES_LIMIT, Refused};
use shared::{BranchId, Evidence, Status};
use tokio::time::Instant;

use super::Api;
use super::auth::Caller;
use super::devices::find;
use super::edits::edit;
use super::fleet::branch_id;
use super::problem::Problem;
use super::query::{Nothing, Query};
use crate::clock;
use crate::fleet::Contact;
use crate::ingest::Outgoing;
use crate::store::{self, Edit};
use crate::surface::evidence_json;

/// Time for an agent's answer to a few probes.
const PROBE_LIMIT: Duration = Duration::from_secs(20);
/// Time for an agent's answer to what takes it long. Below that of an answer of the API.
const LONG_LIMIT: Duration = Duration::from_secs(28);
/// When a question that found no place is worth another try, in seconds.
const BUSY_S: i64 = 5;
/// Probes unless a caller says otherwise.
const PROBES: u8 = 3;
/// Most boxes and cuts that are told.
const LIST_LIMIT: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Count {
    count: Option<u8>,
}

/// How many probes a body asks for. It may be missing.
fn count(body: &[u8]) -> Result<u8, Problem> {
    if body.is_empty() {
        return Ok(PROBES);
    }
    let Count { count } = serde_json::from_slice(body).map_err(|error| Problem::field("body", error.to_string()))?;
    match count.unwrap_or(PROBES) {
        count @ 1..=PROBES_LIMIT => Ok(count),
        _ => Err(Problem::field("count", format!("must lie between 1 and {PROBES_LIMIT}"))),
    }
}

/// Asks a branch's agent and waits for what it says.
async fn ask(api: &Api, branch: BranchId, limit: Duration, question: impl FnOnce(u64) -> Ask) -> Result<Answer, Problem> {
    let contact = {
        let fleet = api.live.fleet();
        fleet.branch(&branch).map(|at| fleet.branches[at].contact)
    };
    if contact != Some(Contact::Connected) {
        return Err(Problem::unavailable("the branch can't be heard"));
    }
    let Some(mut place) = api.live.answers.wait(branch.clone()) else {
        return Err(Problem::busy("too many questions wait for their answers: try again later", BUSY_S));
    };
    let question = question(place.id);
    api.effort.begin(&branch, &question, Instant::now()).map_err(Problem::too_many)?;
    if api.asks.try_send(Outgoing::Ask(branch, question)).is_err() {
        return Err(Problem::busy("too many questions are on their way: try again later", BUSY_S));
    }
    let answer = tokio::time::timeout(limit, &mut place.answer).await;
    match answer.map_err(|_| Problem::unavailable("the branch's agent did not answer in time"))?.map_err(Problem::internal)? {
        Answer::Refused { why, .. } => Err(match why {
            Refused::NoDevice => Problem::busy("the agent doesn't have this device yet: its config is on the way", BUSY_S),
            Refused::Busy => Problem::busy("the agent answers another such question: try again in a moment", BUSY_S),
            Refused::NotPermitted => Problem::unavailable("the agent's machine doesn't permit that"),
            Refused::NoAddress => Problem::unavailable("the device's name doesn't resolve in the branch"),
        }),
        answer => Ok(answer),
    }
}

/// `POST /api/v1/devices/{id}/probe`
pub(super) async fn probe(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(Nothing {}): Query<Nothing>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let known = find(&api, &caller, &id)?;
    let (count, device) = (count(&body)?, known.id.clone());
    let answer = ask(&api, known.branch, PROBE_LIMIT, |id| Ask::Probe { id, device, count }).await?;
    let Answer::Probed { status, evidence, .. } = answer else { return Err(Problem::internal("another question was answered")) };
    let mut body = evidence_json(&evidence, clock::now());
    let probes = evidence.probes.iter().enumerate().map(|(at, probe)| {
        let rtt_ms = probe.seen.rtt_us().map(|us| f64::from(us) / 1000.0);
        json!({ "sequence": at + 1, "outcome": probe.seen.as_str(), "rtt_ms": rtt_ms })
    });
    body["probes"] = probes.collect();
    body["device"] = json!(known.id.as_str());
    body["status"] = json!(status.as_str());
    body["explanation"] = json!(explain(status, &evidence));
    Ok(Json(body))
}

/// What probes and their surroundings mean, in a sentence or two.
fn explain(status: Status, evidence: &Evidence) -> String {
    let seen = || evidence.probes.iter().map(|probe| probe.seen);
    let (all, replies) = (seen().count(), seen().filter(|seen| seen.rtt_us().is_some()).count());
    let mut text = match replies {
        0 if seen().all(|seen| seen == Seen::SendError) => {
            "no probe left the agent's machine: nothing can be said of the device".to_owned()
        }
        0 => "the device does not answer".to_owned(),
        _ if replies == all => "the device answers".to_owned(),
        _ => format!(
            "the device answered {replies} of {all} probes: look at the cable, the load, and whether two have its address"
        ),
    };
    if replies == 0 {
        match (evidence.carrier, evidence.gateway) {
            (Some(false), _) => text.push_str("; the agent's own cable is out"),
            (_, Some(seen)) if seen.rtt_us().is_some() => {
                text.push_str("; the gateway answers, so it is not the agent's own cable")
            }
            (_, Some(_)) => text.push_str("; the gateway does not answer either"),
            (_, None) => {}
        }
        if evidence.mac.is_some() {
            text.push_str("; the kernel knows a box at its address, so something is plugged in there or was until just now");
        }
    }
    match (status, replies) {
        (Status::Down, 1..) => text.push_str("; it is shown down until it has answered often enough in a row"),
        (Status::Up, 0) => text.push_str("; it is shown up until it has missed enough probes in a row"),
        (Status::Up | Status::Down | Status::Unknown(_), _) => {}
    }
    text
}

/// `POST /api/v1/devices/{id}/traceroute`
pub(super) async fn traceroute(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Json<Value>, Problem> {
    let known = find(&api, &caller, &id)?;
    let device = known.id.clone();
    let answer = ask(&api, known.branch, LONG_LIMIT, |id| Ask::Route { id, device }).await?;
    let Answer::Route { hops, is_reached, .. } = answer else { return Err(Problem::internal("another question was answered")) };
    let hop =
        |hop: &Hop| json!({ "ttl": hop.ttl, "address": hop.address, "rtt_ms": hop.rtt_us.map(|us| f64::from(us) / 1000.0) });
    Ok(Json(json!({ "device": known.id.as_str(), "hops": hops.iter().map(hop).collect::<Vec<_>>(), "reached": is_reached })))
}

/// `POST /api/v1/branches/{id}/discovery`
pub(super) async fn discovery(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Json<Value>, Problem> {
    let branch = branch_id(&api, &caller, &id)?;
    let answer = ask(&api, branch.clone(), LONG_LIMIT, |id| Ask::Discover { id }).await?;
    let Answer::Discovered { asked, unknown, never, config, .. } = answer else {
        return Err(Problem::internal("another question was answered"));
    };
    let key = branch.to_string();
    let newest = api.read(move |db| Ok(store::config_versions(db)?.get(&key).map(|(version, _)| *version))).await?;
    let fleet = api.live.fleet();
    let Some(at) = fleet.branch(&branch) else { return Err(Problem::not_found("there is no such branch")) };
    let devices = &fleet.branches[at].devices;
    let id = |place: &u16| devices.get(usize::from(*place)).map(|at| fleet.devices[*at].info.id.as_str());
    // The places are those of the config that the agent has: of another one nothing can be said.
    let ids: Option<Vec<&str>> = (newest == Some(config)).then(|| never.iter().filter_map(id).collect());
    let found: Vec<Value> =
        unknown.iter().map(|found| json!({ "ip": found.address, "mac": found.mac.map(|mac| mac.to_string()) })).collect();
    Ok(Json(json!({ "branch": branch.as_str(), "asked": asked, "answered_unknown": found, "never_answered": ids })))
}

/// `GET /api/v1/devices/{id}/identity`
pub(super) async fn identity(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Json<Value>, Problem> {
    let known = find(&api, &caller, &id)?;
    let rows = api.read(move |db| store::identities(db, known.no, LIST_LIMIT)).await?;
    let found = |found: &store::Found| {
        json!({
            "at_ms": found.at.0, "ip": found.ip, "mac": found.mac, "before": found.before, "is_contested": found.is_contested,
            "accepted_ms": found.accepted.map(|at| at.0),
        })
    };
    Ok(Json(json!({ "device": known.id.as_str(), "identities": rows.iter().map(found).collect::<Vec<_>>() })))
}

/// `DELETE /api/v1/devices/{id}/identity`: whoever has looked at the box takes the flag back.
pub(super) async fn accept_identity(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<axum::http::StatusCode, Problem> {
    let known = find(&api, &caller, &id)?;
    edit(&api, &caller, Edit::AcceptIdentity { no: known.no, device: known.id }).await?;
    Ok(axum::http::StatusCode::NO_CONTENT)
}

/// `GET /api/v1/branches/{id}/cuts`
pub(super) async fn cuts(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Json<Value>, Problem> {
    let branch = branch_id(&api, &caller, &id)?;
    let key = branch.to_string();
    let rows = api.read(move |db| store::cuts(db, &key, LIST_LIMIT)).await?;
    let cut = |cut: &store::CutRow| json!({ "from_ms": cut.from.0, "to_ms": cut.to.0, "verdict": cut.verdict.as_str(), "reason": cut.reason });
    Ok(Json(json!({ "branch": branch.as_str(), "cuts": rows.iter().map(cut).collect::<Vec<_>>() })))
}

#[cfg(test)]
mod tests {
    use shared::evidence::Trace;

    use super::*;

    #[test]
    fn a_body_asks_for_one_to_ten_probes() {
        assert_eq!(count(b""), Ok(PROBES));
        assert_eq!(count(b"{\"count\":10}"), Ok(10));
        for bad in ["{\"count\":0}", "{\"count\":11}", "{\"count\":300}", "{\"many\":1}", "[]", "x"] {
            assert!(count(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_explanation_says_where_to_look() {
        let evidence = |seen: &[Seen], gateway| Evidence {
            probes: seen.iter().map(|seen| Trace { ago_ms: 0, seen: *seen }).collect(),
            gateway,
            ..Evidence::default()
        };
        let reply = Seen::Reply { rtt_us: 300 };
        assert_eq!(explain(Status::Up, &evidence(&[reply], None)), "the device answers");
        assert_eq!(
            explain(Status::Down, &evidence(&[Seen::Timeout], Some(reply))),
            "the device does not answer; the gateway answers, so it is not the agent's own cable"
        );
        assert!(explain(Status::Up, &evidence(&[reply, Seen::Timeout], None)).starts_with("the device answered 1 of 2 probes"));
    }
}

//! `GET /api/v1/devices/{id}/history`.

use std::sync::Arc;

use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::Millis;

use super::Api;
use super::answer::Answer;
use super::auth::Caller;
use super::devices::{Past, find};
use super::problem::Problem;
use super::query::{Query, Range, range};

use crate::history::{POINTS_LIMIT, Point, STEP_MIN_MS, aligned, filled, points, step_for};
use crate::surface::{interval_json, outage_json};
use crate::{clock, outage, store};

/// The range unless somebody asks for another, in ms.
const DEFAULT_MS: i64 = 86_400_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    time_range: Option<String>,
    from: Option<String>,
    to: Option<String>,
    step: Option<String>,
}

/// The range with the step of its points.
fn steps(asked: &Asked, now: Millis) -> Result<(Range, i64), Problem> {
    let (named, from, to) = (asked.time_range.as_deref(), asked.from.as_deref(), asked.to.as_deref());
    let range = range(named, from, to, DEFAULT_MS, now)?;
    let length = range.to.since(range.from);
    let step_ms = match &asked.step {
        None => step_for(length),
        Some(text) => step(text)?,
    };
    if length / step_ms > POINTS_LIMIT {
        return Err(Problem::field("step", format!("gives more than {POINTS_LIMIT} points")));
    }
    Ok((range, step_ms))
}

fn step(text: &str) -> Result<i64, Problem> {
    let wrong = || Problem::field("step", "must be whole minutes up to 24h, such as 5m or 1h");
    let (digits, unit) = text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
    let unit = match unit {
        "m" => STEP_MIN_MS,
        "h" => 60 * STEP_MIN_MS,
        _ => return Err(wrong()),
    };
    let digits = Some(digits).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit())).ok_or_else(wrong)?;
    let step = digits.parse::<i64>().ok().and_then(|n| n.checked_mul(unit)).ok_or_else(wrong)?;
    if (STEP_MIN_MS..=1440 * STEP_MIN_MS).contains(&step) { Ok(step) } else { Err(wrong()) }
}

/// A device's status intervals and outages, exact, and its round trips and loss by steps.
pub(super) async fn history(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Answer, Problem> {
    let now = clock::now();
    let known = find(&api, &caller, &id)?;
    let (Range { from, to }, step_ms) = steps(&asked, now)?;
    let (first, last) = aligned(from, to, step_ms);
    let from_victoria = match api.victoria.as_ref().filter(|victoria| victoria.has_everything()) {
        // What doesn't answer says so in the log and the metrics; the collector's own file has the same minutes.
        Some(victoria) => victoria.points(&known.id, first, last, step_ms).await.ok(),
        None => None,
    };
    let is_embedded = from_victoria.is_none();
    let steps = last.since(first) / step_ms;
    let is_whole = from_victoria.as_ref().is_some_and(|points| i64::try_from(points.len()).unwrap_or(i64::MAX) >= steps);
    let (no, id) = (known.no, known.id.clone());
    let beside = move |db: &rusqlite::Connection| {
        // VictoriaMetrics knows devices by their ids: what one of the same id was before is another's.
        let anew = store::removed_at(db, &id)?.filter(|at| *at > first);
        // A step without a point may be one that VictoriaMetrics has lost, or never had.
        let rows = if is_whole && anew.is_none() { Vec::new() } else { store::minutes(db, no, first.plus(1), last)? };
        Ok((anew, rows))
    };
    let Past { changes, covered, beside: (anew, rows) } = known.past(&api, from, to, beside).await?;
    let mut own = from_victoria.unwrap_or_default();
    own.retain(|point| anew.is_none_or(|anew| point.at >= anew));
    let points = filled(own, points(&rows, step_ms));
    let intervals: Vec<Value> = outage::intervals(&changes, &covered, from, to).iter().map(interval_json).collect();
    let outages: Vec<Value> = outage::outages(&changes, &covered, from, to).iter().map(outage_json).collect();
    let text = serde_json::to_vec(&Told {
        device_id: known.id.as_str(),
        from: from.to_string(),
        from_ms: from.0,
        to: to.to_string(),
        to_ms: to.0,
        step_ms,
        count: points.len(),
        source: if is_embedded { "embedded" } else { "victoria_metrics" },
        intervals,
        outages,
        points: points.iter().map(PointTold::of).collect(),
    });
    Ok(Answer::of_bytes(text.map_err(Problem::internal)?.into()))
}

/// A history as it is written: without a tree of JSON, which would take as long as reading the file.
#[derive(Serialize)]
struct Told<'a> {
    device_id: &'a str,
    from: String,
    from_ms: i64,
    to: String,
    to_ms: i64,
    step_ms: i64,
    count: usize,
    source: &'static str,
    intervals: Vec<Value>,
    outages: Vec<Value>,
    points: Vec<PointTold>,
}

#[derive(Serialize)]
struct PointTold {
    t_ms: i64,
    rtt_min_ms: Option<f64>,
    rtt_avg_ms: Option<f64>,
    rtt_max_ms: Option<f64>,
    packet_loss: f64,
}

impl PointTold {
    fn of(point: &Point) -> Self {
        let Point { at, rtt_min_ms, rtt_avg_ms, rtt_max_ms, packet_loss } = *point;
        Self { t_ms: at.0, rtt_min_ms, rtt_avg_ms, rtt_max_ms, packet_loss }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_795_442_400_000);

    fn check(time_range: &str, from: &str, to: &str, step: &str, expected: &str) {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let asked = Asked { time_range: some(time_range), from: some(from), to: some(to), step: some(step) };
        let text = match steps(&asked, NOW) {
            Ok((Range { from, to }, step_ms)) => format!("{} h by {} min", to.since(from) / 3_600_000, step_ms / 60_000),
            Err(problem) => format!("{problem:?}").split("field: ").nth(1).unwrap_or_default().trim_end_matches(" }").to_owned(),
        };
        assert_eq!(text, expected, "{time_range} {from} {to} {step}");
    }

    #[test]
    fn a_range_is_what_was_asked_or_refused_by_name() {
        check("", "", "", "", "24 h by 5 min");
        check("1h", "", "", "", "1 h by 5 min");
        check("7d", "", "", "1h", "168 h by 60 min");
        check("", "2026-11-22T14:00:00Z", "2026-11-23T02:00:00Z", "", "12 h by 5 min");
        check("2h", "", "", "", "Some(\"time_range\")");
        check("1h", "2026-11-22T14:00:00Z", "", "", "Some(\"time_range\")");
        check("", "yesterday", "", "", "Some(\"from\")");
        check("", "", "2026-11-22T14:00:00Z", "", "Some(\"from\")");
        check("", "2026-11-23T14:00:00Z", "", "", "Some(\"from\")");
        check("", "2020-11-23T14:00:00Z", "", "", "Some(\"from\")");
        check("", "-5", "", "", "Some(\"from\")");
        check("30d", "", "", "1m", "Some(\"step\")");
        for bad in ["0m", "5", "m", "5s", "25h", "-5m", "+5m", "5მ", "99999999999999999999m"] {
            check("1h", "", "", bad, "Some(\"step\")");
        }
    }
}

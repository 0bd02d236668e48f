//! `GET /api/v1/availability` and the reports.

use std::sync::Arc;

use axum::extract::State;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::Millis;

use super::Api;
use super::answer::Answer;
use super::auth::Caller;
use super::problem::Problem;
use super::query::Query;
use crate::availability::report::{Asked, By, Filter, Late, Row, flapping, rows};
use crate::availability::spans::Span;
use crate::availability::timelines::{HORIZON_MS, Timelines};
use crate::fleet::Fleet;
use crate::{clock, schedule, store};

/// Longest time that can be asked about, in ms.
const RANGE_LIMIT_MS: i64 = 366 * DAY_MS;
/// Rows of one answer unless the caller says otherwise, and at most.
const PAGE: (usize, usize) = (1_000, 10_000);
/// Most months of one report.
const MONTHS_LIMIT: usize = 13;
/// Most minutes that are read for round trips: about a second.
const MINUTES_LIMIT: i64 = 2_000_000;
/// Most percentiles of one question.
const PERCENTILES_LIMIT: usize = 10;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Every parameter of these questions. Each names those that it takes.
#[derive(Deserialize, Default, Clone)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    by: Option<String>,
    from: Option<String>,
    to: Option<String>,
    month: Option<String>,
    tz: Option<String>,
    region: Option<String>,
    branch: Option<String>,
    device_type: Option<String>,
    device: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
    target: Option<String>,
    met: Option<String>,
    months: Option<String>,
    more_than: Option<String>,
    percentiles: Option<String>,
}

impl Params {
    /// A month, or a time in integer ms.
    pub(super) fn of_time(month: Option<String>, from: Option<String>, to: Option<String>, tz: Option<String>) -> Self {
        Self { month, from, to, tz, ..Self::default() }
    }

    /// The same about some devices only.
    pub(super) fn about(
        self,
        region: Option<String>,
        branch: Option<String>,
        device_type: Option<String>,
        device: Option<String>,
    ) -> Self {
        Self { region, branch, device_type, device, ..self }
    }

    /// Refuses what this question doesn't take.
    fn only(&self, also: &[&str]) -> Result<(), Problem> {
        let special = [
            ("by", &self.by),
            ("month", &self.month),
            ("cursor", &self.cursor),
            ("from", &self.from),
            ("to", &self.to),
            ("limit", &self.limit),
            ("target", &self.target),
            ("met", &self.met),
            ("months", &self.months),
            ("more_than", &self.more_than),
            ("percentiles", &self.percentiles),
        ];
        match special.iter().find(|(name, value)| value.is_some() && !also.contains(name)) {
            Some((name, _)) => Err(Problem::field(name, "is no parameter of this question")),
            None => Ok(()),
        }
    }

    fn by(&self, default: By) -> Result<By, Problem> {
        Ok(match self.by.as_deref() {
            None => default,
            Some("all") => By::All,
            Some("region") => By::Region,
            Some("branch") => By::Branch,
            Some("type") => By::Type,
            Some("device") => By::Device,
            Some(_) => return Err(Problem::field("by", "must be all, region, branch, type or device")),
        })
    }

    fn filter(&self, caller: &Caller) -> Filter {
        let Self { region, branch, device_type, device, .. } = self.clone();
        Filter { region, branch, device_type, device, reach: caller.who.reach.clone() }
    }

    fn zone(&self, api: &Api) -> Result<(String, TimeZone), Problem> {
        let Some(name) = &self.tz else { return Ok(api.zone.clone()) };
        let zone = schedule::zone(name).ok_or_else(|| Problem::field("tz", schedule::NO_ZONE))?;
        Ok((name.clone(), zone))
    }

    /// The time that is asked about; without any word about it `default`.
    fn time(&self, zone: &TimeZone, now: Millis, default: Span) -> Result<Asked, Problem> {
        let time = |field: &str, text: &Option<String>| match text.as_ref().map(|text| text.parse::<Millis>()) {
            None => Ok(None),
            Some(Ok(at)) => Ok(Some(at)),
            Some(Err(error)) => Err(Problem::field(field, error.to_string())),
        };
        let span = match (&self.month, time("from", &self.from)?, time("to", &self.to)?) {
            (Some(_), Some(_), _) => return Err(Problem::field("month", "can't stand beside from")),
            (Some(_), None, Some(_)) => return Err(Problem::field("month", "can't stand beside to")),
            (Some(text), None, None) => {
                let month = schedule::month(text, zone);
                let month = month.ok_or_else(|| Problem::field("month", "must be a month such as 2026-10"))?;
                if month.from >= now || month.from < Millis(0) {
                    return Err(Problem::field("month", "must have begun, and after 1970"));
                }
                month
            }
            (None, Some(from), to) => Span::new(from, to.unwrap_or(now)),
            (None, None, Some(_)) => return Err(Problem::field("from", "is needed beside to")),
            (None, None, None) => default,
        };
        if span.from < Millis(0) || span.from >= now || span.is_empty() {
            return Err(Problem::field("from", "must lie between 1970 and to, and in the past"));
        }
        if span.ms() > RANGE_LIMIT_MS {
            return Err(Problem::field("from", "a time has at most 366 days"));
        }
        Ok(Asked::new(span, now))
    }

    fn whole(&self, name: &str, text: &Option<String>, default: usize, limits: (usize, usize)) -> Result<usize, Problem> {
        let Some(text) = text else { return Ok(default) };
        let wrong = || Problem::field(name, format!("must be a whole number between {} and {}", limits.0, limits.1));
        text.parse().ok().filter(|n| (limits.0..=limits.1).contains(n)).ok_or_else(wrong)
    }

    fn page(&self) -> Result<usize, Problem> {
        self.whole("limit", &self.limit, PAGE.0, (1, PAGE.1))
    }
}

/// The running month.
fn this_month(zone: &TimeZone, now: Millis) -> Span {
    let month = schedule::months_to(now, 1, zone).pop();
    month.map_or(Span::new(now.plus(-30 * DAY_MS), now), |(_, span)| span)
}

/// Asks what was, on a thread that may take its time.
async fn ask<T: Send + 'static>(
    api: &Arc<Api>,
    filter: Filter,
    from: Millis,
    now: Millis,
    question: impl FnOnce(&Fleet, &Timelines, &rusqlite::Connection) -> Result<T, store::StoreError> + Send + 'static,
) -> Result<T, Problem> {
    let asked = Arc::clone(api);
    let is_kept = from >= now.plus(-HORIZON_MS);
    // What isn't in memory is read, branch by branch.
    let place = if is_kept && is_loaded(api, &filter) { None } else { Some(api.room.enter().await?) };
    let work = move || {
        let _place = place;
        let Api { live, readers, .. } = &*asked;
        if is_kept {
            live.load_timelines(readers, |branch| filter.takes_branch(branch), now)?;
            return readers.read(|db| question(&live.fleet(), &live.timelines(), db));
        }
        // Nobody keeps that in memory.
        let branches: Vec<_> = {
            let fleet = live.fleet();
            let taken = fleet.branches.iter().filter(|branch| filter.takes_branch(branch));
            let numbers = |devices: &[usize]| devices.iter().map(|at| fleet.devices[*at].no).collect::<Vec<u32>>();
            taken.map(|branch| (branch.info.id.clone(), numbers(&branch.devices))).collect()
        };
        readers.read(|db| {
            let mut lines = Timelines::default();
            for (branch, devices) in &branches {
                let loaded = store::timelines(db, branch.as_str(), devices)?;
                lines.install(branch, 0, loaded, from.plus(HORIZON_MS));
            }
            question(&live.fleet(), &lines, db)
        })
    };
    tokio::task::spawn_blocking(work).await.map_err(Problem::internal)?.map_err(Problem::internal)
}

fn is_loaded(api: &Api, filter: &Filter) -> bool {
    let (fleet, timelines) = (api.live.fleet(), api.live.timelines());
    fleet.branches.iter().filter(|branch| filter.takes_branch(branch)).all(|branch| timelines.stale(&branch.info.id).is_none())
}

/// The rows of a time.
async fn rows_of(api: &Arc<Api>, by: By, filter: Filter, asked: Asked, now: Millis) -> Result<Vec<Row>, Problem> {
    let wanted = filter.clone();
    ask(api, filter, asked.span.from, now, move |fleet, lines, db| {
        let late: Late = store::late(db, asked.span)?;
        Ok(rows(fleet, lines, &late, by, &wanted, asked))
    })
    .await
}

fn row_json(row: &Row) -> Value {
    let t = &row.tally;
    json!({
        "key": row.key,
        "name": row.name,
        "devices": t.devices,
        "up_ms": t.up_ms,
        "down_ms": t.down_ms,
        "unknown_ms": t.unknown_ms,
        "maintenance_ms": t.maintenance_ms,
        "off_hours_ms": t.off_hours_ms,
        "outages": t.outages,
        "changes": t.changes,
        "mttr_ms": t.mttr_ms(),
        "mtbf_ms": t.mtbf_ms(),
        "longest_ms": t.longest_ms,
        "availability": t.availability(),
        "at_least": t.at_least(),
        "at_most": t.at_most(),
        "coverage": t.coverage(),
        "reason": t.reason(),
        "state": state(row.is_final),
        "revision": row.revision,
        "observed_through_ms": row.observed_through.map(|at| at.0),
    })
}

fn state(is_final: bool) -> &'static str {
    if is_final { "final" } else { "provisional" }
}

fn head(asked: Asked, zone: &str) -> Value {
    json!({
        "from": asked.span.from.to_string(), "from_ms": asked.span.from.0,
        "to": asked.span.to.to_string(), "to_ms": asked.span.to.0,
        "counted_to_ms": asked.past.to.0,
        "time_zone": zone,
    })
}

/// Writes one page of rows into an answer.
fn put_page(body: &mut Value, rows: &[Row], params: &Params, write: impl Fn(&Row) -> Value) -> Result<(), Problem> {
    let limit = params.page()?;
    let after = params.cursor.as_deref().unwrap_or_default();
    let first = rows.partition_point(|row| row.key.as_str() <= after);
    let page = &rows[first..rows.len().min(first + limit)];
    let next = page.last().filter(|_| first + page.len() < rows.len()).map(|row| row.key.as_str());
    body["total"] = json!(rows.len());
    body["next_cursor"] = json!(next);
    body["rows"] = page.iter().map(write).collect();
    Ok(())
}

/// The figures of a time: what was asked for, the name of the time zone, and the rows by their keys.
pub(super) async fn figures(
    api: &Arc<Api>,
    caller: &Caller,
    params: &Params,
    by: By,
    now: Millis,
) -> Result<(Asked, String, Vec<Row>), Problem> {
    let (name, zone) = params.zone(api)?;
    let asked = params.time(&zone, now, this_month(&zone, now))?;
    let rows = rows_of(api, by, params.filter(caller), asked, now).await?;
    Ok((asked, name, rows))
}

/// How available devices were.
pub(super) async fn availability(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(params): Query<Params>,
) -> Result<Answer, Problem> {
    params.only(&["by", "month", "from", "to", "limit", "cursor"])?;
    let now = clock::now();
    params.page()?;
    let (asked, name, rows) = figures(&api, &caller, &params, params.by(By::All)?, now).await?;
    let mut body = head(asked, &name);
    body["state"] = json!(state(rows.iter().all(|row| row.is_final)));
    put_page(&mut body, &rows, &params, row_json)?;
    Answer::dated(&body, now)
}

/// Who kept a promise.
pub(super) async fn sla(State(api): State<Arc<Api>>, caller: Caller, Query(params): Query<Params>) -> Result<Answer, Problem> {
    params.only(&["by", "month", "from", "to", "limit", "cursor", "target", "met"])?;
    let now = clock::now();
    let (name, zone) = params.zone(&api)?;
    let asked = params.time(&zone, now, this_month(&zone, now))?;
    params.page()?;
    let text = params.target.as_deref().unwrap_or("99.9");
    let target = target(text).ok_or_else(|| {
        Problem::field("target", "must be a percentage from 0 to below 100 with at most four decimals, such as 99.9")
    })?;
    let wanted = match params.met.as_deref() {
        None => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) => return Err(Problem::field("met", "must be true or false")),
    };
    let mut rows = rows_of(&api, params.by(By::Device)?, params.filter(&caller), asked, now).await?;
    let count = |met| rows.iter().filter(|row| row.tally.is_above(target) == met).count();
    let mut body = head(asked, &name);
    body["target"] = json!(f64::from(target) / 10_000.0);
    (body["met"], body["missed"], body["unknown"]) = (json!(count(Some(true))), json!(count(Some(false))), json!(count(None)));
    body["state"] = json!(state(rows.iter().all(|row| row.is_final)));
    rows.retain(|row| wanted.is_none() || row.tally.is_above(target) == wanted);
    put_page(&mut body, &rows, &params, |row| {
        let mut body = row_json(row);
        body["met"] = json!(row.tally.is_above(target));
        body
    })?;
    Answer::dated(&body, now)
}

/// A percentage in parts of a million.
fn target(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |text: &str| !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let fraction: u32 = format!("{fraction:0<4}").parse().ok()?;
    Some(whole.parse::<u32>().ok()? * 10_000 + fraction).filter(|parts| *parts < 1_000_000)
}

/// Availability by calendar months, newest first.
pub(super) async fn uptime(State(api): State<Arc<Api>>, caller: Caller, Query(params): Query<Params>) -> Result<Answer, Problem> {
    params.only(&["by", "limit", "cursor", "months"])?;
    let now = clock::now();
    let (name, zone) = params.zone(&api)?;
    let count = params.whole("months", &params.months, 1, (1, MONTHS_LIMIT))?;
    let by = params.by(By::Branch)?;
    params.page()?;
    let months = schedule::months_to(now, count, &zone);
    let (filter, spans) = (params.filter(&caller), months.clone());
    let wanted = filter.clone();
    let from = months.last().map_or(now, |(_, span)| span.from);
    let by_month: Vec<Vec<Row>> = ask(&api, filter, from, now, move |fleet, lines, db| {
        let of =
            |(_, span): &(String, Span)| Ok(rows(fleet, lines, &store::late(db, *span)?, by, &wanted, Asked::new(*span, now)));
        spans.iter().map(of).collect()
    })
    .await?;
    // The estate is the same in each month, and so are the keys.
    let mut body = json!({ "time_zone": name, "months": months.iter().map(|(name, _)| name).collect::<Vec<_>>() });
    let newest = by_month.first().cloned().unwrap_or_default();
    put_page(&mut body, &newest, &params, |row| {
        let of = |(rows, (name, _)): (&Vec<Row>, &(String, Span))| {
            let at = rows.binary_search_by(|other| other.key.cmp(&row.key)).ok()?;
            let mut body = row_json(&rows[at]);
            body["month"] = json!(name);
            Some(body)
        };
        let months: Vec<Value> = by_month.iter().zip(&months).filter_map(of).collect();
        json!({ "key": row.key, "name": row.name, "months": months })
    })?;
    Answer::dated(&body, now)
}

/// Devices that changed often, those that changed most first.
pub(super) async fn flaps(State(api): State<Arc<Api>>, caller: Caller, Query(params): Query<Params>) -> Result<Answer, Problem> {
    params.only(&["month", "from", "to", "limit", "more_than"])?;
    let now = clock::now();
    let (name, zone) = params.zone(&api)?;
    let asked = params.time(&zone, now, Span::new(now.plus(-DAY_MS), now))?;
    let limit = params.whole("limit", &params.limit, 10, (1, PAGE.1))?;
    let more_than = params.whole("more_than", &params.more_than, 10, (0, 1_000_000))?;
    let days = schedule::days(asked.past, &zone);
    let filter = params.filter(&caller);
    let wanted = filter.clone();
    let (total, rows) = ask(&api, filter, asked.span.from, now, move |fleet, lines, _| {
        let found = flapping(fleet, lines, &wanted, asked, &days, more_than as u64);
        let row = |found: &crate::availability::report::Flapping| {
            let info = &fleet.devices[found.device].info;
            json!({
                "device_id": info.id.as_str(), "name": info.name, "branch": info.branch.as_str(),
                "device_type": info.device_type, "changes": found.changes,
                "worst_day": days[found.worst_day].0, "worst_day_changes": found.worst,
            })
        };
        Ok((found.len(), found.iter().take(limit).map(row).collect::<Vec<_>>()))
    })
    .await?;
    let mut body = head(asked, &name);
    body["more_than"] = json!(more_than);
    (body["total"], body["rows"]) = (json!(total), json!(rows));
    Answer::dated(&body, now)
}

/// Percentiles of the minutes' mean round trips, by type.
pub(super) async fn round_trips(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(params): Query<Params>,
) -> Result<Answer, Problem> {
    params.only(&["from", "to", "percentiles"])?;
    let now = clock::now();
    let (name, zone) = params.zone(&api)?;
    let asked = params.time(&zone, now, Span::new(now.plus(-HOUR_MS), now))?;
    let percentiles = percentiles(params.percentiles.as_deref().unwrap_or("50,90,95,99"))?;
    let filter = params.filter(&caller);
    let devices: Vec<(u32, String)> = {
        let fleet = api.live.fleet();
        let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        let taken = fleet.devices.iter().filter(|device| {
            filter.takes_branch(&fleet.branches[device.branch])
                && is(&filter.device_type, &device.info.device_type)
                && is(&filter.device, device.info.id.as_str())
        });
        taken.map(|device| (device.no, device.info.device_type.clone())).collect()
    };
    let minutes = asked.past.ms() / Millis::MINUTE;
    if i64::try_from(devices.len()).unwrap_or(i64::MAX).saturating_mul(minutes) > MINUTES_LIMIT {
        let why = format!(
            "{} devices have more than {MINUTES_LIMIT} minutes in this time: ask for less, or VictoriaMetrics",
            devices.len()
        );
        return Err(Problem::field("from", why));
    }
    let by_type = api
        .read_much(move |db| {
            let mut by_type: std::collections::BTreeMap<String, Vec<u32>> = std::collections::BTreeMap::new();
            for (no, kind) in devices {
                let rows = store::minutes(db, no, asked.past.from.plus(1), asked.past.to)?;
                by_type.entry(kind).or_default().extend(rows.iter().filter_map(|row| Some(row.minute.rtt?.avg_us)));
            }
            by_type.values_mut().for_each(|all| all.sort_unstable());
            Ok(by_type)
        })
        .await?;
    let row = |(kind, all): (String, Vec<u32>)| {
        let value = |p: &(String, f64)| (p.0.clone(), json!(nearest_rank(&all, p.1).map(|us| f64::from(us) / 1000.0)));
        let values: serde_json::Map<String, Value> = percentiles.iter().map(value).collect();
        json!({ "device_type": kind, "minutes": all.len(), "rtt_ms": values })
    };
    let mut body = head(asked, &name);
    body["rows"] = by_type.into_iter().map(row).collect();
    Answer::dated(&body, now)
}

fn percentiles(text: &str) -> Result<Vec<(String, f64)>, Problem> {
    let all: Option<Vec<(String, f64)>> = text
        .split(',')
        .map(|word| {
            let is_number = word.len() <= 7 && word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            let value = word.parse::<f64>().ok().filter(|p| is_number && *p > 0.0 && *p <= 100.0)?;
            Some((format!("p{word}"), value))
        })
        .collect();
    let wrong =
        || Problem::field("percentiles", format!("must be at most {PERCENTILES_LIMIT} numbers up to 100, such as 50,95,99"));
    all.filter(|all| all.len() <= PERCENTILES_LIMIT).ok_or_else(wrong)
}

/// The smallest value that so many percent of all don't exceed. `all` in order.
fn nearest_rank(all: &[u32], percent: f64) -> Option<u32> {
    let rank = (all.len() as f64 * percent / 100.0).ceil() as usize;
    all.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_795_442_400_000);

    fn check(month: &str, from: &str, to: &str, expected: &str) {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let params = Params { month: some(month), from: some(from), to: some(to), ..Params::default() };
        let zone = schedule::zone("Asia/Tbilisi").expect("a zone");
        let text = match params.time(&zone, NOW, this_month(&zone, NOW)) {
            Ok(asked) => format!("{} {} h, {} past", asked.span.from, asked.span.ms() / HOUR_MS, asked.past.ms() / HOUR_MS),
            Err(problem) => format!("{problem:?}").split("field: ").nth(1).unwrap_or_default().trim_end_matches(" }").to_owned(),
        };
        assert_eq!(text, expected, "{month} {from} {to}");
    }

    #[test]
    fn a_time_is_what_was_asked_or_refused_by_name() {
        check("", "", "", "2026-10-31T20:00:00.000Z 720 h, 546 past");
        check("2026-10", "", "", "2026-09-30T20:00:00.000Z 744 h, 744 past");
        check("", "2026-11-22T14:00:00Z", "", "2026-11-22T14:00:00.000Z 24 h, 24 past");
        check("", "2026-11-22T14:00:00Z", "2026-11-24T14:00:00Z", "2026-11-22T14:00:00.000Z 48 h, 24 past");
        check("2026-12", "", "", "Some(\"month\")");
        check("october", "", "", "Some(\"month\")");
        check("2026-10", "2026-11-22T14:00:00Z", "", "Some(\"month\")");
        check("", "", "2026-11-22T14:00:00Z", "Some(\"from\")");
        check("", "2026-11-24T14:00:00Z", "", "Some(\"from\")");
        check("", "2024-11-24T14:00:00Z", "", "Some(\"from\")");
        check("", "2026-11-22T14:00:00Z", "soon", "Some(\"to\")");
        check("", "-1", "", "Some(\"from\")");
    }

    #[test]
    fn a_target_is_read_to_the_last_decimal() {
        assert_eq!(
            (target("99.9"), target("99"), target("99.9999"), target("0")),
            (Some(999_000), Some(990_000), Some(999_999), Some(0))
        );
        for bad in ["", "100", "-1", "99.99999", "99.", ".9", "9e1", "NaN", "99,9"] {
            assert_eq!(target(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let all: Vec<u32> = (1..=100).collect();
        assert_eq!(
            (nearest_rank(&all, 50.0), nearest_rank(&all, 99.0), nearest_rank(&all, 100.0)),
            (Some(50), Some(99), Some(100))
        );
        assert_eq!((nearest_rank(&[7], 1.0), nearest_rank(&[], 50.0)), (Some(7), None));
        for bad in ["", "0", "101", "NaN", "50,,95", "-5", "1e1", "1,2,3,4,5,6,7,8,9,10,11"] {
            assert!(percentiles(bad).is_err(), "{bad}");
        }
    }
}

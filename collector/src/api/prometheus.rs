//! Prometheus' own questions, passed on to VictoriaMetrics: so that Grafana can use ward as its source.
//!
//! Answers and errors have Prometheus' form. What isn't a known parameter is refused before anything is asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use shared::{BranchId, Millis};

use super::Api;
use super::answer::Answer;
use super::auth::Caller;
use crate::accounts::Reach;
use crate::clock;
use crate::history::{POINTS_LIMIT, RANGE_LIMIT_MS};
use crate::promql::{any_of, duration_ms};
use crate::victoria::{Question, Unanswered, seconds};

/// Longest query in bytes.
const QUERY_LIMIT_BYTES: usize = 16 * 1024;
/// How long an answer about one moment may be kept: half of this, in ms.
const INSTANT_MS: i64 = 10_000;

/// Each parameter once, in the order of names.
type Parameters = Result<Form<Vec<(String, String)>>, FormRejection>;

/// What is wrong with a question.
struct Bad(StatusCode, &'static str, String);

impl Bad {
    fn data(text: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, "bad_data", text.into())
    }
}

impl IntoResponse for Bad {
    fn into_response(self) -> Response {
        let Self(status, kind, text) = self;
        let body = json!({ "status": "error", "errorType": kind, "error": text });
        (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
    }
}

struct Given(BTreeMap<String, String>);

impl Given {
    fn of(parameters: Parameters, known: &[&str]) -> Result<Self, Bad> {
        let Form(pairs) = parameters.map_err(|error| Bad::data(error.body_text()))?;
        let mut given = BTreeMap::new();
        for (name, value) in pairs {
            if !known.contains(&name.as_str()) {
                let name: String = name.chars().take(40).collect();
                return Err(Bad::data(format!("unknown parameter {name:?}; known: {}", known.join(", "))));
            }
            if given.insert(name.clone(), value).is_some() {
                return Err(Bad::data(format!("{name} stands there twice")));
            }
        }
        Ok(Self(given))
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    fn query(&self) -> Result<String, Bad> {
        let query = self.text("query").ok_or_else(|| Bad::data("query is missing"))?;
        if query.len() > QUERY_LIMIT_BYTES {
            return Err(Bad::data(format!("query has at most {QUERY_LIMIT_BYTES} bytes")));
        }
        Ok(query.to_owned())
    }

    fn time(&self, name: &str) -> Result<Option<Millis>, Bad> {
        self.text(name)
            .map(|text| time(text).ok_or_else(|| Bad::data(format!("{name} is no time: write seconds or RFC 3339"))))
            .transpose()
    }
}

/// Seconds with a fraction, or RFC 3339.
fn time(text: &str) -> Option<Millis> {
    let at = match text.parse::<f64>() {
        Ok(seconds) => Millis((seconds * 1_000.0).round() as i64),
        Err(_) => text.parse::<Millis>().ok()?,
    };
    // NaN has become 1970. The end of year 9999.
    let is_number = text.parse::<f64>().is_ok_and(f64::is_nan);
    (!is_number && (0..253_402_300_800_000).contains(&at.0)).then_some(at)
}

/// One moment.
pub(super) async fn query(State(api): State<Arc<Api>>, caller: Caller, parameters: Parameters) -> Response {
    let question = || {
        let given = Given::of(parameters, &["query", "time", "step", "timeout", "limit"])?;
        let mut parameters = vec![("query", given.query()?)];
        if let Some(at) = given.time("time")? {
            parameters.push(("time", seconds(at)));
        }
        if let Some(step) = given.text("step") {
            let ms = duration_ms(step).ok_or_else(|| Bad::data("step is no duration: write seconds or 5m"))?;
            parameters.push(("step", format!("{ms}ms")));
        }
        limit(&given, &mut parameters)?;
        Ok(Question { path: "query", parameters, step_ms: INSTANT_MS, device: None })
    };
    pass_on(&api, &caller, question()).await
}

/// A time by steps.
pub(super) async fn query_range(State(api): State<Arc<Api>>, caller: Caller, parameters: Parameters) -> Response {
    let question = || {
        let given = Given::of(parameters, &["query", "start", "end", "step", "timeout", "limit"])?;
        let need = |name: &str| given.time(name)?.ok_or_else(|| Bad::data(format!("{name} is missing")));
        let (start, end) = (need("start")?, need("end")?);
        let step = given.text("step").ok_or_else(|| Bad::data("step is missing"))?;
        let step_ms = duration_ms(step).ok_or_else(|| Bad::data("step is no duration: write seconds or 5m"))?;
        let length = end.since(start);
        if !(0..=RANGE_LIMIT_MS).contains(&length) {
            return Err(Bad::data("end must lie after start, and at most 366 days"));
        }
        if length / step_ms > POINTS_LIMIT {
            return Err(Bad::data(format!("step gives more than {POINTS_LIMIT} points")));
        }
        let mut parameters =
            vec![("query", given.query()?), ("start", seconds(start)), ("end", seconds(end)), ("step", format!("{step_ms}ms"))];
        limit(&given, &mut parameters)?;
        Ok(Question { path: "query_range", parameters, step_ms, device: None })
    };
    pass_on(&api, &caller, question()).await
}

/// What series, labels or values there are. Grafana asks that for its lists.
pub(super) async fn labels(State(api): State<Arc<Api>>, caller: Caller, parameters: Parameters) -> Response {
    pass_on(&api, &caller, listed("labels", parameters, false)).await
}

/// The values of a label.
pub(super) async fn label_values(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(name): Path<String>,
    parameters: Parameters,
) -> Response {
    // Only what ward writes: a path is no place for anything else.
    let path = match name.as_str() {
        "__name__" => "label/__name__/values",
        "branch" => "label/branch/values",
        "branch_name" => "label/branch_name/values",
        "device_id" => "label/device_id/values",
        "device_ip" => "label/device_ip/values",
        "device_name" => "label/device_name/values",
        "device_type" => "label/device_type/values",
        "region" => "label/region/values",
        "region_name" => "label/region_name/values",
        _ => return Bad(StatusCode::NOT_FOUND, "not_found", "there is no such label".to_owned()).into_response(),
    };
    pass_on(&api, &caller, listed(path, parameters, false)).await
}

/// Series that match.
pub(super) async fn series(State(api): State<Arc<Api>>, caller: Caller, parameters: Parameters) -> Response {
    pass_on(&api, &caller, listed("series", parameters, true)).await
}

fn listed(path: &'static str, parameters: Parameters, needs_match: bool) -> Result<Question, Bad> {
    let given = Given::of(parameters, &["match[]", "start", "end", "limit"])?;
    let mut parameters = Vec::new();
    match given.text("match[]") {
        Some(text) if text.len() > QUERY_LIMIT_BYTES => {
            return Err(Bad::data(format!("match[] has at most {QUERY_LIMIT_BYTES} bytes")));
        }
        Some(text) => parameters.push(("match[]", text.to_owned())),
        None if needs_match => return Err(Bad::data("match[] is missing")),
        None => {}
    }
    for name in ["start", "end"] {
        if let Some(at) = given.time(name)? {
            parameters.push((name, seconds(at)));
        }
    }
    limit(&given, &mut parameters)?;
    Ok(Question { path, parameters, step_ms: INSTANT_MS, device: None })
}

fn limit(given: &Given, parameters: &mut Vec<(&'static str, String)>) -> Result<(), Bad> {
    if let Some(text) = given.text("timeout") {
        let limit_ms = duration_ms(text).ok_or_else(|| Bad::data("timeout is no duration: write seconds or 5m"))?;
        parameters.push(("timeout", format!("{limit_ms}ms")));
    }
    if let Some(text) = given.text("limit") {
        let limit: u32 = text.parse().map_err(|_| Bad::data("limit is no whole number"))?;
        parameters.push(("limit", limit.to_string()));
    }
    Ok(())
}

async fn pass_on(api: &Api, caller: &Caller, question: Result<Question, Bad>) -> Response {
    let mut question = match question {
        Ok(question) => question,
        Err(bad) => return bad.into_response(),
    };
    let Some(victoria) = &api.victoria else {
        let text = "no VictoriaMetrics is configured: [victoria_metrics] in collector.toml".to_owned();
        return Bad(StatusCode::NOT_FOUND, "not_found", text).into_response();
    };
    if let Reach::Regions(regions) = &caller.who.reach {
        // VictoriaMetrics joins this to each selector of the question, whatever the question says itself.
        question.parameters.push(("extra_filters[]", any_of("region", regions.iter().map(BranchId::as_str))));
    }
    if question.path == "query" && !question.parameters.iter().any(|(name, _)| *name == "time") {
        // Said once here, so that equal questions of one second are one.
        question.parameters.push(("time", seconds(Millis(clock::now().0 / 1_000 * 1_000))));
    }
    match victoria.ask(question).await {
        Ok(bytes) => Answer::of_bytes(bytes).into_response(),
        Err(Unanswered::Refused { status, text }) => {
            let status = if status == 400 { StatusCode::BAD_REQUEST } else { StatusCode::UNPROCESSABLE_ENTITY };
            Bad(status, if status == 400 { "bad_data" } else { "execution" }, text).into_response()
        }
        Err(gone @ Unanswered::Gone(_)) => Bad(StatusCode::SERVICE_UNAVAILABLE, "unavailable", gone.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[(&str, &str)]) -> Result<Given, Bad> {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Given::of(Ok(Form(pairs)), &["query", "time"])
    }

    #[test]
    fn what_isnt_prometheus_is_refused_by_name() {
        for (pairs, expected) in [
            (&[("colour", "red")][..], "colour"),
            (&[("query", "1"), ("query", "2")], "query stands there twice"),
            (&[("extra_filters[]", "{region=\"x\"}")], "extra_filters"),
        ] {
            let Err(Bad(_, _, text)) = given(pairs) else { panic!("{pairs:?} was taken") };
            assert!(text.contains(expected), "{text}");
        }
        let long = "x".repeat(QUERY_LIMIT_BYTES + 1);
        for query in ["", &long] {
            let Ok(given) = given(&[("query", query)]) else { panic!("known parameters") };
            assert!(given.query().is_err());
        }
    }

    #[test]
    fn a_time_is_seconds_or_a_date() {
        for good in ["1795442400", "1795442400.000", "2026-11-23T14:00:00Z"] {
            assert_eq!(time(good), Some(Millis(1_795_442_400_000)), "{good}");
        }
        for bad in ["NaN", "-NaN", "inf", "-inf", "-1", "1e300", "yesterday", ""] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }
}

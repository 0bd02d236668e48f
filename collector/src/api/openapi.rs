//! The API's description in OpenAPI 3.1. Tests hold each route, parameter and answer of a real collector against it.

mod diagnostics;
mod inventory;
mod past;
mod people;

use std::sync::OnceLock;

use axum::extract::State;
use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::devices::SORTS;
use super::problem::Problem;
use super::query::{Nothing, Query};
use crate::surface::DEVICE_FIELDS;

/// What an id looks like.
const ID: &str = "^[a-zA-Z0-9._-]{1,64}$";

/// The description.
pub(super) async fn document(
    State(_): State<std::sync::Arc<super::Api>>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Answer, Problem> {
    static WRITTEN: OnceLock<Answer> = OnceLock::new();
    Ok(WRITTEN.get_or_init(|| Answer::of_bytes(describe().to_string().into())).clone())
}

fn integer() -> Value {
    json!({ "type": "integer" })
}

fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn number() -> Value {
    json!({ "type": "number" })
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn flag() -> Value {
    json!({ "type": "boolean" })
}

/// Integer milliseconds of UTC.
fn ms() -> Value {
    json!({ "type": "integer", "format": "int64", "description": "UTC in ms" })
}

fn rfc3339() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

fn words(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}

/// The same, or null.
fn or_null(mut schema: Value) -> Value {
    if let Some(known) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        known.push(Value::Null);
    }
    let kind = schema["type"].take();
    schema["type"] = json!([kind, "null"]);
    schema
}

fn list(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

fn of(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn of_each(schema: Value) -> Value {
    json!({ "type": "object", "additionalProperties": schema })
}

/// An object that has each of these, and nothing else.
fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let required: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let properties: Map<String, Value> = fields.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

/// All fields of some objects in one.
fn joined<const N: usize>(objects: [Value; N]) -> Value {
    let mut all = object([]);
    for object in objects {
        for (name, schema) in object["properties"].as_object().into_iter().flatten() {
            all["properties"][name] = schema.clone();
        }
        let required = object["required"].as_array().into_iter().flatten().cloned();
        all["required"].as_array_mut().into_iter().for_each(|names| names.extend(required.clone()));
    }
    all
}

fn status() -> Value {
    words(&["up", "down", "unknown"])
}

fn cause() -> Value {
    or_null(words(&["never_observed", "agent_silent", "agent_isolated", "probe_error", "dns_failure", "paused"]))
}

fn verdict() -> Value {
    or_null(words(&["device_down", "lan_fault", "agent_isolated", "wan_cut", "power_cut"]))
}

fn device() -> Value {
    object([
        ("id", text()),
        ("name", text()),
        ("branch", text()),
        ("region", text()),
        ("device_type", text()),
        ("ip", text()),
        ("status", status()),
        ("cause", cause()),
        ("since", or_null(ms())),
        ("down_since", or_null(ms())),
        ("last_ok", or_null(ms())),
        ("is_flapping", flag()),
        ("in_maintenance", flag()),
        ("rtt_ms", or_null(number())),
        ("packet_loss", or_null(number())),
        ("flags", list(words(&["degraded_loss", "degraded_latency", "identity_changed"]))),
        ("verdict", verdict()),
        ("is_provisional", flag()),
    ])
}

fn evidence() -> Value {
    let outcome = words(&["reply", "timeout", "unreachable", "send_error", "no_address"]);
    let probe = object([("at_ms", ms()), ("outcome", outcome.clone()), ("rtt_ms", or_null(number()))]);
    object([
        ("probes", list(probe)),
        ("gateway", or_null(outcome)),
        ("gateway_rtt_ms", or_null(number())),
        ("neighbours", object([("up", count()), ("down", count()), ("unknown", count())])),
        ("carrier", or_null(flag())),
        ("mac", or_null(text())),
    ])
}

fn agent_says() -> Value {
    object([
        ("region", text()),
        ("contact", words(&["never", "connected", "silent"])),
        ("last_contact", or_null(ms())),
        ("observed_through", or_null(ms())),
        ("logged_through", or_null(ms())),
        ("silent_after_ms", count()),
        ("agent_version", or_null(text())),
        ("config_version", or_null(count())),
        ("config_wanted", or_null(count())),
        (
            "config_trial",
            or_null(object([
                ("version", count()),
                ("is_held", flag()),
                ("answered", count()),
                ("silent_total", count()),
                ("silent", list(text())),
            ])),
        ),
        ("waiting", or_null(count())),
        ("buffer_bytes", or_null(count())),
        ("buffer_volatile", or_null(flag())),
        ("ticks_missed", or_null(count())),
        ("send_errors", or_null(count())),
        ("receive_drops", or_null(count())),
        ("stray_replies", or_null(count())),
        (
            "uplinks",
            list(object([
                ("name", text()),
                ("device_id", text()),
                ("status", status()),
                ("since_ms", or_null(ms())),
                ("is_active", flag()),
                ("is_backup", flag()),
            ])),
        ),
        (
            "cut",
            or_null(object([
                ("from_ms", ms()),
                ("to_ms", or_null(ms())),
                ("verdict", verdict()),
                ("is_provisional", flag()),
                ("reason", text()),
            ])),
        ),
        ("probe_age_ms", or_null(count())),
        ("clock_synchronised", or_null(flag())),
        ("clock_ahead_ms", or_null(integer())),
        // Nothing is made up of an agent that has not said how it is.
        ("spent", json!({ "anyOf": [of("Spent"), { "type": "null" }] })),
    ])
}

fn branch() -> Value {
    let place = object([("id", text()), ("name", text()), ("region_name", text()), ("devices", count())]);
    joined([place, agent_says()])
}

fn time_bounds() -> Value {
    object([("from", rfc3339()), ("from_ms", ms()), ("to", rfc3339()), ("to_ms", ms())])
}

fn schemas() -> Value {
    // Where a caller asks for some fields there are only those.
    let mut some_of_device = device();
    some_of_device["required"] = json!([]);
    json!({
        "Device": device(),
        "SomeOfDevice": some_of_device,
        "Branch": branch(),
        "BranchWithCounts": joined([branch(), object([("counts", of("Counts"))])]),
        "Agent": joined([object([("branch", text())]), agent_says()]),
        "Region": object([
            ("id", text()), ("name", text()), ("branches", count()), ("silent_branches", count()), ("counts", of("Counts")),
        ]),
        "Spent": object([
            ("over_ms", count()), ("disk_bytes", count()), ("flushes", count()), ("sent_bytes", count()),
            ("received_bytes", count()),
        ]),
        "Counts": object([
            ("total_devices", count()), ("up", count()), ("down", count()), ("unknown", count()), ("flapping", count()),
            ("maintenance", count()),
        ]),
        "Outage": object([
            ("from", rfc3339()), ("from_ms", ms()), ("to", or_null(rfc3339())), ("to_ms", or_null(ms())),
            ("last_ok_ms", or_null(ms())), ("unobserved_ms", count()), ("error_ms", count()),
        ]),
        "Interval": object([("status", status()), ("cause", cause()), ("from_ms", ms()), ("to_ms", ms())]),
        "Point": object([
            ("t_ms", ms()), ("rtt_min_ms", or_null(number())), ("rtt_avg_ms", or_null(number())),
            ("rtt_max_ms", or_null(number())), ("packet_loss", or_null(number())),
        ]),
        "Transition": object([
            ("device_id", text()), ("branch", text()), ("region", text()), ("from_status", status()), ("from_cause", cause()),
            ("status", status()), ("cause", cause()), ("onset", rfc3339()), ("onset_ms", ms()),
            ("last_ok_ms", or_null(ms())), ("error_ms", count()), ("received_ms", ms()), ("confirmed_ms", or_null(ms())),
            ("verdict", verdict()), ("reason", text()), ("evidence", or_null(evidence())),
        ]),
        "Gap": object([
            ("from_ms", ms()), ("to_ms", ms()), ("reason", text()), ("stream", count()), ("first_seq", count()), ("last_seq", count()),
            ("transitions", count()), ("minutes", count()), ("unreadable", count()),
        ]),
        "Problem": {
            "type": "object", "additionalProperties": false, "required": ["type", "title", "status", "detail"],
            "properties": { "type": text(), "title": text(), "status": integer(), "detail": text(),
                "field": { "type": "string", "description": "The parameter that this is about" },
                "request_id": { "type": "string", "description": "What the request is called in the collector's log" } },
        },
        "Prometheus": {
            "type": "object", "required": ["status"],
            "properties": { "status": words(&["success"]), "data": {} },
        },
        "GraphQl": {
            "type": "object", "properties": { "data": {}, "errors": { "type": "array", "items": { "type": "object" } } },
        },
        "PrometheusError": object([("status", words(&["error"])), ("errorType", text()), ("error", text())]),
    })
}

fn query(name: &str, schema: Value, description: &str) -> Value {
    json!({ "name": name, "in": "query", "required": false, "schema": schema, "description": description })
}

fn path(name: &str) -> Value {
    json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "pattern": ID } })
}

fn cursor() -> Value {
    query("cursor", json!({ "type": "string" }), "The next_cursor of the page before")
}

fn limit() -> Value {
    query("limit", json!({ "type": "integer", "minimum": 1, "maximum": 10_000, "default": 500 }), "Items of a page")
}

/// Pages of a list that comes whole unless the caller says otherwise.
fn large_pages() -> [Value; 2] {
    [
        query("limit", json!({ "type": "integer", "minimum": 1, "maximum": 10_000, "default": 10_000 }), "Items of a page"),
        cursor(),
    ]
}

fn branch_parameters() -> Vec<Value> {
    [exactly("region"), contact()].into_iter().chain(large_pages()).collect()
}

fn time_parameters() -> Vec<Value> {
    let time = |name, description| {
        let ms = json!({ "type": "integer", "minimum": 0, "maximum": 253_402_300_799_999_i64 });
        query(name, json!({ "anyOf": [rfc3339(), ms] }), description)
    };
    let named = words(&["30m", "1h", "6h", "12h", "24h", "7d", "30d", "90d", "365d"]);
    vec![
        query("time_range", named, "Up to now. Not beside from or to"),
        time("from", "RFC 3339 or integer ms"),
        time("to", "RFC 3339 or integer ms; now at most and by default. Not without from"),
    ]
}

fn page_parameters() -> Vec<Value> {
    let mut all = time_parameters();
    all.extend([limit(), cursor()]);
    all
}

fn exactly(name: &str) -> Value {
    query(name, text(), "Exactly this id")
}

/// Exactly this id, of a kind that the ledger is asked by.
fn id(name: &str) -> Value {
    query(name, json!({ "type": "string", "pattern": ID }), "Exactly this id")
}

fn contact() -> Value {
    query("contact", words(&["never", "connected", "silent"]), "How the agent can be heard")
}

fn device_parameters() -> Vec<Value> {
    let sorts: Vec<String> = SORTS.iter().flat_map(|sort| [(*sort).to_owned(), format!("-{sort}")]).collect();
    let fields = json!({
        "name": "fields", "in": "query", "required": false, "style": "form", "explode": false,
        "schema": { "type": "array", "items": words(&DEVICE_FIELDS), "minItems": 1 },
        "description": "Only these fields",
    });
    vec![
        exactly("region"),
        exactly("branch"),
        exactly("device_type"),
        query("status", status(), "Exactly this status"),
        query("is_flapping", words(&["true", "false"]), "Whether it changes too often"),
        query("q", json!({ "type": "string", "maxLength": 100 }), "Part of an id, a name or an address"),
        query("sort", json!({ "type": "string", "enum": sorts, "default": "id" }), "The order; - before it turns it round"),
        fields,
        limit(),
        cursor(),
    ]
}

fn problem(description: &str) -> Value {
    json!({ "description": description, "content": { "application/problem+json": { "schema": of("Problem") } } })
}

/// A problem that may be gone after a while.
fn passing(description: &str) -> Value {
    let mut described = problem(description);
    described["headers"] = json!({
        "Retry-After": { "description": "After how many seconds it is worth another try", "schema": { "type": "integer", "minimum": 1 } },
    });
    described
}

/// A question with its parameters and what answers it.
fn get(summary: &str, parameters: Vec<Value>, answer: Value) -> Value {
    let has_path = parameters.iter().any(|parameter| parameter["in"] == "path");
    let mut answers = json!({
        "200": { "description": "The answer", "content": { "application/json": { "schema": answer } } },
        "304": { "description": "As the caller knows it, by If-None-Match" },
        "400": problem("A parameter is unknown, repeated or out of range"),
        "401": problem("The token is missing or wrong"),
        "403": problem("The caller's role may not ask that"),
        "503": passing("The collector can't answer in time"),
    });
    if has_path {
        answers["404"] = problem("There is no such thing");
    }
    json!({ "get": { "summary": summary, "parameters": parameters, "responses": answers } })
}

/// A change, with what it takes and what answers it.
fn changes(method: &str, summary: &str, parameters: Vec<Value>, done: &str, body_and_answer: Option<(Value, Value)>) -> Value {
    let mut answers = json!({
        "400": problem("A field or a parameter is unknown or wrong"),
        "401": problem("The token is missing or wrong"),
        "403": problem("The caller may not do that"),
        "404": problem("There is no such thing"),
        "409": problem("It can't be done as things stand"),
        "429": passing("Too many tries, or too many questions to one agent"),
        "413": problem("The body is too large"),
        "503": passing("The collector can't do it now"),
    });
    let mut described = json!({ "summary": summary, "parameters": parameters });
    answers[done] = match body_and_answer {
        None => json!({ "description": "Done" }),
        Some((body, answer)) => {
            described["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": body } } });
            json!({ "description": "Done", "content": { "application/json": { "schema": answer } } })
        }
    };
    described["responses"] = answers;
    json!({ method: described })
}

/// The same path as another, with a change besides.
fn takes(mut path: Value, method: &str, summary: &str, body: Value, done: &str, answer: Value) -> Value {
    let parameters = path["get"]["parameters"].as_array().into_iter().flatten();
    let in_path = parameters.filter(|parameter| parameter["in"] == "path").cloned().collect();
    path[method] = changes(method, summary, in_path, done, Some((body, answer)))[method].take();
    path
}

fn prometheus(summary: &str, parameters: Vec<Value>) -> Value {
    let error = |description: &str| json!({ "description": description, "content": { "application/json": { "schema": of("PrometheusError") } } });
    let answers = json!({
        "200": { "description": "As Prometheus answers", "content": { "application/json": { "schema": of("Prometheus") } } },
        "304": { "description": "As the caller knows it, by If-None-Match" },
        "400": error("The question makes no sense"),
        "401": problem("The token is missing or wrong"),
        "404": error("No VictoriaMetrics is configured, or no such label"),
        "413": problem("The form is too large"),
        "422": error("VictoriaMetrics can't evaluate it"),
        "503": error("VictoriaMetrics doesn't answer"),
    });
    json!({ "get": { "summary": summary, "parameters": parameters, "responses": answers } })
}

/// The same question as a form: queries may be longer than an address.
fn also_as_form(mut path: Value) -> Value {
    let mut form = object([]);
    for parameter in path["get"]["parameters"].as_array().into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap_or_default();
        form["properties"][name] = parameter["schema"].clone();
        if parameter["required"] == true {
            form["required"].as_array_mut().into_iter().for_each(|names| names.push(json!(name)));
        }
    }
    let body = json!({ "required": true, "content": { "application/x-www-form-urlencoded": { "schema": form } } });
    path["post"] = json!({ "summary": path["get"]["summary"], "requestBody": body, "responses": path["get"]["responses"] });
    path
}

fn graphql() -> Value {
    let question = json!({
        "type": "object", "additionalProperties": false, "required": ["query"],
        "properties": {
            "query": text(), "operationName": or_null(text()), "variables": { "type": ["object", "null"] },
            "extensions": { "type": ["object", "null"] },
        },
    });
    let mut asked = changes("post", "Reads what is asked for in GraphQL", vec![], "200", Some((question, of("GraphQl"))));
    asked["post"]["responses"]["200"]["description"] = json!("The answer, which may have errors beside its data");
    asked["post"]["responses"]["400"]["description"] = json!("The question can't be read, or would cost too much");
    asked["post"]["responses"]["400"]["content"]["application/json"] = json!({ "schema": of("GraphQl") });
    asked
}

fn schema() -> Value {
    let mut described = get("What can be asked in GraphQL, in its own language", vec![], json!({}));
    described["get"]["responses"]["200"] =
        json!({ "description": "The schema", "content": { "text/plain": { "schema": text() } } });
    described["get"]["responses"].as_object_mut().into_iter().for_each(|answers| {
        answers.remove("304");
    });
    described
}

fn prometheus_time(name: &str) -> Value {
    query(name, json!({ "type": "string", "pattern": "^[0-9]{1,11}$" }), "Seconds or RFC 3339")
}

fn prometheus_parameters(query_needed: &str, times: &[&str], others: &[&str]) -> Vec<Value> {
    let mut question = query(query_needed, json!({ "type": "string", "minLength": 1, "maxLength": 4_000 }), "PromQL");
    question["required"] = json!(true);
    let mut all = vec![question];
    all.extend(times.iter().map(|name| prometheus_time(name)));
    for name in others {
        let schema = match *name {
            "limit" => json!({ "type": "integer", "minimum": 0, "maximum": 1_000_000 }),
            _ => json!({ "type": "string", "pattern": "^[1-9][0-9]{0,5}(ms|s|m|h|d|w)?$" }),
        };
        all.push(query(name, schema, "As for Prometheus"));
    }
    all
}

fn with(first: Value, others: Vec<Value>) -> Vec<Value> {
    std::iter::once(first).chain(others).collect()
}

fn paths() -> Value {
    let (now, cursor) = (object([("now", ms())]), object([("next_cursor", or_null(text()))]));
    let total = object([("total", count())]);
    let listed = |name: &str, item: &str| object([(name, list(of(item)))]);
    let device_and_more = object([("branch_state", of("Branch")), ("outages", list(of("Outage")))]);
    let history = object([
        ("device_id", text()),
        ("step_ms", count()),
        ("count", count()),
        ("source", words(&["victoria_metrics", "embedded"])),
        ("intervals", list(of("Interval"))),
        ("outages", list(of("Outage"))),
        ("points", list(of("Point"))),
    ]);
    let counts = object([
        ("total_devices", count()),
        ("up", count()),
        ("down", count()),
        ("unknown", count()),
        ("flapping", count()),
        ("maintenance", count()),
        ("by_region", of_each(of("Counts"))),
        ("by_type", of_each(of("Counts"))),
    ]);
    let counted = object([("count", count())]);
    let step =
        query("step", json!({ "type": "string", "pattern": "^([1-9]|[1-9][0-9]|[1-9][0-9]{2})m$" }), "Whole minutes or hours");
    let mut label = prometheus_parameters("match[]", &["start", "end"], &["limit"]);
    label.iter_mut().for_each(|parameter| parameter["required"] = json!(false));
    let mut moments = prometheus_parameters("query", &["start", "end"], &["step", "timeout", "limit"]);
    moments.iter_mut().filter(|one| ["start", "end", "step"].iter().any(|name| one["name"] == *name)).for_each(|one| {
        one["required"] = json!(true);
    });
    json!({
        "/api/v1/openapi.json": get("This description", vec![], json!({ "type": "object" })),
        "/api/v1/dashboard/stats": get("How many devices are what", vec![], joined([counts, now.clone()])),
        "/api/v1/devices": get("Devices, a page at a time", device_parameters(),
            joined([listed("devices", "SomeOfDevice"), cursor.clone(), total.clone(), now.clone()])),
        "/api/v1/devices/{id}": get("A device with its branch and its outages of the last 30 days", vec![path("id")],
            joined([device(), device_and_more, now.clone()])),
        "/api/v1/devices/{id}/history": get("Exact status intervals, and points by steps",
            with(path("id"), with(step, time_parameters())), joined([history, time_bounds()])),
        "/api/v1/devices/{id}/transitions": get("A device's transitions, newest first",
            with(path("id"), page_parameters()),
            joined([listed("transitions", "Transition"), time_bounds(), counted.clone(), cursor.clone()])),
        "/api/v1/devices/{id}/outages": get("A device's outages, newest first", with(path("id"), page_parameters()),
            joined([object([("device_id", text())]), listed("outages", "Outage"), time_bounds(), total.clone(), cursor.clone()])),
        "/api/v1/branches": get("Branches with their agents and counts", branch_parameters(),
            joined([listed("branches", "BranchWithCounts"), cursor.clone(), total.clone(), now.clone()])),
        "/api/v1/branches/{id}": get("A branch", vec![path("id")],
            joined([branch(), object([("counts", of("Counts"))]), now.clone()])),
        "/api/v1/branches/{id}/coverage": get("What of a branch was observed, and what is missing", vec![path("id")],
            object([
                ("branch", text()),
                ("covered", list(object([("from_ms", ms()), ("to_ms", ms())]))),
                ("gaps", list(of("Gap"))),
            ])),
        "/api/v1/regions": get("Regions with their counts", vec![],
            joined([listed("regions", "Region"), total.clone(), now.clone()])),
        "/api/v1/agents": get("Agents: version, link, clock, buffer, cost", branch_parameters(),
            joined([listed("agents", "Agent"), cursor.clone(), total, now])),
        "/api/v1/events": get("All devices' transitions, newest first", with(id("region"), with(id("branch"), page_parameters())),
            joined([listed("events", "Transition"), time_bounds(), counted, cursor])),
        "/api/v1/query": also_as_form(prometheus("PromQL at one moment", prometheus_parameters("query", &["time"], &["step", "timeout", "limit"]))),
        "/api/v1/query_range": also_as_form(prometheus("PromQL over a time", moments)),
        "/api/v1/labels": also_as_form(prometheus("Names of labels", label.clone())),
        "/api/v1/label/{name}/values": prometheus("Values of a label", with(path("name"), label)),
        "/api/v1/graphql": graphql(),
        "/api/v1/schema.graphql": schema(),
        "/api/v1/series": also_as_form(prometheus("Series that match", prometheus_parameters("match[]", &["start", "end"], &["limit"]))),
    })
}

/// What the feed says and hears; see `/ws/updates`, which no path of this description can hold.
fn feed_schemas() -> Map<String, Value> {
    let kind = |name: &str| object([("type", json!({ "const": name }))]);
    let (at, numbered) =
        (object([("epoch", text()), ("now", ms())]), object([("epoch", text()), ("seq", count()), ("now", ms())]));
    let head = |name: &str| joined([kind(name), numbered.clone()]);
    let notes = object([("version", text()), ("demo", flag()), ("simulated", flag()), ("notes", list(text()))]);
    let lists = object([("devices", list(of("Device"))), ("branches", list(of("Branch")))]);
    // What is as before isn't told again.
    let mut change = device();
    change["required"] = json!(["id"]);
    let mut delta = joined([head("delta"), object([("devices", list(of("DeviceChange"))), ("branches", list(of("Branch")))])]);
    delta["required"] = json!(["type", "epoch", "seq", "now"]);
    let watched = object([
        ("id", text()),
        ("span_ms", count()),
        ("sent", count()),
        ("lost", count()),
        ("rtt_ms", or_null(number())),
        ("rtt_min_ms", or_null(number())),
        ("rtt_max_ms", or_null(number())),
    ]);
    let ids = json!({ "type": "array", "items": text(), "maxItems": shared::message::WATCHED_LIMIT });
    let messages = [
        ("FeedSnapshot", joined([head("snapshot"), notes, lists])),
        ("FeedResumed", head("resumed")),
        ("FeedDelta", delta),
        ("FeedHeartbeat", head("heartbeat")),
        ("FeedWatched", joined([kind("watched"), at, object([("devices", list(of("WatchedDevice")))])])),
        ("FeedProblem", joined([kind("problem"), object([("detail", text())])])),
        ("FeedClosing", joined([kind("closing"), object([("reason", text())])])),
    ];
    let any: Vec<Value> = messages.iter().map(|(name, _)| of(name)).collect();
    let parts = [
        ("DeviceChange", change),
        ("WatchedDevice", watched),
        ("FeedMessage", json!({ "oneOf": any })),
        ("FeedWatch", joined([kind("watch"), object([("devices", ids)])])),
    ];
    messages.into_iter().chain(parts).map(|(name, schema)| (name.to_owned(), schema)).collect()
}

/// An object's fields and more.
fn all(mut object: Value, more: Map<String, Value>) -> Value {
    object.as_object_mut().into_iter().for_each(|fields| fields.extend(more.clone()));
    object
}

/// The whole document.
pub fn describe() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ward", "version": crate::VERSION,
            "description": "What the devices of a fleet are and were. Times are integer UTC ms, and RFC 3339 where they are text.",
        },
        "security": [{ "token": [] }],
        "paths": all(all(all(inventory::join(paths()), past::paths()), people::paths()), diagnostics::paths()),
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": all(all(all(all(schemas(), past::schemas()), people::schemas()), inventory::schemas()), feed_schemas()),
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_route_of_the_api_is_described_and_no_other() {
        let source = include_str!("mod.rs");
        let routes = source
            .split(".route(")
            .skip(1)
            .filter_map(|rest| rest.trim_start().strip_prefix('"'))
            .filter_map(|rest| rest.split('"').next());
        let routes: BTreeSet<&str> = routes.filter(|route| route.starts_with("/api/")).collect();
        let described = describe();
        let described: BTreeSet<&str> = described["paths"].as_object().expect("paths").keys().map(String::as_str).collect();
        let undescribed: Vec<_> = routes.difference(&described).collect();
        assert!(undescribed.is_empty(), "{undescribed:?}");
        assert_eq!(described.difference(&routes).collect::<Vec<_>>(), Vec::<&&str>::new());
    }

    #[test]
    fn each_reference_leads_somewhere() {
        let document = describe();
        let text = document.to_string();
        for name in text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
        }
    }
}

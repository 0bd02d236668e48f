//! Availability, reports, maintenance windows and service hours.

use serde_json::{Map, Value, json};

use super::{
    ID, changes, count, cursor, exactly, flag, get, joined, large_pages, list, ms, number, object, of, of_each, or_null, query,
    rfc3339, takes, text, time_bounds, words,
};
use crate::schedule::{HOLIDAYS_LIMIT, WEEKLY_LIMIT};

fn percent() -> Value {
    json!({ "type": "number", "minimum": 0, "maximum": 100 })
}

fn state() -> Value {
    words(&["provisional", "final"])
}

fn row() -> Value {
    object([
        ("key", text()),
        ("name", or_null(text())),
        ("devices", count()),
        ("up_ms", count()),
        ("down_ms", count()),
        ("unknown_ms", count()),
        ("maintenance_ms", count()),
        ("off_hours_ms", count()),
        ("outages", count()),
        ("changes", count()),
        ("mttr_ms", or_null(count())),
        ("mtbf_ms", or_null(count())),
        ("longest_ms", count()),
        ("availability", or_null(percent())),
        ("at_least", or_null(percent())),
        ("at_most", or_null(percent())),
        ("coverage", or_null(percent())),
        ("reason", or_null(words(&["not_observed", "all_maintenance", "no_devices"]))),
        ("state", state()),
        ("revision", json!({ "type": "integer", "minimum": 1 })),
        ("observed_through_ms", or_null(ms())),
    ])
}

fn scope() -> Value {
    words(&["all", "region", "device_type", "branch", "device"])
}

fn weekly() -> Value {
    let clock = |pattern: &str| json!({ "type": "string", "pattern": pattern });
    let days = words(&["mon", "tue", "wed", "thu", "fri", "sat", "sun"]);
    object([
        ("days", json!({ "type": "array", "items": days, "minItems": 1 })),
        ("from", clock("^([01][0-9]|2[0-3]):[0-5][0-9]$")),
        ("to", clock("^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")),
    ])
}

/// What the answers are made of.
pub(super) fn schemas() -> Map<String, Value> {
    let agreed = || object([("id", count()), ("scope", scope()), ("key", or_null(text())), ("created_ms", ms())]);
    let window = object([("reason", text())]);
    let hours = object([
        ("valid_from_ms", or_null(ms())),
        ("valid_to_ms", or_null(ms())),
        ("time_zone", text()),
        ("weekly", list(of("Weekly"))),
        ("holidays", list(text())),
    ]);
    let mut all = Map::new();
    all.insert("Availability".to_owned(), row());
    all.insert("Sla".to_owned(), joined([row(), object([("met", or_null(flag()))])]));
    all.insert("Month".to_owned(), joined([row(), object([("month", text())])]));
    all.insert("Window".to_owned(), joined([agreed(), time_bounds(), window]));
    all.insert("Weekly".to_owned(), weekly());
    all.insert("ServiceHours".to_owned(), joined([agreed(), hours]));
    all
}

fn time(name: &str, description: &str) -> Value {
    // The end of year 9999.
    let ms = json!({ "type": "integer", "minimum": 0, "maximum": 253_402_300_799_999_i64 });
    query(name, json!({ "anyOf": [rfc3339(), ms] }), description)
}

fn by(default: &str) -> Value {
    query(
        "by",
        json!({ "type": "string", "enum": ["all", "region", "branch", "type", "device"], "default": default }),
        "A row for each",
    )
}

/// Whom it is about, and by which calendar.
fn whom() -> Vec<Value> {
    let zone = query("tz", json!({ "type": "string", "maxLength": 64 }), "IANA name of the time zone of months and days");
    vec![zone, exactly("region"), exactly("branch"), exactly("device_type"), exactly("device")]
}

fn times() -> Vec<Value> {
    vec![time("from", "RFC 3339 or integer ms"), time("to", "RFC 3339 or integer ms; now by default. Not without from")]
}

fn month() -> Value {
    let month = json!({ "type": "string", "pattern": "^[0-9]{4}-(0[1-9]|1[0-2])$" });
    query("month", month, "A calendar month. Not beside from or to")
}

fn page() -> Vec<Value> {
    let limit = json!({ "type": "integer", "minimum": 1, "maximum": 10_000, "default": 1_000 });
    vec![query("limit", limit, "Rows of a page"), cursor()]
}

fn all<const N: usize>(parts: [Vec<Value>; N]) -> Vec<Value> {
    parts.into_iter().flatten().collect()
}

fn reports() -> [(&'static str, Value); 5] {
    let rows = |name: &str| object([("rows", list(of(name)))]);
    let head = joined([time_bounds(), object([("counted_to_ms", ms()), ("time_zone", text()), ("now", ms())])]);
    let paged = object([("total", count()), ("next_cursor", or_null(text()))]);
    let whole = object([("state", state())]);
    let kept = object([("target", percent()), ("met", count()), ("missed", count()), ("unknown", count())]);
    let months = object([("key", text()), ("name", or_null(text())), ("months", list(of("Month")))]);
    let changed = object([
        ("device_id", text()),
        ("name", text()),
        ("branch", text()),
        ("device_type", text()),
        ("changes", count()),
        ("worst_day", text()),
        ("worst_day_changes", count()),
    ]);
    let trips = object([("device_type", text()), ("minutes", count()), ("rtt_ms", of_each(or_null(number())))]);
    let whole_number = |name: &str, from: u32, to: u32, default: u32, about: &str| {
        query(name, json!({ "type": "integer", "minimum": from, "maximum": to, "default": default }), about)
    };
    let target =
        query("target", json!({ "type": "string", "pattern": "^[0-9]{1,2}(\\.[0-9]{1,4})?$", "default": "99.9" }), "In percent");
    let percentiles = json!({ "type": "string", "pattern": "^[0-9.]{1,7}(,[0-9.]{1,7}){0,9}$", "default": "50,90,95,99" });
    [
        (
            "/api/v1/availability",
            get(
                "How available devices were: up, down, unknown and maintenance, exact to the millisecond",
                all([vec![by("all"), month()], times(), whom(), page()]),
                joined([head.clone(), whole.clone(), paged.clone(), rows("Availability")]),
            ),
        ),
        (
            "/api/v1/reports/sla",
            get(
                "Who kept a promise",
                all([
                    vec![
                        by("device"),
                        month(),
                        target,
                        query("met", words(&["true", "false"]), "Only those that did, or did not"),
                    ],
                    times(),
                    whom(),
                    page(),
                ]),
                joined([head.clone(), whole, kept, paged.clone(), rows("Sla")]),
            ),
        ),
        (
            "/api/v1/reports/uptime",
            get(
                "Availability by calendar months, newest first",
                all([vec![by("branch"), whole_number("months", 1, 13, 1, "How many")], whom(), page()]),
                joined([object([("time_zone", text()), ("months", list(text())), ("now", ms()), ("rows", list(months))]), paged]),
            ),
        ),
        (
            "/api/v1/reports/flapping",
            get(
                "Devices that changed often, those with the most changes first",
                all([
                    vec![
                        month(),
                        whole_number("more_than", 0, 1_000_000, 10, "Changes on one day"),
                        whole_number("limit", 1, 10_000, 10, "Rows"),
                    ],
                    times(),
                    whom(),
                ]),
                joined([head.clone(), object([("more_than", count()), ("total", count()), ("rows", list(changed))])]),
            ),
        ),
        (
            "/api/v1/reports/rtt",
            get(
                "Percentiles of the minutes' mean round trips, by type",
                all([vec![query("percentiles", percentiles, "Above 0 and at most 100, with commas")], times(), whom()]),
                joined([head, object([("rows", list(trips))])]),
            ),
        ),
    ]
}

/// A body's time: RFC 3339 or integer ms.
fn moment() -> Value {
    json!({ "anyOf": [rfc3339(), { "type": "integer", "format": "int64" }] })
}

fn about() -> Value {
    let mut about = object([("scope", scope()), ("key", json!({ "type": ["string", "null"], "pattern": ID }))]);
    about["required"] = json!(["scope"]);
    about
}

fn schedule() -> [(&'static str, Value); 4] {
    let listed = |name: &str, item: &str| object([("total", count()), (name, list(of(item)))]);
    let number =
        json!({ "name": "id", "in": "path", "required": true, "schema": { "type": "string", "pattern": "^[0-9]{1,15}$" } });
    let mut window = joined([about(), object([("from", moment()), ("to", moment())])]);
    window["properties"]["reason"] = json!({ "type": ["string", "null"], "maxLength": 500 });
    let zone = json!({ "type": "string", "maxLength": 64 });
    let weekly = json!({ "type": "array", "items": of("Weekly"), "minItems": 1, "maxItems": WEEKLY_LIMIT });
    let mut hours = joined([about(), object([("time_zone", zone), ("weekly", weekly)])]);
    let days = json!({ "type": ["array", "null"], "items": { "type": "string", "format": "date" }, "maxItems": HOLIDAYS_LIMIT });
    hours["properties"]["holidays"] = days;
    for name in ["valid_from", "valid_to"] {
        hours["properties"][name] = json!({ "anyOf": [moment(), { "type": "null" }] });
    }
    let mut filters = vec![
        query("scope", scope(), "Only of this scope"),
        exactly("key"),
        query("when", words(&["past", "now", "ahead"]), "Only those of that time"),
    ];
    filters.extend(large_pages());
    let head = object([("next_cursor", or_null(text())), ("now", ms())]);
    let windows = get("Maintenance windows by their beginnings", filters, joined([listed("windows", "Window"), head]));
    let all_hours = get("Service hours, newest first", vec![], listed("service_hours", "ServiceHours"));
    let gone = |summary| changes("delete", summary, vec![number.clone()], "204", None);
    [
        ("/api/v1/maintenance", takes(windows, "post", "Agrees on a window", window, "201", of("Window"))),
        ("/api/v1/maintenance/{id}", gone("Takes a window back")),
        ("/api/v1/service-hours", takes(all_hours, "post", "Agrees on service hours", hours, "201", of("ServiceHours"))),
        ("/api/v1/service-hours/{id}", gone("Takes service hours back")),
    ]
}

/// The routes.
pub(super) fn paths() -> Map<String, Value> {
    let all = reports().into_iter().chain(schedule());
    all.map(|(path, described)| (path.to_owned(), described)).collect()
}

//! GraphQL, asked of a whole collector.

#[path = "counter/mod.rs"]
mod counter;

use counter::{Counter, TOKEN, said};
use serde_json::{Value, json};

const PATH: &str = "/api/v1/graphql";

async fn ask(counter: &Counter, token: &str, query: &str) -> (u16, Value) {
    said(counter.by(token, "POST", PATH).json(&json!({ "query": query }))).await
}

/// How often the collector's file was asked.
async fn reads(counter: &Counter) -> f64 {
    let (_, text) = said(counter.request("GET", "/metrics")).await;
    let line = text.as_str().and_then(|text| text.lines().find_map(|line| line.strip_prefix("ward_ledger_reads_total ")));
    line.and_then(|value| value.parse().ok()).expect("the metric is there")
}

#[tokio::test]
async fn devices_branches_and_figures_are_told_as_they_are_asked_for() {
    let counter = Counter::open().await;
    let (status, body) = ask(
        &counter,
        TOKEN,
        "{ stats { totalDevices unknown } branches { id region { id } }
           devices(deviceType: \"atm\", first: 1) { total nextCursor nodes { id status cause flags branch { id } outages { from } } }
           availability(by: REGION) { isFinal rows { key devices availability } } }",
    )
    .await;
    assert_eq!(status, 200, "{body}");
    let data = &body["data"];
    assert_eq!(data["stats"], json!({ "totalDevices": 3, "unknown": 3 }));
    assert_eq!(data["branches"][1], json!({ "id": "seen-branch", "region": { "id": "seen" } }));
    let first = json!({ "id": "hidden-1", "status": "unknown", "cause": "never_observed", "flags": [],
        "branch": { "id": "hidden-branch" }, "outages": [] });
    assert_eq!(data["devices"], json!({ "total": 2, "nextCursor": "hidden-1", "nodes": [first] }));
    let rows = data["availability"]["rows"].as_array().expect("rows");
    assert_eq!(rows[1], json!({ "key": "seen", "devices": 2, "availability": null }));
    // The next page, by variables as clients send them.
    let question = json!({
        "query": "query Page($after: String, $first: Int = 100) { devices(deviceType: \"atm\", after: $after, first: $first) { nodes { id } nextCursor } }",
        "variables": { "after": "hidden-1" }, "operationName": "Page",
    });
    let (_, body) = said(counter.by(TOKEN, "POST", PATH).json(&question)).await;
    assert_eq!(body["data"]["devices"], json!({ "nodes": [{ "id": "seen-1" }], "nextCursor": null }));
    let (status, schema) = said(counter.by(TOKEN, "GET", "/api/v1/schema.graphql")).await;
    assert!(status == 200 && schema.as_str().is_some_and(|text| text.contains("type AvailabilityRow")), "{schema}");
}

#[tokio::test]
async fn a_page_of_devices_with_their_outages_is_read_at_once() {
    let counter = Counter::open().await;
    let mut each = Vec::new();
    for first in [1, 3] {
        let before = reads(&counter).await;
        let (status, body) =
            ask(&counter, TOKEN, &format!("{{ devices(first: {first}) {{ nodes {{ id outages {{ from to }} }} }} }}")).await;
        assert_eq!((status, body["data"]["devices"]["nodes"].as_array().map(Vec::len)), (200, Some(first)), "{body}");
        each.push(reads(&counter).await - before);
    }
    assert_eq!(each, [1.0, 1.0]);
    let before = reads(&counter).await;
    ask(&counter, TOKEN, "{ devices { nodes { id status branch { name region { name } } } } }").await;
    assert_eq!(reads(&counter).await, before, "what is, is in memory");
}

#[tokio::test]
async fn nothing_of_other_regions_is_told_in_graphql() {
    let counter = Counter::open().await;
    let viewer = counter.token("viewer", json!(["seen"])).await;
    let all = "{ stats { totalDevices } branches { id } devices { total nodes { id outages { from } } }
                 availability(by: DEVICE) { total rows { key name } } regions: availability(by: REGION) { rows { key } } }";
    let (status, body) = ask(&counter, &viewer, all).await;
    assert_eq!((status, body["data"]["stats"]["totalDevices"].as_i64()), (200, Some(2)), "{body}");
    assert_eq!(body["data"]["availability"]["total"], 2, "{body}");
    assert!(!body.to_string().contains("hidden"), "{body}");
    for asked in [
        "{ device(id: \"hidden-1\") { id } }",
        "{ devices(region: \"hidden\") { total nodes { id } } }",
        "{ devices(branch: \"hidden-branch\") { total nodes { id } } }",
        "{ branches(region: \"hidden\") { id } }",
        "{ devices(search: \"hidden\") { total nodes { id } } }",
        "{ availability(by: DEVICE, region: \"hidden\") { rows { key } } }",
        "{ availability(by: DEVICE, device: \"hidden-1\") { rows { key } } }",
    ] {
        let (status, body) = ask(&counter, &viewer, asked).await;
        assert!(status == 200 && !body.to_string().contains("hidden"), "{asked}: {status} {body}");
    }
    let (status, _) = ask(&counter, "nobody", all).await;
    assert_eq!(status, 401);
}

#[tokio::test]
async fn questions_that_would_cost_too_much_are_refused() {
    let counter = Counter::open().await;
    let aliases = |n: usize| format!("{{{}}}", (0..n).map(|n| format!("a{n}:stats{{up}}")).collect::<Vec<_>>().join(" "));
    let deep = |field: &str, n: usize| format!("{{{}x{}}}", format!("{field}{{").repeat(n), "}".repeat(n));
    let long = "x".repeat(10 * 1024 * 1024);
    for (question, status, part) in [
        (aliases(5_000), 413, ""),
        (aliases(3_000), 400, "at most 16384 bytes"),
        (aliases(900), 400, "aliases"),
        (aliases(21), 400, "aliases"),
        (deep("stats", 100), 400, ""),
        (deep("... on Query", 100), 400, ""),
        ("{a".repeat(8_000), 400, ""),
        ("{ stats { ...nowhere } }".to_owned(), 400, "no fragment"),
        (deep("__schema{types{fields{type", 30), 400, ""),
        (long, 413, ""),
        ("{ devices(first: 1000) { nodes { id outages { from } } } }".to_owned(), 400, "at most 100"),
        ("{ devices(first: 0) { total } }".to_owned(), 400, "between 1 and 1000"),
        ("{ devices(first: 9999999999) { total } }".to_owned(), 400, ""),
        ("{ availability(month: \"2026-13\") { total } }".to_owned(), 400, "month"),
        ("mutation { add }".to_owned(), 400, ""),
        ("subscription { stats { up } }".to_owned(), 400, ""),
        ("{".to_owned(), 400, ""),
        (String::new(), 400, ""),
    ] {
        let (found, body) = ask(&counter, TOKEN, &question).await;
        let question: String = question.chars().take(80).collect();
        assert!(found == status && body.to_string().contains(part), "{question}: {found} {body}");
    }
    // Names are values and nothing more.
    for region in ["x\\\"}) { id } }", "' or 1=1 --", "\\u0000", "{{}}", "🏦"] {
        let (status, body) = ask(&counter, TOKEN, &format!("{{ devices(region: \"{region}\") {{ total }} }}")).await;
        assert_eq!((status, &body["data"]["devices"]["total"]), (200, &json!(0)), "{region}: {body}");
    }
    for (body, field) in [
        (json!({}), "query"),
        (json!({ "query": 1 }), "query"),
        (json!({ "query": "{ stats { up } }", "colour": 1 }), "colour"),
        (json!({ "query": "{ stats { up } }", "variables": [1] }), "variables"),
    ] {
        let (status, problem) = said(counter.by(TOKEN, "POST", PATH).json(&body)).await;
        assert_eq!((status, problem["field"].as_str()), (400, Some(field)), "{problem}");
    }
    let (status, problem) = said(counter.by(TOKEN, "POST", PATH).body("query={stats{up}}")).await;
    assert_eq!((status, problem["field"].as_str()), (400, Some("content-type")), "{problem}");
}

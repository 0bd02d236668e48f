//! Changes of the inventory, asked of a whole collector.

#[path = "counter/mod.rs"]
mod counter;

use counter::{Counter, ESTATE, TOKEN, said};
use serde_json::{Value, json};

#[tokio::test]
async fn devices_branches_and_regions_are_added_changed_and_removed_at_once() {
    let counter = Counter::open().await;
    let change = async |method: &str, path: &str, body: Value| counter.change(method, path, &body).await;
    assert_eq!(change("POST", "/api/v1/regions", json!({ "id": "new", "name": "New" })).await.0, 201);
    let (_, regions) = said(counter.by(TOKEN, "GET", "/api/v1/regions")).await;
    assert_eq!((regions["total"].as_u64(), regions["regions"][1]["branches"].as_u64()), (Some(3), Some(0)));
    let branch = json!({ "id": "b", "name": "B", "region": "new" });
    assert_eq!(change("POST", "/api/v1/branches", branch.clone()).await.0, 201);
    assert_eq!(change("POST", "/api/v1/branches", branch).await.0, 409);
    let device = json!({ "id": "d", "name": "D", "branch": "b", "device_type": "atm", "ip": "10.9.0.1" });
    let (status, added) = change("POST", "/api/v1/devices", device.clone()).await;
    assert_eq!((status, added["status"].as_str(), added["region"].as_str()), (201, Some("unknown"), Some("new")), "{added}");
    let (status, taken) = change(
        "POST",
        "/api/v1/devices",
        json!({ "id": "e", "name": "E", "branch": "b", "device_type": "atm", "ip": "10.9.0.1" }),
    )
    .await;
    assert_eq!((status, taken["detail"].as_str()), (409, Some("10.9.0.1 is already the address of d in this branch")));
    let (status, changed) = change("PATCH", "/api/v1/devices/d", json!({ "name": "D 2", "ip": "10.9.0.2" })).await;
    assert_eq!((status, changed["name"].as_str(), changed["ip"].as_str()), (200, Some("D 2"), Some("10.9.0.2")));
    assert_eq!(change("PATCH", "/api/v1/branches/b", json!({ "name": "B 2" })).await.0, 200);
    assert_eq!(change("PATCH", "/api/v1/regions/new", json!({ "name": "New 2" })).await.0, 200);
    let (_, shown) = said(counter.by(TOKEN, "GET", "/api/v1/branches/b")).await;
    assert_eq!((shown["name"].as_str(), shown["region_name"].as_str()), (Some("B 2"), Some("New 2")));
    assert_eq!(change("DELETE", "/api/v1/regions/new", Value::Null).await.0, 409);
    assert_eq!(change("DELETE", "/api/v1/branches/b", Value::Null).await.0, 409);
    for path in ["/api/v1/devices/d", "/api/v1/branches/b", "/api/v1/regions/new"] {
        assert_eq!(change("DELETE", path, Value::Null).await.0, 204, "{path}");
        assert_eq!(change("DELETE", path, Value::Null).await.0, 404, "{path}");
    }
    for (field, value) in [
        ("id", json!("a b")),
        ("name", json!("")),
        ("name", json!("two\nlines")),
        ("branch", json!("nowhere")),
        ("device_type", json!(7)),
        ("ip", json!("10.9.0.300")),
        ("ip", json!("224.0.0.1")),
        ("colour", json!("red")),
    ] {
        let mut wrong = json!({ "id": "x", "name": "X", "branch": "seen-branch", "device_type": "atm", "ip": "10.9.0.9" });
        wrong[field] = value;
        let (status, problem) = change("POST", "/api/v1/devices", wrong).await;
        assert_eq!((status, problem["field"].as_str()), (400, Some(field)), "{problem}");
    }
}

#[tokio::test]
async fn who_has_regions_changes_nothing_elsewhere() {
    let counter = Counter::open().await;
    let technician = counter.token("technician", json!(["seen"])).await;
    let manager = counter.token("regional_manager", json!(["seen"])).await;
    let change = async |by: &str, method: &str, path: &str, body: Value| said(counter.by(by, method, path).json(&body)).await.0;
    let device = |branch: &str| json!({ "id": "d", "name": "D", "branch": branch, "device_type": "atm", "ip": "10.9.0.1" });
    assert_eq!(change(&technician, "POST", "/api/v1/devices", device("hidden-branch")).await, 400);
    assert_eq!(change(&technician, "POST", "/api/v1/devices", device("seen-branch")).await, 201);
    assert_eq!(change(&technician, "PATCH", "/api/v1/devices/d", json!({ "branch": "hidden-branch" })).await, 400);
    assert_eq!(change(&technician, "PATCH", "/api/v1/devices/hidden-1", json!({ "name": "X" })).await, 404);
    assert_eq!(change(&technician, "DELETE", "/api/v1/devices/hidden-1", Value::Null).await, 404);
    assert_eq!(change(&manager, "PATCH", "/api/v1/branches/hidden-branch", json!({ "name": "X" })).await, 404);
    assert_eq!(change(&manager, "PATCH", "/api/v1/branches/seen-branch", json!({ "region": "hidden" })).await, 400);
    assert_eq!(change(&manager, "POST", "/api/v1/branches", json!({ "id": "n", "name": "N", "region": "hidden" })).await, 400);
    let (_, file) = said(counter.by(&technician, "GET", "/api/v1/inventory.csv")).await;
    assert!(file.as_str().is_some_and(|text| text.lines().count() == 4 && !text.contains("hidden")), "{file}");
}

#[tokio::test]
async fn a_file_is_tried_then_taken_whole_or_not_at_all() {
    let counter = Counter::open().await;
    let import = async |query: &str, text: &str| {
        let request = counter.by(TOKEN, "POST", &format!("/api/v1/inventory/import{query}")).header("content-type", "text/csv");
        said(request.body(text.to_owned())).await
    };
    let total = async || said(counter.by(TOKEN, "GET", "/api/v1/devices?limit=1")).await.1["total"].as_u64();
    // What goes out comes in again as it was.
    let (_, file) = said(counter.by(TOKEN, "GET", "/api/v1/inventory.csv")).await;
    let file = file.as_str().expect("a text").to_owned();
    let (status, same) = import("?dry_run=false&remove=true", &file).await;
    assert_eq!(
        (status, &same["applied"], &same["added"], &same["changed"], &same["removed"]),
        (200, &json!(true), &json!([]), &json!([]), &json!([]))
    );
    let more = format!("{ESTATE}new-1,New 1,seen-branch,Seen,seen,Seen,atm,10.0.0.9\n");
    let (status, tried) = import("", &more).await;
    assert_eq!(
        (status, &tried["dry_run"], &tried["applied"], &tried["added"]),
        (200, &json!(true), &json!(false), &json!(["new-1"]))
    );
    assert_eq!(total().await, Some(3), "nothing was applied");
    let (status, bad) = import("?dry_run=false", &format!("{more}new-2,New 2,seen-branch,Seen,seen,Seen,atm,10.0.0.300\n")).await;
    assert_eq!(
        (status, bad["errors"][0]["line"].as_u64(), bad["errors"][0]["column"].as_str()),
        (422, Some(6), Some("ip")),
        "{bad}"
    );
    assert_eq!(total().await, Some(3), "nothing was applied");
    let (status, done) = import("?dry_run=false", &more).await;
    assert_eq!((status, &done["applied"]), (200, &json!(true)));
    assert_eq!(total().await, Some(4), "it is there when the answer is");
    let (status, removed) = import("?dry_run=false&remove=true", ESTATE).await;
    assert_eq!((status, &removed["removed"]), (200, &json!(["new-1"])));
    assert_eq!(total().await, Some(3));
    let (_, audit) = said(counter.by(TOKEN, "GET", "/api/v1/audit?limit=1")).await;
    assert_eq!(
        (audit["entries"][0]["action"].as_str(), &audit["entries"][0]["detail"]["removed"]),
        (Some("inventory.import"), &json!(1))
    );
    for (query, kind, body, status) in [
        ("?dry_run=maybe", "text/csv", "", 400),
        ("", "application/json", "{}", 400),
        ("", "text/csv", "device_id,colour\n", 200),
        ("?dry_run=false", "text/csv", "", 422),
    ] {
        let request = counter.by(TOKEN, "POST", &format!("/api/v1/inventory/import{query}")).header("content-type", kind);
        let (found, told) = said(request.body(body)).await;
        assert_eq!(found, status, "{query} {told}");
    }
    let request = counter.by(TOKEN, "POST", "/api/v1/inventory/import").header("content-type", "text/csv");
    let (status, told) = said(request.body(vec![b'\n', 0xff])).await;
    assert_eq!(
        (status, told["errors"][0]["line"].as_u64(), told["errors"][0]["message"].as_str()),
        (200, Some(2), Some("is no UTF-8"))
    );
    // More than any other body may have, and more than this one may.
    let large = format!("{ESTATE}{}", "x".repeat(100_000));
    assert_eq!(import("", &large).await.0, 200);
    let huge = "x".repeat(16 * 1024 * 1024 + 1);
    assert_eq!(import("", &huge).await.0, 413);
}

#[tokio::test]
async fn what_is_over_is_not_sent_again_to_who_has_it() {
    let counter = Counter::open().await;
    let window = json!({ "scope": "all", "from": "2026-11-01T00:00:00Z", "to": "2026-11-02T00:00:00Z", "reason": "works" });
    assert_eq!(counter.change("POST", "/api/v1/maintenance", &window).await.0, 201);
    for path in [
        "/api/v1/availability?from=1790000000000&to=1790003600000&by=device",
        "/api/v1/reports/sla?from=1790000000000&to=1790003600000",
        "/api/v1/reports/flapping?from=1790000000000&to=1790003600000",
        "/api/v1/reports/rtt?from=1790000000000&to=1790003600000",
        "/api/v1/maintenance",
    ] {
        let first = counter.by(TOKEN, "GET", path).send().await.expect("an answer");
        let tag = first.headers()["etag"].clone();
        let body: Value = first.json().await.expect("JSON");
        assert!(body["now"].as_i64().is_some_and(|now| now > 0), "{path}: {body}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        let again = counter.by(TOKEN, "GET", path).header("if-none-match", tag).send().await.expect("an answer");
        assert_eq!(again.status().as_u16(), 304, "{path}");
    }
}

#[tokio::test]
async fn branches_agents_and_windows_come_by_pages_as_well() {
    let counter = Counter::open().await;
    for day in 1..=5 {
        // Two begin at the same time.
        let day = day.min(4);
        let (from, to) = (format!("2026-11-0{day}T00:00:00Z"), "2026-11-08T00:00:00Z");
        let window = json!({ "scope": "all", "from": from, "to": to, "reason": "works" });
        assert_eq!(counter.change("POST", "/api/v1/maintenance", &window).await.0, 201);
    }
    for (path, name, key, most) in
        [("branches", "branches", "id", 1), ("agents", "agents", "branch", 1), ("maintenance", "windows", "id", 2)]
    {
        let path = format!("/api/v1/{path}");
        let (_, whole) = said(counter.by(TOKEN, "GET", &path)).await;
        let keys = |body: &Value| body[name].as_array().expect("a list").iter().map(|row| row[key].clone()).collect::<Vec<_>>();
        assert!(whole["next_cursor"].is_null() && keys(&whole).len() > most, "{whole}");
        let (mut paged, mut cursor) = (Vec::new(), String::new());
        loop {
            let (status, page) = said(counter.by(TOKEN, "GET", &format!("{path}?limit={most}{cursor}"))).await;
            assert_eq!((status, &page["total"]), (200, &whole["total"]), "{page}");
            assert!(keys(&page).len() <= most);
            paged.extend(keys(&page));
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(paged, keys(&whole), "{path}");
        assert_eq!(said(counter.by(TOKEN, "GET", &format!("{path}?limit=0"))).await.0, 400);
    }
    assert_eq!(said(counter.by(TOKEN, "GET", "/api/v1/maintenance?cursor=x")).await.0, 400);
}

//! Who may do what, asked of a whole collector.

#[path = "counter/mod.rs"]
mod counter;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use counter::{Counter, ESTATE, TOKEN, said};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use ward_collector::accounts::Role;
use ward_collector::api::access::RULES;

const PASSWORD: &str = "correct horse";

fn filled(path: &str, id: &str) -> String {
    path.replace("{id}", id).replace("{name}", id)
}

#[tokio::test]
async fn each_role_may_what_its_rules_say_and_nothing_else() {
    let counter = Counter::open().await;
    let mut tokens = Vec::new();
    for role in Role::ALL {
        let regions = if role == Role::RegionalManager { json!(["seen"]) } else { Value::Null };
        tokens.push((role, counter.token(role.as_str(), regions).await));
    }
    for (method, path, least) in RULES {
        let path = filled(path, "no-such");
        let (status, _) = said(counter.request(method, &path)).await;
        assert!(status == 401, "{method} {path} without a token: {status}");
        for (role, token) in &tokens {
            let (status, body) = said(counter.by(token, method, &path)).await;
            let denied = status == 403 || status == 401;
            // Who comes by a token has no password to change.
            let is_exempt = path == "/api/v1/me/password";
            assert!(denied == (role < least) || is_exempt, "{method} {path} by {role:?}: {status} {body}");
        }
    }
    // What has no rule.
    for (method, path, status) in [("GET", "/api/v1/nothing", 404), ("PUT", "/api/v1/users", 405), ("GET", "/logout", 405)] {
        assert_eq!(said(counter.by(TOKEN, method, path)).await.0, status, "{method} {path}");
        assert_eq!(said(counter.request(method, path)).await.0, 401, "{method} {path}");
    }
}

#[tokio::test]
async fn nothing_of_other_regions_is_told_by_any_route() {
    let counter = Counter::open().await;
    let scope =
        json!({ "scope": "branch", "key": "hidden-branch", "from": "2026-01-01T00:00:00Z", "to": "2026-01-01T01:00:00Z" });
    assert_eq!(counter.change("POST", "/api/v1/maintenance", &scope).await.0, 201);
    let manager = counter.token("regional_manager", json!(["seen"])).await;
    let ask = async |method: &str, path: &str| said(counter.by(&manager, method, path)).await;
    let (_, description) = ask("GET", "/api/v1/openapi.json").await;
    let mut asked = 0;
    for (path, methods) in description["paths"].as_object().expect("paths") {
        if methods["get"].is_null() || path.contains("openapi") {
            continue;
        }
        for id in ["seen-1", "seen-branch", "hidden-1", "hidden-branch"] {
            let (status, body) = ask("GET", &filled(path, id)).await;
            assert!(!body.to_string().contains("hidden"), "{path} of {id}: {status} {body}");
            if id.starts_with("hidden") && path.contains("{id}") {
                assert_eq!(status, 404, "{path} of {id}: {body}");
            }
            asked += 1;
        }
    }
    assert!(asked > 50, "{asked}");
    let (_, stats) = ask("GET", "/api/v1/dashboard/stats").await;
    assert_eq!(stats["total_devices"], 2);
    let (_, all) = ask("GET", "/api/v1/availability").await;
    assert_eq!(all["rows"][0]["devices"], 2, "{all}");
    // The same questions by somebody who sees everything are other answers.
    let (_, stats) = said(counter.by(TOKEN, "GET", "/api/v1/dashboard/stats")).await;
    assert_eq!(stats["total_devices"], 3);
    // Nor may anything there be changed.
    let window = |scope: &str, key: Value| json!({ "scope": scope, "key": key, "from": 1_800_000_000_000_i64, "to": 1_800_000_100_000_i64 });
    for (scope, key, expected) in [
        ("branch", json!("hidden-branch"), 400),
        ("region", json!("hidden"), 400),
        ("device", json!("hidden-1"), 400),
        ("all", Value::Null, 400),
        ("device_type", json!("atm"), 400),
        ("branch", json!("seen-branch"), 201),
    ] {
        let (status, body) = said(counter.by(&manager, "POST", "/api/v1/maintenance").json(&window(scope, key))).await;
        assert_eq!(status, expected, "{scope}: {body}");
    }
    assert_eq!(ask("DELETE", "/api/v1/maintenance/1").await.0, 404);
    assert_eq!(ask("DELETE", "/api/v1/maintenance/2").await.0, 204);
}

async fn feed(counter: &Counter, token: &str, query: &str) -> Result<Value, u16> {
    let mut request = format!("ws://{}/ws/updates{query}", counter.address).into_client_request().expect("an address");
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().expect("a header"));
    match tokio_tungstenite::connect_async(request).await {
        Ok((mut socket, _)) => {
            let message = socket.next().await.expect("a message").expect("no error");
            Ok(serde_json::from_str(message.to_text().expect("a text")).expect("JSON"))
        }
        Err(tokio_tungstenite::tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn the_feed_has_only_what_its_reader_may_see_and_wants() {
    let counter = Counter::open().await;
    let viewer = counter.token("viewer", json!(["seen"])).await;
    let ids = |message: &Value| -> String {
        let devices = message["devices"].as_array().expect("devices").iter();
        devices.filter_map(|device| device["id"].as_str()).collect::<Vec<_>>().join(" ")
    };
    let first = feed(&counter, &viewer, "").await.expect("a snapshot");
    assert_eq!((ids(&first).as_str(), first["branches"].as_array().map(Vec::len)), ("seen-1 seen-2", Some(1)));
    assert!(!first.to_string().contains("hidden"));
    for (token, query) in [
        (&*viewer, "?region=hidden"),
        (&*viewer, "?branch=hidden-branch"),
        (TOKEN, "?branch=made-up"),
        (TOKEN, "?region=made-up"),
    ] {
        assert_eq!(feed(&counter, token, query).await.err(), Some(404), "{query}");
    }
    assert_eq!(ids(&feed(&counter, TOKEN, "?branch=hidden-branch").await.expect("a snapshot")), "hidden-1");
    assert_eq!(ids(&feed(&counter, TOKEN, "").await.expect("a snapshot")).split(' ').count(), 3);
    // It goes on where it was, while its numbers are the same.
    let (epoch, seq) = (first["epoch"].as_str().expect("an epoch"), first["seq"].as_u64().expect("a number"));
    let again = feed(&counter, &viewer, &format!("?resume={epoch}.{seq}")).await.expect("a message");
    assert_eq!((again["type"].as_str(), again["seq"].as_u64()), (Some("resumed"), Some(seq)));
    let other = feed(&counter, TOKEN, &format!("?resume={epoch}.{seq}")).await.expect("a message");
    assert_eq!(other["type"], "snapshot", "another reader's numbers are not its own");
    for (token, query, status) in
        [("wrong-token", "", 401), (&*viewer, "?colour=1", 400), (&*viewer, "?resume=x", 400), (&*viewer, "?region=a/b", 400)]
    {
        assert_eq!(feed(&counter, token, query).await.err(), Some(status), "{query}");
    }
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_dropped_and_finds_the_reason() {
    let counter = Counter::open().await;
    let rows = (0..5_000).map(|n| format!("many-{n},Many {n},seen-branch,Seen,seen,Seen,atm,10.1.{}.{}\n", n / 250, n % 250 + 1));
    let file = format!("{}\n{}", ESTATE.lines().next().expect("a header"), rows.collect::<String>());
    let import = counter.by(TOKEN, "POST", "/api/v1/inventory/import?dry_run=false").header("content-type", "text/csv");
    assert_eq!(said(import.body(file)).await.0, 200);
    let mut request = format!("ws://{}/ws/updates", counter.address).into_client_request().expect("an address");
    request.headers_mut().insert("authorization", format!("Bearer {TOKEN}").parse().expect("a header"));
    let socket = TcpSocket::new_v4().expect("a socket");
    // The less the system holds for it, the sooner it is seen not to read.
    socket.set_recv_buffer_size(4_096).expect("a size");
    let stream = socket.connect(counter.address).await.expect("a connection");
    let (mut reader, _) = tokio_tungstenite::client_async(request, stream).await.expect("a WebSocket");
    let dropped = async || {
        let (_, text) = said(counter.request("GET", "/metrics")).await;
        text.as_str().is_some_and(|text| text.contains("ward_websocket_dropped_total 1"))
    };
    // Whatever the system holds for it: each change of the inventory is a snapshot of more than a megabyte.
    let began = std::time::Instant::now();
    while !dropped().await {
        let name = json!({ "name": format!("Seen {}", began.elapsed().as_millis()) });
        assert_eq!(counter.change("PATCH", "/api/v1/devices/seen-1", &name).await.0, 200);
        assert!(began.elapsed() < Duration::from_secs(90), "it is not dropped");
    }
    // It learns why when it reads on, and others are answered meanwhile.
    let reason = loop {
        match reader.next().await {
            Some(Ok(Message::Close(Some(frame)))) => break frame.reason.to_string(),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(reason.starts_with("too slow"), "{reason}");
    assert!(feed(&counter, TOKEN, "").await.is_ok());
}

/// A session: its cookie and what its page has to show.
async fn enter(counter: &Counter, name: &str, password: &str) -> Result<(String, String), u16> {
    let response =
        counter.request("POST", "/login").json(&json!({ "name": name, "password": password })).send().await.expect("an answer");
    if response.status() != 200 {
        return Err(response.status().as_u16());
    }
    let cookie = response.headers()["set-cookie"].to_str().expect("a text").to_owned();
    assert!(cookie.contains("; HttpOnly; SameSite=Strict; "), "{cookie}");
    let me: Value = serde_json::from_str(&response.text().await.expect("a text")).expect("JSON");
    assert_eq!((me["name"].as_str(), me["via"].as_str()), (Some(name), Some("session")));
    Ok((cookie.split(';').next().expect("a value").to_owned(), me["csrf"].as_str().expect("a text").to_owned()))
}

#[tokio::test]
async fn a_user_comes_in_changes_something_by_the_page_and_leaves() {
    let counter = Counter::open().await;
    let nino = json!({ "name": "nino", "role": "technician", "regions": ["seen"], "password": PASSWORD });
    assert_eq!(counter.change("POST", "/api/v1/users", &nino).await.0, 201);
    assert_eq!(counter.change("POST", "/api/v1/users", &nino).await.0, 409);
    assert_eq!(enter(&counter, "nino", "wrong horse").await, Err(401));
    let (cookie, csrf) = enter(&counter, "nino", PASSWORD).await.expect("a session");
    let by_page = |method: &str, path: &str| counter.request(method, path).header("cookie", &cookie);
    let (_, me) = said(by_page("GET", "/api/v1/me")).await;
    assert_eq!((me["role"].as_str(), &me["regions"], me["csrf"].as_str()), (Some("technician"), &json!(["seen"]), Some(&*csrf)));
    let window = json!({ "scope": "device", "key": "seen-1", "from": 1_800_000_000_000_i64, "to": 1_800_000_100_000_i64 });
    // Another site can make a browser send the cookie, and no more.
    assert_eq!(said(by_page("POST", "/api/v1/maintenance").json(&window)).await.0, 403);
    assert_eq!(said(by_page("POST", "/api/v1/maintenance").json(&window).header("x-csrf-token", "0".repeat(32))).await.0, 403);
    assert_eq!(said(by_page("POST", "/api/v1/maintenance").json(&window).header("x-csrf-token", &csrf)).await.0, 201);
    let (_, audit) = said(counter.by(TOKEN, "GET", "/api/v1/audit")).await;
    let line = |at: usize| {
        ["actor", "action", "target"].map(|field| audit["entries"][at][field].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(line(0), ["nino", "maintenance.add", "device seen-1"]);
    assert_eq!(line(1), ["nino", "login", "nino"]);
    assert_eq!(line(2), ["api-token", "user.add", "nino"]);
    assert!(!audit.to_string().contains(PASSWORD) && !audit.to_string().contains("argon2"), "{audit}");
    // One's own password ends all sessions.
    let own = |current: &str| json!({ "current": current, "password": "another horse" });
    let change = |current: &str| by_page("POST", "/api/v1/me/password").json(&own(current)).header("x-csrf-token", &csrf);
    assert_eq!(said(change("wrong horse")).await.0, 400);
    assert_eq!(said(change(PASSWORD)).await.0, 204);
    assert_eq!(said(by_page("GET", "/api/v1/me")).await.0, 401);
    let (cookie, csrf) = enter(&counter, "nino", "another horse").await.expect("a session");
    let leave = counter.request("POST", "/logout").header("cookie", &cookie).header("x-csrf-token", &csrf);
    assert_eq!(said(leave).await.0, 204);
    assert_eq!(said(counter.request("GET", "/api/v1/me").header("cookie", &cookie)).await.0, 401);
}

#[tokio::test]
async fn what_was_taken_away_is_taken_at_once_and_the_last_admin_stays() {
    let counter = Counter::open().await;
    let user = |name: &str, role: &str| json!({ "name": name, "role": role, "password": PASSWORD });
    assert_eq!(counter.change("POST", "/api/v1/users", &user("nino", "viewer")).await.0, 201);
    assert_eq!(counter.change("POST", "/api/v1/users", &user("gia", "admin")).await.0, 201);
    let (cookie, _) = enter(&counter, "nino", PASSWORD).await.expect("a session");
    let me = async || said(counter.request("GET", "/api/v1/me").header("cookie", &cookie)).await.0;
    assert_eq!(me().await, 200);
    assert_eq!(counter.change("PATCH", "/api/v1/users/nino", &json!({ "regions": ["seen"] })).await.0, 200);
    assert_eq!(me().await, 401, "who may see less begins again");
    let token = counter.token("viewer", Value::Null).await;
    assert_eq!(said(counter.by(&token, "GET", "/api/v1/me")).await.0, 200);
    let (_, tokens) = said(counter.by(TOKEN, "GET", "/api/v1/tokens")).await;
    assert!(!tokens.to_string().contains(&token), "{tokens}");
    let id = tokens["tokens"][0]["id"].as_i64().expect("a number");
    assert_eq!(counter.change("DELETE", &format!("/api/v1/tokens/{id}"), &Value::Null).await.0, 204);
    assert_eq!(said(counter.by(&token, "GET", "/api/v1/me")).await.0, 401);
    assert_eq!(counter.change("DELETE", "/api/v1/users/gia", &Value::Null).await.0, 409);
    assert_eq!(counter.change("PATCH", "/api/v1/users/gia", &json!({ "role": "viewer" })).await.0, 409);
    assert_eq!(counter.change("DELETE", "/api/v1/users/nino", &Value::Null).await.0, 204);
    for (body, field) in [
        (json!({ "name": "a b", "role": "viewer", "password": PASSWORD }), "name"),
        (json!({ "name": "a", "role": "king", "password": PASSWORD }), "role"),
        (json!({ "name": "a", "role": "viewer", "password": "short" }), "password"),
        (json!({ "name": "a", "role": "viewer" }), "password"),
        (json!({ "name": "a", "role": "regional_manager", "password": PASSWORD }), "regions"),
        (json!({ "name": "a", "role": "admin", "regions": ["seen"], "password": PASSWORD }), "regions"),
        (json!({ "name": "a", "role": "viewer", "regions": [], "password": PASSWORD }), "regions"),
        (json!({ "name": "a", "role": "viewer", "regions": ["nowhere"], "password": PASSWORD }), "regions[0]"),
        (json!({ "name": "a", "role": "viewer", "password": PASSWORD, "colour": 1 }), "colour"),
    ] {
        let (status, problem) = counter.change("POST", "/api/v1/users", &body).await;
        assert_eq!((status, problem["field"].as_str()), (400, Some(field)), "{body}: {problem}");
    }
}

#[tokio::test]
async fn who_guesses_is_stopped() {
    let counter = Counter::open().await;
    let nino = json!({ "name": "nino", "role": "viewer", "password": PASSWORD });
    assert_eq!(counter.change("POST", "/api/v1/users", &nino).await.0, 201);
    for _ in 0..10 {
        assert_eq!(enter(&counter, "nino", "wrong horse").await, Err(401));
    }
    assert_eq!(enter(&counter, "nino", PASSWORD).await, Err(429), "the right one tells no more than a wrong one");
    let again = counter.request("POST", "/login").json(&json!({ "name": "nino", "password": PASSWORD }));
    let refused = again.send().await.expect("an answer");
    let wait: u64 = refused.headers()["retry-after"].to_str().expect("a text").parse().expect("seconds");
    assert!((1..=300).contains(&wait), "{wait}");
    let code = json!({ "code": "wrong", "name": "me", "password": PASSWORD });
    assert_eq!(counter.change("POST", "/setup", &code).await.0, 409, "there is a user");
}

#[tokio::test]
async fn a_link_with_the_token_leads_in_and_its_cookie_alone_changes_nothing() {
    let counter = Counter::open().await;
    let response = counter.request("GET", &format!("/login?token={TOKEN}")).send().await.expect("an answer");
    assert_eq!((response.status().as_u16(), response.headers()["location"].to_str().expect("a text")), (303, "/"));
    let cookie = format!("ward_token={TOKEN}");
    let (status, me) = said(counter.request("GET", "/api/v1/me").header("cookie", &cookie)).await;
    assert_eq!((status, me["role"].as_str(), me["via"].as_str()), (200, Some("admin"), Some("token")));
    let user = json!({ "name": "nino", "role": "viewer", "password": PASSWORD });
    let add = || counter.request("POST", "/api/v1/users").header("cookie", &cookie).json(&user);
    assert_eq!(said(add()).await.0, 403);
    assert_eq!(said(add().header("x-csrf-token", me["csrf"].as_str().expect("a text"))).await.0, 201);
    let wrong = counter.request("GET", "/login?token=wrong-token").send().await.expect("an answer");
    assert_eq!(wrong.headers()["location"].to_str().expect("a text"), "/login?failed=1");
}

#[tokio::test]
async fn who_guesses_behind_a_proxy_is_slowed_down_and_nobody_else() {
    let counter = Counter::open().await;
    // This machine is the proxy.
    let guess = async |forwarded: &str| {
        let body = json!({ "name": "nino", "password": "wrong wrong" });
        said(counter.request("POST", "/login").header("x-forwarded-for", forwarded).json(&body)).await.0
    };
    for _ in 0..10 {
        assert_eq!(guess("198.51.100.1").await, 401);
    }
    assert_eq!(guess("198.51.100.1").await, 429);
    assert_eq!(guess("198.51.100.2, 198.51.100.1").await, 429, "what it wrote itself doesn't count");
    assert_eq!(guess("198.51.100.2").await, 401);
}

#[tokio::test]
async fn a_request_has_a_name_in_its_answer_and_in_its_problem() {
    let counter = Counter::open().await;
    let asked = async |path: &str, named: &str| {
        let answer = counter.by(TOKEN, "GET", path).header("x-request-id", named).send().await.expect("an answer");
        let told = answer.headers()["x-request-id"].to_str().expect("a text").to_owned();
        let body: Value = serde_json::from_str(&answer.text().await.expect("a text")).expect("JSON");
        (told, body["request_id"].as_str().map(str::to_owned))
    };
    assert_eq!(asked("/version", "mine-1").await, ("mine-1".to_owned(), None));
    assert_eq!(asked("/api/v1/nothing", "mine-2").await, ("mine-2".to_owned(), Some("mine-2".to_owned())));
    let (told, in_problem) = asked("/api/v1/devices?limit=x", "not {} sane").await;
    assert_eq!((told.len(), Some(told)), (16, in_problem));
    let large = counter.request("POST", "/login").header("x-request-id", "mine-3").body(vec![b'x'; 100_000]);
    assert_eq!(said(large).await.1["request_id"], "mine-3");
}

#[tokio::test]
async fn what_is_asked_and_who_comes_in_or_follows_is_counted() {
    let counter = Counter::open().await;
    let value = async |selector: &str| -> f64 {
        let (_, text) = said(counter.request("GET", "/metrics")).await;
        let line = text.as_str().and_then(|text| text.lines().find_map(|line| line.strip_prefix(selector)?.strip_prefix(' ')));
        line.and_then(|value| value.parse().ok()).unwrap_or(0.0)
    };
    for _ in 0..2 {
        assert_eq!(said(counter.by(TOKEN, "GET", "/api/v1/devices")).await.0, 200);
    }
    assert_eq!(value("ward_api_requests_total{route=\"/api/v1/devices\",status=\"200\"}").await, 2.0);
    assert_eq!(value("api_request_duration_seconds_count{route=\"/api/v1/devices\"}").await, 2.0);
    assert_eq!(value("cache_requests_total{cache=\"answers\"}").await, 2.0);
    assert_eq!(value("cache_hits_total{cache=\"answers\"}").await, 1.0);
    assert_eq!(enter(&counter, "nobody", "wrong wrong").await, Err(401));
    assert_eq!(value("ward_logins_total{outcome=\"wrong\"}").await, 1.0);
    let mut request = format!("ws://{}/ws/updates", counter.address).into_client_request().expect("an address");
    request.headers_mut().insert("authorization", format!("Bearer {TOKEN}").parse().expect("a header"));
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.expect("a feed");
    socket.next().await.expect("a message").expect("no error");
    assert_eq!(value("websocket_connections_active").await, 1.0);
    assert_eq!(value("ward_websocket_connections_active").await, 1.0);
    drop(socket);
    while value("websocket_connections_active").await > 0.0 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// What the collector logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody panics").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn who_shows_the_code_of_the_file_becomes_the_first_admin_and_nobody_after() {
    let log = Log::default();
    let written = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || written.clone()).finish();
    // One thread, which alone is listened to.
    let _heard = tracing::subscriber::set_default(subscriber);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let counter = Counter::open().await;
        let set_up = async |code: &str, name: &str| {
            let body = json!({ "code": code, "name": name, "password": PASSWORD });
            counter.request("POST", "/setup").json(&body).send().await.expect("an answer")
        };
        assert_eq!(set_up("wrong", "gia").await.status().as_u16(), 403);
        let code = std::fs::read_to_string(counter.folder.path().join("first-admin-code")).expect("it is written at the start");
        let code = code.trim().to_owned();
        let text = String::from_utf8(log.0.lock().expect("nobody panics").clone()).expect("UTF-8");
        assert!(text.contains("first-admin-code") && !text.contains(&code), "where it is stands in the log, and no more: {text}");
        let made = set_up(&code, "gia").await;
        assert_eq!(made.status().as_u16(), 201);
        let cookie = made.headers()["set-cookie"].to_str().expect("a text").split(';').next().expect("a cookie").to_owned();
        let body: Value = made.json().await.expect("JSON");
        assert_eq!((body["name"].as_str(), body["role"].as_str(), &body["regions"]), (Some("gia"), Some("admin"), &Value::Null));
        // The session is theirs, and so are all rights.
        let csrf = body["csrf"].as_str().expect("a text");
        let user = json!({ "name": "nino", "role": "viewer", "password": PASSWORD });
        let add = counter.request("POST", "/api/v1/users").header("cookie", cookie).header("x-csrf-token", csrf).json(&user);
        assert_eq!(said(add).await.0, 201);
        assert!(enter(&counter, "gia", PASSWORD).await.is_ok());
        assert_eq!(set_up(&code, "other").await.status().as_u16(), 409);
        let (_, audit) = said(counter.by(TOKEN, "GET", "/api/v1/audit")).await;
        assert!(audit.to_string().contains("\"user.first\"") && !audit.to_string().contains(&code), "{audit}");
    });
}

//! The API as its description has it, whatever it is asked.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use ward_tests::{Api, Demo, Net, eventually, now_ms};

use crate::world::{World, takes_down};

/// A whole description, against which answers are held.
struct Description(Value);

impl Description {
    async fn of(api: &Api) -> Self {
        Self(api.json("/api/v1/openapi.json").await.expect("the API describes itself"))
    }

    /// Checks an answer to `GET`, as its status and kind want it.
    async fn holds(&self, api: &Api, route: &str, path: &str) -> Result<Value> {
        let response = api.request(Method::GET, path).send().await?;
        let status = response.status();
        let kind = response.headers().get("content-type").context("a kind")?.to_str()?.to_owned();
        let kind = kind.split(';').next().unwrap_or_default();
        let text = response.text().await?;
        let answer: Value = if kind.starts_with("text/") { json!(text) } else { serde_json::from_str(&text)? };
        let described = &self.0["paths"][route]["get"]["responses"][status.as_str()]["content"][kind]["schema"];
        ensure!(described.is_object(), "{path}: {status} as {kind} isn't described: {answer}");
        let mut schema = described.clone();
        schema["components"] = self.0["components"].clone();
        let validator = jsonschema::validator_for(&schema).map_err(|error| anyhow::anyhow!("{route}: {error}"))?;
        if let Err(error) = validator.validate(&answer) {
            anyhow::bail!("{path}: {error} at {}", error.instance_path);
        }
        Ok(answer)
    }

    fn parameters(&self, route: &str) -> BTreeSet<String> {
        let all = self.0["paths"][route]["get"]["parameters"].as_array().into_iter().flatten();
        let names = all.filter(|parameter| parameter["in"] == "query").filter_map(|parameter| parameter["name"].as_str());
        names.map(str::to_owned).collect()
    }
}

#[test]
fn each_answer_is_as_the_description_has_it_and_each_parameter_known() {
    let net = Net::new(0, 0);
    net.at_the_centre(async || {
        let demo = Demo::start();
        let api = &demo.api;
        let down = eventually(Duration::from_secs(60), "a device of the demo is down", async || {
            let page = api.json("/api/v1/devices?status=down&limit=1").await?;
            let id = page["devices"][0]["id"].as_str().context("none is")?;
            Ok(id.to_owned())
        })
        .await;
        let description = Description::of(api).await;
        let branch = api.device(&down).await.expect("a device")["branch"].as_str().expect("a branch").to_owned();
        let paths = description.0["paths"].as_object().expect("paths");
        for (route, _) in paths.iter().filter(|(route, of)| *route != "/api/v1/openapi.json" && of["get"].is_object()) {
            let id = if route.contains("/branches/") { &branch } else { &down };
            let path = route.replace("{id}", id).replace("{name}", "region");
            description.holds(api, route, &path).await.expect("as described");
            description.holds(api, route, &path.replace(id.as_str(), "no-such")).await.expect("an answer to a wrong id");
            let refused = description.holds(api, route, &format!("{path}?colour=1")).await.expect("a refusal as described");
            if route.starts_with("/api/v1/devices") || route.starts_with("/api/v1/events") {
                assert_eq!(refused["field"], "colour", "{refused}");
                let said = refused["detail"].as_str().expect("a text");
                let (_, known) = said.split_once("expected").unwrap_or_default();
                let known: BTreeSet<String> = known.split('`').skip(1).step_by(2).map(str::to_owned).collect();
                assert_eq!(known, description.parameters(route), "{route}");
            }
        }
        for path in [
            "/api/v1/devices?limit=10000&sort=-down_since",
            "/api/v1/devices?fields=id,status",
            "/api/v1/devices?status=broken",
            "/api/v1/devices?q=%22%7D%20or%20vector(1)%20%23&limit=1",
        ] {
            description.holds(api, "/api/v1/devices", path).await.expect("as described");
        }
        let history = format!("/api/v1/devices/{down}/history");
        for query in
            ["time_range=30m", "time_range=365d", "from=0&to=1", "from=9223372036854775807", "step=NaN", "time_range=1h&step=1m"]
        {
            description.holds(api, "/api/v1/devices/{id}/history", &format!("{history}?{query}")).await.expect("as described");
        }
        eventually(Duration::from_secs(60), "pages", async || pages_are_whole(api, &description).await).await;
        is_known_by_its_tag(api).await.expect("an ETag");
    });
}

#[test]
fn each_message_of_the_feed_is_as_the_description_has_it() {
    let net = Net::new(0, 0);
    net.at_the_centre(async || {
        let demo = Demo::start();
        let api = &demo.api;
        eventually(Duration::from_secs(60), "some devices of the demo are up", async || {
            let page = api.json("/api/v1/devices?status=up&limit=3").await?;
            ensure!(page["devices"].as_array().is_some_and(|up| up.len() == 3), "{page}");
            Ok(())
        })
        .await;
        let description = Description::of(api).await;
        let validator = |name: &str| {
            let mut schema = description.0["components"]["schemas"][name].clone();
            schema["components"] = description.0["components"].clone();
            jsonschema::validator_for(&schema).expect("a schema")
        };
        let (any, said) = (validator("FeedMessage"), validator("FeedWatch"));
        let mut socket = api.websocket().await.expect("live updates");
        let mut wanted: BTreeSet<&str> = ["snapshot", "delta", "heartbeat", "watched", "problem"].into();
        let (began, mut watch) = (Instant::now(), json!({ "type": "watch", "devices": [] }));
        while !wanted.is_empty() {
            assert!(began.elapsed() < Duration::from_secs(60), "{wanted:?} did not come");
            let message = socket.next().await.expect("a message");
            if let Err(error) = any.validate(&message) {
                panic!("{error} at {}: {message:.300}", error.instance_path);
            }
            let kind = message["type"].as_str().expect("a type");
            if kind == "snapshot" {
                let up = message["devices"].as_array().expect("devices").iter().filter(|device| device["status"] == "up");
                watch["devices"] = up.take(3).map(|device| device["id"].clone()).collect();
                said.validate(&watch).expect("as described");
                socket.say(&watch).await.expect("it listens");
                socket.say(&json!({ "type": "sing" })).await.expect("it listens");
            }
            wanted.remove(kind);
        }
        for wrong in [
            json!({ "type": "delta" }),
            json!({ "type": "sing" }),
            json!({ "type": "heartbeat", "epoch": "a", "seq": -1, "now": 1 }),
        ] {
            assert!(!any.is_valid(&wrong), "{wrong}");
        }
    });
}

/// Events page by page are those of one page.
async fn pages_are_whole(api: &Api, description: &Description) -> Result<()> {
    let to = now_ms() - 2_000;
    let bounds = format!("from={}&to={to}", to - 3_600_000);
    let all = description.holds(api, "/api/v1/events", &format!("/api/v1/events?{bounds}&limit=10000")).await?;
    let mut paged = Vec::new();
    let mut path = format!("/api/v1/events?{bounds}&limit=300");
    loop {
        let page = description.holds(api, "/api/v1/events", &path).await?;
        paged.extend(page["events"].as_array().context("a list")?.clone());
        let Some(next) = page["next_cursor"].as_str() else { break };
        path = format!("/api/v1/events?{bounds}&limit=300&cursor={next}");
    }
    ensure!(paged.len() > 800, "there is more than one page");
    ensure!(json!(paged) == all["events"], "pages and the whole differ");
    Ok(())
}

/// What has not changed isn't sent again, and what is sent is compressed.
async fn is_known_by_its_tag(api: &Api) -> Result<()> {
    // Regions change least: when two answers differ, something has happened in between.
    for _ in 0..50 {
        let first = api.request(Method::GET, "/api/v1/regions").header("accept-encoding", "gzip, zstd").send().await?;
        let tag = first.headers()["etag"].clone();
        ensure!(first.headers()["content-encoding"] == "zstd" && first.headers()["cache-control"] == "private, no-cache");
        let second = api.request(Method::GET, "/api/v1/regions").header("if-none-match", tag).send().await?;
        if second.status().as_u16() == 304 {
            ensure!(second.bytes().await?.is_empty());
            return Ok(());
        }
    }
    anyhow::bail!("it was sent each time")
}

#[test]
fn hostile_requests_are_refused_and_slow_nobody_down() {
    let net = Net::new(0, 0);
    net.at_the_centre(async || {
        let demo = Demo::start();
        let api = &demo.api;
        eventually(Duration::from_secs(20), "it answers", async || api.stats().await).await;
        // Half-open sockets and slow clients, more than are granted at a time.
        let mut slow = Vec::new();
        for _ in 0..700 {
            let mut socket = tokio::net::TcpStream::connect(api.address()).await.expect("a connection");
            socket.write_all(b"GET /api/v1/devices HT").await.expect("sent");
            slow.push(socket);
        }
        let many: String = (0..5_000).map(|n| format!("parameter{n}=x&")).collect();
        let mut took = Vec::new();
        for round in 0..40 {
            let hostile = match round % 8 {
                0 => api
                    .request(Method::POST, "/login")
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body("x".repeat(10_000_000)),
                1 => api.request(Method::GET, &format!("/api/v1/devices?{many}")),
                2 => api.request(Method::GET, "/api/v1/devices?limit=NaN"),
                3 => api.request(Method::GET, "/api/v1/query?query=%00%22%7D&time=NaN"),
                4 => api.request(Method::DELETE, "/api/v1/devices"),
                5 => api.request(Method::GET, "/api/v1/devices?q=%FF%FE&status=%00"),
                6 => api.request(Method::POST, "/api/v1/query").body(vec![0u8; 10_000_000]),
                _ => api.request(Method::GET, "/api/v1/devices/..%2f..%2fetc%2fpasswd"),
            };
            // A connection that is dropped while it still sends is as good.
            if let Ok(response) = hostile.send().await {
                assert!(response.status().is_client_error(), "{round}: {}", response.status());
            }
            for _ in 0..10 {
                let began = Instant::now();
                api.stats().await.expect("the others are answered");
                took.push(began.elapsed());
            }
        }
        took.sort();
        assert!(took[took.len() * 99 / 100] < Duration::from_millis(250), "{took:?}");
        assert!(api.counter("ward_api_connections_dropped_total{reason=\"silent\"}").await.expect("counted") > 0.0);
    });
}

#[test]
fn series_are_the_same_from_victoria_metrics_and_without_it_and_prometheus_questions_pass() {
    let net = Net::new(1, 2);
    net.at_the_centre(async || {
        let mut world = World::start(&net, Duration::from_secs(30)).await;
        takes_down(&world, 0).await;
        // What VictoriaMetrics lacks would be told from the collector's own file: that it has these is asked of itself.
        let minutes = eventually(Duration::from_secs(150), "VictoriaMetrics has two minutes", async || {
            let series = world.victoria.export("device_ping_packet_loss{device_id=\"b1-d01\"}").await?;
            let minutes: Vec<i64> = series.into_iter().flat_map(|(_, samples)| samples).map(|(at, _)| at).collect();
            ensure!(minutes.len() >= 2, "{minutes:?}");
            Ok(minutes)
        })
        .await;
        let path = "/api/v1/devices/b1-d01/history?time_range=1h&step=1m";
        let query = "device_ping_status%7Bdevice_id%3D%22b1-d01%22%7D";
        let answer = world.api().json(&format!("/api/v1/query?query={query}")).await.expect("an answer");
        assert_eq!(answer["data"]["result"][0]["value"][1], "1", "{answer}");
        let form = [("query", "max by (region) (device_ping_packet_loss)"), ("start", "NOW-300"), ("end", "NOW"), ("step", "60")];
        let now = now_ms() / 1_000;
        let form = form.map(|(name, value)| {
            let value = value.replace("NOW-300", &(now - 300).to_string()).replace("NOW", &now.to_string());
            (name, value)
        });
        let grafana = world.api().request(Method::POST, "/api/v1/query_range").form(&form).send().await.expect("an answer");
        let answer: Value = serde_json::from_str(&grafana.text().await.expect("a text")).expect("JSON");
        assert_eq!(answer["data"]["result"][0]["metric"]["region"], "r1", "{answer}");
        for (query, status) in [("sum(", 422), ("%7Bdevice_id%3D~%22%5C.%22%7D", 422), ("", 400)] {
            let response =
                world.api().request(Method::GET, &format!("/api/v1/query?query={query}")).send().await.expect("an answer");
            assert_eq!(response.status().as_u16(), status, "{query}");
            let answer: Value = serde_json::from_str(&response.text().await.expect("a text")).expect("JSON");
            assert_eq!(answer["status"], "error", "{answer}");
        }
        let regions = world.api().json("/api/v1/label/region/values").await.expect("an answer");
        assert_eq!(regions["data"], json!(["r1"]), "{regions}");

        promql_is_asked_with_the_callers_regions(&world).await.expect("the regions hold");

        // Nothing more comes, so the steps that aren't over stay as they are as well.
        world.agents.clear();
        let end = minutes.iter().max().copied().unwrap_or_default();
        let shapes = [
            (3_600_000, "1m"),
            (1_800_000, "3m"),
            (86_400_000, "5m"),
            (7 * 86_400_000, "15m"),
            (30 * 86_400_000, "1h"),
            (30 * 86_400_000, "7h"),
            (365 * 86_400_000, "24h"),
            (90_000, "1m"),
        ];
        let of =
            |(length, step): (i64, &str)| format!("/api/v1/devices/b1-d01/history?from={}&to={end}&step={step}", end - length);
        let mut from_victoria = Vec::new();
        for shape in shapes {
            let history = eventually(Duration::from_secs(90), "VictoriaMetrics answers", async || {
                let history = world.api().json(&of(shape)).await?;
                ensure!(history["source"] == "victoria_metrics", "{}", history["source"]);
                Ok(history)
            })
            .await;
            assert!(history["count"].as_u64() >= Some(1), "{shape:?}: {history}");
            from_victoria.push(history);
        }
        world.victoria.kill();
        // What is kept may still be told for half a step.
        for (shape, from_victoria) in shapes.into_iter().zip(from_victoria) {
            let embedded = eventually(Duration::from_secs(90), "the collector's own file answers", async || {
                let history = world.api().json(&of(shape)).await?;
                ensure!(history["source"] == "embedded", "{}", history["source"]);
                Ok(history)
            })
            .await;
            assert_eq!(from_victoria["points"], embedded["points"], "{shape:?}");
            let bounds = |history: &Value| ["from_ms", "to_ms", "step_ms", "count"].map(|field| history[field].clone());
            assert_eq!(bounds(&from_victoria), bounds(&embedded), "{shape:?}");
        }
        let began = Instant::now();
        for _ in 0..20 {
            world.api().json(path).await.expect("an answer");
        }
        assert!(began.elapsed() < Duration::from_secs(2), "a dead store costs {:?}", began.elapsed());
    });
}

/// What lies in another region, or in none, is no answer to any question of one who has a region.
async fn promql_is_asked_with_the_callers_regions(world: &World<'_>) -> Result<()> {
    // VictoriaMetrics hides the newest half minute.
    let now = now_ms() - 60_000;
    let elsewhere = format!("device_ping_status{{device_id=\"far\",region=\"elsewhere\"}} 1 {now}\nelsewhere_orphan 1 {now}\n");
    world.victoria.import(&elsewhere).await?;
    world.victoria.flush().await?;
    let body = json!({ "name": "grafana", "role": "viewer", "regions": ["r1"] });
    let made = world.api().request(Method::POST, "/api/v1/tokens").json(&body).send().await?;
    let made: Value = serde_json::from_str(&made.text().await?)?;
    let limited = Api::new(world.api().address(), made["token"].as_str().context("a token")?);
    let range = format!("start={}&end={}&step=60", now / 1_000 - 300, now / 1_000 + 60);
    let match_all = "%7B__name__!=%22%22%7D";
    let mut seen_by_all = 0;
    for path in [
        "/api/v1/query?query=device_ping_status".to_owned(),
        "/api/v1/query?query=device_ping_status%7Bregion%3D%22elsewhere%22%7D".to_owned(),
        "/api/v1/query?query=elsewhere_orphan".to_owned(),
        format!("/api/v1/query?query=count%20by%20(__name__,region)%20({match_all})"),
        "/api/v1/query?query=device_ping_status%7Bregion%3D%22r1%22%20or%20region%3D%22elsewhere%22%7D".to_owned(),
        "/api/v1/query?query=device_ping_status%20or%20elsewhere_orphan".to_owned(),
        "/api/v1/query?query=max_over_time(device_ping_status%5B5m%5D)".to_owned(),
        format!("/api/v1/query_range?query=max_over_time(device_ping_status%5B5m%5D)&{range}"),
        format!("/api/v1/series?match%5B%5D={match_all}"),
        "/api/v1/label/region/values".to_owned(),
        "/api/v1/label/__name__/values".to_owned(),
    ] {
        // What VictoriaMetrics doesn't understand tells nothing either.
        let ask = async |api: &Api| anyhow::Ok(api.request(Method::GET, &path).send().await?.text().await?);
        let without_the_question = |text: String| text.split("\"error\"").next().unwrap_or_default().to_owned();
        let answer = without_the_question(ask(&limited).await?);
        ensure!(!answer.contains("elsewhere"), "{path}: {answer}");
        seen_by_all += usize::from(without_the_question(ask(world.api()).await?).contains("elsewhere"));
    }
    ensure!(seen_by_all > 3, "{seen_by_all}: the test asks for what is there");
    ensure!(limited.json("/api/v1/query?query=device_ping_status").await?["data"]["result"][0].is_object(), "its own");
    Ok(())
}

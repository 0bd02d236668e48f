//! Counts, lists and availability, for 16 clients at a time, alone and beside hostile ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use ward_tests::figure::quantile;
use ward_tests::program::TOKEN;
use ward_tests::{Figure, now_ms};

use crate::asker::{Asker, crowd};
use crate::world::World;
use crate::{LARGE, SMALL, at};

const CLIENTS: usize = 16;
/// Questions of each client.
const TIMES: usize = 400;
/// Changes of the fleet while lists and counts are asked for: answers are made anew for them.
const CHANGES_EVERY: Duration = Duration::from_millis(100);
/// Questions about availability.
const SUMS: usize = 60;
/// One question in so many is hostile, and so many ask them: one that is left waiting for an answer holds its asker up.
const HOSTILE_SHARE: usize = 10;
const ATTACKERS: usize = 12;

const STATS: &str = "/api/v1/dashboard/stats";
const LIST: &str = "/api/v1/devices?limit=10000";

/// The goals of the counts and of the list, in ms.
fn goals(devices: usize) -> (Option<f64>, Option<f64>) {
    (at(devices, &[(SMALL, 2.0), (LARGE, 2.0)]), at(devices, &[(SMALL, 1.0), (LARGE, 5.0)]))
}

pub(crate) async fn measure(world: &World) -> Result<Vec<Figure>> {
    let n = world.devices;
    eprintln!("counts and lists, {CLIENTS} clients");
    let mut figures = beside_changes(world, "", &Arc::default()).await?;
    eprintln!("availability");
    let mut asker = Asker::connect(world.api.address()).await?;
    let (mut all, mut each) = (Vec::new(), Vec::new());
    for time in 0..SUMS + 3 {
        for (kind, took) in [("all", &mut all), ("device&limit=10000", &mut each)] {
            // Each asks for another time, so no answer can be at hand.
            let from = now_ms() - world.days * 86_400_000 + i64::try_from(time)?;
            let answered = asker.get(&format!("/api/v1/availability?from={from}&by={kind}")).await?;
            anyhow::ensure!(answered.status == 200, "availability: {}", answered.status);
            // The first time the transitions are read from the file.
            if time >= 3 {
                took.push(answered.took.as_secs_f64() * 1_000.0);
            }
        }
    }
    let goal = at(n, &[(SMALL, 5.0), (LARGE, 5.0)]);
    figures.push(Figure::low(format!("availability_p50_{n}"), quantile(&mut all, 0.5), "ms", None));
    figures.push(Figure::low(format!("availability_p95_{n}"), quantile(&mut all, 0.95), "ms", goal));
    figures.push(Figure::low(format!("availability_row_each_p95_{n}"), quantile(&mut each, 0.95), "ms", None));
    Ok(figures)
}

/// The same questions while one in ten is a hostile one.
pub(crate) async fn measure_beside_hostile(world: &World) -> Result<Vec<Figure>> {
    eprintln!("the same beside hostile clients");
    let (good, hostile, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let mut attackers = JoinSet::new();
    for _ in 0..ATTACKERS {
        let (good, hostile, stop) = (Arc::clone(&good), Arc::clone(&hostile), Arc::clone(&stop));
        let host = world.api.address().to_owned();
        attackers.spawn(async move {
            let mut held = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                if hostile.load(Ordering::Relaxed) * (HOSTILE_SHARE - 1) < good.load(Ordering::Relaxed) {
                    let number = hostile.fetch_add(1, Ordering::Relaxed);
                    attack(&host, number, &mut held).await;
                } else {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        });
    }
    let figures = beside_changes(world, "_hostile", &good).await?;
    stop.store(true, Ordering::Relaxed);
    while attackers.join_next().await.is_some() {}
    let (good, hostile) = (good.load(Ordering::Relaxed), hostile.load(Ordering::Relaxed));
    eprintln!("{hostile} hostile questions beside {good} good ones");
    anyhow::ensure!(hostile * HOSTILE_SHARE >= good, "fewer than one in {HOSTILE_SHARE} was hostile");
    Ok(figures)
}

async fn beside_changes(world: &World, suffix: &str, counted: &Arc<AtomicUsize>) -> Result<Vec<Figure>> {
    let n = world.devices;
    let (stats_goal, list_goal) = goals(n);
    let asked = async {
        let (mut stats, _) = crowd(world.api.address(), CLIENTS, TIMES, STATS, counted).await?;
        let (mut list, bytes) = crowd(world.api.address(), CLIENTS, TIMES, LIST, counted).await?;
        let figure = |name: &str, value, goal| Figure::low(format!("{name}_{n}{suffix}"), value, "ms", goal);
        Ok(vec![
            figure("stats_p50", quantile(&mut stats, 0.5), None),
            figure("stats_p99", quantile(&mut stats, 0.99), stats_goal),
            figure("list_p50", quantile(&mut list, 0.5), None),
            figure("list_p99", quantile(&mut list, 0.99), list_goal),
            Figure::low(format!("list_size_{n}{suffix}"), bytes as f64 / 1_000.0, "kB", None),
        ])
    };
    let changes = async {
        loop {
            tokio::time::sleep(CHANGES_EVERY).await;
            if let Err(error) = world.turn().await {
                return error;
            }
        }
    };
    tokio::select! {
        figures = asked => figures,
        error = changes => Err(error),
    }
}

/// Kinds of hostile questions; the last is one that never ends.
const KINDS: usize = 14;

/// One hostile question. What it is answered is for other tests to judge.
async fn attack(host: &str, number: usize, held: &mut Vec<TcpStream>) {
    let head =
        |method: &str, path: &str| format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {TOKEN}\r\n");
    let ask = |path: &str| format!("{}\r\n", head("GET", path));
    let send = |path: &str, kind: &str, body: &str| {
        format!("{}content-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}", head("POST", path), body.len())
    };
    let request = match number % KINDS {
        0 => ask(&format!("/api/v1/devices?{}", "status=up&".repeat(2_000))),
        1 => ask(&format!("/api/v1/devices?q={}", "%".repeat(30_000))),
        2 => ask("/api/v1/availability?from=-9223372036854775808&by=device"),
        3 => ask("/api/v1/devices/%00%ff/history?time_range=NaN"),
        4 => format!(
            "POST /api/v1/inventory/import HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer nobody\r\ncontent-length: 10000000\r\n\r\n{}",
            "x".repeat(10_000)
        ),
        5 => "GET / HTTP/9.9\r\n\u{0}\r\n\r\n".to_owned(),
        6 => ask(&format!("/api/v1/query?query={}", "sum(".repeat(3_000))),
        // Forty fragments, each of which stands twice in the one before.
        7 => {
            let fragments: String = (0..40).map(|n| format!("fragment f{n} on X {{ ...f{} ...f{} }} ", n + 1, n + 1)).collect();
            let query = format!("{{ fields {{ ...f0 }} }} {fragments}");
            send("/api/v1/graphql", "application/json", &serde_json::json!({ "query": query }).to_string())
        }
        8 => {
            let query = "{a".repeat(8_000);
            send("/api/v1/graphql", "application/json", &serde_json::json!({ "query": query }).to_string())
        }
        // Long before what is kept in memory.
        9 => ask("/api/v1/availability?by=device&from=1600000000000&to=1610000000000"),
        10 => ask("/api/v1/events?time_range=365d&limit=10000"),
        11 => send("/api/v1/inventory/import", "text/csv", &format!("{}\n{}", "x,".repeat(5_000), "x,,,,\n".repeat(5_000))),
        12 => format!(
            "{}connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            head("GET", &format!("/ws/updates?branch=made-up-{number}"))
        ),
        // Half a request, and then nothing.
        _ => "GET /api/v1/devices HT".to_owned(),
    };
    let Ok(mut stream) = TcpStream::connect(host).await else { return };
    // The server may have ended it by now, as it should.
    let _ = stream.write_all(request.as_bytes()).await;
    if number % KINDS == KINDS - 1 {
        held.push(stream);
        if held.len() > 200 {
            held.clear();
        }
        return;
    }
    let mut some = [0; 512];
    let _ = tokio::time::timeout(Duration::from_millis(100), stream.read(&mut some)).await;
}

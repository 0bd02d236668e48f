//! What an agent costs its line and its card while nothing happens: a branch of seven devices that is on line, one on a
//! metered line, and one that is cut off, side by side, between real servers, with TLS.
//!
//! `--minutes N` (61): how long is counted; a metered branch reports its qualities once an hour. `--json`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it prints what agents count beside the table")]
#![allow(missing_docs, reason = "a program")]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use ward_tests::agent::AgentSettings;
use ward_tests::collector::{Broker, CollectorSettings};
use ward_tests::estate::branch_id;
use ward_tests::figure::{Figure, print};
use ward_tests::program::Probe;
use ward_tests::{Agent, Card, Collector, Estate, Mosquitto, Net, Pki, eventually, lasting};

/// Devices of each branch.
const DEVICES: u8 = 7;
/// As ward probes where nothing else is configured.
const PROBE: Probe = Probe { interval_ms: 2_000, timeout_ms: 500, retry_ms: 500, fall: 3, rise: 2 };
/// The branches, what they stand for, and what each may cost a day: bytes on the line, and on the card.
const ON_LINE: u8 = 1;
const METERED: u8 = 2;
const CUT_OFF: u8 = 3;
/// Size of a card in MB.
const CARD_MB: u32 = 64;
/// Time for a start to be over: first verdicts, first acks.
const SETTLED: Duration = Duration::from_secs(60);
const DAY_MINUTES: f64 = 1_440.0;

fn main() -> Result<ExitCode> {
    let (mut minutes, mut as_json) = (61, false);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--minutes" => minutes = words.next().context("--minutes needs a number")?.parse()?,
            "--json" => as_json = true,
            "--bench" => {}
            other => bail!("{other} is not known: --minutes N, --json"),
        }
    }
    ensure!(minutes > 0, "--minutes must be positive");
    let net = Net::new(3, DEVICES);
    let (told, told_by_agents) = std::sync::mpsc::channel();
    net.at_the_centre(async || {
        let _ = told.send(measure(&net, minutes).await);
    });
    let (figures, counted) = told_by_agents.recv()??;
    let outcome = print(&figures, &json!({ "minutes": minutes }), as_json);
    if !as_json {
        counted.iter().for_each(|line| println!("{line}"));
    }
    Ok(outcome)
}

async fn measure(net: &Net, minutes: u64) -> Result<(Vec<Figure>, Vec<String>)> {
    let pki = Pki::new();
    let broker = Mosquitto::start(Net::CENTRE.into(), &pki.server(&[Net::CENTRE.into()])).await;
    let collector = Collector::start(CollectorSettings {
        tables: String::new(),
        broker: Broker::External(broker.access(&pki.client("collector"))),
        victoria_metrics: Vec::new(),
        probe: PROBE,
        silent_after: Duration::from_secs(30),
        report: Some("metered = [\"b2\"]"),
        estate: Estate::of(net),
        data_dir: None,
    })
    .await;
    let cards: Vec<Card> = (0..3).map(|_| Card::new(CARD_MB)).collect();
    let agents: Vec<Agent> = [ON_LINE, METERED, CUT_OFF]
        .into_iter()
        .zip(&cards)
        .map(|(b, card)| {
            Agent::start(AgentSettings {
                branch: branch_id(b),
                broker: broker.access(&pki.client(&branch_id(b))),
                probe: None,
                devices: Vec::new(),
                namespace: Some(net.branch(b)),
                state_dir: Some(card.path().join("state")),
                wrapper: Vec::new(),
            })
        })
        .collect();
    eventually(Duration::from_secs(60), "every device is up", async || {
        let stats = collector.api.stats().await?;
        ensure!(stats["up"] == 3 * u64::from(DEVICES), "{stats}");
        Ok(())
    })
    .await;
    net.wan_cut_silently(CUT_OFF);
    lasting(SETTLED).await;

    let line = |b| {
        let carried = net.wan_bytes(b);
        carried.up_bytes + carried.down_bytes
    };
    let before = [line(ON_LINE), line(METERED)];
    let written: Vec<u64> = cards.iter().map(Card::written_bytes).collect();
    for minute in 0..minutes {
        if minute % 10 == 0 {
            eprintln!("minute {minute} of {minutes}");
        }
        lasting(Duration::from_secs(60)).await;
    }
    let a_day = |bytes: u64| bytes as f64 * DAY_MINUTES / minutes as f64;
    let card = |at: usize| a_day(cards[at].written_bytes() - written[at]);
    let figure = |name: &str, bytes_a_day: f64, goal_kb| Figure::low(name, bytes_a_day / 1_000.0, "kB/day", Some(goal_kb));
    let figures = vec![
        figure("line_default_7_devices", a_day(line(ON_LINE) - before[0]), 1_000.0),
        figure("line_metered_7_devices", a_day(line(METERED) - before[1]), 150.0),
        figure("card_on_line", card(0), 1_000.0),
        figure("card_cut_off", card(2), 20_000.0),
    ];
    let branches = collector.api.json("/api/v1/branches").await?;
    let counted = branches["branches"].as_array().context("a list of branches")?;
    let counted = counted.iter().map(|branch: &Value| format!("{} counts itself: {}", branch["id"], branch["spent"])).collect();
    drop(agents);
    Ok((figures, counted))
}

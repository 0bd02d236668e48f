//! Grafana's dashboards: every expression, asked of a VictoriaMetrics that holds what ward writes, brings data.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use shared::Millis;
use ward_collector::inventory::parse_csv;
use ward_collector::samples::{Metric, Sample, encode};
use ward_tests::collector::{Broker, CollectorSettings};
use ward_tests::program::Probe;
use ward_tests::{Collector, Estate, Net, Victoria, eventually, now_ms};

use crate::promql::write;

const MINUTE_MS: i64 = 60_000;
const CSV: &str = "device_id,device_name,branch,branch_name,region,region_name,device_type,ip\n\
                   a,Vake router,vake,Vake,t,T,router,10.0.0.1\nb,Gldani ATM,gldani,Gldani,t,T,atm,10.0.0.1\n";

/// Two hours of two devices, of which b has been down for half an hour.
fn samples(now: i64) -> Vec<Sample> {
    let end = now / MINUTE_MS * MINUTE_MS;
    let mut out = Vec::new();
    for minute in 0..120 {
        for device in 0..2 {
            let is_up = device == 0 || minute >= 30;
            let mut push = |metric, value| out.push(Sample { device, metric, at: Millis(end - minute * MINUTE_MS), value });
            push(Metric::Status, f64::from(u8::from(is_up)));
            push(Metric::Info, 1.0);
            push(Metric::Loss, if is_up { 0.0 } else { 100.0 });
            if is_up {
                [Metric::RttMin, Metric::Rtt, Metric::RttMax].into_iter().zip([1.0, 2.0, 3.0]).for_each(|(m, v)| push(m, v));
            }
        }
    }
    out
}

/// What a scrape makes of the collector's own counts: the target's label takes the place of one of the same name.
/// Counts grow from scrape to scrape, by what they are.
fn scraped(text: &str, times: i64, at: i64) -> String {
    let lines = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (series, value) = line.rsplit_once(' ').expect("a series and its value");
        let series = series.replace("{job=", "{exported_job=").replace(",job=", ",exported_job=");
        let name = series.split('{').next().unwrap_or_default();
        let grows = ["_total", "_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end));
        let value: f64 = value.parse().expect("a number");
        format!("{series} {} {at}\n", if grows { value * times as f64 } else { value })
    });
    lines.chain([format!("up{{job=\"ward-collector\"}} 1 {at}\n")]).collect()
}

fn dashboards() -> Vec<(PathBuf, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../collector/grafana/dashboards");
    let entries = fs::read_dir(folder).expect("the folder stands in the tree").flatten().map(|entry| entry.path());
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a file");
        let board = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path, board)
    };
    entries.map(read).collect()
}

#[test]
fn every_expression_of_every_dashboard_brings_data() {
    let net = Net::new(1, 2);
    net.at_the_centre(async || {
        let victoria = Victoria::start().await;
        let settings = CollectorSettings {
            tables: String::new(),
            broker: Broker::Embedded,
            victoria_metrics: vec![victoria.url()],
            probe: Probe::BRISK,
            silent_after: Duration::from_secs(30),
            report: None,
            estate: Estate::of(&net),
            data_dir: None,
        };
        let collector = Collector::start(settings).await;
        let now = now_ms();
        let inventory = parse_csv("e", CSV).expect("good");
        let branch =
            |at: usize| inventory.branches.iter().find(|branch| branch.id == inventory.devices[at].branch).expect("there");
        let (body, _) = encode(&mut samples(now), Millis(now), |at| (&inventory.devices[at], branch(at)));
        write(&victoria.url(), &body);
        // A counter that never counted has no rate by its labels: a refused payload gives one. A job has to have ended once.
        let mut agent =
            ward_tests::Mqtt::connect("garbage", collector.embedded.as_ref().expect("its own broker")).await.expect("open");
        agent.publish("ward/1/b1/up", false, "garbage").await.expect("taken");
        let text = eventually(Duration::from_secs(60), "the collector counts", async || {
            let text = collector.api.text("/metrics").await?;
            ensure!(text.contains("ward_payloads_refused_total{") && text.contains("timestamp_seconds{job="), "not yet: {text}");
            Ok(text)
        })
        .await;
        for ago in (0..10).rev() {
            victoria.import(&scraped(&text, 10 - ago, now - ago * MINUTE_MS)).await.expect("taken");
        }

        let mut asked = 0;
        for (path, board) in dashboards() {
            let mut ids = Vec::new();
            for panel in board["panels"].as_array().expect("panels") {
                assert_eq!(panel["datasource"]["uid"], "ward", "{}", path.display());
                ids.push(panel["id"].as_u64().expect("a number"));
                for target in panel["targets"].as_array().expect("targets") {
                    let expr = target["expr"].as_str().expect("an expression");
                    let query = ["$region", "$branch", "$device_type"]
                        .iter()
                        .fold(expr.to_owned(), |text, name| text.replace(name, ".*"));
                    let query = query.replace("$__range", "2h").replace("$__rate_interval", "5m");
                    assert!(!query.contains('$'), "{}: nobody knows what stands for a variable of {expr}", path.display());
                    let series = victoria.query_range(&query, now - 3_600_000, now, 60).await;
                    let series = series.unwrap_or_else(|error| panic!("{}: {expr}: {error:#}", path.display()));
                    assert!(
                        series.iter().any(|(_, points)| !points.is_empty()),
                        "{}: {}: {expr} brings nothing",
                        path.display(),
                        panel["title"]
                    );
                    asked += 1;
                }
            }
            let count = ids.len();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), count, "{}: two panels have one number", path.display());
            for variable in board["templating"]["list"].as_array().expect("variables") {
                let query = variable["query"]["query"].as_str().expect("a query");
                let selector = query.trim_start_matches("label_values(").rsplit_once(", ").expect("a label").0;
                let selector = selector.replace("$region", ".*").replace("$branch", ".*");
                let series = victoria.series(&selector).await.expect("an answer");
                assert!(!series.is_empty(), "{}: {query} brings nothing", path.display());
            }
        }
        assert!(asked >= 40, "{asked} expressions");
    });
}

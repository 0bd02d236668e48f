//! The PromQL of docs/api.md, asked of a VictoriaMetrics that has what ward writes.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use shared::Millis;
use ward_collector::inventory::parse_csv;
use ward_collector::samples::{Metric, Sample, encode};
use ward_tests::{Victoria, now_ms};

const MINUTE: i64 = 60_000;
const CSV: &str = "device_id,device_name,branch,branch_name,region,region_name,device_type,ip\n\
                   a,Vake router,vake,Vake,t,T,router,10.0.0.1\nb,Gldani ATM,gldani,Gldani,t,T,atm,10.0.0.1\n";

/// What is asked, by the words of the document.
fn documented() -> BTreeMap<String, String> {
    let text = include_str!("../../docs/api.md");
    let (_, section) = text.split_once("### The same in PromQL").expect("a section");
    let (section, _) = section.split_once("\n## ").expect("another one after it");
    let row = |line: &str| {
        let (question, query) = line.strip_prefix("| ")?.split_once(" | `")?;
        Some((question.to_owned(), query.strip_suffix("` |")?.to_owned()))
    };
    section.lines().filter_map(row).collect()
}

/// Twenty hours: a is up, and b is down for ten minutes of each of the last six.
fn samples(now: i64) -> Vec<Sample> {
    let end = now / MINUTE * MINUTE;
    let mut out = Vec::new();
    for minute in 0..1_200 {
        let at = Millis(end - minute * MINUTE);
        let is_down = (5..360).contains(&minute) && minute % 60 < 10;
        for (device, is_up, rtt) in [(0, true, 10.0), (1, !is_down, 50.0)] {
            out.push(Sample { device, metric: Metric::Status, at, value: f64::from(u8::from(is_up)) });
            out.push(Sample { device, metric: Metric::Info, at, value: 1.0 });
            if is_up {
                out.push(Sample { device, metric: Metric::Rtt, at, value: rtt });
            }
        }
    }
    out
}

/// Sends a remote-write request.
pub(crate) fn write(url: &str, body: &[u8]) {
    let host = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).expect("it listens");
    let head = format!(
        "POST /api/v1/write HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Encoding: snappy\r\n\
         Content-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
}

#[tokio::test]
async fn the_documented_promql_answers_what_ward_writes() {
    let victoria = Victoria::start().await;
    let now = now_ms();
    let inventory = parse_csv("e", CSV).expect("good");
    let branch = |at: usize| inventory.branches.iter().find(|branch| branch.id == inventory.devices[at].branch).expect("there");
    let (body, _) = encode(&mut samples(now), Millis(now), |at| (&inventory.devices[at], branch(at)));
    write(&victoria.url(), &body);
    let mut queries = documented();
    let mut ask = async |question: &str, label: &str| -> Vec<(String, f64)> {
        let query = queries.remove(question).unwrap_or_else(|| panic!("{question} isn't documented"));
        let series = victoria.query_range(&query, now, now, 60).await.unwrap_or_else(|error| panic!("{query}: {error:#}"));
        let mut found: Vec<(String, f64)> = series
            .into_iter()
            .filter_map(|(labels, points)| Some((labels.get(label).cloned().unwrap_or_default(), points.last()?.1)))
            .collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    };
    let near = |found: &[(String, f64)], expected: &[(&str, f64)], by: f64| {
        let is_near =
            found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() <= by);
        assert!(is_near, "{found:?}, not {expected:?}");
    };
    near(&ask("devices above 99.9 %", "device_id").await, &[("a", 1.0)], 0.0);
    // Of 1,200 minutes b was down in 55.
    near(&ask("uptime of each branch in percent", "branch").await, &[("gldani", 95.4), ("vake", 100.0)], 0.2);
    // A series that begins counts as a change in VictoriaMetrics.
    near(&ask("devices with more than 10 changes a day", "device_id").await, &[("b", 12.0)], 1.0);
    near(&ask("the 10 that change most", "device_id").await, &[("a", 0.0), ("b", 12.0)], 1.0);
    near(&ask("95th percentile of round trips by type", "device_type").await, &[("atm", 50.0), ("router", 10.0)], 0.001);
    near(&ask("with names", "device_name").await, &[("Gldani ATM", 12.0), ("Vake router", 0.0)], 1.0);
    assert!(queries.is_empty(), "nobody asks {queries:?}");
}

//! Batches that share a commit leave what they would have left one by one.

mod desk;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use shared::wire::encode;
use shared::{Batch, Body, Cause, Column, Lane, Minute, Qualities, Status, Uptime};
use ward_collector::ingest::Command;
use ward_collector::store::Store;

use desk::{BOOT, Desk, batch, boot, change, gap, heartbeat, payload};

/// What an agent says, by a seed: runs, changes, minutes, losses, repetitions and heartbeats, for a few minutes.
fn told(rng: &mut SmallRng) -> Vec<(u64, Vec<u8>, Lane)> {
    let (mut stream, mut next, mut at) = (1, 1, 1_000);
    let mut out: Vec<(u64, Vec<u8>, Lane)> = Vec::new();
    let mut sent: Vec<Batch> = Vec::new();
    for _ in 0..rng.random_range(5..40) {
        at += rng.random_range(10..20_000);
        let mut bodies = Vec::new();
        if next == 1 {
            bodies.push(boot(stream));
        }
        for _ in 0..rng.random_range(1..4) {
            let device = ["m1", "m2", "elsewhere"][rng.random_range(0..3)];
            let statuses = [Status::Up, Status::Down, Status::Unknown(Cause::ProbeError)];
            let onset = at - rng.random_range(0..at.min(8_000));
            bodies.push(match rng.random_range(0..10) {
                0..6 => change(device, statuses[rng.random_range(0..3)], onset),
                6..9 => minutes(device, at, rng.random_range(1..4)),
                _ => gap(rng.random_range(1..5), onset, at, rng.random_range(0..2)),
            });
        }
        match rng.random_range(0..20) {
            // A new run begins, and what the last one had to say is known.
            0 => {
                (stream, next) = (stream + 1, 1);
                continue;
            }
            // Some are lost for good.
            1 => next += rng.random_range(1..5),
            2 | 3 => {
                let Some(before) = sent.get(rng.random_range(0..sent.len().max(1))) else { continue };
                out.push((at, encode(before).expect("small"), Lane::Up));
                continue;
            }
            4 | 5 => {
                let Command::Payload { bytes, .. } = heartbeat(stream, BOOT, next - 1, at) else { continue };
                out.push((at, bytes.to_vec(), Lane::Live));
                continue;
            }
            _ => {}
        }
        let batch = batch(stream, BOOT, next, at, bodies);
        next = batch.group.last() + 1;
        out.push((at, encode(&batch).expect("small"), Lane::Up));
        sent.push(batch);
    }
    out
}

fn minutes(device: &str, at: u64, n: usize) -> Body {
    let minute = Minute { sent: 30, lost: 30, rtt: None };
    let column = Column::pack(device.parse().expect("an id"), &vec![minute; n], 10);
    let first_end = Uptime(at.saturating_sub((n as u64 - 1) * 60_000).max(1));
    Body::Qualities(Qualities { first_end, unit_us: 10, columns: vec![column] })
}

/// Every row of the ledger, what is shown, and every sample.
fn state(desk: &Desk) -> Vec<String> {
    let store = Store::open(desk.folder.path()).expect("the file opens");
    let mut out = vec![desk.shown("m1"), desk.shown("m2")];
    for sql in [
        "select stream, through, began_ms, observed_ms, error_ms, boot from stream order by no",
        "select device, stream, seq, onset_ms, from_status, to_status, last_ok_ms from transition order by stream, seq",
        "select * from gap order by stream, first_seq",
        "select * from minute order by device, minute",
    ] {
        let mut statement = store.connection().prepare(sql).expect("the schema");
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            let cell = |i| row.get::<_, rusqlite::types::Value>(i).map(|value| format!("{value:?}"));
            Ok((0..columns).map(cell).collect::<Result<Vec<_>, _>>()?.join(" "))
        });
        out.extend(rows.expect("readable").collect::<Result<Vec<_>, _>>().expect("readable"));
    }
    let mut bodies = store.connection().prepare("select body from outbox order by id").expect("the schema");
    let bodies = bodies.query_map([], |row| row.get::<_, Vec<u8>>(0)).expect("readable");
    let mut samples: Vec<String> = bodies.flat_map(|body| points(&body.expect("readable"))).collect();
    samples.sort();
    out.extend(samples);
    out
}

/// The points of a remote-write request, each with its labels.
fn points(body: &[u8]) -> Vec<String> {
    let plain = snap::raw::Decoder::new().decompress_vec(body).expect("snappy");
    let mut out = Vec::new();
    for (_, series) in fields(&plain) {
        let parts = fields(series);
        let labels: Vec<String> =
            parts.iter().filter(|(n, _)| *n == 1).map(|(_, label)| String::from_utf8_lossy(label).into_owned()).collect();
        let points = parts.iter().filter(|(n, _)| *n == 2);
        out.extend(points.map(|(_, point)| format!("{} {point:?}", labels.join(","))));
    }
    out
}

/// The length-delimited fields of a protobuf message.
fn fields(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut out = Vec::new();
    while let Some((head, rest)) = bytes.split_first() {
        let (mut length, mut shift, mut rest) = (0usize, 0, rest);
        while let Some((byte, after)) = rest.split_first() {
            rest = after;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let (field, after) = rest.split_at(length);
        out.push((head >> 3, field));
        bytes = after;
    }
    out
}

#[test]
fn batches_that_share_a_commit_leave_what_they_would_have_left_one_by_one() {
    for seed in 0..100 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let told = told(&mut rng);
        let (mut alone, mut together) = (Desk::new(), Desk::new());
        // All of it waited: it is handled at one time.
        let now = BOOT + told.last().map_or(0, |(at, ..)| i64::try_from(*at).expect("small")) + 1_000;
        (alone.now, together.now) = (now, now);
        let command = |(_, bytes, lane): &(u64, Vec<u8>, Lane)| payload(*lane, bytes.clone());
        let (mut singly, mut jointly) = (None, None);
        for said in &told {
            singly = alone.handle(vec![command(said)]).or(singly);
        }
        let mut rest = told.as_slice();
        while !rest.is_empty() {
            let (group, after) = rest.split_at(rng.random_range(1..=rest.len()));
            jointly = together.handle(group.iter().map(command).collect()).or(jointly);
            rest = after;
        }
        let (alone, together) = (state(&alone), state(&together));
        for (a, b) in alone.iter().zip(&together) {
            assert_eq!(a, b, "seed {seed}");
        }
        assert_eq!(alone.len(), together.len(), "seed {seed}");
        let through = |ack: Option<shared::Ack>| ack.map(|ack| (ack.stream, ack.through));
        assert_eq!(through(singly), through(jointly), "seed {seed}");
    }
}

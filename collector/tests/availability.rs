//! What availability says of ledgers whose figures were worked out by hand, and of those that change late.

mod desk;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use shared::{Batch, Body, Cause, Dating, Millis, Status};
use tokio_util::sync::CancellationToken;
use ward_collector::api::auth::Token;
use ward_collector::availability::report::{Asked, By, Filter, Row, rows};
use ward_collector::availability::spans::Span;
use ward_collector::availability::timeline::{Seen, Timeline};
use ward_collector::availability::timelines::{Loaded, Timelines};
use ward_collector::availability::{Tally, tally};
use ward_collector::collector::Collector;
use ward_collector::feed::Notes;
use ward_collector::fleet::Fleet;
use ward_collector::ingest::Command;
use ward_collector::inventory::{Branch, Device, parse_csv};
use ward_collector::outage;
use ward_collector::schedule::{self, Hours, LeftOut, Rule, Scope, Weekly, Window};
use ward_collector::settings::Settings;
use ward_collector::store::{self, Change, Edit, InventoryEdit, Readers, ScheduleEdit, Store};

use desk::{BOOT, Desk, boot, change, gap, heartbeat};

const HOUR: i64 = 3_600_000;

/// A batch that doesn't say when it was sent, as what it tells is long ago, and that is dated exactly.
fn batch(stream: u64, boot_at: i64, first: u64, at: u64, bodies: Vec<Body>) -> Batch {
    let dating = Dating::Fixed { boot_at: Millis(boot_at), error_ms: 0 };
    Batch { sent: None, dating, ..desk::batch(stream, boot_at, first, at, bodies) }
}

fn at(text: &str) -> Millis {
    text.parse().expect("a time")
}

fn month(text: &str, zone: &str) -> Span {
    schedule::month(text, &schedule::zone(zone).expect("a zone")).expect("a month")
}

/// A desk whose clock stands at a time.
fn desk_at(now: &str) -> Desk {
    let mut desk = Desk::new();
    desk.now = at(now).0;
    desk
}

/// A run of the branch's agent from one time to another, with changes such as `m1 down 2026-10-05T10:00:00Z`.
fn run(desk: &mut Desk, stream: u64, from: &str, to: &str, changes: &[&str]) {
    let from = at(from);
    let uptime = |text: &str| at(text).since(from).unsigned_abs();
    desk.take(&batch(stream, from.0, 1, 0, vec![boot(stream)]));
    let bodies = changes.iter().map(|line| told(line, from)).collect();
    let ack = desk.take(&batch(stream, from.0, 2, uptime(to), bodies)).expect("an ack");
    assert_eq!(ack.through, changes.len() as u64 + 1);
}

fn told(line: &str, boot: Millis) -> Body {
    let mut words = line.split(' ');
    let mut word = || words.next().expect("device status time");
    let (device, status) = (word(), word());
    let to = match status {
        "up" => Status::Up,
        "down" => Status::Down,
        _ => Status::Unknown(Cause::ProbeError),
    };
    change(device, to, at(word()).since(boot).unsigned_abs())
}

fn answer(desk: &Desk, by: By, span: Span) -> Vec<Row> {
    let (readers, now) = (Readers::new(desk.folder.path()), Millis(desk.now));
    desk.live.load_timelines(&readers, |_| true, now).expect("readable");
    let late = readers.read(|db| store::late(db, span)).expect("readable");
    rows(&desk.live.fleet(), &desk.live.timelines(), &late, by, &Filter::default(), Asked::new(span, now))
}

fn text(rows: &[Row]) -> Vec<String> {
    let hours = |ms: i64| ms as f64 / HOUR as f64;
    rows.iter()
        .map(|row| {
            let t = &row.tally;
            format!(
                "{}: up {} down {} unknown {} maintenance {}, {} outages, {} {}",
                row.key,
                hours(t.up_ms),
                hours(t.down_ms),
                hours(t.unknown_ms),
                hours(t.maintenance_ms),
                t.outages,
                if row.is_final { "final" } else { "provisional" },
                row.revision
            )
        })
        .collect()
}

fn edit(desk: &mut Desk, edit: ScheduleEdit) -> i64 {
    let (answer, done) = tokio::sync::oneshot::channel();
    desk.handle(vec![Command::Edit(Change { actor: "somebody".into(), edit: Edit::Schedule(edit) }, answer)]);
    done.blocking_recv().expect("an answer").expect("taken")
}

fn window(scope: Scope, from: &str, to: &str) -> ScheduleEdit {
    ScheduleEdit::AddWindow(Window {
        id: 0,
        scope,
        span: Span::new(at(from), at(to)),
        reason: "works".into(),
        created: Millis(0),
    })
}

fn hours(zone: &str, days: &str, from: &str, to: &str, holidays: &[&str]) -> ScheduleEdit {
    let weekly = vec![Weekly { days: days.split(',').map(str::to_owned).collect(), from: from.into(), to: to.into() }];
    let rule = Rule { time_zone: zone.into(), weekly, holidays: holidays.iter().map(|&day| day.to_owned()).collect() };
    ScheduleEdit::AddHours(Hours {
        id: 0,
        scope: Scope::All,
        valid: Span::new(Millis(0), Millis(i64::MAX)),
        rule,
        created: Millis(0),
    })
}

#[test]
fn a_month_in_tbilisi_and_one_in_berlin_by_hand() {
    let mut desk = desk_at("2026-11-02T00:00:00Z");
    run(
        &mut desk,
        1,
        "2026-09-20T00:00:00Z",
        "2026-11-01T12:00:00Z",
        &[
            "m1 up 2026-09-20T00:00:00Z",
            // Down across the month's beginning, by either zone: 20:00 and 22:00 on 30 September.
            "m1 down 2026-09-30T10:00:00Z",
            "m1 up 2026-10-01T10:00:00Z",
            "m1 down 2026-10-15T10:00:00Z",
            "m1 up 2026-10-15T11:30:00Z",
            // And across the end: 20:00 and 23:00 on 31 October.
            "m1 down 2026-10-31T18:00:00Z",
            "m1 up 2026-11-01T06:00:00Z",
            "m2 up 2026-10-10T00:00:00Z",
        ],
    );
    // 744 h: down 14 + 1.5 + 2. m2 was first seen 220 h after the beginning.
    assert_eq!(
        text(&answer(&desk, By::Device, month("2026-10", "Asia/Tbilisi"))),
        [
            "m1: up 726.5 down 17.5 unknown 0 maintenance 0, 3 outages, final 1",
            "m2: up 524 down 0 unknown 220 maintenance 0, 0 outages, final 1"
        ]
    );
    // 745 h: down 12 + 1.5 + 5.
    let berlin = answer(&desk, By::Device, month("2026-10", "Europe/Berlin"));
    assert_eq!(text(&berlin[..1]), ["m1: up 726.5 down 18.5 unknown 0 maintenance 0, 3 outages, final 1"]);
    let m1 = &berlin[0].tally;
    // 726.5 / 745 is 97.51677...
    assert_eq!((m1.availability(), m1.coverage()), (Some(97.5167), Some(100.0)));
    assert_eq!((m1.mttr_ms(), m1.mtbf_ms(), m1.longest_ms), (Some(22_200_000), Some(871_800_000), 12 * HOUR));
    let all = answer(&desk, By::All, month("2026-10", "Europe/Berlin"));
    // m2: 523 h to the end of 31 October in Berlin... and 218 h before it was seen.
    assert_eq!(text(&all), ["all: up 1253.5 down 18.5 unknown 218 maintenance 0, 3 outages, final 1"]);
    assert_eq!(all[0].tally.longest_ms, 12 * HOUR);
}

#[test]
fn a_leap_day_counts() {
    let mut desk = desk_at("2028-03-02T00:00:00Z");
    run(
        &mut desk,
        1,
        "2028-01-30T00:00:00Z",
        "2028-03-01T12:00:00Z",
        &[
            "m1 up 2028-01-30T00:00:00Z",
            "m2 up 2028-01-30T00:00:00Z",
            "m1 down 2028-02-29T00:00:00Z",
            "m1 up 2028-02-29T06:00:00Z",
        ],
    );
    let february = month("2028-02", "Asia/Tbilisi");
    assert_eq!(text(&answer(&desk, By::Branch, february)), ["m: up 1386 down 6 unknown 0 maintenance 0, 1 outages, final 1"]);
}

#[test]
fn windows_that_overlap_and_service_hours_leave_out_by_event_time() {
    let mut desk = desk_at("2026-10-20T00:00:00Z");
    run(
        &mut desk,
        1,
        "2026-10-01T00:00:00Z",
        "2026-10-19T00:00:00Z",
        &[
            "m1 up 2026-10-01T00:00:00Z",
            "m2 up 2026-10-01T00:00:00Z",
            "m1 down 2026-10-12T08:00:00Z",
            "m1 up 2026-10-12T16:00:00Z",
        ],
    );
    let day = Span::new(at("2026-10-12T00:00:00Z"), at("2026-10-13T00:00:00Z"));
    let mut check = |edits: Vec<ScheduleEdit>, m1: &str, m2: &str| {
        let made: Vec<ScheduleEdit> = edits
            .into_iter()
            .map(|add| match (&add, edit(&mut desk, add.clone())) {
                (ScheduleEdit::AddHours(_), id) => ScheduleEdit::RemoveHours(id),
                (_, id) => ScheduleEdit::RemoveWindow(id),
            })
            .collect();
        let found: Vec<String> = text(&answer(&desk, By::Device, day))
            .iter()
            .map(|row| row.split(", final").next().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(found, [m1, m2]);
        for take_back in made {
            edit(&mut desk, take_back);
        }
    };
    let id = |text: &str| text.parse().expect("an id");
    check(vec![], "m1: up 16 down 8 unknown 0 maintenance 0, 1 outages", "m2: up 24 down 0 unknown 0 maintenance 0, 0 outages");
    // 07-10 for all and 09-12 for m1: 5 h, of which m1 was down for four.
    check(
        vec![
            window(Scope::All, "2026-10-12T07:00:00Z", "2026-10-12T10:00:00Z"),
            window(Scope::Device("m1".parse().expect("an id")), "2026-10-12T09:00:00Z", "2026-10-12T12:00:00Z"),
        ],
        "m1: up 15 down 4 unknown 0 maintenance 5, 1 outages",
        "m2: up 21 down 0 unknown 0 maintenance 3, 0 outages",
    );
    // By region, branch and type; another branch's window is nobody's here.
    for scope in [Scope::Region(id("r")), Scope::Branch(id("m")), Scope::Type(id("atm"))] {
        check(
            vec![
                window(scope, "2026-10-12T08:00:00Z", "2026-10-12T16:00:00Z"),
                window(Scope::Branch(id("x")), "2026-10-12T00:00:00Z", "2026-10-12T05:00:00Z"),
            ],
            "m1: up 16 down 0 unknown 0 maintenance 8, 0 outages",
            "m2: up 16 down 0 unknown 0 maintenance 8, 0 outages",
        );
    }
    // 09:00-18:00 in Tbilisi is 05:00-14:00: 9 h, of which m1 was down for six. The 12th is a Monday.
    check(
        vec![hours("Asia/Tbilisi", "mon,tue", "09:00", "18:00", &[])],
        "m1: up 3 down 6 unknown 0 maintenance 15, 1 outages",
        "m2: up 9 down 0 unknown 0 maintenance 15, 0 outages",
    );
    check(
        vec![hours("Asia/Tbilisi", "mon,tue", "09:00", "18:00", &["2026-10-12"])],
        "m1: up 0 down 0 unknown 0 maintenance 24, 0 outages",
        "m2: up 0 down 0 unknown 0 maintenance 24, 0 outages",
    );
}

#[test]
fn a_time_is_provisional_until_its_end_is_known_then_final_and_late_data_revises_it() {
    let mut desk = desk_at("2026-10-09T00:00:00Z");
    let october = month("2026-10", "UTC");
    let check = |desk: &Desk, expected: &str| assert_eq!(text(&answer(desk, By::Branch, october)), [expected]);
    run(
        &mut desk,
        1,
        "2026-09-25T00:00:00Z",
        "2026-10-08T00:00:00Z",
        &["m1 up 2026-09-25T00:00:00Z", "m2 up 2026-09-25T00:00:00Z"],
    );
    // The month up to now: 8 days, of which the last is not known yet.
    check(&desk, "m: up 336 down 0 unknown 48 maintenance 0, 0 outages, provisional 1");
    desk.now = at("2026-11-02T00:00:00Z").0;
    run(
        &mut desk,
        3,
        "2026-10-10T00:00:00Z",
        "2026-11-01T00:00:00Z",
        &["m1 up 2026-10-10T00:00:00Z", "m2 up 2026-10-10T00:00:00Z"],
    );
    check(&desk, "m: up 1392 down 0 unknown 96 maintenance 0, 0 outages, final 1");
    // The run between the two comes late, and has seen m1 down.
    run(
        &mut desk,
        2,
        "2026-10-08T00:00:00Z",
        "2026-10-10T00:00:00Z",
        &["m1 down 2026-10-08T12:00:00Z", "m2 up 2026-10-08T00:00:00Z"],
    );
    check(&desk, "m: up 1440 down 36 unknown 12 maintenance 0, 1 outages, final 2");
    let september = month("2026-09", "UTC");
    assert!(answer(&desk, By::Branch, september).iter().all(|row| row.revision == 1));
    // A window that is agreed on afterwards revises it too.
    edit(&mut desk, window(Scope::All, "2026-10-08T12:00:00Z", "2026-10-09T00:00:00Z"));
    check(&desk, "m: up 1428 down 24 unknown 12 maintenance 24, 1 outages, final 3");
    // And it is the same after a restart.
    let desk = desk.restarted();
    check(&desk, "m: up 1428 down 24 unknown 12 maintenance 24, 1 outages, final 3");
}

#[test]
fn a_device_that_is_moved_or_removed_revises_the_months_that_it_changes() {
    let mut desk = desk_at("2026-11-05T00:00:00Z");
    let october = month("2026-10", "UTC");
    let up = ["m1 up 2026-09-25T00:00:00Z", "m2 up 2026-09-25T00:00:00Z"];
    run(&mut desk, 1, "2026-09-25T00:00:00Z", "2026-11-04T00:00:00Z", &up);
    let check = |desk: &Desk, expected: &[&str]| assert_eq!(text(&answer(desk, By::Branch, october)), expected);
    check(&desk, &["m: up 1488 down 0 unknown 0 maintenance 0, 0 outages, final 1"]);
    let change = |desk: &mut Desk, edit: InventoryEdit| {
        let (answer, done) = tokio::sync::oneshot::channel();
        desk.now += HOUR;
        desk.handle(vec![Command::Edit(Change { actor: "somebody".into(), edit: Edit::Inventory(edit) }, answer)]);
        done.blocking_recv().expect("an answer").expect("taken");
    };
    let device = |desk: &Desk| {
        let fleet = desk.live.fleet();
        fleet.devices[fleet.device(&"m1".parse().expect("an id")).expect("there")].info.clone()
    };
    // Another name or address changes no figure.
    let renamed = Device { name: "Other".into(), ..device(&desk) };
    change(&mut desk, InventoryEdit::SetDevice(renamed));
    check(&desk, &["m: up 1488 down 0 unknown 0 maintenance 0, 0 outages, final 1"]);
    let branch = desk.live.fleet().branches[0].info.clone();
    change(&mut desk, InventoryEdit::AddBranch(Branch { id: "n".parse().expect("an id"), name: "N".into(), ..branch }));
    let moved = Device { branch: "n".parse().expect("an id"), ..device(&desk) };
    change(&mut desk, InventoryEdit::SetDevice(moved));
    let gone = "n: up 0 down 0 unknown 744 maintenance 0, 0 outages, provisional 1";
    check(&desk, &["m: up 744 down 0 unknown 0 maintenance 0, 0 outages, final 2", gone]);
    let added = Device {
        id: "m3".parse().expect("an id"),
        ip: "10.0.0.3".parse().expect("an address"),
        branch: "m".parse().expect("an id"),
        ..device(&desk)
    };
    change(&mut desk, InventoryEdit::AddDevice(added));
    check(&desk, &["m: up 744 down 0 unknown 744 maintenance 0, 0 outages, final 3", gone]);
    change(&mut desk, InventoryEdit::RemoveDevice("m3".parse().expect("an id")));
    check(&desk, &["m: up 744 down 0 unknown 0 maintenance 0, 0 outages, final 4", gone]);
    // A month that was not over, or that nobody was told of as final, has only one.
    assert!(answer(&desk, By::Branch, month("2026-11", "UTC")).iter().all(|row| row.revision == 1));
    // A whole file does the same.
    desk.now += HOUR;
    let file = parse_csv("e.csv", desk::CSV).expect("good");
    let mut store = Store::open(desk.folder.path()).expect("opens");
    store.transaction(|db| store::import_by(db, store::CLI, &file, Millis(desk.now), &mut |_| {})).expect("imported");
    let line = store::audit(store.connection(), None, 1).expect("readable").remove(0);
    assert_eq!((line.actor.as_str(), line.action.as_str(), line.at), ("cli", "inventory.import", Millis(desk.now)));
    drop(store);
    desk.handle(vec![Command::Reload]);
    check(&desk, &["m: up 1488 down 0 unknown 0 maintenance 0, 0 outages, final 5"]);
}

#[test]
fn what_was_lost_is_unknown_and_what_is_told_anew_counts_from_there() {
    let mut desk = desk_at("2026-10-02T00:00:00Z");
    let boot_at = "2026-10-01T00:00:00Z";
    run(&mut desk, 1, boot_at, "2026-10-01T06:00:00Z", &["m1 up 2026-10-01T00:00:00Z", "m2 up 2026-10-01T00:00:00Z"]);
    let uptime = |hours: u64| hours * HOUR.unsigned_abs();
    desk.take(&batch(1, at(boot_at).0, 4, uptime(8), vec![gap(3, uptime(6), uptime(8), 1)]));
    let bodies = vec![told("m1 up 2026-10-01T00:00:00Z", at(boot_at)), told("m2 down 2026-10-01T07:00:00Z", at(boot_at))];
    desk.take(&batch(1, at(boot_at).0, 7, uptime(12), bodies));
    let day = Span::new(at(boot_at), at("2026-10-01T12:00:00Z"));
    assert_eq!(
        text(&answer(&desk, By::Device, day)),
        [
            "m1: up 10 down 0 unknown 2 maintenance 0, 0 outages, final 1",
            "m2: up 6 down 4 unknown 2 maintenance 0, 1 outages, final 1"
        ]
    );
    // The history says the same.
    let store = Store::open(desk.folder.path()).expect("opens");
    let covered = store::covered(store.connection(), "m").expect("readable");
    let history = |no| {
        let changes = store::changes(store.connection(), no, day.from, day.to).expect("readable");
        let hours = |at: Millis| at.since(day.from) / HOUR;
        let intervals = outage::intervals(&changes, &covered, day.from, day.to);
        let text: Vec<String> =
            intervals.iter().map(|part| format!("{} {}-{}", part.status.as_str(), hours(part.from), hours(part.to))).collect();
        (
            text.join(" "),
            outage::outages(&changes, &covered, day.from, day.to).iter().map(|one| hours(one.from)).collect::<Vec<_>>(),
        )
    };
    assert_eq!(history(1), ("up 0-6 unknown 6-8 up 8-12".to_owned(), vec![]));
    assert_eq!(history(2), ("up 0-6 unknown 6-8 down 8-12".to_owned(), vec![7]));
}

#[test]
fn a_large_estate_that_cores_share_gives_what_each_branch_gives() {
    let mut csv = String::from("device_id,device_name,branch,branch_name,region,region_name,device_type,ip\n");
    for at in 0..3_000 {
        let (branch, kind) = (at / 7, ["atm", "nvr", "router"][at % 3]);
        csv += &format!("d{at},D,b{branch},B,r{},R,{kind},10.0.0.{}\n", branch % 5, at % 7 + 1);
    }
    let inventory = parse_csv("e", &csv).expect("good");
    let mut fleet = Fleet::new(30_000);
    fleet.set_inventory(&inventory, &(1..=3_000).collect::<Vec<u32>>());
    let mut rng = SmallRng::seed_from_u64(3);
    let mut lines = Timelines::default();
    for branch in &fleet.branches {
        let mut loaded = Loaded {
            head: Some((shared::StreamId(1), Millis(0), 1, Millis(900 + rng.random_range(0..200)))),
            ..Loaded::default()
        };
        for device in &branch.devices {
            let mut line = Timeline::default();
            for _ in 0..rng.random_range(0..9) {
                line.push(Millis(rng.random_range(0..1_000)), [Seen::Up, Seen::Down, Seen::Unknown][rng.random_range(0..3)]);
            }
            loaded.lines.push((fleet.devices[*device].no, line));
        }
        lines.install(&branch.info.id, 0, loaded, Millis(1_000));
    }
    let asked = Asked::new(Span::new(Millis(10), Millis(1_000)), Millis(2_000));
    let ask = |by, filter: &Filter| rows(&fleet, &lines, &Default::default(), by, filter, asked);
    let whole = ask(By::All, &Filter::default());
    for by in [By::Region, By::Branch, By::Type, By::Device] {
        let parts = ask(by, &Filter::default());
        let mut sum = Tally::default();
        parts.iter().for_each(|row| sum.add(&row.tally));
        assert_eq!(sum, whole[0].tally);
        assert_eq!(parts.iter().all(|row| row.is_final), whole[0].is_final);
        assert!(parts.is_sorted_by(|a, b| a.key < b.key), "each stands there once");
    }
    // A region has fewer devices than are shared: it is counted by one core.
    for row in ask(By::Region, &Filter::default()) {
        let alone = ask(By::All, &Filter { region: Some(row.key.clone()), ..Filter::default() });
        assert_eq!(
            (alone[0].tally, alone[0].is_final, alone[0].observed_through),
            (row.tally, row.is_final, row.observed_through)
        );
    }
}

/// What an agent says, by a seed: runs that follow one another or come late, changes, losses and repetitions.
fn talk(desk: &mut Desk, rng: &mut SmallRng) {
    let (mut stream, mut next, mut at) = (1, 1, 1_000u64);
    let mut sent = Vec::new();
    for _ in 0..rng.random_range(5..40) {
        at += rng.random_range(10..20_000);
        match rng.random_range(0..20) {
            0 => {
                (stream, next) = (stream + 1, 1);
                continue;
            }
            1 => next += rng.random_range(1..5),
            // An earlier run comes late.
            2 => {
                let boot_at = BOOT - rng.random_range(0..100_000);
                let late = 100 + rng.random_range(0..3);
                desk.take(&batch(late, boot_at, 1, 5_000, vec![boot(late), change("m1", Status::Down, 1_000)]));
            }
            3 | 4 => {
                let again: Option<&shared::Batch> = sent.get(rng.random_range(0..sent.len().max(1)));
                if let Some(batch) = again {
                    desk.take(batch);
                }
            }
            5 | 6 => drop(desk.handle(vec![heartbeat(stream, BOOT, next - 1, at)])),
            7 => desk.tick(),
            _ => {}
        }
        let mut bodies = if next == 1 { vec![boot(stream)] } else { vec![] };
        for _ in 0..rng.random_range(1..4) {
            let statuses = [Status::Up, Status::Down, Status::Unknown(Cause::ProbeError)];
            let onset = at - rng.random_range(0..at.min(8_000));
            bodies.push(match rng.random_range(0..20) {
                0 => gap(rng.random_range(1..5), onset, at, rng.random_range(0..2)),
                _ => change(["m1", "m2"][rng.random_range(0..2)], statuses[rng.random_range(0..3)], onset),
            });
        }
        desk.now = BOOT + at.cast_signed() + 1_000;
        let batch = batch(stream, BOOT, next, at, bodies);
        desk.take(&batch);
        next = batch.group.last() + 1;
        sent.push(batch);
        if rng.random_range(0..3) == 0 {
            let readers = Readers::new(desk.folder.path());
            desk.live.load_timelines(&readers, |_| true, Millis(desk.now)).expect("readable");
        }
    }
}

#[test]
fn timelines_that_went_on_are_what_the_ledger_gives_anew() {
    let first = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    for seed in first..first + 150 {
        let mut desk = Desk::new();
        talk(&mut desk, &mut SmallRng::seed_from_u64(seed));
        let readers = Readers::new(desk.folder.path());
        desk.live.load_timelines(&readers, |_| true, Millis(desk.now)).expect("readable");
        let loaded = readers.read(|db| store::timelines(db, "m", &[1, 2])).expect("readable");
        let through = loaded.head.map_or(Millis(0), |(.., through)| through);
        let all = Span::new(Millis(BOOT - 200_000), Millis(desk.now));
        let lines = desk.live.timelines();
        for (no, anew) in &loaded.lines {
            let of = |line| tally(line, through, all, &LeftOut::default());
            assert_eq!(of(lines.line(*no)), of(anew), "SEED={seed}: {:?} {anew:?}", lines.line(*no));
        }
    }
}

#[test]
fn a_device_is_in_maintenance_while_a_window_holds() {
    let mut desk = Desk::new();
    let counts = |desk: &Desk| desk.live.fleet().counts().maintenance;
    desk.tick();
    let span = Span::new(Millis(desk.now + 10_000), Millis(desk.now + 20_000));
    let scope = Scope::Device("m2".parse().expect("an id"));
    edit(&mut desk, ScheduleEdit::AddWindow(Window { id: 0, scope, span, reason: String::new(), created: Millis(0) }));
    assert_eq!(counts(&desk), 0);
    desk.now += 10_000;
    desk.tick();
    assert_eq!(counts(&desk), 1);
    let desk = desk.restarted();
    assert_eq!(counts(&desk), 1);
    let mut desk = desk;
    desk.now += 10_000;
    desk.tick();
    assert_eq!(counts(&desk), 0);
}

/// A whole collector over a desk's file, without a broker.
struct Served {
    address: SocketAddr,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<anyhow::Result<()>>,
    _folder: tempfile::TempDir,
}

impl Served {
    async fn start(desk: Desk) -> Self {
        let _ = rustls_ring();
        let Desk { folder, ingest, .. } = desk;
        drop(ingest);
        let text = format!(
            "data_dir = {:?}\n[broker]\nhost = \"127.0.0.1\"\nport = 1\n[api]\nlisten = \"127.0.0.1:0\"\ntime_zone = \"Asia/Tbilisi\"\n",
            folder.path()
        );
        let settings = Settings::parse("c.toml", &text).expect("good");
        let token = Token::chosen("a-token-for-tests").expect("long enough");
        let collector = Collector::bind(settings, Some(token), Notes::default()).await.expect("bound");
        let (address, stop) = (collector.address().expect("bound"), CancellationToken::new());
        let running = tokio::spawn(collector.run(stop.clone()));
        Self { address, stop, running, _folder: folder }
    }

    /// Status and body of a request.
    async fn ask(&self, method: &'static str, path: &str, body: Option<Value>) -> (u16, Value) {
        let (address, path) = (self.address, path.to_owned());
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let work = move || {
            let mut stream = TcpStream::connect(address).expect("it listens");
            write!(
                stream,
                "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a-token-for-tests\r\nConnection: close\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .expect("sent");
            let mut text = String::new();
            stream.read_to_string(&mut text).expect("an answer");
            let status = text.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
            let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            (status, serde_json::from_str(body).unwrap_or(Value::Null))
        };
        tokio::task::spawn_blocking(work).await.expect("no panic")
    }

    async fn end(self) {
        self.stop.cancel();
        self.running.await.expect("no panic").expect("a clean end");
    }
}

fn rustls_ring() -> Result<(), Arc<tokio_rustls::rustls::crypto::CryptoProvider>> {
    tokio_rustls::rustls::crypto::ring::default_provider().install_default()
}

/// October 2024, long before what is kept in memory: m1 down for 7.44 h of 744 in two outages, m2 up.
fn october_2024() -> Desk {
    let mut desk = desk_at("2024-11-02T00:00:00Z");
    run(
        &mut desk,
        1,
        "2024-09-20T00:00:00Z",
        "2024-11-01T12:00:00Z",
        &[
            "m1 up 2024-09-20T00:00:00Z",
            "m2 up 2024-09-20T00:00:00Z",
            "m1 down 2024-10-10T00:00:00Z",
            "m1 up 2024-10-10T07:00:00Z",
            "m1 down 2024-10-10T08:00:00Z",
            "m1 up 2024-10-10T08:26:24Z",
        ],
    );
    desk
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_answers_for_months_promises_and_flapping() {
    let served = Served::start(tokio::task::spawn_blocking(october_2024).await.expect("no panic")).await;
    let (status, body) = served.ask("GET", "/api/v1/availability?by=device&month=2024-10", None).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!((body["time_zone"].as_str(), body["state"].as_str()), (Some("Asia/Tbilisi"), Some("final")));
    let m1 = &body["rows"][0];
    assert_eq!(
        (m1["availability"].as_f64(), m1["outages"].as_u64(), m1["down_ms"].as_i64()),
        (Some(99.0), Some(2), Some(26_784_000))
    );
    assert_eq!(
        (m1["mttr_ms"].as_i64(), m1["longest_ms"].as_i64(), m1["revision"].as_i64()),
        (Some(13_392_000), Some(7 * HOUR), Some(1))
    );
    let (_, body) = served.ask("GET", "/api/v1/availability?by=device&month=2024-10&limit=1", None).await;
    assert_eq!((body["total"].as_u64(), body["next_cursor"].as_str()), (Some(2), Some("m1")));
    let (_, body) = served.ask("GET", "/api/v1/availability?by=device&month=2024-10&cursor=m1", None).await;
    assert_eq!((body["rows"][0]["key"].as_str(), body["next_cursor"].as_str()), (Some("m2"), None));
    // 99 % is not above 99 %.
    for (target, met, missed) in [("99", 1, 1), ("98.9999", 2, 0), ("99.9", 1, 1)] {
        let (_, body) = served.ask("GET", &format!("/api/v1/reports/sla?month=2024-10&target={target}"), None).await;
        assert_eq!((body["met"].as_u64(), body["missed"].as_u64()), (Some(met), Some(missed)), "{target}");
    }
    let (_, body) = served.ask("GET", "/api/v1/reports/sla?month=2024-10&met=false", None).await;
    assert_eq!((body["total"].as_u64(), body["rows"][0]["key"].as_str()), (Some(1), Some("m1")));
    let (_, body) = served.ask("GET", "/api/v1/reports/flapping?month=2024-10&more_than=3", None).await;
    let row = &body["rows"][0];
    assert_eq!(
        (row["device_id"].as_str(), row["changes"].as_u64(), row["worst_day"].as_str()),
        (Some("m1"), Some(4), Some("2024-10-10"))
    );
    let (_, body) = served.ask("GET", "/api/v1/reports/flapping?month=2024-10&more_than=4", None).await;
    assert_eq!(body["total"], 0);
    // The last two months: nobody has seen anything, and nothing is made up.
    let (_, body) = served.ask("GET", "/api/v1/reports/uptime?months=2", None).await;
    let months = body["rows"][0]["months"].as_array().expect("a list");
    assert_eq!((months.len(), &months[0]["availability"], months[0]["reason"].as_str()), (2, &Value::Null, Some("not_observed")));
    let (status, body) = served.ask("GET", "/api/v1/reports/rtt", None).await;
    assert_eq!((status, body["rows"][0]["minutes"].as_u64()), (200, Some(0)));
    for (path, field) in [
        ("availability?by=street", "by"),
        ("availability?months=3", "months"),
        ("availability?month=2024-13", "month"),
        ("availability?tz=Mars/Base", "tz"),
        ("availability?limit=0", "limit"),
        ("availability?colour=red", "colour"),
        ("reports/sla?target=100", "target"),
        ("reports/sla?met=maybe", "met"),
        ("reports/uptime?months=14", "months"),
        ("reports/flapping?more_than=-1", "more_than"),
        ("reports/rtt?percentiles=101", "percentiles"),
    ] {
        let (status, body) = served.ask("GET", &format!("/api/v1/{path}"), None).await;
        assert_eq!((status, body["field"].as_str()), (400, Some(field)), "{path}: {body}");
    }
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_and_hours_are_agreed_listed_and_taken_back() {
    let served = Served::start(tokio::task::spawn_blocking(october_2024).await.expect("no panic")).await;
    let window = json!({ "scope": "device", "key": "m1", "from": "2024-10-10T00:00:00Z", "to": "2024-10-10T07:00:00Z", "reason": "works" });
    let (status, body) = served.ask("POST", "/api/v1/maintenance", Some(window.clone())).await;
    assert_eq!((status, body["key"].as_str()), (201, Some("m1")), "{body}");
    let m1 = |body: &Value| (body["rows"][0]["maintenance_ms"].as_i64(), body["rows"][0]["revision"].as_i64());
    let path = "/api/v1/availability?by=device&month=2024-10";
    assert_eq!(m1(&served.ask("GET", path, None).await.1), (Some(7 * HOUR), Some(2)));
    let (_, list) = served.ask("GET", "/api/v1/maintenance?when=past", None).await;
    assert_eq!((list["total"].as_u64(), list["windows"][0]["id"].as_i64()), (Some(1), body["id"].as_i64()));
    let one = format!("/api/v1/maintenance/{}", body["id"]);
    assert_eq!((served.ask("DELETE", &one, None).await.0, served.ask("DELETE", &one, None).await.0), (204, 404));
    assert_eq!(m1(&served.ask("GET", path, None).await.1), (Some(0), Some(3)));
    let hours = json!({
        "scope": "all", "time_zone": "Asia/Tbilisi", "holidays": ["2024-10-14"],
        "weekly": [{ "days": ["mon", "tue", "wed", "thu", "fri"], "from": "09:00", "to": "18:00" }],
    });
    let (status, body) = served.ask("POST", "/api/v1/service-hours", Some(hours.clone())).await;
    assert_eq!(status, 201, "{body}");
    // October 2024 has 23 working days, one of them a holiday: 198 h of 744.
    assert_eq!(m1(&served.ask("GET", path, None).await.1), (Some((744 - 198) * HOUR), Some(4)));
    let (_, list) = served.ask("GET", "/api/v1/service-hours", None).await;
    assert_eq!(list["service_hours"][0]["weekly"], hours["weekly"]);
    assert_eq!(served.ask("DELETE", &format!("/api/v1/service-hours/{}", body["id"]), None).await.0, 204);
    let without = |body: &Value, field: &str| {
        let mut body = body.clone();
        body.as_object_mut().expect("an object").remove(field);
        body
    };
    let with = |body: &Value, field: &str, value: Value| {
        let mut body = body.clone();
        body[field] = value;
        body
    };
    for (path, body, field) in [
        ("maintenance", without(&window, "scope"), "scope"),
        ("maintenance", with(&window, "scope", json!("street")), "scope"),
        ("maintenance", with(&window, "scope", json!("all")), "key"),
        ("maintenance", without(&window, "key"), "key"),
        ("maintenance", with(&window, "key", json!("m9")), "key"),
        ("maintenance", with(&window, "key", json!(7)), "key"),
        ("maintenance", without(&window, "to"), "to"),
        ("maintenance", with(&window, "to", json!("2024-10-09T00:00:00Z")), "to"),
        ("maintenance", with(&window, "from", json!("tomorrow")), "from"),
        ("maintenance", with(&window, "from", json!(1.5)), "from"),
        ("maintenance", with(&window, "to", json!("2099-10-09T00:00:00Z")), "to"),
        ("maintenance", with(&window, "reason", json!("a\nb")), "reason"),
        ("maintenance", with(&window, "colour", json!("red")), "colour"),
        ("maintenance", json!([]), "body"),
        ("service-hours", with(&hours, "time_zone", json!("Mars/Base")), "time_zone"),
        ("service-hours", with(&hours, "weekly", json!([{"days": ["mon"], "from": "9", "to": "18:00"}])), "weekly[0].from"),
        ("service-hours", with(&hours, "weekly", json!("always")), "weekly"),
        ("service-hours", with(&hours, "holidays", json!(["2024-02-30"])), "holidays[0]"),
        ("service-hours", without(&hours, "weekly"), "weekly"),
    ] {
        let (status, answer) = served.ask("POST", &format!("/api/v1/{path}"), Some(body.clone())).await;
        assert_eq!((status, answer["field"].as_str()), (400, Some(field)), "{body}: {answer}");
    }
    let (status, _) = served.ask("POST", "/api/v1/maintenance", Some(json!({ "reason": "x".repeat(100_000) }))).await;
    assert_eq!(status, 413);
    served.end().await;
}

#[test]
fn a_loss_is_counted_once_in_the_file() {
    let mut desk = desk_at("2026-10-20T00:00:00Z");
    run(&mut desk, 1, "2026-10-01T00:00:00Z", "2026-10-10T00:00:00Z", &["m1 up 2026-10-01T00:00:00Z"]);
    run(&mut desk, 2, "2026-10-10T00:00:00Z", "2026-10-15T00:00:00Z", &["m1 up 2026-10-10T00:00:00Z"]);
    let store = Store::open(desk.folder.path()).expect("opens");
    let count = || store.connection().query_row("select count(*) from late", [], |row| row.get::<_, i64>(0)).expect("readable");
    assert_eq!(count(), 0, "runs that follow one another change nothing that was known");
}

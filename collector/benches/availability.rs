//! How long it takes to divide a month of a large estate. Run by `tests/bench availability`.
#![allow(clippy::print_stdout, clippy::expect_used, missing_docs, reason = "a bench")]

use std::sync::Arc;
use std::time::Instant;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use shared::{Millis, StreamId};
use ward_collector::availability::report::{Asked, By, Filter, Late, flapping, rows};
use ward_collector::availability::spans::Span;
use ward_collector::availability::timeline::{Seen, Timeline};
use ward_collector::availability::timelines::{Loaded, Timelines};
use ward_collector::fleet::Fleet;
use ward_collector::inventory::parse_csv;
use ward_collector::schedule::{self, Hours, Rule, Schedule, Scope, Weekly, Window};

const NOW: Millis = Millis(1_795_442_400_000);
const DAY: i64 = 86_400_000;
const TYPES: [&str; 6] = ["router", "atm", "nvr", "switch", "paybox", "access-point"];
const RUNS: usize = 101;
/// Changes of a device in 30 days.
const CHANGES: i64 = 29;

fn estate(devices: usize) -> Fleet {
    let mut csv = String::from("device_id,device_name,branch,branch_name,region,region_name,device_type,ip\n");
    for at in 0..devices {
        let branch = at / 7;
        let (region, kind) = (branch % 10, TYPES[at % TYPES.len()]);
        csv += &format!("d{at},D{at},b{branch},B{branch},r{region},R{region},{kind},10.0.0.{}\n", at % 7 + 1);
    }
    let inventory = parse_csv("estate", &csv).expect("good");
    let numbers: Vec<u32> = (1..).take(devices).collect();
    let mut fleet = Fleet::new(30_000);
    fleet.set_inventory(&inventory, &numbers);
    fleet
}

/// Every device with [`CHANGES`] changes a month over so many days.
fn past(fleet: &Fleet, days: i64) -> Timelines {
    let mut random = SmallRng::seed_from_u64(7);
    let mut lines = Timelines::default();
    for branch in &fleet.branches {
        let from = NOW.plus(-days * DAY);
        let devices = branch.devices.iter().map(|at| {
            let mut moments: Vec<i64> = (0..days * CHANGES / 30).map(|_| random.random_range(from.0..NOW.0)).collect();
            moments.sort_unstable();
            let mut line = Timeline::default();
            line.push(from, Seen::Up);
            for (n, at) in moments.iter().enumerate() {
                line.push(Millis(*at), if n % 2 == 0 { Seen::Down } else { Seen::Up });
            }
            (fleet.devices[*at].no, line)
        });
        let loaded = Loaded { head: Some((StreamId(1), from, 1, NOW)), lines: devices.collect() };
        lines.install(&branch.info.id, 0, loaded, NOW);
    }
    lines
}

/// Fifty windows, and hours for everybody and for the routers.
fn busy() -> Schedule {
    let id = |text: String| text.parse().expect("an id");
    let window = |n: i64| {
        let from = NOW.plus(-n * DAY / 2);
        let scope = if n % 2 == 0 { Scope::Branch(id(format!("b{n}"))) } else { Scope::Region(id(format!("r{}", n % 10))) };
        Window { id: n, scope, span: Span::new(from, from.plus(DAY / 12)), reason: String::new(), created: NOW }
    };
    let hours = |n, scope, from: &str| {
        let days = ["mon", "tue", "wed", "thu", "fri", "sat"].map(str::to_owned).to_vec();
        let weekly = vec![Weekly { days, from: from.to_owned(), to: "19:00".to_owned() }];
        let rule = Rule { time_zone: "Asia/Tbilisi".to_owned(), weekly, holidays: vec!["2026-11-23".to_owned()] };
        Hours { id: n, scope, valid: Span::new(Millis(0), Millis(i64::MAX)), rule, created: NOW }
    };
    let routers = hours(2, Scope::Type(id("router".to_owned())), "08:00");
    Schedule::new((0..50).map(window).collect(), vec![hours(1, Scope::All, "09:00"), routers], vec![]).expect("good")
}

fn measure(name: &str, mut work: impl FnMut() -> usize) {
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let began = Instant::now();
            std::hint::black_box(work());
            began.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("{name:<52} {:>8.2} ms median {:>8.2} ms p95", times[RUNS / 2], times[RUNS * 95 / 100]);
}

fn main() {
    let zone = schedule::zone("Asia/Tbilisi").expect("a zone");
    let asked = Asked::new(Span::new(NOW.plus(-30 * DAY), NOW), NOW);
    let days = schedule::days(asked.past, &zone);
    for (devices, kept) in [(877, 30), (10_000, 30), (10_000, 400), (100_000, 30)] {
        let mut fleet = estate(devices);
        let lines = past(&fleet, kept);
        let (late, all) = (Late::new(), Filter::default());
        let name = |what: &str| format!("{devices} devices, 30 of {kept} d, {what}");
        for (what, by) in [("all", By::All), ("branch", By::Branch), ("type", By::Type), ("device", By::Device)] {
            measure(&name(what), || rows(&fleet, &lines, &late, by, &all, asked).len());
        }
        measure(&name("flapping"), || flapping(&fleet, &lines, &all, asked, &days, 10).len());
        fleet.set_schedule(Arc::new(busy()));
        measure(&name("branch, hours and windows"), || rows(&fleet, &lines, &late, By::Branch, &all, asked).len());
    }
}

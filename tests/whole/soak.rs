//! Everything at once: devices fail and recover while links, programs and cards break by a plan made from a seed. When all
//! is whole again, the truth is compared with the ledger and with VictoriaMetrics.
//!
//! What is promised: each outage of a device is recorded once. Its beginning and its end are dated as closely as probes
//! can tell, unless the branch's agent was dead then, or had not yet told: those are bounded by the agent's absence.

use std::collections::BTreeMap;
use std::env;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep_until};
use ward_tests::agent::AgentSettings;
use ward_tests::api::Outage;
use ward_tests::card::Frozen;
use ward_tests::collector::CollectorSettings;
use ward_tests::estate::device_id;
use ward_tests::{Card, Change, Net, Relay, eventually, now_ms};

use crate::truth::{Spell, Within};
use crate::world::{PROBE, World};

const BRANCHES: u8 = 3;
/// Of each branch. The last one answers all the time.
const DEVICES: u8 = 8;
/// How long it runs unless `WARD_SOAK_SECONDS` says otherwise.
const SECONDS: u64 = 150;
/// The plan's seed unless `WARD_SOAK_SEED` says otherwise.
const SEED: u64 = 1;

/// Before an agent's death: a verdict that was being reached, and two seconds in which it may not have been kept.
const UNTOLD_MS: i64 = PROBE.verdict_ms() + 2_000;
/// After an agent's start: until it has reached a verdict.
const BEGINNING_MS: i64 = PROBE.verdict_ms() + 5_000;
/// What the plan leaves beyond these, since a busy machine is late.
const LATE_MS: u64 = 3_000;
/// The shortest time in which a device stays as it is: a verdict, and as long again.
const SHORTEST_MS: u64 = 2 * PROBE.verdict_ms().unsigned_abs();
/// How long an agent leaves a full card alone, and some: before that a power cut may take what it holds.
const CARD_REST_MS: u64 = 20_000;

/// What breaks, beside devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Harm {
    WanCut(u8),
    WanCutSilently(u8),
    ConnectionsCut(u8),
    CardFull(u8),
    CardHangs(u8),
    AgentKilled(u8),
    PowerCut(u8),
    BrokerKilled,
    CollectorKilled,
    DiskFull,
    VictoriaKilled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Silence(u8, u8),
    Restore(u8, u8),
    Begin(Harm),
    End(Harm),
}

/// What happens when, in ms from the beginning.
type Plan = Vec<(u64, Act)>;

/// The plan of a seed. All that begins in it ends in it.
fn plan(seed: u64, length_ms: u64) -> Plan {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut plan = Plan::new();
    for b in 1..=BRANCHES {
        let harms = branch_harms(b, length_ms, &mut random);
        // While an agent is dead, and shortly before and after, no device changes twice: nobody could tell.
        let mut absences = Vec::new();
        for (at, act) in &harms {
            match act {
                Act::Begin(Harm::AgentKilled(_) | Harm::PowerCut(_)) => {
                    absences.push((at.saturating_sub(UNTOLD_MS.unsigned_abs() + LATE_MS), *at))
                }
                Act::End(Harm::AgentKilled(_) | Harm::PowerCut(_)) => {
                    absences.last_mut().expect("it was killed").1 = at + BEGINNING_MS.unsigned_abs() + LATE_MS;
                }
                _ => {}
            }
        }
        plan.extend(harms);
        for i in 0..DEVICES - 1 {
            plan.extend(device_changes(b, i, length_ms, &absences, &mut random));
        }
    }
    plan.extend(central_harms(length_ms, &mut random));
    plan.sort();
    plan
}

fn branch_harms(b: u8, length_ms: u64, random: &mut SmallRng) -> Plan {
    let mut plan = Plan::new();
    let mut at = random.random_range(3_000..10_000);
    loop {
        let long = random.random_range(6_000..20_000);
        let dead = random.random_range(500..5_000);
        let (kind, is_power) = (random.random_range(0..7), random.random());
        if at + long + dead + CARD_REST_MS > length_ms {
            return plan;
        }
        let mut harm = |harm: Harm, from: u64, to: u64| plan.extend([(from, Act::Begin(harm)), (to, Act::End(harm))]);
        let death = if is_power { Harm::PowerCut(b) } else { Harm::AgentKilled(b) };
        match kind {
            0 => harm(Harm::WanCut(b), at, at + long),
            1 => harm(Harm::WanCutSilently(b), at, at + long),
            2 => harm(Harm::ConnectionsCut(b), at, at + long),
            3 | 4 => {
                // While the card takes nothing, entries have to wait.
                harm(if kind == 3 { Harm::CardFull(b) } else { Harm::CardHangs(b) }, at, at + long);
                harm(Harm::WanCutSilently(b), at + 500, at + long - 500);
            }
            5 => harm(death, at, at + dead),
            _ => {
                // An agent that dies behind a cut link, and begins behind it.
                harm(Harm::WanCutSilently(b), at, at + long + dead);
                harm(death, at + long / 2, at + long / 2 + dead);
            }
        }
        at += long + dead + random.random_range(5_000..15_000) + if matches!(kind, 3 | 4) { CARD_REST_MS } else { 0 };
    }
}

fn central_harms(length_ms: u64, random: &mut SmallRng) -> Plan {
    let mut plan = Plan::new();
    let mut at = random.random_range(5_000..20_000);
    loop {
        let dead = random.random_range(500..8_000);
        if at + dead + LATE_MS > length_ms {
            return plan;
        }
        let harms = [Harm::BrokerKilled, Harm::CollectorKilled, Harm::VictoriaKilled, Harm::DiskFull];
        let harm = *harms.choose(random).expect("there are some");
        plan.extend([(at, Act::Begin(harm)), (at + dead, Act::End(harm))]);
        at += dead + random.random_range(8_000..25_000);
    }
}

fn device_changes(b: u8, i: u8, length_ms: u64, absences: &[(u64, u64)], random: &mut SmallRng) -> Plan {
    let mut plan = Plan::new();
    let mut before = 0;
    let mut next = |before: u64| {
        let mut at = before + random.random_range(SHORTEST_MS..30_000);
        for (from, to) in absences {
            if (from..=to).contains(&&before) && (from..=to).contains(&&at) {
                at = to + 1;
            }
        }
        at
    };
    loop {
        let began = next(before);
        let ended = next(began);
        if ended > length_ms {
            return plan;
        }
        plan.extend([(began, Act::Silence(b, i)), (ended, Act::Restore(b, i))]);
        before = ended;
    }
}

#[test]
fn a_plan_is_the_same_for_the_same_seed_and_ends_whole() {
    for seed in 0..200 {
        let made = plan(seed, 600_000);
        assert_eq!(made, plan(seed, 600_000));
        let mut open: Vec<Act> = Vec::new();
        for (_, act) in made {
            let begun = match act {
                Act::Begin(_) | Act::Silence(..) => {
                    assert!(!open.contains(&act), "seed {seed}: {act:?} twice");
                    open.push(act);
                    continue;
                }
                Act::Restore(b, i) => Act::Silence(b, i),
                Act::End(harm) => Act::Begin(harm),
            };
            let at = open.iter().position(|act| *act == begun);
            open.remove(at.unwrap_or_else(|| panic!("seed {seed}: {act:?} before its beginning")));
        }
        assert!(open.is_empty(), "seed {seed}: {open:?}");
    }
    assert_ne!(plan(1, 600_000), plan(2, 600_000));
}

/// When a device fell silent, and when it answered again.
type Silence = (Change, Option<Change>);

#[test]
fn the_verdict_finds_what_is_missed_invented_and_misdated() {
    let change = |at_ms| Change { before_ms: at_ms, after_ms: at_ms + 10 };
    let truth = [(Spell::of(change(100_000), change(110_000)), change(100_000))];
    let check = |outages: &[(i64, Option<i64>)], expected: (usize, usize, usize, i64)| {
        let outages: Vec<Outage> = outages.iter().map(|&(from_ms, to_ms)| Outage { from_ms, to_ms }).collect();
        let mut verdict = Verdict::default();
        verdict.judge("d", &truth, &outages);
        let Verdict { recorded, missed, invented, worst_onset_ms, .. } = verdict;
        assert_eq!((recorded, missed, invented, worst_onset_ms), expected, "{outages:?}: {:?}", verdict.complaints);
        assert_eq!(verdict.complaints.is_empty(), missed + invented == 0, "{:?}", verdict.complaints);
    };
    check(&[(100_800, Some(110_900))], (2, 0, 0, 790));
    check(&[], (0, 2, 0, 0));
    check(&[(100_800, None)], (1, 1, 0, 790));
    check(&[(100_800, Some(110_900)), (130_000, Some(135_000))], (4, 0, 2, 790));
    check(&[(100_800, Some(104_000)), (105_000, Some(110_900))], (4, 1, 3, 790));
    check(&[(90_000, Some(110_900))], (2, 2, 2, 0));
}

#[test]
fn samples_that_contradict_the_outages_or_are_missing_are_found() {
    let outages = [Outage { from_ms: 1_000, to_ms: Some(5_000) }];
    let check = |samples: &[(i64, f64)], fits: bool| assert_eq!(charted("d", &outages, samples).is_ok(), fits, "{samples:?}");
    check(&[(500, 1.0), (1_000, 0.0), (3_000, 0.0), (5_000, 1.0), (9_000, 1.0)], true);
    check(&[(1_000, 0.0)], false);
    check(&[(5_000, 1.0)], false);
    check(&[(1_000, 0.0), (3_000, 1.0), (5_000, 1.0)], false);
    check(&[(1_000, 0.0), (5_000, 1.0), (7_000, 0.0)], false);
}

/// What was done, as it happened.
#[derive(Default)]
struct Record {
    /// Of each device.
    spells: BTreeMap<(u8, u8), Vec<Silence>>,
    /// Of each branch: when its agent died, and when it was started again.
    absences: BTreeMap<u8, Vec<(i64, i64)>>,
    counts: BTreeMap<&'static str, u32>,
}

impl Record {
    fn within(&self, b: u8, change: Change) -> Within {
        let mut within = Within::of(change);
        for (died_ms, began_ms) in self.absences.get(&b).into_iter().flatten() {
            let unsure = died_ms - UNTOLD_MS..=began_ms + BEGINNING_MS;
            if unsure.contains(&change.before_ms) || unsure.contains(&change.after_ms) {
                within.latest_ms = within.latest_ms.max(*unsure.end());
            }
        }
        within
    }
}

struct Stage<'net> {
    net: &'net Net,
    // Dropped in this order: cards thaw, the programs that use them end, then the cards go.
    frozen: Vec<Option<Frozen>>,
    world: World<'net>,
    relays: Vec<Relay>,
    /// Of each branch.
    cards: Vec<Card>,
    /// The collector's.
    disk: Card,
    record: Record,
}

impl Stage<'_> {
    async fn run(&mut self, plan: &Plan) {
        let began = Instant::now();
        for (at, act) in plan {
            sleep_until(began + Duration::from_millis(*at)).await;
            match *act {
                Act::Silence(b, i) => {
                    let change = self.net.silence(b, i);
                    self.record.spells.entry((b, i)).or_default().push((change, None));
                    *self.record.counts.entry("outages").or_default() += 1;
                }
                Act::Restore(b, i) => {
                    let change = self.net.restore(b, i);
                    let spells = self.record.spells.get_mut(&(b, i));
                    spells.and_then(|spells| spells.last_mut()).expect("it is silent").1 = Some(change);
                }
                Act::Begin(harm) => self.begin(harm),
                Act::End(harm) => self.end(harm).await,
            }
        }
    }

    fn begin(&mut self, harm: Harm) {
        let name = match harm {
            Harm::WanCut(b) => {
                self.net.wan_cut(b);
                "WAN cut"
            }
            Harm::WanCutSilently(b) => {
                self.net.wan_cut_silently(b);
                "WAN cut silently"
            }
            Harm::ConnectionsCut(b) => {
                self.relays[index(b)].cut_every(Duration::from_secs(2));
                "connections cut every 2 s"
            }
            Harm::CardFull(b) => {
                self.cards[index(b)].fill();
                "card full"
            }
            Harm::CardHangs(b) => {
                self.frozen[index(b)] = Some(self.cards[index(b)].freeze());
                "card hangs"
            }
            Harm::AgentKilled(b) => {
                self.kill_agent(b);
                "agent killed"
            }
            Harm::PowerCut(b) => {
                self.kill_agent(b);
                let copy = self.cards[index(b)].power_cut();
                self.cards[index(b)] = copy;
                "power cut in a branch"
            }
            Harm::BrokerKilled => {
                self.world.broker.kill();
                "broker killed"
            }
            Harm::CollectorKilled => {
                self.world.collector.process().kill_hard();
                "collector killed"
            }
            Harm::VictoriaKilled => {
                self.world.victoria.kill();
                "VictoriaMetrics killed"
            }
            Harm::DiskFull => {
                self.disk.fill();
                "the collector's disk full"
            }
        };
        *self.record.counts.entry(name).or_default() += 1;
    }

    fn kill_agent(&mut self, b: u8) {
        let died_ms = now_ms();
        self.world.agents[index(b)].process().kill_hard();
        self.record.absences.entry(b).or_default().push((died_ms, i64::MAX / 2));
    }

    async fn end(&mut self, harm: Harm) {
        match harm {
            Harm::WanCut(b) | Harm::WanCutSilently(b) => drop(self.net.wan_restore(b)),
            Harm::ConnectionsCut(b) => self.relays[index(b)].leave_in_peace(),
            Harm::CardFull(b) => self.cards[index(b)].free_up(),
            Harm::CardHangs(b) => self.frozen[index(b)] = None,
            Harm::DiskFull => self.disk.free_up(),
            Harm::AgentKilled(b) | Harm::PowerCut(b) => {
                let state_dir = self.cards[index(b)].path().join("state");
                self.world.agents[index(b)].start_elsewhere(&state_dir, Vec::new());
                let absences = self.record.absences.get_mut(&b).and_then(|absences| absences.last_mut());
                absences.expect("it was killed").1 = now_ms();
            }
            Harm::BrokerKilled => self.world.broker.restart().await,
            Harm::CollectorKilled => self.world.collector.start_again().await,
            Harm::VictoriaKilled => self.world.victoria.start_again().await,
        }
    }

    /// Waits until every device is up and no agent holds anything back.
    async fn drained(&self) {
        eventually(Duration::from_secs(180), "all is up and told", async || {
            let devices = self.world.api().devices().await?;
            let other = devices.iter().find(|(_, device)| device["status"] != "up");
            ensure!(other.is_none(), "{other:?}");
            let branches = self.world.api().json("/api/v1/branches").await?;
            for branch in branches["branches"].as_array().context("branches")? {
                ensure!(branch["waiting"] == 0, "{branch}");
            }
            Ok(())
        })
        .await;
    }
}

/// How well what is recorded fits the truth.
#[derive(Default)]
struct Verdict {
    truth: usize,
    recorded: usize,
    missed: usize,
    invented: usize,
    worst_onset_ms: i64,
    bounded: usize,
    complaints: Vec<String>,
}

impl Verdict {
    /// Compares one device's outages with what was really done to it.
    fn judge(&mut self, device: &str, truth: &[(Spell, Change)], outages: &[Outage]) {
        self.truth += 2 * truth.len();
        self.recorded += outages.iter().map(|outage| 1 + usize::from(outage.to_ms.is_some())).sum::<usize>();
        let mut left = outages.to_vec();
        for (spell, began) in truth {
            let Some(at) = left.iter().position(|outage| spell.began.contains(outage.from_ms)) else {
                self.missed += 2;
                self.complaints.push(format!("{device}: missed {spell:?}; recorded {outages:?}"));
                continue;
            };
            let outage = left.remove(at);
            if outage.to_ms.is_none_or(|to_ms| !spell.ended.contains(to_ms)) {
                self.missed += 1;
                self.invented += usize::from(outage.to_ms.is_some());
                self.complaints.push(format!("{device}: the end of {outage:?} should be that of {spell:?}"));
            }
            if spell.began.latest_ms > Within::of(*began).latest_ms {
                self.bounded += 1;
            } else {
                let error_ms = (outage.from_ms - began.after_ms).max(began.before_ms - outage.from_ms);
                self.worst_onset_ms = self.worst_onset_ms.max(error_ms);
            }
        }
        self.invented += left.iter().map(|outage| 1 + usize::from(outage.to_ms.is_some())).sum::<usize>();
        self.complaints.extend(left.iter().map(|outage| format!("{device}: invented {outage:?}; true {truth:?}")));
    }
}

/// VictoriaMetrics has a sample at each beginning and end of an outage, and none that contradicts them.
fn charted(device: &str, outages: &[Outage], samples: &[(i64, f64)]) -> Result<()> {
    for Outage { from_ms, to_ms } in outages {
        ensure!(samples.contains(&(*from_ms, 0.0)), "{device}: no sample of 0 at {from_ms}: {samples:?}");
        ensure!(to_ms.is_none_or(|to_ms| samples.contains(&(to_ms, 1.0))), "{device}: no sample of 1 at {to_ms:?}: {samples:?}");
    }
    for (ms, value) in samples {
        let is_down = outages.iter().any(|outage| outage.from_ms <= *ms && outage.to_ms.is_none_or(|to_ms| *ms < to_ms));
        ensure!((*value == 0.0) == is_down, "{device}: a sample of {value} at {ms}, against {outages:?}");
    }
    Ok(())
}

#[test]
fn whatever_breaks_every_outage_is_recorded_once_and_dated_right() {
    let number = |name: &str, otherwise: u64| {
        env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
    };
    let (seconds, seed) = (number("WARD_SOAK_SECONDS", SECONDS), number("WARD_SOAK_SEED", SEED));
    say(&format!("soak: seed {seed}, {seconds} s; tests/soak --seconds {seconds} --seed {seed} does the same again"));
    let net = Net::new(BRANCHES, DEVICES);
    net.at_the_centre(async || {
        let cards: Vec<Card> = (0..BRANCHES).map(|_| Card::new(32)).collect();
        let disk = Card::new(256);
        let mut relays = Vec::new();
        let place = |agent: &mut AgentSettings| {
            let relay = Relay::start(&agent.broker);
            agent.broker = relay.access(&agent.broker);
            agent.state_dir = Some(cards[relays.len()].path().join("state"));
            relays.push(relay);
        };
        let centre = |collector: &mut CollectorSettings| collector.data_dir = Some(disk.path().join("data"));
        let world = World::start_with(&net, Duration::from_secs(30), centre, place).await;
        let frozen = cards.iter().map(|_| None).collect();
        let mut stage = Stage { net: &net, frozen, world, relays, cards, disk, record: Record::default() };
        stage.run(&plan(seed, seconds * 1_000)).await;
        stage.drained().await;

        let mut verdict = Verdict::default();
        let mut recorded = BTreeMap::new();
        for (b, i) in (1..=BRANCHES).flat_map(|b| (0..DEVICES).map(move |i| (b, i))) {
            let spells = stage.record.spells.get(&(b, i)).map_or(&[][..], Vec::as_slice);
            let spell = |(began, ended): &Silence| {
                let ended = ended.expect("the plan ends whole");
                (Spell { began: stage.record.within(b, *began), ended: stage.record.within(b, ended) }, *began)
            };
            let truth: Vec<(Spell, Change)> = spells.iter().map(spell).collect();
            let outages = stage.world.api().outages(&device_id(b, i)).await.expect("the API answers");
            verdict.judge(&device_id(b, i), &truth, &outages);
            recorded.insert(device_id(b, i), outages);
        }
        let counts: Vec<String> = stage.record.counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let Verdict { truth, recorded: told, missed, invented, worst_onset_ms, bounded, complaints } = &verdict;
        say(&format!(
            "soak: {}\nsoak: transitions: true {truth}, recorded {told}, missed {missed}, invented {invented}, worst onset error \
             {worst_onset_ms} ms; {bounded} beginnings only bounded by the absence of an agent; seed {seed}",
            counts.join(", ")
        ));
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
        assert!(*truth > 0 && told == truth);

        eventually(Duration::from_secs(90), "VictoriaMetrics says the same", async || {
            for (device, outages) in &recorded {
                let selector = format!("device_ping_status{{device_id=\"{device}\"}}");
                let series = stage.world.victoria.export(&selector).await?;
                let samples = &series.first().with_context(|| format!("no status of {device}"))?.1;
                charted(device, outages, samples)?;
            }
            Ok(())
        })
        .await;
        stage.world.surfaces_agree().await;
    });
}

fn index(b: u8) -> usize {
    usize::from(b - 1)
}

/// Says something beside the test's result.
fn say(text: &str) {
    // Where nobody reads it, it isn't needed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

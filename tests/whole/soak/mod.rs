//! Everything at once: devices fail and recover while links, programs and cards break by a plan made from a seed. When all
//! is whole again, the truth is compared with the ledger and with VictoriaMetrics.
//!
//! What is promised: each outage of a device is recorded once. Its beginning and its end are dated as closely as probes
//! can tell, unless the branch's agent was dead then, or had not yet told: those are bounded by the agent's absence.

mod plan;
mod verdict;

use std::collections::BTreeMap;
use std::env;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::{Instant, sleep_until};
use ward_tests::agent::AgentSettings;
use ward_tests::card::Frozen;
use ward_tests::collector::CollectorSettings;
use ward_tests::estate::{branch_id, device_id};
use ward_tests::{Card, Change, Net, Relay, WrongClock, eventually, now_ms};

use self::plan::{Act, Harm, Plan, plan};
use self::verdict::{Verdict, charted};
use crate::truth::{Spell, Within};
use crate::world::{PROBE, World};

const BRANCHES: u8 = 3;
/// Of each branch: so many that their changes fill more than a block of a card. The last one answers all the time.
const DEVICES: u8 = 20;
/// How long it runs unless `WARD_SOAK_SECONDS` says otherwise.
const SECONDS: u64 = 150;
/// The plan's seed unless `WARD_SOAK_SEED` says otherwise.
const SEED: u64 = 1;

/// Before an agent's death: a verdict that was being reached, and two seconds in which it may not have been kept.
const UNTOLD_MS: i64 = PROBE.verdict_ms() + 2_000;
/// After an agent's start: until it has reached a verdict.
const BEGINNING_MS: i64 = PROBE.verdict_ms() + 5_000;

/// When a device fell silent, and when it answered again.
type Silence = (Change, Option<Change>);

/// What was done, as it happened.
#[derive(Default)]
struct Record {
    /// Of each device.
    spells: BTreeMap<(u8, u8), Vec<Silence>>,
    /// Of each branch: when its agent died, and when it was started again.
    absences: BTreeMap<u8, Vec<(i64, i64)>>,
    counts: BTreeMap<&'static str, u32>,
    /// All but what was done to devices, UTC in ms.
    harms: Vec<(i64, Act)>,
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
    clocks: Vec<WrongClock>,
    /// The collector's.
    disk: Card,
    record: Record,
}

impl Stage<'_> {
    async fn run(&mut self, plan: &Plan) {
        let began = Instant::now();
        for (at, act) in plan {
            sleep_until(began + Duration::from_millis(*at)).await;
            if matches!(act, Act::Begin(_) | Act::End(_)) {
                self.record.harms.push((now_ms(), *act));
            }
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
            Harm::CardFails(b) => {
                self.cards[index(b)].fail();
                "card fails"
            }
            Harm::CardReadOnly(b) => {
                self.cards[index(b)].read_only();
                "card read-only"
            }
            Harm::ClockSet(b, seconds) => {
                self.clocks[index(b)].set(seconds);
                "clock set"
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
            Harm::CentrePowerCut => {
                self.world.collector.process().kill_hard();
                self.disk = self.disk.power_cut();
                "power cut at the centre"
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
            Harm::CardFails(b) | Harm::CardReadOnly(b) => self.cards[index(b)].replace(),
            Harm::ClockSet(b, _) => self.clocks[index(b)].set(0),
            Harm::DiskFull => self.disk.free_up(),
            Harm::AgentKilled(b) | Harm::PowerCut(b) => {
                let state_dir = self.cards[index(b)].path().join("state");
                self.world.agents[index(b)].start_elsewhere(&state_dir, self.clocks[index(b)].wrapper());
                let absences = self.record.absences.get_mut(&b).and_then(|absences| absences.last_mut());
                absences.expect("it was killed").1 = now_ms();
            }
            Harm::BrokerKilled => self.world.broker.restart().await,
            Harm::CollectorKilled | Harm::CentrePowerCut => {
                self.world.collector.start_elsewhere(&self.disk.path().join("data")).await;
            }
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
        let clocks: Vec<WrongClock> = (0..BRANCHES).map(|_| WrongClock::off_by(0)).collect();
        let disk = Card::new(256);
        let mut relays = Vec::new();
        let place = |agent: &mut AgentSettings| {
            let relay = Relay::start(&agent.broker);
            agent.broker = relay.access(&agent.broker);
            agent.state_dir = Some(cards[relays.len()].path().join("state"));
            agent.wrapper = clocks[relays.len()].wrapper();
            relays.push(relay);
        };
        let centre = |collector: &mut CollectorSettings| collector.data_dir = Some(disk.path().join("data"));
        let world = World::start_with(&net, Duration::from_secs(30), centre, place).await;
        let frozen = cards.iter().map(|_| None).collect();
        let mut stage = Stage { net: &net, frozen, world, relays, cards, clocks, disk, record: Record::default() };
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
        let Verdict { truth, recorded: stated, missed, invented, worst_onset_ms, bounded, complaints } = &verdict;
        say(&format!(
            "soak: {}\nsoak: transitions: true {truth}, recorded {stated}, missed {missed}, invented {invented}, worst onset error \
             {worst_onset_ms} ms; {bounded} beginnings only bounded by the absence of an agent; seed {seed}",
            counts.join(", ")
        ));
        let mut gaps = Vec::new();
        for b in 1..=BRANCHES {
            let coverage = stage.world.api().json(&format!("/api/v1/branches/{}/coverage", branch_id(b))).await;
            gaps.push(coverage.map(|coverage| coverage["gaps"].to_string()));
        }
        let told = complaints.join("\n");
        assert!(complaints.is_empty(), "{told}\nharms: {:?}\ngaps: {gaps:?}", stage.record.harms);
        assert!(*truth > 0 && stated == truth);

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

//! What breaks when, made from a seed.

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::{BEGINNING_MS, BRANCHES, DEVICES, UNTOLD_MS};
use crate::world::PROBE;

/// What the plan leaves beyond these, since a busy machine is late.
const LATE_MS: u64 = 3_000;
/// The shortest time in which a device stays as it is: a verdict, and as long again.
const SHORTEST_MS: u64 = 2 * PROBE.verdict_ms().unsigned_abs();
/// How long an agent leaves a full card alone, and some: before that a power cut may take what it holds.
const CARD_REST_MS: u64 = 20_000;

/// What breaks, beside devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Harm {
    WanCut(u8),
    WanCutSilently(u8),
    ConnectionsCut(u8),
    CardFull(u8),
    CardHangs(u8),
    CardFails(u8),
    CardReadOnly(u8),
    AgentKilled(u8),
    PowerCut(u8),
    /// The clock of a branch's box is off by so many seconds.
    ClockSet(u8, i64),
    BrokerKilled,
    CollectorKilled,
    CentrePowerCut,
    DiskFull,
    VictoriaKilled,
}

/// What happens to a branch's line.
const LINE_HARMS: [fn(u8) -> Harm; 3] = [Harm::WanCut, Harm::WanCutSilently, Harm::ConnectionsCut];
/// And to its card.
const CARD_HARMS: [fn(u8) -> Harm; 4] = [Harm::CardFull, Harm::CardHangs, Harm::CardFails, Harm::CardReadOnly];

/// What clocks are set to, in seconds: an hour and three weeks back, and most of a year ahead.
const CLOCK_OFFSETS_S: [i64; 3] = [-3_600, -21 * 86_400, 300 * 86_400];

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Act {
    Silence(u8, u8),
    Restore(u8, u8),
    Begin(Harm),
    End(Harm),
}

/// What happens when, in ms from the beginning.
pub(super) type Plan = Vec<(u64, Act)>;

/// The plan of a seed. All that begins in it ends in it.
pub(super) fn plan(seed: u64, length_ms: u64) -> Plan {
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
        plan.extend(clock_jumps(b, length_ms, &mut random));
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
    let mut was_card = false;
    loop {
        let long = random.random_range(8_000..20_000);
        let dead = random.random_range(500..5_000);
        // A card that was harmed has to be good again: that shows when an agent dies behind a cut link.
        let kind = if was_card { usize::MAX } else { random.random_range(0..9) };
        let is_power = random.random();
        if at + long + dead + LATE_MS + CARD_REST_MS > length_ms {
            return plan;
        }
        let mut harm = |harm: Harm, from: u64, to: u64| plan.extend([(from, Act::Begin(harm)), (to, Act::End(harm))]);
        let death = if is_power { Harm::PowerCut(b) } else { Harm::AgentKilled(b) };
        match kind {
            0..3 => harm(LINE_HARMS[kind](b), at, at + long),
            3..7 => {
                // While the card takes nothing, entries have to wait.
                harm(CARD_HARMS[kind - LINE_HARMS.len()](b), at, at + long);
                harm(Harm::WanCutSilently(b), at + 500, at + long - 500);
            }
            7 => harm(death, at, at + dead),
            _ => {
                // An agent that dies behind a cut link, and begins behind it.
                harm(Harm::WanCutSilently(b), at, at + long + dead + LATE_MS);
                harm(death, at + long, at + long + dead);
            }
        }
        was_card = (3..7).contains(&kind);
        at += long + dead + random.random_range(5_000..15_000) + if was_card { CARD_REST_MS } else { 0 };
    }
}

fn clock_jumps(b: u8, length_ms: u64, random: &mut SmallRng) -> Plan {
    let mut plan = Plan::new();
    let mut at = random.random_range(0..30_000);
    loop {
        let offset = *CLOCK_OFFSETS_S.choose(random).expect("there are some");
        let ended = at + random.random_range(5_000..30_000);
        if ended > length_ms {
            return plan;
        }
        plan.extend([(at, Act::Begin(Harm::ClockSet(b, offset))), (ended, Act::End(Harm::ClockSet(b, offset)))]);
        at = ended + random.random_range(5_000..30_000);
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
        let harms = [Harm::BrokerKilled, Harm::CollectorKilled, Harm::CentrePowerCut, Harm::VictoriaKilled, Harm::DiskFull];
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

//! Probes each target when it is due, judges what comes back, and tells the keeper what changed.
//!
//! One task for all targets: waking up is what costs, not the packets. It never waits for the disk or the link.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use shared::delta::{self, Flagged, unit_us};
use shared::evidence::Neighbours as Others;
use shared::message::{Answer, Ask, Host, Live, WATCHED_LIMIT, Watched};
use shared::{
    Body, Cause, Column, DeviceId, Dropped, Evidence, Flags, Gap, GapReason, Minute, Qualities, Status, Transition, Uptime,
    Verdict,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::arp::Arp;
use crate::buffer::{CONFIRMATION_LIMIT_MS, gap_of};
use crate::clock;
use crate::counts::Counts;
use crate::degraded::Degraded;
use crate::identity::{Identity, News};
use crate::isolation::{Finding, Other, blame, judge};
use crate::keeper::{Command, Standing};
use crate::monitor::{Change, Monitor, Outcome};
use crate::names::Names;
use crate::plan::{Plan, Planned};
use crate::probe::{Asked, GRACE, Late, Prober};
use crate::questions::{Questions, Subject};
use crate::recorder::Recorder;
use crate::schedule::{Schedule, phase};
use crate::service::Pulse;
use crate::summary::Summary;
use crate::surroundings::{Neighbours, Routes, carrier};
use crate::witness::{ROUND, Witnesses};

/// Time between two looks at the schedule, in ms.
const TICK_MS: u64 = 50;
/// What is due so little later goes out in the same tick, in ms: a wake-up a moment early must not cost a whole one.
const EARLY_MS: u64 = TICK_MS / 2;
/// The same while more is due than goes out in one.
const BUSY_TICK_MS: u64 = 5;
/// Most probes sent in one tick: more at once overrun the receive buffer.
const BURST_LIMIT: usize = 100;
/// How often the keeper is told how far everything has been observed, in ms.
const OBSERVED_MS: u64 = 500;
/// Most entries that wait while the keeper is stuck on its disk.
const BACKLOG_LIMIT: usize = 10_000;
/// Most bytes of one block of qualities, about: on a slow line it must not hold an outage up for long.
const BLOCK_LIMIT_BYTES: usize = 4_000;
/// Answers to what was sent so shortly after a silence began tell nothing of whose fault it is, in ms.
const AFTERMATH_MS: u64 = 300;
/// A watch of which some target waits for longer than this beyond its interval, in ms, gets on only where probes end.
const OVERDUE_MS: u64 = 10_000;
/// Length of a minute in ms.
const MINUTE_MS: u64 = 60_000;

/// How often the kernel's neighbour table is read, in ms.
const IDENTITY_MS: u64 = 10_000;
/// Everybody is asked who stands at a device's address once in so many looks at the neighbour table.
const ASKED_EVERY_LOOKS: usize = 6;
/// Most devices that are asked about in one look: the LAN has other things to carry.
const ASKED_LIMIT: usize = 200;
/// Transitions in an hour that take their probes along: a device that flaps all day must not fill the line with them.
const FULL_EVIDENCE: u32 = 300;
/// How long a reply that is too late to count is waited for, in ms.
const GRACE_MS: u32 = GRACE.as_millis() as u32;
/// Longest pause between two probes of one round, in ms.
const PACKET_PAUSE_MS: u32 = 200;
/// How long a probe waits for a name that is being asked for, in ms.
const NAME_WAIT_MS: u64 = 100;

/// While devices are watched: how often their newest quality is told, in ms.
const WATCHED_EVERY_MS: u64 = 2_000;
/// Longest time for which a device is watched without being asked again, in ms.
const WATCHED_FOR_MS: u64 = 120_000;
/// Least time in ms between two reports of qualities while there is no link: a report costs the card kilobytes, and
/// nobody reads it before the link is back.
const OFF_LINE_REPORT_MS: u64 = 3_600_000;

/// What the watch tells beside entries.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Ticks that were skipped because we were late.
    pub ticks_missed: u64,
    /// Probes that couldn't be sent.
    pub send_errors: u64,
    /// Replies that the kernel dropped for want of room.
    pub receive_drops: u64,
    /// Replies that answer no probe.
    pub stray_replies: u64,
    /// The longest that any target has waited for a probe beyond its interval, in ms.
    pub probe_age_ms: u64,
    /// Every target's newest state.
    pub states: Arc<Vec<Live>>,
    /// How often each was asked, and how it answered: always as they are now.
    pub counts: Arc<Counts>,
}

/// What the watch listens to and speaks to.
pub struct Ends {
    /// What to probe.
    pub plan: watch::Receiver<Arc<Plan>>,
    /// How the boot is dated, so that minutes end on full minutes.
    pub standing: watch::Receiver<Standing>,
    /// Where entries go.
    pub entries: mpsc::Sender<Command>,
    /// Where counts and newest states go.
    pub tally: watch::Sender<Tally>,
    /// Questions.
    pub asks: mpsc::Receiver<Ask>,
    /// Where answers go.
    pub answers: mpsc::Sender<Answer>,
    /// Asks the link for a sign of the broker.
    pub proofs: watch::Sender<Uptime>,
    /// When that was sent which the broker has answered last.
    pub heard: watch::Receiver<Uptime>,
    /// Beats with each probe that ends, and while none is overdue.
    pub pulse: Pulse,
}

struct Slot {
    planned: Planned,
    asked: Asked,
    monitor: Monitor,
    summary: Summary,
    minutes: Vec<Minute>,
    due: Uptime,
    in_flight: Option<Uptime>,
    /// When the newest probe was sent, if it was not answered.
    silent_since: Option<Uptime>,
    /// Its newest late reply took so long that it is waited for this long, in ms, until one comes in time again; or 0.
    slow_ms: u32,
    /// When the first of those was sent that were not answered without one between them that was.
    silent_from: Option<Uptime>,
    /// When the newest probe was sent that was answered.
    heard: Option<Uptime>,
    /// Probes of its round that are still to be sent.
    left_in_round: u8,
    recorder: Recorder,
    degraded: Degraded,
    /// Its status has changed in this minute: the minute's loss is that of an outage.
    is_unsteady: bool,
    verdict: Option<Verdict>,
    identity: Identity,
    watched: Option<Watching>,
}

/// Who was probed, and what for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    /// A target, in its turn.
    Target(usize),
    /// A target, to see whether anybody answers.
    Witness(usize),
    /// The gateway, for the same.
    Gateway,
    /// A target whose reply is too late to count: it is still waited for.
    Late(usize),
}

/// What became of one probe.
struct Told {
    generation: u64,
    purpose: Purpose,
    sent: Uptime,
    outcome: Outcome,
    late: Option<Late>,
}

/// Somebody looks at a device.
#[derive(Debug)]
struct Watching {
    until: Uptime,
    since: Uptime,
    summary: Summary,
}

type Probing = BoxFuture<'static, Told>;

struct Watch<P> {
    prober: Arc<P>,
    ends: Ends,
    slots: Vec<Slot>,
    schedule: Schedule,
    probing: FuturesUnordered<Probing>,
    // Counts the plans, so that what was in flight under an earlier one is not taken for a target of this one.
    generation: u64,
    minute_end: Uptime,
    minute_began: Uptime,
    restatements: u64,
    first_minute: Option<Uptime>,
    reported_at: Uptime,
    told_at: Uptime,
    watched_at: Option<Uptime>,
    witnesses: Witnesses,
    routes: Routes,
    /// Since when nobody answers the agent: by any interface, or by the one whose cable is out.
    isolated: BTreeMap<Option<String>, Uptime>,
    /// A status or flag has changed that isn't told yet.
    is_news: bool,
    names: Names,
    questions: Questions<P>,
    neighbours: Neighbours,
    neighbours_at: Uptime,
    /// Where it is permitted.
    arp: Option<Arp>,
    looks: usize,
    /// What is left of [`FULL_EVIDENCE`], and since when.
    evidence_left: (u32, Uptime),
    backlog: VecDeque<(Body, Uptime)>,
    tally: Tally,
}

/// Watches until `shutdown`, then tells what it holds.
pub async fn run<P: Prober>(prober: Arc<P>, ends: Ends, shutdown: CancellationToken) {
    let mut watch = Watch::new(prober, ends, clock::uptime());
    while !shutdown.is_cancelled() {
        watch.step(&shutdown).await;
    }
    let now = clock::uptime();
    watch.end_minute(now);
    watch.report_qualities(now);
    watch.tell(now);
    watch.hand_over();
}

impl<P: Prober> Watch<P> {
    fn new(prober: Arc<P>, ends: Ends, now: Uptime) -> Self {
        let questions = Questions::new(Arc::clone(&prober), ends.answers.clone());
        let mut watch = Self {
            prober,
            ends,
            slots: Vec::new(),
            schedule: Schedule::default(),
            probing: FuturesUnordered::new(),
            generation: 0,
            minute_end: now.plus(MINUTE_MS),
            minute_began: Uptime(0),
            restatements: 0,
            first_minute: None,
            reported_at: now,
            told_at: now,
            watched_at: None,
            witnesses: Witnesses::default(),
            routes: Routes::default(),
            isolated: BTreeMap::new(),
            is_news: false,
            names: Names::default(),
            questions,
            neighbours: Neighbours::default(),
            neighbours_at: now,
            arp: Arp::open()
                .inspect_err(|error| tracing::info!(%error, "boxes are told apart by the kernel's tables alone"))
                .ok(),
            looks: 0,
            evidence_left: (FULL_EVIDENCE, now),
            backlog: VecDeque::new(),
            tally: Tally::default(),
        };
        watch.take_plan(now);
        watch.minute_end = watch.following_minute(now);
        watch
    }

    async fn step(&mut self, shutdown: &CancellationToken) {
        let now = clock::uptime();
        let is_busy = self.send_due(now);
        self.names.ask_due(now);
        if now.since(self.neighbours_at) >= IDENTITY_MS {
            self.look_around(now);
            self.ask_who(now);
        }
        if self.ends.standing.has_changed().unwrap_or(false) {
            self.align_minute(now);
            self.restate_if_asked(now);
        }
        if now >= self.minute_end {
            self.end_minute(now);
            let report_ms = u64::from(self.ends.plan.borrow().report_ms);
            let is_connected = self.ends.standing.borrow().is_connected;
            let report_ms = if is_connected { report_ms } else { report_ms.max(OFF_LINE_REPORT_MS) };
            // Whole minutes: one that ends a moment early is no reason to wait for another.
            if now.since(self.reported_at) + MINUTE_MS / 4 >= report_ms {
                self.report_qualities(now);
            }
        }
        if self.watched_at.is_some_and(|at| now >= at) {
            self.tell_watched(now);
        }
        if now.since(self.told_at) >= OBSERVED_MS {
            self.tell(now);
        }
        self.hand_over();
        let due = self.schedule.next().map(|due| Uptime(due.0.saturating_sub(EARLY_MS)));
        let wake = due.unwrap_or(now.plus(OBSERVED_MS)).min(self.told_at.plus(OBSERVED_MS));
        let wake = self.watched_at.map_or(wake, |at| at.min(wake));
        // Whole ticks, so that targets that are due within one share a wake-up, and that with those who read replies.
        let first = clock::until_tick(if is_busy { BUSY_TICK_MS } else { TICK_MS });
        let rest_ms = Duration::from_millis(wake.since(clock::uptime())).saturating_sub(first).as_millis();
        let more = u32::try_from(rest_ms).unwrap_or(u32::MAX).div_ceil(TICK_MS as u32);
        let wait = first + Duration::from_millis(TICK_MS) * more;
        tokio::select! {
            () = shutdown.cancelled() => {}
            changed = self.ends.plan.changed() => match changed {
                Ok(()) => self.take_plan(clock::uptime()),
                // Nobody can send another plan: keep to this one.
                Err(_) => tokio::time::sleep(wait).await,
            },
            Some(first) = self.probing.next(), if !self.probing.is_empty() => {
                let mut next = Some(first);
                // Replies that were read together are judged together.
                while let Some(told) = next {
                    // What was asked under an earlier plan is no answer of this one's targets.
                    if told.generation == self.generation {
                        self.hear(told);
                    }
                    next = self.probing.next().now_or_never().flatten();
                }
            }
            (name, address) = self.names.answered() => self.names.take(&name, address, clock::uptime()),
            Some(ask) = self.ends.asks.recv() => self.answer(ask, clock::uptime()),
            () = tokio::time::sleep(wait) => {}
        }
        // Once for all that was heard: with thousands of devices that fall silent together each costs a look at all of them.
        if std::mem::take(&mut self.is_news) {
            self.tell(clock::uptime());
            self.tell_tally();
        }
    }

    /// Sends what is due; whether there is more of it than goes out at once.
    fn send_due(&mut self, now: Uptime) -> bool {
        for _ in 0..BURST_LIMIT {
            let Some((index, due)) = self.schedule.take_due(now.plus(EARLY_MS)) else { return false };
            let slot = &mut self.slots[index];
            let known = match &slot.planned.host {
                Host::Address(_) => None,
                Host::Name(name) => Some(self.names.get(name)),
            };
            if let Some(known) = known {
                match known.address {
                    Some(address) => slot.stands_at(address),
                    None if known.is_failing => {
                        slot.due = due;
                        slot.in_flight = Some(now);
                        let (generation, purpose) = (self.generation, Purpose::Target(index));
                        let outcome = Outcome::NoAddress;
                        self.probing.push(Box::pin(async move { Told { generation, purpose, sent: now, outcome, late: None } }));
                        continue;
                    }
                    None => {
                        self.schedule.wait(index, now.plus(NAME_WAIT_MS));
                        continue;
                    }
                }
            }
            slot.due = due;
            slot.in_flight = Some(now);
            let (asked, patience_ms) = (slot.asked.clone(), slot.patience_ms());
            self.send(Purpose::Target(index), asked, patience_ms, now);
        }
        true
    }

    fn send(&mut self, purpose: Purpose, asked: Asked, timeout_ms: u32, now: Uptime) {
        let timeout = Duration::from_millis(timeout_ms.into());
        let (prober, generation) = (Arc::clone(&self.prober), self.generation);
        self.probing.push(Box::pin(async move {
            let (outcome, late) = prober.ask(&asked, timeout).await;
            Told { generation, purpose, sent: now, outcome, late }
        }));
    }

    fn hear(&mut self, told: Told) {
        let Told { purpose, sent, outcome, late, .. } = told;
        let outcome = match purpose {
            Purpose::Target(index) | Purpose::Witness(index) => self.slots[index].meaning(outcome, &self.routes, &self.names),
            Purpose::Gateway | Purpose::Late(_) => outcome,
        };
        let has_replied = matches!(outcome, Outcome::Reply { .. });
        // The machine answers itself, whatever becomes of its cable.
        let mut tells_of_others = has_replied;
        match purpose {
            Purpose::Gateway => self.witnesses.gateway_told(sent, outcome.into()),
            Purpose::Target(index) | Purpose::Witness(index) | Purpose::Late(index) => {
                let slot = &mut self.slots[index];
                match outcome {
                    Outcome::Reply { .. } => {
                        slot.answered(sent);
                        tells_of_others = !self.routes.is_own(slot.asked.address);
                    }
                    Outcome::Timeout | Outcome::Unreachable if !matches!(purpose, Purpose::Late(_)) => slot.missed(sent),
                    // It was not asked, or has been told of: that is no silence.
                    Outcome::Timeout | Outcome::Unreachable | Outcome::SendError | Outcome::NoAddress => {}
                }
                if tells_of_others {
                    self.witnesses.replied(index, sent);
                }
            }
        }
        let is_back = tells_of_others && self.end_isolation(purpose);
        match purpose {
            Purpose::Target(index) => {
                self.slots[index].recorder.add(sent, outcome.into());
                self.wait_on(index, sent, late);
                self.observe(index, sent, outcome);
            }
            Purpose::Witness(index) => {
                let slot = &mut self.slots[index];
                slot.recorder.add(sent, outcome.into());
                if has_replied {
                    slot.monitor.excuse(sent);
                }
            }
            Purpose::Late(index) => {
                if let Outcome::Reply { rtt_us } = outcome {
                    let slot = &mut self.slots[index];
                    slot.monitor.excuse(sent);
                    // Twice as long as it took.
                    slot.slow_ms = (rtt_us / 500).min(slot.planned.rule.timeout_ms.saturating_add(GRACE_MS));
                }
            }
            Purpose::Gateway => {}
        }
        // Last, as a target that was just observed waits for its turn already.
        if is_back {
            tracing::info!("somebody answers again: the agent is not isolated any more");
            self.restart_schedule(clock::uptime());
        }
    }

    /// Waits on for a reply that is too late to count: a device that answers slowly is not silent.
    fn wait_on(&mut self, index: usize, sent: Uptime, late: Option<Late>) {
        let is_open = self.slots[index].monitor.status() != Status::Down;
        let Some(late) = late.filter(|_| is_open) else { return };
        let (generation, purpose) = (self.generation, Purpose::Late(index));
        self.probing.push(Box::pin(async move {
            let outcome = late.await.map_or(Outcome::Timeout, |rtt_us| Outcome::Reply { rtt_us });
            Told { generation, purpose, sent, outcome, late: None }
        }));
    }

    /// Whether an answer ends an isolation of the interface that it came by.
    fn end_isolation(&mut self, purpose: Purpose) -> bool {
        if self.isolated.is_empty() {
            return false;
        }
        let asked = match purpose {
            Purpose::Target(index) | Purpose::Witness(index) | Purpose::Late(index) => Some(&self.slots[index].asked),
            Purpose::Gateway => self.witnesses.gateway.as_ref(),
        };
        let interface = asked.and_then(|asked| self.routes.interface(asked)).map(str::to_owned);
        let of_all = self.isolated.remove(&None).is_some();
        of_all | (interface.is_some() && self.isolated.remove(&interface).is_some())
    }

    /// A device missed a probe: others are asked, so that it is known whose fault that is by the time it is told.
    fn ask_others(&mut self, index: usize, now: Uptime) {
        let Some(from) = self.witnesses.begin_round(self.slots.len(), now) else { return };
        self.routes = Routes::read();
        self.witnesses.gateway = self.routes.gateway_beside(&self.slots[index].asked);
        let timeout_ms = self.slots[index].planned.rule.timeout_ms;
        if let Some(gateway) = self.witnesses.gateway.clone() {
            self.send(Purpose::Gateway, gateway, timeout_ms, now);
        }
        let others = (from..from + self.slots.len()).map(|at| at % self.slots.len());
        let may_answer =
            |at: &usize| *at != index && self.slots[*at].monitor.status() != Status::Down && self.can_be_asked(&self.slots[*at]);
        let (mut round, rest): (Vec<usize>, Vec<usize>) = others.filter(may_answer).partition(|at| self.are_kin(*at, index));
        // Those that hang on the same thing tell the most: half of the round is theirs, if there are others.
        round.truncate(if rest.is_empty() { ROUND } else { ROUND.div_ceil(2) });
        round.extend(rest.into_iter().take(ROUND - round.len()));
        for witness in round {
            let slot = &self.slots[witness];
            let (asked, timeout_ms) = (slot.asked.clone(), slot.planned.rule.timeout_ms);
            self.send(Purpose::Witness(witness), asked, timeout_ms, now);
        }
    }

    /// Whether it is known where a target is, and that its answer would come from elsewhere than this machine.
    fn can_be_asked(&self, slot: &Slot) -> bool {
        !slot.asked.is_nowhere() && !self.routes.is_own(slot.asked.address)
    }

    /// Whether two devices hang on the same thing, or one on the other.
    fn are_kin(&self, one: usize, other: usize) -> bool {
        let (a, b) = (self.slots[one].planned.parent, self.slots[other].planned.parent);
        (a.is_some() && a == b) || a == Some(other) || b == Some(one)
    }

    /// Whose fault it is that a device is down since `onset`.
    fn blame(&self, index: usize, onset: Uptime) -> Verdict {
        let rule = self.slots[index].planned.rule;
        // One that was asked just before this one fell silent at the same time.
        let together_ms = u64::from(rule.interval_ms) + u64::from(rule.timeout_ms) + 1_000;
        let earliest = Uptime(onset.0.saturating_sub(together_ms));
        let others = self.slots.iter().enumerate().filter(|(at, _)| *at != index).map(|(at, slot)| Other {
            is_kin: self.are_kin(at, index),
            is_heard: slot.heard.is_some_and(|heard| heard >= onset.plus(AFTERMATH_MS)),
            is_silent: slot.silent_from.is_some_and(|from| from >= earliest),
        });
        blame(others)
    }

    /// What was seen around a device's transition.
    fn evidence(&mut self, index: usize, onset: Uptime, now: Uptime) -> Evidence {
        const HOUR_MS: u64 = 3_600_000;
        if now.since(self.evidence_left.1) >= HOUR_MS {
            self.evidence_left = (FULL_EVIDENCE, now);
        }
        let is_full = self.evidence_left.0 > 0;
        self.evidence_left.0 = self.evidence_left.0.saturating_sub(1);
        if now.since(self.neighbours_at) >= OBSERVED_MS {
            self.look_around(now);
        }
        let slot = &self.slots[index];
        let mut neighbours = Others::default();
        for (_, other) in self.slots.iter().enumerate().filter(|(at, _)| *at != index) {
            let count = match other.monitor.status() {
                Status::Up if other.silent_from.is_none() => &mut neighbours.up,
                Status::Up | Status::Down => &mut neighbours.down,
                Status::Unknown(_) => &mut neighbours.unknown,
            };
            *count = count.saturating_add(1);
        }
        let interface = self.routes.interface(&slot.asked);
        Evidence {
            probes: if is_full { slot.recorder.newest(now) } else { Vec::new() },
            gateway: self.witnesses.gateway_since(Uptime(onset.0.saturating_sub(CONFIRMATION_LIMIT_MS))),
            neighbours,
            carrier: interface.and_then(carrier),
            mac: self.neighbours.mac(slot.asked.address, interface),
        }
    }

    /// Looks at which boxes the kernel has found at the devices' addresses.
    fn look_around(&mut self, now: Uptime) {
        self.neighbours = Neighbours::read();
        self.neighbours_at = now;
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            let interface = self.routes.interface(&slot.asked);
            // What was found before anything answered may be left from the time before.
            let found = self.neighbours.mac(slot.asked.address, interface).filter(|_| slot.heard.is_some());
            let news = found.and_then(|mac| slot.identity.found(mac, now));
            self.tell_identity(index, news, now);
        }
    }

    /// Asks everybody who stands at the addresses of some devices, of others the next time.
    fn ask_who(&mut self, now: Uptime) {
        self.looks = (self.looks + 1) % ASKED_EVERY_LOOKS;
        let turn = (self.looks..self.slots.len()).step_by(ASKED_EVERY_LOOKS);
        for index in turn.take(ASKED_LIMIT) {
            self.ask_who_is(index, now);
        }
    }

    fn ask_who_is(&mut self, index: usize, now: Uptime) {
        let (Some(arp), slot) = (&mut self.arp, &mut self.slots[index]) else { return };
        let Some((interface, address)) = self.routes.next_door(&slot.asked).filter(|_| slot.heard.is_some()) else { return };
        if !slot.identity.is_asked() && arp.ask(interface, address).is_ok() {
            slot.identity.ask(now);
        }
    }

    /// Takes in who has answered for which address, and what that tells.
    fn hear_who(&mut self, now: Uptime) {
        let Some(arp) = &self.arp else { return };
        let slots = &mut self.slots;
        arp.answers(|answer| {
            for slot in slots.iter_mut().filter(|slot| slot.asked.address == answer.address) {
                slot.identity.answered(answer.mac);
            }
        });
        for index in 0..self.slots.len() {
            let news = self.slots[index].identity.conclude(now);
            self.tell_identity(index, news, now);
        }
    }

    /// Tells what is new of a device's box.
    fn tell_identity(&mut self, index: usize, news: Option<News>, now: Uptime) {
        let Some(News { mac, before, is_contested }) = news else { return };
        let device = self.slots[index].planned.device.clone();
        if let Some(before) = before {
            tracing::warn!(%device, %before, %mac, is_contested, "another box answers at a device's address");
        }
        self.backlog.push_back((Body::Identity(delta::Identity { device, mac, is_contested }), now));
    }

    /// Tells what may be said of a device beside its status.
    fn tell_flags(&mut self, index: usize, flags: Flags, now: Uptime) {
        let device = self.slots[index].planned.device.clone();
        let names = flags.names().collect::<Vec<_>>().join(", ");
        tracing::info!(%device, flags = names, "the flags have changed");
        self.is_news = true;
        self.backlog.push_back((Body::Flagged(Flagged { device, flags, since: now }), now));
    }

    /// What a silence that began at `onset` and is long enough to be told means, if that is known.
    fn weigh(&mut self, index: usize, onset: Uptime, now: Uptime) -> Option<Status> {
        let interface = self.routes.interface(&self.slots[index].asked);
        // What was silent while nobody answered has told nothing: it is counted anew.
        let ways = [None, interface.map(str::to_owned)];
        if ways.iter().filter_map(|way| self.isolated.get(way)).any(|at| onset <= *at) {
            return Some(Status::Unknown(Cause::AgentIsolated));
        }
        let heard = *self.ends.heard.borrow();
        self.witnesses.broker_replied(heard);
        let carrier = interface.and_then(carrier);
        // What was under way when it happened may have got through still.
        let since = onset.plus(AFTERMATH_MS);
        // One that is known to be down says nothing by its silence.
        let may_tell = |slot: &Slot| slot.monitor.status() != Status::Down && self.can_be_asked(slot);
        let others = self.slots.iter().enumerate().filter(|(at, slot)| *at != index && may_tell(slot));
        let others = others.map(|(_, slot)| (slot.asked.address, slot.silent_since));
        let slot = &self.slots[index];
        let mut evidence = self.witnesses.evidence((index, slot.asked.address), others, carrier, since);
        evidence.has_own_way = slot.asked.via.is_some();
        let mut finding = judge(&evidence, onset, now);
        // Before the agent takes itself for isolated, the broker has a word, unless there is no cable to anybody.
        let has_cable = carrier != Some(false) || evidence.has_own_way;
        if finding == Finding::Agent && has_cable && self.ends.standing.borrow().is_connected {
            if self.witnesses.begin_asking_broker(since, now) {
                self.ends.proofs.send_replace(now);
            }
            evidence.is_broker_open = self.witnesses.is_broker_open(since, now);
            finding = judge(&evidence, onset, now);
        }
        match finding {
            Finding::Device => Some(Status::Down),
            Finding::Agent => {
                // It goes on: what was silent until now tells nothing either.
                for way in &ways {
                    if let Some(at) = self.isolated.get_mut(way) {
                        *at = now;
                    }
                }
                Some(Status::Unknown(Cause::AgentIsolated))
            }
            Finding::Open => None,
        }
    }

    /// Whether a device that doesn't answer has a name of which nobody has said since where it points to. A name server that
    /// takes long over that holds no failure back.
    fn may_stand_elsewhere(&self, index: usize, now: Uptime) -> bool {
        let slot = &self.slots[index];
        let (Host::Name(name), Some(from)) = (&slot.planned.host, slot.silent_from) else { return false };
        now.since(from) < CONFIRMATION_LIMIT_MS && self.names.is_in_doubt(name, from)
    }

    /// Nobody answers: no device's state is known any more, whenever it would have been probed next. Where the cable of
    /// one interface is out, that is so of the devices behind it.
    fn isolate(&mut self, index: usize, onset: Uptime, now: Uptime) {
        let interface =
            self.routes.interface(&self.slots[index].asked).filter(|name| carrier(name) == Some(false)).map(str::to_owned);
        tracing::warn!(interface, "the agent is isolated: its devices are unknown");
        for at in 0..self.slots.len() {
            let slot = &mut self.slots[at];
            if !slot.is_behind(interface.as_deref(), &self.routes) {
                continue;
            }
            if let Some(change) = slot.monitor.lose(Cause::AgentIsolated, onset) {
                self.note_change(at, change, Some(Verdict::AgentIsolated), now);
            }
        }
        self.isolated.insert(interface, now);
    }

    /// Every target is due within a second: whoever was unknown is asked at once.
    fn restart_schedule(&mut self, now: Uptime) {
        self.generation += 1;
        self.schedule = Schedule::default();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            slot.in_flight = None;
            if slot.monitor.status() == Status::Unknown(Cause::AgentIsolated) {
                // What was missed while nobody could be heard is no device's fault, and must not become one now that others are.
                slot.monitor.forget_signs();
                slot.silent_from = None;
            }
            slot.due = phase(&slot.planned.device, slot.planned.rule.interval_ms, now);
            self.schedule.wait(index, now.plus(slot.due.since(now) % 1_000));
        }
    }

    fn observe(&mut self, index: usize, sent: Uptime, outcome: Outcome) {
        self.ends.pulse.beat();
        let now = clock::uptime();
        let rule = self.slots[index].planned.rule;
        if !matches!(outcome, Outcome::Reply { .. }) && self.slots[index].monitor.status() != Status::Down {
            if let (Host::Name(name), Some(from)) = (&self.slots[index].planned.host, self.slots[index].silent_from) {
                self.names.doubt(name, from);
            }
            self.ask_others(index, now);
            // Another box may have taken its place: what it answers puts the kernel's table right.
            self.ask_who_is(index, now);
        }
        let means = self.slots[index].monitor.silence(outcome, sent, &rule).and_then(|onset| self.weigh(index, onset, now));
        let means = means.filter(|means| *means != Status::Down || !self.may_stand_elsewhere(index, now));
        let slot = &mut self.slots[index];
        slot.in_flight = None;
        if matches!(outcome, Outcome::Reply { rtt_us } if rtt_us / 1_000 < rule.timeout_ms) {
            slot.slow_ms = 0;
        }
        slot.summary.add(outcome);
        self.tally.counts.add(&slot.planned.device, outcome);
        slot.watched.iter_mut().for_each(|watching| watching.summary.add(outcome));
        if outcome == Outcome::SendError {
            self.tally.send_errors += 1;
        }
        let change = slot.monitor.observe(outcome, sent, &rule, means);
        let after = if slot.monitor.next_after_ms(&rule) < rule.interval_ms {
            Some(rule.retry_ms)
        } else if slot.left_in_round > 0 && slot.monitor.pending_since().is_none() {
            slot.left_in_round -= 1;
            Some(PACKET_PAUSE_MS.min(rule.interval_ms / u32::from(rule.packets) / 2))
        } else {
            slot.left_in_round = rule.packets.saturating_sub(1);
            None
        };
        match after {
            Some(after_ms) => self.schedule.wait(index, sent.plus(after_ms.into()).max(now)),
            None => {
                // Back to the phase, whatever the retries did.
                self.tally.ticks_missed += now.since(slot.due) / u64::from(rule.interval_ms);
                // It may have been sent a moment before it was due: that turn is over.
                self.schedule.wait(index, phase(&slot.planned.device, rule.interval_ms, now.max(slot.due).plus(1)));
            }
        }
        if let Some(change) = change {
            let verdict = match change.to {
                Status::Down => Some(self.blame(index, change.onset)),
                Status::Unknown(Cause::AgentIsolated) => Some(Verdict::AgentIsolated),
                Status::Up | Status::Unknown(_) => None,
            };
            self.note_change(index, change, verdict, now);
            if change.to == Status::Unknown(Cause::AgentIsolated) {
                self.isolate(index, change.onset, now);
            }
        }
    }

    /// Notes a change, with whose fault it is and what speaks for that.
    fn note_change(&mut self, index: usize, change: Change, verdict: Option<Verdict>, now: Uptime) {
        let evidence = self.evidence(index, change.onset, now);
        let slot = &mut self.slots[index];
        slot.verdict = verdict;
        let device = slot.planned.device.clone();
        let verdict_text = verdict.map_or("", Verdict::as_str);
        tracing::info!(%device, from = %change.from, to = %change.to, verdict = verdict_text, "the status has changed");
        let Change { from, to, onset, last_ok } = change;
        let transition = Transition { device, from, to, onset, last_ok, verdict, evidence: Some(evidence) };
        slot.is_unsteady = true;
        self.is_news = true;
        let slot = &mut self.slots[index];
        let flags = slot.degraded.reset();
        self.backlog.push_back((Body::Transition(transition), now));
        if let Some(flags) = flags {
            self.tell_flags(index, flags, now);
        }
    }

    /// The collector doesn't have all that was told: it hears every verdict anew.
    fn restate_if_asked(&mut self, now: Uptime) {
        let asked = self.ends.standing.borrow().restatements;
        if std::mem::replace(&mut self.restatements, asked) == asked {
            return;
        }
        tracing::warn!("the collector has lost something: telling every state anew");
        for slot in self.slots.iter().filter(|slot| slot.monitor.status() != delta::UNOBSERVED) {
            let transition = Transition {
                device: slot.planned.device.clone(),
                from: delta::UNOBSERVED,
                to: slot.monitor.status(),
                onset: slot.monitor.since(),
                last_ok: None,
                verdict: slot.verdict,
                evidence: None,
            };
            self.backlog.push_back((Body::Transition(transition), now));
        }
        for slot in &self.slots {
            let device = slot.planned.device.clone();
            let flags = slot.degraded.flags();
            if flags != Flags::default() {
                self.backlog.push_back((Body::Flagged(Flagged { device: device.clone(), flags, since: now }), now));
            }
            let identity = slot.identity.mac().map(|mac| delta::Identity { device, mac, is_contested: false });
            self.backlog.extend(identity.map(|identity| (Body::Identity(identity), now)));
        }
    }

    fn take_plan(&mut self, now: Uptime) {
        let plan = Arc::clone(&self.ends.plan.borrow_and_update());
        self.generation += 1;
        let mut before: HashMap<DeviceId, Slot> = self.slots.drain(..).map(|slot| (slot.planned.device.clone(), slot)).collect();
        self.schedule = Schedule::default();
        self.witnesses.forget();
        self.routes = Routes::read();
        self.tally.counts.keep(plan.targets.iter().map(|planned| &planned.device));
        for planned in &plan.targets {
            let kept = before.remove(&planned.device).filter(|slot| slot.planned.is_same_place(planned));
            let due = phase(&planned.device, planned.rule.interval_ms, now);
            let slot = match kept {
                Some(slot) => Slot { planned: planned.clone(), in_flight: None, due, left_in_round: 0, ..slot },
                None => Slot {
                    planned: planned.clone(),
                    asked: planned.asked(),
                    monitor: Monitor::new(now),
                    summary: Summary::default(),
                    // Minutes before it was added were not observed.
                    minutes: vec![Minute::default(); self.minutes_held()],
                    due,
                    in_flight: None,
                    silent_since: None,
                    slow_ms: 0,
                    silent_from: None,
                    heard: None,
                    left_in_round: 0,
                    recorder: Recorder::default(),
                    degraded: Degraded::default(),
                    is_unsteady: false,
                    verdict: None,
                    identity: Identity::default(),
                    watched: None,
                },
            };
            // A device of which nothing is known yet is asked at once, a slow rule would leave it unknown for an hour.
            let first = now.plus(due.since(now) % 1_000);
            let known = slot.monitor.status() != delta::UNOBSERVED;
            self.schedule.wait(self.slots.len(), if known { due } else { first });
            self.slots.push(slot);
        }
        let names = plan.targets.iter().filter_map(|planned| match &planned.host {
            Host::Name(name) => Some(name.clone()),
            Host::Address(_) => None,
        });
        self.names.set(names);
        self.names.ask_due(now);
        tracing::info!(version = plan.version, targets = plan.targets.len(), "a plan is in force");
        self.tell_tally();
    }

    fn minutes_held(&self) -> usize {
        self.first_minute.map_or(0, |first| usize::try_from((self.minute_end.since(first)) / MINUTE_MS).unwrap_or(0))
    }

    /// The end of the minute after `now`: a full minute of UTC where the time is known.
    fn following_minute(&self, now: Uptime) -> Uptime {
        match self.ends.standing.borrow().dating {
            Some(dating) => now.plus(Plan::until_minute_ends(dating.date(now).0)),
            None => now.plus(MINUTE_MS),
        }
    }

    /// The time has become known, or better known: the minute that runs ends where it ends in UTC. One that has only
    /// just begun is the same one as before, read by a clock that was corrected.
    fn align_minute(&mut self, now: Uptime) {
        self.ends.standing.mark_unchanged();
        let end = self.following_minute(now);
        if end < self.minute_end && end.since(self.minute_began) >= MINUTE_MS / 2 {
            self.minute_end = end;
        }
    }

    fn end_minute(&mut self, now: Uptime) {
        self.minute_began = now;
        if self.slots.is_empty() {
            self.minute_end = self.following_minute(now);
            return;
        }
        self.first_minute.get_or_insert(self.minute_end);
        for at in 0..self.slots.len() {
            let slot = &mut self.slots[at];
            let minute = slot.summary.take();
            slot.minutes.push(minute);
            let is_unsteady = std::mem::take(&mut slot.is_unsteady);
            if is_unsteady || slot.monitor.status() != Status::Up {
                continue;
            }
            let rule = slot.planned.rule;
            if let Some(flags) = slot.degraded.take(&minute, &rule) {
                self.tell_flags(at, flags, now);
            }
        }
        let next = self.following_minute(now);
        // A minute that would end within seconds is the same one, read by a clock that was corrected.
        self.minute_end = if next.since(now) < MINUTE_MS / 2 { next.plus(MINUTE_MS) } else { next };
        let regular = self.first_minute.is_some_and(|first| {
            self.minute_end.since(first).abs_diff(self.slots[0].minutes.len() as u64 * MINUTE_MS) < MINUTE_MS / 2
        });
        if !regular {
            self.report_qualities(now);
        }
    }

    fn report_qualities(&mut self, now: Uptime) {
        self.reported_at = now;
        let Some(first_end) = self.first_minute.take() else { return };
        let mut columns: BTreeMap<u16, Vec<Column>> = BTreeMap::new();
        for slot in &mut self.slots {
            let minutes = std::mem::take(&mut slot.minutes);
            if minutes.iter().any(|minute| minute.sent > 0) {
                let unit_us = unit_us(&minutes);
                columns.entry(unit_us).or_default().push(Column::pack(slot.planned.device.clone(), &minutes, unit_us));
            }
        }
        for (unit_us, columns) in columns {
            for columns in blocks(columns) {
                self.backlog.push_back((Body::Qualities(Qualities { first_end, unit_us, columns }), now));
            }
        }
    }

    /// Tells how far everything has been observed: no further than a sign that may yet become a change.
    fn tell(&mut self, now: Uptime) {
        self.told_at = now;
        self.hear_who(now);
        self.hand_over();
        if !self.backlog.is_empty() {
            return;
        }
        let unsure = self.slots.iter().flat_map(|slot| [slot.in_flight, slot.monitor.pending_since()]).flatten().min();
        // A verdict that is slow to be confirmed must not make the collector take the whole branch for silent.
        let bound = Uptime(now.0.saturating_sub(CONFIRMATION_LIMIT_MS));
        // The keeper being stuck is told by the entries that pile up, not by this.
        let _ = self.ends.entries.try_send(Command::Observed(unsure.unwrap_or(now).clamp(bound, now)));
        let age = self.slots.iter().map(|slot| now.since(slot.due).saturating_sub(slot.planned.rule.interval_ms.into()));
        self.tally.probe_age_ms = age.max().unwrap_or(0);
        if self.tally.probe_age_ms < OVERDUE_MS {
            self.ends.pulse.beat();
        }
        self.tally.receive_drops = self.prober.receive_drops();
        self.tally.stray_replies = self.prober.stray_replies();
        self.ends.tally.send_if_modified(|told| {
            // Counts travel with the next heartbeat: nobody has to be woken for them.
            *told = self.tally.clone();
            false
        });
    }

    fn answer(&mut self, ask: Ask, now: Uptime) {
        match ask {
            Ask::Watch { devices, for_ms } => {
                let until = now.plus(u64::from(for_ms).min(WATCHED_FOR_MS));
                for slot in &mut self.slots {
                    if devices.iter().take(WATCHED_LIMIT).any(|device| *device == slot.planned.device) {
                        let watching = || Watching { until, since: now, summary: Summary::default() };
                        slot.watched.get_or_insert_with(watching).until = until;
                    }
                }
                self.watched_at.get_or_insert(now.plus(WATCHED_EVERY_MS));
            }
            Ask::Probe { id, device, count } => match self.subject(&device, now) {
                Some(subject) => self.questions.probe(id, subject, count),
                None => self.questions.no_device(id),
            },
            Ask::Route { id, device } => match self.subject(&device, now) {
                Some(subject) => self.questions.route(id, subject),
                None => self.questions.no_device(id),
            },
            Ask::Discover { id } => {
                let known = self.slots.iter().map(|slot| slot.asked.address).collect();
                let never = self.slots.iter().enumerate().filter(|(_, slot)| slot.heard.is_none());
                let never = never.filter_map(|(at, _)| u16::try_from(at).ok()).collect();
                self.questions.discover(id, known, never, self.ends.plan.borrow().version);
            }
            // The link takes these elsewhere.
            Ask::Update { .. } | Ask::Health => {}
        }
    }

    /// A device that somebody asks about, with what is known around it.
    fn subject(&mut self, device: &DeviceId, now: Uptime) -> Option<Subject> {
        let index = self.slots.iter().position(|slot| slot.planned.device == *device)?;
        self.routes = Routes::read();
        let evidence = self.evidence(index, now, now);
        let slot = &self.slots[index];
        let gateway = self.routes.gateway_beside(&slot.asked);
        let (asked, status) = (slot.asked.clone(), slot.monitor.status());
        Some(Subject { asked, status, gateway, evidence, timeout_ms: slot.planned.rule.timeout_ms })
    }

    /// Tells how watched devices have answered since the last time.
    fn tell_watched(&mut self, now: Uptime) {
        let mut watched = Vec::new();
        for slot in &mut self.slots {
            let Some(watching) = &mut slot.watched else { continue };
            let span_ms = u32::try_from(now.since(watching.since)).unwrap_or(u32::MAX);
            let quality = watching.summary.take();
            // A device that is asked more rarely is told of when it has been asked.
            if quality.sent > 0 && watched.len() < WATCHED_LIMIT {
                watching.since = now;
                watched.push(Watched { device: slot.planned.device.clone(), span_ms, quality });
            }
            if now >= watching.until {
                slot.watched = None;
            }
        }
        let goes_on = self.slots.iter().any(|slot| slot.watched.is_some());
        self.watched_at = goes_on.then(|| now.plus(WATCHED_EVERY_MS));
        if !watched.is_empty() {
            // One that finds no room is not repeated: the next comes in seconds.
            let _ = self.ends.answers.try_send(Answer::Watched(watched));
        }
    }

    fn tell_tally(&mut self) {
        let state = |slot: &Slot| Live {
            device: slot.planned.device.clone(),
            status: slot.monitor.status(),
            onset: slot.monitor.since(),
            verdict: slot.verdict,
            flags: slot.degraded.flags(),
        };
        self.tally.states = Arc::new(self.slots.iter().map(state).collect());
        self.ends.tally.send_replace(self.tally.clone());
    }

    fn hand_over(&mut self) {
        while let Some((body, at)) = self.backlog.pop_front() {
            match self.ends.entries.try_send(Command::Entry(body, at)) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(Command::Entry(body, at))) => {
                    self.backlog.push_front((body, at));
                    break;
                }
                Err(_) => return,
            }
        }
        if self.backlog.len() > BACKLOG_LIMIT {
            self.shorten_backlog();
        }
    }

    /// The keeper has been stuck for hours: the older half becomes a gap that says what it held.
    fn shorten_backlog(&mut self) {
        let mut dropped = Dropped::default();
        let lost: Vec<(Body, Uptime)> = self.backlog.drain(..BACKLOG_LIMIT / 2).collect();
        let (mut from, mut to) = (Uptime(u64::MAX), Uptime(0));
        for (body, at) in &lost {
            let gap = gap_of(body, *at);
            dropped.add(gap.dropped);
            (from, to) = (from.min(gap.from), to.max(*at));
        }
        tracing::error!(entries = lost.len(), "the keeper of the buffer is stuck: entries become a gap");
        let gap = Gap { span: 1, from, to, reason: GapReason::BufferFull, dropped };
        self.backlog.push_front((Body::Gap(gap), to));
    }
}

impl Slot {
    /// What an outcome says of the device: one that doesn't answer where its name last pointed to may stand elsewhere by now,
    /// as long as that name doesn't resolve. What can't be sent because the line of its own has no carrier does not get through.
    fn meaning(&self, outcome: Outcome, routes: &Routes, names: &Names) -> Outcome {
        match (&self.planned.host, outcome) {
            (Host::Name(name), Outcome::Timeout | Outcome::Unreachable) if names.get(name).is_failing => Outcome::NoAddress,
            (_, Outcome::SendError) if self.asked.via.is_some() => {
                let has_carrier = routes.interface(&self.asked).and_then(carrier);
                if has_carrier == Some(false) { Outcome::Unreachable } else { outcome }
            }
            (Host::Name(_) | Host::Address(_), outcome) => outcome,
        }
    }

    /// How long its reply is waited for, in ms. One that answers slowly is no silent one, and of one that is down nothing
    /// hangs on how soon it is known to be silent still.
    fn patience_ms(&self) -> u32 {
        let rule = self.planned.rule;
        match self.monitor.status() {
            Status::Down => rule.timeout_ms.max(rule.interval_ms.min(GRACE_MS)),
            Status::Up | Status::Unknown(_) => rule.timeout_ms.max(self.slow_ms),
        }
    }

    /// Its name points to that address: the box there need not be the one at another.
    fn stands_at(&mut self, address: IpAddr) {
        if self.asked.address != address {
            self.asked.address = address;
            self.identity = Identity::default();
        }
    }

    /// It has answered what was sent then.
    fn answered(&mut self, sent: Uptime) {
        self.heard = self.heard.max(Some(sent));
        self.silent_since = self.silent_since.filter(|silent| *silent > sent);
        self.silent_from = self.silent_since;
    }

    /// It has not answered what was sent then.
    fn missed(&mut self, sent: Uptime) {
        self.silent_since = Some(sent);
        self.silent_from = self.silent_from.or(Some(sent));
    }

    /// Whether it is reached by that interface, if that is said.
    fn is_behind(&self, interface: Option<&str>, routes: &Routes) -> bool {
        interface.is_none() || routes.interface(&self.asked) == interface
    }
}

/// Columns in blocks of about [`BLOCK_LIMIT_BYTES`].
fn blocks(columns: Vec<Column>) -> Vec<Vec<Column>> {
    let mut blocks: Vec<Vec<Column>> = Vec::new();
    let mut bytes = 0;
    for column in columns {
        let size = postcard::experimental::serialized_size(&column).unwrap_or(0);
        bytes += size;
        match blocks.last_mut() {
            Some(block) if bytes <= BLOCK_LIMIT_BYTES => block.push(column),
            Some(_) | None => {
                bytes = size;
                blocks.push(vec![column]);
            }
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use shared::StreamId;
    use shared::message::ProbeRule;

    use super::*;

    /// Hands nothing to the network.
    struct Silent;

    impl Prober for Silent {
        async fn probe(&self, _: &Asked, _: Duration) -> Outcome {
            Outcome::Timeout
        }
    }

    /// A watch of so many devices on the loopback, and what listens to it.
    fn watch(devices: u8) -> (Watch<Silent>, impl Sized) {
        let rule = ProbeRule { timeout_ms: 1_000, ..ProbeRule::default() };
        let planned = |i: u8| {
            let device = format!("vake-atm-{i}").parse().expect("a valid id");
            Planned::ping(device, [127, 0, 0, i + 1].into(), rule)
        };
        let targets = (0..devices).map(planned).collect();
        let (plan_in, plan) = watch::channel(Arc::new(Plan { version: 1, heartbeat_ms: 24_000, report_ms: 600_000, targets }));
        let (standing_in, standing) = watch::channel(Standing::begun(StreamId(1)));
        let (heard_in, heard) = watch::channel(Uptime(0));
        let (entries, entries_out) = mpsc::channel(100);
        let (tally, tally_out) = watch::channel(Tally::default());
        let (asks_in, asks) = mpsc::channel(10);
        let (answers, answers_out) = mpsc::channel(10);
        let (proofs, proofs_out) = watch::channel(Uptime(0));
        let ends = Ends { plan, standing, entries, tally, asks, answers, proofs, heard, pulse: Pulse::default() };
        let others = (plan_in, standing_in, heard_in, entries_out, tally_out, asks_in, answers_out, proofs_out);
        (Watch::new(Arc::new(Silent), ends, clock::uptime()), others)
    }

    fn hear(watch: &mut Watch<Silent>, purpose: Purpose, sent: Uptime, outcome: Outcome) {
        watch.hear(Told { generation: watch.generation, purpose, sent, outcome, late: None });
    }

    /// How often each target waits for its turn.
    fn turns(watch: &mut Watch<Silent>) -> Vec<usize> {
        let mut turns = vec![0; watch.slots.len()];
        while let Some((index, _)) = watch.schedule.take_due(Uptime(u64::MAX)) {
            turns[index] += 1;
        }
        turns
    }

    #[tokio::test]
    async fn a_target_waits_for_one_turn_after_an_isolation_ends() {
        let reply = Outcome::Reply { rtt_us: 300 };
        for asked in [Purpose::Target(1), Purpose::Witness(1), Purpose::Gateway] {
            let (mut watch, _others) = watch(3);
            watch.isolated.insert(None, clock::uptime());
            if let Purpose::Target(index) = asked {
                let rest = turns(&mut watch).len();
                (0..rest).filter(|at| *at != index).for_each(|at| watch.schedule.wait(at, Uptime(0)));
            }
            hear(&mut watch, asked, clock::uptime(), reply);
            assert_eq!((turns(&mut watch), watch.isolated.len()), (vec![1, 1, 1], 0), "{asked:?}");
        }
    }

    #[tokio::test]
    async fn what_was_missed_during_an_isolation_makes_no_device_down_after_it() {
        let (mut watch, _others) = watch(3);
        let began = clock::uptime();
        for n in 0..2 {
            hear(&mut watch, Purpose::Target(1), began.plus(n), Outcome::Timeout);
        }
        watch.isolate(1, began, began);
        hear(&mut watch, Purpose::Target(1), began.plus(2_000), Outcome::Timeout);
        hear(&mut watch, Purpose::Witness(2), began.plus(10_000), Outcome::Reply { rtt_us: 300 });
        hear(&mut watch, Purpose::Target(1), began.plus(10_001), Outcome::Timeout);
        let monitor = &watch.slots[1].monitor;
        let isolated = Status::Unknown(Cause::AgentIsolated);
        assert_eq!((monitor.status(), monitor.pending_since()), (isolated, Some(began.plus(10_001))));
    }

    #[tokio::test]
    async fn a_device_that_answers_slowly_or_others_questions_is_not_silent() {
        let (mut watch, _others) = watch(3);
        let at = clock::uptime();
        watch.slots[1].planned.rule.timeout_ms = 450;
        let reply = |ms: u32| Outcome::Reply { rtt_us: ms * 1_000 };
        hear(&mut watch, Purpose::Target(1), at, reply(1));
        watch.witnesses.replied(0, at.plus(9_000));
        for (n, came) in [(1, Purpose::Late(1)), (2, Purpose::Witness(1)), (3, Purpose::Late(1)), (4, Purpose::Late(1))] {
            hear(&mut watch, Purpose::Target(1), at.plus(n * 1_000), Outcome::Timeout);
            hear(&mut watch, came, at.plus(n * 1_000 + u64::from(matches!(came, Purpose::Witness(_)))), reply(600));
        }
        assert_eq!((watch.slots[1].monitor.status(), watch.slots[1].monitor.pending_since()), (Status::Up, None));
        assert_eq!((watch.slots[1].patience_ms(), watch.slots[1].silent_from), (1_200, None));
        hear(&mut watch, Purpose::Target(1), at.plus(5_000), reply(600));
        assert_eq!(watch.slots[1].patience_ms(), 1_200);
        hear(&mut watch, Purpose::Target(1), at.plus(6_000), reply(100));
        assert_eq!(watch.slots[1].patience_ms(), 450);
    }

    #[tokio::test]
    async fn a_round_has_as_many_probes_as_the_rule_says_and_one_miss_ends_it() {
        let (mut watch, _others) = watch(1);
        watch.slots[0].planned.rule = ProbeRule { packets: 3, ..ProbeRule::default() };
        let mut sent = clock::uptime();
        let mut after = |outcome| {
            sent = sent.plus(1_000);
            watch.schedule = Schedule::default();
            hear(&mut watch, Purpose::Target(0), sent, outcome);
            (watch.slots[0].left_in_round, watch.schedule.next().expect("it has a turn").since(sent))
        };
        let reply = Outcome::Reply { rtt_us: 300 };
        // The first round began before there was a rule for it.
        after(reply);
        let left = [reply, reply, reply, reply].map(|outcome| {
            let (left, pause_ms) = after(outcome);
            assert!(left == 2 || pause_ms == u64::from(PACKET_PAUSE_MS), "{pause_ms} ms");
            left
        });
        assert_eq!(left, [1, 0, 2, 1]);
        assert_eq!(after(Outcome::Timeout).1, u64::from(ProbeRule::default().retry_ms));
    }

    #[tokio::test]
    async fn what_was_never_asked_is_no_witness_of_an_isolation() {
        let (mut watch, _others) = watch(4);
        let began = clock::uptime();
        for n in 0..3 {
            for index in [0, 1] {
                hear(&mut watch, Purpose::Target(index), began.plus(n + 400), Outcome::SendError);
            }
            hear(&mut watch, Purpose::Target(2), began.plus(n), Outcome::Timeout);
        }
        // Nothing is settled yet: nobody has answered, and nobody else was silent.
        assert_eq!((watch.slots[2].monitor.status(), watch.isolated.len()), (delta::UNOBSERVED, 0));
        watch.witnesses.replied(3, began.plus(1_000));
        hear(&mut watch, Purpose::Target(2), began.plus(3), Outcome::Timeout);
        assert_eq!(watch.slots[2].monitor.status(), Status::Down);
    }

    #[tokio::test]
    async fn devices_that_are_down_are_no_witnesses_of_an_isolation() {
        let (mut watch, _others) = watch(3);
        let began = clock::uptime();
        for (n, index) in [0, 1].into_iter().flat_map(|index| [0, 1, 2].map(|n| (n, index))) {
            watch.witnesses.replied(2, began.plus(n + 10_000));
            hear(&mut watch, Purpose::Target(index), began.plus(n), Outcome::Timeout);
        }
        assert_eq!([0, 1, 2].map(|index| watch.slots[index].monitor.status() == Status::Down), [true, true, false]);
        // The two are asked on, and are as silent as before.
        let later = began.plus(60_000);
        for index in [0, 1] {
            hear(&mut watch, Purpose::Target(index), later.plus(1_000), Outcome::Timeout);
        }
        for n in 0..3 {
            hear(&mut watch, Purpose::Target(2), later.plus(n), Outcome::Timeout);
        }
        assert_eq!((watch.slots[2].monitor.status(), watch.isolated.len()), (Status::Down, 0));
    }

    #[tokio::test]
    async fn what_a_stuck_keeper_does_not_take_becomes_a_gap_that_says_how_much() {
        let (mut watch, _others) = watch(1);
        let device: DeviceId = "vake-atm-0".parse().expect("a valid id");
        let (from, to) = (Status::Up, Status::Down);
        let change = |n: u64| {
            let onset = Uptime(n);
            let change = Transition { device: device.clone(), from, to, onset, last_ok: None, verdict: None, evidence: None };
            (Body::Transition(change), Uptime(n + 1_500))
        };
        // The channel takes a hundred.
        let told = BACKLOG_LIMIT + 101;
        watch.backlog.extend((0..told as u64).map(change));
        watch.hand_over();
        assert_eq!(watch.backlog.len(), told - 100 - BACKLOG_LIMIT / 2 + 1);
        let Some((Body::Gap(gap), at)) = watch.backlog.front() else { panic!("{:?}", watch.backlog.front()) };
        assert_eq!(gap.dropped, Dropped { transitions: BACKLOG_LIMIT as u64 / 2, ..Dropped::default() });
        assert_eq!((gap.from, gap.to, *at), (Uptime(100), Uptime(BACKLOG_LIMIT as u64 / 2 + 99 + 1_500), gap.to));
        watch.hand_over();
        assert!(matches!(watch.backlog.get(1), Some((Body::Transition(_), _))), "the rest is kept");
    }

    #[test]
    fn a_block_of_qualities_is_small_enough_for_a_slow_line() {
        let column = |i: usize| {
            let minute = Minute { sent: 30, lost: 30, rtt: None };
            Column::pack(format!("vake-atm-{i}").parse().expect("a valid id"), &vec![minute; 60], 10)
        };
        let columns: Vec<Column> = (0..1_000).map(column).collect();
        let split = blocks(columns.clone());
        assert_eq!(split.concat(), columns);
        let sizes: Vec<usize> = split.iter().map(|block| postcard::to_stdvec(block).expect("serialisable").len()).collect();
        assert!(sizes.iter().all(|size| *size <= BLOCK_LIMIT_BYTES + 10) && sizes[0] > BLOCK_LIMIT_BYTES / 2, "{sizes:?}");
        assert!(blocks(Vec::new()).is_empty());
    }
}

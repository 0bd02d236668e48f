//! Probes each target when it is due, judges what comes back, and tells the keeper what changed.
//!
//! One task for all targets: waking up is what costs, not the packets. It never waits for the disk or the link.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use shared::delta::unit_us;
use shared::message::{Answer, Ask, Live, WATCHED_LIMIT, Watched};
use shared::{Body, Cause, Column, DeviceId, Dropped, Gap, GapReason, Minute, Qualities, Status, Transition, Uptime};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::buffer::CONFIRMATION_LIMIT_MS;
use crate::clock;
use crate::isolation::{Finding, judge};
use crate::keeper::{Command, Standing};
use crate::monitor::{Change, Monitor, Outcome};
use crate::plan::{Plan, Planned};
use crate::probe::Prober;
use crate::schedule::{Schedule, phase};
use crate::service::Pulse;
use crate::summary::Summary;
use crate::surroundings::{Routes, carrier};
use crate::witness::{ROUND, Witnesses};

/// Time between two looks at the schedule, in ms.
const TICK_MS: u64 = 10;
/// Most probes sent in one tick: more at once overrun the receive buffer.
const BURST_LIMIT: usize = 100;
/// How often the keeper is told how far everything has been observed, in ms.
const OBSERVED_MS: u64 = 500;
/// Most entries that wait while the keeper is stuck on its disk.
const BACKLOG_LIMIT: usize = 10_000;
/// Most bytes of one block of qualities, about: on a slow line it must not hold an outage up for long.
const BLOCK_LIMIT_BYTES: usize = 4_000;
/// Set in the sequence numbers of probes that only ask whether anybody is there: they lie beside a target's own.
const WITNESS_BIT: u16 = 0x8000;
/// Answers to what was sent so shortly after a silence began tell nothing of whose fault it is, in ms.
const AFTERMATH_MS: u64 = 300;
/// A watch of which some target waits for longer than this beyond its interval, in ms, gets on only where probes end.
const OVERDUE_MS: u64 = 10_000;
/// Length of a minute in ms.
const MINUTE_MS: u64 = 60_000;

/// While devices are watched: how often their newest quality is told, in ms.
const WATCHED_EVERY_MS: u64 = 2_000;
/// Longest time for which a device is watched without being asked again, in ms.
const WATCHED_FOR_MS: u64 = 120_000;
/// Least time in ms between two reports of qualities while there is no link: a report costs the card kilobytes, and
/// nobody reads it before the link is back.
const OFF_LINE_REPORT_MS: u64 = 900_000;

/// What the watch tells beside entries.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Ticks that were skipped because we were late.
    pub ticks_missed: u64,
    /// Probes that couldn't be sent.
    pub send_errors: u64,
    /// Replies that the kernel dropped for want of room.
    pub receive_drops: u64,
    /// The longest that any target has waited for a probe beyond its interval, in ms.
    pub probe_age_ms: u64,
    /// Every target's newest state.
    pub states: Arc<Vec<Live>>,
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
    pub proofs: mpsc::Sender<()>,
    /// When that was sent which the broker has answered last.
    pub heard: watch::Receiver<Uptime>,
    /// Beats with each probe that ends, and while none is overdue.
    pub pulse: Pulse,
}

struct Slot {
    planned: Planned,
    monitor: Monitor,
    summary: Summary,
    minutes: Vec<Minute>,
    due: Uptime,
    in_flight: Option<Uptime>,
    sequence: u16,
    /// When the newest probe was sent, if it was not answered.
    silent_since: Option<Uptime>,
    watched: Option<Watching>,
}

/// Who was probed, and what for.
#[derive(Debug, Clone, Copy)]
enum Asked {
    /// A target, in its turn.
    Target(usize),
    /// A target, to see whether anybody answers.
    Witness(usize),
    /// The gateway, for the same.
    Gateway,
}

/// Somebody looks at a device.
#[derive(Debug)]
struct Watching {
    until: Uptime,
    since: Uptime,
    summary: Summary,
}

type Probing = BoxFuture<'static, (u64, Asked, Uptime, Outcome)>;

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
    is_isolated: bool,
    /// When it was last found so.
    isolated_at: Option<Uptime>,
    round: u16,
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
            is_isolated: false,
            isolated_at: None,
            round: 0,
            backlog: VecDeque::new(),
            tally: Tally::default(),
        };
        watch.take_plan(now);
        watch.minute_end = watch.following_minute(now);
        watch
    }

    async fn step(&mut self, shutdown: &CancellationToken) {
        let now = clock::uptime();
        self.send_due(now);
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
        let wake = self.schedule.next().unwrap_or(now.plus(OBSERVED_MS)).min(self.told_at.plus(OBSERVED_MS));
        let wake = self.watched_at.map_or(wake, |at| at.min(wake));
        // Whole ticks, so that targets that are due within one share a wake-up.
        let wait = wake.since(clock::uptime()).div_ceil(TICK_MS).max(1) * TICK_MS;
        tokio::select! {
            () = shutdown.cancelled() => {}
            changed = self.ends.plan.changed() => match changed {
                Ok(()) => self.take_plan(clock::uptime()),
                // Nobody can send another plan: keep to this one.
                Err(_) => tokio::time::sleep(Duration::from_millis(wait)).await,
            },
            Some((generation, asked, sent, outcome)) = self.probing.next(), if !self.probing.is_empty() => {
                // What was asked under an earlier plan is no answer of this one's targets.
                if generation == self.generation {
                    self.hear(asked, sent, outcome);
                }
            }
            Some(ask) = self.ends.asks.recv() => self.answer(ask, clock::uptime()),
            () = tokio::time::sleep(Duration::from_millis(wait)) => {}
        }
    }

    fn send_due(&mut self, now: Uptime) {
        for _ in 0..BURST_LIMIT {
            let Some((index, due)) = self.schedule.take_due(now) else { return };
            let slot = &mut self.slots[index];
            slot.due = due;
            slot.in_flight = Some(now);
            let (address, timeout_ms) = (slot.planned.address, slot.planned.rule.timeout_ms);
            slot.sequence = (slot.sequence + 1) & !WITNESS_BIT;
            let sequence = slot.sequence;
            self.send(Asked::Target(index), address, sequence, timeout_ms, now);
        }
    }

    fn send(&mut self, asked: Asked, address: IpAddr, sequence: u16, timeout_ms: u32, now: Uptime) {
        let timeout = Duration::from_millis(timeout_ms.into());
        let (prober, generation) = (Arc::clone(&self.prober), self.generation);
        self.probing.push(Box::pin(async move { (generation, asked, now, prober.probe(address, sequence, timeout).await) }));
    }

    fn hear(&mut self, asked: Asked, sent: Uptime, outcome: Outcome) {
        let has_replied = matches!(outcome, Outcome::Reply { .. });
        match asked {
            Asked::Gateway => self.witnesses.gateway_told(sent, has_replied),
            Asked::Target(index) | Asked::Witness(index) => {
                self.slots[index].silent_since = (!has_replied).then_some(sent);
                if has_replied {
                    self.witnesses.replied(index, sent);
                }
            }
        }
        let is_back = has_replied && std::mem::take(&mut self.is_isolated);
        if let Asked::Target(index) = asked {
            self.observe(index, sent, outcome);
        }
        // Last, as a target that was just observed waits for its turn already.
        if is_back {
            tracing::info!("somebody answers again: the agent is not isolated any more");
            self.restart_schedule(clock::uptime());
        }
    }

    /// A device missed a probe: others are asked, so that it is known whose fault that is by the time it is told.
    fn ask_others(&mut self, index: usize, now: Uptime) {
        let Some(from) = self.witnesses.begin_round(self.slots.len(), now) else { return };
        self.routes = Routes::read();
        self.witnesses.gateway = self.routes.gateway_beside(self.slots[index].planned.address);
        self.round = self.round.wrapping_add(1);
        let (sequence, rule) = (self.round | WITNESS_BIT, self.slots[index].planned.rule);
        if let Some(gateway) = self.witnesses.gateway {
            self.send(Asked::Gateway, gateway, sequence, rule.timeout_ms, now);
        }
        let others = (from..from + self.slots.len()).map(|at| at % self.slots.len());
        let may_answer = |at: &usize| *at != index && self.slots[*at].monitor.status() != Status::Down;
        let round: Vec<usize> = others.filter(may_answer).take(ROUND).collect();
        for witness in round {
            let planned = &self.slots[witness].planned;
            let (address, timeout_ms) = (planned.address, planned.rule.timeout_ms);
            self.send(Asked::Witness(witness), address, sequence, timeout_ms, now);
        }
    }

    /// What a silence that began at `onset` and is long enough to be told means, if that is known.
    fn weigh(&mut self, index: usize, onset: Uptime, now: Uptime) -> Option<Status> {
        // What was silent while nobody answered has told nothing: it is counted anew.
        if self.is_isolated && self.isolated_at.is_some_and(|at| onset <= at) {
            return Some(Status::Unknown(Cause::AgentIsolated));
        }
        let heard = *self.ends.heard.borrow();
        self.witnesses.broker_replied(heard);
        let address = self.slots[index].planned.address;
        let carrier = self.routes.interface(address).and_then(carrier);
        let evidence = |watch: &Self| {
            // One that is known to be down says nothing by its silence.
            let may_tell = |slot: &Slot| slot.monitor.status() != Status::Down;
            let others = watch.slots.iter().enumerate().filter(|(at, slot)| *at != index && may_tell(slot));
            let silent = others.map(|(_, slot)| slot.silent_since);
            // What was under way when it happened may have got through still.
            watch.witnesses.evidence(index, silent, carrier, onset.plus(AFTERMATH_MS), now)
        };
        let mut finding = judge(&evidence(self), onset, now);
        // Before the agent takes itself for isolated, the broker has a word.
        let is_connected = self.ends.standing.borrow().is_connected;
        if finding == Finding::Agent && carrier != Some(false) && self.witnesses.begin_asking_broker(is_connected, now) {
            let _ = self.ends.proofs.try_send(());
            finding = judge(&evidence(self), onset, now);
        }
        match finding {
            Finding::Device => Some(Status::Down),
            Finding::Agent => {
                self.isolated_at = Some(now);
                Some(Status::Unknown(Cause::AgentIsolated))
            }
            Finding::Open => None,
        }
    }

    /// Nobody answers: no device's state is known any more, whenever it would have been probed next. Where the cable of
    /// one interface is out, that is so of the devices behind it.
    fn isolate(&mut self, index: usize, onset: Uptime, now: Uptime) {
        self.is_isolated = true;
        let interface = self.routes.interface(self.slots[index].planned.address).filter(|name| carrier(name) == Some(false));
        tracing::warn!(interface, "the agent is isolated: its devices are unknown");
        for at in 0..self.slots.len() {
            let slot = &mut self.slots[at];
            if interface.is_some() && self.routes.interface(slot.planned.address) != interface {
                continue;
            }
            if let Some(change) = slot.monitor.lose(Cause::AgentIsolated, onset) {
                let transition = transition(&slot.planned.device, change);
                self.backlog.push_back((Body::Transition(transition), now));
            }
        }
        self.tell(now);
        self.tell_tally();
    }

    /// Every target is due within a second: whoever was unknown is asked at once.
    fn restart_schedule(&mut self, now: Uptime) {
        self.generation += 1;
        self.schedule = Schedule::default();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            slot.in_flight = None;
            slot.due = phase(&slot.planned.device, slot.planned.rule.interval_ms, now);
            self.schedule.wait(index, now.plus(slot.due.since(now) % 1_000));
        }
    }

    fn observe(&mut self, index: usize, sent: Uptime, outcome: Outcome) {
        self.ends.pulse.beat();
        let now = clock::uptime();
        let rule = self.slots[index].planned.rule;
        if !matches!(outcome, Outcome::Reply { .. }) && self.slots[index].monitor.status() != Status::Down {
            self.ask_others(index, now);
        }
        let means = self.slots[index].monitor.silence(outcome, sent, &rule).and_then(|onset| self.weigh(index, onset, now));
        let slot = &mut self.slots[index];
        slot.in_flight = None;
        slot.summary.add(outcome);
        slot.watched.iter_mut().for_each(|watching| watching.summary.add(outcome));
        if outcome == Outcome::SendError {
            self.tally.send_errors += 1;
        }
        let change = slot.monitor.observe(outcome, sent, &rule, means);
        if slot.monitor.next_after_ms(&rule) < rule.interval_ms {
            self.schedule.wait(index, sent.plus(rule.retry_ms.into()).max(now));
        } else {
            // Back to the phase, whatever the retries did.
            self.tally.ticks_missed += now.since(slot.due) / u64::from(rule.interval_ms);
            self.schedule.wait(index, phase(&slot.planned.device, rule.interval_ms, now.plus(1)));
        }
        if let Some(change) = change {
            self.tell_change(index, change, now);
            if change.to == Status::Unknown(Cause::AgentIsolated) {
                self.isolate(index, change.onset, now);
            }
        }
    }

    fn tell_change(&mut self, index: usize, change: Change, now: Uptime) {
        let device = &self.slots[index].planned.device;
        tracing::info!(%device, from = %change.from, to = %change.to, "the status has changed");
        self.backlog.push_back((Body::Transition(transition(device, change)), now));
        self.tell(now);
        self.tell_tally();
    }

    /// The collector doesn't have all that was told: it hears every verdict anew.
    fn restate_if_asked(&mut self, now: Uptime) {
        let asked = self.ends.standing.borrow().restatements;
        if std::mem::replace(&mut self.restatements, asked) == asked {
            return;
        }
        tracing::warn!("the collector has lost something: telling every state anew");
        for slot in self.slots.iter().filter(|slot| slot.monitor.status() != shared::delta::UNOBSERVED) {
            let transition = Transition {
                device: slot.planned.device.clone(),
                from: shared::delta::UNOBSERVED,
                to: slot.monitor.status(),
                onset: slot.monitor.since(),
                last_ok: None,
            };
            self.backlog.push_back((Body::Transition(transition), now));
        }
    }

    fn take_plan(&mut self, now: Uptime) {
        let plan = Arc::clone(&self.ends.plan.borrow_and_update());
        self.generation += 1;
        let mut before: HashMap<DeviceId, Slot> = self.slots.drain(..).map(|slot| (slot.planned.device.clone(), slot)).collect();
        self.schedule = Schedule::default();
        self.witnesses.forget();
        self.routes = Routes::read();
        for planned in &plan.targets {
            let kept = before.remove(&planned.device).filter(|slot| slot.planned.address == planned.address);
            let due = phase(&planned.device, planned.rule.interval_ms, now);
            let slot = match kept {
                Some(slot) => Slot { planned: planned.clone(), in_flight: None, due, ..slot },
                None => Slot {
                    planned: planned.clone(),
                    monitor: Monitor::new(now),
                    summary: Summary::default(),
                    // Minutes before it was added were not observed.
                    minutes: vec![Minute::default(); self.minutes_held()],
                    due,
                    in_flight: None,
                    sequence: 0,
                    silent_since: None,
                    watched: None,
                },
            };
            // A device of which nothing is known yet is asked at once, a slow rule would leave it unknown for an hour.
            let first = now.plus(due.since(now) % 1_000);
            let known = slot.monitor.status() != shared::delta::UNOBSERVED;
            self.schedule.wait(self.slots.len(), if known { due } else { first });
            self.slots.push(slot);
        }
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
        for slot in &mut self.slots {
            let minute = slot.summary.take();
            slot.minutes.push(minute);
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
        }
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
        let (from, to) = (lost.first().map_or(Uptime(0), |(_, at)| *at), lost.last().map_or(Uptime(0), |(_, at)| *at));
        for (body, _) in &lost {
            match body {
                Body::Transition(_) => dropped.transitions += 1,
                Body::Qualities(q) => dropped.minutes += q.minutes(),
                Body::Gap(gap) => dropped.add(gap.dropped),
                Body::Boot(_) => dropped.unreadable += 1,
            }
        }
        tracing::error!(entries = lost.len(), "the keeper of the buffer is stuck: entries become a gap");
        let gap = Gap { span: 1, from, to, reason: GapReason::BufferFull, dropped };
        self.backlog.push_front((Body::Gap(gap), to));
    }
}

fn transition(device: &DeviceId, Change { from, to, onset, last_ok }: Change) -> Transition {
    Transition { device: device.clone(), from, to, onset, last_ok }
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
        async fn probe(&self, _: IpAddr, _: u16, _: Duration) -> Outcome {
            Outcome::Timeout
        }

        fn receive_drops(&self) -> u64 {
            0
        }
    }

    /// A watch of so many devices on the loopback, and what listens to it.
    fn watch(devices: u8) -> (Watch<Silent>, impl Sized) {
        let rule = ProbeRule { interval_ms: 2_000, timeout_ms: 1_000, retry_ms: 500, fall: 3, rise: 2 };
        let planned = |i: u8| Planned {
            device: format!("vake-atm-{i}").parse().expect("a valid id"),
            address: [127, 0, 0, i + 1].into(),
            rule,
        };
        let targets = (0..devices).map(planned).collect();
        let (plan_in, plan) = watch::channel(Arc::new(Plan { version: 1, heartbeat_ms: 24_000, report_ms: 600_000, targets }));
        let (standing_in, standing) = watch::channel(Standing::begun(StreamId(1)));
        let (heard_in, heard) = watch::channel(Uptime(0));
        let (entries, entries_out) = mpsc::channel(100);
        let (tally, tally_out) = watch::channel(Tally::default());
        let (asks_in, asks) = mpsc::channel(10);
        let (answers, answers_out) = mpsc::channel(10);
        let (proofs, proofs_out) = mpsc::channel(10);
        let ends = Ends { plan, standing, entries, tally, asks, answers, proofs, heard, pulse: Pulse::default() };
        let others = (plan_in, standing_in, heard_in, entries_out, tally_out, asks_in, answers_out, proofs_out);
        (Watch::new(Arc::new(Silent), ends, clock::uptime()), others)
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
        for asked in [Asked::Target(1), Asked::Witness(1), Asked::Gateway] {
            let (mut watch, _others) = watch(3);
            watch.is_isolated = true;
            if let Asked::Target(index) = asked {
                let rest = turns(&mut watch).len();
                (0..rest).filter(|at| *at != index).for_each(|at| watch.schedule.wait(at, Uptime(0)));
            }
            watch.hear(asked, clock::uptime(), reply);
            assert_eq!((turns(&mut watch), watch.is_isolated), (vec![1, 1, 1], false), "{asked:?}");
        }
    }

    #[tokio::test]
    async fn devices_that_are_down_are_no_witnesses_of_an_isolation() {
        let (mut watch, _others) = watch(3);
        let began = clock::uptime();
        for (n, index) in [0, 1].into_iter().flat_map(|index| [0, 1, 2].map(|n| (n, index))) {
            watch.witnesses.replied(2, began.plus(n + 10_000));
            watch.hear(Asked::Target(index), began.plus(n), Outcome::Timeout);
        }
        assert_eq!([0, 1, 2].map(|index| watch.slots[index].monitor.status() == Status::Down), [true, true, false]);
        // The two are asked on, and are as silent as before.
        let later = began.plus(60_000);
        for index in [0, 1] {
            watch.hear(Asked::Target(index), later.plus(1_000), Outcome::Timeout);
        }
        for n in 0..3 {
            watch.hear(Asked::Target(2), later.plus(n), Outcome::Timeout);
        }
        assert_eq!((watch.slots[2].monitor.status(), watch.is_isolated), (Status::Down, false));
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

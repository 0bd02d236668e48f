//! Probes each target when it is due, judges what comes back, and tells the keeper what changed.
//!
//! One task for all targets: waking up is what costs, not the packets. It never waits for the disk or the link.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use shared::message::{Answer, Ask, Live, WATCHED_LIMIT, Watched};
use shared::{Body, Column, DeviceId, Dropped, Gap, GapReason, Minute, Qualities, Transition, Uptime};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::buffer::CONFIRMATION_LIMIT_MS;
use crate::clock;
use crate::keeper::{Command, Standing};
use crate::monitor::{Change, Monitor, Outcome};
use crate::plan::{Plan, Planned};
use crate::probe::Prober;
use crate::schedule::{Schedule, phase};
use crate::service::Pulse;
use crate::summary::Summary;

/// Time between two looks at the schedule, in ms.
const TICK_MS: u64 = 10;
/// Most probes sent in one tick: more at once overrun the receive buffer.
const BURST_LIMIT: usize = 100;
/// How often the keeper is told how far everything has been observed, in ms.
const OBSERVED_MS: u64 = 500;
/// Most entries that wait while the keeper is stuck on its disk.
const BACKLOG_LIMIT: usize = 10_000;
/// What one step of a round-trip time is, in µs.
const UNIT_US: u16 = 10;
/// Most bytes of one block of qualities, about: on a slow line it must not hold an outage up for long.
const BLOCK_LIMIT_BYTES: usize = 4_000;
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
    watched: Option<Watching>,
}

/// Somebody looks at a device.
#[derive(Debug)]
struct Watching {
    until: Uptime,
    since: Uptime,
    summary: Summary,
}

type Probing = BoxFuture<'static, (u64, usize, Uptime, Outcome)>;

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
    backlog: VecDeque<(Body, Uptime)>,
    tally: Tally,
}

/// Watches until `shutdown`, then tells what it holds.
pub async fn run<P: Prober>(prober: Arc<P>, ends: Ends, shutdown: CancellationToken) {
    let now = clock::uptime();
    let mut watch = Watch {
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
        backlog: VecDeque::new(),
        tally: Tally::default(),
    };
    watch.take_plan(now);
    watch.minute_end = watch.following_minute(now);
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
            Some((generation, slot, sent, outcome)) = self.probing.next(), if !self.probing.is_empty() => {
                self.observe(generation, slot, sent, outcome);
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
            slot.sequence = slot.sequence.wrapping_add(1);
            let timeout = Duration::from_millis(slot.planned.rule.timeout_ms.into());
            let (prober, generation) = (Arc::clone(&self.prober), self.generation);
            let (address, sequence): (IpAddr, u16) = (slot.planned.address, slot.sequence);
            self.probing.push(Box::pin(async move { (generation, index, now, prober.probe(address, sequence, timeout).await) }));
        }
    }

    fn observe(&mut self, generation: u64, index: usize, sent: Uptime, outcome: Outcome) {
        if generation != self.generation {
            return;
        }
        self.ends.pulse.beat();
        let now = clock::uptime();
        let slot = &mut self.slots[index];
        slot.in_flight = None;
        slot.summary.add(outcome);
        slot.watched.iter_mut().for_each(|watching| watching.summary.add(outcome));
        if outcome == Outcome::SendError {
            self.tally.send_errors += 1;
        }
        let rule = slot.planned.rule;
        let change = slot.monitor.observe(outcome, sent, &rule);
        if slot.monitor.next_after_ms(&rule) < rule.interval_ms {
            self.schedule.wait(index, sent.plus(rule.retry_ms.into()).max(now));
        } else {
            // Back to the phase, whatever the retries did.
            self.tally.ticks_missed += now.since(slot.due) / u64::from(rule.interval_ms);
            self.schedule.wait(index, phase(&slot.planned.device, rule.interval_ms, now.plus(1)));
        }
        if let Some(change) = change {
            self.tell_change(index, change, now);
        }
    }

    fn tell_change(&mut self, index: usize, change: Change, now: Uptime) {
        let device = self.slots[index].planned.device.clone();
        tracing::info!(%device, from = %change.from, to = %change.to, "the status has changed");
        let Change { from, to, onset, last_ok } = change;
        self.backlog.push_back((Body::Transition(Transition { device, from, to, onset, last_ok }), now));
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
        let columns: Vec<Column> = self
            .slots
            .iter_mut()
            .map(|slot| (slot.planned.device.clone(), std::mem::take(&mut slot.minutes)))
            .filter(|(_, minutes)| minutes.iter().any(|minute| minute.sent > 0))
            .map(|(device, minutes)| Column::pack(device, &minutes, UNIT_US))
            .collect();
        for columns in blocks(columns) {
            self.backlog.push_back((Body::Qualities(Qualities { first_end, unit_us: UNIT_US, columns }), now));
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
    use super::*;

    #[test]
    fn a_block_of_qualities_is_small_enough_for_a_slow_line() {
        let column = |i: usize| {
            let minute = Minute { sent: 30, lost: 30, rtt: None };
            Column::pack(format!("vake-atm-{i}").parse().expect("a valid id"), &vec![minute; 60], UNIT_US)
        };
        let columns: Vec<Column> = (0..1_000).map(column).collect();
        let split = blocks(columns.clone());
        assert_eq!(split.concat(), columns);
        let sizes: Vec<usize> = split.iter().map(|block| postcard::to_stdvec(block).expect("serialisable").len()).collect();
        assert!(sizes.iter().all(|size| *size <= BLOCK_LIMIT_BYTES + 10) && sizes[0] > BLOCK_LIMIT_BYTES / 2, "{sizes:?}");
        assert!(blocks(Vec::new()).is_empty());
    }
}

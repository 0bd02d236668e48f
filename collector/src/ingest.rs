//! From payloads to the ledger and the fleet: one thread, so that what is on disk, what is shown and what is
//! acknowledged can't disagree.
//!
//! A batch is weighed, written, and only then shown and acknowledged. What can't be written is neither.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shared::delta::UNOBSERVED;
use shared::message::{Answer, Ask, Heartbeat};
use shared::wire::decode;
use shared::{
    Ack, Batch, Body, BranchId, Dating, Delta, Flags, Lane, Millis, Presence, Status, StreamId, Transition, Uptime, topic,
};
use tokio::sync::{mpsc, oneshot};
use ward_agent::buffer::CONFIRMATION_LIMIT_MS;
use ward_agent::service::Pulse;

use crate::admission::{Admission, admit};
use crate::availability::spans::Span;
use crate::availability::timelines::Facts;
use crate::clock::{self, Moment};
use crate::feed::Live;
use crate::fleet::{BranchState, Contact, Cut, Fleet, Origin, Quality};
use crate::inbox::{self, Inbox};
use crate::metrics::{Metrics, label};
use crate::outage::{self, Change};
use crate::rollout::{self, Order};
use crate::samples::{self, Metric, Sample, minutes_between, status_value};
use crate::settings::Rollout;
use crate::steady::Steady;
use crate::store::{
    self, CutRow, GapRow, IdentityRow, MinuteRow, Outbox, OutboxReader, ProofRow, Queue, Recent, Store, StoreError, StreamRow,
    TransitionRow,
};

/// How often an agent on a quiet line gets an ack for its heartbeat, in ms: its clock drifts.
const CLOCK_ACK_MS: i64 = 2_400_000;
/// Device-days that are packed in one go.
const SEAL_LIMIT: u32 = 200;
/// Longest hole of status samples that is filled, in ms: more than the longest backlog of an agent.
const FILL_LIMIT_MS: i64 = 40 * 24 * 3_600_000;

/// What the thread can be told.
pub enum Command {
    /// A payload arrived.
    Payload {
        /// Its topic.
        topic: String,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Time has passed: how long the machine has run, which no clock that is set changes.
    Tick(Uptime),
    /// Something like NTP vouches for the machine's clock, by the next tick.
    Synchronised,
    /// The broker can be reached again: it may have forgotten what was retained.
    Republish,
    /// The inventory was changed by another process.
    Reload,
    /// These branches were revoked, and no others are: nobody may speak for them.
    Revoked(BTreeSet<BranchId>),
    /// A reader of the outbox, by its place in the config, has all requests up to this one.
    Sent(usize, i64),
    /// Somebody makes a change; the answer says whether it is made.
    Edit(store::Change, oneshot::Sender<Result<i64, store::EditError>>),
}

/// What goes out to agents.
#[derive(Debug, Clone, PartialEq)]
pub enum Outgoing {
    /// An ack.
    Ack(BranchId, Ack),
    /// A config, retained.
    Config(Order),
    /// A question.
    Ask(BranchId, Ask),
}

/// What the thread works on.
pub struct Ingest {
    store: Store,
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    outgoing: mpsc::Sender<Outgoing>,
    rollout: Rollout,
    /// What waits for VictoriaMetrics; `None` where there is none.
    outbox: Option<Outbox>,
    streams: HashMap<(BranchId, StreamId), StreamRow>,
    acked_at: HashMap<BranchId, Millis>,
    /// Streams of which entries are lost, with how often and when last their agents were asked for their states.
    doubts: HashMap<(BranchId, StreamId), (u32, Millis)>,
    /// How far streams were observed since that was written, with the dates' errors.
    progress: HashMap<(BranchId, StreamId), (Millis, u32)>,
    progress_at: Millis,
    /// What was logged, and is only counted from then on.
    logged: HashSet<(String, &'static str)>,
    /// When agents were asked how they are, of which nobody has heard it since the start.
    health_asked: HashMap<BranchId, Millis>,
    /// Branches for which two agents spoke, and when last.
    contended: HashMap<BranchId, Millis>,
    /// Which inventory the fleet has.
    inventory_version: i64,
    /// Branches that nobody may speak for.
    revoked: BTreeSet<BranchId>,
    sealed_at: Millis,
    /// When it began, and how long the machine has run since.
    began: Moment,
    uptime: Uptime,
    /// The clock, as long as it goes on as clocks do.
    steady: Steady,
    is_synchronised: bool,
    /// The latest date that the clock has ever shown.
    furthest: Millis,
    /// What is ready to be written, in the order in which it came.
    staged: Vec<Staged>,
    /// Which of it is whose. All that is staged of a branch is of one stream.
    staged_of: HashMap<BranchId, (StreamId, Vec<usize>)>,
    /// How far readers have come in the outbox since that was written.
    taken: BTreeMap<usize, i64>,
    /// The last commit failed.
    is_failing: bool,
}

/// Why a payload is refused: a name for metrics, and a sentence.
type Refusal = (&'static str, String);

/// A batch, or a heartbeat's word, that is ready to be written.
struct Staged {
    branch: usize,
    row: StreamRow,
    begins: bool,
    transitions: Vec<(usize, Status, Change, u64)>,
    /// What goes with the transitions of these devices and numbers.
    proofs: Vec<(usize, ProofRow)>,
    flags: Vec<(usize, Flags, Millis, u64)>,
    identities: Vec<(usize, IdentityRow)>,
    origin: Option<Origin>,
    gaps: Vec<GapRow>,
    minutes: Vec<(usize, Vec<MinuteRow>)>,
    samples: Vec<Sample>,
    entries: u64,
    ack: Option<Ack>,
    received: Millis,
    /// Its dates are so uncertain that no time counts as observed by it.
    is_vague: bool,
    /// It speaks of an earlier boot than that of the agent which sends it: it vouches for nothing that is now.
    is_past: bool,
}

impl Staged {
    /// A stream's new standing, with no entries yet.
    fn of(branch: usize, row: StreamRow, received: Millis) -> Self {
        Self {
            branch,
            row,
            begins: false,
            transitions: Vec::new(),
            proofs: Vec::new(),
            flags: Vec::new(),
            identities: Vec::new(),
            origin: None,
            gaps: Vec::new(),
            minutes: Vec::new(),
            samples: Vec::new(),
            entries: 0,
            ack: None,
            received,
            is_vague: false,
            is_past: false,
        }
    }

    /// Until when entries of this stream are lost that may have been transitions, and the last of their numbers.
    fn doubt(&self) -> Option<(Millis, u64)> {
        let lost = |gap: &&GapRow| gap.stream == 0 && (gap.dropped.transitions > 0 || gap.dropped.unreadable > 0);
        let (to, last) =
            (self.gaps.iter().filter(lost).map(|gap| gap.to).max()?, self.gaps.iter().filter(lost).map(|gap| gap.last).max()?);
        Some((to, last))
    }

    /// The transitions that say what devices are: what was told before lost entries says nothing after them.
    fn verdicts(&self) -> impl DoubleEndedIterator<Item = &(usize, Status, Change, u64)> {
        let lost_through = self.doubt().map_or(0, |(_, last)| last);
        self.transitions.iter().filter(move |(.., seq)| *seq > lost_through)
    }
}

impl Ingest {
    /// Takes over what the file holds.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn new(
        store: Store,
        live: Arc<Live>,
        metrics: Arc<Metrics>,
        outgoing: mpsc::Sender<Outgoing>,
        rollout: Rollout,
        queue: Option<Queue>,
        began: Moment,
    ) -> Result<Self, StoreError> {
        let now = began.wall;
        let mut store = store;
        let outbox = queue.map(|queue| store.transaction(|db| Outbox::open(db, queue))).transpose()?;
        let mut ingest = Self {
            store,
            live,
            metrics,
            outgoing,
            rollout,
            outbox,
            streams: HashMap::new(),
            acked_at: HashMap::new(),
            doubts: HashMap::new(),
            progress: HashMap::new(),
            progress_at: Millis(0),
            logged: HashSet::new(),
            health_asked: HashMap::new(),
            contended: HashMap::new(),
            inventory_version: 0,
            revoked: BTreeSet::new(),
            sealed_at: Millis(0),
            began,
            uptime: began.uptime,
            steady: Steady::new(now, began.uptime),
            is_synchronised: false,
            furthest: now,
            staged: Vec::new(),
            staged_of: HashMap::new(),
            taken: BTreeMap::new(),
            is_failing: false,
        };
        ingest.revoked = store::revoked_branches(ingest.store.connection())?;
        ingest.load_inventory(now)?;
        ingest.load_ledger(now)?;
        Ok(ingest)
    }

    fn load_inventory(&mut self, now: Millis) -> Result<(), StoreError> {
        let (inventory, numbers) = store::load_inventory(self.store.connection())?;
        self.inventory_version = store::inventory_version(self.store.connection())?;
        let (rollout, changed) = (&self.rollout, store::changed_identities(self.store.connection())?);
        self.live.replace(now, |fleet| {
            fleet.set_inventory(&inventory, &numbers);
            fleet.set_manners(|device| {
                let manner = rollout.manner_of(&device.id, &device.device_type);
                let (changes, within_ms) = manner.flapping();
                (changes, within_ms, manner.uplink)
            });
            // A device that is new here, or stands at another address, may have been another box before.
            for at in 0..fleet.devices.len() {
                fleet.set_changed(at, changed.contains(&fleet.devices[at].no));
            }
        });
        // A device may stand in another branch now.
        self.live.timelines_mut().set_stale();
        // An agent may have told of a device before it was here, and thinks no more of it. One that is new to it as well is
        // told of by itself, and meanwhile nobody asks.
        let fleet = self.live.fleet();
        let in_doubt = fleet.branches.iter().enumerate().filter(|(at, _)| fleet.has_doubts(*at));
        let asked: Vec<_> = in_doubt.filter_map(|(_, branch)| Some((branch.info.id.clone(), branch.stream()?))).collect();
        drop(fleet);
        for of in asked {
            self.doubts.entry(of).or_insert((RESTATEMENTS_SPARED, now));
        }
        Ok(())
    }

    /// Takes over an inventory that another process has changed; what changed here is known already.
    fn reload(&mut self, now: Millis) {
        if store::inventory_version(self.store.connection()).is_ok_and(|version| version == self.inventory_version) {
            return;
        }
        let loaded = self.load_inventory(now);
        self.metrics.set("ward_inventory_failing", "", f64::from(u8::from(loaded.is_err())));
        if let Err(error) = loaded {
            tracing::error!(%error, "the changed inventory can't be read: the one before stays");
        }
        self.publish_configs(now);
    }

    /// Makes a change that somebody asks for, and shows it.
    fn edit(&mut self, change: &store::Change, now: Millis) -> Result<i64, store::EditError> {
        let done = self.store.edit(change, now)?;
        match change.edit {
            store::Edit::Schedule(_) => {
                let schedule = store::schedule(self.store.connection()).map(Arc::new)?;
                self.live.change(now, |fleet| fleet.set_schedule(schedule));
            }
            store::Edit::Inventory(_) => {
                self.load_inventory(now)?;
                self.publish_configs(now);
            }
            store::Edit::AcceptIdentity { no, .. } => self.live.change(now, |fleet| {
                if let Some(at) = fleet.devices.iter().position(|device| device.no == no) {
                    fleet.set_changed(at, false);
                }
            }),
            // Who may do what is the API's to ask.
            store::Edit::Account(_) => {}
        }
        Ok(done)
    }

    /// Rebuilds the fleet from the ledger. Nothing of it is shown before the branch has been heard again, unless what
    /// was last observed is still current.
    fn load_ledger(&mut self, now: Millis) -> Result<(), StoreError> {
        let rows = store::streams(self.store.connection())?;
        let db = self.store.connection();
        let schedule = Arc::new(store::schedule(db)?);
        self.live.prepare(|fleet| fleet.set_schedule(schedule));
        // By a clock that was set back meanwhile, however old a state is, it looks fresh.
        let last = store::alive(db)?;
        if let Some(Moment { wall, boot, uptime }) = last.map(|last| last.until)
            && boot == self.began.boot
            && uptime <= self.uptime
        {
            self.steady = Steady::new(wall, uptime);
        }
        self.furthest = self.furthest.max(last.map_or(now, |last| last.furthest));
        let has_followed = last.is_some_and(|last| self.began.follows(last.until, SET_BACK_SLACK_MS));
        let is_trusted = has_followed && now >= self.furthest;
        {
            let mut timelines = self.live.timelines_mut();
            for row in &rows {
                let Ok(branch) = row.branch.parse::<BranchId>() else { continue };
                timelines.take(&branch, std::iter::empty(), &facts_of(row, row.began));
            }
        }
        self.live.prepare(|fleet| {
            for row in &rows {
                let Some(branch) = row.branch.parse().ok().and_then(|id| fleet.branch(&id)) else { continue };
                fleet.begin(branch, row.stream, &row.version, row.began);
                let surely = row.observed.plus(-i64::from(row.error_ms));
                if is_trusted && fleet.is_present(branch, row.stream) && surely <= now {
                    fleet.observed(branch, row.stream, row.through, Some(surely), surely);
                }
            }
            if rows.iter().any(|row| row.observed > now) {
                fleet.clock_was_set_back();
            }
        });
        let present: Vec<Option<&StreamRow>> = {
            let fleet = self.live.fleet();
            let by_key: HashMap<(&str, StreamId), &StreamRow> =
                rows.iter().map(|row| ((row.branch.as_str(), row.stream), row)).collect();
            let of = |branch: &BranchState| by_key.get(&(branch.info.id.as_str(), branch.stream()?)).copied();
            fleet.branches.iter().map(of).collect()
        };
        let mut lost_through = Vec::with_capacity(present.len());
        for row in &present {
            let lost = row.map_or(Ok(0), |row| store::lost_through(db, row.no))?;
            if let Some((row, id)) = row.filter(|_| lost > 0).and_then(|row| Some((row, row.branch.parse().ok()?))) {
                self.doubts.insert((id, row.stream), (0, now));
            }
            lost_through.push(lost);
        }
        let devices: Vec<(usize, u32, usize)> =
            self.live.fleet().devices.iter().enumerate().map(|(at, device)| (at, device.no, device.branch)).collect();
        let mut histories = Vec::with_capacity(devices.len());
        for (at, no, branch) in devices {
            let recent = store::recent_changes(db, no, RECENT_CHANGES)?;
            let is_verdict = is_verdict(&recent, present[branch].map(|row| row.no), lost_through[branch]);
            histories.push((at, recent, store::open_since(db, no)?, is_verdict));
        }
        let mut faults = Vec::new();
        for (device, recent, _, is_verdict) in &histories {
            let Some(last) = recent.last.filter(|_| *is_verdict) else { continue };
            let no = self.live.fleet().devices[*device].no;
            faults.push((*device, store::verdict_at(db, no, last)?));
        }
        let (flags, changed) = (store::flags(db)?, store::changed_identities(db)?);
        self.live.change(now, |fleet| {
            for (device, recent, open_since, is_verdict) in &histories {
                fleet.restore(*device, &recent.changes, *open_since, *is_verdict);
            }
            faults.iter().for_each(|(device, fault)| fleet.blame(*device, *fault));
            let places: HashMap<u32, usize> = fleet.devices.iter().enumerate().map(|(at, device)| (device.no, at)).collect();
            for (no, stream, flags) in flags {
                let place = places.get(&no).filter(|at| present[fleet.devices[**at].branch].is_some_and(|row| row.no == stream));
                place.into_iter().for_each(|at| fleet.flag(*at, flags));
            }
            changed.iter().filter_map(|no| places.get(no)).for_each(|at| fleet.set_changed(*at, true));
        });
        for row in rows {
            if let Ok(branch) = row.branch.parse::<BranchId>() {
                self.streams.insert((branch, row.stream), row);
            }
        }
        Ok(())
    }

    /// Works until nobody sends any more; `pulse` beats with each group that is done.
    pub fn run(mut self, mut inbox: Inbox, pulse: &Pulse) {
        self.publish_configs(clock::now());
        while let Some(group) = inbox.take() {
            self.metrics.set("ward_inbox_bytes", "", inbox.waiting_bytes() as f64);
            self.handle(group, clock::now());
            if let Some(arrived) = inbox.oldest_taken().filter(|_| !self.is_failing) {
                self.metrics.observe("ward_ack_lag_seconds", "", arrived.elapsed());
            }
            pulse.beat();
        }
    }

    /// Handles commands that arrived together: what they have to write shares a commit.
    pub fn handle(&mut self, group: Vec<Command>, wall: Millis) {
        // Before anybody is told the time. Where it was this thread that stood still, the next tick says so.
        if self.steady.is_worth_a_look(wall, self.uptime) {
            self.look_at_clock(wall);
        }
        let mut now = self.believed(wall);
        for command in group {
            match command {
                Command::Payload { topic, bytes } => {
                    self.payload(&topic, &bytes, now, wall);
                    now = self.believed(wall);
                }
                Command::Synchronised => self.is_synchronised = true,
                Command::Tick(uptime) => {
                    self.uptime = self.uptime.max(uptime);
                    self.look_at_clock(wall);
                    now = self.believed(wall);
                    // It may write down how far streams were observed, and must not come before what does so too.
                    self.commit(now);
                    self.tick(now);
                }
                Command::Republish => self.publish_configs(now),
                Command::Reload => {
                    // What is staged, and what cuts have ended, speaks of devices and branches by their present places.
                    self.commit(now);
                    self.write_cuts(usize::MAX);
                    self.reload(now);
                }
                Command::Revoked(branches) => self.revoked = branches,
                Command::Sent(reader, through) => drop(self.taken.insert(reader, through)),
                Command::Edit(change, answer) => {
                    // What is staged speaks of devices by their present places.
                    self.commit(now);
                    self.write_cuts(usize::MAX);
                    // Whoever asked may have gone.
                    let _ = answer.send(self.edit(&change, now));
                }
            }
        }
        self.commit(now);
        self.live.change(now, |_| {});
    }

    /// What time it is: by the clock, unless that is in doubt.
    fn believed(&self, wall: Millis) -> Millis {
        if self.steady.is_in_doubt() { self.steady.due(self.uptime) } else { wall }
    }

    fn look_at_clock(&mut self, wall: Millis) {
        let was_in_doubt = self.steady.is_in_doubt();
        // A clock that was behind the ledger was wrong before.
        let is_vouched_for = std::mem::take(&mut self.is_synchronised) || self.is_clock_behind(self.steady.due(self.uptime));
        let is_believed = self.steady.look(wall, self.uptime, is_vouched_for);
        self.metrics.set("ward_clock_doubted", "", f64::from(u8::from(!is_believed)));
        if !is_believed && !was_in_doubt {
            let due = self.steady.due(self.uptime);
            tracing::error!(clock = %wall, %due, "the collector's clock has jumped ahead: batches wait until something speaks for it");
        } else if is_believed && was_in_doubt {
            tracing::warn!(clock = %wall, "the collector's clock is believed again");
        }
    }

    /// An agent's clock goes on while ours is set: one that has come to the same time speaks for it.
    fn weigh_clock(&mut self, heartbeat: &Heartbeat, wall: Millis) {
        let agrees = |dating: Dating| {
            let (sent, error_ms) = dating.date(heartbeat.sent);
            wall.since(sent).abs() <= Millis::AHEAD_LIMIT_MS + i64::from(error_ms)
        };
        if self.steady.is_in_doubt() && heartbeat.dating.is_some_and(agrees) {
            self.is_synchronised = true;
            self.look_at_clock(wall);
        }
    }

    fn payload(&mut self, topic: &str, bytes: &[u8], now: Millis, wall: Millis) {
        let Some((id, lane)) = topic::parse(topic) else { return self.refuse(topic, "topic", "no topic of ward's") };
        let Some(branch) = self.live.fleet().branch(&id) else {
            return self.refuse(topic, "unknown_branch", "the inventory has no such branch");
        };
        if self.revoked.contains(&id) {
            return self.refuse(topic, "revoked", "the branch's certificates were revoked");
        }
        let taken = match lane {
            // What is dated by a wrong clock stays in the ledger; its agent sends it again.
            Lane::Up if self.steady.is_in_doubt() => {
                self.metrics.add("ward_batches_held_total", "", 1);
                return;
            }
            Lane::Up => decode::<Batch>(bytes).map(|mut batch| {
                // What follows in the same stream is weighed against what is staged of it. All else has to see the
                // fleet as the commit leaves it.
                if self.staged_of.get(&id).is_some_and(|(stream, _)| *stream != batch.stream) {
                    self.commit(now);
                }
                batch.dating = self.tightened(&id, &batch);
                self.batch(branch, &id, &batch, now)
            }),
            Lane::Live => decode::<Heartbeat>(bytes).map(|heartbeat| {
                self.weigh_clock(&heartbeat, wall);
                let now = self.believed(wall);
                self.commit_of(&id, now);
                Ok(self.heartbeat(branch, &id, &heartbeat, now))
            }),
            Lane::Presence => decode::<Presence>(bytes).map(|presence| {
                self.commit_of(&id, now);
                self.live.prepare(|fleet| fleet.presence(branch, presence.stream, presence.state, now));
                Ok(None)
            }),
            Lane::Answer => decode::<Answer>(bytes).map(|answer| {
                match answer {
                    Answer::Watched(watched) => self.live.watched(branch, &watched, now),
                    Answer::Running(running) => {
                        let stream = self.live.fleet().branches[branch].stream();
                        self.live.boxes.runs(id.clone(), running, stream, now);
                    }
                    Answer::Tried(tried) => self.live.change(now, |fleet| fleet.tried(branch, tried)),
                    other => self.live.answers.take(id.clone(), other),
                }
                Ok(None)
            }),
            Lane::Ack | Lane::Config | Lane::Ask => return,
        };
        match taken {
            Ok(Err((reason, why))) => self.refuse(topic, reason, &why),
            Ok(Ok(work)) => {
                self.metrics.add("ward_payloads_total", lane_label(lane), 1);
                if let Some(work) = work {
                    let staged = self.staged_of.entry(id).or_insert_with(|| (work.row.stream, Vec::new()));
                    staged.1.push(self.staged.len());
                    self.staged.push(work);
                }
            }
            Err(error) => self.refuse(topic, error.reason(), &error.to_string()),
        }
    }

    /// Commits what is staged, if any of it is of this branch.
    fn commit_of(&mut self, id: &BranchId, now: Millis) {
        if self.staged_of.contains_key(id) {
            self.commit(now);
        }
    }

    fn refuse(&mut self, topic: &str, reason: &'static str, why: &str) {
        self.metrics.add("ward_payloads_refused_total", &format!("reason=\"{reason}\""), 1);
        if self.logs_first(topic, reason) {
            tracing::warn!(topic, reason, why, "a payload is refused; more of the same are only counted");
        }
    }

    /// Whether something is to be logged: whoever goes wrong does so often, and one line each is enough.
    fn logs_first(&mut self, of: &str, what: &'static str) -> bool {
        self.logged.len() < LOGGED_LIMIT && self.logged.insert((of.to_owned(), what))
    }

    /// Whether a branch's agent has to be asked now to tell its states anew. An asking may be lost, and a device that the
    /// agent has no verdict on stays unknown: it is asked ever more rarely.
    fn wants_restatement(&mut self, branch: usize, stream: StreamId, now: Millis) -> bool {
        let fleet = self.live.fleet();
        let key = (fleet.branches[branch].info.id.clone(), stream);
        let Some((times, asked)) = self.doubts.get_mut(&key).filter(|_| fleet.has_doubts(branch)) else { return false };
        let wait_ms = if *times == 0 { 0 } else { (RESTATEMENT_WAIT_MS << (*times).min(8)).min(RESTATEMENT_WAIT_LIMIT_MS) };
        // The clock may have been set since.
        if now.since(*asked).abs() < wait_ms {
            return false;
        }
        (*times, *asked) = (*times + 1, now);
        true
    }

    /// An agent tells how it is where that changes, and else rarely: after a start of the collector's it is asked.
    fn ask_for_health(&mut self, id: &BranchId, is_known: bool, now: Millis) {
        if is_known {
            self.health_asked.remove(id);
        // The clock may have been set since.
        } else if self.health_asked.get(id).is_none_or(|asked| now.since(*asked).abs() >= HEALTH_WAIT_MS) {
            self.health_asked.insert(id.clone(), now);
            self.send(Outgoing::Ask(id.clone(), Ask::Health));
        }
    }

    /// What is staged of a stream, oldest first.
    fn staged_of(&self, id: &BranchId, stream: StreamId) -> impl Iterator<Item = &Staged> {
        let found = self.staged_of.get(id).filter(|(of, _)| *of == stream);
        found.into_iter().flat_map(|(_, all)| all).map(|at| &self.staged[*at])
    }

    /// How a stream stands once what is staged is written.
    fn stream(&self, id: &BranchId, stream: StreamId) -> Option<&StreamRow> {
        let staged = self.staged_of(id, stream).last().map(|work| &work.row);
        staged.or_else(|| self.streams.get(&(id.clone(), stream)))
    }

    /// Until when a branch is known by any of its streams that ended before a moment.
    fn known_before(&self, id: &BranchId, at: Millis) -> Option<Millis> {
        let of_branch = self.streams.iter().filter(|((branch, _), _)| branch == id);
        of_branch.map(|(_, row)| row.observed).filter(|observed| (Millis::EARLIEST..=at).contains(observed)).max()
    }

    /// How far a stream is on the disk.
    fn written(&self, id: &BranchId, stream: StreamId) -> u64 {
        self.streams.get(&(id.clone(), stream)).map_or(0, |row| row.through)
    }

    /// What the ledger says of a device once what is staged of its branch's stream is written, and since when.
    fn logged(&self, fleet: &Fleet, id: &BranchId, stream: StreamId, device: usize) -> (Status, Option<Millis>) {
        let mut logged = fleet.logged(device);
        let mut is_present = fleet.is_present(fleet.devices[device].branch, stream);
        for work in self.staged_of(id, stream) {
            if work.begins && fleet.would_begin(work.branch, work.row.began) {
                is_present = true;
                logged = (UNOBSERVED, Some(work.row.began));
            }
            if !is_present {
                continue;
            }
            if let Some((doubt, _)) = work.doubt() {
                logged = (UNOBSERVED, Some(doubt));
            }
            if let Some((_, _, change, _)) = work.verdicts().rfind(|(of, ..)| *of == device) {
                logged = (change.to, Some(change.onset));
            }
        }
        logged
    }

    /// What an agent can only bound, the ledger may bound better: a boot begins after what is known of the run before.
    fn tightened(&self, id: &BranchId, batch: &Batch) -> Dating {
        let Dating::Bounds { not_before, not_after } = batch.dating else { return batch.dating };
        let known = match (self.stream(id, batch.stream), batch.group.deltas.first().map(|delta| &delta.body)) {
            (Some(row), _) => row.not_before,
            (None, Some(Body::Boot(boot))) => {
                let previous = boot.previous.as_ref().and_then(|previous| self.stream(id, previous.stream));
                let dated = previous.filter(|row| row.error_ms < u32::MAX && row.boot != boot.boot.to_string());
                dated.map(|row| row.observed.plus(-i64::from(row.error_ms)))
            }
            (None, _) => None,
        };
        let known = known.filter(|known| *known <= not_after).unwrap_or(not_before);
        Dating::Bounds { not_before: not_before.max(known), not_after }
    }

    /// Weighs a batch: what is to be written of it, or why it is refused.
    fn batch(&mut self, branch: usize, id: &BranchId, batch: &Batch, now: Millis) -> Result<Option<Staged>, Refusal> {
        if !batch.group.is_sound() {
            return Err(("malformed", "its numbers can't be counted".to_owned()));
        }
        if batch.branch != *id {
            return Err(("wrong_branch", format!("it says that it is from {}", batch.branch)));
        }
        let known = self.stream(id, batch.stream).cloned();
        let mark = known.as_ref().map_or(0, |row| row.through);
        let ack = |through, restate| Ack { stream: batch.stream, through, now, echo: batch.sent, restate };
        if batch.sent.is_some() && (is_ahead(batch, now) || is_stale(batch, now)) {
            // Our clock or the agent's was set: with this ack it learns ours, and dates its entries anew.
            self.metrics.add("ward_batches_redated_total", "", 1);
            let restate = self.wants_restatement(branch, batch.stream, now);
            self.send(Outgoing::Ack(id.clone(), ack(self.written(id, batch.stream), restate)));
            return Ok(None);
        }
        match admit(batch, mark) {
            Admission::Known | Admission::Early => {
                let restate = self.wants_restatement(branch, batch.stream, now);
                self.send(Outgoing::Ack(id.clone(), ack(self.written(id, batch.stream), restate)));
                Ok(None)
            }
            Admission::Take { missing, entries, through } => {
                let fresh = StreamRow {
                    no: 0,
                    branch: id.to_string(),
                    stream: batch.stream,
                    through: 0,
                    began: date(&batch.dating, entries.first().map_or(Uptime(0), |(_, delta)| delta.at), now),
                    observed: Millis(0),
                    error_ms: 0,
                    not_before: match batch.dating {
                        Dating::Fixed { .. } => None,
                        Dating::Bounds { not_before, .. } => Some(not_before),
                    },
                    boot: String::new(),
                    version: String::new(),
                };
                let begins = known.is_none();
                let before = known.unwrap_or(fresh);
                let mut staged = match plausible(batch, now) {
                    Ok(()) => {
                        let staged = self.stage(branch, batch, before, &entries, missing, now);
                        match vague_since(&batch.dating) {
                            Some(since) => vague(staged, since, &entries),
                            None => staged,
                        }
                    }
                    Err(why) if self.is_clock_behind(now) => {
                        self.metrics.add("ward_batches_held_total", "", 1);
                        self.metrics.set("ward_clock_behind", "", 1.0);
                        if self.logs_first("", "clock_behind") {
                            tracing::error!(branch = %id, why, "the collector's clock is behind its own ledger: nothing is taken that it can't date");
                        }
                        return Ok(None);
                    }
                    Err(why) => {
                        self.metrics.add("ward_batches_undatable_total", "", 1);
                        if self.logs_first(id.as_str(), "undatable") {
                            tracing::error!(branch = %id, why, "entries can't be dated: they become a gap");
                        }
                        undatable(branch, before, (mark + 1, through), missing, &entries, now)
                    }
                };
                staged.is_past = batch.sent.is_none();
                staged.begins = begins;
                staged.row.through = through;
                staged.ack = Some(ack(through, false));
                if !staged.is_vague {
                    staged.samples.extend(self.status_samples(id, &staged, begins));
                }
                Ok(Some(staged))
            }
        }
    }

    /// Whether what the ledger knows already lies ahead of our clock: then it is the clock that is wrong, not an agent.
    fn is_clock_behind(&self, now: Millis) -> bool {
        let newest = self.streams.values().map(|row| row.observed).max();
        now < Millis::EARLIEST || newest.is_some_and(|newest| newest > now.plus(Millis::AHEAD_LIMIT_MS))
    }

    fn stage(
        &mut self,
        branch: usize,
        batch: &Batch,
        row: StreamRow,
        entries: &[(u64, &Delta)],
        missing: Option<(u64, u64)>,
        now: Millis,
    ) -> Staged {
        let observed = date(&batch.dating, batch.observed_through, now);
        let error_ms = batch.dating.date(batch.observed_through).1;
        let known_through = if row.observed > Millis(0) { row.observed } else { row.began };
        // Each date keeps the error that it was made with.
        let (observed_through, error_ms) =
            // One ahead of our clock was dated by another: it was set since.
            if observed >= row.observed || row.observed > now { (observed, error_ms) } else { (row.observed, row.error_ms) };
        let mut staged = Staged {
            entries: entries.len() as u64,
            ..Staged::of(branch, StreamRow { observed: observed_through.max(row.began), error_ms, ..row }, now)
        };
        if let Some((first, last)) = missing {
            let dropped = shared::Dropped { unreadable: last - first + 1, ..shared::Dropped::default() };
            let first_date = date(&batch.dating, entries.first().map_or(Uptime(0), |(_, delta)| delta.at), now);
            let from = known_through.min(first_date);
            staged.gaps.push(GapRow { stream: 0, first, last, from, to: first_date, reason: "never_arrived".into(), dropped });
        }
        for (seq, delta) in entries {
            self.stage_entry(&mut staged, batch, *seq, delta, known_through, now);
        }
        staged
    }

    fn stage_entry(&mut self, staged: &mut Staged, batch: &Batch, seq: u64, delta: &Delta, known: Millis, now: Millis) {
        let (_, error_ms) = batch.dating.date(delta.at);
        match &delta.body {
            Body::Boot(boot) => {
                staged.row.boot = boot.boot.to_string();
                boot.version.clone_into(&mut staged.row.version);
                staged.origin = boot.previous.as_ref().map(|previous| {
                    let before = self.stream(&batch.branch, previous.stream);
                    Origin {
                        is_same_boot: before.is_some_and(|before| before.boot == staged.row.boot),
                        is_clean: previous.clean,
                        lived_until: before.map(|before| before.observed),
                    }
                });
                if let Some(previous) = &boot.previous
                    && let Some(before) = self.stream(&batch.branch, previous.stream)
                    && before.through < previous.through
                {
                    let lost = previous.through - before.through;
                    staged.gaps.push(GapRow {
                        stream: before.no,
                        first: before.through + 1,
                        last: previous.through,
                        from: before.observed,
                        to: date(&batch.dating, delta.at, now),
                        reason: "buffer_lost".into(),
                        dropped: shared::Dropped { unreadable: lost, ..shared::Dropped::default() },
                    });
                }
            }
            Body::Transition(transition) => match self.live.fleet().device_of(&transition.device, staged.branch) {
                Some(device) => {
                    let onset = date(&batch.dating, transition.onset, now);
                    let last_ok = transition.last_ok.map(|at| date(&batch.dating, at, now));
                    staged.transitions.push((
                        device,
                        transition.from,
                        Change { onset, to: transition.to, last_ok, error_ms },
                        seq,
                    ));
                    let at = date(&batch.dating, delta.at, now);
                    staged.proofs.extend(self.proof(transition, at, seq).map(|proof| (device, proof)));
                }
                None => self.metrics.add("ward_unknown_devices_total", "", 1),
            },
            Body::Qualities(qualities) => {
                for column in &qualities.columns {
                    let Some(device) = self.live.fleet().device_of(&column.device, staged.branch) else {
                        self.metrics.add("ward_unknown_devices_total", "", 1);
                        continue;
                    };
                    match column.unpack(qualities.unit_us) {
                        Ok(minutes) => {
                            let first = date(&batch.dating, qualities.first_end, now).nearest_minute();
                            let end = |i: usize| first.plus(i64::try_from(i).unwrap_or(0) * Millis::MINUTE);
                            let rows = minutes.into_iter().enumerate().map(|(i, minute)| MinuteRow { end: end(i), minute });
                            // A minute may end a moment ahead of us; one beyond that has not happened.
                            let latest = now.plus(Millis::AHEAD_LIMIT_MS);
                            let rows: Vec<MinuteRow> = rows.filter(|row| row.minute.sent > 0 && row.end <= latest).collect();
                            if self.outbox.is_some() {
                                rows.iter().for_each(|row| quality_samples(device, row, &mut staged.samples));
                            }
                            staged.minutes.push((device, rows));
                        }
                        Err(error) => {
                            let why = error.to_string();
                            self.refuse(batch.branch.as_str(), "column", &why);
                        }
                    }
                }
            }
            Body::Flagged(flagged) => match self.live.fleet().device_of(&flagged.device, staged.branch) {
                Some(device) => {
                    staged.flags.push((device, flagged.flags, date(&batch.dating, flagged.since, now), seq));
                }
                None => self.metrics.add("ward_unknown_devices_total", "", 1),
            },
            Body::Identity(identity) => {
                let fleet = self.live.fleet();
                let Some(device) = fleet.device_of(&identity.device, staged.branch) else {
                    drop(fleet);
                    return self.metrics.add("ward_unknown_devices_total", "", 1);
                };
                let at = date(&batch.dating, delta.at, now);
                let (ip, mac, is_contested) = (fleet.devices[device].info.ip, identity.mac, identity.is_contested);
                staged.identities.push((device, IdentityRow { device: 0, stream: 0, seq, at, ip, mac, is_contested }));
            }
            Body::Gap(gap) => {
                // As wide as the dates' error: nothing that is lost may lie outside.
                let to = date(&batch.dating, gap.to, now).plus(i64::from(error_ms)).min(now);
                let from = date(&batch.dating, gap.from, now).plus(-i64::from(error_ms));
                let from = if gap.from == gap.to {
                    // Of earlier runs, and of what moment, their agent doesn't know.
                    self.known_before(&batch.branch, from).unwrap_or(from)
                } else {
                    // What this stream has told of already isn't lost; but a change is told some time after it began.
                    from.max(known.plus(-(CONFIRMATION_LIMIT_MS as i64))).min(to)
                };
                let (first, last, reason) = (seq, seq + gap.span - 1, gap.reason.as_str().to_owned());
                staged.gaps.push(GapRow { stream: 0, first, last, from, to, reason, dropped: gap.dropped });
            }
        }
    }

    /// What goes with a transition, if anything does.
    fn proof(&self, transition: &Transition, at: Millis, seq: u64) -> Option<ProofRow> {
        let sound = transition.evidence.as_ref().filter(|evidence| evidence.is_sound());
        if transition.evidence.is_some() && sound.is_none() {
            self.metrics.add("ward_payloads_refused_total", "reason=\"evidence\"", 1);
        }
        let evidence = sound.and_then(|evidence| postcard::to_stdvec(evidence).ok());
        let row = ProofRow { device: 0, stream: 0, seq, at, verdict: transition.verdict, evidence };
        (row.verdict.is_some() || row.evidence.is_some()).then_some(row)
    }

    /// Status samples of a branch: at each transition, and at each full minute that is now known to its end.
    fn status_samples(&self, id: &BranchId, staged: &Staged, begins: bool) -> Vec<Sample> {
        if self.outbox.is_none() {
            return Vec::new();
        }
        let since = self.stream(id, staged.row.stream).map_or(staged.row.began, |row| row.observed);
        let since = since.max(staged.row.observed.plus(-FILL_LIMIT_MS));
        // Across lost entries nobody knows what the devices were.
        let doubt = staged.doubt();
        let since = since.max(doubt.map_or(since, |(to, _)| to));
        let mut out = Vec::new();
        for (device, _, change, _) in &staged.transitions {
            let value = status_value(change.to);
            out.extend(value.map(|value| Sample { device: *device, metric: Metric::Status, at: change.onset, value }));
        }
        let minutes = minutes_between(since, staged.row.observed);
        if minutes.clone().next().is_none() {
            return out;
        }
        let fleet = self.live.fleet();
        for device in &fleet.branches[staged.branch].devices {
            let logged = self.logged(&fleet, id, staged.row.stream, *device);
            let changes: Vec<&Change> =
                staged.verdicts().filter(|(of, ..)| of == device).map(|(_, _, change, _)| change).collect();
            for at in minutes.clone() {
                let status = match changes.iter().rfind(|change| change.onset <= at) {
                    Some(change) => Some(change.to),
                    None if begins || doubt.is_some() => None,
                    // A verdict that began later says nothing of this minute.
                    None => Some(logged.0).filter(|_| logged.1.is_none_or(|began| began <= at)),
                };
                out.push(Sample { device: *device, metric: Metric::Info, at, value: 1.0 });
                let value = status.and_then(status_value);
                out.extend(value.map(|value| Sample { device: *device, metric: Metric::Status, at, value }));
            }
        }
        out
    }

    /// Notices that an agent speaks whose run another had followed, as when a card was copied to a second machine.
    fn resume(&mut self, branch: usize, id: &BranchId, heartbeat: &Heartbeat, began: Millis, now: Millis) {
        let other = self.live.fleet().present(branch).filter(|present| *present != heartbeat.stream);
        // Ahead of our clock it was dated by another one: ours was set since.
        let newest = self.live.fleet().branches[branch].observed.filter(|observed| *observed <= now);
        let spoke = heartbeat.dating.map(|dating| date(&dating, heartbeat.observed_through, now));
        if other.is_none() || spoke <= newest {
            return;
        }
        self.metrics.add("ward_agents_contending_total", "", 1);
        if self.contended.insert(id.clone(), now).is_none() {
            tracing::error!(branch = %id, "two agents speak for this branch: its devices are unknown until one of them has told its states");
        }
        self.live.prepare(|fleet| fleet.resume(branch, heartbeat.stream, began, now));
        self.doubts.insert((id.clone(), heartbeat.stream), (0, now));
    }

    fn heartbeat(&mut self, branch: usize, id: &BranchId, heartbeat: &Heartbeat, now: Millis) -> Option<Staged> {
        let known = self.stream(id, heartbeat.stream).cloned();
        let through = known.as_ref().map_or(0, |row| row.through);
        let is_dated = heartbeat.dating.is_some_and(|dating| dating.date(heartbeat.observed_through).0.is_plausible(now));
        if let Some(row) = known.as_ref().filter(|_| is_dated) {
            self.resume(branch, id, heartbeat, row.began, now);
        }
        let believed = Heartbeat { dating: heartbeat.dating.filter(|_| is_dated), ..heartbeat.clone() };
        let is_well_known = self.live.prepare(|fleet| {
            fleet.heartbeat(branch, &believed, through, now);
            fleet.branches[branch].health.is_some()
        });
        self.ask_for_health(id, is_well_known, now);
        let restate = self.wants_restatement(branch, heartbeat.stream, now);
        let due = self.acked_at.get(id).is_none_or(|at| now.since(*at) >= CLOCK_ACK_MS);
        // It tells states because it is behind: an ack that was lost may be all that it waits for.
        let is_behind = through < heartbeat.last && !heartbeat.states.is_empty();
        // An agent that doesn't know the time, or is not sure what has arrived, waits for this.
        let is_asked = !is_dated || restate || due || is_behind;
        if is_asked && !self.steady.is_in_doubt() {
            self.acked_at.insert(id.clone(), now);
            let ack = Ack { stream: heartbeat.stream, through, now, echo: Some(heartbeat.sent), restate };
            self.send(Outgoing::Ack(id.clone(), ack));
        }
        let (Some(row), Some(dating)) = (known, believed.dating) else { return None };
        let observed = date(&dating, heartbeat.observed_through, now);
        if through < heartbeat.last || (observed <= row.observed && row.observed <= now) {
            return None;
        }
        let error_ms = dating.date(heartbeat.observed_through).1;
        if minutes_between(row.observed, observed).next().is_none() {
            self.progress.insert((id.clone(), heartbeat.stream), (observed, error_ms));
            return None;
        }
        let mut staged = Staged::of(branch, StreamRow { observed, error_ms, ..row }, now);
        staged.samples = self.status_samples(id, &staged, false);
        Some(staged)
    }

    /// Writes what is staged, then shows it, then acknowledges it.
    fn commit(&mut self, now: Millis) {
        if self.staged.is_empty() && self.taken.is_empty() {
            return;
        }
        let mut staged = std::mem::take(&mut self.staged);
        let staged_of = std::mem::take(&mut self.staged_of);
        let began = clock::now();
        let facts = self.facts(&staged);
        let written = self.write(&mut staged, &facts, now);
        if !self.has_succeeded(written) {
            return;
        }
        self.metrics.set("ward_ledger_commit_ms", "", clock::now().since(began) as f64);
        self.live.change(now, |fleet| staged.iter().for_each(|work| show(fleet, work, now)));
        self.show_late_history(&staged, now);
        self.extend_timelines(&facts, now);
        self.metrics.add("ward_deltas_total", "", staged.iter().map(|work| work.entries).sum());
        self.metrics.add("ward_gaps_total", "", staged.iter().map(|work| work.gaps.len() as u64).sum());
        for (id, (stream, all)) in staged_of {
            let Some(newest) = all.last().map(|at| &staged[*at]) else { continue };
            self.streams.insert((id.clone(), stream), newest.row.clone());
            let in_doubt = all.iter().any(|at| staged[*at].doubt().is_some());
            if in_doubt {
                self.doubts.insert((id.clone(), stream), (0, now));
            }
            // One ack speaks for all that came before; the newest echo tells the time best.
            if let Some(ack) = newest.ack {
                self.acked_at.insert(id.clone(), now);
                // Only now, as the batches themselves may have told the states anew.
                let restate = self.wants_restatement(newest.branch, stream, now);
                self.send(Outgoing::Ack(id, Ack { restate, ..ack }));
            }
        }
    }

    /// Counts a commit that failed, and says once when that begins and when it ends.
    fn has_succeeded(&mut self, written: Result<(), StoreError>) -> bool {
        let was_failing = std::mem::replace(&mut self.is_failing, written.is_err());
        self.metrics.set("ward_ledger_failing", "", f64::from(u8::from(self.is_failing)));
        match written {
            Ok(()) => {
                if was_failing {
                    tracing::info!("the ledger can be written again");
                }
                true
            }
            Err(error) => {
                self.metrics.add("ward_ledger_errors_total", "", 1);
                if !was_failing {
                    tracing::error!(%error, "the ledger can't be written: nothing is acknowledged, agents send again");
                }
                false
            }
        }
    }

    /// What an earlier run tells after the present one has begun is history: it changes no verdict, but it may tell when
    /// an outage began that is still open.
    fn show_late_history(&mut self, staged: &[Staged], now: Millis) {
        let late = staged.iter().filter(|work| !self.live.fleet().is_present(work.branch, work.row.stream));
        let devices: Vec<usize> = late.flat_map(|work| &work.transitions).map(|(device, ..)| *device).collect();
        for device in devices {
            let (no, present) = {
                let fleet = self.live.fleet();
                let (no, branch) = (fleet.devices[device].no, fleet.devices[device].branch);
                let present = fleet.present(branch).and_then(|stream| self.stream(&fleet.branches[branch].info.id, stream));
                (no, present.map(|row| row.no))
            };
            match history(self.store.connection(), no, present) {
                Ok((recent, open_since, is_verdict)) => {
                    self.live.change(now, |fleet| fleet.restore(device, &recent.changes, open_since, is_verdict));
                }
                Err(error) => {
                    self.metrics.add("ward_ledger_errors_total", "", 1);
                    if self.logs_first("", "history") {
                        tracing::error!(%error, "a device's history can't be read");
                    }
                }
            }
        }
    }

    /// What is staged, as timelines take it, in the order in which it came.
    fn facts(&self, staged: &[Staged]) -> Vec<(usize, Facts)> {
        let fleet = self.live.fleet();
        let mut since: HashMap<(usize, StreamId), Millis> = HashMap::new();
        let mut out = Vec::with_capacity(staged.len());
        // What is vague is told of and counts nowhere.
        for work in staged.iter().filter(|work| !work.is_vague) {
            let since = since.entry((work.branch, work.row.stream)).or_insert_with(|| {
                let key = (fleet.branches[work.branch].info.id.clone(), work.row.stream);
                self.streams.get(&key).map_or(work.row.began, |row| row.observed)
            });
            let lossy = || work.gaps.iter().filter(|gap| gap.dropped.transitions > 0 || gap.dropped.unreadable > 0);
            let lost = lossy().map(|gap| gap.from).min().zip(lossy().map(|gap| gap.to).max());
            let told = work.transitions.iter().map(|(at, _, change, _)| (fleet.devices[*at].no, change.onset, change.to.into()));
            let facts = Facts {
                begins: work.begins,
                lost: lost.map(|(from, to)| Span::new(from, to)),
                told: told.collect(),
                ..facts_of(&work.row, *since)
            };
            *since = work.row.observed;
            out.push((work.branch, facts));
        }
        // By branches, each in its own order.
        out.sort_by_key(|(branch, _)| *branch);
        out
    }

    /// Goes on with what the devices have been. Only what is written comes here.
    fn extend_timelines(&self, facts: &[(usize, Facts)], now: Millis) {
        let fleet = self.live.fleet();
        let mut timelines = self.live.timelines_mut();
        for (at, facts) in facts {
            let branch = &fleet.branches[*at];
            timelines.take(&branch.info.id, branch.devices.iter().map(|device| fleet.devices[*device].no), facts);
        }
        timelines.forget(now);
    }

    fn write(&mut self, staged: &mut [Staged], facts: &[(usize, Facts)], now: Millis) -> Result<(), StoreError> {
        let (live, taken) = (&self.live, &self.taken);
        let before = &self.outbox;
        let mut changed = Vec::new();
        let outbox = self.store.transaction(|db| {
            let fleet = live.fleet();
            // Only what is written counts: a commit that fails leaves the sums as they were.
            let mut outbox = before.clone();
            if let Some(outbox) = &mut outbox {
                taken.iter().try_for_each(|(reader, through)| outbox.sent(db, *reader, *through))?;
            }
            let timelines = live.timelines();
            for of_branch in facts.chunk_by(|a, b| a.0 == b.0) {
                let Some((at, first)) = of_branch.first() else { continue };
                let branch = &fleet.branches[*at].info.id;
                if let Some((changed, frontier)) = timelines.late(branch, of_branch.iter().map(|(_, facts)| facts)) {
                    store::add_late(db, branch, first.stream, changed, frontier, now)?;
                }
            }
            drop(timelines);
            let mut samples = Vec::new();
            for work in staged.iter_mut() {
                work.row.no = store::put_stream(db, &work.row)?;
                for (device, from, change, seq) in &work.transitions {
                    let row = TransitionRow {
                        device: fleet.devices[*device].no,
                        stream: work.row.no,
                        seq: *seq,
                        from: *from,
                        change: change.clone(),
                        received: work.received,
                    };
                    store::add_transition(db, &row)?;
                }
                for (device, proof) in &work.proofs {
                    let device = fleet.devices[*device].no;
                    store::add_proof(db, &ProofRow { device, stream: work.row.no, ..proof.clone() })?;
                }
                for (device, flags, since, _) in &work.flags {
                    store::put_flags(db, fleet.devices[*device].no, work.row.no, *flags, *since)?;
                }
                for (at, identity) in &work.identities {
                    let device = fleet.devices[*at].no;
                    if store::add_identity(db, &IdentityRow { device, stream: work.row.no, ..identity.clone() })? {
                        changed.push(*at);
                    }
                }
                for gap in &work.gaps {
                    let stream = if gap.stream == 0 { work.row.no } else { gap.stream };
                    store::add_gap(db, &GapRow { stream, ..gap.clone() })?;
                }
                for (device, rows) in &work.minutes {
                    store::add_minutes(db, fleet.devices[*device].no, rows)?;
                }
                samples.append(&mut work.samples);
            }
            let Some(waiting) = outbox.as_mut().filter(|_| !samples.is_empty()) else { return Ok(outbox) };
            for part in samples.chunks_mut(REQUEST_LIMIT_SAMPLES) {
                let (body, count) = samples::encode(part, now, |device| {
                    let device = &fleet.devices[device];
                    (&device.info, &fleet.branches[device.branch].info)
                });
                waiting.push(db, count, &body)?;
            }
            Ok(outbox)
        })?;
        if !changed.is_empty() {
            live.prepare(|fleet| changed.iter().for_each(|device| fleet.set_changed(*device, true)));
        }
        self.taken.clear();
        let before = std::mem::replace(&mut self.outbox, outbox);
        let (before, after) =
            (before.iter().flat_map(|outbox| &outbox.readers), self.outbox.iter().flat_map(|outbox| &outbox.readers));
        for (before, OutboxReader { name, bytes, lost, .. }) in before.zip(after) {
            let labels = label("endpoint", name);
            self.metrics.set("ward_remote_write_queue_bytes", &labels, *bytes as f64);
            let lost = lost - before.lost;
            if lost > 0 {
                self.metrics.add("ward_remote_write_dropped_total", &labels, lost);
                tracing::error!(
                    samples = lost,
                    endpoint = name,
                    "the queue for VictoriaMetrics is full: its oldest samples are gone"
                );
            }
        }
        Ok(())
    }

    fn tick(&mut self, now: Millis) {
        self.live.change(now, |_| {});
        self.write_cuts(CUTS_AT_ONCE);
        if self.metrics.value("ward_clock_behind", "") > 0.0 && !self.is_clock_behind(now) {
            tracing::info!("the collector's clock is right again");
            self.metrics.set("ward_clock_behind", "", 0.0);
            self.logged.remove(&(String::new(), "clock_behind"));
        }
        self.contended.retain(|_, at| now.since(*at).abs() < CONTENDED_MS);
        self.metrics.set("ward_agents_contending", "", self.contended.len() as f64);
        let fleet = self.live.fleet();
        let counts = fleet.counts();
        for (status, n) in [("up", counts.up), ("down", counts.down), ("unknown", counts.unknown)] {
            self.metrics.set("ward_devices", &format!("status=\"{status}\""), n as f64);
        }
        for contact in ["never", "connected", "silent"] {
            let n = fleet.branches.iter().filter(|branch| branch.contact.as_str() == contact).count();
            self.metrics.set("ward_branches", &format!("contact=\"{contact}\""), n as f64);
        }
        let oldest = fleet.branches.iter().filter_map(|branch| branch.known_through()).min();
        let age = oldest.map_or(0, |at| now.since(at).max(0));
        self.metrics.set("ward_oldest_observation_seconds", "", age as f64 / 1000.0);
        let heard = fleet.branches.iter().filter(|branch| branch.contact == Contact::Connected);
        let behind = heard.filter_map(|branch| branch.observed).min().map_or(0, |at| now.since(at).max(0));
        self.metrics.set("ward_ledger_lag_seconds", "", behind as f64 / 1000.0);
        self.metrics.has_run("tick", now);
        drop(fleet);
        if now.since(self.progress_at).abs() >= PROGRESS_EVERY_MS {
            self.progress_at = now;
            self.write_progress(now);
        }
        if now.since(self.sealed_at).abs() >= SEAL_EVERY_MS {
            self.seal(now);
        }
    }

    /// Writes down when and why branches couldn't be heard, and what answered in them meanwhile, once that is known; at most
    /// `limit` such times.
    fn write_cuts(&mut self, limit: usize) {
        let mut settled: Vec<(usize, Cut)> = Vec::new();
        self.live.prepare(|fleet| settled = fleet.take_settled_cuts(limit));
        if settled.is_empty() {
            return;
        }
        let branches: Vec<(BranchId, Vec<u32>, Option<Millis>)> = {
            let fleet = self.live.fleet();
            let branch = |(at, _): &(usize, Cut)| {
                let branch = &fleet.branches[*at];
                (branch.info.id.clone(), branch.devices.iter().map(|device| fleet.devices[*device].no).collect(), branch.observed)
            };
            settled.iter().map(branch).collect()
        };
        let written = self.store.transaction(|db| {
            for ((_, cut), (branch, devices, observed)) in settled.iter_mut().zip(&branches) {
                let Some(to) = cut.to else { continue };
                let mut covered = store::covered(db, branch.as_str())?;
                // What heartbeats vouch for is written down later.
                if let (Some(last), Some(observed)) = (covered.last_mut(), observed) {
                    last.to = last.to.max(*observed);
                }
                let changes = store::changes_of(db, devices, cut.from, to)?;
                let lines = devices.iter().map(|no| changes.get(no).map_or(&[][..], Vec::as_slice));
                let answered = outage::answered(lines, &covered, cut.from, to);
                cut.reason.push_str(&format!("; {answered}"));
                if let Some(verdict) = cut.verdict {
                    let (branch, reason) = (branch.to_string(), cut.reason.clone());
                    store::add_cut(db, &CutRow { branch, from: cut.from, to, verdict, reason })?;
                }
            }
            Ok(())
        });
        if self.has_succeeded(written) {
            self.live.prepare(|fleet| settled.iter().for_each(|(branch, cut)| fleet.explain_cut(*branch, cut)));
        }
    }

    /// Writes down how far quiet streams were observed: what a heartbeat has vouched for is known for good.
    /// Writes down how far quiet streams were observed, and that there was a collector until now.
    fn write_progress(&mut self, now: Millis) {
        let mut rows = Vec::new();
        for (key, (observed, error_ms)) in &self.progress {
            // A batch or a full minute may have told more since.
            if let Some(row) = self.streams.get(key).filter(|row| row.observed < *observed) {
                rows.push((key.clone(), StreamRow { observed: *observed, error_ms: *error_ms, ..row.clone() }));
            }
        }
        self.furthest = self.furthest.max(now);
        let until = Moment { wall: now, uptime: self.uptime, ..self.began };
        let alive = store::Alive { until, furthest: self.furthest };
        let put = |db: &rusqlite::Transaction<'_>| {
            rows.iter().try_for_each(|(_, row)| store::put_stream(db, row).map(drop))?;
            store::put_alive(db, alive)
        };
        let written = self.store.transaction(put);
        if !self.has_succeeded(written) {
            return;
        }
        let mut timelines = self.live.timelines_mut();
        rows.iter().for_each(|((branch, stream), row)| timelines.observed(branch, *stream, row.observed));
        drop(timelines);
        self.streams.extend(rows);
        self.progress.clear();
    }

    fn seal(&mut self, now: Millis) {
        // A day is left open a little longer: most of what is late comes within hours.
        match self.store.transaction(|db| store::seal(db, now.plus(-SEAL_AFTER_MS), SEAL_LIMIT)) {
            Ok(packed) => {
                // More may be due: go on at the next tick.
                self.sealed_at = if packed == SEAL_LIMIT as usize { Millis(0) } else { now };
                self.metrics.has_run("seal", now);
            }
            Err(error) => {
                self.sealed_at = now;
                tracing::error!(%error, "finished days can't be packed");
            }
        }
    }

    fn publish_configs(&mut self, now: Millis) {
        match self.versioned_configs(now) {
            Ok(orders) => {
                self.live.change(now, |fleet| {
                    for order in &orders {
                        let at = fleet.branch(&order.branch);
                        at.into_iter().for_each(|at| fleet.branches[at].config_wanted = Some(order.config.version));
                    }
                });
                orders.into_iter().for_each(|order| self.send(Outgoing::Config(order)));
            }
            Err(error) => tracing::error!(%error, "configs can't be given versions: agents keep what they have"),
        }
    }

    fn versioned_configs(&mut self, now: Millis) -> Result<Vec<Order>, StoreError> {
        let before = store::config_versions(self.store.connection())?;
        let (live, rollout) = (&self.live, &self.rollout);
        self.store.transaction(|db| {
            let fleet = live.fleet();
            let mut orders = Vec::with_capacity(fleet.branches.len());
            for branch in &fleet.branches {
                let id = &branch.info.id;
                let devices = branch.devices.iter().map(|at| &fleet.devices[*at].info);
                let known = before.get(id.as_str()).copied().unwrap_or_default();
                let (config, crc) = rollout::versioned(rollout::config(rollout, id, devices), known, now);
                if (config.version, crc) != known {
                    store::set_config_version(db, id.as_str(), config.version, crc)?;
                }
                orders.push(Order { branch: id.clone(), config });
            }
            Ok(orders)
        })
    }

    fn send(&mut self, outgoing: Outgoing) {
        // The bus takes what it can: an ack that is lost is asked for again, a config is sent at each connection.
        if self.outgoing.try_send(outgoing).is_err() {
            self.metrics.add("ward_outgoing_dropped_total", "", 1);
            if self.logs_first("", "outgoing") {
                tracing::warn!(
                    "the way to the broker is full: acks and configs are left to the next time; more of the same are only counted"
                );
            }
        }
    }
}

/// How long to wait in ms after an agent was asked for its states before it is asked again. Each time doubles it.
const RESTATEMENT_WAIT_MS: i64 = 2_500;
/// Longest such wait, in ms.
const RESTATEMENT_WAIT_LIMIT_MS: i64 = 600_000;
/// How long to wait in ms after an agent was asked how it is before it is asked again.
const HEALTH_WAIT_MS: i64 = 60_000;
/// After a change of the inventory nobody is asked before the time that this many questions would have taken: 80 s.
const RESTATEMENTS_SPARED: u32 = 5;
/// Changes of each device that are remembered over a restart, for flapping.
const RECENT_CHANGES: u32 = 16;
/// A batch that was sent longer ago than this, in ms, is dated anew: it would have been sent again long since.
const STALE_MS: i64 = 3_600_000;
/// Most things that are logged once each.
const LOGGED_LIMIT: usize = 1_000;
/// How long two agents of a branch are told of after they spoke, in ms.
const CONTENDED_MS: i64 = 600_000;
/// Most samples of one remote-write request.
const REQUEST_LIMIT_SAMPLES: usize = 20_000;
/// Widest bounds, in ms, by which a branch counts as observed. Within wider ones changes are told, with their error.
const VAGUE_MS: i64 = 30 * 24 * 3_600_000;
/// Widest bounds, in ms, whose half an error can state.
const BOUNDS_LIMIT_MS: i64 = 2 * u32::MAX as i64;
/// A clock that has lost no more than this, in ms, while the collector was down was steered, and not set back.
const SET_BACK_SLACK_MS: i64 = 2_000;
/// How often the progress of quiet streams is written, in ms.
const PROGRESS_EVERY_MS: i64 = 5_000;
/// Cuts that are written down in one tick: all branches may be back at once, and what is new of them goes first.
const CUTS_AT_ONCE: usize = 100;
/// How often finished days are packed, in ms.
const SEAL_EVERY_MS: i64 = 600_000;
/// How long a day stays open after its end, in ms.
const SEAL_AFTER_MS: i64 = 6 * 3_600_000;

/// What the ledger holds of a device: its newest changes, the start of an open outage, and whether the last change is
/// its verdict now.
fn history(db: &rusqlite::Connection, device: u32, present: Option<i64>) -> Result<(Recent, Option<Millis>, bool), StoreError> {
    let recent = store::recent_changes(db, device, RECENT_CHANGES)?;
    let lost_through = present.map_or(Ok(0), |stream| store::lost_through(db, stream))?;
    let is_verdict = is_verdict(&recent, present, lost_through);
    Ok((recent, store::open_since(db, device)?, is_verdict))
}

/// Whether a device's last change says what it is: the present run has told it, and nothing was lost after it.
fn is_verdict(recent: &Recent, present: Option<i64>, lost_through: u64) -> bool {
    recent.last.is_some_and(|(stream, seq)| Some(stream) == present && seq > lost_through)
}

/// Shows on the fleet what the ledger has taken.
fn show(fleet: &mut Fleet, work: &Staged, now: Millis) {
    if work.begins {
        fleet.begin(work.branch, work.row.stream, &work.row.version, work.row.began);
    }
    if let Some(origin) = work.origin.filter(|_| fleet.is_present(work.branch, work.row.stream)) {
        fleet.tell_origin(work.branch, origin);
    }
    let is_present = fleet.is_present(work.branch, work.row.stream);
    if let Some((doubt, _)) = work.doubt().filter(|_| is_present) {
        fleet.doubt(work.branch, doubt);
    }
    for (device, from, change, seq) in work.verdicts().filter(|_| is_present) {
        fleet.change(*device, *from, change);
        let proof = work.proofs.iter().find(|(of, proof)| of == device && proof.seq == *seq);
        fleet.blame(*device, proof.and_then(|(_, proof)| proof.verdict));
    }
    for (device, flags, ..) in work.flags.iter().filter(|_| is_present) {
        fleet.flag(*device, *flags);
    }
    for (device, rows) in &work.minutes {
        for row in rows {
            let (sent, lost) = (f64::from(row.minute.sent), f64::from(row.minute.lost));
            let rtt_us = row.minute.rtt.map(|rtt| rtt.avg_us);
            fleet.measure(*device, Quality { at: row.end, rtt_us, loss: 100.0 * lost / sent });
        }
    }
    // A date that may be off must not make old states look fresh.
    let surely = work.row.observed.plus(-i64::from(work.row.error_ms));
    if is_present {
        fleet.observed(work.branch, work.row.stream, work.row.through, (!work.is_past).then_some(surely), now);
    }
}

/// A stream that is known from `since` to where its row says.
fn facts_of(row: &StreamRow, since: Millis) -> Facts {
    Facts {
        stream: row.stream,
        begins: false,
        began: row.began,
        since,
        observed: row.observed,
        through: row.through,
        lost: None,
        told: Vec::new(),
    }
}

fn lane_label(lane: Lane) -> &'static str {
    match lane {
        Lane::Up => "lane=\"up\"",
        Lane::Live => "lane=\"live\"",
        Lane::Presence => "lane=\"presence\"",
        Lane::Ack => "lane=\"ack\"",
        Lane::Config => "lane=\"config\"",
        Lane::Ask => "lane=\"ask\"",
        Lane::Answer => "lane=\"answer\"",
    }
}

fn quality_samples(device: usize, row: &MinuteRow, out: &mut Vec<Sample>) {
    let sample = |metric, value| Sample { device, metric, at: row.end, value };
    let ms = |us: u32| f64::from(us) / 1000.0;
    out.push(sample(Metric::Loss, 100.0 * f64::from(row.minute.lost) / f64::from(row.minute.sent)));
    if let Some(rtt) = row.minute.rtt {
        out.push(sample(Metric::Rtt, ms(rtt.avg_us)));
        out.push(sample(Metric::RttMin, ms(rtt.min_us)));
        out.push(sample(Metric::RttMax, ms(rtt.max_us)));
    }
}

/// The date of a moment, never ahead of the collector's clock: an agent's error of some ms must not reach the future.
fn date(dating: &Dating, at: Uptime, now: Millis) -> Millis {
    dating.date(at).0.min(now)
}

/// What is written of a batch whose dates can't be right: that it was there. Refused, it would be sent for ever, and
/// all that comes after it would wait.
fn undatable(
    branch: usize,
    row: StreamRow,
    seqs: (u64, u64),
    missing: Option<(u64, u64)>,
    entries: &[(u64, &Delta)],
    now: Millis,
) -> Staged {
    let unreadable = missing.map_or(0, |(first, last)| last - first + 1);
    let mut dropped = shared::Dropped { unreadable, ..shared::Dropped::default() };
    for (_, delta) in entries {
        match &delta.body {
            // A flag or an identity that is lost is told anew with the states.
            Body::Transition(_) | Body::Flagged(_) | Body::Identity(_) => dropped.transitions += 1,
            Body::Qualities(qualities) => dropped.minutes += qualities.minutes(),
            Body::Gap(gap) => dropped.add(gap.dropped),
            Body::Boot(_) => {}
        }
    }
    let began = if row.began.is_plausible(now) { row.began } else { now };
    let observed = row.observed.max(began).min(now);
    // A gap that the agent tells may reach back over what is known already.
    let first = entries.first().map_or(seqs.0, |(seq, _)| seqs.0.min(*seq));
    // Of a run that was never dated nothing is known, and nothing claimed: it takes out no time that others have seen.
    let from = if row.observed > Millis(0) { observed } else { now };
    let gap = GapRow { stream: 0, first, last: seqs.1, from, to: now, reason: "undatable".to_owned(), dropped };
    Staged { gaps: vec![gap], ..Staged::of(branch, StreamRow { began, observed, error_ms: u32::MAX, ..row }, now) }
}

/// From when on something happened of which no more is known, if its dates are as uncertain as that.
fn vague_since(dating: &Dating) -> Option<Millis> {
    match dating {
        Dating::Bounds { not_before, not_after } => (not_after.since(*not_before) > VAGUE_MS).then_some(*not_before),
        Dating::Fixed { .. } => None,
    }
}

/// What is written of a batch whose dates are uncertain by weeks: its changes, each with its error. It vouches for no time
/// and takes out none that others have seen, and its minutes have no place.
fn vague(staged: Staged, since: Millis, entries: &[(u64, &Delta)]) -> Staged {
    let row = StreamRow { observed: since, error_ms: 0, ..staged.row };
    let told = staged.gaps.into_iter().map(|gap| if gap.stream == 0 { GapRow { from: since, to: since, ..gap } } else { gap });
    let minutes = entries.iter().filter_map(|(seq, delta)| {
        let Body::Qualities(qualities) = &delta.body else { return None };
        let dropped = shared::Dropped { minutes: qualities.minutes(), ..shared::Dropped::default() };
        let (first, last, reason) = (*seq, *seq, "undatable".to_owned());
        Some(GapRow { stream: 0, first, last, from: since, to: since, reason, dropped })
    });
    let gaps = told.chain(minutes).collect();
    Staged { row, gaps, minutes: Vec::new(), samples: Vec::new(), is_vague: true, ..staged }
}

/// Whether a batch tells of what has not happened yet, by our clock.
fn is_ahead(batch: &Batch, now: Millis) -> bool {
    moments(batch).any(|at| batch.dating.date(at).0.since(now) > Millis::AHEAD_LIMIT_MS)
}

/// Every moment that a batch names, but for the spread of its minutes; when it was sent among them: what is old looks
/// fresh by a clock that was set back.
fn moments(batch: &Batch) -> impl Iterator<Item = Uptime> {
    let named = batch.group.deltas.iter().flat_map(|delta| match &delta.body {
        Body::Transition(transition) => [delta.at, transition.onset],
        Body::Qualities(qualities) => [delta.at, qualities.first_end],
        Body::Gap(gap) => [gap.from, gap.to],
        Body::Flagged(flagged) => [delta.at, flagged.since],
        Body::Boot(_) | Body::Identity(_) => [delta.at, delta.at],
    });
    named.chain([batch.observed_through]).chain(batch.sent)
}

/// Whether a batch says that it was sent so long ago that no line takes that long: its dates are those of a wrong clock.
fn is_stale(batch: &Batch, now: Millis) -> bool {
    batch.sent.is_some_and(|sent| {
        let (at, error_ms) = batch.dating.date(sent);
        now.since(at) > STALE_MS + i64::from(error_ms)
    })
}

fn plausible(batch: &Batch, now: Millis) -> Result<(), String> {
    if let Dating::Bounds { not_before, not_after } = batch.dating
        && not_after.since(not_before) > BOUNDS_LIMIT_MS
    {
        return Err(format!("it lies somewhere between {not_before} and {not_after}"));
    }
    let mut dates = moments(batch).map(|at| batch.dating.date(at));
    // An earlier boot can't be dated anew: as far as its dates say that they may be off, it was over by now.
    let slack = |error_ms: u32| if batch.sent.is_none() { i64::from(error_ms) } else { 0 };
    match dates.find(|(date, error_ms)| !date.is_plausible(now.plus(slack(*error_ms)))) {
        Some((date, _)) => Err(format!("{date} can't be the date of something that has happened")),
        None => Ok(()),
    }
}

/// Sends a tick each second until the thread is gone.
pub async fn tick(commands: inbox::Sender) {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        every.tick().await;
        if ward_agent::clock::synchronised().is_some() && commands.send(Command::Synchronised).await.is_err() {
            return;
        }
        if commands.send(Command::Tick(clock::uptime())).await.is_err() {
            return;
        }
    }
}

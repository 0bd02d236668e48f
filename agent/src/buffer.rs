//! What the agent has seen and the collector has not yet confirmed: in memory first, on disk when it must wait.
//!
//! The only queue between a verdict and the collector. Entries leave on an ack and in no other way; what doesn't fit is
//! replaced by a gap that says how much. It reads no clock and touches the disk only through a [`Store`].

use std::collections::{BTreeMap, BTreeSet, VecDeque, btree_map};
use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shared::delta::{Boot, Previous};
use shared::{Body, BootId, Delta, Dropped, Gap, GapReason, Group, StreamId, Uptime};

use crate::dating::Anchor;

/// How long a transition may wait in memory for its ack, in ms, before it is written.
const TRANSITION_WAIT_MS: u64 = 1_000;
/// How long qualities may wait in memory, in ms: one durable write costs a card 5-12 kB however little it holds.
const QUALITY_WAIT_MS: u64 = 300_000;
/// How often a run without a link and without the time writes down how long it has lasted, in ms.
const UNDATED_WAIT_MS: u64 = 300_000;
/// Most bytes of entries in memory before they are written whatever their age.
const MEMORY_LIMIT_BYTES: usize = 1024 * 1024;
/// Most bytes in memory while the disk takes nothing.
const VOLATILE_LIMIT_BYTES: usize = 4 * 1024 * 1024;
/// Most bytes of one group on disk, but for one that a single entry fills.
pub const GROUP_LIMIT_BYTES: usize = 7_000;
/// How far, in ms, an entry's moment may lie beyond the first sign of a change that is told later. The same bound holds
/// for what counts as observed.
pub const CONFIRMATION_LIMIT_MS: u64 = 5_000;
/// How long to leave a disk alone that has just failed, in ms.
const RETRY_MS: u64 = 10_000;
/// How long in ms all that follows waits for what can't be read, before that counts as lost: a card that hangs mostly wakes.
const UNREADABLE_MS: u64 = 600_000;
/// Most bytes of what is on disk that memory holds as well, for the day on which the disk can't be read.
const COPIES_LIMIT_BYTES: usize = 1024 * 1024;
/// The form of groups on a disk. An update that writes another one still reads those of the version before it.
const FORM: u8 = 1;

/// A run of the agent, as its disk remembers it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Counts the runs of this machine.
    pub ordinal: u32,
    /// The run's stream.
    pub stream: StreamId,
    /// The boot it ran in.
    pub boot: BootId,
    /// Last sequence number that is known to have been given out.
    pub last: u64,
    /// When that was written: no entry up to it is of a later moment.
    pub at: Uptime,
    /// Whether the run ended by itself with everything on disk or acknowledged.
    pub clean: bool,
    /// How its boot is dated, as far as it was known when this was written.
    pub dating: Option<Anchor>,
    /// What was known of that before the oldest entry that waited: what was seen since is dated by both.
    #[serde(deserialize_with = "left_out")]
    pub before: Option<Anchor>,
}

/// A place in the order of all entries of all runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// The run's ordinal.
    pub run: u32,
    /// The sequence number in its stream.
    pub seq: u64,
}

/// One change to a store.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Keep a group under the position of its first entry.
    Put(Position, Vec<u8>),
    /// Forget the group at this position.
    Remove(Position),
    /// Remember a run.
    Run(Run),
    /// Forget a run.
    ForgetRun(u32),
}

/// Where groups outlive the process.
pub trait Store {
    /// The runs it remembers, oldest first.
    fn runs(&mut self) -> io::Result<Vec<Run>>;
    /// Positions of the groups it holds, oldest first.
    fn positions(&mut self) -> io::Result<Vec<Position>>;
    /// The group at a position.
    fn read(&mut self, at: Position) -> io::Result<Option<Vec<u8>>>;
    /// Applies all writes or none, and returns when they would survive a power cut.
    fn commit(&mut self, writes: Vec<Write>) -> io::Result<()>;
    /// Applies writes that may be undone by a power cut.
    fn forget(&mut self, writes: Vec<Write>) -> io::Result<()>;
    /// Gives room back that it takes beyond what it holds, where that has become much.
    fn trim(&mut self, _held_bytes: u64) -> io::Result<()> {
        Ok(())
    }
    /// Whether there is room for more than the next few writes.
    fn has_room(&mut self) -> bool {
        true
    }
    /// The newest run as it was last committed, which a damaged disk may have forgotten.
    fn newest(&mut self) -> io::Result<Option<Run>> {
        Ok(None)
    }
    /// Whether what earlier runs left was found damaged and put aside since this was last asked.
    fn has_put_aside(&mut self) -> bool {
        false
    }
}

/// What the buffer knows of a group on disk without reading it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Stored {
    last: u64,
    bytes: usize,
    /// Device-minutes inside, which go first when room is needed.
    minutes: u64,
    from: Uptime,
    to: Uptime,
    /// No later entry is of an earlier moment: what is lost may have been of any in its time.
    since: Uptime,
}

/// The newest groups on disk, in memory as well.
#[derive(Debug, Default)]
struct Copies {
    groups: BTreeMap<Position, Vec<u8>>,
    bytes: usize,
}

impl Copies {
    fn put(&mut self, at: Position, group: Vec<u8>) {
        self.remove(at);
        self.bytes += group.len();
        self.groups.insert(at, group);
        while self.bytes > COPIES_LIMIT_BYTES
            && let Some((_, oldest)) = self.groups.pop_first()
        {
            self.bytes -= oldest.len();
        }
    }

    fn remove(&mut self, at: Position) {
        self.bytes -= self.groups.remove(&at).map_or(0, |group| group.len());
    }

    fn read(&self, at: Position) -> Option<Group> {
        self.groups.get(&at).and_then(|bytes| decode(bytes))
    }
}

/// The groups on disk by position, with their sums.
#[derive(Debug, Default)]
struct Index {
    groups: BTreeMap<Position, Stored>,
    bytes: u64,
    entries: u64,
}

impl Index {
    fn insert(&mut self, at: Position, stored: Stored) {
        self.remove(at);
        self.bytes += stored.bytes as u64;
        self.entries += stored.last - at.seq + 1;
        self.groups.insert(at, stored);
    }

    fn remove(&mut self, at: Position) {
        if let Some(stored) = self.groups.remove(&at) {
            self.bytes -= stored.bytes as u64;
            self.entries -= stored.last - at.seq + 1;
        }
    }

    /// The groups of one run, oldest first.
    fn of_run(&self, run: u32) -> btree_map::Range<'_, Position, Stored> {
        self.groups.range(Position { run, seq: 0 }..=Position { run, seq: u64::MAX })
    }

    /// The first group that ends after a position.
    fn beyond(&self, after: Position) -> Option<(Position, Stored)> {
        // The group that the position lies in begins at or before it.
        let from = self.groups.range(..=after).next_back().map_or(after, |(at, _)| *at);
        let mut groups = self.groups.range(from..);
        groups.find(|(at, stored)| Position { seq: stored.last, ..**at } > after).map(|(at, stored)| (*at, *stored))
    }
}

/// Entries on their way to the collector.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// The run that they belong to.
    pub run: Run,
    /// Whether that is the present run.
    pub present: bool,
    /// The entries.
    pub group: Group,
    /// Position of the last of them.
    pub end: Position,
    /// The oldest sequence number of this stream that is still held.
    pub oldest: u64,
    /// Every change before this moment is in the stream up to the chunk's end.
    pub observed_through: Uptime,
}

/// How the buffer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Level {
    /// Entries that wait for an ack.
    pub waiting: u64,
    /// Bytes of those on disk.
    pub bytes: u64,
    /// Bytes of those in memory only.
    pub memory_bytes: u64,
    /// The disk takes nothing, or soon won't: what waits may be in memory only.
    pub volatile: bool,
}

/// See the module.
pub struct Buffer<S> {
    store: S,
    run: Run,
    older: Vec<Run>,
    disk: Index,
    copies: Copies,
    /// Entries of the present run that aren't on disk, with their first sequence number and their size.
    memory: VecDeque<Numbered>,
    memory_bytes: usize,
    memory_entries: u64,
    observed_through: Uptime,
    limit_bytes: u64,
    /// Whether it is known what earlier runs left.
    is_loaded: bool,
    volatile_since: Option<Uptime>,
    retry_at: Uptime,
    /// When to look again whether the disk has room.
    room_at: Uptime,
    /// The oldest group can't be read now: nothing goes out before it.
    is_blocked: bool,
    /// Since when, and when last, a group couldn't be read that memory doesn't hold either.
    unreadable: Option<(Uptime, Uptime)>,
    /// New groups of a commit that took too long: they may be on the disk all the same, though nobody counts on them.
    late: BTreeSet<Position>,
    /// What was to be forgotten when the disk failed: left there, it would come back with the next run.
    owed: Vec<Write>,
    /// The disk is good, and will soon be full.
    lacks_room: bool,
}

impl<S: Store> Buffer<S> {
    /// Takes over what earlier runs left and begins a new stream with its boot entry.
    ///
    /// A stream never outlives its process: a number that was sent but not durable could be given out again.
    pub fn open(mut store: S, stream: StreamId, boot: BootId, limit_bytes: u64, now: Uptime) -> Self {
        let loaded = load(&mut store).inspect_err(|error| tracing::error!(%error, "the buffer can't be read"));
        let is_loaded = loaded.is_ok();
        let (older, disk, orphans) = loaded.unwrap_or_default();
        let anchors = anchors_of(&older, boot);
        let previous = older.iter().max_by_key(|run| run.ordinal);
        let ordinal = previous.map_or(1, |run| run.ordinal + 1);
        let entry = Boot { boot, version: crate::VERSION.to_owned(), previous: previous.map(previous_of) };
        let mut buffer = Self {
            store,
            // What an earlier run of this boot has learnt of the time still holds.
            run: Run { ordinal, stream, boot, last: 0, at: now, clean: false, dating: newest(&anchors), before: None },
            older,
            disk,
            copies: Copies::default(),
            memory: VecDeque::new(),
            memory_bytes: 0,
            memory_entries: 0,
            observed_through: now,
            limit_bytes,
            is_loaded,
            volatile_since: (!is_loaded).then_some(now),
            retry_at: now,
            room_at: now,
            is_blocked: false,
            unreadable: None,
            late: BTreeSet::new(),
            owed: Vec::new(),
            lacks_room: false,
        };
        buffer.append(Body::Boot(entry), now);
        buffer.append_orphans(orphans, now);
        if !buffer.is_loaded {
            return buffer;
        }
        // The run must be known to the next one even if this one never has to wait for an ack.
        let begun = Run { last: 1, ..buffer.run.clone() };
        match buffer.store.commit(vec![Write::Run(begun)]) {
            Ok(()) => buffer.disk_took(now),
            Err(error) => buffer.disk_failed("remembering the run", &error, now),
        }
        buffer
    }

    /// Says that so many entries of runs that nobody remembers could not be sent, at least.
    fn append_orphans(&mut self, entries: u64, now: Uptime) {
        if entries > 0 {
            tracing::error!(entries, "earlier runs left entries that nobody can read or place: reporting a gap");
            let dropped = Dropped { unreadable: entries, ..Dropped::default() };
            // When that was isn't known, only that it was before this run: the time between runs is no run's anyway.
            self.append(Body::Gap(Gap { span: 1, from: now, to: now, reason: GapReason::Corrupted, dropped }), now);
        }
    }

    /// The present run.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Adds an entry to the present stream.
    pub fn append(&mut self, body: Body, at: Uptime) {
        let delta = Delta { at, body };
        let bytes = postcard::experimental::serialized_size(&delta).unwrap_or(0);
        let seq = self.run.last + 1;
        self.run.last = seq + delta.span() - 1;
        self.memory_bytes += bytes;
        self.memory_entries += delta.span();
        self.memory.push_back((seq, delta, bytes));
    }

    /// Every change before `moment` has been appended.
    pub fn observed(&mut self, moment: Uptime) {
        self.observed_through = self.observed_through.max(moment);
    }

    /// What [`Self::observed`] was told last.
    pub fn observed_through(&self) -> Uptime {
        self.observed_through
    }

    /// The moment of the oldest entry of this boot that waits, about.
    pub fn oldest_moment(&self) -> Option<Uptime> {
        let is_of_boot = |ordinal: u32| {
            ordinal == self.run.ordinal || self.older.iter().any(|run| (run.ordinal, run.boot) == (ordinal, self.run.boot))
        };
        let on_disk = self.disk.groups.iter().find(|(at, _)| is_of_boot(at.run)).map(|(_, stored)| stored.from);
        on_disk.or_else(|| self.memory.front().map(|(_, delta, _)| delta.at))
    }

    /// Tells when the present boot began, as it is known now and as it was known before the oldest entry. The first time it
    /// is written down: should this run end before it can send what it holds, the next one could not date it.
    pub fn dated(&mut self, anchor: Anchor, before: Option<Anchor>, now: Uptime) {
        self.run.before = before;
        let is_first = self.run.dating.replace(anchor).is_none();
        if !is_first || !self.is_loaded || now < self.retry_at {
            return;
        }
        if let Err(error) = self.remember_run() {
            self.disk_failed("remembering the time", &error, now);
        }
    }

    /// Writes the present run down as far as it is on disk: its last number there never runs ahead of its groups.
    fn remember_run(&mut self) -> io::Result<()> {
        let last = self.disk.of_run(self.run.ordinal).next_back().map_or(1, |(_, stored)| stored.last);
        self.store.commit(vec![Write::Run(Run { last, ..self.run.clone() })])
    }

    /// The runs before this one that still have entries, oldest first.
    pub fn older(&self) -> &[Run] {
        &self.older
    }

    /// Whether nothing can go out because what has to go first can't be read.
    pub fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    /// How full it is.
    pub fn level(&self) -> Level {
        Level {
            waiting: self.disk.entries + self.memory_entries,
            bytes: self.disk.bytes,
            memory_bytes: self.memory_bytes as u64,
            volatile: self.volatile_since.is_some(),
        }
    }

    /// Writes what has waited long enough. `connected`: whether an ack may come at once.
    pub fn tick(&mut self, connected: bool, now: Uptime) {
        if self.volatile_since.is_some() && now >= self.retry_at.max(self.room_at) {
            if self.lacks_room {
                // Trying it by a write would wear it.
                self.disk_took(now);
            } else {
                // What earlier runs left has to go out even if this one never has to write.
                match self.load_late(now).and_then(|()| self.remember_run()) {
                    Ok(()) => self.disk_took(now),
                    Err(error) => self.disk_failed("trying the disk again", &error, now),
                }
            }
        }
        // How long a boot lived bounds when it began, should it never hear the time.
        let is_undated = !connected && self.run.dating.is_none() && self.is_loaded && self.volatile_since.is_none();
        if is_undated && now.since(self.run.at) >= UNDATED_WAIT_MS {
            self.run.at = now;
            if let Err(error) = self.remember_run() {
                self.disk_failed("remembering how long the run has lasted", &error, now);
            }
        }
        let patience = if connected { TRANSITION_WAIT_MS } else { 0 };
        let due = self.memory.iter().any(|(_, delta, _)| {
            let age = now.since(delta.at);
            match delta.body {
                Body::Transition(_) => age >= patience,
                Body::Qualities(_) | Body::Boot(_) | Body::Gap(_) | Body::Flagged(_) | Body::Identity(_) => {
                    age >= QUALITY_WAIT_MS
                }
            }
        });
        if due || self.memory_bytes > MEMORY_LIMIT_BYTES {
            self.flush(now);
        }
        if self.memory_bytes > VOLATILE_LIMIT_BYTES {
            self.thin_memory();
        }
    }

    /// Writes all that isn't on disk yet.
    pub fn flush(&mut self, now: Uptime) {
        if self.memory.is_empty() || now < self.retry_at {
            return;
        }
        if let Err(error) = self.load_late(now) {
            self.disk_failed("reading the buffer", &error, now);
            return;
        }
        let mut writes = self.owed.clone();
        writes.extend(self.taken_back(u64::MAX));
        let mut stored = Vec::new();
        for group in split(self.memory.iter(), GROUP_LIMIT_BYTES) {
            let at = Position { run: self.run.ordinal, seq: group.first };
            let bytes = encode(&group);
            stored.push((at, describe(&group, bytes.len()), bytes.clone()));
            writes.push(Write::Put(at, bytes));
        }
        self.run.at = now;
        writes.push(Write::Run(self.run.clone()));
        if let Err(error) = self.store.commit(writes) {
            if error.kind() == io::ErrorKind::TimedOut {
                self.late.extend(stored.into_iter().map(|(at, ..)| at));
            }
            self.disk_failed("writing the buffer", &error, now);
            return;
        }
        self.late.clear();
        self.owed.clear();
        self.disk_took(now);
        for (at, group, bytes) in stored {
            self.disk.insert(at, group);
            self.copies.put(at, bytes);
        }
        self.memory.clear();
        (self.memory_bytes, self.memory_entries) = (0, 0);
        self.enforce_limit(now);
        self.trim(now);
    }

    /// Removes what may have been written late, as far as it ends before a number.
    fn taken_back(&self, through: u64) -> Vec<Write> {
        let unknown = |at: &&Position| at.seq <= through && !self.disk.groups.contains_key(at);
        self.late.iter().filter(unknown).map(|at| Write::Remove(*at)).collect()
    }

    fn trim(&mut self, now: Uptime) {
        if let Err(error) = self.store.trim(self.disk.bytes) {
            self.disk_failed("making the buffer smaller", &error, now);
        }
    }

    /// Takes over what earlier runs left, if the disk couldn't be read when this one began. This run comes after them.
    fn load_late(&mut self, now: Uptime) -> io::Result<()> {
        if self.is_loaded {
            return Ok(());
        }
        let (older, disk, orphans) = load(&mut self.store)?;
        // Where it has gone out already, the collector knows no better than that a run began.
        if let Some((1, delta, bytes)) = self.memory.front_mut()
            && let Body::Boot(boot) = &mut delta.body
        {
            boot.previous = older.iter().max_by_key(|run| run.ordinal).map(previous_of);
            let before = std::mem::replace(bytes, postcard::experimental::serialized_size(delta).unwrap_or(0));
            self.memory_bytes = self.memory_bytes - before + *bytes;
        }
        self.append_orphans(orphans, now);
        self.run.ordinal = older.iter().map(|run| run.ordinal).max().unwrap_or(0) + 1;
        self.run.dating = self.run.dating.or_else(|| newest(&anchors_of(&older, self.run.boot)));
        (self.older, self.disk, self.is_loaded) = (older, disk, true);
        Ok(())
    }

    /// Writes the rest and marks the run as ended by itself.
    pub fn close(&mut self, now: Uptime) {
        self.retry_at = now;
        self.flush(now);
        if self.volatile_since.is_some() {
            return;
        }
        self.run.clean = true;
        if let Err(error) = self.store.commit(vec![Write::Run(self.run.clone())]) {
            self.disk_failed("closing the buffer", &error, now);
        }
    }

    /// Forgets what the collector has: all entries of `stream` up to `through`. The position before which nothing is
    /// held any more, unless an earlier run still is.
    pub fn ack(&mut self, stream: StreamId, through: u64, now: Uptime) -> Option<Position> {
        let run = if stream == self.run.stream {
            self.run.ordinal
        } else {
            self.older.iter().find(|run| run.stream == stream)?.ordinal
        };
        let end = Position { run, seq: through };
        let done = self.disk.of_run(run).take_while(|(_, stored)| stored.last <= through);
        let done: Vec<Position> = done.map(|(at, _)| *at).collect();
        for at in &done {
            self.disk.remove(*at);
            self.copies.remove(*at);
        }
        // It may have been these that can't be read; if the next can't be either, it says so again.
        self.is_blocked &= done.is_empty();
        let mut writes = std::mem::take(&mut self.owed);
        writes.extend(done.into_iter().map(Write::Remove));
        if run == self.run.ordinal {
            writes.extend(self.taken_back(through));
            while let Some((seq, delta, bytes)) = self.memory.front()
                && seq + delta.span() - 1 <= through
            {
                self.memory_bytes -= bytes;
                self.memory_entries -= delta.span();
                self.memory.pop_front();
            }
        }
        writes.extend(self.drained_runs().into_iter().map(Write::ForgetRun));
        if !writes.is_empty() {
            match self.store.forget(writes.clone()) {
                Ok(()) => self.trim(now),
                Err(error) => {
                    self.owed = writes;
                    self.disk_failed("forgetting what is acknowledged", &error, now);
                }
            }
        }
        let earlier = self.disk.groups.range(..Position { run, seq: 0 }).next();
        earlier.is_none().then_some(end)
    }

    /// Takes out the earlier runs of which nothing is left, but for those that bound when a later boot began: the newest, and
    /// the one with the time before each that never heard it.
    fn drained_runs(&mut self) -> Vec<u32> {
        let newest = self.older.iter().map(|run| run.ordinal).max();
        let held = |run: &Run| self.disk.of_run(run.ordinal).next().is_some();
        let mut kept: BTreeSet<u32> = newest.into_iter().collect();
        let mut dated = None;
        for run in &self.older {
            if held(run) {
                kept.insert(run.ordinal);
                kept.extend(dated.filter(|_| run.dating.is_none()));
            }
            dated = run.dating.map_or(dated, |_| Some(run.ordinal));
        }
        let (kept, drained): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.older).into_iter().partition(|run| kept.contains(&run.ordinal));
        self.older = kept;
        drained.into_iter().map(|run| run.ordinal).collect()
    }

    /// The next entries after a position: one, or as many as `limit_bytes` hold.
    pub fn next(&mut self, after: Position, limit_bytes: usize, now: Uptime) -> Option<Chunk> {
        if self.is_blocked && now < self.retry_at && !self.is_given_up(now) {
            return None;
        }
        let mut found: Vec<Numbered> = Vec::new();
        let (mut end, mut bytes) = (after, 0);
        while bytes < limit_bytes {
            let Some((at, stored)) = self.disk.beyond(end) else { break };
            if !found.is_empty() && (at.run != end.run || at.seq > end.seq + 1) {
                break;
            }
            let mut stored = stored;
            let read = self.store.read(at).map(|bytes| bytes.and_then(|bytes| decode(&bytes)));
            if read.is_ok() {
                self.unreadable = None;
            }
            let group = match read {
                Ok(Some(group)) => {
                    stored = self.believe(at, stored, &group);
                    group
                }
                Ok(None) if self.is_joined_already(at) => continue,
                // It is told whether or not the disk takes it.
                Ok(None) => {
                    let group = self.copies.read(at).unwrap_or_else(|| corrupted(at, stored));
                    self.replace(at, &group, now);
                    group
                }
                Err(error) => {
                    self.disk_failed("reading the buffer", &error, now);
                    match self.copies.read(at) {
                        Some(group) => group,
                        None if self.is_given_up(now) => corrupted(at, stored),
                        None => {
                            self.is_blocked = found.is_empty();
                            break;
                        }
                    }
                }
            };
            self.is_blocked = false;
            let last = |(seq, delta, _): &Numbered| Position { seq: seq + delta.span() - 1, ..at };
            let rest = numbered(group).into_iter().filter(|entry| last(entry) > end);
            found.extend(rest.inspect(|(_, _, size)| bytes += size));
            end = Position { seq: stored.last, ..at };
        }
        let run = self.run.ordinal;
        if found.is_empty() && self.disk.beyond(after).is_none() {
            // What couldn't be read was acknowledged after all.
            self.is_blocked = false;
            let rest = self.memory.iter().filter(|(seq, delta, _)| Position { run, seq: seq + delta.span() - 1 } > after);
            return self.chunk(run, split(rest, limit_bytes).next()?);
        }
        self.chunk(end.run, split(found.iter(), limit_bytes).next()?)
    }

    /// Whether groups couldn't be read for so long that they count as lost: what has happened since would be lost with them.
    fn is_given_up(&mut self, now: Uptime) -> bool {
        // A failure of long ago, which an ack has settled meanwhile, is another one's.
        let goes_on = self.unreadable.filter(|(_, last)| now.since(*last) < UNREADABLE_MS);
        let since = goes_on.map_or(now, |(since, _)| since);
        self.unreadable = Some((since, now));
        now.since(since) >= UNREADABLE_MS
    }

    /// Takes a group as it is on the disk: a commit that joined it with the next and was called a failure may have been done.
    fn believe(&mut self, at: Position, known: Stored, group: &Group) -> Stored {
        if group.last() <= known.last {
            return known;
        }
        let bytes = encode(group);
        let found = describe(group, bytes.len());
        let held: Vec<Position> = self.disk.of_run(at.run).map(|(at, _)| *at).collect();
        for other in held.into_iter().filter(|other| *other > at && other.seq <= found.last) {
            self.disk.remove(other);
            self.copies.remove(other);
        }
        self.disk.insert(at, found);
        self.copies.put(at, bytes);
        found
    }

    fn chunk(&self, ordinal: u32, group: Group) -> Option<Chunk> {
        let present = ordinal == self.run.ordinal;
        let run = if present { &self.run } else { self.older.iter().find(|run| run.ordinal == ordinal)? };
        let oldest = match self.disk.of_run(ordinal).next() {
            Some((at, _)) => at.seq,
            None => self.memory.front().map_or(group.first, |(seq, ..)| *seq),
        };
        let end = Position { run: ordinal, seq: group.last() };
        // Only the newest entry can vouch for the time after it. Before it, a change may still be told by a later
        // entry, or by none if the run has ended: as long as its confirmation takes.
        let end_at = group.deltas.last().map_or(Uptime(0), |delta| delta.at);
        let is_newest = present && end.seq == self.run.last;
        let observed_through =
            if is_newest { self.observed_through } else { Uptime(end_at.0.saturating_sub(CONFIRMATION_LIMIT_MS)) };
        Some(Chunk { run: run.clone(), present, group, end, oldest, observed_through })
    }

    /// Puts another group in the place of one; whether the disk took it.
    fn replace(&mut self, at: Position, group: &Group, now: Uptime) -> bool {
        let bytes = encode(group);
        let stored = describe(group, bytes.len());
        if let Err(error) = self.store.commit(vec![Write::Put(at, bytes.clone())]) {
            self.disk_failed("writing a group anew", &error, now);
            return false;
        }
        self.disk.insert(at, stored);
        self.copies.put(at, bytes);
        true
    }

    /// Makes room: the oldest qualities go first, transitions only when nothing else is left.
    fn enforce_limit(&mut self, now: Uptime) {
        while self.disk.bytes > self.limit_bytes {
            let oldest_quality = self.disk.groups.iter().find(|(_, stored)| stored.minutes > 0).map(|(at, _)| *at);
            let Some(at) = oldest_quality.or_else(|| self.oldest_droppable()) else { return };
            let Some(stored) = self.disk.groups.get(&at).copied() else { return };
            let read = self.store.read(at).map(|bytes| bytes.and_then(|bytes| decode(&bytes)));
            if let Ok(Some(group)) = &read {
                self.believe(at, stored, group);
            }
            let thinned = match read {
                Ok(Some(group)) if oldest_quality.is_some() => thin(group, |body, _| matches!(body, Body::Qualities(_))),
                Ok(Some(group)) => thin(group, |body, _| !matches!(body, Body::Boot(_))),
                Ok(None) if self.is_joined_already(at) => continue,
                Ok(None) => corrupted(at, stored),
                Err(error) => {
                    self.disk_failed("making room in the buffer", &error, now);
                    return;
                }
            };
            // Until the disk takes it the limit stays exceeded; the next write tries again.
            if !self.replace_joined(at, thinned, now) {
                return;
            }
        }
    }

    /// The group before one in the same run, taken as it is on the disk.
    fn before(&mut self, at: Position) -> Option<(Position, Group)> {
        let (before, known) =
            self.disk.groups.range(Position { seq: 0, ..at }..at).next_back().map(|(at, known)| (*at, *known))?;
        let group = decode(&self.store.read(before).ok()??)?;
        self.believe(before, known, &group);
        Some((before, group))
    }

    /// Whether what a group held is found in the one before: the commit that joined them was called a failure.
    fn is_joined_already(&mut self, at: Position) -> bool {
        self.before(at).is_some() && !self.disk.groups.contains_key(&at)
    }

    /// The oldest group that holds more than a gap or a boot.
    fn oldest_droppable(&mut self) -> Option<Position> {
        let positions: Vec<Position> = self.disk.groups.keys().copied().collect();
        positions.into_iter().find(|at| {
            let group = self.store.read(*at).ok().flatten().and_then(|bytes| decode(&bytes));
            group.is_some_and(|group| group.deltas.iter().any(|d| !matches!(d.body, Body::Boot(_) | Body::Gap(_))))
        })
    }

    /// Puts a thinned group in the place of one, together with the group before it where both are small: many small groups
    /// take a multiple of their bytes. Whether the disk took it.
    fn replace_joined(&mut self, at: Position, group: Group, now: Uptime) -> bool {
        let before = self.before(at);
        if !self.disk.groups.contains_key(&at) {
            return true;
        }
        let Some((before, mut first)) = before.filter(|(_, first)| is_joinable(first, &group)) else {
            return self.replace(at, &group, now);
        };
        first.deltas.extend(group.deltas);
        let joined = thin(first, |_, _| false);
        let bytes = encode(&joined);
        let stored = describe(&joined, bytes.len());
        // Both in one commit: a cut between them would leave numbers twice or not at all.
        if let Err(error) = self.store.commit(vec![Write::Put(before, bytes.clone()), Write::Remove(at)]) {
            self.disk_failed("joining groups", &error, now);
            return false;
        }
        self.disk.remove(at);
        self.copies.remove(at);
        self.disk.insert(before, stored);
        self.copies.put(before, bytes);
        true
    }

    /// Makes room in memory: the oldest qualities go first, transitions only when nothing else is left.
    fn thin_memory(&mut self) {
        const TARGET_BYTES: usize = VOLATILE_LIMIT_BYTES / 4 * 3;
        let first = self.memory.front().map_or(0, |(seq, ..)| *seq);
        let kinds: [fn(&Body) -> bool; 2] =
            [|body| matches!(body, Body::Qualities(_)), |body| !matches!(body, Body::Qualities(_) | Body::Boot(_))];
        for is_next in kinds {
            let mut excess = self.memory_bytes.saturating_sub(TARGET_BYTES);
            // As many of the oldest of this kind as are too much.
            let mut drop_before = 0;
            for (seq, delta, bytes) in self.memory.iter().filter(|(_, delta, _)| is_next(&delta.body)) {
                if excess == 0 {
                    break;
                }
                excess = excess.saturating_sub(*bytes);
                drop_before = seq + delta.span();
            }
            let mut seq = first;
            let deltas = self.memory.drain(..).map(|(_, delta, _)| delta).collect();
            let thinned = thin(Group { first, deltas }, |body, span| {
                let is_old = seq < drop_before;
                seq += span;
                is_old && is_next(body)
            });
            self.memory = numbered(thinned).into();
            self.memory_bytes = self.memory.iter().map(|(_, _, bytes)| bytes).sum();
        }
    }

    fn disk_failed(&mut self, doing: &str, error: &io::Error, now: Uptime) {
        if self.volatile_since.is_none() {
            tracing::error!(%error, "{doing} failed: going on in memory, a power cut now loses what waits");
            self.volatile_since = Some(now);
        }
        self.retry_at = now.plus(RETRY_MS);
        self.lacks_room = false;
    }

    /// The disk took a write: it is good, unless it is about to be full.
    fn disk_took(&mut self, now: Uptime) {
        self.lacks_room = !self.store.has_room();
        if self.lacks_room {
            self.volatile_since.get_or_insert(now);
            self.room_at = now.plus(RETRY_MS);
        } else if self.volatile_since.take().is_some() {
            tracing::info!("the buffer can be written again");
        }
    }
}

/// What these runs have learnt of a boot.
pub fn anchors_of<'a>(runs: impl IntoIterator<Item = &'a Run>, boot: BootId) -> Vec<Anchor> {
    let of_boot = runs.into_iter().filter(|run| run.boot == boot);
    let mut anchors: Vec<Anchor> = of_boot.flat_map(|run| run.before.into_iter().chain(run.dating)).collect();
    anchors.sort_by_key(|anchor| anchor.at());
    anchors.dedup();
    anchors
}

fn newest(anchors: &[Anchor]) -> Option<Anchor> {
    anchors.last().copied()
}

/// A run that was written before there was this field ends where it would be.
fn left_out<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Anchor>, D::Error> {
    Ok(Option::deserialize(from).unwrap_or_default())
}

/// The runs, their groups, and how many groups belong to no run that is known.
type Loaded = (Vec<Run>, Index, u64);

fn previous_of(run: &Run) -> Previous {
    Previous { stream: run.stream, through: run.last, clean: run.clean }
}

/// Reads what earlier runs left. Groups that can't be read, and numbers that are missing between groups, become gaps.
fn load<S: Store>(store: &mut S) -> io::Result<Loaded> {
    let mut runs = store.runs()?;
    let mut repairs = Vec::new();
    let has_put_aside = store.has_put_aside();
    // A disk that has lost its newest pages looks like one on which they never were.
    let newest = store.newest()?;
    let forgotten = newest.clone().and_then(|newest| {
        let known = runs.iter().position(|run| run.ordinal == newest.ordinal);
        let through = known.map_or(0, |at| runs[at].last);
        if through >= newest.last {
            return None;
        }
        tracing::error!(stream = %newest.stream, from = through + 1, to = newest.last, "the disk has lost what was written: reporting a gap");
        match known {
            Some(at) => runs[at] = newest.clone(),
            None => runs.push(newest.clone()),
        }
        repairs.push(Write::Run(newest.clone()));
        Some((newest.ordinal, through))
    });
    runs.sort_by_key(|run| run.ordinal);
    let mut orphans = 0;
    let mut found: Vec<(Position, Option<Stored>)> = Vec::new();
    for at in store.positions()? {
        if !runs.iter().any(|run| run.ordinal == at.run) {
            repairs.push(Write::Remove(at));
            let entries = store.read(at)?.and_then(|bytes| decode(&bytes)).map_or(1, |group| group.span());
            orphans += entries;
            continue;
        }
        let bytes = store.read(at)?;
        let group = bytes.as_deref().and_then(decode).filter(|group| group.first == at.seq);
        found.push((at, group.map(|group| describe(&group, bytes.map_or(0, |bytes| bytes.len())))));
    }
    let mut disk = Index::default();
    for run in &runs {
        let groups: Vec<_> = found.iter().filter(|(at, _)| at.run == run.ordinal).collect();
        // Up to which number, and to which moment, everything is accounted for.
        let mut end: Option<(u64, Uptime)> = None;
        for (i, (at, stored)) in groups.iter().enumerate() {
            let mut lose = |first: u64, through: u64, from: Uptime| {
                let next = groups[i..].iter().find_map(|(_, stored)| *stored);
                let to = next.map_or(run.at, |next| next.to).max(from);
                keep(&mut disk, &mut repairs, run.ordinal, &lost_group(first, through, from, to));
            };
            let from = end.map_or(Uptime(0), |(_, to)| to);
            if let Some((last, to)) = end.filter(|(last, _)| last + 1 < at.seq) {
                lose(last + 1, at.seq - 1, to);
            }
            match stored {
                Some(stored) => {
                    end = Some((stored.last, stored.since));
                    disk.insert(*at, *stored);
                }
                None => {
                    let through = groups.get(i + 1).map_or(run.last, |(next, _)| next.seq - 1).max(at.seq);
                    lose(at.seq, through, from);
                    end = Some((through, from));
                }
            }
        }
        // What is acknowledged of it already, the collector knows.
        let forgotten = forgotten.filter(|(of, _)| *of == run.ordinal).map(|(_, through)| (through, Uptime(0)));
        let end = end.or(forgotten);
        // A run's last number is written together with its last group: what lies between the two was on disk once.
        if let Some((last, to)) = end.filter(|(last, _)| *last < run.last) {
            keep(&mut disk, &mut repairs, run.ordinal, &lost_group(last + 1, run.last, to, run.at.max(to)));
        }
    }
    if !repairs.is_empty() {
        store.commit(repairs)?;
    }
    // Where nothing tells how much was put aside, it was one entry, at least.
    Ok((runs, disk, orphans + u64::from(has_put_aside && newest.is_none())))
}

fn keep(disk: &mut Index, repairs: &mut Vec<Write>, run: u32, group: &Group) {
    let bytes = encode(group);
    let at = Position { run, seq: group.first };
    disk.insert(at, describe(group, bytes.len()));
    repairs.push(Write::Put(at, bytes));
}

/// Numbers whose content is lost, between the newest entry before them and the oldest after.
fn lost_group(first: u64, through: u64, from: Uptime, to: Uptime) -> Group {
    let span = through - first + 1;
    let dropped = Dropped { unreadable: span, ..Dropped::default() };
    // A change is told up to this long after it began.
    let from = Uptime(from.0.saturating_sub(CONFIRMATION_LIMIT_MS));
    let gap = Gap { span, from, to, reason: GapReason::Corrupted, dropped };
    Group { first, deltas: vec![Delta { at: to, body: Body::Gap(gap) }] }
}

/// What stands for a group that is not as it was written.
fn corrupted(at: Position, stored: Stored) -> Group {
    tracing::error!(run = at.run, seq = at.seq, "a group on disk is not as it was written: reporting a gap");
    lost_group(at.seq, stored.last, stored.from, stored.to)
}

/// An entry with its first sequence number and its size.
type Numbered = (u64, Delta, usize);

fn numbered(group: Group) -> Vec<Numbered> {
    let mut next = group.first;
    let mut number = |delta: Delta| {
        let seq = next;
        next += delta.span();
        let bytes = postcard::experimental::serialized_size(&delta).unwrap_or(0);
        (seq, delta, bytes)
    };
    group.deltas.into_iter().map(&mut number).collect()
}

/// Entries that follow one another in groups: of one entry, or of as many as `limit_bytes` hold.
fn split<'a>(entries: impl Iterator<Item = &'a Numbered>, limit_bytes: usize) -> impl Iterator<Item = Group> {
    let mut entries = entries.peekable();
    std::iter::from_fn(move || {
        let (first, delta, bytes) = entries.next()?;
        let (mut deltas, mut size) = (vec![delta.clone()], *bytes);
        while let Some((_, delta, bytes)) = entries.next_if(|(_, _, bytes)| size + bytes <= limit_bytes) {
            deltas.push(delta.clone());
            size += bytes;
        }
        Some(Group { first: *first, deltas })
    })
}

/// Whether a group follows another, and they fit into one: both are small, or a gap goes on.
fn is_joinable(first: &Group, second: &Group) -> bool {
    let is_gap = |delta: Option<&Delta>| matches!(delta, Some(Delta { body: Body::Gap(_), .. }));
    let goes_on = is_gap(first.deltas.last()) && second.deltas.len() == 1 && is_gap(second.deltas.first());
    let bytes = |group| postcard::experimental::serialized_size(group).unwrap_or(usize::MAX);
    first.last() + 1 == second.first && (goes_on || bytes(first).saturating_add(bytes(second)) <= GROUP_LIMIT_BYTES)
}

/// Replaces the entries that `drop` names by gaps, and joins gaps that follow one another.
fn thin(group: Group, mut drop: impl FnMut(&Body, u64) -> bool) -> Group {
    let mut deltas: Vec<Delta> = Vec::new();
    for delta in group.deltas {
        let (at, span) = (delta.at, delta.span());
        let body = match delta.body {
            body if drop(&body, span) => Body::Gap(gap_of(&body, at)),
            body => body,
        };
        if let (Body::Gap(gap), Some(Delta { body: Body::Gap(before), at: before_at })) = (&body, deltas.last_mut()) {
            before.span += gap.span;
            before.from = before.from.min(gap.from);
            before.to = before.to.max(gap.to);
            before.dropped.add(gap.dropped);
            if gap.reason == GapReason::Corrupted {
                before.reason = GapReason::Corrupted;
            }
            *before_at = at;
            continue;
        }
        deltas.push(Delta { at, body });
    }
    Group { first: group.first, deltas }
}

/// What stands for an entry that is lost.
pub(crate) fn gap_of(body: &Body, at: Uptime) -> Gap {
    let (from, dropped) = match body {
        Body::Gap(gap) => return gap.clone(),
        Body::Transition(transition) => (transition.onset, Dropped { transitions: 1, ..Dropped::default() }),
        // Told anew with the states, which the collector asks for after lost transitions.
        Body::Flagged(_) | Body::Identity(_) => (at, Dropped { transitions: 1, ..Dropped::default() }),
        Body::Qualities(q) => {
            (Uptime(q.first_end.0.saturating_sub(60_000)), Dropped { minutes: q.minutes(), ..Dropped::default() })
        }
        Body::Boot(_) => (at, Dropped { unreadable: 1, ..Dropped::default() }),
    };
    Gap { span: 1, from, to: at, reason: GapReason::BufferFull, dropped }
}

fn describe(group: &Group, bytes: usize) -> Stored {
    let minutes = group.deltas.iter().map(|d| if let Body::Qualities(q) = &d.body { q.minutes() } else { 0 }).sum();
    // Should it be lost, that reaches back to where what it tells of began.
    let begin = |d: &Delta| gap_of(&d.body, d.at).from.min(d.at);
    let from = group.deltas.iter().map(begin).min().unwrap_or_default();
    let to = group.deltas.iter().map(|d| d.at).max().unwrap_or_default();
    let since = group.deltas.last().map_or(to, |d| if let Body::Gap(gap) = &d.body { gap.from } else { d.at });
    Stored { last: group.last(), bytes, minutes, from, to, since }
}

/// As it stands on the card: with its form and a checksum.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = postcard::to_extend(value, vec![FORM]).expect("nothing of it is what postcard can't write");
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// What [`encode`] wrote, if these bytes are it.
pub(crate) fn decoded<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (FORM, value) = body.split_first().map(|(form, value)| (*form, value))? else { return None };
    postcard::from_bytes(value).ok()
}

fn decode(bytes: &[u8]) -> Option<Group> {
    decoded(bytes).filter(|group: &Group| !group.deltas.is_empty())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use proptest::prelude::*;
    use shared::{Column, Millis, Minute, Qualities, Status, Transition};

    use super::*;
    use crate::contents::Contents;
    use crate::disk::Disk;

    /// What a disk holds, and whether it takes anything.
    #[derive(Default)]
    struct Platter {
        contents: Contents,
        broken: bool,
        unreadable: bool,
        /// It does what it is told, and says too late that it has.
        is_late: bool,
        /// How many commits still succeed.
        commits_left: Option<u32>,
    }

    #[derive(Default, Clone)]
    struct Fake(Rc<RefCell<Platter>>);

    impl Store for Fake {
        fn runs(&mut self) -> io::Result<Vec<Run>> {
            if self.0.borrow().broken {
                return Err(io::ErrorKind::ReadOnlyFilesystem.into());
            }
            self.0.borrow_mut().contents.runs()
        }
        fn positions(&mut self) -> io::Result<Vec<Position>> {
            self.0.borrow_mut().contents.positions()
        }
        fn read(&mut self, at: Position) -> io::Result<Option<Vec<u8>>> {
            if self.0.borrow().unreadable {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.0.borrow_mut().contents.read(at)
        }
        fn commit(&mut self, writes: Vec<Write>) -> io::Result<()> {
            let mut platter = self.0.borrow_mut();
            if platter.broken || platter.commits_left == Some(0) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            platter.commits_left = platter.commits_left.map(|left| left - 1);
            platter.contents.apply(writes);
            if platter.is_late { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
        }
        fn forget(&mut self, writes: Vec<Write>) -> io::Result<()> {
            self.commit(writes)
        }
    }

    const LIMIT: u64 = 1024 * 1024;

    fn open<S: Store>(store: S, stream: u64) -> Buffer<S> {
        Buffer::open(store, StreamId(stream), BootId(1), LIMIT, Uptime(0))
    }

    fn transition(at: u64) -> Body {
        let device = "vake-atm-1".parse().expect("a valid id");
        let to = if at.is_multiple_of(2) { Status::Up } else { Status::Down };
        Body::Transition(Transition {
            device,
            from: Status::Up,
            to,
            onset: Uptime(at),
            last_ok: None,
            verdict: None,
            evidence: None,
        })
    }

    fn qualities(minutes: usize) -> Body {
        let column =
            Column::pack("vake-atm-1".parse().expect("a valid id"), &vec![Minute { sent: 30, lost: 30, rtt: None }; minutes], 10);
        Body::Qualities(Qualities { first_end: Uptime(60_000), unit_us: 10, columns: vec![column] })
    }

    /// Everything that waits, as `run:first kinds`, without acknowledging it.
    fn waiting<S: Store>(buffer: &mut Buffer<S>) -> String {
        let mut after = Position::default();
        let mut out: Vec<String> = Vec::new();
        while let Some(chunk) = buffer.next(after, GROUP_LIMIT_BYTES, Uptime(0)) {
            let kinds: String = chunk
                .group
                .deltas
                .iter()
                .map(|delta| match &delta.body {
                    Body::Boot(_) => "b".to_owned(),
                    Body::Transition(_) => "t".to_owned(),
                    Body::Qualities(_) => "q".to_owned(),
                    Body::Flagged(_) | Body::Identity(_) => "f".to_owned(),
                    Body::Gap(gap) => format!("g{}", gap.span),
                })
                .collect();
            assert!(chunk.end > after, "the position moves on");
            assert_eq!(chunk.end.seq, chunk.group.last());
            match out.last_mut() {
                Some(before) if (after.run, after.seq + 1) == (chunk.run.ordinal, chunk.group.first) => before.push_str(&kinds),
                Some(_) | None => out.push(format!("{}:{} {kinds}", chunk.run.ordinal, chunk.group.first)),
            }
            after = chunk.end;
        }
        out.join(", ")
    }

    #[test]
    fn what_is_acknowledged_at_once_never_touches_the_disk() {
        let disk = Fake::default();
        let mut buffer = open(disk.clone(), 1);
        buffer.append(transition(1), Uptime(1));
        buffer.append(qualities(1), Uptime(1));
        buffer.tick(true, Uptime(500));
        assert_eq!(waiting(&mut buffer), "1:1 btq");
        buffer.ack(StreamId(1), 3, Uptime(600));
        buffer.tick(true, Uptime(2_000));
        assert_eq!((waiting(&mut buffer).as_str(), disk.0.borrow().contents.groups.len()), ("", 0));
    }

    #[test]
    fn a_transition_that_must_wait_is_written_at_once_and_survives_a_power_cut() {
        let disk = Fake::default();
        let mut buffer = open(disk.clone(), 1);
        buffer.ack(StreamId(1), 1, Uptime(0));
        buffer.append(qualities(1), Uptime(1));
        buffer.tick(false, Uptime(2));
        assert_eq!(disk.0.borrow().contents.groups.len(), 0, "qualities wait for company");
        buffer.append(transition(3), Uptime(3));
        buffer.tick(false, Uptime(3));
        drop(buffer);
        let mut next = open(disk, 2);
        assert_eq!(waiting(&mut next), "1:2 qt, 2:1 b");
        let boot = next.next(Position { run: 1, seq: 3 }, GROUP_LIMIT_BYTES, Uptime(0)).expect("the boot");
        let [Delta { body: Body::Boot(boot), .. }] = boot.group.deltas.as_slice() else { panic!("{boot:?}") };
        assert_eq!(boot.previous, Some(Previous { stream: StreamId(1), through: 3, clean: false }));
        next.ack(StreamId(1), 3, Uptime(0));
        assert_eq!((waiting(&mut next).as_str(), next.older().len()), ("2:1 b", 1));
    }

    #[test]
    fn sled_gives_back_what_an_earlier_run_left() {
        let folder = tempfile::tempdir().expect("a folder");
        // sled lets go of its lock a moment after it was dropped.
        let disk = || {
            let mut disk = Disk::new(folder.path(), 64 * 1024 * 1024);
            (0..100)
                .find(|_| {
                    disk.runs().is_ok() || {
                        std::thread::yield_now();
                        false
                    }
                })
                .expect("the lock is free");
            disk
        };
        let mut buffer = open(disk(), 1);
        buffer.ack(StreamId(1), 1, Uptime(0));
        for n in 1..=3 {
            buffer.append(transition(n), Uptime(n));
            buffer.tick(false, Uptime(n));
        }
        drop(buffer);
        let mut next = open(disk(), 2);
        assert_eq!(waiting(&mut next), "1:2 ttt, 2:1 b");
        // An ack for the present stream must neither touch the earlier one nor let it be passed over.
        assert_eq!(next.ack(StreamId(2), 0, Uptime(5)), None);
        assert_eq!(waiting(&mut next), "1:2 ttt, 2:1 b");
        assert_eq!(next.ack(StreamId(1), 3, Uptime(5)), Some(Position { run: 1, seq: 3 }));
        assert_eq!(waiting(&mut next), "1:4 t, 2:1 b");
        next.close(Uptime(6));
        drop(next);
        let mut last = open(disk(), 3);
        assert_eq!(waiting(&mut last), "1:4 t, 2:1 b, 3:1 b");
        assert_eq!(last.older().iter().map(|run| run.clean).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn a_damaged_folder_is_put_aside_and_the_agent_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut buffer = open(Disk::new(folder.path(), 64 * 1024 * 1024), 1);
        buffer.append(transition(1), Uptime(1));
        buffer.close(Uptime(1));
        drop(buffer);
        std::fs::remove_file(folder.path().join("buffer/db")).expect("sled's file");
        std::fs::create_dir(folder.path().join("buffer/db")).expect("made");
        let mut next = open(Disk::new(folder.path(), 64 * 1024 * 1024), 2);
        next.append(transition(2), Uptime(2));
        next.flush(Uptime(20_000));
        assert!(!next.level().volatile);
        assert!(folder.path().join("buffer.damaged-1").exists());
        assert_eq!(waiting(&mut next), "1:1 g2, 2:1 bt", "what it held is lost, and that is told");
    }

    #[test]
    fn a_group_on_a_card_is_written_as_it_always_was() {
        let group = Group { first: 7, deltas: vec![Delta { at: Uptime(9), body: transition(5) }] };
        let written = crate::enrol::to_hex(&encode(&group));
        assert_eq!(
            written, "01070109010a76616b652d61746d2d3100010500000038d52434",
            "updates find these on cards: a changed field needs a new form"
        );
        assert_eq!(decode(&encode(&group)), Some(group));
        let run = Run {
            ordinal: 3,
            stream: StreamId(7),
            boot: BootId(1),
            last: 9,
            at: Uptime(5),
            clean: true,
            dating: None,
            before: None,
        };
        assert_eq!(crate::enrol::to_hex(&postcard::to_stdvec(&run).expect("written")), "0307010905010000");
        let first = [3, 7, 1, 9, 5, 1, 0];
        assert_eq!(postcard::from_bytes(&first), Ok(run), "what the first version wrote");
    }

    #[test]
    fn a_damaged_group_with_nothing_after_it_may_have_been_of_any_moment_until_it_was_written() {
        let disk = Fake::default();
        let mut buffer = open(disk.clone(), 1);
        buffer.ack(StreamId(1), 1, Uptime(0));
        buffer.append(transition(40_000), Uptime(41_500));
        buffer.tick(false, Uptime(41_500));
        drop(buffer);
        disk.0.borrow_mut().contents.groups.values_mut().for_each(|group| group[3] ^= 1);
        let mut next = open(disk, 2);
        let chunk = next.next(Position::default(), GROUP_LIMIT_BYTES, Uptime(60_000)).expect("a gap");
        let [Delta { body: Body::Gap(gap), .. }] = chunk.group.deltas.as_slice() else { panic!("{chunk:?}") };
        assert_eq!((gap.from, gap.to, gap.dropped.unreadable), (Uptime(0), Uptime(41_500), 1));
    }

    #[test]
    fn a_group_in_a_form_that_is_not_known_becomes_a_gap() {
        let disk = Fake::default();
        let mut buffer = open(disk.clone(), 1);
        buffer.append(transition(1), Uptime(1));
        buffer.tick(false, Uptime(1));
        drop(buffer);
        for group in disk.0.borrow_mut().contents.groups.values_mut() {
            group.truncate(group.len() - 4);
            group[0] = FORM + 1;
            let crc = crc32fast::hash(group);
            group.extend(crc.to_le_bytes());
        }
        assert_eq!(waiting(&mut open(disk, 2)), "1:1 g2, 2:1 b");
    }

    #[test]
    fn a_group_that_is_not_as_it_was_written_becomes_a_gap() {
        let disk = Fake::default();
        let mut buffer = open(disk.clone(), 1);
        for n in 1..=3 {
            buffer.append(transition(n), Uptime(n));
            buffer.tick(false, Uptime(n));
        }
        let middle = *disk.0.borrow().contents.groups.keys().nth(1).expect("three groups");
        disk.0.borrow_mut().contents.groups.get_mut(&middle).expect("there")[3] ^= 1;
        assert_eq!(waiting(&mut buffer), "1:1 bttt", "the run that wrote it has it in memory");
        disk.0.borrow_mut().contents.groups.get_mut(&middle).expect("there")[3] ^= 1;
        buffer.copies = Copies::default();
        assert_eq!(waiting(&mut buffer), "1:1 btg1t");
        drop(buffer);
        disk.0.borrow_mut().contents.groups.get_mut(&middle).expect("there")[0] ^= 1;
        assert_eq!(waiting(&mut open(disk.clone(), 2)), "1:1 btg1t, 2:1 b");
        // A group that is gone altogether is a hole between its neighbours.
        disk.0.borrow_mut().contents.groups.remove(&middle);
        assert_eq!(waiting(&mut open(disk.clone(), 3)), "1:1 btg1t, 3:1 b");
        // So is what the run is known to have written last.
        disk.0.borrow_mut().contents.groups.remove(&Position { run: 1, seq: 4 });
        assert_eq!(waiting(&mut open(disk, 4)), "1:1 btg1g1, 4:1 b");
    }

    #[test]
    fn a_disk_that_takes_nothing_leaves_everything_in_memory_until_it_heals() {
        let disk = Fake::default();
        let mut buffer = open(disk.clone(), 1);
        disk.0.borrow_mut().broken = true;
        buffer.append(transition(1), Uptime(1));
        buffer.tick(false, Uptime(1));
        assert!(buffer.level().volatile);
        assert_eq!(waiting(&mut buffer), "1:1 bt");
        disk.0.borrow_mut().broken = false;
        buffer.tick(false, Uptime(5_000));
        assert!(buffer.level().volatile, "it is left alone for a while");
        buffer.tick(false, Uptime(10_001));
        assert!(!buffer.level().volatile);
        assert_eq!((waiting(&mut buffer).as_str(), disk.0.borrow().contents.groups.len()), ("1:1 bt", 1));
    }

    #[test]
    fn what_is_written_too_late_is_taken_back() {
        let disk = Fake::default();
        let mut buffer = open(disk.clone(), 1);
        disk.0.borrow_mut().is_late = true;
        buffer.append(transition(1), Uptime(1));
        buffer.tick(false, Uptime(1));
        assert!(buffer.level().volatile && disk.0.borrow().contents.groups.len() == 1);
        disk.0.borrow_mut().is_late = false;
        // The first entry is acknowledged meanwhile, so what is written next begins elsewhere.
        buffer.ack(StreamId(1), 1, Uptime(2));
        buffer.append(transition(20_000), Uptime(20_000));
        buffer.tick(false, Uptime(20_000));
        assert_eq!(waiting(&mut buffer), "1:2 tt");
        assert_eq!(disk.0.borrow().contents.groups.len(), 1);
        drop(buffer);
        assert_eq!(waiting(&mut open(disk, 2)), "1:2 tt, 2:1 b");
    }

    #[test]
    fn groups_that_were_joined_by_a_commit_that_failed_count_once() {
        let disk = Fake::default();
        let mut buffer = open(disk.clone(), 1);
        for n in 1..=3 {
            buffer.append(transition(n), Uptime(n));
            buffer.tick(false, Uptime(n));
        }
        let before = waiting(&mut buffer);
        let positions: Vec<Position> = disk.0.borrow().contents.groups.keys().copied().collect();
        let second = decode(&disk.0.borrow().contents.groups[&positions[1]]).expect("a group");
        disk.0.borrow_mut().is_late = true;
        assert!(!buffer.replace_joined(positions[1], second, Uptime(4)), "it is called a failure");
        disk.0.borrow_mut().is_late = false;
        assert_eq!(disk.0.borrow().contents.groups.len(), 2, "and done");
        // Not even where the first has gone out already as it was.
        let (first, unjoined) = (Position { run: 1, seq: 1 }, Position { run: 1, seq: 2 });
        let rest = buffer.next(unjoined, 1, Uptime(20_000)).expect("the other half of what was joined");
        assert_eq!((rest.group.first, rest.group.deltas.len()), (3, 1), "{rest:?}");
        assert!(!rest.group.deltas.iter().any(|delta| matches!(delta.body, Body::Gap(_))), "nothing is lost: {rest:?}");
        assert_eq!(waiting(&mut buffer), before);
        assert_eq!(buffer.level().waiting, 4);
        assert!(buffer.disk.groups.contains_key(&first));
    }

    #[test]
    fn room_is_made_once_where_groups_were_joined_by_a_commit_that_failed() {
        let disk = Fake::default();
        let mut buffer = Buffer::open(disk.clone(), StreamId(1), BootId(1), 10_000, Uptime(0));
        for n in 1..=4 {
            buffer.append(qualities(15), Uptime(n));
            buffer.flush(Uptime(n));
        }
        let positions: Vec<Position> = disk.0.borrow().contents.groups.keys().copied().collect();
        let third = decode(&disk.0.borrow().contents.groups[&positions[2]]).expect("a group");
        disk.0.borrow_mut().is_late = true;
        assert!(!buffer.replace_joined(positions[2], thin(third, |_, _| true), Uptime(4)));
        disk.0.borrow_mut().is_late = false;
        buffer.limit_bytes = 30;
        buffer.enforce_limit(Uptime(20_000));
        assert_eq!(waiting(&mut buffer), "1:1 bg4", "four entries, and no fifth");
    }

    #[test]
    fn what_could_not_be_forgotten_does_not_come_back() {
        let disk = Fake::default();
        let mut buffer = open(disk.clone(), 1);
        buffer.append(transition(1), Uptime(1));
        buffer.tick(false, Uptime(1));
        buffer.append(transition(2), Uptime(2));
        buffer.tick(false, Uptime(2));
        drop(buffer);
        let mut next = open(disk.clone(), 2);
        disk.0.borrow_mut().broken = true;
        next.ack(StreamId(1), 2, Uptime(3));
        disk.0.borrow_mut().broken = false;
        next.ack(StreamId(1), 3, Uptime(4));
        drop(next);
        drop(open(disk.clone(), 3));
        assert_eq!(waiting(&mut open(disk, 4)), "4:1 b", "nothing is left, and nothing is nobody's");
    }

    #[test]
    fn what_was_written_too_late_and_is_acknowledged_is_forgotten() {
        let disk = Fake::default();
        let mut buffer = open(disk.clone(), 1);
        disk.0.borrow_mut().is_late = true;
        buffer.append(transition(1), Uptime(1));
        buffer.tick(false, Uptime(1));
        disk.0.borrow_mut().is_late = false;
        buffer.ack(StreamId(1), 2, Uptime(2));
        assert_eq!((disk.0.borrow().contents.groups.len(), waiting(&mut buffer).as_str()), (0, ""));
    }

    #[test]
    fn what_cannot_be_read_blocks_no_longer_than_it_waits() {
        let disk = Fake::default();
        let mut buffer = open(disk.clone(), 1);
        buffer.append(transition(1), Uptime(1));
        buffer.tick(false, Uptime(1));
        let chunk = buffer.next(Position::default(), GROUP_LIMIT_BYTES, Uptime(1)).expect("it waits");
        disk.0.borrow_mut().unreadable = true;
        buffer.copies = Copies::default();
        assert_eq!(buffer.next(Position::default(), GROUP_LIMIT_BYTES, Uptime(2)), None);
        assert!(buffer.is_blocked());
        // It was on its way already, and the collector has it.
        buffer.append(transition(3), Uptime(3));
        buffer.ack(StreamId(1), chunk.end.seq, Uptime(3));
        assert!(!buffer.is_blocked());
        let next = buffer.next(chunk.end, GROUP_LIMIT_BYTES, Uptime(4)).expect("what comes after it goes out at once");
        buffer.ack(StreamId(1), next.end.seq, Uptime(5));
        assert_eq!(buffer.next(next.end, GROUP_LIMIT_BYTES, Uptime(20_000)), None);
        assert!(!buffer.is_blocked());
    }

    #[test]
    fn a_run_that_has_not_heard_the_time_writes_down_how_long_it_lasts_though_nothing_happens() {
        let disk = Fake::default();
        let mut buffer = open(disk.clone(), 1);
        let lasted = || disk.0.borrow().contents.runs[&1].at;
        (0..3_000).for_each(|second| buffer.tick(false, Uptime(second * 1_000)));
        assert_eq!(lasted(), Uptime(2_700_000));
        buffer.dated(Anchor::exact(Millis(5), Uptime(0)), None, Uptime(3_000_000));
        (3_000..6_000).for_each(|second| buffer.tick(false, Uptime(second * 1_000)));
        assert_eq!(lasted(), Uptime(2_700_000), "with the time it costs a card nothing");
    }

    #[test]
    fn what_a_disk_can_no_longer_read_is_sent_from_memory() {
        let disk = Fake::default();
        let mut buffer = open(disk.clone(), 1);
        buffer.append(transition(1), Uptime(1));
        buffer.tick(false, Uptime(1));
        (disk.0.borrow_mut().unreadable, disk.0.borrow_mut().broken) = (true, true);
        buffer.append(transition(3), Uptime(3));
        buffer.tick(false, Uptime(3));
        assert_eq!(waiting(&mut buffer), "1:1 btt");
    }

    #[test]
    fn what_cannot_be_read_for_ten_minutes_is_a_gap_and_what_follows_goes_out() {
        let disk = Fake::default();
        let mut buffer = open(disk.clone(), 1);
        for n in 1..=2 {
            buffer.append(transition(n), Uptime(n));
            buffer.tick(false, Uptime(n));
        }
        drop(buffer);
        let mut buffer = open(disk.clone(), 2);
        disk.0.borrow_mut().unreadable = true;
        let first = |buffer: &mut Buffer<Fake>, now| buffer.next(Position::default(), GROUP_LIMIT_BYTES, Uptime(now));
        // Something of long ago that was settled by an ack starts no clock.
        assert_eq!(first(&mut buffer, 10_000), None);
        for now in (1_000_000..1_000_000 + UNREADABLE_MS).step_by(RETRY_MS as usize) {
            assert_eq!(first(&mut buffer, now), None, "it may yet be read");
        }
        let now = 1_000_000 + UNREADABLE_MS;
        let chunk = first(&mut buffer, now).expect("a gap");
        let Some(Delta { body: Body::Gap(gap), .. }) = chunk.group.deltas.first() else { panic!("{chunk:?}") };
        assert_eq!((gap.span, gap.dropped.unreadable, gap.reason), (2, 2, GapReason::Corrupted));
        buffer.ack(StreamId(1), 2, Uptime(now));
        let next = first(&mut buffer, now + 1).expect("the next is given up at once");
        assert_eq!((next.group.first, next.end.seq), (3, 3));
        buffer.ack(StreamId(1), 3, Uptime(now));
        assert_eq!(waiting(&mut buffer), "2:1 b");
        // Once the disk is good again nothing of it comes back.
        disk.0.borrow_mut().unreadable = false;
        assert_eq!(waiting(&mut buffer), "2:1 b");
        assert_eq!(disk.0.borrow().contents.groups.len(), 0);
    }

    #[test]
    fn copies_in_memory_have_a_limit_and_the_newest_stay() {
        let mut buffer = Buffer::open(Fake::default(), StreamId(1), BootId(1), 4 * LIMIT, Uptime(0));
        for n in 0..400 {
            buffer.append(qualities(15), Uptime(n));
            (0..200).for_each(|i| buffer.append(transition(n * 1_000 + i), Uptime(n)));
            buffer.flush(Uptime(n));
        }
        assert!(buffer.level().bytes > COPIES_LIMIT_BYTES as u64);
        assert!(buffer.copies.bytes <= COPIES_LIMIT_BYTES && buffer.copies.bytes > COPIES_LIMIT_BYTES / 2);
        assert_eq!(buffer.copies.bytes, buffer.copies.groups.values().map(Vec::len).sum::<usize>());
        assert!(buffer.copies.groups.keys().next_back() == buffer.disk.groups.keys().next_back());
        buffer.ack(StreamId(1), u64::MAX / 2, Uptime(1_000));
        assert_eq!(buffer.copies.bytes, 0, "what is acknowledged needs none");
    }

    #[test]
    fn a_disk_that_can_be_read_only_later_still_gives_what_earlier_runs_left() {
        let disk = Fake::default();
        let mut buffer = open(disk.clone(), 1);
        buffer.append(transition(1), Uptime(1));
        buffer.tick(false, Uptime(1));
        drop(buffer);
        disk.0.borrow_mut().broken = true;
        let mut next = open(disk.clone(), 2);
        next.append(transition(2), Uptime(2));
        next.tick(false, Uptime(2));
        assert_eq!(waiting(&mut next), "1:1 bt", "only the present run is known");
        disk.0.borrow_mut().broken = false;
        next.tick(false, Uptime(10_002));
        assert_eq!(waiting(&mut next), "1:1 bt, 2:1 bt");
        let boot = next.next(Position { run: 1, seq: 2 }, 1, Uptime(10_002)).expect("the boot");
        let [Delta { body: Body::Boot(boot), .. }] = boot.group.deltas.as_slice() else { panic!("{boot:?}") };
        assert_eq!(boot.previous, Some(Previous { stream: StreamId(1), through: 2, clean: false }), "what came before is told");
        drop(next);
        assert_eq!(waiting(&mut open(disk, 3)), "1:1 bt, 2:1 bt, 3:1 b");
    }

    #[test]
    fn at_the_limit_the_oldest_qualities_go_first_and_transitions_last() {
        let disk = Fake::default();
        let mut buffer = Buffer::open(disk.clone(), StreamId(1), BootId(1), 1_500, Uptime(0));
        let mut told = 0;
        for n in 1..=200u64 {
            buffer.append(if n % 10 == 0 { transition(n) } else { qualities(15) }, Uptime(n));
            buffer.flush(Uptime(n));
            told += 1;
            assert!(disk.0.borrow().contents.groups.values().map(Vec::len).sum::<usize>() <= 1_500 + 200, "after {n}");
        }
        let mut after = Position::default();
        let (mut seq, mut transitions, mut lost, mut kept_minutes) = (1, 0, Dropped::default(), 0);
        while let Some(chunk) = buffer.next(after, GROUP_LIMIT_BYTES, Uptime(0)) {
            assert_eq!(chunk.group.first, seq, "no number is missing or comes twice");
            for delta in &chunk.group.deltas {
                match &delta.body {
                    Body::Transition(_) | Body::Flagged(_) | Body::Identity(_) => transitions += 1,
                    Body::Gap(gap) => lost.add(gap.dropped),
                    Body::Qualities(q) => kept_minutes += q.minutes(),
                    Body::Boot(_) => {}
                }
            }
            (seq, after) = (chunk.end.seq + 1, chunk.end);
        }
        assert_eq!(seq, told + 2, "every number is accounted for");
        assert_eq!(transitions + lost.transitions, 20);
        assert_eq!(lost.minutes + kept_minutes, 180 * 15);
        assert!(lost.minutes > 0);
        assert!(lost.transitions == 0 || kept_minutes == 0, "a transition went while qualities were left");
    }

    #[test]
    fn a_damaged_group_on_a_disk_that_takes_nothing_is_told_as_a_gap_all_the_same() {
        let disk = Fake::default();
        let mut buffer = open(disk.clone(), 1);
        buffer.append(transition(1), Uptime(1));
        buffer.tick(false, Uptime(1));
        let at = *disk.0.borrow().contents.groups.keys().next().expect("a group");
        disk.0.borrow_mut().contents.groups.get_mut(&at).expect("there")[3] ^= 1;
        disk.0.borrow_mut().broken = true;
        buffer.copies = Copies::default();
        assert_eq!(waiting(&mut buffer), "1:1 g2");
    }

    #[test]
    fn a_disk_that_heals_gives_what_earlier_runs_left_though_nothing_has_to_be_written() {
        let disk = Fake::default();
        let mut buffer = open(disk.clone(), 1);
        buffer.append(transition(1), Uptime(1));
        buffer.tick(false, Uptime(1));
        drop(buffer);
        disk.0.borrow_mut().broken = true;
        let mut next = open(disk.clone(), 2);
        next.ack(StreamId(2), 1, Uptime(2));
        disk.0.borrow_mut().broken = false;
        next.tick(true, Uptime(10_001));
        assert!(!next.level().volatile);
        assert_eq!(waiting(&mut next), "1:1 bt");
    }

    #[test]
    fn whichever_write_fails_while_room_is_made_no_number_is_missing_or_comes_twice() {
        for commits in 0..60 {
            let disk = Fake::default();
            let mut buffer = Buffer::open(disk.clone(), StreamId(1), BootId(1), 300, Uptime(0));
            for n in 1..=30u64 {
                buffer.append(if n % 3 == 0 { transition(n) } else { qualities(15) }, Uptime(n * 20_000));
                match n {
                    15 => disk.0.borrow_mut().commits_left = Some(commits),
                    25 => disk.0.borrow_mut().commits_left = None,
                    _ => {}
                }
                buffer.flush(Uptime(n * 20_000));
            }
            let (mut after, mut seq) = (Position::default(), 1);
            while let Some(chunk) = buffer.next(after, GROUP_LIMIT_BYTES, Uptime(600_000)) {
                assert!(!chunk.group.deltas.is_empty(), "nothing can be acknowledged of nothing: after {commits} commits");
                assert_eq!(chunk.group.first, seq, "after {commits} commits");
                (seq, after) = (chunk.end.seq + 1, chunk.end);
            }
            assert_eq!(seq, 32, "after {commits} commits");
        }
    }

    #[test]
    fn an_earlier_run_of_this_boot_is_dated_with_it() {
        let disk = Fake::default();
        let mut buffer = open(disk.clone(), 1);
        buffer.flush(Uptime(0));
        drop(buffer);
        let mut next = open(disk.clone(), 2);
        let anchor = Anchor::exact(Millis(5), Uptime(0));
        next.dated(anchor, None, Uptime(0));
        drop(next);
        // Killed at once, it has left what it knew to the next run of the boot.
        let last = open(disk, 3);
        assert_eq!(last.run().dating, Some(anchor));
        assert_eq!(anchors_of(last.older(), BootId(1)), [anchor], "and for the run before that knew nothing");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Append(bool),
        Tick(bool),
        Ack(u64),
        Reopen,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => any::<bool>().prop_map(Step::Append),
            3 => any::<bool>().prop_map(Step::Tick),
            2 => (1u64..6).prop_map(Step::Ack),
            1 => Just(Step::Reopen),
        ]
    }

    proptest! {
        /// Against a plain queue: after any steps, what waits is what was appended and not acknowledged, less what a
        /// crash took from memory; numbers neither repeat nor go missing. Where room is made, gaps say for how much they stand.
        #[test]
        fn it_is_a_queue_that_forgets_only_what_is_acknowledged(
            steps in prop::collection::vec(step(), 1..200), limit in prop_oneof![Just(LIMIT), 150u64..600]
        ) {
            let disk = Fake::default();
            let mut buffer = Buffer::open(disk.clone(), StreamId(1), BootId(1), limit, Uptime(0));
            let mut transitions: BTreeSet<Position> = BTreeSet::new();
            let mut model: Vec<Position> = vec![Position { run: 1, seq: 1 }];
            let mut now = 0;
            for step in steps {
                now += 700;
                let run = buffer.run().clone();
                match step {
                    Step::Append(is_transition) => {
                        buffer.append(if is_transition { transition(now) } else { qualities(1) }, Uptime(now));
                        let at = Position { run: run.ordinal, seq: buffer.run().last };
                        model.push(at);
                        transitions.extend(is_transition.then_some(at));
                    }
                    Step::Tick(connected) => buffer.tick(connected, Uptime(now)),
                    Step::Ack(n) => {
                        // The collector acknowledges in order: some entries from the oldest on.
                        let Some(first) = model.first().copied() else { continue };
                        let through = first.seq + n - 1;
                        let stream = if first.run == run.ordinal { run.stream } else {
                            buffer.older().iter().find(|older| older.ordinal == first.run).expect("it waits").stream
                        };
                        buffer.ack(stream, through, Uptime(now));
                        model.retain(|at| at.run != first.run || at.seq > through);
                    }
                    Step::Reopen => {
                        let durable: Vec<Position> = buffer.disk.groups.keys().copied().collect();
                        let ends: Vec<u64> = buffer.disk.groups.values().map(|stored| stored.last).collect();
                        drop(buffer);
                        model.retain(|at| durable.iter().zip(&ends).any(|(d, end)| d.run == at.run && (d.seq..=*end).contains(&at.seq)));
                        buffer = Buffer::open(disk.clone(), StreamId(u64::from(run.ordinal) + 1), BootId(1), limit, Uptime(now));
                        model.push(Position { run: buffer.run().ordinal, seq: 1 });
                    }
                }
                let mut found = Vec::new();
                let mut after = Position::default();
                while let Some(chunk) = buffer.next(after, GROUP_LIMIT_BYTES, Uptime(now)) {
                    let at = |seq| Position { run: chunk.run.ordinal, seq };
                    found.extend((chunk.group.first..=chunk.group.last()).map(at));
                    let gaps = numbered(chunk.group.clone()).into_iter().filter_map(|(seq, delta, _)| match delta.body {
                        Body::Gap(gap) => Some((seq, gap)),
                        _ => None,
                    });
                    for (seq, gap) in gaps {
                        prop_assert!(limit < LIMIT, "nothing had to go: {gap:?}");
                        let lost = transitions.range(at(seq)..at(seq + gap.span)).count() as u64;
                        prop_assert_eq!(gap.dropped.transitions, lost, "{:?}", gap);
                        prop_assert_eq!(gap.dropped.unreadable, 0, "{:?}", gap);
                    }
                    after = chunk.end;
                }
                // A group that is acknowledged in part is offered again as a whole: the collector knows what it has.
                found.retain(|at| model.first().is_some_and(|first| at >= first));
                prop_assert_eq!(&found, &model);
            }
        }
    }

    #[test]
    fn in_memory_the_oldest_qualities_go_first_too() {
        let disk = Fake::default();
        let mut buffer = open(disk.clone(), 1);
        disk.0.borrow_mut().broken = true;
        let mut at = 0;
        while buffer.level().memory_bytes <= VOLATILE_LIMIT_BYTES as u64 {
            at += 60_000;
            for _ in 0..31 {
                buffer.append(qualities(1), Uptime(at));
            }
            if at % 600_000 == 0 {
                buffer.append(transition(at), Uptime(at));
            }
        }
        buffer.tick(true, Uptime(at));
        let after = buffer.memory.iter().filter(|(_, d, _)| matches!(d.body, Body::Qualities(_))).count();
        assert!(after > 0, "the newest minute is gone as well");
    }

    #[test]
    fn in_memory_new_transitions_outlive_old_ones() {
        let disk = Fake::default();
        let mut buffer = open(disk.clone(), 1);
        disk.0.borrow_mut().broken = true;
        let mut at = 0;
        while buffer.level().memory_bytes <= VOLATILE_LIMIT_BYTES as u64 {
            at += 100;
            buffer.append(transition(at), Uptime(at));
        }
        buffer.tick(true, Uptime(at));
        let after = buffer.memory.iter().filter(|(_, d, _)| matches!(d.body, Body::Transition(_))).count();
        assert!(after > 0, "all transitions are gone, the one of this moment as well");
    }

    #[test]
    fn groups_of_a_run_that_nobody_remembers_become_a_gap() {
        let disk = Fake::default();
        let mut buffer = open(disk.clone(), 1);
        buffer.append(transition(1), Uptime(1));
        buffer.append(transition(2), Uptime(2));
        buffer.flush(Uptime(3));
        drop(buffer);
        // What `Disk::runs` leaves out: a row that doesn't decode, as after a change of `Run`.
        disk.0.borrow_mut().contents.runs.clear();
        let mut buffer = open(disk.clone(), 2);
        let told = waiting(&mut buffer);
        assert!(told.contains('g') || told.contains('t'), "two transitions were durable; now: {told}");
    }
}

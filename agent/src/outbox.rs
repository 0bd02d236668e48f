//! What goes to the collector next: the buffer, what of it is on its way, and how it is dated.
//!
//! Pure but for the buffer's disk: it is told what arrives and says what to send.

use shared::message::Health;
use shared::{Ack, Batch, BranchId, Dating, Heartbeat, Live, Millis, Uptime};

use crate::buffer::{Buffer, Level, Position, Run, Store, dating_of};
use crate::dating::Estimator;
use crate::window::Window;

/// More entries than this waiting for an ack are a backlog: the newest states then travel beside it.
const BACKLOG_ENTRIES: u64 = 50;
/// So are more bytes than this: a second of a line with 64 kbit/s.
const BACKLOG_BYTES: u64 = 8_000;
/// Most devices whose newest state travels in one heartbeat: the payload has a limit.
const STATES_LIMIT: usize = 2_000;

/// See the module.
pub struct Outbox<S> {
    branch: BranchId,
    /// What waits.
    pub buffer: Buffer<S>,
    window: Window,
    estimator: Estimator,
    is_connected: bool,
    restatements: u64,
    /// Size of the chunk that was offered last.
    offered: (Position, usize),
}

/// What a heartbeat tells beside the stream.
#[derive(Debug, Clone, Default)]
pub struct Word {
    /// How the agent is, if that is told now; the buffer's part is filled in here.
    pub health: Option<Health>,
    /// The targets' newest states, for the case that the stream is behind.
    pub states: std::sync::Arc<Vec<Live>>,
}

impl<S: Store> Outbox<S> {
    /// An outbox of a branch that has no connection yet.
    pub fn new(branch: BranchId, buffer: Buffer<S>) -> Self {
        let mut estimator = Estimator::default();
        buffer.run().dating.into_iter().for_each(|anchor| estimator.inherit(anchor));
        let (window, offered) = (Window::default(), Default::default());
        Self { branch, buffer, window, estimator, is_connected: false, restatements: 0, offered }
    }

    /// The machine's clock reads `wall`, and NTP vouches for it to `error_ms`.
    pub fn heard_ntp(&mut self, wall: Millis, error_ms: u64, now: Uptime) {
        self.estimator.on_ntp(wall, error_ms, now);
        self.learnt(now);
    }

    fn learnt(&mut self, now: Uptime) {
        if let Some(anchor) = self.estimator.newest() {
            self.buffer.dated(anchor, now);
        }
    }

    /// A connection has begun: nothing that was on its way counts.
    pub fn connected(&mut self, now: Uptime) {
        self.is_connected = true;
        self.window.connected(now);
    }

    /// The connection has ended.
    pub fn disconnected(&mut self) {
        self.is_connected = false;
    }

    /// Writes what has waited long enough.
    pub fn tick(&mut self, now: Uptime) {
        let ordinal = self.buffer.run().ordinal;
        self.buffer.tick(self.is_connected, now);
        if self.buffer.run().ordinal != ordinal {
            // Earlier runs have come to light, which the window would pass over.
            self.window = Window::default();
        }
    }

    /// Whether there is a connection.
    pub fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// How the present boot is dated, once known.
    pub fn dating(&self, now: Uptime) -> Option<Dating> {
        self.estimator.dating(now)
    }

    /// How often the collector has asked for every state anew.
    pub fn restatements(&self) -> u64 {
        self.restatements
    }

    /// Whether so much waits for an ack that the newest states have to travel beside it.
    pub fn is_behind(&self) -> bool {
        let Level { waiting, bytes, memory_bytes, .. } = self.buffer.level();
        waiting > BACKLOG_ENTRIES || bytes + memory_bytes > BACKLOG_BYTES
    }

    /// An ack has arrived.
    pub fn acked(&mut self, ack: &Ack, now: Uptime) {
        self.restatements += u64::from(ack.restate && ack.stream == self.buffer.run().stream);
        if let Some(echo) = ack.echo {
            self.estimator.on_ack(ack.now, echo, now);
            self.learnt(now);
        }
        if let Some(position) = self.buffer.ack(ack.stream, ack.through, now) {
            self.window.acked(position, now);
        }
    }

    /// The next batch to send, if there is one, the time is known, and not too much is on its way; with the position
    /// to tell [`Self::sent`].
    pub fn next(&mut self, now: Uptime) -> Option<(Batch, Position)> {
        let present = self.estimator.dating(now).filter(|_| self.is_connected)?;
        if self.window.expired(now) {
            tracing::debug!("no ack: sending again");
        }
        let (after, room) = self.window.next_after()?;
        let chunk = self.buffer.next(after, room, now)?;
        // What a run has told must be there before the next run speaks: the collector could not tell which of two states
        // is the newer one.
        if self.window.oldest().is_some_and(|waiting| waiting.run != chunk.end.run) {
            return None;
        }
        let same_boot = chunk.run.boot == self.buffer.run().boot;
        let moments = chunk.group.deltas.iter().map(|delta| delta.at);
        let (from, to) = (moments.clone().min().unwrap_or(now), moments.max().unwrap_or(now));
        let dating = match dating_of(self.buffer.older(), chunk.run.boot) {
            _ if same_boot => self.estimator.dating_of(from, to).unwrap_or(present),
            Some(anchor) => anchor.dating_of(from, to),
            None => bounds(&chunk.run, self.buffer.older(), present),
        };
        let batch = Batch {
            branch: self.branch.clone(),
            stream: chunk.run.stream,
            dating,
            oldest: chunk.oldest,
            sent: same_boot.then_some(now),
            observed_through: chunk.observed_through,
            group: chunk.group,
        };
        self.offered = (chunk.end, postcard::experimental::serialized_size(&batch).unwrap_or(0));
        Some((batch, chunk.end))
    }

    /// A batch that ends at `end` has been handed to the connection.
    pub fn sent(&mut self, end: Position, now: Uptime) {
        let (offered, bytes) = self.offered;
        self.window.sent(end, if offered == end { bytes } else { 0 }, now);
    }

    /// A sign of life.
    pub fn heartbeat(&self, word: &Word, now: Uptime) -> Heartbeat {
        let Level { waiting, bytes, volatile, .. } = self.buffer.level();
        let states = if self.is_behind() { word.states.iter().take(STATES_LIMIT).cloned().collect() } else { Vec::new() };
        Heartbeat {
            stream: self.buffer.run().stream,
            sent: now,
            dating: self.estimator.dating(now),
            last: self.buffer.run().last,
            observed_through: self.buffer.observed_through(),
            health: word.health.clone().map(|health| Health {
                waiting,
                buffer_bytes: bytes,
                buffer_volatile: volatile,
                ..health
            }),
            states,
        }
    }
}

/// Between which dates a boot lay that never heard the time: after the latest earlier boot, before this one.
fn bounds(run: &Run, older: &[Run], present: Dating) -> Dating {
    let before = older.iter().filter(|other| other.ordinal < run.ordinal).filter_map(|other| other.dating);
    let not_after = spread(present).1;
    let not_before = before.map(|anchor| spread(anchor.dating_of(Uptime(0), Uptime(0))).0);
    let not_before = not_before.max().unwrap_or(Millis::EARLIEST);
    Dating::Bounds { not_before: not_before.min(not_after), not_after }
}

/// The earliest and the latest date at which a boot can have begun.
fn spread(dating: Dating) -> (Millis, Millis) {
    match dating {
        Dating::Fixed { boot_at, error_ms } => (boot_at.plus(-i64::from(error_ms)), boot_at.plus(error_ms.into())),
        Dating::Bounds { not_before, not_after } => (not_before, not_after),
    }
}

//! The thread that owns the outbox: a disk that is slow stops it for some seconds, and nothing else.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use shared::message::Spent;
use shared::{Ack, Batch, Body, BootId, BranchId, Dating, Heartbeat, Millis, StreamId, Uptime};
use tokio::sync::{mpsc, oneshot, watch};

use crate::budget::Budget;
use crate::buffer::{Buffer, Level, Position, Store};
use crate::clock;
use crate::disk::Disk;
use crate::line::Carried;
use crate::outbox::{Outbox, Word};
use crate::patience::Patient;
use crate::service::Pulse;

/// Most commands that wait for the thread.
pub const COMMANDS_LIMIT: usize = 1_024;
/// How often the kernel is asked whether something vouches for the machine's clock, and what was written to the disk, in ms.
const KERNEL_EVERY_MS: u64 = 10_000;

/// What the thread can be told.
#[derive(Debug)]
pub enum Command {
    /// Keep an entry.
    Entry(Body, Uptime),
    /// Every change before this moment has been told.
    Observed(Uptime),
    /// A connection has begun.
    Connected,
    /// The connection has ended.
    Disconnected,
    /// An ack has arrived.
    Acked(Ack),
    /// Asks for the next batch, if one may be sent.
    Next(oneshot::Sender<Option<(Batch, Position)>>),
    /// A batch that ends here has been handed to the connection.
    Sent(Position),
    /// The connection has carried so much since this was told last.
    Carried(Carried),
    /// Asks for a sign of life.
    Heartbeat(Word, oneshot::Sender<Heartbeat>),
    /// The program ends: write everything.
    Close,
}

/// How the stream stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// The present stream.
    pub stream: StreamId,
    /// Its last sequence number.
    pub last: u64,
    /// How full the buffer is.
    pub level: Level,
    /// Whether the newest states have to travel beside the stream.
    pub is_behind: bool,
    /// Whether there is a connection.
    pub is_connected: bool,
    /// How the present boot is dated, once known.
    pub dating: Option<Dating>,
    /// How often the collector has asked for every state anew.
    pub restatements: u64,
}

impl Standing {
    /// A stream of which nothing is known yet.
    pub fn begun(stream: StreamId) -> Self {
        Self { stream, last: 0, level: Level::default(), is_behind: false, is_connected: false, dating: None, restatements: 0 }
    }
}

/// The running thread.
pub struct Keeper {
    /// Takes commands.
    pub commands: mpsc::Sender<Command>,
    /// How the stream stands after the last command.
    pub standing: watch::Receiver<Standing>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Begins a stream over the buffer in `state_dir`. `pulse` beats with each command that is done. Reading what earlier runs
    /// left may take a card seconds: commands wait for it, probes don't. `since`: a date at which the machine was certainly in use.
    ///
    /// # Errors
    /// When no thread can be started. A disk that fails is no error: the buffer goes on in memory.
    pub fn start(
        branch: BranchId,
        state_dir: &Path,
        stream: StreamId,
        boot: BootId,
        limit_bytes: u64,
        since: Millis,
        pulse: Pulse,
    ) -> std::io::Result<Self> {
        let began = clock::uptime();
        let disk = Disk::new(state_dir, limit_bytes);
        let meter = Meter::new(disk.flushes(), began);
        let disk = Patient::new(disk, pulse.clone())?;
        let (commands, inbox) = mpsc::channel(COMMANDS_LIMIT);
        let (told, standing) = watch::channel(Standing::begun(stream));
        let thread = std::thread::Builder::new().name("keeper".to_owned()).spawn(move || {
            let buffer = Buffer::open(disk, stream, boot, Disk::held_limit(limit_bytes), began);
            keep(Outbox::new(branch, buffer).since(since), meter, inbox, &told, &pulse);
        })?;
        Ok(Self { commands, standing, thread })
    }

    /// Waits until everything is written.
    pub fn join(self) {
        drop(self.commands);
        if self.thread.join().is_err() {
            tracing::error!("the keeper of the buffer panicked");
        }
    }
}

fn standing<S: Store>(outbox: &Outbox<S>, now: Uptime) -> Standing {
    let run = outbox.buffer.run();
    Standing {
        stream: run.stream,
        last: run.last,
        level: outbox.buffer.level(),
        is_behind: outbox.is_behind(),
        is_connected: outbox.is_connected(),
        dating: outbox.dating(now),
        restatements: outbox.restatements(),
    }
}

/// Whoever asks may be gone with its connection: then its answer goes nowhere.
fn answer<T>(to: oneshot::Sender<T>, what: T) {
    let _ = to.send(what);
}

/// Counts what the agent costs its card and its line.
struct Meter {
    budget: Budget,
    flushes: Arc<AtomicU64>,
    told: (u64, u64),
}

impl Meter {
    fn new(flushes: Arc<AtomicU64>, now: Uptime) -> Self {
        Self { budget: Budget::new(now), told: (written_bytes(), 0), flushes }
    }

    /// Counts what was written since this was asked last. Asked often, since what is counted belongs to the hour in which it
    /// is: a link may be away for weeks.
    fn count(&mut self, now: Uptime) {
        self.count_to((written_bytes(), self.flushes.load(Ordering::Relaxed)), now);
    }

    fn count_to(&mut self, counted: (u64, u64), now: Uptime) {
        let (disk_bytes, flushes) = std::mem::replace(&mut self.told, counted);
        let (disk_bytes, flushes) = (counted.0.saturating_sub(disk_bytes), counted.1.saturating_sub(flushes));
        self.budget.spend(Spent { disk_bytes, flushes, ..Spent::default() }, now);
    }

    fn carried(&mut self, carried: Carried, now: Uptime) {
        let spent = Spent { sent_bytes: carried.sent, received_bytes: carried.received, ..Spent::default() };
        self.budget.spend(spent, now);
    }
}

/// Bytes that this process has caused to be written to a disk, by the kernel's count.
fn written_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}

fn keep<S: Store>(
    mut outbox: Outbox<S>,
    mut meter: Meter,
    mut inbox: mpsc::Receiver<Command>,
    told: &watch::Sender<Standing>,
    pulse: &Pulse,
) {
    let mut kernel_at = Uptime(0);
    while let Some(command) = inbox.blocking_recv() {
        let now = clock::uptime();
        if now >= kernel_at {
            kernel_at = now.plus(KERNEL_EVERY_MS);
            meter.count(now);
            if let Some((wall, error_ms)) = clock::synchronised() {
                outbox.heard_ntp(wall, error_ms, now);
            }
        }
        match command {
            Command::Entry(body, at) => outbox.buffer.append(body, at),
            Command::Observed(moment) => outbox.buffer.observed(moment),
            Command::Connected => outbox.connected(now),
            Command::Disconnected => outbox.disconnected(),
            Command::Acked(ack) => outbox.acked(&ack, now),
            Command::Next(reply) => answer(reply, outbox.next(now)),
            Command::Sent(end) => outbox.sent(end, now),
            Command::Carried(carried) => meter.carried(carried, now),
            Command::Heartbeat(mut word, reply) => {
                meter.count(now);
                let spent = meter.budget.day(now);
                word.health.iter_mut().for_each(|health| health.spent = spent);
                answer(reply, outbox.heartbeat(&word, now));
            }
            Command::Close => {
                outbox.buffer.close(now);
                break;
            }
        }
        outbox.tick(now);
        // The watch says twice a second how far it is, so a keeper without work has something to do all the same.
        pulse.beat();
        told.send_if_modified(|before| {
            let next = standing(&outbox, now);
            // The dating ages with every look at it: alone it is no news.
            let told = |standing: &Standing| {
                (standing.last, standing.level, standing.is_connected, standing.dating.is_some(), standing.restatements)
            };
            let news = told(before) != told(&next);
            *before = next;
            news
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_in_weeks_without_a_link_lies_in_the_hours_in_which_it_was() {
        const HOUR_MS: u64 = 3_600_000;
        let mut meter = Meter { budget: Budget::new(Uptime(0)), told: (0, 0), flushes: Arc::default() };
        for hour in 1..=21 * 24 {
            meter.count_to((hour * 1_000, hour), Uptime(hour * HOUR_MS));
        }
        let back = Uptime(21 * 24 * HOUR_MS + 60_000);
        meter.carried(Carried { sent: 500, received: 50 }, back);
        let day = meter.budget.day(back);
        assert_eq!((day.disk_bytes, day.flushes, day.sent_bytes, day.received_bytes), (24_000, 24, 500, 50));
    }
}

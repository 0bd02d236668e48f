//! The production core of the collector over a file that can refuse writes, by a clock that can be set.

use std::sync::{Arc, RwLockReadGuard};

use rusqlite::Connection;
use shared::{Ack, BootId, BranchId, Millis, Uptime};
use tokio::sync::mpsc;
use ward_collector::clock::Moment;
use ward_collector::feed::{Live, Notes};
use ward_collector::fleet::Fleet;
use ward_collector::ingest::{Command, Ingest, Outgoing};
use ward_collector::inventory::parse_csv;
use ward_collector::metrics::Metrics;
use ward_collector::settings::Rollout;
use ward_collector::store::{self, Queue, Store};

/// How long a branch may say nothing before it is silent, in ms.
pub(crate) const SILENT_AFTER_MS: u32 = 30_000;

/// Tables whose refusal stops a commit: at its start, in its middle and at its end.
pub(crate) const TABLES: [&str; 4] = ["stream", "transition", "minute", "outbox"];

struct Running {
    ingest: Ingest,
    live: Arc<Live>,
    outgoing: mpsc::Receiver<Outgoing>,
}

/// A collector, whether or not it runs.
pub(crate) struct Collector {
    folder: tempfile::TempDir,
    running: Option<Running>,
    /// A connection of the simulation's own, to make the file refuse writes.
    saboteur: Connection,
    refuses: bool,
    /// How far its clock is off, in ms: every value that it had.
    skews: Vec<i64>,
}

impl Collector {
    pub(crate) fn new(csv: &str, now: i64) -> Self {
        // In memory where there is such a place: what a power cut does to SQLite is not this test's question.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
        let inventory = parse_csv("sim", csv).expect("good");
        Store::open(folder.path()).and_then(|mut s| s.transaction(|db| store::import(db, &inventory))).expect("imported");
        let saboteur = Connection::open(folder.path().join("ward.db")).expect("the file opens");
        let mut collector = Self { folder, running: None, saboteur, refuses: false, skews: vec![0] };
        collector.start(now);
        collector
    }

    pub(crate) fn start(&mut self, now: i64) {
        let live = Arc::new(Live::new(Fleet::new(SILENT_AFTER_MS), Notes::default()));
        let (sender, outgoing) = mpsc::channel(10_000);
        let metrics = Arc::new(Metrics::default());
        let store = self.store();
        let began = Moment { wall: self.clock(now), boot: BootId(1), uptime: Self::uptime(now) };
        let queue = Queue { readers: vec!["v".to_owned()], limit_bytes: 1 << 30 };
        let ingest = Ingest::new(store, Arc::clone(&live), metrics, sender, Rollout::default(), Some(queue), began);
        self.running = Some(Running { ingest: ingest.expect("the ledger is readable"), live, outgoing });
    }

    pub(crate) fn kill(&mut self) {
        self.running = None;
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// What its clock says.
    pub(crate) fn clock(&self, now: i64) -> Millis {
        Millis(now + self.skew())
    }

    fn skew(&self) -> i64 {
        *self.skews.last().expect("it has had a clock from the beginning")
    }

    /// How long its machine has run.
    pub(crate) fn uptime(now: i64) -> Uptime {
        Uptime(now.unsigned_abs())
    }

    /// Somebody sets its clock.
    pub(crate) fn set_clock(&mut self, skew: i64) {
        self.skews.push(skew);
    }

    /// How far its clock was off at any time, in ms: the least and the most.
    pub(crate) fn skews(&self) -> (i64, i64) {
        (self.skews.iter().copied().min().unwrap_or(0), self.skews.iter().copied().max().unwrap_or(0))
    }

    /// How far behind the furthest that it ever was its clock is now, in ms.
    pub(crate) fn set_back_ms(&self) -> i64 {
        self.skews().1 - self.skew()
    }

    /// Whether its file refuses writes.
    pub(crate) fn refuses(&self) -> bool {
        self.refuses
    }

    /// Its file refuses what would be written to a table.
    pub(crate) fn refuse(&mut self, table: &str) {
        self.accept();
        let sql = format!("create trigger refusal before insert on {table} begin select raise(abort, 'disk full'); end");
        self.saboteur.execute_batch(&sql).expect("the file takes a trigger");
        self.refuses = true;
    }

    /// Its file takes everything again.
    pub(crate) fn accept(&mut self) {
        if std::mem::take(&mut self.refuses) {
            self.saboteur.execute_batch("drop trigger refusal").expect("the trigger is there");
        }
    }

    /// Lets it work on what has arrived; its acks.
    pub(crate) fn handle(&mut self, commands: Vec<Command>, now: i64) -> Vec<(BranchId, Ack)> {
        let clock = self.clock(now);
        let Some(Running { ingest, outgoing, .. }) = &mut self.running else { return Vec::new() };
        ingest.handle(commands, clock);
        let mut acks = Vec::new();
        while let Ok(message) = outgoing.try_recv() {
            if let Outgoing::Ack(branch, ack) = message {
                acks.push((branch, ack));
            }
        }
        // In an order that a seed decides.
        acks.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        acks
    }

    /// What it shows, if it runs.
    pub(crate) fn fleet(&self) -> Option<RwLockReadGuard<'_, Fleet>> {
        self.running.as_ref().map(|running| running.live.fleet())
    }

    /// Its file.
    pub(crate) fn store(&self) -> Store {
        Store::open(self.folder.path()).expect("the file opens")
    }
}

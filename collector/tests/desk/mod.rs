//! A collector's ledger without servers, and what agents may say to it.

#![allow(dead_code, reason = "each test uses the part that it needs")]

use std::sync::Arc;

use bytes::Bytes;
use shared::delta::Boot;
use shared::message::Heartbeat;
use shared::wire::encode;
use shared::{
    Ack, Batch, Body, BootId, Dating, Delta, DeviceId, Dropped, Gap, GapReason, Group, Lane, Millis, Status, StreamId,
    Transition, Uptime,
};
use tokio::sync::mpsc;
use ward_collector::clock::Moment;
use ward_collector::feed::{Live, Notes};
use ward_collector::fleet::Fleet;
use ward_collector::ingest::{Command, Ingest, Outgoing};
use ward_collector::inventory::parse_csv;
use ward_collector::metrics::Metrics;
use ward_collector::settings::Rollout;
use ward_collector::store::{self, Queue, Store};

/// When the branch's machine booted.
pub(crate) const BOOT: i64 = 1_795_442_400_000;

/// A collector without servers, and one branch `m` with the devices `m1` and `m2`.
pub(crate) struct Desk {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) ingest: Ingest,
    pub(crate) live: Arc<Live>,
    outgoing: mpsc::Receiver<Outgoing>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) now: i64,
    /// How long the collector's machine has run, whatever its clock says.
    pub(crate) uptime: u64,
    /// What the clock showed when something was said last.
    shown_ms: i64,
}

/// What is said so much later, in ms, is said after the machine has run for so long.
const LONG_MS: i64 = 500_000;

pub(crate) const CSV: &str = "device_id,device_name,branch,branch_name,region,region_name,device_type,ip\n\
                   m1,M1,m,M,r,R,atm,10.0.0.1\nm2,M2,m,M,r,R,atm,10.0.0.2\n";

impl Desk {
    pub(crate) fn new() -> Self {
        // In memory where there is such a place: what a power cut does to SQLite is not these tests' question.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
        import(&folder, CSV);
        Self::over(folder, BOOT + 10_000, 1_000_000)
    }

    pub(crate) fn over(folder: tempfile::TempDir, now: i64, uptime: u64) -> Self {
        let store = Store::open(folder.path()).expect("the file opens");
        let mut desk = Self::with(store, folder, now, uptime);
        desk.tick();
        desk
    }

    pub(crate) fn with(store: Store, folder: tempfile::TempDir, now: i64, uptime: u64) -> Self {
        let live = Arc::new(Live::new(Fleet::new(30_000), Notes::default()));
        let metrics = Arc::new(Metrics::default());
        let (sender, outgoing) = mpsc::channel(1_000);
        let began = Moment { wall: Millis(now), boot: BootId(1), uptime: Uptime(uptime) };
        let queue = Queue { readers: vec!["v".to_owned()], limit_bytes: 1 << 20 };
        let ingest = Ingest::new(store, Arc::clone(&live), Arc::clone(&metrics), sender, Rollout::default(), Some(queue), began);
        Self { folder, ingest: ingest.expect("a readable file"), live, outgoing, metrics, now, uptime, shown_ms: now }
    }

    pub(crate) fn restarted(self) -> Self {
        let Self { folder, now, ingest, uptime, .. } = self;
        drop(ingest);
        Self::over(folder, now, uptime)
    }

    /// Handles commands together; the newest ack.
    pub(crate) fn handle(&mut self, commands: Vec<Command>) -> Option<Ack> {
        self.acks(commands).pop()
    }

    /// Somebody sets the clock ahead, and no time passes.
    pub(crate) fn set_ahead(&mut self, ms: i64) {
        (self.now, self.shown_ms) = (self.now + ms, self.shown_ms + ms);
    }

    /// Handles commands together; all acks.
    pub(crate) fn acks(&mut self, mut commands: Vec<Command>) -> Vec<Ack> {
        let passed = self.now - std::mem::replace(&mut self.shown_ms, self.now);
        if passed >= LONG_MS {
            self.uptime += passed.unsigned_abs();
            commands.insert(0, Command::Tick(Uptime(self.uptime)));
        }
        self.ingest.handle(commands, Millis(self.now));
        let messages = std::iter::from_fn(|| self.outgoing.try_recv().ok());
        let ack = |message| if let Outgoing::Ack(_, ack) = message { Some(ack) } else { None };
        messages.filter_map(ack).collect()
    }

    pub(crate) fn take(&mut self, batch: &Batch) -> Option<Ack> {
        self.handle(vec![payload(Lane::Up, encode(batch).expect("within the limit"))])
    }

    pub(crate) fn tick(&mut self) {
        self.handle(vec![Command::Tick(Uptime(self.uptime))]);
    }

    pub(crate) fn shown(&self, device: &str) -> String {
        let fleet = self.live.fleet();
        let at = fleet.device(&device.parse().expect("an id")).expect("in the inventory");
        fleet.devices[at].view.status.to_string()
    }
}

pub(crate) fn import(folder: &tempfile::TempDir, csv: &str) {
    let inventory = parse_csv("e.csv", csv).expect("good");
    Store::open(folder.path()).and_then(|mut s| s.transaction(|db| store::import(db, &inventory))).expect("imported");
}

pub(crate) fn payload(lane: Lane, bytes: Vec<u8>) -> Command {
    Command::Payload { topic: lane.topic(&"m".parse().expect("an id")), bytes: Bytes::from(bytes) }
}

pub(crate) fn boot(stream: u64) -> Body {
    Body::Boot(Boot { boot: BootId(stream.into()), version: "0".into(), previous: None })
}

pub(crate) fn change(device: &str, to: Status, onset: u64) -> Body {
    let device: DeviceId = device.parse().expect("an id");
    Body::Transition(Transition {
        device,
        from: shared::delta::UNOBSERVED,
        to,
        onset: Uptime(onset),
        last_ok: None,
        verdict: None,
        evidence: None,
    })
}

pub(crate) fn gap(span: u64, from: u64, to: u64, transitions: u64) -> Body {
    let dropped = Dropped { transitions, ..Dropped::default() };
    Body::Gap(Gap { span, from: Uptime(from), to: Uptime(to), reason: GapReason::BufferFull, dropped })
}

/// A batch of a machine that booted at `boot_at`, told at `at` ms of its uptime.
pub(crate) fn batch(stream: u64, boot_at: i64, first: u64, at: u64, bodies: Vec<Body>) -> Batch {
    Batch {
        branch: "m".parse().expect("an id"),
        stream: StreamId(stream),
        dating: Dating::Fixed { boot_at: Millis(boot_at), error_ms: 10 },
        oldest: first,
        sent: Some(Uptime(at)),
        observed_through: Uptime(at),
        group: Group { first, deltas: bodies.into_iter().map(|body| Delta { at: Uptime(at), body }).collect() },
    }
}

pub(crate) fn heartbeat(stream: u64, boot_at: i64, last: u64, at: u64) -> Command {
    let heartbeat = Heartbeat {
        stream: StreamId(stream),
        sent: Uptime(at),
        dating: Some(Dating::Fixed { boot_at: Millis(boot_at), error_ms: 10 }),
        last,
        observed_through: Uptime(at),
        health: None,
        states: Vec::new(),
    };
    payload(Lane::Live, encode(&heartbeat).expect("small"))
}

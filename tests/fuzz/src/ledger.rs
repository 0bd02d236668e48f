//! The collector's ledger, told arbitrary batches and heartbeats of a branch that it knows.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;
use shared::{Batch, BootId, Heartbeat, Lane, Millis, Uptime};
use tokio::sync::mpsc;
use ward_collector::clock::Moment;
use ward_collector::feed::{Live, Notes};
use ward_collector::fleet::Fleet;
use ward_collector::ingest::{Command, Ingest, Outgoing};
use ward_collector::inventory::parse_csv;
use ward_collector::metrics::Metrics;
use ward_collector::settings::Rollout;
use ward_collector::store::{self, Queue, Store};

use crate::payload::framed;

/// The clock, some time after the golden files' dates.
const NOW: Millis = Millis(1_795_442_400_000 + 86_400_000);
/// What is told at once before the file is made anew.
const RUNS: u32 = 2_000;

struct Desk {
    folder: tempfile::TempDir,
    ingest: Ingest,
    outgoing: mpsc::Receiver<Outgoing>,
    runs: u32,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
        let csv = "device_id,device_name,branch,branch_name,region,region_name,device_type,ip\n\
                   vake-atm-1,A,vake,V,t,T,atm,10.0.0.1\nvake-atm-2,B,vake,V,t,T,atm,10.0.0.2\n";
        let inventory = parse_csv("fuzz", csv).expect("good");
        let mut store = Store::open(folder.path()).expect("the file opens");
        store.transaction(|db| store::import(db, &inventory)).expect("imported");
        let live = Arc::new(Live::new(Fleet::new(30_000), Notes::default()));
        let (sender, outgoing) = mpsc::channel(1_000);
        let metrics = Arc::new(Metrics::default());
        let queue = Queue { readers: vec!["v".to_owned()], limit_bytes: 1 << 20 };
        let ingest = Ingest::new(
            store,
            live,
            metrics,
            sender,
            Rollout::default(),
            Some(queue),
            Moment { wall: NOW, boot: BootId(1), uptime: Uptime(0) },
        );
        Self { folder, ingest: ingest.expect("a readable file"), outgoing, runs: 0 }
    }
}

thread_local! {
    static DESK: RefCell<Desk> = RefCell::new(Desk::new());
}

pub fn payloads(content: &[u8]) {
    let topic = |lane: Lane| lane.topic(&"vake".parse().expect("an id"));
    DESK.with_borrow_mut(|desk| {
        let commands = [(Lane::Up, framed::<Batch>(content)), (Lane::Live, framed::<Heartbeat>(content))];
        let payload = |(lane, bytes)| Command::Payload { topic: topic(lane), bytes: Bytes::from(bytes) };
        desk.ingest.handle(commands.map(payload).into(), NOW);
        desk.ingest.handle(vec![Command::Tick(Uptime(0))], NOW);
        while desk.outgoing.try_recv().is_ok() {}
        desk.runs += 1;
        if desk.runs == RUNS {
            // What it has taken can be read.
            let db = Store::open(desk.folder.path()).expect("the file opens");
            store::covered(db.connection(), "vake").expect("readable");
            *desk = Desk::new();
        }
    });
}

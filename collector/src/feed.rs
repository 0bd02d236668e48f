//! The live feed: a snapshot, then numbered deltas. Every reader gets the same message, made once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use axum::extract::ws::Utf8Bytes;
use serde_json::{Value, json};
use shared::message::Watched;
use shared::{BranchId, Millis};
use tokio::sync::broadcast;

use crate::availability::timelines::Timelines;
use crate::fleet::{BranchState, Fleet, Touched};
use crate::replies::Replies;
use crate::store::{self, Readers, StoreError};
use crate::surface::{Fields, branch_json, watched_json, write_device};

/// Messages that a reader may lag behind before it is dropped.
const LAG_LIMIT: usize = 1_024;
/// How often timelines that change while they are read are read again for one question.
const LOADS_LIMIT: usize = 3;

/// The fleet and the feed that tells of its changes.
pub struct Live {
    fleet: RwLock<Fleet>,
    /// What the devices have been. Whoever needs it together with the fleet takes the fleet first.
    timelines: RwLock<Timelines>,
    /// Held by whoever reads timelines from the file: others wait instead of reading the same.
    loading: Mutex<()>,
    epoch: String,
    seq: Mutex<u64>,
    shown: AtomicU64,
    heard: AtomicU64,
    messages: broadcast::Sender<Utf8Bytes>,
    /// What agents were asked, for those who wait for the answers.
    pub answers: Replies,
    /// What the page says of this collector: whether it is a demo, and what is made up.
    pub notes: Notes,
}

/// What the page says of this collector.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    /// It is a demo.
    pub demo: bool,
    /// Replies are made up.
    pub simulated: bool,
    /// More to say, one sentence each.
    pub notes: Vec<String>,
}

impl Live {
    /// A feed of a fleet that nobody watches yet.
    pub fn new(fleet: Fleet, notes: Notes) -> Self {
        let (messages, _) = broadcast::channel(LAG_LIMIT);
        let epoch = format!("{:016x}", rand::random::<u64>());
        Self {
            fleet: RwLock::new(fleet),
            timelines: RwLock::default(),
            loading: Mutex::default(),
            epoch,
            seq: Mutex::new(0),
            shown: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            messages,
            answers: Replies::default(),
            notes,
        }
    }

    /// The fleet, to read.
    pub fn fleet(&self) -> RwLockReadGuard<'_, Fleet> {
        self.fleet.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What the devices have been, to read.
    pub fn timelines(&self) -> RwLockReadGuard<'_, Timelines> {
        self.timelines.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What the devices have been, to go on with.
    pub fn timelines_mut(&self) -> RwLockWriteGuard<'_, Timelines> {
        self.timelines.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Reads the timelines of stale branches that `wanted` lets through. Blocks: call it from a thread that may.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn load_timelines(
        &self,
        readers: &Readers,
        wanted: impl Fn(&BranchState) -> bool,
        now: Millis,
    ) -> Result<(), StoreError> {
        let _alone = self.loading.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // What changes meanwhile is read again, but not for ever: an answer may be as old as its question.
        for _ in 0..LOADS_LIMIT {
            let stale: Vec<(BranchId, u64, Vec<u32>)> = {
                let (fleet, timelines) = (self.fleet(), self.timelines());
                let numbers = |branch: &BranchState| branch.devices.iter().map(|at| fleet.devices[*at].no).collect();
                let stale =
                    |branch: &BranchState| Some((branch.info.id.clone(), timelines.stale(&branch.info.id)?, numbers(branch)));
                fleet.branches.iter().filter(|branch| wanted(branch)).filter_map(stale).collect()
            };
            if stale.is_empty() {
                break;
            }
            for (branch, generation, devices) in stale {
                let loaded = readers.read(|db| store::timelines(db, branch.as_str(), &devices))?;
                self.timelines_mut().install(&branch, generation, loaded, now);
            }
        }
        Ok(())
    }

    /// Grows when a device or a branch looks different, or there are others.
    pub fn shown(&self) -> u64 {
        self.shown.load(Ordering::Acquire)
    }

    /// Grows with anything that is heard of the fleet, also where nothing but a date of contact changes.
    pub fn heard(&self) -> u64 {
        self.heard.load(Ordering::Acquire)
    }

    fn fleet_mut(&self) -> RwLockWriteGuard<'_, Fleet> {
        self.fleet.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Changes the fleet, brings it up to `now` and tells all readers what looks different.
    pub fn change(&self, now: Millis, work: impl FnOnce(&mut Fleet)) {
        let mut fleet = self.fleet_mut();
        work(&mut fleet);
        let touched = fleet.refresh(now);
        self.heard.fetch_add(1, Ordering::Release);
        self.tell(&fleet, &touched, now);
    }

    /// Changes the fleet for the next [`Self::change`] to show: one message then tells of many changes.
    pub fn prepare(&self, work: impl FnOnce(&mut Fleet)) {
        let mut fleet = self.fleet_mut();
        work(&mut fleet);
        self.heard.fetch_add(1, Ordering::Release);
    }

    /// Changes what devices there are: every reader has to start over.
    pub fn replace(&self, now: Millis, work: impl FnOnce(&mut Fleet)) {
        let mut fleet = self.fleet_mut();
        work(&mut fleet);
        fleet.refresh(now);
        self.heard.fetch_add(1, Ordering::Release);
        self.shown.fetch_add(1, Ordering::Release);
        let mut seq = self.lock_seq();
        *seq += 1;
        if self.messages.receiver_count() == 0 {
            return;
        }
        let _ = self.messages.send(self.snapshot(&fleet, *seq, now).into());
    }

    fn tell(&self, fleet: &Fleet, touched: &Touched, now: Millis) {
        if touched.is_empty() {
            return;
        }
        self.shown.fetch_add(1, Ordering::Release);
        let mut seq = self.lock_seq();
        *seq += 1;
        if self.messages.receiver_count() == 0 {
            return;
        }
        let head = json!({ "type": "delta", "epoch": self.epoch, "seq": *seq, "now": now.0 });
        let message = with_lists(&head, fleet, touched.branches.iter().copied(), touched.devices.iter().copied());
        let _ = self.messages.send(message.into());
    }

    /// A reader's snapshot and everything that comes after it.
    pub fn subscribe(&self, now: Millis) -> (String, broadcast::Receiver<Utf8Bytes>) {
        // Nothing can change between the snapshot and the first message while this is held.
        let fleet = self.fleet();
        let messages = self.messages.subscribe();
        let seq = *self.lock_seq();
        (self.snapshot(&fleet, seq, now), messages)
    }

    /// Tells all readers how watched devices of a branch have answered. It has no number: whoever misses it gets the next
    /// in seconds.
    pub fn watched(&self, branch: usize, watched: &[Watched], now: Millis) {
        let fleet = self.fleet();
        let known = watched.iter().filter(|watched| fleet.device_of(&watched.device, branch).is_some());
        let devices: Vec<_> = known.map(watched_json).collect();
        if !devices.is_empty() {
            let message = json!({ "type": "watched", "epoch": self.epoch, "now": now.0, "devices": devices });
            let _ = self.messages.send(message.to_string().into());
        }
    }

    /// A sign of life with the number of the last message.
    pub fn heartbeat(&self, now: Millis) -> String {
        json!({"type": "heartbeat", "epoch": self.epoch, "seq": *self.lock_seq(), "now": now.0}).to_string()
    }

    fn snapshot(&self, fleet: &Fleet, seq: u64, now: Millis) -> String {
        let head = json!({
            "type": "snapshot", "epoch": self.epoch, "seq": seq, "now": now.0, "version": crate::VERSION,
            "demo": self.notes.demo, "simulated": self.notes.simulated, "notes": self.notes.notes,
        });
        with_lists(&head, fleet, 0..fleet.branches.len(), 0..fleet.devices.len())
    }

    fn lock_seq(&self) -> std::sync::MutexGuard<'_, u64> {
        self.seq.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A message with lists of branches and devices. They are written one by one: 70,000 devices as one tree of JSON would
/// take 350 MB for a moment.
fn with_lists(
    head: &Value,
    fleet: &Fleet,
    branches: impl Iterator<Item = usize>,
    devices: impl Iterator<Item = usize>,
) -> String {
    let mut text = head.to_string().into_bytes();
    // The object goes on.
    text.pop();
    text.extend_from_slice(b",\"branches\":[");
    append(&mut text, branches, |text, at| text.extend_from_slice(branch_json(fleet, at).to_string().as_bytes()));
    text.extend_from_slice(b"],\"devices\":[");
    append(&mut text, devices, |text, at| write_device(text, fleet, at, Fields::ALL));
    text.extend_from_slice(b"]}");
    String::from_utf8(text).unwrap_or_default()
}

/// Writes items with commas between them.
pub fn append(text: &mut Vec<u8>, items: impl Iterator<Item = usize>, mut write: impl FnMut(&mut Vec<u8>, usize)) {
    for (at, item) in items.enumerate() {
        if at > 0 {
            text.push(b',');
        }
        write(text, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::parse_csv;

    const NOW: Millis = Millis(1_795_442_400_000);

    fn estate() -> Fleet {
        let text = "device_id,device_name,branch,branch_name,region,region_name,device_type,ip\n\
                    a,A,vake,Vake,t,T,atm,10.0.0.1\nb,B,vake,Vake,t,T,atm,10.0.0.2\nc,C,gldani,Gldani,t,T,atm,10.0.0.1\n";
        let mut fleet = Fleet::new(30_000);
        fleet.set_inventory(&parse_csv("e", text).expect("good"), &[1, 2, 3]);
        fleet
    }

    #[test]
    fn one_message_tells_of_all_that_was_prepared_and_every_reader_gets_the_same_bytes() {
        let live = Live::new(estate(), Notes::default());
        let (snapshot, mut one) = live.subscribe(NOW);
        let (_, mut other) = live.subscribe(NOW);
        let snapshot: Value = serde_json::from_str(&snapshot).expect("JSON");
        let ids = |list: &Value| -> Vec<String> {
            list.as_array().expect("a list").iter().map(|item| item["id"].as_str().expect("an id").to_owned()).collect()
        };
        assert_eq!((ids(&snapshot["devices"]).join(" "), ids(&snapshot["branches"]).len()), ("a b c".to_owned(), 2));
        for device in [0, 2] {
            live.prepare(|fleet| fleet.measure(device, crate::fleet::Quality { at: NOW, rtt_us: Some(1), loss: 0.0 }));
        }
        assert!(one.try_recv().is_err(), "nothing is told before it is shown");
        live.change(NOW, |_| {});
        let (told, same) = (one.try_recv().expect("a message"), other.try_recv().expect("a message"));
        assert_eq!((live.shown(), live.heard()), (1, 3), "what is heard is not shown yet");
        assert_eq!(told.as_str().as_ptr(), same.as_str().as_ptr());
        let told: Value = serde_json::from_str(&told).expect("JSON");
        assert_eq!((told["type"].as_str(), told["seq"].as_u64()), (Some("delta"), Some(1)));
        assert_eq!((ids(&told["devices"]).join(" "), ids(&told["branches"]).len()), ("a c".to_owned(), 0));
        live.change(NOW, |_| {});
        assert!(one.try_recv().is_err(), "nothing has changed");
    }
}

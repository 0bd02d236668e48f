//! The live feed: a snapshot, then numbered deltas. Readers who see the same get the same message, made once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde_json::{Value, json};
use shared::message::Watched;
use shared::{BranchId, Millis};
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::availability::timelines::Timelines;
use crate::boxes::Boxes;
use crate::channel::{Channel, Interest};
use crate::fleet::{BranchState, Fleet, Touched, TouchedDevice};
use crate::replies::Replies;
use crate::revision::Revision;
use crate::store::{self, Readers, StoreError};
use crate::surface::{Fields, branch_json, watched_json, write_device};

/// Most lines of messages at a time: each is written for itself.
pub const CHANNELS_LIMIT: usize = 256;
/// How often timelines that change while they are read are read again for one question.
const LOADS_LIMIT: usize = 3;

/// The fleet and the feed that tells of its changes.
pub struct Live {
    fleet: RwLock<Fleet>,
    /// What the devices have been. Whoever needs it together with the fleet takes the fleet first.
    timelines: RwLock<Timelines>,
    /// Held by whoever reads timelines from the file: others wait instead of reading the same.
    loading: Mutex<()>,
    /// By what their readers see. Whoever needs them together with the fleet takes the fleet first.
    channels: Mutex<HashMap<Interest, Channel>>,
    /// Grows when a device or a branch looks different, or there are others.
    pub shown: Revision,
    /// Grows with anything that is heard of the fleet, also where nothing but a date of contact changes.
    pub heard: Revision,
    /// What agents were asked, for those who wait for the answers.
    pub answers: Replies,
    /// What boxes last told of themselves.
    pub boxes: Boxes,
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
        Self {
            fleet: RwLock::new(fleet),
            timelines: RwLock::default(),
            loading: Mutex::default(),
            channels: Mutex::default(),
            shown: Revision::default(),
            heard: Revision::default(),
            answers: Replies::default(),
            boxes: Boxes::default(),
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

    fn fleet_mut(&self) -> RwLockWriteGuard<'_, Fleet> {
        self.fleet.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Changes the fleet, brings it up to `now` and tells all readers what looks different.
    pub fn change(&self, now: Millis, work: impl FnOnce(&mut Fleet)) {
        let mut fleet = self.fleet_mut();
        work(&mut fleet);
        let touched = fleet.refresh(now);
        self.heard.step(Instant::now());
        self.tell(&fleet, &touched, now);
    }

    /// Changes the fleet for the next [`Self::change`] to show: one message then tells of many changes.
    pub fn prepare<T>(&self, work: impl FnOnce(&mut Fleet) -> T) -> T {
        let mut fleet = self.fleet_mut();
        let done = work(&mut fleet);
        self.heard.step(Instant::now());
        done
    }

    /// Changes what devices there are: every reader has to start over.
    pub fn replace(&self, now: Millis, work: impl FnOnce(&mut Fleet)) {
        let mut fleet = self.fleet_mut();
        work(&mut fleet);
        fleet.refresh(now);
        self.heard.step(Instant::now());
        self.shown.step(Instant::now());
        for (interest, channel) in self.lock_channels(now).iter_mut() {
            channel.send(|epoch, seq| self.write_snapshot(&fleet, interest, (epoch, seq), now));
            channel.forget_snapshot();
        }
    }

    fn tell(&self, fleet: &Fleet, touched: &Touched, now: Millis) {
        if touched.is_empty() {
            return;
        }
        self.shown.step(Instant::now());
        for (interest, channel) in self.lock_channels(now).iter_mut() {
            let is_seen = |branch: usize| interest.takes(&fleet.branches[branch]);
            let branches = touched.branches.iter().copied().filter(|at| is_seen(*at));
            let devices = touched.devices.iter().filter(|touched| is_seen(fleet.devices[touched.device].branch));
            if branches.clone().next().is_none() && devices.clone().next().is_none() {
                continue;
            }
            channel.send(|epoch, seq| {
                let head = json!({ "type": "delta", "epoch": epoch, "seq": seq, "now": now.0 });
                let mut text = open(&head);
                if branches.clone().next().is_some() {
                    write_branches(&mut text, fleet, branches);
                }
                if devices.clone().next().is_some() {
                    let parts = devices.map(|TouchedDevice { device, before, is_measured }| {
                        (*device, Fields::changed(before, &fleet.devices[*device].view, *is_measured))
                    });
                    write_devices(&mut text, fleet, parts);
                }
                close(text)
            });
        }
    }

    /// What a reader gets first, and everything that comes after it: a snapshot, or what came since a number that the
    /// reader has. `None` where there are too many kinds of readers already.
    pub fn subscribe(&self, interest: &Interest, resume: Option<(&str, u64)>, now: Millis) -> Option<Subscription> {
        // Nothing can change between the snapshot and the first message while this is held.
        let fleet = self.fleet();
        let mut channels = self.lock_channels(now);
        if channels.len() >= CHANNELS_LIMIT && !channels.contains_key(interest) {
            // Who reads goes before who may come back.
            channels.retain(|_, channel| channel.is_read());
            if channels.len() >= CHANNELS_LIMIT {
                return None;
            }
        }
        let channel = channels.entry(interest.clone()).or_insert_with(|| Channel::new(now));
        let messages = channel.read(now);
        let missed = resume.and_then(|(epoch, seq)| channel.after(epoch, seq));
        let (first, is_resumed) = match missed {
            Some(missed) => (missed, true),
            None => (vec![channel.start(now, |epoch, seq| self.write_snapshot(&fleet, interest, (epoch, seq), now))], false),
        };
        Some(Subscription { first, messages, is_resumed })
    }

    /// Tells all readers how watched devices of a branch have answered. It has no number: whoever misses it gets the next
    /// in seconds.
    pub fn watched(&self, branch: usize, watched: &[Watched], now: Millis) {
        let fleet = self.fleet();
        let known = watched.iter().filter(|watched| fleet.device_of(&watched.device, branch).is_some());
        let devices: Vec<_> = known.map(watched_json).collect();
        if devices.is_empty() {
            return;
        }
        for (_, channel) in self.lock_channels(now).iter().filter(|(interest, _)| interest.takes(&fleet.branches[branch])) {
            let message = json!({ "type": "watched", "epoch": channel.epoch, "now": now.0, "devices": devices });
            channel.mention(message.to_string().into());
        }
    }

    /// A sign of life with the number of the last message.
    pub fn heartbeat(&self, interest: &Interest, now: Millis) -> String {
        let channels = self.lock_channels(now);
        let (epoch, seq) = channels.get(interest).map_or(("", 0), |channel| (channel.epoch.as_str(), channel.seq));
        json!({"type": "heartbeat", "epoch": epoch, "seq": seq, "now": now.0}).to_string()
    }

    fn write_snapshot(&self, fleet: &Fleet, interest: &Interest, (epoch, seq): (&str, u64), now: Millis) -> String {
        let head = json!({
            "type": "snapshot", "epoch": epoch, "seq": seq, "now": now.0, "version": crate::VERSION,
            "demo": self.notes.demo, "simulated": self.notes.simulated, "notes": self.notes.notes,
        });
        let branches = (0..fleet.branches.len()).filter(|at| interest.takes(&fleet.branches[*at]));
        let devices = (0..fleet.devices.len()).filter(|at| interest.takes(&fleet.branches[fleet.devices[*at].branch]));
        let mut text = open(&head);
        write_branches(&mut text, fleet, branches);
        write_devices(&mut text, fleet, devices.map(|at| (at, Fields::ALL)));
        close(text)
    }

    /// The lines that anybody reads or may come back to.
    fn lock_channels(&self, now: Millis) -> MutexGuard<'_, HashMap<Interest, Channel>> {
        let mut channels = self.channels.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        channels.retain(|_, channel| channel.is_wanted(now));
        channels
    }
}

/// A reader's end of the feed.
pub struct Subscription {
    /// What to send first.
    pub first: Vec<Utf8Bytes>,
    /// What comes then.
    pub messages: broadcast::Receiver<Utf8Bytes>,
    /// The reader goes on where it was; else it begins with a snapshot.
    pub is_resumed: bool,
}

/// A message that goes on after what it begins with. Its lists are written one by one: 70,000 devices as one tree of JSON
/// would take 350 MB for a moment.
fn open(head: &Value) -> Vec<u8> {
    let mut text = head.to_string().into_bytes();
    text.pop();
    text
}

fn write_branches(text: &mut Vec<u8>, fleet: &Fleet, branches: impl Iterator<Item = usize>) {
    text.extend_from_slice(b",\"branches\":[");
    append(text, branches, |text, at| text.extend_from_slice(branch_json(fleet, at).to_string().as_bytes()));
    text.push(b']');
}

/// Writes devices, of each the given fields.
fn write_devices(text: &mut Vec<u8>, fleet: &Fleet, devices: impl Iterator<Item = (usize, Fields)>) {
    text.extend_from_slice(b",\"devices\":[");
    append(text, devices, |text, (at, fields)| write_device(text, fleet, at, fields));
    text.push(b']');
}

fn close(mut text: Vec<u8>) -> String {
    text.push(b'}');
    String::from_utf8(text).unwrap_or_default()
}

/// Writes items with commas between them.
pub fn append<T>(text: &mut Vec<u8>, items: impl Iterator<Item = T>, mut write: impl FnMut(&mut Vec<u8>, T)) {
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
        let all = Interest::default();
        let Subscription { first, messages: mut one, .. } = live.subscribe(&all, None, NOW).expect("there is room");
        let Subscription { messages: mut other, .. } = live.subscribe(&all, None, NOW).expect("there is room");
        let snapshot: Value = serde_json::from_str(&first[0]).expect("JSON");
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
        assert_eq!((live.shown.number(), live.heard.number()), (1, 3), "what is heard is not shown yet");
        assert_eq!(told.as_str().as_ptr(), same.as_str().as_ptr());
        let told: Value = serde_json::from_str(&told).expect("JSON");
        assert_eq!((told["type"].as_str(), told["seq"].as_u64()), (Some("delta"), Some(1)));
        assert_eq!((ids(&told["devices"]).join(" "), &told["branches"]), ("a c".to_owned(), &Value::Null));
        assert_eq!(
            told["devices"][0],
            json!({"id": "a", "rtt_ms": 0.001, "packet_loss": 0.0}),
            "what is as before isn't told again"
        );
        live.change(NOW, |_| {});
        assert!(one.try_recv().is_err(), "nothing has changed");
    }

    #[test]
    fn whoever_comes_at_the_same_time_shares_a_snapshot_and_misses_nothing() {
        let live = Live::new(estate(), Notes::default());
        let all = Interest::default();
        let come = |now: Millis| live.subscribe(&all, None, now).expect("there is room");
        let at = |ms: i64| NOW.plus(ms);
        let (first, second) = (come(NOW), come(at(500)));
        assert_eq!(first.first[0].as_ptr(), second.first[0].as_ptr(), "it is made once");
        live.change(at(600), |fleet| fleet.measure(0, crate::fleet::Quality { at: NOW, rtt_us: Some(1), loss: 0.0 }));
        let third = come(at(700));
        assert!(third.first.len() == 1 && third.first[0].contains("\"seq\":1"), "it has what was told since");
        assert!(third.first[0].contains("\"rtt_ms\":0.001"));
        let late = come(at(2_000));
        assert_ne!(third.first[0].as_ptr(), late.first[0].as_ptr(), "an old one is made anew: it says when it was made");
        // After an import there are other devices.
        live.replace(at(2_001), |_| {});
        let after = come(at(2_002));
        assert!(after.first[0].contains("\"seq\":2"));
    }

    #[test]
    fn who_may_come_back_makes_room_for_who_reads() {
        let live = Live::new(estate(), Notes::default());
        let of = |at: usize| Interest { branch: Some(format!("b{at}").parse().expect("an id")), ..Interest::default() };
        let mut readers: Vec<_> =
            (0..CHANNELS_LIMIT).map(|at| live.subscribe(&of(at), None, NOW).expect("there is room")).collect();
        assert!(live.subscribe(&of(CHANNELS_LIMIT), None, NOW).is_none(), "all of them are read");
        readers.truncate(CHANNELS_LIMIT / 2);
        assert!(live.subscribe(&of(CHANNELS_LIMIT), None, NOW).is_some());
        assert!(live.subscribe(&of(0), None, NOW).is_some());
    }

    #[test]
    fn a_reader_sees_only_its_own_and_its_numbers_have_no_holes() {
        let live = Live::new(estate(), Notes::default());
        let of = |branch: &str| Interest { branch: Some(branch.parse().expect("an id")), ..Interest::default() };
        let (vake, gldani) = (of("vake"), of("gldani"));
        let Subscription { first, mut messages, is_resumed } = live.subscribe(&gldani, None, NOW).expect("there is room");
        let snapshot: Value = serde_json::from_str(&first[0]).expect("JSON");
        assert_eq!(
            (snapshot["devices"].as_array().map(Vec::len), snapshot["seq"].as_u64(), is_resumed),
            (Some(1), Some(0), false)
        );
        let measure = |device: usize, n: u32| {
            live.change(NOW, |fleet| {
                fleet.measure(device, crate::fleet::Quality { at: NOW.plus(i64::from(n)), rtt_us: Some(n), loss: 0.0 });
            });
        };
        measure(0, 1);
        measure(2, 2);
        measure(1, 3);
        let told: Value = serde_json::from_str(&messages.try_recv().expect("a message")).expect("JSON");
        assert_eq!((told["seq"].as_u64(), told["devices"][0]["id"].as_str()), (Some(1), Some("c")));
        assert!(messages.try_recv().is_err(), "the others are none of its business");
        // It comes back.
        let epoch = told["epoch"].as_str().expect("an epoch").to_owned();
        drop(messages);
        measure(2, 4);
        let back = live.subscribe(&gldani, Some((&epoch, 1)), NOW).expect("there is room");
        assert!(back.is_resumed && back.first.len() == 1 && back.first[0].contains("\"seq\":2"), "{:?}", back.first);
        // Numbers of one line say nothing of another.
        assert!(!live.subscribe(&vake, Some((&epoch, 1)), NOW).expect("there is room").is_resumed);
    }

    #[test]
    fn there_are_only_so_many_kinds_of_readers() {
        let live = Live::new(estate(), Notes::default());
        let of = |n: usize| Interest { branch: format!("b{n}").parse().ok(), ..Interest::default() };
        let readers: Vec<_> = (0..CHANNELS_LIMIT).map(|n| live.subscribe(&of(n), None, NOW).expect("there is room")).collect();
        assert!(live.subscribe(&of(CHANNELS_LIMIT), None, NOW).is_none());
        assert!(live.subscribe(&of(0), None, NOW).is_some());
        drop(readers);
        assert!(live.subscribe(&of(CHANNELS_LIMIT), None, NOW.plus(3_600_000)).is_some());
    }
}

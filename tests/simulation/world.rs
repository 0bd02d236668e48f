//! Branches, a collector, and the network between them, step by step.

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use shared::message::PresenceState;
use shared::wire::{decode, encode};
use shared::{Ack, Lane, Presence, StreamId};
use ward_collector::ingest::Command;

use crate::branch::Branch;
use crate::collector::{Collector, TABLES};
use crate::disk::Fault;
use crate::oracle;
use crate::weather::Weather;

/// 2026-11-23T14:00:00Z: when every simulation begins.
const BEGIN: i64 = 1_795_442_400_000;
/// How long faults go on, in ms.
const FAULTS_MS: i64 = 300_000;
/// How long everything is well afterwards, in ms.
const CALM_MS: i64 = 180_000;
/// One step of virtual time in ms.
pub(crate) const STEP_MS: i64 = 100;
const BRANCHES: usize = 3;
const DEVICES: usize = 4;
const HEARTBEAT_MS: i64 = 20_000;
/// Longest time until a broker notices that a connection is gone, in ms.
const KEEP_ALIVE_MS: i64 = 90_000;
/// Latest arrival of a message's duplicate, in ms.
const DUPLICATE_MS: i64 = 20_000;

/// A payload on its way.
struct Flight {
    arrives: i64,
    branch: usize,
    content: Content,
}

#[derive(Clone)]
enum Content {
    Up(Lane, Vec<u8>),
    Ack(Vec<u8>),
}

/// The connection of a branch's agent to the broker.
#[derive(Default)]
struct Link {
    is_up: bool,
    /// When that began.
    since: i64,
    heartbeat_at: i64,
    /// When the broker will notice that a connection is gone, and whose it was.
    will: Option<(i64, StreamId)>,
    /// What the broker retains of its presence.
    retained: Option<Vec<u8>>,
}

/// Everything.
pub(crate) struct World {
    rng: SmallRng,
    pub(crate) now: i64,
    pub(crate) branches: Vec<Branch>,
    links: Vec<Link>,
    flights: Vec<Flight>,
    pub(crate) collector: Collector,
    weather: Weather,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut csv = "device_id,device_name,branch,branch_name,region,region_name,device_type,ip\n".to_owned();
        for b in 0..BRANCHES {
            for d in 0..DEVICES {
                csv += &format!("b{b}-d{d},D,b{b},B,r,R,atm,10.0.{b}.{d}\n");
            }
        }
        let weather = Weather::draw(BRANCHES, &mut rng);
        let branches = (0..BRANCHES).map(|b| Branch::new(b, DEVICES, BEGIN, &weather, &mut rng)).collect();
        let links = (0..BRANCHES).map(|_| Link { since: BEGIN, ..Link::default() }).collect();
        Self { rng, now: BEGIN, branches, links, flights: Vec::new(), collector: Collector::new(&csv, BEGIN), weather }
    }

    fn is_calm(&self) -> bool {
        self.now > BEGIN + FAULTS_MS
    }

    /// Whether something happens in this step that has a chance of `p`.
    fn by_chance(&mut self, p: f64) -> bool {
        self.rng.random_bool(p)
    }

    fn step(&mut self) {
        self.now += STEP_MS;
        if !self.is_calm() {
            self.misfortune();
        }
        for b in 0..BRANCHES {
            if !self.is_calm() && self.by_chance(self.weather.flip) {
                let device = self.rng.random_range(0..DEVICES);
                self.branches[b].flip(device, self.now);
            }
            self.branches[b].disk.step();
            self.branches[b].observe(self.now);
            self.talk(b);
        }
        if self.deliver() {
            for (b, link) in self.links.iter().enumerate() {
                let cut_ms = if link.is_up { 0 } else { self.now - link.since };
                oracle::check_shown(&self.collector, &self.branches[b], cut_ms, self.now);
            }
        }
    }

    fn misfortune(&mut self) {
        let Weather { disk, rot, collector, ledger, clock, clock_step_ms, .. } = self.weather;
        for b in 0..BRANCHES {
            let (cut, heal) = self.weather.lines[b].cut;
            let up = self.links[b].is_up;
            if self.by_chance(if up { cut } else { heal }) {
                self.set_link(b, !up);
            }
            self.end_or_begin_an_agent(b);
            let bad = Fault::BAD[self.rng.random_range(0..Fault::BAD.len())];
            if self.by_chance(if self.branches[b].disk.fault() == Fault::None { disk.0 } else { disk.1 }) {
                let is_good = self.branches[b].disk.fault() == Fault::None;
                self.branches[b].disk.set_fault(if is_good { bad } else { Fault::None });
            }
            if self.by_chance(rot) {
                self.branches[b].disk.rot();
            }
        }
        if self.by_chance(if self.collector.is_running() { collector.0 } else { collector.1 }) {
            if self.collector.is_running() { self.collector.kill() } else { self.start_collector() }
        }
        if self.by_chance(if self.collector.refuses() { ledger.1 } else { ledger.0 }) {
            if self.collector.refuses() {
                self.collector.accept();
            } else {
                self.collector.refuse(TABLES[self.rng.random_range(0..TABLES.len())]);
            }
        }
        if self.by_chance(clock) {
            self.collector.set_clock(self.rng.random_range(-clock_step_ms..=clock_step_ms));
        }
    }

    fn end_or_begin_an_agent(&mut self, b: usize) {
        let Some(outbox) = &self.branches[b].outbox else {
            if self.by_chance(self.weather.power) {
                self.branches[b].power_on(self.now, &mut self.rng);
            }
            return;
        };
        let stream = outbox.buffer.run().stream;
        if !self.by_chance(self.weather.kill) {
            return;
        }
        let was_up = self.links[b].is_up;
        self.set_link(b, false);
        match self.rng.random_range(0..3) {
            0 => self.branches[b].kill(true),
            1 => {
                // Only the process died: systemd starts it again on the same boot.
                self.branches[b].kill(false);
                self.branches[b].start_agent(self.now, &mut self.rng);
            }
            _ => {
                if was_up {
                    self.links[b].will = None;
                    self.publish_presence(b, stream, PresenceState::Stopped);
                }
                self.branches[b].stop(self.now);
                self.branches[b].start_agent(self.now, &mut self.rng);
            }
        }
    }

    fn start_collector(&mut self) {
        self.collector.start(self.now);
        for b in 0..BRANCHES {
            if let Some(bytes) = self.links[b].retained.clone() {
                self.flights.push(Flight { arrives: self.now, branch: b, content: Content::Up(Lane::Presence, bytes) });
            }
        }
    }

    fn set_link(&mut self, b: usize, is_up: bool) {
        let now = self.now;
        // A connection is a process's own.
        if self.links[b].is_up == is_up || is_up && self.branches[b].outbox.is_none() {
            return;
        }
        // What the broker has may still reach the collector.
        let rng = &mut self.rng;
        self.flights.retain(|flight| flight.branch != b || matches!(flight.content, Content::Up(..)) && rng.random());
        (self.links[b].is_up, self.links[b].since, self.links[b].heartbeat_at) = (is_up, now, now);
        let at = self.branches[b].uptime(now);
        let Some(outbox) = &mut self.branches[b].outbox else { return };
        let stream = outbox.buffer.run().stream;
        if is_up {
            outbox.connected(at);
            // A client that comes again takes the place of the one before.
            if let Some((_, gone)) = self.links[b].will.take() {
                self.publish_presence(b, gone, PresenceState::Lost);
            }
            self.publish_presence(b, stream, PresenceState::Online);
        } else {
            outbox.disconnected();
            self.links[b].will = Some((now + self.rng.random_range(0..KEEP_ALIVE_MS), stream));
        }
    }

    /// The broker tells of a connection, and whoever subscribes later.
    fn publish_presence(&mut self, b: usize, stream: StreamId, state: PresenceState) {
        let bytes = encode(&Presence { stream, state }).expect("within the limit");
        self.links[b].retained = Some(bytes.clone());
        self.flights.push(Flight { arrives: self.now, branch: b, content: Content::Up(Lane::Presence, bytes) });
    }

    fn talk(&mut self, b: usize) {
        if let Some((_, stream)) = self.links[b].will.filter(|(at, _)| *at <= self.now) {
            self.links[b].will = None;
            self.publish_presence(b, stream, PresenceState::Lost);
        }
        if self.is_calm() {
            self.set_link(b, true);
        }
        if !self.links[b].is_up {
            return;
        }
        let at = self.branches[b].uptime(self.now);
        let is_due = self.now >= self.links[b].heartbeat_at;
        let mut out = Vec::new();
        if self.branches[b].has_live_news() || is_due {
            let word = self.branches[b].word();
            let Some(outbox) = &self.branches[b].outbox else { return };
            let heartbeat = outbox.heartbeat(&word, at);
            self.links[b].heartbeat_at = self.now + if heartbeat.dating.is_some() { HEARTBEAT_MS } else { 1_000 };
            out.push((Lane::Live, encode(&heartbeat).expect("within the limit")));
        }
        let Some(outbox) = &mut self.branches[b].outbox else { return };
        while let Some((batch, end)) = outbox.next(at) {
            out.push((Lane::Up, encode(&batch).expect("within the limit")));
            outbox.sent(end, at);
        }
        for (lane, bytes) in out {
            self.send(b, Content::Up(lane, bytes));
        }
    }

    fn send(&mut self, branch: usize, content: Content) {
        let (loss, duplication, delay_ms) =
            (self.weather.lines[branch].loss, self.weather.lines[branch].duplication, self.weather.lines[branch].delay_ms);
        if self.is_calm() {
            self.flights.push(Flight { arrives: self.now + delay_ms, branch, content });
            return;
        }
        if self.by_chance(loss) {
            return;
        }
        let arrives = self.now + self.rng.random_range(1..=delay_ms);
        if self.by_chance(duplication) {
            let later = arrives + self.rng.random_range(1..DUPLICATE_MS);
            self.flights.push(Flight { arrives: later, branch, content: content.clone() });
        }
        self.flights.push(Flight { arrives, branch, content });
    }

    /// Lets arrive what is due, and time pass at the collector; whether anything can look different there.
    fn deliver(&mut self) -> bool {
        let (mut due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.flights).into_iter().partition(|f| f.arrives <= self.now);
        self.flights = later;
        due.sort_by_key(|flight| flight.arrives);
        let mut commands = Vec::new();
        for flight in due {
            let branch = &mut self.branches[flight.branch];
            match flight.content {
                Content::Up(lane, bytes) => {
                    commands.push(Command::Payload { topic: lane.topic(&branch.id), bytes: Bytes::from(bytes) });
                }
                Content::Ack(bytes) => {
                    let at = branch.uptime(self.now);
                    if let Some(outbox) = &mut branch.outbox {
                        outbox.acked(&decode::<Ack>(&bytes).expect("as it was sent"), at);
                    }
                }
            }
        }
        if self.now % 1_000 == 0 {
            commands.push(Command::Tick(Collector::uptime(self.now)));
        }
        if commands.is_empty() {
            return false;
        }
        // Without a collector nobody takes them.
        for (id, ack) in self.collector.handle(commands, self.now) {
            let branch = self.branches.iter().position(|b| b.id == id).expect("it has sent something");
            if self.links[branch].is_up {
                self.send(branch, Content::Ack(encode(&ack).expect("within the limit")));
            }
        }
        true
    }

    /// Everything is well from now on.
    fn calm_down(&mut self) {
        self.collector.accept();
        if !self.collector.is_running() {
            self.start_collector();
        }
        for b in 0..BRANCHES {
            self.branches[b].disk.set_fault(Fault::None);
            if self.branches[b].outbox.is_none() {
                self.branches[b].power_on(self.now, &mut self.rng);
            }
        }
    }
}

/// Lives through one world and holds its ledgers against one another.
pub(crate) fn run(seed: u64) {
    let mut world = World::new(seed);
    while world.now < BEGIN + FAULTS_MS {
        world.step();
    }
    world.calm_down();
    while world.now < BEGIN + FAULTS_MS + CALM_MS {
        world.step();
    }
    let store = world.collector.store();
    for branch in &world.branches {
        oracle::check_ledger(&store, branch, world.collector.skews(), world.now);
        oracle::check_settled(&world.collector, branch);
    }
}

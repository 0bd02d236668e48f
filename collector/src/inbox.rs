//! What waits for the ledger's thread, and in which order it comes to it: orders first, then the newest heartbeat of each
//! branch, then the rest, a few payloads of each branch in turns.
//!
//! So a branch with days of backlog takes no more of the ledger's time than one with a single fresh outage, and no
//! heartbeat waits behind batches. A heartbeat may overtake what its agent has sent before: it vouches for the stream up
//! to the number that it names, and says nothing where the ledger hasn't come so far. What a branch sends otherwise keeps
//! its order. Memory is bounded in bytes: at the limit the sender waits, and with it the broker and the agents.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use bytes::Bytes;
use shared::wire::{decode, encode};
use shared::{Heartbeat, Lane};
use tokio::sync::Semaphore;

use crate::ingest::Command;
use crate::metrics::Metrics;

/// Most bytes of batches that wait.
const LIMIT_BYTES: usize = 64 * 1024 * 1024;
/// Most bytes of heartbeats that wait, one a branch. What comes beyond is lost, as a heartbeat may be.
const HEARTBEATS_LIMIT_BYTES: usize = 16 * 1024 * 1024;
/// Most bytes that wait of one branch.
const SHARE_LIMIT_BYTES: usize = 4 * 1024 * 1024;
/// Most batches that wait of one branch: twice the 32 kB chunks of an agent's widest window. What it sends again because no
/// ack has come yet must not fill the room of others.
const SHARE_LIMIT: usize = 16;
/// Most orders that wait.
const ORDERS_LIMIT: usize = 4_096;
/// Most payloads that are handled together.
const GROUP_LIMIT: usize = 1_024;
/// Most bytes that are handled together, in less than a second: heartbeats wait no longer.
const GROUP_LIMIT_BYTES: usize = 1024 * 1024;
/// Most bytes and payloads of one turn. What a branch tells together is written to the same pages of the file, so many
/// small payloads in one commit cost little more than one; a large one is a turn by itself.
const TURN_LIMIT_BYTES: usize = 8 * 1024;
const TURN_LIMIT: usize = 16;
/// What a waiting payload takes beside its bytes, about.
const OVERHEAD_BYTES: usize = 128;

/// The ledger's thread has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ledger's thread has gone")]
pub struct Gone;

/// Hands commands over. When the last clone is dropped, the thread takes what waits and ends.
#[derive(Clone)]
pub struct Sender(Arc<Held>);

struct Held(Arc<Shared>);

/// The thread's end.
pub struct Inbox(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
    /// A permit for each byte of batches that may still come.
    room: Semaphore,
    /// A permit for each order that may still come.
    orders: Semaphore,
    metrics: Arc<Metrics>,
}

struct Payload {
    topic: String,
    is_batch: bool,
    arrived: Instant,
    bytes: Bytes,
}

impl Payload {
    fn cost(&self) -> usize {
        self.bytes.len() + self.topic.len() + OVERHEAD_BYTES
    }
}

#[derive(Default)]
struct Share {
    payloads: VecDeque<Payload>,
    bytes: usize,
    batches: usize,
}

/// What waits of a branch's heartbeats, the older first.
#[derive(Default)]
struct Heartbeats {
    /// The newest with states, and with those that an earlier one has told and it doesn't: each tells what has changed.
    states: Option<Payload>,
    /// The newest without any. Either has the health that an earlier one has told and it doesn't.
    plain: Option<Payload>,
}

impl Heartbeats {
    fn put(&mut self, payload: Payload) {
        let has_states = decode::<Heartbeat>(&payload.bytes).is_ok_and(|heartbeat| !heartbeat.states.is_empty());
        let after =
            |before: Option<Payload>, payload: Payload| before.and_then(|before| joined(&before, &payload)).unwrap_or(payload);
        let payload = after(self.plain.take(), payload);
        if has_states {
            self.states = Some(after(self.states.take(), payload));
        } else {
            self.plain = Some(payload);
        }
    }

    fn cost(&self) -> usize {
        self.states.iter().chain(&self.plain).map(Payload::cost).sum()
    }
}

/// A heartbeat with the states and the health that one before it has told and it doesn't, if both are of one run.
fn joined(before: &Payload, newer: &Payload) -> Option<Payload> {
    let (before, mut heartbeat) = (decode::<Heartbeat>(&before.bytes).ok()?, decode::<Heartbeat>(&newer.bytes).ok()?);
    if before.stream != heartbeat.stream {
        return None;
    }
    let told: HashSet<_> = heartbeat.states.iter().map(|live| live.device.clone()).collect();
    heartbeat.states.extend(before.states.into_iter().filter(|live| !told.contains(&live.device)));
    heartbeat.health = heartbeat.health.or(before.health);
    let arrived = newer.arrived;
    Some(Payload { topic: newer.topic.clone(), is_batch: false, arrived, bytes: encode(&heartbeat).ok()?.into() })
}

#[derive(Default)]
struct State {
    orders: VecDeque<Command>,
    /// What waits of each branch's heartbeats, and the branches in the order in which they are due.
    heartbeats: HashMap<String, Heartbeats>,
    heartbeat_turns: VecDeque<String>,
    heartbeat_bytes: usize,
    /// The rest by branch, and whose turn it is.
    shares: HashMap<String, Share>,
    turns: VecDeque<String>,
    /// When the oldest of the batches came that were taken last.
    oldest_taken: Option<Instant>,
    is_over: bool,
}

/// Both ends.
pub fn inbox(metrics: Arc<Metrics>) -> (Sender, Inbox) {
    let shared = Arc::new(Shared {
        state: Mutex::default(),
        arrived: Condvar::new(),
        room: Semaphore::new(LIMIT_BYTES),
        orders: Semaphore::new(ORDERS_LIMIT),
        metrics,
    });
    (Sender(Arc::new(Held(Arc::clone(&shared)))), Inbox(shared))
}

impl Sender {
    /// Hands a command over, once there is room for it. A payload of a branch that has its whole share waiting is
    /// dropped: its agent sends again what isn't acknowledged, and others must not wait for it.
    ///
    /// # Errors
    /// When nobody takes it any more.
    pub async fn send(&self, command: Command) -> Result<(), Gone> {
        let shared = &self.0.0;
        let Command::Payload { topic, bytes } = command else {
            shared.orders.acquire().await.map_err(|_| Gone)?.forget();
            shared.lock().orders.push_back(command);
            shared.arrived.notify_one();
            return Ok(());
        };
        let (branch, lane) = topic.rsplit_once('/').map_or(("", ""), |(branch, lane)| (branch, lane));
        let (is_heartbeat, is_batch) = (lane == Lane::Live.as_str(), lane == Lane::Up.as_str());
        let branch = branch.to_owned();
        // What the broker's connection has read is one block of memory: a piece of it would keep all of it.
        let payload = Payload { topic, is_batch, arrived: Instant::now(), bytes: Bytes::copy_from_slice(&bytes) };
        drop(bytes);
        if is_heartbeat {
            let is_kept = shared.lock().put_heartbeat(branch, payload);
            return shared.told(is_kept);
        }
        let cost = payload.cost();
        if !shared.lock().has_room(&branch, &payload) {
            return shared.told(false);
        }
        // Larger than all there is: the wire's limits don't let it through.
        let permits = u32::try_from(cost.min(LIMIT_BYTES)).unwrap_or(u32::MAX);
        shared.room.acquire_many(permits).await.map_err(|_| Gone)?.forget();
        shared.lock().put(branch, payload);
        shared.told(true)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.arrived.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn told(&self, is_kept: bool) -> Result<(), Gone> {
        if is_kept {
            self.arrived.notify_one();
        } else {
            self.metrics.add("ward_payloads_refused_total", "reason=\"over_share\"", 1);
        }
        if self.room.is_closed() { Err(Gone) } else { Ok(()) }
    }
}

impl Inbox {
    /// What is to be handled next, together; waits for it. `None` when nobody sends any more and all is taken.
    pub fn take(&mut self) -> Option<Vec<Command>> {
        let mut state = self.0.lock();
        while state.is_empty() {
            if state.is_over {
                return None;
            }
            state = self.0.arrived.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        let orders = state.orders.len();
        state.oldest_taken = None;
        let mut group: Vec<Command> = state.orders.drain(..).collect();
        state.take_heartbeats(&mut group);
        let bytes = state.take_turns(&mut group);
        drop(state);
        self.0.orders.add_permits(orders);
        self.0.room.add_permits(bytes);
        Some(group)
    }

    /// When the oldest of the batches came that were taken last; `None` if there was none.
    pub fn oldest_taken(&self) -> Option<Instant> {
        self.0.lock().oldest_taken
    }

    /// Bytes of batches that wait.
    pub fn waiting_bytes(&self) -> usize {
        LIMIT_BYTES.saturating_sub(self.0.room.available_permits())
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.0.orders.close();
        self.0.room.close();
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.orders.is_empty() && self.heartbeat_turns.is_empty() && self.turns.is_empty()
    }

    /// Puts a heartbeat in the place of the one before, as far as it says the same; `false` when there is no room.
    fn put_heartbeat(&mut self, branch: String, payload: Payload) -> bool {
        if self.heartbeat_bytes + payload.cost() > HEARTBEATS_LIMIT_BYTES {
            return false;
        }
        if !self.heartbeats.contains_key(&branch) {
            self.heartbeat_turns.push_back(branch.clone());
        }
        let held = self.heartbeats.entry(branch).or_default();
        self.heartbeat_bytes -= held.cost();
        held.put(payload);
        self.heartbeat_bytes += held.cost();
        true
    }

    fn has_room(&self, branch: &str, payload: &Payload) -> bool {
        let Some(share) = self.shares.get(branch) else { return true };
        // A word about the connection is not said again.
        let is_one_too_many = payload.is_batch && share.batches >= SHARE_LIMIT;
        !is_one_too_many && share.bytes + payload.cost() <= SHARE_LIMIT_BYTES
    }

    fn put(&mut self, branch: String, payload: Payload) {
        let cost = payload.cost();
        let share = self.shares.entry(branch.clone()).or_insert_with(|| {
            self.turns.push_back(branch);
            Share::default()
        });
        share.bytes += cost;
        share.batches += usize::from(payload.is_batch);
        share.payloads.push_back(payload);
    }

    fn take_heartbeats(&mut self, group: &mut Vec<Command>) {
        while group.len() < GROUP_LIMIT
            && let Some(branch) = self.heartbeat_turns.pop_front()
        {
            let Some(held) = self.heartbeats.remove(&branch) else { continue };
            self.heartbeat_bytes -= held.cost();
            group.extend(held.states.into_iter().chain(held.plain).map(Command::from));
        }
    }

    /// Takes some payloads of each branch in turns; how many bytes.
    fn take_turns(&mut self, group: &mut Vec<Command>) -> usize {
        let mut bytes = 0;
        while group.len() < GROUP_LIMIT
            && bytes < GROUP_LIMIT_BYTES
            && let Some(branch) = self.turns.pop_front()
        {
            let Some(share) = self.shares.get_mut(&branch) else { continue };
            let (mut turn, mut turn_bytes) = (0, 0);
            while turn < TURN_LIMIT
                && turn_bytes < TURN_LIMIT_BYTES
                && let Some(payload) = share.payloads.pop_front()
            {
                turn += 1;
                turn_bytes += payload.cost();
                share.batches -= usize::from(payload.is_batch);
                if payload.is_batch {
                    self.oldest_taken = Some(self.oldest_taken.map_or(payload.arrived, |oldest| oldest.min(payload.arrived)));
                }
                group.push(payload.into());
            }
            share.bytes -= turn_bytes;
            bytes += turn_bytes;
            if share.payloads.is_empty() {
                self.shares.remove(&branch);
            } else {
                self.turns.push_back(branch);
            }
        }
        bytes
    }
}

impl From<Payload> for Command {
    fn from(Payload { topic, bytes, .. }: Payload) -> Self {
        Self::Payload { topic, bytes }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::message::{Health, Live};
    use shared::{Status, StreamId, Uptime};

    use super::*;

    fn payload(branch: &str, lane: &str, content: &str) -> Command {
        Command::Payload { topic: format!("ward/1/{branch}/{lane}"), bytes: content.to_owned().into() }
    }

    fn large(branch: &str, bytes: usize) -> Command {
        Command::Payload { topic: format!("ward/1/{branch}/up"), bytes: vec![0; bytes].into() }
    }

    /// A group as `branch:content`, orders as `!`.
    fn text(group: &[Command]) -> String {
        let word = |command: &Command| match command {
            Command::Payload { topic, bytes } => {
                format!("{}:{}", topic.split('/').nth(2).unwrap_or("?"), String::from_utf8_lossy(bytes))
            }
            Command::Tick(_)
            | Command::Synchronised
            | Command::Republish
            | Command::Reload
            | Command::Revoked(_)
            | Command::Sent(..)
            | Command::Edit(..) => "!".to_owned(),
        };
        group.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    /// Hands payloads such as `vake/up/1` over.
    async fn fill(sender: &Sender, words: &str) {
        for word in words.split_whitespace() {
            let command = match word.split('/').collect::<Vec<_>>()[..] {
                [branch, lane, content] => payload(branch, lane, content),
                _ => Command::Tick(Uptime(0)),
            };
            sender.send(command).await.expect("somebody takes it");
        }
    }

    async fn check(words: &str, expected: &str) {
        let (sender, mut inbox) = inbox(Arc::default());
        fill(&sender, words).await;
        assert_eq!(text(&inbox.take().expect("something waits")), expected, "{words}");
        assert_eq!(inbox.waiting_bytes(), 0);
    }

    #[tokio::test]
    async fn branches_come_in_turns_and_each_in_its_own_order() {
        check("a/up/1 b/up/4 a/up/2 c/up/5 a/presence/3 b/up/6", "a:1 a:2 a:3 b:4 b:6 c:5").await;
        let (sender, mut inbox) = inbox(Arc::default());
        for branch in ["a", "a", "b", "a", "c", "b"] {
            sender.send(large(branch, TURN_LIMIT_BYTES)).await.expect("somebody takes it");
        }
        let group = inbox.take().expect("something waits");
        let turns: Vec<String> = group.iter().map(|command| text(std::slice::from_ref(command))[..1].to_owned()).collect();
        assert_eq!(turns.join(""), "abcaba");
    }

    #[tokio::test]
    async fn a_heartbeat_waits_for_no_batch_and_only_the_newest_of_a_branch_counts() {
        check("a/up/1 b/up/2 a/live/3 c/live/4 a/live/5 ! b/up/6", "! a:5 c:4 a:1 b:2 b:6").await;
    }

    #[tokio::test]
    async fn what_a_heartbeat_told_of_one_device_outlives_the_next_that_tells_of_another() {
        let heartbeat = |sent: u64, states: &[(&str, Status)]| {
            let live = |(device, status): &(&str, Status)| Live::of(device.parse().expect("an id"), *status, Uptime(sent));
            let heartbeat = Heartbeat {
                stream: StreamId(1),
                sent: Uptime(sent),
                dating: None,
                last: 9,
                observed_through: Uptime(sent),
                health: None,
                states: states.iter().map(live).collect(),
            };
            Command::Payload { topic: "ward/1/vake/live".to_owned(), bytes: encode(&heartbeat).expect("small").into() }
        };
        let (sender, mut inbox) = inbox(Arc::default());
        for (sent, states) in [
            (1, &[("a", Status::Up), ("b", Status::Up), ("c", Status::Up)][..]),
            (2, &[]),
            (3, &[("b", Status::Down)]),
            (4, &[("a", Status::Down)]),
            (5, &[]),
            (6, &[]),
        ] {
            sender.send(heartbeat(sent, states)).await.expect("somebody takes it");
        }
        let told: Vec<(u64, Vec<String>)> = inbox
            .take()
            .expect("something waits")
            .into_iter()
            .filter_map(
                |command| if let Command::Payload { bytes, .. } = command { decode::<Heartbeat>(&bytes).ok() } else { None },
            )
            .map(|heartbeat| {
                let mut states: Vec<String> =
                    heartbeat.states.iter().map(|live| format!("{} {}", live.device, live.status)).collect();
                states.sort();
                (heartbeat.sent.0, states)
            })
            .collect();
        assert_eq!(told, [(4, vec!["a down".to_owned(), "b down".to_owned(), "c up".to_owned()]), (6, Vec::new())]);
        assert_eq!(inbox.0.lock().heartbeat_bytes, 0);
    }

    #[tokio::test]
    async fn what_a_heartbeat_told_of_its_agents_health_outlives_the_next_that_says_nothing_of_it() {
        let heartbeat = |sent: u64, is_volatile: Option<bool>, states: Vec<Live>| {
            let health = is_volatile.map(|buffer_volatile| Health { buffer_volatile, ..Health::default() });
            let (stream, sent, last, observed_through) = (StreamId(1), Uptime(sent), 9, Uptime(sent));
            let heartbeat = Heartbeat { stream, sent, dating: None, last, observed_through, health, states };
            Command::Payload { topic: "ward/1/vake/live".to_owned(), bytes: encode(&heartbeat).expect("small").into() }
        };
        let live = || vec![Live::of("a".parse().expect("an id"), Status::Up, Uptime(1))];
        for (told, expected) in [
            (vec![heartbeat(1, Some(true), vec![]), heartbeat(2, None, vec![])], vec![(2, Some(true))]),
            (vec![heartbeat(1, Some(true), vec![]), heartbeat(2, Some(false), vec![])], vec![(2, Some(false))]),
            (vec![heartbeat(1, Some(true), vec![]), heartbeat(2, None, live())], vec![(2, Some(true))]),
            (vec![heartbeat(1, Some(true), live()), heartbeat(2, None, vec![])], vec![(1, Some(true)), (2, None)]),
        ] {
            let (sender, mut inbox) = inbox(Arc::default());
            for command in told {
                sender.send(command).await.expect("somebody takes it");
            }
            let heard: Vec<(u64, Option<bool>)> = inbox
                .take()
                .expect("something waits")
                .into_iter()
                .filter_map(|command| match command {
                    Command::Payload { bytes, .. } => decode::<Heartbeat>(&bytes).ok(),
                    _ => None,
                })
                .map(|heartbeat| (heartbeat.sent.0, heartbeat.health.map(|health| health.buffer_volatile)))
                .collect();
            assert_eq!(heard, expected);
            assert_eq!(inbox.0.lock().heartbeat_bytes, 0);
        }
    }

    #[tokio::test]
    async fn at_the_limit_the_sender_waits_until_something_is_taken() {
        let (sender, mut inbox) = inbox(Arc::default());
        let batch = 256 * 1024 - OVERHEAD_BYTES - "ward/1/b00/up".len();
        for n in 0..LIMIT_BYTES / (256 * 1024) {
            sender.send(large(&format!("b{:02}", n % 16), batch)).await.expect("somebody takes it");
        }
        assert_eq!(inbox.waiting_bytes(), LIMIT_BYTES);
        let mut late = Box::pin(sender.send(large("b99", 1)));
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut late).await.is_err(), "there is no room");
        // Heartbeats and orders wait for nobody.
        fill(&sender, "b99/live/x !").await;
        let group = inbox.take().expect("it is full");
        assert!(matches!(group[..2], [Command::Tick(_), Command::Payload { .. }]));
        assert_eq!(group.len(), 2 + GROUP_LIMIT_BYTES / (256 * 1024));
        late.await.expect("there is room now");
        drop(sender);
        let mut taken = group.len();
        while let Some(group) = inbox.take() {
            taken += group.len();
        }
        assert_eq!(taken, 2 + LIMIT_BYTES / (256 * 1024) + 1, "what waits is taken before the end");
    }

    #[tokio::test]
    async fn a_branch_with_its_whole_share_waiting_keeps_nobody_else_from_theirs() {
        let metrics = Arc::<Metrics>::default();
        let (sender, mut inbox) = inbox(Arc::clone(&metrics));
        for _ in 0..100 {
            sender.send(large("mad", 256 * 1024)).await.expect("somebody takes it");
        }
        fill(&sender, "calm/up/1").await;
        assert!(inbox.waiting_bytes() <= SHARE_LIMIT_BYTES + 1_024);
        assert_eq!(metrics.value("ward_payloads_refused_total", "reason=\"over_share\""), 85.0);
        let group = inbox.take().expect("something waits");
        assert!(matches!(&group[1], Command::Payload { topic, .. } if topic.contains("calm")), "it is second in turn");
    }

    #[tokio::test]
    async fn what_is_sent_again_takes_no_more_than_a_branchs_share() {
        let (sender, mut inbox) = inbox(Arc::default());
        for _ in 0..10 {
            fill(&sender, "a/up/1 a/up/2 a/up/3 a/up/4").await;
        }
        fill(&sender, "a/presence/gone").await;
        let group = inbox.take().expect("something waits");
        assert_eq!(group.len(), SHARE_LIMIT + 1);
        assert!(text(&group).ends_with(" a:gone"), "a goodbye is never dropped");
    }

    #[tokio::test]
    async fn heartbeats_have_a_limit_of_their_own() {
        let (sender, mut inbox) = inbox(Arc::default());
        let heartbeat = |n: usize| Command::Payload { topic: format!("ward/1/b{n:03}/live"), bytes: vec![0; 256 * 1024].into() };
        for n in 0..200 {
            sender.send(heartbeat(n)).await.expect("somebody takes it");
        }
        let group = inbox.take().expect("something waits");
        assert_eq!(group.len(), HEARTBEATS_LIMIT_BYTES / (256 * 1024 + OVERHEAD_BYTES + "ward/1/b000/live".len()));
    }

    #[tokio::test]
    async fn orders_wait_for_room_once_there_are_too_many() {
        let (sender, mut inbox) = inbox(Arc::default());
        for _ in 0..ORDERS_LIMIT {
            sender.send(Command::Tick(Uptime(0))).await.expect("there is room");
        }
        let mut late = Box::pin(sender.send(Command::Tick(Uptime(0))));
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut late).await.is_err(), "there is none");
        assert_eq!(inbox.take().map(|group| group.len()), Some(ORDERS_LIMIT));
        late.await.expect("there is room now");
        assert_eq!(inbox.take().map(|group| group.len()), Some(1));
    }

    #[tokio::test]
    async fn who_sends_learns_that_nobody_takes() {
        let (sender, inbox) = inbox(Arc::default());
        drop(inbox);
        assert_eq!(sender.send(Command::Tick(Uptime(0))).await, Err(Gone));
        assert_eq!(sender.send(payload("a", "up", "1")).await, Err(Gone));
        assert_eq!(sender.send(payload("a", "live", "1")).await, Err(Gone));
    }
}

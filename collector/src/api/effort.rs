//! How much the agent of a branch may be asked for beside its own work, whoever asks. Pure.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use shared::message::Ask;
use shared::{BranchId, DeviceId};
use tokio::time::Instant;

/// Work that a branch's agent may be asked for at once.
const LIMIT: Duration = Duration::from_secs(60);
/// Branches of which something is kept, before those that have nothing to do are forgotten.
const KEPT_LIMIT: usize = 1_024;

/// What an answer costs an agent, about.
fn cost(ask: &Ask) -> Duration {
    Duration::from_secs(match ask {
        // Nothing more is probed for it.
        Ask::Watch { .. } | Ask::Update { .. } | Ask::Health => 0,
        Ask::Probe { .. } => 1,
        Ask::Route { .. } => 5,
        Ask::Discover { .. } => 15,
    })
}

/// What branches' agents have been asked for.
#[derive(Debug, Default)]
pub struct Effort {
    busy_until: Mutex<HashMap<BranchId, Instant>>,
}

impl Effort {
    /// Counts a question, or says after how many ms there may be one.
    ///
    /// # Errors
    /// That time, when the agent has enough to do.
    pub fn begin(&self, branch: &BranchId, ask: &Ask, now: Instant) -> Result<(), i64> {
        let mut busy_until = self.busy_until.lock().unwrap_or_else(PoisonError::into_inner);
        if busy_until.len() >= KEPT_LIMIT {
            busy_until.retain(|_, until| *until > now);
        }
        let until = busy_until.get(branch).map_or(now, |until| (*until).max(now)) + cost(ask);
        let over = until.duration_since(now).saturating_sub(LIMIT);
        if !over.is_zero() {
            return Err(i64::try_from(over.as_millis()).unwrap_or(i64::MAX));
        }
        busy_until.insert(branch.clone(), until);
        Ok(())
    }
}

/// How soon a device may be asked for again: it tells how it does for half a minute each time, and readers ask every 10 s.
const WATCHED_EVERY: Duration = Duration::from_secs(5);

/// Which devices agents were asked to watch, and when. However many readers look at a device, its agent is asked once.
#[derive(Debug, Default)]
pub struct Watched {
    asked: Mutex<HashMap<DeviceId, Instant>>,
}

impl Watched {
    /// Those of some devices that are worth asking for now.
    pub fn due(&self, devices: Vec<DeviceId>, now: Instant) -> Vec<DeviceId> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() >= KEPT_LIMIT {
            asked.retain(|_, at| now.duration_since(*at) < WATCHED_EVERY);
        }
        let is_due = |at: Option<&Instant>| at.is_none_or(|at| now.duration_since(*at) >= WATCHED_EVERY);
        let due: Vec<DeviceId> = devices.into_iter().filter(|device| is_due(asked.get(device))).collect();
        asked.extend(due.iter().map(|device| (device.clone(), now)));
        due
    }
}

/// How many messages a reader may say in a row, and how soon it may say one more.
const WORDS: u32 = 5;
const WORD_EVERY: Duration = Duration::from_secs(1);

/// How much one reader says.
#[derive(Debug)]
pub struct Words {
    /// Up to when all that it has said would have been said in time.
    said_until: Instant,
}

impl Words {
    /// Nothing was said yet.
    pub fn new(now: Instant) -> Self {
        Self { said_until: now }
    }

    /// Whether it may say one more.
    pub fn may(&mut self, now: Instant) -> bool {
        let until = self.said_until.max(now) + WORD_EVERY;
        let is_in_time = until.duration_since(now) <= WORD_EVERY * WORDS;
        if is_in_time {
            self.said_until = until;
        }
        is_in_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branch(text: &str) -> BranchId {
        text.parse().expect("an id")
    }

    #[test]
    fn an_agent_is_asked_for_a_minutes_work_at_most() {
        let (start, effort) = (Instant::now(), Effort::default());
        let (probe, discover) = (Ask::Probe { id: 1, device: "a".parse().expect("an id"), count: 3 }, Ask::Discover { id: 2 });
        for _ in 0..3 {
            assert_eq!(effort.begin(&branch("b1"), &discover, start), Ok(()));
        }
        let taken = (0..100).filter(|_| effort.begin(&branch("b1"), &probe, start).is_ok()).count();
        assert_eq!(taken, 15);
        assert_eq!(effort.begin(&branch("b1"), &discover, start), Err(15_000));
        assert_eq!(effort.begin(&branch("b2"), &discover, start), Ok(()), "another's is its own");
        let later = start + Duration::from_secs(1);
        assert_eq!(effort.begin(&branch("b1"), &probe, later), Ok(()));
        assert_eq!(effort.begin(&branch("b1"), &probe, later), Err(1_000));
        assert_eq!(effort.begin(&branch("b1"), &discover, start + Duration::from_secs(300)), Ok(()));
    }

    #[test]
    fn a_device_that_many_look_at_is_asked_for_once() {
        let (start, watched) = (Instant::now(), Watched::default());
        let ids = |words: &str| words.split(' ').map(|word| word.parse().expect("an id")).collect::<Vec<DeviceId>>();
        let due = |words: &str, after_s: u64| watched.due(ids(words), start + Duration::from_secs(after_s));
        assert_eq!(due("a b", 0), ids("a b"));
        assert_eq!(due("b c", 1), ids("c"));
        assert_eq!(due("a b c", 4), []);
        assert_eq!(due("a b c", 5), ids("a b"));
        for n in 0..KEPT_LIMIT as u64 * 3 {
            due(&format!("d{n}"), 10 * n);
        }
        assert!(watched.asked.lock().expect("nobody panics").len() <= KEPT_LIMIT);
    }

    #[test]
    fn a_reader_says_a_few_words_at_once_and_then_one_a_second() {
        let start = Instant::now();
        let mut words = Words::new(start);
        let at = |ms: u64| start + Duration::from_millis(ms);
        assert_eq!((0..100).filter(|_| words.may(at(0))).count(), 5);
        assert_eq!((0..1_000).filter(|ms| words.may(at(10 * ms))).count(), 9);
        assert_eq!((0..100).filter(|_| words.may(at(60_000))).count(), 5);
    }

    #[test]
    fn branches_that_have_nothing_to_do_are_forgotten() {
        let (start, effort) = (Instant::now(), Effort::default());
        for n in 0..KEPT_LIMIT as u64 * 3 {
            let now = start + Duration::from_secs(n);
            assert_eq!(effort.begin(&branch(&format!("b{n}")), &Ask::Discover { id: n }, now), Ok(()));
        }
        assert!(effort.busy_until.lock().expect("nobody panics").len() <= KEPT_LIMIT);
    }
}

//! How much the agent of a branch may be asked for beside its own work, whoever asks. Pure.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use shared::BranchId;
use shared::message::Ask;
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
    fn branches_that_have_nothing_to_do_are_forgotten() {
        let (start, effort) = (Instant::now(), Effort::default());
        for n in 0..KEPT_LIMIT as u64 * 3 {
            let now = start + Duration::from_secs(n);
            assert_eq!(effort.begin(&branch(&format!("b{n}")), &Ask::Discover { id: n }, now), Ok(()));
        }
        assert!(effort.busy_until.lock().expect("nobody panics").len() <= KEPT_LIMIT);
    }
}

//! Numbers by which what was made of a state knows whether, and since when, the state is another one.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Steps whose moments are remembered.
const KEPT_LIMIT: usize = 256;

/// The number of a state, which grows as the state changes.
#[derive(Debug, Default)]
pub struct Revision {
    number: AtomicU64,
    /// When the newest numbers came.
    steps: Mutex<VecDeque<Instant>>,
}

impl Revision {
    /// The number of the state as it is.
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// The state has changed.
    pub fn step(&self, now: Instant) {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        self.number.fetch_add(1, Ordering::Release);
        steps.push_back(now);
        if steps.len() > KEPT_LIMIT {
            steps.pop_front();
        }
    }

    /// For how long the state has not been that of a number: zero while it is. `None` where nobody remembers.
    pub fn behind(&self, number: u64, now: Instant) -> Option<Duration> {
        if number == self.number() {
            return Some(Duration::ZERO);
        }
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let missed = usize::try_from(self.number().checked_sub(number)?).ok()?;
        let first = steps.get(steps.len().checked_sub(missed)?)?;
        Some(now.saturating_duration_since(*first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_known_since_when_a_state_is_another_one() {
        let (revision, start) = (Revision::default(), Instant::now());
        let at = |s: u64| start + Duration::from_secs(s);
        let check = |number, s, expected: Option<u64>| {
            assert_eq!(revision.behind(number, at(s)), expected.map(Duration::from_secs), "{number} at {s}");
        };
        check(0, 5, Some(0));
        revision.step(at(10));
        revision.step(at(12));
        assert_eq!(revision.number(), 2);
        check(2, 20, Some(0));
        check(1, 20, Some(8));
        check(0, 20, Some(10));
        check(3, 20, None);
        (0..KEPT_LIMIT as u64).for_each(|n| revision.step(at(20 + n)));
        check(1, 1_000, None);
        check(2, 1_000, Some(980));
    }
}

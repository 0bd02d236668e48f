//! Whether a server that may be dead is worth a question. Pure.
//!
//! After some failures in a row nothing is asked for a while; then one question is let through, and its outcome decides.

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row after which nothing is asked.
const FAILURES: u32 = 3;
/// How long nothing is asked, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// Time after which a question that was let through counts as lost.
const TRIAL: Duration = Duration::from_secs(20);

/// What is known of a server's health.
#[derive(Debug, Default)]
pub struct Breaker {
    failures: u32,
    /// Until when nothing is asked, and how long that was.
    closed_until: Option<(Instant, Duration)>,
}

impl Breaker {
    /// Whether a question may be asked now.
    pub fn lets(&mut self, now: Instant) -> bool {
        match &mut self.closed_until {
            None => true,
            Some((until, _)) if now < *until => false,
            Some((until, _)) => {
                // This one is the trial; the others wait for what becomes of it.
                *until = now + TRIAL;
                true
            }
        }
    }

    /// Whether the server counts as dead.
    pub fn is_open(&self) -> bool {
        self.closed_until.is_some()
    }

    /// It has answered.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// It has not answered, or said that it can't.
    pub fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES {
            let pause = self.closed_until.map_or(PAUSE.0, |(_, before)| (before * 2).min(PAUSE.1));
            self.closed_until = Some((now + pause, pause));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_server_is_asked_once_in_a_while() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut breaker = Breaker::default();
        for ms in 0..3 {
            assert!(breaker.lets(at(ms)));
            breaker.failed(at(ms));
        }
        assert!(breaker.is_open());
        assert!(!breaker.lets(at(900)));
        assert!(breaker.lets(at(1_100)), "one is let through");
        assert!(!breaker.lets(at(1_101)), "and no other");
        breaker.failed(at(1_200));
        assert!(!breaker.lets(at(3_100)), "the pause has doubled");
        assert!(breaker.lets(at(3_300)));
        breaker.succeeded();
        assert!(breaker.lets(at(3_301)) && !breaker.is_open());
    }

    #[test]
    fn a_trial_that_nobody_ends_is_followed_by_another() {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        (0..3).for_each(|_| breaker.failed(start));
        assert!(breaker.lets(start + Duration::from_secs(2)));
        assert!(!breaker.lets(start + Duration::from_secs(21)));
        assert!(breaker.lets(start + Duration::from_secs(23)));
    }
}

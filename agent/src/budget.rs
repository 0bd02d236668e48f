//! What the agent has cost its card and its line over the last day. Pure.

use std::collections::VecDeque;

use shared::Uptime;
use shared::message::Spent;

const HOUR_MS: u64 = 3_600_000;
/// Hours that are remembered, the running one included.
const HOURS: u64 = 24;

/// See the module.
#[derive(Debug)]
pub struct Budget {
    began: Uptime,
    hours: VecDeque<(u64, Spent)>,
}

impl Budget {
    /// Nothing was spent yet.
    pub fn new(now: Uptime) -> Self {
        Self { began: now, hours: VecDeque::new() }
    }

    /// Counts what was just spent.
    pub fn spend(&mut self, spent: Spent, now: Uptime) {
        let hour = now.0 / HOUR_MS;
        match self.hours.back_mut() {
            Some((last, sum)) if *last == hour => sum.add(spent),
            Some(_) | None => self.hours.push_back((hour, spent)),
        }
        while self.hours.front().is_some_and(|(first, _)| first + HOURS <= hour) {
            self.hours.pop_front();
        }
    }

    /// What was spent over the last day, to the hour.
    pub fn day(&self, now: Uptime) -> Spent {
        let first = (now.0 / HOUR_MS + 1).saturating_sub(HOURS);
        let mut sum = Spent { over_ms: now.since(self.began.max(Uptime(first * HOUR_MS))), ..Spent::default() };
        self.hours.iter().filter(|(hour, _)| *hour >= first).for_each(|(_, spent)| sum.add(*spent));
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_summed_by_hours_and_says_how_long_it_is() {
        let mut budget = Budget::new(Uptime(1_000));
        let kilobyte = Spent { disk_bytes: 1_000, flushes: 1, ..Spent::default() };
        budget.spend(kilobyte, Uptime(2_000));
        assert_eq!(budget.day(Uptime(3_000)), Spent { over_ms: 2_000, ..kilobyte });
        for hour in 1..=100 {
            budget.spend(kilobyte, Uptime(hour * HOUR_MS));
            budget.spend(kilobyte, Uptime(hour * HOUR_MS + 1));
        }
        let day = budget.day(Uptime(100 * HOUR_MS + HOUR_MS / 2));
        assert_eq!(day, Spent { over_ms: 23 * HOUR_MS + HOUR_MS / 2, disk_bytes: 48_000, flushes: 48, ..Spent::default() });
        assert_eq!(budget.day(Uptime(200 * HOUR_MS)).disk_bytes, 0, "nothing for days");
        assert!(budget.hours.len() <= HOURS as usize);
    }
}

//! How often each device was asked since the agent began, and how it answered: what a build beside this one is compared by.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use shared::DeviceId;

use crate::monitor::Outcome;

/// How often a device was asked, and its round trips.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Count {
    /// Probes that were sent.
    pub sent: u64,
    /// Those that were answered.
    pub replies: u64,
    /// The sum of their round trips, in µs.
    pub sum_us: f64,
    /// The sum of the squares of those.
    pub squares: f64,
}

impl Count {
    fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::SendError | Outcome::NoAddress => {}
            Outcome::Timeout | Outcome::Unreachable => self.sent += 1,
            Outcome::Reply { rtt_us } => {
                let rtt_us = f64::from(rtt_us);
                self.sent += 1;
                self.replies += 1;
                self.sum_us += rtt_us;
                self.squares += rtt_us * rtt_us;
            }
        }
    }

    /// What has come since; none where it has begun anew.
    pub fn since(&self, before: &Self) -> Option<Self> {
        Some(Self {
            sent: self.sent.checked_sub(before.sent)?,
            replies: self.replies.checked_sub(before.replies)?,
            sum_us: self.sum_us - before.sum_us,
            squares: self.squares - before.squares,
        })
    }

    /// The mean round trip in µs, and the square of its standard error; none where there is too little for that.
    pub fn mean_us(&self) -> Option<(f64, f64)> {
        let n = self.replies as f64;
        let mean = self.sum_us / n;
        (self.replies > 1).then(|| (mean, (self.squares / n - mean * mean).max(0.0) / (n - 1.0)))
    }
}

/// The counts of all devices.
#[derive(Debug, Default)]
pub struct Counts(Mutex<HashMap<DeviceId, Count>>);

impl Counts {
    fn lock(&self) -> MutexGuard<'_, HashMap<DeviceId, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A probe of a device has ended.
    pub fn add(&self, device: &DeviceId, outcome: Outcome) {
        let mut all = self.lock();
        match all.get_mut(device) {
            Some(count) => count.add(outcome),
            None => all.entry(device.clone()).or_default().add(outcome),
        }
    }

    /// Forgets all devices but these.
    pub fn keep<'a>(&self, devices: impl Iterator<Item = &'a DeviceId>) {
        let mut all = self.lock();
        let kept = devices.filter_map(|device| all.remove_entry(device)).collect();
        *all = kept;
    }

    /// How many probes of all of them were sent, and how many of these were not answered in time.
    pub fn total(&self) -> (u64, u64) {
        self.lock().values().fold((0, 0), |(sent, lost), count| (sent + count.sent, lost + count.sent - count.replies))
    }

    /// All of them, as they are now.
    pub fn all(&self) -> HashMap<DeviceId, Count> {
        self.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_since_has_a_mean_and_an_error_of_its_own() {
        let (counts, device) = (Counts::default(), "a".parse::<DeviceId>().expect("a valid id"));
        let reply = |rtt_us| counts.add(&device, Outcome::Reply { rtt_us });
        reply(9_000);
        let before = counts.all()[&device];
        [100, 300, 100, 300].into_iter().for_each(reply);
        counts.add(&device, Outcome::Timeout);
        counts.add(&device, Outcome::SendError);
        let since = counts.all()[&device].since(&before).expect("it goes on");
        assert_eq!((since.sent, since.replies), (5, 4));
        assert_eq!(counts.total(), (6, 1));
        let (mean, square) = since.mean_us().expect("four replies");
        assert!((mean - 200.0).abs() < 1e-6 && (square - 10_000.0 / 3.0).abs() < 1e-3, "{mean} {square}");
        counts.keep(std::iter::empty());
        reply(1);
        assert_eq!(counts.all()[&device].since(&before).map(|count| count.sent), Some(0), "as many as before, by chance");
        counts.keep(std::iter::empty());
        assert!(counts.all().is_empty());
    }
}

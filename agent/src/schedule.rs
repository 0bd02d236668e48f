//! When each target is due: spread over its interval by a hash of its name, so that no two agents burst together.
//!
//! Pure. A target is either waiting here or in flight; there is no queue between timer and probe, so a target that is
//! late skips what it missed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use shared::{DeviceId, Uptime};

/// Waiting targets by the time at which they are due.
#[derive(Debug, Default)]
pub struct Schedule {
    // The time before the target, as one number: comparing is what this costs.
    due: BinaryHeap<Reverse<u128>>,
}

impl Schedule {
    /// Lets `target` wait until `at`.
    pub fn wait(&mut self, target: usize, at: Uptime) {
        self.due.push(Reverse(u128::from(at.0) << 64 | target as u128));
    }

    /// The next target that is due at `now`, with the time at which it was.
    pub fn take_due(&mut self, now: Uptime) -> Option<(usize, Uptime)> {
        let at = self.next().filter(|at| *at <= now)?;
        let Reverse(first) = self.due.pop()?;
        Some((usize::try_from(first & u128::from(u64::MAX)).unwrap_or(usize::MAX), at))
    }

    /// When the next target is due.
    pub fn next(&self) -> Option<Uptime> {
        self.due.peek().map(|Reverse(first)| Uptime(u64::try_from(first >> 64).unwrap_or(u64::MAX)))
    }
}

/// The first time from `now` on at which a device with this interval is due.
pub fn phase(device: &DeviceId, interval_ms: u32, now: Uptime) -> Uptime {
    let interval = u64::from(interval_ms);
    let offset = u64::from(crc32fast::hash(device.as_str().as_bytes())) % interval;
    let into = now.0 % interval;
    now.plus((offset + interval - into) % interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_targets_spread_over_their_interval() {
        let mut slots = [0u32; 40];
        for i in 0..10_000 {
            let device = format!("device-{i}").parse().expect("a valid id");
            let at = phase(&device, 2_000, Uptime(123_456));
            assert!((123_456..125_456).contains(&at.0));
            slots[(at.0 as usize - 123_456) / 50] += 1;
        }
        assert!(slots.iter().all(|n| (170..=330).contains(n)), "probes in each 50 ms: {slots:?}");
    }

    #[test]
    fn a_late_target_skips_what_it_missed_and_keeps_its_phase() {
        let device = "vake-atm-1".parse().expect("a valid id");
        let first = phase(&device, 2_000, Uptime(10_000));
        assert_eq!(phase(&device, 2_000, first), first);
        assert_eq!(phase(&device, 2_000, first.plus(1)), first.plus(2_000));
        assert_eq!(phase(&device, 2_000, first.plus(7_500)), first.plus(8_000));
    }

    #[test]
    fn targets_come_in_the_order_in_which_they_are_due() {
        let mut schedule = Schedule::default();
        for (target, at) in [(1, 30), (2, 10), (3, 20)] {
            schedule.wait(target, Uptime(at));
        }
        assert_eq!(schedule.next(), Some(Uptime(10)));
        assert_eq!(schedule.take_due(Uptime(20)), Some((2, Uptime(10))));
        assert_eq!(schedule.take_due(Uptime(20)), Some((3, Uptime(20))));
        assert_eq!(schedule.take_due(Uptime(20)), None);
    }
}

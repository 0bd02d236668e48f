//! When this boot began, in UTC, learnt from the collector's acks.
//!
//! An ack carries the collector's time and the moment at which the message it answers was sent. The collector read its
//! clock somewhere between that moment and the ack's arrival, so each ack bounds the boot from both sides.

use shared::{Dating, Millis, Uptime};

/// How fast a machine's clock may drift, in parts per million. Crystals of small boards are specified to 20-50.
const DRIFT_PPM: u64 = 100;

/// A round trip over this, in ms, tells too little to date by.
const ROUND_TRIP_LIMIT_MS: u64 = 60_000;

/// What is known of the moment at which uptime was zero.
#[derive(Debug, Default, Clone, Copy)]
pub struct Estimator {
    known: Option<Interval>,
}

#[derive(Debug, Clone, Copy)]
struct Interval {
    low: Millis,
    high: Millis,
    learnt: Uptime,
}

impl Interval {
    /// The interval as it must be believed at `now`, after drifting.
    fn at(self, now: Uptime) -> Self {
        let drift = i64::try_from(now.since(self.learnt) * DRIFT_PPM / 1_000_000).unwrap_or(i64::MAX);
        Self { low: self.low.plus(-drift), high: self.high.plus(drift), learnt: now }
    }
}

impl Estimator {
    /// Learns from an ack that read `collector_now`, answers what was sent at `echo`, and arrived at `received`.
    pub fn on_ack(&mut self, collector_now: Millis, echo: Uptime, received: Uptime) {
        let ms = |at: Uptime| i64::try_from(at.0).unwrap_or(i64::MAX);
        if echo > received || received.since(echo) > ROUND_TRIP_LIMIT_MS || collector_now < Millis::EARLIEST {
            return;
        }
        let heard = Interval { low: collector_now.plus(-ms(received)), high: collector_now.plus(-ms(echo)), learnt: received };
        self.known = Some(match self.known.map(|known| known.at(received)) {
            // Both hold, so the truth lies where they overlap. Where they don't, a clock was set: believe the newer.
            Some(known) if known.low <= heard.high && heard.low <= known.high => {
                Interval { low: known.low.max(heard.low), high: known.high.min(heard.high), learnt: received }
            }
            Some(_) | None => heard,
        });
    }

    /// How to date the moments of this boot, once an ack was heard.
    pub fn dating(&self, now: Uptime) -> Option<Dating> {
        let Interval { low, high, .. } = self.known?.at(now);
        let half = high.since(low) / 2;
        Some(Dating::Fixed { boot_at: low.plus(half), error_ms: u32::try_from(half).unwrap_or(u32::MAX) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: i64 = 1_795_442_400_000;

    fn check(acks: &[(i64, u64, u64)], now: u64, expected: Option<(i64, u32)>) {
        let mut estimator = Estimator::default();
        for (collector, echo, received) in acks {
            estimator.on_ack(Millis(BOOT + collector), Uptime(*echo), Uptime(*received));
        }
        let dating = expected.map(|(at, error_ms)| Dating::Fixed { boot_at: Millis(BOOT + at), error_ms });
        assert_eq!(estimator.dating(Uptime(now)), dating);
    }

    #[test]
    fn nothing_is_dated_before_an_ack() {
        check(&[], 5_000, None);
    }

    #[test]
    fn an_ack_dates_the_boot_to_half_its_round_trip() {
        check(&[(5_020, 5_000, 5_040)], 5_040, Some((0, 20)));
    }

    #[test]
    fn a_slow_ack_does_not_spoil_what_a_fast_one_told() {
        check(&[(5_020, 5_000, 5_040), (7_900, 6_000, 8_000)], 8_000, Some((0, 20)));
    }

    #[test]
    fn two_slow_acks_that_were_slow_on_opposite_ways_tell_more_than_one() {
        check(&[(5_001, 5_000, 6_000), (7_999, 7_000, 8_000)], 8_000, Some((0, 1)));
    }

    #[test]
    fn what_was_learnt_ages_with_the_drift_of_the_clock() {
        check(&[(5_020, 5_000, 5_040)], 86_405_040, Some((0, 8_660)));
    }

    #[test]
    fn a_collector_whose_clock_was_set_is_believed_anew() {
        check(&[(5_020, 5_000, 5_040), (3_606_020, 6_000, 6_040)], 6_040, Some((3_600_000, 20)));
    }

    #[test]
    fn an_ack_from_a_collector_in_1970_or_after_an_hour_is_not_believed() {
        let mut estimator = Estimator::default();
        estimator.on_ack(Millis(1_000), Uptime(5), Uptime(6));
        estimator.on_ack(Millis(BOOT), Uptime(5), Uptime(3_600_005));
        assert_eq!(estimator.dating(Uptime(3_600_005)), None);
    }
}

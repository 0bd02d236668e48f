//! When this boot began, in UTC, learnt from the collector's acks and from NTP.
//!
//! An ack carries the collector's time and the moment at which the message it answers was sent. The collector read its
//! clock somewhere between that moment and the ack's arrival, so each ack bounds the boot from both sides. A machine's
//! clock drifts: what was learnt ages, and between two moments at which the time was known it is interpolated.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use shared::{Dating, Millis, Uptime};

/// How fast a machine's clock may drift, in parts per million. Crystals of small boards are specified to 20-50.
const DRIFT_PPM: u64 = 100;
/// A round trip over this, in ms, tells too little to date by.
const ROUND_TRIP_LIMIT_MS: u64 = 60_000;
/// A clock that NTP vouches for to no better than this, in ms, tells too little to date by.
const NTP_ERROR_LIMIT_MS: u64 = 1_000;
/// Least time in ms between two anchors that are kept.
const SPACING_MS: u64 = 3_600_000;
/// Most anchors that are kept; the oldest go.
const ANCHORS_LIMIT: usize = 64;

/// By how much a machine's clock may be off after a time that it was not set in.
pub fn drift(ms: u64) -> i64 {
    i64::try_from(ms.saturating_mul(DRIFT_PPM) / 1_000_000).unwrap_or(i64::MAX)
}

/// The interval in which uptime was zero, as it is known at one moment of the boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The boot began no earlier.
    low: Millis,
    /// The boot began no later.
    high: Millis,
    /// The moment at which that is known.
    at: Uptime,
}

impl Anchor {
    /// A boot that is known exactly at one moment.
    pub fn exact(boot_at: Millis, at: Uptime) -> Self {
        Self { low: boot_at, high: boot_at, at }
    }

    /// The interval as it must be believed of another moment, after or before drifting there.
    fn drifted(self, at: Uptime) -> Self {
        let by = drift(at.since(self.at).max(self.at.since(at)));
        Self { low: self.low.plus(-by), high: self.high.plus(by), at }
    }

    /// Both hold, so the truth lies where they overlap, if they do.
    fn and(self, other: Self) -> Option<Self> {
        let (low, high) = (self.low.max(other.low), self.high.min(other.high));
        (low <= high).then_some(Self { low, high, ..other })
    }

    fn middle(self) -> Millis {
        self.low.plus(self.high.since(self.low) / 2)
    }

    /// The dates of moments between two, if the boot began in the middle of this interval.
    fn dating(self, boot_at: Millis, from: Uptime, to: Uptime) -> Dating {
        let error = self.high.since(boot_at).max(boot_at.since(self.low)) + drift(to.since(from) / 2);
        Dating::Fixed { boot_at, error_ms: u32::try_from(error).unwrap_or(u32::MAX) }
    }

    /// The moment at which it is known.
    pub fn at(self) -> Uptime {
        self.at
    }

    /// How to date the moments from one to another by this anchor alone.
    fn dating_of(self, from: Uptime, to: Uptime) -> Dating {
        let there = self.drifted(middle(from, to));
        there.dating(there.middle(), from, to)
    }
}

fn middle(from: Uptime, to: Uptime) -> Uptime {
    from.plus(to.since(from) / 2)
}

/// What is known of the moment at which uptime was zero: anchors, the oldest first.
#[derive(Debug, Default, Clone)]
pub struct Estimator {
    anchors: VecDeque<Anchor>,
    heard_collector: bool,
}

impl Estimator {
    /// What runs of one boot have learnt of it.
    pub fn of(mut anchors: Vec<Anchor>) -> Self {
        anchors.sort_by_key(|anchor| anchor.at);
        let mut estimator = Self::default();
        anchors.into_iter().for_each(|anchor| estimator.believe(anchor));
        estimator
    }

    /// Learns from an ack that read `collector_now`, answers what was sent at `echo`, and arrived at `received`.
    pub fn on_ack(&mut self, collector_now: Millis, echo: Uptime, received: Uptime) {
        if echo > received || received.since(echo) > ROUND_TRIP_LIMIT_MS || collector_now < Millis::EARLIEST {
            return;
        }
        let ms = |at: Uptime| i64::try_from(at.0).unwrap_or(i64::MAX);
        let heard = Anchor { low: collector_now.plus(-ms(received)), high: collector_now.plus(-ms(echo)), at: received };
        self.believe(heard);
        self.heard_collector = true;
    }

    /// Learns that the boot was over at some date: it had reached `at` by then.
    pub fn on_end(&mut self, at: Uptime, before: Millis) {
        let high = before.plus(-i64::try_from(at.0).unwrap_or(i64::MAX));
        // Where it contradicts what was heard, a clock was set since.
        self.learn(Anchor { low: Millis(i64::MIN), high, at });
    }

    /// Learns from the machine's clock, which NTP vouches for to `error_ms`. Where it contradicts the collector's, the
    /// collector's is believed: the ledger is kept by it.
    pub fn on_ntp(&mut self, wall: Millis, error_ms: u64, now: Uptime) {
        if wall < Millis::EARLIEST || error_ms > NTP_ERROR_LIMIT_MS {
            return;
        }
        let boot_at = wall.plus(-i64::try_from(now.0).unwrap_or(i64::MAX));
        let error = i64::try_from(error_ms).unwrap_or(i64::MAX);
        let heard = Anchor { low: boot_at.plus(-error), high: boot_at.plus(error), at: now };
        if self.heard_collector {
            self.learn(heard);
        } else {
            self.believe(heard);
        }
    }

    /// Learns, and where that contradicts what was known believes the newer word: a clock was set, or steered by more than
    /// was known of it. What is so old that it contradicts nothing still dates what was seen around it.
    fn believe(&mut self, heard: Anchor) {
        if !self.learn(heard) {
            self.anchors.retain(|known| known.drifted(heard.at).and(heard).is_some());
            self.anchors.push_back(heard);
        }
    }

    /// Adds what was heard to what is known; `false` when the two contradict one another.
    fn learn(&mut self, heard: Anchor) -> bool {
        let Some(last) = self.anchors.back().copied() else {
            self.anchors.push_back(heard);
            return true;
        };
        let Some(both) = last.drifted(heard.at).and(heard) else { return false };
        let before = self.anchors.len().checked_sub(2).map(|i| self.anchors[i]);
        if before.is_some_and(|before| last.at.since(before.at) < SPACING_MS) {
            self.anchors.pop_back();
        } else if self.anchors.len() == ANCHORS_LIMIT {
            self.anchors.pop_front();
        }
        self.anchors.push_back(both);
        true
    }

    /// Whether the collector itself has told the time since this run began.
    pub fn has_heard_collector(&self) -> bool {
        self.heard_collector
    }

    /// What was known last before a moment.
    pub fn before(&self, moment: Uptime) -> Option<Anchor> {
        self.anchors.iter().rev().find(|anchor| anchor.at <= moment).copied()
    }

    /// What is known best, at the moment of which it is.
    pub fn newest(&self) -> Option<Anchor> {
        self.anchors.back().copied()
    }

    /// How to date the moments of this boot around `now`, once the time was heard.
    pub fn dating(&self, now: Uptime) -> Option<Dating> {
        self.dating_of(now, now)
    }

    /// How to date the moments of this boot from one to another, once the time was heard.
    pub fn dating_of(&self, from: Uptime, to: Uptime) -> Option<Dating> {
        let at = middle(from, to);
        let after = self.anchors.partition_point(|anchor| anchor.at <= at);
        let (a, b) = (after.checked_sub(1).map(|i| self.anchors[i]), self.anchors.get(after).copied());
        let (a, b) = match (a, b) {
            (Some(a), Some(b)) => (a, b),
            (one, other) => return Some(one.or(other)?.dating_of(from, to)),
        };
        // A crystal drifts evenly: the boot seems to move along a straight line from one anchor to the next.
        let (passed, whole) = (i128::from(at.since(a.at)), i128::from(b.at.since(a.at).max(1)));
        let moved = i128::from(b.middle().since(a.middle())) * passed / whole;
        let there = a.drifted(at).and(b.drifted(at))?;
        let boot_at = a.middle().plus(i64::try_from(moved).unwrap_or(0)).clamp(there.low, there.high);
        Some(there.dating(boot_at, from, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: i64 = 1_795_442_400_000;
    const DAY: u64 = 86_400_000;

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

    #[test]
    fn three_weeks_without_a_word_are_interpolated_between_the_acks_around_them() {
        // The machine's clock runs 40 ppm fast: 72.6 s in three weeks.
        let uptime = |true_ms: u64| Uptime(true_ms + true_ms * 40 / 1_000_000);
        let mut estimator = Estimator::default();
        let mut hear = |true_ms: u64| {
            let at = uptime(true_ms);
            estimator.on_ack(Millis(BOOT + true_ms as i64), Uptime(at.0 - 50), at.plus(50));
        };
        (0..48).for_each(|hour| hear(60_000 + hour * 3_600_000));
        hear(2 * DAY + 21 * DAY);
        (0..100).for_each(|second| hear(2 * DAY + 21 * DAY + 1_000 * second));
        for true_ms in (60_000..23 * DAY).step_by(7_654_321) {
            let at = uptime(true_ms);
            let Some(Dating::Fixed { boot_at, error_ms }) = estimator.dating_of(at, at) else { panic!("it is known") };
            let off = (boot_at.0 + at.0 as i64 - BOOT - true_ms as i64).abs();
            assert!(off <= 150, "{off} ms off after {true_ms} ms");
            assert!(off <= i64::from(error_ms), "{off} ms off where {error_ms} are stated");
        }
    }

    #[test]
    fn a_collectors_clock_that_is_steered_while_three_weeks_drain_does_not_bend_them() {
        // The machine's clock runs 50 ppm fast: 90 s in three weeks.
        let uptime = |true_ms: u64| Uptime(true_ms + true_ms * 50 / 1_000_000);
        let mut estimator = Estimator::default();
        let mut hear = |true_ms: u64, steered: i64| {
            let at = uptime(true_ms);
            estimator.on_ack(Millis(BOOT + true_ms as i64 + steered), Uptime(at.0 - 10), at.plus(10));
        };
        hear(60_000, 0);
        (0..1_000).for_each(|second| hear(21 * DAY + 1_000 * second, second as i64 / 10));
        for true_ms in (60_000..21 * DAY).step_by(7_654_321) {
            let at = uptime(true_ms);
            let Some(Dating::Fixed { boot_at, error_ms }) = estimator.dating_of(at, at) else { panic!("it is known") };
            let off = (boot_at.0 + at.0 as i64 - BOOT - true_ms as i64).abs();
            assert!(off <= 200 && off <= i64::from(error_ms), "{off} ms off after {true_ms} ms, {error_ms} stated");
        }
    }

    #[test]
    fn a_clock_that_was_set_by_an_hour_leaves_nothing_of_what_was_known_by_it() {
        let mut estimator = Estimator::default();
        for hour in 0..10 {
            let at = Uptime(hour * 3_600_000);
            estimator.on_ack(Millis(BOOT + at.0 as i64), at, at);
        }
        let at = Uptime(10 * 3_600_000);
        estimator.on_ack(Millis(BOOT + at.0 as i64 + 3_600_000), at, at);
        assert_eq!(estimator.anchors.len(), 1);
    }

    #[test]
    fn a_boot_that_was_over_began_no_later_than_its_life_allows() {
        // Thirty days with a clock that runs 40 ppm fast, and a power cut of 30 s.
        let lived = Uptime(30 * DAY + 30 * DAY * 40 / 1_000_000);
        let end = Millis(BOOT + 30 * DAY as i64);
        let mut estimator = Estimator::of(vec![Anchor::exact(Millis(BOOT), Uptime(0))]);
        estimator.on_end(lived, end.plus(30_000));
        let Some(Dating::Fixed { boot_at, error_ms }) = estimator.dating_of(lived, lived) else { panic!("it is known") };
        let off = boot_at.0 + lived.0 as i64 - end.0;
        assert!(off.abs() <= i64::from(error_ms) && off <= 30_000, "{off} ms off, {error_ms} stated");
        let [first, ..] = estimator.anchors.make_contiguous() else { panic!("there is one") };
        assert_eq!(*first, Anchor::exact(Millis(BOOT), Uptime(0)), "what was known of its beginning stays");
    }

    #[test]
    fn a_clock_that_ntp_vouches_for_dates_until_the_collector_contradicts_it() {
        let mut estimator = Estimator::default();
        estimator.on_ntp(Millis(1_000), 5, Uptime(500));
        estimator.on_ntp(Millis(BOOT + 60_000), 5_000, Uptime(60_000));
        assert_eq!(estimator.dating(Uptime(60_000)), None, "1970, and a clock that nobody vouches for");
        estimator.on_ntp(Millis(BOOT + 60_000), 5, Uptime(60_000));
        assert_eq!(estimator.dating(Uptime(60_000)), Some(Dating::Fixed { boot_at: Millis(BOOT), error_ms: 5 }));
        estimator.on_ack(Millis(BOOT + 3_700_000), Uptime(90_000), Uptime(90_010));
        let corrected = estimator.dating(Uptime(90_010));
        assert_eq!(corrected, Some(Dating::Fixed { boot_at: Millis(BOOT + 3_609_995), error_ms: 5 }));
        estimator.on_ntp(Millis(BOOT + 100_000), 5, Uptime(100_000));
        let Some(Dating::Fixed { boot_at, .. }) = estimator.dating(Uptime(100_000)) else { panic!("it is known") };
        assert_eq!(boot_at, Millis(BOOT + 3_609_995), "the ledger is kept by the collector's clock");
    }

    #[test]
    fn a_batch_that_covers_hours_is_dated_by_its_middle() {
        let anchor = Anchor::exact(Millis(BOOT), Uptime(0));
        let hour = 3_600_000;
        let dating = anchor.dating_of(Uptime(hour), Uptime(3 * hour));
        assert_eq!(dating, Dating::Fixed { boot_at: Millis(BOOT), error_ms: 720 + 360 });
    }

    #[test]
    fn anchors_have_a_limit() {
        let mut estimator = Estimator::default();
        for hour in 0..1_000 {
            let at = Uptime(hour * 3_600_000);
            estimator.on_ack(Millis(BOOT + at.0 as i64), at, at);
        }
        assert_eq!(estimator.anchors.len(), ANCHORS_LIMIT);
        assert_eq!(estimator.dating(Uptime(999 * 3_600_000)), Some(Dating::Fixed { boot_at: Millis(BOOT), error_ms: 0 }));
    }
}

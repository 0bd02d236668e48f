//! How available devices were, exactly: from their transitions, in whole milliseconds. Pure.
//!
//! A time is divided, for each device, into four that add up to it:
//!
//! - *maintenance*: agreed windows, and what lies outside of service hours; whatever the device was then
//! - *up* and *down*: what its agent saw, each from the onset of one transition to the onset of the next
//! - *unknown*: what nobody saw, because no agent observed or because what it saw is lost
//!
//! From these, after ISO/IEC 25023 and ITU-T E.800, over any number of devices as the ratio of sums:
//!
//! - availability = up / (up + down)
//! - MTTR = down / outages and MTBF = up / outages, where an outage is a time that is down, from a transition to down to the
//!   next transition to up; the unknown ends none. One that reaches over the end of a time counts in both.
//! - coverage = (up + down) / (up + down + unknown)
//! - bounds: up / (up + down + unknown), as if all that is unknown were down, and (up + unknown) / (up + down + unknown)
//!
//! What is divided by zero can't be said and is absent. A figure is rounded down, so that only what was never down is 100 %.

pub mod report;
pub mod spans;
pub mod timeline;
pub mod timelines;

use shared::Millis;

use crate::schedule::LeftOut;
use spans::Span;
use timeline::{Seen, Timeline};

/// How a time divides, for one device or many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// How many devices.
    pub devices: u64,
    /// Seen up, in ms.
    pub up_ms: i64,
    /// Seen down, in ms.
    pub down_ms: i64,
    /// Nobody saw, in ms.
    pub unknown_ms: i64,
    /// Left out, in ms.
    pub maintenance_ms: i64,
    /// How much of that is no maintenance but outside of service hours, in ms.
    pub off_hours_ms: i64,
    /// Outages of which at least a part counts.
    pub outages: u64,
    /// The longest of them, as far as it was seen and counts, in ms.
    pub longest_ms: i64,
    /// Changes between up and down outside of what is left out.
    pub changes: u64,
}

/// Parts of a million that a figure has: 99.9999 % is the last before 100.
const MILLION: i128 = 1_000_000;

impl Tally {
    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        self.devices += other.devices;
        self.up_ms += other.up_ms;
        self.down_ms += other.down_ms;
        self.unknown_ms += other.unknown_ms;
        self.maintenance_ms += other.maintenance_ms;
        self.off_hours_ms += other.off_hours_ms;
        self.outages += other.outages;
        self.longest_ms = self.longest_ms.max(other.longest_ms);
        self.changes += other.changes;
    }

    /// Availability in percent.
    pub fn availability(&self) -> Option<f64> {
        percent(self.up_ms, self.up_ms + self.down_ms)
    }

    /// Coverage in percent.
    pub fn coverage(&self) -> Option<f64> {
        percent(self.up_ms + self.down_ms, self.countable_ms())
    }

    /// Availability in percent if all that is unknown were down.
    pub fn at_least(&self) -> Option<f64> {
        percent(self.up_ms, self.countable_ms())
    }

    /// Availability in percent if all that is unknown were up.
    pub fn at_most(&self) -> Option<f64> {
        percent(self.up_ms + self.unknown_ms, self.countable_ms())
    }

    /// Mean time to repair, in ms.
    pub fn mttr_ms(&self) -> Option<i64> {
        self.per_outage(self.down_ms)
    }

    /// Mean time between failures, in ms.
    pub fn mtbf_ms(&self) -> Option<i64> {
        self.per_outage(self.up_ms)
    }

    /// Whether availability lies above a target in parts of a million, to the millisecond. `None` if nobody can say.
    pub fn is_above(&self, target: u32) -> Option<bool> {
        let seen = self.up_ms + self.down_ms;
        (seen > 0).then(|| i128::from(self.up_ms) * MILLION > i128::from(seen) * i128::from(target))
    }

    /// Why there is no availability, if there is none.
    pub fn reason(&self) -> Option<&'static str> {
        if self.up_ms + self.down_ms > 0 {
            None
        } else if self.devices == 0 {
            Some("no_devices")
        } else if self.unknown_ms > 0 {
            Some("not_observed")
        } else {
            Some("all_maintenance")
        }
    }

    fn countable_ms(&self) -> i64 {
        self.up_ms + self.down_ms + self.unknown_ms
    }

    fn per_outage(&self, ms: i64) -> Option<i64> {
        i64::try_from(self.outages).ok().filter(|outages| *outages > 0).map(|outages| ms / outages)
    }
}

/// A part of a whole in percent with four decimals, rounded down.
pub fn percent(part: i64, whole: i64) -> Option<f64> {
    (whole > 0).then(|| (i128::from(part) * MILLION / i128::from(whole)) as f64 / 10_000.0)
}

/// Divides a time of one device. `through`: how far its branch is known.
pub fn tally(line: &Timeline, through: Millis, range: Span, left_out: &LeftOut) -> Tally {
    let mut tally = Tally { devices: 1, maintenance_ms: left_out.ms, off_hours_ms: left_out.off_hours_ms, ..Tally::default() };
    let mut out = Skip { spans: &left_out.spans };
    let end = range.to.min(through);
    let (mut seen, steps) = line.from(range.from);
    let mut at = range.from;
    let mut outage_ms = 0;
    let close = |ms: i64, tally: &mut Tally| {
        if ms > 0 {
            tally.outages += 1;
            tally.longest_ms = tally.longest_ms.max(ms);
        }
    };
    for step in steps {
        let next = step.at();
        if next >= end {
            break;
        }
        match seen {
            Seen::Up => tally.up_ms += out.counted(at, next),
            Seen::Down => outage_ms += out.counted(at, next),
            Seen::Unknown => {}
        }
        match (seen, step.seen()) {
            (Seen::Down, Seen::Up) | (Seen::Up, Seen::Down) => tally.changes += u64::from(!out.holds(next)),
            _ => {}
        }
        if step.seen() == Seen::Up {
            tally.down_ms += outage_ms;
            close(std::mem::take(&mut outage_ms), &mut tally);
        }
        (seen, at) = (step.seen(), next);
    }
    if at < end {
        match seen {
            Seen::Up => tally.up_ms += out.counted(at, end),
            Seen::Down => outage_ms += out.counted(at, end),
            Seen::Unknown => {}
        }
    }
    tally.down_ms += outage_ms;
    close(outage_ms, &mut tally);
    tally.unknown_ms = range.ms() - left_out.ms - tally.up_ms - tally.down_ms;
    tally
}

/// The moments at which a device changed between up and down, outside of what is left out.
pub fn changes<'a>(line: &'a Timeline, through: Millis, range: Span, left_out: &'a LeftOut) -> impl Iterator<Item = Millis> + 'a {
    let (mut seen, steps) = line.from(range.from);
    let end = range.to.min(through);
    let mut out = Skip { spans: &left_out.spans };
    let within = steps.iter().take_while(move |step| step.at() < end);
    within.filter_map(move |step| {
        let was = std::mem::replace(&mut seen, step.seen());
        let is_change = matches!((was, seen), (Seen::Down, Seen::Up) | (Seen::Up, Seen::Down));
        (is_change && !out.holds(step.at())).then(|| step.at())
    })
}

/// What is left out, read once from its beginning to its end.
struct Skip<'a> {
    spans: &'a [Span],
}

impl Skip<'_> {
    /// How much of a time counts, in ms. Times come in order.
    fn counted(&mut self, from: Millis, to: Millis) -> i64 {
        let mut ms = to.since(from);
        while let Some(span) = self.spans.first().filter(|span| span.from < to) {
            ms -= span.cut(&Span::new(from, to)).ms();
            if span.to > to {
                break;
            }
            self.spans = &self.spans[1..];
        }
        ms
    }

    /// Whether a moment is left out. Moments come in order.
    fn holds(&mut self, at: Millis) -> bool {
        while self.spans.first().is_some_and(|span| span.to <= at) {
            self.spans = &self.spans[1..];
        }
        self.spans.first().is_some_and(|span| span.from <= at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::spans::union;
    use super::*;

    fn line(steps: &[(i64, Seen)]) -> Timeline {
        let mut line = Timeline::default();
        steps.iter().for_each(|(at, seen)| line.push(Millis(*at), *seen));
        line
    }

    fn left_out(spans: Vec<Span>, range: Span) -> LeftOut {
        let spans = union(spans.into_iter().map(|span| span.cut(&range)).collect());
        LeftOut { ms: spans::total_ms(&spans), spans, off_hours_ms: 0 }
    }

    /// The same, a millisecond after the other.
    fn naive(line: &Timeline, through: Millis, range: Span, left_out: &[Span]) -> Tally {
        let at_moment = |at: i64| match line.steps().iter().rfind(|step| step.at().0 <= at) {
            Some(step) if at < through.0 => step.seen(),
            _ => Seen::Unknown,
        };
        let mut tally = Tally { devices: 1, ..Tally::default() };
        let mut outage = 0;
        let mut was = at_moment(range.from.0 - 1);
        for at in range.from.0..range.to.0 {
            let seen = at_moment(at);
            let is_out = left_out.iter().any(|span| span.from.0 <= at && at < span.to.0);
            if seen == Seen::Up {
                tally.outages += u64::from(outage > 0);
                outage = 0;
            }
            let is_change = matches!((was, seen), (Seen::Up, Seen::Down) | (Seen::Down, Seen::Up));
            was = seen;
            if is_out {
                tally.maintenance_ms += 1;
                continue;
            }
            tally.changes += u64::from(is_change);
            match seen {
                Seen::Up => tally.up_ms += 1,
                Seen::Unknown => tally.unknown_ms += 1,
                Seen::Down => {
                    tally.down_ms += 1;
                    outage += 1;
                    tally.longest_ms = tally.longest_ms.max(outage);
                }
            }
        }
        tally.outages += u64::from(outage > 0);
        tally
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]
        #[test]
        fn a_tally_is_what_counting_each_millisecond_gives(
            steps in prop::collection::vec((0i64..200, prop::sample::select(vec![Seen::Up, Seen::Down, Seen::Unknown])), 0..14),
            through in 0i64..220, from in 0i64..150, ms in 1i64..150,
            out in prop::collection::vec((0i64..200, 0i64..40), 0..5)
        ) {
            let mut steps = steps;
            steps.sort_by_key(|(at, _)| *at);
            let (line, range) = (line(&steps), Span::new(Millis(from), Millis(from + ms)));
            let out: Vec<Span> = out.into_iter().map(|(from, ms)| Span::new(Millis(from), Millis(from + ms))).collect();
            let expected = naive(&line, Millis(through), range, &out);
            let left_out = left_out(out, range);
            let found = tally(&line, Millis(through), range, &left_out);
            prop_assert_eq!(found, expected);
            prop_assert_eq!(found.up_ms + found.down_ms + found.unknown_ms + found.maintenance_ms, ms);
            prop_assert_eq!(changes(&line, Millis(through), range, &left_out).count() as u64, expected.changes);
        }
    }

    fn check(steps: &[(i64, Seen)], through: i64, range: (i64, i64), out: &[(i64, i64)], expected: &str) {
        let range = Span::new(Millis(range.0), Millis(range.1));
        let out = left_out(out.iter().map(|(from, to)| Span::new(Millis(*from), Millis(*to))).collect(), range);
        let t = tally(&line(steps), Millis(through), range, &out);
        let text = format!(
            "up {} down {} unknown {} maintenance {}, {} outages, longest {}, {} changes",
            t.up_ms, t.down_ms, t.unknown_ms, t.maintenance_ms, t.outages, t.longest_ms, t.changes
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn an_outage_across_the_ends_counts_as_far_as_it_lies_within() {
        let steps = [(0, Seen::Up), (40, Seen::Down), (60, Seen::Up), (90, Seen::Down)];
        check(&steps, 200, (50, 100), &[], "up 30 down 20 unknown 0 maintenance 0, 2 outages, longest 10, 2 changes");
        // A change at the first moment is of this time and not of the one before.
        check(&steps, 200, (40, 60), &[], "up 0 down 20 unknown 0 maintenance 0, 1 outages, longest 20, 1 changes");
        check(&steps, 200, (0, 40), &[], "up 40 down 0 unknown 0 maintenance 0, 0 outages, longest 0, 0 changes");
    }

    #[test]
    fn the_unknown_ends_no_outage() {
        let steps = [(0, Seen::Up), (10, Seen::Down), (20, Seen::Unknown), (30, Seen::Down), (40, Seen::Up)];
        check(&steps, 50, (0, 60), &[], "up 20 down 20 unknown 20 maintenance 0, 1 outages, longest 20, 2 changes");
    }

    #[test]
    fn what_was_up_during_maintenance_ends_an_outage() {
        let steps = [(0, Seen::Down), (20, Seen::Up), (30, Seen::Down)];
        check(&steps, 100, (0, 60), &[(15, 40)], "up 0 down 35 unknown 0 maintenance 25, 2 outages, longest 20, 0 changes");
        check(&steps, 100, (0, 60), &[(0, 60)], "up 0 down 0 unknown 0 maintenance 60, 0 outages, longest 0, 0 changes");
    }

    #[test]
    fn only_what_was_never_down_is_a_hundred_percent() {
        let tally = |up_ms, down_ms, unknown_ms| Tally { devices: 1, up_ms, down_ms, unknown_ms, ..Tally::default() };
        let month = 31 * 86_400_000;
        assert_eq!(tally(month, 0, 0).availability(), Some(100.0));
        assert_eq!(tally(month * 10_000, 1, 0).availability(), Some(99.9999));
        assert_eq!(tally(0, 0, 5).availability(), None);
        assert_eq!((tally(0, 0, 5).reason(), tally(0, 0, 0).reason()), (Some("not_observed"), Some("all_maintenance")));
        let t = tally(90, 5, 5);
        assert_eq!((t.at_least(), t.at_most(), t.coverage()), (Some(90.0), Some(95.0), Some(95.0)));
        // 99.9 % is not above 99.9 %.
        assert_eq!((tally(999, 1, 0).is_above(999_000), tally(99_901, 99, 0).is_above(999_000)), (Some(false), Some(true)));
    }
}

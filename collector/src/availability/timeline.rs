//! What one device has been, as steps, and how steps follow from what the ledger holds. Pure.
//!
//! A stream is known in *parts*: without lost transitions it is one, and each entry of lost transitions begins another.
//! What a device was in a part follows from the changes that were told in it and from no others: before the first of them
//! nobody knows. A change that is told anew after a loss counts from the end of the loss: what was in between nobody saw.

use shared::{Millis, Status};

use super::spans::Span;

/// What a device was, as far as availability cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Seen {
    /// Nobody can say.
    Unknown,
    /// It answered.
    Up,
    /// It was asked and didn't answer.
    Down,
}

impl From<Status> for Seen {
    fn from(status: Status) -> Self {
        match status {
            Status::Up => Self::Up,
            Status::Down => Self::Down,
            Status::Unknown(_) => Self::Unknown,
        }
    }
}

/// A moment from which on a device was something, in 8 bytes: 10,000 devices have millions of them in a year.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step(i64);

impl Step {
    /// Bits that hold what a device was; the moment stands above them.
    const BITS: u32 = 2;

    /// From `at` on it was `seen`.
    pub fn new(at: Millis, seen: Seen) -> Self {
        let code = match seen {
            Seen::Unknown => 0,
            Seen::Up => 1,
            Seen::Down => 2,
        };
        // Dates are plausible before they come here: 62 bits hold them.
        Self(at.0 << Self::BITS | code)
    }

    /// From when on.
    pub fn at(self) -> Millis {
        Millis(self.0 >> Self::BITS)
    }

    /// What it was from then on.
    pub fn seen(self) -> Seen {
        match self.0 & 3 {
            1 => Seen::Up,
            2 => Seen::Down,
            _ => Seen::Unknown,
        }
    }
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}@{}", self.seen(), self.at().0)
    }
}

/// The steps of one device in the order of time, each unlike the one before. Before the first it is unknown; the last
/// holds as far as its branch is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Timeline(Vec<Step>);

impl Timeline {
    /// Nothing was ever seen.
    pub const EMPTY: Self = Self(Vec::new());

    /// Goes on with a step. One that is dated before the last counts from there: what was told later came later.
    pub fn push(&mut self, at: Millis, seen: Seen) {
        let at = self.0.last().map_or(at, |last| last.at().max(at));
        if self.0.last().is_some_and(|last| last.at() == at) {
            self.0.pop();
        }
        if self.last() != seen {
            self.0.push(Step::new(at, seen));
        }
    }

    /// What it is at the end.
    pub fn last(&self) -> Seen {
        self.0.last().map_or(Seen::Unknown, |last| last.seen())
    }

    /// Forgets what was before a moment.
    pub fn forget_before(&mut self, horizon: Millis) {
        let first = self.0.partition_point(|step| step.at() <= horizon).saturating_sub(1);
        if first > 0 {
            self.0.drain(..first);
            self.0.shrink_to_fit();
        }
    }

    /// What it was just before a moment, and the steps from then on.
    pub fn from(&self, at: Millis) -> (Seen, &[Step]) {
        // Most questions are about the newest part: it is looked for from the end, in steps that double.
        let mut back = 32.min(self.0.len());
        while back < self.0.len() && self.0[self.0.len() - back].at() >= at {
            back = (back * 2).min(self.0.len());
        }
        let skipped = self.0.len() - back;
        let first = skipped + self.0[skipped..].partition_point(|step| step.at() < at);
        (first.checked_sub(1).map_or(Seen::Unknown, |before| self.0[before].seen()), &self.0[first..])
    }

    /// All steps.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }
}

/// A time of a branch in which nothing that its devices did is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// When.
    pub span: Span,
    /// Number of the stream that tells of it.
    pub stream: i64,
    /// Only changes of the stream above this number tell of it...
    pub after: u64,
    /// ...and below this one.
    pub before: u64,
}

/// A change of one device, as it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Number of the stream.
    pub stream: i64,
    /// Its place there.
    pub seq: u64,
    /// When it began.
    pub onset: Millis,
    /// What the device is from then on.
    pub to: Seen,
}

/// A device's steps, from the parts of its branch in the order of time and its changes by stream and place.
pub fn resolve(parts: &[Part], told: &[Told]) -> Timeline {
    let mut timeline = Timeline::default();
    let mut until = None;
    for part in parts {
        // What lies between two parts nobody saw.
        if let Some(end) = until.filter(|end| *end < part.span.from) {
            timeline.push(end, Seen::Unknown);
        }
        until = Some(part.span.to);
        let first = told.partition_point(|told| (told.stream, told.seq) <= (part.stream, part.after));
        let of_part = told[first..].iter().take_while(|told| told.stream == part.stream && told.seq < part.before);
        timeline.push(part.span.from, Seen::Unknown);
        for told in of_part {
            let at = part.span.from.max(told.onset);
            if at >= part.span.to {
                break;
            }
            timeline.push(at, told.to);
        }
    }
    timeline
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(parts: &str, told: &str, expected: &str) {
        let number = |text: &str| text.parse::<i64>().expect("a number");
        // stream:from-to or stream:from-to>after<before
        let parts: Vec<Part> = parts
            .split_whitespace()
            .map(|word| {
                let (stream, rest) = word.split_once(':').expect("stream:");
                let (rest, before) = rest.split_once('<').unwrap_or((rest, "1000"));
                let (span, after) = rest.split_once('>').unwrap_or((rest, "0"));
                let (from, to) = span.split_once('-').expect("from-to");
                Part {
                    span: Span::new(Millis(number(from)), Millis(number(to))),
                    stream: number(stream),
                    after: number(after).unsigned_abs(),
                    before: number(before).unsigned_abs(),
                }
            })
            .collect();
        // stream.seq:status@onset
        let told: Vec<Told> = told
            .split_whitespace()
            .map(|word| {
                let (place, change) = word.split_once(':').expect("place:");
                let (stream, seq) = place.split_once('.').expect("stream.seq");
                let (to, onset) = change.split_once('@').expect("status@onset");
                let to = match to {
                    "up" => Seen::Up,
                    "down" => Seen::Down,
                    _ => Seen::Unknown,
                };
                Told { stream: number(stream), seq: number(seq).unsigned_abs(), onset: Millis(number(onset)), to }
            })
            .collect();
        let text: Vec<String> = resolve(&parts, &told).steps().iter().map(|step| format!("{step:?}").to_lowercase()).collect();
        assert_eq!(text.join(" "), expected, "{parts:?} {told:?}");
    }

    #[test]
    fn steps_follow_the_changes_of_a_run() {
        check("1:10-100", "1.1:up@12 1.2:down@20 1.3:up@30", "up@12 down@20 up@30");
        check("1:10-100", "", "");
    }

    #[test]
    fn a_run_knows_nothing_before_its_first_verdict() {
        check("1:10-50 2:60-100", "1.1:up@12 2.1:up@65", "up@12 unknown@50 up@65");
        check("1:10-50 2:50-100", "1.1:up@12 2.1:down@55", "up@12 unknown@50 down@55");
    }

    #[test]
    fn what_is_told_anew_after_a_loss_counts_from_its_end_and_is_no_change() {
        let parts = "1:10-50>0<5 1:60-100>6<1000";
        check(parts, "1.1:up@12 1.8:up@12", "up@12 unknown@50 up@60");
        check(parts, "1.1:up@12 1.8:down@55", "up@12 unknown@50 down@60");
        check(parts, "1.1:up@12 1.8:down@70", "up@12 unknown@50 down@70");
        check(parts, "1.1:up@12", "up@12 unknown@50");
    }

    #[test]
    fn a_time_that_another_streams_loss_takes_out_ends_no_verdict() {
        check("1:10-50 1:60-100", "1.1:up@12", "up@12 unknown@50 up@60");
    }

    #[test]
    fn a_date_that_contradicts_the_order_is_moved_into_it() {
        check("1:10-100", "1.1:up@40 1.2:down@30 1.3:up@50", "down@40 up@50");
        check("1:10-100", "1.1:up@5", "up@10");
    }

    #[test]
    fn what_is_forgotten_leaves_what_holds_on() {
        let mut timeline = Timeline::default();
        for (at, seen) in [(1, Seen::Up), (5, Seen::Down), (9, Seen::Up)] {
            timeline.push(Millis(at), seen);
        }
        timeline.forget_before(Millis(7));
        assert_eq!(format!("{:?}", timeline.steps()), "[Down@5, Up@9]");
        assert_eq!(timeline.from(Millis(7)).0, Seen::Down);
    }
}

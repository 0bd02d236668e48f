//! Outages and exact status intervals, from transitions and from what was observed.
//!
//! Pure. What the ledger doesn't cover is unknown; an outage goes on through the unknown until the device is seen up.

use std::fmt;

use shared::{Cause, Millis, Status};

/// A change of one device's status, as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// When it began.
    pub onset: Millis,
    /// What the device is from then on.
    pub to: Status,
    /// The last reply before it, if it is a failure.
    pub last_ok: Option<Millis>,
    /// How far the onset's date may be off, in ms.
    pub error_ms: u32,
}

/// A time in which a branch's agent observed, from its first moment to before its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Covered {
    /// When a run of the agent began.
    pub from: Millis,
    /// How far its stream is known without a hole.
    pub to: Millis,
}

/// A device's status over a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// What it was.
    pub status: Status,
    /// From when.
    pub from: Millis,
    /// Until when.
    pub to: Millis,
}

/// A time in which a device was down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// First miss.
    pub from: Millis,
    /// Last reply before: the failure lies between the two.
    pub last_ok: Option<Millis>,
    /// First reply after, if there was one.
    pub to: Option<Millis>,
    /// How much of it nobody observed, in ms.
    pub unobserved_ms: i64,
    /// How far the dates may be off, in ms.
    pub error_ms: u32,
}

/// Status intervals between `from` and `to`, without holes or overlaps.
///
/// `changes` in the order of their onsets; the first may lie before `from`. `covered` in order, not overlapping.
pub fn intervals(changes: &[Change], covered: &[Covered], from: Millis, to: Millis) -> Vec<Interval> {
    let mut out: Vec<Interval> = Vec::new();
    let mut add = |status: Status, start: Millis, end: Millis| {
        let (start, end) = (start.max(from), end.min(to));
        if start >= end {
            return;
        }
        match out.last_mut() {
            Some(last) if last.status == status && last.to == start => last.to = end,
            Some(_) | None => out.push(Interval { status, from: start, to: end }),
        }
    };
    let mut at = from;
    for span in covered.iter().filter(|span| span.to > from && span.from < to) {
        add(Status::Unknown(Cause::AgentSilent), at, span.from);
        // A run knows nothing until its first verdict, so changes of earlier runs end with them.
        let mut status = Status::Unknown(Cause::NeverObserved);
        let mut since = span.from;
        for change in changes.iter().filter(|change| change.onset >= span.from && change.onset < span.to) {
            add(status, since, change.onset);
            (status, since) = (change.to, change.onset);
        }
        add(status, since, span.to);
        at = span.to.max(at);
    }
    add(Status::Unknown(Cause::AgentSilent), at, to);
    out
}

/// All outages that touch the time from `from` to `to`, each with its true bounds.
pub fn outages(changes: &[Change], covered: &[Covered], from: Millis, to: Millis) -> Vec<Outage> {
    let mut out: Vec<Outage> = Vec::new();
    let mut open: Option<Outage> = None;
    for change in changes {
        match change.to {
            Status::Down => {
                open.get_or_insert(Outage {
                    from: change.onset,
                    last_ok: change.last_ok,
                    to: None,
                    unobserved_ms: 0,
                    error_ms: change.error_ms,
                });
            }
            Status::Up => out.extend(open.take().map(|outage| Outage { to: Some(change.onset), ..outage })),
            // Nobody can say that it is up again.
            Status::Unknown(_) => {}
        }
    }
    out.extend(open);
    out.retain(|outage| outage.from < to && outage.to.is_none_or(|end| end > from));
    for outage in &mut out {
        let end = outage.to.unwrap_or(to);
        let observed: i64 = covered.iter().map(|span| span.to.min(end).since(span.from.max(outage.from)).max(0)).sum();
        outage.unobserved_ms = (end.since(outage.from) - observed).max(0);
    }
    out
}

/// What is known of a branch's devices over a time in which nobody heard of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// How long the time was, in ms.
    pub all_ms: i64,
    /// How much of it the branch's agent observed, in ms.
    pub observed_ms: i64,
    /// How many devices there are.
    pub devices: usize,
    /// How many of them answered in the time that was observed.
    pub answered: usize,
    /// How many of these failed to answer in some of it.
    pub failed: usize,
}

/// What answered between `from` and `to`, by each device's changes and by what was observed; see [`intervals`].
pub fn answered<'a>(
    devices: impl ExactSizeIterator<Item = &'a [Change]>,
    covered: &[Covered],
    from: Millis,
    to: Millis,
) -> Answered {
    let observed_ms = covered.iter().map(|span| span.to.min(to).since(span.from.max(from)).max(0)).sum();
    let mut seen = Answered { all_ms: to.since(from), observed_ms, devices: devices.len(), answered: 0, failed: 0 };
    for changes in devices {
        let intervals = intervals(changes, covered, from, to);
        let was = |status| intervals.iter().any(|interval| interval.status == status);
        seen.answered += usize::from(was(Status::Up));
        seen.failed += usize::from(was(Status::Up) && was(Status::Down));
    }
    seen
}

impl fmt::Display for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { all_ms, observed_ms, devices, answered, failed } = *self;
        let seconds = |ms: i64| ms.saturating_add(500) / 1_000;
        if observed_ms == 0 {
            return write!(f, "nobody observed its devices in these {} s", seconds(all_ms));
        }
        let (observed, all) = (seconds(observed_ms), seconds(all_ms));
        write!(f, "in the {observed} of {all} s that the agent observed, {answered} of {devices} devices answered")?;
        if failed > 0 { write!(f, ", {failed} of them not all the time") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(text: &str) -> Vec<Change> {
        text.split_whitespace()
            .map(|word| {
                let (status, at) = word.split_once('@').expect("status@time");
                let to = match status {
                    "up" => Status::Up,
                    "down" => Status::Down,
                    _ => Status::Unknown(Cause::ProbeError),
                };
                Change { onset: Millis(at.parse().expect("a time")), to, last_ok: None, error_ms: 0 }
            })
            .collect()
    }

    fn covered(text: &str) -> Vec<Covered> {
        text.split_whitespace()
            .map(|word| {
                let (from, to) = word.split_once('-').expect("from-to");
                Covered { from: Millis(from.parse().expect("a time")), to: Millis(to.parse().expect("a time")) }
            })
            .collect()
    }

    fn check(told: &str, cover: &str, range: (i64, i64), expected_intervals: &str, expected_outages: &str) {
        let (changes, covered) = (changes(told), covered(cover));
        let (from, to) = (Millis(range.0), Millis(range.1));
        let text: Vec<String> =
            intervals(&changes, &covered, from, to).iter().map(|i| format!("{}@{}-{}", i.status, i.from.0, i.to.0)).collect();
        assert_eq!(text.join(" "), expected_intervals, "{told} / {cover}");
        let text: Vec<String> = outages(&changes, &covered, from, to)
            .iter()
            .map(|o| {
                format!(
                    "{}-{}{}",
                    o.from.0,
                    o.to.map_or(String::new(), |t| t.0.to_string()),
                    if o.unobserved_ms > 0 { format!("({})", o.unobserved_ms) } else { String::new() }
                )
            })
            .collect();
        assert_eq!(text.join(" "), expected_outages, "{told} / {cover}");
    }

    #[test]
    fn intervals_follow_the_transitions_exactly() {
        check("up@10 down@20 up@30", "10-100", (0, 50), "unknown(agent_silent)@0-10 up@10-20 down@20-30 up@30-50", "20-30");
    }

    #[test]
    fn what_nobody_observed_is_unknown_and_the_outage_goes_on() {
        check(
            "up@10 down@20 down@60 up@70",
            "10-40 55-100",
            (0, 100),
            "unknown(agent_silent)@0-10 up@10-20 down@20-40 unknown(agent_silent)@40-55 unknown(never_observed)@55-60 down@60-70 up@70-100",
            "20-70(15)",
        );
    }

    #[test]
    fn an_outage_that_began_before_the_range_is_told_with_its_true_start() {
        check("down@10", "5-100", (50, 100), "down@50-100", "10-");
        check("down@10 up@20", "5-100", (50, 100), "up@50-100", "");
    }

    #[test]
    fn a_device_that_turned_unknown_is_not_up_again() {
        check(
            "up@0 down@10 unknown@20 down@30 up@40",
            "0-50",
            (0, 50),
            "up@0-10 down@10-20 unknown(probe_error)@20-30 down@30-40 up@40-50",
            "10-40",
        );
    }

    #[test]
    fn nothing_is_known_without_coverage() {
        check("", "", (0, 50), "unknown(agent_silent)@0-50", "");
    }

    #[test]
    fn what_answered_is_said_of_the_time_that_was_observed_alone() {
        let devices = ["up@0", "up@0 down@20500", "down@0", "up@0 down@1000 up@60000", ""].map(changes);
        let say = |covered_text: &str, from, to| {
            answered(devices.iter().map(Vec::as_slice), &covered(covered_text), Millis(from), Millis(to)).to_string()
        };
        assert_eq!(
            say("0-90000", 10_000, 50_000),
            "in the 40 of 40 s that the agent observed, 2 of 5 devices answered, 1 of them not all the time"
        );
        assert_eq!(say("0-12000", 10_000, 50_000), "in the 2 of 40 s that the agent observed, 2 of 5 devices answered");
        assert_eq!(say("0-9000 60000-90000", 10_000, 50_000), "nobody observed its devices in these 40 s");
    }
}

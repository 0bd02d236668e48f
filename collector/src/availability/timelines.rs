//! The timelines of all devices, and how far each branch is known. Pure: who loads them, and when, is others' business.
//!
//! What goes on where a branch stands is appended. What changes the past — late history, lost transitions, two agents for
//! one branch — makes the branch *stale*: its timelines are made anew from the ledger before anybody reads them.

use std::collections::HashMap;

use shared::{BranchId, Millis, StreamId};

use super::spans::Span;
use super::timeline::{Seen, Timeline};

/// How far back timelines are kept in memory, in ms: a year of months, and the one that runs.
pub const HORIZON_MS: i64 = 400 * 24 * 3_600_000;
/// How often what is older is forgotten, in ms.
const FORGET_EVERY_MS: i64 = 24 * 3_600_000;

/// What a commit has added to one branch's ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Whose stream.
    pub stream: StreamId,
    /// It is the first that is heard of the stream.
    pub begins: bool,
    /// When the stream's run began.
    pub began: Millis,
    /// How far the stream was known before, or when its run began.
    pub since: Millis,
    /// How far it is known now.
    pub observed: Millis,
    /// The stream's mark.
    pub through: u64,
    /// In which time transitions were lost, by this commit's word.
    pub lost: Option<Span>,
    /// Changes, in the order in which they were told: number of the device, onset, and what it is since.
    pub told: Vec<(u32, Millis, Seen)>,
}

/// How far a branch is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The stream that has come furthest.
    stream: StreamId,
    /// From when on it is known without a loss.
    part_from: Millis,
    /// Its mark.
    through: u64,
    /// How far it is known.
    observed: Millis,
}

/// How facts stand to what is known of their branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// The stream goes on.
    GoesOn,
    /// A new run begins after all that is known.
    Begins,
    /// What was known is so no more, in this time.
    Changes(Option<Span>),
}

impl Head {
    fn fit(&self, facts: &Facts) -> Fit {
        let known_before = |span: Span| Some(Span::new(span.from, span.to.min(self.observed))).filter(|span| !span.is_empty());
        if facts.stream == self.stream {
            return match facts.lost {
                None => Fit::GoesOn,
                Some(lost) => Fit::Changes(known_before(lost)),
            };
        }
        if facts.begins && facts.began >= self.observed && facts.lost.is_none() {
            return Fit::Begins;
        }
        let from = facts.lost.map_or(facts.since, |lost| lost.from.min(facts.since));
        Fit::Changes(known_before(Span::new(from, facts.observed)))
    }

    fn take(&mut self, facts: &Facts) {
        if facts.stream == self.stream {
            self.through = self.through.max(facts.through);
            self.observed = self.observed.max(facts.observed);
        } else if facts.observed > self.observed {
            *self = Self::of(facts);
        }
    }

    fn of(facts: &Facts) -> Self {
        Self { stream: facts.stream, part_from: facts.began, through: facts.through, observed: facts.observed }
    }
}

#[derive(Debug)]
struct BranchLine {
    head: Option<Head>,
    is_stale: bool,
    /// Grows with each change of the past: what was read before it is no longer so.
    generation: u64,
}

/// A branch's timelines as the ledger has them at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaded {
    /// The last part's stream, from when on it is known without a loss, its mark, and how far it is known.
    pub head: Option<(StreamId, Millis, u64, Millis)>,
    /// Each device's number and timeline.
    pub lines: Vec<(u32, Timeline)>,
}

/// All timelines.
#[derive(Debug, Default)]
pub struct Timelines {
    branches: HashMap<BranchId, BranchLine>,
    /// By the device's number in the collector's file.
    lines: Vec<Timeline>,
    forgotten_at: Option<Millis>,
}

const NOTHING: &Timeline = &Timeline::EMPTY;

impl Timelines {
    /// What changes in the past, and was known before, if these facts are taken one after the other: from when to when,
    /// and how far the branch was known.
    pub fn late<'a>(&self, branch: &BranchId, facts: impl Iterator<Item = &'a Facts>) -> Option<(Span, Millis)> {
        let mut head = self.branches.get(branch)?.head?;
        let mut late: Option<(Span, Millis)> = None;
        for fact in facts {
            if let Fit::Changes(Some(span)) = head.fit(fact) {
                let (known, frontier) = late.unwrap_or((span, head.observed));
                late = Some((Span::new(known.from.min(span.from), known.to.max(span.to)), frontier.max(head.observed)));
            }
            head.take(fact);
        }
        late
    }

    /// Takes over what was committed. `devices` are the numbers of the branch's devices.
    pub fn take(&mut self, branch: &BranchId, devices: impl Iterator<Item = u32>, facts: &Facts) {
        let line = Self::line_of(&mut self.branches, branch);
        let Some(mut head) = line.head else {
            line.head = Some(Head::of(facts));
            line.is_stale = true;
            line.generation += 1;
            return;
        };
        let fit = head.fit(facts);
        let end = head.observed;
        let is_known = facts.stream == head.stream && facts.through <= head.through;
        head.take(facts);
        line.head = Some(head);
        if fit != Fit::GoesOn && fit != Fit::Begins {
            line.is_stale = true;
        }
        if line.is_stale {
            // Whoever reads the ledger now may miss this.
            line.generation += 1;
            return;
        }
        // What was loaded since has it already.
        if is_known {
            return;
        }
        if fit == Fit::Begins {
            devices.for_each(|no| self.line_mut(no).push(end, Seen::Unknown));
        }
        for (no, onset, seen) in &facts.told {
            self.line_mut(*no).push(head.part_from.max(*onset), *seen);
        }
    }

    /// A branch's stream is known further, and nothing has changed.
    pub fn observed(&mut self, branch: &BranchId, stream: StreamId, observed: Millis) {
        if let Some(head) = self.branches.get_mut(branch).and_then(|line| line.head.as_mut()).filter(|head| head.stream == stream)
        {
            head.observed = head.observed.max(observed);
        }
    }

    /// Every branch has to be loaded before it is read.
    pub fn set_stale(&mut self) {
        for line in self.branches.values_mut() {
            line.is_stale = true;
            line.generation += 1;
        }
    }

    /// Whether a branch has to be loaded before it is read, and as of which generation.
    pub fn stale(&self, branch: &BranchId) -> Option<u64> {
        self.branches.get(branch).filter(|line| line.is_stale).map(|line| line.generation)
    }

    /// Takes over what was loaded while the branch had that generation. If it has another by now it stays stale.
    pub fn install(&mut self, branch: &BranchId, generation: u64, loaded: Loaded, now: Millis) {
        let line = Self::line_of(&mut self.branches, branch);
        line.is_stale &= line.generation != generation;
        if let Some((stream, part_from, through, observed)) = loaded.head {
            // A heartbeat may have vouched for more than the file says.
            let known = line.head.filter(|head| head.stream == stream).map_or(observed, |head| head.observed);
            let through = line.head.filter(|head| head.stream == stream && line.is_stale).map_or(through, |head| head.through);
            line.head = Some(Head { stream, part_from, through, observed: observed.max(known) });
        }
        for (no, mut timeline) in loaded.lines {
            timeline.forget_before(now.plus(-HORIZON_MS));
            *self.line_mut(no) = timeline;
        }
    }

    /// Forgets what is older than [`HORIZON_MS`], once a day.
    pub fn forget(&mut self, now: Millis) {
        if self.forgotten_at.is_some_and(|at| now.since(at).abs() < FORGET_EVERY_MS) {
            return;
        }
        self.forgotten_at = Some(now);
        self.lines.iter_mut().for_each(|line| line.forget_before(now.plus(-HORIZON_MS)));
    }

    /// A device's timeline.
    pub fn line(&self, no: u32) -> &Timeline {
        self.lines.get(no as usize).unwrap_or(NOTHING)
    }

    /// How far a branch is known.
    pub fn observed_through(&self, branch: &BranchId) -> Option<Millis> {
        Some(self.branches.get(branch)?.head?.observed)
    }

    fn line_of<'a>(branches: &'a mut HashMap<BranchId, BranchLine>, branch: &BranchId) -> &'a mut BranchLine {
        // Not `entry`: it would want a copy of the name each time.
        if !branches.contains_key(branch) {
            branches.insert(branch.clone(), BranchLine { head: None, is_stale: true, generation: 0 });
        }
        branches.get_mut(branch).expect("it was just put there")
    }

    fn line_mut(&mut self, no: u32) -> &mut Timeline {
        let at = no as usize;
        if self.lines.len() <= at {
            self.lines.resize_with(at + 1, Timeline::default);
        }
        &mut self.lines[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branch() -> BranchId {
        "m".parse().expect("an id")
    }

    fn facts(stream: u64, since: i64, observed: i64, through: u64, told: &[(u32, i64, Seen)]) -> Facts {
        Facts {
            stream: StreamId(stream),
            begins: through == 1,
            began: Millis(since),
            since: Millis(since),
            observed: Millis(observed),
            through,
            lost: None,
            told: told.iter().map(|(no, at, seen)| (*no, Millis(*at), *seen)).collect(),
        }
    }

    /// Branch m, known from 10 to 50, device 1 up since 12, device 2 down since 20.
    fn known() -> Timelines {
        let mut all = Timelines::default();
        all.take(&branch(), [1, 2].into_iter(), &facts(1, 10, 50, 3, &[]));
        let line = |at, seen| {
            let mut line = Timeline::default();
            line.push(Millis(at), seen);
            line
        };
        let lines = vec![(1, line(12, Seen::Up)), (2, line(20, Seen::Down))];
        let generation = all.stale(&branch()).expect("nothing was loaded yet");
        all.install(&branch(), generation, Loaded { head: Some((StreamId(1), Millis(10), 3, Millis(50))), lines }, Millis(60));
        assert_eq!(all.stale(&branch()), None);
        all
    }

    fn steps(all: &Timelines, no: u32) -> String {
        format!("{:?}", all.line(no).steps())
    }

    #[test]
    fn what_goes_on_is_appended_once() {
        let mut all = known();
        let more = facts(1, 50, 80, 4, &[(1, 60, Seen::Down)]);
        assert_eq!(all.late(&branch(), std::iter::once(&more)), None);
        all.take(&branch(), [1, 2].into_iter(), &more);
        all.take(&branch(), [1, 2].into_iter(), &more);
        assert_eq!((steps(&all, 1).as_str(), steps(&all, 2).as_str()), ("[Up@12, Down@60]", "[Down@20]"));
        assert_eq!((all.stale(&branch()), all.observed_through(&branch())), (None, Some(Millis(80))));
    }

    #[test]
    fn a_new_run_knows_nothing_from_where_the_one_before_ended() {
        let mut all = known();
        all.take(&branch(), [1, 2].into_iter(), &facts(2, 70, 80, 1, &[(1, 75, Seen::Up)]));
        assert_eq!((steps(&all, 1).as_str(), steps(&all, 2).as_str()), ("[Up@12, Unknown@50, Up@75]", "[Down@20, Unknown@50]"));
    }

    #[test]
    fn what_changes_the_past_is_named_and_makes_the_branch_stale() {
        let span = |from, to| Some((Span::new(Millis(from), Millis(to)), Millis(50)));
        let check = |facts: Facts, expected| {
            let mut all = known();
            assert_eq!(all.late(&branch(), std::iter::once(&facts)), expected, "{facts:?}");
            all.take(&branch(), [1, 2].into_iter(), &facts);
            assert!(all.stale(&branch()).is_some(), "{facts:?}");
        };
        // An earlier run that comes late, two agents for one branch, and a loss.
        check(facts(2, 20, 30, 1, &[]), span(20, 30));
        check(facts(2, 20, 70, 1, &[]), span(20, 50));
        let lost = |from, to| Facts { lost: Some(Span::new(Millis(from), Millis(to))), ..facts(1, 50, 80, 9, &[]) };
        check(lost(40, 60), span(40, 50));
        // A loss after all that is known changes nothing that anybody was told.
        check(lost(50, 60), None);
    }

    #[test]
    fn what_changed_while_it_was_loaded_is_loaded_again() {
        let mut all = known();
        all.take(&branch(), [1, 2].into_iter(), &facts(2, 20, 30, 1, &[]));
        let generation = all.stale(&branch()).expect("stale");
        all.take(&branch(), [1, 2].into_iter(), &facts(2, 30, 35, 2, &[]));
        all.install(&branch(), generation, Loaded::default(), Millis(60));
        assert!(all.stale(&branch()).is_some());
    }
}

//! Which entries of a batch are new, which were there before, and which are missing.
//!
//! Pure. `(branch, stream, seq)` identifies an entry for ever: whatever arrives twice, late or in part is taken once.

use shared::{Batch, Delta};

/// What to do with a batch, given that its stream is known up to some sequence number.
#[derive(Debug, PartialEq)]
pub enum Admission<'a> {
    /// Everything in it was there before.
    Known,
    /// Entries before it are still on their way: the agent has to send them first.
    Early,
    /// Take these.
    Take {
        /// Sequence numbers that the agent no longer holds and that never arrived, from and through.
        missing: Option<(u64, u64)>,
        /// The new entries, each with its first sequence number.
        entries: Vec<(u64, &'a Delta)>,
        /// The stream is known up to here afterwards.
        through: u64,
    },
}

/// Weighs a batch whose stream is known through `mark`.
pub fn admit(batch: &Batch, mark: u64) -> Admission<'_> {
    let last = batch.group.last();
    if last <= mark {
        return Admission::Known;
    }
    // What the agent no longer holds will never come.
    let base = mark.max(batch.oldest.min(batch.group.first).saturating_sub(1));
    if batch.group.first > base + 1 {
        return Admission::Early;
    }
    let mut seq = batch.group.first;
    let mut entries = Vec::new();
    for delta in &batch.group.deltas {
        let span = delta.span();
        if seq + span > base + 1 {
            entries.push((seq, delta));
        }
        seq += span;
    }
    Admission::Take { missing: (base > mark).then_some((mark + 1, base)), entries, through: last }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::{Body, Dating, Dropped, Gap, GapReason, Group, Millis, StreamId, Uptime};

    use super::*;

    /// A batch of gaps with the given spans: the only entries that stand for more than one number.
    fn batch(first: u64, oldest: u64, spans: &[u64]) -> Batch {
        let delta = |span: &u64| Delta {
            at: Uptime(0),
            body: Body::Gap(Gap {
                span: *span,
                from: Uptime(0),
                to: Uptime(0),
                reason: GapReason::BufferFull,
                dropped: Dropped::default(),
            }),
        };
        Batch {
            branch: "b".parse().expect("a valid id"),
            stream: StreamId(1),
            dating: Dating::Fixed { boot_at: Millis(0), error_ms: 0 },
            oldest,
            sent: None,
            observed_through: Uptime(0),
            group: Group { first, deltas: spans.iter().map(delta).collect() },
        }
    }

    fn check(mark: u64, first: u64, oldest: u64, spans: &[u64], expected: &str) {
        let batch = batch(first, oldest, spans);
        let text = match admit(&batch, mark) {
            Admission::Known => "known".to_owned(),
            Admission::Early => "early".to_owned(),
            Admission::Take { missing, entries, through } => {
                let seqs: Vec<u64> = entries.iter().map(|(seq, _)| *seq).collect();
                let missing = missing.map_or(String::new(), |(a, b)| format!("missing {a}-{b}, "));
                format!("{missing}{seqs:?} through {through}")
            }
        };
        assert_eq!(text, expected);
    }

    #[test]
    fn an_entry_is_taken_once() {
        check(0, 1, 1, &[1, 1], "[1, 2] through 2");
        check(2, 1, 1, &[1, 1], "known");
        check(1, 1, 1, &[1, 1], "[2] through 2");
    }

    #[test]
    fn a_batch_that_is_early_waits_for_the_one_before() {
        check(2, 4, 1, &[1], "early");
        check(2, 4, 3, &[1], "early");
    }

    #[test]
    fn what_the_agent_no_longer_holds_is_a_named_gap() {
        check(2, 6, 6, &[1], "missing 3-5, [6] through 6");
        check(0, 6, 6, &[1, 1], "missing 1-5, [6, 7] through 7");
    }

    #[test]
    fn an_entry_that_stands_for_many_numbers_is_taken_if_any_of_them_is_new() {
        check(5, 4, 4, &[4, 1], "[4, 8] through 8");
        check(7, 4, 4, &[4, 1], "[8] through 8");
    }

    proptest! {
        #[test]
        fn whatever_is_repeated_or_reordered_the_mark_never_goes_back(
            sends in prop::collection::vec((1u64..30, 1usize..5), 1..60)
        ) {
            let mut mark = 0;
            for (first, n) in sends {
                let batch = batch(first, 1, &vec![1; n]);
                if let Admission::Take { missing, entries, through } = admit(&batch, mark) {
                    prop_assert_eq!(missing, None);
                    prop_assert_eq!(entries.first().map(|(seq, _)| *seq), Some(mark + 1));
                    prop_assert!(through > mark);
                    mark = through;
                }
            }
        }
    }
}

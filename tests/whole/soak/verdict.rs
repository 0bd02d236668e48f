//! How well what is recorded fits the truth.

use anyhow::{Result, ensure};
use ward_tests::Change;
use ward_tests::api::Outage;

use crate::truth::{Spell, Within};

/// Transitions counted, and what is wrong with them.
#[derive(Default)]
pub(super) struct Verdict {
    /// Transitions that really were.
    pub(super) truth: usize,
    pub(super) recorded: usize,
    pub(super) missed: usize,
    pub(super) invented: usize,
    pub(super) worst_onset_ms: i64,
    /// Beginnings of which only the absence of an agent is known.
    pub(super) bounded: usize,
    pub(super) complaints: Vec<String>,
}

impl Verdict {
    /// Compares one device's outages with what was really done to it.
    pub(super) fn judge(&mut self, device: &str, truth: &[(Spell, Change)], outages: &[Outage]) {
        self.truth += 2 * truth.len();
        self.recorded += outages.iter().map(|outage| 1 + usize::from(outage.to_ms.is_some())).sum::<usize>();
        let mut left = outages.to_vec();
        for (spell, began) in truth {
            let Some(at) = left.iter().position(|outage| spell.began.contains(outage.from_ms)) else {
                self.missed += 2;
                self.complaints.push(format!("{device}: missed {spell:?}; recorded {outages:?}"));
                continue;
            };
            let outage = left.remove(at);
            if outage.to_ms.is_none_or(|to_ms| !spell.ended.contains(to_ms)) {
                self.missed += 1;
                self.invented += usize::from(outage.to_ms.is_some());
                self.complaints.push(format!("{device}: the end of {outage:?} should be that of {spell:?}"));
            }
            if spell.began.latest_ms > Within::of(*began).latest_ms {
                self.bounded += 1;
            } else {
                let error_ms = (outage.from_ms - began.after_ms).max(began.before_ms - outage.from_ms);
                self.worst_onset_ms = self.worst_onset_ms.max(error_ms);
            }
        }
        self.invented += left.iter().map(|outage| 1 + usize::from(outage.to_ms.is_some())).sum::<usize>();
        self.complaints.extend(left.iter().map(|outage| format!("{device}: invented {outage:?}; true {truth:?}")));
    }
}

/// VictoriaMetrics has a sample at each beginning and end of an outage, and none that contradicts them.
pub(super) fn charted(device: &str, outages: &[Outage], samples: &[(i64, f64)]) -> Result<()> {
    for Outage { from_ms, to_ms } in outages {
        ensure!(samples.contains(&(*from_ms, 0.0)), "{device}: no sample of 0 at {from_ms}: {samples:?}");
        ensure!(to_ms.is_none_or(|to_ms| samples.contains(&(to_ms, 1.0))), "{device}: no sample of 1 at {to_ms:?}: {samples:?}");
    }
    for (ms, value) in samples {
        let is_down = outages.iter().any(|outage| outage.from_ms <= *ms && outage.to_ms.is_none_or(|to_ms| *ms < to_ms));
        ensure!((*value == 0.0) == is_down, "{device}: a sample of {value} at {ms}, against {outages:?}");
    }
    Ok(())
}

#[test]
fn the_verdict_finds_what_is_missed_invented_and_misdated() {
    let change = |at_ms| Change { before_ms: at_ms, after_ms: at_ms + 10 };
    let truth = [(Spell::of(change(100_000), change(110_000)), change(100_000))];
    let check = |outages: &[(i64, Option<i64>)], expected: (usize, usize, usize, i64)| {
        let outages: Vec<Outage> = outages.iter().map(|&(from_ms, to_ms)| Outage { from_ms, to_ms }).collect();
        let mut verdict = Verdict::default();
        verdict.judge("d", &truth, &outages);
        let Verdict { recorded, missed, invented, worst_onset_ms, .. } = verdict;
        assert_eq!((recorded, missed, invented, worst_onset_ms), expected, "{outages:?}: {:?}", verdict.complaints);
        assert_eq!(verdict.complaints.is_empty(), missed + invented == 0, "{:?}", verdict.complaints);
    };
    check(&[(100_800, Some(110_900))], (2, 0, 0, 790));
    check(&[], (0, 2, 0, 0));
    check(&[(100_800, None)], (1, 1, 0, 790));
    check(&[(100_800, Some(110_900)), (130_000, Some(135_000))], (4, 0, 2, 790));
    check(&[(100_800, Some(104_000)), (105_000, Some(110_900))], (4, 1, 3, 790));
    check(&[(90_000, Some(110_900))], (2, 2, 2, 0));
}

#[test]
fn samples_that_contradict_the_outages_or_are_missing_are_found() {
    let outages = [Outage { from_ms: 1_000, to_ms: Some(5_000) }];
    let check = |samples: &[(i64, f64)], fits: bool| assert_eq!(charted("d", &outages, samples).is_ok(), fits, "{samples:?}");
    check(&[(500, 1.0), (1_000, 0.0), (3_000, 0.0), (5_000, 1.0), (9_000, 1.0)], true);
    check(&[(1_000, 0.0)], false);
    check(&[(5_000, 1.0)], false);
    check(&[(1_000, 0.0), (3_000, 1.0), (5_000, 1.0)], false);
    check(&[(1_000, 0.0), (5_000, 1.0), (7_000, 0.0)], false);
}

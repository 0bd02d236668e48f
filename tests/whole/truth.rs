//! What was really done to devices, and how closely ward has to know it.

use anyhow::{Result, ensure};
use ward_tests::api::Outage;
use ward_tests::{Change, eventually};

use crate::world::{Fault, PROBE, SOON, World};

/// What a date may be off beyond what probes can tell: a busy machine, and dating by acks.
const SLACK_MS: i64 = 500;

/// Between which moments something must be stated to have happened, UTC in ms.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Within {
    pub(crate) earliest_ms: i64,
    pub(crate) latest_ms: i64,
}

impl Within {
    /// At a change that was observed while it happened.
    pub(crate) fn of(change: Change) -> Self {
        Self { earliest_ms: change.before_ms - SLACK_MS, latest_ms: change.after_ms + PROBE.verdict_ms() + SLACK_MS }
    }

    /// At a change that may have been observed only by an agent that started at `start_ms`.
    pub(crate) fn of_unseen(change: Change, start_ms: i64) -> Self {
        Self { latest_ms: start_ms + 10_000, ..Self::of(change) }
    }

    pub(crate) fn contains(self, moment_ms: i64) -> bool {
        (self.earliest_ms..=self.latest_ms).contains(&moment_ms)
    }

    fn holds(self, what: &str, said_ms: i64) -> Result<()> {
        let late_ms = said_ms - self.latest_ms;
        let early_ms = self.earliest_ms - said_ms;
        ensure!(late_ms <= 0 && early_ms <= 0, "{what} is stated {late_ms} ms too late ({early_ms} ms too early), at {said_ms}");
        Ok(())
    }
}

/// An outage that is over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spell {
    pub(crate) began: Within,
    pub(crate) ended: Within,
}

impl Spell {
    /// Between two changes that were observed while they happened.
    pub(crate) fn of(began: Change, ended: Change) -> Self {
        Self { began: Within::of(began), ended: Within::of(ended) }
    }
}

impl From<Fault> for Spell {
    fn from(fault: Fault) -> Self {
        Self::of(fault.began, fault.ended)
    }
}

/// Waits until the API has as many outages of a device as really were, all over, and checks each.
pub(crate) async fn has_outages(world: &World<'_>, device: &str, truth: &[Spell]) {
    let outages: Vec<Outage> = eventually(SOON, &format!("{device} has {} outages, all over", truth.len()), async || {
        let outages = world.api().outages(device).await?;
        ensure!(outages.len() == truth.len() && outages.iter().all(|outage| outage.to_ms.is_some()), "{outages:?}");
        Ok(outages)
    })
    .await;
    for (n, (outage, spell)) in outages.iter().zip(truth).enumerate() {
        let began = spell.began.holds("its beginning", outage.from_ms);
        let ended = spell.ended.holds("its end", outage.to_ms.unwrap_or_default());
        if let Err(error) = began.and(ended) {
            panic!("outage {n} of {device}: {error}\n  said {outages:?}\n  true {truth:?}");
        }
    }
}

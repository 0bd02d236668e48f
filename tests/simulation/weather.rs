//! How much goes wrong in one simulated world, drawn by its seed.

use rand::Rng;
use rand::rngs::SmallRng;

/// What a branch's link is like, on a bad day.
pub(crate) struct Line {
    /// Share of messages that are lost, either way.
    pub(crate) loss: f64,
    /// Share of messages that arrive twice.
    pub(crate) duplication: f64,
    /// Longest time on the way, in ms. Each message takes its own, so they overtake one another.
    pub(crate) delay_ms: i64,
    /// Chance of a cut in each step, and of its end.
    pub(crate) cut: (f64, f64),
}

/// Chances are those of one step.
pub(crate) struct Weather {
    /// One line for each branch: the first is a good one, the second a bad one, the others are anything.
    pub(crate) lines: Vec<Line>,
    /// That an agent ends: its machine's power goes, it crashes, or somebody stops it.
    pub(crate) kill: f64,
    /// That a machine without power gets it back.
    pub(crate) power: f64,
    /// That an agent's disk turns bad, and that it heals.
    pub(crate) disk: (f64, f64),
    /// That a group on an agent's disk is not as it was written.
    pub(crate) rot: f64,
    /// That the collector dies, and that it is started again.
    pub(crate) collector: (f64, f64),
    /// That the collector's disk takes no more, and that it heals.
    pub(crate) ledger: (f64, f64),
    /// That somebody sets the collector's clock.
    pub(crate) clock: f64,
    /// Furthest that the clock is set at once, in ms.
    pub(crate) clock_step_ms: i64,
    /// That some device of a branch changes.
    pub(crate) flip: f64,
    /// Limit of the agents' buffers in bytes.
    pub(crate) limit_bytes: u64,
    /// Time between reports of qualities in ms.
    pub(crate) report_ms: i64,
    /// Reports are so large that a broken disk soon fills the memory.
    pub(crate) is_bulky: bool,
}

impl Weather {
    pub(crate) fn draw(branches: usize, rng: &mut SmallRng) -> Self {
        let lines = (0..branches).map(|branch| Line::draw(branch, rng)).collect();
        let is_bulky = rng.random_bool(0.02);
        Self {
            lines,
            kill: rare(rng, 0.3, 0.003),
            power: rng.random_range(0.003..0.05),
            disk: (rare(rng, 0.3, 0.01), rng.random_range(0.003..0.05)),
            rot: rare(rng, 0.7, 0.01),
            collector: (rare(rng, 0.3, 0.002), rng.random_range(0.005..0.05)),
            ledger: (rare(rng, 0.5, 0.003), rng.random_range(0.005..0.05)),
            clock: rare(rng, 0.7, 0.001),
            clock_step_ms: if rng.random() { 10_000 } else { 150_000 },
            flip: rng.random_range(0.002..0.08),
            limit_bytes: if rng.random() { 1024 * 1024 } else { rng.random_range(600..8_000) },
            report_ms: if is_bulky { 2_000 } else { [60_000, 5_000][rng.random_range(0..2)] },
            is_bulky,
        }
    }
}

impl Line {
    fn draw(branch: usize, rng: &mut SmallRng) -> Self {
        let heal = rng.random_range(0.002..0.05);
        match branch {
            0 => Self { loss: 0.0, duplication: 0.0, delay_ms: 80, cut: (rare(rng, 0.5, 0.002), heal) },
            1 => Self { loss: 0.3, duplication: 0.3, delay_ms: 3_000, cut: (0.01, heal) },
            _ => Self {
                loss: rare(rng, 0.3, 0.3),
                duplication: rare(rng, 0.3, 0.3),
                delay_ms: rng.random_range(20..3_000),
                cut: (rare(rng, 0.3, 0.01), heal),
            },
        }
    }
}

/// A chance up to `most`; none at all in that share of worlds.
fn rare(rng: &mut SmallRng, never: f64, most: f64) -> f64 {
    if rng.random_bool(never) { 0.0 } else { rng.random_range(0.0..most) }
}

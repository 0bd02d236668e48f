//! What a device was like over a time: exact status intervals from the ledger, round trips and loss by steps.

use shared::Millis;

use crate::store::MinuteRow;

/// Longest range in ms.
pub const RANGE_LIMIT_MS: i64 = 366 * DAY;
/// Shortest step: series have a point a minute.
pub const STEP_MIN_MS: i64 = Millis::MINUTE;
/// Most points of one answer.
pub const POINTS_LIMIT: i64 = 11_000;

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// One step of a history. Where nothing was observed there is none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Start of the step: it covers the minutes that end after it, up to and with its end.
    pub at: Millis,
    /// Mean of the minutes' loss in percent.
    pub packet_loss: f64,
    /// Shortest round trip in ms.
    pub rtt_min_ms: Option<f64>,
    /// Mean of the minutes' mean round trips in ms.
    pub rtt_avg_ms: Option<f64>,
    /// Longest round trip in ms.
    pub rtt_max_ms: Option<f64>,
}

/// The range that a name such as `24h` stands for, in ms.
pub fn named_range(name: &str) -> Option<i64> {
    match name {
        "30m" => Some(HOUR / 2),
        "1h" => Some(HOUR),
        "6h" => Some(6 * HOUR),
        "12h" => Some(12 * HOUR),
        "24h" => Some(DAY),
        "7d" => Some(7 * DAY),
        "30d" => Some(30 * DAY),
        "90d" => Some(90 * DAY),
        "365d" => Some(365 * DAY),
        _ => None,
    }
}

/// The step for a range unless the caller sets one.
pub fn step_for(range_ms: i64) -> i64 {
    let steps = [(DAY, 5 * Millis::MINUTE), (7 * DAY, 15 * Millis::MINUTE), (30 * DAY, HOUR), (90 * DAY, 3 * HOUR)];
    steps.into_iter().find(|(range, _)| range_ms <= *range).map_or(12 * HOUR, |(_, step)| step)
}

/// A range widened to whole steps.
pub fn aligned(from: Millis, to: Millis, step_ms: i64) -> (Millis, Millis) {
    let down = |at: i64| at.div_euclid(step_ms) * step_ms;
    (Millis(down(from.0)), Millis(down(to.0 + step_ms - 1)))
}

/// Sums minutes up to steps. `rows` in order, `from` on a whole step.
pub fn points(rows: &[MinuteRow], step_ms: i64) -> Vec<Point> {
    // A minute that ends exactly where a step ends belongs to it.
    let start = |row: &MinuteRow| (row.end.0 - 1).div_euclid(step_ms) * step_ms;
    rows.chunk_by(|a, b| start(a) == start(b)).filter_map(|chunk| point(Millis(start(chunk.first()?)), chunk)).collect()
}

/// Points with those of another source in the steps that they lack. Both in order.
pub fn filled(points: Vec<Point>, other: Vec<Point>) -> Vec<Point> {
    let mut all: Vec<Point> = points;
    all.extend(other);
    // The first of a step stays: the sort keeps their order.
    all.sort_by_key(|point| point.at);
    all.dedup_by_key(|point| point.at);
    all
}

fn point(at: Millis, rows: &[MinuteRow]) -> Option<Point> {
    let observed: Vec<_> = rows.iter().map(|row| row.minute).filter(|minute| minute.sent > 0).collect();
    if observed.is_empty() {
        return None;
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let loss: Vec<f64> = observed.iter().map(|m| 100.0 * f64::from(m.lost) / f64::from(m.sent)).collect();
    let rtt: Vec<_> = observed.iter().filter_map(|m| m.rtt).collect();
    let ms = |us: u32| f64::from(us) / 1000.0;
    let averages: Vec<f64> = rtt.iter().map(|r| ms(r.avg_us)).collect();
    Some(Point {
        at,
        packet_loss: mean(&loss),
        rtt_min_ms: rtt.iter().map(|r| r.min_us).min().map(ms),
        rtt_avg_ms: (!rtt.is_empty()).then(|| mean(&averages)),
        rtt_max_ms: rtt.iter().map(|r| r.max_us).max().map(ms),
    })
}

#[cfg(test)]
mod tests {
    use shared::Minute;
    use shared::delta::Rtt;

    use super::*;

    fn row(minute: i64, lost: u16, us: u32) -> MinuteRow {
        let rtt = (lost < 30).then_some(Rtt { min_us: us, avg_us: us + 1_000, max_us: us + 2_000, jitter_us: 0 });
        MinuteRow { end: Millis(minute * Millis::MINUTE), minute: Minute { sent: 30, lost, rtt } }
    }

    #[test]
    fn steps_that_one_source_lacks_are_the_others() {
        let of = |minutes: &[i64], us| points(&minutes.iter().map(|at| row(*at, 0, us)).collect::<Vec<_>>(), Millis::MINUTE);
        let all = filled(of(&[2, 5], 1_000), of(&[1, 2, 3, 5, 6], 9_000));
        let told: Vec<_> = all.iter().map(|point| (point.at.0 / Millis::MINUTE, point.rtt_min_ms)).collect();
        assert_eq!(told, [(0, Some(9.0)), (1, Some(1.0)), (2, Some(9.0)), (4, Some(1.0)), (5, Some(9.0))]);
    }

    #[test]
    fn a_step_sums_the_minutes_that_end_within_it() {
        let rows = [row(1, 0, 1_000), row(5, 15, 3_000), row(6, 30, 0), row(16, 3, 5_000)];
        let points = points(&rows, 5 * Millis::MINUTE);
        let text: Vec<String> = points
            .iter()
            .map(|p| format!("{}: {} {:?} {:?} {:?}", p.at.0 / 60_000, p.packet_loss, p.rtt_min_ms, p.rtt_avg_ms, p.rtt_max_ms))
            .collect();
        assert_eq!(
            text,
            [
                "0: 25 Some(1.0) Some(3.0) Some(5.0)",
                "5: 100 None None None",
                // Minutes 7 to 15 were not observed: there is no point, not a zero.
                "15: 10 Some(5.0) Some(6.0) Some(7.0)",
            ]
        );
    }

    #[test]
    fn the_step_follows_the_range() {
        for (range, minutes) in
            [(HOUR, 5), (DAY, 5), (DAY + 1, 15), (7 * DAY, 15), (30 * DAY, 60), (90 * DAY, 180), (365 * DAY, 720)]
        {
            assert_eq!(step_for(range), minutes * Millis::MINUTE, "{range}");
        }
        assert_eq!(named_range("24h"), Some(DAY));
        assert_eq!(named_range("2h"), None);
    }

    #[test]
    fn a_range_begins_and_ends_on_whole_steps() {
        assert_eq!(aligned(Millis(61_000), Millis(299_000), 60_000), (Millis(60_000), Millis(300_000)));
        assert_eq!(aligned(Millis(60_000), Millis(300_000), 60_000), (Millis(60_000), Millis(300_000)));
    }
}

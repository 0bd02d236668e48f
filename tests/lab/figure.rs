//! What a bench has measured, held against its goals.

#![expect(clippy::print_stdout, reason = "a bench prints a table")]

use std::process::ExitCode;

use serde_json::{Value, json};

/// One line of a bench's table.
#[derive(Debug, Clone)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// How much it was.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
    /// What it should be, where that was agreed.
    pub goal: Option<f64>,
    /// The goal is the most that is allowed; else it is the least.
    pub is_lower_better: bool,
}

impl Figure {
    /// A figure that is the better the lower it is.
    pub fn low(name: impl Into<String>, value: f64, unit: &'static str, goal: Option<f64>) -> Self {
        Self { name: name.into(), value, unit, goal, is_lower_better: true }
    }

    /// A figure that is the better the higher it is.
    pub fn high(name: impl Into<String>, value: f64, unit: &'static str, goal: Option<f64>) -> Self {
        Self { is_lower_better: false, ..Self::low(name, value, unit, goal) }
    }

    fn holds(&self) -> Option<bool> {
        self.goal.map(|goal| if self.is_lower_better { self.value <= goal } else { self.value >= goal })
    }
}

/// Prints a table, or one object a line; a failure when a goal is missed. `anchors` is what the figures were measured at.
pub fn print(figures: &[Figure], anchors: &Value, as_json: bool) -> ExitCode {
    for figure in figures {
        let Figure { name, value, unit, goal, is_lower_better } = figure;
        let (better, sign) = if *is_lower_better { ("lower", "<=") } else { ("higher", ">=") };
        if as_json {
            let line = json!({
                "figure": name, "value": value, "unit": unit, "goal": goal, "better": better, "holds": figure.holds(),
                "anchors": anchors,
            });
            println!("{line}");
        } else {
            let verdict = if figure.holds() == Some(true) { "holds" } else { "DOES NOT HOLD" };
            let goal = goal.map_or(String::new(), |goal| format!("goal {sign} {goal:<8} {verdict}"));
            println!("{name:<44} {value:>12.2} {unit:<6} {goal}");
        }
    }
    if figures.iter().any(|figure| figure.holds() == Some(false)) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The value below which this part of all lies, by the nearest rank; 0 of none.
pub fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank is less than the number of values")]
    let rank = (part * values.len() as f64).ceil() as usize;
    values.get(rank.max(1) - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let of = |values: &mut [f64], part| quantile(values, part).round() as i64;
        assert_eq!((of(&mut values, 0.5), of(&mut values, 0.99), of(&mut values, 1.0), of(&mut values, 0.0)), (50, 99, 100, 1));
        assert_eq!((of(&mut [7.0], 0.99), of(&mut [], 0.5)), (7, 0));
    }

    #[test]
    fn a_missed_goal_fails_a_bench() {
        let ends = |figure: Figure| format!("{:?}", print(&[figure], &json!({}), true));
        let (good, bad) = (format!("{:?}", ExitCode::SUCCESS), format!("{:?}", ExitCode::FAILURE));
        assert_eq!(ends(Figure::low("a", 2.0, "s", Some(2.0))), good);
        assert_eq!(ends(Figure::low("a", 2.1, "s", Some(2.0))), bad);
        assert_eq!(ends(Figure::high("a", 1.9, "s", Some(2.0))), bad);
        assert_eq!(ends(Figure::high("a", 1.9, "s", None)), good);
        assert_eq!(ends(Figure::low("a", f64::NAN, "s", Some(2.0))), bad);
    }
}

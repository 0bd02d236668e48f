//! Sets of moments, as spans in order that neither touch nor overlap. Pure.

use shared::Millis;

/// A time from its first moment to before its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The first moment.
    pub from: Millis,
    /// The first moment after.
    pub to: Millis,
}

impl Span {
    /// A span; empty if `to` doesn't lie after `from`.
    pub fn new(from: Millis, to: Millis) -> Self {
        Self { from, to }
    }

    /// Whether it has no moment.
    pub fn is_empty(&self) -> bool {
        self.from >= self.to
    }

    /// How long it is, in ms.
    pub fn ms(&self) -> i64 {
        self.to.since(self.from).max(0)
    }

    /// Whether two spans have a moment in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.from < other.to && other.from < self.to
    }

    /// The moments that two spans have in common.
    pub fn cut(&self, other: &Self) -> Self {
        Self { from: self.from.max(other.from), to: self.to.min(other.to) }
    }
}

/// All moments of some spans, in any order, as a set.
pub fn union(mut spans: Vec<Span>) -> Vec<Span> {
    spans.retain(|span| !span.is_empty());
    spans.sort_unstable();
    let mut out: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match out.last_mut() {
            Some(last) if span.from <= last.to => last.to = last.to.max(span.to),
            Some(_) | None => out.push(span),
        }
    }
    out
}

/// The moments of `set` that lie in none of `without`. Both are sets.
pub fn subtract(set: &[Span], without: &[Span]) -> Vec<Span> {
    let mut out = Vec::new();
    let mut first = 0;
    for span in set {
        let mut from = span.from;
        // What ends before this span ends before all that follow.
        while without.get(first).is_some_and(|hole| hole.to <= span.from) {
            first += 1;
        }
        for hole in without[first..].iter().take_while(|hole| hole.from < span.to) {
            out.push(Span::new(from, hole.from));
            from = from.max(hole.to);
        }
        out.push(Span::new(from, span.to));
    }
    out.retain(|span| !span.is_empty());
    out
}

/// The moments that lie in both sets.
pub fn intersect(a: &[Span], b: &[Span]) -> Vec<Span> {
    let mut out = Vec::new();
    let (mut i, mut j) = (0, 0);
    while let (Some(one), Some(other)) = (a.get(i), b.get(j)) {
        let common = one.cut(other);
        if !common.is_empty() {
            out.push(common);
        }
        if one.to <= other.to { i += 1 } else { j += 1 }
    }
    out
}

/// How long a set is, in ms.
pub fn total_ms(set: &[Span]) -> i64 {
    set.iter().map(Span::ms).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spans() -> impl Strategy<Value = Vec<Span>> {
        prop::collection::vec((0i64..60, 0i64..12), 0..8)
            .prop_map(|all| all.into_iter().map(|(from, ms)| Span::new(Millis(from), Millis(from + ms))).collect())
    }

    fn moments(set: &[Span]) -> Vec<i64> {
        set.iter().flat_map(|span| span.from.0..span.to.0).collect()
    }

    proptest! {
        #[test]
        fn sets_hold_the_moments_that_they_should(a in spans(), b in spans()) {
            let is_in = |spans: &[Span], at: i64| spans.iter().any(|span| span.from.0 <= at && at < span.to.0);
            let (one, other) = (union(a.clone()), union(b.clone()));
            let should = |test: &dyn Fn(i64) -> bool| (0..80).filter(|at| test(*at)).collect::<Vec<_>>();
            prop_assert_eq!(moments(&one), should(&|at| is_in(&a, at)));
            prop_assert_eq!(moments(&subtract(&one, &other)), should(&|at| is_in(&a, at) && !is_in(&b, at)));
            prop_assert_eq!(moments(&intersect(&one, &other)), should(&|at| is_in(&a, at) && is_in(&b, at)));
            prop_assert_eq!(total_ms(&one), moments(&one).len() as i64);
        }
    }
}

//! What the ledger knows of a branch's time, and each of its devices' steps.

use rusqlite::Connection;
use shared::{Millis, StreamId};

use super::ledger::{gaps, status};
use super::{GapRow, StoreError};
use crate::availability::spans::Span;
use crate::availability::timeline::{Part, Told, resolve};
use crate::availability::timelines::Loaded;

struct Run {
    no: i64,
    id: String,
    through: u64,
    span: Span,
}

/// The times in which a branch's agent observed and of which no transition is lost, in order, with the stream that tells
/// of each.
pub(super) fn parts(db: &Connection, branch: &str) -> Result<Vec<Part>, StoreError> {
    Ok(parts_of(&runs(db, branch)?, &gaps(db, branch)?))
}

fn runs(db: &Connection, branch: &str) -> Result<Vec<Run>, StoreError> {
    let mut rows = db.prepare_cached(
        "select no, stream, through, began_ms, observed_ms from stream where branch = ?1 order by began_ms, no",
    )?;
    let rows = rows.query_map([branch], |row| {
        let span = Span::new(Millis(row.get(3)?), Millis(row.get(4)?));
        Ok(Run { no: row.get(0)?, id: row.get(1)?, through: row.get::<_, i64>(2)?.unsigned_abs(), span })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn parts_of(runs: &[Run], gaps: &[GapRow]) -> Vec<Part> {
    let mut out: Vec<Part> = Vec::new();
    for run in runs {
        match out.last_mut() {
            _ if run.span.is_empty() => continue,
            // Another agent spoke for the branch for a while: the one that goes on is the one to believe.
            Some(last) if run.span.to <= last.span.to => continue,
            Some(last) => last.span.to = last.span.to.min(run.span.from),
            None => {}
        }
        out.push(Part { span: run.span, stream: run.no, after: 0, before: u64::MAX });
    }
    let lost: Vec<&GapRow> = gaps.iter().filter(|gap| gap.dropped.transitions > 0 || gap.dropped.unreadable > 0).collect();
    for gap in &lost {
        let around = |part: Part| {
            let before = Span::new(part.span.from, part.span.to.min(gap.from));
            let after = Span::new(part.span.from.max(gap.to), part.span.to);
            [before, after].into_iter().map(move |span| Part { span, ..part })
        };
        out = out.into_iter().flat_map(around).filter(|part| !part.span.is_empty()).collect();
    }
    for part in &mut out {
        for gap in lost.iter().filter(|gap| gap.stream == part.stream) {
            if gap.to <= part.span.from {
                part.after = part.after.max(gap.last);
            } else {
                part.before = part.before.min(gap.first);
            }
        }
    }
    out
}

/// The timelines of a branch's devices, all as of one moment.
pub fn timelines(db: &Connection, branch: &str, devices: &[u32]) -> Result<Loaded, StoreError> {
    // One view of the file, whatever is written meanwhile.
    let view = db.unchecked_transaction()?;
    let mut runs = runs(&view, branch)?;
    let mut loaded = Loaded::default();
    // Of two that have come equally far the first, as in the order of runs.
    let Some(furthest) = runs.iter_mut().rev().max_by_key(|run| run.span.to) else { return Ok(loaded) };
    let observed = furthest.span.to;
    // It goes on: what is told already holds on, also where nothing after it is known yet.
    furthest.span.to = Millis(i64::MAX);
    let id = u64::from_str_radix(&furthest.id, 16).map_err(|_| StoreError::Content(format!("the stream {:?}", furthest.id)))?;
    let through = furthest.through;
    let parts = parts_of(&runs, &gaps(&view, branch)?);
    loaded.head = Some((StreamId(id), parts.last().map_or(observed, |last| last.span.from), through, observed));
    for no in devices {
        loaded.lines.push((*no, resolve(&parts, &told(&view, *no)?)));
    }
    Ok(loaded)
}

/// A device's changes by stream and place.
fn told(db: &Connection, device: u32) -> Result<Vec<Told>, StoreError> {
    let mut rows =
        db.prepare_cached("select stream, seq, onset_ms, to_status from transition where device = ?1 order by stream, seq")?;
    let mut rows = rows.query([device])?;
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        out.push(Told {
            stream: row.get(0)?,
            seq: row.get::<_, i64>(1)?.unsigned_abs(),
            onset: Millis(row.get(2)?),
            to: status(row.get(3)?)?.into(),
        });
    }
    Ok(out)
}

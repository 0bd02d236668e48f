//! Deterministic simulation: the production cores of agents and collector in virtual time, over a network, clocks and
//! disks that lose, delay, duplicate, reorder, partition, fill up, break, are set wrong and crash by seed.
//!
//! The oracle holds two ledgers against one another: what the agents told, and what the collector recorded. They are
//! equal, or differ exactly by what is reported as lost; and the collector doesn't say that it knows that time. At no
//! moment is a device shown as what it has long ceased to be.
//!
//! `SIM_SEEDS` sets how many seeds are tried, `SIM_FIRST_SEED` the first. A failing seed is printed with the command
//! that replays it, and becomes a test of its own.

mod branch;
mod collector;
mod disk;
mod oracle;
mod weather;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use world::run;

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is no number")),
        Err(_) => default,
    }
}

/// Runs a seed; what fails, if anything does.
fn failure(seed: u64) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(|| run(seed))).err()?;
    let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
    Some(format!("seed {seed}: {text}\n  replay it with: SIM_FIRST_SEED={seed} SIM_SEEDS=1 tests/sim"))
}

#[test]
fn both_ledgers_agree_whatever_fails() {
    let first = number("SIM_FIRST_SEED", 1);
    let seeds = number("SIM_SEEDS", 200);
    let next = AtomicU64::new(first);
    let work = || {
        let drawn = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        drawn.take_while(|seed| *seed < first + seeds).filter_map(failure).collect::<Vec<_>>()
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let failed: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("each seed's panic is caught")).collect()
    });
    assert!(failed.is_empty(), "{} of {seeds} seeds fail\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn a_damaged_group_on_a_full_disk_does_not_hang_the_agent() {
    run(33);
    run(1102);
}

#[test]
fn a_damaged_group_takes_out_all_of_the_time_that_its_entries_tell_of() {
    run(17);
    run(108);
    run(259);
    run(38);
    run(1343);
}

#[test]
fn a_gap_that_grows_after_it_was_told_is_recorded_as_it_is() {
    run(71);
    run(93);
}

#[test]
fn a_branch_in_doubt_is_asked_for_its_states_until_it_has_told_them() {
    run(68);
    run(2035);
}

#[test]
fn what_can_not_be_dated_is_counted_to_the_entry() {
    run(359);
    run(1174);
}

#[test]
fn what_an_earlier_boot_told_says_nothing_of_the_present_by_a_clock_that_was_set_back() {
    run(346);
    run(553);
}

#[test]
fn groups_that_were_joined_by_a_commit_that_was_called_a_failure_shift_no_number() {
    run(574);
}

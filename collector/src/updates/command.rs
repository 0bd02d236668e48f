//! The commands for builds of the agent. They work beside a running collector, which follows within seconds.
#![expect(clippy::print_stdout, reason = "a command speaks on its terminal")]

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Subcommand;
use shared::update::{ANY_MACHINE, BUILD_LIMIT_BYTES, Offer, short};
use shared::{BranchId, Millis};
use ward_agent::slots::build_of;

use crate::clock;
use crate::enrolment::authority::Authority;
use crate::settings::Settings;
use crate::store::{self, Reach, Store};

/// What can be done with builds of the agent.
#[derive(Subcommand)]
pub enum Update {
    /// Take a build over and sign it, for the kind of machine that it is made for. Nobody gets it yet.
    Stage {
        /// The program `ward-agent`.
        file: PathBuf,
    },
    /// Offer what is staged to these branches, in place of those before.
    Canary {
        /// The branches' ids.
        #[arg(required = true)]
        branches: Vec<BranchId>,
    },
    /// Offer what is staged to every branch.
    RollOut {
        /// Also to those on metered lines.
        #[arg(long)]
        metered: bool,
        /// Although no canary has it in force.
        #[arg(long)]
        without_canary: bool,
    },
    /// Offer it to nobody any more. What is in force stays.
    Halt,
    /// List what is staged, whom it is for, and what each box runs.
    Status,
}

/// Does what was asked with builds.
///
/// # Errors
/// When a file can't be read or written, or is no program, or a branch isn't there.
pub fn update(settings: &Settings, what: Update) -> anyhow::Result<()> {
    ensure!(settings.enrolment.is_some(), "boxes take builds from a collector with an authority: the config has no [enrolment]");
    let mut store = Store::open(&settings.data_dir)?;
    match what {
        Update::Stage { file } => {
            let body = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
            let authority = Authority::open(&settings.data_dir, clock::now())?;
            // Boxes take nothing that was staged before what they run: a clock that was ahead must not shut out all that follows.
            let last = store::builds(store.connection())?.iter().map(|(offer, _)| offer.staged).max();
            let staged = last.map_or(clock::now(), |last| clock::now().max(last.plus(1)));
            let offer = offer(&authority, &file, &body, staged)?;
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            store.transaction(|db| {
                store::stage_build(db, &offer, &name, &body)?;
                store::note(
                    db,
                    clock::now(),
                    store::CLI,
                    ("update.stage", &name, &format!("{{\"machine\":{:?}}}", offer.machine)),
                )
            })?;
            println!("{} is staged for {}, {} B; it is offered to nobody yet", short(&offer.build), offer.machine, offer.size);
        }
        Update::Canary { branches } => {
            let reach = Reach { canaries: branches.iter().map(ToString::to_string).collect(), ..Reach::default() };
            for branch in &branches {
                ensure!(store::has_branch(store.connection(), branch.as_str())?, "the inventory has no branch {branch}");
            }
            offered(&mut store, &reach)?;
        }
        Update::RollOut { metered, without_canary } => {
            let untried = untried(&store)?;
            ensure!(
                without_canary || untried.is_empty(),
                "no box has {} in force: offer it to canaries first, or say --without-canary",
                untried.join(" and ")
            );
            let before = store::reach(store.connection())?;
            offered(&mut store, &Reach { everybody: true, metered, ..before })?;
        }
        Update::Halt => {
            store.transaction(|db| {
                store::set_reach(db, &Reach::default())?;
                store::note(db, clock::now(), store::CLI, ("update.halt", "", "{}"))
            })?;
            println!(
                "nothing is offered any more; boxes that fetch it or look at it in shadow leave it, one that tries it already \
                 decides by itself, and what is in force stays"
            );
        }
        Update::Status => status(&store)?,
    }
    Ok(())
}

fn offered(store: &mut Store, reach: &Reach) -> anyhow::Result<()> {
    ensure!(!store::builds(store.connection())?.is_empty(), "nothing is staged: ward-collector update stage FILE");
    store.transaction(|db| {
        store::set_reach(db, reach)?;
        store::note(db, clock::now(), store::CLI, ("update.offer", &words(reach), "{}"))
    })?;
    println!("offered to {}", words(reach));
    Ok(())
}

/// What is staged and in force on no box, in words.
fn untried(store: &Store) -> anyhow::Result<Vec<String>> {
    let running = store::programs(store.connection())?;
    let is_tried = |offer: &Offer| running.iter().any(|row| row.build == offer.build && row.stage == "in_force");
    let untried = store::builds(store.connection())?.into_iter().map(|(offer, _)| offer).filter(|offer| !is_tried(offer));
    Ok(untried.map(|offer| format!("{} for {}", short(&offer.build), offer.machine)).collect())
}

/// What a box has said, as a terminal may show it: a stolen one must not write elsewhere on the screen.
fn shown(said: &str) -> String {
    let harmless = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    said.chars().map(harmless).collect()
}

fn words(reach: &Reach) -> String {
    let canaries = reach.canaries.iter().cloned().collect::<Vec<_>>().join(" ");
    match (reach.everybody, reach.metered) {
        (true, true) => "every branch".to_owned(),
        (true, false) if canaries.is_empty() => "every branch that is not on a metered line".to_owned(),
        (true, false) => format!("every branch that is not on a metered line, and {canaries}"),
        (false, _) if canaries.is_empty() => "nobody".to_owned(),
        (false, _) => canaries,
    }
}

fn status(store: &Store) -> anyhow::Result<()> {
    let db = store.connection();
    for (offer, name) in store::builds(db)? {
        println!("staged   {}  {:<8} {:>9} B  {}  {name}", short(&offer.build), offer.machine, offer.size, offer.staged);
    }
    println!("offered  to {}", words(&store::reach(db)?));
    for row in store::programs(db)? {
        let why = row.why.map(|why| format!(": {}", shown(&why))).unwrap_or_default();
        println!(
            "{:<24} {}  {:<8} {:<8} {}{why}  ({})",
            row.branch,
            short(&row.build),
            shown(&row.machine),
            shown(&row.version),
            row.stage,
            row.told
        );
    }
    Ok(())
}

fn offer(authority: &Authority, file: &Path, body: &[u8], now: Millis) -> anyhow::Result<Offer> {
    ensure!(
        body.len() <= BUILD_LIMIT_BYTES,
        "{} has {} B, and the limit is {BUILD_LIMIT_BYTES} B: is it stripped?",
        file.display(),
        body.len()
    );
    let Some(machine) = machine(body) else { bail!("{} is no program for a machine that ward runs on", file.display()) };
    let size = u32::try_from(body.len())?;
    let mut offer = Offer { machine: machine.to_owned(), build: build_of(body), size, staged: now, signature: Vec::new() };
    offer.signature = authority.sign(&offer.signed());
    Ok(offer)
}

/// The kind of machine that a program is made for, as Rust names it.
fn machine(body: &[u8]) -> Option<&'static str> {
    if body.starts_with(b"#!") {
        return Some(ANY_MACHINE);
    }
    // An ELF file in little endian has its machine at byte 18.
    let is_little = body.starts_with(b"\x7fELF") && body.get(5) == Some(&1);
    let machine = u16::from_le_bytes([*body.get(18)?, *body.get(19)?]);
    match machine {
        _ if !is_little => None,
        0x28 => Some("arm"),
        0x3e => Some("x86_64"),
        0xb7 => Some("aarch64"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ward_agent::slots::is_signed;

    use super::*;

    #[test]
    fn a_program_says_itself_what_machine_it_is_for() {
        let own = std::fs::read("/proc/self/exe").expect("a running program has a file");
        assert_eq!(machine(&own), Some(std::env::consts::ARCH));
        assert_eq!(machine(b"#!/bin/sh\nexit 1\n"), Some(ANY_MACHINE));
        for none in [&b""[..], b"\x7fELF", b"hello", &[0; 64], b"\x7fELF\x02\x02\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0"] {
            assert_eq!(machine(none), None);
        }
    }

    #[test]
    fn what_a_box_says_moves_nothing_on_a_terminal() {
        assert_eq!(shown("it ended \u{1b}[2J\r\nvake in_force"), "it ended \\u{1b}[2J\\r\\nvake in_force");
        assert_eq!(shown("ვერ დაიწყო"), "ვერ დაიწყო");
    }

    #[test]
    fn a_roll_out_waits_for_a_box_that_has_each_build_in_force() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = Store::open(folder.path()).expect("made");
        let offer = |machine: &str, n: u8| Offer {
            machine: machine.into(),
            build: [n; 32],
            size: 1,
            staged: Millis(1),
            signature: vec![1],
        };
        let running = |n: u8, stage| shared::update::Running {
            machine: "arm".into(),
            build: [n; 32],
            version: "0.1.0".into(),
            offered: None,
            stage,
        };
        let vake: BranchId = "vake".parse().expect("a valid id");
        let done = store.transaction(|db| {
            store::stage_build(db, &offer("arm", 2), "a", b"a")?;
            store::put_program(db, &vake, &running(2, shared::update::Stage::Trial), Millis(1))
        });
        done.expect("written");
        assert_eq!(untried(&store).expect("read"), ["020202020202 for arm"]);
        let told = |db: &rusqlite::Transaction<'_>| {
            store::put_program(db, &vake, &running(2, shared::update::Stage::InForce), Millis(2))?;
            store::stage_build(db, &offer("aarch64", 3), "b", b"b")
        };
        store.transaction(told).expect("written");
        assert_eq!(untried(&store).expect("read"), ["030303030303 for aarch64"], "one for each kind of machine");
    }

    #[test]
    fn what_is_staged_is_signed_and_within_the_limit() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = Millis(1_795_442_400_000);
        let authority = Authority::open(folder.path(), now).expect("made");
        let body = b"#!/bin/sh\n";
        let made = offer(&authority, Path::new("build"), body, now).expect("good");
        assert!(is_signed(&made, &authority.config_key()));
        assert!(!is_signed(&Offer { size: 3, ..made }, &authority.config_key()));
        let large = vec![b'#'; BUILD_LIMIT_BYTES + 1];
        let error = offer(&authority, Path::new("build"), &large, now).expect_err("too large").to_string();
        assert_eq!(error, "build has 16777217 B, and the limit is 16777216 B: is it stripped?");
    }
}

//! Which program a box runs: the packaged one, which is always there, or a build in one of two slots beside it.
//!
//! What is decided here is on the card before it is done, so that a power cut at any moment leaves a program that works:
//! a build is counted before it is started, is in force only once the program before it has seen it work, and gives way to
//! the program before it when it ends again and again in its first day. Pure but for [`Place`].

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use shared::BootId;
use shared::update::{Build, Offer};

use crate::enrol;

/// A build that was started so often and never got on is not started again.
pub const STARTS_LIMIT: u32 = 3;

/// For how long a build in force is on probation, in ms of its running.
pub const PROBATION_MS: u64 = 86_400_000;
/// A build that ends so often in that time, and was not asked to, gives way.
pub const ENDS_LIMIT: u32 = 3;

/// Where a build lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Slot {
    /// The one.
    A,
    /// The other.
    B,
}

/// A build in a slot, with the collector's word for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Where it lies.
    pub slot: Slot,
    /// What it is.
    pub offer: Offer,
}

/// A build that runs in the present program's place, which watches it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// The build.
    pub held: Held,
    /// How often it was started since it last got on.
    pub starts: u32,
}

/// The first day of a build in force.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Probation {
    /// The build before it, while that is still in its slot.
    pub before: Option<Held>,
    /// For how long it has run, in ms.
    pub ran_ms: u64,
    /// The boot in which it was started; none once it has ended as it was asked to.
    pub runs_in: Option<BootId>,
    /// How often it has ended otherwise. A power cut is none of its faults.
    pub ends: u32,
}

/// What a box remembers of its programs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Slots {
    /// The packaged program, of which all this is true: another package has the first word again.
    pub floor: Build,
    /// The build in force, if it isn't the packaged program.
    pub good: Option<Held>,
    /// How often that was started since it last got on.
    pub starts: u32,
    /// Its first day, while it is in that.
    pub probation: Option<Probation>,
    /// The build that is tried.
    pub trial: Option<Trial>,
    /// The offer that was refused last, and why.
    pub refused: Option<(Offer, String)>,
}

impl Slots {
    /// Those of a box that has nothing but its package.
    pub fn of(floor: Build) -> Self {
        Self { floor, ..Self::default() }
    }

    /// As the box's file has it: postcard, and a CRC-32 of that in little endian.
    ///
    /// # Errors
    /// When there is no memory for that.
    pub fn encode(&self) -> postcard::Result<Vec<u8>> {
        let mut bytes = postcard::to_stdvec(self)?;
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        Ok(bytes)
    }

    /// Reads the box's file; nothing where it was damaged.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        let is_whole = crc32fast::hash(body) == u32::from_le_bytes(*crc);
        is_whole.then(|| postcard::from_bytes(body).ok()).flatten()
    }

    /// The packaged program begins in this boot. The slot that is to run in its place, counted as started.
    pub fn begin(&mut self, floor: Build, boot: BootId) -> Option<Slot> {
        if self.floor != floor {
            // Whoever installs a package means that program.
            *self = Self::of(floor);
        }
        if let Some(probation) = &mut self.probation {
            // Another boot begins where the power was cut, or somebody has restarted the machine.
            probation.ends = probation.ends.saturating_add(u32::from(probation.runs_in.take() == Some(boot)));
        }
        if self.starts >= STARTS_LIMIT {
            self.lose(format!("it was started {STARTS_LIMIT} times and never got on"));
        } else if self.probation.as_ref().is_some_and(|probation| probation.ends >= ENDS_LIMIT) {
            self.lose(format!("it ended {ENDS_LIMIT} times in its first day in force"));
        }
        let slot = self.good.as_ref()?.slot;
        self.starts += 1;
        if let Some(probation) = &mut self.probation {
            probation.runs_in = Some(boot);
        }
        Some(slot)
    }

    /// The build in force ends as it was asked to.
    pub fn ends(&mut self) {
        if let Some(probation) = &mut self.probation {
            probation.runs_in = None;
        }
    }

    /// The build in force has run for so much longer.
    pub fn ran(&mut self, ms: u64) {
        if let Some(probation) = &mut self.probation {
            probation.ran_ms = probation.ran_ms.saturating_add(ms);
            if probation.ran_ms >= PROBATION_MS {
                self.probation = None;
            }
        }
    }

    /// The build in force has got on for a while.
    pub fn got_on(&mut self) {
        self.starts = 0;
    }

    /// The build in force can't be it any more: the one before it is, or the packaged program, and has no trial of its own.
    pub fn lose(&mut self, why: String) {
        let before = self.probation.take().and_then(|probation| probation.before);
        if let Some(lost) = std::mem::replace(&mut self.good, before) {
            self.refused = Some((lost.offer, why));
        }
        (self.starts, self.trial) = (0, None);
    }

    /// The free slot is about to be written: what lay there is gone.
    pub fn clear(&mut self) {
        if let Some(probation) = &mut self.probation {
            probation.before = None;
        }
    }

    /// The slot that a new build may lie in.
    pub fn free(&self) -> Slot {
        match &self.good {
            Some(Held { slot: Slot::A, .. }) => Slot::B,
            Some(Held { slot: Slot::B, .. }) | None => Slot::A,
        }
    }

    /// Why an offer isn't taken, if so.
    pub fn objection(&self, offer: &Offer) -> Option<String> {
        if let Some((_, why)) = self.refused.as_ref().filter(|(refused, _)| refused == offer) {
            return Some(why.clone());
        }
        let is_older = self.good.as_ref().is_some_and(|held| offer.staged < held.offer.staged);
        is_older.then(|| "it was staged before the build in force".to_owned())
    }

    /// The build in the free slot is to be tried.
    pub fn propose(&mut self, offer: Offer) {
        self.clear();
        self.trial = Some(Trial { held: Held { slot: self.free(), offer }, starts: 0 });
    }

    /// The build that is tried is about to be started; where it lies. None where it has had its chances, or nothing is tried.
    pub fn try_it(&mut self) -> Option<Slot> {
        let trial = self.trial.as_mut()?;
        if trial.starts >= STARTS_LIMIT {
            self.refuse(format!("it ended {STARTS_LIMIT} times in its trial"));
            return None;
        }
        trial.starts += 1;
        Some(trial.held.slot)
    }

    /// The build that is tried has got on for a while: a power cut from now on is none of its faults.
    pub fn trial_got_on(&mut self) {
        if let Some(trial) = &mut self.trial {
            trial.starts = 0;
        }
    }

    /// The build that is tried is bad.
    pub fn refuse(&mut self, why: String) {
        if let Some(trial) = self.trial.take() {
            self.refused = Some((trial.held.offer, why));
        }
    }

    /// The build that is tried works: it is in force from now on.
    pub fn confirm(&mut self) {
        if let Some(trial) = self.trial.take() {
            let before = self.good.replace(trial.held);
            self.probation = Some(Probation { before, ..Probation::default() });
            (self.starts, self.refused) = (0, None);
        }
    }
}

/// The SHA-256 of a program.
pub fn build_of(bytes: &[u8]) -> Build {
    let mut build = [0; 32];
    build.copy_from_slice(digest(&SHA256, bytes).as_ref());
    build
}

/// Whether an offer is signed by the collector whose public key this is.
pub fn is_signed(offer: &Offer, key: &[u8; 32]) -> bool {
    UnparsedPublicKey::new(&ED25519, key).verify(&offer.signed(), &offer.signature).is_ok()
}

/// The folder of the slots, below the state folder.
#[derive(Debug, Clone)]
pub struct Place {
    folder: PathBuf,
    key: [u8; 32],
}

impl Place {
    /// That of a state folder; `key` is what the collector signs by.
    pub fn new(state_dir: &Path, key: [u8; 32]) -> Self {
        Self { folder: state_dir.join("slots"), key }
    }

    /// The file of a slot's build.
    pub fn program(&self, slot: Slot) -> PathBuf {
        self.folder.join(match slot {
            Slot::A => "a",
            Slot::B => "b",
        })
    }

    /// What the box remembers; nothing where that can't be read: then the package counts.
    pub fn read(&self) -> Option<Slots> {
        let bytes = std::fs::read(self.folder.join("state")).ok()?;
        Slots::decode(&bytes)
    }

    /// Remembers it, so that a power cut leaves what was remembered before or this.
    ///
    /// # Errors
    /// When the card doesn't take it.
    pub fn keep(&self, slots: &Slots) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.folder).with_context(|| format!("making {}", self.folder.display()))?;
        let bytes = slots.encode().context("writing what a box remembers of its programs")?;
        enrol::write(&self.folder.join("state"), &bytes, 0o600)
    }

    /// Puts a build into a slot.
    ///
    /// # Errors
    /// When it isn't what was offered, or the card doesn't take it.
    pub fn put(&self, slot: Slot, offer: &Offer, bytes: &[u8]) -> anyhow::Result<()> {
        self.check(offer, bytes)?;
        std::fs::create_dir_all(&self.folder).with_context(|| format!("making {}", self.folder.display()))?;
        enrol::write(&self.program(slot), bytes, 0o700)
    }

    /// Whether a slot has what it should: a card forgets, and whoever got into the program must not stay by a file of theirs.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn inspect(&self, held: &Held) -> anyhow::Result<PathBuf> {
        let path = self.program(held.slot);
        let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        self.check(&held.offer, &bytes)?;
        Ok(path)
    }

    fn check(&self, offer: &Offer, bytes: &[u8]) -> anyhow::Result<()> {
        ensure!(is_signed(offer, &self.key), "it isn't signed by the collector");
        ensure!(bytes.len() == offer.size as usize && build_of(bytes) == offer.build, "it isn't what the collector has signed");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::signature::{Ed25519KeyPair, KeyPair};
    use shared::Millis;

    use super::*;

    const FLOOR: Build = [9; 32];
    const BOOT: BootId = BootId(1);

    fn offer(n: u8) -> Offer {
        Offer {
            machine: "arm".into(),
            build: [n; 32],
            size: 1,
            staged: Millis(1_795_442_400_000 + i64::from(n)),
            signature: vec![],
        }
    }

    #[test]
    fn a_build_that_ends_again_and_again_gives_way_to_the_package() {
        let mut slots = Slots::of(FLOOR);
        slots.propose(offer(1));
        assert_eq!(slots.try_it(), Some(Slot::A));
        slots.confirm();
        for _ in 0..STARTS_LIMIT {
            assert_eq!(slots.begin(FLOOR, BOOT), Some(Slot::A));
        }
        assert_eq!(slots.begin(FLOOR, BOOT), None, "the packaged program");
        assert_eq!(slots.objection(&offer(1)).as_deref(), Some("it was started 3 times and never got on"));
        assert_eq!(slots.objection(&offer(2)), None);
    }

    #[test]
    fn what_got_on_may_be_started_for_ever() {
        let mut slots = Slots::of(FLOOR);
        slots.propose(offer(1));
        slots.confirm();
        for boot in 0..10 {
            // Power cuts, and then restarts that somebody asks for.
            assert_eq!(slots.begin(FLOOR, BootId(boot)), Some(Slot::A));
            slots.got_on();
        }
        for _ in 0..10 {
            slots.ends();
            assert_eq!(slots.begin(FLOOR, BOOT), Some(Slot::A));
            slots.got_on();
        }
        slots.ran(PROBATION_MS - 1);
        assert!(slots.probation.is_some());
        slots.ran(1);
        for _ in 0..10 {
            assert_eq!(slots.begin(FLOOR, BOOT), Some(Slot::A), "it ends after its first day");
            slots.got_on();
        }
        slots.propose(offer(2));
        for _ in 0..10 {
            assert_eq!(slots.try_it(), Some(Slot::B), "never the slot of the build in force");
            slots.trial_got_on();
        }
    }

    #[test]
    fn a_build_in_force_that_watches_another_for_long_is_not_lost_for_it() {
        let mut slots = Slots::of(FLOOR);
        slots.propose(offer(1));
        slots.confirm();
        slots.propose(offer(2));
        // Power cuts while nothing can be decided, as the line is cut; each time both get on.
        for boot in 0..10 {
            assert_eq!(slots.begin(FLOOR, BootId(boot)), Some(Slot::A));
            assert_eq!(slots.try_it(), Some(Slot::B));
            slots.trial_got_on();
            slots.got_on();
        }
        assert!(slots.trial.is_some() && slots.refused.is_none());
    }

    #[test]
    fn a_build_that_ends_late_again_and_again_in_its_first_day_gives_way_to_the_one_before() {
        let mut slots = Slots::of(FLOOR);
        slots.propose(offer(1));
        slots.confirm();
        slots.ran(PROBATION_MS);
        slots.propose(offer(2));
        slots.confirm();
        for hours in [0, 7, 14] {
            assert_eq!(slots.begin(FLOOR, BOOT), Some(Slot::B), "after {hours} h");
            slots.got_on();
            slots.ran(7 * 3_600_000);
        }
        assert_eq!(slots.begin(FLOOR, BOOT), Some(Slot::A), "the build before");
        assert_eq!(slots.objection(&offer(2)).as_deref(), Some("it ended 3 times in its first day in force"));
        assert!(slots.probation.is_none() && slots.trial.is_none());
        // Where another lies in its slot since, the package is what is left.
        slots.propose(offer(3));
        slots.confirm();
        slots.clear();
        for _ in 0..ENDS_LIMIT {
            assert_eq!(slots.begin(FLOOR, BOOT), Some(Slot::B));
            slots.got_on();
        }
        assert_eq!(slots.begin(FLOOR, BOOT), None);
    }

    #[test]
    fn another_package_has_the_first_word() {
        let mut slots = Slots::of(FLOOR);
        slots.propose(offer(1));
        slots.confirm();
        assert_eq!(slots.begin([8; 32], BOOT), None);
        assert_eq!(slots, Slots::of([8; 32]));
    }

    #[test]
    fn nothing_goes_back_behind_the_build_in_force() {
        let mut slots = Slots::of(FLOOR);
        slots.propose(offer(5));
        slots.confirm();
        assert!(slots.objection(&offer(4)).is_some_and(|why| why.contains("before the build in force")));
        assert_eq!(slots.objection(&offer(6)), None);
    }

    #[test]
    fn a_slot_whose_file_was_changed_or_is_not_signed_is_not_started() {
        let folder = tempfile::tempdir().expect("a folder");
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key");
        let mut key = [0; 32];
        key.copy_from_slice(pair.public_key().as_ref());
        let place = Place::new(folder.path(), key);
        let mut good = Offer { build: build_of(b"program"), size: 7, ..offer(1) };
        assert!(place.put(Slot::A, &good, b"program").is_err(), "not signed");
        good.signature = pair.sign(&good.signed()).as_ref().to_vec();
        assert!(place.put(Slot::A, &good, b"Program").is_err(), "not what was signed");
        place.put(Slot::A, &good, b"program").expect("kept");
        let held = Held { slot: Slot::A, offer: good };
        assert_eq!(place.inspect(&held).expect("as it was kept"), place.program(Slot::A));
        std::fs::write(place.program(Slot::A), "another").expect("the test's own folder");
        assert!(place.inspect(&held).is_err());
    }

    #[test]
    fn what_is_remembered_is_read_as_it_was_written_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = Place::new(folder.path(), [0; 32]);
        assert_eq!(place.read(), None);
        let mut slots = Slots::of(FLOOR);
        slots.propose(offer(1));
        place.keep(&slots).expect("kept");
        assert_eq!(place.read(), Some(slots));
        let path = folder.path().join("slots/state");
        let bytes = std::fs::read(&path).expect("there");
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 1;
            std::fs::write(&path, &bent).expect("the test's own folder");
            assert_eq!(place.read(), None, "byte {at}");
        }
    }

    /// What a build does when it runs.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Nature {
        /// It works.
        Works,
        /// It ends at once.
        Ends,
        /// It gets on, and nobody hears of it.
        Mute,
    }

    /// A box: its card, and what of it was lost by power cuts.
    struct Machine {
        card: Slots,
        memory: Slots,
        natures: Vec<Nature>,
        boots: u128,
    }

    impl Machine {
        fn nature(&self, offer: &Offer) -> Nature {
            self.natures[usize::from(offer.build[0])]
        }

        /// Writes it down, unless the power goes just before or just after; whether it goes.
        fn keep(&mut self, cut: u8) -> bool {
            if cut != 1 {
                self.card = self.memory.clone();
            }
            let is_cut = cut == 1 || cut == 2;
            if is_cut {
                self.memory = self.card.clone();
            }
            is_cut
        }

        /// The box starts; whether somebody probes then. `cuts` says at which writings the power goes.
        fn start(&mut self, cuts: &mut impl Iterator<Item = u8>) -> bool {
            let mut cut = || cuts.next().unwrap_or(0);
            self.memory = self.card.clone();
            // Each start follows a power cut.
            self.boots += 1;
            let started = self.memory.begin(FLOOR, BootId(self.boots));
            if self.keep(cut()) {
                return false;
            }
            if started.is_some() {
                let nature = self.memory.good.as_ref().map(|held| self.nature(&held.offer));
                if nature == Some(Nature::Ends) {
                    return false;
                }
            }
            // The program that runs watches what is tried.
            while self.memory.trial.is_some() {
                let slot = self.memory.try_it();
                if self.keep(cut()) {
                    return false;
                }
                let (Some(slot), Some(trial)) = (slot, self.memory.trial.clone()) else { break };
                assert_ne!(Some(slot), self.memory.good.as_ref().map(|held| held.slot), "the build in force is kept");
                match self.nature(&trial.held.offer) {
                    Nature::Ends => continue,
                    Nature::Mute => self.memory.refuse("the collector hears nothing".into()),
                    Nature::Works => self.memory.confirm(),
                }
                if self.keep(cut()) {
                    return false;
                }
            }
            self.memory.got_on();
            !self.keep(cut())
        }
    }

    proptest! {
        #[test]
        fn wherever_the_power_goes_a_program_that_works_is_left(
            natures in prop::collection::vec(prop::sample::select(vec![Nature::Works, Nature::Ends, Nature::Mute]), 8),
            cuts in prop::collection::vec(0u8..6, 0..60),
            offered in prop::collection::vec(0u8..8, 1..12),
        ) {
            let mut cuts = cuts.into_iter();
            let mut machine = Machine { card: Slots::of(FLOOR), memory: Slots::of(FLOOR), natures, boots: 0 };
            for n in offered {
                if machine.card.objection(&offer(n)).is_none() {
                    machine.memory.propose(offer(n));
                    machine.keep(cuts.next().unwrap_or(0));
                }
                machine.start(&mut cuts);
                let good = machine.card.good.clone();
                prop_assert!(good.is_none_or(|held| machine.nature(&held.offer) == Nature::Works), "only what works is in force");
            }
            // Once the power stays, the next start has a program that probes, and nothing bad is left to try.
            prop_assert!(machine.start(&mut std::iter::repeat(0)));
            prop_assert!(machine.card.trial.is_none());
        }

        #[test]
        fn a_build_that_no_longer_works_is_left_after_three_starts(natures in Just(vec![Nature::Ends; 8]), n in 0u8..8) {
            let mut machine = Machine { card: Slots::of(FLOOR), memory: Slots::of(FLOOR), natures, boots: 0 };
            machine.memory.propose(offer(n));
            // It had worked, and the card has changed since.
            machine.memory.confirm();
            machine.keep(0);
            let started = (0..4).map(|_| machine.start(&mut std::iter::repeat(0))).collect::<Vec<_>>();
            prop_assert_eq!(started, [false, false, false, true]);
        }
    }
}

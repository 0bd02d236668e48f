//! What the collector offers becomes the program of this box: fetched, looked at beside the present one, then tried in its place.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use shared::message::Answer;
use shared::update::{BUILD_LIMIT_BYTES, Build, Offer, PART_BYTES, Reply, Running, Stage, Wish, cut};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::guardian::{self, Unheard};
use crate::keeper::Standing;
use crate::plan::Plan;
use crate::settings::{Enrolment, Settings};
use crate::shadow::{self, Finding};
use crate::slots::{Held, PROBATION_MS, Place, Slots, is_signed};
use crate::watch::Tally;
use crate::{clock, enrol, tls};

/// The kind of machine that this program was made for.
pub const MACHINE: &str = std::env::consts::ARCH;
/// How often a build is looked at that doesn't see what the program in force sees. Once may be chance.
const SHADOWS: u32 = 2;
/// How often it is noted for how long a build has run that is on probation, in ms.
const NOTE_EVERY_MS: u64 = 3_600_000;
/// How often the collector is asked whether it hears a build on probation that has no reason to doubt it, in ms.
const ASK_EVERY_MS: u64 = 1_800_000;
/// Longest pause between two parts of a build: a line is there for more than that.
const PAUSE_LIMIT: Duration = Duration::from_secs(10);

/// What this program is.
#[derive(Debug, Clone)]
pub struct Present {
    /// Its SHA-256.
    pub build: Build,
    /// The config file that it runs by.
    pub config: PathBuf,
    /// Whether it is tried: then it has a guardian, and takes no other build.
    pub is_tried: bool,
    /// Whether it is the packaged program.
    pub is_floor: bool,
    /// Cancelled when it is to end for another.
    pub restart: CancellationToken,
}

/// What the stage listens to and speaks to.
pub struct Ends {
    /// What the collector offers.
    pub offers: watch::Receiver<Vec<Offer>>,
    /// Where answers go.
    pub answers: mpsc::Sender<Answer>,
    /// What devices are now.
    pub tally: watch::Receiver<Tally>,
    /// The config in force.
    pub plan: watch::Receiver<Arc<Plan>>,
    /// The present stream, and the time.
    pub standing: watch::Receiver<Standing>,
    /// Cancelled when the program is to end.
    pub shutdown: CancellationToken,
}

/// Why a build is not in force.
enum Failure {
    /// It never will be.
    Bad(String),
    /// It may be yet.
    Unclear(String),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Unclear(format!("{error:#}"))
    }
}

/// What the box remembers of its programs. Changes take turns: each reads what the one before has written.
#[derive(Clone)]
struct Memory {
    place: Place,
    build: Build,
    turn: Arc<Mutex<()>>,
}

impl Memory {
    // A card may hang, and the probes don't wait for it.
    async fn change(&self, change: impl FnOnce(&mut Slots) + Send + 'static) -> anyhow::Result<()> {
        let _turn = self.turn.lock().await;
        let (place, build) = (self.place.clone(), self.build);
        let changed = spawn_blocking(move || {
            // Only the packaged program runs without a memory.
            let mut slots = place.read().unwrap_or_else(|| Slots::of(build));
            change(&mut slots);
            place.keep(&slots)
        });
        changed.await.context("remembering the build")?
    }

    async fn read(&self) -> Option<Slots> {
        let place = self.place.clone();
        spawn_blocking(move || place.read()).await.ok().flatten()
    }
}

struct Updater {
    memory: Memory,
    enrolment: Enrolment,
    state_dir: PathBuf,
    time: Duration,
    present: Present,
    ends: Ends,
    stage: watch::Sender<Stage>,
    /// What is there of a build.
    part: Option<(Build, Vec<u8>)>,
}

/// Follows what the collector offers, until the program ends.
pub async fn run(settings: &Settings, enrolment: Enrolment, present: Present, ends: Ends) {
    let (stage, stages) = watch::channel(if present.is_tried { Stage::Trial } else { Stage::InForce });
    let teller = tell(present.build, ends.offers.clone(), stages, ends.answers.clone());
    if present.is_tried {
        return teller.await;
    }
    let place = Place::new(&settings.state_dir, enrolment.config_key);
    let memory = Memory { place, build: present.build, turn: Arc::default() };
    let probation = Probation {
        memory: memory.clone(),
        enrolment: enrolment.clone(),
        settings: settings.clone(),
        present: present.clone(),
        standing: ends.standing.clone(),
        shutdown: ends.shutdown.clone(),
    };
    let mut updater = Updater {
        memory,
        enrolment,
        state_dir: settings.state_dir.clone(),
        time: Duration::from_millis(settings.update.shadow_ms.into()),
        present,
        ends,
        stage,
        part: None,
    };
    tokio::join!(teller, probation.run(), async {
        updater.get_on().await;
        updater.follow().await;
    });
}

/// A build in force that nobody watches any more watches itself in its first day: one that has become mute gives way.
struct Probation {
    memory: Memory,
    enrolment: Enrolment,
    settings: Settings,
    present: Present,
    standing: watch::Receiver<Standing>,
    shutdown: CancellationToken,
}

impl Probation {
    async fn run(self) {
        if self.present.is_floor {
            return;
        }
        let trial_ms = u64::from(self.settings.update.trial_ms);
        let mut unheard = Unheard::default();
        let (mut noted, mut asked) = (clock::uptime(), clock::uptime());
        while let Some(probation) = self.memory.read().await.and_then(|slots| slots.probation) {
            tokio::time::sleep(Duration::from_millis(trial_ms / 4)).await;
            let now = clock::uptime();
            let ran_ms = now.since(noted);
            if ran_ms >= NOTE_EVERY_MS || probation.ran_ms.saturating_add(ran_ms) >= PROBATION_MS {
                if let Err(error) = self.memory.change(move |slots| slots.ran(ran_ms)).await {
                    tracing::warn!(error = format!("{error:#}"), "it can't be remembered for how long this build has run");
                }
                noted = now;
            }
            let standing = *self.standing.borrow();
            // A line may cost money by the kilobyte: who is heard has no reason to ask.
            let is_in_doubt = !standing.is_connected || standing.level.waiting > 0 || unheard.is_over(0, now);
            if !is_in_doubt && now.since(asked) < ASK_EVERY_MS {
                continue;
            }
            asked = now;
            let time = tls::Time { known: standing.dating.map(|dating| dating.date(now).0), past: None };
            let Settings { state_dir, broker, .. } = &self.settings;
            let word = guardian::ask(&self.enrolment, state_dir, broker, time, standing.stream).await;
            unheard.learn(word, clock::uptime());
            if unheard.is_over(trial_ms, clock::uptime()) {
                let why = "the collector can be reached and hears nothing of it any more";
                match self.memory.change(move |slots| slots.lose(why.to_owned())).await {
                    Ok(()) => {
                        tracing::error!(why, "this build gives way to what was there before it");
                        self.present.restart.cancel();
                        self.shutdown.cancel();
                        return;
                    }
                    Err(error) => tracing::error!(error = format!("{error:#}"), "this build can't give way"),
                }
            }
        }
    }
}

/// Says what runs here, whenever that changes and whenever it is asked.
async fn tell(
    build: Build,
    mut offers: watch::Receiver<Vec<Offer>>,
    mut stages: watch::Receiver<Stage>,
    answers: mpsc::Sender<Answer>,
) {
    loop {
        let changed = tokio::select! {
            asked = offers.changed() => asked,
            changed = stages.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
        let offered = fitting(&offers.borrow_and_update()).map(|offer| offer.build);
        let stage = stages.borrow_and_update().clone();
        let running = Running { machine: MACHINE.to_owned(), build, version: crate::VERSION.to_owned(), offered, stage };
        // One that finds no room is asked for again.
        let _ = answers.try_send(Answer::Running(running));
    }
}

/// The offer that is for this kind of machine.
fn fitting(offers: &[Offer]) -> Option<Offer> {
    let fits = |offer: &&Offer| offer.is_for(MACHINE);
    offers.iter().filter(fits).max_by_key(|offer| (offer.machine == MACHINE, offer.staged)).cloned()
}

impl Updater {
    /// A build in force that has got on for a while has not to fear the next power cut.
    async fn get_on(&self) {
        if self.present.is_floor {
            return;
        }
        tokio::time::sleep(self.time).await;
        if let Err(error) = self.memory.change(Slots::got_on).await {
            tracing::warn!(error = format!("{error:#}"), "it can't be remembered that this build gets on");
        }
    }

    async fn follow(&mut self) {
        loop {
            let offer = fitting(&self.ends.offers.borrow_and_update());
            let mut again = None;
            match offer.filter(|offer| offer.build != self.present.build) {
                None => self.reach(Stage::InForce),
                Some(offer) => match self.take(&offer).await {
                    Ok(()) => return,
                    Err(Failure::Bad(why)) => self.reach(Stage::Refused { why: cut(why) }),
                    Err(Failure::Unclear(why)) => {
                        self.reach(Stage::Waiting { why: cut(why) });
                        again = Some(self.time);
                    }
                },
            }
            tokio::select! {
                changed = self.ends.offers.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(again.unwrap_or_default()), if again.is_some() => {}
            }
        }
    }

    fn reach(&self, stage: Stage) {
        self.stage.send_if_modified(|before| {
            let is_news = *before != stage;
            if is_news {
                tracing::info!(?stage, "an update of this program");
                *before = stage;
            }
            is_news
        });
    }

    /// Brings a build to where it is tried. When this returns, this program ends.
    async fn take(&mut self, offer: &Offer) -> Result<(), Failure> {
        if !is_signed(offer, &self.enrolment.config_key) {
            return Err(Failure::Bad("it isn't signed by the collector".to_owned()));
        }
        let known = self.memory.read().await.unwrap_or_default();
        if let Some(why) = known.objection(offer) {
            return Err(Failure::Bad(why));
        }
        let free = known.free();
        let (place, held) = (self.memory.place.clone(), Held { slot: free, offer: offer.clone() });
        let is_there = spawn_blocking(move || place.inspect(&held).is_ok()).await.context("looking for the build")?;
        if !is_there {
            let bytes = self.fetch(offer).await?;
            self.memory.change(Slots::clear).await?;
            let (place, signed) = (self.memory.place.clone(), offer.clone());
            spawn_blocking(move || place.put(free, &signed, &bytes)).await.context("keeping the build")??;
        }
        if let Err(failure) = self.watch_shadow(offer, self.memory.place.program(free)).await {
            if let Failure::Bad(why) = &failure {
                // It is refused all the same: whoever looks at it again and again gets no further.
                let refused = (offer.clone(), why.clone());
                let refused = self.memory.change(|slots| slots.refused = Some(refused)).await;
                let _ = refused.inspect_err(|error| tracing::warn!(%error, "it can't be remembered that a build is refused"));
            }
            return Err(failure);
        }
        if fitting(&self.ends.offers.borrow()).as_ref() != Some(offer) {
            return Err(Failure::Unclear("it is no longer offered".to_owned()));
        }
        let proposed = offer.clone();
        self.memory.change(|slots| slots.propose(proposed)).await?;
        tracing::info!(build = shared::update::short(&offer.build), "another build takes this one's place, and is watched");
        self.present.restart.cancel();
        self.ends.shutdown.cancel();
        Ok(())
    }

    /// All of a build. What came before a line broke is not fetched again.
    async fn fetch(&mut self, offer: &Offer) -> anyhow::Result<Vec<u8>> {
        let size = offer.size as usize;
        ensure!(size <= BUILD_LIMIT_BYTES, "a build of {size} B is over the limit of {BUILD_LIMIT_BYTES} B");
        let mut bytes = match self.part.take() {
            Some((build, bytes)) if build == offer.build => bytes,
            _ => Vec::new(),
        };
        let outcome = loop {
            if bytes.len() >= size {
                break Ok(());
            }
            if fitting(&self.ends.offers.borrow()).as_ref() != Some(offer) {
                break Err(anyhow::anyhow!("it is no longer offered"));
            }
            self.stage.send_replace(Stage::Fetching { have: u32::try_from(bytes.len()).unwrap_or(u32::MAX) });
            let began = clock::uptime();
            match self.part_of(offer, bytes.len()).await {
                Ok(part) => bytes.extend(part),
                Err(error) => break Err(error),
            }
            // Half of the line is the most that an update takes.
            tokio::time::sleep(Duration::from_millis(clock::uptime().since(began)).min(PAUSE_LIMIT)).await;
        };
        match outcome {
            Ok(()) => Ok(bytes),
            Err(error) => {
                self.part = Some((offer.build, bytes));
                Err(error)
            }
        }
    }

    async fn part_of(&self, offer: &Offer, from: usize) -> anyhow::Result<Vec<u8>> {
        let now = self.ends.standing.borrow().dating.map(|dating| dating.date(clock::uptime()).0);
        let time = tls::Time { known: now, past: Some(offer.staged) };
        let wish = Wish::Part { build: offer.build, from: u32::try_from(from)? };
        match enrol::request(&self.enrolment, &self.state_dir, time, wish).await? {
            Reply::Part(bytes) => {
                let is_sound = !bytes.is_empty() && bytes.len() <= PART_BYTES && from + bytes.len() <= offer.size as usize;
                ensure!(is_sound, "a part of {} B at {from} of {} B makes no sense", bytes.len(), offer.size);
                Ok(bytes)
            }
            Reply::Refused(why) => bail!("the collector says no: {why}"),
            Reply::Heard(_) => bail!("the collector answers another question"),
        }
    }

    /// Looks at a build beside this program.
    async fn watch_shadow(&self, offer: &Offer, program: PathBuf) -> Result<(), Failure> {
        self.reach(Stage::Shadow);
        let mut why = String::new();
        for _ in 0..SHADOWS {
            if fitting(&self.ends.offers.borrow()).as_ref() != Some(offer) {
                return Err(Failure::Unclear("it is no longer offered".to_owned()));
            }
            let plan = Arc::clone(&self.ends.plan.borrow());
            let (scratch, time) = (self.state_dir.join("slots/shadow"), shadow::time_for(&plan, self.time));
            match shadow::of(&program, &self.present.config, &scratch, time, &plan, &self.ends.tally).await {
                Finding::Same => return Ok(()),
                Finding::Unclear(why) => return Err(Failure::Unclear(why)),
                Finding::Bad(said) => why = said,
            }
        }
        Err(Failure::Bad(why))
    }
}

#[cfg(test)]
mod tests {
    use shared::Millis;
    use shared::update::ANY_MACHINE;

    use super::*;

    #[test]
    fn a_box_takes_the_build_for_its_own_kind_of_machine() {
        let offer = |machine: &str, n: u8| Offer {
            machine: machine.to_owned(),
            build: [n; 32],
            size: 1,
            staged: Millis(1_795_442_400_000),
            signature: Vec::new(),
        };
        let other = if MACHINE == "arm" { "aarch64" } else { "arm" };
        let chosen = |offers: &[Offer]| fitting(offers).map(|offer| offer.build[0]);
        assert_eq!(chosen(&[offer(other, 1), offer(MACHINE, 2), offer(ANY_MACHINE, 3)]), Some(2));
        assert_eq!(chosen(&[offer(other, 1), offer(ANY_MACHINE, 3)]), Some(3));
        assert_eq!(chosen(&[offer(other, 1)]), None);
    }
}

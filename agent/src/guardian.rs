//! The program that was in force watches the one that is tried in its place, and takes the place back if that is bad.
//!
//! Only what works may stay: the collector's own word, fetched by this program, says whether the branch is heard. A line
//! that is cut says nothing about a build, so nothing is decided while it is.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use shared::update::{Reply, Wish};
use shared::{StreamId, Uptime};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::service::Pulse;
use crate::settings::{Broker, Enrolment, Settings};
use crate::slots::Place;
use crate::{clock, enrol, service, status, tls};

/// What tells a program that it is tried.
pub const TRIED: &str = "WARD_AGENT_TRIED";

/// How often the guardian looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it asks the collector.
const ASK_EVERY_MS: u64 = 10_000;
/// A program that says nothing for so long hangs, in ms.
const MUTE_LIMIT_MS: u64 = 30_000;
/// A program that has no verdict on any device for so long doesn't probe, in ms.
const BLIND_LIMIT_MS: u64 = 120_000;
/// Time for a program to end when it is asked to: the last entries get 3 s, the card more.
const END_LIMIT: Duration = Duration::from_secs(15);
/// Between two starts of a program that ended.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Time for a connection to the broker.
const REACH_LIMIT: Duration = Duration::from_secs(5);

/// What the collector knows of a run of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// It hears that run.
    Hears,
    /// It can be reached, and so can the broker, and it doesn't.
    HearsNothing,
    /// Nobody can be reached, or the collector can't hear anybody.
    NobodySays,
}

/// For how long the collector could be asked and heard nothing of a run. Pure.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unheard {
    since: Option<Uptime>,
}

impl Unheard {
    /// What the collector knows now. A time in which nobody says anything begins anew.
    pub fn learn(&mut self, word: Word, now: Uptime) {
        match word {
            Word::Hears | Word::NobodySays => self.since = None,
            Word::HearsNothing => _ = self.since.get_or_insert(now),
        }
    }

    /// Whether that has gone on for so long.
    pub fn is_over(&self, limit_ms: u64, now: Uptime) -> bool {
        self.since.is_some_and(|since| now.since(since) >= limit_ms)
    }
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Look again.
    Wait,
    /// Start it again: it hangs.
    Restart,
    /// It works.
    Confirm,
    /// It is bad.
    RollBack(String),
}

/// What is known of the program that is tried since it was started. Pure.
#[derive(Debug, Clone)]
pub struct Judgement {
    began: Uptime,
    answered: Uptime,
    saw_devices: Uptime,
    unheard: Unheard,
    is_heard: bool,
    shadow_ms: u64,
    trial_ms: u64,
}

impl Judgement {
    /// Of one that starts now. `shadow_ms` is how long it has to get on, `trial_ms` how long the collector may hear nothing.
    pub fn new(now: Uptime, shadow_ms: u64, trial_ms: u64) -> Self {
        Self { began: now, answered: now, saw_devices: now, unheard: Unheard::default(), is_heard: false, shadow_ms, trial_ms }
    }

    /// What it says of itself: whether it answers at all, and whether it has looked at a device.
    pub fn answers(&mut self, has_looked: Option<bool>, now: Uptime) {
        if let Some(has_looked) = has_looked {
            self.answered = now;
            if has_looked {
                self.saw_devices = now;
            }
        }
    }

    /// What the collector knows.
    pub fn heard(&mut self, word: Word, now: Uptime) {
        self.unheard.learn(word, now);
        // What was heard at first and is mute since is not a program that works.
        self.is_heard = word == Word::Hears;
    }

    /// Whether it has got on for long enough that a power cut is none of its faults.
    pub fn has_got_on(&self, now: Uptime) -> bool {
        now.since(self.began) >= self.shadow_ms && now.since(self.answered) < MUTE_LIMIT_MS / 2
    }

    /// What to do.
    pub fn decide(&self, now: Uptime) -> Decision {
        if now.since(self.answered) >= MUTE_LIMIT_MS {
            return Decision::Restart;
        }
        if now.since(self.saw_devices) >= BLIND_LIMIT_MS {
            return Decision::RollBack("it has no verdict on any device".to_owned());
        }
        if self.unheard.is_over(self.trial_ms, now) {
            return Decision::RollBack("the collector can be reached and hears nothing of it".to_owned());
        }
        if self.is_heard && self.has_got_on(now) { Decision::Confirm } else { Decision::Wait }
    }
}

/// How a trial ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With a verdict: another program, or this one again, is in force.
    Decided,
    /// Somebody has stopped the service. The trial goes on with the next start.
    Stopped,
}

/// Watches the build that is tried until it is in force or refused.
///
/// # Errors
/// When what is decided can't be written down.
pub async fn run(settings: &Settings, enrolment: &Enrolment, config: &Path) -> anyhow::Result<Ending> {
    let place = Place::new(&settings.state_dir, enrolment.config_key);
    let mut stop = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    let pulse = Pulse::default();
    tokio::spawn(service::report(vec![("guardian", pulse.clone())]));
    loop {
        let mut slots = place.read().context("what is tried is not remembered any more")?;
        let started = slots.try_it();
        place.keep(&slots)?;
        let (Some(_), Some(trial)) = (started, slots.trial.clone()) else {
            tracing::error!("a build is refused: it ended again and again");
            return Ok(Ending::Decided);
        };
        let build = shared::update::short(&trial.held.offer.build);
        let program = match place.inspect(&trial.held) {
            Ok(program) => program,
            Err(error) => {
                slots.refuse(format!("{error:#}"));
                place.keep(&slots)?;
                return Ok(Ending::Decided);
            }
        };
        tracing::info!(build, "a build is tried in this program's place");
        let mut tried = match Tried::start(&program, config) {
            Ok(tried) => tried,
            Err(error) => {
                slots.refuse(format!("it can't be started: {error}"));
                place.keep(&slots)?;
                return Ok(Ending::Decided);
            }
        };
        let began = clock::uptime();
        let times = (u64::from(settings.update.shadow_ms), u64::from(settings.update.trial_ms));
        let mut judgement = Judgement::new(began, times.0, times.1);
        let mut asked: Option<Uptime> = None;
        // Beside the looks: a line that is cut may let a question hang for longer than systemd waits for a sign of life.
        let mut asking: Option<JoinHandle<Word>> = None;
        let mut is_noted = false;
        let [terminate, interrupt] = &mut stop;
        let why = loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                _ = terminate.recv() => { tried.end(Signal::TERM).await; return Ok(Ending::Stopped) }
                _ = interrupt.recv() => { tried.end(Signal::TERM).await; return Ok(Ending::Stopped) }
            }
            pulse.beat();
            if let Some(status) = tried.has_ended() {
                tracing::warn!(build, %status, "the build that is tried has ended");
                break None;
            }
            let state_dir = settings.state_dir.clone();
            let report = tokio::task::spawn_blocking(move || status::ask(&state_dir)).await?.ok();
            let has_looked = |report: &status::Report| {
                let is_seen = |device: &status::DeviceReport| device.cause.as_deref() != Some("never_observed");
                report.devices.is_empty() || report.devices.iter().any(is_seen)
            };
            judgement.answers(report.as_ref().map(has_looked), clock::uptime());
            if let Some(answered) = asking.take_if(|asking| asking.is_finished()) {
                judgement.heard(answered.await.unwrap_or(Word::NobodySays), clock::uptime());
            }
            if let Some(report) = report.filter(|_| asking.is_none())
                && asked.is_none_or(|at| clock::uptime().since(at) >= ASK_EVERY_MS.min(times.1 / 4))
            {
                let (known, stream) = (report.now_ms.map(shared::Millis), report.stream);
                let time = tls::Time { known, past: Some(trial.held.offer.staged) };
                let (enrolment, state_dir, broker) = (enrolment.clone(), settings.state_dir.clone(), settings.broker.clone());
                asking = Some(tokio::spawn(async move { ask(&enrolment, &state_dir, &broker, time, stream).await }));
                asked = Some(clock::uptime());
            }
            let now = clock::uptime();
            if judgement.has_got_on(now) && !is_noted {
                slots.trial_got_on();
                // So has this program, which was counted as started.
                slots.got_on();
                // A build that works is not ended for it.
                let _ = place
                    .keep(&slots)
                    .inspect_err(|error| tracing::warn!(error = format!("{error:#}"), "a trial can't be noted"));
                is_noted = true;
            }
            match judgement.decide(now) {
                Decision::Wait => {}
                Decision::Restart => {
                    tracing::warn!(build, "the build that is tried hangs");
                    break None;
                }
                Decision::Confirm => {
                    slots.confirm();
                    place.keep(&slots)?;
                    tracing::info!(build, "a build is in force");
                    // It goes on as the service's own program.
                    tried.end(Signal::HUP).await;
                    return Ok(Ending::Decided);
                }
                Decision::RollBack(why) => break Some(why),
            }
        };
        match why {
            None => {
                tried.kill();
                tokio::time::sleep(AGAIN_AFTER).await;
            }
            Some(why) => {
                tracing::error!(build, why, "a build is refused: the program before it goes on");
                slots.refuse(why);
                slots.got_on();
                place.keep(&slots)?;
                tried.end(Signal::HUP).await;
                return Ok(Ending::Decided);
            }
        }
    }
}

/// What the collector knows of a run of this box's agent.
pub async fn ask(enrolment: &Enrolment, state_dir: &Path, broker: &Broker, time: tls::Time, stream: StreamId) -> Word {
    let is_heard = match enrol::request(enrolment, state_dir, time, Wish::Heard { stream }).await {
        Ok(Reply::Heard(hearing)) => hearing.is_heard(),
        Ok(Reply::Part(_) | Reply::Refused(_)) | Err(_) => None,
    };
    match is_heard {
        None => Word::NobodySays,
        Some(true) => Word::Hears,
        // A broker that is away leaves everybody unheard.
        Some(false) => match tokio::time::timeout(REACH_LIMIT, TcpStream::connect((&*broker.host, broker.port))).await {
            Ok(Ok(_)) => Word::HearsNothing,
            Ok(Err(_)) | Err(_) => Word::NobodySays,
        },
    }
}

/// The program that is tried.
struct Tried {
    child: Child,
    program: PathBuf,
}

impl Tried {
    fn start(program: &Path, config: &Path) -> std::io::Result<Self> {
        let mut command = Command::new(program);
        command.args(["run", "--config"]).arg(config).env(TRIED, "1").stdin(Stdio::null());
        service::alone(&mut command);
        Ok(Self { child: command.spawn()?, program: program.to_owned() })
    }

    fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Ends it as asked, or hard where it doesn't.
    async fn end(&mut self, by: Signal) {
        // An error means that it has ended already.
        let _ = kill_process(Pid::from_child(&self.child), by);
        let until = clock::uptime().plus(u64::try_from(END_LIMIT.as_millis()).unwrap_or(u64::MAX));
        while self.has_ended().is_none() && clock::uptime() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.kill();
    }

    fn kill(&mut self) {
        if self.has_ended().is_none() {
            tracing::debug!(program = %self.program.display(), "it is ended hard");
        }
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Tried {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHADOW_MS: u64 = 60_000;
    const TRIAL_MS: u64 = 300_000;

    /// Looks each second at one that answers and looks at devices, while `word` says what the collector knows at each second.
    fn decided(seconds: u64, answers: impl Fn(u64) -> Option<bool>, word: impl Fn(u64) -> Word) -> (u64, Decision) {
        let mut judgement = Judgement::new(Uptime(0), SHADOW_MS, TRIAL_MS);
        for second in 1..=seconds {
            let now = Uptime(second * 1_000);
            judgement.answers(answers(second), now);
            judgement.heard(word(second), now);
            let decision = judgement.decide(now);
            if decision != Decision::Wait {
                return (second, decision);
            }
        }
        (seconds, Decision::Wait)
    }

    const WEEK: u64 = 7 * 86_400;

    #[test]
    fn one_that_is_heard_and_gets_on_is_in_force() {
        assert_eq!(decided(WEEK, |_| Some(true), |_| Word::Hears), (60, Decision::Confirm));
        assert_eq!(
            decided(WEEK, |_| Some(true), |s| if s < 200 { Word::NobodySays } else { Word::Hears }),
            (200, Decision::Confirm)
        );
    }

    #[test]
    fn a_line_that_is_cut_for_a_week_decides_nothing() {
        assert_eq!(decided(WEEK, |_| Some(true), |_| Word::NobodySays), (WEEK, Decision::Wait));
        // Nor do moments in which it is back.
        let moments = |s: u64| if s % 600 < 100 { Word::HearsNothing } else { Word::NobodySays };
        assert_eq!(decided(WEEK, |_| Some(true), moments), (WEEK, Decision::Wait));
        // Nor one that is cut just when the build would have been confirmed.
        let cut = |s: u64| if s < 59 { Word::Hears } else { Word::NobodySays };
        assert_eq!(decided(WEEK, |_| Some(true), cut), (WEEK, Decision::Wait));
    }

    #[test]
    fn one_that_probes_and_is_never_heard_is_refused() {
        let (second, decision) = decided(WEEK, |_| Some(true), |_| Word::HearsNothing);
        assert!(matches!(decision, Decision::RollBack(why) if why.contains("hears nothing")));
        assert_eq!(second, 301);
    }

    #[test]
    fn one_that_is_heard_at_first_and_then_mute_is_refused() {
        let word = |s: u64| if s < 30 { Word::Hears } else { Word::HearsNothing };
        let (second, decision) = decided(WEEK, |_| Some(true), word);
        assert!(matches!(decision, Decision::RollBack(why) if why.contains("hears nothing")));
        assert_eq!(second, 330);
        let back = |s: u64| if (30..200).contains(&s) { Word::HearsNothing } else { Word::Hears };
        assert_eq!(decided(WEEK, |_| Some(true), back), (200, Decision::Confirm));
    }

    #[test]
    fn one_that_hangs_is_started_again_and_one_that_looks_at_nothing_is_refused() {
        assert_eq!(decided(WEEK, |s| (s < 10).then_some(true), |_| Word::NobodySays), (39, Decision::Restart));
        let (second, decision) = decided(WEEK, |_| Some(false), |_| Word::NobodySays);
        assert_eq!((second, decision), (120, Decision::RollBack("it has no verdict on any device".to_owned())));
    }
}

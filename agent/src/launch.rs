//! The first thing that the packaged program does: it counts, and gives way to the build in force.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use shared::BootId;
use shared::update::Build;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::guardian::TRIED;
use crate::settings::Settings;
use crate::slots::{Place, Slots, build_of};
use crate::update::Present;

/// What tells a build that it is in force, and where the packaged program is.
const FLOOR: &str = "WARD_AGENT_FLOOR";

/// What this process is to do.
#[derive(Debug)]
pub struct Role {
    /// What it is.
    pub present: Present,
    /// Whether it is to watch another build rather than to probe.
    pub is_guardian: bool,
    floor: PathBuf,
}

/// Finds out, and gives way to the build in force: then this doesn't return.
///
/// # Errors
/// When this program can't read itself.
pub fn begin(settings: &Settings, config: &Path) -> anyhow::Result<Role> {
    if settings.enrolment.is_none() {
        // Nobody sends builds to a box that has not joined.
        let present = Present {
            build: Build::default(),
            config: config.to_owned(),
            is_tried: false,
            is_floor: true,
            restart: CancellationToken::new(),
        };
        return Ok(Role { present, is_guardian: false, floor: PathBuf::new() });
    }
    let own = std::env::current_exe().context("asking for this program's path")?;
    let present = |build, is_tried| Present {
        build,
        config: config.to_owned(),
        is_tried,
        is_floor: std::env::var_os(FLOOR).is_none(),
        restart: CancellationToken::new(),
    };
    let place = settings.enrolment.as_ref().map(|enrolment| Place::new(&settings.state_dir, enrolment.config_key));
    let known = place.as_ref().and_then(Place::read);
    if let Some(trial) = known.as_ref().and_then(|slots| slots.trial.as_ref()).filter(|_| std::env::var_os(TRIED).is_some()) {
        // Two programs would speak for one branch if the guardian ended alone.
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        return Ok(Role { present: present(trial.held.offer.build, true), is_guardian: false, floor: own });
    }
    if let (Some(floor), Some(slots)) = (std::env::var_os(FLOOR), &known)
        && let Some(held) = &slots.good
    {
        let is_guardian = slots.trial.is_some();
        return Ok(Role { present: present(held.offer.build, false), is_guardian, floor: floor.into() });
    }
    let build = build_of(&std::fs::read("/proc/self/exe").context("reading this program")?);
    let mut is_guardian = false;
    if let (Some(place), Some(slots)) = (place, known) {
        is_guardian = give_way(&place, slots, (build, clock::boot_id()?), &own, config).trial.is_some();
    }
    Ok(Role { present: Present { is_floor: true, ..present(build, false) }, is_guardian, floor: own })
}

/// Becomes the build in force. Where there is none, or it can't be, this returns what is remembered then.
fn give_way(place: &Place, mut slots: Slots, (build, boot): (Build, BootId), own: &Path, config: &Path) -> Slots {
    loop {
        let before = slots.clone();
        let begun = slots.begin(build, boot);
        if let Some((_, why)) = slots.refused.as_ref().filter(|_| slots.good != before.good) {
            tracing::error!(why, "the build in force gives way to what was there before it");
        }
        // What can't be counted is not started: it might end again and again.
        let is_kept = slots == before || place.keep(&slots).inspect_err(unkept).is_ok();
        if !is_kept {
            // Nor is anything tried that can't be counted.
            slots.trial = None;
        }
        let (Some(_), Some(held)) = (begun.filter(|_| is_kept), slots.good.clone()) else { return slots };
        let error = match place.inspect(&held) {
            Ok(program) => anyhow::Error::from(run(&program, config).env(FLOOR, own).exec()),
            Err(error) => error,
        };
        let why = format!("the build in force can't be started: {error:#}");
        tracing::error!(why, "what was there before it goes on");
        // Each turn loses a build, and there are two slots.
        slots.lose(why);
        let _ = place.keep(&slots).inspect_err(unkept);
    }
}

fn unkept(error: &anyhow::Error) {
    tracing::error!(error = format!("{error:#}"), "what runs here can't be remembered: the packaged program goes on");
}

impl Role {
    /// This program is about to end as it was asked to: no fault of it.
    pub fn ends(&self, settings: &Settings) {
        let Some(enrolment) = settings.enrolment.as_ref().filter(|_| !self.present.is_floor && !self.present.is_tried) else {
            return;
        };
        let place = Place::new(&settings.state_dir, enrolment.config_key);
        let Some(mut slots) = place.read().filter(|slots| slots.probation.is_some()) else { return };
        slots.ends();
        let _ = place.keep(&slots).inspect_err(unkept);
    }

    /// Begins anew from the packaged program, in this process: systemd sees no end. Returns only an error.
    pub fn again(&self) -> anyhow::Error {
        let error = run(&self.floor, &self.present.config).env_remove(FLOOR).env_remove(TRIED).exec();
        anyhow::Error::from(error).context(format!("starting {}", self.floor.display()))
    }
}

fn run(program: &Path, config: &Path) -> Command {
    let mut command = Command::new(program);
    command.args([OsStr::new("run"), OsStr::new("--config"), config.as_os_str()]);
    command
}

//! The whole life of an agent: its stages in the order in which they start, and in which they end.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use shared::{Millis, StreamId, Uptime};
use tokio::sync::{mpsc, watch as channel};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::keeper::{Command, Keeper};
use crate::plan::Plan;
use crate::probe::Prober;
use crate::service::Pulse;
use crate::settings::Settings;
use crate::update::{self, Present};
use crate::watch::Tally;
use crate::{clock, link, renewal, status, trial, watch};

/// How the stages that systemd has an eye on show that they get on. The link is none of them: a line may be cut for weeks.
#[derive(Debug, Clone, Default)]
pub struct Pulses {
    /// Probes and verdicts.
    pub watch: Pulse,
    /// The outbox. A card that hangs doesn't stop it.
    pub keeper: Pulse,
}

/// Runs an agent until `shutdown` is cancelled or one of its stages fails. With `present` it follows the builds that the
/// collector offers.
///
/// The watch ends first and hands over what it holds; the link then sends it and says goodbye; the keeper writes what
/// the collector has not confirmed.
///
/// # Errors
/// When another agent uses the state folder, the config file's own devices contradict one another, or a stage panics. A broker that is away and a disk that
/// fails are no errors.
pub async fn run<P: Prober>(
    settings: Settings,
    prober: Arc<P>,
    pulses: Pulses,
    shutdown: CancellationToken,
    present: Option<Present>,
) -> anyhow::Result<()> {
    let state_dir = &settings.state_dir;
    if let Err(error) = std::fs::create_dir_all(state_dir) {
        tracing::error!(%error, folder = %state_dir.display(), "the state folder can't be made: going on in memory");
    }
    let _lock = lock(state_dir)?;
    let local = Plan::try_from(&settings.local).context("the devices of the config file")?;
    let last_good = link::last_good(state_dir);
    // The collector's versions are its dates of them.
    let since = Millis(last_good.as_ref().and_then(|plan| i64::try_from(plan.version).ok()).unwrap_or(0));
    let first = last_good.unwrap_or(local);
    let boot = clock::boot_id()?;
    let (stream, limit_bytes) = (StreamId(rand::random()), settings.buffer_limit_bytes);
    let keeper = Keeper::start(settings.branch.clone(), state_dir, stream, boot, limit_bytes, since, pulses.keeper)?;

    let (plan, plan_seen) = channel::channel(Arc::new(first));
    let (wanted, wanted_seen) = channel::channel(None);
    let (tally, tally_seen) = channel::channel(Tally::default());
    let (asks, asked) = mpsc::channel(link::ASKS_LIMIT);
    let (answers, answered) = mpsc::channel(link::ASKS_LIMIT);
    let (offers, offered) = channel::channel(Vec::new());
    let restart = present.as_ref().map(|present| present.restart.clone()).unwrap_or_default();
    let (proofs, proofs_wanted) = channel::channel(Uptime(0));
    let (heard, heard_seen) = channel::channel(clock::uptime());
    let watch_ends = watch::Ends {
        plan: plan_seen,
        standing: keeper.standing.clone(),
        entries: keeper.commands.clone(),
        tally,
        asks: asked,
        answers: answers.clone(),
        proofs,
        heard: heard_seen,
        pulse: pulses.watch,
    };
    let trial_ends = trial::Ends {
        wanted: wanted_seen,
        plan,
        tally: tally_seen.clone(),
        answers: answers.clone(),
        verdicts_within: trial::VERDICTS_WITHIN,
        again_every: trial::AGAIN_EVERY,
    };
    let link_ends = link::Ends {
        keeper: keeper.commands.clone(),
        standing: keeper.standing.clone(),
        tally: tally_seen,
        plan: watch_ends.plan.clone(),
        wanted,
        asks,
        offers,
        restart,
        answers: answered,
        proofs: proofs_wanted,
        heard,
    };

    // It has nothing to finish: it ends when the rest has.
    let status_ends = status::Ends {
        branch: settings.branch.to_string(),
        keeper: keeper.commands.clone(),
        standing: keeper.standing.clone(),
        tally: link_ends.tally.clone(),
        plan: watch_ends.plan.clone(),
    };
    let mut asides = JoinSet::new();
    asides.spawn(status::serve(settings.state_dir.clone(), status_ends));
    asides.spawn(trial::run(Arc::clone(&prober), trial_ends, settings.state_dir.clone()));

    if let (Some(enrolment), Some(present)) = (settings.enrolment.clone(), present) {
        let ends = update::Ends {
            offers: offered,
            answers,
            tally: link_ends.tally.clone(),
            plan: watch_ends.plan.clone(),
            standing: keeper.standing.clone(),
            shutdown: shutdown.clone(),
        };
        let settings = settings.clone();
        asides.spawn(async move { update::run(&settings, enrolment, present, ends).await });
    }
    if let Some(enrolment) = settings.enrolment.clone() {
        asides.spawn(renewal::run(enrolment, settings.state_dir.clone(), keeper.standing.clone()));
    }

    // The link listens to a token of its own, so that it can still send what the watch hands over at the end.
    let link_shutdown = CancellationToken::new();
    let mut stages = JoinSet::new();
    let watching = stages.spawn(watch::run(prober, watch_ends, shutdown.clone())).id();
    stages.spawn(link::run(settings, link_ends, link_shutdown.clone()));
    // A keeper that panics leaves nobody to write or to send: better to end, and be started again.
    let kept = keeper.commands.clone();
    let keeping = stages.spawn(async move { kept.closed().await });
    while let Some(ended) = stages.join_next_with_id().await {
        let (stage, ()) = ended.context("a stage panicked")?;
        if !shutdown.is_cancelled() {
            bail!("a stage ended before it was asked to");
        }
        if stage == watching {
            link_shutdown.cancel();
        } else {
            keeping.abort();
            break;
        }
    }
    asides.shutdown().await;
    let _ = keeper.commands.send(Command::Close).await;
    tokio::task::spawn_blocking(move || keeper.join()).await.context("closing the buffer")
}

/// Keeps a second agent from this state folder: two would speak for one branch.
fn lock(state_dir: &Path) -> anyhow::Result<Option<File>> {
    // A disk that takes no file is no reason not to probe.
    let Ok(file) = File::create(state_dir.join("lock")) else { return Ok(None) };
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => bail!("another ward-agent runs with the state folder {}", state_dir.display()),
        Ok(()) | Err(_) => Ok(Some(file)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_kept_from_the_same_state_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = lock(folder.path()).expect("free");
        assert!(first.is_some());
        let error = lock(folder.path()).expect_err("taken").to_string();
        assert!(error.starts_with("another ward-agent runs with the state folder"), "{error}");
        drop(first);
        assert!(lock(folder.path()).is_ok());
    }
}

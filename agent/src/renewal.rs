//! A new certificate long before the old one is over, and a new key with it.
//!
//! A box that lay in a drawer has a certificate that is over: the broker refuses it. The collector still takes its key for an
//! application, unless the branch was revoked, so such a box comes back by itself.
//!
//! The former key counts until the new one is shown at the collector: an answer that is lost on the way shuts no box out, and a
//! copy of an old card is worth nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use shared::enrolment::Decision;
use shared::update::{Reply, Wish};
use shared::{Millis, StreamId};
use tokio::sync::watch;

use crate::keeper::Standing;
use crate::settings::Enrolment;
use crate::{clock, enrol, tls};

/// How often it is looked whether a certificate is due.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How often while nobody knows the time.
const LOOK_SOON: Duration = Duration::from_secs(5);
/// First and longest wait after an application that failed, in ms.
const WAIT_MS: (u64, u64) = (600_000, 6 * 3_600_000);
/// After so long without the time, in ms, a certificate is asked for all the same: that it is over may be the reason.
const BLIND_MS: u64 = 600_000;

/// Keeps the identity in a state folder good for as long as the agent runs.
pub async fn run(enrolment: Enrolment, state_dir: PathBuf, standing: watch::Receiver<Standing>) {
    let began = clock::uptime();
    let (mut wait_ms, mut not_before) = (WAIT_MS.0, began);
    let mut due = enrol::renew_after(&state_dir);
    let mut is_shown = true;
    loop {
        let uptime = clock::uptime();
        let known =
            standing.borrow().dating.map(|dating| dating.date(uptime).0).or_else(|| clock::synchronised().map(|(now, _)| now));
        if uptime >= not_before && is_due(due, known, uptime.since(began)) {
            match renew(&enrolment, &state_dir, known).await {
                Ok(next) => {
                    tracing::info!(due_ms = next.0, "this box has a new certificate");
                    (due, wait_ms) = (Some(next), WAIT_MS.0);
                    not_before = clock::uptime().plus(WAIT_MS.1);
                    is_shown = false;
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(
                        error,
                        wait_ms,
                        "no new certificate: trying again, the present one still counts until it is over"
                    );
                    not_before = clock::uptime().plus(wait_ms);
                    wait_ms = (wait_ms * 2).min(WAIT_MS.1);
                }
            }
        }
        if !is_shown {
            let stream = standing.borrow().stream;
            is_shown = show(&enrolment, &state_dir, known, stream).await.inspect_err(|error| tracing::debug!(%error)).is_ok();
        }
        tokio::time::sleep(if known.is_some() { LOOK_EVERY } else { LOOK_SOON }).await;
    }
}

/// Whether to ask for a certificate now.
fn is_due(due: Option<Millis>, known: Option<Millis>, running_ms: u64) -> bool {
    match (due, known) {
        (Some(due), Some(now)) => now >= due,
        // Nothing says until when the present one counts.
        (None, _) => true,
        (Some(_), None) => running_ms >= BLIND_MS,
    }
}

async fn renew(enrolment: &Enrolment, state_dir: &Path, known: Option<Millis>) -> anyhow::Result<Millis> {
    let before = enrol::Key::from_file(&enrol::identity_path(state_dir))?;
    let fresh = enrol::Key::make()?;
    let config = tls::toward_authority(&enrol::authority_path(state_dir), tls::Time { known, past: None })?;
    let application = enrol::application(&fresh, Err(&before))?;
    match enrol::apply(&enrolment.host, enrolment.port, config, &application).await? {
        Decision::Granted(grant) => {
            let folder = state_dir.to_owned();
            let due = grant.renew_after;
            // A card may hang.
            tokio::task::spawn_blocking(move || enrol::keep(&folder, &grant, &fresh)).await??;
            Ok(due)
        }
        Decision::Refused(why) => bail!("the collector says no: {why}"),
    }
}

/// Shows the collector that this box holds the key of its certificate.
async fn show(enrolment: &Enrolment, state_dir: &Path, known: Option<Millis>, stream: StreamId) -> anyhow::Result<()> {
    match enrol::request(enrolment, state_dir, tls::Time { known, past: None }, Wish::Heard { stream }).await? {
        Reply::Heard(_) => Ok(()),
        Reply::Part(_) | Reply::Refused(_) => bail!("the collector doesn't know the new certificate"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_asked_for_when_it_is_due_or_nobody_knows() {
        let due = Some(Millis(1_000));
        assert!(!is_due(due, Some(Millis(999)), 0));
        assert!(is_due(due, Some(Millis(1_000)), 0));
        assert!(!is_due(due, None, 0), "the time may be heard any moment");
        assert!(is_due(due, None, BLIND_MS), "perhaps it isn't heard because the certificate is over");
        assert!(is_due(None, None, 0));
    }
}

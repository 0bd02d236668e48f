//! What systemd is told, and what it hands over: that the program is ready, that it gets on, and its keys.
//!
//! systemd kills and restarts a program that says nothing for a while. A timer of its own would say something for ever,
//! so the word is given only while every part gets on with its work.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

/// The folder whose files systemd reads for a program that can't.
const CONFIG_DIR: &str = "/etc/ward";
/// How often the parts are looked at until they have begun.
const BEGIN_EVERY: Duration = Duration::from_millis(50);
/// How often they are looked at where systemd asks for no signs of life.
const UNASKED_EVERY: Duration = Duration::from_secs(30);

/// Beats whenever a part of the program has got on: done work, or found that none was due.
#[derive(Debug, Clone, Default)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// The part has got on.
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Tells systemd that the program is ready once every part has begun, and then that it lives while all of them get on.
/// Where no systemd listens it does nothing that anybody hears.
pub async fn report(parts: Vec<(&'static str, Pulse)>) {
    let mut seen = Seen::new(parts);
    while !seen.got_on().is_empty() {
        tokio::time::sleep(BEGIN_EVERY).await;
    }
    // A program that has taken another's place in the same process is ready already for systemd, whose watch goes on.
    tell(&[NotifyState::Ready, NotifyState::Watchdog]);
    // Three looks in the time that systemd allows: one that comes late does no harm.
    let every = sd_notify::watchdog_enabled().map_or(UNASKED_EVERY, |limit| limit / 3);
    loop {
        tokio::time::sleep(every).await;
        let stuck = seen.got_on();
        if stuck.is_empty() {
            tell(&[NotifyState::Watchdog]);
        } else {
            tracing::warn!(parts = stuck.join(" "), "a part of the program does not get on: systemd is told nothing");
        }
    }
}

/// Tells systemd that the program is about to end as it was asked to.
pub fn ends() {
    tell(&[NotifyState::Stopping]);
}

/// A program that is started by this one has nothing to tell systemd.
pub fn alone(command: &mut std::process::Command) {
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        command.env_remove(name);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd can't be told");
    }
}

/// What was last known of the parts.
struct Seen(Vec<(&'static str, Pulse, u64)>);

impl Seen {
    fn new(parts: Vec<(&'static str, Pulse)>) -> Self {
        Self(parts.into_iter().map(|(name, pulse)| (name, pulse, 0)).collect())
    }

    /// The parts that have not got on since they last had. Only once all have is a new look begun: parts that are slow
    /// need not beat within the same look.
    fn got_on(&mut self) -> Vec<&'static str> {
        let stuck: Vec<_> = self.0.iter().filter(|(_, pulse, seen)| pulse.count() == *seen).map(|(name, ..)| *name).collect();
        if stuck.is_empty() {
            self.0.iter_mut().for_each(|(_, pulse, seen)| *seen = pulse.count());
        }
        stuck
    }
}

/// Where to read a file that the config names. One in `/etc/ward` that systemd has read for the program, as the unit's
/// `LoadCredential` says, lies in a folder that nobody else sees; the program itself may not open a key in `/etc/ward`.
pub fn handed_over(path: &Path) -> PathBuf {
    let Some(folder) = std::env::var_os("CREDENTIALS_DIRECTORY") else { return path.to_owned() };
    handed_over_in(Path::new(&folder), path)
}

fn handed_over_in(folder: &Path, path: &Path) -> PathBuf {
    let Some(name) = path.file_name().filter(|_| path.parent() == Some(Path::new(CONFIG_DIR))) else { return path.to_owned() };
    let copy = folder.join(name);
    // The units give an empty line in place of a file that isn't there.
    let is_given = std::fs::metadata(&copy).is_ok_and(|copy| copy.len() > 1);
    if is_given { copy } else { path.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_lives_only_while_all_of_its_parts_get_on() {
        let (probes, disk) = (Pulse::default(), Pulse::default());
        let mut seen = Seen::new(vec![("probes", probes.clone()), ("disk", disk.clone())]);
        assert_eq!(seen.got_on(), ["probes", "disk"]);
        probes.beat();
        assert_eq!(seen.got_on(), ["disk"]);
        disk.beat();
        assert!(seen.got_on().is_empty());
        assert_eq!(seen.got_on(), ["probes", "disk"]);
        // A slow part may take several looks.
        disk.beat();
        assert_eq!(seen.got_on(), ["probes"]);
        probes.beat();
        assert!(seen.got_on().is_empty());
    }

    #[test]
    fn a_key_is_read_from_where_systemd_has_put_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let given = folder.path().join("agent.key");
        let read_from = |path: &str| handed_over_in(folder.path(), Path::new(path));
        assert_eq!(read_from("/etc/ward/agent.key"), Path::new("/etc/ward/agent.key"), "nothing was handed over");
        std::fs::write(&given, "\n").expect("written");
        assert_eq!(read_from("/etc/ward/agent.key"), Path::new("/etc/ward/agent.key"), "what was handed over is empty");
        std::fs::write(&given, "a key").expect("written");
        assert_eq!(read_from("/etc/ward/agent.key"), given);
        assert_eq!(read_from("/home/pi/agent.key"), Path::new("/home/pi/agent.key"), "another file of that name");
        assert_eq!(read_from("agent.key"), Path::new("agent.key"));
    }
}

//! Where names point to: asked for beside the probes, so that a name server that hangs holds none of them up. The last good
//! address is kept.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use shared::Uptime;

/// How long an address is taken for good before its name is asked for again, in ms.
const GOOD_MS: u64 = 60_000;
/// The same after a failure.
const RETRY_MS: u64 = 5_000;
/// How long a name server may take. The last good address stays whatever it says, so one that is slow does no harm.
const LIMIT: Duration = Duration::from_secs(3);
/// Most names that are asked for at a time: each takes a thread while it waits.
const AT_ONCE: usize = 8;

/// What is known of a name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// The last good address.
    pub address: Option<IpAddr>,
    /// The last time that it was asked for was in vain.
    pub is_failing: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    known: Known,
    due: Uptime,
    /// When it was last answered.
    heard: Uptime,
    is_asked: bool,
}

impl Entry {
    fn is_older_than(&self, silent_from: Uptime) -> bool {
        !self.known.is_failing && self.heard <= silent_from
    }
}

/// Every name that is probed.
#[derive(Default)]
pub struct Names {
    entries: HashMap<String, Entry>,
    asking: FuturesUnordered<BoxFuture<'static, (String, Option<IpAddr>)>>,
}

impl Names {
    /// Other names are wanted; what is known of those that stay is kept.
    pub fn set(&mut self, names: impl Iterator<Item = String>) {
        let mut before = std::mem::take(&mut self.entries);
        self.entries = names.map(|name| (before.remove(&name).unwrap_or_default(), name)).map(|(e, name)| (name, e)).collect();
    }

    /// What is known of a name.
    pub fn get(&self, name: &str) -> Known {
        self.entries.get(name).map_or_else(Known::default, |entry| entry.known)
    }

    /// Whether a name is wanted at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What it points to does not answer since `silent_from`, and may stand elsewhere by now: it is asked for at once.
    pub fn doubt(&mut self, name: &str, silent_from: Uptime) {
        if let Some(entry) = self.entries.get_mut(name).filter(|entry| entry.is_older_than(silent_from)) {
            entry.due = entry.heard;
        }
    }

    /// Whether nobody has said yet where it points to since then.
    pub fn is_in_doubt(&self, name: &str, silent_from: Uptime) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.is_older_than(silent_from))
    }

    /// Begins to ask for what is due.
    pub fn ask_due(&mut self, now: Uptime) {
        for (name, entry) in &mut self.entries {
            if self.asking.len() >= AT_ONCE {
                return;
            }
            if !entry.is_asked && entry.due <= now {
                entry.is_asked = true;
                self.asking.push(Box::pin(look_up(name.clone())));
            }
        }
    }

    /// Waits for the next answer; for ever, where none is asked for.
    pub async fn answered(&mut self) -> (String, Option<IpAddr>) {
        match self.asking.next().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    /// Takes over an answer.
    pub fn take(&mut self, name: &str, address: Option<IpAddr>, now: Uptime) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        if address.is_none() && !entry.known.is_failing {
            tracing::warn!(name, last_good = ?entry.known.address, "a name doesn't resolve");
        }
        entry.known = Known { address: address.or(entry.known.address), is_failing: address.is_none() };
        (entry.is_asked, entry.heard, entry.due) = (false, now, now.plus(if address.is_some() { GOOD_MS } else { RETRY_MS }));
    }
}

/// Where a name points to, if it resolves in time; with the name.
pub async fn look_up(name: String) -> (String, Option<IpAddr>) {
    let found = tokio::time::timeout(LIMIT, tokio::net::lookup_host((name.clone(), 0))).await;
    // The least one, so that a name with many addresses means the same device each time.
    let address = found.ok().and_then(Result::ok).and_then(|all| all.map(|socket| socket.ip()).min());
    (name, address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_asked_for_again_when_what_it_points_to_falls_silent() {
        let mut names = Names::default();
        names.set(["localhost".to_owned()].into_iter());
        names.ask_due(Uptime(0));
        let (name, address) = names.answered().await;
        names.take(&name, address, Uptime(10));
        assert!(!names.is_in_doubt(&name, Uptime(9)), "it was heard since");
        names.doubt(&name, Uptime(20));
        assert!(names.is_in_doubt(&name, Uptime(20)));
        names.ask_due(Uptime(20));
        let (name, address) = names.answered().await;
        names.take(&name, address, Uptime(30));
        assert!(!names.is_in_doubt(&name, Uptime(20)));
        names.doubt(&name, Uptime(20));
        names.ask_due(Uptime(31));
        assert!(names.asking.is_empty(), "once for each silence");
    }

    #[tokio::test]
    async fn the_last_good_address_is_kept_while_a_name_fails() {
        let mut names = Names::default();
        names.set(["localhost".to_owned()].into_iter());
        assert_eq!(names.get("localhost"), Known::default());
        names.ask_due(Uptime(0));
        let (name, address) = names.answered().await;
        assert!(address.is_some_and(|address| address.is_loopback()), "{address:?}");
        names.take(&name, address, Uptime(10));
        assert_eq!(names.get("localhost"), Known { address, is_failing: false });
        names.ask_due(Uptime(10 + GOOD_MS - 1));
        assert!(names.asking.is_empty(), "it is still good");
        names.take(&name, None, Uptime(GOOD_MS));
        assert_eq!(names.get("localhost"), Known { address, is_failing: true });
        names.set(["localhost".to_owned(), "other".to_owned()].into_iter());
        assert_eq!((names.get("localhost").address, names.get("other")), (address, Known::default()));
        names.set(std::iter::empty());
        names.take("localhost", None, Uptime(0));
        assert!(names.is_empty());
    }
}

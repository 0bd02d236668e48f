//! One numbered line of messages of the live feed: all who want to see the same read it, and who lost the connection goes on
//! where they were.

use std::collections::VecDeque;

use shared::{BranchId, Millis};
use tokio::sync::broadcast;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::accounts::Reach;
use crate::fleet::BranchState;

/// Messages that a reader may lag behind before it is dropped.
const LAG_LIMIT: usize = 1_024;
/// Most messages, and most bytes of them, that are kept for readers who come back.
const KEPT_LIMIT: usize = 1_024;
const KEPT_LIMIT_BYTES: usize = 1024 * 1024;
/// How long a snapshot is good for others, in ms: a thousand readers who come at once would have it written a thousand times.
const SNAPSHOT_MS: i64 = 1_000;
/// How long a channel without readers goes on, in ms: a reader may come back.
const DESERTED_MS: i64 = 120_000;

/// What a reader of the feed gets to see.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Interest {
    /// Which regions they may see.
    pub reach: Reach,
    /// Which one they want.
    pub region: Option<BranchId>,
    /// Which branch they want.
    pub branch: Option<BranchId>,
}

impl Interest {
    /// Whether a branch and its devices are seen.
    pub fn takes(&self, branch: &BranchState) -> bool {
        self.reach.takes(&branch.info.region)
            && self.region.as_ref().is_none_or(|wanted| *wanted == branch.info.region)
            && self.branch.as_ref().is_none_or(|wanted| *wanted == branch.info.id)
    }
}

/// A line of messages.
pub(crate) struct Channel {
    /// By which readers know that the numbers are these.
    pub(crate) epoch: String,
    /// The number of the last message.
    pub(crate) seq: u64,
    kept: VecDeque<Utf8Bytes>,
    kept_bytes: usize,
    messages: broadcast::Sender<Utf8Bytes>,
    read_at: Millis,
    snapshot: Option<Snapshot>,
}

/// What a reader begins with, as it was at a number.
struct Snapshot {
    text: Utf8Bytes,
    seq: u64,
    made: Millis,
}

impl Channel {
    pub(crate) fn new(now: Millis) -> Self {
        let (messages, _) = broadcast::channel(LAG_LIMIT);
        let epoch = format!("{:08x}", rand::random::<u32>());
        Self { epoch, seq: 0, kept: VecDeque::new(), kept_bytes: 0, messages, read_at: now, snapshot: None }
    }

    /// Numbers a message, sends it and keeps it.
    pub(crate) fn send(&mut self, write: impl FnOnce(&str, u64) -> String) {
        self.seq += 1;
        let message = Utf8Bytes::from(write(&self.epoch, self.seq));
        self.kept_bytes += message.len();
        self.kept.push_back(message.clone());
        while self.kept.len() > KEPT_LIMIT || self.kept_bytes > KEPT_LIMIT_BYTES {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.kept_bytes -= oldest.len();
        }
        // Nobody may read just now.
        let _ = self.messages.send(message);
    }

    /// Sends what has no number.
    pub(crate) fn mention(&self, message: Utf8Bytes) {
        let _ = self.messages.send(message);
    }

    /// All that comes from now on.
    pub(crate) fn read(&mut self, now: Millis) -> broadcast::Receiver<Utf8Bytes> {
        self.read_at = now;
        self.messages.subscribe()
    }

    /// A snapshot for a new reader: the last one while nothing has been told since, or else one that is written now.
    pub(crate) fn start(&mut self, now: Millis, write: impl FnOnce(&str, u64) -> String) -> Utf8Bytes {
        let is_good = |known: &&Snapshot| known.seq == self.seq && (0..SNAPSHOT_MS).contains(&now.since(known.made));
        if let Some(known) = self.snapshot.as_ref().filter(is_good) {
            return known.text.clone();
        }
        let text = Utf8Bytes::from(write(&self.epoch, self.seq));
        self.snapshot = Some(Snapshot { text: text.clone(), seq: self.seq, made: now });
        text
    }

    /// Has the next reader's snapshot made anew.
    pub(crate) fn forget_snapshot(&mut self) {
        self.snapshot = None;
    }

    /// What came after a number, if all of it is still kept.
    pub(crate) fn after(&self, epoch: &str, seq: u64) -> Option<Vec<Utf8Bytes>> {
        let missed = usize::try_from(self.seq.checked_sub(seq)?).ok()?;
        let first = self.kept.len().checked_sub(missed)?;
        (self.epoch == epoch).then(|| self.kept.iter().skip(first).cloned().collect())
    }

    /// Whether anybody reads it.
    pub(crate) fn is_read(&self) -> bool {
        self.messages.receiver_count() > 0
    }

    /// Whether anybody reads it, or may come back. Lets go of a snapshot that is too old for others.
    pub(crate) fn is_wanted(&mut self, now: Millis) -> bool {
        if self.is_read() {
            self.read_at = now;
        }
        if self.snapshot.as_ref().is_some_and(|snapshot| now.since(snapshot.made) >= SNAPSHOT_MS) {
            self.snapshot = None;
        }
        // A clock that was set back ends nobody's feed.
        now.since(self.read_at) < DESERTED_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(n: u64) -> Channel {
        let mut channel = Channel::new(Millis(0));
        (0..n).for_each(|_| channel.send(|_, seq| seq.to_string()));
        channel
    }

    fn check(channel: &Channel, seq: u64, expected: Option<&str>) {
        let words = |all: Vec<Utf8Bytes>| all.iter().map(Utf8Bytes::as_str).collect::<Vec<_>>().join(" ");
        assert_eq!(channel.after(&channel.epoch, seq).map(words).as_deref(), expected, "{seq}");
    }

    #[test]
    fn who_comes_back_gets_what_they_missed_or_nothing_at_all() {
        let channel = sent(5);
        check(&channel, 5, Some(""));
        check(&channel, 3, Some("4 5"));
        check(&channel, 0, Some("1 2 3 4 5"));
        check(&channel, 6, None);
        assert!(channel.after("another", 5).is_none());
    }

    #[test]
    fn only_so_much_is_kept() {
        let channel = sent(KEPT_LIMIT as u64 + 10);
        check(&channel, 9, None);
        assert_eq!(channel.after(&channel.epoch, 10).map(|all| all.len()), Some(KEPT_LIMIT));
        let mut channel = sent(3);
        channel.send(|_, _| "x".repeat(KEPT_LIMIT_BYTES + 1));
        check(&channel, 3, None);
        check(&channel, 4, Some(""));
        assert_eq!((channel.kept.len(), channel.kept_bytes), (0, 0));
    }

    #[test]
    fn a_channel_goes_on_for_a_while_without_readers() {
        let mut channel = Channel::new(Millis(0));
        let reader = channel.read(Millis(0));
        assert!(channel.is_wanted(Millis(10 * DESERTED_MS)));
        drop(reader);
        assert!(channel.is_wanted(Millis(11 * DESERTED_MS - 1)));
        assert!(!channel.is_wanted(Millis(11 * DESERTED_MS)));
    }
}

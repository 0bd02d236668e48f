//! Which chunks are on their way, and when to send one again.
//!
//! Pure. The collector's ack is the only proof of arrival: after a new connection, and when no ack comes, sending
//! starts again from the oldest chunk that isn't acknowledged.

use std::collections::VecDeque;

use shared::Uptime;

use crate::buffer::Position;

/// Most chunks on their way at once.
const CHUNKS_LIMIT: usize = 8;
/// How long to wait for an ack at first, in ms. Each time in vain doubles it.
const ACK_WAIT_MS: u64 = 3_000;
/// Longest wait for an ack, in ms.
const ACK_WAIT_LIMIT_MS: u64 = 60_000;

/// Chunks on their way.
#[derive(Debug, Default)]
pub struct Window {
    acked: Position,
    on_the_way: VecDeque<Position>,
    waiting_since: Uptime,
    tries: u32,
}

impl Window {
    /// A connection has begun: nothing that was on its way counts.
    pub fn connected(&mut self, now: Uptime) {
        self.on_the_way.clear();
        self.waiting_since = now;
        self.tries = 0;
    }

    /// After which position the next chunk begins, if one may be sent now.
    pub fn next_after(&self) -> Option<Position> {
        if self.on_the_way.len() >= CHUNKS_LIMIT {
            return None;
        }
        Some(self.on_the_way.back().copied().unwrap_or(self.acked))
    }

    /// A chunk that ends at `end` was sent.
    pub fn sent(&mut self, end: Position, now: Uptime) {
        if self.on_the_way.is_empty() {
            self.waiting_since = now;
        }
        self.on_the_way.push_back(end);
    }

    /// The collector has everything up to `through`.
    pub fn acked(&mut self, through: Position, now: Uptime) {
        if through <= self.acked {
            return;
        }
        self.acked = through;
        self.on_the_way.retain(|end| *end > through);
        self.waiting_since = now;
        self.tries = 0;
    }

    /// The end of the oldest chunk on its way.
    pub fn oldest(&self) -> Option<Position> {
        self.on_the_way.front().copied()
    }

    /// Whether it is time to send everything again that isn't acknowledged. When it is, sending starts from there.
    pub fn expired(&mut self, now: Uptime) -> bool {
        let wait = (ACK_WAIT_MS << self.tries.min(8)).min(ACK_WAIT_LIMIT_MS);
        if self.on_the_way.is_empty() || now.since(self.waiting_since) < wait {
            return false;
        }
        self.on_the_way.clear();
        self.waiting_since = now;
        self.tries += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seq: u64) -> Position {
        Position { run: 1, seq }
    }

    #[test]
    fn no_more_than_eight_chunks_are_on_their_way() {
        let mut window = Window::default();
        for seq in 1..=8 {
            assert_eq!(window.next_after(), Some(if seq == 1 { Position::default() } else { at(seq - 1) }));
            window.sent(at(seq), Uptime(0));
        }
        assert_eq!(window.next_after(), None);
        window.acked(at(3), Uptime(1));
        assert_eq!(window.next_after(), Some(at(8)));
    }

    #[test]
    fn what_gets_no_ack_is_sent_again_from_the_oldest_with_growing_patience() {
        let mut window = Window::default();
        window.sent(at(1), Uptime(0));
        window.sent(at(2), Uptime(0));
        window.acked(at(1), Uptime(500));
        assert!(!window.expired(Uptime(3_499)));
        assert!(window.expired(Uptime(3_500)));
        assert_eq!(window.next_after(), Some(at(1)));
        window.sent(at(2), Uptime(3_500));
        assert!(!window.expired(Uptime(9_499)));
        assert!(window.expired(Uptime(9_500)));
    }

    #[test]
    fn a_new_connection_starts_from_the_oldest_that_is_not_acknowledged() {
        let mut window = Window::default();
        window.sent(at(4), Uptime(0));
        window.acked(at(4), Uptime(1));
        window.sent(at(9), Uptime(2));
        window.connected(Uptime(3));
        assert_eq!(window.next_after(), Some(at(4)));
    }

    #[test]
    fn an_old_ack_changes_nothing() {
        let mut window = Window::default();
        window.sent(at(4), Uptime(0));
        window.acked(at(4), Uptime(1));
        window.acked(at(2), Uptime(2));
        assert_eq!(window.next_after(), Some(at(4)));
    }
}

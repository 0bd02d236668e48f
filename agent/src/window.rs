//! Which chunks are on their way, how much may be, and when to send one again.
//!
//! Pure. The collector's ack is the only proof of arrival: after a new connection, and when no ack comes, sending
//! starts again from the oldest chunk that isn't acknowledged.
//!
//! How much may be on its way follows the acks, as TCP Vegas follows its round trips: where they grow slow, the line has
//! a queue, and what is queued there stands before the next outage.

use std::collections::VecDeque;

use shared::Uptime;

use crate::buffer::Position;

/// Bytes that may be on their way on a new connection, of which nothing is known.
const START_BYTES: usize = 8 * 1024;
/// Fewest bytes that may be on their way: two small chunks.
const LEAST_BYTES: usize = 2 * 1024;
/// Most bytes that may be on their way.
const MOST_BYTES: usize = 256 * 1024;
/// Most bytes of one chunk: a payload has a limit.
const CHUNK_BYTES: usize = 32 * 1024;
/// An ack that took no longer than this beyond the fastest one says that the line has room, in ms.
const ROOM_MS: u64 = 300;
/// An ack that took this much longer than the fastest one says that the line has a queue, in ms.
const QUEUE_MS: u64 = 700;
/// How long to wait for an ack at least, in ms. Each time in vain doubles it.
const ACK_WAIT_MS: u64 = 3_000;
/// Longest wait for an ack, in ms.
const ACK_WAIT_LIMIT_MS: u64 = 60_000;

#[derive(Debug, Clone, Copy)]
struct Flight {
    end: Position,
    bytes: usize,
    sent: Uptime,
}

/// Chunks on their way.
#[derive(Debug)]
pub struct Window {
    acked: Position,
    on_the_way: VecDeque<Flight>,
    limit_bytes: usize,
    fastest_ms: Option<u64>,
    /// How long to wait for an ack.
    patience_ms: u64,
    /// Until when acks answer chunks that were sent before the last cut of the limit.
    slowed: Uptime,
    waiting_since: Uptime,
    is_repeated: bool,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            acked: Position::default(),
            on_the_way: VecDeque::new(),
            limit_bytes: START_BYTES,
            fastest_ms: None,
            patience_ms: ACK_WAIT_MS,
            slowed: Uptime(0),
            waiting_since: Uptime(0),
            is_repeated: false,
        }
    }
}

impl Window {
    /// A connection has begun: nothing that was on its way counts, and nothing is known of the line.
    pub fn connected(&mut self, now: Uptime) {
        *self = Self { acked: self.acked, waiting_since: now, slowed: now, ..Self::default() };
    }

    /// After which position the next chunk begins and about how many bytes it may have, if one may be sent now.
    pub fn next_after(&self) -> Option<(Position, usize)> {
        let half = self.limit_bytes / 2;
        let on_the_way: usize = self.on_the_way.iter().map(|flight| flight.bytes).sum();
        // Two halves: one is on its way to the collector while the ack for the other comes back.
        if on_the_way > half {
            return None;
        }
        Some((self.on_the_way.back().map_or(self.acked, |flight| flight.end), half.min(CHUNK_BYTES)))
    }

    /// A chunk of so many bytes that ends at `end` was sent.
    pub fn sent(&mut self, end: Position, bytes: usize, now: Uptime) {
        if self.on_the_way.is_empty() {
            self.waiting_since = now;
        }
        self.on_the_way.push_back(Flight { end, bytes, sent: now });
    }

    /// The collector has everything up to `through`.
    pub fn acked(&mut self, through: Position, now: Uptime) {
        if through <= self.acked {
            return;
        }
        self.acked = through;
        self.waiting_since = now;
        let mut arrived = None;
        while let Some(flight) = self.on_the_way.front().copied().filter(|flight| flight.end <= through) {
            self.on_the_way.pop_front();
            arrived = Some(flight);
        }
        // What was sent twice tells nothing of the way, as the ack may answer either; the longer patience stays until
        // something was sent once and acknowledged (Karn's algorithm).
        if let Some(flight) = arrived.filter(|_| !self.is_repeated) {
            self.learn(flight, now);
        }
        self.is_repeated &= !self.on_the_way.is_empty();
    }

    fn learn(&mut self, flight: Flight, now: Uptime) {
        let took = now.since(flight.sent);
        self.patience_ms = (4 * took).clamp(ACK_WAIT_MS, ACK_WAIT_LIMIT_MS);
        if flight.sent < self.slowed {
            return;
        }
        let fastest = match self.fastest_ms {
            // With so little on its way there is no queue of ours: the line itself has become slower.
            Some(_) if self.limit_bytes == LEAST_BYTES => took,
            Some(known) => known.min(took),
            None => took,
        };
        self.fastest_ms = Some(fastest);
        // On a long way times vary more.
        if took <= fastest + ROOM_MS.max(fastest / 4) {
            self.limit_bytes = (self.limit_bytes + flight.bytes).min(MOST_BYTES);
        } else if took > fastest + QUEUE_MS.max(fastest / 2) {
            self.limit_bytes = (self.limit_bytes / 2).max(LEAST_BYTES);
            self.slowed = now;
        }
    }

    /// The end of the oldest chunk on its way.
    pub fn oldest(&self) -> Option<Position> {
        self.on_the_way.front().map(|flight| flight.end)
    }

    /// Whether it is time to send everything again that isn't acknowledged. When it is, sending starts from there.
    pub fn expired(&mut self, now: Uptime) -> bool {
        if self.on_the_way.is_empty() || now.since(self.waiting_since) < self.patience_ms {
            return false;
        }
        self.on_the_way.clear();
        self.waiting_since = now;
        self.is_repeated = true;
        self.patience_ms = (2 * self.patience_ms).min(ACK_WAIT_LIMIT_MS);
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seq: u64) -> Position {
        Position { run: 1, seq }
    }

    /// Sends chunks over a line of `bytes_per_s` with a round trip of `way_ms` for a minute; the longest time in ms that
    /// a byte waited behind others, and the bytes that arrived.
    fn drain(bytes_per_s: u64, way_ms: u64) -> (u64, u64) {
        let mut window = Window::default();
        window.connected(Uptime(0));
        let (mut seq, mut free_at, mut arrived, mut longest) = (0, 0, 0, 0);
        let mut acks: VecDeque<(u64, Position)> = VecDeque::new();
        for now in 0..60_000 {
            while let Some((_, end)) = acks.front().copied().filter(|(at, _)| *at <= now) {
                acks.pop_front();
                window.acked(end, Uptime(now));
            }
            while let Some((_, room)) = window.next_after() {
                seq += 1;
                free_at = free_at.max(now) + room as u64 * 1_000 / bytes_per_s;
                arrived += room as u64;
                // The first round trips are spent on learning.
                longest = longest.max(if now > 10_000 { free_at - now } else { 0 });
                acks.push_back((free_at + way_ms, at(seq)));
                window.sent(at(seq), room, Uptime(now));
            }
            assert!(!window.expired(Uptime(now)), "nothing is sent twice on a line that only is slow");
        }
        (longest, arrived)
    }

    #[test]
    fn on_a_line_of_64_kbit_no_more_than_a_second_is_on_its_way_and_the_line_is_never_idle() {
        for way_ms in [30, 200, 600] {
            let (longest, arrived) = drain(8_000, way_ms);
            assert!(longest <= 1_300, "{longest} ms, {way_ms} ms away");
            assert!(arrived > 60 * 8_000 * 3 / 4, "{arrived} B in a minute, {way_ms} ms away");
        }
    }

    #[test]
    fn on_a_fast_line_the_window_opens() {
        let (longest, arrived) = drain(1_000_000, 40);
        assert!(longest < 300 && arrived > 30_000_000, "{longest} ms, {arrived} B");
    }

    #[test]
    fn a_line_that_becomes_slower_is_used_all_the_same() {
        let mut window = Window::default();
        window.connected(Uptime(0));
        let (mut seq, mut now) = (0, 0);
        let mut exchange = |way_ms: u64| {
            let mut sent = 0;
            let before = seq;
            while let Some((_, room)) = window.next_after() {
                (seq, sent) = (seq + 1, sent + room);
                window.sent(at(seq), room, Uptime(now));
            }
            now += way_ms;
            (before + 1..=seq).for_each(|seq| window.acked(at(seq), Uptime(now)));
            sent
        };
        let fast: Vec<usize> = (0..10).map(|_| exchange(50)).collect();
        let slow: Vec<usize> = (0..30).map(|_| exchange(3_000)).collect();
        assert!(fast[9] > 100_000 && slow[7] < 4_000 && slow[29] > 100_000, "{fast:?} {slow:?}");
    }

    #[test]
    fn no_more_than_the_limit_is_on_its_way() {
        let mut window = Window::default();
        let mut seq = 0;
        while let Some((_, room)) = window.next_after() {
            seq += 1;
            window.sent(at(seq), room, Uptime(0));
        }
        assert_eq!(seq, 2, "half and half");
        window.acked(at(1), Uptime(1));
        assert_eq!(window.next_after(), Some((at(2), 6 * 1024)), "the line has room");
    }

    #[test]
    fn what_gets_no_ack_is_sent_again_from_the_oldest_with_growing_patience() {
        let mut window = Window::default();
        window.sent(at(1), 10, Uptime(0));
        window.sent(at(2), 10, Uptime(0));
        window.acked(at(1), Uptime(500));
        assert!(!window.expired(Uptime(3_499)));
        assert!(window.expired(Uptime(3_500)));
        assert_eq!(window.next_after().map(|(after, _)| after), Some(at(1)));
        window.sent(at(2), 10, Uptime(3_500));
        assert!(!window.expired(Uptime(9_499)));
        assert!(window.expired(Uptime(9_500)));
    }

    #[test]
    fn where_each_ack_takes_long_nothing_is_sent_twice_for_ever() {
        let mut window = Window::default();
        let (mut repeated, mut now) = (0, 0);
        for seq in 1..=50 {
            window.sent(at(seq), 10, Uptime(now));
            for _ in 0..10 {
                now += 550;
                repeated += u32::from(window.expired(Uptime(now)));
            }
            window.acked(at(seq), Uptime(now));
        }
        assert_eq!(repeated, 1);
    }

    #[test]
    fn a_new_connection_starts_from_the_oldest_that_is_not_acknowledged() {
        let mut window = Window::default();
        window.sent(at(4), 10, Uptime(0));
        window.acked(at(4), Uptime(1));
        window.sent(at(9), 10, Uptime(2));
        window.connected(Uptime(3));
        assert_eq!(window.next_after(), Some((at(4), START_BYTES / 2)));
    }

    #[test]
    fn an_old_ack_changes_nothing() {
        let mut window = Window::default();
        window.sent(at(4), 10, Uptime(0));
        window.acked(at(4), Uptime(1));
        window.acked(at(2), Uptime(2));
        assert_eq!(window.next_after().map(|(after, _)| after), Some(at(4)));
    }

    proptest! {
        /// Against the numbers themselves: whatever is acknowledged, lost or cut, the next chunk follows on what was
        /// sent last or acknowledged, and what may be on its way has a limit.
        #[test]
        fn whatever_happens_nothing_is_passed_over(steps in prop::collection::vec((0u8..4, 1u64..5_000), 1..200)) {
            let mut window = Window::default();
            let (mut acked, mut sent, mut now) = (0, 0, 0);
            for (step, n) in steps {
                match step {
                    0 => while let Some((after, room)) = window.next_after() {
                        prop_assert_eq!(after.seq, sent);
                        sent += 1;
                        window.sent(at(sent), room.min(n as usize), Uptime(now));
                        if sent > acked + 2 * MOST_BYTES as u64 / n { break }
                    },
                    1 => {
                        acked = (acked + n % 7).min(sent);
                        if acked > 0 { window.acked(at(acked), Uptime(now)) }
                    }
                    2 => {
                        now += n;
                        if window.expired(Uptime(now)) { sent = acked }
                    }
                    _ => {
                        window.connected(Uptime(now));
                        sent = acked;
                    }
                }
                let on_the_way: usize = window.on_the_way.iter().map(|flight| flight.bytes).sum();
                prop_assert!(on_the_way <= window.limit_bytes + CHUNK_BYTES && window.limit_bytes <= MOST_BYTES);
                prop_assert!((LEAST_BYTES..=MOST_BYTES).contains(&window.limit_bytes));
            }
        }
    }
}

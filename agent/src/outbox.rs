//! What goes to the collector next: the buffer, what of it is on its way, and how it is dated.
//!
//! Pure but for the buffer's disk: it is told what arrives and says what to send.

use shared::message::Health;
use shared::{Ack, Batch, BootId, BranchId, Dating, Heartbeat, Live, Millis, Uptime};

use crate::buffer::{Buffer, Level, Position, Run, Store, anchors_of};
use crate::dating::{Estimator, drift};
use crate::window::Window;

/// More entries than this waiting for an ack are a backlog: the newest states then travel beside it.
const BACKLOG_ENTRIES: u64 = 50;
/// So are more bytes than this: a second of a line with 64 kbit/s.
const BACKLOG_BYTES: u64 = 8_000;
/// What was learnt on an earlier connection is good enough to date by up to this error, in ms.
const TRUSTED_ERROR_MS: u32 = 500;
/// Most devices whose newest state travels in one heartbeat: the payload has a limit.
const STATES_LIMIT: usize = 2_000;

/// See the module.
pub struct Outbox<S> {
    branch: BranchId,
    /// What waits.
    pub buffer: Buffer<S>,
    window: Window,
    estimator: Estimator,
    /// When the machine was certainly in use.
    since: Millis,
    is_connected: bool,
    /// The collector has told the time on this connection.
    has_heard: bool,
    restatements: u64,
    /// Size of the chunk that was offered last.
    offered: (Position, usize),
}

/// What a heartbeat tells beside the stream.
#[derive(Debug, Clone, Default)]
pub struct Word {
    /// How the agent is, if that is told now; the buffer's part is filled in here.
    pub health: Option<Health>,
    /// The targets' newest states, for the case that the stream is behind.
    pub states: std::sync::Arc<Vec<Live>>,
}

impl<S: Store> Outbox<S> {
    /// An outbox of a branch that has no connection yet.
    pub fn new(branch: BranchId, buffer: Buffer<S>) -> Self {
        let boot = buffer.run().boot;
        let runs = buffer.older().iter().chain([buffer.run()]);
        let estimator = Estimator::of(anchors_of(runs, boot));
        let (window, offered) = (Window::default(), Default::default());
        let (has_heard, since) = (false, Millis::EARLIEST);
        Self { branch, buffer, window, estimator, since, is_connected: false, has_heard, restatements: 0, offered }
    }

    /// The same on a machine that held something of that date when the run began, as a config has one: no boot that never
    /// heard the time began before.
    pub fn since(self, date: Millis) -> Self {
        Self { since: date.max(Millis::EARLIEST), ..self }
    }

    /// The machine's clock reads `wall`, and NTP vouches for it to `error_ms`.
    pub fn heard_ntp(&mut self, wall: Millis, error_ms: u64, now: Uptime) {
        self.estimator.on_ntp(wall, error_ms, now);
        self.learnt(now);
    }

    fn learnt(&mut self, now: Uptime) {
        if let Some(anchor) = self.estimator.newest() {
            let before = self.buffer.oldest_moment().and_then(|oldest| self.estimator.before(oldest));
            self.buffer.dated(anchor, before, now);
        }
    }

    /// A connection has begun: nothing that was on its way counts.
    pub fn connected(&mut self, now: Uptime) {
        (self.is_connected, self.has_heard) = (true, false);
        self.window.connected(now);
    }

    /// The connection has ended.
    pub fn disconnected(&mut self) {
        self.is_connected = false;
    }

    /// Writes what has waited long enough.
    pub fn tick(&mut self, now: Uptime) {
        let ordinal = self.buffer.run().ordinal;
        self.buffer.tick(self.is_connected, now);
        if self.buffer.run().ordinal != ordinal {
            // Earlier runs have come to light, which the window would pass over.
            self.window = Window::default();
        }
    }

    /// Whether there is a connection.
    pub fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// How the present boot is dated, once known.
    pub fn dating(&self, now: Uptime) -> Option<Dating> {
        self.estimator.dating(now)
    }

    /// The same, if it is good enough to date what goes to the ledger: the collector has told the time on this connection,
    /// or told it before so lately that it can't be far off.
    fn trusted_dating(&self, now: Uptime) -> Option<Dating> {
        let dating = self.estimator.dating(now)?;
        let (_, error_ms) = dating.date(now);
        let is_close = self.estimator.has_heard_collector() && error_ms <= TRUSTED_ERROR_MS;
        (self.has_heard || is_close).then_some(dating)
    }

    /// How often the collector has asked for every state anew.
    pub fn restatements(&self) -> u64 {
        self.restatements
    }

    /// Whether so much waits for an ack that the newest states have to travel beside it.
    pub fn is_behind(&self) -> bool {
        let Level { waiting, bytes, memory_bytes, .. } = self.buffer.level();
        waiting > BACKLOG_ENTRIES || bytes + memory_bytes > BACKLOG_BYTES || self.buffer.is_blocked()
    }

    /// An ack has arrived.
    pub fn acked(&mut self, ack: &Ack, now: Uptime) {
        self.restatements += u64::from(ack.restate && ack.stream == self.buffer.run().stream);
        // An ack to an earlier boot echoes the uptime of that one.
        let run = self.buffer.run();
        let is_ours = |other: &Run| other.stream == ack.stream && other.boot == run.boot;
        let is_of_this_boot = is_ours(run) || self.buffer.older().iter().any(is_ours);
        if let Some(echo) = ack.echo.filter(|_| is_of_this_boot) {
            self.estimator.on_ack(ack.now, echo, now);
            self.has_heard = true;
            self.learnt(now);
        }
        if let Some(position) = self.buffer.ack(ack.stream, ack.through, now) {
            self.window.acked(position, now);
        }
    }

    /// The next batch to send, if there is one, the time is known, and not too much is on its way; with the position
    /// to tell [`Self::sent`].
    pub fn next(&mut self, now: Uptime) -> Option<(Batch, Position)> {
        let present = self.trusted_dating(now).filter(|_| self.is_connected)?;
        if self.window.expired(now) {
            tracing::debug!("no ack: sending again");
        }
        let (after, room) = self.window.next_after()?;
        let chunk = self.buffer.next(after, room, now)?;
        // What a run has told must be there before the next run speaks: the collector could not tell which of two states
        // is the newer one.
        if self.window.oldest().is_some_and(|waiting| waiting.run != chunk.end.run) {
            return None;
        }
        let same_boot = chunk.run.boot == self.buffer.run().boot;
        let moments = chunk.group.deltas.iter().map(|delta| delta.at);
        let (from, to) = (moments.clone().min().unwrap_or(now), moments.max().unwrap_or(now));
        let dating = if same_boot {
            self.estimator.dating_of(from, to).unwrap_or(present)
        } else {
            let present = (self.buffer.run().boot, present);
            Past { runs: self.buffer.older(), present, since: self.since }.dating_of(chunk.run.boot, from, to)
        };
        let batch = Batch {
            branch: self.branch.clone(),
            stream: chunk.run.stream,
            dating,
            oldest: chunk.oldest,
            sent: same_boot.then_some(now),
            observed_through: chunk.observed_through,
            group: chunk.group,
        };
        self.offered = (chunk.end, postcard::experimental::serialized_size(&batch).unwrap_or(0));
        Some((batch, chunk.end))
    }

    /// A batch that ends at `end` has been handed to the connection.
    pub fn sent(&mut self, end: Position, now: Uptime) {
        let (offered, bytes) = self.offered;
        self.window.sent(end, if offered == end { bytes } else { 0 }, now);
    }

    /// A sign of life.
    pub fn heartbeat(&self, word: &Word, now: Uptime) -> Heartbeat {
        let Level { waiting, bytes, volatile, .. } = self.buffer.level();
        let states = if self.is_behind() { word.states.iter().take(STATES_LIMIT).cloned().collect() } else { Vec::new() };
        Heartbeat {
            stream: self.buffer.run().stream,
            sent: now,
            // One without a date asks for an ack.
            dating: self.trusted_dating(now),
            last: self.buffer.run().last,
            observed_through: self.buffer.observed_through(),
            health: word.health.clone().map(|health| Health {
                waiting,
                buffer_bytes: bytes,
                buffer_volatile: volatile,
                ..health
            }),
            states,
        }
    }
}

/// What is known of the boots before the present one.
struct Past<'a> {
    /// Runs in their order; some may be of the present boot.
    runs: &'a [Run],
    present: (BootId, Dating),
    /// When the machine was certainly in use.
    since: Millis,
}

impl Past<'_> {
    /// How to date moments of an earlier boot: by what its runs have heard, and by when it must have been over.
    fn dating_of(&self, boot: BootId, from: Uptime, to: Uptime) -> Dating {
        let mut heard = self.heard(boot);
        let Some(dating) = heard.dating_of(from, to) else { return self.bounds(boot) };
        heard.on_end(self.lived(boot), self.over_before(boot));
        heard.dating_of(from, to).unwrap_or(dating)
    }

    fn heard(&self, boot: BootId) -> Estimator {
        Estimator::of(anchors_of(self.runs, boot))
    }

    /// Up to which moment a boot is known to have lasted.
    fn lived(&self, boot: BootId) -> Uptime {
        let of_boot = self.runs.iter().filter(|run| run.boot == boot);
        of_boot.map(|run| run.dating.map_or(run.at, |anchor| anchor.at().max(run.at))).max().unwrap_or_default()
    }

    /// The latest date at which a boot can have begun that was over before another date.
    fn latest(&self, boot: BootId, over: Millis) -> Millis {
        let lived = self.lived(boot).0;
        // By a clock that runs as fast as one may.
        let latest = over.plus(drift(lived) - i64::try_from(lived).unwrap_or(i64::MAX));
        let heard = self.heard(boot).dating_of(Uptime(0), Uptime(0));
        heard.map_or(latest, |heard| latest.min(spread(heard).1))
    }

    /// The date before which an earlier boot was over: each one after it had to live before the present one began.
    fn over_before(&self, boot: BootId) -> Millis {
        let (present, dating) = self.present;
        let mut later: Vec<BootId> = self.runs.iter().map(|run| run.boot).filter(|other| *other != present).collect();
        later.dedup();
        later.iter().rev().take_while(|other| **other != boot).fold(spread(dating).1, |over, later| self.latest(*later, over))
    }

    /// Between which dates a boot began that never heard the time: after the one before, and so long before the one after as
    /// it lived.
    fn bounds(&self, boot: BootId) -> Dating {
        let place = self.runs.iter().position(|run| run.boot == boot).unwrap_or(0);
        let (earlier, later) = self.runs.split_at(place);
        let end_of = |run: &Run| {
            let lived = self.lived(run.boot);
            let began = self.heard(run.boot).dating_of(lived, lived)?;
            Some(spread(began).0.plus(i64::try_from(lived.0).unwrap_or(i64::MAX)))
        };
        // What the machine holds may have come with a later boot that heard the time.
        let since = if later.iter().any(|run| run.dating.is_some()) { Millis::EARLIEST } else { self.since };
        let not_after = self.latest(boot, self.over_before(boot));
        // A date by a clock that was ahead bounds nothing.
        let since = Some(since).filter(|since| *since < not_after).unwrap_or(Millis::EARLIEST);
        let not_before = earlier.iter().filter_map(end_of).fold(since, Millis::max);
        Dating::Bounds { not_before: not_before.min(not_after), not_after }
    }
}

/// The earliest and the latest date at which a boot can have begun.
fn spread(dating: Dating) -> (Millis, Millis) {
    match dating {
        Dating::Fixed { boot_at, error_ms } => (boot_at.plus(-i64::from(error_ms)), boot_at.plus(error_ms.into())),
        Dating::Bounds { not_before, not_after } => (not_before, not_after),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::io;
    use std::rc::Rc;

    use shared::{Body, Status, StreamId, Transition};

    use super::*;
    use crate::buffer::Write;
    use crate::contents::Contents;

    #[derive(Default, Clone)]
    struct Card {
        contents: Rc<RefCell<Contents>>,
        dead: Rc<Cell<bool>>,
    }

    impl Card {
        fn ok(&self) -> io::Result<()> {
            if self.dead.get() { Err(io::Error::other("Input/output error")) } else { Ok(()) }
        }
    }

    impl Store for Card {
        fn runs(&mut self) -> io::Result<Vec<Run>> {
            self.ok()?;
            self.contents.borrow_mut().runs()
        }
        fn positions(&mut self) -> io::Result<Vec<Position>> {
            self.ok()?;
            self.contents.borrow_mut().positions()
        }
        fn read(&mut self, at: Position) -> io::Result<Option<Vec<u8>>> {
            self.ok()?;
            self.contents.borrow_mut().read(at)
        }
        fn commit(&mut self, writes: Vec<Write>) -> io::Result<()> {
            self.ok()?;
            self.contents.borrow_mut().commit(writes)
        }
        fn forget(&mut self, writes: Vec<Write>) -> io::Result<()> {
            self.commit(writes)
        }
    }

    const T: i64 = 1_795_442_400_000;

    fn down(at: u64) -> Body {
        let device = "vake-atm-1".parse().expect("an id");
        Body::Transition(Transition {
            device,
            from: Status::Up,
            to: Status::Down,
            onset: Uptime(at),
            last_ok: None,
            verdict: None,
            evidence: None,
        })
    }

    fn ack(through: u64, now: u64) -> Ack {
        Ack { stream: StreamId(1), through, now: Millis(T + now as i64), echo: Some(Uptime(now)), restate: false }
    }

    #[test]
    fn a_card_that_dies_with_one_entry_on_it_does_not_silence_the_branch() {
        let card = Card::default();
        let dead = Rc::clone(&card.dead);
        let buffer = Buffer::open(card, StreamId(1), BootId(1), 1 << 20, Uptime(0));
        let mut outbox = Outbox::new("vake".parse().expect("an id"), buffer);
        outbox.connected(Uptime(0));
        outbox.acked(&ack(1, 10), Uptime(10));
        outbox.disconnected();
        // The WAN is cut, a device fails: on the card at once.
        outbox.buffer.append(down(1_000), Uptime(1_000));
        outbox.tick(Uptime(1_000));
        // The card dies, another device fails, the WAN comes back.
        dead.set(true);
        outbox.buffer.append(down(60_000), Uptime(60_000));
        outbox.tick(Uptime(60_000));
        outbox.connected(Uptime(61_000));
        assert_eq!(told_within(&mut outbox, 61_000, 5_000), [1_000, 60_000], "both outages, from memory");
    }

    #[test]
    fn a_card_that_dies_with_entries_of_an_earlier_run_holds_the_present_ones_back_for_ten_minutes_at_most() {
        let card = Card::default();
        let dead = Rc::clone(&card.dead);
        let mut before = Buffer::open(card.clone(), StreamId(1), BootId(1), 1 << 20, Uptime(0));
        before.append(down(1_000), Uptime(1_000));
        before.flush(Uptime(1_000));
        drop(before);
        let buffer = Buffer::open(card, StreamId(2), BootId(1), 1 << 20, Uptime(2_000));
        let mut outbox = Outbox::new("vake".parse().expect("an id"), buffer);
        dead.set(true);
        outbox.buffer.append(down(60_000), Uptime(60_000));
        outbox.tick(Uptime(60_000));
        outbox.connected(Uptime(61_000));
        outbox.acked(&ack(0, 61_000), Uptime(61_000));
        assert_eq!(told_within(&mut outbox, 61_000, 590_000), [0; 0], "the card may yet wake");
        let states = std::sync::Arc::new(vec![Live::of("vake-atm-1".parse().expect("an id"), Status::Down, Uptime(60_000))]);
        let heartbeat = outbox.heartbeat(&Word { health: None, states }, Uptime(651_000));
        assert_eq!(heartbeat.states.len(), 1, "meanwhile states travel beside the log");
        assert_eq!(told_within(&mut outbox, 651_000, 30_000), [60_000]);
    }

    /// Onsets that the collector gets to know within some time, as it acknowledges what it gets.
    fn told_within(outbox: &mut Outbox<Card>, from: u64, for_ms: u64) -> Vec<u64> {
        let mut onsets = Vec::new();
        for now in (from..from + for_ms).step_by(200).map(Uptime) {
            outbox.buffer.observed(now);
            outbox.tick(now);
            let Some((batch, end)) = outbox.next(now) else { continue };
            outbox.sent(end, now);
            let transitions = batch.group.deltas.iter().filter_map(|delta| match &delta.body {
                Body::Transition(transition) => Some(transition.onset.0),
                _ => None,
            });
            onsets.extend(transitions);
            outbox.acked(&Ack { stream: batch.stream, through: batch.group.last(), ..ack(0, now.0) }, now);
        }
        onsets
    }

    #[test]
    fn after_a_day_without_a_word_nothing_is_dated_by_yesterdays_ack_alone() {
        let buffer = Buffer::open(Card::default(), StreamId(1), BootId(1), 1 << 20, Uptime(0));
        let mut outbox = Outbox::new("vake".parse().expect("an id"), buffer);
        outbox.connected(Uptime(0));
        outbox.acked(&ack(1, 10), Uptime(10));
        outbox.disconnected();
        let day = 86_400_000;
        outbox.buffer.append(down(day), Uptime(day));
        outbox.tick(Uptime(day));
        outbox.connected(Uptime(day + 5_000));
        // What the link does at once, before the answer to its first heartbeat.
        assert_eq!(outbox.next(Uptime(day + 5_010)), None);
        let heartbeat = outbox.heartbeat(&Word::default(), Uptime(day + 5_010));
        assert_eq!(heartbeat.dating, None, "so it is answered at once");
        outbox.acked(&ack(1, day + 5_060), Uptime(day + 5_060));
        let (batch, _) = outbox.next(Uptime(day + 5_060)).expect("the time is known");
        let error = batch.dating.date(Uptime(day)).1;
        assert!(error <= 1_000, "{error} ms");
    }

    const DAY: u64 = 86_400_000;

    /// The card after a run that saw its device fail at `fails`, and never heard the time or only when it began.
    fn after(card: &Card, run: u64, boot: u128, fails: u64, heard: Option<i64>) {
        let buffer = Buffer::open(card.clone(), StreamId(run), BootId(boot), 1 << 20, Uptime(0));
        let mut outbox = Outbox::new("vake".parse().expect("an id"), buffer);
        if let Some(date) = heard {
            outbox.acked(&Ack { stream: StreamId(run), now: Millis(date), ..ack(1, 10) }, Uptime(10));
        }
        outbox.buffer.append(down(fails), Uptime(fails));
        outbox.tick(Uptime(fails));
    }

    /// How a run of a third boot, which began at `began`, dates the first change that waits.
    fn first_dating(card: &Card, began: i64, since: i64) -> (Dating, Uptime) {
        let buffer = Buffer::open(card.clone(), StreamId(9), BootId(9), 1 << 20, Uptime(0));
        let mut outbox = Outbox::new("vake".parse().expect("an id"), buffer).since(Millis(since));
        outbox.connected(Uptime(0));
        outbox.acked(&Ack { stream: StreamId(9), now: Millis(began + 20), echo: Some(Uptime(20)), ..ack(0, 20) }, Uptime(20));
        loop {
            let (batch, end) = outbox.next(Uptime(30)).expect("something waits");
            let change = batch.group.deltas.iter().find(|delta| matches!(delta.body, Body::Transition(_)));
            if let Some(change) = change {
                return (batch.dating, change.at);
            }
            outbox.sent(end, Uptime(30));
            outbox.acked(&Ack { stream: batch.stream, ..ack(batch.group.last(), 30) }, Uptime(30));
        }
    }

    #[test]
    fn what_a_boot_saw_in_a_month_without_a_link_lies_before_the_boot_that_tells_it() {
        // Its clock runs 40 ppm fast: by its first ack alone its last hour would lie 104 s late, after the present boot began.
        let (card, lived) = (Card::default(), 30 * DAY + 103_680);
        after(&card, 1, 1, lived, Some(T));
        let began = T + 30 * DAY as i64 + 30_000;
        let (dating, at) = first_dating(&card, began, 0);
        let (date, error_ms) = dating.date(at);
        let off = date.0 - (T + 30 * DAY as i64);
        assert!(date.0 <= began, "{off} ms off");
        assert!(off.abs() <= i64::from(error_ms) && error_ms < 200_000, "{off} ms off, {error_ms} stated");
    }

    #[test]
    fn a_boot_that_never_heard_the_time_is_bounded_by_how_long_it_lived() {
        let card = Card::default();
        after(&card, 1, 1, 5_000, Some(T));
        let hours_10 = 36_000_000;
        after(&card, 2, 2, hours_10, None);
        // It was off for half a minute before and after.
        let began = T + 5_000 + 30_000 + hours_10 as i64 + 30_000;
        let (dating, _) = first_dating(&card, began, 0);
        let Dating::Fixed { .. } = dating else { panic!("the first boot heard it: {dating:?}") };
        let mut outbox =
            Outbox::new("vake".parse().expect("an id"), Buffer::open(card, StreamId(9), BootId(9), 1 << 20, Uptime(0)));
        outbox.connected(Uptime(0));
        outbox.acked(&Ack { stream: StreamId(9), now: Millis(began + 20), ..ack(0, 20) }, Uptime(20));
        outbox.acked(&Ack { stream: StreamId(1), ..ack(2, 20) }, Uptime(20));
        let (batch, _) = outbox.next(Uptime(30)).expect("something waits");
        let (date, error_ms) = batch.dating.date(Uptime(hours_10));
        let off = date.0 - (began - 30_000);
        assert!(off.abs() <= i64::from(error_ms) && error_ms <= 33_000, "{off} ms off, {error_ms} stated");
    }

    #[test]
    fn a_boot_that_never_heard_the_time_began_after_what_the_machine_held() {
        let card = Card::default();
        after(&card, 1, 1, 1_000, None);
        let began = T + 3_600_000;
        let (dating, at) = first_dating(&card, began, T);
        let (date, error_ms) = dating.date(at);
        assert!(date.0 >= T && date.0 <= began && error_ms <= 1_800_000, "{date}, {error_ms} ms");
        // Unless it came later.
        let card = Card::default();
        after(&card, 1, 1, 1_000, None);
        after(&card, 2, 2, 1_000, Some(T));
        let (dating, _) = first_dating(&card, began, T);
        let Dating::Bounds { not_before, not_after } = dating else { panic!("it never heard the time: {dating:?}") };
        assert_eq!(not_before, Millis::EARLIEST);
        assert!(not_after.0 < T, "it was over before the one that heard the time");
    }

    #[test]
    fn an_agent_that_is_killed_while_it_drains_still_dates_by_what_was_known_before_the_cut() {
        let card = Card::default();
        let mut outbox =
            Outbox::new("vake".parse().expect("an id"), Buffer::open(card.clone(), StreamId(1), BootId(1), 1 << 20, Uptime(0)));
        let heard = |stream, through, true_ms: u64, at: u64| Ack {
            stream: StreamId(stream),
            now: Millis(T + true_ms as i64),
            echo: Some(Uptime(at)),
            ..ack(through, at)
        };
        outbox.acked(&heard(1, 1, 0, 0), Uptime(0));
        // Three weeks by a clock that runs 50 ppm fast.
        let uptime = |true_ms: u64| true_ms + true_ms * 50 / 1_000_000;
        for day in 1..21 {
            outbox.buffer.append(down(uptime(day * DAY)), Uptime(uptime(day * DAY)));
            outbox.tick(Uptime(uptime(day * DAY)));
        }
        let back = 21 * DAY;
        outbox.connected(Uptime(uptime(back)));
        outbox.acked(&heard(1, 1, back, uptime(back)), Uptime(uptime(back)));
        outbox.buffer.append(down(uptime(back)), Uptime(uptime(back)));
        outbox.buffer.flush(Uptime(uptime(back)));
        outbox.acked(&heard(1, 1, back + 1_000, uptime(back + 1_000)), Uptime(uptime(back + 1_000)));
        drop(outbox);
        let now = Uptime(uptime(back + 60_000));
        let buffer = Buffer::open(card, StreamId(2), BootId(1), 1 << 20, now);
        let mut next = Outbox::new("vake".parse().expect("an id"), buffer);
        next.connected(now);
        next.acked(&heard(2, 0, back + 60_000, now.0), now);
        let (batch, _) = next.next(now).expect("it waits");
        // A batch is dated by the middle of its moments.
        let middle = batch.group.deltas.iter().find(|delta| delta.at == Uptime(uptime(11 * DAY))).expect("a change");
        let off = batch.dating.date(middle.at).0.0 - (T + 11 * DAY as i64);
        assert!(off.abs() <= 100, "{off} ms off");
    }

    #[test]
    fn more_states_than_a_heartbeat_may_have_are_not_put_into_one() {
        let mut buffer = Buffer::open(Card::default(), StreamId(1), BootId(1), 1 << 20, Uptime(0));
        (0..100).for_each(|n| buffer.append(down(n), Uptime(n)));
        let outbox = Outbox::new("vake".parse().expect("an id"), buffer);
        assert!(outbox.is_behind());
        let state = |n: usize| Live::of(format!("{n:0>64}").parse().expect("the longest id"), Status::Down, Uptime(u64::MAX));
        let states = std::sync::Arc::new((0..STATES_LIMIT + 500).map(state).collect::<Vec<_>>());
        let heartbeat = outbox.heartbeat(&Word { health: None, states: std::sync::Arc::clone(&states) }, Uptime(60_000));
        assert_eq!(heartbeat.states, states[..STATES_LIMIT]);
        shared::wire::encode(&heartbeat).expect("a payload has room for them");
    }

    #[test]
    fn an_ack_to_the_boot_before_says_nothing_of_this_one() {
        let buffer = Buffer::open(Card::default(), StreamId(2), BootId(2), 1 << 20, Uptime(0));
        let mut outbox = Outbox::new("vake".parse().expect("an id"), buffer);
        outbox.connected(Uptime(31_000));
        // The boot before asked at its second 30; the collector was busy and answers now, 50 s later, at our second 31.
        outbox.acked(
            &Ack { stream: StreamId(1), through: 0, now: Millis(T + 80_000), echo: Some(Uptime(30_000)), restate: false },
            Uptime(31_500),
        );
        assert_eq!(outbox.dating(Uptime(31_500)), None, "the echo is of another boot");
    }
}

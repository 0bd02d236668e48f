//! The way to the collector: MQTT, one connection after the other, each with a client of its own.
//!
//! rumqttc forgets what is queued when a connection ends, so nothing is left to it: the buffer is the only queue, and
//! whatever the collector hasn't acknowledged is sent again over the next connection.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use rand::Rng;
use rumqttc::{AsyncClient, Event, EventLoop, LastWill, MqttOptions, Packet, QoS};
use shared::message::{Answer, Ask};
use shared::message::{Health, PresenceState, Sealed};
use shared::update::{OFFERS_LIMIT, Offer};
use shared::wire::{PACKET_LIMIT_BYTES, decode, encode};
use shared::{Ack, Batch, Config, Lane, Live, Millis, Presence, Uptime, topic};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::keeper::{Command, Standing};
use crate::line::Line;
use crate::outbox::Word;
use crate::plan::Plan;
use crate::proof::Questions;
use crate::settings::Settings;
use crate::trial::Wanted;
use crate::watch::Tally;
use crate::{clock, enrol, tls};

/// Most publishes that wait in rumqttc: what it holds, it may lose.
const CHANNEL_LIMIT: usize = 10;
/// Time for a connection to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// MQTT keep-alive: long, since each costs 200 B. A connection that hangs is noticed by TCP, and silence by the
/// heartbeats, both long before.
const KEEP_ALIVE: Duration = Duration::from_secs(1_800);
/// First and longest wait before the next try to connect, in ms; the real one is jittered.
const BACKOFF_MS: (u64, u64) = (500, 8_000);
/// How long a connection must hold before the wait starts from the shortest again, in ms.
const STABLE_MS: u64 = 30_000;
/// How often timers are looked at.
const TICK: Duration = Duration::from_millis(200);
/// A connection on which the broker has confirmed nothing for so long, with something on its way, or on which nothing can be sent
/// any more, is given up, in ms.
const STUCK_MS: u64 = 30_000;
/// How often the agent's health is told while nothing of it has changed, in ms; on a line where heartbeats are rare with each
/// so many of them.
const HEALTH_MS: u64 = 900_000;
const HEALTH_HEARTBEATS: u64 = 6;
/// In how many more heartbeats a change of the agent's health is told: one may be lost, and the next word of it is far off.
const HEALTH_REPEATS: u8 = 2;
/// Questions and answers that wait.
pub const ASKS_LIMIT: usize = 16;
/// Time for the last entries to be acknowledged when the program ends.
const DRAIN_LIMIT: Duration = Duration::from_secs(3);

/// What the link listens to and speaks to.
pub struct Ends {
    /// The keeper of the buffer.
    pub keeper: mpsc::Sender<Command>,
    /// How the stream stands.
    pub standing: watch::Receiver<Standing>,
    /// Counts and newest states of the watch.
    pub tally: watch::Receiver<Tally>,
    /// The config in force.
    pub plan: watch::Receiver<Arc<Plan>>,
    /// Where a config from the collector goes, to be tried.
    pub wanted: watch::Sender<Option<Wanted>>,
    /// Where questions go.
    pub asks: mpsc::Sender<Ask>,
    /// Where builds go that the collector offers.
    pub offers: watch::Sender<Vec<Offer>>,
    /// Cancelled where the end is to make room for another build.
    pub restart: CancellationToken,
    /// What has been answered.
    pub answers: mpsc::Receiver<Answer>,
    /// Somebody wants to know whether the broker answers.
    pub proofs: watch::Receiver<Uptime>,
    /// When that was sent which the broker has answered last.
    pub heard: watch::Sender<Uptime>,
}

/// The last good config of a state folder, if there is one.
pub fn last_good(state_dir: &Path) -> Option<Plan> {
    let bytes = std::fs::read(config_path(state_dir)).ok()?;
    let plan = decode::<Config>(&bytes).map_err(anyhow::Error::from).and_then(|config| Ok(Plan::try_from(&config)?));
    plan.inspect_err(|error| tracing::warn!(%error, "the kept config can't be read: waiting for the collector's")).ok()
}

fn config_path(state_dir: &Path) -> PathBuf {
    state_dir.join("config.bin")
}

struct Link {
    settings: Settings,
    ends: Ends,
}

/// Keeps a connection to the broker until `shutdown`, then says goodbye.
pub async fn run(settings: Settings, ends: Ends, shutdown: CancellationToken) {
    let mut link = Link { settings, ends };
    let mut backoff_ms = BACKOFF_MS.0;
    let mut said = false;
    while !shutdown.is_cancelled() {
        let began = clock::uptime();
        let outcome = link.connect_once(&shutdown).await;
        link.command(Command::Disconnected).await;
        let Err(error) = outcome else { return };
        if clock::uptime().since(began) >= STABLE_MS {
            (backoff_ms, said) = (BACKOFF_MS.0, false);
        }
        if !said {
            tracing::warn!(error = format!("{error:#}"), "no link to the collector: trying again, entries wait in the buffer");
            said = true;
        }
        let wait = rand::rng().random_range(backoff_ms / 2..=backoff_ms);
        backoff_ms = (backoff_ms * 2).min(BACKOFF_MS.1);
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(wait)) => {}
        }
    }
}

/// A connection that has just come about.
struct Connection {
    client: AsyncClient,
    incoming: mpsc::Receiver<Packet>,
    poller: JoinHandle<anyhow::Error>,
    asking: JoinHandle<()>,
    /// Where it was found: then TCP itself notices when it hangs.
    line: Option<Line>,
    heartbeat_at: Uptime,
    confirmed_at: Uptime,
    unconfirmed: u32,
    /// Since when the client has taken nothing.
    full_since: Option<Uptime>,
    health: HealthTold,
    states_told: Arc<Vec<Live>>,
    /// What was told when all of it was.
    states_full: Arc<Vec<Live>>,
}

/// What of an agent's health is worth a word with the next heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    config: u64,
    is_volatile: bool,
    waiting: u64,
    has_clock: bool,
}

/// What was told of the agent's health on this connection, and how often that has to be repeated.
#[derive(Debug, Default)]
struct HealthTold {
    last: Option<(Uptime, Told)>,
    repeats: u8,
}

impl HealthTold {
    fn is_due(&self, is: Told, every_ms: u64, now: Uptime) -> bool {
        self.repeats > 0 || self.last.is_none_or(|(at, before)| before != is || now.since(at) >= every_ms)
    }

    fn told(&mut self, is: Told, now: Uptime) {
        // How many entries wait changes with each report, and the next says it again.
        let is_news = self.last.is_none_or(|(_, before)| Told { waiting: is.waiting, ..before } != is);
        self.repeats = if is_news { HEALTH_REPEATS } else { self.repeats.saturating_sub(1) };
        self.last = Some((now, is));
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.poller.abort();
        self.asking.abort();
    }
}

impl Connection {
    fn publish<T: shared::wire::Payload>(&mut self, topic: String, qos: QoS, message: &T) -> anyhow::Result<bool> {
        let bytes = encode(message).with_context(|| format!("encoding for {topic}"))?;
        match self.client.try_publish(topic, qos, false, bytes) {
            Ok(()) => {
                self.full_since = None;
                if qos == QoS::AtLeastOnce {
                    if self.unconfirmed == 0 {
                        self.confirmed_at = clock::uptime();
                    }
                    self.unconfirmed += 1;
                }
                Ok(true)
            }
            Err(rumqttc::ClientError::TryRequest(_)) => {
                // Of what asks for no confirmation, none is missing.
                let since = *self.full_since.get_or_insert(clock::uptime());
                ensure!(clock::uptime().since(since) <= STUCK_MS, "the MQTT client has sent nothing for {} s", STUCK_MS / 1000);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Link {
    /// Connects and serves the connection until it ends. `Ok` when `shutdown` ended it.
    async fn connect_once(&mut self, shutdown: &CancellationToken) -> anyhow::Result<()> {
        let mut connection = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            connection = tokio::time::timeout(CONNECT_LIMIT, self.connect()) => connection.context("the broker doesn't answer")??,
        };
        tracing::info!(host = %self.settings.broker.host, port = self.settings.broker.port, "connected to the broker");
        self.command(Command::Connected).await;
        let outcome = self.serve(&mut connection, shutdown).await;
        // A line that breaks all the time may carry most of its bytes after the last heartbeat.
        self.count(&mut connection).await;
        outcome
    }

    /// Tells the keeper what the connection has carried.
    async fn count(&self, connection: &mut Connection) {
        if let Some(line) = &mut connection.line {
            self.command(Command::Carried(line.carried())).await;
        }
    }

    async fn serve(&mut self, connection: &mut Connection, shutdown: &CancellationToken) -> anyhow::Result<()> {
        self.heartbeat(connection).await?;
        let mut tick = tokio::time::interval(TICK);
        let mut standing = self.ends.standing.clone();
        let mut tally = self.ends.tally.clone();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => {
                    self.say_goodbye(connection).await;
                    return Ok(());
                }
                packet = connection.incoming.recv() => match packet {
                    Some(packet) => self.handle(connection, packet).await?,
                    None => bail!("{:#}", (&mut connection.poller).await.unwrap_or_else(|error| anyhow!(error))),
                },
                Ok(()) = standing.changed() => {}
                Ok(()) = tally.changed() => self.tell_newest(connection).await?,
                Some(answer) = self.ends.answers.recv() => {
                    // One that finds no room is not repeated: the next comes in seconds.
                    connection.publish(Lane::Answer.topic(&self.settings.branch), QoS::AtMostOnce, &answer)?;
                }
                _ = tick.tick() => {}
            }
            self.send_due(connection).await?;
        }
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        let Settings { branch, broker, .. } = &self.settings;
        let standing = *self.ends.standing.borrow();
        let (stream, now) = (standing.stream, clock::uptime());
        // A config's version is the collector's date of it.
        let version = i64::try_from(self.ends.plan.borrow().version).unwrap_or(0);
        let past = Some(Millis(version)).filter(|past| *past > Millis::EARLIEST);
        let time = tls::Time { known: standing.dating.map(|dating| dating.date(now).0), past };
        let mut options = MqttOptions::new(format!("ward-agent-{branch}"), &broker.host, broker.port);
        options.set_keep_alive(KEEP_ALIVE).set_clean_session(true);
        options.set_max_packet_size(PACKET_LIMIT_BYTES, PACKET_LIMIT_BYTES);
        options.set_transport(tls::transport(broker, time)?);
        let presence = Lane::Presence.topic(branch);
        let lost = encode(&Presence { stream, state: PresenceState::Lost })?;
        options.set_last_will(LastWill::new(&presence, lost, QoS::AtLeastOnce, true));
        let (client, mut events) = AsyncClient::new(options, CHANNEL_LIMIT);
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => break,
                Ok(_) => {}
                Err(error) => bail!("connecting to {}:{}: {error}", broker.host, broker.port),
            }
        }
        let topics = [(Lane::Ack, QoS::AtMostOnce), (Lane::Config, QoS::AtLeastOnce), (Lane::Ask, QoS::AtMostOnce)];
        let questions = Questions::after(topics.len());
        for (lane, qos) in topics {
            client.try_subscribe(lane.topic(branch), qos)?;
        }
        let proofs = self.ends.proofs.clone();
        let asking = tokio::spawn(questions.clone().ask(client.clone(), Lane::Ack.topic(branch), proofs));
        let online = encode(&Presence { stream, state: PresenceState::Online })?;
        client.try_publish(presence, QoS::AtLeastOnce, true, online)?;
        let (packets, incoming) = mpsc::channel(CHANNEL_LIMIT);
        let poller = tokio::spawn(poll(events, packets, questions, self.ends.heard.clone()));
        let now = clock::uptime();
        Ok(Connection {
            client,
            incoming,
            poller,
            asking,
            line: Line::to_port(broker.port),
            heartbeat_at: now,
            confirmed_at: now,
            // The presence is the first.
            unconfirmed: 1,
            full_since: None,
            health: HealthTold::default(),
            states_told: Arc::default(),
            states_full: Arc::default(),
        })
    }

    async fn handle(&mut self, connection: &mut Connection, packet: Packet) -> anyhow::Result<()> {
        let now = clock::uptime();
        match packet {
            Packet::PubAck(_) => {
                connection.confirmed_at = now;
                connection.unconfirmed = connection.unconfirmed.saturating_sub(1);
            }
            Packet::SubAck(subscribed) if subscribed.return_codes.contains(&rumqttc::SubscribeReasonCode::Failure) => {
                bail!("the broker refuses a subscription: its ACL must let {} read its ack and config", self.settings.branch);
            }
            Packet::Publish(publish) => match topic::parse(&publish.topic) {
                Some((branch, Lane::Ack)) if branch == self.settings.branch => match decode::<Ack>(&publish.payload) {
                    Ok(ack) => self.command(Command::Acked(ack)).await,
                    Err(error) => tracing::warn!(%error, "an ack can't be read"),
                },
                Some((branch, Lane::Config)) if branch == self.settings.branch => self.configure(&publish.payload),
                Some((branch, Lane::Ask)) if branch == self.settings.branch => match decode::<Ask>(&publish.payload) {
                    Ok(Ask::Update { offers }) if offers.len() <= OFFERS_LIMIT => drop(self.ends.offers.send_replace(offers)),
                    Ok(Ask::Health) => (connection.health.last, connection.heartbeat_at) = (None, clock::uptime()),
                    // Too many questions at once are not answered: whoever asks, asks again.
                    Ok(ask) => drop(self.ends.asks.try_send(ask)),
                    Err(error) => tracing::warn!(%error, "a question can't be read"),
                },
                Some(_) | None => tracing::warn!(topic = %publish.topic, "not for us"),
            },
            _ => {}
        }
        Ok(())
    }

    fn configure(&self, payload: &[u8]) {
        let opened = match &self.settings.enrolment {
            Some(enrolment) => enrol::open_config(&enrolment.config_key, &self.settings.branch, payload),
            // Whoever set the certificates up by hand trusts the broker's ACL.
            None => Ok(decode::<Sealed>(payload).map_or_else(|_| payload.to_vec(), |sealed| sealed.config)),
        };
        let present = self.ends.plan.borrow().version;
        let plan = opened.and_then(|payload| Ok((Plan::try_from(&decode::<Config>(&payload)?)?, payload)));
        match plan {
            Ok((plan, _)) if self.settings.enrolment.is_some() && plan.version < present => {
                // Whoever holds the broker could bring back a config of last year.
                tracing::error!(version = plan.version, present, "a config is refused: it is older than the one in force");
            }
            Ok((plan, payload)) => {
                let wanted = Wanted { plan: Arc::new(plan), payload: payload.into() };
                self.ends.wanted.send_if_modified(|before| {
                    // One that is held is tried again without being sent again; the one in force needs no trial, but ends one.
                    let is_known = before.as_ref().is_some_and(|before| before.plan.version == wanted.plan.version);
                    let is_news = !is_known && (wanted.plan.version != present || before.is_some());
                    if is_news {
                        *before = Some(wanted);
                    }
                    is_news
                });
            }
            Err(error) => tracing::error!(error = format!("{error:#}"), "a config is refused: the one in force stays"),
        }
    }

    async fn send_due(&mut self, connection: &mut Connection) -> anyhow::Result<()> {
        let now = clock::uptime();
        if connection.unconfirmed > 0 && now.since(connection.confirmed_at) > STUCK_MS {
            bail!("the broker has confirmed nothing for {} s", STUCK_MS / 1000);
        }
        if now >= connection.heartbeat_at {
            self.heartbeat(connection).await?;
        }
        while let Some((batch, end)) = self.ask(Command::Next).await.flatten() {
            if !connection.publish::<Batch>(Lane::Up.topic(&self.settings.branch), QoS::AtLeastOnce, &batch)? {
                break;
            }
            self.command(Command::Sent(end)).await;
        }
        Ok(())
    }

    /// A sign of life, with the newest states of all targets if the stream is behind.
    async fn heartbeat(&mut self, connection: &mut Connection) -> anyhow::Result<()> {
        let states = Arc::clone(&self.ends.tally.borrow().states);
        // Once the stream has caught up, the collector goes by it and forgets them.
        let are_told = self.tell(connection, Arc::clone(&states)).await?;
        (connection.states_told, connection.states_full) =
            if are_told { (Arc::clone(&states), states) } else { Default::default() };
        Ok(())
    }

    /// While the stream is behind, what has changed travels beside it.
    async fn tell_newest(&mut self, connection: &mut Connection) -> anyhow::Result<()> {
        let states = Arc::clone(&self.ends.tally.borrow().states);
        if !self.ends.standing.borrow().is_behind {
            (connection.states_told, connection.states_full) = Default::default();
        } else if connection.states_told != states {
            // All that has changed since everything was told: the last such message may be lost.
            let changed = changed(&connection.states_full, &states);
            if self.tell(connection, Arc::new(changed)).await? {
                if connection.states_full.is_empty() {
                    connection.states_full = Arc::clone(&states);
                }
                connection.states_told = states;
            }
        }
        Ok(())
    }

    /// Sends a heartbeat; whether these states went with it.
    async fn tell(&mut self, connection: &mut Connection, states: Arc<Vec<Live>>) -> anyhow::Result<bool> {
        let now = clock::uptime();
        let plan = Arc::clone(&self.ends.plan.borrow());
        let standing = *self.ends.standing.borrow();
        let clock = clock::synchronised();
        let (is_volatile, waiting) = (standing.level.volatile, standing.level.waiting);
        let is = Told { config: plan.version, is_volatile, waiting, has_clock: clock.is_some() };
        let health_ms = HEALTH_MS.max(HEALTH_HEARTBEATS * u64::from(plan.heartbeat_ms));
        let health =
            connection.health.is_due(is, health_ms, now).then(|| self.health(plan.version, &standing, clock.is_some(), now));
        self.count(connection).await;
        let word = Word { health, states };
        let Some(heartbeat) = self.ask(|reply| Command::Heartbeat(word, reply)).await else { return Ok(false) };
        // Where TCP can't be asked to notice that a connection hangs, the broker's answer has to tell.
        let qos = if connection.line.is_some() { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        let told_now = connection.publish(Lane::Live.topic(&self.settings.branch), qos, &heartbeat)?;
        if told_now && heartbeat.health.is_some() {
            connection.health.told(is, now);
        }
        // Until the time is known nothing can be sent: ask again soon. The same where there was no room.
        let wait = if told_now && heartbeat.dating.is_some() { u64::from(plan.heartbeat_ms) } else { 1_000 };
        connection.heartbeat_at = clock::uptime().plus(wait);
        Ok(told_now && !heartbeat.states.is_empty())
    }

    fn health(&self, config: u64, standing: &Standing, clock_synchronised: bool, now: Uptime) -> Health {
        let tally = self.ends.tally.borrow();
        Health {
            config,
            ticks_missed: tally.ticks_missed,
            send_errors: tally.send_errors,
            receive_drops: tally.receive_drops,
            stray_replies: tally.stray_replies,
            probe_age_ms: tally.probe_age_ms,
            clock_synchronised,
            clock_ahead_ms: standing.dating.map(|dating| clock::wall().since(dating.date(now).0)),
            ..Health::default()
        }
    }

    async fn say_goodbye(&mut self, connection: &mut Connection) {
        let drained = tokio::time::timeout(DRAIN_LIMIT, async {
            while self.ends.standing.borrow().level.waiting > 0 {
                if self.send_due(connection).await.is_err() {
                    return;
                }
                tokio::select! {
                    packet = connection.incoming.recv() => match packet {
                        Some(packet) => if self.handle(connection, packet).await.is_err() { return },
                        None => return,
                    },
                    () = tokio::time::sleep(TICK) => {}
                }
            }
        });
        if drained.await.is_err() {
            tracing::info!("some entries are not acknowledged: they wait in the buffer");
        }
        let stream = self.ends.standing.borrow().stream;
        let is_restart = self.ends.restart.is_cancelled();
        let state = if is_restart { PresenceState::Restarting } else { PresenceState::Stopped };
        if let Ok(stopped) = encode(&Presence { stream, state }) {
            let topic = Lane::Presence.topic(&self.settings.branch);
            let _ = connection.client.try_publish(topic, QoS::AtLeastOnce, true, stopped);
        }
        let _ = connection.client.try_disconnect();
        let _ = tokio::time::timeout(Duration::from_secs(1), &mut connection.poller).await;
    }

    async fn command(&self, command: Command) {
        // The keeper only goes when the program ends.
        let _ = self.ends.keeper.send(command).await;
    }

    /// Asks the keeper something; `None` when the program ends.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.command(command(reply)).await;
        answer.await.ok()
    }
}

/// The states of `now` that differ from those of `before`; all of them, where the targets aren't the same.
fn changed(before: &[Live], now: &[Live]) -> Vec<Live> {
    let are_same = before.len() == now.len() && before.iter().zip(now).all(|(before, now)| before.device == now.device);
    let is_news = |at: usize, live: &Live| !are_same || before[at] != *live;
    now.iter().enumerate().filter(|(at, live)| is_news(*at, live)).map(|(_, live)| live.clone()).collect()
}

async fn poll(
    mut events: EventLoop,
    packets: mpsc::Sender<Packet>,
    questions: Questions,
    heard: watch::Sender<Uptime>,
) -> anyhow::Error {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(packet)) => {
                if matches!(packet, Packet::SubAck(_))
                    && let Some(asked) = questions.answered()
                {
                    heard.send_replace(asked);
                }
                if packets.send(packet).await.is_err() {
                    return anyhow!("the link has gone");
                }
            }
            Ok(Event::Outgoing(_)) => {}
            Err(error) => return anyhow!(error),
        }
    }
}

/// Keeps a config so that a power cut leaves either the old one or the new one.
pub(crate) fn keep_config(state_dir: &Path, payload: &[u8]) -> anyhow::Result<()> {
    enrol::write(&config_path(state_dir), payload, 0o600)
}

#[cfg(test)]
mod tests {
    use shared::StreamId;

    use super::*;

    #[test]
    fn a_change_of_health_is_told_three_times_and_entries_that_wait_once() {
        let is = |is_volatile, waiting| Told { config: 1, is_volatile, waiting, has_clock: true };
        let mut health = HealthTold::default();
        let mut said = String::new();
        for (beat, now) in
            [(false, 0), (false, 0), (false, 0), (false, 0), (false, 5), (false, 5), (true, 5), (true, 6), (true, 6), (true, 6)]
                .into_iter()
                .zip((0..).step_by(15_000).map(Uptime))
        {
            let is = is(beat.0, beat.1);
            let is_due = health.is_due(is, 900_000, now);
            if is_due {
                health.told(is, now);
            }
            said.push(if is_due { 'h' } else { '.' });
        }
        assert_eq!(said, "hhh.h.hhh.");
        assert!(health.is_due(is(true, 6), 900_000, Uptime(2_000_000)), "and every quarter of an hour");
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_given_up_though_nothing_waits_for_a_confirmation() {
        // Nobody polls it: it is stuck.
        let (client, _events) = AsyncClient::new(MqttOptions::new("a", "127.0.0.1", 1), CHANNEL_LIMIT);
        let (_packets, incoming) = mpsc::channel(1);
        let mut connection = Connection {
            client,
            incoming,
            poller: tokio::spawn(std::future::pending()),
            asking: tokio::spawn(std::future::pending()),
            line: None,
            heartbeat_at: Uptime(0),
            confirmed_at: Uptime(0),
            unconfirmed: 0,
            full_since: None,
            health: HealthTold::default(),
            states_told: Arc::default(),
            states_full: Arc::default(),
        };
        let word = Ack { stream: StreamId(1), through: 1, now: Millis(1), echo: None, restate: false };
        let publish = |connection: &mut Connection| connection.publish("a".to_owned(), QoS::AtMostOnce, &word);
        for n in 0..CHANNEL_LIMIT {
            assert!(publish(&mut connection).is_ok_and(|taken| taken), "{n}");
        }
        assert!(publish(&mut connection).is_ok_and(|taken| !taken), "it is full");
        connection.full_since = connection.full_since.map(|since| Uptime(since.0.saturating_sub(STUCK_MS + 1_000)));
        let error = publish(&mut connection).expect_err("it is given up");
        assert!(error.to_string().contains("has sent nothing for 30 s"), "{error}");
    }
}

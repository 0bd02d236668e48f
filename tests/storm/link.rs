//! A connection of one branch, or of several: what `ward_agent::link` does with its client, without its threads.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, Publish, QoS, SubscribeFilter};
use shared::message::PresenceState;
use shared::wire::{PACKET_LIMIT_BYTES, decode, encode};
use shared::{Ack, Lane, Presence, topic};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use ward_agent::settings::Reporting;
use ward_tests::{Access, now_ms};

use crate::site::{Order, Site};

/// As in `ward_agent::link`: first and longest wait before the next try to connect, in ms.
const BACKOFF_MS: (u64, u64) = (500, 8_000);
/// As there: how often timers are looked at.
const TICK: Duration = Duration::from_millis(200);
/// As the collector's config has it unless told otherwise.
const HEARTBEAT_MS: i64 = Reporting::DEFAULT.heartbeat_ms as i64;
/// As in `ward_agent::link`: most publishes of a branch that wait in the client.
const CHANNEL_LIMIT: usize = 10;
/// Most publishes of a branch that no ack of the broker's has answered: rumqttc's own limit, which `ward_agent::link` leaves.
const INFLIGHT_LIMIT: usize = 100;

/// How far the storm has come.
#[derive(Default)]
pub(crate) struct Progress {
    /// When each branch was connected, and when all that it had to tell was acknowledged, in UTC ms; 0 before.
    pub(crate) branches: Vec<(AtomicI64, AtomicI64)>,
    /// How many have nothing left to tell.
    pub(crate) done: AtomicUsize,
    /// Connections that have ended.
    pub(crate) lost: AtomicUsize,
}

/// Branches that share a connection, each with its number.
pub(crate) struct Link {
    pub(crate) name: String,
    pub(crate) access: Access,
    pub(crate) sites: Vec<(usize, Site)>,
    pub(crate) progress: Arc<Progress>,
    /// What its branches are told to do, each with its place among `sites`.
    pub(crate) orders: mpsc::Receiver<(usize, Order)>,
}

impl Link {
    /// Goes on until it is aborted. The network came back at a moment of which the agent knows nothing: it is somewhere
    /// within its longest wait.
    pub(crate) async fn run(mut self) {
        let rest = rand::rng().random_range(0..=jittered(BACKOFF_MS.1));
        tokio::time::sleep(Duration::from_millis(rest)).await;
        let mut backoff_ms = BACKOFF_MS.0;
        loop {
            if self.connect_once().await.is_err() {
                self.progress.lost.fetch_add(1, Ordering::Relaxed);
            }
            self.sites.iter_mut().for_each(|(_, site)| site.outbox.disconnected());
            let wait = jittered(backoff_ms);
            backoff_ms = (backoff_ms * 2).min(BACKOFF_MS.1);
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
    }

    async fn connect_once(&mut self) -> Result<()> {
        let mut options = MqttOptions::new(format!("storm-{}", self.name), self.access.host.to_string(), self.access.port);
        options.set_keep_alive(Duration::from_secs(60)).set_clean_session(true);
        options.set_max_packet_size(PACKET_LIMIT_BYTES, PACKET_LIMIT_BYTES);
        let share = self.sites.len();
        options.set_inflight(u16::try_from(share * INFLIGHT_LIMIT).unwrap_or(u16::MAX));
        let (client, mut events) = AsyncClient::new(options, CHANNEL_LIMIT * share + 4 * share);
        connected(&mut events).await?;
        let filters: Vec<String> =
            self.sites.iter().flat_map(|(_, site)| [Lane::Ack.topic(&site.id), Lane::Config.topic(&site.id)]).collect();
        for filters in filters.chunks(64) {
            let filters = filters.iter().map(|filter| SubscribeFilter::new(filter.clone(), QoS::AtMostOnce));
            client.try_subscribe_many(filters)?;
        }
        let places: HashMap<String, usize> =
            self.sites.iter().enumerate().map(|(at, (_, site))| (site.id.to_string(), at)).collect();
        let mut heartbeats = Vec::with_capacity(share);
        for (number, site) in &mut self.sites {
            let now = now_ms();
            self.progress.branches[*number].0.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed).ok();
            site.observe(now);
            let at = site.uptime(now);
            site.outbox.connected(at);
            let online = encode(&Presence { stream: site.outbox.buffer.run().stream, state: PresenceState::Online })?;
            client.try_publish(Lane::Presence.topic(&site.id), QoS::AtLeastOnce, true, online)?;
            heartbeats.push(now);
        }
        let (packets, mut incoming) = mpsc::channel(CHANNEL_LIMIT * share);
        let mut poller = JoinSet::new();
        poller.spawn(poll(events, packets));
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut rng = SmallRng::from_os_rng();
        loop {
            tokio::select! {
                publish = incoming.recv() => {
                    let publish = publish.context("the broker has ended the connection")?;
                    let Some((branch, Lane::Ack)) = topic::parse(&publish.topic) else { continue };
                    let Some(at) = places.get(branch.as_str()) else { continue };
                    let (number, site) = &mut self.sites[*at];
                    let uptime = site.uptime(now_ms());
                    site.outbox.acked(&decode::<Ack>(&publish.payload)?, uptime);
                    if site.outbox.buffer.level().waiting == 0
                        && self.progress.branches[*number].1.compare_exchange(0, now_ms(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
                    {
                        self.progress.done.fetch_add(1, Ordering::Relaxed);
                    }
                    send_due(&client, site)?;
                }
                Some((at, order)) = self.orders.recv() => {
                    let (_, site) = &mut self.sites[at];
                    site.obey(&order, now_ms(), &mut rng);
                    send_due(&client, site)?;
                }
                _ = tick.tick() => {
                    for ((_, site), due) in self.sites.iter_mut().zip(&mut heartbeats) {
                        let now = now_ms();
                        site.observe(now);
                        if now >= *due {
                            let heartbeat = encode(&site.heartbeat(now))?;
                            // What doesn't fit is lost, as a heartbeat may be.
                            let _ = client.try_publish(Lane::Live.topic(&site.id), QoS::AtMostOnce, false, heartbeat);
                            *due = now + HEARTBEAT_MS;
                        }
                        send_due(&client, site)?;
                    }
                }
            }
        }
    }
}

fn send_due(client: &AsyncClient, site: &mut Site) -> Result<()> {
    let now = site.uptime(now_ms());
    while let Some((batch, end)) = site.outbox.next(now) {
        match client.try_publish(Lane::Up.topic(&site.id), QoS::AtLeastOnce, false, encode(&batch)?) {
            Ok(()) => site.outbox.sent(end, now),
            Err(rumqttc::ClientError::TryRequest(_)) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn jittered(wait_ms: u64) -> u64 {
    rand::rng().random_range(wait_ms / 2..=wait_ms)
}

/// Reads until the connection ends. A task of its own, since reading must not be stopped halfway.
async fn poll(mut events: EventLoop, packets: mpsc::Sender<Publish>) {
    while let Ok(event) = events.poll().await {
        if let Event::Incoming(Packet::Publish(publish)) = event
            && packets.send(publish).await.is_err()
        {
            return;
        }
    }
}

async fn connected(events: &mut EventLoop) -> Result<()> {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => return Ok(()),
            Ok(_) => {}
            Err(error) => bail!("connecting: {error}"),
        }
    }
}

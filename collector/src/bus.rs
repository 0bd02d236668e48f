//! The collector's own connection to the broker: payloads in, acks and configs out.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use shared::Lane;
use shared::wire::{PACKET_LIMIT_BYTES, Payload, encode};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use ward_agent::settings::Broker;
use ward_agent::tls;

use crate::enrolment::authority::Authority;
use crate::inbox::Sender;
use crate::ingest::{Command, Outgoing};
use crate::metrics::Metrics;

/// Most questions that wait to be sent.
pub const ASKS_LIMIT: usize = 64;
/// Most messages that wait to be sent.
pub const OUTGOING_LIMIT: usize = 20_000;
/// Most publishes that wait in the MQTT client.
const CHANNEL_LIMIT: usize = 64;
/// MQTT keep-alive.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Time for a connection to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// Wait before the next try to connect.
const BACKOFF: Duration = Duration::from_secs(1);

/// The figure that says whether there is a connection.
pub const CONNECTED: &str = "ward_broker_connected";

/// Keeps a connection until `shutdown`.
pub async fn run(
    broker: Broker,
    commands: Sender,
    mut outgoing: mpsc::Receiver<Outgoing>,
    mut asks: mpsc::Receiver<Outgoing>,
    seal: Option<Arc<Authority>>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) {
    let mut said = false;
    loop {
        let outcome = tokio::select! {
            () = shutdown.cancelled() => return,
            outcome = connect_once(&broker, &commands, &mut outgoing, &mut asks, seal.as_deref(), &metrics, &mut said) => outcome,
        };
        metrics.set(CONNECTED, "", 0.0);
        let Err(error) = outcome else { return };
        if !said {
            tracing::error!(error = format!("{error:#}"), "no broker: agents keep what they see until it is back");
            said = true;
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(BACKOFF) => {}
        }
    }
}

/// Connects and serves the connection until it ends. `Ok` when nobody sends any more.
async fn connect_once(
    broker: &Broker,
    commands: &Sender,
    outgoing: &mut mpsc::Receiver<Outgoing>,
    asks: &mut mpsc::Receiver<Outgoing>,
    seal: Option<&Authority>,
    metrics: &Metrics,
    said: &mut bool,
) -> anyhow::Result<()> {
    let mut options = MqttOptions::new("ward-collector", &broker.host, broker.port);
    // Nothing is left to the broker: an agent sends again what isn't acknowledged.
    options.set_keep_alive(KEEP_ALIVE).set_clean_session(true);
    options.set_max_packet_size(PACKET_LIMIT_BYTES, PACKET_LIMIT_BYTES);
    options.set_transport(tls::transport(broker, tls::Time::default())?);
    let (client, mut events) = AsyncClient::new(options, CHANNEL_LIMIT);
    tokio::time::timeout(CONNECT_LIMIT, connected(&mut events)).await.context("the broker doesn't answer")??;
    let (once, at_most) = (QoS::AtLeastOnce, QoS::AtMostOnce);
    for (lane, qos) in [(Lane::Presence, once), (Lane::Up, once), (Lane::Live, at_most), (Lane::Answer, at_most)] {
        client.try_subscribe(lane.filter(), qos).context("subscribing")?;
    }
    tracing::info!(host = %broker.host, port = broker.port, "connected to the broker");
    *said = false;
    metrics.set(CONNECTED, "", 1.0);
    commands.send(Command::Republish).await.context("the ledger has gone")?;
    let reader = tokio::spawn(receive(events, commands.clone()));
    // Reading must not stop when this side returns early, nor go on after it.
    let _abort = AbortOnDrop(reader.abort_handle());
    tokio::select! {
        ended = reader => ended.context("reading from the broker")?,
        sent = send(&client, outgoing, asks, seal) => sent,
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn connected(events: &mut EventLoop) -> anyhow::Result<()> {
    loop {
        if let Event::Incoming(Packet::ConnAck(_)) = events.poll().await.context("connecting to the broker")? {
            return Ok(());
        }
    }
}

async fn receive(mut events: EventLoop, commands: Sender) -> anyhow::Result<()> {
    loop {
        match events.poll().await.context("the broker")? {
            Event::Incoming(Packet::Publish(publish)) => {
                let command = Command::Payload { topic: publish.topic, bytes: publish.payload };
                // A full inbox stops reading: the broker and then the agents hold back what comes.
                if commands.send(command).await.is_err() {
                    return Ok(());
                }
            }
            Event::Incoming(Packet::SubAck(subscribed)) => {
                if subscribed.return_codes.iter().any(|code| matches!(code, rumqttc::SubscribeReasonCode::Failure)) {
                    bail!("the broker refuses a subscription: its ACL must let the collector read ward/1/#");
                }
            }
            Event::Incoming(_) | Event::Outgoing(_) => {}
        }
    }
}

async fn send(
    client: &AsyncClient,
    outgoing: &mut mpsc::Receiver<Outgoing>,
    asks: &mut mpsc::Receiver<Outgoing>,
    seal: Option<&Authority>,
) -> anyhow::Result<()> {
    loop {
        // What readers ask never takes the place of an ack.
        let message = tokio::select! {
            biased;
            message = outgoing.recv() => match message {
                Some(message) => message,
                None => return Ok(()),
            },
            Some(ask) = asks.recv() => ask,
        };
        match message {
            Outgoing::Ack(branch, ack) => publish(client, Lane::Ack.topic(&branch), QoS::AtMostOnce, false, &ack).await?,
            Outgoing::Ask(branch, ask) => publish(client, Lane::Ask.topic(&branch), QoS::AtMostOnce, false, &ask).await?,
            Outgoing::Config(order) => {
                let topic = Lane::Config.topic(&order.branch);
                match seal.map(|authority| authority.seal(&order.branch, &order.config)) {
                    None => publish(client, topic, QoS::AtLeastOnce, true, &order.config).await?,
                    Some(Ok(sealed)) => publish(client, topic, QoS::AtLeastOnce, true, &sealed).await?,
                    Some(Err(error)) => tracing::error!(topic, %error, "a config can't be signed"),
                }
            }
        }
    }
}

async fn publish<T: Payload>(client: &AsyncClient, topic: String, qos: QoS, retain: bool, message: &T) -> anyhow::Result<()> {
    match encode(message) {
        Ok(bytes) => client.publish(topic, qos, retain, bytes).await.context("publishing"),
        Err(error) => {
            tracing::error!(topic, %error, "a message can't be sent");
            Ok(())
        }
    }
}

//! A bare MQTT client, for what a test itself says to a broker.

use std::collections::VecDeque;
use std::fs;
use std::sync::Once;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rumqttc::{AsyncClient, Event, LastWill, MqttOptions, Packet, Publish, QoS, TlsConfiguration, Transport};
use shared::wire::PACKET_LIMIT_BYTES;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::mosquitto::Access;

/// How long a broker on the same machine may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// A connection that ends at its first error.
pub struct Mqtt {
    client: AsyncClient,
    packets: mpsc::UnboundedReceiver<Result<Packet>>,
    messages: VecDeque<Publish>,
    task: JoinHandle<()>,
}

impl Mqtt {
    /// Connects with a fresh session, or says why the broker doesn't want it.
    pub async fn connect(client_id: &str, access: &Access) -> Result<Self> {
        Self::connect_with(client_id, access, None).await
    }

    /// The same with a last will: a topic and what is said there, retained.
    pub async fn connect_with(client_id: &str, access: &Access, will: Option<(&str, Vec<u8>)>) -> Result<Self> {
        use_ring();
        let mut options = MqttOptions::new(client_id, access.host.to_string(), access.port);
        options.set_keep_alive(Duration::from_secs(5)).set_max_packet_size(2 * PACKET_LIMIT_BYTES, 2 * PACKET_LIMIT_BYTES);
        if let Some(identity) = &access.identity {
            let tls = TlsConfiguration::Simple {
                ca: fs::read(&identity.ca)?,
                alpn: None,
                client_auth: Some((fs::read(&identity.certificate)?, fs::read(&identity.key)?)),
            };
            options.set_transport(Transport::tls_with_config(tls));
        }
        if let Some((topic, payload)) = will {
            options.set_last_will(LastWill::new(topic, payload, QoS::AtLeastOnce, true));
        }
        let (client, mut events) = AsyncClient::new(options, 10);
        let (incoming, packets) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            loop {
                let packet = match events.poll().await {
                    Ok(Event::Incoming(packet)) => Ok(packet),
                    Ok(Event::Outgoing(_)) => continue,
                    Err(error) => Err(error.into()),
                };
                let over = packet.is_err();
                if incoming.send(packet).is_err() || over {
                    return;
                }
            }
        });
        let mut mqtt = Self { client, packets, messages: VecDeque::new(), task };
        mqtt.answer(|packet| matches!(packet, Packet::ConnAck(_))).await.context("connecting")?;
        Ok(mqtt)
    }

    /// Asks for all messages under a filter.
    pub async fn subscribe(&mut self, filter: &str) -> Result<()> {
        self.client.subscribe(filter, QoS::AtLeastOnce).await?;
        self.answer(|packet| matches!(packet, Packet::SubAck(_))).await.context("subscribing").map(drop)
    }

    /// Publishes and waits for the broker's PUBACK, which it gives to a message that its ACL denies too.
    pub async fn publish(&mut self, topic: &str, retain: bool, payload: impl Into<Vec<u8>>) -> Result<()> {
        self.client.publish(topic, QoS::AtLeastOnce, retain, payload).await?;
        self.answer(|packet| matches!(packet, Packet::PubAck(_))).await.context("publishing").map(drop)
    }

    /// How the connection has ended, waiting for at most `limit`.
    pub async fn ends(&mut self, limit: Duration) -> bool {
        let over = async { while self.packets.recv().await.is_some_and(|packet| packet.is_ok()) {} };
        timeout(limit, over).await.is_ok()
    }

    /// All messages that have come so far, once none has come for `quiet`.
    pub async fn all(&mut self, quiet: Duration) -> Vec<Publish> {
        while let Ok(Some(Ok(packet))) = timeout(quiet, self.packets.recv()).await {
            if let Packet::Publish(message) = packet {
                self.messages.push_back(message);
            }
        }
        self.messages.drain(..).collect()
    }

    /// The next message.
    pub async fn next(&mut self) -> Result<Publish> {
        if let Some(message) = self.messages.pop_front() {
            return Ok(message);
        }
        self.answer(|packet| matches!(packet, Packet::Publish(_))).await.context("waiting for a message")?;
        self.messages.pop_back().context("a message was just taken in")
    }

    /// Reads on until the packet that is wanted; messages before it are kept for `next`.
    async fn answer(&mut self, wanted: impl Fn(&Packet) -> bool) -> Result<()> {
        loop {
            let Ok(packet) = timeout(ANSWER_LIMIT, self.packets.recv()).await else {
                bail!("the broker didn't answer within {ANSWER_LIMIT:?}");
            };
            let packet = packet.context("the connection is over")??;
            let found = wanted(&packet);
            if let Packet::Publish(message) = packet {
                self.messages.push_back(message);
            }
            if found {
                return Ok(());
            }
        }
    }
}

impl Drop for Mqtt {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Makes ring this process's provider of cryptography, once.
pub(crate) fn use_ring() {
    static ONCE: Once = Once::new();
    // An error means that someone else chose one already, which is as good.
    ONCE.call_once(|| drop(tokio_rustls::rustls::crypto::ring::default_provider().install_default()));
}

//! The embedded broker: for the demo, and for one trusted host.

use std::net::SocketAddr;

use anyhow::Context;
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};
use shared::wire::PACKET_LIMIT_BYTES;

/// Most clients at once.
const CONNECTIONS_LIMIT: usize = 10_010;
/// Bytes of one segment of its log, and how many it keeps for each topic filter.
const SEGMENT_BYTES: usize = 1024 * 1024;
const SEGMENTS: usize = 4;

/// Starts the broker in threads of its own. It ends with the process.
///
/// # Errors
/// When the port is taken.
pub fn start(listen: SocketAddr) -> anyhow::Result<()> {
    // rumqttd only logs that it can't listen: try before it does.
    drop(std::net::TcpListener::bind(listen).with_context(|| format!("listening on {listen} for the embedded broker"))?);
    let connections = ConnectionSettings {
        connection_timeout_ms: 5_000,
        max_payload_size: PACKET_LIMIT_BYTES,
        max_inflight_count: 200,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let server = ServerSettings { name: "ward".to_owned(), listen, tls: None, next_connection_delay_ms: 1, connections };
    let router = RouterConfig {
        max_connections: CONNECTIONS_LIMIT,
        max_outgoing_packet_count: 200,
        max_segment_size: SEGMENT_BYTES,
        max_segment_count: SEGMENTS,
        ..RouterConfig::default()
    };
    let config = Config { router, v4: Some([("1".to_owned(), server)].into()), ..Config::default() };
    let mut broker = Broker::new(config);
    std::thread::Builder::new()
        .name("broker".to_owned())
        .spawn(move || {
            if let Err(error) = broker.start() {
                tracing::error!(%error, "the embedded broker has ended");
            }
        })
        .context("starting the embedded broker")?;
    Ok(())
}

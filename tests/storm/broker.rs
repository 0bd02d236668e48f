//! mosquitto as the operations manual has it, but plain, on loopback, and without a log of each message.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use shared::wire::PACKET_LIMIT_BYTES;
use tempfile::TempDir;
use ward_tests::process::{Process, free_port};
use ward_tests::{Access, eventually};

pub(crate) struct Mosquitto {
    _process: Process,
    _folder: TempDir,
    pub(crate) access: Access,
}

impl Mosquitto {
    pub(crate) async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let host = IpAddr::from(Ipv4Addr::LOCALHOST);
        let port = free_port(host);
        let config = folder.path().join("mosquitto.conf");
        let text = format!(
            "user root\nlog_dest stderr\nlog_type error\nlog_type warning\nlistener {port} {host}\nallow_anonymous true\n\
             max_packet_size {PACKET_LIMIT_BYTES}\n"
        );
        fs::write(&config, text)?;
        let process = Process::spawn(Command::new("/usr/sbin/mosquitto").arg("-c").arg(&config), &folder.path().join("log"));
        eventually(
            Duration::from_secs(10),
            "mosquitto listens",
            async || Ok(tokio::net::TcpStream::connect((host, port)).await?),
        )
        .await;
        Ok(Self { _process: process, _folder: folder, access: Access { host, port, identity: None } })
    }
}

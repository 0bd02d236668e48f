//! A real mosquitto, with client certificates and an ACL that holds each branch to its own topics, or plain on loopback.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::process::Signal;
use shared::wire::PACKET_LIMIT_BYTES;
use tempfile::TempDir;

use crate::eventually;
use crate::pki::Identity;
use crate::process::{Process, free_port};
use crate::program::run_to_end;

const PROGRAM: &str = "/usr/sbin/mosquitto";

/// How long a start may take on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(15);

/// How to reach a broker.
#[derive(Debug, Clone)]
pub struct Access {
    /// Its address.
    pub host: IpAddr,
    /// Its port.
    pub port: u16,
    /// Who the client is; without it, plain TCP.
    pub identity: Option<Identity>,
}

/// A broker in the network namespace of the thread that started it.
pub struct Mosquitto {
    // Dropped in this order: the process ends, and shows its log, before its folder goes.
    process: Process,
    folder: TempDir,
    address: IpAddr,
    port: u16,
    tls: bool,
    runs: u32,
}

impl Mosquitto {
    /// A broker that asks each client for a certificate and takes its common name as the user.
    pub async fn start(address: IpAddr, server: &Identity) -> Self {
        Self::listen(address, Some(server)).await
    }

    /// A broker on loopback without TLS, where everyone may do everything.
    pub async fn start_plain() -> Self {
        Self::listen(Ipv4Addr::LOCALHOST.into(), None).await
    }

    /// A broker as `ward-mosquitto.service` runs it: config, ACL and certificates are the collector's own.
    pub async fn start_of(collector: &crate::Collector, data_dir: &Path, address: IpAddr) -> Self {
        let (folder, given) =
            (tempfile::tempdir().expect("the folder for temporary files is writable"), data_dir.join("mosquitto"));
        let place = format!("--folder={}", given.display());
        let conf = collector.command(&["mosquitto-conf"], &place).expect("the config has an enrolment");
        let text = format!("user root\nlog_dest stderr\nlog_type all\nsys_interval 0\n{conf}");
        fs::write(folder.path().join("mosquitto.conf"), text).expect("the folder is the test's own");
        let process = spawn(&folder, 0);
        let mut broker = Self { folder, address, port: 8883, tls: true, runs: 1, process };
        broker.ready().await.expect("the config is good");
        broker
    }

    /// Has it read its certificates and the list of revoked ones again, as `systemctl reload` does.
    pub fn reload(&self) {
        self.process.signal(Signal::HUP);
    }

    async fn listen(address: IpAddr, server: Option<&Identity>) -> Self {
        // Between finding a free port and listening on it, someone else may take it.
        eventually(START_LIMIT, "mosquitto listens", async || {
            let folder = tempfile::tempdir().expect("the folder for temporary files is writable");
            let port = free_port(address);
            let acl = folder.path().join("acl");
            fs::write(&acl, run_to_end("ward-collector", &["mosquitto-acl"]).1).expect("the folder is the test's own");
            let access = match server {
                Some(server) => format!(
                    "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\nuse_identity_as_username true\nacl_file {}\n",
                    server.ca.display(),
                    server.certificate.display(),
                    server.key.display(),
                    acl.display()
                ),
                None => "allow_anonymous true\n".to_owned(),
            };
            // Started by root it would become the user mosquitto, who can't read what is root's.
            let text = format!(
                "user root\nlog_dest stderr\nlog_type all\npersistence false\nsys_interval 0\nmax_inflight_messages 20\n\
                 max_packet_size {PACKET_LIMIT_BYTES}\nlistener {port} {address}\n{access}"
            );
            fs::write(folder.path().join("mosquitto.conf"), text).expect("the folder is the test's own");
            let process = spawn(&folder, 0);
            let mut broker = Self { folder, address, port, tls: server.is_some(), runs: 1, process };
            broker.ready().await?;
            Ok(broker)
        })
        .await
    }

    /// How a client reaches it.
    pub fn access(&self, identity: &Identity) -> Access {
        Access { host: self.address, port: self.port, identity: self.tls.then(|| identity.clone()) }
    }

    /// Ends it at once: whatever it held is gone.
    pub fn kill(&mut self) {
        self.process.kill_hard();
    }

    /// Starts it on its port again, ending it first if it runs.
    pub async fn restart(&mut self) {
        self.kill();
        eventually(START_LIMIT, "mosquitto is back on its port", async || {
            self.process = spawn(&self.folder, self.runs);
            self.runs += 1;
            self.ready().await
        })
        .await;
    }

    /// What it has logged since its last start.
    pub fn log(&self) -> String {
        self.process.log()
    }

    async fn ready(&mut self) -> Result<()> {
        let process = &mut self.process;
        eventually(START_LIMIT, "mosquitto says that it runs", async || match process.ended() {
            Some(status) => Ok(Some(format!("mosquitto ended with {status}: {}", process.log()))),
            None if process.log().contains(" running") => Ok(None),
            None => bail!("it is starting"),
        })
        .await
        .map_or(Ok(()), |failure| bail!(failure))
    }
}

fn spawn(folder: &TempDir, run: u32) -> Process {
    let mut command = Command::new(PROGRAM);
    command.arg("-c").arg(folder.path().join("mosquitto.conf"));
    Process::spawn(&mut command, &folder.path().join(format!("run-{run}.log")))
}

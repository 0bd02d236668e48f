//! A real Valkey, or Redis, on loopback: with TLS, and a password.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::Duration;

use anyhow::bail;
use tempfile::TempDir;

use crate::eventually;
use crate::pki::Identity;
use crate::process::{Process, free_port};

const PROGRAM: &str = "/usr/bin/redis-server";

/// How long a start may take on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A server that keeps nothing on disk.
pub struct Valkey {
    process: Process,
    folder: TempDir,
    port: u16,
    identity: Identity,
    password: &'static str,
}

impl Valkey {
    /// Starts one with a server's certificate and a password.
    pub async fn start(identity: Identity, password: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("the folder for temporary files is writable");
        let port = free_port(IpAddr::from(Ipv4Addr::LOCALHOST));
        let process = spawn(&folder, port, &identity, password);
        let mut server = Self { process, folder, port, identity, password };
        server.ready().await;
        server
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("rediss://127.0.0.1:{}", self.port)
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.process.kill_hard();
    }

    /// Starts it again on its port, without data.
    pub async fn start_again(&mut self) {
        self.process = spawn(&self.folder, self.port, &self.identity, self.password);
        self.ready().await;
    }

    async fn ready(&mut self) {
        eventually(START_LIMIT, "the cache says that it is ready", async || {
            if !self.process.log().contains("Ready to accept connections") {
                bail!("{}", self.process.log());
            }
            Ok(())
        })
        .await;
    }
}

fn spawn(folder: &TempDir, port: u16, identity: &Identity, password: &str) -> Process {
    let path = |path: &std::path::Path| path.display().to_string();
    let mut command = Command::new(PROGRAM);
    command.args(["--port", "0", "--tls-port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.args(["--tls-cert-file", &path(&identity.certificate), "--tls-key-file", &path(&identity.key)]);
    command.args(["--tls-ca-cert-file", &path(&identity.ca), "--tls-auth-clients", "no", "--requirepass", password]);
    command.args(["--dir", &path(folder.path())]);
    Process::spawn(&mut command, &folder.path().join("valkey.log"))
}

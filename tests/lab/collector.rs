//! A real collector, and the demo that comes with it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Result, anyhow};
use tempfile::TempDir;

use crate::mosquitto::Access;
use crate::pki::write_secret;
use crate::process::{Process, free_port};
use crate::program::{Probe, TOKEN, binary, broker_table, run_to_end};
use crate::{Api, Estate, eventually};

/// How long a program may take to start on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Where a collector's batches come from.
#[derive(Debug, Clone)]
pub enum Broker {
    /// A broker of its own.
    External(Access),
    /// Its embedded one, on a free loopback port.
    Embedded,
    /// One at this address that asks for certificates of the collector's own authority, by which boxes join.
    Authority(IpAddr),
}

/// What a collector's config says.
pub struct CollectorSettings {
    /// The broker.
    pub broker: Broker,
    /// Where VictoriaMetrics is, once or several times; nowhere if empty.
    pub victoria_metrics: Vec<String>,
    /// How the agents are to probe.
    pub probe: Probe,
    /// How long an agent may say nothing before its devices are unknown.
    pub silent_after: Duration,
    /// The lines of its `[report]`; without them, qualities each minute.
    pub report: Option<&'static str>,
    /// Further tables, such as `[probe.device.b1-d00]`.
    pub tables: String,
    /// The inventory, imported before the first start.
    pub estate: Estate,
    /// Where it keeps its file; a folder of its own without it.
    pub data_dir: Option<PathBuf>,
}

/// A running collector and its folder, which outlives the runs.
pub struct Collector {
    // Dropped in this order: the process ends, and shows its log, before its folder goes.
    process: Process,
    folder: TempDir,
    /// Its API.
    pub api: Api,
    /// Where the embedded broker listens, if there is one.
    pub embedded: Option<Access>,
}

impl Collector {
    /// Writes the config, imports the inventory, starts the collector and waits until it answers.
    pub async fn start(settings: CollectorSettings) -> Self {
        let folder = tempfile::tempdir().expect("the folder for temporary files is writable");
        let at = |name: &str| folder.path().join(name);
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        let CollectorSettings { broker, victoria_metrics, probe, silent_after, estate, data_dir, report, tables } = settings;
        let data_dir = data_dir.unwrap_or_else(|| at("data"));
        let mut text = data_line(&data_dir) + "\n";
        let embedded = match broker {
            Broker::External(access) => {
                text += &broker_table(&access);
                None
            }
            Broker::Authority(host) => {
                text += &format!("[broker]\nhost = \"{host}\"\n\n[enrolment]\nlisten = \"{host}:8884\"\nhost = \"{host}\"\n");
                None
            }
            Broker::Embedded => {
                let access = Access { host: loopback, port: free_port(loopback), identity: None };
                text += &format!("[broker]\nembedded = \"{}:{}\"\n", access.host, access.port);
                Some(access)
            }
        };
        let listen = format!("127.0.0.1:{}", free_port(loopback));
        text += &format!("\n[api]\nlisten = \"{listen}\"\ntoken_file = \"{}\"\n", at("token").display());
        match victoria_metrics.as_slice() {
            [] => {}
            [url] => text += &format!("\n[victoria_metrics]\nurl = \"{url}\"\n"),
            urls => text += &format!("\n[victoria_metrics]\nurls = {urls:?}\n"),
        }
        text += &format!("\n[fleet]\nsilent_after = \"{}s\"\n\n{}", silent_after.as_secs(), probe.table());
        // Tests wait for the minutes that they look at.
        text += &format!("\n[report]\n{}\n", report.unwrap_or("qualities = \"60s\""));
        text += &format!("\n{tables}\n");
        fs::create_dir_all(&data_dir).expect("the folder is the test's own");
        fs::write(at("collector.toml"), text).expect("the folder is the test's own");
        write_secret(&at("token"), &format!("{TOKEN}\n"));
        import(&folder, &estate.csv()).expect("the laboratory's inventories have no mistakes");
        let process = Self::spawn(folder.path());
        let mut collector = Self { folder, api: Api::new(&listen, TOKEN), embedded, process };
        collector.ready().await;
        collector
    }

    fn spawn(folder: &Path) -> Process {
        let mut command = Command::new(binary("ward-collector"));
        command.args(["run", "--config"]).arg(folder.join("collector.toml"));
        Process::spawn(&mut command, &folder.join("collector.log"))
    }

    /// Starts it again on its data and ports, ending it first if it runs, and waits until it answers.
    pub async fn start_again(&mut self) {
        self.process.kill_hard();
        self.process = Self::spawn(self.folder.path());
        self.ready().await;
    }

    /// Ends it at once, and starts it again on what lies in another folder.
    pub async fn start_elsewhere(&mut self, data_dir: &Path) {
        self.process.kill_hard();
        let config = self.folder.path().join("collector.toml");
        let text = fs::read_to_string(&config).expect("it was written at the start");
        let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
        fs::write(&config, data_line(data_dir) + rest).expect("the folder is the test's own");
        self.start_again().await;
    }

    /// Imports an inventory, given as its CSV text, while the collector runs.
    pub fn import(&self, csv: &str) -> Result<String> {
        import(&self.folder, csv)
    }

    /// Where its config is, and with it all that the test has of it.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("collector.toml")
    }

    /// Runs one of its commands, such as `["branch", "add", "b1"]`, on its config; what it said.
    ///
    /// # Errors
    /// What it said when it failed.
    pub fn command(&self, arguments: &[&str], last: &str) -> Result<String> {
        let config = self.config();
        let config = config.to_str().expect("a temporary folder has a plain name");
        let (status, said) = run_to_end("ward-collector", &[arguments, &["--config", config], &[last]].concat());
        if status.success() { Ok(said) } else { Err(anyhow!(said)) }
    }

    /// The process: to end it, or to read its log.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    async fn ready(&mut self) {
        let started = eventually(START_LIMIT, "the collector answers on /health", async || match self.process.ended() {
            Some(status) => Ok(Err(anyhow!("it ended with {status}"))),
            None => self.api.text("/health").await.map(|_| Ok(())),
        });
        started.await.expect("the collector runs until it is asked to stop");
    }
}

/// A running demo: one process with an estate of its own.
pub struct Demo {
    process: Process,
    _folder: TempDir,
    /// Its API.
    pub api: Api,
}

impl Demo {
    /// Starts it on a free loopback port.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("the folder for temporary files is writable");
        let listen = format!("127.0.0.1:{}", free_port(Ipv4Addr::LOCALHOST.into()));
        let mut command = Command::new(binary("ward-collector"));
        command.args(["demo", "--listen", &listen, "--token", TOKEN]).current_dir(folder.path());
        let process = Process::spawn(&mut command, &folder.path().join("demo.log"));
        Self { process, _folder: folder, api: Api::new(&listen, TOKEN) }
    }

    /// The process: to end it, or to read its log.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// The first line of a config.
fn data_line(data_dir: &Path) -> String {
    format!("data_dir = \"{}\"\n", data_dir.display())
}

fn import(folder: &TempDir, csv: &str) -> Result<String> {
    fs::write(folder.path().join("estate.csv"), csv)?;
    let mut command = Command::new(binary("ward-collector"));
    command.args(["import", "--config"]).arg(folder.path().join("collector.toml")).arg(folder.path().join("estate.csv"));
    let Output { status, stdout, stderr } = command.output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    if status.success() { Ok(said) } else { Err(anyhow!("import ended with {status}: {said}")) }
}

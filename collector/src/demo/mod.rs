//! The whole path in one process, with nothing to install: a collector, its broker, and an agent for each branch of a
//! made-up estate, under real ICMP, with faults by a script.

mod estate;
mod faults;
mod relay;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use shared::BranchId;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use ward_agent::agent::Pulses;
use ward_agent::probe::{Network, PERMIT_HINT, Simulated};
use ward_agent::settings::{Broker, Reporting, Settings as AgentSettings};

use crate::api::auth::Token;
use crate::clock;
use crate::collector::Collector;
use crate::feed::Notes;
use crate::inventory::Inventory;
use crate::rollout;
use crate::settings::{Api, BrokerChoice, Rollout, Settings};
use crate::store::{self, Store};
pub use estate::inventory as estate;
use faults::{Echo, Faulty, Script};
use relay::Relay;

/// How often agents speak in the demo: faults should show while somebody watches.
const REPORTING: Reporting = Reporting { heartbeat_ms: 5_000, qualities_ms: 60_000 };
/// When a branch counts as silent in the demo, in ms.
const SILENT_AFTER_MS: u32 = 12_000;
/// Bytes of an agent's buffer.
const BUFFER_LIMIT_BYTES: u64 = 4 * 1024 * 1024;
/// Time for everything to end.
const STOP_LIMIT: Duration = Duration::from_secs(8);
/// How often the script is looked at.
const TICK: Duration = Duration::from_millis(250);

/// A demo that is ready to run.
pub struct Demo {
    collector: Collector,
    agents: Vec<AgentPlan>,
    script: Arc<Script>,
    echo: Arc<Echo>,
    /// Goes with the demo.
    _folder: tempfile::TempDir,
}

struct AgentPlan {
    settings: AgentSettings,
    relay: Option<Relay>,
}

impl Demo {
    /// Prepares a demo of an estate whose API listens at `listen`, with `churn` changes a second beside its story.
    ///
    /// # Errors
    /// When the port is taken, the estate is too small for the story, or the folder for its files can't be made.
    pub async fn prepare(listen: SocketAddr, token: Option<Token>, inventory: Inventory, churn: u32) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("ward-demo-").tempdir().context("making a folder for the demo")?;
        let mut store = Store::open(folder.path())?;
        store.transaction(|db| store::import(db, &inventory))?;
        drop(store);
        let (echo, notes) = match Network::open() {
            Ok(icmp) => {
                tracing::info!(socket = icmp.kind().explanation(), "probing by ICMP");
                (Echo::Real(icmp), Vec::new())
            }
            Err(error) => {
                tracing::warn!(%error, "ICMP is not permitted: replies are simulated; to permit it: {PERMIT_HINT}");
                (
                    Echo::Simulated(Simulated::default()),
                    vec![format!("ICMP is not permitted here, so replies are simulated. To permit it: {PERMIT_HINT}")],
                )
            }
        };
        let simulated = matches!(echo, Echo::Simulated(_));
        let broker = free_port()?;
        let settings = Settings {
            enrolment: None,
            data_dir: folder.path().to_owned(),
            broker: BrokerChoice::Embedded(broker),
            api: Api {
                listen,
                certificate: None,
                token_file: None,
                time_zone: "Asia/Tbilisi".to_owned(),
                trusted_proxies: Vec::new(),
            },
            victoria_metrics: None,
            shared_cache: None,
            silent_after_ms: SILENT_AFTER_MS,
            rollout: Rollout { reporting: REPORTING, ..Rollout::default() },
        };
        let rollout = settings.rollout.clone();
        let token = token.unwrap_or_else(Token::random);
        let script = Arc::new(Script::new(&inventory, clock::now(), churn)?);
        let mut all_notes = script.notes();
        all_notes.extend(notes);
        let collector = Collector::bind(settings, Some(token), Notes { demo: true, simulated, notes: all_notes }).await?;
        let mut agents = Vec::new();
        for branch in &inventory.branches {
            agents.push(plan(branch.id.clone(), &inventory, &rollout, broker, folder.path(), &script).await?);
        }
        Ok(Self { collector, agents, script, echo: Arc::new(echo), _folder: folder })
    }

    /// The link that logs in.
    ///
    /// # Errors
    /// When the system can't say where the API listens.
    pub fn link(&self) -> anyhow::Result<String> {
        Ok(format!("http://{}/login?token={}", self.collector.address()?, self.collector.token().as_str()))
    }

    /// What the script does, one sentence each.
    pub fn story(&self) -> Vec<String> {
        self.script.notes()
    }

    /// Runs until `shutdown`.
    ///
    /// # Errors
    /// When the collector or an agent fails.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let Self { collector, agents, script, echo, _folder } = self;
        let collector_stop = CancellationToken::new();
        let mut collecting = tokio::spawn(collector.run(collector_stop.clone()));
        let mut branches = JoinSet::new();
        for plan in agents {
            branches.spawn(live(plan, Arc::clone(&script), Arc::clone(&echo), shutdown.clone()));
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            ended = &mut collecting => return ended.context("the collector panicked")?,
            Some(ended) = branches.join_next() => {
                ended.context("an agent panicked")??;
                if !shutdown.is_cancelled() {
                    bail!("an agent ended before it was asked to");
                }
            }
        }
        let stopped = tokio::time::timeout(STOP_LIMIT, async {
            while branches.join_next().await.is_some() {}
            collector_stop.cancel();
            collecting.await
        });
        stopped.await.context("the demo didn't end in time")?.context("the collector panicked")?
    }
}

async fn plan(
    branch: BranchId,
    inventory: &Inventory,
    rollout: &Rollout,
    broker: SocketAddr,
    folder: &Path,
    script: &Script,
) -> anyhow::Result<AgentPlan> {
    let relay = if script.cuts(&branch) { Some(Relay::start(broker).await?) } else { None };
    let at = relay.as_ref().map_or(broker, Relay::address);
    let devices = inventory.devices.iter().filter(|device| device.branch == branch);
    let settings = AgentSettings {
        enrolment: None,
        update: ward_agent::settings::Update::default(),
        state_dir: folder.join("agents").join(branch.as_str()),
        broker: Broker { host: at.ip().to_string(), port: at.port(), tls: None },
        buffer_limit_bytes: BUFFER_LIMIT_BYTES,
        local: rollout::config(rollout, &branch, devices),
        branch,
    };
    Ok(AgentPlan { settings, relay })
}

/// One branch: its agent, started and stopped by the script as its power comes and goes.
async fn live(plan: AgentPlan, script: Arc<Script>, echo: Arc<Echo>, shutdown: CancellationToken) -> anyhow::Result<()> {
    let branch = plan.settings.branch.clone();
    let prober = Arc::new(Faulty::new(echo, Arc::clone(&script)));
    let start = |stop: CancellationToken| -> JoinHandle<anyhow::Result<()>> {
        tokio::spawn(ward_agent::agent::run(plan.settings.clone(), Arc::clone(&prober), Pulses::default(), stop, None))
    };
    let mut agent = Some(start(shutdown.clone()));
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(TICK) => {}
        }
        let now = clock::now();
        if let Some(relay) = &plan.relay {
            relay.cut(script.is_cut(&branch, now));
        }
        match (&agent, script.has_power(&branch, now)) {
            (Some(running), false) => {
                // A power cut says goodbye to nobody.
                running.abort();
                agent = None;
            }
            (None, true) => agent = Some(start(shutdown.clone())),
            (Some(_), true) | (None, false) => {}
        }
    }
    match agent {
        Some(running) => running.await.context("an agent panicked")?,
        None => Ok(()),
    }
}

fn free_port() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
    listener.local_addr().context("looking for a free port")
}

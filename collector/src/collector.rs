//! The whole life of a collector: its parts in the order in which they start, and in which they end.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use ward_agent::service::Pulse;
use ward_agent::settings::Broker;

use crate::api::answer::Answers;
use crate::api::auth::Token;
use crate::api::certificate::Certificate;
use crate::api::effort::{Effort, Watched};
use crate::api::gate::Gate;
use crate::api::room::Room;
use crate::api::{self, Api};
use crate::clock::Moment;
use crate::enrolment::Office;
use crate::enrolment::authority::{Authority, write_secret};
use crate::feed::{Live, Notes};
use crate::fleet::Fleet;
use crate::inbox::{Sender, inbox};
use crate::ingest::{self, Command, Ingest};
use crate::metrics::Metrics;
use crate::settings::{BrokerChoice, Endpoint, Settings, VictoriaMetrics};
use crate::store::{Readers, Store};
use crate::valkey::Valkey;
use crate::victoria::Victoria;
use crate::{broker, bus, clock, enrolment, remote_write, secrets, updates};

/// How often the file is looked at for an inventory that another process has imported.
const INVENTORY_EVERY: Duration = Duration::from_secs(1);

/// Most changes that wait for the ledger's thread.
const EDITS_LIMIT: usize = 16;

/// The file of the code for the first admin, in the collector's folder.
const FIRST_CODE: &str = "first-admin-code";

/// A collector that listens but does not yet serve.
pub struct Collector {
    settings: Settings,
    listener: TcpListener,
    certificate: Option<Arc<Certificate>>,
    token: Token,
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    readers: Arc<Readers>,
    ingest: Ingest,
    asks: mpsc::Sender<ingest::Outgoing>,
    asked: mpsc::Receiver<ingest::Outgoing>,
    outgoing: mpsc::Receiver<ingest::Outgoing>,
    pulses: Pulses,
    enrolment: Option<(Office, Arc<Authority>)>,
}

/// How the parts that systemd has an eye on show that they get on. The bus is none of them: a broker may be away for weeks.
#[derive(Debug, Clone, Default)]
pub struct Pulses {
    /// The ledger's thread. It has something to do every second.
    pub ledger: Pulse,
    /// The API: beats when it has answered.
    pub api: Pulse,
}

impl Collector {
    /// Opens the file, takes over what it holds, and binds the API's port.
    ///
    /// # Errors
    /// When the file can't be opened, the port is taken, or the token can't be read.
    pub async fn bind(settings: Settings, token: Option<Token>, notes: Notes) -> anyhow::Result<Self> {
        let store = Store::open(&settings.data_dir)?;
        let token = match token {
            Some(token) => token,
            None => Token::from_file(&settings.api.token_file.clone().unwrap_or(settings.data_dir.join("api-token")))?,
        };
        let certificate = settings.api.certificate.clone().map(Certificate::open).transpose().context("the API's certificate")?;
        let certificate = certificate.map(Arc::new);
        let listener = TcpListener::bind(settings.api.listen).await;
        let listener = listener.with_context(|| format!("listening on {} for the API", settings.api.listen))?;
        let live = Arc::new(Live::new(Fleet::new(settings.silence()), notes));
        let metrics = Arc::new(Metrics::default());
        let mut settings = settings;
        let mut enrolment = None;
        match (&mut settings.broker, settings.enrolment.clone()) {
            (BrokerChoice::Embedded(listen), _) => broker::start(*listen)?,
            (BrokerChoice::External(_), None) => {}
            (BrokerChoice::External(broker), Some(wanted)) => {
                let authority = Arc::new(Authority::open(&settings.data_dir, clock::now())?);
                let terms = wanted.terms(broker.port);
                enrolment::furnish(&authority, &settings.data_dir, &terms, broker, clock::now())?;
                let ear = enrolment::Ear { live: Arc::clone(&live), metrics: Arc::clone(&metrics) };
                let office = Office::bind(wanted.listen, Arc::clone(&authority), terms, &settings.data_dir, ear).await?;
                enrolment = Some((office, authority));
            }
        }
        let (sender, outgoing) = mpsc::channel(bus::OUTGOING_LIMIT);
        let queue = settings.victoria_metrics.as_ref().map(VictoriaMetrics::queue);
        let (asks, asked) = mpsc::channel(bus::ASKS_LIMIT);
        let ingest =
            Ingest::new(store, Arc::clone(&live), Arc::clone(&metrics), sender, settings.rollout.clone(), queue, Moment::now()?)?;
        let readers = Arc::new(Readers::new(&settings.data_dir));
        let pulses = Pulses::default();
        Ok(Self {
            settings,
            listener,
            certificate,
            token,
            live,
            metrics,
            readers,
            ingest,
            asks,
            asked,
            outgoing,
            pulses,
            enrolment,
        })
    }

    /// Where the API listens.
    ///
    /// # Errors
    /// When the system can't say.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        self.listener.local_addr().context("asking for the API's address")
    }

    /// The token that callers must show.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// How its parts get on.
    pub fn pulses(&self) -> Pulses {
        self.pulses.clone()
    }

    /// The fleet and its feed.
    pub fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live)
    }

    /// Serves until `shutdown` is cancelled or a part fails.
    ///
    /// The API ends first, then the bus; the ledger's thread ends last and commits what it holds.
    ///
    /// # Errors
    /// When a part fails.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let Self {
            settings,
            listener,
            certificate,
            token,
            live,
            metrics,
            readers,
            ingest,
            asks,
            asked,
            outgoing,
            pulses,
            enrolment,
        } = self;
        let (commands, inbox) = inbox(Arc::clone(&metrics));
        let ledger = std::thread::Builder::new().name("ledger".to_owned()).spawn(move || ingest.run(inbox, &pulses.ledger))?;
        let servers = settings.victoria_metrics.as_ref().map(|victoria| victoria.endpoints.as_slice());
        let shared = settings.shared_cache.as_ref().zip(servers).map(|(cache, servers)| {
            let mut names: Vec<&str> = servers.iter().map(Endpoint::name).collect();
            names.sort_unstable();
            Arc::new(Valkey::new(cache, &names.join(" "), Arc::clone(&metrics)))
        });
        let victoria = servers.map(|servers| Arc::new(Victoria::new(servers, shared.clone(), Arc::clone(&metrics))));
        let (edits, requests) = mpsc::channel(EDITS_LIMIT);
        let accounts = readers.read(crate::store::accounts)?;
        let code = (accounts.users().len() == 0 && !live.notes.demo).then(secrets::random_code);
        write_first_code(&settings.data_dir.join(FIRST_CODE), code.as_deref())?;
        let gate = Gate::new(&token, accounts, code.as_deref(), Arc::clone(&metrics));
        let zone = (settings.api.time_zone.clone(), crate::schedule::zone(&settings.api.time_zone).context("the time zone")?);
        let (past, file) = (Arc::clone(&live), Arc::clone(&readers));
        let api = Arc::new(Api {
            live,
            readers: Arc::clone(&readers),
            answers: Answers::new(Arc::clone(&metrics)),
            metrics: Arc::clone(&metrics),
            victoria: victoria.clone(),
            gate,
            is_tls: certificate.is_some(),
            room: Room::default(),
            effort: Effort::default(),
            watched: Watched::default(),
            trusted_proxies: settings.api.trusted_proxies.clone(),
            asks,
            edits,
            zone,
            feeds: Arc::default(),
        });
        let broker = match settings.broker {
            BrokerChoice::Embedded(listen) => Broker { host: listen.ip().to_string(), port: listen.port(), tls: None },
            BrokerChoice::External(broker) => broker,
        };
        // These have nothing to finish: they end when the rest has.
        let mut helpers = JoinSet::new();
        helpers.spawn(ingest::tick(commands.clone()));
        helpers.spawn(api::prove(listener.local_addr()?, certificate.is_some(), pulses.api));
        if let Some(certificate) = &certificate {
            helpers.spawn(Arc::clone(certificate).follow(Arc::clone(&metrics)));
        }
        helpers.spawn(api::edits::hand_over(requests, commands.clone()));
        // The first question about the past need not wait for it.
        helpers.spawn_blocking(move || {
            if let Err(error) = past.load_timelines(&file, |_| true, clock::now()) {
                tracing::error!(%error, "the past can't be read: the first question about it tries again");
            }
        });
        helpers.spawn(watch_inventory(Arc::clone(&readers), commands.clone(), Arc::clone(&metrics)));
        let seal = enrolment.as_ref().map(|(_, authority)| Arc::clone(authority));
        if let Some((office, authority)) = enrolment {
            let (readers, data_dir, broker) = (Arc::clone(&readers), settings.data_dir.clone(), broker.clone());
            let ends = updates::Ends {
                live: Arc::clone(&api.live),
                readers: Arc::clone(&readers),
                asks: api.asks.clone(),
                metered: settings.rollout.metered.clone(),
                data_dir: settings.data_dir.clone(),
            };
            helpers.spawn(updates::run(ends));
            helpers.spawn(enrolment::follow(readers, authority, data_dir, broker, commands.clone(), Arc::clone(&metrics)));
            helpers.spawn(office.run(shutdown.clone()));
        }
        if let (Some(shared), Some(cache)) = (shared, settings.shared_cache) {
            helpers.spawn(shared.run(cache));
        }
        if let Some(victoria) = victoria {
            for index in 0..victoria.endpoints().len() {
                let (readers, metrics) = (Arc::clone(&readers), Arc::clone(&metrics));
                helpers.spawn(remote_write::run(Arc::clone(&victoria), index, readers, commands.clone(), metrics));
            }
        }
        let mut parts = JoinSet::new();
        parts.spawn(api::serve(listener, api, certificate, shutdown.clone()));
        let (to_bus, heard, stop) = (commands.clone(), Arc::clone(&metrics), shutdown.clone());
        parts.spawn(async move {
            bus::run(broker, to_bus, outgoing, asked, seal, heard, stop).await;
            Ok(())
        });
        while let Some(ended) = parts.join_next().await {
            ended.context("a part panicked")??;
            if !shutdown.is_cancelled() {
                bail!("a part ended before it was asked to");
            }
        }
        helpers.shutdown().await;
        drop(commands);
        let closed = tokio::task::spawn_blocking(move || ledger.join()).await.context("closing the ledger")?;
        if closed.is_err() {
            bail!("the ledger's thread panicked");
        }
        Ok(())
    }
}

/// Writes the first admin's code where only its owner reads it: a log may be shipped, and many read it. Without a code the file
/// goes.
fn write_first_code(path: &Path, code: Option<&str>) -> anyhow::Result<()> {
    let Some(code) = code else {
        return match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", path.display()))
            }
            _ => Ok(()),
        };
    };
    write_secret(path, format!("{code}\n").as_bytes())?;
    tracing::warn!(
        file = %path.display(),
        "there is no user yet: who shows the code in this file at /login becomes the first admin"
    );
    Ok(())
}

/// Tells the ledger's thread when `ward-collector import` has changed the inventory beside it.
async fn watch_inventory(readers: Arc<Readers>, commands: Sender, metrics: Arc<Metrics>) {
    let mut known = None;
    loop {
        let readers = Arc::clone(&readers);
        let version = tokio::task::spawn_blocking(move || readers.read(crate::store::inventory_version)).await;
        if let Ok(Ok(version)) = version {
            if known.is_some_and(|known| known != version) && commands.send(Command::Reload).await.is_err() {
                return;
            }
            known = Some(version);
            metrics.has_run("inventory", clock::now());
        }
        tokio::time::sleep(INVENTORY_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_first_admins_code_is_in_a_file_of_its_own_until_there_is_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(FIRST_CODE);
        write_first_code(&path, Some("abcd")).expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "abcd\n");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        write_first_code(&path, None).expect("removed");
        assert!(!path.exists());
        write_first_code(&path, None).expect("it was not there");
    }
}

//! Enrolment: join codes become certificates, certificates are taken back, and mosquitto is told.

pub mod authority;
pub mod command;
pub mod desk;
pub mod mosquitto;

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet};
use shared::enrolment::{Application, Decision};
use shared::update::{Hearing, PART_BYTES, Reply, Request, Wish};
use shared::wire::{Payload, decode, encode};
use shared::{BranchId, Millis, StreamId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_util::sync::CancellationToken;
use ward_agent::settings::{Broker, TlsFiles};
use ward_agent::tls;

use crate::feed::Live;
use crate::inbox::Sender;
use crate::ingest::Command;
use crate::metrics::Metrics;
use crate::store::{self, CertificateRow, Readers, Store, StoreError};
use crate::{bus, clock};
use authority::{Authority, write_secret};
use desk::Terms;

/// Applications that are decided at a time. Each takes a box about a second, once in months.
const APPLICATIONS_LIMIT: usize = 64;
/// Open connections. Beyond it the oldest that has said nothing makes room, so that those who open many keep nobody out.
const CONNECTIONS_LIMIT: usize = 256;
/// Time for one.
const APPLICATION_TIME: Duration = Duration::from_secs(15);
/// How often the file is looked at for certificates that another process has taken back.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After a branch was revoked its connection is ended so often: mosquitto may read the list a little later.
const EVICTIONS: u32 = 6;
const EVICT_EVERY: Duration = Duration::from_secs(5);
/// How long the identity counts by which a connection is ended, in ms.
const EVICTOR_MS: i64 = 600_000;
/// Time to end a connection.
const EVICT_LIMIT: Duration = Duration::from_secs(10);

/// Makes the collector's own identity for its broker, and what mosquitto needs; how the broker is reached then.
///
/// # Errors
/// When a file can't be written.
pub fn furnish(authority: &Authority, data_dir: &Path, terms: &Terms, broker: &mut Broker, now: Millis) -> anyhow::Result<()> {
    if broker.tls.is_none() {
        let (folder, identity) = (data_dir.join("authority"), authority.collector(now)?);
        let path = folder.join("collector.pem");
        write_secret(&path, format!("{}{}", identity.chain_pem, identity.key_pem).as_bytes())?;
        broker.tls = Some(TlsFiles { ca: folder.join("ca.pem"), certificate: path.clone(), key: path });
    }
    mosquitto::write_files(authority, &mosquitto_folder(data_dir), &terms.host, terms.broker_port, now)
}

fn mosquitto_folder(data_dir: &Path) -> PathBuf {
    data_dir.join("mosquitto")
}

/// Where boxes apply for certificates.
pub struct Office {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    clerk: Arc<Clerk>,
}

/// Who decides: one application after the other.
struct Clerk {
    authority: Arc<Authority>,
    terms: Terms,
    store: Mutex<Store>,
    ear: Ear,
}

/// What the collector hears of the branches, for boxes that ask.
pub struct Ear {
    /// Who has spoken.
    pub live: Arc<Live>,
    /// Whether anybody could be heard.
    pub metrics: Arc<Metrics>,
}

impl Ear {
    /// What is known of a run of a branch's agent.
    fn hears(&self, branch: &BranchId, stream: StreamId, now: Millis) -> Hearing {
        let is = |name| self.metrics.value(name, "") > 0.0;
        // What is not written down doesn't count as heard: a fault of the centre must not look like one of all boxes.
        if is("ward_ledger_failing") || is("ward_clock_behind") || !is(bus::CONNECTED) {
            return Hearing::CannotSay;
        }
        let fleet = self.live.fleet();
        let known = fleet.branch(branch).map(|at| &fleet.branches[at]);
        match known.and_then(|branch| Some((branch.spoke_ago_ms(stream, now)?, branch.silent_after_ms))) {
            Some((ago_ms, within_ms)) => Hearing::Speaks { ago_ms, within_ms: within_ms.unsigned_abs() },
            None => Hearing::Nothing,
        }
    }
}

impl Office {
    /// Listens, and opens the collector's file a second time: applications come rarely, and wait for the ledger's commits.
    ///
    /// # Errors
    /// When the port is taken or the file can't be opened.
    pub async fn bind(
        listen: std::net::SocketAddr,
        authority: Arc<Authority>,
        terms: Terms,
        data_dir: &Path,
        ear: Ear,
    ) -> anyhow::Result<Self> {
        let identity = authority.server(&terms.host, clock::now())?;
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&tokio_rustls::rustls::version::TLS13])
            .context("choosing TLS 1.3")?
            .with_no_client_auth()
            .with_single_cert(identity.chain, identity.key)
            .context("the enrolment's certificate")?;
        let listener = TcpListener::bind(listen).await.with_context(|| format!("listening on {listen} for enrolment"))?;
        let store = Mutex::new(Store::open(data_dir)?);
        Ok(Self {
            listener,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            clerk: Arc::new(Clerk { authority, terms, store, ear }),
        })
    }

    /// Takes applications until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let room = Arc::new(Semaphore::new(APPLICATIONS_LIMIT));
        let mut guests: VecDeque<Guest> = VecDeque::new();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let Ok((connection, peer)) = accepted else {
                // Out of descriptors, for one: others give theirs back.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            guests.retain(|guest| !guest.leaves.is_cancelled());
            if guests.len() >= CONNECTIONS_LIMIT {
                let Some(at) = guests.iter().position(|guest| !guest.has_spoken.load(Ordering::Relaxed)) else { continue };
                guests.remove(at).into_iter().for_each(|guest| guest.leaves.cancel());
            }
            let guest = Guest::default();
            guests.push_back(guest.clone());
            let (acceptor, clerk, room) = (self.acceptor.clone(), Arc::clone(&self.clerk), Arc::clone(&room));
            tokio::spawn(async move {
                let served = tokio::time::timeout(APPLICATION_TIME, serve(acceptor, clerk, connection, &guest, &room));
                let served = tokio::select! {
                    served = served => served,
                    () = guest.leaves.cancelled() => return,
                };
                guest.leaves.cancel();
                match served {
                    Ok(Ok(None)) => {}
                    Ok(Ok(Some(Decision::Granted(grant)))) => {
                        tracing::info!(%peer, branch = %grant.branch, "a box has its certificate")
                    }
                    Ok(Ok(Some(Decision::Refused(why)))) => tracing::warn!(%peer, why, "a box gets no certificate"),
                    Ok(Err(error)) => tracing::debug!(%peer, error = format!("{error:#}"), "an application has failed"),
                    Err(_) => tracing::debug!(%peer, "an application took too long"),
                }
            });
        }
    }
}

/// A connection from its beginning to its end.
#[derive(Clone, Default)]
struct Guest {
    /// It has said all that it wants.
    has_spoken: Arc<AtomicBool>,
    /// It has ended, or has to.
    leaves: CancellationToken,
}

/// Answers one application or one request; the decision on an application.
async fn serve(
    acceptor: TlsAcceptor,
    clerk: Arc<Clerk>,
    connection: TcpStream,
    guest: &Guest,
    room: &Semaphore,
) -> anyhow::Result<Option<Decision>> {
    let mut connection = acceptor.accept(connection).await?;
    let length = connection.read_u32_le().await? as usize;
    let limit = Application::LIMIT_BYTES.max(Request::LIMIT_BYTES);
    anyhow::ensure!(length <= limit, "an application of {length} B is over the limit");
    let mut bytes = vec![0; length];
    connection.read_exact(&mut bytes).await?;
    guest.has_spoken.store(true, Ordering::Relaxed);
    let turn = room.acquire().await?;
    let (bytes, decision) = tokio::task::spawn_blocking(move || clerk.answer(&bytes)).await??;
    drop(turn);
    connection.write_u32_le(u32::try_from(bytes.len())?).await?;
    connection.write_all(&bytes).await?;
    connection.shutdown().await?;
    Ok(decision)
}

impl Clerk {
    fn answer(&self, bytes: &[u8]) -> anyhow::Result<(Vec<u8>, Option<Decision>)> {
        if let Ok(request) = decode::<Request>(bytes) {
            return Ok((encode(&self.serve(&request)?)?, None));
        }
        let decision = self.decide(&decode::<Application>(bytes)?)?;
        Ok((encode(&decision)?, Some(decision)))
    }

    /// What a box that has a certificate may know.
    fn serve(&self, request: &Request) -> Result<Reply, StoreError> {
        let mut store = self.store.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let row = match desk::box_of(store.connection(), request)? {
            Ok(row) => row,
            Err(why) => return Ok(Reply::Refused(why.to_owned())),
        };
        // Looked for first: a box fetches a build in hundreds of parts, and a change waits for the ledger's.
        if store::has_superseded(store.connection(), &row)? {
            store.transaction(|db| store::supersede(db, &row, clock::now()))?;
        }
        let db = store.connection();
        Ok(match request.wish {
            Wish::Heard { stream } => Reply::Heard(self.ear.hears(&row.branch, stream, clock::now())),
            Wish::Part { build, from } => match store::build_part(db, &build, from, PART_BYTES)? {
                Some(bytes) => Reply::Part(bytes),
                None => Reply::Refused("no such build is staged any more".to_owned()),
            },
        })
    }

    fn decide(&self, application: &Application) -> Result<Decision, StoreError> {
        let Self { authority, terms, store, .. } = self;
        let mut store = store.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        store.transaction(|db| desk::decide(db, authority, terms, application, clock::now()))
    }
}

/// Follows what is taken back, by whichever process: mosquitto's list, the ledger's thread, and open connections.
pub async fn follow(
    readers: Arc<Readers>,
    authority: Arc<Authority>,
    data_dir: PathBuf,
    broker: Broker,
    commands: Sender,
    metrics: Arc<Metrics>,
) {
    let mut listed: Option<Vec<CertificateRow>> = None;
    let mut closed: Option<BTreeSet<BranchId>> = None;
    loop {
        let from = Arc::clone(&readers);
        let read = move || from.read(|db| Ok((store::certificates(db)?, store::revoked_branches(db)?)));
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok((rows, revoked))) => {
                let now = clock::now();
                let list: Vec<_> = rows.into_iter().filter(|row| row.revoked.is_some() && row.until > now).collect();
                if listed.as_ref() != Some(&list) {
                    match mosquitto::write_list(&authority, &mosquitto_folder(&data_dir), &list, now) {
                        Ok(()) => listed = Some(list.clone()),
                        Err(error) => tracing::error!(
                            error = format!("{error:#}"),
                            "mosquitto's list of revoked certificates can't be written"
                        ),
                    }
                }
                if closed.as_ref() != Some(&revoked) {
                    if commands.send(Command::Revoked(revoked.clone())).await.is_err() {
                        return;
                    }
                    // One that was revoked while this program was down may be connected still, as long as a certificate of it counts.
                    let was_over = |branch: &&BranchId| match &closed {
                        Some(before) => before.contains(*branch),
                        None => list.iter().all(|row| row.branch != **branch),
                    };
                    for branch in revoked.iter().filter(|branch| !was_over(branch)) {
                        tracing::info!(%branch, "the branch is revoked: its box is heard no more");
                        tokio::spawn(evict(Arc::clone(&authority), broker.clone(), data_dir.clone(), branch.clone()));
                    }
                    closed = Some(revoked);
                }
                if listed.as_ref() == Some(&list) {
                    metrics.has_run("revocations", now);
                }
            }
            Ok(Err(error)) => tracing::error!(%error, "certificates can't be read"),
            Err(_) => return,
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Ends a branch's open connection: mosquitto asks for certificates only when somebody connects. A client that shows the
/// branch's name takes the place of the one before, and leaves.
async fn evict(authority: Arc<Authority>, broker: Broker, data_dir: PathBuf, branch: BranchId) {
    for _ in 0..EVICTIONS {
        tokio::time::sleep(EVICT_EVERY).await;
        match tokio::time::timeout(EVICT_LIMIT, take_place(&authority, &broker, &data_dir, &branch)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%branch, error = format!("{error:#}"), "a revoked branch's connection can't be ended")
            }
            Err(_) => tracing::warn!(%branch, "a revoked branch's connection can't be ended: the broker doesn't answer"),
        }
    }
}

async fn take_place(authority: &Authority, broker: &Broker, data_dir: &Path, branch: &BranchId) -> anyhow::Result<()> {
    let Some(files) = &broker.tls else { return Ok(()) };
    let now = clock::now();
    let identity = authority.client(branch.as_str(), now, now.plus(EVICTOR_MS))?;
    let path = data_dir.join("authority").join(format!("evict-{branch}.pem"));
    write_secret(&path, format!("{}{}", identity.chain_pem, identity.key_pem).as_bytes())?;
    let shown =
        Broker { tls: Some(TlsFiles { ca: files.ca.clone(), certificate: path.clone(), key: path.clone() }), ..broker.clone() };
    let transport = tls::transport(&shown, tls::Time { known: Some(now), past: None });
    let _ = std::fs::remove_file(&path);
    let mut options = MqttOptions::new(format!("ward-agent-{branch}"), &broker.host, broker.port);
    options.set_clean_session(true).set_transport(transport?);
    let (client, mut events) = AsyncClient::new(options, 1);
    loop {
        if let Event::Incoming(Packet::ConnAck(_)) = events.poll().await? {
            break;
        }
    }
    client.try_disconnect()?;
    while events.poll().await.is_ok() {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::Notes;
    use crate::fleet::Fleet;

    const NOW: Millis = Millis(1_795_442_400_000);

    #[test]
    fn a_box_learns_whether_its_own_run_is_heard_and_nothing_where_the_centre_is_deaf() {
        let csv = "device_id,device_name,branch,branch_name,region,region_name,device_type,ip\n\
                   v-1,V,vake,Vake,t,T,atm,127.0.0.2\n";
        let inventory = crate::inventory::parse_csv("estate.csv", csv).expect("good");
        let mut fleet = Fleet::new(30_000);
        fleet.set_inventory(&inventory, &[1]);
        let live = Live::new(fleet, Notes::default());
        let ear = Ear { live: Arc::new(live), metrics: Arc::new(Metrics::default()) };
        let vake: BranchId = "vake".parse().expect("a valid id");
        let hears = |stream, now| ear.hears(&vake, StreamId(stream), now);
        assert_eq!(hears(1, NOW), Hearing::CannotSay, "the broker is not there yet");
        ear.metrics.set(bus::CONNECTED, "", 1.0);
        assert_eq!(hears(1, NOW), Hearing::Nothing);
        ear.live.change(NOW, |fleet| {
            fleet.begin(0, StreamId(1), "0", NOW);
            fleet.observed(0, StreamId(1), 1, Some(NOW), NOW);
        });
        let speaks = Hearing::Speaks { ago_ms: 4_000, within_ms: 30_000 };
        assert_eq!(hears(1, NOW.plus(4_000)), speaks);
        assert_eq!((speaks.is_heard(), hears(1, NOW.plus(31_000)).is_heard()), (Some(true), Some(false)));
        assert_eq!(hears(2, NOW.plus(4_000)), Hearing::Nothing, "another run speaks for the branch");
        ear.metrics.set("ward_ledger_failing", "", 1.0);
        assert_eq!(hears(1, NOW.plus(300_000)).is_heard(), None, "nobody is heard while nothing can be written");
    }

    #[tokio::test]
    async fn those_who_say_nothing_make_room_for_a_box_that_applies() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = Store::open(folder.path()).expect("made");
        let csv = "device_id,device_name,branch,branch_name,region,region_name,device_type,ip\n\
                   v-1,V,vake,Vake,t,T,atm,127.0.0.2\n";
        let inventory = crate::inventory::parse_csv("estate.csv", csv).expect("good");
        store.transaction(|db| store::import(db, &inventory)).expect("imported");
        let authority = Arc::new(Authority::open(folder.path(), clock::now()).expect("made"));
        let mut terms = Terms { host: "127.0.0.1".into(), port: 0, broker_port: 8883, lifetime_ms: 86_400_000 };
        let ear = Ear { live: Arc::new(Live::new(Fleet::new(30_000), Notes::default())), metrics: Arc::default() };
        let listen = ([127, 0, 0, 1], 0).into();
        let office = Office::bind(listen, Arc::clone(&authority), terms.clone(), folder.path(), ear).await.expect("bound");
        let address = office.listener.local_addr().expect("bound");
        terms.port = address.port();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(office.run(shutdown.clone()));
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS_LIMIT + 20 {
            idle.push(TcpStream::connect(address).await.expect("it listens"));
        }
        let vake: BranchId = "vake".parse().expect("a valid id");
        let code = store.transaction(|db| desk::new_code(db, &authority, &terms, &vake, clock::now(), 60_000));
        let joined = ward_agent::enrol::join(&code.expect("written")).await;
        assert_eq!(joined.map(|(grant, _)| grant.branch).ok(), Some(vake));
        let mut bytes = [0];
        assert_eq!(idle[0].read(&mut bytes).await.ok(), Some(0), "the oldest is gone");
        shutdown.cancel();
        running.await.expect("it doesn't panic");
    }
}

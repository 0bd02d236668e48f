//! The certificate that the API shows: read from its files, and again when they change, without ending a connection.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use ward_agent::{service, tls};

use crate::clock;
use crate::metrics::Metrics;
use crate::settings::CertificateFiles;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// What is spoken inside of TLS.
const HTTP_1_1: &[u8] = b"http/1.1";

/// A certificate in force and the files that it is from.
pub struct Certificate {
    files: CertificateFiles,
    config: RwLock<Arc<ServerConfig>>,
}

/// What two files hold.
type Contents = [Vec<u8>; 2];

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// When one can't be read, or the key isn't that of the certificate.
    pub fn open(files: CertificateFiles) -> anyhow::Result<Self> {
        let config = RwLock::new(Arc::new(read(&files)?));
        Ok(Self { files, config })
    }

    /// What takes new connections.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Takes the files over when they have changed. While what they hold is no certificate, the one before stays in force.
    pub async fn follow(self: Arc<Self>, metrics: Arc<Metrics>) {
        self.follow_every(LOOK_EVERY, &metrics).await;
    }

    async fn follow_every(self: Arc<Self>, pause: Duration, metrics: &Metrics) {
        let mut seen: Option<Contents> = None;
        let mut judged: Option<Contents> = None;
        loop {
            let from = Arc::clone(&self);
            let look =
                move || [&from.files.certificate, &from.files.key].map(|path| std::fs::read(source(path)).unwrap_or_default());
            let Ok(found) = tokio::task::spawn_blocking(look).await else { return };
            // Nobody replaces two files at one moment: what is there at two looks counts.
            if judged.as_ref() != Some(&found) && seen.as_ref() == Some(&found) {
                let is_first = judged.is_none();
                self.judge(metrics, is_first);
                judged = Some(found.clone());
            }
            if metrics.value("ward_api_certificate_failing", "") < 0.5 {
                metrics.has_run("certificate", clock::now());
            }
            seen = Some(found);
            tokio::time::sleep(pause).await;
        }
    }

    fn judge(&self, metrics: &Metrics, is_first: bool) {
        match read(&self.files) {
            Ok(config) => {
                *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                metrics.set("ward_api_certificate_failing", "", 0.0);
                if !is_first {
                    tracing::info!(file = %self.files.certificate.display(), "the API shows a new certificate");
                }
            }
            Err(error) => {
                metrics.set("ward_api_certificate_failing", "", 1.0);
                let error = format!("{error:#}");
                tracing::error!(error, "the API's new certificate can't be used: the one before stays in force");
            }
        }
    }
}

fn read(files: &CertificateFiles) -> anyhow::Result<ServerConfig> {
    let (chain, key) = tls::identity(&source(&files.certificate), &source(&files.key))?;
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .context("choosing TLS versions")?
        .with_no_client_auth()
        .with_single_cert(chain, key);
    let mut config = config.with_context(|| format!("{} does not fit {}", files.key.display(), files.certificate.display()))?;
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    Ok(config)
}

/// Where a file is read: itself, if the collector may, since a copy of systemd's stays as it was at the start.
fn source(path: &Path) -> PathBuf {
    if std::fs::File::open(path).is_ok() { path.to_owned() } else { service::handed_over(path) }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::api::server::{Limits, Server};

    const LOOK: Duration = Duration::from_millis(10);
    const SOON: Duration = Duration::from_secs(20);

    /// A certificate for a host, which vouches for itself, in a folder of its own.
    pub(in crate::api) fn issue(host: &str) -> (tempfile::TempDir, CertificateFiles) {
        let folder = tempfile::tempdir().expect("a folder");
        let files = CertificateFiles { certificate: folder.path().join("api.pem"), key: folder.path().join("api.key") };
        let made = rcgen::generate_simple_self_signed([host.to_owned()]).expect("ring makes keys");
        std::fs::write(&files.certificate, made.cert.pem()).expect("written");
        std::fs::write(&files.key, made.signing_key.serialize_pem()).expect("written");
        (folder, files)
    }

    /// What somebody is answered who trusts one certificate alone, over a connection of their own.
    async fn ask(address: SocketAddr, trusted: &CertificateDer<'static>) -> std::io::Result<String> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.clone()).map_err(std::io::Error::other)?;
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(std::io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let wait = async {
            while !holds().await {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(SOON, wait).await.expect(what);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_new_certificate_is_shown_without_a_lost_request_and_a_broken_one_never() {
        let (_folder, files) = issue("localhost");
        let (_other, next) = issue("localhost");
        let trusted = |files: &CertificateFiles| CertificateDer::from_pem_file(&files.certificate).expect("a certificate");
        let (first, second) = (trusted(&files), trusted(&next));
        let certificate = Arc::new(Certificate::open(files.clone()).expect("good"));
        let metrics = Arc::<Metrics>::default();
        let following = tokio::spawn({
            let (certificate, metrics) = (Arc::clone(&certificate), Arc::clone(&metrics));
            async move { certificate.follow_every(LOOK, &metrics).await }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = Server {
            router: Router::new().route("/", get(|| async { "hello" })),
            certificate: Some(certificate),
            limits: Limits::DEFAULT,
            metrics: Arc::clone(&metrics),
            shutdown: CancellationToken::new(),
        };
        tokio::spawn(server.serve(listener));
        // Whoever trusts both is answered all along.
        let (stop, asked) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let (stop, asked, first, second) = (Arc::clone(&stop), Arc::clone(&asked), first.clone(), second.clone());
                tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        let answered = match ask(address, &first).await {
                            Ok(answer) => Ok(answer),
                            Err(_) => ask(address, &second).await,
                        };
                        assert!(answered.expect("an answer").starts_with("HTTP/1.1 200"));
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let failing = || metrics.value("ward_api_certificate_failing", "") > 0.5;
        eventually("it is asked", async || asked.load(Ordering::Relaxed) > 20).await;

        std::fs::copy(&next.certificate, &files.certificate).expect("copied");
        eventually("a certificate without its key is noticed", async || failing()).await;
        assert!(ask(address, &first).await.is_ok(), "the one before is shown");
        std::fs::write(&files.certificate, "no certificate").expect("written");
        tokio::time::sleep(LOOK * 5).await;
        assert!(failing() && ask(address, &first).await.is_ok());

        std::fs::copy(&next.certificate, &files.certificate).expect("copied");
        std::fs::copy(&next.key, &files.key).expect("copied");
        eventually("the new one is shown", async || ask(address, &second).await.is_ok()).await;
        assert!(!failing() && ask(address, &first).await.is_err());
        let so_far = asked.load(Ordering::Relaxed);
        eventually("it is asked", async || asked.load(Ordering::Relaxed) > so_far + 20).await;
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.await.expect("each was answered");
        }
        following.abort();
    }

    #[test]
    fn what_is_no_certificate_is_refused_with_its_path() {
        let (_folder, files) = issue("localhost");
        let (_other, next) = issue("localhost");
        let check = |files: CertificateFiles, expected: &str| {
            let error = format!("{:#}", Certificate::open(files).err().expect("refused"));
            assert!(error.contains(expected), "{error}");
        };
        check(CertificateFiles { key: next.key.clone(), ..files.clone() }, "does not fit");
        check(CertificateFiles { key: files.certificate.clone(), ..files.clone() }, "reading the key");
        check(CertificateFiles { certificate: files.key.clone(), ..files.clone() }, "holds no certificate");
        check(CertificateFiles { certificate: "/no/such.pem".into(), ..files }, "/no/such.pem");
    }
}

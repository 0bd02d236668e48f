//! Mutual TLS by rustls: the peer is checked against one CA, and we show a certificate of our own.
//!
//! Certificates have dates, and a box that comes up without NTP doesn't know the date: it has to reach the collector to
//! learn it. So what the agent knows counts, before what the machine's clock says; and where nobody vouches for that clock,
//! a certificate need only be valid at some moment that isn't known to be over.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use rumqttc::{TlsConfiguration, Transport};
use shared::Millis;
use shared::enrolment::SECRET_BYTES;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{ring, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::settings::{Broker, TlsFiles};
use crate::{clock, enrol, service};

/// Certificates of a chain whose beginnings may all lie ahead of a clock that is late.
const CHAIN_LIMIT: usize = 4;

/// What is known of the time beside the machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct Time {
    /// The time, by acks or NTP.
    pub known: Option<Millis>,
    /// A moment that is over for certain, as the collector has dated something so.
    pub past: Option<Millis>,
}

/// How an MQTT client reaches a broker, at the time that is known best.
///
/// # Errors
/// When a certificate or key can't be read, with its path.
pub fn transport(broker: &Broker, time: Time) -> anyhow::Result<Transport> {
    match &broker.tls {
        None => Ok(Transport::Tcp),
        Some(files) => Ok(Transport::Tls(TlsConfiguration::Rustls(Arc::new(client_config(files, time)?)))),
    }
}

/// The usual checks, at the time that is known best.
#[derive(Debug)]
struct Verifier {
    usual: Arc<WebPkiServerVerifier>,
    time: Time,
    is_vouched_for: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let unix = |at: Millis| UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(at.0).unwrap_or(0)));
        let verify = |at| self.usual.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, at);
        if let Some(known) = self.time.known {
            return verify(unix(known));
        }
        let mut verdict = verify(now);
        if self.is_vouched_for {
            return verdict;
        }
        // The clock may be wrong by years, either way. What is certain is what is over: the collector has dated something,
        // and the certificates were issued.
        let past = unix(self.time.past.unwrap_or(Millis::EARLIEST));
        let mut at = now;
        for _ in 0..CHAIN_LIMIT {
            let next = match &verdict {
                Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
                    (*not_before).max(past)
                }
                Err(Error::InvalidCertificate(CertificateError::ExpiredContext { .. })) if at == now && past < now => past,
                _ => break,
            };
            if next == at {
                break;
            }
            at = next;
            verdict = verify(at);
        }
        verdict
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// The usual checks, against the authorities in a file.
fn verifier(ca: &Path, time: Time) -> anyhow::Result<Arc<Verifier>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).with_context(|| format!("{} is no CA", ca.display()))?;
    }
    let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider())).build();
    let usual = usual.with_context(|| format!("{} is no CA", ca.display()))?;
    Ok(Arc::new(Verifier { usual, time, is_vouched_for: clock::synchronised().is_some() }))
}

fn client_config(files: &TlsFiles, time: Time) -> anyhow::Result<ClientConfig> {
    let [ca, certificate, key] = [&files.ca, &files.certificate, &files.key].map(|path| service::handed_over(path));
    let files = TlsFiles { ca, certificate, key };
    let verifier = verifier(&files.ca, time)?;
    let (chain, key) = identity(&files.certificate, &files.key)?;
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("choosing TLS versions")?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, key)
        .with_context(|| format!("{} does not fit {}", files.key.display(), files.certificate.display()))
}

/// How the collector's enrolment is reached: no certificate is shown, and the authority is the one in a file.
///
/// # Errors
/// When the file can't be read.
pub fn toward_authority(ca: &Path, time: Time) -> anyhow::Result<ClientConfig> {
    without_certificate(verifier(ca, time)?)
}

/// The same, where only the beginning of the authority's fingerprint is known: the collector shows the rest.
///
/// # Errors
/// When rustls can't be set up.
pub fn toward_fingerprint(fingerprint: [u8; SECRET_BYTES], time: Time) -> anyhow::Result<ClientConfig> {
    without_certificate(Arc::new(ByFingerprint { fingerprint, time, is_vouched_for: clock::synchronised().is_some() }))
}

fn without_certificate(verifier: Arc<dyn ServerCertVerifier>) -> anyhow::Result<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&tokio_rustls::rustls::version::TLS13])
        .context("choosing TLS 1.3")?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(config)
}

/// Takes what an authority vouches for of which the fingerprint is known.
#[derive(Debug)]
struct ByFingerprint {
    fingerprint: [u8; SECRET_BYTES],
    time: Time,
    is_vouched_for: bool,
}

impl ServerCertVerifier for ByFingerprint {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut roots = RootCertStore::empty();
        for shown in intermediates.iter().filter(|shown| enrol::fingerprint(shown) == self.fingerprint) {
            roots.add(shown.clone().into_owned())?;
        }
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider())).build();
        // No root: whoever answers is not whom the code names.
        let usual = usual.map_err(|_| Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let usual = Verifier { usual, time: self.time, is_vouched_for: self.is_vouched_for };
        usual.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 was not offered".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &ring::default_provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A certificate with its chain, and the key, from PEM files.
///
/// # Errors
/// When one can't be read, with its path.
pub fn identity(certificate: &Path, key: &Path) -> anyhow::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| format!("reading the key {}", key.display()))?;
    Ok((chain, key))
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let what = || format!("reading the certificate {}", path.display());
    let list = CertificateDer::pem_file_iter(path).with_context(what)?.collect::<Result<Vec<_>, _>>().with_context(what)?;
    if list.is_empty() {
        bail!("{} holds no certificate", path.display());
    }
    Ok(list)
}

/// Takes any certificate: whoever only wants to know whether a device answers has no use for its name.
#[derive(Debug)]
struct Anybody(Arc<tokio_rustls::rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// TLS over a connection to a device, whoever it says that it is. Nothing secret goes over it.
///
/// # Errors
/// When the other side doesn't speak TLS.
pub async fn to_anybody(
    name: Option<&str>,
    address: std::net::IpAddr,
    stream: tokio::net::TcpStream,
) -> anyhow::Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))).with_no_client_auth();
    let named = name.and_then(|name| ServerName::try_from(name.to_owned()).ok());
    let server = named.unwrap_or_else(|| ServerName::IpAddress(address.into()));
    Ok(tokio_rustls::TlsConnector::from(Arc::new(config)).connect(server, stream).await?)
}

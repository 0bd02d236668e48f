//! Mutual TLS by rustls: the peer is checked against one CA, and we show a certificate of our own.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use rumqttc::{TlsConfiguration, Transport};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::settings::{Broker, TlsFiles};

/// How an MQTT client reaches a broker.
///
/// # Errors
/// When a certificate or key can't be read, with its path.
pub fn transport(broker: &Broker) -> anyhow::Result<Transport> {
    match &broker.tls {
        None => Ok(Transport::Tcp),
        Some(files) => Ok(Transport::Tls(TlsConfiguration::Rustls(Arc::new(client_config(files)?)))),
    }
}

fn client_config(files: &TlsFiles) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca)? {
        roots.add(certificate).with_context(|| format!("{} is no CA", files.ca.display()))?;
    }
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).with_context(|| format!("reading the key {}", files.key.display()))?;
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("choosing TLS versions")?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .with_context(|| format!("{} does not fit {}", files.key.display(), files.certificate.display()))
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let what = || format!("reading the certificate {}", path.display());
    let list = CertificateDer::pem_file_iter(path).with_context(what)?.collect::<Result<Vec<_>, _>>().with_context(what)?;
    if list.is_empty() {
        bail!("{} holds no certificate", path.display());
    }
    Ok(list)
}

//! The collector's own certificate authority: it vouches for boxes, for the broker, for the collector, and for configs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use shared::enrolment::signed_config;
use shared::message::Sealed;
use shared::{BranchId, Config, Millis, wire};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::store::CertificateRow;

/// What the authority is called in certificates.
const NAME: &str = "ward authority";
/// The common name of the collector's own certificate, and so the broker's name of it.
pub const COLLECTOR: &str = "collector";
const DAY_MS: i64 = 86_400_000;
/// How long the authority and what the centre itself shows count: nobody should have to renew them by hand.
const AUTHORITY_DAYS: i64 = 20 * 365;
/// How long certificates of broker and collector count; they are made anew at each start.
const CENTRE_DAYS: i64 = 3 * 365;
/// Certificates count from a little before they are made: clocks differ.
const BEFORE_MS: i64 = 3_600_000;
/// A list of what was taken back that is over would shut everybody out: it is never over in practice.
const LIST_DAYS: i64 = 10 * 365;

/// A key and what the authority says of it.
pub struct Identity {
    /// The certificate and that of the authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key.
    pub key: PrivateKeyDer<'static>,
    /// Both certificates as PEM.
    pub chain_pem: String,
    /// The key as PEM.
    pub key_pem: String,
}

/// The authority and its keys.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    configs: Ed25519KeyPair,
}

impl Authority {
    /// Opens the authority of a data folder, and makes it if there is none. Its keys are readable by their owner only.
    ///
    /// # Errors
    /// When a file can't be read or made, with its path.
    pub fn open(data_dir: &Path, now: Millis) -> anyhow::Result<Self> {
        let folder = data_dir.join("authority");
        let (certificate, key, configs) = (folder.join("ca.pem"), folder.join("ca.key"), folder.join("config.key"));
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        if !certificate.exists() {
            // The certificate comes last: where it is, the keys are.
            write_secret(&configs, Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(unmade)?.as_ref())?;
            let fresh = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            write_secret(&key, fresh.serialize_pem().as_bytes())?;
            let mut params = authority_params();
            (params.not_before, params.not_after) = (at(now.0 - BEFORE_MS), at(now.0 + AUTHORITY_DAYS * DAY_MS));
            params.serial_number = Some(serial());
            write_secret(&certificate, params.self_signed(&fresh)?.pem().as_bytes())?;
            tracing::info!(folder = %folder.display(), "made an authority for certificates: keep a copy of this folder");
        }
        let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
        let certificate_pem = String::from_utf8(read(&certificate)?).context("the authority's certificate is no text")?;
        let pair = KeyPair::from_pem(&String::from_utf8(read(&key)?).context("the authority's key is no text")?)
            .with_context(|| format!("{} is no key", key.display()))?;
        let configs = Ed25519KeyPair::from_pkcs8(&read(&configs)?).map_err(|error| anyhow!("{}: {error}", configs.display()))?;
        Ok(Self {
            issuer: Issuer::new(authority_params(), pair),
            certificate: CertificateDer::from_pem_slice(certificate_pem.as_bytes())
                .with_context(|| format!("{} is no certificate", certificate.display()))?,
            certificate_pem,
            configs,
        })
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Its certificate as PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// What configs are signed by.
    pub fn config_key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        key.copy_from_slice(self.configs.public_key().as_ref());
        key
    }

    /// The collector's word for something, by the key that boxes know.
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.configs.sign(bytes).as_ref().to_vec()
    }

    /// A branch's config with the collector's word for it.
    ///
    /// # Errors
    /// When the config is too large.
    pub fn seal(&self, branch: &BranchId, config: &Config) -> Result<Sealed, wire::WireError> {
        let config = wire::encode(config)?;
        let signature = self.sign(&signed_config(branch, &config));
        Ok(Sealed { config, signature })
    }

    /// A certificate for a branch's box, and what to remember of it.
    ///
    /// # Errors
    /// When the key is no point of P-256.
    pub fn box_certificate(
        &self,
        branch: &BranchId,
        public_key: &[u8],
        now: Millis,
        until: Millis,
    ) -> anyhow::Result<(CertificateDer<'static>, CertificateRow)> {
        let serial = serial();
        let mut params = client_params(branch.as_str(), now, until);
        params.serial_number = Some(serial.clone());
        let certificate = params.signed_by(&Point(public_key), &self.issuer).context("signing a certificate")?;
        let row = CertificateRow {
            serial: ward_agent::enrol::to_hex(serial.to_bytes().as_slice()),
            branch: branch.clone(),
            public_key: public_key.to_vec(),
            issued: now,
            until,
            revoked: None,
        };
        Ok((certificate.der().clone(), row))
    }

    /// An identity that the broker takes for `name`, for a while.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn client(&self, name: &str, now: Millis, until: Millis) -> anyhow::Result<Identity> {
        self.issue(client_params(name, now, until))
    }

    /// The collector's own identity.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn collector(&self, now: Millis) -> anyhow::Result<Identity> {
        self.client(COLLECTOR, now, now.plus(CENTRE_DAYS * DAY_MS))
    }

    /// An identity of a server that is reached as `host`, or on this machine.
    ///
    /// # Errors
    /// When the host is no name.
    pub fn server(&self, host: &str, now: Millis) -> anyhow::Result<Identity> {
        let mut params = params("ward centre", now, now.plus(CENTRE_DAYS * DAY_MS));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let name = |name: &str| anyhow::Ok(SanType::DnsName(name.try_into().with_context(|| format!("{name} is no name"))?));
        params.subject_alt_names = vec![
            match host.parse::<IpAddr>() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) => name(host)?,
            },
            name("localhost")?,
            SanType::IpAddress(Ipv4Addr::LOCALHOST.into()),
            SanType::IpAddress(Ipv6Addr::LOCALHOST.into()),
        ];
        self.issue(params)
    }

    fn issue(&self, mut params: CertificateParams) -> anyhow::Result<Identity> {
        params.serial_number = Some(serial());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity {
            chain: vec![certificate.der().clone(), self.certificate.clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            chain_pem: certificate.pem() + &self.certificate_pem,
            key_pem: key.serialize_pem(),
        })
    }

    /// The list of certificates that were taken back and are not over yet, as PEM.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn revoked(&self, rows: &[CertificateRow], now: Millis) -> anyhow::Result<String> {
        let revoked = rows.iter().filter(|row| row.until > now).filter_map(|row| {
            let serial = (0..row.serial.len()).step_by(2).map(|i| u8::from_str_radix(row.serial.get(i..i + 2)?, 16).ok());
            Some(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&serial.collect::<Option<Vec<_>>>()?),
                revocation_time: at(row.revoked?.0),
                reason_code: None,
                invalidity_date: None,
            })
        });
        let list = CertificateRevocationListParams {
            this_update: at(now.0 - BEFORE_MS),
            next_update: at(now.0 + LIST_DAYS * DAY_MS),
            crl_number: SerialNumber::from_slice(&now.0.to_be_bytes()),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }
}

/// A key that somebody else holds.
struct Point<'a>(&'a [u8]);

impl PublicKeyData for Point<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

fn unmade(_: ring::error::Unspecified) -> anyhow::Error {
    anyhow!("no key can be made: the system gives no random numbers")
}

/// A serial number that nobody can foresee, and that is positive.
fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

/// A moment as certificates write it.
fn at(ms: i64) -> time::OffsetDateTime {
    date_time_ymd(1970, 1, 1) + Duration::from_millis(ms.unsigned_abs())
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = named(NAME);
    params
}

fn params(name: &str, now: Millis, until: Millis) -> CertificateParams {
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = (at(now.0 - BEFORE_MS), at(until.0));
    params.distinguished_name = named(name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

fn client_params(name: &str, now: Millis, until: Millis) -> CertificateParams {
    let mut params = params(name, now, until);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    named.push(DnType::CommonName, name);
    named
}

/// Writes a file that only its owner may read, so that a power cut leaves the old one or the new one.
pub fn write_secret(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    ward_agent::enrol::write(path, bytes, 0o600)
}

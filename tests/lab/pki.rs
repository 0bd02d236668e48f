//! Certificates: one authority, servers and clients of it, as PEM files.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    date_time_ymd,
};
use tempfile::TempDir;

use crate::now_ms;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// How old the certificates are, in days.
const AGE_DAYS: u32 = 60;

/// Where one party's certificate lies.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// The party's own certificate.
    pub certificate: PathBuf,
    /// Its key, readable by its owner only.
    pub key: PathBuf,
}

/// A certificate authority and the folder of all it has issued.
pub struct Pki {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Default for Pki {
    fn default() -> Self {
        Self::new()
    }
}

impl Pki {
    /// A new authority that nobody else trusts.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("the folder for temporary files is writable");
        let mut params = params("ward laboratory");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("ring makes ECDSA keys");
        let ca = params.self_signed(&key).expect("the parameters are complete");
        fs::write(folder.path().join("ca.pem"), ca.pem()).expect("the folder is the test's own");
        Self { folder, issuer: Issuer::new(params, key) }
    }

    /// The certificate of a server on this machine that is also reached under `addresses`.
    pub fn server(&self, addresses: &[IpAddr]) -> Identity {
        let mut params = params("server");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = vec![SanType::DnsName("localhost".try_into().expect("ASCII"))];
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        params.subject_alt_names.extend(addresses.iter().chain([&loopback]).map(|ip| SanType::IpAddress(*ip)));
        self.issue("server", params)
    }

    /// The certificate of a client that the broker calls `name`: a branch, or `collector`.
    pub fn client(&self, name: &str) -> Identity {
        let mut params = params(name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(name, params)
    }

    fn issue(&self, file: &str, params: CertificateParams) -> Identity {
        let key = KeyPair::generate().expect("ring makes ECDSA keys");
        let certificate = params.signed_by(&key, &self.issuer).expect("the parameters are complete");
        let at = |suffix: &str| self.folder.path().join(format!("{file}{suffix}"));
        let identity = Identity { ca: self.folder.path().join("ca.pem"), certificate: at(".pem"), key: at(".key") };
        fs::write(&identity.certificate, certificate.pem()).expect("the folder is the test's own");
        write_secret(&identity.key, &key.serialize_pem());
        identity
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    // As a real authority's: good from the day of issue on, for a while.
    let today = date_time_ymd(1970, 1, 1) + Duration::from_millis(now_ms().unsigned_abs());
    (params.not_before, params.not_after) = (today - AGE_DAYS * DAY, today + 400 * DAY);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params
}

/// Writes a file that only its owner may read.
pub fn write_secret(path: &Path, text: &str) {
    let mut file =
        File::options().create(true).truncate(true).write(true).mode(0o600).open(path).expect("the folder is the test's own");
    file.set_permissions(Permissions::from_mode(0o600)).expect("the file is the test's own");
    file.write_all(text.as_bytes()).expect("the disk has room");
}

//! How a box becomes a branch's agent: it makes a key, which never leaves it, and gets a certificate for a join code.
//!
//! Certificate and key stand in one file, so that a power cut leaves either the old pair or the new one.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair, KeyPair, UnparsedPublicKey};
use shared::enrolment::{Application, Claim, Decision, Grant, JoinCode, SECRET_BYTES, signed_config};
use shared::message::Sealed;
use shared::update::{Reply, Request, Wish};
use shared::wire::{Payload, decode, encode};
use shared::{BranchId, Millis};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};

use crate::settings::Enrolment;
use crate::tls;

/// Time for one application.
const APPLY_LIMIT: Duration = Duration::from_secs(20);
/// How often a join is tried: a line may break just then, and the code still works for the same key.
const TRIES: u32 = 3;
/// Between two tries.
const TRY_EVERY: Duration = Duration::from_secs(2);
/// What stands before the moment from which on a new certificate is due.
const RENEW_AFTER: &str = "renew-after: ";

/// Certificate and key of a state folder.
pub fn identity_path(state_dir: &Path) -> PathBuf {
    state_dir.join("identity.pem")
}

/// The authority of a state folder.
pub fn authority_path(state_dir: &Path) -> PathBuf {
    state_dir.join("ca.pem")
}

/// The beginning of a certificate's SHA-256, as join codes name it.
pub fn fingerprint(certificate: &[u8]) -> [u8; SECRET_BYTES] {
    let mut beginning = [0; SECRET_BYTES];
    beginning.copy_from_slice(&ring::digest::digest(&ring::digest::SHA256, certificate).as_ref()[..SECRET_BYTES]);
    beginning
}

/// A key that only this box has, in PKCS#8.
pub struct Key {
    pair: EcdsaKeyPair,
    pkcs8: Vec<u8>,
}

impl Key {
    /// A new one.
    ///
    /// # Errors
    /// When the kernel gives no random numbers.
    pub fn make() -> anyhow::Result<Self> {
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
        Self::read(made.map_err(|_| anyhow!("no key can be made"))?.as_ref())
    }

    /// The one in an identity's file.
    ///
    /// # Errors
    /// When there is none.
    pub fn from_file(path: &Path) -> anyhow::Result<Self> {
        let key = PrivateKeyDer::from_pem_file(path).with_context(|| format!("reading the key {}", path.display()))?;
        Self::read(key.secret_der())
    }

    fn read(pkcs8: &[u8]) -> anyhow::Result<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8, &SystemRandom::new());
        Ok(Self { pair: pair.map_err(|error| anyhow!("the key is none of ward's: {error}"))?, pkcs8: pkcs8.to_vec() })
    }

    /// An uncompressed point of P-256.
    pub fn public(&self) -> Vec<u8> {
        self.pair.public_key().as_ref().to_vec()
    }

    /// A wish that this key signs.
    ///
    /// # Errors
    /// When the key can't sign.
    pub fn request(&self, wish: Wish) -> anyhow::Result<Request> {
        let public_key = self.public();
        let signature = self.sign(&Request::signed(&public_key, &wish))?;
        Ok(Request { public_key, wish, signature })
    }

    fn sign(&self, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
        let signature = self.pair.sign(&SystemRandom::new(), bytes).map_err(|_| anyhow!("the key can't sign"))?;
        Ok(signature.as_ref().to_vec())
    }
}

/// A wish for a certificate for `fresh`: by a code, or because `before` has one.
///
/// # Errors
/// When a key can't sign.
pub fn application(fresh: &Key, claim: Result<[u8; SECRET_BYTES], &Key>) -> anyhow::Result<Application> {
    let public_key = fresh.public();
    let claim = match claim {
        Ok(secret) => Claim::Code(secret),
        Err(before) => {
            let bare = Claim::Renewal { public_key: before.public(), signature: Vec::new() };
            let signature = before.sign(&Application::signed(&public_key, &bare))?;
            Claim::Renewal { public_key: before.public(), signature }
        }
    };
    let signature = fresh.sign(&Application::signed(&public_key, &claim))?;
    Ok(Application { public_key, claim, signature })
}

/// Gets a certificate for a code; the grant and the key that it is for.
///
/// # Errors
/// When the collector can't be reached, isn't the one that the code names, or refuses.
pub async fn join(code: &JoinCode) -> anyhow::Result<(Grant, Key)> {
    let key = Key::make()?;
    let application = application(&key, Ok(code.secret))?;
    let mut tried = 1;
    loop {
        let config = tls::toward_fingerprint(code.authority, tls::Time::default())?;
        match apply(&code.host, code.port, config, &application).await {
            Ok(Decision::Granted(grant)) => return Ok((*grant, key)),
            Ok(Decision::Refused(why)) => bail!("the collector says no: {why}"),
            Err(error) if tried == TRIES => return Err(error),
            Err(_) => tried += 1,
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}

/// Brings an application to the collector.
///
/// # Errors
/// When it can't be reached, isn't who it should be, or gives no answer that can be read.
pub async fn apply(host: &str, port: u16, config: ClientConfig, application: &Application) -> anyhow::Result<Decision> {
    exchange(host, port, config, application).await
}

/// What the collector says to a wish of this box, which its certificate's key signs.
///
/// # Errors
/// As [`apply`], and when this box has no key.
pub async fn request(enrolment: &Enrolment, state_dir: &Path, time: tls::Time, wish: Wish) -> anyhow::Result<Reply> {
    let key = Key::from_file(&identity_path(state_dir))?;
    let config = tls::toward_authority(&authority_path(state_dir), time)?;
    exchange(&enrolment.host, enrolment.port, config, &key.request(wish)?).await
}

/// One payload there and one back.
async fn exchange<A: Payload, B: Payload>(host: &str, port: u16, config: ClientConfig, said: &A) -> anyhow::Result<B> {
    let talk = async {
        let connection = TcpStream::connect((host, port)).await.with_context(|| format!("connecting to {host}:{port}"))?;
        let name = ServerName::try_from(host.to_owned()).with_context(|| format!("{host} is no name of a host"))?;
        let mut connection = TlsConnector::from(Arc::new(config))
            .connect(name, connection)
            .await
            .with_context(|| format!("{host}:{port} is not the collector that it should be"))?;
        let bytes = encode(said)?;
        connection.write_u32_le(u32::try_from(bytes.len())?).await?;
        connection.write_all(&bytes).await?;
        connection.flush().await?;
        let length = connection.read_u32_le().await.context("the collector closed the connection")? as usize;
        anyhow::ensure!(length <= B::LIMIT_BYTES, "an answer of {length} B is over the limit");
        let mut bytes = vec![0; length];
        connection.read_exact(&mut bytes).await.context("the collector's answer is cut")?;
        Ok(decode::<B>(&bytes)?)
    };
    tokio::time::timeout(APPLY_LIMIT, talk).await.with_context(|| format!("{host}:{port} does not answer"))?
}

/// Writes down what makes this machine a branch's box. `before` is the branch that it stood in before.
///
/// # Errors
/// When a file can't be written, with its path.
pub fn settle(
    code: &JoinCode,
    grant: &Grant,
    key: &Key,
    before: Option<&BranchId>,
    config: &Path,
    state_dir: &Path,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(state_dir).with_context(|| format!("making {}", state_dir.display()))?;
    if let Some(before) = before.filter(|before| **before != grant.branch) {
        // What was seen in another branch is no word of this one.
        let buffer = state_dir.join("buffer");
        if buffer.exists() {
            std::fs::rename(&buffer, state_dir.join(format!("buffer.of-{before}"))).context("putting the old buffer aside")?;
        }
        let _ = std::fs::remove_file(state_dir.join("config.bin"));
    }
    keep(state_dir, grant, key)?;
    if let Some(folder) = config.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    write(config, agent_toml(code, grant, state_dir).as_bytes(), 0o644)
}

/// Writes authority, certificate and key into the state folder, for whoever owns that.
///
/// # Errors
/// When a file can't be written, with its path.
pub fn keep(state_dir: &Path, grant: &Grant, key: &Key) -> anyhow::Result<()> {
    let identity = format!(
        "{RENEW_AFTER}{}\n{}{}",
        grant.renew_after.0,
        pem("CERTIFICATE", &grant.certificate),
        pem("PRIVATE KEY", &key.pkcs8)
    );
    write(&authority_path(state_dir), pem("CERTIFICATE", &grant.authority).as_bytes(), 0o644)?;
    write(&identity_path(state_dir), identity.as_bytes(), 0o600)
}

/// From when on a new certificate is due, as the identity's file says.
pub fn renew_after(state_dir: &Path) -> Option<Millis> {
    let text = std::fs::read_to_string(identity_path(state_dir)).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(RENEW_AFTER))?;
    line.trim().parse().ok().map(Millis)
}

/// The payload of a config that the collector has signed for this branch.
///
/// # Errors
/// When it isn't signed, or not by this key for this branch.
pub fn open_config(key: &[u8; 32], branch: &BranchId, payload: &[u8]) -> anyhow::Result<Vec<u8>> {
    let sealed = decode::<Sealed>(payload).context("it isn't signed")?;
    let key = UnparsedPublicKey::new(&ED25519, key);
    let is_signed = key.verify(&signed_config(branch, &sealed.config), &sealed.signature).is_ok();
    anyhow::ensure!(is_signed, "it isn't signed by the collector for this branch");
    Ok(sealed.config)
}

/// 32 bytes that are written as 64 hexadecimal digits.
pub fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// Bytes as hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn agent_toml(code: &JoinCode, grant: &Grant, state_dir: &Path) -> String {
    let Grant { branch, broker_host, broker_port, config_key, .. } = grant;
    let (state, identity, authority) = (state_dir.display(), identity_path(state_dir), authority_path(state_dir));
    let (identity, authority) = (identity.display(), authority.display());
    format!(
        "# Written by ward-agent join. Every key: docs/config.md. Devices come from the collector.\n\
         branch = \"{branch}\"\nstate_dir = \"{state}\"\n\n\
         [broker]\nhost = \"{broker_host}\"\nport = {broker_port}\n\n\
         [broker.tls]\nca = \"{authority}\"\ncertificate = \"{identity}\"\nkey = \"{identity}\"\n\n\
         [enrolment]\nhost = \"{}\"\nport = {}\nconfig_key = \"{}\"\n",
        code.host,
        code.port,
        to_hex(config_key)
    )
}

/// Writes a file so that a power cut leaves the old one or the new one. It is whose its folder is.
///
/// # Errors
/// When it can't be written, with its path.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
    let what = || format!("writing {}", path.display());
    let fresh = path.with_extension("new");
    let _ = std::fs::remove_file(&fresh);
    let mut file = std::fs::File::options().write(true).create_new(true).mode(mode).open(&fresh).with_context(what)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    // A part of a file must not fill a card.
    written.inspect_err(|_| drop(std::fs::remove_file(&fresh))).with_context(what)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let owner = std::fs::metadata(folder).with_context(what)?;
    // Only root can, and only root has to: the agent owns its folder.
    let _ = std::os::unix::fs::chown(&fresh, Some(owner.uid()), Some(owner.gid()));
    std::fs::rename(&fresh, path).with_context(what)?;
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).with_context(what)
}

fn pem(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    // 48 bytes make a line of 64 characters.
    for line in der.chunks(48) {
        for three in line.chunks(3) {
            let at = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
            let bits = at(0) << 16 | at(1) << 8 | at(2);
            for digit in 0..4 {
                let is_there = digit <= three.len();
                text.push(if is_there { char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]) } else { '=' });
            }
        }
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use ring::signature::{ECDSA_P256_SHA256_ASN1, Ed25519KeyPair};
    use tokio_rustls::rustls::pki_types::CertificateDer;

    use super::*;

    fn grant(branch: &str) -> Grant {
        Grant {
            branch: branch.parse().expect("a valid id"),
            certificate: (0..=255).cycle().take(500).collect(),
            authority: vec![7; 301],
            renew_after: Millis(1_795_442_400_000),
            config_key: [0xab; 32],
            broker_host: "ward.example.bank".into(),
            broker_port: 8883,
        }
    }

    fn code() -> JoinCode {
        JoinCode { host: "ward.example.bank".into(), port: 8884, authority: [1; 16], secret: [2; 16] }
    }

    #[test]
    fn a_box_that_has_joined_has_a_good_config_and_a_key_of_its_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let (config, state) = (folder.path().join("etc/agent.toml"), folder.path().join("state"));
        let key = Key::make().expect("made");
        settle(&code(), &grant("vake"), &key, None, &config, &state).expect("written");
        let text = std::fs::read_to_string(&config).expect("there");
        let settings = crate::settings::Settings::parse("agent.toml", &text).expect("good");
        assert_eq!(settings.branch.as_str(), "vake");
        assert_eq!(settings.enrolment.map(|enrolment| enrolment.config_key), Some([0xab; 32]));
        assert!(!text.contains(&code().to_string()), "the code is spent, and nowhere kept");
        let identity = identity_path(&state);
        assert_eq!(std::fs::metadata(&identity).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(Key::from_file(&identity).expect("readable").public(), key.public());
        let shown = CertificateDer::from_pem_file(&identity).expect("readable");
        assert_eq!(shown.as_ref(), grant("vake").certificate, "base64 as others read it");
        assert_eq!(renew_after(&state), Some(Millis(1_795_442_400_000)));
    }

    #[test]
    fn what_was_seen_in_another_branch_is_put_aside() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("agent.toml");
        std::fs::create_dir(folder.path().join("buffer")).expect("made");
        std::fs::write(folder.path().join("config.bin"), "x").expect("written");
        let key = Key::make().expect("made");
        let old = "vake".parse().expect("a valid id");
        settle(&code(), &grant("vake"), &key, Some(&old), &config, folder.path()).expect("written");
        assert!(folder.path().join("buffer").exists() && folder.path().join("config.bin").exists(), "the same branch");
        settle(&code(), &grant("saburtalo"), &key, Some(&old), &config, folder.path()).expect("written");
        assert!(folder.path().join("buffer.of-vake").exists() && !folder.path().join("buffer").exists());
        assert!(!folder.path().join("config.bin").exists());
    }

    #[test]
    fn an_application_is_signed_by_the_new_key_and_a_renewal_by_the_old_one_too() {
        let (old, fresh) = (Key::make().expect("made"), Key::make().expect("made"));
        let verify = |key: Vec<u8>, application: &Application, signature: &[u8]| {
            let signed = Application::signed(&application.public_key, &application.claim);
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).verify(&signed, signature).is_ok()
        };
        let by_code = application(&fresh, Ok([3; 16])).expect("signed");
        assert!(verify(fresh.public(), &by_code, &by_code.signature));
        let renewal = application(&fresh, Err(&old)).expect("signed");
        assert!(verify(fresh.public(), &renewal, &renewal.signature));
        let Claim::Renewal { public_key, signature } = &renewal.claim else { panic!("a renewal") };
        assert!(verify(public_key.clone(), &renewal, signature) && *public_key == old.public());
        assert!(!verify(fresh.public(), &renewal, signature));
    }

    #[test]
    fn a_config_counts_only_as_the_collector_signed_it_for_this_branch() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).expect("a seed");
        let mut key = [0; 32];
        key.copy_from_slice(pair.public_key().as_ref());
        let (vake, other) = ("vake".parse().expect("a valid id"), "other".parse().expect("a valid id"));
        let seal = |branch: &BranchId, config: &[u8]| {
            let signature = pair.sign(&signed_config(branch, config)).as_ref().to_vec();
            encode(&Sealed { config: config.to_vec(), signature }).expect("small")
        };
        assert_eq!(open_config(&key, &vake, &seal(&vake, b"a config")).expect("good"), b"a config");
        let why = |payload: &[u8], key: &[u8; 32]| open_config(key, &vake, payload).expect_err("refused").to_string();
        assert_eq!(why(&seal(&other, b"a config"), &key), "it isn't signed by the collector for this branch");
        assert_eq!(why(&seal(&vake, b"a config"), &[1; 32]), "it isn't signed by the collector for this branch");
        let bare = shared::Config { version: 1, heartbeat_ms: 1_000, report_ms: 1_000, rules: Vec::new(), targets: Vec::new() };
        assert_eq!(why(&encode(&bare).expect("small"), &key), "it isn't signed");
    }

    #[test]
    fn hexadecimal_digits_are_read_as_written() {
        assert_eq!(from_hex(&to_hex(&[0x0f; 32])), Some([0x0f; 32]));
        assert_eq!(from_hex("0f"), None);
        assert_eq!(from_hex(&"é".repeat(32)), None);
        assert_eq!(from_hex(&"0g".repeat(32)), None);
    }
}

//! Who gets a certificate: whoever shows a code that counts, or a key that has one already.

use rand::RngCore;
use ring::digest::{SHA256, digest};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rusqlite::Connection;
use shared::enrolment::{Application, Claim, Decision, Grant, JoinCode, SECRET_BYTES};
use shared::update::Request;
use shared::{BranchId, Millis};

use super::authority::{Authority, COLLECTOR};
use crate::store::{self, CertificateRow, StoreError};

/// Length of a public key: an uncompressed point of P-256.
const PUBLIC_KEY_BYTES: usize = 65;

/// What every box is told, and how long its certificate counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// How boxes reach the collector and the broker.
    pub host: String,
    /// TCP port of the enrolment.
    pub port: u16,
    /// TCP port of the broker.
    pub broker_port: u16,
    /// How long a certificate counts, in ms.
    pub lifetime_ms: i64,
}

/// A new code for a branch, which forgets the ones before. Only its hash is kept.
///
/// # Errors
/// When the file can't be written.
pub fn new_code(
    db: &Connection,
    authority: &Authority,
    terms: &Terms,
    branch: &BranchId,
    now: Millis,
    for_ms: i64,
) -> Result<JoinCode, StoreError> {
    let mut secret = [0; SECRET_BYTES];
    rand::rng().fill_bytes(&mut secret);
    store::add_code(db, hash(&secret).as_ref(), branch, now, now.plus(for_ms))?;
    let authority = ward_agent::enrol::fingerprint(authority.certificate());
    Ok(JoinCode { host: terms.host.clone(), port: terms.port, authority, secret })
}

fn hash(secret: &[u8]) -> ring::digest::Digest {
    digest(&SHA256, secret)
}

/// Why a branch can't have a box, if so: the broker would take its name for the collector's.
pub fn reserved(branch: &BranchId) -> Option<&'static str> {
    (branch.as_str() == COLLECTOR).then_some("this name is the collector's own at the broker: give the branch another id")
}

/// Decides on an application. What is granted is in the file when the caller's transaction is.
///
/// # Errors
/// When the file can't be read or written, or a certificate can't be made.
pub fn decide(
    db: &Connection,
    authority: &Authority,
    terms: &Terms,
    application: &Application,
    now: Millis,
) -> Result<Decision, StoreError> {
    match branch_of(db, application, now)? {
        Err(why) => Ok(Decision::Refused(why.to_owned())),
        Ok(branch) => {
            let until = now.plus(terms.lifetime_ms);
            let made = authority.box_certificate(&branch, &application.public_key, now, until);
            let (certificate, row) = made.map_err(|error| StoreError::Content(format!("no certificate: {error:#}")))?;
            if matches!(application.claim, Claim::Code(_)) {
                // A branch has one box: what it had before speaks for nobody.
                store::revoke(db, &branch, now)?;
            }
            store::add_certificate(db, &row)?;
            Ok(Decision::Granted(Box::new(Grant {
                branch,
                certificate: certificate.to_vec(),
                authority: authority.certificate().to_vec(),
                renew_after: now.plus(terms.lifetime_ms / 3 * 2),
                config_key: authority.config_key(),
                broker_host: terms.host.clone(),
                broker_port: terms.broker_port,
            })))
        }
    }
}

/// The certificate of the box that makes a request, or why it is refused. Who has it may be [superseded](store::supersede) by it.
///
/// # Errors
/// When the file can't be read.
pub fn box_of(db: &Connection, request: &Request) -> Result<Result<CertificateRow, &'static str>, StoreError> {
    let Request { public_key, wish, signature } = request;
    let signed = Request::signed(public_key, wish);
    if UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public_key).verify(&signed, signature).is_err() {
        return Ok(Err("the request is not signed by its key"));
    }
    Ok(match store::certificate_of(db, public_key)? {
        None => Err("the certificate is not known here: join again by a code"),
        Some(row) if row.revoked.is_some() => Err("the certificate was revoked: join again by a code"),
        Some(row) => Ok(row),
    })
}

/// The branch that an application is for, or why it is refused. A code is used up by this.
fn branch_of(db: &Connection, application: &Application, now: Millis) -> Result<Result<BranchId, &'static str>, StoreError> {
    let Application { public_key, claim, signature } = application;
    let signed = Application::signed(public_key, claim);
    let verifies =
        |key: &[u8], signature: &[u8]| UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).verify(&signed, signature).is_ok();
    if public_key.len() != PUBLIC_KEY_BYTES || !verifies(public_key, signature) {
        return Ok(Err("the application is not signed by its key"));
    }
    let branch = match claim {
        Claim::Code(secret) => {
            let hash = hash(secret);
            let Some(code) = store::code(db, hash.as_ref())? else {
                return Ok(Err("the code is not known: it was replaced by a newer one, or its branch was revoked"));
            };
            // Whose answer was lost on the way comes again with the same key.
            if code.used_by.is_some_and(|by| by != *public_key) {
                return Ok(Err("the code was used before: ask for a new one"));
            }
            if now >= code.expires {
                return Ok(Err("the code is too old: ask for a new one"));
            }
            store::use_code(db, hash.as_ref(), public_key, now)?;
            code.branch
        }
        Claim::Renewal { public_key: before, signature } => {
            let Some(row) = store::certificate_of(db, before)? else {
                return Ok(Err("the certificate is not known here: join again by a code"));
            };
            if row.revoked.is_some() {
                return Ok(Err("the certificate was revoked: join again by a code"));
            }
            if !verifies(before, signature) {
                return Ok(Err("the renewal is not signed by the key of the certificate"));
            }
            // The answer may be lost on the way: only what lies before the key that is shown is over.
            store::supersede(db, &row, now)?;
            row.branch.to_string()
        }
    };
    if !store::has_branch(db, &branch)? {
        return Ok(Err("the inventory has no such branch any more"));
    }
    Ok(branch.parse().map_err(|_| "the branch has no id that can be used"))
}

#[cfg(test)]
mod tests {
    use ward_agent::enrol::{Key, application};

    use super::*;
    use crate::store::Store;

    const NOW: Millis = Millis(1_795_442_400_000);
    const MINUTE: i64 = 60_000;
    const DAY: i64 = 86_400_000;

    struct Office {
        _folder: tempfile::TempDir,
        store: Store,
        authority: Authority,
        terms: Terms,
    }

    impl Office {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let mut store = Store::open(folder.path()).expect("made");
            let csv = "device_id,device_name,branch,branch_name,region,region_name,device_type,ip\n\
                       v-1,V,vake,Vake,t,T,atm,127.0.0.2\ng-1,G,gori,Gori,t,T,atm,127.0.0.2\n";
            let inventory = crate::inventory::parse_csv("estate.csv", csv).expect("good");
            store.transaction(|db| store::import(db, &inventory)).expect("imported");
            let authority = Authority::open(folder.path(), NOW).expect("made");
            let terms = Terms { host: "ward.example.bank".into(), port: 8884, broker_port: 8883, lifetime_ms: 90 * DAY };
            Self { _folder: folder, store, authority, terms }
        }

        fn code(&mut self, branch: &str) -> JoinCode {
            let branch = branch.parse().expect("a valid id");
            let Self { store, authority, terms, .. } = self;
            store.transaction(|db| new_code(db, authority, terms, &branch, NOW, 60 * MINUTE)).expect("written")
        }

        fn decide(&mut self, application: &Application, now: Millis) -> Result<Grant, String> {
            let Self { store, authority, terms, .. } = self;
            match store.transaction(|db| decide(db, authority, terms, application, now)).expect("decided") {
                Decision::Granted(grant) => Ok(*grant),
                Decision::Refused(why) => Err(why),
            }
        }

        fn revoked(&self) -> Vec<String> {
            let all = store::revoked_branches(self.store.connection()).expect("read");
            all.into_iter().map(String::from).collect()
        }
    }

    fn by_code(key: &Key, code: &JoinCode) -> Application {
        application(key, Ok(code.secret)).expect("signed")
    }

    #[test]
    fn a_code_works_once_and_for_the_same_key_again() {
        let mut office = Office::new();
        let code = office.code("vake");
        let (first, second) = (Key::make().expect("made"), Key::make().expect("made"));
        let grant = office.decide(&by_code(&first, &code), NOW.plus(MINUTE)).expect("granted");
        assert_eq!((grant.branch.as_str(), grant.renew_after), ("vake", NOW.plus(MINUTE + 60 * DAY)));
        assert_eq!(
            office.decide(&by_code(&second, &code), NOW.plus(MINUTE)),
            Err("the code was used before: ask for a new one".into())
        );
        assert!(office.decide(&by_code(&first, &code), NOW.plus(2 * MINUTE)).is_ok(), "the answer was lost on the way");
        assert_eq!(
            office.decide(&by_code(&first, &code), NOW.plus(60 * MINUTE)),
            Err("the code is too old: ask for a new one".into())
        );
    }

    #[test]
    fn a_code_is_replaced_by_the_next_and_kept_as_a_hash_only() {
        let mut office = Office::new();
        let (old, new) = (office.code("vake"), office.code("vake"));
        let key = Key::make().expect("made");
        assert!(office.decide(&by_code(&key, &old), NOW).is_err_and(|why| why.starts_with("the code is not known")));
        assert!(office.decide(&by_code(&key, &new), NOW).is_ok());
        let hashes: Vec<u8> =
            office.store.connection().query_row("select hash from join_code", [], |row| row.get(0)).expect("one");
        assert_ne!(hashes, new.secret);
    }

    #[test]
    fn a_renewal_takes_the_old_key_and_a_branch_that_was_not_revoked() {
        let mut office = Office::new();
        let code = office.code("vake");
        let (old, fresh, thief) = (Key::make().expect("made"), Key::make().expect("made"), Key::make().expect("made"));
        office.decide(&by_code(&old, &code), NOW).expect("granted");
        // Long after it is over, too: a box may lie in a drawer.
        let renewal = application(&fresh, Err(&old)).expect("signed");
        assert_eq!(office.decide(&renewal, NOW.plus(200 * DAY)).map(|grant| grant.branch.to_string()), Ok("vake".into()));
        let unknown = application(&fresh, Err(&thief)).expect("signed");
        assert!(office.decide(&unknown, NOW).is_err_and(|why| why.starts_with("the certificate is not known")));
        let mut forged = application(&thief, Err(&thief)).expect("signed");
        if let Claim::Renewal { public_key, .. } = &mut forged.claim {
            *public_key = old.public();
        }
        assert!(office.decide(&forged, NOW).is_err(), "who has seen the public key doesn't hold the key");
        assert!(office.revoked().is_empty());
        let vake = "vake".parse().expect("a valid id");
        office.store.transaction(|db| store::revoke(db, &vake, NOW)).expect("written");
        assert_eq!(office.revoked(), ["vake"]);
        assert!(office.decide(&renewal, NOW).is_err_and(|why| why.starts_with("the certificate was revoked")));
        // A new code opens the branch again.
        let code = office.code("vake");
        office.decide(&by_code(&thief, &code), NOW).expect("granted");
        assert!(office.revoked().is_empty());
    }

    #[test]
    fn a_code_that_was_used_opens_no_branch_that_was_revoked_since_or_has_a_newer_code() {
        let mut office = Office::new();
        let (code, key) = (office.code("vake"), Key::make().expect("made"));
        office.decide(&by_code(&key, &code), NOW).expect("granted");
        let vake: BranchId = "vake".parse().expect("a valid id");
        let revoked = office.store.transaction(|db| {
            store::drop_codes(db, &vake)?;
            store::revoke(db, &vake, NOW)
        });
        assert_eq!(revoked.expect("written"), 1);
        let replayed = office.decide(&by_code(&key, &code), NOW.plus(MINUTE));
        assert!(replayed.is_err_and(|why| why.starts_with("the code is not known")));
        assert_eq!(office.revoked(), ["vake"]);
        let used = office.code("gori");
        office.decide(&by_code(&key, &used), NOW).expect("granted");
        office.code("gori");
        assert!(office.decide(&by_code(&key, &used), NOW).is_err(), "a newer one takes the place of one that was used, too");
    }

    #[test]
    fn a_former_key_counts_until_the_next_one_is_shown() {
        let mut office = Office::new();
        let [first, lost, second, third] = [(); 4].map(|()| Key::make().expect("made"));
        let code = office.code("vake");
        office.decide(&by_code(&first, &code), NOW).expect("granted");
        let renewal = |fresh: &Key, before: &Key| application(fresh, Err(before)).expect("signed");
        office.decide(&renewal(&lost, &first), NOW.plus(60 * DAY)).expect("granted");
        office.decide(&renewal(&second, &first), NOW.plus(61 * DAY)).expect("the answer before was lost on the way");
        let request = second.request(shared::update::Wish::Heard { stream: shared::StreamId(1) }).expect("signed");
        let shown = box_of(office.store.connection(), &request).expect("read").expect("a certificate that counts");
        assert!(store::has_superseded(office.store.connection(), &shown).expect("read"));
        let superseded = office.store.transaction(|db| store::supersede(db, &shown, NOW.plus(61 * DAY)));
        assert_eq!(superseded.expect("written"), 2);
        for over in [&first, &lost] {
            let why = office.decide(&renewal(&third, over), NOW.plus(62 * DAY)).expect_err("refused");
            assert!(why.starts_with("the certificate was revoked"), "{why}");
        }
        assert!(office.revoked().is_empty(), "the branch isn't");
        // A renewal shows the key as well.
        office.decide(&renewal(&third, &second), NOW.plus(121 * DAY)).expect("granted");
        office.decide(&renewal(&first, &third), NOW.plus(181 * DAY)).expect("granted");
        assert!(office.decide(&renewal(&lost, &second), NOW.plus(182 * DAY)).is_err());
    }

    #[test]
    fn joining_takes_the_former_boxs_certificate_back() {
        let mut office = Office::new();
        let (old, fresh) = (Key::make().expect("made"), Key::make().expect("made"));
        let code = office.code("vake");
        office.decide(&by_code(&old, &code), NOW).expect("granted");
        let code = office.code("vake");
        office.decide(&by_code(&fresh, &code), NOW).expect("granted");
        let rows = store::certificates(office.store.connection()).expect("read");
        let revoked: Vec<bool> = rows.iter().map(|row| row.revoked.is_some() == (row.public_key == old.public())).collect();
        assert_eq!(revoked, [true, true]);
        let list = office.authority.revoked(&rows, NOW).expect("made");
        assert!(list.starts_with("-----BEGIN X509 CRL-----"));
    }

    #[test]
    fn garbage_gets_no_certificate() {
        let mut office = Office::new();
        let code = office.code("vake");
        let key = Key::make().expect("made");
        let good = by_code(&key, &code);
        for bad in [
            Application { public_key: Vec::new(), ..good.clone() },
            Application { signature: Vec::new(), ..good.clone() },
            Application { public_key: vec![4; 65], ..good.clone() },
            Application { claim: Claim::Code([0; 16]), ..good.clone() },
        ] {
            assert!(office.decide(&bad, NOW).is_err());
        }
        assert!(office.decide(&good, NOW).is_ok(), "what was refused has used nothing up");
        assert!(reserved(&"collector".parse().expect("a valid id")).is_some());
    }
}

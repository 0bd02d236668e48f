//! Secrets: made at random, known by digests, and passwords hashed so that trying many takes long.

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use rand::distr::{Alphanumeric, SampleString};
use ring::digest;

use crate::accounts::Digest;

/// Characters of a secret: 190 bits.
const SECRET_CHARACTERS: usize = 32;
/// Characters of the first admin's code, which somebody may have to type: 59 bits, for some tries.
const CODE_CHARACTERS: usize = 10;
/// Memory in KiB, passes and lanes of a password's hash: what OWASP names least for argon2id.
const COST: (u32, u32, u32) = (19 * 1024, 2, 1);
/// Bytes of a salt.
const SALT_BYTES: usize = 16;

/// A secret that nobody can guess.
pub fn random() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), SECRET_CHARACTERS)
}

/// A code that is typed once.
pub fn random_code() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), CODE_CHARACTERS)
}

/// What a secret is known by. Secrets are random, so a fast digest gives nothing away.
pub fn digest(secret: &str) -> Digest {
    let mut out = Digest::default();
    out.copy_from_slice(digest::digest(&digest::SHA256, secret.as_bytes()).as_ref());
    out
}

/// What a page has to show beside a cookie: another site can send the cookie, and can't know this.
pub fn csrf(cookie: &Digest) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"ward csrf");
    context.update(cookie);
    ward_agent::enrol::to_hex(&context.finish().as_ref()[..16])
}

/// Whether two texts are the same, in a time that doesn't tell how much of them is.
pub fn same(a: &str, b: &str) -> bool {
    digest(a) == digest(b)
}

fn hasher() -> Argon2<'static> {
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, None).expect("these are within argon2's bounds");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// The hash of a password, with salt and cost. Takes 20 ms or so.
pub fn hash(password: &str) -> String {
    let salt = SaltString::encode_b64(&rand::random::<[u8; SALT_BYTES]>()).expect("16 bytes are a salt");
    hasher().hash_password(password.as_bytes(), &salt).expect("a password within its limits can be hashed").to_string()
}

/// Whether a password has this hash. As long for a hash that can't be read.
pub fn fits(password: &str, hash: &str) -> bool {
    match PasswordHash::new(hash) {
        Ok(known) => hasher().verify_password(password.as_bytes(), &known).is_ok(),
        Err(_) => {
            // So nobody learns by the time it takes which users there are.
            self::hash(password);
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_fits_and_two_hashes_of_it_differ() {
        let (one, other) = (hash("correct horse"), hash("correct horse"));
        assert_ne!(one, other);
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
        assert!(fits("correct horse", &one) && fits("correct horse", &other));
        for wrong in ["", "correct hors", "correct horse ", "Correct horse"] {
            assert!(!fits(wrong, &one), "{wrong:?}");
        }
        assert!(!fits("correct horse", "") && !fits("correct horse", "$argon2id$nonsense"));
    }

    #[test]
    fn secrets_differ_and_are_known_by_their_digests() {
        let (one, other) = (random(), random());
        assert_ne!(one, other);
        assert!(same(&one, &one.clone()) && !same(&one, &other) && !same(&one, ""));
        // FIPS 180-2, B.1.
        assert_eq!(digest("abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_ne!(csrf(&digest(&one)), csrf(&digest(&other)));
        assert_eq!(csrf(&digest(&one)).len(), 32);
    }
}

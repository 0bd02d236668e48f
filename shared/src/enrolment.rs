//! Enrolment: how a box gets its certificate, and the code that a technician types for it.
//!
//! The code names the collector and the fingerprint of its authority, so that a box trusts nobody at first sight, and a
//! secret that works once.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{BranchId, Millis};

/// Bytes of a code's secret, and of the authority's fingerprint in it: nobody finds either by trying.
pub const SECRET_BYTES: usize = 16;
/// Bytes of the code that notice a slip of the pen.
const CHECK_BYTES: usize = 3;
const CODE_BYTES: usize = 2 * SECRET_BYTES + CHECK_BYTES;
/// Letters and digits that this makes.
const DIGITS: usize = CODE_BYTES * 8 / 5;
/// Letters and digits that nobody mistakes for one another.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Characters between two dashes.
const GROUP: usize = 4;
/// Longest host name in a code.
const HOST_LIMIT: usize = 253;

/// What is signed by the key that a box shows, before the rest.
const APPLICATION_CONTEXT: &[u8] = b"ward enrolment 1\0";
/// What is signed by the collector's config key, before the rest.
const CONFIG_CONTEXT: &[u8] = b"ward config 1\0";

/// What a technician types on a box.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinCode {
    /// Where the collector can be reached.
    pub host: String,
    /// At which TCP port.
    pub port: u16,
    /// The beginning of the SHA-256 of the authority's certificate.
    pub authority: [u8; SECRET_BYTES],
    /// Works once.
    pub secret: [u8; SECRET_BYTES],
}

// Logs show neither secret nor fingerprint.
impl fmt::Debug for JoinCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinCode({}:{})", self.host, self.port)
    }
}

/// Why a text is not a join code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// It doesn't begin with where the collector is.
    #[error("a join code begins with HOST:PORT/")]
    Address,
    /// It has more or fewer characters than a code.
    #[error("a join code has {DIGITS} letters and digits after the slash, this has {0}")]
    Length(usize),
    /// It has a character that no code has.
    #[error("a join code has no {0:?}")]
    Character(char),
    /// A character is another than it was.
    #[error("a character of the join code is wrong")]
    Mistyped,
}

impl fmt::Display for JoinCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [self.authority, self.secret].concat();
        bytes.extend(check(&self.host, self.port, &bytes));
        write!(f, "{}:{}/", self.host, self.port)?;
        for at in 0..DIGITS {
            if at > 0 && at % GROUP == 0 {
                f.write_str("-")?;
            }
            let bit = |bit: usize| bytes.get(bit / 8).map_or(0, |byte| usize::from(byte >> (7 - bit % 8) & 1));
            let digit = (at * 5..at * 5 + 5).fold(0, |digit, at| digit << 1 | bit(at));
            write!(f, "{}", char::from(ALPHABET[digit]))?;
        }
        Ok(())
    }
}

impl FromStr for JoinCode {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        let (address, digits) = text.trim().split_once('/').ok_or(CodeError::Address)?;
        let (host, port) = address.rsplit_once(':').ok_or(CodeError::Address)?;
        let port = port.parse().map_err(|_| CodeError::Address)?;
        if host.is_empty() || host.len() > HOST_LIMIT || port == 0 {
            return Err(CodeError::Address);
        }
        let mut bits = Vec::new();
        for character in digits.chars().filter(|c| !"- ".contains(*c)) {
            let digit = ALPHABET.iter().position(|known| char::from(*known) == character.to_ascii_uppercase());
            let digit = digit.ok_or(CodeError::Character(character))?;
            bits.extend((0..5).rev().map(|bit| u8::from(digit >> bit & 1 == 1)));
        }
        if bits.len() != CODE_BYTES * 8 {
            return Err(CodeError::Length(bits.len() / 5));
        }
        let bytes: Vec<u8> = bits.chunks(8).map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | bit)).collect();
        let (said, checked) = bytes.split_at(2 * SECRET_BYTES);
        if check(host, port, said) != checked {
            return Err(CodeError::Mistyped);
        }
        let (mut authority, mut secret) = ([0; SECRET_BYTES], [0; SECRET_BYTES]);
        authority.copy_from_slice(&said[..SECRET_BYTES]);
        secret.copy_from_slice(&said[SECRET_BYTES..]);
        Ok(Self { host: host.to_owned(), port, authority, secret })
    }
}

fn check(host: &str, port: u16, bytes: &[u8]) -> Vec<u8> {
    let all = [host.as_bytes(), &port.to_be_bytes(), bytes].concat();
    crc32fast::hash(&all).to_be_bytes()[..CHECK_BYTES].to_vec()
}

/// Over TLS, box to collector: a wish for a certificate.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    /// The public key that the box has made, an uncompressed point of P-256.
    pub public_key: Vec<u8>,
    /// Why the collector should say yes.
    pub claim: Claim,
    /// By the key itself, over [`Application::signed`]: whoever applies holds the key.
    pub signature: Vec<u8>,
}

/// Why a box should have a certificate.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Claim {
    /// A technician has typed a code's secret.
    Code([u8; SECRET_BYTES]),
    /// The box had a certificate before.
    Renewal {
        /// The public key of that certificate.
        public_key: Vec<u8>,
        /// By the key of that certificate, over the same.
        signature: Vec<u8>,
    },
}

impl Application {
    /// What the signatures of an application are made over: the new key, and the secret or the old key.
    pub fn signed(public_key: &[u8], claim: &Claim) -> Vec<u8> {
        let (kind, shown): (u8, &[u8]) = match claim {
            Claim::Code(secret) => (0, secret),
            Claim::Renewal { public_key, .. } => (1, public_key),
        };
        let length = u8::try_from(public_key.len()).unwrap_or(u8::MAX);
        [APPLICATION_CONTEXT, &[kind, length], public_key, shown].concat()
    }
}

/// Over TLS, collector to box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// Here it is.
    Granted(Box<Grant>),
    /// No, and why.
    Refused(String),
}

/// What a box needs to speak for its branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The branch that it stands in.
    pub branch: BranchId,
    /// Its certificate, DER.
    pub certificate: Vec<u8>,
    /// The authority's certificate, DER.
    pub authority: Vec<u8>,
    /// When to ask for the next certificate.
    pub renew_after: Millis,
    /// What configs are signed by: a public key of Ed25519.
    pub config_key: [u8; 32],
    /// The broker.
    pub broker_host: String,
    /// Its TCP port.
    pub broker_port: u16,
}

/// What the signature of a branch's config is made over. One that is signed for a branch is no other branch's.
pub fn signed_config(branch: &BranchId, payload: &[u8]) -> Vec<u8> {
    [CONFIG_CONTEXT, branch.as_str().as_bytes(), b"\0", payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code() -> JoinCode {
        JoinCode { host: "ward.example.bank".into(), port: 8884, authority: [0xa5; 16], secret: *b"sixteen bytes ok" }
    }

    #[test]
    fn a_code_survives_paper_and_a_slip_of_the_pen_is_noticed() {
        let text = code().to_string();
        assert_eq!(text.parse(), Ok(code()));
        assert_eq!(text.to_lowercase().replace('-', " ").parse(), Ok(code()), "as somebody types it");
        assert_eq!(text.split_once('/').map(|(_, digits)| digits.replace('-', "").len()), Some(56));
        let at = text.find('/').expect("a slash") + 1;
        for at in (at..text.len()).filter(|at| text.as_bytes()[*at] != b'-') {
            let mut bent = text.clone().into_bytes();
            bent[at] = if bent[at] == b'7' { b'8' } else { b'7' };
            let bent = String::from_utf8(bent).expect("ASCII");
            assert_eq!(bent.parse::<JoinCode>(), Err(CodeError::Mistyped), "{bent}");
        }
        assert_eq!(text.replace("8884", "8885").parse::<JoinCode>(), Err(CodeError::Mistyped));
        assert_eq!(text[..text.len() - 1].parse::<JoinCode>(), Err(CodeError::Length(55)));
        assert_eq!(text.replacen('-', "U", 1).parse::<JoinCode>(), Err(CodeError::Character('U')));
        assert_eq!("ABCD".parse::<JoinCode>(), Err(CodeError::Address));
        assert_eq!(":1/ABCD".parse::<JoinCode>(), Err(CodeError::Address));
        assert_eq!("host:0/ABCD".parse::<JoinCode>(), Err(CodeError::Address));
        assert!(!format!("{:?}", code()).contains("sixteen"), "a log shows no secret");
    }

    #[test]
    fn no_two_claims_are_signed_alike() {
        let key = vec![4; 65];
        let by_code = Application::signed(&key, &Claim::Code([1; 16]));
        let renewal = |old: &[u8]| Claim::Renewal { public_key: old.to_vec(), signature: Vec::new() };
        assert_ne!(by_code, Application::signed(&key, &renewal(&[1; 16])));
        assert_ne!(Application::signed(&key[..64], &renewal(&key)), Application::signed(&key, &renewal(&key[..64])));
    }
}

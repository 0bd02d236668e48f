//! Updates: builds of the agent that the collector offers, how a box fetches one, and what it says of itself.

use serde::{Deserialize, Serialize};

use crate::{Millis, StreamId};

/// Most bytes of a build.
pub const BUILD_LIMIT_BYTES: usize = 16 * 1024 * 1024;
/// Most bytes of one part of it: on 64 kbit/s some four seconds, and a failure that is told meanwhile waits that long.
pub const PART_BYTES: usize = 32 * 1024;
/// Most offers in one message: one for each kind of machine.
pub const OFFERS_LIMIT: usize = 8;
/// Longest reason, in bytes.
pub const WHY_LIMIT_BYTES: usize = 300;
/// The machine of a build that runs on any: a script.
pub const ANY_MACHINE: &str = "any";

/// What is signed by the collector's config key, before the rest.
const BUILD_CONTEXT: &[u8] = b"ward build 1\0";
/// What is signed by a box's key, before the rest.
const REQUEST_CONTEXT: &[u8] = b"ward request 1\0";

/// The SHA-256 of a program.
pub type Build = [u8; 32];

/// A build as people name it: the first half of a dozen of its bytes.
pub fn short(build: &Build) -> String {
    build[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A build that boxes of one kind of machine are to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The machine that it runs on, as Rust names it: `aarch64`, `arm`, `x86_64`, or [`ANY_MACHINE`].
    pub machine: String,
    /// Its SHA-256.
    pub build: Build,
    /// Its bytes.
    pub size: u32,
    /// When it was staged. A box takes none that was staged before the one it runs.
    pub staged: Millis,
    /// By Ed25519, with the key that signs configs, over [`Offer::signed`].
    pub signature: Vec<u8>,
}

impl Offer {
    /// What the signature is made over.
    pub fn signed(&self) -> Vec<u8> {
        let Self { machine, build, size, staged, signature: _ } = self;
        [BUILD_CONTEXT, machine.as_bytes(), b"\0", build, &size.to_be_bytes(), &staged.0.to_be_bytes()].concat()
    }

    /// Whether it is for machines of this kind.
    pub fn is_for(&self, machine: &str) -> bool {
        self.machine == machine || self.machine == ANY_MACHINE
    }
}

/// What a box runs, and how far it is with what it was offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its kind of machine.
    pub machine: String,
    /// The program that runs.
    pub build: Build,
    /// That program's own version.
    pub version: String,
    /// The build that it was offered, if one is for its kind of machine.
    pub offered: Option<Build>,
    /// How far it is with that.
    pub stage: Stage,
}

/// How far a box is with a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// It runs what it was offered, or was offered nothing that is for its kind of machine.
    InForce,
    /// It gets the build.
    Fetching {
        /// Bytes that it has.
        have: u32,
    },
    /// The build runs beside the present program and reports nothing.
    Shadow,
    /// It can't be said whether the build is good: it is tried again.
    Waiting {
        /// Why.
        why: String,
    },
    /// The build runs in the present program's place, which watches it.
    Trial,
    /// The build is bad, and the program before it runs.
    Refused {
        /// Why.
        why: String,
    },
}

/// A reason that is short enough to send.
pub fn cut(mut why: String) -> String {
    let end = (0..=why.len().min(WHY_LIMIT_BYTES)).rev().find(|at| why.is_char_boundary(*at));
    why.truncate(end.unwrap_or(0));
    why
}

/// Over TLS, box to collector: a wish of a box that has a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The public key of its certificate.
    pub public_key: Vec<u8>,
    /// What it wants.
    pub wish: Wish,
    /// By that key, over [`Request::signed`].
    pub signature: Vec<u8>,
}

/// What a box may want.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wish {
    /// A part of a build.
    Part {
        /// The build.
        build: Build,
        /// The first byte.
        from: u32,
    },
    /// To know whether a run of its agent is heard.
    Heard {
        /// The run.
        stream: StreamId,
    },
}

impl Request {
    /// What the signature is made over.
    pub fn signed(public_key: &[u8], wish: &Wish) -> Vec<u8> {
        let length = u8::try_from(public_key.len()).unwrap_or(u8::MAX);
        let told = match wish {
            Wish::Part { build, from } => [&[0], &build[..], &from.to_be_bytes()].concat(),
            Wish::Heard { stream } => [&[1][..], &stream.0.to_be_bytes()].concat(),
        };
        [REQUEST_CONTEXT, &[length], public_key, &told].concat()
    }
}

/// Over TLS, collector to box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// A part of the build, at most [`PART_BYTES`]; nothing where it is over.
    Part(Vec<u8>),
    /// What is known of the run that was asked for.
    Heard(Hearing),
    /// No, and why.
    Refused(String),
}

/// What the collector knows of a run of a box's agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hearing {
    /// It is heard: something of it is durable.
    Speaks {
        /// How long ago it spoke last, in ms.
        ago_ms: u64,
        /// For how long it may say nothing, in ms.
        within_ms: u64,
    },
    /// Nothing was heard of it, or another run speaks for the branch.
    Nothing,
    /// The collector can't hear anybody, or can't write down what it hears: that says nothing of the box.
    CannotSay,
}

impl Hearing {
    /// Whether it speaks now. None where nobody can say.
    pub fn is_heard(self) -> Option<bool> {
        match self {
            Self::Speaks { ago_ms, within_ms } => Some(ago_ms <= within_ms),
            Self::Nothing => Some(false),
            Self::CannotSay => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_offers_and_no_two_requests_are_signed_alike() {
        let offer =
            Offer { machine: "arm".into(), build: [1; 32], size: 9, staged: Millis(1_795_442_400_000), signature: Vec::new() };
        for other in [
            Offer { machine: "aarch64".into(), ..offer.clone() },
            Offer { build: [2; 32], ..offer.clone() },
            Offer { size: 8, ..offer.clone() },
            Offer { staged: Millis(1), ..offer.clone() },
        ] {
            assert_ne!(offer.signed(), other.signed());
        }
        assert_eq!(offer.signed(), Offer { signature: vec![1], ..offer.clone() }.signed());
        let part = |from| Request::signed(&[4; 65], &Wish::Part { build: [1; 32], from });
        assert_ne!(part(0), part(1));
        let heard = |key, stream| Request::signed(&[key; 65], &Wish::Heard { stream: StreamId(stream) });
        assert_ne!(heard(4, 1), heard(5, 1));
        assert_ne!(heard(4, 1), heard(4, 2));
        assert!(offer.is_for("arm") && !offer.is_for("aarch64"));
        assert!(Offer { machine: ANY_MACHINE.into(), ..offer }.is_for("x86_64"));
    }

    #[test]
    fn a_reason_is_cut_between_two_letters() {
        assert_eq!(cut("short".into()), "short");
        assert_eq!(cut("ვ".repeat(200)), "ვ".repeat(100));
    }
}

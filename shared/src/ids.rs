//! Names of things: what an inventory calls them, and what a boot or a run is told apart by.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest id in bytes: a topic, a label and a file name all hold it.
pub const ID_LIMIT_BYTES: usize = 64;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing is written where an id belongs.
    #[error("an id can't be empty")]
    Empty,
    /// The text is longer than [`ID_LIMIT_BYTES`].
    #[error("an id has at most {ID_LIMIT_BYTES} characters, this has {0}")]
    TooLong(usize),
    /// The text has a character that a topic, a label or a URL would misread.
    #[error("an id is made of a-z, A-Z, 0-9, '.', '_' and '-', not {0:?}")]
    Character(char),
}

fn check(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if let Some(other) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || "._-".contains(*c))) {
        return Err(IdError::Character(other));
    }
    if text.len() > ID_LIMIT_BYTES {
        return Err(IdError::TooLong(text.len()));
    }
    Ok(())
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The id as it is written in an inventory.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// A device, unique in the whole estate.
    DeviceId
}
text_id! {
    /// A branch: the place that one agent stands in.
    BranchId
}

/// One run of an agent: from the start of its process to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamId(pub u64);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One boot of an agent's machine, as the kernel names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BootId(pub u128);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_a_topic_or_a_label_would_misread_is_refused() {
        assert_eq!("vake-router-1".parse::<DeviceId>().map(String::from), Ok("vake-router-1".into()));
        assert_eq!("".parse::<DeviceId>(), Err(IdError::Empty));
        for bad in ["a/b", "a+", "#", "a b", "ვაკე", "a\"", "a\n"] {
            assert!(matches!(bad.parse::<BranchId>(), Err(IdError::Character(_))), "{bad:?}");
        }
        assert_eq!("a".repeat(65).parse::<BranchId>(), Err(IdError::TooLong(65)));
        assert!("a".repeat(64).parse::<BranchId>().is_ok());
    }
}

//! The keys of one publish.

use std::borrow::Cow;
use std::fmt;

use indexmap::IndexSet;

use crate::config::HubConfig;

/// The keys of one publish: at least one, none empty, none twice, in the order they first came, all
/// within the limits. That they are is checked here and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys<'a>(IndexSet<Cow<'a, str>>);

/// Why a list is not the keys of a publish. Positions count from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidKeys {
    /// There is none.
    Missing,
    /// There are `count`, and `max` are allowed.
    TooMany {
        /// How many there are.
        count: usize,
        /// How many are allowed.
        max: usize,
    },
    /// The key at `position` is the empty string.
    Empty {
        /// Which one.
        position: usize,
    },
    /// The key at `position` has `len` bytes, and `max` are allowed.
    TooLong {
        /// Which one.
        position: usize,
        /// Its length.
        len: usize,
        /// The allowed length.
        max: usize,
    },
}

// ===== impl Keys =====

impl<'a> Keys<'a> {
    /// Checks the keys against the limits and drops repetitions.
    ///
    /// # Errors
    /// Says which limit was broken, where, and what is allowed. The count includes repetitions.
    pub fn new<K: Into<Cow<'a, str>>>(
        keys: impl IntoIterator<Item = K>,
        limits: &HubConfig,
    ) -> Result<Self, InvalidKeys> {
        let mut set = IndexSet::new();
        let mut count = 0;
        for key in keys {
            let key = key.into();
            let (position, len, max) = (count, key.len(), limits.key_bytes_max);
            count += 1;
            if key.is_empty() {
                return Err(InvalidKeys::Empty { position });
            }
            if len > max {
                return Err(InvalidKeys::TooLong { position, len, max });
            }
            if count <= limits.keys_max {
                set.insert(key);
            }
        }
        match count {
            0 => Err(InvalidKeys::Missing),
            _ if count > limits.keys_max => {
                Err(InvalidKeys::TooMany { count, max: limits.keys_max })
            }
            _ => Ok(Self(set)),
        }
    }

    /// The keys in their order.
    pub fn iter(&self) -> impl Iterator<Item = &str> + Clone {
        self.0.iter().map(AsRef::as_ref)
    }
}

// ===== impl InvalidKeys =====

impl fmt::Display for InvalidKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there is no key; at least one is needed"),
            Self::TooMany { count, max } => {
                write!(f, "there are {count} keys; at most {max} are allowed in one publish")
            }
            Self::Empty { position } => {
                write!(f, "key {position} is empty; a key has at least one byte")
            }
            Self::TooLong { position, len, max } => {
                write!(f, "key {position} has {len} bytes; at most {max} are allowed")
            }
        }
    }
}

impl std::error::Error for InvalidKeys {}

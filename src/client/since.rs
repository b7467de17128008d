//! Where a stream of a topic begins.

use std::fmt;
use std::str::FromStr;

use crate::ids::EventId;

/// Where a stream of a topic begins that resumes after no event: the value of `since`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Since {
    /// With all that is kept.
    #[default]
    All,
    /// With what is published from now on.
    Now,
    /// Behind this event, if what is kept covers it, and else with all that is kept.
    Event(EventId),
    /// With what was published at this time or later, in milliseconds since 1970.
    Time(u64),
}

/// A text is not a [`Since`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidSince;

// ===== impl Since =====

impl FromStr for Since {
    type Err = InvalidSince;

    fn from_str(text: &str) -> Result<Self, InvalidSince> {
        match text {
            "all" => Ok(Self::All),
            "now" => Ok(Self::Now),
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map(Self::Time).map_err(|_| InvalidSince)
            }
            id => id.parse().map(Self::Event).map_err(|_| InvalidSince),
        }
    }
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Now => f.write_str("now"),
            Self::Event(id) => id.fmt(f),
            Self::Time(millis) => millis.fmt(f),
        }
    }
}

// ===== impl InvalidSince =====

impl fmt::Display for InvalidSince {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "allowed are all, now, the id of an event, or a time in milliseconds since 1970",
        )
    }
}

impl std::error::Error for InvalidSince {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_begin_is_a_word_an_id_or_a_time() {
        for good in ["all", "now", "0", "1795876200000", "00000000000000ff-12"] {
            assert_eq!(good.parse::<Since>().map(|since| since.to_string()), Ok(good.to_owned()));
        }
        assert_eq!("7".parse(), Ok(Since::Time(7)));
        for bad in ["", "All", "-1", "1.5", "+1", " 1", "ff-12", "99999999999999999999", "5m"] {
            assert_eq!(bad.parse::<Since>(), Err(InvalidSince), "{bad:?}");
        }
    }
}

//! Values as they are written on the command line.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::RangedU64ValueParser;
use nudged::ids::{InvalidOrgName, OrgName};

/// A time as it is written on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HumanDuration(pub(super) Duration);

/// An entry of `--public-orgs`.
#[derive(Clone, Debug)]
pub(super) enum PublicOrg {
    All,
    One(OrgName),
}

/// Format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For humans
    Text,
    /// One object per line
    Json,
}

// ===== impl HumanDuration =====

impl HumanDuration {
    pub(super) fn millis(self) -> u32 {
        u32::try_from(self.0.as_millis()).unwrap_or(u32::MAX)
    }
}

impl FromStr for HumanDuration {
    type Err = humantime::DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_duration(text).map(Self)
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

pub(super) fn millis(millis: u32) -> HumanDuration {
    HumanDuration(Duration::from_millis(millis.into()))
}

/// Parses a time within bounds, in milliseconds.
pub(super) fn duration(
    bounds: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<HumanDuration, String> + Clone + Send + Sync {
    move |text| {
        let duration: HumanDuration =
            text.parse().map_err(|why| format!("{why}; write it like 50ms, 30s or 5m"))?;
        let millis = u64::try_from(duration.0.as_millis()).unwrap_or(u64::MAX);
        if bounds.contains(&millis) {
            return Ok(duration);
        }
        let bound = |millis: &u64| HumanDuration(Duration::from_millis(*millis)).to_string();
        Err(format!("allowed is {} to {}", bound(bounds.start()), bound(bounds.end())))
    }
}

pub(super) fn count(
    bounds: RangeInclusive<u64>,
) -> impl clap::builder::TypedValueParser<Value = usize> {
    RangedU64ValueParser::<usize>::from(bounds)
}

pub(super) fn public_org(text: &str) -> Result<PublicOrg, String> {
    match text {
        "*" => Ok(PublicOrg::All),
        org => org.parse().map(PublicOrg::One).map_err(|why: InvalidOrgName| why.to_string()),
    }
}

/// An entry of `--public-keys`.
pub(super) fn public_key(text: &str) -> Result<String, String> {
    match text.strip_suffix('*').unwrap_or(text).contains('*') {
        true => Err("a * stands at the end only, for any ending: feed:*".into()),
        false => Ok(text.to_owned()),
    }
}

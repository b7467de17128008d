//! Values as they are written on the command line.

use std::convert::Infallible;
use std::fmt;
#[cfg(any(feature = "jwt", feature = "tls"))]
use std::fs;
#[cfg(any(feature = "jwt", feature = "tls"))]
use std::io::ErrorKind;
use std::ops::RangeInclusive;
#[cfg(any(feature = "jwt", feature = "tls"))]
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use nudged::ids::{InvalidOrgName, OrgName};

/// A time as it is written on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HumanDuration(pub(super) Duration);

/// A value that may contain a secret, and that nothing shows: the parser, which quotes what it refuses, takes every
/// text, and the error of what refuses it later names the flag only.
#[derive(Clone)]
pub(super) struct Hidden(pub(super) String);

/// An entry of `--public-orgs`.
#[derive(Clone, Debug)]
pub(super) enum PublicOrg {
    All,
    One(OrgName),
}

/// A value of `--public-orgs`: several entries, or none.
#[derive(Clone, Debug)]
pub(super) struct OrgList(pub(super) Vec<PublicOrg>);

/// The field in which proxies name their clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ForwardedFieldArg {
    /// A list of addresses
    XForwardedFor,
    /// The field of RFC 7239
    Forwarded,
}

/// Whether something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Switch {
    On,
    Off,
}

/// What becomes of a TLS session.
#[cfg(feature = "tls")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum TlsSessionsArg {
    /// The server takes its keys, and protects the records itself: 0.3 KiB a stream, which an upgrade hands over
    Release,
    /// The TLS library keeps it: 7.7 KiB a stream, which an upgrade ends
    Keep,
}

/// Permissions of a file, in octal.
pub(super) fn listen_mode(text: &str) -> Result<u32, &'static str> {
    let is_octal = !text.is_empty() && text.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| is_octal && *mode <= 0o777);
    mode.ok_or("it is octal, from 0 to 777")
}

/// Format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For humans
    Text,
    /// One object per line
    Json,
}

/// Milliseconds in a day.
const DAY_MS: u64 = 86_400_000;

/// How the contents of a key file begin.
#[cfg(any(feature = "jwt", feature = "tls"))]
const PEM: &[u8] = b"-----BEGIN ";

// ===== impl Hidden =====

impl FromStr for Hidden {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden")
    }
}

impl Hidden {
    /// The value as it is shown in an error, if it has no part of a URL in which a secret may be.
    #[cfg(feature = "client")]
    pub(super) fn as_url(&self) -> &str {
        if self.0.contains(['@', '?', '#']) { "(not shown)" } else { &self.0 }
    }
}

// ===== files =====

/// Fails, without showing it, if this is what should be in a file, and not its name.
#[cfg(any(feature = "jwt", feature = "tls"))]
pub(super) fn check_file_name(flag: &str, file: &Path) -> Result<(), String> {
    let bytes = file.as_os_str().as_encoded_bytes();
    if bytes.windows(PEM.len()).any(|part| part == PEM) || bytes.contains(&b'\n') {
        return Err(format!("{flag} takes the name of a file, and not its contents"));
    }
    Ok(())
}

/// Fails, without showing it, if this is the secret or the key that should be in the file, and not its name: a name
/// that no file has is shown only if it has the extension of one.
#[cfg(any(feature = "jwt", feature = "tls"))]
pub(super) fn check_key_file(flag: &str, file: &Path) -> Result<(), String> {
    check_file_name(flag, file)?;
    match fs::metadata(file) {
        Err(why)
            if matches!(why.kind(), ErrorKind::NotFound | ErrorKind::InvalidFilename)
                && !has_extension(file) =>
        {
            Err(format!(
                "{flag}: {why}; the name is not shown, because it may be the secret itself"
            ))
        }
        _ => Ok(()),
    }
}

/// Reads a file with a key or a secret. The error shows nothing of its contents.
#[cfg(feature = "jwt")]
pub(super) fn read_file(flag: &str, file: &Path) -> Result<String, String> {
    check_key_file(flag, file)?;
    fs::read_to_string(file).map_err(|why| format!("{flag} {}: {why}", file.display()))
}

/// Whether the name ends like that of a file: in a dot and two to five lower-case letters.
#[cfg(any(feature = "jwt", feature = "tls"))]
fn has_extension(file: &Path) -> bool {
    file.extension().is_some_and(|extension| {
        let bytes = extension.as_encoded_bytes();
        (2..=5).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_lowercase)
    })
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
        let bound = |millis: &u64| match millis / DAY_MS {
            // humantime would count months of 30.44 days.
            days @ 2.. => format!("{days}days"),
            _ => HumanDuration(Duration::from_millis(*millis)).to_string(),
        };
        Err(format!("allowed is {} to {}", bound(bounds.start()), bound(bounds.end())))
    }
}

/// Parses a time of whole seconds within bounds, given in milliseconds.
pub(super) fn whole_seconds(
    bounds: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<HumanDuration, String> + Clone + Send + Sync {
    let parse = duration(bounds);
    move |text| match parse(text)? {
        time if time.0.subsec_nanos() == 0 => Ok(time),
        _ => Err("allowed are whole seconds".into()),
    }
}

/// Parses a whole number within bounds.
pub(super) fn count(
    bounds: RangeInclusive<usize>,
) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync {
    move |text| {
        let count = text.parse().ok().filter(|count| bounds.contains(count));
        let (first, last) = (bounds.start(), bounds.end());
        count.ok_or_else(|| format!("allowed is a whole number from {first} to {last}"))
    }
}

/// Parses a whole number that has a lower bound only.
pub(super) fn at_least(
    least: usize,
) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync {
    move |text| {
        let count = text.parse().ok().filter(|count| *count >= least);
        count.ok_or_else(|| format!("allowed is a whole number of at least {least}"))
    }
}

/// Copies of a log in a cluster of brokers: an odd number of them outvotes the others.
#[cfg(any(feature = "nats", feature = "redis"))]
pub(super) fn replicas(text: &str) -> Result<u8, String> {
    let count = text.parse().ok().filter(|count| [1, 3, 5].contains(count));
    count.ok_or_else(|| "allowed is 1, 3 or 5".into())
}

pub(super) fn org_list(text: &str) -> Result<OrgList, String> {
    let entries = text.split(',').filter(|_| !text.is_empty());
    entries.map(public_org).collect::<Result<_, _>>().map(OrgList)
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

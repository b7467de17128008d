//! What barriers and beats carry, as JSON.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::config::{HubConfig, PublicOrgs};

/// The payload of a barrier: everything before it is unknown, for this reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Barrier {
    /// The run of the broker in which it was appended. Servers adopt it.
    pub(crate) identity: String,
    /// Why, in words.
    pub(crate) reason: String,
    /// Why, for servers. Without it, or with one of a newer version, the barrier counts in any case.
    #[serde(default, deserialize_with = "known_cause")]
    pub(crate) cause: Option<Cause>,
    /// Of [`Cause::Forgot`]: any barrier at a later position was appended after the loss. It is the last barrier that its
    /// server had read before the loss; in another run of the broker, if that is later, the newest record when its server
    /// opened the log; 0 in a log that has been begun anew.
    #[serde(default)]
    pub(crate) after: u64,
}

/// Why a barrier was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Cause {
    /// Another run of the broker than that of the newest beat or barrier. It counts unless this run is adopted already.
    Identity,
    /// The log no longer has what its server had read. It counts on a server unless one has counted there
    /// at a later position than `after`.
    Forgot,
    /// A command.
    Command,
}

/// The payload of a beat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Beat {
    pub(crate) identity: String,
    /// Which server: 16 hexadecimal digits, drawn at its start.
    #[serde(default)]
    pub(crate) node: String,
    /// Its version.
    #[serde(default)]
    pub(crate) nudged: String,
    /// A hash of what all servers of a log must have in common.
    #[serde(default)]
    pub(crate) limits: String,
}

/// The longest reason of a command, in bytes.
const REASON_MAX: usize = 256;

fn known_cause<'de, D: serde::Deserializer<'de>>(json: D) -> Result<Option<Cause>, D::Error> {
    let name = Option::<String>::deserialize(json)?;
    Ok(name.and_then(|name| match &*name {
        "identity" => Some(Cause::Identity),
        "forgot" => Some(Cause::Forgot),
        "command" => Some(Cause::Command),
        _ => None,
    }))
}

/// A reason of bounded length.
pub(crate) fn bounded(reason: &str) -> String {
    reason.chars().take(REASON_MAX / 4).collect()
}

// ===== impl Barrier =====

impl Barrier {
    pub(crate) fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).expect("it has strings and a number").into()
    }

    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok()
    }
}

// ===== impl Beat =====

impl Beat {
    pub(crate) fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).expect("it has strings").into()
    }

    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok()
    }
}

/// A hash of what the servers of a log must have in common: how much a publish may have, and what the public sees.
pub(crate) fn limits_hash(config: &HubConfig) -> u64 {
    let mut orgs = match &config.public.orgs {
        PublicOrgs::Listed(orgs) => orgs.iter().map(|org| org.as_str()).collect(),
        PublicOrgs::All => vec!["*"],
        PublicOrgs::IfOpen => vec!["?"],
    };
    orgs.sort_unstable();
    let text = format!(
        "{} {} {} {} {orgs:?} {:?}",
        config.keys_max,
        config.key_bytes_max,
        config.event_bytes_max,
        config.topic_event_bytes_max,
        config.public.keys
    );
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_of_a_newer_version_is_read() {
        let newer = br#"{"identity":"x","reason":"r","cause":"flood","more":[1]}"#;
        let barrier = Barrier::parse(newer).expect("an unknown member, and an unknown cause");
        assert_eq!((&*barrier.identity, barrier.cause, barrier.after), ("x", None, 0));
        assert!(Barrier::parse(b"{}").is_none());
        let beat = Beat::parse(br#"{"identity":"x","more":1}"#).expect("only the identity counts");
        assert_eq!((&*beat.identity, &*beat.node), ("x", ""));
    }

    #[test]
    fn servers_with_other_limits_have_another_hash() {
        let config = HubConfig::default();
        assert_eq!(limits_hash(&config), limits_hash(&config.clone()));
        let fewer = HubConfig { keys_max: 1, ..config.clone() };
        assert_ne!(limits_hash(&config), limits_hash(&fewer));
    }
}

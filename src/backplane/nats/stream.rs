//! The stream that a log is: how it is created, and what of a stream that exists breaks the log's promises.

use serde::Deserialize;
use serde_json::{Value, json};

use super::connection::Connection;
use crate::backplane::broker::{Bounds, Down};
use crate::config::{BackplaneConfig, RECORD_OVERHEAD_MAX};

/// What the stream has to be.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) stream: String,
    pub(super) subject: String,
    replicas: u8,
    max_bytes: i64,
    trust_disk: bool,
    /// The largest body of a publish.
    publish_bytes: usize,
}

/// What JetStream has of the stream. Members that it leaves out are 0, empty or off.
#[derive(Debug, Deserialize)]
pub(super) struct StreamInfo {
    config: Config,
    pub(super) created: String,
    state: State,
    #[serde(default)]
    cluster: Cluster,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    subjects: Vec<String>,
    retention: String,
    discard: String,
    storage: String,
    persist_mode: String,
    num_replicas: u8,
    max_bytes: i64,
    max_msgs: i64,
    max_msgs_per_subject: i64,
    max_msg_size: i64,
    max_age: i64,
    max_consumers: i64,
    deny_delete: bool,
    deny_purge: bool,
    sealed: bool,
    no_ack: bool,
    allow_msg_ttl: bool,
    allow_msg_counter: bool,
    mirror: Value,
    sources: Value,
    subject_transform: Value,
    republish: Value,
}

#[derive(Debug, Deserialize)]
struct State {
    messages: u64,
    first_seq: u64,
    last_seq: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cluster {
    /// Empty where the server is alone.
    name: String,
    leader: Option<String>,
}

/// A stream that can be used.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) bounds: Bounds,
    /// What is not as it should be with it or with the broker, and breaks nothing: a sentence each.
    pub(super) differences: Vec<String>,
}

/// The largest message of the stream, headers included.
const MESSAGE_MAX: i64 = 512 * 1024;

/// What a record's headers take of a message, and more.
const HEADERS_MAX: usize = 256;

/// The largest position: no log gets there, and what is computed with it does not overflow.
pub(super) const POSITION_MAX: u64 = u64::MAX >> 1;

/// A broker that takes less is of no use.
const PAYLOAD_MIN: usize = 4 * 1024;

// ===== impl Wanted =====

impl Wanted {
    pub(super) fn new(config: &BackplaneConfig, publish_bytes: usize) -> Self {
        let bytes = config.tail_bytes.saturating_mul(4);
        Self {
            stream: config.log.as_str().into(),
            subject: format!("{}.log", config.log),
            replicas: config.replicas,
            max_bytes: bytes.try_into().unwrap_or(i64::MAX),
            trust_disk: config.trust_disk,
            publish_bytes,
        }
    }

    /// The settings with which it is created: those that every version since 2.9 knows, since newer ones refuse what
    /// they do not know.
    pub(super) fn settings(&self) -> Value {
        json!({
            "name": self.stream,
            "subjects": [self.subject],
            "retention": "limits",
            "discard": "old",
            "storage": "file",
            "num_replicas": self.replicas,
            "max_bytes": self.max_bytes,
            "max_msg_size": MESSAGE_MAX,
            "max_msgs": -1,
            "max_msgs_per_subject": -1,
            "max_consumers": -1,
            "max_age": 0,
            "deny_delete": true,
            "deny_purge": true,
        })
    }
}

// ===== impl StreamInfo =====

impl StreamInfo {
    /// # Errors
    /// A setting breaks the log's promises.
    pub(super) fn check(self, wanted: &Wanted, connection: &Connection) -> Result<Checked, Down> {
        let refused = |why: &str| {
            let stream = &wanted.stream;
            Down(format!("stream {stream} cannot be the log: {why}"))
        };
        if let Some(why) = self.config.breaks(wanted) {
            return Err(refused(&format!("{why}; delete it, or use another (--backplane-log)")));
        }
        let identity = self.identity(wanted, connection).map_err(|why| refused(&why))?;
        let payload_max = self.payload_max(connection.server.max_payload);
        if payload_max < PAYLOAD_MIN {
            return Err(refused(
                "the broker's max_payload is less than 4352 bytes; its default is 1 MB",
            ));
        }
        let State { messages, first_seq, last_seq } = self.state;
        if last_seq > POSITION_MAX {
            return Err(refused("its last position is more than 2^63 - 1"));
        }
        let oldest = if messages == 0 { last_seq + 1 } else { first_seq };
        if oldest == 0 || oldest > last_seq + 1 {
            return Err(refused("its first and its last position disagree"));
        }
        let (newest, may_lose_last) = (last_seq, true);
        let bounds = Bounds { oldest, newest, identity, may_lose_last, payload_max };
        let mut differences = self.config.differences(wanted);
        if payload_max < wanted.publish_bytes.saturating_add(RECORD_OVERHEAD_MAX) {
            differences.push(format!(
                "its records have at most {payload_max} bytes, and --publish-bytes allows {}: what is larger is \
                 answered 413",
                wanted.publish_bytes
            ));
        }
        for difference in &mut differences {
            *difference = format!("stream {} is used as it is: {difference}", wanted.stream);
        }
        if wanted.trust_disk && self.config.num_replicas <= 1 && !connection.can_sync_always() {
            differences.push(format!(
                "NATS {:.20} cannot write each record to the disk at once, so a power cut may lose some in spite of \
                 --backplane-trust-disk",
                connection.server.version
            ));
        }
        Ok(Checked { bounds, differences })
    }

    /// What changes when records that were acknowledged may be lost: a single server, when it starts again; several
    /// that agree, or a disk that is trusted, when the stream is another one.
    fn identity(&self, wanted: &Wanted, connection: &Connection) -> Result<String, String> {
        let server = &connection.server;
        let forgets = self.config.storage == "memory" || self.config.persist_mode == "async";
        if wanted.trust_disk || self.config.num_replicas > 1 {
            if forgets {
                return Err(
                    "it is not on disk when it is acknowledged (storage, persist_mode)".into()
                );
            }
            return Ok(format!("stream {}", self.created));
        }
        if !self.cluster.name.is_empty() {
            return Err("it has one replica in a cluster, whose server may restart unnoticed: create it with \
                        --backplane-replicas 3, or trust its disk (--backplane-trust-disk)"
                .into());
        }
        let leader = self.cluster.leader.as_ref();
        if !server.jetstream || leader.is_some_and(|leader| *leader != server.server_name) {
            return Err("it is in another server than the one that is connected to, which may restart unnoticed: \
                        connect to that one, or trust its disk (--backplane-trust-disk)"
                .into());
        }
        Ok(format!("server {}", server.server_id))
    }

    fn payload_max(&self, server_max: usize) -> usize {
        let stream_max = usize::try_from(self.config.max_msg_size).ok().filter(|max| *max > 0);
        stream_max.map_or(server_max, |max| max.min(server_max)).saturating_sub(HEADERS_MAX)
    }
}

// ===== impl Config =====

impl Config {
    /// Why records could be lost unseen, never acknowledged, or refused.
    fn breaks(&self, wanted: &Wanted) -> Option<&'static str> {
        let rules = [
            (self.subjects != [wanted.subject.as_str()], "its subjects are not the log's alone"),
            (!self.mirror.is_null() || is_some(&self.sources), "it copies other streams"),
            (is_some(&self.subject_transform), "it changes subjects"),
            (self.retention != "limits", "its retention is not by limits"),
            (self.discard != "old", "it refuses records when it is full (discard)"),
            (self.max_age != 0, "its records expire (max_age)"),
            (self.allow_msg_ttl, "its records may expire (allow_msg_ttl)"),
            (self.max_msgs_per_subject > 0, "it limits records by subject (max_msgs_per_subject)"),
            (!self.deny_delete, "its records can be deleted (deny_delete)"),
            (!self.deny_purge, "it can be purged (deny_purge)"),
            (self.sealed, "it is sealed"),
            (self.no_ack, "it acknowledges nothing (no_ack)"),
            (self.allow_msg_counter, "its messages are counters (allow_msg_counter)"),
            (
                self.max_msg_size > 0 && self.max_msg_size < MESSAGE_MAX,
                "its records are smaller than 512 KiB (max_msg_size)",
            ),
        ];
        rules.into_iter().find(|(broken, _)| *broken).map(|(_, why)| why)
    }

    fn differences(&self, wanted: &Wanted) -> Vec<String> {
        let mut differences = Vec::new();
        let mut note = |name: &str, is: i64, wanted: i64| {
            // No limit is -1, and some programs write 0.
            if is != wanted && !(is <= 0 && wanted <= 0) {
                differences.push(format!("{name} is {is}; a log that nudged creates has {wanted}"));
            }
        };
        note("num_replicas", self.num_replicas.into(), wanted.replicas.into());
        note("max_bytes", self.max_bytes, wanted.max_bytes);
        note("max_msg_size", self.max_msg_size, MESSAGE_MAX);
        note("max_msgs", self.max_msgs, -1);
        note("max_consumers", self.max_consumers, -1);
        if self.storage != "file" {
            differences.push(format!(
                "storage is {:.20}; a log that nudged creates has file",
                self.storage
            ));
        }
        if is_some(&self.republish) {
            differences.push("it republishes its records".into());
        }
        differences
    }
}

fn is_some(value: &Value) -> bool {
    !(value.is_null() || value.as_array().is_some_and(Vec::is_empty))
}

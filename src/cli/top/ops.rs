//! What `/ops/orgs` and `/ops/nodes` answer.

use serde::Deserialize;

/// Organisations, those with the most streams or publishes first.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Orgs {
    /// How many there are.
    pub(super) total: u64,
    pub(super) orgs: Vec<Org>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Org {
    pub(super) org: String,
    pub(super) members: u64,
    pub(super) public: u64,
    pub(super) publishes_per_second: f64,
}

/// The servers of a log, as far as their beats were read.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Nodes {
    pub(super) nodes: Vec<Node>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Node {
    pub(super) last_beat_seconds: f64,
}

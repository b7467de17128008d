//! The limits at which requests and connections are refused, and how often they were.

use super::{add, read};
use crate::sync::AtomicU64;

/// A limit at which requests are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// Connections in total.
    Connections,
    /// Connections of one address.
    Address,
    /// Streams in total.
    Streams,
    /// Streams of one address.
    AddressStreams,
    /// Member streams of one org.
    Org,
    /// Public streams of one org.
    OrgPublic,
    /// Publishes to one org per second.
    Rate,
    /// Streams of one topic.
    Topic,
}

/// Refused requests and connections, by limit.
#[derive(Debug, Default)]
pub struct Refusals([AtomicU64; Limit::ALL.len()]);

// ===== impl Limit =====

impl Limit {
    pub(crate) const ALL: [Self; 8] = [
        Self::Connections,
        Self::Address,
        Self::Streams,
        Self::AddressStreams,
        Self::Org,
        Self::OrgPublic,
        Self::Rate,
        Self::Topic,
    ];

    /// The label in `nudged_refused_total{limit="…"}`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Address => "address",
            Self::Streams => "streams",
            Self::AddressStreams => "address_streams",
            Self::Org => "org",
            Self::OrgPublic => "org_public",
            Self::Rate => "rate",
            Self::Topic => "topic",
        }
    }
}

// ===== impl Refusals =====

impl Refusals {
    pub(crate) fn add(&self, limit: Limit) {
        add(&self.0[limit as usize], 1);
    }

    pub(crate) fn read(&self, limit: Limit) -> u64 {
        read(&self.0[limit as usize])
    }
}

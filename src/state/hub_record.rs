//! The records of a hub.

use minicbor::decode;

use super::records::{Recorded, append, kinds};
use crate::hub::state::{
    CountersState, GoneState, LogState, NewerOrgState, NewerTopicState, OrgState, TopicState,
};

/// One part of what a hub remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Org(OrgState),
    Topic(TopicState),
    Counters(CountersState),
    Log(LogState),
    /// Of an org that an earlier record was of.
    NewerOrg(NewerOrgState),
    /// Of a topic that an earlier record was of.
    NewerTopic(NewerTopicState),
    /// What an earlier record was of is forgotten.
    Gone(GoneState),
}

impl Recorded for Record {
    fn kind(&self) -> u8 {
        match self {
            Self::Org(_) => kinds::ORG,
            Self::Topic(_) => kinds::TOPIC,
            Self::Counters(_) => kinds::COUNTERS,
            Self::Log(_) => kinds::LOG,
            Self::NewerOrg(_) => kinds::NEWER_ORG,
            Self::NewerTopic(_) => kinds::NEWER_TOPIC,
            Self::Gone(_) => kinds::GONE,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Org(org) => append(org, out),
            Self::Topic(topic) => append(topic, out),
            Self::Counters(counters) => append(counters, out),
            Self::Log(log) => append(log, out),
            Self::NewerOrg(newer) => append(newer, out),
            Self::NewerTopic(newer) => append(newer, out),
            Self::Gone(gone) => append(gone, out),
        }
    }

    fn decode(kind: u8, body: &[u8]) -> Option<Result<Self, decode::Error>> {
        Some(match kind {
            kinds::ORG => decode(body).map(Self::Org),
            kinds::TOPIC => decode(body).map(Self::Topic),
            kinds::COUNTERS => decode(body).map(Self::Counters),
            kinds::LOG => decode(body).map(Self::Log),
            kinds::NEWER_ORG => decode(body).map(Self::NewerOrg),
            kinds::NEWER_TOPIC => decode(body).map(Self::NewerTopic),
            kinds::GONE => decode(body).map(Self::Gone),
            _ => return None,
        })
    }
}

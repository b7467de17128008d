//! The brokers of a log: each a server of its own on a free port of 127.0.0.1.

use std::time::Duration;

use clap::ValueEnum;

use super::cpu::cpu_of_family;
use crate::Outcome;
use crate::shared::nats::{self, Nats};
use crate::shared::redis::{self, Redis};

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum BrokerKind {
    Nats,
    Redis,
}

/// A running broker, ended with its files when this is dropped.
pub(crate) enum Broker {
    Nats(Nats),
    Redis(Redis),
}

// ===== impl BrokerKind =====

impl BrokerKind {
    pub(crate) fn start(self) -> Outcome<Broker> {
        Ok(match self {
            Self::Nats => Broker::Nats(Nats::start()?),
            Self::Redis => Broker::Redis(Redis::start()?),
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nats => "NATS",
            Self::Redis => "Redis",
        }
    }

    /// Its version, and where it keeps the log; or how to install it.
    pub(crate) fn about(self) -> Outcome<String> {
        Ok(match self {
            Self::Nats => format!("{}, R1, its file on this machine", nats::version()?),
            Self::Redis => redis::version()?,
        })
    }
}

/// What is said of these brokers.
pub(crate) fn about(brokers: &[BrokerKind]) -> Outcome<String> {
    let all = brokers.iter().map(|broker| broker.about()).collect::<Outcome<Vec<_>>>()?;
    Ok(all.join("; "))
}

// ===== impl Broker =====

impl Broker {
    pub(crate) fn kind(&self) -> BrokerKind {
        match self {
            Self::Nats(_) => BrokerKind::Nats,
            Self::Redis(_) => BrokerKind::Redis,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.kind().name()
    }

    pub(crate) fn url(&self) -> &str {
        match self {
            Self::Nats(nats) => &nats.url,
            Self::Redis(redis) => &redis.url,
        }
    }

    /// The processor time that it has used.
    pub(crate) fn cpu(&self) -> Outcome<Duration> {
        let process = match self {
            Self::Nats(nats) => &nats.process,
            Self::Redis(redis) => &redis.process,
        };
        cpu_of_family(process.id())
    }
}

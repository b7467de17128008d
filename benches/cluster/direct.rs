//! A client of a broker as nudged has it, for what nudged is compared with: appends that wait for their
//! acknowledgement, and readers that follow the log.

mod nats;
mod redis;

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::runtime::{Builder, Runtime};

use super::servers::{Broker, BrokerKind};
use crate::Outcome;
use crate::shared::process::now;

/// The way to one log, on a connection of its own.
pub(crate) enum Direct {
    Nats(nats::Direct),
    Redis(redis::Direct),
}

/// A reader of what is appended after it was made.
pub(crate) enum Reader {
    Nats(nats::Reader),
    Redis(redis::Reader),
}

/// Appends that wait for their acknowledgement at once.
const IN_FLIGHT: usize = 256;

/// Bytes of a log, as nudged has it with its default tail.
const LOG_BYTES: usize = 256 << 20;

/// A runtime for the clients of one thread.
pub(crate) fn runtime() -> Outcome<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

// ===== impl Direct =====

impl Direct {
    /// Makes the log if there is none.
    pub(crate) async fn open(broker: &Broker, log: &str) -> Outcome<Self> {
        Ok(match broker.kind() {
            BrokerKind::Nats => Self::Nats(nats::Direct::open(broker.url(), log).await?),
            BrokerKind::Redis => Self::Redis(redis::Direct::open(broker.url(), log).await?),
        })
    }

    /// A reader of what is appended from now on.
    pub(crate) async fn read(self) -> Outcome<Reader> {
        Ok(match self {
            Self::Nats(direct) => Reader::Nats(direct.read().await?),
            Self::Redis(direct) => Reader::Redis(direct.read().await?),
        })
    }

    /// Appends a record of lines as nudged does, and waits for the acknowledgement.
    pub(crate) async fn append(&self, payload: Bytes) -> Outcome<()> {
        match self {
            Self::Nats(direct) => direct.append(payload).await,
            Self::Redis(direct) => direct.append(payload).await,
        }
    }

    /// Appends all records, many at once, until the time is up. Returns how many.
    pub(crate) async fn append_all(
        &self,
        payloads: impl Iterator<Item = Bytes>,
        limit: Duration,
    ) -> Outcome<usize> {
        let start = now();
        let payloads = payloads.take_while(|_| start.elapsed() < limit);
        let mut sent =
            stream::iter(payloads.map(|payload| self.append(payload))).buffered(IN_FLIGHT);
        let mut count = 0;
        while let Some(done) = sent.next().await {
            done?;
            count += 1;
        }
        Ok(count)
    }
}

// ===== impl Reader =====

impl Reader {
    /// Waits for the next record.
    pub(crate) async fn next(&mut self) -> Outcome<()> {
        match self {
            Self::Nats(reader) => reader.next().await,
            Self::Redis(reader) => reader.next().await,
        }
    }
}

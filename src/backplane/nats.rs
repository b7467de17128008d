//! A log in NATS JetStream: one stream with one subject, in which JetStream's sequence numbers are the positions.
//!
//! The client library is used for its connection alone. JetStream is spoken over it as it is documented, JSON on
//! subjects, so that nothing recovers by itself and hides what it lost.

mod api;
mod appender;
mod connection;
mod consumer;
mod entry;
mod pump;
mod reader;
mod stream;
#[cfg(test)]
mod tests;
mod unparsable;

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use self::api::Api;
use self::appender::NatsAppender;
use self::connection::Connection;
use self::reader::NatsReader;
use self::stream::{Checked, StreamInfo, Wanted};
use super::broker::{Bounds, Broker, Down, Opened};
use super::wait::sleep;
use crate::config::BackplaneConfig;
use crate::sync::{AtomicU64, Mutex};

/// A log in JetStream.
#[derive(Debug)]
pub(crate) struct Nats {
    config: BackplaneConfig,
    publish_bytes: usize,
    /// Messages of a subscription that may wait for a reader.
    messages_max: usize,
    shared: Arc<Shared>,
}

/// What outlives a connection.
#[derive(Debug, Default)]
struct Shared {
    /// The differences from what is wanted that the log mentions already.
    noted: Mutex<Vec<String>>,
    /// The next position when a connection was lost, or 0: a record there may be what it was lost for, since the
    /// library closes a connection on headers that it cannot parse.
    suspect: AtomicU64,
}

/// The log, as the readers of one connection see it.
#[derive(Clone, Debug)]
struct Log {
    connection: Connection,
    wanted: Arc<Wanted>,
    shared: Arc<Shared>,
    /// When the stream was created, as JetStream writes it: another one has another time.
    created: Arc<str>,
}

/// JetStream has no stream of this name while it still deletes the files of one. If it is created meanwhile, those of
/// the new one are deleted too: it acknowledges records, and delivers none (2.9.10). At most so long, and at least half
/// of it, is waited; drawn, so that servers that start together do not all create it.
const DELETION: Duration = Duration::from_secs(1);

// ===== impl Nats =====

impl Nats {
    pub(crate) fn new(config: &BackplaneConfig) -> Self {
        Self {
            config: config.clone(),
            publish_bytes: 0,
            messages_max: connection::MESSAGES_MAX,
            shared: Arc::default(),
        }
    }

    /// The largest body of a publish, of which is warned if the broker's records are too small for it.
    pub(crate) fn with_publish_bytes(self, publish_bytes: usize) -> Self {
        Self { publish_bytes, ..self }
    }
}

impl Broker for Nats {
    type Reader = NatsReader;
    type Appender = NatsAppender;

    /// The runner bounds its time: there may be many servers to try.
    async fn open(&self) -> Result<Opened<NatsReader, NatsAppender>, Down> {
        let wanted = Arc::new(Wanted::new(&self.config, self.publish_bytes));
        let connection = Connection::open(&self.config, self.messages_max).await?;
        let info = find_or_create(&connection, &wanted).await?;
        let created: Arc<str> = info.created.as_str().into();
        let shared = self.shared.clone();
        let log = Log { connection, wanted, shared, created };
        let bounds = log.judge(info)?;
        let appender = NatsAppender::new(&log);
        Ok(Opened { reader: NatsReader::new(log), appender, bounds })
    }
}

/// What the stream is; if there is none, it is created.
async fn find_or_create(connection: &Connection, wanted: &Wanted) -> Result<StreamInfo, Down> {
    if let Some(info) = find(connection, wanted).await? {
        return Ok(info);
    }
    sleep(DELETION.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
    let stream = &wanted.stream;
    for _ in 0..2 {
        if let Some(info) = find(connection, wanted).await? {
            return Ok(info);
        }
        let settings = wanted.settings().to_string();
        match connection.api::<StreamInfo>(&format!("STREAM.CREATE.{stream}"), &settings).await? {
            Api::Done(info) => {
                info!(stream, "created the log in JetStream");
                return Ok(info);
            }
            // Another server was faster, with other settings: look at what it made.
            Api::Refused(why) if why.is_name_in_use() => {}
            Api::Refused(why) => return Err(why.down(&format!("to create stream {stream}"))),
        }
    }
    Err(Down(format!("stream {stream} is being created and deleted by others")))
}

async fn find(connection: &Connection, wanted: &Wanted) -> Result<Option<StreamInfo>, Down> {
    let stream = &wanted.stream;
    match connection.api(&format!("STREAM.INFO.{stream}"), "").await? {
        Api::Done(info) => Ok(Some(info)),
        Api::Refused(why) if why.is_no_stream() => Ok(None),
        Api::Refused(why) => Err(why.down(&format!("to describe stream {stream}"))),
    }
}

// ===== impl Log =====

impl Log {
    /// What the log has now, if it is still one that can be trusted.
    async fn bounds(&self) -> Result<Bounds, Down> {
        let stream = &self.wanted.stream;
        match self.connection.api::<StreamInfo>(&format!("STREAM.INFO.{stream}"), "").await? {
            Api::Done(info) if *info.created != *self.created => {
                Err(Down(format!("stream {stream} has been deleted and created anew")))
            }
            Api::Done(info) => self.judge(info),
            Api::Refused(why) => Err(why.down(&format!("to describe stream {stream}"))),
        }
    }

    fn judge(&self, info: StreamInfo) -> Result<Bounds, Down> {
        let Checked { bounds, differences } = info.check(&self.wanted, &self.connection)?;
        let mut noted = self.shared.noted.lock();
        if *noted != differences {
            for difference in &differences {
                warn!("{difference}");
            }
            *noted = differences;
        }
        Ok(bounds)
    }
}

//! An open stream outlives its process.

use super::{EventStream, Extra};
use crate::hub::Hub;
use crate::hub::state::{Exporter, ImportError};
use crate::stream::access_record::{AccessLog, AccessRecord};
use crate::stream::state::StreamState;
use crate::time::Time;

impl EventStream {
    /// What it takes with it into another process; `None` if it stays, and has to end in this one: for the reasons of
    /// [`Exporter::export`], or because what it begins with has not been written. It is not changed.
    pub(crate) fn export(&self, exporter: &Exporter, now: Time) -> Option<StreamState> {
        let Self { subscription, extra } = self;
        let record = match extra.as_deref() {
            None => None,
            Some(Extra { opening: Some(_), .. }) => return None,
            Some(Extra { opening: None, record }) => record.as_ref().map(AccessRecord::export),
        };
        Some(StreamState { seat: exporter.export(subscription, now)?, record })
    }

    /// Goes on with a stream that was exported, on the shard of this handle, see [`Hub::import`]. Its end is logged if it was to
    /// be and there is a `log` here.
    ///
    /// # Errors
    /// [`ImportError`].
    pub(crate) fn import(
        hub: &Hub,
        state: &StreamState,
        log: Option<AccessLog>,
        now: Time,
    ) -> Result<Self, ImportError> {
        let StreamState { seat, record } = state;
        let subscription = hub.import(seat, now)?;
        let record =
            log.zip(record.as_ref()).map(|(log, record)| AccessRecord::import(log, record));
        let extra = record.map(|record| Box::new(Extra { opening: None, record: Some(record) }));
        Ok(Self { subscription, extra })
    }

    /// Another process has this stream: dropping it frees its seat, and is neither logged nor counted.
    pub(crate) fn give_away(&mut self) {
        self.extra = None;
        self.subscription.give_away();
    }
}

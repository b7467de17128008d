//! Writes what a hub remembers.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Weak};

use super::{GoneState, LogState};
use crate::hub::Hub;
use crate::hub::channel::Channel;
use crate::hub::channel::state::{Known, News};
use crate::ids::{OrgName, TopicName};
use crate::state::Record;
use crate::time::Time;

/// What another process knows of the channels of a hub.
#[derive(Debug, Default)]
pub(crate) struct Copied {
    channels: HashMap<Name, (Weak<Channel>, Known)>,
}

type Name = (OrgName, Option<TopicName>);

impl Hub {
    /// Gives all that it remembers to `to`, one record after the other, and the first error back. What burst windows hold
    /// is appended before, so this comes before [`Exporter`](super::Exporter). Nothing may be published meanwhile.
    ///
    /// With a log, histories and topics are left out: the next process follows the log itself.
    pub(crate) fn save(
        &self,
        now: Time,
        to: &mut impl FnMut(Record) -> io::Result<()>,
    ) -> io::Result<()> {
        self.save_rest(&mut Copied::default(), now, to)
    }

    /// The same for what has not been [copied](Self::copy).
    pub(crate) fn save_rest(
        &self,
        copied: &mut Copied,
        now: Time,
        to: &mut impl FnMut(Record) -> io::Result<()>,
    ) -> io::Result<()> {
        for channels in (0..).map_while(|partition| self.shared.all_channels_of(partition)) {
            for channel in channels {
                if channel.topic.is_none() && channel.release(now) {
                    self.shared.common.schedule(&channel);
                }
            }
        }
        self.copy(copied, &|| now, to)?;
        if let Some(log) = self.log_state() {
            to(Record::Log(log))?;
        }
        to(Record::Counters(self.save_counters()))
    }

    /// Gives histories and topics to `to`, one record after the other, as each is at this time, while the hub goes on.
    /// Then [`Self::save_rest`], or this again, gives what has changed since.
    pub(crate) fn copy(
        &self,
        copied: &mut Copied,
        now: &dyn Fn() -> Time,
        to: &mut impl FnMut(Record) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.shared.common.log.is_some() {
            return Ok(());
        }
        // They come first, so that the other process has room.
        for name in copied.take_gone() {
            to(gone(&name))?;
        }
        for channels in (0..).map_while(|partition| self.shared.all_channels_of(partition)) {
            channels.iter().try_for_each(|channel| copied.copy(channel, now(), to))?;
        }
        Ok(())
    }

    /// The last record of the log that has reached every stream, if the hub follows a log.
    pub(crate) fn log_state(&self) -> Option<LogState> {
        let mark = self.shared.common.log.as_ref()?.applied().unwrap_or_default();
        Some(LogState { tag: mark.tag, position: mark.position })
    }

    /// Whether it has applied all of the log up to there. Streams that were exported there go on without a re-read then.
    pub(crate) fn has_applied(&self, state: LogState) -> bool {
        self.log_state().is_some_and(|applied| applied.position >= state.position)
    }

    /// Whether streams have still to end, or to re-read everything, because of a command whose window is not over. Their
    /// passes are not carried.
    pub(crate) fn has_commands(&self) -> bool {
        let rereads = self.shared.rereads.load(crate::sync::Ordering::Acquire) > 0;
        let partitions = (0..).map_while(|partition| self.shared.registry.channels_of(partition));
        partitions.flatten().any(|channel| channel.has_commands(rereads))
    }
}

fn gone((org, topic): &Name) -> Record {
    let topic = topic.as_ref().map(|topic| topic.as_str().to_owned());
    Record::Gone(GoneState { org: org.as_str().to_owned(), topic })
}

// ===== impl Copied =====

impl Copied {
    /// The names of channels that have left their registry since. They are not known any more.
    fn take_gone(&mut self) -> Vec<Name> {
        let is_gone = |channel: &Weak<Channel>| channel.upgrade().is_none_or(|of| !of.is_saved());
        self.channels.extract_if(|_, (channel, _)| is_gone(channel)).map(|(name, _)| name).collect()
    }

    fn copy(
        &mut self,
        channel: &Arc<Channel>,
        now: Time,
        to: &mut impl FnMut(Record) -> io::Result<()>,
    ) -> io::Result<()> {
        let name = (channel.org.clone(), channel.topic.clone());
        let known = self.channels.get(&name).map(|(_, known)| known);
        let is_known = known.is_some();
        let (record, known) = match channel.save(known, now) {
            News::Gone | News::Nothing => return Ok(()),
            News::Newer(record, known) => (record, known),
            News::Whole(record, known) => {
                if is_known {
                    // It was another channel, or its ids are of another epoch.
                    to(gone(&name))?;
                }
                (record, known)
            }
        };
        self.channels.insert(name, (Arc::downgrade(channel), known));
        to(record)
    }
}

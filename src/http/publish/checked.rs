//! A line of a publish that comes from elsewhere than a request, and is checked as one of a request.

use super::batch::Publish;
use crate::config::HubConfig;
use crate::http::reject::Reject;
use crate::hub::Hub;
use crate::hub::record::Lines;
use crate::time::Time;

/// A line that is valid. What it is for is not limited.
#[derive(Debug)]
pub(crate) struct CheckedLine<'a> {
    line: &'a [u8],
    publish: Publish<'a>,
}

// ===== impl CheckedLine =====

impl<'a> CheckedLine<'a> {
    /// Checks a line as those of a batch are.
    ///
    /// # Errors
    /// It is invalid, or longer than a publish may be.
    pub(crate) fn new(line: &'a [u8], limits: &HubConfig, max: usize) -> Result<Self, Reject> {
        if line.len() > max {
            return Err(Reject::TooLarge { max });
        }
        Ok(Self { line, publish: Publish::parse(line, limits)? })
    }

    /// Publishes it to the hub.
    pub(crate) fn run(&self, hub: &Hub, now: Time) {
        self.publish.run(hub, now);
    }

    /// Adds it to what is appended to the log.
    pub(crate) fn add_to(&self, lines: &mut Lines) {
        lines.raw(self.line, self.publish.topic());
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.line.len()
    }
}

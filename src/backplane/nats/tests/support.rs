//! Servers of NATS, as the tests of the program start them, and logs in them.

pub(super) use super::super::super::servers::nats::{NatsCluster, NatsServer};
pub(super) use super::super::super::servers::{
    BOUND, certificate, eventually, port, programs, temp_dir,
};
use super::super::Nats;
use super::super::appender::NatsAppender;
use super::super::reader::NatsReader;
use crate::backplane::any_log;
pub(super) use crate::backplane::any_log::{
    append, config, open_again, positions, read, read_and_give_up, read_to_its_end, record, tags,
};
use crate::backplane::broker::{Broker, Down, Opened};
use crate::config::BackplaneConfig;

pub(crate) type Open = Opened<NatsReader, NatsAppender>;

/// Returns from a test where nats-server is not installed.
macro_rules! requires_nats {
    () => {
        if !$crate::backplane::nats::tests::support::is_installed() {
            return;
        }
    };
}
pub(super) use requires_nats;

pub(crate) fn is_installed() -> bool {
    programs::are_available(&[&programs::NATS_SERVER])
}

pub(super) async fn open(config: &BackplaneConfig) -> Result<Open, Down> {
    Nats::new(config).open().await
}

/// Why it cannot be opened.
pub(super) async fn refusal(config: &BackplaneConfig) -> String {
    any_log::refusal(Nats::new(config)).await
}

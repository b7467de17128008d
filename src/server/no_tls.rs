//! Stands in for `tls` in a build without the feature `tls`: no server has one.

use std::io;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use mio::net::TcpStream;

use super::BindError;
use super::conn_context::ConnContext;
use super::reactor::{Accepted, Transport};
use crate::config::Config;
use crate::http::Verdict;

/// The certificate in use, of which a build without the feature `tls` has none.
#[derive(Clone, Debug)]
pub enum Tls {}

/// A connection behind TLS before its first request; there are none.
#[derive(Debug)]
pub(crate) enum Handshake {}

/// What one read has come to.
#[derive(Debug)]
#[expect(dead_code, reason = "made by the feature `tls`")]
pub(crate) enum Progress {
    /// There is more to come.
    Waits,
    /// There may be more to read, which nothing announces.
    Unread,
    /// The first data.
    Data(Bytes),
    /// A task has to go on.
    Leaves,
}

// ===== impl Tls =====

impl Tls {
    pub(super) fn is_configured(_config: &Config) -> bool {
        false
    }

    pub(super) fn load(_config: &Config) -> Result<Option<Self>, BindError> {
        Ok(None)
    }

    pub(super) fn reload_and_log(&self) {
        match *self {}
    }

    pub(super) fn has_changed(&self) -> bool {
        match *self {}
    }

    pub(super) fn expires(&self) -> Option<SystemTime> {
        match *self {}
    }

    pub(super) fn warn_if_invalid(&self) {
        match *self {}
    }

    pub(super) fn begin(&self) -> Handshake {
        match *self {}
    }
}

// ===== impl Handshake =====

impl Handshake {
    pub(crate) fn has_begun(&self) -> bool {
        match *self {}
    }

    pub(crate) fn advance(&mut self, _: &mut TcpStream, _: &mut [u8]) -> io::Result<Progress> {
        match *self {}
    }

    pub(crate) fn into_transport(self, _used: usize, _: TcpStream) -> io::Result<Transport> {
        match self {}
    }

    pub(crate) fn serve(self, _: Accepted, _: Duration, _: Option<Verdict>, _: ConnContext) {
        match self {}
    }
}

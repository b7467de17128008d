//! Stands in for `tls` in a build without the feature `tls`: no server has one.

use std::future::Ready;

use super::BindError;
use super::conn_context::ConnContext;
use super::reactor::Accepted;
use crate::config::Config;

/// The certificate in use, of which a build without the feature `tls` has none.
#[derive(Clone, Debug)]
pub enum Tls {}

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

    pub(super) fn warn_if_invalid(&self) {
        match *self {}
    }

    pub(super) fn serve(&self, _accepted: Accepted, _context: ConnContext) -> Ready<()> {
        match *self {}
    }
}

//! Stands in for `tokens` in a build without the feature `jwt`: every token is invalid.

use super::AuthError;
use super::claims::Claims;
use crate::config::AuthConfig;
use crate::time::Time;

#[derive(Debug)]
pub(super) struct Tokens;

/// No token is ever found to be anything.
pub(super) enum Verification {
    Valid(Claims),
    WaitForKeys(Box<PendingToken>),
}

pub(super) enum PendingToken {}

// ===== impl Tokens =====

impl Tokens {
    pub(super) fn new(_config: &AuthConfig) -> Self {
        Self
    }

    pub(super) fn prefetch(&self, _now: Time) {}

    pub(super) fn is_ready(&self, _now: Time) -> bool {
        true
    }

    pub(super) fn replace_keys(&self, _config: &AuthConfig) {}

    pub(super) fn refetch(&self, _now: Time) {}

    pub(super) fn close(&self) {}

    pub(super) fn verify(&self, _token: &str, _now: Time) -> Result<Verification, AuthError> {
        Err(AuthError::Invalid("no key is known that it could be signed with"))
    }

    pub(super) async fn verify_pending(
        &self,
        pending: Box<PendingToken>,
    ) -> Result<Claims, AuthError> {
        match *pending {}
    }
}

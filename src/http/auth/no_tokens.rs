//! Stands in for `tokens` in a build without the feature `jwt`: no token is good.

use std::future::{Future, Ready};

use super::claims::Claims;
use crate::config::AuthConfig;
use crate::ids::Time;

#[derive(Debug)]
pub(super) struct Tokens;

// ===== impl Tokens =====

impl Tokens {
    pub(super) fn new(_config: &AuthConfig) -> Self {
        Self
    }

    pub(super) fn prefetch(&self, _now: Time) {}

    pub(super) fn are_published(&self) -> bool {
        false
    }

    pub(super) fn keys_for(
        &self,
        _token: &str,
        _now: Time,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        None::<Ready<()>>
    }

    pub(super) fn verify(&self, _token: &str) -> Result<Claims, &'static str> {
        Err("no key is known that it could be signed with")
    }
}

//! Where a token has its claims: in those of this server, or where the configuration names them.

use jsonwebtoken::errors::Result;
use jsonwebtoken::{DecodingKey, Validation, decode};
use serde_json::Value;

use super::claims::Claims;
use crate::config::{AuthConfig, ClaimPointer};

/// The claims that the settings put in the place of `org` and `orgs`, and of `scope`.
#[derive(Debug)]
pub(super) struct Layout {
    org: Option<ClaimPointer>,
    scope: Option<ClaimPointer>,
}

// ===== impl Layout =====

impl Layout {
    pub(super) fn new(config: &AuthConfig) -> Self {
        Self { org: config.org_claim.clone(), scope: config.scope_claim.clone() }
    }

    /// The claims of a token that this key has signed.
    ///
    /// # Errors
    /// It has not, or the token is invalid.
    pub(super) fn decode(
        &self,
        token: &str,
        key: &DecodingKey,
        validation: &Validation,
    ) -> Result<Claims> {
        if let Self { org: None, scope: None } = self {
            return Ok(decode::<Claims>(token, key, validation)?.claims);
        }
        let claims = decode::<Value>(token, key, validation)?.claims;
        let pointers = [&self.org, &self.scope].map(|pointer| pointer.as_ref());
        let [org, scope] = pointers.map(|pointer| pointer.map(ClaimPointer::as_str));
        Ok(Claims::read(&claims, org, scope)?)
    }
}

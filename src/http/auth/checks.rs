//! What is checked of a token beside its signature, and the errors of the library in words.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation, decode_header};

use crate::config::{AuthConfig, TOKEN_BYTES_MAX, TOKEN_SKEW};

/// What the library checks of the claims, after the signature. `iss` and `aud` are required if they are
/// configured, because the library accepts a token that lacks them.
pub(super) fn validation(algorithm: Algorithm, config: &AuthConfig) -> Validation {
    let mut validation = Validation::new(algorithm);
    let mut required = vec!["exp"];
    validation.validate_nbf = true;
    // The skew applies to `nbf` only: a stream ends at its `exp`, so none may begin after it.
    validation.leeway = TOKEN_SKEW.as_secs();
    // A token is invalid "on or after" its `exp` (RFC 7519, 4.1.4), for the library only after it.
    validation.reject_tokens_expiring_in_less_than = TOKEN_SKEW.as_secs() + 1;
    if !config.issuers.is_empty() {
        validation.set_issuer(&config.issuers);
        required.push("iss");
    }
    validation.validate_aud = !config.audiences.is_empty();
    if validation.validate_aud {
        validation.set_audience(&config.audiences);
        required.push("aud");
    }
    validation.set_required_spec_claims(&required);
    validation
}

/// Decodes the header of a token, none of which is verified yet.
pub(super) fn decode_limited(token: &str) -> Result<Header, &'static str> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err("it is longer than 8192 bytes");
    }
    let header = decode_header(token)
        .map_err(|_| "it is not a JWT signed by an algorithm that is allowed")?;
    // An extension that is critical and not understood makes a token invalid (RFC 7515, 4.1.11).
    if header.crit.is_some() {
        return Err("it has critical extensions, of which none is known");
    }
    Ok(header)
}

/// What is wrong with the claims of a token; `None` if its signature is.
pub(super) fn invalid_claims(kind: &ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::ExpiredSignature => "it has expired",
        // The library's error for an `exp` smaller than the time that it subtracts.
        ErrorKind::InvalidToken => "it has expired",
        ErrorKind::ImmatureSignature => "it is not valid yet (nbf)",
        ErrorKind::InvalidIssuer => "it is from another issuer (iss)",
        ErrorKind::InvalidAudience => "it is for another audience (aud)",
        ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
            "exp" => "it has no time at which it expires (exp)",
            "iss" => "it names no issuer (iss)",
            _ => "it names no audience (aud)",
        },
        ErrorKind::InvalidClaimFormat(_) | ErrorKind::Json(_) | ErrorKind::Utf8(_) => {
            "its claims are not of the expected types"
        }
        _ => return None,
    })
}

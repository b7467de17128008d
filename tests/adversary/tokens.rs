//! Tokens: the honest clients', and forged ones.

use std::time::SystemTime;

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use crate::stage::SECRET;

/// A token that may read and publish everything.
pub(crate) fn honest() -> String {
    sign(&json!({ "org": "*", "scope": "subscribe publish", "exp": expiry() }))
}

/// The token of a customer that has turned hostile: it may do everything, in its own org only.
pub(crate) fn hostile() -> String {
    let scope = "subscribe publish exclusive";
    sign(&json!({ "org": "evil", "topics": "*", "scope": scope, "exp": expiry() }))
}

/// Tokens that look right until their signature is verified: with the secret's algorithm, with a published key's name,
/// without a name, and with a name that no set has.
pub(crate) fn forged(number: usize) -> String {
    let header = match number % 4 {
        0 => json!({ "alg": "HS256", "typ": "JWT" }),
        1 => json!({ "alg": "EdDSA", "typ": "JWT", "kid": "key-1" }),
        2 => json!({ "alg": "EdDSA", "typ": "JWT" }),
        _ => json!({ "alg": "EdDSA", "typ": "JWT", "kid": format!("none-{number}") }),
    };
    let claims = json!({ "org": "*", "scope": "subscribe", "exp": expiry() });
    let part = |value: &Value| base64(value.to_string().as_bytes());
    // A signature on Ed25519 with a small enough second half is verified completely.
    let mut signature = [7; 64];
    signature[63] = 0;
    let length = if number.is_multiple_of(4) { 32 } else { 64 };
    format!("{}.{}.{}", part(&header), part(&claims), base64(&signature[..length]))
}

fn sign(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), claims, &key).expect("it signs")
}

/// In a day, whatever the length of a run.
fn expiry() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    now.as_secs() + 24 * 60 * 60
}

/// Base64 for URLs, without padding (RFC 4648, 5).
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let letter = |bits: u32| char::from(LETTERS[(bits & 63) as usize]);
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let at = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        let letters = [bits >> 18, bits >> 12, bits >> 6, bits].map(letter);
        text.extend(&letters[..=three.len()]);
    }
    text
}

//! Which keys a token is verified with, and when it waits for others.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, encode};
use serde_json::json;

use super::*;
use crate::config::JwksConfig;

const OURS: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";

/// Public keys on Ed25519 (RFC 8037, A.2; RFC 8032, 7.1).
const FIRST: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
const SECOND: &str = "PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw";

fn sign(secret: &str, exp: u64) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    encode(&Header::default(), &json!({ "exp": exp }), &key).expect("a token")
}

fn refused(verified: Result<Verification, AuthError>) -> AuthError {
    verified.err().expect("it is refused")
}

/// A set that cannot be fetched: its address has no listener.
fn unreachable() -> JwksConfig {
    JwksConfig::new("http://127.0.0.1:1/keys".parse().expect("a URL"))
}

#[tokio::test]
async fn only_a_token_that_a_published_key_may_have_signed_waits_for_the_set() {
    let tokens = Tokens::new(&AuthConfig {
        keys: vec![TokenKey::from_secret(OURS).expect("32 bytes")],
        jwks: Some(unreachable()),
        ..AuthConfig::default()
    });
    let verify = |token: &str| tokens.verify(token, Time(0));
    let invalid = |token: &str| refused(verify(token));
    assert!(matches!(verify(&sign(OURS, 1 << 40)), Ok(Verification::Valid(_))));
    assert_eq!(invalid(&sign(OURS, 1)), AuthError::Invalid("it has expired"));
    assert!(matches!(invalid("no token"), AuthError::Invalid(_)));
    let unfit = AuthError::Invalid("its signature does not fit");
    assert_eq!(invalid(&sign(OTHER, 1 << 40)), unfit, "a set has no secrets");
    let foreign = forged(&json!({"alg": "EdDSA"}));
    let Ok(Verification::WaitForKeys(pending)) = verify(&foreign) else {
        panic!("nothing is fetched");
    };
    assert_eq!(tokens.verify_pending(pending).await.err(), Some(AuthError::NoKeysYet));
    assert_eq!(invalid(&foreign), AuthError::NoKeysYet, "a fetch for each token");
}

/// SCENARIO: the keys of an issuer have no names, and clients send forged tokens while they are fetched again.
#[tokio::test]
async fn a_token_that_waited_is_verified_with_keys_that_it_was_not_verified_with_before() {
    let tokens = published(vec![None; 4]);
    let before = VERIFICATIONS.get();
    let verifications = || VERIFICATIONS.get() - before;
    let interval = Time(0).after(JwksConfig::INTERVAL);
    let verify = |now| tokens.verify(&forged(&json!({"alg": "EdDSA"})), now);
    let pending = |now| match verify(now) {
        Ok(Verification::WaitForKeys(pending)) => pending,
        _ => panic!("nothing is fetched"),
    };
    let unfit = AuthError::Invalid("its signature does not fit");
    assert_eq!(refused(verify(Time(interval.0 - 1))), unfit, "before the interval has passed");
    assert_eq!(verifications(), 4);
    let waits = pending(interval);
    assert_eq!(tokens.verify_pending(waits).await.err(), Some(unfit));
    assert_eq!(verifications(), 8, "again, with the same keys");
    // This fetch brings one that is new.
    let later = interval.after(JwksConfig::INTERVAL);
    let waits = pending(later);
    let set = [FIRST, FIRST, FIRST, SECOND].map(ed_key).into();
    tokens.jwks.as_ref().expect("configured").set_keys(set, later);
    assert_eq!(tokens.verify_pending(waits).await.err(), Some(unfit));
    assert_eq!(verifications(), 13);
}

#[tokio::test]
async fn an_old_secret_verifies_tokens_before_its_date_only() {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let secret = |text| TokenKey::from_secret(text).expect("32 bytes");
    let keys = vec![secret(OURS), secret(OTHER).with_end(at(1_000))];
    let tokens = Tokens::new(&AuthConfig { keys, ..AuthConfig::default() });
    let verify = |secret, wall| tokens.verify_at(&sign(secret, 1 << 40), Time(0), wall);
    for (secret, seconds) in [(OURS, 999), (OURS, 1_000), (OTHER, 999)] {
        assert!(matches!(verify(secret, at(seconds)), Ok(Verification::Valid(_))));
    }
    let unfit = AuthError::Invalid("its signature does not fit");
    assert_eq!(refused(verify(OTHER, at(1_000))), unfit);
    tokens.replace_keys(&AuthConfig { keys: vec![secret(OTHER)], ..AuthConfig::default() });
    assert!(matches!(verify(OTHER, at(1_000)), Ok(Verification::Valid(_))));
    assert_eq!(refused(verify(OURS, at(1_000))), unfit);
}

/// A token that no key has signed: its signature is of zeros.
fn forged(header: &serde_json::Value) -> String {
    let key = EncodingKey::from_secret(OTHER.as_bytes());
    let encode = |json| encode(&Header::default(), json, &key).expect("a token");
    let [header, claims] = [encode(header), encode(&json!({ "exp": 1_u64 << 40 }))];
    let payload = |token: &str| token.split('.').nth(1).expect("of three").to_owned();
    format!("{}.{}.{}", payload(&header), payload(&claims), "A".repeat(86))
}

/// A key on Ed25519.
fn ed_key(x: &str) -> TokenKey {
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x});
    TokenKey::from_jwk(&serde_json::from_value(jwk).expect("a JWK")).expect("a key")
}

/// Tokens with a published set of as many keys of one algorithm, with these names.
fn published(names: impl IntoIterator<Item = Option<String>>) -> Tokens {
    let keys: Vec<_> = names.into_iter().map(|id| TokenKey { id, ..ed_key(FIRST) }).collect();
    let tokens = Tokens::new(&AuthConfig { jwks: Some(unreachable()), ..AuthConfig::default() });
    tokens.publish(keys);
    tokens
}

fn verifications(tokens: &Tokens, header: &serde_json::Value) -> (usize, &'static str) {
    let before = VERIFICATIONS.get();
    let AuthError::Invalid(why) = refused(tokens.verify(&forged(header), Time(0))) else {
        panic!("there are keys");
    };
    (VERIFICATIONS.get() - before, why)
}

/// SCENARIO: an issuer publishes 32 keys, and a client without any of them sends forged tokens.
/// BUG: one without a `kid`, or against keys without one, was tried with all of them: 3.4 ms of a core.
/// FIX: if more than four published keys could have signed a token, it has to name one, or none is tried.
#[tokio::test]
async fn a_forged_token_is_verified_with_few_keys_however_many_are_published() {
    let few = "its signature does not fit";
    let many = "too many published keys could have signed it (kid)";
    let (named, nameless) = (json!({"alg": "EdDSA", "kid": "7"}), json!({"alg": "EdDSA"}));
    let names = |count| (0..count).map(|number| Some(number.to_string()));
    assert_eq!(verifications(&published(names(32)), &named), (1, few));
    assert_eq!(verifications(&published(names(4)), &nameless), (4, few));
    assert_eq!(verifications(&published(names(32)), &nameless), (0, many));
    assert_eq!(verifications(&published(vec![None; 32]), &nameless), (0, many));
    assert_eq!(verifications(&published(vec![None; 32]), &named), (0, many));
    assert_eq!(verifications(&published(vec![Some("7".into()); 32]), &named), (0, many));
    // The keys that have the token's name are the only ones.
    let mixed = || names(32).chain(vec![None; 8]);
    assert_eq!(verifications(&published(mixed()), &named), (1, few));
    // Those without a name are what a token without one may mean, if there are any.
    let mixed = names(30).chain([None, None]);
    assert_eq!(verifications(&published(mixed), &nameless), (2, few));
}

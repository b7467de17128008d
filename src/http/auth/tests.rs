//! Requests with several credentials, of which some wait for published keys.

use http::{HeaderMap, header};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;

use super::*;
use crate::config::{JwksConfig, TokenKey};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Public keys on Ed25519 (RFC 8032, 7.1), and the private one of the first.
const FIRST: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
const SECOND: &str = "PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw";
const PRIVATE: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20\
    \x9d\x61\xb1\x9d\xef\xfd\x5a\x60\xba\x84\x4a\xf4\x92\xec\x2c\xc4\
    \x44\x49\xc5\x69\x7b\x32\x69\x19\x70\x3b\xac\x03\x1c\xae\x7f\x60";

/// Published keys cannot be fetched: their address has no listener.
fn auth() -> Auth {
    let url = "http://127.0.0.1:1/keys".parse().expect("a URL");
    let keys = vec![TokenKey::from_secret(SECRET).expect("32 bytes")];
    Auth::new(&AuthConfig { keys, jwks: Some(JwksConfig::new(url)), ..AuthConfig::default() })
}

fn published(x: &str) -> Vec<TokenKey> {
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x});
    vec![TokenKey::from_jwk(&serde_json::from_value(jwk).expect("a JWK")).expect("a key")]
}

fn sign(algorithm: Algorithm, key: &EncodingKey, org: &str, exp: u64) -> String {
    let claims = json!({"org": org, "scope": "subscribe", "exp": exp});
    encode(&Header::new(algorithm), &claims, key).expect("a token")
}

/// A token of the secret.
fn token(org: &str, exp: u64) -> String {
    sign(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()), org, exp)
}

/// A token of the first published key.
fn unknown(exp: u64) -> String {
    sign(Algorithm::EdDSA, &EncodingKey::from_ed_der(PRIVATE), "acme", exp)
}

/// What becomes of a request with these cookies.
fn authorize(auth: &Auth, tokens: &[&str]) -> Result<Authorization, AuthError> {
    let org = "acme".parse().expect("a name");
    let permission =
        Permission { scope: Scope::Subscribe, org: Some(&org), topic: None, is_exclusive: false };
    authorize_for(auth, tokens, permission)
}

fn authorize_for(
    auth: &Auth,
    tokens: &[&str],
    permission: Permission<'_>,
) -> Result<Authorization, AuthError> {
    let mut headers = HeaderMap::new();
    for token in tokens {
        let line = format!("nudged_token={token}").parse().expect("a value");
        headers.append(header::COOKIE, line);
    }
    let uri = "/api/acme/events".parse().expect("a URI");
    let request = Presented { headers: &headers, uri: &uri, is_foreign: false };
    auth.authorize(request, permission, Time(0))
}

#[tokio::test]
async fn a_credential_that_waits_for_keys_does_not_hold_up_a_good_one() {
    let (unknown, good) = (unknown(1 << 40), token("acme", 1 << 40));
    for tokens in [[&*unknown, &good], [&good, &unknown]] {
        let granted = authorize(&auth(), &tokens);
        assert!(matches!(granted, Ok(Authorization::Granted(_))));
    }
}

fn pending(auth: &Auth, tokens: &[&str]) -> PendingAuthorization {
    match authorize(auth, tokens) {
        Ok(Authorization::WaitForKeys(pending)) => pending,
        _ => panic!("it does not wait"),
    }
}

/// What cannot be judged yet may be good, whatever the others are. With keys the first counts.
#[tokio::test]
async fn a_request_that_waited_in_vain_gets_the_error_of_the_first_credential() {
    let (unknown, other) = (unknown(1 << 40), unknown(1 << 41));
    let (old, elsewhere) = (token("acme", 1), token("shop", 1 << 40));
    for (tokens, verified, refused) in [
        ([&*unknown, &*old, &*other], 3, AuthError::Invalid("its signature does not fit")),
        ([&old, &unknown, &other], 3, AuthError::Invalid("it has expired")),
        ([&elsewhere, &unknown, &old], 3, AuthError::Org),
    ] {
        let auth = auth();
        let waits = pending(&auth, &tokens);
        assert_eq!(auth.authorize_pending(waits).await.err(), Some(AuthError::NoKeysYet));

        let auth = self::auth();
        let before = VERIFICATIONS.get();
        let waits = pending(&auth, &tokens);
        auth.tokens.publish(published(SECOND));
        assert_eq!(auth.authorize_pending(waits).await.err(), Some(refused));
        assert_eq!(VERIFICATIONS.get() - before, verified, "each of them once");
    }
}

#[tokio::test]
async fn a_request_is_granted_by_the_first_good_key_that_it_waited_for() {
    let (unknown, old) = (unknown(1 << 40), token("acme", 1));
    let auth = auth();
    let waits = pending(&auth, &[&old, "x", &unknown]);
    auth.tokens.publish(published(FIRST));
    assert!(auth.authorize_pending(waits).await.is_ok());
}

/// A token waits with all that its request needs.
#[tokio::test]
async fn a_request_that_waited_needs_its_topic_and_the_scope_exclusive() {
    let topic = Topic { org: "acme".parse().expect("a name"), name: "run-7".parse().expect("one") };
    let token = |scope: &str, topics: &str| {
        let claims = json!({
            "org": "acme", "scope": scope, "topics": topics, "exp": 1_u64 << 40,
        });
        encode(&Header::new(Algorithm::EdDSA), &claims, &EncodingKey::from_ed_der(PRIVATE))
            .expect("a token")
    };
    for (token, is_exclusive, expected) in [
        (token("subscribe", "run-*"), false, None),
        (token("subscribe", "job-*"), false, Some(AuthError::Topic)),
        (unknown(1 << 40), false, Some(AuthError::Topic)),
        (token("subscribe", "*"), true, Some(AuthError::Scope(Scope::Exclusive))),
        (token("subscribe exclusive", "job-1"), true, Some(AuthError::Topic)),
        (token("subscribe exclusive", "run-7"), true, None),
    ] {
        let auth = auth();
        let permission =
            Permission { is_exclusive, ..Permission::for_topic(Scope::Subscribe, &topic) };
        let Ok(Authorization::WaitForKeys(waits)) = authorize_for(&auth, &[&token], permission)
        else {
            panic!("it does not wait")
        };
        auth.tokens.publish(published(FIRST));
        assert_eq!(auth.authorize_pending(waits).await.err(), expected, "{is_exclusive}");
    }
}

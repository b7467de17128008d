//! Requests with several credentials, of which some wait for published keys.

use http::{HeaderMap, header};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;

use super::*;
use crate::config::{JwksConfig, TokenKey};

const OURS: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";

/// Published keys cannot be fetched: their address has no listener.
fn auth() -> Auth {
    let url = "http://127.0.0.1:1/keys".parse().expect("a URL");
    let keys = vec![TokenKey::from_secret(OURS).expect("32 bytes")];
    Auth::new(&AuthConfig { keys, jwks: Some(JwksConfig::new(url)), ..AuthConfig::default() })
}

fn token(secret: &str, org: &str, exp: u64) -> String {
    let claims = json!({"org": org, "scope": "subscribe", "exp": exp});
    let key = EncodingKey::from_secret(secret.as_bytes());
    encode(&Header::default(), &claims, &key).expect("a token")
}

/// What becomes of a request with these cookies.
fn authorize(auth: &Auth, tokens: &[&str]) -> Result<Authorization, AuthError> {
    let mut headers = HeaderMap::new();
    for token in tokens {
        let line = format!("nudged_token={token}").parse().expect("a value");
        headers.append(header::COOKIE, line);
    }
    let uri = "/api/acme/events".parse().expect("a URI");
    let request = Presented { headers: &headers, uri: &uri, ignores_cookies: false };
    let org = "acme".parse().expect("a name");
    auth.authorize(request, Permission { scope: Scope::Subscribe, org: Some(&org) }, Time(0))
}

#[tokio::test]
async fn a_credential_that_waits_for_keys_does_not_hold_up_a_good_one() {
    let (unknown, good) = (token(OTHER, "acme", 1 << 40), token(OURS, "acme", 1 << 40));
    for tokens in [[&*unknown, &good], [&good, &unknown]] {
        let auth = auth();
        assert!(matches!(authorize(&auth, &tokens), Ok(Authorization::Granted(_))));
    }
}

/// Each token is verified once by the keys that there are, and once more by those that were waited for.
#[tokio::test]
async fn a_request_waits_for_keys_if_no_other_credential_is_good() {
    let unknown = token(OTHER, "acme", 1 << 40);
    let other = token(OTHER, "acme", 1 << 41);
    let (old, elsewhere) = (token(OURS, "acme", 1), token(OURS, "shop", 1 << 40));
    let signature = AuthError::Invalid("its signature does not fit");
    for (tokens, refused) in [
        ([&*unknown, &*old, &*other], signature),
        ([&old, &unknown, &other], AuthError::Invalid("it has expired")),
        ([&elsewhere, &unknown, &old], AuthError::Org),
    ] {
        let auth = auth();
        let before = VERIFICATIONS.get();
        let Ok(Authorization::WaitForKeys(pending)) = authorize(&auth, &tokens) else {
            panic!("it does not wait");
        };
        assert_eq!(VERIFICATIONS.get() - before, 3);
        assert_eq!(auth.authorize_pending(pending).await.err(), Some(refused));
    }
}

#[tokio::test]
async fn a_request_is_granted_by_the_first_good_key_that_it_waited_for() {
    let (unknown, old) = (token(OTHER, "acme", 1 << 40), token(OURS, "acme", 1));
    let auth = auth();
    let Ok(Authorization::WaitForKeys(pending)) = authorize(&auth, &[&old, "x", &unknown]) else {
        panic!("it does not wait");
    };
    let key = TokenKey::from_secret(OTHER).expect("32 bytes");
    auth.tokens.publish(vec![key]);
    assert!(auth.authorize_pending(pending).await.is_ok());
}

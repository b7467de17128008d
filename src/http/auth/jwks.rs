//! Published keys (RFC 7517): one set, fetched when a token names a key that is not in it or when it has
//! become old, and kept as it is when that fails. Nobody needs a timer for that.

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use http::uri::Scheme;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jsonwebtoken::Header;
use jsonwebtoken::jwk::Jwk;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use tokio::sync::watch;

use crate::config::{JWKS_BYTES_MAX, JWKS_KEYS_MAX, JwksConfig, TokenKey};
use crate::ids::Time;
use crate::sync::Mutex;

/// The set of keys that a URL publishes.
#[derive(Debug)]
pub(super) struct Jwks {
    config: JwksConfig,
    /// Or why there is none: the system has no certificate authorities.
    connector: Result<HttpsConnector<HttpConnector>, String>,
    state: Mutex<State>,
    /// Told when a fetch has ended, in whatever way.
    ended: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    keys: Arc<[TokenKey]>,
    fetched: Option<Time>,
    tried: Option<Time>,
    fetching: bool,
}

/// A fetch under way. Its end is told however it comes, even if its worker is gone.
struct Fetching(Arc<Jwks>);

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

// ===== impl Jwks =====

impl Jwks {
    pub(super) fn new(config: JwksConfig) -> Self {
        let connector = connector(config.url.uri());
        let state = State { keys: [].into(), fetched: None, tried: None, fetching: false };
        Self { config, connector, state: Mutex::new(state), ended: watch::Sender::new(()) }
    }

    /// The keys as they are now.
    pub(super) fn keys(&self) -> Arc<[TokenKey]> {
        self.state.lock().keys.clone()
    }

    /// Whether the set has a key that the token can be signed with, as far as it says.
    pub(super) fn knows(&self, header: &Header) -> bool {
        self.state.lock().keys.iter().any(|key| key.fits(header))
    }

    /// Fetches again what has become old, while it still serves.
    pub(super) fn refresh(self: &Arc<Self>, now: Time) {
        let fetched = self.state.lock().fetched;
        if fetched.is_some_and(|then| now >= then.after(self.config.refresh)) {
            self.fetch(now);
        }
    }

    /// Fetches the set, once for all who ask meanwhile, and not before the interval is over. Returns
    /// what tells the end of the fetch.
    pub(super) fn fetch(self: &Arc<Self>, now: Time) -> Option<watch::Receiver<()>> {
        let mut state = self.state.lock();
        // Under the lock, before the fetch begins: its end cannot be missed.
        let ended = self.ended.subscribe();
        if state.fetching {
            return Some(ended);
        }
        if state.tried.is_some_and(|then| now < then.after(self.config.interval)) {
            return None;
        }
        state.tried = Some(now);
        state.fetching = true;
        drop(state);
        let fetching = Fetching(self.clone());
        tokio::spawn(async move {
            let Fetching(jwks) = &fetching;
            match jwks.load().await {
                Ok(keys) => {
                    tracing::info!(count = keys.len(), "keys were fetched");
                    let mut state = jwks.state.lock();
                    state.keys = keys.into();
                    state.fetched = Some(now);
                }
                Err(why) => {
                    let host = jwks.config.url.host();
                    tracing::warn!(%why, host, "keys could not be fetched; the last ones stay");
                }
            }
        });
        Some(ended)
    }

    async fn load(&self) -> Result<Vec<TokenKey>, String> {
        #[expect(clippy::disallowed_methods, reason = "a fetch of keys, not a stream")]
        let loaded = tokio::time::timeout(self.config.timeout, self.get());
        let body = loaded.await.map_err(|_| "it took too long")??;
        parse(&body)
    }

    async fn get(&self) -> Result<Bytes, String> {
        let connector = self.connector.clone()?;
        let request = Request::get(Uri::clone(self.config.url.uri()))
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .header(header::USER_AGENT, concat!("nudged/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .expect("every part was checked");
        // A client for each fetch, and no connection kept: the next one may be on another worker.
        let client =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        let response = client.request(request).await.map_err(|why| chain(&why))?;
        if response.status() != StatusCode::OK {
            return Err(format!("it answered {}", response.status().as_u16()));
        }
        let body = Limited::new(response.into_body(), JWKS_BYTES_MAX).collect().await;
        body.map(|body| body.to_bytes()).map_err(|why| chain(&*why))
    }
}

/// Trusts whom the system trusts. Without TLS nobody has to be, so that a system without authorities
/// can ask a loopback address.
fn connector(url: &Uri) -> Result<HttpsConnector<HttpConnector>, String> {
    let builder = HttpsConnectorBuilder::new();
    let builder = if url.scheme() == Some(&Scheme::HTTPS) {
        builder
            .with_provider_and_native_roots(default_provider())
            .map_err(|why| format!("no certificate authorities on this system: {why}"))?
    } else {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|why| why.to_string())?;
        let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        builder.with_tls_config(config)
    };
    Ok(builder.https_or_http().enable_http1().build())
}

/// The keys of a set that we can use. Others may stand beside them (RFC 7517, 5), but a set without
/// any is taken for a mistake.
fn parse(body: &[u8]) -> Result<Vec<TokenKey>, String> {
    let set: Set =
        serde_json::from_slice(body).map_err(|why| format!("it is no key set: {why}"))?;
    let jwks = set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
    let keys = jwks.filter_map(|jwk| TokenKey::from_jwk(&jwk).ok());
    let keys: Vec<_> = keys.take(JWKS_KEYS_MAX).collect();
    if keys.is_empty() {
        return Err("it has no key for RS256, ES256 or EdDSA".into());
    }
    Ok(keys)
}

/// An error with its causes, which is where the clients of hyper say what happened.
fn chain(why: &dyn Error) -> String {
    match why.source() {
        Some(cause) => format!("{why}: {}", chain(cause)),
        None => why.to_string(),
    }
}

// ===== impl Fetching =====

impl Drop for Fetching {
    fn drop(&mut self) {
        self.0.state.lock().fetching = false;
        self.0.ended.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"a"}"#;

    fn ids(keys: &str) -> Result<Vec<Option<String>>, String> {
        let keys = parse(format!("{{\"keys\":[{keys}]}}").as_bytes())?;
        Ok(keys.into_iter().map(|key| key.id).collect())
    }

    #[test]
    fn keys_that_do_not_sign_are_skipped() {
        let others = [
            r#"{"kty":"oct","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY","alg":"HS256","kid":"s"}"#,
            r#"{"kty":"new","kid":"n"}"#,
            "{}",
            "3",
            &ED.replace("}", r#","use":"enc"}"#),
            &ED.replace("}", r#","alg":"ES256"}"#),
            r#"{"kty":"RSA","n":"AQAB","e":"AQAB","kid":"weak"}"#,
        ];
        for other in others {
            assert_eq!(ids(&format!("{other},{ED}")), Ok(vec![Some("a".into())]), "{other}");
            assert!(ids(other).is_err(), "{other}");
        }
        assert_eq!(ids(&[ED; 100].join(",")).map(|ids| ids.len()), Ok(JWKS_KEYS_MAX));
    }
}

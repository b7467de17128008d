//! Published keys (RFC 7517): one set, fetched when none of its keys verifies a token or when the set is too old, and
//! kept if that fails. This needs no timer: before the first set, probes of readiness have it fetched too.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use jsonwebtoken::jwk::Jwk;
use serde::Deserialize;
use tokio::sync::watch;

use crate::client::exchange::{Connection, USER_AGENT, read_limited, within};
use crate::client::tls::{HTTP_1, Tls};
use crate::client::{Error, Verify};
use crate::config::{JWKS_BYTES_MAX, JWKS_KEYS_MAX, JwksConfig, TokenKey};
use crate::sync::Mutex;
use crate::time::Time;

/// The set of keys at a URL.
#[derive(Debug)]
pub(super) struct Jwks {
    config: JwksConfig,
    /// The system's root certificates as they were at startup, or why there are none.
    tls: Result<Option<Tls>, String>,
    state: Mutex<State>,
    /// Notified when a fetch has ended, with or without keys.
    ended: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    /// What was fetched last, and when; `None` until a fetch has succeeded.
    set: Option<(Arc<[TokenKey]>, Time)>,
    tried: Option<Time>,
    fetching: bool,
    /// The server ends: no request waits for keys any more.
    closed: bool,
}

/// A fetch in progress. Notifies its end when dropped, even if its worker has ended.
struct Fetching(Arc<Jwks>);

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

// ===== impl Jwks =====

impl Jwks {
    pub(super) fn new(config: JwksConfig) -> Self {
        let tls = Tls::of(config.url.as_url(), &Verify::System, HTTP_1).map_err(explain);
        let state = State { set: None, tried: None, fetching: false, closed: false };
        Self { config, tls, state: Mutex::new(state), ended: watch::Sender::new(()) }
    }

    /// The keys as they are now; `None` until a fetch has succeeded.
    pub(super) fn keys(&self) -> Option<Arc<[TokenKey]>> {
        self.state.lock().set.as_ref().map(|(keys, _)| keys.clone())
    }

    /// Whether a fetch has ever succeeded.
    pub(super) fn has_keys(&self) -> bool {
        self.state.lock().set.is_some()
    }

    /// Puts a set in place of one that was fetched.
    #[cfg(test)]
    pub(super) fn set_keys(&self, keys: Vec<TokenKey>, now: Time) {
        let mut state = self.state.lock();
        (state.set, state.tried) = (Some((keys.into(), now)), Some(now));
    }

    /// Starts to fetch the set again if it is too old; until then the old one is used.
    pub(super) fn refresh(self: &Arc<Self>, now: Time) {
        let fetched = self.state.lock().set.as_ref().map(|(_, at)| *at);
        if fetched.is_some_and(|then| now >= then.after(self.config.refresh)) {
            self.fetch(now);
        }
    }

    /// Starts to fetch the set again whenever it was fetched last, unless a fetch is in progress. Not for requests:
    /// they could cause any number of fetches.
    pub(super) fn refetch(self: &Arc<Self>, now: Time) {
        self.state.lock().tried = None;
        self.fetch(now);
    }

    /// Has no request wait for a fetch any more.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.ended.send_replace(());
    }

    /// Starts to fetch the set, unless a fetch is in progress or was started within the interval.
    /// Returns what is notified of the end of the fetch.
    pub(super) fn fetch(self: &Arc<Self>, now: Time) -> Option<watch::Receiver<()>> {
        let mut state = self.state.lock();
        // Subscribed under the lock, before the fetch starts: its end cannot be missed.
        let ended = self.ended.subscribe();
        if state.closed {
            return None;
        }
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
                    jwks.state.lock().set = Some((keys.into(), now));
                }
                Err(why) => {
                    let host = jwks.config.url.as_url().host();
                    if jwks.has_keys() {
                        tracing::warn!(%why, host, "keys could not be fetched; the last ones stay");
                    } else {
                        tracing::warn!(%why, host, "keys could not be fetched; there are none yet");
                    }
                }
            }
        });
        Some(ended)
    }

    async fn load(&self) -> Result<Vec<TokenKey>, String> {
        let tls = self.tls.clone()?;
        let address = &self.config.url.as_url().address;
        let loaded = within(self.config.timeout, address, self.get(tls)).await;
        match loaded.and_then(|body| body).map_err(explain)? {
            Some(body) => parse(&body),
            None => Err(format!("it has more than {JWKS_BYTES_MAX} bytes")),
        }
    }

    async fn get(&self, tls: Option<Tls>) -> Result<Option<Bytes>, Error> {
        let url = self.config.url.as_url();
        let request = Request::get(&url.path)
            .header(header::HOST, &url.authority)
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .header(header::USER_AGENT, USER_AGENT)
            .body(Full::default())
            .expect("every part was checked when it was parsed");
        // Not kept for the next fetch, which may be on another worker's runtime.
        let mut connection = Connection::new(url.clone(), tls);
        let response = connection.send(request).await?;
        match response.status() {
            StatusCode::OK => read_limited(response, JWKS_BYTES_MAX).await,
            status => Err(Error::Refused { status, detail: None }),
        }
    }
}

/// Without the advice, which is about flags that a server does not have.
fn explain(why: Error) -> String {
    match why {
        Error::Tls { address, why } => format!("{address}: {}", why.reason()),
        why => why.to_string(),
    }
}

/// The usable keys of a set. Others are ignored (RFC 7517, 5), but a set without any usable key is an
/// error.
fn parse(body: &[u8]) -> Result<Vec<TokenKey>, String> {
    let set: Set = serde_json::from_slice(body).map_err(|why| format!("not a key set: {why}"))?;
    let jwks = set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
    let keys = jwks.filter_map(|jwk| TokenKey::from_jwk(&jwk).ok());
    let keys: Vec<_> = keys.take(JWKS_KEYS_MAX).collect();
    if keys.is_empty() {
        return Err("it has no key that may verify RS256, ES256 or EdDSA".into());
    }
    Ok(keys)
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
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;

    const ED: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"a"}"#;

    fn ids(keys: &str) -> Result<Vec<Option<String>>, String> {
        let keys = parse(format!("{{\"keys\":[{keys}]}}").as_bytes())?;
        Ok(keys.into_iter().map(|key| key.id).collect())
    }

    #[test]
    fn keys_that_cannot_verify_signatures_are_ignored() {
        let others = [
            r#"{"kty":"oct","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY","alg":"HS256","kid":"s"}"#,
            r#"{"kty":"new","kid":"n"}"#,
            "{}",
            "3",
            &ED.replace("}", r#","use":"enc"}"#),
            &ED.replace("}", r#","key_ops":["sign"]}"#),
            &ED.replace("}", r#","key_ops":[]}"#),
            &ED.replace("}", r#","use":"sig","key_ops":["encrypt","wrapKey"]}"#),
            &ED.replace("}", r#","use":"enc","key_ops":["verify"]}"#),
            &ED.replace("}", r#","key_ops":"verify"}"#),
            &ED.replace("}", r#","alg":"ES256"}"#),
            r#"{"kty":"RSA","n":"AQAB","e":"AQAB","kid":"weak"}"#,
        ];
        for other in others {
            assert_eq!(ids(&format!("{other},{ED}")), Ok(vec![Some("a".into())]), "{other}");
            assert!(ids(other).is_err(), "{other}");
        }
        for good in [
            r#","use":"sig"}"#,
            r#","key_ops":["verify"]}"#,
            r#","use":"sig","key_ops":["sign","new","verify"],"alg":"EdDSA"}"#,
        ] {
            assert_eq!(ids(&ED.replace("}", good)), Ok(vec![Some("a".into())]), "{good}");
        }
        assert_eq!(ids(&[ED; 100].join(",")).map(|ids| ids.len()), Ok(JWKS_KEYS_MAX));
    }

    /// The path that a fetch requests, and its result for this response.
    fn fetch(response: &str, timeout: Duration) -> (String, Result<usize, String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        let url = format!("http://{address}/keys?secret").parse().expect("a loopback address");
        let jwks = Jwks::new(JwksConfig { timeout, ..JwksConfig::new(url) });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        std::thread::scope(|scope| {
            let server = scope.spawn(|| {
                let (mut peer, _) = listener.accept().expect("a connection");
                let mut request = [0; 4096];
                let length = peer.read(&mut request).expect("a request");
                // The client may have disconnected.
                _ = peer.write_all(response.as_bytes());
                _ = peer.read(&mut [0; 1]);
                String::from_utf8_lossy(&request[..length]).into_owned()
            });
            let loaded = runtime.expect("a runtime").block_on(jwks.load());
            let request = server.join().expect("no panic");
            let path = request.split(' ').nth(1).expect("a request line").to_owned();
            (path, loaded.map(|keys| keys.len()))
        })
    }

    #[test]
    fn a_fetch_follows_no_redirect_and_is_bounded_in_size_and_time() {
        let ok = |body: &str| {
            let length = body.len();
            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")
        };
        let set = |padding: usize| {
            let padding = " ".repeat(padding);
            ok(&format!("{{\"keys\":[{ED}]}}{padding}"))
        };
        let redirect = "HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n";
        let (long, short) = (JwksConfig::TIMEOUT, Duration::from_millis(50));
        for (response, timeout, expected) in [
            (set(0), long, Ok(1)),
            (set(JWKS_BYTES_MAX), long, Err("more than")),
            (redirect.to_owned(), long, Err("302 Found")),
            (String::new(), short, Err("within 50ms")),
            (set(0)[..40].to_owned(), short, Err("within 50ms")),
            ("no HTTP\r\n\r\n".to_owned(), long, Err("the connection broke")),
        ] {
            let (path, loaded) = fetch(&response, timeout);
            assert_eq!(path, "/keys?secret");
            match (loaded, expected) {
                (Ok(count), Ok(expected)) => assert_eq!(count, expected),
                (Err(why), Err(expected)) => {
                    assert!(why.contains(expected) && !why.contains("secret"), "{why}");
                }
                (loaded, expected) => panic!("{loaded:?}, expected {expected:?}"),
            }
        }
    }
}

//! Requests before the first fetch of a JWK set has succeeded.

use super::key_server::{Keys, raw_key};
use super::{PUBLISH_KEY, SECRET, bearer, get_with, key_pair, mint, mint_with, publish, status_of};
use crate::support::programs::{OPENSSL, requires};
use crate::support::temp_dir::TempDir;
use crate::support::{Answer, Server, Transport, eventually};

/// A response whose detail says that there are no keys yet, and when to come back.
fn is_for_now(answer: &Answer) {
    assert_eq!(answer.status(), 503, "{answer:?}");
    let seconds: u32 = answer.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((1..=5).contains(&seconds), "{answer:?}");
    assert_eq!(answer.header("www-authenticate"), None, "{answer:?}");
    assert!(answer.problem().contains("no keys yet"), "{answer:?}");
}

/// SCENARIO: a server starts while the server of its JWK set is down, and a page opens a stream with a good token.
/// BUG: the response was 401, after which an `EventSource` never comes back, and `/readyz` responded 200, so that
/// balancers sent all pages there.
/// FIX: what only the missing keys could judge is answered for now, and the server is not ready. What other keys judge
/// is served, and a bad token is refused.
#[test]
fn until_keys_are_fetched_a_token_is_answered_for_now() {
    requires!(OPENSSL);
    let folder = TempDir::new();
    let [private, public] = key_pair(&folder, "one", &["-algorithm", "ED25519"]);
    let token = mint_with(&["--org", "acme", "--scope", "subscribe,publish", "--key", &private]);
    let events = "/api/acme/events";
    for transport in Transport::all() {
        let keys = Keys::start();
        let url = keys.url();
        let set = ["--jwks-url", &url, "--jwt-audience", "any", "--jwks-interval", "100ms"];
        let other = ["--jwt-secret", SECRET, "--publish-key", PUBLISH_KEY];
        let server =
            Server::start_on(transport, &[&set[..], &other, &["--jwks-refresh", "1s"]].concat());

        // A browser's request, twice: by the reactor's path, and within a connection that hyper has.
        let browser = format!("accept: text/event-stream\r\n{}", bearer(&token));
        let mut client = server.connect();
        for request in [
            format!("GET {events} HTTP/1.1\r\nhost: t\r\n{browser}\r\n"),
            format!(
                "GET {events}?token={token} HTTP/1.1\r\nhost: t\r\naccept: text/event-stream\r\n\r\n"
            ),
        ] {
            client.send(&request);
            let answer = client.read_answer();
            assert_eq!(answer.status(), 200, "{answer:?}");
            let kind = answer.header("content-type").expect("a type");
            assert!(kind.starts_with("text/event-stream"), "{answer:?}");
            let (retry, rest) = answer.body.split_once('\n').expect("lines");
            let retry = retry.strip_prefix("retry: ").expect("a time").parse().expect("a number");
            assert!((1_000..=5_000).contains(&retry), "{answer:?}");
            assert!(rest.starts_with(": there are no keys yet"), "{answer:?}");
        }
        is_for_now(&get_with(&server, events, &bearer(&token)));
        is_for_now(&publish(&server, &token));
        is_for_now(&server.get("/readyz"));
        assert_eq!(server.get("/livez").status(), 200);

        // What needs none of these keys.
        assert_eq!(server.get(events).status(), 401);
        assert_eq!(status_of(&server, "x"), 401);
        let secret = mint(&["--org", "acme"]);
        let (unsigned, _) = secret.rsplit_once('.').expect("three parts");
        assert_eq!(status_of(&server, &format!("{unsigned}.AAAA")), 401, "no set has secrets");
        server.stream_with(events, &bearer(&secret)).connected();
        server.stream_with("/api/acme/public/events", "").connected();
        assert_eq!(publish(&server, PUBLISH_KEY).status(), 202);

        // A probe is enough to have the keys fetched.
        keys.publish(&[(None, &raw_key(&public))]);
        eventually("it is ready", || server.get("/readyz").status() == 200);
        server.stream_with(events, &bearer(&token)).connected();
        // A set that is gone is no reason to be unready: the keys are still there.
        keys.fail();
        let requests = keys.requests();
        eventually("fetches fail", || {
            server.stream_with(events, &bearer(&token)).connected();
            keys.requests() > requests + 2
        });
        assert_eq!(server.get("/readyz").status(), 200);
    }
}

/// SCENARIO: the first fetch takes long, and requests wait for it.
/// BUG: when it had failed, they got 401.
/// FIX: they are answered for now too.
#[test]
fn a_request_that_waited_for_a_fetch_that_failed_is_answered_for_now() {
    requires!(OPENSSL);
    let folder = TempDir::new();
    let [private, _] = key_pair(&folder, "one", &["-algorithm", "ED25519"]);
    let token = mint_with(&["--org", "acme", "--key", &private, "--kid", "1"]);
    for transport in Transport::all() {
        let keys = Keys::start();
        keys.fall_silent();
        let url = keys.url();
        let set = ["--jwks-url", &url, "--jwt-audience", "any", "--jwks-timeout", "1s"];
        let server =
            Server::start_on(transport, &[&set[..], &["--jwks-interval", "100ms"]].concat());
        let mut browser = server.connect();
        browser.send(&format!(
            "GET /api/acme/events HTTP/1.1\r\nhost: t\r\naccept: text/event-stream\r\n{}\r\n",
            bearer(&token)
        ));
        let answer = browser.read_answer();
        assert_eq!(answer.status(), 200, "{answer:?}");
        assert!(answer.body.starts_with("retry: "), "{answer:?}");
        is_for_now(&get_with(&server, "/api/acme/events", &bearer(&token)));
    }
}

//! Keys of a JWK set that are replaced by others, and bad tokens that look as if they were.

use std::time::{Duration, Instant};

use super::key_server::{Keys, raw_key};
use super::{bearer, key_pair, mint_with, publish, status_of, status_of_stream};
use crate::support::programs::{OPENSSL, requires};
use crate::support::temp_dir::TempDir;
use crate::support::{Server, eventually};

struct Pair {
    private: String,
    public: String,
}

fn pairs(folder: &TempDir) -> [Pair; 2] {
    ["one", "two"].map(|name| {
        let [private, public] = key_pair(folder, name, &["-algorithm", "ED25519"]);
        Pair { private, public: raw_key(&public) }
    })
}

impl Pair {
    fn sign(&self, kid: Option<&str>) -> String {
        let kid = kid.map(|kid| ["--kid", kid]);
        let args = ["--org", "acme", "--scope", "subscribe,publish", "--key", &self.private];
        mint_with(&[&args[..], kid.as_ref().map_or(&[][..], |kid| kid)].concat())
    }
}

fn server(keys: &Keys, more: &[&str]) -> Server {
    let url = keys.url();
    Server::start(&[&["--jwks-url", &url, "--jwt-audience", "any"], more].concat())
}

/// SCENARIO: an issuer whose keys have no `kid` replaces its key, and pages come with tokens of the new one.
/// BUG: a key without a name counted as known to every token, so nothing fetched the new one until `--jwks-refresh` (10
/// min).
/// FIX: a token that no key verifies has the set fetched again, with or without names, and waits for it.
#[test]
fn a_rotation_is_noticed_whether_or_not_keys_and_tokens_have_names() {
    requires!(OPENSSL);
    let folder = TempDir::new();
    let [one, two] = pairs(&folder);
    // The names of the keys, before and after, and of the tokens.
    for (names, of_tokens) in [
        ([None, None], [None, None]),
        ([None, None], [Some("1"), Some("2")]),
        ([Some("1"), Some("2")], [None, None]),
        // An issuer that uses a name twice.
        ([Some("1"), Some("1")], [Some("1"), Some("1")]),
    ] {
        let keys = Keys::start();
        keys.publish(&[(names[0], &one.public)]);
        let times = ["--jwks-interval", "100ms", "--jwks-refresh", "1h", "--jwks-timeout", "1m"];
        let server = server(&keys, &times);
        let (old, new) = (one.sign(of_tokens[0]), two.sign(of_tokens[1]));
        let mut stream = server.stream_with("/api/acme/events", &bearer(&old));
        stream.connected();
        keys.publish(&[(names[1], &two.public)]);
        // The interval has passed then. An `EventSource` has one try only.
        std::thread::sleep(Duration::from_millis(150));
        assert_eq!(status_of_stream(&server, &new), 200, "{names:?} {of_tokens:?}");
        assert_eq!(status_of(&server, &old), 401, "{names:?} {of_tokens:?}");
        assert_eq!(publish(&server, &new).status(), 202);
        assert!(stream.next().contains("event: invalidate\n"));
    }
}

/// Clients without any key send tokens, to a set whose keys have no names.
#[test]
fn bad_tokens_cause_no_more_fetches_than_the_interval_allows_and_delay_no_good_one() {
    requires!(OPENSSL);
    let folder = TempDir::new();
    let [one, two] = pairs(&folder);
    let (good, bad) = (one.sign(None), two.sign(None));
    let keys = Keys::start();
    keys.publish(&[(None, &one.public)]);
    let flags = ["--jwks-interval", "300ms", "--jwks-timeout", "1m", "--workers", "1"];
    let server = server(&keys, &flags);
    server.stream_with("/api/acme/events", &bearer(&good)).connected();
    let (requests, start) = (keys.requests(), Instant::now());
    (0..200).for_each(|_| assert_eq!(status_of(&server, &bad), 401));
    let fetches = keys.requests() - requests;
    let most = start.elapsed().as_millis() / 300 + 2;
    assert!(fetches as u128 <= most, "{fetches} fetches, {most} allowed by the interval");

    // While a fetch takes long, only what no key verifies waits for it.
    keys.fall_silent();
    let requests = keys.requests();
    let mut waiting = Vec::new();
    eventually("a bad token has keys fetched", || {
        let mut client = server.connect();
        client.send(&format!("GET /api/acme/events HTTP/1.1\r\nhost: t\r\n{}\r\n", bearer(&bad)));
        waiting.push(client);
        keys.requests() > requests
    });
    let mut last = server.connect();
    last.send(&format!("GET /api/acme/events HTTP/1.1\r\nhost: t\r\n{}\r\n", bearer(&bad)));
    for _ in 0..10 {
        server.stream_with("/api/acme/events", &bearer(&good)).connected();
    }
    server.settle();
    assert!(last.is_silent(), "it waits for the keys");
    assert_eq!(keys.requests(), requests + 1);
}

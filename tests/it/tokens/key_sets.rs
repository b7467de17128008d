//! JWK sets that are fetched, and change while streams are open.
#![expect(clippy::disallowed_methods, reason = "tests use the real clock")]

use std::time::Instant;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::key_server::{Keys, raw_key};
use super::{bearer, key_pair, mint_with, status_of, status_of_stream};
use crate::support::certificate::Certificate;
use crate::support::programs::{OPENSSL, requires};
use crate::support::temp_dir::TempDir;
use crate::support::{Server, Transport, eventually};

/// A server that accepts tokens of these keys, for any audience.
fn server(keys: &Keys, more: &[&str]) -> Server {
    let url = keys.url();
    Server::start(&[&["--jwks-url", &url, "--jwt-audience", "any"], more].concat())
}

/// While streams are open, a token uses a key that the server has not fetched yet; the set's server fails; tokens name
/// unknown keys.
#[test]
fn keys_are_fetched_when_needed_and_kept_when_fetching_fails() {
    requires!(OPENSSL);
    let folder = TempDir::new();
    let pairs = ["one", "two"].map(|name| key_pair(&folder, name, &["-algorithm", "ED25519"]));
    let [one, two] = pairs.each_ref().map(|[_, public]| raw_key(public));
    let tokens = [("1", 0), ("2", 1)]
        .map(|(kid, pair)| mint_with(&["--org", "acme", "--key", &pairs[pair][0], "--kid", kid]));
    let unknown = mint_with(&["--org", "acme", "--key", &pairs[0][0], "--kid", "3"]);

    let keys = Keys::start();
    keys.publish(&[(Some("1"), &one)]);
    let server = server(&keys, &["--jwks-interval", "300ms"]);
    let mut first = server.stream_with("/api/acme/events", &bearer(&tokens[0]));
    first.connected();

    keys.publish(&[(Some("1"), &one), (Some("2"), &two)]);
    eventually("the new key is accepted", || status_of_stream(&server, &tokens[1]) == 200);

    keys.fail();
    assert_eq!(status_of(&server, &unknown), 401);
    for token in &tokens {
        server.stream_with("/api/acme/events", &bearer(token)).connected();
    }

    let requests = keys.requests();
    let start = Instant::now();
    (0..200).for_each(|_| assert_eq!(status_of(&server, &unknown), 401));
    let fetches = keys.requests() - requests;
    let most = start.elapsed().as_millis() / 300 + 2;
    assert!(fetches as u128 <= most, "{fetches} fetches, {most} allowed by the interval");
}

/// All requests carry a token with a known key, so that only the periodic refresh fetches the set again.
#[test]
fn a_token_of_a_withdrawn_key_opens_no_more_streams() {
    requires!(OPENSSL);
    let folder = TempDir::new();
    let pairs = ["one", "two"].map(|name| key_pair(&folder, name, &["-algorithm", "ED25519"]));
    let [one, two] = pairs.each_ref().map(|[_, public]| raw_key(public));
    let token = mint_with(&["--org", "acme", "--key", &pairs[0][0], "--kid", "1"]);
    let keys = Keys::start();
    keys.publish(&[(Some("1"), &one)]);
    let server = server(&keys, &["--jwks-interval", "100ms", "--jwks-refresh", "1s"]);
    eventually("the key is accepted", || status_of_stream(&server, &token) == 200);
    keys.publish(&[(Some("2"), &two)]);
    eventually("it is withdrawn", || status_of_stream(&server, &token) == 401);
}

/// `SSL_CERT_FILE` replaces the root certificates of the system.
#[test]
fn keys_are_fetched_over_https_with_the_root_certificates_of_the_system() {
    requires!(OPENSSL);
    let folder = TempDir::new();
    let authority = Certificate::make_with(
        &["basicConstraints=critical,CA:TRUE"],
        &folder.path().join("authority"),
        "a private authority",
    );
    let leaf = authority.sign(&folder.path().join("leaf"), "keys");
    let chain = CertificateDer::from_pem_file(&leaf.certificate).expect("PEM");
    let key = PrivateKeyDer::from_pem_file(&leaf.key).expect("PEM");
    let provider = rustls::crypto::aws_lc_rs::default_provider().into();
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .expect("a pair");
    let [private, public] = key_pair(&folder, "one", &["-algorithm", "ED25519"]);
    let keys = Keys::start_with(Some(tls));
    keys.publish(&[(Some("1"), &raw_key(&public))]);
    let token = mint_with(&["--org", "acme", "--key", &private, "--kid", "1"]);
    let url = format!("https://127.0.0.1:{}/keys", keys.port());
    for (trusted, status) in [(&authority, 200), (&Certificate::of_tests(), 503)] {
        let mut command = Server::command();
        command.env("SSL_CERT_FILE", &trusted.certificate).env_remove("SSL_CERT_DIR");
        let requests = keys.requests();
        let server = Server::start_as(
            command,
            Transport::Http1,
            &["--jwks-url", &url, "--jwt-audience", "any", "--jwks-interval", "300ms"],
        );
        eventually("the server has fetched the keys", || keys.requests() > requests);
        assert_eq!(status_of_stream(&server, &token), status);
    }
}

/// SCENARIO: an issuer signs tokens for several services with the same keys, and one of them is nudged.
/// BUG: without `--jwt-audience` tokens that were made for another service opened streams.
/// FIX: with a JWK set an audience has to be named, or the word `any` says on purpose that each will do.
#[test]
fn a_key_set_needs_an_audience() {
    requires!(OPENSSL);
    let folder = TempDir::new();
    let [private, public] = key_pair(&folder, "one", &["-algorithm", "ED25519"]);
    let keys = Keys::start();
    keys.publish(&[(None, &raw_key(&public))]);
    let url = keys.url();
    let set = ["--listen", "127.0.0.1:0", "--jwks-url", &url];
    for (audiences, why) in [
        (&[][..], "--jwt-audience any"),
        (&["--jwt-audience", "any,nudged"], "stands alone"),
        (&["--jwt-audience", "any", "--jwt-audience", "any"], "stands alone"),
    ] {
        let (code, message) = Server::refuses_to_start(&[&set[..], audiences].concat());
        assert!(code.is_some_and(|code| code != 0), "{message}");
        assert!(message.contains("--jwt-audience") && message.contains(why), "{message}");
    }
    let token =
        |audience: &str| mint_with(&["--org", "acme", "--key", &private, "--audience", audience]);
    for (accepted, other) in [("nudged,edge", 401), ("any", 200)] {
        let server = Server::start(&[&set[..], &["--jwt-audience", accepted]].concat());
        assert_eq!(status_of_stream(&server, &token("edge")), 200, "{accepted}");
        assert_eq!(status_of_stream(&server, &token("billing")), other, "{accepted}");
    }
}

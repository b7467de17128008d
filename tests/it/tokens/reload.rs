//! SIGHUP: keys and secrets are read again, and no stream ends.

use std::fs::{remove_file, rename, write};
use std::process::{Command, Stdio};

use super::key_server::{Keys, raw_key};
use super::{SECRET, bearer, key_pair, mint_with, publish, status_of, status_of_stream};
use crate::support::certificate::Certificate;
use crate::support::log::Log;
use crate::support::programs::{OPENSSL, requires};
use crate::support::server::Signal;
use crate::support::temp_dir::TempDir;
use crate::support::{Server, Transport, eventually};

const NEW: &str = "fedcba9876543210fedcba9876543210";
const THIRD: &str = "0123456789fedcba0123456789fedcba";

fn server(transport: Transport, flags: &[&str]) -> (Server, Log) {
    let mut command = Server::command();
    command.stderr(Stdio::piped());
    let flags = [flags, &["--log", "nudged=info"]].concat();
    let mut server = Server::start_as(command, transport, &flags);
    let log = Log::of(&mut server);
    (server, log)
}

fn token(secret: &str) -> String {
    mint_with(&["--secret", secret, "--org", "acme", "--scope", "subscribe,publish"])
}

/// Replaces a file atomically.
fn replace(file: &str, text: &str) {
    let new = format!("{file}.new");
    write(&new, text).expect("a file");
    rename(new, file).expect("a rename");
}

/// SCENARIO: an operator replaces a secret and sends SIGHUP.
/// BUG: it was read at the start only: each rotation needed a restart, which ended every stream.
/// FIX: it is read again on SIGHUP and within 5 s of a change. Streams that are open go on.
#[test]
fn secrets_and_public_keys_are_read_again_and_streams_go_on() {
    requires!(OPENSSL);
    for transport in Transport::all() {
        let folder = TempDir::new();
        let [one, two] =
            ["one", "two"].map(|name| key_pair(&folder, name, &["-algorithm", "ED25519"]));
        let signed = |private: &str| mint_with(&["--org", "acme", "--key", private]);
        let (secret, public) = (folder.file("secret"), folder.file("public.pem"));
        let pem = |file: &str| std::fs::read_to_string(file).expect("a file");
        replace(&secret, SECRET);
        replace(&public, &pem(&one[1]));
        let flags = ["--jwt-secret-file", &secret, "--jwt-key", &public];
        let (server, log) = server(transport, &flags);
        let opened = [token(SECRET), signed(&one[0])];
        let mut streams = opened.each_ref().map(|token| {
            let mut stream = server.stream_with("/api/acme/events", &bearer(token));
            stream.connected();
            stream
        });

        replace(&secret, NEW);
        replace(&public, &pem(&two[1]));
        server.signal(Signal::HUP);
        for file in [&secret, &public] {
            log.line(&["INFO", "were read again", file]);
        }
        for new in [token(NEW), signed(&two[0])] {
            server.stream_with("/api/acme/events", &bearer(&new)).connected();
        }
        for old in &opened {
            assert_eq!(status_of(&server, old), 401);
        }
        assert_eq!(publish(&server, &token(NEW)).status(), 202);
        for stream in &mut streams {
            assert!(stream.next().contains("event: invalidate\n"));
        }

        // Without a signal.
        replace(&secret, THIRD);
        eventually("the change is noticed", || status_of_stream(&server, &token(THIRD)) == 200);
    }
}

/// A file that is gone, that has no valid secret, or whose key is private.
#[test]
fn a_file_that_cannot_be_used_is_named_in_the_log_and_its_keys_stay() {
    requires!(OPENSSL);
    let folder = TempDir::new();
    let [private, public] = key_pair(&folder, "one", &["-algorithm", "ED25519"]);
    let (secret, pem) = (folder.file("secret"), folder.file("public.pem"));
    let text = std::fs::read_to_string(&public).expect("a file");
    replace(&secret, SECRET);
    replace(&pem, &text);
    let flags = ["--jwt-secret-file", &secret, "--jwt-key", &pem];
    let (server, log) = server(Transport::Http1, &flags);
    let tokens = [token(SECRET), mint_with(&["--org", "acme", "--key", &private])];
    let other = std::fs::read_to_string(&private).expect("a file");
    for (file, spoiled) in [
        (&secret, Some("")),
        (&secret, Some("short")),
        (&secret, None),
        (&pem, Some("garbage")),
        (&pem, Some(&other)),
        (&pem, None),
    ] {
        match spoiled {
            Some(text) => replace(file, text),
            None => remove_file(file).expect("a file"),
        }
        server.signal(Signal::HUP);
        let line = log.line(&["ERROR", "stay", file]);
        assert!(!line.contains("short") && !line.contains("garbage"), "{line}");
        for token in &tokens {
            assert_eq!(status_of_stream(&server, token), 200, "{file} {spoiled:?}");
        }
        replace(&secret, SECRET);
        replace(&pem, &text);
        server.signal(Signal::HUP);
        log.line(&["were read again", file]);
    }
}

/// SCENARIO: an operator has a secret, or the key of the certificate, in a pipe, as in `--tls-key <(command)`, and
/// sends SIGHUP.
/// BUG: to open a pipe without a writer blocks the thread that handles signals: SIGTERM did nothing any more.
/// FIX: only regular files are read again.
#[test]
fn a_pipe_in_place_of_a_file_blocks_nothing() {
    requires!(OPENSSL);
    let folder = TempDir::new();
    let certificate = Certificate::make(&folder.path().join("tls"), "in a pipe");
    let secret = folder.file("secret");
    replace(&secret, SECRET);
    let flags = [&["--jwt-secret-file", &secret][..], &certificate.flags()].concat();
    for (file, what) in [(&secret, "keys could not"), (&certificate.key, "the certificate in use")]
    {
        let text = std::fs::read_to_string(file).expect("a file");
        let (mut server, log) = server(Transport::Http1, &flags);
        remove_file(file).expect("a file");
        let made = Command::new("mkfifo").arg(file).status().expect("mkfifo(1)");
        assert!(made.success());
        server.signal(Signal::HUP);
        log.line(&["ERROR", what, "no regular file", file]);
        remove_file(file).expect("a pipe");
        replace(file, &text);
        server.signal(Signal::TERM);
        assert_eq!(server.wait(), Some(0));
    }
}

/// No token needs another key, and no time has passed.
#[test]
fn a_jwk_set_is_fetched_again() {
    requires!(OPENSSL);
    let folder = TempDir::new();
    let [one, two] = ["one", "two"].map(|name| key_pair(&folder, name, &["-algorithm", "ED25519"]));
    let keys = Keys::start();
    keys.publish(&[(None, &raw_key(&one[1]))]);
    let url = keys.url();
    let flags = ["--jwks-url", &url, "--jwt-audience", "any", "--jwks-interval", "1h"];
    let (server, log) = server(Transport::Http1, &flags);
    log.line(&["keys were fetched"]);
    let [old, new] =
        [&one, &two].map(|[private, _]| mint_with(&["--org", "acme", "--key", private]));
    let mut stream = server.stream_with("/api/acme/events", &bearer(&old));
    stream.connected();
    keys.publish(&[(None, &raw_key(&two[1]))]);
    server.signal(Signal::HUP);
    log.line(&["keys were fetched"]);
    assert_eq!((status_of_stream(&server, &new), status_of(&server, &old)), (200, 401));
    keys.fail();
    server.signal(Signal::HUP);
    log.line(&["the last ones stay"]);
    assert_eq!(status_of_stream(&server, &new), 200);
}

//! `openssl s_client`, which updates its keys at a command: `K` requests an update of the server's too, `k` does not.

use std::process::Command;

use super::record::Message;
use super::server::Records;
use super::tap::Transcript;
use super::{Answers, EVERY, Program, Site};
use crate::support::certificate::Certificate;
use crate::support::eventually;
use crate::support::programs::{OPENSSL, requires};

const UPDATING: Records =
    Records { request_update_after: Some(EVERY), end_after: None, keep: false };

/// Opens a stream. Ended with `Q`, it sends close_notify.
pub(super) fn open(site: &Site, flags: &[&str]) -> Program {
    let address = site.tap.address.to_string();
    let mut command = Command::new("openssl");
    command.args([
        "s_client",
        "-connect",
        &address,
        "-CAfile",
        &Certificate::of_tests().certificate,
    ]);
    command.args(["-verify_return_error", "-keylogfile", &site.key_log(), "-msg"]).args(flags);
    let mut client = Program::start(&mut command);
    client.write("GET /api/acme/events HTTP/1.1\r\nhost: t\r\n\r\n");
    eventually("its stream is open", || client.wrote("event: connected"));
    client
}

fn close(mut client: Program, site: &Site) {
    client.write("Q\n");
    assert_eq!(client.process.wait(), Some(0));
    site.ends_as("client");
}

#[test]
fn s_client_requests_key_updates() {
    requires!(OPENSSL);
    let site = Site::start(UPDATING);
    let mut client = open(&site, &["-tls1_3"]);
    let requests = |seen: &Transcript| Transcript::key_updates(&seen.server, true);
    let answers = |seen: &Transcript| Transcript::key_updates(&seen.server, false);
    let mut count = 0;
    let mut publish_until = |client: &Program, what: &str, holds: &dyn Fn(&Transcript) -> bool| {
        for attempt in 0.. {
            let seen = site.tap.until("the stream is recorded", |_| true);
            if holds(&seen) {
                return;
            }
            assert!(attempt < 100, "{what}: {seen:?}");
            let key = format!("e{count}-");
            site.server.publish(&key);
            eventually(&format!("the client receives {key}"), || client.received(&key));
            count += 1;
        }
    };
    publish_until(&client, "the server has requested an update", &|seen| requests(seen) == 1);
    for round in 1..=3 {
        client.write("K\n");
        site.tap.until("K is sent", |seen| Transcript::key_updates(&seen.client, true) == round);
        publish_until(&client, "K is answered", &|seen| answers(seen) == round);
    }
    // Together with an answer that it has not sent yet, `k` is one key update.
    let sent = |seen: &Transcript| Transcript::key_updates(&seen.client, false);
    for _ in 1..=3 {
        let before = sent(&site.tap.until("the stream is recorded", |_| true));
        client.write("k\n");
        site.tap.until("k is sent", |seen| sent(seen) > before);
    }
    let before = site.tap.until("the stream is recorded", |_| true);
    publish_until(&client, "the server requests more", &|seen| {
        requests(seen) == requests(&before) + 2
    });
    close(client, &site);
    let seen = site.tap.until("close_notify is recorded", |seen| {
        seen.client.last().is_some_and(|last| last.message == Message::Alert(0))
    });
    assert_eq!(answers(&seen), 3, "k is not answered");
    assert!(seen.client.last().expect("records").generation >= 6, "{seen:?}");
}

#[test]
fn every_cipher_suite_updates_its_keys() {
    requires!(OPENSSL);
    for (name, number) in [
        ("TLS_AES_128_GCM_SHA256", 0x1301),
        ("TLS_AES_256_GCM_SHA384", 0x1302),
        ("TLS_CHACHA20_POLY1305_SHA256", 0x1303),
    ] {
        let site = Site::start(UPDATING);
        let mut client = open(&site, &["-tls1_3", "-ciphersuites", name]);
        site.updates_keys(Answers::AllButOne, |key| client.received(key));
        client.write("K\n");
        let seen =
            site.tap.until("K is sent", |seen| Transcript::key_updates(&seen.client, true) == 1);
        assert_eq!(seen.suite, number);
        for key in super::keys("more", 10) {
            site.publish_in_turn(&[key], |key| client.received(key));
        }
        site.tap.until("K is answered", |seen| Transcript::key_updates(&seen.server, false) == 1);
        close(client, &site);
    }
}

#[test]
fn a_resumed_session_opens_a_stream() {
    requires!(OPENSSL);
    let site = Site::start(UPDATING);
    let ticket = site.dir.file("ticket");
    let first = open(&site, &["-tls1_3", "-sess_out", &ticket]);
    eventually("the client has a ticket", || {
        std::fs::metadata(&ticket).is_ok_and(|file| file.len() > 0)
    });
    drop(first);
    eventually("the first seat is free", || site.server.seats() == 0);
    let mut second = open(&site, &["-tls1_3", "-sess_in", &ticket]);
    assert!(second.wrote("Reused, TLSv1.3"), "{}", second.output());
    site.publish_in_turn(&super::keys("e", 12), |key| second.received(key));
    second.write("K\n");
    site.publish_in_turn(&super::keys("f", 12), |key| second.received(key));
    eventually("both sides have updated their keys", || {
        let streams = site.tap.streams();
        assert_eq!(streams.len(), 2);
        let seen = &streams[1];
        let sides = [&seen.client, &seen.server];
        sides.iter().all(|side| [true, false].iter().all(|r| Transcript::key_updates(side, *r) > 0))
    });
}

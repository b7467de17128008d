//! Sessions that can be taken over, and others.

use std::io::Write as _;

use rustls::CipherSuite;

use super::super::*;
use super::pair::{SUITES, Sessions};

const SUITE: CipherSuite = SUITES[1];

fn refusal(sessions: Sessions, updates_max: u32) -> String {
    let taken = RecordLayer::take_over(sessions.server, &sessions.secrets, updates_max);
    taken.expect_err("refused").to_string()
}

#[test]
fn a_session_that_has_something_to_send_is_refused() {
    let mut sessions = Sessions::new(SUITE);
    sessions.server.writer().write_all(b"HTTP/1.1 200 OK").expect("a session");
    assert_eq!(refusal(sessions, 0), "the session has records to send");
}

/// SCENARIO: a client asks for a key update, and then for a stream.
/// BUG: rustls withholds its answer until there is data, and `wants_write` is false meanwhile; the session was taken
/// over with its next key and without the answer, and the client could read nothing.
/// FIX: `flush` has the session give the answer too, and a session that was not flushed is refused.
#[test]
fn an_answer_that_rustls_withholds_is_something_to_send() {
    let mut sessions = Sessions::new(SUITE);
    sessions.client.refresh_traffic_keys().expect("TLS 1.3");
    sessions.client_sends();
    assert!(!sessions.server.wants_write());
    assert_eq!(refusal(sessions, 1), "the session has records to send");
}

#[test]
fn a_session_with_more_key_updates_than_were_counted_is_refused() {
    let updated = |updates| {
        let mut sessions = Sessions::new(SUITE);
        for _ in 0..updates {
            sessions.client.refresh_traffic_keys().expect("TLS 1.3");
            sessions.client_sends();
        }
        flush(&mut sessions.server, &mut Vec::new()).expect("memory");
        sessions
    };
    for updates in 0..4 {
        updated(updates + 1).take_over(updates);
        let why = "the session's keys do not come from its first traffic secrets";
        assert_eq!(refusal(updated(updates + 2), updates), why);
    }
}

#[test]
fn secrets_of_another_session_are_refused() {
    for suite in SUITES {
        let mut sessions = Sessions::new(suite);
        sessions.secrets = Sessions::new(suite).secrets;
        let why = "the session's keys do not come from its first traffic secrets";
        assert_eq!(refusal(sessions, 64), why);
    }
    let mut sessions = Sessions::new(SUITES[0]);
    sessions.secrets = Sessions::new(SUITES[1]).secrets;
    let why = "the session's cipher suite is not known, or its secrets are not";
    assert_eq!(refusal(sessions, 64), why);
}

#[test]
fn a_session_that_does_not_give_its_keys_away_is_refused() {
    let mut sessions = Sessions::new(SUITE);
    sessions.server = crate::server::tls::test_sessions::sessions_in_memory().0;
    let why =
        "the session's keys cannot be extracted: unexpected error: Secret extraction is disabled";
    assert_eq!(refusal(sessions, 0), why);
}

#[test]
fn a_session_of_tls_1_2_is_refused_and_derives_no_traffic_secrets() {
    let (server, secrets) = super::pair::tls12();
    assert!(secrets.is_none());
    let secrets = Sessions::new(SUITE).secrets;
    let taken = RecordLayer::take_over(server, &secrets, 0);
    assert_eq!(taken.expect_err("refused").to_string(), "the session is not one of TLS 1.3");
}

#[test]
fn a_session_that_is_resumed_or_begins_with_a_retry_is_taken_over() {
    for sessions in super::pair::other_handshakes() {
        let mut pair = sessions.take_over(0);
        let wire = pair.seal(b"data: 1\n\n");
        assert_eq!(pair.client_reads(&wire), b"data: 1\n\n");
        let mut record = pair.client_writes(b"x").remove(0);
        assert_eq!(pair.layer.open(&mut record), Ok(Received::Data));
    }
}

//! A session of rustls goes on: its client reads and writes as before.

use super::super::*;
use super::pair::{Pair, SUITES, Sessions};

#[test]
fn a_client_of_rustls_reads_what_is_sealed_and_its_close_notify_opens() {
    for suite in SUITES {
        let mut pair = Pair::new(suite);
        for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
            let wire = pair.seal(event.as_bytes());
            assert_eq!(pair.client_reads(&wire), event.as_bytes());
        }
        let mut record = pair.client_writes(b"x").remove(0);
        assert_eq!(pair.layer.open(&mut record), Ok(Received::Data));
        pair.client.send_close_notify();
        let mut record = pair.client_records().remove(0);
        assert_eq!(pair.layer.open(&mut record), Ok(Received::Closed));
    }
}

#[test]
fn key_updates_of_either_side_are_followed() {
    for suite in SUITES {
        let mut pair = Pair::new(suite);
        for turn in 0..3 {
            pair.client.refresh_traffic_keys().expect("TLS 1.3");
            for mut record in pair.client_writes(b"x") {
                pair.layer.open(&mut record).expect("valid");
            }
            assert!(pair.layer.update_is_due());
            let event = format!("data: {turn}\n\n");
            let wire = pair.seal(event.as_bytes());
            assert_eq!(pair.client_reads(&wire), event.as_bytes());
        }
        let mut wire = Vec::new();
        pair.layer.request_key_update(&mut wire);
        wire.extend(pair.seal(b"data: 9\n\n"));
        assert_eq!(pair.client_reads(&wire), b"data: 9\n\n");
        let answers = pair.client_writes(b"x");
        let opened = answers.into_iter().map(|mut record| pair.layer.open(&mut record));
        assert_eq!(opened.collect::<Vec<_>>(), [Ok(Received::KeyUpdate), Ok(Received::Data)]);
    }
}

#[test]
fn key_updates_before_the_take_over_are_followed() {
    for suite in SUITES {
        for updates in 0..4 {
            let mut sessions = Sessions::new(suite);
            for _ in 0..updates {
                sessions.client.refresh_traffic_keys().expect("TLS 1.3");
                sessions.client_sends();
            }
            let mut wire = Vec::new();
            flush(&mut sessions.server, &mut wire).expect("memory");
            let mut pair = sessions.take_over(updates);
            wire.extend(pair.seal(b"data: 1\n\n"));
            assert_eq!(pair.client_reads(&wire), b"data: 1\n\n");
            let mut record = pair.client_writes(b"x").remove(0);
            assert_eq!(pair.layer.open(&mut record), Ok(Received::Data));
        }
    }
}

//! The load generator measures over TLS and HTTP/2 what it measures on cleartext, and reports what is wrong with a
//! server's certificate.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use nudged::bench::{Load, Options, run};
use nudged::client::Verify;
use rustls::version::{TLS12, TLS13};

use crate::support::bench_server::{
    Deliver, MISSED_AFTER, PACE, address, assert_all_delivered, event, options, server, to_all,
    until,
};
use crate::support::programs::{OPENSSL, requires};
use crate::support::tls_proxy::{STREAMS_MAX, TlsProxy};

/// The same server, behind TLS.
fn proxy(base: &str) -> TlsProxy {
    TlsProxy::start("IP:127.0.0.1", address(base))
}

/// HTTP/1.1 and HTTP/2, each over TLS to its own server.
fn secured(deliver: Deliver, subscribers: usize) -> [(TlsProxy, Options); 2] {
    [None, Some(3)].map(|http2| {
        let proxy = proxy(&server(deliver));
        let options =
            Options { verify: proxy.trust(), http2, ..options(&proxy.url(), subscribers) };
        (proxy, options)
    })
}

#[test]
fn tls_and_http2_are_measured_like_cleartext() {
    requires!(OPENSSL);
    for (version, http2) in [(&TLS12, None), (&TLS13, None), (&TLS12, Some(3)), (&TLS13, Some(3))] {
        let base = server(to_all);
        let proxy = TlsProxy::start_version(version, address(&base));
        let options = Options { verify: proxy.trust(), http2, ..options(&proxy.url(), 20) };
        let summary = run(&options, Arc::default(), |_| {}).unwrap();
        assert!(summary.is_clean(), "{version:?}: {summary}");
        assert_all_delivered(&summary, 20);
    }
}

#[test]
fn an_event_that_arrives_in_pieces_is_assembled() {
    requires!(OPENSSL);
    // Longer than a TLS record, a frame, a socket buffer and a window.
    let long: Deliver = |streams, text| {
        to_all(streams, &format!("{}{text}{}", "x".repeat(100_000), "y".repeat(300_000)));
    };
    for (_proxy, options) in secured(long, 3) {
        let summary = run(&options, Arc::default(), |_| {}).unwrap();
        assert!(summary.is_clean(), "{summary}");
        assert_all_delivered(&summary, 3);
    }
}

/// SCENARIO: a flood of small events over HTTP/2, faster than the client reads them.
/// BUG: h2 closes a connection that buffers many small frames, and its streams were lost.
/// FIX: the only bound on what a connection buffers is its window.
#[test]
fn a_flood_of_small_events_over_http2_arrives() {
    requires!(OPENSSL);
    let flood: Deliver = |streams, text| {
        let small = event("x").repeat(2_000);
        let write = |mut stream: &TcpStream| stream.write_all(&small).unwrap();
        streams.iter().for_each(write);
        to_all(streams, text);
    };
    let [_, (_proxy, options)] = secured(flood, 8);
    let options = Options { http2: Some(8), drain_timeout: Duration::from_secs(60), ..options };
    let mut load = Load::new(&options, Arc::default()).unwrap();
    load.open(8, PACE, |_| {}).unwrap();
    load.publish(3, Duration::ZERO).unwrap();
    assert!(load.tally().is_clean(), "{:?}", load.tally());
    assert_eq!(load.tally().delivered, 24);
}

#[test]
fn faults_over_tls_are_detected_too() {
    requires!(OPENSSL);
    let wrong: Deliver = |streams, text| {
        to_all(&mut streams[1..], text);
        if text.contains("0000000001") {
            streams[2].shutdown(std::net::Shutdown::Both).unwrap();
            streams[1].write_all(b"0\r\n\r\n").unwrap();
        }
    };
    for (_proxy, options) in secured(wrong, 3) {
        let options = Options { drain_timeout: MISSED_AFTER, ..options };
        let mut load = Load::new(&options, Arc::default()).unwrap();
        load.open(3, PACE, |_| {}).unwrap();
        load.publish(2, Duration::ZERO).unwrap();
        until(&mut load, |load| load.subscribers() == 1);
        let tally = load.tally();
        assert_eq!((tally.delivered, tally.missed, tally.disconnects), (4, 2, 2), "{tally:?}");
    }
}

#[test]
fn a_status_other_than_200_counts_as_a_failed_stream_over_http2_too() {
    requires!(OPENSSL);
    let [_, (proxy, mut options)] = secured(to_all, 4);
    options.url = format!("{}/full", proxy.url());
    let summary = run(&options, Arc::default(), |_| {}).unwrap();
    assert_eq!((summary.tally.failed, summary.tally.failed_status), (4, Some(503)), "{summary}");
}

#[test]
fn more_streams_than_a_connection_may_have_fail_with_the_reason() {
    requires!(OPENSSL);
    let most = STREAMS_MAX as usize;
    let [_, (_proxy, options)] = secured(to_all, 2 * most);
    let options = Options { http2: Some(2 * most), ..options };
    let summary = run(&options, Arc::default(), |_| {}).unwrap();
    assert_eq!(summary.subscribers, most, "{summary}");
    assert!(summary.to_string().contains("(--streams-per-connection)"), "{summary}");
}

#[test]
fn streams_over_http2_can_be_closed_and_opened_again() {
    requires!(OPENSSL);
    let [_, (_proxy, options)] = secured(to_all, 4);
    let mut load = Load::new(&options, Arc::default()).unwrap();
    for reset in [true, false] {
        load.open(4, PACE, |_| {}).unwrap();
        assert_eq!(load.subscribers(), 4);
        load.close(reset).unwrap();
        assert_eq!(load.subscribers(), 0);
    }
}

#[test]
fn an_untrusted_certificate_ends_the_run_and_names_the_flags() {
    requires!(OPENSSL);
    let base = server(to_all);
    let (ours, other) = (proxy(&base), proxy(&base));
    let elsewhere = TlsProxy::start("DNS:example.org", address(&base));
    for (proxy, trust, advice) in [
        (&ours, other.trust(), "name its authority with --ca FILE"),
        (&elsewhere, elsewhere.trust(), "not valid for name"),
    ] {
        for http2 in [None, Some(3)] {
            let trust = trust.clone();
            let options = Options { verify: trust, http2, ..options(&proxy.url(), 5) };
            let why = run(&options, Arc::default(), |_| {}).unwrap_err().to_string();
            assert!(why.starts_with(&proxy.address.to_string()) && why.contains(advice), "{why}");
            assert!(why.contains("--insecure"), "{why}");
        }
    }
    let options = Options { verify: Verify::None, ..options(&elsewhere.url(), 5) };
    let summary = run(&options, Arc::default(), |_| {}).unwrap();
    assert!(summary.is_clean(), "{summary}");
    assert!(summary.to_string().contains("certificates were not checked"), "{summary}");
}

#[test]
fn a_server_without_tls_is_reported_as_such() {
    let base = server(to_all).replace("http://", "https://");
    let why = run(&options(&base, 2), Arc::default(), |_| {});
    let why = why.unwrap_err().to_string();
    assert!(why.contains("write http://"), "{why}");
}

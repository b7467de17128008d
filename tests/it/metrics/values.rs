//! That what `/metrics` says of sweeps, memory, drains and certificates is true.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::SystemTime;

use super::metrics;
use crate::support::certificate::Certificate;
use crate::support::client::Client;
use crate::support::programs::{OPENSSL, requires};
use crate::support::server::Signal;
use crate::support::temp_dir::TempDir;
use crate::support::{Server, Transport, eventually};

fn now() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    since.as_secs_f64()
}

/// One for each event, whatever the number of streams: a worker has one round of the streams of an organisation to make.
#[test]
fn each_sweep_is_counted_once_however_many_streams_it_visits() {
    for transport in [Transport::Http1, Transport::H2c] {
        let server = Server::start_on(transport, &["--workers", "1", "--coalesce", "0"]);
        let sweeps = || metrics(&server).samples["nudged_sweep_seconds_count"];
        let mut streams = server.streams("acme", 40);
        server.publish("nobody", &["a"]);
        assert_eq!(
            sweeps(),
            0.0,
            "greetings are no sweep, and an event without streams needs none"
        );
        for n in 1..=10 {
            let id = server.publish("acme", &["a"]).expect("subscribed");
            streams.iter_mut().for_each(|stream| stream.expect_invalidate(&id, &["a"]));
            // It is counted after the last write, which a client may have read before.
            eventually("the sweep is counted", || sweeps() == f64::from(n));
        }
        let metrics = metrics(&server);
        assert_eq!(metrics.samples["nudged_events_delivered_total"], 400.0);
        assert!(metrics.samples["nudged_sweep_seconds_sum"] < 60.0);
    }
}

#[test]
fn the_memory_of_histories_and_the_limit_of_streams_are_shown() {
    let server = Server::start(&["--workers", "1", "--streams", "12345", "--coalesce", "0"]);
    let samples = || metrics(&server).samples;
    assert_eq!(
        (samples()["nudged_streams_max"], samples()["nudged_history_bytes"]),
        (12_345.0, 0.0)
    );
    let _stream = server.streams("acme", 1);
    let key = "k".repeat(500);
    for _ in 0..20 {
        server.publish("acme", &[&key]);
    }
    let bytes = samples()["nudged_history_bytes"];
    assert!((10_000.0..20_000.0).contains(&bytes), "{bytes}");
}

#[test]
fn a_server_is_open_as_long_as_it_has_no_key() {
    let keys = ["--publish-key", "publish-key-of-the-test"];
    for (flags, open) in [(&[][..], 1.0), (&keys[..], 0.0)] {
        let server = Server::start(flags);
        assert_eq!(metrics(&server).samples["nudged_open"], open, "{flags:?}");
    }
}

/// From the signal on, while clients may still come.
#[test]
fn a_drain_is_shown_with_its_end() {
    let flags = ["--workers", "1", "--drain-delay", "30m", "--drain-timeout", "1h"];
    let mut server = Server::start(&flags);
    let state = || {
        let samples = metrics(&server).samples;
        (samples["nudged_draining"], samples["nudged_drain_end_timestamp_seconds"])
    };
    assert_eq!(state(), (0.0, 0.0));
    let before = now();
    server.signal(Signal::TERM);
    eventually("it drains", || state().0 == 1.0);
    let (_, end) = state();
    // The server rounds to milliseconds.
    let begun = end - 3_600.0;
    assert!((before - 0.002..=now()).contains(&begun), "{begun}");
    assert_eq!(state().1, end, "it stays");
    server.signal(Signal::TERM);
    server.wait();
}

/// The end of the 28th of February in 2041, and of 2050, in the two forms that a certificate may have.
const ENDS: [(&str, f64); 2] =
    [("410228235959Z", 2_245_708_799.0), ("20501231235959Z", 2_556_143_999.0)];

/// The one in use, whatever the file has.
#[test]
fn the_expiry_is_that_of_the_certificate_in_use() {
    requires!(OPENSSL);
    let folder = TempDir::new();
    let make = |(end, _): (&str, f64)| {
        Certificate::make_for(["200101000000Z", end], &folder.path().join(end))
    };
    let [first, second] = ENDS.map(make);
    let files = [folder.file("chain.pem"), folder.file("key.pem")];
    let copy = |from: &Certificate| {
        for (from, to) in [(&from.key, &files[1]), (&from.certificate, &files[0])] {
            std::fs::copy(from, to).expect("a copy");
        }
    };
    copy(&first);
    let flags = ["--tls-cert", &files[0], "--tls-key", &files[1], "--workers", "1"];
    let plain = ["--plain-listen", "127.0.0.1:0"];
    let mut command = Server::command();
    command.stderr(Stdio::piped());
    let mut server = Server::start_as(command, Transport::Http1, &[&flags[..], &plain].concat());
    let log = BufReader::new(server.take_stderr());
    let expiry = || {
        let mut client = Client::connect(*server.addresses.last().expect("the plain one"));
        client.send("GET /metrics HTTP/1.1\r\nhost: test\r\n\r\n");
        let text = client.read_answer().body;
        let name = "nudged_tls_certificate_expiry_timestamp_seconds";
        super::Metrics::parse(&text, false).samples[name]
    };
    assert_eq!(expiry(), ENDS[0].1);

    // One that cannot be used changes nothing.
    std::fs::write(&files[0], "no certificate").expect("a file");
    server.signal(Signal::HUP);
    let mut lines = log.lines().map(|line| line.expect("text"));
    assert!(lines.any(|line| line.contains("the certificate in use stays")));
    assert_eq!(expiry(), ENDS[0].1);
    copy(&second);
    server.signal(Signal::HUP);
    eventually("it is read again", || expiry() == ENDS[1].1);
}

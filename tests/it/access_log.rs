//! The access log: a line for each stream that ends, with what it was, and without what is secret.

use std::io::{BufRead, BufReader};

use serde_json::Value;

use crate::support::{Server, Stream, Transport, eventually};

const JSON: [&str; 5] = ["--access-log", "--log-format", "json", "--log", "off"];

fn server(transport: Transport, more: &[&str]) -> Server {
    let mut command = Server::command();
    command.stderr(std::process::Stdio::piped());
    let flags = ["--coalesce", "0", "--workers", "1", "--public-orgs", "*", "--public-keys", "p*"];
    Server::start_as(command, transport, &[&flags[..], more].concat())
}

/// Stops the server, and returns its log.
fn lines(mut server: Server) -> Vec<String> {
    let log = BufReader::new(server.take_stderr());
    server.signal(crate::support::server::Signal::TERM);
    assert_eq!(server.wait(), Some(0));
    log.lines().map(|line| line.expect("text")).collect()
}

fn left(server: &Server, stream: Stream, seats: u64) {
    stream.client.reset();
    eventually("the seat is free", || server.seats() == seats);
}

#[test]
fn a_stream_that_ends_is_one_line_of_the_log() {
    for transport in Transport::all() {
        let server = server(transport, &[&JSON[..], &["--reread-window", "0"]].concat());
        let paths =
            ["/api/acme/events?token=s3cret", "/api/acme/public/events", "/api/acme/events"];
        let mut streams = paths.map(|path| server.stream_with(path, ""));
        streams.iter_mut().for_each(|stream| _ = stream.connected());
        for key in ["p", "a", "b"] {
            server.publish("acme", &[key]);
        }
        for (stream, count) in streams.iter_mut().zip([3, 1, 3]) {
            (0..count).for_each(|_| assert!(stream.next().contains("event: invalidate\n")));
        }
        let [first, second, mut last] = streams;
        left(&server, first, 2);
        left(&server, second, 1);
        // A response that is no stream is no line.
        assert_eq!(server.get("/api/acme/nothing").status(), 404);
        let delete = "DELETE /api/acme/events HTTP/1.1\r\nhost: t\r\n\r\n";
        assert_eq!(server.request(delete).status(), 202);
        assert!(last.next().starts_with("retry: "));
        eventually("the last has ended", || server.seats() == 0);
        drop(last);

        let lines = lines(server);
        let parsed: Vec<Value> =
            lines.iter().map(|line| serde_json::from_str(line).expect(line)).collect();
        assert_eq!(parsed.len(), 3, "{lines:#?}");
        for (line, (kind, events)) in
            parsed.iter().zip([("member", 3), ("public", 1), ("member", 3)])
        {
            assert_eq!(line["target"], "nudged::access");
            assert_eq!(line["level"], "INFO");
            assert_eq!(line["message"], "a stream ended");
            assert_eq!((&line["org"], &line["kind"]), (&"acme".into(), &kind.into()));
            assert_eq!(line["events"], events, "{line} {transport:?}");
            assert_eq!(line["client"], "127.0.0.1");
            assert!(line["seconds"].as_f64().is_some_and(|s| (0.0..600.0).contains(&s)), "{line}");
        }
        assert_eq!(parsed[2]["cause"], "removed");
        assert!(["reset", "client"].contains(&parsed[0]["cause"].as_str().expect("a cause")));
        let text = lines.concat();
        assert!(!text.contains("s3cret") && !text.contains("token"), "{text}");
    }
}

#[test]
fn the_log_is_off_unless_asked_for() {
    for flags in [&["--log", "info"][..], &["--log", "off"]] {
        let server = server(Transport::Http1, flags);
        let stream = server.streams("acme", 1).remove(0);
        left(&server, stream, 0);
        assert!(lines(server).iter().all(|line| !line.contains("nudged::access")));
    }
}

#[test]
fn a_line_of_text_names_the_client_behind_a_trusted_proxy() {
    let server = server(Transport::Http1, &["--access-log", "--trust-forwarded-for", "127.0.0.1"]);
    let mut stream =
        server.stream_with("/api/acme/events?last_event_id=x", "x-forwarded-for: 192.0.2.7\r\n");
    stream.connected();
    left(&server, stream, 0);
    let lines = lines(server);
    let [line] = &lines[..] else { panic!("{lines:#?}") };
    for part in [
        " INFO nudged::access: a stream ended ",
        " org=acme ",
        " kind=\"member\" ",
        " client=192.0.2.7 ",
        " cause=\"",
        " seconds=0.",
        " events=0",
    ] {
        assert!(line.contains(part), "{part:?} in {line}");
    }
    assert!(!line.contains("last_event_id"), "{line}");
}

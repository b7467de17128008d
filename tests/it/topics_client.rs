//! The command line's clients of topics: against a scripted server, and as the program.

use std::io::{self, ErrorKind, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use nudged::client::{
    CloseTopic, Error, Publish, PublishEvent, RETRY_FOR, Since, StreamKind, TopicEvent,
    close_topic, publish, publish_event,
};
use nudged::ids::Topic;
use nudged::wire::Payload;

use crate::support::Server;
use crate::support::killed::Killed;
use crate::support::port::ReservedPort;
use crate::support::scripted_server::{
    ScriptedServer, VERSION, answer, block_on, error_text, listening_to, no_content, server, stream,
};

fn topic() -> Topic {
    Topic { org: "acme".parse().expect("an org"), name: "run-1".parse().expect("a topic") }
}

// ===== listen =====

fn of_topic(since: Since, exclusive: bool) -> StreamKind {
    StreamKind::Topic { name: topic().name, since, exclusive }
}

fn target(request: &str) -> &str {
    request.split(' ').nth(1).expect("a target")
}

fn closed(reason: &str) -> String {
    format!("event: closed\ndata: {{\"reason\":\"{reason}\"}}\n\n")
}

#[test]
fn listen_names_where_a_topic_begins_and_that_it_is_exclusive() {
    const EVENTS: &str = "/api/acme/topics/run-1/events";
    let id = "00000000000000ff-7".parse().expect("an id");
    for (since, exclusive, query) in [
        (Since::All, false, ""),
        (Since::Now, false, "?since=now"),
        (Since::Event(id), false, "?since=00000000000000ff-7"),
        (Since::Time(1_795_876_200_000), false, "?since=1795876200000"),
        (Since::All, true, "?exclusive"),
        (Since::Now, true, "?since=now&exclusive"),
    ] {
        let script = ScriptedServer::play([stream(&closed("done"))]);
        let address = script.address;
        let listened = listening_to(script.server(None), of_topic(since, exclusive), None);
        listened.result.expect("over");
        let begin = format!("listening to run-1 of acme at http://{address}\n");
        assert!(listened.notes.starts_with(&begin), "{}", listened.notes);
        assert_eq!(target(&script.requests()[0]), format!("{EVENTS}{query}"));
    }
}

/// The contract of topics: a client that came back after `replaced` would end the one that has replaced it, which came
/// back too, for ever.
#[test]
fn listen_ends_for_good_when_its_topic_is_closed() {
    for (event, note) in [
        (closed("done"), "the stream is closed: done"),
        (closed("replaced"), "the stream is closed: replaced"),
        (closed(r"a\nb\u001b[2J"), r"the stream is closed: a\nb\u{1b}[2J"),
        ("id: e-2\nevent: closed\ndata: {}\n\n".to_owned(), "the stream is closed"),
    ] {
        let text = format!("retry: 10\nid: e-1\nevent: a\ndata: 1\n\n{event}event: b\ndata: 2\n\n");
        let script = ScriptedServer::play([stream(&text)]);
        let listened = listening_to(script.server(None), of_topic(Since::All, true), None);
        assert!(matches!(listened.result, Ok(())), "{:?}", listened.result);
        let lines: Vec<_> = listened.events.lines().collect();
        let [first, last] = lines[..] else { panic!("{lines:?}") };
        assert!(first == "a 1  id=e-1" && last.starts_with("closed {"), "{lines:?}");
        assert_eq!(listened.notes.lines().last(), Some(note));
        assert_eq!(script.requests().len(), 1);
    }
}

#[test]
fn listen_ends_at_no_event_closed_of_an_organisation() {
    for kind in [StreamKind::Members, StreamKind::Public] {
        let text = format!("retry: 10\n{}data: x\n\n", closed("done"));
        let script = ScriptedServer::play([stream(&text), no_content()]);
        let listened = listening_to(script.server(None), kind, None);
        assert_eq!(listened.events, "closed {\"reason\":\"done\"}\nmessage x\n");
        assert_eq!(script.requests().len(), 2);
    }
}

#[test]
fn listen_takes_its_exclusive_seat_again_after_the_network_failed() {
    let cut = stream("retry: 10\nid: e-1\nevent: a\ndata: 1\n\n");
    let script = ScriptedServer::play([
        cut.strip_suffix("0\r\n\r\n").expect("a last chunk").to_owned(),
        String::new(), // closed without an answer
        stream(&format!("event: b\ndata: 2\n\n{}", closed("done"))),
    ]);
    let listened = listening_to(script.server(None), of_topic(Since::Now, true), None);
    listened.result.expect("over");
    assert_eq!(listened.events, "a 1  id=e-1\nb 2  id=e-1\nclosed {\"reason\":\"done\"}  id=e-1\n");
    let requests = script.requests();
    assert!(requests.iter().all(|request| target(request).ends_with("?since=now&exclusive")));
    let resumes = |request: &String| request.contains("\r\nlast-event-id: e-1\r\n");
    assert_eq!(requests.iter().map(resumes).collect::<Vec<_>>(), [false, true, true]);
}

// ===== publish and close =====

fn event() -> TopicEvent {
    let json = serde_json::value::RawValue::from_string("{\"n\": 1}".to_owned()).expect("JSON");
    TopicEvent::new("output", Payload::Json(&json), true).expect("an event")
}

struct Done {
    result: Result<(), Error>,
    out: String,
    notes: String,
}

/// What a request wrote to its output and beside it.
fn done(run: impl AsyncFnOnce(&mut Vec<u8>, &mut Vec<u8>) -> Result<(), Error>) -> Done {
    let (mut out, mut notes) = (Vec::new(), Vec::new());
    let result = block_on(run(&mut out, &mut notes));
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Done { result, out: text(out), notes: text(notes) }
}

fn publishing_event(server: nudged::client::Endpoint, retry_for: Duration) -> Done {
    let what = PublishEvent { server, topic: topic(), event: event(), retry_for };
    done(async |out, notes| publish_event(&what, out, notes).await)
}

fn closing(server: nudged::client::Endpoint, reason: Option<&str>, retry_for: Duration) -> Done {
    let reason = reason.map(str::to_owned);
    let what = CloseTopic { server, topic: topic(), reason, retry_for };
    done(async |out, notes| close_topic(&what, out, notes).await)
}

fn accepted() -> String {
    answer("202 Accepted", "application/json", r#"{"id":"e-7","streams":3}"#)
}

#[test]
fn an_event_is_published_to_its_topic_and_its_id_is_printed() {
    let script = ScriptedServer::play([accepted()]);
    let address = script.address;
    let Done { result, out, notes } = publishing_event(script.server(Some("s3cret")), RETRY_FOR);
    result.expect("accepted");
    assert_eq!((out.as_str(), notes.as_str()), ("e-7\n", ""));
    let body = r#"{"event":"output","data":{"n": 1},"bulk":true}"#;
    let length = body.len();
    assert_eq!(
        script.requests(),
        [format!(
            "POST /api/acme/topics/run-1/events HTTP/1.1\r\nhost: {address}\r\n\
             user-agent: nudged/{VERSION}\r\nauthorization: Bearer s3cret\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )]
    );
}

#[test]
fn a_topic_is_closed_with_a_reason_or_without_one() {
    for (reason, body) in [(None, ""), (Some("a\n\"b\""), r#"{"reason":"a\n\"b\""}"#)] {
        let script = ScriptedServer::play([accepted()]);
        let Done { result, out, .. } = closing(script.server(None), reason, RETRY_FOR);
        result.expect("accepted");
        assert_eq!(out, "3 streams\n");
        let [request] = &script.requests()[..] else { panic!("not one request") };
        assert!(
            request.starts_with("DELETE /api/acme/topics/run-1/events HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(request.ends_with(&format!("\r\n\r\n{body}")), "{request}");
        assert_eq!(request.contains("content-type: application/json"), reason.is_some());
    }
}

fn unavailable(content_type: &str) -> String {
    answer("503 Service Unavailable", content_type, r#"{"title":"Service Unavailable"}"#)
}

/// As nudged answers where its log may have taken the record, or may not.
fn backplane_unavailable() -> String {
    of_type("backplane-unavailable")
}

fn of_type(kind: &str) -> String {
    let problem = format!(r#"{{"type":"{kind}","status":503,"detail":"the log did not answer"}}"#);
    answer("503 Service Unavailable", "application/problem+json", &problem)
}

/// What is published twice is received twice, and what is closed twice may have been begun anew in between.
#[test]
fn what_concerns_a_topic_is_sent_again_where_it_is_certain_that_nothing_was_done() {
    let closed = ReservedPort::new();
    for run in [
        |server: nudged::client::Endpoint, retry_for| publishing_event(server, retry_for),
        |server, retry_for| closing(server, None, retry_for),
    ] {
        let script = ScriptedServer::play([
            unavailable("application/problem+json"),
            of_type("backplane-not-stored"),
            answer("429 Too Many Requests", "text/plain", ""),
            accepted(),
        ]);
        let Done { result, notes, .. } = run(script.server(None), RETRY_FOR);
        result.expect("accepted in the end");
        let requests = script.requests();
        assert!(requests.len() == 4 && requests.iter().all(|request| *request == requests[0]));
        let notes: Vec<_> = notes.lines().collect();
        assert!(notes.len() == 3, "{notes:?}");
        assert!(notes.iter().all(|note| note.contains("; trying again in ")), "{notes:?}");

        let Done { result, notes, .. } = run(server(closed.address, None), Duration::from_secs(1));
        assert!(error_text(result).starts_with("cannot reach "));
        assert!(
            notes.contains("Connection refused") && notes.contains("; trying again"),
            "{notes}"
        );
    }
}

#[test]
fn what_concerns_a_topic_is_not_sent_again_where_it_may_have_been_done() {
    const UNCLEAR: &str = "it is not known whether this was done, so it is not tried again\n";
    for (response, expected) in [
        (String::new(), "the connection broke: "),
        ("no HTTP at all\r\n\r\n".to_owned(), "the connection broke: "),
        (answer("502 Bad Gateway", "text/html", "<p>"), "the server answered 502"),
        (answer("504 Gateway Timeout", "text/html", "<p>"), "the server answered 504"),
        (answer("500 Internal Server Error", "text/html", ""), "the server answered 500"),
        // As nginx answers for an upstream that has ended its connection after the request, with `.proxies/nginx.conf`.
        (unavailable("text/html"), "the server answered 503"),
        (backplane_unavailable(), "the server answered 503 Service Unavailable: the log"),
    ] {
        for run in [
            |server: nudged::client::Endpoint| publishing_event(server, RETRY_FOR),
            |server| closing(server, None, RETRY_FOR),
        ] {
            let script = ScriptedServer::play([response.clone()]);
            let Done { result, out, notes } = run(script.server(None));
            let text = error_text(result);
            assert!(text.starts_with(expected), "{text}");
            assert_eq!((out.as_str(), notes.as_str()), ("", UNCLEAR), "{text}");
            assert_eq!(script.requests().len(), 1);
        }
    }
    for refusal in [
        answer("401 Unauthorized", "text/plain", ""),
        answer("413 Content Too Large", "application/problem+json", r#"{"detail":"at most 9"}"#),
    ] {
        let script = ScriptedServer::play([refusal]);
        let Done { result, notes, .. } = publishing_event(script.server(None), RETRY_FOR);
        error_text(result);
        assert_eq!(notes, "", "nothing was published");
    }
    // Keys may be published twice.
    let script = ScriptedServer::play([backplane_unavailable(), accepted()]);
    let (org, keys) = (topic().org, vec!["posts".to_owned()]);
    let what = Publish { server: script.server(None), org, keys, retry_for: RETRY_FOR };
    let Done { result, notes, .. } = done(async |out, notes| publish(&what, out, notes).await);
    result.expect("accepted in the end");
    assert!(notes.contains("; trying again in "), "{notes}");
}

/// SCENARIO: a server accepts a publish, and its connection breaks before the body of its response.
/// BUG: the publish was sent again, and an event was published twice.
/// FIX: the status has accepted it.
#[test]
fn what_was_accepted_is_not_sent_again_although_the_response_is_cut_off() {
    let cut =
        "HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{";
    let script = ScriptedServer::play([cut.to_owned()]);
    let Done { result, out, notes } = publishing_event(script.server(None), RETRY_FOR);
    result.expect("accepted");
    assert_eq!((out.as_str(), notes.as_str()), ("accepted\n", ""));
    assert_eq!(script.requests().len(), 1);

    let script = ScriptedServer::play([cut.to_owned()]);
    let (org, keys) = (topic().org, vec!["posts".to_owned()]);
    let what = Publish { server: script.server(None), org, keys, retry_for: RETRY_FOR };
    let Done { result, out, .. } = done(async |out, notes| publish(&what, out, notes).await);
    result.expect("accepted");
    assert_eq!((out.as_str(), script.requests().len()), ("accepted\n", 1));
}

// ===== the command line =====

/// How the program ended with these arguments and this standard input.
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn run(args: &[&str], input: &[u8]) -> Ran {
    let mut command = Server::command();
    command.args(args).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Killed(command.spawn().expect("the program"));
    let written = child.0.stdin.take().expect("piped").write_all(input);
    assert!(written.is_ok() || written.is_err_and(|why| why.kind() == ErrorKind::BrokenPipe));
    let code = child.wait();
    // What it writes is less than a pipe holds.
    let stdout = child.0.stdout.take().expect("piped");
    let stderr = child.0.stderr.take().expect("piped");
    let stdout = io::read_to_string(stdout).expect("text");
    let stderr = io::read_to_string(stderr).expect("text");
    Ran { code, stdout, stderr }
}

#[test]
fn wrong_combinations_are_refused_before_anything_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    listener.set_nonblocking(true).expect("a socket");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let event = ["--topic", "run-1", "--event", "a"];
    let publish = [&["publish", "acme"][..], &event].concat();
    let listen = ["listen", "acme", "--topic", "run-1"];
    for (command, more, allowed) in [
        (&["publish", "acme"][..], &["--event", "a"][..], "--topic <TOPIC>"),
        (&["publish", "acme", "posts"], &["--event", "a"], "--topic <TOPIC>"),
        (&["publish", "acme", "posts"], &["--data", "1"], "--topic <TOPIC>"),
        (&["publish", "acme", "posts"], &["--text", "a"], "--topic <TOPIC>"),
        (&["publish", "acme", "posts"], &["--bulk"], "--topic <TOPIC>"),
        (&["publish", "acme"], &[], "--topic <TOPIC> --event <NAME> <--data <JSON>|--text <TEXT>>"),
        (&["publish", "acme", "posts"], &event, "cannot be used with"),
        (&["publish", "acme", "--topic", "run-1", "--data", "1"], &[], "--event <NAME>"),
        (&publish, &[], "<--data <JSON>|--text <TEXT>>"),
        (&publish, &["--data", "1", "--text", "a"], "cannot be used with"),
        (&publish, &["--data", "{"], "allowed is one JSON value"),
        (&publish, &["--data", "1 2"], "allowed is one JSON value"),
        (&publish, &["--data", "-"], "allowed is one JSON value"),
        (&["publish", "acme", "--topic", ".x"], &["--event", "a", "--data", "1"], "1 to 128 of"),
        (&["publish", "acme", "--topic", "x"], &["--event", "1", "--data", "1"], "1 to 64 of"),
        (
            &["publish", "acme", "--topic", "x"],
            &["--event", "ping", "--data", "1"],
            "connected, resumed, invalidate, closed, ping are reserved",
        ),
        (&["listen", "acme"], &["--since", "now"], "--topic <NAME>"),
        (&["listen", "acme"], &["--exclusive"], "--topic <NAME>"),
        (&listen, &["--public"], "cannot be used with"),
        (&listen, &["--keys", "posts"], "cannot be used with"),
        (&listen, &["--since", "5m"], "allowed are all, now, the id of an event"),
        (&listen, &["--since", "now", "--last-event-id", "e-1"], "cannot be used with"),
        (&["close", "acme"], &[], "--topic <NAME>"),
        (&["close", "acme", "--topic", "a b"], &[], "1 to 128 of"),
    ] {
        let args = [command, more, &["--url", &url]].concat();
        let Ran { code, stdout, stderr } = run(&args, b"");
        assert_eq!(code, Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(allowed) && stdout.is_empty(), "{args:?}: {stderr}");
    }
    let connected = listener.accept().map(|_| ()).map_err(|why| why.kind());
    assert_eq!(connected, Err(ErrorKind::WouldBlock));
}

#[test]
fn a_payload_is_given_as_a_flag_or_on_standard_input() {
    for (flags, input, body) in [
        (&["--data", "{\"a\":[1, 2]}"][..], "", r#"{"event":"a","data":{"a":[1, 2]}}"#),
        (&["--data", "-5", "--bulk"], "", r#"{"event":"a","data":-5,"bulk":true}"#),
        (&["--data", "-"], "\n{\"a\":\n1}\n", "{\"event\":\"a\",\"data\":{\"a\":\n1}}"),
        (&["--text", "- a\n- b"], "", r#"{"event":"a","text":"- a\n- b"}"#),
        (&["--text", ""], "", r#"{"event":"a","text":""}"#),
        (&["--text", "-"], "é\r\n", r#"{"event":"a","text":"é\r\n"}"#),
    ] {
        let script = ScriptedServer::play([accepted()]);
        let url = format!("http://{}", script.address);
        let args = ["publish", "acme", "--topic", "run-1", "--event", "a", "--url", &url];
        let Ran { code, stdout, stderr } = run(&[&args, flags].concat(), input.as_bytes());
        assert_eq!(code, Some(0), "{flags:?}: {stderr}");
        assert_eq!(stdout, "e-7\n");
        let request = &script.requests()[0];
        assert!(request.ends_with(&format!("\r\n\r\n{body}")), "{flags:?}: {request}");
    }
    let args = ["publish", "acme", "--topic", "run-1", "--event", "a", "--text", "-"];
    let too_much = vec![b'x'; nudged::wire::EVENT_LEN_MAX + 1];
    for (input, why) in [(&b"\xff"[..], "no text in UTF-8"), (&too_much, "more than 1048576 bytes")]
    {
        let Ran { code, stderr, .. } = run(&args, input);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(why), "{stderr}");
    }
}

/// The exit code of `nudged listen` is 0: its topic is over, and its output is complete.
#[test]
fn listen_exits_with_success_when_its_topic_is_closed() {
    let script = ScriptedServer::play([stream(&format!("id: e-1\n{}", closed("replaced")))]);
    let url = format!("http://{}", script.address);
    let args = ["listen", "acme", "--topic", "run-1", "--exclusive", "--url", &url];
    let Ran { code, stdout, stderr } = run(&args, b"");
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(stdout, "closed {\"reason\":\"replaced\"}  id=e-1\n");
    assert!(stderr.ends_with("the stream is closed: replaced\n"), "{stderr}");
    assert_eq!(script.requests().len(), 1);
}

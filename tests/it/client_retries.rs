//! The command line's clients where the first answer is not the last: redirects of a stream, publishes that are sent
//! again.

use std::io::{self, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use nudged::client::{Error, InvalidRedirect, Publish, REDIRECTS_MAX, RETRY_FOR, publish};

use crate::support::Server;
use crate::support::port::ReservedPort;
use crate::support::scripted_server::{
    Listened, ScriptedServer, answer, answer_one, block_on, error_text, listening, no_content,
    server, stream,
};

// ===== redirects =====

fn redirect(status: &str, location: &str) -> String {
    format!("HTTP/1.1 {status}\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
}

fn has_token(request: &str) -> bool {
    request.contains("\r\nauthorization: Bearer s3cret\r\n")
}

/// SCENARIO: the server stands behind a gateway that redirects: to another host name, a path with a prefix, a node.
/// BUG: `nudged listen` ended, "the server answered 307 Temporary Redirect", where a browser follows.
/// FIX: it follows the five redirects that an `EventSource` follows, from the configured URL anew for each connection.
#[test]
fn listen_follows_the_redirects_that_a_browser_follows() {
    for status in [
        "301 Moved Permanently",
        "302 Found",
        "303 See Other",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ] {
        let script = ScriptedServer::play([
            redirect(status, "/moved/\u{e9}?x=1"),
            redirect(status, "../other"),
            stream("retry: 10\nid: e-1\ndata: x\n\n"),
            redirect(status, "?again"),
            no_content(),
        ]);
        let address = script.address;
        let Listened { result, events, notes } =
            listening(script.server(Some("s3cret")), false, None);
        result.expect("over");
        assert_eq!(events, "message x  id=e-1\n");
        assert!(notes.starts_with(&format!("listening to acme at http://{address}\n")), "{notes}");
        let requests = script.requests();
        let targets: Vec<_> =
            requests.iter().map(|request| request.split(' ').nth(1).expect("a target")).collect();
        let path = "/api/acme/events";
        let again = "/api/acme/events?again";
        assert_eq!(targets, [path, "/moved/%C3%A9?x=1", "/other", path, again], "{status}");
        assert!(requests.iter().all(|request| has_token(request)), "the origin is the same");
        let resumes = |request: &String| request.contains("\r\nlast-event-id: e-1\r\n");
        assert_eq!(
            requests.iter().map(resumes).collect::<Vec<_>>(),
            [false, false, false, true, true]
        );
    }
}

#[test]
fn listen_sends_its_token_to_no_other_origin() {
    let end = ScriptedServer::play([no_content()]);
    let back = format!("http://{}/back", end.address);
    let other = ScriptedServer::play([redirect("307 Temporary Redirect", &back)]);
    let there = format!("//{}/there", other.address);
    let first = ScriptedServer::play([redirect("307 Temporary Redirect", &there)]);
    listening(first.server(Some("s3cret")), false, None).result.expect("over");
    assert!(first.requests().iter().all(|request| has_token(request)));
    for requests in [other.requests(), end.requests()] {
        assert!(
            requests.len() == 1 && !requests.iter().any(|request| has_token(request)),
            "{requests:?}"
        );
    }
}

#[test]
fn listen_names_the_origin_that_it_was_redirected_to() {
    let other = ScriptedServer::play([stream("retry: 10\ndata: x\n\n")]);
    let there = format!("http://{}/there?token=s3cret", other.address);
    let first = ScriptedServer::play([redirect("307 Temporary Redirect", &there), no_content()]);
    let (from, to) = (first.address, other.address);
    let notes = listening(first.server(None), false, None).notes;
    let expected = format!("listening to acme at http://{from}, redirected to http://{to}\n");
    assert!(notes.starts_with(&expected), "{notes}");
    assert!(!notes.contains("s3cret"), "{notes}");
}

#[test]
fn listen_ends_at_a_redirect_that_leads_nowhere() {
    const ANSWERS: usize = REDIRECTS_MAX as usize + 1;
    let script = ScriptedServer::play([(); ANSWERS].map(|()| redirect("302 Found", "/again")));
    let listened = listening(script.server(None), false, None);
    assert!(
        matches!(listened.result, Err(Error::Redirect(InvalidRedirect::TooMany))),
        "{:?}",
        listened.result
    );
    assert_eq!(script.requests().len(), ANSWERS);
    for location in ["ftp://example.org/", "http://me@example.org/", "//", "/a b"] {
        let script = ScriptedServer::play([redirect("302 Found", location)]);
        let text = error_text(listening(script.server(None), false, None).result);
        assert!(text.starts_with("a redirect cannot be followed: "), "{location}: {text}");
    }
    for status in ["300 Multiple Choices", "304 Not Modified", "305 Use Proxy"] {
        let script = ScriptedServer::play([redirect(status, "/x")]);
        let text = error_text(listening(script.server(None), false, None).result);
        assert_eq!(text, format!("the server answered {status}"));
    }
}

// ===== publishes that are sent again =====

fn unavailable(retry_after: &str) -> String {
    let problem = r#"{"title":"Service Unavailable","status":503,"detail":"shutting down"}"#;
    let answer = answer("503 Service Unavailable", "application/problem+json", problem);
    answer.replacen("\r\n", &format!("\r\nretry-after: {retry_after}\r\n"), 1)
}

fn accepted() -> String {
    answer("202 Accepted", "application/json", r#"{"id":"e-7"}"#)
}

/// The result of a publish, with what it wrote to its output and beside it.
fn publishing_for(
    script: &ScriptedServer,
    retry_for: Duration,
) -> (Result<(), Error>, String, String) {
    let (org, keys) = ("acme".parse().expect("an org"), vec!["posts".to_owned()]);
    let what = Publish { server: script.server(None), org, keys, retry_for };
    let (mut out, mut notes) = (Vec::new(), Vec::new());
    let result = block_on(publish(&what, &mut out, &mut notes));
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (result, text(out), text(notes))
}

/// SCENARIO: a deployment publishes while the server restarts, or is at the limit of its connections.
/// BUG: `nudged publish` gave up at the first 503, and every browser kept what was stale.
/// FIX: it tries again, after `retry-after` or longer pauses. Two publishes of the same keys are no harm.
#[test]
fn publish_tries_again_where_that_may_help() {
    let script = ScriptedServer::play([
        unavailable("1"),
        String::new(), // closed without an answer
        answer("429 Too Many Requests", "text/plain", ""),
        answer("502 Bad Gateway", "text/html", "<p>"),
        accepted(),
    ]);
    let (result, out, notes) = publishing_for(&script, RETRY_FOR);
    result.expect("accepted in the end");
    assert_eq!(out, "e-7\n");
    let requests = script.requests();
    assert!(requests.len() == 5 && requests.iter().all(|request| *request == requests[0]));
    let notes: Vec<_> = notes.lines().collect();
    let [first, second, third, fourth] = notes[..] else { panic!("{notes:?}") };
    assert_eq!(
        first,
        "the server answered 503 Service Unavailable: shutting down; trying again in 1.0s"
    );
    for (note, why) in [
        (second, "the connection broke: "),
        (third, "the server answered 429 Too Many Requests; "),
        (fourth, "the server answered 502 Bad Gateway; "),
    ] {
        assert!(note.starts_with(why) && note.contains("; trying again in "), "{note}");
    }
}

/// Sends each note to another thread.
struct Notes(Sender<()>);

impl Write for Notes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        _ = self.0.send(());
        Ok(())
    }
}

#[test]
fn publish_tries_again_until_a_server_listens() {
    let port = ReservedPort::new();
    let address = port.address;
    let (noted, notes) = channel();
    let script = std::thread::spawn(move || {
        notes.recv().expect("a note: nothing listens");
        answer_one(&TcpListener::bind(address).expect("its port"), &accepted())
    });
    let (org, keys) = ("acme".parse().expect("an org"), vec!["posts".to_owned()]);
    let what = Publish { server: server(address, None), org, keys, retry_for: RETRY_FOR };
    let mut out = Vec::new();
    block_on(publish(&what, &mut out, &mut Notes(noted))).expect("accepted in the end");
    assert_eq!(out, b"e-7\n");
    script.join().expect("no panic").expect("a request");
}

#[test]
fn publish_gives_up_at_once_where_trying_again_is_no_use() {
    for (answer, retry_for) in [
        (unavailable("0"), Duration::ZERO),
        (unavailable("3600"), RETRY_FOR),
        (answer("401 Unauthorized", "text/plain", ""), RETRY_FOR),
        (answer("422 Unprocessable Entity", "text/plain", ""), RETRY_FOR),
        (answer("500 Internal Server Error", "text/plain", ""), RETRY_FOR),
        ("no HTTP at all\r\n\r\n".to_owned(), RETRY_FOR),
    ] {
        let script = ScriptedServer::play([answer]);
        let (result, out, notes) = publishing_for(&script, retry_for);
        result.expect_err("refused");
        assert_eq!((out.as_str(), notes.as_str()), ("", ""));
        assert_eq!(script.requests().len(), 1);
    }
}

#[test]
fn the_time_of_the_retries_is_a_flag() {
    let script = ScriptedServer::play([unavailable("1")]);
    let url = format!("http://{}", script.address);
    let args = ["publish", "acme", "posts", "--url", &url, "--retry-for", "0s"];
    let output = Server::command().args(args).stderr(Stdio::piped()).output().expect("the program");
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr, "nudged: the server answered 503 Service Unavailable: shutting down\n");
}

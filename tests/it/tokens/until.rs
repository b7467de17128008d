//! Tokens whose streams last longer than they open any, and the functions of the README that make them.

use std::process::Command;

use serde_json::Value;

use super::{SECRET, bearer, mint, now, server, status_of};
use crate::support::programs::{GO, NODE, PYTHON};
use crate::support::temp_dir::TempDir;
use crate::support::{Server, Stream, Transport, eventually};

const EVENTS: &str = "/api/acme/events";
const README: &str = include_str!("../../../README.md");

/// A server of each transport with an open stream, all of one token that is made when the servers run.
fn streams(times: [&str; 4]) -> (String, Vec<(Server, Stream)>) {
    let start = |transport| server(transport, &["--coalesce", "0", "--idle-timeout", "1s"]);
    let mut servers = Vec::new();
    servers.extend(Transport::all().map(start));
    let token = mint(&[&["--org", "acme"], &times[..]].concat());
    let open = |server: Server| {
        let mut stream = server.stream_with(&format!("{EVENTS}?token={token}"), "");
        stream.connected();
        (server, stream)
    };
    let streams = servers.into_iter().map(open).collect();
    (token, streams)
}

/// An orderly end, because the token has expired.
fn expect_end(server: &Server, mut stream: Stream) {
    // First, because a stream that goes on can be read for ever.
    eventually("the end is counted", || server.closed().get("expired") == Some(&1));
    let rest = stream.client.read_to_end();
    assert!(rest.ends_with(b"0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&rest));
    assert_eq!(server.seats(), 0);
}

/// SCENARIO: a page opens its stream with a ticket of a minute, as the README recommends.
/// BUG: the stream ended with the ticket, so that every browser came back every minute.
/// FIX: `exp` says how long a token opens streams, and `until` when these end.
#[test]
fn a_stream_outlives_its_ticket_until_the_time_it_names() {
    let (token, mut streams) = streams(["--ttl", "8s", "--until", "20s"]);
    let publisher = mint(&["--org", "acme", "--scope", "publish"]);
    for (server, stream) in &mut streams {
        eventually("the ticket opens no stream any more", || status_of(server, &token) == 401);
        let body = r#"{"keys":["posts"]}"#;
        let answer = server.request(&format!(
            "POST {EVENTS} HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n{}content-length: {}\r\n\r\n{body}",
            bearer(&publisher),
            body.len()
        ));
        assert_eq!(answer.status(), 202);
        assert!(stream.next().contains("event: invalidate\n"), "it is still open");
    }
    streams.into_iter().for_each(|(server, stream)| expect_end(&server, stream));
}

#[test]
fn a_time_before_the_expiry_ends_a_stream_too() {
    let (token, streams) = streams(["--ttl", "1h", "--until", "8s"]);
    for (server, stream) in streams {
        expect_end(&server, stream);
        assert_eq!(status_of(&server, &token), 401, "a stream would end at once");
    }
}

/// The code block of the README that begins with this line, up to its end.
fn block(first: &str) -> &'static str {
    let start = README.find(first).unwrap_or_else(|| panic!("no block begins with {first}"));
    README[start..].split("\n```").next().expect("it ends")
}

#[test]
fn the_ticket_functions_of_the_readme_make_tickets() {
    let folder = TempDir::new();
    let server = server(Transport::Http1, &[]);
    let node = format!(
        "{}\nconsole.log(ticket(process.argv[2], 'acme'));\n",
        block("import { createHmac }")
    );
    let python = format!(
        "{}\nimport sys\nprint(ticket(sys.argv[1], 'acme'))\n",
        block("import base64, hashlib")
    );
    let go = format!(
        "package main\n\nimport (\n\"crypto/hmac\"\n\"crypto/sha256\"\n\"encoding/base64\"\n\"encoding/json\"\n\"fmt\"\n\
         \"os\"\n\"time\"\n)\n\n{}\n\nfunc main() {{ fmt.Println(ticket(os.Args[1], \"acme\", time.Minute, 12*time.Hour)) }}\n",
        block("func ticket(")
    );
    for (program, command, file, text) in [
        (&NODE, &["node"][..], "ticket.mjs", node),
        (&PYTHON, &["python3"], "ticket.py", python),
        (&GO, &["go", "run"], "ticket.go", go),
    ] {
        if !program.is_available_for(&format!("{file} of ")) {
            continue;
        }
        let file = folder.file(file);
        std::fs::write(&file, text).expect("a file");
        let before = now();
        let output = Command::new(command[0]).args(&command[1..]).args([&file, SECRET]).output();
        let output = output.expect("it runs");
        assert!(output.status.success(), "{file}: {output:?}");
        let token = String::from_utf8(output.stdout).expect("ASCII").trim().to_owned();
        server.stream_with(&format!("{EVENTS}?token={token}"), "").connected();
        let claims = claims(&token);
        for (name, seconds) in [("exp", 60), ("until", 12 * 3600)] {
            let time = claims[name].as_u64().expect("seconds");
            assert!((before + seconds..=now() + seconds).contains(&time), "{file}: {claims}");
        }
        assert_eq!((&claims["org"], &claims["scope"]), (&"acme".into(), &"subscribe".into()));
    }
}

/// The claims of a token that the secret has signed.
fn claims(token: &str) -> Value {
    let key = jsonwebtoken::DecodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::decode(token, &key, &jsonwebtoken::Validation::default()).expect("a token").claims
}

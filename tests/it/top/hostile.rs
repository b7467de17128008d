//! A server that is not ours: its texts cannot command the terminal, and what is read of them is bounded.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use super::{error, once, shown_on, text};
use crate::support::terminal::Terminal;

/// Answers each request on each connection with what `respond` writes for its path.
fn serve(respond: impl Fn(&str, &mut TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for peer in listener.incoming() {
            let (mut peer, respond) = (peer.expect("a connection"), respond.clone());
            std::thread::spawn(move || {
                let (mut request, mut byte) = (String::new(), [0]);
                while let Ok(1) = peer.read(&mut byte) {
                    request.push(char::from(byte[0]));
                    if request.ends_with("\r\n\r\n") {
                        let path = request.split(' ').nth(1).expect("a path").to_owned();
                        respond(&path, &mut peer);
                        request.clear();
                    }
                }
            });
        }
    });
    address
}

fn answer(peer: &mut TcpStream, kind: &str, body: &str) {
    let length = body.len();
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n");
    _ = peer.write_all((head + body).as_bytes());
}

/// Titles, colours, other screens, a clipboard, line ends, the other direction of writing, in ASCII, C1 and Unicode.
const EVIL: &str = "\u{1b}]0;x\u{7}\u{1b}[2J\u{1b}[31m\u{9b}2J\u{1b}]52;c;YQ==\u{7}\u{1b}c\r\u{8}\u{202e}\u{2066}é漢";

/// SCENARIO: `nudged top` of a server that an attacker has, or behind one that names an organisation so.
#[test]
fn no_text_of_a_server_commands_the_terminal() {
    let address = serve(|path, peer| match path {
        "/metrics" => {
            let labels = EVIL.replace('\n', "\\n");
            let metrics = format!(
                "nudged_build_info{{version=\"{labels}\"}} 1\nnudged_open 1\nnudged_backplane_lag_seconds 1\n\
                 nudged_streams_open{{kind=\"{labels}\"}} 1e300\nprocess_start_time_seconds NaN\n\
                 nudged_connections -Inf\nnudged_connections_max 0\nnudged_draining 1\n\
                 nudged_streams_closed_total{{reason=\"{labels}\"}} 5\n\
                 nudged_drain_end_timestamp_seconds 1e300\n{labels}\n"
            );
            answer(peer, "text/plain", &metrics);
        }
        "/ops/nodes" => {
            answer(peer, "application/json", "{\"nodes\":[{\"last_beat_seconds\":-1e300}]}")
        }
        _ => {
            let org = serde_json::json!({
                "org": EVIL.repeat(4), "members": u64::MAX, "public": 0, "publishes_per_second": 1e300,
            });
            let orgs = serde_json::json!({ "total": 1, "orgs": vec![org; 40] });
            answer(peer, "application/json", &orgs.to_string());
        }
    });
    let url = format!("http://{address}");
    let output = once(&[&url], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", error(&output));
    let shown = text(&output);
    assert!(shown.contains("?]0;x??[2J") && shown.contains("streams"), "{shown}");
    assert!(shown.chars().all(|c| matches!(c, ' '..='~' | '\n')), "{shown:?}");

    let terminal = Terminal::new(80, 24);
    let mut top = shown_on(&terminal, &url);
    terminal.expect("?]0;x??[2J");
    terminal.type_keys("q");
    assert_eq!(top.wait(), Some(0));
    terminal.eventually("the end", |picture| !picture.is_alternate);
}

/// SCENARIO: the same, in the text of an error.
#[test]
fn no_error_of_a_server_commands_the_terminal() {
    let address = serve(|_, peer| {
        let body = serde_json::json!({ "title": EVIL, "detail": EVIL }).to_string();
        let length = body.len();
        let head = "HTTP/1.1 503 x\r\ncontent-type: application/problem+json\r\n";
        _ = write!(peer, "{head}content-length: {length}\r\n\r\n{body}");
    });
    let output = once(&[&format!("http://{address}")], &[]);
    assert_eq!(output.status.code(), Some(1));
    let shown = error(&output);
    assert!(
        shown.contains("503") && !shown.contains(['\u{1b}', '\u{9b}', '\u{7}', '\u{202e}']),
        "{shown:?}"
    );
}

#[test]
fn what_is_read_of_a_server_is_bounded() {
    // Endless, a line of no end, and with a length.
    let endless = serve(|_, peer| {
        _ = peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n");
        while peer.write_all(&[b'a'; 4096]).is_ok() {}
    });
    let large = serve(|_, peer| answer(peer, "text/plain", &"nudged_open 1\n".repeat(100_000)));
    for address in [endless, large] {
        let output = once(&[&format!("http://{address}")], &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(error(&output).contains("more than 262144 bytes"), "{}", error(&output));
    }
    // What is no metric is as none.
    let other =
        serve(|_, peer| answer(peer, "text/html", "<!doctype html>\n<title>a page</title> 1\n"));
    let output = once(&[&format!("http://{other}")], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(error(&output).contains("no metrics of nudged"), "{}", error(&output));
}

//! A stream ends before it has sent as many records as its cipher allows (RFC 8446, 5.5), and its client resumes.

use super::peer::Peer;
use super::record::Message;
use super::server::Records;
use super::{Program, Site, browsers, keys};
use crate::support::certificate::Certificate;
use crate::support::eventually;
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, OPENSSL, requires};
use crate::support::server::Server;

/// So low that a stream ends after a few events.
const ENDING: Records = Records { end_after: Some(8), request_update_after: None, keep: false };

/// Asserts that a client has received these events, and `resumed` in between, in lines that begin with the names.
fn assert_resumed(lines: &[String], keys: &[String]) {
    let events: Vec<_> = lines.iter().filter(|line| line.starts_with("invalidate")).collect();
    let are_equal =
        events.iter().zip(keys).all(|(line, key)| line.contains(&format!("[\"{key}\"]")));
    assert!(are_equal && events.len() == keys.len(), "{lines:?}");
    let count = |name| lines.iter().filter(|line| line.starts_with(name)).count();
    assert_eq!(count("connected"), 1, "{lines:?}");
    assert!(count("resumed") >= 2, "{lines:?}");
}

#[test]
fn a_stream_ends_in_order_before_its_records_run_out() {
    requires!(OPENSSL);
    let site = Site::start(ENDING);
    let mut peer = Peer::open(site.server.secure);
    for n in 0..20 {
        site.server.publish(&format!("e{n}-"));
        if site.server.seats() == 0 {
            break;
        }
    }
    let (text, rest) = peer.read_to_end();
    assert!(text.ends_with("0\r\n\r\n"), "{text}");
    let last = text.trim_end_matches("0\r\n\r\n").trim_end().rsplit("\r\n").next();
    assert_eq!(last, Some("retry: 50"), "{text}");
    assert_eq!(rest, [Message::Alert(0)]);
    // Those that end it come after the last event: the rest of the body, and close_notify.
    assert!(peer.records() <= 8 + 3, "{} records", peer.records());
}

#[test]
fn nudged_listen_resumes_when_the_records_run_out() {
    requires!(OPENSSL);
    let site = Site::start(ENDING);
    let url = format!("https://{}", site.server.secure);
    let mut command = Server::command();
    command.args(["listen", "acme", "--url", &url, "--ca", &Certificate::of_tests().certificate]);
    let client = Program::start(&mut command);
    eventually("its stream is open", || client.wrote("connected"));
    let keys = keys("e", 30);
    site.publish_in_turn(&keys, |key| client.received(key));
    let lines: Vec<_> = client.output().lines().map(String::from).collect();
    assert_resumed(&lines, &keys);
}

#[test]
fn chromium_resumes_when_the_records_run_out() {
    requires!(OPENSSL, CHROMEDRIVER, CHROMIUM);
    let site = Site::start(ENDING);
    let browser = browsers::chromium(&site);
    let keys = keys("e", 30);
    let lines = || -> Vec<_> {
        browser.seen().into_iter().map(|[name, data, _]| format!("{name} {data}")).collect()
    };
    site.publish_in_turn(&keys, |key| lines().iter().any(|line| line.contains(key)));
    assert_resumed(&lines(), &keys);
}

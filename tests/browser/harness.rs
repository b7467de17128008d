//! A site with the client, whose pages record what they are notified of.

mod chrome;
mod page;
mod site;

pub(crate) use self::chrome::{Chrome, Tab};
pub(crate) use self::page::{Page, Published, eventually_sees};
pub(crate) use self::site::{PUBLISH_KEY, SECRET, Site, Tickets, answer, read_head};

use crate::support::client::post;
use crate::support::{Answer, Server};

/// A server with tokens, whose clients reconnect after 200 ms unless the arguments say otherwise.
pub(crate) fn server(more: &[&str]) -> Server {
    Server::start(&flags(more))
}

/// The arguments of such a server.
pub(crate) fn flags<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let defaults = [
        ["--jwt-secret", SECRET],
        ["--publish-key", PUBLISH_KEY],
        ["--coalesce", "0"],
        ["--retry-min", "200ms"],
        ["--retry-max", "200ms"],
    ];
    let defaults = defaults.into_iter().filter(|[flag, _]| !more.contains(flag)).flatten();
    defaults.chain(more.iter().copied()).collect()
}

/// Publishes keys and returns the event's id, if it has one.
pub(crate) fn publish(server: &Server, org: &str, keys: &[&str]) -> Option<String> {
    let body = serde_json::json!({ "keys": keys }).to_string();
    let answer = accepted(server, &post(&format!("/api/{org}/events"), "application/json", &body));
    let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    body.get("id").map(|id| id.as_str().expect("a string").to_owned())
}

/// Sends a request with the key to publish, which the server accepts.
pub(crate) fn accepted(server: &Server, request: &str) -> Answer {
    let credential = format!("host: test\r\nauthorization: Bearer {PUBLISH_KEY}");
    let answer = server.request(&request.replacen("host: test", &credential, 1));
    assert_eq!(answer.status(), 202, "{answer:?}");
    answer
}

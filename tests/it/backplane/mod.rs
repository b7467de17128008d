//! Several servers as one: the log that they share, seen from one of them.

mod commands;
mod drain;
mod outage;
mod publish;
mod settings;
mod state;

use crate::support::nats::NatsServer;
use crate::support::{Answer, Server, Transport, eventually};

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";
const RUN: &str = "/api/acme/topics/run-7/events";

/// A server that shares the log of this broker.
fn start(nats: &NatsServer, args: &[&str]) -> Server {
    Server::start(&[&["--backplane", &nats.url()], args].concat())
}

/// The same once it has read the log.
fn ready(nats: &NatsServer, args: &[&str]) -> Server {
    let server = start(nats, args);
    eventually("the log is loaded", || server.get("/readyz").status() == 200);
    server
}

/// The same, whose log is piped.
fn logging(nats: &NatsServer, args: &[&str]) -> Server {
    let mut command = Server::command();
    command.stderr(std::process::Stdio::piped());
    let url = nats.url();
    Server::start_as(command, Transport::Http1, &[&["--backplane", &url], args].concat())
}

fn publish_keys(server: &Server, org: &str, keys: &str) -> Answer {
    server.post(&format!("/api/{org}/events"), JSON, &format!(r#"{{"keys":["{keys}"]}}"#))
}

/// A member of a response in JSON.
fn member(answer: &Answer, name: &str) -> serde_json::Value {
    serde_json::from_str::<serde_json::Value>(&answer.body).expect("JSON")[name].clone()
}

/// The id in the response to a publish.
fn id_of(answer: &Answer) -> String {
    assert_eq!(answer.status(), 202, "{answer:?}");
    member(answer, "id").as_str().expect("an id").to_owned()
}

/// Checks the refusal of a publish that may have been stored.
fn expect_unavailable(answer: &Answer) {
    let problem = expect_503(answer, "backplane-unavailable");
    assert!(problem.contains("keys can be published again without harm"), "{problem}");
}

/// Checks the refusal of a publish that was not stored.
fn expect_not_stored(answer: &Answer) {
    let problem = expect_503(answer, "backplane-not-stored");
    assert!(problem.contains("nothing of this request was stored"), "{problem}");
}

/// Checks a refusal of this type. Returns what it says.
fn expect_503(answer: &Answer, kind: &str) -> String {
    assert_eq!(answer.status(), 503, "{answer:?}");
    assert_eq!(member(answer, "type"), kind);
    let seconds: u32 = answer.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((1..=5).contains(&seconds), "{seconds}");
    answer.problem()
}

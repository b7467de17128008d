//! One topic, and events of it whose data are numbers.

use serde_json::Value;

use super::Server;

/// Where it is published to, and streamed.
pub(crate) const RUN: &str = "/api/acme/topics/run-7/events";

pub(crate) const JSON: &str = "application/json";

/// An event whose data is a number.
pub(crate) fn numbered(n: u64) -> String {
    format!(r#"{{"event":"output","data":{{"n":{n}}}}}"#)
}

/// The same on the wire.
pub(crate) fn numbered_frame(id: &str, n: u64) -> String {
    format!("id: {id}\nevent: output\ndata: {{\"n\":{n}}}\n\n")
}

/// Publishes to a topic and returns the id of the event.
pub(crate) fn publish(server: &Server, path: &str, body: &str) -> String {
    let answer = server.post(path, JSON, body);
    assert_eq!(answer.status(), 202, "{body}: {answer:?}");
    assert_eq!(answer.header("content-type"), Some(JSON));
    let parsed: Value = serde_json::from_str(&answer.body).expect("JSON");
    let id = parsed["id"].as_str().expect("an id").to_owned();
    assert_eq!(answer.body, format!(r#"{{"id":"{id}"}}"#));
    id
}

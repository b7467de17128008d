//! `ticket`: the claims, and what the server makes of them.

use serde_json::{Value, json};

use super::backend::{Backend, each};
use super::{SECRET, server, url};
use crate::support::Server;

fn claims(token: &str) -> Value {
    let key = jsonwebtoken::DecodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::decode(token, &key, &jsonwebtoken::Validation::default()).expect("a token").claims
}

fn ticket(backend: &mut Backend, org: &str, options: &Value) -> String {
    let call = json!({ "action": "ticket", "secret": SECRET, "org": org, "options": options });
    let signed = backend.call(&call);
    signed["token"].as_str().unwrap_or_else(|| panic!("{signed}")).to_owned()
}

fn status(server: &Server, path: &str, token: &str) -> u16 {
    let mut client = server.connect();
    client
        .send(&format!("GET {path} HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {token}\r\n\r\n"));
    client.read_head().split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}

#[test]
fn a_ticket_has_the_claims_that_the_readme_names() {
    each(|language| {
        let mut backend = Backend::run(language);
        let now = jsonwebtoken::get_current_timestamp;
        for (options, scope, topics, seconds, stream_seconds) in [
            (json!({}), "subscribe", Value::Null, 60, 12 * 3600),
            (json!({ "seconds": 5, "streamSeconds": 7 }), "subscribe", Value::Null, 5, 7),
            (
                json!({ "scope": "subscribe exclusive", "topics": ["run-*", "jobs"] }),
                "subscribe exclusive",
                json!(["run-*", "jobs"]),
                60,
                12 * 3600,
            ),
        ] {
            let before = now();
            let mut claims = claims(&ticket(&mut backend, "acme", &options));
            for (name, seconds) in [("exp", seconds), ("until", stream_seconds)] {
                let time = claims[name].as_u64().expect("whole seconds");
                assert!(
                    (before + seconds..=now() + seconds).contains(&time),
                    "{language:?} {claims}"
                );
                claims.as_object_mut().expect("an object").remove(name);
            }
            let mut expected = json!({ "org": "acme", "scope": scope });
            if topics != Value::Null {
                expected["topics"] = topics;
            }
            assert_eq!(claims, expected, "{language:?}: these, and no others");
        }
    });
}

#[test]
fn a_ticket_opens_the_streams_that_it_is_for() {
    each(|language| {
        let mut backend = Backend::run(language);
        let server = server(&[]);
        let plain = ticket(&mut backend, "acme", &json!({}));
        server
            .stream_with("/api/acme/events", &format!("authorization: Bearer {plain}\r\n"))
            .connected();
        assert_eq!(status(&server, "/api/other/events", &plain), 403, "{language:?}");
        assert_eq!(status(&server, "/api/acme/topics/run-7/events", &plain), 403, "{language:?}");
        let topics = ticket(&mut backend, "acme", &json!({ "topics": ["run-*"] }));
        assert_eq!(status(&server, "/api/acme/topics/run-7/events", &topics), 200, "{language:?}");
        assert_eq!(status(&server, "/api/acme/topics/jobs/events", &topics), 403, "{language:?}");
    });
}

#[test]
fn a_ticket_with_the_scope_to_publish_is_for_a_backend() {
    each(|language| {
        let mut backend = Backend::run(language);
        let server = server(&[]);
        for org in ["*", "acme"] {
            let token = ticket(&mut backend, org, &json!({ "scope": "publish" }));
            backend.open(&url(&server), &json!({ "token": token }));
            let published = backend.publish("acme", &["a"]);
            assert_eq!(published["error"], Value::Null, "{language:?} {org}");
            assert_eq!(backend.publish("other", &["a"])["error"].is_null(), org == "*");
            assert_eq!(status(&server, "/api/acme/events", &token), 403, "{language:?} {org}");
        }
    });
}

#[test]
fn a_ticket_that_no_server_would_take_or_for_every_org_is_an_error() {
    let pem = format!("-----BEGIN\nPRIVATE KEY-----{SECRET}");
    each(|language| {
        let mut backend = Backend::run(language);
        for (secret, org, options, why) in [
            ("", "acme", json!({}), "at least 32 bytes"),
            (&SECRET[1..], "acme", json!({}), "at least 32 bytes"),
            (&format!("{SECRET}\n"), "acme", json!({}), "no white space"),
            (&pem, "acme", json!({}), "no white space"),
            (SECRET, "", json!({}), "an organisation is"),
            (SECRET, "*", json!({}), "an organisation is"),
            (SECRET, "*", json!({ "scope": "subscribe publish" }), "an organisation is"),
            (SECRET, "a/b", json!({ "scope": "publish" }), "an organisation is"),
            (SECRET, "acme", json!({ "seconds": -1 }), "above 0"),
            (SECRET, "acme", json!({ "streamSeconds": -1 }), "above 0"),
        ] {
            let call =
                json!({ "action": "ticket", "secret": secret, "org": org, "options": options });
            let error = backend.call(&call);
            let text = error["error"].as_str().unwrap_or_else(|| panic!("{language:?} {call}"));
            assert!(text.contains(why), "{language:?} {call}: {text}");
        }
    });
}

//! `enqueue`: keys wait for a window, and go out in batches. What is refused is reported.

use std::sync::{Arc, Mutex};

use serde_json::json;

use super::backend::{Backend, each};
use super::script::{Request, Script, Step};
use super::{PUBLISH_KEY, member, server, url};
use crate::support::{Stream, after};

fn sent(script: &Script) -> Vec<(String, Vec<String>)> {
    script.requests().iter().flat_map(Request::lines).collect()
}

fn line(org: &str, keys: &[&str]) -> (String, Vec<String>) {
    (org.to_owned(), keys.iter().map(|key| (*key).to_owned()).collect())
}

#[test]
fn what_comes_within_a_window_is_one_request_in_its_order() {
    each(|language| {
        let script = Script::play([]);
        let mut backend = Backend::start(language, &script.url(), &json!({ "token": "secret" }));
        for (org, keys) in
            [("b", &["x", "y"][..]), ("a", &["z"]), ("b", &["y", "w", "x"]), ("a", &["é\u{2028}"])]
        {
            backend.enqueue(org, keys);
        }
        backend.enqueue::<&str>("c", &[]);
        assert_eq!(script.requests().len(), 0, "{language:?}: it waits for its window");
        backend.finish();
        let [request] = &script.requests()[..] else { panic!("one request") };
        assert_eq!(request.lines(), [line("b", &["x", "y", "w"]), line("a", &["z", "é\u{2028}"])]);
        assert_eq!(request.line, "POST /api/events");
        for field in ["content-type: application/x-ndjson", "authorization: Bearer secret"] {
            assert!(request.fields.iter().any(|have| have == field), "{language:?} {request:?}");
        }
        assert_eq!(backend.dropped(), [], "{language:?}");
    });
}

#[test]
fn batches_reach_the_streams_of_their_orgs_one_after_the_other() {
    each(|language| {
        let server = server(&[]);
        let open = |org| server.stream_with(&format!("/api/{org}/events"), &member(org));
        let mut streams = ["acme", "umbrella"].map(open);
        let ids = streams.each_mut().map(Stream::connected);
        let options = json!({ "token": PUBLISH_KEY, "window": 20 });
        let mut backend = Backend::start(language, &url(&server), &options);
        for (count, key) in (1..).zip(["a", "b\"\\", "\u{2028}😀"]) {
            ["acme", "umbrella"].iter().for_each(|org| backend.enqueue(org, &[key]));
            for (stream, id) in streams.iter_mut().zip(&ids) {
                stream.expect_invalidate(&after(id, count), &[key]);
            }
        }
        assert_eq!(backend.dropped(), [], "{language:?}");
    });
}

#[test]
fn a_queue_that_is_full_drops_what_comes_and_says_so() {
    each(|language| {
        let held = Arc::new(Mutex::new(()));
        let script = Script::play([Step::Hold(Arc::clone(&held))]);
        let options = json!({ "window": 20, "queue": 3 });
        let mut backend = Backend::start(language, &script.url(), &options);
        let guard = held.lock().expect("no panic");
        backend.enqueue("a", &["0"]);
        script.await_requests(1);
        backend.enqueue("a", &["1", "2"]);
        backend.enqueue("b", &["3", "4", "5"]);
        backend.enqueue("c", &["6"]);
        let full = |org, keys: &[&str]| {
            let (org, keys) = line(org, keys);
            (org, keys, "the queue is full: 3 keys".to_owned())
        };
        assert_eq!(backend.dropped(), [full("b", &["4", "5"]), full("c", &["6"])], "{language:?}");
        drop(guard);
        script.await_requests(2);
        backend.enqueue("c", &["7", "8"]);
        backend.finish();
        assert_eq!(backend.dropped(), [], "{language:?}: there is room again");
        let sent: Vec<_> = sent(&script).into_iter().flat_map(|(_, keys)| keys).collect();
        assert_eq!(sent, ["0", "1", "2", "3", "7", "8"], "{language:?}");
    });
}

#[test]
fn a_request_keeps_to_what_a_server_takes_by_default() {
    // The longest names and keys. Of ASCII, JSON would have twelve bytes for the last two characters.
    let long = |n: usize| format!("{n:04}{}", "é😀".repeat(84));
    let name = |n: usize| format!("{n:064}");
    each(|language| {
        let script = Script::play([]);
        let mut backend = Backend::start(language, &script.url(), &json!({}));
        let mut expected = vec![];
        for n in 0..250 {
            backend.enqueue(&name(n), &[long(n)]);
            expected.push((name(n), long(n)));
        }
        let many: Vec<_> = (0..700).map(long).collect();
        backend.enqueue("acme", &many);
        expected.extend(many.into_iter().map(|key| ("acme".to_owned(), key)));
        backend.finish();
        assert_eq!(backend.dropped(), [], "{language:?}");
        let requests = script.requests();
        assert!(requests.iter().all(|request| request.body.len() <= 64 * 1024), "{language:?}");
        let lines = requests.iter().flat_map(Request::lines);
        let pairs =
            lines.flat_map(|(org, keys)| keys.into_iter().map(move |key| (org.clone(), key)));
        assert!(pairs.eq(expected), "{language:?}: each once, in order");
    });
}

#[test]
fn what_the_server_refuses_does_not_take_the_others_with_it() {
    let long = "x".repeat(65);
    each(|language| {
        let server = server(&["--key-bytes", "8"]);
        let open = |org| server.stream_with(&format!("/api/{org}/events"), &member(org));
        let mut streams = ["first", "last"].map(open);
        let ids = streams.each_mut().map(Stream::connected);
        let mut backend = Backend::start(language, &url(&server), &json!({ "token": PUBLISH_KEY }));
        let bad = [
            ("", &["a"][..]),
            ("../admin", &["a"]),
            ("acme\n", &["a"]),
            ("ä", &["a"]),
            (&long, &["a"]),
            ("c", &["a", ""]),
            ("d", &["a", "much-longer"]),
        ];
        backend.enqueue("first", &["a"]);
        bad.iter().for_each(|(org, keys)| backend.enqueue(org, keys));
        backend.enqueue("last", &["a"]);
        backend.finish();
        for (stream, id) in streams.iter_mut().zip(&ids) {
            stream.expect_invalidate(&after(id, 1), &["a"]);
        }
        let dropped = backend.dropped();
        let lost = dropped.iter().map(|(org, keys, _)| (org.clone(), keys.clone()));
        assert!(lost.eq(bad.map(|(org, keys)| line(org, keys))), "{language:?} {dropped:?}");
        assert!(dropped[6].2.contains("answered 422: line 2: key 1 has 11 bytes"), "{dropped:?}");
        for (org, keys) in bad {
            let error = backend.publish(org, keys);
            assert!(error["status"].is_u64(), "{language:?} {org} {keys:?} {error}");
        }
    });
}

#[test]
fn half_a_character_does_not_take_the_others_with_it() {
    each(|language| {
        let server = server(&[]);
        let mut stream = server.stream_with("/api/acme/events", &member("acme"));
        let id = stream.connected();
        let mut backend = Backend::start(language, &url(&server), &json!({ "token": PUBLISH_KEY }));
        let half = |action| format!(r#"{{"action":"{action}","org":"o","keys":["\ud83d"]}}"#);
        assert!(backend.call_text(&half("publish"))["error"].is_string(), "{language:?}");
        assert!(backend.call_text(&half("enqueue"))["error"].is_null(), "{language:?}");
        backend.enqueue("acme", &["a"]);
        backend.finish();
        stream.expect_invalidate(&after(&id, 1), &["a"]);
    });
}

#[test]
fn an_org_beyond_its_rate_waits() {
    each(|language| {
        let server = server(&["--publish-rate", "1", "--publish-burst", "1"]);
        let options = json!({ "token": PUBLISH_KEY, "window": 20 });
        let mut backend = Backend::start(language, &url(&server), &options);
        let open = |org| server.stream_with(&format!("/api/{org}/events"), &member(org));
        let mut streams = ["busy", "quiet"].map(open);
        streams.iter_mut().for_each(|stream| _ = stream.connected());
        backend.publish("busy", &["first"]);
        assert!(streams[0].next().contains("first"));
        backend.enqueue("busy", &["second"]);
        backend.enqueue("quiet", &["other"]);
        assert!(streams[0].next().contains("second"), "{language:?}");
        assert!(streams[1].next().contains("other"), "{language:?}");
        assert_eq!(backend.dropped(), [], "{language:?}");
    });
}

#[test]
fn a_batch_that_is_refused_as_a_whole_is_dropped_with_the_reason() {
    each(|language| {
        let server = server(&[]);
        let options = json!({ "token": "another-publish-key" });
        let mut backend = Backend::start(language, &url(&server), &options);
        backend.enqueue("a", &["x"]);
        backend.enqueue("b", &["y"]);
        backend.finish();
        let dropped = backend.dropped();
        let lost: Vec<_> =
            dropped.iter().map(|(org, keys, _)| (org.clone(), keys.clone())).collect();
        assert_eq!(lost, [line("a", &["x"]), line("b", &["y"])], "{language:?}");
        assert!(
            dropped.iter().all(|(.., why)| why.contains("answered 401: ")),
            "{language:?} {dropped:?}"
        );
    });
}

/// SCENARIO: the number in a problem body is that of no line, because a proxy has written it, say.
#[test]
fn a_number_of_no_line_drops_the_batch() {
    each(|language| {
        let mut backend = Backend::run(language);
        for detail in [
            r#"{"detail":"line 0: odd"}"#,
            r#"{"detail":"line 3: odd"}"#,
            r#"{"detail":"the line 1: odd"}"#,
            "[1]",
            "null",
        ] {
            let script = Script::play([Step::Answer(422, "", detail)]);
            backend.open(&script.url(), &json!({}));
            backend.enqueue("a", &["x"]);
            backend.enqueue("b", &["y"]);
            backend.finish();
            assert_eq!(backend.dropped().len(), 2, "{language:?} {detail}");
            assert_eq!(script.requests().len(), 1, "{language:?} {detail}");
        }
    });
}

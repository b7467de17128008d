//! What the queue does while the server is away, and when the process ends.

use std::process::Command;

use serde_json::json;

use super::backend::{Backend, Language, NODE_FILE, PYTHON_FILE, each};
use super::script::{Request, Script, Step};
use crate::support::eventually;
use crate::support::programs::{NODE, PYTHON, requires};

const AWAY: Step = Step::Answer(503, "", r#"{"detail":"away"}"#);

#[test]
fn a_batch_is_sent_once_more_if_that_may_help() {
    each(|language| {
        let mut backend = Backend::run(language);
        for step in [Step::Reset, AWAY] {
            let script = Script::play([step]);
            backend.open(&script.url(), &json!({}));
            backend.enqueue("a", &["x"]);
            backend.finish();
            let requests = script.requests();
            assert_eq!(requests.len(), 2, "{language:?}");
            assert_eq!(requests[0].body, requests[1].body, "{language:?}");
            assert_eq!(backend.dropped(), [], "{language:?}");
        }
    });
}

#[test]
fn a_batch_that_fails_twice_is_dropped_with_the_reason_and_the_next_one_is_sent() {
    const LATER: Step = Step::Answer(503, "retry-after: 3600\r\n", r#"{"detail":"away"}"#);
    each(|language| {
        let mut backend = Backend::run(language);
        for (steps, why) in [
            (vec![AWAY, AWAY], "answered 503: away"),
            (vec![LATER], "answered 503: away"),
            (vec![Step::Reset, Step::Reset], "no response of nudged"),
        ] {
            let count = steps.len();
            let script = Script::play(steps);
            backend.open(&script.url(), &json!({ "window": 20 }));
            backend.enqueue("a", &["x"]);
            let mut dropped = vec![];
            eventually("it is dropped", || {
                dropped.extend(backend.dropped());
                !dropped.is_empty()
            });
            let [(org, keys, reason)] = &dropped[..] else { panic!("{language:?} {dropped:?}") };
            assert_eq!((org.as_str(), &keys[..]), ("a", &["x".to_owned()][..]), "{language:?}");
            assert!(reason.contains(why), "{language:?} {reason}");
            backend.enqueue("a", &["y"]);
            let requests = script.await_requests(count + 1);
            assert!(requests[count].body.contains("\"y\""), "{language:?}");
        }
    });
}

#[test]
fn close_sends_what_is_queued_at_once_and_ends_the_queue() {
    each(|language| {
        let script = Script::play([]);
        let mut backend = Backend::start(language, &script.url(), &json!({}));
        backend.enqueue("a", &["x"]);
        backend.finish();
        assert_eq!(script.requests().len(), 1, "{language:?}");
        backend.enqueue("a", &["y"]);
        backend.finish();
        let dropped = backend.dropped();
        assert!(
            dropped.len() == 1 && dropped[0].2.contains("is closed"),
            "{language:?} {dropped:?}"
        );
        assert_eq!(script.requests().len(), 1, "{language:?}");
    });
}

#[test]
fn close_drops_what_is_left_when_its_time_is_over() {
    each(|language| {
        let mut backend = Backend::run(language);
        for (step, why) in [
            (Step::Answer(503, "retry-after: 5\r\n", r#"{"detail":"away"}"#), "answered 503: away"),
            (Step::Silence, "no response of nudged at"),
        ] {
            let script = Script::play([step.clone(), step.clone(), step.clone(), step]);
            let options = json!({ "window": 20, "timeout": 3_000 });
            backend.open(&script.url(), &options);
            backend.enqueue("a", &["x"]);
            script.await_requests(1);
            backend.enqueue("b", &["y"]);
            backend.close(100);
            assert!(script.requests().len() == 1 || why.starts_with("no response"), "{language:?}");
            let dropped = backend.dropped();
            let [x, y] = &dropped[..] else { panic!("{language:?} {dropped:?}") };
            assert!(x.0 == "a" && x.1 == ["x"] && x.2.contains(why), "{language:?} {dropped:?}");
            // The request itself may have ended before, on a busy machine.
            let is_closed = y.2.contains("the publisher was closed");
            let is_late = why.starts_with("no response") && y.2.contains(why);
            assert!(y.0 == "b" && y.1 == ["y"] && (is_closed || is_late), "{dropped:?}");
        }
    });
}

#[test]
fn a_process_that_ends_sends_its_queue() {
    each(|language| {
        let script = Script::play([]);
        let mut backend = Backend::start(language, &script.url(), &json!({ "window": 300 }));
        backend.enqueue("a", &["x"]);
        // In Go the end of main is the end: the program calls Close.
        backend.end();
        assert_eq!(script.requests().len(), 1, "{language:?}");
    });
}

#[test]
fn a_report_that_fails_does_not_reach_the_caller() {
    each(|language| {
        if language == Language::Go {
            return;
        }
        let refusal = Step::Answer(401, "", "");
        let script = Script::play([refusal.clone(), refusal]);
        let options = json!({ "window": 20, "fails": true });
        let mut backend = Backend::start(language, &script.url(), &options);
        for count in 1..=3 {
            backend.enqueue("a", &["x"]);
            script.await_requests(count);
        }
        backend.finish();
        backend.enqueue("a", &["x"]);
        assert_eq!(script.requests().len(), 3, "{language:?}: the queue went on, and is closed");
    });
}

#[test]
fn without_a_callback_what_is_dropped_is_logged() {
    requires!(NODE, PYTHON);
    let node = format!(
        "import('{NODE_FILE}').then(({{ publisher }}) => \
         publisher({{ url: 'http://127.0.0.1:9' }}).enqueue('no org', ['a\\nb\\u2028']))"
    );
    let python = format!(
        "import runpy; m = runpy.run_path('{PYTHON_FILE}'); \
         m['Publisher']('http://127.0.0.1:9').enqueue('no org', ['a\\nb\\u2028'])"
    );
    for (program, args) in [("node", ["-e", &node]), ("python3", ["-c", &python])] {
        let output = Command::new(program).args(args).output().expect("it runs");
        let log = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(output.status.success(), "{program}: {log}");
        assert!(log.contains("not published to") && log.contains("no org"), "{program}: {log}");
        assert_eq!(log.trim_end().lines().count(), 1, "{program}: {log}");
    }
}

/// The thread that sends the queue is not in the fork.
#[test]
fn a_fork_of_python_sends_what_it_enqueues() {
    requires!(PYTHON);
    let script = Script::play([]);
    let code = format!(
        "import os, runpy, sys\n\
         m = runpy.run_path('{PYTHON_FILE}')\n\
         nudged = m['Publisher']('{}', window=0.3)\n\
         nudged.enqueue('a', ['parent'])\n\
         if os.fork() == 0:\n    nudged.enqueue('a', ['child'])\n    sys.exit()\n\
         os.wait()\n",
        script.url()
    );
    let output = Command::new("python3").args(["-c", &code]).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let lines: Vec<_> = script.requests().iter().flat_map(Request::lines).collect();
    for name in ["parent", "child"] {
        assert!(lines.iter().any(|(_, keys)| keys.iter().any(|key| key == name)), "{lines:?}");
    }
}

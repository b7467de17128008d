//! What a page has recorded.

use std::time::SystemTime;

use serde_json::Value;

use super::publish;
use crate::support::{Server, eventually};

/// A page of the site in some browser.
pub(crate) trait Page {
    /// Runs a function's body in the page and returns what it returns.
    fn run(&self, script: &str) -> Value;

    /// `['connected', first]`, `['invalidate', keys]`, `['status', state, why]`, `['event', name, data]`, in order.
    fn seen(&self) -> Vec<Value> {
        let seen = self.run("return window.seen ?? []");
        serde_json::from_value(seen).expect("a list")
    }

    /// Those of one kind, without it.
    fn seen_of(&self, kind: &str) -> Vec<Value> {
        let seen = self.seen().into_iter().filter(|entry| entry[0] == kind);
        seen.map(|entry| entry[1].clone()).collect()
    }

    /// How often everything was said to be stale.
    fn connected(&self) -> usize {
        self.seen_of("connected").len()
    }

    /// The keys that were said to be stale, in order.
    fn keys(&self) -> Vec<String> {
        let keys = self.seen_of("invalidate").into_iter();
        keys.flat_map(|keys| serde_json::from_value::<Vec<String>>(keys).expect("keys")).collect()
    }

    /// The last state, and why.
    fn status(&self) -> [Value; 2] {
        let last = self.seen().into_iter().rev().find(|entry| entry[0] == "status");
        last.map_or([Value::Null, Value::Null], |last| [last[1].clone(), last[2].clone()])
    }

    fn eventually_has(&self, key: &str) {
        eventually_sees(self, &format!("the key {key}"), |page| {
            page.keys().iter().any(|k| k == key)
        });
    }

    fn eventually_is(&self, state: &str, why: impl Into<Value>) {
        let expected = [state.into(), why.into()];
        let what = format!("{expected:?}");
        eventually_sees(self, &what, |page| page.status() == expected);
    }

    fn eventually_connected(&self, times: usize) {
        let what = format!("connected, {times} times");
        eventually_sees(self, &what, |page| page.connected() >= times);
        assert_eq!(self.connected(), times, "{:?}", self.seen());
    }
}

/// Waits until the page has seen it; the failure has all that it saw.
pub(crate) fn eventually_sees<P: Page + ?Sized>(
    page: &P,
    what: &str,
    mut holds: impl FnMut(&P) -> bool,
) {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually(what, || holds(page));
    }));
    assert!(result.is_ok(), "not in time: {what}; the page has seen {:?}", page.seen());
}

/// Keys, and when each was about to be published, in milliseconds since 1970.
#[derive(Default)]
pub(crate) struct Published {
    keys: Vec<(String, f64)>,
}

// ===== impl Published =====

impl Published {
    /// Publishes a key and returns the event's id.
    pub(crate) fn publish(&mut self, server: &Server, org: &str, key: &str) -> String {
        self.send(server, org, key).expect("remembered")
    }

    /// The same of an organisation of which the server may know nothing yet.
    pub(crate) fn send(&mut self, server: &Server, org: &str, key: &str) -> Option<String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        self.keys.push((key.to_owned(), now.as_secs_f64() * 1000.0));
        publish(server, org, &[key])
    }

    /// Waits until the page had each of the keys, or `connected` after it.
    pub(crate) fn eventually_reach(&self, page: &impl Page) {
        let mut missed = self.missed_by(page);
        let reached = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("every key", || {
                missed = self.missed_by(page);
                missed.is_empty()
            });
        }));
        assert!(reached.is_ok(), "{missed:?} were lost; the page has seen {:?}", page.seen());
    }

    fn missed_by(&self, page: &impl Page) -> Vec<&str> {
        let seen = page.run("return seen.map((entry, at) => [entry[0], entry[1], times[at]])");
        let seen: Vec<(String, Value, f64)> = serde_json::from_value(seen).expect("entries");
        let reached = |(key, when): &&(String, f64)| {
            seen.iter().any(|(kind, value, at)| match kind.as_str() {
                "invalidate" => value.as_array().is_some_and(|keys| keys.iter().any(|k| k == key)),
                "connected" => at >= when,
                _ => false,
            })
        };
        let missed = self.keys.iter().filter(|key| !reached(key));
        missed.map(|(key, _)| key.as_str()).collect()
    }
}

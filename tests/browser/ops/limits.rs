use std::fmt::Write as _;

use serde_json::json;

use super::Operator;
use crate::harness::Chrome;
use crate::memory::Use;
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, requires};
use crate::support::{Server, eventually};

/// Publishes events with a key of 480 bytes each, and returns the last one's id.
fn publish(server: &Server, numbers: std::ops::Range<u64>) -> String {
    let padding = "x".repeat(470);
    let end = numbers.end;
    for first in numbers.step_by(50) {
        let mut lines = String::new();
        for n in first..end.min(first + 50) {
            writeln!(lines, r#"{{"org":"acme","keys":["{n:010}{padding}"]}}"#).expect("a string");
        }
        assert_eq!(server.post("/api/events", "application/x-ndjson", &lines).status(), 202);
    }
    server.publish("acme", &["end"]).expect("subscribed")
}

/// The tail has the last 200. 4,500 events are 2,250,000 bytes.
#[test]
fn five_thousand_events_leave_two_hundred_in_the_tail() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = Server::start(&[
        "--coalesce",
        "0",
        "--history-events",
        "10000",
        "--history-bytes",
        "16777216",
    ]);
    let chrome = Chrome::start();
    let page = Operator::open(&chrome, &server);
    page.eventually_has("#state", "Serving");
    page.follow("acme", "");
    page.eventually_has("#tailSaid", "open");
    page.eventually_has("#tail li", &publish(&server, 0..500));
    let before = Use::of(&page.0);
    page.eventually_has("#tail li:first-child", &publish(&server, 500..5000));
    let count = "return document.querySelectorAll('#tail li').length";
    assert_eq!(page.run(count), 200);
    let rows = page.rows("tail");
    assert!(rows[1][2].starts_with("0000004999x") && rows[199][2].starts_with("0000004801x"));
    let after = Use::of(&page.0);
    assert!(after.heap - before.heap < 1_000_000.0, "{before:?} {after:?}");

    // A hidden page draws nothing; what it shows later are the last ones.
    page.0.set_hidden(true);
    publish(&server, 5000..6000);
    page.0.set_hidden(false);
    eventually("it is drawn", || page.rows("tail")[1][2].starts_with("0000005999x"));
    assert_eq!(page.run(count), 200);
    let ids =
        "return new Set([...document.querySelectorAll('#tail code')].map(e => e.textContent)).size";
    assert_eq!(page.run(ids), json!(200));
    page.assert_quiet();
}

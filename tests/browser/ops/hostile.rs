use serde_json::json;

use super::Operator;
use crate::harness::{Chrome, Site};
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, requires};
use crate::support::{Server, eventually};

const MARKUP: &str =
    "<img src=x onerror=problems.push('owned')><script>problems.push('owned')</script>";

/// A page without a policy, and a server that answers what none of ours would: nothing of it is markup.
#[test]
fn what_comes_from_the_server_is_text() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = Server::start(&["--coalesce", "0"]);
    let site = Site::start(server.address());
    let label = MARKUP.replace('"', "");
    site.add(
        "/metrics",
        format!(
            "nudged_connections 1\nnudged_backplane_connected 1\nnudged_build_info{{version=\"{label}\"}} 1\n\
             nudged_streams_open{{kind=\"{label}\"}} 1\nnudged_streams_closed_total{{reason=\"{label}\"}} 1\n\
             nudged_streams_opened_total 1\n__proto__ 1\nconstructor{{a=\"__proto__\"}} 1\n"
        ),
    );
    let org = json!({ "org": MARKUP, "members": 1, "public": 1, "publishes_per_second": 1 });
    site.add("/ops/orgs", json!({ "total": 1, "orgs": [org] }).to_string());
    let topic = json!({ "org": MARKUP, "topic": MARKUP, "streams": 1, "publishes_per_second": 1, "bytes": 1 });
    site.add("/ops/topics", json!({ "total": 1, "topics": [topic] }).to_string());
    let node = json!({ "node": MARKUP, "is_self": true, "last_beat_seconds": 1 });
    site.add("/ops/nodes", json!({ "backplane": true, "nodes": [node] }).to_string());
    let chrome = Chrome::start();
    let page = Operator::open_scripted(&chrome, &site);
    for id in ["orgs", "topics", "nodes", "ends", "more", "numbers"] {
        page.eventually_has(&format!("#{id}"), MARKUP);
    }

    // A name of which there can be no organisation is refused in words.
    page.click("#orgs button");
    page.eventually_has("#tailSaid", "400 an organisation's name is");
    assert_eq!(page.run("return document.getElementById('channel').value"), MARKUP);

    page.follow("acme", "");
    page.eventually_has("#tailSaid", "open");
    let keys = [MARKUP, "a\u{2028}b", "\u{202e}olleh", "\u{0}\u{7}", "&lt;b>", "e\u{301}😀"];
    let id = server.publish("acme", &keys).expect("subscribed");
    page.eventually_has("#tail li", &id);
    let shown = page.run(
        "return [...document.querySelectorAll('#tail li:first-child bdi')].map(e => e.textContent)",
    );
    assert_eq!(
        shown,
        json!([MARKUP, r"a\u{2028}b", r"\u{202e}olleh", r"\u{0}\u{7}", "&lt;b>", "e\u{301}😀"])
    );
    // Long ones are cut.
    let long: Vec<_> = (0..30).map(|n| format!("{n}{}", "x".repeat(505))).collect();
    let long: Vec<_> = long.iter().map(String::as_str).collect();
    let id = server.publish("acme", &long).expect("subscribed");
    page.eventually_has("#tail li", &id);
    let row = &page.rows("tail")[0][2];
    assert!(row.ends_with("and 10 more") && row.contains("… (506)") && row.len() < 11_000, "{row}");

    let markup = "return document.querySelectorAll('main :is(img, script, iframe, a)').length";
    assert_eq!(page.run(markup), 0);
    eventually("nothing ran", || page.problems().is_empty());
    page.assert_quiet();
}

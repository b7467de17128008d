use std::process::Command;

use super::Operator;
use super::operator::token;
use crate::harness::{Chrome, PUBLISH_KEY, server};
use crate::support::eventually;
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, CURL, requires};

/// In a shell each of these is something else without quotes, or in double ones.
const KEY: &str = r#"it's "$HOME" `id` \ <b>!$(id)"#;

pub(super) fn command(page: &Operator<crate::harness::Tab<'_>>, button: &str) -> String {
    page.run("document.getElementById('curl').value = ''");
    page.click(button);
    let text = page.run("return document.getElementById('curl').value");
    text.as_str().expect("text").to_owned()
}

#[test]
fn the_form_publishes_and_the_command_that_is_copied_does_the_same() {
    requires!(CHROMEDRIVER, CHROMIUM, CURL);
    // A command whose output is closed ends at the next keepalive.
    let server = server(&["--keepalive", "1s"]);
    let chrome = Chrome::start();
    let page = Operator::open(&chrome, &server);
    page.eventually_has("#state", "Serving");
    let all = token("acme", "subscribe publish");
    page.enter(&all);
    page.follow("acme", "");
    page.eventually_has("#tailSaid", "open");

    page.fill("keys", &format!("posts\n\n{KEY}"));
    page.click("#publish .go");
    page.eventually_has("#said", "202 accepted as ");
    page.eventually_has("#tail .own", "posts");
    let row = &page.rows("tail")[0];
    assert_eq!(page.text("#said"), format!("202 accepted as {}", row[3]));
    let keys =
        page.run("return [...document.querySelectorAll('#tail .own bdi')].map(e => e.textContent)");
    assert_eq!(keys, serde_json::json!(["posts", KEY]));

    let run = |command: &str, more: &str| {
        let command = command.replacen("curl ", &format!("curl -sS -m 20 {more} "), 1);
        let output = Command::new("sh").args(["-c", &command]).env("TOKEN", &all).output();
        String::from_utf8(output.expect("sh").stdout).expect("UTF-8")
    };
    let published = run(&command(&page, "#copyPublish"), "");
    let id: serde_json::Value = serde_json::from_str(&published).expect("JSON");
    page.eventually_has("#tail li", id["id"].as_str().expect("an id"));
    assert_eq!(page.rows("tail")[0][2], format!("posts{KEY}"));
    // It ends with the first event.
    let tail = command(&page, "#copyTail");
    let tail = run(&format!("{tail} | head -n 3"), "");
    assert!(tail.contains("event: connected"), "{tail}");

    page.follow("acme", "run-1");
    page.eventually_has("#tailSaid", "open");
    let shown =
        "return ['keys', 'event', 'data'].map(id => document.getElementById(id).checkVisibility())";
    assert_eq!(page.run(shown), serde_json::json!([false, true, true]));
    page.fill("event", "output");
    page.fill("data", r#"{"n": 12345678901234567890, "text": "it's"}"#);
    page.click("#publish .go");
    page.eventually_has("#tail .own", r#"{"n": 12345678901234567890, "text": "it's"}"#);
    let published = run(&command(&page, "#copyPublish"), "");
    let id: serde_json::Value = serde_json::from_str(&published).expect("JSON");
    page.eventually_has("#tail li", id["id"].as_str().expect("an id"));
    page.assert_quiet();
}

#[test]
fn a_publish_that_is_refused_says_why() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = server(&["--publish-rate", "1", "--publish-burst", "1"]);
    let chrome = Chrome::start();
    let page = Operator::open(&chrome, &server);
    page.eventually_has("#state", "Serving");
    let publish = |org: &str, topic: &str, why: &str| {
        page.choose(org, topic);
        page.click("#publish .go");
        page.eventually_has("#said", why);
    };
    page.fill("keys", "posts");
    publish("acme", "", "401 ");
    page.enter(&token("acme", "publish"));
    publish("globex", "", "403 the token is not for this organisation");
    page.enter(PUBLISH_KEY);
    publish("<img src=x>", "", "400 an organisation's name is");
    page.fill("keys", "");
    publish("acme", "", "422 ");
    page.fill("data", r#"1,"bulk":true"#);
    publish("acme", "run-1", "JSON");
    page.fill("data", "{}");
    page.fill("event", "connected");
    publish("acme", "run-1", "422 ");
    page.fill("keys", "posts");
    eventually("the rate is reached", || {
        publish("acme", "", " ");
        page.text("#said").starts_with("429 an organisation may be published to 1 times a second")
    });
    drop(server);
    publish("acme", "", "no answer");
    page.assert_quiet();
}

use super::Operator;
use super::operator::{token, token_for};
use crate::harness::{Chrome, publish, server};
use crate::support::eventually;
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, requires};

#[test]
fn what_needs_a_token_says_so_and_the_token_is_in_no_url_and_not_in_the_page() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = server(&[]);
    let _stream = server.stream_with(
        "/api/acme/events",
        &format!("authorization: Bearer {}\r\n", token("acme", "subscribe")),
    );
    let chrome = Chrome::start();
    let page = Operator::open(&chrome, &server);
    page.eventually_numbers("Streams", "1");
    assert_eq!(page.text("#warnings"), "");
    for name in ["orgs", "topics"] {
        page.eventually_has(&format!("#{name}Said"), "401 ");
        assert!(page.rows(name).is_empty());
    }
    page.follow("acme", "");
    page.eventually_has("#tailSaid", "401 ");

    page.enter("nonsense");
    page.eventually_has("#orgsSaid", "401 the token is refused");
    page.eventually_has("#tailSaid", "401 the token is refused");
    page.enter(&token("acme", "ops"));
    page.eventually_has("#orgsSaid", "403 the token is not for every organisation");

    let ops = token("*", "ops");
    page.enter(&ops);
    eventually("the table is filled", || {
        page.rows("orgs").first().is_some_and(|row| row[..2] == ["acme", "1"])
    });
    page.eventually_has("#orgsSaid", "1 of 1");
    page.eventually_has("#tailSaid", "403 ");

    let both = token("*", "ops subscribe");
    page.enter(&both);
    page.eventually_has("#tailSaid", "open");
    let id = publish(&server, "acme", &["posts"]).expect("subscribed");
    page.eventually_has("#tail li", &id);
    page.fill("keys", "posts");
    page.click("#publish .go");
    page.eventually_has("#said", "403 ");
    page.click("#copyTail");
    page.eventually_has("#said", "Copied");
    let command = page.run("return document.getElementById('curl').value");
    assert!(command.as_str().expect("text").contains("\"authorization: Bearer $TOKEN\""));

    let leaks = "const [token] = TOKENS.filter(token => [
            document.documentElement.outerHTML, ...[...document.querySelectorAll('input, textarea')].map(e => e.value),
            ...performance.getEntriesByType('resource').map(e => e.name), location.href,
            JSON.stringify([localStorage, sessionStorage, document.cookie]),
        ].some(text => text.includes(token)));
        return token ?? ''";
    let tokens = serde_json::json!([ops, both]).to_string();
    assert_eq!(page.run(&leaks.replace("TOKENS", &tokens)), "");

    // A stream whose token has expired is not opened again.
    page.enter(&token_for("acme", "subscribe", 3));
    page.eventually_has("#tailSaid", "closed (the token is refused)");
    page.assert_quiet();
}

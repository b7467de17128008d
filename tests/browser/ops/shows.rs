use super::Operator;
use super::publishing::command;
use crate::harness::Chrome;
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, requires};
use crate::support::{Server, eventually};

#[test]
fn the_page_keeps_to_its_policy_and_follows_streams_and_publishes() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = Server::start(&["--coalesce", "0"]);
    let chrome = Chrome::start();
    let page = Operator::open(&chrome, &server);
    page.eventually_has("#state", "Serving");
    page.eventually_has("#more", env!("CARGO_PKG_VERSION"));
    page.eventually_has("#warnings", "Open: there is no key");
    page.eventually_has("#live", "Serving. Open");
    page.eventually_numbers("Streams", "0");
    assert!(!page.text("#enter").is_empty());
    assert_eq!(page.run("return document.getElementById('enter').checkVisibility()"), false);

    let streams = server.streams("acme", 3);
    let public = server.stream_with("/api/globex/public/events", "");
    page.eventually_numbers("Streams", "4");
    page.eventually_has("article p", "3 member · 1 public · 0 topic");
    eventually("the largest organisation is the first", || {
        let rows = page.rows("orgs");
        rows.len() == 2
            && rows[0][..3] == ["acme", "3", "0"]
            && rows[1][..3] == ["globex", "0", "1"]
    });
    page.eventually_has("#orgsSaid", "2 of 2");

    for number in 0..20 {
        server.publish("acme", &[&format!("key:{number}")]).expect("subscribed");
    }
    let topic = "/api/acme/topics/run-1/events";
    server.post(topic, "application/json", r#"{"event":"output","data":{}}"#);
    eventually("it shows that there are publishes and deliveries", || {
        page.number("Publishes/s") != "0" && page.number("Deliveries/s") != "0"
    });
    page.eventually_has("#topics", "acme / run-1");
    eventually("sweeps are counted, and their times", || {
        !page.text("#sweeps").starts_with("0 ") && page.text("#p99").starts_with('≤')
    });

    // Without a key a command has no token.
    page.fill("channel", "acme");
    let url = format!("'http://{}/api/acme/events'", server.address());
    assert_eq!(command(&page, "#copyTail"), format!("curl -N {url}"));

    drop((streams, public));
    page.eventually_numbers("Streams", "0");
    eventually("it shows why they ended", || {
        let ends: u64 =
            page.rows("ends").iter().map(|row| row[2].parse::<u64>().expect("a number")).sum();
        ends == 4
    });
    assert!(page.number("Memory").ends_with("MiB"));
    let graphs = page.run("return [...document.querySelectorAll('article i')].filter(graph => graph.style.clipPath.startsWith('polygon(')).length");
    assert_eq!(graphs, 6);
    page.assert_quiet();
}

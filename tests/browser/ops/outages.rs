use super::Operator;
use crate::harness::Chrome;
use crate::support::port::ReservedPort;
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, requires};
use crate::support::server::Signal;
use crate::support::{Server, eventually};

#[test]
fn a_server_is_shown_draining_then_away_and_the_tail_goes_on_with_the_next_one() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let port = ReservedPort::new();
    let listen = port.address.to_string();
    let flags = [
        "--listen",
        &listen,
        "--drain-delay",
        "20s",
        "--retry-min",
        "200ms",
        "--retry-max",
        "200ms",
    ];
    let mut server = Server::start(&flags);
    let chrome = Chrome::start();
    let page = Operator::open(&chrome, &server);
    page.eventually_has("#state", "Serving");
    page.follow("acme", "");
    page.eventually_has("#tailSaid", "open");
    let id = server.publish("acme", &["posts"]).expect("subscribed");
    page.eventually_has("#tail li", &id);
    let row = &page.rows("tail")[0];
    assert_eq!((row[1].as_str(), row[2].as_str(), &row[3]), ("invalidate", "posts", &id));

    server.signal(Signal::TERM);
    page.eventually_has("#state", "Draining");
    page.eventually_has("#more", " s left");
    let left = page.text("#more");
    let left: u64 = left.trim_end_matches(" s left").parse().expect("a number");
    // At most the 30 s of --drain-timeout, by the seconds of the field `date`.
    assert!((1..=32).contains(&left), "{left}");
    page.eventually_has("#live", "Draining");

    server.signal(Signal::TERM);
    server.wait();
    page.eventually_has("#state", "Cannot reach the server");
    page.eventually_has("#more", ": no answer");

    let server = Server::start(&flags);
    page.eventually_has("#state", "Serving");
    page.eventually_has("#tailSaid", "open");
    eventually("the new server has the stream", || server.seats() == 1);
    let id = server.publish("acme", &["again"]).expect("subscribed");
    page.eventually_has("#tail li", &id);
    assert_eq!(page.rows("tail").iter().filter(|row| row[2] == "again").count(), 1);
    // What has been counted from 0 again is no negative number.
    assert!(!page.text("article b, #ends td").contains('-'));
    page.assert_quiet();
}

//! The client in Firefox, with real tabs: one in front, the others hidden. It has no DevTools protocol that offline or
//! freezing could come from; what stands for a frozen tab is one whose process is stopped.

mod window;

use serde_json::{Value, json};

use self::window::Window;
use crate::harness::{Page, Site, Tickets, accepted, answer, eventually_sees, publish, server};
use crate::ops::{Operator, RECORD};
use crate::support::client::post;
use crate::support::programs::{FIREFOX, requires};
use crate::support::{Server, eventually};

/// No page has shown an error, a warning or a rejection in its console.
fn assert_quiet(site: &Site) {
    assert_eq!(site.problems(), [""; 0]);
}

#[test]
fn tabs_share_a_stream_and_the_next_one_resumes_it() {
    requires!(FIREFOX);
    let server = server(&[]);
    let site = Site::start(server.address());
    let window = Window::open();
    let url = site.page(&json!({ "ticket": "anna", "hidden": true }));
    let first = window.tab(&url);
    first.eventually_connected(1);
    let second = window.tab(&url);
    second.eventually_connected(1);
    let third = window.tab(&url);
    for tab in [&first, &second, &third] {
        tab.eventually_is("open", Value::Null);
        tab.eventually_connected(1);
    }
    assert_eq!((server.seats(), site.ids().len()), (1, 1));
    let posts = publish(&server, "acme", &["posts"]).expect("subscribed");
    for tab in [&first, &second, &third] {
        tab.eventually_has("posts");
        assert_eq!(tab.id(), posts);
    }

    first.close();
    eventually("the next one has the stream", || site.ids().len() == 2 && server.seats() == 1);
    assert_eq!(site.ids()[1], posts);
    publish(&server, "acme", &["feed"]);
    for tab in [&second, &third] {
        tab.eventually_has("feed");
        assert_eq!((tab.keys(), tab.connected()), (vec!["posts".into(), "feed".into()], 1));
    }
    assert_eq!((server.seats(), site.ids().len()), (1, 2));
    assert_quiet(&site);
}

/// Firefox has a process for each of up to four tabs of one origin.
#[test]
fn a_tab_in_front_takes_the_stream_over_from_one_that_is_stopped() {
    requires!(FIREFOX);
    let server = server(&["--keepalive", "1s"]);
    let site = Site::start(server.address());
    let window = Window::open();
    let url = site.page(&json!({ "ticket": "anna", "spread": 0 }));
    let first = window.tab(&url);
    first.eventually_connected(1);
    let second = window.tab(&url);
    second.eventually_connected(1);
    assert_ne!(first.pid, second.pid);
    let posts = publish(&server, "acme", &["posts"]).expect("subscribed");
    second.eventually_has("posts");

    let stopped = first.stop();
    publish(&server, "acme", &["missed"]);
    second.eventually_has("missed");
    assert_eq!(site.ids(), ["", &posts]);
    assert_eq!((second.keys(), second.connected()), (vec!["posts".into(), "missed".into()], 1));

    drop(stopped);
    eventually("the first one has given its stream up", || server.seats() == 1);
    publish(&server, "acme", &["feed"]);
    second.eventually_has("feed");
    // What came meanwhile may have been lost to it.
    first.look();
    eventually_sees(&first, "a later key, or everything", |first| {
        first.connected() == 2 || first.keys().contains(&"feed".into())
    });
    publish(&server, "acme", &["last"]);
    for tab in [&first, &second] {
        tab.look();
        tab.eventually_has("last");
    }
    assert_eq!((server.seats(), site.ids().len(), second.connected()), (1, 2, 1));
    assert_quiet(&site);
}

#[test]
fn a_hidden_tab_hands_over_once_it_is_looked_at() {
    requires!(FIREFOX);
    let server = server(&[]);
    let site = Site::start(server.address());
    let window = Window::open();
    let url = site.page(&json!({ "ticket": "anna" }));
    let hidden = window.tab(&url);
    hidden.eventually_connected(1);
    let seen = window.tab(&url);
    seen.eventually_connected(1);
    assert!(hidden.is_hidden() && !seen.is_hidden());

    publish(&server, "acme", &["posts"]);
    publish(&server, "acme", &["feed", "posts"]);
    publish(&server, "acme", &["last"]);
    // It has the stream, and so has had what the other one has got from it.
    seen.eventually_has("last");
    assert_eq!(hidden.keys(), [""; 0]);
    hidden.look();
    assert!(seen.is_hidden());
    hidden.eventually_has("last");
    assert_eq!(hidden.seen_of("invalidate"), [json!(["posts", "feed", "last"])]);
    assert_eq!((hidden.connected(), seen.connected()), (1, 1));
    assert_quiet(&site);
}

/// Firefox keeps no page that holds a lock, or waits for one, for the way back: it loads the page again.
#[test]
fn a_page_that_is_loaded_again_or_gone_back_to_begins_anew() {
    requires!(FIREFOX);
    let server = server(&[]);
    let site = Site::start(server.address());
    let window = Window::open();
    let url = site.page(&json!({ "ticket": "anna" }));
    let tab = window.tab(&url);
    tab.eventually_connected(1);
    tab.reload();
    tab.eventually_connected(1);
    eventually("one stream", || server.seats() == 1);

    tab.go(&format!("{}/empty", site.origin()));
    eventually("no stream", || server.seats() == 0);
    publish(&server, "acme", &["missed"]);
    tab.back();
    tab.eventually_connected(1);
    assert_eq!(
        (tab.seen_of("connected"), tab.run("return shown")),
        (vec![json!(true)], json!([false]))
    );
    publish(&server, "acme", &["posts"]);
    tab.eventually_has("posts");
    assert_eq!((tab.keys(), server.seats()), (vec!["posts".into()], 1));
    assert_quiet(&site);
}

/// A page without a lock and without a stream at the moment is one that Firefox keeps.
#[test]
fn a_page_that_comes_back_from_the_cache_resumes() {
    requires!(FIREFOX);
    let server = server(&[]);
    let site = Site::start(server.address());
    let window = Window::open();
    let tab = window.tab(&site.page(&json!({ "ticket": "anna", "share": false })));
    tab.eventually_connected(1);
    let posts = publish(&server, "acme", &["posts"]).expect("subscribed");
    tab.eventually_has("posts");
    let busy = answer(503, "text/plain", "no").replacen("\r\n", "\r\nretry-after: 600\r\n", 1);
    site.answer_api(Some(busy));
    site.set_upstream(Some(server.address()));
    tab.eventually_is("connecting", 503);

    tab.go(&format!("{}/empty", site.origin()));
    site.answer_api(None);
    publish(&server, "acme", &["missed"]);
    tab.back();
    tab.eventually_has("missed");
    assert_eq!(tab.run("return shown"), json!([false, true]));
    assert_eq!((tab.connected(), site.ids().last()), (1, Some(&posts)));
    assert_quiet(&site);
}

#[test]
fn a_stream_that_is_cut_or_falls_silent_is_resumed() {
    requires!(FIREFOX);
    let server = server(&["--keepalive", "1s"]);
    let site = Site::start(server.address());
    let window = Window::open();
    let url = site.page(&json!({ "ticket": "anna", "hidden": true }));
    let tabs = [window.tab(&url), window.tab(&url)];
    for tab in &tabs {
        tab.eventually_connected(1);
    }
    let posts = publish(&server, "acme", &["posts"]).expect("subscribed");
    for tab in &tabs {
        tab.eventually_has("posts");
    }
    site.set_upstream(None);
    eventually("the seat is free", || server.seats() == 0);
    let cut = publish(&server, "acme", &["cut"]).expect("remembered");
    site.set_upstream(Some(server.address()));
    for tab in &tabs {
        tab.eventually_has("cut");
    }

    site.silence();
    eventually("the seat is free", || server.seats() == 0);
    publish(&server, "acme", &["silent"]);
    for tab in &tabs {
        tab.eventually_has("silent");
        assert_eq!((tab.keys().len(), tab.connected()), (3, 1));
    }
    assert_eq!(site.ids(), ["", &posts, &cut]);
    eventually("the silent connection has been closed", || site.streams() == 1);
    assert_quiet(&site);
}

#[test]
fn a_restart_makes_every_tab_read_everything_again() {
    requires!(FIREFOX);
    let before = server(&[]);
    let site = Site::start(before.address());
    let window = Window::open();
    let url = site.page(&json!({ "ticket": "anna", "hidden": true, "spread": 300 }));
    let tabs = [window.tab(&url), window.tab(&url)];
    for tab in &tabs {
        tab.eventually_connected(1);
    }
    drop(before);
    let server = server(&[]);
    site.set_upstream(Some(server.address()));
    for tab in &tabs {
        tab.eventually_connected(2);
        assert_eq!(tab.seen_of("connected"), [true, false]);
    }
    publish(&server, "acme", &["posts"]);
    for tab in &tabs {
        tab.eventually_has("posts");
    }
    assert_eq!(server.seats(), 1);
    assert_quiet(&site);
}

#[test]
fn a_refused_ticket_is_renewed_and_a_refused_user_is_final() {
    requires!(FIREFOX);
    let server = server(&[]);
    let site = Site::start(server.address());
    let window = Window::open();
    let tab = window.tab(&site.page(&json!({ "ticket": "anna" })));
    tab.eventually_connected(1);
    let posts = publish(&server, "acme", &["posts"]).expect("subscribed");
    tab.eventually_has("posts");
    let asked = site.asked();

    site.answer_api(Some(answer(401, "text/plain", "no")));
    site.set_upstream(Some(server.address()));
    tab.eventually_is("connecting", 401);
    eventually("new tickets are refused too", || site.asked() >= asked + 2);
    publish(&server, "acme", &["missed"]);
    site.answer_api(None);
    tab.eventually_has("missed");
    tab.eventually_is("open", Value::Null);
    assert_eq!((tab.connected(), site.ids().last()), (1, Some(&posts)));

    site.answer_api(Some(answer(403, "text/plain", "no")));
    site.set_upstream(Some(server.address()));
    tab.eventually_is("closed", 403);
    site.answer_api(None);
    // A user that is logged out gets no ticket.
    site.set_tickets(Tickets { status: 401, ..Tickets::default() });
    let other = window.tab(&site.page(&json!({ "ticket": "ben" })));
    other.eventually_is("closed", "no ticket");
    assert_eq!((server.seats(), tab.status()[0].clone()), (0, json!("closed")));
    assert_quiet(&site);
}

#[test]
fn two_users_of_one_origin_receive_nothing_of_each_other() {
    requires!(FIREFOX);
    let server = server(&[]);
    let site = Site::start(server.address());
    let window = Window::open();
    let tab = |user: &str| {
        let options = json!({ "url": "/api/mine/events", "ticket": user, "hidden": true });
        window.tab(&site.page(&options))
    };
    let (anna, ben) = (tab("anna"), tab("ben"));
    for tab in [&anna, &ben] {
        tab.eventually_connected(1);
    }
    assert_eq!(server.seats(), 2);
    for user in ["anna", "ben", "anna", "ben"] {
        publish(&server, user, &[user]);
    }
    for (tab, key) in [(&anna, "anna"), (&ben, "ben")] {
        eventually_sees(tab, "both events", |_| {
            tab.keys().len() == 2 || tab.id().as_str().is_some_and(|id| id.ends_with("-2"))
        });
        assert!(tab.keys().iter().all(|k| k == key), "{:?}", tab.seen());
    }
    assert_quiet(&site);
}

#[test]
fn events_of_a_topic_arrive_until_it_is_closed() {
    requires!(FIREFOX);
    const PATH: &str = "/api/acme/topics/run-7/events";
    let server = server(&[]);
    let site = Site::start(server.address());
    let output = |n: u32| {
        let body = json!({ "event": "output", "data": n }).to_string();
        accepted(&server, &post(PATH, "application/json", &body));
    };
    output(1);
    let window = Window::open();
    let options = json!({ "url": PATH, "ticket": "anna", "event": true, "hidden": true });
    let tabs = [window.tab(&site.page(&options)), window.tab(&site.page(&options))];
    for tab in &tabs {
        tab.eventually_connected(1);
    }
    output(2);
    let close = format!("DELETE {PATH} HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n");
    accepted(&server, &close);
    for tab in &tabs {
        tab.eventually_is("closed", "closed");
        let events: Vec<_> = tab.seen().into_iter().filter(|entry| entry[0] == "event").collect();
        let events: Vec<_> = events.iter().map(|event| [&event[1], &event[2]]).collect();
        assert_eq!(events.len(), 4, "{events:?}");
        assert_eq!(events[1..3], [["output", "1"], ["output", "2"]]);
    }
    eventually("no stream", || server.seats() == 0);
    assert_eq!(site.ids().len(), 2);
    assert_quiet(&site);
}

#[test]
fn another_origin_gets_no_ticket_by_a_redirect() {
    requires!(FIREFOX);
    let window = Window::open();
    let tab = window.tab("about:blank");
    crate::tabs::hostile::assert_no_ticket_elsewhere(|url| tab.go(url));
}

#[test]
fn the_page_of_operators_follows_an_organisation() {
    requires!(FIREFOX);
    let server = Server::start(&["--coalesce", "0"]);
    let window = Window::open();
    let tab = window.tab(&format!("http://{}/ops", server.address()));
    tab.run(RECORD);
    let page = Operator(tab);
    page.eventually_has("#state", "Serving");
    page.eventually_has("#warnings", "Open: there is no key");
    page.follow("acme", "");
    page.eventually_has("#tailSaid", "open");
    page.eventually_numbers("Streams", "1");
    page.fill("keys", "<b>posts\u{2028}");
    page.click("#publish .go");
    page.eventually_has("#said", "202 accepted as ");
    page.eventually_has("#tail .own", r"<b>posts\u{2028}");
    page.eventually_has("#orgs", "acme");
    // Its policy lets its own style apply.
    assert_eq!(page.run("return getComputedStyle(document.querySelector('main')).display"), "grid");
    page.assert_quiet();
}

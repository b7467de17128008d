//! Pages in real browsers, Chromium and Firefox: the id of one to which nothing is sent moves with the keepalives, so
//! that another server resumes it when the tail of the log is full of others.

use crate::harness::Cluster;
use crate::harness::broker::{Broker, for_each_broker};
use crate::support::chromium::Browser;
use crate::support::firefox::Firefox;
use crate::support::nats::NatsServer;
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, FIREFOX, NATS_SERVER, requires};
use crate::support::relay::Relay;
use crate::support::{Server, eventually, header};

for_each_broker!(a_page_of_the_only_server_is_resumed_after_kill_9);

/// A browser with a page.
trait Window {
    fn open(url: &str) -> Self;
    /// What the page's `EventSource` has received.
    fn seen(&self) -> Vec<[String; 3]>;
}

/// It has no listener for `ping`: the browser keeps the id by itself.
const PAGE: &str = "<!doctype html><title>nudged</title><script>
    window.seen = [];
    const source = new EventSource('/api/acme/events' + location.search);
    for (const name of ['connected', 'resumed', 'invalidate'])
        source.addEventListener(name, event => seen.push([name, event.data, event.lastEventId]));
</script>";

const TAIL_BYTES: usize = 1024 * 1024;

impl Window for Browser {
    fn open(url: &str) -> Self {
        Self::open(url)
    }

    fn seen(&self) -> Vec<[String; 3]> {
        self.seen()
    }
}

impl Window for Firefox {
    fn open(url: &str) -> Self {
        Self::open(url)
    }

    fn seen(&self) -> Vec<[String; 3]> {
        self.seen()
    }
}

/// The position in an id.
fn position(id: &str) -> u64 {
    id.split_once('-').and_then(|(_, position)| position.parse().ok()).unwrap_or(0)
}

/// Publishes twice as much as a tail holds, for orgs without a stream.
fn fill_the_tail(server: &Server) {
    let key = "k".repeat(400);
    let mut bytes = 0;
    for batch in 0.. {
        let line = |n| format!("{{\"org\":\"other-{batch}-{n}\",\"keys\":[\"{key}\"]}}\n");
        let body: String = (0..120).map(line).collect();
        let answer = server.post("/api/events", "application/x-ndjson", &body);
        assert_eq!(answer.status(), 202, "{answer:?}");
        bytes += body.len();
        if bytes > 2 * TAIL_BYTES {
            return;
        }
    }
}

/// How a server greets a client with this id.
fn greeting(server: &Server, id: &str) -> String {
    let mut stream = server.stream_with("/api/acme/events", &format!("last-event-id: {id}\r\n"));
    stream.greeting().2
}

fn an_idle_page_is_resumed_by_another_server<W: Window>() {
    let nats = NatsServer::start();
    let cluster = Cluster::on(&nats, 2, &["--backplane-tail-bytes", &TAIL_BYTES.to_string()]);
    let [first, second] = [0, 1].map(|node| cluster.nodes[node].server());
    let relay = Relay::start(first.address(), |_| PAGE.to_owned());
    let window = W::open(&relay.origin());
    eventually("the page has subscribed", || window.seen().len() == 1);
    let greeted = window.seen()[0][2].clone();
    assert_eq!(greeting(second, &greeted), "resumed", "it is in the tail");

    fill_the_tail(first);
    let last = first.publish("other", &["last"]).expect("with a log there is an id");
    eventually("the other server has read it all", || greeting(second, &greeted) == "connected");
    eventually("a keepalive has brought a later id", || {
        position(&relay.last_id()) >= position(&last)
    });
    assert_eq!(window.seen().len(), 1, "the page was sent nothing else: {:?}", window.seen());

    relay.set_upstream(None);
    first.publish("acme", &["missed"]).expect("with a log there is an id");
    relay.set_upstream(Some(second.address()));
    eventually("the page has what it missed", || window.seen().len() == 3);
    let seen = window.seen();
    let [resumed, missed] = &seen[1..] else { panic!("{seen:?}") };
    assert_eq!(resumed[0], "resumed", "{seen:?}");
    assert_eq!(missed[..2], ["invalidate", r#"{"keys":["missed"]}"#], "{seen:?}");
    let head = relay.last_head().to_ascii_lowercase();
    let sent = header(&head, "last-event-id").expect("it resumes");
    assert!(position(sent) >= position(&last), "{sent}, not the {greeted} of its greeting");
}

/// A page whose second stream is one of a topic.
fn page_with_topic(_: &str) -> String {
    "<!doctype html><script>
        window.seen = [];
        for (const path of ['events', 'topics/run-1/events']) {
            const source = new EventSource('/api/acme/' + path);
            for (const name of ['connected', 'resumed', 'invalidate', 'output'])
                source.addEventListener(name, event => seen.push([path, name, event.data]));
        }
    </script>"
        .to_owned()
}

/// With a single server: its log survives it, so its pages resume.
fn a_page_of_the_only_server_is_resumed_after_kill_9<B: Broker>() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let broker = B::start();
    let mut cluster = Cluster::on(&broker, 1, &["--coalesce", "0"]);
    let publish = |cluster: &Cluster, key: &str| {
        let server = cluster.nodes[0].server();
        server.publish("acme", &[key]).expect("with a log there is an id");
        let body = format!(r#"{{"event":"output","data":"{key}"}}"#);
        let topic = "/api/acme/topics/run-1/events";
        assert_eq!(server.post(topic, "application/json", &body).status(), 202);
    };
    let relay = Relay::start(cluster.nodes[0].server().address(), page_with_topic);
    let browser = Browser::open(&relay.origin());
    eventually("the page has subscribed", || cluster.nodes[0].server().seats() == 2);
    publish(&cluster, "before");
    eventually("the page has it", || browser.seen().len() == 4);
    relay.set_upstream(None);
    publish(&cluster, "missed");
    cluster.kill(0);
    cluster.restart(0);
    relay.set_upstream(Some(cluster.nodes[0].server().address()));
    eventually("the page has what it missed", || browser.seen().len() == 8);
    let of = |path: &str| -> Vec<_> {
        let seen = browser.seen().into_iter().filter(|[of, ..]| of == path);
        seen.map(|[_, name, data]| [name, data]).collect()
    };
    let [connected, resumed] = ["connected", "resumed"].map(|name| [name, r#"{"keepalive":1}"#]);
    let [before, missed] =
        [["invalidate", r#"{"keys":["before"]}"#], ["invalidate", r#"{"keys":["missed"]}"#]];
    assert_eq!(of("events"), [connected, before, resumed, missed]);
    let [before, missed] = [["output", r#""before""#], ["output", r#""missed""#]];
    assert_eq!(of("topics/run-1/events"), [connected, before, resumed, missed]);
}

/// The page of the README that renews its tickets, and its tickets.
fn page_with_tickets(path: &str) -> String {
    let readme = include_str!("../../README.md");
    let start = readme.find("let last = '';").expect("the script of the README");
    let script = readme[start..].split("\n```").next().expect("its end");
    match path {
        "/ticket" => "ticket".to_owned(),
        _ => format!("<!doctype html><script>reloadEverything = () => {{}};{script}</script>"),
    }
}

/// SCENARIO: a page carries its last id to a new URL after an hour in which nothing was published for it.
/// BUG: it kept the ids of the events that it handles. That of its greeting was older than the tail by then.
/// FIX: it takes the ids of keepalives, too.
#[test]
fn the_page_of_the_readme_takes_the_ids_of_keepalives() {
    requires!(NATS_SERVER, CHROMEDRIVER, CHROMIUM);
    let nats = NatsServer::start();
    let cluster = Cluster::on(&nats, 1, &[]);
    let server = cluster.nodes[0].server();
    let relay = Relay::start(server.address(), page_with_tickets);
    let browser = Browser::open(&relay.origin());
    let last = || browser.execute("return last", "").as_str().map(position).unwrap_or_default();
    eventually("the page has subscribed", || server.seats() == 1);
    let other = server.publish("other", &["key"]).expect("with a log there is an id");
    eventually("a keepalive has brought a later id", || {
        position(&relay.last_id()) >= position(&other)
    });
    eventually("the page has taken it", || last() >= position(&other));
}

#[test]
fn an_idle_page_in_chromium_is_resumed_by_another_server() {
    requires!(NATS_SERVER, CHROMEDRIVER, CHROMIUM);
    an_idle_page_is_resumed_by_another_server::<Browser>();
}

#[test]
fn an_idle_page_in_firefox_is_resumed_by_another_server() {
    requires!(NATS_SERVER, FIREFOX);
    an_idle_page_is_resumed_by_another_server::<Firefox>();
}

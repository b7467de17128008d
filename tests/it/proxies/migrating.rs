//! The streams of the system that nudged replaces, at the paths that its clients know: `nginx-migrating.conf`, and the
//! lines of `src/guide/migrating.md`.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, SystemTime};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use crate::support::markdown::blocks;
use crate::support::port::ReservedPort;
use crate::support::programs::{NGINX, requires};
use crate::support::proxy::Proxy;
use crate::support::recipe::Recipe;
use crate::support::{Client, Server, eventually};

const GUIDE: &str = include_str!("../../../src/guide/migrating.md");
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const PUBLISH_KEY: &str = "publish-key-of-the-test";

/// A client of the old system. It speaks HTTP/1.0, so that nginx adds no framing to the stream.
struct Visit(Client);

// ===== impl Visit =====

impl Visit {
    /// Sends a request, and returns the status of its response too.
    fn request(proxy: &Proxy, path: &str, headers: &str) -> (u16, Self) {
        let mut client = Client::connect(proxy.address);
        client.send(&format!(
            "GET {path} HTTP/1.0\r\nhost: acme.app.example\r\naccept: text/event-stream\r\n{headers}\r\n"
        ));
        let head = client.read_head();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.expect("a status"), Self(client))
    }

    /// Opens a stream, and checks the name of its greeting.
    fn open(proxy: &Proxy, path: &str, headers: &str, greeting: &str) -> Self {
        let (status, mut visit) = Self::request(proxy, path, headers);
        assert_eq!(status, 200, "{path}");
        let [_, name, data] = visit.event();
        assert_eq!((name.as_str(), data.starts_with(r#"{"keepalive":"#)), (greeting, true));
        visit
    }

    /// The next event: id, name and data.
    fn event(&mut self) -> [String; 3] {
        let block = String::from_utf8(self.0.read_until(b"\n\n")).expect("UTF-8");
        ["id: ", "event: ", "data: "].map(|field| {
            let line = block.lines().find_map(|line| line.strip_prefix(field));
            line.unwrap_or_default().to_owned()
        })
    }

    fn expect(&mut self, id: &str, data: &str) {
        assert_eq!(self.event(), [id, "job", data]);
    }

    /// Everything up to the end of the response.
    fn rest(mut self) -> String {
        String::from_utf8(self.0.read_to_end()).expect("UTF-8")
    }
}

/// A server of which the old clients need tokens.
fn start(args: &[&str]) -> Server {
    let host = ["--host", "acme.app.example,t,test"];
    let keys = ["--jwt-secret", SECRET, "--publish-key", PUBLISH_KEY, "--public-orgs", "acme"];
    Server::start(&[&host, &keys[..], args].concat())
}

/// A token for a topic.
fn token(org: &str, topic: &str) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let claims = json!({
        "org": org, "topics": [topic], "scope": "subscribe exclusive", "exp": now.as_secs() + 3600,
    });
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).expect("it signs")
}

/// Publishes an event to a topic, and returns its id.
fn publish(server: &Server, topic: &str, data: &str) -> String {
    let body = format!(r#"{{"event":"job","data":{data}}}"#);
    let answer = server.request(&format!(
        "POST /api/{topic}/events HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n\
         authorization: Bearer {PUBLISH_KEY}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(answer.status(), 202, "{answer:?}");
    let body: Value = serde_json::from_str(&answer.body).expect("JSON");
    body["id"].as_str().expect("an id").to_owned()
}

/// The application: it verifies the tokens of workers, `old-DEPLOYMENT`, and serves the rest.
fn application() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for mut nginx in listener.incoming().flatten() {
            let mut head = String::new();
            let mut reader = BufReader::new(nginx.try_clone().expect("a socket"));
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|n| n > 0) {}
            let head = head.to_ascii_lowercase();
            let worker = head.split("authorization: bearer old-").nth(1);
            let worker = worker.and_then(|rest| rest.split("\r\n").next());
            let answer = if !head.starts_with("get /worker/access ") {
                "404 Of The Application\r\n".to_owned()
            } else if let Some(name) = worker {
                assert!(
                    head.contains("\r\nx-original-uri: /worker/stream?httpport=8081\r\n"),
                    "{head}"
                );
                let token = token("workers", name);
                format!("204 No Content\r\nx-worker: {name}\r\nx-worker-token: {token}\r\n")
            } else {
                "401 Unauthorized\r\n".to_owned()
            };
            _ = write!(nginx, "HTTP/1.1 {answer}content-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    address
}

/// nginx with this text of the recipe, in front of a server and an application.
fn nginx(text: &str, server: &Server, application: SocketAddr) -> Proxy {
    let text = text.replace("127.0.0.1:3000", &application.to_string());
    Proxy::recipe_as(Recipe::Migrating, &text, server.address())
}

#[test]
fn the_lines_of_the_guide_are_those_of_the_recipe() {
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let recipe = squeeze(&Recipe::Migrating.text());
    let blocks = blocks(GUIDE, "nginx");
    let (others, same): (Vec<_>, Vec<_>) =
        blocks.iter().partition(|block| block.contains("server_name") || block.contains("$arg_"));
    assert_eq!((others.len(), same.len()), (2, 3));
    for block in same {
        assert!(recipe.contains(&squeeze(block)), "not in the recipe:\n{block}");
    }
}

#[test]
fn an_agents_path_is_a_topic_with_ids_resume_and_since() {
    requires!(NGINX);
    let server = start(&["--keepalive", "1s"]);
    let proxy = nginx(&Recipe::Migrating.text(), &server, ReservedPort::new().address);
    let path = format!("/api/v1/agents/agent-7/events?token={}", token("agents", "agent-7"));
    let first = publish(&server, "agents/topics/agent-7", "1");
    let second = publish(&server, "agents/topics/agent-7", "2");
    let published = SystemTime::now();
    let since = || SystemTime::now().duration_since(published).expect("no clock that goes back");
    eventually("the next event is later", || since() > Duration::from_millis(50));
    let between = published + Duration::from_millis(25);
    let between = between.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis();
    let third = publish(&server, "agents/topics/agent-7", "3");

    let mut late = Visit::open(&proxy, &path, "", "connected");
    late.expect(&first, "1");
    late.expect(&second, "2");
    late.expect(&third, "3");
    let back = format!("last-event-id: {second}\r\n");
    Visit::open(&proxy, &path, &back, "resumed").expect(&third, "3");
    // The field counts, since a browser comes back to the same URL.
    let path_since = format!("{path}&since={between}");
    Visit::open(&proxy, &path_since, &format!("last-event-id: {first}\r\n"), "resumed")
        .expect(&second, "2");
    Visit::open(&proxy, &path_since, "", "connected").expect(&third, "3");
    // An id of the old server, in milliseconds.
    Visit::open(&proxy, &path, "last-event-id: 1764331200000\r\n", "connected").expect(&first, "1");

    assert_eq!(late.event(), ["", "ping", "{}"]);
    let fourth = publish(&server, "agents/topics/agent-7", "4");
    let mut live = late.event();
    while live[1] == "ping" {
        live = late.event();
    }
    assert_eq!(live, [fourth.as_str(), "job", "4"]);
}

#[test]
fn an_agents_path_needs_a_token_for_that_agent() {
    requires!(NGINX);
    let server = start(&[]);
    let proxy = nginx(&Recipe::Migrating.text(), &server, ReservedPort::new().address);
    let status = |query: &str| {
        Visit::request(&proxy, &format!("/api/v1/agents/agent-7/events{query}"), "").0
    };
    assert_eq!(status(""), 401);
    assert_eq!(status(&format!("?token={}", token("agents", "agent-8"))), 403);
    assert_eq!(status(&format!("?token={}", token("acme", "agent-7"))), 403);
    assert_eq!(status(&format!("?token={}", token("agents", "agent-*"))), 200);
}

#[test]
fn a_worker_that_comes_anew_replaces_the_one_of_its_deployment() {
    requires!(NGINX);
    let server = start(&[]);
    let proxy = nginx(&Recipe::Migrating.text(), &server, application());
    workers_replace_each_other(&server, &proxy, |deployment| {
        (
            "/worker/stream?httpPort=8081".to_owned(),
            format!("authorization: Bearer old-{deployment}\r\n"),
        )
    });
    let (status, _) =
        Visit::request(&proxy, "/worker/stream?httpPort=8081", "authorization: Bearer x\r\n");
    assert_eq!(status, 401);
    assert_eq!(Visit::request(&proxy, "/worker/access", "").0, 404, "nginx's own path");
    assert_eq!(Visit::request(&proxy, "/agents", "").0, 404, "of the application");
}

#[test]
fn a_worker_whose_path_has_its_name_needs_one_line() {
    requires!(NGINX);
    let server = start(&[]);
    let text = Recipe::Migrating.text();
    let (before, rest) = text.split_once("    location = /worker/stream").expect("its location");
    let at = rest.find("    # Invalidations").expect("what follows");
    let line = blocks(GUIDE, "nginx").into_iter().find(|block| block.contains("$arg_deployment"));
    let text = format!("{before}{}{}", line.expect("the line of the guide"), &rest[at..]);
    let proxy = nginx(&text, &server, ReservedPort::new().address);
    workers_replace_each_other(&server, &proxy, |deployment| {
        let token = token("workers", deployment);
        (
            format!("/worker/stream?deployment={deployment}"),
            format!("authorization: Bearer {token}\r\n"),
        )
    });
}

/// `access` gives the path and the header fields of a deployment's worker.
fn workers_replace_each_other(
    server: &Server,
    proxy: &Proxy,
    access: impl Fn(&str) -> (String, String),
) {
    let (path, headers) = access("d-1");
    let (other_path, other_headers) = access("d-2");
    let mut other = Visit::open(proxy, &other_path, &other_headers, "connected");
    let mut first = Visit::open(proxy, &path, &headers, "connected");
    let job = publish(server, "workers/topics/d-1", "1");
    first.expect(&job, "1");

    let back = format!("{headers}last-event-id: {job}\r\n");
    let mut second = Visit::open(proxy, &path, &back, "resumed");
    let [_, name, data] = first.event();
    assert_eq!([name.as_str(), data.as_str()], ["closed", r#"{"reason":"replaced"}"#]);
    let rest = first.rest();
    assert!(!rest.contains("event:"), "{rest:?}");
    assert_eq!(server.closed(), [("replaced".to_owned(), 1)].into());
    let missed = publish(server, "workers/topics/d-1", "2");
    second.expect(&missed, "2");

    // Another deployment's is untouched.
    let id = publish(server, "workers/topics/d-2", "3");
    other.expect(&id, "3");
    assert_eq!(server.seats(), 2);
}

/// nginx has no answer of the application: what would be a 500 is a `retry:` for a stream.
#[test]
fn a_worker_comes_back_when_the_application_does() {
    requires!(NGINX);
    let server = start(&[]);
    let proxy = nginx(&Recipe::Migrating.text(), &server, ReservedPort::new().address);
    let (status, visit) = Visit::request(&proxy, "/worker/stream", "");
    assert_eq!((status, visit.rest().as_str()), (200, "retry: 3000\n"));
}

#[test]
fn an_organisation_with_a_host_name_of_its_own_has_its_agents_there() {
    requires!(NGINX);
    let server = start(&[]);
    let text = Recipe::Migrating.text();
    let (before, rest) = text.split_once("    rewrite ").expect("the line of agents");
    let (_, after) = rest.split_once('\n').expect("its end");
    let lines = blocks(GUIDE, "nginx").into_iter().find(|block| block.contains("server_name"));
    let text = format!("{before}{}{after}", lines.expect("the lines of the guide"));
    let proxy = nginx(&text, &server, ReservedPort::new().address);
    let id = publish(&server, "acme/topics/agent-7", "1");
    let path = format!("/api/v1/agents/agent-7/events?token={}", token("acme", "agent-7"));
    Visit::open(&proxy, &path, "", "connected").expect(&id, "1");
}

#[test]
fn invalidations_keep_their_paths() {
    requires!(NGINX);
    let server = start(&["--coalesce", "0", "--public-keys", "posts"]);
    let proxy = nginx(&Recipe::Migrating.text(), &server, ReservedPort::new().address);
    let path = format!("/api/acme/events?token={}", token("acme", "none"));
    let streams = [path.as_str(), "/api/acme/public/events"];
    let mut streams = streams.map(|path| Visit::open(&proxy, path, "", "connected"));
    let body = r#"{"keys":["posts"]}"#;
    let answer = server.request(&format!(
        "POST /api/acme/events HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n\
         authorization: Bearer {PUBLISH_KEY}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(answer.status(), 202, "{answer:?}");
    for stream in &mut streams {
        let [id, name, data] = stream.event();
        assert_eq!((id.is_empty(), name.as_str(), data.as_str()), (false, "invalidate", body));
    }
}

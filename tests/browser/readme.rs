//! The code on the page of the package, as it stands there.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};

use crate::harness::{
    Chrome, PUBLISH_KEY, Page, SECRET, Site, Tab, Tickets, answer, eventually_sees, publish, server,
};
use crate::support::markdown::blocks;
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, NODE, requires};
use crate::support::temp_dir::TempDir;
use crate::support::{Client, Server, eventually};

const README: &str = include_str!("../../src/browser/README.md");

/// Node with the backend of the page, ended when this is dropped.
struct Backend {
    node: Child,
    dir: TempDir,
}

impl Drop for Backend {
    fn drop(&mut self) {
        _ = self.node.kill();
        _ = self.node.wait();
    }
}

/// The block in this language that contains a text.
fn block(language: &str, part: &str) -> &'static str {
    let block = blocks(README, language).into_iter().find(|block| block.contains(part));
    block.unwrap_or_else(|| panic!("no block has {part}"))
}

/// A page with these elements, whose module has these lines.
fn page(body: &str, script: &str) -> String {
    format!(
        "<!doctype html><meta charset=utf-8>{body}<script type=module>
        import {{ nudged }} from '/nudged.js';
        {script}
        </script>"
    )
}

/// An open server, whose clients reconnect after 200 ms.
fn open_server() -> Server {
    Server::start(&["--coalesce", "0", "--retry-min", "200ms", "--retry-max", "200ms"])
}

fn tab<'chrome>(chrome: &'chrome Chrome, site: &Site, path: &str) -> Tab<'chrome> {
    chrome.tab(&format!("{}{path}", site.origin()))
}

fn shows(tab: &Tab<'_>, id: &str, text: &str) {
    let script = format!("return document.getElementById('{id}')?.textContent");
    eventually_sees(tab, &format!("{id}: {text}"), |tab| tab.run(&script) == text);
}

#[test]
fn the_smallest_page_shows_posts_at_once_and_again_when_they_are_stale() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let (server, site, chrome) = (open_server(), Site::start(None), Chrome::start());
    site.add("/smallest", block("html", "id=\"posts\""));
    site.add("/posts", r#"["one "]"#);
    let tab = tab(&chrome, &site, "/smallest");
    shows(&tab, "posts", "one ");
    site.add("/posts", r#"["one ", "two "]"#);
    site.set_upstream(Some(server.address()));
    shows(&tab, "posts", "one two ");
    site.add("/posts", r#"["three"]"#);
    server.publish("acme", &["posts", "feed:1"]).expect("subscribed");
    shows(&tab, "posts", "three");
}

#[test]
fn the_page_with_tickets_goes_to_the_login_once_it_gets_none() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = server(&[]);
    let (site, chrome) = (Site::start(server.address()), Chrome::start());
    let count = "<p id=shown>0</p>";
    let show = "const show = () => { document.getElementById('shown').textContent++ };";
    let script = format!("{show}\n{}", block("js", "async ticket()"));
    site.add("/tickets", page(count, &script));
    site.add("/login", "<!doctype html><p id=login>log in");
    let tab = tab(&chrome, &site, "/tickets");
    shows(&tab, "shown", "1");
    publish(&server, "acme", &["posts"]).expect("subscribed");
    shows(&tab, "shown", "2");
    assert!(site.heads()[0].contains("\r\nauthorization: bearer "), "{:?}", site.heads());
    assert_eq!(site.asked(), 1);

    // While the backend fails the page waits, and then the user is logged out.
    site.set_tickets(Tickets { status: 500, ..Tickets::default() });
    site.answer_next([answer(401, "application/problem+json", "{}")]);
    site.set_upstream(None);
    site.set_upstream(Some(server.address()));
    eventually("the page asks for a ticket", || site.asked() == 2);
    site.set_tickets(Tickets { status: 401, ..Tickets::default() });
    shows(&tab, "login", "log in");
    eventually("its seat is free", || server.seats() == 0);
}

#[test]
fn the_backend_of_the_page_gives_tickets_that_open_streams() {
    requires!(NODE);
    let (server, dir) = (server(&[]), TempDir::new());
    std::fs::create_dir(dir.file("node_modules")).expect("a folder");
    let package = concat!(env!("CARGO_MANIFEST_DIR"), "/src/browser");
    symlink(package, dir.file("node_modules/nudged-client")).expect("a link");
    let script = block("js", "createServer").replace(
        ".listen(3000)",
        ".listen(0, '127.0.0.1', function () { console.log(this.address().port) })",
    );
    let session = "function sessionOf({ headers }) { return headers.cookie && { org: 'acme' } }";
    std::fs::write(dir.file("backend.mjs"), format!("{script}\n{session}")).expect("a file");
    let mut command = Command::new("node");
    command.arg(dir.file("backend.mjs")).env("NUDGED_SECRET", SECRET).stdout(Stdio::piped());
    let mut backend = Backend { node: command.spawn().expect("node"), dir };
    let stdout = backend.node.stdout.take().expect("piped");
    let port = BufReader::new(stdout).lines().next().expect("a line").expect("text");
    let ticket = |fields: &str| {
        let address = format!("127.0.0.1:{port}").parse().expect("an address");
        let mut client = Client::connect(address);
        client.send(&format!("GET /ticket HTTP/1.0\r\nhost: t\r\n{fields}\r\n"));
        String::from_utf8(client.read_to_end()).expect("UTF-8")
    };
    assert!(ticket("").starts_with("HTTP/1.1 401 "), "{}", ticket(""));
    let response = ticket("cookie: session=1\r\n");
    let (head, ticket) = response.split_once("\r\n\r\n").expect("a body");
    assert!(head.to_ascii_lowercase().contains("\r\ncache-control: no-store\r\n"), "{head}");
    let field = format!("authorization: Bearer {ticket}\r\n");
    let mut stream = server.stream_with("/api/acme/events", &field);
    stream.connected();

    let address = server.address().to_string();
    let script = block("js", "publisher(").replace("127.0.0.1:6834", &address);
    let path = backend.dir.file("publish.mjs");
    std::fs::write(&path, script).expect("a file");
    let mut node = Command::new("node");
    let done = node.arg(path).env("NUDGED_PUBLISH_KEY", PUBLISH_KEY).status().expect("node");
    assert!(done.success());
    assert!(stream.next().contains(r#"{"keys":["posts","feed:123"]}"#));
}

#[test]
fn a_page_that_begins_at_a_position_gets_what_came_since() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = open_server();
    let (site, chrome) = (Site::start(server.address()), Chrome::start());
    let position: serde_json::Value =
        serde_json::from_str(&server.get("/api/acme/position").body).expect("JSON");
    let id = position["member"]["id"].as_str().expect("an id");
    server.publish("acme", &["posts"]).expect("remembered");
    let calls = "const connected = first => { document.getElementById('shown').textContent += `all ${first} ` };
        const invalidate = keys => { document.getElementById('shown').textContent += `${keys} ` };";
    let script = format!("{calls}\n{}", block("js", "since: "));
    site.add("/since", page(&format!("<body data-position='{id}'><p id=shown></p>"), &script));
    let tab = tab(&chrome, &site, "/since");
    shows(&tab, "shown", "posts ");
    server.publish("acme", &["feed:1"]).expect("subscribed");
    shows(&tab, "shown", "posts feed:1 ");
}

#[test]
fn the_page_of_a_topic_shows_what_is_kept_and_its_end() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = open_server();
    let (site, chrome) = (Site::start(server.address()), Chrome::start());
    let topic = "/api/acme/topics/run-42/events";
    let write = |text: &str| {
        let event = serde_json::json!({ "event": "output", "text": text }).to_string();
        assert_eq!(server.post(topic, "application/json", &event).status(), 202);
    };
    write("Hello, ");
    site.add("/topic", page("<p id=output></p>", block("js", "topics/run-42")));
    let tab = tab(&chrome, &site, "/topic");
    shows(&tab, "output", "Hello, ");
    write("world");
    shows(&tab, "output", "Hello, world");
    let close = format!("DELETE {topic} HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(server.request(&close).status(), 202);
    shows(&tab, "output", "Hello, world (the end)");
}

#[test]
fn the_adapters_of_the_page_serve_a_frame_and_two_caches() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = open_server();
    let (site, chrome) = (Site::start(server.address()), Chrome::start());
    let frame = "<p id=frame>0</p><p id=query></p><div id=posts></div>";
    let script = format!(
        "const {{ query, dom, cache }} = await import('/nudged-adapters.js');
        const url = '/api/acme/events';
        document.getElementById('posts').reload = () => {{ document.getElementById('frame').textContent++ }};
        // Of TanStack Query, what the adapter asks for.
        const queryClient = {{
          getQueryCache: () => ({{ findAll: ({{ predicate }}) => [{{ queryKey: ['posts', 7] }}].filter(predicate) }}),
          invalidateQueries: ({{ predicate }}) => {{ document.getElementById('query').textContent += 'read ' }},
        }};
        {}
        window.get = get;
        const first = await get('posts');
        document.body.append(Object.assign(document.createElement('p'), {{ id: 'first', textContent: first }}));",
        block("js", "The smallest cache")
    );
    site.add("/adapters", page(frame, &script));
    site.add("/data/posts", "\"old\"");
    let tab = tab(&chrome, &site, "/adapters");
    shows(&tab, "first", "old");
    // The first `connected` of both calls of `nudged`.
    shows(&tab, "query", "read ");
    eventually("both calls share a stream", || server.seats() == 1);
    site.add("/data/posts", "\"new\"");
    let shown = tab.run("return Number(document.getElementById('frame').textContent)");
    server.publish("acme", &["posts"]).expect("subscribed");
    shows(&tab, "frame", &(shown.as_u64().expect("a number") + 1).to_string());
    let get = "get('posts').then(text => document.getElementById('first').textContent = text)";
    eventually_sees(&tab, "new", |tab| {
        tab.run(get);
        tab.run("return document.getElementById('first').textContent") == "new"
    });
}

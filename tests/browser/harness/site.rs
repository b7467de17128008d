//! The site: pages, tickets, and what is between a browser and its server.

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const PUBLISH_KEY: &str = "fedcba9876543210fedcba9876543210";

const PAGE: &str = include_str!("page.html");

/// Serves pages with the client, `/nudged.js`, and a ticket at `/ticket?user=anna`, and forwards what is for the API.
/// `/api/mine/` is the organisation that has the name of the ticket's user. Ends with the test's process.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// How `/ticket` answers.
#[derive(Clone, Debug)]
pub(crate) struct Tickets {
    pub(crate) status: u16,
    pub(crate) delay: Duration,
    /// Until when a ticket opens a stream; that stream goes on for an hour.
    pub(crate) life: Duration,
    /// Whose ticket it is in place of that of the user in the URL.
    pub(crate) user: Option<String>,
}

#[derive(Default)]
struct State {
    upstream: Option<SocketAddr>,
    files: HashMap<String, String>,
    tickets: Tickets,
    /// The targets of the requests for tickets.
    asked: Vec<String>,
    /// What pages have reported: errors, rejections that are not handled, and what is written to the console.
    problems: Vec<String>,
    /// Users by the tickets that they got.
    users: HashMap<String, String>,
    /// What the API answers in place of the server, at first these in turn.
    next: VecDeque<String>,
    answer: Option<String>,
    /// `/held` does not answer, and otherwise `/blocks` does not.
    is_held: bool,
    held: usize,
    /// The heads of the requests for the API.
    heads: Vec<String>,
    /// Browser and server of each connection that is forwarded, by its number.
    open: HashMap<usize, [TcpStream; 2]>,
    /// Connections whose server is gone, or is not forwarded, and whose browsers notice nothing.
    silent: Vec<[TcpStream; 2]>,
    count: usize,
}

// ===== impl Site =====

impl Site {
    pub(crate) fn start(upstream: impl Into<Option<SocketAddr>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let state = State { upstream: upstream.into(), ..State::default() };
        let site = Self { address, state: Arc::new(Mutex::new(state)) };
        let accepting = site.clone();
        thread::spawn(move || {
            for browser in listener.incoming().flatten() {
                let site = accepting.clone();
                thread::spawn(move || site.serve(browser));
            }
        });
        site
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The URL of a page that calls `nudged` with these options when it is loaded: those of the client that are JSON,
    /// `url`, `ticket` (whose), `event` (whether events are recorded).
    pub(crate) fn page(&self, options: &Value) -> String {
        self.page_at(&self.address.to_string(), options)
    }

    /// The same under another name of the host.
    pub(crate) fn page_at(&self, host: &str, options: &Value) -> String {
        let options = percent_encoding::utf8_percent_encode(
            &options.to_string(),
            percent_encoding::NON_ALPHANUMERIC,
        )
        .to_string();
        format!("http://{host}/page?options={options}")
    }

    /// Serves this file.
    pub(crate) fn add(&self, path: &str, body: impl Into<String>) {
        self.state().files.insert(path.to_owned(), body.into());
    }

    /// Closes every connection to the API, and refuses new ones until there is an upstream.
    pub(crate) fn set_upstream(&self, upstream: Option<SocketAddr>) {
        let mut state = self.state();
        state.upstream = upstream;
        let silent = std::mem::take(&mut state.silent);
        for socket in state.open.drain().map(|(_, ends)| ends).chain(silent).flatten() {
            _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Forwards new connections there; what is open stays as it is.
    pub(crate) fn forward_to(&self, upstream: Option<SocketAddr>) {
        self.state().upstream = upstream;
    }

    /// Ends the server's half of the open connections, of which the browsers notice nothing.
    pub(crate) fn silence(&self) {
        let mut state = self.state();
        let open = std::mem::take(&mut state.open);
        open.values().for_each(|[_, server]| _ = server.shutdown(Shutdown::Both));
        state.silent.extend(open.into_values());
    }

    /// Answers the next requests for the API so in place of the server, and forwards then.
    pub(crate) fn answer_next<const N: usize>(&self, answers: [String; N]) {
        self.state().next.extend(answers);
    }

    /// Answers so in place of the server, or forwards again.
    pub(crate) fn answer_api(&self, answer: Option<String>) {
        self.state().answer = answer;
    }

    /// Whether `/held` waits, or `/blocks`.
    pub(crate) fn hold(&self, is_held: bool) {
        self.state().is_held = is_held;
    }

    /// How often `/held` was requested.
    pub(crate) fn held(&self) -> usize {
        self.state().held
    }

    pub(crate) fn set_tickets(&self, tickets: Tickets) {
        self.state().tickets = tickets;
    }

    /// How often a ticket was asked for.
    pub(crate) fn asked(&self) -> usize {
        self.state().asked.len()
    }

    /// What the console of a page would show of the client: errors, rejections that are not handled, warnings.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.state().problems.clone()
    }

    /// The heads of the requests for the API, in lower case.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.state().heads.iter().map(|head| head.to_ascii_lowercase()).collect()
    }

    /// The `last-event-id` of each request for a stream; empty if it has none.
    pub(crate) fn ids(&self) -> Vec<String> {
        let id = |head: &String| {
            let line = head.lines().find_map(|line| line.strip_prefix("last-event-id: "));
            line.unwrap_or_default().to_owned()
        };
        self.heads().iter().filter(|head| head.starts_with("get ")).map(id).collect()
    }

    /// Number of connections that are forwarded, or silent: of streams, if the others have ended.
    pub(crate) fn streams(&self) -> usize {
        let state = self.state();
        state.open.len() + state.silent.iter().filter(|[browser, _]| is_open(browser)).count()
    }

    /// A ticket of this user, as `/ticket` mints it.
    pub(crate) fn mint(&self, user: &str) -> String {
        let mut state = self.state();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        state.count += 1;
        let claims = json!({
            "exp": (now + state.tickets.life).as_secs(), "until": now.as_secs() + 3600, "iat": now.as_secs(),
            "jti": state.count, "org": "*", "scope": "subscribe", "topics": "*", "sub": user,
        });
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let token = jsonwebtoken::encode(&Header::default(), &claims, &key).expect("it signs");
        state.users.insert(token.clone(), user.to_owned());
        token
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut browser: TcpStream) {
        let Some(head) = read_head(&mut browser) else { return };
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        if target.starts_with("/api/") {
            return self.forward(browser, &head);
        }
        let path = target.split('?').next().unwrap_or_default();
        let file = self.state().files.get(path).cloned();
        let kind = if path.ends_with(".js") { "text/javascript" } else { "text/html" };
        let answer = match (path, file) {
            (_, Some(body)) => answer(200, kind, &body),
            ("/nudged.js", _) => answer(200, kind, &source("nudged.js")),
            ("/nudged-adapters.js", _) => answer(200, kind, &source("adapters.js")),
            ("/problem", _) => {
                let text = target.split_once('?').map_or("", |(_, text)| text);
                let text = percent_encoding::percent_decode_str(text).decode_utf8_lossy();
                self.state().problems.push(text.into_owned());
                answer(200, "text/plain", "")
            }
            ("/ticket", _) => self.ticket(&target),
            ("/held" | "/blocks", _) => {
                let is_held = path == "/held";
                self.state().held += usize::from(is_held);
                while self.state().is_held == is_held {
                    thread::sleep(Duration::from_millis(10));
                }
                answer(200, kind, "")
            }
            ("/page", _) => answer(200, kind, PAGE),
            _ => answer(200, kind, "<!doctype html><title>empty</title>"),
        };
        _ = browser.write_all(answer.as_bytes());
    }

    fn ticket(&self, target: &str) -> String {
        let tickets = {
            let mut state = self.state();
            state.asked.push(target.to_owned());
            state.tickets.clone()
        };
        thread::sleep(tickets.delay);
        if tickets.status != 200 {
            return answer(tickets.status, "text/plain", "no");
        }
        let user = target.split_once("user=").map_or("", |(_, user)| user);
        answer(200, "text/plain", &self.mint(tickets.user.as_deref().unwrap_or(user)))
    }

    fn forward(&self, mut browser: TcpStream, head: &str) {
        let (number, mut server, head) = {
            let mut state = self.state();
            state.heads.push(head.to_owned());
            let scripted = state.next.pop_front();
            if let Some(answer) = scripted.or_else(|| state.answer.clone()) {
                _ = browser.write_all(answer.as_bytes());
                return;
            }
            let Some(upstream) = state.upstream else { return };
            let Ok(server) = TcpStream::connect(upstream) else { return };
            let user = state.users.iter().find(|(token, _)| head.contains(token.as_str()));
            let user = user.map_or("none", |(_, user)| user);
            let head = head.replacen(" /api/mine/", &format!(" /api/{user}/"), 1);
            state.count += 1;
            let number = state.count;
            let ends = [&browser, &server].map(|socket| socket.try_clone().expect("a socket"));
            state.open.insert(number, ends);
            (number, server, head)
        };
        // Each request has a connection, so that none for a page comes here.
        let mut lines: Vec<_> = head.trim_end().split("\r\n").collect();
        lines.retain(|line| !line.to_ascii_lowercase().starts_with("connection:"));
        lines.push("connection: close\r\n\r\n");
        _ = server.write_all(lines.join("\r\n").as_bytes());
        let mut from = [&browser, &server].map(|socket| socket.try_clone().expect("a socket"));
        thread::spawn(move || {
            let [browser, server] = &mut from;
            _ = std::io::copy(browser, server);
            _ = server.shutdown(Shutdown::Both);
        });
        _ = std::io::copy(&mut server, &mut browser);
        // A silent connection stays.
        if self.state().open.remove(&number).is_some() {
            _ = browser.shutdown(Shutdown::Both);
        }
    }
}

// ===== impl Tickets =====

impl Default for Tickets {
    fn default() -> Self {
        let life = Duration::from_secs(600);
        Self { status: 200, delay: Duration::ZERO, life, user: None }
    }
}

/// A whole response, after which the connection is closed.
pub(crate) fn answer(status: u16, kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Status\r\ncontent-type: {kind}\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

/// A file of the package, as it is now.
fn source(name: &str) -> String {
    let path = format!("{}/src/browser/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).expect("a file")
}

/// The head of a request, if all of it comes.
pub(crate) fn read_head(browser: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        browser.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// Whether the other end has not closed it.
fn is_open(socket: &TcpStream) -> bool {
    _ = socket.set_nonblocking(true);
    let end = socket.peek(&mut [0]);
    _ = socket.set_nonblocking(false);
    !matches!(end, Ok(0)) && !end.is_err_and(|why| why.kind() != std::io::ErrorKind::WouldBlock)
}

//! A server with scripted responses, and calls of the command line's clients against it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use nudged::client::{Endpoint, Error, Listen, Publish, StreamKind, Verify, listen, publish};

/// Bounds a call that hangs; no test waits for it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Serves one connection after the other, each with one response of the script, then ends.
pub(crate) struct ScriptedServer {
    pub(crate) address: SocketAddr,
    /// Returns the complete requests.
    thread: JoinHandle<Vec<String>>,
}

// ===== impl ScriptedServer =====

impl ScriptedServer {
    pub(crate) fn play<const N: usize>(answers: [String; N]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        let thread = std::thread::spawn(move || {
            let answer = |answer: String| answer_one(&listener, &answer).expect("a whole request");
            answers.into_iter().map(answer).collect()
        });
        Self { address, thread }
    }

    pub(crate) fn server(&self, token: Option<&str>) -> Endpoint {
        server(self.address, token)
    }

    pub(crate) fn requests(self) -> Vec<String> {
        self.thread.join().expect("every response of the script was sent")
    }
}

pub(crate) fn answer_one(listener: &TcpListener, answer: &str) -> io::Result<String> {
    let (mut peer, _) = listener.accept()?;
    peer.set_read_timeout(Some(DEADLINE))?;
    let request = read_request(&mut peer)?;
    peer.write_all(answer.as_bytes())?;
    Ok(request)
}

pub(crate) fn read_request(peer: &mut TcpStream) -> io::Result<String> {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().expect("a number")) {
                return Ok(text.into_owned());
            }
        }
        let mut byte = [0];
        peer.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
}

pub(crate) fn server(address: SocketAddr, token: Option<&str>) -> Endpoint {
    let url = format!("http://{address}").parse().expect("a URL");
    let token = token.map(|token| token.parse().expect("a token"));
    Endpoint { url, token, verify: Verify::System }
}

pub(crate) fn stream(events: &str) -> String {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    format!("{head}{:x}\r\n{events}\r\n0\r\n\r\n", events.len())
}

pub(crate) fn answer(status: &str, content_type: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

pub(crate) fn no_content() -> String {
    "HTTP/1.1 204 No Content\r\n\r\n".to_owned()
}

// ===== both clients, bounded in time =====

/// Runs the future; one that hangs fails the test.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        #[expect(clippy::disallowed_methods, reason = "ends a test that hangs")]
        tokio::time::timeout(DEADLINE, future).await.expect("within the deadline")
    })
}

pub(crate) struct Listened {
    pub(crate) result: Result<(), Error>,
    pub(crate) events: String,
    pub(crate) notes: String,
}

pub(crate) fn listening(server: Endpoint, public: bool, last_event_id: Option<&str>) -> Listened {
    let stream = if public { StreamKind::Public } else { StreamKind::Members };
    listening_to(server, stream, last_event_id)
}

pub(crate) fn listening_to(
    server: Endpoint,
    stream: StreamKind,
    last_event_id: Option<&str>,
) -> Listened {
    let last_event_id = last_event_id.map(str::to_owned);
    let org = "acme".parse().expect("an org");
    let what = Listen { server, org, stream, keys: Vec::new(), last_event_id, pings: false };
    let (mut events, mut notes) = (Vec::new(), Vec::new());
    let result = block_on(listen(&what, &mut events, &mut notes));
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Listened { result, events: text(events), notes: text(notes) }
}

pub(crate) fn publishing(server: Endpoint, keys: &[&str]) -> (Result<(), Error>, String) {
    let keys = keys.iter().map(|key| (*key).to_owned()).collect();
    let org = "acme".parse().expect("an org");
    let what = Publish { server, org, keys, retry_for: Duration::ZERO };
    let mut out = Vec::new();
    let result = block_on(publish(&what, &mut out, &mut io::sink()));
    (result, String::from_utf8(out).expect("text"))
}

pub(crate) fn error_text(result: Result<(), Error>) -> String {
    result.expect_err("a refusal").to_string()
}

pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

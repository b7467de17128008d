//! Successive servers on a socket of the service manager, and their notifications to it.
#![expect(
    clippy::disallowed_types,
    clippy::needless_collect,
    reason = "loom does not replace the locks of a test; its threads have to run at the same time"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::support::server::Signal;
use crate::support::temp_dir::TempDir;
use crate::support::{BOUND, Client, Server, Transport, eventually};

/// Receives a stream as a browser does: reconnects after `retry:`, with the last id received.
struct Browser {
    address: SocketAddr,
    last_event_id: Option<String>,
    /// The highest number received, or already published when a `connected` made it reread.
    newest: Arc<AtomicUsize>,
}

// ===== impl Browser =====

impl Browser {
    /// `published` is the state that a page would reread from the backend.
    fn run(
        mut self,
        published: &AtomicUsize,
        over: &AtomicBool,
        refused: &AtomicUsize,
        missed: &Mutex<Vec<String>>,
    ) -> usize {
        let mut connects = 0;
        while !over.load(Ordering::Acquire) {
            let Ok(socket) = TcpStream::connect(self.address) else {
                refused.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            connects += 1;
            let pause = self.follow(socket, published, over, missed);
            thread::sleep(pause);
        }
        connects
    }

    fn follow(
        &mut self,
        socket: TcpStream,
        published: &AtomicUsize,
        over: &AtomicBool,
        missed: &Mutex<Vec<String>>,
    ) -> Duration {
        let mut pause = Duration::from_millis(50);
        socket.set_read_timeout(Some(BOUND)).expect("a socket");
        let id = self.last_event_id.iter().map(|id| format!("last-event-id: {id}\r\n"));
        let id: String = id.collect();
        // HTTP/1.0: the body has no framing, and its lines are the event's.
        let get = format!("GET /api/acme/events HTTP/1.0\r\naccept: text/event-stream\r\n{id}\r\n");
        if (&socket).write_all(get.as_bytes()).is_err() {
            return pause;
        }
        let mut name = String::new();
        for line in BufReader::new(socket).lines() {
            let Ok(line) = line else { break };
            assert!(
                !line.starts_with("HTTP/") || line.contains(" 200 "),
                "a browser gives up: {line}"
            );
            match line.split_once(": ") {
                Some(("retry", ms)) => pause = Duration::from_millis(ms.parse().expect("a number")),
                Some(("id", id)) => self.last_event_id = Some(id.to_owned()),
                Some(("event", event)) => event.clone_into(&mut name),
                Some(("data", data)) if name == "invalidate" => {
                    for key in data.split('"').filter_map(|part| part.strip_prefix('n')) {
                        let number: usize = key.parse().expect("a number");
                        let newest = self.newest.fetch_max(number, Ordering::AcqRel);
                        if number > newest + 1 {
                            missed
                                .lock()
                                .expect("no panic")
                                .push(format!("{newest} then {number}"));
                        }
                    }
                }
                Some(("data", _)) if name == "connected" => {
                    self.newest.fetch_max(published.load(Ordering::Acquire), Ordering::AcqRel);
                }
                _ => {}
            }
            if over.load(Ordering::Acquire) {
                break;
            }
        }
        pause
    }
}

/// The program on this listening socket, as a service manager starts it.
fn activated(listener: &TcpListener) -> Command {
    let mut command = Command::new("sh");
    let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"";
    command.args(["-c", script, env!("CARGO_BIN_EXE_nudged")]);
    let socket: OwnedFd = listener.try_clone().expect("a descriptor").into();
    command.stdin(Stdio::from(socket)).stdout(Stdio::piped());
    command
}

/// One server after another uses the same socket, while browsers subscribe and a backend publishes.
#[test]
fn a_restart_refuses_no_connection_and_loses_no_event() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let window = ["--workers", "2", "--drain-window", "300ms", "--listen", "127.0.0.1:1"];
    let args = [&window[..], &["--retry-min", "20ms", "--retry-max", "100ms"]].concat();
    let mut server = Server::start_as(activated(&listener), Transport::Http1, &args);
    assert_eq!(server.addresses, [address], "--listen is ignored");

    let published = Arc::new(AtomicUsize::new(0));
    let refused = Arc::new(AtomicUsize::new(0));
    let (quiet, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let missed = Arc::new(Mutex::new(Vec::new()));
    let newest: Vec<Arc<AtomicUsize>> = (0..20).map(|_| Arc::default()).collect();
    let browsers: Vec<_> = newest
        .iter()
        .map(|newest| {
            let (published, over, refused, missed) =
                (published.clone(), over.clone(), refused.clone(), missed.clone());
            let browser = Browser { address, last_event_id: None, newest: newest.clone() };
            thread::spawn(move || browser.run(&published, &over, &refused, &missed))
        })
        .collect();
    let backend = {
        let (published, quiet, refused) = (published.clone(), quiet.clone(), refused.clone());
        thread::spawn(move || {
            while !quiet.load(Ordering::Acquire) {
                let next = published.load(Ordering::Relaxed) + 1;
                // The state is written before the publish, so that a reread after the event sees it.
                published.store(next, Ordering::Release);
                while !publish(address, &format!("n{next}"), &refused) {}
                thread::sleep(Duration::from_millis(5));
            }
        })
    };
    eventually("all have subscribed", || server.seats() == 20);
    for _ in 0..3 {
        server.signal(Signal::TERM);
        assert_eq!(server.wait(), Some(0));
        server = Server::start_as(activated(&listener), Transport::Http1, &args);
        eventually("all have reconnected", || server.seats() == 20);
        let before = published.load(Ordering::Acquire);
        eventually("more has been published", || published.load(Ordering::Acquire) >= before + 20);
    }
    quiet.store(true, Ordering::Release);
    backend.join().expect("no panic");
    let last = published.load(Ordering::Acquire);
    eventually("each has received the last", || {
        newest.iter().all(|newest| newest.load(Ordering::Acquire) == last)
    });
    over.store(true, Ordering::Release);
    drop(server);
    let connects: usize =
        browsers.into_iter().map(|browser| browser.join().expect("no panic")).sum();
    assert!(connects >= 80, "each reconnected three times: {connects}");
    assert_eq!(refused.load(Ordering::Relaxed), 0, "connects refused");
    assert_eq!(*missed.lock().expect("no panic"), [""; 0]);
    assert!(last > 50, "{last} publishes");
}

/// Publishes once, and returns whether it was accepted. The backend retries when its connection ends.
fn publish(address: SocketAddr, key: &str, refused: &AtomicUsize) -> bool {
    let Ok(mut socket) = TcpStream::connect(address) else {
        refused.fetch_add(1, Ordering::Relaxed);
        return false;
    };
    socket.set_read_timeout(Some(BOUND)).expect("a socket");
    let body = format!("{{\"keys\":[\"{key}\"]}}");
    let post = format!(
        "POST /api/acme/events HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut answer = String::new();
    _ = socket.write_all(post.as_bytes());
    _ = socket.read_to_string(&mut answer);
    answer.starts_with("HTTP/1.1 202")
}

/// A server without keys refuses other addresses, including those that a service manager opened.
#[test]
fn a_server_without_keys_adopts_loopback_sockets_only() {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let (code, message) = Server::refuses_to_start_as(activated(&listener), &[]);
    assert_eq!(code, Some(2));
    assert!(message.contains("no key is configured"), "{message}");
}

/// A socket that the service manager names `internal` is an internal address, beside `--listen`.
#[test]
fn a_passed_socket_may_be_internal() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let mut command = activated(&listener);
    command.env("LISTEN_FDNAMES", "internal");
    let server = Server::start_as(command, Transport::Http1, &[]);
    let [public, internal] = server.addresses[..] else { panic!("two addresses") };
    assert_eq!(internal, address);
    for (address, status) in [(public, 404), (internal, 200)] {
        let mut client = Client::connect(address);
        client.send("GET /metrics HTTP/1.1\r\nhost: t\r\n\r\n");
        assert_eq!(client.read_answer().status(), status);
    }
}

#[test]
fn systemd_is_notified_of_ready_watchdog_and_stopping() {
    let folder = TempDir::new();
    let path = folder.file("socket");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(BOUND)).expect("a socket");
    let next = || {
        let mut buf = [0; 256];
        let n = manager.recv(&mut buf).expect("within the bound");
        String::from_utf8_lossy(&buf[..n]).trim().to_owned()
    };
    let mut command = Server::command();
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let mut server = Server::start_as(command, Transport::Http1, &[]);
    assert_eq!(next(), "READY=1");
    assert!(Client::connect(server.address()).is_silent(), "it listens");
    for _ in 0..3 {
        assert_eq!(next(), "WATCHDOG=1");
    }
    server.signal(Signal::TERM);
    let last = std::iter::repeat_with(next).find(|state| state != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
    assert_eq!(server.wait(), Some(0));
}

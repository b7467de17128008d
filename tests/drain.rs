//! The end of a server: it is announced, spread, finished properly, and does not lose anybody.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::needless_collect,
    reason = "tests have a clock and threads, which have to run at the same time"
)]

mod support;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use support::{ALL_PATHS, BOUND, Client, PLAIN_PATHS, Server, eventually};

fn server(path: &[&str], more: &[&str]) -> Server {
    let at_once: &[&str] = if more.contains(&"--coalesce") { &[] } else { &["--coalesce", "0"] };
    Server::start(&[path, at_once, more].concat())
}

fn is_ready(server: &Server) -> bool {
    server.get("/readyz").status() == 200
}

#[test]
fn during_the_delay_it_is_not_ready_and_serves() {
    for path in PLAIN_PATHS {
        let mut server = server(path, &["--drain-delay", "2s", "--drain-window", "100ms"]);
        assert!(is_ready(&server));
        let mut before = server.stream("acme");
        before.connected();
        server.signal("TERM");
        eventually("not ready", || !is_ready(&server));
        let answer = server.get("/readyz");
        assert_eq!(answer.status(), 503);
        assert!(answer.problem().contains("shutting down"));

        // Most of the delay: what was accepted at its beginning proves nothing.
        thread::sleep(Duration::from_secs(1));
        let mut during = server.stream("acme");
        during.connected();
        let id = server.publish("acme", &["a"]).expect("an id");
        for stream in [&mut before, &mut during] {
            stream.expect_invalidate(&id, &["a"]);
            stream.farewell();
        }
        assert_eq!(server.wait(), Some(0));
        assert!(TcpStream::connect(server.address()).is_err(), "it has gone");
    }
}

/// The order tells that they did not end as one, and the window that they did not end early.
#[test]
fn streams_end_spread_over_the_window() {
    const STREAMS: usize = 100;
    for path in ALL_PATHS {
        let mut server = server(path, &["--workers", "2", "--drain-window", "2s"]);
        let ends = Arc::new(Mutex::new(Vec::new()));
        let orgs = ["a", "b", "c"];
        let streams: Vec<_> = (0..STREAMS).map(|n| server.stream(orgs[n % 3])).collect();
        let readers: Vec<_> = streams
            .into_iter()
            .map(|mut stream| {
                stream.connected();
                let ends = ends.clone();
                thread::spawn(move || {
                    let retry = stream.farewell();
                    ends.lock().expect("no panic").push((Instant::now(), retry));
                })
            })
            .collect();
        let start = Instant::now();
        server.signal("TERM");
        readers.into_iter().for_each(|reader| reader.join().expect("a proper end"));
        assert_eq!(server.wait(), Some(0));

        let ends = ends.lock().expect("no panic");
        let half = ends.iter().filter(|(at, _)| *at - start < Duration::from_secs(1)).count();
        assert!(
            (STREAMS / 4..=STREAMS * 3 / 4).contains(&half),
            "{half} in the first half: {path:?}"
        );
        let mut retries: Vec<_> = ends.iter().map(|(_, retry)| *retry).collect();
        assert!(retries.iter().all(|retry| (1_000..=5_000).contains(retry)));
        retries.sort_unstable();
        retries.dedup();
        assert!(retries.len() > STREAMS / 2, "drawn for each: {retries:?}");
    }
}

/// A publish that has begun is finished, and heard by those whose turn to end has not come.
#[test]
fn who_stays_hears_until_its_turn_comes() {
    for path in PLAIN_PATHS {
        let mut server = server(path, &["--workers", "1", "--drain-window", "2s"]);
        let mut streams: Vec<_> = (0..4).map(|_| server.stream("acme")).collect();
        streams.iter_mut().for_each(|stream| _ = stream.connected());
        // A publish that began before accepting ended.
        let mut publish = server.connect();
        begin_publish(&mut publish);
        publish.send("{\"keys\"");
        server.signal("TERM");
        eventually("nothing more is accepted", || TcpStream::connect(server.address()).is_err());
        publish.send(":[\"a\"]}");
        assert_eq!(publish.read_answer().status(), 202, "{path:?}");
        let heard = streams
            .iter_mut()
            .filter_map(|stream| {
                let heard = stream.next();
                if heard.starts_with("retry: ") {
                    None
                } else {
                    assert!(heard.contains("[\"a\"]"));
                    stream.farewell();
                    Some(())
                }
            })
            .count();
        assert!((1..4).contains(&heard), "{heard} of 4 were still there");
        assert_eq!(server.wait(), Some(0));
    }
}

/// Asks for a publish, and returns once the server waits for its body.
fn begin_publish(client: &mut Client) {
    client.send(
        "POST /api/acme/events HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n\
         content-length: 14\r\nexpect: 100-continue\r\n\r\n",
    );
    assert_eq!(client.read_head(), "HTTP/1.1 100 Continue\r\n\r\n");
}

/// Nothing else keeps the server from ending here.
#[test]
fn a_publish_in_flight_is_finished() {
    for path in PLAIN_PATHS {
        let mut server = server(path, &[]);
        let mut publish = server.connect();
        begin_publish(&mut publish);
        publish.send("{\"keys\"");
        server.signal("TERM");
        eventually("nothing more is accepted", || TcpStream::connect(server.address()).is_err());
        thread::sleep(Duration::from_millis(500));
        publish.send(":[\"a\"]}");
        assert_eq!(publish.read_answer().status(), 202, "{path:?}");
        assert_eq!(server.wait(), Some(0));
    }
}

/// Its window would close long after the server has gone.
#[test]
fn what_a_burst_has_left_is_told_before_the_end() {
    for path in ALL_PATHS {
        let mut server = server(path, &["--coalesce", "50s", "--drain-window", "100ms"]);
        let mut streams: Vec<_> = (0..2).map(|_| server.stream("acme")).collect();
        streams.iter_mut().for_each(|stream| _ = stream.connected());
        let ids = ["first", "held"].map(|key| server.publish("acme", &[key]).expect("an id"));
        server.signal("TERM");
        for stream in &mut streams {
            stream.expect_invalidate(&ids[0], &["first"]);
            stream.expect_invalidate(&ids[1], &["held"]);
            stream.farewell();
        }
        assert_eq!(server.wait(), Some(0));
    }
}

#[test]
fn without_streams_the_end_is_soon() {
    let mut server = server(PLAIN_PATHS[0], &["--drain-window", "30s"]);
    let start = Instant::now();
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn the_hard_limit_ends_what_does_not_end() {
    for path in PLAIN_PATHS {
        let mut server = server(path, &["--drain-window", "100ms", "--drain-timeout", "1s"]);
        // It promises a body and never sends it: that holds the server, and no longer than this.
        let mut publish = server.connect();
        begin_publish(&mut publish);
        let start = Instant::now();
        server.signal("TERM");
        assert_eq!(server.wait(), Some(0));
        let took = start.elapsed();
        assert!((Duration::from_millis(900)..Duration::from_secs(8)).contains(&took), "{took:?}");
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for path in PLAIN_PATHS {
        for (second, code) in [("TERM", 143), ("INT", 130)] {
            let args = ["--workers", "1", "--drain-window", "30s", "--drain-delay", "0s"];
            let mut server = server(path, &args);
            let mut streams: Vec<_> = (0..4).map(|_| server.stream("acme")).collect();
            streams.iter_mut().for_each(|stream| _ = stream.connected());
            server.signal("TERM");
            eventually("it drains", || TcpStream::connect(server.address()).is_err());
            let start = Instant::now();
            server.signal(second);
            assert_eq!(server.wait(), Some(code));
            assert!(start.elapsed() < Duration::from_secs(5));
        }
    }
}

#[test]
fn a_hard_limit_that_would_cut_streams_is_refused() {
    let args = ["--drain-delay", "10s", "--drain-window", "25s"];
    let (code, said) = Server::refuses_to_start(&args);
    assert_eq!(code, Some(64));
    assert!(said.contains("--drain-delay 10s and --drain-window 25s together"), "{said}");
    assert!(said.contains("--drain-timeout 30s"), "{said}");
}

/// A browser never comes back from a 503. So a stream that is asked for too late, on a connection that
/// was accepted in time, is told when to come back.
#[test]
fn who_asks_too_late_is_told_when_to_come_back() {
    for path in PLAIN_PATHS {
        let mut server = server(path, &["--workers", "1", "--drain-window", "3s"]);
        let mut streams: Vec<_> = (0..2).map(|_| server.stream("acme")).collect();
        streams.iter_mut().for_each(|stream| _ = stream.connected());
        // A request that has begun keeps its connection open.
        let mut late = server.connect();
        late.send("GET /api/acme/events HTTP/1.1\r\nhost: t\r\n");
        thread::sleep(Duration::from_millis(100));
        server.signal("TERM");
        streams[0].farewell();
        late.send("accept: text/event-stream\r\n\r\n");
        let answer = late.read_answer();
        assert_eq!(answer.status(), 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("text/event-stream"));
        assert!(answer.body.starts_with("retry: ") && answer.body.ends_with("\n\n"), "{answer:?}");
        assert_eq!(server.wait(), Some(0));
    }
}

// ===== a service manager =====

/// A server on a socket that is ours, as a service manager starts it.
fn activated(listener: &TcpListener, args: &[&str]) -> Server {
    let mut command = Command::new("sh");
    let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"";
    command.args(["-c", script, env!("CARGO_BIN_EXE_nudged")]);
    let socket: OwnedFd = listener.try_clone().expect("a descriptor").into();
    command.stdin(Stdio::from(socket)).stdout(Stdio::piped());
    Server::start_as(command, args)
}

/// Follows a stream as a browser does: comes back after `retry:`, with the id that it heard last.
struct Browser {
    address: SocketAddr,
    last_event_id: Option<String>,
    /// The highest number that it was told of, or that was there when it was told to read again.
    knows: Arc<AtomicUsize>,
}

impl Browser {
    /// `published` is what a page would read from the backend when it is told to.
    fn run(
        mut self,
        published: &AtomicUsize,
        over: &AtomicBool,
        refused: &AtomicUsize,
        missed: &Mutex<Vec<String>>,
    ) -> usize {
        let mut comebacks = 0;
        while !over.load(Ordering::Acquire) {
            let Ok(socket) = TcpStream::connect(self.address) else {
                refused.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            comebacks += 1;
            let pause = self.follow(socket, published, over, missed);
            thread::sleep(pause);
        }
        comebacks
    }

    fn follow(
        &mut self,
        socket: TcpStream,
        published: &AtomicUsize,
        over: &AtomicBool,
        missed: &Mutex<Vec<String>>,
    ) -> Duration {
        use std::io::{BufRead, BufReader, Write};
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
                        let knows = self.knows.fetch_max(number, Ordering::AcqRel);
                        if number > knows + 1 {
                            missed.lock().expect("no panic").push(format!("{knows} then {number}"));
                        }
                    }
                }
                Some(("data", _)) if name == "connected" => {
                    self.knows.fetch_max(published.load(Ordering::Acquire), Ordering::AcqRel);
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

/// Servers follow one another on a socket that stays, while browsers listen and a backend publishes.
#[test]
fn a_restart_refuses_no_connect_and_loses_nothing() {
    for path in PLAIN_PATHS {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let window = ["--workers", "2", "--drain-window", "300ms", "--listen", "127.0.0.1:1"];
        let args = [path, &window, &["--retry-min", "20ms", "--retry-max", "100ms"]].concat();
        let mut server = activated(&listener, &args);
        assert_eq!(server.addresses, [address], "--listen is ignored");

        let published = Arc::new(AtomicUsize::new(0));
        let refused = Arc::new(AtomicUsize::new(0));
        let (quiet, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let missed = Arc::new(Mutex::new(Vec::new()));
        let knows: Vec<Arc<AtomicUsize>> = (0..20).map(|_| Arc::default()).collect();
        let browsers: Vec<_> = knows
            .iter()
            .map(|knows| {
                let (published, over, refused, missed) =
                    (published.clone(), over.clone(), refused.clone(), missed.clone());
                let browser = Browser { address, last_event_id: None, knows: knows.clone() };
                thread::spawn(move || browser.run(&published, &over, &refused, &missed))
            })
            .collect();
        let backend = {
            let (published, quiet, refused) = (published.clone(), quiet.clone(), refused.clone());
            thread::spawn(move || {
                while !quiet.load(Ordering::Acquire) {
                    let next = published.load(Ordering::Relaxed) + 1;
                    // It has written before it publishes, so who reads now reads what comes.
                    published.store(next, Ordering::Release);
                    while !publish(address, &format!("n{next}"), &refused) {}
                    thread::sleep(Duration::from_millis(5));
                }
            })
        };
        eventually("all listen", || server.seats() == 20);
        for _ in 0..3 {
            server.signal("TERM");
            assert_eq!(server.wait(), Some(0));
            server = activated(&listener, &args);
            eventually("all are back", || server.seats() == 20);
            thread::sleep(Duration::from_millis(200));
        }
        quiet.store(true, Ordering::Release);
        backend.join().expect("no panic");
        let last = published.load(Ordering::Acquire);
        eventually("each knows the last", || {
            knows.iter().all(|knows| knows.load(Ordering::Acquire) == last)
        });
        over.store(true, Ordering::Release);
        drop(server);
        let comebacks: usize =
            browsers.into_iter().map(|browser| browser.join().expect("no panic")).sum();
        assert!(comebacks >= 80, "each came back three times: {comebacks}");
        assert_eq!(refused.load(Ordering::Relaxed), 0, "connects refused: {path:?}");
        assert_eq!(*missed.lock().expect("no panic"), [""; 0], "{path:?}");
        assert!(last > 50, "{last} publishes");
    }
}

/// Publishes once. Returns whether it was accepted; a backend tries again when its connection ends.
fn publish(address: SocketAddr, key: &str, refused: &AtomicUsize) -> bool {
    use std::io::{Read, Write};
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

/// Sockets of a network are not served by an open server, whoever has opened them.
#[test]
fn an_open_server_adopts_loopback_sockets_only() {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_nudged")]);
    command.stdin(Stdio::from(OwnedFd::from(listener))).stdout(Stdio::piped());
    let (code, said) = Server::refuses_to_start_as(command, &[]);
    assert_eq!(code, Some(64));
    assert!(said.contains("no key is configured"), "{said}");
}

#[test]
fn systemd_is_told() {
    let directory = std::env::temp_dir().join(format!("nudged-notify-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let path = directory.join("socket");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(BOUND)).expect("a socket");
    let next = || {
        let mut buf = [0; 256];
        let n = manager.recv(&mut buf).expect("within the bound");
        String::from_utf8_lossy(&buf[..n]).trim().to_owned()
    };
    let mut command = Server::command();
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let mut server = Server::start_as(command, &["--listen", "127.0.0.1:0"]);
    assert_eq!(next(), "READY=1");
    assert!(Client::connect(server.address()).is_silent(), "it listens");
    for _ in 0..3 {
        assert_eq!(next(), "WATCHDOG=1");
    }
    server.signal("TERM");
    let told = std::iter::repeat_with(next).find(|state| state != "WATCHDOG=1");
    assert_eq!(told.as_deref(), Some("STOPPING=1"));
    assert_eq!(server.wait(), Some(0));
    std::fs::remove_dir_all(&directory).expect("ours");
}

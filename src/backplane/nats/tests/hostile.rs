//! Programs that greet as NATS does, or nearly so, and whose answers are wrong.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::super::Backplane;
use super::super::super::broker::{Broker, Reader};
use super::super::Nats;
use super::support::{
    BOUND, config, eventually, open, positions, read_to_its_end, record, refusal,
};
use crate::backplane::broker::Appender;
use crate::config::HubConfig;
use crate::hub::Hub;
use crate::time::Clock;

/// A program that speaks NATS' protocol, with these answers.
#[derive(Clone)]
struct Fake {
    greeting: String,
    info: Value,
    /// So many times it has no stream, before it describes it.
    deleted: Arc<AtomicUsize>,
    consumer: Value,
    acknowledgement: String,
    /// So long it waits before it acknowledges.
    delay: Duration,
    /// The requests of records that it got.
    requests: Arc<Mutex<Vec<Value>>>,
    /// What comes for a request of records: lines, in which `$INBOX` and `$SID` are those of the subscription.
    records: String,
}

const GREETING: &str = "INFO {\"server_id\":\"x\",\"server_name\":\"x\",\"version\":\"2.9.10\",\"proto\":1,\
                        \"headers\":true,\"jetstream\":true,\"max_payload\":1048576}\r\n";

// ===== impl Fake =====

impl Fake {
    fn new() -> Self {
        Self {
            greeting: GREETING.into(),
            info: json!({
                "created": "2026-01-01T00:00:00Z",
                "state": { "messages": 1, "first_seq": 1, "last_seq": 1 },
                "config": {
                    "subjects": ["log.log"], "retention": "limits", "discard": "old", "storage": "file",
                    "num_replicas": 1, "max_bytes": 268_435_456, "max_msg_size": 524_288, "max_msgs": -1,
                    "max_msgs_per_subject": -1, "max_consumers": -1, "deny_delete": true, "deny_purge": true,
                },
            }),
            deleted: Arc::default(),
            consumer: json!({ "name": "c", "delivered": { "stream_seq": 0 } }),
            acknowledgement: json!({ "stream": "log", "seq": 1 }).to_string(),
            delay: Duration::ZERO,
            requests: Arc::default(),
            records: String::new(),
        }
    }

    /// Listens until the test's process ends.
    fn start(self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let fake = self.clone();
                // It ends with its connection, whichever side ends that.
                thread::spawn(move || _ = fake.serve(socket));
            }
        });
        address
    }

    fn serve(&self, mut socket: TcpStream) -> io::Result<()> {
        socket.set_read_timeout(Some(BOUND))?;
        socket.write_all(self.greeting.as_bytes())?;
        let mut lines = BufReader::new(socket.try_clone()?);
        let (mut line, mut subscriptions) = (String::new(), HashMap::new());
        while lines.read_line(&mut line)? > 0 {
            let fields: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            match fields.first().map_or("", String::as_str) {
                "PING" => socket.write_all(b"PONG\r\n")?,
                "SUB" => {
                    _ = subscriptions
                        .insert(fields[1].trim_end_matches('*').to_owned(), fields[2].clone());
                }
                verb @ ("PUB" | "HPUB") => {
                    let len: usize = fields[fields.len() - 1].parse().expect("a length");
                    let mut payload = vec![0; len + 2];
                    lines.read_exact(&mut payload)?;
                    let (subject, reply) = (&fields[1], &fields[2]);
                    let sid = subscriptions.iter().find(|(inbox, _)| reply.starts_with(*inbox));
                    let sid = sid.map_or("0", |(_, sid)| sid);
                    if verb == "HPUB" {
                        thread::sleep(self.delay);
                    } else if subject.starts_with("$JS.API.CONSUMER.MSG.NEXT") {
                        let request = serde_json::from_slice(&payload).expect("JSON");
                        self.requests.lock().expect("no panic").push(request);
                    }
                    let answers = self.answers(verb, subject, reply, sid);
                    socket.write_all(answers.as_bytes())?;
                }
                _ => {}
            }
            line.clear();
        }
        Ok(())
    }

    fn answers(&self, verb: &str, subject: &str, reply: &str, sid: &str) -> String {
        let one = |text: &str| format!("MSG {reply} {sid} {}\r\n{text}\r\n", text.len());
        match subject {
            _ if verb == "HPUB" => one(&self.acknowledgement),
            "$JS.API.STREAM.INFO.log" if self.deleted.load(Ordering::Relaxed) > 0 => {
                _ = self.deleted.fetch_sub(1, Ordering::Relaxed);
                one("{\"error\":{\"code\":404,\"err_code\":10059}}")
            }
            "$JS.API.STREAM.CREATE.log" => one("{\"error\":{\"description\":\"no room\"}}"),
            "$JS.API.STREAM.INFO.log" => match &self.info {
                Value::String(raw) => one(raw),
                info => one(&info.to_string()),
            },
            "$JS.API.CONSUMER.CREATE.log" => one(&self.consumer.to_string()),
            _ => self.records.replace("$INBOX", reply).replace("$SID", sid),
        }
    }
}

fn url(address: SocketAddr) -> String {
    format!("nats://{address}")
}

/// SCENARIO: what listens at the broker's address sends lines that are nearly NATS. BUG: the library panics on some, and
/// with it the thread that follows the log ended for ever. FIX: it connects on a task.
#[test]
fn no_greeting_ends_the_thread_that_follows_the_log() {
    let long = format!("-ERR '{}'\r\n", "x".repeat(1_000_000));
    for greeting in [
        "-ERR\r\n",
        "MSG a 1 18446744073709551615\r\n",
        "HMSG a 1 0 18446744073709551615\r\n",
        "INFO {}\r\n",
        "INFO {\"server_id\":7}\r\n",
        "INFO [[[[\r\n",
        "+OK\r\n",
        "\r\n",
        &long,
        &GREETING.replace("\"x\"", "\"\""),
        // Behind a greeting that is right.
        &format!("{GREETING}-ERR\r\n"),
        &format!("{GREETING}{long}"),
        &format!("{GREETING}PONG\r\nMSG a 1 18446744073709551615\r\n"),
    ] {
        let fake = Fake { greeting: greeting.into(), ..Fake::new() };
        let config = config(&url(fake.start()));
        let (clock, hub) = (Clock::start(), Hub::with_log(HubConfig::default(), 1, 1 << 20, BOUND));
        let backplane =
            Backplane::start(Nats::new(&config), &config, hub, clock).expect("a thread");
        let mut why = String::new();
        eventually("it says why", || {
            why = backplane.state().why.unwrap_or_default();
            why != "connecting to the broker"
        });
        let shown: String = greeting.chars().take(60).collect();
        assert!(why != "it has been stopped" && why.len() <= 300, "{shown:?}: {why}");
    }
}

#[tokio::test]
async fn nonsense_about_the_stream_is_refused() {
    let deep = "[".repeat(100_000);
    for raw in ["", "null", "[]", "{}", "{\"error\":5}", "{\"error\":{}}", "\u{0}", &deep] {
        let fake = Fake { info: raw.into(), ..Fake::new() };
        let why = refusal(&config(&url(fake.start()))).await;
        assert!(
            why.contains("unreadable") || why.contains("JetStream refuses"),
            "{raw:.20}: {why}"
        );
    }
    for (messages, first, last) in
        [(1_u64, 1_u64, u64::MAX), (0, 0, u64::MAX), (1, 0, 5), (1, 7, 5), (u64::MAX, u64::MAX, 1)]
    {
        let mut fake = Fake::new();
        fake.info["state"] = json!({ "messages": messages, "first_seq": first, "last_seq": last });
        let why = refusal(&config(&url(fake.start()))).await;
        assert!(why.contains("position"), "{messages} {first} {last}: {why}");
    }
}

/// SCENARIO: the stream is deleted, and a server creates it while JetStream deletes its files. BUG: of some 40 times, once
/// the new stream acknowledged every record and delivered none, until NATS was started again. FIX: it is asked again,
/// after a pause, before the stream is created.
#[tokio::test]
async fn a_stream_that_another_server_creates_meanwhile_is_not_created() {
    let fake = Fake::new();
    fake.deleted.store(1, Ordering::Relaxed);
    let config = config(&url(fake.clone().start()));
    assert_eq!(open(&config).await.expect("it is there").bounds.newest, 1);
    fake.deleted.store(2, Ordering::Relaxed);
    let why = refusal(&config).await;
    assert!(why.contains("no room"), "{why}");
}

#[tokio::test]
async fn acknowledgements_that_are_none_are_errors() {
    for acknowledgement in [
        "",
        "null",
        "{}",
        "{\"seq\":0}",
        "{\"seq\":-1}",
        "{\"seq\":18446744073709551615}",
        "{\"stream\":\"log\",\"seq\":1,\"duplicate\":true}",
        "{\"error\":{\"code\":503,\"description\":\"no\"},\"seq\":1}",
    ] {
        let fake = Fake { acknowledgement: acknowledgement.into(), ..Fake::new() };
        let opened = open(&config(&url(fake.start()))).await.expect("it looks right");
        let appended = opened.appender.append(record(1)).await;
        assert!(appended.is_err(), "{acknowledgement}: {appended:?}");
    }
}

/// SCENARIO: publishes wait for 100 ms at most (`--backplane-timeout`), and once JetStream takes longer for a record. BUG:
/// that closed the connection, since it was the bound of a request too. FIX: a request may take as long as a connect.
#[tokio::test]
async fn a_short_wait_of_publishes_is_no_bound_of_a_request() {
    let fake = Fake { delay: Duration::from_millis(300), ..Fake::new() };
    let mut config = config(&url(fake.start()));
    config.timeout = Duration::from_millis(100);
    let opened = open(&config).await.expect("it looks right");
    assert_eq!(opened.appender.append(record(1)).await.expect("stored"), 1);
}

/// SCENARIO: the broker takes messages of 64 MB, of which the log has none. BUG: a request was for 128 MB, and so much
/// could wait in memory. FIX: a request is as large only if a record does not come otherwise.
#[tokio::test]
async fn a_request_is_as_large_as_records_are() {
    let mut fake = Fake::new();
    fake.greeting = GREETING.replace("1048576", "67108864");
    fake.records = delivered("1", "1");
    let mut opened = open(&config(&url(fake.clone().start()))).await.expect("it looks right");
    assert_eq!(positions(&opened.reader.read(1).await.expect("read")), [1]);
    let requests = fake.requests.lock().expect("no panic").clone();
    assert!(requests[0]["max_bytes"].as_u64() <= Some(8 << 20), "{requests:?}");
}

/// Of a request that was made before, it says nothing about the last one.
#[tokio::test]
async fn a_late_word_about_another_request_ends_nothing() {
    let mut fake = Fake::new();
    let headers = "NATS/1.0 409 Message Size Exceeds MaxBytes\r\n\r\n";
    let late = format!("HMSG $INBOX7 $SID {0} {0}\r\n{headers}\r\n", headers.len());
    fake.records = late + &delivered("1", "1");
    let mut opened = open(&config(&url(fake.clone().start()))).await.expect("it looks right");
    assert_eq!(positions(&opened.reader.read(1).await.expect("read")), [1]);
    assert_eq!(fake.requests.lock().expect("no panic").len(), 1);
}

/// A record as a consumer delivers it.
fn delivered(position: &str, number: &str) -> String {
    format!("MSG log.log $SID $JS.ACK.log.c.1.{position}.{number}.5.0 2\r\n{{}}\r\n")
}

/// As a replica begins that lags: with its own end.
#[tokio::test]
async fn what_is_before_the_wanted_record_is_skipped() {
    let mut fake = Fake::new();
    fake.info["state"]["last_seq"] = 4.into();
    fake.records = delivered("2", "1") + &delivered("3", "2") + &delivered("4", "3");
    let mut opened = open(&config(&url(fake.start()))).await.expect("it looks right");
    let entries = opened.reader.read(4).await.expect("read");
    assert_eq!(positions(&entries), [4]);
}

/// Whatever is delivered, a read ends: with an error, or with records that follow each other.
#[tokio::test]
async fn nonsense_instead_of_records_ends_the_reader() {
    let status = |status: &str| {
        let headers = format!("NATS/1.0 {status}\r\n\r\n");
        format!("HMSG $INBOX $SID {0} {0}\r\n{headers}\r\n", headers.len())
    };
    for (records, expected) in [
        (delivered("18446744073709551615", "1"), "ends the reading"),
        (delivered("0", "1"), "ends the reading"),
        (delivered("1", "2"), "were lost"),
        (delivered("1", "1") + &delivered("2", "1"), "were lost"),
        ("MSG $INBOX $SID 0\r\n\r\n".into(), "ends the reading"),
        (status("409 Gone"), "Gone (409)"),
        // Before there was a record: it fits into no request.
        (status("409 Message Size Exceeds MaxBytes"), "Exceeds MaxBytes (409)"),
        (status("100 Idle Heartbeat\r\nNats-Last-Consumer: 5"), "were lost"),
        (status("abc"), "the connection to the broker was lost"),
        // The library panics.
        ("-ERR\r\n".into(), "the connection to the broker was lost"),
        (
            "MSG $INBOX $SID 18446744073709551615\r\n".into(),
            "the connection to the broker was lost",
        ),
    ] {
        let mut fake = Fake::new();
        fake.records.clone_from(&records);
        let mut opened = open(&config(&url(fake.start()))).await.expect("it looks right");
        let why = read_to_its_end(&mut opened.reader, 1).await;
        assert!(why.contains(expected), "{records:?}: {why}");
    }
    // More than was asked for.
    let mut fake = Fake::new();
    fake.records = status("100 Idle Heartbeat").repeat(1000);
    let mut nats = Nats::new(&config(&url(fake.start())));
    nats.messages_max = 4;
    let mut opened = nats.open().await.expect("it looks right");
    let why = read_to_its_end(&mut opened.reader, 1).await;
    assert!(why.contains("messages of the broker were dropped"), "{why}");
    // A start beyond all positions is none.
    let mut fake = Fake::new();
    fake.consumer["delivered"]["stream_seq"] = u64::MAX.into();
    let mut opened = open(&config(&url(fake.start()))).await.expect("it looks right");
    let read = opened.reader.read(1).await;
    assert!(read.as_ref().map_or(true, Vec::is_empty), "{read:?}");
}

//! Programs that speak as Redis does, and whose answers are wrong.

use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use tokio::task::JoinSet;

use super::super::super::broker::{Appender, Reader};
use super::super::meter::REPLY_BYTES_MAX;
use super::support::{BOUND, bulk, config, open, read_command, read_to_its_end, record, refusal};

/// A program with these answers.
#[derive(Clone)]
struct Fake {
    info: Vec<u8>,
    described: Vec<u8>,
    memory: Vec<u8>,
    read: Vec<u8>,
    added: Vec<u8>,
    /// What is sent again and again behind the answer to `XREAD`.
    endless: Option<Vec<u8>>,
    /// Before each answer.
    delay: std::time::Duration,
}

const INFO: &str = "redis_version:7.0.15\r\nrun_id:0123456789012345678901234567890123456789\r\n\
                    loading:0\r\nrole:master\r\n\
                    master_replid2:0000000000000000000000000000000000000000\r\n\
                    maxmemory_policy:noeviction\r\ncluster_enabled:0\r\n";

fn described(length: i64, last: &str, first: Option<&str>) -> Vec<u8> {
    let first = first.map_or_else(|| "*-1\r\n".into(), |id| format!("*2\r\n{}*0\r\n", bulk(id)));
    let fields = [
        bulk("length") + &format!(":{length}\r\n"),
        bulk("last-generated-id") + &bulk(last),
        bulk("first-entry") + &first,
    ];
    format!("*6\r\n{}", fields.concat()).into()
}

/// The answer to an `XREAD` with an entry.
fn entry(id: &str, fields: &str) -> Vec<u8> {
    format!("*1\r\n*2\r\n{}*1\r\n*2\r\n{}{fields}", bulk("log:log"), bulk(id)).into()
}

// ===== impl Fake =====

impl Fake {
    fn new() -> Self {
        Self {
            info: bulk(INFO).into(),
            described: described(1, "0-1", Some("0-1")),
            memory: b":100\r\n".into(),
            read: b"*-1\r\n".into(),
            added: bulk("0-2").into(),
            endless: None,
            delay: std::time::Duration::ZERO,
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
        let mut input = BufReader::new(socket.try_clone()?);
        while let Some(command) = read_command(&mut input)? {
            let answer = match command[0].as_str() {
                "INFO" => &self.info,
                "XINFO" => &self.described,
                "MEMORY" => &self.memory,
                "XREAD" => &self.read,
                "XADD" => &self.added,
                _ => panic!("{command:?}"),
            };
            thread::sleep(self.delay);
            socket.write_all(answer)?;
            if let Some(more) = self.endless.as_ref().filter(|_| command[0] == "XREAD") {
                loop {
                    socket.write_all(more)?;
                }
            }
        }
        Ok(())
    }
}

async fn refusal_of(fake: Fake) -> String {
    refusal(&config(&format!("redis://{}", fake.start()))).await
}

#[tokio::test]
async fn an_old_server_is_refused_and_valkey_is_not() {
    let with =
        |from: &str, to: &str| Fake { info: bulk(&INFO.replace(from, to)).into(), ..Fake::new() };
    let why = refusal_of(with("7.0.15", "6.2.14")).await;
    assert!(why.contains("its version is 6.2.14; the log needs Redis 7.0, or Valkey"), "{why}");
    let why = refusal_of(with("loading:0", "loading:1")).await;
    assert!(why.contains("it is loading its data"), "{why}");
    let valkey = with("7.0.15", "7.2.4\r\nvalkey_version:8.1.0");
    open(&config(&format!("redis://{}", valkey.start()))).await.expect("it looks right");
}

/// Whatever it is, it ends with a reason.
const NONSENSE: &[&str] = &[
    "",
    "\r\n",
    "+OK\r\n",
    ":1\r\n",
    "-\r\n",
    "-ERR no\r\n",
    "*0\r\n",
    "*2\r\n:1\r\n",
    "*-2\r\n",
    "$-2\r\n",
    "$99999999999999999999\r\n",
    "$1000000000\r\n",
    "*1000000000\r\n",
    "*9223372036854775807\r\n",
    "%9223372036854775807\r\n",
    "%-1\r\n",
    "~1000000000\r\n",
    ">3\r\n:1\r\n:2\r\n:3\r\n",
    "|1\r\n+a\r\n+b\r\n:1\r\n",
    "=5\r\nabc",
    "!-1\r\n",
    "=-1\r\nxx\r\n",
    "(99999999999\r\n",
    "_\r\n",
    "220 mail.example ESMTP\r\n",
    "HTTP/1.1 400 Bad Request\r\n\r\n",
    "\u{0}",
];

#[tokio::test]
async fn nonsense_instead_of_any_answer_is_refused() {
    let deep = "*1\r\n".repeat(100_000);
    // What waits for more is given up after some seconds.
    let mut refused = JoinSet::new();
    for answer in NONSENSE.iter().copied().chain([deep.as_str()]) {
        refused.spawn(is_refused(answer.to_owned()));
    }
    refused.join_all().await;
}

async fn is_refused(answer: String) {
    let nonsense = || answer.as_bytes().to_vec();
    let shown = &answer[..answer.len().min(40)];
    let why = refusal_of(Fake { info: nonsense(), ..Fake::new() }).await;
    assert!(!why.is_empty() && why.len() < 300, "INFO {shown:?}: {why}");
    let why = refusal_of(Fake { described: nonsense(), ..Fake::new() }).await;
    assert!(!why.is_empty() && why.len() < 300, "XINFO {shown:?}: {why}");

    let fake = Fake { read: nonsense(), added: nonsense(), ..Fake::new() };
    let config = config(&format!("redis://{}", fake.start()));
    let mut opened = open(&config).await.expect("it looks right");
    let appended = opened.appender.append(record(1)).await;
    assert!(appended.is_err(), "XADD {shown:?}: {appended:?}");
    // Nothing is what a silent log has, too.
    if !["_\r\n", "*-2\r\n", "$-2\r\n"].contains(&&*answer) {
        let why = read_to_its_end(&mut opened.reader, 1).await;
        assert!(!why.is_empty() && why.len() < 300, "XREAD {shown:?}: {why}");
    }
}

/// What an error means is said before what it is, which may be cut off where it is shown.
#[tokio::test]
async fn errors_are_put_in_words() {
    for (error, words) in [
        ("NOAUTH Authentication required.", "it asks for a login"),
        ("WRONGPASS invalid username-password pair", "it refuses the user or the password"),
        ("NOPERM this user has no permissions to run the 'xadd' command", "lacks a right (ACL)"),
        ("DENIED Redis is running in protected mode because", "for its own machine only"),
        ("LOADING Redis is loading the dataset in memory", "it is loading its data"),
        ("READONLY You can't write against a read only replica.", "it is a replica"),
        ("UNBLOCKED force unblock from blocking operation", "it has become a replica"),
        ("MASTERDOWN Link with MASTER is down", "it is a replica that has lost its primary"),
        ("NOREPLICAS Not enough good replicas to write.", "(min-replicas-to-write)"),
        ("MISCONF Redis is configured to save RDB snapshots", "it cannot write to its disk"),
        ("OOM command not allowed when used memory > 'maxmemory'.", "its memory is full"),
        ("BUSY Redis is busy running a script.", "a script keeps it busy"),
        ("WRONGTYPE Operation against a key", "the key of the log is no stream"),
        ("ERR something new", "Redis refuses XADD: ERR something new"),
    ] {
        let refusal = || format!("-{error}\r\n").into_bytes();
        let fake = Fake { added: refusal(), read: refusal(), ..Fake::new() };
        let mut opened =
            open(&config(&format!("redis://{}", fake.start()))).await.expect("it looks right");
        let why = opened.appender.append(record(1)).await.expect_err("refused").0;
        assert!(
            why.contains(words) && why.ends_with(&format!("Redis refuses XADD: {error}")),
            "{why}"
        );
        let why = read_to_its_end(&mut opened.reader, 1).await;
        assert!(why.ends_with(&format!("Redis refuses XREAD: {error}")), "{why}");
        let why = refusal_of(Fake { info: refusal(), ..Fake::new() }).await;
        assert!(why.ends_with(&format!("Redis refuses INFO: {error}")), "{why}");
    }
}

#[tokio::test]
async fn nonsense_about_the_stream_is_refused() {
    for (answer, expected) in [
        (described(1, "0-18446744073709551615", Some("0-1")), "no count of records"),
        (described(1, "0-9223372036854775808", Some("0-1")), "no count of records"),
        (described(1, "x", Some("0-1")), "no count of records"),
        (described(1, "5-1", Some("0-1")), "with an id of another form"),
        (described(2, "0-5", Some("5-1")), "with an id of another form"),
        (described(1, "0-5", Some("0-7")), "disagree"),
        (described(0, "0-5", Some("0-5")), "disagree"),
        (described(5, "0-5", None), "disagree"),
        (described(-1, "0-1", Some("0-1")), "unreadable"),
        (b"*1\r\n+length\r\n".to_vec(), "unreadable"),
    ] {
        let why = refusal_of(Fake { described: answer.clone(), ..Fake::new() }).await;
        assert!(why.contains(expected), "{}: {why}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test]
async fn acknowledgements_that_are_none_are_errors() {
    for answer in ["0-0", "0-18446744073709551615", "1-1", "", "x", "0", "-1"] {
        for added in [bulk(answer), format!("+{answer}\r\n")] {
            let fake = Fake { added: added.clone().into(), ..Fake::new() };
            let config = config(&format!("redis://{}", fake.start()));
            let opened = open(&config).await.expect("it looks right");
            let appended = opened.appender.append(record(1)).await;
            assert!(appended.is_err(), "{added}: {appended:?}");
        }
    }
}

#[tokio::test]
async fn nonsense_instead_of_entries_ends_the_reader() {
    for (read, expected) in [
        (entry("5-1", "*0\r\n"), "an id of another form"),
        (entry("0-0", "*0\r\n"), "no count of records"),
        (entry("0-18446744073709551615", "*0\r\n"), "no count of records"),
        (entry("0-1", ":5\r\n"), "unreadable"),
        (entry("0-1", "*-1\r\n"), "unreadable"),
        (b"*2\r\n+a\r\n+b\r\n".to_vec(), "unreadable"),
        (b"*1\r\n*2\r\n+a\r\n+b\r\n".to_vec(), "unreadable"),
        (b"*1\r\n*2\r\n+log:log\r\n*1\r\n:1\r\n".to_vec(), "unreadable"),
    ] {
        let fake = Fake { read: read.clone(), ..Fake::new() };
        let config = config(&format!("redis://{}", fake.start()));
        let mut opened = open(&config).await.expect("it looks right");
        let why = read_to_its_end(&mut opened.reader, 1).await;
        assert!(why.contains(expected), "{}: {why}", String::from_utf8_lossy(&read));
    }
    // Fields that are none are passed.
    for fields in [
        "*1\r\n+d\r\n",
        "*2\r\n:1\r\n:2\r\n",
        "*2\r\n$1\r\nd\r\n*0\r\n",
        "*2\r\n$1\r\n\u{1}\r\n$1\r\nx\r\n",
    ] {
        let fake = Fake { read: entry("0-1", fields), ..Fake::new() };
        let config = config(&format!("redis://{}", fake.start()));
        let mut opened = open(&config).await.expect("it looks right");
        assert_eq!(opened.reader.read(1).await.expect("an entry").len(), 1, "{fields}");
    }
}

/// SCENARIO: a reply announces a GiB, and sends it, or lines without an end, or values of three bytes, each of which takes
/// twenty times as much memory. BUG: the client library has no bound. FIX: the connection ends at 32 MiB, where a value
/// counts as what it takes, and at a line of 64 KiB.
#[tokio::test]
async fn a_reply_has_a_bound() {
    let small = "_\r\n".repeat(300_000);
    for (read, endless, expected) in [
        ("$1000000000\r\n", vec![b'x'; 1 << 16], "is larger than 32 MiB"),
        ("*1000000000\r\n", "$4\r\nabcd\r\n".repeat(10_000).into_bytes(), "is larger than 32 MiB"),
        (&*format!("*300001\r\n{small}"), Vec::new(), "or has too many fields"),
        ("+", vec![b'x'; 1 << 16], "a line of more than 64 KiB"),
    ] {
        let endless = Some(endless).filter(|endless| !endless.is_empty());
        let fake = Fake { read: read.into(), endless, ..Fake::new() };
        let mut config = config(&format!("redis://{}", fake.start()));
        config.timeout = BOUND;
        let mut opened = open(&config).await.expect("it looks right");
        opened.reader.ask_one_by_one();
        let why = read_to_its_end(&mut opened.reader, 1).await;
        assert!(why.contains(expected), "{read:.20}: {why}");
    }
}

/// SCENARIO: an entry of others is so large that even to describe the log takes too much. BUG: it was said that the connection
/// was lost, again and again. FIX: its cure is named.
#[tokio::test]
async fn a_log_that_cannot_be_described_is_named() {
    let described = [described(1, "0-1", Some("0-1")), vec![b'x'; 64]].concat();
    let text = String::from_utf8(described).expect("text");
    let huge = text.replacen("*0\r\n", &format!("*1\r\n${}\r\n", REPLY_BYTES_MAX), 1);
    let mut described = huge.into_bytes();
    described.resize(REPLY_BYTES_MAX + 1024, b'x');
    let why = refusal_of(Fake { described, ..Fake::new() }).await;
    assert!(why.contains("the first or the last entry in log:log is larger than 32 MiB"), "{why}");
    assert!(why.contains("DEL log:log: all clients re-read once"), "{why}");
}

/// SCENARIO: the broker is slow, and publishes are to be answered within half a second. BUG: so was each request to the
/// broker, and the log was never open. FIX: a request may take as long as a connection.
#[tokio::test]
async fn a_slow_answer_is_waited_for() {
    let slow = Fake { delay: std::time::Duration::from_millis(800), ..Fake::new() };
    let mut config = config(&format!("redis://{}", slow.start()));
    config.timeout = std::time::Duration::from_millis(500);
    let opened = open(&config).await.expect("it is only slow");
    assert_eq!(opened.appender.append(record(1)).await.expect("stored"), 2);
}

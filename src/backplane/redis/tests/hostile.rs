//! Programs that speak as Redis does, and whose answers are wrong.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use super::super::super::broker::{Appender, Reader};
use super::support::{BOUND, config, open, read_to_its_end, record, refusal};

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
}

const INFO: &str = "redis_version:7.0.15\r\nrun_id:1\r\nloading:0\r\nrole:master\r\n\
                    master_replid:0123456789012345678901234567890123456789\r\n\
                    maxmemory_policy:noeviction\r\ncluster_enabled:0\r\n";

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

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

fn read_command(input: &mut impl BufRead) -> io::Result<Option<Vec<String>>> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let count: usize = line.trim().trim_start_matches('*').parse().expect("a count");
    let mut parts = Vec::new();
    for _ in 0..count {
        line.clear();
        input.read_line(&mut line)?;
        let len: usize = line.trim().trim_start_matches('$').parse().expect("a length");
        let mut part = vec![0; len + 2];
        input.read_exact(&mut part)?;
        parts.push(String::from_utf8_lossy(&part[..len]).into_owned());
    }
    Ok(Some(parts))
}

async fn refusal_of(fake: Fake) -> String {
    let mut config = config(&format!("redis://{}", fake.start()));
    config.timeout = std::time::Duration::from_millis(500);
    refusal(&config).await
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
    for answer in NONSENSE.iter().copied().chain([deep.as_str()]) {
        let nonsense = || answer.as_bytes().to_vec();
        let shown = &answer[..answer.len().min(40)];
        let why = refusal_of(Fake { info: nonsense(), ..Fake::new() }).await;
        assert!(!why.is_empty() && why.len() < 300, "INFO {shown:?}: {why}");
        let why = refusal_of(Fake { described: nonsense(), ..Fake::new() }).await;
        assert!(!why.is_empty() && why.len() < 300, "XINFO {shown:?}: {why}");

        let fake = Fake { read: nonsense(), added: nonsense(), ..Fake::new() };
        let mut config = config(&format!("redis://{}", fake.start()));
        config.timeout = std::time::Duration::from_millis(300);
        let mut opened = open(&config).await.expect("it looks right");
        let appended = opened.appender.append(record(1)).await;
        assert!(appended.is_err(), "XADD {shown:?}: {appended:?}");
        // Nothing is what a silent log has, too.
        if !["_\r\n", "*-2\r\n", "$-2\r\n"].contains(&answer) {
            let why = read_to_its_end(&mut opened.reader, 1).await;
            assert!(!why.is_empty() && why.len() < 300, "XREAD {shown:?}: {why}");
        }
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

/// SCENARIO: a reply announces a GiB, and sends it, or lines without an end. BUG: the client library has no bound. FIX: the
/// connection ends at 32 MiB.
#[tokio::test]
async fn a_reply_has_a_bound() {
    for (read, endless) in [
        ("$1000000000\r\n", vec![b'x'; 1 << 16]),
        ("*1000000000\r\n", "$4\r\nabcd\r\n".repeat(10_000).into_bytes()),
        ("+", vec![b'x'; 1 << 16]),
    ] {
        let fake = Fake { read: read.into(), endless: Some(endless), ..Fake::new() };
        let mut config = config(&format!("redis://{}", fake.start()));
        config.timeout = BOUND;
        let mut opened = open(&config).await.expect("it looks right");
        let why = read_to_its_end(&mut opened.reader, 1).await;
        assert!(why.contains("is larger than 32 MiB"), "{read}: {why}");
    }
}

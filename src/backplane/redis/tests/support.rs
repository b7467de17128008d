//! Servers of Redis, as the tests of the program start them, and logs in them.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

pub(super) use super::super::super::servers::redis;
pub(super) use super::super::super::servers::redis::{RedisSentinels, RedisServer};
pub(super) use super::super::super::servers::{
    BOUND, certificate, eventually, port, programs, redis_client, temp_dir,
};
use super::super::Redis;
use super::super::appender::RedisAppender;
use super::super::reader::RedisReader;
use crate::backplane::broker::{
    Appender, Broker, Down, Entry, Kind, NotStored, Opened, Reader, Record,
};
use crate::config::BackplaneConfig;
use crate::sync::Mutex;

pub(crate) type Open = Opened<RedisReader, RedisAppender>;

/// Returns from a test where redis-server is not installed.
macro_rules! requires_redis {
    () => {
        if !$crate::backplane::redis::tests::support::is_installed() {
            return;
        }
    };
}
pub(super) use requires_redis;

pub(crate) fn is_installed() -> bool {
    programs::are_available(&[&programs::REDIS_SERVER])
}

pub(super) fn config(url: &str) -> BackplaneConfig {
    let mut config = BackplaneConfig::new(url.parse().expect("a URL"));
    config.log = "log".parse().expect("a name");
    config
}

pub(super) async fn open(config: &BackplaneConfig) -> Result<Open, Down> {
    Redis::new(config).open().await
}

/// Why it cannot be opened.
pub(super) async fn refusal(config: &BackplaneConfig) -> String {
    match open(config).await {
        Ok(opened) => panic!("opened: {:?}", opened.bounds),
        Err(Down(why)) => why,
    }
}

/// Opens it as soon as that is possible.
pub(super) async fn open_again(redis: &Redis) -> Open {
    let start = Instant::now();
    loop {
        match redis.open().await {
            Ok(opened) => return opened,
            Err(Down(why)) => assert!(start.elapsed() < BOUND, "{why}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) fn record(tag: u64) -> Record {
    Record { tag, kind: Kind::Lines, payload: format!("record {tag}").into() }
}

/// Appends records with these tags, one after the other. Returns the last position.
pub(super) async fn append(
    appender: &RedisAppender,
    tags: impl IntoIterator<Item = u64>,
) -> Result<u64, NotStored> {
    let mut position = 0;
    for tag in tags {
        position = appender.append(record(tag)).await?;
    }
    Ok(position)
}

/// Reads from a position until this many have come.
pub(super) async fn read(
    reader: &mut RedisReader,
    mut from: u64,
    count: usize,
) -> Result<Vec<Entry>, Down> {
    let (start, mut entries) = (Instant::now(), Vec::new());
    while entries.len() < count {
        assert!(start.elapsed() < BOUND, "only {} of {count}", entries.len());
        entries.extend(reader.read(from).await?);
        from = entries.last().map_or(from, |last: &Entry| last.position + 1);
    }
    Ok(entries)
}

/// Reads until there is an error, which has to come in time.
pub(super) async fn read_to_its_end(reader: &mut RedisReader, mut from: u64) -> String {
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < BOUND, "the reader goes on at {from}");
        match reader.read(from).await {
            Ok(entries) => from = entries.last().map_or(from, |last| last.position + 1),
            Err(Down(why)) => return why,
        }
    }
}

pub(super) fn positions(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.position).collect()
}

pub(super) fn tags(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.tag).collect()
}

/// The position of the newest record of the log.
pub(super) fn last_position(server: &RedisServer) -> u64 {
    let mut entries = server.client().run("XREVRANGE log:log + - COUNT 1").items();
    let id = entries.remove(0).items().remove(0);
    id.text().trim_start_matches("0-").parse().expect("a position")
}

/// A Sentinel that names whatever it is set to, and knows nothing else.
pub(super) struct FakeSentinel {
    pub(super) address: SocketAddr,
    names: Arc<Mutex<SocketAddr>>,
}

// ===== impl FakeSentinel =====

impl FakeSentinel {
    /// Listens until the test's process ends.
    pub(super) fn start(names: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        let names = Arc::new(Mutex::new(names));
        let answers = names.clone();
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let answers = answers.clone();
                thread::spawn(move || {
                    socket.set_read_timeout(Some(BOUND))?;
                    let mut socket = BufReader::new(socket);
                    while let Some(command) = read_command(&mut socket)? {
                        assert_eq!(command, ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"]);
                        let named = *answers.lock();
                        let (host, port) = (named.ip().to_string(), named.port().to_string());
                        let answer = format!("*2\r\n{}{}", bulk(&host), bulk(&port));
                        socket.get_mut().write_all(answer.as_bytes())?;
                    }
                    std::io::Result::Ok(())
                });
            }
        });
        Self { address, names }
    }

    pub(super) fn set(&self, names: SocketAddr) {
        *self.names.lock() = names;
    }

    pub(super) fn url(&self) -> String {
        format!("redis+sentinel://{}/main", self.address)
    }
}

/// A string with a length.
pub(super) fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

/// The next command of a client; none at the end of its connection.
pub(super) fn read_command(input: &mut impl BufRead) -> std::io::Result<Option<Vec<String>>> {
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

//! Servers of Redis, as the tests of the program start them, and logs in them.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;

pub(super) use super::super::super::servers::redis;
pub(super) use super::super::super::servers::redis::{RedisSentinels, RedisServer};
pub(super) use super::super::super::servers::{
    BOUND, certificate, eventually, port, programs, redis_client, temp_dir,
};
use super::super::Redis;
use super::super::appender::RedisAppender;
use super::super::reader::RedisReader;
use crate::backplane::any_log;
pub(super) use crate::backplane::any_log::{
    append, config, open_again, positions, read, read_and_give_up, read_to_its_end, record, tags,
};
use crate::backplane::broker::{Broker, Down, Opened};
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

pub(super) async fn open(config: &BackplaneConfig) -> Result<Open, Down> {
    Redis::new(config).open().await
}

/// Why it cannot be opened.
pub(super) async fn refusal(config: &BackplaneConfig) -> String {
    any_log::refusal(Redis::new(config)).await
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

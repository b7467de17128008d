//! What a server says of itself, and what of that breaks the log's promises.

use redis::{Value, cmd};

use super::connection::Connection;
use crate::backplane::broker::Down;
use crate::config::BackplaneConfig;

/// The answer to `INFO`.
#[derive(Debug)]
pub(super) struct Info(String);

/// The first version with ids that count (`XADD key 0-*`).
const VERSION_MIN: u32 = 7;

// ===== impl Info =====

impl Info {
    pub(super) async fn of(
        connection: &Connection,
        config: &BackplaneConfig,
    ) -> Result<Self, Down> {
        let answer = connection.request(&cmd("INFO"), config.timeout).await;
        match answer.map_err(|why| why.down("INFO"))? {
            Value::BulkString(text) => Ok(Self(String::from_utf8_lossy(&text).into_owned())),
            _ => Err(Down("Redis gives an unreadable answer to INFO".into())),
        }
    }

    /// # Errors
    /// Why this server cannot have the log, in words.
    pub(super) fn check(&self) -> Result<(), String> {
        let version = self.text("redis_version");
        let is_new = version.split('.').next().and_then(|major| major.parse().ok());
        let is_new = is_new.is_some_and(|major: u32| major >= VERSION_MIN);
        if !is_new && self.field("valkey_version").is_none() {
            return Err(format!(
                "its version is {version:.20}; the log needs Redis 7.0, or Valkey"
            ));
        }
        if self.text("redis_mode") == "sentinel" {
            return Err("it is a Sentinel, which redis+sentinel:// is for".into());
        }
        if self.text("loading") != "0" {
            return Err("it is loading its data".into());
        }
        if self.text("cluster_enabled") != "0" {
            return Err(
                "it is part of a Redis Cluster (cluster-enabled), whose failovers the log \
                        does not survive: take a server of its own, with Sentinels if need be"
                    .into(),
            );
        }
        if self.text("role") != "master" {
            let (host, port) = (self.text("master_host"), self.text("master_port"));
            return Err(format!("it is a replica; its primary is {host:.64}:{port:.5}"));
        }
        match self.text("maxmemory_policy") {
            "noeviction" => {}
            policy => {
                return Err(format!(
                    "its maxmemory-policy is {policy:.20}, with which it deletes the log when memory is short: \
                     CONFIG SET maxmemory-policy noeviction"
                ));
            }
        }
        if self.identity().is_none() {
            return Err("it has no master_replid".into());
        }
        Ok(())
    }

    /// Changes with each start of a server, and with each failover.
    pub(super) fn identity(&self) -> Option<String> {
        let id = self.field("master_replid")?;
        let is_id = id.len() == 40 && id.bytes().all(|b| b.is_ascii_hexdigit());
        is_id.then(|| format!("redis {id}"))
    }

    /// The run of the server.
    pub(super) fn run(&self) -> Option<&str> {
        self.field("run_id")
    }

    /// Bytes that it may have in use; 0 if there is no bound.
    pub(super) fn memory_max(&self) -> usize {
        self.text("maxmemory").parse().unwrap_or(0)
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    fn text(&self, name: &str) -> &str {
        self.field(name).unwrap_or("unknown")
    }
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    const GOOD: &str = "# Server\r\nredis_version:7.0.15\r\nloading:0\r\nrole:master\r\n\
                        master_replid:0123456789012345678901234567890123456789\r\n\
                        maxmemory_policy:noeviction\r\ncluster_enabled:0\r\n";

    #[test]
    fn a_server_that_breaks_promises_is_refused() {
        let check = |from: &str, to: &str| Info(GOOD.replace(from, to)).check();
        assert_eq!(check("x-no", ""), Ok(()));
        assert_eq!(check("7.0.15", "7.2.4\r\nvalkey_version:8.0.1"), Ok(()));
        for (from, to, why) in [
            ("7.0.15", "6.2.7", "its version is 6.2.7"),
            ("7.0.15", "x", "its version is x"),
            ("redis_version", "other", "its version is unknown"),
            ("loading:0", "loading:1", "loading"),
            ("role:master", "role:slave\r\nmaster_host:h\r\nmaster_port:1", "its primary is h:1"),
            ("noeviction", "allkeys-lru", "maxmemory-policy is allkeys-lru"),
            ("maxmemory_policy", "other", "maxmemory-policy is unknown"),
            ("cluster_enabled:0", "cluster_enabled:1", "Redis Cluster"),
            ("replid:0", "replid:x", "master_replid"),
        ] {
            let refused = check(from, to).expect_err(to);
            assert!(refused.contains(why), "{to}: {refused}");
        }
    }
}

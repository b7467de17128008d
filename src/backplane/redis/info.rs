//! What a server says of itself, and what of that breaks the log's promises.

use redis::{Value, cmd};

use super::connection::{CONNECT_MAX, Connection};
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
        let bound = config.timeout.max(CONNECT_MAX);
        let answer = connection.request(&cmd("INFO"), bound).await;
        match answer.map_err(|why| why.down("INFO"))? {
            Value::BulkString(text) => Ok(Self::parse(&String::from_utf8_lossy(&text))),
            _ => Err(Down("Redis gives an unreadable answer to INFO".into())),
        }
    }

    pub(super) fn parse(text: &str) -> Self {
        Self(text.into())
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
        // Valkey has another name for it.
        if [self.field("redis_mode"), self.field("server_mode")].contains(&Some("sentinel")) {
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
            return Err("it names neither its run nor its history (run_id, master_replid2)".into());
        }
        Ok(())
    }

    /// Changes with each start of a server, with each failover, and whenever a server has been a replica: then it has the
    /// history of the server that it copied (`master_replid2`), up to an offset. `master_replid` changes more often: also
    /// when the first replica is attached, and an hour after the last one has left.
    pub(super) fn identity(&self) -> Option<String> {
        let is_id = |id: &&str| id.len() == 40 && id.bytes().all(|b| b.is_ascii_hexdigit());
        let run = self.run().filter(is_id)?;
        let copied = self.field("master_replid2").filter(is_id)?;
        if copied.bytes().all(|b| b == b'0') {
            return Some(format!("redis {run}"));
        }
        let offset: u64 = self.field("second_repl_offset")?.parse().ok()?;
        Some(format!("redis {run} {copied:.16} {offset}"))
    }

    /// The run of the server.
    pub(super) fn run(&self) -> Option<&str> {
        self.field("run_id")
    }

    /// Whether it stores each command in a file.
    pub(super) fn has_file(&self) -> bool {
        self.text("aof_enabled") == "1"
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
                        run_id:0123456789012345678901234567890123456789\r\n\
                        master_replid2:0000000000000000000000000000000000000000\r\nsecond_repl_offset:-1\r\n\
                        maxmemory_policy:noeviction\r\ncluster_enabled:0\r\n";

    #[test]
    fn a_server_that_breaks_promises_is_refused() {
        let check = |from: &str, to: &str| Info(GOOD.replace(from, to)).check();
        assert_eq!(check("x-no", ""), Ok(()));
        assert_eq!(check("7.0.15", "7.2.4\r\nvalkey_version:8.0.1"), Ok(()));
        for (from, to, why) in [
            ("role:", "redis_mode:sentinel\r\nrole:", "it is a Sentinel"),
            ("7.0.15", "6.2.7", "its version is 6.2.7"),
            ("7.0.15", "x", "its version is x"),
            ("redis_version", "other", "its version is unknown"),
            ("loading:0", "loading:1", "loading"),
            ("role:master", "role:slave\r\nmaster_host:h\r\nmaster_port:1", "its primary is h:1"),
            ("noeviction", "allkeys-lru", "maxmemory-policy is allkeys-lru"),
            ("maxmemory_policy", "other", "maxmemory-policy is unknown"),
            ("cluster_enabled:0", "cluster_enabled:1", "Redis Cluster"),
            ("run_id:0", "run_id:x", "run_id"),
            ("replid2:0", "replid2:x", "master_replid2"),
            ("replid2:0", "replid2:1", "master_replid2"),
        ] {
            let refused = check(from, to).expect_err(to);
            assert!(refused.contains(why), "{to}: {refused}");
        }
    }

    /// What Valkey 8 writes (`genValkeyInfoString` in its `server.c`), but for fields that are not looked at.
    const VALKEY: &str = "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\n\
                          redis_git_sha1:00000000\r\nredis_git_dirty:0\r\nserver_mode:standalone\r\n\
                          run_id:0123456789012345678901234567890123456789\r\ntcp_port:6379\r\n\r\n\
                          # Memory\r\nmaxmemory:0\r\nmaxmemory_human:0B\r\nmaxmemory_policy:noeviction\r\n\r\n\
                          # Persistence\r\nloading:0\r\nasync_loading:0\r\naof_enabled:1\r\n\r\n\
                          # Replication\r\nrole:master\r\nconnected_slaves:0\r\n\
                          replicas_waiting_psync:0\r\nmaster_failover_state:no-failover\r\n\
                          master_replid:8b8d4b3e1f8b8d4b3e1f8b8d4b3e1f8b8d4b3e1f\r\n\
                          master_replid2:0000000000000000000000000000000000000000\r\n\
                          master_repl_offset:0\r\nsecond_repl_offset:-1\r\n\r\n\
                          # Cluster\r\ncluster_enabled:0\r\n";

    #[test]
    fn valkey_is_as_good() {
        let check = |from: &str, to: &str| Info(VALKEY.replace(from, to)).check();
        assert_eq!(check("x-no", ""), Ok(()));
        assert_eq!(Info(VALKEY.into()).memory_max(), 0);
        assert!(Info(VALKEY.into()).has_file());
        // A later one may say anything about Redis.
        assert_eq!(check("redis_version:7.2.4", "redis_version:6.0.0"), Ok(()));
        let why = check("server_mode:standalone", "server_mode:sentinel").expect_err("no log");
        assert!(why.contains("it is a Sentinel, which redis+sentinel:// is for"), "{why}");
    }

    #[test]
    fn an_identity_changes_with_the_run_and_with_what_was_copied() {
        let identity = |changes: &[(&str, &str)]| {
            let change = |text: String, (from, to): &(&str, &str)| text.replace(from, to);
            Info(changes.iter().fold(GOOD.into(), change)).identity().expect("one")
        };
        let copied = ("replid2:0", "replid2:1");
        let all = [
            identity(&[]),
            identity(&[("run_id:0", "run_id:1")]),
            identity(&[copied, ("offset:-1", "offset:7")]),
            identity(&[copied, ("offset:-1", "offset:8")]),
            identity(&[("replid2:0", "replid2:2"), ("offset:-1", "offset:8")]),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(one.starts_with("redis ") && !all[..index].contains(one), "{all:?}");
        }
        // Its own history may have another name.
        assert_eq!(identity(&[("role", "master_replid:1\r\nrole")]), all[0]);
    }
}

//! What tests of shared logs rely on: the servers of Redis that they start, and what those keep.

use crate::support::eventually;
use crate::support::programs::{REDIS_SERVER, requires};
use crate::support::redis::{APPEND_ONLY, RedisSentinels, RedisServer};
use crate::support::redis_client::{RedisClient, Reply};

#[test]
fn a_server_keeps_what_it_acknowledged_if_it_has_a_file() {
    requires!(REDIS_SERVER);
    for (settings, kept) in [(APPEND_ONLY, 100), ("", 0)] {
        let mut server = RedisServer::start_with(settings);
        let mut client = server.client();
        for position in 1..=100 {
            assert_eq!(client.append("log", "0-*", &["d", "{}"]), format!("0-{position}"));
        }
        server.kill();
        server.start_again();
        server.pause();
        server.go_on();
        assert_eq!(server.client().run("XLEN log:log"), Reply::Int(kept));
    }
}

#[test]
fn a_server_asks_for_a_login() {
    requires!(REDIS_SERVER);
    let server = RedisServer::start_with_password("secret");
    assert!(server.url().contains("default:secret@"), "{}", server.url());
    server.client().run("FLUSHALL");
    for login in [None, Some("default:wrong")] {
        let client = RedisClient::connect(server.address(), login);
        assert!(client.and_then(|mut client| client.request(&["DBSIZE"])).is_err(), "{login:?}");
    }
}

#[test]
fn sentinels_promote_a_replica_when_its_primary_is_killed() {
    requires!(REDIS_SERVER);
    let mut group = RedisSentinels::start();
    group.servers[0].client().append("log", "0-*", &["d", "{}"]);
    group.servers[1].wait_until_equal(&group.servers[0]);
    assert_eq!(group.primary_of(0), Some(0));
    group.kill_primary();
    eventually("all Sentinels name the other", || {
        (0..3).all(|sentinel| group.primary_of(sentinel) == Some(1))
    });
    assert_eq!(group.servers[1].client().append("log", "0-*", &["d", "{}"]), "0-2");
}

//! What tests of shared logs rely on: the servers of NATS that they start, and what those keep.

use serde_json::json;

use crate::support::nats::{NatsCluster, NatsServer};
use crate::support::programs::{NATS_SERVER, requires};
use crate::support::{NatsClient, eventually};

#[test]
fn a_server_keeps_what_it_acknowledged_when_it_is_killed() {
    requires!(NATS_SERVER);
    let mut server = NatsServer::start();
    let mut client = server.client();
    create(&mut client, "log", 1);
    for position in 1..=100 {
        assert_eq!(client.append("log", "", b"{}"), position);
    }
    server.kill();
    server.start_again();
    let mut client = server.client();
    assert_eq!(client.stream_info("log")["state"]["last_seq"], 100);
    server.pause();
    server.go_on();
    assert_eq!(server.client().append("log", "Nudged: 1 lines 0000000000000001\r\n", b"{}"), 101);
    client.api("STREAM.MSG.DELETE.log", &json!({ "seq": 50 }));
    assert_eq!(client.stream_info("log")["state"]["messages"], 100);
}

#[test]
fn servers_ask_for_a_login() {
    requires!(NATS_SERVER);
    for server in
        [NatsServer::start_with_password("me", "secret"), NatsServer::start_with_token("secret")]
    {
        create(&mut server.client(), "log", 1);
        assert!(server.url().contains("secret@"), "{}", server.url());
        let why = NatsClient::connect(server.address(), Some("wrong")).err().expect("refused");
        assert!(why.to_string().contains("Authorization Violation"), "{why}");
    }
}

#[test]
fn a_cluster_keeps_what_it_acknowledged_when_its_leader_is_killed() {
    requires!(NATS_SERVER);
    let mut cluster = NatsCluster::start();
    create(&mut cluster.servers[0].client(), "log", 3);
    assert_eq!(cluster.servers[1].client().append("log", "", b"{}"), 1);
    let leader = cluster.leader_of("log").expect("elected");
    cluster.servers[leader].kill();
    eventually("another leads", || cluster.leader_of("log").is_some_and(|new| new != leader));
    // Its server responds 503 until it has learned of the new leader; nothing is stored then.
    let mut client = cluster.servers[(leader + 1) % 3].client();
    let mut stored = None;
    eventually("the new leader can be reached", || {
        stored = client.request("log.log", b"{}").ok();
        stored.is_some()
    });
    let stored = stored.expect("stored");
    assert!(stored.contains(r#""seq":2"#), "{stored}");
    cluster.servers[leader].start_again();
    assert_eq!(cluster.servers[leader].client().append("log", "", b"{}"), 3);
}

fn create(client: &mut NatsClient, log: &str, replicas: u8) {
    let config = json!({
        "name": log, "subjects": [format!("{log}.log")], "retention": "limits", "storage": "file",
        "num_replicas": replicas, "max_consumers": -1, "max_msgs": -1, "max_bytes": -1,
    });
    client.api(&format!("STREAM.CREATE.{log}"), &config);
}

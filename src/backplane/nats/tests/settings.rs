//! Streams that are as they would be created, those that differ, and those that cannot be trusted.

use serde_json::{Value, json};

use super::super::super::broker::Appender;
use super::support::{
    NatsCluster, NatsServer, append, config, open, record, refusal, requires_nats,
};

#[tokio::test]
async fn a_stream_is_created_once() {
    requires_nats!();
    let server = NatsServer::start();
    let opened = open(&config(&server.url())).await.expect("created");
    assert_eq!((opened.bounds.oldest, opened.bounds.newest), (1, 0));
    let info = server.client().stream_info("log");
    let wanted = json!({
        "name": "log", "subjects": ["log.log"], "retention": "limits", "discard": "old", "storage": "file",
        "num_replicas": 1, "max_bytes": 256 * 1024 * 1024, "max_msg_size": 512 * 1024, "max_age": 0,
        "max_msgs": -1, "max_msgs_per_subject": -1, "max_consumers": -1, "deny_delete": true, "deny_purge": true,
    });
    for (name, value) in wanted.as_object().expect("an object") {
        assert_eq!(info["config"][name], *value, "{name}");
    }
    let again = open(&config(&server.url())).await.expect("found");
    assert_eq!(again.bounds, opened.bounds);
    assert_eq!(server.client().stream_info("log")["created"], info["created"]);
}

#[tokio::test]
async fn a_stream_that_breaks_promises_is_refused() {
    requires_nats!();
    let server = NatsServer::start();
    let config = config(&server.url());
    drop(open(&config).await.expect("created"));
    let mut client = server.client();
    client.api("STREAM.CREATE.other", &json!({ "name": "other", "subjects": ["other"] }));
    for (change, why) in [
        (json!({ "subjects": ["log.log", "more"] }), "subjects"),
        (json!({ "subjects": ["log.*"] }), "subjects"),
        (json!({ "subjects": [], "mirror": { "name": "other" } }), "subjects"),
        (json!({ "sources": [{ "name": "other" }] }), "copies"),
        (json!({ "retention": "interest" }), "retention"),
        (json!({ "retention": "workqueue" }), "retention"),
        (json!({ "discard": "new" }), "discard"),
        (json!({ "max_age": 3_600_000_000_000_u64, "duplicate_window": 0 }), "max_age"),
        (json!({ "max_msgs_per_subject": 100 }), "max_msgs_per_subject"),
        (json!({ "deny_delete": false }), "deny_delete"),
        (json!({ "deny_purge": false }), "deny_purge"),
        (json!({ "no_ack": true }), "no_ack"),
        (json!({ "max_msg_size": 100_000 }), "max_msg_size"),
    ] {
        client.recreate("log", |config| merge(config, &change));
        let refused = refusal(&config).await;
        assert!(refused.contains("stream log cannot be the log"), "{change}: {refused}");
        assert!(refused.contains(why), "{change}: {refused}");
        // Back to what it was.
        client.delete("log");
        drop(open(&config).await.expect("created"));
    }
}

#[tokio::test]
async fn a_harmless_difference_is_none() {
    requires_nats!();
    let server = NatsServer::start();
    let config = config(&server.url());
    drop(open(&config).await.expect("created"));
    for change in [
        json!({ "max_bytes": -1 }),
        json!({ "max_bytes": 1_000_000 }),
        json!({ "max_msg_size": -1 }),
        json!({ "max_msgs": 1000 }),
        json!({ "max_consumers": 10 }),
        json!({ "description": "ours", "allow_direct": true }),
        json!({ "republish": { "src": "log.log", "dest": "copies" } }),
        json!({ "storage": "memory" }),
    ] {
        server.client().recreate("log", |config| merge(config, &change));
        let opened = open(&config).await.unwrap_or_else(|why| panic!("{change}: {why}"));
        assert_eq!(append(&opened.appender, [1]).await.expect("stored"), 1, "{change}");
    }
    // In memory it forgets at each start, which changes the identity, but not that of a disk that is trusted.
    let mut trusting = config.clone();
    trusting.trust_disk = true;
    let why = refusal(&trusting).await;
    assert!(why.contains("not on disk"), "{why}");
}

/// Has the stream take what is no record.
fn add_a_subject(server: &NatsServer) {
    let mut client = server.client();
    let mut config = client.stream_info("log")["config"].take();
    config["subjects"] = json!(["log.log", "more"]);
    client.api("STREAM.UPDATE.log", &config);
}

#[tokio::test]
async fn a_stream_that_changes_meanwhile_is_refused() {
    requires_nats!();
    let server = NatsServer::start();
    let mut opened = open(&config(&server.url())).await.expect("created");
    add_a_subject(&server);
    let why = super::support::read_to_its_end(&mut opened.reader, 1).await;
    assert!(why.contains("subjects"), "{why}");
}

/// SCENARIO: the settings of the stream are changed while there are records, at least the beats of some servers. BUG: they
/// were looked at only after two heartbeats of JetStream in a row, so hardly ever. FIX: they are looked at every 5 s.
#[tokio::test]
async fn a_stream_that_changes_among_records_is_refused() {
    requires_nats!();
    let server = NatsServer::start();
    let mut opened = open(&config(&server.url())).await.expect("created");
    add_a_subject(&server);
    let appender = opened.appender.clone();
    let mut appending = tokio::task::JoinSet::new();
    appending.spawn(async move {
        while append(&appender, [1]).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    });
    let why = super::support::read_to_its_end(&mut opened.reader, 1).await;
    assert!(why.contains("subjects"), "{why}");
}

#[tokio::test]
async fn a_record_is_as_large_as_it_may_be() {
    requires_nats!();
    let server = NatsServer::start();
    let opened = open(&config(&server.url())).await.expect("created");
    let max = opened.bounds.payload_max;
    assert!(max >= 512 * 1024 - 256, "{max}");
    let mut large = record(1);
    large.payload = vec![b'x'; max].into();
    assert_eq!(opened.appender.append(large.clone()).await.expect("stored"), 1);
    large.payload = vec![b'x'; max + 256].into();
    let why = opened.appender.append(large).await.expect_err("too large");
    assert!(why.0.contains("message size exceeds maximum allowed"), "{why}");

    let server = NatsServer::start_with("max_payload: 10000");
    let opened = open(&config(&server.url())).await.expect("created");
    assert_eq!(opened.bounds.payload_max, 10_000 - 256);
    let mut large = record(1);
    large.payload = vec![b'x'; 10_000 - 256].into();
    assert_eq!(opened.appender.append(large.clone()).await.expect("stored"), 1);
    large.payload = vec![b'x'; 10_000].into();
    let why = opened.appender.append(large).await.expect_err("too large");
    assert!(why.0.contains("max payload size exceeded"), "{why}");
    assert_eq!(opened.appender.append(record(2)).await.expect("stored"), 2);

    let server = NatsServer::start_with("max_payload: 4000");
    let why = refusal(&config(&server.url())).await;
    assert!(why.contains("max_payload"), "{why}");
}

#[tokio::test]
async fn one_replica_in_a_cluster_needs_a_disk_that_is_trusted() {
    requires_nats!();
    let cluster = NatsCluster::start();
    let mut config = config(&cluster.url());
    let why = refusal(&config).await;
    assert!(why.contains("--backplane-trust-disk"), "{why}");
    config.trust_disk = true;
    let opened = open(&config).await.expect("trusted");
    assert!(opened.bounds.identity.starts_with("stream "), "{:?}", opened.bounds);
}

#[tokio::test]
async fn a_stream_that_cannot_be_created_says_why() {
    requires_nats!();
    let server = NatsServer::start();
    let mut config = config(&server.url());
    config.replicas = 3;
    let why = refusal(&config).await;
    assert!(why.contains("JetStream refuses to create stream log: replicas > 1"), "{why}");
    config.replicas = 1;
    config.tail_bytes = 2 << 30;
    let why = refusal(&config).await;
    assert!(why.contains("insufficient storage"), "{why}");
}

fn merge(config: &mut Value, change: &Value) {
    for (name, value) in change.as_object().expect("an object") {
        config[name] = value.clone();
    }
}

//! Records by programs that are no nudged.

use super::super::super::broker::{Broker, Kind, VERSION};
use super::super::Nats;
use super::support::{
    NatsServer, append, config, open, open_again, positions, read, read_to_its_end, requires_nats,
    tags,
};

#[tokio::test]
async fn a_record_without_our_header_has_the_time_for_its_tag() {
    requires_nats!();
    let server = NatsServer::start();
    let config = config(&server.url());
    let mut opened = open(&config).await.expect("created");
    let mut client = server.client();
    for payload in [b"{}".as_slice(), b"", b"\x00\xff\r\n", &[b'x'; 500_000]] {
        client.append("log", "", payload);
    }
    client.append("log", "Other: 1\r\n", b"{}");
    let entries = read(&mut opened.reader, 1, 5).await.expect("read");
    for entry in &entries {
        assert_eq!((entry.version, entry.kind), (VERSION, Some(Kind::Lines)));
        assert_ne!(entry.tag, 0);
    }
    assert!(tags(&entries).is_sorted(), "{:?}", tags(&entries));
    assert_eq!(&entries[2].payload[..], b"\x00\xff\r\n");
    let mut other = open(&config).await.expect("found");
    assert_eq!(read(&mut other.reader, 1, 5).await.expect("read"), entries);
}

#[tokio::test]
async fn a_header_of_another_version_keeps_its_version() {
    requires_nats!();
    let server = NatsServer::start();
    let mut opened = open(&config(&server.url())).await.expect("created");
    let mut client = server.client();
    let headers = [
        "Nudged: 1 lines 000000000000000a\r\n",
        "Nudged: 2 lines 000000000000000b more\r\n",
        "Nudged: 1 dance 000000000000000c\r\n",
        "Nudged: garbage\r\n",
        "Nudged:\r\n",
        "Nudged: 1 lines 000000000000000d\r\nNudged: 9 beat\r\n",
    ];
    headers.iter().for_each(|headers| _ = client.append("log", headers, b"{}"));
    let entries = read(&mut opened.reader, 1, headers.len()).await.expect("read");
    let versions: Vec<_> = entries.iter().map(|entry| entry.version).collect();
    assert_eq!(versions, [1, 2, 1, 0, 0, 1]);
    assert_eq!(tags(&entries)[..3], [10, 11, 12]);
    assert_eq!(entries[2].kind, None);
}

/// SCENARIO: another program publishes a record with headers that the client library cannot parse. BUG: the library
/// closes the connection, after each opening anew: no server reads on. FIX: the record at which a connection was lost is
/// looked at by itself, and passed if it is such a one.
#[tokio::test]
async fn headers_that_cannot_be_parsed_are_passed() {
    requires_nats!();
    let server = NatsServer::start();
    let nats = Nats::new(&config(&server.url()));
    let mut opened = nats.open().await.expect("created");
    let mut client = server.client();
    append(&opened.appender, 1..=3).await.expect("stored");
    client.append("log", "no colon\r\n", b"{}");
    append(&opened.appender, 5..=6).await.expect("stored");
    client.append_status("log", "abc");
    append(&opened.appender, 8..=9).await.expect("stored");

    assert_eq!(positions(&read(&mut opened.reader, 1, 3).await.expect("read")), [1, 2, 3]);
    read_to_its_end(&mut opened.reader, 4).await;
    // From its head, as the follower reads.
    let mut opened = open_again(&nats).await;
    let entries = read(&mut opened.reader, 3, 7).await.expect("read");
    assert_eq!(positions(&entries), [3, 4, 5, 6, 7, 8, 9]);
    assert_eq!((entries[1].version, entries[1].kind), (VERSION, None));
    assert_eq!((entries[4].version, entries[4].kind), (VERSION, None));
    assert_eq!(tags(&entries)[5..], [8, 9]);

    // The tag is the same for another server.
    let nats = Nats::new(&config(&server.url()));
    let mut opened = nats.open().await.expect("found");
    read_to_its_end(&mut opened.reader, 1).await;
    let mut opened = open_again(&nats).await;
    assert_eq!(read(&mut opened.reader, 3, 4).await.expect("read")[1].tag, entries[1].tag);
}

/// SCENARIO: a program publishes many such records, among others. BUG: each cost a connection, and with the pauses
/// between them twenty kept every server from following the log for more than a minute. FIX: what follows such a record
/// is looked at too.
#[tokio::test]
async fn many_headers_that_cannot_be_parsed_cost_one_connection() {
    requires_nats!();
    let server = NatsServer::start();
    let nats = Nats::new(&config(&server.url()));
    let mut opened = nats.open().await.expect("created");
    let mut client = server.client();
    append(&opened.appender, [1]).await.expect("stored");
    for n in 0..40 {
        client.append("log", "no colon\r\n", b"{}");
        if n >= 20 {
            append(&opened.appender, [100 + n]).await.expect("stored");
        }
    }
    read_to_its_end(&mut opened.reader, 1).await;
    let mut opened = open_again(&nats).await;
    let entries = read(&mut opened.reader, 1, 61).await.expect("read");
    assert_eq!(positions(&entries), (1..=61).collect::<Vec<_>>());
    assert_eq!(entries.iter().filter(|entry| entry.kind.is_none()).count(), 40);
}

/// A record whose headers look like those of a heartbeat is a record all the same.
#[tokio::test]
async fn a_status_makes_no_heartbeat_of_a_record() {
    requires_nats!();
    let server = NatsServer::start();
    let mut opened = open(&config(&server.url())).await.expect("created");
    let mut client = server.client();
    client.append_status("log", "100 Idle Heartbeat");
    client.append_status("log", "503");
    append(&opened.appender, [3]).await.expect("stored");
    assert_eq!(positions(&read(&mut opened.reader, 1, 3).await.expect("read")), [1, 2, 3]);
}

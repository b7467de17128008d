//! Brokers that die, stand still, lose what they had, and come back.

use serde_json::json;

use super::super::super::broker::{Appender, Broker, Reader};
use super::super::Nats;
use super::support::{
    NatsServer, append, config, open_again, read, read_to_its_end, record, requires_nats, tags,
};

#[tokio::test]
async fn a_broker_that_is_killed_has_what_it_acknowledged() {
    requires_nats!();
    let mut server = NatsServer::start();
    let config = config(&server.url());
    let mut trusting = config.clone();
    trusting.trust_disk = true;
    let (nats, trusting) = (Nats::new(&config), Nats::new(&trusting));
    let mut opened = nats.open().await.expect("created");
    let trusted = trusting.open().await.expect("found").bounds.identity;
    append(&opened.appender, 1..=200).await.expect("stored");
    assert_eq!(read(&mut opened.reader, 1, 200).await.expect("read").len(), 200);
    server.kill();
    let why = read_to_its_end(&mut opened.reader, 201).await;
    assert!(why.contains("the connection to the broker was lost"), "{why}");
    assert!(opened.appender.append(record(201)).await.is_err());
    server.start_again();
    // What was opened before stays of no use: the library does not recover behind our back.
    for _ in 0..3 {
        let why = opened.appender.append(record(202)).await.expect_err("closed");
        assert!(why.0.contains("the connection to the broker was lost"), "{why}");
        assert!(opened.reader.bounds().await.is_err());
        assert!(opened.reader.read(201).await.is_err());
    }
    let mut again = open_again(&nats).await;
    assert_eq!((again.bounds.oldest, again.bounds.newest), (1, 200));
    assert_ne!(again.bounds.identity, opened.bounds.identity, "it may have forgotten");
    assert_eq!(open_again(&trusting).await.bounds.identity, trusted, "its disk is trusted");
    assert_eq!(tags(&read(&mut again.reader, 200, 1).await.expect("read")), [200]);
    assert_eq!(append(&again.appender, [300]).await.expect("stored"), 201);
}

#[tokio::test]
async fn a_broker_that_stands_still_is_left() {
    requires_nats!();
    let server = NatsServer::start();
    let mut config = config(&server.url());
    config.timeout = std::time::Duration::from_secs(1);
    let nats = Nats::new(&config);
    let mut opened = nats.open().await.expect("created");
    append(&opened.appender, [1]).await.expect("stored");
    assert_eq!(read(&mut opened.reader, 1, 1).await.expect("read").len(), 1);
    server.pause();
    let why = opened.appender.append(record(2)).await.expect_err("no answer");
    assert!(why.0.contains("no answer in 3s"), "{why}");
    let why = read_to_its_end(&mut opened.reader, 2).await;
    assert!(why.contains("delivers nothing any more") || why.contains("no answer"), "{why}");
    assert!(nats.open().await.is_err(), "it does not even greet");
    server.go_on();
    // The record that was not acknowledged may be there, once.
    let mut again = open_again(&nats).await;
    let position = append(&again.appender, [3]).await.expect("stored");
    assert!(position == 2 || position == 3, "{position}");
    let entries = read(&mut again.reader, 1, position as usize).await.expect("read");
    assert_eq!(tags(&entries).first(), Some(&1));
    assert_eq!(tags(&entries).last(), Some(&3));
}

#[tokio::test]
async fn a_stream_that_is_deleted_ends_its_reader() {
    requires_nats!();
    let server = NatsServer::start();
    let nats = Nats::new(&config(&server.url()));
    let mut opened = nats.open().await.expect("created");
    append(&opened.appender, 1..=3).await.expect("stored");
    assert_eq!(read(&mut opened.reader, 1, 3).await.expect("read").len(), 3);
    server.client().delete("log");
    let why = opened.appender.append(record(4)).await.expect_err("no stream");
    assert!(why.0.contains("there is no stream log"), "{why}");
    read_to_its_end(&mut opened.reader, 4).await;
    assert!(opened.reader.bounds().await.is_err());
    let again = open_again(&nats).await;
    assert_eq!((again.bounds.oldest, again.bounds.newest), (1, 0));
}

/// Another stream may have its subject by then.
#[tokio::test]
async fn a_record_is_stored_in_its_stream_only() {
    requires_nats!();
    let server = NatsServer::start();
    let opened = open_again(&Nats::new(&config(&server.url()))).await;
    append(&opened.appender, 1..=3).await.expect("stored");
    let mut client = server.client();
    client.delete("log");
    client.api("STREAM.CREATE.other", &json!({ "name": "other", "subjects": ["log.log"] }));
    let why = opened.appender.append(record(4)).await.expect_err("another stream");
    assert!(why.0.contains("expected stream does not match"), "{why}");
    assert_eq!(client.stream_info("other")["state"]["messages"], 0);
}

#[tokio::test]
async fn a_stream_that_is_created_anew_ends_its_reader() {
    requires_nats!();
    let server = NatsServer::start();
    let config = config(&server.url());
    let mut trusting = config.clone();
    trusting.trust_disk = true;
    let nats = Nats::new(&trusting);
    let mut opened = nats.open().await.expect("created");
    append(&opened.appender, 1..=3).await.expect("stored");
    assert_eq!(read(&mut opened.reader, 1, 3).await.expect("read").len(), 3);
    // It grows past the old head at once.
    let mut client = server.client();
    client.recreate("log", |_| ());
    (1..=5).for_each(|_| _ = client.append("log", "", b"{}"));
    let why = read_to_its_end(&mut opened.reader, 4).await;
    assert!(!why.is_empty());
    let why = opened.reader.bounds().await.expect_err("another stream");
    assert!(why.0.contains("deleted and created anew"), "{why}");
    let again = open_again(&nats).await;
    assert_ne!(again.bounds.identity, opened.bounds.identity);
}

#[tokio::test]
async fn an_older_copy_of_the_disk_shows_its_end() {
    requires_nats!();
    let mut server = NatsServer::start();
    let mut config = config(&server.url());
    config.trust_disk = true;
    let nats = Nats::new(&config);
    let opened = nats.open().await.expect("created");
    append(&opened.appender, 1..=3).await.expect("stored");
    server.stop();
    let copy = server.store().with_file_name("copy");
    copy_folder(&server.store(), &copy);
    server.start_again();
    append(&open_again(&nats).await.appender, 4..=6).await.expect("stored");
    server.stop();
    std::fs::remove_dir_all(server.store()).expect("a folder");
    copy_folder(&copy, &server.store());
    server.start_again();
    let mut again = open_again(&nats).await;
    assert_eq!(again.bounds.newest, 3);
    assert_eq!(again.bounds.identity, opened.bounds.identity, "nothing shows but the records");
    let why = read_to_its_end(&mut again.reader, 7).await;
    assert!(why.contains("the log ends with record 3"), "{why}");
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for file in std::fs::read_dir(from).expect("a folder") {
        let file = file.expect("a file");
        let to = to.join(file.file_name());
        if file.file_type().expect("a type").is_dir() {
            copy_folder(&file.path(), &to);
        } else {
            std::fs::copy(file.path(), to).expect("a file");
        }
    }
}

//! Three servers that keep three copies of a log.

use std::time::{Duration, Instant};

use super::super::super::broker::{Appender, Broker, Entry, Reader};
use super::super::Nats;
use super::support::{
    BOUND, NatsCluster, append, config, eventually, open_again, positions, read_to_its_end, record,
    requires_nats, tags,
};

/// The log of a cluster, through one of these servers.
fn log_of(url: &str) -> Nats {
    let mut config = config(url);
    config.replicas = 3;
    config.timeout = Duration::from_secs(2);
    Nats::new(&config)
}

fn leader(cluster: &NatsCluster) -> usize {
    let mut leader = None;
    eventually("the log has a leader", || {
        leader = cluster.leader_of("log");
        leader.is_some()
    });
    leader.expect("elected")
}

/// Appends records with these tags, each until it is acknowledged, through as many connections as it takes. Returns their
/// positions with their tags; some may be there twice.
async fn append_somehow(nats: &Nats, tags: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
    let (mut opened, mut acknowledged) = (open_again(nats).await, Vec::new());
    for tag in tags {
        let start = Instant::now();
        let position = loop {
            assert!(start.elapsed() < BOUND, "record {tag} is not acknowledged");
            match opened.appender.append(record(tag)).await {
                Ok(position) => break position,
                Err(_) => opened = open_again(nats).await,
            }
        };
        acknowledged.push((position, tag));
    }
    acknowledged
}

/// Reads these records, through as many connections as it takes.
async fn read_somehow(nats: &Nats, first: u64, last: u64) -> Vec<Entry> {
    let (start, mut entries) = (Instant::now(), Vec::<Entry>::new());
    let mut opened = open_again(nats).await;
    loop {
        assert!(start.elapsed() < BOUND, "only {} records", entries.len());
        let next = first + entries.len() as u64;
        if next > last {
            return entries;
        }
        match opened.reader.read(next).await {
            Ok(more) => entries.extend(more),
            Err(_) => opened = open_again(nats).await,
        }
    }
}

/// Fails unless each record is where it was acknowledged to be.
fn expect_at(entries: &[Entry], acknowledged: &[(u64, u64)]) {
    let first = entries.first().expect("some").position;
    for (position, tag) in acknowledged {
        assert_eq!(entries[(position - first) as usize].tag, *tag, "{position}");
    }
}

#[tokio::test]
async fn a_broker_that_is_about_to_end_is_left() {
    requires_nats!();
    let cluster = NatsCluster::start();
    let mut config = config(&cluster.url());
    config.replicas = 3;
    let nats = Nats::new(&config);
    // Opened until it is this server's, which are drawn at random.
    let mut opened = open_again(&nats).await;
    let start = Instant::now();
    while opened.appender.server_name() != "n0" {
        assert!(start.elapsed() < BOUND);
        opened = open_again(&nats).await;
    }
    cluster.servers[0].begin_to_end();
    // Before it says so, it may have no leader to answer.
    while !read_to_its_end(&mut opened.reader, 1).await.contains("the broker is shutting down") {
        assert!(start.elapsed() < BOUND);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_ne!(open_again(&nats).await.appender.server_name(), "n0");
}

#[tokio::test]
async fn a_cluster_outlives_its_leader() {
    requires_nats!();
    let mut cluster = NatsCluster::start();
    let mut config = config(&cluster.url());
    config.replicas = 3;
    let nats = Nats::new(&config);
    let mut opened = open_again(&nats).await;
    let identity = opened.bounds.identity.clone();
    let (mut acknowledged, mut tag) = (Vec::new(), 0);
    for round in 0..2 {
        for _ in 0..50 {
            tag += 1;
            match opened.appender.append(record(tag)).await {
                Ok(position) => acknowledged.push((position, tag)),
                Err(_) => opened = open_again(&nats).await,
            }
        }
        // Two of the three have to have everything when the leader is gone.
        let mut leader = None;
        eventually("all servers have a copy", || {
            leader = cluster.leader_with_copies("log");
            leader.is_some()
        });
        let leader = leader.expect("elected");
        cluster.servers[leader].kill();
        let start = Instant::now();
        // Whatever server it was, the log is soon of use again.
        let mut why = String::new();
        loop {
            assert!(start.elapsed() < BOUND, "round {round}: {why}");
            tag += 1;
            match opened.appender.append(record(tag)).await {
                Ok(position) => break acknowledged.push((position, tag)),
                Err(refused) => {
                    why = refused.to_string();
                    opened = open_again(&nats).await;
                }
            }
        }
        cluster.servers[leader].start_again();
    }
    let opened = open_again(&nats).await;
    assert_eq!(opened.bounds.identity, identity);
    let newest = opened.bounds.newest;
    let entries = read_somehow(&nats, 1, newest).await;
    assert_eq!(positions(&entries), (1..=newest).collect::<Vec<_>>());
    for (position, tag) in acknowledged {
        assert_eq!(entries[position as usize - 1].tag, tag, "{position}");
    }
}

/// None of what was acknowledged is lost while there is no majority, and nothing is acknowledged.
#[tokio::test]
async fn a_cluster_without_a_majority_acknowledges_nothing_and_comes_back() {
    requires_nats!();
    let mut cluster = NatsCluster::start();
    let nats = log_of(&cluster.url());
    let mut opened = open_again(&nats).await;
    let identity = opened.bounds.identity.clone();
    append(&opened.appender, 1..=50).await.expect("stored");
    let rest = leader(&cluster);
    let others = [(rest + 1) % 3, (rest + 2) % 3];
    others.iter().for_each(|server| cluster.servers[*server].kill());
    let refused = opened.appender.append(record(51)).await;
    assert!(refused.is_err(), "{refused:?}");
    read_to_its_end(&mut opened.reader, 51).await;
    others.iter().for_each(|server| cluster.servers[*server].spawn());
    append_somehow(&nats, 52..=100).await;
    // Then all of them, whose disks have it.
    cluster.servers.iter_mut().for_each(|server| server.kill());
    assert!(nats.open().await.is_err());
    cluster.servers.iter_mut().for_each(|server| server.spawn());
    let opened = open_again(&nats).await;
    assert_eq!(opened.bounds.identity, identity, "several that agree forget nothing");
    let acknowledged = append_somehow(&nats, 101..=110).await;
    let newest = acknowledged.last().expect("some").0;
    let entries = read_somehow(&nats, 1, newest).await;
    assert_eq!(positions(&entries), (1..=newest).collect::<Vec<_>>());
    assert_eq!(tags(&entries)[..50], (1..=50).collect::<Vec<_>>());
    expect_at(&entries, &acknowledged);
    cluster.servers[leader(&cluster)].client().recreate("log", |_| ());
    assert_ne!(open_again(&nats).await.bounds.identity, identity, "another stream");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_moves_while_records_are_read_loses_none() {
    requires_nats!();
    let cluster = NatsCluster::start();
    let nats = log_of(&cluster.url());
    let mut opened = open_again(&nats).await;
    let appender = log_of(&cluster.url());
    let appending = tokio::spawn(async move { append_somehow(&appender, 1..=1000).await });
    let (start, mut entries, mut moves) = (Instant::now(), Vec::<Entry>::new(), 0);
    while !appending.is_finished() {
        assert!(start.elapsed() < BOUND, "only {} records", entries.len());
        if entries.len() / 200 > moves {
            moves += 1;
            // There may be none just now.
            let client = cluster.servers[0].client().bounded(Duration::from_secs(1));
            _ = client.expect("a socket").request("$JS.API.STREAM.LEADER.STEPDOWN.log", b"");
        }
        let from = entries.len() as u64 + 1;
        match opened.reader.read(from).await {
            Ok(more) => entries.extend(more),
            Err(_) => opened = open_again(&nats).await,
        }
    }
    let acknowledged = appending.await.expect("no panic");
    assert!(moves > 0, "{} records", entries.len());
    let (from, newest) = (entries.len() as u64 + 1, open_again(&nats).await.bounds.newest);
    entries.extend(read_somehow(&nats, from, newest).await);
    assert_eq!(positions(&entries), (1..=newest).collect::<Vec<_>>());
    expect_at(&entries, &acknowledged);
}

#[tokio::test]
async fn a_replica_that_lags_repeats_nothing_and_loses_nothing() {
    requires_nats!();
    let cluster = NatsCluster::start();
    drop(open_again(&log_of(&cluster.url())).await);
    let mut head = 0;
    for round in 0..6 {
        let first = leader(&cluster);
        let behind = &cluster.servers[(first + 1 + round % 2) % 3];
        let through = |server: usize| log_of(&cluster.servers[server].url());
        behind.pause();
        let acknowledged = append_somehow(&through(first), head + 1..=head + 200).await;
        behind.go_on();
        // Through the one that lags, from the record that was read last.
        let from = head.max(1);
        let newest = acknowledged.last().expect("some").0;
        let entries = read_somehow(&log_of(&behind.url()), from, newest).await;
        assert_eq!(positions(&entries), (from..=newest).collect::<Vec<_>>());
        expect_at(&entries, &acknowledged);
        head = newest;
    }
}

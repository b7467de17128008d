//! What only Redis does: an old primary goes on after a replica of it took over, and a key with the log is deleted.

use super::*;
use crate::backplane::scripted::Semantics;

/// Two servers that have read the same, of which the first stays with the old primary. The other one has had everything
/// re-read that the new one may lack.
async fn split() -> (Scripted, Vec<Node>) {
    let broker = Scripted::with(Semantics::RedisStreams);
    let nodes = Node::cluster(&broker, 2).await;
    nodes[0].publish("seen").await.expect("it is appended");
    nodes[1].has_read(&broker).await;
    broker.edit(|script| script.split([0].into(), script.newest(), "run-2"));
    seconds(5).await;
    nodes[1].publish("here").await.expect("it is appended to the new one");
    assert_eq!(nodes[1].cuts_for(CutReason::Barrier), 1);
    nodes[0].publish("lost").await.expect("it is appended to the old one");
    assert_eq!(nodes[0].cuts(), 0);
    (broker, nodes)
}

/// SCENARIO: a replica of Redis takes over, and the servers that follow it have all their clients re-read. The old primary
/// goes on for some seconds, with one server, which acknowledges a publish. Then the old primary becomes a replica.
/// BUG: the server's barrier for the loss said that every barrier which it had not read before was appended after the
/// loss. That of the failover was not, and had the others ignore this one: their clients never saw the publish.
/// FIX: of another run, only barriers that are appended after it was opened make up for a loss.
#[test]
fn what_an_old_primary_acknowledged_is_a_cut_where_the_new_one_was_followed_before() {
    test(async {
        let (broker, nodes) = split().await;
        broker.edit(|script| script.join());
        seconds(30).await;
        assert_eq!(nodes[1].cuts_for(CutReason::Barrier), 2);
        assert!(nodes[0].cuts() >= 1);
    });
}

/// SCENARIO: as above, and the log of the new primary is trimmed past what the old one had.
/// BUG: that server could not compare, cut its own streams alone, and appended no barrier.
/// FIX: what cannot be compared with another run counts as lost there.
#[test]
fn what_an_old_primary_acknowledged_is_a_cut_where_the_new_one_was_trimmed_since() {
    test(async {
        let (broker, nodes) = split().await;
        for n in 0..5 {
            nodes[1].publish(&format!("k{n}")).await.expect("it is appended");
        }
        broker.edit(|script| script.trim(script.newest()));
        broker.edit(|script| script.join());
        seconds(30).await;
        assert_eq!(nodes[1].cuts_for(CutReason::Barrier), 2);
        assert!(nodes[0].cuts() >= 1);
    });
}

/// SCENARIO: a log whose barriers are at high positions is deleted, as the guide says for one that is damaged. Its servers
/// notice one after the other.
/// BUG: the new log's positions are lower than that of the last barrier in the old one, so no server took the barrier of
/// another one for as good as its own, nor ignored it: with N servers, all clients re-read N times.
/// FIX: a broker that loses no record without all before it has barriers in its log that are all from after the loss.
#[test]
fn a_log_that_is_deleted_is_cut_by_one_barrier_however_many_servers_notice() {
    test(async {
        let broker = Scripted::with(Semantics::RedisStreams);
        let nodes = Node::cluster(&broker, 5).await;
        for n in 0..30 {
            nodes[0].publish(&format!("k{n}")).await.expect("it is appended");
        }
        nodes[0].backplane.barrier("a command").await.expect("it is appended");
        for node in &nodes {
            node.has_read(&broker).await;
            assert_eq!(node.cuts_for(CutReason::Barrier), 1);
        }
        broker.edit(|script| script.delete());
        seconds(60).await;
        for node in &nodes {
            let counters = node.backplane.counters();
            let cuts = [CutReason::Forgot, CutReason::Barrier].map(|reason| counters.cuts(reason));
            assert_eq!((cuts, node.cuts()), ([1, 2], 3));
        }
    });
}

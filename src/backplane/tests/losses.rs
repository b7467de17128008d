//! A log that loses what it had.

use super::*;

#[test]
fn a_broker_that_restarts_makes_one_cut_on_each_node() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 5).await;
        nodes[0].publish("before").await.expect("it is appended");
        broker.edit(|script| script.restart("run-2"));
        seconds(60).await;
        for node in &nodes {
            assert_eq!(node.cuts_for(CutReason::Barrier), 1);
        }
    });
}

#[test]
fn a_lost_tail_whose_positions_are_used_again_cuts_every_node() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 3).await;
        broker.edit(|script| script.set_cut_off(2, true));
        for n in 0..5 {
            nodes[0].publish(&format!("k{n}")).await.expect("it is appended");
        }
        nodes[1].has_read(&broker).await;
        // A failover: the last 5 are lost. Node 2 had none of them.
        broker.edit(|script| {
            script.truncate(script.newest() - 5);
            for n in 0..7 {
                script.push(100 + n, Kind::Lines, "{\"org\":\"acme\",\"keys\":[\"x\"]}\n");
            }
            script.disconnect_all();
            script.set_cut_off(2, false);
        });
        seconds(30).await;
        for (index, node) in nodes.iter().enumerate() {
            let barriers = node.backplane.counters().cuts(CutReason::Barrier);
            assert!(barriers >= 1, "a barrier counts on node {index}");
            node.has_read(&broker).await;
        }
        assert_eq!(nodes[2].cuts_for(CutReason::Barrier), 1, "it could not notice");
    });
}

#[test]
fn a_log_trimmed_past_a_slow_node_cuts_that_node_only() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 2).await;
        broker.edit(|script| script.set_cut_off(1, true));
        for n in 0..20 {
            nodes[0].publish(&format!("k{n}")).await.expect("it is appended");
        }
        seconds(31).await;
        broker.edit(|script| {
            script.trim(script.newest() - 3);
            script.set_cut_off(1, false);
        });
        nodes[1].is_connected().await;
        nodes[1].has_read(&broker).await;
        seconds(10).await;
        assert_eq!(nodes[1].cuts_for(CutReason::Trimmed), 1);
        assert_eq!(nodes[0].cuts(), 0);
    });
}

#[test]
fn a_log_that_is_deleted_while_it_is_read_cuts_every_node_within_10_seconds() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 2).await;
        for n in 0..20 {
            nodes[0].publish(&format!("k{n}")).await.expect("it is appended");
        }
        nodes[1].has_read(&broker).await;
        broker.edit(|script| script.reset());
        seconds(10).await;
        for node in &nodes {
            assert!(node.cuts() >= 1);
            node.publish("after").await.expect("it works again");
        }
    });
}

#[test]
fn one_missing_record_is_a_cut_on_each_node() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 2).await;
        (0..2).for_each(|node| broker.edit(|script| script.set_stalled(node, true)));
        broker.edit(|script| {
            let gone = script.push(1, Kind::Lines, "");
            script.push(2, Kind::Lines, "");
            script.remove(gone);
            (0..2).for_each(|node| script.set_stalled(node, false));
        });
        seconds(10).await;
        for node in &nodes {
            assert_eq!(node.cuts_for(CutReason::Gap), 1);
        }
    });
}

#[test]
fn records_that_are_lost_or_repeated_on_the_way_are_read_again() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 1).await;
        broker.edit(|script| script.skip_once(1));
        let first = nodes[0].append(keys("a"));
        seconds(1).await;
        broker.edit(|script| script.repeat_once(3));
        nodes[0].publish("b").await.expect("it is appended");
        first.await.expect("no panic").expect("it is read again");
        nodes[0].has_read(&broker).await;
        assert_eq!(nodes[0].cuts(), 0);
    });
}

/// SCENARIO: the broker's disk is trusted. A record is acknowledged that only its publisher has read, which dies. The log
/// is deleted, and another one is made of a backup, which lacks this record.
/// BUG: with a trusted disk identities were not compared at all: the records that the others had read were there, and
/// no server was cut.
/// FIX: the identity of a trusted disk is that of the log, which is another one.
#[test]
fn another_log_with_the_same_records_cuts_every_node_that_trusts_the_disk() {
    test(async {
        let broker = Scripted::new().trusting();
        let nodes = Node::cluster(&broker, 3).await;
        nodes[0].publish("seen").await.expect("it is appended");
        nodes[1].has_read(&broker).await;
        (1..3).for_each(|node| broker.edit(|script| script.set_cut_off(node, true)));
        nodes[0].publish("lost").await.expect("it is appended");
        broker.edit(|script| {
            script.set_cut_off(0, true);
            script.truncate(script.newest() - 1);
            script.recreate();
            (1..3).for_each(|node| script.set_cut_off(node, false));
        });
        seconds(30).await;
        for node in &nodes[1..] {
            assert_eq!(node.cuts_for(CutReason::Barrier), 1);
        }
    });
}

/// SCENARIO: as above, after a barrier by hand which all servers have read, and which is no longer in the log.
/// BUG: the servers that noticed read the end of the log again, without that barrier, and theirs said that they knew of
/// none. The one that could not notice knew it, and ignored theirs.
/// FIX: a barrier says what its server knew before the loss.
#[test]
fn a_lost_tail_cuts_every_node_after_a_barrier_too() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 3).await;
        nodes[0].backplane.barrier("the database was restored").await.expect("it is appended");
        nodes[0].publish("seen").await.expect("it is appended");
        for node in &nodes {
            node.has_read(&broker).await;
        }
        broker.edit(|script| script.set_cut_off(2, true));
        for n in 0..5 {
            nodes[0].publish(&format!("k{n}")).await.expect("it is appended");
        }
        nodes[1].has_read(&broker).await;
        broker.edit(|script| {
            script.truncate(script.newest() - 5);
            script.trim(script.newest());
            script.disconnect_all();
            script.set_cut_off(2, false);
        });
        seconds(30).await;
        for node in &nodes {
            node.has_read(&broker).await;
        }
        assert_eq!(
            nodes[2].backplane.counters().cuts(CutReason::Barrier),
            2,
            "it could not notice"
        );
    });
}

/// SCENARIO: the last record is deleted that all servers have read.
/// BUG: nothing proved that the log is the one that was read, so nothing was appended, not even a beat, and nothing came:
/// every server opened the log again each 5 s.
/// FIX: the second time a beat is appended, behind which the record is missing.
#[test]
fn a_last_record_that_is_deleted_is_a_cut_on_each_node() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 2).await;
        nodes[0].publish("last").await.expect("it is appended");
        nodes[1].has_read(&broker).await;
        broker.edit(|script| {
            script.remove(script.newest());
            script.disconnect_all();
        });
        seconds(1).await;
        for node in &nodes {
            node.is_connected().await;
            node.publish("after").await.expect("it goes on");
            assert_eq!(node.cuts_for(CutReason::Gap), 1);
        }
    });
}

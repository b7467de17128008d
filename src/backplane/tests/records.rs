//! Records of others, and of versions to come.

use super::*;

#[test]
fn a_barrier_by_hand_cuts_every_node_once() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 2).await;
        let (_stream, _) = nodes[0]
            .hub
            .subscribe(&org(), View::Member, None, nodes[0].clock.now())
            .expect("not closing");
        assert_eq!(nodes[0].backplane.barrier("the database was restored").await, Ok(1));
        nodes[1].has_read(&broker).await;
        for node in &nodes {
            assert_eq!(node.cuts_for(CutReason::Barrier), 1);
        }
    });
}

#[test]
fn foreign_garbage_is_skipped_and_counted() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 1).await;
        broker.edit(|script| {
            script.push(1, Kind::Lines, &b"garbage\n{\"org\":\"acme\",\"keys\":[\"a\"]}\n\xff"[..]);
            script.push(0, Kind::Lines, vec![b'{'; 1 << 20]);
            let (version, kind) = (VERSION, None);
            let entry = Entry { position: 0, tag: 3, version, kind, payload: "?".into() };
            script.push_entry(entry);
        });
        nodes[0].publish("after").await.expect("it goes on");
        let counters = nodes[0].backplane.counters();
        assert_eq!(metrics::read(&counters.records_bad), 1);
        assert_eq!(metrics::read(&counters.lines_skipped), 3);
        assert_eq!(nodes[0].cuts(), 0);
    });
}

#[test]
fn a_record_of_a_newer_version_cuts() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 1).await;
        let (version, kind) = (VERSION + 1, Some(Kind::Lines));
        broker.edit(|script| {
            script.push_entry(Entry { position: 0, tag: 3, version, kind, payload: "?".into() });
        });
        nodes[0].publish("after").await.expect("it goes on");
        assert_eq!(nodes[0].cuts_for(CutReason::Version), 1);
    });
}

/// SCENARIO: a server starts on a long log, whose last records it reads twice: first to learn how large they are.
/// BUG: it counted those twice.
/// FIX: a record counts when it is applied.
#[test]
fn a_record_is_counted_once() {
    test(async {
        let broker = Scripted::new();
        broker.edit(|script| (1..=1_100).for_each(|tag| _ = script.push(tag, Kind::Lines, "")));
        let nodes = Node::cluster(&broker, 1).await;
        assert_eq!(nodes[0].backplane.counters().records(Kind::Lines), 1_100);
    });
}

/// SCENARIO: many records of a newer version come at once.
/// BUG: those that one cut is enough for counted as one.
/// FIX: each counts.
#[test]
fn each_record_of_a_newer_version_counts() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 1).await;
        let (version, kind) = (VERSION + 1, Some(Kind::Lines));
        broker.edit(|script| {
            for tag in 1..=3 {
                script.push_entry(Entry { position: 0, tag, version, kind, payload: "?".into() });
            }
        });
        nodes[0].publish("after").await.expect("it goes on");
        assert_eq!(nodes[0].cuts_for(CutReason::Version), 1);
        assert_eq!(metrics::read(&nodes[0].backplane.counters().records_bad), 3);
    });
}

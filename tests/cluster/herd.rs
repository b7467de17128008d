//! Many streams that have to read everything again.

use std::collections::BTreeSet;

use crate::harness::broker::{Broker, for_each_broker};
use crate::harness::{Cluster, size};
use crate::support::eventually;

for_each_broker!(a_crowd_reads_again_one_after_the_other_and_no_other_org_waits,);

/// Beside them, publishes to other orgs are accepted and delivered, and the crowd does not come all at once.
fn a_crowd_reads_again_one_after_the_other_and_no_other_org_waits<B: Broker>() {
    rlimit::increase_nofile_limit(u64::MAX).expect("getrlimit(2)");
    let broker = B::start();
    let crowd = size(600, 8_000);
    let flags = ["--reread-window", "4s", "--keepalive", "1h"];
    let mut cluster = Cluster::on(&broker, 2, &flags);
    cluster.browse(4);
    let mut streams: Vec<_> = (0..crowd)
        .map(|n| cluster.nodes[n % 2].server().stream(&format!("crowd{}", n % 50)))
        .collect();
    streams.iter_mut().for_each(|stream| _ = stream.connected());
    cluster.publish();
    let answer = cluster.nodes[0].server().post("/api/reread", "application/json", "");
    assert!((200..300).contains(&answer.status()), "{answer:?}");
    let before = cluster.publishers().answers().accepted;
    // How far the crowd was when publishes were accepted.
    let mut silent: BTreeSet<usize> = (0..crowd).collect();
    let mut seen = BTreeSet::new();
    eventually("all of the crowd read again", || {
        silent.retain(|n| streams[*n].client.is_silent());
        seen.insert((cluster.publishers().answers().accepted - before, silent.len()));
        silent.is_empty()
    });
    let partial = seen.iter().filter(|(_, silent)| (1..crowd).contains(silent)).count();
    assert!(partial > 3, "all at once: {seen:?}");
    let accepted = seen.iter().filter(|(accepted, silent)| *accepted > 0 && *silent > 0);
    assert!(accepted.count() > 0, "publishes waited for the crowd: {seen:?}");
    cluster.settle();
    for stream in &mut streams {
        assert!(stream.next().contains("event: connected\n"));
        assert!(stream.client.is_silent(), "more than one event");
    }
}

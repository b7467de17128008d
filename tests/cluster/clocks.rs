//! Nodes whose clocks are wrong, by `libfaketime`: no clock crosses machines.

use crate::harness::Cluster;
use crate::harness::broker::{Broker, for_each_broker};
use crate::harness::exact::next;
use crate::support::programs::{LIBFAKETIME, requires};

for_each_broker!(clocks_that_are_an_hour_wrong_make_no_difference,);

/// One node is an hour ahead, one an hour late; the broker and the third node have the right time.
fn clocks_that_are_an_hour_wrong_make_no_difference<B: Broker>() {
    requires!(LIBFAKETIME);
    let broker = B::start();
    let mut cluster = Cluster::new();
    for offset in ["+1h", "-1h", ""] {
        let node = cluster.add(&broker, &[]);
        if !offset.is_empty() {
            node.set_clock(offset);
        }
    }
    cluster.start_all();
    let date = |node: usize| {
        let answer = cluster.nodes[node].server().get("/livez");
        answer.header("date").map(str::to_owned)
    };
    if let (Some(ahead), Some(right)) = (date(0), date(2)) {
        assert_ne!(ahead[..22], right[..22], "the clock is not wrong");
    }
    cluster.browse(12);
    cluster.publish();
    for node in 0..3 {
        cluster.publishers().progress(20);
        cluster.kill(node);
        cluster.publishers().progress(10);
        cluster.connected();
        cluster.restart(node);
    }
    cluster.settle();
    cluster.expect_no_reread();
    // From each clock to each other one.
    for from in 0..3 {
        for to in 0..3 {
            let (_, greeting) = cluster.stream(from, "acme", "");
            let id = cluster.publish_at(from, "acme", &["k"]);
            cluster.catch_up();
            let (mut stream, resumed) = cluster.stream(to, "acme", &greeting.id);
            assert_eq!(resumed.name, "resumed", "{from} to {to}");
            assert_eq!(next(&mut stream).id, id);
        }
    }
}

//! The harness itself, on one server without a broker: what it must accept, and what it must find.

use std::io::ErrorKind;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::harness::Cluster;
use crate::harness::path::{Fault, FaultyPath};
use crate::support::nats::NatsServer;
use crate::support::programs::{NATS_SERVER, requires};
use crate::support::{NatsClient, eventually};

/// Browsers come and go while backends publish.
#[test]
fn browsers_that_come_back_to_one_server_miss_nothing() {
    let mut cluster = Cluster::alone(&["--coalesce", "10ms"]);
    cluster.browse(12);
    cluster.publish();
    for _ in 0..3 {
        cluster.publishers().progress(20);
        cluster.browsers.iter().step_by(2).for_each(|browser| browser.disconnect());
    }
    cluster.publishers().progress(20);
    cluster.settle();
    let counts = cluster.counts();
    assert_eq!((counts.opened, counts.refused), (12, 0), "{counts:?}");
    assert!(counts.resumed > 0 && counts.invalidations > 0, "{counts:?}");
    cluster.expect_no_reread();
}

/// Without a log, a killed server takes its history with it.
#[test]
fn a_server_that_forgets_its_history_is_found_out() {
    let mut cluster = Cluster::alone(&[]);
    cluster.browse(4);
    cluster.publish();
    cluster.kill(0);
    cluster.restart(0);
    eventually("all read everything again", || cluster.counts().rereads == 4);
    cluster.settle();
}

/// A row whose publish reaches no browser.
#[test]
fn a_lost_key_is_found() {
    let mut cluster = Cluster::alone(&[]);
    cluster.browse(1);
    cluster.publish();
    cluster.settle();
    let version = cluster.database.update(0, 7_777);
    cluster.database.acknowledge(0, 7_777, version);
    assert_eq!(cluster.browsers[0].lacks(), ["k7777 at 0 of 1"]);
}

/// What is said to happen to the path of a node to its broker does happen.
#[test]
fn a_path_has_the_fault_that_it_is_given() {
    requires!(NATS_SERVER);
    let nats = NatsServer::start();
    nats.client()
        .api("STREAM.CREATE.nudged", &json!({"name": "nudged", "subjects": ["nudged.log"]}));
    let newest = || nats.client().stream_info("nudged")["state"]["last_seq"].as_u64();
    let path = FaultyPath::to(nats.address());
    let connect = || NatsClient::connect(path.address, None);
    assert_eq!(connect().expect("no fault").append("nudged", "", b"x"), 1);

    let mut client = connect().expect("no fault yet");
    path.set(Fault::LateAcks(Duration::from_millis(200)));
    assert_eq!((client.append("nudged", "", b"x"), path.acks()), (2, 1));

    path.set(Fault::NoAcks);
    let waits = thread::spawn(move || client.request("nudged.log", b"x").map_err(|why| why.kind()));
    eventually("the acknowledgement is lost", || path.acks() == 2);
    path.set(Fault::Reset);
    let ends = [ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof];
    assert!(waits.join().expect("no panic").is_err_and(|why| ends.contains(&why)));
    assert!(connect().is_err());
    path.set(Fault::None);
    assert_eq!((newest(), connect().is_ok()), (Some(3), true));

    for (fault, stored) in [(Fault::Silence, 3), (Fault::SilentBroker, 4)] {
        let mut client = connect().expect("no fault");
        path.set(fault);
        let waits = thread::spawn(move || client.request("nudged.log", b"x").is_err());
        // What it does not store, it does not store later either.
        thread::sleep(Duration::from_millis(300));
        eventually("it is stored, or is not", || newest() == Some(stored));
        assert_eq!((newest(), waits.is_finished()), (Some(stored), false), "{fault:?}");
        path.set(Fault::Reset);
        assert!(waits.join().expect("no panic"));
        path.set(Fault::None);
    }
}

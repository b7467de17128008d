//! The harness itself, on one server without a broker: what it must accept, and what it must find.

use std::io::ErrorKind;
use std::thread;
use std::time::Duration;

use crate::harness::Cluster;
use crate::harness::broker::{Broker, Form, LogClient, for_each_broker};
use crate::harness::path::{Fault, FaultyPath};
use crate::support::eventually;

for_each_broker!(a_path_has_the_fault_that_it_is_given,);

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
fn a_path_has_the_fault_that_it_is_given<B: Broker>() {
    let broker = B::start();
    broker.create_log();
    let newest = || broker.client().newest();
    let path = FaultyPath::to(broker.address(), B::PROTOCOL);
    let connect = || B::Client::connect(path.address);
    let store = |client: &mut B::Client| client.store(Form::Bare, b"x");
    assert_eq!(store(&mut connect().expect("no fault")), 1);

    let mut client = connect().expect("no fault yet");
    path.set(Fault::LateAcks(Duration::from_millis(200)));
    assert_eq!((store(&mut client), path.acks()), (2, 1));

    path.set(Fault::NoAcks);
    let waits = thread::spawn(move || client.try_store(Form::Bare, b"x").map_err(|why| why.kind()));
    eventually("the acknowledgement is lost", || path.acks() == 2);
    path.set(Fault::Reset);
    let ends = [ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof];
    assert!(waits.join().expect("no panic").is_err_and(|why| ends.contains(&why)));
    assert!(connect().is_err());
    path.set(Fault::None);
    assert_eq!((newest(), connect().is_ok()), (3, true));

    for (fault, stored) in [(Fault::Silence, 3), (Fault::SilentBroker, 4)] {
        let mut client = connect().expect("no fault");
        path.set(fault);
        let waits = thread::spawn(move || client.try_store(Form::Bare, b"x").is_err());
        // What it does not store, it does not store later either.
        thread::sleep(Duration::from_millis(300));
        eventually("it is stored, or is not", || newest() == stored);
        assert_eq!((newest(), waits.is_finished()), (stored, false), "{fault:?}");
        path.set(Fault::Reset);
        assert!(waits.join().expect("no panic"));
        path.set(Fault::None);
    }
}

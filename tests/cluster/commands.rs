//! The commands of the command line against a cluster, and behind the balancer of `.proxies`.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::harness::Cluster;
use crate::harness::broker::{Broker, for_each_broker};
use crate::support::killed::Killed;
use crate::support::programs::{HAPROXY, requires};
use crate::support::proxy::Proxy;
use crate::support::temp_dir::TempDir;
use crate::support::{Server, eventually};

for_each_broker!(
    behind_a_balancer_listen_goes_on_at_another_node,
    a_command_to_one_node_is_for_the_streams_of_all,
    publish_waits_for_a_log_that_is_away,
    bench_loads_two_nodes,
);

/// `nudged listen`, and what it has printed.
struct Listener {
    _child: Killed,
    dir: TempDir,
}

// ===== impl Listener =====

impl Listener {
    fn start(url: &str, args: &[&str]) -> Self {
        let dir = TempDir::new();
        let file = |name: &str| File::create(dir.file(name)).expect("a file");
        let mut command = nudged(url, &[&["listen", "acme"][..], args].concat());
        command.stdout(file("events")).stderr(file("notes"));
        Self { _child: Killed(command.spawn().expect("the program")), dir }
    }

    /// The names of the events that it has printed, with their data, without keepalives.
    fn events(&self) -> Vec<String> {
        let events = fs::read_to_string(self.dir.file("events")).expect("text");
        let events = events.lines().filter(|line| !line.starts_with("ping "));
        events.map(|line| line.split("  id=").next().expect("a piece").to_owned()).collect()
    }

    fn prints(&self, expected: &[&str]) {
        eventually(&format!("it prints {expected:?}"), || self.events().len() >= expected.len());
        assert_eq!(self.events(), expected);
    }
}

fn nudged(url: &str, args: &[&str]) -> Command {
    let mut command = Server::command();
    command.args(args).args(["--url", url]);
    command
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

fn spawn(mut command: Command) -> Child {
    command.stderr(Stdio::piped()).spawn().expect("the program")
}

/// What a command printed that had to succeed.
fn success(output: &Output) -> (String, String) {
    assert!(output.status.success(), "{output:?}");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    (text(&output.stdout), text(&output.stderr))
}

fn run(url: &str, args: &[&str]) -> (String, String) {
    success(&spawn(nudged(url, args)).wait_with_output().expect("the program"))
}

const CONNECTED: &str = r#"connected {"keepalive":1}"#;
const RESUMED: &str = r#"resumed {"keepalive":1}"#;

/// SCENARIO: the node of a stream is killed, behind a balancer that does not know it yet.
fn behind_a_balancer_listen_goes_on_at_another_node<B: Broker>() {
    requires!(HAPROXY);
    let broker = B::start();
    let mut cluster = Cluster::on(&broker, 2, &[]);
    let [first, second] = [0, 1].map(|node| cluster.nodes[node].server().address());
    let balancer = Proxy::haproxy_cluster(first, second);
    let balanced = url(balancer.address);
    let listener = Listener::start(&balanced, &[]);
    listener.prints(&[CONNECTED]);
    run(&balanced, &["publish", "acme", "first"]);
    let invalidate = |key: &str| format!(r#"invalidate {{"keys":["{key}"]}}"#);
    listener.prints(&[CONNECTED, &invalidate("first")]);

    let node = usize::from(cluster.nodes[1].server().seats() == 1);
    cluster.kill(node);
    run(&balanced, &["publish", "acme", "second"]);
    listener.prints(&[CONNECTED, &invalidate("first"), RESUMED, &invalidate("second")]);
    assert_eq!(cluster.nodes[1 - node].server().seats(), 1);
}

fn a_command_to_one_node_is_for_the_streams_of_all<B: Broker>() {
    let broker = B::start();
    let cluster = Cluster::on(&broker, 2, &["--coalesce", "0"]);
    let [here, there] = [0, 1].map(|node| url(cluster.nodes[node].server().address()));
    let listener = Listener::start(&there, &[]);
    listener.prints(&[CONNECTED]);
    let (id, _) = run(&here, &["publish", "acme", "posts"]);
    let event = r#"invalidate {"keys":["posts"]}"#;
    listener.prints(&[CONNECTED, event]);
    let events = fs::read_to_string(listener.dir.file("events")).expect("text");
    assert!(
        events.contains(&format!("{event}  id={id}")),
        "{id} is its id at every node: {events}"
    );

    // The number is that of the node which is asked.
    assert_eq!(run(&here, &["reread", "acme"]).0, "0 streams\n");
    listener.prints(&[CONNECTED, event, CONNECTED]);
    run(&here, &["reread"]);
    listener.prints(&[CONNECTED, event, CONNECTED, CONNECTED]);

    let topic = Listener::start(&there, &["--topic", "run-1"]);
    topic.prints(&[CONNECTED]);
    run(&here, &["publish", "acme", "--topic", "run-1", "--event", "output", "--data", "7"]);
    run(&here, &["close", "acme", "--topic", "run-1", "--reason", "done"]);
    topic.prints(&[CONNECTED, "output 7", r#"closed {"reason":"done"}"#]);
}

/// While nothing can be stored, a publish of keys is tried again, and that of an event is not: it may have been stored.
fn publish_waits_for_a_log_that_is_away<B: Broker>() {
    let broker = B::start();
    let cluster = Cluster::on(&broker, 1, &["--backplane-timeout", "1s"]);
    let here = url(cluster.nodes[0].server().address());
    let listener = Listener::start(&here, &[]);
    listener.prints(&[CONNECTED]);
    broker.pause();
    let event = ["publish", "acme", "--topic", "run-1", "--event", "output", "--data", "7"];
    let failed = spawn(nudged(&here, &event)).wait_with_output().expect("the program");
    let stderr = String::from_utf8(failed.stderr).expect("text");
    assert_eq!(failed.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("it is not known whether this was done"), "{stderr}");

    let refused = || cluster.nodes[0].metrics("nudged_backplane_appends_total");
    let before = refused().values().sum::<f64>();
    let publishing = spawn(nudged(&here, &["publish", "acme", "posts"]));
    eventually("it was refused", || refused().values().sum::<f64>() > before);
    broker.go_on();
    let (id, notes) = success(&publishing.wait_with_output().expect("the program"));
    assert!(id.contains('-'), "{id}");
    let note = "the server answered 503 Service Unavailable: ";
    assert!(notes.starts_with(note) && notes.contains("; trying again in "), "{notes}");
    listener.prints(&[CONNECTED, r#"invalidate {"keys":["posts"]}"#]);
}

/// The streams at one node, the publishes at another.
fn bench_loads_two_nodes<B: Broker>() {
    let broker = B::start();
    let cluster = Cluster::on(&broker, 2, &["--coalesce", "0"]);
    let [here, there] = [0, 1].map(|node| url(cluster.nodes[node].server().address()));
    let mut command = Server::command();
    command.args(["bench", &there, "--publish-url", &here, "-n", "50", "--json"]);
    command.args(["--every", "50ms", "--duration", "2s"]);
    let (json, _) = success(&spawn(command).wait_with_output().expect("the program"));
    let summary: Value = serde_json::from_str(&json).expect("JSON");
    let published = summary["published"].as_u64().expect("a number");
    assert!(published > 5, "{summary}");
    assert_eq!(summary["delivered"], published * 50, "{summary}");
}
